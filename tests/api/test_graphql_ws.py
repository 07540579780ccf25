"""GraphQL over a websocket: the protocol graphql-transport-ws, and what becomes of those who do not keep to it."""

import pytest
import trio
from control_api import graphql_ws
from served_api import ServedApi, served_api
from signed_in import signed_in
from websocket_client import PROTOCOL, UPGRADE, masked, websocket

from appliance.configuration import Configuration
from appliance.model.access import Scope

STATUS = "{ status { version } }"


async def test_a_query_is_answered_and_completed(api: ServedApi) -> None:
    async with websocket(api.port) as client:
        await client.introduce()
        assert client.connection.subprotocol == PROTOCOL
        assert set((await client.answer_to(STATUS))["data"]["status"]) == {"version"}
        # And another one, by the same id.
        assert "data" in await client.answer_to(STATUS)


async def test_a_ping_is_answered_with_its_payload(api: ServedApi) -> None:
    async with websocket(api.port) as client:
        await client.say(type="ping", payload={"n": 1})
        assert await client.hear() == {"type": "pong", "payload": {"n": 1}}
        await client.introduce()
        await client.say(type="ping")
        assert await client.hear() == {"type": "pong"}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{", "BAD_USER_INPUT"),
        ("{ nothing }", "BAD_USER_INPUT"),
        ("query ($id: ID!) { node(id: $id) { id } }", "BAD_USER_INPUT"),
        ("{ __schema { types { name } } }", "UNAUTHENTICATED"),
        ("{ " + "a: status { version } " * 600 + "}", "TOO_COMPLEX"),
        ("subscription { deliveryEvents { id } }", "UNAUTHENTICATED"),
    ],
)
async def test_what_cannot_be_executed_is_an_error_and_the_connection_stays(
    api: ServedApi, query: str, code: str
) -> None:
    async with websocket(api.port) as client:
        await client.introduce()
        await client.subscribe("1", query)
        answer = await client.hear()
        assert (answer["id"], answer["type"]) == ("1", "error")
        assert answer["payload"][0]["extensions"]["code"] == code
        assert "data" in await client.answer_to(STATUS)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("nonsense", 4400),
        ("[]", 4400),
        ('{"type":"what"}', 4400),
        ('{"type":"subscribe","id":"1"}', 4400),
        ('{"type":"subscribe","id":"","payload":{"query":"{status{version}}"}}', 4400),
        ('{"type":"connection_init","payload":7}', 4400),
        ('{"type":"subscribe","id":"1","payload":{"query":"{status{version}}"}}', 4401),
        ('{"type":"connection_init","payload":{"authorization":"Bearer nonsense"}}', 4403),
        ('{"type":"connection_init","payload":{"Authorization":"Basic eDp5"}}', 4403),
        ("x" * 100_000, 1009),
    ],
)
async def test_who_does_not_keep_to_the_protocol_is_closed_with_its_code(api: ServedApi, said: str, code: int) -> None:
    async with websocket(api.port) as client:
        await client.connection.send_message(said)
        assert (await client.closed())[0] == code


async def test_what_is_not_text_is_closed(api: ServedApi) -> None:
    async with websocket(api.port) as client:
        await client.connection.send_message(b'{"type":"connection_init"}')
        assert (await client.closed())[0] == 4400


async def test_a_second_introduction_is_closed(api: ServedApi) -> None:
    async with websocket(api.port) as client:
        await client.introduce()
        await client.say(type="connection_init")
        assert (await client.closed())[0] == 4429


async def test_who_does_not_introduce_itself_is_closed(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphql_ws, "INIT_S", 0.05)
    async with websocket(api.port) as client:
        assert await client.closed() == (4408, "Connection initialisation timeout")


async def test_who_only_pings_does_not_stay_uninvited(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphql_ws, "INIT_S", 0.05)
    async with websocket(api.port) as client:
        await client.say(type="ping")
        assert (await client.closed())[0] == 4408


async def test_a_connection_on_which_nothing_is_under_way_ends_and_one_that_follows_does_not(
    api: ServedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphql_ws, "IDLE_S", 0.1)
    async with websocket(api.port) as idle, websocket(api.port) as follower:
        await follower.introduce({"authorization": await token(api)})
        await follower.subscribe("1", "subscription { deliveryEvents { id } }")
        await idle.introduce()
        assert (await idle.closed())[0] == 1000
        assert "data" in await follower.answer_to(STATUS)
        await follower.say(id="1", type="complete")
        assert (await follower.closed())[0] == 1000


async def test_an_id_under_way_is_not_taken_again(api: ServedApi) -> None:
    async with websocket(api.port) as client:
        await client.introduce({"authorization": await token(api)})
        await client.subscribe("1", "subscription { deliveryEvents { id } }")
        await client.subscribe("1", STATUS)
        assert (await client.closed())[0] == 4409


async def test_a_completed_subscription_is_silent_and_its_id_free(api: ServedApi) -> None:
    async with websocket(api.port) as client:
        await client.introduce({"authorization": await token(api)})
        await client.subscribe("an answer", "subscription { deliveryEvents { id } }")
        await client.say(id="an answer", type="complete")
        assert "data" in await client.answer_to(STATUS)


async def test_operations_at_once_are_limited(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphql_ws, "OPERATIONS", 2)
    async with websocket(api.port) as client:
        await client.introduce({"authorization": await token(api)})
        for id in ("1", "2", "3"):
            await client.subscribe(id, "subscription { deliveryEvents { id } }")
        answer = await client.hear()
        assert (answer["id"], answer["payload"][0]["extensions"]["code"]) == ("3", "RATE_LIMITED")
        await client.say(id="1", type="complete")
        assert "data" in await client.answer_to(STATUS)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://evil.example:8025"])
async def test_the_page_of_another_site_gets_no_websocket(api: ServedApi, origin: str) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", api.port) as stream:
        await stream.send_all(UPGRADE.replace(b"Host: x", b"Host: x\r\nOrigin: " + origin.encode()))
        with trio.fail_after(20):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8025", "http://127.0.0.1:{port}"])
async def test_an_own_page_gets_a_websocket(api: ServedApi, origin: str) -> None:
    async with websocket(api.port, headers=[("origin", origin.format(port=api.port))]) as client:
        await client.introduce()


async def test_another_subprotocol_is_closed(api: ServedApi) -> None:
    async with websocket(api.port, protocols=["graphql-ws"]) as client:
        assert (await client.closed())[0] == 4406


async def test_a_mutation_that_sets_a_cookie_is_refused(api: ServedApi) -> None:
    async with websocket(api.port) as client:
        await client.introduce()
        answer = await client.answer_to('mutation { signIn(email: "a@b.test", password: "x") { errors { code } } }')
        assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


async def test_a_token_that_is_revoked_is_closed(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphql_ws, "STILL_KNOWN_S", 0.05)
    async with websocket(api.port) as client:
        await client.introduce({"authorization": await token(api)})
        assert (await client.answer_to("{ viewer { email } }"))["data"]["viewer"]["email"] == "owner@people.test"
        await trio.to_thread.run_sync(revoke, api)
        assert (await client.closed())[0] == 4403


async def test_a_session_is_known_by_its_cookie_until_it_ends(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphql_ws, "STILL_KNOWN_S", 0.05)
    with signed_in(api) as (browser, _):
        cookie = f"onward_session={browser.cookies['onward_session']}"
        async with websocket(api.port, headers=[("cookie", cookie)]) as client:
            await client.introduce()
            assert (await client.answer_to("{ viewer { email } }"))["data"]["viewer"]["email"] == "ada@people.test"
            await trio.to_thread.run_sync(browser.data, "mutation { signOut { errors { code } } }")
            assert (await client.closed())[0] == 4403


async def test_the_stop_of_the_appliance_is_told(config: Configuration) -> None:
    closed: list[int] = []

    async def follow(port: int, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with websocket(port) as client:
            await client.introduce()
            task_status.started()
            closed.append((await client.closed())[0])

    async with trio.open_nursery() as nursery:
        served = served_api(config)
        api = await trio.to_thread.run_sync(served.__enter__)
        await nursery.start(follow, api.port)
        await trio.to_thread.run_sync(served.__exit__, None, None, None)
    assert closed == [1001]


async def test_a_reader_who_is_too_slow_is_told_and_closed(api: ServedApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphql_ws, "WAITING_MESSAGES", 1)
    monkeypatch.setattr(graphql_ws, "SLOW_S", 0.2)
    async with await trio.open_tcp_stream("127.0.0.1", api.port) as stream:
        await stream.send_all(UPGRADE)
        assert b" 101 " in await stream.receive_some()
        await stream.send_all(masked({"type": "connection_init"}))
        ping = masked({"type": "ping", "payload": {"x": "y" * 50_000}})
        with trio.move_on_after(3):
            # It asks and asks, and reads nothing: in the end nothing is taken from it either.
            for _ in range(1000):
                await stream.send_all(ping)
        heard = bytearray()
        with trio.fail_after(20):
            try:
                while octets := await stream.receive_some():
                    heard += octets
            except trio.BrokenResourceError:
                pass
    assert len(heard) < 50_000_000
    assert (1008).to_bytes(2, "big") + b"You read too slowly" in heard


LONG = "x" * 50_000


@pytest.mark.parametrize("asks", ["a pong", "an answer"])
async def test_who_asks_and_does_not_read_is_not_heard_for_long(api: ServedApi, asks: str) -> None:
    with trio.socket.socket() as client:
        for buffer in (trio.socket.SO_RCVBUF, trio.socket.SO_SNDBUF):
            client.setsockopt(trio.socket.SOL_SOCKET, buffer, 4096)
        await client.connect(("127.0.0.1", api.port))
        stream = trio.SocketStream(client)
        await stream.send_all(UPGRADE)
        assert b" 101 " in await stream.receive_some()
        await stream.send_all(masked({"type": "connection_init"}))
        taken = 0
        with trio.move_on_after(5):
            while taken < 1000:
                query = "{" + " ".join(f"a{n}: privacyPolicy {{ text }}" for n in range(20)) + "} #" + LONG
                question = {"type": "subscribe", "id": str(taken), "payload": {"query": query}}
                ping = {"type": "ping", "payload": LONG}
                await stream.send_all(masked(ping if asks == "a pong" else question))
                taken += 1
    # What the kernel keeps between the two sockets is not ours to bound: up to ten megabytes (tcp_rmem, tcp_wmem).
    assert taken < 250, "what was heard is kept until its answer is read"


async def token(api: ServedApi) -> str:
    """The header of a token of a member."""
    return f"Bearer {await trio.to_thread.run_sync(made, api)}"


def made(api: ServedApi) -> str:
    account = api.rooms.accounts.add("owner@people.test")
    secret, _ = api.rooms.entrance.api_tokens.create(account, "test", [Scope.READ, Scope.LOGS], None)
    return secret


def revoke(api: ServedApi) -> None:
    account = api.rooms.accounts.of("owner@people.test")
    (one,) = api.rooms.entrance.api_tokens.of(account.id)
    assert api.rooms.entrance.api_tokens.revoke(account.id, one.id)
