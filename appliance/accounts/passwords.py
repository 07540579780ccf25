"""Passwords: how long they may be, and what is kept of them.

What is kept is an argon2id hash in PHC form (RFC 9106). Hashing takes about a twentieth of a second and 64 MiB, by
intent: a server does it in a thread, few at a time.
"""

import unicodedata

from argon2 import PasswordHasher
from argon2.profiles import RFC_9106_LOW_MEMORY

from appliance.accounts.refused import Refused

MIN_PASSWORD_CHARACTERS = 8
"""NIST SP 800-63B §5.1.1.2: at least eight characters, and no rules about which."""

MAX_PASSWORD_CHARACTERS = 1024
"""Room for any passphrase; a limit at all, so that nobody makes us hash megabytes."""

_hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)


def hash_password(password: str) -> str:
    """The argon2id hash of a new password. Raises Refused where it is too short or too long."""
    if len(password) < MIN_PASSWORD_CHARACTERS:
        raise Refused(f"A password needs at least {MIN_PASSWORD_CHARACTERS} characters.", "password")
    if len(password) > MAX_PASSWORD_CHARACTERS:
        raise Refused(f"A password may have at most {MAX_PASSWORD_CHARACTERS} characters.", "password")
    # The same password typed on two keyboards may arrive composed or decomposed.
    return _hasher.hash(unicodedata.normalize("NFKC", password))
