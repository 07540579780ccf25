"""The warrant canary: statements that somebody signs away from this machine, again and again before they expire.

The private key never comes here; a machine that is taken over can keep an old canary and can't make a new one. Whoever
reads it compares the public key with the one known from before: another key is news, as an expired canary is.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.model.refused import Refused
from appliance.model.time import MINUTE_MS, Clock, format_instant, parse_instant, wall_clock
from appliance.privacy.canonical import canonical
from appliance.privacy.declarations import CANARIES
from appliance.privacy.signatures import is_signed
from appliance.storage.records import Delete, Insert, RecordStore

MAX_TEXT_CHARACTERS = 32 << 10
"""Of a signed text: a few pages, and no place to keep files in."""

MAX_STATEMENTS = 50
"""In one canary; who has more to say writes longer ones."""

CLOCKS_APART_MS = 10 * MINUTE_MS
"""How far the clock of the machine where it is signed may be ahead of ours."""

_THE_ONE = "canary"
"""Its id in the store: there is one at a time."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A signed canary, and what it says."""

    statements: tuple[str, ...]
    issued_at: int
    expires_at: int
    signed_text: str
    signature: str
    public_key: str

    def expired(self, now: int) -> bool:
        """Whether it should have been signed anew by now: to its readers an alarm."""
        return now >= self.expires_at


class Canaries:
    """The canary of a record store. Every method may raise StoreUnavailable."""

    def __init__(self, records: RecordStore, clock: Clock = wall_clock) -> None:
        self._records = records
        self._clock = clock

    def current(self) -> Canary | None:
        """The one that was published last, expired or not; None where there has been none."""
        row = self._records.get(CANARIES, {"id": _THE_ONE})
        if row is None:
            return None
        return _read(str(row["signed_text"]), str(row["signature"]), str(row["public_key"]))

    def publish(self, signed_text: str, signature: str, public_key: str) -> Canary:
        """Put it in the place of the last one. Raises Refused where it is not signed, makes no sense or is older."""
        canary = checked(signed_text, signature, public_key)
        now = self._clock()
        if canary.issued_at > now + CLOCKS_APART_MS:
            raise Refused("It was issued in the future: one of the clocks is wrong.", "signedText")
        if canary.expired(now):
            raise Refused("It has expired already.", "signedText")
        last = self.current()
        if last is not None and canary.issued_at < last.issued_at:
            raise Refused("The one that is published was issued later.", "signedText")
        row = {
            "id": _THE_ONE,
            "signed_text": signed_text,
            "signature": signature,
            "public_key": public_key,
            "published_at": now,
        }
        self._records.apply([Delete(CANARIES, {"id": _THE_ONE}), Insert(CANARIES, row)])
        return canary


def composed(statements: Sequence[str], issued_at: int, expires_at: int) -> str:
    """The canonical text of these statements, to be signed."""
    return canonical(
        {
            "statements": list(statements),
            "issuedAt": format_instant(issued_at),
            "expiresAt": format_instant(expires_at),
        }
    )


def checked(signed_text: str, signature: str, public_key: str) -> Canary:
    """What this key has signed. Raises Refused where it has not, or where it makes no sense."""
    if len(signed_text) > MAX_TEXT_CHARACTERS:
        raise Refused(f"A canary has at most {MAX_TEXT_CHARACTERS} characters.", "signedText")
    canary = _read(signed_text, signature, public_key)
    if not is_signed(signed_text, signature, public_key):
        raise Refused(
            "That is not the Ed25519 signature of this key over this text; both are base64, of 64 and 32 octets.",
            "signature",
        )
    return canary


def _read(signed_text: str, signature: str, public_key: str) -> Canary:
    """What a signed text says: `statements`, `issuedAt` and `expiresAt`. Raises Refused."""
    try:
        said = json.loads(signed_text, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        raise Refused(f"The signed text is not JSON: {error}.", "signedText") from None
    if not isinstance(said, dict):
        raise Refused("The signed text is not one JSON object.", "signedText")
    issued_at, expires_at = _instant(said, "issuedAt"), _instant(said, "expiresAt")
    if expires_at <= issued_at:
        raise Refused("It expires before it was issued.", "signedText")
    return Canary(_statements(said), issued_at, expires_at, signed_text, signature, public_key)


def _once_each(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    """RFC 8259 §4 leaves open which of two equal keys counts; what is signed must have one meaning."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _statements(said: dict[str, object]) -> tuple[str, ...]:
    found = said.get("statements")
    if isinstance(found, list) and 1 <= len(found) <= MAX_STATEMENTS and all(map(_is_statement, found)):
        return tuple(found)
    raise Refused(f"`statements` is a list of 1 to {MAX_STATEMENTS} texts.", "signedText")


def _is_statement(value: object) -> bool:
    # JSON can name halves of a pair (RFC 8259 §8.2), which no answer could carry in UTF-8.
    return isinstance(value, str) and bool(value.strip()) and not any("\ud800" <= each <= "\udfff" for each in value)


def _instant(said: dict[str, object], name: str) -> int:
    text = said.get(name)
    try:
        if isinstance(text, str):
            instant = parse_instant(text)
            format_instant(instant)
            return instant
    except (ValueError, OverflowError):
        pass  # said below; what can't be written again in UTC, beyond the year 9999, is no time either
    raise Refused(f"`{name}` is a time such as 2026-11-20T10:00:00.000Z.", "signedText")
