"""Commands: one line from a client, as a value, or the reply that it deserves.

Only syntax is decided here. Whether a command may come now is the session's table; what becomes of it is the
receiver's.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from smtp import answers
from smtp.address import Address, AddressError, parse_forward_path, parse_reverse_path
from smtp.parameters import (
    NO_MAIL_PARAMETERS,
    NO_RECIPIENT_PARAMETERS,
    MailParameters,
    RecipientParameters,
)
from smtp.reply import Reply

# RFC 5321 §4.1.1.11: esmtp-param = esmtp-keyword ["=" esmtp-value] ; esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT /
#                     "-") ; esmtp-value = 1*(%d33-60 / %d62-126)
_PARAMETER_RE = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~]+))?")
# RFC 1870 §3: size-value ::= 1*20DIGIT
_SIZE_RE = re.compile(r"[0-9]{1,20}")
# RFC 5321 §4.1.1.1 asks for a domain or an address literal. Clients also give names with an underscore and bare IP
# addresses, and §4.1.4 forbids refusing mail for a name that does not check out: everything is taken that can stand
# in a header without doing harm there.
_HELLO_NAME_RE = re.compile(r"\[[A-Za-z0-9.:\-]{1,253}\]|[A-Za-z0-9_.:\-]{1,255}")


class Verb(Enum):
    """The word that a line begins with."""

    EHLO = "EHLO"
    HELO = "HELO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    RSET = "RSET"
    NOOP = "NOOP"
    VRFY = "VRFY"
    HELP = "HELP"
    QUIT = "QUIT"
    FOREIGN = "FOREIGN"
    """A word of another protocol: a web browser that was led here."""
    NOT_OFFERED = "NOT OFFERED"
    """A command of SMTP that this server does not have."""
    UNKNOWN = "UNKNOWN"

    # Members are single objects. Enum's own hash, written in Python, would cost more than the look-up it serves.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Command:
    """One well-formed command. Which of the fields mean something depends on the verb."""

    verb: Verb
    text: str = ""
    """The name that EHLO and HELO gave."""
    address: Address | None = None
    """The sender (None: `<>`) or the recipient."""
    mail: MailParameters = NO_MAIL_PARAMETERS
    recipient: RecipientParameters = NO_RECIPIENT_PARAMETERS


class CommandError(Exception):
    """A line that is no command as it stands; carries the reply to it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def split_command(line: bytes) -> tuple[Verb, bytes]:
    """What a line (without its CRLF) asks for, whatever may be wrong with the rest of it, and that rest."""
    word, _, argument = line.partition(b" ")
    return _VERBS.get(word.upper(), Verb.UNKNOWN), argument


def parse_command(verb: Verb, argument: bytes) -> Command:
    """Read the argument of a verb that is known. Raises CommandError."""
    text = argument.decode("latin-1")
    # RFC 5321 §2.4: commands are ASCII, and no argument has a control character in it.
    if not (text.isascii() and text.isprintable()):
        raise CommandError(answers.NOT_ASCII)
    # RFC 5321 §4.1.1: servers "SHOULD tolerate trailing white space before the terminating <CRLF>".
    return _PARSERS[verb](text.strip(" "))


def _hello(verb: Verb) -> Callable[[str], Command]:
    def parse(argument: str) -> Command:
        if not _HELLO_NAME_RE.fullmatch(argument):
            raise CommandError(answers.HELLO_NEEDS_NAME)
        return Command(verb, argument)

    return parse


def _mail(argument: str) -> Command:
    # RFC 5321 §4.1.1.2: mail = "MAIL FROM:" Reverse-path [SP Mail-parameters] CRLF
    if argument[:5].upper() != "FROM:":
        raise CommandError(answers.MAIL_SYNTAX)
    try:
        sender, rest = parse_reverse_path(argument[5:])
    except AddressError as error:
        # RFC 3463 §3.2: X.1.7 bad sender's mailbox address syntax
        raise CommandError(Reply(501, f"Sender: {error}", "5.1.7")) from None
    return Command(Verb.MAIL, address=sender, mail=_mail_parameters(rest) if rest else NO_MAIL_PARAMETERS)


def _mail_parameters(text: str) -> MailParameters:
    size: int | None = None
    body: Literal["7BIT", "8BITMIME"] = "7BIT"
    seen = set()
    for word in text.split():
        match = _PARAMETER_RE.fullmatch(word)
        if not match:
            raise CommandError(answers.PARAMETER_SYNTAX)
        keyword, value = match.group(1).upper(), match.group(2) or ""
        # RFC 5321 §4.1.1.11 has no rule for a parameter given twice. Whoever gives one means neither or cheats.
        if keyword in seen:
            raise CommandError(answers.PARAMETER_TWICE)
        seen.add(keyword)
        if keyword == "SIZE":
            # int() also reads `1_0` and digits of other scripts.
            if not _SIZE_RE.fullmatch(value):
                raise CommandError(answers.PARAMETER_SYNTAX)
            size = int(value)
        elif keyword == "BODY":
            # RFC 6152 §2: body-value ::= "7BIT" / "8BITMIME"; BINARYMIME (RFC 3030) is not offered.
            match value.upper():
                case "7BIT":
                    body = "7BIT"
                case "8BITMIME":
                    body = "8BITMIME"
                case _:
                    raise CommandError(answers.PARAMETER_SYNTAX)
        else:
            raise CommandError(answers.PARAMETER_UNKNOWN)
    return MailParameters(size, body)


def _rcpt(argument: str) -> Command:
    # RFC 5321 §4.1.1.3: rcpt = "RCPT TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path ) [SP
    #                    Rcpt-parameters] CRLF
    if argument[:3].upper() != "TO:":
        raise CommandError(answers.RCPT_SYNTAX)
    try:
        recipient, rest = parse_forward_path(argument[3:])
    except AddressError as error:
        # RFC 3463 §3.2: X.1.3 bad destination mailbox address syntax
        raise CommandError(Reply(501, f"Recipient: {error}", "5.1.3")) from None
    if rest:
        # No extension that is offered has a parameter for RCPT.
        raise CommandError(answers.PARAMETER_UNKNOWN)
    return Command(Verb.RCPT, address=recipient)


def _bare(verb: Verb) -> Callable[[str], Command]:
    # RFC 5321 §4.1.1: DATA, RSET and QUIT take no argument.
    command = Command(verb)

    def parse(argument: str) -> Command:
        if argument:
            raise CommandError(answers.NO_ARGUMENT)
        return command

    return parse


def _any(verb: Verb) -> Callable[[str], Command]:
    # RFC 5321 §4.1.1.9: the argument of NOOP is ignored. HELP gets the same answer whatever it names.
    command = Command(verb)
    return lambda argument: command


def _vrfy(argument: str) -> Command:
    # RFC 5321 §4.1.1.6: vrfy = "VRFY" SP String CRLF
    if not argument:
        raise CommandError(answers.VRFY_NEEDS_NAME)
    return Command(Verb.VRFY)


_PARSERS: dict[Verb, Callable[[str], Command]] = {
    Verb.EHLO: _hello(Verb.EHLO),
    Verb.HELO: _hello(Verb.HELO),
    Verb.MAIL: _mail,
    Verb.RCPT: _rcpt,
    Verb.DATA: _bare(Verb.DATA),
    Verb.RSET: _bare(Verb.RSET),
    Verb.NOOP: _any(Verb.NOOP),
    Verb.VRFY: _vrfy,
    Verb.HELP: _any(Verb.HELP),
    Verb.QUIT: _bare(Verb.QUIT),
}

# A page can make a browser send a form to this port. The first line gives it away, before a body that looks like mail.
_FOREIGN_WORDS = (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT")

# What other servers do, and RFC 5321 itself lets be left out (EXPN) or has given up (TURN and those after it).
_WORDS_NOT_OFFERED = (
    *(b"STARTTLS", b"AUTH", b"BDAT", b"BURL", b"ETRN", b"ATRN", b"EXPN"),
    *(b"TURN", b"SEND", b"SOML", b"SAML"),
)

_VERBS: dict[bytes, Verb] = {
    **{verb.value.encode("ascii"): verb for verb in _PARSERS},
    **dict.fromkeys(_FOREIGN_WORDS, Verb.FOREIGN),
    **dict.fromkeys(_WORDS_NOT_OFFERED, Verb.NOT_OFFERED),
}
