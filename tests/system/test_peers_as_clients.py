"""Mail clients that nobody here wrote hand mail to our server, in clear and under TLS; it arrives octet for octet.

Three send of themselves (swaks, smtp-source, Python's smtplib), and three are mail servers that are given a message for
a domain of ours and carry it on (Postfix, Exim, OpenSMTPD).
"""

import itertools
import shutil
import smtplib
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import private_exim
import private_opensmtpd
import private_postfix
import pytest
from certificates import any_tls, certificate_for
from peer_letters import LETTERS, UTF8_LETTER, behind_trace
from peer_programs import HOW_TO_GET_THEM, PATH, Route, free_port, public_directory
from peer_stations import Station, Stations
from private_exim import PrivateExim
from private_opensmtpd import PrivateOpenSmtpd
from private_postfix import PrivatePostfix

from smtp.tls import server_context

SWAKS = shutil.which("swaks", path=PATH)
SOURCE = shutil.which("smtp-source", path=PATH)

CLEAR = "clear.test"
VERSIONS = {"tls12.test": "TLSv1.2", "tls13.test": "TLSv1.3"}
DOMAINS = (CLEAR, *VERSIONS)

SERVERS = ("postfix", "exim", "opensmtpd")
CLIENTS = ("swaks", "smtp-source", "smtplib", *SERVERS)
# smtp-source knows no TLS.
PAIRS = [(client, domain) for client in CLIENTS for domain in DOMAINS if client != "smtp-source" or domain == CLEAR]

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Client:
    """A program that sends, or a server that carries on."""

    name: str
    directory: Path
    submission_port: int = 0
    """Of a server."""

    def sends(self, letter: bytes) -> bytes:
        """What it makes of a letter before it goes out: smtp-source puts an empty line at the end of a file."""
        return letter + b"\r\n" if self.name == "smtp-source" else letter

    def send(self, station: Station, sender: str, recipients: Sequence[str], letter: bytes, times: int = 1) -> None:
        """Have it send this letter, so often, over one connection if it can."""
        path = self.directory / "letter"
        match self.name:
            case "swaks":
                assert SWAKS is not None
                # It takes a last line of one dot for the end of data, and sends that itself.
                path.write_bytes(letter.replace(b"\r\n", b"\n") + b".")
                command = [SWAKS, "--server", f"127.0.0.1:{station.port}", "--helo", "client.example", "--silent", "2"]
                command += ["--pipeline", "--from", sender, "--to", ",".join(recipients), "--data", f"@{path}"]
                if station.domain in VERSIONS:
                    command += ["--tls"]
                _run(command)
            case "smtp-source":
                assert SOURCE is not None
                path.write_bytes(letter.replace(b"\r\n", b"\n"))
                command = [SOURCE, "-M", "client.example", "-f", sender, "-F", str(path), "-m", str(times), "-d"]
                if len(recipients) > 1:
                    # It makes them up: numbers before the first.
                    command += ["-r", str(len(recipients))]
                _run([*command, "-t", recipients[0], f"127.0.0.1:{station.port}"])
            case _:
                submit(self.submission_port or station.port, station, sender, recipients, letter, times)


def submit(
    port: int,
    station: Station,
    sender: str,
    recipients: Sequence[str],
    letter: bytes,
    times: int = 1,
    mail_options: Sequence[str] = ("BODY=8BITMIME",),
) -> None:
    """What Python's smtplib makes of it."""
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example", timeout=20) as client:
        client.ehlo()
        if port == station.port and station.domain in VERSIONS:
            client.starttls(context=any_tls())
        for _ in range(times):
            refused = client.sendmail(sender, recipients, letter, mail_options)
            assert refused == {}


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def stations() -> Iterator[Stations]:
    contexts: dict[str, ssl.SSLContext | None] = {CLEAR: None}
    files = certificate_for()
    for domain, version in VERSIONS.items():
        context = server_context(files.certificate, files.key)
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version.replace(".", "_")]
        contexts[domain] = context
    with Stations(contexts) as stations:
        yield stations
        assert stations.errors == []


@pytest.fixture(scope="module")
def clients(stations: Stations) -> Iterator[dict[str, Client]]:
    """Those that are to be had here."""
    routes = [Route(domain, stations[domain].port, domain in VERSIONS) for domain in DOMAINS]
    with ExitStack() as stack:

        def directory() -> Path:
            return stack.enter_context(public_directory())

        found = {name: Client(name, directory()) for name in ("smtplib",)}
        if SWAKS is not None:
            found["swaks"] = Client("swaks", directory())
        if SOURCE is not None:
            found["smtp-source"] = Client("smtp-source", directory())
        if private_postfix.is_installed():
            place = directory()
            settings = private_postfix.peer_settings(place, routes)
            postfix = PrivatePostfix(place, free_port(), "a@b.test", "a@b.test", "127.0.0.1", 1, settings)
            found["postfix"] = Client("postfix", place, stack.enter_context(postfix).port)
        if private_exim.is_installed():
            exim = stack.enter_context(PrivateExim(directory(), routes))
            found["exim"] = Client("exim", exim.directory, exim.port)
        if not private_opensmtpd.obstacle():
            opensmtpd = stack.enter_context(PrivateOpenSmtpd(directory(), routes))
            found["opensmtpd"] = Client("opensmtpd", opensmtpd.directory, opensmtpd.port)
        yield found


def the(clients: dict[str, Client], name: str) -> Client:
    """This client; the test is skipped where it is missing."""
    if name not in clients:
        pytest.skip(
            f"{private_opensmtpd.obstacle() if name == 'opensmtpd' else name + ' is missing'}: {HOW_TO_GET_THEM}"
        )
    return clients[name]


def new_sender() -> str:
    """One that no other message has."""
    return f"ann{next(_numbers)}@sender.test"


@pytest.mark.parametrize(("name", "domain"), PAIRS)
def test_what_arrives_is_what_was_sent(clients: dict[str, Client], stations: Stations, name: str, domain: str) -> None:
    client, station = the(clients, name), stations[domain]
    senders = {kind: new_sender() for kind in LETTERS}

    # All at once: some take their time before they connect to the same server again.
    for kind, sender in senders.items():
        client.send(station, sender, [f"box@{domain}"], LETTERS[kind])

    for kind, sender in senders.items():
        (message,) = station.from_sender(sender)
        sent = client.sends(LETTERS[kind])
        assert message.recipients == (f"box@{domain}",)
        assert behind_trace(message.content, sent) == sent, kind
        assert station.tls_versions[sender] == {VERSIONS.get(domain, "")}


@pytest.mark.parametrize("name", CLIENTS)
def test_fifty_recipients_get_it_once_each(clients: dict[str, Client], stations: Stations, name: str) -> None:
    client, station, sender = the(clients, name), stations[CLEAR], new_sender()
    recipients = [f"box@{CLEAR}", *(f"{number}box@{CLEAR}" for number in range(2, 51))]

    client.send(station, sender, recipients, LETTERS["plain"])

    messages = station.from_sender(sender, recipients=50)
    assert sorted(itertools.chain.from_iterable(message.recipients for message in messages)) == sorted(recipients)
    sent = client.sends(LETTERS["plain"])
    assert {behind_trace(message.content, sent) for message in messages} == {sent}


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("name", ["smtplib", "exim", "postfix"])
def test_utf8_and_the_words_of_dsn_come_through(
    clients: dict[str, Client], stations: Stations, name: str, domain: str
) -> None:
    client, station, sender = the(clients, name), stations[domain], f"jürg{next(_numbers)}@sender.test"
    options = ["BODY=8BITMIME", "SMTPUTF8", "RET=HDRS", "ENVID=a+2Bb"]

    port = client.submission_port or station.port
    submit(port, station, sender, [f"käthe@{domain}"], UTF8_LETTER, mail_options=options)

    (message,) = station.from_sender(sender)
    assert message.recipients == (f"käthe@{domain}",)
    assert behind_trace(message.content, UTF8_LETTER) == UTF8_LETTER
    parameters = message.parameters
    # Exim leaves BODY out where it says SMTPUTF8.
    assert parameters.body == ("7BIT" if name == "exim" else "8BITMIME")
    assert (parameters.smtputf8, parameters.ret, parameters.envid) == (True, "HDRS", "a+b")


@pytest.mark.parametrize("name", ["smtp-source", "smtplib", "postfix", "opensmtpd"])
def test_messages_that_share_a_connection_are_kept_apart(
    clients: dict[str, Client], stations: Stations, name: str
) -> None:
    client, station, sender = the(clients, name), stations[CLEAR], new_sender()
    connections_before = len(station.mailbox.peers)

    client.send(station, sender, [f"box@{CLEAR}"], LETTERS["dots"], times=12)

    messages = station.from_sender(sender, recipients=12)
    sent = client.sends(LETTERS["dots"])
    assert [behind_trace(message.content, sent) == sent for message in messages] == [True] * 12
    assert len(station.mailbox.peers) - connections_before < 12


@pytest.mark.parametrize("domain", DOMAINS)
def test_messages_that_share_a_connection_of_exim_are_kept_apart(stations: Stations, domain: str) -> None:
    if not private_exim.is_installed():
        pytest.skip(f"exim is missing: {HOW_TO_GET_THEM}")
    station, sender = stations[domain], new_sender()
    connections_before = len(station.mailbox.peers)
    with (
        public_directory() as place,
        PrivateExim(place, [Route(domain, station.port, domain in VERSIONS)], queueing=True) as exim,
    ):
        submit(exim.port, station, sender, [f"box@{domain}"], LETTERS["dots"], times=5)

        exim.run_queue()

    messages = station.from_sender(sender, recipients=5)
    assert [behind_trace(message.content, LETTERS["dots"]) == LETTERS["dots"] for message in messages] == [True] * 5
    assert len(station.mailbox.peers) - connections_before < 5


def test_exim_sends_its_content_with_bdat(clients: dict[str, Client], stations: Stations) -> None:
    pieces = sent_in_clear(clients, stations, "exim", LETTERS["megabyte"])
    assert b"BDAT " in b"".join(pieces)
    assert b"\nDATA\r\n" not in b"".join(pieces)


@pytest.mark.parametrize("name", ["swaks", "postfix", "exim"])
def test_clients_that_can_send_commands_together_do(clients: dict[str, Client], stations: Stations, name: str) -> None:
    pieces = sent_in_clear(clients, stations, name, LETTERS["plain"])
    assert [piece for piece in pieces if b"MAIL FROM:" in piece and b"\r\nRCPT TO:" in piece]


def sent_in_clear(clients: dict[str, Client], stations: Stations, name: str, letter: bytes) -> list[bytes]:
    """What our server got from this client for one letter, in the pieces in which it came."""
    client, station, sender = the(clients, name), stations[CLEAR], new_sender()
    client.send(station, sender, [f"box@{CLEAR}"], letter)
    assert station.from_sender(sender)
    whole = [index for index, piece in enumerate(station.pieces) if sender.encode() in piece]
    return station.pieces[whole[0] :]
