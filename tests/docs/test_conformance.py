"""The table of what the standards ask for (tests/conformance.toml), held to the tests that it names; and the two pages
of smtp/ that are printed.

Whether a named test passes is not asked here: it is collected by the same `make test` as these, and fails there. What
is asked is that it exists and that nothing lets it off: no skip, no expected failure, no mark for the long tests.
"""

from collections import Counter

import pytest
import smtp_states
from conformance import DOCUMENT, TABLE, Requirement, document, functions_of, read_table, why_it_shows_nothing

ROWS, FAULTS = read_table(TABLE.read_text(encoding="utf-8"))

GOOD = """
[[requirement]]
rfc = "RFC 5321"
section = "4.1.4"
level = "MUST"
side = "server"
statement = "Something is done."
status = "done"
tests = ["tests/conversations/plain_message.txt"]
"""


def _is_named(row: Requirement) -> str:
    return f"{row.rfc} {row.section}"


def test_every_row_is_well_formed() -> None:
    assert FAULTS == []


def test_the_table_is_long_enough() -> None:
    assert len(ROWS) >= 250


def test_no_row_stands_there_twice() -> None:
    counts = Counter((row.rfc, row.statement.casefold()) for row in ROWS)
    assert [statement for statement, count in counts.items() if count > 1] == []


def test_the_rows_of_a_standard_stand_together() -> None:
    changes = [row.rfc for before, row in zip([None, *ROWS], ROWS, strict=False) if not before or before.rfc != row.rfc]
    assert len(changes) == len(set(changes))


def test_what_must_be_is_out_of_scope_or_shown() -> None:
    musts = [row for row in ROWS if row.level in ("MUST", "MUST NOT") and row.kind != "out of scope"]
    assert len(musts) >= 100
    assert [str(row) for row in musts if not row.tests] == []


@pytest.mark.parametrize("row", [row for row in ROWS if row.kind in ("done", "deviation")], ids=_is_named)
def test_the_tests_of_what_is_done_are_there_and_run(row: Requirement) -> None:
    assert {test: why for test in row.tests if (why := why_it_shows_nothing(test))} == {}, str(row)


def test_what_is_due_has_a_test_that_is_still_missing() -> None:
    """Whoever writes the last test of a row says in the table that it is done."""
    done = [str(row) for row in ROWS if row.kind == "due" and not any(map(why_it_shows_nothing, row.tests))]
    assert done == []


def test_the_page_of_the_standards_is_what_is_printed() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(ROWS), "run: .venv/bin/python tests/support/conformance.py"


def test_the_page_of_the_states_is_what_is_printed() -> None:
    page = smtp_states.DOCUMENT.read_text(encoding="utf-8")
    assert page == smtp_states.document(), "run: .venv/bin/python tests/support/smtp_states.py"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('rfc = "RFC 5321"\n', ""),
        ('rfc = "RFC 5321"', 'rfc = ""'),
        ('section = "4.1.4"', 'section = "4.1."'),
        ('level = "MUST"', 'level = "must"'),
        ('side = "server"', 'side = "relay"'),
        ("Something is done.", "something is done"),
        ("Something is done.", ""),
        ('status = "done"', 'status = "done: mostly"'),
        ('status = "done"', 'status = "deviation"'),
        ('status = "done"', 'status = "out of scope: no time"'),
        ('status = "done"', 'status = "planned"'),
        ('"tests/conversations/plain_message.txt"', ""),
        ('"tests/conversations/plain_message.txt"', '"plain_message"'),
        ('.txt"]', '.txt", "tests/conversations/plain_message.txt"]'),
    ],
)
def test_a_row_that_is_not_well_formed_is_found(right: str, wrong: str) -> None:
    assert read_table(GOOD)[1] == []
    assert right in GOOD
    rows, faults = read_table(GOOD.replace(right, wrong))
    assert (rows, len(faults)) == ([], 1)


@pytest.mark.parametrize(
    ("test", "shows"),
    [
        ("tests/conversations/plain_message.txt", True),
        ("tests/conversations/no_such_thing.txt", False),
        ("tests/configuration/faults.txt", False),
        ("tests/docs/test_conformance.py::test_the_table_is_long_enough", True),
        ("tests/docs/test_conformance.py::test_that_was_never_written", False),
        ("tests/docs/test_never_written.py::test_anything", False),
    ],
)
def test_only_a_test_that_is_there_and_runs_shows_something(test: str, shows: bool) -> None:
    assert (why_it_shows_nothing(test) == "") is shows


@pytest.mark.parametrize(
    "source",
    [
        "@pytest.mark.skip\ndef test_it(): ...",
        "@pytest.mark.skipif(True, reason='x')\nasync def test_it(): ...",
        "@pytest.mark.xfail(strict=True)\ndef test_it(): ...",
        "@pytest.mark.long\ndef test_it(): ...",
        "@pytest.mark.parametrize('x', [1, pytest.param(2, marks=pytest.mark.skip)])\ndef test_it(x): ...",
        "pytestmark = pytest.mark.skipif(True, reason='x')\ndef test_it(): ...",
        "pytestmark = [pytest.mark.usefixtures('x'), pytest.mark.long]\ndef test_it(): ...",
        "def test_it():\n    if True:\n        pytest.skip('x')",
        "def test_it():\n    pytest.importorskip('x')",
    ],
)
def test_a_test_that_may_be_spared_shows_nothing(source: str) -> None:
    assert functions_of(source)["test_it"]


def test_a_test_that_is_spared_nothing_shows_something() -> None:
    source = "@pytest.mark.parametrize('skip', [1])\nasync def test_it(skip): ...\n\ndef helper(): pytest.skip('x')"
    assert functions_of(source) == {"test_it": ""}
