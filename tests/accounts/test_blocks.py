"""Blocks: what operators may refuse, and how it is spelled."""

import pytest
from accounts_office import NOON, Office
from stored_values import an_id

from appliance.accounts.blocks import MAX_REASON_CHARACTERS, Blocks
from appliance.model.block import BlockKind
from appliance.model.ids import id_source
from appliance.model.refused import Refused
from appliance.model.time import DAY_MS
from appliance.privacy.declarations import BLOCKS
from appliance.storage.records import Page


@pytest.fixture
def blocks(office: Office) -> Blocks:
    """None yet."""
    return Blocks(office.records, lambda: NOON, id_source(lambda: NOON))


@pytest.mark.parametrize(
    ("kind", "typed", "kept"),
    [
        (BlockKind.SENDER, " Spammer@News.Example ", "spammer@news.example"),
        (BlockKind.SENDER, '"two words"@news.example', '"two words"@news.example'),
        (BlockKind.SENDER, "Jörg@bücher.example", "jörg@xn--bcher-kva.example"),
        (BlockKind.SENDER_DOMAIN, "Bücher.Example.", "xn--bcher-kva.example"),
        (BlockKind.CLIENT_NAME, "Dynamic.ISP.example", "dynamic.isp.example"),
        (BlockKind.CLIENT_ADDRESS, "192.0.2.17", "192.0.2.17"),
        (BlockKind.CLIENT_ADDRESS, "192.0.2.17/32", "192.0.2.17"),
        (BlockKind.CLIENT_ADDRESS, "192.0.2.0/24", "192.0.2.0/24"),
        (BlockKind.CLIENT_ADDRESS, "2001:DB8:0:0::/32", "2001:db8::/32"),
        (BlockKind.CLIENT_ADDRESS, "::ffff:192.0.2.17", "192.0.2.17"),
        (BlockKind.CLIENT_ADDRESS, "::ffff:192.0.2.0/120", "192.0.2.0/24"),
    ],
)
def test_a_block_is_kept_in_one_spelling(blocks: Blocks, kind: BlockKind, typed: str, kept: str) -> None:
    block = blocks.create(kind, typed, "It sends spam.")
    assert (block.kind, block.value, block.reason, block.created_at, block.expires_at) == (
        kind,
        kept,
        "It sends spam.",
        NOON,
        None,
    )
    assert blocks.block(block.id) == block
    with pytest.raises(Refused, match="already"):
        blocks.create(kind, kept, "Once more.")


@pytest.mark.parametrize(
    ("kind", "typed"),
    [
        (BlockKind.SENDER, "news.example"),
        (BlockKind.SENDER, "<>"),
        (BlockKind.SENDER, ""),
        (BlockKind.SENDER_DOMAIN, "a@news.example"),
        (BlockKind.SENDER_DOMAIN, "example"),
        (BlockKind.SENDER_DOMAIN, "*.news.example"),
        (BlockKind.CLIENT_NAME, "192.0.2.17 "),
        (BlockKind.CLIENT_ADDRESS, "news.example"),
        (BlockKind.CLIENT_ADDRESS, "192.0.2.17/24"),
        (BlockKind.CLIENT_ADDRESS, "0.0.0.0/0"),
        (BlockKind.CLIENT_ADDRESS, "12.0.0.0/7"),
        (BlockKind.CLIENT_ADDRESS, "::/0"),
        (BlockKind.CLIENT_ADDRESS, "::ffff:0.0.0.0/96"),
        (BlockKind.CLIENT_ADDRESS, "192.0.2.0/255.255.255.0.0"),
        (BlockKind.CLIENT_ADDRESS, ""),
    ],
)
def test_what_is_no_value_of_its_kind_is_refused(blocks: Blocks, kind: BlockKind, typed: str) -> None:
    with pytest.raises(Refused) as refused:
        blocks.create(kind, typed, "It sends spam.")
    assert refused.value.field == "value"
    assert blocks.count() == 0


def test_a_network_with_bits_behind_its_prefix_is_told_what_was_perhaps_meant(blocks: Blocks) -> None:
    with pytest.raises(Refused, match=r"the network is 192\.0\.2\.0/24"):
        blocks.create(BlockKind.CLIENT_ADDRESS, "192.0.2.17/24", "It sends spam.")


@pytest.mark.parametrize(
    ("reason", "expires_at", "field"),
    [("", None, "reason"), ("x" * (MAX_REASON_CHARACTERS + 1), None, "reason"), ("Spam.", NOON, "expiresAt")],
)
def test_a_block_needs_a_reason_and_a_future(blocks: Blocks, reason: str, expires_at: int | None, field: str) -> None:
    with pytest.raises(Refused) as refused:
        blocks.create(BlockKind.SENDER_DOMAIN, "news.example", reason, expires_at)
    assert refused.value.field == field


def test_every_change_of_blocks_tells_routing(office: Office, blocks: Blocks) -> None:
    before = office.generation()
    block = blocks.create(BlockKind.SENDER_DOMAIN, "news.example", "Spam.")
    assert office.generation() == before + 1
    assert blocks.delete(block.id) == block
    assert office.generation() == before + 2
    assert blocks.delete(block.id) is None
    assert blocks.delete(an_id(1)) is None
    assert office.generation() == before + 2


def test_one_that_has_expired_makes_room_for_its_successor(office: Office, blocks: Blocks) -> None:
    blocks.create(BlockKind.SENDER_DOMAIN, "news.example", "Spam.", NOON + DAY_MS)
    later = Blocks(office.records, lambda: NOON + DAY_MS)
    successor = later.create(BlockKind.SENDER_DOMAIN, "news.example", "Spam again.")
    assert later.page(Page()) == [successor]


def test_an_expired_block_is_swept_a_day_later(office: Office, blocks: Blocks) -> None:
    blocks.create(BlockKind.SENDER_DOMAIN, "news.example", "Spam.", NOON + DAY_MS)
    lasting = blocks.create(BlockKind.SENDER_DOMAIN, "other.example", "Spam.")
    (retention,) = BLOCKS.retention
    assert retention.setting == "1d"
    assert office.records.sweep(BLOCKS, retention, NOON + DAY_MS) == 0
    assert office.records.sweep(BLOCKS, retention, NOON + DAY_MS + 1) == 1
    assert blocks.page(Page()) == [lasting]
