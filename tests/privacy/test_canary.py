"""The warrant canary: published only as it was signed, and an alarm once it has expired."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stored_values import NOON, a_keyring

from appliance.model.refused import Refused
from appliance.model.time import DAY_MS, HOUR_MS, format_instant
from appliance.privacy.canary import CLOCKS_APART_MS, MAX_TEXT_CHARACTERS, Canaries
from appliance.privacy.canonical import canonical
from appliance.privacy.declarations import CANARIES
from appliance.privacy.signatures import Signer
from appliance.storage.sqlite_records import SqliteRecords

SIGNER = Signer(bytes(range(32)))
"""Somebody's key, far from the appliance."""

STATEMENTS = ["No warrant has come.", "Nobody but us has the keys."]


@pytest.fixture
def records(tmp_path: Path) -> Iterator[SqliteRecords]:
    """With nothing stored."""
    records = SqliteRecords(tmp_path / "records.sqlite", a_keyring())
    yield records
    records.close()


@pytest.fixture
def canaries(records: SqliteRecords) -> Canaries:
    """None yet, at noon."""
    return Canaries(records, lambda: NOON)


def a_text(**changes: Any) -> str:
    """What is to be signed, right unless a test changes something; what is None is left out."""
    said: dict[str, Any] = {
        "statements": STATEMENTS,
        "issuedAt": format_instant(NOON - HOUR_MS),
        "expiresAt": format_instant(NOON + 30 * DAY_MS),
    }
    return canonical({name: value for name, value in (said | changes).items() if value is not None})


def publish(canaries: Canaries, text: str, signer: Signer = SIGNER) -> None:
    canaries.publish(text, signer.sign(text), signer.public_key)


def test_a_canary_comes_back_as_it_was_signed(canaries: Canaries) -> None:
    assert canaries.current() is None
    text = a_text(more="is signed too")
    publish(canaries, text)
    canary = canaries.current()
    assert canary is not None
    assert canary.statements == tuple(STATEMENTS)
    assert (canary.issued_at, canary.expires_at) == (NOON - HOUR_MS, NOON + 30 * DAY_MS)
    assert (canary.signed_text, canary.signature, canary.public_key) == (text, SIGNER.sign(text), SIGNER.public_key)


def test_it_is_expired_from_the_instant_that_it_names(canaries: Canaries) -> None:
    publish(canaries, a_text())
    canary = canaries.current()
    assert canary is not None
    assert not canary.expired(NOON + 30 * DAY_MS - 1)
    assert canary.expired(NOON + 30 * DAY_MS)


def test_an_expired_one_is_still_there_to_alarm(records: SqliteRecords, canaries: Canaries) -> None:
    publish(canaries, a_text())
    later = Canaries(records, lambda: NOON + 31 * DAY_MS).current()
    assert later is not None
    assert later.expired(NOON + 31 * DAY_MS)


def test_the_next_one_takes_its_place(records: SqliteRecords, canaries: Canaries) -> None:
    publish(canaries, a_text())
    publish(canaries, a_text(issuedAt=format_instant(NOON), statements=["Still none."]))
    canary = canaries.current()
    assert canary is not None
    assert canary.statements == ("Still none.",)
    assert records.count(CANARIES, {}) == 1


def test_an_older_one_does_not(canaries: Canaries) -> None:
    publish(canaries, a_text())
    with pytest.raises(Refused, match="later"):
        publish(canaries, a_text(issuedAt=format_instant(NOON - HOUR_MS - 1), expiresAt=format_instant(NOON + DAY_MS)))


def test_what_this_key_has_not_signed_is_refused(canaries: Canaries) -> None:
    text = a_text()
    for signature, public_key in (
        (SIGNER.sign(text + " "), SIGNER.public_key),
        (SIGNER.sign(text), Signer(bytes(32)).public_key),
        ("", SIGNER.public_key),
        (SIGNER.sign(text), "not a key"),
    ):
        with pytest.raises(Refused) as refused:
            canaries.publish(text, signature, public_key)
        assert refused.value.field == "signature"
    assert canaries.current() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No warrant has come.",
        "[]",
        "[" * 10_000,
        '{"statements":["a"],"statements":["b"]}',
        a_text(statements=None),
        a_text(statements=[]),
        a_text(statements=[" "]),
        a_text(statements=["a"] * 51),
        a_text(statements=[1]),
        a_text(statements="No warrant has come."),
        a_text().replace("No warrant", r"No \ud83d warrant"),
        a_text(issuedAt=None),
        a_text(issuedAt="yesterday"),
        a_text(issuedAt=1),
        a_text(issuedAt=format_instant(NOON + CLOCKS_APART_MS + 1)),
        a_text(expiresAt=format_instant(NOON)),
        a_text(expiresAt=format_instant(NOON - HOUR_MS)),
        a_text(expiresAt="9999-12-31T23:59:59-23:59"),
        a_text(issuedAt="0001-01-01T00:00:00+23:59"),
        a_text(padding="x" * MAX_TEXT_CHARACTERS),
    ],
)
def test_what_makes_no_sense_is_refused_although_it_is_signed(canaries: Canaries, text: str) -> None:
    with pytest.raises(Refused) as refused:
        publish(canaries, text)
    assert refused.value.field == "signedText"
    assert canaries.current() is None
