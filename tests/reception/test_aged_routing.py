"""What RCPT gets where the records have not been read for a while: a 451, and never a 550 that may be wrong by now."""

from pathlib import Path

import pytest
from reception_house import SENDER, open_reception, parsed, snapshot
from stored_values import an_id
from values import NOW

from appliance.model.block import Block, BlockKind
from appliance.routing.blocked import BlockTable
from appliance.routing.snapshot import Freshness, Portion
from smtp.parameters import NO_MAIL_PARAMETERS, NO_RECIPIENT_PARAMETERS


@pytest.mark.parametrize(
    ("freshness", "known", "unknown", "foreign"),
    [(Freshness.FRESH, 250, 550, 550), (Freshness.AGED, 250, 451, 451), (Freshness.STALE, 451, 451, 451)],
)
async def test_what_is_known_is_taken_for_longer_than_what_is_not_known_is_refused(
    tmp_path: Path, freshness: Freshness, known: int, unknown: int, foreign: int
) -> None:
    async with open_reception(tmp_path) as world:
        world.routing.snapshot = snapshot().aged(freshness)
        replies, final = await world.transact("sales@example.org", "nobody@example.org", "sales@elsewhere.test")
        assert [reply.code for reply in replies] == [known, unknown, foreign]
        assert all(reply.enhanced == "4.3.0" for reply in replies if reply.code == 451)
        assert (final is None) == (freshness is Freshness.STALE)


async def test_nothing_is_logged_as_refused_that_may_be_taken_a_moment_later(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        world.routing.snapshot = snapshot().aged(Freshness.AGED)
        await world.transact("nobody@example.org")
        assert world.events() == []


async def test_a_sender_that_is_blocked_as_far_as_is_known_comes_again(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        block = Block(an_id(1), BlockKind.SENDER, str(SENDER), "Spam.", NOW)
        blocked = snapshot().replaced(2, Portion({}, {}, BlockTable([block])))
        for freshness, code in ((Freshness.FRESH, 550), (Freshness.AGED, 451)):
            world.routing.snapshot = blocked.aged(freshness)
            assert (await world.session().mail(SENDER, NO_MAIL_PARAMETERS)).code == code


async def test_a_session_notices_age_and_youth_from_one_recipient_to_the_next(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        session = world.session()
        await session.mail(SENDER, NO_MAIL_PARAMETERS)
        codes = []
        for freshness in (Freshness.FRESH, Freshness.STALE, Freshness.AGED):
            world.routing.snapshot = snapshot().aged(freshness)
            codes.append((await session.recipient(parsed("ali@example.org"), NO_RECIPIENT_PARAMETERS)).code)
        assert codes == [250, 451, 250]
