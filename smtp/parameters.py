"""What MAIL and RCPT can say beside an address, as values, in both directions.

The server reads these from a client's command (`smtp.server.commands`), the client writes them into its own
(`smtp.client.envelope`). Texts are kept decoded; xtext is only how they travel.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Literal

# RFC 3461 §4.4: ENVID has at most 100 characters, as it is written. §4.2: ORCPT at most 500.
MAX_ENVID_OCTETS = 100
MAX_ORCPT_OCTETS = 500

# RFC 3461 §4: xtext = *( xchar / hexchar ) ; xchar = any ASCII CHAR between "!" (33) and "~" (126) inclusive, except
#              for "+" and "=" ; hexchar = ASCII "+" immediately followed by two upper case hexadecimal digits
_XTEXT_RE = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEXCHAR_RE = re.compile(r"\+([0-9A-F]{2})")
_NOT_XCHAR_RE = re.compile(r"[^!-*,-<>-~]")
# RFC 6533 §3: the address type utf-8 has an encoding of its own: \x{HEX}, upper case, two to six digits.
_EMBEDDED_RE = re.compile(r"\\x\{([0-9A-F]{2,6})\}")


class Notify(Enum):
    """One word of NOTIFY (RFC 3461 §4.1): what a sender wants to hear about a recipient."""

    NEVER = "NEVER"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DELAY = "DELAY"


@dataclass(frozen=True, slots=True)
class OriginalRecipient:
    """ORCPT (RFC 3461 §4.2): whom the sender wrote to in the first place, wherever that has led since."""

    address_type: str
    """As it was written; `rfc822` and `utf-8` are the ones of mail."""
    address: str
    """Decoded."""


@dataclass(frozen=True, slots=True)
class MailParameters:
    """What MAIL said about the message to come."""

    size: int | None = None
    """Octets (RFC 1870), as the client counts or guesses them."""
    body: Literal["7BIT", "8BITMIME"] = "7BIT"
    """RFC 6152."""
    smtputf8: bool = False
    """RFC 6531: addresses or header fields may be in UTF-8."""
    require_tls: bool = False
    """RFC 8689: rather not delivered at all than over a hop without TLS."""
    ret: Literal["FULL", "HDRS"] | None = None
    """RFC 3461 §4.3: how much of the message a report of failure should carry; None where nothing was said."""
    envid: str = ""
    """RFC 3461 §4.4: the sender's own name for this transaction, decoded; empty where none was given."""


@dataclass(frozen=True, slots=True)
class RecipientParameters:
    """What RCPT said about its recipient."""

    notify: frozenset[Notify] | None = None
    """None where nothing was said: failure, and perhaps delay. `NEVER` always stands alone."""
    orcpt: OriginalRecipient | None = None


NO_MAIL_PARAMETERS = MailParameters()
NO_RECIPIENT_PARAMETERS = RecipientParameters()


def to_xtext(text: str) -> str:
    """Encode a text of printable ASCII. Raises ValueError for any other."""
    if not (text.isascii() and text.isprintable()):
        raise ValueError("xtext holds printable ASCII only")
    return _NOT_XCHAR_RE.sub(lambda found: f"+{ord(found[0]):02X}", text)


def from_xtext(text: str) -> str:
    """Decode. Raises ValueError for what is not xtext, and for what would not be printable ASCII."""
    if not _XTEXT_RE.fullmatch(text):
        raise ValueError("this is not xtext")
    decoded = _HEXCHAR_RE.sub(lambda found: chr(int(found[1], 16)), text)
    if not (decoded.isascii() and decoded.isprintable()):
        raise ValueError("xtext that hides what is not printable")
    return decoded


def parse_original_recipient(text: str) -> OriginalRecipient:
    """Read the value of ORCPT: `rfc822;xtext` or `utf-8;...` (RFC 6533 §3). Raises ValueError."""
    address_type, semicolon, encoded = text.partition(";")
    if not semicolon or not encoded or not re.fullmatch(r"[A-Za-z0-9-]+", address_type):
        raise ValueError("ORCPT is a type, a semicolon and an address")
    if len(text.encode("utf-8")) > MAX_ORCPT_OCTETS:
        raise ValueError("ORCPT is too long")
    if address_type.lower() != "utf-8":
        return _decoded_original_recipient(address_type, encoded)
    if "=" in encoded or "+" in encoded or not encoded.isprintable() or " " in encoded:
        # RFC 6533 §3: utf-8-addr-xtext has `+`, `=` and `\` as \x{..}, in the forms with and without raw UTF-8 alike.
        raise ValueError("this is no address of the type utf-8")
    try:
        address = _EMBEDDED_RE.sub(lambda found: chr(int(found[1], 16)), encoded)
        address.encode("utf-8")
    except (ValueError, OverflowError):
        raise ValueError("this is no address of the type utf-8") from None
    if "\\" in _EMBEDDED_RE.sub("", encoded) or not address.isprintable():
        raise ValueError("this is no address of the type utf-8")
    return OriginalRecipient(address_type, address)


def _decoded_original_recipient(address_type: str, encoded: str) -> OriginalRecipient:
    if not _XTEXT_RE.fullmatch(encoded):
        raise ValueError("this is not xtext")
    octets = _HEXCHAR_RE.sub(lambda found: chr(int(found[1], 16)), encoded).encode("latin-1")
    # UnicodeDecodeError is a ValueError.
    address = octets.decode("utf-8")
    if not address.isprintable():
        raise ValueError("xtext that hides what is not printable")
    if address.isascii():
        return OriginalRecipient(address_type, address)
    if address_type.lower() != "rfc822":
        raise ValueError("an address of this type is in ASCII")
    # Postfix writes an address in UTF-8 so, octet by octet. RFC 6533 §3 has a type for what it means.
    return OriginalRecipient("utf-8", address)


def format_original_recipient(recipient: OriginalRecipient) -> str:
    """The value of ORCPT, in ASCII. Raises ValueError for an address that its type can't hold."""
    if recipient.address_type.lower() != "utf-8":
        return f"{recipient.address_type};{to_xtext(recipient.address)}"
    encoded = "".join(
        character if "!" <= character <= "~" and character not in "+=\\" else f"\\x{{{ord(character):02X}}}"
        for character in recipient.address
    )
    return f"{recipient.address_type};{encoded}"
