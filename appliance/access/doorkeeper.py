"""Tells who is behind a cookie or a token: one look for the credential, one for the account."""

from dataclasses import dataclass

from appliance.access.api_tokens import ApiTokens
from appliance.access.rows import account_where
from appliance.access.sessions import Sessions
from appliance.model.access import Scope
from appliance.model.account import Account
from appliance.storage.records import RecordStore


@dataclass(frozen=True, slots=True)
class Known:
    """An account behind a session."""

    account: Account
    id: str
    """Of the session."""


@dataclass(frozen=True, slots=True)
class KnownByToken:
    """An account behind an API token."""

    account: Account
    id: str
    """Of the token."""
    scopes: frozenset[Scope]


class Doorkeeper:
    """Thread-safe. Every method may raise StoreUnavailable."""

    def __init__(self, records: RecordStore, sessions: Sessions, api_tokens: ApiTokens) -> None:
        self._records = records
        self._sessions = sessions
        self._api_tokens = api_tokens

    def by_session(self, secret: str) -> Known | None:
        """Who is behind the secret of a session's cookie; None where nobody is, or nobody any more."""
        session = self._sessions.find(secret)
        if session is None:
            return None
        account = account_where(self._records, {"id": session.account_id})
        if account is None or not session.is_of(account):
            return None
        return Known(account, session.id)

    def by_token(self, secret: str) -> KnownByToken | None:
        """Who is behind an API token; None where nobody is, or nobody any more."""
        token = self._api_tokens.find(secret)
        if token is None:
            return None
        account = account_where(self._records, {"id": token.account_id})
        return None if account is None else KnownByToken(account, token.id, token.scopes)
