"""Addresses, by one grammar for everyone who has to read one.

MAIL and RCPT, the configuration, the command line and rewritten senders all come through here, so that no two parts of
the house can disagree on where an address ends. It is the international grammar (RFC 6531 §3.3): whether an address
beyond ASCII can be used at the moment is for whoever asked to say, with `is_ascii`. Every refusal says why in a few
plain words. All lengths are octets of UTF-8.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Self

from smtp.labels import JOINERS, MAX_LABEL_OCTETS, a_label, is_a_label, joiner_stands_right, u_label, why_no_u_label

# RFC 5321 §4.5.3.1.1: "The maximum total length of a user name or other local-part is 64 octets."
MAX_LOCAL_PART_OCTETS = 64
# RFC 5321 §4.5.3.1.2: "The maximum total length of a domain name or number is 255 octets."
MAX_DOMAIN_OCTETS = 255
# RFC 5321 §4.5.3.1.3: a path has at most 256 octets "including the punctuation", of which two are < and >.
MAX_PATH_OCTETS = 256
MAX_MAILBOX_OCTETS = MAX_PATH_OCTETS - len("<>")

ADDRESSES_AT_HAND = 512
"""The last addresses that were read, with what was worked out of them. A message has the same few read several times,
and the same mailboxes come again and again: looked up, an address costs a tenth. No more than are needed for the
messages of some moments, because each is kept in memory."""

# RFC 5322 §3.2.3: atext = ALPHA / DIGIT / "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "/" / "=" / "?" / "^" /
#                          "_" / "`" / "{" / "|" / "}" / "~"
_ATEXT = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]"
# RFC 6531 §3.3: atext =/ UTF8-non-ascii. Which of them is seen to by _check_printable.
_UATEXT = _ATEXT[:-1] + r"\x80-\U0010ffff]"
# RFC 5321 §4.1.2: Dot-string = Atom *("." Atom)
_DOT_STRING = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"
_UDOT_STRING = rf"{_UATEXT}+(?:\.{_UATEXT}+)*"
# RFC 5321 §4.1.2: Quoted-string = DQUOTE *QcontentSMTP DQUOTE
#                  qtextSMTP = %d32-33 / %d35-91 / %d93-126 ; quoted-pairSMTP = %d92 %d32-126
# RFC 6531 §3.3: qtextSMTP =/ UTF8-non-ascii. It forgets the pairs, which RFC 6532 §3.2 extends in header fields.
_QUOTED_STRING = r'"(?:[ !#-\[\]-~\x80-\U0010ffff]|\\[ -~\x80-\U0010ffff])*"'
# RFC 5321 §4.1.2: sub-domain = Let-dig [Ldh-str] ; Ldh-str = *( ALPHA / DIGIT / "-" ) Let-dig
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# RFC 5321 §4.1.2: Domain = sub-domain *("." sub-domain)
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
# RFC 5321 §4.1.2: A-d-l = At-domain *( "," At-domain ) ; At-domain = "@" Domain. Its domains are looked at one by one.
_SOURCE_ROUTE = r"@[^@,:<>\"\s]+(?:,@[^@,:<>\"\s]+)*"

_ADDRESS_TOO_LONG = f"the address is too long: {MAX_MAILBOX_OCTETS} octets are the most"
_LOCAL_PART_TOO_LONG = f"the part before the @ is longer than {MAX_LOCAL_PART_OCTETS} octets"
_DOMAIN_TOO_LONG = f"the domain is too long: {MAX_DOMAIN_OCTETS} octets are the most"
_NO_JOINERS = dict.fromkeys(map(ord, JOINERS))

_DOT_STRING_RE = re.compile(_UDOT_STRING)
_LABEL_RE = re.compile(_LABEL)
_DOMAIN_RE = re.compile(_DOMAIN)
_QUOTED_PAIR_RE = re.compile(r"\\(.)")
# What nearly every mailbox looks like, in one go.
# RFC 5321 §4.1.2: Mailbox = Local-part "@" ( Domain / address-literal )
_PLAIN_MAILBOX_RE = re.compile(rf"({_DOT_STRING})@({_DOMAIN})")
# Where the local part ends. A quoted one may have "@" and ">" in it.
_LOCAL_PART_RE = re.compile(rf'({_QUOTED_STRING}|[^"@<>\s]*)@')
# RFC 5321 §4.1.2: Path = "<" [ A-d-l ":" ] Mailbox ">". What is between is looked at by Address.parse.
_PATH_RE = re.compile(rf'<(?:({_SOURCE_ROUTE}):)?((?:{_QUOTED_STRING}|[^"<>])*)>')


class AddressError(ValueError):
    """This is not an address. The text says why, for people."""


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox, as it was written."""

    local_part: str
    """The content, without the quotes that it may have come in."""
    domain: str
    """A domain or an address literal; empty only for a bare `postmaster`."""
    key: tuple[str, str] = field(init=False, repr=False, compare=False)
    """What two spellings of one mailbox have in common here: a local part in lower case and NFC, an ASCII domain."""
    _text: str = field(default="", init=False, repr=False, compare=False)
    """Its form as a text, once it has been asked for."""

    def __post_init__(self) -> None:
        # Asked for a dozen times while one message is under way, and only looked up from here on.
        object.__setattr__(self, "key", (_folded(self.local_part), ascii_domain(self.domain)))

    @staticmethod
    def parse(text: str) -> "Address":
        """Read a Mailbox (RFC 5321 §4.1.2), without angle brackets. Raises AddressError."""
        if len(text) > MAX_MAILBOX_OCTETS:
            raise AddressError(_ADDRESS_TOO_LONG)
        return _plain_mailbox(text) or Address(*_parse_unusual(text))

    def __str__(self) -> str:
        """The form of RFC 5321, quoted where it has to be."""
        if not self._text:
            object.__setattr__(self, "_text", self._written())
        return self._text

    def _written(self) -> str:
        local_part = self.local_part
        if not _DOT_STRING_RE.fullmatch(local_part):
            # RFC 5321 §4.1.2: only \ and " need a backslash, and a form without needless ones is preferred.
            local_part = '"' + local_part.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local_part}@{self.domain}" if self.domain else local_part

    @property
    def is_ascii(self) -> bool:
        """Whether it can be used without SMTPUTF8 (RFC 6531)."""
        return self.local_part.isascii() and self.domain.isascii()

    @property
    def in_ascii(self) -> Self | None:
        """The same mailbox for use without SMTPUTF8, its domain in A-labels; None where there is no such form.

        RFC 6531 §3.2: nobody but its host may write a local part in another way.
        """
        if not self.local_part.isascii():
            return None
        return self if self.domain.isascii() else type(self)(self.local_part, ascii_domain(self.domain))


def _folded(local_part: str) -> str:
    """A local part as it stands in a key.

    RFC 5321 §2.4 lets a host tell local parts apart by case and asks it not to: we do not. RFC 6532 §3.1 asks for NFC,
    and against NFKC, which would make one of what looks different. The one letter with two small forms, Σ, has σ for
    both: which of them stands is a matter of what follows, and not all who fold case look at that.
    """
    if local_part.isascii():
        return local_part.lower()
    lowered = unicodedata.normalize("NFC", local_part).lower().replace("ς", "σ")
    return unicodedata.normalize("NFC", lowered)


def ascii_domain(domain: str) -> str:
    """A domain in the form that the DNS and every server know: A-labels, in lower case. A literal stays as it is.

    RFC 5890 §2.3.2.1: U-labels and A-labels are two forms of the same. For domains that have been read; raises nothing.
    """
    if domain.isascii():
        return domain.lower() if domain[:1] != "[" else domain
    return ".".join(map(a_label, domain.split(".")))


def unicode_domain(domain: str) -> str:
    """The other form, for people: U-labels, in lower case. For domains that have been read; raises nothing."""
    return ".".join(map(u_label, domain.split("."))) if domain[:1] != "[" else domain


def parse_domain(text: str) -> str:
    """Read a domain name (U-labels or A-labels, no final dot, no literal) and return its `ascii_domain`.

    Raises AddressError.
    """
    _check_any_domain(text)
    return ascii_domain(text)


def parse_reverse_path(text: str) -> tuple[Address | None, str]:
    """Read the path of MAIL: the sender, or None for `<>`, and what stands behind it without leading spaces.

    Raises AddressError.
    """
    plain = _plain_path(text)
    if plain:
        return plain
    mailbox, rest = _split_path(text)
    return (Address.parse(mailbox) if mailbox else None), rest


def parse_forward_path(text: str) -> tuple[Address, str]:
    """Read the path of RCPT: the recipient, and what stands behind it without leading spaces.

    Raises AddressError.
    """
    plain = _plain_path(text)
    if plain:
        return plain
    mailbox, rest = _split_path(text)
    if not mailbox:
        raise AddressError("a recipient is missing between < and >")
    # RFC 5321 §4.5.1: "postmaster" needs no domain, and its case does not matter.
    if mailbox.lower() == "postmaster":
        return Address(mailbox, ""), rest
    return Address.parse(mailbox), rest


def _plain_path(text: str) -> tuple[Address, str] | None:
    """What nearly every path looks like, without going through the rest of the grammar."""
    end = text.find(">")
    if not 0 < end <= MAX_MAILBOX_OCTETS + 1 or text[0] != "<" or text[end + 1 : end + 2] not in ("", " "):
        return None
    address = _plain_mailbox(text[1:end])
    return None if address is None else (address, text[end + 1 :].lstrip(" "))


@lru_cache(maxsize=ADDRESSES_AT_HAND)
def _plain_mailbox(text: str) -> Address | None:
    """What nearly every mailbox looks like, within MAX_MAILBOX_OCTETS; None for any other. Raises AddressError."""
    match = _PLAIN_MAILBOX_RE.fullmatch(text)
    if not match:
        return None
    local_part, domain = match.groups()
    if len(local_part) > MAX_LOCAL_PART_OCTETS:
        raise AddressError(_LOCAL_PART_TOO_LONG)
    _check_domain(domain)
    return Address(local_part, domain)


def _split_path(text: str) -> tuple[str, str]:
    # RFC 5321 §3.3 allows no space behind the colon; so many clients put one there that it is taken.
    text = text.lstrip(" ")
    if not text.startswith("<"):
        # The brackets are required (§4.1.2), but people at a terminal and old scripts leave them out, and only one
        # thing can be meant. An empty path without brackets is not the null path.
        mailbox, _, rest = text.partition(" ")
        if not mailbox:
            raise AddressError("an address is missing")
        return mailbox, rest.lstrip(" ")
    # RFC 5321 §4.1.1.3 and appendix C: source routes are taken and ignored.
    match = _PATH_RE.match(text)
    if not match:
        raise AddressError("this is not an address between < and >")
    rest = text[match.end() :]
    if rest and not rest.startswith(" "):
        raise AddressError("something follows the > without a space")
    route, mailbox = match.groups()
    if route:
        # Only the null path is empty, and it has no route (RFC 5321 §4.1.2).
        if not mailbox:
            raise AddressError("an address is missing behind the route")
        if _octets(match.group()) > MAX_PATH_OCTETS:
            raise AddressError(f"the route is too long: {MAX_PATH_OCTETS} octets are the most with its address")
        for domain in route[1:].split(",@"):
            _check_any_domain(domain)
    return mailbox, rest.lstrip(" ")


def _parse_unusual(text: str) -> tuple[str, str]:
    """Quoted local parts, address literals and what is beyond ASCII; or the reason why it is none of them."""
    _check_printable(text)
    match = _LOCAL_PART_RE.match(text)
    if not match:
        raise AddressError("the @ is missing" if "@" not in text else "the part before the @ is not well-formed")
    written, domain = match.group(1), text[match.end() :]
    if not written:
        raise AddressError("nothing stands before the @")
    local_part = written
    if written.startswith('"'):
        local_part = _QUOTED_PAIR_RE.sub(r"\1", written[1:-1])
    elif not _DOT_STRING_RE.fullmatch(written):
        raise AddressError("the part before the @ is not well-formed")
    if domain.startswith("["):
        _check_literal(domain)
    else:
        _check_any_domain(domain)
    # Both forms of the domain: the mailbox may have to be written in either.
    local_octets = _octets(written)
    if local_octets + 1 + max(_octets(domain), len(ascii_domain(domain))) > MAX_MAILBOX_OCTETS:
        raise AddressError(_ADDRESS_TOO_LONG)
    if local_octets > MAX_LOCAL_PART_OCTETS:
        raise AddressError(_LOCAL_PART_TOO_LONG)
    return local_part, domain


def _check_printable(text: str) -> None:
    """No control, no mark that turns the direction of writing, no space but the plain one, nothing unassigned."""
    if text.isprintable():
        return
    joiners = [at for at, letter in enumerate(text) if letter in JOINERS]
    if not text.translate(_NO_JOINERS).isprintable() or not all(joiner_stands_right(text, at) for at in joiners):
        raise AddressError("an address has no spaces, control characters or invisible characters in it")


def _check_any_domain(domain: str) -> None:
    """Every label of a domain that may be international. Raises AddressError."""
    if domain.isascii():
        if not _DOMAIN_RE.fullmatch(domain):
            raise AddressError(_why_no_domain(domain))
    else:
        # Only "." parts labels: what looks like it (U+3002 and others) is for those who let people type to replace.
        for label in domain.split("."):
            if not label.isascii():
                why = why_no_u_label(label)
            else:
                why = None if _LABEL_RE.fullmatch(label) else _why_no_domain(label)
            if why:
                raise AddressError(why)
        if _octets(domain) > MAX_DOMAIN_OCTETS:
            raise AddressError(_DOMAIN_TOO_LONG)
        domain = ascii_domain(domain)
    _check_domain(domain)


def _check_domain(domain: str) -> None:
    """What the grammar of an ASCII domain leaves open. Raises AddressError."""
    if len(domain) > MAX_DOMAIN_OCTETS:
        raise AddressError(_DOMAIN_TOO_LONG)
    # RFC 3696 §2: a top-level domain is never all digits. `1.2.3.4` is an IP address that lost its brackets, and a
    # resolver might take it for one.
    if domain[-1] <= "9" and domain[domain.rfind(".") + 1 :].isdecimal():
        raise AddressError("a domain does not end in a number")
    if "--" in domain:
        for label in domain.lower().split("."):
            if label.startswith("xn--") and not is_a_label(label):
                raise AddressError("a part of the domain begins with xn-- and stands for nothing")


def _check_literal(literal: str) -> None:
    # RFC 5321 §4.1.3: address-literal = "[" ( IPv4-address-literal / IPv6-address-literal / General-address-literal )
    # "]". No tag other than IPv6 has ever been registered, so the third is refused.
    try:
        if not literal.endswith("]"):
            raise AddressError("the ] is missing")
        inside = literal[1:-1]
        if inside[:5].isascii() and inside[:5].upper() == "IPV6:":
            if "%" in inside:
                raise AddressError("an IPv6 address has no zone here")
            IPv6Address(inside[5:])
        else:
            IPv4Address(inside)
    except AddressValueError:
        raise AddressError("between [ and ] stands no IP address") from None


def _why_no_domain(text: str) -> str:
    if not text:
        return "a part of the domain is missing"
    if any(len(label) > MAX_LABEL_OCTETS for label in text.split(".")):
        return f"a part of the domain is longer than {MAX_LABEL_OCTETS} characters"
    return "the domain is not well-formed"


def _octets(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
