"""How long a client waits for a server, step by step and in all."""

from dataclasses import dataclass

from smtp.client.sequence import Stage


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for each step, in seconds. RFC 5321 §4.5.3.2 gives the least; we take it."""

    connect: float = 30.0
    """Not in the RFC. A server that is there answers at once; where there are more addresses, they get their turn."""
    greeting: float = 300.0
    ehlo: float = 300.0
    tls: float = 60.0
    """The handshake. Not in the RFC: two round trips and a signature. (The reply to STARTTLS has the time of MAIL.)"""
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    end_of_data: float = 600.0
    """Ten minutes: giving up sooner, while the server is still at it, makes duplicates (§4.5.3.2.6)."""
    message: float = 7200.0
    """From MAIL to the end of content: however steadily a server goes on, no message is its guest for longer. Not in
    the RFC, and more than it lets an honest server need that is slow at everything: RSET, MAIL and DATA at their
    slowest take 12 minutes, a hundred recipients at 20 s each 33, and 50 MiB at 128 kbit/s 55 minutes. The wait for the
    final reply, after which giving up makes duplicates, comes on top."""
    quit: float = 2.0
    """What was promised stays promised whether QUIT is answered or not, so that we do not stay for long."""

    def of(self, stage: Stage) -> float:
        """The time for the reply to this stage."""
        match stage:
            case Stage.GREETING:
                return self.greeting
            case Stage.EHLO | Stage.HELO:
                return self.ehlo
            case Stage.RCPT:
                return self.rcpt
            case Stage.DATA:
                return self.data
            case Stage.BDAT:
                return self.block
            case Stage.END_OF_DATA:
                return self.end_of_data
            case _:
                return self.mail
