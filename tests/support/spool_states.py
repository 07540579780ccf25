"""The states of a message in the spool, as a table: what is on the disk, what leads on, and what a start makes of it.

Run as a script, it prints the table into appliance/spool/STATES.md. `tests/storage/test_spool_states.py` walks the same
table with a real spool: it brings a message into each state, takes each step, and starts again in each.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from msgspec import structs
from msgspec.structs import replace
from stored_values import NOON, a_delivery, an_event, an_id

from appliance.model.delivery import DeliveryState
from appliance.storage.spool import Abandon, Accept, AddPart, Complete, Keep, Operation
from appliance.storage.sqlite_spool import SqliteSpool

DOCUMENT = Path(__file__).resolve().parents[2] / "appliance" / "spool" / "STATES.md"


class State(Enum):
    """Where a message is, for one destination."""

    NOWHERE = "nowhere"
    ARRIVING = "arriving"
    WAITING = "waiting"
    UNDER_WAY = "under way"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Standing:
    """What a state is on the disk, and what it means."""

    content: bool
    """There are rows in `content`."""
    delivery: DeliveryState | None
    """The `state` of the row in `deliveries`; None where there is no row."""
    meaning: str
    after_a_start: State


STANDINGS: Mapping[State, Standing] = {
    State.NOWHERE: Standing(False, None, "Never here, or done: delivered, bounced or dropped.", State.NOWHERE),
    State.ARRIVING: Standing(
        True,
        None,
        "A large message is being received. Nobody has been told 250: the sender keeps it and will come again.",
        State.NOWHERE,
    ),
    State.WAITING: Standing(
        True, DeliveryState.WAITING, "Accepted, and ours. It is due at `next_attempt_at`.", State.WAITING
    ),
    State.UNDER_WAY: Standing(
        True,
        DeliveryState.UNDER_WAY,
        "Accepted, and in the hands of a courier of the running appliance, or on the way to one. The next hop may have "
        "read it already: if we die before that is written down, it gets a second copy.",
        State.WAITING,
    ),
    State.HELD: Standing(
        True,
        DeliveryState.HELD,
        "Accepted, and kept back: by an operator, or because its row can't be opened. After a start, the latter is "
        "waiting again if it can be by then.",
        State.HELD,
    ),
}

Take = Callable[[SqliteSpool], None]


def _apply(*operations: Operation) -> Take:
    return lambda store: store.apply(operations)


def _claim(store: SqliteSpool) -> None:
    store.claim(NOON, 10)


_PART = AddPart(an_id(1), 0, b"the first part")
_WAITING = a_delivery(1)
_UNDER_WAY = replace(_WAITING, state=DeliveryState.UNDER_WAY)
_HELD = replace(_WAITING, state=DeliveryState.HELD, held_for="held by the operator")
_COMPLETE = Complete(an_id(1), an_id(1), [an_event(2)])


@dataclass(frozen=True, slots=True)
class Step:
    """What leads from one state to another."""

    before: State
    after: State
    name: str
    take: Take
    synced: bool = True
    """It is durable when it returns."""


STEPS: Sequence[Step] = (
    Step(State.NOWHERE, State.ARRIVING, "AddPart: a part of a message that is larger than one", _apply(_PART)),
    Step(State.ARRIVING, State.ARRIVING, "AddPart: the next", _apply(structs.replace(_PART, part=1))),
    Step(State.ARRIVING, State.NOWHERE, "Abandon: the sender went away or was refused", _apply(Abandon(an_id(1)))),
    Step(
        State.ARRIVING,
        State.UNDER_WAY,
        "**Accept**, with the last part: a courier has room",
        _apply(structs.replace(_PART, part=1), Accept([_UNDER_WAY], [an_event(1)])),
    ),
    Step(State.ARRIVING, State.WAITING, "**Accept**: none has", _apply(Accept([_WAITING], [an_event(1)]))),
    Step(
        State.NOWHERE,
        State.UNDER_WAY,
        "**Accept**, with all of a small message: a courier has room",
        _apply(_PART, Accept([_UNDER_WAY], [an_event(1)])),
    ),
    Step(State.NOWHERE, State.WAITING, "**Accept**: none has", _apply(_PART, Accept([_WAITING], [an_event(1)]))),
    Step(State.WAITING, State.UNDER_WAY, "claim: it is due", _claim, synced=False),
    Step(State.UNDER_WAY, State.WAITING, "Keep: deferred", _apply(Keep(_WAITING, [an_event(2)]))),
    Step(State.UNDER_WAY, State.NOWHERE, "Complete: delivered, or bounced", _apply(_COMPLETE)),
    Step(State.WAITING, State.NOWHERE, "Complete: dropped by the operator", _apply(_COMPLETE)),
    Step(State.WAITING, State.HELD, "Keep: held by the operator", _apply(Keep(_HELD))),
    Step(State.UNDER_WAY, State.HELD, "Keep: held before its attempt was begun", _apply(Keep(_HELD))),
    Step(State.HELD, State.WAITING, "Keep: released", _apply(Keep(_WAITING))),
    Step(State.HELD, State.NOWHERE, "Complete: dropped by the operator", _apply(_COMPLETE)),
)

_BEFORE = """\
# A message in the spool, state by state

Printed from the table in `tests/support/spool_states.py`, by `.venv/bin/python tests/support/spool_states.py`. A test
holds this page to what that prints, and another walks the table with a real spool.

A message is nothing but its deliveries, one for each destination, and its content. So its state is that of a delivery,
and the two tables `deliveries` and `content` say it all; there is no third mark that could disagree with them.
"""

_ACCEPTED = """\
**The instant of acceptance** is when the transaction with the rows in `deliveries` is durable: the log of the database
has been synced, in a file whose name has been synced. The 250 is given after it, never before. From then on the message
is delivered, bounced, dropped by an operator, or here.
"""

_STEPS = """\
## What leads on

Each step is one transaction: all of it is there after a crash, or nothing. It is synced before it returns, but for
one: a claim that is lost is what a start would make of it. The content goes in the transaction of the last delivery.
"""

_AFTER = """\
## Events

What happened is written into `outbox` in the transaction that made it true, and moved to the log by its id: first
written there, then erased here. A crash between the two finds it in both, and the log takes an id once.

## What a crash leaves, and what a start does

- The process dies: everything that was asked for is in the memory of the machine. The power goes: everything that was
  synced is there, and of the rest any part. The log of the database has checksums over each transaction, so that of one
  which is not whole nothing is found.
- A start sets every delivery that is under way to waiting: its courier is dead. This is the one place where a second
  copy can come from (at most one for each message, recipient and interruption).
- Content without a delivery is searched for while mail flows already, and erased. Nothing that is searched for can be
  sent: only deliveries are. What is arriving meanwhile is left alone.
- The log is written to its place once more, synced and written back before the first message is taken: what the run
  before has left in memory only, after a sync that had failed, is not built upon.

## When the disk fails

After a write or a sync that has failed, nobody knows what the disk has. Nothing more is written to that file; all that
is committed is copied into the next one (`spool-2.sqlite`, then `spool-3.sqlite`) and looked through. It counts from
the instant at which its name and that of its log are durable, and the old one is erased. Until then senders get 451 at
once. Two things are between:

- What was in the transaction that failed is cut off from the end of the log before anybody is told 451. Where not even
  that can be made durable, nobody is told anything until the fresh file counts: the next start might find the message
  and deliver it. A sender without an answer keeps its message.
- Killed during the copy, a start finds the old file, or both with the same in them, and takes the highest number.

## Where several nodes share the spool

On MongoDB a message has the same states, and **the instant of acceptance** is when the word of its node is with the
majority of the servers, and journalled. Only one document changes as one there, so a group of changes goes in three
steps (`appliance/storage/mongo_spool_units.py`):

| step | what is written | where the node dies in it, the others |
|---|---|---|
| mark | new documents that nobody sees; at the others, what they will be | take the marks away: nobody was told 250 |
| decide | the number of the group, in the node's own document | find the word there, or know that it can't come |
| finish | each document as it was marked | finish it |

The sender is told 250 behind the second step; the third is taken while the next group is being marked, and before it is
decided. Content goes a tenth of a second behind the last delivery of its message, that of many at once.

A delivery that is under way has a lease, by the server's clock, which its node renews every few seconds. A node that is
not heard of for half a minute is marked as gone: from then on it can decide nothing, and its groups, leases, events and
half-received content are brought to their end by whoever looks first, within a minute of its death. If it goes on after
all (a machine that was suspended), it enters under another id and hears what it has lost. What it then decides about a
lost delivery is dropped; but if it has delivered it, the delivery is erased for all: that is better than a second copy.
"""


def document() -> str:
    """The whole of appliance/spool/STATES.md."""
    return "\n".join([_BEFORE, *_standings(), "", _ACCEPTED, _STEPS, *_diagram(), "", *_steps(), "", _AFTER])


def _standings() -> Iterator[str]:
    yield "| state | `content` | `deliveries` | what it means | a start makes of it |"
    yield "|---|---|---|---|---|"
    for state, standing in STANDINGS.items():
        row = f"`{standing.delivery.value}`" if standing.delivery else "no row"
        content = "parts" if standing.content else "no part"
        after = "the same" if standing.after_a_start is state else standing.after_a_start.value
        yield f"| **{state.value}** | {content} | {row} | {standing.meaning} | {after} |"


def _diagram() -> Iterator[str]:
    yield "```mermaid"
    yield "stateDiagram-v2"
    for state in State:
        yield f'    state "{state.value}" as {state.name}'
    labels: dict[tuple[State, State], dict[str, None]] = {}
    for step in STEPS:
        word = step.name.replace("*", "").partition(":")[0].partition(",")[0]
        labels.setdefault((step.before, step.after), {})[word] = None
    for state, standing in STANDINGS.items():
        if standing.after_a_start is not state:
            labels.setdefault((state, standing.after_a_start), {})["a start"] = None
    for (before, after), words in labels.items():
        yield f"    {before.name} --> {after.name}: {', '.join(words)}"
    yield "```"


def _steps() -> Iterator[str]:
    yield "| from | to | by | synced |"
    yield "|---|---|---|---|"
    for step in STEPS:
        yield f"| {step.before.value} | {step.after.value} | {step.name} | {'yes' if step.synced else 'no'} |"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
    print(f"{DOCUMENT} is written")
