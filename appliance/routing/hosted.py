"""One hosted domain: which of its aliases takes a local part.

Most aliases are for one local part each, and most wait for years. So they stand here packed, some sixteen together, a
hundred octets each where the values would take six hundred; RCPT unpacks the one that it has found, in three
microseconds. That also leaves Python's collector of garbage a few values of each domain to look at, and not dozens.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import msgspec

from appliance.model.domain import Alias, AliasAction, AliasKind, Domain
from appliance.routing.patterns import cost_of, find

_TOGETHER = 16
"""Aliases that are packed together: a look-up passes over all of them, and each such part costs forty octets more."""


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
    """One domain and its aliases, arranged for looking up. Immutable once built."""

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
        exact: dict[str, _Packed] = {}
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
        self._prefix_lengths = tuple(sorted({len(prefix) for prefix in prefixes}, reverse=True))
        self.patterns = tuple(sorted(patterns, key=lambda alias: (alias.created_at, alias.id)))
        """Those that are expressions, in the order in which they were made."""
        # Now, in the thread that loads: while a sender waits for RCPT, none is to be compiled.
        self.patterns_cost = sum(cost_of(alias.pattern) for alias in patterns)

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

    def _exact(self, local_part: str) -> Alias | None:
        parts = self._parts
        if not parts:
            return None
        packed = _unpack_part(parts[hash(local_part) % len(parts)]).get(local_part)
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


def _in_parts(exact: Mapping[str, _Packed]) -> tuple[bytes, ...]:
    """By the hash of their patterns, so that one part is looked at for one local part."""
    count = -(-len(exact) // _TOGETHER)
    if count < 2:
        return (_pack(exact),) if exact else ()
    parts: list[dict[str, _Packed]] = [{} for _ in range(count)]
    for pattern, packed in exact.items():
        parts[hash(pattern) % count][pattern] = packed
    return tuple(map(_pack, parts))
