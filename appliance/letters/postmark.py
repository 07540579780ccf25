"""Letters by way of Postmark, a provider, over its HTTP API.

What is asked for and answered is said at https://postmarkapp.com/developer/api/email-api ("Send a single email") and
https://postmarkapp.com/developer/api/overview (codes). One letter is one request over a connection of its own, and is
tried once: whoever has the letter knows whether it is worth another try (`appliance.access.errands`). Where Postmark
has taken it and the answer is lost, another try is a second copy of the letter, whose link is the same.
"""

import http.client
import json
import re
import socket
import ssl
import threading
from contextlib import suppress
from enum import Enum
from typing import Any

from appliance.letters.composing import shown_subject, wrapped
from appliance.model.letter import Letter, LetterRefused, NotPosted
from smtp.address import Address, AddressError

TOKEN = "postmark-token"
"""The name of the secret that has the token of our server there."""

HOST = "api.postmarkapp.com"
PORT = 443

STREAM = "outbound"
"""The message stream that every server there has for letters to one person."""

STEP_S = 5.0
"""How long the connection, or one reading of the answer, may take."""

LIMIT_S = 15.0
"""How long one letter may take in all: somebody may wait for the answer."""

ANSWER_OCTETS = 64 << 10
"""How much of an answer is read: one has a few hundred octets."""

_TOKEN = re.compile(r"[!-~]{1,200}", re.ASCII)

# https://postmarkapp.com/support/article/1180-what-does-errorcode-300-mean has both; letters of either case are taken.
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'`*+\-/=^_{|}~]+@(?:\.?[A-Za-z0-9-])+", re.ASCII)


class ErrorCode(Enum):
    """The codes in Postmark's answers that say something about one letter, and not about our account there."""

    OK = 0
    INVALID_EMAIL_REQUEST = 300
    """An address or another field is not as it has to be."""
    INACTIVE_RECIPIENT = 406
    """Mail to that address has come back before, or was called spam."""


class BadToken(ValueError):
    """This can't be a token. The text does not repeat it."""


class Postmark:
    """A `Post` of letters by way of Postmark. Thread-safe."""

    def __init__(
        self, token: str, hostname: str, sender: str, tls: ssl.SSLContext, *, host: str = HOST, port: int = PORT
    ) -> None:
        """`sender` needs a confirmed signature there, or a domain that is. `tls` has to verify. Raises BadToken.

        `host` and `port` are for tests, which have a server of their own: the token is given to nobody else.
        """
        if not _TOKEN.fullmatch(token):
            raise BadToken("a token is one word of plain characters")
        self._token = token
        self._from = f'"{hostname}" <{sender}>'
        self._tls = tls
        self._host = host
        self._port = port

    def send(self, letter: Letter) -> None:
        """See Post."""
        body = json.dumps(self._request(letter)).encode("ascii")
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=STEP_S, context=self._tls)
        try:
            status, answer = self._asked(connection, body)
        except (OSError, http.client.HTTPException) as error:
            raise NotPosted(f"Postmark can't be reached ({_cause(error)})") from None
        finally:
            connection.close()
        _judge(status, answer)

    def _request(self, letter: Letter) -> dict[str, object]:
        return {
            "From": self._from,
            "To": _recipient(letter.recipient),
            "Subject": shown_subject(letter.subject),
            "TextBody": wrapped(letter.text),
            "MessageStream": STREAM,
            # A link in here is a secret between us and one reader: nobody is to count or redirect who opens it.
            "TrackOpens": False,
            "TrackLinks": "None",
            # RFC 3834 §5, as in letters that leave by our own queue.
            "Headers": [{"Name": "Auto-Submitted", "Value": "auto-generated"}],
        }

    def _asked(self, connection: http.client.HTTPSConnection, body: bytes) -> tuple[int, bytes]:
        connection.connect()
        # Without it, who says an octet now and then could keep us for ever.
        timer = threading.Timer(LIMIT_S, _hang_up, [connection.sock])
        timer.daemon = True
        timer.start()
        try:
            headers = {
                "Accept": "application/json",
                "Content-Type": "application/json",
                "X-Postmark-Server-Token": self._token,
            }
            connection.request("POST", "/email", body, headers)
            response = connection.getresponse()
            return response.status, response.read(ANSWER_OCTETS)
        finally:
            timer.cancel()


def _recipient(text: str) -> str:
    """One address, as Postmark takes it. In a field of many, another could hide behind a comma in quotes."""
    try:
        address = Address.parse(text).in_ascii
    except AddressError:
        address = None
    if address is None or not _ADDRESS.fullmatch(str(address)):
        raise LetterRefused("Postmark takes no such address")
    return str(address)


def _judge(status: int, answer: bytes) -> None:
    """Return where the letter was taken; else say why not. Postmark's own words may name the address."""
    code = _error_code(answer)
    if status == http.client.OK and code == ErrorCode.OK.value:
        return
    found = f"Postmark answers {status}" + ("" if code is None else f", error code {code}")
    if status == http.client.UNAUTHORIZED:
        raise NotPosted(f"{found}: it does not know our token (secret {TOKEN})")
    if status == http.client.UNPROCESSABLE_ENTITY and code in (
        ErrorCode.INVALID_EMAIL_REQUEST.value,
        ErrorCode.INACTIVE_RECIPIENT.value,
    ):
        raise LetterRefused(found)
    # 429 and 5xx pass by themselves; all else is about our account there, and passes when somebody puts it right.
    raise NotPosted(found)


def _error_code(answer: bytes) -> int | None:
    try:
        told: Any = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    code = told.get("ErrorCode") if isinstance(told, dict) else None
    return code if isinstance(code, int) and not isinstance(code, bool) else None


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        # Beneath TLS, which another thread is reading: nothing of its state is touched.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _cause(error: Exception) -> str:
    """In words that tell nothing of the letter."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
