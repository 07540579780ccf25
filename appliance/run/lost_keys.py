"""What to do when a key is lost under which something is sealed, and when a password is not there."""

from pathlib import Path

from appliance.privacy.secrets import SecretRefused
from appliance.run import CannotStart

_ADVICE = {
    "spool": "Put {key} back, or, to begin anew without the mail that is in it, {away}",
    "accounts": "Put {key} back, or, where it is gone for good, make a new one: (umask 077; head -c 32 /dev/urandom > "
    "{key}). Accounts with a second factor then sign in with a recovery code, and enable it anew",
    "log": "Put {key} back, or, to begin a new log beside the old one, which nobody can read without it, "
    "make a new key: (umask 077; head -c 32 /dev/urandom > {key})",
}

_PLAIN = "Put {key} back, or, where it is gone for good, make a new one: (umask 077; head -c 32 /dev/urandom > {key})"
"""For the keys that no store is sealed under."""


class KeyLost(CannotStart, SecretRefused):
    """Rows are there, and the key that they are sealed under is not. A new one would open none of them."""


def advice(name: str, key: object, away: str) -> str:
    """What to do without this key, whose file is at `key`; `away` is how to have a store begin anew."""
    return _ADVICE.get(name, _PLAIN).format(key=key, away=away)


def how_to_hand_over(path: Path) -> str:
    """How an operator gives us a password, or the like, whose file would be this one. It may be before any start."""
    return (
        f"write it as one line into {path}: (umask 077; mkdir -p {path.parent}; cat > {path}), or have systemd hand it "
        f"over (LoadCredential={path.name}:...)"
    )
