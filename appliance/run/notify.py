"""A word to systemd: sd_notify(3) is one datagram to the socket that $NOTIFY_SOCKET names.

Nothing here fails: without systemd there is no such socket, and one that is gone must not stop the mail.
"""

import os
import socket
import time

# sd_notify(3): the datagram is never worth waiting for.
_SEND_S = 1.0


def ready() -> None:
    """Everything listens and works."""
    _tell("READY=1")


def stopping() -> None:
    """The way down has begun."""
    _tell("STOPPING=1")


def reloading() -> None:
    """The configuration is read again; `ready` must follow."""
    # sd_notify(3) wants the instant along, so that it can tell this reload from the one before.
    _tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def _tell(state: str) -> None:
    name = os.environ.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return
    # unix(7): a name in the abstract namespace begins with NUL, which no variable of the environment can hold.
    address = "\0" + name[1:] if name.startswith("@") else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to_systemd:
        to_systemd.settimeout(_SEND_S)
        try:
            to_systemd.sendto(state.encode(), address)
        except OSError:
            pass
