"""What a client that does nothing costs the SMTP server in memory: a thousand idle sessions, and what they hold.

The sessions come from several addresses of 127.0.0.0/8. Three kinds, one after another, each with a server of its own:
greeted and EHLO said; with a transaction open (MAIL and RCPT accepted); and under TLS, where the server offers it.

    python tests/bench/idle.py --sessions 1000

The aim is less than 8 MB more for a thousand sessions without TLS. RSS and PSS are the server's; what the kernel
holds for a socket is not in them. A warm-up before the first look leaves nothing to be imported or allocated once.
"""

import argparse
import contextlib
import json
import resource
import socket
import ssl
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import process_tree
from lone_server import LoneServer

from smtp.tls import opportunistic_context

PER_ADDRESS = 20
"""Sessions from one address: as many as the server lets in where nothing else is said."""
WARM_UP = 50
"""Sessions opened and closed before the first look at the memory."""
AIM_MB = 8.0
"""For a thousand sessions, in units of 10**6 octets."""
REPLY_WITHIN = 30.0
"""Seconds for one reply."""

KINDS = {
    "greeted": ("EHLO client.example.org",),
    "in a transaction": ("EHLO client.example.org", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.com>"),
    "under TLS": ("EHLO client.example.org", "STARTTLS", "EHLO client.example.org"),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Octets of the server process."""

    kind: str
    sessions: int
    resident_before: int
    resident_after: int
    proportional_before: int
    proportional_after: int

    @property
    def more(self) -> int:
        """What the sessions have added to the process."""
        return self.resident_after - self.resident_before


def speak(number: int, port: int, lines: Sequence[str], context: ssl.SSLContext) -> socket.socket:
    """Open a session, say these lines, and leave it open. Raises OSError, or ConnectionError where one is refused."""
    # Behind 127.0.0.1, where servers listen.
    address = f"127.0.{1 + number // PER_ADDRESS // 250}.{1 + number // PER_ADDRESS % 250}"
    connection = socket.create_connection(("127.0.0.1", port), REPLY_WITHIN, source_address=(address, 0))
    read_reply(connection)
    for line in lines:
        connection.sendall(f"{line}\r\n".encode("ascii"))
        read_reply(connection)
        if line == "STARTTLS":
            connection = context.wrap_socket(connection)
    return connection


def read_reply(connection: socket.socket) -> str:
    """A positive reply of one line or more."""
    reply = b""
    while not reply.endswith(b"\n") or reply.rpartition(b"\r\n")[0].rpartition(b"\n")[2][3:4] == b"-":
        octets = connection.recv(4096)
        if not octets:
            raise ConnectionError("the server has closed the connection")
        reply += octets
    if not reply.startswith(b"2"):
        raise ConnectionError(reply.decode("ascii", "replace"))
    return reply.decode("ascii")


@contextlib.contextmanager
def open_sessions(
    count: int, port: int, lines: Sequence[str], context: ssl.SSLContext
) -> Iterator[list[socket.socket]]:
    """So many sessions, closed at the end."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(speak(number, port, lines, context)) for number in range(count)]


def measure(kind: str, count: int) -> Figures | None:
    """One kind of session; None where the server does not offer what it needs."""
    lines, context = KINDS[kind], opportunistic_context()
    with LoneServer(tls="STARTTLS" in lines, max_connections=count + WARM_UP) as server:
        with socket.create_connection(("127.0.0.1", server.port), REPLY_WITHIN) as probe:
            read_reply(probe)
            probe.sendall(b"EHLO client.example.org\r\n")
            if "STARTTLS" in lines and "STARTTLS" not in read_reply(probe):
                return None
        with open_sessions(WARM_UP, server.port, lines, context):
            pass
        deadline = time.monotonic() + REPLY_WITHIN
        while server.counters(collect=True)["connections_open"]:
            # They are gone here and not yet there.
            if time.monotonic() > deadline:
                sys.exit("the server does not let go of sessions that have ended")
        before = process_tree.resident_octets(server.pid), process_tree.proportional_octets(server.pid)
        with open_sessions(count, server.port, lines, context):
            connections = server.counters(collect=True)["connections_open"]
            if connections != count:
                sys.exit(f"the server has {connections} sessions open, not {count}")
            after = process_tree.resident_octets(server.pid), process_tree.proportional_octets(server.pid)
    return Figures(kind, count, before[0], after[0], before[1], after[1])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    of_kinds = {kind: measure(kind, arguments.sessions) for kind in KINDS}
    if arguments.json:
        print(json.dumps([asdict(figures) for figures in of_kinds.values() if figures], indent=2))
        return
    print(f"{arguments.sessions} sessions; the aim is {AIM_MB:.0f} MB more for a thousand without TLS\n")
    print(f"{'':18}{'RSS MB before':>15}{'after':>8}{'PSS MB before':>15}{'after':>8}{'MB more':>9}{'octets each':>13}")
    for kind, figures in of_kinds.items():
        if figures is None:
            print(f"{kind:18}{'not offered':>15}")
            continue
        print(
            f"{kind:18}{figures.resident_before / 1e6:15.1f}{figures.resident_after / 1e6:8.1f}"
            f"{figures.proportional_before / 1e6:15.1f}{figures.proportional_after / 1e6:8.1f}"
            f"{figures.more / 1e6:9.1f}{figures.more / figures.sessions:13.0f}"
        )


if __name__ == "__main__":
    main()
