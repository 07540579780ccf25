"""How far an account, an operator and whoever sits at the machine reach into mail and its log."""

from dataclasses import dataclass, replace

import pytest
from accounts_office import NOON, Office

from appliance.accounts.help import Help
from appliance.accounts.reach import GONE, NOT_GRANTED, Reach, Reader, mail_domain
from appliance.model.account import Account, Role
from appliance.model.domain import Domain
from appliance.model.ids import id_source
from appliance.model.refused import Refused
from appliance.model.time import DAY_MS, HOUR_MS
from appliance.privacy.declarations import ACCOUNTS
from appliance.storage.records import Update

MACHINE = Reader()


@dataclass
class Town:
    """Ada and Bob with a domain each, an operator, and a clock that a test moves."""

    office: Office
    now: int = NOON

    def __post_init__(self) -> None:
        self.help = Help(self.office.records, lambda: self.now, id_source(lambda: self.now))
        self.reach = Reach(self.office.records, self.help)
        self.ada, self.bob = self.office.account("ada@people.test"), self.office.account("bob@people.test")
        self.operator = self.office.accounts.add("op@people.test", plan="large", role=Role.OPERATOR)
        self.adas = self.office.domain("ada.example", self.ada)
        self.bobs = self.office.domain("bob.example", self.bob)

    @property
    def ops(self) -> Reader:
        """The operator, as one."""
        return Reader(self.operator, is_operator=True)

    def grant(self, account: Account, for_ms: int = DAY_MS) -> None:
        """This account asks for help and lets its log be read."""
        self.help.ask(account, "Help", "It is late.", self.now + for_ms)


@pytest.fixture
def town(office: Office) -> Town:
    return Town(office)


def followed(town: Town, reader: Reader, domain: Domain | None) -> str:
    """Why this log may not be followed; empty where it may."""
    try:
        town.reach.log_of(reader, domain)
    except Refused as refusal:
        return refusal.code
    return ""


def test_an_account_steers_mail_of_its_own_verified_domains(town: Town) -> None:
    typed = town.office.domain("hers.example", town.ada, verified=False)
    assert town.reach.mail_of(Reader(town.ada)) == {"ada.example": town.adas.id}
    assert typed.id not in (town.reach.mail_of(Reader(town.ada)) or {}).values()
    assert town.reach.mail_of(Reader(town.operator)) == {}, "an operator whose token does not reach so far"
    assert town.reach.mail_of(town.ops) is None
    assert town.reach.mail_of(MACHINE) is None


@pytest.mark.parametrize("name", [None, "bob.example", "nobody.example", "hers.example"])
def test_an_account_holds_no_mail_but_its_own(town: Town, name: str | None) -> None:
    town.office.domain("hers.example", town.ada, verified=False)
    with pytest.raises(Refused) as refusal:
        town.reach.require_own(Reader(town.ada), name)
    assert refusal.value.field == "domain"
    town.reach.require_own(town.ops, name)
    town.reach.require_own(MACHINE, name)


def test_its_own_may_be_typed_in_either_form(town: Town) -> None:
    town.office.domain("bücher.example", town.ada)
    for name in ("ADA.example", "Bücher.example", "xn--bcher-kva.example"):
        town.reach.require_own(Reader(town.ada), name)


def test_an_owner_and_the_machine_read_a_log_and_nothing_is_written_down(town: Town) -> None:
    town.reach.permit_log(Reader(town.ada), town.adas, "messages")
    town.reach.permit_log(MACHINE, town.adas, "messages")
    town.reach.permit_log(Reader(town.operator, is_operator=True), town.office.domain("op.example", town.operator), "x")
    assert town.help.accesses(town.ada.id) == []


def test_an_operator_reads_somebody_elses_log_only_while_it_is_granted_and_it_is_written_down(town: Town) -> None:
    with pytest.raises(Refused) as refusal:
        town.reach.permit_log(town.ops, town.adas, "messages")
    assert refusal.value.code == NOT_GRANTED
    town.grant(town.ada, HOUR_MS)
    town.reach.permit_log(town.ops, town.adas, "messages")
    with pytest.raises(Refused):
        town.reach.permit_log(town.ops, town.bobs, "messages")
    with pytest.raises(Refused):
        town.reach.permit_log(Reader(town.bob), town.adas, "messages")
    town.now += HOUR_MS
    with pytest.raises(Refused):
        town.reach.permit_log(town.ops, town.adas, "messages")
    ((access, _),) = town.help.accesses(town.ada.id)
    assert (access.operator, access.query) == ("op@people.test", "messages")


def test_what_is_followed_is_ones_own_unless_a_domain_is_named(town: Town) -> None:
    assert town.reach.log_of(Reader(town.ada), None) == frozenset({town.adas.id})
    assert town.reach.log_of(Reader(town.ada), town.adas) == frozenset({town.adas.id})
    assert town.reach.log_of(town.ops, None) == frozenset()
    assert town.reach.log_of(MACHINE, None) is None
    assert town.reach.log_of(MACHINE, town.adas) == frozenset({town.adas.id})
    assert followed(town, Reader(town.ada), town.bobs) == NOT_GRANTED


def test_following_ends_with_the_domain_with_the_account_and_with_the_grant(town: Town) -> None:
    town.grant(town.ada, HOUR_MS)
    assert followed(town, town.ops, town.adas) == ""
    town.now += HOUR_MS
    assert followed(town, town.ops, town.adas) == NOT_GRANTED
    town.grant(town.ada)
    town.office.records.apply([Update(ACCOUNTS, {"id": town.operator.id}, {"role": Role.MEMBER.value})])
    assert followed(town, town.ops, town.adas) == NOT_GRANTED, "no operator any more"
    for reader in (Reader(town.bob), MACHINE):
        assert followed(town, reader, town.bobs) == ""
    town.office.domains.erase(town.bobs)
    for reader in (Reader(town.bob), MACHINE):
        assert followed(town, reader, town.bobs) == GONE
    assert town.reach.log_of(Reader(town.bob), None) == frozenset()
    assert followed(town, Reader(replace(town.bob, id="0" * 20)), None) == GONE


@pytest.mark.parametrize("text", ["example.org", "Bücher.example", "localhost", "[192.0.2.1]", "[IPv6:2001:db8::1]"])
def test_mail_goes_to_whatever_is_a_domain(text: str) -> None:
    assert mail_domain(text, "domain")


@pytest.mark.parametrize("text", ["", "not a domain", "a@b.test", "-.test", "."])
def test_what_is_no_domain_would_hold_nothing(text: str) -> None:
    with pytest.raises(Refused, match="is not a domain"):
        mail_domain(text, "domain")
