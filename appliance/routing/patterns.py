"""Aliases that are expressions: `/^support-(.+)$/` takes `support-anything`, and `$1` in where it leads is `anything`.

The expressions are RE2's (github.com/google/re2/wiki/Syntax): whatever is written, looking takes time in proportion to
what is looked at, which is a local part of at most 64 octets. They look anywhere in the local part unless `^` and `$`
say otherwise, as expressions in slashes do everywhere, and regardless of case.

`$1` to `$9` stand in a destination for what the groups have found, which is what a stranger wrote. Nobody shall be able
to have mail sent to an address of their making, so they stand in two places only: behind the `+` of a mailbox whose
owner has agreed, or in the local part of a domain that the same account has verified.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2

from smtp.address import MAX_LOCAL_PART_OCTETS, Address, AddressError

MAX_PATTERN_CHARACTERS = 256
"""Of an expression, its slashes included: several times what a local part has, and few enough to be read by people."""

MAX_PATTERN_MEMORY = 64 << 10
"""Octets that RE2 may take for one expression. `(.{1,50}){1,10}` is too much, `[a-z0-9.]{1,64}` is not."""

MAX_PATTERNS_PER_DOMAIN = 100
"""Expressions that one local part may have to be looked at with: of usual ones this takes half a millisecond."""

MAX_COST_PER_DOMAIN = 10_000
"""The `cost_of` all expressions of a domain together. The worst that was found, `(a?){200}a{200}`, took 0.6
microseconds for each of its 1,005: one look at a local part takes six milliseconds at the worst."""

_KEPT = 4096
"""Compiled expressions that are kept, 256 MiB at the most and a fiftieth of that as people write them."""

# A second `$` or a `$` before anything else is a letter as any other (RFC 5322 §3.2.3).
_REFERENCE = re.compile(r"\$([1-9])")


class PatternError(ValueError):
    """This is no expression that can be used. The text says why, for people."""


@dataclass(frozen=True, slots=True)
class Captured:
    """What the groups of an expression have found in a local part; empty for one that took no part."""

    groups: tuple[str, ...]


def check_pattern(pattern: str) -> None:
    """Raise PatternError where an alias's pattern, with its slashes, is no expression or asks for too much."""
    if len(pattern) > MAX_PATTERN_CHARACTERS:
        raise PatternError(f"it is longer than {MAX_PATTERN_CHARACTERS} characters")
    if pattern == "//":
        raise PatternError("nothing stands between its slashes")
    _compiled(pattern)


def cost_of(pattern: str) -> int:
    """How long looking may take: the instructions of the expression's program. 0 for one that can't be used."""
    try:
        return int(_compiled(pattern).programsize)
    except PatternError:
        return 0


def groups_of(pattern: str) -> int:
    """How many groups an expression has. Raises PatternError."""
    return int(_compiled(pattern).groups)


def begins_with(pattern: str) -> str:
    """The letters that what an expression finds begins with, as far as they are certain. Raises PatternError."""
    try:
        # By case: else the letters that look alike in other scripts would leave nothing certain.
        least, most = _compiled(pattern, by_case=True).possiblematchrange(MAX_LOCAL_PART_OCTETS)
    except re2.error:
        return ""  # Anything: RE2 knows no range for it.
    common = 0
    while common < min(len(least), len(most)) and least[common] == most[common]:
        common += 1
    return str(least[:common].decode("utf-8", "ignore")).lower()


def find(pattern: str, local_part: str) -> Captured | None:
    """What the expression finds in the local part of an `Address.key`; None where it finds nothing.

    An expression that this version can't read finds nothing either: it is not what somebody else's mail waits for.
    """
    try:
        found = _compiled(pattern).search(local_part)
    except PatternError:
        return None
    return None if found is None else Captured(tuple(group or "" for group in found.groups()))


def references(target: str) -> tuple[int, ...]:
    """The numbers of the groups that a destination stands for, such as 1 for `ada+$1@example.org`."""
    return tuple(int(number) for number in _REFERENCE.findall(target.rpartition("@")[0]))


def without_references(target: str) -> str:
    """The mailbox that a destination is about: `ada@example.org` for `ada+$1@example.org`. The rest as it is."""
    local_part, _, domain = target.rpartition("@")
    mailbox, plus, detail = local_part.partition("+")
    return f"{mailbox}@{domain}" if plus and _REFERENCE.search(detail) else target


def stand_in_detail(target: str) -> bool:
    """Whether all that a destination stands for is behind the `+` of its local part."""
    mailbox, _, _ = target.rpartition("@")[0].partition("+")
    return bool(mailbox) and not _REFERENCE.search(mailbox)


def filled_in(target: str, captured: Captured) -> Address | None:
    """The destination for what was found; None where that makes no address, such as one that is too long."""
    local_part, _, domain = target.rpartition("@")
    groups: Sequence[str] = captured.groups
    written = _REFERENCE.sub(
        lambda found: groups[int(found[1]) - 1] if int(found[1]) <= len(groups) else "", local_part
    )
    written = written.removesuffix("+")
    if not written:
        return None
    try:
        # By way of its text: what a stranger wrote becomes part of an address, and has to be one.
        return Address.parse(str(Address(written, domain)))
    except AddressError:
        return None


@lru_cache(_KEPT)
def _compiled(pattern: str, *, by_case: bool = False) -> Any:
    options = re2.Options()
    options.max_mem = MAX_PATTERN_MEMORY
    options.case_sensitive = by_case
    options.log_errors = False
    try:
        return re2.compile(pattern[1:-1], options)
    except re2.error as error:
        cause = error.args[0] if error.args else ""
        text = cause.decode("utf-8", "replace") if isinstance(cause, bytes) else str(cause)
        why = "it takes too much memory" if "too large" in text else text
        raise PatternError(f"{why} (RE2 syntax)") from None
