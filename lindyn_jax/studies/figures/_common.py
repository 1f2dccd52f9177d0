"""What the figures share: how one is described, run, held against its paper, drawn and saved."""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ...ensemble import run_ensemble

Numbers = dict[str, Any]

# Where figures stand that no paper has.
OWN = "this package"


class Measured(NamedTuple):
    """What a figure found. **Fields:** `text`, one sentence; `numbers`, what it rests on, by name."""

    text: str
    numbers: Numbers


class Figure(NamedTuple):
    """One figure of a paper, or one of this package's own.

    **Fields:**

    - `source`: where it stands, such as "T21 Fig. 1".
    - `title`: what is drawn, in a few words.
    - `shows`: what the paper shows with it, in one sentence.
    - `compute`: function of `seed` and of the sizes, returning the data as an `xarray.Dataset`.
    - `measure`: function of that dataset, returning a `Measured`.
    - `draw`: function of a matplotlib figure and that dataset.
    - `full`, `quick`: sizes, keyword arguments of `compute`.
    - `size`: width and height of the picture in inches.
    """

    source: str
    title: str
    shows: str
    compute: Callable[..., Any]
    measure: Callable[[Any], Measured]
    draw: Callable[[Any, Any], None]
    full: Mapping[str, Any]
    quick: Mapping[str, Any]
    size: tuple[float, float] = (7.2, 3.2)


def ensemble(trial: Callable, grid: Mapping[str, Any], trials: int, seed: int, **options: Any):
    """`run_ensemble` with a seed for its key, and without the settings and environment that the figure records itself."""
    dataset = run_ensemble(trial, grid, trials, key=jax.random.key(seed), **options)
    return dataset.drop_attrs(deep=False)


def failures(dataset) -> tuple[int, int]:
    """How many runs of a figure's data failed, and how many there are: the entries of `ok`, and of `..._ok`."""
    flags = [dataset[name].values for name in dataset.data_vars if name == "ok" or name.endswith("_ok")]
    return sum(int(np.sum(~flag.astype(bool))) for flag in flags), sum(flag.size for flag in flags)


def blank(values, ok):
    """`values` where `ok`, NaN elsewhere; infinities of slots that were never reached become NaN as well."""
    return values.where(ok.astype(bool) & np.isfinite(values))


def crossings(times: np.ndarray, values: np.ndarray, level: float) -> np.ndarray:
    """When each curve falls below a level, interpolating its logarithm linearly; NaN if it never does.

    **Args:** `times`, shape (T,); `values`, shape (..., T), infinite or NaN where nothing is known.
    """
    below = values <= level
    index = np.argmax(below, axis=-1)
    found = below.any(axis=-1) & (index > 0)
    index = np.where(found, index, 1)
    before = np.take_along_axis(values, index[..., None] - 1, -1)[..., 0]
    after = np.take_along_axis(values, index[..., None], -1)[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        high, low = np.log(before), np.log(np.maximum(after, 1e-300))
        part = (high - math.log(level)) / (high - low)
    return np.where(found, times[index - 1] + (times[index] - times[index - 1]) * part, np.nan)


def mean_sd(values) -> tuple[float, float]:
    """Mean and standard deviation over trials, NaN left out."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return math.nan, math.nan
    return float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else math.nan


def band(values, axis: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """5%, 50% and 95% of the values along an axis, NaN left out; NaN where less than half of them are there."""
    values = np.asarray(values, float)
    low, middle, high = (np.full(np.delete(values.shape, axis), np.nan) for _ in range(3))
    there = np.isfinite(values).mean(axis=axis) > 0.5
    if there.any():
        kept = np.moveaxis(values, axis, 0)[:, there]
        for target, q in ((low, 0.05), (middle, 0.5), (high, 0.95)):
            target[there] = np.nanquantile(kept, q, axis=0)
    return low, middle, high


def listed(values, form: str = "{:.3g}") -> str:
    """Numbers with slashes between them."""
    return "/".join(form.format(float(value)) for value in values)


def spread(values, form: str = "{:.3g}") -> str:
    """`mean (sd)` of trials."""
    mean, sd = mean_sd(values)
    return form.format(mean) + (f" ({form.format(sd)})" if math.isfinite(sd) else "")


def write(dataset, path: str | os.PathLike) -> None:
    """Writes a figure's data as a Zarr store, in place of what was there."""
    dataset.to_zarr(path, mode="w", consolidated=False, zarr_format=2)
