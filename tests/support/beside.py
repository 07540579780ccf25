"""A part of a load in a process of its own, so that no part waits for another's Python."""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Concatenate, Generic, ParamSpec, Self, TypeVar

Start = Callable[[], None]
"""Called by a part once it is prepared; returns when all parts are to begin."""
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

STAND_BACK = 5
"""The niceness of parts whose own time is not what is measured: usually such clients are on other machines."""

PREPARED_S = 60.0
"""How long a part may take until it is prepared."""


class Beside(Generic[Result]):
    """One part: `work(start, *arguments)`, a function of a module. It is ended with the `with`."""

    def __init__(
        self,
        work: Callable[Concatenate[Start, Arguments], Result],
        /,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, work, arguments, named), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.join()

    def prepared(self) -> None:
        """Wait until it is. AssertionError where it fails before."""
        self._heard("prepared", PREPARED_S)

    def begin(self) -> None:
        """Let it begin."""
        self._ours.send("begin")

    def result(self, within: float) -> Result:
        """What it has come to, in so many seconds at most. AssertionError where it fails."""
        result: Result = self._heard("result", within)
        return result

    def _heard(self, what: str, within: float) -> Result:
        assert self._ours.poll(within), f"no {what} within {within} s"
        kind, value = self._ours.recv()
        assert kind == what, value
        result: Result = value
        return result


def _run(
    theirs: Connection, work: Callable[..., object], arguments: tuple[object, ...], named: dict[str, object]
) -> None:
    def start() -> None:
        theirs.send(("prepared", None))
        theirs.recv()

    try:
        theirs.send(("result", work(start, *arguments, **named)))
    except BaseException:
        theirs.send(("failed", traceback.format_exc()))
        raise
