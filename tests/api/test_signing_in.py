"""Sessions, second factors, tokens and accounts over the API."""

import json
import re
from contextlib import closing
from http.client import HTTPConnection
from typing import Any

import pyotp
from control_api.operation_files import operation
from graphql_client import TIMEOUT_S, GraphqlClient
from served_api import ServedApi
from signed_in import PASSWORD, signed_in

from appliance.model.account import Role

ADA = "ada@people.test"
NEW = "another password"

SIGN_IN = operation("sign_in")
SIGN_OUT = operation("sign_out")
CHANGE = operation("change_password")
VIEWER = operation("show_account")
SESSIONS = operation("list_sessions")
END = operation("end_session")
CREATE = operation("create_api_token")
TOKENS = operation("list_api_tokens")
REVOKE = operation("revoke_api_token")
ENABLE = operation("enable_two_factor")
CONFIRM = operation("confirm_two_factor")
DISABLE = operation("disable_two_factor")
ACCOUNTS = operation("list_accounts")
GIVE = operation("set_plan")
RESET_ASKED = operation("request_password_reset")
RESET = "resetPassword(token: $t, newPassword: $p)"


def sign_in(client: GraphqlClient, code: str | None = None, password: str = PASSWORD) -> list[str]:
    """The codes of what is wrong with it."""
    answer = client.data(SIGN_IN, email=ADA, password=password, oneTimeCode=code)["signIn"]
    return [error["code"] for error in answer["errors"]]


def wrong(payload: dict[str, Any]) -> list[tuple[str, list[str] | None]]:
    """The code and the field of each error."""
    return [(error["code"], error["field"]) for error in payload["errors"]]


def is_signed_in(client: GraphqlClient) -> bool:
    return client.data("{ viewer { id } }")["viewer"] is not None


def test_no_fixed_session_survives_signing_in(api: ServedApi) -> None:
    with signed_in(api) as (browser, _), api.client() as attacker:
        before = browser.cookies["onward_session"]
        # As somebody does who has put a session of their own into another's browser, and waits.
        attacker.cookies["onward_session"] = before
        assert sign_in(browser) == []
        assert browser.cookies["onward_session"] != before
        assert is_signed_in(browser)
        assert not is_signed_in(attacker)
        attacker.cookies["onward_session"] = "chosen by somebody"
        sign_in(attacker)
        assert attacker.cookies["onward_session"] != "chosen by somebody"


def test_a_session_of_somebody_else_ends_when_the_browser_signs_in_to_another_account(api: ServedApi) -> None:
    with signed_in(api, "bob@people.test") as (browser, _), signed_in(api):
        bobs = browser.cookies["onward_session"]
        sign_in(browser)
        assert browser.data(VIEWER)["viewer"]["email"] == ADA
        with api.client() as other:
            other.cookies["onward_session"] = bobs
            assert not is_signed_in(other)


def test_signing_out_ends_the_session_on_the_server(api: ServedApi) -> None:
    with signed_in(api) as (browser, _), api.client() as copy:
        copy.cookies.update(browser.cookies)
        reply = browser.ask(SIGN_OUT)
        assert reply.json["data"] == {"signOut": {"errors": []}}
        assert "onward_session" not in browser.cookies
        assert "onward_device" in browser.cookies, "it lets nobody in, and is of use at the next sign-in"
        assert not is_signed_in(copy)
        assert browser.data(SIGN_OUT)["signOut"] == {"errors": []}


def test_cookies_are_out_of_reach_of_scripts_and_of_other_sites(api: ServedApi) -> None:
    asked = json.dumps({"query": SIGN_IN, "variables": {"email": ADA, "password": PASSWORD}})
    with signed_in(api), closing(HTTPConnection("127.0.0.1", api.port, timeout=TIMEOUT_S)) as connection:
        connection.request("POST", "/graphql", asked, {"content-type": "application/json"})
        cookies = connection.getresponse().headers.get_all("set-cookie") or []
    assert [cookie.partition("=")[0] for cookie in cookies] == ["onward_session", "onward_device"]
    assert all("HttpOnly" in cookie and "SameSite=Lax" in cookie for cookie in cookies)


def test_sessions_are_listed_and_ended(api: ServedApi) -> None:
    with signed_in(api) as (browser, _), api.client() as other:
        sign_in(other)
        listed = browser.data(SESSIONS)["viewer"]["sessions"]
        assert sorted(session["current"] for session in listed) == [False, True]
        (theirs,) = (session["id"] for session in listed if not session["current"])
        assert browser.data("query ($id: ID!) { node(id: $id) { id } }", id=theirs)["node"] == {"id": theirs}
        assert browser.data(END, id=theirs)["endSession"] == {"errors": []}
        assert not is_signed_in(other)
        assert browser.ask(END, id=theirs).codes == ["NOT_FOUND"]
        assert len(browser.data(SESSIONS)["viewer"]["sessions"]) == 1


def test_nobody_sees_or_ends_what_is_somebody_elses(api: ServedApi) -> None:
    with signed_in(api) as (browser, account), signed_in(api, "bob@people.test") as (other, _):
        session = browser.data(SESSIONS)["viewer"]["sessions"][0]["id"]
        token = browser.data(CREATE, name="backup", scopes=["READ"])["createApiToken"]["apiToken"]["id"]
        whose = browser.data("{ viewer { id } }")["viewer"]["id"]
        for id in (session, token, whose):
            assert other.data("query ($id: ID!) { node(id: $id) { id } }", id=id)["node"] is None
            assert browser.data("query ($id: ID!) { node(id: $id) { id } }", id=id)["node"] == {"id": id}
        assert other.ask(END, id=session).codes == ["NOT_FOUND"]
        assert other.ask(REVOKE, id=token).codes == ["NOT_FOUND"]
        assert is_signed_in(browser)
        assert len(api.rooms.entrance.api_tokens.of(account.id)) == 1


def test_changing_the_password_ends_all_other_sessions(api: ServedApi) -> None:
    with signed_in(api) as (browser, _), api.client() as other:
        sign_in(other)
        refused = browser.data(CHANGE, currentPassword="wrong password", newPassword=NEW)["changePassword"]
        assert wrong(refused) == [("WRONG_PASSWORD", ["currentPassword"])]
        assert browser.data(CHANGE, currentPassword=PASSWORD, newPassword=NEW)["changePassword"] == {"errors": []}
        assert (is_signed_in(browser), is_signed_in(other)) == (True, False)
        assert sign_in(other) == ["WRONG_CREDENTIALS"]
        assert sign_in(other, password=NEW) == []


def test_a_second_factor_from_its_enrolment_to_its_end(api: ServedApi) -> None:
    with signed_in(api) as (browser, _), api.client() as other:
        enrolment = browser.data(ENABLE, password=PASSWORD)["enableTwoFactor"]
        app = pyotp.parse_uri(enrolment["otpauthUrl"])
        assert isinstance(app, pyotp.TOTP)
        now = api.rooms.clock() // 1000
        assert browser.data(VIEWER)["viewer"]["twoFactorEnabled"] is False
        refused = browser.data(CONFIRM, oneTimeCode="12345")["confirmTwoFactor"]
        assert wrong(refused) == [("WRONG_ONE_TIME_CODE", ["oneTimeCode"])]
        assert browser.data(CONFIRM, oneTimeCode=app.at(now))["confirmTwoFactor"] == {"errors": []}
        assert browser.data(VIEWER)["viewer"]["twoFactorEnabled"] is True
        assert sign_in(other) == ["ONE_TIME_CODE_REQUIRED"]
        assert not is_signed_in(other)
        assert sign_in(other, app.at(now)) == ["WRONG_ONE_TIME_CODE"], "it has confirmed already"
        assert sign_in(other, app.at(now + 30)) == []
        first, second, *_ = enrolment["recoveryCodes"]
        assert sign_in(other, first) == []
        assert sign_in(other, first) == ["WRONG_ONE_TIME_CODE"]
        assert browser.data(DISABLE, password=PASSWORD, oneTimeCode=second)["disableTwoFactor"] == {"errors": []}
        assert sign_in(other) == []


BEHIND = "account { email domains { totalCount } helpRequests { body } }"


def test_a_mailed_link_shows_nothing_that_the_second_factor_keeps(api: ServedApi) -> None:
    with signed_in(api) as (browser, _), api.client() as thief:
        app = pyotp.parse_uri(browser.data(ENABLE, password=PASSWORD)["enableTwoFactor"]["otpauthUrl"])
        assert isinstance(app, pyotp.TOTP)
        browser.data(CONFIRM, oneTimeCode=app.at(api.rooms.clock() // 1000))
        thief.data(RESET_ASKED, email=ADA)
        found = re.search(r"token=(\S+)", api.letters.sent[-1].text)
        assert found is not None
        reply = thief.ask(f"mutation ($t: String!, $p: String!) {{ {RESET} {{ {BEHIND} }} }}", t=found[1], p=NEW)
        assert set(reply.codes) == {"UNAUTHENTICATED"}
        assert reply.json["data"]["resetPassword"]["account"] is None
        assert sign_in(thief, password=NEW) == ["ONE_TIME_CODE_REQUIRED"]


def test_who_has_just_signed_in_sees_what_the_account_has(api: ServedApi) -> None:
    with signed_in(api), api.client() as browser:
        asked = f"mutation ($e: String!, $p: String!) {{ signIn(email: $e, password: $p) {{ {BEHIND} }} }}"
        account = browser.data(asked, e=ADA, p=PASSWORD)["signIn"]["account"]
        assert account == {"email": ADA, "domains": {"totalCount": 0}, "helpRequests": []}


def test_a_token_that_may_only_write_reads_nothing_by_the_way(api: ServedApi) -> None:
    with signed_in(api) as (browser, _):
        secret = browser.data(CREATE, name="writer", scopes=["WRITE"])["createApiToken"]["secret"]
        with api.client(token=secret) as program:
            for asked in (
                'askForHelp(subject: "s", body: "b") { helpRequest { subject account { email } } }',
                'addDomain(name: "ada.example") { domain { name aliases { totalCount } } }',
            ):
                assert program.ask(f"mutation {{ {asked} }}").codes == ["FORBIDDEN"]


def test_a_program_comes_in_with_a_token_as_far_as_its_scopes_reach(api: ServedApi) -> None:
    with signed_in(api) as (browser, _):
        made = browser.data(CREATE, name="backup", scopes=["READ"], expiresAt="2100-01-01T00:00:00.000Z")[
            "createApiToken"
        ]
        assert made["errors"] == []
        assert made["apiToken"]["scopes"] == ["READ"]
        with api.client(token=made["secret"]) as program:
            assert program.data(VIEWER)["viewer"]["email"] == ADA
            assert program.ask(CREATE, name="more", scopes=["WRITE"]).codes == ["FORBIDDEN"]
            assert program.ask(REVOKE, id=made["apiToken"]["id"]).codes == ["FORBIDDEN"]
            assert program.ask(CHANGE, currentPassword=PASSWORD, newPassword=NEW).codes == ["FORBIDDEN"]
            (listed,) = browser.data(TOKENS)["viewer"]["apiTokens"]
            assert listed["lastUsedAt"] is not None
            assert browser.data(REVOKE, id=listed["id"])["revokeApiToken"] == {"errors": []}
            assert program.ask(VIEWER).codes == ["UNAUTHENTICATED"]


def test_a_token_that_may_write_makes_no_other_and_revokes_itself(api: ServedApi) -> None:
    with signed_in(api) as (browser, _):
        made = browser.data(CREATE, name="writer", scopes=["READ", "WRITE"])["createApiToken"]
        with api.client(token=made["secret"]) as program:
            assert program.ask(CREATE, name="more", scopes=["LOGS"]).codes == ["FORBIDDEN"]
            assert program.data(REVOKE, id=made["apiToken"]["id"])["revokeApiToken"] == {"errors": []}
            assert program.ask(VIEWER).codes == ["UNAUTHENTICATED"]


def test_a_member_has_no_token_that_operates(api: ServedApi) -> None:
    with signed_in(api) as (browser, _):
        made = browser.data(CREATE, name="steer", scopes=["OPERATE"])["createApiToken"]
    assert (made["apiToken"], made["secret"]) == (None, None)
    assert wrong(made) == [("FORBIDDEN", ["scopes"])]


def test_after_too_many_wrong_passwords_it_is_said_when_to_come_back(api: ServedApi) -> None:
    with signed_in(api) as (browser, _), api.client() as client:
        for _ in range(5):
            assert sign_in(client, password="wrong password") == ["WRONG_CREDENTIALS"]
        reply = client.ask(SIGN_IN, email=ADA, password=PASSWORD)
        assert reply.codes == ["RATE_LIMITED"]
        assert reply.json["errors"][0]["extensions"]["retryAfterSeconds"] == 900
        # The browser that has been here before shares the address, and is not locked out.
        browser.data(SIGN_OUT)
        assert sign_in(browser) == []


def test_operators_see_accounts_page_by_page_and_members_none(api: ServedApi) -> None:
    with signed_in(api, "op@people.test", Role.OPERATOR) as (operator, _), signed_in(api) as (member, _):
        for number in range(5):
            api.rooms.accounts.add(f"m{number}@people.test")
        assert member.ask(ACCOUNTS).codes == ["FORBIDDEN"]
        seen: list[str] = []
        after = None
        while True:
            page = operator.data(ACCOUNTS, first=2, after=after, search="M")["accounts"]
            assert page["totalCount"] == 5
            seen += [edge["node"]["email"] for edge in page["edges"]]
            if not page["pageInfo"]["hasNextPage"]:
                break
            after = page["pageInfo"]["endCursor"]
        assert seen == [f"m{number}@people.test" for number in range(5)]
        assert operator.data(ACCOUNTS)["accounts"]["totalCount"] == 7
        with api.operator() as local:
            assert local.data(ACCOUNTS)["accounts"]["totalCount"] == 7
            assert local.data(VIEWER)["viewer"] is None


def test_an_operator_gives_another_plan_and_sees_no_tokens_of_others(api: ServedApi) -> None:
    with signed_in(api, "op@people.test", Role.OPERATOR) as (operator, _), signed_in(api) as (member, _):
        whose = member.data("{ viewer { id } }")["viewer"]["id"]
        assert member.ask(GIVE, accountId=whose, plan="premium").codes == ["FORBIDDEN"]
        given = operator.data(GIVE, accountId=whose, plan="premium")["setPlan"]
        assert given["errors"] == []
        assert given["account"]["plan"] == {"name": "premium"}
        plan = member.data(VIEWER)["viewer"]["plan"]
        assert (plan["name"], plan["maxDomains"], plan["priority"]) == ("premium", 100, 10)
        assert operator.data(GIVE, accountId=whose, plan="gold")["setPlan"]["errors"][0]["field"] == ["plan"]
        nobody = operator.data("{ viewer { id } }")["viewer"]["id"][:-4] + "AAAA"
        assert operator.ask(GIVE, accountId=nobody, plan="premium").codes == ["NOT_FOUND"]
        for field in ("sessions { id }", "apiTokens { id }"):
            asked = f"query ($id: ID!) {{ node(id: $id) {{ ... on Account {{ email {field} }} }} }}"
            assert operator.ask(asked, id=whose).codes == ["FORBIDDEN"]
            assert member.data(asked, id=whose)["node"]["email"] == ADA
