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

import msgspec

from appliance.privacy.declarations import Collection, Field, Kind, Protection, Row
from appliance.privacy.sealing import Keyring, Sealer

StoredValue = str | int | bytes | None

SEALED_COLUMN = "sealed"

MIN_INTEGER, MAX_INTEGER = -(1 << 63), (1 << 63) - 1
"""What SQLite and MongoDB can hold."""

_TYPES: dict[Kind, type] = {
    Kind.TEXT: str,
    Kind.INTEGER: int,
    Kind.BOOLEAN: bool,
    Kind.OCTETS: bytes,
    Kind.LIST: list,
}

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(dict[str, object]).decode
_to_json = msgspec.json.Encoder().encode
_from_json = msgspec.json.Decoder(list[object]).decode


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
        self._clear_columns = tuple(field.name for field in clear)
        self._fields = {field.name: field for field in collection.fields}
        self._given = {field.name for field in (*clear, *sealed)}
        self._clear = tuple((field.name, _TYPES[field.kind], field) for field in clear)
        self._sealed = tuple((field.name, _TYPES[field.kind], field) for field in sealed)
        self._booleans = tuple(field.name for field in clear if field.kind is Kind.BOOLEAN)
        self._lists = tuple(field.name for field in clear if field.kind is Kind.LIST)
        self._absent = dict.fromkeys(field.name for field in sealed)
        self._required = tuple(field.name for field in sealed if not field.optional)
        self._name = collection.sealed_as or collection.name
        self._key = collection.key
        self._keyed = tuple((field.of, f"{self._name}/{field.name}") for field in keyed)
        self._twins = {field.of: field.name for field in keyed}
        self._sealer = keyring.get(collection.sealed_under)

    def encode(self, row: Row) -> tuple[StoredValue, ...]:
        """The stored values of a whole row, in the order of `stored_columns`. Raises RowRefused, KeyMissing."""
        if not row.keys() <= self._given:
            self._refuse_names(row)
        stored = self._encode_clear(row)
        if self._sealed:
            sealer = self._held()
            plain = {}
            for name, wanted, field in self._sealed:
                value = row.get(name)
                if value is None and field.optional:
                    continue
                if type(value) is not wanted or (wanted is not bytes and not _plain_text(value)):
                    self._check(field, value)
                plain[name] = value
            stored.append(sealer.seal(_pack(plain), self._context(row)))
            for of, context in self._keyed:
                value = plain.get(of)
                stored.append(None if value is None else sealer.mac(str(value).lower(), context))
        return tuple(stored)

    def decode(self, stored: tuple[StoredValue, ...]) -> dict[str, object]:
        """The row whose stored values these are, in the order of `row_columns`; keyed ones behind them are passed over.

        Raises Unsealable, KeyMissing.
        """
        row: dict[str, object] = dict(zip(self._clear_columns, stored, strict=False))
        for name in self._booleans:
            if row[name] is not None:
                row[name] = bool(row[name])
        for name in self._lists:
            text = row[name]
            if isinstance(text, str):
                row[name] = _from_json(text)
        if self._sealed:
            sealed = stored[len(self._clear_columns)]
            if not isinstance(sealed, bytes):
                raise RowRefused(self.collection, SEALED_COLUMN, "stands in the store without octets")
            plain = _unpack(self._held().open(sealed, self._context(row)))
            row |= self._absent
            for name, value in plain.items():
                # A field that is no longer declared is no longer seen, and is gone when the row is written next.
                if name in self._absent:
                    row[name] = value
            for name in self._required:
                if row[name] is None:
                    raise RowRefused(self.collection, name, "is missing in a stored row, and is not optional")
        return row

    def encode_changes(self, changes: Row) -> dict[str, StoredValue] | None:
        """Stored values by column where every change is to a clear field; None where the whole row is needed for it.

        Raises RowRefused, also for a change of the row's key, which is for life; and KeyMissing.
        """
        self._refuse_names(changes)
        for name in changes:
            if name in self._key:
                raise RowRefused(self.collection, name, "is part of the key, which never changes")
        if any(name in self._absent for name in changes):
            self._held()
            return None
        return {name: self._to_stored(field, changes[name]) for name, _wanted, field in self._clear if name in changes}

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

    def _encode_clear(self, row: Row) -> list[StoredValue]:
        stored: list[StoredValue] = []
        for name, wanted, field in self._clear:
            value = row.get(name)
            if wanted is str and type(value) is str and value.isascii():
                stored.append(value)
            elif value is None and field.optional:
                stored.append(None)
            else:
                stored.append(self._to_stored(field, value))
        return stored

    def _to_stored(self, field: Field, value: object) -> StoredValue:
        self._check(field, value)
        if isinstance(value, list):
            return _to_json(value).decode()
        assert value is None or isinstance(value, str | int | bytes)
        return value

    def _context(self, row: Row) -> bytes:
        # MessagePack says where each part ends, so that no two rows share a context.
        return _pack((self._name, *[row[name] for name in self._key]))

    def _check(self, field: Field, value: object) -> None:
        if value is None:
            if not field.optional:
                raise RowRefused(self.collection, field.name, "is missing")
            return
        wanted = _TYPES[field.kind]
        if type(value) is not wanted:
            raise RowRefused(self.collection, field.name, f"takes {wanted.__name__}, not {type(value).__name__}")
        if isinstance(value, int) and not MIN_INTEGER <= value <= MAX_INTEGER:
            raise RowRefused(self.collection, field.name, "takes an integer of 64 bits, and this one is larger")
        if isinstance(value, str) and not _encodable(value):
            raise RowRefused(self.collection, field.name, "takes text that can be written in UTF-8")
        if isinstance(value, list) and not _is_declared_list(value):
            raise RowRefused(self.collection, field.name, "takes a list of texts, or of mappings from text to text")

    def _refuse_names(self, row: Row) -> None:
        for name in row:
            field = self._fields.get(name)
            if field is None:
                raise RowRefused(self.collection, name, "is not declared")
            if field.protection is Protection.KEYED:
                raise RowRefused(self.collection, name, f"is made here from {field.of}, not given")


def _plain_text(value: object) -> bool:
    """What the hot path lets through without a second look."""
    return type(value) is str and value.isascii()


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        # A lone surrogate, as `surrogateescape` makes it of octets that are not UTF-8.
        return False
    return True


def _is_declared_list(value: list[object]) -> bool:
    if all(isinstance(item, str) and _encodable(item) for item in value):
        return True
    return all(
        isinstance(item, dict)
        and all(isinstance(text, str) and _encodable(text) for pair in item.items() for text in pair)
        for item in value
    )
