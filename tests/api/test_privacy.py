"""Policy, canary, export and the end of an account over the API."""

import json
from typing import Any

from control_api.operation_files import operation
from served_api import ServedApi
from signed_in import PASSWORD, signed_in

from appliance.model.account import Role
from appliance.model.domain import DeliveryMode, LogLevel
from appliance.model.time import DAY_MS, format_instant
from appliance.privacy.canonical import canonical
from appliance.privacy.declarations import ACCOUNTS, COLLECTIONS, HELP_REQUESTS
from appliance.privacy.signatures import Signer, is_signed

POLICY = operation("show_policy")
CANARY = operation("show_canary")
PUBLISH = operation("publish_canary")
DELETE = operation("delete_account")
EXPORT = operation("export_account")


def test_everybody_reads_the_policy_and_operators_how_much_there_is(api: ServedApi) -> None:
    with signed_in(api) as (ada, _), api.client() as nobody, api.operator() as machine:
        told = nobody.data(POLICY)["privacyPolicy"]
        assert told == ada.data(POLICY)["privacyPolicy"]
        assert told["text"].startswith("# What this appliance stores\n")
        assert [each["name"] for each in told["collections"]] == [each.name for each in COLLECTIONS]
        by_name = {each["name"]: each for each in told["collections"]}
        assert (by_name["events"]["store"], by_name["events"]["retentionSeconds"]) == ("records", 7 * 86400)
        assert (by_name["domains"]["retentionSeconds"], by_name["accounts"]["count"]) == (None, None)
        counted = {each["name"]: each for each in machine.data(POLICY)["privacyPolicy"]["collections"]}
        assert counted["accounts"]["count"] == 1
        (row,) = api.rooms.records.find(ACCOUNTS, {})
        assert counted["accounts"]["oldest"] == format_instant(int(str(row["created_at"])))
        # The spool is the engine's, which is away.
        assert (counted["deliveries"]["count"], counted["domains"]["oldest"]) == (None, None)


def test_a_canary_is_published_by_operators_and_read_by_everybody(api: ServedApi) -> None:
    signer, now = Signer(bytes(32)), api.rooms.clock()
    text = canonical(
        {
            "statements": ["No warrant has come."],
            "issuedAt": format_instant(now),
            "expiresAt": format_instant(now + DAY_MS),
        }
    )
    signed: dict[str, Any] = {
        "signedText": text,
        "signature": signer.sign(text),
        "publicKey": signer.public_key,
    }
    with signed_in(api) as (ada, _), api.client() as nobody:
        assert nobody.data(CANARY) == {"warrantCanary": None}
        assert ada.ask(PUBLISH, **signed).codes == ["FORBIDDEN"]
        with signed_in(api, "op@people.test", Role.OPERATOR) as (operator, _):
            wrong = operator.data(PUBLISH, **{**signed, "signature": signer.sign("x")})["publishCanary"]
            assert (wrong["warrantCanary"], wrong["errors"][0]["field"]) == (None, ["signature"])
            right = operator.data(PUBLISH, **signed)["publishCanary"]["warrantCanary"]
            assert (right["statements"], right["expired"]) == (["No warrant has come."], False)
        canary = nobody.data(CANARY)["warrantCanary"]
        assert is_signed(canary["signedText"], canary["signature"], canary["publicKey"])
        assert json.loads(canary["signedText"])["expiresAt"] == canary["expiresAt"]


def test_an_account_goes_with_everything_and_its_owner_gets_a_receipt(api: ServedApi) -> None:
    with signed_in(api) as (ada, account), api.client() as stolen:
        stolen.cookies = dict(ada.cookies)
        api.rooms.domains.add(
            "example.org", account, verified=True, delivery_mode=DeliveryMode.SPOOL, log_level=LogLevel.EVENTS
        )
        api.rooms.help.ask(account, "Help", "me")
        wrong = ada.data(DELETE, password="wrong horse")["deleteAccount"]
        assert (wrong["receipt"], wrong["errors"][0]["field"]) == (None, ["password"])
        receipt = ada.data(DELETE, password=PASSWORD)["deleteAccount"]["receipt"]
        assert is_signed(receipt["signedText"], receipt["signature"], receipt["publicKey"])
        removed = {each["collection"]: each["count"] for each in receipt["removed"]}
        assert json.loads(receipt["signedText"])["removed"] == receipt["removed"]
        assert removed.items() >= {"accounts": 1, "domains": 1, "help_requests": 1, "sessions": 1, "events": 0}.items()
        assert api.rooms.records.count(ACCOUNTS, {}) + api.rooms.records.count(HELP_REQUESTS, {}) == 0
        assert ada.cookies == {}
        assert stolen.data("{ viewer { email } }") == {"viewer": None}


def test_mail_is_not_dropped_where_the_engine_is_away_and_nothing_is_deleted(api: ServedApi) -> None:
    with signed_in(api) as (ada, account):
        api.rooms.domains.add(
            "example.org", account, verified=True, delivery_mode=DeliveryMode.SPOOL, log_level=LogLevel.EVENTS
        )
        assert ada.ask(DELETE, password=PASSWORD, queuedMail="DROP").codes == ["UNAVAILABLE"]
        assert ada.data("{ viewer { email } }") == {"viewer": {"email": "ada@people.test"}}


def test_an_account_is_exported_to_its_owner_alone(api: ServedApi) -> None:
    with signed_in(api) as (ada, _), signed_in(api, "bob@people.test") as (bob, _):
        bob_id = bob.data("{ viewer { id } }")["viewer"]["id"]
        wrong = ada.data(EXPORT, password="wrong horse")["exportAccount"]
        assert (wrong["json"], wrong["errors"][0]["field"]) == (None, ["password"])
        document = json.loads(ada.data(EXPORT, password=PASSWORD)["exportAccount"]["json"])
        assert document["account"] == "ada@people.test"
        (account,) = document["collections"]["accounts"]["rows"]
        assert account["email"] == "ada@people.test"
        assert "password_hash" not in account
        (session,) = document["collections"]["sessions"]["rows"]
        assert session["account_id"] == account["id"]
        assert "bob@" not in json.dumps(document)
        assert bob_id not in json.dumps(document)


def test_it_takes_a_person_to_end_or_to_export_an_account(api: ServedApi) -> None:
    with api.client() as nobody, api.operator() as machine:
        for operation in (DELETE, EXPORT):
            assert nobody.ask(operation, password=PASSWORD).codes == ["UNAUTHENTICATED"]
            assert machine.ask(operation, password=PASSWORD).codes == ["FORBIDDEN"]
