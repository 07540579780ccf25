"""One attempt, and what there is to tell of it: by whom it was answered, how, and how long it has taken."""

from appliance.delivery.connecting import Reached
from appliance.delivery.hosts import HostAddress
from appliance.model.delivery import Answer
from appliance.model.time import Clock
from smtp.reply import Reply


class Attempt:
    """It begins when it is made."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock()

    def told(self, code: int, enhanced_code: str, reason: str, text: str, by: Reached | HostAddress | None) -> Answer:
        """An answer in these words: `by` the host of a connection, by one that was tried, or by nobody but ourselves.

        `code` is 0 where there was no reply.
        """
        at = by.at if isinstance(by, Reached) else by
        return Answer(
            code=code,
            enhanced_code=enhanced_code,
            reason=reason,
            text=text,
            server_name=at.host if at else None,
            server_address=at.address if at else None,
            duration_ms=max(0, self._clock() - self._began),
            tls=by.tls if isinstance(by, Reached) else None,
        )

    def answered(self, reply: Reply, reason: str, by: Reached | HostAddress | None) -> Answer:
        """An answer in the server's own words."""
        # RFC 3463 §2: where the server gives no enhanced code, the class is all that is known.
        enhanced_code = reply.enhanced or f"{reply.code // 100}.0.0"
        return self.told(reply.code, enhanced_code, reason, reply.text.replace("\n", " "), by)


def code_of(reply: Reply) -> str:
    """A reply without its text: where that may name an account of the operator's, which is nobody else's business."""
    return f"{reply.code} {reply.enhanced}" if reply.enhanced else str(reply.code)
