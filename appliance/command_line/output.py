"""How things look: JSON for programs, calm tables for people.

Whatever strangers have a hand in (senders, subjects, the words of servers) is printed with its control characters
escaped, so that no message can write to the operator's terminal.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TypeVar

import click

from appliance.model.time import format_instant

T = TypeVar("T")

NOTHING = "-"
"""Stands in a table where there is no value."""


def say(message: str) -> None:
    """Tell the person something that a program does not read: on standard error."""
    click.echo(message, err=True)


def print_json(value: Mapping[str, object]) -> None:
    """One object on one line. Everything beyond ASCII is escaped."""
    click.echo(json.dumps(value))


def print_list(
    values: Iterable[T],
    as_json: bool,
    *,
    view: Callable[[T], Mapping[str, object]],
    columns: Sequence[str],
    row: Callable[[T], Sequence[str]],
    empty: str,
) -> None:
    """Many of a kind: one object a line, or a table; where there are none, `empty` on standard error."""
    if as_json:
        for value in values:
            print_json(view(value))
        return
    rows = [row(value) for value in values]
    if rows:
        print_table(columns, rows)
    else:
        say(empty)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], below: Sequence[str] = ()) -> None:
    """Columns aligned to the left, two spaces apart. `below`: for each row, a line of its own below it."""
    lines = [columns, *([plain(cell) or NOTHING for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    for line, note in zip_longest(lines, ("", *below), fillvalue=""):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if note:
            click.echo(plain(note))


def plain(text: str) -> str:
    """Text that can do nothing to a terminal: what cannot be printed stands there as its escape."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def readable(instant: int | None) -> str:
    """An instant for people: to the second, in UTC."""
    return NOTHING if instant is None else format_instant(instant)[:19].replace("T", " ") + "Z"


def yes_or_no(value: bool) -> str:
    """A truth for people."""
    return "yes" if value else "no"


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 alias`, `2 aliases`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
