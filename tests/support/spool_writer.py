"""A node that dies, or stands still, at the so-manyth command that it sends to MongoDB while it writes two groups.

The second comes while the first is still being finished.

Run as a program, it takes lines from its standard input: a signal, the number of the command, and a number of the
groups' own. For each it forks before it knows any server (pymongo is not fork-safe), and the child is the node. It
answers with a line: `stopped`, and goes on at `continue`; then `written`, `refused` or `killed`.
"""

import os
import signal
import sys
import threading

from pymongo import monitoring
from stored_values import NOON, a_delivery, a_keyring, an_event, an_id

from appliance.model.delivery import DeliveryState
from appliance.model.event import EventType
from appliance.model.hold import Hold
from appliance.storage.mongo_spool import MongoSpool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import (
    Accept,
    AddHold,
    AddPart,
    Complete,
    CountUse,
    Keep,
    LeaseLost,
    LiftHold,
    Operation,
    ReturnPath,
    SpoolStore,
)

EACH = 10
"""Ids of two groups, from their number times this on."""

_WRITES = {"insert", "update", "delete", "findAndModify"}


def prepare(spool: SpoolStore, group: int) -> None:
    """What is there before: two messages under way, and a hold."""
    first = group * EACH
    for number in (first + 1, first + 2):
        under_way = a_delivery(number, state=DeliveryState.UNDER_WAY, next_attempt_at=NOON + group)
        spool.apply([AddPart(an_id(number), 0, b"old"), Accept([under_way])])
    spool.apply([AddHold(Hold(an_id(first + 1), NOON, domain="old.example"))])


def the_group(group: int) -> list[Operation]:
    """One of everything that has to happen whole: a message comes, another is done, a third is put off."""
    first = group * EACH
    mine = an_id(first + 3)
    new = [
        a_delivery(first + 3, message_id=mine, next_attempt_at=NOON + group, state=DeliveryState.UNDER_WAY),
        a_delivery(first + 4, message_id=mine, next_attempt_at=NOON + group),
    ]
    return [
        AddPart(mine, 0, b"new"),
        Accept(new, [an_event(first + 3)], [ReturnPath(mine, "s@sender.example", "abcdef", NOON)]),
        CountUse(mine, 0),
        Complete(an_id(first + 1), an_id(first + 1), [an_event(first + 1, type=EventType.DELIVERED)], delivered=True),
        Keep(a_delivery(first + 2, attempts=1, next_attempt_at=NOON + group), [an_event(first + 2)]),
        AddHold(Hold(an_id(first + 2), NOON, domain="new.example")),
        LiftHold(an_id(first + 1)),
    ]


def the_next_group(group: int) -> list[Operation]:
    """What becomes at once of what the first has brought; and a message more."""
    first = group * EACH
    mine = an_id(first + 3)
    return [
        Complete(an_id(first + 3), mine, [an_event(first + 4, type=EventType.DELIVERED)], delivered=True),
        Keep(a_delivery(first + 4, message_id=mine, attempts=2, next_attempt_at=NOON + group)),
        AddPart(an_id(first + 5), 0, b"new"),
        Accept([a_delivery(first + 5, next_attempt_at=NOON + group)], [an_event(first + 5)]),
        CountUse(mine, 0),
    ]


def seen(spool: SpoolStore, group: int) -> dict[str, object]:
    """What stands there of what the groups have to do with, by the same numbers for each; whether anybody has it under
    way is left out."""
    numbers = {an_id(group * EACH + number): number for number in range(EACH)}
    uses = spool.uses()
    return {
        "deliveries": [(n, found.attempts) for id, n in numbers.items() if (found := spool.delivery(id)) is not None],
        "content": [number for id, number in numbers.items() if spool.part(id, 0) is not None],
        "holds": [numbers[hold.id] for hold in spool.holds() if hold.id in numbers],
        "uses": [(number, uses[id]) for id, number in numbers.items() if uses.get(id)],
        "events": [numbers[str(row["id"])] for row in spool.outbox(10_000) if row["id"] in numbers],
    }


class _At(monitoring.CommandListener):
    """Sends this process a signal when it is about to send its so-manyth command that writes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: int | None = None
        self._signal = signal.SIGKILL

    def arm(self, which: signal.Signals, number: int) -> None:
        self._signal, self._left = which, number

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        with self._lock:
            if self._left is None or event.command_name not in _WRITES:
                return
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), self._signal)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing of interest."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing of interest."""


def _be_a_node(url: str, which: signal.Signals, number: int, group: int) -> int:
    listener = _At()
    monitoring.register(listener)
    spool = MongoSpool(url, a_keyring(), f"writer-{group}")
    prepare(spool, group)
    listener.arm(which, number)
    try:
        spool.write([spool.prepare(the_group(group))])
        spool.apply(the_next_group(group))
    except (StoreUnavailable, LeaseLost):
        return 1
    return 0


def _say(word: str) -> None:
    print(word, flush=True)


def main() -> None:
    """Be the program."""
    for line in sys.stdin:
        name, number, group = line.split()
        child = os.fork()
        if child == 0:
            code = 2
            try:
                code = _be_a_node(sys.argv[1], signal.Signals[name], int(number), int(group))
            finally:
                os._exit(code)
        _, status = os.waitpid(child, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            _say("stopped")
            sys.stdin.readline()
            os.kill(child, signal.SIGCONT)
            _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        _say({0: "written", 1: "refused", -signal.SIGKILL: "killed"}.get(code, f"broken: {code}"))


if __name__ == "__main__":
    main()
