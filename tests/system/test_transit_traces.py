"""Transit leaves no trace (P6): nothing of a message or its envelope is written anywhere, well as it may go or ill.

Two ways to look. One reads every file of the appliance and all that it says, while mail flows and afterwards, for words
that stood in the messages and their addresses. What is sealed would not be found like that, so the other watches the
engine's calls to the kernel: on the way of these messages it writes to no file at all. (Its clocks are written down now
and then, whether there is mail or not; the mail has gone before the first time.)

`ONWARD_TRANSIT=100000 make test-long` is for the night.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from appliance_process import eventually
from destination_scripts import CLOSE, Answer, Moment, Stage
from smtp_client import SmtpClient
from world import World, letter

from appliance.run.engine import MARK_S

MESSAGES = 200
LONG_MESSAGES = int(os.environ.get("ONWARD_TRANSIT", "10000"))
SENDERS = 4
"""People who write at once, in the long test."""

WRITING = "write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync,ftruncate,fallocate,rename,renameat,renameat2"
OPENING = "open,openat,openat2,creat,memfd_create"

DOMAIN = ("--mode", "transit", "--log", "none")


@dataclass
class Post:
    """Messages that all carry a word found nowhere else, in whatever way they end."""

    world: World
    word: str = field(default_factory=lambda: "canary" + secrets.token_hex(8))
    codes: dict[int, int] = field(default_factory=dict)
    """How many transactions ended with each code."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, numbers: range) -> None:
        """One message for each number; every eighth ends in one of the other ways."""
        client = self.world.appliance.client()
        try:
            for number in numbers:
                if number % 80 == 0:
                    # In the middle of the content the sender is gone.
                    client.envelope(f"{self.word}@sender.test", ["ok@transit.test"])
                    client.command("DATA")
                    client.send(f"Subject: {self.word}\r\n\r\n{self.word}\r\n".encode())
                    client.close()
                    client = self.world.appliance.client()
                else:
                    self._send_one(client, number)
        finally:
            client.close()

    def _send_one(self, client: SmtpClient, number: int) -> None:
        alias = {8: "refused", 16: "busy", 24: "spam", 32: "dies", 40: "two", 48: "down"}.get(number % 56, "ok")
        # One in three has a sender that no rewritten one can carry.
        sender = f"{self.word}.{number}{'.long' * (6 if number % 3 == 0 else 0)}@sender.test"
        header = f"X-Word: {self.word}\r\n".encode()
        # One in fifty is larger than what is kept of a message in spool mode.
        body = f"{self.word} {number}\r\n" * (20_000 if number % 50 == 7 else 3)
        content = header + letter(f"{self.word}@transit.test", f"{self.word} {number}", body)
        reply = client.message(sender, [f"{alias}+{self.word}@transit.test"], content)
        with self.lock:
            self.codes[reply.code] = self.codes.get(reply.code, 0) + 1


def script(moment: Moment) -> Answer | None:
    """Mailboxes that refuse at one stage or another, in words that repeat what was said."""
    recipient = moment.recipient or " ".join(moment.recipients)
    if moment.stage is Stage.RCPT and recipient.startswith("refused"):
        return Answer(550, f"5.1.1 {moment.sender} may not write to {recipient}")
    if moment.stage is Stage.RCPT and recipient.startswith("busy"):
        return Answer(451, f"4.2.1 {moment.sender} has to wait for {recipient}")
    if moment.stage is Stage.END_OF_DATA and recipient.startswith("spam"):
        return Answer(554, f"5.7.1 {moment.sender} wrote {moment.content[-40:]!r}")
    if moment.stage is Stage.END_OF_DATA and recipient.startswith("dies"):
        return CLOSE
    return None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    names = ("ok", "refused", "busy", "spam", "dies")
    town = {f"{name}@transit.test": [f"{name}.box@dest.test"] for name in names}
    town |= {"two@transit.test": ["two.box@dest.test", "spam.box@other.test"], "down@transit.test": ["box@down.test"]}
    town["spooled@forward.test"] = ["spooled.box@dest.test"]
    with World(tmp_path_factory.mktemp("traces"), town, domains={"transit.test": DOMAIN}) as world:
        world.dns.set("other.test", "MX 10 mx2.dest.test.")
        world.dns.set("down.test", "MX 10 nobody.test.")
        world.dns.set("nobody.test", "A 127.0.0.6")
        world.second.script = script
        world.mailbox_says(script)
        yield world
        world.queue_is_empty()
        assert world.objections() == []


def files_with(directory: Path, word: str) -> list[str]:
    """The files below a directory that have a word in their octets or in their name."""
    found = []
    for path in directory.rglob("*"):
        octets = b""
        try:
            if path.is_file():
                octets = path.read_bytes()
        except FileNotFoundError:
            continue
        if word.encode() in octets or word.encode("utf-16-le") in octets or word in path.name:
            found.append(str(path))
    return found


def send_and_look(world: World, messages: int) -> Post:
    """Send, and look into every file meanwhile and afterwards. Fails where the word is in one."""
    post = Post(world)
    share = messages // SENDERS
    ranges = [range(sender * share, (sender + 1) * share) for sender in range(SENDERS)]
    senders = [threading.Thread(target=post.send, args=(numbers,)) for numbers in ranges]
    directory = world.appliance.config.parent
    for sender in senders:
        sender.start()
    while any(sender.is_alive() for sender in senders):
        assert files_with(directory, post.word) == []
        senders[0].join(0.2)
    for sender in senders:
        sender.join()
    assert files_with(directory, post.word) == []
    assert post.word not in world.appliance.said()
    return post


def all_ways_were_gone(post: Post) -> bool:
    """Whether enough was delivered, refused and put off for the test to mean something."""
    return post.codes[250] > 5 * (post.codes[550] + post.codes[554]) > 0 and post.codes[451] > 0


def test_nothing_of_a_message_is_in_any_file_or_in_what_is_said(world: World) -> None:
    post = send_and_look(world, MESSAGES)
    assert all_ways_were_gone(post), post.codes
    assert len(world.main.containing(post.word.encode())) >= post.codes[250]
    # Nor is it when the appliance ends and begins again, and writes down whatever it holds.
    world.appliance.restart()
    assert files_with(world.appliance.config.parent, post.word) == []
    assert post.word not in world.appliance.said()
    assert world.appliance.log_events() == []
    assert world.appliance.queue() == []


@pytest.mark.long
def test_nothing_of_ten_thousand_messages_is_in_any_file(world: World) -> None:
    def forget(_: object) -> None:
        """There are too many of them."""

    world.main.take = forget
    post = send_and_look(world, LONG_MESSAGES)
    assert all_ways_were_gone(post), post.codes
    assert world.appliance.log_events() == []


# ---------------------------------------------------------------------- what the kernel is asked for


@contextmanager
def watched(pid: int, into: Path) -> Iterator[None]:
    """Write down every call of a process by which something could get into a file."""
    command = ["strace", "-f", "-y", "-qq", "-s", "0", "-p", str(pid), "-o", str(into)]
    watcher = subprocess.Popen([*command, "-e", f"trace={WRITING},{OPENING}"], stderr=subprocess.PIPE)
    try:
        tasks = Path(f"/proc/{pid}/task")
        eventually(lambda: all(_is_traced(task) for task in tasks.iterdir()) or watcher.poll(), what="strace has begun")
        assert watcher.poll() is None, "strace can't watch this process"
        yield
    finally:
        watcher.send_signal(signal.SIGINT)
        watcher.communicate(timeout=20)


def _is_traced(task: Path) -> bool:
    return re.search(r"^TracerPid:\t[1-9]", (task / "status").read_text(), re.MULTILINE) is not None


def file_writes(trace: str) -> list[str]:
    """The calls that wrote to a file, or opened one to write to it. Sockets, pipes and events are none."""
    found = []
    for line in trace.splitlines():
        name, _, rest = line.partition(" ")[2].strip().partition("(")
        if name in WRITING.split(","):
            if re.match(r"\d+<(?:socket|pipe|TCP|UDP|UNIX|anon_inode|/dev/null)", rest) is None:
                found.append(line)
        elif re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE", rest) or name in ("creat", "memfd_create"):
            found.append(line)
    return found


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace: tests/install-peers")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may watch a process that forbids core dumps")
def test_on_the_way_of_a_message_no_file_is_written_to(world: World, tmp_path: Path) -> None:
    began = time.monotonic()
    world.appliance.restart()
    engine, _ = world.appliance.children()
    log = tmp_path / "trace"
    # Threads are made, modules loaded and the house swept before.
    Post(world).send(range(1, 60))
    post = Post(world)
    with watched(engine, log):
        post.send(range(MESSAGES))
    assert time.monotonic() - began < MARK_S, "too slow: by now the clocks may have been written down"
    assert all_ways_were_gone(post), post.codes
    assert file_writes(log.read_text()) == []
    # And so it looks where something is written.
    with watched(engine, log):
        assert world.send("spooled@forward.test").code == 250
    assert any("spool.sqlite-wal" in line for line in file_writes(log.read_text()))


def test_the_watcher_would_see_a_write(tmp_path: Path) -> None:
    lines = [
        '7 pwrite64(12</var/lib/onward/spool.sqlite-wal>, ""..., 4096, 0) = 4096',
        '7 write(2</var/log/errors>, ""..., 20) = 20',
        "7 fsync(12</var/lib/onward/spool.sqlite-wal>) = 0",
        '7 openat(AT_FDCWD</>, "/tmp/x", O_RDWR|O_CREAT|O_EXCL, 0600) = 13</tmp/x>',
        '7 write(13<anon_inode:[eventfd]>, ""..., 8) = 8',
        '7 write(14<socket:[1234]>, ""..., 8) = 8',
        '7 openat(AT_FDCWD</>, "/etc/hosts", O_RDONLY|O_CLOEXEC) = 13</etc/hosts>',
    ]
    assert file_writes("\n".join(lines)) == lines[:4]
