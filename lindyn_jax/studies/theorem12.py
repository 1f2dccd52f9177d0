"""Monte Carlo study of M22's Theorem 12: how far from the minimum-norm solution wide networks end.

A trial draws a Gaussian start of width h, looks whether the three events of Lemma 11 hold, moves it to a stated excess-loss
ratio, and measures `||Theta(inf) - Theta_hat||`. Width and exponent are numbers, so one compilation serves the whole grid.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import init, observables, theory
from .._checks import check_choice
from ..descent import gradient_descent, plain_descent, stable_step
from ..ensemble import masked, run_ensemble
from ..flow import gradient_flow
from ..problem import LeastSquares
from ..statistics import mean_slope, wilson
from ..trajectory import DIVERGED, RESULTS, STEP_LIMIT, STOPPED

EVENTS = ("level_is_large", "coupling_is_small", "product_is_small")

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "alpha": {"long_name": "exponent of the start", "convention": "entries are N(0, h^(-2 alpha))"},
    "width": {"long_name": "hidden width h", "units": "1"},
    "level": {"long_name": "Delta, the level of imbalance of the start", "source": "M22 (33)"},
    "coupling": {"long_name": "||[V U2^T; U1 U2^T]||_F of the start", "source": "M22 (34)"},
    "product": {"long_name": "||U1 V^T||_F of the start", "source": "M22 (35)"},
    "level_is_large": {"long_name": "event (33) of Lemma 11"},
    "coupling_is_small": {"long_name": "event (34) of Lemma 11"},
    "product_is_small": {"long_name": "event (35) of Lemma 11"},
    "start_coupling": {"long_name": "||U2(0) V(0)^T||_F"},
    "distance": {"long_name": "||Theta(inf) - Theta_hat||_F", "convention": "||U2(0) V^T||_F with V at the stop"},
    "distance_2": {"long_name": "||Theta(inf) - Theta_hat||_2", "convention": "||U2(0) V^T||_2 with V at the stop"},
    "residual": {"long_name": "||Phi1^T (Theta - Theta_hat)||_F at the stop", "convention": "vanishes in the limit"},
    "excess_ratio": {"long_name": "(L - L*)/(L(0) - L*) at the stop", "units": "1"},
    "imbalance_drift": {"long_name": "||D - D(0)||_F at the stop"},
    "time": {"long_name": "time (flow) or steps (descent) until the stop"},
    "num_steps": {"long_name": "steps of the solver", "units": "1"},
    "result": {"long_name": "how the run ended", "codes": {str(code): text for code, text in RESULTS.items()}},
    "ok": {"long_name": "whether the stop was reached; other trials are masked in every statistic"},
}


class Settings(NamedTuple):
    """How trials are run.

    **Fields:** `dynamics`, `"flow"` or `"descent"`; `stop`, the excess-loss ratio at which a trial ends; `delta`, the failure
    probability in Lemma 11 and Theorem 12; `step_size` of descent, `None` for half the stable step of each start;
    `max_steps`, the budget of a trial; `rtol` and `solver` of the flow.
    """

    dynamics: Literal["flow", "descent"] = "flow"
    stop: float = 1e-8
    delta: float = 0.1
    step_size: float | None = None
    max_steps: int = 100_000
    rtol: float = 1e-9
    solver: str = "auto"


def default_widths(problem: LeastSquares, alpha: float = 0.5, delta: float = 0.1, count: int = 8) -> list[float]:
    """Log-spaced whole widths from 100 (or r + m) to the theorem's own width at this exponent, 1e12 at most."""
    first = max(100.0, float(problem.rank + problem.num_outputs))
    log_width = float(theory.theorem12(problem, first, alpha, delta).log_width)
    last = min(12.0, max(math.ceil(log_width / math.log(10)), math.log10(first) + 2))
    return [float(round(width)) for width in np.logspace(math.log10(first), last, count)]


def make_trial(problem: LeastSquares, settings: Settings) -> Callable[..., dict[str, Array]]:
    """The trial function `(key, alpha, width) -> outputs`; the outputs are described in `ATTRIBUTES`."""
    check_choice(settings.dynamics, "dynamics", ("flow", "descent"))

    def trial(key, alpha, width):
        start = init.gaussian_core(problem, width, alpha=alpha, key=key)
        events = theory.lemma11_events(start, problem, alpha, settings.delta)
        if settings.dynamics == "flow":
            # Far beyond the time the stop takes; a trial that gets there has converged elsewhere and is flagged.
            horizon = 1e6 / (problem.scale * problem.singular_values[-1] ** 2 * width ** (1 - 2 * alpha))
            trajectory = gradient_flow(
                start,
                problem,
                jnp.asarray(horizon)[None],
                observables=(),
                solver=settings.solver,
                rtol=settings.rtol,
                stop=settings.stop,
                max_steps=settings.max_steps,
            )
        else:
            step = stable_step(start, problem) if settings.step_size is None else settings.step_size
            trajectory = gradient_descent(
                start,
                problem,
                settings.max_steps,
                optimizer=plain_descent(step),
                observables=(),
                stop=settings.stop,
                differentiate="forward",
            )
        end = trajectory.final
        bias = end.frozen_product()
        excess = observables.excess_loss(end, problem)
        result = trajectory.result
        if settings.dynamics == "descent":
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
            "residual": jnp.linalg.norm(end.product() - problem.reduced_theta_hat),
            "excess_ratio": excess / observables.excess_loss(start, problem),
            "imbalance_drift": observables.imbalance_drift(end, problem, start),
            "time": trajectory.stats["final_time"],
            "num_steps": trajectory.stats["num_steps"],
            "result": result,
            "ok": result == STOPPED,
        }

    return trial


def expected_steps(problem: LeastSquares, width: float, alpha: float, settings: Settings) -> float:
    """About how many steps an explicit method needs: the stiffness of the end of training times its length.

    `log(1/stop)/2 * (lambda_1/lambda_r) * sqrt(1 + (sigma_max(Theta_hat)/h^{1 - 2 alpha})^2)` over the width of the stability
    region in units of the fastest rate: about 5 for the explicit solvers here, 1 for descent at half its stable step.
    """
    level = float(width) ** (1 - 2 * alpha)
    target = float(jnp.linalg.norm(problem.reduced_theta_hat, ord=2))
    stiffness = float(problem.condition) * math.hypot(level, target) / level
    region = 5.0 if settings.dynamics == "flow" else 1.0
    return math.log(1 / settings.stop) / 2 * stiffness / region


def check(problem: LeastSquares, widths, alphas, settings: Settings) -> None:
    """Refuses at once what cannot be studied.

    **Raises:** `ValueError` for data of full column rank, widths outside 1 to 1e12 or not whole, exponents that are not
    positive, a start that underflows to the saddle at zero, a stop outside (0, 1), or data so ill-conditioned that an
    explicit method would need more than `max_steps` steps.
    """
    if problem.num_frozen == 0:
        raise ValueError(
            f"Theorem 12 needs more inputs than the rank of X, but both are {problem.num_inputs}: every input direction is "
            "seen, and all solutions agree. Use fewer samples than inputs."
        )
    for width in widths:
        if not (1 <= width <= 1e12 and float(width) == round(width)):
            raise ValueError(f"Widths must be whole numbers from 1 to 1e12, but one is {width:g}.")
    for alpha in alphas:
        if not (math.isfinite(alpha) and alpha > 0):
            raise ValueError(f"Exponents must be positive numbers, but one is {alpha:g}.")
    if max(widths) > 1 and max(alphas) * math.log10(max(widths)) > 100:
        raise ValueError(
            f"With alpha = {max(alphas):g} and h = {max(widths):g} the weights h^(-alpha) vanish: the start is the saddle at "
            "zero, which gradients never leave. Use a smaller exponent."
        )
    if not 0 < settings.stop < 1:
        raise ValueError(f"The stop is a ratio of excess losses and must lie in (0, 1), but is {settings.stop:g}.")
    if not 0 < settings.delta < 1:
        raise ValueError(f"The failure probability delta must lie in (0, 1), but is {settings.delta:g}.")
    if settings.solver == "kvaerno5" and settings.dynamics == "flow":
        return
    steps, width, alpha = max((expected_steps(problem, w, a, settings), w, a) for w in widths for a in alphas)
    if steps > settings.max_steps:
        kind = "the explicit flow solver" if settings.dynamics == "flow" else "descent"
        raise ValueError(
            f"X^T X has condition number {float(problem.condition):.2g}, for which {kind} needs about {steps:.1g} steps a trial "
            f"(h = {width:g}, alpha = {alpha:g}), more than the budget of {settings.max_steps:g}: take fewer samples, a looser "
            "--stop, a larger --max-steps, or the implicit --solver kvaerno5."
        )


def run(
    problem: LeastSquares,
    widths,
    alphas,
    trials: int,
    *,
    seed: int = 0,
    settings: Settings = Settings(),  # noqa: B008
    record: Mapping[str, Any] | None = None,
    **options: Any,
):
    """Runs the study.

    **Args:** `problem`; `widths`, `alphas`, the grid; `trials` at each of its points; `seed` of the starts; `settings`;
    `record`, further entries for the stored settings, such as where the data come from; `options` go to `run_ensemble`
    (`store`, `chunk`, `batch`, `progress`).

    **Returns:** an `xarray.Dataset` with dimensions (alpha, width, trial); see `ATTRIBUTES`.

    **Raises:** as `check` and `run_ensemble`.
    """
    widths, alphas = [float(width) for width in widths], [float(alpha) for alpha in alphas]
    check(problem, widths, alphas, settings)
    fingerprint = hashlib.sha256()
    for array in (problem.X, problem.Y):
        fingerprint.update(np.ascontiguousarray(np.asarray(array, np.float64)).tobytes())
    return run_ensemble(
        make_trial(problem, settings),
        {"alpha": alphas, "width": widths},
        trials,
        key=jax.random.key(seed),
        attributes=ATTRIBUTES,
        settings={
            "study": "theorem12",
            "seed": seed,
            "data_sha256": fingerprint.hexdigest(),
            "loss_scale": float(problem.scale),
            **settings._asdict(),
            **(record or {}),
        },
        **options,
    )


def summarise(dataset, problem: LeastSquares, delta: float):
    """Statistics over trials at every grid point, beside the theorem and the sharp law.

    **Returns:** an `xarray.Dataset` over (alpha, width): frequency of each event of Lemma 11 with its Wilson interval
    (`..._low`, `..._high`), median, 95% quantile, mean, standard error and root mean square of the distance, the theorem's
    bound (`log10_bound`), its width (`log10_theorem_width`), whether its hypotheses hold (`applies`) and those of Lemma 11
    (`lemma11_applies`), the sharp law (`sharp_rms`), counts of trials and failures; and over alpha the log-log slope with
    its interval and the sharp law's slope on the same widths.
    """
    import xarray as xr

    valid = masked(dataset)
    done = dataset["computed"] if "computed" in dataset.coords else xr.ones_like(dataset["trial"], dtype=bool)
    alphas, widths = dataset["alpha"].values, dataset["width"].values
    computed = int(done.sum())
    dims = ("alpha", "width")
    counts = np.full((len(alphas), len(widths)), computed)
    ok = (dataset["ok"].astype(bool) & done).transpose("alpha", "width", "trial").values
    summary = xr.Dataset(coords={"alpha": dataset["alpha"], "width": dataset["width"]})
    for event in EVENTS:
        interval = wilson((dataset[event].astype(bool) & done).sum("trial").transpose(*dims).values, counts)
        for suffix, values in zip(("", "_low", "_high"), interval, strict=True):
            summary[event + suffix] = (dims, values)
    distance = valid["distance"].transpose("alpha", "width", "trial").values
    enough = ok.any(axis=-1)
    blank = np.full(enough.shape, np.nan)

    def over_trials(statistic):
        values = blank.copy()
        for point in zip(*np.nonzero(enough), strict=True):
            values[point] = statistic(distance[point][ok[point]])
        return dims, values

    summary["median"] = over_trials(np.median)
    summary["q95"] = over_trials(lambda d: np.quantile(d, 0.95))
    summary["mean"] = over_trials(np.mean)
    summary["standard_error"] = over_trials(lambda d: d.std(ddof=1) / math.sqrt(d.size) if d.size > 1 else np.inf)
    summary["rms"] = over_trials(lambda d: math.sqrt(np.mean(d**2)))
    A, H = (jnp.asarray(x) for x in np.meshgrid(alphas, widths, indexing="ij"))
    bound, sharp = theory.theorem12(problem, H, A, delta), theory.sharp_distance(problem, H, A)
    lemma = theory.lemma11(problem, H, A, delta)
    summary["log10_bound"] = (dims, np.asarray(bound.log_bound) / math.log(10))
    summary["log10_theorem_width"] = (dims, np.broadcast_to(np.asarray(bound.log_width), H.shape) / math.log(10))
    summary["applies"] = (dims, np.asarray(bound.applies))
    summary["lemma11_applies"] = (dims, np.broadcast_to(np.asarray(lemma.applies), H.shape))
    summary["sharp_rms"] = (dims, np.asarray(sharp.rms))
    summary["trials"] = (dims, counts)
    summary["failures"] = (dims, counts - ok.sum(axis=-1))
    log_distance = np.log(np.where(ok & (distance > 0), distance, np.nan))
    slopes = [mean_slope(np.log(widths), log_distance[i]) for i in range(len(alphas))]
    for suffix, values in zip(("", "_low", "_high"), zip(*slopes, strict=True), strict=True):
        summary["slope" + suffix] = ("alpha", np.array(values))
    sharp_slopes = [
        mean_slope(np.log(widths), np.log(np.asarray(sharp.rms)[i])[:, None]).value for i in range(len(alphas))
    ]
    summary["sharp_slope"] = ("alpha", np.array(sharp_slopes))
    summary["max_drift"] = float(np.nanmax(np.where(ok, dataset["imbalance_drift"].values, np.nan), initial=0.0))
    summary.attrs = {"delta": delta, "interval": "95%"}
    return summary


def hypothesis(applies: bool) -> str:
    """How a table says whether the theorem speaks: `met` or `hypothesis not met`."""
    return "met" if applies else "hypothesis not met"


def sharp_curve(problem: LeastSquares, widths: Float[Array, " k"], alpha: float) -> Float[Array, " k"]:
    """The sharp law on a fine grid of widths, for drawing."""
    return theory.sharp_distance(problem, widths, alpha).rms
