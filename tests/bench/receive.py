"""How fast the SMTP server alone takes mail in: our server and smtp-sink, each with smtp-source at the other end.

Rounds alternate between the two and between the two ways of smtp-source (many messages on a connection, one on each),
so that a machine that is busy for a while is busy for all. Our server's receiver keeps a message in memory until its
end and forgets it there: what is measured is the session and its driver. Both swallow mail in one process.

    python tests/bench/receive.py --messages 10000 --sessions 20 --rounds 5
    python tests/bench/receive.py --profile

The aim is a third of smtp-sink's messages/s with 20 sessions. CPU is that of the server's process, user and system.
With --profile our server runs under cProfile, and what is printed is where its time goes; cProfile makes small
functions look dearer than they are, so its own rounds are never compared with others.
"""

import argparse
import contextlib
import json
import pstats
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import process_tree
from flood import Load, free_port, source_command, start_sink
from lone_server import LoneServer

RECIPIENT = "info@forward.test"
ADDRESS = "127.0.0.1"
SINK, OURS = "smtp-sink", "ours"
AIM = 1 / 3
"""Of smtp-sink's messages/s."""

WARM_UP = 200
"""Messages before the first round."""
ROUND_WITHIN = 300.0
"""Seconds after which a round has failed."""
NO_LIMIT = 10_000
"""Connections: all come from one address here."""

SESSION_FILES = frozenset(
    f"{name}.py" for name in ("server", "commands", "sequence", "data", "reply", "address", "parameters", "events")
)
"""The pure session, by file of smtp/; every other file there is driver."""
CALLS_OF_THE_KERNEL = ("recv", "send", "accept", "poll", "close", "shutdown", "setsockopt", "setblocking")


@dataclass(frozen=True, slots=True)
class Figures:
    """What one round came to."""

    messages_per_second: float
    cpu_ms_per_message: float


def one_round(port: int, pid: int, load: Load) -> Figures:
    """Send the load and wait until smtp-source has the reply to its last message. SystemExit where that fails."""
    cpu_before = process_tree.cpu_ms(pid)
    began = time.perf_counter()
    source = subprocess.run(source_command(load, RECIPIENT, ADDRESS, port), timeout=ROUND_WITHIN, check=False)
    seconds = time.perf_counter() - began
    cpu = process_tree.cpu_ms(pid) - cpu_before
    if source.returncode != 0:
        sys.exit("smtp-source has failed")
    return Figures(load.messages / seconds, cpu / load.messages)


def measure(loads: Sequence[Load], count: int) -> dict[tuple[str, Load], list[Figures]]:
    """All rounds, by system and load."""
    rounds: dict[tuple[str, Load], list[Figures]] = {(name, load): [] for load in loads for name in (SINK, OURS)}
    sink_port = free_port(ADDRESS)
    sink = start_sink(ADDRESS, sink_port)
    try:
        with LoneServer(max_connections=NO_LIMIT, max_connections_per_client=NO_LIMIT) as server:
            systems = {SINK: (sink_port, sink.pid), OURS: (server.port, server.pid)}
            for load in loads:
                for system in systems.values():
                    one_round(*system, Load(WARM_UP, load.sessions, load.size, load.connections_kept))
            before = server.counters()["messages"]
            for _ in range(count):
                for load in loads:
                    for name, system in systems.items():
                        rounds[name, load].append(one_round(*system, load))
            accepted = server.counters()["messages"] - before
            if accepted != count * sum(load.messages for load in loads):
                sys.exit(f"our server counts {accepted} messages")
    finally:
        sink.kill()
        sink.communicate()
    return rounds


def report(rounds: dict[tuple[str, Load], list[Figures]], *, as_json: bool) -> None:
    """Best and median of each, and ours as a share of smtp-sink's."""
    document = []
    for load in dict.fromkeys(load for _, load in rounds):
        figures = {}
        for name in (SINK, OURS):
            speeds = [each.messages_per_second for each in rounds[name, load]]
            costs = [each.cpu_ms_per_message for each in rounds[name, load]]
            figures[name] = {
                "messages_per_second": {"best": max(speeds), "median": statistics.median(speeds)},
                "cpu_ms_per_message": {"best": min(costs), "median": statistics.median(costs)},
            }
        ours, sink = (figures[name]["messages_per_second"] for name in (OURS, SINK))
        share = {kind: ours[kind] / sink[kind] for kind in ("best", "median")}
        document.append({"load": asdict(load), **figures, "ours_to_smtp_sink": share, "aim": AIM})
    if as_json:
        print(json.dumps(document, indent=2))
        return
    for part in document:
        load_of_part = part["load"]
        assert isinstance(load_of_part, dict)
        kept = "many messages" if load_of_part["connections_kept"] else "one message"
        print(f"\n{kept} on a connection, {load_of_part['size']} octets, {load_of_part['sessions']} sessions")
        print(f"{'':12}{'messages/s':>22}{'CPU ms/message':>22}\n{'':12}" + f"{'best':>11}{'median':>11}" * 2)
        for name in (SINK, OURS):
            of_name = part[name]
            assert isinstance(of_name, dict)
            speed, cost = of_name["messages_per_second"], of_name["cpu_ms_per_message"]
            print(f"{name:12}{speed['best']:11.0f}{speed['median']:11.0f}{cost['best']:11.3f}{cost['median']:11.3f}")
        share = part["ours_to_smtp_sink"]  # type: ignore[assignment]
        print(f"ours to smtp-sink: {share['best']:.2f} (best), {share['median']:.2f} (median); the aim is {AIM:.2f}")


def room_of(file: str, function: str) -> str:
    """Where cProfile's entry for a function belongs."""
    path = Path(file)
    if file == "~":
        if any(f"'{call}'" in function for call in CALLS_OF_THE_KERNEL):
            return "calls of the kernel"
        return "built-in functions"
    if path.parent.name == "smtp":
        return "session" if path.name in SESSION_FILES else "driver"
    if "trio" in path.parts or "outcome" in path.parts:
        return "Trio"
    return "receiver" if path.name == "lone_server.py" else "other"


def profile(load: Load) -> None:
    """Run the load against our server under cProfile, and print where the time went."""
    with tempfile.TemporaryDirectory() as directory:
        written = Path(directory) / "profile"
        with LoneServer(profile=written, max_connections=NO_LIMIT, max_connections_per_client=NO_LIMIT) as server:
            before = server.counters()
            one_round(server.port, server.pid, load)
            after = server.counters()
        kept = "many messages" if load.connections_kept else "one message"
        print(f"\n{kept} on a connection: ", end="")
        user, system = (1000 * (after[key] - before[key]) / load.messages for key in ("user_s", "system_s"))
        print(f"{user:.3f} ms user and {system:.3f} ms system a message, under cProfile")
        counted = pstats.Stats(str(written)).stats  # type: ignore[attr-defined]
    rooms: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for (file, line, function), (_, count, own, _, _) in counted.items():
        # To wait for clients is no work. cProfile counts it as the time of the call that waits.
        if "'poll' of 'select.epoll'" in function:
            own = 0.0
        room = room_of(file, function)
        name = function if file == "~" else f"{Path(file).name}:{line} {function}"
        rooms[room] += own
        functions[name] += own
        calls[name] += count
    whole = sum(rooms.values())
    for room, seconds in rooms.most_common():
        print(f"    {seconds / whole:6.1%}  {room}")
    print(f"  {'share':>8}{'µs/message':>12}{'calls/message':>15}")
    for name, seconds in functions.most_common(30):
        of_message = 1e6 * seconds / load.messages
        print(f"  {seconds / whole:8.1%}{of_message:12.2f}{calls[name] / load.messages:15.2f}  {name}")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=10_000, help="in each round")
    parser.add_argument("--sessions", type=int, default=20, help="connections of smtp-source at once")
    parser.add_argument("--size", type=int, default=4096, help="octets of a message")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--per-connection", choices=("many", "one", "both"), default="both", help="messages")
    parser.add_argument("--profile", action="store_true", help="where our server's time goes, in place of figures")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if shutil.which("smtp-source") is None:
        sys.exit("smtp-source is missing: run tests/install-peers as root")
    ways = [kept for kept in (True, False) if arguments.per_connection in ("both", "many" if kept else "one")]
    loads = [Load(arguments.messages, arguments.sessions, arguments.size, kept) for kept in ways]
    if arguments.profile:
        for load in loads:
            profile(load)
    else:
        report(measure(loads, arguments.rounds), as_json=arguments.json)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
