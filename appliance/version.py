"""Which Onward this is: the version, and the commit that it was made from where that can be known."""

import subprocess
from pathlib import Path

from appliance import __version__

_EMBEDDED = Path(__file__).with_name("_commit")
"""Written into the binary by build/freeze.py, and nowhere else."""
_GIT_S = 5.0
"""Git reads one file for this; where it takes longer, something is wrong that `onward version` need not wait for."""


def version() -> str:
    """The version, such as `0.1.0`."""
    return __version__


def commit() -> str | None:
    """The commit as git names it: the one embedded when frozen, else that of the checkout; None where there is none."""
    try:
        return _EMBEDDED.read_text("ascii").strip() or None
    except FileNotFoundError:
        return commit_of(Path(__file__).resolve().parents[1])


def commit_of(checkout: Path) -> str | None:
    """What this checkout has as its head; with `-changed` behind it where files differ from it."""
    # Without this look, git would search upwards and find somebody else's repository around an installed package.
    if not (checkout / ".git").exists():
        return None
    described = ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=-changed"]
    try:
        done = subprocess.run(described, capture_output=True, text=True, timeout=_GIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
