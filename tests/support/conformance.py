"""Reads tests/conformance.toml, the table of what the standards ask for, and prints smtp/RFC.md from it.

Run as a script, it writes the file. A row of the table:

    [[requirement]]
    rfc = "RFC 5321"            or the name of another standard
    section = "4.1.4"
    level = "MUST"              MUST, MUST NOT, SHOULD, SHOULD NOT or MAY
    side = "server"             whose duty it is: server, client or both
    statement = "What is asked for, in one sentence of ours."
    status = "done"             or "due: ...", "deviation: ...", "out of scope: ...", with the reason
    tests = []                  tests, tests/folder/test_file.py::test_name, or conversations, tests/conversations/x.txt

`due` is for what is being built: its tests have names already and are not all there yet.
"""

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "tests" / "conformance.toml"
DOCUMENT = ROOT / "smtp" / "RFC.md"
CONVERSATIONS = "tests/conversations/"

LEVELS = ("MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY")
SIDES = ("server", "client", "both")
KINDS = ("done", "due", "deviation", "out of scope")
KEYS = {"rfc", "section", "level", "side", "statement", "status", "tests"}

_INTRODUCTION = """\
# What the standards ask for, and where it is shown

Printed from [tests/conformance.toml](../tests/conformance.toml) by `.venv/bin/python tests/support/conformance.py`. The
checks fail where a row that is done names no test, or one that is not there or may be skipped, and where this page is
not what is printed. The statements are ours; the standards decide.
"""
_SECTION_RE = re.compile(r"(?:[0-9]+|appendix [A-Z])(?:\.[0-9]+)*")
_TEST_RE = re.compile(r"tests/[a-z_/]+/(?:test_[a-z0-9_]+\.py::test_[a-z0-9_]+|[a-z0-9_]+\.txt)")
# What keeps a test from being run by `make test`, or from failing there.
_MARKS_THAT_SPARE = frozenset({"skip", "skipif", "xfail", "long"})
_CALLS_THAT_SPARE = frozenset({"skip", "xfail", "importorskip"})


@dataclass(frozen=True, slots=True)
class Requirement:
    """One row."""

    rfc: str
    section: str
    level: str
    side: str
    statement: str
    kind: str
    """The status without its reason."""
    reason: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.rfc} §{self.section} {self.level}: {self.statement}"


def read_table(text: str) -> tuple[list[Requirement], list[str]]:
    """The rows that are well-formed, and what is wrong with the others."""
    rows = []
    faults = []
    for number, raw in enumerate(tomllib.loads(text)["requirement"], start=1):
        fault = _fault_of(raw)
        if fault:
            faults.append(f"row {number} ({raw.get('statement')!r}): {fault}")
            continue
        kind, _, reason = raw["status"].partition(": ")
        texts = {key: raw[key] for key in ("rfc", "section", "level", "side", "statement")}
        rows.append(Requirement(**texts, kind=kind, reason=reason, tests=tuple(raw["tests"])))
    return rows, faults


def _fault_of(raw: dict[str, Any]) -> str:
    if raw.keys() != KEYS:
        return f"these keys are missing or too many: {sorted(raw.keys() ^ KEYS)}"
    texts = [raw[key] for key in sorted(KEYS - {"tests"})]
    if not all(isinstance(text, str) and text == text.strip() and "\n" not in text for text in texts):
        return "a value is no line of text"
    kind, _, reason = raw["status"].partition(": ")
    for wrong, fault in (
        (not raw["rfc"], "it names no standard"),
        (not _SECTION_RE.fullmatch(raw["section"]), "the section has no number"),
        (raw["level"] not in LEVELS, "there is no such level"),
        (raw["side"] not in SIDES, "there is no such side"),
        (not re.fullmatch(r"[A-Z`0-9].*[.]", raw["statement"]), "the statement is no sentence"),
        (kind not in KINDS, "there is no such status"),
        ((kind == "done") != (not reason), "a reason is missing or stands where none is needed"),
        (not all(_TEST_RE.fullmatch(test) for test in raw["tests"]), "a test has no proper name"),
        (len(set(raw["tests"])) < len(raw["tests"]), "a test is named twice"),
        (kind == "out of scope" and bool(raw["tests"]), "what is out of scope has no tests"),
        (kind != "out of scope" and not raw["tests"], "no test shows it"),
    ):
        if wrong:
            return fault
    return ""


def why_it_shows_nothing(test: str) -> str:
    """Why this test does not exist or would not fail; empty where it is a good one."""
    name, _, function = test.partition("::")
    path = ROOT / name
    if not path.is_file():
        return "there is no such file"
    if not function:
        # Every file of the folder is played, by tests/conversations/test_conversations.py.
        return "" if name.startswith(CONVERSATIONS) else "this is no conversation"
    return _functions(path).get(function, "there is no such function")


@cache
def _functions(path: Path) -> dict[str, str]:
    return functions_of(path.read_text(encoding="utf-8"))


def functions_of(source: str) -> dict[str, str]:
    """The test functions of a file, and what would keep each from failing."""
    module = ast.parse(source)
    marked = ""
    for statement in module.body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "pytestmark" for target in statement.targets
        ):
            marked = _spared_by(statement.value, _MARKS_THAT_SPARE)
    found = {}
    for statement in module.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name.startswith("test_"):
            marks = (_spared_by(decorator, _MARKS_THAT_SPARE) for decorator in statement.decorator_list)
            calls = (
                _spared_by(node.func, _CALLS_THAT_SPARE) for node in ast.walk(statement) if isinstance(node, ast.Call)
            )
            found[statement.name] = marked or next(filter(None, (*marks, *calls)), "")
    return found


def _spared_by(expression: ast.expr, words: frozenset[str]) -> str:
    """`pytest.mark.skip`, `pytest.skip` and the like, anywhere in an expression."""
    for node in ast.walk(expression):
        if isinstance(node, ast.Attribute) and node.attr in words and "pytest" in ast.dump(node):
            return f"it may be spared: pytest's {node.attr}"
    return ""


def document(rows: Sequence[Requirement]) -> str:
    """The whole of smtp/RFC.md."""
    return "\n".join([*_introduction(rows), *_tables(rows), ""])


def _introduction(rows: Sequence[Requirement]) -> Iterator[str]:
    yield _INTRODUCTION
    yield "- **done**: the tests beside it show it."
    if any(row.kind == "due" for row in rows):
        yield "- **due**: being built; not all of the tests beside it are there yet."
    yield "- **deviation**: we do something else, for the reason given."
    yield "- **out of scope**: not what this room, or a relay such as this one, has to do with, for the reason given."
    yield ""
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    yield f"| standard | {' | '.join(kinds)} | all |"
    yield "|---" + "|--:" * (len(kinds) + 1) + "|"
    for rfc in dict.fromkeys(row.rfc for row in rows):
        yield _count(f"[{rfc}](#{_anchor(rfc)})", [row for row in rows if row.rfc == rfc], kinds)
    yield _count("**all**", rows, kinds)
    yield ""
    yield f"| level | {' | '.join(kinds)} | all |"
    yield "|---" + "|--:" * (len(kinds) + 1) + "|"
    for level in LEVELS:
        yield _count(level, [row for row in rows if row.level == level], kinds)
    yield ""


def _count(name: str, rows: Sequence[Requirement], kinds: Sequence[str]) -> str:
    counts = Counter(row.kind for row in rows)
    return f"| {name} | {' | '.join(str(counts[kind]) for kind in kinds)} | {len(rows)} |"


def _tables(rows: Sequence[Requirement]) -> Iterator[str]:
    for rfc in dict.fromkeys(row.rfc for row in rows):
        yield f"## {rfc}"
        yield ""
        yield "| section | level | side | what is asked for | status | tests |"
        yield "|---|---|---|---|---|---|"
        for row in rows:
            if row.rfc == rfc:
                status = f"**{row.kind}**" + (f": {row.reason}" if row.reason else "")
                cells = (row.section, row.level, row.side, row.statement, status, ", ".join(map(_link, row.tests)))
                yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        yield ""


def _link(test: str) -> str:
    name, _, function = test.partition("::")
    words = function or Path(name).stem
    # A file that is not there yet has no link to it.
    return f"[{words}](../{name})" if (ROOT / name).is_file() else words


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    DOCUMENT.write_text(document(read_table(TABLE.read_text(encoding="utf-8"))[0]), encoding="utf-8")
    print(f"{DOCUMENT} is written")
