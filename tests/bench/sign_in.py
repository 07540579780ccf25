"""Whether the time of an answer tells who has an account: signing in, signing up and asking for a new password.

Each is tried for an address that has an account and for one that has none, by turns, with real hashes, a real record
store and a client network of its own for each try, so that no limit is met. What is compared are the medians.

    python tests/bench/sign_in.py --tries 200

The aim is a difference of less than 5 per cent of the answer's time; the exit status says whether it is met. Asking for
a new password takes no hash, and a fraction of a millisecond here: its answer is counted with `REST_OF_ANSWER_S`. A
machine that does other things as well makes the medians of its wall clock wander; `--cpu` compares the work itself.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from argon2 import PasswordHasher
from argon2.profiles import RFC_9106_LOW_MEMORY
from entrance_hall import PASSWORD, Hall
from stored_values import a_keyring

from appliance.access.attempts import Limits
from appliance.access.clients import Client
from appliance.access.errands import ErrandThread
from appliance.model.refused import Refused
from appliance.storage.sqlite_records import SqliteRecords

AIM = 0.05
"""The difference of the medians, as a part of the greater one."""
REST_OF_ANSWER_S = 0.002
"""What HTTP and GraphQL add to an answer at least, without any network."""
NO_LIMITS = Limits(*[10**9] * 8)

Try = Callable[[str, Client], object]


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians in milliseconds."""

    what: str
    tries: int
    known_ms: float
    unknown_ms: float
    apart: float
    """As a part of the greater one, for the whole answer."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A hall whose errands are done by a thread, as in the appliance."""

    hall: Hall
    errands: ErrandThread
    tries: int
    networks: "count[int]"
    clock: Callable[[], float]
    """Seconds."""

    def measure(self, what: str, attempt: Try, rest_s: float = 0.0) -> Figures:
        """Try it by turns for addresses with an account and without one."""
        took: dict[str, list[float]] = {"known": [], "nobody": []}
        for number in range(self.tries):
            # Now the one first and now the other: what a try leaves behind in caches is then in neither's favour.
            for who in sorted(took, reverse=number % 2 == 0):
                # A /48 for each.
                client = Client(f"2001:db8:{next(self.networks):x}::1")
                begun = self.clock()
                with suppress(Refused):
                    attempt(f"{who}{number}@people.test", client)
                took[who].append(self.clock() - begun)
                self._rest()
        known_s, unknown_s = (statistics.median(each) for each in took.values())
        apart = abs(known_s - unknown_s) / (max(known_s, unknown_s) + rest_s)
        return Figures(what, self.tries, known_s * 1000, unknown_s * 1000, apart)

    def _rest(self) -> None:
        """Until the errands are done: what one try leaves behind must not slow the next."""
        done = threading.Event()
        self.errands.add(done.set)
        done.wait()


def measure_all(tries: int, clock: Callable[[], float], directory: Path) -> list[Figures]:
    """All three, over one store."""
    hasher = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
    records = SqliteRecords(directory / "records.sqlite", a_keyring())
    errands = ErrandThread()
    thread = threading.Thread(target=errands.run)
    thread.start()
    try:
        hall = Hall(records, NO_LIMITS, hasher, errands=errands)
        kept = hasher.hash(PASSWORD)
        for number in range(tries):
            hall.accounts.add(f"known{number}@people.test", password_hash=kept)
        bench = Bench(hall, errands, tries, count(), clock)
        sign_ups = hall.entrance.sign_ups
        return [
            bench.measure("signing in", lambda email, client: hall.sign_in(email, "wrong password", client)),
            bench.measure("signing up", lambda email, client: sign_ups.sign_up(email, PASSWORD, client)),
            bench.measure("a new password", sign_ups.request_password_reset, REST_OF_ANSWER_S),
        ]
    finally:
        errands.close()
        thread.join()
        records.close()


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--cpu", action="store_true", help="count the time of the processors, not that of the wall")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onward-bench-") as directory:
        clock = time.process_time if arguments.cpu else time.perf_counter
        measured = measure_all(arguments.tries, clock, Path(directory))
    if arguments.json:
        print(json.dumps([asdict(figures) for figures in measured], indent=2))
    else:
        print(f"medians of {arguments.tries} tries each; the aim is less than {AIM:.0%} apart\n")
        print(f"{'':16}{'known ms':>10}{'unknown ms':>12}{'apart':>8}")
        for each in measured:
            print(f"{each.what:16}{each.known_ms:10.3f}{each.unknown_ms:12.3f}{each.apart:8.1%}")
    if any(figures.apart >= AIM for figures in measured):
        sys.exit(1)


if __name__ == "__main__":
    main()
