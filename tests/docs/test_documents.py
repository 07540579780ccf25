"""The documents, held to what is there: every command runs, every link leads somewhere, the plan has every room."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import process_tree
import pytest
from appliance_process import Appliance, eventually

_ROOT = Path(__file__).resolve().parents[2]
_ONWARD = Path(sys.executable).with_name("onward")
"""The command that the README tells people to type: the installation has put it beside its Python."""

_WITHIN = 20
_BUILT = {"dist", "var", "node_modules"}
"""Folders that are no part of the repository."""

DOCUMENTS = sorted(
    path
    for path in _ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in _BUILT for part in path.relative_to(_ROOT).parts)
)
NAMES = [str(path.relative_to(_ROOT)) for path in DOCUMENTS]
LOCKS = sorted(_ROOT.glob("requirements*.lock"))

README = (_ROOT / "README.md").read_text(encoding="utf-8")
PROMISES = (
    "No loss",
    "No ghosts",
    "Bounded duplicates",
    "Full or broken disk",
    "No lies from lookups",
    "Transit leaves no trace",
    "Time",
)

STAYS_UP = {"demo": "Ctrl-C ends it.", "log --follow": ""}
"""Commands that run until they are ended, and what they have printed by then."""


def commands() -> list[list[str]]:
    """The arguments of every `.venv/bin/onward` in the README's shell blocks, in order."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words[1:] for words in lines if words and words[0] == ".venv/bin/onward"]


# ---------------------------------------------------------------------- commands


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[Appliance]:
    with Appliance(tmp_path / "appliance", nameserver="127.0.0.1:9", delivery_port=9) as running:
        yield running


def test_every_command_of_the_readme_works_in_the_order_in_which_it_stands(
    appliance: Appliance, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    environment = {**os.environ, "ONWARD_CONFIG": str(appliance.config)}
    told = commands()
    assert len(told) >= 8
    for arguments in told:
        stays_up = next((end for start, end in STAYS_UP.items() if " ".join(arguments).startswith(start)), None)
        if stays_up is not None:
            _begin_and_end(arguments, here, environment, stays_up)
            continue
        done = subprocess.run(
            [_ONWARD, *arguments], cwd=here, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"onward {' '.join(arguments)}: {done}"
        assert (done.stdout + done.stderr).strip(), f"onward {' '.join(arguments)} says nothing"
        assert "Traceback" not in done.stderr
    assert list(here.iterdir()) == [], "the commands left something where they were typed"
    # What was typed acts on the running appliance, as the README says.
    with appliance.client() as client:
        assert eventually(lambda: client.envelope("ann@sender.test", ["sales@example.org"])[-1].code == 250, 5)


def _begin_and_end(arguments: list[str], here: Path, environment: dict[str, str], until: str) -> None:
    """A command that goes on until it is ended: it must come to this, and then end on Ctrl-C."""
    out = here / "out"
    with out.open("wb") as writing:
        process = subprocess.Popen(
            [_ONWARD, *arguments],
            cwd=here,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        if until:
            eventually(lambda: until in out.read_text(encoding="utf-8"), _WITHIN, until)
        else:
            _is_connected(process.pid)
        assert process.poll() is None, out.read_text(encoding="utf-8")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=_WITHIN) in (0, 130)
        assert "Traceback" not in out.read_text(encoding="utf-8")
    finally:
        if process.poll() is None:
            process_tree.kill_tree(process.pid)
            process.wait()
        out.unlink()


def _is_connected(pid: int) -> None:
    """Wait until a process has a socket open: it has asked, and waits for what there is to tell."""

    def look() -> bool:
        links = []
        for each in Path(f"/proc/{pid}/fd").iterdir():
            try:
                links.append(os.readlink(each))
            except FileNotFoundError:
                continue  # closed meanwhile
        return any(link.startswith("socket:") for link in links)

    eventually(look, _WITHIN, "a connection")


# ---------------------------------------------------------------------- the README's promise


def test_the_readme_has_all_seven_promises_and_says_of_each_how_far_it_holds() -> None:
    promised = re.findall(r"^- \*\*(P[0-9]+) (.+?)\.\*\*", README, re.MULTILINE)
    assert promised == [(f"P{number}", words) for number, words in enumerate(PROMISES, start=1)]
    table = re.search(r"^\| promise \| today \|\n\|[-|]+\|\n((?:\|.*\|\n)+)", README, re.MULTILINE)
    assert table is not None
    rows = [row.split("|")[1:3] for row in table[1].splitlines()]
    assert [name for names, _ in rows for name in names.strip().split(", ")] == [name for name, _ in promised]
    assert all(today.strip() for _, today in rows)


# ---------------------------------------------------------------------- links, rooms, changes


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files_that_are_there(name: str) -> None:
    document = _ROOT / name
    targets = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    for target in targets:
        if "://" in target or target.startswith(("#", "mailto:")):
            continue
        path = (document.parent / target.partition("#")[0]).resolve()
        assert path.exists(), target
        assert path.is_relative_to(_ROOT), target


def test_the_documents_that_a_repository_has_are_there_and_lead_to_each_other() -> None:
    assert {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"} <= set(NAMES)
    assert (_ROOT / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")
    for name in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"):
        assert f"]({name})" in README


def test_the_plan_of_the_house_has_exactly_the_rooms_that_there_are() -> None:
    architecture = (_ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    block = re.search(r"^## Rooms\n+```\n(.*?)^```", architecture, re.MULTILINE | re.DOTALL)
    assert block is not None
    inside = re.search(r"^appliance/\n((?:  .*\n)+)", block[1], re.MULTILINE)
    assert inside is not None
    planned = [
        name
        for line in inside[1].splitlines()
        for name in re.split(r", ", re.split(r" {2,}", line.strip())[0])
        if not line.startswith("   ")
    ]
    appliance = _ROOT / "appliance"
    folders = {f"{path.parent.name}/" for path in appliance.glob("*/__init__.py")}
    modules = {path.name for path in appliance.glob("*.py") if not path.name.startswith("__")}
    assert sorted(planned) == sorted(folders | modules)
    for room in re.findall(r"^([a-z]+)/", block[1], re.MULTILINE):
        assert (_ROOT / room).is_dir(), room


def test_the_arrows_name_rooms_that_there_are() -> None:
    architecture = (_ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    block = re.search(r"^## Arrows\n.*?```\n(.*?)^```", architecture, re.MULTILINE | re.DOTALL)
    assert block is not None
    rooms = [re.split(r" {3,}", line.strip())[0] for line in block[1].splitlines()]
    for name in (name for line in rooms for name in re.split(r"[,|>\s]+", line) if name):
        path = name.replace(".", "/")
        places = [_ROOT / folder / path for folder in (".", "appliance", "graphql")]
        assert any(place.is_dir() or place.with_suffix(".py").is_file() for place in places), name


def test_the_changelog_has_a_place_for_what_is_not_released() -> None:
    headings = re.findall(r"^## (.+)$", (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"


# ---------------------------------------------------------------------- what no document may say


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_file_names_versions_and_hashes_and_no_place_to_get_them_from(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    options = [line.split()[0] for line in text.splitlines() if line.lstrip().startswith("-")]
    assert {option.partition(":")[0] for option in options} == {"--hash=sha256"}
    packages = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert packages
    for package in packages:
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==[^\s;]+", package), package
        assert "--hash=sha256:" in package


@pytest.mark.parametrize("name", [*NAMES, "Makefile", "pyproject.toml"])
def test_a_document_speaks_to_its_reader_and_not_of_where_it_was_written(name: str) -> None:
    text = (_ROOT / name).read_text(encoding="utf-8")
    for what, pattern in {
        "an issue by its number": r"(?i)\bissues? #?[0-9]+|(?<![\w&])#[0-9]+\b",
        "somebody's own folder": r"(?<![\w.:/])/(?:home|root|Users|tmp|work|mnt|opt)/",
        "a package registry's host": r"(?i)https?://[^\s)]*(?:pypi|pythonhosted|index|registry|mirror|/simple)",
    }.items():
        found = re.search(pattern, text)
        assert found is None, f"{name} names {what}: {found[0]!r}"
