"""What lies under every layer of mail: waits of Trio, hops between threads, calls of the kernel.

What one of them costs, and how many a message needs whose client does not pipeline.
"""

import contextlib
import os
import select
import socket
from collections.abc import Callable, Iterator

import trio
from microseconds import Layer, Once, microseconds, microseconds_in_trio


def underneath_layers(content: bytes) -> Iterator[Layer]:
    """Waits, hops between threads, calls of the kernel: what one costs, and how many there are."""

    async def hand_over(count: int) -> None:
        lots = trio.lowlevel.ParkingLot(), trio.lowlevel.ParkingLot()

        async def player(mine: int) -> None:
            for _ in range(count):
                lots[1 - mine].unpark()
                await lots[mine].park()
            lots[1 - mine].unpark()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(player, 0)
            nursery.start_soon(player, 1)

    async def checkpoints(count: int) -> None:
        for _ in range(count):
            await trio.lowlevel.checkpoint()

    async def wait_readable(count: int) -> None:
        one, other = socket.socketpair()
        one.send(b"x")
        for _ in range(count):
            await trio.lowlevel.wait_readable(other)
        one.close()
        other.close()

    async def thread_hop(count: int) -> None:
        for _ in range(count):
            await trio.to_thread.run_sync(int)

    async def scope(count: int) -> None:
        for _ in range(count):
            with trio.CancelScope() as cancel_scope:
                cancel_scope.deadline = 1e9

    yield Layer("underneath", "Trio: a task parked, and woken by another", microseconds_in_trio(hand_over) / 2, times=3)
    yield Layer("underneath", "Trio: a checkpoint", microseconds_in_trio(checkpoints), times=0)
    yield Layer(
        "underneath", "Trio: wait_readable of a socket that is readable", microseconds_in_trio(wait_readable), times=6
    )
    yield Layer("underneath", "Trio: a cancel scope with a deadline", microseconds_in_trio(scope), times=0)
    yield Layer("underneath", "Trio: a hop to a thread and back", microseconds_in_trio(thread_hop), times=0)
    yield from _kernel_layers(content)


def _kernel_layers(content: bytes) -> Iterator[Layer]:
    """Sockets and epoll, over TCP on loopback as in the bench. A send does the receiving end's work, too."""
    near, far = tcp_pair()
    far.setblocking(False)
    poll = select.epoll()
    poll.register(far, select.EPOLLIN | select.EPOLLONESHOT)

    def exchange(octets: bytes) -> Callable[[], None]:
        def run() -> None:
            near.send(octets)
            far.recv(65536)

        return run

    def nothing() -> None:
        try:
            far.recv(65536)
        except BlockingIOError:
            pass

    flags = select.EPOLLIN | select.EPOLLONESHOT
    try:
        yield Layer("underneath", "send and recv of a line", microseconds(exchange(b"250 2.1.0 OK\r\n")), times=4)
        yield Layer("underneath", "send and recv of 4 kB", microseconds(exchange(content)), times=2)
        yield Layer("underneath", "recv where nothing has come", microseconds(nothing), times=1)
        yield Layer("underneath", "epoll_ctl", microseconds(lambda: poll.modify(far, flags)), times=6)
        yield Layer("underneath", "epoll_wait that finds nothing", microseconds(lambda: poll.poll(0, 16)), times=1)
        with _another_process() as asked:
            yield Layer("underneath", "send to a process that sleeps, and its answer", microseconds(asked), times=6)
    finally:
        poll.close()
        near.close()
        far.close()


@contextlib.contextmanager
def _another_process() -> Iterator[Once]:
    """Asks another process, which sleeps until it is asked. What that one spends is not counted."""
    near, far = tcp_pair()
    pid = os.fork()
    if pid == 0:
        near.close()
        while octets := far.recv(4096):
            far.send(octets)
        os._exit(0)
    far.close()

    def ask() -> None:
        near.send(b"250 2.1.0 OK\r\n")
        near.recv(4096)

    try:
        yield ask
    finally:
        near.close()
        os.waitpid(pid, 0)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client, served
