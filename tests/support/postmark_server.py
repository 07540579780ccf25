"""Postmark's HTTP API as its documentation has it, on loopback over TLS: it takes what is right, and says what is not.

From https://postmarkapp.com/developer/api/overview and /developer/api/email-api, and shares no code with the client: it
is strict where the documentation says "required", and knows no field that is not documented.
"""

import json
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

TOKEN = "0f3a1c52-9a35-4a5e-8f6a-6d7f6a1f3b11"

_FIELDS: dict[str, type] = {
    "From": str,
    "To": str,
    "Cc": str,
    "Bcc": str,
    "Subject": str,
    "Tag": str,
    "HtmlBody": str,
    "TextBody": str,
    "ReplyTo": str,
    "Metadata": dict,
    "Headers": list,
    "TrackOpens": bool,
    "TrackLinks": str,
    "Attachments": list,
    "MessageStream": str,
}
_TRACK_LINKS = ("None", "HtmlAndText", "HtmlOnly", "TextOnly")
_MOST_RECIPIENTS = 50

# A name with punctuation has to be in quotes; the address is what the documentation's own expressions take.
_MAILBOX = re.compile(
    r"(?:(?:\"[^\"]*\"|[\w ]*) *<(?P<named>[^<>]+)>|(?P<bare>[^<> ]+))",
)
_ADDRESS = re.compile(r"[a-z0-9.!#$%&'`*+\-/=^_{|}~]+@(?:\.?[a-zA-Z0-9-])+", re.IGNORECASE | re.ASCII)

Told = tuple[int, int, str]
"""An HTTP status, an error code, and a message."""


class PostmarkServer:
    """Serves inside a `with`, at `port` of 127.0.0.1."""

    def __init__(self, tls: ssl.SSLContext, senders: tuple[str, ...]) -> None:
        """`senders` are the addresses with a confirmed signature."""
        self.sent: list[dict[str, Any]] = []
        """The letters that were taken."""
        self.requests = 0
        self.raw: list[bytes] = []
        """Answers to be given in place of the next ones, whole as they go over the line; empty to hang up."""
        self.drips = False
        """Answers come octet by octet, for ever."""
        self.inactive: set[str] = set()
        """Recipients whose mail has come back."""
        self._senders = senders
        self._stopped = threading.Event()
        server = self

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server._answer(self)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopped.set()
        self.drips = False
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _answer(self, asked: BaseHTTPRequestHandler) -> None:
        self.requests += 1
        body = asked.rfile.read(int(asked.headers["Content-Length"]))
        while self.drips:
            # Until the client hangs up, which is an OSError here.
            asked.wfile.write(b"x")
            self._stopped.wait(0.02)
        if self.raw:
            asked.wfile.write(self.raw.pop(0))
            asked.close_connection = True
            return
        status, code, message = self._judge(asked, body)
        told: dict[str, Any] = {"ErrorCode": code, "Message": message}
        if code == 0:
            self.sent.append(json.loads(body))
            told |= {"To": self.sent[-1]["To"], "SubmittedAt": "2026-11-20T10:00:00Z", "MessageID": str(uuid4())}
        octets = json.dumps(told).encode()
        asked.send_response(status)
        asked.send_header("Content-Type", "application/json")
        asked.send_header("Content-Length", str(len(octets)))
        asked.end_headers()
        asked.wfile.write(octets)

    def _judge(self, asked: BaseHTTPRequestHandler, body: bytes) -> Told:
        if asked.path != "/email":
            return 404, 0, "There is no such endpoint."
        if asked.headers.get("X-Postmark-Server-Token") != TOKEN:
            return 401, 10, "The Server Token you provided in the X-Postmark-Server-Token request header was invalid."
        if asked.headers.get("Accept") != "application/json" or asked.headers.get("Content-Type") != "application/json":
            return 422, 409, "Your HTTP request does not have the Accept and Content-Type headers set properly."
        try:
            letter = json.loads(body)
        except ValueError:
            return 422, 402, "The JSON data you provided is syntactically incorrect."
        wrong = [name for name, value in letter.items() if not isinstance(value, _FIELDS.get(name, type(None)))]
        if wrong:
            return 422, 403, f"The JSON you provided is incompatible: {wrong}"
        return self._judge_letter(letter)

    def _judge_letter(self, letter: dict[str, Any]) -> Told:
        if letter.get("MessageStream", "outbound") != "outbound":
            return 422, 1235, "The 'MessageStream' provided does not exist on this server."
        sender = _address(letter.get("From", ""))
        if sender is None:
            return 422, 300, "Invalid 'From' address."
        if sender not in self._senders:
            return 422, 400, f"The 'From' address you supplied ({sender}) is not a Sender Signature on your account."
        recipients = [_address(each.strip()) for each in letter.get("To", "").split(",")]
        if None in recipients or len(recipients) > _MOST_RECIPIENTS:
            return 422, 300, f"Error parsing 'To': {letter.get('To')}"
        if not (letter.get("TextBody") or letter.get("HtmlBody")):
            return 422, 300, "Provide either email TextBody or HtmlBody or both."
        if letter.get("TrackLinks", "None") not in _TRACK_LINKS:
            return 422, 300, "Invalid 'TrackLinks' value."
        if any(set(header) != {"Name", "Value"} for header in letter.get("Headers", [])):
            return 422, 403, "A header has a Name and a Value."
        if self.inactive.intersection(filter(None, recipients)):
            return 422, 406, f"You tried to send to recipient(s) that have been marked as inactive: {letter['To']}"
        return 200, 0, "OK"


def _address(mailbox: str) -> str | None:
    found = _MAILBOX.fullmatch(mailbox)
    address = (found["named"] or found["bare"]) if found else ""
    return address if _ADDRESS.fullmatch(address) else None
