"""Intervals and slopes for Monte Carlo summaries, and reductions: what is kept of a chunk of trials when trials are not.

A reduction turns the outputs of one chunk into a few numbers on the device. The numbers of all chunks are merged on the
host in the order of the chunks, so the result does not depend on which device or process computed which chunk.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Real, Shaped

from . import _checks

Z95 = 1.959963984540054
# Below it an interval can be narrow by chance: stopping at the first narrow one then covers 87%, not 95%.
LEAST_TO_STOP = 30
QUANTILES = (("median", 0.5), ("q95", 0.95))
MOMENTS = ("count", "mean", "sum_of_squared_deviations", "minimum", "maximum")

Source = str | Callable[[Mapping[str, Array]], Array]


class Interval(NamedTuple):
    """An estimate with a 95% interval, infinitely wide where the trials say nothing of their spread."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def wilson(successes: Real[ArrayLike, "..."], trials: Real[ArrayLike, "..."]) -> Interval:
    """Frequency of an event with its Wilson 95% score interval; all of [0, 1] where there are no trials.

    **Args:** `successes` and `trials`, counts of one shape.

    **Notes:** covers 95% on average over the probabilities, and as little as 83% of those near 0 and 1: what this package prints
    is `frequency`.

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


def frequency(successes: Real[ArrayLike, "..."], trials: Real[ArrayLike, "..."]) -> Interval:
    """Frequency of an event with its exact 95% interval; all of [0, 1] where there are no trials.

    Whatever the probability and the number of trials, at least 95% of such intervals hold it.

    **Args:** `successes` and `trials`, counts of one shape.

    **Source:** Clopper and Pearson (1934).
    """
    from scipy.special import betaincinv

    successes, trials = np.asarray(successes, float), np.asarray(trials, float)
    failures = trials - successes
    low = np.where(successes > 0, betaincinv(np.maximum(successes, 1), failures + 1, 0.025), 0.0)
    high = np.where(failures > 0, betaincinv(successes + 1, np.maximum(failures, 1), 0.975), 1.0)
    return Interval(np.where(trials > 0, successes / np.maximum(trials, 1), np.nan), low, high)


def half_width(error: Real[ArrayLike, "..."], count: Real[ArrayLike, "..."]) -> np.ndarray:
    """Half of a 95% interval: the standard error times Student's quantile; infinite with fewer than two trials.

    **Args:** `error`, the standard error estimated from the trials themselves; `count`, of the trials.

    **Source:** Student (1908). The normal quantile in its place covers .70/.81/.88/.92 at 2/3/5/10 trials.
    """
    from scipy.special import stdtrit

    freedom = np.asarray(count, float) - 1
    return np.where(freedom > 0, stdtrit(np.maximum(freedom, 1), 0.975) * np.asarray(error, float), np.inf)


def narrow_enough(intervals: Sequence[Interval], count: int, precision: float) -> bool:
    """Whether a study may stop: every interval is narrower than `precision`, and rests on 30 trials at least.

    **Args:** `intervals`; `count`, of the trials behind them; `precision`, a width.
    """
    widths = [np.max(interval.high - interval.low) for interval in intervals]
    return count >= LEAST_TO_STOP and bool(np.max(widths) < precision)


def mean_slope(x: np.ndarray, y: np.ndarray) -> Interval:
    """Least-squares slope of y against x, averaged over trials, with a 95% interval from the spread between trials.

    Trials are independent, points of one trial need not be: sharing random numbers across x does not spoil the interval, nor do
    variances that differ between x.

    **Args:** `x`, shape (k,); `y`, shape (k, trials); trials with a value that is not finite are left out.

    **Returns:** an `Interval`, NaN with fewer than two points or no trial, infinitely wide with one trial, which has none.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    y = y[:, np.all(np.isfinite(y), axis=0)]
    if x.size < 2 or y.shape[1] == 0:
        return Interval(*np.full(3, np.nan))
    centred = x - x.mean()
    slopes = centred @ y / (centred @ centred)
    value, count = slopes.mean(), slopes.size
    half = half_width(slopes.std(ddof=min(count - 1, 1)) / math.sqrt(count), count)
    return Interval(value, value - half, value + half)


def rms_slope(x: np.ndarray, y: np.ndarray) -> Interval:
    """Least-squares slope against x of log sqrt(mean over trials of y^2), with a 95% interval by the jackknife.

    **Args:** `x`, shape (k,); `y`, shape (k, trials), NaN where a trial has no value: that point has a trial less.

    **Returns:** an `Interval`, NaN with fewer than two points or one without a positive mean, infinitely wide where a point has
    one trial.

    **Source:** Quenouille, Tukey: the standard error of what a trial left out changes. It covers 93% to 97% from 2 trials on
    where the linear form covers down to 88%, of the squares of normal numbers.
    """
    x, squares = np.asarray(x, float), np.asarray(y, float) ** 2
    there = np.isfinite(squares)
    squares, count = np.where(there, squares, 0), there.sum(axis=1)
    total = squares.sum(axis=1)
    if x.size < 2 or not np.all(total > 0):
        return Interval(*np.full(3, np.nan))
    centred = x - x.mean()
    weights = centred / (centred @ centred) / 2
    value, least = weights @ np.log(total / count), count.min()
    if least < 2:
        low, high = np.array([-np.inf, np.inf])
        return Interval(value, low, high)
    used = there.any(axis=0)
    # What is left of a point when its largest square goes can be zero to round-off.
    rest = np.maximum(total[:, None] - squares, np.finfo(float).tiny) / (count[:, None] - there)
    without = (weights @ np.log(rest))[used]
    half = half_width(math.sqrt((without.size - 1) * without.var()), least)
    return Interval(value, value - half, value + half)


def named(name: str, interval: Interval) -> dict[str, np.ndarray]:
    """An interval as `NAME`, `NAME_low` and `NAME_high`."""
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))


class AbstractReduction(eqx.Module):
    """What is kept of one number a trial: an array over (grid..., extra) for each chunk, and how chunks are merged.

    **Fields:** `of`, the name of an output of the trial, or a function of the dictionary of all outputs, each of shape
    (grid..., trials), whose result has the trials as its last axis; `dims`, the names of the axes before it where they are not
    those of the grid.
    """

    of: eqx.AbstractVar[Source]
    dims: eqx.AbstractVar[tuple[str, ...] | None]

    @property
    def output(self) -> str | None:
        """The name of the output that it is of, or `None` for a function of all of them."""
        return self.of if _checks.is_name(self.of) else None

    @property
    @abstractmethod
    def merging(self) -> str:
        """`"sum"`, `"first"` come, or `"moments"` by the pairwise formula of Chan, Golub and LeVeque."""

    @abstractmethod
    def extra(self, name: str) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
        """Names and lengths of the axes after those of the grid, and the attributes that say what they mean."""

    @abstractmethod
    def reduce(self, values: Shaped[Array, "*points trials"], present: Bool[Array, " trials"]) -> Array:
        """One chunk's values, trials last, as an array; `present` is false for padding."""

    def interval(self, merged: np.ndarray, count: int) -> Interval | None:
        """What merged values estimate, with its interval, after `count` trials; `None` where they estimate no single number."""

    def statistics(self, name: str, merged: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """What a summary says of the reduction `name` among all those merged of `count` trials; by default nothing."""
        return {}

    def __call__(self, outputs: Mapping[str, Array], present: Bool[Array, " trials"]) -> Array:
        """Reduces the outputs of one chunk, each of shape (grid..., trials).

        **Raises:** `ValueError` for an output that is not one number a trial.
        """
        of: Any = self.of
        values = of(outputs) if self.output is None else outputs[self.output]
        axes = values.ndim - outputs["ok"].ndim
        if self.output is not None and axes:
            raise ValueError(
                f"A reduction needs one number a trial, but output `{self.output}` has {axes} axes: pass a function that makes "
                "one of it."
            )
        return self.reduce(values, present)


class Count(AbstractReduction):
    """How many trials have an event: the number of true values, of failed trials as well."""

    of: Source
    dims: tuple[str, ...] | None = None

    @property
    def merging(self) -> str:
        return "sum"

    def extra(self, name: str) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
        return (), (), {}

    def reduce(self, values: Shaped[Array, "*points trials"], present: Bool[Array, " trials"]) -> Array:
        return jnp.sum(values & present, axis=-1, dtype=jnp.int32)

    def interval(self, merged: np.ndarray, count: int) -> Interval:
        return frequency(merged, np.full(merged.shape, count))

    def statistics(self, name: str, merged: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """The frequency with its exact interval; over axes other than those of the grid the count itself."""
        return named(name, self.interval(merged[name], count)) if self.dims is None else {name: merged[name]}


class Moments(AbstractReduction):
    """Count, mean, sum of squared deviations from the mean, minimum and maximum of the finite values."""

    of: Source
    dims: tuple[str, ...] | None = None

    @property
    def merging(self) -> str:
        return "moments"

    def extra(self, name: str) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
        return ("moment",), (len(MOMENTS),), {"moments": list(MOMENTS)}

    def reduce(self, values: Shaped[Array, "*points trials"], present: Bool[Array, " trials"]) -> Array:
        used = present & jnp.isfinite(values)
        count = jnp.sum(used, axis=-1, dtype=values.dtype)
        mean = jnp.sum(jnp.where(used, values, 0), axis=-1) / jnp.maximum(count, 1)
        # Two passes: the sum of squares less the squared sum would lose the digits of a narrow law.
        spread = jnp.sum(jnp.where(used, (values - mean[..., None]) ** 2, 0), axis=-1)
        low = jnp.min(jnp.where(used, values, jnp.inf), axis=-1)
        high = jnp.max(jnp.where(used, values, -jnp.inf), axis=-1)
        return jnp.stack([count, mean, spread, low, high], axis=-1)

    def interval(self, merged: np.ndarray, count: int) -> Interval:
        return mean_interval(merged)

    def statistics(self, name: str, merged: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """Of `x_moments`: `x_mean` with its interval, and `x_max`."""
        base = name.removesuffix("_moments")
        return {**named(f"{base}_mean", mean_interval(merged[name])), f"{base}_max": merged[name][..., 4]}


class Histogram(AbstractReduction):
    """Counts of the finite values in bins of equal ratio from `low` to `high`, a sketch of every quantile.

    The first bin holds what is below `low`, zero and negative values among it, and the last what is at or above `high`.
    A quantile read from it is off by at most one bin: by a factor `(high/low)^(1/bins)`.
    """

    of: Source
    low: float
    high: float
    bins: int
    dims: tuple[str, ...] | None = None

    @property
    def merging(self) -> str:
        return "sum"

    def extra(self, name: str) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
        return (f"{name}_bin",), (self.bins + 2,), {"low": self.low, "high": self.high, "spacing": "equal ratios"}

    def reduce(self, values: Shaped[Array, "*points trials"], present: Bool[Array, " trials"]) -> Array:
        used = present & jnp.isfinite(values)
        positive = used & (values > 0)
        scale = self.bins / math.log(self.high / self.low)
        place = jnp.log(jnp.where(positive, values, self.low) / self.low) * scale
        bins = jnp.where(positive, jnp.clip(jnp.floor(place) + 1, 0, self.bins + 1), 0).astype(jnp.int32)
        rows = values.size // values.shape[-1]
        start = (jnp.arange(rows, dtype=jnp.int32) * (self.bins + 2)).reshape(*values.shape[:-1], 1)
        counts = jnp.zeros(rows * (self.bins + 2), jnp.int32).at[(start + bins).ravel()].add(used.ravel())
        return counts.reshape(*values.shape[:-1], self.bins + 2)

    def statistics(self, name: str, merged: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """Of `x_histogram`, with `x_moments` beside it: `x_median` and `x_q95`."""
        base = name.removesuffix("_histogram")
        read = (merged[name], self.low, self.high), merged[f"{base}_moments"]
        return {f"{base}_{word}": histogram_quantile(*read[0], q, read[1]) for word, q in QUANTILES}


class Values(AbstractReduction):
    """The values of the first trials, `most` at most, in their order: whatever is to be known of a study of so few.

    NaN where a trial failed or its value is not finite, infinity in all places after the last trial.
    """

    of: Source
    most: int = 1000
    dims: tuple[str, ...] | None = None

    @property
    def merging(self) -> str:
        return "first"

    def extra(self, name: str) -> tuple[tuple[str, ...], tuple[int, ...], dict[str, Any]]:
        return (f"{name}_trial",), (self.most,), {}

    def reduce(self, values: Shaped[Array, "*points trials"], present: Bool[Array, " trials"]) -> Array:
        # What is present comes first: padding follows it.
        values = jnp.where(present, jnp.where(jnp.isfinite(values), values, jnp.nan), jnp.inf)[..., : self.most]
        rest = jnp.full((*values.shape[:-1], self.most - values.shape[-1]), jnp.inf, values.dtype)
        return jnp.concatenate([values, rest], axis=-1)


def merge(merging: str, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two reductions of disjoint sets of trials as that of their union, in 64 bits.

    **Args:** `merging`, as the reduction names it; `first` and `second`, arrays of one shape.

    **Source:** Chan, Golub, LeVeque (1983) for the moments.
    """
    if merging == "sum":
        return np.asarray(first, np.int64) + np.asarray(second, np.int64)
    first, second = np.asarray(first, float), np.asarray(second, float)
    if merging == "first":
        there = int(np.sum(~np.isposinf(first.reshape(-1, first.shape[-1])[0])))
        return np.concatenate([first[..., :there], second], axis=-1)[..., : first.shape[-1]]
    (a, mean_a, spread_a, low_a, high_a), (b, mean_b, spread_b, low_b, high_b) = (
        np.moveaxis(x, -1, 0) for x in (first, second)
    )
    count = a + b
    share = b / np.maximum(count, 1)
    apart = mean_b - mean_a
    parts = (
        count,
        mean_a + share * apart,
        spread_a + spread_b + apart**2 * a * share,
        np.minimum(low_a, low_b),
        np.maximum(high_a, high_b),
    )
    return np.stack(parts, axis=-1)


def standard_error(moments: np.ndarray) -> np.ndarray:
    """The standard error of the mean of merged `Moments`, shape (..., 5); infinite with fewer than two trials."""
    count, _, spread = (np.asarray(moments, float)[..., i] for i in range(3))
    return np.where(count > 1, np.sqrt(spread / np.maximum(count - 1, 1) / np.maximum(count, 1)), np.inf)


def mean_interval(moments: np.ndarray) -> Interval:
    """The mean with its 95% interval from the spread between trials, of merged `Moments`.

    **Args:** `moments`, shape (..., 5). Without trials the mean is NaN; with one the interval is infinite.
    """
    count, mean = (np.asarray(moments, float)[..., i] for i in range(2))
    half = half_width(standard_error(moments), count)
    mean = np.where(count > 0, mean, np.nan)
    return Interval(mean, mean - half, mean + half)


def histogram_quantile(counts: np.ndarray, low: float, high: float, q: float, moments: np.ndarray) -> np.ndarray:
    """The q-quantile read from merged `Histogram` counts, geometric within a bin; NaN without trials.

    **Args:** `counts`, shape (..., bins + 2); `low`, `high`, of the histogram; `q` in [0, 1]; `moments` of the same values,
    shape (..., 5): quantiles outside [low, high) are given as the minimum or the maximum, and none leaves that range.
    """
    counts, moments = np.asarray(counts), np.asarray(moments, float)
    bins = counts.shape[-1] - 2
    below = np.cumsum(counts, axis=-1)
    total = below[..., -1]
    rank = np.maximum(q * total, 0.5)[..., None]
    index = np.minimum(np.sum(below < rank, axis=-1, keepdims=True), bins + 1)
    inside = np.take_along_axis(counts, index, axis=-1)
    before = np.take_along_axis(below, index, axis=-1) - inside
    step = index - 1 + (rank - before) / np.maximum(inside, 1)
    value = (low * (high / low) ** (step / bins))[..., 0]
    least, most = moments[..., 3], moments[..., 4]
    index = index[..., 0]
    value = np.where(index == 0, least, np.where(index == bins + 1, most, np.clip(value, least, most)))
    return np.where(total > 0, value, np.nan)
