"""What lies on the disk: nothing readable, nothing that others can open, nothing that grows without end."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_backends import SqliteBackend
from stored_values import NOON, a_delivery, an_event, an_id

from appliance.model.delivery import Recipient
from appliance.privacy.declarations import EVENTS
from appliance.storage.spool import Accept, AddPart, Complete, Forget, ReturnPath
from appliance.storage.sqlite_database import WAL_PAGES
from smtp.address import Address

PRIVATE = (b"very.private.sender", b"hidden.person", b"private.alias", b"Private subject", b"PRIVATE CONTENT")


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def lax_umask() -> Iterator[None]:
    """As a careless shell has it."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_no_octet_of_a_message_nor_an_address_is_readable_in_the_files(sqlite: SqliteBackend) -> None:
    spool, records = sqlite.spool(), sqlite.records()
    delivery = a_delivery(
        1,
        sender="very.private.sender@sender.example",
        return_path="srs0=very.private.sender@srs.example",
        target=Address("hidden.person", "mailbox.example"),
        recipients=(Recipient("private.alias@hosted.example", an_id(900)),),
        last_response="550 5.1.1 <hidden.person@mailbox.example> unknown",
    )
    event = an_event(
        1,
        sender="very.private.sender@sender.example",
        recipient="private.alias@hosted.example",
        subject="Private subject",
    )
    return_path = ReturnPath("token", "very.private.sender@sender.example", "abcdef", NOON)
    spool.apply([AddPart(an_id(1), 0, b"PRIVATE CONTENT" * 300), Accept([delivery], [event], [return_path])])
    records.import_stored(EVENTS, spool.outbox(10))
    # What is there is found in the clear by those who hold the keys,
    assert spool.deliveries() == [delivery]
    # and by nobody in the files, with the logs not yet written back,
    before = files(sqlite.spool_path.parent)
    assert {"spool.sqlite", "spool.sqlite-wal", "records.sqlite", "records.sqlite-wal"} <= before.keys()
    sqlite.close()
    # nor once they are.
    after = files(sqlite.spool_path.parent)
    assert set(after) == {"spool.sqlite", "records.sqlite"}
    for name, octets in [*before.items(), *after.items()]:
        for secret in PRIVATE:
            assert secret not in octets, name
    # The same search finds what is clear: it can fail.
    assert any(b"abcdef" in octets for octets in before.values())
    assert all(an_id(1).encode() in octets for octets in after.values())


def test_what_was_erased_is_gone_from_the_files(sqlite: SqliteBackend) -> None:
    spool = sqlite.spool()
    spool.apply([AddPart(an_id(1), 0, b"x" * 5000), Accept([a_delivery(1)], [an_event(1)])])
    path = sqlite.spool_path.parent
    sealed = [row["sealed"] for row in spool.outbox(1)]
    spool.apply([Complete(an_id(1), an_id(1)), Forget([an_id(1)])])
    sqlite.close()
    (octets,) = files(path).values()
    assert an_id(1).encode() not in octets
    assert isinstance(sealed[0], bytes)
    assert sealed[0][:40] not in octets


def test_files_and_directory_are_for_their_owner_only(sqlite: SqliteBackend, lax_umask: None) -> None:
    spool, records = sqlite.spool(), sqlite.records()
    spool.apply([Accept([a_delivery(1)])])
    records.generation("routing")
    directory = sqlite.spool_path.parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    names = [f"{store}.sqlite{end}" for store in ("spool", "records") for end in ("", "-wal", "-shm")]
    assert modes == dict.fromkeys([*names, "spool.reserve"], 0o600)


def test_a_file_that_was_left_open_to_others_is_shut(sqlite: SqliteBackend) -> None:
    sqlite.spool().close()
    sqlite.spool_path.chmod(0o644)
    sqlite.spool()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in sqlite.spool_path.parent.iterdir()}
    assert modes == dict.fromkeys(["spool.sqlite", "spool.sqlite-wal", "spool.sqlite-shm", "spool.reserve"], 0o600)


def test_a_directory_that_exists_keeps_its_mode(sqlite: SqliteBackend) -> None:
    sqlite.spool_path.parent.mkdir(mode=0o755)
    sqlite.spool_path.parent.chmod(0o755)
    sqlite.spool()
    assert stat.S_IMODE(sqlite.spool_path.parent.stat().st_mode) == 0o755


def test_files_do_not_grow_with_the_mail_that_has_gone_through(sqlite: SqliteBackend) -> None:
    """20 MB of mail, of which there were never more than two messages at once."""
    spool = sqlite.spool()
    content = b"x" * 250_000
    for number in range(80):
        spool.apply([AddPart(an_id(number), 0, content), Accept([a_delivery(number)])])
        if number:
            spool.apply([Complete(an_id(number - 1), an_id(number - 1))])
    page = 4096
    log = sqlite.spool_path.with_name("spool.sqlite-wal").stat().st_size
    # The log is written back at the end of the transaction that has made it too long.
    assert log < (WAL_PAGES + 400) * (page + 24)
    assert sqlite.spool_path.stat().st_size < 3 * len(content)
