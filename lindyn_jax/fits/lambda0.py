r"""The imbalance level lambda0 whose homogeneous solution follows a given gradient flow best (T21 Fig. 2).

The flow X(t) from (U0, V0) has no closed form; the flow regularized towards `Q = lambda0 I` from the same start, X^I(t), has
one. How well the second predicts the first is

    J(lambda0) = int_0^T ||X^I - X||_F^2 dt / int_0^T ||X||_F^2 dt,

which has a local minimum for either sign of lambda0. Both are found: a scan brackets them, secants refine them.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .. import _checks, methods
from .._linalg import row_factor, signature_spectrum
from .._public import public
from ..models import Reduction, TwoLayer
from ..problems import LeastSquares
from ._bracket import scan, secant
from ._closed import prepare, short_product
from ._follow import Given, follow
from ._horizon import first_time
from ._objective import Objective, clenshaw_curtis, integrate, ratio

FITTED, NO_HORIZON, DEPENDENT_ROWS, FLOW_FAILED, ANISOTROPIC = range(5)

LAMBDA0_RESULTS = {
    FITTED: "fitted: both signs are answered; see `converged` and `at_edge`",
    NO_HORIZON: "no horizon: the plain flow did not come down to the relative error that ends it",
    DEPENDENT_ROWS: "dependent rows: the start needs method='riccati', which was not known while tracing",
    FLOW_FAILED: "flow failed: the plain flow could not be integrated to the horizon",
    ANISOTROPIC: "anisotropic: the data need method='flow', which was not known while tracing",
}

METHODS = ("closed", "riccati", "flow")


class Lambda0Fit(eqx.Module):
    """What `fit_lambda0` returns. Index 0 is the minimum over lambda0 >= 0, index 1 that over lambda0 <= 0.

    **Fields:**

    - `lambda0`: shape (2,), the minimisers.
    - `objective`: shape (2,), J at them; `at_zero`: J(0).
    - `curvature`: shape (2,), the second derivative of J.
    - `converged`: shape (2,), whether the refinement ended by its tolerance inside its bracket, or at lambda0 = 0.
    - `at_edge`: shape (2,): this sign has no minimum of its own. Its best value is then lambda0 = 0, or the largest one scanned.
    - `iterations`: shape (2,), those of the refinement.
    - `best`: 0 or 1, the sign with the smaller objective.
    - `horizon`: T; `ts`, shape (T,), and `weights`, shape (T,), of the quadrature of mean values over [0, T]; `product`, shape
        (T, r, m), the flow's Phi1^T Theta there.
    - `quadrature_error`, `integration_error`: shape (2,): by how much J changes at the minimisers with half of the nodes, and
        with a flow and horizon integrated at a hundred times the tolerance. Both are errors of the coarser of two results, and
        bound that of the finer one.
    - `lambda0_error`: shape (2,), what the two amount to in lambda0; infinite where the curvature is not positive.
    - `realisable`: shape (2,), whether some weights of this width have `Q = lambda0 I` exactly.
    - `result`: a code of `LAMBDA0_RESULTS`.

    Example:

        >>> problem = ld.factorization(jnp.array([[1.0]]))
        >>> start = ld.init.gaussian(1, 1, 3, std=0.5, key=jax.random.key(0))
        >>> fit = ld.fit_lambda0(problem, start.U, start.V)
        >>> print(fit.objective, fit.at_zero, fit.converged, fit.horizon)
        [0.0003170 0.0001319] 0.01401 [ True True] 3.494
    """

    lambda0: Float[Array, "2"]
    objective: Float[Array, "2"]
    at_zero: Float[Array, ""]
    curvature: Float[Array, "2"]
    converged: Bool[Array, "2"]
    at_edge: Bool[Array, "2"]
    iterations: Int[Array, "2"]
    best: Int[Array, ""]
    horizon: Float[Array, ""]
    ts: Float[Array, " T"]
    weights: Float[Array, " T"]
    product: Float[Array, "T r m"]
    quadrature_error: Float[Array, "2"]
    integration_error: Float[Array, "2"]
    lambda0_error: Float[Array, "2"]
    realisable: Bool[Array, "2"]
    result: Int[Array, ""]

    @property
    def ok(self) -> Bool[Array, "..."]:
        """Whether the flow was integrated as asked and both signs are answered."""
        return (self.result == FITTED) & jnp.all(self.converged, axis=-1)

    @property
    def best_lambda0(self) -> Float[Array, "..."]:
        """The minimiser over all lambda0."""
        return jnp.take_along_axis(self.lambda0, self.best[..., None], axis=-1)[..., 0]

    @property
    def best_objective(self) -> Float[Array, "..."]:
        """The least J."""
        return jnp.take_along_axis(self.objective, self.best[..., None], axis=-1)[..., 0]

    def mismatch(self, product: Float[Array, "T r m"]) -> Float[Array, ""]:
        """The objective of another path of products at the times `ts`: its J, for comparison."""
        return ratio(product - self.product, self.product, self.weights)

    def __repr__(self) -> str:
        leaves = jax.tree.leaves(self)
        if _checks.is_traced(*leaves) or np.ndim(self.result):
            return f"Lambda0Fit of shape {np.shape(self.result)}"
        lines = [f"Lambda0Fit: {LAMBDA0_RESULTS[int(self.result)]}"]
        for i, name in enumerate(("lambda0 >= 0", "lambda0 <= 0")):
            state = "at the edge" if self.at_edge[i] else "converged" if self.converged[i] else "not converged"
            mark = "  <- better" if int(self.best) == i else ""
            lines.append(
                f"  {name}  {float(self.lambda0[i]):.8g} +- {float(self.lambda0_error[i]):.1g}"
                f"  sqrt J {float(self.objective[i]) ** 0.5:.6g}, {state}, {int(self.iterations[i])} iterations{mark}"
            )
        lines.append(f"  horizon {float(self.horizon):.6g}, {self.ts.shape[0]} nodes")
        return "\n".join(lines)


@public
def fit_lambda0(
    problem: LeastSquares,
    U0: Real[ArrayLike, "_ h"],
    V0: Real[ArrayLike, "m h"],
    *,
    horizon: Real[ArrayLike, ""] | None = None,
    relative_error: Real[ArrayLike, ""] = 1e-3,
    method: str = "closed",
    adjoint: diffrax.AbstractAdjoint | None = None,
    width: Real[ArrayLike, ""] | None = None,
    nodes: int = 48,
    grid: int = 24,
    rtol: Float[ArrayLike, ""] | None = None,
    solver: diffrax.AbstractSolver | str = "auto",
    max_steps: int = 4096,
) -> Lambda0Fit:
    r"""The imbalance level whose homogeneous solution follows the gradient flow from (U0, V0) best, for either sign.

    Minimises `J(lambda0) = int_0^T ||X^I(t; lambda0) - X(t)||_F^2 dt / int_0^T ||X(t)||_F^2 dt`, X the flow and X^I the flow of
    `problem.regularized(lambda0, q c^2/8)` from the same start, with c^2 the (mean) square of the data's singular values.

    **Args:**

    - `problem`: `factorization(Y)`, or data with `X^T X` proportional to the identity on its range.
    - `U0`, `V0`: the start, shapes (n, h) and (m, h); also the moving part (r, h) of U0, such as the `U1` and `V` of
        `init.gaussian_core`, whose width may be traced.
    - `horizon`: T. By default the first time at which `||E||_F <= relative_error ||Ytil||_F` along the plain flow.
    - `relative_error`: see `horizon`.
    - `method`: where X^I comes from. `"closed"`: the closed form, by the short way for starts with h >= r + m and rows that are
        linearly independent, else by `exact.homogeneous`; `"riccati"`: always the latter, about 30 times slower; `"flow"`:
        integrated by diffrax, for any data.
    - `adjoint`: for `"flow"`, how the derivative in lambda0 passes through the integration during the search:
        `diffrax.ForwardMode()`, the default, or a reverse-mode one such as `diffrax.RecursiveCheckpointAdjoint()`.
    - `width`: h where it is not the number of columns, as for a core; only `realisable` depends on it.
    - `nodes`: intervals, a multiple of 4, of the Clenshaw-Curtis rule over [0, T].
    - `grid`: points of the scan for either sign, from the least level that matters to 32 times the largest of the start's
        imbalance, the target and 1/T, and beyond until the minimum is bracketed.
    - `rtol`: tolerance of the plain flow (and of `"flow"`), by default 1e-9 in float64 and 1e-5 in float32.
    - `solver`, `max_steps`: of the flows, as in `gradient_flow`; `"auto"` is Dopri8, Tsit5 in float32.

    **Returns:** a `Lambda0Fit`. One start in, one out: use `jax.vmap` for more; one compilation serves all seeds and widths.

    **Raises:** `ValueError` for shapes that do not fit, a link function, a penalty, data that are not isotropic unless
    `method="flow"`, a target of zero or a start of too low rank to reach `relative_error` without a `horizon`, or a start
    that is zero.

    **Notes:** J and its derivative in lambda0 are exact for the nodes; the scan makes the answer global as far as J has no
    structure finer than its grid (a factor of 1.2 to 2 between neighbours). The minimiser depends little on T, J much more.
    Only the part of Theta that the data see enters J.

    First derivatives with respect to the problem, the start, `horizon` and `relative_error` are those of the answer, by the
    implicit function theorem at the minima, in forward and reverse mode and by every method; second ones are refused. Those
    of `curvature` and of the errors, and those of a minimum that was not found, are NaN. Data with `X^T X` proportional to the
    identity have to stay so along the tangent, but for `method="flow"`.

    **Source:** T21 Fig. 2 and section 6; that there are two minima is this package's own.

    Example:

        >>> problem = ld.factorization(jnp.array([[1.0]]))
        >>> start = ld.init.gaussian(1, 1, 3, std=0.5, key=jax.random.key(0))
        >>> fit = ld.fit_lambda0(problem, start.U, start.V)
        >>> print(fit.lambda0, fit.best_lambda0)  # a minimum for either sign, and the better one
        [ 2.000 -1.805] -1.805
    """
    U0, V0 = _checks.as_matrix(U0, "U0", "(n, h)"), _checks.as_matrix(V0, "V0", "(m, h)")
    _check(problem, U0, V0, method, nodes, grid)
    for name, value in (("U0", U0), ("V0", V0)):
        _checks.check_finite(value, name)
    U1, V = _moving_rows(problem, U0, V0)
    dtype = V.dtype
    width = V0.shape[1] if width is None else width
    _checks.check_positive(width, "width")
    width = jnp.asarray(width, dtype)
    _check_reachable(problem, U1, V, horizon, relative_error)
    if horizon is not None:
        _checks.check_positive(horizon, "horizon")
        horizon = jnp.asarray(horizon, dtype)
    _checks.check_positive(relative_error, "relative_error")
    rtol, solver = _tolerance(rtol, dtype), _solver(solver, dtype)
    if method == "closed" and not _may_use_short_way(problem, U1, V):
        method = "riccati"
    rtol, max_steps = jnp.asarray(rtol, dtype), int(max_steps)
    given = Given(problem, U1, V, horizon, jnp.asarray(relative_error, dtype))
    # The search is not differentiated: how its end follows what was given is.
    moving, fixed = eqx.partition(given, eqx.is_inexact_array)
    held = eqx.combine(jax.lax.stop_gradient(moving), fixed)
    adjoint = diffrax.ForwardMode() if adjoint is None else adjoint
    fit, velocity = _fit(held, width, rtol, method, adjoint, int(nodes), int(grid), solver, max_steps)
    policy = {"rtol": rtol, "solver": solver, "max_steps": max_steps}
    return follow(given, fit, velocity, method != "flow", policy)


@public
def lambda0_path(
    problem: LeastSquares,
    U0: Real[ArrayLike, "_ h"],
    V0: Real[ArrayLike, "m h"],
    lambda0: Real[ArrayLike, ""],
    fit: Lambda0Fit,
    *,
    method: str = "closed",
    adjoint: diffrax.AbstractAdjoint | None = None,
    rtol: Float[ArrayLike, ""] | None = None,
    solver: diffrax.AbstractSolver | str = "auto",
    max_steps: int = 4096,
) -> Float[Array, "T r m"]:
    """The homogeneous solution X^I at the times of a fit, by any method.

    **Args:** `problem`, `U0`, `V0` and the policy as in `fit_lambda0`, which returned `fit`; `lambda0`, a number. The default
    adjoint of `"flow"` is `diffrax.RecursiveCheckpointAdjoint()`.

    **Returns:** Phi1^T Theta at `fit.ts`, beside `fit.product`, shape (T, r, m); NaN by `"closed"` for a start whose rows are
    dependent, where that was not known while tracing. Differentiable in lambda0, the target, the start and the times, to second
    order unless by `"flow"`.

    **Raises:** as `fit_lambda0`.

    **Source:** T21 Fig. 2.

    Example:

        >>> problem = ld.factorization(jnp.array([[1.0]]))
        >>> start = ld.init.gaussian(1, 1, 3, std=0.5, key=jax.random.key(0))
        >>> fit = ld.fit_lambda0(problem, start.U, start.V)
        >>> path = ld.lambda0_path(problem, start.U, start.V, fit.best_lambda0, fit)
        >>> print(jnp.abs(path - fit.product).max())  # of a target of 1
        0.02129
    """
    U0, V0 = _checks.as_matrix(U0, "U0", "(n, h)"), _checks.as_matrix(V0, "V0", "(m, h)")
    _check(problem, U0, V0, method, 4, 3)
    U1, V = _moving_rows(problem, U0, V0)
    if method == "closed" and not _may_use_short_way(problem, U1, V):
        method = "riccati"
    rtol, solver = jnp.asarray(_tolerance(rtol, V.dtype), V.dtype), _solver(solver, V.dtype)
    adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
    lambda0, general = jnp.asarray(lambda0, V.dtype), "riccati" if method == "closed" else method
    objective, _ = _objective(
        problem, U1, V, fit.ts, fit.product, fit.weights, rtol, general, adjoint, solver, max_steps
    )
    if method == "closed":
        return short_product(problem.reduced_theta_hat.astype(V.dtype), U1, V, lambda0, objective.speed * fit.ts)
    return objective.predicted(lambda0)


@public
def lambda0_objective(
    problem: LeastSquares,
    U0: Real[ArrayLike, "_ h"],
    V0: Real[ArrayLike, "m h"],
    lambda0: Real[ArrayLike, ""],
    fit: Lambda0Fit,
    **policy: Any,
) -> Float[Array, ""]:
    """J(lambda0) on the horizon, nodes and plain flow of a fit, by any method.

    **Args:** as for `lambda0_path`, whose mismatch with the flow it is.

    **Returns:** a number, differentiable as the path is.

    **Raises:** as `fit_lambda0`.

    **Source:** T21 Fig. 2.

    Example:

        >>> problem = ld.factorization(jnp.array([[1.0]]))
        >>> start = ld.init.gaussian(1, 1, 3, std=0.5, key=jax.random.key(0))
        >>> fit = ld.fit_lambda0(problem, start.U, start.V)
        >>> print(ld.lambda0_objective(problem, start.U, start.V, 0.0, fit), fit.at_zero)
        0.01401 0.01401
    """
    return fit.mismatch(lambda0_path(problem, U0, V0, lambda0, fit, **policy))


@eqx.filter_jit
def _fit(
    given: Given, width, rtol: Array, method: str, adjoint, nodes: int, grid: int, solver, max_steps: int
) -> tuple[Lambda0Fit, Float[Array, "T r m"]]:
    """The fit, and the velocity of its flow's product."""
    problem, U1, V, horizon, relative_error = given
    dtype = V.dtype
    start = Reduction(TwoLayer(U1, V))
    unit_nodes, fine, coarse = (jnp.asarray(values, dtype) for values in clenshaw_curtis(nodes))

    # The flow, and beside it one at a hundred times its tolerance, which tells the error. One after the other: in lock step
    # they take ten times as long on a CPU.
    tolerances = jnp.stack([rtol, jnp.minimum(100 * rtol, 1e-2)])
    if horizon is None:
        horizons, reached = jax.lax.map(
            lambda tolerance: first_time(start, problem, relative_error, tolerance, solver, max_steps), tolerances
        )
        reached = reached[0]
    else:
        horizons, reached = jnp.stack([horizon, horizon]), jnp.ones((), bool)
    ts = horizons[:, None] * unit_nodes

    def plain(point):
        motion, ok = integrate(
            U1, V, problem, point[1], rtol=point[0], solver=solver, max_steps=max_steps, adjoint=adjoint
        )
        return ok, *jax.tree.map(lambda leaf: jnp.where(ok, leaf, 0), motion)

    finished, paths, velocities = jax.lax.map(plain, (tolerances, ts))

    objective, independent = _objective(problem, U1, V, ts[0], paths[0], fine, rtol, method, adjoint, solver, max_steps)
    loose = _objective(problem, U1, V, ts[1], paths[1], fine, rtol, method, adjoint, solver, max_steps)[0]
    halved = eqx.tree_at(lambda tree: tree.weights, objective, coarse)
    varying = lambda tree: (tree.ts, tree.path, tree.weights)  # noqa: E731
    variants = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(varying(tree) for tree in (objective, objective, objective, halved, loose))
    )

    def derivative(lambda0, variant):
        return eqx.tree_at(varying, objective, variant).derivative(lambda0)

    brackets, at_zero = scan(objective, _extent(problem, U1, V, objective.speed * horizons[0]), grid)

    tolerance = 1e-5 if dtype == jnp.float64 else 2e-2

    def refine(bracket):
        x, iterations, done = secant(bracket, objective, tolerance)
        found = bracket.centre + bracket.unit * x
        inside = (found >= bracket.low) & (found <= bracket.high) & done
        lambda0 = jnp.where(inside & ~bracket.edge, found, bracket.fallback)
        # The derivative on both sides gives the second one, by any method; then those of the two coarser objectives.
        step = bracket.unit * jnp.finfo(dtype).eps ** (1 / 3)
        points = lambda0 + step * jnp.asarray([0, 1, -1, 0, 0], dtype)
        looked: tuple[Array, Array] = jax.lax.map(lambda point: derivative(*point), (points, variants))
        values, slopes = looked
        curvature: Array = (slopes[1] - slopes[2]) / (2 * step)
        J, slope = values[0], slopes[0]
        shift = jnp.sum(jnp.abs(slopes[3:] - slope))
        shift = jnp.where(curvature > 0, shift / jnp.where(curvature > 0, curvature, 1), jnp.inf)
        return {
            "lambda0": lambda0,
            "objective": J,
            "curvature": curvature,
            "converged": jnp.where(bracket.edge, ~bracket.top, inside),
            "at_edge": bracket.edge,
            "iterations": jnp.where(bracket.edge, 0, iterations),
            "quadrature_error": jnp.abs(values[3] - J),
            "integration_error": jnp.abs(values[4] - J),
            "lambda0_error": jnp.where(bracket.edge & ~bracket.top, 0, shift),
        }

    minima = jax.lax.map(refine, brackets)
    lambda0 = minima["lambda0"]
    result = jnp.where(independent, FITTED, DEPENDENT_ROWS)
    result = jnp.where(reached, result, NO_HORIZON)
    result = jnp.where(finished[0], result, FLOW_FAILED)
    result = jnp.where(jnp.isnan(objective.speed), ANISOTROPIC, result)
    fit = Lambda0Fit(
        **minima,
        at_zero=at_zero,
        best=jnp.argmin(minima["objective"]),
        horizon=horizons[0],
        ts=ts[0],
        weights=fine,
        product=paths[0],
        realisable=jnp.where(lambda0 > 0, width <= U1.shape[0], (lambda0 == 0) | (width <= V.shape[0])),
        result=result,
    )
    return fit, velocities[0]


def _extent(problem: LeastSquares, U1: Array, V: Array, time: Array) -> tuple[Array, Array]:
    """The least and the largest level of the scan: below the first nothing changes until `time`."""
    signs = jnp.concatenate([jnp.ones(U1.shape[0], U1.dtype), -jnp.ones(V.shape[0], V.dtype)])
    imbalance = jnp.max(jnp.abs(signature_spectrum(jnp.concatenate([U1, V]), signs)))
    target = 2 * jnp.linalg.norm(problem.reduced_theta_hat, ord=2).astype(V.dtype)
    largest = jnp.maximum(jnp.maximum(imbalance, target), 1 / time)
    least = jnp.minimum(jnp.where(imbalance > 0, imbalance, largest), 1 / time) / 8
    return jnp.maximum(least, 2.0**-24 * largest), 32 * largest


def _objective(
    problem, U1, V, ts, path, weights, rtol, method, adjoint, solver, max_steps
) -> tuple[Objective, Bool[Array, ""]]:
    s = problem.singular_values
    speed: Any = (problem.scale * jnp.mean(s**2)).astype(V.dtype)
    closed, independent = None, jnp.ones((), bool)
    if method != "flow" and problem.X is not None:
        speed = jnp.where(_spread(s) > 100 * jnp.finfo(s.dtype).eps, jnp.nan, speed)
    if method == "closed":
        closed, independent = prepare(problem.reduced_theta_hat.astype(V.dtype), U1, V)
        path = closed.rotate(path)
    objective = Objective(problem, U1, V, closed, speed, ts, path, weights, rtol, method, adjoint, solver, max_steps)
    return objective, independent


def _moving_rows(problem: LeastSquares, U0: Array, V0: Array) -> tuple[Float[Array, "r k"], Float[Array, "m k"]]:
    """U1 and V in one dtype, with at most r + m columns."""
    dtype = jnp.result_type(U0, V0, problem.dtype)
    U1 = (U0 if U0.shape[0] == problem.rank else problem.to_data(U0)).astype(dtype)
    V = V0.astype(dtype)
    if V.shape[1] > U1.shape[0] + V.shape[0]:
        L, _ = row_factor(jnp.concatenate([V, U1]))
        V, U1 = L[: V.shape[0]], L[V.shape[0] :]
    return U1, V


def _tolerance(rtol, dtype):
    if rtol is None:
        return 1e-9 if dtype == jnp.float64 else 1e-5
    if not _checks.is_traced(rtol):
        _checks.check_tolerance(float(rtol), "rtol", dtype)
    return rtol


def _solver(solver, dtype) -> diffrax.AbstractSolver | str:
    if isinstance(solver, diffrax.AbstractSolver):
        return solver
    _checks.check_choice(
        solver,
        "solver",
        ("auto", *(name for name, one in methods.METHODS.items() if one.takes_any)),
    )
    if solver == "auto":
        return "dopri8" if dtype == jnp.float64 else "tsit5"
    return solver


# -- checks --------------------------------------------------------------------------------------------------------------

_ANISOTROPIC = (
    "The closed form of homogeneous imbalance needs X^T X proportional to the identity on its range: use "
    "`factorization(Y)`, whiten X, or pass method='flow' to integrate the regularized flow."
)


def _spread(s: Array) -> Array:
    return jnp.max(s) / jnp.min(s) - 1


def _check(problem, U0, V0, method, nodes, grid) -> None:
    if problem.link is not None:
        raise ValueError("Homogeneous imbalance has no closed form under a link function: leave out `link`.")
    _checks.check_choice(method, "method", METHODS)
    for name, factor, sizes in (("U0", U0, (problem.num_inputs, problem.rank)), ("V0", V0, (problem.num_outputs,))):
        if factor.shape[0] not in sizes:
            wanted = " or ".join(str(size) for size in dict.fromkeys(sizes))
            raise ValueError(f"Argument `{name}` must have {wanted} rows, but has shape {factor.shape}.")
    if U0.shape[1] != V0.shape[1]:
        raise ValueError(
            f"Arguments `U0` and `V0` must have the same width h, but have {U0.shape[1]} and {V0.shape[1]}."
        )
    if nodes < 4 or nodes % 4:
        raise ValueError(f"Argument `nodes` must be a multiple of 4, but is {nodes}.")
    if grid < 3:
        raise ValueError(f"Argument `grid` must be at least 3, but is {grid}.")
    check_isotropic(problem, method)


def check_isotropic(problem: LeastSquares, method: str) -> None:
    """Refuses data for which the closed form does not hold, as far as they are known."""
    if method != "flow" and not _checks.is_traced(problem.singular_values) and problem.X is not None:
        s = problem.singular_values
        if float(_spread(s)) > 100 * float(jnp.finfo(s.dtype).eps):
            raise ValueError(f"{_ANISOTROPIC} The condition number of X^T X is {float(problem.condition):.3g}.")


def _check_reachable(problem, U1, V, horizon, relative_error) -> None:
    """Refuses what never comes down to the relative error, where that is known: zero targets, narrow or zero starts."""
    if not _checks.is_traced(U1, V) and not (np.any(np.asarray(U1)) or np.any(np.asarray(V))):
        raise ValueError("The start is the saddle U0 = 0, V0 = 0, which gradients never leave: give it weights.")
    if horizon is not None or _checks.is_traced(problem.Ytil, relative_error):
        return
    norm = np.linalg.norm(np.asarray(problem.Ytil))
    if norm == 0:
        raise ValueError("The target is zero, so that no relative error ends the flow: pass `horizon`.")
    s = np.linalg.svd(np.asarray(problem.Ytil), compute_uv=False)
    least = float(np.sqrt(np.sum(s[V.shape[1] :] ** 2)) / norm)
    if least >= float(relative_error):
        raise ValueError(
            f"A start of width {V.shape[1]} comes down to a relative error of {least:.3g} at best, and not to "
            f"{float(relative_error):.3g}: pass `horizon`, or a larger `relative_error`."
        )


def _may_use_short_way(problem: LeastSquares, U1: Array, V: Array) -> bool:
    """Whether the short way is exact for this start, as far as is known: it is taken on trust while tracing."""
    if V.shape[1] < U1.shape[0] + V.shape[0]:
        return False
    if _checks.is_traced(U1, V, problem.Ytil, problem.singular_values):
        return True
    return bool(prepare(problem.reduced_theta_hat.astype(V.dtype), U1, V)[1])
