"""T21 Fig. 1: the scale of the start."""

import jax
import jax.numpy as jnp
import numpy as np

from .. import exact, init, observables, theory
from ..flow import gradient_flow
from ..plots import COLOURS, MARKERS, legend_below
from ..problems import factorization
from ..trajectory import STOPPED
from ._common import (
    Figure,
    Measured,
    band,
    blank,
    crossings,
    descend,
    draw_band,
    ensemble,
    kept,
    listed,
    mean_sd,
    named,
    spread,
)

LEVELS = (1e-1, 1e-3, 1e-6)


def compute(
    *,
    seed: int,
    trials: int,
    descent_trials: int,
    stds: tuple[float | int, ...] = (0.01, 0.1, 1.0),
    n: int = 5,
    m: int = 10,
    width: int = 50,
    step: float = 1e-3,
    points: int = 200,
):
    """Relative error and singular values against time, from Gaussian starts of three scales, and of one layer.

    A trial draws a target with entries N(0, 1) and a start with entries N(0, s^2), and follows the flow, one layer from the same
    product (closed form), and, for some trials, descent with the paper's step.
    """
    ts = np.logspace(-3, 2, points)
    numbers = np.unique(np.round(np.logspace(0, np.log10(16.0 / step), 60)).astype(int))

    def begin(key, std):
        key_target, key_start = jax.random.split(key)
        problem = factorization(jax.random.normal(key_target, (n, m)))
        return problem, init.gaussian_core(problem, width, std=std, key=key_start)

    def flow(key, std):
        problem, start = begin(key, std)
        watched = {"error": "reconstruction_error", "singular_values": _singular_values}
        end = gradient_flow(start, problem, ts, observables=watched, solver="dopri8", stop=1e-17, max_steps=20_000)
        one_layer = exact.linear(problem, start.product(), ts)
        size = jnp.linalg.norm(problem.Y)
        return {
            **end.observables,
            "linear_singular_values": jnp.linalg.svdvals(one_layer),
            "target": jnp.linalg.svdvals(problem.Y),
            "linear_error": jnp.linalg.norm(problem.Y - one_layer, axis=(1, 2)) / size,
            "imbalance": jnp.linalg.norm(theory.moving_spectrum(start, problem)),
            "ok": end.result == STOPPED,
        }

    def descent(key, std):
        problem, start = begin(key, std)
        end = descend(start, problem, numbers, step, ["reconstruction_error"], stop=1e-17)
        return {"descent_error": end.observables["reconstruction_error"], "descent_ok": end.result <= STOPPED}

    dims = {"error": ("time",), "linear_error": ("time",), "descent_error": ("step",), "target": ("index",)}
    dims |= dict.fromkeys(("singular_values", "linear_singular_values"), ("time", "index"))
    dataset = ensemble(flow, {"std": stds}, trials, seed, dims=dims)
    steps = ensemble(descent, {"std": stds}, descent_trials, seed, dims=dims).rename(trial="descent_trial")
    dataset = dataset.merge(steps.drop_vars("ok")).assign_coords(time=ts, step=numbers * step)
    dataset = named(
        dataset,
        std="standard deviation s of the entries of U and V",
        time="time of the flow",
        step="steps of descent times the step size",
        error="||Y - U V^T||_F / ||Y||_F, flow of two layers",
        linear_error="the same for one layer from the same product",
        descent_error="the same for descent on two layers",
        imbalance="||U0^T U0 - V0^T V0||_F",
        singular_values="singular values of U V^T along the flow",
        linear_singular_values="the same for one layer from the same product",
        target="singular values of Y",
    )
    dataset["step"].attrs["step_size"] = step
    return dataset


def _singular_values(model, problem):
    return jnp.linalg.svdvals(observables.reduced_product(model, problem))


def times_to_error(dataset, name: str = "error"):
    """Times to the relative errors of `LEVELS`, shape (levels, stds, trials)."""
    values = dataset[name].transpose("std", "trial", "time")
    if name == "error":
        values = blank(values, dataset["ok"])
    values = values.values
    return np.stack([crossings(dataset["time"].values, values, level) for level in LEVELS])


def measure(dataset) -> Measured:
    two, one = times_to_error(dataset), times_to_error(dataset, "linear_error")
    imbalance = dataset["imbalance"].transpose("std", "trial").values
    numbers, parts, others = {}, [], []
    for i, std in enumerate(dataset["std"].values.tolist()):
        numbers[f"two layers, s = {std:g}"] = [mean_sd(two[j, i]) for j in range(len(LEVELS))]
        numbers[f"one layer, s = {std:g}"] = [mean_sd(one[j, i]) for j in range(len(LEVELS))]
        numbers[f"||Q0||_F, s = {std:g}"] = mean_sd(imbalance[i])
        parts.append(f"s = {std:g}: " + ", ".join(spread(two[j, i]) for j in range(len(LEVELS))))
        others.append(f"s = {std:g}: " + ", ".join(spread(one[j, i], "{:.4g}") for j in range(len(LEVELS))))
    paths = kept(dataset, "singular_values", "std", "trial", "index", "time")
    halves = _half_times(dataset["time"].values, paths, dataset["target"].transpose("std", "trial", "index").values)
    ratios = halves[..., -1] / halves[..., 0]
    for std, values in zip(dataset["std"].values.tolist(), ratios, strict=True):
        numbers[f"half time of the least singular value over that of the largest, s = {std:g}"] = mean_sd(values)
    known = ~np.isnan(two[-1, -1])
    numbers["faster than one layer, largest s"] = float(np.mean(two[-1, -1, known] < one[-1, -1, known]))
    largest = dataset["std"].values[-1]
    text = (
        f"times to relative errors {listed(LEVELS, '{:g}')} for two layers, mean (sd): {'; '.join(parts)}; for one layer from "
        f"the same product: {others[0]}; {others[-1]}; ||Q0||_F at s = {largest:g}: {spread(imbalance[-1], '{:.4g}')}"
        f"; the least singular value is half learned after the largest by factors of {', '.join(map(spread, ratios))}"
    )
    return Measured(text, numbers)


def _half_times(times: np.ndarray, values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """When singular values come within half of their target's for good: values (..., index, time), target (..., index)."""
    away = np.abs(values / target[..., None] - 1)
    # Random products begin above some small ones; what counts is the last time outside. Where a run was stopped it is inside.
    outside = np.where(np.isnan(away), 0.0, away)[..., ::-1] > 0.5
    last = values.shape[-1] - 1 - np.argmax(outside, axis=-1)
    found = np.where(outside.any(axis=-1), times[np.minimum(last + 1, times.size - 1)], times[0])
    return np.where(np.isnan(values[..., 0]), np.nan, found)


def draw(figure, dataset) -> None:
    count = dataset.sizes["std"]
    grid = figure.add_gridspec(2, 2 * count, height_ratios=(1.3, 1))
    left, right = figure.add_subplot(grid[0, :count]), figure.add_subplot(grid[0, count:])
    _draw_singular_values([figure.add_subplot(grid[1, 2 * i : 2 * i + 2]) for i in range(count)], dataset)
    time, steps, stds = dataset["time"].values, dataset["step"].values, dataset["std"].values.tolist()
    two, one = times_to_error(dataset), times_to_error(dataset, "linear_error")
    dashes = ("-", "--", "-.", ":")
    for i, std in enumerate(stds):
        row, colour, marker = dataset.isel(std=i), COLOURS[i], MARKERS[i]
        values = _to_the_end(row["error"], row["ok"]).transpose("trial", "time").values
        draw_band(left, time, values, color=colour, ls=dashes[i])
        descent = _to_the_end(row["descent_error"], row["descent_ok"]).transpose("descent_trial", "step").values
        look = {"color": colour, "marker": marker, "ms": 3}
        left.plot(steps[::2], band(descent)[1][::2], ls="none", **look)
        left.plot([], [], ls=dashes[i], label=f"two layers, $s$ = {std:g}", **look)
        right.plot(row["imbalance"].values, two[1, i], ls="none", label=f"two layers, $s$ = {std:g}", **look)
        # All starts of a scale take one layer nearly the same time.
        at = float(row["imbalance"].median()), band(one[1, i])[1]
        hollow = {"color": "black", "marker": marker, "ms": 9, "mfc": "none"}
        right.plot(*at, ls="none", label=f"one layer, $s$ = {std:g}", **hollow)
    # One layer forgets its start: curves from the lesser scales would hide each other.
    for i in sorted({0, len(stds) - 1}):
        middle = band(dataset["linear_error"].isel(std=i).transpose("trial", "time").values)[1]
        left.plot(time, middle, color="0.3", lw=1, ls=dashes[i], label=f"one layer, $s$ = {stds[i]:g}")
    left.plot([], [], color="0.3", ls="none", marker="o", ms=3, label="markers: descent, two layers")
    left.set(xscale="log", yscale="log", xlim=(3e-3, 40), ylim=(3e-8, 20))
    left.set(xlabel="time $t$ (descent: steps times step size)", ylabel=r"relative error $\|Y - UV^T\|_F / \|Y\|_F$")
    left.set_title("Median and 5% to 95% of the starts")
    legend_below(left, 2)
    right.set(xscale="log", yscale="log", xlabel=r"imbalance $\|Q_0\|_F = \|U_0^T U_0 - V_0^T V_0\|_F$")
    right.set_ylabel(f"time $t$ to the relative error {LEVELS[1]:g}")
    right.set_title("Each start (one layer: median)")
    handles, labels = right.get_legend_handles_labels()
    order = [*range(0, len(handles), 2), *range(1, len(handles), 2)]
    handles, labels = ([entries[i] for i in order] for entries in (handles, labels))
    right.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


def _draw_singular_values(axes, dataset) -> None:
    time, first = dataset["time"].values, dataset.isel(trial=0)
    for i, ax in enumerate(axes):
        row = first.isel(std=i)
        target = row["target"].values
        # From where a run was stopped its values are those of the target.
        two = row["singular_values"].transpose("time", "index").values
        for j, value in enumerate(target):
            ax.axhline(value, color="0.7", lw=0.8, ls=":", label="of $Y$" if j == 0 else None)
            path = np.where(np.isfinite(two[:, j]), two[:, j], value)
            ax.plot(time, path, color=COLOURS[i], label="two layers" if j == 0 else None)
            one = row["linear_singular_values"].isel(index=j).values
            ax.plot(time, one, color="0.3", lw=1, ls="--", label="one layer" if j == 0 else None)
        ax.set(xscale="log", xlim=(3e-3, 40), ylim=(0, 1.4 * target[0]), xlabel="time $t$")
        ax.set_ylabel("singular values")
        ax.set_title(f"$s$ = {row['std'].item():g}, first start")
        if i == 0:
            ax.legend(loc="upper left")


def _to_the_end(error, ok):
    """The error, zero from where a run was stopped far below everything drawn; NaN for failed runs."""
    return error.where(np.isfinite(error), 0.0).where(ok.astype(bool))


FIGURES = {
    "t21-figure1": Figure(
        "T21 Fig. 1",
        "matrix factorization from starts of three scales",
        "the larger the scale of the start, and its imbalance with it, the faster two layers are; the largest is faster than one "
        "layer by far, the least is not faster to a first, rough error",
        compute,
        measure,
        draw,
        {"trials": 50, "descent_trials": 50},
        {"trials": 10, "descent_trials": 10},
        (7.6, 6.4),
        reference="over 50 other seeds, two layers: s = 0.01: 2.435 (.31), 4.716 (1.16), 9.245 (2.5); s = 0.1: .855 (.069), "
        "2.867 (.46), 6.908 (1.3); s = 1: .061 (.007), .158 (.022), .317 (.045); one layer: s = 0.01: 2.303, 6.908, 13.82; s = 1:"
        " 4.247, 8.852, 15.76 (sd .15); ||Q0||_F at s = 1: 197.4 (10.9)",
    )
}
