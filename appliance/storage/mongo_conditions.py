"""Conditions on rows as MongoDB takes them: `Where` of the record store, and what a retention erases.

Each can also be asked of a document in memory, for a batch has to know what its own earlier changes leave for the later
ones. Without a collation the server compares texts by their octets in UTF-8, which is the order of Python's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appliance.privacy.declarations import Retention
from appliance.storage.codec import Codec
from appliance.storage.mongo_documents import path_of
from appliance.storage.records import AnyOf, Range, Where

_COMPARED = ("$gte", "$lt", "$gt")
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Condition:
    """What documents have to meet."""

    filter: Mapping[str, Any]
    """By path: operators and their values, all of which hold."""

    def holds(self, document: Mapping[str, Any]) -> bool:
        """Whether a document meets it."""
        return all(
            _compare(operator, _at(document, path), value)
            for path, operators in self.filter.items()
            for operator, value in operators.items()
        )

    @property
    def names_one(self) -> bool:
        """Whether it can be met by one document at most, since it has the whole `_id`."""
        return "$eq" in self.filter.get("_id", {})


def condition(codec: Codec, where: Where) -> Condition:
    """The condition, which all documents meet where there are none. Raises RowRefused, KeyMissing."""
    terms: dict[str, dict[str, Any]] = {}
    for name, wanted in where.items():
        if isinstance(wanted, Range):
            bounds = (wanted.since, wanted.until, wanted.after)
            term: dict[str, Any] = {
                operator: bound for operator, bound in zip(_COMPARED, bounds, strict=True) if bound is not None
            }
            # A range has no end that is not said, but it has no place for what is absent.
            column, operators = codec.comparable(name, *bounds), term
        elif isinstance(wanted, AnyOf):
            # None is met by what is absent.
            column, operators = codec.comparable(name, *wanted.values), {"$in": list(wanted.values)}
        else:
            column, value = codec.lookup(name, wanted)
            operators = {"$exists": False} if value is None else {"$eq": value}
        if operators:
            terms.setdefault(path_of(codec.collection, column), {}).update(operators)
    return Condition(terms)


def outlived(codec: Codec, retention: Retention, before: int) -> Condition:
    """The condition on rows whose retention has ended. Raises RowRefused."""
    where: dict[str, object] = {retention.since: Range(until=before)}
    if retention.where is not None:
        name, any_of = retention.where
        where[name] = AnyOf(any_of)
    return condition(codec, where)


def same_fields(codec: Codec, columns: tuple[str, ...], stored: Mapping[str, object]) -> Condition | None:
    """The condition on rows that have the same values in these columns; None where one of them is absent here."""
    values = {path_of(codec.collection, name): stored[name] for name in columns}
    if any(value is None for value in values.values()):
        return None
    return Condition({path: {"$eq": value} for path, value in values.items()})


def _at(document: Mapping[str, Any], path: str) -> Any:
    value: Any = document
    for part in path.split("."):
        if part not in value:
            return _MISSING
        value = value[part]
    return value


def _compare(operator: str, value: Any, wanted: Any) -> bool:
    if operator == "$in":
        return bool((None if value is _MISSING else value) in wanted)
    if operator == "$exists":
        return bool((value is not _MISSING) == wanted)
    if value is _MISSING:
        return False
    match operator:
        case "$eq":
            return bool(value == wanted)
        case "$gte":
            return bool(value >= wanted)
        case "$lt":
            return bool(value < wanted)
        case _:
            return bool(value > wanted)
