"""Commands: one line from a client, as a value, or the reply that it deserves.

A command that says something is the event that comes of it; one that is only a word is its Verb.

Only syntax is decided here. Whether a command may come now is the session's table; what becomes of it is the
receiver's.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from smtp.address import AddressError, parse_forward_path, parse_reverse_path
from smtp.parameters import (
    MAX_ENVID_OCTETS,
    NO_MAIL_PARAMETERS,
    NO_RECIPIENT_PARAMETERS,
    MailParameters,
    Notify,
    OriginalRecipient,
    RecipientParameters,
    from_xtext,
    parse_original_recipient,
)
from smtp.reply import Reply
from smtp.server import answers
from smtp.server.events import Hello, Mail, Recipient

# RFC 5321 §4.1.1.11: esmtp-param = esmtp-keyword ["=" esmtp-value] ; esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT /
#                     "-") ; esmtp-value = 1*(%d33-60 / %d62-126), and with RFC 6531 §3.3 also UTF8-non-ascii
_PARAMETER_RE = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\u00a0-\U0010ffff]+))?")
# RFC 1870 §3: size-value ::= 1*20DIGIT
_SIZE_RE = re.compile(r"[0-9]{1,20}")
_BODY_RE = re.compile(r"7BIT|8BITMIME")
# What most clients say with MAIL, in one go: read so it takes a fifth of the time.
_USUAL_MAIL_RE = re.compile(r"SIZE=([0-9]{1,20})(?: +BODY=(?:7BIT|(8BITMIME)))?", re.ASCII | re.IGNORECASE)
_RET_RE = re.compile(r"FULL|HDRS")
_WORDS_RE = re.compile(r"[A-Z]+(?:,[A-Z]+)*")
_NOTHING_RE = re.compile(r"")
# RFC 3030 §2: chunk-size ::= 1*DIGIT ; end-marker ::= "LAST". As many digits as SIZE may have.
_BDAT_RE = re.compile(r"([0-9]{1,20})(?: +([Ll][Aa][Ss][Tt]))?")
_CONTROL_RE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
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
    STARTTLS = "STARTTLS"
    """RFC 3207."""
    BDAT = "BDAT"
    """RFC 3030."""
    FOREIGN = "FOREIGN"
    """A word of another protocol: a web browser that was led here."""
    NOT_OFFERED = "NOT OFFERED"
    """A command of SMTP that this server does not have."""
    UNKNOWN = "UNKNOWN"

    # Members are single objects. Enum's own hash, written in Python, would cost more than the look-up it serves.
    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True)
class Chunk:
    """BDAT."""

    octets: int
    """How much content follows."""
    last: bool
    """Whether that is the last of the message."""


Command = Hello | Mail | Recipient | Chunk | Verb
"""One well-formed command."""


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
        text = _international(verb, argument)
    # RFC 5321 §4.1.1: servers "SHOULD tolerate trailing white space before the terminating <CRLF>".
    return _PARSERS[verb](text.strip(" "))


def _international(verb: Verb, argument: bytes) -> str:
    # RFC 6531 §3.1: addresses may be in UTF-8 in these commands. Whether they may be now is the session's to say.
    if verb not in (Verb.MAIL, Verb.RCPT, Verb.VRFY):
        raise CommandError(answers.NOT_PRINTABLE)
    try:
        # Strict: overlong forms and surrogates are no UTF-8 (RFC 3629 §3).
        text = argument.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError(answers.NOT_PRINTABLE) from None
    if _CONTROL_RE.search(text):
        raise CommandError(answers.NOT_PRINTABLE)
    return text


def _hello(verb: Verb) -> Callable[[str], Hello]:
    def parse(argument: str) -> Hello:
        if not _HELLO_NAME_RE.fullmatch(argument):
            raise CommandError(answers.HELLO_NEEDS_NAME)
        return Hello(argument, extended=verb is Verb.EHLO)

    return parse


def _mail(argument: str) -> Mail:
    # RFC 5321 §4.1.1.2: mail = "MAIL FROM:" Reverse-path [SP Mail-parameters] CRLF
    if argument[:5].upper() != "FROM:":
        raise CommandError(answers.MAIL_SYNTAX)
    try:
        sender, rest = parse_reverse_path(argument[5:])
    except AddressError as error:
        # RFC 3463 §3.2: X.1.7 bad sender's mailbox address syntax
        raise CommandError(Reply(501, f"Sender: {error}", "5.1.7")) from None
    parameters = _mail_parameters(rest) if rest else NO_MAIL_PARAMETERS
    if sender is not None and not parameters.smtputf8 and not sender.is_ascii:
        raise CommandError(answers.NEEDS_SMTPUTF8)
    return Mail(sender, parameters)


def _rcpt(argument: str) -> Recipient:
    # RFC 5321 §4.1.1.3: rcpt = "RCPT TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path ) [SP
    #                    Rcpt-parameters] CRLF
    if argument[:3].upper() != "TO:":
        raise CommandError(answers.RCPT_SYNTAX)
    try:
        recipient, rest = parse_forward_path(argument[3:])
    except AddressError as error:
        # RFC 3463 §3.2: X.1.3 bad destination mailbox address syntax
        raise CommandError(Reply(501, f"Recipient: {error}", "5.1.3")) from None
    parameters = _recipient_parameters(rest) if rest else NO_RECIPIENT_PARAMETERS
    return Recipient(recipient, parameters)


def _mail_parameters(text: str) -> MailParameters:
    usual = _USUAL_MAIL_RE.fullmatch(text)
    if usual:
        size, eight_bit = usual.groups()
        return MailParameters(int(size), "8BITMIME" if eight_bit else "7BIT")
    values: dict[str, Any] = {}
    for keyword, value in _parameters(text):
        match keyword:
            case "SIZE":
                # int() also reads `1_0` and digits of other scripts.
                values["size"] = int(_value(value, _SIZE_RE))
            case "BODY":
                # RFC 6152 §2: body-value ::= "7BIT" / "8BITMIME"; BINARYMIME (RFC 3030) is not offered.
                values["body"] = _word(value, _BODY_RE)
            case "SMTPUTF8":
                # RFC 6531 §3.4: no value, and so it is with REQUIRETLS (RFC 8689 §2).
                values["smtputf8"] = _value(value, _NOTHING_RE) == ""
            case "REQUIRETLS":
                values["require_tls"] = _value(value, _NOTHING_RE) == ""
            case "RET":
                # RFC 3461 §4.3: ret-value = "FULL" / "HDRS"
                values["ret"] = _word(value, _RET_RE)
            case "ENVID":
                values["envid"] = _envid(value)
            case _:
                raise CommandError(answers.PARAMETER_UNKNOWN)
    return MailParameters(**values)


def _recipient_parameters(text: str) -> RecipientParameters:
    notify: frozenset[Notify] | None = None
    orcpt: OriginalRecipient | None = None
    for keyword, value in _parameters(text):
        match keyword:
            case "NOTIFY":
                notify = _notify(value)
            case "ORCPT":
                try:
                    orcpt = parse_original_recipient(value)
                except ValueError:
                    raise CommandError(answers.PARAMETER_SYNTAX) from None
            case _:
                raise CommandError(answers.PARAMETER_UNKNOWN)
    return RecipientParameters(notify, orcpt)


def _parameters(text: str) -> Iterator[tuple[str, str]]:
    """Keywords in upper case with their values; a value that is not there is empty."""
    seen = set()
    # Not split() alone: it also takes the spaces of other scripts for spaces.
    for word in filter(None, text.split(" ")):
        match = _PARAMETER_RE.fullmatch(word)
        if not match:
            raise CommandError(answers.PARAMETER_SYNTAX)
        keyword, value = match.group(1).upper(), match.group(2) or ""
        # RFC 5321 §4.1.1.11 has no rule for a parameter given twice, RFC 3461 §4 forbids it. Whoever gives one twice
        # means neither or cheats.
        if keyword in seen:
            raise CommandError(answers.PARAMETER_TWICE)
        seen.add(keyword)
        yield keyword, value


def _value(value: str, pattern: re.Pattern[str]) -> str:
    if not pattern.fullmatch(value):
        raise CommandError(answers.PARAMETER_SYNTAX)
    return value


def _word(value: str, pattern: re.Pattern[str]) -> str:
    """A value whose case does not matter, in upper case."""
    # upper() makes ASCII of some letters that are not.
    return _value(value.upper() if value.isascii() else value, pattern)


def _envid(value: str) -> str:
    try:
        envid = from_xtext(value)
    except ValueError:
        raise CommandError(answers.PARAMETER_SYNTAX) from None
    if not envid or len(value) > MAX_ENVID_OCTETS:
        raise CommandError(answers.PARAMETER_SYNTAX)
    return envid


def _notify(value: str) -> frozenset[Notify]:
    # RFC 3461 §4.1: notify-esmtp-value = "NEVER" / 1#notify-list-element
    words = _word(value, _WORDS_RE).split(",")
    try:
        notify = frozenset(Notify(word) for word in words)
    except ValueError:
        raise CommandError(answers.PARAMETER_SYNTAX) from None
    if len(notify) != len(words) or (Notify.NEVER in notify and len(notify) > 1):
        raise CommandError(answers.PARAMETER_SYNTAX)
    return notify


def _bdat(argument: str) -> Chunk:
    # RFC 3030 §2: bdat-cmd ::= "BDAT" SP chunk-size [ SP end-marker ] CR LF
    match = _BDAT_RE.fullmatch(argument)
    if not match:
        raise CommandError(answers.BDAT_SYNTAX)
    return Chunk(int(match.group(1)), last=match.group(2) is not None)


def _bare(verb: Verb) -> Callable[[str], Verb]:
    # RFC 5321 §4.1.1: DATA, RSET and QUIT take no argument.
    def parse(argument: str) -> Verb:
        if argument:
            raise CommandError(answers.NO_ARGUMENT)
        return verb

    return parse


def _any(verb: Verb) -> Callable[[str], Verb]:
    # RFC 5321 §4.1.1.9: the argument of NOOP is ignored. HELP gets the same answer whatever it names.
    return lambda argument: verb


def _vrfy(argument: str) -> Verb:
    # RFC 5321 §4.1.1.6: vrfy = "VRFY" SP String CRLF
    if not argument:
        raise CommandError(answers.VRFY_NEEDS_NAME)
    return Verb.VRFY


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
    Verb.STARTTLS: _bare(Verb.STARTTLS),
    Verb.BDAT: _bdat,
}

# A page can make a browser send a form to this port. The first line gives it away, before a body that looks like mail.
_FOREIGN_WORDS = (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT")

# What other servers do, and RFC 5321 itself lets be left out (EXPN) or has given up (TURN and those after it).
_WORDS_NOT_OFFERED = (
    *(b"AUTH", b"BURL", b"ETRN", b"ATRN", b"EXPN"),
    *(b"TURN", b"SEND", b"SOML", b"SAML"),
)

_VERBS: dict[bytes, Verb] = {
    **{verb.value.encode("ascii"): verb for verb in _PARSERS},
    **dict.fromkeys(_FOREIGN_WORDS, Verb.FOREIGN),
    **dict.fromkeys(_WORDS_NOT_OFFERED, Verb.NOT_OFFERED),
}
