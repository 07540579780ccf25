"""Reports in the styles of well-known servers, written for the tests; each names the hidden mailbox wherever they do.

`CANARY` is the hidden mailbox's local part. Nothing that a sender gets to see may contain it.
"""

CANARY = "hidden-mailbox-of-jane"


def _octets(text: str) -> bytes:
    return text.lstrip("\n").replace("CANARY", CANARY).replace("\n", "\r\n").encode("ascii")


POSTFIX = _octets("""
Return-Path: <>
From: MAILER-DAEMON@mx7.dest.example (Mail Delivery System)
To: srs0=abcdefgh=aa=q7x2ab=shop.example=customer@srs.mx.onward.example
Subject: Undelivered Mail Returned to Sender
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="4F2kLm1Z8s.1790000000/mx7.dest.example"
Message-Id: <20260921141320.4F2kLm1Z8s@mx7.dest.example>

This is a MIME-encapsulated message.

--4F2kLm1Z8s.1790000000/mx7.dest.example
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

Sorry: your message could not be delivered.

<CANARY@dest.example>: host store.dest.example[192.0.2.99] said: 550
    5.1.1 <CANARY@dest.example> User doesn't exist (in reply to RCPT TO)

--4F2kLm1Z8s.1790000000/mx7.dest.example
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx7.dest.example
X-Postfix-Queue-ID: 4F2kLm1Z8s
X-Postfix-Sender: rfc822; srs0=abcdefgh=aa=q7x2ab=shop.example=customer@srs.mx.onward.example
Arrival-Date: Mon, 21 Sep 2026 14:13:19 +0000 (UTC)

Final-Recipient: rfc822; CANARY@dest.example
Original-Recipient: rfc822;CANARY@dest.example
Action: failed
Status: 5.1.1
Remote-MTA: dns; store.dest.example
Diagnostic-Code: smtp; 550 5.1.1 <CANARY@dest.example> User doesn't exist

--4F2kLm1Z8s.1790000000/mx7.dest.example
Content-Description: Undelivered Message
Content-Type: message/rfc822

Received: from mx.onward.example by mx7.dest.example for <CANARY@dest.example>
From: customer@shop.example
To: sales@alias.example
Subject: order

Two, please.

--4F2kLm1Z8s.1790000000/mx7.dest.example--
""")

EXIM = _octets("""
Return-path: <>
Auto-Submitted: auto-replied
From: Mail Delivery System <Mailer-Daemon@exim.dest.example>
To: srs0=abcdefgh=aa=q7x2ab=shop.example=customer@srs.mx.onward.example
References: <1@shop.example>
Content-Type: multipart/report; report-type=delivery-status; boundary=1790000000-eximdsn-42
MIME-Version: 1.0
Subject: Mail delivery failed: returning message to sender
X-Failed-Recipients: CANARY@dest.example

--1790000000-eximdsn-42
Content-type: text/plain; charset=us-ascii

A message that you sent has failed at this address:

  CANARY@dest.example
    host store.dest.example [192.0.2.99]
    SMTP error after end of data: 552 CANARY is over quota

--1790000000-eximdsn-42
Content-type: message/delivery-status

Reporting-MTA: dns; exim.dest.example

Action: failed
Final-Recipient: rfc822;CANARY@dest.example
Status: 5.0.0
Remote-MTA: dns; store.dest.example
Diagnostic-Code: smtp; 552 CANARY is over quota

--1790000000-eximdsn-42
Content-type: text/rfc822-headers

Envelope-to: CANARY@dest.example
From: customer@shop.example
Subject: order

--1790000000-eximdsn-42--
""")

GMAIL = _octets("""
From: Mail Delivery Subsystem <mailer-daemon@big.example>
To: srs0=abcdefgh=aa=q7x2ab=shop.example=customer@srs.mx.onward.example
Auto-Submitted: auto-replied
Subject: Delivery Status Notification (Failure)
Content-Type: multipart/report; boundary="000000000000abcdef0123456789"; report-type=delivery-status

--000000000000abcdef0123456789
Content-Type: multipart/related; boundary="000000000000abcdef01234567890"

--000000000000abcdef01234567890
Content-Type: text/html; charset="UTF-8"

<p>The inbox of <b>CANARY@big.example</b> has no room.</p>

--000000000000abcdef01234567890--

--000000000000abcdef0123456789
Content-Type: message/delivery-status

Reporting-MTA: dns; big.example
Arrival-Date: Mon, 21 Sep 2026 07:13:19 -0700 (PDT)
X-Original-Message-ID: <1@shop.example>

Final-Recipient: rfc822; CANARY@big.example
Action: failed
Status: 5.2.2
Remote-MTA: dns; gw.big.example. (192.0.2.98, the server for the domain.)
Diagnostic-Code: smtp; 552-5.2.2 The inbox of CANARY has no room. See
 552 5.2.2 https://help.big.example/?p=Full x42si123.7 - gw
Last-Attempt-Date: Mon, 21 Sep 2026 07:13:20 -0700 (PDT)

--000000000000abcdef0123456789
Content-Type: message/rfc822

From: customer@shop.example
Subject: order

--000000000000abcdef0123456789--
""")

EXCHANGE = _octets("""
From: <postmaster@corp.example>
To: <srs0=abcdefgh=aa=q7x2ab=shop.example=customer@srs.mx.onward.example>
Date: Mon, 21 Sep 2026 14:13:20 +0000
Content-Type: multipart/report; report-type=delivery-status;
\tboundary="8a1c3e5f-0001-4c2d-9b7e-1f2e3d4c5b6a"
X-MS-Exchange-Message-Is-Ndr:
Auto-Submitted: auto-replied
Subject: Undeliverable: order

--8a1c3e5f-0001-4c2d-9b7e-1f2e3d4c5b6a
Content-Type: multipart/alternative; differences=Content-Type;
\tboundary="b2"

--b2
Content-Type: text/plain; charset="us-ascii"

CANARY wasn't found at corp.example.

--b2--

--8a1c3e5f-0001-4c2d-9b7e-1f2e3d4c5b6a
Content-Type: message/delivery-status

Reporting-MTA: dns;EX01.corp.example
Received-From-MTA: dns;mx.onward.example
Arrival-Date: Mon, 21 Sep 2026 14:13:19 +0000

Final-Recipient: rfc822;CANARY@corp.example
Action: failed
Status: 5.1.10
Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; CANARY@corp.example by lookup
X-Display-Name: CANARY

--8a1c3e5f-0001-4c2d-9b7e-1f2e3d4c5b6a
Content-Type: message/rfc822

From: customer@shop.example
Subject: order

--8a1c3e5f-0001-4c2d-9b7e-1f2e3d4c5b6a--
""")

QMAIL = _octets("""
From: MAILER-DAEMON@old.example
To: srs0=abcdefgh=aa=q7x2ab=shop.example=customer@srs.mx.onward.example
Subject: failure notice

Hi. This is the mail program at old.example.
I could not deliver your message to these addresses.

<CANARY@old.example>:
No mailbox here by that name: CANARY. (#5.1.1)

--- Below this line is a copy of the message.

From: customer@shop.example
""")

VACATION = _octets("""
From: Jane <CANARY@dest.example>
To: srs0=abcdefgh=aa=q7x2ab=shop.example=customer@srs.mx.onward.example
Subject: Automatic reply: order
Auto-Submitted: auto-replied (vacation)
Precedence: bulk
Content-Type: text/plain

I am away until Monday. CANARY
""")

RECEIPT = _octets("""
From: Jane <CANARY@dest.example>
To: srs0=abcdefgh=aa=q7x2ab=shop.example=customer@srs.mx.onward.example
Subject: Read: order
Content-Type: multipart/report; report-type=disposition-notification; boundary=r

--r
Content-Type: text/plain

Your message was read.

--r
Content-Type: message/disposition-notification

Final-Recipient: rfc822;CANARY@dest.example
Disposition: manual-action/MDN-sent-manually; displayed

--r--
""")
