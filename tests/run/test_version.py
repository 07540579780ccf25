"""Version and commit: from the checkout at development time, from nowhere around an installed package."""

import re
import subprocess
from pathlib import Path

import pytest

from appliance import version


def git(checkout: Path, *command: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(checkout), *identity, *command], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_version_is_that_of_the_project() -> None:
    project = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    assert f'version = "{version.version()}"' in project


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert version.commit_of(tmp_path) is None
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-qm", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert re.fullmatch(r"[0-9a-f]{40}", head)
    assert version.commit_of(tmp_path) == head
    (tmp_path / "file").write_text("2")
    assert version.commit_of(tmp_path) == f"{head}-changed"


def test_a_repository_further_up_is_somebody_else_s(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "one", "--allow-empty")
    installed = tmp_path / "site-packages"
    installed.mkdir()
    assert version.commit_of(installed) is None


def test_an_embedded_commit_counts_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "_commit").write_text("0123abcd\n")
    monkeypatch.setattr(version, "_EMBEDDED", tmp_path / "_commit")
    assert version.commit() == "0123abcd"
