"""signatures first; the body follows"""

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Self

from smtp.address import Address
from smtp.reply import Reply

__all__ = ["ConnectError", "Connection", "Lost", "Refused", "Result", "Stage", "Timeouts", "Trace"]

Trace = Callable[[str, str], None]


class Stage(Enum):
    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    END_OF_DATA = "end_of_data"
    RSET = "rset"
    QUIT = "quit"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Result:
    reply: Reply
    stage: Stage


@dataclass(frozen=True, slots=True)
class Timeouts:
    connect: float = 30.0
    greeting: float = 300.0
    ehlo: float = 300.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    end_of_data: float = 600.0
    quit: float = 5.0


class ConnectError(Exception):
    """str(error) is the reason"""


class Refused(Exception):
    def __init__(self, reply: Reply, stage: Stage) -> None:
        super().__init__(f"{stage.value}: {reply}")
        self.reply = reply
        self.stage = stage


class Lost(Exception):
    def __init__(self, stage: Stage, reason: str, reply: Reply | None = None) -> None:
        super().__init__(f"{stage.value}: {reason}")
        self.stage = stage
        self.reason = reason
        self.reply = reply


class Connection:
    extensions: dict[str, str]
    server_name: str

    @classmethod
    async def open(
        cls,
        address: str,
        port: int,
        *,
        helo: str,
        timeouts: Timeouts = Timeouts(),
        source_address: str | None = None,
        expected_name: str = "",
        trace: Trace | None = None,
    ) -> Self:
        raise NotImplementedError

    @property
    def usable(self) -> bool:
        raise NotImplementedError

    async def send(
        self,
        sender: Address | str,
        recipients: Sequence[str],
        content: AsyncIterable[bytes] | Iterable[bytes],
        *,
        size: int,
        eight_bit: bool,
    ) -> list[Result]:
        raise NotImplementedError

    async def quit(self) -> None:
        raise NotImplementedError

    def aclose(self) -> None:
        raise NotImplementedError
