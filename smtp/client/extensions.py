"""What a server offers at EHLO, as a client reads it.

Whatever is malformed is not offered: nothing a server says about its extensions can break a conversation.
"""

import re
from dataclasses import dataclass

from smtp.reply import Reply

# RFC 9422 §4: the values of RCPTMAX, MAILMAX and RCPTDOMAINMAX are %x31-39 0*5DIGIT
_LIMIT_RE = re.compile(r"[1-9][0-9]{0,5}")
# RFC 1870 §4: size-param ::= [1*DIGIT], at most 20 of them as in the size-value of MAIL.
_SIZE_RE = re.compile(r"[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Limits:
    """LIMITS (RFC 9422 §4): how much a server takes; None where it has not said so."""

    messages: int | None = None
    """MAILMAX: MAIL commands in one session, refused ones among them."""
    recipients: int | None = None
    """RCPTMAX: RCPT commands in one transaction."""
    recipient_domains: int | None = None
    """RCPTDOMAINMAX: different domains among the recipients of one transaction."""


NO_LIMITS = Limits()


def read_server_name(reply: Reply) -> str:
    """What a server calls itself, in its greeting or in its reply to EHLO: the first word, whatever it is."""
    return reply.text.partition("\n")[0].partition(" ")[0][:255]


def read_extensions(reply: Reply) -> dict[str, str]:
    """The keywords of a reply to EHLO, in upper case, and their parameters."""
    # RFC 5321 §4.1.1.1: ehlo-line = ehlo-keyword *( SP ehlo-param )
    found = {}
    for line in reply.text.split("\n")[1:]:
        keyword, _, parameters = line.strip().partition(" ")
        if keyword:
            found[keyword.upper()] = parameters.strip()
    return found


def read_limits(extensions: dict[str, str]) -> Limits:
    """What LIMITS says. Names that are not known here and values that are none are ignored (RFC 9422 §3)."""
    said = extensions.get("LIMITS")
    if not said:
        return NO_LIMITS
    values: dict[str, int] = {}
    for limit in said.split():
        name, equals, value = limit.partition("=")
        if equals and _LIMIT_RE.fullmatch(value):
            values[name.upper()] = int(value)
    return Limits(values.get("MAILMAX"), values.get("RCPTMAX"), values.get("RCPTDOMAINMAX"))


def read_max_octets(extensions: dict[str, str]) -> int | None:
    """The size of the largest message, in octets; None where there is no such limit, or it is not known.

    RFC 1870 §4: without a value the server has said nothing about it, and 0 means that there is none.
    """
    said = extensions.get("SIZE", "")
    return (int(said) or None) if _SIZE_RE.fullmatch(said) else None
