"""What is counted of mail as it comes in: whatever a domain's log may say, because it is about nobody."""

from pathlib import Path

from reception_house import open_reception
from scripted_next_hops import later, never

SILENT = "through@transit.test"
"""In transit, to one mailbox; its domain's log has nothing."""
LOUD = "loud@loud.test"
"""In transit, to two mailboxes."""


async def test_deliveries_in_transit_are_counted_with_their_outcome(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        counts = world.reception.logbook.counts
        await world.transact(SILENT)
        assert (counts.attempts_delivered, counts.delivered) == (1, 1)
        world.hops.at_the_end["bob@home.test"] = later(451, "4.3.1")
        await world.transact(LOUD)
        assert (counts.attempts_delivered, counts.delivered) == (2, 2)
        # The sender keeps what was put off: no delivery of ours stays, and none is given up.
        assert (counts.attempts_deferred, counts.deferred, counts.bounced) == (0, 0, 0)


async def test_what_is_refused_beside_what_arrives_is_given_up(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        counts = world.reception.logbook.counts
        world.hops.at_the_end["bob@home.test"] = never()
        _, final = await world.transact(LOUD)
        assert final is not None
        assert final.code == 250
        assert (counts.attempts_delivered, counts.attempts_failed) == (1, 1)
        assert (counts.delivered, counts.bounced) == (1, 1)


async def test_a_refused_recipient_is_counted_once(tmp_path: Path) -> None:
    async with open_reception(tmp_path) as world:
        counts = world.reception.logbook.counts
        world.hops.at_rcpt["alice@home.test"] = never()
        (reply,), _ = await world.transact(SILENT)
        assert (reply.code, counts.refused) == (550, 1)
        assert world.events() == []
