"""A SQLite file holds the declared tables and nothing else."""

from pathlib import Path

import apsw
import pytest
from storage_backends import SqliteBackend
from stored_values import a_keyring

from appliance.privacy.declarations import (
    COLLECTIONS,
    CONTENT,
    DELIVERIES,
    EVENTS,
    RECEIVED_TODAY,
    Collection,
    Field,
    Kind,
    Protection,
    Store,
)
from appliance.storage import sqlite_spool_statements as texts
from appliance.storage import sqlite_statements, sqlite_tables
from appliance.storage.codec import stored_columns
from appliance.storage.records import SchemaMismatch, StoreUnavailable
from appliance.storage.sqlite_database import Database
from appliance.storage.sqlite_records import SqliteRecords
from appliance.storage.sqlite_tables import SCHEMA_VERSION, columns_of, index_statements

TABLES = [each for each in COLLECTIONS if each.store is not Store.EPHEMERAL and not each.shared]

_BY_TIME = "deliveries_by_state_priority_next_attempt_at_destination_key"

NOTES = Collection(
    "notes",
    Store.RECORDS,
    "for these tests",
    (Field("id"), Field("size", Kind.INTEGER), Field("name", optional=True), Field("open", Kind.BOOLEAN)),
    unique=(("name",),),
    indexes=(("size", "name"),),
)


def changed(**changes: object) -> Collection:
    parts = {"name": NOTES.name, "store": NOTES.store, "purpose": NOTES.purpose, "fields": NOTES.fields}
    return Collection(**(parts | changes))  # type: ignore[arg-type]


def execute(path: Path, *statements: str) -> list[tuple[object, ...]]:
    """With nothing of ours in between."""
    connection = apsw.Connection(str(path))
    try:
        rows: list[tuple[object, ...]] = []
        for statement in statements:
            rows = list(connection.execute(statement))
        return rows
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with the table NOTES and a row in it."""
    path = tmp_path / "notes.sqlite"
    Database(path, [NOTES]).close()
    execute(path, "INSERT INTO notes VALUES ('a', 1, 'one', 1)")
    return path


def reopen(path: Path, *collections: Collection) -> None:
    Database(path, collections).close()


def test_the_stores_hold_what_is_declared_for_them(sqlite: SqliteBackend) -> None:
    sqlite.records()
    sqlite.spool()
    for path, store in ((sqlite.records_path, Store.RECORDS), (sqlite.spool_path, Store.SPOOL)):
        tables = execute(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")
        assert {name for (name,) in tables} == {entry.name for entry in TABLES if entry.store is store}
    for collection in TABLES:
        path = sqlite.records_path if collection.store is Store.RECORDS else sqlite.spool_path
        columns = execute(path, f"PRAGMA table_info({collection.name})")
        assert tuple(column[1] for column in columns) == stored_columns(collection)
        assert tuple(column.name for column in columns_of(collection)) == stored_columns(collection)
        key = sorted((column[5], column[1]) for column in columns if column[5])
        assert tuple(name for _, name in key) == collection.key


def test_rows_that_are_small_have_one_tree_and_those_that_are_not_have_two(sqlite: SqliteBackend) -> None:
    sqlite.records()
    sqlite.spool()
    tables = execute(sqlite.records_path, "PRAGMA table_list") + execute(sqlite.spool_path, "PRAGMA table_list")
    without_rowid = {row[1] for row in tables if row[4]}
    strict = {row[1] for row in tables if row[5]}
    assert without_rowid == {entry.name for entry in TABLES if not entry.protected(Protection.SEALED)}
    assert strict == {collection.name for collection in TABLES}


def test_what_is_there_stays_when_the_declarations_are_the_same(path: Path) -> None:
    reopen(path, NOTES)
    assert execute(path, "SELECT * FROM notes") == [("a", 1, "one", 1)]
    assert execute(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]


def test_a_collection_that_is_new_gets_its_table(path: Path) -> None:
    reopen(path, NOTES, EVENTS)
    assert execute(path, "SELECT count(*) FROM events") == [(0,)]
    indexes = {name for (name,) in execute(path, "SELECT name FROM sqlite_schema WHERE type = 'index'")}
    assert set(index_statements(EVENTS)) <= indexes


def test_an_optional_field_that_is_new_gets_its_column(path: Path) -> None:
    reopen(path, changed(fields=(*NOTES.fields, Field("colour", optional=True)), indexes=(("colour",),)))
    assert execute(path, "SELECT * FROM notes") == [("a", 1, "one", 1, None)]
    indexes = {name for (name,) in execute(path, "SELECT name FROM sqlite_schema WHERE type = 'index'")}
    # An index is a second copy of what it is made of: one that is not declared any more goes.
    assert {name for name in indexes if not str(name).startswith("sqlite_")} == {"notes_by_colour"}


@pytest.mark.parametrize(
    ("collection", "message"),
    [
        (changed(fields=(*NOTES.fields, Field("colour"))), "notes.colour is missing, and is not optional"),
        (changed(fields=NOTES.fields[:3]), "it has the column notes.open, which is not declared"),
        (
            changed(fields=(*NOTES.fields, Field("text", protection=Protection.SEALED)), sealed_under="log"),
            "notes.sealed is missing",
        ),
        (changed(fields=(*NOTES.fields[:3], Field("open"))), "notes.open stands there otherwise"),
        (changed(fields=(*NOTES.fields[:2], Field("name"), NOTES.fields[3])), "notes.name stands there otherwise"),
        (changed(key=("id", "size")), "notes.size stands there otherwise"),
        (EVENTS, "it has the table 'notes', which is not declared"),
    ],
)
def test_a_file_that_differs_is_refused_and_left_as_it_was(path: Path, collection: Collection, message: str) -> None:
    before = execute(path, "SELECT sql FROM sqlite_schema")
    with pytest.raises(SchemaMismatch, match=f"^{path}: {message}"):
        reopen(path, collection)
    assert execute(path, "SELECT sql FROM sqlite_schema") == before


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE TABLE bodies (octets BLOB)", "it has the table 'bodies'"),
        ("CREATE VIEW senders AS SELECT name FROM notes", "it has the view 'senders'"),
        (
            "CREATE TRIGGER keep AFTER DELETE ON notes BEGIN UPDATE notes SET size = 0; END",
            "it has the trigger 'keep'",
        ),
        ("ALTER TABLE notes ADD COLUMN body BLOB", "it has the column notes.body"),
    ],
)
def test_nothing_can_be_stored_beside_what_is_declared(path: Path, statement: str, message: str) -> None:
    execute(path, statement)
    with pytest.raises(SchemaMismatch, match=message):
        reopen(path, NOTES)


def test_a_file_of_before_is_brought_forward_or_left_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuller = changed(fields=(*NOTES.fields, Field("colour")))

    def give_colours(connection: apsw.Connection) -> None:
        connection.execute("ALTER TABLE notes ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'")

    def break_off(connection: apsw.Connection) -> None:
        raise OSError("the power is gone")

    migrations = (*sqlite_tables.MIGRATIONS, give_colours)
    monkeypatch.setattr(sqlite_tables, "SCHEMA_VERSION", len(migrations) + 2)
    monkeypatch.setattr(sqlite_tables, "MIGRATIONS", (*migrations, break_off))
    before = execute(path, "SELECT sql FROM sqlite_schema")
    for _ in range(2):
        with pytest.raises(OSError, match="power"):
            reopen(path, fuller)
        assert execute(path, "SELECT sql FROM sqlite_schema") == before
        assert execute(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
    monkeypatch.setattr(sqlite_tables, "MIGRATIONS", (*migrations, lambda _: None))
    for _ in range(2):
        reopen(path, fuller)
        assert execute(path, "SELECT name, colour FROM notes") == [("one", "red")]
        assert execute(path, "PRAGMA user_version") == [(len(migrations) + 2,)]


def test_counts_of_the_first_layout_are_let_go(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    SqliteRecords(path, a_keyring()).close()
    execute(path, "DROP TABLE received_today")
    execute(path, "CREATE TABLE received_today (account_id TEXT PRIMARY KEY, day INTEGER, messages INTEGER)")
    execute(path, "INSERT INTO received_today VALUES ('a', 1, 2)")
    execute(path, "PRAGMA user_version = 1")
    records = SqliteRecords(path, a_keyring())
    assert records.find(RECEIVED_TODAY, {}) == []
    records.close()


def test_a_file_of_a_later_version_is_refused(path: Path) -> None:
    execute(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(SchemaMismatch, match="written by a later version of Onward"):
        reopen(path, NOTES)
    assert execute(path, "PRAGMA user_version") == [(SCHEMA_VERSION + 1,)]


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "notes.sqlite"
    path.write_bytes(b"Received: from somewhere\r\n" * 100)
    with pytest.raises(StoreUnavailable, match=r"notes\.sqlite: the file is not a database"):
        reopen(path, NOTES)


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailable, match=str(tmp_path / "file")):
        reopen(tmp_path / "file" / "notes.sqlite", NOTES)
    with pytest.raises(StoreUnavailable, match="it can't be opened"):
        reopen(tmp_path, NOTES)


@pytest.mark.parametrize(
    ("statement", "values", "plan"),
    [
        (texts.claim(0), 5, f"COVERING INDEX {_BY_TIME} (state=? AND priority=? AND next_attempt_at<?)"),
        (texts.claim(4), 9, f"COVERING INDEX {_BY_TIME} (state=? AND priority=? AND next_attempt_at<?)"),
        (texts.due(4), 8, f"COVERING INDEX {_BY_TIME} (state=? AND priority=? AND next_attempt_at<?)"),
        (texts.next_due(4), 7, f"COVERING INDEX {_BY_TIME} (state=? AND priority=? AND next_attempt_at>?)"),
        (texts.NEXT_PRIORITY, 2, f"COVERING INDEX {_BY_TIME} (state=? AND priority<?)"),
        (texts.write(texts.Kind.ERASE_DELIVERY, 4), 4, "(id=?)"),
        (texts.write(texts.Kind.ERASE_CONTENT, 4), 4, "(message_id=?)"),
        (texts.write(texts.Kind.ERASE_CONTENT, 4), 4, "deliveries_by_message_id (message_id=?)"),
        (texts.write(texts.Kind.KEEP_DELIVERY, 1), 12, "(id=?)"),
        (texts.write(texts.Kind.ERASE_EVENT, 4), 4, "(id=?)"),
        (texts.SELECT_PART, 2, "(message_id=? AND part=?)"),
        (texts.SELECT_OUTBOX, 1, "SCAN outbox USING INDEX"),
    ],
)
def test_the_hot_path_of_the_spool_goes_by_index(sqlite: SqliteBackend, statement: str, values: int, plan: str) -> None:
    sqlite.spool()
    connection = apsw.Connection(str(sqlite.spool_path))
    steps = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", (1,) * values)]
    connection.close()
    assert any(plan in step for step in steps), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps


def test_a_page_of_a_domains_log_needs_no_sorting(sqlite: SqliteBackend) -> None:
    sqlite.records()
    page = sqlite_statements.select(EVENTS, "WHERE domain_id IN ('a') AND id > 'b' ORDER BY id LIMIT 9")
    steps = [str(row[3]) for row in execute(sqlite.records_path, f"EXPLAIN QUERY PLAN {page}")]
    assert steps == ["SEARCH events USING INDEX events_by_domain_id_id (domain_id=? AND id>?)"]


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (
            sqlite_statements.distinct(EVENTS, "message_id", "domain_id = 'a' AND message_id < 'b'", newest_first=True),
            "COVERING INDEX events_by_domain_id_message_id (domain_id=? AND message_id<?)",
        ),
        (
            sqlite_statements.select(EVENTS, "WHERE message_id IN ('a', 'b', 'c') ORDER BY id LIMIT ?"),
            "INDEX events_by_message_id (message_id=?)",
        ),
        (
            sqlite_statements.count(EVENTS, "domain_id = 'a' AND type = 'b' AND at >= 1 AND at < 2"),
            "COVERING INDEX events_by_domain_id_type_at (domain_id=? AND type=? AND at>? AND at<?)",
        ),
    ],
)
def test_messages_are_found_and_counted_by_index(sqlite: SqliteBackend, statement: str, index: str) -> None:
    sqlite.records()
    connection = apsw.Connection(str(sqlite.records_path))
    steps = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", (1,) * statement.count("?"))]
    connection.close()
    assert steps[0] == f"SEARCH events USING {index}"


def test_the_columns_that_the_spool_counts_on() -> None:
    """Keeping a delivery binds a whole row and the id, and the claim reads what the codec decodes."""
    assert texts.write(texts.Kind.KEEP_DELIVERY, 1).count("?") == len(stored_columns(DELIVERIES)) + 1
    assert stored_columns(CONTENT) == ("message_id", "part", "sealed")
