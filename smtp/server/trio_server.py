"""The server's driver: sockets, time and many clients at once, round the pure session of `smtp.server.session`.

One task per client, one per listener, and one sweeper that looks at the clock for all of them. What a message means is
the business of a `Receiver`, of which each session has its own.

Error handling. A client that vanishes ends its session, and the receiver is told by `reset`. A receiver that raises
costs its client a 451 and nobody else anything; the cause goes to `on_error`. Nothing that a client does, and no fault
of accept(), ends `serve`.
"""

import errno
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address

import trio

from smtp.parameters import MailParameters, RecipientParameters
from smtp.reply import Reply
from smtp.server import answers
from smtp.server.serving import Peer, Receiver, ServerSettings, Statistics, client_key, plain_address
from smtp.server.trio_session import House, Session
from smtp.trace import Trace
from smtp.trio_socket import Socket

__all__ = [
    "MailParameters",
    "Peer",
    "Receiver",
    "RecipientParameters",
    "ServerSettings",
    "Statistics",
    "Trace",
    "serve",
]

# No file descriptor or no memory for one more client: look again after this time. Sessions end all the while.
ACCEPT_PAUSE_S = 0.1
# Clients let in before the sessions get a turn.
ACCEPTS_PER_TURN = 64

# accept() hands on what happened to a connection before it was accepted (accept(2)): the next one may be fine.
_GONE_BEFORE_ACCEPT = frozenset({errno.ECONNABORTED, errno.ECONNRESET, errno.EPROTO, errno.EINTR, errno.ETIMEDOUT})


async def serve(
    listeners: Sequence[socket.socket],
    new_receiver: Callable[[Peer], Receiver],
    settings: ServerSettings,
    *,
    shutdown: trio.Event,
    on_error: Callable[[str], None],
    statistics: Statistics,
) -> None:
    """Accept clients until `shutdown` is set, then let transactions finish; return when every session has ended.

    The listeners are bound, listening, non-blocking, and stay open. When this is cancelled instead, every session ends
    at once, and receivers have `trio_session.RESET_GRACE_S` to let go.
    """
    house = House(new_receiver, settings, on_error, statistics)
    async with trio.open_nursery() as background:
        background.start_soon(_sweep, house)
        async with trio.open_nursery() as sessions:
            async with trio.open_nursery() as doors:
                for listener in listeners:
                    doors.start_soon(_accept_from, listener, house, sessions)
                await shutdown.wait()
                doors.cancel_scope.cancel()
            until = trio.current_time() + settings.shutdown_grace_s
            for session in house.sessions:
                session.drain(until)
        background.cancel_scope.cancel()


async def _accept_from(listener: socket.socket, house: House, nursery: trio.Nursery) -> None:
    in_trouble = False
    while True:
        try:
            await trio.lowlevel.wait_readable(listener)
            for _ in range(ACCEPTS_PER_TURN):
                _admit(*listener.accept(), house, nursery)
                in_trouble = False
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno in _GONE_BEFORE_ACCEPT:
                continue
            if not in_trouble:
                house.on_error(f"no connection can be accepted for now: {error.strerror}")
                in_trouble = True
            await trio.sleep(ACCEPT_PAUSE_S)


def _admit(connected: socket.socket, address: tuple[str, int], house: House, nursery: trio.Nursery) -> None:
    statistics = house.statistics
    statistics.connections_accepted += 1
    peer = Peer(plain_address(address[0]), address[1])
    # Whoever comes through a proxy is judged when it is known who that is; till then there may be as many again.
    is_proxy = _is_within(peer.address, house.settings)
    if not is_proxy:
        refusal = house.refusal(client_key(peer.address), trio.current_time())
    elif len(house.sessions) >= 2 * house.settings.max_connections:
        refusal = answers.TOO_MANY_CONNECTIONS
    else:
        refusal = None
    if refusal is not None:
        statistics.connections_turned_away += 1
        _turn_away(connected, refusal, house)
        return
    try:
        session = Session(Socket(connected), peer, house, behind_proxy=is_proxy)
    except OSError:
        # Gone between accept and the first option set on it.
        connected.close()
        return
    house.sessions.add(session)
    house.admission.enter(session)
    statistics.connections_open += 1
    nursery.start_soon(session.run)


def _is_within(address: str, settings: ServerSettings) -> bool:
    if not settings.trusted_proxies:
        return False
    parsed = ip_address(address)
    return any(parsed in network for network in settings.trusted_proxies)


def _turn_away(connected: socket.socket, reply: Reply, house: House) -> None:
    # RFC 5321 §3.8 and §4.2.3: 421 in place of the greeting, and try again later.
    house.statistics.replies_by_code[reply.code] += 1
    try:
        turned_away = Socket(connected)
        # RFC 2034 §3: no enhanced code in place of the greeting.
        turned_away.send_now(Reply(reply.code, f"{house.settings.hostname} {reply.text}").octets())
        turned_away.close()
    except OSError:
        connected.close()


async def _sweep(house: House) -> None:
    while True:
        await trio.sleep(house.settings.sweep_interval_s)
        house.now = now = trio.current_time()
        for session in house.sessions:
            session.look_at_the_clock(now)
