"""The faults that tests/faults/seed.py puts into our code: each can be put in, and the tests named with it are there.

Whether they find it is not asked here: `make faults` takes minutes.
"""

import re
from collections import Counter
from pathlib import Path

import pytest
from conformance import functions_of

from tests.faults.seed import ROOT, Fault, Misplaced, read_faults

FAULTS = read_faults()

MAX_LINES = 3
"""Of a fault, beside those that are there already: more than that is no slip."""


def _is_named(fault: Fault) -> str:
    return fault.name


def test_there_are_enough_of_them() -> None:
    assert len(FAULTS) >= 60


def test_each_has_a_name_of_its_own() -> None:
    counts = Counter(fault.name for fault in FAULTS)
    assert [name for name, count in counts.items() if count > 1] == []
    assert [name for name in counts if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)] == []


@pytest.mark.parametrize("fault", FAULTS, ids=_is_named)
def test_its_text_stands_in_its_file_exactly_once(fault: Fault) -> None:
    assert (ROOT / fault.file).read_text(encoding="utf-8").count(fault.old) == 1


@pytest.mark.parametrize("fault", FAULTS, ids=_is_named)
def test_with_it_the_file_is_another_one_and_still_python(fault: Fault) -> None:
    assert fault.breaks
    text = (ROOT / fault.file).read_text(encoding="utf-8")
    faulty = text.replace(fault.old, fault.new)
    assert faulty != text
    compile(faulty, fault.file, "exec")
    assert len([line for line in fault.new.splitlines() if line.strip() and line not in fault.old]) <= MAX_LINES


@pytest.mark.parametrize("fault", FAULTS, ids=_is_named)
def test_the_tests_that_should_find_it_are_there_and_run(fault: Fault) -> None:
    assert fault.tests
    for test in fault.tests:
        name, _, function = test.partition("::")
        found = functions_of((ROOT / name).read_text(encoding="utf-8"))
        # What may be skipped finds nothing; of a whole file it is enough that some of it may not.
        assert (found.get(function.partition("[")[0]) == "") if function else ("" in found.values()), test


def test_a_fault_whose_text_has_gone_is_not_put_in(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text("a\na\n")
    for text in ("a\n", "b\n"):
        with pytest.raises(Misplaced):
            Fault("x", "x", "twice.py", text, "c\n", ()).put_into(tmp_path)
    assert (tmp_path / "twice.py").read_text() == "a\na\n"
