"""Known devices: a browser that has signed in to an account before, and can show it.

At a sign-in the browser gets a second cookie beside the session's, and keeps it when it signs out. It lets nobody in.
It only says that whoever shows it has known the password once, so that failures of others (`attempts.py`) do not count
against it. Nothing is stored: the cookie is a MAC over the account and the instant of its last change of password, with
which it ends.
"""

import secrets
from base64 import urlsafe_b64encode
from hmac import compare_digest

from appliance.model.account import Account
from appliance.privacy.sealing import Sealer

LIFETIME_S = 365 * 24 * 3600
"""How long a browser keeps it. Some people sign in once a year."""

MAX_LENGTH = 100
"""Characters of what is looked at; ours have 39."""

_PURPOSE = "known device"
_NONCE_OCTETS = 12


class Devices:
    """Marks devices and knows them again. Thread-safe."""

    def __init__(self, sealer: Sealer) -> None:
        """`sealer` has a key that lives as long as accounts do."""
        self._sealer = sealer

    def mark(self, account: Account) -> str:
        """What a device shows from now on to be known to this account."""
        nonce = secrets.token_urlsafe(_NONCE_OCTETS)
        return f"{nonce}.{self._mac(account, nonce)}"

    def known(self, account: Account | None, shown: str) -> str:
        """What to call the device that shows this; empty where it is not known to the account."""
        nonce, dot, mac = shown.partition(".")
        if account is None or not dot or len(shown) > MAX_LENGTH or not shown.isascii():
            return ""
        return nonce if compare_digest(mac, self._mac(account, nonce)) else ""

    def _mac(self, account: Account, nonce: str) -> str:
        octets = self._sealer.mac(f"{account.id}\0{account.password_changed_at}\0{nonce}", _PURPOSE)
        return urlsafe_b64encode(octets).decode().rstrip("=")
