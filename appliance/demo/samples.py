"""The three messages of the demo."""

import base64

FRIEND = "friend@sender.test"
ALIAS = "sales@demo.test"
MAILBOX = "alice.private@mailbox.test"

_HEAD = "From: A Friend <friend@sender.test>\r\nTo: sales@demo.test\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n"

_NOTE = base64.encodebytes(b"Three apples, two pears.\n").decode().replace("\n", "\r\n")

PLAIN = (
    f"{_HEAD}Message-ID: <1@sender.test>\r\nSubject: A plain message\r\n\r\n"
    "Hello,\r\n\r\nthis went to an alias and should come out at your mailbox.\r\n.\r\n"
    "The line above is a lone dot: it must arrive as one.\r\n"
).encode()

ATTACHMENT = (
    f"{_HEAD}Message-ID: <2@sender.test>\r\nSubject: With an attachment\r\nMIME-Version: 1.0\r\n"
    'Content-Type: multipart/mixed; boundary="fruit"\r\n\r\n'
    "--fruit\r\nContent-Type: text/plain\r\n\r\nThe list is attached.\r\n"
    "--fruit\r\nContent-Type: text/plain; name=list.txt\r\n"
    "Content-Disposition: attachment; filename=list.txt\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    f"{_NOTE}--fruit--\r\n"
).encode()

EIGHT_BIT = (
    f"{_HEAD}Message-ID: <3@sender.test>\r\nSubject: Eight bits\r\nMIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    "Grüße aus Zürich — naïve façade, 你好.\r\n"
).encode()

SAMPLES: tuple[tuple[str, bytes], ...] = (
    ("A plain message", PLAIN),
    ("A message with an attachment", ATTACHMENT),
    ("A message with 8-bit text", EIGHT_BIT),
)
