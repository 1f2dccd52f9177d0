r"""The imbalance level lambda0 whose homogeneous solution follows a given gradient flow best (T21 Fig. 2).

The flow X(t) from (U0, V0) has no closed form; the flow regularized towards `Q = lambda0 I` from the same start, X^I(t), has
one. How well the second predicts the first is

    J(lambda0) = int_0^T ||X^I - X||_F^2 dt / int_0^T ||X||_F^2 dt,

which has a local minimum for either sign of lambda0. Both are found: a scan brackets them, L-BFGS refines them.
"""

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .. import _checks, exact, methods
from .. import observables as obs
from .._linalg import row_factor, signature_spectrum
from .._public import public
from ..flow import _first_step, gradient_flow
from ..models import AbstractModel, ReducedTwoLayer
from ..problem import LeastSquares
from ..solvers import RelativeController, growth_reach
from ._closed import ClosedForm, prepare

FITTED, NO_HORIZON, DEPENDENT_ROWS, FLOW_FAILED = range(4)

LAMBDA0_RESULTS = {
    FITTED: "fitted: both signs are answered; see `converged` and `at_edge`",
    NO_HORIZON: "no horizon: the plain flow did not come down to the relative error that ends it",
    DEPENDENT_ROWS: "dependent rows: the start needs method='riccati', which was not known while tracing",
    FLOW_FAILED: "flow failed: the plain flow could not be integrated to the horizon",
}

METHODS = ("closed", "riccati", "flow")
SCAN_ROUNDS = 6
MOST_ITERATIONS = 64


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
        return _ratio(product - self.product, self.product, self.weights)

    def __repr__(self) -> str:
        leaves = jax.tree.leaves(self)
        if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves) or np.ndim(self.result):
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
        linearly independent, else by `exact.homogeneous`; `"riccati"`: always the latter, about 30 times slower, which
        has derivatives with respect to the target too; `"flow"`: integrated by diffrax, for any data.
    - `adjoint`: for `"flow"`, how the derivative passes through the integration: `diffrax.ForwardMode()`, the default, or
        a reverse-mode one such as `diffrax.RecursiveCheckpointAdjoint()`.
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

    **Source:** T21 Fig. 2 and section 6; that there are two minima is this package's own.
    """
    U0, V0 = _checks.as_matrix(U0, "U0", "(n, h)"), _checks.as_matrix(V0, "V0", "(m, h)")
    _check(problem, U0, V0, method, nodes, grid)
    for name, value in (("U0", U0), ("V0", V0)):
        _checks.check_finite(value, name)
    U1, V = _moving_rows(problem, U0, V0)
    dtype = V.dtype
    width = jnp.asarray(V0.shape[1] if width is None else width, dtype)
    _check_reachable(problem, U1, V, horizon, relative_error)
    if horizon is not None:
        _checks.check_positive(horizon, "horizon")
        horizon = jnp.asarray(horizon, dtype)
    _checks.check_positive(relative_error, "relative_error")
    rtol, solver = _tolerance(rtol, dtype), _solver(solver, dtype)
    if method == "closed" and not _may_use_short_way(problem, U1, V):
        method = "riccati"
    adjoint = diffrax.ForwardMode() if adjoint is None else adjoint
    return _fit(
        problem,
        U1,
        V,
        horizon,
        jnp.asarray(relative_error, dtype),
        width,
        jnp.asarray(rtol, dtype),
        method,
        adjoint,
        int(nodes),
        int(grid),
        solver,
        int(max_steps),
    )


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
    """The homogeneous solution X^I at the times of a fit, by any method; differentiable in lambda0.

    **Args:** `problem`, `U0`, `V0` and the policy as in `fit_lambda0`, which returned `fit`; `lambda0`, a number. The default
    adjoint of `"flow"` is `diffrax.RecursiveCheckpointAdjoint()`.

    **Returns:** Phi1^T Theta at `fit.ts`, beside `fit.product`, shape (T, r, m).

    **Raises:** as `fit_lambda0`.

    **Source:** T21 Fig. 2.
    """
    U0, V0 = _checks.as_matrix(U0, "U0", "(n, h)"), _checks.as_matrix(V0, "V0", "(m, h)")
    _check(problem, U0, V0, method, 4, 3)
    U1, V = _moving_rows(problem, U0, V0)
    if method == "closed" and not _may_use_short_way(problem, U1, V):
        method = "riccati"
    objective, _ = _objective(
        problem,
        U1,
        V,
        fit.ts,
        fit.product,
        fit.weights,
        jnp.asarray(_tolerance(rtol, V.dtype), V.dtype),
        method,
        diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        _solver(solver, V.dtype),
        max_steps,
    )
    path = objective.predicted(jnp.asarray(lambda0, V.dtype))
    return path if objective.closed is None else objective.closed.rotate_back(path)


@public
def lambda0_objective(
    problem: LeastSquares,
    U0: Real[ArrayLike, "_ h"],
    V0: Real[ArrayLike, "m h"],
    lambda0: Real[ArrayLike, ""],
    fit: Lambda0Fit,
    **policy: Any,
) -> Float[Array, ""]:
    """J(lambda0) on the horizon, nodes and plain flow of a fit, by any method; differentiable in lambda0.

    **Args:** as for `lambda0_path`, whose mismatch with the flow it is.

    **Source:** T21 Fig. 2.
    """
    return fit.mismatch(lambda0_path(problem, U0, V0, lambda0, fit, **policy))


class _Objective(eqx.Module):
    """J as a function of lambda0 alone."""

    problem: LeastSquares
    U1: Float[Array, "r k"]
    V: Float[Array, "m k"]
    closed: ClosedForm | None
    speed: Float[Array, ""]
    ts: Float[Array, " T"]
    path: Float[Array, "T r m"]
    weights: Float[Array, " T"]
    rtol: Float[Array, ""]
    method: str = eqx.field(static=True)
    adjoint: diffrax.AbstractAdjoint = eqx.field(static=True)
    solver: Any = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __call__(self, lambda0: Float[Array, ""]) -> Float[Array, ""]:
        return _ratio(self.predicted(lambda0) - self.path, self.path, self.weights)

    def predicted(self, lambda0: Float[Array, ""]) -> Float[Array, "T r m"]:
        if self.closed is not None:
            return self.closed.product(lambda0, self.speed * self.ts)
        if self.method == "flow":
            regularized = self.problem.regularized(lambda0, self.speed / 8)
            zero = jnp.zeros_like(lambda0)
            start = ReducedTwoLayer(self.U1, self.V, zero, zero, None)
            flow = _integrate(start, regularized, self.ts, self.rtol, self.solver, self.max_steps, self.adjoint)
            return flow.observables["product"]
        return exact.homogeneous_product(self.problem.reduced_theta_hat, self.U1, self.V, lambda0, self.speed * self.ts)

    def derivative(self, lambda0: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """J and dJ/dlambda0, in the mode that the adjoint allows."""
        if self.method == "flow" and not isinstance(self.adjoint, (diffrax.ForwardMode, diffrax.DirectAdjoint)):
            return jax.value_and_grad(self.__call__)(lambda0)
        return jax.jvp(self.__call__, (lambda0,), (jnp.ones_like(lambda0),))


class _Bracket(eqx.Module):
    """Where one sign is refined. `fallback` is the best point of the scan, `edge` whether it is one end of what was scanned."""

    centre: Float[Array, ""]
    unit: Float[Array, ""]
    height: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]
    fallback: Float[Array, ""]
    edge: Bool[Array, ""]
    top: Bool[Array, ""]


@eqx.filter_jit
def _fit(
    problem, U1, V, horizon, relative_error, width, rtol, method, adjoint, nodes, grid, solver, max_steps
) -> Lambda0Fit:
    dtype = V.dtype
    zero = jnp.zeros((), dtype)
    start = ReducedTwoLayer(U1, V, zero, zero, None)
    unit_nodes, fine, coarse = (jnp.asarray(values, dtype) for values in _clenshaw_curtis(nodes))

    # The flow, and beside it one at a hundred times its tolerance, which tells the error. One after the other: in lock step
    # they take ten times as long on a CPU.
    tolerances = jnp.stack([rtol, jnp.minimum(100 * rtol, 1e-2)])
    if horizon is None:
        horizons, reached = jax.lax.map(
            lambda tolerance: _first_time(start, problem, relative_error, tolerance, solver, max_steps), tolerances
        )
        reached = reached[0]
    else:
        horizons, reached = jnp.stack([horizon, horizon]), jnp.ones((), bool)
    ts = horizons[:, None] * unit_nodes

    def plain(point):
        flow = _integrate(start, problem, point[1], point[0], solver, max_steps, adjoint)
        return flow.ok, jnp.where(flow.ok, flow.observables["product"], 0)

    finished, paths = jax.lax.map(plain, (tolerances, ts))

    objective, independent = _objective(problem, U1, V, ts[0], paths[0], fine, rtol, method, adjoint, solver, max_steps)
    loose = _objective(problem, U1, V, ts[1], paths[1], fine, rtol, method, adjoint, solver, max_steps)[0]
    halved = eqx.tree_at(lambda tree: tree.weights, objective, coarse)
    varying = lambda tree: (tree.ts, tree.path, tree.weights)  # noqa: E731
    variants = jax.tree.map(
        lambda *leaves: jnp.stack(leaves), *(varying(tree) for tree in (objective, objective, objective, halved, loose))
    )

    def derivative(lambda0, variant):
        return eqx.tree_at(varying, objective, variant).derivative(lambda0)

    brackets, at_zero = _scan(objective, _extent(problem, U1, V, objective.speed * horizons[0]), grid)

    tolerance = 1e-5 if dtype == jnp.float64 else 2e-2

    def refine(bracket):
        x, iterations, done = _secant(bracket, objective, tolerance)
        found = bracket.centre + bracket.unit * x
        inside = (found >= bracket.low) & (found <= bracket.high) & done
        lambda0 = jnp.where(inside & ~bracket.edge, found, bracket.fallback)
        # The derivative on both sides gives the second one, by any method; then those of the two coarser objectives.
        step = bracket.unit * jnp.finfo(dtype).eps ** (1 / 3)
        points = lambda0 + step * jnp.asarray([0, 1, -1, 0, 0], dtype)
        values, slopes = jax.lax.map(lambda point: derivative(*point), (points, variants))
        curvature = (slopes[1] - slopes[2]) / (2 * step)
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
    return Lambda0Fit(
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


def _scan(objective: _Objective, extent: tuple[Array, Array], grid: int) -> tuple[_Bracket, Float[Array, ""]]:
    """A bracket for either sign from values on a geometric grid that grows until its last value is not the least."""
    lower, upper = extent
    at_zero, slope = objective.derivative(jnp.zeros_like(lower))

    def side(sign):
        def body(carry):
            _, upper_before, values, rounds = carry
            first = rounds == 0
            low, high = jnp.where(first, lower, upper_before / 4), jnp.where(first, upper, 32 * upper_before)
            levels = sign * _levels(low, high, grid)
            values = jax.vmap(objective)(levels) if objective.closed is not None else jax.lax.map(objective, levels)
            return low, high, jnp.where(jnp.isfinite(values), values, jnp.inf), rounds + 1

        def goes_on(carry):
            _, _, values, rounds = carry
            return (rounds == 0) | ((jnp.argmin(values) == grid - 1) & (rounds < SCAN_ROUNDS))

        empty = (lower, upper, jnp.full(grid, jnp.inf, lower.dtype), jnp.zeros((), jnp.int32))
        low, high, values, _ = jax.lax.while_loop(goes_on, body, empty)
        x = _levels(low, high, grid)
        i = jnp.argmin(values)
        left = jnp.where(i == 0, 0, x[i - 1]), jnp.where(i == 0, at_zero, values[i - 1])
        middle, right = (x[i], values[i]), (x[jnp.minimum(i + 1, grid - 1)], values[jnp.minimum(i + 1, grid - 1)])

        falls = (i == 0) & (at_zero <= values[0]) & (sign * slope < 0)
        at_zero_edge = (i == 0) & (at_zero <= values[0]) & ~falls
        top = i == grid - 1
        edge = at_zero_edge | top

        # A parabola through three points, or through zero, with its slope there, and the first level.
        safe = lambda gap: jnp.where(gap > 0, gap, 1)  # noqa: E731
        before = (middle[1] - left[1]) / safe(middle[0] - left[0])
        after = (right[1] - middle[1]) / safe(right[0] - middle[0])
        half = jnp.where(
            falls, (middle[1] - at_zero - sign * slope * x[0]) / x[0] ** 2, (after - before) / safe(right[0] - left[0])
        )
        curved = half > 0
        half = jnp.where(curved, half, 1)
        vertex = jnp.where(falls, -sign * slope / (2 * half), (left[0] + middle[0]) / 2 - before / (2 * half))
        low = jnp.where(falls, 0, left[0])
        high = jnp.where(falls, x[0], right[0])
        vertex = jnp.clip(jnp.where(curved, vertex, middle[0]), low, high)
        height = jnp.maximum(jnp.maximum(left[1], right[1]), middle[1])
        height = jnp.where(jnp.isfinite(height) & (height > 0), height, 1)
        unit = jnp.where(curved, jnp.sqrt(height / (2 * half)), high - low)
        unit = jnp.where(edge, x[0], unit)
        fallback = jnp.where(at_zero_edge | falls, 0, middle[0])
        ends = jnp.sort(sign * jnp.stack([low, high]))
        return _Bracket(sign * vertex, unit, height, ends[0], ends[1], sign * fallback, edge, top)

    return jax.vmap(side)(jnp.asarray([1, -1], lower.dtype)), at_zero


def _secant(bracket: _Bracket, objective: _Objective, tolerance: float) -> tuple[Array, Array, Array]:
    """The zero of dJ/dx from x = 0, for lambda0 = centre + unit x: L-BFGS, which for one number is the secant method.

    In these units the parabola of the scan has second derivative 1, so that the first step is Newton's. Steps end at the bracket.
    """
    optimizer = optax.scale_by_lbfgs(memory_size=1, scale_init_precond=False)
    ends = (jnp.stack([bracket.low, bracket.high]) - bracket.centre) / bracket.unit
    origin = jnp.zeros_like(bracket.centre)

    def body(carry):
        x, state, _, count = carry
        _, slope = objective.derivative(bracket.centre + bracket.unit * x)
        direction, state = optimizer.update(slope * bracket.unit / bracket.height, state, x)
        moved = jnp.clip(x - direction, ends[0], ends[1])
        return moved, state, jnp.abs(moved - x), count + 1

    def goes_on(carry):
        _, _, move, count = carry
        return (move > tolerance) & (count < MOST_ITERATIONS)

    start = (origin, optimizer.init(origin), jnp.full_like(origin, jnp.inf), jnp.zeros((), jnp.int32))
    x, _, move, count = jax.lax.while_loop(goes_on, body, start)
    return x, count, move <= tolerance


def _levels(low: Array, high: Array, grid: int) -> Float[Array, " G"]:
    return low * (high / low) ** jnp.linspace(0, 1, grid, dtype=low.dtype)


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
) -> tuple[_Objective, Bool[Array, ""]]:
    s = problem.singular_values
    speed = (problem.scale * jnp.mean(s**2)).astype(V.dtype)
    closed, independent = None, jnp.ones((), bool)
    if method != "flow" and problem.X is not None:
        speed = eqx.error_if(speed, _spread(s) > 100 * jnp.finfo(s.dtype).eps, _ANISOTROPIC)
    if method == "closed":
        closed, independent = prepare(problem.reduced_theta_hat.astype(V.dtype), U1, V)
        path = closed.rotate(path)
    objective = _Objective(problem, U1, V, closed, speed, ts, path, weights, rtol, method, adjoint, solver, max_steps)
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
        ("auto", *(name for name, one in methods.METHODS.items() if isinstance(one, methods.Standard))),
    )
    if solver == "auto":
        return "dopri8" if dtype == jnp.float64 else "tsit5"
    return solver


def _product(model: AbstractModel, problem: LeastSquares) -> Float[Array, "r m"]:
    return obs.reduced_product(model, problem)


def _integrate(start, problem, ts, rtol, solver, max_steps, adjoint):
    return gradient_flow(
        start,
        problem,
        ts,
        observables={"product": _product},
        solver=solver,
        rtol=rtol,
        max_steps=max_steps,
        adjoint=adjoint,
    )


def _first_time(start, problem, relative_error, rtol, solver, max_steps) -> tuple[Float[Array, ""], Bool[Array, ""]]:
    """The first time of the relative error, and whether there is one."""
    moving, fixed = eqx.partition(start, start.moving())
    solver = methods.as_method(solver).solver
    norm = jnp.sum(problem.Ytil**2)
    tiny = jnp.finfo(norm.dtype).tiny

    def velocity(t, y, args):
        with jax.default_matmul_precision("highest"):
            return eqx.filter(eqx.combine(y, fixed).velocity(problem), start.moving())

    def excess(y):
        """log of the squared relative error over that of its end."""
        error = jnp.sum(problem.error(eqx.combine(y, fixed).product()) ** 2)
        return jnp.log(jnp.maximum(error, tiny)) - jnp.log(jnp.maximum(relative_error**2 * norm, tiny))

    infinity = jnp.asarray(jnp.inf, rtol.dtype)
    first_step = _first_step(start, problem, infinity, rtol)
    policy = {
        "max_steps": max_steps,
        "adjoint": diffrax.ForwardMode(),
        "throw": False,
    }
    coarse = diffrax.diffeqsolve(
        diffrax.ODETerm(velocity),
        solver,
        t0=jnp.zeros_like(rtol),
        t1=infinity,
        dt0=first_step,
        y0=moving,
        args=(problem, fixed),
        stepsize_controller=RelativeController(rtol, reach=growth_reach(solver, rtol)),
        event=diffrax.Event(lambda t, y, args, **kwargs: excess(y) <= 0),
        **policy,
    )
    behind, end = coarse.ts[-1], jax.tree.map(lambda leaf: leaf[-1], coarse.ys)
    reached = (coarse.result == diffrax.RESULTS.event_occurred) & (excess(moving) > 0)

    # From the step that went past the end, back to it with the error in place of the time.
    def per_excess(e, state, args):
        _, y = state
        speed = velocity(0, y, None)
        slope = jax.jvp(excess, (y,), (speed,))[1]
        return jax.tree.map(lambda rate: rate / slope, (jnp.ones_like(e), speed))

    first = jnp.where(reached, excess(end), -1)
    # The state is the time and the weights, in units of their own: a floor that is small beside both.
    floor = 1e-3 * rtol * jax.lax.stop_gradient(jnp.minimum(behind, optax.tree.norm(end)))
    back = diffrax.diffeqsolve(
        diffrax.ODETerm(per_excess),
        solver,
        t0=first,
        t1=jnp.where(reached, 0, first),
        dt0=-first / 4,
        y0=(behind, jax.tree.map(lambda last, before: jnp.where(reached, last, before), end, moving)),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=floor),
        **policy,
    )
    reached &= back.result == diffrax.RESULTS.successful
    T = jax.lax.stop_gradient(jnp.where(reached, back.ys[0][-1], behind))
    return jnp.where(jnp.isfinite(T) & (T > 0), T, first_step), reached


def _ratio(difference: Array, path: Array, weights: Array) -> Float[Array, ""]:
    """Mean square of one path over that of another; 0/0 is 0."""
    above = jnp.sum(weights * jnp.sum(difference**2, axis=(1, 2)))
    below = jnp.sum(weights * jnp.sum(path**2, axis=(1, 2)))
    return above / jnp.where(below > 0, below, 1)


def _clenshaw_curtis(nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes on [0, 1], weights of the Clenshaw-Curtis rule, and those of the rule on every other node."""

    def weights(n):
        j = np.arange(1, n // 2 + 1)
        b = np.where(2 * j == n, 1, 2) / (4 * j**2 - 1)
        k = np.arange(n + 1)
        c = np.where((k == 0) | (k == n), 1, 2)
        return c / n * (1 - np.cos(2 * np.pi * np.outer(k, j) / n) @ b) / 2

    x = (1 - np.cos(np.pi * np.arange(nodes + 1) / nodes)) / 2
    half = np.zeros(nodes + 1)
    half[::2] = weights(nodes // 2)
    return x, weights(nodes), half


# -- checks --------------------------------------------------------------------------------------------------------------

_ANISOTROPIC = (
    "The closed form of homogeneous imbalance needs X^T X proportional to the identity on its range: use "
    "`factorization(Y)`, whiten X, or pass method='flow' to integrate the regularized flow."
)


def _spread(s: Array) -> Array:
    return jnp.max(s) / jnp.min(s) - 1


def _check(problem, U0, V0, method, nodes, grid) -> None:
    if not isinstance(problem, LeastSquares):
        raise ValueError(f"Argument `problem` must be a LeastSquares, but is a {type(problem).__name__}.")
    if problem.link is not None:
        raise ValueError("Homogeneous imbalance has no closed form under a link function: leave out `link`.")
    if problem.regularization is not None:
        raise ValueError(
            "The fit compares the plain flow with the regularized one: build the problem without `regularized`."
        )
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
