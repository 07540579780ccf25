"""Domains, and the records that their DNS has to have."""

from typing import Final, Self

import strawberry

from appliance.accounts.ownership import DnsPurpose
from appliance.accounts.ownership import DnsRecord as FoundRecord
from appliance.model.domain import DeliveryMode, LogLevel, QuarantineAction
from appliance.model.domain import Domain as StoredDomain
from appliance.model.refused import Refused
from control_api.callers import Access
from control_api.context import Info
from control_api.errors import Payload, bad_input, too_complex
from control_api.fields import guarded, mutation, query, shown
from control_api.nouns.aliases import Alias, aliases_of
from control_api.nouns.log import LogOfDomain
from control_api.nouns.node import Node
from control_api.nouns.owned import may_see, the_domain
from control_api.paging import USUAL, Connection, Slice, connection
from control_api.scalars import DateTime

MOST_LOOKED_UP = 10
"""Domains whose records one operation may have looked up, one after the other: each takes as long as the DNS does."""

DELIVERY_MODE: Final = strawberry.enum(DeliveryMode, description="What a 250 from this appliance stands on.")
LOG_LEVEL: Final = strawberry.enum(LogLevel, description="How much the log may remember of a domain's mail.")
QUARANTINE_ACTION: Final = strawberry.enum(
    QuarantineAction, description="What becomes of mail whose author's domain asks to put it aside."
)
DNS_PURPOSE: Final = strawberry.enum(DnsPurpose, description="What a DNS record is for.")


@strawberry.type(description="A record to publish, and what DNS answers now.")
class DnsRecord:
    """One record."""

    purpose: DnsPurpose
    name: str
    type: str
    expected: str = strawberry.field(description="A value that is right; others may be as well.")
    found: list[str]
    ok: bool
    required: bool = strawberry.field(description="True where mail does not flow without it.")
    advice: str | None = strawberry.field(description="What is wrong and how to mend it; null when ok.")

    @classmethod
    def of(cls, record: FoundRecord) -> Self:
        """From what was looked up."""
        return cls(
            purpose=record.purpose,
            name=record.name,
            type=record.type,
            expected=record.expected,
            found=list(record.found),
            ok=record.ok,
            required=record.required,
            advice=record.advice,
        )


@strawberry.type(description="A domain whose mail is forwarded, once its owner has proven to be it.")
class Domain(LogOfDomain, Node):
    """One domain, as it stands in the store."""

    stored: strawberry.Private[StoredDomain]
    looked_up: strawberry.Private[tuple[FoundRecord, ...] | None] = None
    """What DNS has just answered; None where nobody has asked."""

    name: str
    verified: bool = strawberry.field(description="True once the ownership record has been seen in DNS.")
    delivery_mode: DeliveryMode
    log_level: LogLevel
    quarantine_action: QuarantineAction = strawberry.field(
        description="What happens to mail whose author's domain asks for quarantine."
    )
    allow_from_rewrite: bool = strawberry.field(
        description="Whether From may be rewritten where DMARC would otherwise fail at the next hop."
    )
    created_at: DateTime

    @classmethod
    def of(cls, domain: StoredDomain, looked_up: tuple[FoundRecord, ...] | None = None) -> Self:
        """From what is stored."""
        return cls(
            stored_id=domain.id,
            stored=domain,
            looked_up=looked_up,
            name=domain.name,
            verified=domain.verified,
            delivery_mode=domain.delivery_mode,
            log_level=domain.log_level,
            quarantine_action=domain.quarantine_action,
            allow_from_rewrite=domain.allow_from_rewrite,
            created_at=DateTime(domain.created_at),
        )

    @classmethod
    def found(cls, info: Info, stored_id: str) -> Self | None:
        """See Node."""
        domain = info.context.rooms.domains.with_id(stored_id)
        return cls.of(domain) if domain is not None and may_see(info.context.caller, domain) else None

    @shown
    def dns_records(self, info: Info) -> list[DnsRecord]:
        """The records to publish, each with what DNS answers now."""
        if self.looked_up is None:
            memory: dict[object, int] = info.context.memory
            memory[DnsRecord] = memory.get(DnsRecord, 0) + 1
            if memory[DnsRecord] > MOST_LOOKED_UP:
                raise too_complex(
                    f"Ask for the dnsRecords of {MOST_LOOKED_UP} domains at once, and then for the others."
                )
            self.looked_up = info.context.rooms.ownership.records_of(self.stored)
        return [DnsRecord.of(record) for record in self.looked_up]

    @guarded(Access.SIGNED_IN)
    def aliases(
        self,
        info: Info,
        first: int | None = USUAL,
        after: str | None = strawberry.UNSET,
        search: str | None = strawberry.UNSET,
    ) -> Connection[Alias]:
        """Its aliases, the oldest first; those with `search` in their pattern, description or destinations."""
        return aliases_of(info, self.stored, first, after or None, search or "")


def domains_of(info: Info, account_id: str, first: int | None, after: str | None) -> Connection[Domain]:
    """A page of the domains of an account, the oldest first."""
    rooms = info.context.rooms
    wanted = Slice.of(first, after or None)
    return connection(
        rooms.domains.page(account_id, wanted.after, wanted.limit),
        wanted,
        key=lambda domain: domain.id,
        node=Domain.of,
        count=lambda: rooms.domains.count(account_id),
    )


@strawberry.type
class AddDomainPayload(Payload):
    """The domain, which takes mail once it is verified."""

    domain: Domain | None = None


@strawberry.type
class CheckDomainPayload(Payload):
    """The domain, and with its `dnsRecords` what was found."""

    domain: Domain | None = None


@strawberry.type
class UpdateDomainPayload(Payload):
    """The domain as it is now."""

    domain: Domain | None = None


@strawberry.type
class RemoveDomainPayload(Payload):
    """Nothing is left of it."""


@strawberry.type
class DomainQueries:
    """Reading domains."""

    @query(Access.SIGNED_IN)
    def domain(self, info: Info, name: str) -> Domain | None:
        """A domain of the viewer (any domain, for an operator)."""
        caller, domains = info.context.caller, info.context.rooms.domains
        try:
            own = None if caller.account is None else domains.of(caller.account.id, name)
            if own is not None or not caller.is_operator:
                return None if own is None else Domain.of(own)
            other = domains.find(name)
        except Refused as refusal:
            raise bad_input(refusal.reason) from None
        return None if other is None else Domain.of(other)


@strawberry.type
class DomainMutations:
    """Changing domains."""

    @mutation(Access.SIGNED_IN)
    def add_domain(self, info: Info, name: str) -> AddDomainPayload:
        """Host a domain. Mail for it is taken once it is verified: publish its `dnsRecords`, then `checkDomain`."""
        rooms = info.context.rooms
        added = rooms.domains.add(
            name,
            info.context.caller.own_account,
            verified=False,
            delivery_mode=rooms.configuration.delivery.mode,
            log_level=rooms.configuration.log.level,
        )
        return AddDomainPayload(domain=Domain.of(added))

    @mutation(Access.SIGNED_IN)
    def check_domain(self, info: Info, id: strawberry.ID) -> CheckDomainPayload:
        """Look the domain's records up in DNS now; with the ownership record there, it is verified."""
        domain, found = info.context.rooms.ownership.check(the_domain(info, id))
        return CheckDomainPayload(domain=Domain.of(domain, found))

    @mutation(Access.SIGNED_IN)
    def update_domain(
        self,
        info: Info,
        id: strawberry.ID,
        delivery_mode: DeliveryMode | None = strawberry.UNSET,
        log_level: LogLevel | None = strawberry.UNSET,
        quarantine_action: QuarantineAction | None = strawberry.UNSET,
        allow_from_rewrite: bool | None = strawberry.UNSET,
    ) -> UpdateDomainPayload:
        """Set what is given of a domain."""
        changed = info.context.rooms.domains.update(
            the_domain(info, id),
            delivery_mode=delivery_mode or None,
            log_level=log_level or None,
            quarantine_action=quarantine_action or None,
            allow_from_rewrite=None if allow_from_rewrite is strawberry.UNSET else allow_from_rewrite,
        )
        return UpdateDomainPayload(domain=Domain.of(changed))

    @mutation(Access.SIGNED_IN)
    def remove_domain(self, info: Info, id: strawberry.ID) -> RemoveDomainPayload:
        """Remove a domain with its aliases and its log. Mail for it that is under way goes on, held or not."""
        removed = info.context.rooms.domains.erase(the_domain(info, id))
        if removed.verified:
            info.context.rooms.let_go({removed.name: removed.id})
        return RemoveDomainPayload()
