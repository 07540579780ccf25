"""What a collection is in MongoDB, by declaration: its documents, the validator that refuses others, and its indexes.

How a row stands in a document: the key is `_id` (of several fields, an `_id` with these fields in it), every other
column of `codec.py` is a field of the same name, and what is absent is no field. Beside each instant from which a fixed
retention counts stands the same instant as a date of MongoDB's, because its TTL indexes know nothing else.

A validator names each field with its type and allows no others, so that the server itself refuses what is not declared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson.datetime_ms import DatetimeMS

from appliance.model.time import parse_duration
from appliance.privacy.declarations import Collection, Field, Kind, Protection
from appliance.storage.codec import SEALED_COLUMN, StoredValue, row_columns, stored_columns

Document = dict[str, Any]
"""A document as pymongo takes and gives it."""

BROOM_WAITS_MS = 86_400_000
"""A TTL index erases so much later than the sweeper would have: it is for what nobody sweeps any more."""

_TYPES: Mapping[Kind, Mapping[str, object]] = {
    Kind.TEXT: {"bsonType": "string"},
    Kind.INTEGER: {"bsonType": ["int", "long"]},
    Kind.BOOLEAN: {"bsonType": "bool"},
    Kind.OCTETS: {"bsonType": "binData"},
    # As JSON, like in every other store.
    Kind.LIST: {"bsonType": "string"},
}
_OCTETS = _TYPES[Kind.OCTETS]
_DATE: Mapping[str, object] = {"bsonType": "date"}


@dataclass(frozen=True, slots=True)
class Index:
    """One index of a collection."""

    name: str
    keys: tuple[str, ...]
    """Paths of fields, all ascending."""
    unique: bool = False
    only: Mapping[str, object] = field(default_factory=dict)
    """What documents have to meet to be in it."""
    erased_after_s: int | None = None
    """A TTL index: how many seconds behind the date in it the server erases a document."""

    def specification(self) -> Document:
        """As `createIndexes` takes it, and as `listIndexes` gives it back but for the version of its layout."""
        specification: Document = {"name": self.name, "key": dict.fromkeys(self.keys, 1)}
        if self.unique:
            specification["unique"] = True
        if self.only:
            specification["partialFilterExpression"] = dict(self.only)
        if self.erased_after_s is not None:
            specification["expireAfterSeconds"] = self.erased_after_s
        return specification


@dataclass(frozen=True, slots=True)
class Shape:
    """One collection as the server is to keep it."""

    name: str
    fields: Mapping[str, Mapping[str, object]]
    """The type of each field, as $jsonSchema says it."""
    required: frozenset[str]
    indexes: tuple[Index, ...] = ()

    def validator(self) -> Document:
        """What the server checks each document with."""
        return {
            "$jsonSchema": {
                "bsonType": "object",
                "required": sorted(self.required),
                "properties": {name: dict(type_) for name, type_ in self.fields.items()},
                "additionalProperties": False,
            }
        }


def shape_of(
    collection: Collection, *, beside: Mapping[str, Mapping[str, object]] | None = None, indexes: Sequence[Index] = ()
) -> Shape:
    """The shape of a declared collection.

    `beside` has the fields that a store keeps its books with, none of which is required, and `indexes` theirs.
    """
    fields: dict[str, Mapping[str, object]] = {"_id": _identity_type(collection)}
    required = {"_id"}
    for declared in collection.protected(Protection.CLEAR):
        if declared.name not in collection.key:
            fields[declared.name] = _TYPES[declared.kind]
            if not declared.optional:
                required.add(declared.name)
    if collection.protected(Protection.SEALED):
        fields[SEALED_COLUMN] = _OCTETS
        required.add(SEALED_COLUMN)
    for keyed in collection.protected(Protection.KEYED):
        fields[keyed.name] = _OCTETS
        if not collection.field(keyed.of).optional:
            required.add(keyed.name)
    for name in dated(collection):
        fields[date_of(name)] = _DATE
    return Shape(collection.name, fields | dict(beside or {}), frozenset(required), (*_indexes(collection), *indexes))


def path_of(collection: Collection, column: str) -> str:
    """Where a column stands in a document."""
    if column not in collection.key:
        return column
    return "_id" if len(collection.key) == 1 else f"_id.{column}"


def dated(collection: Collection) -> tuple[str, ...]:
    """The instants that stand in a document as a date too."""
    return tuple(dict.fromkeys(each.since for each in collection.retention if "." not in each.setting))


def date_of(column: str) -> str:
    """The field with the date of such an instant."""
    return f"{column}_date"


class Documents:
    """Stored values of one collection into documents and back. Thread-safe."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self._columns = stored_columns(collection)
        self._row_columns = row_columns(collection)
        self._booleans = frozenset(each.name for each in collection.fields if each.kind is Kind.BOOLEAN)
        self._dated = dated(collection)
        self._key = collection.key

    def document(self, stored: Sequence[object]) -> Document:
        """The document of stored values, in the order of `stored_columns`."""
        return self.document_of(dict(zip(self._columns, stored, strict=True)))

    def document_of(self, stored: Mapping[str, object]) -> Document:
        """The document of stored values by column."""
        document: Document = {"_id": self.identity([stored[name] for name in self._key])}
        for name, value in stored.items():
            if value is not None and name not in self._key:
                document[name] = self._as_here(name, value)
        for name in self._dated:
            if (instant := stored.get(name)) is not None:
                document[date_of(name)] = DatetimeMS(int(str(instant)))
        return document

    def identity(self, key: Sequence[object]) -> Any:
        """The `_id` of a key."""
        return key[0] if len(self._key) == 1 else dict(zip(self._key, key, strict=True))

    def changes(self, columns: Mapping[str, StoredValue]) -> Document:
        """The update that gives columns which are not part of the key these values."""
        changed = {name: None if value is None else self._as_here(name, value) for name, value in columns.items()}
        for name in self._dated:
            if name in columns:
                instant = columns[name]
                changed[date_of(name)] = None if instant is None else DatetimeMS(int(str(instant)))
        present = {name: value for name, value in changed.items() if value is not None}
        absent = {name: "" for name, value in changed.items() if value is None}
        return ({"$set": present} if present else {}) | ({"$unset": absent} if absent else {})

    def stored(self, document: Mapping[str, object]) -> tuple[object, ...]:
        """The stored values of a document, in the order of `row_columns`: as the codec decodes them."""
        return tuple(self.value(document, name) for name in self._row_columns)

    def stored_row(self, document: Mapping[str, object]) -> dict[str, object]:
        """The stored values of a document by column, the keyed ones too: as they are handed from store to store."""
        row = {name: self.value(document, name) for name in self._columns}
        # As numbers, which is what a store has that knows no truth values.
        return row | {name: int(bool(row[name])) for name in self._booleans & row.keys() if row[name] is not None}

    def value(self, document: Mapping[str, object], column: str) -> object:
        """One stored value of a document; None where it is absent."""
        if column in self._key:
            identity: Any = document["_id"]
            value = identity if len(self._key) == 1 else identity[column]
        else:
            value = document.get(column)
        return self.plain(value)

    @staticmethod
    def plain(value: object) -> object:
        """A value as pymongo gives it, as Python's own: for what is longer than 32 bits it has a type of its own."""
        return int(value) if isinstance(value, int) and not isinstance(value, bool) else value

    def _as_here(self, column: str, value: object) -> object:
        # A row that another store hands over has 0 and 1.
        return bool(value) if column in self._booleans else value


def _identity_type(collection: Collection) -> Mapping[str, object]:
    types = {name: _TYPES[_stored_field(collection, name).kind] for name in collection.key}
    if len(types) == 1:
        return types[collection.key[0]]
    return {
        "bsonType": "object",
        "required": list(types),
        "properties": {name: dict(type_) for name, type_ in types.items()},
        "additionalProperties": False,
    }


def _stored_field(collection: Collection, name: str) -> Field:
    return next(each for each in collection.fields if each.name == name)


def _indexes(collection: Collection) -> tuple[Index, ...]:
    indexes = [Index(f"by_{'_'.join(columns)}", _paths(collection, columns)) for columns in collection.indexes]
    for columns in collection.unique:
        # None is absent, and what is absent is not the same as anything.
        optional = {name: {"$exists": True} for name in columns if collection.field(name).optional}
        indexes.append(Index(f"one_per_{'_'.join(columns)}", _paths(collection, columns), unique=True, only=optional))
    for retention in collection.retention:
        if "." in retention.setting:
            continue
        seconds = (parse_duration(retention.setting) + BROOM_WAITS_MS) // 1000
        name, values = retention.where or ("", (None,))
        for value in values:
            only = {} if value is None else {path_of(collection, name): value}
            told = f"_{name}_{value}" if only else ""
            indexes.append(
                Index(f"broom_{retention.since}{told}", (date_of(retention.since),), only=only, erased_after_s=seconds)
            )
    return tuple(indexes)


def _paths(collection: Collection, columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(path_of(collection, name) for name in columns)
