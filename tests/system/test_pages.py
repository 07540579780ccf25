"""The pages of the appliance in a real browser: a letter comes, its link is opened, and a person presses a button."""

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import SMTP
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from appliance_process import HOSTNAME, eventually
from browser import PHONE, Browser, Tab
from graphql_client import GraphqlClient
from world import World

PUBLIC_URL = f"http://{HOSTNAME}"
PASSWORD = "correct horse"
OPERATIONS = Path(__file__).parents[2] / "graphql" / "operations"
AGAIN = "The same once more"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = {"http": {"public_url": PUBLIC_URL, "listen": ["127.0.0.1:0"]}}
    with World(tmp_path_factory.mktemp("pages"), {"ada@forward.test": ["ada.box@dest.test"]}, settings) as world:
        yield world
        assert world.objections() == []


@pytest.fixture(scope="module")
def browser(world: World) -> Iterator[Browser]:
    with Browser({HOSTNAME: world.appliance.http_port}) as browser:
        yield browser


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A tab that has nothing to complain of at the end, and has asked nobody but the appliance."""
    tab = browser.tab()
    yield tab
    assert tab.complaints == []
    assert {urlsplit(request["url"]).netloc for request in tab.requests if request["url"]} == {HOSTNAME}


@pytest.fixture
def program(world: World) -> Iterator[GraphqlClient]:
    with GraphqlClient(world.appliance.http_port) as client:
        yield client


def operation(name: str) -> str:
    return (OPERATIONS / f"{name}.graphql").read_text()


def links(world: World, mailbox: str, count: int = 1) -> list[str]:
    """The links of the last of so many letters to a mailbox."""
    message = message_from_bytes(world.arrived(mailbox, count)[-1].content, policy=SMTP)
    found = re.findall(r"https?://\S+", message.get_content())
    assert all(link.startswith(f"{PUBLIC_URL}/#/") for link in found)
    return found


def sign_up(program: GraphqlClient, email: str) -> None:
    assert program.data(operation("sign_up"), email=email, password=PASSWORD)["signUp"]["errors"] == []


def can_sign_in(program: GraphqlClient, email: str, password: str) -> bool:
    return program.data(operation("sign_in"), email=email, password=password)["signIn"]["account"] is not None


def posts(tab: Tab) -> int:
    """How often a tab has asked the API for something."""
    return sum(request["method"] == "POST" for request in tab.requests)


def is_kept_quiet(world: World, tab: Tab, link: str) -> bool:
    """Whether the token of a link was sent in bodies only, in no address, Referer or cookie, and was not logged."""
    token = link.partition("token=")[2]
    assert token
    assert any(token in request.get("postData", "") for request in tab.requests)
    heads = [{**request, "postData": ""} for request in tab.requests]
    heard = str([{**head, "urlFragment": ""} for head in heads]) + world.appliance.said()
    return token not in heard


# ------------------------------------------------------------------ the links of letters


def test_who_has_signed_up_verifies_the_address(world: World, tab: Tab, program: GraphqlClient) -> None:
    sign_up(program, "new@dest.test")
    (link,) = links(world, "new@dest.test")
    tab.open(link)
    tab.sees("Verify your address")
    assert posts(tab) == 0, "a program that opens every link has done nothing"
    assert not can_sign_in(program, "new@dest.test", PASSWORD)
    tab.click("Verify my address")
    tab.sees("Your address is verified", "new@dest.test")
    assert tab.focused == "Your address is verified", "it is read out to who does not see it"
    assert can_sign_in(program, "new@dest.test", PASSWORD)
    assert tab.address == f"{PUBLIC_URL}/"
    assert tab.evaluate("history.length") == 2, "about:blank, and this page: the link is not in it"
    assert is_kept_quiet(world, tab, link)
    # Somebody opens the letter once more.
    tab.open(link)
    tab.click("Verify my address")
    tab.sees("This link is not good any more", "If you have pressed this button before, your address is verified")
    assert tab.address == f"{PUBLIC_URL}/"


def test_a_forgotten_password_is_set_anew_from_the_keyboard(world: World, tab: Tab, program: GraphqlClient) -> None:
    sign_up(program, "forgetful@dest.test")
    (link,) = links(world, "forgetful@dest.test")
    tab.open(link)
    tab.click("Verify my address")
    tab.sees("Your address is verified")

    tab.open(f"{PUBLIC_URL}/#/forgotten-password")
    tab.type("forgetful@dest.test", into="Your address")
    tab.press("Enter")
    tab.sees("Look into your mailbox")

    (link,) = links(world, "forgetful@dest.test", 2)
    tab.open(link)
    tab.sees("Set a new password")
    before = posts(tab)
    tab.press("Tab")
    assert tab.focused == "New password"
    tab.type("short")
    tab.press("Tab")
    assert tab.focused == AGAIN
    tab.type("shore")
    tab.press("Enter")
    tab.sees("The two are not the same")
    assert (tab.focused, posts(tab)) == (AGAIN, before)
    tab.type("short", into=AGAIN)
    tab.press("Enter")
    tab.sees("A password needs at least 8 characters.")
    assert tab.focused == "New password"
    tab.type("another password", into="New password")
    tab.type("another password", into=AGAIN)
    tab.press("Tab")
    assert tab.focused == "Show what I type"
    tab.press("Space")
    assert tab.evaluate("document.querySelectorAll('input[type=password]').length") == 0
    tab.press("Tab")
    assert tab.focused == "Set the new password"
    tab.press("Enter")
    tab.sees("Your new password is set", "forgetful@dest.test")
    assert can_sign_in(program, "forgetful@dest.test", "another password")
    assert not can_sign_in(program, "forgetful@dest.test", PASSWORD)
    assert is_kept_quiet(world, tab, link)


def test_a_link_for_a_new_password_that_is_not_good_leads_to_another(tab: Tab) -> None:
    tab.open(f"{PUBLIC_URL}/#/reset-password?token={'x' * 43}")
    tab.type("another password", into="New password")
    tab.type("another password", into=AGAIN)
    tab.click("Set the new password")
    tab.sees("This link is not good any more", "have another letter sent to you")
    tab.click("Send me another letter")
    tab.sees("Forgotten your password?")


def test_the_owner_of_a_mailbox_agrees(world: World, tab: Tab) -> None:
    world.appliance.done("alias", "add", "bob@forward.test", "bob.box@dest.test")
    link, _ = links(world, "bob.box@dest.test")
    tab.open(link)
    tab.sees("May mail be forwarded to you?")
    assert posts(tab) == 0
    eventually(lambda: world.ask("bob@forward.test").code == 451, what="it is known, and not in service")
    tab.click("Yes, forward it to me")
    tab.sees("From now on mail is forwarded to bob.box@dest.test.")
    eventually(lambda: world.ask("bob@forward.test").code == 250, what="it is in service")
    assert is_kept_quiet(world, tab, link)
    tab.open(link)
    tab.click("Yes, forward it to me")
    tab.sees("This link is not good any more", "If you have agreed before, all is done.")


def test_the_owner_of_a_mailbox_wants_no_more_letters(world: World, tab: Tab) -> None:
    world.appliance.done("alias", "add", "eve@forward.test", "eve.box@dest.test")
    _, link = links(world, "eve.box@dest.test")
    tab.open(link)
    tab.sees("No more of these letters?")
    assert posts(tab) == 0
    tab.click("Never ask me again")
    tab.sees("You will not be asked again")
    assert "does not want to be asked" in world.appliance.cli("alias", "add", "e@forward.test", "eve.box@dest.test").err
    assert is_kept_quiet(world, tab, link)


def test_who_is_offline_tries_again_with_the_same_link(world: World, browser: Browser, program: GraphqlClient) -> None:
    sign_up(program, "patient@dest.test")
    (link,) = links(world, "patient@dest.test")
    # The browser itself complains that it is offline.
    tab = browser.tab()
    tab.open(link)
    tab.offline(True)
    tab.click("Verify my address")
    tab.sees("The appliance can’t be reached.")
    assert tab.address == link, "it is still good"
    tab.offline(False)
    tab.click("Verify my address")
    tab.sees("Your address is verified")


def test_a_link_that_was_broken_in_two_is_told_from_one_that_is_too_old(tab: Tab) -> None:
    tab.open(f"{PUBLIC_URL}/#/verify-email?tok")
    tab.sees("Part of this link is missing")
    assert posts(tab) == 0


# ------------------------------------------------------------------ without a link


def test_whoever_comes_without_a_link_is_told_what_this_is(tab: Tab) -> None:
    tab.open(PUBLIC_URL)
    tab.sees("an appliance that forwards email", HOSTNAME)
    tab.click("What is stored here")
    tab.sees("never_asked", HOSTNAME)
    tab.click("Back")
    tab.click("The warrant canary")
    tab.sees("No canary has been published here.")
    tab.click("Back")
    tab.click("Try the API")
    tab.sees("Answer", "Documentation")


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("", "an appliance that forwards email"),
        ("#/reset-password?token=x", "Show what I type"),
        ("privacy", "never_asked"),
        ("canary", "No canary has been published here."),
        ("graphql", "Sign in to read the schema."),
    ],
)
def test_a_page_fits_on_a_phone(browser: Browser, page: str, text: str) -> None:
    tab = browser.tab(PHONE, dark=True)
    tab.open(f"{PUBLIC_URL}/{page}")
    tab.sees(text)
    assert tab.evaluate("document.documentElement.scrollWidth") == PHONE[0], "nobody scrolls sideways"
    assert tab.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(22, 24, 27)"
    assert tab.complaints == []


# ------------------------------------------------------------------ the API in a page


def test_a_query_is_typed_run_and_answered(world: World, tab: Tab, program: GraphqlClient) -> None:
    tab.open(f"{PUBLIC_URL}/graphql")
    tab.sees("Sign in to read the schema.")
    tab.type("{ status { healthy } }", into="Query")
    tab.click("Run")
    tab.sees('"healthy": true')
    tab.type("{ nothing }", into="Query")
    tab.press("Enter", control=True)
    tab.sees("Cannot query field")

    sign_up(program, "curious@dest.test")
    (link,) = links(world, "curious@dest.test")
    token = link.partition("token=")[2]
    assert program.data(operation("verify_email"), token=token)["verifyEmail"]["errors"] == []
    tab.type(operation("sign_in"), into="Query")
    tab.type(f'{{"email": "curious@dest.test", "password": "{PASSWORD}"}}', into="Variables, as JSON")
    tab.press("Enter", control=True)
    tab.sees('"email": "curious@dest.test"', "Subscription")
    # Over a websocket, which the policy of the page allows to the appliance alone.
    tab.type("", into="Variables, as JSON")
    tab.type("subscription { deliveryEvents { type } }", into="Query")
    tab.click("Run")
    tab.sees("What comes now stands on top.")
    tab.click("Stop")
    tab.sees("It has ended.")
