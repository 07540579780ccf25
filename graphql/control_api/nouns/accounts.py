"""Accounts: who owns domains, as they see themselves and as operators see them."""

from typing import Final, Self

import strawberry

from appliance.model.access import Scope
from appliance.model.account import Account as StoredAccount
from appliance.model.account import Plan as ConfiguredPlan
from appliance.model.account import Role
from control_api.callers import Access
from control_api.context import Info
from control_api.errors import Payload, forbidden, not_found
from control_api.fields import mutation, query, shown
from control_api.ids import stored_id
from control_api.nouns.credentials import ApiToken, Session
from control_api.nouns.domains import Domain, domains_of
from control_api.nouns.help import HelpRequest, LogAccess, help_requests_of, log_accesses_of
from control_api.nouns.node import Node
from control_api.paging import USUAL, Connection, Slice, connection
from control_api.scalars import DateTime

ROLE: Final = strawberry.enum(Role, description="What an account may see: own domains, or the whole appliance.")


@strawberry.type(description="What an account may use; plans are defined in the configuration.")
class Plan:
    """One plan."""

    name: str
    max_message_bytes: int
    max_domains: int
    max_aliases_per_domain: int
    max_messages_per_day: int
    priority: int = strawberry.field(description="Higher is delivered first.")

    @classmethod
    def named(cls, info: Info, name: str) -> Self:
        """The plan of this name; one that the configuration has lost allows nothing more."""
        plan = info.context.rooms.plans.get(name) or ConfiguredPlan(name, 0, 0, 0, 0, 0)
        return cls(
            name=plan.name,
            max_message_bytes=plan.max_message_octets,
            max_domains=plan.max_domains,
            max_aliases_per_domain=plan.max_aliases_per_domain,
            max_messages_per_day=plan.max_messages_per_day,
            priority=plan.priority,
        )


@strawberry.type(description="A person who owns domains.")
class Account(Node):
    """One account, as it stands in the store."""

    stored: strawberry.Private[StoredAccount]

    email: str
    email_verified: bool = strawberry.field(description="Until then nobody can sign in to it.")
    role: Role
    created_at: DateTime

    @classmethod
    def of(cls, account: StoredAccount) -> Self:
        """From what is stored."""
        return cls(
            stored_id=account.id,
            stored=account,
            email=account.email,
            email_verified=account.email_verified,
            role=account.role,
            created_at=DateTime(account.created_at),
        )

    @classmethod
    def found(cls, info: Info, stored_id: str) -> Self | None:
        """See Node."""
        caller = info.context.caller
        if not caller.is_operator and (caller.account is None or caller.account.id != stored_id):
            return None
        account = info.context.rooms.accounts.with_id(stored_id)
        return None if account is None else cls.of(account)

    @shown
    def plan(self, info: Info) -> Plan:
        """What it may use."""
        return Plan.named(info, self.stored.plan)

    @shown
    def two_factor_enabled(self, info: Info) -> bool:
        """Whether signing in takes a one-time code."""
        return info.context.rooms.entrance.two_factors.is_enabled(self.stored_id)

    @shown
    def domains(
        self, info: Info, first: int | None = USUAL, after: str | None = strawberry.UNSET
    ) -> Connection[Domain]:
        """Its domains, the oldest first."""
        self._require_reader(info)
        return domains_of(info, self.stored_id, first, after or None)

    @shown
    def api_tokens(self, info: Info) -> list[ApiToken]:
        """Its tokens, with those that have expired of late. For its owner alone."""
        self._require_owner(info)
        return [ApiToken.of(token) for token in info.context.rooms.entrance.api_tokens.of(self.stored_id)]

    @shown
    def sessions(self, info: Info) -> list[Session]:
        """Who is signed in to it, the one seen last at first. For its owner alone."""
        self._require_owner(info)
        return [Session.of(session, info) for session in info.context.rooms.entrance.sessions.of(self.stored)]

    @shown
    def help_requests(self, info: Info) -> list[HelpRequest]:
        """What it has asked the operators, the latest first."""
        self._require_reader(info)
        return help_requests_of(info, self.stored_id)

    @shown
    def log_accesses(self, info: Info) -> list[LogAccess]:
        """Every time an operator read this account's logs: who, when, under which help request. The latest first."""
        self._require_reader(info)
        return log_accesses_of(info, self.stored_id)

    def _require_reader(self, info: Info) -> None:
        """What an account has is more than the account itself, which some are answered who may not read all that: who
        comes with a mailed link and no second factor, and a token that may only write."""
        caller = info.context.caller
        caller.require(Access.SIGNED_IN, Scope.READ)
        if not caller.is_operator:
            self._require_owner(info)

    def _require_owner(self, info: Info) -> None:
        caller = info.context.caller
        caller.require(Access.SIGNED_IN, Scope.READ)
        if caller.account_id != self.stored_id:
            raise forbidden("Only the owner of the account sees this.")


@strawberry.type
class SetPlanPayload(Payload):
    """The account with its plan."""

    account: Account | None = None


@strawberry.type
class AccountQueries:
    """Reading accounts."""

    @query(Access.ANYONE)
    def viewer(self, info: Info) -> Account | None:
        """The account behind this session or token; null when nobody is signed in."""
        account = info.context.caller.account
        return None if account is None else Account.of(account)

    @query(Access.OPERATOR)
    def accounts(
        self,
        info: Info,
        first: int | None = USUAL,
        after: str | None = strawberry.UNSET,
        search: str | None = strawberry.UNSET,
    ) -> Connection[Account]:
        """All accounts, the oldest first; those with `search` in their address. For operators."""
        accounts = info.context.rooms.accounts
        wanted = Slice.of(first, after or None)
        return connection(
            accounts.page(wanted.after, wanted.limit, search or ""),
            wanted,
            key=lambda account: account.id,
            node=Account.of,
            count=lambda: accounts.count(search or ""),
        )


@strawberry.type
class AccountMutations:
    """Changing accounts."""

    @mutation(Access.OPERATOR)
    def set_plan(self, info: Info, account_id: strawberry.ID, plan: str) -> SetPlanPayload:
        """Give an account another plan of the configuration. For operators."""
        account = info.context.rooms.accounts.set_plan(stored_id(account_id, "Account"), plan)
        if account is None:
            raise not_found("account")
        return SetPlanPayload(account=Account.of(account))
