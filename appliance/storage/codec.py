"""Rows into stored columns and back, by declaration: the gate that everything stored has to pass.

How a row stands in a store, whichever backend it is:

- each *clear* field has a column of its own; a list stands there as JSON;
- all *sealed* fields together have one column, `sealed`: a MessagePack map by field name, without what is absent,
  sealed once for the name of the collection (or its `sealed_as`) and the key of the row;
- each *keyed* field has a column with the MAC of the field that it belongs to, made over the lower-case text, so that
  looking up `Ann@Example.org` finds `ann@example.org`.

What is not declared, has the wrong type or is missing is refused here with the name of the collection and the field.
What can be known of a collection is worked out once: encoding is on the way of every message.
"""

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, NoReturn

import msgspec

from appliance.privacy.declarations import Collection, Field, Kind, Protection, Row
from appliance.privacy.sealing import Keyring, Sealer

StoredValue = str | int | bytes | None

SEALED_COLUMN = "sealed"

MIN_INTEGER, MAX_INTEGER = -(1 << 63), (1 << 63) - 1
"""What SQLite and MongoDB can hold."""

_TYPES: dict[Kind, Any] = {
    Kind.TEXT: str,
    Kind.INTEGER: Annotated[int, msgspec.Meta(ge=MIN_INTEGER, le=MAX_INTEGER)],
    Kind.BOOLEAN: bool,
    Kind.OCTETS: bytes,
    Kind.LIST: list[str | dict[str, str]],
}

# Otherwise msgspec would take a text for octets in base64.
_AS_THEY_ARE = (bytes,)

_pack = msgspec.msgpack.Encoder().encode
_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder(list[str | dict[str, str]]).decode


class RowRefused(Exception):
    """A row, a condition or a change that the declaration does not allow: a mistake of ours, never of a stranger."""

    def __init__(self, collection: Collection, field: str, reason: str) -> None:
        super().__init__(f"{collection.name}.{field}: {reason}")
        self.collection = collection
        self.field = field


class KeyMissing(Exception):
    """This process does not hold the key that a collection is sealed under."""

    def __init__(self, collection: Collection) -> None:
        super().__init__(
            f"{collection.name} is sealed under the key {collection.sealed_under!r}, which is not held here"
        )
        self.collection = collection


def row_columns(collection: Collection) -> tuple[str, ...]:
    """The columns that say what a row says: its clear fields, and what is sealed."""
    clear = tuple(field.name for field in collection.protected(Protection.CLEAR))
    return (*clear, SEALED_COLUMN) if collection.protected(Protection.SEALED) else clear


def stored_columns(collection: Collection) -> tuple[str, ...]:
    """Every column of a stored row: those of `row_columns`, and the keyed ones, which nobody needs to read."""
    return row_columns(collection) + tuple(field.name for field in collection.protected(Protection.KEYED))


class Codec:
    """Encodes and decodes the rows of one collection. Thread-safe."""

    def __init__(self, collection: Collection, keyring: Keyring) -> None:
        """Without its key in the keyring, a collection with sealed fields raises KeyMissing when a row is needed."""
        self.collection = collection
        clear = collection.protected(Protection.CLEAR)
        sealed = collection.protected(Protection.SEALED)
        keyed = collection.protected(Protection.KEYED)
        self._fields = {field.name: field for field in collection.fields}
        # msgspec checks a whole row in one call, in C: half a microsecond where a loop here took six.
        self._whole = _shape(collection, clear + sealed)
        # It also leaves out what is absent and packs the rest by name: a microsecond less than a dict made here first.
        self._sealed_whole = _shape(collection, sealed, sparse=True)
        self._clear_names = tuple(field.name for field in clear)
        self._clear_count = len(clear)
        self._clear_lists = tuple(n for n, field in enumerate(clear) if field.kind is Kind.LIST)
        self._booleans = tuple(field.name for field in clear if field.kind is Kind.BOOLEAN)
        self._lists = tuple(field.name for field in clear if field.kind is Kind.LIST)
        self._sealed_names = tuple(field.name for field in sealed)
        self._unpack_sealed = msgspec.msgpack.Decoder(_shape(collection, sealed, others=True)).decode
        self._name = collection.sealed_as or collection.name
        self._key = collection.key
        names = [field.name for field in clear + sealed]
        self._keyed = tuple((names.index(field.of), f"{self._name}/{field.name}") for field in keyed)
        self._twins = {field.of: field.name for field in keyed}
        self._sealer = keyring.get(collection.sealed_under)

    def encode(self, row: Row) -> tuple[StoredValue, ...]:
        """The stored values of a whole row, in the order of `stored_columns`. Raises RowRefused, KeyMissing."""
        try:
            values = msgspec.structs.astuple(msgspec.convert(row, self._whole, builtin_types=_AS_THEY_ARE))
        except msgspec.ValidationError as error:
            self._refuse(row, error)
        stored = list(values[: self._clear_count])
        try:
            _pack(stored)  # one call finds what `_check_encodable` would find in any of them
            packed = _pack(self._sealed_whole(*values[self._clear_count :]))
        except UnicodeEncodeError as error:
            self._refuse(row, error)
        for position in self._clear_lists:
            stored[position] = self._to_stored(self._fields[self._clear_names[position]], stored[position])
        if self._sealed_names:
            sealer = self._sealer or self._held()
            stored.append(sealer.seal(packed, self._context(row)))
            for position, context in self._keyed:
                value = values[position]
                stored.append(None if value is None else sealer.mac(value.lower(), context))
        return tuple(stored)

    def decode(self, stored: Sequence[object]) -> dict[str, object]:
        """The row whose stored values these are, in the order of `row_columns`; keyed ones behind are passed over.

        Raises Unsealable, KeyMissing; and RowRefused where the row stands there otherwise than it is declared.
        """
        row = dict(zip(self._clear_names, stored, strict=False))
        for name in self._booleans:
            if row[name] is not None:
                row[name] = bool(row[name])
        for name in self._lists:
            text = row[name]
            if isinstance(text, str):
                row[name] = _from_json(text)
        if self._sealed_names:
            sealed = stored[len(self._clear_names)]
            if not isinstance(sealed, bytes):
                raise RowRefused(self.collection, SEALED_COLUMN, "stands in the store without octets")
            packed = self._held().open(sealed, self._context(row))
            try:
                values = msgspec.structs.astuple(self._unpack_sealed(packed))
            except msgspec.ValidationError as error:
                raise RowRefused(self.collection, SEALED_COLUMN, f"stands in the store otherwise: {error}") from None
            row.update(zip(self._sealed_names, values, strict=True))
        return row

    def encode_changes(self, changes: Row) -> dict[str, StoredValue] | None:
        """Stored values by column where every change is to a clear field; None where the whole row is needed for it.

        Raises RowRefused, also for a change of the row's key, which is for life; and KeyMissing.
        """
        for name in changes:
            self._settable(name)
            if name in self._key:
                raise RowRefused(self.collection, name, "is part of the key, which never changes")
        if any(name in self._sealed_names for name in changes):
            self._held()
            return None
        return {name: self._to_stored(self._fields[name], value) for name, value in changes.items()}

    def lookup(self, name: str, value: object) -> tuple[str, StoredValue]:
        """The column and the stored value to compare with, for a field that is to be equal to this value.

        None asks for rows where the field is absent. A sealed field is looked up in its keyed twin. Raises RowRefused,
        KeyMissing.
        """
        field = self._asked(name)
        if field.protection is Protection.CLEAR:
            return name, None if value is None else self._to_stored(field, value)
        twin = self._twins.get(name)
        if twin is None:
            raise RowRefused(self.collection, name, "is sealed and has no keyed field to look it up by")
        if value is None:
            return twin, None
        self._check(field, value)
        return twin, self._held().mac(str(value).lower(), f"{self._name}/{twin}")

    def comparable(self, name: str, *values: object) -> str:
        """The column of a clear field that values such as these can be compared with. Raises RowRefused."""
        field = self._asked(name)
        if field.protection is not Protection.CLEAR:
            raise RowRefused(
                self.collection, name, "is sealed: it can be asked for one value, not for several or a range"
            )
        for value in values:
            if value is not None:
                self._check(field, value)
        return name

    def key_of(self, row: Row) -> tuple[StoredValue, ...]:
        """The stored values of the row's key, in the order of the declaration. Raises RowRefused."""
        return tuple(self._to_stored(self._fields[name], row.get(name)) for name in self._key)

    def _held(self) -> Sealer:
        if self._sealer is None:
            raise KeyMissing(self.collection)
        return self._sealer

    def _asked(self, name: str) -> Field:
        field = self._fields.get(name)
        if field is None:
            raise RowRefused(self.collection, name, "is not declared")
        if field.protection is Protection.KEYED:
            raise RowRefused(self.collection, name, f"is made here: ask for {field.of}")
        if field.kind is Kind.LIST:
            raise RowRefused(self.collection, name, "is a list, which can't be asked for")
        return field

    def _context(self, row: Row) -> bytes:
        # MessagePack says where each part ends, so that no two rows share a context.
        return _pack((self._name, *map(row.__getitem__, self._key)))

    def _to_stored(self, field: Field, value: object) -> StoredValue:
        self._check(field, value)
        if isinstance(value, list):
            return _to_json(value).decode()
        assert value is None or isinstance(value, str | int | bytes)
        return value

    def _refuse(self, row: Row, error: Exception) -> NoReturn:
        """Name the field that is wrong in a row which has been found wrong as a whole."""
        for name in row:
            self._settable(name)
        for field in self.collection.fields:
            if field.protection is not Protection.KEYED:
                self._check(field, row.get(field.name))
        raise RowRefused(self.collection, "", str(error)) from error

    def _settable(self, name: str) -> None:
        field = self._fields.get(name)
        if field is None:
            raise RowRefused(self.collection, name, "is not declared")
        if field.protection is Protection.KEYED:
            raise RowRefused(self.collection, name, f"is made here from {field.of}, not given")

    def _check(self, field: Field, value: object) -> None:
        if value is None:
            if not field.optional:
                raise RowRefused(self.collection, field.name, "is missing")
            return
        try:
            msgspec.convert(value, _TYPES[field.kind], builtin_types=_AS_THEY_ARE)
        except msgspec.ValidationError as error:
            raise RowRefused(self.collection, field.name, str(error)) from None
        self._check_encodable(field.name, value)

    def _check_encodable(self, name: str, value: object) -> None:
        try:
            _pack(value)
        except UnicodeEncodeError:
            # A lone surrogate, as `surrogateescape` makes it of octets that are not UTF-8.
            raise RowRefused(self.collection, name, "holds a character that UTF-8 does not have") from None


@cache
def _shape(
    collection: Collection, fields: tuple[Field, ...], *, others: bool = False, sparse: bool = False
) -> type[msgspec.Struct]:
    """A type with these fields, in this order, that msgspec checks values against.

    With `others`, fields that it does not have are passed over: one that is no longer declared is no longer seen, and
    is gone when the row is written next. With `sparse`, it is made by position, and packed without what is None.
    """
    if sparse:
        names = [field.name for field in fields]
        return msgspec.defstruct(collection.name, [(name, Any, None) for name in names], omit_defaults=True)
    described = [
        (field.name, _TYPES[field.kind] | None, None) if field.optional else (field.name, _TYPES[field.kind])
        for field in fields
    ]
    return msgspec.defstruct(collection.name, described, kw_only=True, forbid_unknown_fields=not others)
