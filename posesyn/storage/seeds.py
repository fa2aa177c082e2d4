"""Random numbers of one named sample: decided by the run's seed and the sample's name, and by nothing else.

A counter, or one generator that is handed on, would give a sample other numbers as soon as another sample is skipped,
a run is continued or a second worker helps. So each sample asks here with a name of its own, and a folder made by four
workers holds the same bytes as one made by one. A name says what is drawn as well as for whom (``"render/person 7"``),
where one sample draws for two purposes: equal names give equal numbers.

The numbers of a name are part of what posesyn promises to keep from version to version.
"""

from __future__ import annotations

import hashlib

import numpy as np


def seed_of(run_seed: int, name: str) -> int:
    """Seed of one sample, in [0, 2**63): the upper 63 bits of SHA-256 over ``"run_seed/name"``.

    Two of a million names agree with a probability of 5e-8; with 32 bits a hundred thousand names would have one such
    pair on average. It fits the signed integers of a database and of torch. torch's generator on a CPU uses only the
    lower 32 bits of it: draw with :func:`rng_of` where many samples are made.

    Args:
        run_seed: Seed of the run.
        name: Name of the sample, the same in every run and worker.

    Returns:
        The seed.

    Example:
        >>> seed_of(0, "a") == seed_of(0, "a") != seed_of(1, "a")
        True
    """
    return int.from_bytes(hashlib.sha256(f"{run_seed}/{name}".encode()).digest()[:8], "big") >> 1


def rng_of(run_seed: int, name: str) -> np.random.Generator:
    """NumPy generator of one sample, started from all bits of :func:`seed_of`."""
    return np.random.default_rng(seed_of(run_seed, name))
