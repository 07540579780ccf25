"""The header line that we put in front of a message, and the few things we read from the lines that are there.

The forwarded octets are the ones that arrived with our line before them: nothing is parsed and written again, because
what is written again is rarely what was read. Reading is by range and by pattern, over at most as many octets as the
caller names, and no input makes it raise.
"""

import base64
import binascii
import re
from datetime import UTC, datetime
from functools import lru_cache

DOMAIN_OCTETS = 255
"""RFC 5321 §4.5.3.1.2. A HELO argument beyond it is cut, not believed."""

LINE_COLUMNS = 78
"""RFC 5322 §2.1.1: the length that lines should keep to. A single word beyond it stays whole."""

LINE_OCTETS = 998
"""RFC 5322 §2.1.1: no line is longer than this, without its CRLF."""

ENCODED_OCTETS = 2048
"""How much of a field with encoded-words is decoded: a subject of 300 characters in Base64 of UTF-8 fits. Decoders
without such a limit have spent seconds on one hostile field."""

ENCODED_WORDS = 64
"""How many encoded-words are decoded, within those octets."""

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# The name a client gives in HELO is a stranger's text: what may stand in a domain or an address literal does, and
# everything else (a parenthesis would open a comment, a semicolon begin the date) becomes a question mark.
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._:\[\]-]", re.ASCII)
# What can stand between angle brackets without changing how the rest of the line reads. ASCII only, also in a message
# that was sent with SMTPUTF8: a line of ours must not be what keeps it from a next hop that has no SMTPUTF8.
_PLAIN_PATH = re.compile(r"[!#-'*+\-./0-9=?@A-Z\[\]^_`a-z{|}~:]{1,254}", re.ASCII)

# The suites of TLS 1.2 that we negotiate, as OpenSSL calls them. Those of TLS 1.3 have one name everywhere.
_OPENSSL_SUITE = re.compile(
    r"(?P<exchange>(?:EC)?DHE-(?:RSA|ECDSA))-"
    r"(?:AES(?P<bits>128|256)-(?P<mode>GCM-)?(?P<hash>SHA256|SHA384)|CHACHA20-POLY1305)",
    re.ASCII,
)
_REGISTERED_SUITE = re.compile(r"TLS_[A-Z0-9_]{1,60}", re.ASCII)

_HEADER_END = re.compile(rb"(?:\A|\r?\n)\r?\n")
_RECEIVED = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)
_FOLD = re.compile(rb"\r?\n(?=[ \t])")

_ENCODED_WORD = re.compile(
    # RFC 2047 §2: "=?" charset "?" encoding "?" encoded-text "?=", the charset perhaps with RFC 2231's language. Spaces
    # inside the text are against the rules and common in Q.
    r"=\?(?P<charset>[A-Za-z0-9_-]{1,40})(?:\*[A-Za-z0-9-]{0,20})?"
    r"\?(?P<encoding>[BbQq])\?(?P<text>[ ->@-~]*)\?=",
    re.ASCII,
)
_Q_OCTET = re.compile(rb"=([0-9A-Fa-f]{2})")

# Python has codecs that are no charsets: idna and punycode take quadratic time, others run escapes or unzip. And it
# remembers every name that it did not find. So only these are asked for; they cover what mail is written in.
_CHARSETS = re.compile(
    r"utf-?8|(?:us-)?ascii|iso-?8859-(?:1[0-6]?|[2-9])|windows-(?:125[0-8]|874|31j)|cp(?:125[0-8]|437|85[0258]|866|93[26]|949)"
    r"|koi8-[rut]|gb(?:2312|k|18030)|big5(?:-hkscs)?|shift[_-]jis|iso-2022-(?:jp|kr)|euc-(?:jp|kr)|ks_c_5601-1987|tis-620",
    re.ASCII,
)

# Controls, line and paragraph separators, and the marks that turn the direction of the text around them: none of them
# belongs in a line of a log or of a terminal.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def received(
    *,
    helo: str,
    client_address: str,
    hostname: str,
    protocol: str,
    message_id: str,
    recipients: tuple[str, ...],
    at: int,
    cipher: str = "",
    mark: str = "",
) -> bytes:
    """The Received line of a message that we have taken (RFC 5321 §4.4), with its CRLF.

    `protocol` is one of RFC 3848's words. `recipients` are those of the transaction, as the sender wrote them: one is
    named, several are not, because each would see the others. The destination has no place here. `cipher` is the cipher
    suite of an encrypted connection, as OpenSSL names it. `mark` is what `OwnLines` knows the line by.
    """
    literal = f"IPv6:{client_address}" if ":" in client_address else client_address
    clauses = [
        f"Received: from {_name(helo)} ([{_name(literal)}])",
        f"by {_name(hostname)} with {_name(protocol)} id {_name(message_id)}",
    ]
    if mark:
        # RFC 5321 §4.4: a clause may begin with CFWS, so a comment may stand between two of them.
        clauses[1] += f" ({_name(mark)})"
    if len(recipients) == 1 and _PLAIN_PATH.fullmatch(recipients[0]):
        clauses.append(f"for <{recipients[0]}>")
    if cipher and (suite := registered_suite(cipher)):
        # RFC 8314 §4.3 and §7.4: Additional-Registered-Clauses stand behind all the others.
        clauses.append(f"tls {suite}")
    clauses[-1] += ";"
    clauses.append(format_date(at))
    return _folded(clauses)


def registered_suite(cipher: str) -> str:
    """The registered name of a cipher suite that OpenSSL names its own way; empty for one that is not known."""
    if _REGISTERED_SUITE.fullmatch(cipher):
        return cipher
    found = _OPENSSL_SUITE.fullmatch(cipher)
    if not found:
        return ""
    exchange = found["exchange"].replace("-", "_")
    if not found["bits"]:
        return f"TLS_{exchange}_WITH_CHACHA20_POLY1305_SHA256"
    return f"TLS_{exchange}_WITH_AES_{found['bits']}_{'GCM' if found['mode'] else 'CBC'}_{found['hash']}"


def format_date(at: int) -> str:
    """An instant as RFC 5322 §3.3 writes it, in UTC: `Fri, 20 Nov 2026 10:00:00 +0000`."""
    return _date_of_second(at // 1000)


@lru_cache(maxsize=16)
def _date_of_second(second: int) -> str:
    moment = datetime.fromtimestamp(second, UTC)
    return f"{_DAYS[moment.weekday()]}, {moment.day} {_MONTHS[moment.month - 1]} {moment:%Y %H:%M:%S} +0000"


def header_section(content: bytes, limit: int) -> bytes:
    """The header section with the blank line that ends it.

    Where no blank line comes within `limit` octets, the whole lines that lie within it.
    """
    head = content[:limit]
    plain_end = head.find(b"\r\n\r\n")
    # What came over SMTP has CRLF only, so this is the end of nearly every one: a search costs fifty times as much.
    if plain_end >= 0 and head.find(b"\n\n", 0, plain_end) < 0 and not head.startswith((b"\r\n", b"\n")):
        return head[: plain_end + 4]
    if end := _HEADER_END.search(head):
        return head[: end.end()]
    return head if len(content) <= limit else head[: head.rfind(b"\n") + 1]


def count_received(section: bytes) -> int:
    """How many servers say that they have taken the message: a hundred of them are a loop (RFC 5321 §6.3)."""
    return len(_RECEIVED.findall(section))


def field(section: bytes, name: str) -> bytes | None:
    """The value of the first field of this name, unfolded and without the white space around it; None for none."""
    found = _field_pattern(name.lower()).search(section)
    return _FOLD.sub(b"", found[1]).strip() if found else None


def decoded_text(value: bytes, limit: int) -> str:
    """A field's value as people read it, at most `limit` characters, fit to stand in a line of a log.

    Encoded-words (RFC 2047) are decoded as far as ENCODED_OCTETS and ENCODED_WORDS reach; octets beyond ASCII are taken
    as UTF-8. What can't be decoded or printed becomes U+FFFD. Never raises.
    """
    # Nobody's subject needs more octets than these; a header line of ten megabytes is not even searched.
    value = value[: max(4 * limit, ENCODED_OCTETS)]
    text = value.decode("utf-8", "replace") if b"=?" not in value else _decode_words(value[:ENCODED_OCTETS])
    return printable(text)[:limit]


def printable(text: str) -> str:
    """The same text on one line, with U+FFFD for what would steer a terminal or hide in a log."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\t", " "))


def _name(text: str) -> str:
    return _NOT_IN_NAMES.sub("?", text[:DOMAIN_OCTETS]) or "?"


def _folded(clauses: list[str]) -> bytes:
    """One line for each clause, or more where it is long."""
    # The tab is counted as one column: RFC 5322 counts characters.
    if max(map(len, clauses)) + len("\t") <= LINE_COLUMNS:
        return ("\r\n\t".join(clauses) + "\r\n").encode("ascii")
    lines: list[str] = []
    for clause in clauses:
        first, *words = clause.split(" ")
        line = first if not lines else f"\t{first}"
        for word in words:
            if len(line) + 1 + len(word) > LINE_COLUMNS:
                lines.append(line)
                line = f"\t{word}"
            else:
                line += f" {word}"
        lines.append(line)
    return "\r\n".join([*lines, ""]).encode("ascii")


@lru_cache(maxsize=32)
def _field_pattern(name: str) -> re.Pattern[bytes]:
    # The value goes on over every line that begins with white space (RFC 5322 §2.2.3).
    return re.compile(
        rb"^" + re.escape(name.encode("ascii")) + rb"[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE | re.MULTILINE
    )


def _decode_words(value: bytes) -> str:
    text = value.decode("utf-8", "replace")
    pieces: list[str] = []
    pending = b""
    charset = ""
    position = 0
    for count, word in enumerate(_ENCODED_WORD.finditer(text)):
        if count == ENCODED_WORDS:
            break
        between = text[position : word.start()]
        # RFC 2047 §6.2: white space between two encoded-words is not part of the text. And though each must decode
        # alone, many senders cut in the middle of a character: octets of one charset are joined first.
        adjacent = position > 0 and not between.strip(" \t")
        if not adjacent or word["charset"].lower() != charset:
            pieces.append(_decode_octets(pending, charset))
            pending = b""
        if not adjacent:
            pieces.append(between)
        charset = word["charset"].lower()
        pending += _octets_of(word["encoding"], word["text"])
        position = word.end()
    return "".join([*pieces, _decode_octets(pending, charset), text[position:]])


def _octets_of(encoding: str, text: str) -> bytes:
    octets = text.encode("ascii")
    if encoding in "Qq":
        return _Q_OCTET.sub(lambda found: bytes.fromhex(found[1].decode("ascii")), octets.replace(b"_", b" "))
    try:
        return base64.b64decode(octets.rstrip(b"= ") + b"===")
    except binascii.Error:
        return b"\xff"


def _decode_octets(octets: bytes, charset: str) -> str:
    if not octets:
        return ""
    try:
        return octets.decode(charset if _CHARSETS.fullmatch(charset) else "utf-8", "replace")
    except (LookupError, ValueError):
        return octets.decode("ascii", "replace")
