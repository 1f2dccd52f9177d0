"""Intervals and slopes."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lindyn_jax.statistics import (
    Interval,
    Moments,
    Values,
    frequency,
    half_width,
    mean_interval,
    mean_slope,
    merge,
    narrow_enough,
    rms_slope,
    standard_error,
    wilson,
)


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


@pytest.mark.parametrize(("successes", "trials"), [(0, 20), (20, 20), (3, 7), (1, 1), (500, 1000)])
def test_exact_interval_is_scipys(successes, trials):
    expected = stats.binomtest(successes, trials).proportion_ci(method="exact")
    interval = frequency(successes, trials)
    assert interval.value == successes / trials
    np.testing.assert_allclose([interval.low, interval.high], [expected.low, expected.high], rtol=1e-12)
    assert frequency(0, 0)[1:] == (0, 1) and np.isnan(frequency(0, 0).value)


TRIALS = (2, 3, 5, 10, 50)


@pytest.mark.parametrize("trials", [1, *TRIALS])
def test_frequency_intervals_cover_every_probability(trials):
    # Without simulation: the law of the number of successes is known.
    chances, held = np.linspace(0.0001, 0.9999, 9999), np.arange(trials + 1)
    law = stats.binom.pmf(held[:, None], trials, chances)

    def coverage(interval):
        return np.sum(law * ((interval.low[:, None] <= chances) & (chances <= interval.high[:, None])), axis=0)

    assert coverage(frequency(held, trials)).min() >= 0.95
    rough = coverage(wilson(held, trials))
    assert abs(rough.mean() - 0.95) < 0.01 and 0.79 < rough.min() < 0.86


STUDIES = 4000
# Four standard errors of a coverage: within .936 and .964.
NEAR = 4 * np.sqrt(0.95 * 0.05 / STUDIES)


def coverage(interval, truth):
    """Share of studies whose interval holds the truth."""
    return np.mean([bool(low <= truth <= high) for _, low, high in map(interval, range(STUDIES))])


@pytest.mark.parametrize("trials", TRIALS)
def test_slope_intervals_cover_the_truth_at_their_level(trials, rng):
    # Points of a trial share an error, and their own differs from point to point a hundredfold.
    x, sizes = np.linspace(0, 3, 6), np.geomspace(0.01, 1, 6)[:, None]
    y = 0.7 * x[:, None] + rng.normal(size=(STUDIES, 1, trials)) + sizes * rng.normal(size=(STUDIES, 6, trials))
    assert abs(coverage(lambda i: mean_slope(x, y[i]), 0.7) - 0.95) < NEAR


@pytest.mark.parametrize("trials", TRIALS)
def test_mean_intervals_of_moments_cover_the_truth_at_their_level(trials, rng):
    values = rng.normal(2.0, 3.0, size=(STUDIES, trials))
    moments = np.asarray(Moments("x").reduce(jnp.asarray(values), jnp.ones(trials, bool)))
    value, low, high = mean_interval(moments)
    assert abs(np.mean((low <= 2) & (high >= 2)) - 0.95) < NEAR
    np.testing.assert_allclose(standard_error(moments), stats.sem(values, axis=1), rtol=1e-9)
    np.testing.assert_allclose(
        (low, high), stats.t.interval(0.95, trials - 1, value, stats.sem(values, axis=1)), rtol=1e-9
    )


@pytest.mark.parametrize("trials", TRIALS)
def test_intervals_of_the_slope_of_a_root_mean_square_cover_the_truth(trials, rng):
    # Distances are norms of a few normal numbers; six in each trial of small studies, which share half of them.
    x = np.log([1e2, 1e3, 1e4])
    own, shared = rng.chisquare(3, size=(STUDIES, 3, trials)), rng.chisquare(3, size=(STUDIES, 1, trials))
    y = np.exp(-0.5 * x)[:, None] * np.sqrt(own + shared)
    assert abs(coverage(lambda i: rms_slope(x, y[i]), -0.5) - 0.95) < NEAR


def test_slope_of_a_root_mean_square_uses_the_trials_that_each_point_has(rng):
    x, y = np.log([1e2, 1e3, 1e4]), rng.uniform(1, 2, size=(3, 6))
    y[1, 2] = np.nan
    roots = np.log(np.sqrt(np.nanmean(y**2, axis=1)))
    assert np.isclose(rms_slope(x, y).value, np.polyfit(x, roots, 1)[0], rtol=1e-12)
    y[0, 1:] = np.nan
    assert rms_slope(x, y)[1:] == (-np.inf, np.inf)
    assert np.isnan(rms_slope(x[:1], y[:1])).all()


def test_one_trial_has_no_interval():
    x = np.array([0.0, 1.0])
    for interval in (
        mean_slope(x, x[:, None]),
        rms_slope(x, x[:, None] + 1),
        mean_interval(np.array([1.0, 3, 0, 3, 3])),
    ):
        assert np.isfinite(interval.value) and (interval.low, interval.high) == (-np.inf, np.inf)
    assert np.all(np.isinf(half_width(np.array([1.0, 0.0]), np.array([1, 0]))))


def test_stopping_at_a_narrow_interval_keeps_its_level(rng):
    # Looked at after every second trial: without a least number of them 90% hold the truth.
    values, covered = rng.normal(size=(STUDIES, 200)), 0
    counts = np.arange(2, 201, 2)
    means, squares = (np.cumsum(x, axis=1)[:, 1::2] / counts for x in (values, values**2))
    intervals = mean_interval(
        np.stack(np.broadcast_arrays(counts, means, (squares - means**2) * counts, 0, 0), axis=-1)
    )
    for looks in zip(*intervals, strict=True):
        for count, *look in zip(counts, *looks, strict=True):
            if narrow_enough([Interval(*look)], int(count), 1.0):
                break
        covered += bool(look[1] <= 0 <= look[2])
    # What is left of the bias of stopping is half a per cent.
    assert abs(covered / STUDIES - 0.95) < NEAR + 0.005


def test_failed_trials_are_left_out_of_the_slope():
    x = np.array([0.0, 1.0])
    y = np.array([[0.0, 0.0], [1.0, np.nan]])
    assert mean_slope(x, y).value == 1
    assert mean_slope(x, y).high == np.inf
    assert np.isnan(mean_slope(x, y[:, 1:]).value)
    assert np.isnan(mean_slope(x[:1], y[:1]).value)


def test_values_of_the_first_trials_are_kept_in_order_through_chunks_and_failures():
    kept = Values("x", most=6)
    rows = np.array([[1.0, np.nan, 3, 0], [5, 6, np.inf, 0], [7, 8, 9, 0]])
    merged = None
    for row in rows:
        part = np.asarray(kept({"x": jnp.asarray(row)[None], "ok": jnp.ones((1, 4), bool)}, jnp.arange(4) < 3))
        merged = part if merged is None else merge(kept.merging, merged, part)
    np.testing.assert_array_equal(merged, [[1, np.nan, 3, 5, 6, np.nan]])
    whole = kept({"x": jnp.asarray(rows[:, :3].reshape(1, 9)), "ok": jnp.ones((1, 9), bool)}, jnp.ones(9, bool))
    np.testing.assert_array_equal(whole, merged)
