"""What is noted of requests and operations, in the log and in numbers; and who may read the numbers."""

from collections.abc import Callable

import pytest
from appliance_process import eventually
from control_api.edges import Edges
from control_api.exchange import Headers, Request
from control_api.http import application
from control_api.watch import Watch
from served_api import ServedApi
from signed_in import signed_in
from websocket_client import websocket

from appliance.logbook.requests import LoggedRequest
from appliance.privacy.declarations import HTTP_REQUESTS

ALIASES = "query ListAliases { viewer { email } }"
STATUS = "{ status { version } }"

Rows = list[dict[str, object]]


def logged(api: ServedApi, wanted: Callable[[dict[str, object]], bool], count: int = 1) -> Rows:
    """The lines of the log that are meant, once there are so many."""

    def look() -> Rows | None:
        found = [row for row in api.rooms.records.find(HTTP_REQUESTS, {}) if wanted(row)]
        return found if len(found) >= count else None

    found = eventually(look, what="lines of the log")
    assert len(found) == count
    return found


def metrics(api: ServedApi) -> dict[str, float]:
    """The numbers, each under its name with its labels, as it stands in the text."""
    with api.operator() as operator:
        reply = operator.send("GET", "/metrics")
    assert reply.status == 200
    lines = [line.rpartition(" ") for line in reply.body.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


# ------------------------------------------------------------------ the log


def test_a_request_is_logged_without_what_is_behind_the_question_mark(api: ServedApi) -> None:
    with api.client() as client:
        assert client.send("GET", "/nothing/here?token=secret&email=ann@people.test").status == 404
    (row,) = logged(api, lambda row: row["path"] == "/nothing/here")
    assert (row["method"], row["status"], row["client_address"]) == ("GET", 404, "127.0.0.1")
    assert "secret" not in str(row)
    assert "ann@people.test" not in str(row)


def test_an_operation_is_logged_with_its_name_its_caller_and_its_code_and_without_what_was_sent(
    api: ServedApi,
) -> None:
    with signed_in(api) as (browser, account):
        browser.data(ALIASES)
        browser.ask("query Mine { accounts { totalCount } }", secret="shh")
        cookie = browser.cookies["onward_session"]
    (fine,) = logged(api, lambda row: row["operation"] == "ListAliases")
    assert (fine["account_id"], fine["code"], fine["status"]) == (account.id, None, 200)
    (refused,) = logged(api, lambda row: row["operation"] == "Mine")
    assert (refused["account_id"], refused["code"]) == (account.id, "FORBIDDEN")
    everything = str(api.rooms.records.find(HTTP_REQUESTS, {}))
    for sent in (cookie, "shh", "totalCount", "correct horse", "ada@people.test"):
        assert sent not in everything


def test_what_never_came_to_an_operation_is_logged_with_the_reason(api: ServedApi) -> None:
    with api.client(token="nonsense") as client:
        assert client.ask(ALIASES).status == 401
    with api.client() as client:
        assert client.ask("{").status == 400
    rows = logged(api, lambda row: row["path"] == "/graphql", 2)
    assert [(row["code"], row["operation"], row["account_id"]) for row in rows] == [
        ("UNAUTHENTICATED", None, None),
        ("BAD_USER_INPUT", None, None),
    ]


async def test_operations_over_a_websocket_are_logged_each_and_the_websocket_when_it_is_over(api: ServedApi) -> None:
    async with websocket(api.port) as client:
        await client.introduce()
        await client.answer_to(ALIASES)
        await client.answer_to("query Wrong { accounts { totalCount } }")
    # In the order in which they were over.
    first, second, whole = logged(api, lambda row: row["path"] == "/graphql", 3)
    assert (first["method"], first["operation"], first["code"]) == ("WEBSOCKET", "ListAliases", None)
    assert (second["operation"], second["code"]) == ("Wrong", "UNAUTHENTICATED")
    assert (whole["method"], whole["status"], whole["operation"]) == ("GET", 101, None)


def test_the_operator_of_the_machine_has_no_address(api: ServedApi) -> None:
    with api.operator() as operator:
        operator.data("query Local { status { version } }")
    (row,) = logged(api, lambda row: row["operation"] == "Local")
    assert (row["client_address"], row["account_id"]) == (None, None)


async def test_a_defect_of_ours_is_logged_as_one() -> None:
    lines: list[LoggedRequest] = []

    class Kept:
        def add(self, request: LoggedRequest) -> None:
            lines.append(request)

    async def broken() -> None:
        raise RuntimeError("upside down")

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b""}

    async def send(message: dict[str, object]) -> None:
        raise AssertionError("there is no answer")

    scope = {"type": "http", "method": "GET", "path": "/health/ready", "query_string": b"", "headers": []}
    with pytest.raises(RuntimeError, match="upside down"):
        await application(broken, watch=Watch(Edges("http://127.0.0.1:8025"), Kept()))(scope, receive, send)
    assert [(line.path, line.status) for line in lines] == [("/health/ready", 500)]


# ------------------------------------------------------------------ numbers


def test_operations_are_counted_by_name_kind_and_code(api: ServedApi) -> None:
    with api.client() as client:
        for _ in range(3):
            client.data(ALIASES)
        client.ask("mutation SignOut { nothing }")
    found = metrics(api)
    assert found['onward_api_operations_total{code="OK",kind="query",operation="ListAliases"}'] == 3
    assert found['onward_api_operations_total{code="BAD_USER_INPUT",kind="other",operation="other"}'] == 1
    assert found['onward_api_operation_seconds_count{operation="ListAliases"}'] == 3
    assert found['onward_http_requests_total{method="POST",path="/graphql",status="200"}'] == 3


def test_names_that_clients_make_up_are_one(api: ServedApi) -> None:
    with api.client() as client:
        for number in range(20):
            client.data(f"query MadeUp{number} {STATUS}")
            client.send("GET", f"/made/up/{number}")
            client.send(f"MADEUP{number}", "/health/live")
    found = metrics(api)
    assert found['onward_api_operations_total{code="OK",kind="query",operation="other"}'] == 20
    assert found['onward_http_requests_total{method="GET",path="other",status="404"}'] == 20
    assert found['onward_http_requests_total{method="other",path="/health/live",status="405"}'] == 20
    assert not any("MadeUp" in name or "made" in name.lower() for name in found)


def test_without_an_engine_there_are_no_numbers_of_mail(api: ServedApi) -> None:
    found = metrics(api)
    assert found["onward_engine_up"] == 0
    assert found["onward_disk_free_bytes"] > 0
    assert not any(name.startswith(("onward_smtp", "onward_queue", "onward_deliver")) for name in found)


# ------------------------------------------------------------------ who may read them

TRICKS = [
    {"x-forwarded-for": "127.0.0.1"},
    {"x-forwarded-for": "192.0.2.1"},
    {"x-forwarded-for": ""},
    {"forwarded": "for=127.0.0.1"},
    {"x-real-ip": "127.0.0.1"},
    {"via": "1.1 proxy"},
    {"host": "mx.example.org"},
    {"host": ""},
]


@pytest.mark.parametrize("headers", TRICKS, ids=str)
def test_who_speaks_for_somebody_else_is_refused(api: ServedApi, headers: dict[str, str]) -> None:
    with api.client() as client:
        assert client.send("GET", "/metrics").status == 200
        assert client.send("HEAD", "/metrics").status == 200
        refused = client.send("GET", "/metrics", headers=headers)
        assert (refused.status, b"onward_" in refused.body) == (403, False)


@pytest.mark.parametrize(
    ("peer", "is_from_here"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("10.0.0.1", False),
        ("::ffff:192.0.2.1", False),
        ("fe80::1%eth0", False),
        ("nonsense", False),
        (None, False),
    ],
)
def test_only_this_machine_is_trusted_whatever_proxies_are(peer: str | None, is_from_here: bool) -> None:
    host = (b"host", b"127.0.0.1:8025")
    for edges in (Edges("http://127.0.0.1:8025"), Edges("http://127.0.0.1:8025", ("0.0.0.0/0", "::/0"))):
        assert edges.is_from_here(Request("GET", "/metrics", "", Headers((host,)), peer)) is is_from_here
        forwarded = Headers((host, (b"x-forwarded-for", b"127.0.0.1")))
        assert not edges.is_from_here(Request("GET", "/metrics", "", forwarded, peer))
