"""The content of a message as chunks (BDAT, RFC 3030): counted instead of ended, so that nothing needs stuffing and no
reader can differ on where it stops.

What is sent is the same message that DATA would have carried: line ends repaired, and the last line ended too.
"""

import re

# A chunk is written once as much has been gathered, so that memory stays bounded whatever the size of the message. What
# the caller gives in one piece is never divided, and a message in one piece is one chunk.
CHUNK_OCTETS = 65536

_BARE_LINE_END_RE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class ChunkWriter:
    """Gathers content until a chunk's length is known. Never a bare CR or LF in what it gives out."""

    __slots__ = ("_gathered", "_held", "_octets", "total")

    def __init__(self) -> None:
        self.total = 0
        """Octets given out."""
        self._gathered: list[bytes] = []
        self._octets = 0
        self._held = False

    def write(self, octets: bytes) -> bytes:
        """Take the next octets of the message. Returns a chunk of those before them, with its command, or b""."""
        if not octets:
            return b""
        chunk = self._chunk(b"\r\n") if self._octets >= CHUNK_OCTETS else b""
        if self._held:
            octets = b"\r" + octets
            self._held = False
        if octets.endswith(b"\r"):
            # Whether a LF follows will be seen.
            self._held = True
            octets = octets[:-1]
        self._gather(octets)
        return chunk

    def end(self) -> bytes:
        """The last chunk, with its command. It may be an empty one."""
        if self._held:
            self._held = False
            self._gather(b"\r")
        elif (self._gathered or self.total) and not self._ends_line():
            self._gather(b"\r\n")
        return self._chunk(b" LAST\r\n")

    def _gather(self, octets: bytes) -> None:
        if not octets:
            return
        pairs = octets.count(b"\r\n")
        if octets.count(b"\r") != pairs or octets.count(b"\n") != pairs:
            octets = _BARE_LINE_END_RE.sub(b"\r\n", octets)
        self._gathered.append(octets)
        self._octets += len(octets)

    def _ends_line(self) -> bool:
        # A chunk is only closed by what comes behind it: something has been gathered.
        return self._gathered[-1].endswith(b"\n")

    def _chunk(self, mark: bytes) -> bytes:
        # RFC 3030 §2: bdat-cmd ::= "BDAT" SP chunk-size [ SP end-marker ] CR LF
        chunk = b"".join((b"BDAT %d%b" % (self._octets, mark), *self._gathered))
        self.total += self._octets
        self._gathered = []
        self._octets = 0
        return chunk
