"""Passwords: how long they may be, what is kept of them, and whether one is right.

What is kept is an argon2id hash in PHC form (RFC 9106). Hashing takes about a twentieth of a second and 64 MiB, by
intent; it lets go of the interpreter's lock, and is done in the thread that asks, two at a time (`turns.py`).
"""

import secrets
import unicodedata
from collections.abc import Callable

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from appliance.access.turns import Turns
from appliance.model.refused import Refused

MIN_PASSWORD_CHARACTERS = 8
"""NIST SP 800-63B §5.1.1.2: at least eight characters, and no rules about which."""

MAX_PASSWORD_CHARACTERS = 1024
"""Room for any passphrase; a limit at all, so that nobody makes us hash megabytes."""

_HASHER = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)


def hash_password(password: str, field: str = "password", hasher: PasswordHasher = _HASHER) -> str:
    """The argon2id hash of a new password. Raises Refused where it is too short or too long."""
    require_usable(password, field)
    return hasher.hash(_octets(password))


def require_usable(password: str, field: str = "password") -> None:
    """Raise Refused where this can't be a new password."""
    if len(password) < MIN_PASSWORD_CHARACTERS:
        raise Refused(f"A password needs at least {MIN_PASSWORD_CHARACTERS} characters.", field)
    if len(password) > MAX_PASSWORD_CHARACTERS:
        raise Refused(f"A password may have at most {MAX_PASSWORD_CHARACTERS} characters.", field)
    try:
        password.encode()
    except UnicodeEncodeError:
        raise Refused("This password has a character that UTF-8 does not have.", field) from None


class Passwords:
    """Makes and checks hashes, two at a time. Thread-safe. Each method raises TooMany where too many wait already."""

    def __init__(self, turns: Turns | None = None, hasher: PasswordHasher = _HASHER) -> None:
        """Takes as long as one hash."""
        self._turns = turns or Turns()
        self._hasher = hasher
        # What a password is compared with where there is no account: the same work, and never right.
        self._nobodys = hasher.hash(secrets.token_bytes(16))

    def hash(self, password: str, field: str = "password") -> str:
        """As `hash_password`."""
        require_usable(password, field)
        with self._turns.turn():
            return hash_password(password, field, self._hasher)

    def match(self, kept: str | None, password: str, admit: Callable[[], None], *, first: bool = False) -> bool:
        """Whether this is the password whose hash is kept. Without one it takes the same time and is not.

        `admit` is called once it is their turn, and may raise. `first`: for whoever is known; strangers wait.
        """
        with self._turns.turn(first=first):
            admit()
            if len(password) > MAX_PASSWORD_CHARACTERS:
                return False
            try:
                right = self._hasher.verify(kept or self._nobodys, _octets(password))
            except (VerificationError, InvalidHashError):
                return False
        return right and kept is not None

    def is_outdated(self, kept: str) -> bool:
        """Whether a hash was made with other parameters than are used now."""
        return self._hasher.check_needs_rehash(kept)


def _octets(password: str) -> bytes:
    # The same password typed on two keyboards may arrive composed or decomposed. A lone surrogate, which JSON can hold,
    # has octets of its own here: such a password is never kept, and is compared like any that is wrong.
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
