"""Mail at a steady pace over a few connections, and how long each message waits for the reply to its final dot."""

import socket
import threading
import time
from collections.abc import Sequence
from typing import BinaryIO

from beside import Start

SENDER = "sender@example.net"
REPLY_S = 30.0
"""How long a reply is waited for."""
_LINE = b"x" * 70 + b"\r\n"


def send_paced(
    start: Start, port: int, recipients: Sequence[str], per_second: float, messages: int, size: int, sessions: int
) -> list[float]:
    """Send so many messages to these recipients by turns; the seconds from final dot to 250 of each.

    A message's time comes whether or not those before it have been answered, as long as a session is free. A part of a
    load (`beside.py`). AssertionError where a reply is not what it should be.
    """
    content = b"Subject: paced\r\n\r\n" + _LINE * (size // len(_LINE)) + b".\r\n"
    waited: list[float] = []
    failed: list[BaseException] = []
    connections = [_greeted(port) for _ in range(sessions)]
    start()
    began = time.monotonic()

    def send(first: int, connection: socket.socket, replies: BinaryIO) -> None:
        try:
            for number in range(first, messages, sessions):
                time.sleep(max(0.0, began + number / per_second - time.monotonic()))
                recipient = recipients[number % len(recipients)]
                connection.sendall(f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode())
                for code in (b"250", b"250", b"354"):
                    _expect(replies, code)
                dot = time.perf_counter()
                connection.sendall(content)
                _expect(replies, b"250")
                waited.append(time.perf_counter() - dot)
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            failed.append(error)

    threads = [threading.Thread(target=send, args=(first, *each)) for first, each in enumerate(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for connection, _ in connections:
        connection.close()
    if failed:
        raise failed[0]
    return waited


def _greeted(port: int) -> tuple[socket.socket, BinaryIO]:
    connection = socket.create_connection(("127.0.0.1", port), REPLY_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    replies = connection.makefile("rb")
    _expect(replies, b"220")
    connection.sendall(b"EHLO paced.example.net\r\n")
    _expect(replies, b"250")
    return connection, replies


def _expect(replies: BinaryIO, code: bytes) -> None:
    line = replies.readline()
    while line[3:4] == b"-":
        line = replies.readline()
    assert line[:3] == code, line
