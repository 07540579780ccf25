"""Making a TCP connection to one address."""

import errno
import os
import socket

import trio

from smtp.client.conversation import reason
from smtp.client.errors import ConnectError
from smtp.trio_socket import Socket


async def dial(address: str, port: int, source_address: str | None, timeout_s: float) -> Socket:
    """Connect within so many seconds, from the source address where there is one. Raises ConnectError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        # EAFNOSUPPORT where the kernel has no IPv6, EMFILE where too many files are open.
        connecting = socket.socket(family, socket.SOCK_STREAM)
    except OSError as refused:
        raise ConnectError(f"connect: {reason(refused)}") from None
    try:
        connecting.setblocking(False)
        if source_address is not None:
            connecting.bind((source_address, 0))
        error = connecting.connect_ex((address, port))
        if error == errno.EINPROGRESS:
            with trio.fail_after(timeout_s):
                await trio.lowlevel.wait_writable(connecting)
            error = connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        return Socket(connecting)
    except trio.TooSlowError:
        connecting.close()
        raise ConnectError("connect: timed out") from None
    except OSError as error:
        connecting.close()
        raise ConnectError(f"connect: {reason(error)}") from None
    except BaseException:
        connecting.close()
        raise
