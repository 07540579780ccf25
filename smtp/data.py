"""The transparency of DATA (RFC 5321 §4.5.2), both ways: where a message ends, and how a dot at the start of a line is
told from that end.

The end is CRLF.CRLF and nothing else: not one of the look-alikes with a bare CR or a bare LF in them, which some
servers take for the end and others do not. A message that a stranger hides inside another lives on that difference.
"""

import re
from enum import Enum

_END = b"\r\n.\r\n"
# What stands at the end of a piece and may be the beginning of the end, the longest first.
_BEGINNINGS_OF_END = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")

_BARE_LINE_END_RE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class Fault(Enum):
    """Why the content of a message cannot be taken."""

    BAD_LINE_ENDS = "bad line ends"
    """RFC 5321 §2.3.8: CR and LF only as a pair. RFC 2045 §2.7 and §2.8: no NUL in 7bit or 8bit data."""
    TOO_LARGE = "too large"
    """Larger than EHLO said (RFC 1870)."""


class ContentReader:
    """Finds the end of a message in the octets after 354, and takes the stuffed dots out of what is before it.

    After a fault nothing more is given out, and the true end is still found. Bad line ends outweigh size, wherever in
    the message they are: what is said at the end must not depend on how the octets were divided on their way.
    """

    __slots__ = ("_held", "_skip", "ended", "fault", "max_octets", "octets_seen")

    def __init__(self, max_octets: int) -> None:
        self.max_octets = max_octets
        self.octets_seen = 0
        """Octets of the message so far: with the CRLFs and without the stuffed dots, as RFC 1870 §5 counts."""
        self.fault: Fault | None = None
        self.ended = False
        # The beginning of a message is the beginning of a line: as if a CRLF had come before it.
        self._held = b"\r\n"
        self._skip = 2

    def read(self, octets: bytes) -> tuple[bytes, bytes]:
        """Take what has come: give the message's octets out of it, and what stands behind the end of the message."""
        buffer = self._held + octets
        # The first dot at the start of a line is the end, in most messages: one search finds it, and that there is
        # nothing to unstuff before it.
        dot = buffer.find(b"\r\n.")
        ends_there = dot >= 0 and buffer.startswith(b"\r\n", dot + 3)
        end = dot if dot < 0 or ends_there else buffer.find(_END, dot)
        if end >= 0:
            self.ended = True
            rest = buffer[end + len(_END) :]
            # The CRLF before the dot belongs to the message.
            piece = buffer[: end + 2]
        else:
            rest = b""
            self._held = next((tail for tail in _BEGINNINGS_OF_END if buffer.endswith(tail)), b"")
            piece = buffer[: len(buffer) - len(self._held)] if self._held else buffer
        return self._accept(piece, has_dots=dot != end), rest

    def _accept(self, piece: bytes, *, has_dots: bool) -> bytes:
        """No pair of CR and LF, and no dot with the CRLF before it, is ever divided between two pieces."""
        if self.fault is Fault.BAD_LINE_ENDS or not piece:
            return b""
        pairs = piece.count(b"\r\n")
        if piece.count(b"\r") != pairs or piece.count(b"\n") != pairs or b"\0" in piece:
            self.fault = Fault.BAD_LINE_ENDS
            return b""
        if has_dots:
            piece = piece.replace(b"\r\n.", b"\r\n")
        if self._skip:
            piece = piece[self._skip :]
            self._skip = 0
        self.octets_seen += len(piece)
        if self.octets_seen > self.max_octets:
            self.fault = Fault.TOO_LARGE
            return b""
        return piece


class ContentWriter:
    """Prepares a message for the wire: dots stuffed, ended by CRLF.CRLF, and never a bare CR or LF in it.

    What this appliance has taken in has none. Anything else gets the line ends that it must have meant, because a bare
    one let through would make us the accomplice of whoever put it there.
    """

    __slots__ = ("_at_line_start", "_held")

    def __init__(self) -> None:
        self._at_line_start = True
        self._held = b""

    def write(self, octets: bytes) -> bytes:
        """The wire form of the next octets of the message. A CR at their end is held back until the next call."""
        if self._held:
            octets = self._held + octets
            self._held = b""
        if octets.endswith(b"\r"):
            self._held = b"\r"
            octets = octets[:-1]
        if not octets:
            return b""
        pairs = octets.count(b"\r\n")
        if octets.count(b"\r") != pairs or octets.count(b"\n") != pairs:
            octets = _BARE_LINE_END_RE.sub(b"\r\n", octets)
        if b"\r\n." in octets:
            octets = octets.replace(b"\r\n.", b"\r\n..")
        if self._at_line_start and octets.startswith(b"."):
            octets = b"." + octets
        self._at_line_start = octets.endswith(b"\r\n")
        return octets

    def end(self) -> bytes:
        """What ends the message: the dot on a line of its own, and the CRLF before it where it is missing."""
        if self._held:
            self._held = b""
            self._at_line_start = False
        return b".\r\n" if self._at_line_start else _END
