"""How often a password or a code may be tried, by whom, and why nobody can lock anybody else out.

A lock that closes an account after so many failures is a weapon: whoever knows an address shuts its owner out. So no
counter here closes an account. What is counted, each for a quarter of an hour from the first failure on:

- *the account from one network* (five). Beyond that, this network waits, for this account. The owner, elsewhere, does
  not notice.
- *one network* (thirty), whatever accounts it tries, and five times that for a whole /48 of IPv6. An office where some
  mistype gets by; who walks through a list of addresses does not.
- *the account in all* and *everything in all* (thirty, and three hundred). These refuse nobody. They say that somebody
  is trying from many networks at once, and while they say so, each network has two tries for an account, not five, and
  ten in all. So an attack gets slower with each address that it brings, and the owner, wherever that is, still has two.
- *a known device*: a browser that has signed in to the account before (`devices.py`), or the session itself where
  somebody types the password again. It has a counter of its own, and none of the others is asked. So not even a
  stranger in the owner's own network shuts the owner out.

How fast all of it can go is bounded by the two hashes at a time (`turns.py`), where known devices go first.

One-time codes are short, and who tries them knows the password already. They are counted by the account (five) over
all networks, but for known devices. That may keep an owner out who comes from a new device, for a quarter of an hour;
the owner is told by mail, and a new password, which takes nothing but the mailbox, ends it.

Counters are in the ephemeral store under MACs. Where the store is away, it is said that it is: who can't be counted is
not let in.
"""

from contextlib import suppress
from dataclasses import dataclass

from appliance.access.clients import WIDER, networks
from appliance.model.refused import TooMany
from appliance.model.time import SECOND_MS
from appliance.privacy.declarations import FAILED_SIGN_INS
from appliance.privacy.sealing import Sealer
from appliance.storage.ephemeral import EphemeralStore, lifetime_ms
from appliance.storage.records import StoreUnavailable


@dataclass(frozen=True, slots=True)
class Limits:
    """How many failures within the lifetime of the counters."""

    account_from_network: int = 5
    network: int = 30
    account_is_attacked: int = 30
    """So many over all networks; below, it is an owner who has forgotten."""
    all_are_attacked: int = 300
    """More than people who mistype make, and a small part of what the hashes allow."""
    account_from_network_attacked: int = 2
    network_attacked: int = 10
    device: int = 10
    codes: int = 5
    """480 a day, each of them right by three in a million: one chance in seven hundred a day, and the owner knows."""


_ALL = "all"


class Attempts:
    """Counts failures. Thread-safe. Each method may raise StoreUnavailable, unless it says that it never does.

    `email` is the address as it was typed, in the one spelling, whether or not there is such an account: nothing here
    tells the two apart. `device` is what a known device is called, or empty.
    """

    def __init__(self, store: EphemeralStore, sealer: Sealer, limits: Limits | None = None) -> None:
        self._store = store
        self._sealer = sealer
        self._limits = limits or Limits()

    def admit(self, email: str, address: str, device: str) -> bool:
        """Let somebody wait for a turn, or raise TooMany. Returns whether that is a known device, to which nothing
        applies that others have done. Nothing is counted yet: whoever only knocks leaves no trace."""
        limits = self._limits
        if device and self._counted("device", email, device) < limits.device:
            return True
        own, *wider = networks(address)
        attacked = self._is_attacked(email)
        of_network = limits.network_attacked if attacked else limits.network
        if (
            self._counted("network", own) >= of_network
            or any(self._counted("network", each) >= of_network * WIDER for each in wider)
            or self._counted("account and network", email, own) >= self._of_account(attacked=attacked)
        ):
            raise _too_many()
        return False

    def begin(self, email: str, address: str, device: str) -> None:
        """Count a try of whoever was admitted and has a turn now, or raise TooMany; `device` only where it is known.

        That is before the try is known to fail, so that a hundred at the same instant are no better than one by one.
        """
        if device:
            over = self._count("device", email, device) > self._limits.device
        else:
            own, *_ = networks(address)
            tries = self._count("account and network", email, own)
            over = tries > self._of_account(attacked=self._is_attacked(email))
        if over:
            raise _too_many()

    def password_was_wrong(self, email: str, address: str) -> None:
        """Count a failure of a stranger."""
        for network in networks(address):
            self._count("network", network)
        self._count("account", email)
        self._count(_ALL)

    def password_was_right(self, email: str, address: str, device: str) -> None:
        """Whoever knows the password has no need to guess it: forget what was counted at admission."""
        own, *_ = networks(address)
        self._forget("account and network", email, own)
        self._forget("device", email, device)

    def admit_once_more(self, session_id: str) -> None:
        """Let somebody who is signed in type the password again, or raise TooMany. It concerns no other session."""
        if self._count("session", session_id) > self._limits.device:
            raise _too_many()

    def right_once_more(self, session_id: str) -> None:
        """Forget what was counted for this session."""
        self._forget("session", session_id)

    def admit_code(self, email: str, device: str) -> bool:
        """Let somebody who knows the password try a code, or raise TooMany. Returns whether that is a known device.

        `device` may be a session as well.
        """
        if device and self._count("device's codes", email, device) <= self._limits.device:
            return True
        if self._counted("codes", email) >= self._limits.codes:
            raise TooMany(
                "Too many wrong codes for this account. Try again later, or set a new password by mail.",
                retry_after_s(),
            )
        return False

    def code_was_wrong(self, email: str, address: str) -> bool:
        """Count a failure of a stranger. Returns whether from now on strangers can try no more codes."""
        for network in networks(address):
            self._count("network", network)
        self._count(_ALL)
        return self._count("codes", email) == self._limits.codes

    def password_is_new(self, email: str) -> None:
        """The owner of the mailbox has set another password: whoever knew the old one has nothing to try any more.

        Never raises StoreUnavailable: the password is set, and what is counted still is forgotten by itself.
        """
        with suppress(StoreUnavailable):
            self._forget("codes", email)
            self._forget("account", email)

    def _is_attacked(self, email: str) -> bool:
        return (
            self._counted("account", email) >= self._limits.account_is_attacked
            or self._counted(_ALL) >= self._limits.all_are_attacked
        )

    def _of_account(self, *, attacked: bool) -> int:
        return self._limits.account_from_network_attacked if attacked else self._limits.account_from_network

    def _count(self, *who: str) -> int:
        return self._store.count(FAILED_SIGN_INS, self._key(who))

    def _counted(self, *who: str) -> int:
        return self._store.counted(FAILED_SIGN_INS, self._key(who))

    def _forget(self, *who: str) -> None:
        self._store.forget(FAILED_SIGN_INS, self._key(who))

    def _key(self, who: tuple[str, ...]) -> bytes:
        # None of them can have a NUL in it, as far as it is valid; what is not valid meets at worst its like.
        return self._sealer.mac("\0".join(who), FAILED_SIGN_INS.name)


def retry_after_s() -> int:
    """After so many seconds every counter has begun anew."""
    return lifetime_ms(FAILED_SIGN_INS) // SECOND_MS


def _too_many() -> TooMany:
    return TooMany("Too many attempts to sign in from here. Try again later.", retry_after_s())
