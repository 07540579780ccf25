"""`explain` and RCPT are held equal: over routing tables at random, for addresses at random."""

import random
from pathlib import Path

import pytest
from reception_house import SENDER, Table, World, open_reception
from values import NOW

from appliance.configuration import load as load_configuration
from appliance.model.account import Account, Role
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Destination, Domain, LogLevel
from appliance.privacy.declarations import ACCOUNTS, ALIASES, DESTINATIONS, DOMAINS, Collection
from appliance.routing.loading import load
from appliance.run.explanation import Explainer
from appliance.spool.use_copies import show
from appliance.storage.record_rows import to_row
from appliance.storage.records import Insert, RecordStore
from appliance.storage.spool import Complete
from smtp.address import Address

TABLES = 25
"""Routing tables of one run."""

ASKED = 30
"""Addresses that each of them is asked about."""

DOMAINS_ASKED = ("a.test", "b.test", "unproven.test", "elsewhere.test", "mx.example.net", "srs.mx.example.net")
NAMES = ("x", "y", "xy", "x-y", "x+y", "y-x", "postmaster", "s*", "x\u00e9", "a b")
PATTERNS = ("x", "y", "x+y", "x*", "xy*", "*", "postmaster", "/^x-(.+)$/", "/^(.)(.*)$/", "/y/", "x\u00e9")
TARGETS = ("m@home.test", "n@home.test", "m+$1@home.test", "$1@b.test", "x@a.test", "y@b.test", "xy@unproven.test")


def a_table(records: RecordStore, chance: random.Random) -> None:
    """Two accounts with domains, aliases that lead anywhere, and some who have agreed."""
    accounts = [Account(id, f"{id}@people.test", True, Role.MEMBER, "free", NOW) for id in ("acc1", "acc2")]
    if chance.random() < 0.7:
        accounts.append(Account("acc0", "boss@home.test", True, Role.OPERATOR, "free", NOW))
    domains = [
        Domain(name, chance.choice(accounts).id, name, name != "unproven.test", DeliveryMode.SPOOL, LogLevel.NONE, NOW)
        for name in ("a.test", "b.test", "unproven.test")
    ]
    aliases = [
        _an_alias(number, domain, pattern, chance)
        for number, (domain, pattern) in enumerate(
            (domain, pattern) for domain in domains for pattern in PATTERNS if chance.random() < 0.4
        )
    ]
    mailboxes = ("m@home.test", "n@home.test", "m+$1@home.test", "x@a.test", "y@b.test", "$1@b.test")
    destinations = [
        Destination(f"{account.id}{mailbox}", account.id, mailbox, NOW if chance.random() < 0.8 else None, NOW)
        for account in accounts
        for mailbox in mailboxes
    ]
    rows: list[tuple[Collection, list[Account] | list[Domain] | list[Alias] | list[Destination]]]
    rows = [(ACCOUNTS, accounts), (DOMAINS, domains), (ALIASES, aliases), (DESTINATIONS, destinations)]
    records.apply([Insert(collection, to_row(value)) for collection, values in rows for value in values])


def _an_alias(number: int, domain: Domain, pattern: str, chance: random.Random) -> Alias:
    action = chance.choices(list(AliasAction), weights=(8, 1, 1, 1))[0]
    targets = tuple(chance.sample(TARGETS, chance.randint(1, 3))) if action is AliasAction.FORWARD else ()
    limited = chance.random() < 0.2
    return Alias(
        id=f"{number:04d}",
        domain_id=domain.id,
        pattern=pattern,
        action=action,
        targets=targets,
        reference=f"{chr(97 + number // 26)}{chr(97 + number % 26)}aaaa",
        created_at=NOW - number,
        enabled=chance.random() < 0.9,
        expires_at=chance.choice((NOW - 1, NOW + 1)) if chance.random() < 0.2 else None,
        max_uses=2 if limited else None,
        use_counter=f"c{number}" if limited else None,
        uses=chance.randint(0, 2) if limited else 0,
    )


async def answered(world: World, recipient: str) -> tuple[object, set[str]]:
    """The reply to RCPT, and the mailboxes that a message would go to."""
    (reply,), final = await world.transact(recipient)
    mailboxes = {str(delivery.target) for delivery in world.store.deliveries()}
    if final is not None:
        assert final.code == 250
    world.store.apply([Complete(each.id, each.message_id) for each in world.store.deliveries()])
    # As the engine does within moments: what is explained is read from the records.
    await show(world.reception.uses, world.records)
    return (reply.code, reply.enhanced, reply.text), mailboxes


@pytest.mark.parametrize("seed", range(TABLES))
async def test_what_is_explained_is_what_rcpt_answers_and_where_the_message_goes(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = tmp_path / "onward.toml"
    path.write_text(
        f'hostname = "mx.example.net"\ndata_dir = "{tmp_path / "var"}"\n'
        '[delivery]\nsmarthost = "smtp://me@relay.example:587"\n'
    )
    async with open_reception(tmp_path) as world:
        a_table(world.records, chance)
        explain = Explainer(load_configuration(path), world.records, clock=lambda: NOW)
        table = world.reception.routing
        assert isinstance(table, Table)
        for _ in range(ASKED):
            table.snapshot = load(world.records, table.snapshot.settings)
            recipient = Address(chance.choice(NAMES), chance.choice(DOMAINS_ASKED))
            told = explain(recipient, SENDER)
            assert explain(recipient, SENDER, "acc1").reply == told.reply, "whoever reads it"
            reply, mailboxes = await answered(world, str(recipient))
            assert (told.reply.code, told.reply.enhanced, told.reply.text) == reply
            assert {delivery.target for delivery in told.deliveries} == mailboxes
