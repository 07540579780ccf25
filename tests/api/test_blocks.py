"""Blocks over the API: for operators alone."""

from control_api.operation_files import operation
from served_api import ServedApi
from signed_in import signed_in

from appliance.model.account import Role

CREATE = operation("create_block")
DELETE = operation("delete_block")
LIST = operation("list_blocks")
SPAM = "It sends spam."


def test_an_operator_blocks_lists_and_lets_in_again(api: ServedApi) -> None:
    with signed_in(api, "op@people.test", Role.OPERATOR) as (operator, _):
        made = operator.data(
            CREATE, kind="SENDER_DOMAIN", value="News.Example", reason=SPAM, expiresAt="2099-01-01T00:00:00Z"
        )
        block = made["createBlock"]["block"]
        assert (block["kind"], block["value"], block["reason"]) == ("SENDER_DOMAIN", "news.example", SPAM)
        assert block["expiresAt"] == "2099-01-01T00:00:00.000Z"
        operator.data(CREATE, kind="CLIENT_ADDRESS", value="192.0.2.0/24", reason=SPAM)
        page = operator.data(LIST, first=1)["blocks"]
        assert (page["totalCount"], [edge["node"]["value"] for edge in page["edges"]]) == (2, ["192.0.2.0/24"])
        rest = operator.data(LIST, first=1, after=page["pageInfo"]["endCursor"])["blocks"]["edges"]
        assert [edge["node"] for edge in rest] == [block]
        found = operator.data("query ($id: ID!) { node(id: $id) { ... on Block { value } } }", id=block["id"])
        assert found == {"node": {"value": "news.example"}}
        assert operator.data(DELETE, id=block["id"]) == {"deleteBlock": {"errors": []}}
        assert operator.ask(DELETE, id=block["id"]).codes == ["NOT_FOUND"]


def test_what_is_no_value_of_its_kind_is_told_with_its_field(api: ServedApi) -> None:
    with api.operator() as machine:
        answer = machine.data(CREATE, kind="CLIENT_ADDRESS", value="0.0.0.0/0", reason=SPAM)["createBlock"]
        assert (answer["block"], answer["errors"][0]["field"]) == (None, ["value"])
        assert machine.ask(CREATE, kind="EVERYBODY", value="x", reason=SPAM).codes == ["BAD_USER_INPUT"]


def test_nobody_else_blocks_or_sees_who_is(api: ServedApi) -> None:
    with signed_in(api) as (ada, _), api.client() as nobody, api.operator() as machine:
        id = machine.data(CREATE, kind="SENDER", value="a@news.example", reason=SPAM)["createBlock"]["block"]["id"]
        for who, code in ((ada, "FORBIDDEN"), (nobody, "UNAUTHENTICATED")):
            assert who.ask(CREATE, kind="SENDER", value="b@news.example", reason=SPAM).codes == [code]
            assert who.ask(DELETE, id=id).codes == [code]
            assert who.ask(LIST).codes == [code]
        assert ada.data("query ($id: ID!) { node(id: $id) { id } }", id=id) == {"node": None}
