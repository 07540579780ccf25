"""Who asks: nobody known, a person with a session, a program with a token, or the operator of the machine.

Who that is is found out by `appliance.access`, which is given to this room as `Doorkeeper`. Here is what follows from
it: what a caller may do, asked in one way by every field (`fields.py`).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from appliance.model.access import Scope
from appliance.model.account import Account, Role
from control_api.errors import forbidden, unauthenticated

USER_AGENT_LENGTH = 200
"""Characters of a User-Agent that are kept: browsers send half of that."""


class Access(Enum):
    """Who may ask for a field."""

    ANYONE = "anyone"
    SIGNED_IN = "signed in"
    """With a session or a token, or as the operator of the machine."""
    IN_PERSON = "in person"
    """With a session only: what a token must not do, such as to make another one."""
    OPERATOR = "operator"


class CallerKind(Enum):
    """How a caller is known."""

    ANONYMOUS = "anonymous"
    SESSION = "session"
    TOKEN = "token"
    LOCAL = "local"
    """Through the socket in the data directory. Whoever can open it is the operator of the machine; no account."""


class Known(Protocol):
    """An account behind a session or a token."""

    @property
    def account(self) -> Account:
        """Whose it is."""

    @property
    def id(self) -> str:
        """Of the session or the token."""


class KnownByToken(Known, Protocol):
    """An account behind a token."""

    @property
    def scopes(self) -> frozenset[Scope]:
        """What the token may do."""


class Doorkeeper(Protocol):
    """Tells who is behind a secret. Both may raise StoreUnavailable, and are called in a worker thread."""

    def by_session(self, secret: str) -> Known | None:
        """The account behind the secret of a session's cookie; None where there is none, or no more."""

    def by_token(self, secret: str) -> KnownByToken | None:
        """The account behind an API token; None where there is none, or no more."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request brings to be known by, and where it comes from."""

    local: bool = False
    """It came through the socket in the data directory."""
    bearer: str | None = None
    """The token behind `Authorization: Bearer`; a request that has one is known by nothing else."""
    session: str | None = None
    """The secret in the session's cookie."""
    device: str = ""
    address: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for an operation."""

    kind: CallerKind
    address: str = ""
    """The client's, as text; empty for the local socket."""
    user_agent: str = ""
    """What the client says of itself, cut to `USER_AGENT_LENGTH`."""
    device: str = ""
    """What its cookie of that name says; empty without."""
    account: Account | None = None
    """None for an anonymous caller, and for the operator of the machine."""
    credential_id: str | None = None
    """Of the session or the token."""
    scopes: frozenset[Scope] = frozenset()
    """Of a token."""

    @property
    def is_signed_in(self) -> bool:
        """Whether it is known who asks."""
        return self.kind is not CallerKind.ANONYMOUS

    @property
    def is_operator(self) -> bool:
        """Whether the caller may do what operators may: by a token only where that has the scope."""
        if self.kind is CallerKind.LOCAL:
            return True
        return self.account is not None and self.account.role is Role.OPERATOR and self.has(Scope.OPERATE)

    @property
    def account_id(self) -> str | None:
        """The id of the account that asks; None where none does."""
        return None if self.account is None else self.account.id

    @property
    def own_account(self) -> Account:
        """The account that asks. Raises UNAUTHENTICATED, or FORBIDDEN for the operator of the machine, who has none."""
        if self.account is None:
            raise unauthenticated() if not self.is_signed_in else forbidden("This is for accounts: sign in to one.")
        return self.account

    def has(self, scope: Scope) -> bool:
        """Whether the credential reaches so far. A session reaches everything that its account may do."""
        return self.kind is not CallerKind.TOKEN or scope in self.scopes

    def require(self, access: Access, scope: Scope | None) -> None:
        """Raise UNAUTHENTICATED or FORBIDDEN where the caller may not. `scope` is what a token needs; None: nothing."""
        if access is not Access.ANYONE and not self.is_signed_in:
            raise unauthenticated()
        if scope is not None and not self.has(scope):
            raise forbidden(f"This token lacks the scope {scope.name}.")
        if access is Access.OPERATOR and not self.is_operator:
            raise forbidden("This is for operators.")
        if access is Access.IN_PERSON and self.kind is not CallerKind.SESSION:
            raise forbidden("This is for a person who has signed in, not for a token.")


def identified(credentials: Credentials, doorkeeper: Doorkeeper) -> Caller:
    """Who is behind these. A cookie that is no good any more is nobody's; a token that is no good is UNAUTHENTICATED.

    Blocks: for worker threads. Raises StoreUnavailable.
    """
    seen = (credentials.address, credentials.user_agent[:USER_AGENT_LENGTH], credentials.device)
    if credentials.bearer is not None:
        program = doorkeeper.by_token(credentials.bearer)
        if program is None:
            raise unauthenticated("This token is unknown, or its time is over.")
        return Caller(CallerKind.TOKEN, *seen, program.account, program.id, program.scopes)
    if credentials.local:
        return Caller(CallerKind.LOCAL, *seen)
    person = doorkeeper.by_session(credentials.session) if credentials.session else None
    if person is None:
        return Caller(CallerKind.ANONYMOUS, *seen)
    return Caller(CallerKind.SESSION, *seen, person.account, person.id)
