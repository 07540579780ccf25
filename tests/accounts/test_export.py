"""Export: all that is stored about an account and nothing of anybody else, without what proves who somebody is."""

import json
from typing import Any

from accounts_office import NOON, Office
from owned_rows import store_one_of_each
from stored_values import an_event, an_id

from appliance.accounts.export import Export
from appliance.model.account import Account
from appliance.privacy.declarations import EVENTS, SESSIONS
from appliance.privacy.owners import owned
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Insert


def an_account(office: Office, number: int) -> Account:
    store_one_of_each(office.records, number)
    (account,) = (each for each in office.accounts.every() if each.id == an_id(number))
    return account


def exported(office: Office, account: Account, **settings: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Export(office.records, {}, lambda: NOON, **settings).document(account))
    return document


def test_every_class_of_data_is_in_it_with_what_it_is_for(office: Office) -> None:
    """For every class of data that is declared: a new one is in here without a line of this test."""
    ada, _ = an_account(office, 1), an_account(office, 2)
    document = exported(office, ada)
    assert (document["account"], document["exportedAt"]) == (ada.email, "2026-11-20T12:00:00.000Z")
    assert document["collections"].keys() == {collection.name for collection in owned()}
    for collection in owned():
        part = document["collections"][collection.name]
        assert (part["purpose"], part["stored"], part["exported"]) == (collection.purpose, 1, 1)
        assert collection.belongs_to is not None
        (row,) = part["rows"]
        assert row[collection.belongs_to.by] == an_id(1)


def test_what_proves_who_somebody_is_stays_where_it_is(office: Office) -> None:
    ada = an_account(office, 1)
    document = exported(office, ada)
    secrets = [(each.name, field.name) for each in owned() for field in each.fields if field.secret]
    assert ("accounts", "password_hash") in secrets
    for collection, name in secrets:
        assert all(name not in row for row in document["collections"][collection]["rows"])
    assert "password_hash 1" not in json.dumps(document)


def test_the_log_is_readable_in_it_and_in_order(office: Office) -> None:
    ada = an_account(office, 1)
    for number in (12, 11):
        event = an_event(number, domain_id=an_id(1), subject="Grüße")
        office.records.apply([Insert(EVENTS, event_to_row(event))])
    rows = exported(office, ada)["collections"]["events"]["rows"]
    assert [row["id"] for row in rows] == [an_id(1), an_id(11), an_id(12)]
    assert (rows[1]["subject"], rows[1]["sender"]) == ("Grüße", "stranger@sender.example")


def test_a_long_log_is_cut_to_its_latest_part_and_takes_nobodys_place(office: Office) -> None:
    ada = an_account(office, 1)
    events = [an_event(number, domain_id=an_id(1)) for number in range(100, 300)]
    office.records.apply([Insert(EVENTS, event_to_row(event)) for event in events])
    whole = exported(office, ada)
    small = len(json.dumps(whole)) // 3
    document = exported(office, ada, max_characters=small)
    part = document["collections"]["events"]
    assert part["stored"] == 201
    assert 10 < part["exported"] < 100
    assert [row["id"] for row in part["rows"]] == [an_id(number) for number in range(300 - part["exported"], 300)]
    assert len(json.dumps(document["collections"])) < small + 8000
    for name, others in document["collections"].items():
        assert name == "events" or others["exported"] == others["stored"] == 1


def test_what_another_store_has_is_part_of_it(office: Office) -> None:
    ada = an_account(office, 1)
    shown = {SESSIONS: lambda account: [{"account_id": account.id, "user_agent": "Browser"}]}
    document = json.loads(Export(office.records, shown, lambda: NOON).document(ada))
    assert document["collections"]["sessions"]["rows"] == [{"account_id": ada.id, "user_agent": "Browser"}]
