"""Who is meant by a block: senders, their domains, clients by address and by name, until it expires."""

import pytest
from stored_values import NOON, an_id

from appliance.model.block import Block, BlockKind
from appliance.routing.blocked import BlockTable
from smtp.address import Address


def table(*blocks: tuple[BlockKind, str], expires_at: int | None = None) -> BlockTable:
    return BlockTable(
        Block(an_id(number), kind, value, "Spam.", NOON, expires_at) for number, (kind, value) in enumerate(blocks)
    )


@pytest.mark.parametrize(
    ("kind", "value", "sender", "refused"),
    [
        (BlockKind.SENDER, "spammer@news.example", "Spammer@NEWS.example", True),
        (BlockKind.SENDER, "spammer@news.example", "editor@news.example", False),
        (BlockKind.SENDER, "spammer@news.example", "spammer@m1.news.example", False),
        (BlockKind.SENDER, "j\u00f6rg@xn--bcher-kva.example", "Jo\u0308rg@b\u00fccher.example", True),
        (BlockKind.SENDER_DOMAIN, "news.example", "anybody@news.example", True),
        (BlockKind.SENDER_DOMAIN, "news.example", "anybody@m1.news.example", True),
        (BlockKind.SENDER_DOMAIN, "news.example", "anybody@bad-news.example", False),
        (BlockKind.SENDER_DOMAIN, "news.example", "news.example@other.example", False),
        (BlockKind.SENDER_DOMAIN, "xn--bcher-kva.example", "anybody@b\u00fccher.example", True),
    ],
)
def test_a_sender_is_refused_by_address_or_domain(kind: BlockKind, value: str, sender: str, refused: bool) -> None:
    found = table((kind, value)).sender(Address.parse(sender), NOON)
    assert (found is not None) is refused


def test_no_block_refuses_the_null_sender() -> None:
    blocks = table((BlockKind.SENDER_DOMAIN, "news.example"), (BlockKind.SENDER, "a@b.example"))
    assert blocks.sender(None, NOON) is None
    assert blocks.sender(Address("postmaster", ""), NOON) is None


@pytest.mark.parametrize(
    ("value", "address", "refused"),
    [
        ("192.0.2.17", "192.0.2.17", True),
        ("192.0.2.17", "192.0.2.18", False),
        ("192.0.2.0/24", "192.0.2.255", True),
        ("192.0.2.0/24", "192.0.3.0", False),
        ("10.0.0.0/8", "10.255.0.1", True),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("2001:db8::1", "2001:db8::1", True),
        # The same number in the other version of IP is another address.
        ("0.0.0.1", "::1", False),
        ("192.0.2.17", "", False),
    ],
)
def test_a_client_is_refused_by_address_or_network(value: str, address: str, refused: bool) -> None:
    found = table((BlockKind.CLIENT_ADDRESS, value)).client(address, None, NOON)
    assert (found is not None) is refused


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("dynamic.isp.example", True),
        ("Host-17.Dynamic.ISP.example.", True),
        ("static.isp.example", False),
        ("notdynamic.isp.example", False),
        (None, False),
    ],
)
def test_a_client_is_refused_by_its_name(name: str | None, refused: bool) -> None:
    blocks = table((BlockKind.CLIENT_NAME, "dynamic.isp.example"))
    assert blocks.has_names
    assert (blocks.client("192.0.2.17", name, NOON) is not None) is refused


def test_of_many_blocks_each_means_its_own() -> None:
    networks = ["192.0.2.0/24", "198.51.100.0/25", "203.0.113.7", "2001:db8::/32"]
    blocks = table(*((BlockKind.CLIENT_ADDRESS, network) for network in networks))
    met = [
        blocks.client(address, None, NOON)
        for address in ("192.0.2.1", "198.51.100.1", "203.0.113.7", "2001:db8::1", "198.51.100.128")
    ]
    assert [block and block.value for block in met] == [*networks, None]
    assert not blocks.has_names


def test_a_block_refuses_until_it_expires() -> None:
    blocks = table(
        (BlockKind.SENDER_DOMAIN, "news.example"), (BlockKind.CLIENT_ADDRESS, "192.0.2.17"), expires_at=NOON + 1
    )
    sender = Address.parse("a@news.example")
    assert blocks.sender(sender, NOON)
    assert blocks.client("192.0.2.17", None, NOON)
    assert blocks.sender(sender, NOON + 1) is None
    assert blocks.client("192.0.2.17", None, NOON + 1) is None


def test_a_wider_block_stands_where_the_narrower_has_expired() -> None:
    wide = Block(an_id(1), BlockKind.SENDER_DOMAIN, "example", "Spam.", NOON)
    narrow = Block(an_id(2), BlockKind.SENDER_DOMAIN, "news.example", "Spam.", NOON, expires_at=NOON)
    assert BlockTable([wide, narrow]).sender(Address.parse("a@news.example"), NOON) == wide


def test_with_no_blocks_everybody_is_welcome() -> None:
    assert BlockTable().sender(Address.parse("a@news.example"), NOON) is None
    assert BlockTable().client("192.0.2.17", "news.example", NOON) is None
