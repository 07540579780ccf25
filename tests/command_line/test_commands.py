"""Every command and option within this process: what it prints to programs and to people."""

import json

import pytest
from command_line_desk import OWNER, Desk
from engine_stand_in import standing_in

from appliance.configuration import load
from appliance.model.time import parse_instant
from appliance.privacy.signatures import is_signed
from appliance.version import commit, version


def test_an_account_as_json(desk: Desk) -> None:
    added = json.loads(desk.done("account", "add", OWNER, "--operator", "--plan", "premium", "--json").stdout)
    assert desk.rows("account", "list") == [added]
    assert (added["email"], added["role"], added["emailVerified"]) == (OWNER, "OPERATOR", True)
    assert added["plan"] == {
        "name": "premium",
        "maxMessageBytes": 50 << 20,
        "maxDomains": 100,
        "maxAliasesPerDomain": 1000,
        "maxMessagesPerDay": 15000,
        "priority": 10,
    }
    assert parse_instant(added["createdAt"]) > 0


def test_an_account_whose_plan_is_gone_is_still_listed(desk: Desk) -> None:
    desk.configure("[plans.gold]\nmax_domains = 3")
    desk.done("account", "add", OWNER, "--plan", "gold")
    desk.configure()
    assert desk.rows("account", "list")[0]["plan"] == {"name": "gold"}
    refused = desk.type("domain", "add", "example.org", "--account", OWNER)
    assert refused.exit_code == 1
    assert "put it back" in refused.stderr


def test_deleting_an_account_says_what_went(desk: Desk) -> None:
    desk.settle()
    receipt = json.loads(desk.done("account", "delete", OWNER, "--json").stdout)
    removed = {each["collection"]: each["count"] for each in receipt["removed"]}
    assert {collection: count for collection, count in removed.items() if count} == {
        "accounts": 1,
        "domains": 1,
        "aliases": 1,
        "destinations": 1,
    }
    assert "events" in removed, "what there was none of is told, too"
    assert is_signed(receipt["signedText"], receipt["signature"], receipt["publicKey"])
    assert json.loads(receipt["signedText"])["removed"] == receipt["removed"]
    desk.settle()
    assert "1 domain, 1 alias, 1 destination and 0 log entries" in desk.done("account", "delete", OWNER).stderr


@pytest.mark.parametrize("command", [("account", "delete", OWNER), ("domain", "remove", "example.org")])
def test_what_an_account_has_held_of_a_domain_is_let_go_of_when_it_has_it_no_more(
    desk: Desk, command: tuple[str, ...]
) -> None:
    """As where the API is asked to do it: the account can't release it any more."""
    desk.settle()
    (domain,) = desk.rows("domain", "list")
    desk.done("domain", "add", "claimed.test", "--account", OWNER)
    with standing_in(load(desk.config), []) as engine:
        desk.done(*command)
    assert engine.asked == [{"within": {"example.org": domain["id"]}, "domain": "example.org"}]


def test_who_has_no_password_is_told_how_to_get_one(desk: Desk) -> None:
    desk.configure('[http]\npublic_url = "https://mail.example.org/"')
    told = desk.done("account", "add", OWNER).stderr
    assert "https://mail.example.org/#/forgotten-password" in told
    assert "--password-stdin" in told
    assert "password" not in desk.done("account", "add", "b@people.test", "--password-stdin", stdin="x" * 20).stderr


def test_mail_under_way_is_dropped_only_by_a_running_appliance(desk: Desk) -> None:
    desk.settle()
    refused = desk.type("account", "delete", OWNER, "--drop-mail")
    assert (refused.exit_code, "no appliance answers" in refused.stderr) == (1, True)
    assert [each["email"] for each in desk.rows("account", "list")] == [OWNER]


def test_a_domain_as_json(desk: Desk) -> None:
    desk.done("account", "add", OWNER)
    added = json.loads(desk.done("domain", "add", "Bücher.example", "--account", OWNER, "--json").stdout)
    assert (added["name"], added["verified"]) == ("xn--bcher-kva.example", False)
    assert (added["deliveryMode"], added["logLevel"]) == ("SPOOL", "EVENTS")
    (listed,) = desk.rows("domain", "list")
    assert listed["account"]["email"] == OWNER
    assert {name: listed[name] for name in added} == added


def test_an_unverified_domain_says_what_that_means(desk: Desk) -> None:
    desk.done("account", "add", OWNER)
    added = desk.done("domain", "add", "example.org", "--account", OWNER)
    assert "refused until it is verified" in added.stderr
    assert "--verified" in added.stderr
    assert "not verified yet" in desk.done("alias", "add", "a@example.org", "--action", "reject").stderr
    again = desk.done("domain", "add", "example.org", "--account", OWNER, "--verified", "--json")
    assert json.loads(again.stdout)["verified"] is True
    assert again.stderr == ""


def test_new_domains_take_the_log_level_of_the_configuration(desk: Desk) -> None:
    desk.configure('[log]\nlevel = "none"')
    desk.settle()
    assert desk.rows("domain", "list")[0]["logLevel"] == "NONE"


def test_setting_a_domain(desk: Desk) -> None:
    desk.settle()
    changed = json.loads(desk.done("domain", "set", "example.org", "--log", "errors", "--json").stdout)
    assert changed["logLevel"] == "ERRORS"
    assert "mode spool, log none" in desk.done("domain", "set", "example.org", "--log", "none").stderr
    for arguments, status, says in (
        (("--mode", "pigeon"), 2, "'pigeon' is not one of"),
        (("--log", "all"), 2, "'all' is not one of"),
        ((), 2, "Nothing to set"),
    ):
        refused = desk.type("domain", "set", "example.org", *arguments)
        assert refused.exit_code == status
        assert says in refused.stderr
    assert desk.rows("domain", "list")[0]["logLevel"] == "NONE"
    for mode in ("transit", "spool"):
        assert f"mode {mode}, log none" in desk.done("domain", "set", "example.org", "--mode", mode).stderr


def test_removing_a_domain(desk: Desk) -> None:
    desk.settle()
    assert "Removed example.org" in desk.done("domain", "remove", "Example.org").stderr
    assert desk.rows("domain", "list") == desk.rows("alias", "list") == []
    assert desk.type("domain", "remove", "example.org").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "kind", "action"),
    [
        (["info@example.org", "a@home.test", "--confirmed"], "EXACT", "FORWARD"),
        (["in*@example.org", "a@home.test", "b@home.test", "--confirmed"], "WILDCARD", "FORWARD"),
        (["*@example.org", "--action", "reject"], "CATCH_ALL", "REJECT"),
        (["x@example.org", "--action", "defer"], "EXACT", "DEFER"),
        (["x@example.org", "--action", "discard", "--expires", "30d"], "EXACT", "DISCARD"),
        (["x@example.org", "--action", "discard", "--expires", "2999-01-01T00:00:00Z"], "EXACT", "DISCARD"),
    ],
)
def test_an_alias_as_json(desk: Desk, arguments: list[str], kind: str, action: str) -> None:
    desk.settle()
    desk.done("alias", "remove", "info@example.org")
    added = json.loads(desk.done("alias", "add", *arguments, "--json").stdout)
    assert desk.rows("alias", "list") == desk.rows("alias", "list", "example.org") == [added]
    assert (added["kind"], added["action"], added["enabled"]) == (kind, action, True)
    assert added["domain"]["name"] == "example.org"
    assert (added["expiresAt"] is None) == ("--expires" not in arguments)
    removed = desk.done("alias", "remove", arguments[0], "--json")
    assert json.loads(removed.stdout)["id"] == added["id"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a@example.org", "b@home.test"], "whose owner has not agreed"),
        (["a@example.org", "b@home.test"], "--confirmed"),
        (["a@example.org", "--confirmed"], "at least one destination"),
        (["a@example.org", "nonsense", "--confirmed"], "'nonsense' is not an email address"),
        (["a@example.org", "b@localhost", "--confirmed"], "one label"),
        (["a@example.org", "b@mx.onward.test", "--confirmed"], "this appliance itself"),
        (["info@example.org", "b@home.test", "--confirmed"], "already"),
        (["a@other.test", "b@home.test", "--confirmed"], "not hosted here"),
        (["a*c@example.org", "b@home.test", "--confirmed"], "only at its end"),
        (["/(/@example.org", "b@home.test", "--confirmed"], "as an expression: missing )"),
        (["a@example.org", "a@example.org", "--confirmed"], "circle"),
        (["a@example.org", "--action", "reject", "b@home.test"], "takes no destination"),
        (["a@example.org", "b@home.test", "--confirmed", "--expires", "2001-01-01T00:00:00Z"], "expired"),
        (["/a/@example.org", "$1@home.test", "--confirmed"], "has 0 groups"),
    ],
)
def test_an_alias_that_is_refused(desk: Desk, arguments: list[str], says: str) -> None:
    desk.settle()
    before = desk.rows("alias", "list")
    refused = desk.type("alias", "add", *arguments)
    assert refused.exit_code == 1
    assert says in refused.stderr
    assert refused.stdout == ""
    assert desk.rows("alias", "list") == before


@pytest.mark.parametrize("command", ["account list", "domain list", "alias list", "log"])
def test_an_empty_list_is_nothing_on_standard_output_and_a_word_on_the_other(desk: Desk, command: str) -> None:
    empty = desk.done(*command.split())
    assert empty.stdout == ""
    assert empty.stderr != ""
    assert desk.done(*command.split(), "--json").output == ""


def test_version(desk: Desk) -> None:
    digest = json.loads(desk.done("policy", "--json").stdout)["digest"]
    told = desk.done("version").stdout
    assert told.startswith(f"onward {version()}")
    assert told.splitlines()[1] == f"policy {digest}"
    as_json = json.loads(desk.done("version", "--json").stdout)
    assert as_json == {"version": version(), "commit": commit(), "policyDigest": digest}


def test_the_version_can_be_told_whatever_the_configuration_is(desk: Desk) -> None:
    desk.config.write_text("hostname = 1", encoding="utf-8")
    assert "policy unknown" in desk.done("version").stdout
    assert json.loads(desk.done("version", "--json").stdout)["policyDigest"] is None


def test_the_policy_is_that_of_the_configuration(desk: Desk) -> None:
    usual = desk.done("policy").stdout
    assert usual.startswith("# What this appliance stores\n")
    assert "- Kept for 7d from at where type is RECEIVED, DELIVERED" in usual
    desk.configure('[log]\ndelivery_retention = "3h"')
    assert "- Kept for 3h from at where type is RECEIVED, DELIVERED" in desk.done("policy").stdout
    told = json.loads(desk.done("policy", "--json").stdout)
    assert told["digest"] in told["text"]
    (log,) = (each for each in told["collections"] if each["name"] == "events")
    assert (log["store"], log["retentionSeconds"]) == ("records", 7 * 86400)
    assert {"sender", "sender_key"} < set(log["fields"])


@pytest.mark.parametrize(
    "command",
    [
        *("", "run", "demo", "check", "explain", "log", "policy", "version"),
        *("account", "account add", "account list", "account delete"),
        *("domain", "domain add", "domain list", "domain remove", "domain set"),
        *("alias", "alias add", "alias list", "alias remove"),
        *("queue", "queue list", "queue retry", "queue drop"),
        *("canary", "canary keygen", "canary sign", "canary verify"),
    ],
)
def test_every_command_has_help_and_takes_a_configuration(desk: Desk, command: str) -> None:
    helped = desk.done(*command.split(), "--help")
    assert helped.stdout.startswith(f"Usage: onward {command}".rstrip())
    assert "--config FILE" in helped.stdout
