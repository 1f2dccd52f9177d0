"""How often the convergence statements of M21 and M22 speak, how tight they are, and whether they are ever crossed.

A trial draws one start, moves it by flow and by descent, and holds every state of both paths against the bounds on the rate
and the excess losses against the bounds on the loss. The statements are proved for the flow: descent is measured with them.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import init, theory
from .._checks import check_choice, check_positive
from .._public import public
from ..descent import gradient_descent, plain_descent
from ..ensemble import run_ensemble
from ..flow import gradient_flow
from ..models import ReducedTwoLayer, TwoLayer
from ..problem import LeastSquares
from ..statistics import frequency as exact_frequency
from ..trajectory import FINISHED, RESULTS
from ._record import of_problem, of_start
from .simulate import (
    as_core,
    check_size,
    default_horizon,
    no_time_scale,
    step_numbers,
    time_grid,
)

Number = float | int
AnyStart = init.AbstractStart | Callable[..., TwoLayer | ReducedTwoLayer]

DYNAMICS = ("flow", "descent")
LOSS_STATEMENTS = ("theorem3", "corollary4", "corollary5", "corollary6")
RATE_STATEMENTS = ("lemma7", "proposition1", "theorem3")
NAMES = {
    "lemma7": "Lemma 7",
    "proposition1": "Prop. 1",
    "theorem3": "Theorem 3",
    "corollary4": "Cor. 4 (M21 Thm. 1)",
    "corollary5": "Cor. 5",
    "corollary6": "Cor. 6",
}


ATTRIBUTES: dict[str, dict[str, Any]] = {
    "loss_bound": {
        "long_name": "upper bound on L(t) - L*",
        "convention": "infinity before the statement's clock starts",
    },
    "loss_tightness": {
        "long_name": "log(bound's decrease)/log(measured decrease)",
        "convention": "1 is attained; NaN where the loss is below its resolution or the statement has not begun",
    },
    "applies": {
        "long_name": "whether the hypotheses of the statement on the loss hold on this path",
        "convention": "false: hypothesis not met; what is zero up to round-off is not positive",
    },
    "loss_crossed": {"long_name": "whether a loss exceeds a bound whose hypotheses hold"},
    "rate_bound": {"long_name": "lower bound on the rate at this state"},
    "rate_crossed": {"long_name": "whether a rate is below a bound, by more than 1e-9 of it in float64"},
    "margin_time": {"long_name": "first observed time with a margin, the clock of Cor. 6; infinity without one"},
    "resolution": {"long_name": "excess loss below which a path is not resolved"},
    "imbalance_plus": {"long_name": "Delta+ of the start"},
    "imbalance_minus": {"long_name": "Delta- of the start"},
    "imbalance_level": {"long_name": "Delta of the start, the level of imbalance"},
    "local_rate": {"long_name": "the rate that Theorem 3 gives near the end", "source": "M22 (22)"},
    "local_rate_applies": {"long_name": "whether c(0) > 0: the flow is known to converge", "source": "M22 Prop. 9"},
    "tightness_applies": {"long_name": "whether h >= r + m and Sigma_x is a multiple of the identity"},
    "tightness_attained": {
        "long_name": "whether a network with this D and product attains Prop. 1",
        "source": "M22 App. C",
    },
    "result": {"long_name": "how the run ended", "codes": {str(code): text for code, text in RESULTS.items()}},
    "succeeded": {"long_name": "whether this dynamics reached the last time"},
    "num_steps": {"long_name": "steps of the solver", "units": "1"},
    "ok": {"long_name": "whether every dynamics reached the last time; other trials are masked in every statistic"},
}
_LOSS, _RATE = ("dynamics", "statement"), ("dynamics", "rate_statement")
DIMS = {
    "excess_loss": ("dynamics", "time"),
    "loss_bound": (*_LOSS, "time"),
    "loss_tightness": (*_LOSS, "time"),
    "applies": _LOSS,
    "loss_crossed": _LOSS,
    "rate": ("dynamics", "time"),
    "rate_bound": (*_RATE, "time"),
    "rate_crossed": _RATE,
    "margin": ("dynamics", "time"),
    "margin_time": ("dynamics",),
    "imbalance_drift": ("dynamics", "time"),
    "resolution": ("dynamics",),
    "result": ("dynamics",),
    "succeeded": ("dynamics",),
    "num_steps": ("dynamics",),
}


class Preset(NamedTuple):
    """A figure's setting: the problem, the starts by name, and the keyword arguments of `audit`."""

    problem: LeastSquares
    starts: dict[str, init.AbstractStart]
    options: dict[str, Any]


def figure3(*, n: int = 500, samples: int = 100, h: int = 500, horizon: Number | None = None, seed: int = 0) -> Preset:
    """The setting of M22's Fig. 3 and 6: three scalings of a Gaussian start with one product, and its balanced version.

    The averaged loss `||Y - X U V^T||^2/N` (q = 2/N), one output, X with orthonormal rows (Sigma_x = I), Y = X theta + noise
    with theta ~ N(0, I/n) and noise of standard deviation .01; entries of U and V of standard deviations (.1, .1), (.5, .02),
    (.05, .2); descent with step 5e-4.

    **Args:** `n`, `samples`, `h`, the sizes, with n >= samples; `horizon`, the last time, by default 3/(2 q);
    `seed`, of the data.

    **Returns:** a `Preset`.

    **Raises:** `ValueError` for n < samples.

    **Notes:** the three scalings share the product of the layers, and so does the balanced start with them. The horizon
    is this package's choice; in the clock of q = 1 it is 1.5.

    **Source:** M22 Fig. 3 and 6, section 5.2 and appendix A.2.
    """
    if n < samples:
        raise ValueError(f"Orthonormal rows need n >= samples, but n = {n} and samples = {samples}.")
    rng = np.random.default_rng(seed)
    # The law is the same for every X with orthonormal rows; this one's singular vectors are the same on every machine.
    X = np.eye(samples, n)
    Y = X @ rng.normal(size=(n, 1)) / math.sqrt(n) + 0.01 * rng.normal(size=(samples, 1))
    stds = {"case 1": (0.1, 0.1), "case 2": (0.5, 0.02), "case 3": (0.05, 0.2)}
    starts = {name: init.Gaussian(h, std=std) for name, std in stds.items()}
    starts["balanced"] = init.Balanced(h, std=stds["case 1"])
    problem = LeastSquares(X, Y, scale="averaged")
    horizon = 1.5 / float(problem.scale) if horizon is None else horizon
    return Preset(problem, starts, {"horizon": horizon, "step_size": 5e-4})


PRESETS: dict[str, Callable[..., Preset]] = {"m22-figure3": figure3}


@public
def audit(
    problem: LeastSquares,
    starts: Mapping[str, AnyStart] | init.AbstractStart,
    trials: int = 20,
    *,
    dynamics: Sequence[str] = DYNAMICS,
    horizon: Number | None = None,
    step_size: Number | Literal["stable"] = "stable",
    points: int = 40,
    spacing: Literal["linear", "log"] = "linear",
    solver: str = "auto",
    rtol: Number | None = None,
    max_steps: int = 1_000_000,
    seed: int = 0,
    record: Mapping[str, Any] | None = None,
    **options: Any,
):
    r"""Holds paths of gradient flow and descent against every bound of M22, over random starts of several kinds.

    Bounds on the rate at each state: Lemma 7, Proposition 1, Theorem 3's `q lambda_r c(t)`. Bounds on the excess loss along
    the path: Theorem 3, Corollary 4 (M21's Theorem 1), Corollary 5 and Corollary 6 with t0 the first observed time at which
    there is a margin; 5 and 6 without the papers' factor 2.

    **Args:**

    - `problem`: least squares or `factorization`, without a link.
    - `starts`: name -> start, such as `init.Gaussian(1000)`, or function of a key that returns a two-layer network; or one start.
    - `trials`: random starts of each kind, with common random numbers between the kinds.
    - `dynamics`: `"flow"`, `"descent"`, or both.
    - `horizon`: the last time, of the flow's clock; default: enough for the excess loss of the slowest kind to fall by 1e-6.
    - `step_size`: of descent, whose step k counts as time `k step_size`; `"stable"` is the smallest over all starts of half
        the largest step that is stable at the end.
    - `points`, `spacing`: how many times to look, from 0 to the horizon, `"linear"` or `"log"`.
    - `solver`, `rtol`: of the flow, rtol by default 1e-9 (1e-5 in float32); `max_steps`: step budget of a trial.
    - `seed`: of the starts; `record`: further entries for the stored settings.
    - `options` go to `run_ensemble` (`store`, `chunk`, `batch`, `progress`).

    **Returns:** an `xarray.Dataset` with dimensions (case, trial, dynamics, statement or rate_statement, time); see
    `ATTRIBUTES`. A statement whose hypotheses fail keeps its number, and `applies` is false: hypothesis not met. Failed
    trials keep their values and are flagged by `ok` and `succeeded`; `summarise` masks them.

    **Raises:** `ValueError` for unknown names, a start that does not exist for this problem, numbers out of range, or descent
    of more than `max_steps` steps.

    **Notes:** losses are compared as far as they are resolved: the square root of a loss may exceed that of a bound by that of
    `resolution`, the loss of an error `rtol s_1 ||U1||_F ||V||_F` (machine epsilon for descent).

    **Source:** M22 Fig. 3, 5, 6.
    """
    starts = {"start": starts} if isinstance(starts, init.AbstractStart) else dict(starts)
    starts = {
        name: start if isinstance(start, init.AbstractStart) else init.FromFunction(start)
        for name, start in starts.items()
    }
    if rtol is None:
        rtol = 1e-9 if problem.dtype == jnp.float64 else 1e-5
    _check(problem, starts, dynamics, points, spacing, rtol, max_steps)
    if horizon is not None:
        check_positive(horizon, "horizon")
    if isinstance(step_size, str):
        check_choice(step_size, "step_size", ("stable",))
    else:
        check_positive(step_size, "step_size")
    key, batch = jax.random.key(seed), options.get("batch", "auto")
    needs_step = "descent" in dynamics and isinstance(step_size, str)
    if horizon is None or needs_step:
        survey = _survey(problem, starts, trials, key, batch)
        if horizon is None:
            horizon = float(survey["horizon"].median("trial").max())
            if not math.isfinite(horizon):
                raise ValueError(no_time_scale(problem))
    step, numbers = None, None
    ts = time_grid(float(horizon), points, spacing)
    if "descent" in dynamics:
        step = float(survey["step"].min()) if needs_step else float(step_size)
        numbers = step_numbers(ts, step, max_steps)
        ts = step * numbers
    dynamics = tuple(dynamics)
    trial = _make_trial(problem, starts, dynamics, ts, step, numbers, solver, float(rtol), max_steps)
    dataset = run_ensemble(
        trial,
        {"case": np.arange(len(starts))},
        trials,
        key=key,
        dims=DIMS,
        attributes=ATTRIBUTES,
        settings={
            **(record or {}),
            "study": "audit",
            "cases": {name: start.label() for name, start in starts.items()},
            "starts": {name: of_start(start, problem) for name, start in starts.items()},
            "dynamics": list(dynamics),
            "times": ts.tolist(),
            "step_size": step,
            "solver": solver,
            "rtol": float(rtol),
            "max_steps": max_steps,
            "seed": seed,
            **of_problem(problem),
        },
        **options,
    )
    return labelled(dataset)


def labelled(dataset):
    """The dataset with the names of cases, dynamics and statements and the times as coordinates; as `audit` returns it.

    **Args:** `dataset`, as `open_sweep` reads it from a store of an audit.
    """
    settings = dataset.attrs["settings"]
    dataset = dataset.assign_coords(
        case=list(settings["cases"]),
        dynamics=settings["dynamics"],
        statement=list(LOSS_STATEMENTS),
        rate_statement=list(RATE_STATEMENTS),
        time=np.array(settings["times"]),
    )
    dataset["time"].attrs = {"long_name": "time of the flow; for descent, steps times step size"}
    return dataset


def _check(problem, starts, dynamics, points, spacing, rtol, max_steps) -> None:
    if problem.link is not None:
        raise ValueError("The statements are for problems without a link function: leave out `link`.")
    if problem.regularization is not None:
        raise ValueError("The statements are for the loss alone, without a penalty on the imbalance.")
    check_size(problem)
    if not starts:
        raise ValueError("Give at least one start, such as {'wide': init.Gaussian(1000, alpha=0.5)}.")
    for start in starts.values():
        start.check(problem)
    if not dynamics or len(set(dynamics)) != len(dynamics):
        raise ValueError(f"Argument `dynamics` must name 'flow', 'descent' or both once, but is {tuple(dynamics)!r}.")
    for name in dynamics:
        check_choice(name, "dynamics", DYNAMICS)
    check_choice(spacing, "spacing", ("linear", "log"))
    check_positive(rtol, "rtol")
    if points < 2:
        raise ValueError(f"Argument `points` must be at least 2, but is {points}.")
    if max_steps < 1:
        raise ValueError(f"Argument `max_steps` must be at least 1, but is {max_steps}.")


def _drawer(problem, starts) -> Callable[[Array, Array], ReducedTwoLayer]:
    """A function (key, case) -> start, all cases of one shape; without the frozen part, which no statement here needs.

    Starts that begin with a Gaussian draw share it, width and scales being numbers: more widths cost no more compilation.
    """
    starts = list(starts.values())
    from_gaussian = [isinstance(start, init.AbstractGaussianStart) for start in starts]
    numbers = np.array(
        [
            (float(start.h), *map(float, start.scales())) if begins else (1.0, 1.0, 1.0)
            for start, begins in zip(starts, from_gaussian, strict=True)
        ]
    )
    kinds = [
        dataclasses.replace(start, h=1, std=None, alpha=None) if begins else start
        for start, begins in zip(starts, from_gaussian, strict=True)
    ]
    # Equal ones are one branch.
    index = [next(i for i, other in enumerate(kinds) if other is kind or bool(other == kind)) for kind in kinds]
    different = sorted(set(index))

    def one(start, begins, key, gaussian):
        model = start.design(problem, gaussian) if begins else as_core(start.draw(problem, key=key), problem)
        dtype = problem.dtype
        return ReducedTwoLayer(
            model.U1.astype(dtype), model.V.astype(dtype), model.width.astype(dtype), problem.num_frozen, None
        )

    branches = [partial(one, kinds[i], from_gaussian[i]) for i in different]
    places = [different.index(i) for i in index]

    def drawer(key, case):
        case = jnp.round(case).astype(jnp.int32)
        width, std_U, std_V = jnp.asarray(numbers)[case]
        gaussian = init.gaussian_core(problem, width, std=(std_U, std_V), key=key) if any(from_gaussian) else None
        return jax.lax.switch(jnp.asarray(places)[case], branches, key, gaussian)

    return drawer


def _survey(problem, starts, trials, key, batch):
    """A stable step and a horizon for every start."""
    drawer = _drawer(problem, starts)

    def look(key, case):
        start = drawer(key, case)
        return {"step": theory.stable_step(start, problem), "horizon": default_horizon(start, problem)}

    return run_ensemble(look, {"case": np.arange(len(starts))}, trials, key=key, batch=batch)


def _make_trial(
    problem, starts, dynamics, ts, step, numbers, solver, rtol, max_steps
) -> Callable[..., dict[str, Array]]:
    drawer = _drawer(problem, starts)
    ts = jnp.asarray(ts, problem.dtype)

    def move(start, name):
        watched = {"excess_loss": "excess_loss", "imbalance_drift": "imbalance_drift"}
        if name == "flow":
            return gradient_flow(
                start, problem, ts, observables=watched, solver=solver, rtol=rtol, max_steps=max_steps, keep_models=True
            )
        return gradient_descent(
            start,
            problem,
            int(numbers[-1]),
            optimizer=plain_descent(step),
            save_at=numbers,
            observables=watched,
            differentiate="forward",
            keep_models=True,
        )

    def trial(key, case):
        start = drawer(key, case)
        path = [_along(start, move(start, name), problem, ts, rtol if name == "flow" else None) for name in dynamics]
        outputs = {name: jnp.stack([values[name] for values in path]) for name in path[0]}
        plus, minus, level = theory.imbalance(start, problem)
        local, tight = theory.local_rate(start, problem), theory.tightness(start, problem)
        # As for Delta in Corollary 4: what is zero up to round-off does not count as positive.
        constant = theory.convergence_constant(start, problem)
        return {
            **outputs,
            "imbalance_plus": plus,
            "imbalance_minus": minus,
            "imbalance_level": level,
            "local_rate": local.value,
            "local_rate_applies": local.applies & (constant > _round_off(start, problem)),
            "tightness_applies": tight.applies,
            "tightness_attained": tight.attained,
            "ok": jnp.all(outputs["succeeded"]),
        }

    return trial


def _along(start, trajectory, problem, ts, rtol) -> dict[str, Array]:
    """One path against every statement."""
    U1, V = theory.moving_layers(start, problem)
    eps = float(jnp.finfo(V.dtype).eps)
    # Equality is allowed, and the round-off of the rates is far below this.
    slack = max(1e-9, 1000 * eps)
    losses = trajectory.observables["excess_loss"]
    reached = jnp.isfinite(losses)
    # Decompositions are not asked about weights that were never reached; their numbers are blanked below.
    models = jax.tree.map(
        lambda leaf, first: jnp.where(reached.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, first),
        trajectory.models,
        start,
    )

    def look(model):
        rate = theory.instantaneous_rate(model, problem)
        bounds = (
            theory.lemma7(model, problem).value,
            theory.rate_bound(model, problem).value,
            theory.corollary5(model, problem).value,
        )
        return rate, jnp.stack(bounds), theory.margin(model, problem)

    rate, rate_bound, margin = jax.lax.map(look, models)
    rate, margin = jnp.where(reached, rate, jnp.inf), jnp.where(reached, margin, jnp.inf)
    rate_bound = jnp.where(reached, rate_bound.T, jnp.inf)

    has_margin = reached & (margin > 0)
    begin = jnp.argmax(has_margin)
    at_margin = jax.tree.map(lambda leaf: leaf[begin], models)
    first = theory.loss_bound(start, problem, ts)
    level = theory.corollary4(start, problem)
    # Delta > 0 is a statement on exact numbers; a balanced start has one of round-off.
    imbalanced = level.applies & (theory.imbalance(start, problem).level > _round_off(start, problem))
    later = theory.corollary6(at_margin, problem, ts, ts[begin])
    loss_bound = jnp.stack([first.value, jnp.exp(-level.value * ts) * losses[0], first.value, later.value])
    applies = jnp.stack([first.applies, imbalanced, margin[0] > 0, jnp.any(has_margin)])

    accuracy = 10 * eps if rtol is None else rtol
    error = accuracy * problem.singular_values[0] * jnp.linalg.norm(U1) * jnp.linalg.norm(V)
    resolution = problem.scale / 2 * error**2
    above = jnp.sqrt(losses) > jnp.sqrt(loss_bound) * (1 + slack) + jnp.sqrt(resolution)
    begins = jnp.stack([losses[0], losses[0], losses[0], losses[begin]])[:, None]
    fallen = jnp.log(begins / jnp.where(reached & (losses > 0), losses, 1))
    judged = (loss_bound < begins * (1 + slack)) & reached & (losses > 100 * resolution) & (fallen > 1e-6)
    promised = jnp.log(begins / jnp.where(judged, jnp.maximum(loss_bound, jnp.finfo(V.dtype).tiny), 1))
    return {
        "excess_loss": losses,
        "loss_bound": loss_bound,
        "loss_tightness": jnp.where(judged, promised / jnp.where(judged, fallen, 1), jnp.nan),
        "applies": applies,
        "loss_crossed": applies & jnp.any(above & reached, axis=-1),
        "rate": rate,
        "rate_bound": rate_bound,
        "rate_crossed": jnp.any((rate_bound > rate * (1 + slack)) & reached, axis=-1),
        "margin": margin,
        "margin_time": jnp.where(jnp.any(has_margin), ts[begin], jnp.inf),
        "imbalance_drift": trajectory.observables["imbalance_drift"],
        "resolution": resolution,
        "result": trajectory.result,
        "succeeded": trajectory.result == FINISHED,
        "num_steps": trajectory.stats["num_steps"],
    }


def _round_off(model, problem) -> Array:
    """What counts as zero among eigenvalues of D."""
    U1, V = theory.moving_layers(model, problem)
    return 100 * jnp.finfo(V.dtype).eps * (jnp.sum(U1**2) + jnp.sum(V**2))


def summarise(dataset, ratio: Number = 1e-2):
    """Statistics over the starts of an audit.

    **Args:** `dataset`, from `audit`; `ratio`, of excess losses, for `time_to_ratio`.

    **Returns:** an `xarray.Dataset` over (case, dynamics) and where it makes sense statement and time:

    - `applies`, `local_rate_applies`, `tightness_attained` and `tightness_applies`: frequencies, with exact 95% intervals
        (`..._low`, `..._high`);
    - `loss_crossed`, `rate_crossed`: how many trials cross a bound whose hypotheses hold, with `..._low`, `..._high` of the
        frequency;
    - `rate_tightness`, bound over rate at every time at which the losses of half of the starts are resolved, and
        `loss_tightness` over all times, of trials in which the statement applies: `..._median`, `..._low` (5%), `..._high`
        (95%), `..._largest`;
    - `excess_loss`, `loss_bound`, `rate`, `rate_bound`: medians at every time, the last two as far as `rate_tightness` goes;
    - `imbalance_plus`, `imbalance_minus`, `imbalance_level`, `local_rate`, `drift`: medians;
    - `time_to_ratio`: median time at which the excess loss is `ratio` of its start, infinity if it never is;
    - `trials`, `failures`.

    Quantiles are by the nearest rank.
    """
    import xarray as xr

    if not 0 < ratio < 1:
        raise ValueError(f"Argument `ratio` is one of excess losses and must lie in (0, 1), but is {ratio:g}.")
    if "computed" in dataset.coords:
        dataset = dataset.isel(trial=np.flatnonzero(dataset["computed"].values))
    dataset = dataset.load().transpose("case", "trial", "dynamics", "statement", "rate_statement", "time", ...)
    good = dataset["succeeded"].astype(bool)
    counts = good.sum("trial")
    summary = xr.Dataset(
        coords={name: dataset[name] for name in ("case", "dynamics", "statement", "rate_statement", "time")}
    )

    def frequency(name, events, trials, count=False):
        trials = xr.broadcast(trials, events.isel(trial=0, drop=True))[0]
        happened = events.sum("trial").transpose(*trials.dims)
        value, low, high = exact_frequency(happened.values, trials.values)
        summary[name] = happened if count else (trials.dims, value)
        summary[f"{name}_low"], summary[f"{name}_high"] = (trials.dims, low), (trials.dims, high)

    frequency("applies", dataset["applies"].astype(bool) & good, counts)
    started = xr.full_like(dataset["imbalance_level"].isel(trial=0, drop=True), dataset.sizes["trial"])
    for name in ("local_rate_applies", "tightness_applies", "tightness_attained"):
        frequency(name, dataset[name].astype(bool), started)
    for name in ("loss_crossed", "rate_crossed"):
        frequency(name, dataset[name].astype(bool) & good, counts, count=True)

    def quantiles(name, values, over):
        for suffix, q in (("_low", 0.05), ("_median", 0.5), ("_high", 0.95)):
            summary[name + suffix] = _quantile(values, q, over)
        summary[f"{name}_largest"] = _quantile(values, 1.0, [*over, *({"time"} - set(over))])

    resolved = good & (dataset["excess_loss"] > 100 * dataset["resolution"])
    # Where only a few paths are left, they are the slowest ones and stand for nobody else.
    resolved = resolved & (2 * resolved.sum("trial") >= counts)
    quantiles("rate_tightness", (dataset["rate_bound"] / dataset["rate"]).where(resolved), ["trial"])
    spoken = dataset["applies"].astype(bool) & good
    quantiles("loss_tightness", dataset["loss_tightness"].where(spoken), ["trial", "time"])
    for name, kept in (("excess_loss", good), ("loss_bound", spoken), ("rate", resolved), ("rate_bound", resolved)):
        summary[name] = _quantile(dataset[name].where(kept), 0.5, ["trial"])
    for name in ("imbalance_plus", "imbalance_minus", "imbalance_level", "local_rate"):
        summary[name] = dataset[name].median("trial")
    summary["drift"] = _quantile(dataset["imbalance_drift"].isel(time=-1).where(good), 0.5, ["trial"])
    times = np.apply_along_axis(
        _crossing, -1, dataset["excess_loss"].transpose(..., "time").values, dataset["time"].values, ratio
    )
    times = xr.DataArray(times, dims=("case", "trial", "dynamics"))
    summary["time_to_ratio"] = _quantile(times.where(good), 0.5, ["trial"])
    summary["trials"] = xr.full_like(counts, dataset.sizes["trial"])
    summary["failures"] = summary["trials"] - counts
    for name in summary.data_vars:
        summary[name].attrs = {}
    summary.attrs = {"ratio": float(ratio), "interval": "95%"}
    return summary


def _quantile(values, q: float, over: Sequence[str]):
    """Quantile without NaN, by the nearest rank, so that infinity stays what it is; NaN where nothing is left."""
    import xarray as xr

    def nearest(array):
        flat = np.sort(array.reshape(*array.shape[: array.ndim - len(over)], -1), axis=-1)
        last = np.sum(~np.isnan(flat), axis=-1) - 1
        index = np.round(q * np.maximum(last, 0)).astype(int)
        return np.take_along_axis(flat, index[..., None], axis=-1)[..., 0]

    return xr.apply_ufunc(nearest, values, input_core_dims=[list(over)])


def _crossing(losses: np.ndarray, ts: np.ndarray, ratio: float) -> float:
    """When the loss falls below `ratio` of its start, with the logarithm interpolated linearly."""
    below = np.flatnonzero(losses <= ratio * losses[0])
    if below.size == 0:
        return math.inf
    i = below[0]
    high, low, target = (math.log(max(value, 1e-300)) for value in (losses[i - 1], losses[i], ratio * losses[0]))
    return float(ts[i - 1] + (ts[i] - ts[i - 1]) * (high - target) / (high - low))
