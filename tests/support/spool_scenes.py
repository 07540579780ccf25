"""Scenes of a spool's life, to be played on the disks of tests, and what it has answered by the end of each step."""

import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from msgspec.structs import replace
from spool_ledger import Kept
from stored_values import NOON, a_delivery, a_keyring, an_event, an_id

from appliance.model.delivery import DeliveryState
from appliance.model.hold import Hold
from appliance.storage.disk import Disk
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import (
    Abandon,
    Accept,
    AddHold,
    AddPart,
    ClockMarks,
    Complete,
    Forget,
    Keep,
    LiftHold,
    MarkClocks,
    Operation,
    Record,
    ReturnPath,
    Undecided,
)
from appliance.storage.sqlite_spool import SqliteSpool

D = TypeVar("D", bound=Disk)
Unit = list[Operation]


@dataclass(frozen=True, slots=True)
class Asked:
    """A group is given to the store; if it is taken, this is what there is."""

    kept: Kept


@dataclass(frozen=True, slots=True)
class Answered:
    """The group was taken."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The group was not taken, and whoever brought it has been told."""


Word = Asked | Answered | Refused


class Scene(Generic[D]):
    """A spool on a disk of tests, and what it has answered."""

    def __init__(self, directory: Path, disk: D, tell: Callable[[Word], None]) -> None:
        """Open a new spool on this disk; `tell` hears what it is asked and answers."""
        self.directory, self.disk, self._tell = directory, disk, tell
        self.kept = Kept()
        self.refused = 0
        self._undecided = False
        self.is_closed = False
        self.open()

    def open(self) -> None:
        """Start the spool, as a process does."""
        self.spool = SqliteSpool(self.directory / "spool.sqlite", a_keyring(), disk=self.disk)
        self.is_closed = False
        self.spool.recover()
        self.spool.tidy()

    def die(self) -> None:
        """As SIGKILL: nothing is written any more."""
        self.is_closed = True
        self.spool._database.current.abandon()

    def close(self) -> None:
        """In order."""
        self.is_closed = True
        self.spool.close()

    def group(self, *units: Unit) -> None:
        """Write units as one group; not those of a reception of which a part was refused, for that has ended."""
        if not all(self.kept.can_follow(unit) for unit in units):
            return
        after = self.kept.after(operation for unit in units for operation in unit)
        self._tell(Asked(after))
        try:
            self.spool.write([self.spool.prepare(unit) for unit in units])
        except Undecided:
            self._undecided = True
        except StoreUnavailable:
            self._refuse()
        else:
            self.kept = after
            self._tell(Answered())

    def claim(self, now: int = NOON) -> None:
        """Take what is due; what can't be taken now is so later."""
        with contextlib.suppress(StoreUnavailable):
            self.spool.claim(now, 10)

    def tidy(self) -> None:
        """Every few seconds."""
        self.spool.tidy()
        if self._undecided and not self.spool.undecided:
            self._undecided = False
            self._refuse()

    def _refuse(self) -> None:
        self.refused += 1
        self._tell(Refused())


def accept(number: int, octets: int = 700) -> Unit:
    return [
        AddPart(an_id(number), 0, random.Random(number).randbytes(octets)),
        Accept([a_delivery(number)], [an_event(number)], [ReturnPath(f"t{number}", "long@sender.example", "r", NOON)]),
    ]


def complete(number: int) -> Unit:
    return [Complete(an_id(number), an_id(number), [an_event(number + 500)])]


def defer(number: int) -> Unit:
    later = a_delivery(number, attempts=1, next_attempt_at=NOON + 60_000, last_response="450 4.2.1 Later")
    return [Keep(later, [an_event(number + 600)])]


def parts(number: int, count: int, octets: int = 9000) -> list[Unit]:
    return [[AddPart(an_id(number), part, bytes([part]) * octets)] for part in range(count)]


# ------------------------------------------------------------------ the scenes


def one_message(scene: Scene[Any]) -> None:
    scene.group(accept(1))


def several_in_a_group(scene: Scene[Any]) -> None:
    scene.group(accept(1), accept(2), accept(3))
    scene.group(accept(4), accept(5))


def a_large_message_in_parts(scene: Scene[Any]) -> None:
    for part in parts(1, 4):
        scene.group(part)
    scene.group([AddPart(an_id(1), 4, b"the end"), Accept([a_delivery(1)], [an_event(1)])])
    scene.group(accept(2))


def a_group_with_outcomes(scene: Scene[Any]) -> None:
    scene.group(accept(1), accept(2))
    scene.claim()
    scene.group(accept(3), complete(1), defer(2), accept(4))
    scene.group(complete(3), complete(2))


def complete_what_was_claimed(scene: Scene[Any]) -> None:
    for number in range(1, 6):
        scene.group(accept(number, 3000))
        scene.claim()
        if number > 1:
            scene.group(complete(number - 1))


def defer_and_complete(scene: Scene[Any]) -> None:
    scene.group(accept(1))
    for attempt in range(1, 4):
        scene.claim(NOON + attempt * 60_000)
        later = a_delivery(1, attempts=attempt, next_attempt_at=NOON + attempt * 60_000)
        scene.group([Keep(later, [an_event(600 + attempt)])])
    scene.claim(NOON + 300_000)
    scene.group(complete(1))


def hold_and_release(scene: Scene[Any]) -> None:
    scene.group(accept(1), accept(2))
    held = a_delivery(1, state=DeliveryState.HELD, held_for="held by the operator")
    scene.group([Keep(held)])
    scene.claim()
    scene.group([Keep(replace(held, state=DeliveryState.WAITING, held_for=""))])
    scene.group(complete(2))


def two_deliveries_of_a_message(scene: Scene[Any]) -> None:
    both = [a_delivery(1), a_delivery(2, message_id=an_id(1))]
    scene.group([AddPart(an_id(1), 0, b"for both" * 900), Accept(both, [an_event(1)])])
    scene.claim()
    scene.group([Complete(an_id(1), an_id(1), [an_event(2)])])
    scene.group(accept(3))
    scene.group([Complete(an_id(2), an_id(1), [an_event(4)])])


def abandon(scene: Scene[Any]) -> None:
    for part in parts(1, 2):
        scene.group(part)
    scene.group(accept(2), [Abandon(an_id(1))])
    for part in parts(3, 2):
        scene.group(part)
    scene.group([Abandon(an_id(3))])


def the_outbox_is_moved(scene: Scene[Any]) -> None:
    scene.group(accept(1), [Record([an_event(700), an_event(701)])])
    scene.group([Forget([an_id(700), an_id(1)])])
    scene.group(complete(1), [Record([an_event(702)])])
    scene.group([Forget([an_id(701), an_id(501)])])


def checkpoints_in_the_middle(scene: Scene[Any]) -> None:
    for number in range(1, 9):
        scene.group(accept(number, 2000))
        scene.claim()
        if number % 2 == 0:
            scene.group(complete(number - 1))


def the_log_is_cut(scene: Scene[Any]) -> None:
    scene.group(accept(1))
    scene.spool._database.cut_log()
    scene.group(accept(2))
    scene.claim()
    scene.spool._database.cut_log()
    scene.group(complete(1))


def closed_and_opened(scene: Scene[Any]) -> None:
    scene.group(accept(1))
    scene.close()
    scene.open()
    scene.group(accept(2))
    scene.claim()
    scene.die()
    scene.open()
    scene.group(complete(1))


def a_start_after_a_crash(scene: Scene[Any]) -> None:
    scene.group(accept(1), accept(2))
    for part in parts(3, 3):
        scene.group(part)
    scene.group(defer(1))
    scene.claim()
    scene.die()
    scene.open()
    scene.group(complete(2))


def gone_over_and_opened(scene: Scene[Any]) -> None:
    """As if a write had failed: the next group goes into a fresh file, and that is what later starts find."""
    scene.group(accept(1))
    scene.spool._database._give_up("told to")
    scene.group(accept(2))
    scene.close()
    scene.open()
    scene.group(complete(1))
    scene.spool._database._give_up("told to")
    scene.die()
    scene.open()
    scene.group(accept(3))


def the_clocks_are_marked(scene: Scene[Any]) -> None:
    for minute in range(1, 5):
        scene.group(accept(minute), [MarkClocks(ClockMarks(NOON + minute, minute))])


def rules_of_holding(scene: Scene[Any]) -> None:
    scene.group([AddHold(Hold(an_id(1), NOON, domain="example.org"))])
    scene.group(accept(1), [AddHold(Hold(an_id(2), NOON, sender=""))])
    scene.group([LiftHold(an_id(1))], [MarkClocks(ClockMarks(NOON, 5))])


SCENES: Sequence[Callable[[Scene[Any]], None]] = (
    one_message,
    several_in_a_group,
    a_large_message_in_parts,
    a_group_with_outcomes,
    complete_what_was_claimed,
    defer_and_complete,
    hold_and_release,
    two_deliveries_of_a_message,
    abandon,
    the_outbox_is_moved,
    checkpoints_in_the_middle,
    the_log_is_cut,
    closed_and_opened,
    a_start_after_a_crash,
    gone_over_and_opened,
    the_clocks_are_marked,
    rules_of_holding,
)
"""Those in which the disk is not told to fail."""


def a_whole_life(scene: Scene[Any]) -> None:
    """Everything that a spool does, one after the other, each message with a number of its own."""
    scene.group(accept(1), accept(2), accept(3))
    scene.claim()
    scene.group(complete(1), defer(2), accept(4))
    for part in parts(5, 3):
        scene.group(part)
    scene.group([AddPart(an_id(5), 3, b"the end"), Accept([a_delivery(5)], [an_event(5)])])
    for part in parts(6, 2):
        scene.group(part)
    scene.group([Abandon(an_id(6))], [Forget([an_id(1), an_id(2)])])
    scene.spool._database.cut_log()
    scene.group([AddHold(Hold(an_id(1), NOON, domain="example.org"))], [MarkClocks(ClockMarks(NOON, 5))])
    scene.close()
    scene.open()
    for part in parts(7, 2):
        scene.group(part)
    scene.claim()
    scene.die()
    scene.open()
    scene.group(complete(3), [LiftHold(an_id(1))])
    scene.group(accept(8))
