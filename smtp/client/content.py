"""The content of one message on its way into a pipeline: as lines that a dot ends, or as chunks."""

from collections.abc import Mapping

from smtp.client.chunks import CHUNK_OCTETS, ChunkWriter
from smtp.client.pipeline import Pipeline
from smtp.client.sequence import Stage
from smtp.data import ContentWriter
from smtp.trace import Trace


def chunks_pay(extensions: Mapping[str, str], size: int | None) -> bool:
    """Whether chunks can be sent, and take no more round trips than DATA.

    Without PIPELINING one takes fewer, several take more.
    """
    if "CHUNKING" not in extensions:
        return False
    return "PIPELINING" in extensions or (size is not None and size < CHUNK_OCTETS)


class OutgoingContent:
    """One message's content. What is sent of it, and what of it is answered, the pipeline knows."""

    __slots__ = ("_chunks", "_dotted", "_octets", "_pipeline", "_trace", "in_chunks", "stage")

    def __init__(self, pipeline: Pipeline, trace: Trace | None, *, chunks: bool) -> None:
        self.in_chunks = chunks
        """Whether it goes by BDAT."""
        self.stage = Stage.BDAT if chunks else Stage.DATA
        """What would be lost in the middle of it."""
        self._pipeline = pipeline
        self._trace = trace
        self._chunks = ChunkWriter() if chunks else None
        self._dotted = ContentWriter()
        self._octets = 0

    def write(self, octets: bytes) -> None:
        """The next octets of the message, as they are: stuffing or counting is done here."""
        if self._chunks is None:
            self._octets += len(octets)
            self._pipeline.append(self._dotted.write(octets))
            return
        chunk = self._chunks.write(octets)
        if chunk:
            self._write_chunk(chunk, Stage.BDAT)

    def end(self) -> None:
        """The message is whole: write the final dot, or the last chunk."""
        if self._chunks is not None:
            self._write_chunk(self._chunks.end(), Stage.END_OF_DATA)
            return
        self._pipeline.say(Stage.END_OF_DATA, self._dotted.end())
        if self._trace is not None:
            self._trace(">", f"({self._octets} octets of content)")
            self._trace(">", ".")

    def _write_chunk(self, chunk: bytes, stage: Stage) -> None:
        self._pipeline.say(stage, chunk)
        if self._trace is not None:
            command, _, content = chunk.partition(b"\r\n")
            self._trace(">", command.decode("ascii"))
            self._trace(">", f"({len(content)} octets of content)")
