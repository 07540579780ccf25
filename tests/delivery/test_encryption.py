"""TLS towards destinations: taken where it can be had, insisted on where the sender does; and what else a next hop is
asked that understands more than plain SMTP.
"""

import itertools
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from certificates import any_tls, certificate_for, server_tls, verifying_tls
from destination_scripts import CLOSE, Answer, Moment, Stage, always
from dns_server import Behaviour
from town import CONTENT, FIRST, SECOND, Town, carry, told

from appliance.delivery.connecting import ConnectionSettings
from appliance.delivery.courier import Unreachable
from appliance.model.delivery import Deferred, Delivered, Failed, Recipient
from smtp.tls import server_context

EVERYTHING = ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "REQUIRETLS")


class EncryptingTown(Town):
    """Its hosts offer everything, and DNSSEC proves what the DNS says; couriers believe the authority of the tests."""

    def __init__(self) -> None:
        super().__init__(FIRST, SECOND)
        self.dns.authenticated = True
        self.dns.set("alone.test", f"A {FIRST}")
        for server in self.servers:
            server.extensions = EVERYTHING
            server.tls = server_tls(server.name)

    def settings(self, **changes: Any) -> ConnectionSettings:
        return super().settings(**{"opportunistic": any_tls(), "verifying": verifying_tls(), **changes})


@pytest.fixture
def town() -> Iterator[EncryptingTown]:
    with EncryptingTown().open() as made:
        yield made


# ---------------------------------------------------------------------- where it can be had


async def test_what_can_be_encrypted_is_whoever_answers(town: Town) -> None:
    """RFC 7435: a certificate of nobody's is better than none at all."""
    files = certificate_for("somebody.else.test", self_signed=True)
    town.first.tls = server_context(files.certificate, files.key)
    async with town.courier() as courier:
        [outcome] = await carry(courier)
    assert isinstance(outcome, Delivered)
    assert [message.encrypted for message in town.first.messages] == [True]


async def test_a_server_without_tls_is_spoken_to_in_clear(town: Town) -> None:
    town.first.tls = None
    async with town.courier() as courier:
        [outcome] = await carry(courier)
    assert isinstance(outcome, Delivered)
    assert [message.encrypted for message in town.first.messages] == [False]


async def test_after_a_failed_handshake_the_same_server_is_asked_once_more_in_clear(town: Town) -> None:
    broken = server_context(*_files("mx1.home.test"))
    broken.minimum_version = ssl.TLSVersion.TLSv1_3
    only_old = ssl.create_default_context()
    only_old.check_hostname, only_old.verify_mode = False, ssl.CERT_NONE
    only_old.maximum_version = ssl.TLSVersion.TLSv1_2
    town.first.tls = broken
    async with town.courier(opportunistic=only_old) as courier:
        [outcome] = await carry(courier)
    assert isinstance(outcome, Delivered)
    assert town.first.connections == 2
    assert [message.encrypted for message in town.first.messages] == [False]
    assert town.second.messages == []


async def test_a_starttls_that_is_refused_leads_on_in_clear(town: Town) -> None:
    town.first.script = always(Stage.STARTTLS, Answer(454, "4.7.0 Not now"))
    async with town.courier() as courier:
        [outcome] = await carry(courier)
    assert isinstance(outcome, Delivered)
    assert [message.encrypted for message in town.first.messages] == [False]


# ---------------------------------------------------------------------- where it is required (RFC 8689)


async def test_what_requires_tls_goes_over_a_connection_that_is_proven(town: Town) -> None:
    async with town.courier() as courier:
        [outcome] = await carry(courier, require_tls=True)
    assert isinstance(outcome, Delivered)
    [message] = town.first.messages
    assert message.encrypted
    assert "REQUIRETLS" in message.parameters


async def test_the_next_host_is_tried_where_one_is_not_fit(town: Town) -> None:
    town.first.tls = server_tls("somebody.else.test")
    async with town.courier() as courier:
        [outcome] = await carry(courier, require_tls=True)
    assert isinstance(outcome, Delivered)
    assert (len(town.first.messages), len(town.second.messages)) == (0, 1)


@pytest.mark.parametrize(
    ("unfit", "enhanced_code"),
    [
        ("another name", "5.7.10"),
        ("expired", "5.7.10"),
        ("nobody's word", "5.7.10"),
        ("no STARTTLS", "5.7.10"),
        ("STARTTLS refused", "5.7.10"),
        ("no DNSSEC", "5.7.10"),
        ("no authorities", "5.7.10"),
        ("no REQUIRETLS", "5.7.30"),
    ],
)
async def test_without_a_fit_host_it_fails_and_not_one_octet_leaves_in_clear(
    town: Town, unfit: str, enhanced_code: str
) -> None:
    settings: dict[str, Any] = {}
    for server in (town.first, town.second):
        match unfit:
            case "another name":
                server.tls = server_tls("mx3.home.test")
            case "expired":
                server.tls = server_tls(server.name, expired=True)
            case "nobody's word":
                files = certificate_for(server.name, self_signed=True)
                server.tls = server_context(files.certificate, files.key)
            case "no STARTTLS":
                server.tls = None
            case "STARTTLS refused":
                server.script = always(Stage.STARTTLS, Answer(501, "5.5.4 No"))
            case "no DNSSEC":
                town.dns.authenticated = False
            case "no authorities":
                settings["verifying"] = None
            case "no REQUIRETLS":
                server.extensions = EVERYTHING[:-1]
    async with town.courier(**settings) as courier:
        outcomes = await carry(courier, "alice", "bob", require_tls=True)
        assert told(outcomes) == [(Failed, enhanced_code, "tls-required")] * 2
        assert town.first.messages == town.second.messages == []
        # That says nothing about other mail for the same destination.
        assert [type(outcome) for outcome in await carry(courier)] == [Delivered]


async def test_a_host_that_could_not_be_asked_may_be_fit_the_next_time(town: Town) -> None:
    town.first.tls = server_tls("somebody.else.test")
    town.second.script = always(Stage.GREETING, Answer(421, "4.3.2 Busy", close=True))
    async with town.courier() as courier:
        outcomes = await carry(courier, require_tls=True)
    assert told(outcomes) == [(Deferred, "4.3.2", "host-refused")]


async def test_tls_that_is_refused_for_now_is_tried_again(town: Town) -> None:
    for server in (town.first, town.second):
        server.script = always(Stage.STARTTLS, Answer(454, "4.7.0 Not now"))
    async with town.courier() as courier:
        # Other mail to this destination is not concerned.
        assert told(await carry(courier, require_tls=True)) == [(Deferred, "4.7.0", "host-refused")]
        assert isinstance((await carry(courier))[0], Delivered)


async def test_a_handshake_that_breaks_off_is_no_word_about_the_server(town: Town) -> None:
    for server in (town.first, town.second):
        server.script = always(Stage.STARTTLS, CLOSE)
    async with town.courier() as courier:
        assert told(await carry(courier, require_tls=True)) == [(Deferred, "4.4.1", "connection-failed")]


async def test_a_lookup_that_fails_is_no_word_about_tls(town: Town) -> None:
    town.dns.behave("home.test", Behaviour.SERVFAIL)
    async with town.courier() as courier:
        with pytest.raises(Unreachable) as unreachable:
            await carry(courier, require_tls=True)
    assert told([unreachable.value.outcome]) == [(Deferred, "4.4.3", "dns-failed")]


async def test_a_host_that_cannot_be_looked_up_may_be_fit(town: Town) -> None:
    town.dns.behave("mx1.home.test", Behaviour.SERVFAIL)
    town.second.extensions = tuple(word for word in EVERYTHING if word != "REQUIRETLS")
    async with town.courier() as courier:
        assert told(await carry(courier, require_tls=True)) == [(Deferred, "4.4.3", "dns-failed")]


async def test_a_server_that_says_no_only_under_tls_is_spoken_to_in_clear(town: Town) -> None:
    """RFC 7435 §3: what helps against those who listen must not cost the mail."""
    asked = itertools.count(1)

    def script(moment: Moment) -> Answer | None:
        # The second EHLO is the one behind the handshake, the third that of a connection in clear.
        return Answer(421, "4.3.2 Trouble", close=True) if moment.stage is Stage.EHLO and next(asked) == 2 else None

    town.first.script = script
    async with town.courier("alone.test") as courier:
        [outcome] = await carry(courier, domain="alone.test")
    assert isinstance(outcome, Delivered)
    assert [message.encrypted for message in town.first.messages] == [False]


async def test_a_destination_that_is_its_own_host_needs_no_dnssec(town: Town) -> None:
    """The certificate is in the name that the recipient's address has: a forged answer leads nowhere."""
    town.dns.authenticated = False
    town.first.tls = server_tls("alone.test")
    async with town.courier("alone.test") as courier:
        [outcome] = await carry(courier, domain="alone.test", require_tls=True)
    assert isinstance(outcome, Delivered)


async def test_a_connection_in_clear_is_not_kept_for_what_requires_tls(town: Town) -> None:
    async with town.courier() as courier:
        await carry(courier)
        assert isinstance((await carry(courier, require_tls=True))[0], Delivered)
        # The better one will do for all.
        assert isinstance((await carry(courier))[0], Delivered)
    assert town.first.connections == 2
    assert ["REQUIRETLS" in message.parameters for message in town.first.messages] == [False, True, False]


# ---------------------------------------------------------------------- reports and characters


@pytest.mark.parametrize(
    ("notify", "asked"),
    [
        ([""], ""),
        (["NEVER"], "NOTIFY=NEVER"),
        (["FAILURE,DELAY"], "NOTIFY=DELAY,FAILURE"),
        (["SUCCESS,FAILURE"], "NOTIFY=FAILURE"),
        (["SUCCESS"], "NOTIFY=NEVER"),
        (["NEVER", "FAILURE"], "NOTIFY=FAILURE"),
        (["NEVER", ""], ""),
    ],
)
async def test_the_next_hop_is_asked_for_what_the_sender_wants_but_never_of_success(
    town: Town, notify: list[str], asked: str
) -> None:
    recipients = tuple(
        Recipient(f"a{number}@example.org", "domain1", words, "rfc822;a@example.org")
        for number, words in enumerate(notify)
    )
    async with town.courier() as courier:
        await carry(courier, recipients=recipients, envid="secret-name", ret="FULL")
    [message] = town.first.messages
    assert message.wishes == (asked,)
    assert [word for word in message.parameters if "=" in word] == [f"SIZE={len(CONTENT)}", "RET=HDRS"]


async def test_of_a_report_no_report_is_wanted(town: Town) -> None:
    async with town.courier() as courier:
        await carry(courier, sender="", return_path="")
    [message] = town.first.messages
    assert (message.wishes, message.parameters) == (("NOTIFY=NEVER",), (f"SIZE={len(CONTENT)}",))


async def test_smtputf8_is_used_where_it_is_needed_and_fails_where_it_is_not_there(town: Town) -> None:
    async with town.courier() as courier:
        [outcome] = await carry(courier, "jörg", utf8=True)
        assert isinstance(outcome, Delivered)
        town.first.extensions = town.second.extensions = ("PIPELINING", "8BITMIME")
        await courier.close()
        outcomes = await carry(courier, "jörg", utf8=True)
    assert [(type(outcome), outcome.answer.enhanced_code) for outcome in outcomes] == [(Failed, "5.6.7")]
    [message] = town.first.messages
    assert message.recipients == ("jörg@home.test",)
    assert "SMTPUTF8" in message.parameters


# ---------------------------------------------------------------------- servers that take little at a time


async def test_what_a_server_does_not_take_at_once_follows_right_behind(town: Town) -> None:
    """RFC 9422: without an attempt of its own."""
    town.first.extensions = (*EVERYTHING, "LIMITS RCPTMAX=2")
    town.first.script = always(Stage.RCPT, Answer(550, "5.1.1 No such user"), recipient="carol@home.test")
    async with town.courier() as courier:
        outcomes = await carry(courier, "alice", "bob", "carol", "dave", "erin")
    assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered, Failed, Delivered, Delivered]
    assert [message.recipients for message in town.first.messages] == [
        ("alice@home.test", "bob@home.test"),
        ("dave@home.test",),
        ("erin@home.test",),
    ]
    assert town.first.connections == 1


async def test_a_server_that_takes_one_message_a_connection_gets_as_many_connections(town: Town) -> None:
    town.first.extensions = (*EVERYTHING, "LIMITS MAILMAX=1 RCPTMAX=1")
    async with town.courier() as courier:
        outcomes = await carry(courier, "alice", "bob")
    assert [type(outcome) for outcome in outcomes] == [Delivered, Delivered]
    assert town.first.connections == 2


async def test_a_connection_that_is_lost_in_between_leaves_what_was_delivered_delivered(town: Town) -> None:
    def script(moment: Moment) -> Answer | None:
        # From the second message on, everything ends.
        return Answer(close=True) if moment.stage is Stage.MAIL and town.first.messages else None

    town.first.extensions = (*EVERYTHING, "LIMITS RCPTMAX=1")
    town.first.script = town.second.script = script
    async with town.courier() as courier:
        outcomes = await carry(courier, "alice", "bob")
    assert told(outcomes)[0] == (Delivered, "2.0.0", "delivered")
    assert isinstance(outcomes[1], Deferred)
    assert [message.recipients for message in town.first.messages] == [("alice@home.test",)]


def _files(name: str) -> tuple[Any, Any]:
    files = certificate_for(name)
    return files.certificate, files.key
