"""One message of a flood, and all that comes of it on its way through the appliance, as values."""

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from appliance.forwarding.srs import SenderRewriter
from appliance.forwarding.trace import received
from appliance.logbook.events import Arrival, Logbook
from appliance.model.delivery import Answer, Delivery, Recipient
from appliance.model.domain import Alias, AliasAction, DeliveryMode, Destination, Domain, LogLevel
from appliance.model.event import DeliveryEvent, EventType
from appliance.model.ids import id_source
from appliance.model.time import wall_clock
from appliance.privacy.sealing import Sealer
from appliance.routing.snapshot import Settings, Snapshot
from smtp.address import Address

SENDER, ALIAS, TARGET = "sender@example.net", "info@forward.test", "owner@destination.test"
HOSTNAME = "mx.onward.test"


def _content(octets: int) -> bytes:
    """A message such as smtp-source makes: a short header, and lines of x."""
    head = (
        f"From: <{SENDER}>\r\nTo: <{ALIAS}>\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000 (UTC)\r\n"
        "Message-Id: <0abc.0001.0002@client.example.net>\r\nSubject: a message of the bench\r\n\r\n"
    ).encode("ascii")
    line = b"X" * 78 + b"\r\n"
    return head + line * (max(0, octets - len(head)) // len(line))


@dataclass(frozen=True, slots=True)
class OneMessage:
    """A message to one alias that leads to one mailbox; its log is at `events`."""

    content: bytes
    """As it came in."""
    whole: bytes
    """With our line in front."""
    snapshot: Snapshot
    rewriter: SenderRewriter
    logbook: Logbook
    keyring: dict[str, Sealer]
    delivery: Delivery
    arrived: DeliveryEvent
    delivered: DeliveryEvent
    new_id: Callable[[], str]


def one_message(octets: int) -> OneMessage:
    """With so many octets, as smtp-source makes it, and delivered in the end."""
    domain = Domain("d" * 20, "a" * 20, "forward.test", True, DeliveryMode.SPOOL, LogLevel.EVENTS, 0)
    alias = Alias("b" * 20, domain.id, "info", AliasAction.FORWARD, (TARGET,), "abc234", 0)
    confirmed = Destination("c" * 20, "a" * 20, TARGET, confirmed_at=1, created_at=0)
    snapshot = Snapshot(Settings(HOSTNAME, f"srs.{HOSTNAME}"), 1, (), (domain,), (alias,), (confirmed,))
    new_id = id_source()
    logbook = Logbook(snapshot.log_level, wall_clock, new_id)
    content = _content(octets)
    prefix = received_line()
    rewriter = SenderRewriter(f"srs.{HOSTNAME}", [b"k" * 32])
    recipients = (Recipient(ALIAS, domain.id),)
    now = wall_clock()
    path = rewriter.rewrite(SENDER, alias.reference, now).return_path
    target = Address.parse(TARGET)
    size = len(content) + len(prefix)
    delivery = Delivery(new_id(), new_id(), now, size, 0, SENDER, path, target, recipients, False)
    delivery = replace(delivery, next_attempt_at=now, running_since=now)
    arrival = Arrival(delivery.message_id, SENDER, len(content), "127.0.0.1", None, "a message of the bench")
    accepted = Answer(250, "2.0.0", "accepted", f"Accepted as {delivery.message_id}", duration_ms=2)
    (arrived,) = logbook.arrival(EventType.RECEIVED, arrival, ALIAS, domain.id, accepted)
    (delivered,) = logbook.attempt(EventType.DELIVERED, delivery, 1, answer())
    return OneMessage(
        content=content,
        whole=prefix + content,
        snapshot=snapshot,
        rewriter=rewriter,
        logbook=logbook,
        keyring={name: Sealer(bytes([number]) * 32) for number, name in enumerate(("spool", "log"))},
        delivery=delivery,
        arrived=arrived,
        delivered=delivered,
        new_id=new_id,
    )


def received_line() -> bytes:
    """The line that is put in front of the message."""
    return received(
        helo="client.example.net",
        client_address="127.0.0.1",
        hostname=HOSTNAME,
        protocol="ESMTP",
        message_id="0" * 20,
        recipients=(ALIAS,),
        at=wall_clock(),
    )


def answer() -> Answer:
    """What the destination says to the final dot."""
    return Answer(250, "2.0.0", "delivered", "Ok", "mx.destination.test", "127.0.0.2", duration_ms=3)
