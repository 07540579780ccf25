"""Who carries letters: the queue or Postmark, by the configuration; and what an engine that takes none is told as."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from certificates import authority_file

from appliance import wire
from appliance.configuration import Configuration, load
from appliance.letters.postmark import TOKEN, Postmark
from appliance.model.letter import Letter, LetterRefused, NotPosted
from appliance.privacy.secrets import SecretRefused
from appliance.run import CannotStart
from appliance.run.post_office import EnginePost, post_office

LETTER = Letter("ada@people.test", "Verify your address", "A secret link.\n")


def no_engine(verb: str, **arguments: object) -> Iterator[Any]:
    raise AssertionError("nobody asks the engine")


def configured(tmp_path: Path, token: str | None) -> Configuration:
    """One whose letters go by way of Postmark, with this in the place of the token."""
    file = tmp_path / "onward.toml"
    file.write_text(f'hostname = "mx.onward.test"\ndata_dir = "{tmp_path}/var"\nmail.provider = "postmark"')
    secrets = tmp_path / "var" / "secrets"
    secrets.mkdir(mode=0o700, parents=True)
    if token is not None:
        (secrets / TOKEN).touch(mode=0o600)
        (secrets / TOKEN).write_text(token)
    return load(file)


@pytest.fixture(autouse=True)
def authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the tests, whatever the machine has."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority_file()))


def test_letters_go_into_the_queue_where_nothing_else_is_said(tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, object]]] = []

    def engine(verb: str, **arguments: object) -> Iterator[Any]:
        asked.append((verb, arguments))
        yield {"mailboxes": 1}

    post_office(Configuration(hostname="mx.onward.test", data_dir=tmp_path), engine).send(LETTER)
    ((verb, arguments),) = asked
    assert verb == "letter.send"
    assert arguments.items() >= {"recipient": LETTER.recipient, "subject": LETTER.subject, "text": LETTER.text}.items()


def test_letters_go_by_way_of_postmark_where_that_is_said(tmp_path: Path) -> None:
    assert isinstance(post_office(configured(tmp_path, "a-token\n"), no_engine), Postmark)


@pytest.mark.parametrize("written", [None, "", "\n", "two words", "a\nb", "x" * 20_000])
def test_a_token_that_is_none_stops_the_start_and_is_not_shown(tmp_path: Path, written: str | None) -> None:
    with pytest.raises(CannotStart) as raised:
        post_office(configured(tmp_path, written), no_engine)
    assert str(tmp_path / "var" / "secrets" / "postmark-token") in str(raised.value)
    assert "words" not in str(raised.value)
    assert "xxx" not in str(raised.value)


def test_a_token_that_others_can_read_stops_the_start(tmp_path: Path) -> None:
    config = configured(tmp_path, "a-token")
    (config.data_dir / "secrets" / TOKEN).chmod(0o644)
    with pytest.raises(SecretRefused, match="chmod 600"):
        post_office(config, no_engine)


def test_without_authorities_postmark_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "empty.pem"))
    with pytest.raises(CannotStart, match="Postmark"):
        post_office(configured(tmp_path, "a-token"), no_engine)


def test_an_engine_that_is_away_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(NotPosted) as raised:
        EnginePost(partial(wire.call, tmp_path / "engine.sock")).send(LETTER)
    assert not isinstance(raised.value, LetterRefused)


def test_the_words_of_an_engine_that_takes_nothing_are_not_repeated() -> None:
    def engine(verb: str, **arguments: object) -> Iterator[Any]:
        raise wire.WireError(f"no room for {arguments}")
        yield

    with pytest.raises(NotPosted) as raised:
        EnginePost(engine).send(LETTER)
    assert not isinstance(raised.value, LetterRefused)
    assert "secret" not in str(raised.value)
    assert "ada" not in str(raised.value)


def test_a_letter_that_leads_nowhere_is_not_tried_again() -> None:
    with pytest.raises(LetterRefused):
        EnginePost(lambda verb, **arguments: iter([{"mailboxes": 0}])).send(LETTER)
