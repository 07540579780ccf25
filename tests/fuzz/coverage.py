"""A fuzzer led by coverage (atheris), for what strangers can send us. Its targets: `tests/support/smtp_fuzz.py`.

    make fuzz                                          the server, a million inputs
    .venv/bin/python tests/fuzz/coverage.py client -runs=100000
    .venv/bin/python tests/fuzz/coverage.py server crash-…      an input that it has kept, once more

The seeds are written to a folder of their own at the start; more arguments go to libFuzzer as they are. An input that
takes a tenth of a second or more counts as a failure, as an exception does.
"""

import sys
import tempfile
import time
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

with atheris.instrument_imports(include=["smtp"]):
    import smtp_fuzz

SLOWEST_S = 0.1


def main() -> None:
    """Fuzz the target that the first argument names."""
    targets = {target.__name__: (target, octets) for target, octets in smtp_fuzz.seeds().items()}
    if len(sys.argv) < 2 or sys.argv[1] not in targets:
        sys.exit(f"name what to fuzz: {', '.join(targets)}")
    target, corpus = targets[sys.argv.pop(1)]

    def once(octets: bytes) -> None:
        begun = time.process_time()
        target(octets)
        taken = time.process_time() - begun
        if taken >= SLOWEST_S:
            raise TimeoutError(f"{1000 * taken:.0f} ms")

    # libFuzzer ends the process without a word to Python, so that this folder stays; what is in it can be thrown away.
    folder = Path(tempfile.mkdtemp(prefix="onward-fuzz-"))
    for number, octets in enumerate(corpus):
        (folder / f"seed{number}").write_bytes(octets)
    given = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    atheris.Setup([*sys.argv, "-max_len=8000", f"-artifact_prefix={folder}/", *([] if given else [str(folder)])], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
