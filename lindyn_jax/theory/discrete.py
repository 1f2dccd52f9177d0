r"""Descent of one component, against the flow that it discretises: rates, stability, bounds at every step, and jumps.

Tied layers (T21 section 5), `x = u^2` with the target sigma: `u+ = u + 2 eta (sigma - u^2) u`, that is
`x+ = x (1 + 2 eta (sigma - x))^2`.

Two aligned layers (G19), `w = u^2`: `u+ = u + eta u (sigma - lambda u^2)`, that is `w+ = w (1 + eta (sigma - lambda w))^2`, with
q = 1/N; see `exact.aligned` for the flow and for other scales.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from ..exact._common import Rate, Time, as_floats, check_not_negative, check_vector, least_divisor, ratio


class DescentRate(NamedTuple):
    """The asymptotic rate of descent beside that of the flow.

    **Fields:** `factor`, by which the error is multiplied in a step, with its sign; `rate`, `-log|factor|/eta`, a unit of
    time being 1/eta steps; `flow_rate`; `applies`, whether the hypotheses hold, stability among them.
    """

    factor: Float[Array, "..."]
    rate: Float[Array, "..."]
    flow_rate: Float[Array, "..."]
    applies: Bool[Array, "..."]


class DescentBounds(NamedTuple):
    """Bounds on a component at every step, and whether their hypotheses hold.

    **Fields:** `lower`; `upper`; `applies`.
    """

    lower: Float[Array, "..."]
    upper: Float[Array, "..."]
    applies: Bool[Array, "..."]


# -- tied layers: T21 section 5 --------------------------------------------------------------------------------------


def tied_descent_step(
    x: Real[ArrayLike, "..."], sigma: Real[ArrayLike, "..."], eta: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """One step of descent on tied scalar layers: `x+ = x (1 + 2 eta (sigma - x))^2`.

    **Args:** `x`, the product, at least 0; `sigma`, target, of any sign; `eta`, step size.

    **Returns:** x+.

    **Raises:** `ValueError` for a negative x, and infinite or NaN arguments, where they are known.

    **Source:** T21 section 5.
    """
    x, sigma, eta = as_floats(x=x, sigma=sigma, eta=eta)
    check_not_negative(x=x)
    return x * (1 + 2 * eta * (sigma - x)) ** 2


def tied_descent_rate(sigma: Real[ArrayLike, "..."], eta: Real[ArrayLike, "..."]) -> DescentRate:
    r"""Asymptotic rate of descent on tied scalar layers, beside the flow's `4 |sigma|`.

    Near x = sigma > 0 the error is multiplied by `1 - 4 eta sigma` a step; near x = 0, where it ends for sigma < 0, by
    `(1 + 2 eta sigma)^2`. Hypotheses: sigma != 0, a start x > 0 that comes there, and stability, `0 < eta < 1/(2 sigma)` for
    sigma > 0 and `0 < eta < 1/|sigma|` for sigma < 0.

    **Args:** `sigma`, target; `eta`, step size.

    **Returns:** a `DescentRate`; its rate is infinite where the factor is 0, and meaningless where it does not apply.

    **Raises:** as `tied_descent_step`.

    **Notes:** for `eta < 1/(4 |sigma|)` descent is asymptotically the faster of the two, and tends to the flow as eta -> 0.
    The start is not an argument: from x > sigma + 1/eta every step overshoots further than the one before.

    **Source:** T21 section 5.
    """
    sigma, eta = jnp.broadcast_arrays(*as_floats(sigma=sigma, eta=eta))
    positive = sigma > 0
    size = jnp.abs(sigma)
    factor = jnp.where(positive, 1 - 4 * eta * size, (1 - 2 * eta * size) ** 2)
    stable = jnp.where(positive, 2 * eta * size < 1, eta * size < 1)
    moves = 2 * jnp.where(positive, 2 * eta * size, eta * size)
    log_factor = jnp.where(positive, 1, 2) * _log_distance(moves)
    return DescentRate(factor, _per_time(log_factor, eta), 4 * size, stable & (eta > 0) & (sigma != 0))


def linear_descent_step_rate(curvature: Real[ArrayLike, "..."], eta: Real[ArrayLike, "..."]) -> DescentRate:
    """Rate of descent on one scalar layer, beside the flow's `curvature`: the error is multiplied by `1 - eta curvature`.

    Hypotheses: curvature > 0 and `0 < eta < 2/curvature`.

    **Args:** `curvature`, `q c^2 X^T X`, which is 1 for T21's factorization; `eta`, step size.

    **Returns:** a `DescentRate`.

    **Raises:** as `tied_descent_step`.

    **Source:** T21 section 5.
    """
    curvature, eta = jnp.broadcast_arrays(*as_floats(curvature=curvature, eta=eta))
    moves = eta * curvature
    applies = (eta > 0) & (moves > 0) & (moves < 2)
    return DescentRate(1 - moves, _per_time(_log_distance(moves), eta), curvature, applies)


# -- two aligned layers: G19 ----------------------------------------------------------------------------------------


def descent_bounds(
    sigma: Real[ArrayLike, "..."],
    lam: Real[ArrayLike, "..."],
    w0: Real[ArrayLike, "..."],
    eta: Real[ArrayLike, "..."],
    steps: Real[ArrayLike, "..."],
) -> DescentBounds:
    r"""Bounds on an aligned component after any number of steps of descent.

    With `x = eta sigma` and `b(Q) = sigma w0/((sigma - lambda w0) Q + lambda w0)`:
    `b((1 + x)^{-2t}) <= w_t <= min(b((1 - 2x)^t), w0 (1 + x)^{2t}, sigma/lambda)`.
    Hypotheses: `0 < eta sigma < 1/2`, lambda > 0 and `0 < w0 <= sigma/lambda`.

    **Args:** shapes that broadcast together.

    - `sigma`, `lam`: singular value of Sigma_xy and eigenvalue of Sigma_x, as for `exact.aligned`.
    - `w0`: the component at the start.
    - `eta`: step size.
    - `steps`: number of steps t, at least 0.

    **Returns:** a `DescentBounds`; zeros where the hypotheses fail.

    **Raises:** `ValueError` for negative `lam`, `w0` or `steps`, and infinite or NaN arguments, where they are known.

    **Notes:** the printed upper bound is below the truth, at sigma = lambda = 1, w0 = .9, eta = .4 after one step already.

    **Source:** G19 Theorem 3, (23), corrected.
    """
    sigma, lam, w0, eta, steps = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam, w0=w0, eta=eta, steps=steps))
    check_not_negative(lam=lam, w0=w0, steps=steps)
    x = eta * sigma
    started = lam * w0 >= jnp.finfo(x.dtype).tiny
    applies = (x > 0) & (x < 0.5) & (lam > least_divisor(lam.dtype)) & started & (lam * w0 <= sigma)
    x, sigma, lam, w0 = (jnp.where(applies, a, b) for a, b in ((x, 0.25), (sigma, 1), (lam, 1), (w0, 1)))
    growth, decay = 2 * steps * jnp.log1p(x), steps * jnp.log1p(-2 * x)

    def bound(log_Q):
        return ratio(sigma * w0, (sigma - lam * w0) * jnp.exp(log_Q) + lam * w0)

    # As a logarithm: the growth alone would overflow.
    grown = jnp.exp(jnp.minimum(jnp.log(w0) + growth, jnp.log(sigma / lam)))
    lower, upper = bound(-growth), jnp.minimum(bound(decay), grown)
    return DescentBounds(jnp.where(applies, lower, 0), jnp.where(applies, upper, 0), applies)


def zero_mode_bounds(
    lam: Real[ArrayLike, "..."], w0: Real[ArrayLike, "..."], eta: Real[ArrayLike, "..."], steps: Real[ArrayLike, "..."]
) -> DescentBounds:
    r"""Bounds on a component with sigma = 0, which falls like 1/t.

    With `a = eta lambda w0`: `w0/(1 + ((1 - a)^{-2} - 1) t) <= w_t <= w0/(1 + 2 a t)`. Hypothesis: `0 <= a <= 3/2`. For a >= 1
    the lower bound is 0.

    **Args:** as for `descent_bounds`; `lam`, `w0`, `eta` and `steps` at least 0.

    **Returns:** a `DescentBounds`; zeros where the hypothesis fails.

    **Raises:** as `descent_bounds`.

    **Source:** G19 Theorem 3 for sigma = 0, with the factor 2 that the printed upper bound lacks.
    """
    lam, w0, eta, steps = jnp.broadcast_arrays(*as_floats(lam=lam, w0=w0, eta=eta, steps=steps))
    check_not_negative(lam=lam, w0=w0, eta=eta, steps=steps)
    a = eta * lam * w0
    applies, small = a <= 1.5, a < 1
    rest = jnp.where(small, 1 - a, 1)
    # (1 - a)^{-2} - 1 = a (2 - a)/(1 - a)^2 without cancellation.
    speed = jnp.where(small, a * (2 - a), 0) / rest**2
    lower = jnp.where(small, w0 / (1 + speed * steps), 0)
    upper = w0 / (1 + 2 * a * steps)
    return DescentBounds(jnp.where(applies, lower, 0), jnp.where(applies, upper, 0), applies)


def jump_steps(sigma: Real[ArrayLike, " p"], eta: Real[ArrayLike, ""]) -> Time:
    """Steps, in units of d, at which the components jump under descent as d grows: `T_j = 1/log(1 + eta sigma_j)`.

    From `w(0) = e^{-2d}`. Hypotheses: sigma_j > 0 and `0 < eta < 1/(2 sigma_1)`; no gap between the sigma_j is needed.

    **Args:** `sigma`, singular values of Sigma_xy, shape (p,), in any order; `eta`, step size.

    **Returns:** a `Time`, shape (p,); infinite for sigma_j <= 0.

    **Raises:** `ValueError` for a sigma that is not a vector, and infinite or NaN arguments, where they are known.

    **Source:** G19 Corollary 3, with times that need no condition on gaps.
    """
    sigma, eta = as_floats(sigma=sigma, eta=eta)
    check_vector(sigma, "sigma", "p")
    x = eta * sigma
    moving = x > least_divisor(x.dtype)
    value = jnp.where(moving, 1 / jnp.log1p(jnp.where(moving, x, 1)), jnp.inf)
    return Time(value, moving & (2 * eta * jnp.max(sigma) < 1))


def jumps_are_separate(sigma: Real[ArrayLike, " p"], eta: Real[ArrayLike, ""]) -> Bool[Array, ""]:
    """Whether the times that G19 prints for the jumps under descent are in order: `log(1 + eta sigma_i) > eta sigma_{i+1}`.

    **Args:** `sigma`, shape (p,), descending; `eta`, step size.

    **Returns:** a boolean. The times of `jump_steps` need no such condition.

    **Raises:** as `jump_steps`.

    **Source:** G19 Corollary 3; the exact form of its condition on gaps.
    """
    sigma, eta = as_floats(sigma=sigma, eta=eta)
    check_vector(sigma, "sigma", "p")
    return jnp.all(jnp.log1p(jnp.maximum(eta * sigma[:-1], 0)) > eta * sigma[1:])


def descent_component_rate(sigma: Real[ArrayLike, "..."], eta: Real[ArrayLike, "..."]) -> Rate:
    """Asymptotic rate a step of an aligned component: `-log|1 - 2 eta sigma|`, whose flow has `2 eta sigma`.

    Hypotheses: sigma > 0 and `0 < eta sigma < 1`.

    **Args:** `sigma`, `eta`, as for `descent_bounds`.

    **Returns:** a `Rate`, whose time is the number of steps.

    **Raises:** as `descent_bounds`.

    **Source:** the map of G19 Theorem 3, linearised at its end.
    """
    x = jnp.multiply(*as_floats(sigma=sigma, eta=eta))
    return Rate(-_log_distance(2 * x), (x > 0) & (x < 1))


def _log_distance(d: Array) -> Array:
    """`log|1 - d|`, to full accuracy for small d; minus infinity at d = 1."""
    solved = d == 1
    offset = jnp.where(d > 1, d - 2, -d)
    return jnp.where(solved, -math.inf, jnp.log1p(jnp.where(solved, 0, offset)))


def _per_time(log_factor: Array, eta: Array) -> Array:
    """`-log|factor|/eta`; zero where no step is made."""
    moves = jnp.abs(eta) > least_divisor(eta.dtype)
    return jnp.where(moves, -log_factor / jnp.where(moves, eta, 1), 0)
