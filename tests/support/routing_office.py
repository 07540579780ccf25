"""Where all that routing knows is changed through the rooms that change it, at random; and what two tables say."""

import random
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import product

from accounts_office import OWN_NAMES, PLANS

from appliance.accounts.accounts import Accounts
from appliance.accounts.aliases import AliasChanges, Aliases
from appliance.accounts.blocks import Blocks
from appliance.accounts.consent import Consent
from appliance.accounts.deletion import Deletion
from appliance.accounts.domains import Domains
from appliance.accounts.ownership import Ownership, Question
from appliance.model.account import Account, Role
from appliance.model.block import BlockKind
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Domain, LogLevel
from appliance.model.ids import id_source
from appliance.model.letter import Letter
from appliance.model.refused import Refused
from appliance.model.time import Clock
from appliance.privacy.owners import owned_elsewhere
from appliance.privacy.sealing import Sealer
from appliance.privacy.signatures import Signer
from appliance.routing.route import route
from appliance.routing.snapshot import Settings, Snapshot
from appliance.storage.records import Page, RecordStore
from smtp.address import Address

SETTINGS = Settings("mx.onward.test", "srs.mx.onward.test", plans=PLANS)
NAMES = ("a.test", "b.test", "c.test", "d.test", "e.test")
PATTERNS = ("x", "y", "x+y", "x*", "xy*", "*", "postmaster", "/^x-(.+)$/", "/y/")
TARGETS = ("m@home.test", "n@home.test", "o@home.test", "x@a.test", "y@b.test", "xy@c.test", "x@d.test")
PEOPLE = tuple(f"{name}@people.test" for name in ("ann", "ben", "cat", "dan"))
LOCAL_PARTS = ("x", "y", "xy", "x-y", "x+y", "z", "postmaster")
SENDERS = ("a@spam.test", "b@spam.test", "a@other.test")


class RandomOffice:
    """Changes accounts, domains, aliases, destinations, blocks and plans. What is refused changes nothing."""

    def __init__(self, records: RecordStore, chance: random.Random, clock: Clock) -> None:
        self._records = records
        self._chance = chance
        ids = id_source(clock)
        self._letters: list[Letter] = []
        self._proofs: dict[str, tuple[str, ...]] = {}
        consent = Consent(records, "https://onward.test/{}/{}".format, Sealer(bytes(32)), clock, ids)
        self._consent = consent
        self.accounts = Accounts(records, PLANS, clock, ids)
        self.domains = Domains(records, PLANS, OWN_NAMES, clock, ids)
        # Few references, so that one that has become free is soon drawn again.
        self.aliases = Aliases(
            records, PLANS, OWN_NAMES, clock, ids, choose=lambda _: chance.choice("ab"), consent=(consent, self)
        )
        self._blocks = Blocks(records, clock, ids)
        self._ownership = Ownership(records, "mx.onward.test", Sealer(bytes(32)), self._look_up, clock)
        elsewhere = dict.fromkeys(owned_elsewhere(), lambda account_id: 0)
        self._deletion = Deletion(
            records, Signer(bytes(32)), "mx.onward.test", lambda domain: 0, lambda given_up: None, elsewhere, clock
        )
        self._ways: list[tuple[int, Callable[[], object]]] = [
            (2, self._add_account),
            (1, self._change_plan),
            (1, self._delete_account),
            (6, self._add_domain),
            (2, self._prove_domain),
            (2, self._change_domain),
            (2, self._erase_domain),
            (14, self._add_alias),
            (6, self._change_alias),
            (3, self._erase_alias),
            (4, self._agree),
            (1, self._add_block),
            (1, self._erase_block),
        ]

    def change(self) -> None:
        """One change, or an attempt at one."""
        weights, ways = zip(*self._ways, strict=True)
        with suppress(Refused, IndexError):
            self._chance.choices(ways, weights)[0]()

    def send(self, letter: Letter) -> None:
        """See `Post`."""
        self._letters.append(letter)

    def _look_up(self, asked: Iterable[Question]) -> dict[Question, tuple[str, ...] | None]:
        return {question: self._proofs.get(question.name, ()) for question in asked}

    def _account(self) -> Account:
        return self._chance.choice(list(self.accounts.every()))

    def _domain(self) -> Domain:
        return self._chance.choice(list(self.domains.every()))

    def _alias(self) -> tuple[Alias, Domain]:
        listed = self._chance.choice(list(self.aliases.every()))
        return listed.alias, listed.domain

    def _targets(self) -> list[str]:
        return self._chance.sample(TARGETS, self._chance.randint(1, 3))

    def _add_account(self) -> None:
        role = self._chance.choices((Role.MEMBER, Role.OPERATOR), (4, 1))[0]
        self.accounts.add(self._chance.choice(PEOPLE), role=role, plan=self._chance.choice(list(PLANS)))

    def _change_plan(self) -> None:
        self.accounts.set_plan(self._account().id, self._chance.choice(list(PLANS)))

    def _delete_account(self) -> None:
        self._deletion.delete(self._account())

    def _add_domain(self) -> None:
        self.domains.add(
            self._chance.choice(NAMES),
            self._account(),
            verified=self._chance.random() < 0.6,
            delivery_mode=self._chance.choice(list(DeliveryMode)),
            log_level=self._chance.choice(list(LogLevel)),
        )

    def _prove_domain(self) -> None:
        domain = self._domain()
        self._proofs = {f"_onward-challenge.{domain.name}": (self._ownership.challenge(domain),)}
        self._ownership.check(domain)

    def _change_domain(self) -> None:
        self.domains.update(self._domain(), log_level=self._chance.choice(list(LogLevel)))

    def _erase_domain(self) -> None:
        self.domains.erase(self._domain())

    def _add_alias(self) -> None:
        action = self._chance.choices(list(AliasAction), (8, 1, 1, 1))[0]
        self.aliases.create(
            self._domain(),
            self._chance.choice(PATTERNS),
            self._targets() if action is AliasAction.FORWARD else (),
            action=action,
            confirmed=self._chance.random() < 0.5,
            remaining_uses=3 if self._chance.random() < 0.2 else None,
        )

    def _change_alias(self) -> None:
        alias, domain = self._alias()
        changes = self._chance.choice(
            [
                AliasChanges(enabled=not alias.enabled),
                AliasChanges(pattern=self._chance.choice(PATTERNS)),
                AliasChanges(destinations=self._targets()),
                AliasChanges(remaining_uses=self._chance.choice((None, 5))),
                AliasChanges(description=self._chance.choice(("one", "two"))),
            ]
        )
        self.aliases.update(alias, domain, changes)

    def _erase_alias(self) -> None:
        self.aliases.delete(*self._alias())

    def _agree(self) -> None:
        letter = self._chance.choice(self._letters)
        found = re.search(r"confirm-destination/(\S+)", letter.text)
        assert found
        self._consent.confirm(found[1])

    def _add_block(self) -> None:
        self._blocks.create(BlockKind.SENDER, self._chance.choice(SENDERS), "Spam.")

    def _erase_block(self) -> None:
        self._blocks.delete(self._chance.choice(self._blocks.page(Page())).id)


def told(table: Snapshot, now: int, references: Iterable[str], domain_ids: Iterable[str]) -> dict[str, object]:
    """All that a table has to say: of every name, and of what has ever had one of these references and ids."""
    said: dict[str, object] = {"postmaster": table.postmaster, "counters": set(table.use_counters)}
    for name in NAMES:
        hosted = table.hosted(name)
        aliases = sorted(hosted.aliases(), key=lambda alias: alias.id) if hosted else []
        said[name] = (hosted.domain if hosted else None, aliases)
    for local_part, name in product(LOCAL_PARTS, (*NAMES, "mx.onward.test")):
        said[f"{local_part}@{name}"] = route(table, Address(local_part, name), now)
    for reference in references:
        said[f"reference {reference}"] = table.alias_address(reference)
    for id in domain_ids:
        said[f"domain {id}"] = (table.log_level(id), table.plan(id), table.priority([id]))
    for sender in SENDERS:
        said[f"from {sender}"] = table.blocks.sender(Address.parse(sender), now)
    return said
