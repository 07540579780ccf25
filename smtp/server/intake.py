"""Content on its way in: the octets between commands that are none, by whichever way they come.

One unit at a time is awaited: all that follows 354, a chunk of BDAT, or a chunk that nobody wants. The session says
which one begins, hands over what has come, and takes out what is to be passed on; verdicts are its own affair.
"""

from enum import Enum

from smtp.data import ChunkReader, ContentChecks, ContentLimits, DataReader, Fault

# Content is passed on in pieces of at least this size, but for the end of a message: a client that sends it octet by
# octet must not make us hold a value of fifty octets for each.
PIECE_OCTETS = 8192


class Unit(Enum):
    """What is awaited."""

    NOTHING = "nothing"
    """Commands are."""
    DATA = "data"
    """A whole message, up to its final dot."""
    CHUNK = "chunk"
    """Part of a message."""
    LAST_CHUNK = "last chunk"
    """Its last part."""
    UNWANTED = "unwanted"
    """A chunk for which there is no transaction."""


class Intake:
    """The content of one session, message after message."""

    __slots__ = (
        "_checks",
        "_gathered",
        "_left",
        "_limits",
        "_reader",
        "_refused",
        "chunk_octets",
        "thrown_away",
        "unit",
        "whole",
    )

    def __init__(self, limits: ContentLimits) -> None:
        self.unit = Unit.NOTHING
        self.whole = False
        """Whether the unit has come to its end."""
        self.thrown_away = 0
        """Octets of this unit that came though nobody wanted them any more."""
        self.chunk_octets = 0
        """How large the present chunk is, as it was announced."""
        self._limits = limits
        self._checks = ContentChecks(limits)
        self._reader: DataReader | ChunkReader = DataReader(self._checks)
        self._gathered: bytes | bytearray = b""
        self._left = 0
        self._refused = False

    @property
    def fault(self) -> Fault | None:
        """What is wrong with the message so far."""
        return self._checks.fault

    @property
    def octets_seen(self) -> int:
        """Octets of the message so far (RFC 1870 §5)."""
        return self._checks.octets_seen

    def begin_data(self) -> None:
        """A message follows, ended by a dot."""
        self._begin_message()
        self._reader = DataReader(self._checks)
        self._begin(Unit.DATA)

    def begin_chunk(self, octets: int, *, first: bool, last: bool) -> None:
        """So many octets of a message follow."""
        if first:
            self._begin_message()
            self._reader = ChunkReader(self._checks)
        self.chunk_octets = self._left = octets
        self._begin(Unit.LAST_CHUNK if last else Unit.CHUNK)
        self.whole = octets == 0

    def begin_unwanted(self, octets: int) -> None:
        """So many octets follow that are to be thrown away."""
        self._left = octets
        self._begin(Unit.UNWANTED)
        self.whole = octets == 0

    def take(self, buffer: bytes, position: int) -> int:
        """Take what belongs to the unit from there on. Gives the position of what does not."""
        reader = self._reader
        if self.unit is Unit.DATA and isinstance(reader, DataReader):
            piece, rest = reader.read(buffer[position:] if position else buffer)
            end = len(buffer) - len(rest)
            self.whole = reader.ended
        else:
            end = min(position + self._left, len(buffer))
            self._left -= end - position
            self.whole = self._left == 0
            if self.unit is Unit.UNWANTED or isinstance(reader, DataReader):
                self.thrown_away += end - position
                return end
            piece = reader.read(buffer[position:end])
        if self._refused:
            self.thrown_away += end - position
        elif not self._gathered:
            self._gathered = piece
        else:
            if isinstance(self._gathered, bytes):
                self._gathered = bytearray(self._gathered)
            self._gathered += piece
        return end

    def piece(self) -> bytes:
        """What is to be passed on now; b"" where it is too little to bother anybody."""
        ends = self.whole and self.unit is not Unit.CHUNK
        if len(self._gathered) < PIECE_OCTETS and not ends:
            return b""
        gathered, self._gathered = self._gathered, b""
        return bytes(gathered)

    def refuse(self) -> None:
        """The rest of this message is not passed on."""
        self._refused = True
        self._gathered = b""

    def end(self) -> Unit:
        """The unit is whole: what it was. Commands follow. For the last chunk there may be one fault more."""
        unit, self.unit = self.unit, Unit.NOTHING
        self.whole = False
        if unit is Unit.LAST_CHUNK and isinstance(self._reader, ChunkReader):
            self._reader.end()
        return unit

    def _begin_message(self) -> None:
        self._checks = ContentChecks(self._limits)
        self._gathered = b""
        self._refused = False

    def _begin(self, unit: Unit) -> None:
        self.unit = unit
        self.whole = False
        self.thrown_away = 0
