"""One trajectory: a start of a named kind, moved by flow or descent, as a labelled dataset.

Starts are drawn in their reduced form, so that the width is a number and costs nothing. Starts with the same key, width and
`std_U std_V` have the same product: what differs between them is the imbalance alone.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .. import _files, init, theory
from .._checks import check_choice, check_positive
from .._public import public
from ..descent import gradient_descent, plain_descent, stable_step
from ..ensemble import describe_environment
from ..flow import gradient_flow
from ..models import AbstractModel, Frozen, ReducedTwoLayer, TwoLayer
from ..observables import OBSERVABLES, attributes
from ..problem import LeastSquares, factorization
from ..reduction import reduce
from ..store import save_dataset
from ..trajectory import RESULTS, STOPPED, Trajectory
from ._record import of_arrays, of_problem

Kind = Literal["gaussian", "balanced", "spectral", "imbalance"]
KINDS = ("gaussian", "balanced", "spectral", "imbalance")
Number = float | int

DEFAULT_OBSERVABLES = ("loss", "excess_loss", "rate", "rate_bound", "distance_to_theta_hat", "imbalance_drift")


class Start(NamedTuple):
    """A start by name.

    **Fields:**

    - `kind`: `"gaussian"`, independent entries; `"balanced"`, `D = 0` with the product of the Gaussian start of the same
        scale and key; `"imbalance"`, that product with the prescribed eigenvalues of D; `"spectral"`, aligned with the
        singular vectors of X^T Y.
    - `width`: h, a whole number from 1 to 1e12; at least min(r, m) for `"balanced"`, r + m for `"imbalance"`.
    - `std` or `alpha`: standard deviation of the entries (a number, or one for U and one for V), or the exponent in
        N(0, h^{-2 alpha}); `alpha = 0.5` where neither is given. `"spectral"` uses neither.
    - `positive`, `negative`: the eigenvalues of D for `"imbalance"` are `positive` (r of them) and `-negative` (m of them); a
        number stands for as many equal ones.
    - `u0`, `v0`: strengths of the modes for `"spectral"`, largest singular value first; a number stands for min(r, m, h)
        equal ones.

    The last two kinds have no part outside the range of the data, U2 = 0.

    **Source:** M22 section 4.2 (Gaussian), section 5.2 (balanced) and Appendix C (imbalance), T21 Prop. 3 (spectral).
    """

    kind: Kind = "gaussian"
    width: Number = 100
    std: Number | tuple[Number, Number] | None = None
    alpha: Number | None = None
    positive: Number | tuple[Number, ...] = 1.0
    negative: Number | tuple[Number, ...] = 1.0
    u0: Number | tuple[Number, ...] = 0.1
    v0: Number | tuple[Number, ...] = 0.1

    def label(self) -> str:
        """A few words that tell this start from others."""
        text = f"{self.kind}, h = {self.width:g}"
        if self.kind == "spectral":
            return f"{text}, u0 = {_listed(self.u0)}, v0 = {_listed(self.v0)}"
        if self.std is None:
            text += f", alpha = {0.5 if self.alpha is None else self.alpha:g}"
        else:
            text += f", std = {_listed(self.std)}"
        if self.kind == "imbalance":
            text += f", D = +{_listed(self.positive)}, -{_listed(self.negative)}"
        return text


def check_start(problem: LeastSquares, start: Start) -> None:
    """Refuses a start that does not exist for this problem.

    **Raises:** `ValueError` for an unknown kind, a width outside the kind's range, both `std` and `alpha` or one that is not
    positive, lists of the wrong length, negative entries in `positive` or `negative`.
    """
    check_choice(start.kind, "kind", KINDS)
    r, m = problem.rank, problem.num_outputs
    if not (1 <= start.width <= 1e12 and float(start.width) == round(start.width)):
        raise ValueError(f"The width must be a whole number from 1 to 1e12, but is {start.width:g}.")
    least, why = {"balanced": (min(r, m), "min(r, m)"), "imbalance": (r + m, "r + m")}.get(start.kind, (1, "1"))
    if start.width < least:
        raise ValueError(
            f"A start of kind {start.kind} needs a width of at least {why} = {least}, not {start.width:g}."
        )
    if start.std is not None and start.alpha is not None:
        raise ValueError("Give only one of `std` and `alpha`: the scale of the start by value or by exponent.")
    for value, name in ((start.alpha, "alpha"), *((value, "std") for value in _as_tuple(start.std))):
        if value is not None:
            check_positive(value, name)
    if isinstance(start.std, tuple) and len(start.std) != 2:
        raise ValueError(f"Argument `std` must be one number, or one for U and one for V, but has {len(start.std)}.")
    strengths = scales(start) if start.kind != "spectral" else (*_as_tuple(start.u0), *_as_tuple(start.v0))
    if max(map(abs, strengths)) > 1e30 or (
        start.kind == "imbalance" and max(*_as_tuple(start.positive), *_as_tuple(start.negative)) > 1e60
    ):
        raise ValueError(
            "The start has weights above 1e30, whose loss is no number that can be followed: choose units in which they are "
            "closer to 1."
        )
    if start.std is not None and start.kind != "spectral" and min(scales(start)) < 1e-100:
        raise ValueError(
            f"With standard deviations of {_listed(start.std)} the squares of the weights vanish: the start is the saddle at "
            "zero, which gradients never leave. Use a larger one."
        )
    alpha = 0.5 if start.alpha is None else start.alpha
    if start.kind != "spectral" and start.std is None and alpha * math.log10(start.width) > 100:
        raise ValueError(
            f"With alpha = {alpha:g} and h = {start.width:g} the weights h^(-alpha) vanish: the start is the saddle at zero, "
            "which gradients never leave. Use a smaller exponent."
        )
    if start.kind == "imbalance":
        for values, name, size in ((start.positive, "positive", r), (start.negative, "negative", m)):
            if len(_as_tuple(values)) not in (1, size):
                raise ValueError(
                    f"Argument `{name}` must be one number or {size} of them, but has {len(_as_tuple(values))}."
                )
            if not all(math.isfinite(value) and value >= 0 for value in _as_tuple(values)):
                raise ValueError(
                    f"Argument `{name}` must have finite entries of at least 0 (its sign is understood), but is {values}."
                )
    if start.kind == "spectral":
        most = int(min(r, m, start.width))
        lengths = {len(_as_tuple(values)) for values in (start.u0, start.v0)} - {1}
        if len(lengths) > 1 or any(length > most for length in lengths):
            raise ValueError(
                f"Arguments `u0` and `v0` must be one number each, or lists of one length up to min(r, m, h) = {most}."
            )
        if not all(math.isfinite(value) for value in (*_as_tuple(start.u0), *_as_tuple(start.v0))):
            raise ValueError("Arguments `u0` and `v0` must be finite numbers.")
        if not any((*_as_tuple(start.u0), *_as_tuple(start.v0))):
            raise ValueError("The start is the saddle U = 0, V = 0, which gradients never leave: give it weights.")


def draw(problem: LeastSquares, start: Start, *, key: PRNGKeyArray) -> ReducedTwoLayer:
    """The start in its reduced form, with k = r + m columns whatever its kind and width.

    **Args:** `problem`; `start`; `key`, of the Gaussian draw that all kinds but `"spectral"` begin with.

    **Returns:** a `ReducedTwoLayer`.

    **Raises:** `ValueError` as `check_start`.

    **Notes:** the hidden layer is in a basis of its own: rotating it changes nothing that the data or the statements see.
    """
    check_start(problem, start)
    if start.kind == "spectral":
        return _spectral(problem, start)
    return design(problem, start, init.gaussian_core(problem, start.width, std=scales(start), key=key))


def scales(start: Start) -> tuple[float, float]:
    """Standard deviations of the entries of U and V in the Gaussian draw that the start begins with."""
    if start.std is None:
        alpha = 0.5 if start.alpha is None else start.alpha
        return (float(start.width) ** -alpha,) * 2
    std_U, std_V = start.std if isinstance(start.std, tuple) else (start.std, start.std)
    return float(std_U), float(std_V)


def design(problem: LeastSquares, start: Start, gaussian: ReducedTwoLayer) -> ReducedTwoLayer:
    """The start that begins with this Gaussian core: the core itself, balanced, or with prescribed imbalance."""
    if start.kind == "gaussian":
        return gaussian
    r, m, dtype = problem.rank, problem.num_outputs, problem.dtype
    # The designs are those of matrix factorization in the data's coordinates.
    small = factorization(jnp.zeros((r, m), dtype))
    if start.kind == "imbalance":
        positive, negative = (
            jnp.broadcast_to(jnp.asarray(_as_tuple(values), dtype), (size,))
            for values, size in ((start.positive, r), (start.negative, m))
        )
        core = init.with_imbalance(small, gaussian.product(), positive, negative, r + m)
        return as_core(ReducedTwoLayer(core.U, core.V, gaussian.width, problem.num_frozen, None), problem)
    core = init.balanced(small, gaussian.product(), r + m)
    frozen = None
    if gaussian.frozen is not None:
        # The same product outside the range of the data as well, as far as the row space of the inside one allows.
        outside = gaussian.frozen_product() @ jnp.linalg.pinv(core.V.T)
        frozen = Frozen(outside, jnp.linalg.norm(outside), jnp.ones((), dtype))
    return ReducedTwoLayer(core.U, core.V, gaussian.width, problem.num_frozen, frozen)


def _spectral(problem: LeastSquares, start: Start) -> ReducedTwoLayer:
    r, m = problem.rank, problem.num_outputs
    u0, v0 = _as_tuple(start.u0), _as_tuple(start.v0)
    size = max(len(u0), len(v0)) if len(u0) + len(v0) > 2 else int(min(r, m, start.width))
    u0, v0 = (jnp.broadcast_to(jnp.asarray(values, problem.dtype), (size,)) for values in (u0, v0))
    # In the data's coordinates X^T Y is S Ytil.
    core = init.spectral(problem.singular_values[:, None] * problem.Ytil, u0, v0, r + m)
    return as_core(ReducedTwoLayer(core.U, core.V, start.width, problem.num_frozen, None), problem)


def as_core(model: TwoLayer | ReducedTwoLayer, problem: LeastSquares) -> ReducedTwoLayer:
    """A two-layer network in its reduced form, padded to k = r + m columns, with a frozen part that may be zero."""
    p = problem.rank + problem.num_outputs
    reduced = reduce(model, problem)[0] if isinstance(model, TwoLayer) else model
    pad = ((0, 0), (0, p - reduced.V.shape[1]))
    U1, V = jnp.pad(reduced.U1, pad), jnp.pad(reduced.V, pad)
    frozen, rows = reduced.frozen, min(p, problem.num_frozen)
    if problem.num_frozen == 0:
        frozen = None
    elif frozen is None:
        zero = jnp.zeros((), V.dtype)
        frozen = Frozen(jnp.zeros((rows, p), V.dtype), zero, jnp.ones((), V.dtype))
    else:
        core = jnp.pad(frozen.core, ((0, max(rows - frozen.core.shape[0], 0)), pad[1]))
        frozen = Frozen(core, frozen.norm, frozen.factor)
    return ReducedTwoLayer(U1, V, reduced.width, problem.num_frozen, frozen)


def default_horizon(model: TwoLayer | ReducedTwoLayer, problem: LeastSquares) -> Float[Array, ""]:
    """A time by which the excess loss has fallen by about 1e-6 from this start, also at its slowest mode.

    `(log 1e6 + log max(1, ||Theta_hat||_F/||Z1||_F^2))/(q lambda_r max(c, 2 sigma))`, with c the limit of c(t) in M22 (22)
    and sigma the least nonzero singular value of Theta_hat; the second logarithm is the wait of a small start. Infinity where
    neither is positive.
    """
    U1, V = theory.moving_layers(model, problem)
    sigma = jnp.linalg.svd(problem.reduced_theta_hat, compute_uv=False)
    seen = sigma > 1e-6 * sigma[0]
    least = jnp.min(jnp.where(seen, sigma, jnp.inf))
    stiffness = problem.scale * problem.singular_values[-1] ** 2
    rate = jnp.maximum(
        theory.local_rate(model, problem).value, 2 * stiffness * jnp.where(jnp.isfinite(least), least, 0)
    )
    size = jnp.sum(U1**2) + jnp.sum(V**2)
    # What is left of an exact zero by round-off sets no time scale.
    rate = jnp.where(rate > 1e-12 * stiffness * size, rate, 0)
    wait = jnp.log(jnp.maximum(1, jnp.linalg.norm(sigma) / size))
    return (math.log(1e6) + wait) / rate


# Compiled once for each kind of start and each shape.
_draw = jax.jit(draw, static_argnames="start")
_default_horizon, _stable_step = jax.jit(default_horizon), jax.jit(stable_step)


def no_time_scale(problem: LeastSquares) -> str:
    """Why `default_horizon` is not finite."""
    if not np.any(np.asarray(problem.Ytil)):
        return "The targets are zero in the data's coordinates, which sets no time scale: give `horizon`."
    return "Neither the start nor the data set a time scale that floating-point numbers resolve: give `horizon`."


def check_size(problem: LeastSquares) -> None:
    """Refuses data whose squares leave the range of floating-point numbers: losses and rates would be infinite or zero.

    **Raises:** `ValueError` naming the array and its size.
    """
    tiny, huge = float(jnp.finfo(problem.dtype).tiny), float(jnp.finfo(problem.dtype).max)
    s = np.asarray(problem.singular_values, float)
    Y = np.abs(np.asarray(problem.Ytil, float))
    with np.errstate(over="ignore", under="ignore"):
        for name, most, square in (
            ("X", s[0], max(s[0] ** 2, float(problem.scale) * s[0] ** 2)),
            ("Y", Y.max(), float(problem.scale) * Y.size * Y.max() ** 2),
        ):
            # With four decades to spare for products with the start.
            if most > 0 and not tiny * 1e4 < square < huge * 1e-4:
                raise ValueError(
                    f"Argument `{name}` has numbers of size {most:.3g}, whose squares {problem.dtype} cannot hold: choose units "
                    "in which they are closer to 1."
                )


def time_grid(horizon: float, points: int, spacing: str) -> np.ndarray:
    """`points` times from 0 to `horizon`: evenly spaced, or 0 and then by equal factors over six decades."""
    check_choice(spacing, "spacing", ("linear", "log"))
    if spacing == "linear":
        return np.linspace(0, horizon, points)
    return np.concatenate([[0.0], horizon * np.logspace(-6, 0, points - 1)])


@public
def simulate(
    problem: LeastSquares,
    start: Start | TwoLayer | ReducedTwoLayer = Start(),  # noqa: B008
    *,
    dynamics: Literal["flow", "descent"] = "flow",
    horizon: Number | None = None,
    step_size: Number | Literal["stable"] = "stable",
    points: int = 50,
    spacing: Literal["auto", "linear", "log"] = "auto",
    observables: Sequence[str] = DEFAULT_OBSERVABLES,
    stop: Number | None = None,
    solver: str = "auto",
    rtol: Number | None = None,
    max_steps: int | None = None,
    seed: int = 0,
    record: Mapping[str, Any] | None = None,
):
    """Moves one start and returns what was observed as an `xarray.Dataset` over time.

    **Args:**

    - `problem`: least squares or `factorization`, without a link.
    - `start`: a `Start` by name, or a two-layer network.
    - `dynamics`: `"flow"` or `"descent"`.
    - `horizon`: the last time, of the flow's clock; descent takes `horizon/step_size` steps. Default: `default_horizon`.
    - `step_size`: of descent, a number or `"stable"`, half the largest step that is stable at the end.
    - `points`, `spacing`: how many times to observe, from 0 to the horizon; `"auto"` is logarithmic when the condition
        number of X^T X exceeds 100.
    - `observables`: names from `observables.OBSERVABLES`, those of the user's own (`observables.observable`) among them.
    - `stop`: end at this excess-loss ratio.
    - `solver`, `rtol`: of the flow; `max_steps`: step budget, by default 1e5 for the flow and 1e6 for descent.
    - `seed`: of the start; `record`: further attributes for the dataset.

    **Returns:** a dataset with dimension `time`, for descent also the coordinate `step`, and the attributes `result` (how the
    run ended), `ok`, `final_time`, `num_steps` and the settings. The last row is the end of the run, also where a stop or a
    failure made it end early.

    **Raises:** `ValueError` for unknown names, a start or numbers out of range, or descent of more than `max_steps` steps.
    """
    import xarray as xr

    check_choice(dynamics, "dynamics", ("flow", "descent"))
    check_choice(spacing, "spacing", ("auto", "linear", "log"))
    for name in observables:
        check_choice(name, "observables", tuple(OBSERVABLES))
    if not observables:
        raise ValueError(f"Give at least one observable of {', '.join(OBSERVABLES)}.")
    if points < 2:
        raise ValueError(f"Argument `points` must be at least 2, but is {points}.")
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"Argument `max_steps` must be at least 1, but is {max_steps}.")
    if horizon is not None:
        check_positive(horizon, "horizon")
    if isinstance(step_size, str):
        check_choice(step_size, "step_size", ("stable",))
    else:
        check_positive(step_size, "step_size")
    if problem.link is not None:
        raise ValueError("The study is for problems without a link function.")
    check_size(problem)
    if isinstance(start, Start):
        check_start(problem, start)
        model, label = _draw(problem, start, key=jax.random.key(seed)), start.label()
    else:
        model, label = start, f"{type(start).__name__} of width {float(start.width):g}"
    if horizon is None:
        horizon = float(_default_horizon(model, problem))
        if not math.isfinite(horizon):
            raise ValueError(no_time_scale(problem))
    if spacing == "auto":
        spacing = "log" if float(problem.condition) > 100 else "linear"
    ts = time_grid(float(horizon), points, spacing)
    step, numbers = None, None
    if dynamics == "flow":
        trajectory = gradient_flow(
            model,
            problem,
            ts,
            observables=tuple(observables),
            solver=solver,
            rtol=rtol,
            stop=stop,
            max_steps=max_steps or 100_000,
        )
    else:
        step, numbers = descent_grid(model, problem, ts, step_size, max_steps or 1_000_000)
        trajectory = gradient_descent(
            model,
            problem,
            int(numbers[-1]),
            optimizer=plain_descent(step),
            save_at=numbers,
            observables=tuple(observables),
            stop=stop,
            differentiate="forward",
        )
        ts = step * numbers
    coordinates, values = _rows(trajectory, ts, numbers, step)
    dataset = xr.Dataset(coords=coordinates)
    dataset["time"].attrs = {"long_name": "time of the flow", "units": "1"}
    described = attributes()
    # In the order asked for: compiled functions return dictionaries sorted.
    for name in observables:
        value = values[name]
        dims = ("time", *(f"{name}_index" for _ in range(value.ndim - 1)))
        dataset[name] = (dims, value, described[name])
    result = int(trajectory.result)
    dataset.attrs = {
        "start": label,
        "dynamics": dynamics,
        "result": RESULTS[result],
        "ok": int(result <= STOPPED),
        "final_time": float(dataset["time"][-1]),
        "num_steps": int(trajectory.stats["num_steps"]),
        "horizon": float(horizon),
        **(record or {}),
        "seed": seed,
        **of_problem(problem),
        "loss_star": float(problem.loss_star),
        **({} if step is None else {"step_size": step}),
        "settings": {
            "start": start._asdict() if isinstance(start, Start) else {"arrays": of_arrays(model)},
            "points": points,
            "spacing": spacing,
            "observables": list(observables),
            "stop": None if stop is None else float(stop),
            "solver": solver if dynamics == "flow" else None,
            "rtol": None if rtol is None else float(rtol),
            "max_steps": max_steps,
        },
        "environment": describe_environment(),
    }
    return dataset


def descent_grid(
    model: AbstractModel, problem: LeastSquares, ts: np.ndarray, step_size: Number | str, max_steps: int
) -> tuple[float, np.ndarray]:
    """The step size, and the step numbers nearest to the times `ts`."""
    step = float(_stable_step(model, problem)) if isinstance(step_size, str) else float(step_size)
    return step, step_numbers(ts, step, max_steps)


def step_numbers(ts: np.ndarray, step: float, max_steps: int) -> np.ndarray:
    """The step numbers nearest to the times `ts`, each once, ending with at least one step."""
    steps = ts[-1] / step
    if steps > max_steps:
        raise ValueError(
            f"Descent with step {step:.3g} to time {ts[-1]:.3g} takes {steps:.2g} steps, more than the budget of {max_steps:g}: "
            "choose an earlier horizon, a larger step or a larger budget."
        )
    return np.unique(np.maximum(np.round(ts / step), np.where(ts > 0, 1, 0)).astype(int))


def _rows(trajectory: Trajectory, ts: np.ndarray, numbers: np.ndarray | None, step: float | None):
    """Coordinates and values of the slots that were reached, and of the end where it lies between them."""
    end = float(trajectory.stats["final_time"])
    reached = (ts if numbers is None else numbers) <= end * (1 + 1e-12)
    between = not np.any(reached) or (ts if numbers is None else numbers)[reached][-1] < end * (1 - 1e-12)

    def joined(values, last):
        values = np.asarray(values)[reached]
        return np.concatenate([values, np.asarray(last)[None]]) if between else values

    values = {name: joined(value, trajectory.final_observables[name]) for name, value in trajectory.observables.items()}
    if numbers is None:
        return {"time": joined(ts, end)}, values
    steps = joined(numbers, int(end))
    return {"time": step * steps, "step": ("time", steps, {"long_name": "steps of descent"})}, values


def _as_tuple(values) -> tuple:
    return values if isinstance(values, tuple) else (values,)


def _listed(values) -> str:
    return ", ".join(f"{value:g}" for value in _as_tuple(values))


def columns(dataset) -> dict[str, np.ndarray]:
    """The trajectory as columns of one length: the clock, then every observable, with components numbered from 1.

    **Args:** `dataset`, from `simulate`.
    """
    table = {name: dataset[name].values for name in ("step", "time") if name in dataset.coords}
    for name in dataset.data_vars:
        value = dataset[name].values
        if value.ndim == 1:
            table[name] = value
        else:
            table |= {f"{name}_{i + 1}": column for i, column in enumerate(value.reshape(len(value), -1).T)}
    return table


def save(dataset, folder: str | os.PathLike) -> list[Path]:
    """Writes the trajectory as `trajectory.csv` and as a Zarr store `trajectory.zarr`, and returns both paths.

    **Args:** `dataset`, from `simulate`; `folder`, made if it is not there. A trajectory saved there before is replaced.

    **Raises:** `ValueError` if the folder is a file, or holds anything else than a saved trajectory.
    """
    folder = Path(folder)
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    table = columns(dataset)
    paths = [folder / "trajectory.csv", folder / "trajectory.zarr"]
    rows = [
        ",".join(table),
        *(",".join(repr(value.item()) for value in row) for row in zip(*table.values(), strict=True)),
    ]
    _files.put(paths[0], ("\n".join(rows) + "\n").encode())
    save_dataset(dataset, paths[1])
    return paths


def check_folder(folder: str | os.PathLike) -> None:
    """Refuses a folder that holds anything else than a saved trajectory."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder: choose another one.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "trajectory.zarr").is_dir():
        raise ValueError(
            f"{folder} is not empty and holds no saved trajectory (trajectory.zarr): choose another folder."
        )


def random_target(n: int, m: int, *, seed: int = 0) -> Float[np.ndarray, "n m"]:
    """A target for `factorization`, with independent entries N(0, 1) of NumPy's `default_rng`; T21 Fig. 1 has n = 5, m = 10."""
    return np.random.default_rng(seed).normal(size=(n, m))
