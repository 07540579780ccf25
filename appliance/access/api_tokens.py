"""API tokens: what programs of an account come in with."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from appliance.access.drawn import draw, hash_of
from appliance.model.access import ApiToken, Scope
from appliance.model.account import Account, Role
from appliance.model.ids import IdSource
from appliance.model.refused import Refused
from appliance.model.time import MINUTE_MS, Clock
from appliance.privacy.declarations import API_TOKENS
from appliance.storage.records import Delete, Insert, RecordStore, StoreUnavailable, Update

PREFIX = "onward_"
"""By it a token is known as one of ours wherever it turns up: in a log, in a repository, to a scanner for secrets."""

MOST_OF_ONE = 100
"""Tokens of one account. Who has more programs can share them, or has forgotten to revoke."""

MAX_NAME = 100
"""Characters of what a token is called."""

USED_EVERY_MS = MINUTE_MS
"""How exactly it is known when a token was last used: a write for each request would be too dear."""


class ApiTokens:
    """The API tokens of a record store. Every method may raise StoreUnavailable."""

    def __init__(self, records: RecordStore, clock: Clock, ids: IdSource) -> None:
        self._records = records
        self._clock = clock
        self._ids = ids

    def create(
        self, account: Account, name: str, scopes: Collection[Scope], expires_at: int | None
    ) -> tuple[str, ApiToken]:
        """Make a token; returns its secret, which nobody will see again. Raises Refused."""
        wanted = name.strip()
        if not wanted or len(wanted) > MAX_NAME or not wanted.isprintable():
            raise Refused(f"A token needs a name, of at most {MAX_NAME} printable characters.", "name")
        if not scopes:
            raise Refused("A token without a scope could do nothing: name at least one.", "scopes")
        if Scope.OPERATE in scopes and account.role is not Role.OPERATOR:
            raise Refused("The scope OPERATE is for tokens of operators.", "scopes", "FORBIDDEN")
        now = self._clock()
        if expires_at is not None and expires_at <= now:
            raise Refused("The token would have expired already: choose a later time.", "expiresAt")
        if self._records.count(API_TOKENS, {"account_id": account.id}) >= MOST_OF_ONE:
            raise Refused(f"An account has at most {MOST_OF_ONE} tokens: revoke one first.")
        secret = PREFIX + draw()
        token = ApiToken(self._ids(), account.id, wanted, frozenset(scopes), now, expires_at)
        row = {
            "id": token.id,
            "account_id": token.account_id,
            "name": token.name,
            "scopes": sorted(scope.value for scope in token.scopes),
            "secret_hash": hash_of(secret),
            "created_at": token.created_at,
            "expires_at": token.expires_at,
        }
        self._records.apply([Insert(API_TOKENS, row)])
        return secret, token

    def of(self, account_id: str) -> list[ApiToken]:
        """The tokens of an account, the oldest first; with those that have expired of late."""
        return [_token(row) for row in self._records.find(API_TOKENS, {"account_id": account_id})]

    def revoke(self, account_id: str, token_id: str) -> bool:
        """Erase a token. Returns whether there was one."""
        return self._records.apply([Delete(API_TOKENS, {"id": token_id, "account_id": account_id})]) == [1]

    def find(self, secret: str) -> ApiToken | None:
        """The token with this secret, which is thereby used; None where there is none, or no more."""
        if not secret.startswith(PREFIX):
            return None
        row = self._records.get(API_TOKENS, {"secret_hash": hash_of(secret)})
        if row is None:
            return None
        token = _token(row)
        now = self._clock()
        if token.expires_at is not None and token.expires_at <= now:
            return None
        if token.last_used_at is None or now - token.last_used_at >= USED_EVERY_MS:
            # A disk that takes no more must not turn away who only reads.
            with suppress(StoreUnavailable):
                self._records.apply([Update(API_TOKENS, {"id": token.id}, {"last_used_at": now})])
        return token


def _token(row: Mapping[str, Any]) -> ApiToken:
    return ApiToken(
        id=row["id"],
        account_id=row["account_id"],
        name=row["name"],
        scopes=frozenset(map(Scope, row["scopes"])),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
    )
