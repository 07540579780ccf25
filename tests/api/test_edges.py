"""Where a request comes from: other sites, proxies, cookies, tokens, and the socket of the machine."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from control_api.callers import Caller, CallerKind, Credentials, identified
from control_api.context import Cookie, SetCookie
from control_api.edges import Edges
from control_api.exchange import Headers, Request
from served_api import ServedApi, served_api
from signed_in import signed_in

from appliance.configuration import Configuration
from appliance.configuration.settings import Http
from appliance.model.access import Scope
from appliance.storage.records import StoreUnavailable

STATUS = "{ status { version } }"
VIEWER = "{ viewer { email } }"


def request(peer: str | None = "192.0.2.1", **headers: str) -> Request:
    """A request with these header fields; a name has `_` for `-`."""
    fields = tuple((name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items())
    return Request("POST", "/graphql", "", Headers(fields), peer)


# ------------------------------------------------------------------ other sites

FOREIGN: list[Mapping[str, str]] = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1"},
    {"origin": "https://127.0.0.1:8025"},
    {"origin": "http://127.0.0.1:8025.evil.example"},
    {"origin": "http://evil.example:8025", "host": "evil.example:8025"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"origin": "http://127.0.0.1:8025", "sec-fetch-site": "cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_request_for_the_page_of_another_site_is_refused(api: ServedApi, headers: Mapping[str, str]) -> None:
    with signed_in(api) as (browser, _):
        reply = browser.ask("mutation { signOut { errors { code } } }", headers)
        assert (reply.status, reply.codes) == (403, ["FORBIDDEN"])
        assert browser.send("GET", "/graphql?query=%7Bviewer%7Bemail%7D%7D", headers=headers).status == 403
        # And nothing was done.
        assert browser.data(VIEWER)["viewer"] is not None


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://127.0.0.1:8025"},
        {"origin": "http://127.0.0.1:8025", "sec-fetch-site": "same-origin"},
        {"origin": "HTTP://127.0.0.1:8025"},
        {"sec-fetch-site": "none"},
        {},
    ],
)
def test_a_request_of_an_own_page_is_taken(api: ServedApi, headers: Mapping[str, str]) -> None:
    with signed_in(api) as (browser, _):
        assert browser.ask(VIEWER, headers).json["data"]["viewer"] is not None


def test_a_page_behind_a_tunnel_is_an_own_one(api: ServedApi) -> None:
    with api.client() as browser:
        for host in ("127.0.0.1:4711", "localhost:4711", "[::1]:4711"):
            assert browser.ask(STATUS, {"host": host, "origin": f"http://{host}"}).status == 200


def test_a_program_with_a_token_comes_from_anywhere(api: ServedApi) -> None:
    account = api.rooms.accounts.add("owner@people.test")
    secret, _ = api.rooms.entrance.api_tokens.create(account, "test", [Scope.READ], None)
    with api.client(token=secret) as program:
        assert program.ask(VIEWER, {"origin": "https://elsewhere.example"}).json["data"]["viewer"]["email"]


# ------------------------------------------------------------------ credentials


@pytest.mark.parametrize("authorization", ["Bearer nonsense", "Bearer ", "Bearer", "Basic eDp5", "nonsense"])
def test_a_token_that_is_no_good_is_a_401_for_the_whole_request(api: ServedApi, authorization: str) -> None:
    with api.client() as client:
        for accept in ("application/json", "application/graphql-response+json"):
            reply = client.ask(STATUS, {"authorization": authorization, "accept": accept})
            assert (reply.status, reply.codes) == (401, ["UNAUTHENTICATED"])
            assert reply.headers["www-authenticate"] == "Bearer"


def test_a_cookie_that_is_no_good_is_nobodys(api: ServedApi) -> None:
    with api.client() as client:
        client.cookies["onward_session"] = "nonsense"
        assert client.data(VIEWER) == {"viewer": None}


def test_a_token_without_the_scope_is_refused(api: ServedApi) -> None:
    account = api.rooms.accounts.add("owner@people.test")
    secret, _ = api.rooms.entrance.api_tokens.create(account, "test", [Scope.WRITE], None)
    with api.client(token=secret) as program:
        assert program.ask(VIEWER).codes == ["FORBIDDEN"]
        # What is no secret asks for none.
        program.data(STATUS)


def test_a_token_is_known_by_nothing_else(api: ServedApi) -> None:
    with signed_in(api) as (browser, _):
        assert browser.ask(VIEWER, {"authorization": "Bearer nonsense"}).status == 401


def test_who_opens_the_socket_of_the_machine_is_the_operator(api: ServedApi) -> None:
    with api.operator() as operator, api.client() as stranger:
        everyone = "{ accounts { totalCount } }"
        assert operator.data(everyone) == {"accounts": {"totalCount": 0}}
        assert stranger.ask(everyone).codes == ["UNAUTHENTICATED"]
        # The operator of the machine has no account.
        assert operator.data(VIEWER) == {"viewer": None}
    assert api.local.stat().st_mode & 0o777 == 0o600


def test_cookies_are_hidden_from_scripts_and_kept_from_other_hosts() -> None:
    _, plain = Edges("http://127.0.0.1:8025").set_cookie(SetCookie(Cookie.SESSION, "x", 60))
    assert plain == b"onward_session=x; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"
    _, secure = Edges("https://mx.example").set_cookie(SetCookie(Cookie.SESSION, "x", 60))
    assert secure == b"__Host-onward_session=x; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"


def test_a_cookie_without_the_prefix_is_not_looked_at_over_https() -> None:
    edges = Edges("https://mx.example")
    assert edges.credentials(request(cookie="onward_session=a; __Host-onward_session=b")).session == "b"
    assert edges.credentials(request(cookie="onward_session=a")).session is None


def test_a_store_that_is_away_is_unavailable_and_lets_nobody_in() -> None:
    class Away:
        def by_session(self, secret: str) -> None:
            raise StoreUnavailable("the disk is gone")

        by_token = by_session

    with pytest.raises(StoreUnavailable):
        identified(Credentials(session="x"), Away())
    assert identified(Credentials(), Away()) == Caller(CallerKind.ANONYMOUS)


# ------------------------------------------------------------------ proxies

TRUSTING = Edges("http://x", trusted_proxies=("127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"))


@pytest.mark.parametrize(
    ("peer", "headers", "address"),
    [
        ("192.0.2.1", {"x_forwarded_for": "198.51.100.9"}, "192.0.2.1"),
        ("127.0.0.1", {}, "127.0.0.1"),
        ("127.0.0.1", {"x_forwarded_for": "198.51.100.9"}, "198.51.100.9"),
        ("127.0.0.1", {"x_forwarded_for": "1.1.1.1, 198.51.100.9"}, "198.51.100.9"),
        ("127.0.0.1", {"x_forwarded_for": "198.51.100.9, 10.1.2.3"}, "198.51.100.9"),
        ("127.0.0.1", {"x_forwarded_for": "10.1.2.3"}, "10.1.2.3"),
        ("127.0.0.1", {"x_forwarded_for": "nonsense"}, "127.0.0.1"),
        ("127.0.0.1", {"x_forwarded_for": "198.51.100.9, nonsense"}, "127.0.0.1"),
        ("127.0.0.1", {"x_forwarded_for": ""}, "127.0.0.1"),
        ("2001:db8::1", {"x_forwarded_for": "2001:db9::7"}, "2001:db9::7"),
        ("::ffff:127.0.0.1", {"x_forwarded_for": "198.51.100.9"}, "198.51.100.9"),
        ("::ffff:192.0.2.1", {"x_forwarded_for": "198.51.100.9"}, "::ffff:192.0.2.1"),
        ("127.0.0.1", {"x_forwarded_for": "198.51.100.9, ::ffff:10.1.2.3"}, "198.51.100.9"),
        ("127.0.0.1", {"x_forwarded_for": "[2001:db9::7]:4711"}, "2001:db9::7"),
        ("127.0.0.1", {"forwarded": "for=198.51.100.9;proto=https"}, "198.51.100.9"),
        ("127.0.0.1", {"forwarded": 'proto=https; For="[2001:db9::7]:4711"'}, "2001:db9::7"),
        ("127.0.0.1", {"forwarded": 'for=1.1.1.1, for="198.51.100.9:80"'}, "198.51.100.9"),
        ("127.0.0.1", {"forwarded": "for=unknown"}, "127.0.0.1"),
        ("127.0.0.1", {"forwarded": "by=1.1.1.1"}, "127.0.0.1"),
        ("127.0.0.1", {"forwarded": "for=198.51.100.9", "x_forwarded_for": "198.51.100.9"}, "198.51.100.9"),
        # One of the two is the client's own invention, and which one only the proxy knows.
        ("127.0.0.1", {"forwarded": "for=198.51.100.9", "x_forwarded_for": "1.1.1.1"}, "127.0.0.1"),
        ("127.0.0.1", {"forwarded": "for=1.1.1.1", "x_forwarded_for": "198.51.100.9"}, "127.0.0.1"),
        (None, {"x_forwarded_for": "1.1.1.1"}, ""),
    ],
)
def test_a_proxy_is_believed_only_where_it_is_trusted(
    peer: str | None, headers: Mapping[str, str], address: str
) -> None:
    assert TRUSTING.client_address(request(peer, **headers)) == address


@pytest.mark.parametrize("said", ["for=" + " " * 16_000 + '"', "; " * 8_000 + "for", 'for="' * 3_000, "for=a," * 2_500])
def test_a_header_of_whatever_length_keeps_nobody_waiting(said: str) -> None:
    began = time.perf_counter()
    assert TRUSTING.client_address(request("127.0.0.1", forwarded=said)) == "127.0.0.1"
    assert time.perf_counter() - began < 0.5


def test_nobody_is_trusted_unless_it_is_said() -> None:
    assert Edges("http://x").client_address(request("127.0.0.1", x_forwarded_for="1.1.1.1")) == "127.0.0.1"


# ------------------------------------------------------------------ the page


@pytest.fixture
def behind_tls(tmp_path: Path) -> Iterator[ServedApi]:
    """The API of an appliance whose site is https."""
    config = Configuration(hostname="mx.onward.test", data_dir=tmp_path / "var")
    with served_api(replace(config, http=Http(public_url="https://mx.onward.test"))) as served:
        yield served


def test_over_https_the_session_has_a_cookie_of_this_host_alone(behind_tls: ServedApi) -> None:
    with signed_in(behind_tls) as (browser, _):
        assert "__Host-onward_session" in browser.cookies
        assert browser.data(VIEWER)["viewer"] is not None
        assert browser.ask(VIEWER, {"origin": "https://mx.onward.test"}).status == 200
        assert browser.ask(VIEWER, {"origin": "http://mx.onward.test"}).status == 403
