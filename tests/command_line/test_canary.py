"""The canary's way: a key and a signature away from the server, and a check by anybody."""

import json
import stat
from pathlib import Path

import pytest
from command_line_desk import Desk

from appliance.configuration import load
from appliance.model.time import DAY_MS, wall_clock
from appliance.privacy.canary import Canaries, checked, composed
from appliance.privacy.signatures import Signer
from appliance.run.stores import open_records

STATEMENTS = ("No warrant has come.", "Nobody but us has the keys.")


@pytest.fixture
def key(desk: Desk, tmp_path: Path) -> Path:
    """A private key."""
    file = tmp_path / "canary.key"
    desk.done("canary", "keygen", str(file))
    return file


def test_a_key_is_its_owners_alone_and_is_never_written_over(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "canary.key"
    public = desk.done("canary", "keygen", str(file)).stdout.strip()
    kept = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert public.encode() not in kept
    assert desk.type("canary", "keygen", str(file)).exit_code == 1
    assert file.read_bytes() == kept
    assert json.loads(desk.done("canary", "sign", str(file), "None.").stdout)["publicKey"] == public


def test_what_is_signed_can_be_checked_and_published(desk: Desk, key: Path, tmp_path: Path) -> None:
    signed = desk.done("canary", "sign", str(key), *STATEMENTS).stdout
    (tmp_path / "canary.json").write_text(signed, encoding="utf-8")
    document = json.loads(signed)
    for again in (
        desk.done("canary", "verify", str(tmp_path / "canary.json"), "--key", document["publicKey"]),
        desk.done("canary", "verify", "-", stdin=signed),
    ):
        assert again.stdout.splitlines() == list(STATEMENTS)
    told = json.loads(desk.done("canary", "verify", "-", "--json", stdin=signed).stdout)
    assert (told["statements"], told["expired"], told["signedText"]) == (
        list(STATEMENTS),
        False,
        document["signedText"],
    )
    assert desk.type("canary", "verify").stderr == "onward: No canary has been published here.\n"
    records = open_records(load(desk.config))
    Canaries(records).publish(document["signedText"], document["signature"], document["publicKey"])
    records.close()
    assert desk.done("canary", "verify").stdout.splitlines() == list(STATEMENTS)


def test_a_canary_is_good_for_as_long_as_was_said_to_the_millisecond(desk: Desk, key: Path) -> None:
    signed = json.loads(desk.done("canary", "sign", str(key), "None.", "--expires", "7d").stdout)
    canary = checked(signed["signedText"], signed["signature"], signed["publicKey"])
    assert canary.expires_at - canary.issued_at == 7 * DAY_MS


def test_what_is_not_right_is_said_and_is_a_failure(desk: Desk, key: Path) -> None:
    document = json.loads(desk.done("canary", "sign", str(key), *STATEMENTS).stdout)
    forged = {**document, "signedText": document["signedText"].replace("No warrant", "A warrant")}
    for signed, says in (
        (json.dumps(forged), "not the Ed25519 signature"),
        ("{}", "no JSON object with signedText"),
        ("[]", "no JSON object with signedText"),
        ("", "no JSON object with signedText"),
    ):
        checked = desk.type("canary", "verify", "-", stdin=signed)
        assert (checked.exit_code, says in checked.stderr) == (1, True), checked.stderr
    other = desk.type("canary", "verify", "-", "--key", "AAAA", stdin=json.dumps(document))
    assert (other.exit_code, "another key" in other.stderr) == (1, True)


def test_an_expired_canary_is_an_alarm(desk: Desk) -> None:
    signer, yesterday = Signer(bytes(32)), wall_clock() - DAY_MS
    text = composed(STATEMENTS, yesterday - DAY_MS, yesterday)
    signed = {"signedText": text, "signature": signer.sign(text), "publicKey": signer.public_key}
    late = desk.type("canary", "verify", "-", stdin=json.dumps(signed))
    assert (late.exit_code, "alarm" in late.stderr) == (1, True)


def test_no_key_signs_nothing(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "wrong.key").write_text("not a key", encoding="utf-8")
    refused = desk.type("canary", "sign", str(tmp_path / "wrong.key"), "None.")
    assert (refused.exit_code, "no private key" in refused.stderr) == (1, True)
    assert desk.type("canary", "sign", str(tmp_path / "missing.key"), "None.").exit_code == 2
