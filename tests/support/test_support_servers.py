"""The tools of the system tests, tried on each other: a tool that is wrong would make every test above it worthless."""

import socket
from collections.abc import Iterator

import dns.message
import dns.query
import dns.rcode
import dns.resolver
import pytest
from destination import Destination, on_one_port
from destination_scripts import CLOSE, Answer, Stage, always, first_of, sometimes
from dns_server import Behaviour, DnsServer
from smtp_client import Closed, SmtpClient


@pytest.fixture
def server() -> Iterator[DnsServer]:
    records = {
        "example.test": ["MX 10 mx.example.test.", "MX 5 www.example.test."],
        "mx.example.test": ["A 127.0.0.2", "A 127.0.0.3", "AAAA ::1"],
        "www.example.test": ["CNAME mx.example.test."],
        "long.test": [f'TXT "{"x" * 200}{number}"' for number in range(5)],
    }
    with DnsServer(records) as running:
        yield running


def resolver(server: DnsServer) -> dns.resolver.Resolver:
    asking = dns.resolver.Resolver(configure=False)
    asking.nameservers = [server.address]
    asking.port = server.port
    asking.lifetime = 0.3
    return asking


def test_dns_answers_follows_and_counts(server: DnsServer) -> None:
    found = resolver(server).resolve("example.test", "MX")
    assert sorted((record.preference, record.exchange.to_text()) for record in found) == [
        (5, "www.example.test."),
        (10, "mx.example.test."),
    ]
    assert {str(record) for record in resolver(server).resolve("WWW.example.test", "A")} == {"127.0.0.2", "127.0.0.3"}
    assert server.queries["example.test", "MX"] == 1
    assert server.queries["www.example.test", "A"] == 1


def test_dns_tells_no_name_from_no_data(server: DnsServer) -> None:
    with pytest.raises(dns.resolver.NXDOMAIN):
        resolver(server).resolve("nowhere.test", "A")
    with pytest.raises(dns.resolver.NoAnswer):
        resolver(server).resolve("example.test", "A")
    # RFC 8020: below it something exists, so it does.
    with pytest.raises(dns.resolver.NoAnswer):
        resolver(server).resolve("test", "A")


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (Behaviour.SERVFAIL, dns.resolver.NoNameservers),
        (Behaviour.REFUSED, dns.resolver.NoNameservers),
        (Behaviour.NXDOMAIN, dns.resolver.NXDOMAIN),
        (Behaviour.EMPTY, dns.resolver.NoAnswer),
        (Behaviour.TIMEOUT, dns.resolver.LifetimeTimeout),
    ],
)
def test_dns_fails_as_told_and_recovers(server: DnsServer, behaviour: Behaviour, error: type[Exception]) -> None:
    server.behave("example.test", behaviour, "MX")
    with pytest.raises(error):
        resolver(server).resolve("example.test", "MX")
    server.behave("example.test", None, "MX")
    assert len(resolver(server).resolve("example.test", "MX")) == 2


@pytest.mark.parametrize(("name", "kind"), [("example.test", "MX"), ("long.test", "TXT")])
def test_dns_truncates_over_udp_only(server: DnsServer, name: str, kind: str) -> None:
    server.behave("example.test", Behaviour.TRUNCATED)
    query = dns.message.make_query(name, kind)
    answer, over_tcp = dns.query.udp_with_fallback(query, server.address, port=server.port, timeout=5)
    assert over_tcp
    assert answer.rcode() == dns.rcode.NOERROR
    assert len(answer.answer[0]) in (2, 5)


def test_message_arrives_as_it_was_sent() -> None:
    content = b".\r\n..two\r\n.three\r\n\r\nplain\r\n.\r\n"
    with Destination() as destination:
        with SmtpClient(destination.address, destination.port) as client:
            assert client.message("a@b.test", ["c@d.test", "e@d.test"], content).code == 250
            assert client.message("", ["c@d.test"], b"", parameters="SIZE=0 body=8bitmime").code == 250
            client.quit()
        first, second = destination.messages
    assert (first.sender, first.recipients, first.content) == ("a@b.test", ("c@d.test", "e@d.test"), content)
    assert (second.sender, second.content, second.parameters) == ("", b"", ("SIZE=0", "BODY=8BITMIME"))
    assert destination.violations == []


def test_group_of_commands_is_answered_in_order() -> None:
    with Destination() as destination, SmtpClient(destination.address, destination.port) as client:
        client.send(b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n")
        assert [client.reply().code for _ in range(3)] == [250, 250, 354]
        client.send(b"x\r\n.\r\nMAIL FROM:<>\r\nQUIT\r\n")
        assert [client.reply().code for _ in range(3)] == [250, 250, 221]
    assert destination.violations == []


@pytest.mark.parametrize(
    "conversation",
    [
        b"EHLO x\r\nMAIL FROM:<a@b.test>\nRCPT TO:<c@d.test>\r\n",
        b"MAIL FROM:<a@b.test>\r\n",
        b"EHLO x\r\nMAIL FROM:a@b.test\r\n",
        b"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\nno waiting for 354\r\n.\r\n",
        b"EHLO x\r\nMAIL FROM:<a@b.test> SMTPUTF8\r\n",
    ],
)
def test_destination_objects_to_what_is_not_smtp(conversation: bytes) -> None:
    with Destination() as destination, SmtpClient(destination.address, destination.port, helo=None) as client:
        client.reply()
        client.send(conversation + b"QUIT\r\n")
        heard = client.reply()
        while heard.code != 221:
            heard = client.reply()
    assert destination.violations


def test_destination_objects_to_stray_content() -> None:
    with Destination(extensions=()) as destination, SmtpClient(destination.address, destination.port) as client:
        client.envelope("a@b.test", ["c@d.test"])
        client.command("DATA")
        client.send(b"bare\nline\r\n.unstuffed\r\n\xe9\r\n.\r\n")
        assert client.reply().code == 250
    assert len(destination.violations) == 3


def test_scripts_decide() -> None:
    script = first_of(
        always(Stage.RCPT, Answer(550, "5.1.1 No"), recipient="no@d.test"),
        always(Stage.MAIL, Answer(421, "4.3.2 Busy", close=True), times=1),
        always(Stage.END_OF_DATA, CLOSE, recipient="gone@d.test"),
    )
    with Destination(script=script) as destination:
        with SmtpClient(destination.address, destination.port) as client:
            assert client.command("MAIL FROM:<a@b.test>").code == 421
            with pytest.raises((Closed, OSError)):
                client.command("NOOP")
        with SmtpClient(destination.address, destination.port) as client:
            assert [reply.code for reply in client.envelope("a@b.test", ["no@d.test", "yes@d.test"])] == [250, 550, 250]
            assert client.data(b"x\r\n").code == 250
            client.envelope("a@b.test", ["gone@d.test"])
            with pytest.raises((Closed, OSError)):
                client.data(b"x\r\n")
    assert [message.recipients for message in destination.messages] == [("yes@d.test",)]


def test_lots_are_the_same_for_the_same_seed() -> None:
    def drawn() -> list[int]:
        script = sometimes(Stage.MAIL, Answer(451, "4.0.0 Later"), 0.2, seed=7)
        with Destination(script=script) as destination, SmtpClient(destination.address, destination.port) as client:
            codes = []
            for _ in range(100):
                codes.append(client.command("MAIL FROM:<a@b.test>").code)
                client.command("RSET")
        return codes

    first = drawn()
    assert 5 < first.count(451) < 40
    assert first == drawn()


def test_several_destinations_share_a_port_and_one_can_be_down() -> None:
    here, there = Destination("127.0.0.2"), Destination("127.0.0.3")
    port = on_one_port(here, there)
    try:
        here.stop()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port), timeout=5)
        with SmtpClient("127.0.0.3", port) as client:
            client.quit()
        here.start()
        with SmtpClient("127.0.0.2", port) as client:
            client.quit()
    finally:
        here.stop()
        there.stop()
