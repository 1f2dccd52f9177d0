"""What the figures share: how one is described, run, held against its paper, drawn and saved."""

import contextlib
import contextvars
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ..descent import gradient_descent, plain_descent
from ..ensemble import Progress, run_ensemble, save_dataset
from ..plots import ribbon

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
    - `shows`: what the paper shows with it, in one sentence, and nothing that comes from elsewhere.
    - `compute`: function of `seed` and of the sizes, returning the data as an `xarray.Dataset`.
    - `measure`: function of that dataset, returning a `Measured`.
    - `draw`: function of a matplotlib figure and that dataset.
    - `full`, `quick`: sizes, keyword arguments of `compute`.
    - `size`: width and height of the picture in inches.
    - `reference`: what an independent computation found, on draws or data of its own; empty where there is none.
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
    reference: str = ""


# Not an argument of a figure's `compute`, whose arguments are what its data depend on.
_PROGRESS: contextvars.ContextVar[Progress | None] = contextvars.ContextVar("progress", default=None)


@contextlib.contextmanager
def reporting(progress: Progress | None) -> Iterator[None]:
    """Inside it, ensembles tell `progress` how far they are: (trials done, trials in all), from (0, all) on for each."""
    token = _PROGRESS.set(progress)
    try:
        yield
    finally:
        _PROGRESS.reset(token)


def reporter() -> Progress | None:
    """The `progress` of the innermost `reporting`, for studies that run their ensembles themselves."""
    return _PROGRESS.get()


def ensemble(trial: Callable, grid: Mapping[str, Any], trials: int, seed: int, **options: Any):
    """`run_ensemble` with a seed for its key, and without the settings and environment that the figure records itself."""
    if reporter() is not None:
        # A tenth of the trials at a time: no bit of a trial depends on it.
        options = {"progress": reporter(), "largest_chunk": -(-trials // 10), **options}
    dataset = run_ensemble(trial, grid, trials, key=jax.random.key(seed), **options)
    return dataset.drop_attrs(deep=False)


def descend(start, problem, numbers, step, watched, *, stop=None):
    """Plain descent to the last of these step numbers, where it is watched, or to the stop within a number of steps."""
    save_at = {"save_at": numbers} if np.ndim(numbers) else {}
    options = {"observables": watched, "stop": stop, "differentiate": "forward", **save_at}
    return gradient_descent(start, problem, int(np.max(numbers)), optimizer=plain_descent(step), **options)


def finite(value: Any) -> Any:
    """Numbers within lists, tuples and dictionaries, `None` in place of those that JSON does not have."""
    return json.loads(json.dumps(value), parse_constant=lambda constant: None)


def failures(dataset) -> tuple[int, int]:
    """How many runs of a figure's data failed, and how many there are: the entries of `ok`, and of `..._ok`."""
    flags = [dataset[name].values for name in dataset.data_vars if name == "ok" or name.endswith("_ok")]
    return sum(int(np.sum(~flag.astype(bool))) for flag in flags), sum(flag.size for flag in flags)


def blank(values, ok):
    """`values` where `ok`, NaN elsewhere; infinities of slots that were never reached become NaN as well."""
    return values.where(ok.astype(bool) & np.isfinite(values))


def kept(dataset, name: str, *dims, ok: str = "ok") -> np.ndarray:
    """The values of one variable in this order of dimensions, with `blank`."""
    return blank(dataset[name], dataset[ok]).transpose(*dims).values


def named(dataset, **texts: str):
    """The dataset, of whose variables and coordinates `texts` say what they are."""
    for name, text in texts.items():
        dataset[name].attrs = {"long_name": text}
    return dataset


def crossings(times: np.ndarray, values: np.ndarray, level: float) -> np.ndarray:
    """When each curve first falls to a level, interpolating its logarithm linearly.

    The first time, if it is below from there on; infinity if it is above at every time; NaN if it is above wherever it is
    known, and not known everywhere.

    **Args:** `times`, shape (T,); `values`, shape (..., T), infinite or NaN where nothing is known.
    """
    below = values <= level
    first = np.argmax(below, axis=-1)
    index = np.maximum(first, 1)
    before = np.take_along_axis(values, index[..., None] - 1, -1)[..., 0]
    after = np.take_along_axis(values, index[..., None], -1)[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        high, low = np.log(before), np.log(np.maximum(after, 1e-300))
        part = (high - math.log(level)) / (high - low)
    found = np.where(first > 0, times[index - 1] + (times[index] - times[index - 1]) * part, times[0])
    never = np.where(np.isfinite(values).all(axis=-1), np.inf, np.nan)
    return np.where(below.any(axis=-1), found, never)


def rises(times, values, level: float):
    """When components of limit 1 rise above a level: (1 - w)/w is exponential in time, nearly so for descent."""
    values = np.maximum(values, 1e-300)
    return crossings(times, np.maximum(1 - values, 0) / values, (1 - level) / level)


def mean_sd(values) -> tuple[float, float]:
    """Mean and standard deviation over trials, NaN left out; infinity and NaN where a trial has the value infinity."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if values.size == 0:
        return math.nan, math.nan
    if np.isinf(values).any():
        return math.inf, math.nan
    return float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else math.nan


def band(values, axis: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """5%, 50% and 95% of the values along an axis, NaN left out; NaN unless more than half of them are there.

    An infinite value, such as a time that is never reached, is larger than all others.
    """
    values = np.asarray(values, float)
    low, middle, high = (np.full(np.delete(values.shape, axis), np.nan) for _ in range(3))
    there = (~np.isnan(values)).mean(axis=axis) > 0.5
    if there.any():
        kept = np.moveaxis(values, axis, 0)[:, there]
        for target, q in ((low, 0.05), (middle, 0.5), (high, 0.95)):
            above = np.nanquantile(kept, q, axis=0, method="higher")
            with np.errstate(invalid="ignore"):
                between = np.nanquantile(kept, q, axis=0)
            # Interpolation makes NaN of some infinities, and of the last number before them.
            target[there] = np.where(np.isfinite(between), between, above)
    return low, middle, high


def draw_band(ax, x, values, *, alpha: float = 0.2, **look: Any) -> None:
    """The median of trials, the first axis of the values, as a curve, and 5% to 95% of them as a band."""
    ribbon(ax, x, *band(values), alpha=alpha, **look)


def listed(values, form: str = "{:.3g}") -> str:
    """Numbers with slashes between them; an infinite one is not reached, and NaN is not known."""

    def word(value: float) -> str:
        if math.isfinite(value):
            return form.format(value)
        return "not known" if math.isnan(value) else "not reached"

    return "/".join(word(float(value)) for value in values)


def spread(values, form: str = "{:.3g}") -> str:
    """`mean (sd)` of trials, NaN left out; of values that some trials never reach, the median and how many do.

    Without those that are infinite a mean would be too small.
    """
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    reached = f"reached by {int(np.isfinite(values).sum())} of {values.size}"
    if values.size == 0:
        return "not known"
    if np.isinf(values).any():
        median = float(band(values)[1])
        return f"median {form.format(median) if math.isfinite(median) else 'never'} ({reached})"
    mean, sd = mean_sd(values)
    return form.format(mean) + (f" ({form.format(sd)})" if math.isfinite(sd) else "")


def write(dataset, path: str | os.PathLike) -> None:
    """Writes a figure's data as a Zarr store, in place of what was there."""
    save_dataset(dataset, path, zarr_format=2)
