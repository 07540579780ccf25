"""Messages that go through the hands of others, and how what came is held against what went.

Each has the fields that a mail server would else add. Lines end in CRLF; a program that wants LF gets LF.
"""

import re

_FIELDS = (
    b"Date: Sat, 21 Nov 2026 12:00:00 +0000\r\n"
    b"From: Ann <ann@sender.test>\r\n"
    b"To: Box <box@box.test>\r\n"
    b"Message-ID: <%s@sender.test>\r\n"
    b"Subject: %s\r\n"
)
_MIME = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=%s\r\nContent-Transfer-Encoding: 8bit\r\n"

_DOTS = [b".", b"..", b"...", b".a", b"..a", b"a.", b" .", b". ", b".\t", b"", b".", b"", b".." * 300, b"QUIT", b"."]
_LINE = b".0123456789 " * 6

UTF8_LETTER = "Subject: Grüße\r\nFrom: Jürg <jürg@sender.test>\r\n".encode() + (
    b"Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <utf8@sender.test>\r\n"
    + _MIME % b"utf-8"
    + b"\r\nGood morning.\r\n"
)
"""Only for those who take header fields in UTF-8."""

LETTERS: dict[str, bytes] = {
    "plain": _FIELDS % (b"plain", b"plain") + b"\r\nGood morning.\r\n\r\nGood bye.\r\n",
    # Every second line of this needs another dot, and it is longer than any buffer on the way.
    "dots": _FIELDS % (b"dots", b"dots") + b"\r\n" + b"\r\n".join(_DOTS * 200) + b"\r\n",
    "eight-bit": _FIELDS % (b"eight-bit", b"eight-bit")
    + _MIME % b"iso-8859-1"
    + b"\r\n"
    + b"".join(b"%c%c%c\r\n" % (octet, octet, octet) for octet in range(0x80, 0x100)),
    "megabyte": _FIELDS % (b"megabyte", b"megabyte") + b"\r\n" + (_LINE + b"\r\n") * ((1 << 20) // (len(_LINE) + 2)),
}

# The fields that say which way a message came, and for whom it was put into a mailbox.
_TRACE_RE = re.compile(rb"(?:(?:Received|Return-Path|X-Original-To|Delivered-To):[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)*")


def behind_trace(content: bytes, sent: bytes) -> bytes:
    """What stands behind the trace fields that were added at the top; all of it where there is anything else."""
    added = len(content) - len(sent)
    return content[added:] if added >= 0 and _TRACE_RE.fullmatch(content, 0, added) else content


def with_crlf(content: bytes) -> bytes:
    """What a peer keeps with bare LF, as it was on the wire."""
    return content.replace(b"\n", b"\r\n")
