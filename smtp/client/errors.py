"""How a client's conversation fails, told apart by what may help."""

from smtp.client.sequence import Stage
from smtp.reply import Reply


class ConnectError(Exception):
    """No conversation came about, and no reply says why. Trying again later, or elsewhere, may help."""


class TlsFailed(ConnectError):
    """The server offered STARTTLS, and the handshake came to nothing; or TLS is required, and was not offered.

    Where it is not required, the same server may be tried again without (RFC 7435 §3).
    """

    def __init__(self, text: str, *, final: bool) -> None:
        super().__init__(text)
        self.final = final
        """Whether the server itself is the reason (no STARTTLS, a certificate that proves nothing, no common version)
        and not a connection that broke: then trying again will not help."""


class LoginFailed(ConnectError):
    """There can be no login: the server offers none, none that is known here, or no TLS to say a password under.

    One that was tried and refused is Refused at Stage.AUTH.
    """


class Refused(Exception):
    """The server greeted us with 4xx or 5xx, or answered EHLO and HELO so, a login, or a STARTTLS that is required."""

    def __init__(self, reply: Reply, stage: Stage) -> None:
        super().__init__(f"{stage.value}: {reply}")
        self.reply = reply
        self.stage = stage


class Lost(Exception):
    """The connection broke, or the server fell silent or said what is no SMTP, in the middle of a message.

    Stage.END_OF_DATA means that the message may have been delivered. At every other stage it was not.
    """

    def __init__(self, stage: Stage, reason: str, reply: Reply | None = None) -> None:
        super().__init__(f"{stage.value}: {reason}")
        self.stage = stage
        self.reason = reason
        self.reply = reply


class ChunkingRefused(Lost):
    """The server offers CHUNKING and does not know BDAT, or something between us and it does not.

    Nothing of the message was accepted, for anybody: it can be sent at once over a connection without `chunking`.
    """
