"""Where the gradient flow ends: the limit t to infinity, without a horizon to choose.

`V(inf)` is not a function of the product's limit and the imbalance: it depends on the path, and has to be integrated. The
implicit solver's steps grow geometrically once the error is small, so infinity is a few dozen steps away, and the distance
that is left is known: to first order the flow still moves by the least `dZ` that brings the product to `Theta_hat`, or the
gradient of another loss to zero.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _checks, trajectory
from . import observables as obs
from ._driver import Run, run
from ._keyed import compiled
from ._public import public
from ._rest import is_limit
from .flow import (
    _first_step,
    _rate_by_power_steps,
    check_finite_start,
    check_not_saddle,
    default_adjoint,
    result_code,
    statistics,
)
from .methods import METHODS
from .models import Reduction, TwoLayer
from .problems import AbstractProblem
from .problems.least_squares import is_least_squares
from .reduction import check_fits, check_kinds
from .reduction.forms import refuse_dependent_rows
from .solvers import grown_roundoff, integrate, is_lost
from .trajectory import Trajectory


@public
def limit(
    model: TwoLayer | Reduction,
    problem: AbstractProblem,
    *,
    rtol: float | Float[Array, ""] | None = None,
    max_steps: int = 4096,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> TwoLayer | Reduction:
    """The limit of the gradient flow from `model` as t goes to infinity.

    **Args:** as in `flow_to_limit`, which also says how it ended.

    **Returns:** a model of the kind of `model`. Where the limit was not reached its moving weights are infinite.

    **Raises:** as `flow_to_limit`.

    Example:

        >>> problem = ld.LeastSquares(jnp.array([[1.0, 1.0]]), jnp.array([[2.0]]))
        >>> start = ld.TwoLayer(jnp.array([[0.5, 0.0], [0.0, 0.1]]), jnp.array([[0.1, 0.1]]))
        >>> Theta = ld.limit(start, problem).product()
        >>> print(Theta.T, problem.predict(Theta), problem.theta_hat.T)
        [[1.251 0.7492]] [[2.]] [[1. 1.]]
    """
    end = flow_to_limit(model, problem, observables=(), rtol=rtol, max_steps=max_steps, adjoint=adjoint)
    return jax.tree.map(
        lambda leaf, moves: jnp.where(end.ok, leaf, jnp.inf) if moves else leaf, end.final, end.final.moving()
    )


@public
def flow_to_limit(
    model: TwoLayer | Reduction,
    problem: AbstractProblem,
    *,
    observables: obs.Observables = ("loss",),
    rtol: float | Float[Array, ""] | None = None,
    max_steps: int = 4096,
    adjoint: diffrax.AbstractAdjoint | None = None,
) -> Trajectory:
    r"""Gradient flow from `model` to t = infinity.

    Integrates until the way that is left, `dZ`, is below `0.1 rtol ||Z||`: `dU1 = J V`, `dV = J^T U1` with
    `J V V^T + U1 U1^T J = S^{-1} E` under least squares and `H (J V V^T + U1 U1^T J) = -G` under other losses, where G
    vanishes in the limit; a Newton step on the gradient in the weights where it cannot (h < min(r, m)).

    **Args:**

    - `model`: the start, a `TwoLayer`, or a reduced one, that fits the problem.
    - `problem`: least squares, or any other loss with a minimum, of at most 1000 numbers `Phi1^T Theta`. Where it has several,
        as in completion and sensing, the start decides which.
    - `observables`: as in `gradient_flow`; measured in the limit.
    - `rtol`: the accuracy of `V(inf)` relative to the norm of all weights, and of `Phi1^T Theta(inf)` relative to that of
        `Theta_hat` (its own, under other losses), by default 1e-8 in float64 and 1e-5 in float32. Both only down to round-off in
        the data, `8 eps s_1/s_r`, and to that of the path, `stats["roundoff"]`.
    - `max_steps`: the step budget. Running out of it is a result code, not an error.
    - `adjoint`: how derivatives pass through, as in `gradient_flow`.

    **Returns:** a `Trajectory` with `ts = (inf,)`. Its `result` is `FINISHED` if the limit was reached, `NOT_CONVERGED` if the
    flow came to rest elsewhere (a saddle, or weights that cannot reach the target), reached a minimum only because
    round-off led it away from a saddle, or never does (separable classes, for which see `direction`), `STEP_LIMIT` if
    `max_steps` ended it. `stats["roundoff"]` is how large round-off of
    the start has grown along the path, relative to the weights (zero for h < min(r, m), where it is not followed).

    **Raises:** `ValueError` for models other than two-layer ones, terms on the weights, sizes that do not fit, a tolerance that
    the dtype cannot resolve, or a concrete start with all weights zero or where the loss is not finite.

    **Notes:** derivatives go through the steps, each differentiated by the implicit function theorem (`V(inf)` has no
    equation of its own that could be differentiated in their place). Where the approach is not exponential, the distance
    left behaves like a power of t and is an estimate only.

    **Source:** M22 section 4.1, (30): `Theta(inf) = Theta_hat + Phi2 U2(0) V(inf)^T`.

    Example:

        >>> problem = ld.LeastSquares(jnp.array([[1.0, 1.0]]), jnp.array([[2.0]]))
        >>> start = ld.TwoLayer(jnp.array([[0.5, 0.0], [0.0, 0.1]]), jnp.array([[0.1, 0.1]]))
        >>> flow = ld.flow_to_limit(start, problem, observables=())
        >>> print(ld.RESULTS[int(flow.result)], flow.ts, flow.final.product().T)
        finished: reached the last time or step [inf] [[1.251 0.7492]]
    """
    check_kinds(model, problem)
    refusal = METHODS["radau"].refuses(model, problem)
    if refusal is not None:
        raise ValueError(
            f"The limit is computed for two-layer models without a penalty, but {refusal}: use `gradient_flow` with a long "
            "horizon."
        )
    check_fits(model, problem)
    check_not_saddle(model, problem)
    check_finite_start(model, problem)
    refuse_dependent_rows(model, problem)
    dtype = jnp.result_type(*jax.tree.leaves(eqx.filter(model, model.moving())))
    if rtol is None:
        rtol = 1e-8 if dtype == jnp.float64 else 1e-5
    _checks.check_tolerance(rtol, "rtol", dtype)
    if not max_steps >= 1:
        raise ValueError(f"Argument `max_steps` must be at least 1, but is {max_steps}.")
    adjoint = default_adjoint() if adjoint is None else adjoint
    return _flow_to_limit(model, problem, jnp.asarray(rtol, dtype), obs.resolve(observables), max_steps, adjoint)


@compiled
def _flow_to_limit(model, problem, rtol, functions, max_steps, adjoint) -> Trajectory:
    def advance(whole, observe):
        start, small = whole.parts(problem)
        moving, fixed = eqx.partition(start, start.moving())

        def velocity(t, y, args):
            return eqx.filter(eqx.combine(y, fixed).velocity(args[0]), start.moving())

        def reached(t, y, args):
            y, (problem, _) = jax.lax.stop_gradient((y, args))
            with jax.default_matmul_precision("highest"):
                return is_limit(y.U, y.V, problem, 0.1 * rtol)

        horizon = jax.lax.stop_gradient(_horizon(start, small).astype(rtol.dtype))
        tolerance, solver, controller = METHODS["radau"].build(rtol, jnp.zeros_like(rtol), None)
        solution = integrate(
            diffrax.ODETerm(velocity),
            solver,
            horizon,
            moving,
            (small, fixed),
            controller=controller,
            first=_first_step(start, small, horizon, tolerance),
            reached=reached,
            max_steps=max_steps,
            adjoint=adjoint,
        )
        final = eqx.combine(solution.y, fixed)
        code = result_code(solution.result, final)
        # Reaching the horizon is not reaching the limit; meeting the event is.
        finished, stopped = code == trajectory.FINISHED, code == trajectory.STOPPED
        code = jnp.where(finished, trajectory.NOT_CONVERGED, jnp.where(stopped, trajectory.FINISHED, code))
        roundoff = grown_roundoff(solution.controller_state, final)
        code = jnp.where((code == trajectory.FINISHED) & is_lost(roundoff), trajectory.NOT_CONVERGED, code)
        final = whole.with_core(final)
        values, models = observe(final, problem)
        values = {name: trajectory.failed_to_inf(code == trajectory.FINISHED, x)[None] for name, x in values.items()}
        stats = statistics(solution, solution.time, True, roundoff)
        return Run(jnp.full(1, jnp.inf, rtol.dtype), (values, models), final, code, stats)

    return run(model, problem, functions, advance, reduce=True)


def _horizon(start: TwoLayer, problem: AbstractProblem) -> Array:
    """Beyond what any rate that the dtype can tell from zero needs; steps grow, so it costs nothing."""
    eps = jnp.finfo(start.U.dtype).eps
    if is_least_squares(problem):
        size = jnp.sum(problem.reduced_theta_hat**2) ** 0.5 + jnp.sum(start.U**2) + jnp.sum(start.V**2)
        slowest = problem.scale * problem.singular_values[-1] ** 2 * jnp.where(size > 0, size, 1)
        return 1 / (eps * slowest)
    fastest = _rate_by_power_steps(start, problem)
    # Later, round-off in the gradient moves weights by themselves.
    return 1 / (eps * jnp.where(fastest > 0, fastest, 1))
