"""Which deliveries an operator's filter means."""

import pytest
from values import delivery

from appliance.delivery.operator import QueueFilter


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (QueueFilter(), True),
        (QueueFilter(domain="Example.ORG"), True),
        (QueueFilter(domain="home.test"), False),
        (QueueFilter(destination="home.test"), True),
        (QueueFilter(recipient="SALES@example.org"), True),
        (QueueFilter(recipient="alice@home.test"), False),
        (QueueFilter(sender="friend@sender.test", destination="else.test"), False),
        (QueueFilter(id="d1"), True),
        (QueueFilter(id="m1"), True),
        (QueueFilter(id="x"), False),
    ],
)
def test_which_deliveries_a_filter_means(wanted: QueueFilter, matches: bool) -> None:
    assert wanted.matches(delivery()) is matches
