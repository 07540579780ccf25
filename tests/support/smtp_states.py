"""Draws smtp/STATES.md from the two tables that the sessions go by, so that the drawing is what the code does.

Run as a script, it writes the file. It knows of the tables no more than that they lead from a member of an Enum, by a
member of an Enum or a first digit, to a member of an Enum or a reply.
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from smtp.client import sequence as client_sequence
from smtp.reply import Reply
from smtp.server import sequence

DOCUMENT = Path(__file__).resolve().parents[2] / "smtp" / "STATES.md"

Cause = Enum | int
"""What a transition is due to: a command, or the first digit of a reply."""
# Of states, or stages, and causes. Any, because a Mapping is invariant in its keys.
Table = Mapping[Any, Mapping[Any, Enum | Reply]]
Edge = tuple[Enum, Enum, str]
"""From where, to where, and by what."""


_INTRODUCTION = """\
# The two sessions, state by state

Printed from the tables in [server/sequence.py](server/sequence.py) and [client/sequence.py](client/sequence.py), where
the reasons stand, by `.venv/bin/python tests/support/smtp_states.py`. A test holds this page to what that prints.
"""
_SERVER = """\
## The server

What a command leads to once it has succeeded. One that is refused changes nothing; the table says how it is refused.
"""
_CLIENT = """\
## The client

What a reply leads to: the stage that it belongs to, its first digit, and what the session can be asked to do after it.
421 ends the conversation at every stage, and 500 and 502 to BDAT do. A dash is a breach of protocol, and ends it too.
"""


def document() -> str:
    """The whole of smtp/STATES.md."""
    return "\n".join([_INTRODUCTION, *_server(), *_client(), ""])


def _server() -> Iterator[str]:
    table: Table = sequence.TRANSITIONS
    yield _SERVER
    endings = [(state, after, words) for state, (words, after) in sequence.ENDINGS.items()]
    yield from _diagram([*_edges(table), *endings], first=sequence.State.CONNECTED, last=sequence.State.CLOSED)
    yield from _meanings(sequence.State)
    yield "| command | " + " | ".join(_words(state) for state in table) + " |"
    yield "|---" * (len(table) + 1) + "|"
    for command in _causes(table):
        yield f"| {_label(command)} | " + " | ".join(_cell(row.get(command)) for row in table.values()) + " |"
    yield ""
    silent = [_words(state) for state in sequence.State if state not in table]
    yield f"In these states no command is read: {', '.join(silent)}."
    yield ""


def _client() -> Iterator[str]:
    table: Table = client_sequence.TRANSITIONS
    yield _CLIENT
    yield from _diagram(_edges(table), before="reply to ")
    yield from _meanings(client_sequence.ClientState)
    digits = _causes(table)
    yield "| reply to | " + " | ".join(map(_label, digits)) + " |"
    yield "|---" * (len(digits) + 1) + "|"
    for stage, row in table.items():
        yield f"| {_words(stage)} | " + " | ".join(_cell(row.get(digit)) for digit in digits) + " |"


def _edges(table: Table) -> list[Edge]:
    """From where to where, and everything in the table that leads there."""
    causes: dict[tuple[Enum, Enum], list[str]] = {}
    for before, row in table.items():
        for cause in _causes(table):
            after = row.get(cause)
            if isinstance(after, Enum):
                causes.setdefault((before, after), []).append(_label(cause))
    return [(before, after, ", ".join(labels)) for (before, after), labels in causes.items()]


def _diagram(
    edges: Sequence[Edge], *, first: Enum | None = None, last: Enum | None = None, before: str = ""
) -> Iterator[str]:
    """`before` is put before the name of what leads on."""
    sources = {source for source, _, _ in edges}
    yield "```mermaid"
    yield "stateDiagram-v2"
    for member in dict.fromkeys(member for source, target, _ in edges for member in (source, target)):
        yield f'    state "{before if member in sources else ""}{_words(member)}" as {_name(member)}'
    if first is not None:
        yield f"    [*] --> {_name(first)}"
    for source, target, label in edges:
        yield f"    {_name(source)} --> {_name(target)}: {label}"
    if last is not None:
        yield f"    {_name(last)} --> [*]"
    yield "```"
    yield ""


def _meanings(states: type[Enum]) -> Iterator[str]:
    """What each state means, in the words that stand below it in the code."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(states))).body
    assert isinstance(definition, ast.ClassDef)
    for assignment, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(assignment, ast.Assign) and isinstance(assignment.targets[0], ast.Name):
            member = states[assignment.targets[0].id] if assignment.targets[0].id in states.__members__ else None
            if member and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                yield f"- **{_words(member)}**: {' '.join(str(below.value.value).split())}"
    yield ""


def _causes(table: Table) -> list[Cause]:
    """Every command or digit of the table, in the order of their kind."""
    found = dict.fromkeys(cause for row in table.values() for cause in row)
    return sorted(found, key=lambda cause: list(type(cause)).index(cause) if isinstance(cause, Enum) else cause)


def _cell(after: Enum | Reply | None) -> str:
    if after is None:
        return "-"
    return f"{after}".replace("|", "\\|") if isinstance(after, Reply) else f"**{_words(after)}**"


def _label(cause: Cause) -> str:
    return _words(cause) if isinstance(cause, Enum) else f"{cause}xx"


def _words(member: Enum) -> str:
    return str(member.value)


def _name(member: Enum) -> str:
    """Unlike any other's: two Enums may have members of the same name."""
    return f"{type(member).__name__}_{member.name}"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
    print(f"{DOCUMENT} is written")
