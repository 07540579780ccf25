"""A TCP line to a server on loopback that a test can hold, cut, slow down, or break in the middle of one command.

Whoever is given the line's port instead of the server's speaks with the server through it. What is on its way while the
line is held waits and arrives later, as it does where a cable is pulled and put back; where it is cut, connections are
reset and no other is made.
"""

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no seconds: closing says so with a reset."""


class BadLine:
    """One line, good until it is told otherwise. Runs inside a `with`."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """`port` and `host` are the server's, which need not be there yet."""
        self.delay_s = 0.0
        """By how much later everything arrives, each way."""
        self.is_tripped = threading.Event()
        """What `hold_at` waited for has come."""
        self._server = host, port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port: int = self._listener.getsockname()[1]
        self._is_cut = False
        self._holding = False
        self._tripwire: tuple[bytes, bool] | None = None
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._is_closed = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    # ------------------------------------------------------------------ what it does

    def hold(self) -> None:
        """Pass nothing on, either way, and break nothing off."""
        with self._changed:
            self._holding = True

    def let_go(self) -> None:
        """Go on, with all that has waited."""
        with self._changed:
            self._holding = False
            self._tripwire = None
            self._changed.notify_all()

    def hold_at(self, octets: bytes, *, passed: bool) -> None:
        """Hold as soon as the appliance sends a command with these octets in it.

        `passed`: the server still gets it, and its answer is what waits; else it waits itself.
        """
        self.is_tripped.clear()
        with self._changed:
            self._tripwire = octets, passed

    def cut(self) -> None:
        """Reset the connections that there are, and each that is tried."""
        with self._changed:
            self._is_cut = True
            ending = list(self._open)
            self._changed.notify_all()
        for each in ending:
            _reset(each)

    def mend(self) -> None:
        """Let connections be made again."""
        with self._changed:
            self._is_cut = False
        self.let_go()

    # ------------------------------------------------------------------ the octets

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                continue
            threading.Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._server, timeout=5)
        except OSError:
            _reset(near)
            near.close()
            return
        for each in (near, far):
            each.settimeout(None)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._changed:
            self._open |= {near, far}
            if self._is_cut:
                _reset(near)
                _reset(far)
        answering = threading.Thread(target=self._pass_on, args=(far, near, False), daemon=True)
        answering.start()
        self._pass_on(near, far, True)
        answering.join()
        with self._changed:
            self._open -= {near, far}
        near.close()
        far.close()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_asking: bool) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(1 << 18):
                if self.delay_s:
                    time.sleep(self.delay_s)
                with self._changed:
                    if self._tripwire is not None and is_asking and self._tripwire[0] in octets:
                        (_, passed), self._tripwire, self._holding = self._tripwire, None, True
                        self.is_tripped.set()
                        if passed:
                            target.sendall(octets)
                            continue
                    while self._holding and not self._is_cut:
                        self._changed.wait()
                    if self._is_cut:
                        break
                target.sendall(octets)
        # The other direction ends with this one: neither of the two servers half-closes.
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _reset(connection: socket.socket) -> None:
    """End a connection at once; whoever reads from it is woken and closes it."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RDWR)
