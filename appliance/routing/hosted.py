"""One hosted domain: which of its aliases takes a local part.

Most aliases are for one local part each, and most wait for years. So they stand here packed, some sixteen together, a
hundred octets each where the values would take six hundred; RCPT unpacks the one that it has found, in three
microseconds. That also leaves Python's collector of garbage a few values of each domain to look at, and not dozens.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import msgspec

from appliance.model.domain import Alias, AliasAction, AliasKind, Domain
from appliance.routing.patterns import cost_of, find

_TOGETHER = 16
"""Aliases that are packed together: a look-up passes over all of them, and each such part costs forty octets more."""

_MOST_TOGETHER = 3 * _TOGETHER
"""Where changes have made a part so large, all aliases are packed anew: which happens each time they have tripled."""


class _Packed(msgspec.Struct, array_like=True, gc=False):
    """What routing needs of an alias, beside its pattern and domain. What people have written about it stays away."""

    id: str
    action: AliasAction
    targets: tuple[str, ...]
    reference: str
    created_at: int
    enabled: bool
    expires_at: int | None
    max_uses: int | None
    use_counter: str | None
    uses: int


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(_Packed).decode
_unpack_part = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode

_NONE: Final[Mapping[str, bytes]] = MappingProxyType({})


class HostedDomain:
    """One domain and its aliases, arranged for looking up. Immutable once built; a changed copy shares with it what is
    not changed."""

    __slots__ = (
        "_catch_all",
        "_parts",
        "_prefix_lengths",
        "_prefixes",
        "domain",
        "patterns",
        "patterns_cost",
        "references",
        "use_counters",
    )

    def __init__(self, domain: Domain, aliases: Iterable[Alias]) -> None:
        self.domain = domain
        exact: dict[str, _Packed | msgspec.Raw] = {}
        prefixes: dict[str, bytes] = {}
        patterns: list[Alias] = []
        references: list[str] = []
        use_counters: list[str] = []
        self._catch_all: bytes | None = None
        for alias in aliases:
            references.append(alias.reference)
            if alias.use_counter:
                use_counters.append(alias.use_counter)
            kind = alias.kind
            if kind is AliasKind.CATCH_ALL:
                self._catch_all = _pack(_packed(alias))
            elif kind is AliasKind.WILDCARD:
                prefixes[alias.pattern[:-1]] = _pack(_packed(alias))
            elif kind is AliasKind.REGEX:
                patterns.append(replace(alias, description=None))
            else:
                exact[alias.pattern] = _packed(alias)
        self.references = tuple(references)
        """Of all its aliases."""
        self.use_counters = tuple(use_counters)
        """Of those that take only so many messages."""
        self._parts = _in_parts(exact)
        self._prefixes = prefixes or _NONE
        self._prefix_lengths = _lengths(prefixes)
        self._set_patterns(patterns)

    def changed(self, changes: Mapping[str, Alias | None]) -> tuple["HostedDomain", list[Alias]]:
        """A copy with these aliases, by their ids, as they are now (None: gone); and what stood in their places.

        That is also an alias whose pattern or reference another has by now: it is gone, or is told of in a moment.
        """
        new = [alias for alias in changes.values() if alias is not None]
        old = self._in_place_of(changes.keys(), new)
        other = copy(self)
        other.references = _replaced(
            self.references, {each.reference for each in old}, [each.reference for each in new]
        )
        other.use_counters = _replaced(
            self.use_counters,
            {each.use_counter for each in old if each.use_counter},
            [each.use_counter for each in new if each.use_counter],
        )
        other._parts = self._with_exact(
            [each.pattern for each in old if each.kind is AliasKind.EXACT],
            {each.pattern: _packed(each) for each in new if each.kind is AliasKind.EXACT},
        )
        prefixes = dict(self._prefixes)
        for alias in old:
            if alias.kind is AliasKind.WILDCARD:
                del prefixes[alias.pattern[:-1]]
            elif alias.kind is AliasKind.CATCH_ALL:
                other._catch_all = None
        for alias in new:
            if alias.kind is AliasKind.WILDCARD:
                prefixes[alias.pattern[:-1]] = _pack(_packed(alias))
            elif alias.kind is AliasKind.CATCH_ALL:
                other._catch_all = _pack(_packed(alias))
        other._prefixes = prefixes or _NONE
        other._prefix_lengths = _lengths(prefixes)
        gone = {alias.id for alias in old}
        expressions = (replace(alias, description=None) for alias in new if alias.kind is AliasKind.REGEX)
        other._set_patterns([*(alias for alias in self.patterns if alias.id not in gone), *expressions])
        return other, old

    def match(self, local_part: str) -> Alias | None:
        """The alias that takes the local part of an `Address.key`, by the precedence in this package's docstring."""
        alias = self._exact(local_part)
        if alias is None and "+" in local_part:
            alias = self._exact(local_part.split("+", 1)[0])
        if alias is not None:
            return alias
        for length in self._prefix_lengths:
            prefix = local_part[:length]
            packed = self._prefixes.get(prefix) if len(local_part) >= length else None
            if packed is not None:
                return self._alias(f"{prefix}*", packed)
        for alias in self.patterns:
            if find(alias.pattern, local_part) is not None:
                return alias
        return None if self._catch_all is None else self._alias("*", self._catch_all)

    def aliases(self) -> Iterator[Alias]:
        """All of them, in no order."""
        for part in self._parts:
            for pattern, found in _unpack_part(part).items():
                yield self._alias(pattern, found)
        for prefix, packed in self._prefixes.items():
            yield self._alias(f"{prefix}*", packed)
        yield from self.patterns
        if self._catch_all is not None:
            yield self._alias("*", self._catch_all)

    def pattern_of(self, reference: str) -> str | None:
        """The pattern of the alias that this reference stands for; None where it is none of this domain's."""
        if reference not in self.references:
            return None
        return next((alias.pattern for alias in self.aliases() if alias.reference == reference), None)

    def _set_patterns(self, patterns: Iterable[Alias]) -> None:
        self.patterns = tuple(sorted(patterns, key=lambda alias: (alias.created_at, alias.id)))
        """Those that are expressions, in the order in which they were made."""
        # Now, in the thread that loads: while a sender waits for RCPT, none is to be compiled.
        self.patterns_cost = sum(cost_of(alias.pattern) for alias in self.patterns)

    def _in_place_of(self, ids: Collection[str], new: Iterable[Alias]) -> list[Alias]:
        """The aliases with one of these ids, or with what only one of a domain can have of what is new."""
        patterns, references = {alias.pattern for alias in new}, {alias.reference for alias in new}
        # A text stands in what is packed as it is. So where none of them does, nothing is unpacked.
        sought = [text.encode() for text in (*ids, *references)]

        def may_be(packed: bytes) -> bool:
            return any(id in packed for id in sought)

        places = {self._place(pattern) for pattern in patterns} if self._parts else set()
        found = list(self.patterns)
        for number, part in enumerate(self._parts):
            if number in places or may_be(part):
                found += (self._alias(pattern, raw) for pattern, raw in _unpack_part(part).items())
        for prefix, packed in self._prefixes.items():
            if f"{prefix}*" in patterns or may_be(packed):
                found.append(self._alias(f"{prefix}*", packed))
        if self._catch_all is not None:
            found.append(self._alias("*", self._catch_all))
        return [each for each in found if each.id in ids or each.pattern in patterns or each.reference in references]

    def _with_exact(self, gone: Iterable[str], come: Mapping[str, _Packed]) -> tuple[bytes, ...]:
        """The parts without the first patterns, and then with the others."""
        if not self._parts:
            return _in_parts(come)
        opened: dict[int, dict[str, _Packed | msgspec.Raw]] = {}
        for pattern in (*gone, *come):
            place = self._place(pattern)
            part = opened.get(place)
            if part is None:
                part = opened[place] = dict(_unpack_part(self._parts[place]))
            if pattern in come:
                part[pattern] = come[pattern]
            else:
                part.pop(pattern, None)
        parts = list(self._parts)
        for place, part in opened.items():
            parts[place] = _pack(part)
        if any(len(part) > _MOST_TOGETHER for part in opened.values()):
            return _in_parts({pattern: raw for part in parts for pattern, raw in _unpack_part(part).items()})
        return tuple(parts)

    def _place(self, local_part: str) -> int:
        """The number of the part that has an alias for this local part alone, if there is one."""
        return hash(local_part) % len(self._parts)

    def _exact(self, local_part: str) -> Alias | None:
        parts = self._parts
        if not parts:
            return None
        packed = _unpack_part(parts[self._place(local_part)]).get(local_part)
        return None if packed is None else self._alias(local_part, packed)

    def _alias(self, pattern: str, packed: bytes | msgspec.Raw) -> Alias:
        stored = _unpack(packed)
        return Alias(
            id=stored.id,
            domain_id=self.domain.id,
            pattern=pattern,
            action=stored.action,
            targets=stored.targets,
            reference=stored.reference,
            created_at=stored.created_at,
            enabled=stored.enabled,
            expires_at=stored.expires_at,
            max_uses=stored.max_uses,
            use_counter=stored.use_counter,
            uses=stored.uses,
        )


def _packed(alias: Alias) -> _Packed:
    return _Packed(
        alias.id,
        alias.action,
        alias.targets,
        alias.reference,
        alias.created_at,
        alias.enabled,
        alias.expires_at,
        alias.max_uses,
        alias.use_counter,
        alias.uses,
    )


def _lengths(prefixes: Iterable[str]) -> tuple[int, ...]:
    """The longest first."""
    return tuple(sorted(set(map(len, prefixes)), reverse=True))


def _replaced(texts: tuple[str, ...], gone: Collection[str], come: Collection[str]) -> tuple[str, ...]:
    """The same without the first, and with the others; this very tuple where they are the same."""
    if set(gone) == set(come):
        return texts
    return (*(text for text in texts if text not in gone), *come)


def _in_parts(exact: Mapping[str, _Packed | msgspec.Raw]) -> tuple[bytes, ...]:
    """By the hash of their patterns, so that one part is looked at for one local part."""
    count = -(-len(exact) // _TOGETHER)
    if count < 2:
        return (_pack(exact),) if exact else ()
    parts: list[dict[str, _Packed | msgspec.Raw]] = [{} for _ in range(count)]
    for pattern, packed in exact.items():
        parts[hash(pattern) % count][pattern] = packed
    return tuple(map(_pack, parts))
