"""What the mail servers of others have in common when they run in tests: where they are, and how one is started.

A peer runs in the foreground with its configuration, spool and log in one directory, on a port of loopback, for as long
as a `with` lasts. The machine's own mail system is neither used nor touched.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PLACE = Path("/usr/local/lib/onward-peers")
"""Where tests/install-peers puts servers that cannot be installed beside Postfix."""

HOW_TO_GET_THEM = "run tests/install-peers as root"

PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
"""Debian keeps programs of mail servers where the path of a user who is not root does not look."""

LIMIT_S = 20.0
"""No peer takes longer to start or to end. Reached only where something is broken."""

DELIVERED_DOMAIN = "box.test"
"""Mail to this domain stays with the peer, and can be read there."""

UNWELCOME_DOMAIN = "elsewhere.test"
"""Mail to this one is refused at RCPT."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a peer is to carry the mail of a domain."""

    domain: str
    port: int
    tls: bool
    """Whether it must encrypt, or must not."""


@contextmanager
def public_directory() -> Iterator[Path]:
    """A directory that users of mail servers can reach, which those of pytest are not."""
    directory = Path(tempfile.mkdtemp(prefix="onward-peer-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def free_port() -> int:
    """A port on which nothing listens, for programs that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[int]:
    """Run a server until the block is left; its process id. It listens when the block begins.

    What it prints goes to `log`. Raises RuntimeError with the end of that where it does not start.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PATH": PATH},
            start_new_session=True,
        )
    try:
        _await_listening(process, port, log)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            pass
        # Children that outlive their parent are in its session still.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


def _await_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                words = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{process.args!r} does not start: {words}") from None
            time.sleep(0.02)
        else:
            return


def user_exists(name: str) -> bool:
    """Whether the machine has a user of this name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
