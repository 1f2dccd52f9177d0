r"""Bounds on an aligned component after any number of steps of descent (G19 Theorem 3, corrected and completed)."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Real

from .._finite import elementwise
from .._public import public
from .._statement import Statement
from ..exact._common import as_floats, check_not_negative, least_divisor, ratio


@public
@elementwise
def descent_bounds(
    sigma: Real[ArrayLike, "..."],
    lam: Real[ArrayLike, "..."],
    w0: Real[ArrayLike, "..."],
    eta: Real[ArrayLike, "..."],
    steps: Real[ArrayLike, "..."],
) -> Statement:
    r"""Bounds on an aligned component after any number of steps of descent.

    With `x = eta sigma` and `b(Q) = sigma w0/((sigma - lambda w0) Q + lambda w0)`:
    `b((1 + x)^{-2t}) <= w_t <= min(b((1 - 2x)^t), w0 (1 + x)^{2t}, sigma/lambda)`.
    Hypotheses: `0 < eta sigma < 1/2`, lambda > 0 and `0 < w0 <= sigma/lambda`.

    **Args:** shapes that broadcast together.

    - `sigma`, `lam`: singular value of Sigma_xy and eigenvalue of Sigma_x, as for `exact.aligned`.
    - `w0`: the component at the start.
    - `eta`: step size.
    - `steps`: number of steps t, at least 0.

    **Returns:** a `Statement` on the bound `upper`, and `lower`; zeros where the hypotheses fail.

    **Raises:** `ValueError` for negative `lam`, `w0` or `steps`, and infinite or NaN arguments, where they are known.

    **Notes:** the printed upper bound is below the truth, at sigma = lambda = 1, w0 = .9, eta = .4 after one step already.

    **Source:** G19 Theorem 3, (23), corrected.

    Example:

        >>> bounds = ld.theory.descent_bounds(1.0, 1.0, 0.9, 0.4, 1)
        >>> w = ld.theory.descent_component_step(0.9, 1.0, 1.0, 0.4)
        >>> float(bounds.lower), float(w), float(bounds.upper)
        (0.9464, 0.9734, 0.9783)
    """
    sigma, lam, w0, eta, steps = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam, w0=w0, eta=eta, steps=steps))
    check_not_negative(lam=lam, w0=w0, steps=steps)
    x = eta * sigma
    started = lam * w0 >= jnp.finfo(x.dtype).tiny
    applies = (x > 0) & (x < 0.5) & (lam > least_divisor(lam.dtype)) & started & (lam * w0 <= sigma)
    x, sigma, lam, w0 = (jnp.where(applies, a, b) for a, b in ((x, 0.25), (sigma, 1), (lam, 1), (w0, 1)))
    growth, decay = 2 * steps * jnp.log1p(x), steps * jnp.log1p(-2 * x)

    # From tiny starts by logarithms: derivatives of the quotient would pass through the square of lambda w0.
    faint = lam * w0 < least_divisor(lam.dtype) ** 0.5 * sigma
    usual_w0, faint_w0 = jnp.where(faint, sigma / lam, w0), jnp.where(faint, w0, sigma / lam / 2)
    log_odds = jnp.log(sigma - lam * faint_w0) - jnp.log(lam) - jnp.log(faint_w0)

    def bound(log_Q):
        usual = ratio(sigma * usual_w0, (sigma - lam * usual_w0) * jnp.exp(log_Q) + lam * usual_w0)
        return jnp.where(faint, sigma / lam * jax.nn.sigmoid(-log_odds - log_Q), usual)

    # As a logarithm: the growth alone would overflow.
    grown = jnp.exp(jnp.minimum(jnp.log(w0) + growth, jnp.log(sigma / lam)))
    lower, upper = bound(-growth), jnp.minimum(bound(decay), grown)
    return _between(lower, upper, applies)


@public
@elementwise
def g19_theorem3(
    sigma: Real[ArrayLike, "..."],
    lam: Real[ArrayLike, "..."],
    w0: Real[ArrayLike, "..."],
    eta: Real[ArrayLike, "..."],
    steps: Real[ArrayLike, "..."],
) -> Statement:
    r"""Bounds on an aligned component after any number of steps of descent, for every sigma and every start.

    With `x = eta sigma`, `b(Q) = sigma w0/((sigma - lambda w0) Q + lambda w0)`, `y = eta (lambda w0 - sigma)` and
    `c = (2 - y)/(1 - y)^2`:

    - below its limit, `lambda w0 <= sigma` and `0 < x < 1/2`: as `descent_bounds`; for lambda = 0 it is `w0 (1 + x)^{2t}`;
    - above it, `lambda w0 > sigma > 0` and `x <= 1/(a + sqrt(a))` with `a = lambda w0/sigma`, so that no step passes the
        limit: `b([1 - c x]_+^t) <= w_t <= b((1 - 2x)^t)`;
    - without a target, sigma = 0: as `zero_mode_bounds`;
    - away from it, sigma < 0 and `y < 1`: `w0 (1 - y)^{2t} <= w_t <= w0 (1 + x)^{2t}`.

    **Args:** as for `descent_bounds`.

    **Returns:** a `Statement` on the bound `upper`, and `lower`; zeros where the hypotheses fail.

    **Raises:** as `descent_bounds`.

    **Notes:** the second and the fourth case are not in G19, whose starts vanish and whose sigma are singular values; they
    follow from `1/w+ = (1/w) (1 - eta (lambda w - sigma))^{-2}` in the same way.

    **Source:** G19 Theorem 3, (23), corrected.

    Example:

        >>> bounds = ld.theory.g19_theorem3(np.array([1.0, 0.0, -1.0]), 1.0, 0.5, 0.1, 1)
        >>> w = ld.theory.descent_component_step(0.5, np.array([1.0, 0.0, -1.0]), 1.0, 0.1)
        >>> bounds.lower.tolist(), w.tolist(), bounds.upper.tolist()
        ([0.5475, 0.4512, 0.3612], [0.5513, 0.4512, 0.3612], [0.5556, 0.4545, 0.405])
    """
    sigma, lam, w0, eta, steps = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam, w0=w0, eta=eta, steps=steps))
    check_not_negative(lam=lam, w0=w0, steps=steps)
    below = _bounds_below(sigma, lam, w0, eta, steps)
    above = _bounds_above(sigma, lam, w0, eta, steps)
    zero = zero_mode_bounds(lam, w0, jnp.maximum(eta, 0), steps)
    away = _bounds_away(sigma, lam, w0, eta, steps)
    chosen = jax.tree.map(partial(jnp.where, lam * w0 > sigma), above, below)
    chosen = jax.tree.map(partial(jnp.where, sigma < 0), away, chosen)
    chosen = jax.tree.map(
        partial(jnp.where, sigma == 0), _between(zero.lower, zero.upper, zero.applies & (eta >= 0)), chosen
    )
    return _between(chosen.lower, chosen.upper, chosen.applies)


@public
@elementwise
def zero_mode_bounds(
    lam: Real[ArrayLike, "..."], w0: Real[ArrayLike, "..."], eta: Real[ArrayLike, "..."], steps: Real[ArrayLike, "..."]
) -> Statement:
    r"""Bounds on a component with sigma = 0, which falls like 1/t.

    With `a = eta lambda w0`: `w0/(1 + ((1 - a)^{-2} - 1) t) <= w_t <= w0/(1 + 2 a t)`. Hypothesis: `0 <= a <= 3/2`. For a >= 1
    the lower bound is 0.

    **Args:** as for `descent_bounds`; `lam`, `w0`, `eta` and `steps` at least 0.

    **Returns:** as `descent_bounds`.

    **Raises:** as `descent_bounds`.

    **Source:** G19 Theorem 3 for sigma = 0, with the factor 2 that the printed upper bound lacks.

    Example:

        >>> bounds = ld.theory.zero_mode_bounds(1.0, 0.5, 0.1, np.array([10, 1000]))
        >>> bounds.lower.tolist(), bounds.upper.tolist()
        ([0.2403, 0.004586], [0.25, 0.00495])
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
    return _between(lower, upper, applies)


def _bounds_below(sigma: Array, lam: Array, w0: Array, eta: Array, steps: Array) -> Statement:
    bounds = descent_bounds(sigma, lam, w0, eta, steps)
    x = eta * sigma
    growth = 2 * steps * jnp.log1p(jnp.where((x > 0) & (x < 0.5), x, 0))
    # Nothing is said where the component itself comes close to overflow.
    free = (lam == 0) & (x > 0) & (x < 0.5) & (growth < 0.9 * math.log(float(jnp.finfo(x.dtype).max)))
    grown = w0 * jnp.exp(jnp.where(free, growth, 0))
    lower: Array = bounds.lower
    upper: Array = bounds.upper
    return _between(jnp.where(free, grown, lower), jnp.where(free, grown, upper), bounds.applies | free)


def _bounds_above(sigma: Array, lam: Array, w0: Array, eta: Array, steps: Array) -> Statement:
    x = eta * sigma
    proper = (x > 0) & (sigma > least_divisor(sigma.dtype)) & (lam * w0 > sigma)
    share = jnp.where(proper, lam * w0 / jnp.where(proper, sigma, 1), 2.0)
    applies = proper & (x * (share + jnp.sqrt(share)) <= 1)
    x, share, w0 = jnp.where(applies, x, 0.125), jnp.where(applies, share, 2.0), jnp.where(applies, w0, 2)
    y = x * (share - 1)

    def bound(loss: Array) -> Array:
        # Q = (1 - loss)^steps; 0^0 = 1 at the start, and no derivative of log at 0.
        positive = loss < 1
        log_Q = steps * jnp.log1p(-jnp.where(positive, loss, 0))
        ended = ~positive & (steps > 0)
        Q, gap = jnp.where(ended, 0, jnp.exp(log_Q)), jnp.where(ended, 1, -jnp.expm1(log_Q))
        # b(Q) with both terms positive: (sigma - lambda w0) Q + lambda w0 would cancel far above the limit.
        return ratio(w0, Q + share * gap)

    return _between(bound(x * (2 - y) / (1 - y) ** 2), bound(2 * x), applies)


def _bounds_away(sigma: Array, lam: Array, w0: Array, eta: Array, steps: Array) -> Statement:
    y = eta * (lam * w0 - sigma)
    applies = (sigma < 0) & (eta >= 0) & (y < 1)
    least, most = (jnp.where(applies, value, 0) for value in (y, -eta * sigma))
    lower, upper = (w0 * jnp.exp(2 * steps * jnp.log1p(-share)) for share in (least, most))
    return _between(lower, upper, applies)


def _between(lower: Array, upper: Array, applies: Array) -> Statement:
    """Two bounds, zero where their hypotheses fail."""
    return Statement(jnp.where(applies, upper, 0), applies, name="upper", lower=jnp.where(applies, lower, 0))
