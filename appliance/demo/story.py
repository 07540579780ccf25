"""The demo from curtain to curtain."""

import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO

import trio

from appliance import configuration, wire
from appliance.accounts.accounts import Accounts
from appliance.accounts.aliases import Aliases
from appliance.accounts.domains import Domains
from appliance.demo.mailbox_server import Arrived, Mailbox
from appliance.demo.name_server import Records, serve_names
from appliance.demo.samples import ALIAS, FRIEND, MAILBOX, SAMPLES
from appliance.demo.stage import Stage
from appliance.model.account import Role
from appliance.model.event import EventType
from appliance.run import process
from appliance.run.stores import open_records
from smtp.client.trio_client import Connection
from smtp.server.trio_server import ServerSettings, Statistics, serve

HOSTNAME = "mx.demo.test"

WAIT_S = 20.0
"""How long the demo waits for any one step before it says that something is wrong."""

_RECORDS: Records = {
    ("mailbox.test.", "MX"): "10 mx.mailbox.test.",
    ("mx.mailbox.test.", "A"): "127.0.0.1",
    ("sender.test.", "MX"): "10 mx.mailbox.test.",
}

_LISTENS = re.compile(r"smtp listens on (127\.0\.0\.1):([0-9]+)")


def main() -> int:
    """Play the demo, and stay up until Ctrl-C. Returns the exit status: 1 where a message did not come through."""
    # Until the play listens for it, SIGTERM does what Ctrl-C does: everything is taken down on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    unpacker = process.unpacking_parent()
    if unpacker is not None:
        process.die_with(unpacker)
    stage = Stage()
    with tempfile.TemporaryDirectory(prefix="onward-demo-") as folder, _loopback_sockets() as (names, mailbox):
        config_path = _write_configuration(Path(folder), names, mailbox)
        _introduce(stage)
        _fill_records(stage, config_path)
        with _appliance(config_path) as errors:
            port = _smtp_port(errors)
            if port is None:
                stage.note("the appliance did not start")
                return 1
            return trio.run(_until_told, stage, Path(folder), port, names, mailbox)


# ------------------------------------------------------------------ the set


@contextmanager
def _loopback_sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """What stands in for the world: a name server and a mail server, each on a port that is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as names, socket.socket() as mailbox:
        names.bind(("127.0.0.1", 0))
        mailbox.bind(("127.0.0.1", 0))
        mailbox.listen()
        mailbox.setblocking(False)
        yield names, mailbox


def _write_configuration(folder: Path, names: socket.socket, mailbox: socket.socket) -> Path:
    path = folder / "onward.toml"
    path.write_text(
        f'hostname = "{HOSTNAME}"\n'
        f'data_dir = "{folder / "data"}"\n'
        '[smtp]\nlisten = ["127.0.0.1:0"]\n'
        '[http]\nlisten = ["127.0.0.1:0"]\n'
        f'[dns]\nnameservers = ["127.0.0.1:{names.getsockname()[1]}"]\n'
        f"[delivery]\nport = {mailbox.getsockname()[1]}\nloopback_destinations = true\n"
    )
    return path


def _introduce(stage: Stage) -> None:
    stage.title("Onward forwards mail: what is sent to an alias goes onward to a mailbox that the sender never sees.")
    stage.note("Here it is, whole, on this machine alone, with a name server and a mail server of the demo's own.")


def _fill_records(stage: Stage, config_path: Path) -> None:
    config = configuration.load(config_path)
    records = open_records(config)
    try:
        own_names = {config.hostname, config.forwarding.srs_domain}
        account = Accounts(records, config.plans).add("operator@mailbox.test", role=Role.OPERATOR)
        Domains(records, config.plans, own_names).add(
            "demo.test", account, verified=True, delivery_mode=config.delivery.mode, log_level=config.log.level
        )
        Aliases(records, config.plans, own_names).add(ALIAS, [MAILBOX], confirmed=True)
    finally:
        records.close()
    stage.title("The operator sets it up")
    stage.note("  $ onward account add operator@mailbox.test --operator")
    stage.note("  $ onward domain add demo.test --account operator@mailbox.test --verified")
    stage.note(f"  $ onward alias add {ALIAS} {MAILBOX} --confirmed")


@contextmanager
def _appliance(config_path: Path) -> Iterator[IO[str]]:
    """The appliance that `onward run` starts, in a process of its own; yields what it says on standard error."""
    reading, writing = os.pipe()
    demo = os.getpid()
    child = os.fork()
    if child == 0:
        process.die_with(demo)
        os.close(reading)
        os.dup2(writing, 2)
        from appliance.run.supervisor import main as supervise

        status = 1
        try:
            # Ctrl-C is for the demo, which ends the appliance when it has had its say.
            os.setpgid(0, 0)
            status = supervise(configuration.load(config_path), config_path)
        finally:
            os._exit(status)
    os.close(writing)
    try:
        with os.fdopen(reading) as errors:
            yield errors
            os.kill(child, signal.SIGTERM)
            for _ in errors:
                pass  # what it says while it stops
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


def _smtp_port(errors: IO[str]) -> int | None:
    port = None
    for line in errors:
        if found := _LISTENS.search(line):
            port = int(found[2])
        if line.strip() == "ready":
            return port
        if "listens on" not in line:
            print(line, end="", file=sys.stderr)
    return None


# ------------------------------------------------------------------ the play


async def _until_told(stage: Stage, folder: Path, port: int, names: socket.socket, mailbox: socket.socket) -> int:
    """Play until the end, or until Ctrl-C or SIGTERM, which end it well."""
    status = 0
    async with trio.open_nursery() as nursery:

        async def play() -> None:
            nonlocal status
            status = await _play(stage, folder, port, names, mailbox)
            nursery.cancel_scope.cancel()

        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            nursery.start_soon(play)
            async for _ in signals:
                stage.note("\nThe demo is over; nothing of it is left.")
                nursery.cancel_scope.cancel()
                break
    return status


async def _play(stage: Stage, folder: Path, port: int, names: socket.socket, mailbox: socket.socket) -> int:
    send, arrived = trio.open_memory_channel[Arrived](10)
    settings = ServerSettings(
        hostname="mx.mailbox.test",
        trace=lambda direction, line: _converse(stage, "onward", "mailbox", direction, line, server=True),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_names, trio.socket.from_stdlib_socket(names), _RECORDS)
        nursery.start_soon(
            partial(
                serve,
                [mailbox],
                lambda peer: Mailbox(send, peer),
                settings,
                shutdown=trio.Event(),
                on_error=stage.note,
                statistics=Statistics(),
            )
        )
        delivered = trio.Semaphore(0)
        follow = partial(_follow, stage, folder / "data" / configuration.ENGINE_SOCKET, delivered)
        nursery.start_soon(partial(trio.to_thread.run_sync, follow, abandon_on_cancel=True))
        for number, (title, content) in enumerate(SAMPLES, start=1):
            stage.title(f"{number}. {title}, {len(content)} octets")
            if number > 1:
                stage.note("  (onward's connection to the mailbox's server is still open, and is used again)")
            with trio.move_on_after(WAIT_S):
                await _send(stage, port, content)
                same = _compare(stage, content, await arrived.receive())
                await delivered.acquire()
                if same:
                    continue
            stage.note("  that did not come through")
            nursery.cancel_scope.cancel()
            return 1
        stage.title("All three came through. The appliance stays up: try it, and see it here. Ctrl-C ends it.")
        stage.note(f"  swaks --server 127.0.0.1:{port} --from {FRIEND} --to {ALIAS}")
        stage.note(f"  swaks --server 127.0.0.1:{port} --from {FRIEND} --to nobody@elsewhere.test")
        async for message in arrived:
            stage.told("mailbox", f"{len(message.content)} octets for {', '.join(message.recipients)}")
    return 0


async def _send(stage: Stage, port: int, content: bytes) -> None:
    connection = await Connection.open(
        "127.0.0.1",
        port,
        helo="laptop.sender.test",
        trace=lambda direction, line: _converse(stage, "friend", "onward", direction, line, server=False),
    )
    await connection.send(FRIEND, [ALIAS], [content], size=len(content), eight_bit=not content.isascii())
    await connection.quit()


def _converse(stage: Stage, client: str, server_name: str, direction: str, line: str, *, server: bool) -> None:
    """One line of a conversation, told by the side that traces it: `>` is what that side says."""
    by_server = (direction == ">") == server
    stage.said(*((server_name, client) if by_server else (client, server_name)), line)


def _compare(stage: Stage, content: bytes, message: Arrived) -> bool:
    """Show what was put in front; True where the rest is what was sent, octet by octet."""
    front = message.content[: len(message.content) - len(content)]
    stage.told("mailbox", "has it. In front of the message stands now:")
    for line in front.decode("ascii", "replace").splitlines():
        stage.told("mailbox", f"    {line}")
    same = message.content.endswith(content) and message.content != content
    stage.told("mailbox", f"and then the {len(content)} octets that were sent, {'unchanged' if same else 'CHANGED'}.")
    return same


def _follow(stage: Stage, engine_socket: Path, delivered: trio.Semaphore) -> None:
    """Tell of each event of the log as it happens, until the appliance is gone."""
    with suppress(wire.NotRunning, wire.WireError, trio.RunFinishedError, trio.Cancelled):
        for event in wire.call(engine_socket, "events", follow=True):
            where = f" by {event['server_name']}" if event["server_name"] else ""
            answer = f"{event['code']} {event['response']}{where}"
            stage.told("onward", f"log: {event['type']} for {event['recipient']}: {answer}")
            if event["type"] == EventType.DELIVERED.value:
                trio.from_thread.run_sync(delivered.release)
