"""Expressions as aliases: what they find, what stands for it in a destination, and what they may cost."""

import time

import pytest

from appliance.routing.patterns import (
    Captured,
    PatternError,
    begins_with,
    check_pattern,
    filled_in,
    find,
    groups_of,
    references,
    stand_in_detail,
    without_references,
)


@pytest.mark.parametrize(
    ("pattern", "local_part", "groups"),
    [
        ("/^support-(.+)$/", "support-ada", ("ada",)),
        ("/^support-(.+)$/", "support-", None),
        ("/^support-(.+)$/", "my-support-ada", None),
        ("/^SUPPORT-(.+)$/", "support-ada", ("ada",)),
        ("/shop/", "my-shop-account", ()),
        ("/^(a)|(b)$/", "b", ("", "b")),
        ("/^jo(.)rg$/", "joérg", ("é",)),
        ("/^é$/", "é", ()),
        (r"/^\d{4}$/", "2026", ()),
        (r"/^\d{4}$/", "２０２６", None),
        ("/^a$/", "a\n", None),
        ("/(/", "(", None),
    ],
)
def test_what_an_expression_finds(pattern: str, local_part: str, groups: tuple[str, ...] | None) -> None:
    found = find(pattern, local_part)
    assert (None if found is None else found.groups) == groups


@pytest.mark.parametrize(
    ("target", "groups", "address"),
    [
        ("ada+$1@home.test", ("x",), "ada+x@home.test"),
        ("ada+$2.$1@home.test", ("x", "y"), "ada+y.x@home.test"),
        ("$1@own.test", ("sales",), "sales@own.test"),
        ("ada+$1@home.test", ("",), "ada@home.test"),
        ("ada+$2@home.test", ("x",), "ada@home.test"),
        ("ada+$1@home.test", ("x@evil.test",), '"ada+x@evil.test"@home.test'),
        ("ada+$1@home.test", ('"',), '"ada+\\""@home.test'),
        ("ada+$1@home.test", ("$1",), "ada+$1@home.test"),
        ("ada+$1@home.test", ("é",), "ada+é@home.test"),
        ("ada+$0$a@home.test", ("x",), "ada+$0$a@home.test"),
        ("$1@own.test", ("",), None),
        ("ada+$1@home.test", ("x" * 61,), None),
        ("ada+$1@home.test", ("a\x00b",), None),
    ],
)
def test_what_stands_in_a_destination(target: str, groups: tuple[str, ...], address: str | None) -> None:
    made = filled_in(target, Captured(groups))
    assert (None if made is None else str(made)) == address
    assert made is None or made.domain == target.rpartition("@")[2], "no stranger chooses a domain"


def test_where_what_was_found_may_stand() -> None:
    assert references("a$1+$2@$3.test") == (1, 2)
    assert [stand_in_detail(target) for target in ("ada+$1@h.test", "a$1+$2@h.test", "$1@h.test", "+$1@h.test")] == [
        True,
        False,
        False,
        False,
    ]
    assert without_references("Ada+x.$1@h.test") == "Ada@h.test"
    assert without_references("ada+x@h.test") == "ada+x@h.test"


def test_what_an_expression_begins_with() -> None:
    assert [begins_with(pattern) for pattern in ("/^support-(.+)$/", "/^Sales/", "/^(a|b)c/", "/^é(.*)$/")] == [
        "support-",
        "sales",
        "",
        "é",
    ]
    assert groups_of("/^(a)(b)$/") == 2


@pytest.mark.parametrize(
    "pattern",
    [
        "/^(a+)+$/",
        "/^(a|aa)+$/",
        "/^([a-z0-9]+)*@$/",
        "/^(.*)*(.*)*(.*)*$/",
        "/^.*.*.*.*.*.*.*.*=$/",
        "/^(x|y|z|[a-f]{1,9}){1,100}$/",
        "/^[a-z0-9.]{1,64}$/",
    ],
)
def test_no_expression_that_is_taken_makes_anybody_wait(pattern: str) -> None:
    check_pattern(pattern)
    texts = ["a" * 64, "a" * 63 + "!", "é" * 32, "ab" * 32]
    began = time.thread_time()
    for _ in range(5):
        for text in texts:
            find(pattern, text)
    # Twenty looks; a backtracking engine would take years for some of these.
    assert time.thread_time() - began < 0.1


@pytest.mark.parametrize("pattern", ["/^(.{1,50}){1,10}$/", r"/^\pL{1,30}x\pL{1,30}$/", f"/{'a?' * 128}/", "/a{1001}/"])
def test_an_expression_that_asks_for_too_much_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        check_pattern(pattern)
