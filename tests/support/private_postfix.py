"""A Postfix of our own, to compare with: its configuration and queue in one directory, its port on loopback.

It forwards one alias to one next hop and is tuned for that: no DNS, no content filter, no limits that slow a flood, no
process replaced after a hundred requests. Connections to the next hop are not kept: over loopback a new one costs less
than one that is handed on through the connection cache (1.7 ms of CPU a message against 2.0, and at best 920 messages/s
against 630, with twenty sessions). It logs as it always does. The machine's own Postfix is neither used nor touched.

`peer_settings` make of it what the other peers are: one domain stays in a maildir, others have routes, the rest is
refused.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from certificates import Files
from peer_programs import DELIVERED_DOMAIN, Route

_MAIN = """\
compatibility_level = 3.6
queue_directory = {directory}/queue
data_directory = {directory}/data
command_directory = {command_directory}
daemon_directory = {daemon_directory}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {directory}/log
maillog_file_prefixes = {directory}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtp_bind_address = 127.0.0.1
myhostname = mx.example.org
mynetworks =
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
virtual_alias_domains = {alias_domain}
virtual_alias_maps = inline:{{ {alias}={target} }}
relayhost = [{next_hop}]:{next_port}
smtpd_recipient_restrictions = reject_unauth_destination
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtp_dns_support_level = disabled
default_process_limit = 250
default_destination_concurrency_limit = 100
initial_destination_concurrency = 20
default_destination_concurrency_failed_cohort_limit = 0
qmgr_message_active_limit = 100000
qmgr_message_recipient_limit = 100000
in_flow_delay = 0
max_use = 10000
smtp_connection_cache_on_demand = no
smtp_tls_security_level = none
smtpd_tls_security_level = none
header_checks =
queue_minfree = 0
"""

_PEER = """\
smtpd_relay_restrictions = reject_unauth_destination
virtual_mailbox_domains = {delivered}
virtual_mailbox_base = {directory}
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
"""

_ROUTES = """\
relay_domains = {relayed}
relay_transport = smtp
transport_maps = inline:{{ {transports} }}
smtp_tls_policy_maps = inline:{{ {policies} }}
smtp_connection_cache_destinations = {cached}
smtp_connection_cache_on_demand = yes
smtp_destination_concurrency_limit = 1
"""

_MASTER = """\
127.0.0.1:{port} inet  n - n -    - smtpd
pickup           unix  n - n 60   1 pickup
cleanup          unix  n - n -    0 cleanup
qmgr             unix  n - n 300  1 qmgr
rewrite          unix  - - n -    - trivial-rewrite
bounce           unix  - - n -    0 bounce
defer            unix  - - n -    0 bounce
trace            unix  - - n -    0 bounce
verify           unix  - - n -    1 verify
flush            unix  n - n 1000? 0 flush
proxymap         unix  - - n -    - proxymap
smtp             unix  - - n -    - smtp
error            unix  - - n -    - error
retry            unix  - - n -    - error
anvil            unix  - - n -    1 anvil
scache           unix  - - n -    1 scache
tlsmgr           unix  - - n 1000? 1 tlsmgr
virtual          unix  - n n -    - virtual
postlog          unix-dgram n - n - 1 postlogd
"""


def is_installed() -> bool:
    """Only root can run one: Postfix changes to its own users."""
    return os.geteuid() == 0 and shutil.which("postfix", path=_PATH) is not None


_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


class PrivatePostfix:
    """Runs inside a `with`. `directory` must be one that the user postfix can reach."""

    def __init__(
        self,
        directory: Path,
        port: int,
        alias: str,
        target: str,
        next_hop: str,
        next_port: int,
        settings: str = "",
    ) -> None:
        """`settings` are further lines of main.cf; they have the last word."""
        self.directory = directory
        self.port = port
        self.pid = 0
        self._config = directory / "config"
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("config", "queue", "data"):
            (directory / name).mkdir(mode=0o755, parents=True)
        shutil.chown(directory / "data", "postfix")
        main = _MAIN.format(
            directory=directory,
            command_directory=_setting("command_directory"),
            daemon_directory=_setting("daemon_directory"),
            alias=alias,
            alias_domain=alias.partition("@")[2],
            target=target,
            next_hop=next_hop,
            next_port=next_port,
        )
        (self._config / "main.cf").write_text(_with_the_last_word(main, settings))
        (self._config / "master.cf").write_text(_MASTER.format(port=port))

    def __enter__(self) -> Self:
        """Returns once it listens."""
        # `postfix check` makes the directories of the queue; the master is then started without the scripts round it.
        self._postfix("check")
        master = f"{_setting('daemon_directory')}/master"
        self._process = subprocess.Popen(
            [master, "-c", str(self._config), "-s"], env={**os.environ, "MAIL_CONFIG": str(self._config)}
        )
        self.pid = self._process.pid
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the private Postfix does not start; see {self.directory}/log") from None
                time.sleep(0.02)
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def delivered(self) -> list[bytes]:
        """The messages in the mailbox of `peer_settings`: lines end in LF, below two fields that say who it was for."""
        return [path.read_bytes() for path in (self.directory / "box/new").glob("*")]

    def log(self) -> str:
        """What it says of its doings."""
        return (self.directory / "log").read_text(errors="replace")

    def _postfix(self, command: str) -> None:
        subprocess.run(["postfix", "-c", str(self._config), command], env={**os.environ, "PATH": _PATH}, check=True)


def peer_settings(directory: Path, routes: Sequence[Route] = (), certificate: Files | None = None) -> str:
    """Lines of main.cf that make a peer of it, which takes mail for one mailbox and for the domains with routes.

    Makes the mailbox, too.
    """
    owner = pwd.getpwnam("postfix")
    (directory / "box").mkdir(mode=0o750)
    shutil.chown(directory / "box", owner.pw_uid, owner.pw_gid)
    lines = _PEER.format(directory=directory, delivered=DELIVERED_DOMAIN, uid=owner.pw_uid, gid=owner.pw_gid)
    if routes:
        hops = {f"[127.0.0.1]:{route.port}": route for route in routes}
        lines += _ROUTES.format(
            relayed=", ".join(route.domain for route in routes),
            transports=", ".join(f"{{{route.domain} = smtp:{hop}}}" for hop, route in hops.items()),
            policies=", ".join(f"{{{hop} = {'encrypt' if route.tls else 'none'}}}" for hop, route in hops.items()),
            cached=", ".join(hops),
        )
    if certificate is not None:
        lines += "smtpd_tls_security_level = may\n"
        lines += f"smtpd_tls_cert_file = {certificate.certificate}\nsmtpd_tls_key_file = {certificate.key}\n"
    return lines


def _with_the_last_word(main: str, settings: str) -> str:
    """Postfix warns of a setting that is given twice."""
    names = {line.partition("=")[0].strip() for line in settings.splitlines()}
    kept = [line for line in main.splitlines() if line.partition("=")[0].strip() not in names]
    return "\n".join(kept) + "\n" + settings


def _setting(name: str) -> str:
    """One of the settings that Postfix was built with."""
    command = ["postconf", "-d", "-h", name]
    return subprocess.run(
        command, env={**os.environ, "PATH": _PATH}, check=True, capture_output=True, text=True
    ).stdout.strip()


def version() -> str:
    """Such as 3.7.11."""
    return _setting("mail_version")
