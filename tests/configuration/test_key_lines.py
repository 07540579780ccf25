"""Which line a key stands on, for every way that TOML has of writing keys and values."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.configuration.lines import key_lines, line_of

TEXT = '''\
# a comment = 1
plain = 1
"quoted key".dotted . 'and quoted' = 2

[table] # with = a comment
list = [
  "a ] bracket", # and a ]
  'a = "b"',
  { inner = [1,
    2] },
]
behind_list = """
fake = 1
[fake]
\\""" still = 2
""" # done
literal = \'\'\'
fake = 2'\'\'\'
after = "a # no comment"
[ table . "sub.table" ]
x=1
[[rows]]
y = { a = 1, b = "}" }
z = []
'''


def test_every_key_has_its_line() -> None:
    tomllib.loads(TEXT)
    assert key_lines(TEXT) == {
        ("plain",): 2,
        ("quoted key",): 3,
        ("quoted key", "dotted"): 3,
        ("quoted key", "dotted", "and quoted"): 3,
        ("table",): 5,
        ("table", "list"): 6,
        ("table", "behind_list"): 12,
        ("table", "literal"): 17,
        ("table", "after"): 19,
        ("table", "sub.table"): 20,
        ("table", "sub.table", "x"): 21,
        ("rows",): 22,
        ("rows", "y"): 23,
        ("rows", "z"): 24,
    }


def test_what_is_not_told_apart_has_the_line_of_what_is_around_it() -> None:
    lines = key_lines(TEXT)
    assert line_of(lines, ("rows", "y", "b")) == 23
    assert line_of(lines, ("elsewhere",)) is None


@pytest.mark.parametrize("text", ["", "\n", "# only a comment", "a=1", "[a]", "[a]\n#"])
def test_the_end_may_come_anywhere(text: str) -> None:
    tomllib.loads(text)
    assert len(key_lines(text)) == (1 if "a" in text.replace("a comment", "") else 0)


_VALUES = st.sampled_from(
    [
        *("1", '"x"', "'#'", '"\\""', "[\n1,\n2]", '["]"]', "{ a = 1 }", "1 # ]"),
        *('"""\na = 1\n"""', "'''\n[b]\n'''", '""""q""""'),
    ]
)


@given(st.lists(st.tuples(st.integers(0, 2), _VALUES), max_size=8))
def test_the_scan_never_loses_its_place(statements: list[tuple[int, str]]) -> None:
    text, expected = "", {}
    for number, (blank_lines, value) in enumerate(statements):
        text += "\n" * blank_lines
        expected[f"key{number}",] = text.count("\n") + 1
        text += f"key{number} = {value}\n"
    tomllib.loads(text)
    assert key_lines(text) == expected
