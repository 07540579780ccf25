"""The rooms that delete and export accounts, put together for the command line and for the control process; and what
becomes of mail that an account has held, when its domain is removed or goes with it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from appliance.access.sessions import Sessions
from appliance.accounts.deletion import Deletion, DropQueued, EraseElsewhere, LetGo
from appliance.accounts.export import Export
from appliance.configuration import Configuration
from appliance.privacy.declarations import SESSIONS
from appliance.privacy.receipts import RECEIPT_KEY
from appliance.privacy.signatures import Signer
from appliance.run.stores import secrets
from appliance.storage.records import RecordStore, StoreUnavailable
from appliance.wire import NotRunning, WireError

Engine = Callable[..., Iterator[Any]]
"""Asks the engine: a verb and its arguments lead to the results (`appliance.wire.call`)."""


LOOKING_S = 20.0
"""How long the engine may look through the queue for what was held of a domain."""


def deletion(config: Configuration, records: RecordStore, engine: Engine, sessions: Sessions | None) -> Deletion:
    """What deletes accounts. Makes the key of the receipts at its first use. Raises SecretRefused or OSError.

    `sessions` of None is for who can't reach them: those of an account that is gone open nothing, and are forgotten.
    """
    signer = Signer(secrets(config).key(RECEIPT_KEY))
    erase_sessions: EraseElsewhere = _nothing if sessions is None else sessions.erase
    elsewhere = {SESSIONS.name: erase_sessions}
    return Deletion(records, signer, config.hostname, drop_queued(engine), let_go(engine), elsewhere)


def export(records: RecordStore, sessions: Sessions) -> Export:
    """What exports accounts."""
    return Export(records, {SESSIONS: lambda account: map(asdict, sessions.of(account))})


def drop_queued(engine: Engine) -> DropQueued:
    """What drops the mail under way of a domain, by the queue's verbs."""

    def drop(domain: str) -> int:
        try:
            (told,) = engine("queue.drop", domain=domain)
        except (NotRunning, WireError) as error:
            raise StoreUnavailable(f"mail under way can't be dropped: {error}") from error
        return int(told["affected"])

    return drop


def let_go(engine: Engine) -> LetGo:
    """What lifts the holds of domains that are given up, by the queue's verbs."""

    def lift(given_up: Mapping[str, str]) -> None:
        for name, id in given_up.items():
            with suppress(NotRunning, WireError):
                list(engine("queue.release", limit_s=LOOKING_S, within={name: id}, domain=name))

    return lift


def _nothing(account_id: str) -> int:
    return 0
