"""Instants: milliseconds since the epoch inside, RFC 3339 in UTC with milliseconds outside."""

import re
from typing import Final, NewType

import strawberry

from appliance.model.time import format_instant, parse_instant

DateTime = NewType("DateTime", int)
"""Milliseconds since the epoch, shown as `2026-11-20T10:00:00.000Z`. A resolver says `DateTime(account.created_at)`."""


def instant(at: int | None) -> DateTime | None:
    """The same of one that need not be there."""
    return None if at is None else DateTime(at)


# RFC 3339 §5.6: date and time and offset, all of it. A leap second is not told apart from the one after it.
_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def _read(value: object) -> int:
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise ValueError("A DateTime is RFC 3339 with an offset, such as 2026-11-20T10:00:00.000Z.")
    # Python 3.11 takes fractions of three or six digits; what is finer than milliseconds is cut off.
    whole, fraction, offset = re.fullmatch(r"([^.Zz+]{19})(\.[0-9]+)?(.*)", value).groups()  # type: ignore[union-attr]
    try:
        return parse_instant(whole.upper() + ((fraction or ".0") + "00")[:4] + offset.upper())
    except ValueError:
        raise ValueError("There is no such instant.") from None


DATE_TIME: Final = strawberry.scalar(
    name="DateTime",
    description="An instant as RFC 3339 in UTC with milliseconds: 2026-11-20T10:00:00.000Z",
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
    serialize=format_instant,
    parse_value=_read,
)
