"""Gradient flow, integrated by diffrax with the model itself as the state."""

from collections.abc import Sequence
from typing import cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import core
from jaxtyping import Array, ArrayLike, Bool, Float

from . import _checks, trajectory
from . import observables as obs
from ._driver import Run, run
from ._keyed import compiled
from ._public import public
from ._stop import AbstractStop, as_stop
from .methods import METHODS, AbstractMethod, as_method
from .models import AbstractModel
from .problems import AbstractProblem, LeastSquares
from .problems.least_squares import is_least_squares
from .reduction import check_fits, check_kinds, is_reducible, prepare
from .reduction.forms import reduced_form
from .solvers import Solution, integrate, is_lost, largest_singular_value, lost_on_the_way, norm
from .trajectory import M, Trajectory

# Above this product of horizon and fastest rate the implicit solver is the cheaper one.
STIFF = 2e3
# Where the loss's curvature may fade on the way: so many steps at a loose tolerance tell whether an explicit method gets there.
# An implicit step costs as much as 10 explicit ones for 64 impulses r m, 400 for 256 and 1700 for 576: more impulses, more steps.
PILOT, PILOT_IMPULSES, MOST_PILOT = 500, 64, 100_000
# Up to this many weights a dense Newton step is cheaper than the many small ones that it saves.
DENSE = 500
# Networks and data of so few numbers are judged by NumPy before a method is chosen: a program takes a second to compile.
HOST = 1_000_000


@public
def gradient_flow(
    model: M,
    problem: AbstractProblem,
    ts: Float[ArrayLike, " T"] | Sequence[float],
    *,
    observables: obs.Observables = ("loss",),
    solver: diffrax.AbstractSolver | str = "auto",
    rtol: Float[ArrayLike, ""] | None = None,
    atol: Float[ArrayLike, ""] | None = None,
    stop: Float[ArrayLike, ""] | None = None,
    stop_loss: Float[ArrayLike, ""] | int | None = None,
    stop_gradient_norm: Float[ArrayLike, ""] | int | None = None,
    max_steps: int = 100_000,
    adjoint: diffrax.AbstractAdjoint | None = None,
    reduce: bool = True,
    keep_models: bool = False,
    noise: object = None,
) -> Trajectory[M]:
    """Gradient flow d(weights)/dt = -dL/d(weights) from `model` at t = 0.

    **Args:**

    - `model`: the start, any model of this package whose sizes fit the problem.
    - `ts`: times at which to observe, shape (T,), increasing, nonnegative. The last one is the horizon.
    - `observables`: names from `observables.OBSERVABLES`, or a dictionary of names and functions (model, problem) -> array.
    - `solver`: a diffrax solver, one of `"tsit5"`, `"dopri8"` (explicit: steps grow with the condition number of `X^T X`),
        `"lie"` (`solvers.LieRK4`: explicit, keeps the imbalance to round-off at any tolerance; for two-layer models without
        a penalty, reduced),
        `"radau"` (`solvers.ImpulseRadau`: they grow with its logarithm, and the imbalance is kept to round-off; for two-layer
        models, reduced, under any loss: at most 1000 impulses r m under others than least squares), `"kvaerno5"` (implicit
        without use of the structure, for small models), or
        `"auto"`: `"radau"` where it applies and the horizon times the fastest rate of the start exceeds 2000, else Dopri8
        (Tsit5 in float32). Under other losses than least squares, whose curvature may fade on the way, 500 steps or more at a
        loose tolerance try first whether an explicit method gets there. `stats["implicit"]` tells which. Where any of these is
        traced, the choice is made at run time, between two compiled solvers.
    - `rtol`, `atol`: tolerances of the adaptive steps; `rtol` is 1e-9 in float64 and 1e-5 in float32 by default. Errors are
        relative to the rows of the weights, and weights however small grow to `rtol`: there is no absolute tolerance
        unless `atol` is given, which is then one for each entry (with `stop` lowered to what the stopping loss needs).
        `"radau"` and `"lie"` control their error relative to the norm of all weights, have no use for `atol`, and step
        exactly to all `ts`.
    - `stop`: end as soon as a step reaches `(L - L*)/(L(0) - L*) <= stop`; a number in (0, 1), may be traced.
    - `stop_loss`: end as soon as a step reaches `L <= stop_loss`, for a problem of any kind; may be traced.
    - `stop_gradient_norm`: end as soon as a step reaches `||d(weights)/dt|| <= stop_gradient_norm`, the norm of the gradient
        in all weights, likewise.
    - `max_steps`: the step budget. Running out of it is a result code, not an error.
    - `adjoint`: how derivatives pass through, by default `diffrax.RecursiveCheckpointAdjoint()` (reverse mode, bounded
        memory); use `diffrax.ForwardMode()` for `jax.jvp` and few parameters.
    - `reduce`: integrate a `TwoLayer` or a `SymmetricFactors` in its smallest exact form. The result is the same to
        round-off. A problem with a penalty whose Lambda is a matrix has none and is integrated in full size.
    - `keep_models`: keep the whole model at every time.
    - `noise`: none: the flow is that of the whole loss; see `gradient_descent` and `stochastic_flow`.

    **Returns:** a `Trajectory`. `final` is of the kind of `model`. One trajectory in, one out: use `jax.vmap` for more.

    **Raises:** `ValueError` for sizes that do not fit, times that do not increase, tolerances that the dtype cannot resolve,
    a stop outside (0, 1), a stop where the least loss is not known, two stops at once, a concrete start with all weights
    zero (a saddle that the flow never leaves) or where the loss is not finite, or `"radau"` for what it cannot move.

    A path that round-off of the start has chosen (from U = -V, say) ends with the result `LOST`.

    **Notes:** the flow conserves the imbalance `U1^T U1 - V^T V`; an explicit solver does so to its tolerance, `"radau"` to
    round-off. Terms on the weights (`Penalised`) move it; `stop` and the loss go on meaning the data's loss alone. The
    derivative with respect to a start with linearly dependent moving rows (balanced, for instance) needs `reduce=False`.
    With `stop`, `stats["final_time"]` is the end of the step that got there, and its derivative that of the time at which
    the flow comes down to the loss that it has there.

    **Source:** T21 (12), M22 (3a), (3b) and (7).

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> flow = ld.gradient_flow(start, problem, [0.0, 1.0, 2.0])
        >>> print(flow.observables["loss"])
        [2.470 1.664 0.2155]
        >>> print(jnp.diag(flow.final.product()), ld.exact.mode(jnp.array([2.0, 1.0]), 0.1, 0.1, 2.0).x)
        [1.875 0.3555] [1.875 0.3555]
    """
    if noise is not None:
        raise ValueError(
            "`gradient_flow` is the flow of the whole loss, without `noise`: use `gradient_descent` for steps on batches, or "
            "`stochastic_flow` for their limit."
        )
    ts = check_flow(model, problem, ts)
    dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    rtol, atol = _tolerances(rtol, atol, dtype)
    ending = as_stop(stop, stop_loss, stop_gradient_norm, problem)
    if not max_steps >= 1:
        raise ValueError(f"Argument `max_steps` must be at least 1, but is {max_steps}.")
    methods = _choose(solver, dtype, model, problem, ts, ending, reduce)
    adjoint = default_adjoint() if adjoint is None else adjoint
    functions = obs.resolve(observables)
    moved = prepare(model, problem, reduce)
    return _flow(
        moved,
        problem,
        ts,
        ending,
        rtol,
        atol,
        functions,
        methods,
        max_steps,
        adjoint,
        bool(reduce),
        moved is not model,
        bool(keep_models),
    )


def default_adjoint() -> diffrax.AbstractAdjoint:
    """Any derivative in bounded memory; where nothing can be differentiated, the loop that is the sooner compiled."""
    # A version of JAX that does not tell is taken to differentiate.
    context = getattr(core, "trace_ctx", None)
    nothing = context is not None and context.is_top_level()
    return diffrax.ForwardMode() if nothing else diffrax.RecursiveCheckpointAdjoint()


@compiled
def _flow(
    model, problem, ts, stop, rtol, atol, functions, methods, max_steps, adjoint, reduce, lifted, keep_models
) -> Trajectory:
    def advance(whole, observe):
        start, small = whole.parts(problem)
        moving, fixed = eqx.partition(start, start.moving())

        def moved(t, core, problem):
            terms = problem.penalty
            return whole.with_core(core, None if terms is None else terms.remainder(t))

        def velocity(t, y, args):
            problem, fixed, _ = args
            with jax.default_matmul_precision("highest"):
                return eqx.filter(eqx.combine(y, fixed).velocity(problem), start.moving())

        def seen(t, y, args):
            _, fixed, problem = args
            return observe(moved(t, eqx.combine(y, fixed), problem), problem)

        least, event = atol, None
        if stop is not None:
            target = stop.target(whole, problem)
            if stop.is_ratio:
                # A looser absolute tolerance than the stopping loss itself makes the error jitter above the target for ever.
                least_error = jnp.sqrt(2 * target / small.plain.scale) / small.singular_values[0]
                scale = jnp.sqrt(jnp.asarray(sum(jnp.size(leaf) for leaf in jax.tree.leaves(moving)), ts.dtype))
                least = jnp.minimum(atol, 1e-3 * jnp.maximum(least_error, jnp.finfo(ts.dtype).tiny) / scale)

            def reached(t, y, args):
                _, fixed, problem = args
                with jax.default_matmul_precision("highest"):
                    return stop.measure(moved(t, eqx.combine(y, fixed), problem), problem) <= target

            event = reached

        def moved_by(method, ts):
            tolerance, solver, controller = method.build(rtol, least, ts)
            solution = integrate(
                diffrax.ODETerm(velocity),
                solver,
                ts[-1],
                moving,
                (small, fixed, problem),
                controller=controller,
                first=_first_step(start, small, ts[-1], tolerance),
                observe=(ts, seen),
                reached=event,
                max_steps=max_steps,
                adjoint=adjoint,
            )
            final = eqx.combine(solution.y, fixed)
            roundoff = lost_on_the_way(solution.controller_state, final)
            code = result_code(solution.result, final)
            code = jnp.where((code <= trajectory.STOPPED) & is_lost(roundoff), trajectory.LOST, code)
            end = solution.time
            final = moved(end, final, problem)
            if stop is not None:
                end = jnp.where(code == trajectory.STOPPED, end + _later(whole, final, problem, stop), end)
            return Run(ts, solution.observed, final, code, statistics(solution, end, method.is_implicit, roundoff))

        if len(methods) == 1:
            return moved_by(methods[0], ts)
        stiff = _is_stiff(whole, problem, ts[-1], stop)
        # Both are compiled; the one that is not wanted gets no time to integrate over.
        taken = zip(methods, (~stiff, stiff), strict=True)
        explicit, implicit = (moved_by(method, jnp.where(wanted, ts, 0)) for method, wanted in taken)
        return jax.tree.map(lambda a, b: jnp.where(stiff, b, a), explicit, implicit)._replace(ts=ts)

    return run(model, problem, functions, advance, reduce=reduce, lifted=lifted, keep_models=keep_models)


def _later(start: AbstractModel, final: AbstractModel, problem: AbstractProblem, stop: AbstractStop) -> Array:
    """Zero, with the derivative of the time at which a stopped flow comes down to what is measured of it at its end.

    The end of a step has none itself; where the loss (or the norm) differs by `d`, it is reached `-d` over its slope later.
    """
    unit, fixed = stop.unit(start, problem), jax.lax.stop_gradient
    # A start at the minimum is there at once.
    unit = jnp.where(unit > 0, unit, 1)
    terms, now = fixed(problem.penalty), jnp.zeros((), problem.dtype)

    def measured(weights, t):
        state = eqx.combine(weights, fixed(final))
        if terms is not None:
            state = state.with_core(state.parts(problem)[0], terms.remainder(t))
        return stop.measure(state, fixed(problem))

    slope: Array = jax.jvp(
        measured,
        (fixed(eqx.filter(final, final.moving())), now),
        (fixed(eqx.filter(final.velocity(problem), final.moving())), jnp.ones_like(now)),
    )[1] / fixed(unit)
    level = stop.measure(final, problem) / unit - stop.level
    return -(level - fixed(level)) / jnp.where(slope < 0, slope, -jnp.finfo(slope.dtype).tiny)


def statistics(solution: Solution, end: Array, is_implicit: bool, roundoff: Array) -> dict[str, Array]:
    """What a `Trajectory` tells of an integration."""
    return {
        "final_time": end,
        "num_steps": solution.num_steps,
        "num_accepted": solution.num_accepted,
        "num_rejected": solution.num_steps - solution.num_accepted,
        "implicit": jnp.asarray(is_implicit),
        "roundoff": roundoff,
    }


def _first_step(start: AbstractModel, problem: AbstractProblem, horizon: Array, rtol: Array) -> Array | None:
    """`rtol^{1/4}` over a bound on the fastest rate, where there is one.

    From diffrax's own guess one start in about 800 (digits, h = 1e8, alpha = 0.35) was rejected for ever at t = 0.
    """
    fastest = start.fastest_rate(problem)
    if fastest is None:
        return None
    fastest = jax.lax.stop_gradient(fastest)
    return jnp.minimum(jnp.where(fastest > 0, rtol**0.25 / jnp.where(fastest > 0, fastest, 1), horizon), horizon)


@compiled
def _is_stiff_start(model, problem, horizon, stop, reduce) -> Array:
    """`_is_stiff` for a start that is not in its smallest form yet."""
    small = not problem.plain.is_quadratic and reduce and is_reducible(model, problem)
    return _is_stiff(reduced_form(model, problem, None) if small else model, problem, horizon, stop)


def _is_stiff(whole: AbstractModel, problem: AbstractProblem, horizon: Array, stop: AbstractStop | None) -> Array:
    """Whether an implicit method is the cheaper one from this start."""
    start, small = whole.parts(problem)
    stiff = _stiffness(start, small, horizon, stop) > STIFF
    if problem.plain.is_quadratic:
        return stiff
    # The curvature at the start is not that of the way: on separable classes it fades like 1/t, and no step is too long.
    return stiff & ~_arrives(whole, problem, jnp.where(stiff, horizon, 0), stop)


def _arrives(whole: AbstractModel, problem: AbstractProblem, horizon: Array, stop: AbstractStop | None) -> Array:
    """Whether some steps of an explicit method at a loose tolerance get to the horizon or the stop."""
    whole, problem, horizon, stop = jax.lax.stop_gradient((whole, problem, horizon, stop))
    start, small = whole.parts(problem)
    moving, fixed = eqx.partition(start, start.moving())
    rtol = jnp.asarray(1e-2, horizon.dtype)
    _, solver, controller = METHODS["tsit5"].build(rtol, jnp.zeros_like(rtol), None)

    def velocity(t, y, args):
        return eqx.filter(eqx.combine(y, fixed).velocity(small), start.moving())

    def reached(t, y, args):
        ending = cast(AbstractStop, stop)
        return ending.measure(whole.with_core(eqx.combine(y, fixed)), problem) <= ending.target(whole, problem)

    solution = integrate(
        diffrax.ODETerm(velocity),
        solver,
        horizon,
        moving,
        (small, fixed),
        controller=controller,
        first=None,
        reached=None if stop is None else reached,
        max_steps=min(int(PILOT * max(1.0, (small.rank * small.num_outputs / PILOT_IMPULSES) ** 3)), MOST_PILOT),
        adjoint=diffrax.ForwardMode(),
    )
    return diffrax.is_okay(solution.result)


def _stiffness(start: AbstractModel, problem: AbstractProblem, horizon: Array, stop: AbstractStop | None) -> Array:
    """The horizon, or a guess of the time that the stop takes, in units of the fastest rate."""
    layers = start.moving_layers(problem)
    if layers is None or len(layers) != 2 or not is_least_squares(problem):
        return horizon * _rate_by_power_steps(start, problem)
    return _two_layer_stiffness(jnp, largest_singular_value, layers, problem.singular_values, problem, horizon, stop)


def _known_stiffness(model: AbstractModel, problem: AbstractProblem, horizon: ArrayLike, stop) -> float | None:
    """`_stiffness` of two layers and data whose numbers are known and few, by NumPy; `None` for others."""
    # A core has its first layer in the coordinates of the data.
    core = getattr(model, "core", None) if model.is_reduced else None
    factors = model.factors if core is None else core.factors
    if not is_least_squares(problem) or len(factors) != 2 or sum(leaf.size for leaf in (*factors, problem.Ytil)) > HOST:
        return None
    U, V = map(np.asarray, factors)
    s = np.asarray(problem.output_scale) * np.asarray(problem.data_singular_values)
    # What is beyond the range of the dtype is so without a word, as in a program.
    with np.errstate(all="ignore"):
        U1 = U if problem.frame is None or core is not None else np.asarray(problem.frame).T @ U
        return float(_two_layer_stiffness(np, _largest, (U1, V.T), s, problem, np.asarray(horizon), stop))


def _largest(A: np.ndarray) -> np.floating:
    """`largest_singular_value`, by NumPy."""
    largest = np.max(np.abs(A), initial=0) or 1
    G = (A / largest).T @ (A / largest) if A.shape[1] <= A.shape[0] else (A / largest) @ (A / largest).T
    size = np.linalg.norm(G) or 1
    return largest * np.sqrt(size * np.linalg.norm(np.linalg.matrix_power(G / size, 16)) ** (1 / 16))


def _two_layer_stiffness(xp, largest, layers, s, problem: LeastSquares, horizon, stop: AbstractStop | None):
    """`_stiffness` of two layers: with `xp` and `largest` of NumPy where all numbers are known, else with those of JAX."""
    (U1, VT), Ytil = layers, xp.asarray(problem.Ytil)
    E = Ytil - s[:, None] * (U1 @ VT)
    # Spectral norms: the Frobenius norms of `fastest_rate` are up to r + m times too large for Gaussian starts.
    weights = largest(U1) ** 2 + largest(VT.T) ** 2
    stiffness = horizon * xp.asarray(problem.scale) * (s[0] ** 2 * weights + largest(s[:, None] * E))
    if stop is not None and stop.is_ratio:
        # From a wide Gaussian start E decays at 2 q s_r^2 h^{1 - 2 alpha}, and the fastest rate is kappa times that. From a
        # small one the last mode of the target that the stop asks for grows slowly: at its own singular value, not at the first.
        level, modes = xp.asarray(stop.level), xp.linalg.svd(Ytil, compute_uv=False)
        asked = xp.where(modes**2 > level * xp.sum(modes**2), modes, xp.inf)
        small = weights < xp.max(modes) / s[0]
        slowness = xp.where(small, xp.max(modes) / xp.min(asked), 1)
        until = (s[0] / s[-1]) ** 2 / 2 * xp.maximum(slowness, 1) * xp.log(1 / level)
        stiffness = xp.minimum(stiffness, until)
    return stiffness


@compiled
def _rate_by_power_steps(start: AbstractModel, problem: AbstractProblem) -> Array:
    """About the fastest rate at a start of any kind, from below: power steps with the derivative of its velocity."""
    moving, fixed = eqx.partition(start, start.moving())

    def velocity(y):
        return eqx.filter(eqx.combine(y, fixed).velocity(problem), start.moving())

    leaves, structure = jax.tree.flatten(moving)
    random = np.random.default_rng(4)
    direction = structure.unflatten([jnp.asarray(random.normal(size=W.shape), W.dtype) for W in leaves])

    def step(direction, _):
        size = norm(*jax.tree.leaves(direction))
        unit = jax.tree.map(lambda v: v / jnp.where(size > 0, size, 1), direction)
        moved = jax.jvp(velocity, (moving,), (unit,))[1]
        return moved, norm(*jax.tree.leaves(moved))

    return jax.lax.scan(step, direction, None, length=8)[1][-1]


def all_finite(tree) -> Bool[Array, ""]:
    """Whether every weight is finite."""
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def result_code(result: diffrax.RESULTS, final: AbstractModel) -> Array:
    code = jnp.asarray(trajectory.SOLVER_FAILED, jnp.int32)
    for item, value in (
        (diffrax.RESULTS.successful, trajectory.FINISHED),
        (diffrax.RESULTS.event_occurred, trajectory.STOPPED),
        (diffrax.RESULTS.max_steps_reached, trajectory.STEP_LIMIT),
    ):
        code = jnp.where(result == item, value, code)
    return jnp.where(all_finite(final), code, trajectory.DIVERGED)


def check_flow(model: AbstractModel, problem: AbstractProblem, ts) -> Array:
    """The times as an array of the weights' type, after making sure that a flow can start and end there."""
    check_kinds(model, problem)
    check_fits(model, problem)
    ts = _checks.as_float(ts, "ts")
    if ts.ndim != 1 or ts.shape[0] == 0:
        raise ValueError(f"Argument `ts` must have shape (T,) with T >= 1, but has shape {ts.shape}.")
    if not _checks.is_traced(ts):
        _checks.check_finite(ts, "ts")
        values = np.asarray(ts)
        if values[0] < 0 or np.any(np.diff(values) <= 0) or values[-1] <= 0:
            raise ValueError("Argument `ts` must increase strictly from a time of at least 0, and end after 0.")
    weights = jax.tree.leaves(eqx.filter(model, model.moving()))
    ts = ts.astype(jnp.result_type(*weights))
    check_not_saddle(model, problem)
    check_finite_start(model, problem)
    return ts


def check_not_saddle(model: AbstractModel, problem: AbstractProblem) -> None:
    """Refuses a concrete start that never moves: two-layer or tied with all weights zero, or deep with two layers zero."""
    saddle = model.saddle(problem)
    if saddle is not None:
        raise ValueError(f"The start is {saddle}, which gradients never leave: give it weights.")


def check_finite_start(model: AbstractModel, problem: AbstractProblem) -> None:
    """Refuses a concrete start at which a loss other than least squares or its gradient is not finite, though the weights are."""
    if problem.plain.is_quadratic or _checks.is_traced(*jax.tree.leaves((model, problem))):
        return
    with jax.ensure_compile_time_eval():
        Theta1 = model.reduced_product(problem)
        loss, gradient = problem.reduced_loss(Theta1), problem.reduced_loss_gradient(Theta1)
        if all_finite(Theta1) and not all_finite((loss, gradient)):
            given = "its gradient is not" if jnp.isfinite(loss) else f"is {float(loss):g}"
            raise ValueError(
                f"The loss of a {type(problem.plain).__name__} must be finite at the start, with a finite gradient, but {given}: "
                "give the start other weights."
            )


def _tolerances(rtol, atol, dtype) -> tuple[Array, Array]:
    if rtol is not None and not _checks.is_traced(rtol):
        _checks.check_tolerance(float(rtol), "rtol", dtype)
    if atol is not None:
        _checks.check_positive(atol, "atol")
    default = 1e-9 if dtype == jnp.float64 else 1e-5
    return jnp.asarray(default if rtol is None else rtol, dtype), jnp.asarray(0.0 if atol is None else atol, dtype)


def _choose(solver, dtype, model, problem, ts, stop, reduce) -> tuple[AbstractMethod, ...]:
    """The method, or two where only the run can tell: an explicit one, and one for starts that are stiff."""
    if solver != "auto":
        method = as_method(solver)
        refusal = method.refuses(model, problem, reduce)
        if refusal is not None:
            raise ValueError(f"The solver {method.name!r} moves {method.moves}, but {refusal}: use 'auto'.")
        return (method,)
    explicit = METHODS["dopri8" if dtype == jnp.float64 else "tsit5"]
    stiff = _for_stiff(model, problem, reduce)
    if stiff is None:
        return (explicit,)
    # No property of the data alone decides: the weights of a traced start may be of any size.
    if _checks.is_traced(*jax.tree.leaves((model, problem, ts, stop))):
        return explicit, stiff
    known = _known_stiffness(model, problem, np.asarray(ts)[-1], stop)
    if known is not None:
        return (stiff if known > STIFF else explicit,)
    # Inside jit even operations on numbers that are known are otherwise put off to run time.
    with jax.ensure_compile_time_eval():
        is_stiff = bool(_is_stiff_start(model, problem, jnp.asarray(np.asarray(ts)[-1]), stop, reduce))
    return (stiff if is_stiff else explicit,)


def _for_stiff(model: AbstractModel, problem: AbstractProblem, reduce: bool) -> AbstractMethod | None:
    """The implicit method that a stiff start of this kind takes, or `None` if there is none that is worth it."""
    if METHODS["radau"].refuses(model, problem, reduce) is None:
        return METHODS["radau"]
    # What is known of a user's own loss or network is its derivatives: Newton's method with dense ones, where they are small.
    kinds = (AbstractModel.velocity, AbstractModel.loss_velocity)
    unknown = not isinstance(problem.plain, LeastSquares) or (type(model).velocity, type(model).loss_velocity) == kinds
    size = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, model.moving())))
    if reduce and model.is_reducible(problem):
        size = min(size, (problem.rank + problem.num_outputs) ** 2)
    return METHODS["kvaerno5"] if unknown and size <= DENSE else None
