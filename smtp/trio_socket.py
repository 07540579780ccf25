"""A connected socket under Trio, in clear or under TLS: what both drivers have in common.

The standard socket, non-blocking: it is asked first, and waited for only when it has nothing. On a busy connection most
calls never reach the event loop. (`trio.SocketStream` with a cancel scope round every call costs more than twice the
time.) Deadlines are the callers': the server's sweeper, the client's cancel scope.

After `start_tls` the same verbs work over the standard library's `ssl`. What is different there stays in this file: a
read may have to write first and the other way round (a change of keys, RFC 8446 §4.6.3), a socket that the kernel calls
quiet may have octets that OpenSSL has decrypted already, and what does not fit is remembered, in part sent, until
the very same octets are offered again.

Error handling: OSError, of which ssl.SSLError is one, where the connection is broken or TLS has failed; `receive_now`
gives b"" where it was closed in good order. An end without close_notify counts as good order, because SMTP says by
itself where each thing it says has ended.
"""

import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from smtp.tls import TlsFacts, facts

# One read. Large enough that a message of usual size comes in one piece.
RECEIVE_OCTETS = 65536
# After so many reads without a wait, others get a turn: a peer that sends faster than we work must not keep the loop.
READS_PER_TURN = 16
# What is read and thrown away before a close, so that the kernel does not answer unread octets with a reset that takes
# our last words with it.
LAST_READS = 4
# RFC 1035 §2.3.4: a domain name has at most 255 octets, two of which are not seen in its text.
MAX_NAME_OCTETS = 253


class Socket:
    """A connected socket, owned: `close` closes it."""

    __slots__ = (
        "_half_sent",
        "_read_writes",
        "_reads_in_turn",
        "_secured",
        "_socket",
        "_write_reads",
        "readable",
        "tls",
    )

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        # What either side says is small and awaited: it must not wait for the acknowledgement of what was said before.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls: TlsFacts | None = None
        """What was negotiated, once `start_tls` has succeeded."""
        self.readable: Callable[[], Awaitable[None]] = partial(trio.lowlevel.wait_readable, connected)
        """Wait until there is something to receive. (In clear nothing stands between this and Trio: it is called at
        every turn of every conversation.)"""
        self._socket = connected
        self._secured: ssl.SSLSocket | None = None
        self._reads_in_turn = 0
        # What OpenSSL waits for, where it is not what one would think.
        self._read_writes = False
        self._write_reads = False
        # What was offered to OpenSSL and did not fit. Part of it may be sent: only OpenSSL knows how much.
        self._half_sent: bytes | memoryview | None = None

    async def start_tls(
        self, context: ssl.SSLContext, *, server_side: bool, server_name: str | None = None
    ) -> TlsFacts:
        """Shake hands. Nothing that belongs to TLS may have been received, and nothing in clear may be unsent.

        `server_name` is whom the client wants to speak to: it is sent along (RFC 6066 §3), and the certificate is held
        against it where the context says so. Raises OSError, after which only `close` is left.
        """
        if server_name is not None:
            _check_name(server_name)
        self._socket = self._secured = secured = context.wrap_socket(
            self._socket,
            server_side=server_side,
            server_hostname=server_name,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=True,
        )
        while True:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(secured)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(secured)
            else:
                self.tls = facts(secured)
                self.readable = self._readable_under_tls
                return self.tls

    def receive_now(self) -> bytes | None:
        """What has come; b"" where nothing will come any more, None where nothing has come yet."""
        try:
            return self._socket.recv(RECEIVE_OCTETS)
        except BlockingIOError:
            return None
        except ssl.SSLWantReadError:
            self._read_writes = False
            return None
        except ssl.SSLWantWriteError:
            self._read_writes = True
            return None

    async def _readable_under_tls(self) -> None:
        """What `readable` is then. It may turn out to be nothing: ask, and wait again."""
        secured = self._secured
        if secured is not None and secured.pending():
            await trio.lowlevel.checkpoint()
        elif self._read_writes:
            await trio.lowlevel.wait_writable(self._socket)
        else:
            await trio.lowlevel.wait_readable(self._socket)

    async def take_turns(self) -> None:
        """Let others run, now and then. To be called once for each read that did not wait."""
        self._reads_in_turn += 1
        if self._reads_in_turn >= READS_PER_TURN:
            self._reads_in_turn = 0
            await trio.lowlevel.checkpoint()

    def send_now(self, octets: bytes | memoryview) -> bytes | memoryview:
        """Send what can be sent at once; returns the rest, which is the next thing to be offered."""
        if self._secured is not None:
            return self._send_secured(octets)
        try:
            sent = self._socket.send(octets)
        except BlockingIOError:
            return octets
        return b"" if sent == len(octets) else memoryview(octets)[sent:]

    async def writable(self) -> None:
        """Wait until something can be sent. (Under TLS it may turn out to be nothing: offer it, and wait again.)"""
        if self._write_reads:
            await trio.lowlevel.wait_readable(self._socket)
        else:
            await trio.lowlevel.wait_writable(self._socket)

    def stop_waiting(self) -> None:
        """Whoever waits for this socket gets trio.ClosedResourceError; where nobody waits, nothing happens."""
        trio.lowlevel.notify_closing(self._socket)

    def quiet(self) -> bool:
        """Whether the connection stands and nothing has come unasked. Where it says no, only `close` is left: under TLS
        nothing can be looked at without taking it.
        """
        try:
            if self._secured is None:
                self._socket.recv(1, socket.MSG_PEEK)
            else:
                self._secured.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Say that nothing more will come, and let go. Never raises; may be called again."""
        if self._secured is not None:
            try:
                # close_notify (RFC 8446 §6.1). That of the other side is not waited for.
                self._secured.unwrap()
            except (OSError, ValueError):
                # Said, with no answer yet; or it does not fit, or the handshake has failed, or all is closed already.
                pass
        try:
            self._socket.shutdown(socket.SHUT_WR)
            for _ in range(LAST_READS):
                if not self._socket.recv(RECEIVE_OCTETS):
                    break
        except OSError:
            # Nothing more to read yet, or the connection is gone already.
            pass
        self._socket.close()
        # Under TLS it was bound to this object: without it nothing here refers to itself, and memory is free at once.
        self.readable = trio.lowlevel.checkpoint

    def _send_secured(self, octets: bytes | memoryview) -> bytes | memoryview:
        if self._half_sent is not None and self._half_sent is not octets:
            # OpenSSL would go on with the octets it knows, and take these for sent.
            raise ConnectionAbortedError(errno.ECONNABORTED, "something else was being sent")
        try:
            sent = self._socket.send(octets)
        except ssl.SSLWantWriteError:
            self._write_reads = False
        except ssl.SSLWantReadError:
            self._write_reads = True
        else:
            self._half_sent = None
            return b"" if sent == len(octets) else memoryview(octets)[sent:]
        self._half_sent = octets
        return octets


def _check_name(server_name: str) -> None:
    """Found out before the socket is handed over: `ssl` would lose it, and has ValueError and TypeError for some."""
    try:
        server_name.encode("idna")
    except UnicodeError:
        fits = False
    else:
        # RFC 6066 §3: a name is not empty. A dot in front and a NUL are what `ssl` cannot take, and OpenSSL no more
        # octets than a domain name may have (RFC 1035 §2.3.4).
        fits = 0 < len(server_name) <= MAX_NAME_OCTETS and server_name[0] != "." and server_name.isprintable()
    if not fits:
        raise OSError(errno.EINVAL, "no server can have this name")
