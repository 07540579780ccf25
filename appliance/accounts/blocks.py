"""Blocks: which senders and clients operators refuse. Whom each of them means, `appliance.routing.blocked` knows."""

import ipaddress

from appliance.accounts.rows import get, insert, some
from appliance.accounts.texts import one_line
from appliance.model.block import Block, BlockKind
from appliance.model.ids import IdSource, id_source
from appliance.model.names import domain_name, mailbox
from appliance.model.refused import Refused
from appliance.model.time import Clock, wall_clock
from appliance.privacy.declarations import BLOCKS
from appliance.routing.changes import announcement
from appliance.storage.records import Delete, Duplicate, Page, Range, RecordStore
from smtp.address import Address

MAX_BLOCKS = 10_000
"""They are all in the engine's memory, which looks at them for every message. Longer lists belong to a name server."""

MAX_REASON_CHARACTERS = 500
"""Of the note that operators leave each other."""

WIDEST_PREFIX = {4: 8, 6: 16}
"""By the version of IP: a wider network is a slip of the keyboard that would refuse a good part of the world's mail."""


class Blocks:
    """The blocks of a record store. Every method may raise StoreUnavailable, and `create` Refused."""

    def __init__(self, records: RecordStore, clock: Clock = wall_clock, ids: IdSource | None = None) -> None:
        self._records = records
        self._clock = clock
        self._ids = ids or id_source(clock)

    def create(self, kind: BlockKind, value: str, reason: str, expires_at: int | None = None) -> Block:
        """Refuse this sender or client until then; a running appliance does so within a second."""
        now = self._clock()
        block = Block(
            self._ids(), kind, _spelled(kind, value), one_line(reason, "reason", MAX_REASON_CHARACTERS), now, expires_at
        )
        if not block.stands(now):
            raise Refused("The block would have expired already: choose a later time.", "expiresAt")
        if self._records.count(BLOCKS, {}) >= MAX_BLOCKS:
            raise Refused(f"There are {MAX_BLOCKS} blocks, and no more may be. Remove some, or block whole networks.")
        # One that has expired makes room for its successor.
        expired = {"kind": kind.value, "value": block.value, "expires_at": Range(until=now + 1)}
        try:
            self._records.apply(
                [Delete(BLOCKS, expired), insert(block), *announcement(self._ids, self._clock, blocks=True)]
            )
        except Duplicate:
            raise Refused(f"{block.value} is blocked already.", "value") from None
        return block

    def delete(self, block_id: str) -> Block | None:
        """Refuse it no longer. Returns what it was; None where there is none with this id."""
        block = self.block(block_id)
        if block is not None:
            gone = Delete(BLOCKS, {"id": block.id})
            self._records.apply([gone, *announcement(self._ids, self._clock, blocks=True)])
        return block

    def block(self, block_id: str) -> Block | None:
        """The one with this id."""
        return get(self._records, Block, {"id": block_id})

    def page(self, page: Page) -> list[Block]:
        """A page of them all, those that have just expired included."""
        return some(self._records, Block, {}, page)

    def count(self) -> int:
        """How many there are."""
        return self._records.count(BLOCKS, {})


def _spelled(kind: BlockKind, value: str) -> str:
    """What was typed, in the one spelling of its kind. Raises Refused."""
    match kind:
        case BlockKind.SENDER:
            return str(Address(*mailbox(value, "value").key))
        case BlockKind.SENDER_DOMAIN | BlockKind.CLIENT_NAME:
            return domain_name(value, "value")
        case BlockKind.CLIENT_ADDRESS:
            return _network(value)


def _network(text: str) -> str:
    """An address, or a network in CIDR notation (RFC 4632 §3.1; RFC 4291 §2.3)."""
    text = text.strip()
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise Refused(_why_no_network(text), "value") from None
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= 96:
            # RFC 4291 §2.5.5.2: clients over IPv4 are known by their IPv4 address here.
            network = ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    widest = WIDEST_PREFIX[network.version]
    if network.prefixlen < widest:
        raise Refused(f"{text} is too wide: /{widest} is the widest network of IPv{network.version}.", "value")
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _why_no_network(text: str) -> str:
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return f"{text!r} is no IP address and no network: one looks like 192.0.2.17 or 2001:db8::/32."
    return f"{text} has bits set behind its prefix: the network is {meant}, or is the address alone meant?"
