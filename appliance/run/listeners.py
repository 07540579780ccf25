"""What listens: sockets that the supervisor opens once and its children use, one generation after the other.

They stay open while a child is replaced, so that a client which comes in between waits for a moment and is not refused.
"""

import errno
import os
import socket
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from appliance.configuration import FROM_SYSTEMD, Configuration, ListenAddress
from appliance.run import CannotStart

BACKLOG = 1024
"""Connections that the kernel keeps while nobody accepts: what arrives during the replacement of a child."""
ENGINE_BACKLOG = 16
"""What waits for the engine: the control process and the command line; few at a time."""

Where = ListenAddress | Literal["fd"]
Protocol = Literal["smtp", "http"]
Open = Mapping[tuple[Protocol, Where], Sequence[socket.socket]]
"""Sockets by what they are for and how the configuration names them; `fd` may be several."""

# sd_listen_fds(3): the sockets that systemd hands over begin here.
_FIRST_FD = 3
# sun_path of unix(7) has 108 octets, the last of which is NUL.
_LONGEST_SOCKET_PATH = 107


def open_listeners(config: Configuration, kept: Open, own_pids: Sequence[int]) -> Open:
    """Open what this configuration names. What is in `kept` under the same name is used as it is.

    `own_pids` are the processes that LISTEN_PID may name. Raises CannotStart, and then nothing new is left open.
    """
    sockets: dict[tuple[Protocol, Where], Sequence[socket.socket]] = {}
    try:
        for protocol, where in wanted(config):
            known = kept.get((protocol, where))
            if known is not None:
                sockets[protocol, where] = known
            elif where == FROM_SYSTEMD:
                sockets[protocol, where] = _handed_over(protocol, config, own_pids)
            else:
                sockets[protocol, where] = [_listen(protocol, where)]
    except BaseException:
        close(without(sockets, kept))
        raise
    return sockets


def wanted(config: Configuration) -> Iterator[tuple[Protocol, Where]]:
    """What the configuration says to listen on."""
    for where in config.smtp.listen:
        yield "smtp", where
    for where in config.http.listen:
        yield "http", where


def of(protocol: Protocol, sockets: Open) -> list[socket.socket]:
    """The sockets for one protocol."""
    return [one for (its_protocol, _), some in sockets.items() if its_protocol == protocol for one in some]


def without(sockets: Open, others: Open) -> Open:
    """Those sockets that are not among the others."""
    return {key: some for key, some in sockets.items() if key not in others}


def close(sockets: Open) -> None:
    """Stop listening. The connections that were accepted go on."""
    for some in sockets.values():
        for one in some:
            one.close()


def described(sockets: Open) -> list[str]:
    """A line for each: `smtp listens on 127.0.0.1:2525`, with the port that it really is."""
    lines = []
    for (protocol, _), some in sockets.items():
        for one in some:
            name = one.getsockname()
            where = ListenAddress(name[0], name[1]) if isinstance(name, tuple) else f"unix:{name}"
            lines.append(f"{protocol} listens on {where}")
    return lines


def open_own_socket(path: Path, backlog: int) -> socket.socket:
    """Listen on a socket that only our own user can open. Call while holding the data directory.

    Raises CannotStart.
    """
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise CannotStart(f"the path {path} is too long for a socket; choose a shorter data_dir")
    try:
        if path.is_socket():
            path.unlink()  # Left behind by an appliance that was killed: whoever holds the directory is alone.
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The umask is not trusted with who may give orders: no one can connect before listen(2), and then it is 0600.
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(backlog)
    except OSError as error:
        raise CannotStart(f"the socket {path} cannot be made: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def _listen(protocol: Protocol, where: ListenAddress) -> socket.socket:
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            where.host, where.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, number)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # `[::]:25` is IPv6 and nothing else, so that `0.0.0.0:25` can stand beside it on every system.
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise CannotStart(f"{protocol} cannot listen on {where}: {_cause(error, where)}") from None
    return listener


def _cause(error: OSError, where: ListenAddress) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "something listens there already; stop that, or choose another port"
        case errno.EACCES | errno.EPERM:
            return (
                f"no permission for port {where.port}: give CAP_NET_BIND_SERVICE, use systemd/onward.service, "
                "or choose a port above 1023"
            )
        case errno.EADDRNOTAVAIL:
            return f"this machine has no address {where.host}; `ip address` lists those it has"
        case errno.EAFNOSUPPORT:
            return "this machine speaks no IPv6; leave the address out"
        case _:
            return error.strerror or str(error)


def _handed_over(protocol: Protocol, config: Configuration, own_pids: Sequence[int]) -> list[socket.socket]:
    """The sockets that systemd opened for this protocol (sd_listen_fds(3))."""
    advice = "start it through a systemd socket unit, or write an address in place of fd"
    pid, number = os.environ.get("LISTEN_PID", ""), os.environ.get("LISTEN_FDS", "")
    if pid not in map(str, own_pids) or not number.isdecimal():
        raise CannotStart(f"{protocol}.listen says fd, and no sockets were handed over; {advice}")
    fds = range(_FIRST_FD, _FIRST_FD + int(number))
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    if len(names) == len(fds) and protocol in names:
        fds_of_ours = [fd for fd, name in zip(fds, names, strict=True) if name == protocol]
    elif Counter(where for _, where in wanted(config))[FROM_SYSTEMD] == 1 and not {"smtp", "http"} & set(names):
        fds_of_ours = list(fds)
    else:
        raise CannotStart(f"none of the sockets handed over is for {protocol}; write FileDescriptorName={protocol}")
    return [_adopt(protocol, fd) for fd in fds_of_ours]


def _adopt(protocol: Protocol, fd: int) -> socket.socket:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise CannotStart(f"file descriptor {fd}, handed over for {protocol}, is not a socket")
        # A copy, so that closing it on a reload leaves the number to be adopted again.
        listener = socket.socket(fileno=os.dup(fd))
        if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.close()
            raise CannotStart(f"file descriptor {fd}, handed over for {protocol}, does not listen")
    except OSError as error:
        raise CannotStart(f"file descriptor {fd}, handed over for {protocol}: {error.strerror}") from None
    listener.setblocking(False)
    return listener
