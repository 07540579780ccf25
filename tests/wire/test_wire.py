"""The engine's socket, over a real socket: what a caller gets who asks well, asks badly, hangs up or does not read."""

import json
import socket
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from appliance import wire
from appliance.configuration import ENGINE_SOCKET
from appliance.wire import NotRunning, WireError

END = {"end": True}
"""The last line of an answer that is whole."""


@dataclass
class Desk:
    """A served socket, and the verbs behind it."""

    path: Path
    errors: list[str] = field(default_factory=list)
    """What was told to the log."""
    ended: Counter[str] = field(default_factory=Counter)
    """How often each verb has ended, whether to its end or before."""
    more: trio.Event = field(default_factory=trio.Event)
    """Set, it lets a stream go on."""

    def verbs(self) -> Mapping[str, wire.Verb]:
        plain: dict[str, wire.Verb] = {
            "echo": self._echo,
            "count": self._count,
            "refuse": self._refuse,
            "break": self._break,
            "stream": self._stream,
            "flood": self._flood,
        }
        return {name: partial(self._noticed, name, verb) for name, verb in plain.items()}

    async def _noticed(self, name: str, verb: wire.Verb, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        try:
            async with aclosing(verb(arguments)) as results:
                async for result in results:
                    yield result
        finally:
            self.ended[name] += 1

    async def _echo(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        yield dict(arguments)

    async def _count(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        for number in range(arguments["to"]):
            yield number

    async def _refuse(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        yield "first"
        raise WireError("not today")

    async def _break(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        yield "first"
        raise ZeroDivisionError("a defect")

    async def _stream(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        yield "begun"
        await self.more.wait()
        yield "more"
        await trio.sleep_forever()

    async def _flood(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any]:
        while True:
            yield "x" * 10_000

    async def ask(self, verb: str, **arguments: Any) -> list[Any]:
        """What the command line gets."""
        with trio.fail_after(20):
            return await trio.to_thread.run_sync(lambda: list(wire.call(self.path, verb, **arguments)))

    async def say(self, octets: bytes, *, hang_up: bool = False) -> list[Any]:
        """What somebody gets who writes these octets; with `hang_up` nothing more is to come behind them."""
        with trio.fail_after(20):
            async with await trio.open_unix_socket(self.path) as stream:
                try:
                    await stream.send_all(octets)
                except trio.BrokenResourceError:
                    pass  # the answer is there before all of it was said
                if hang_up:
                    await stream.send_eof()
                answer = b""
                while received := await stream.receive_some():
                    answer += received
                return [json.loads(line) for line in answer.splitlines()]


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path / ENGINE_SOCKET)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(desk.path))
        listening.listen(128)
        listening.setblocking(False)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.serve, listener, desk.verbs(), desk.errors.append)
            yield desk
            nursery.cancel_scope.cancel()


async def until(look: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not look():
            await trio.sleep(0.005)


# ---------------------------------------------------------------------- asking well


async def test_a_verb_is_given_its_arguments_and_its_results_come_one_by_one(tmp_path: Path) -> None:
    async with served(tmp_path) as desk:
        arguments = {"text": "Grüße\n\u2028\0", "number": 1, "none": None, "list": [1, 2]}
        assert await desk.ask("echo", **arguments) == [arguments]
        assert await desk.ask("count", to=3) == [0, 1, 2]
        assert await desk.ask("count", to=0) == []
        assert desk.errors == []


async def test_each_of_many_at_once_gets_its_own_answer(tmp_path: Path) -> None:
    async with served(tmp_path) as desk:
        answers: dict[int, list[Any]] = {}

        async def one(number: int) -> None:
            answers[number] = await desk.say(json.dumps({"verb": "count", "to": number}).encode() + b"\n")

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number)
        assert answers == {number: [*({"result": each} for each in range(number)), END] for number in range(100)}


async def test_a_request_may_come_in_pieces_and_its_writer_may_be_done_writing(tmp_path: Path) -> None:
    async with served(tmp_path) as desk:
        async with await trio.open_unix_socket(desk.path) as stream:
            for octet in b'{"verb": "echo"}':
                await stream.send_all(bytes([octet]))
                await trio.lowlevel.checkpoint()
            await stream.send_all(b"\n")
            assert (await stream.receive_some()).startswith(b'{"result":{}}\n')
        thousand = await desk.say(b'{"verb": "count", "to": 1000}\n', hang_up=True)
        assert thousand.pop() == END
        assert [line["result"] for line in thousand] == list(range(1000))


# ---------------------------------------------------------------------- asking badly


@pytest.mark.parametrize(
    "octets",
    [
        b"\n",
        b"nonsense\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\xff\n",
        b"\xff\xfe\n",
        b"[]\n",
        b'"status"\n',
        b"null\n",
        b"[" * 60_000 + b"\n",
        b'{"verb": "echo"\n',
    ],
    ids=lambda octets: repr(octets[:12]),
)
async def test_what_is_no_request_is_told_so_and_harms_nobody(tmp_path: Path, octets: bytes) -> None:
    async with served(tmp_path) as desk:
        assert await desk.say(octets) == [{"error": "that is not a request"}]
        assert await desk.ask("echo") == [{}]
        assert desk.errors == []


@pytest.mark.parametrize("octets", [b"", b'{"verb": "echo"}'])
async def test_who_hangs_up_before_the_request_is_whole_gets_nothing_done(tmp_path: Path, octets: bytes) -> None:
    async with served(tmp_path) as desk:
        assert await desk.say(octets, hang_up=True) == [{"error": "that is not a request"}]
        async with await trio.open_unix_socket(desk.path) as stream:
            await stream.send_all(octets)
        assert await desk.ask("count", to=1) == [0]
        assert desk.ended == {"count": 1}
        assert desk.errors == []


@pytest.mark.parametrize("verb", ["status", "", None, [], {}, 7, "echo "])
async def test_a_verb_that_is_not_there_is_refused_in_words(tmp_path: Path, verb: object) -> None:
    async with served(tmp_path) as desk:
        said = await desk.say(json.dumps({"verb": verb}).encode() + b"\n")
        assert said == [{"error": "there is no such verb"}]
        assert await desk.say(b'{"to": 1}\n') == said
        assert desk.errors == []


async def test_a_request_that_does_not_end_is_cut_off_at_its_limit(tmp_path: Path) -> None:
    async with served(tmp_path) as desk:
        longest = json.dumps({"verb": "echo", "text": ""})
        fits = json.dumps({"verb": "echo", "text": "x" * (wire.MAX_REQUEST - len(longest) - 1)}).encode() + b"\n"
        assert len(fits) == wire.MAX_REQUEST
        [answer, _] = await desk.say(fits)
        assert len(answer["result"]["text"]) > wire.MAX_REQUEST - 100
        refused: list[Any] = []
        try:
            refused = await desk.say(b"x" * (wire.MAX_REQUEST + 1))
        except trio.BrokenResourceError:
            pass  # the kernel may answer what was not read with a reset
        assert refused in ([], [{"error": "that is not a request"}])
        assert await desk.ask("echo") == [{}]


async def test_what_comes_behind_the_request_is_not_looked_at(tmp_path: Path) -> None:
    async with served(tmp_path) as desk:
        assert await desk.say(b'{"verb": "count", "to": 2}\n{"verb": "count", "to": 9}\nand') == [
            {"result": 0},
            {"result": 1},
            END,
        ]


# ---------------------------------------------------------------------- when something goes wrong


async def test_a_verb_that_refuses_says_so_behind_what_it_has_said(tmp_path: Path) -> None:
    async with served(tmp_path) as desk:
        seen = []

        def ask() -> None:
            for result in wire.call(desk.path, "refuse"):
                seen.append(result)

        with pytest.raises(WireError, match=r"^not today$"):
            await trio.to_thread.run_sync(ask)
        assert seen == ["first"]
        assert desk.errors == []


async def test_a_defect_is_logged_and_told_and_the_next_caller_is_served(tmp_path: Path) -> None:
    async with served(tmp_path) as desk:
        with pytest.raises(WireError, match="defect"):
            await desk.ask("break")
        assert desk.errors == ["engine socket: ZeroDivisionError: a defect"]
        assert await desk.ask("echo") == [{}]


async def test_who_says_nothing_does_not_stay_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "REQUEST_TIMEOUT_S", 0.05)
    async with served(tmp_path) as desk:
        assert await desk.say(b'{"verb": "ec') == []
        assert await desk.ask("echo") == [{}]
        assert desk.errors == []


async def test_who_does_not_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "REQUEST_TIMEOUT_S", 0.05)
    async with served(tmp_path) as desk:
        async with await trio.open_unix_socket(desk.path) as stream:
            await stream.send_all(b'{"verb": "flood"}\n')
            await until(lambda: desk.ended == {"flood": 1})
        assert desk.errors == []


# ---------------------------------------------------------------------- streams


async def test_a_stream_is_followed_for_as_long_as_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CALL_TIMEOUT_S", 0.2)
    async with served(tmp_path) as desk:
        results: list[Any] = []

        def follow() -> None:
            for result in wire.call(desk.path, "stream", follow=True):
                results.append(result)
                if len(results) == 2:
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, follow)
            await until(lambda: results == ["begun"])
            # Without `follow` this would have been too long, as the test below shows.
            await trio.sleep(0.4)
            desk.more.set()
        assert results == ["begun", "more"]


async def test_what_is_no_stream_is_waited_for_so_long_and_no_longer(tmp_path: Path) -> None:
    async with served(tmp_path) as desk:
        with pytest.raises(WireError, match="did not answer"):
            await desk.ask("stream", limit_s=0.2)


async def test_a_stream_with_nothing_to_say_ends_when_its_follower_hangs_up(tmp_path: Path) -> None:
    async with served(tmp_path) as desk:
        for number in range(3):
            async with await trio.open_unix_socket(desk.path) as stream:
                await stream.send_all(b'{"verb": "stream"}\n')
                assert await stream.receive_some() == b'{"result":"begun"}\n'
                assert desk.ended["stream"] == number
            await until(lambda so_far=number + 1: desk.ended["stream"] == so_far)  # type: ignore[misc]
        assert desk.errors == []


async def test_a_follower_who_has_only_finished_writing_is_still_told(tmp_path: Path) -> None:
    async with served(tmp_path) as desk, await trio.open_unix_socket(desk.path) as stream:
        await stream.send_all(b'{"verb": "stream"}\n')
        await stream.send_eof()
        assert await stream.receive_some() == b'{"result":"begun"}\n'
        await trio.testing.wait_all_tasks_blocked()
        desk.more.set()
        assert await stream.receive_some() == b'{"result":"more"}\n'


# ---------------------------------------------------------------------- nobody there


def test_without_a_socket_no_appliance_runs(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match=r"engine\.sock"):
        list(wire.call(tmp_path / ENGINE_SOCKET, "status"))


def test_a_socket_that_a_dead_appliance_left_behind_is_no_appliance(tmp_path: Path) -> None:
    path = tmp_path / ENGINE_SOCKET
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
    assert path.exists()
    with pytest.raises(NotRunning):
        list(wire.call(path, "status"))


def test_a_queue_of_callers_that_is_full_is_said_in_words(tmp_path: Path) -> None:
    path = tmp_path / ENGINE_SOCKET
    waiting: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(0)
        try:
            full = 0
            while not full:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                full = waiting[-1].connect_ex(str(path))
            with pytest.raises(WireError, match="too many"):
                list(wire.call(path, "status"))
        finally:
            for each in waiting:
                each.close()


@pytest.mark.parametrize("last", [b'{"resu', b""])
def test_an_appliance_that_dies_in_the_middle_of_an_answer_has_not_answered(tmp_path: Path, last: bytes) -> None:
    """A list that was cut off between two lines must not look like a whole one."""
    path = tmp_path / ENGINE_SOCKET
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def die() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b'{"result": 1}\n' + last)

        dying = threading.Thread(target=die)
        dying.start()
        results = wire.call(path, "status")
        assert next(results) == 1
        with pytest.raises(NotRunning):
            next(results)
        dying.join()


# ---------------------------------------------------------------------- asking from a task


async def test_a_task_gets_the_first_result_or_the_words_of_the_refusal(tmp_path: Path) -> None:
    async with served(tmp_path) as desk:
        assert await wire.ask(desk.path, "count", 20, to=3) == 0
        assert await wire.ask(desk.path, "echo", 20, text="Grüße") == {"text": "Grüße"}
        with pytest.raises(WireError, match="no such verb"):
            await wire.ask(desk.path, "sing", 20)
        with pytest.raises(NotRunning):
            await wire.ask(desk.path, "count", 20, to=0)


async def test_a_task_does_not_wait_for_ever(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(tmp_path / ENGINE_SOCKET))
        hung.listen()
        with pytest.raises(NotRunning):
            await wire.ask(tmp_path / ENGINE_SOCKET, "status", 0.05)
    with pytest.raises(NotRunning):
        await wire.ask(tmp_path / "nothing", "status", 20)


async def test_a_task_listens_for_as_long_as_it_likes(tmp_path: Path) -> None:
    async with served(tmp_path) as desk:
        async with aclosing(wire.listen(desk.path, "count", 20, to=3)) as told:
            assert [each async for each in told] == [0, 1, 2]
        async with aclosing(wire.listen(desk.path, "echo", 20, text="x" * 60_000)) as told:
            assert await anext(told) == {"text": "x" * 60_000}
        with pytest.raises(WireError, match="no such verb"):
            await anext(wire.listen(desk.path, "sing", 20))


async def test_a_task_that_listens_hears_when_the_appliance_is_gone(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        await anext(wire.listen(tmp_path / "nothing", "events", 20))
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(tmp_path / ENGINE_SOCKET))
        dying.listen()
        told = wire.listen(tmp_path / ENGINE_SOCKET, "events", 0.05)
        with pytest.raises(NotRunning):
            # It lets us in, and never says the first word.
            await anext(told)

        def die() -> None:
            # The one from before is there still.
            dying.accept()[0].close()
            caller, _ = dying.accept()
            caller.recv(1000)
            caller.sendall(b'{"result": 1}\n{"resu')
            caller.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, die)
            async with aclosing(wire.listen(tmp_path / ENGINE_SOCKET, "events", 20)) as told:
                assert await anext(told) == 1
                with pytest.raises(NotRunning, match="died in the middle"):
                    await anext(told)
