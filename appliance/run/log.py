"""The log of the processes: one line an entry, on standard error, for whoever runs the machine.

The rule: no address of mail, no subject, no octet of a message, and no text of another server ever stands here, at any
level. What happened to a message is the logbook's to remember, as far as its domain allows and no longer than declared;
what is written to standard error goes to a journal that nobody sweeps. Identifiers of messages and deliveries may stand
here, and so may names of destination servers' faults (`connection-failed`), names of our files, and numbers.

A line is `time level process: words key=value ...`. Control characters are escaped, so that nothing that is logged can
begin a line of its own or steer a terminal.
"""

import logging
import sys
import traceback
from typing import Final

from appliance.model.time import format_instant

_NEEDS_QUOTES: Final = frozenset(" \"'=")
_PLACES = 3
"""How many of the innermost calls tell where an error came from. More is a page, and a line is meant."""


def configure(process: str) -> None:
    """Make this process log to standard error under this name. The last call counts."""
    line = logging.StreamHandler(sys.stderr)
    line.setFormatter(OneLine(process))
    root = logging.getLogger()
    root.handlers[:] = [line]
    root.setLevel(logging.INFO)
    # A standard error that nobody reads any more is no reason to do anything else than go on.
    logging.raiseExceptions = False


def words(what: str, **fields: object) -> str:
    """Words and fields as one message: `words("engine died", status=3)` is `engine died status=3`."""
    return " ".join([what, *(f"{key}={_field(value)}" for key, value in fields.items())])


class OneLine(logging.Formatter):
    """Makes one line of a record, whatever is in it."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Without the text of an exception, which may have been made from mail: its type and place are told."""
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message = f"{message} {words('because of', error=places(record.exc_info[1]))}"
        instant = format_instant(int(record.created * 1000))
        return f"{instant} {record.levelname.lower()} {self._process}: {escaped(message)}"


def places(error: BaseException) -> str:
    """The type of an error and where it came from, without its text; of a group, each one in it."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(places(one) for one in error.exceptions)
    calls = traceback.extract_tb(error.__traceback__)[-_PLACES:]
    where = " < ".join(f"{call.filename.rpartition('/')[2]}:{call.lineno} {call.name}" for call in reversed(calls))
    return f"{type(error).__name__} at {where}" if where else type(error).__name__


def escaped(text: str) -> str:
    """The text with everything escaped that is not a printable character."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _field(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = escaped(str(value))
    if text and _NEEDS_QUOTES.isdisjoint(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
