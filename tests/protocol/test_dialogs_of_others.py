"""Conversations that somebody else wrote for their server, played with ours.

They are read where they are, from $ONWARD_SUITES (see the skip's words). Codes are compared by their first digit: which
5xx a fault deserves is a matter of taste, and that it is one is not. Where we differ by policy, the line is in the
table below with the reason.
"""

import ast
import os
import re
from collections import deque
from pathlib import Path

import pytest
from smtp_house import InMemory
from smtp_memory import Mailbox

SUITES = Path(os.environ.get("ONWARD_SUITES", Path(__file__).parents[2] / ".." / "shared" / "suites"))
FILES = sorted((SUITES / "dialogs").glob("*.cmy"))

# Their limit for these dialogs, which are written for it.
MAX_MESSAGE_OCTETS = 1 << 20

# What they expect that we do otherwise: file, their reply, the first digit of ours, why.
OTHERWISE = {
    ("bad_data", "554 5.6.0 Error parsing message"): ("2", "a relay does not judge header lines (RFC 5321 §6.4)"),
}


class Dialog:
    """One file and how far it has been played."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.mailbox = Mailbox()
        self.server = InMemory(self.mailbox)
        self.heard: deque[str] = deque()

    async def connect(self) -> None:
        self.server = InMemory(self.mailbox, max_message_octets=MAX_MESSAGE_OCTETS)
        self.heard.clear()
        await self.say(b"")

    async def say(self, octets: bytes) -> None:
        self.heard.extend((await self.server.exchange(octets)).decode("ascii").split("\r\n")[:-1])

    def hear(self, expected: str) -> None:
        assert self.heard, f"{self.path.name}: nothing was said, but {expected!r} is expected"
        line = self.heard.popleft()
        while line[3:4] == "-":
            line = self.heard.popleft()
        digit, _ = OTHERWISE.get((self.path.stem, expected), (expected[0], ""))
        assert line[0] == digit, f"{self.path.name}: {line!r}, but {expected!r} is expected"

    async def play(self) -> None:
        for line in self.path.read_text(encoding="utf-8").split("\n"):
            if not line or line.startswith("#"):
                continue
            match = re.fullmatch(r"c (tcp_connect|close|->|<-|<~|<\.\.\.|~>) ?(.*)", line)
            assert match, f"{self.path.name}: {line!r} is not understood"
            verb, text = match.groups()
            match verb:
                case "tcp_connect":
                    await self.connect()
                case "close":
                    pass
                case "->":
                    await self.say(text.encode("utf-8") + b"\r\n")
                case "~>":
                    await self.say(evaluate(ast.parse(text, mode="eval").body))
                case _:
                    self.hear(text)


def evaluate(node: ast.expr) -> bytes:
    """The little of Python that the dialogs use: texts, put together and repeated."""
    match node:
        case ast.Constant(value=str(text)):
            return text.encode("utf-8")
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return evaluate(left) + evaluate(right)
        case ast.BinOp(left=left, op=ast.Mult(), right=ast.Constant(value=int(times))):
            return evaluate(left) * times
    raise AssertionError(f"{ast.dump(node)} is not understood")


@pytest.mark.skipif(not FILES, reason=f"no dialogs in {SUITES / 'dialogs'}: set ONWARD_SUITES to the suites' folder")
@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
async def test_dialog(path: Path) -> None:
    dialog = Dialog(path)
    await dialog.play()
    verify = path.with_name(path.name + ".verify")
    if verify.exists():
        [message] = dialog.mailbox.messages
        # Theirs adds header lines and changes line ends before it compares; the text is the same.
        assert message.content.replace(b"\r\n", b"\n").rstrip() == verify.read_bytes().rstrip()
    elif not path.stem.startswith("bad_data") or "dot" in path.stem:
        assert not dialog.mailbox.messages


def test_no_difference_is_listed_in_vain() -> None:
    if not FILES:
        pytest.skip(f"no dialogs in {SUITES / 'dialogs'}: set ONWARD_SUITES to the suites' folder")
    for stem, expected in OTHERWISE:
        [path] = [path for path in FILES if path.stem == stem]
        assert f" {expected}\n" in path.read_text(encoding="utf-8")
