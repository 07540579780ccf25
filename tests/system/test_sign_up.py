"""Signing up at a running appliance: the letter goes through the queue to a mailbox, and its link lets somebody in."""

import email
import email.policy
import re
from pathlib import Path

from control_api.operation_files import operation
from destination import ReceivedMessage
from graphql_client import GraphqlClient
from world import World

NEW = "newcomer@dest.test"
PASSWORD = "correct horse"


def text_of(message: ReceivedMessage) -> str:
    """What a person reads."""
    parsed = email.message_from_bytes(message.content, policy=email.policy.default)
    body = parsed.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def token_in(message: ReceivedMessage) -> str:
    found = re.search(r"token=(\S+)", text_of(message))
    assert found is not None
    return found[1]


def test_from_the_first_visit_over_a_letter_to_a_session_and_a_new_password(tmp_path: Path) -> None:
    with World(tmp_path, {}) as world, GraphqlClient(world.appliance.http_port) as client:
        assert client.data(operation("sign_up"), email=NEW, password=PASSWORD)["signUp"] == {"errors": []}
        (verification,) = world.arrived(NEW)
        verified = client.data(operation("verify_email"), token=token_in(verification))["verifyEmail"]
        assert verified["account"]["email"] == NEW
        signed_in = client.data(operation("sign_in"), email=NEW, password=PASSWORD)["signIn"]
        assert signed_in["errors"] == []
        assert client.data(operation("show_account"))["viewer"]["email"] == NEW

        # Once more with the same address: the answer is the same, and only the letter tells.
        assert client.data(operation("sign_up"), email=NEW, password=PASSWORD)["signUp"] == {"errors": []}
        _, already = world.arrived(NEW, 2)
        assert "has an account already" in " ".join(text_of(already).split())

        reset = {"token": token_in(already), "newPassword": "another password"}
        assert client.data(operation("reset_password"), **reset)["resetPassword"]["errors"] == []
        refused = client.data(operation("sign_in"), email=NEW, password=PASSWORD)["signIn"]
        assert [error["code"] for error in refused["errors"]] == ["WRONG_CREDENTIALS"]
        world.arrived(NEW, 3)
        world.queue_is_empty()
        assert world.objections() == []
