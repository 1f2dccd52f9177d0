"""What the summary of Theorem 12 needs of trials, from each of them or from reductions."""

import math
from typing import Any

import numpy as np

from ..ensemble import masked
from ..statistics import Interval, histogram_quantile, mean_interval, mean_slope, rms_slope, standard_error

EVENTS = ("level_is_large", "coupling_is_small", "product_is_small")


def from_trials(dataset) -> dict[str, Any]:
    """What `summarise` needs, from every single trial: quantiles are exact."""
    import xarray as xr

    valid = masked(dataset)
    done = dataset["computed"] if "computed" in dataset.coords else xr.ones_like(dataset["trial"], dtype=bool)
    dims = ("alpha", "width")
    ok = (dataset["ok"].astype(bool) & done).transpose(*dims, "trial").values
    distance = valid["distance"].transpose(*dims, "trial").values
    enough = ok.any(axis=-1)

    def over_trials(statistic):
        values = np.full(enough.shape, np.nan)
        for point in zip(*np.nonzero(enough), strict=True):
            values[point] = statistic(distance[point][ok[point]])
        return values

    log_distance = np.log(np.where(ok & (distance > 0), distance, np.nan))
    log_widths = np.log(dataset["width"].values)
    slopes = [mean_slope(log_widths, values) for values in log_distance]
    mean_square = over_trials(lambda d: np.mean(d**2))
    rms_slopes = [rms_slope(log_widths, values) for values in np.where(ok, distance, np.nan)]
    expected = valid["expected_distance"].transpose(*dims, "trial").values ** 2
    expected = np.where(enough, np.where(ok, expected, 0).sum(axis=-1) / np.maximum(ok.sum(axis=-1), 1), np.nan)
    return {
        "trials": int(done.sum()),
        "successes": ok.sum(axis=-1),
        **{e: (dataset[e].astype(bool) & done).sum("trial").transpose(*dims).values for e in EVENTS},
        "median": over_trials(np.median),
        "q95": over_trials(lambda d: np.quantile(d, 0.95)),
        "mean": over_trials(np.mean),
        "standard_error": over_trials(lambda d: d.std(ddof=1) / math.sqrt(d.size) if d.size > 1 else np.inf),
        "rms": np.sqrt(mean_square),
        "exact_rms": np.sqrt(expected),
        "slope": Interval(*(np.array(values) for values in zip(*slopes, strict=True))),
        "rms_slope": Interval(*(np.array(values) for values in zip(*rms_slopes, strict=True))),
        "max_drift": float(np.nanmax(np.where(ok, dataset["imbalance_drift"].values, np.nan), initial=0.0)),
    }


def from_reductions(dataset) -> dict[str, Any]:
    """What `summarise` needs, from reductions: quantiles are read from a sketch."""
    dims = ("alpha", "width")
    moments = dataset["distance_moments"].transpose(*dims, ...).values
    squares = dataset["square_moments"].transpose(*dims, ...).values
    sketch = dataset["distance_histogram"].transpose(*dims, ...)
    mean = mean_interval(moments)
    if "slope_moments" in dataset:
        slope = mean_interval(dataset["slope_moments"].values)
    else:
        slope = Interval(*(np.full(dataset.sizes["alpha"], np.nan),) * 3)
    drift = dataset["drift_moments"].transpose(*dims, ...).values[..., 4]
    expected = dataset["expected_moments"].transpose(*dims, ...).values
    mean_square = np.where(squares[..., 1] > 0, squares[..., 1], np.nan)
    log_widths = np.log(dataset["width"].values)
    rms = np.array([mean_slope(log_widths, 0.5 * np.log(row)[:, None]).value for row in mean_square])

    def quantile(q):
        return histogram_quantile(sketch.values, sketch.attrs["low"], sketch.attrs["high"], q, moments)

    return {
        "trials": int(dataset["trials_computed"]),
        "successes": dataset["successes"].transpose(*dims).values,
        **{event: dataset[event].transpose(*dims).values for event in EVENTS},
        "median": quantile(0.5),
        "q95": quantile(0.95),
        "mean": mean.value,
        "standard_error": standard_error(moments),
        "rms": np.sqrt(mean_square),
        "exact_rms": np.sqrt(np.where(expected[..., 0] > 0, expected[..., 1], np.nan)),
        "slope": slope,
        "rms_slope": Interval(rms, np.full_like(rms, np.nan), np.full_like(rms, np.nan)),
        "max_drift": float(np.max(drift, initial=0.0, where=np.isfinite(drift))),
    }
