"""What people and programs come in with once they are known: sessions and API tokens."""

from typing import Final, Self

import strawberry

from appliance.model.access import ApiToken as StoredToken
from appliance.model.access import Scope
from appliance.model.access import Session as StoredSession
from control_api.callers import Access
from control_api.context import Cookie, Info
from control_api.errors import Payload, not_found
from control_api.fields import mutation
from control_api.ids import stored_id
from control_api.nouns.node import Node
from control_api.scalars import DateTime, instant

SCOPE: Final = strawberry.enum(Scope, description="What a token may do; OPERATE only for operators.")


@strawberry.type(description="A program's way in. Its secret was shown once.")
class ApiToken(Node):
    """One token, without its secret."""

    name: str
    scopes: list[Scope]
    created_at: DateTime
    expires_at: DateTime | None = strawberry.field(description="null: never.")
    last_used_at: DateTime | None = strawberry.field(description="To the minute; null where it has not been used yet.")

    @classmethod
    def of(cls, token: StoredToken) -> Self:
        """From what is stored."""
        return cls(
            stored_id=token.id,
            name=token.name,
            scopes=[scope for scope in Scope if scope in token.scopes],
            created_at=DateTime(token.created_at),
            expires_at=instant(token.expires_at),
            last_used_at=instant(token.last_used_at),
        )

    @classmethod
    def found(cls, info: Info, stored_id: str) -> Self | None:
        """See Node."""
        tokens = info.context.rooms.entrance.api_tokens.of(info.context.caller.own_account.id)
        return next((cls.of(token) for token in tokens if token.id == stored_id), None)


@strawberry.type(description="Somebody who is signed in with a browser.")
class Session(Node):
    """One session, without its secret."""

    created_at: DateTime
    last_seen_at: DateTime = strawberry.field(description="To the minute.")
    user_agent: str = strawberry.field(description="What the browser calls itself, cut short.")
    current: bool = strawberry.field(description="Whether it is the one that asks.")

    @classmethod
    def of(cls, session: StoredSession, info: Info) -> Self:
        """From what is stored, as the caller sees it."""
        return cls(
            stored_id=session.id,
            created_at=DateTime(session.created_at),
            last_seen_at=DateTime(session.last_seen_at),
            user_agent=session.user_agent,
            current=session.id == info.context.caller.credential_id,
        )

    @classmethod
    def found(cls, info: Info, stored_id: str) -> Self | None:
        """See Node."""
        sessions = info.context.rooms.entrance.sessions.of(info.context.caller.own_account)
        return next((cls.of(session, info) for session in sessions if session.id == stored_id), None)


@strawberry.type
class EndSessionPayload(Payload):
    """It lets nobody in any more."""


@strawberry.type
class CreateApiTokenPayload(Payload):
    """The token, and its secret, which is shown this once."""

    api_token: ApiToken | None = None
    secret: str | None = strawberry.field(
        default=None, description="For `Authorization: Bearer`. Nobody sees it again."
    )


@strawberry.type
class RevokeApiTokenPayload(Payload):
    """It lets nobody in any more."""


@strawberry.type
class CredentialMutations:
    """Ending sessions, making and revoking tokens."""

    @mutation(Access.IN_PERSON)
    def end_session(self, info: Info, id: strawberry.ID) -> EndSessionPayload:
        """End one of your sessions."""
        context = info.context
        wanted = stored_id(id, "Session")
        if not context.rooms.entrance.sessions.end(context.caller.own_account.id, wanted):
            raise not_found("session")
        if wanted == context.caller.credential_id and context.over_http:
            context.take_cookie_away(Cookie.SESSION)
        return EndSessionPayload()

    @mutation(Access.IN_PERSON)
    def create_api_token(
        self, info: Info, name: str, scopes: list[Scope], expires_at: DateTime | None = strawberry.UNSET
    ) -> CreateApiTokenPayload:
        """Make a token for a program. Its secret is shown once."""
        tokens = info.context.rooms.entrance.api_tokens
        secret, token = tokens.create(info.context.caller.own_account, name, scopes, expires_at or None)
        return CreateApiTokenPayload(api_token=ApiToken.of(token), secret=secret)

    @mutation(Access.SIGNED_IN)
    def revoke_api_token(self, info: Info, id: strawberry.ID) -> RevokeApiTokenPayload:
        """Revoke one of your tokens. A program may revoke its own."""
        account = info.context.caller.own_account
        if not info.context.rooms.entrance.api_tokens.revoke(account.id, stored_id(id, "ApiToken")):
            raise not_found("api token")
        return RevokeApiTokenPayload()
