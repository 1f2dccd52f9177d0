"""Monte Carlo study of M22's Lemma 11: how often its three events hold for Gaussian starts, and from which width on.

A trial draws the reduced form of a start and looks whether (33), (34) and (35) hold. Neither the width nor the number of
inputs is a size of anything that is computed: a million inputs and a width of 1e9 cost what small ones do.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import init, theory
from .._public import public
from ..ensemble import run_ensemble
from ..problem import LeastSquares
from ..statistics import (
    AbstractReduction,
    Count,
    Histogram,
    Interval,
    Moments,
    frequency,
    histogram_quantile,
    mean_interval,
    narrow_enough,
)
from ._grid import check_grid

EVENTS = ("level_is_large", "coupling_is_small", "product_is_small", "all_hold")
SHARP_EVENTS = ("coupling_is_small_ds", "product_is_small_ds")
RATIOS = ("level_ratio", "coupling_ratio", "product_ratio")

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "alpha": {"long_name": "exponent of the start", "convention": "entries are N(0, h^(-2 alpha))"},
    "width": {"long_name": "hidden width h", "units": "1"},
    "level_is_large": {"long_name": "event (33) of Lemma 11: Delta > h^(1 - 2 alpha)"},
    "coupling_is_small": {"long_name": "event (34) of Lemma 11, with the printed constant"},
    "product_is_small": {"long_name": "event (35) of Lemma 11, with the printed constant"},
    "all_hold": {"long_name": "events (33), (34) and (35) together, with the printed constant"},
    "coupling_is_small_ds": {"long_name": "event (34) with the constant of Davidson and Szarek"},
    "product_is_small_ds": {"long_name": "event (35) with the constant of Davidson and Szarek"},
    "level_ratio": {"long_name": "Delta/h^(1 - 2 alpha)", "units": "1", "convention": "(33) holds above 1; tends to 2"},
    "coupling_ratio": {"long_name": "||[V U2^T; U1 U2^T]||_F over its bound (34)", "units": "1"},
    "product_ratio": {"long_name": "||U1 V^T||_F over its bound (35)", "units": "1"},
    "exponents_disagree": {"long_name": "trials in which an event holds at one exponent and fails at another"},
    "ok": {"long_name": "whether all numbers of the trial are finite"},
}


class Settings(NamedTuple):
    """What is asked. **Fields:** `delta`, the failure probability of the lemma."""

    delta: float = 0.1


@public
def sizes(n: int, r: int, m: int) -> LeastSquares:
    """A problem of which only the sizes are known: n inputs, data of rank r, m outputs.

    Its arrays are shapes without contents, so nothing of size n is held. It serves everything that asks a problem for its
    sizes only, such as `run`, `theory.lemma11` and `init.gaussian_core`.

    **Raises:** `ValueError` unless 1 <= r <= n and m >= 1.
    """
    for value, name in ((n, "n"), (r, "r"), (m, "m")):
        if isinstance(value, bool) or int(value) != value or value < 1:
            raise ValueError(f"Argument `{name}` must be a whole number of at least 1, but is {value}.")
    if r > n:
        raise ValueError(f"The rank of the data is at most the number of inputs, but r = {r} and n = {n}.")
    dtype = jnp.result_type(float)
    X, Y = jax.ShapeDtypeStruct((r, n), dtype), jax.ShapeDtypeStruct((r, m), dtype)
    return jax.eval_shape(lambda X, Y: LeastSquares(X, Y, rank=r), X, Y)


def default_widths(problem: LeastSquares, delta: float = 0.1, count: int = 12) -> list[float]:
    """Log-spaced whole widths from r + m to ten times the width h0 of the printed lemma."""
    first = problem.rank + problem.num_outputs
    last = 10 * float(theory.lemma11(problem, first, 0.5, delta).h0)
    return sorted({float(round(width)) for width in np.geomspace(first, last, count)})


def make_trial(problem: LeastSquares, settings: Settings) -> Callable[..., dict[str, Array]]:
    """The trial function `(key, alpha, width) -> outputs`; the outputs are described in `ATTRIBUTES`."""

    def trial(key, alpha, width):
        start = init.gaussian_core(problem, width, alpha=alpha, key=key)
        events = theory.lemma11_events(start, problem, alpha, settings.delta)
        paper = theory.lemma11(problem, width, alpha, settings.delta)
        sharp = theory.lemma11(problem, width, alpha, settings.delta, constant="davidson-szarek")
        return {
            "level_is_large": events.level_is_large,
            "coupling_is_small": events.coupling_is_small,
            "product_is_small": events.product_is_small,
            "all_hold": events.level_is_large & events.coupling_is_small & events.product_is_small,
            "coupling_is_small_ds": events.coupling <= sharp.coupling,
            "product_is_small_ds": events.product <= sharp.product,
            "level_ratio": events.level / paper.level,
            "coupling_ratio": events.coupling / paper.coupling,
            "product_ratio": events.product / paper.product,
        }

    return trial


def reductions() -> dict[str, AbstractReduction]:
    """What is kept of every chunk: counts of the events, moments and quantile sketches of the three ratios."""

    def disagree(outputs):
        held = jnp.stack([outputs[event] for event in (*EVENTS, *SHARP_EVENTS)])
        return jnp.any(held != held[:, :1], axis=(0, 1))

    kept: dict[str, AbstractReduction] = {event: Count(event) for event in (*EVENTS, *SHARP_EVENTS)}
    kept["exponents_disagree"] = Count(disagree, ("width",))
    for ratio in RATIOS:
        kept[f"{ratio}_moments"] = Moments(ratio)
        # Half a per cent a bin over six decades.
        kept[f"{ratio}_histogram"] = Histogram(ratio, 1e-4, 1e2, 2770)
    return kept


def check(widths, alphas, settings: Settings) -> None:
    """Refuses at once what cannot be studied.

    **Raises:** `ValueError` for widths outside 1 to 1e12 or not whole, exponents that are not finite, positive numbers, or
    delta outside (0, 1). An exponent or width outside the lemma's hypotheses is studied, and reported as such.
    """
    check_grid(widths, alphas, settings.delta)


def run(
    problem: LeastSquares,
    widths,
    alphas,
    trials: int,
    *,
    seed: int = 0,
    settings: Settings = Settings(),  # noqa: B008
    record: Mapping[str, Any] | None = None,
    keep_trials: bool = False,
    precision: float | None = None,
    **options: Any,
):
    """Runs the study.

    **Args:** `problem`, of which only the sizes matter (`sizes` makes one of sizes alone); `widths`, `alphas`, the grid;
    `trials` at each of its points; `seed` of the starts; `settings`; `record`, further entries for the stored settings;
    `keep_trials`, whether every trial is kept, and not only counts, moments and quantile sketches; `precision`, to stop as
    soon as the 95% interval of every frequency is narrower; `options` go to `run_ensemble` (`store`, `chunk`, `batch`,
    `progress`, `process`).

    **Returns:** an `xarray.Dataset` of merged reductions over (alpha, width), or with `keep_trials` of the trials over (alpha,
    width, trial); see `ATTRIBUTES`.

    **Raises:** as `check` and `run_ensemble`.
    """
    widths, alphas = [float(width) for width in widths], [float(alpha) for alpha in alphas]
    check(widths, alphas, settings)
    check_precision(precision)
    p = problem.rank + problem.num_outputs
    lost = init.warn_of_lost_digits(problem.dtype, max(widths))
    if options.get("batch", "auto") == "auto":
        # All trials take equally long.
        options["batch"] = "blocks" if jax.default_backend() == "cpu" else "vmap"
    # About a second's work on a processor; an accelerator is given more, and memory decides.
    evaluations = 2 ** (26 if options["batch"] == "vmap" else 22)
    options.setdefault("largest_chunk", max(1, max(64, evaluations // (p + 1) ** 2) // (len(widths) * len(alphas))))
    attributes = {**ATTRIBUTES, "level_ratio": {**ATTRIBUTES["level_ratio"], **lost}}
    return run_ensemble(
        make_trial(problem, settings),
        {"alpha": alphas, "width": widths},
        trials,
        key=jax.random.key(seed),
        attributes=attributes,
        settings={
            **(record or {}),
            "study": "lemma11",
            "seed": seed,
            "data_dtype": str(problem.dtype),
            "n": problem.num_inputs,
            "r": problem.rank,
            "m": problem.num_outputs,
            **settings._asdict(),
            **lost,
        },
        reductions=reductions(),
        keep_trials=keep_trials,
        stop_when=None
        if precision is None
        else lambda merged, count: narrow_enough(_intervals(merged, count), count, precision),
        **options,
    )


def check_precision(precision: float | None) -> None:
    """Refuses a width of intervals that none can have.

    **Raises:** `ValueError` unless it is `None` or a positive number.
    """
    if precision is not None and not (math.isfinite(precision) and precision > 0):
        raise ValueError(f"The precision is a width of 95% intervals and must be positive, but is {precision:g}.")


def _intervals(merged: Mapping[str, np.ndarray], count: int) -> list[Interval]:
    return [frequency(merged[event], np.full(merged[event].shape, count)) for event in EVENTS]


def summarise(dataset, problem: LeastSquares, delta: float):
    """Frequencies and ratios at every grid point, beside the hypotheses of the lemma.

    **Args:** `dataset`, from `run`, with or without single trials; `problem`; `delta`.

    **Returns:** an `xarray.Dataset` over (alpha, width): frequency of each event with its exact interval (`..._low`,
    `..._high`), `..._mean` with its own, `..._median`, `..._q95` of each ratio, whether the hypotheses hold with the
    printed constant (`applies`) and with that of Davidson and Szarek (`applies_ds`), and whether the width is large enough
    for (33) by the tail bound of [V; U1] alone (`level_applies`); over width the number of trials in which exponents
    `disagree`; the constants `w`, `w_ds`, `h0`, `h0_ds`, `h0_level` as attributes.
    """
    import xarray as xr

    if "trial" in dataset.dims:
        dataset = _reduce_trials(dataset)
    count = int(dataset["trials_computed"])
    dims = ("alpha", "width")
    summary = xr.Dataset(coords={"alpha": dataset["alpha"], "width": dataset["width"]})
    counts = np.full((dataset.sizes["alpha"], dataset.sizes["width"]), count)
    for event in (*EVENTS, *SHARP_EVENTS):
        interval = frequency(dataset[event].transpose(*dims).values, counts)
        for suffix, values in zip(("", "_low", "_high"), interval, strict=True):
            summary[event + suffix] = (dims, values)
    for ratio in RATIOS:
        moments = dataset[f"{ratio}_moments"].transpose(*dims, ...).values
        sketch = dataset[f"{ratio}_histogram"].transpose(*dims, ...)
        mean = mean_interval(moments)
        summary[f"{ratio}_mean"] = (dims, mean.value)
        summary[f"{ratio}_mean_low"] = (dims, mean.low)
        summary[f"{ratio}_mean_high"] = (dims, mean.high)
        for name, q in (("median", 0.5), ("q95", 0.95)):
            value = histogram_quantile(sketch.values, sketch.attrs["low"], sketch.attrs["high"], q, moments)
            summary[f"{ratio}_{name}"] = (dims, value)
        summary[f"{ratio}_max"] = (dims, moments[..., 4])
    summary["disagree"] = dataset["exponents_disagree"]
    A, H = np.meshgrid(dataset["alpha"].values, dataset["width"].values, indexing="ij")
    paper = theory.lemma11(problem, H, A, delta)
    sharp = theory.lemma11(problem, H, A, delta, constant="davidson-szarek")
    summary["applies"] = (dims, np.asarray(paper.applies))
    summary["applies_ds"] = (dims, np.asarray(sharp.applies))
    summary["level_applies"] = (dims, np.asarray(paper.h0_level) < H)
    summary["trials"] = (dims, counts)
    first = (0, 0)
    summary.attrs = {
        "delta": delta,
        "interval": "95%",
        "n": problem.num_inputs,
        "r": problem.rank,
        "m": problem.num_outputs,
        "w": float(paper.w[first]),
        "w_ds": float(sharp.w[first]),
        "h0": float(paper.h0[first]),
        "h0_ds": float(sharp.h0[first]),
        "h0_level": float(paper.h0_level[first]),
    }
    return summary


def hypothesis(applies: bool) -> str:
    """How a table says whether the lemma speaks: `met` or `hypothesis not met`."""
    return "met" if applies else "hypothesis not met"


def _reduce_trials(dataset):
    """The reductions of a dataset that holds single trials, as `open_reductions` gives them."""
    import xarray as xr

    done = dataset["computed"].values if "computed" in dataset.coords else np.ones(dataset.sizes["trial"], bool)
    dims = ("alpha", "width")
    outputs = {name: jnp.asarray(a.transpose(*dims, "trial").values) for name, a in dataset.data_vars.items()}
    arrays = {}
    for name, reduction in reductions().items():
        extra, _, meaning = reduction.extra(name)
        own = dims if reduction.dims is None else reduction.dims
        arrays[name] = ((*own, *extra), np.asarray(reduction(outputs, jnp.asarray(done))), meaning)
    coords = {name: dataset[name] for name in dims}
    return xr.Dataset({**arrays, "trials_computed": int(done.sum())}, coords=coords)
