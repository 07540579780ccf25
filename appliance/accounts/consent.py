"""Asking the owners of mailboxes, and taking their word.

Nothing is forwarded to a mailbox before its owner has agreed, by a link that was mailed to it. The letter is the one
thing that an account can have sent to a stranger, so there are few of them: for a mailbox whoever asks, for an account,
and in all. Its second link ends them for good; what is kept of that is a MAC of the mailbox, under a key of our own.

A link has 256 random bits in it, of which a hash is stored. It works once, and a yes within a week. Opening it changes
nothing by itself: programs that look after mail open every link, so the page behind it asks first.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from appliance.accounts.rows import every, get
from appliance.model.account import Account
from appliance.model.domain import Destination, Domain
from appliance.model.ids import IdSource, id_source
from appliance.model.letter import Letter, Link
from appliance.model.refused import Refused, TooMany
from appliance.model.time import DAY_MS, HOUR_MS, SECOND_MS, Clock, wall_clock
from appliance.privacy.declarations import ASKED_MAILBOXES, CONFIRMATIONS, DESTINATIONS, NEVER_ASKED
from appliance.privacy.sealing import Sealer
from appliance.routing.changes import announcement
from appliance.storage.records import AnyOf, Change, Delete, Duplicate, Insert, Range, RecordStore, Update
from smtp.address import unicode_domain

ANSWER_MS = 7 * DAY_MS
"""How long a yes is taken: a holiday, and not so long that nobody remembers what it was about."""

PER_MAILBOX = 3
"""Letters to one mailbox in `ASKED_MAILBOXES`' week, whichever accounts ask: one, and two for those who lost it."""

PER_ACCOUNT = 50
"""Letters that one account may have sent in a day: five aliases with as many destinations as one can have."""

IN_ALL = 500
"""Letters in an hour for all accounts: beyond that this appliance would look like a source of spam."""

_LINK_INVALID = "LINK_INVALID"
_NOT_GOOD = "That link has been used already, or is not complete."

_WEEK_MS = 7 * DAY_MS
_CONTEXT = "never_asked.mailbox"


@dataclass(frozen=True, slots=True)
class Questions:
    """What is to be asked: the changes that belong to it, and the letters, which are sent after these are stored."""

    changes: tuple[Change, ...] = ()
    letters: tuple[Letter, ...] = ()


class Consent:
    """The word of the owners of mailboxes. Every method may raise Refused, TooMany, and StoreUnavailable."""

    def __init__(
        self,
        records: RecordStore,
        link: Link,
        sealer: Sealer,
        clock: Clock = wall_clock,
        ids: IdSource | None = None,
        new_token: Callable[[], str] = secrets.token_urlsafe,
    ) -> None:
        """`sealer` makes MACs, and has to be of a key that stays."""
        self._records = records
        self._link = link
        self._sealer = sealer
        self._clock = clock
        self._ids = ids or id_source(clock)
        self._new_token = new_token

    def questions(
        self, account: Account, domain: Domain, destinations: Sequence[Destination], *, again: bool = False
    ) -> Questions:
        """Ask the owners of these mailboxes, for an alias of this domain. Raises where one of them can't be asked.

        Who has a letter already whose link is still good is asked only `again` where that is wanted: one yes is enough
        for all aliases of an account.
        """
        now = self._clock()
        if not again:
            destinations = [each for each in destinations if not self._is_asked(each, now)]
        if not destinations:
            return Questions()
        macs = {destination.id: self._mac(destination.target) for destination in destinations}
        self._require_willing(destinations, macs)
        self._require_few(account, destinations, macs, now)
        changes: list[Change] = []
        letters: list[Letter] = []
        for destination in destinations:
            token = self._new_token()
            row = {
                "token_hash": _hash(token),
                "account_id": account.id,
                "destination_id": destination.id,
                "asked_at": now,
            }
            asked = {"id": self._ids(), "mailbox_mac": macs[destination.id], "asked_at": now}
            changes += [Insert(CONFIRMATIONS, row), Insert(ASKED_MAILBOXES, asked)]
            letters.append(self._letter(account, domain, destination.target, token))
        return Questions(tuple(changes), tuple(letters))

    def confirm(self, token: str) -> Destination:
        """The yes of a mailbox's owner."""
        destination, asked_at = self._asked(token)
        now = self._clock()
        if asked_at <= now - ANSWER_MS:
            raise Refused("That link is too old. Have the question sent again.", "token", _LINK_INVALID)
        changes: list[Change] = [
            Delete(CONFIRMATIONS, {"token_hash": _hash(token)}),
            Delete(CONFIRMATIONS, {"destination_id": destination.id}),
            Update(DESTINATIONS, {"id": destination.id, "confirmed_at": None}, {"confirmed_at": now}),
            *announcement(self._ids, self._clock, accounts=[destination.account_id]),
        ]
        if not self._records.apply(changes)[0]:
            # Two brought it at once, and the other one was quicker.
            raise Refused(_NOT_GOOD, "token", _LINK_INVALID)
        return replace(destination, confirmed_at=destination.confirmed_at or now)

    def never_again(self, token: str) -> None:
        """The mailbox's owner wants no more letters from here, whoever asks for them."""
        destination, _ = self._asked(token)
        same = every(self._records, Destination, {"target": destination.target})
        changes: list[Change] = [
            Delete(CONFIRMATIONS, {"destination_id": AnyOf(tuple(each.id for each in same))}),
            Insert(NEVER_ASKED, {"mailbox_mac": self._mac(destination.target), "since": self._clock()}),
        ]
        try:
            self._records.apply(changes)
        except Duplicate:
            self._records.apply(changes[:1])

    def _asked(self, token: str) -> tuple[Destination, int]:
        row = self._records.get(CONFIRMATIONS, {"token_hash": _hash(token)})
        destination = None if row is None else get(self._records, Destination, {"id": row["destination_id"]})
        if row is None or destination is None:
            raise Refused(_NOT_GOOD, "token", _LINK_INVALID)
        return destination, int(str(row["asked_at"]))

    def _is_asked(self, destination: Destination, now: int) -> bool:
        open_question = {"destination_id": destination.id, "asked_at": Range(since=now - ANSWER_MS + 1)}
        return self._records.count(CONFIRMATIONS, open_question) > 0

    def _require_willing(self, destinations: Sequence[Destination], macs: dict[str, str]) -> None:
        for destination in destinations:
            if self._records.count(NEVER_ASKED, {"mailbox_mac": macs[destination.id]}):
                raise Refused(
                    f"The owner of {destination.target} does not want to be asked by this appliance. Choose another "
                    "destination.",
                    "destinations",
                    "NOT_TO_BE_ASKED",
                )

    def _require_few(
        self, account: Account, destinations: Sequence[Destination], macs: dict[str, str], now: int
    ) -> None:
        # Two that ask at the same instant may pass together: one letter more is no harm.
        for destination in destinations:
            lately: dict[str, object] = {
                "mailbox_mac": macs[destination.id],
                "asked_at": Range(since=now - _WEEK_MS),
            }
            if self._records.count(ASKED_MAILBOXES, lately) >= PER_MAILBOX:
                raise TooMany(
                    f"{destination.target} has been asked {PER_MAILBOX} times within a week. Its owner finds the link "
                    "in one of these letters, perhaps among the spam.",
                    DAY_MS // SECOND_MS,
                )
        own: dict[str, object] = {"account_id": account.id, "asked_at": Range(since=now - DAY_MS)}
        if self._records.count(CONFIRMATIONS, own) + len(destinations) > PER_ACCOUNT:
            raise TooMany(
                f"Your account has had {PER_ACCOUNT} mailboxes asked within a day: go on tomorrow.", DAY_MS // SECOND_MS
            )
        if self._records.count(ASKED_MAILBOXES, {"asked_at": Range(since=now - HOUR_MS)}) >= IN_ALL:
            raise TooMany("Too many mailboxes are being asked: try again in an hour.", HOUR_MS // SECOND_MS)

    def _letter(self, account: Account, domain: Domain, target: str, token: str) -> Letter:
        shown = unicode_domain(domain.name)
        # Anybody can claim a name; whoever reads this is to know what is more than a claim.
        claimed = "" if domain.verified else f"They have not shown yet that {shown} is theirs.\n\n"
        text = (
            f"Somebody with the address {account.email} wants mail for {shown} to be forwarded to you, at {target}.\n\n"
            f"{claimed}"
            "Nothing is forwarded before you agree. If you do, open this link within a week and say so there:\n\n"
            f"{self._link('confirm-destination', token)}\n\n"
            "If you do not, there is nothing to do. If you want no such letter from this appliance ever again, whoever "
            "asks for it:\n\n"
            f"{self._link('never-ask-again', token)}\n"
        )
        return Letter(target, f"May mail for {shown} be forwarded to you?", text)

    def _mac(self, target: str) -> str:
        return self._sealer.mac(_without_detail(target), _CONTEXT).hex()


def _without_detail(target: str) -> str:
    """The mailbox in which one finds what is sent to this address: `ada@home.test` of `ada+shop@home.test`.

    RFC 5233 §1: who may put anything behind the + could else have as many letters sent to one reader.
    """
    local_part, _, domain = target.rpartition("@")
    user, _, _ = local_part.partition("+")
    return f"{user}@{domain}"


def _hash(token: str) -> str:
    # Of 256 random bits: nothing is to be guessed that a slow hash would have to slow down.
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
