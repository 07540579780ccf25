"""How far a person reaches into mail: whose delivery log may be read, and whose mail under way may be steered.

An account reaches what is of its own domains. An operator steers everything, and yet reads somebody else's log only
under a help request that allows it, which is written down first. Who sits at the machine itself has its keys, and
reaches everything; that is said here by there being no account.
"""

from dataclasses import dataclass
from typing import Final

from appliance.accounts.help import Help
from appliance.accounts.rows import every, get
from appliance.model.account import Account, Role
from appliance.model.domain import Domain
from appliance.model.help import HelpRequest
from appliance.model.refused import Refused
from appliance.storage.records import RecordStore
from smtp.address import AddressError, ascii_domain, parse_domain

NOT_GRANTED: Final = "LOG_NOT_GRANTED"
"""Why an operator may not read a log."""

GONE: Final = "GONE"
"""What was followed is not there any more, or not whose it was."""


def mail_domain(text: str, field: str) -> str:
    """A domain that mail goes to or comes for, or an address literal such as `[192.0.2.1]`. Raises Refused.

    It is only compared, so it need not be one that could be hosted. But what is no domain would match nothing, and a
    hold of it would keep nothing back.
    """
    if text[:1] == "[" and text[-1:] == "]":
        return text
    try:
        return parse_domain(text)
    except AddressError as error:
        raise Refused(f"{text!r} is not a domain: {error}", field) from None


@dataclass(frozen=True, slots=True)
class Reader:
    """Who wants to read or to steer."""

    account: Account | None = None
    """None: the operator of the machine."""
    is_operator: bool = False
    """Whether the account may do what operators may, with the credential that it came with."""

    @property
    def reaches_all(self) -> bool:
        """Whether all mail under way may be seen and steered."""
        return self.account is None or self.is_operator

    def owns(self, domain: Domain) -> bool:
        """Whether a domain is the reader's own; all of them are for who sits at the machine."""
        return self.account is None or self.account.id == domain.account_id


class Reach:
    """Every method may raise StoreUnavailable."""

    def __init__(self, records: RecordStore, help: Help) -> None:
        self._records = records
        self._help = help

    def mail_of(self, reader: Reader) -> dict[str, str] | None:
        """The domains whose mail under way the reader may see and steer, ids by name; None: all there is.

        Only verified ones: a name that somebody has merely typed is nobody's.
        """
        if reader.account is None or reader.reaches_all:
            return None
        own = every(self._records, Domain, {"account_id": reader.account.id})
        return {domain.name: domain.id for domain in own if domain.verified}

    def require_own(self, reader: Reader, name: str | None) -> None:
        """Raise Refused where mail to come for the domain of this name (None: for any) is not the reader's to hold."""
        own = self.mail_of(reader)
        if own is None:
            return
        if name is None:
            raise Refused("Name a domain of yours: only operators hold mail of everybody.", "domain")
        if ascii_domain(name) not in own:
            raise Refused(f"{name} is no verified domain of yours.", "domain")

    def permit_log(self, reader: Reader, domain: Domain, query: str) -> None:
        """Let this log be read, and write it down where it is somebody else's. Raises Refused where it may not be.

        `query` is what is asked of it, as its owner will read it. Nothing is to be shown before this has returned.
        """
        if reader.account is None or reader.owns(domain):
            return
        self._help.record_access(self._grant(reader, domain), reader.account.email, query)

    def log_of(self, reader: Reader, domain: Domain | None) -> frozenset[str] | None:
        """The ids of the domains whose log the reader may follow now: own ones, or this one; None: all there are.

        To be asked again while it is followed. Raises Refused where nothing may be followed (any more).
        """
        account = None if reader.account is None else get(self._records, Account, {"id": reader.account.id})
        if reader.account is not None and account is None:
            raise Refused("The account is gone.", code=GONE)
        if domain is None:
            if account is None:
                return None
            return frozenset(own.id for own in every(self._records, Domain, {"account_id": account.id}))
        now = get(self._records, Domain, {"id": domain.id})
        if now is None or now.account_id != domain.account_id:
            raise Refused(f"{domain.name} is gone.", code=GONE)
        if account is not None and not reader.owns(now):
            self._grant(Reader(account, reader.is_operator and account.role is Role.OPERATOR), now)
        return frozenset({domain.id})

    def _grant(self, reader: Reader, domain: Domain) -> HelpRequest:
        grant = self._help.may_read_log(domain.account_id) if reader.is_operator else None
        if grant is None:
            raise Refused(
                "This log is its owner's. An operator may read it while a help request of the owner allows it.",
                code=NOT_GRANTED,
            )
        return grant
