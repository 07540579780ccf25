"""Which deliveries an operator's filter means, and which holds."""

import pytest
from values import NOW, delivery

from appliance.delivery.operator import QueueFilter
from appliance.model.delivery import DeliveryState, Recipient
from appliance.model.hold import Hold


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


def test_both_forms_of_a_domain_are_one() -> None:
    written = delivery(recipients=(Recipient("info@Bücher.example", "domain1"),))
    for name in ("bücher.example", "XN--BCHER-KVA.example"):
        assert QueueFilter(domain=name).matches(written)
        assert QueueFilter(recipient=f"Info@{name}").matches(written)
        rule = QueueFilter(domain=name).as_rule("h1", NOW)
        assert rule is not None
        assert rule.matches(written)


def test_a_filter_can_ask_for_a_state() -> None:
    assert QueueFilter(state=DeliveryState.WAITING).matches(delivery())
    assert not QueueFilter(state=DeliveryState.HELD).matches(delivery())


@pytest.mark.parametrize(
    ("wanted", "covers"),
    [
        (QueueFilter(), True),
        (QueueFilter(domain="Example.ORG"), True),
        (QueueFilter(sender="Friend@sender.test"), True),
        (QueueFilter(domain="example.org", sender="friend@sender.test"), True),
        (QueueFilter(destination="home.test"), False),
        (QueueFilter(domain="example.org", destination="home.test"), False),
        (QueueFilter(sender=""), False),
        (QueueFilter(domain="example.org", recipient="sales@example.org"), False),
        (QueueFilter(domain="example.org", state=DeliveryState.HELD), False),
        (QueueFilter(id="d1"), False),
    ],
)
def test_which_holds_a_filter_covers(wanted: QueueFilter, covers: bool) -> None:
    assert wanted.covers(Hold("h1", NOW, domain="example.org", sender="friend@sender.test")) is covers


@pytest.mark.parametrize(
    ("wanted", "rule"),
    [
        (QueueFilter(domain="Example.org"), Hold("h1", NOW, domain="example.org")),
        (QueueFilter(destination="home.test", sender=""), Hold("h1", NOW, destination="home.test", sender="")),
        (QueueFilter(), None),
        (QueueFilter(recipient="sales@example.org"), None),
        (QueueFilter(domain="example.org", id="d1"), None),
        (QueueFilter(domain="example.org", state=DeliveryState.WAITING), None),
    ],
)
def test_which_rule_says_the_same_of_mail_to_come(wanted: QueueFilter, rule: Hold | None) -> None:
    assert wanted.as_rule("h1", NOW) == rule
