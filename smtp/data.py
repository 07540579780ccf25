"""The content of a message on the wire: where it ends, how a dot at the start of a line is told from that end (the
transparency of DATA, RFC 5321 §4.5.2, both ways), and what no message may have in it.

The end of DATA is CRLF.CRLF and nothing else: not one of the look-alikes with a bare CR or a bare LF in them, which
some servers take for the end and others do not. A message that somebody hides inside another lives on that difference.
"""

from dataclasses import dataclass
from enum import Enum

from smtp.line_ends import LineEnds

_END = b"\r\n.\r\n"
# What stands at the end of a piece and may be the beginning of the end, the longest first.
_BEGINNINGS_OF_END = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")


class Fault(Enum):
    """Why the content of a message cannot be taken; the worst comes first."""

    BAD_LINE_ENDS = "bad line ends"
    """RFC 5321 §2.3.8: CR and LF only as a pair. RFC 2045 §2.7 and §2.8: no NUL in 7bit or 8bit data."""
    TOO_LARGE = "too large"
    """Larger than EHLO said (RFC 1870)."""
    HEADER_TOO_LARGE = "header too large"
    """No blank line within as many octets as a header section may have here."""
    LINE_TOO_LONG = "line too long"
    """A line with more octets than are taken here."""


_RANKS = {fault: rank for rank, fault in enumerate(Fault)}


@dataclass(frozen=True, slots=True)
class ContentLimits:
    """How much a message may have of what, in octets."""

    message: int
    """Said at EHLO (RFC 1870)."""
    header: int
    """Up to and with the blank line. Whoever reads header fields has to hold them; no mail that people send has more
    than a hundredth of this."""
    line: int
    """With the CRLF. RFC 5321 §4.5.3.1.6 promises 1,000 and asks for more where it can be had: there is mail with its
    whole text in one line. Further on it may be refused; here it does no harm up to the size of one read."""


class ContentChecks:
    """Looks at the octets of one message as they come, and says what is wrong with them.

    After a fault nothing more is given out, and all that comes is still looked at. The worst fault outweighs the others
    wherever in the message it is: what is said at the end must not depend on how the octets were divided on their way.
    """

    __slots__ = ("_at_line_start", "_header_octets", "_in_header", "_limits", "_line_octets", "fault", "octets_seen")

    def __init__(self, limits: ContentLimits) -> None:
        self.octets_seen = 0
        """Octets of the message so far: with the CRLFs and without the stuffed dots, as RFC 1870 §5 counts."""
        self.fault: Fault | None = None
        self._limits = limits
        self._in_header = True
        self._header_octets = 0
        self._at_line_start = True
        self._line_octets = 0

    def note(self, fault: Fault) -> None:
        """This is wrong; what is worse and known already stays."""
        if self.fault is None or _RANKS[fault] < _RANKS[self.fault]:
            self.fault = fault

    def take(self, piece: bytes) -> bytes:
        """The next octets of the message, no pair of CR and LF divided; gives them back, or b"" after a fault."""
        if self.fault is Fault.BAD_LINE_ENDS or not piece:
            return b""
        # As many of the three as two for each pair: then there is nothing but pairs. To count each by itself takes a
        # quarter longer, and this is most of what a message costs here.
        if len(piece) - len(piece.translate(None, b"\r\n\0")) != 2 * piece.count(b"\r\n"):
            self.fault = Fault.BAD_LINE_ENDS
            return b""
        limits = self._limits
        self.octets_seen += len(piece)
        if self.octets_seen > limits.message:
            self.note(Fault.TOO_LARGE)
        if self._in_header:
            self._look_for_blank_line(piece)
        self._measure_lines(piece, limits.line)
        return b"" if self.fault else piece

    def _look_for_blank_line(self, piece: bytes) -> None:
        if self._at_line_start and piece.startswith(b"\r\n"):
            self._header_octets += 2
            self._in_header = False
        elif (blank := piece.find(b"\r\n\r\n")) >= 0:
            self._header_octets += blank + 4
            self._in_header = False
        else:
            self._header_octets += len(piece)
        if self._header_octets > self._limits.header:
            self.note(Fault.HEADER_TOO_LARGE)

    def _measure_lines(self, piece: bytes, limit: int) -> None:
        first_end = piece.find(b"\n") + 1
        longest = self._line_octets + (first_end or len(piece))
        if not first_end:
            self._line_octets = longest
            self._at_line_start = False
        else:
            last_end = piece.rfind(b"\n") + 1
            self._line_octets = len(piece) - last_end
            self._at_line_start = last_end == len(piece)
            if len(piece) > limit:
                # Only now can a line within the piece be too long.
                longest = max(longest, *(len(line) + 1 for line in piece[first_end:].split(b"\n")))
        if longest > limit:
            self.note(Fault.LINE_TOO_LONG)


class DataReader:
    """Finds the end of a message in the octets after 354, and takes the stuffed dots out of what is before it."""

    __slots__ = ("_held", "_skip", "checks", "ended")

    def __init__(self, checks: ContentChecks) -> None:
        self.checks = checks
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
        # No pair of CR and LF, and no dot with the CRLF before it, is ever divided between two pieces.
        if dot != end:
            piece = piece.replace(b"\r\n.", b"\r\n")
        if self._skip and piece:
            piece = piece[self._skip :]
            self._skip = 0
        return self.checks.take(piece), rest


class ChunkReader:
    """Takes what comes by BDAT (RFC 3030 §2), chunk after chunk: octets as they are, with no end to find and no dots
    to take out.
    """

    __slots__ = ("_held", "checks")

    def __init__(self, checks: ContentChecks) -> None:
        self.checks = checks
        self._held = False

    def read(self, octets: bytes) -> bytes:
        """The message's octets out of what has come of its chunks."""
        if self._held and octets:
            octets = b"\r" + octets
        # A chunk may end between CR and LF, and so may what has come of it: the CR waits for its LF.
        if octets:
            self._held = octets.endswith(b"\r")
        return self.checks.take(octets[:-1] if self._held and octets else octets)

    def end(self) -> None:
        """That was the last chunk."""
        if self._held:
            self.checks.note(Fault.BAD_LINE_ENDS)


class ContentWriter:
    """Prepares a message for the wire: dots stuffed, ended by CRLF.CRLF, and never a bare CR or LF in it.

    What this appliance has taken in has none. Anything else gets the line ends that it must have meant, because a bare
    one let through would make us the accomplice of whoever put it there.
    """

    __slots__ = ("_at_line_start", "_line_ends")

    def __init__(self) -> None:
        self._at_line_start = True
        self._line_ends = LineEnds()

    def write(self, octets: bytes) -> bytes:
        """The wire form of the next octets of the message. A CR at their end is held back until the next call."""
        octets = self._line_ends.write(octets)
        if not octets:
            return b""
        if b"\r\n." in octets:
            octets = octets.replace(b"\r\n.", b"\r\n..")
        if self._at_line_start and octets.startswith(b"."):
            octets = b"." + octets
        self._at_line_start = octets.endswith(b"\r\n")
        return octets

    def end(self) -> bytes:
        """What ends the message: the dot on a line of its own, and the CRLF before it where it is missing."""
        return _END if self._line_ends.end() or not self._at_line_start else b".\r\n"
