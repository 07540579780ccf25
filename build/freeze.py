"""`make binary`: freeze the appliance into one file, dist/onward, the same octets for the same commit and machine.

The working files go to a temporary directory: PyInstaller's default is build/, which here is source.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FREEZE_S = 900
"""It takes a minute on two cores; beyond this it hangs."""

GIT_S = 10
"""Git reads one commit for this."""


def main() -> int:
    """Returns the exit status."""
    # Run as a script, this file's own folder is on the path, and the top of the repository is not.
    sys.path.insert(0, str(ROOT))
    from appliance.version import commit_of

    library = str(sysconfig.get_config_var("INSTSONAME"))
    try:
        ctypes.CDLL(library)
    except OSError:
        package = "libpython{}.{}".format(*sys.version_info)
        print(f"This Python has no shared library ({library}). On Debian: apt-get install {package}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="onward-freeze-") as directory:
        work = Path(directory)
        commit_file = work / "_commit"
        commit_file.write_text(commit_of(ROOT) or "")
        strip = shutil.which("strip") is not None
        if not strip:
            print("strip is missing, so the binary is larger. On Debian: apt-get install binutils", file=sys.stderr)
        environment = {
            **os.environ,
            # Reproducible: sets come in the same order, and every date in an archive is that of the commit.
            "PYTHONHASHSEED": "0",
            "SOURCE_DATE_EPOCH": _last_commit_at(),
            "PYINSTALLER_CONFIG_DIR": str(work / "cache"),
            "ONWARD_COMMIT_FILE": str(commit_file),
            "ONWARD_STRIP": "1" if strip else "0",
        }
        command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN"]
        command += ["--workpath", str(work / "work"), "--distpath", str(ROOT / "dist")]
        command.append(str(ROOT / "build" / "onward.spec"))
        status = subprocess.run(command, env=environment, cwd=ROOT, timeout=FREEZE_S, check=False).returncode
    binary = ROOT / "dist" / "onward"
    if status == 0:
        print(f"{binary.relative_to(ROOT)}: {binary.stat().st_size / (1 << 20):.1f} MiB")
    return status


def _last_commit_at() -> str:
    """When the last commit was made, in seconds; the epoch's first day in sources without git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "86400"
    return done.stdout.strip() or "86400"


if __name__ == "__main__":
    sys.exit(main())
