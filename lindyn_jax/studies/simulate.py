"""One trajectory: a start, moved by flow or descent, as a labelled dataset."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _files, init, theory
from .._checks import check_choice, check_positive, is_name
from .._public import public
from ..ensemble import describe_environment, save_dataset
from ..models import AbstractModel, Reduction, Rest, TwoLayer
from ..observables import OBSERVABLES, attributes
from ..problems import LeastSquares
from ..reduction import reduce
from ..trajectory import DIVERGED, RESULTS, STOPPED, Trajectory
from ._record import of_problem, of_start
from ._starts import as_start
from .study import Choices, Options, Settled, Table

Number = float | int

# What options of this and of other studies are said to be.
UNTIL = "Last time; by default when the excess loss has fallen by about 1e-6. Descent counts steps times step size."
STEP = "Step size of descent: a number, or stable (half of one that is safe on the whole path)."
SOLVER = "Solver of the flow; radau is implicit and structured, lie explicit and keeps D, kvaerno5 implicit."
SOLVERS = Choices(("auto", "radau", "lie", "tsit5", "dopri8", "kvaerno5"))
DYNAMICS = Choices(("flow", "descent"))

DEFAULT_OBSERVABLES = ("loss", "excess_loss", "rate", "rate_bound", "distance_to_theta_hat", "imbalance_drift")


def as_core(model: Any, problem: LeastSquares) -> Reduction:
    """A two-layer network in its reduced form, padded to k = r + m columns, with a frozen part that may be zero."""
    p = problem.rank + problem.num_outputs
    reduced = model if model.is_reduced else reduce(model, problem)
    U1, V = reduced.U1, reduced.V
    pad = ((0, 0), (0, p - V.shape[1]))
    core = TwoLayer(jnp.pad(U1, pad), jnp.pad(V, pad))
    frozen, rest = None, None
    if problem.num_frozen > 0:
        rows = min(p, problem.num_frozen)
        frozen = jnp.zeros((0, V.shape[1]), core.V.dtype) if reduced.frozen is None else reduced.frozen
        frozen = jnp.pad(frozen, ((0, max(rows - frozen.shape[0], 0)), pad[1]))
        rest = reduced.rest if any(reduced.rest) else (Rest.of(jnp.zeros((), core.V.dtype)), None)
    coordinates = reduced.coordinates
    return Reduction(core, reduced.width, problem.num_frozen, frozen, rest=rest, coordinates=coordinates)


def default_horizon(model: TwoLayer | Reduction, problem: LeastSquares) -> Float[Array, ""]:
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


@eqx.filter_jit
def _draw(problem: LeastSquares, start: init.AbstractStart, *, key):
    """Compiled once for each start and each shape."""
    return start.draw(problem, key=key)


_default_horizon, _stable_step = jax.jit(default_horizon), jax.jit(theory.stable_step)


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


def check_times(run, spacings: Sequence[str]) -> None:
    """Refuses times, steps and budgets that cannot be, of whatever has such fields."""
    check_choice(run.spacing, "spacing", spacings)
    if run.points < 2:
        raise ValueError(f"Argument `points` must be at least 2, but is {run.points}.")
    if run.max_steps is not None and run.max_steps < 1:
        raise ValueError(f"Argument `max_steps` must be at least 1, but is {run.max_steps}.")
    if run.horizon is not None:
        check_positive(run.horizon, "horizon")
    if is_name(run.step_size):
        check_choice(run.step_size, "step_size", ("stable",))
    else:
        check_positive(run.step_size, "step_size")


class Simulate(Settled):
    """One trajectory by flow or descent: observables as table, csv, dataset and figure.

    One run has no grid, no trials and nothing to resume: of a study it has the options, the table, the JSON and the picture, and
    no store, reductions or progress.

    **Fields:** as the arguments of `simulate`; `observables` may be `("all",)`, all that are defined for this problem.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> study = ld.studies.Simulate(problem, start, horizon=2.0, points=3, observables=("loss",))
        >>> summary = study.run()
        >>> print(summary["time"].values, summary["loss"].values, summary.attrs["ok"])
        [0. 1. 2.] [2.470 1.664 0.2155] 1
    """

    problem: LeastSquares
    start: init.AbstractStart | TwoLayer | Reduction
    dynamics: Annotated[str, "Continuous or in steps.", DYNAMICS] = "flow"
    horizon: Annotated[float | None, UNTIL] = None
    step_size: Annotated[float | str, STEP] = "stable"
    points: Annotated[int, "How many times to observe."] = 50
    spacing: Annotated[
        str, "Spacing of times; auto: log when X^T X is ill-conditioned.", Choices(("auto", "linear", "log"))
    ] = "auto"
    observables: Annotated[
        tuple[str, ...] | None,
        "Names with commas between them, or all: loss, excess_loss, reconstruction_error, rate, rate_bound, lemma7, margin, "
        "singular_values, distance_to_theta_hat, imbalance_spectrum, imbalance_drift, ... (a wrong name lists all).",
    ] = None
    stop: Annotated[float | None, "End at this excess-loss ratio."] = None
    solver: Annotated[str, SOLVER, SOLVERS] = "auto"
    rtol: Annotated[float | None, "Relative tolerance of the flow, by default 1e-9."] = None
    max_steps: Annotated[int | None, "Step budget, by default 1e5 for flow and 1e6 for descent."] = None

    name = "simulate"
    options: ClassVar[Options] = {
        "seed": (0, "Seed of the start."),
        "out": (Path("simulate"), "Folder for trajectory.csv, trajectory.zarr and the figure."),
    }

    def __post_init__(self):
        self.observables = self._observed()

    def _observed(self) -> tuple[str, ...]:
        """Names of the observables; the default ones where none are given."""
        chosen = DEFAULT_OBSERVABLES if self.observables is None else tuple(self.observables)
        if chosen == ("all",):
            sizes = self.problem.num_inputs, self.problem.num_outputs
            network = TwoLayer(*(np.zeros((size, 1), self.problem.dtype) for size in sizes))
            chosen = tuple(n for n, f in OBSERVABLES.items() if f.facts.refusal(network, self.problem) is None)
        return chosen

    def check(self) -> None:
        check_choice(self.dynamics, "dynamics", ("flow", "descent"))
        for name in self._observed():
            check_choice(name, "observables", tuple(OBSERVABLES))
        if not self._observed():
            raise ValueError(f"Give at least one observable of {', '.join(OBSERVABLES)}.")
        check_times(self, ("auto", "linear", "log"))
        if self.problem.link is not None:
            raise ValueError("The study is for problems without a link function.")
        check_size(self.problem)
        as_start(self.start).check(self.problem)

    def label(self) -> str:
        """The start in words."""
        return as_start(self.start).label()

    def run(self, *, seed: int = 0, record: Mapping[str, Any] | None = None):
        """Moves the start; as `simulate`."""
        import xarray as xr

        from ..descent import gradient_descent, plain_descent
        from ..flow import gradient_flow

        self.check()
        problem, start, dynamics, observables = self.problem, as_start(self.start), self.dynamics, self._observed()
        horizon, spacing, rtol, stop, max_steps = self.horizon, self.spacing, self.rtol, self.stop, self.max_steps
        model = _draw(problem, start, key=jax.random.key(seed))
        if horizon is None:
            horizon = float(_default_horizon(model, problem))
            if not math.isfinite(horizon):
                raise ValueError(no_time_scale(problem))
        if spacing == "auto":
            spacing = "log" if float(problem.condition) > 100 else "linear"
        ts = time_grid(float(horizon), self.points, spacing)
        step, numbers = None, None
        if dynamics == "flow":
            trajectory = gradient_flow(
                model,
                problem,
                ts,
                observables=observables,
                solver=self.solver,
                rtol=rtol,
                stop=stop,
                max_steps=max_steps or 100_000,
            )
        else:
            step, numbers = descent_grid(model, problem, ts, self.step_size, max_steps or 1_000_000)
            trajectory = gradient_descent(
                model,
                problem,
                int(numbers[-1]),
                optimizer=plain_descent(step),
                save_at=numbers,
                observables=observables,
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
        told = RESULTS[result]
        if result == DIVERGED and self.step_size != "stable":
            told += f"; the step is {step:.3g}, and `stable` is {float(_stable_step(model, problem)):.3g}"
        dataset.attrs = {
            "start": self.label(),
            "dynamics": dynamics,
            "result": told,
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
                "start": of_start(start, problem),
                "points": self.points,
                "spacing": spacing,
                "observables": list(observables),
                "stop": None if stop is None else float(stop),
                "solver": self.solver if dynamics == "flow" else None,
                "rtol": None if rtol is None else float(rtol),
                "max_steps": max_steps,
            },
            "environment": describe_environment(),
        }
        return dataset

    def table(self, summary, rows: int = 12, components: int = 3) -> list[Table | str]:
        shown = columns(summary)
        for name in summary.data_vars:
            hidden = {f"{name}_{i + 1}" for i in range(components, summary[name][0].size)} - set(summary.data_vars)
            shown = {key: value for key, value in shown.items() if key not in hidden}
        sizes = {name: summary[name][0].size for name in summary.data_vars}
        shortened = [
            f"{name}: components 1 to {components} of {size} shown; all are in the csv"
            for name, size in sizes.items()
            if size > components
        ]
        count, known = summary.sizes["time"], summary.attrs
        picked = sorted({round(i * (count - 1) / max(min(rows, count) - 1, 1)) for i in range(min(rows, count))})
        lines = [[f"{v[row]}" if name == "step" else f"{v[row]:.5g}" for name, v in shown.items()] for row in picked]
        step = f", step size {known['step_size']:.4g}" if "step_size" in known else ""
        return [
            Table(f"{known['start']}; {known['dynamics']}", tuple(shown), lines, tight=False),
            f"{known['result']}; {known['num_steps']} steps{step}",
            *([f"{len(picked)} of {count} rows shown; all are in the csv"] if len(picked) < count else []),
            *shortened,
        ]

    def draw(self, dataset, summary, title: str):
        from .. import plots

        return plots.trajectory(dataset, title)


@public
def simulate(
    problem: LeastSquares,
    start: init.AbstractStart | TwoLayer | Reduction = init.Gaussian(100),  # noqa: B008
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
    - `start`: such as `init.Gaussian(100)`, or a two-layer network.
    - `dynamics`: `"flow"` or `"descent"`.
    - `horizon`: the last time, of the flow's clock; descent takes `horizon/step_size` steps. Default: `default_horizon`.
    - `step_size`: of descent, a number or `"stable"`, that of `stable_step`: half of one that is safe on the whole path.
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

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> found = ld.studies.simulate(problem, start, horizon=2.0, points=3, spacing="linear", observables=["loss"])
        >>> print(found["time"].values, found["loss"].values)
        [0. 1. 2.] [2.470 1.664 0.2155]
    """
    return Simulate(
        problem, start, dynamics, horizon, step_size, points, spacing, tuple(observables), stop, solver, rtol, max_steps
    ).run(seed=seed, record=record)


def descent_grid(
    model: AbstractModel, problem: LeastSquares, ts: np.ndarray, step_size: Number | str, max_steps: int
) -> tuple[float, np.ndarray]:
    """The step size, and the step numbers nearest to the times `ts`."""
    if step_size != "stable":
        return float(step_size), step_numbers(ts, float(step_size), max_steps)
    step, condition = float(_stable_step(model, problem)), float(problem.condition)
    advice = f"the condition number of X^T X is {condition:.2g}: scale the columns of X alike, or "
    return step, step_numbers(ts, step, max_steps, f"{advice}choose an earlier horizon or a larger budget.")


BUDGET = "choose an earlier horizon, a larger step or a larger budget."


def step_numbers(ts: np.ndarray, step: float, max_steps: int, advice: str = BUDGET) -> np.ndarray:
    """The step numbers nearest to the times `ts`, each once, ending with at least one step."""
    steps = ts[-1] / step
    if steps > max_steps:
        raise ValueError(
            f"Descent with step {step:.3g} to time {ts[-1]:.3g} takes {steps:.2g} steps, more than the budget of {max_steps:g}: "
            f"{advice}"
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
