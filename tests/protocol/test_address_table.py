"""One grammar for addresses: what MAIL, RCPT, the command line and sender rewriting make of each spelling.

The table is the decision; what is behind it is in `smtp.address` and `smtp.labels`. Its columns:

    MAIL   what MAIL FROM: gets with this behind the colon: `yes`; `utf8`, yes where the sender says SMTPUTF8 (and 553
           5.6.7 where not); `null` for the null reverse-path; `no`
    RCPT   the same for RCPT TO:, whose session must have heard SMTPUTF8 before
    typed  whether people can type it (without the brackets) as a mailbox where aliases lead. There has to be a domain
           that the DNS can have; in return white space around it, the final dot of the DNS's own notation and letters
           in full width (UTS #46) are understood
    SRS    how a return path stands for the sender that MAIL has read: `carried` in it, `stored` under a token, `null`;
           `no`: nothing is made of what is no sender

Invisible characters are written {U+202E}, and sixty-four times a letter {64*a}.
"""

import re

import pytest

from appliance.forwarding.srs import SenderRewriter
from appliance.model.names import mailbox
from appliance.model.refused import Refused
from smtp.address import Address, AddressError, parse_domain, parse_forward_path, parse_reverse_path
from smtp.server.commands import CommandError, Verb, parse_command
from smtp.server.events import Mail, Recipient

TABLE = r"""
MAIL  RCPT  typed SRS      path

# Plain mailboxes (RFC 5321 §4.1.2)
yes   yes   yes   carried  <a@example.com>
yes   yes   yes   carried  <A.B@Example.COM>
yes   yes   yes   carried  <first.last@example.com>
yes   yes   yes   carried  <user+tag@example.com>
yes   yes   yes   carried  <user=tag@example.com>
yes   yes   yes   carried  <!#$%&'*+-/=?^_`{|}~@example.com>
yes   yes   yes   carried  <1234567890@example.com>
yes   yes   yes   carried  <-@example.com>
yes   yes   no    carried  <a@b>
yes   yes   no    carried  <a@localhost>
yes   yes   yes   carried  <a@3com.example>
yes   yes   yes   carried  <a@a-b.example>
yes   yes   yes   carried  <a@r3---sn.example>

# Bare postmaster: a recipient, and nothing else (RFC 5321 §4.5.1)
no    yes   no    no       <postmaster>
no    yes   no    no       <Postmaster>
no    yes   no    no       <POSTMASTER>
no    yes   no    no       postmaster
yes   yes   yes   carried  <postmaster@example.com>
no    no    no    no       <"postmaster">
no    no    no    no       <abuse>

# The null reverse-path: a sender, and nothing else (RFC 5321 §4.5.5)
null  no    no    null     <>
null  no    no    null     {U+0020}<>
no    no    no    no       <{U+0020}>
no    no    no    no       <@>
no    no    no    no       <"">

# Local parts in quotes
yes   yes   yes   stored   <"a b"@example.com>
yes   yes   yes   stored   <"a@b"@example.com>
yes   yes   yes   stored   <"a>b"@example.com>
yes   yes   yes   stored   <"<a>"@example.com>
yes   yes   yes   stored   <"a,b;c:d"@example.com>
yes   yes   yes   stored   <"(a)"@example.com>
yes   yes   yes   stored   <"a\"b"@example.com>
yes   yes   yes   stored   <"a\\b"@example.com>
yes   yes   yes   carried  <"\a"@example.com>
yes   yes   yes   carried  <"a"@example.com>
yes   yes   yes   stored   <"a..b"@example.com>
yes   yes   yes   stored   <".a"@example.com>
yes   yes   yes   stored   <"a."@example.com>
yes   yes   yes   stored   <""@example.com>
yes   yes   yes   stored   <" "@example.com>
no    no    no    no       <"a{U+0009}b"@example.com>
no    no    no    no       <"a\{U+0009}b"@example.com>
no    no    no    no       <"a"b@example.com>
no    no    no    no       <"a".b@example.com>
no    no    no    no       <"a"b"@example.com>
no    no    no    no       <"a@example.com>
no    no    no    no       <"a\"@example.com>
no    no    no    no       <"a"example.com>

# Dots, and nothing at all
no    no    no    no       <.a@example.com>
no    no    no    no       <a.@example.com>
no    no    no    no       <a..b@example.com>
no    no    no    no       <.@example.com>
no    no    no    no       <@example.com>
no    no    no    no       <a@>
no    no    no    no       <a>
no    no    no    no       <a@.example.com>
no    no    no    no       <a@example..com>
no    no    no    no       <a@.>

# A final dot
no    no    yes   no       <a@example.com.>
no    no    no    no       <a@example.com..>

# Source routes are read and ignored (RFC 5321 §4.1.1.3, appendix C)
yes   yes   no    carried  <@relay.example:a@example.com>
yes   yes   no    carried  <@one.example,@two.example:a@example.com>
yes   yes   no    carried  <@bücher.example:a@example.com>
yes   yes   no    carried  <@{63*b}.{63*c}.{63*d}.{47*e}:a@example.com>
no    no    no    no       <@{63*b}.{63*c}.{63*d}.{48*e}:a@example.com>
no    no    no    no       <@one.example,two.example:a@example.com>
no    no    no    no       <@one.example,@two.example,:a@example.com>
no    no    no    no       <@one.example,,@two.example:a@example.com>
no    no    no    no       <@one.example:@two.example:a@example.com>
no    no    no    no       <@one_.example:a@example.com>
no    no    no    no       <@one.example:>
no    no    no    no       <@one.example>
no    no    no    no       <@[192.0.2.1]:a@example.com>
no    no    no    no       <one.example:a@example.com>

# Routes of other times are local parts like any other, and lead nowhere else
yes   yes   yes   carried  <user%other.example@example.com>
yes   yes   yes   carried  <other.example!user@example.com>
yes   yes   yes   carried  <a!b%c@example.com>
no    no    no    no       <a%b@c@example.com>

# Lengths, in octets of UTF-8 (RFC 5321 §4.5.3.1); labels, in those of the A-label. What is typed is stored in A-labels,
# and one of the names below is shorter so
yes   yes   yes   stored   <{64*a}@example.com>
no    no    no    no       <{65*a}@example.com>
yes   yes   yes   stored   <"{61*a} "@example.com>
no    no    no    no       <"{62*a} "@example.com>
utf8  utf8  yes   stored   <{32*ü}@example.com>
no    no    no    no       <{32*ü}x@example.com>
utf8  utf8  yes   stored   <{16*😀}@example.com>
no    no    no    no       <{16*😀}x@example.com>
yes   yes   yes   stored   <a@{63*b}.example>
no    no    no    no       <a@{64*b}.example>
utf8  utf8  yes   stored   <a@{53*ü}.example>
utf8  utf8  yes   stored   <a@{57*ü}.example>
no    no    no    no       <a@{58*ü}.example>
utf8  utf8  yes   carried  <a@{20*例}.example>
yes   yes   yes   stored   <{64*a}@{63*b}.{63*c}.{61*d}>
no    no    no    no       <{64*a}@{63*b}.{63*c}.{62*d}>
no    no    no    no       <{64*a}@{63*b}.{63*c}.{63*d}>
utf8  utf8  yes   stored   <{32*ü}@{50*ü}.{37*ü}.{13*d}>
no    no    yes   no       <{32*ü}@{50*ü}.{37*ü}.{14*d}>
no    no    no    no       <a@{83*ü.}e>
no    no    no    no       <{300*a}@example.com>

# Address literals (RFC 5321 §4.1.3): where mail comes from, not where people have theirs
yes   yes   no    stored   <a@[192.0.2.1]>
yes   yes   no    stored   <a@[IPv6:2001:db8::1]>
yes   yes   no    stored   <a@[ipv6:2001:DB8::1]>
yes   yes   no    stored   <a@[IPv6:::1]>
yes   yes   no    stored   <a@[IPv6:::ffff:192.0.2.1]>
no    no    no    no       <a@[IPv6:fe80::1%eth0]>
no    no    no    no       <a@[2001:db8::1]>
no    no    no    no       <a@[IPv6:192.0.2.1]>
no    no    no    no       <a@[IPv6:2001:db8::1::2]>
no    no    no    no       <a@[192.0.2]>
no    no    no    no       <a@[192.0.2.256]>
no    no    no    no       <a@[192.0.2.01]>
no    no    no    no       <a@[0300.0.2.1]>
no    no    no    no       <a@[x400:c=no]>
no    no    no    no       <a@[]>
no    no    no    no       <a@[192.0.2.1>
no    no    no    no       <a@[192.0.2.1]x>
no    no    no    no       <a@[{U+0661}.2.3.4]>

# Addresses that have lost their brackets are no domains (RFC 3696 §2)
no    no    no    no       <a@192.0.2.1>
no    no    no    no       <a@2130706433>
no    no    no    no       <a@0x7f.1>
no    no    no    no       <a@example.1>
yes   yes   yes   carried  <a@example.1a>

# What no domain has
no    no    no    no       <a@-example.com>
no    no    no    no       <a@example-.com>
no    no    no    no       <a@exam_ple.com>
no    no    no    no       <a@*.example.com>
no    no    no    no       <a@example.com:25>
no    no    no    no       <a@example.com/x>
no    no    no    no       <a@exam ple.com>

# Around the address
yes   yes   yes   carried  a@example.com
yes   yes   yes   carried  {U+0020}<a@example.com>
no    no    no    no       <a@example.com
no    no    no    no       a@example.com>
no    no    no    no       <<a@example.com>>
no    no    yes   no       < a@example.com>
no    no    yes   no       <a@example.com >
no    no    no    no       <a @example.com>
no    no    no    no       <a@ example.com>
no    no    no    no       <a@example.com>x
no    no    no    no       <a@example.com>{U+0009}
no    no    no    no       <a@example.com>{U+000D}
no    no    no    no       Ada <a@example.com>
no    no    no    no       "Ada" <a@example.com>
no    no    no    no       <a@example.com> (Ada)
no    no    no    no       <a(Ada)@example.com>
no    no    no    no       <a@(here)example.com>
no    no    no    no       <a@example.com,b@example.com>
no    no    no    no       <a@example.com>,<b@example.com>
no    no    no    no       <a@example.com;b@example.com>
no    no    no    no       <mailto:a@example.com>
no    no    no    no       <group:a@example.com;>

# Characters that are no text
no    no    no    no       <a{U+0000}b@example.com>
no    no    no    no       <a{U+000D}{U+000A}b@example.com>
no    no    no    no       <a{U+000A}b@example.com>
no    no    no    no       <a{U+0009}b@example.com>
no    no    no    no       <a{U+007F}b@example.com>
no    no    no    no       <"a{U+0000}"@example.com>
no    no    no    no       <a@example{U+0000}.com>
no    no    yes   no       <a@example.com{U+000A}>
no    no    no    no       <a{U+0080}b@example.com>
no    no    no    no       <a{U+0085}b@example.com>
no    no    no    no       <a{U+D800}b@example.com>
no    no    no    no       <a@b{U+DC80}.example>
no    no    no    no       <a{U+E000}b@example.com>
no    no    no    no       <a{U+0378}b@example.com>
no    no    no    no       <a{U+FFFE}b@example.com>

# International local parts (RFC 6531 §3.3)
utf8  utf8  yes   stored   <jörg@example.com>
utf8  utf8  yes   stored   <jo{U+0308}rg@example.com>
utf8  utf8  yes   stored   <用户@example.com>
utf8  utf8  yes   stored   <почта@example.com>
utf8  utf8  yes   stored   <दूत@example.com>
utf8  utf8  yes   stored   <ادمین@example.com>
utf8  utf8  yes   stored   <"jörg b"@example.com>
utf8  utf8  yes   stored   <"j\örg"@example.com>
utf8  utf8  yes   stored   <"jörg"@example.com>
no    no    no    no       <jörg.@example.com>
utf8  utf8  yes   stored   <😀@example.com>
utf8  utf8  yes   stored   <❤{U+FE0F}@example.com>
utf8  utf8  yes   stored   <pöst%x@example.com>
utf8  utf8  yes   stored   <{U+FF41}@example.com>
utf8  utf8  yes   stored   <a。b@example.com>

# Joiners where the script needs them (RFC 5892, appendix A.1 and A.2), and nowhere else
utf8  utf8  yes   stored   <نامه{U+200C}ای@example.com>
utf8  utf8  yes   stored   <क्{U+200D}ष@example.com>
no    no    no    no       <sh{U+200D}op@example.com>
no    no    no    no       <👩{U+200D}💻@example.com>

# Invisible characters, spaces, and marks that turn the direction of the text around them
no    no    no    no       <a{U+00A0}b@example.com>
no    no    no    no       <a{U+3000}b@example.com>
no    no    no    no       <"a{U+00A0}b"@example.com>
no    no    no    no       <a{U+2028}b@example.com>
no    no    no    no       <a{U+200B}b@example.com>
no    no    no    no       <a{U+00AD}b@example.com>
no    no    no    no       <a{U+FEFF}b@example.com>
no    no    no    no       <a{U+200F}b@example.com>
no    no    no    no       <a{U+202E}b@example.com>
no    no    no    no       <a{U+2066}b@example.com>
no    no    no    no       <a@b{U+200E}.example>
no    no    no    no       <a@{U+202E}b.example>
no    no    yes   no       <a@b{U+200B}.example>
no    no    yes   no       <a@b{U+00AD}c.example>
no    no    yes   no       <a@{U+FEFF}b.example>

# International domains (RFC 5890 to 5893)
utf8  utf8  yes   carried  <a@bücher.example>
utf8  utf8  yes   carried  <a@BÜCHER.Example>
utf8  utf8  yes   carried  <a@bu{U+0308}cher.example>
yes   yes   yes   carried  <a@xn--bcher-kva.example>
yes   yes   yes   carried  <a@XN--BCHER-KVA.example>
utf8  utf8  yes   carried  <a@straße.example>
utf8  utf8  yes   carried  <a@βόλος.example>
utf8  utf8  yes   carried  <a@例え.テスト>
utf8  utf8  yes   carried  <a@почта.рф>
utf8  utf8  yes   carried  <a@उदाहरण.भारत>
utf8  utf8  yes   carried  <a@مثال.إختبار>
utf8  utf8  yes   carried  <a@אבג.example>
utf8  utf8  yes   carried  <a@نامه{U+200C}ای.example>
utf8  utf8  yes   carried  <a@l·l.example>
utf8  utf8  yes   carried  <a@ל״ב.example>
utf8  utf8  yes   carried  <a@カ・カ.example>
no    no    no    no       <a@{U+0660}{U+0661}.example>
utf8  utf8  yes   stored   <jörg@bücher.example>
utf8  utf8  yes   stored   <"a b"@bücher.example>
utf8  utf8  yes   stored   <{30*a}@bücher.example>

# What is no U-label
no    no    yes   no       <a@example。com>
no    no    yes   no       <a@example{U+FF0E}com>
no    no    yes   no       <a@example{U+FF61}com>
no    no    no    no       <a@example{U+2024}com>
no    no    yes   no       <a@{U+FF45}xample.com>
no    no    yes   no       <a@{U+FB01}sh.example>
no    no    yes   no       <a@{U+212A}.example>
no    no    no    no       <a@a·b.example>
no    no    no    no       <a@・.example>
no    no    no    no       <a@a{U+200D}b.example>
no    no    no    no       <a@{U+0301}a.example>
no    no    no    no       <a@-ü.example>
no    no    no    no       <a@ü-.example>
no    no    no    no       <a@aü--b.example>
no    no    no    no       <a@üb--c.example>
no    no    no    no       <a@xn--ü.example>
no    no    no    no       <a@ü_.example>
no    no    no    no       <a@ü .example>
no    no    no    no       <a@😀.example>
no    no    no    no       <a@♥.example>
no    no    no    no       <a@ü..example>
no    no    no    no       <a@a{U+0660}{U+06F0}.example>
no    no    no    no       <a@{U+05D0}a.example>
no    no    no    no       <a@1{U+05D0}.example>
no    no    no    no       <a@{U+05D0}1{U+0661}.example>
no    no    no    no       <a@[bücher]>
no    no    no    no       <a@192.0.2.{U+0661}>
no    no    no    no       <a@192.0.2.{U+FF11}>

# A-labels, and what begins like one and stands for nothing. xn--e28h is an emoji: a name that exists, and no U-label
no    no    no    no       <a@xn--a.example>
no    no    no    no       <a@xn--.example>
no    no    no    no       <a@xn---.example>
no    no    no    no       <a@xn--abc-.example>
yes   yes   yes   carried  <a@xn--bCher-Kva.example>
no    no    no    no       <a@xn--BCHER-KVA0.example>
yes   yes   no    carried  <a@xn--e28h.example>
yes   yes   no    carried  <a@xn--p1ai>
no    no    no    no       <@xn--a.example:a@example.com>
"""

_ESCAPE = re.compile(r"\{(?:U\+([0-9A-F]{4,6})|([0-9]+)\*([^}]+))\}")
_REWRITER = SenderRewriter("srs.mx.example.org", [b"a key for the table, 32 octets.."])


def _written(path: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else int(found[2]) * found[3], path)


ROWS = [
    (_written(path), mail, rcpt, typed, srs)
    for line in TABLE.strip().splitlines()[1:]
    if line and not line.startswith("#")
    for mail, rcpt, typed, srs, path in [line.split(None, 4)]
]
IDS = [ascii(path)[1:-1][:60] for path, *_ in ROWS]


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _bare(path: str) -> str:
    """What a person would type."""
    path = path.strip(" ")
    return path[1:-1] if path.startswith("<") and path.endswith(">") else path


def _mail(path: str) -> str:
    try:
        command = parse_command(Verb.MAIL, _octets(f"FROM:{path}"))
    except CommandError as error:
        if str(error.reply.enhanced) != "5.6.7":
            return "no"
        command = parse_command(Verb.MAIL, _octets(f"FROM:{path} SMTPUTF8"))
        assert isinstance(command, Mail)
        assert command.sender is not None
        assert not command.sender.is_ascii
        return "utf8"
    assert isinstance(command, Mail)
    return "null" if command.sender is None else "yes"


def _rcpt(path: str) -> str:
    try:
        command = parse_command(Verb.RCPT, _octets(f"TO:{path}"))
    except CommandError:
        return "no"
    assert isinstance(command, Recipient)
    return "yes" if command.address.is_ascii else "utf8"


def _typed(path: str) -> str:
    try:
        mailbox(_bare(path), "destinations")
    except Refused:
        return "no"
    return "yes"


def _srs(path: str) -> str:
    try:
        sender, rest = parse_reverse_path(path)
        written = path if rest else str(sender or "")
    except AddressError:
        written = _bare(path)
    try:
        rewritten = _REWRITER.rewrite(written, "", 0)
    except AddressError:
        return "no"
    # Whatever it stands for, every next hop can take it, and it leads back.
    assert rewritten.return_path.isascii()
    if not rewritten.return_path:
        return "null"
    stored = rewritten.stored
    opened = _REWRITER.open(Address.parse(rewritten.return_path), 0, lambda token: stored)
    assert opened.sender.key == Address.parse(written).key
    return "carried" if stored is None else "stored"


def test_the_table_is_long_enough() -> None:
    assert len({path for path, *_ in ROWS}) == len(ROWS) >= 250


@pytest.mark.parametrize(("path", "mail", "rcpt", "typed", "srs"), ROWS, ids=IDS)
def test_the_decision_for(path: str, mail: str, rcpt: str, typed: str, srs: str) -> None:
    assert (_mail(path), _rcpt(path), _typed(path), _srs(path)) == (mail, rcpt, typed, srs)


@pytest.mark.parametrize("path", [row[0] for row in ROWS if row[1] == "no"])
def test_every_refusal_of_a_sender_gives_a_reason_in_plain_words(path: str) -> None:
    with pytest.raises(CommandError) as caught:
        parse_command(Verb.MAIL, _octets(f"FROM:{path}"))
    reply = caught.value.reply
    assert 500 <= reply.code < 560
    assert reply.text.isascii()
    assert reply.text.isprintable()
    assert 5 < len(reply.text) < 120


@pytest.mark.parametrize("surrogate", [0xD800, 0xDC80, 0xDFFF])
@pytest.mark.parametrize("text", ["a{}@example.com", '"a {}"@example.com', "a@b{}.example", "a{}"])
def test_half_a_character_is_none(text: str, surrogate: int) -> None:
    """No decoder lets one through, but text may come from elsewhere."""
    text = text.format(chr(surrogate))
    for read in (Address.parse, parse_domain, parse_reverse_path, parse_forward_path):
        with pytest.raises(AddressError):
            read(text)
    with pytest.raises(Refused):
        mailbox(text, "destinations")
