"""Aliases, the destinations behind them, and the word of those whose mailboxes these are."""

from typing import TYPE_CHECKING, Annotated, Final, Self

import strawberry

from appliance.accounts.aliases import UNSET, AliasChanges, ListedAlias
from appliance.model.domain import Alias as StoredAlias
from appliance.model.domain import AliasAction, AliasKind
from appliance.model.domain import Domain as StoredDomain
from control_api.callers import Access
from control_api.context import Info
from control_api.errors import Payload, UserError
from control_api.fields import mutation, shown
from control_api.nouns.node import Node
from control_api.nouns.owned import forget_standing, may_see, standing_of, the_alias, the_domain
from control_api.paging import Connection, Slice, connection
from control_api.scalars import DateTime, instant

if TYPE_CHECKING:
    from control_api.nouns.domains import Domain

ALIAS_KIND: Final = strawberry.enum(AliasKind, description="How a pattern takes local parts.")
ALIAS_ACTION: Final = strawberry.enum(AliasAction, description="What becomes of a message that an alias takes.")


@strawberry.type(description="Where an alias leads to: an email address.")
class Destination:
    """One target."""

    target: str
    confirmed: bool = strawberry.field(
        description="Its owner has confirmed it; nothing is forwarded to one that is not confirmed."
    )


@strawberry.type(description="A pattern of local parts of a domain, and what becomes of their mail.")
class Alias(Node):
    """One alias, as it stands in the store."""

    stored: strawberry.Private[StoredAlias]
    at: strawberry.Private[StoredDomain]

    pattern: str = strawberry.field(
        description="The local part: `sales`, `sales*`, `*`, or `/^support-(.+)$/` (RE2 syntax)."
    )
    kind: AliasKind
    action: AliasAction
    enabled: bool
    expires_at: DateTime | None = strawberry.field(description="From then on it refuses; null: never.")
    remaining_uses: int | None = strawberry.field(description="How many more messages it accepts; null for no limit.")
    description: str | None
    created_at: DateTime

    @classmethod
    def of(cls, alias: StoredAlias, domain: StoredDomain) -> Self:
        """From what is stored."""
        return cls(
            stored_id=alias.id,
            stored=alias,
            at=domain,
            pattern=alias.pattern,
            kind=alias.kind,
            action=alias.action,
            enabled=alias.enabled,
            expires_at=instant(alias.expires_at),
            remaining_uses=alias.remaining_uses,
            description=alias.description,
            created_at=DateTime(alias.created_at),
        )

    @classmethod
    def found(cls, info: Info, stored_id: str) -> Self | None:
        """See Node."""
        found = info.context.rooms.aliases.with_id(stored_id)
        return cls.of(*found) if found is not None and may_see(info.context.caller, found[1]) else None

    @shown
    def domain(self) -> Annotated["Domain", strawberry.lazy("control_api.nouns.domains")]:
        """Whose local parts these are."""
        from control_api.nouns.domains import Domain  # it shows its aliases: each of the two needs the other

        return Domain.of(self.at)

    @shown
    def destinations(self, info: Info) -> list[Destination]:
        """Where its mail goes."""
        standing = standing_of(info, self.at.account_id)
        return [
            Destination(target=target, confirmed=standing.covers(self.stored, target)) for target in self.stored.targets
        ]


def aliases_of(
    info: Info, domain: StoredDomain, first: int | None, after: str | None, search: str
) -> Connection[Alias]:
    """A page of the aliases of a domain, the oldest first."""
    rooms = info.context.rooms
    wanted = Slice.of(first, after)
    return connection(
        rooms.aliases.page(domain.id, wanted.after, wanted.limit, search),
        wanted,
        key=lambda alias: alias.id,
        node=lambda alias: Alias.of(alias, domain),
        count=lambda: rooms.aliases.count(domain.id, search),
    )


@strawberry.input(description="A new alias.")
class CreateAliasInput:
    """What is asked for."""

    domain_id: strawberry.ID
    pattern: str = strawberry.field(
        description="`sales`, `sales*`, `*`, or `/^support-(.+)$/` (RE2 syntax), whose groups are `$1` to `$9` in "
        "destinations: behind the + of one, or at a domain that the account has verified."
    )
    destinations: list[str] | None = strawberry.field(default_factory=list)
    action: AliasAction | None = AliasAction.FORWARD
    enabled: bool | None = True
    expires_at: DateTime | None = strawberry.UNSET
    remaining_uses: int | None = strawberry.UNSET
    description: str | None = strawberry.UNSET


@strawberry.input(
    description="What to set of an alias; what is not given stays. Null takes away an expiry, a limit of uses or "
    "a description, and else is the same as nothing."
)
class UpdateAliasInput:
    """What is asked for."""

    pattern: str | None = strawberry.UNSET
    destinations: list[str] | None = strawberry.field(
        default=strawberry.UNSET,
        description="Given as they are already: owners who have not confirmed yet are written to once more.",
    )
    action: AliasAction | None = strawberry.UNSET
    enabled: bool | None = strawberry.UNSET
    expires_at: DateTime | None = strawberry.UNSET
    remaining_uses: int | None = strawberry.UNSET
    description: str | None = strawberry.UNSET


@strawberry.type
class CreateAliasPayload(Payload):
    """The new alias. Where a letter to a destination's owner could not be sent, that is among the errors."""

    alias: Alias | None = None


@strawberry.type
class UpdateAliasPayload(Payload):
    """The alias as it is now."""

    alias: Alias | None = None


@strawberry.type
class DeleteAliasPayload(Payload):
    """Nothing is left of it."""


@strawberry.type
class ConfirmDestinationPayload(Payload):
    """What was agreed to."""

    destination: Destination | None = None


@strawberry.type
class NeverAskAgainPayload(Payload):
    """Nobody asks any more."""


@strawberry.type
class AliasMutations:
    """Changing aliases."""

    @mutation(Access.SIGNED_IN)
    def create_alias(self, info: Info, input: CreateAliasInput) -> CreateAliasPayload:
        """Make an alias. Owners of destinations that are not confirmed get a letter with a link."""
        domain = the_domain(info, input.domain_id)
        made = info.context.rooms.aliases.create(
            domain,
            input.pattern,
            input.destinations or [],
            action=input.action or AliasAction.FORWARD,
            enabled=input.enabled is not False,
            expires_at=input.expires_at or None,
            remaining_uses=None if input.remaining_uses is strawberry.UNSET else input.remaining_uses,
            description=input.description or None,
        )
        forget_standing(info, domain.account_id)
        return CreateAliasPayload(alias=Alias.of(made.alias, made.domain), errors=_not_asked(made))

    @mutation(Access.SIGNED_IN)
    def update_alias(self, info: Info, id: strawberry.ID, input: UpdateAliasInput) -> UpdateAliasPayload:
        """Set what is given of an alias."""
        alias, domain = the_alias(info, id)
        changes = AliasChanges(
            pattern=input.pattern or None,
            destinations=None if input.destinations is strawberry.UNSET else input.destinations,
            action=input.action or None,
            enabled=None if input.enabled is strawberry.UNSET else input.enabled,
            expires_at=UNSET if input.expires_at is strawberry.UNSET else input.expires_at,
            remaining_uses=UNSET if input.remaining_uses is strawberry.UNSET else input.remaining_uses,
            description=UNSET if input.description is strawberry.UNSET else input.description,
        )
        changed = info.context.rooms.aliases.update(alias, domain, changes)
        forget_standing(info, domain.account_id)
        return UpdateAliasPayload(alias=Alias.of(changed.alias, changed.domain), errors=_not_asked(changed))

    @mutation(Access.SIGNED_IN)
    def delete_alias(self, info: Info, id: strawberry.ID) -> DeleteAliasPayload:
        """Remove an alias. Mail that is under way already is still delivered."""
        info.context.rooms.aliases.delete(*the_alias(info, id))
        return DeleteAliasPayload()

    @mutation(Access.ANYONE, scope=None)
    def confirm_destination(self, info: Info, token: str) -> ConfirmDestinationPayload:
        """Agree to be forwarded to, with the token that was mailed to the destination."""
        agreed = info.context.rooms.consent.confirm(token)
        return ConfirmDestinationPayload(destination=Destination(target=agreed.target, confirmed=True))

    @mutation(Access.ANYONE, scope=None)
    def never_ask_again(self, info: Info, token: str) -> NeverAskAgainPayload:
        """Get no such letter any more, whoever asks for it, with the token that was mailed to the destination."""
        info.context.rooms.consent.never_again(token)
        return NeverAskAgainPayload()


def _not_asked(made: ListedAlias) -> list[UserError]:
    if not made.unasked:
        return []
    text = (
        f"The letter to {', '.join(made.unasked)} could not be sent now. Set the destinations of the alias again "
        "later: that sends it once more."
    )
    return [UserError(code="LETTER_NOT_SENT", message=text, field=["destinations"])]
