"""What is stored and why, the warrant canary, and what an account may ask of its own data: all of it, and its end."""

from collections.abc import Mapping
from typing import Any, Final, Self

import strawberry

from appliance.accounts.deletion import QueuedMail
from appliance.configuration import retention_ms
from appliance.model.time import SECOND_MS
from appliance.privacy.canary import Canary
from appliance.privacy.declarations import DELIVERIES, Collection
from appliance.privacy.policy import Holdings, StoredData, holdings, policy
from appliance.privacy.receipts import Receipt
from appliance.wire import NotRunning, WireError
from control_api.callers import Access
from control_api.context import Cookie, Info
from control_api.errors import Payload
from control_api.fields import mutation, query, shown
from control_api.scalars import DateTime, instant

QUEUED_MAIL: Final = strawberry.enum(
    QueuedMail, description="What becomes of mail that is under way when its account is deleted."
)


@strawberry.type(description="One class of stored data. Anything not listed here cannot be written.")
class DataCollection:
    """One class of data, as it is declared."""

    declared: strawberry.Private[Collection]

    name: str
    store: str
    purpose: str
    fields: list[str]
    retention_seconds: int | None = strawberry.field(description="null: kept until its owner deletes it.")

    @classmethod
    def of(cls, stored: StoredData) -> Self:
        """From what is declared, with the times of the configuration."""
        collection = stored.collection
        return cls(
            declared=collection,
            name=collection.name,
            store=collection.store.value,
            purpose=collection.purpose,
            fields=[field.name for field in collection.fields],
            retention_seconds=None if stored.retention_ms is None else stored.retention_ms // SECOND_MS,
        )

    @shown
    def count(self, info: Info) -> int | None:
        """How many are stored now; for operators, and null where that is not known here."""
        held = self._held(info)
        return None if held is None else held.count

    @shown
    def oldest(self, info: Info) -> DateTime | None:
        """Since when the oldest is stored; for operators."""
        held = self._held(info)
        return None if held is None else instant(held.oldest)

    def _held(self, info: Info) -> Holdings | None:
        if not info.context.caller.is_operator:
            return None
        memory, key = info.context.memory, (holdings, self.name)
        if key not in memory:
            memory[key] = (
                _under_way(info) if self.declared is DELIVERIES else holdings(info.context.rooms.records, self.declared)
            )
        held = memory[key]
        assert held is None or isinstance(held, Holdings)
        return held


def _under_way(info: Info) -> Holdings | None:
    """Deliveries are the engine's to count."""
    told: Mapping[str, Any]
    try:
        told = next(info.context.rooms.engine("status"), {})
    except (NotRunning, WireError):
        return None
    return Holdings(told["queued"], told["oldestQueuedAt"]) if "queued" in told else None


@strawberry.type(description="What this appliance stores, why, where and for how long.")
class PrivacyPolicy:
    """The policy of the running configuration."""

    text: str = strawberry.field(description="The policy as a page of text in Markdown.")
    digest: str = strawberry.field(
        description="SHA-256 of the canonical policy in hexadecimal digits, so that two answers can be compared."
    )
    collections: list[DataCollection]


@strawberry.type(description="Statements that somebody signs away from the appliance, again and again.")
class WarrantCanary:
    """The canary that was published last."""

    statements: list[str]
    issued_at: DateTime
    expires_at: DateTime
    expired: bool = strawberry.field(description="True once expiresAt has passed: treat as an alarm.")
    signature: str = strawberry.field(description="Ed25519, in base64, over the octets of signedText.")
    public_key: str = strawberry.field(description="In base64. Compare it with the one that you know.")
    signed_text: str = strawberry.field(description="Canonical JSON.")

    @classmethod
    def of(cls, canary: Canary, now: int) -> Self:
        """From what is stored."""
        return cls(
            statements=list(canary.statements),
            issued_at=DateTime(canary.issued_at),
            expires_at=DateTime(canary.expires_at),
            expired=canary.expired(now),
            signature=canary.signature,
            public_key=canary.public_key,
            signed_text=canary.signed_text,
        )


@strawberry.type(description="How much of one class of data was removed.")
class RemovedData:
    """One line of a receipt."""

    collection: str
    count: int


@strawberry.type(description="What went with a deleted account, signed. It names nobody.")
class DeletionReceipt:
    """A receipt."""

    deleted_at: DateTime
    removed: list[RemovedData]
    signature: str = strawberry.field(description="Ed25519, in base64, over the octets of signedText.")
    public_key: str = strawberry.field(description="This appliance's, in base64.")
    signed_text: str = strawberry.field(description="Canonical JSON.")

    @classmethod
    def of(cls, receipt: Receipt) -> Self:
        """From what was signed."""
        return cls(
            deleted_at=DateTime(receipt.deleted_at),
            removed=[RemovedData(collection=each.collection, count=each.count) for each in receipt.removed],
            signature=receipt.signature,
            public_key=receipt.public_key,
            signed_text=receipt.signed_text,
        )


@strawberry.type
class DeleteAccountPayload(Payload):
    """The receipt; the account is gone, and its sessions with it."""

    receipt: DeletionReceipt | None = None


@strawberry.type
class ExportAccountPayload(Payload):
    """One JSON document."""

    json: str | None = None


@strawberry.type
class PublishCanaryPayload(Payload):
    """The canary as everybody sees it now."""

    warrant_canary: WarrantCanary | None = None


@strawberry.type
class PrivacyQueries:
    """The policy and the canary."""

    @query(Access.ANYONE, scope=None)
    def privacy_policy(self, info: Info) -> PrivacyPolicy:
        """What this appliance stores, why, where and for how long: read from the running configuration."""
        configuration = info.context.rooms.configuration
        made = policy(lambda setting: retention_ms(configuration, setting))
        return PrivacyPolicy(
            text=made.text, digest=made.digest, collections=[DataCollection.of(stored) for stored in made.stored]
        )

    @query(Access.ANYONE, scope=None)
    def warrant_canary(self, info: Info) -> WarrantCanary | None:
        """The signed warrant canary; null where none has been published."""
        rooms = info.context.rooms
        canary = rooms.canaries.current()
        return None if canary is None else WarrantCanary.of(canary, rooms.clock())


@strawberry.type
class PrivacyMutations:
    """The end of an account, its export, and the next canary."""

    @mutation(Access.IN_PERSON)
    def delete_account(
        self, info: Info, password: str, queued_mail: QueuedMail | None = QueuedMail.DELIVER
    ) -> DeleteAccountPayload:
        """Remove everything about your account. What is answered is a signed receipt of what was removed."""
        _require_password(info, password)
        rooms, account = info.context.rooms, info.context.caller.own_account
        receipt = rooms.deletion.delete(account, queued_mail or QueuedMail.DELIVER)
        if info.context.over_http:
            for cookie in Cookie:
                info.context.take_cookie_away(cookie)
        return DeleteAccountPayload(receipt=DeletionReceipt.of(receipt))

    @mutation(Access.IN_PERSON)
    def export_account(self, info: Info, password: str) -> ExportAccountPayload:
        """Everything stored about your account as one JSON document."""
        _require_password(info, password)
        return ExportAccountPayload(json=info.context.rooms.export.document(info.context.caller.own_account))

    @mutation(Access.OPERATOR)
    def publish_canary(self, info: Info, signed_text: str, signature: str, public_key: str) -> PublishCanaryPayload:
        """Put a canary in the place of the last one. It is signed elsewhere. For operators."""
        rooms = info.context.rooms
        canary = rooms.canaries.publish(signed_text, signature, public_key)
        return PublishCanaryPayload(warrant_canary=WarrantCanary.of(canary, rooms.clock()))


def _require_password(info: Info, password: str) -> None:
    """Once more, from whoever is signed in: a browser left open must not be enough. Raises Refused."""
    caller = info.context.caller
    assert caller.credential_id is not None, "whoever is here in person has a session"
    info.context.rooms.entrance.sign_ins.require_password(caller.own_account, password, caller.credential_id)
