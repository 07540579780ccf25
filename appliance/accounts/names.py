"""What people type as an alias, read strictly. Domain names and mailboxes are read by `appliance.model.names`."""

import unicodedata

from appliance.model.names import domain_name, mailbox
from appliance.model.refused import Refused
from appliance.routing.patterns import PatternError, check_pattern


def split_alias(text: str) -> tuple[str, str]:
    """`PATTERN@DOMAIN` as the pattern as it was typed, and a domain name."""
    before, at, domain = text.strip().rpartition("@")
    if not at or not before:
        raise Refused(
            f"{text!r} is not an alias. One is written name@example.org, prefix*@example.org, *@example.org or "
            "/^expression$/@example.org.",
            "pattern",
        )
    return before, domain_name(domain, "pattern")


def alias_address(text: str) -> tuple[str, str]:
    """`PATTERN@DOMAIN` as a pattern in its one form, and a domain name."""
    typed, domain = split_alias(text)
    return alias_pattern(typed, domain), domain


def alias_pattern(text: str, domain: str) -> str:
    """A pattern of local parts at this domain: `name`, `prefix*` or `*` in lower case, NFC and without quotes, or an
    expression between slashes as it was typed, in NFC."""
    typed = text.strip(" ")
    if len(typed) > 1 and typed[0] == typed[-1] == "/":
        expression = unicodedata.normalize("NFC", typed)
        try:
            check_pattern(expression)
        except PatternError as error:
            raise Refused(f"{typed!r} can't be used as an expression: {error}.", "pattern") from None
        return expression
    # `*` is an ordinary letter of a local part (RFC 5322 §3.2.3), so the grammar of addresses holds patterns too.
    pattern = mailbox(f"{typed}@{domain}", "pattern").key[0]
    if not pattern or "*" in pattern[:-1]:
        raise Refused(
            f"{typed!r} is not a pattern. One is name, prefix* or *, with the * only at its end, or /^expression$/.",
            "pattern",
        )
    return pattern
