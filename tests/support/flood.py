"""Postfix's pair of load generators: smtp-source, which sends a flood, and smtp-sink, which swallows one."""

import os
import pwd
import socket
import subprocess
import time
from dataclasses import dataclass

SENDER = "sender@example.net"

os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Load:
    """What is sent in one round."""

    messages: int
    sessions: int
    size: int
    connections_kept: bool
    """Whether a connection carries many messages; else it is closed after one."""


def source_command(load: Load, recipient: str, address: str, port: int) -> list[str]:
    """How smtp-source sends this load."""
    command = ["smtp-source", "-s", str(load.sessions), "-m", str(load.messages), "-l", str(load.size)]
    command += ["-f", SENDER, "-t", recipient] + (["-d"] if load.connections_kept else [])
    return [*command, f"inet:{address}:{port}"]


def start_sink(address: str, port: int, *options: str) -> "subprocess.Popen[bytes]":
    """smtp-sink, once it listens; what it prints goes to a pipe."""
    command = ["smtp-sink", *options]
    if os.geteuid() == 0:
        # It insists on being told whom to become.
        command += ["-u", pwd.getpwuid(os.geteuid()).pw_name]
    process = subprocess.Popen([*command, f"{address}:{port}", "1000"], stdout=subprocess.PIPE)
    wait_for_port(address, port)
    return process


def free_port(address: str) -> int:
    """A port on which nothing listens, for programs that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(address: str, port: int) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection((address, port), timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
