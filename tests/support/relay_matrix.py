"""Who may send what to whom through the appliance: every client x greeting x TLS x sender x recipient, and the rule.

The rule is written down here a second time, in plain conditions over the axes, and asks nothing of the house: mail is
taken for aliases of verified domains, for valid rewritten senders where the sender is null, and for postmaster. Neither
who the client is, nor what it calls itself, nor its sender, nor TLS makes any difference to that.

One conversation has one client, greeting, TLS and sender, and asks for all recipients in one pipelined transaction,
which it gives up. Then it sends one letter, so that everything that is accepted is also seen to arrive.

The appliance remembers how its clients behave: it answers slowly, and in the end not at all, who asks for many
addresses that do not exist. Two clients of the matrix have a fresh address in each conversation. Those that always have
the same one keep the peace as an honest list server does: behind each unknown recipient they name one that exists.
"""

import re
import socket
import ssl
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import cycle, product

from appliance_process import HOSTNAME, SRS_DOMAIN
from returned_reports import POSTFIX
from smtp_client import stuffed

HOSTED = "forward.test"
EVERYTHING = "everything.test"
"""Hosted, with a catch-all."""
INTERNATIONAL, IN_A_LABELS = "bücher.test", "xn--bcher-kva.test"
UNPROVEN = "unproven.test"
"""Added by somebody who has not proven that it is theirs."""
FOREIGN = "foreign.test"

PROXY = "127.1.0.1"
"""The address of the one proxy that the appliance trusts."""
PROXIES = "127.1.0.0/16"

TIMEOUT_S = 20
"""For each step of a conversation: the appliance holds an answer back for five seconds where somebody guesses."""


class Why(Enum):
    """The reason for the answer to a recipient."""

    ALIAS = "an alias of a verified domain takes it"
    POSTMASTER = "the operator's, which always exists"
    RETURN_PATH = "a rewritten sender of ours, still valid"
    RETURN_PATH_REFUSED = "at the domain of our rewritten senders: forged, changed or too old"
    RETURN_PATH_UNKNOWN = "at the domain of our rewritten senders, and none"
    UNKNOWN = "no alias takes it"
    OFF = "an alias that is switched off or has expired"
    LATER = "an alias that puts mail off"
    UNCONFIRMED = "an alias to a mailbox whose owner has not agreed"
    FOREIGN = "not at a verified domain of ours"
    NO_ADDRESS = "not an address"


@dataclass(frozen=True, slots=True)
class Recipient:
    """What stands behind `RCPT TO:`, why it is answered as it is, and where the mail arrives if it is taken."""

    path: str
    why: Why
    leads_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sender:
    """What stands behind `MAIL FROM:`."""

    name: str
    path: str

    @property
    def is_null(self) -> bool:
        return self.path == "<>"

    @property
    def is_international(self) -> bool:
        return self.path.endswith(" SMTPUTF8")


@dataclass(frozen=True, slots=True)
class Client:
    """From where a connection comes, and what a proxy says of it. `{fresh}` stands for a number in 1..250."""

    name: str
    address: str
    header: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One connection: a cell for each recipient, and a letter."""

    number: int
    client: Client
    greeting: str
    """The whole command; empty for none."""
    tls: bool
    sender: Sender
    asks_for: tuple[Recipient, ...]
    """The cells."""
    letter_to: tuple[Recipient, ...]

    def __str__(self) -> str:
        greeting = self.greeting or "no greeting"
        return f"{self.client.name} | {greeting} | {'TLS' if self.tls else 'clear'} | {self.sender.name}"


CLIENTS = (
    Client("127.0.0.1", "127.0.0.1"),
    Client("another of loopback", "127.2.0.{fresh}"),
    Client("::1", "::1"),
    Client("a public address, by proxy", PROXY, "PROXY TCP4 203.0.113.{fresh} 127.0.0.1 4711 25"),
    Client("127.0.0.1, by proxy", PROXY, "PROXY TCP4 127.0.0.1 127.0.0.1 4711 25"),
    Client("::1, by proxy", PROXY, "PROXY TCP6 ::1 ::1 4711 25"),
    Client("the proxy itself", PROXY, "PROXY UNKNOWN"),
)

GREETINGS = (
    "",
    "HELO client.example.net",
    "EHLO client.example.net",
    f"EHLO {HOSTED}",
    "EHLO localhost",
    "EHLO [127.0.0.1]",
    f"EHLO {HOSTNAME}",
)


@dataclass(frozen=True, slots=True)
class ReturnPaths:
    """Rewritten senders of ours, as a destination has seen them or as we would have made them."""

    carried: str
    """With the sender in itself: ann@sender.test."""
    stored: str
    """Standing for one that is kept: "ann at home"@sender.test."""
    aged: str
    """Made twenty days ago, for aged@sender.test."""
    expired: str
    """Made thirty days ago."""


def senders(ways: ReturnPaths) -> tuple[Sender, ...]:
    """Everybody a stranger may claim to be."""
    return (
        Sender("<>", "<>"),
        Sender("a stranger", "<ann@sender.test>"),
        Sender("our own alias", f"<info@{HOSTED}>"),
        Sender("of an unverified domain", f"<info@{UNPROVEN}>"),
        Sender("our postmaster", f"<postmaster@{HOSTNAME}>"),
        Sender("a destination", "<info.box@dest.test>"),
        Sender("a rewritten sender", f"<{ways.carried}>"),
        Sender("root@localhost", "<root@localhost>"),
        Sender("source-routed", f"<@{HOSTED},@localhost:ann@sender.test>"),
        Sender("quoted", f'<"ann@{HOSTED}"@sender.test>'),
        Sender("international", "<änne@bücher.sender.test> SMTPUTF8"),
    )


def recipients(ways: ReturnPaths) -> tuple[Recipient, ...]:
    """Everything that a stranger may write to, or may try."""
    info, anything, operator = ("info.box@dest.test",), ("everything.box@dest.test",), ("operator@dest.test",)
    ann, at_home, aged = ("ann@sender.test",), ('"ann at home"@sender.test',), ("aged@sender.test",)
    refused, unknown = Why.RETURN_PATH_REFUSED, Why.RETURN_PATH_UNKNOWN
    local_part, _, _ = ways.carried.partition("@")
    tag = local_part.split("=")[1]
    return (
        # Aliases, however they are written.
        Recipient(f"<info@{HOSTED}>", Why.ALIAS, info),
        Recipient(f"<INFO@{HOSTED.upper()}>", Why.ALIAS, info),
        Recipient(f"<info+tag@{HOSTED}>", Why.ALIAS, info),
        Recipient(f'<"info"@{HOSTED}>', Why.ALIAS, info),
        Recipient(f"info@{HOSTED}", Why.ALIAS, info),
        Recipient(f"<team@{HOSTED}>", Why.ALIAS, ("first.box@dest.test", "second.box@dest.test")),
        Recipient(f"<sales-2026@{HOSTED}>", Why.ALIAS, ("sales.box@dest.test",)),
        Recipient(f"<anything@{EVERYTHING}>", Why.ALIAS, anything),
        Recipient(f"<postmaster@{EVERYTHING}>", Why.ALIAS, anything),
        Recipient(f"<info@{IN_A_LABELS}>", Why.ALIAS, ("books.box@dest.test",)),
        Recipient(f"<info@{INTERNATIONAL}>", Why.ALIAS, ("books.box@dest.test",)),
        Recipient(f"<INFO@{INTERNATIONAL.upper()}>", Why.ALIAS, ("books.box@dest.test",)),
        Recipient(f"<discard@{HOSTED}>", Why.ALIAS),
        # RFC 5321 §4.1.1.3 and appendix C: a route is ignored, and the address behind it is what counts.
        Recipient(f"<@other.example:info@{HOSTED}>", Why.ALIAS, info),
        Recipient(f"<@{HOSTED},@{FOREIGN}:info@{HOSTED}>", Why.ALIAS, info),
        # A catch-all takes what older servers would have passed on; it goes to its own mailbox.
        Recipient(f"<x%{FOREIGN}@{EVERYTHING}>", Why.ALIAS, anything),
        Recipient(f"<{FOREIGN}!x@{EVERYTHING}>", Why.ALIAS, anything),
        Recipient(f'<"x@{FOREIGN}"@{EVERYTHING}>', Why.ALIAS, anything),
        # Aliases that take nothing, and what is none.
        Recipient(f"<nobody@{HOSTED}>", Why.UNKNOWN),
        Recipient(f"<reject@{HOSTED}>", Why.UNKNOWN),
        Recipient(f"<disabled@{HOSTED}>", Why.OFF),
        Recipient(f"<expired@{HOSTED}>", Why.OFF),
        Recipient(f"<defer@{HOSTED}>", Why.LATER),
        Recipient(f"<unconfirmed@{HOSTED}>", Why.UNCONFIRMED),
        # What once led through a server to others.
        Recipient(f"<x%{FOREIGN}@{HOSTED}>", Why.UNKNOWN),
        Recipient(f"<{FOREIGN}!x@{HOSTED}>", Why.UNKNOWN),
        Recipient(f'<"x@{FOREIGN}"@{HOSTED}>', Why.UNKNOWN),
        Recipient(f'<"x%{FOREIGN}"@{HOSTED}>', Why.UNKNOWN),
        Recipient(f"<x%{FOREIGN}@{HOSTNAME}>", Why.UNKNOWN),
        Recipient(f"<postmaster%{FOREIGN}@{HOSTED}>", Why.UNKNOWN),
        Recipient(f"<@{HOSTED}:x@{FOREIGN}>", Why.FOREIGN),
        Recipient(f"<@localhost,@{HOSTNAME}:x@{FOREIGN}>", Why.FOREIGN),
        Recipient(f"<x%{FOREIGN}@[127.0.0.1]>", Why.FOREIGN),
        Recipient(f"<{HOSTED}!x@{FOREIGN}>", Why.FOREIGN),
        Recipient(f'<"info@{HOSTED}"@{FOREIGN}>', Why.FOREIGN),
        Recipient(f"<info%{HOSTED}@{FOREIGN}>", Why.FOREIGN),
        # Others' addresses, some of which look like ours.
        Recipient(f"<x@{FOREIGN}>", Why.FOREIGN),
        Recipient(f"x@{FOREIGN}", Why.FOREIGN),
        Recipient("<info.box@dest.test>", Why.FOREIGN),
        Recipient(f"<info@{UNPROVEN}>", Why.FOREIGN),
        Recipient(f"<info@sub.{HOSTED}>", Why.FOREIGN),
        Recipient(f"<info@not{HOSTED}>", Why.FOREIGN),
        Recipient(f"<info@{HOSTED}.{FOREIGN}>", Why.FOREIGN),
        Recipient("<x@[127.0.0.1]>", Why.FOREIGN),
        Recipient("<x@[IPv6:::1]>", Why.FOREIGN),
        Recipient("<root@localhost>", Why.FOREIGN),
        Recipient(f"<x@bücher.{FOREIGN}>", Why.FOREIGN),
        # Our own names, and postmaster.
        Recipient(f"<x@{HOSTNAME}>", Why.UNKNOWN),
        Recipient("<postmaster>", Why.POSTMASTER, operator),
        Recipient("<PostMaster>", Why.POSTMASTER, operator),
        Recipient("POSTMASTER", Why.POSTMASTER, operator),
        Recipient(f"<postmaster@{HOSTED}>", Why.POSTMASTER, operator),
        Recipient(f"<postmaster@{HOSTNAME}>", Why.POSTMASTER, operator),
        Recipient(f"<POSTMASTER@{HOSTNAME.upper()}>", Why.POSTMASTER, operator),
        Recipient(f"<postmaster@{SRS_DOMAIN}>", Why.POSTMASTER, operator),
        Recipient(f"<@{FOREIGN}:postmaster@{HOSTNAME}>", Why.POSTMASTER, operator),
        Recipient(f"<postmaster+tag@{HOSTED}>", Why.UNKNOWN),
        Recipient("<postmaster@[127.0.0.1]>", Why.FOREIGN),
        Recipient("<postmaster@localhost>", Why.FOREIGN),
        Recipient(f"<postmaster@{FOREIGN}>", Why.FOREIGN),
        Recipient(f"<postmaster@{UNPROVEN}>", Why.FOREIGN),
        # Rewritten senders.
        Recipient(f"<{ways.carried}>", Why.RETURN_PATH, ann),
        Recipient(f"<{ways.carried.upper()}>", Why.RETURN_PATH, ("ANN@SENDER.TEST",)),
        Recipient(f"<@{FOREIGN}:{ways.carried}>", Why.RETURN_PATH, ann),
        Recipient(f"<{ways.stored}>", Why.RETURN_PATH, at_home),
        Recipient(f"<{ways.aged}>", Why.RETURN_PATH, aged),
        Recipient(f"<{ways.expired}>", refused),
        Recipient(f"<{ways.carried.replace(tag, 'a' * len(tag))}>", refused),
        Recipient(f"<{ways.carried.replace('sender.test=ann', f'{FOREIGN}=x')}>", refused),
        Recipient(f"<srs0=x@{SRS_DOMAIN}>", refused),
        Recipient(f"<x@{SRS_DOMAIN}>", unknown),
        Recipient(f"<x%{FOREIGN}@{SRS_DOMAIN}>", unknown),
        Recipient(f"<srs1={tag}={FOREIGN}==x@{SRS_DOMAIN}>", unknown),
        Recipient(f"<{local_part}@srs.{FOREIGN}>", Why.FOREIGN),
        Recipient(f"<{local_part}@{HOSTED}>", Why.UNKNOWN),
        Recipient(f"<{local_part}@{HOSTNAME}>", Why.UNKNOWN),
        # No addresses at all.
        Recipient("<>", Why.NO_ADDRESS),
        Recipient(f"<@{HOSTED}>", Why.NO_ADDRESS),
        Recipient("<root>", Why.NO_ADDRESS),
        Recipient(f"<info@{HOSTED}.>", Why.NO_ADDRESS),
        Recipient(f"<info@{HOSTED}:25>", Why.NO_ADDRESS),
        Recipient(f"<x@{FOREIGN}@{HOSTED}>", Why.NO_ADDRESS),
        Recipient(f'<"x@{FOREIGN}">', Why.NO_ADDRESS),
        Recipient(f"<x%{FOREIGN}>", Why.NO_ADDRESS),
        Recipient(f"<{FOREIGN}!x>", Why.NO_ADDRESS),
    )


# ---------------------------------------------------------------------- the rule


def answer_to_mail(greeting: str) -> str:
    """The code and the enhanced code: whoever has greeted may say any sender."""
    return "250 2.1.0" if greeting else "503 5.5.1"


def answer_to_rcpt(greeting: str, sender: Sender, recipient: Recipient) -> str:
    """The code and the enhanced code. Neither the client nor TLS is asked for."""
    why = recipient.why
    if not greeting:
        return "503 5.5.1"
    if why is Why.NO_ADDRESS:
        return "501 5.1.3"
    if not recipient.path.isascii() and not sender.is_international:
        return "553 5.6.7"
    if why in (Why.RETURN_PATH, Why.RETURN_PATH_REFUSED, Why.RETURN_PATH_UNKNOWN) and not sender.is_null:
        # Only reports come back to a rewritten sender, and they have the null reverse-path (RFC 5321 §4.5.5).
        return "550 5.7.1"
    if why in (Why.ALIAS, Why.POSTMASTER, Why.RETURN_PATH):
        return "250 2.1.5"
    if why in (Why.UNKNOWN, Why.RETURN_PATH_UNKNOWN):
        return "550 5.1.1"
    if why is Why.OFF:
        return "550 5.2.1"
    if why is Why.LATER:
        return "450 4.2.1"
    if why is Why.UNCONFIRMED:
        return "451 4.3.5"
    assert why in (Why.FOREIGN, Why.RETURN_PATH_REFUSED)
    return "550 5.7.1"


def is_taken(greeting: str, sender: Sender, recipient: Recipient) -> bool:
    """Whether this is mail for us."""
    return answer_to_rcpt(greeting, sender, recipient) == "250 2.1.5"


def is_way_back(greeting: str, sender: Sender, recipient: Recipient) -> bool:
    """Whether it is taken, and answered with a report of our own instead of going anywhere."""
    return recipient.why is Why.RETURN_PATH and is_taken(greeting, sender, recipient)


# ---------------------------------------------------------------------- the matrix


def conversations(clients: Sequence[Client], of: Sequence[Sender], to: Sequence[Recipient]) -> Iterator[Conversation]:
    """All of them. Each sends its letter to the next of those that take mail from its sender; and at last the null
    sender and one with SMTPUTF8 write to everybody at once, those who are refused included.
    """
    taken = {sender: cycle([each for each in to if is_taken("EHLO", sender, each)]) for sender in of}
    number = 0
    for client, tls, greeting, sender in product(clients, (False, True), GREETINGS, of):
        letter_to = (next(taken[sender]),) if greeting else ()
        yield Conversation(number, client, greeting, tls, sender, tuple(to), letter_to)
        number += 1
    for sender in of:
        if sender.is_null or sender.is_international:
            yield Conversation(number, clients[0], GREETINGS[-1], False, sender, (), tuple(to))
            number += 1


def expected_letters(held: Sequence[Conversation]) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """What arrives at destinations, by the number of its conversation; and how many reports senders get from us."""
    letters: dict[str, Counter[str]] = {}
    reports: Counter[str] = Counter()
    for each in held:
        # A mailbox gets one copy, and a sender one report, however many recipients led there.
        mailboxes: set[str] = set()
        senders_told: set[str] = set()
        for to in each.letter_to:
            if is_way_back(each.greeting, each.sender, to):
                senders_told.update(to.leads_to)
            elif is_taken(each.greeting, each.sender, to):
                mailboxes.update(to.leads_to)
        if mailboxes:
            letters[str(each.number)] = Counter(mailboxes)
        reports.update(senders_told)
    return letters, reports


def letter(mark: str, *, report: bool = False) -> bytes:
    """A message that tells where it came from; with `report`, in the form of a destination's report."""
    text = POSTFIX if report else b"From: ann@sender.test\r\nSubject: A letter\r\n\r\nGood morning.\r\n"
    return f"X-Cell: {mark}\r\n".encode() + text


def mark_of(content: bytes) -> str:
    """The mark of such a letter; empty where it has none."""
    found = re.search(rb"^X-Cell: (\S+)\r$", content, re.MULTILINE)
    return found[1].decode() if found else ""


# ---------------------------------------------------------------------- talking


class Unexpected(Exception):
    """An answer that ends the conversation."""


class _Line:
    """One connection. Says lines, hears the code and the enhanced code of each reply."""

    def __init__(self, client: Client, number: int, ports: Mapping[str, int]) -> None:
        fresh = str(1 + number % 250)
        server = "::1" if ":" in client.address else "127.0.0.1"
        source = (client.address.replace("{fresh}", fresh), 0)
        self._socket = socket.create_connection((server, ports[server]), TIMEOUT_S, source)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")
        if client.header:
            self._socket.sendall(client.header.replace("{fresh}", fresh).encode() + b"\r\n")

    def say(self, *lines: str) -> None:
        self._socket.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def send(self, octets: bytes) -> None:
        self._socket.sendall(octets)

    def hear(self) -> tuple[str, list[str]]:
        """The code with the enhanced code, and the text of each line."""
        texts: list[str] = []
        while True:
            line = self._stream.readline(4096).decode("ascii")
            if not line.endswith("\r\n"):
                raise Unexpected(f"the connection ended behind {texts} {line!r}")
            texts.append(line[4:-2])
            if line[3] != "-":
                status = re.match(r"[245]\.\d{1,3}\.\d{1,3}(?= )", texts[0])
                return (f"{line[:3]} {status[0]}" if status else line[:3]), texts

    def must_hear(self, expected: str, what: str) -> list[str]:
        heard, texts = self.hear()
        if heard != expected:
            raise Unexpected(f"{what} was answered {heard} {texts}, not {expected}")
        return texts

    def start_tls(self, context: ssl.SSLContext) -> None:
        self._stream.close()
        self._socket = context.wrap_socket(self._socket)
        self._stream = self._socket.makefile("rb")

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


@dataclass(slots=True)
class Heard:
    """How a conversation went."""

    cells: int = 0
    """Recipients whose answer was heard and judged."""
    objections: tuple[str, ...] = ()


def hold(each: Conversation, ports: Mapping[str, int], context: ssl.SSLContext) -> Heard:
    """Have one conversation with the appliance, `ports` by address. Raises nothing: all that went wrong is in words."""
    heard = Heard()
    objections: list[str] = []
    try:
        line = _Line(each.client, each.number, ports)
        try:
            _talk(line, each, context, heard, objections)
        finally:
            line.close()
    except (OSError, Unexpected, ValueError) as error:
        objections.append(f"{each}: {type(error).__name__}: {error}")
    heard.objections = tuple(objections)
    return heard


def _talk(line: _Line, each: Conversation, context: ssl.SSLContext, heard: Heard, objections: list[str]) -> None:
    line.must_hear("220", "the connection")
    if each.tls:
        line.say("EHLO before.example.net")
        if "STARTTLS" not in line.must_hear("250", "EHLO"):
            raise Unexpected("STARTTLS is not offered")
        line.say("STARTTLS")
        line.must_hear("220 2.0.0", "STARTTLS")
        line.start_tls(context)
    if each.greeting:
        line.say(each.greeting)
        line.must_hear("250", each.greeting)
    # RFC 2920 §3.1: all in one group, whose last is DATA.
    group = list(_group(each))
    line.say(*(command for command, _, _ in group))
    for command, expected, is_cell in group:
        answer, texts = line.hear()
        heard.cells += is_cell
        if answer != expected:
            objections.append(f"{each}: {command} was answered {answer} {texts}, not {expected}")
            if command == "DATA" or answer.startswith("421"):
                raise Unexpected("nothing more can be said")
    if each.letter_to:
        is_report = any(is_way_back(each.greeting, each.sender, to) for to in each.letter_to)
        line.send(stuffed(letter(str(each.number), report=is_report)))
        line.must_hear("250 2.0.0", "the letter")
    line.say("QUIT")
    line.must_hear("221 2.0.0", "QUIT")


def _group(each: Conversation) -> Iterator[tuple[str, str, bool]]:
    """Commands with the answers that are due, and whether each is a cell."""
    mail = (f"MAIL FROM:{each.sender.path}", answer_to_mail(each.greeting), False)
    yield mail
    for to in each.asks_for:
        yield from _asked(each, to, is_cell=True)
    yield "RSET", "250 2.0.0", False
    if each.letter_to:
        yield mail
        for to in each.letter_to:
            yield from _asked(each, to, is_cell=False)
        yield "DATA", "354", False


def _asked(each: Conversation, to: Recipient, *, is_cell: bool) -> Iterator[tuple[str, str, bool]]:
    expected = answer_to_rcpt(each.greeting, each.sender, to)
    yield f"RCPT TO:{to.path}", expected, is_cell
    if expected == "550 5.1.1":
        # Keeps the peace.
        yield f"RCPT TO:<postmaster@{HOSTNAME}>", "250 2.1.5", False
