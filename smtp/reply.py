"""Replies: what a server says, as a value, in both directions."""

import re
from dataclasses import dataclass, field
from functools import lru_cache

from smtp.errors import ProtocolError

REPLY_CODES = 600
"""All codes are below: a list of so many numbers has one for each."""

# RFC 5321 §4.5.3.1.5: "The maximum total length of a reply line including the reply code and the <CRLF> is 512 octets."
MAX_REPLY_LINE_OCTETS = 512
# What we read may be longer than it should be; a line longer than this, or a reply of more lines, is no reply.
MAX_READ_LINE_OCTETS = 4096
MAX_READ_LINES = 128

REPLIES_AT_HAND = 256
"""The last replies of one line that were read. To MAIL, RCPT and DATA a server says the same each time, and many say
what others do: looked up, a reply costs a fifth. No more than come in some moments, because some name a mailbox."""
MAX_AT_HAND_OCTETS = 64
"""A longer line is read anew each time: what is so long is about this one message, and does not come again."""

# RFC 5321 §4.2: textstring = 1*(%d09 / %d32-126)
_UNPRINTABLE_RE = re.compile(r"[^ -~]")
# RFC 5321 §4.2: Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
#                Reply-code = %x32-35 %x30-35 %x30-39; the second digit goes up to 9 in the wild.
_REPLY_LINE_RE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
# RFC 3463 §2: status-code = class "." subject "." detail ; class = "2"/"4"/"5" ; subject = 1*3digit ; detail = 1*3digit
_ENHANCED_RE = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +|$)")
# What nearly every reply looks like: one line, printable, its enhanced code of the same class. Read in one go it takes
# half the time.
_PLAIN_RE = re.compile(rb"(([245])[0-9][0-9]) (\2\.[0-9]{1,3}\.[0-9]{1,3}) +([!-~][ -~]*)")


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, of one line or more."""

    code: int
    """Three digits, 200 to 599."""
    text: str
    """What people read; lines are separated by a line feed."""
    enhanced: str | None = None
    """RFC 3463, such as `5.1.1`."""
    _octets: bytes = field(default=b"", init=False, repr=False, compare=False)
    """Its wire form, once it has been asked for: most replies are constants that are given over and over."""

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 599:
            raise ValueError(f"{self.code} is not a reply code")
        # RFC 2034 §4: the class of the enhanced code agrees with the first digit of the code.
        if self.enhanced is not None and self.enhanced[:1] != str(self.code)[0]:
            raise ValueError(f"{self.code} does not go with {self.enhanced}")

    @property
    def positive(self) -> bool:
        """2xx, or 3xx: go on."""
        return self.code < 400

    @property
    def transient(self) -> bool:
        """4xx: try again later."""
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        """5xx: do not try again."""
        return self.code >= 500

    def octets(self) -> bytes:
        """The reply as it goes over the wire: never a control character in it, never a line of more than 512 octets.

        RFC 2034 §3: the enhanced code stands on every line.
        """
        if not self._octets:
            object.__setattr__(self, "_octets", self._encoded())
        return self._octets

    def _encoded(self) -> bytes:
        text = self.text
        if len(text) < 400 and text.isascii() and text.isprintable():
            if self.enhanced is None:
                return b"%d %b\r\n" % (self.code, text.encode("ascii"))
            return f"{self.code} {self.enhanced} {text}\r\n".encode("ascii")
        return _in_lines(self.code, text, self.enhanced)

    def __str__(self) -> str:
        """One line for people."""
        return " ".join(part for part in (str(self.code), self.enhanced, *self.text.split("\n")) if part)


# The answer to EHLO is the same for everyone, and is a third of what it costs to say it.
@lru_cache(maxsize=64)
def _in_lines(code: int, text: str, enhanced: str | None) -> bytes:
    prefix = f"{enhanced} " if enhanced else ""
    room = MAX_REPLY_LINE_OCTETS - len(f"{code} {prefix}\r\n")
    lines = [
        line[start : start + room]
        for line in (_UNPRINTABLE_RE.sub("?", line.replace("\t", " ")) for line in text.split("\n"))
        for start in range(0, max(len(line), 1), room)
    ]
    *first, last = [prefix + line for line in lines]
    return "".join([*(f"{code}-{line}\r\n" for line in first), f"{code} {last}\r\n"]).encode("ascii")


class ReplyReader:
    """Takes a server's octets as they come and gives its replies, one by one.

    Lines end in LF with or without a CR: nothing can be hidden between the two by a server that says them both.
    """

    __slots__ = ("_buffer", "_code", "_lines", "_position")

    def __init__(self) -> None:
        self._buffer = b""
        self._position = 0
        self._code = 0
        self._lines: list[str] = []

    @property
    def pending(self) -> bool:
        """Whether octets have come that are no whole reply yet."""
        return self._position < len(self._buffer) or bool(self._lines)

    def receive(self, octets: bytes) -> None:
        """Take what has come."""
        self._buffer = self._buffer[self._position :] + octets
        self._position = 0

    def next_reply(self) -> Reply | None:
        """The next whole reply, or None where more octets are needed. Raises ProtocolError."""
        while True:
            end = self._buffer.find(b"\n", self._position)
            if end < 0:
                if len(self._buffer) - self._position > MAX_READ_LINE_OCTETS:
                    raise ProtocolError("a line of the reply is too long")
                return None
            line = self._buffer[self._position : end].removesuffix(b"\r")
            self._position = end + 1
            if not self._lines:
                whole = _known_line(line) if len(line) <= MAX_AT_HAND_OCTETS else _whole(line)
                if whole is not None:
                    return whole
            if self._take(line):
                reply = _reply(self._code, self._lines)
                self._lines = []
                return reply

    def _take(self, line: bytes) -> bool:
        """Add a line; True where it was the last of its reply."""
        code, text, is_last = _parts(line)
        # RFC 5321 §4.2.1: "the reply code on each of the lines MUST be the same"
        if self._lines and code != self._code:
            raise ProtocolError("the lines of a reply have different codes")
        if len(self._lines) >= MAX_READ_LINES:
            raise ProtocolError("the reply has too many lines")
        self._code = code
        self._lines.append(text)
        return is_last


def _whole(line: bytes) -> Reply | None:
    """The reply that a line is by itself; None where another belongs to it. Raises ProtocolError."""
    if (plain := _PLAIN_RE.fullmatch(line)) and len(line) <= MAX_READ_LINE_OCTETS:
        code, _, enhanced, text = plain.groups()
        return Reply(int(code), text.decode("ascii"), enhanced.decode("ascii"))
    number, said, is_last = _parts(line)
    return _reply(number, [said]) if is_last else None


_known_line = lru_cache(REPLIES_AT_HAND)(_whole)


def _parts(line: bytes) -> tuple[int, str, bool]:
    """The code and the text of a line, and whether it is the last of its reply. Raises ProtocolError."""
    match = _REPLY_LINE_RE.fullmatch(line)
    if len(line) > MAX_READ_LINE_OCTETS or not match:
        raise ProtocolError("this is not an SMTP reply")
    code, mark, text = match.groups()
    printable = _UNPRINTABLE_RE.sub("?", (text or b"").replace(b"\t", b" ").decode("ascii", "replace"))
    return int(code), printable, mark != b"-"


def _reply(code: int, lines: list[str]) -> Reply:
    """Put a reply together, with the enhanced code taken off its lines."""
    match = _ENHANCED_RE.match(lines[0])
    # One that contradicts the reply code is taken for text: the code decides (RFC 5321 §4.2).
    if not match or int(match.group(1)[0]) != code // 100:
        return Reply(code, "\n".join(lines))
    enhanced = match.group(1)
    stripped = []
    for line in lines:
        found = _ENHANCED_RE.match(line)
        stripped.append(line[found.end() :] if found and found.group(1) == enhanced else line)
    return Reply(code, "\n".join(stripped), enhanced)
