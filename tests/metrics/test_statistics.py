from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from posesyn.errors import InputError
from posesyn.metrics import bootstrap_mean, paired_difference


def test_the_interval_of_independent_values_is_scipys(rng):
    values = rng.gamma(3, 20, 150)
    ours = bootstrap_mean(values, range(150), resamples=5000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", random_state=1)
    assert ours.mean == pytest.approx(values.mean())
    np.testing.assert_allclose(ours[1:], theirs.confidence_interval, rtol=0.02)
    assert bootstrap_mean(values, range(150), seed=3) == bootstrap_mean(values, range(150), seed=3)


def test_persons_of_one_video_do_not_make_it_surer(rng):
    """A hundred copies of ten values are ten values."""
    few = rng.normal(80, 10, 10)
    many, groups = np.repeat(few, 100), np.repeat(np.arange(10), 100)
    clustered = bootstrap_mean(many, groups.tolist())
    plain = bootstrap_mean(few, range(10))
    assert clustered == pytest.approx(plain)
    naive = bootstrap_mean(many, range(1000))
    assert clustered.high - clustered.low > 5 * (naive.high - naive.low)


@pytest.mark.parametrize("groups", [6, 10])
def test_the_exact_test_is_scipys_permutation_test(rng, groups):
    first = rng.normal(80, 10, groups)
    second = first - rng.normal(3, 4, groups)
    found = paired_difference(first, second, range(groups))
    theirs = stats.permutation_test(
        (second, first), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert found.p_value == pytest.approx(theirs.pvalue) and found.mean == pytest.approx((second - first).mean())
    assert found.low <= found.mean <= found.high and found.sequences == groups


def test_random_patterns_for_many_sequences(rng):
    first = rng.normal(80, 10, 400)
    groups = np.repeat(np.arange(40), 10)
    better = paired_difference(first, first - 2 + rng.normal(0, 1, 400), groups.tolist())
    assert better.p_value < 0.01 and better.high < 0
    nothing = paired_difference(first, first + rng.normal(0, 1, 400), groups.tolist())
    assert nothing.p_value > 0.05 and nothing.low < 0 < nothing.high
    assert paired_difference(first, first, groups.tolist()).p_value == 1


def test_bad_input(rng):
    for values, groups, options in (
        ([], [], {}),
        ([1.0, 2.0], ["a"], {}),
        ([1.0, np.nan], ["a", "b"], {}),
        ([1.0], ["a"], {"level": 1.0}),
        ([1.0], ["a"], {"resamples": 0}),
    ):
        with pytest.raises(InputError):
            bootstrap_mean(np.array(values), groups, **options)
    with pytest.raises(InputError, match="equal shapes"):
        paired_difference(np.zeros(3), np.zeros(4), "abc")
