r"""Bounds on the loss along the flow (M22 Theorem 3 and its corollaries).

Proposition 1 holds at one state; Theorem 3 follows the product along the path. The bounds are for gradient flow on a problem
without a link, without weight decay.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from .. import _checks
from .._finite import of_finite_state
from .._public import public
from .._statement import Statement
from ..models import AbstractModel
from ..problems import LeastSquares
from ._numerics import norm, singular_value
from .bounds import layer_bounds, product_edges
from .imbalance import SpectrumEdges, imbalance, moving_layers, spectrum_edges


@public
@of_finite_state
def margin(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """`sigma_{min(r, m)}(Ytil) - ||E||_F`: while it is positive the product cannot lose rank.

    **Args:** `model`, `problem`.

    **Returns:** the margin, of either sign. The excess loss never grows, so neither does ||E||_F, and the margin never
    falls.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Source:** M22 Corollary 5 and (26).

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> float(ld.theory.margin(ld.init.balanced(problem, 0.9 * problem.Y, 2), problem))
        0.7764
    """
    _, target, error = target_and_error(model, problem)
    return target[-1] - error


@public
@of_finite_state
def convergence_constant(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    r"""c(t): Proposition 1's bracket with the product bounded by how far the target's singular values exceed the error.

    `sigma_m(U1 V^T)^2` becomes `[sigma_m(Ytil) - ||E||_F]_+^2/lambda_1`, and sigma_r likewise.

    **Args:** `model`, the state at time t; `problem`.

    **Returns:** c(t) >= 0; along the flow it never falls.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Source:** M22 (21). With margin at most 0 it is 2 Delta.

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> near, far = ld.init.balanced(problem, 0.9 * problem.Y, 2), ld.init.balanced(problem, 0.1 * problem.Y, 2)
        >>> float(ld.theory.convergence_constant(near, problem)), float(ld.theory.convergence_constant(far, problem))
        (3.106, 0.0)
    """
    return constant_now(model, problem)


@public
@of_finite_state
def local_rate(model: AbstractModel, problem: LeastSquares) -> Statement:
    """The rate that Theorem 3 gives near the end of training: `q lambda_r` times the limit of c(t) at zero error.

    **Args:** `model`, any state of the path; `problem`.

    **Returns:** a `Statement` on the rate as t grows; `applies` says whether c > 0 here, so that the flow is known to
    converge.

    **Raises:** `ValueError` for a problem with a link or a penalty, or a model that does not fit it.

    **Source:** M22 (22).

    Example:

        >>> problem, model = ld.factorization(2 * np.eye(1)), ld.TwoLayer(np.eye(1), 0.5 * np.eye(1))
        >>> float(ld.theory.local_rate(model, problem).value), 2 * float(ld.exact.mode_rate(2.0, 1.0, 0.5).value)
        (8.139, 8.139)
    """
    edges = spectrum_edges(model, problem)
    s, target, error = target_and_error(model, problem)
    limit = _constant(edges, problem, target, jnp.zeros_like(error), s)
    return Statement(problem.scale * s[-1] ** 2 * limit, constant_now(model, problem) > 0)


@public
@of_finite_state
def loss_bound(model: AbstractModel, problem: LeastSquares, ts: Real[Array, "*times"]) -> Statement:
    r"""Upper bound on the excess loss along the flow that starts here; it needs no hypothesis.

    `L(t) - L* <= exp(-q lambda_r c(0) t) (L(0) - L*)`.

    **Args:**

    - `model`: the start.
    - `problem`: without a link.
    - `ts`: times since the start, not negative.

    **Returns:** a `Statement` on the bound at each time; `rate`, of its exponential, 0 where c(0) = 0: the bound then only
    says that the loss does not grow.

    **Raises:** `ValueError` for negative concrete times, a problem with a link or a penalty, or a model that does not fit it.

    **Source:** M22 Theorem 3.

    Example:

        >>> problem, model = ld.factorization(2 * np.eye(1)), ld.TwoLayer(np.eye(1), 0.5 * np.eye(1))
        >>> ts = jnp.array([0.0, 0.5, 1.0])
        >>> ld.theory.loss_bound(model, problem, ts).value.tolist()
        [1.125, 0.3223, 0.09235]
        >>> ((2 - ld.exact.mode(2.0, 1.0, 0.5, ts).x) ** 2 / 2).tolist()
        [1.125, 0.1292, 0.00356]
    """
    bound = corollary6(model, problem, ts, 0.0)
    return Statement(bound.value, jnp.isfinite(bound.rate), rate=bound.rate)


# Its name beside `g19_theorem3`, which is another paper's.
m22_theorem3 = loss_bound


@public
@of_finite_state
def corollary4(model: AbstractModel, problem: LeastSquares) -> Statement:
    """Rate of convergence by the level of imbalance alone: `2 q lambda_r Delta`. Hypothesis: Delta > 0.

    **Args:** `model`, the start; `problem`.

    **Returns:** a `Statement` on the rate of `L(t) - L*`.

    **Raises:** `ValueError` for a problem with a link or a penalty, or a model that does not fit it.

    **Source:** M22 Corollary 4, M21 Theorem 1.

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> model = ld.init.with_imbalance(problem, problem.Y / 2, np.array([2.0, 1.0]), np.array([1.0, 0.5]), 4)
        >>> float(ld.theory.corollary4(model, problem).value), float(ld.theory.instantaneous_rate(model, problem))
        (3.0, 6.49)
    """
    problem.refuse_link("corollary4")
    level = imbalance(model, problem).level
    return Statement(2 * problem.scale * problem.singular_values[-1] ** 2 * level, level > 0)


@public
@of_finite_state
def corollary5(model: AbstractModel, problem: LeastSquares) -> Statement:
    """Rate of convergence of a start with margin: `q lambda_r c(0)`. Hypothesis: the margin is positive.

    **Args:** `model`, the start; `problem`.

    **Returns:** a `Statement` on the rate of `L(t) - L*`.

    **Raises:** `ValueError` for a problem with a link or a penalty, or a model that does not fit it.

    **Notes:** the paper prints twice this rate, which is false: u = 1, v = .9, y = 1 breaks it.

    **Source:** M22 Corollary 5, corrected.

    Example:

        >>> problem, model = ld.factorization(np.eye(1)), ld.TwoLayer(np.eye(1), 0.9 * np.eye(1))
        >>> found = ld.theory.corollary5(model, problem)
        >>> bool(found.applies), float(found.value), 2 * float(ld.exact.mode_rate(1.0, 1.0, 0.9).value)
        (True, 3.62, 4.018)
    """
    s, target, error = target_and_error(model, problem)
    constant = constant_now(model, problem)
    return Statement(problem.scale * s[-1] ** 2 * constant, target[-1] > error)


@public
@of_finite_state
def corollary6(
    model: AbstractModel, problem: LeastSquares, ts: Real[Array, "*times"], t0: Real[Array, ""] | float
) -> Statement:
    r"""Upper bound on the excess loss after a time t0 at which the rate is known to be positive. Hypothesis: c(t0) > 0.

    `L(t) - L* <= exp(-q lambda_r c(t0) (t - t0)) (L(t0) - L*)`, t >= t0.

    **Args:** `model`, the state at t0; `problem`; `ts`, times on the path's own clock; `t0`.

    **Returns:** as `loss_bound`; infinity at times before t0, of which nothing is said.

    **Raises:** `ValueError` for negative concrete times, a problem with a link or a penalty, or a model that does not fit it.

    **Notes:** a positive margin (`corollary5`) or level of imbalance (`corollary4`) is enough for c(t0) > 0. The paper prints
    twice this rate, and t for t - t0.

    **Source:** M22 Corollary 6, corrected.

    Example:

        >>> problem, model = ld.factorization(2 * np.eye(1)), ld.TwoLayer(np.eye(1), 0.5 * np.eye(1))
        >>> bound = ld.theory.corollary6(model, problem, jnp.array([0.0, 3.0, 4.0]), 3.0)
        >>> float(bound.rate), bound.value.tolist()
        (2.5, [inf, 1.125, 0.09235])
    """
    ts = check_times(ts)
    s, _, error = target_and_error(model, problem)
    constant = constant_now(model, problem)
    rate = problem.scale * s[-1] ** 2 * constant
    elapsed = ts - t0
    begun = elapsed >= 0
    loss = problem.scale / 2 * error**2
    value = jnp.where(begun, jnp.exp(-rate * jnp.where(begun, elapsed, 0)) * loss, jnp.inf)
    return Statement(value, constant > 0, rate=rate)


def target_and_error(model: AbstractModel, problem: LeastSquares) -> tuple[Array, Array, Array]:
    """Singular values of the data, those of Ytil, and ||E||_F."""
    U1, V = moving_layers(model, problem)
    error = norm(problem.error(U1 @ V.T))
    return problem.singular_values, jnp.linalg.svd(problem.Ytil, compute_uv=False), error


def constant_now(model: AbstractModel, problem: LeastSquares) -> Array:
    """c at this state. What is kept of the target cannot exceed the product itself, and must not by round-off either."""
    s, target, error = target_and_error(model, problem)
    return _constant(spectrum_edges(model, problem), problem, target, error, s, product_edges(model, problem))


def _constant(edges: SpectrumEdges, problem: LeastSquares, target: Array, error: Array, s: Array, most=None) -> Array:
    kept = [
        jnp.maximum(singular_value(target, index) - error, 0) / s[0] for index in (problem.num_outputs, problem.rank)
    ]
    if most is not None:
        kept = [jnp.minimum(value, product) for value, product in zip(kept, most, strict=True)]
    first, second = layer_bounds(edges, *kept)
    return 2 * (first + second)


def check_times(ts) -> Array:
    ts = _checks.as_float(ts, "ts")
    if not _checks.is_traced(ts) and not np.all(np.asarray(ts) >= 0):
        raise ValueError("Argument `ts` must hold times since the start, none of them negative.")
    return ts
