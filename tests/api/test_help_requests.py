"""Help over the API: who asks, who answers, and who sees what."""

from typing import Any

import pytest
from control_api.operation_files import operation
from graphql_client import GraphqlClient
from served_api import ServedApi
from signed_in import signed_in

from appliance.model.account import Role
from appliance.model.time import DAY_MS, format_instant

ASK = operation("ask_for_help")
REPLY = operation("reply_to_help_request")
SET = operation("set_log_access")
LIST = operation("list_help_requests")
OWN = operation("show_help")


def ask(who: GraphqlClient, subject: str, **more: object) -> dict[str, Any]:
    """The request that is made of it."""
    answer = who.data(ASK, subject=subject, body="It came late.", **more)["askForHelp"]
    assert answer["errors"] == []
    request: dict[str, Any] = answer["helpRequest"]
    return request


def test_a_member_asks_an_operator_answers_and_the_member_closes(api: ServedApi) -> None:
    with signed_in(api) as (ada, _), signed_in(api, "op@people.test", Role.OPERATOR) as (operator, _):
        request = ask(ada, "My mail is late")
        assert (request["open"], request["logAccessUntil"], request["replies"]) == (True, None, [])
        operator.data(REPLY, id=request["id"], body="Which alias?")
        answered = ada.data(REPLY, id=request["id"], body="Never mind.", close=True)["replyToHelpRequest"]
        assert answered["errors"] == []
        assert answered["helpRequest"]["open"] is False
        said = [(each["fromOperator"], each["body"]) for each in answered["helpRequest"]["replies"]]
        assert said == [(True, "Which alias?"), (False, "Never mind.")]
        late = operator.data(REPLY, id=request["id"], body="One more thing")["replyToHelpRequest"]
        assert (late["helpRequest"], late["errors"][0]["field"]) == (None, ["id"])
        seen = ada.data(OWN)["viewer"]["helpRequests"]
        assert [(each["subject"], each["open"], len(each["replies"])) for each in seen] == [
            ("My mail is late", False, 2)
        ]


def test_what_is_written_wrong_is_told_with_its_field(api: ServedApi) -> None:
    with signed_in(api) as (ada, _):
        answer = ada.data(ASK, subject="two\nlines", body="It came late.")["askForHelp"]
        assert answer["helpRequest"] is None
        assert answer["errors"][0]["field"] == ["subject"]
        answer = ada.data(ASK, subject="Help", body="me", logAccessUntil="2020-01-01T00:00:00Z")["askForHelp"]
        assert answer["errors"][0]["field"] == ["logAccessUntil"]


def test_only_its_owner_lets_others_read_the_log(api: ServedApi) -> None:
    tomorrow = format_instant(api.rooms.clock() + DAY_MS)
    with signed_in(api) as (ada, account), signed_in(api, "op@people.test", Role.OPERATOR) as (operator, _):
        request = ask(ada, "My mail is late")
        assert operator.ask(SET, helpRequestId=request["id"], until=tomorrow).codes == ["NOT_FOUND"]
        with api.operator() as machine:
            assert machine.ask(SET, helpRequestId=request["id"], until=tomorrow).codes == ["NOT_FOUND"]
        granted = ada.data(SET, helpRequestId=request["id"], until=tomorrow)["setLogAccess"]["helpRequest"]
        assert granted["logAccessUntil"] == tomorrow
        assert api.rooms.help.may_read_log(account.id) is not None
        ended = ada.data(SET, helpRequestId=request["id"], until=None)["setLogAccess"]["helpRequest"]
        assert ended["logAccessUntil"] is None
        assert api.rooms.help.may_read_log(account.id) is None
        # An instant is over, even the first of all; it is not the word for "at once".
        over = ada.data(SET, helpRequestId=request["id"], until="1970-01-01T00:00:00Z")["setLogAccess"]
        assert over["errors"][0]["field"] == ["until"]


def test_a_request_is_nobody_elses(api: ServedApi) -> None:
    with signed_in(api) as (ada, _), signed_in(api, "bob@people.test") as (bob, _), api.client() as nobody:
        id = ask(ada, "My mail is late")["id"]
        assert bob.ask(REPLY, id=id, body="Me too").codes == ["NOT_FOUND"]
        assert bob.ask(SET, helpRequestId=id).codes == ["NOT_FOUND"]
        assert bob.data("query ($id: ID!) { node(id: $id) { id } }", id=id) == {"node": None}
        assert bob.ask(LIST).codes == ["FORBIDDEN"]
        assert nobody.ask(LIST).codes == ["UNAUTHENTICATED"]
        assert nobody.ask(ASK, subject="Help", body="me").codes == ["UNAUTHENTICATED"]
        assert nobody.ask(REPLY, id=id, body="Me too").codes == ["UNAUTHENTICATED"]
        found = ada.data("query ($id: ID!) { node(id: $id) { ... on HelpRequest { subject } } }", id=id)
        assert found == {"node": {"subject": "My mail is late"}}


def test_operators_page_through_the_requests_of_all(api: ServedApi) -> None:
    with signed_in(api) as (ada, _), signed_in(api, "bob@people.test") as (bob, _), api.operator() as machine:
        ids = [ask(who, subject)["id"] for who, subject in ((ada, "first"), (bob, "second"), (ada, "third"))]
        page = machine.data(LIST, first=2)["helpRequests"]
        assert [edge["node"]["subject"] for edge in page["edges"]] == ["third", "second"]
        assert (page["totalCount"], page["pageInfo"]["hasNextPage"]) == (3, True)
        machine.data(REPLY, id=ids[1], body="Done.", close=True)
        rest = machine.data(LIST, first=2, after=page["pageInfo"]["endCursor"])["helpRequests"]
        assert [edge["node"]["account"]["email"] for edge in rest["edges"]] == ["ada@people.test"]
        assert rest["pageInfo"]["hasNextPage"] is False
        for open, subjects in ((True, ["third", "first"]), (False, ["second"])):
            some = machine.data(LIST, open=open)["helpRequests"]
            assert [edge["node"]["subject"] for edge in some["edges"]] == subjects
            assert some["totalCount"] == len(subjects)


def test_an_account_sees_who_has_read_its_log(api: ServedApi) -> None:
    tomorrow = format_instant(api.rooms.clock() + DAY_MS)
    with signed_in(api) as (ada, account):
        id = ask(ada, "My mail is late", logAccessUntil=tomorrow)["id"]
        grant = api.rooms.help.may_read_log(account.id)
        assert grant is not None
        api.rooms.help.record_access(grant, "op@people.test", "messages of example.org")
        (access,) = ada.data(OWN)["viewer"]["logAccesses"]
        assert (access["operator"], access["query"]) == ("op@people.test", "messages of example.org")
        assert access["helpRequest"] == {"id": id, "subject": "My mail is late"}


@pytest.mark.parametrize("id", ["", "nonsense", "QWNjb3VudDox", "x" * 1000])
def test_an_id_of_nothing_is_not_found(api: ServedApi, id: str) -> None:
    with signed_in(api) as (ada, _):
        assert ada.ask(REPLY, id=id, body="Hello?").codes == ["NOT_FOUND"]
