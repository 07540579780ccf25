"""What the control process makes of the engine's answer over its socket, and of there being none."""

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from appliance import wire
from appliance.configuration import ENGINE_SOCKET, Configuration
from appliance.run import watching


async def _asked(data_dir: Path, answer: bytes | None) -> tuple[Mapping[str, object] | None, bytes]:
    """The status as the control process sees it, and what the engine was asked."""
    received = b""

    async def engine(stream: trio.SocketStream) -> None:
        nonlocal received
        async with stream:
            received = bytes(await stream.receive_some())
            if answer is None:
                await trio.sleep_forever()
            await stream.send_all(answer or b"")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(data_dir / ENGINE_SOCKET))
        listener.listen()
        async with trio.open_nursery() as nursery:
            listening = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
            nursery.start_soon(trio.serve_listeners, engine, [listening])
            status = await watching.engine_status(Configuration(hostname="mx.example.org", data_dir=data_dir))()
            nursery.cancel_scope.cancel()
    return status, received


async def test_the_engine_is_asked_one_line_and_answers_one(tmp_path: Path) -> None:
    status = await _asked(tmp_path, b'{"result": {"healthy": true, "trouble": null}}\n')
    assert status == ({"healthy": True, "trouble": None}, b'{"verb": "health"}\n')


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\n",
        b"nonsense\n",
        b"[]\n",
        b'{"error": "no"}\n',
        b'{"result": 1}\n',
        b"\xff\n",
        b'{"result": {"a": ' * 9000,
    ],
)
async def test_an_answer_that_is_none_is_none(tmp_path: Path, answer: bytes) -> None:
    assert (await _asked(tmp_path, answer))[0] is None


async def test_an_engine_that_does_not_answer_is_waited_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "STATUS_S", 0.05)
    assert (await _asked(tmp_path, None))[0] is None


async def test_no_socket_is_no_answer(tmp_path: Path) -> None:
    assert await watching.engine_status(Configuration(hostname="mx.example.org", data_dir=tmp_path))() is None
