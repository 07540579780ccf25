"""Where people come in: real stores, a clock that is moved by hand, cheap hashes, and a post that keeps its letters."""

import re
from dataclasses import dataclass, field

import pytest
from accounts_office import PLANS
from argon2 import PasswordHasher

from appliance.access.attempts import Limits
from appliance.access.clients import Client
from appliance.access.entrance import Entrance, entrance
from appliance.access.errands import Errand, Errands
from appliance.access.sign_ins import SignedIn
from appliance.accounts.accounts import Accounts
from appliance.model.account import Account, Role
from appliance.model.ids import id_source
from appliance.model.letter import Letter, NotPosted
from appliance.privacy.sealing import Sealer
from appliance.storage.memory_ephemeral import MemoryEphemeral
from appliance.storage.records import StoreUnavailable
from appliance.storage.sqlite_records import SqliteRecords

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""Hashes of the same kind that cost nothing: what a hash costs is not what these tests are about."""

ADA = "ada@people.test"
PASSWORD = "correct horse"
HOME = Client("192.0.2.1", "A browser")
ELSEWHERE = Client("198.51.100.7", "Another browser")


class Time:
    """One clock for both stores, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_795_176_000_000

    def wall(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1000


@dataclass
class Bag:
    """A post that keeps what it is given, once it is in order."""

    letters: list[Letter] = field(default_factory=list)
    out_of_order: int = 0
    """How many more times it can take nothing."""

    def send(self, letter: Letter) -> None:
        """See Post."""
        if self.out_of_order:
            self.out_of_order -= 1
            raise NotPosted("no appliance answers")
        self.letters.append(letter)

    def to(self, recipient: str) -> list[Letter]:
        """The letters to this address."""
        return [letter for letter in self.letters if letter.recipient == recipient]

    def token(self, recipient: str = ADA) -> str:
        """What stands in the link of the last letter to this address."""
        found = re.search(r"token=(\S+)", self.to(recipient)[-1].text)
        assert found is not None
        return found[1]


class AtOnce:
    """Errands that are done before the answer: who tests need not wait."""

    def add(self, errand: Errand) -> None:
        """See Errands."""
        errand()


class Hall:
    """An entrance with all that it stands on."""

    def __init__(
        self,
        records: SqliteRecords,
        limits: Limits | None = None,
        hasher: PasswordHasher = CHEAP,
        errands: Errands | None = None,
    ) -> None:
        self.time = Time()
        self.records = records
        self.ephemeral = MemoryEphemeral(self.time.monotonic)
        self.bag = Bag()
        self.hasher = hasher
        ids = id_source(self.time.wall)
        self.accounts = Accounts(records, PLANS, self.time.wall, ids)
        self.entrance: Entrance = entrance(
            records,
            self.ephemeral,
            plans=PLANS,
            hostname="mx.onward.test",
            public_url="https://mx.onward.test/",
            accounts_key=Sealer(bytes([7]) * 32),
            ephemeral_key=Sealer(bytes(32)),
            post=self.bag,
            errands=errands or AtOnce(),
            clock=self.time.wall,
            ids=ids,
            limits=limits,
            hasher=hasher,
        )

    def account(self, email: str = ADA, password: str = PASSWORD, role: Role = Role.MEMBER) -> Account:
        """An account that can be signed in to."""
        return self.accounts.add(email, role=role, password_hash=self.hasher.hash(password))

    def sign_in(
        self, email: str = ADA, password: str = PASSWORD, client: Client = HOME, code: str | None = None
    ) -> SignedIn:
        """Begin a session."""
        return self.entrance.sign_ins.sign_in(email, password, code, client)

    def who(self, session: str) -> str | None:
        """The address of the account behind the secret of a session."""
        known = self.entrance.doorkeeper.by_session(session)
        return None if known is None else known.account.email

    def session_id(self, session: str) -> str:
        """The id of the session with this secret."""
        known = self.entrance.doorkeeper.by_session(session)
        assert known is not None
        return known.id


def away(hall: Hall, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the ephemeral store can't do this."""

    def unavailable(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(hall.ephemeral, verb, unavailable)
