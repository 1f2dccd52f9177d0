"""Gradient flow, integrated by diffrax with the model itself as the state."""

import math
from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from . import _checks, trajectory
from . import observables as obs
from ._public import public
from .models import AbstractModel, DeepLinear, ReducedDeepLinear, ReducedTwoLayer, SymmetricFactors, TwoLayer, WideLimit
from .problem import LeastSquares
from .reduction import check_fits, is_reducible, lift, prepare
from .reduction import reduce as reduce_model
from .solvers import (
    ImpulseRadau,
    LieRK4,
    NormController,
    RelativeController,
    ScaledChord,
    group_reach,
    growth_reach,
    impulse_reach,
    internal_tolerance,
    is_lost,
    largest_singular_value,
    lost_on_the_way,
    norm,
)
from .trajectory import Trajectory

SOLVERS: dict[str, Callable[[], diffrax.AbstractSolver]] = {
    "tsit5": diffrax.Tsit5,
    "dopri8": diffrax.Dopri8,
    "kvaerno5": diffrax.Kvaerno5,
}

# Above this product of horizon and fastest rate the implicit solver is the cheaper one.
STIFF = 2e3


@public
def gradient_flow(
    model: AbstractModel,
    problem: LeastSquares,
    ts: Float[ArrayLike, " T"],
    *,
    observables: obs.Observables = ("loss",),
    solver: diffrax.AbstractSolver | str = "auto",
    rtol: Float[ArrayLike, ""] | None = None,
    atol: Float[ArrayLike, ""] | None = None,
    stop: Float[ArrayLike, ""] | None = None,
    max_steps: int = 100_000,
    adjoint: diffrax.AbstractAdjoint | None = None,
    reduce: bool = True,
    keep_models: bool = False,
) -> Trajectory:
    """Gradient flow d(weights)/dt = -dL/d(weights) from `model` at t = 0.

    **Args:**

    - `model`: the start, any model of this package whose sizes fit the problem.
    - `ts`: times at which to observe, shape (T,), increasing, nonnegative. The last one is the horizon.
    - `observables`: names from `observables.OBSERVABLES`, or a dictionary of names and functions (model, problem) -> array.
    - `solver`: a diffrax solver, one of `"tsit5"`, `"dopri8"` (explicit: steps grow with the condition number of `X^T X`),
        `"lie"` (`solvers.LieRK4`: explicit, keeps the imbalance to round-off at any tolerance; for two-layer models without
        a penalty, reduced),
        `"radau"` (`solvers.ImpulseRadau`: they grow with its logarithm, and the imbalance is kept to round-off; for two-layer
        models under least squares, reduced), `"kvaerno5"` (implicit without use of the structure, for small models), or
        `"auto"`: `"radau"` where it applies and the horizon times the fastest rate of the start exceeds 2000, else Dopri8
        (Tsit5 in float32). `stats["implicit"]` tells which. Where any of these is traced, the choice is made at
        run time, between two compiled solvers.
    - `rtol`, `atol`: tolerances of the adaptive steps; `rtol` is 1e-9 in float64 and 1e-5 in float32 by default. Errors are
        relative to the rows of the weights, and weights however small grow to `rtol`: there is no absolute tolerance
        unless `atol` is given, which is then one for each entry (with `stop` lowered to what the stopping loss needs).
        `"radau"` and `"lie"` control their error relative to the norm of all weights, have no use for `atol`, and step
        exactly to all `ts`.
    - `stop`: end as soon as a step reaches `(L - L*)/(L(0) - L*) <= stop`; a number in (0, 1), may be traced.
    - `max_steps`: the step budget. Running out of it is a result code, not an error.
    - `adjoint`: how derivatives pass through, by default `diffrax.RecursiveCheckpointAdjoint()` (reverse mode, bounded
        memory); use `diffrax.ForwardMode()` for `jax.jvp` and few parameters.
    - `reduce`: integrate a `TwoLayer` or a `SymmetricFactors` in its smallest exact form. The result is the same to
        round-off. A problem with a penalty whose Lambda is a matrix has none and is integrated in full size.
    - `keep_models`: keep the whole model at every time.

    **Returns:** a `Trajectory`. `final` is of the kind of `model`. One trajectory in, one out: use `jax.vmap` for more.

    **Raises:** `ValueError` for sizes that do not fit, times that do not increase, tolerances that the dtype cannot resolve,
    a stop outside (0, 1), a stop with a link function, a concrete start with all weights zero (a saddle that the flow
    never leaves), or `"radau"` for what it cannot move.

    A path that round-off of the start has chosen (from U = -V, say) ends with the result `LOST`.

    **Notes:** the flow conserves the imbalance `U1^T U1 - V^T V`; an explicit solver does so to its tolerance, `"radau"` to
    round-off. A penalty on the imbalance (`problem.regularized`) moves it; `stop` and the loss go on meaning the data's
    loss alone. The derivative with respect to a start with linearly dependent moving rows (balanced, for instance) needs
    `reduce=False`. With `stop`, `stats["final_time"]` is the end of the step that got there, chosen without derivatives: its own
    is zero, and not that of the time at which the loss is reached.

    **Source:** T21 (12), M22 (3a), (3b) and (7).
    """
    model, ts = _check(model, problem, ts)
    dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
    rtol, atol = _tolerances(rtol, atol, dtype)
    if stop is not None:
        _check_stop(stop, problem)
    if not max_steps >= 1:
        raise ValueError(f"Argument `max_steps` must be at least 1, but is {max_steps}.")
    solver, method = _solver(solver, dtype, model, problem, ts, stop, reduce)
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    functions = obs.resolve(observables)
    model, basis = prepare(model, problem, reduce)
    return _flow(
        model,
        basis,
        problem,
        ts,
        stop,
        rtol,
        atol,
        functions,
        solver,
        method,
        max_steps,
        adjoint,
        bool(reduce),
        bool(keep_models),
    )


@eqx.filter_jit
def _flow(
    model, basis, problem, ts, stop, rtol, atol, functions, solver, method, max_steps, adjoint, reduce, keep_models
) -> Trajectory:
    start, to_user = model, lambda state: state
    if basis is None and reduce and is_reducible(model, problem):
        with jax.default_matmul_precision("highest"):
            start, basis = reduce_model(model, problem)
    if basis is not None:

        def to_user(state):
            with jax.default_matmul_precision("highest"):
                return lift(state, basis)

    moving, fixed = eqx.partition(start, moving_leaves(start))

    def velocity(t, y, args):
        problem, fixed = args
        with jax.default_matmul_precision("highest"):
            return eqx.filter(eqx.combine(y, fixed).velocity(problem), moving_leaves(start))

    def save(t, y, args):
        problem, fixed = args
        state = eqx.combine(y, fixed)
        with jax.default_matmul_precision("highest"):
            values = obs.measure(functions, state, problem, start, to_user)
            return values, (to_user(state) if keep_models else None)

    event = None
    if stop is not None:
        with jax.default_matmul_precision("highest"):
            excess = obs.excess_loss(start, problem)
        target = stop * excess
        # A looser absolute tolerance than the stopping loss itself makes the error jitter above the target for ever.
        least_error = jnp.sqrt(2 * target / problem.scale) / problem.singular_values[0]
        scale = jnp.sqrt(jnp.asarray(sum(jnp.size(leaf) for leaf in jax.tree.leaves(moving)), ts.dtype))
        atol = jnp.minimum(atol, 1e-3 * jnp.maximum(least_error, jnp.finfo(ts.dtype).tiny) / scale)

        def reached(t, y, args, **kwargs):
            problem, fixed = args
            with jax.default_matmul_precision("highest"):
                return obs.excess_loss(eqx.combine(y, fixed), problem) <= target

        event = diffrax.Event(reached)

    def integrate(method, ts):
        if method == "group":
            tolerance, stepper, controller = rtol, solver, NormController(rtol, ts, group_reach(rtol))
        elif method == "implicit":
            given = solver.tolerance if isinstance(solver, ImpulseRadau) else internal_tolerance(rtol)
            tolerance = jnp.asarray(given, ts.dtype)
            stepper, controller = ImpulseRadau(tolerance), NormController(tolerance, ts, impulse_reach(tolerance))
        else:
            tolerance, stepper = rtol, _with_tolerances(solver, rtol, atol)
            controller = RelativeController(rtol, atol, growth_reach(solver, rtol), ts)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(velocity),
            stepper,
            t0=jnp.zeros((), ts.dtype),
            t1=ts[-1],
            dt0=_first_step(start, problem, ts[-1], tolerance),
            y0=moving,
            args=(problem, fixed),
            saveat=diffrax.SaveAt(
                subs=(diffrax.SubSaveAt(ts=ts, fn=save), diffrax.SubSaveAt(t1=True)), controller_state=True
            ),
            stepsize_controller=controller,
            event=event,
            max_steps=max_steps,
            adjoint=adjoint,
            throw=False,
        )
        saved, last = solution.ys
        final = eqx.combine(jax.tree.map(lambda leaf: leaf[-1], last), fixed)
        roundoff = lost_on_the_way(solution.controller_state, final)
        stats = {
            "final_time": solution.ts[1][-1],
            "num_steps": solution.stats["num_steps"],
            "num_accepted": solution.stats["num_accepted_steps"],
            "num_rejected": solution.stats["num_rejected_steps"],
            "implicit": jnp.asarray(method == "implicit" or isinstance(stepper, diffrax.AbstractImplicitSolver)),
            "roundoff": roundoff,
        }
        code = _result(solution.result, final)
        code = jnp.where((code <= trajectory.STOPPED) & is_lost(roundoff), trajectory.LOST, code)
        return saved, final, code, stats

    if method == "either":
        stiff = _stiffness(start, problem, ts[-1], stop) > STIFF
        # Both are compiled; the one that is not wanted gets no time to integrate over.
        explicit, implicit = (
            integrate("explicit", jnp.where(stiff, 0, ts)),
            integrate("implicit", jnp.where(stiff, ts, 0)),
        )
        chosen = jax.tree.map(lambda a, b: jnp.where(stiff, a, b), implicit, explicit)
    else:
        chosen = integrate(method, ts)
    (values, models), final, result, stats = chosen
    with jax.default_matmul_precision("highest"):
        final_values = obs.measure(functions, final, problem, start, to_user)
    return Trajectory(ts, values, to_user(final), final_values, result, stats, models)


def _with_tolerances(solver: diffrax.AbstractSolver, rtol: Array, atol: Array) -> diffrax.AbstractSolver:
    """An implicit solver of diffrax that takes its root finder's tolerances from the steps, with those of the steps here."""
    from_steps = diffrax.with_stepsize_controller_tols(diffrax.VeryChord)()
    if getattr(getattr(solver, "root_finder", None), "rtol", None) is not from_steps.rtol:
        return solver
    return eqx.tree_at(lambda s: s.root_finder, solver, ScaledChord(rtol, atol))


def _first_step(start: AbstractModel, problem: LeastSquares, horizon: Array, rtol: Array) -> Array | None:
    """`rtol^{1/4}` over a bound on the fastest rate, where there is one.

    From diffrax's own guess one start in about 800 (digits, h = 1e8, alpha = 0.35) was rejected for ever at t = 0.
    """
    fastest = _fastest_rate(start, problem)
    if fastest is None:
        return None
    return jnp.minimum(jnp.where(fastest > 0, rtol**0.25 / jnp.where(fastest > 0, fastest, 1), horizon), horizon)


def _fastest_rate(start: AbstractModel, problem: LeastSquares) -> Array | None:
    """A bound on the fastest rate at the start, for two-layer, tied and deep least squares.

    For two layers it is `q s_1^2 (||U1||^2 + ||V||^2) + q s_1 ||E||`, plus what a penalty on the imbalance adds, and
    `2 q s_1 (2 s_1 ||U||^2 + ||E||)` for tied ones. For deep ones it is made of products of the norms of all layers but one,
    and all but two.
    """
    kinds = (TwoLayer, ReducedTwoLayer, SymmetricFactors, DeepLinear, ReducedDeepLinear)
    if problem.link is not None or not isinstance(start, kinds):
        return None
    s = problem.singular_values[0]
    error = jnp.sqrt(jnp.sum(problem.error(obs.reduced_product(start, problem)) ** 2))
    if isinstance(start, SymmetricFactors):
        fastest = 2 * problem.scale * s * (2 * s * jnp.sum(start.U**2) + error)
    elif isinstance(start, (DeepLinear, ReducedDeepLinear)):
        norms = [jnp.sqrt(jnp.sum(W**2)) for W in start.layers]
        skip = lambda *out: math.prod(x for i, x in enumerate(norms) if i not in out)  # noqa: E731
        depth = range(len(norms))
        twice = 2 * sum(skip(i, j) for i in depth for j in depth if i < j)
        fastest = problem.scale * s * (s * sum(skip(i) ** 2 for i in depth) + error * twice)
    else:
        U1, V = (start.U1, start.V) if isinstance(start, ReducedTwoLayer) else (problem.to_data(start.U), start.V)
        fastest = problem.scale * s * (s * (jnp.sum(U1**2) + jnp.sum(V**2)) + error)
    if problem.regularization is not None:
        fastest = fastest + problem.regularization.fastest_rate(U1, V)
    return jax.lax.stop_gradient(fastest)


def _stiffness(start: AbstractModel, problem: LeastSquares, horizon: Array, stop: ArrayLike | None) -> Array:
    """The horizon, or a guess of the time that the stop takes, in units of the fastest rate."""
    s = problem.singular_values
    U1 = start.U1 if isinstance(start, ReducedTwoLayer) else problem.to_data(start.U)
    E = problem.error(obs.reduced_product(start, problem))
    # Spectral norms: the Frobenius norms of `_fastest_rate` are up to r + m times too large for Gaussian starts.
    weights = largest_singular_value(U1) ** 2 + largest_singular_value(start.V) ** 2
    stiffness = horizon * problem.scale * (s[0] ** 2 * weights + largest_singular_value(s[:, None] * E))
    if stop is not None:
        # From a wide Gaussian start E decays at 2 q s_r^2 h^{1 - 2 alpha}, and the fastest rate is kappa times that. From a
        # small one the last mode of the target that the stop asks for grows slowly: at its own singular value, not at the first.
        modes = jnp.linalg.svd(problem.Ytil, compute_uv=False)
        asked = jnp.where(modes**2 > jnp.asarray(stop) * jnp.sum(modes**2), modes, jnp.inf)
        small = weights < jnp.max(modes) / s[0]
        slowness = jnp.where(small, jnp.max(modes) / jnp.min(asked), 1)
        until = problem.condition / 2 * jnp.maximum(slowness, 1) * jnp.log(1 / jnp.asarray(stop))
        stiffness = jnp.minimum(stiffness, until)
    return stiffness


def refuse_implicit(model: AbstractModel, problem: LeastSquares, reduce: bool = True) -> str | None:
    """Why the structured implicit solver cannot move this model, or `None` if it can."""
    if problem.link is not None:
        return "the problem has a link function"
    return _refuse_group(model, problem, reduce)


def _refuse_group(model: AbstractModel, problem: LeastSquares, reduce: bool) -> str | None:
    """Why a step cannot be an element of O(r, m), or `None` if it can."""
    if problem.regularization is not None:
        return "the problem has a penalty on the imbalance"
    if isinstance(model, TwoLayer) and not reduce:
        return "`reduce` is False"
    if not isinstance(model, (TwoLayer, ReducedTwoLayer)):
        return f"the model is a {type(model).__name__}"
    return None


def moving_leaves(model: AbstractModel) -> AbstractModel:
    """A tree of the model's shape that is true at the weights the dynamics moves."""
    spec = jax.tree.map(lambda _: True, model)
    if isinstance(model, ReducedTwoLayer):
        spec = jax.tree.map(lambda _: False, model)
        spec = eqx.tree_at(lambda tree: (tree.U1, tree.V), spec, (True, True))
    if isinstance(model, ReducedDeepLinear):
        spec = jax.tree.map(lambda _: False, model)
        spec = eqx.tree_at(lambda tree: tree.layers, spec, (True,) * model.depth)
    if isinstance(model, WideLimit):
        spec = eqx.tree_at(lambda tree: tree.level, spec, False)
    return spec


def all_finite(tree) -> Bool[Array, ""]:
    """Whether every weight is finite."""
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def _result(result: diffrax.RESULTS, final: AbstractModel) -> Array:
    code = jnp.asarray(trajectory.SOLVER_FAILED, jnp.int32)
    for item, value in (
        (diffrax.RESULTS.successful, trajectory.FINISHED),
        (diffrax.RESULTS.event_occurred, trajectory.STOPPED),
        (diffrax.RESULTS.max_steps_reached, trajectory.STEP_LIMIT),
    ):
        code = jnp.where(result == item, value, code)
    return jnp.where(all_finite(final), code, trajectory.DIVERGED)


def _check(model: AbstractModel, problem: LeastSquares, ts) -> tuple[AbstractModel, Array]:
    if not isinstance(model, AbstractModel):
        raise ValueError(f"Argument `model` must be a model of this package, but is a {type(model).__name__}.")
    if not isinstance(problem, LeastSquares):
        raise ValueError(f"Argument `problem` must be a LeastSquares, but is a {type(problem).__name__}.")
    check_fits(model, problem)
    ts = _checks.as_float(ts, "ts")
    if ts.ndim != 1 or ts.shape[0] == 0:
        raise ValueError(f"Argument `ts` must have shape (T,) with T >= 1, but has shape {ts.shape}.")
    if not _checks.is_traced(ts):
        _checks.check_finite(ts, "ts")
        values = np.asarray(ts)
        if values[0] < 0 or np.any(np.diff(values) <= 0) or values[-1] <= 0:
            raise ValueError("Argument `ts` must increase strictly from a time of at least 0, and end after 0.")
    weights = jax.tree.leaves(eqx.filter(model, moving_leaves(model)))
    ts = ts.astype(jnp.result_type(*weights))
    check_not_saddle(model, problem)
    return model, ts


def check_not_saddle(model: AbstractModel, problem: LeastSquares) -> None:
    """Refuses a concrete start that never moves: two-layer or tied with all weights zero, or deep with two layers zero."""
    if isinstance(model, (DeepLinear, ReducedDeepLinear)):
        if model.depth > 1 and not _checks.is_traced(*model.layers):
            zeros = [i + 1 for i, W in enumerate(model.layers) if not np.any(np.asarray(W))]
            if len(zeros) > 1:
                raise ValueError(
                    f"The start is a saddle, W{zeros[0]} = 0 and W{zeros[1]} = 0, which gradients never leave: give them weights."
                )
        return
    if isinstance(model, ReducedTwoLayer):
        weights = (model.U1, model.V)
    elif isinstance(model, TwoLayer):
        weights = (model.U, model.V)
        if not _checks.is_traced(*weights, *jax.tree.leaves(problem)) and not np.any(np.asarray(model.V)):
            moving, total = (float(norm(U)) for U in (problem.to_data(model.U), model.U))
            if total > 0 and moving <= 10 * float(jnp.finfo(model.U.dtype).eps) * total:
                raise ValueError(
                    "The start is the saddle Phi1^T U = 0, V = 0 (U lies in directions that no sample has), which gradients "
                    "never leave: give it weights."
                )
    elif isinstance(model, SymmetricFactors):
        weights = (model.U,)
    else:
        return
    if _checks.is_traced(*weights):
        return
    if all(not np.any(np.asarray(weight)) for weight in weights):
        zeros = " = 0, ".join("UV"[: len(weights)]) + " = 0"
        raise ValueError(f"The start is the saddle {zeros}, which gradients never leave: give it weights.")


def _tolerances(rtol, atol, dtype) -> tuple[Array, Array]:
    if rtol is not None and not _checks.is_traced(rtol):
        _checks.check_tolerance(float(rtol), "rtol", dtype)
    if atol is not None:
        _checks.check_positive(atol, "atol")
    default = 1e-9 if dtype == jnp.float64 else 1e-5
    return jnp.asarray(default if rtol is None else rtol, dtype), jnp.asarray(0.0 if atol is None else atol, dtype)


def _check_stop(stop, problem: LeastSquares) -> None:
    if problem.link is not None:
        raise ValueError("Argument `stop` needs the least loss, which a problem with a link function does not know.")
    if not _checks.is_traced(stop) and not np.all((np.asarray(stop) > 0) & (np.asarray(stop) < 1)):
        raise ValueError(f"Argument `stop` is a ratio of excess losses and must lie in (0, 1), but is {stop}.")


def _solver(solver, dtype, model, problem, ts, stop, reduce) -> tuple[diffrax.AbstractSolver, str]:
    """The explicit (or the user's) solver, and the method: `"explicit"`, `"group"`, `"implicit"` or `"either"`."""
    refusal = refuse_implicit(model, problem, reduce)
    explicit = SOLVERS["dopri8" if dtype == jnp.float64 else "tsit5"]()
    if not isinstance(solver, diffrax.AbstractSolver):
        _checks.check_choice(solver, "solver", ("auto", *SOLVERS, "radau", "lie"))
    if isinstance(solver, LieRK4) or (isinstance(solver, str) and solver == "lie"):
        refusal = _refuse_group(model, problem, reduce)
        if refusal is not None:
            raise ValueError(f"The solver 'lie' moves two-layer models in reduced form, but {refusal}: use 'auto'.")
        return LieRK4(), "group"
    if isinstance(solver, ImpulseRadau) or (isinstance(solver, str) and solver == "radau"):
        if refusal is not None:
            raise ValueError(
                f"The solver 'radau' moves two-layer models under least squares in reduced form, but {refusal}: use 'auto'."
            )
        return (explicit if isinstance(solver, str) else solver), "implicit"
    if isinstance(solver, diffrax.AbstractSolver):
        return solver, "explicit"
    if solver != "auto":
        return SOLVERS[solver](), "explicit"
    return explicit, ("explicit" if refusal is not None else _method(model, problem, ts, stop))


def _method(model, problem, ts, stop) -> str:
    # No property of the data alone decides: the weights of a traced start may be of any size.
    if _checks.is_traced(*jax.tree.leaves((model, problem, ts, stop))):
        return "either"
    # Inside jit even operations on numbers that are known are otherwise put off to run time.
    with jax.ensure_compile_time_eval():
        return "implicit" if float(_stiffness(model, problem, ts[-1], stop)) > STIFF else "explicit"
