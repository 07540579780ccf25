"""What people type as domain names, addresses and patterns: what is taken, in which form, and why others are not."""

import pytest

from appliance.accounts.names import alias_address
from appliance.model.names import account_email, domain_name, mailbox
from appliance.model.refused import Refused


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("example.org", "example.org"),
        ("  Example.ORG ", "example.org"),
        ("example.org.", "example.org"),
        ("a.b.c.d.example", "a.b.c.d.example"),
        ("1and1.example", "1and1.example"),
        ("r3---sn.example", "r3---sn.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("ｅｘａｍｐｌｅ。org", "example.org"),
        ("straße.example", "xn--strae-oqa.example"),
        (f"{'a' * 63}.example", f"{'a' * 63}.example"),
        (".".join(["a" * 49] * 5) + ".xyz", ".".join(["a" * 49] * 5) + ".xyz"),
    ],
)
def test_domain_names_have_one_form(typed: str, stored: str) -> None:
    assert domain_name(typed) == stored


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("", "is not a domain name"),
        (".", "is not a domain name"),
        ("localhost", "one label only"),
        ("example..org", "is not a domain name"),
        (".example.org", "is not a domain name"),
        ("example.org..", "is not a domain name"),
        ("-a.example", "is not a domain name"),
        ("a-.example", "is not a domain name"),
        ("a_b.example", "is not a domain name"),
        ("a b.example", "is not a domain name"),
        ("a/b.example", "is not a domain name"),
        ("a\n.example", "is not a domain name"),
        ("a\x00.example", "is not a domain name"),
        ("*.example.org", "is not a domain name"),
        ("https://example.org", "is an IP address"),
        ("[192.0.2.1]", "is an IP address"),
        ("[IPv6:2001:db8::1]", "is an IP address"),
        ("2001:db8::1", "is an IP address"),
        ("192.0.2.1", "is not a domain name"),
        ("example.123", "is not a domain name"),
        ("ada@example.org", "is an address"),
        (f"{'a' * 64}.example", "is not a domain name"),
        (f"{'a.' * 124}example", "is too long"),
        ("xn--.example", "is not a domain name"),
        ("xn--a.example", "is not a domain name"),
        ("\u200d.example", "is not a domain name"),
        ("ü" * 64 + ".example", "is not a domain name"),
    ],
)
def test_what_is_no_domain_name_is_refused_with_the_reason(typed: str, why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        domain_name(typed)
    assert refused.value.field == "name"
    assert refused.value.reason.endswith(".")


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("Ada.Lovelace@Example.ORG", "Ada.Lovelace@example.org"),
        (" ada@example.org ", "ada@example.org"),
        ("ada+tag@bücher.example", "ada+tag@xn--bcher-kva.example"),
        ('"ada lovelace"@example.org', '"ada lovelace"@example.org'),
        ('"ada"@example.org', "ada@example.org"),
        ('"a@b"@example.org', '"a@b"@example.org'),
        ("o'neill@example.org", "o'neill@example.org"),
        ("Jörg@example.org", "Jörg@example.org"),
        ("Jo\u0308rg@bu\u0308cher.example", "Jörg@xn--bcher-kva.example"),
        ('"Jörg B"@example.org', '"Jörg B"@example.org'),
        ("用户@例え.テスト", "用户@xn--r8jz45g.xn--zckzah"),
        (f"{'ü' * 32}@example.org", f"{'ü' * 32}@example.org"),
    ],
)
def test_mailboxes_keep_the_case_of_their_local_part(typed: str, stored: str) -> None:
    assert str(mailbox(typed, "destinations")) == stored


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@localhost",
        "ada@[192.0.2.1]",
        "ada@@example.org",
        "a b@example.org",
        ".ada@example.org",
        "ada.@example.org",
        "a..b@example.org",
        "ada@example.org, bob@example.org",
        "Ada <ada@example.org>",
        "<ada@example.org>",
        "ada@example.org\r\nRCPT TO:<x@y.example>",
        "ad\u200ba@example.org",
        "ad\u202ea@example.org",
        "ad\u00a0a@example.org",
        "ada@ example.org",
        "ad\ud800a@example.org",
        "ada@exam\ud800ple.org",
        f"{'a' * 65}@example.org",
        f"{'ü' * 33}@example.org",
        '"ada@example.org',
        "ada@-example.org",
        "mailto:ada@example.org\x00",
        "ada\x7f@example.org",
    ],
)
def test_what_is_no_mailbox_is_refused(typed: str) -> None:
    with pytest.raises(Refused) as refused:
        mailbox(typed, "destinations")
    assert refused.value.field == "destinations"


def test_an_account_has_one_address_whatever_the_case() -> None:
    assert account_email("Ada@Example.ORG") == account_email("ada@example.org") == "ada@example.org"
    assert account_email('"Ada L"@Example.ORG') == '"ada l"@example.org'


def test_an_account_has_one_address_however_it_is_composed() -> None:
    assert account_email("JO\u0308RG@bücher.example") == account_email("jörg@XN--bcher-kva.example")
    assert account_email("Jörg@Bücher.example") == "jörg@xn--bcher-kva.example"


@pytest.mark.parametrize(
    ("typed", "pattern", "domain"),
    [
        ("sales@example.org", "sales", "example.org"),
        ("Sales@EXAMPLE.org", "sales", "example.org"),
        ("sales*@example.org", "sales*", "example.org"),
        ("sales.*@example.org", "sales.*", "example.org"),
        ("*@example.org", "*", "example.org"),
        ("plus+tag@example.org", "plus+tag", "example.org"),
        ('"Ada Lovelace"@example.org', "ada lovelace", "example.org"),
        ('"ada l*"@example.org', "ada l*", "example.org"),
        (r'"a\"b"@example.org', 'a"b', "example.org"),
        ("/@example.org", "/", "example.org"),
        (f"{'a' * 63}*@example.org", f"{'a' * 63}*", "example.org"),
        ("info@bücher.example", "info", "xn--bcher-kva.example"),
        ("SÄLES@example.org", "säles", "example.org"),
        ("Sa\u0308les*@example.org", "säles*", "example.org"),
        ("ΟΔΥΣ*@example.org", "οδυσ*", "example.org"),
        ("οδυσσευς@example.org", "οδυσσευσ", "example.org"),
        (f"{'ü' * 31}*@example.org", f"{'ü' * 31}*", "example.org"),
        ("/^Sales-(.+)$/@example.org", "/^Sales-(.+)$/", "example.org"),
        (r"/^\D+$/@example.org", r"/^\D+$/", "example.org"),
        ("/^a@b$/@example.org", "/^a@b$/", "example.org"),
        ("/^bu\u0308ro/@bücher.example", "/^büro/", "xn--bcher-kva.example"),
        (f"/{'a' * 254}/@example.org", f"/{'a' * 254}/", "example.org"),
    ],
)
def test_patterns_have_one_form(typed: str, pattern: str, domain: str) -> None:
    assert alias_address(typed) == (pattern, domain)


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("sales", "is not an alias"),
        ("@example.org", "is not an alias"),
        ("*sales@example.org", "only at its end"),
        ("sa*les@example.org", "only at its end"),
        ("sales**@example.org", "only at its end"),
        ("**@example.org", "only at its end"),
        ('""@example.org', "is not a pattern"),
        ("/(/@example.org", r"missing \)"),
        ("//@example.org", "nothing stands between"),
        ("/(?=a)b/@example.org", "invalid perl operator"),
        (r"/(a)\1/@example.org", "invalid escape sequence"),
        ("/^(.{1,50}){1,10}$/@example.org", "too much memory"),
        (f"/{'a' * 255}/@example.org", "longer than 256"),
        ("a..b@example.org", "not an email address"),
        ("a b@example.org", "not an email address"),
        ("sales\n@example.org", "not an email address"),
        ("sales\u200b@example.org", "not an email address"),
        ("s\u202eales*@example.org", "not an email address"),
        (f"{'ü' * 32}*@example.org", "longer than 64"),
        (f"{'a' * 64}*@example.org", "longer than 64"),
        ("sales@localhost", "one label only"),
        ("sales@[192.0.2.1]", "is an IP address"),
    ],
)
def test_what_is_no_pattern_is_refused_with_the_reason(typed: str, why: str) -> None:
    with pytest.raises(Refused, match=why) as refused:
        alias_address(typed)
    assert refused.value.field == "pattern"
