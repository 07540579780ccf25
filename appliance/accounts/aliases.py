"""Aliases: which addresses of a domain lead where."""

import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from appliance.accounts.alias_rules import AliasRules, described, later
from appliance.accounts.consent import Consent, Questions
from appliance.accounts.destinations import Agreed, agreed, mailbox_of, no_longer_used, wanted
from appliance.accounts.loops import refuse_endless
from appliance.accounts.names import alias_address, alias_pattern, split_alias
from appliance.accounts.rows import every, get, insert, some
from appliance.model.account import Account, Plan
from appliance.model.domain import Alias, AliasAction, AliasKind, Destination, Domain
from appliance.model.ids import IdSource, id_source
from appliance.model.letter import LetterRefused, NotPosted, Post
from appliance.model.names import domain_name
from appliance.model.refused import Refused
from appliance.model.time import Clock, wall_clock
from appliance.privacy.declarations import ALIASES
from appliance.routing.changes import announcement
from appliance.storage.record_rows import to_row
from appliance.storage.records import Change, Delete, Duplicate, Page, RecordStore, Update

_log = logging.getLogger(__name__)

REFERENCE_LENGTH = 6
REFERENCE_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
"""RFC 4648 §6 in lower case: the reference travels in addresses, whose case some servers change."""

_ATTEMPTS = 8
"""How often to draw another reference, or look at the destinations again, when somebody else was quicker."""


class Unset(Enum):
    """Stands for what is to stay as it is, where None means that there is to be none."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET


@dataclass(frozen=True, slots=True)
class ListedAlias:
    """An alias with what people want to see beside it."""

    alias: Alias
    domain: Domain
    destinations: tuple[tuple[str, bool], ...]
    """Each target, and whether its owner has agreed."""
    asked: tuple[str, ...] = ()
    """The mailboxes whose owners have just been written to."""
    unasked: tuple[str, ...] = ()
    """Those to whom the letter could not be sent. To set the destinations once more asks them again."""


@dataclass(frozen=True, slots=True)
class AliasChanges:
    """What to set of an alias."""

    pattern: str | None = None
    destinations: Sequence[str] | None = None
    """Those that are not confirmed are asked; once more, where the alias leads there already."""
    action: AliasAction | None = None
    enabled: bool | None = None
    expires_at: int | Unset | None = UNSET
    remaining_uses: int | Unset | None = UNSET
    """From this change on; what it has taken before does not count."""
    description: str | Unset | None = UNSET


class Aliases:
    """The aliases of a record store. Every method may raise Refused, and StoreUnavailable."""

    def __init__(
        self,
        records: RecordStore,
        plans: Mapping[str, Plan],
        own_names: Set[str],
        clock: Clock = wall_clock,
        ids: IdSource | None = None,
        choose: Callable[[str], str] = secrets.choice,
        consent: tuple[Consent, Post] | None = None,
    ) -> None:
        """`own_names` are the appliance's hostname and SRS domain: no alias leads to us. `choose` draws a letter.

        `consent` asks the owners of mailboxes; without it nobody can be asked.
        """
        self._records = records
        self._clock = clock
        self._ids = ids or id_source(clock)
        self._rules = AliasRules(records, plans, own_names, self._ids)
        self._choose = choose
        self._consent = consent

    # ------------------------------------------------------------------ by what people type

    def add(
        self,
        address: str,
        destinations: Sequence[str] = (),
        *,
        action: AliasAction = AliasAction.FORWARD,
        confirmed: bool = False,
        expires_at: int | None = None,
        remaining_uses: int | None = None,
        description: str | None = None,
    ) -> ListedAlias:
        """Make `PATTERN@DOMAIN` lead to these addresses, as `create` does."""
        pattern, name = split_alias(address)
        return self.create(
            self._hosted(name),
            pattern,
            destinations,
            action=action,
            confirmed=confirmed,
            expires_at=expires_at,
            remaining_uses=remaining_uses,
            description=description,
        )

    def every(self, domain: str | None = None) -> Iterator[ListedAlias]:
        """All aliases, or those of one domain: domain by domain, the oldest first."""
        hosted = every(self._records, Domain, {}) if domain is None else iter([self._hosted(domain_name(domain))])
        for each in hosted:
            standing = agreed(self._records, each.account_id)
            for alias in every(self._records, Alias, {"domain_id": each.id}):
                yield listed(alias, each, standing)

    def remove(self, address: str) -> ListedAlias:
        """Erase the alias `PATTERN@DOMAIN`, and the destinations that nothing leads to any more."""
        pattern, name = alias_address(address)
        domain = self._hosted(name)
        alias = get(self._records, Alias, {"domain_id": domain.id, "pattern": pattern})
        if alias is None:
            raise Refused(f"There is no alias {pattern}@{name}.", "pattern")
        return self.delete(alias, domain)

    # ------------------------------------------------------------------ by what they are

    def create(
        self,
        domain: Domain,
        pattern: str,
        destinations: Sequence[str] = (),
        *,
        action: AliasAction = AliasAction.FORWARD,
        enabled: bool = True,
        confirmed: bool = False,
        expires_at: int | None = None,
        remaining_uses: int | None = None,
        description: str | None = None,
    ) -> ListedAlias:
        """Make a pattern of local parts of this domain lead to these addresses.

        `confirmed` is the word of whoever asks that the owners of the destinations have agreed; without it, those who
        have not are asked, and nothing is forwarded to any of the alias's destinations before all have agreed.
        """
        account = self._owner(domain)
        now = self._clock()
        alias = Alias(
            id=self._ids(),
            domain_id=domain.id,
            pattern=alias_pattern(pattern, domain.name),
            action=action,
            targets=(),
            reference=self._reference(),
            created_at=now,
            enabled=enabled,
            expires_at=later(expires_at, now),
            description=described(description),
        )
        alias = self._rules.for_uses(alias, remaining_uses)
        alias = self._rules.leading_to(alias, destinations, account)
        self._rules.require_room(account, domain, alias)
        refuse_endless(self._records, alias, domain)
        return self._store(alias, domain, account, vouched=confirmed)

    def update(self, alias: Alias, domain: Domain, changes: AliasChanges) -> ListedAlias:
        """Set what is given of an alias, by the same rules as for a new one."""
        account = self._owner(domain)
        new = replace(
            alias,
            pattern=alias.pattern if changes.pattern is None else alias_pattern(changes.pattern, domain.name),
            action=alias.action if changes.action is None else changes.action,
            enabled=alias.enabled if changes.enabled is None else changes.enabled,
        )
        if changes.expires_at is not UNSET:
            new = replace(new, expires_at=later(changes.expires_at, self._clock()))
        if changes.remaining_uses is not UNSET:
            new = self._rules.for_uses(new, changes.remaining_uses)
        if changes.description is not UNSET:
            new = replace(new, description=described(changes.description))
        if changes.destinations is not None:
            new = self._rules.leading_to(new, changes.destinations, account)
        elif (new.pattern, new.action) != (alias.pattern, alias.action):
            # What it leads to may not do for an expression, or be missing for an alias that is to forward again.
            self._rules.leading_to(new, alias.targets if new.action is AliasAction.FORWARD else (), account)
        if new.kind is AliasKind.REGEX and new.pattern != alias.pattern:
            self._rules.require_few_patterns(new, domain)
        if (new.pattern, new.targets) != (alias.pattern, alias.targets):
            refuse_endless(self._records, new, domain)
        return self._store(new, domain, account, vouched=False, before=alias, ask=changes.destinations is not None)

    def delete(self, alias: Alias, domain: Domain) -> ListedAlias:
        """Erase an alias, and the destinations that nothing leads to any more."""
        standing = agreed(self._records, domain.account_id)
        erased = no_longer_used(self._records, domain.account_id, (alias,))
        self._records.apply([Delete(ALIASES, {"id": alias.id}), *erased, *self._announcement(alias, domain)])
        return listed(alias, domain, standing)

    def with_id(self, id: str) -> tuple[Alias, Domain] | None:
        """The alias with this id, and its domain."""
        alias = get(self._records, Alias, {"id": id})
        domain = None if alias is None else get(self._records, Domain, {"id": alias.domain_id})
        return None if alias is None or domain is None else (alias, domain)

    def page(self, domain_id: str, after: str | None, limit: int, search: str = "") -> list[Alias]:
        """The aliases of a domain behind this id, the oldest first, at most `limit`: those with `search` in them."""
        if not search:
            return some(self._records, Alias, {"domain_id": domain_id}, Page(after=after, limit=limit))
        found: list[Alias] = []
        for alias in self._searched(domain_id, search, after):
            if len(found) == limit:
                break
            found.append(alias)
        return found

    def count(self, domain_id: str, search: str = "") -> int:
        """How many aliases a domain has, or how many of them have `search` in them."""
        if not search:
            return self._records.count(ALIASES, {"domain_id": domain_id})
        return sum(1 for _ in self._searched(domain_id, search, None))

    def _searched(self, domain_id: str, search: str, after: str | None) -> Iterator[Alias]:
        wanted_text = search.casefold()
        while rows := some(self._records, Alias, {"domain_id": domain_id}, Page(after=after)):
            for alias in rows:
                if any(wanted_text in text.casefold() for text in _texts(alias)):
                    yield alias
            after = rows[-1].id

    # ------------------------------------------------------------------ rules

    def _hosted(self, name: str) -> Domain:
        domain = get(self._records, Domain, {"name": name, "verified": True})
        domain = domain or get(self._records, Domain, {"name": name})
        if domain is None:
            raise Refused(f"{name} is not hosted here: add the domain first.", "domain")
        return domain

    def _owner(self, domain: Domain) -> Account:
        account = get(self._records, Account, {"id": domain.account_id})
        if account is None:
            raise Refused(f"The account of {domain.name} is being deleted.", "domain")
        return account

    # ------------------------------------------------------------------ storing

    def _store(
        self,
        alias: Alias,
        domain: Domain,
        account: Account,
        *,
        vouched: bool,
        before: Alias | None = None,
        ask: bool = True,
    ) -> ListedAlias:
        """Store the alias with its destinations as one change, then send the letters that belong to it."""
        for _ in range(_ATTEMPTS):
            try:
                questions = self._change(alias, domain, account, vouched=vouched, before=before, ask=ask)
            except Duplicate as duplicate:
                if duplicate.collection is ALIASES and "pattern" in duplicate.fields:
                    raise Refused(f"There is an alias {alias.pattern}@{domain.name} already.", "pattern") from None
                if before is None:
                    # A reference that is taken, or a destination that another change has added just now.
                    alias = replace(alias, reference=self._reference())
            else:
                unasked = self._send(questions)
                asked = tuple(letter.recipient for letter in questions.letters if letter.recipient not in unasked)
                shown = listed(alias, domain, agreed(self._records, domain.account_id))
                return replace(shown, asked=asked, unasked=unasked)
        raise Refused("Too many changes at once: try again.")

    def _change(
        self, alias: Alias, domain: Domain, account: Account, *, vouched: bool, before: Alias | None, ask: bool
    ) -> Questions:
        standing = agreed(self._records, account.id)
        # At own domains nobody is asked, and nobody vouches: the account's word ends with its hold on the domain.
        foreign = [target for target in alias.targets if not standing.owns(target)]
        mailboxes = [mailbox_of(alias, target) for target in foreign if vouched or not standing.covers(alias, target)]
        changes, unconfirmed = wanted(self._records, account.id, mailboxes, self._clock(), self._ids, vouched=vouched)
        # Who sets the same destinations once more wants the letters once more.
        again = before is not None and set(before.targets) == set(alias.targets)
        questions = self._questions(account, domain, unconfirmed, again) if ask and unconfirmed else Questions()
        change: Change = insert(alias)
        if before is not None:
            change = Update(ALIASES, {"id": alias.id}, _differences(before, alias))
            changes += no_longer_used(self._records, account.id, (before,), (alias,))
        touched = self._records.apply([change, *changes, *questions.changes, *self._announcement(alias, domain)])
        if not touched[0]:
            raise Refused("That alias has just been removed.", "id")
        return questions

    def _announcement(self, alias: Alias, domain: Domain) -> tuple[Change, ...]:
        accounts = [domain.account_id]
        return announcement(self._ids, self._clock, domains=[domain.id], aliases=[alias.id], accounts=accounts)

    def _questions(
        self, account: Account, domain: Domain, unconfirmed: Sequence[Destination], again: bool
    ) -> Questions:
        if self._consent is None:
            names = ", ".join(destination.target for destination in unconfirmed)
            raise Refused(
                f"{names} is not confirmed, and nothing is forwarded to a mailbox whose owner has not agreed. Start "
                "the appliance, which asks for that by mail, or vouch for the owner's consent (--confirmed).",
                "destinations",
            )
        consent, _ = self._consent
        return consent.questions(account, domain, unconfirmed, again=again)

    def _send(self, questions: Questions) -> tuple[str, ...]:
        """Send the letters; returns the mailboxes for which that could not be done."""
        unsent: list[str] = []
        for number, letter in enumerate(questions.letters):
            assert self._consent is not None
            try:
                self._consent[1].send(letter)
            except NotPosted as error:
                _log.warning("a mailbox could not be asked for its owner's consent: %s", error)
                if not isinstance(error, LetterRefused):
                    # Whoever waits for the answer does not wait for an absent post once for each letter.
                    return (*unsent, *(each.recipient for each in questions.letters[number:]))
                unsent.append(letter.recipient)
        return tuple(unsent)

    def _reference(self) -> str:
        return "".join(self._choose(REFERENCE_ALPHABET) for _ in range(REFERENCE_LENGTH))


def listed(alias: Alias, domain: Domain, standing: Agreed) -> ListedAlias:
    """The alias with what people want to see beside it."""
    return ListedAlias(alias, domain, tuple((target, standing.covers(alias, target)) for target in alias.targets))


def _differences(before: Alias, alias: Alias) -> dict[str, object]:
    """What to set. A field that nobody has changed is left out: the count of uses moves on by itself."""
    was, row = to_row(before), to_row(alias)
    changes = {name: value for name, value in row.items() if was[name] != value}
    if "use_counter" in changes:
        changes["uses"] = row["uses"]
    return changes or {"enabled": alias.enabled}


def _texts(alias: Alias) -> tuple[str, ...]:
    """What people look for an alias by."""
    return (alias.pattern, alias.description or "", *alias.targets)
