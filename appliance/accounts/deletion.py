"""Deletion of an account: everything that belongs to it goes in one change, and a signed receipt says what that was."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum

from appliance.accounts.belongings import belongings
from appliance.accounts.rows import every
from appliance.model.account import Account
from appliance.model.domain import Domain
from appliance.model.ids import id_source
from appliance.model.refused import Refused
from appliance.model.time import Clock, wall_clock
from appliance.privacy.declarations import ACCOUNTS, DELIVERIES
from appliance.privacy.owners import owned_elsewhere
from appliance.privacy.receipts import Receipt, Removed, receipt
from appliance.privacy.signatures import Signer
from appliance.routing.changes import announcement
from appliance.storage.records import Delete, RecordStore, StoreUnavailable

DropQueued = Callable[[str], int]
"""Erases all mail under way that was written to this domain, and returns how many deliveries that were. Raises
StoreUnavailable where the engine does not answer."""

LetGo = Callable[[Mapping[str, str]], None]
"""Lifts what an account has held of domains, ids by name, that it has no more: it can't release that any more itself.
What the operators hold stays held; where the engine does not answer, so does the rest, and is left to them."""

EraseElsewhere = Callable[[str], int]
"""Erases what another store has of the account of this id, and returns how much that was."""


class QueuedMail(Enum):
    """What becomes of mail that has been accepted for the account and is still under way."""

    DELIVER = "deliver"
    """It is delivered or bounced, as its senders were promised."""
    DROP = "drop"
    """It is erased without a word to anybody."""


class Deletion:
    """Erases accounts. Where `delete` raises Refused or StoreUnavailable, nothing has been erased from the records."""

    def __init__(
        self,
        records: RecordStore,
        signer: Signer,
        appliance: str,
        drop_queued: DropQueued,
        let_go: LetGo,
        elsewhere: Mapping[str, EraseElsewhere],
        clock: Clock = wall_clock,
    ) -> None:
        """`appliance` is the name that receipts are made out in; `elsewhere` has, by the name of its collection, what
        erases the data of an account from another store than the records. Raises ValueError where one is missing."""
        forgotten = owned_elsewhere() - elsewhere.keys()
        if forgotten:
            raise ValueError(f"nothing erases {', '.join(sorted(forgotten))} of an account")
        self._records = records
        self._signer = signer
        self._appliance = appliance
        self._drop_queued = drop_queued
        self._let_go = let_go
        self._elsewhere = elsewhere
        self._clock = clock
        self._ids = id_source(clock)

    def delete(self, account: Account, queued_mail: QueuedMail = QueuedMail.DELIVER) -> Receipt:
        """Erase everything of this account. Whoever calls has made sure that it is the account's wish.

        To drop what is under way needs the engine. Mail that is accepted in the moment until a running appliance has
        seen that the domains are gone is still delivered.
        """
        # Not those that are only claimed: their mail may be somebody else's.
        domains = [each for each in every(self._records, Domain, {"account_id": account.id}) if each.verified]
        names = [each.name for each in domains]
        dropping = queued_mail is QueuedMail.DROP
        # First what other stores have: it can fail, and there is still everything to begin anew with.
        dropped = sum(map(self._drop_queued, names)) if dropping else 0
        elsewhere = {name: erase(account.id) for name, erase in self._elsewhere.items()}
        removed = self._erase(account) | elsewhere
        self._let_go({each.name: each.id for each in domains})
        if dropping:
            with suppress(StoreUnavailable):
                # What has come in meanwhile.
                dropped += sum(map(self._drop_queued, names))
            removed[DELIVERIES.name] = dropped
        counts = [Removed(name, count) for name, count in removed.items()]
        return receipt(self._signer, self._appliance, self._clock(), counts)

    def _erase(self, account: Account) -> dict[str, int]:
        found = belongings(self._records, account.id)
        # What is owned goes before its owner; all of it goes, or nothing.
        changes = [Delete(each.collection, each.where) for each in reversed(found)]
        counts = self._records.apply([*changes, *announcement(self._ids, self._clock, accounts=[account.id])])
        removed = {change.collection.name: count for change, count in zip(changes, counts, strict=False)}
        if not removed[ACCOUNTS.name]:
            raise Refused(f"There is no account for {account.email} any more.")
        return dict(reversed(removed.items()))
