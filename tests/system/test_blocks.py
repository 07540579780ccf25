"""Blocks act on the running appliance: on sessions that are open, and within a second."""

from collections.abc import Iterator

import pytest
from appliance_process import eventually
from control_api.operation_files import operation
from graphql_client import GraphqlClient
from world import World

from appliance.configuration import CONTROL_SOCKET

CREATE = operation("create_block")
DELETE = operation("delete_block")
WITHIN = 1.0
"""Seconds."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("blocks"), {"owner@forward.test": ["owner.box@dest.test"]}) as world:
        yield world
        assert world.objections() == []


@pytest.mark.parametrize(
    ("kind", "value", "word"),
    [
        ("SENDER", "Spammer@News.test", "sender-blocked"),
        ("SENDER_DOMAIN", "news.test", "sender-blocked"),
        ("CLIENT_ADDRESS", "127.0.0.0/8", "client-blocked"),
        ("CLIENT_NAME", "example.net", "client-blocked"),
    ],
)
def test_a_block_acts_on_the_next_mail_of_an_open_session(world: World, kind: str, value: str, word: str) -> None:
    with GraphqlClient(world.appliance.data_dir / CONTROL_SOCKET) as machine, world.appliance.client() as stranger:

        def answer(sender: str = "spammer@news.test") -> tuple[int, str]:
            reply = stranger.command(f"MAIL FROM:<{sender}>")
            if reply.code == 250:
                stranger.command("RSET")
            return reply.code, reply.text

        assert answer()[0] == 250
        id = machine.data(CREATE, kind=kind, value=value, reason="It sends spam.")["createBlock"]["block"]["id"]
        eventually(lambda: answer()[0] == 550, WITHIN, "the block in force")
        code, text = answer()
        assert (code, text.startswith("5.7.1 "), word in text) == (550, True, True)
        assert answer("ann@sender.test")[0] == (550 if kind.startswith("CLIENT") else 250)
        machine.data(DELETE, id=id)
        eventually(lambda: answer()[0] == 250, WITHIN, "the block lifted")
