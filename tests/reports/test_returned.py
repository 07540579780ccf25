"""What comes back from behind us is read with care and told in our own words."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from read_report import assert_well_formed, read_report
from returned_reports import CANARY, EXCHANGE, EXIM, GMAIL, POSTFIX, QMAIL, RECEIPT, VACATION

from appliance.reports.returned import Action, ReturnedReport, compose_returned, read

NOW = 1_790_000_000_000
ALIAS = "sales@alias.example"


def returned(content: bytes, alias: str | None = ALIAS, sent_at: int | None = None) -> bytes | None:
    """The report that the original sender gets."""
    return compose_returned(
        content,
        message_id="019f0c5ab7d3c1a2b3c4",
        now=NOW,
        hostname="mx.onward.example",
        postmaster="postmaster@mx.onward.example",
        sender="customer@shop.example",
        alias=alias,
        sent_at=sent_at,
        randbits=lambda bits: 0,
    )


def report_of(fields: str, content_type: str = "message/delivery-status") -> bytes:
    """A report with these fields about its recipients."""
    return (
        "Content-Type: multipart/report; boundary=b; report-type=delivery-status\r\n\r\n"
        "--b\r\n\r\nwords\r\n"
        f"--b\r\nContent-Type: {content_type}\r\n\r\nReporting-MTA: dns; x\r\n\r\n{fields}\r\n--b--\r\n"
    ).encode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (POSTFIX, ReturnedReport(Action.FAILED, "5.1.1", 550)),
        (EXIM, ReturnedReport(Action.FAILED, "5.0.0", 552)),
        (GMAIL, ReturnedReport(Action.FAILED, "5.2.2", 552)),
        (EXCHANGE, ReturnedReport(Action.FAILED, "5.1.10", 550)),
        (QMAIL, ReturnedReport(Action.FAILED)),
        (POSTFIX.replace(b"Action: failed", b"Action: delayed"), ReturnedReport(Action.DELAYED, "5.1.1", 550)),
        (POSTFIX.replace(b"\r\n", b"\n"), ReturnedReport(Action.FAILED, "5.1.1", 550)),
        (VACATION, None),
        (RECEIPT, None),
        (b"", None),
        (b"Subject: buy this\r\n\r\nnow\r\n", None),
        (b"From: MAILER-DAEMON@x\r\nSubject: Warning: message delayed 4 hours\r\n\r\n", ReturnedReport(Action.DELAYED)),
        (b"X-Failed-Recipients: a@b\r\n\r\n", ReturnedReport(Action.FAILED)),
    ],
)
def test_reports_of_others(content: bytes, expected: ReturnedReport | None) -> None:
    """The styles in use, and what is no report of a delivery."""
    assert read(content) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("Action: failed\r\nStatus: 5.2.2\r\n", ReturnedReport(Action.FAILED, "5.2.2")),
        ("ACTION:FAILED\r\nstatus:5.2.2 (full)\r\n", ReturnedReport(Action.FAILED, "5.2.2")),
        ("Action: delivered\r\nStatus: 2.0.0\r\n", ReturnedReport(Action.DELIVERED, "2.0.0")),
        ("Action: relayed\r\n", ReturnedReport(Action.RELAYED)),
        ("Action: expanded\r\n", ReturnedReport(Action.EXPANDED)),
        ("Action: exploded\r\n", ReturnedReport(Action.FAILED)),
        ("Status: 5.1.1\r\n", ReturnedReport(Action.FAILED, "5.1.1")),
        ("Status: 2.1.5\r\n", ReturnedReport(Action.DELIVERED, "2.1.5")),
        ("Action: failed\r\nStatus: 5.1.123\r\n", ReturnedReport(Action.FAILED, "5.1.0")),
        ("Action: failed\r\nStatus: 5.1.1234\r\n", ReturnedReport(Action.FAILED)),
        ("Action: failed\r\nStatus: permanent\r\n", ReturnedReport(Action.FAILED)),
        ("Action: failed\r\nDiagnostic-Code: smtp;\r\n 550-5.7.1 no\r\n", ReturnedReport(Action.FAILED, "5.0.0", 550)),
        ("Action: failed\r\nDiagnostic-Code: smtp; 5551234\r\n", ReturnedReport(Action.FAILED)),
        ("Action: failed\r\nDiagnostic-Code: x-unix; 550\r\n", ReturnedReport(Action.FAILED)),
        ("Action: failed\r\nStatus: 4.4.7\r\nDiagnostic-Code: smtp; 550 x\r\n", ReturnedReport(Action.FAILED, "4.4.7")),
        (
            "Action: delivered\r\nStatus: 2.0.0\r\n\r\nAction: failed\r\nStatus: 5.1.1\r\n",
            ReturnedReport(Action.FAILED, "5.1.1"),
        ),
        ("", ReturnedReport(Action.FAILED)),
        ("Final-Recipient: rfc822; a@b\r\n", ReturnedReport(Action.FAILED)),
    ],
)
def test_fields(fields: str, expected: ReturnedReport) -> None:
    """RFC 3464 §2.3, and how far programs stray from it."""
    assert read(report_of(fields)) == expected
    assert read(report_of(fields, "message/global-delivery-status")) == expected


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Type: multipart/report; report-type=delivery-status\r\n\r\nx",
        b'Content-Type: multipart/report; report-type=delivery-status; boundary=""\r\n\r\nx',
        b"Content-Type: multipart/report; boundary=b\r\n\r\n--c\r\n",
        b"Content-Type: multipart/report; boundary=b; report-type=delivery-status",
        report_of("Action: failed\r\nStatus: 5.1.1\r\n", "text/plain"),
        report_of("Action: failed\r\nStatus: 5.1.1\r\n").replace(b"--b\r\n", b"--bb\r\n"),
    ],
)
def test_what_cannot_be_read_is_a_failure(content: bytes) -> None:
    """A report is one, even where its parts are lost."""
    assert read(content) == ReturnedReport(Action.FAILED)
    octets = returned(content)
    assert octets is not None
    assert b"Status: 5.0.0\r\n" in octets


@pytest.mark.parametrize("kind", [b"message/disposition-notification", b"message/feedback-report"])
def test_other_reports_are_none_of_a_delivery(kind: bytes) -> None:
    """A receipt without a report-type is known by its part."""
    assert (
        read(b"Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: " + kind + b"\r\n\r\n--b--")
        is None
    )


def test_a_boundary_within_a_part_does_not_count() -> None:
    """One that merely begins like ours."""
    inner = b"--b-inner\r\nContent-Type: message/delivery-status\r\n\r\nAction: delivered\r\n--b-inner--\r\n"
    content = report_of("Action: failed\r\nStatus: 5.1.1\r\n").replace(b"words\r\n", inner)
    assert read(content) == ReturnedReport(Action.FAILED, "5.1.1")


def test_the_report_in_our_words() -> None:
    """It names the alias and the day, and passes as a delivery status notification."""
    octets = returned(POSTFIX, sent_at=NOW - 86_400_000)
    assert octets is not None
    assert_well_formed(octets)
    report = read_report(octets)
    message = report.message
    (of_recipient,) = report.of_recipients
    assert "Your message sent on or about 20 Sep 2026 (UTC) to sales@alias.example was forwarded by us" in report.text
    assert "There is no such mailbox behind this address." in report.text
    assert report.types == ["text/plain", "message/delivery-status"]
    assert message.get_content_type() == "multipart/report"
    assert message["To"] == "customer@shop.example"
    assert message["Auto-Submitted"] == "auto-replied"
    assert report.of_message["Reporting-MTA"] == "dns; mx.onward.example"
    assert of_recipient["Final-Recipient"] == f"rfc822; {ALIAS}"
    assert of_recipient["Action"] == "failed"
    assert of_recipient["Status"] == "5.1.1"
    assert of_recipient["Diagnostic-Code"].startswith("smtp; 550 5.1.1 (")


@pytest.mark.parametrize(
    ("alias", "shown"),
    [
        (None, "an address at this service"),
        ("*@alias.example", "an address at alias.example"),
        ("sales*@a.example", "an address at a.example"),
    ],
)
def test_an_alias_without_a_name_to_show(alias: str | None, shown: str) -> None:
    """One that is gone, and patterns, which are the owner's business."""
    octets = returned(POSTFIX, alias)
    assert octets is not None
    assert f"    {shown}\r\n".encode() in octets
    assert b"Final-Recipient: rfc822; undisclosed@mx.onward.example\r\n" in octets
    assert b"*" not in octets


@pytest.mark.parametrize("action", [b"delayed", b"delivered", b"relayed", b"expanded"])
def test_only_failures_are_told(action: bytes) -> None:
    """Nobody asked for the others."""
    assert returned(POSTFIX.replace(b"Action: failed", b"Action: " + action)) is None


def test_absence_notes_and_receipts_are_not_told() -> None:
    """To call them failures would be a lie, to pass them on would name the mailbox."""
    assert returned(VACATION) is None
    assert returned(RECEIPT) is None


def test_automatic_mail_gets_no_report() -> None:
    """As with our own bounces; the copy in the report says what it was."""
    marked = POSTFIX.replace(b"Subject: order", b"Auto-Submitted: auto-generated\r\nSubject: order")
    assert marked != POSTFIX
    assert read(marked) == ReturnedReport(Action.FAILED, "5.1.1", 550, about_automatic_mail=True)
    assert returned(marked) is None


REPORTS = [POSTFIX, EXIM, GMAIL, EXCHANGE, QMAIL, VACATION, RECEIPT]


@pytest.mark.parametrize("content", REPORTS)
def test_no_octet_of_theirs_goes_on(content: bytes) -> None:
    """The samples name the mailbox in every place where real reports do."""
    assert content.count(CANARY.encode()) >= 2
    octets = returned(content)
    assert octets is None or CANARY.encode() not in octets


@given(st.sampled_from(REPORTS), st.data())
@settings(max_examples=300)
def test_mutated_reports(content: bytes, data: st.DataObject) -> None:
    """Cut, doubled, and with a canary anywhere: read without an error, and the answer is one of a few known ones."""
    canary = b"canary7x"
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 200)))
        filling = data.draw(
            st.one_of(st.binary(max_size=20), st.sampled_from([b"\r\n", b"\r\n\r\n", b"--", content[start:end] * 2]))
        )
        content = content[:start] + filling + canary + content[end:]
    octets = returned(content)
    report = read(content)
    if octets is None:
        assert report is None or report.action is not Action.FAILED or report.about_automatic_mail
        return
    assert canary not in octets
    assert CANARY.encode() not in octets
    assert report is not None
    # With what was read of it known, nothing else of the report makes a difference.
    fields = f"Action: failed\r\nStatus: {report.status or 'none'}\r\n"
    fields += f"Diagnostic-Code: smtp; {report.code}\r\n" if report.code else ""
    assert octets == returned(report_of(fields))


@given(st.binary(max_size=2000))
def test_random_octets(content: bytes) -> None:
    """Alone, and as the body of a report."""
    read(content)
    read(b"Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\n" + content)
    read(report_of("").replace(b"Reporting-MTA: dns; x\r\n", content))


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Type: multipart/report; boundary=b\r\n\r\n" + b"--b\r\n" * 200_000,
        b"Content-Type: multipart/report; boundary=b\r\n\r\n" + b"\n--b" + b" " * 1_000_000,
        report_of("Action: delayed\r\n\r\n" * 50_000),
        report_of("Status: " + "5." * 100_000),
        report_of("Diagnostic-Code: smtp;" + " 1" * 100_000),
        report_of("Diagnostic-Code: smtp;" + "\r\n 5" * 100_000),
        report_of(("\r\n" + " " * 1000) * 200),
        b"Content-Type: multipart/report" + b"; boundary" * 100_000 + b"\r\n\r\n",
        b"Content-Type: multipart/report;" + b" " * 1_000_000 + b"boundary=b\r\n\r\n",
        b"From: " + b"mailer-" * 100_000 + b"\r\n\r\n",
        b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (depth, depth) for depth in range(5000)
        ),
    ],
)
def test_bombs_are_cheap(content: bytes) -> None:
    """Each is read within a tenth of a second, whatever is in it."""
    began = time.thread_time()
    returned(content)
    assert time.thread_time() - began < 0.1
