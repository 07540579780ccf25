"""One of several processes that change the same few records at random, alone and in batches, and say what came of it.

`python records_crowd.py URL SEED ABANDONED_MS` goes on until it is killed. It prints a line before each change and one
behind it: as JSON, a `Told`. Imported, it is how a test reads them.
"""

import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from stored_values import a_keyring, a_row, an_id

from appliance.privacy.declarations import ACCOUNTS, ALIASES
from appliance.storage.mongo_records import MongoRecords
from appliance.storage.records import Change, Delete, Insert, Raise, RecordStore, StoreUnavailable, Update

ROWS = (1, 2, 3, 4)
"""The numbers of the accounts."""


@dataclass(frozen=True, slots=True)
class Told:
    """One change, before it is made or when it is answered."""

    name: str
    """Different for each."""
    rows: tuple[int, ...]
    """The accounts that it is about."""
    gone: str = ""
    """Which pair of aliases it erases."""
    adds: bool = False
    """It adds a pair of aliases that has its name."""
    at: int = 0
    """Nanoseconds by a clock that all processes have."""
    touched: tuple[int, ...] | None = None
    """What has been answered."""


def read(line: str) -> Told:
    """What a line says."""
    said = json.loads(line)
    touched = said.pop("touched")
    return Told(**said | {"rows": tuple(said["rows"]), "touched": None if touched is None else tuple(touched)})


def _pair(name: str) -> list[Change]:
    return [
        Insert(
            ALIASES,
            a_row(ALIASES) | {"id": f"{name} {one}", "domain_id": name, "pattern": one, "reference": f"{name} {one}"},
        )
        for one in ("a", "b")
    ]


def _drawn(records: RecordStore, name: str, chance: random.Random) -> tuple[Told, Sequence[Change]]:
    one, other = chance.sample(ROWS, 2)
    pairs = [str(value) for value in records.distinct(ALIASES, "domain_id", {})]
    old = chance.choice(pairs) if pairs else ""
    marks: list[Change] = [Update(ACCOUNTS, {"id": an_id(each)}, {"plan": name}) for each in (one, other)]
    match chance.choice(("count", "count", "mark", "mark one", "mark, and all", "add", "replace", "erase")):
        case "count":
            found = records.get(ACCOUNTS, {"id": an_id(one)}) or {}
            number = found["created_at"]
            assert isinstance(number, int)
            counted = Update(ACCOUNTS, {"id": an_id(one), "created_at": number}, {"created_at": number + 1})
            return Told(f"count {name}", (one,)), [counted]
        case "mark":
            return Told(name, (one, other)), [*marks, Raise("routing")]
        case "mark one":
            return Told(name, (one,)), marks[:1]
        case "mark, and all":
            # By its condition, and behind what may be a duplicate.
            everybody = Update(ACCOUNTS, {"role": "crowd"}, {"password_hash": name})
            unique = Update(ACCOUNTS, {"id": an_id(one)}, {"email": f"{one} {name}"})
            return Told(name, (one, other)), [unique, *marks, everybody]
        case "erase" if old:
            return Told(name, (), gone=old), [Delete(ALIASES, {"domain_id": old})]
        case "replace" if old:
            return Told(name, (), gone=old, adds=True), [Delete(ALIASES, {"domain_id": old}), *_pair(name)]
    return Told(name, (), adds=True), _pair(name)


def _say(told: Told, touched: Sequence[int] | None) -> None:
    said = asdict(told) | {"at": time.monotonic_ns(), "touched": touched}
    print(json.dumps(said), flush=True)


def _main(url: str, seed: str, abandoned_ms: str) -> None:
    chance = random.Random(int(seed))
    while True:
        try:
            records = MongoRecords(url, a_keyring(), abandoned_ms=int(abandoned_ms))
            break
        except StoreUnavailable:
            pass
    number = 0
    while True:
        number += 1
        try:
            records.generation("routing")
            told, changes = _drawn(records, f"{seed}.{number}", chance)
            _say(told, None)
            _say(told, records.apply(changes))
        except StoreUnavailable:
            pass


if __name__ == "__main__":
    _main(*sys.argv[1:])
