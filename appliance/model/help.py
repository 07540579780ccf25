"""Help: what an account asks of the operators, and what they read of its log for it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HelpRequest:
    """A question to the operators, and for how long they may read the account's delivery log to answer it."""

    id: str
    account_id: str
    subject: str
    body: str
    created_at: int
    log_access_until: int | None = None
    """Operators may read until then; None: they may not."""
    closed_at: int | None = None
    """None while it is open. A closed one lets nobody read."""

    @property
    def open(self) -> bool:
        """Whether it waits for somebody."""
        return self.closed_at is None

    def lets_read(self, now: int) -> bool:
        """Whether operators may read the account's delivery log at this instant."""
        return self.open and self.log_access_until is not None and now < self.log_access_until


@dataclass(frozen=True, slots=True)
class HelpReply:
    """One answer to a help request."""

    id: str
    help_request_id: str
    from_operator: bool
    body: str
    created_at: int


@dataclass(frozen=True, slots=True)
class LogAccess:
    """One time that an operator has read an account's delivery log."""

    id: str
    account_id: str
    help_request_id: str
    """The request that allowed it."""
    operator: str
    """Who, as the account will read it: an email address, or words for whoever sits at the machine."""
    query: str
    """What was asked of the log."""
    created_at: int
