"""Mutated conversations: nothing raises, nothing is slow, nobody sees a traceback.

The quick run is a sample; `make test-long` does ONWARD_FUZZ inputs (a million) and prints what it took. For a fuzzer
that is led by coverage, see `tests/fuzz/coverage.py`.
"""

import os
import random
import time

import pytest
from smtp_fuzz import Target, mutants, seeds

SLOWEST_S = 0.1
"""No single input may take longer."""

SEEDS = seeds()
SHARES = {"server": 0.6, "client": 0.15, "address": 0.15, "proxy": 0.1}


def fuzz(target: Target, inputs: int, seed: int) -> tuple[float, bytes]:
    """Run so many inputs; gives the longest time that one took, in seconds, and which that was."""
    generator = random.Random(seed)
    slowest, worst = 0.0, b""
    for number in range(inputs):
        octets = mutants(SEEDS[target], generator)
        begun = time.perf_counter()
        try:
            target(octets)
        except Exception as error:
            raise AssertionError(f"input {number} of seed {seed}: {octets!r}") from error
        taken = time.perf_counter() - begun
        if taken > SLOWEST_S / 20:
            # The machine may have been busy with something else, or with garbage: only what is slow again is slow.
            begun = time.perf_counter()
            target(octets)
            taken = min(taken, time.perf_counter() - begun)
        if taken > slowest:
            slowest, worst = taken, octets
    return slowest, worst


@pytest.mark.parametrize("target", SEEDS, ids=lambda target: target.__name__)
def test_seeds_and_a_sample_of_mutants(target: Target) -> None:
    for octets in SEEDS[target]:
        target(octets)
    slowest, worst = fuzz(target, 2000, seed=1)
    assert slowest < SLOWEST_S, worst


@pytest.mark.long
def test_a_million_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    inputs = int(os.environ.get("ONWARD_FUZZ", "1000000"))
    seed = int(os.environ.get("ONWARD_SEED", "20"))
    for target in SEEDS:
        count = int(inputs * SHARES[target.__name__])
        begun = time.perf_counter()
        slowest, worst = fuzz(target, count, seed)
        with capsys.disabled():
            took = f"{time.perf_counter() - begun:.0f} s, the slowest {1000 * slowest:.1f} ms"
            print(f"\n{target.__name__}: {count} inputs in {took}, none failed")
        assert slowest < SLOWEST_S, worst
