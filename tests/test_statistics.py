"""Intervals and slopes."""

import numpy as np
import pytest
from scipy import stats

from lindyn_jax.statistics import mean_slope, wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (20, 20), (3, 7), (500, 1000)])
def test_wilson_interval_is_scipys(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    interval = wilson(successes, trials)
    assert interval.value == successes / trials
    np.testing.assert_allclose([interval.low, interval.high], [expected.low, expected.high], atol=1e-12)


def test_wilson_interval_of_no_trials_is_everything():
    interval = wilson(np.array([0]), np.array([0]))
    assert np.isnan(interval.value[0])
    assert (interval.low[0], interval.high[0]) == (0, 1)


def test_slope_of_a_power_law_is_its_exponent():
    x = np.log(np.logspace(2, 6, 5))
    interval = mean_slope(x, -0.5 * x[:, None] + np.array([[0.0, 1.0, 2.0]]))
    np.testing.assert_allclose(interval, [-0.5, -0.5, -0.5], atol=1e-12)


def test_slope_interval_covers_the_truth_at_its_level(rng):
    # 400 studies of 50 trials whose points share a common error: coverage within four standard errors of 95%.
    x = np.linspace(0, 3, 6)
    covered = 0
    for _ in range(400):
        y = 0.7 * x[:, None] + rng.normal(size=(1, 50)) + 0.3 * rng.normal(size=(6, 50))
        interval = mean_slope(x, y)
        covered += interval.low <= 0.7 <= interval.high
    assert abs(covered / 400 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 400)


def test_failed_trials_are_left_out_of_the_slope():
    x = np.array([0.0, 1.0])
    y = np.array([[0.0, 0.0], [1.0, np.nan]])
    assert mean_slope(x, y).value == 1
    assert mean_slope(x, y).high == np.inf
    assert np.isnan(mean_slope(x, y[:, 1:]).value)
    assert np.isnan(mean_slope(x[:1], y[:1]).value)
