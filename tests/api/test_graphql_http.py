"""GraphQL over HTTP: methods, media types and statuses; and the requests that are not taken, whatever they ask."""

import json
import urllib.parse
from collections.abc import Mapping

import pytest
from abusive_requests import ABUSE, ONLY_WRONG
from control_api import http, limits
from control_api.exchange import SECURITY_HEADERS
from control_api.graphql_http import accepted
from served_api import ServedApi

JSON = "application/json"
RESPONSE_JSON = "application/graphql-response+json"
STATUS = "{ status { version } }"
SIGN_OUT = "mutation { signOut { errors { code } } }"


def posted(api: ServedApi, document: object, headers: Mapping[str, str] = {}) -> tuple[int, list[str]]:
    """The status and the codes of the errors, for a body that is this as JSON."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    with api.client() as client:
        reply = client.send("POST", body=body, headers={"content-type": JSON, "accept": RESPONSE_JSON, **headers})
    return reply.status, reply.codes


# ------------------------------------------------------------------ what is asked


def test_a_query_goes_by_post_and_by_get(api: ServedApi) -> None:
    with api.client() as client:
        by_post = client.data(STATUS)
        by_get = client.send("GET", "/graphql?query=" + urllib.parse.quote(STATUS))
        assert by_get.status == 200
        assert by_get.json == {"data": by_post}


def test_variables_of_a_get_are_json(api: ServedApi) -> None:
    query = urllib.parse.urlencode(
        {"query": "query($x: String!) { __type(name: $x) { name } }", "variables": '{"x":"y"}'}
    )
    with api.client() as client:
        assert client.send("GET", f"/graphql?{query}").json == {"data": {"__type": None}}
        broken = query.replace("%7B%22x%22", "%7B%22x")
        assert client.send("GET", f"/graphql?{broken}").status == 400


def test_a_mutation_goes_by_post_only(api: ServedApi) -> None:
    for accept in (JSON, RESPONSE_JSON):
        with api.client() as client:
            reply = client.send("GET", "/graphql?query=" + urllib.parse.quote(SIGN_OUT), headers={"accept": accept})
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
        assert "data" not in reply.json


@pytest.mark.parametrize(
    "document",
    [
        [{"query": STATUS}],
        [],
        "text",
        7,
        {},
        {"query": ""},
        {"query": None},
        {"query": STATUS, "variables": []},
        {"query": STATUS, "operationName": 1},
        {"query": STATUS, "extensions": "x"},
        b"{",
        b"",
        b"\xff\xfe{}",
        b"[" * 60_000,
    ],
)
def test_what_is_no_request_is_a_400(api: ServedApi, document: object) -> None:
    assert posted(api, document) == (400, ["BAD_USER_INPUT"])


def test_of_several_operations_one_is_named(api: ServedApi) -> None:
    query = "query A { a: __typename } query B { b: __typename }"
    assert posted(api, {"query": query}) == (400, ["BAD_USER_INPUT"])
    assert posted(api, {"query": query, "operationName": "C"}) == (400, ["BAD_USER_INPUT"])
    with api.client() as client:
        body = json.dumps({"query": query, "operationName": "B"}).encode()
        assert client.send("POST", body=body, headers={"content-type": JSON}).json == {"data": {"b": "Query"}}


def test_a_subscription_is_sent_to_the_websocket(api: ServedApi) -> None:
    assert posted(api, {"query": "subscription { deliveryEvents { id } }"}) == (400, ["BAD_USER_INPUT"])


def test_other_methods_are_refused(api: ServedApi) -> None:
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH"):
        with api.client() as client:
            reply = client.send(method)
        assert (reply.status, reply.headers["allow"]) == (405, "GET, POST")
        # A script of another site asks by OPTIONS, and is given nothing.
        assert not any(name.startswith("access-control") for name in reply.headers)


# ------------------------------------------------------------------ media types and statuses


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        (RESPONSE_JSON, RESPONSE_JSON),
        (f"{RESPONSE_JSON}, {JSON};q=0.9", RESPONSE_JSON),
        (f"{JSON}, {RESPONSE_JSON}", RESPONSE_JSON),
        (f"{RESPONSE_JSON};q=0.1, {JSON}", JSON),
        (f"{RESPONSE_JSON};charset=utf-8", RESPONSE_JSON),
        (f"{RESPONSE_JSON};q=0, */*;q=0.5", JSON),
        ("APPLICATION/JSON", JSON),
        ("text/html", None),
        (f"{JSON};q=0", None),
        (f"{JSON};q=nonsense", None),
        ("", None),
    ],
)
def test_the_media_type_is_what_the_client_likes_best(accept: str | None, answered: str | None) -> None:
    assert accepted(accept) == answered


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("{", 400),
        ("{ nothing }", 400),
        ("query($x: ID!) { node(id: $x) { id } }", 400),
        ("{ __schema { types { name } } }", 401),
    ],
)
def test_the_status_tells_of_a_failure_in_the_new_media_type_only(api: ServedApi, query: str, status: int) -> None:
    for accept, expected in ((RESPONSE_JSON, status), (JSON, 200)):
        with api.client() as client:
            reply = client.ask(query, {"accept": accept})
        assert reply.status == expected
        assert reply.headers["content-type"] == f"{accept}; charset=utf-8"
        assert list(reply.json) == ["errors"]


def test_a_failing_field_is_a_200_with_its_path(api: ServedApi) -> None:
    with api.client() as client:
        reply = client.ask('{ status { version } node(id: "x") { id } }')
    assert reply.status == 200
    assert reply.json["data"]["node"] is None
    assert reply.json["errors"][0]["path"] == ["node"]
    assert reply.codes == ["UNAUTHENTICATED"]


def test_what_no_answer_would_fit_is_a_406(api: ServedApi) -> None:
    assert posted(api, {"query": STATUS}, {"accept": "text/html"})[0] == 406


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "application/graphql", "",
     "application/json; charset=utf-16"],
)  # fmt: skip
def test_what_a_form_could_send_is_not_taken(api: ServedApi, content_type: str) -> None:
    assert posted(api, {"query": STATUS}, {"content-type": content_type}) == (415, ["BAD_USER_INPUT"])


def test_every_answer_has_the_security_headers(api: ServedApi) -> None:
    with api.client() as client:
        for reply in (
            client.ask(STATUS),
            client.ask("{"),
            client.send("GET", "/graphql", headers={"accept": "text/html"}),
            client.send("GET", "/"),
        ):
            for name, value in SECURITY_HEADERS:
                if name != b"content-security-policy":
                    assert reply.headers[name.decode()] == value.decode()


# ------------------------------------------------------------------ limits


def test_an_oversized_request_is_refused(api: ServedApi) -> None:
    with api.client() as client:
        body = json.dumps({"query": STATUS + " " * http.BODY_OCTETS}).encode()
        assert client.send("POST", body=body, headers={"content-type": JSON}).status == 413


@pytest.mark.parametrize("name", ABUSE)
def test_a_document_that_asks_for_too_much_is_refused_at_once(api: ServedApi, name: str) -> None:
    with api.client() as client:
        reply = client.ask(ABUSE[name])
        assert (reply.status, set(reply.codes)) == (400, {"BAD_USER_INPUT" if name in ONLY_WRONG else "TOO_COMPLEX"})
        assert "data" in client.ask(STATUS).json


def test_deep_introspection_is_refused_to_an_operator_as_well(api: ServedApi) -> None:
    with api.operator() as client:
        assert client.ask(ABUSE["deep introspection"]).codes == ["TOO_COMPLEX"]
        assert client.data("{ __schema { queryType { name } } }") == {"__schema": {"queryType": {"name": "Query"}}}


def test_a_fragment_that_spreads_itself_is_invalid(api: ServedApi) -> None:
    with api.client() as client:
        reply = client.ask("{ ...f } fragment f on Query { ...g } fragment g on Query { ...f __typename }")
        assert (reply.status, set(reply.codes)) == (400, {"BAD_USER_INPUT"})


EVERYTHING = "{ __schema { types { name fields { name } } } }"


def test_an_answer_has_so_many_fields(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    with api.operator() as client:
        assert "errors" not in client.ask(EVERYTHING).json
        monkeypatch.setattr(limits, "FIELDS_RESOLVED", 100)
        assert set(client.ask(EVERYTHING).codes) == {"TOO_COMPLEX"}


def test_an_answer_takes_so_long(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", -1.0)
    with api.operator() as client:
        assert set(client.ask(EVERYTHING).codes) == {"TOO_COMPLEX"}
