"""The appliance writes to people: its letters leave by its own queue, and their links do what they say."""

import os
import re
import signal
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest
from appliance_process import HOSTNAME, eventually
from destination import ReceivedMessage
from graphql_client import GraphqlClient
from world import World

from appliance.configuration import ENGINE_SOCKET
from appliance.wire import WireError, call

PUBLIC_URL = f"https://{HOSTNAME}"
PASSWORD = "correct horse"
OPERATIONS = Path(__file__).parents[2] / "graphql" / "operations"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = {"http": {"public_url": PUBLIC_URL, "listen": ["127.0.0.1:0"]}}
    town = {"ada@forward.test": ["ada.box@dest.test"]}
    with World(tmp_path_factory.mktemp("letters"), town, settings) as world:
        yield world
        assert world.objections() == []


@pytest.fixture
def browser(world: World) -> Iterator[GraphqlClient]:
    with GraphqlClient(world.appliance.http_port) as client:
        yield client


def operation(name: str) -> str:
    return (OPERATIONS / f"{name}.graphql").read_text()


def read(received: ReceivedMessage) -> EmailMessage:
    message = message_from_bytes(received.content, policy=SMTP)
    assert isinstance(message, EmailMessage)
    return message


def links(received: ReceivedMessage) -> dict[str, str]:
    """The tokens of the links in a letter, by the page that each leads to. All are on our own site."""
    urls = re.findall(r"https?://\S+", read(received).get_content())
    found = [re.fullmatch(re.escape(PUBLIC_URL) + r"/#/([a-z-]+)\?token=([\w-]{43})", url) for url in urls]
    assert all(found), urls
    return {each[1]: each[2] for each in found if each}


def sign_up(browser: GraphqlClient, email: str) -> None:
    answer = browser.data(operation("sign_up"), email=email, password=PASSWORD)
    assert answer["signUp"]["errors"] == []


def test_the_link_of_a_letter_verifies_the_address_that_it_came_to(world: World, browser: GraphqlClient) -> None:
    sign_up(browser, "new@dest.test")
    (letter,) = world.arrived("new@dest.test")
    message = read(letter)
    assert letter.sender == f"postmaster@{HOSTNAME}"
    assert message["From"].addresses[0].addr_spec == f"postmaster@{HOSTNAME}"
    assert message["To"] == "new@dest.test"
    assert message["Auto-Submitted"] == "auto-generated"
    assert (message["Date"], message["Message-ID"]) != (None, None)
    ((page, token),) = links(letter).items()
    assert page == "verify-email"
    assert browser.data(operation("verify_email"), token=token)["verifyEmail"]["errors"] == []
    world.queue_is_empty()
    assert len(world.arrived("new@dest.test")) == 1
    # It was nobody's mail but ours: the log of no domain tells of it.
    assert "new@dest.test" not in str(world.appliance.log_events())


def test_a_forgotten_password_is_set_by_a_link(world: World, browser: GraphqlClient) -> None:
    sign_up(browser, "forgetful@dest.test")
    token = links(world.arrived("forgetful@dest.test")[0])["verify-email"]
    assert browser.data(operation("verify_email"), token=token)["verifyEmail"]["errors"] == []
    assert browser.data(operation("request_password_reset"), email="forgetful@dest.test")
    token = links(world.arrived("forgetful@dest.test", 2)[1])["reset-password"]
    answer = browser.data(operation("reset_password"), token=token, newPassword="another password")
    assert answer["resetPassword"]["errors"] == []
    # That it was done is told, too: without a link.
    assert links(world.arrived("forgetful@dest.test", 3)[2]) == {}


def test_a_letter_to_an_alias_of_ours_never_leaves_to_come_back(world: World, browser: GraphqlClient) -> None:
    sign_up(browser, "ada@forward.test")
    (letter,) = world.arrived("ada.box@dest.test")
    assert read(letter)["To"] == "ada@forward.test"
    assert read(letter)["Received"] is None
    assert set(links(letter)) == {"verify-email"}
    # Neither RECEIVED nor DELIVERED, although the domain's log is at `events`.
    world.queue_is_empty()
    assert world.appliance.log_events() == []


def test_nothing_is_forwarded_before_the_mailbox_has_said_yes_in_the_letter(
    world: World, browser: GraphqlClient
) -> None:
    world.appliance.done("alias", "add", "bob@forward.test", "bob.box@dest.test")
    (letter,) = world.arrived("bob.box@dest.test")
    tokens = links(letter)
    assert set(tokens) == {"confirm-destination", "never-ask-again"}
    eventually(lambda: world.ask("bob@forward.test").code == 451, what="it is known, and not in service")
    answer = browser.data(operation("confirm_destination"), token=tokens["confirm-destination"])
    assert answer["confirmDestination"]["errors"] == []
    eventually(lambda: world.ask("bob@forward.test").code == 250, what="it is in service")


def test_who_wants_no_more_letters_gets_none(world: World, browser: GraphqlClient) -> None:
    world.appliance.done("alias", "add", "eve@forward.test", "eve.box@dest.test")
    token = links(world.arrived("eve.box@dest.test")[0])["never-ask-again"]
    assert browser.data(operation("never_ask_again"), token=token)["neverAskAgain"]["errors"] == []
    refused = world.appliance.cli("alias", "add", "eve2@forward.test", "eve.box@dest.test")
    assert refused.status == 1
    assert "does not want to be asked" in refused.err
    world.queue_is_empty()
    assert len(world.arrived("eve.box@dest.test")) == 1


def test_a_letter_that_is_asked_for_while_the_engine_is_away_leaves_when_it_is_back(
    world: World, browser: GraphqlClient
) -> None:
    engine, _ = world.appliance.children()
    os.kill(engine, signal.SIGSTOP)
    # The answer does not wait for the letter.
    sign_up(browser, "patient@dest.test")
    os.kill(engine, signal.SIGKILL)
    (letter,) = world.arrived("patient@dest.test", within=30)
    assert set(links(letter)) == {"verify-email"}
    world.queue_is_empty()
    assert len(world.arrived("patient@dest.test")) == 1


def test_what_is_no_letter_is_refused_in_words_that_do_not_repeat_it(world: World) -> None:
    whole = {"recipient": "ada@dest.test", "subject": "x", "text": "x"}
    for wrong in ({"text": None}, {"recipient": ["ada@dest.test"]}, {"recipient": "ada@dest.test, eve@dest.test"}):
        with pytest.raises(WireError) as raised:
            list(call(world.appliance.data_dir / ENGINE_SOCKET, "letter.send", **{**whole, **wrong}))  # type: ignore[arg-type]
        assert "dest.test" not in str(raised.value)
