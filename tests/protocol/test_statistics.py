"""What a server counts while it serves."""

import pytest
from smtp_house import call, open_house

from smtp.histogram import Histogram


@pytest.mark.parametrize(("value", "place"), [(-1, 0), (0, 0), (1, 0), (1.5, 1), (2, 1), (4, 2), (4.1, 3), (1e9, 3)])
def test_a_value_counts_under_the_first_bound_that_is_not_below_it(value: float, place: int) -> None:
    histogram = Histogram((1, 2, 4))
    histogram.observe(value)
    assert histogram.counts == [int(number == place) for number in range(4)]
    assert histogram.sum == value


async def test_replies_are_counted_by_code_and_the_time_to_a_250_of_messages() -> None:
    async with open_house() as house:
        async with call(house) as caller:
            await caller.greeted()
            assert (await caller.send(b"Subject: x\r\n\r\nfine\r\n") or "").startswith("250 ")
            assert (await caller.send(b"Subject: x\r\n\r\nfine\r\n", sender="no-end@example.com") or "").startswith(
                "550 "
            )
            await caller.ask("QUIT")
        counted = house.statistics
        assert counted.messages == 1
        assert sum(counted.until_accepted_s.counts) == 1
        assert 0 < counted.until_accepted_s.sum < 20
        by_code = {code: count for code, count in enumerate(counted.replies_by_code) if count}
        assert by_code[220] == 1
        assert by_code[550] == 1
        assert counted.replies[2] == sum(count for code, count in by_code.items() if code < 300)
        assert sum(counted.replies.values()) == sum(by_code.values())
