"""The page on which a person tries the API: ours alone, and nothing else runs in it."""

import base64
import hashlib
import re

from control_api import explorer
from served_api import ServedApi

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def test_a_browser_gets_the_page_and_a_program_does_not(api: ServedApi) -> None:
    with api.client() as client:
        page = client.send("GET", headers=BROWSER)
        assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert client.send("GET", headers={"accept": "application/json"}).status == 400
        # Somebody who follows a link to a query wants its answer.
        assert client.send("GET", "/graphql?query=%7B__typename%7D", headers=BROWSER).json == {
            "data": {"__typename": "Query"}
        }


def test_a_link_of_another_site_leads_to_the_page(api: ServedApi) -> None:
    with api.client() as client:
        assert client.send("GET", headers={**BROWSER, "sec-fetch-site": "cross-site"}).status == 200


def test_the_policy_lets_its_own_script_and_style_run_and_nothing_else() -> None:
    page = explorer.page()
    policy = dict(page.all_headers())[b"content-security-policy"].decode()
    text = page.body.decode()
    for element in ("script", "style"):
        (content,) = re.findall(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_asks_no_other_host_for_anything() -> None:
    text = explorer.page().body.decode()
    assert not re.findall(r"https?://", text)
    assert not re.findall(r"""\s(?:on\w+|style)=["']""", text), "the policy forbids what stands in attributes"
    assert "innerHTML" not in text
