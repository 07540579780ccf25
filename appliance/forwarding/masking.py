"""Keeping the hidden destination out of what people read.

Two readers, two rules. The owner of an alias knows where it leads, but a log should not hold that mailbox a second
time: `mask` puts the alias in its place. A sender must never learn it: `fit_for_strangers` lets a server's words
through only where they surely say nothing about the mailbox, its domain or its server, and says None otherwise. What is
lost with a None is little, for the reply code and our own words go out all the same; what would be lost with a wrong
guess is the one secret that an alias has.
"""

import re
import unicodedata
from collections.abc import Callable

from appliance.forwarding.trace import printable
from smtp.address import Address, ascii_domain, unicode_domain

LOGGED_CHARACTERS = 1000
"""How much of a server's text the log keeps: twice the longest reply line (RFC 5321 §4.5.3.1.5)."""

SHOWN_CHARACTERS = 300
"""How long a text may be that strangers get to see. Longer ones are explanations, and those name names."""

_EXAMINED_CHARACTERS = 8000
"""How much of a text is looked at before it is masked: more than any client takes of a reply."""

# ------------------------------------------------------------------ for the alias's owner


def mask(text: str, target: Address, recipient: str, server_name: str | None) -> str:
    """A server's words for the log: on one line, with the alias where the destination's address stood.

    The local part is replaced wherever it stands as a word of its own, with any domain behind it; the domain and the
    server's name, which the log has as a data point of its own, become words in brackets. All of them in every case and
    spelling: composed or not, in A-labels or U-labels, and as people write UTF-8 where only ASCII goes.
    """
    text = printable(" ".join(text.split())[:_EXAMINED_CHARACTERS])
    # Decomposed, so that one pattern finds a name however it was composed.
    decomposed = unicodedata.normalize("NFD", text)
    if not _names_any(decomposed, target, server_name or ""):
        return text[:LOGGED_CHARACTERS]
    patterns = [rf"(?P<mailbox>{_mailbox_pattern(target, _ALNUM if text.isascii() else _LETTER)})"]
    if server_name:
        patterns.append(rf"(?P<server>{_word(_domain_pattern(server_name))})")
    if target.domain:
        patterns.append(rf"(?P<domain>{_word(_domain_pattern(target.domain))})")

    def replacement(found: re.Match[str]) -> str:
        if found.lastgroup == "mailbox":
            return recipient
        return "[server]" if found.lastgroup == "server" else "[destination]"

    # One pass: what has been put in is not looked at again, though the alias may share a name with the mailbox.
    masked = re.sub("|".join(patterns), replacement, decomposed, flags=_flags(text))
    return unicodedata.normalize("NFC", masked)[:LOGGED_CHARACTERS]


def _names_any(decomposed: str, target: Address, server_name: str) -> bool:
    """Whether any of the names is in the text. Nearly always none is: most servers only say that all is well."""
    names = (target.local_part, _in_quotes(target.local_part), target.domain, server_name)
    lowered = decomposed.lower()
    for name in names:
        folded = name.lower()
        if folded and folded in lowered:
            return True
        if not name.isascii() or "xn--" in folded:
            # It has more than one spelling.
            break
    else:
        return False
    # Patterns are dear to make.
    patterns = [*map(_pattern, names[:2]), *map(_domain_pattern, names[2:])]
    wanted = "|".join(pattern for name, pattern in zip(names, patterns, strict=True) if name)
    return re.search(wanted, decomposed, _flags(decomposed)) is not None


def _flags(text: str) -> re.RegexFlag:
    # Patterns that look at ASCII alone are made in a tenth of the time.
    return re.IGNORECASE | re.ASCII if text.isascii() else re.IGNORECASE


# Letters beyond ASCII end a word, decomposed ones too: rather one word too many is masked than one too few.
_ALNUM = "(?-i:[A-Za-z0-9])"
_IN_WORDS = rf"{_ALNUM}(?![\u0300-\u036f])"
# What a domain is made of, in either of its forms: no punctuation, no symbols, and not our own sign for what was lost.
# (Where case is ignored, every letter of these ranges would be looked at when the pattern is made.)
_LETTER = r"(?-i:[A-Za-z0-9\u00c0-\u1fff\u3005-\u3007\u3041-\ud7ff\uf900-\ufdcf\U00010000-\U0003ffff])"


def _mailbox_pattern(target: Address, letter: str) -> str:
    # The @ as it is, percent-encoded, as in VERP and as in xtext (RFC 3461 §4).
    at = rf"(?:@|%40|=40|\+40|=(?=(?:{letter}|-)+\.))"
    domain = rf"(?:\[[^\]\s]{{1,60}}\]|{letter}(?:(?:{letter}|[.-]){{0,253}}{letter})?)"
    quoted, plain = _pattern(_in_quotes(target.local_part)), _pattern(target.local_part)
    local_part = rf'(?:"{quoted}"|{plain})'
    # The local part with any domain or alone, as a word; and the very address even at the end of one.
    as_a_word = rf"(?<!{_ALNUM}){local_part}(?:{at}{domain}|(?!{_IN_WORDS}))"
    if not target.domain:
        return as_a_word
    return rf"{_ALNUM}{{0,64}}?{local_part}{at}{_domain_pattern(target.domain)}[a-z0-9.-]*|{as_a_word}"


def _in_quotes(local_part: str) -> str:
    """What stands between the quotes of RFC 5321 §4.1.2's Quoted-string."""
    return local_part.replace("\\", "\\\\").replace('"', '\\"')


def _word(pattern: str) -> str:
    return rf"(?<!{_ALNUM}){pattern}(?!{_IN_WORDS})"


def _domain_pattern(domain: str) -> str:
    forms = dict.fromkeys((ascii_domain(domain), unicode_domain(domain)))
    return f"(?:{'|'.join(map(_pattern, forms))})"


def _pattern(name: str) -> str:
    """Finds a name, in a decomposed text, in all its spellings but those of case."""
    if name.isascii():
        return re.escape(name)
    found: dict[str, None] = {}
    for folded in (name, name.lower(), name.upper()):
        found[re.escape(unicodedata.normalize("NFD", folded))] = None
        # How something was composed and in which case can no longer be seen once it is encoded.
        for form in ("NFC", "NFD"):
            shape = unicodedata.normalize(form, folded)
            for encoded in _ENCODINGS:
                found["".join(re.escape(each) if each.isascii() else encoded(each) for each in shape)] = None
    return f"(?:{'|'.join(found)})"


def _as_octets(letter: str) -> str:
    # Octet by octet: in a URL, as quoted-printable (RFC 2045 §6.7), or as xtext (RFC 3461 §4).
    return "".join(rf"[%=+]{octet:02X}" for octet in letter.encode())


def _as_number(letter: str) -> str:
    # RFC 6533 §3: EmbeddedUnicodeChar = %x5C.78 "{" HEXPOINT "}"
    return rf"\\x\{{0*{ord(letter):X}\}}"


def _as_lost(letter: str) -> str:
    # Octets that whoever read them took for no letters.
    return rf"[?\ufffd]{{{len(letter.encode())}}}"


_ENCODINGS: tuple[Callable[[str], str], ...] = (_as_octets, _as_number, _as_lost)


# ------------------------------------------------------------------ for strangers

# What servers say about messages, mailboxes and themselves. A text that strangers may see consists of these words, of
# numbers of at most three digits, and of enhanced codes. That leaves no room for an address, a host or provider, a
# person's name, a URL, an IP address, a queue id, or anything encoded: a list of what is harmless has an end, a list of
# what gives a mailbox away has none.
_WORDS = """
    a about accept accepted accepting access account action active actively address administrative again aliases all
    allowed already an and any are as at attachment attachments attempt attempted attempts authentication authorized
    bad be because been before being believed blocked body bounce bounced busy but by bytes can cannot capacity
    closed closing code command complete completed concurrent condition configuration configured connect connection
    connections contact contain contains content could currently daily data database deactivated deferred delay
    delayed delete deleted delivered delivery denied destination detected did directory disabled discarded disk does
    domain due duplicate email emails encountered encryption ended error errors exceed exceeded exceeding exceeds
    excessive exhausted exist expired fail failed failing fails failure false few filter filtered find fixed for
    forbidden format found from full greylisted greylisting had handle has have header headers host hour hours if
    illegal improper in inactive incoming incorrect insufficient internal invalid is issue it kilobytes large later
    less likely limit limited limits line lines list listed loaded local locked looks lookup loop mail mailbox
    mailboxes malformed many maximum may megabytes memory message messages minute minutes missing more moved
    multiple must name need needs negative no non nonexistent not now number occurred of on one or our out outgoing
    over overloaded parse part parts pass passed per perform permanent permanently permission permitted please
    policy possible postmaster prior problem problems process processing prohibited protocol quota quotas rate reach
    reached reading reason reasons received receiving recipient recipients refused reject rejected rejection relay
    relaying reputation request requested required requires resolve resources resubmit retry return route routing
    rule rules score seconds security seems send sender senders sending sent server service session short should
    similar site size smaller soon source space spam storage such suspected suspended syntax system table taken
    temporarily temporary terminated than that the their there this time timed timeout to too transaction transfer
    transport tried try trying unable unacceptable unauthenticated unauthorized unavailable undeliverable unexpected
    unknown unrecognized unrouteable unsolicited unsupported until us use used user users valid verification
    verified verify virtual virus volume wait was we when which while will with without writing wrong you your
"""
_VOCABULARY = frozenset(_WORDS.split())
_WORD = re.compile(
    r"[(\"']?(?:(?P<word>[A-Za-z]+(?:-[A-Za-z]+)*)|[0-9]{1,3}|[245]\.[0-9]\.[0-9]{1,2})[)\"']?[.,:;!?]?|-", re.ASCII
)
_SQUEEZED_OUT = re.compile(r"[^a-z0-9]", re.ASCII)

# Labels under which many organisations stand; which one it is, the label before them says.
_SHARED_LABELS = frozenset(
    {"ac", "co", "com", "edu", "go", "gov", "gr", "ltd", "me", "mil", "ne", "net", "nhs", "or", "org", "plc"}
)
# What servers are called everywhere: "mail" in a text is no hint, unless the organisation is called so.
_SERVER_LABELS = frozenset(
    {"filter", "gateway", "in", "inbound", "mail", "mailbox", "mta", "mx", "relay", "server", "smtp"}
)
_PIECE_CHARACTERS = 3
"""From this length on, a piece of a name (`doe` of `john.doe`) counts as the name."""


def fit_for_strangers(text: str, target: Address, server_name: str | None) -> str | None:
    """A server's words if they surely do not give the destination away, else None."""
    shown = " ".join(text[: SHOWN_CHARACTERS + 1].split())
    if not shown or len(text) > SHOWN_CHARACTERS or not _says_nothing_new(shown):
        return None
    # Even a known word is too much where it is a name.
    lowered = shown.lower()
    if any(name.lower() in lowered for name in (target.local_part, target.domain, server_name) if name):
        return None
    squeezed = _SQUEEZED_OUT.sub("", lowered)
    words = set(_SQUEEZED_OUT.split(lowered)) - {""}
    domains = (target.domain, server_name or "")
    labels = [label for domain in domains for form in (ascii_domain, unicode_domain) for label in _labels(form(domain))]
    for name in map(_without_marks, (target.local_part.lower(), *labels)):
        joined = _SQUEEZED_OUT.sub("", name)
        if (len(joined) >= _PIECE_CHARACTERS and joined in squeezed) or not words.isdisjoint((joined, *_pieces(name))):
            return None
    return shown


def _says_nothing_new(shown: str) -> bool:
    for token in shown.split(" "):
        found = _WORD.fullmatch(token)
        if not found or (found["word"] and not _VOCABULARY.issuperset(found["word"].lower().split("-"))):
            return False
    return True


def _without_marks(name: str) -> str:
    """A name as somebody writes it who has no key for its marks."""
    return unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")


def _labels(domain: str) -> list[str]:
    """The labels that say whose domain it is, or whose server."""
    labels = domain.lower().strip("[].").split(".")
    own = [label for label in labels[:-1] if label not in _SHARED_LABELS] or labels
    # The last of them is the organisation's, whatever it is called.
    return [label for label in own if label == own[-1] or label not in _SERVER_LABELS]


def _pieces(name: str) -> list[str]:
    """The longer parts of a name."""
    return [piece for piece in re.split(r"[^a-z]+", name) if len(piece) >= _PIECE_CHARACTERS]
