"""Addresses, by one grammar for everyone who has to read one.

MAIL and RCPT, the configuration, the command line and rewritten senders all come through here, so that no two parts of
the house can disagree on where an address ends. ASCII only; every refusal says why in a few plain words.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Self

# RFC 5321 §4.5.3.1.1: "The maximum total length of a user name or other local-part is 64 octets."
MAX_LOCAL_PART_OCTETS = 64
# RFC 5321 §4.5.3.1.2: "The maximum total length of a domain name or number is 255 octets."
MAX_DOMAIN_OCTETS = 255
# RFC 5321 §4.5.3.1.3: a path has at most 256 octets "including the punctuation", of which two are < and >.
MAX_MAILBOX_OCTETS = 254
# RFC 1035 §2.3.4. The regular expression of a label says it once more.
MAX_LABEL_OCTETS = 63

# RFC 5322 §3.2.3: atext = ALPHA / DIGIT / "!" / "#" / "$" / "%" / "&" / "'" / "*" / "+" / "-" / "/" / "=" / "?" / "^" /
#                          "_" / "`" / "{" / "|" / "}" / "~"
_ATEXT = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]"
# RFC 5321 §4.1.2: Dot-string = Atom *("." Atom)
_DOT_STRING = rf"{_ATEXT}+(?:\.{_ATEXT}+)*"
# RFC 5321 §4.1.2: Quoted-string = DQUOTE *QcontentSMTP DQUOTE
#                  qtextSMTP = %d32-33 / %d35-91 / %d93-126 ; quoted-pairSMTP = %d92 %d32-126
_QUOTED_STRING = r'"(?:[ !#-\[\]-~]|\\[ -~])*"'
# RFC 5321 §4.1.2: sub-domain = Let-dig [Ldh-str] ; Ldh-str = *( ALPHA / DIGIT / "-" ) Let-dig
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
# RFC 5321 §4.1.2: Domain = sub-domain *("." sub-domain)
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
# RFC 5321 §4.1.2: A-d-l = At-domain *( "," At-domain ) ; At-domain = "@" Domain
_SOURCE_ROUTE = rf"@{_DOMAIN}(?:,@{_DOMAIN})*:"

_LOCAL_PART_TOO_LONG = f"the part before the @ is longer than {MAX_LOCAL_PART_OCTETS} characters"

_DOT_STRING_RE = re.compile(_DOT_STRING)
_DOMAIN_RE = re.compile(_DOMAIN)
_QUOTED_PAIR_RE = re.compile(r"\\(.)")
# What nearly every mailbox looks like, in one go.
# RFC 5321 §4.1.2: Mailbox = Local-part "@" ( Domain / address-literal )
_PLAIN_MAILBOX_RE = re.compile(rf"({_DOT_STRING})@({_DOMAIN})")
_PLAIN_PATH_RE = re.compile(rf"<({_DOT_STRING})@({_DOMAIN})>(?: +|\Z)")
# Where the local part ends. A quoted one may have "@" and ">" in it.
_LOCAL_PART_RE = re.compile(rf'({_QUOTED_STRING}|[^"@<>\s]*)@')
# RFC 5321 §4.1.2: Path = "<" [ A-d-l ":" ] Mailbox ">". What is between is looked at by Address.parse.
_PATH_RE = re.compile(rf'<(?:{_SOURCE_ROUTE})?((?:{_QUOTED_STRING}|[^"<>])*)>')


class AddressError(ValueError):
    """This is not an address. The text says why, for people."""


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox, as it was written."""

    local_part: str
    """The content, without the quotes that it may have come in."""
    domain: str
    """A domain or an address literal; empty only for a bare `postmaster`."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a Mailbox (RFC 5321 §4.1.2), without angle brackets. Raises AddressError."""
        if len(text) > MAX_MAILBOX_OCTETS:
            raise AddressError("the address is too long")
        match = _PLAIN_MAILBOX_RE.fullmatch(text)
        if not match:
            return cls(*_parse_unusual(text))
        local_part, domain = match.groups()
        _check_lengths(local_part, domain)
        return cls(local_part, domain)

    def __str__(self) -> str:
        """The form of RFC 5321, quoted where it has to be."""
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
    def key(self) -> tuple[str, str]:
        """What two spellings of one mailbox have in common here: both parts in lower case.

        RFC 5321 §2.4 lets a host tell local parts apart by case and asks it not to: we do not.
        """
        return self.local_part.lower(), self.domain.lower()


def parse_domain(text: str) -> str:
    """Read a domain name (letters, digits and hyphens; no final dot) and return it in lower case.

    Raises AddressError.
    """
    if not _DOMAIN_RE.fullmatch(text):
        raise AddressError(_why_no_domain(text))
    _check_domain(text)
    return text.lower()


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
    match = _PLAIN_PATH_RE.match(text)
    if not match:
        return None
    local_part, domain = match.groups()
    _check_lengths(local_part, domain)
    return Address(local_part, domain), text[match.end() :]


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
    return match.group(1), rest.lstrip(" ")


def _parse_unusual(text: str) -> tuple[str, str]:
    """Quoted local parts and address literals; or the reason why it is neither."""
    if not text.isascii():
        raise AddressError("only ASCII characters can be used in an address")
    match = _LOCAL_PART_RE.match(text)
    if not match:
        raise AddressError("the @ is missing" if "@" not in text else "the part before the @ is not well-formed")
    local_part, domain = match.group(1), text[match.end() :]
    if not local_part:
        raise AddressError("nothing stands before the @")
    if len(local_part) > MAX_LOCAL_PART_OCTETS:
        raise AddressError(_LOCAL_PART_TOO_LONG)
    if local_part.startswith('"'):
        local_part = _QUOTED_PAIR_RE.sub(r"\1", local_part[1:-1])
    elif not _DOT_STRING_RE.fullmatch(local_part):
        raise AddressError("the part before the @ is not well-formed")
    if domain.startswith("["):
        _check_literal(domain)
    elif not _DOMAIN_RE.fullmatch(domain):
        raise AddressError(_why_no_domain(domain))
    else:
        _check_domain(domain)
    return local_part, domain


def _check_lengths(local_part: str, domain: str) -> None:
    if len(local_part) + 1 + len(domain) > MAX_MAILBOX_OCTETS:
        raise AddressError("the address is too long")
    if len(local_part) > MAX_LOCAL_PART_OCTETS:
        raise AddressError(_LOCAL_PART_TOO_LONG)
    _check_domain(domain)


def _check_domain(domain: str) -> None:
    if len(domain) > MAX_DOMAIN_OCTETS:
        raise AddressError("the domain is too long")
    # RFC 3696 §2: a top-level domain is never all digits. `1.2.3.4` is an IP address that lost its brackets, and a
    # resolver might take it for one.
    if domain[domain.rfind(".") + 1 :].isdecimal():
        raise AddressError("a domain does not end in a number")


def _check_literal(literal: str) -> None:
    # RFC 5321 §4.1.3: address-literal = "[" ( IPv4-address-literal / IPv6-address-literal / General-address-literal )
    # "]". No tag other than IPv6 has ever been registered, so the third is refused.
    try:
        if not literal.endswith("]"):
            raise AddressError("the ] is missing")
        inside = literal[1:-1]
        if inside[:5].upper() == "IPV6:":
            if "%" in inside:
                raise AddressError("an IPv6 address has no zone here")
            IPv6Address(inside[5:])
        else:
            IPv4Address(inside)
    except AddressValueError:
        raise AddressError("between [ and ] stands no IP address") from None


def _why_no_domain(text: str) -> str:
    if not text:
        return "the domain is missing"
    if not text.isascii():
        return "only ASCII characters can be used in a domain; write an international one as xn--"
    if any(len(label) > MAX_LABEL_OCTETS for label in text.split(".")):
        return "a part of the domain is longer than 63 characters"
    return "the domain is not well-formed"
