"""What a sender has asked for (RFC 3461), and what becomes of it in a report; and senders beyond ASCII (RFC 6533)."""

from email import policy
from email.parser import BytesParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from read_report import ReadReport, assert_well_formed, read_report

from appliance.model.delivery import Answer, Delivery, Recipient
from appliance.reports.bounce import WHOLE_OCTETS, compose_bounce, may_go_back_whole
from appliance.reports.delayed import compose_delayed
from appliance.reports.relayed import compose_relayed
from smtp.address import Address
from smtp.parameters import parse_original_recipient

NOW = 1_790_000_000_000
ALIAS = "sales@alias.example"
HEADER = b"From: J\xc3\xb6 <jo@shop.example>\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\n\r\n"
WHOLE = HEADER + b"A line.\r\n.\r\n"
SEVEN_BITS = b"From: <jo@shop.example>\r\nSubject: x\r\n\r\nA line.\r\n.\r\n"
DELIVERY = Delivery(
    id="d1",
    message_id="m1",
    accepted_at=NOW - 60_000,
    size=len(WHOLE),
    priority=0,
    sender="customer@shop.example",
    return_path="srs0=aaaaaaaa=aa=aaaaaa=shop.example=customer@srs.mx.onward.example",
    target=Address("jane.doe", "hidden.example"),
    recipients=(Recipient(ALIAS, "domain1"),),
    eight_bit=True,
)
NO_SUCH_USER = Answer(550, "5.1.1", "mailbox-unknown", "5.1.1 no such user", server_name="mx.home.test")
NON_ASCII = "jörg@größe.example"


def bounce(delivery: Delivery = DELIVERY, whole: bytes | None = None) -> bytes:
    return compose_bounce(
        message_id="r1",
        now=NOW,
        hostname="mx.onward.example",
        postmaster="postmaster@mx.onward.example",
        delivery=delivery,
        answer=NO_SUCH_USER,
        header_section=HEADER,
        whole=whole,
    )


def relayed(delivery: Delivery = DELIVERY) -> bytes:
    return compose_relayed(
        message_id="r1",
        now=NOW,
        hostname="mx.onward.example",
        postmaster="postmaster@mx.onward.example",
        delivery=delivery,
        header_section=HEADER,
    )


def delayed(delivery: Delivery = DELIVERY) -> bytes:
    return compose_delayed(
        message_id="r1",
        now=NOW,
        hostname="mx.onward.example",
        postmaster="postmaster@mx.onward.example",
        delivery=delivery,
        answer=Answer(450, "4.2.2", "mailbox-full", "4.2.2 jane.doe is over quota", server_name="mx.home.test"),
        until=NOW + 60_000,
        header_section=HEADER,
    )


def with_orcpt(orcpt: str, alias: str = ALIAS, **changes: Any) -> Delivery:
    return replace(DELIVERY, recipients=(Recipient(alias, "domain1", orcpt=orcpt),), **changes)


def read(octets: bytes, *, utf8: bool = False) -> ReadReport:
    assert_well_formed(octets, utf8=utf8)
    return read_report(octets)


# ---------------------------------------------------------------------- names that the sender has given


@pytest.mark.parametrize("compose", [bounce, delayed, relayed])
def test_the_senders_own_names_come_back_decoded(compose: Any) -> None:
    """RFC 3464 §2.2.1 and §2.3.1: no longer as xtext."""
    report = read(compose(with_orcpt("rfc822;first+one@shop.example", envid="QQ = 314+159")))
    assert report.of_message["Original-Envelope-Id"] == "QQ = 314+159"
    (of_recipient,) = report.of_recipients
    assert of_recipient["Original-Recipient"] == "rfc822; first+one@shop.example"
    assert of_recipient["Final-Recipient"] == f"rfc822; {ALIAS}"


def test_what_was_not_said_does_not_come_back() -> None:
    """RFC 3464 §2.3.1: the field is there only where the sender has said it."""
    report = read(bounce())
    assert "Original-Envelope-Id" not in report.of_message
    assert "Original-Recipient" not in report.of_recipients[0]


def test_an_original_recipient_beyond_ascii_has_the_form_of_rfc_6533() -> None:
    (of_recipient,) = read(bounce(with_orcpt(f"utf-8;{NON_ASCII}"))).of_recipients
    kind, _, encoded = str(of_recipient["Original-Recipient"]).partition("; ")
    assert (kind, encoded) == ("utf-8", r"j\x{F6}rg@gr\x{F6}\x{DF}e.example")
    assert parse_original_recipient(f"{kind};{encoded}").address == NON_ASCII
    (of_recipient,) = read(bounce(with_orcpt("UTF-8;a+b=c@shop.example"))).of_recipients
    assert of_recipient["Original-Recipient"] == r"utf-8; a\x{2B}b\x{3D}c@shop.example"


# ---------------------------------------------------------------------- success


def test_a_success_is_told_in_the_name_of_the_alias() -> None:
    octets = relayed()
    report = read(octets)
    assert report.types == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    assert report.message["Subject"] == f"Handed over: your message to {ALIAS}"
    assert report.message["To"] == "customer@shop.example"
    assert report.message["Auto-Submitted"] == "auto-replied"
    (of_recipient,) = report.of_recipients
    assert (of_recipient["Final-Recipient"], of_recipient["Action"], of_recipient["Status"]) == (
        f"rfc822; {ALIAS}",
        "relayed",
        "2.0.0",
    )
    assert "Diagnostic-Code" not in of_recipient
    assert "Remote-MTA" not in of_recipient
    for secret in (b"jane", b"doe", b"hidden", b"srs0"):
        assert secret not in octets.lower()


# ---------------------------------------------------------------------- the whole message


def test_a_small_message_goes_back_whole_to_who_asks_for_it() -> None:
    """RFC 3461 §4.3."""
    asking = replace(DELIVERY, ret="FULL")
    assert may_go_back_whole(asking, SEVEN_BITS)
    octets = bounce(asking, SEVEN_BITS)
    assert SEVEN_BITS in octets
    assert octets.isascii()
    message = BytesParser(policy=policy.SMTP).parsebytes(octets)
    assert message["Content-Transfer-Encoding"] is None
    assert [part.get_content_type() for part in message.iter_parts()][-1] == "message/rfc822"
    assert "as you asked for" in read_report(octets).text


@pytest.mark.parametrize(
    ("changes", "content"),
    [
        ({"ret": ""}, SEVEN_BITS),
        ({"ret": "HDRS"}, SEVEN_BITS),
        ({"size": WHOLE_OCTETS + 1}, SEVEN_BITS),
        ({}, SEVEN_BITS + b"A line of text.\r\n" * (WHOLE_OCTETS // 16)),
        ({"require_tls": True}, SEVEN_BITS),
        ({"utf8": True}, SEVEN_BITS),
        ({}, SEVEN_BITS + b"x" * 999 + b"\r\n"),
        ({}, WHOLE),
        ({}, SEVEN_BITS + b"\x80\r\n"),
    ],
)
def test_what_would_do_harm_does_not_go_back_whole(changes: dict[str, Any], content: bytes) -> None:
    """Large mail to whom a stranger names, secrets, and what the report could not carry."""
    assert not may_go_back_whole(replace(DELIVERY, **({"ret": "FULL"} | changes)), content)


def test_a_line_of_998_octets_is_no_reason() -> None:
    assert may_go_back_whole(replace(DELIVERY, ret="FULL"), SEVEN_BITS + b"x" * 998 + b"\r\n")


# ---------------------------------------------------------------------- UTF-8


@pytest.mark.parametrize("compose", [bounce, delayed, relayed])
def test_a_sender_beyond_ascii_gets_a_report_in_utf_8(compose: Any) -> None:
    """RFC 6533 §4 and §6: media types of their own, and nothing in question marks."""
    alias = "verkauf.süd@alias.example"
    octets = compose(with_orcpt(f"utf-8;{NON_ASCII}", alias, sender=NON_ASCII, utf8=True))
    report = read(octets, utf8=True)
    assert report.types == ["text/plain", "message/global-delivery-status", "message/global-headers"]
    assert f"To: <{NON_ASCII}>\r\n".encode() in octets
    assert f"your message to {alias}\r\n".encode() in octets
    assert f"Final-Recipient: utf-8; {alias}\r\n".encode() in octets
    assert f"Original-Recipient: utf-8; {NON_ASCII}\r\n".encode() in octets
    assert "Subject: Grüße\r\n".encode() in octets
    assert octets.count(b"Content-Transfer-Encoding: 8bit\r\n") == 4


def test_a_whole_message_in_utf_8_stands_in_a_report_in_utf_8() -> None:
    delivery = replace(DELIVERY, sender=NON_ASCII, utf8=True, ret="FULL")
    assert may_go_back_whole(delivery, WHOLE)
    assert read(bounce(delivery, WHOLE), utf8=True).types[-1] == "message/global"


def test_a_sender_in_ascii_gets_seven_bits_whatever_the_alias_is() -> None:
    alias = "süd@alias.example"
    report = read(bounce(with_orcpt("", alias)))
    assert report.of_recipients[0]["Final-Recipient"] == r"utf-8; s\x{FC}d@alias.example"
    assert r"s\x{FC}d@alias.example" in report.text


@given(st.text(min_size=1, max_size=300), st.text(max_size=300), st.text(max_size=200), st.binary(max_size=2000))
def test_nothing_of_a_senders_choice_changes_the_form(sender: str, orcpt: str, envid: str, header: bytes) -> None:
    delivery = with_orcpt(f"rfc822;{orcpt}", sender=sender, envid=envid)
    octets = compose_bounce(
        message_id="r1",
        now=NOW,
        hostname="mx.onward.example",
        postmaster="p@mx.onward.example",
        delivery=delivery,
        answer=NO_SUCH_USER,
        header_section=header,
    )
    assert_well_formed(octets, utf8=not sender.isascii())
    # The parser does not know the media type of RFC 6533.
    octets = octets.replace(b"message/global-delivery-status", b"message/delivery-status")
    message = BytesParser(policy=policy.compat32).parsebytes(octets)
    status: Any = message.get_payload(1)
    names = status.get_payload(1).keys()
    assert names == [
        "Original-Recipient",
        "Final-Recipient",
        "Action",
        "Status",
        "Diagnostic-Code",
        "Last-Attempt-Date",
    ]
