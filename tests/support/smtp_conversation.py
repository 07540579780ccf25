"""Conversations as text files: how they are written, and how they are played.

    # Words about why. At the top of each file.
    set max_message_octets 100       a setting of the server, before anything is said
    set starttls 1                   STARTTLS is offered
    only driver                      needs the real driver (sockets, a receiver that raises)
    only whole                       means something only where what is said at once also arrives at once
    C: MAIL FROM:<a@example.com>     a line of the client; CRLF is put behind it
    C| .\\n                           octets of the client as they are, with the escapes \\r \\n \\t \\\\ and \\xHH
    C* 300 aaaa\\r\\n                  the same, so many times over
    S: 250 2.1.0 *                   a line of the server; `*` stands for anything
    S... 250                         a reply with this code, of however many lines
    S- closed                        the server closes the connection
    M: <a@example.com> <b@example.org> text\\r\\n      a message was taken in: sender, recipients, content (escaped)
    M- none                          no message was taken in
    P: ret=HDRS envid=x              what MAIL said about that message, nothing where nothing stands here
    P: <b@example.org> notify=DELAY orcpt=rfc822;x      and RCPT about one of its recipients; decoded
    T- handshake                     the TLS handshake, and all that follows is encrypted

Lines of the client go out together up to the next line of the server. What the server says and nobody expects is a
fault, at the end as well.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from smtp_memory import Mailbox, Received

from smtp.parameters import MailParameters, RecipientParameters

_ESCAPE_RE = re.compile(rb"\\(?:([rnt\\])|x([0-9A-Fa-f]{2}))")
_ESCAPES = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}
_MARKS = ("C:", "C|", "C*", "S:", "S...", "S-", "M:", "M-", "P:", "T-", "set", "only")
_ONLY = ("driver", "whole")


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a file."""

    mark: str
    text: str
    number: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """One file."""

    name: str
    settings: dict[str, int]
    needs_driver: bool
    """To be played with the real driver alone. Its receiver raises."""
    needs_whole: bool
    """Not to be played octet by octet."""
    steps: tuple[Step, ...]


def read_conversation(path: Path) -> Conversation:
    """Raises ValueError where the file is not written as it should be."""
    settings: dict[str, int] = {}
    only = set()
    steps = []
    lines = path.read_text(encoding="utf-8").split("\n")
    if not lines[0].startswith("# "):
        raise ValueError(f"{path.name}: begins without saying why")
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        mark, _, text = line.partition(" ")
        if mark not in _MARKS:
            raise ValueError(f"{path.name}:{number}: {mark!r} is no mark")
        if mark == "set":
            key, _, value = text.partition(" ")
            settings[key] = int(value)
        elif mark == "only":
            if text not in _ONLY:
                raise ValueError(f"{path.name}:{number}: only {text}?")
            only.add(text)
        else:
            steps.append(Step(mark, text, number))
    return Conversation(path.stem, settings, "driver" in only, "whole" in only, tuple(steps))


def unescape(text: str) -> bytes:
    """Octets as they are written in a file."""

    def octet(match: re.Match[bytes]) -> bytes:
        return _ESCAPES[match[1]] if match[1] else bytes([int(match[2], 16)])

    return _ESCAPE_RE.sub(octet, text.encode("utf-8"))


def spoken(step: Step) -> bytes:
    """What a line of the client puts on the wire."""
    if step.mark == "C:":
        return unescape(step.text) + b"\r\n"
    if step.mark == "C*":
        times, _, text = step.text.partition(" ")
        return int(times) * unescape(text)
    return unescape(step.text)


def matches(pattern: str, line: str) -> bool:
    """Whether a line of the server is as expected."""
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), line) is not None


def message_text(message: Received) -> str:
    """A message as an `M:` line writes it."""
    octets = (
        message.content.replace(b"\\", b"\\\\").replace(b"\r", b"\\r").replace(b"\n", b"\\n").replace(b"\t", b"\\t")
    )
    content = "".join(chr(octet) if 32 <= octet < 127 else f"\\x{octet:02x}" for octet in octets)
    return " ".join([f"<{message.sender}>", *(f"<{recipient}>" for recipient in message.recipients), content])


def mail_parameters_text(said: MailParameters) -> str:
    """What MAIL said, as a `P:` line writes it."""
    words = [
        "" if said.size is None else f"size={said.size}",
        "" if said.body == "7BIT" else f"body={said.body}",
        "smtputf8" if said.smtputf8 else "",
        "requiretls" if said.require_tls else "",
        f"ret={said.ret}" if said.ret else "",
        f"envid={said.envid}" if said.envid else "",
    ]
    return " ".join(filter(None, words))


def recipient_parameters_text(recipient: str, said: RecipientParameters) -> str:
    """What RCPT said, as a `P:` line writes it."""
    words = [f"<{recipient}>"]
    if said.notify is not None:
        words.append("notify=" + ",".join(sorted(word.value for word in said.notify)))
    if said.orcpt is not None:
        words.append(f"orcpt={said.orcpt.address_type};{said.orcpt.address}")
    return " ".join(words)


def parameters_texts(message: Received) -> list[str]:
    """Every `P:` line that a message can have."""
    recipients = zip(message.recipients, message.recipient_parameters, strict=True)
    return [
        mail_parameters_text(message.parameters),
        *(recipient_parameters_text(recipient, said) for recipient, said in recipients),
    ]


async def play(
    conversation: Conversation,
    mailbox: Mailbox,
    say: Callable[[bytes], Awaitable[None]],
    hear: Callable[[], Awaitable[str | None]],
    shake_hands: Callable[[], Awaitable[None]],
) -> None:
    """Play the client's part. `hear` gives the server's next line, None where it has closed; `shake_hands` is behind a
    STARTTLS that was answered with 220.
    """
    unsaid = b""
    seen = 0
    for step in conversation.steps:
        where = f"{conversation.name}.txt:{step.number}: {step.mark} {step.text}"
        if step.mark in ("C:", "C|", "C*"):
            unsaid += spoken(step)
            continue
        if unsaid:
            await say(unsaid)
            unsaid = b""
        match step.mark:
            case "S:":
                line = await hear()
                assert line is not None, f"{where}: but the server has closed"
                assert matches(step.text, line), f"{where}: but the server said {line!r}"
            case "S...":
                line = await hear()
                while line is not None and line[3:4] == "-":
                    assert line[:3] == step.text, f"{where}: but the server said {line!r}"
                    line = await hear()
                assert line is not None, f"{where}: but the server has closed"
                assert line[:4] == step.text + " ", f"{where}: but the server said {line!r}"
            case "S-":
                line = await hear()
                assert line is None, f"{where}: but the server said {line!r}"
            case "M:":
                assert len(mailbox.messages) > seen, f"{where}: but there is no such message"
                # Hidden octets make a mismatch hard to see; compare what the file would say.
                assert message_text(mailbox.messages[seen]) == step.text, where
                seen += 1
            case "M-":
                assert not mailbox.messages, where
            case "P:":
                assert seen, f"{where}: but no message stands before it"
                said = parameters_texts(mailbox.messages[seen - 1])
                assert step.text in said, f"{where}: but what was said is {said}"
            case "T-":
                await shake_hands()
    if unsaid:
        await say(unsaid)
    assert seen == len(mailbox.messages) or not any(step.mark == "M:" for step in conversation.steps), "more messages"
