"""The pages that are served: ours alone, and nothing else runs in them. In a browser: `system/test_pages.py`."""

import base64
import hashlib
import re
from collections.abc import Callable

import pytest
from control_api import operations, pages, watch
from control_api.exchange import Answer
from served_api import ServedApi

from appliance.access.passwords import MIN_PASSWORD_CHARACTERS

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
        "VerifyEmail", "ResetPassword", "ConfirmDestination", "NeverAskAgain", "RequestPasswordReset", "ShowPolicy",
    }  # fmt: skip
    for document, name in found:
        operations.read(document, signed_in=False)
        assert name in watch.own_operations()


def test_the_front_page_knows_how_long_a_password_is() -> None:
    assert f"At least {MIN_PASSWORD_CHARACTERS} characters." in pages.front().body.decode()
