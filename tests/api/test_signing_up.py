"""Signing up and setting a new password over the API, as people do it: by the letters that they get."""

import re

import pytest
from control_api.operation_files import operation
from graphql_client import GraphqlClient
from served_api import ServedApi
from signed_in import PASSWORD, signed_in

from appliance.access.letters import PER_NETWORK

ADA = "ada@people.test"

SIGN_UP = operation("sign_up")
VERIFY = operation("verify_email")
SIGN_IN = operation("sign_in")
ASK = operation("request_password_reset")
RESET = operation("reset_password")
VIEWER = "{ viewer { email } }"


def token(api: ServedApi) -> str:
    """What stands in the link of the last letter."""
    found = re.search(r"token=(\S+)", api.letters.sent[-1].text)
    assert found is not None
    return found[1]


def viewer(client: GraphqlClient) -> str | None:
    account = client.data(VIEWER)["viewer"]
    return None if account is None else str(account["email"])


def test_from_the_first_visit_to_the_first_session(api: ServedApi) -> None:
    with api.client() as client:
        answer = client.data(SIGN_UP, email=ADA, password=PASSWORD)["signUp"]
        assert answer == {"errors": []}
        assert [letter.recipient for letter in api.letters.sent] == [ADA]
        answer = client.data(SIGN_IN, email=ADA, password=PASSWORD)["signIn"]
        assert answer["account"] is None
        assert [(error["code"], error["field"]) for error in answer["errors"]] == [("WRONG_CREDENTIALS", None)]
        answer = client.data(VERIFY, token=token(api))["verifyEmail"]
        assert answer["errors"] == []
        assert (answer["account"]["email"], answer["account"]["emailVerified"]) == (ADA, True)
        assert viewer(client) is None
        answer = client.data(SIGN_IN, email=ADA, password=PASSWORD)["signIn"]
        assert answer["account"]["email"] == ADA
        assert viewer(client) == ADA


def test_known_and_unknown_addresses_get_the_same_answers(api: ServedApi) -> None:
    answers = []
    with signed_in(api), api.client() as client:
        asked = (
            "mutation ($e: String!, $p: String!) { signUp(email: $e, password: $p) { account { id } errors { code } } }"
        )
        for email in (ADA, "nobody@people.test"):
            answers.append(
                [
                    client.ask(asked, e=email, p=PASSWORD).body,
                    client.ask(ASK, email=email).body,
                    client.ask(SIGN_IN, email=email, password="wrong password").body,
                ]
            )
    assert answers[0] == answers[1]


def test_a_reset_ends_all_other_sessions(api: ServedApi) -> None:
    with signed_in(api) as (browser, account), api.client() as other, api.client() as stranger:
        other.data(SIGN_IN, email=ADA, password=PASSWORD)
        assert (viewer(browser), viewer(other)) == (ADA, ADA)
        stranger.data(ASK, email=ADA)
        refused = stranger.data(RESET, token=token(api), newPassword="short")["resetPassword"]
        assert refused["account"] is None
        assert [(error["code"], error["field"]) for error in refused["errors"]] == [("REFUSED", ["newPassword"])]
        done = stranger.data(RESET, token=token(api), newPassword="another password")["resetPassword"]
        assert done["errors"] == []
        assert done["account"]["email"] == account.email
        assert (viewer(browser), viewer(other), viewer(stranger)) == (None, None, None)
        assert stranger.data(SIGN_IN, email=ADA, password="another password")["signIn"]["errors"] == []
        assert viewer(stranger) == ADA


def test_a_reset_by_who_is_signed_in_leaves_that_session(api: ServedApi) -> None:
    with signed_in(api) as (browser, _), api.client() as other:
        other.data(SIGN_IN, email=ADA, password=PASSWORD)
        browser.data(ASK, email=ADA)
        browser.data(RESET, token=token(api), newPassword="another password")
        assert (viewer(browser), viewer(other)) == (ADA, None)


@pytest.mark.parametrize("operation", [VERIFY, RESET])
def test_a_token_that_was_never_mailed_opens_nothing(api: ServedApi, operation: str) -> None:
    with api.client() as client:
        variables = {"token": "x" * 43} | ({"newPassword": "another password"} if operation is RESET else {})
        (answer,) = client.data(operation, **variables).values()
        assert answer["account"] is None
        assert answer["errors"][0]["code"] == "INVALID_TOKEN"


def test_who_asks_for_too_many_letters_is_told_when_to_come_back(api: ServedApi) -> None:
    with api.client() as client:
        for number in range(PER_NETWORK):
            client.data(ASK, email=f"a{number}@people.test")
        reply = client.ask(ASK, email=ADA)
    assert reply.codes == ["RATE_LIMITED"]
    assert reply.json["errors"][0]["extensions"]["retryAfterSeconds"] == 3600
