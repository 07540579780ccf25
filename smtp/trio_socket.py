"""A connected socket under Trio: what both drivers have in common.

The standard socket, non-blocking: it is asked first, and waited for only when it has nothing. On a busy connection most
calls never reach the event loop. (`trio.SocketStream` with a cancel scope round every call costs more than twice the
time.) Deadlines are the callers': the server's sweeper, the client's cancel scope.

Error handling: OSError where the connection is broken; `receive` gives b"" where it was closed in good order.
"""

import socket

import trio

# One read. Large enough that a message of usual size comes in one piece.
RECEIVE_OCTETS = 65536
# After so many reads without a wait, others get a turn: a peer that sends faster than we work must not keep the loop.
READS_PER_TURN = 16
# What is read and thrown away before a close, so that the kernel does not answer unread octets with a reset that takes
# our last words with it.
LAST_READS = 4


class Socket:
    """A connected socket, owned: `close` closes it."""

    __slots__ = ("_reads_in_turn", "_socket")

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        # What either side says is small and awaited: it must not wait for the acknowledgement of what was said before.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._reads_in_turn = 0

    def receive_now(self) -> bytes | None:
        """What has come; b"" where nothing will come any more, None where nothing has come yet."""
        try:
            return self._socket.recv(RECEIVE_OCTETS)
        except BlockingIOError:
            return None

    async def readable(self) -> None:
        """Wait until there is something to receive."""
        self._reads_in_turn = 0
        await trio.lowlevel.wait_readable(self._socket)

    async def take_turns(self) -> None:
        """Let others run, now and then. To be called once for each read that did not wait."""
        self._reads_in_turn += 1
        if self._reads_in_turn >= READS_PER_TURN:
            self._reads_in_turn = 0
            await trio.lowlevel.checkpoint()

    def send_now(self, octets: bytes | memoryview) -> bytes | memoryview:
        """Send what can be sent at once; returns the rest."""
        try:
            sent = self._socket.send(octets)
        except BlockingIOError:
            return octets
        return b"" if sent == len(octets) else memoryview(octets)[sent:]

    async def writable(self) -> None:
        """Wait until something can be sent."""
        await trio.lowlevel.wait_writable(self._socket)

    def quiet(self) -> bool:
        """Whether the connection stands and nothing has come unasked."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Say that nothing more will come, and let go. Never raises; may be called again."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            for _ in range(LAST_READS):
                if not self._socket.recv(RECEIVE_OCTETS):
                    break
        except OSError:
            # Nothing more to read yet, or the connection is gone already.
            pass
        self._socket.close()
