"""The envelope sender, rewritten so that a forwarded message passes SPF and its bounces find the way back.

The next hop checks whether *we* may send for the domain in MAIL FROM, so that domain has to be ours; and a report that
the next hop sends to the rewritten address has to lead to the original sender and to nobody else. Two forms, told apart
by the number of their fields:

    srs0=<tag>=<day>=<reference>=<domain>=<local part>    carries the sender in itself
    srs0=<tag>=<token>                                    stands for a stored `ReturnPath`

The first is used wherever it fits in 64 octets and the sender is made of plain characters; nothing is stored then. The
second takes every other sender: long ones, quoted ones, address literals, local parts beyond ASCII. A rewritten sender
is ASCII whatever it stands for, so it never is what keeps a message from a next hop without SMTPUTF8; an international
domain is carried in its A-labels, which say the same (RFC 5890 §2.3.2.1). A sender that is another forwarder's SRS0 or
SRS1 address is a sender like any other: its report goes back there, and that forwarder opens its own layer.

The tag is a MAC, so an address that we did not make does not open: we relay nothing to strangers' choice of recipient.
Some servers fold the case of local parts. Everything of ours is lower case and compared so; a sender that was carried
through such a server comes back with its own local part folded too, which nearly every mailbox accepts. The characters
are letters, digits and `=`, because `/` and `+` are refused or split off by some.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hmac import compare_digest

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from msgspec import Struct

from appliance.model.time import DAY_MS
from appliance.storage.spool import ReturnPath
from smtp.address import MAX_LOCAL_PART_OCTETS, MAX_MAILBOX_OCTETS, Address, ascii_domain

VALID_DAYS = 21
"""How long a report can find its way back: queues give up after five days, a second forwarder behind us after five
more, and some reports are written late. It is the retention of `return_paths` too."""

AHEAD_DAYS = 1
"""How far in the future a day may lie: the clocks of two nodes, or one clock set back by an hour around midnight."""

KEY_OCTETS = 16
"""The least that a key may have: 128 bits cannot be guessed."""

_PREFIX = "srs0="
_TAG_CHARACTERS = 8
"""Forty bits. A guess costs the guesser a transaction with us, and a hit opens one address for three weeks at most."""

_DAY_CHARACTERS = 2
_DAYS = 1024
"""Two base32 characters count to this, then start again."""

_SECRET_CHARACTERS = 26
"""A token's own part: 130 bits, so that one neither collides nor is guessed."""

_NO_ALIAS = "000000"
"""Stands for the empty reference, of mail that no alias took. Base32 has no 0, so it is never an alias's."""

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = tuple(first + second for first in _BASE32 for second in _BASE32)
_REFERENCE = re.compile(r"[a-z0-9]{6}|", re.ASCII)

_TOKEN = re.compile(rf"[{_BASE32}]{{{_DAY_CHARACTERS + _SECRET_CHARACTERS}}}", re.ASCII)


class NotOpened(Exception):
    """An address does not lead back to a sender. Trying again will not help: a 5xx."""


class NotOurs(NotOpened):
    """Not a rewritten sender of this domain at all."""


class Forged(NotOpened):
    """It has the form, but we did not make it, or somebody has changed it."""


class Expired(NotOpened):
    """We made it, too long ago."""


class Rewritten(Struct, frozen=True):
    """An envelope sender towards the destination."""

    return_path: str
    stored: ReturnPath | None
    """What has to be kept, in the same group as the accept, for the return path to open; None for nothing."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Whom a report is for, and about which alias."""

    sender: Address
    reference: str
    """The alias's; empty for mail that no alias took."""
    rewritten_at: int
    """The beginning of the day on which the message was accepted."""


class SenderRewriter:
    """Rewrites senders at one domain, and opens what it has made. Safe to share between threads: it never changes."""

    def __init__(self, domain: str, keys: Sequence[bytes]) -> None:
        """Sign with the first key, accept all of them; ValueError where they cannot serve."""
        if not keys or any(len(key) < KEY_OCTETS for key in keys):
            raise ValueError(f"sender rewriting needs one key or more, each of at least {KEY_OCTETS} octets")
        domain = ascii_domain(domain)
        longest = len(_PREFIX) + _TAG_CHARACTERS + 1 + _DAY_CHARACTERS + _SECRET_CHARACTERS
        if longest + 1 + len(domain) > MAX_MAILBOX_OCTETS:
            raise ValueError(f"the domain for rewritten senders is too long: {domain}")
        self._domain = domain
        self._keys = tuple(HMAC(key, SHA256()) for key in keys)
        overhead = len(_PREFIX) + _TAG_CHARACTERS + _DAY_CHARACTERS + len(_NO_ALIAS) + len("====") - len("@")
        # What a sender may have, with its own `@`, to be carried: both limits, less everything of ours.
        self._room = min(MAX_LOCAL_PART_OCTETS, MAX_MAILBOX_OCTETS - len("@") - len(domain)) - overhead

    @property
    def domain(self) -> str:
        """The domain of every rewritten sender, in lower case and A-labels."""
        return self._domain

    def rewrite(self, sender: str, reference: str, now: int) -> Rewritten:
        """The return path for a message from `sender`; the null reverse-path stays null (RFC 5321 §4.5.5).

        `reference` is the alias's, or empty for mail that no alias took (postmaster's). The same sender and alias give
        the same result all day long, so that what is stored for them is one row. Raises ValueError (of which
        AddressError is one) where the sender or the reference is not what it should be.
        """
        if sender == "":
            return Rewritten("", None)
        if not _REFERENCE.fullmatch(reference):
            raise ValueError(f"{reference!r} is not the reference of an alias")
        written = reference or _NO_ALIAS
        address = Address.parse(sender)
        sender = str(address)
        today = now // DAY_MS
        day = _encode_day(today)
        # A quoted string would have to be quoted once more around our own fields, and quoted local parts are what other
        # people's servers handle worst; the colons and brackets of an address literal could stand nowhere else.
        plain = not sender.startswith('"') and not sender.endswith("]")
        carried = address.in_ascii
        if plain and carried is not None and len(carried.local_part) + 1 + len(carried.domain) <= self._room:
            return Rewritten(self._signed(f"{day}={written}={carried.domain}={carried.local_part}"), None)
        # Unguessable, and the same for the same pair all day: a MAC. The day and the reference have their lengths
        # fixed, so that no two triples read alike.
        secret = self._mac(self._keys[0], "token", f"{day}{written}{sender}", _SECRET_CHARACTERS)
        token = day + secret
        # Stamped with the day's beginning: that is all the sweeper needs, and it says less about the message.
        return Rewritten(self._signed(token), ReturnPath(token, sender, reference, today * DAY_MS))

    def open(self, address: Address, now: int, look_up: Callable[[str], ReturnPath | None]) -> Opened:
        """Whom a report to this address is for.

        `look_up` finds a stored token; what it raises passes through, because a store that fails is a 4xx and never a
        5xx. Raises NotOurs, Forged or Expired.
        """
        local_part = address.local_part
        if ascii_domain(address.domain) != self._domain or local_part[: len(_PREFIX)].lower() != _PREFIX:
            raise NotOurs("not a rewritten sender of ours")
        tag, _, rest = local_part[len(_PREFIX) :].partition("=")
        # Not only for clarity: `lower` is Unicode, and would turn a KELVIN SIGN into the letter k.
        if not local_part.isascii() or not self._is_signed(tag.lower(), rest.lower()):
            raise Forged("the tag is not ours")
        # From here on the form is what `rewrite` made, for nobody else has the key.
        if _TOKEN.fullmatch(rest.lower()):
            return self._open_token(rest.lower(), now, look_up)
        day, written, domain, sender = rest.split("=", 3)
        reference = "" if written == _NO_ALIAS else written.lower()
        return Opened(Address(sender, domain), reference, _instant_of(day.lower(), now))

    def _open_token(self, token: str, now: int, look_up: Callable[[str], ReturnPath | None]) -> Opened:
        rewritten_at = _instant_of(token[:_DAY_CHARACTERS], now)
        stored = look_up(token)
        if stored is None:
            # We signed it, so it was there once.
            raise Expired("the sender behind this token is no longer known")
        return Opened(Address.parse(stored.sender), stored.reference, rewritten_at)

    def _signed(self, rest: str) -> str:
        tag = self._mac(self._keys[0], "tag", rest.lower(), _TAG_CHARACTERS)
        return f"{_PREFIX}{tag}={rest}@{self._domain}"

    def _is_signed(self, tag: str, rest: str) -> bool:
        return any(compare_digest(tag, self._mac(key, "tag", rest, _TAG_CHARACTERS)) for key in self._keys)

    @staticmethod
    def _mac(key: HMAC, purpose: str, text: str, characters: int) -> str:
        # Copied with the key absorbed: a third of the cost of beginning anew. The purpose keeps a token from ever being
        # a tag: one key, two MACs.
        state = key.copy()
        state.update(f"srs0 {purpose}\0{text}".encode())
        return _base32(state.finalize(), characters)


def _base32(octets: bytes, characters: int) -> str:
    """So many characters of the octets in base32 (RFC 4648 §6) in lower case, two at a time: a third of the time that
    the standard library takes, once for every message."""
    pairs = -(-characters // 2)
    number = int.from_bytes(octets, "big") >> (8 * len(octets) - 10 * pairs)
    return "".join([_PAIRS[number >> 10 * place & 1023] for place in range(pairs - 1, -1, -1)])[:characters]


def _encode_day(day: int) -> str:
    return _PAIRS[day % _DAYS]


def _instant_of(day: str, now: int) -> int:
    """The beginning of the day that these two characters stand for; Expired where it lies too far from now."""
    today = now // DAY_MS
    age = (today - _BASE32.index(day[0]) * 32 - _BASE32.index(day[1])) % _DAYS
    if age >= _DAYS - AHEAD_DAYS:
        age -= _DAYS
    if age > VALID_DAYS:
        raise Expired(f"older than {VALID_DAYS} days")
    return (today - age) * DAY_MS
