"""The engine's socket: how the control process and the command line speak to the engine.

One request a connection, one JSON object a line. The request is `{"verb": ..., ...arguments}`; the answer is any
number of `{"result": ...}` lines, and a last one: `{"end": true}`, or where something went wrong `{"error": "..."}`. An
answer without its last line was cut off. A caller who has had enough hangs up. Whoever can open
`<data_dir>/engine.sock` (mode 0600) is the operator, so nothing here asks who is there.

Three can ask: `call` from a program without Trio, which reads every result; `ask` from a task, for the first one;
`listen` from a task, for results that come over days.
"""

import json
import math
import select
import socket
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import trio

MAX_REQUEST = 64 << 10
"""Octets of a request line."""

REQUEST_TIMEOUT_S = 10.0
"""How long a caller has to say what it wants, and to read one line of the answer."""

STATUS_S = 2.0
"""How long the engine may take to tell of itself; one that takes longer is not well."""

CALL_TIMEOUT_S = 60.0
"""How long a caller waits for a line of an answer, unless it follows a stream."""

MAX_ANSWER = 64 << 10
"""Octets of a line of an answer that `ask` reads: it is for questions with short answers."""

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
"""The caller has hung up, or does not read."""

Verb = Callable[[Mapping[str, Any]], AsyncGenerator[Any]]
"""Answers one request: takes the arguments, yields results; a WireError it raises is told to the caller."""


class WireError(Exception):
    """The request was refused, in words for the one who asked."""


class NotRunning(Exception):
    """No appliance answers on this data directory."""


async def serve(listener: trio.SocketListener, verbs: Mapping[str, Verb], on_error: Callable[[str], None]) -> None:
    """Answer requests until cancelled. One that fails ends alone: the cause goes to `on_error`."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream, trio.open_nursery() as nursery:
            try:
                await _answer(stream, verbs, nursery)
            except _GONE:
                pass
            except Exception as error:  # noqa: BLE001 - a fault in one verb must not end the engine
                on_error(f"engine socket: {type(error).__name__}: {error}")
                with suppress(*_GONE):
                    # An answer that merely ended would be taken for a whole one.
                    await _write_line(stream, {"error": "the appliance met a defect of its own; its log says more"})
            nursery.cancel_scope.cancel()

    await trio.serve_listeners(answer, [listener])


async def _answer(stream: trio.SocketStream, verbs: Mapping[str, Verb], nursery: trio.Nursery) -> None:
    try:
        request = await _read_request(stream)
        verb = verbs.get(str(request.pop("verb", "")))
        if verb is None:
            raise WireError("there is no such verb")
        nursery.start_soon(_until_hung_up, stream, nursery.cancel_scope)
        async with aclosing(verb(request)) as results:
            async for result in results:
                await _write_line(stream, {"result": result})
        await _write_line(stream, {"end": True})
    except WireError as error:
        await _write_line(stream, {"error": str(error)})


async def _until_hung_up(stream: trio.SocketStream, answering: trio.CancelScope) -> None:
    """End an answer that nobody reads any more: a stream may have nothing to say for days, and would never find out."""
    try:
        while await stream.receive_some(MAX_REQUEST):
            pass  # nothing more is asked on this connection
    except trio.BrokenResourceError:
        answering.cancel()
        return
    # One who has only said that there are no more requests still reads.
    both_ways = select.poll()
    both_ways.register(stream.socket.fileno(), 0)
    if any(events & select.POLLHUP for _, events in both_ways.poll(0)):
        answering.cancel()


async def _read_request(stream: trio.SocketStream) -> dict[str, Any]:
    line = bytearray()
    with trio.fail_after(REQUEST_TIMEOUT_S):
        while b"\n" not in line:
            octets = await stream.receive_some(MAX_REQUEST)
            line += octets
            if not octets or len(line) > MAX_REQUEST:
                raise WireError("that is not a request")
    try:
        request = json.loads(line.partition(b"\n")[0])
    except (ValueError, RecursionError):
        raise WireError("that is not a request") from None
    if not isinstance(request, dict):
        raise WireError("that is not a request")
    return request


async def _write_line(stream: trio.SocketStream, value: object) -> None:
    with trio.fail_after(REQUEST_TIMEOUT_S):
        await stream.send_all(json.dumps(value, separators=(",", ":")).encode() + b"\n")


async def ask(path: Path, verb: str, limit_s: float, **arguments: object) -> Any:
    """Ask the engine from a task, and return the first result.

    Raises NotRunning where no whole answer has come after so many seconds, or WireError with the engine's words.
    """
    answer = bytearray()
    try:
        with trio.fail_after(limit_s):
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(_request(verb, arguments))
                while b"\n" not in answer and len(answer) <= MAX_ANSWER:
                    octets = await stream.receive_some()
                    if not octets:
                        break
                    answer += octets
    except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
        raise NotRunning(f"no appliance answers on {path}") from error
    line, end, _ = answer.partition(b"\n")
    told = _told(path, line if end else b"")
    if "result" not in told:
        raise NotRunning(f"what answers on {path} has nothing to say to this")
    return told["result"]


async def listen(path: Path, verb: str, first_s: float, **arguments: object) -> AsyncGenerator[Any]:
    """Ask the engine from a task, and yield each result as it comes; the first may take so many seconds.

    To be closed by whoever has had enough. Raises NotRunning, also where the answer is cut off, or WireError with the
    engine's words.
    """
    try:
        with trio.fail_after(first_s):
            stream = await trio.open_unix_socket(path)
    except (OSError, trio.TooSlowError) as error:
        raise NotRunning(f"no appliance answers on {path}") from error
    limit_s, buffered = first_s, bytearray()
    async with stream:
        try:
            await stream.send_all(_request(verb, arguments))
            while True:
                with trio.fail_after(limit_s):
                    octets = await stream.receive_some()
                if not octets:
                    raise NotRunning("the appliance died in the middle of its answer")
                buffered += octets
                *lines, rest = buffered.split(b"\n")
                buffered = bytearray(rest)
                for line in lines:
                    told = _told(path, line)
                    if "result" not in told:
                        return
                    limit_s = math.inf
                    yield told["result"]
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            raise NotRunning(f"no appliance answers on {path}") from error


def call(
    path: Path, verb: str, *, follow: bool = False, limit_s: float = CALL_TIMEOUT_S, **arguments: object
) -> Iterator[Any]:
    """Ask the engine from a program without Trio, and yield each result as it comes.

    Each line may take `limit_s`; with `follow` it may take for ever. Raises NotRunning, or WireError with the engine's
    words.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(limit_s)
    with connection:
        try:
            connection.connect(str(path))
            connection.sendall(_request(verb, arguments))
            if follow:
                connection.settimeout(None)
            with connection.makefile("rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        raise NotRunning("the appliance died in the middle of its answer")
                    answer = json.loads(line)
                    if "end" in answer:
                        return
                    if "error" in answer:
                        raise WireError(answer["error"])
                    yield answer["result"]
                raise NotRunning("the appliance died in the middle of its answer")
        except (FileNotFoundError, NotADirectoryError, ConnectionError) as error:
            raise NotRunning(f"no appliance answers on {path}") from error
        except BlockingIOError:
            # unix(7): with a time limit on the socket, a full queue of callers is EAGAIN at once.
            raise WireError("too many are asking the appliance at once; try again") from None
        except TimeoutError:
            raise WireError(f"the appliance did not answer within {limit_s:.0f} s") from None


def _told(path: Path, line: bytes | bytearray) -> dict[str, Any]:
    """A line of an answer. Raises WireError with the engine's words, and NotRunning where it is no such line."""
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or not told.keys() & {"error", "result", "end"}:
        raise NotRunning(f"what answers on {path} is no appliance, or died in the middle of its answer")
    if "error" in told:
        raise WireError(str(told["error"]))
    return told


def _request(verb: str, arguments: Mapping[str, object]) -> bytes:
    return json.dumps({"verb": verb, **arguments}).encode() + b"\n"
