"""SQLite tables from declarations, and the proof at each start that a file has these tables and no others.

What a later version declares otherwise is brought over by a migration; a new table, index or optional column needs
none. All that a start changes is one transaction, so that a file is of one layout or of another, wherever it was broken
off.

Nothing else in the house writes a CREATE TABLE. Tables are STRICT, so that SQLite holds a column to its type as the
codec does. A collection in the clear is kept WITHOUT ROWID: one tree instead of a table and an index for its key. One
with a sealed column is an ordinary table: its rows are hundreds of octets to hundreds of kilobytes long, and a tree
that carries whole rows in its inner pages too is slow beyond a twentieth of a page (sqlite.org/withoutrowid.html §4).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import apsw

from appliance.privacy.declarations import Collection, Field, Kind, Protection
from appliance.storage.codec import SEALED_COLUMN
from appliance.storage.records import SchemaMismatch
from appliance.storage.sqlite_statements import names, quoted

Migration = Callable[[apsw.Connection], None]
"""What brings a file from one layout to the next, inside a transaction. It is given the files of all stores, and
changes the tables that it finds."""


def _count_by_node(connection: apsw.Connection) -> None:
    # A row was an account's alone. What is forgotten is how many messages came today.
    connection.execute("DROP TABLE IF EXISTS received_today")


MIGRATIONS: tuple[Migration, ...] = (_count_by_node,)
"""The first leads from layout 1 to layout 2, and so on. None is ever changed."""

SCHEMA_VERSION = len(MIGRATIONS) + 1
"""`user_version` of files written by this code."""

_COLUMN_TYPES = {
    Kind.TEXT: "TEXT",
    Kind.INTEGER: "INTEGER",
    Kind.BOOLEAN: "INTEGER",
    Kind.OCTETS: "BLOB",
    Kind.LIST: "TEXT",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    type: str
    required: bool

    @property
    def definition(self) -> str:
        """As CREATE TABLE and ALTER TABLE take it."""
        return f"{quoted(self.name)} {self.type}{' NOT NULL' if self.required else ''}"


def columns_of(collection: Collection) -> tuple[Column, ...]:
    """The columns of a collection's table, in the order in which the codec encodes a row."""
    columns = [
        Column(field.name, _COLUMN_TYPES[field.kind], not field.optional)
        for field in collection.protected(Protection.CLEAR)
    ]
    if collection.protected(Protection.SEALED):
        columns.append(Column(SEALED_COLUMN, "BLOB", True))
    columns += [
        Column(field.name, "BLOB", not _twin(collection, field).optional)
        for field in collection.protected(Protection.KEYED)
    ]
    return tuple(columns)


def table_statement(collection: Collection) -> str:
    """The CREATE TABLE of a collection."""
    definitions = [column.definition for column in columns_of(collection)]
    definitions.append(f"PRIMARY KEY ({names(collection.key)})")
    options = "STRICT" if collection.protected(Protection.SEALED) else "STRICT, WITHOUT ROWID"
    return f"CREATE TABLE {quoted(collection.name)} ({', '.join(definitions)}) {options}"


def index_statements(collection: Collection) -> dict[str, str]:
    """CREATE INDEX statements by the name of the index. The name says everything that the index depends on."""
    statements = {}
    for fields in (*collection.indexes, *collection.unique):
        unique = fields in collection.unique
        name = f"{collection.name}_{'one_per' if unique else 'by'}_{'_'.join(fields)}"
        statements[name] = (
            f"CREATE {'UNIQUE ' if unique else ''}INDEX {quoted(name)} ON {quoted(collection.name)} ({names(fields)})"
        )
    return statements


def is_settled(connection: apsw.Connection, collections: Sequence[Collection]) -> bool:
    """Whether the file's tables are in line with the declarations already. Only reads. Raises SchemaMismatch."""
    # An older layout is first brought to this one: it need not be what is declared now.
    return _version(connection) == SCHEMA_VERSION and not _missing(connection, collections)


def settle(connection: apsw.Connection, collections: Sequence[Collection]) -> None:
    """Bring the file's tables in line with the declarations, or raise SchemaMismatch.

    What an older version has written is migrated; a missing table is made, and so is a missing column that may be
    empty. Call it inside a transaction: where it raises, nothing is to be changed, and two processes may start at once.
    """
    version = _version(connection)
    for migration in MIGRATIONS[version - 1 :] if version else ():
        migration(connection)
    for statement in _missing(connection, collections):
        connection.execute(statement)
    if version < SCHEMA_VERSION:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _missing(connection: apsw.Connection, collections: Sequence[Collection]) -> list[str]:
    """The statements that bring what is missing. Raises SchemaMismatch for what is too much or different."""
    declared = {collection.name: collection for collection in collections}
    entries = connection.execute("SELECT type, name, tbl_name FROM sqlite_schema").fetchall()
    present: set[str] = set()
    statements: list[str] = []
    wanted_indexes: dict[str, str] = {}
    for collection in declared.values():
        wanted_indexes |= index_statements(collection)
    for kind, name, table in entries:
        assert isinstance(name, str)
        if kind == "index":
            # What SQLite makes for a PRIMARY KEY begins with sqlite_.
            if table in declared and name not in wanted_indexes and not name.startswith("sqlite_"):
                statements.append(f"DROP INDEX {quoted(name)}")
            wanted_indexes.pop(name, None)
        elif kind == "table" and name in declared:
            statements += _missing_columns(connection, declared[name])
            present.add(name)
        elif not name.startswith("sqlite_"):
            raise SchemaMismatch(
                f"it has the {kind} {name!r}, which is not declared in appliance/privacy/declarations.py"
            )
    statements += [table_statement(collection) for name, collection in declared.items() if name not in present]
    return statements + list(wanted_indexes.values())


def _missing_columns(connection: apsw.Connection, collection: Collection) -> list[str]:
    described = connection.execute(f"PRAGMA table_info({quoted(collection.name)})").fetchall()
    found = {
        str(name): (Column(str(name), str(type_), bool(required)), position)
        for _, name, type_, required, _, position in described
    }
    statements = []
    for column in columns_of(collection):
        if column.name in found:
            here, position = found.pop(column.name)
            key_position = collection.key.index(column.name) + 1 if column.name in collection.key else 0
            if (here, position) != (column, key_position):
                raise SchemaMismatch(f"{collection.name}.{column.name} stands there otherwise than it is declared")
        elif column.required:
            raise SchemaMismatch(f"{collection.name}.{column.name} is missing, and is not optional")
        else:
            statements.append(f"ALTER TABLE {quoted(collection.name)} ADD COLUMN {column.definition}")
    for name in found:
        raise SchemaMismatch(
            f"it has the column {collection.name}.{name}, which is not declared in appliance/privacy/declarations.py"
        )
    return statements


def _twin(collection: Collection, keyed: Field) -> Field:
    return collection.field(keyed.of)


def _version(connection: apsw.Connection) -> int:
    """The layout that the file is written in; 0 for a new one. Raises SchemaMismatch where it is a later one."""
    ((version,),) = connection.execute("PRAGMA user_version").fetchall()
    assert isinstance(version, int)
    if version > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"it was written by a later version of Onward (its layout is {version}, this one knows {SCHEMA_VERSION}): "
            "run that version, or move the file away"
        )
    return version
