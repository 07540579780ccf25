"""Who is let in and who has to make room: the rules by themselves, against a plain model, and what clients see."""

from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from smtp_house import Caller, House, call, open_house, quick_settings
from smtp_memory import Mailbox, MemoryReceiver

from smtp.reply import Reply
from smtp.server import admission
from smtp.server.admission import RANKING_S, SETTLING_S, Admission

LONG_S = 100.0
"""After this everybody has settled, and every order is out of date."""


@dataclass(eq=False)
class Guest:
    """A connection, as far as it matters here."""

    client: str
    since: float = 0.0
    octets_received: int = 0
    may_leave: bool = True


def house_of(*guests: Guest, room: int | None = None, per_client: int = 20) -> Admission[Guest]:
    rules: Admission[Guest] = Admission(len(guests) if room is None else room, per_client)
    for guest in guests:
        rules.enter(guest)
    return rules


# ---------------------------------------------------------------------- the rules, one by one


def test_there_is_room_for_so_many_and_for_so_many_of_one_client() -> None:
    rules = house_of(room=3, per_client=2)
    guests = [Guest("a"), Guest("a"), Guest("b")]
    for count, guest in enumerate(guests):
        assert not rules.is_full
        assert rules.has_room_for(guest.client)
        rules.enter(guest)
        assert len(rules) == count + 1
    assert rules.is_full
    assert not rules.has_room_for("a")
    assert rules.has_room_for("b")
    for _ in range(2):
        rules.leave(guests[0])
        assert len(rules) == 2
    assert rules.has_room_for("a")


def test_the_busiest_client_gives_up_the_one_that_has_progressed_least() -> None:
    slow, fast, other = Guest("a", octets_received=10), Guest("a", octets_received=1000), Guest("b")
    assert house_of(slow, fast, other).who_makes_room("c", LONG_S) is slow
    assert house_of(fast, slow, other).who_makes_room("c", LONG_S) is slow


def test_progress_is_octets_in_a_second_and_not_octets() -> None:
    old = Guest("a", since=0, octets_received=1000)
    young = Guest("a", since=90, octets_received=900)
    assert house_of(old, young).who_makes_room("c", LONG_S) is old


def test_where_all_are_alike_it_is_the_least_of_all() -> None:
    guests = [Guest(str(number), octets_received=abs(number - 3)) for number in range(8)]
    assert house_of(*guests).who_makes_room("new", LONG_S) is guests[3]


def test_a_newcomer_of_the_busiest_client_gets_nothing() -> None:
    assert house_of(Guest("a"), Guest("a"), Guest("b")).who_makes_room("a", LONG_S) is None
    assert house_of(Guest("a")).who_makes_room("a", LONG_S) is None
    # With as many as anybody it is one of the busiest.
    assert house_of(Guest("a"), Guest("b")).who_makes_room("b", LONG_S) is None


def test_who_is_being_served_is_left_in_peace() -> None:
    served, waiting = Guest("a", may_leave=False), Guest("a", octets_received=10**6)
    rules = house_of(served, waiting, Guest("b"))
    assert rules.who_makes_room("c", LONG_S) is waiting
    waiting.may_leave = False
    assert rules.who_makes_room("c", 2 * LONG_S) is None


def test_being_served_since_the_order_was_made_counts_too() -> None:
    first, second = Guest("a"), Guest("a", octets_received=10)
    rules = house_of(first, second, Guest("a", octets_received=20), Guest("b"))
    assert rules.who_makes_room("c", LONG_S) is first
    rules.leave(first)
    second.may_leave = False
    assert rules.who_makes_room("c", LONG_S) is not second


def test_who_has_just_come_is_left_in_peace() -> None:
    guest = Guest("a", since=LONG_S)
    assert house_of(guest).who_makes_room("b", LONG_S) is None
    assert house_of(guest).who_makes_room("b", LONG_S + SETTLING_S - 0.01) is None
    assert house_of(guest).who_makes_room("b", LONG_S + SETTLING_S) is guest


def test_a_flood_of_newcomers_takes_one_place_after_the_other() -> None:
    guests = [Guest("a", octets_received=number) for number in range(10)]
    rules = house_of(*guests)
    gone = []
    for number in range(20):
        guest = rules.who_makes_room(f"new {number}", LONG_S)
        if guest is not None:
            rules.leave(guest)
            gone.append(guest)
            rules.enter(Guest(f"new {number}", since=LONG_S))
    # One place stays with the old client: then it has no more than anybody.
    assert gone == guests[: len(gone)]
    assert len(gone) in (9, 10)
    assert len(rules) == 10


def test_the_order_is_not_used_for_ever() -> None:
    """Who was slowest long ago may have sent a great deal since."""
    guests = [Guest("a", octets_received=number) for number in range(4)]
    rules = house_of(*guests, Guest("b"))
    assert rules.who_makes_room("c", LONG_S) is guests[0]
    rules.leave(guests[0])
    guests[1].octets_received = 10**6
    assert rules.who_makes_room("d", LONG_S + RANKING_S) is guests[2]


def test_who_has_left_since_does_not_stand_in_the_way_of_others() -> None:
    leaving, staying, slow = Guest("a"), Guest("b", octets_received=10), Guest("c", octets_received=1)
    rules = house_of(leaving, staying, slow)
    assert rules.who_makes_room("new", LONG_S) is leaving
    rules.leave(leaving)
    rules.leave(slow)
    assert rules.who_makes_room("newer", LONG_S) is staying
    assert rules.who_makes_room("newest", 2 * LONG_S) is staying


def test_a_client_that_has_become_the_busiest_since_is_found() -> None:
    rules = house_of(Guest("a"), Guest("b", octets_received=5), Guest("c", octets_received=6))
    first = rules.who_makes_room("new", LONG_S)
    assert first is not None
    rules.leave(first)
    crowd = [Guest("crowd", since=LONG_S) for _ in range(5)]
    for guest in crowd:
        rules.enter(guest)
    assert rules.who_makes_room("newer", 2 * LONG_S) in crowd


# ---------------------------------------------------------------------- any sequence of events


class AnySequence(RuleBasedStateMachine):
    """Guests come, go, progress and are served; whoever has to make room is one that the rules allow."""

    @initialize(room=st.integers(1, 8), per_client=st.integers(1, 4))
    def open(self, room: int, per_client: int) -> None:
        self.admission: Admission[Guest] = Admission(room, per_client)
        self.room = room
        self.per_client = per_client
        self.guests: list[Guest] = []
        self.now = 1000.0

    @rule(client=st.sampled_from("abc"), octets=st.integers(0, 3))
    def come(self, client: str, octets: int) -> None:
        held = self.held(client)
        assert self.admission.has_room_for(client) == (held < self.per_client)
        assert self.admission.is_full == (len(self.guests) >= self.room)
        if held >= self.per_client:
            return
        if self.admission.is_full:
            leaving = self.admission.who_makes_room(client, self.now)
            if leaving is None:
                return
            assert leaving in self.guests
            assert leaving.may_leave
            assert self.held(leaving.client) > held
            assert self.held(leaving.client) > 1 or self.now - leaving.since >= SETTLING_S
            self.guests.remove(leaving)
            self.admission.leave(leaving)
        guest = Guest(client, self.now, octets)
        self.guests.append(guest)
        self.admission.enter(guest)

    @rule(client=st.sampled_from("abc"))
    def after_a_while_whoever_may_come_does(self, client: str) -> None:
        """However the order stood before: once it is made anew, a place is found where there is one to be found."""
        self.now += LONG_S
        leaving = self.admission.who_makes_room(client, self.now)
        most = max(map(self.held, "abc"))
        eligible = [guest for guest in self.guests if self.held(guest.client) == most and guest.may_leave]
        if most <= self.held(client) or not eligible:
            assert leaving is None
        else:
            assert leaving in eligible
            # Where several clients have as many, it is the turn of one of them, by whatever order.
            rivals = [guest for guest in eligible if most == 1 or guest.client == leaving.client]
            least = min(guest.octets_received / (self.now - guest.since) for guest in rivals)
            assert leaving.octets_received / (self.now - leaving.since) == least

    @rule(index=st.integers(0, 100))
    def go(self, index: int) -> None:
        if self.guests:
            guest = self.guests.pop(index % len(self.guests))
            self.admission.leave(guest)
            self.admission.leave(guest)

    @rule(index=st.integers(0, 100), octets=st.integers(0, 50), served=st.booleans())
    def progress(self, index: int, octets: int, served: bool) -> None:
        if self.guests:
            guest = self.guests[index % len(self.guests)]
            guest.octets_received += octets
            guest.may_leave = not served

    @rule(seconds=st.sampled_from([0.0, RANKING_S / 2, RANKING_S, SETTLING_S]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def everybody_is_counted(self) -> None:
        if hasattr(self, "admission"):
            assert len(self.admission) == len(self.guests)

    def held(self, client: str) -> int:
        return sum(guest.client == client for guest in self.guests)


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 5)), min_size=1, max_size=12))
def test_an_attacker_with_many_places_never_takes_that_of_a_client_with_one(held: list[tuple[str, int]]) -> None:
    guests = [Guest(client, octets_received=octets) for client, octets in held]
    guests += [Guest("attacker", octets_received=10**6) for _ in range(13)]
    rules = house_of(*guests)
    for _ in range(3):
        leaving = rules.who_makes_room("new", LONG_S)
        assert leaving is not None
        assert leaving.client == "attacker"
        rules.leave(leaving)


# ---------------------------------------------------------------------- what clients see


@pytest.fixture
def soon_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for seconds in a test."""
    monkeypatch.setattr(admission, "SETTLING_S", 1e-6)
    monkeypatch.setattr(admission, "RANKING_S", 0.0)


async def greet(caller: Caller) -> None:
    assert await caller.code() == "220"


@pytest.mark.usefixtures("soon_settled")
async def test_the_busiest_client_makes_room_for_a_newcomer() -> None:
    async with (
        open_house(quick_settings(max_connections=3)) as house,
        call(house, "127.0.0.2") as idle,
        call(house, "127.0.0.2") as busy,
        call(house, "127.0.0.3") as other,
    ):
        await greet(idle)
        await busy.greeted()
        await busy.say(b"NOOP\r\n" * 500)
        assert await busy.codes(500) == ["250"] * 500
        await greet(other)
        async with call(house, "127.0.0.4") as newcomer:
            await greet(newcomer)
            assert (await idle.line() or "").startswith("421 4.3.2 mx.example.org ")
            assert await idle.line() is None
            for caller in (busy, other, newcomer):
                assert (await caller.ask("NOOP") or "").startswith("250 ")
        assert house.statistics.connections_given_up == 1
        assert house.statistics.connections_turned_away == 0


@pytest.mark.usefixtures("soon_settled")
async def test_one_in_a_transaction_can_be_chosen_and_leaves_nothing_behind() -> None:
    async with (
        open_house(quick_settings(max_connections=2)) as house,
        call(house, "127.0.0.2") as one,
        call(house, "127.0.0.2") as two,
    ):
        for caller in (one, two):
            await caller.in_content()
        async with call(house, "127.0.0.4") as newcomer:
            await greet(newcomer)
        house.shutdown.set()
        await two.say(b"text\r\n.\r\n")
        await one.say(b"text\r\n.\r\n")
        replies = sorted([await one.code(), await two.code()])
        await house.ended.wait()
        assert replies == ["250", "421"]
        assert (len(house.mailbox.messages), house.mailbox.resets) == (1, 1)


@pytest.mark.usefixtures("soon_settled")
async def test_a_newcomer_of_the_busiest_client_is_turned_away() -> None:
    async with (
        open_house(quick_settings(max_connections=3)) as house,
        call(house, "127.0.0.2") as one,
        call(house, "127.0.0.2") as two,
        call(house, "127.0.0.3") as other,
    ):
        for caller in (one, two, other):
            await greet(caller)
        async with call(house, "127.0.0.2") as newcomer:
            assert (await newcomer.line() or "").startswith("421 mx.example.org ")
            assert await newcomer.line() is None
        for caller in (one, two, other):
            assert (await caller.ask("NOOP") or "").startswith("250 ")


async def test_those_who_have_just_come_are_left_in_peace() -> None:
    async with (
        open_house(quick_settings(max_connections=2)) as house,
        call(house, "127.0.0.2") as one,
        call(house, "127.0.0.3") as two,
    ):
        for caller in (one, two):
            await greet(caller)
        async with call(house, "127.0.0.4") as newcomer:
            assert (await newcomer.line() or "").startswith("421 mx.example.org ")
        for caller in (one, two):
            assert (await caller.ask("NOOP") or "").startswith("250 ")


class Promising(MemoryReceiver):
    """Says that it is asked, and waits for a sign before it promises."""

    def __init__(self, mailbox: Mailbox, asked: trio.Event, sign: trio.Event) -> None:
        super().__init__(mailbox)
        self.asked = asked
        self.sign = sign

    async def end_of_data(self) -> Reply:
        self.asked.set()
        await self.sign.wait()
        return await super().end_of_data()


@dataclass
class Signs:
    """Between a test and the receivers of its house."""

    asked: trio.Event = field(default_factory=trio.Event)
    sign: trio.Event = field(default_factory=trio.Event)
    mailbox: Mailbox = field(default_factory=Mailbox)


@pytest.mark.usefixtures("soon_settled")
async def test_a_session_in_the_receivers_hands_is_never_chosen() -> None:
    signs = Signs()
    async with (
        open_house(
            quick_settings(max_connections=2),
            new_receiver=lambda peer: Promising(signs.mailbox, signs.asked, signs.sign),
        ) as house,
        call(house, "127.0.0.2") as served,
        call(house, "127.0.0.2") as waiting,
    ):
        await served.in_content()
        await served.say(b"x\r\n.\r\n")
        await signs.asked.wait()
        await waiting.greeted()
        await waiting.say(b"NOOP\r\n" * 500)
        assert await waiting.codes(500) == ["250"] * 500
        async with call(house, "127.0.0.3") as newcomer, call(house, "127.0.0.4") as another:
            # The other of the two, although it has progressed more; and then nobody is left who may go.
            await greet(newcomer)
            assert (await waiting.line() or "").startswith("421 4.3.2 ")
            signs.sign.set()
            assert await served.code() == "250"
            assert len(signs.mailbox.messages) == 1
            assert await another.code() in ("220", "421")


async def _come_and_go(house: House, source: str) -> None:
    async with call(house, source) as caller:
        await caller.reply()


@pytest.mark.usefixtures("soon_settled")
async def test_a_crowd_that_comes_and_goes_is_counted_rightly() -> None:
    async with open_house(quick_settings(max_connections=5, max_connections_per_client=3)) as house:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(_come_and_go, house, f"127.0.0.{2 + number % 9}")
        while house.statistics.connections_open:
            await trio.lowlevel.checkpoint()
        # Everybody has left: there is room for as many as ever.
        async with call(house) as a, call(house) as b, call(house) as c, call(house) as d:
            for caller in (a, b, c):
                await greet(caller)
            assert await d.code() == "421"
        assert house.statistics.connections_accepted == 104
