"""Whom the operators refuse: at MAIL, by sender and by client, and from one transaction to the next."""

from pathlib import Path

import pytest
import trio
from reception_house import SENDER, World, open_reception
from stored_values import an_id
from values import NOW

from appliance.model.block import Block, BlockKind
from appliance.reception.client_names import PATIENCE_S, ClientNames
from appliance.resolver import MailHosts
from appliance.routing.snapshot import Settings, Snapshot
from smtp.address import Address
from smtp.parameters import NO_MAIL_PARAMETERS

STRANGER = Address.parse("stranger@elsewhere.test")


def block(world: World, kind: BlockKind, value: str, expires_at: int | None = None) -> None:
    """From now on, and nobody else."""
    blocks = [Block(an_id(1), kind, value, "Spam.", NOW, expires_at)]
    world.reception.routing.snapshot = Snapshot(Settings("mx.example.net", "srs.mx.example.net"), 2, blocks=blocks)


async def mail(world: World, sender: Address | None, address: str = "192.0.2.1") -> tuple[int, str | None]:
    reply = await world.session(address).mail(sender, NO_MAIL_PARAMETERS)
    return reply.code, reply.enhanced


async def test_a_blocked_sender_is_refused_and_others_are_not(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        block(world, BlockKind.SENDER_DOMAIN, "sender.test")
        session = world.session()
        refused = await session.mail(SENDER, NO_MAIL_PARAMETERS)
        assert (refused.code, refused.enhanced, "sender-blocked" in refused.text) == (550, "5.7.1", True)
        assert (await session.mail(STRANGER, NO_MAIL_PARAMETERS)).code == 250
        assert await mail(world, None) == (250, "2.1.0")


async def test_a_blocked_client_is_refused_whatever_sender_it_names(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        block(world, BlockKind.CLIENT_ADDRESS, "192.0.2.0/30")
        for sender in (SENDER, STRANGER, None):
            refused = await world.session("192.0.2.3").mail(sender, NO_MAIL_PARAMETERS)
            assert (refused.code, refused.enhanced, "client-blocked" in refused.text) == (550, "5.7.1", True)
        assert await mail(world, SENDER, "192.0.2.4") == (250, "2.1.0")


async def test_a_block_counts_from_the_next_transaction_on_until_it_expires(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        session = world.session()
        assert (await session.mail(SENDER, NO_MAIL_PARAMETERS)).code == 250
        block(world, BlockKind.SENDER, str(SENDER), expires_at=NOW + 1)
        await session.reset()
        assert (await session.mail(SENDER, NO_MAIL_PARAMETERS)).code == 550
        block(world, BlockKind.SENDER, str(SENDER), expires_at=NOW)
        assert (await session.mail(SENDER, NO_MAIL_PARAMETERS)).code == 250


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("192.0.2.1", 550),
        # A name that does not lead back, a failing server, and no name at all: nobody is kept out by what is not known.
        ("192.0.2.2", 250),
        ("192.0.2.3", 250),
        ("192.0.2.9", 250),
    ],
)
async def test_a_client_is_refused_by_its_confirmed_name_however_soon_it_says_mail(
    tmp_path: Path, address: str, code: int
) -> None:
    async with open_reception(tmp_path) as world:
        block(world, BlockKind.CLIENT_NAME, "sender.test")
        assert (await mail(world, STRANGER, address))[0] == code


class Silent:
    """A resolver that never answers."""

    async def mx(self, domain: str) -> MailHosts:
        raise AssertionError(domain)

    async def addresses(self, host: str, *, ipv6: bool) -> list[str]:
        raise AssertionError(host)

    async def name_of(self, address: str) -> str | None:
        await trio.sleep_forever()
        raise AssertionError(address)


async def test_a_name_that_nobody_tells_is_waited_for_only_so_long(
    nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    names = ClientNames(Silent(), nursery)
    began = trio.current_time()
    assert await names.settled("192.0.2.1") is None
    assert trio.current_time() - began == PATIENCE_S
    nursery.cancel_scope.cancel()
