"""Intervals and slopes for Monte Carlo summaries."""

import math
from typing import NamedTuple

import numpy as np

Z95 = 1.959963984540054


class Interval(NamedTuple):
    """An estimate with a 95% interval."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def wilson(successes: np.ndarray, trials: np.ndarray) -> Interval:
    """Frequency of an event with its Wilson 95% score interval; all of [0, 1] where there are no trials.

    **Args:** `successes` and `trials`, counts of one shape.

    **Source:** Wilson (1927).
    """
    successes, trials = np.asarray(successes, float), np.asarray(trials, float)
    some = np.maximum(trials, 1)
    frequency = np.where(trials > 0, successes / some, np.nan)
    p = np.where(trials > 0, frequency, 0.5)
    centre = (p + Z95**2 / (2 * some)) / (1 + Z95**2 / some)
    half = Z95 * np.sqrt(p * (1 - p) / some + Z95**2 / (4 * some**2)) / (1 + Z95**2 / some)
    low, high = np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)
    # At 0 and 1 the interval ends there exactly; round-off must not move it.
    low, high = np.where(successes == 0, 0.0, low), np.where((successes == trials), 1.0, high)
    return Interval(frequency, np.where(trials > 0, low, 0.0), np.where(trials > 0, high, 1.0))


def mean_slope(x: np.ndarray, y: np.ndarray) -> Interval:
    """Least-squares slope of y against x, averaged over trials, with a 95% interval from the spread between trials.

    Trials are independent, points of one trial need not be: sharing random numbers across x does not spoil the interval.

    **Args:** `x`, shape (k,); `y`, shape (k, trials); trials with a value that is not finite are left out.

    **Returns:** an `Interval`, NaN with fewer than two points or no trial, infinitely wide with one trial.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    y = y[:, np.all(np.isfinite(y), axis=0)]
    if x.size < 2 or y.shape[1] == 0:
        return Interval(*(np.float64(np.nan),) * 3)
    centred = x - x.mean()
    slopes = centred @ y / (centred @ centred)
    value, count = slopes.mean(), slopes.size
    half = Z95 * slopes.std(ddof=1) / math.sqrt(count) if count > 1 else math.inf
    return Interval(value, value - half, value + half)
