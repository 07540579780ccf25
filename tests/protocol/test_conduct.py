"""What is remembered of clients: who is answered slowly, who is sent away, and how soon all is forgiven."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtp.server.conduct import Conduct, ConductLimits
from smtp.server.serving import client_key

LIMITS = ConductLimits()


def guessed(times: int, now: float = 0.0) -> Conduct:
    """The conduct of a client `x` that has guessed so often at once."""
    conduct = Conduct()
    for _ in range(times):
        conduct.recipient_refused("x", now)
    return conduct


def erred(times: int, now: float = 0.0) -> Conduct:
    conduct = Conduct()
    for _ in range(times):
        conduct.error("x", now)
    return conduct


@pytest.mark.parametrize(
    ("refused", "delay", "unwelcome"),
    [(0, 0.0, False), (1, 0.0, False), (9, 0.0, False), (10, 5.0, False), (49, 5.0, False), (50, 5.0, True)],
)
def test_unknown_recipients_make_answers_slow_and_then_the_client_unwelcome(
    refused: int, delay: float, unwelcome: bool
) -> None:
    conduct = guessed(refused)
    assert conduct.delay("x", 0.0) == delay
    assert conduct.is_unwelcome("x", 0.0) is unwelcome


def test_what_others_refuse_makes_answers_slow_and_nobody_unwelcome() -> None:
    conduct = Conduct()
    for _ in range(1000):
        conduct.recipient_refused("x", 0.0, elsewhere=True)
    assert conduct.delay("x", 0.0) == 5.0
    assert not conduct.is_unwelcome("x", 0.0)
    for _ in range(41):
        conduct.recipient_accepted("x", 0.0)
    assert conduct.delay("x", 0.0) == 0.0
    conduct.recipient_accepted("x", 600.0)
    assert conduct.remembered == 0


@pytest.mark.parametrize(("errors", "unwelcome"), [(0, False), (99, False), (100, True), (1000, True)])
def test_errors_make_unwelcome_and_no_answer_slow(errors: int, unwelcome: bool) -> None:
    conduct = erred(errors)
    assert conduct.is_unwelcome("x", 0.0) is unwelcome
    assert conduct.delay("x", 0.0) == 0.0


@pytest.mark.parametrize(
    ("since_first", "unwelcome"), [(0.0, True), (11.875, True), (12.0, False), (12.125, False), (600.0, False)]
)
def test_one_unknown_recipient_is_forgotten_every_twelve_seconds(since_first: float, unwelcome: bool) -> None:
    assert guessed(50, now=1000.0).is_unwelcome("x", 1000.0 + since_first) is unwelcome


@pytest.mark.parametrize(("since_first", "delay"), [(491.875, 5.0), (492.0, 0.0)])
def test_after_forty_one_of_them_nothing_is_slow_any_more(since_first: float, delay: float) -> None:
    assert guessed(50, now=1000.0).delay("x", 1000.0 + since_first) == delay


@pytest.mark.parametrize(("since_first", "unwelcome"), [(5.875, True), (6.0, False)])
def test_one_error_is_forgotten_every_six_seconds(since_first: float, unwelcome: bool) -> None:
    assert erred(100, now=1000.0).is_unwelcome("x", 1000.0 + since_first) is unwelcome


def test_the_leak_is_counted_from_the_first_and_not_from_the_last() -> None:
    conduct = guessed(49)
    conduct.recipient_refused("x", 11.0)
    assert conduct.is_unwelcome("x", 11.0)
    assert not conduct.is_unwelcome("x", 12.0)
    conduct.recipient_refused("x", 23.0)
    assert conduct.is_unwelcome("x", 23.0)
    assert not conduct.is_unwelcome("x", 24.0)


def test_a_leak_to_nothing_is_not_saved_up_for_later() -> None:
    conduct = guessed(1)
    for _ in range(50):
        conduct.recipient_refused("x", 6000.0)
    assert conduct.is_unwelcome("x", 6011.875)
    assert not conduct.is_unwelcome("x", 6012.0)


@pytest.mark.parametrize("many", [50, 100, 10_000])
def test_all_is_forgiven_in_ten_minutes_however_much_it_was(many: int) -> None:
    conduct = Conduct()
    for _ in range(many):
        conduct.recipient_refused("x", 0.0)
        conduct.error("x", 0.0)
    assert conduct.is_unwelcome("x", 5.875)
    # What is left, if anything were, would show with one guess less than it takes.
    for _ in range(LIMITS.tarpit_after - 1):
        conduct.recipient_refused("x", 600.0)
    for _ in range(LIMITS.errors_max - 1):
        conduct.error("x", 600.0)
    assert conduct.delay("x", 600.0) == 0.0
    assert not conduct.is_unwelcome("x", 600.0)


def test_a_recipient_there_is_takes_back_one_there_is_not() -> None:
    conduct = guessed(10)
    conduct.recipient_accepted("x", 0.0)
    assert conduct.delay("x", 0.0) == 0.0
    conduct.recipient_refused("x", 0.0)
    assert conduct.delay("x", 0.0) == 5.0


def test_nobody_can_earn_guesses_beforehand() -> None:
    conduct = Conduct()
    for _ in range(1000):
        conduct.recipient_accepted("x", 0.0)
    conduct.recipient_refused("x", 0.0)
    for _ in range(1000):
        conduct.recipient_accepted("x", 0.0)
    for _ in range(10):
        conduct.recipient_refused("x", 0.0)
    assert conduct.delay("x", 0.0) == 5.0


def test_a_message_forgives_errors_and_no_guesses() -> None:
    conduct = erred(100)
    for _ in range(10):
        conduct.recipient_refused("x", 0.0)
    conduct.message_accepted("x", 0.0)
    assert not conduct.is_unwelcome("x", 0.0)
    assert conduct.delay("x", 0.0) == 5.0
    for _ in range(99):
        conduct.error("x", 0.0)
    assert not conduct.is_unwelcome("x", 0.0)


def test_clients_do_not_answer_for_each_other() -> None:
    conduct = guessed(50)
    assert not conduct.is_unwelcome("y", 0.0)
    assert conduct.delay("y", 0.0) == 0.0


def test_all_addresses_of_an_ipv6_network_are_one_client() -> None:
    conduct = Conduct()
    for host in range(50):
        conduct.recipient_refused(client_key(f"2001:db8:0:1::{host:x}"), 0.0)
    assert conduct.is_unwelcome(client_key("2001:db8:0:1:ffff::"), 0.0)
    assert not conduct.is_unwelcome(client_key("2001:db8:0:2::1"), 0.0)


@pytest.mark.parametrize(
    ("typos", "worst_delay"),
    [
        pytest.param(0.02, 0.0, id="2 in 100: what people mistype"),
        pytest.param(0.05, 0.0, id="5 in 100: an old newsletter"),
        pytest.param(0.20, 0.0, id="20 in 100: a list that nobody has cared for"),
        pytest.param(0.40, 5.0, id="40 in 100: it is slow, and still it comes in"),
    ],
)
def test_a_big_honest_sender_is_never_sent_away(typos: float, worst_delay: float) -> None:
    """An hour with 50 recipients a second from one address, so fast that the leak hardly counts: 5 in 100 are 9,000
    unknown recipients, 180 times what makes unwelcome.
    """
    conduct = Conduct()
    dice = random.Random(5321)
    delays = set()
    for recipient in range(50 * 3600):
        now = recipient / 50
        if dice.random() < typos:
            conduct.recipient_refused("x", now)
            delays.add(conduct.delay("x", now))
        else:
            conduct.recipient_accepted("x", now)
        assert not conduct.is_unwelcome("x", now)
    assert max(delays) == worst_delay


def test_nor_is_one_whose_dead_addresses_all_come_first() -> None:
    """A transaction with 49 unknown recipients and then 51 known ones, again and again, all in the same second."""
    conduct = Conduct()
    for _ in range(100):
        for _ in range(49):
            conduct.recipient_refused("x", 0.0)
            assert not conduct.is_unwelcome("x", 0.0)
        for _ in range(51):
            conduct.recipient_accepted("x", 0.0)
        assert conduct.remembered == 0


def test_who_only_guesses_is_stopped_at_fifty_and_then_has_five_guesses_a_minute() -> None:
    conduct = Conduct()
    guesses = 0
    for second in range(3600):
        while not conduct.is_unwelcome("x", float(second)):
            conduct.recipient_refused("x", float(second))
            guesses += 1
    assert guesses == 50 + 299


def test_who_behaves_is_not_in_the_table() -> None:
    conduct = Conduct()
    conduct.recipient_accepted("x", 0.0)
    conduct.message_accepted("x", 0.0)
    assert conduct.delay("x", 0.0) == 0.0
    assert not conduct.is_unwelcome("x", 0.0)
    assert conduct.remembered == 0
    conduct.recipient_refused("x", 0.0)
    conduct.error("x", 0.0)
    assert conduct.remembered == 1
    conduct.recipient_accepted("x", 0.0)
    assert conduct.remembered == 1, "an error is left"
    conduct.message_accepted("x", 0.0)
    assert conduct.remembered == 0


def test_what_has_leaked_away_goes_with_the_next_good_word() -> None:
    conduct = guessed(3)
    conduct.message_accepted("x", 35.875)
    assert conduct.remembered == 1
    conduct.message_accepted("x", 36.0)
    assert conduct.remembered == 0


def test_the_table_is_bounded_and_forgets_who_has_not_erred_for_the_longest_time() -> None:
    conduct = guessed(50)
    for other in range(LIMITS.clients - 1):
        conduct.error(f"other {other}", 0.0)
    assert conduct.remembered == LIMITS.clients
    assert conduct.is_unwelcome("x", 0.0)
    conduct.recipient_refused("x", 0.0)
    conduct.error("one more", 0.0)
    assert conduct.remembered == LIMITS.clients
    assert conduct.is_unwelcome("x", 0.0), "x has erred a moment ago: another had to go"
    for other in range(LIMITS.clients - 1):
        conduct.error(f"yet another {other}", 0.0)
    assert conduct.remembered == LIMITS.clients
    assert not conduct.is_unwelcome("x", 0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"clients": 0},
        {"tarpit_after": 0},
        {"unknown_recipients_max": 0},
        {"errors_max": -1},
        {"tarpit_s": -1.0},
        {"recipient_leak_s": 0.0},
        {"error_leak_s": 0.0},
    ],
)
def test_impossible_limits(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="of conduct"):
        ConductLimits(**wrong)


WORDS = st.sampled_from(["refused", "refused", "refused", "accepted", "error", "error", "message"])
# Eighths of seconds: numbers with which floating point makes no mistakes.
STORIES = st.lists(st.tuples(WORDS, st.sampled_from([0, 0, 0, 1, 8, 20, 95, 96, 97, 200, 2000])), max_size=60)
MOST = 6


class OneByOne:
    """A score kept the long way: an eighth of a second after the other, and a point at a time."""

    def __init__(self, leak_eighths: int) -> None:
        self.leak_eighths = leak_eighths
        self.points = 0
        self.until_leak = 0

    def pass_time(self, eighths: int) -> None:
        for _ in range(eighths):
            if self.points:
                self.until_leak -= 1
                if self.until_leak == 0:
                    self.points -= 1
                    self.until_leak = self.leak_eighths

    def add(self) -> None:
        if self.points == 0:
            self.until_leak = self.leak_eighths
        self.points = min(self.points + 1, MOST)


def tell(conduct: Conduct, word: str, now: float, key: str = "x") -> None:
    match word:
        case "refused":
            conduct.recipient_refused(key, now)
        case "accepted":
            conduct.recipient_accepted(key, now)
        case "error":
            conduct.error(key, now)
        case _:
            conduct.message_accepted(key, now)


@given(STORIES)
def test_scores_are_exact_whatever_happens(story: list[tuple[str, int]]) -> None:
    # One that tells each number of points from the one below it: together they show the score.
    shows_refused = [
        Conduct(ConductLimits(tarpit_after=points, unknown_recipients_max=MOST)) for points in range(1, MOST + 1)
    ]
    shows_errors = Conduct(ConductLimits(errors_max=MOST, unknown_recipients_max=1000))
    refused, errors = OneByOne(96), OneByOne(48)
    now = 0
    for word, eighths in story:
        now += eighths
        refused.pass_time(eighths)
        errors.pass_time(eighths)
        match word:
            case "refused":
                refused.add()
            case "accepted":
                refused.points = max(0, refused.points - 1)
            case "error":
                errors.add()
            case _:
                errors.points = 0
        for conduct in (*shows_refused, shows_errors):
            tell(conduct, word, now / 8)
        assert sum(conduct.delay("x", now / 8) > 0 for conduct in shows_refused) == refused.points
        assert all(conduct.is_unwelcome("x", now / 8) is (refused.points == MOST) for conduct in shows_refused)
        assert shows_errors.is_unwelcome("x", now / 8) is (errors.points == MOST)


@given(st.lists(st.tuples(st.sampled_from("uvwxyz"), WORDS), max_size=80), st.integers(1, 5))
def test_the_table_has_those_who_have_erred_last_and_no_more(story: list[tuple[str, str]], most: int) -> None:
    conduct = Conduct(ConductLimits(clients=most, tarpit_after=1, unknown_recipients_max=1, errors_max=1))
    # What each has done, in the order in which they last did something wrong.
    expected: dict[str, set[str]] = {}
    for client, word in story:
        tell(conduct, word, 0.0, client)
        if word in ("refused", "error"):
            expected[client] = expected.pop(client, set()) | {word}
            for forgotten in list(expected)[:-most]:
                del expected[forgotten]
        elif client in expected:
            expected[client].discard("refused" if word == "accepted" else "error")
            if not expected[client]:
                del expected[client]
        assert conduct.remembered == len(expected)
        assert {each for each in "uvwxyz" if conduct.is_unwelcome(each, 0.0)} == set(expected)


@given(st.floats(0, 1e9), st.floats(-100, 0))
def test_a_clock_that_stands_still_or_goes_back_forgives_nothing(now: float, back: float) -> None:
    conduct = guessed(50, now=now)
    assert conduct.is_unwelcome("x", now)
    assert conduct.is_unwelcome("x", now + back)
