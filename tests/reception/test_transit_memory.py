"""By what a message is known again, and what the memory of one key makes of what another has written."""

import random

import pytest

from appliance.forwarding.trace import header_section
from appliance.privacy.sealing import Sealer
from appliance.reception.transit_memory import Handover, TransitMemory, identity
from appliance.storage.memory_ephemeral import MemoryEphemeral
from appliance.storage.spool import ReturnPath
from smtp.address import Address
from smtp.parameters import NO_MAIL_PARAMETERS
from smtp.reply import Reply

MESSAGE = b"Subject: Apples\r\nMessage-ID: <1@sender.test>\r\n\r\nHello\r\n\r\nGood bye\r\n"
WAY = Handover("ann@sender.test", "info@example.org", Address("alice", "home.test"), "m")
ENVELOPE = ("ann@sender.test", NO_MAIL_PARAMETERS, "192.0.2.7", "info@example.org")
PATH = ReturnPath("token", "somebody@sender.test", "refaaa", 1)


def _identity(*pieces: bytes, limit: int = 1000) -> str:
    return identity(pieces, header_section(b"".join(pieces), limit))


@pytest.mark.parametrize("seed", range(20))
def test_in_whatever_pieces_it_comes_a_message_is_the_same(seed: int) -> None:
    lots = random.Random(seed)
    cuts = sorted(lots.choices(range(len(MESSAGE)), k=lots.randint(1, 10)))
    pieces = [MESSAGE[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(MESSAGE)], strict=True)]
    assert _identity(*pieces) == _identity(MESSAGE)


def test_with_a_message_id_the_rest_of_the_header_does_not_count() -> None:
    assert _identity(b"X-Attempt: 2\r\n" + MESSAGE) == _identity(MESSAGE)
    assert _identity(MESSAGE.replace(b"Hello", b"Hallo")) != _identity(MESSAGE)
    assert _identity(MESSAGE.replace(b"<1@", b"<2@")) != _identity(MESSAGE)


@pytest.mark.parametrize("id", [b"", b"Message-ID:\r\n", b"Message-ID: \r\n"])
def test_without_one_everything_counts(id: bytes) -> None:
    message = id + b"Subject: Apples\r\n\r\nHello\r\n"
    assert _identity(b"X-Attempt: 2\r\n" + message) != _identity(message)


def test_where_the_header_does_not_end_in_time_everything_counts() -> None:
    one, other = (b"Message-ID: <1@sender.test>\r\n" + b"X: %d\r\n" % number * 50 + b"\r\nHello" for number in (1, 2))
    assert _identity(one) == _identity(other)
    assert _identity(one, limit=100) != _identity(other, limit=100)


def test_a_message_id_and_a_body_can_not_be_shifted_into_each_other() -> None:
    assert _identity(b"Message-ID: ab\r\n\r\nc") != _identity(b"Message-ID: a\r\n\r\nbc")


def test_what_another_key_has_written_is_as_good_as_forgotten() -> None:
    store = MemoryEphemeral()
    one, other = TransitMemory(store, Sealer(bytes(32))), TransitMemory(store, Sealer(bytes(31) + b"1"))
    one.remember_delivered([WAY], NO_MAIL_PARAMETERS)
    one.remember_refusal(*ENVELOPE, Reply(550, "No", "5.1.1"))
    one.remember_return_path(PATH)
    assert not other.was_delivered([WAY])
    assert not other.may_be_there(WAY, NO_MAIL_PARAMETERS)
    assert other.take_refusal(*ENVELOPE) is None
    assert other.return_path("token") is None
    assert one.was_delivered([WAY])
    assert one.take_refusal(*ENVELOPE) == Reply(550, "No", "5.1.1")
    assert one.return_path("token") == PATH
