"""Help requests, and who has read whose log for them."""

from typing import TYPE_CHECKING, Annotated, Self

import strawberry

from appliance.model.help import HelpReply as StoredReply
from appliance.model.help import HelpRequest as StoredRequest
from appliance.model.help import LogAccess as StoredAccess
from appliance.storage.records import Page
from control_api.callers import Access, Caller
from control_api.context import Info
from control_api.errors import Payload, not_found
from control_api.fields import guarded, mutation, query
from control_api.ids import stored_id
from control_api.nouns.node import Node
from control_api.paging import USUAL, Connection, Slice, connection
from control_api.scalars import DateTime, instant

if TYPE_CHECKING:
    from control_api.nouns.accounts import Account


@strawberry.type(description="One answer to a help request.")
class HelpReply:
    """One reply, as it stands in the store."""

    at: DateTime
    from_operator: bool
    body: str

    @classmethod
    def of(cls, reply: StoredReply) -> Self:
        """From what is stored."""
        return cls(at=DateTime(reply.created_at), from_operator=reply.from_operator, body=reply.body)


@strawberry.type(description="A question to the operators, who may read the account's log for it where it says so.")
class HelpRequest(Node):
    """One request, as it stands in the store."""

    stored: strawberry.Private[StoredRequest]

    subject: str
    body: str
    open: bool
    log_access_until: DateTime | None = strawberry.field(
        description="Until when operators may read this account's delivery log; null: they may not."
    )
    created_at: DateTime

    @classmethod
    def of(cls, request: StoredRequest) -> Self:
        """From what is stored."""
        return cls(
            stored_id=request.id,
            stored=request,
            subject=request.subject,
            body=request.body,
            open=request.open,
            log_access_until=instant(request.log_access_until),
            created_at=DateTime(request.created_at),
        )

    @classmethod
    def found(cls, info: Info, stored_id: str) -> Self | None:
        """See Node."""
        request = info.context.rooms.help.request(stored_id)
        return cls.of(request) if request is not None and _may_see(info.context.caller, request) else None

    @guarded(Access.SIGNED_IN)
    def account(self, info: Info) -> Annotated["Account", strawberry.lazy("control_api.nouns.accounts")]:
        """Who asks."""
        from control_api.nouns.accounts import Account

        account = info.context.rooms.accounts.with_id(self.stored.account_id)
        if account is None:
            raise not_found("account")  # deleted in this moment, and the request with it
        return Account.of(account)

    @guarded(Access.SIGNED_IN)
    def replies(self, info: Info) -> list[HelpReply]:
        """What has been answered, in order."""
        return [HelpReply.of(reply) for reply in info.context.rooms.help.replies(self.stored_id)]


@strawberry.type(description="One time that an operator has read an account's delivery log.")
class LogAccess:
    """One reading, as it stands in the store."""

    at: DateTime
    operator: str = strawberry.field(description="Who it was.")
    help_request: HelpRequest = strawberry.field(description="What allowed it.")
    query: str = strawberry.field(description="What was asked for.")

    @classmethod
    def of(cls, access: StoredAccess, request: StoredRequest) -> Self:
        """From what is stored."""
        return cls(
            at=DateTime(access.created_at),
            operator=access.operator,
            help_request=HelpRequest.of(request),
            query=access.query,
        )


def help_requests_of(info: Info, account_id: str) -> list[HelpRequest]:
    """The requests of an account, the latest first."""
    return [HelpRequest.of(request) for request in info.context.rooms.help.of_account(account_id)]


def log_accesses_of(info: Info, account_id: str) -> list[LogAccess]:
    """Every time an operator has read the log of an account, the latest first."""
    return [LogAccess.of(access, request) for access, request in info.context.rooms.help.accesses(account_id)]


def _may_see(caller: Caller, request: StoredRequest) -> bool:
    return caller.is_operator or _is_own(caller, request)


def _is_own(caller: Caller, request: StoredRequest) -> bool:
    return caller.account is not None and caller.account.id == request.account_id


@strawberry.type
class AskForHelpPayload(Payload):
    """The request as it is now."""

    help_request: HelpRequest | None = None


@strawberry.type
class HelpQueries:
    """Reading help requests."""

    @query(Access.OPERATOR)
    def help_requests(
        self,
        info: Info,
        first: int | None = USUAL,
        after: str | None = strawberry.UNSET,
        open: bool | None = strawberry.UNSET,
    ) -> Connection[HelpRequest]:
        """All help requests, or those that are open or closed, the latest first. For operators.

        A member reads own requests through `viewer`.
        """
        desk = info.context.rooms.help
        wanted = Slice.of(first, after or None)
        which = None if open is strawberry.UNSET else open
        return connection(
            desk.page(Page(wanted.after, wanted.limit, newest_first=True), open_ones=which),
            wanted,
            key=lambda request: request.id,
            node=HelpRequest.of,
            count=lambda: desk.count(open_ones=which),
        )


@strawberry.type
class HelpMutations:
    """Asking, answering, and letting operators read the log."""

    @mutation(Access.SIGNED_IN)
    def ask_for_help(
        self, info: Info, subject: str, body: str, log_access_until: DateTime | None = strawberry.UNSET
    ) -> AskForHelpPayload:
        """Ask the operators. Until `logAccessUntil` they may read your delivery log, and you see each time they do."""
        until = None if log_access_until is strawberry.UNSET else log_access_until
        request = info.context.rooms.help.ask(info.context.caller.own_account, subject, body, until)
        return AskForHelpPayload(help_request=HelpRequest.of(request))

    @mutation(Access.SIGNED_IN)
    def set_log_access(
        self, info: Info, help_request_id: strawberry.ID, until: DateTime | None = strawberry.UNSET
    ) -> AskForHelpPayload:
        """Say until when operators may read your delivery log for this request; null ends that at once."""
        desk = info.context.rooms.help
        request = desk.request(stored_id(help_request_id, "HelpRequest"))
        # Not for operators: nobody lets themselves in.
        if request is None or not _is_own(info.context.caller, request):
            raise not_found("help request")
        changed = desk.set_log_access(request.id, None if until is strawberry.UNSET else until)
        return AskForHelpPayload(help_request=HelpRequest.of(changed))

    @mutation(Access.SIGNED_IN)
    def reply_to_help_request(
        self, info: Info, id: strawberry.ID, body: str, close: bool | None = False
    ) -> AskForHelpPayload:
        """Add to a request of your own, or answer one as an operator; and close it with that, if you like."""
        desk, caller = info.context.rooms.help, info.context.caller
        request = desk.request(stored_id(id, "HelpRequest"))
        if request is None or not _may_see(caller, request):
            raise not_found("help request")
        replied = desk.reply(request.id, body, from_operator=not _is_own(caller, request), close=bool(close))
        return AskForHelpPayload(help_request=HelpRequest.of(replied))
