"""What people type as a name, read strictly: domain names and mailboxes.

The grammar is that of `smtp.address`; here stands what is asked beyond it, and the one form in which each thing is
stored and compared: domains in A-labels, local parts in NFC, as readable as they were typed. What is not right raises
Refused with the reason.
"""

import unicodedata

import idna

from appliance.model.refused import Refused
from smtp.address import Address, AddressError, parse_domain

MAX_NAME_OCTETS = 253
"""RFC 1035 §2.3.4: 255 octets on the wire are at most 253 characters of text; a longer name cannot be looked up."""


def domain_name(text: str, field: str = "name") -> str:
    """A domain name in lower case and A-labels: `Bücher.Example.` is `xn--bcher-kva.example`."""
    name = text.strip().removesuffix(".")
    if "@" in name:
        raise Refused(f"{text!r} is an address. A domain name is what stands behind its @.", field)
    if name.startswith("[") or ":" in name:
        raise Refused(f"{text!r} is an IP address; a domain name such as example.org is needed.", field)
    try:
        if not name.isascii() or "xn--" in name.lower():
            # RFC 5890 §2.3.2.1; UTS #46 first, so that what people type in any case and width means the same.
            name = idna.encode(name, uts46=True).decode("ascii")
        name = parse_domain(name)
    except (AddressError, idna.IDNAError) as error:
        why = str(error).rstrip(".")
        raise Refused(f"{text!r} is not a domain name: {why}. One looks like example.org.", field) from None
    if "." not in name:
        raise Refused(f"{text!r} has one label only; a domain name such as example.org has at least two.", field)
    if len(name) > MAX_NAME_OCTETS:
        raise Refused(f"{text!r} is too long: a domain name has at most {MAX_NAME_OCTETS} characters.", field)
    return name


def mailbox(text: str, field: str) -> Address:
    """A full address that mail can be sent to; its domain in lower case and A-labels, its local part in NFC.

    RFC 6532 §3.1 asks for NFC: keyboards and file systems differ in how they compose `é`, and its owner does not.
    """
    local_part, at, domain = text.strip().rpartition("@")
    if not at:
        raise Refused(f"{text!r} is not an email address: it has no @. One looks like name@example.org.", field)
    # White space is forgiven around what was typed, and nowhere in it.
    if domain[:1].isspace():
        raise Refused(f"{text!r} is not an email address: a space stands behind its @.", field)
    try:
        return Address.parse(f"{unicodedata.normalize('NFC', local_part)}@{domain_name(domain, field)}")
    except AddressError as error:
        raise Refused(f"{text!r} is not an email address: {error}.", field) from None


def account_email(text: str) -> str:
    """The address of an account, by which it is found, in lower case and NFC.

    RFC 5321 §2.4 leaves the case of a local part to its host; nobody gives two people mailboxes that differ by case
    alone, and people sign in with whatever case their keyboard makes.
    """
    return str(Address(*mailbox(text, "email").key))
