"""The ends of lines, as they go out: CR and LF as a pair, and nothing else (RFC 5321 §2.3.8).

What this appliance has taken in has no others. Anything else gets the line ends that it must have meant, because a bare
CR or LF let through would make us the accomplice of whoever put it there.
"""

import re

_BARE_RE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class LineEnds:
    """Repairs the line ends of a message that comes in pieces. Never a bare CR or LF in what it gives out."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = False

    def write(self, octets: bytes) -> bytes:
        """The next octets, repaired. A CR at their end is held back until the next call: a LF may follow it."""
        if self._held and octets:
            octets = b"\r" + octets
            self._held = False
        if octets.endswith(b"\r"):
            self._held = True
            octets = octets[:-1]
        # As many of both as two for each pair: then there is nothing but pairs.
        if len(octets) - len(octets.translate(None, b"\r\n")) != 2 * octets.count(b"\r\n"):
            octets = _BARE_RE.sub(b"\r\n", octets)
        return octets

    def end(self) -> bytes:
        """What is left: the line end that a CR held back must have meant, or b""."""
        held, self._held = self._held, False
        return b"\r\n" if held else b""
