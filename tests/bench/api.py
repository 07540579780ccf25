"""What the API does beside mail: queries a second, a crowd that follows the log, and whether SMTP feels any of it.

    queries     one connection, kept, with a token, asks for a page of aliases again and again
    followers   websockets that follow one domain's log, with the operation of `onward log --follow`
    mail        a steady pace of messages; one in eight is for the domain that is followed, and makes two events

In each round these are measured one after the other alone (mail while nobody follows, followers with only the mail that
makes their events), and then all at the same time. A real appliance, real connections on loopback, each part of the
load in a process of its own; what is printed are medians of the rounds.

    python tests/bench/api.py --rounds 3 --seconds 10

The aims: 600 queries/s of 20 aliases alone; each event reaches each of 200 followers exactly once, alone and with all
else; 99 of 100 messages wait less than 5 ms from their final dot to the 250, alone and with all else. The exit status
says whether all are met. A follower's time of an event counts from the instant that the event itself tells; the
appliance holds each back for 200 ms, so that all are told in order.

CPU is that of the appliance's two processes, in parts of one processor, and what the control process takes for each
query and each event that it tells one who follows. Where others use the machine, it says more than the times do.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import process_tree
from appliance_process import Appliance
from beside import STAND_BACK, Beside, Start
from control_api.operation_files import operation
from dns_server import DnsServer
from flood import free_port, start_sink
from graphql_client import GraphqlClient
from log_followers import Followed, follow
from paced_mail import send_paced

OWNER, PASSWORD = "owner@people.test", "correct horse battery"
FOLLOWED, OTHER = "followed.test", "other.test"
ONE_IN = 8
"""So many messages there are to each for the domain that is followed."""
EVENTS = 2
"""Of a message that is forwarded: it has been received, and delivered."""
ALIASES = 20
TARGET = "owner@destination.test"
SINK_ADDRESS = "127.0.0.2"

QUERIES_AIM = 600
"""A second, alone."""
MAIL_AIM_S = 0.005
"""For the 99th percentile, from the final dot to the 250."""

OVERTIME_S = 60.0
"""How much longer than planned a part may take before the bench gives up."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one part of a round came to; times in milliseconds. Zeros where it had no such part."""

    queries_per_second: float = 0
    events: int = 0
    lost: int = 0
    doubles: int = 0
    event_p50_ms: float = 0
    event_p99_ms: float = 0
    mail_p50_ms: float = 0
    mail_p99_ms: float = 0
    engine_cpu: float = 0
    """Of one processor."""
    control_cpu: float = 0
    answer_cpu_ms: float = 0
    """Of the control process, for each query and each event told to one who follows."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Which parts of the load there are at the same time."""

    name: str
    queries: bool = False
    followers: bool = False
    mail_per_second: float = 0
    to: tuple[str, ...] = ()
    """The domains that messages are for, by turns."""


def parts_of(arguments: argparse.Namespace) -> list[Parts]:
    """Each alone, and all together."""
    events = arguments.mail / ONE_IN
    mixed = (FOLLOWED, *[OTHER] * (ONE_IN - 1))
    return [
        Parts("queries", queries=True),
        Parts("followers", followers=True, mail_per_second=events, to=(FOLLOWED,)),
        Parts("mail", mail_per_second=arguments.mail, to=mixed),
        Parts("all together", queries=True, followers=True, mail_per_second=arguments.mail, to=mixed),
    ]


def ask_again(start: Start, port: int, token: str, seconds: float) -> float:
    """Ask for the aliases for so long; queries a second. A part of a load. AssertionError where an answer differs."""
    variables = {"domain": FOLLOWED, "first": ALIASES}
    body = json.dumps({"query": operation("list_aliases"), "variables": variables}).encode()
    request = (
        f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
        f"Accept: application/graphql-response+json\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    os.nice(STAND_BACK)
    with socket.create_connection(("127.0.0.1", port), OVERTIME_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ask() -> bytes:
            connection.sendall(request)
            answer = connection.recv(1 << 18)
            while b"\r\n\r\n" not in answer:
                answer += connection.recv(1 << 18)
            head, _, content = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
            while len(content) < length:
                content += connection.recv(1 << 18)
            return content

        expected = ask()
        assert len(json.loads(expected)["data"]["domain"]["aliases"]["edges"]) == ALIASES, expected
        for _ in range(100):
            ask()
        start()
        count, began = 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            assert ask() == expected
            count += 1
        return count / (time.perf_counter() - began)


def one_round(appliance: Appliance, token: str, parts: Parts, arguments: argparse.Namespace) -> Figures:
    """These parts at the same time."""
    messages = int(parts.mail_per_second * arguments.seconds)
    followed = sum(parts.to[number % len(parts.to)] == FOLLOWED for number in range(messages))
    recipients = [f"alias0@{domain}" for domain in parts.to]
    within = arguments.seconds + OVERTIME_S
    with contextlib.ExitStack() as stack:
        queries = followers = mail = None
        if parts.followers:
            what = (operation("follow_log"), {"domain": FOLLOWED}, followed * EVENTS, within)
            followers = Beside(follow, appliance.http_port, token, arguments.followers, *what)
        if parts.queries:
            queries = Beside(ask_again, appliance.http_port, token, arguments.seconds)
        if messages:
            pace = (parts.mail_per_second, messages, arguments.size, arguments.sessions)
            mail = Beside(send_paced, appliance.smtp_port, recipients, *pace)
        load = [part for part in (followers, queries, mail) if part is not None]
        for part in load:
            stack.enter_context(part)
        for part in load:
            part.prepared()
        pids, began = appliance.children(), time.perf_counter()
        before = [process_tree.cpu_ms(pid) for pid in pids]
        for part in load:
            part.begin()
        rate = queries.result(within) if queries else 0.0
        waited = sorted(mail.result(within)) if mail else []
        seconds = time.perf_counter() - began
        engine, control = ((process_tree.cpu_ms(pid) - was) / 1000 for pid, was in zip(pids, before, strict=True))
        heard = followers.result(within) if followers else Followed(0, 0, 0, [])
    answers = rate * arguments.seconds + len(heard.latencies_s)
    return Figures(
        queries_per_second=rate,
        events=heard.events,
        lost=heard.lost,
        doubles=heard.doubles,
        event_p50_ms=1000 * percentile(heard.latencies_s, 0.5),
        event_p99_ms=1000 * percentile(heard.latencies_s, 0.99),
        mail_p50_ms=1000 * percentile(waited, 0.5),
        mail_p99_ms=1000 * percentile(waited, 0.99),
        engine_cpu=engine / seconds,
        control_cpu=control / seconds,
        answer_cpu_ms=1000 * control / (answers or 1),
    )


def percentile(ordered: Sequence[float], part: float) -> float:
    """Of values in order; 0 where there are none."""
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else 0.0


def median(rounds: Sequence[Figures]) -> Figures:
    """Each figure's median; but nothing that was lost or came twice is lost sight of."""
    columns = {name: [getattr(each, name) for each in rounds] for name in asdict(rounds[0])}
    summed = {"events", "lost", "doubles"}
    return Figures(**{name: (sum if name in summed else statistics.median)(each) for name, each in columns.items()})


@contextlib.contextmanager
def running(directory: str) -> Iterator[tuple[Appliance, str]]:
    """An appliance with both domains, whose mail is swallowed, and a token of their owner."""
    with contextlib.ExitStack() as stack:
        inside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onward-bench-", dir=directory)))
        sink_port = free_port(SINK_ADDRESS)
        sink = start_sink(SINK_ADDRESS, sink_port)
        stack.callback(sink.communicate)
        stack.callback(sink.kill)
        records = {"destination.test": ["MX 10 mx.destination.test."], "mx.destination.test": [f"A {SINK_ADDRESS}"]}
        dns = stack.enter_context(DnsServer(records, ttl=600))
        appliance = Appliance(inside, nameserver=dns.nameserver, delivery_port=sink_port)
        added = appliance.cli("account", "add", OWNER, "--password-stdin", stdin=PASSWORD + "\n")
        assert added.status == 0, added
        for domain in (FOLLOWED, OTHER):
            appliance.add_domain(domain, account=OWNER)
        # Commands within this process say what they have done; here that is between the figures.
        with contextlib.redirect_stderr(io.StringIO()):
            for address in (*(f"alias{number}@{FOLLOWED}" for number in range(ALIASES)), f"alias0@{OTHER}"):
                appliance.settle("alias", "add", address, TARGET, "--confirmed")
        stack.enter_context(appliance)
        yield appliance, _token(appliance)


def _token(appliance: Appliance) -> str:
    with GraphqlClient(appliance.http_port) as client:
        assert client.data(operation("sign_in"), email=OWNER, password=PASSWORD)["signIn"]["errors"] == []
        made = client.data(operation("create_api_token"), name="bench", scopes=["READ", "LOGS"])["createApiToken"]
        token: str = made["secret"]
        return token


def missed(figures: dict[str, Figures]) -> list[str]:
    """The aims that are, in words."""
    found = []
    for name, of_one in figures.items():
        if name == "queries" and of_one.queries_per_second < QUERIES_AIM:
            found.append(f"{QUERIES_AIM} queries/s alone")
        if of_one.lost or of_one.doubles:
            found.append(f"each event once for each follower ({name})")
        if name in ("mail", "all together") and of_one.mail_p99_ms >= 1000 * MAIL_AIM_S:
            found.append(f"99 of 100 messages in less than {1000 * MAIL_AIM_S:.0f} ms ({name})")
    return found


def report(figures: dict[str, Figures], arguments: argparse.Namespace) -> None:
    """For people."""
    print(
        f"{arguments.followers} followers, {arguments.mail:.0f} messages/s of {arguments.size} octets over "
        f"{arguments.sessions} sessions; {arguments.rounds} rounds of {arguments.seconds:.0f} s\n"
    )
    print(f"{'':14}{'queries/s':>10}{'events':>8}{'lost':>6}{'twice':>6}", end="")
    print(f"{'p50':>8}{'p99 ms':>8}{'mail p50':>10}{'p99 ms':>8}{'engine CPU':>12}{'control CPU':>13}{'ms each':>9}")
    for name, of_one in figures.items():
        print(
            f"{name:14}{of_one.queries_per_second:10.0f}{of_one.events:8}{of_one.lost:6}{of_one.doubles:6}"
            f"{of_one.event_p50_ms:8.0f}{of_one.event_p99_ms:8.0f}{of_one.mail_p50_ms:10.2f}{of_one.mail_p99_ms:8.2f}"
            f"{of_one.engine_cpu:12.0%}{of_one.control_cpu:13.0%}{of_one.answer_cpu_ms:9.2f}"
        )


def main() -> None:
    """Measure and report; the exit status is 1 where an aim was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of the four parts of a round")
    parser.add_argument("--followers", type=int, default=200, help="websockets")
    parser.add_argument("--mail", type=float, default=100.0, help="messages/s; a quarter as many events are followed")
    parser.add_argument("--sessions", type=int, default=5, help="SMTP connections at once")
    parser.add_argument("--size", type=int, default=4096, help="octets of a message")
    parser.add_argument("--directory", default="/var/tmp", help="on a disk: where the appliance has its data")
    parser.add_argument("--only", nargs="*", default=(), help="names of what is measured, such as queries")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if shutil.which("smtp-sink") is None:
        sys.exit("smtp-sink is missing: run tests/install-peers as root")
    parts = [each for each in parts_of(arguments) if not arguments.only or each.name in arguments.only]
    rounds: dict[str, list[Figures]] = {each.name: [] for each in parts}
    with running(arguments.directory) as (appliance, token):
        for _ in range(arguments.rounds):
            for each in parts:
                rounds[each.name].append(one_round(appliance, token, each, arguments))
    figures = {name: median(of_one) for name, of_one in rounds.items()}
    if arguments.json:
        document = {
            "median": {name: asdict(of_one) for name, of_one in figures.items()},
            "rounds": {name: [asdict(each) for each in of_one] for name, of_one in rounds.items()},
        }
        print(json.dumps(document, indent=2))
    else:
        report(figures, arguments)
    if found := missed(figures):
        sys.exit("missed: " + "; ".join(found))


if __name__ == "__main__":
    main()
