"""The pages that are served: ours alone, and nothing else runs in them. In a browser: `system/test_pages.py`."""

import base64
import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from command_line_desk import Desk
from control_api import operations, pages, watch
from control_api.edges import Edges
from control_api.exchange import SECURITY_HEADERS, Answer, Headers, Request
from control_api.privacy_pages import as_html, show_policy
from served_api import ServedApi

from appliance.access.passwords import MIN_PASSWORD_CHARACTERS
from appliance.configuration import retention_ms
from appliance.model.time import DAY_MS, HOUR_MS
from appliance.privacy.canary import Canaries, Canary, composed
from appliance.privacy.declarations import COLLECTIONS
from appliance.privacy.policy import policy
from appliance.privacy.signatures import Signer
from appliance.storage.records import StoreUnavailable

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
HTML = "text/html; charset=utf-8"

every_page = pytest.mark.parametrize("page", [pages.front, pages.explorer])


def test_at_the_root_everybody_gets_the_front_page(api: ServedApi) -> None:
    with api.client() as client:
        page = client.send("GET", "/", headers={**BROWSER, "sec-fetch-site": "cross-site"})
        assert (page.status, page.headers["content-type"], page.body) == (200, HTML, pages.front().body)
        assert page.headers["referrer-policy"] == "no-referrer"
        head = client.send("HEAD", "/")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(page.body))
        assert client.send("POST", "/").status == 405


def test_a_browser_gets_the_explorer_and_a_program_does_not(api: ServedApi) -> None:
    with api.client() as client:
        page = client.send("GET", headers=BROWSER)
        assert (page.status, page.headers["content-type"], page.body) == (200, HTML, pages.explorer().body)
        assert client.send("GET", headers={"accept": "application/json"}).status == 400
        # Somebody who follows a link to a query wants its answer.
        assert client.send("GET", "/graphql?query=%7B__typename%7D", headers=BROWSER).json == {
            "data": {"__typename": "Query"}
        }


def test_a_link_of_another_site_leads_to_the_explorer(api: ServedApi) -> None:
    with api.client() as client:
        assert client.send("GET", headers={**BROWSER, "sec-fetch-site": "cross-site"}).status == 200


@every_page
def test_the_policy_lets_its_own_script_and_style_run_and_nothing_else(page: Callable[[], Answer]) -> None:
    policy = dict(page().all_headers())[b"content-security-policy"].decode()
    text = page().body.decode()
    for element in ("script", "style"):
        (content,) = re.findall(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


@every_page
def test_a_page_asks_no_other_host_for_anything(page: Callable[[], Answer]) -> None:
    text = page().body.decode()
    assert not re.findall(r"https?://", text)
    assert not re.findall(r"""\s(?:on\w+|style)=["']""", text), "the policy forbids what stands in attributes"
    assert "innerHTML" not in text


def test_what_the_front_page_sends_is_valid_and_counted_by_name() -> None:
    text = pages.front().body.decode()
    found = re.findall(r"""["`]((?:query|mutation) (\w+).*?)["`]""", text, re.DOTALL)
    assert {name for _, name in found} == {
        "VerifyEmail", "ResetPassword", "ConfirmDestination", "NeverAskAgain", "RequestPasswordReset",
    }  # fmt: skip
    for document, name in found:
        operations.read(document, signed_in=False)
        assert name in watch.own_operations()


def test_the_front_page_knows_how_long_a_password_is() -> None:
    assert f"At least {MIN_PASSWORD_CHARACTERS} characters." in pages.front().body.decode()


# ------------------------------------------------------------------ the policy and the canary

papers = pytest.mark.parametrize("path", ["/privacy", "/canary"])

SIGNER = Signer(bytes(range(32)))
"""Somebody's key, far from the appliance."""
STATEMENTS = ("No warrant has come.", '<script>alert(1)</script> & "so on"')


def publish(api: ServedApi, *, age_ms: int = 0) -> Canary:
    """Publish a canary that was good for a day, so long ago."""
    then = api.rooms.clock() - age_ms
    text = composed(STATEMENTS, then, then + DAY_MS)
    # On that day: none is taken that has expired.
    return Canaries(api.rooms.records, lambda: then).publish(text, SIGNER.sign(text), SIGNER.public_key)


def shown(page: bytes) -> str:
    """What a person reads of a page."""
    return html.unescape(re.sub("<[^>]+>", "", page.decode()))


@papers
def test_what_is_to_be_read_is_a_page_without_a_script(api: ServedApi, path: str) -> None:
    publish(api)
    with api.client() as client:
        page = client.send("GET", path, headers={**BROWSER, "sec-fetch-site": "cross-site"})
        assert (page.status, page.headers["content-type"], page.headers["vary"]) == (200, HTML, "accept")
        for name, value in SECURITY_HEADERS:
            if name != b"content-security-policy":
                assert page.headers[name.decode()] == value.decode()
        allowed = page.headers["content-security-policy"]
        (style,) = re.findall(b"<style>(.*?)</style>", page.body, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
        assert allowed.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; ")
        assert not re.search("script-src|connect-src|unsafe", allowed)
        assert b"<script" not in page.body
        assert not re.findall(rb"""\s(?:on\w+|style|src)=["']""", page.body)
        assert b"@import" not in page.body, "it would not be loaded"
        assert client.send("GET", path).headers["content-type"] == HTML, "whoever does not say what it wants"
        assert client.send("GET", path, headers={"accept": "image/png"}).headers["content-type"] == HTML
        head = client.send("HEAD", path, headers=BROWSER)
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(page.body)))
        assert client.send("POST", path).status == 405


def test_the_policy_is_shown_as_the_configuration_makes_it(api: ServedApi) -> None:
    made = policy(lambda setting: retention_ms(api.rooms.configuration, setting))
    with api.client() as client:
        page = client.send("GET", "/privacy", headers=BROWSER).body
        assert made.digest in shown(page)
        assert b"<h1>What this appliance stores</h1>" in page
        for collection in COLLECTIONS:
            assert f"<h3>{collection.name}</h3>" in page.decode()
            assert collection.purpose in shown(page)
        assert "`" not in shown(page)
        for media_type in ("text/plain", "text/markdown"):
            bare = client.send("GET", "/privacy", headers={"accept": media_type})
            assert (bare.headers["content-type"], bare.body.decode()) == (f"{media_type}; charset=utf-8", made.text)
            assert bare.headers["vary"] == "accept"


def test_what_stands_in_the_policy_is_escaped() -> None:
    assert as_html('# <b>\n\na & `<i>`\nb\n\n- "one"\n- <two>\n') == (
        "<h1>&lt;b&gt;</h1>\n<p>a &amp; <code>&lt;i&gt;</code>\nb</p>\n"
        "<ul><li>&quot;one&quot;</li><li>&lt;two&gt;</li></ul>"
    )


def test_a_canary_that_nobody_has_published_is_not_passed_over(api: ServedApi) -> None:
    with api.client() as client:
        page = client.send("GET", "/canary", headers=BROWSER)
        assert (page.status, "No canary has been published here." in shown(page.body)) == (200, True)
        bare = client.send("GET", "/canary", headers={"accept": "text/plain"})
        assert (bare.status, bare.body) == (200, b"No canary has been published here.\n")
        assert client.send("GET", "/canary", headers={"accept": "application/json"}).json is None


def test_a_canary_is_shown_with_all_that_it_takes_to_check_it(api: ServedApi) -> None:
    canary = publish(api)
    with api.client() as client:
        page = client.send("GET", "/canary", headers=BROWSER).body
        bare = client.send("GET", "/canary", headers={"accept": "text/plain"})
        assert bare.headers["content-type"] == "text/plain; charset=utf-8"
        for text in (shown(page), bare.body.decode()):
            for said in (*STATEMENTS, canary.signed_text, canary.signature, canary.public_key):
                assert said in text
            assert "alarm: " not in text
        assert b"<script" not in page
        assert "| onward canary verify --key PUBLIC_KEY -" in shown(page)
        same = client.send("GET", "/canary", headers={"accept": "text/markdown"})
        assert (same.headers["content-type"], same.body) == ("text/plain; charset=utf-8", bare.body)


def test_a_canary_is_checked_as_its_page_says(api: ServedApi, tmp_path: Path) -> None:
    publish(api)
    with api.client() as client:
        answer = client.send("GET", "/canary", headers={"accept": "application/json"})
    assert answer.headers["content-type"] == "application/json"
    elsewhere = Desk(tmp_path / "elsewhere")
    verify = ("canary", "verify", "--key", SIGNER.public_key, "-")
    assert elsewhere.done(*verify, stdin=answer.body.decode()).stdout.splitlines() == list(STATEMENTS)


def test_a_canary_that_has_expired_is_an_alarm(api: ServedApi) -> None:
    publish(api, age_ms=DAY_MS + HOUR_MS)
    with api.client() as client:
        page = client.send("GET", "/canary", headers=BROWSER)
        assert "<h1>The warrant canary has expired</h1>" in page.body.decode()
        assert "This is an alarm: the canary expired at " in shown(page.body)
        bare = client.send("GET", "/canary", headers={"accept": "text/plain"})
        assert bare.body.startswith(b"This is an alarm: the canary expired at ")


def test_a_store_that_is_away_is_said_in_plain_words(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise StoreUnavailable("/var/lib/onward/records.sqlite is gone")

    monkeypatch.setattr(Canaries, "current", away)
    says = "The appliance can't answer this now. Try again later."
    with api.client() as client:
        page = client.send("GET", "/canary", headers=BROWSER)
        assert (page.status, page.headers["content-type"], says in shown(page.body)) == (503, HTML, True)
        assert b"sqlite" not in page.body
        bare = client.send("GET", "/canary", headers={"accept": "text/plain"})
        assert (bare.status, bare.body) == (503, f"{says}\n".encode())
        program = client.send("GET", "/canary", headers={"accept": "application/json"})
        assert (program.status, program.json) == (503, {"error": says})
        assert client.send("GET", "/privacy", headers=BROWSER).status == 200, "the policy is in no store"


async def test_who_finds_every_thread_taken_is_told_to_come_later(
    api: ServedApi, autojump_clock: trio.testing.MockClock
) -> None:
    others = [object() for _ in range(operations.THREADS)]
    for other in others:
        operations.threads.acquire_on_behalf_of_nowait(other)
    try:
        request = Request("GET", "/privacy", "", Headers(((b"accept", b"text/plain"),)), "192.0.2.1")
        answer = await show_policy(api.rooms, Edges("http://127.0.0.1:8025"), request)
    finally:
        for other in others:
            operations.threads.release_on_behalf_of(other)
    assert (answer.status, answer.body) == (503, b"The appliance is busy. Try again later.\n")
