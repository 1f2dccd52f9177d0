r"""Descent of one component, against the flow that it discretises: single steps and asymptotic rates.

Tied layers (T21 section 5), `x = u^2` with the target sigma: `u+ = u + 2 eta (sigma - u^2) u`, that is
`x+ = x (1 + 2 eta (sigma - x))^2`.

Two aligned layers (G19), `w = u^2`: `u+ = u + eta u (sigma - lambda u^2)`, that is `w+ = w (1 + eta (sigma - lambda w))^2`, with
q = 1/N; see `exact.aligned` for the flow and for other scales.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._finite import elementwise
from .._public import public
from .._statement import Statement
from ..exact._common import as_floats, check_not_negative, least_divisor


@public
@elementwise
def tied_descent_step(
    x: Real[ArrayLike, "..."], sigma: Real[ArrayLike, "..."], eta: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """One step of descent on tied scalar layers: `x+ = x (1 + 2 eta (sigma - x))^2`.

    **Args:** `x`, the product, at least 0; `sigma`, target, of any sign; `eta`, step size.

    **Returns:** x+.

    **Raises:** `ValueError` for a negative x, and infinite or NaN arguments, where they are known.

    **Source:** T21 section 5.

    Example:

        >>> float(ld.theory.tied_descent_step(0.5, 1.0, 0.1)), 0.5 * (1 + 0.2 * 0.5) ** 2
        (0.605, 0.605)
    """
    x, sigma, eta = as_floats(x=x, sigma=sigma, eta=eta)
    check_not_negative(x=x)
    return x * (1 + 2 * eta * (sigma - x)) ** 2


@public
@elementwise
def tied_descent_rate(sigma: Real[ArrayLike, "..."], eta: Real[ArrayLike, "..."]) -> Statement:
    r"""Asymptotic rate of descent on tied scalar layers, beside the flow's `4 |sigma|`.

    Near x = sigma > 0 the error is multiplied by `1 - 4 eta sigma` a step; near x = 0, where it ends for sigma < 0, by
    `(1 + 2 eta sigma)^2`. Hypotheses: sigma != 0, a start x > 0 that comes there, and stability, `0 < eta < 1/(2 sigma)` for
    sigma > 0 and `0 < eta < 1/|sigma|` for sigma < 0.

    **Args:** `sigma`, target; `eta`, step size.

    **Returns:** a `Statement` on the `rate`, `-log|factor|/eta`, a unit of time being 1/eta steps: infinite where the factor
    is 0, and meaningless where it does not apply. `factor`, by which the error is multiplied in a step, with its sign;
    `flow_rate`, that of the flow.

    **Raises:** as `tied_descent_step`.

    **Notes:** for `eta < 1/(4 |sigma|)` descent is asymptotically the faster of the two, and tends to the flow as eta -> 0.
    The start is not an argument: from x > sigma + 1/eta every step overshoots further than the one before.

    **Source:** T21 section 5.

    Example:

        >>> found = ld.theory.tied_descent_rate(1.0, 0.1)
        >>> float(found.rate), float(found.flow_rate), float(found.factor)
        (5.108, 4.0, 0.6)
    """
    sigma, eta = jnp.broadcast_arrays(*as_floats(sigma=sigma, eta=eta))
    positive = sigma > 0
    size = jnp.abs(sigma)
    factor = jnp.where(positive, 1 - 4 * eta * size, (1 - 2 * eta * size) ** 2)
    stable = jnp.where(positive, 2 * eta * size < 1, eta * size < 1)
    moves = 2 * jnp.where(positive, 2 * eta * size, eta * size)
    log_factor = jnp.where(positive, 1, 2) * _log_distance(moves)
    applies = stable & (eta > 0) & (sigma != 0)
    return Statement(_per_time(log_factor, eta), applies, name="rate", factor=factor, flow_rate=4 * size)


@public
@elementwise
def linear_descent_step_rate(curvature: Real[ArrayLike, "..."], eta: Real[ArrayLike, "..."]) -> Statement:
    """Rate of descent on one scalar layer, beside the flow's `curvature`: the error is multiplied by `1 - eta curvature`.

    Hypotheses: curvature > 0 and `0 < eta < 2/curvature`.

    **Args:** `curvature`, `q c^2 X^T X`, which is 1 for T21's factorization; `eta`, step size.

    **Returns:** a `Statement`, as that of `tied_descent_rate`.

    **Raises:** as `tied_descent_step`.

    **Source:** T21 section 5.

    Example:

        >>> found = ld.theory.linear_descent_step_rate(1.0, 0.1)
        >>> float(found.rate), float(found.flow_rate), float(found.factor)
        (1.054, 1.0, 0.9)
    """
    curvature, eta = jnp.broadcast_arrays(*as_floats(curvature=curvature, eta=eta))
    moves = eta * curvature
    applies = (eta > 0) & (moves > 0) & (moves < 2)
    rate = _per_time(_log_distance(moves), eta)
    return Statement(rate, applies, name="rate", factor=1 - moves, flow_rate=curvature)


@public
@elementwise
def descent_component_step(
    w: Real[ArrayLike, "..."], sigma: Real[ArrayLike, "..."], lam: Real[ArrayLike, "..."], eta: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    """One step of descent on an aligned component of two layers: `w+ = w (1 + eta (sigma - lambda w))^2`.

    **Args:** `w`, the component, at least 0; `sigma`, `lam`, `eta`, as for `descent_bounds`; shapes that broadcast together.

    **Returns:** w+.

    **Raises:** `ValueError` for negative `w` or `lam`, and infinite or NaN arguments, where they are known.

    **Notes:** exact for layers that start aligned, `u = v`. The largest step that does not pass the limit from below has
    `eta sigma < 1/2`, under which `descent_bounds` holds.

    **Source:** G19 (22).

    Example:

        >>> ld.theory.descent_component_step(np.array([0.25, 0.5]), 1.0, 2.0, 0.1).tolist()
        [0.2756, 0.5]
    """
    w, sigma, lam, eta = as_floats(w=w, sigma=sigma, lam=lam, eta=eta)
    check_not_negative(w=w, lam=lam)
    return w * (1 + eta * (sigma - lam * w)) ** 2


@public
@elementwise
def descent_component_rate(sigma: Real[ArrayLike, "..."], eta: Real[ArrayLike, "..."]) -> Statement:
    """Asymptotic rate a step of an aligned component: `-log|1 - 2 eta sigma|`, whose flow has `2 eta sigma`.

    Hypotheses: sigma > 0 and `0 < eta sigma < 1`.

    **Args:** `sigma`, `eta`, as for `descent_bounds`.

    **Returns:** a `Statement`, its unit of time one step.

    **Raises:** as `descent_bounds`.

    **Source:** the map of G19 (22), linearised at its end.

    Example:

        >>> float(ld.theory.descent_component_rate(1.0, 0.1).value), 2 * 0.1 * 1.0  # descent, flow
        (0.2231, 0.2)
    """
    x = jnp.multiply(*as_floats(sigma=sigma, eta=eta))
    return Statement(-_log_distance(2 * x), (x > 0) & (x < 1))


def _log_distance(d: Array) -> Array:
    """`log|1 - d|`, to full accuracy for small d; minus infinity at d = 1."""
    solved = d == 1
    offset = jnp.where(d > 1, d - 2, -d)
    return jnp.where(solved, -math.inf, jnp.log1p(jnp.where(solved, 0, offset)))


def _per_time(log_factor: Array, eta: Array) -> Array:
    """`-log|factor|/eta`; zero where no step is made."""
    moves = jnp.abs(eta) > least_divisor(eta.dtype)
    # A step that lands on the target has an infinite rate, with derivative zero.
    lands = jnp.isneginf(log_factor)
    rate = -jnp.where(lands, 0, log_factor) / jnp.where(moves, eta, 1)
    return jnp.where(moves, jnp.where(lands, math.inf, rate), 0)
