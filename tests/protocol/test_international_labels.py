"""Labels of international domain names: what IDNA2008 allows, with the `idna` package as the judge.

Its tables may be of a later Unicode than the interpreter's, so letters that are unassigned here are left out.
"""

import re
import unicodedata

import idna
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtp.labels import MAX_LABEL_OCTETS, a_label, is_a_label, joiner_stands_right, u_label, why_no_u_label

ARABIC = "ابتثجحدرزوهي\u064b\u200c٠١۰۱"
HEBREW = "אבגדה\u0591׳״"
INDIC = "कखगहिनदी\u094d\u200d\u200c"
EASTERN = "日本語ひらカタ・ー々〇한국"
EUROPEAN = "äöüßéñαβγσςабвгдl·l͵\u0301\u0308ÄÖÜΣİЖ"
PLAIN = "abcxyz019-"


# Where we are the stricter: a KELVIN SIGN, whose fold is ASCII, and the three dots that are not ".".
MORE_STRICT = ["U+212A", "U+3002", "U+FF0E", "U+FF61"]


def by_the_judge(label: str) -> str | None:
    """The A-label of a label in lower case and NFC, or None."""
    try:
        return idna.encode(label).decode("ascii")
    except idna.IDNAError:
        return None


def folded(label: str) -> str:
    return unicodedata.normalize("NFC", "".join(letter.lower() for letter in label))


@pytest.mark.parametrize(("before", "directions"), [("a", "to the right"), ("א", "to the left")])
def test_every_letter_is_allowed_where_the_judge_allows_it(before: str, directions: str) -> None:
    """RFC 5892 §3, over all of Unicode; behind a letter of either direction, so that marks do not stand first."""
    to_the_left = directions == "to the left"
    wrong = []
    for code in range(0x80, 0x110000):
        letter = chr(code)
        if unicodedata.category(letter) in ("Cn", "Co", "Cs"):
            continue
        if (unicodedata.bidirectional(letter) in ("R", "AL", "AN")) == to_the_left:
            label = before + letter
            if (why_no_u_label(label) is None) != (by_the_judge(folded(label)) is not None):
                wrong.append(f"U+{code:04X}")
    assert wrong == ([] if to_the_left else MORE_STRICT)


@st.composite
def labels(draw: st.DrawFn) -> str:
    """Labels of one or two scripts, most of them nearly right."""
    scripts = draw(st.lists(st.sampled_from([ARABIC, HEBREW, INDIC, EASTERN, EUROPEAN, PLAIN]), min_size=1, max_size=2))
    return draw(st.text(st.sampled_from("".join(scripts)), min_size=1, max_size=12))


@given(labels().filter(lambda label: not label.isascii()))
@example("نامه\u200cای")
@example("ه\u200c\u200cو")
@example("क्\u200dष")
@example("l·l")
@example("カ・カ")
@example("・")
@example("faß")
@example("-ü")
@example("üü--ü")
def test_a_label_is_taken_as_by_the_judge(label: str) -> None:
    expected = by_the_judge(folded(label))
    reason = why_no_u_label(label)
    assert (reason is None) == (expected is not None), reason
    if expected is not None:
        assert a_label(label) == a_label(unicodedata.normalize("NFD", label)) == expected
        assert is_a_label(expected)
        assert is_a_label(expected.upper())
        assert u_label(expected) == u_label(label) == folded(label)


@pytest.mark.parametrize(
    ("label", "why"),
    [
        ("a·b", "character"),
        ("\u212a", "character"),
        ("\ufb01sh", "character"),
        ("♥é", "character"),
        ("é_", "character"),
        ("é\u200db", "character"),
        ("é-", "hyphen"),
        ("xn--é", "hyphen"),
        ("\u0301a", "combining mark"),
        ("אa", "directions"),
        ("1א", "directions"),
        ("é" * 60, "longer than 63"),
        ("é" * 10_000, "longer than 63"),
    ],
)
def test_what_is_no_label_has_a_reason_in_plain_words(label: str, why: str) -> None:
    reason = why_no_u_label(label)
    assert reason is not None
    assert why in reason
    assert reason.isascii()


@pytest.mark.parametrize(
    "label",
    [
        "xn--bcher-kva",
        "XN--BCHER-KVA",
        "xn--p1ai",
        # A name of an emoji: no U-label, and in ASCII a name like any other.
        "xn--e28h",
    ],
)
def test_an_a_label_stands_for_something(label: str) -> None:
    assert is_a_label(label)


@pytest.mark.parametrize(
    "label",
    [
        "xn--",
        "xn--0",
        "xn--abc-",
        "xn--99999999999",
        # The spellings of letters that have other ones: Ü, u with a mark of its own, ü in full width.
        "xn--" + "bÜcher".encode("punycode").decode(),
        "xn--" + "bu\u0308cher".encode("punycode").decode(),
        # Invisible: a control character, a mark that turns the direction, half a character.
        "xn--a",
        "xn--" + "a\u202eb".encode("punycode").decode(),
        "xn--" + "a\ud800".encode("punycode").decode(),
    ],
)
def test_what_stands_for_nothing_is_no_a_label(label: str) -> None:
    assert not is_a_label(label)
    assert u_label(label) == label.lower()


@given(st.from_regex(re.compile(r"xn--[a-z0-9-]{0,59}"), fullmatch=True))
def test_any_label_with_the_prefix_leads_back_to_itself_or_is_none(label: str) -> None:
    assert len(label) <= MAX_LABEL_OCTETS
    if is_a_label(label):
        assert a_label(u_label(label)) == label
    else:
        assert u_label(label) == label


@pytest.mark.parametrize(
    ("text", "stands"),
    [
        ("نامه\u200cای", True),
        ("क्\u200cष", True),
        ("क्\u200dष", True),
        ("ب\u064b\u200c\u064bب", True),
        ("ا\u200cب", False),
        ("ب\u200dب", False),
        ("a\u200cb", False),
        ("\u200cب", False),
        ("ب\u200c", False),
    ],
)
def test_a_joiner_stands_where_the_script_needs_it(text: str, stands: bool) -> None:
    at = next(place for place, letter in enumerate(text) if letter in "\u200c\u200d")
    assert joiner_stands_right(text, at) is stands
