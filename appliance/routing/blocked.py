"""Who is refused, whatever they bring: the operators' blocks, looked up in memory.

A block of a domain or of a name is one of everything below it, too: whoever sends from `news.example` today sends from
`m7.news.example` tomorrow.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from appliance.model.block import Block, BlockKind
from smtp.address import Address
from smtp.reply import Reply

SENDER_BLOCKED = Reply(550, "We take no mail from that sender (sender-blocked)", "5.7.1")
CLIENT_BLOCKED = Reply(550, "We take no mail from this host (client-blocked)", "5.7.1")


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why somebody is refused, and in which words. Those of the block itself are for operators."""

    reply: Reply
    reason: str
    """A stable word: `sender-blocked` or `client-blocked`."""
    block: Block


_Networks = dict[int, dict[int, Block]]
"""By the number of bits behind the prefix, and by what is in front of them."""


class BlockTable:
    """Every block, arranged for looking up. Immutable once built."""

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self._senders: dict[tuple[str, str], Block] = {}
        self._domains: dict[str, Block] = {}
        self._names: dict[str, Block] = {}
        self._networks: dict[int, _Networks] = {4: {}, 6: {}}
        self._empty = True
        for block in blocks:
            self._empty = False
            match block.kind:
                case BlockKind.SENDER:
                    self._senders[Address.parse(block.value).key] = block
                case BlockKind.SENDER_DOMAIN:
                    self._domains[block.value] = block
                case BlockKind.CLIENT_NAME:
                    self._names[block.value] = block
                case BlockKind.CLIENT_ADDRESS:
                    network = ip_network(block.value)
                    behind = network.max_prefixlen - network.prefixlen
                    prefix = int(network.network_address) >> behind
                    self._networks[network.version].setdefault(behind, {})[prefix] = block

    @property
    def has_names(self) -> bool:
        """Whether it matters what a client is called."""
        return bool(self._names)

    def refusal(self, sender: Address | None, client_address: str, client_name: str | None, now: int) -> Blocked | None:
        """Why mail from this sender by this client is refused; None where it is not.

        RFC 5321 §7.9: a server may refuse mail for any reason that makes sense to its site. That holds for postmaster,
        too, whom §4.5.1 would have hear from everybody but those who do harm: these blocks are for such.
        """
        if self._empty:
            return None
        block = self.client(client_address, client_name, now)
        if block is not None:
            return Blocked(CLIENT_BLOCKED, "client-blocked", block)
        block = self.sender(sender, now)
        return None if block is None else Blocked(SENDER_BLOCKED, "sender-blocked", block)

    def sender(self, sender: Address | None, now: int) -> Block | None:
        """The block that refuses this envelope sender. None refuses the null reverse-path: reports come with it."""
        if sender is None or not (self._senders or self._domains):
            return None
        _, domain = sender.key
        return _standing(self._senders.get(sender.key), now) or _of_name(self._domains, domain, now)

    def client(self, address: str, name: str | None, now: int) -> Block | None:
        """The block that refuses this client. `name` is its confirmed one; None where it has none, or none yet."""
        found = _of_name(self._names, name.lower().removesuffix("."), now) if name else None
        return found or self._of_address(address, now)

    def _of_address(self, text: str, now: int) -> Block | None:
        if not any(self._networks.values()):
            return None
        try:
            address = ip_address(text)
        except ValueError:
            return None  # a client over a local socket has none
        number = int(address)
        for behind, blocks in self._networks[address.version].items():
            found = _standing(blocks.get(number >> behind), now)
            if found is not None:
                return found
        return None


def _of_name(blocks: dict[str, Block], name: str, now: int) -> Block | None:
    if not blocks:
        return None
    for each in _upwards(name):
        found = _standing(blocks.get(each), now)
        if found is not None:
            return found
    return None


def _upwards(name: str) -> Iterator[str]:
    """A name and every one above it: `a.b.example`, `b.example`, `example`."""
    while name:
        yield name
        _, _, name = name.partition(".")


def _standing(block: Block | None, now: int) -> Block | None:
    return block if block is not None and block.stands(now) else None
