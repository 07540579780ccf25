"""Mail in transit to several next hops that do not agree: what is known when the sender tries again, and how
that is kept.
"""

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from scripted_next_hops import ScriptedHops, later, never
from transit_house import ALIASES, CONTENT, LONG_SENDER, SENDER, TARGETS, House
from values import NOW

from appliance.model.delivery import Deferred, Failed
from appliance.model.event import EventType
from appliance.privacy.declarations import TRANSIT_DELIVERED, TRANSIT_REFUSED, Collection
from appliance.storage.ephemeral import lifetime_ms
from appliance.storage.memory_ephemeral import MemoryEphemeral
from appliance.storage.records import StoreUnavailable
from smtp.address import Address
from smtp.parameters import MailParameters

# ---------------------------------------------------------------------- several next hops, and the sender's retry


async def test_different_answers_are_a_4xx_and_the_retry_skips_who_has_it() -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": later(451, "4.3.0")}))
    reply = await house.final("team")
    assert (reply.code, reply.enhanced) == (451, "4.3.0")
    assert house.hops.mailboxes == ["alice@home.test"]
    house.hops.at_the_end.clear()
    _, ended = await house.transact("team")
    assert ended is not None
    assert ended.reply.code == 250
    assert house.hops.mailboxes == ["alice@home.test", "carol@work.test"]
    assert [str(delivery.target) for _, delivery, _ in ended.attempts] == ["carol@work.test"], "alice's was told before"


async def test_it_is_skipped_as_often_as_the_sender_has_to_come() -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": later()}))
    for _ in range(4):
        assert (await house.final("team")).transient
        house.clock.now += 86_400
    house.hops.at_the_end.clear()
    assert (await house.final("team")).code == 250
    assert house.hops.mailboxes == ["alice@home.test", "carol@work.test"]


async def test_a_mailbox_at_the_same_server_is_sent_to_alone_when_the_other_has_it() -> None:
    house = House(ScriptedHops(at_the_end={"bob@home.test": later()}))
    assert (await house.final("both")).transient
    house.hops.at_the_end.clear()
    assert (await house.final("both")).code == 250
    assert house.hops.mailboxes == ["alice@home.test", "bob@home.test"]


async def test_a_retry_for_one_recipient_alone_knows_who_has_it() -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": later()}))
    assert (await house.final("ali", "carol")).transient
    assert (await house.final("ali")).code == 250
    assert house.hops.mailboxes == ["alice@home.test"]


async def test_the_retry_may_be_signed_and_stamped_anew() -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": later()}))
    assert (await house.final("team", content=b"DKIM-Signature: t=1\r\n" + CONTENT)).transient
    house.hops.at_the_end.clear()
    assert (await house.final("team", content=b"DKIM-Signature: t=2\r\nReceived: x\r\n" + CONTENT)).code == 250
    assert house.hops.mailboxes == ["alice@home.test", "carol@work.test"]


OTHER_ID = CONTENT.replace(b"<1@", b"<2@")
NO_ID = b"Subject: Apples\r\n\r\nHello\r\n"


@pytest.mark.parametrize(
    ("first", "second", "alias", "sender"),
    [
        (CONTENT, OTHER_ID, "team", SENDER),
        (CONTENT, CONTENT + b"More\r\n", "team", SENDER),
        (CONTENT.replace(b"Apples", b"Pears"), CONTENT, "team", SENDER),
        (CONTENT.replace(b"From: friend", b"From: fiend"), CONTENT, "team", SENDER),
        (NO_ID, b"X: y\r\n" + NO_ID, "team", SENDER),
        (CONTENT, CONTENT, "trio", SENDER),
        (CONTENT, CONTENT, "team", Address.parse("other@sender.test")),
        (CONTENT, CONTENT, "team", None),
    ],
    ids=["Message-ID", "body", "Subject", "From", "header without Message-ID", "alias", "sender", "null sender"],
)
async def test_another_message_is_not_taken_for_the_retry(
    first: bytes, second: bytes, alias: str, sender: Address | None
) -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": later()}))
    assert (await house.final("team", content=first)).transient
    house.hops.at_the_end.clear()
    assert (await house.final(alias, content=second, sender=sender)).code == 250
    assert house.hops.mailboxes.count("alice@home.test") == 2


async def test_the_same_message_once_more_after_a_250_is_a_new_one() -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": later()}))
    await house.final("team")
    house.hops.at_the_end.clear()
    assert (await house.final("team")).code == 250
    assert (await house.final("team")).code == 250
    assert house.hops.mailboxes == ["alice@home.test"] * 2 + ["carol@work.test"] * 2


async def test_after_a_refusal_of_all_nothing_is_skipped() -> None:
    house = House(ScriptedHops(at_the_end={"alice@home.test": never()}))
    assert (await house.final("ali")).permanent
    house.hops.at_the_end.clear()
    assert (await house.final("ali")).code == 250
    assert house.hops.mailboxes == ["alice@home.test"]


async def test_who_has_it_is_not_even_asked_and_can_hold_nobody_up() -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": later()}))
    assert (await house.final("team")).transient
    house.hops.at_the_end.clear()
    house.hops.at_rcpt["alice@home.test"] = never()
    assert (await house.final("team")).code == 250
    assert house.hops.mailboxes == ["alice@home.test", "carol@work.test"]


async def test_what_refuses_for_one_recipient_may_be_there_for_another() -> None:
    house = House(ScriptedHops(at_the_end={"alice@home.test": later()}))
    assert (await house.final("team")).transient
    house.hops.at_the_end.clear()
    house.hops.at_rcpt |= {"alice@home.test": never(), "carol@work.test": never()}
    # Of the first one's mailboxes one takes it. Of the second one's none would, but one has it.
    assert (await house.final("trio", "team")).code == 250
    assert house.hops.mailboxes == ["carol@work.test", "dave@far.test"]


@pytest.mark.parametrize(("refusal", "code"), [(never(), 550), (later(), 450)])
async def test_a_mailbox_that_only_seemed_to_have_it_is_asked_at_the_end(refusal: Deferred | Failed, code: int) -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": later()}))
    assert (await house.final("ali", "carol")).transient
    house.hops.at_rcpt["alice@home.test"] = refusal
    assert (await house.final("ali", content=OTHER_ID)).code == code
    house.hops.at_rcpt.clear()
    assert (await house.final("ali", content=OTHER_ID)).code == 250
    assert house.hops.mailboxes == ["alice@home.test"] * 2


async def test_an_alias_that_failed_for_good_is_refused_at_the_retrys_rcpt() -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": never(552, "5.3.4", "too large for carol@work.test")}))
    first = await house.final("ali", "carol")
    assert (first.code, first.enhanced) == (451, "4.0.0")
    refusals, ended = await house.transact("ali", "carol")
    assert refusals[0] is None
    assert refusals[1] is not None
    assert (refusals[1].reply.code, refusals[1].reply.enhanced) == (552, "5.3.4")
    assert "carol" not in refusals[1].reply.text
    assert ended is not None
    assert ended.reply.code == 250
    assert house.hops.mailboxes == ["alice@home.test"], "once, in both transactions together"


async def test_that_is_said_once_and_not_to_a_message_that_looks_different() -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": never()}))
    declared = MailParameters(size=4000, envid="a")
    assert (await house.final("ali", "carol", parameters=declared)).transient
    house.hops.at_the_end.clear()
    assert await house.at_rcpt("carol", parameters=MailParameters(size=4001, envid="a")) is None
    assert await house.at_rcpt("carol", parameters=MailParameters(size=4000, envid="b")) is None
    assert await house.at_rcpt("carol", parameters=declared, sender=None) is None
    assert await house.at_rcpt("ali", parameters=declared) is None
    assert await house.at_rcpt("carol", parameters=declared) is not None
    assert await house.at_rcpt("carol", parameters=declared) is None


@pytest.mark.parametrize(("size", "heard"), [(4000, True), (None, False)])
async def test_without_a_size_only_the_same_client_comes_again(size: int | None, heard: bool) -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": never()}))
    declared = MailParameters(size=size)
    assert (await house.final("ali", "carol", sender=None, parameters=declared)).transient
    house.hops.at_the_end.clear()
    reply = await house.at_rcpt("carol", None, declared, client="192.0.2.99")
    assert (reply is not None) is heard
    assert (await house.at_rcpt("carol", None, declared) is None) is heard


async def test_both_kinds_of_memory_end(autojump_clock: trio.testing.MockClock) -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": never()}))
    assert (await house.final("ali", "carol")).transient
    house.clock.now += lifetime_ms(TRANSIT_REFUSED) / 1000 + 1
    assert (await house.final("ali", "carol")).transient, "the refusal was forgotten, and said once more"
    assert house.hops.mailboxes == ["alice@home.test"]
    house.clock.now += lifetime_ms(TRANSIT_DELIVERED) / 1000 + 1
    await house.final("ali", "carol")
    assert house.hops.mailboxes == ["alice@home.test"] * 2


async def test_a_5xx_never_follows_a_delivery() -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": never(), "dave@far.test": later()}))
    assert (await house.final("trio")).transient
    house.hops.at_the_end["dave@far.test"] = never()
    assert (await house.final("trio")).code == 250, "alice has it, and nobody else will"
    assert house.hops.mailboxes == ["alice@home.test"]


async def test_while_the_store_is_away_mail_goes_on_and_a_retry_may_double() -> None:
    class Away(MemoryEphemeral):
        def remember(self, what: Collection, key: bytes, value: bytes = b"", group: bytes = b"") -> None:
            raise StoreUnavailable("away")

        def recall(self, what: Collection, key: bytes) -> bytes | None:
            raise StoreUnavailable("away")

        def forget(self, what: Collection, key: bytes) -> bytes | None:
            raise StoreUnavailable("away")

    house = House(ScriptedHops(at_the_end={"carol@work.test": later()}))
    house.remember_in(Away())
    assert (await house.final("team")).transient
    house.hops.at_the_end.clear()
    assert (await house.final("team")).code == 250
    assert house.hops.mailboxes == ["alice@home.test"] * 2 + ["carol@work.test"]
    with pytest.raises(StoreUnavailable):
        house.memory.return_path("token")


# ---------------------------------------------------------------------- what is remembered, and how


async def test_a_sender_too_long_to_be_carried_is_found_by_its_token() -> None:
    house = House()
    assert (await house.final("ali", sender=LONG_SENDER)).code == 250
    return_path = Address.parse(house.hops.deliveries[0].return_path)
    opened = house.rewriter.open(return_path, NOW, house.memory.return_path)
    assert str(opened.sender) == str(LONG_SENDER)


async def test_what_is_remembered_names_nobody() -> None:
    class Watched(MemoryEphemeral):
        octets = b""

        def remember(self, what: Collection, key: bytes, value: bytes = b"", group: bytes = b"") -> None:
            Watched.octets += key + b"\n" + value + b"\n"
            super().remember(what, key, value, group)

    house = House(ScriptedHops(at_the_end={"carol@work.test": never(), "dave@far.test": later()}))
    house.remember_in(Watched())
    assert (await house.final("ali", "carol", "trio", sender=LONG_SENDER)).transient
    assert len(Watched.octets) > 100
    for name in (b"sender", b"xxxxxx", b"alice", b"carol", b"example", b"mailbox"):
        assert name not in Watched.octets


async def test_events_tell_of_what_was_delivered_in_spite_of_a_4xx() -> None:
    house = House(ScriptedHops(at_the_end={"carol@work.test": later(text="carol@work.test is over quota")}))
    _, ended = await house.transact("ali", "carol")
    assert ended is not None
    assert [(type, str(delivery.target)) for type, delivery, _ in ended.attempts] == [
        (EventType.DELIVERED, "alice@home.test")
    ]
    ((recipient, told),) = ended.refused
    assert (recipient.address, told.text) == ("carol@example.org", "carol@example.org is over quota")


@dataclass
class Weather:
    """What mailboxes say from one attempt to the next: some are busy now and then, some have made up their minds."""

    lots: random.Random
    made_up: dict[str, Failed] = field(default_factory=dict)

    def blow(self, hops: ScriptedHops) -> None:
        """Change what is said."""
        hops.at_rcpt.clear()
        hops.at_the_end.clear()
        for mailbox in TARGETS:
            if mailbox in self.made_up or self.lots.random() < 0.15:
                # When it refuses may differ; that it does, does not.
                refusal = self.made_up.setdefault(mailbox, never())
                (hops.at_rcpt if self.lots.random() < 0.5 else hops.at_the_end)[mailbox] = refusal
            elif self.lots.random() < 0.4:
                (hops.at_rcpt if self.lots.random() < 0.3 else hops.at_the_end)[mailbox] = later()


async def _until_nothing_is_left(house: House, weather: Weather, wanted: list[str]) -> dict[str, int]:
    """A sender that keeps to the standard: it tries again for whoever was put off. The last code for each recipient."""
    fates: dict[str, int] = {}
    for _ in range(200):
        left = [alias for alias in wanted if alias not in fates]
        if not left:
            return fates
        weather.blow(house.hops)
        refusals, ended = await house.transact(*left)
        for alias, refusal in zip(left, refusals, strict=True):
            reply = refusal.reply if refusal else ended.reply if ended else None
            assert reply is not None
            if not reply.transient:
                fates[alias] = reply.code
    raise AssertionError(f"it never ends: {weather}")


@pytest.mark.parametrize("seed", range(100))
async def test_however_they_answer_each_mailbox_gets_one_copy_and_each_recipient_a_true_answer(seed: int) -> None:
    house, weather = House(), Weather(random.Random(seed))
    wanted = weather.lots.sample(["ali", "carol", "both", "team", "trio"], weather.lots.randint(1, 5))
    fates = await _until_nothing_is_left(house, weather, wanted)
    copies = Counter(
        (recipient.address.partition("@")[0], str(delivery.target))
        for delivery in house.hops.deliveries
        for recipient in delivery.recipients
    )
    assert set(copies.values()) <= {1}
    for alias, code in fates.items():
        mailboxes = set(ALIASES[alias])
        if code == 250:
            # One copy is for all the recipients of a transaction that lead there.
            have_it = mailboxes & set(house.hops.mailboxes)
            assert have_it, "somebody has it"
            assert mailboxes - have_it <= set(weather.made_up), "and who has not does not want it"
        else:
            assert not any(copies[alias, mailbox] for mailbox in mailboxes), "a 5xx never follows a delivery"
            assert mailboxes <= set(weather.made_up)
