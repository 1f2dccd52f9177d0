"""Theorem 12 in numbers: statistics of the trials beside the theorem and the sharp law, and their table."""

import math
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import theory
from ..statistics import QUANTILES, Interval, mean_interval, mean_slope, named, rms_slope, standard_error
from .lemma11 import hypothesis
from .study import Table, power

if TYPE_CHECKING:
    from .theorem12 import Theorem12

EVENTS = ("level_is_large", "coupling_is_small", "product_is_small")


def summary_of(study: "Theorem12", dataset):
    """What `Theorem12.summarise` returns."""
    import xarray as xr

    problem, delta, dims = study.problem, study.settings.delta, ("alpha", "width")
    reduced, kept = study.reduced(dataset).transpose(*dims, ...), study.reductions()
    merged = {name: reduced[name].values for name in kept}
    count = int(reduced["trials_computed"])
    shape, log_widths = merged["successes"].shape, np.log(reduced["width"].values)
    moments, first = merged["distance_moments"], merged["distance"][..., :count]
    log_slope = lambda rms: mean_slope(log_widths, np.log(np.where(rms > 0, rms, np.nan))[:, None]).value  # noqa: E731

    def mean_of(name):
        return np.where(merged[name][..., 0] > 0, merged[name][..., 1], np.nan)

    if first.shape[-1] == count:
        seen = [row[np.isfinite(row)] for row in first.reshape(math.prod(shape), -1)]
        quantiles = {q: [np.quantile(row, q) if row.size else np.nan for row in seen] for _, q in QUANTILES}
    else:
        read = kept["distance_histogram"].statistics("distance_histogram", merged, count)
        quantiles = {q: read[f"distance_{word}"] for word, q in QUANTILES}
    A, H = grid_of(reduced["alpha"].values, reduced["width"].values)
    bound, lemma = theory.theorem12(problem, H, A, delta), theory.lemma11(problem, H, A, delta)
    sharp = theory.sharp_distance(problem, H, A)
    values = {name: array for event in EVENTS for name, array in kept[event].statistics(event, merged, count).items()}
    values |= {word: np.reshape(quantiles[q], shape) for word, q in QUANTILES}
    values |= {
        "mean": mean_interval(moments).value,
        "standard_error": standard_error(moments),
        "rms": np.sqrt(mean_of("square_moments")),
        "exact_rms": np.sqrt(mean_of("expected_moments")),
        "log10_bound": np.asarray(bound.log_bound) / math.log(10),
        "log10_theorem_width": np.asarray(bound.log_width) / math.log(10),
        "applies": np.asarray(bound.applies),
        "lemma11_applies": np.asarray(lemma.applies),
        "sharp_rms": np.asarray(sharp.rms),
        **named("imbalance_lost", mean_interval(merged["lost_moments"])),
        **_over_law(merged["square_moments"], np.asarray(sharp.rms)),
        "trials": np.full(shape, count),
        "failures": count - merged["successes"],
    }
    values["log10_bound_over_q95"] = values["log10_bound"] - np.log10(
        np.where(values["q95"] > 0, values["q95"], np.nan)
    )
    slopes = named("slope", mean_interval(merged["slope_moments"]))
    rms_slopes = []
    for rms, distances in zip(values["rms"], first, strict=True):
        slope, (value, low, _) = log_slope(rms), rms_slope(log_widths, distances)
        half = (value - low) * math.sqrt(distances.shape[-1] / max(count, 1))
        rms_slopes.append((slope, slope - half, slope + half))
    slopes |= named("rms_slope", Interval(*np.array(rms_slopes).T))
    for name in ("exact", "sharp"):
        slopes[f"{name}_slope"] = np.array([log_slope(rms) for rms in values[f"{name}_rms"]])
    return xr.Dataset(
        {
            **{name: (dims, np.broadcast_to(array, shape)) for name, array in values.items()},
            **{name: ("alpha", array) for name, array in slopes.items()},
            "max_drift": np.max(merged["drift_moments"][..., 4], initial=0.0),
        },
        {name: reduced[name] for name in dims},
        {"delta": delta, "interval": "95%"},
    )


def table_of(study: "Theorem12", summary) -> list[Table | str]:
    """What `Theorem12.table` returns."""
    descends, rows = study.settings.dynamics == "descent", []
    for alpha in summary["alpha"].values:
        for width in summary["width"].values:
            row = summary.sel(alpha=alpha, width=width)
            rows.append(
                [
                    f"{alpha:g}",
                    f"{width:g}" if width < 1e5 else f"{width:.3g}",
                    *(
                        f"{float(row[e]):.2f} [{float(row[e + '_low']):.2f}, {float(row[e + '_high']):.2f}]"
                        for e in EVENTS
                    ),
                    *(f"{float(row[name]):.3g}" for name in ("median", "q95", "sharp_rms")),
                    *([f"{float(row[name]):.3g}" for name in ("rms_over_law", "imbalance_lost")] if descends else []),
                    *(power(float(row[name])) for name in ("log10_bound", "log10_bound_over_q95")),
                    hypothesis(bool(row["applies"])),
                    str(int(row["failures"])),
                ]
            )
        rows.append(None)
    columns = ("alpha", "width", "(33)", "(34)", "(35)", "median", "95%", "sharp law")
    columns = (*columns, *(("rms/law", "D lost") if descends else ()), "bound", "bound/95%")
    title = "Distance to the minimum-norm solution, and how often events (33) to (35) of Lemma 11 hold [exact 95%]"
    parts: list[Table | str] = [Table(title, (*columns, "Theorem 12", "failed"), rows, ("Theorem 12",), named=2)]
    for alpha in summary["alpha"].values:
        row = summary.sel(alpha=alpha)
        width = float(row["log10_theorem_width"].values.ravel()[0])

        def interval(name, row=row):
            low, high = float(row[f"{name}_low"]), float(row[f"{name}_high"])
            return f"[{low:.4f}, {high:.4f}]" if math.isfinite(low) else "(no interval)"

        needs = f"speaks from h = {power(width)} on" if math.isfinite(width) else "never speaks at this exponent"
        parts.append(
            f"alpha {alpha:g}: slope of log distance {float(row['slope']):.4f} {interval('slope')}, of its rms "
            f"{float(row['rms_slope']):.4f} {interval('rms_slope')}; exact law {float(row['exact_slope']):.4f}, sharp law "
            f"{float(row['sharp_slope']):.4f}; the theorem {needs}"
        )
    return [*parts, f"largest imbalance drift {float(summary['max_drift']):.1e}"]


def _over_law(squares: np.ndarray, law: np.ndarray) -> dict[str, np.ndarray]:
    """The root mean square distance over the law of the flow, with the interval of the mean square."""
    ends = named("rms_over_law", mean_interval(squares))
    return {name: np.sqrt(np.maximum(end, 0)) / law for name, end in ends.items()}


def grid_of(alphas, widths) -> tuple[Float[Array, "a w"], Float[Array, "a w"]]:
    """Exponents and widths at every point."""
    A, H = np.meshgrid(np.asarray(alphas, float), np.asarray(widths, float), indexing="ij")
    return jnp.asarray(A), jnp.asarray(H)
