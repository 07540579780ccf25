"""Nothing is forwarded before a mailbox's owner agrees: the letters, their links, and how few of them there are."""

import re
from dataclasses import dataclass, field, replace

import pytest
from accounts_office import NOON, OWN_NAMES, PLANS, Office

from appliance.accounts.aliases import AliasChanges, Aliases, ListedAlias
from appliance.accounts.consent import ANSWER_MS, PER_ACCOUNT, PER_MAILBOX, Consent
from appliance.model.domain import AliasAction
from appliance.model.ids import id_source
from appliance.model.letter import Letter, LetterRefused, NotPosted
from appliance.model.refused import Refused, TooMany
from appliance.model.time import DAY_MS
from appliance.privacy.declarations import (
    ALIASES,
    ASKED_MAILBOXES,
    CONFIRMATIONS,
    DESTINATIONS,
    NEVER_ASKED,
    Store,
    collections_of,
)
from appliance.privacy.sealing import Sealer
from appliance.storage.records import Delete

YES = "confirm-destination"
NEVER = "never-ask-again"


@dataclass
class PostOffice:
    """Keeps the letters, and is closed now and then."""

    letters: list[Letter] = field(default_factory=list)
    closed: bool = False
    unknown: str = ""
    """An address to which there is no way."""
    tries: int = 0

    def send(self, letter: Letter) -> None:
        self.tries += 1
        if letter.recipient == self.unknown:
            raise LetterRefused("there is no such address")
        if self.closed:
            raise NotPosted("closed")
        self.letters.append(letter)

    def token(self, link: str = YES) -> str:
        """Of the last letter."""
        found = re.search(rf"https://onward\.test/{link}/(\S+)", self.letters[-1].text)
        assert found, self.letters[-1].text
        return found[1]


@dataclass
class Watch:
    """A clock that stands until it is set."""

    now: int = NOON

    def read(self) -> int:
        return self.now


@dataclass
class Asking:
    """An account with a domain, that can have owners of mailboxes asked."""

    office: Office
    post: PostOffice
    consent: Consent
    aliases: Aliases
    watch: Watch

    def make(self, name: str, *destinations: str) -> ListedAlias:
        return self.aliases.add(f"{name}@example.org", destinations)


@pytest.fixture
def asking(office: Office) -> Asking:
    """An account with a verified domain."""
    post = PostOffice()
    link = "https://onward.test/{}/{}".format
    watch = Watch()
    consent = Consent(office.records, link, Sealer(bytes(32)), watch.read)
    aliases = Aliases(office.records, PLANS, OWN_NAMES, watch.read, id_source(), consent=(consent, post))
    office.domain("example.org", office.account())
    return Asking(office, post, consent, aliases, watch)


def test_an_owner_is_asked_and_agrees(asking: Asking) -> None:
    made = asking.make("info", "Ada@Home.test")
    assert made.destinations == (("Ada@home.test", False),)
    assert (made.asked, made.unasked) == (("ada@home.test",), ())
    (letter,) = asking.post.letters
    assert letter.recipient == "ada@home.test"
    assert "example.org" in letter.subject
    assert "ada@people.test" in letter.text, "who asks is told"
    generation = asking.office.generation()
    confirmed = asking.consent.confirm(asking.post.token())
    assert (confirmed.target, confirmed.confirmed_at) == ("ada@home.test", NOON)
    assert [each.destinations for each in asking.aliases.every()] == [(("Ada@home.test", True),)]
    assert asking.office.generation() == generation + 1, "routing is told"


def test_a_link_says_yes_once(asking: Asking) -> None:
    asking.make("info", "ada@home.test")
    token = asking.post.token()
    asking.consent.confirm(token)
    with pytest.raises(Refused, match="used already") as refused:
        asking.consent.confirm(token)
    assert (refused.value.field, refused.value.code) == ("token", "LINK_INVALID")


def test_of_several_links_each_does_and_the_others_are_void_then(asking: Asking) -> None:
    made = asking.make("info", "ada@home.test")
    first = asking.post.token()
    asking.aliases.update(made.alias, made.domain, AliasChanges(destinations=["ada@home.test"]))
    second = asking.post.token()
    assert first != second
    asking.consent.confirm(first)
    with pytest.raises(Refused):
        asking.consent.confirm(second)


def test_a_yes_comes_within_a_week_and_a_no_may_take_longer(asking: Asking) -> None:
    asking.make("info", "ada@home.test")
    asking.watch.now += ANSWER_MS
    with pytest.raises(Refused, match="too old"):
        asking.consent.confirm(asking.post.token())
    asking.consent.never_again(asking.post.token(NEVER))
    assert asking.office.records.count(NEVER_ASKED, {}) == 1


@pytest.mark.parametrize("token", ["", "x", "\ud800", "a" * 10_000])
def test_what_is_no_link_of_ours_is_refused(asking: Asking, token: str) -> None:
    asking.make("info", "ada@home.test")
    for act in (asking.consent.confirm, asking.consent.never_again):
        with pytest.raises(Refused):
            act(token)


def test_no_link_and_no_address_of_who_wants_peace_can_be_read_from_the_store(asking: Asking) -> None:
    asking.make("info", "ada@home.test")
    token = asking.post.token()
    asking.consent.never_again(token)
    rows = [
        *asking.office.records.find(CONFIRMATIONS, {}),
        *asking.office.records.find(ASKED_MAILBOXES, {}),
        *asking.office.records.find(NEVER_ASKED, {}),
    ]
    assert rows
    assert "ada@home.test" not in str(rows)
    assert token not in str(rows)


def test_who_wants_no_letters_gets_none_whoever_asks(asking: Asking) -> None:
    asking.make("info", "ada@home.test")
    asking.consent.never_again(asking.post.token(NEVER))
    asking.office.domain("bob.test", asking.office.account("bob@people.test"))
    for address in ("sales@example.org", "a@bob.test"):
        with pytest.raises(Refused, match="does not want to be asked") as refused:
            asking.aliases.add(address, ["ADA@home.test"])
        assert (refused.value.field, refused.value.code) == ("destinations", "NOT_TO_BE_ASKED")
    with pytest.raises(Refused, match="used already"):
        asking.consent.confirm(asking.post.token())
    assert len(asking.post.letters) == 1
    assert asking.office.records.count(ALIASES, {}) == 1, "what is refused leaves nothing"


def test_to_want_no_letters_can_be_said_twice(asking: Asking) -> None:
    asking.make("info", "ada@home.test")
    first = asking.post.token(NEVER)
    asking.office.domain("bob.test", asking.office.account("bob@people.test"))
    asking.consent.never_again(first)
    asking.office.records.apply([Delete(NEVER_ASKED, {})])
    asking.aliases.add("a@bob.test", ["ada@home.test"])
    asking.consent.never_again(asking.post.token(NEVER))
    assert asking.office.records.count(NEVER_ASKED, {}) == 1
    assert asking.office.records.count(CONFIRMATIONS, {}) == 0


def test_a_mailbox_gets_few_letters_in_a_week_whoever_asks(asking: Asking) -> None:
    accounts = [asking.office.account(f"{n}@people.test") for n in range(PER_MAILBOX + 1)]
    for number, account in enumerate(accounts[:-1]):
        asking.office.domain(f"d{number}.test", account)
        asking.aliases.add(f"a@d{number}.test", ["ada@home.test"])
    asking.office.domain("last.test", accounts[-1])
    with pytest.raises(TooMany, match="3 times within a week"):
        asking.aliases.add("a@last.test", ["Ada@home.test"])
    assert len(asking.post.letters) == PER_MAILBOX
    assert asking.office.records.count(ALIASES, {}) == PER_MAILBOX
    asking.watch.now += 7 * DAY_MS + 1
    asking.aliases.add("a@last.test", ["ada@home.test"])
    assert len(asking.post.letters) == PER_MAILBOX + 1


def test_many_aliases_for_one_mailbox_are_one_question(asking: Asking) -> None:
    for number in range(PER_MAILBOX + 2):
        made = asking.make(f"a{number}", "ada@home.test")
        assert (made.asked, made.unasked) == (("ada@home.test",) if number == 0 else (), ())
    # One more destination beside it is asked by itself.
    both = asking.aliases.update(made.alias, made.domain, AliasChanges(destinations=["ada@home.test", "b@home.test"]))
    assert both.asked == ("b@home.test",)
    # The same ones once more: that is for those who have lost the letter.
    again = asking.aliases.update(both.alias, both.domain, AliasChanges(destinations=["ada@home.test", "b@home.test"]))
    assert set(again.asked) == {"ada@home.test", "b@home.test"}
    asking.consent.confirm(asking.post.token())
    assert asking.office.records.count(ALIASES, {}) == PER_MAILBOX + 2


def test_a_letter_says_where_a_domain_is_only_claimed(asking: Asking) -> None:
    account = asking.office.account("bob@people.test")
    for name, verified in (("bank.test", False), ("bob.test", True)):
        asking.office.domain(name, account, verified=verified)
        asking.aliases.add(f"a@{name}", [f"ada@{name}.home.test"])
        assert (f"not shown yet that {name} is theirs" in asking.post.letters[-1].text) is not verified


def test_who_is_asked_by_a_link_that_has_become_too_old_is_asked_anew(asking: Asking) -> None:
    asking.make("a", "ada@home.test")
    asking.watch.now += 7 * DAY_MS
    assert asking.make("b", "ada@home.test").asked == ("ada@home.test",)


def test_what_stands_behind_a_plus_brings_one_reader_no_further_letters(asking: Asking) -> None:
    for number in range(PER_MAILBOX):
        asking.make(f"a{number}", f"ada+{number}@home.test")
    with pytest.raises(TooMany, match="3 times within a week"):
        asking.make("more", "ada+more@home.test")
    asking.consent.never_again(asking.post.token(NEVER))
    asking.watch.now += 7 * DAY_MS + 1
    for address in ("ada@home.test", "ada+more@home.test"):
        with pytest.raises(Refused, match="does not want to be asked"):
            asking.make("more", address)
    asking.make("more", "adalbert@home.test", "ada@other.test")
    assert len(asking.post.letters) == PER_MAILBOX + 2


def test_deleting_the_account_that_asked_brings_no_further_letters(asking: Asking) -> None:
    declared = [(each, each.belongs_to) for each in collections_of(Store.RECORDS)]
    of_accounts = [(each, whose.by) for each, whose in declared if whose and whose.owner == "accounts"]
    for number in range(PER_MAILBOX):
        bob = asking.office.account("bob@people.test")
        asking.office.domain("again.test", bob)
        asking.aliases.add("a@again.test", ["ada@home.test"])
        for domain in asking.office.domains.page(bob.id, None, 10):
            asking.office.domains.erase(domain)
        asking.office.records.apply([Delete(each, {by: bob.id}) for each, by in of_accounts])
        assert len(asking.post.letters) == number + 1
    with pytest.raises(TooMany):
        asking.make("info", "ada@home.test")


def test_an_account_has_few_letters_sent_in_a_day(asking: Asking) -> None:
    for number in range(PER_ACCOUNT // 10):
        asking.make(f"a{number}", *(f"m{number}.{n}@home.test" for n in range(10)))
    with pytest.raises(TooMany, match="go on tomorrow"):
        asking.make("more", "ada@home.test")
    asking.office.domain("bob.test", asking.office.account("bob@people.test"))
    asking.aliases.add("a@bob.test", ["ada@home.test"])
    asking.watch.now += DAY_MS + 1
    asking.make("more", "ada@home.test")


def test_a_letter_that_could_not_be_sent_is_told_and_sent_when_the_destinations_are_set_again(asking: Asking) -> None:
    asking.post.closed = True
    made = asking.make("info", "ada@home.test")
    assert (made.asked, made.unasked) == ((), ("ada@home.test",))
    asking.post.closed = False
    again = asking.aliases.update(made.alias, made.domain, AliasChanges(destinations=["ada@home.test"]))
    assert again.asked == ("ada@home.test",)
    asking.consent.confirm(asking.post.token())


def test_a_post_that_is_closed_is_waited_for_once(asking: Asking) -> None:
    asking.post.closed = True
    made = asking.make("info", "ada@home.test", "bob@home.test", "eve@home.test")
    assert made.unasked == ("ada@home.test", "bob@home.test", "eve@home.test")
    assert asking.post.tries == 1


def test_an_address_to_which_there_is_no_way_keeps_no_letter_from_the_others(asking: Asking) -> None:
    asking.post.unknown = "ada@home.test"
    made = asking.make("info", "ada@home.test", "bob@home.test")
    assert (made.asked, made.unasked) == (("bob@home.test",), ("ada@home.test",))


def test_who_has_agreed_is_not_asked_again_and_other_changes_ask_nobody(asking: Asking) -> None:
    made = asking.make("info", "ada@home.test")
    asking.aliases.update(made.alias, made.domain, AliasChanges(enabled=False, description="shop"))
    assert len(asking.post.letters) == 1
    asking.consent.confirm(asking.post.token())
    asking.make("sales", "ada@home.test", "bob@home.test")
    assert [letter.recipient for letter in asking.post.letters] == ["ada@home.test", "bob@home.test"]


def test_nobody_is_asked_about_a_domain_that_the_account_has_verified(asking: Asking) -> None:
    asking.office.domain("own.test", asking.office.accounts.of("ada@people.test"))
    asking.office.domain("unproven.test", asking.office.accounts.of("ada@people.test"), verified=False)
    asking.office.domain("bob.test", asking.office.account("bob@people.test"))
    made = asking.make("info", "a@own.test", "b@example.org", "c@unproven.test", "d@bob.test")
    assert [confirmed for _, confirmed in made.destinations] == [True, True, False, False]
    assert [letter.recipient for letter in asking.post.letters] == ["c@unproven.test", "d@bob.test"]


def test_of_an_expression_the_owner_of_the_mailbox_itself_is_asked(asking: Asking) -> None:
    made = asking.make("/^a-(.+)$/", "Ada+$1@home.test")
    assert made.destinations == (("Ada+$1@home.test", False),)
    assert asking.post.letters[-1].recipient == "ada@home.test"
    asking.consent.confirm(asking.post.token())
    assert asking.make("/^b-(.+)$/", "ada+b.$1@home.test").destinations == (("ada+b.$1@home.test", True),)
    assert asking.make("plain", "ada+$1@home.test").destinations == (("ada+$1@home.test", False),), "a letter as others"


def test_a_question_goes_with_the_last_alias_that_it_was_about(asking: Asking) -> None:
    made = asking.make("info", "ada@home.test")
    token = asking.post.token()
    asking.aliases.delete(made.alias, made.domain)
    assert asking.office.records.count(DESTINATIONS, {}) == asking.office.records.count(CONFIRMATIONS, {}) == 0
    with pytest.raises(Refused):
        asking.consent.confirm(token)


def test_an_alias_that_leads_elsewhere_lets_go_of_where_it_led(asking: Asking) -> None:
    made = asking.make("info", "ada@home.test", "bob@home.test")
    changed = asking.aliases.update(
        made.alias, made.domain, AliasChanges(destinations=["bob@home.test", "c@home.test"])
    )
    assert changed.alias.targets == ("bob@home.test", "c@home.test")
    kept = {row["target"] for row in asking.office.records.find(DESTINATIONS, {})}
    assert kept == {"bob@home.test", "c@home.test"}
    shut = asking.aliases.update(changed.alias, changed.domain, AliasChanges(action=AliasAction.REJECT))
    assert shut.alias == replace(changed.alias, action=AliasAction.REJECT), "it can be opened again"
