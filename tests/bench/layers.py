"""What each layer costs one forwarded message: microseconds of processor time, each layer alone, in one process.

`forward.py` says what a message costs in all; this says where it goes. A layer is called again and again with the
values that a message of `forward.py` has, and nothing else is done in between, so that its code and data stay in the
processor's caches. In the appliance, where all layers, twenty sessions and a second thread take turns, the same layer
costs two to three times as much: what counts there is how much code and how many values a message touches.

    python tests/bench/layers.py
    python tests/bench/layers.py --only rows --json

Rows with "of these" are part of the row above them. The last part is what one wait, hop or call of the kernel costs,
with how many a message needs whose client does not pipeline.
"""

import argparse
import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import trio
import trio.testing
from microseconds import Layer, Once, microseconds, microseconds_in_trio
from msgspec.structs import replace
from one_message import ALIAS, HOSTNAME, SENDER, OneMessage, answer, one_message, received_line
from underneath import tcp_pair, underneath_layers

from appliance.delivery.holds import Holds
from appliance.delivery.schedule import RetrySchedule
from appliance.delivery.scheduler import Scheduler
from appliance.delivery.settlement import Settler
from appliance.forwarding.masking import mask
from appliance.forwarding.trace import count_received, decoded_text, field, header_section
from appliance.logbook.events import Arrival
from appliance.logbook.live import LiveStream
from appliance.model.delivery import Answer, Delivered, Delivery
from appliance.model.event import EventType
from appliance.model.time import DAY_MS, MINUTE_MS, wall_clock
from appliance.privacy.declarations import CONTENT, DELIVERIES, EVENTS, OUTBOX
from appliance.reception.day_counts import DayCounts
from appliance.reception.decision import decide
from appliance.spool.clocks import Clocks
from appliance.spool.spool import Spool
from appliance.storage.codec import Codec
from appliance.storage.delivery_rows import delivery_to_row
from appliance.storage.event_rows import event_to_row
from appliance.storage.spool import Accept, AddPart, Complete, Forget, Operation, Prepared, Turn, at_once
from appliance.storage.sqlite_records import SqliteRecords
from appliance.storage.sqlite_spool import SqliteSpool
from smtp.address import Address
from smtp.client.session import ClientSession
from smtp.data import ContentChecks, ContentLimits, ContentWriter, DataReader
from smtp.parameters import MailParameters, RecipientParameters
from smtp.reply import Reply
from smtp.server.events import Data, EndOfData, Mail, Recipient
from smtp.server.offer import SessionSettings
from smtp.server.serving import Peer, ServerSettings, Statistics
from smtp.server.session import ServerSession
from smtp.server.trio_session import House, Session
from smtp.trio_socket import Socket

AIM_US = 250
"""For a forwarded message, in all."""
GROUP = 20
"""Messages in one transaction of the spool."""
MOVED = 500
"""Events that the mover takes at once."""
STORE_ROUNDS = 6
"""Rounds of MOVED messages in the stores; the least of them counts."""
OK = Reply(250, "OK", "2.0.0")

# ------------------------------------------------------------------ arriving


def server_layers(message: OneMessage, directory: Path) -> Iterator[Layer]:
    """The server: its session alone, and with its driver over a connection."""
    pieces = [f"MAIL FROM:<{SENDER}>\r\n".encode(), f"RCPT TO:<{ALIAS}>\r\n".encode(), b"DATA\r\n"]
    pieces.append(message.content + b".\r\n")
    session = ServerSession(SessionSettings(HOSTNAME))
    limits = ContentLimits(50 << 20, 512 << 10, 64 << 10)

    def converse(pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            session.receive(piece)
            while (event := session.next_event()) is not None:
                if isinstance(event, Mail | Recipient | EndOfData | Data):
                    session.answer(None if isinstance(event, Data) else OK)
            session.octets_to_send()

    converse([b"EHLO client.example.net\r\n"])
    with_driver = microseconds_in_trio(_driver(pieces))
    read = microseconds(lambda: DataReader(ContentChecks(limits)).read(pieces[-1]))
    yield Layer("server", "session and driver, and a client with four waits of its own", with_driver)
    yield Layer("server", "the session alone", microseconds(lambda: converse(pieces)), part_of_above=True)
    yield Layer("server", "the content read and looked at", read, part_of_above=True)


class _TakesEverything:
    """A receiver that does nothing."""

    async def mail(self, sender: Address | None, parameters: MailParameters) -> Reply:
        return OK

    async def recipient(self, recipient: Address, parameters: RecipientParameters) -> Reply:
        return OK

    async def data(self) -> Reply | None:
        return None

    async def content(self, octets: bytes) -> None:
        return None

    async def end_of_data(self) -> Reply:
        return OK

    async def reset(self) -> None:
        return None


def _driver(pieces: Sequence[bytes]) -> Callable[[int], Awaitable[object]]:
    """Messages over one connection, from a client in the same process that waits for each reply."""

    async def many(count: int) -> None:
        house = House(lambda peer: _TakesEverything(), ServerSettings(HOSTNAME), print, Statistics())
        client, served = tcp_pair()
        client.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Session(Socket(served), Peer("127.0.0.1", 1), house).run)
            await _reply(client)
            for piece in (b"EHLO client.example.net\r\n", *(list(pieces) * count)):
                client.send(piece)
                await _reply(client)
            client.close()

    return many


async def _reply(client: socket.socket) -> None:
    await trio.lowlevel.wait_readable(client)
    client.recv(4096)


def reception_layers(message: OneMessage, directory: Path) -> Iterator[Layer]:
    """What is decided and made for a message that comes in."""
    recipient, domain_id, day_counts = Address.parse(ALIAS), message.arrived.domain_id, DayCounts()
    accepted = Answer(250, "2.0.0", "accepted", f"Accepted as {message.delivery.message_id}", duration_ms=2)
    arrival = Arrival(message.delivery.message_id, SENDER, len(message.content), "127.0.0.1", None, "of the bench")

    def look_up(token: str) -> None:
        return None

    def read() -> None:
        section = header_section(message.content, 64 << 10)
        count_received(section)
        decoded_text(field(section, "Subject") or b"", 200)

    costs: dict[str, Once] = {
        "decide: is it taken, and where does it lead": lambda: decide(
            message.snapshot, message.rewriter, None, recipient, 0, look_up, day_counts.received
        ),
        "the Received line": received_line,
        "the header section, its Received lines and subject": read,
        "the sender rewritten (SRS)": lambda: message.rewriter.rewrite(SENDER, "abc234", wall_clock()),
        "the event RECEIVED": lambda: message.logbook.arrival(EventType.RECEIVED, arrival, ALIAS, domain_id, accepted),
        "an id (there are four)": message.new_id,
    }
    for name, once in costs.items():
        yield Layer("reception", name, microseconds(once))


# ------------------------------------------------------------------ kept


def row_layers(message: OneMessage, directory: Path) -> Iterator[Layer]:
    """Rows encoded and sealed, as the spool's `prepare` does it."""
    store = SqliteSpool(directory / "rows.sqlite", message.keyring)
    deliveries, contents, outbox = (Codec(kind, message.keyring) for kind in (DELIVERIES, CONTENT, OUTBOX))
    part = {"message_id": message.delivery.message_id, "part": 0, "octets": message.whole}
    row, event = delivery_to_row(message.delivery), event_to_row(message.arrived)
    sealer, small = message.keyring["spool"], bytes(250)
    accept, complete = _accept(message, 1), _complete(message, 1)
    costs: dict[str, Once] = {
        "the content encoded": lambda: contents.encode(part),
        "the delivery as a row": lambda: delivery_to_row(message.delivery),
        "the delivery encoded": lambda: deliveries.encode(row),
        "an event as a row": lambda: event_to_row(message.arrived),
        "an event encoded": lambda: outbox.encode(event),
        "250 octets sealed": lambda: sealer.seal(small, b"context"),
        "a MAC that is at hand": lambda: sealer.mac(SENDER, "events/sender_key"),
    }
    try:
        yield Layer("rows", "prepare: what is accepted", microseconds(lambda: store.prepare(accept)))
        for name, once in costs.items():
            yield Layer("rows", name, microseconds(once), part_of_above=True)
        yield Layer("rows", "prepare: what is delivered", microseconds(lambda: store.prepare(complete)))
    finally:
        store.close()


def _accept(message: OneMessage, number: int) -> list[Operation]:
    message_id = f"{number:020x}"
    delivery = replace(message.delivery, id=message_id, message_id=message_id)
    event = replace(message.arrived, id=f"{number:019x}a", message_id=message_id)
    return [AddPart(message_id, 0, message.whole), Accept((delivery,), (event,))]


def _complete(message: OneMessage, number: int) -> list[Operation]:
    message_id = f"{number:020x}"
    event = replace(message.delivered, id=f"{number:019x}d", message_id=message_id)
    return [Complete(message_id, message_id, (event,))]


def store_layers(message: OneMessage, directory: Path) -> Iterator[Layer]:
    """SQLite: groups of accepts and of completes, fsync included, and the way of events to the log."""
    store = SqliteSpool(directory / "store.sqlite", message.keyring)
    records = SqliteRecords(directory / "records.sqlite", message.keyring)
    accepting, completing, moving = [], [], []
    try:
        for turn in range(STORE_ROUNDS):
            numbers = range(turn * MOVED + 1, (turn + 1) * MOVED + 1)
            accepts = [store.prepare(_accept(message, number)) for number in numbers]
            completes = [store.prepare(_complete(message, number)) for number in numbers]
            accepting.append(_share(partial(_write, store, accepts)))
            completing.append(_share(partial(_write, store, completes)))
            moving.append(_share(lambda: _move(store, records)) + _share(lambda: _move(store, records)))
    finally:
        records.close()
        store.close()
    yield Layer("store", f"accepted, in groups of {GROUP}", min(accepting))
    yield Layer("store", f"delivered, in groups of {GROUP}", min(completing))
    yield Layer("store", f"two events moved to the log, {MOVED} at once", min(moving))


def _write(store: SqliteSpool, units: Sequence[Prepared]) -> None:
    for at in range(0, len(units), GROUP):
        store.write(units[at : at + GROUP])


def _move(store: SqliteSpool, records: SqliteRecords) -> None:
    rows = store.outbox(MOVED)
    records.import_stored(EVENTS, rows)
    store.write([store.prepare([Forget([str(row["id"]) for row in rows])])])


def _share(act: Once) -> float:
    """One message's share of what is done for MOVED of them."""
    began = time.process_time_ns()
    act()
    return (time.process_time_ns() - began) / 1000 / MOVED


# ------------------------------------------------------------------ leaving


class _NullCommitter:
    """Makes nothing durable, at once."""

    async def commit(self, operations: Sequence[object]) -> None:
        return None

    async def call(self, function: Callable[[], Any]) -> Any:
        return function()

    async def beside(self, do: Callable[[Turn], Any]) -> Any:
        return do(at_once)


class _NullStore:
    """Has nothing in it."""

    def tidy(self, turn: Turn) -> bool:
        return True

    def claim(self, *asked: object) -> list[Delivery]:
        return []

    def next_due(self, *asked: object) -> None:
        return None


class _NullCourier:
    """Delivers everything, nowhere."""

    async def carry(self, batch: Sequence[Delivery], *content: object) -> list[Delivered]:
        return [Delivered(answer()) for _ in batch]

    async def close(self) -> None:
        return None


def delivery_layers(message: OneMessage, directory: Path) -> Iterator[Layer]:
    """From what is accepted to what is settled, without a connection; and the client's session, without a socket."""
    clocks, schedule = Clocks.all_from(wall_clock), RetrySchedule((MINUTE_MS,), DAY_MS)
    store: Any = _NullStore()
    nobody: Any = None
    courier: Any = _NullCourier()
    spool = Spool(store, _NullCommitter(), message.new_id)
    settler = Settler(spool, message.logbook, schedule, nobody, lambda: message.snapshot, clocks)
    target = message.delivery.target

    async def deliver(count: int) -> None:
        scheduler = Scheduler(spool, settler, LiveStream(), lambda _: courier, Holds(), schedule, clocks, GROUP)
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scheduler.run, stop)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(0, count, GROUP):
                for _ in range(GROUP):
                    assert scheduler.reserve((target.key[1],))
                    scheduler.take((message.delivery,))
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()
            stop.set()

    async def settle(count: int) -> None:
        for _ in range(count):
            await settler.settle(message.delivery, Delivered(answer()))

    session = client_session()
    masked = microseconds(lambda: mask("2.0.0 Ok", target, ALIAS, "mx.destination.test"))
    yield Layer("delivery", "scheduler and settlement, with a courier that does nothing", microseconds_in_trio(deliver))
    yield Layer("delivery", "the settlement", microseconds_in_trio(settle), part_of_above=True)
    yield Layer("delivery", "the answer masked", masked, part_of_above=True)
    yield Layer("delivery", "the client's session", microseconds(lambda: _send(session, message)))
    yield Layer(
        "delivery",
        "the content made ready for the wire",
        microseconds(lambda: ContentWriter().write(message.whole)),
        part_of_above=True,
    )


def client_session() -> ClientSession:
    """One that has been greeted by smtp-sink."""
    session = ClientSession(HOSTNAME)
    session.receive(b"220 smtp-sink ESMTP\r\n")
    session.next_event()
    session.octets_to_send()
    session.receive(b"250-smtp-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n")
    session.next_event()
    return session


def _send(session: ClientSession, message: OneMessage) -> None:
    parameters = MailParameters(size=len(message.whole))
    session.begin(message.delivery.return_path, (str(message.delivery.target),), parameters)
    session.octets_to_send()
    session.receive(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n")
    session.next_event()
    session.content(message.whole)
    session.end_content()
    session.octets_to_send()
    session.receive(b"250 2.0.0 Ok\r\n")
    session.next_event()


# ------------------------------------------------------------------ the table

ROOMS: dict[str, Callable[[OneMessage, Path], Iterator[Layer]]] = {
    "server": server_layers,
    "reception": reception_layers,
    "rows": row_layers,
    "store": store_layers,
    "delivery": delivery_layers,
    "underneath": lambda message, directory: underneath_layers(message.content),
}


def report(layers: Sequence[Layer]) -> None:
    """For people."""
    room, total = "", 0.0
    for layer in layers:
        if layer.room != room:
            room = layer.room
            print(f"\n{room}")
        name = f"    of these: {layer.name}" if layer.part_of_above else f"  {layer.name}"
        times = f"   x {layer.times:g}" if layer.times is not None else ""
        print(f"{name:66}{layer.microseconds:10.1f} µs{times}")
        if layer.times is None and not layer.part_of_above:
            total += layer.microseconds
    print(f"\n{'together, without “of these” and “underneath”':66}{total:10.1f} µs")
    print(f"{'the aim for the whole appliance':66}{AIM_US:10.1f} µs")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="octets of a message")
    parser.add_argument("--only", nargs="*", choices=tuple(ROOMS), default=tuple(ROOMS))
    parser.add_argument("--directory", default="/var/tmp", help="on a disk: where the stores are")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="onward-layers-", dir=arguments.directory))
    try:
        message = one_message(arguments.size)
        layers = [layer for room in arguments.only for layer in ROOMS[room](message, directory)]
    finally:
        shutil.rmtree(directory)
    if arguments.json:
        print(json.dumps([asdict(layer) for layer in layers], indent=2))
    else:
        report(layers)


if __name__ == "__main__":
    main()
