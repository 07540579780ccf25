"""An OpenSMTPD of our own: its port on loopback, and everything it writes in one directory.

The places of its spool and its sockets are compiled in. It runs in a mount namespace in which those are directories of
ours, so that the machine's are neither used nor seen; that needs root, and a machine that allows it.

It carries the domains it has routes for to a port of loopback, and refuses any other but one, whose mail stays in its
queue, where it can be read. Debian 12's (6.8.0p2 with OpenSSL 3) has two faults that narrow this. As a server it breaks
off every TLS handshake ("EVP lib"; its way of keeping the key in another process is not that of OpenSSL 3), so that it
offers none here; as a client it can do TLS. And a local delivery ends in a crash of its own child.
"""

import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from peer_programs import DELIVERED_DOMAIN, PLACE, Route, free_port, running, user_exists

SMTPD = PLACE / "smtpd"
USERS = ("opensmtpd", "opensmtpq")
"""Compiled in."""

_START = """\
set -e
mount --bind {directory}/spool /var/spool
mount --bind {directory}/run /run
mount --bind {directory}/lib /var/lib
exec {smtpd} -d -f {directory}/smtpd.conf
"""

# It would wait for five seconds before it connects to the same address again.
_MAIN = """\
listen on 127.0.0.1 port {port} hostname mx.opensmtpd.test
smtp max-message-size 10M
mta limit conn-delay-route 0
action "stays" relay host "smtp+notls://127.0.0.1:{nowhere}" helo mx.opensmtpd.test
match from any for domain "{delivered}" action "stays"
"""


def obstacle() -> str:
    """Why none can be run here; empty where one can."""
    if os.geteuid() != 0:
        return "only root can run OpenSMTPD"
    if not SMTPD.exists() or not all(map(user_exists, USERS)):
        return "OpenSMTPD is missing"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        return "OpenSMTPD needs a mount namespace, and this machine allows none"
    return ""


class PrivateOpenSmtpd:
    """Runs inside a `with`. `directory` must be one that its users can reach."""

    def __init__(self, directory: Path, routes: Sequence[Route] = ()) -> None:
        self.directory = directory
        self.port = free_port()
        self.pid = 0
        self._stack = ExitStack()
        for name in ("spool/smtpd", "run", "lib/opensmtpd/empty"):
            (directory / name).mkdir(mode=0o755, parents=True)
        (directory / "spool/smtpd").chmod(0o711)
        # Nobody listens here, and nobody else can, as long as it is held.
        nowhere = self._stack.enter_context(socket.socket())
        nowhere.bind(("127.0.0.1", 0))
        main = _MAIN.format(port=self.port, nowhere=nowhere.getsockname()[1], delivered=DELIVERED_DOMAIN)
        for route in routes:
            scheme, tls = ("smtp+tls", " tls no-verify") if route.tls else ("smtp+notls", "")
            host = f'"{scheme}://127.0.0.1:{route.port}"'
            main += f'action "to {route.domain}" relay host {host}{tls} helo mx.opensmtpd.test\n'
            main += f'match from any for domain "{route.domain}" action "to {route.domain}"\n'
        (directory / "smtpd.conf").write_text(main)
        (directory / "smtpd.conf").chmod(0o600)
        (directory / "start").write_text(_START.format(directory=directory, smtpd=SMTPD))

    def __enter__(self) -> Self:
        """Returns once it listens."""
        command = ["unshare", "--mount", "--propagation", "private", "sh", str(self.directory / "start")]
        self.pid = self._stack.enter_context(running(command, self.port, self.directory / "output"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def delivered(self) -> list[bytes]:
        """The messages that stay in the queue: lines end in LF."""
        return [path.read_bytes() for path in (self.directory / "spool/smtpd/queue").glob("*/*/message")]

    def log(self) -> str:
        """What it says of its doings."""
        return (self.directory / "output").read_text(errors="replace")


def version() -> str:
    """Such as 6.8.0p2."""
    words = subprocess.run([SMTPD, "-h"], capture_output=True, text=True).stderr.split()
    return words[words.index("OpenSMTPD") + 1]
