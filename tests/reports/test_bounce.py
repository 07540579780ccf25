"""A bounce tells the sender what happened, and not where the message was going."""

import re
from email import policy
from email.parser import BytesParser
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from read_report import assert_well_formed, read_report

from appliance.model.delivery import Answer, Delivery, Recipient
from appliance.model.time import DAY_MS, HOUR_MS, MINUTE_MS
from appliance.reports.bounce import WORDS_WITHHELD, compose_bounce, is_automatic, may_report
from appliance.reports.composing import ORIGINAL_HEADER_OCTETS
from appliance.reports.explanations import FAILED_BY_OPERATOR, explain, registered_status, span_in_words
from smtp.address import Address

NOW = 1_790_000_000_000
HOSTNAME = "mx.onward.example"
POSTMASTER = "postmaster@mx.onward.example"
ALIAS = "sales@alias.example"
DELIVERY = Delivery(
    id="d1",
    message_id="m1",
    accepted_at=NOW - 5 * DAY_MS,
    size=1234,
    priority=0,
    sender="customer@shop.example",
    return_path="srs0=aaaaaaaa=aa=aaaaaa=shop.example=customer@srs.mx.onward.example",
    target=Address("jane.doe", "hidden.example"),
    recipients=(Recipient(ALIAS, "domain1"),),
    eight_bit=False,
    attempts=12,
)
NO_SUCH_USER = Answer(
    code=550,
    enhanced_code="5.1.1",
    reason="mailbox-unavailable",
    text="5.1.1 <jane.doe@hidden.example>: no such user at mx7.hidden.example [192.0.2.99]",
    server_name="mx7.hidden.example",
    server_address="192.0.2.99",
)
HEADER = (
    b"Received: from a\r\n\tby b\r\n"
    b"From: =?utf-8?q?J=C3=B6?= <customer@shop.example>\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\n\r\n"
)
SECRETS = re.compile(rb"jane|doe|hidden|mx7|192\.0\.2\.99|srs0=", re.IGNORECASE)


def bounce(
    answer: Answer = NO_SUCH_USER, delivery: Delivery = DELIVERY, header: bytes = HEADER, hostname: str = HOSTNAME
) -> bytes:
    """The bounce for a delivery that this answer has ended."""
    return compose_bounce(
        message_id="019f0c5ab7d3c1a2b3c4",
        now=NOW,
        hostname=hostname,
        postmaster=POSTMASTER,
        delivery=delivery,
        answer=answer,
        header_section=header,
    )


def test_the_report_as_others_read_it() -> None:
    """RFC 6522 and the mandatory fields of RFC 3464."""
    octets = bounce()
    assert_well_formed(octets)
    assert all(len(line) <= 78 for line in octets.split(b"\r\n"))
    report = read_report(octets)
    message = report.message
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert report.types == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    assert message["From"] == f"Mail Delivery System <{POSTMASTER}>"
    assert message["To"] == "customer@shop.example"
    assert message["Subject"] == f"Not delivered: your message to {ALIAS}"
    assert message["Message-ID"] == "<019f0c5ab7d3c1a2b3c4@mx.onward.example>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["MIME-Version"] == "1.0"
    assert parsedate_to_datetime(message["Date"]).timestamp() * 1000 == NOW
    assert report.of_message["Reporting-MTA"] == f"dns; {HOSTNAME}"
    assert parsedate_to_datetime(report.of_message["Arrival-Date"]).timestamp() * 1000 == DELIVERY.accepted_at
    (of_recipient,) = report.of_recipients
    assert of_recipient["Final-Recipient"] == f"rfc822; {ALIAS}"
    assert of_recipient["Action"] == "failed"
    assert of_recipient["Status"] == "5.1.1"
    assert of_recipient["Diagnostic-Code"] == f"smtp; 550 5.1.1 {WORDS_WITHHELD}"
    assert of_recipient["Last-Attempt-Date"] == message["Date"]
    assert ALIAS in report.text
    assert "There is no such mailbox behind this address." in report.text
    assert "given up" not in report.text
    assert report.original == (
        "Received: from a\r\n\tby b\r\nFrom: =?utf-8?q?J=C3=B6?= <customer@shop.example>\r\nSubject: Gr????e\r\n"
    )


def test_the_destination_is_nowhere() -> None:
    """Not its address, its server, nor the return path that was given to it."""
    assert not SECRETS.search(bounce())


def test_harmless_words_of_the_server_are_shown() -> None:
    """Once with the codes, though the server repeated them."""
    answer = replace(NO_SUCH_USER, code=552, enhanced_code="5.2.2", text="552 5.2.2 Mailbox full")
    report = read_report(bounce(answer))
    (of_recipient,) = report.of_recipients
    assert of_recipient["Diagnostic-Code"] == "smtp; 552 5.2.2 Mailbox full"
    assert "What the other server said: 552 5.2.2 Mailbox full" in report.text
    assert "The mailbox behind this address is full." in report.text


def test_what_the_operator_has_ended_says_so_and_was_no_attempt() -> None:
    report = read_report(bounce(Answer(0, "5.3.0", FAILED_BY_OPERATOR, "the operator has given it up")))
    (of_recipient,) = report.of_recipients
    assert of_recipient.keys() == ["Final-Recipient", "Action", "Status"]
    assert "The operator of this mail server has given the message up." in report.text


def test_where_no_server_was_asked_none_is_quoted() -> None:
    """An answer of our own may have a code, such as that of a domain which takes no mail."""
    report = read_report(bounce(Answer(556, "5.1.10", "null-mx", "home.example takes no mail")))
    (of_recipient,) = report.of_recipients
    assert of_recipient["Status"] == "5.1.10"
    assert "Diagnostic-Code" not in of_recipient
    assert "The domain behind this address says that it takes no mail at all." in report.text
    assert "What the other server said" not in report.text


@pytest.mark.parametrize(
    ("code", "enhanced_code", "status", "diagnostic"),
    [
        (452, "4.2.2", "4.2.2", "smtp; 452 4.2.2 Try later"),
        (452, "5.4.7", "5.4.7", "smtp; 452 Try later"),
        (0, "4.4.1", "4.4.1", None),
        (0, "5.4.7", "5.4.7", None),
        (0, "", "4.4.7", None),
    ],
)
def test_giving_up(code: int, enhanced_code: str, status: str, diagnostic: str | None) -> None:
    """What was only put off for days says so, and for how long."""
    answer = Answer(code, enhanced_code, "expired", "Try later", server_name="mx.home.example")
    report = read_report(bounce(answer))
    (of_recipient,) = report.of_recipients
    assert of_recipient["Action"] == "failed"
    assert of_recipient["Status"] == status
    assert of_recipient["Diagnostic-Code"] == diagnostic
    assert "we have tried 12 times in 5 days. We have now given up." in report.text


@pytest.mark.parametrize(
    ("code", "enhanced_code", "status"),
    [
        (550, "", "5.0.0"),
        (450, "", "4.0.0"),
        (550, "2.0.0", "5.0.0"),
        (0, "x", "5.0.0"),
        (554, "5.7.4711", "5.0.0"),
        (554, "5.7.99", "5.7.0"),
    ],
)
def test_a_status_is_always_there(code: int, enhanced_code: str, status: str) -> None:
    """RFC 3464 §2.3.4: it is mandatory, whatever the server has said."""
    (of_recipient,) = read_report(bounce(Answer(code, enhanced_code, "x", "no"))).of_recipients
    assert of_recipient["Status"] == status


def test_several_recipients_with_one_mailbox() -> None:
    """One report, one group each."""
    delivery = replace(DELIVERY, recipients=(Recipient("a@alias.example", "1"), Recipient("b@alias.example", "1")))
    report = read_report(bounce(delivery=delivery))
    assert [group["Final-Recipient"] for group in report.of_recipients] == [
        "rfc822; a@alias.example",
        "rfc822; b@alias.example",
    ]
    assert "a@alias.example" in report.text
    assert "b@alias.example" in report.text
    assert report.message["Subject"] == "Not delivered: your message to several addresses"


@pytest.mark.parametrize(
    ("written", "named"),
    [
        (b"Message-ID: <1.a+b@shop.example>", "<1.a+b@shop.example>"),
        (b"message-id:\r\n <x@[192.0.2.1]>", "<x@[192.0.2.1]>"),
        (b"Message-ID: <" + b"x" * 250 + b"@" + b"y" * 250 + b">", f"<{'x' * 250}@{'y' * 250}>"),
        (b"Message-ID: <" + b"x" * 251 + b"@shop.example>", None),
        (b"Message-ID: <a@b> <c@d>", None),
        (b"Message-ID: <a b@c>", None),
        (b"Message-ID: <j\xc3\xb6@c>", None),
        (b"Message-ID: none", None),
        (b"Message-ID:", None),
    ],
)
def test_the_report_stands_beside_its_message(written: bytes, named: str | None) -> None:
    """Where mail programs show what belongs together."""
    octets = bounce(header=written + b"\r\n" + HEADER)
    assert_well_formed(octets)
    message = BytesParser(policy=policy.compat32).parsebytes(octets)
    for name in ("In-Reply-To", "References"):
        found = message[name]
        assert (found and found.strip()) == named


def test_long_header_sections_are_cut() -> None:
    """At a line's end; nobody has us send a large message to somebody else."""
    header = b"X-Long: " + b"x" * 2000 + b"\r\n" + b"X-Filler: y\r\n" * 10_000 + b"\r\n"
    octets = bounce(header=header)
    assert_well_formed(octets)
    assert len(octets) < ORIGINAL_HEADER_OCTETS + 4096
    original = read_report(octets).original
    assert original is not None
    assert original.endswith("X-Filler: y\r\n")


def test_boundaries_are_not_foreseen() -> None:
    """Each report has its own, and what the sender wrote can't end a part."""
    first, second = (re.search(rb'boundary="([^"]+)"', bounce()) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first[1] != second[1]
    assert len(read_report(bounce(header=b"--" + first[1] + b"--\r\n" + HEADER)).types) == 3


texts = st.one_of(st.text(max_size=60), st.sampled_from(["\r\nBcc: x@y.example\r\n\r\n", "\n.\n", "\x00", "x" * 2000]))


@given(texts, texts, texts, st.binary(max_size=300))
def test_nothing_from_outside_changes_the_form(sender: str, alias: str, words: str, header: bytes) -> None:
    """Whatever the values are, the report is well-formed and has the fields that it should have."""
    delivery = replace(DELIVERY, sender=sender, recipients=(Recipient(alias, "1"),))
    octets = bounce(replace(NO_SUCH_USER, text=words), delivery, header)
    assert_well_formed(octets, utf8=not sender.isascii())
    # The parser does not know the media type of RFC 6533.
    octets = octets.replace(b"message/global-delivery-status", b"message/delivery-status")
    message = BytesParser(policy=policy.compat32).parsebytes(octets)
    assert sorted({*message.keys()} - {"Content-Transfer-Encoding"}) == [
        "Auto-Submitted", "Content-Type", "Date", "From", "MIME-Version", "Message-ID", "Subject", "To",
    ]  # fmt: skip
    status: Any = message.get_payload(1)
    of_report = status.get_payload(1)
    assert of_report.keys() == ["Final-Recipient", "Action", "Status", "Diagnostic-Code", "Last-Attempt-Date"]


@given(
    st.lists(
        st.sampled_from(["jane.doe", "JANE", "@", "hidden.example", "mx7", " ", "full", "mailbox", "%40", "<", ">"])
    )
)
def test_no_words_of_a_server_give_the_mailbox_away(words: list[str]) -> None:
    """However they are put together."""
    assert not SECRETS.search(bounce(replace(NO_SUCH_USER, text="".join(words))))


@pytest.mark.parametrize(
    ("header", "automatic"),
    [
        (b"Subject: hello\r\n\r\n", False),
        (b"Auto-Submitted: no\r\n\r\n", False),
        (b"auto-submitted: No (a person)\r\n\r\n", False),
        (b"Auto-Submitted: auto-generated\r\n\r\n", True),
        (b"Auto-Submitted: auto-replied; x=y\r\n\r\n", True),
        (b"Auto-Submitted:\r\n auto-notified\r\n\r\n", True),
        (b"Auto-Submitted: nothing-known\r\n\r\n", True),
        (b"Precedence: bulk\r\n\r\n", True),
        (b"Precedence: LIST\r\n\r\n", True),
        (b"Precedence: junk\r\n\r\n", True),
        (b"Precedence: first-class\r\n\r\n", False),
        (b"List-Id: <a.b.example>\r\n\r\n", True),
        (b"X-List-Id: <a.b.example>\r\n\r\n", False),
        (b"Subject: x\r\n List-Id: folded\r\n\r\n", False),
        (b"", False),
    ],
)
def test_automatic_and_list_mail_does_not_bounce(header: bytes, automatic: bool) -> None:
    """RFC 3834 §2; and nothing bounces to the null sender, nor where the sender is most likely forged."""
    assert is_automatic(header) is automatic
    assert may_report(DELIVERY, header) is not automatic
    assert not may_report(replace(DELIVERY, sender=""), header)
    assert not may_report(replace(DELIVERY, authentication="fail"), header)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5.1.1", "5.1.1"),
        ("4.7.30", "4.7.30"),
        ("2.0.0", "2.0.0"),
        ("5.1.123", "5.1.0"),
        ("5.999.1", "5.0.0"),
        ("3.1.1", None),
        ("5.1", None),
        ("5.1.1 ", None),
        ("5.1.1\n", None),
        ("\u0665.1.1", None),
        ("", None),
    ],
)
def test_only_registered_codes_pass(text: str, expected: str | None) -> None:
    """A number of a stranger's choice could say anything."""
    assert registered_status(text) == expected


@given(st.sampled_from("245"), st.integers(0, 999), st.integers(0, 999))
def test_every_code_has_words(kind: str, subject: int, detail: int) -> None:
    """Whatever the server says, the sender gets an explanation in whole sentences."""
    status = registered_status(f"{kind}.{subject}.{detail}")
    assert status is not None
    explanation = explain(status)
    assert explanation.happened.endswith(".")
    assert explanation.advice.endswith(".")


@pytest.mark.parametrize(
    ("duration_ms", "expected"),
    [
        (0, "1 minute"),
        (MINUTE_MS, "1 minute"),
        (59 * MINUTE_MS, "59 minutes"),
        (119 * MINUTE_MS, "119 minutes"),
        (30 * HOUR_MS, "30 hours"),
        (5 * DAY_MS, "5 days"),
        (-DAY_MS, "1 minute"),
    ],
)
def test_spans_in_words(duration_ms: int, expected: str) -> None:
    """Roughly, and sensible even where the clock went back."""
    assert span_in_words(duration_ms) == expected
