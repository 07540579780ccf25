"""Labels of international domain names, after IDNA2008 (RFC 5890 to 5893), with the standard library's tables alone.

A domain can be written with U-labels (`bücher`) or with A-labels (`xn--bcher-kva`), and means the same. A label in
Unicode is read as people type it, in any case and composed or not; its U-label is the lower-case form of it in NFC, and
has to be one that RFC 5892 allows. A label that is in ASCII already stays so. What letters there are is the
interpreter's knowledge (`unicodedata.unidata_version`): one that is too new for it is refused as U-label, and taken as
A-label.
"""

import unicodedata

# RFC 1035 §2.3.4, and RFC 5890 §2.3.2.1: it is the A-label that must keep to this.
MAX_LABEL_OCTETS = 63

_ACE_PREFIX = "xn--"
_ZERO_WIDTH_NON_JOINER = "\u200c"
_ZERO_WIDTH_JOINER = "\u200d"
JOINERS = _ZERO_WIDTH_NON_JOINER + _ZERO_WIDTH_JOINER
"""The two invisible characters that a word may need: RFC 5892's CONTEXTJ."""

# RFC 5892 §2.1
_LETTERS_AND_DIGITS = frozenset({"Ll", "Lu", "Lo", "Nd", "Lm", "Mn", "Mc"})
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp"})
_MARKS = frozenset({"Mn", "Mc", "Me"})
# RFC 5892 §2.6: exceptions that are allowed though their categories or their foldings would rule them out. Those with a
# rule of their own (CONTEXTO) are in `_stands_right`.
_ALLOWED = frozenset("\u00df\u03c2\u06fd\u06fe\u0f0b\u3007-")
# RFC 5892 §2.6 again, and §2.5, §2.7 and §2.9: letters and marks by category, and yet no part of words. What is ignored
# on display (Default_Ignorable_Code_Point), blocks of notation, and letters of old Hangul.
_NOT_ALLOWED = frozenset(
    "\u0640\u07fa\u302e\u302f\u3031\u3032\u3033\u3034\u3035\u303b\u034f\u17b4\u17b5\u180b\u180c\u180d\u180f"
)
_BLOCKS_NOT_ALLOWED = (
    range(0x1100, 0x1200),
    range(0x20D0, 0x2100),
    range(0xA960, 0xA980),
    range(0xD7B0, 0xD800),
    range(0xFE00, 0xFE10),
    range(0x1D100, 0x1D250),
    range(0xE0100, 0xE01F0),
)
_ARABIC_INDIC_DIGITS = frozenset(map(chr, range(0x660, 0x66A)))
_EXTENDED_ARABIC_INDIC_DIGITS = frozenset(map(chr, range(0x6F0, 0x6FA)))

# Unicode's Joining_Type, which Python does not know, for the allowed letters of the Basic Multilingual Plane (Arabic,
# Syriac, N'Ko, Mandaic, Mongolian, Phags-pa): those that join what follows (L, D), and what precedes them (R, D).
_JOINS_NEXT = (
    "0620 0626 0628 062A-062E 0633-063F 0641-0647 0649-064A 066E-066F 0679-0687 069A-06BF 06C1-06C2 06CC 06CE "
    "06D0-06D1 06FA-06FC 06FF 0712-0714 071A-071D 071F-0727 0729 072B 072D-072E 074E-0758 075C-076A 076D-0770 "
    "0772 0775-0777 077A-077F 07CA-07EA 0841-0845 0848 084A-0853 0855 0860 0862-0865 0868 0886 0889-088D "
    "08A0-08A9 08AF-08B0 08B3-08B8 08BA-08C8 1820-1878 1887-18A8 18AA A840-A872"
)
_JOINS_PREVIOUS = (
    "0620 0622-063F 0641-064A 066E-066F 0671-0673 0679-06D3 06D5 06EE-06EF 06FA-06FC 06FF 0710 0712-072F "
    "074D-077F 07CA-07EA 0840-0858 0860 0862-0865 0867-086A 0870-0882 0886 0889-088E 08A0-08AC 08AE-08C8 "
    "1820-1878 1887-18A8 18AA A840-A871"
)


def _letters(ranges: str) -> frozenset[str]:
    found: set[str] = set()
    for each in ranges.split():
        first, _, last = each.partition("-")
        found.update(map(chr, range(int(first, 16), int(last or first, 16) + 1)))
    return frozenset(found)


_JOINING_NEXT = _letters(_JOINS_NEXT)
_JOINING_PREVIOUS = _letters(_JOINS_PREVIOUS)


def a_label(label: str) -> str:
    """The A-label of a label in Unicode, and an ASCII label in lower case. Checks nothing, and raises nothing."""
    label = _folded(label)
    return label if label.isascii() else _ACE_PREFIX + label.encode("punycode").decode("ascii")


def is_a_label(label: str) -> bool:
    """Whether an ASCII label that begins with `xn--` (in any case) is the A-label of anything.

    RFC 5890 §2.3.2.1 wants it to stand for a valid U-label. Here it has to stand for a label in Unicode that leads back
    to it and that can be seen, so that no two are one and none is a name in ASCII in disguise. More is not asked: names
    of emoji exist, and so will letters that are newer than we are, and in ASCII they do no harm.
    """
    label = label.lower()
    try:
        decoded = label.removeprefix(_ACE_PREFIX).encode("ascii").decode("punycode")
    except UnicodeError:
        return False
    if any(letter not in JOINERS and unicodedata.category(letter) in _INVISIBLE for letter in decoded):
        return False
    return not decoded.isascii() and a_label(decoded) == label


def u_label(label: str) -> str:
    """What an A-label stands for; any other label in lower case and NFC. Checks nothing, and raises nothing."""
    label = _folded(label)
    if label.startswith(_ACE_PREFIX) and is_a_label(label):
        return label.removeprefix(_ACE_PREFIX).encode("ascii").decode("punycode")
    return label


def why_no_u_label(label: str) -> str | None:
    """Why a label with characters beyond ASCII is no U-label once it is in lower case and NFC; None where it is one."""
    # No longer than this, before anything that takes time: an A-label is never shorter than what it stands for.
    if len(label) > MAX_LABEL_OCTETS or len(a_label(label)) > MAX_LABEL_OCTETS:
        return f"a part of the domain is longer than {MAX_LABEL_OCTETS} characters in its xn-- form"
    label = _folded(label)
    # RFC 5891 §4.2.3.1: hyphens. The third and fourth place are where the prefix of an A-label would stand.
    if label.startswith("-") or label.endswith("-") or label[2:4] == "--":
        return "a part of the domain has a hyphen where none can stand"
    # RFC 5891 §4.2.3.2
    if unicodedata.category(label[0]) in _MARKS:
        return "a part of the domain begins with a combining mark"
    # A KELVIN SIGN is the letter k in NFC: what looks international and is not, is nobody's way to write a name.
    if label.isascii() or not all(_is_allowed(letter) or _stands_right(label, at) for at, letter in enumerate(label)):
        return "the domain has a character that no domain name can have"
    if not _keeps_direction(label):
        return "a part of the domain mixes directions of writing"
    return None


def joiner_stands_right(text: str, at: int) -> bool:
    """Whether the joiner at this place is one that the script needs (RFC 5892, appendix A.1 and A.2)."""
    # The Canonical_Combining_Class of viramas is 9.
    if at > 0 and unicodedata.combining(text[at - 1]) == 9:
        return True
    if text[at] != _ZERO_WIDTH_NON_JOINER:
        return False
    # (Joining_Type:{L,D})(Joining_Type:T)*\u200C(Joining_Type:T)*(Joining_Type:{R,D})
    before = next((letter for letter in reversed(text[:at]) if not _is_transparent(letter)), "")
    after = next((letter for letter in text[at + 1 :] if not _is_transparent(letter)), "")
    return before in _JOINING_NEXT and after in _JOINING_PREVIOUS


def _folded(label: str) -> str:
    # Letter by letter: Python's `lower` of a whole word makes the last Σ an ς, which IDNA tells apart from σ.
    return label.lower() if label.isascii() else unicodedata.normalize("NFC", "".join(map(str.lower, label)))


def _is_allowed(letter: str) -> bool:
    """RFC 5892 §3: whether the derived property value is PVALID."""
    if letter in _ALLOWED:
        return True
    if letter.isascii():
        return letter.isalnum()
    if unicodedata.category(letter) not in _LETTERS_AND_DIGITS or letter in _NOT_ALLOWED:
        return False
    if letter in _ARABIC_INDIC_DIGITS or letter in _EXTENDED_ARABIC_INDIC_DIGITS:
        return False
    if any(ord(letter) in block for block in _BLOCKS_NOT_ALLOWED):
        return False
    # RFC 5892 §2.2: cp .ne. NFKC(casefold(NFKC(cp)))
    return letter == unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", letter).casefold())


def _stands_right(label: str, at: int) -> bool:
    """RFC 5892, appendix A: whether the rule for a character that needs one is met."""
    letter, before, after = label[at], label[max(at - 1, 0) : at], label[at + 1 : at + 2]
    match letter:
        case "\u200c" | "\u200d":
            return joiner_stands_right(label, at)
        case "\u00b7":
            return before == after == "l"
        case "\u0375":
            return _is_named(after, "GREEK ")
        case "\u05f3" | "\u05f4":
            return _is_named(before, "HEBREW ")
        case "\u30fb":
            return any(
                _is_named(each, "HIRAGANA ", "KATAKANA LETTER ", "CJK UNIFIED ", "CJK COMPATIBILITY IDEOGRAPH")
                or each in "\u3005\u3007"
                for each in label
            )
    if letter in _ARABIC_INDIC_DIGITS:
        return _EXTENDED_ARABIC_INDIC_DIGITS.isdisjoint(label)
    return letter in _EXTENDED_ARABIC_INDIC_DIGITS and _ARABIC_INDIC_DIGITS.isdisjoint(label)


def _is_named(letter: str, *beginnings: str) -> bool:
    # Python does not know the scripts of letters; their names begin with them.
    return letter != "" and unicodedata.name(letter, "").startswith(beginnings)


def _is_transparent(letter: str) -> bool:
    # Joining_Type T, among what a label can hold: a second joiner does not have it.
    return unicodedata.category(letter) in ("Mn", "Me")


def _keeps_direction(label: str) -> bool:
    """RFC 5893 §2, for a label with letters that are written from right to left; of others it asks nothing here."""
    directions = [unicodedata.bidirectional(letter) for letter in label]
    if not {"R", "AL", "AN"}.intersection(directions):
        return True
    if directions[0] not in ("R", "AL"):
        return False
    if not {"R", "AL", "AN", "EN", "ES", "CS", "ET", "ON", "BN", "NSM"}.issuperset(directions):
        return False
    last = next(direction for direction in reversed(directions) if direction != "NSM")
    return last in ("R", "AL", "EN", "AN") and not {"EN", "AN"}.issubset(directions)
