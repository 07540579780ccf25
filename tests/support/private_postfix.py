"""A Postfix of our own, to compare with: its configuration and queue in one directory, its port on loopback.

It forwards one alias to one next hop and is tuned for that: no DNS, no content filter, no limits that slow a flood,
connections kept for the next message. It logs as it always does. The machine's own Postfix is neither used nor touched.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

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
smtp_connection_cache_destinations = [{next_hop}]:{next_port}
smtp_connection_cache_on_demand = yes
smtp_tls_security_level = none
smtpd_tls_security_level = none
header_checks =
queue_minfree = 0
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
postlog          unix-dgram n - n - 1 postlogd
"""


def is_installed() -> bool:
    """Only root can run one: Postfix changes to its own users."""
    return os.geteuid() == 0 and shutil.which("postfix", path=_PATH) is not None


_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


class PrivatePostfix:
    """Runs inside a `with`. `directory` must be one that the user postfix can reach."""

    def __init__(self, directory: Path, port: int, alias: str, target: str, next_hop: str, next_port: int) -> None:
        self.directory = directory
        self.port = port
        self.pid = 0
        self._config = directory / "config"
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("config", "queue", "data"):
            (directory / name).mkdir(mode=0o755, parents=True)
        shutil.chown(directory / "data", "postfix")
        (self._config / "main.cf").write_text(
            _MAIN.format(
                directory=directory,
                command_directory=_setting("command_directory"),
                daemon_directory=_setting("daemon_directory"),
                alias=alias,
                alias_domain=alias.partition("@")[2],
                target=target,
                next_hop=next_hop,
                next_port=next_port,
            )
        )
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

    def _postfix(self, command: str) -> None:
        subprocess.run(["postfix", "-c", str(self._config), command], env={**os.environ, "PATH": _PATH}, check=True)


def _setting(name: str) -> str:
    """One of the settings that Postfix was built with."""
    command = ["postconf", "-d", "-h", name]
    return subprocess.run(
        command, env={**os.environ, "PATH": _PATH}, check=True, capture_output=True, text=True
    ).stdout.strip()


def version() -> str:
    """Such as 3.7.11."""
    return _setting("mail_version")
