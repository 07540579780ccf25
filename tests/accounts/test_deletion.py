"""Deletion: everything of an account goes at once, nothing of anybody else, and anyone can check the receipt."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from accounts_office import NOON, Office
from owned_rows import store_one_of_each
from stored_values import an_id

from appliance.accounts.deletion import Deletion, QueuedMail
from appliance.model.account import Account
from appliance.model.refused import Refused
from appliance.privacy.declarations import ACCOUNTS, ALIASES, DOMAINS
from appliance.privacy.owners import owned, owned_elsewhere
from appliance.privacy.signatures import Signer, is_signed
from appliance.storage.records import Delete, StoreUnavailable, Update


@dataclass
class Queue:
    """Mail under way in the engine, as deletion sees it."""

    waiting: dict[str, int] = field(default_factory=dict)
    """Deliveries by the domain that was written to."""
    answers: bool = True
    let_go_of: dict[str, str] = field(default_factory=dict)
    """Ids of domains by name, of which nothing is held any more."""

    def drop(self, domain: str) -> int:
        if not self.answers:
            raise StoreUnavailable("the engine does not answer")
        return self.waiting.pop(domain, 0)

    def let_go(self, given_up: Mapping[str, str]) -> None:
        self.let_go_of.update(given_up)


@pytest.fixture
def queue() -> Queue:
    """Empty, and answering."""
    return Queue()


@pytest.fixture
def deletion(office: Office, queue: Queue) -> Deletion:
    """With one thing to erase in each other store."""
    elsewhere = dict.fromkeys(owned_elsewhere(), lambda account_id: 1)
    return Deletion(
        office.records, Signer(bytes(32)), "mx.onward.test", queue.drop, queue.let_go, elsewhere, lambda: NOON
    )


def an_account(office: Office, number: int) -> Account:
    """With a row in every collection that belongs to accounts."""
    store_one_of_each(office.records, number)
    (account,) = (each for each in office.accounts.every() if each.id == an_id(number))
    return account


def rows(office: Office) -> dict[str, list[str]]:
    """By collection, the keys of all rows that belong to somebody."""
    found = {}
    for collection in owned():
        found[collection.name] = [str(row[collection.key[0]]) for row in office.records.find(collection, {})]
    return found


def test_everything_of_the_account_goes_and_nothing_of_anybody_else(office: Office, deletion: Deletion) -> None:
    """For every class of data that is declared: a new one is in here without a line of this test."""
    an_account(office, 2)
    alone = rows(office)
    ada = an_account(office, 1)
    assert all(len(keys) == 2 for keys in rows(office).values())
    receipt = deletion.delete(ada)
    assert rows(office) == alone
    removed = {each.collection: each.count for each in receipt.removed}
    assert removed == dict.fromkeys({*alone, *owned_elsewhere()}, 1)


def test_what_was_held_of_its_domains_is_let_go_of(office: Office, deletion: Deletion, queue: Queue) -> None:
    an_account(office, 2)
    ada = an_account(office, 1)
    office.records.apply([Update(DOMAINS, {"account_id": ada.id}, {"verified": True})])
    deletion.delete(ada)
    assert list(queue.let_go_of.values()) == [an_id(1)]


def test_a_receipt_can_be_checked_by_anyone_and_names_nobody(office: Office, deletion: Deletion) -> None:
    ada = an_account(office, 1)
    receipt = deletion.delete(ada)
    assert is_signed(receipt.signed_text, receipt.signature, receipt.public_key)
    assert not is_signed(
        receipt.signed_text.replace('"count":1', '"count":2', 1), receipt.signature, receipt.public_key
    )
    said = json.loads(receipt.signed_text)
    assert said == {
        "appliance": "mx.onward.test",
        "deletedAt": "2026-11-20T12:00:00.000Z",
        "removed": [{"collection": each.collection, "count": each.count} for each in receipt.removed],
    }
    assert receipt.deleted_at == NOON
    for personal in (ada.id, ada.email, "name 1"):
        assert personal not in receipt.signed_text


def test_routing_is_told(office: Office, deletion: Deletion) -> None:
    ada = an_account(office, 1)
    before = office.generation()
    deletion.delete(ada)
    assert office.generation() == before + 1


def test_an_account_that_is_gone_already_is_refused(office: Office, deletion: Deletion) -> None:
    ada = an_account(office, 1)
    deletion.delete(ada)
    with pytest.raises(Refused, match="any more"):
        deletion.delete(ada)


def test_mail_under_way_is_left_to_be_delivered_unless_it_is_to_be_dropped(
    office: Office, deletion: Deletion, queue: Queue
) -> None:
    ada = an_account(office, 1)
    queue.waiting = {"name 1": 3}
    receipt = deletion.delete(ada)
    assert queue.waiting == {"name 1": 3}
    assert "deliveries" not in {each.collection for each in receipt.removed}


def test_what_is_dropped_is_counted_and_other_domains_keep_theirs(
    office: Office, deletion: Deletion, queue: Queue
) -> None:
    ada = an_account(office, 1)
    queue.waiting = {"name 1": 3, "name 2": 2}
    receipt = deletion.delete(ada, QueuedMail.DROP)
    assert queue.waiting == {"name 2": 2}
    assert {each.collection: each.count for each in receipt.removed}["deliveries"] == 3


def test_a_domain_that_is_only_claimed_has_no_mail_to_drop(office: Office, deletion: Deletion, queue: Queue) -> None:
    ada = an_account(office, 1)
    office.records.apply([Update(DOMAINS, {"id": an_id(1)}, {"verified": False})])
    queue.waiting = {"name 1": 3}
    deletion.delete(ada, QueuedMail.DROP)
    assert queue.waiting == {"name 1": 3}


def test_where_mail_cannot_be_dropped_nothing_is_deleted(office: Office, deletion: Deletion, queue: Queue) -> None:
    ada = an_account(office, 1)
    before = rows(office)
    queue.answers = False
    with pytest.raises(StoreUnavailable):
        deletion.delete(ada, QueuedMail.DROP)
    assert rows(office) == before
    deletion.delete(ada)
    assert rows(office)["accounts"] == []


def test_an_account_without_a_domain_goes_as_well(office: Office, deletion: Deletion) -> None:
    ada = an_account(office, 1)
    office.records.apply([Delete(DOMAINS, {}), Delete(ALIASES, {})])
    deletion.delete(ada)
    assert office.records.count(ACCOUNTS, {}) == 0


def test_what_another_store_has_of_accounts_cannot_be_forgotten(office: Office) -> None:
    assert "sessions" in owned_elsewhere()
    with pytest.raises(ValueError, match="nothing erases sessions"):
        Deletion(office.records, Signer(bytes(32)), "mx.onward.test", Queue().drop, Queue().let_go, {})
