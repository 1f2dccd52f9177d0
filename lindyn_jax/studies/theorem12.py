"""Monte Carlo study of M22's Theorem 12: how far from the minimum-norm solution wide networks end.

A trial draws a Gaussian start of width h, looks whether the three events of Lemma 11 hold, moves it to the limit (or a stated
excess-loss ratio), and measures `||Theta(inf) - Theta_hat||`. Width and exponent are numbers, so one compilation serves the
whole grid.
"""

import functools
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import init, observables, theory
from .._checks import check_choice, check_tolerance
from .._norms import quotient
from .._public import public
from .._text import counted
from ..problems import LeastSquares
from ..statistics import AbstractReduction, Count, Histogram, Moments, Values
from ..trajectory import DIVERGED, FINISHED, RESULTS, STEP_LIMIT, STOPPED
from . import _descending
from ._grid import check_grid, floats
from ._theorem12_summary import EVENTS, grid_of, summary_of, table_of
from .lemma11 import hypothesis as hypothesis
from .study import Choices, Options, Shown, Study, Table, sizes_of

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "alpha": {"long_name": "exponent of the start", "units": "1", "convention": "entries are N(0, h^(-2 alpha))"},
    "width": {"long_name": "hidden width h", "units": "1"},
    "level": {"long_name": "Delta, the level of imbalance of the start", "units": "1", "source": "M22 (33)"},
    "coupling": {"long_name": "||[V U2^T; U1 U2^T]||_F of the start", "units": "1", "source": "M22 (34)"},
    "product": {"long_name": "||U1 V^T||_F of the start", "units": "1", "source": "M22 (35)"},
    "level_is_large": {"long_name": "event (33) of Lemma 11"},
    "coupling_is_small": {"long_name": "event (34) of Lemma 11"},
    "product_is_small": {"long_name": "event (35) of Lemma 11"},
    "start_coupling": {"long_name": "||U2(0) V(0)^T||_F", "units": "1"},
    "distance": {
        "long_name": "||Theta(inf) - Theta_hat||_F",
        "units": "1",
        "convention": "||U2(0) V^T||_F with V at the stop",
    },
    "distance_2": {
        "long_name": "||Theta(inf) - Theta_hat||_2",
        "units": "1",
        "convention": "||U2(0) V^T||_2 with V at the stop",
    },
    "expected_distance": {
        "long_name": "root mean square of ||Theta(inf) - Theta_hat||_F over U2(0), given V at the stop",
        "units": "1",
        "source": "the exact law: the frozen rows are independent of the rows that move",
    },
    "residual": {
        "long_name": "||Phi1^T (Theta - Theta_hat)||_F at the stop",
        "units": "1",
        "convention": "vanishes in the limit",
    },
    "excess_ratio": {"long_name": "(L - L*)/(L(0) - L*) at the stop", "units": "1"},
    "imbalance_drift": {"long_name": "||D - D(0)||_F at the stop", "units": "1"},
    **_descending.ATTRIBUTES,
    "time": {"long_name": "time (flow) or steps (descent) until the stop", "units": "1"},
    "num_steps": {"long_name": "steps of the solver", "units": "1"},
    "result": {"long_name": "how the run ended", "codes": {str(code): text for code, text in RESULTS.items()}},
    "ok": {"long_name": "whether the limit or the stop was reached; other trials are masked in every statistic"},
    "successes": {"long_name": "trials that reached the stop", "units": "1"},
    "square_moments": {"long_name": "moments of ||Theta(inf) - Theta_hat||_F^2", "units": "1"},
    "expected_moments": {"long_name": "moments of the squared expected_distance", "units": "1"},
    "slope_moments": {"long_name": "moments of the slope of log distance against log h of single trials", "units": "1"},
}


class Settings(NamedTuple):
    """How trials are run.

    **Fields:** `dynamics`, `"flow"` or `"descent"`; `stop`, the excess-loss ratio at which a trial ends, `None` for the limit
    t to infinity (1e-8 for descent and for the explicit solvers, which have none); `delta`, the failure probability in Lemma
    11 and Theorem 12; `step_size` of descent, `None` for half the stable step of each start; `max_steps`, the budget of a
    trial, `None` for 1e4 in the limit, 1e5 on the way to a stop and 1e6 of descent; `rtol` of the flow, `None` for 1e-6 in the
    limit and 1e-9 on the way to a stop; `solver` of the flow; `batch_size`, `label_noise`, `momentum` and `weight_decay` of
    descent, whose default step is then one that is stable with them, in mean square; `steps` of descent after which a trial
    ends in place of a stop, which labels with noise and decayed weights may never reach.
    """

    dynamics: Annotated[Literal["flow", "descent"], "Continuous or in steps."] = "flow"
    stop: Annotated[
        float | None,
        "Excess-loss ratio at which a trial ends.",
        Shown("none: t = infinity; 1e-8 for descent and explicit solvers"),
    ] = None
    delta: Annotated[float, "Failure probability of Lemma 11 and Theorem 12."] = 0.1
    step_size: _descending.StepSize = None
    max_steps: Annotated[
        int | None, "Step budget of a trial.", Shown("1e4 to infinity, 1e5 with --stop, descent 1e6")
    ] = None
    rtol: Annotated[float | None, "Relative tolerance of the flow.", Shown("1e-6 to infinity, 1e-9 with --stop")] = None
    solver: Annotated[
        str,
        "Solver of the flow; radau is implicit and structured, lie explicit and keeps D, kvaerno5 implicit.",
        Choices(("auto", "radau", "lie", "tsit5", "dopri8", "kvaerno5")),
    ] = "auto"
    batch_size: _descending.BatchSize = None
    label_noise: _descending.LabelStd = 0.0
    momentum: _descending.Momentum = 0.0
    weight_decay: _descending.Decay = 0.0
    steps: Annotated[int | None, "Steps of descent after which a trial ends, in place of a stop."] = None

    @property
    def to_limit(self) -> bool:
        """Whether trials go on to t = infinity."""
        return self.dynamics == "flow" and self.stop is None and self.solver in ("auto", "radau")

    @property
    def budget(self) -> int:
        """The most steps that a trial may take."""
        if self.steps is not None:
            return self.steps
        if self.max_steps is not None:
            return self.max_steps
        if self.to_limit:
            # A hundred do; the rest is for starts that cannot get there.
            return 10_000
        return 100_000 if self.dynamics == "flow" else 1_000_000

    @property
    def stopping_ratio(self) -> float:
        """The excess-loss ratio at which a trial ends that does not go on to the limit."""
        return 1e-8 if self.stop is None else self.stop


@public
def default_widths(problem: LeastSquares, alpha: float = 0.5, delta: float = 0.1, count: int = 8) -> list[float]:
    """Log-spaced whole widths from 100 (or r + m) to the theorem's own width at this exponent, 1e12 at most."""
    first = max(100.0, float(problem.rank + problem.num_outputs))
    log_width = float(theory.theorem12(problem, first, alpha, delta).log_width)
    last = min(12.0, max(math.ceil(log_width / math.log(10)), math.log10(first) + 2))
    return [float(round(width)) for width in np.logspace(math.log10(first), last, count)]


def _coarsest(start) -> float:
    """The default accuracy of a limit: far below the spread over trials, above what float32 resolves."""
    return 1e-6 if start.V.dtype == jnp.float64 else 1e-5


@public
def expected_steps(problem: LeastSquares, width: float, alpha: float, settings: Settings) -> float:
    """About how many steps a trial needs.

    For the implicit solver 40 and 13 for each decade of the condition number (at a tolerance of 1e-6); for an explicit method
    the stiffness of the end of training times its length,
    `log(1/stop)/2 * (lambda_1/lambda_r) * sqrt(1 + (sigma_max(Theta_hat)/h^{1 - 2 alpha})^2)` over the width of the stability
    region in units of the fastest rate: about 5 for the explicit solvers here, 1 for descent at half its stable step. Of descent
    for a number of steps it is that.
    """
    if settings.steps is not None:
        return float(settings.steps)
    if settings.dynamics == "flow" and settings.solver in ("auto", "radau"):
        return 40 + 13 * math.log10(float(problem.condition))
    level = float(width) ** (1 - 2 * alpha)
    target = float(jnp.linalg.norm(problem.reduced_theta_hat, ord=2))
    stiffness = float(problem.condition) * math.hypot(level, target) / level
    region = 5.0 if settings.dynamics == "flow" else 1.0 / float(_descending.slowdown(problem, settings.batch_size))
    return math.log(1 / settings.stopping_ratio) / 2 * stiffness / region


class Theorem12(Study):
    """How far from the minimum-norm solution wide networks end: M22's Theorem 12, its bound and the sharp law.

    **Fields:** `problem`; `widths`, by default from 100 to the theorem's own; `alphas`, the exponents; `settings`.
    """

    problem: LeastSquares
    widths: Annotated[
        tuple[float, ...] | None,
        "LO:HI:COUNT (log-spaced) or a list; 1 to 1e12.",
        Shown("8 from 100 to the theorem's own width"),
    ] = None
    alphas: Annotated[tuple[float, ...], "Exponents: entries of the start are N(0, h^(-2 alpha))."] = (0.5, 0.35)
    settings: Settings = Settings()

    name, attributes = "theorem12", ATTRIBUTES
    options: ClassVar[Options] = {
        "data": ("digits", "A bundled set (digits, gaussian, iris, ...) or a file: npz, csv, or X.npy,Y.npy."),
        "shape": None,
        "trials": (50, "Trials at each (exponent, width)."),
        "keep_trials": (True, "Store every trial; without it counts, moments and sketches only, in constant memory."),
    }

    def __post_init__(self):
        if self.problem.num_frozen == 0:
            raise ValueError(
                f"Theorem 12 needs more inputs than the rank of X, but both are {self.problem.num_inputs}: every input direction "
                "is seen, and all solutions agree. Use fewer samples than inputs."
            )
        self._swept()

    def _swept(self) -> tuple[float, ...]:
        """The widths; where none are given, the default ones take their place."""
        if self.widths is None:
            check_grid([1.0], self.alphas, self.settings.delta)
            self.widths = tuple(default_widths(self.problem, delta=self.settings.delta))
        return self.widths

    def grid(self):
        return {"alpha": self.alphas, "width": self._swept()}

    def check(self) -> None:
        """Refuses at once what cannot be studied.

        **Raises:** `ValueError` for widths outside 1 to 1e12 or not whole, exponents that are not positive, a start that
        underflows to the saddle at zero, a stop outside (0, 1), or, for descent and for the explicit solvers only, data so
        ill-conditioned that they would need more steps than their budget.
        """
        problem, settings = self.problem, self.settings
        check_grid(self._swept(), self.alphas, settings.delta)
        check_choice(settings.dynamics, "dynamics", ("flow", "descent"))
        check_choice(settings.solver, "solver", ("auto", "radau", "lie", "tsit5", "dopri8", "kvaerno5"))
        if settings.rtol is not None:
            check_tolerance(settings.rtol, "rtol", problem.dtype)
        if settings.stop is not None and not 0 < settings.stop < 1:
            raise ValueError(f"The stop is a ratio of excess losses and must lie in (0, 1), but is {settings.stop:g}.")
        if settings.dynamics == "flow" and (settings.batch_size is not None or settings.label_noise != 0):
            raise ValueError("Batches and noise on the labels are those of steps: they need --dynamics descent.")
        if settings.dynamics == "flow" and not (_descending.is_plain(settings) and settings.steps is None):
            raise ValueError("Momentum, weight decay and --steps are those of descent: they need --dynamics descent.")
        _descending.check(settings, problem)
        if settings.steps is not None:
            if settings.steps < 1:
                raise ValueError(f"A trial takes one step or more, but --steps is {settings.steps}.")
            if settings.stop is not None or settings.max_steps is not None:
                raise ValueError("With --steps a trial ends after these: leave out --stop and --max-steps.")
            return
        if settings.solver in ("auto", "radau", "kvaerno5") and settings.dynamics == "flow":
            return
        if settings.dynamics == "descent" and not _descending.is_plain(settings):
            self._check_stop()
        steps, width, alpha = max(
            (expected_steps(problem, w, a, settings), w, a) for w in self._swept() for a in self.alphas
        )
        if steps > settings.budget:
            kind = "the explicit flow solver" if settings.dynamics == "flow" else "descent"
            raise ValueError(
                f"X^T X has condition number {float(problem.condition):.2g}, for which {kind} needs about {steps:.1g} steps a "
                f"trial (h = {width:g}, alpha = {alpha:g}), more than the budget of {settings.budget:g}: take fewer samples, a "
                "looser --stop, a larger --max-steps, or, for the flow, --solver auto."
            )

    def _check_stop(self) -> None:
        """Refuses a stop that noise or decay keep descent from."""
        problem, settings = self.problem, self.settings
        floor, w, a = max(
            (_descending.floor(problem, settings, w, a), w, a) for w in self._swept() for a in self.alphas
        )
        if floor <= settings.stopping_ratio:
            return
        steps = expected_steps(problem, w, a, settings._replace(stop=min(floor, 0.5)))
        raise ValueError(
            f"Noise or decay keep the excess loss near {floor:.1g} of the start's (h = {w:g}, alpha = {a:g}), above the stop of "
            f"{settings.stopping_ratio:g}: give --steps, of which about {steps:.1g} lead there, or a larger --stop."
        )

    def trial(self, key, alpha, width) -> dict[str, Array]:
        from ..flow import gradient_flow
        from ..limits import flow_to_limit

        problem, settings = self.problem, self.settings
        start = init.Gaussian(width, alpha=alpha).draw(problem, key=key)
        events = theory.lemma11_events(start, problem, alpha, settings.delta)
        if settings.to_limit:
            trajectory = flow_to_limit(
                start,
                problem,
                observables=(),
                rtol=_coarsest(start) if settings.rtol is None else settings.rtol,
                max_steps=settings.budget,
            )
        elif settings.dynamics == "flow":
            # Far beyond the time the stop takes; a trial that gets there has converged elsewhere and is flagged.
            horizon = 1e6 / (problem.scale * problem.singular_values[-1] ** 2 * width ** (1 - 2 * alpha))
            trajectory = gradient_flow(
                start,
                problem,
                jnp.asarray(horizon)[None],
                observables=(),
                solver=settings.solver,
                rtol=settings.rtol,
                stop=settings.stopping_ratio,
                max_steps=settings.budget,
            )
        else:
            trajectory = _descending.descend(
                start,
                problem,
                settings,
                settings.budget,
                key=jax.random.fold_in(key, 1),
                stop=None if settings.steps is not None else settings.stopping_ratio,
            )
        end = trajectory.final
        bias = end.frozen_product(problem)
        excess = observables.excess_loss(end, problem)
        result = trajectory.result
        if settings.dynamics == "descent" and settings.steps is None:
            result = jnp.where((result != STOPPED) & (result != DIVERGED), STEP_LIMIT, result)
        return {
            "level": events.level,
            "coupling": events.coupling,
            "product": events.product,
            "level_is_large": events.level_is_large,
            "coupling_is_small": events.coupling_is_small,
            "product_is_small": events.product_is_small,
            "start_coupling": observables.frozen_product_norm(start, problem),
            "distance": jnp.linalg.norm(bias),
            "distance_2": jnp.linalg.norm(bias, ord=2),
            # Frozen rows are as they were but for their decay.
            "expected_distance": quotient(end.frozen_rows(problem)[1], start.frozen_rows(problem)[1])
            * jnp.sqrt(theory.conditional_distance(problem, end.V, width, alpha).mean_square),
            "residual": jnp.linalg.norm(end.product() - problem.reduced_theta_hat),
            "excess_ratio": excess / observables.excess_loss(start, problem),
            "imbalance_drift": observables.imbalance_drift(end, problem, start),
            "imbalance_lost": _descending.imbalance_lost(start, end, problem),
            "time": trajectory.stats["final_time"],
            "num_steps": trajectory.stats["num_steps"],
            "result": result,
            "ok": result == (FINISHED if settings.to_limit or settings.steps is not None else STOPPED),
        }

    @functools.cached_property
    def _law(self) -> np.ndarray:
        """The sharp law at every point of the grid."""
        return np.asarray(theory.sharp_distance(self.problem, *grid_of(self.alphas, self._swept())[::-1]).rms, float)

    def reductions(self) -> dict[str, AbstractReduction]:
        """Counts of events and of successes, moments, a quantile sketch, slopes of trials, and the first thousand distances.

        The sketch of the distance spans six decades on either side of the sharp law, at 1% a bin.
        """
        low, high = float(self._law.min()) * 1e-6, float(self._law.max()) * 1e6
        log_widths = np.log(np.asarray(self._swept(), float))
        centred = log_widths - log_widths.mean()
        weights = centred / max(float(centred @ centred), np.finfo(float).tiny)

        def slope(outputs: Mapping[str, Array]) -> Array:
            distance = outputs["distance"]
            logs = jnp.where(distance > 0, jnp.log(jnp.where(distance > 0, distance, 1)), jnp.nan)
            # One width has no slope, and no trial an estimate of it.
            return jnp.einsum(
                "w,awt->at", jnp.asarray(weights, logs.dtype), logs if len(self._swept()) > 1 else logs * jnp.nan
            )

        return {
            **{event: Count(event) for event in EVENTS},
            "successes": Count("ok"),
            "distance": Values("distance"),
            "distance_moments": Moments("distance"),
            "square_moments": Moments(lambda outputs: outputs["distance"] ** 2),
            "expected_moments": Moments(lambda outputs: outputs["expected_distance"] ** 2),
            "distance_histogram": Histogram(
                "distance", low=low, high=high, bins=math.ceil(math.log(high / low) / 0.01)
            ),
            "drift_moments": Moments("imbalance_drift"),
            "lost_moments": Moments("imbalance_lost"),
            "slope_moments": Moments(slope, ("alpha",)),
        }

    def precise(self) -> list[str]:
        return [*EVENTS, *(["slope_moments"] if len(self._swept()) > 1 else [])]

    def noted(self):
        return dict.fromkeys(
            ("level", "imbalance_drift"), init.warn_of_lost_digits(self.problem.dtype, max(self._swept()))
        )

    def summarise(self, dataset):
        """Statistics over trials at every grid point, beside the theorem and the sharp law.

        **Args:** `dataset`, from `run`, with single trials or of reductions.

        **Returns:** an `xarray.Dataset` over (alpha, width): frequency of each event of Lemma 11 with its exact interval
        (`..._low`, `..._high`), median, 95% quantile, mean, standard error and root mean square of the distance, the theorem's
        bound (`log10_bound`) and how many times the 95% quantile it is (`log10_bound_over_q95`), its width
        (`log10_theorem_width`), whether its hypotheses hold (`applies`) and those of Lemma 11 (`lemma11_applies`), the sharp law
        (`sharp_rms`) and the exact one for the V(inf) of these trials (`exact_rms`), of which it is the wide limit, the root mean
        square over the sharp law (`rms_over_law`) and the share of the imbalance lost (`imbalance_lost`) with their intervals,
        counts of trials and failures; and over alpha, on these widths, the log-log slope of the distance (mean over trials,
        `slope`) and
        of its root mean square (`rms_slope`), with intervals that hold the starts shared by all widths against each other, and
        those of the two laws (`exact_slope`, `sharp_slope`). Of more than a thousand trials the quantiles are read from a sketch,
        good to 1%, and the interval of `rms_slope` is that of the first thousand, narrowed as the root of their number.
        """
        return summary_of(self, dataset)

    def table(self, summary) -> list[Table | str]:
        return table_of(self, summary)

    def draw(self, dataset, summary, title: str):
        from .. import plots

        return plots.theorem12(summary, title)

    def notes(self, trials: int, source: str, description: str) -> list[tuple[str, str]]:
        problem, settings = self.problem, self.settings
        steps = max(expected_steps(problem, w, a, settings) for w in self._swept() for a in self.alphas)
        end = "t = infinity" if settings.to_limit else f"an excess-loss ratio of {settings.stopping_ratio:g}"
        end = end if settings.steps is None else f"step {settings.steps}"
        sizes = counted({"exponent": len(self.alphas), "width": len(self._swept()), "trial": trials})
        return [
            ("data", description),
            (
                "problem",
                f"rank {problem.rank} of {problem.num_inputs}, condition number of X^T X {float(problem.condition):.3g}; about "
                f"{steps:.2g} steps a trial",
            ),
            ("sweep", f"{sizes} by {settings.dynamics} to {end}"),
        ]

    def title(self, source: str, done: int) -> str:
        return f"{source}: {sizes_of(self.problem)}; {done} trials a point"

    def held(self, trials: int, keep_trials: bool) -> tuple[int | float, str, str] | None:
        # Eighteen numbers a trial, read and summarised at once.
        points = len(self.alphas) * len(self._swept())
        what = f"{trials} trials at {points} points"
        return (3 * 18 * points * trials, what, "choose fewer, or --no-keep-trials") if keep_trials else None


@public
def run(problem: LeastSquares, widths, alphas, trials: int, *, settings: Settings = Settings(), **options: Any):  # noqa: B008
    """`Theorem12(problem, widths, alphas, settings).run(trials, **options)`, see there."""
    return Theorem12(problem, floats(widths), floats(alphas), settings).run(trials, **options)


@public
def summarise(dataset, problem: LeastSquares, delta: float):
    """`Theorem12.summarise` of a dataset from `run`, `open_sweep` or `open_reductions`."""
    grid = floats(dataset["width"]), floats(dataset["alpha"])
    return Theorem12(problem, *grid, Settings(delta=delta)).summarise(dataset)


@public
def sharp_curve(problem: LeastSquares, widths: Float[Array, " k"], alpha: float) -> Float[Array, " k"]:
    """The sharp law on a fine grid of widths, for drawing."""
    return theory.sharp_distance(problem, widths, alpha).rms
