"""A rewritten sender leads back to its sender, and to nobody else."""

import re
from string import ascii_letters, digits

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from appliance.forwarding.srs import Expired, Forged, NotOurs, Opened, SenderRewriter
from appliance.model.time import DAY_MS
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import ReturnPath
from smtp.address import Address, AddressError

NOW = 1_790_000_000_000
REFERENCE = "q7x2ab"
REWRITER = SenderRewriter("srs.mx.example.org", [b"first key, 32 octets of secrecy."])

ATEXT = ascii_letters + digits + "!#$%&'*+-/=?^_`{|}~"
dot_strings = st.lists(st.text(ATEXT, min_size=1, max_size=30), min_size=1, max_size=3).map(".".join)
local_parts = st.one_of(
    dot_strings,
    st.text([chr(code) for code in range(32, 127)], max_size=30),
    st.text("aZ .ÄößΣ例o\u0308", max_size=30),
)
labels = st.from_regex(r"[A-Za-z]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?", fullmatch=True)
international_labels = st.text("aZäÖßσς例o\u0308-", min_size=1, max_size=10)
domains = st.one_of(
    st.lists(labels, min_size=1, max_size=5).map(".".join),
    st.lists(st.one_of(labels, international_labels), min_size=1, max_size=3).map(".".join),
    st.sampled_from(["[192.0.2.1]", "[IPv6:2001:db8::1]"]),
)


@st.composite
def senders(draw: st.DrawFn) -> Address:
    """Every sender that the session lets in."""
    written = str(Address(draw(local_parts), draw(domains)))
    try:
        return Address.parse(written)
    except AddressError:
        assume(False)
        raise


class Store:
    """Keeps what has to be stored, as the spool does."""

    def __init__(self) -> None:
        self.rows: dict[str, ReturnPath] = {}

    def rewrite(
        self, sender: str, reference: str = REFERENCE, now: int = NOW, by: SenderRewriter = REWRITER
    ) -> Address:
        """The rewritten sender, with what belongs to it stored."""
        rewritten = by.rewrite(sender, reference, now)
        if rewritten.stored is not None:
            self.rows[rewritten.stored.token] = rewritten.stored
        return Address.parse(rewritten.return_path)

    def open(self, address: Address, now: int = NOW, by: SenderRewriter = REWRITER) -> Opened:
        """What it stands for."""
        return by.open(address, now, self.rows.get)


@given(senders())
@example(Address("a=b", "example.com"))
@example(Address("SRS0=HHH=TT=example.net=joe", "forwarder.example"))
@example(Address("SRS1=HHH=forwarder.example==HHH=TT=example.net=joe", "other.example"))
@example(Address('a"b\\c @d', "example.com"))
@example(Address("", "example.com"))
@example(Address("joe", "[IPv6:2001:db8::1]"))
@example(Address("jörg", "bücher.example"))
@example(Address("Joe", "Bücher.example"))
@example(Address("Joe", "bu\u0308cher.example"))
def test_opening_gives_back_the_sender(sender: Address) -> None:
    """open(rewrite(s)) is s, and the form keeps to the limits of RFC 5321 §4.5.3.1, and to ASCII.

    Where the domain alone is international it comes back in its A-labels, which say the same.
    """
    store = Store()
    rewritten = store.rewrite(str(sender))
    back = sender if store.rows else sender.in_ascii
    assert back is not None
    assert back.key == sender.key
    assert store.open(rewritten) == Opened(back, REFERENCE, NOW // DAY_MS * DAY_MS)
    assert rewritten.is_ascii
    assert len(rewritten.local_part) <= 64
    assert len(str(rewritten)) <= 254
    assert not str(rewritten).startswith('"')


@given(dot_strings, labels)
def test_a_folded_local_part_still_opens(local_part: str, domain: str) -> None:
    """A server that folds the case of local parts costs the case of the sender's own, and nothing else."""
    assume(len(local_part) <= 64)
    store = Store()
    rewritten = store.rewrite(f"{local_part}@{domain}")
    for folded in (rewritten.local_part.lower(), rewritten.local_part.upper()):
        opened = store.open(Address(folded, rewritten.domain.upper()))
        assert opened.sender.key == Address(local_part, domain).key
        assert opened.reference == REFERENCE


@given(senders(), st.data())
def test_any_change_is_noticed(sender: Address, data: st.DataObject) -> None:
    """One character replaced, left out or put in, anywhere: it does not open."""
    store = Store()
    rewritten = store.rewrite(str(sender))
    text = rewritten.local_part
    at = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.sampled_from(ATEXT + ".@ \u212a\u00e4"))
    changed = data.draw(
        st.sampled_from(
            [text[:at] + letter + text[at + 1 :], text[:at] + text[at + 1 :], text[:at] + letter + text[at:]]
        )
    )
    assume(changed.lower() != text.lower() or not changed.isascii())
    expected = Forged if changed[:5].lower() == "srs0=" else NotOurs
    with pytest.raises(expected):
        store.open(Address(changed, rewritten.domain))


def test_the_two_forms() -> None:
    """A short sender is carried, a long one stored; the boundary is 64 octets."""
    carried = REWRITER.rewrite("joe@example.com", REFERENCE, NOW)
    assert re.fullmatch(
        r"srs0=[a-z2-7]{8}=[a-z2-7]{2}=q7x2ab=example\.com=joe@srs\.mx\.example\.org", carried.return_path
    )
    assert carried.stored is None
    domain = "example.com"
    longest = "x" * (64 - len("srs0=tttttttt=dd=rrrrrr==") - len(domain))
    at_the_limit = REWRITER.rewrite(f"{longest}@{domain}", REFERENCE, NOW)
    assert at_the_limit.stored is None
    assert len(at_the_limit.return_path.partition("@")[0]) == 64
    beyond = REWRITER.rewrite(f"{longest}x@{domain}", REFERENCE, NOW)
    assert re.fullmatch(r"srs0=[a-z2-7]{8}=[a-z2-7]{28}@srs\.mx\.example\.org", beyond.return_path)
    assert beyond.stored is not None
    assert beyond.stored.sender == f"{longest}x@{domain}"
    assert beyond.stored.token in beyond.return_path


@pytest.mark.parametrize(
    ("sender", "carried"),
    [
        ("joe@bücher.example", "xn--bcher-kva.example=joe"),
        ("Joe@BU\u0308CHER.example", "xn--bcher-kva.example=Joe"),
        ("jörg@example.com", None),
        ("jörg@bücher.example", None),
        ('"a b"@bücher.example', None),
        # Short as it is written, too long in A-labels.
        ("joe@ü.ö.ä.é.è.à.example", None),
    ],
)
def test_an_international_sender_is_carried_where_only_its_domain_is(sender: str, carried: str | None) -> None:
    rewritten = REWRITER.rewrite(sender, REFERENCE, NOW)
    assert rewritten.return_path.isascii()
    if carried is None:
        assert rewritten.stored is not None
        assert rewritten.stored.sender == sender
    else:
        assert rewritten.stored is None
        assert rewritten.return_path.endswith(f"={REFERENCE}={carried}@srs.mx.example.org")


def test_our_own_domain_may_be_written_in_either_form() -> None:
    rewriter = SenderRewriter("srs.Bücher.example", [b"k" * 16])
    assert rewriter.domain == "srs.xn--bcher-kva.example"
    rewritten = Address.parse(rewriter.rewrite("joe@example.com", REFERENCE, NOW).return_path)
    assert rewritten.is_ascii
    opened = rewriter.open(Address(rewritten.local_part, "SRS.bücher.example"), NOW, lambda _: None)
    assert opened.sender == Address("joe", "example.com")


def test_a_long_domain_of_ours_leaves_less_room() -> None:
    """The whole path keeps to 254 octets, too."""
    domain = ".".join(["d" * 52] * 4)
    rewriter = SenderRewriter(domain, [b"k" * 16])
    assert len(rewriter.rewrite("joe@example.com", REFERENCE, NOW).return_path) <= 254
    with pytest.raises(ValueError, match="too long"):
        SenderRewriter(domain + "d", [b"k" * 16])


def test_the_null_sender_stays_null() -> None:
    """RFC 5321 §4.5.5; nothing is stored for it."""
    assert REWRITER.rewrite("", REFERENCE, NOW).return_path == ""
    assert REWRITER.rewrite("", REFERENCE, NOW).stored is None


def test_mail_that_no_alias_took_has_no_reference() -> None:
    """Postmaster's, in both forms."""
    store = Store()
    for sender in ("joe@example.com", f"{'joe' * 20}@example.com"):
        assert store.open(store.rewrite(sender, "")).reference == ""


@pytest.mark.parametrize(
    "sender", ["joe", "@example.com", "joe@", "joe@exa mple.com", "joe@example.com\r\nRCPT TO:<x@y>"]
)
def test_what_is_no_sender_is_not_rewritten(sender: str) -> None:
    """The session refuses these; should one come through, nothing is made of it."""
    with pytest.raises(AddressError):
        REWRITER.rewrite(sender, REFERENCE, NOW)


@pytest.mark.parametrize("reference", ["abc", "abcdefg", "ABCDEF", "a=bcde", "abcde\n"])
def test_a_reference_has_six_characters(reference: str) -> None:
    """Its length is what keeps a token's parts apart."""
    with pytest.raises(ValueError, match="reference"):
        REWRITER.rewrite("joe@example.com", reference, NOW)


LONG = f"{'x' * 60}@example.com"


def test_one_row_a_day_for_a_pair() -> None:
    """The same sender and alias give the same row all day; anything else gives another."""
    midnight = NOW // DAY_MS * DAY_MS
    first = REWRITER.rewrite(LONG, REFERENCE, midnight)
    assert REWRITER.rewrite(LONG, REFERENCE, midnight + DAY_MS - 1) == first
    other_key = SenderRewriter(REWRITER.domain, [b"another key, 32 octets, as secret"])
    others = [
        REWRITER.rewrite(LONG, REFERENCE, midnight + DAY_MS),
        REWRITER.rewrite(LONG, "q7x2ac", midnight),
        REWRITER.rewrite("y" + LONG[1:], REFERENCE, midnight),
        REWRITER.rewrite(LONG.upper(), REFERENCE, midnight),
        other_key.rewrite(LONG, REFERENCE, midnight),
    ]
    tokens = {rewritten.stored.token for rewritten in [first, *others] if rewritten.stored}
    assert len(tokens) == 6


@pytest.mark.parametrize("sender", ["joe@example.com", LONG])
def test_it_opens_for_three_weeks(sender: str) -> None:
    """And a day ahead, for clocks that differ; in both forms, and across the day on which the count starts again."""
    for start in (NOW, 1023 * DAY_MS, 1024 * DAY_MS * 20 - 1):
        store = Store()
        rewritten = store.rewrite(sender, now=start)
        midnight = start // DAY_MS * DAY_MS
        for then in (midnight - DAY_MS, start, midnight + 22 * DAY_MS - 1):
            assert store.open(rewritten, then).rewritten_at == midnight
        for then in (midnight - DAY_MS - 1, midnight + 22 * DAY_MS, midnight + 500 * DAY_MS):
            with pytest.raises(Expired):
                store.open(rewritten, then)


def test_a_token_that_is_gone_has_expired() -> None:
    """We signed it, so it was stored once."""
    rewritten = Store().rewrite(LONG)
    with pytest.raises(Expired):
        Store().open(rewritten)


def test_a_failing_store_is_not_a_refusal() -> None:
    """It passes through, so that the caller can answer 4xx."""

    def look_up(token: str) -> ReturnPath | None:
        raise StoreUnavailable(token)

    with pytest.raises(StoreUnavailable):
        REWRITER.open(Store().rewrite(LONG), NOW, look_up)


def test_forgeries_do_not_reach_the_store() -> None:
    """A stranger who guesses tokens costs us a MAC, not a look at the disk."""

    def look_up(token: str) -> ReturnPath | None:
        raise AssertionError("looked up")

    with pytest.raises(Forged):
        REWRITER.open(Address("srs0=aaaaaaaa=" + "a" * 28, REWRITER.domain), NOW, look_up)


def test_keys_rotate() -> None:
    """The first key signs, all of them open, and one that is gone opens no more."""
    old, new = b"the key of last year, 32 octets.", b"the key of this year, 32 octets."
    before, between, after = (SenderRewriter("srs.example.org", keys) for keys in ([old], [new, old], [new]))
    store = Store()
    for sender in ("joe@example.com", LONG):
        rewritten = store.rewrite(sender, by=before)
        assert str(store.open(rewritten, by=between).sender) == sender
        with pytest.raises(Forged):
            store.open(rewritten, by=after)
        assert store.open(store.rewrite(sender, by=between), by=after)


@pytest.mark.parametrize("keys", [[], [b"short"], [b"long enough for a key", b"short"]])
def test_weak_keys_are_refused(keys: list[bytes]) -> None:
    """A forwarder with an empty key would open for everybody."""
    with pytest.raises(ValueError, match="key"):
        SenderRewriter("srs.example.org", keys)


@pytest.mark.parametrize(
    ("local_part", "expected"),
    [
        ("postmaster", NotOurs),
        ("srs0", NotOurs),
        ("srs0-abc=aa=example.com=joe", NotOurs),
        ("srs1=abc=example.com==abc=aa=x=y", NotOurs),
        ("srs0=", Forged),
        ("SRS0=HHHH=TT=example.com=joe", Forged),
        ("srs0========", Forged),
        ("srs0=" + "\u00e4" * 8 + "=aa=aaaaaa=example.com=joe", Forged),
    ],
)
def test_other_forms(local_part: str, expected: type[Exception]) -> None:
    """What we never made does not open, and says which kind it is."""
    with pytest.raises(expected):
        Store().open(Address(local_part, REWRITER.domain))


def test_another_domain_is_not_ours() -> None:
    """Even with a tag of ours."""
    rewritten = Store().rewrite("joe@example.com")
    with pytest.raises(NotOurs):
        Store().open(Address(rewritten.local_part, "mx.example.org"))
