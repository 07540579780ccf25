"""The gate: only what is declared passes, and sealed means sealed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_values import a_delivery, a_keyring, a_row, an_event, an_id

from appliance.privacy.declarations import (
    ACCOUNTS,
    ALIASES,
    COLLECTIONS,
    CONTENT,
    DELIVERIES,
    EVENTS,
    OUTBOX,
    Collection,
    Field,
    Kind,
    Protection,
    Store,
)
from appliance.privacy.sealing import MAC_OCTETS, Unsealable
from appliance.storage.codec import Codec, KeyMissing, RowRefused, row_columns, stored_columns
from appliance.storage.delivery_rows import delivery_to_row, row_to_delivery
from appliance.storage.event_rows import event_to_row

EVENT_ROW = dict(event_to_row(an_event()))

ROWS = [collection for collection in COLLECTIONS if collection.store is not Store.EPHEMERAL]
"""What is stored in rows."""


@pytest.mark.parametrize("collection", ROWS, ids=lambda collection: collection.name)
def test_every_collection_passes_there_and_back(collection: Collection) -> None:
    codec = Codec(collection, a_keyring())
    row = a_row(collection)
    stored = codec.encode(row)
    assert len(stored) == len(stored_columns(collection))
    assert codec.decode(stored) == row
    assert codec.decode(stored[: len(row_columns(collection))]) == row


def test_nothing_sealed_stands_in_a_stored_row() -> None:
    stored = Codec(EVENTS, a_keyring()).encode(EVENT_ROW)
    everything = b"".join(value if isinstance(value, bytes) else str(value).encode() for value in stored)
    for field in EVENTS.protected(Protection.SEALED):
        assert str(EVENT_ROW[field.name]).encode() not in everything
    # And the test would see what is clear.
    assert str(EVENT_ROW["reason"]).encode() in everything


def test_a_keyed_column_stands_for_its_field_by_a_mac() -> None:
    codec = Codec(EVENTS, a_keyring())

    def keyed(**changes: object) -> dict[str, object]:
        return dict(zip(stored_columns(EVENTS), codec.encode(EVENT_ROW | changes), strict=True))

    first, second = keyed(), keyed(sender="STRANGER@sender.example", recipient="stranger@sender.example")
    assert isinstance(first["sender_key"], bytes)
    assert len(first["sender_key"]) == MAC_OCTETS
    assert first["sender_key"] == second["sender_key"]
    # The same address in another field is another MAC: nobody can join the two columns.
    assert second["recipient_key"] not in (first["sender_key"], first["recipient_key"])
    assert codec.lookup("sender", "stranger@SENDER.example") == ("sender_key", first["sender_key"])


def test_the_outbox_is_sealed_as_events_are() -> None:
    stored = Codec(OUTBOX, a_keyring()).encode(EVENT_ROW)
    assert Codec(EVENTS, a_keyring()).decode(stored) == EVENT_ROW


def test_a_sealed_row_opens_only_in_its_own_place() -> None:
    codec = Codec(CONTENT, a_keyring())
    message, part, sealed = codec.encode({"message_id": "m", "part": 1, "octets": b"x"})
    for other in (("m", 2, sealed), ("n", part, sealed)):
        with pytest.raises(Unsealable):
            codec.decode(other)
    assert codec.decode((message, part, sealed))["octets"] == b"x"


@pytest.mark.parametrize(
    ("collection", "changes", "message"),
    [
        (EVENTS, {"body": "x"}, "events.body: is not declared"),
        (EVENTS, {"sender_key": b"x"}, "events.sender_key: is made here from sender, not given"),
        (EVENTS, {"sender": None}, "events.sender: is missing"),
        (EVENTS, {"at": None}, "events.at: is missing"),
        (EVENTS, {"at": "1"}, "events.at: Expected `int`, got `str`"),
        (EVENTS, {"at": True}, "events.at: Expected `int`, got `bool`"),
        (EVENTS, {"at": 1.0}, "events.at: Expected `int`, got `float`"),
        (EVENTS, {"at": 1 << 63}, "events.at: Expected `int` <= 9223372036854775807"),
        (EVENTS, {"id": 1}, "events.id: Expected `str`, got `int`"),
        (EVENTS, {"id": b"x"}, "events.id: "),
        (EVENTS, {"reason": "\udcff"}, "events.reason: holds a character that UTF-8 does not have"),
        (EVENTS, {"sender": "\udcff"}, "events.sender: holds a character that UTF-8 does not have"),
        (EVENTS, {"sender": 1}, "events.sender: Expected `str`, got `int`"),
        (ACCOUNTS, {"email_verified": 1}, "accounts.email_verified: Expected `bool`, got `int`"),
        (ALIASES, {"targets": "a@b.example"}, "aliases.targets: Expected `array`, got `str`"),
        (ALIASES, {"targets": [1]}, "aliases.targets: Expected `str | object`, got `int`"),
        (ALIASES, {"targets": ["\ud800"]}, "aliases.targets: holds a character that UTF-8 does not have"),
        (CONTENT, {"octets": "text"}, "content.octets: Expected `bytes`, got `str`"),
        (DELIVERIES, {"recipients": [{"address": 1}]}, "deliveries.recipients: Expected `str`, got `int`"),
    ],
)
def test_what_is_not_as_declared_is_refused_by_name(
    collection: Collection, changes: dict[str, object], message: str
) -> None:
    codec = Codec(collection, a_keyring())
    with pytest.raises(RowRefused) as caught:
        codec.encode(a_row(collection) | changes)
    assert str(caught.value).startswith(message)
    assert caught.value.collection is collection
    assert caught.value.field == next(iter(changes))


@pytest.mark.parametrize("collection", ROWS, ids=lambda collection: collection.name)
def test_every_field_that_is_not_optional_is_needed(collection: Collection) -> None:
    codec = Codec(collection, a_keyring())
    row = a_row(collection)
    for name in row:
        rest = {other: value for other, value in row.items() if other != name}
        if collection.field(name).optional:
            assert codec.decode(codec.encode(rest)) == row | {name: None}
        else:
            with pytest.raises(RowRefused, match=f"{collection.name}.{name}: is missing"):
                codec.encode(rest)


def test_the_limits_of_an_integer() -> None:
    codec = Codec(EVENTS, a_keyring())
    for at in (-(1 << 63), (1 << 63) - 1):
        assert codec.decode(codec.encode(EVENT_ROW | {"at": at}))["at"] == at


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_passes(clear: str, sealed: str) -> None:
    codec = Codec(EVENTS, a_keyring())
    row = EVENT_ROW | {"reason": clear, "sender": sealed}
    assert codec.decode(codec.encode(row)) == row


def test_without_its_key_a_collection_says_which_is_missing() -> None:
    stored = Codec(EVENTS, a_keyring()).encode(EVENT_ROW)
    codec = Codec(EVENTS, a_keyring("spool"))
    with pytest.raises(KeyMissing, match="'log'"):
        codec.encode(EVENT_ROW)
    with pytest.raises(KeyMissing):
        codec.decode(stored)
    assert codec.lookup("at", 5) == ("at", 5)
    assert codec.encode_changes({"at": 5}) == {"at": 5}


# ------------------------------------------------------------------ declarations that change


def declared(*sealed: Field) -> Collection:
    return Collection("notes", Store.RECORDS, "for this test", (Field("id"), *sealed), sealed_under="log")


def test_a_sealed_field_can_be_added_moved_and_taken_away() -> None:
    one, two = (Field(name, protection=Protection.SEALED, optional=True) for name in ("one", "two"))
    old = Codec(declared(one, two), a_keyring()).encode({"id": an_id(1), "one": "1", "two": "2"})
    three = Field("three", Kind.INTEGER, Protection.SEALED, optional=True)
    later = Codec(declared(three, two), a_keyring())
    assert later.decode(old) == {"id": an_id(1), "three": None, "two": "2"}


def test_a_sealed_field_that_is_needed_cannot_appear_from_nowhere() -> None:
    one = Field("one", protection=Protection.SEALED)
    old = Codec(declared(one), a_keyring()).encode({"id": an_id(1), "one": "1"})
    later = Codec(declared(one, Field("two", protection=Protection.SEALED)), a_keyring())
    with pytest.raises(RowRefused, match=r"notes\.sealed: stands in the store otherwise"):
        later.decode(old)


def test_what_is_sealed_is_a_map_by_name() -> None:
    """The layout on the disk, which later versions have to read."""
    keyring = a_keyring()
    sealed = Codec(CONTENT, keyring).encode({"message_id": "m", "part": 3, "octets": b"x"})[2]
    assert isinstance(sealed, bytes)
    context = msgspec.msgpack.encode(["content", "m", 3])
    assert msgspec.msgpack.decode(keyring["spool"].open(sealed, context)) == {"octets": b"x"}


def test_a_delivery_of_a_version_before_this_one_is_read() -> None:
    """What it did not know was not asked for. No column is new, so that it could read ours as well."""
    codec = Codec(DELIVERIES, a_keyring())
    row = {
        name: value
        for name, value in delivery_to_row(a_delivery()).items()
        if name not in ("utf8", "require_tls", "ret", "envid")
    }
    assert row_to_delivery(codec.decode(codec.encode(row))) == a_delivery()
