"""The client's MAIL and RCPT: which words go into them for which server, and what a server cannot be given at all.

No text that a caller has got from somewhere can become a command or a parameter of its own: an address must be one
word, printable, with brackets and spaces in the quotes of its local part only, and every line is looked at once more
when it is whole.

Parameters that only ask for reports (DSN) are left out where the server does not know them; RFC 3461 §5.2.2 lets the
relay that knows them answer for it. What would change the message or break a promise is not left out: then the message
is not sent, and the reply that stands for it is our own.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from smtp.address import MAX_MAILBOX_OCTETS, ascii_domain
from smtp.client.extensions import Limits
from smtp.parameters import (
    MAX_ENVID_OCTETS,
    MAX_ORCPT_OCTETS,
    MailParameters,
    RecipientParameters,
    format_original_recipient,
    to_xtext,
)
from smtp.reply import Reply
from smtp.tls import TlsFacts

# RFC 6152 §3: a server without 8BITMIME gets no octets above 127. RFC 3463 §3.7: X.6.3 conversion required but not
# supported. We never convert: it would break every signature.
NO_EIGHT_BIT = Reply(554, "The next server does not take 8-bit content", "5.6.3")
# RFC 6531 §3.5 and §4: X.6.7 where an address needs SMTPUTF8, X.6.9 where only the header does.
NO_UTF8_ADDRESS = Reply(553, "The next server does not take addresses outside ASCII", "5.6.7")
NO_UTF8_HEADER = Reply(550, "The next server does not take header fields in UTF-8", "5.6.9")
# RFC 8689 §4.2.1: TLS, a certificate that holds, and REQUIRETLS offered under it. §5: X.7.30.
NO_REQUIRED_TLS = Reply(550, "The next server can't be reached as REQUIRETLS demands", "5.7.30")
# RFC 1870 §4: a larger message would be rejected with 552. RFC 3463 §3.4: X.3.4 message too big for system.
TOO_LARGE = Reply(552, "The message is larger than the next server takes", "5.3.4")
# RFC 9422 §4.2 and §4.3. RFC 5321 §4.5.3.1.10: too many recipients is 452, and the rest comes in another transaction.
TOO_MANY_RECIPIENTS = Reply(452, "The next server takes no more recipients at a time", "4.5.3")

# RFC 5321 §4.1.2: Mailbox = Local-part "@" ( Domain / address-literal ) ; Local-part = Dot-string / Quoted-string.
# A quoted string may have brackets, spaces and escaped quotes in it, and nothing else may; who reads an address has
# looked closer. RFC 5321 §4.1.1.3: postmaster needs no domain.
_MAILBOX_RE = re.compile(r'(?:[^\s<>"\\@]++|"(?:[^"\\]|\\.)*+")@[^\s<>"\\@]++|(?i:postmaster)')
_ADDRESS_TYPE_RE = re.compile(r"[A-Za-z0-9-]+")


def find_obstacle(
    addresses: Iterable[str],
    parameters: MailParameters,
    extensions: Mapping[str, str],
    max_octets: int | None,
    tls: TlsFacts | None,
) -> Reply | None:
    """Why this server cannot be given this message, whoever it is for; None where nothing speaks against trying."""
    if parameters.require_tls and (tls is None or not tls.verified or "REQUIRETLS" not in extensions):
        return NO_REQUIRED_TLS
    if parameters.smtputf8 and "SMTPUTF8" not in extensions:
        return NO_UTF8_HEADER if all(address.isascii() for address in addresses) else NO_UTF8_ADDRESS
    if parameters.body == "8BITMIME" and "8BITMIME" not in extensions:
        return NO_EIGHT_BIT
    if max_octets is not None and parameters.size is not None and parameters.size > max_octets:
        return TOO_LARGE
    return None


def choose_recipients(recipients: Sequence[str], limits: Limits) -> Sequence[int]:
    """Which of the recipients go into one transaction, by index: as many as the server takes, the first ones."""
    max_recipients, max_domains = limits.recipients, limits.recipient_domains
    if max_domains is None:
        return range(len(recipients) if max_recipients is None else min(max_recipients, len(recipients)))
    chosen: list[int] = []
    domains: set[str] = set()
    for index, recipient in enumerate(recipients):
        domain = recipient.rpartition("@")[2].lower()
        if domain not in domains and len(domains) == max_domains:
            continue
        if max_recipients is not None and len(chosen) == max_recipients:
            break
        domains.add(domain)
        chosen.append(index)
    return chosen


def envelope_commands(
    sender: str,
    recipients: Sequence[str],
    parameters: MailParameters,
    for_recipients: Sequence[RecipientParameters],
    extensions: Mapping[str, str],
) -> list[bytes]:
    """MAIL, and RCPT for each recipient, without their CRLFs. `for_recipients` is empty, or has an entry for each.

    Raises ValueError for what no command can hold.
    """
    if not recipients:
        raise ValueError("a message needs a recipient")
    if for_recipients and len(for_recipients) != len(recipients):
        raise ValueError("there must be parameters for each recipient, or for none")
    utf8 = parameters.smtputf8
    commands = [mail_command(sender, parameters, extensions)]
    for index, recipient in enumerate(recipients):
        for_recipient = for_recipients[index] if for_recipients else None
        commands.append(recipient_command(recipient, for_recipient, extensions, utf8=utf8))
    return commands


def mail_command(sender: str, parameters: MailParameters, extensions: Mapping[str, str]) -> bytes:
    """MAIL, without its CRLF. Raises ValueError for what no command can hold."""
    words = [f"MAIL FROM:<{_path(sender, parameters.smtputf8)}>"]
    if parameters.size is not None and "SIZE" in extensions:
        words.append(f"SIZE={parameters.size:d}")
    if parameters.body == "8BITMIME":
        words.append("BODY=8BITMIME")
    if parameters.smtputf8:
        words.append("SMTPUTF8")
    if parameters.require_tls:
        words.append("REQUIRETLS")
    if "DSN" in extensions:
        if parameters.ret is not None:
            words.append(f"RET={parameters.ret}")
        if parameters.envid:
            envid = to_xtext(parameters.envid)
            if len(envid) > MAX_ENVID_OCTETS:
                raise ValueError("ENVID is too long")
            words.append(f"ENVID={envid}")
    return _line(words)


def recipient_command(
    recipient: str, parameters: RecipientParameters | None, extensions: Mapping[str, str], *, utf8: bool
) -> bytes:
    """RCPT, without its CRLF. `utf8` is whether MAIL says SMTPUTF8. Raises ValueError for what no command can hold."""
    if not recipient:
        raise ValueError("a recipient needs an address")
    words = [f"RCPT TO:<{_path(recipient, utf8)}>"]
    if parameters is not None and "DSN" in extensions:
        if parameters.notify:
            # In the order of their names, so that the same envelope is the same octets every time.
            words.append("NOTIFY=" + ",".join(sorted(notify.value for notify in parameters.notify)))
        if parameters.orcpt is not None:
            if not _ADDRESS_TYPE_RE.fullmatch(parameters.orcpt.address_type):
                raise ValueError("this is no type of an address")
            orcpt = format_original_recipient(parameters.orcpt)
            # One that came in UTF-8 may have grown too long in ASCII. It only says whom a report should name.
            if len(orcpt) <= MAX_ORCPT_OCTETS:
                words.append(f"ORCPT={orcpt}")
    return _line(words)


def _path(address: str, utf8: bool) -> str:
    """What goes between the brackets."""
    if not address:
        return ""
    if not utf8 and not address.isascii():
        # RFC 5890 §2.3.2.1, and RFC 6531 §3.2: a domain has a form in ASCII, a local part has none.
        local_part, _, domain = address.rpartition("@")
        if not local_part.isascii():
            raise ValueError("an address for the envelope has a character outside printable ASCII")
        address = f"{local_part}@{ascii_domain(domain)}"
    if not _MAILBOX_RE.fullmatch(address):
        raise ValueError("an address for the envelope is not one printable word")
    if len(address if address.isascii() else address.encode("utf-8", "surrogatepass")) > MAX_MAILBOX_OCTETS:
        raise ValueError("an address for the envelope is too long")
    return address


def _line(words: list[str]) -> bytes:
    line = " ".join(words)
    if not line.isprintable():
        raise ValueError("a command has a character that is not printable")
    return line.encode("utf-8")
