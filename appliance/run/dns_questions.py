"""Questions to the DNS from where nothing waits: asked all at once, and answered together.

The rooms that ask know no Trio, so the looking up is handed to it: in a running process from a worker thread, and on
the command line, where there is no process yet, in one of its own. Nothing is remembered from one time to the next:
whoever looks at a record has just changed it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import trio

from appliance.accounts.ownership import Question
from appliance.configuration import Configuration
from appliance.resolver import DnsResolver, LookupFailed, NoSuchName

Answers = dict[Question, tuple[str, ...] | None]


class Runner(Protocol):
    """`trio.run`, or `trio.from_thread.run` in a worker thread."""

    def __call__(self, function: Callable[[], Awaitable[Answers]], /) -> Answers: ...


class DnsQuestions:
    """A `LookUp` of `appliance.accounts.ownership`: for `dns.timeout` at most."""

    def __init__(self, config: Configuration, run: Runner) -> None:
        self._config = config
        self._run = run

    def __call__(self, questions: Sequence[Question]) -> Mapping[Question, tuple[str, ...] | None]:
        """What the DNS says now. Blocks; raises nothing."""
        resolver = DnsResolver(self._config.dns.nameservers, self._config.dns.timeout / 1000)
        answers: Answers = {}

        async def ask(question: Question) -> None:
            answers[question] = await _asked(resolver, question)

        async def ask_all() -> Answers:
            async with trio.open_nursery() as nursery:
                for question in questions:
                    nursery.start_soon(ask, question)
            return answers

        return self._run(ask_all)


async def _asked(resolver: DnsResolver, question: Question) -> tuple[str, ...] | None:
    try:
        if question.type == "MX":
            found = (await resolver.mx(question.name)).records
            return tuple(f"{preference} {host}" for preference, host in found)
        return tuple(await resolver.texts(question.name))
    except NoSuchName:
        return ()
    except LookupFailed:
        return None
