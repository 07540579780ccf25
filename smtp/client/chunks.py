"""The content of a message as chunks (BDAT, RFC 3030): counted instead of ended, so that nothing needs stuffing and no
reader can differ on where it stops.

What is sent is the same message that DATA would have carried: line ends repaired, and the last line ended too.
"""

from smtp.line_ends import LineEnds

# A chunk is written once as much has been gathered, so that memory stays bounded whatever the size of the message. What
# the caller gives in one piece is never divided, and a message in one piece is one chunk.
CHUNK_OCTETS = 65536


class ChunkWriter:
    """Gathers content until a chunk's length is known. Never a bare CR or LF in what it gives out."""

    __slots__ = ("_gathered", "_line_ends", "_octets", "total")

    def __init__(self) -> None:
        self.total = 0
        """Octets given out."""
        self._gathered: list[bytes] = []
        self._octets = 0
        self._line_ends = LineEnds()

    def write(self, octets: bytes) -> bytes:
        """Take the next octets of the message. Returns a chunk of those before them, with its command, or b""."""
        if not octets:
            return b""
        chunk = self._chunk(b"\r\n") if self._octets >= CHUNK_OCTETS else b""
        self._gather(self._line_ends.write(octets))
        return chunk

    def end(self) -> bytes:
        """The last chunk, with its command. It may be an empty one."""
        self._gather(self._line_ends.end())
        if (self._gathered or self.total) and not self._ends_line():
            self._gather(b"\r\n")
        return self._chunk(b" LAST\r\n")

    def _gather(self, octets: bytes) -> None:
        if octets:
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
