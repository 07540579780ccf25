"""Blocks: senders and clients that operators refuse."""

from typing import Final, Self

import strawberry

from appliance.model.block import Block as StoredBlock
from appliance.model.block import BlockKind
from appliance.storage.records import Page
from control_api.callers import Access
from control_api.context import Info
from control_api.errors import Payload, not_found
from control_api.fields import mutation, query
from control_api.ids import stored_id
from control_api.nouns.node import Node
from control_api.paging import USUAL, Connection, Slice, connection
from control_api.scalars import DateTime, instant

BLOCK_KIND: Final = strawberry.enum(
    BlockKind,
    description="What is refused: an envelope sender, a sender's domain with all below it, a client's IP address or "
    "network, or a client's confirmed name with all below it.",
)


@strawberry.type(description="A sender or client whose mail is refused, with the operator's reason.")
class Block(Node):
    """One block, as it stands in the store."""

    kind: BlockKind
    value: str
    reason: str = strawberry.field(description="For operators; it is not told to whoever is refused.")
    created_at: DateTime
    expires_at: DateTime | None = strawberry.field(description="null: until it is removed.")

    @classmethod
    def of(cls, block: StoredBlock) -> Self:
        """From what is stored."""
        return cls(
            stored_id=block.id,
            kind=block.kind,
            value=block.value,
            reason=block.reason,
            created_at=DateTime(block.created_at),
            expires_at=instant(block.expires_at),
        )

    @classmethod
    def found(cls, info: Info, stored_id: str) -> Self | None:
        """See Node."""
        block = info.context.rooms.blocks.block(stored_id) if info.context.caller.is_operator else None
        return None if block is None else cls.of(block)


@strawberry.type
class CreateBlockPayload(Payload):
    """The block, in force within a second."""

    block: Block | None = None


@strawberry.type
class DeleteBlockPayload(Payload):
    """It is gone."""


@strawberry.type
class BlockQueries:
    """Reading blocks."""

    @query(Access.OPERATOR)
    def blocks(self, info: Info, first: int | None = USUAL, after: str | None = strawberry.UNSET) -> Connection[Block]:
        """Senders, hosts and addresses that are refused, with reason and expiry, the latest first. For operators."""
        blocks = info.context.rooms.blocks
        wanted = Slice.of(first, after or None)
        return connection(
            blocks.page(Page(wanted.after, wanted.limit, newest_first=True)),
            wanted,
            key=lambda block: block.id,
            node=Block.of,
            count=blocks.count,
        )


@strawberry.type
class BlockMutations:
    """Changing blocks."""

    @mutation(Access.OPERATOR)
    def create_block(
        self,
        info: Info,
        kind: BlockKind,
        value: str,
        reason: str,
        expires_at: DateTime | None = strawberry.UNSET,
    ) -> CreateBlockPayload:
        """Refuse mail from a sender or a client, for good or until `expiresAt`. For operators."""
        until = None if expires_at is strawberry.UNSET else expires_at
        return CreateBlockPayload(block=Block.of(info.context.rooms.blocks.create(kind, value, reason, until)))

    @mutation(Access.OPERATOR)
    def delete_block(self, info: Info, id: strawberry.ID) -> DeleteBlockPayload:
        """Refuse it no longer. For operators."""
        if info.context.rooms.blocks.delete(stored_id(id, "Block")) is None:
            raise not_found("block")
        return DeleteBlockPayload()
