"""An Exim of our own: its configuration, spool, log and mailbox in one directory, its port on loopback.

It delivers one domain to a maildir, carries those it has routes for to a port of loopback, and refuses any other. It
offers all that Debian's Exim can: PIPELINING, CHUNKING, 8BITMIME, SMTPUTF8, DSN, and STARTTLS by GnuTLS.

It runs from a place of its own, without the setuid bit. Exim looks askance at a configuration that is not its own:
the file has to belong to root, root has to start it, and what runs as another user must not try to become root again
(`deliver_drop_privilege`).
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from certificates import Files
from peer_programs import (
    DELIVERED_DOMAIN,
    PLACE,
    Route,
    free_port,
    running,
    user_exists,
)

EXIM = PLACE / "exim4"
USER = "Debian-exim"
"""Compiled in: without it, Exim does not even say its version."""

_MAIN = """\
primary_hostname = mx.exim.test
keep_environment =
exim_path = {exim}
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path = {directory}/pid
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
exim_user = {user}
exim_group = {user}
deliver_drop_privilege = true
acl_smtp_rcpt = check_rcpt
acl_smtp_data = accept
acl_smtp_vrfy = accept
chunking_advertise_hosts = *
pipelining_advertise_hosts = *
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
{tls}
message_size_limit = 10M
host_lookup =
rfc1413_query_timeout = 0s
timezone = UTC
queue_only = {queue_only}
begin acl
check_rcpt:
  accept domains = {domains}
  deny
begin routers
box:
  driver = accept
  domains = {delivered}
  transport = box
"""

_ROUTER = """\
{name}:
  driver = manualroute
  domains = {domain}
  route_list = * 127.0.0.1
  self = send
  transport = {name}
"""

_BOX = """\
begin transports
box:
  driver = appendfile
  directory = {directory}/box
  user = {user}
  maildir_format
  use_crlf
"""

# Whoever does not know it would take no mail to a loopback address.
_TRANSPORT = """\
{name}:
  driver = smtp
  port = {port}
  allow_localhost
  {tls} = *
"""

_RETRY = "begin retry\n* * F,1h,1m\n"


def is_installed() -> bool:
    """Only root can run one: Exim changes to its own user."""
    return os.geteuid() == 0 and EXIM.exists() and user_exists(USER)


class PrivateExim:
    """Runs inside a `with`. `directory` must be one that its user can reach.

    Where it is `queueing`, it keeps what it is to carry until `run_queue`.
    """

    def __init__(
        self,
        directory: Path,
        routes: Sequence[Route] = (),
        certificate: Files | None = None,
        *,
        queueing: bool = False,
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.pid = 0
        self._stack = ExitStack()
        self._config = directory / "exim.conf"
        for name in ("spool", "log", "box"):
            (directory / name).mkdir(mode=0o750, parents=True)
            shutil.chown(directory / name, USER, USER)
        self._config.write_text(self._configuration(routes, certificate, queueing))

    def _configuration(self, routes: Sequence[Route], certificate: Files | None, queueing: bool) -> str:
        tls = "tls_advertise_hosts ="
        if certificate is not None:
            # Its own copies: another user reads them.
            own = Files(self.directory / "certificate.pem", self.directory / "key.pem")
            for original, copy in ((certificate.certificate, own.certificate), (certificate.key, own.key)):
                shutil.copyfile(original, copy)
                shutil.chown(copy, USER, USER)
                copy.chmod(0o600)
            tls = f"tls_advertise_hosts = *\ntls_certificate = {own.certificate}\ntls_privatekey = {own.key}"
        domains = [DELIVERED_DOMAIN, *(route.domain for route in routes)]
        main = _MAIN.format(
            directory=self.directory,
            port=self.port,
            exim=EXIM,
            user=USER,
            tls=tls,
            queue_only="true" if queueing else "false",
            domains=" : ".join(domains),
            delivered=DELIVERED_DOMAIN,
        )
        routers, transports = "", ""
        for number, route in enumerate(routes):
            name = f"route{number}"
            routers += _ROUTER.format(name=name, domain=route.domain)
            transports += _TRANSPORT.format(
                name=name, port=route.port, tls="hosts_require_tls" if route.tls else "hosts_avoid_tls"
            )
        box = _BOX.format(directory=self.directory, user=USER)
        return main + routers + box + transports + _RETRY

    def __enter__(self) -> Self:
        """Returns once it listens."""
        command = [str(EXIM), "-C", str(self._config), "-bdf"]
        self.pid = self._stack.enter_context(running(command, self.port, self.directory / "output"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def run_queue(self) -> None:
        """Carry all that waits. Routing comes first, so that messages to one host go over one connection."""
        subprocess.run([EXIM, "-C", self._config, "-qqff"], check=True, timeout=60)

    def delivered(self) -> list[bytes]:
        """The messages in the mailbox, as they are in their files: lines end in CRLF."""
        return [path.read_bytes() for path in (self.directory / "box/new").glob("*")]

    def log(self) -> str:
        """What it says of its doings."""
        return "".join(path.read_text(errors="replace") for path in (self.directory / "log").iterdir())


def version() -> str:
    """Such as 4.96."""
    words = subprocess.run([EXIM, "-C", "/dev/null", "-bV"], check=True, capture_output=True, text=True).stdout.split()
    return words[words.index("version") + 1]
