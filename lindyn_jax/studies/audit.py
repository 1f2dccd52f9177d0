"""How often the convergence statements of M21 and M22 speak, how tight they are, and whether they are ever crossed.

A trial draws one start, moves it by flow and by descent, and holds every state of both paths against the bounds on the rate
and the excess losses against the bounds on the loss. The statements are proved for the flow: descent is measured with them.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import init, theory
from .._checks import check_choice, check_tolerance, is_name
from .._public import public
from ..ensemble import run_ensemble
from ..models import Reduction, TwoLayer
from ..problems import LeastSquares
from ..trajectory import RESULTS
from ._audit_summary import LOSS_STATEMENTS as LOSS_STATEMENTS
from ._audit_summary import NAMES as NAMES
from ._audit_summary import RATE_STATEMENTS as RATE_STATEMENTS
from ._audit_summary import summarise as summarise
from ._audit_summary import tables
from ._paths import along, round_off
from ._record import of_problem, of_start
from ._starts import as_start
from .simulate import (
    SOLVER,
    SOLVERS,
    STEP,
    UNTIL,
    as_core,
    check_size,
    check_times,
    default_horizon,
    no_time_scale,
    step_numbers,
    time_grid,
)
from .study import Choices, Options, Shown, Study, data_notes, sizes_of

Number = float | int
AnyStart = init.AbstractStart | Callable[..., TwoLayer | Reduction]

DYNAMICS = ("flow", "descent")

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

    def fields(self) -> dict[str, Any]:
        """The fields of `Audit`."""
        return {"problem": self.problem, "starts": self.starts, **self.options}


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
    is this package's choice; in the clock of q = 1 it is 1.5. Until then no start is stiff, so the explicit
    solver is named: an audit that is to choose compiles the implicit one as well. One of your own is chosen as ever; where
    only the audit's horizon is another, and far later, give it `solver="auto"`.

    **Source:** M22 Fig. 3 and 6, section 5.2 and appendix A.2.
    """
    if n < samples:
        raise ValueError(f"Orthonormal rows need n >= samples, but n = {n} and samples = {samples}.")
    rng = np.random.default_rng(seed)
    # The law is the same for every X with orthonormal rows; this one's singular vectors are the same on every machine.
    X = np.eye(samples, n)
    Y = X @ rng.normal(size=(n, 1)) / math.sqrt(n) + 0.01 * rng.normal(size=(samples, 1))
    stds = {"case 1": (0.1, 0.1), "case 2": (0.5, 0.02), "case 3": (0.05, 0.2)}
    starts: dict[str, init.AbstractStart] = {name: init.Gaussian(h, std=std) for name, std in stds.items()}
    starts["balanced"] = init.Balanced(h, std=stds["case 1"])
    problem = LeastSquares(X, Y, scale="averaged")
    if horizon is not None:
        return Preset(problem, starts, {"horizon": horizon, "step_size": 5e-4})
    explicit = "dopri8" if problem.dtype == jnp.float64 else "tsit5"
    return Preset(problem, starts, {"horizon": 1.5 / float(problem.scale), "step_size": 5e-4, "solver": explicit})


PRESETS: dict[str, Callable[..., Preset]] = {"m22-figure3": figure3}


class Audit(Study):
    """Every convergence bound of M22 against flow and descent: how often it speaks, how tight it is, and if it is crossed.

    **Fields:** as the arguments of `audit`; `dynamics` may be `"both"`.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> starts = {"wide": ld.init.Gaussian(1e6, alpha=0.5), "balanced": ld.init.Balanced(4)}
        >>> study = ld.studies.Audit(problem, starts)
        >>> print(study.dynamics, study.rtol, [start.label() for start in study.starts.values()])
        ('flow', 'descent') 1e-09 ['gaussian, h = 1e+06, alpha = 0.5', 'balanced, h = 4, alpha = 0.5']
    """

    problem: LeastSquares
    starts: Mapping[str, AnyStart] | init.AbstractStart
    dynamics: Annotated[str | Sequence[str], "Continuous, in steps, or both.", Choices(("flow", "descent", "both"))] = (
        "both"
    )
    horizon: Annotated[float | None, UNTIL] = None
    step_size: Annotated[float | str, STEP] = "stable"
    points: Annotated[int, "How many times to look."] = 31
    spacing: Annotated[str, "Spacing of times.", Choices(("linear", "log"))] = "linear"
    solver: Annotated[str, SOLVER, SOLVERS] = "auto"
    rtol: Annotated[float | None, "Relative tolerance of the flow.", Shown("1e-9")] = None
    max_steps: Annotated[int, "Step budget of a trial."] = 1_000_000

    name, attributes, dims, store = "audit", ATTRIBUTES, DIMS, "audit.zarr"
    options: ClassVar[Options] = {"trials": (20, "Random starts of each kind."), "keep_trials": None, "precision": None}

    def __post_init__(self):
        self.starts = self._named()
        if is_name(self.dynamics):
            check_choice(self.dynamics, "dynamics", (*DYNAMICS, "both"))
            self.dynamics = DYNAMICS if self.dynamics == "both" else (self.dynamics,)
        self.dynamics = tuple(self.dynamics)
        self.rtol = self._accuracy()

    def _named(self) -> dict[str, init.AbstractStart]:
        """Name -> start, also of a single one and of functions."""
        starts: Any = self.starts if hasattr(self.starts, "items") else {"start": self.starts}
        return {name: as_start(start) for name, start in starts.items()}

    def _accuracy(self) -> float:
        """The relative tolerance of the flow; the default one where none is given."""
        if self.rtol is None:
            return 1e-9 if self.problem.dtype == jnp.float64 else 1e-5
        return self.rtol

    @classmethod
    def presets(cls):
        return {name: lambda made=made: made().fields() for name, made in PRESETS.items()}

    def grid(self):
        return {"case": range(len(self._named()))}

    def check(self) -> None:
        problem = self.problem
        if problem.link is not None:
            raise ValueError("The statements are for problems without a link function: leave out `link`.")
        check_size(problem)
        if not self._named():
            raise ValueError("Give at least one start, such as {'wide': init.Gaussian(1000, alpha=0.5)}.")
        for start in self._named().values():
            start.check(problem)
        if not self.dynamics or len(set(self.dynamics)) != len(self.dynamics):
            raise ValueError(f"Argument `dynamics` must name 'flow', 'descent' or both once, but is {self.dynamics!r}.")
        for name in self.dynamics:
            check_choice(name, "dynamics", DYNAMICS)
        check_tolerance(self._accuracy(), "rtol", problem.dtype)
        check_times(self, ("linear", "log"))

    def run(self, trials: int | None = None, *, seed: int = 0, batch: str = "auto", **options: Any):
        """`Study.run`; a horizon and a step size that are not given are found from the same starts first."""
        self.check()
        count = self.asked("trials", None) if trials is None else trials
        horizon, step = self.horizon, self.step_size
        needs_step = "descent" in self.dynamics and step == "stable"
        if horizon is None or needs_step:
            survey = run_ensemble(self._look, self.grid(), count, key=jax.random.key(seed), batch=batch)
            if horizon is None:
                horizon = float(survey["horizon"].median("trial").max())
                if not math.isfinite(horizon):
                    raise ValueError(no_time_scale(self.problem))
            if needs_step:
                step = float(survey["step"].min())
        timed = dataclasses.replace(self, horizon=float(horizon), step_size=step)
        return super(Audit, timed).run(count, seed=seed, batch=batch, **options)

    def _drawer(self):
        # From concrete settings, also while a trial is being traced.
        with jax.ensure_compile_time_eval():
            return _drawer(self.problem, self._named())

    def _look(self, key, case):
        """A stable step and a horizon for every start."""
        start = self._drawer()(key, case)
        return {
            "step": theory.stable_step(start, self.problem),
            "horizon": default_horizon(start, self.problem),
        }

    def _times(self) -> tuple[np.ndarray, np.ndarray]:
        """The times to look at, and the numbers of the steps of descent, none without it."""
        if self.horizon is None:
            raise ValueError("A single trial needs a number as `horizon`: `run` finds one from the starts.")
        ts = time_grid(self.horizon, self.points, self.spacing)
        if "descent" not in self.dynamics:
            return ts, np.zeros(0, int)
        numbers = step_numbers(ts, float(self.step_size), self.max_steps)
        return float(self.step_size) * numbers, numbers

    def trial(self, key, case) -> dict[str, Array]:
        from ..descent import gradient_descent, plain_descent
        from ..flow import gradient_flow

        problem, rtol = self.problem, self._accuracy()
        ts, numbers = self._times()
        ts = jnp.asarray(ts, problem.dtype)

        def move(start, name):
            watched = {"excess_loss": "excess_loss", "imbalance_drift": "imbalance_drift"}
            if name == "flow":
                return gradient_flow(
                    start,
                    problem,
                    ts,
                    observables=watched,
                    solver=self.solver,
                    rtol=rtol,
                    max_steps=self.max_steps,
                    keep_models=True,
                )
            return gradient_descent(
                start,
                problem,
                int(numbers[-1]),
                optimizer=plain_descent(float(self.step_size)),
                save_at=numbers,
                observables=watched,
                differentiate="forward",
                keep_models=True,
            )

        start = self._drawer()(key, case)
        path = [
            along(start, move(start, name), problem, ts, rtol if name == "flow" else None) for name in self.dynamics
        ]
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
            "local_rate_applies": local.applies & (constant > round_off(start, problem)),
            "tightness_applies": tight.applies,
            "tightness_attained": tight.attained,
            "ok": jnp.all(outputs["succeeded"]),
        }

    def recorded(self) -> dict[str, Any]:
        return {
            "cases": {name: start.label() for name, start in self._named().items()},
            "starts": {name: of_start(start, self.problem) for name, start in self._named().items()},
            "dynamics": list(self.dynamics),
            "times": self._times()[0].tolist(),
            "step_size": float(self.step_size) if "descent" in self.dynamics else None,
            "solver": self.solver,
            "rtol": float(self._accuracy()),
            "max_steps": self.max_steps,
            **of_problem(self.problem),
        }

    def axis_names(self):
        return {"dynamics": self.dynamics, "statement": LOSS_STATEMENTS, "rate_statement": RATE_STATEMENTS}

    def labelled(self, dataset):
        return labelled(dataset)

    def summarise(self, dataset, ratio: Number = 1e-2):
        return summarise(dataset, ratio)

    def table(self, summary):
        return tables(summary)

    def draw(self, dataset, summary, title: str):
        from .. import plots

        return plots.audit(summary, title)

    def notes(self, trials: int, source: str, description: str) -> list[tuple[str, str]]:
        starts = [("start", f"{name}: {start.label()}") for name, start in self._named().items()]
        return [*data_notes(self.problem, description), *starts]

    def title(self, source: str, done: int) -> str:
        return f"{source}: {sizes_of(self.problem)}; {done} starts of each kind"

    def held(self, trials: int, keep_trials: bool) -> tuple[int | float, str, str] | None:
        what = f"{trials} starts of each kind at {self.points} times"
        return 3 * 2 * 12 * self.points * len(self._named()) * trials, what, "choose fewer"


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

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.init.Gaussian(1e6, alpha=0.5)
        >>> found = ld.studies.audit(problem, start, 1, dynamics=["flow"], horizon=2.0, points=3)
        >>> print(found["statement"].values, found["applies"].values.ravel())
        ['theorem3' 'corollary4' 'corollary5' 'corollary6'] [ True True False True]
        >>> print(found["rate"].values.ravel(), found["rate_bound"].isel(rate_statement=1).values.ravel())
        [3.997 6.547 5.698] [3.992 5.391 5.634]
    """
    return Audit(
        problem,
        starts,
        dynamics,
        horizon,
        step_size,
        points,
        spacing,
        solver,
        None if rtol is None else float(rtol),
        max_steps,
    ).run(trials, seed=seed, record=record, **options)


def labelled(dataset):
    """The dataset with the names of cases, dynamics and statements and the times as coordinates; as `audit` returns it.

    **Args:** `dataset`, as `open_sweep` reads it from a store of an audit.
    """
    settings = json.loads(dataset.attrs["settings"])
    dataset = dataset.assign_coords(
        case=list(settings["cases"]),
        dynamics=settings["dynamics"],
        statement=list(LOSS_STATEMENTS),
        rate_statement=list(RATE_STATEMENTS),
        time=np.array(settings["times"]),
    )
    dataset["time"].attrs = {"long_name": "time of the flow; for descent, steps times step size"}
    return dataset


def _drawer(problem, starts) -> Callable[[Array, Array], Reduction]:
    """A function (key, case) -> start, all cases of one shape; without the frozen part, which no statement here needs.

    Starts that begin with a Gaussian draw share it, width and scales being numbers: more widths cost no more compilation.
    """
    starts = list(starts.values())
    scales = [start.scales() for start in starts]
    from_gaussian = [scale is not None for scale in scales]
    numbers = np.array(
        [
            (1.0, 1.0, 1.0) if scale is None else (float(start.h), *map(float, scale))
            for start, scale in zip(starts, scales, strict=True)
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
        return Reduction(TwoLayer(model.U1.astype(dtype), model.V.astype(dtype)), model.width, problem.num_frozen)

    branches = [partial(one, kinds[i], from_gaussian[i]) for i in different]
    places = [different.index(i) for i in index]

    def drawer(key, case):
        case = jnp.round(case).astype(jnp.int32)
        width, std_U, std_V = jnp.asarray(numbers)[case]
        gaussian = init.gaussian_core(problem, width, std=(std_U, std_V), key=key) if any(from_gaussian) else None
        return jax.lax.switch(jnp.asarray(places)[case], branches, key, gaussian)

    return drawer
