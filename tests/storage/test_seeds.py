from __future__ import annotations

import hashlib

import numpy as np

from posesyn.storage.seeds import rng_of, seed_of


def test_a_seed_is_the_upper_63_bits_of_a_hash():
    assert seed_of(0, "a") == 7606779636460171844
    # Part of the promise that a run can be made again: by a second way, from the hexadecimal text.
    for run_seed, name in ((0, "a"), (7, "coco/1#2"), (-1, "ü")):
        text = hashlib.sha256(f"{run_seed}/{name}".encode()).hexdigest()
        assert seed_of(run_seed, name) == int(text[:16], 16) // 2 < 2**63


def test_every_name_and_run_has_its_own():
    seeds = {seed_of(run, f"person {row}") for run in range(10) for row in range(1000)}
    assert len(seeds) == 10_000
    assert len({seed % 2**31 for seed in seeds}) > 9_990, "the lower bits alone differ too"


def test_many_samples_never_share_a_seed_or_a_first_draw():
    """Of 32-bit seeds, about five pairs of so many would agree."""
    names = [f"text/{number}/a person walks" for number in range(200_000)]
    assert len({seed_of(0, name) for name in names}) == len(names)
    assert len({rng_of(0, name).random() for name in names}) == len(names)


def test_generators_start_from_the_seed():
    np.testing.assert_array_equal(rng_of(3, "x").random(4), np.random.default_rng(seed_of(3, "x")).random(4))
    assert rng_of(3, "x").random() != rng_of(3, "y").random()
