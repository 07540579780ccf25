"""An aiosmtpd of our own, in a thread of this process: takes mail for one domain and keeps it in memory."""

import gc
import ssl
import warnings
from types import TracebackType
from typing import Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from peer_programs import DELIVERED_DOMAIN, free_port


class _Box:
    """What aiosmtpd calls a handler."""

    def __init__(self) -> None:
        self.envelopes: list[Envelope] = []

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if not address.endswith(f"@{DELIVERED_DOMAIN}"):
            return "550 5.7.1 Not here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.envelopes.append(envelope)
        return "250 2.0.0 OK"


class PrivateAiosmtpd:
    """Runs inside a `with`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._box = _Box()
        self.port = free_port()
        # Its own default keeps SMTPUTF8 to itself.
        self._controller = Controller(
            self._box, hostname="127.0.0.1", port=self.port, ready_timeout=20, tls_context=tls, enable_SMTPUTF8=True
        )

    def __enter__(self) -> Self:
        """Returns once it listens."""
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        stop(self._controller)

    def delivered(self) -> list[bytes]:
        """The messages it has had, as they came."""
        return [bytes(envelope.original_content or b"") for envelope in self._box.envelopes]


def stop(controller: Controller) -> None:
    """Stop it, and forget what it leaves: it does not wait until the last connection is closed, and Python would warn
    of that in whatever test comes later."""
    controller.stop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
