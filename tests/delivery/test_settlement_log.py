"""What the log and the queue hear of an attempt: the next hop's words, without the mailbox that no sender knows."""

import pytest
from settlement_desk import Desk, asked
from values import answer

from appliance.model.delivery import Deferred, Delivered, Failed, Outcome
from appliance.storage.spool import Keep
from appliance.storage.sqlite_spool import SqliteSpool

WORDS = "alice@home.test is not what it was"


@pytest.mark.parametrize(
    "outcome",
    [Delivered(answer(text=WORDS)), Deferred(answer(450, text=WORDS)), Failed(answer(550, text=WORDS))],
    ids=["delivered", "deferred", "failed"],
)
async def test_the_alias_is_named_in_place_of_the_mailbox(store: SqliteSpool, outcome: Outcome) -> None:
    settlement = await Desk(store).settle(asked(""), outcome)
    assert [event.response for event in settlement.events] == ["a0@example.org is not what it was"]
    kept = [each.delivery for each in settlement.operations if isinstance(each, Keep)]
    assert [each.last_response for each in kept] == (
        ["450 4.0.0 a0@example.org is not what it was"] if isinstance(outcome, Deferred) else []
    )
