"""Clients by others, and what they find: the packages of npm that everybody else tests with, too."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from served_api import ServedApi

from appliance.model.access import Scope
from appliance.version import version

PEERS = Path(__file__).resolve().parents[1] / "peers"
PEER_S = 60


def peer(script: str, *arguments: str) -> dict[str, object]:
    """Run a script of `tests/peers`, and return the document that it prints."""
    if shutil.which("node") is None or not (PEERS / "node_modules").is_dir():
        pytest.skip("Node.js or its packages are missing: run tests/install-peers")
    done = subprocess.run(
        ["node", script, *arguments], cwd=PEERS, capture_output=True, text=True, timeout=PEER_S, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def test_graphql_http_finds_nothing_wrong(api: ServedApi) -> None:
    found = peer("audit.mjs", f"http://127.0.0.1:{api.port}/graphql")
    assert found["failed"] == []
    assert found["audits"] == 60


def test_graphql_ws_speaks_with_us(api: ServedApi) -> None:
    account = api.rooms.accounts.add("owner@people.test")
    secret, _ = api.rooms.entrance.api_tokens.create(account, "test", [Scope.READ, Scope.WRITE, Scope.LOGS], None)
    seen = peer("websocket.mjs", f"ws://127.0.0.1:{api.port}/graphql", f"Bearer {secret}")
    assert seen["query"] == [{"data": {"status": {"version": version()}, "node": None}}]
    assert seen["mutation"] == [{"data": {"addDomain": {"domain": {"name": "example.org"}, "errors": []}}}]
    assert seen["invalid"] == {"errors": ["BAD_USER_INPUT"]}
    assert seen["together"] == 20
    assert seen["givenUp"] is True
    assert seen["pongs"]
    assert seen["closed"] == 1000


def test_graphql_ws_is_told_that_its_token_is_no_good(api: ServedApi) -> None:
    seen = peer("refused.mjs", f"ws://127.0.0.1:{api.port}/graphql", "Bearer nonsense")
    assert seen == {"code": 4403, "reason": "This token is unknown, or its time is over."}
