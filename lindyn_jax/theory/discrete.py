r"""Descent of one component, against the flow that it discretises: rates, stability, bounds at every step, and jumps.

Tied layers (T21 section 5), `x = u^2` with the target sigma: `u+ = u + 2 eta (sigma - u^2) u`, that is
`x+ = x (1 + 2 eta (sigma - x))^2`.

Two aligned layers (G19), `w = u^2`: `u+ = u + eta u (sigma - lambda u^2)`, that is `w+ = w (1 + eta (sigma - lambda w))^2`, with
q = 1/N; see `exact.aligned` for the flow and for other scales.

Two layers in general: what a step does to imbalance and loss, exactly. The loss along the gradient is a polynomial of degree
four in the step.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._finite import elementwise, of_finite_numbers, of_finite_state
from .._linalg import signature_spectrum
from .._public import public
from ..exact._common import Limit, Rate, Time, as_floats, check_not_negative, check_vector, least_divisor, ratio
from ..models import ReducedTwoLayer, TwoLayer
from ..problem import LeastSquares
from ._numerics import norm
from .imbalance import moving_layers, require_plain_flow

Model = TwoLayer | ReducedTwoLayer


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


class StepSizes(NamedTuple):
    """Largest step sizes under which something holds.

    **Fields:** `exact`, where it stops being true; `sufficient`, a simpler number that is never larger; `applies`.
    """

    exact: Float[Array, "..."]
    sufficient: Float[Array, "..."]
    applies: Bool[Array, "..."]


class Drift(NamedTuple):
    """What one step of descent does to the imbalance.

    **Fields:** `spectrum`, the eigenvalues of `D+ - D` that can differ from zero, descending; `norm`, `||D+ - D||_F`.
    """

    spectrum: Float[Array, " k"]
    norm: Float[Array, ""]


class LineSearch(NamedTuple):
    """The best step along the gradient.

    **Fields:** `step`, the step size of least loss; `excess_loss`, L - L* behind it; `coefficients`, shape (5,), of L - L* as a
    polynomial in the step, ascending; `applies`, whether there is a gradient to follow; step 0 where there is none.
    """

    step: Float[Array, ""]
    excess_loss: Float[Array, ""]
    coefficients: Float[Array, "5"]
    applies: Bool[Array, ""]


class StepInequality(NamedTuple):
    """One step of descent against its bound, `L+ - L* <= (1 - 2 mu eta + mu K eta^2) (L - L*)`.

    **Fields:** `mu`, the constant of Polyak and Lojasiewicz at this point, `||grad L||^2/(2 (L - L*))`; `smoothness`, K, the
    largest curvature of the loss along this step; `factor`, the bound; `measured`, `(L+ - L*)/(L - L*)`; `applies`, whether
    there is an error to reduce and the factor is below 1.
    """

    mu: Float[Array, ""]
    smoothness: Float[Array, ""]
    factor: Float[Array, ""]
    measured: Float[Array, ""]
    applies: Bool[Array, ""]


# -- tied layers: T21 section 5 --------------------------------------------------------------------------------------


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
    """
    x, sigma, eta = as_floats(x=x, sigma=sigma, eta=eta)
    check_not_negative(x=x)
    return x * (1 + 2 * eta * (sigma - x)) ** 2


@public
@elementwise
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


@public
@elementwise
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


@public
@elementwise
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
    return DescentBounds(jnp.where(applies, lower, 0), jnp.where(applies, upper, 0), applies)


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
    """
    w, sigma, lam, eta = as_floats(w=w, sigma=sigma, lam=lam, eta=eta)
    check_not_negative(w=w, lam=lam)
    return w * (1 + eta * (sigma - lam * w)) ** 2


@public
@elementwise
def theorem3(
    sigma: Real[ArrayLike, "..."],
    lam: Real[ArrayLike, "..."],
    w0: Real[ArrayLike, "..."],
    eta: Real[ArrayLike, "..."],
    steps: Real[ArrayLike, "..."],
) -> DescentBounds:
    r"""Bounds on an aligned component after any number of steps of descent, for every sigma and every start.

    With `x = eta sigma`, `b(Q) = sigma w0/((sigma - lambda w0) Q + lambda w0)`, `y = eta (lambda w0 - sigma)` and
    `c = (2 - y)/(1 - y)^2`:

    - below its limit, `lambda w0 <= sigma` and `0 < x < 1/2`: as `descent_bounds`; for lambda = 0 it is `w0 (1 + x)^{2t}`;
    - above it, `lambda w0 > sigma > 0` and `x <= 1/(a + sqrt(a))` with `a = lambda w0/sigma`, so that no step passes the
        limit: `b([1 - c x]_+^t) <= w_t <= b((1 - 2x)^t)`;
    - without a target, sigma = 0: as `zero_mode_bounds`;
    - away from it, sigma < 0 and `y < 1`: `w0 (1 - y)^{2t} <= w_t <= w0 (1 + x)^{2t}`.

    **Args:** as for `descent_bounds`.

    **Returns:** a `DescentBounds`; zeros where the hypotheses fail.

    **Raises:** as `descent_bounds`.

    **Notes:** the second and the fourth case are not in G19, whose starts vanish and whose sigma are singular values; they
    follow from `1/w+ = (1/w) (1 - eta (lambda w - sigma))^{-2}` in the same way.

    **Source:** G19 Theorem 3, (23), corrected.
    """
    sigma, lam, w0, eta, steps = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam, w0=w0, eta=eta, steps=steps))
    check_not_negative(lam=lam, w0=w0, steps=steps)
    below = _bounds_below(sigma, lam, w0, eta, steps)
    above = _bounds_above(sigma, lam, w0, eta, steps)
    zero = zero_mode_bounds(lam, w0, jnp.maximum(eta, 0), steps)
    away = _bounds_away(sigma, lam, w0, eta, steps)
    cases = (
        (sigma == 0, zero._replace(applies=zero.applies & (eta >= 0))),
        (sigma < 0, away),
        (lam * w0 > sigma, above),
    )
    chosen = below
    for condition, bounds in reversed(cases):
        chosen = DescentBounds(
            *(jnp.where(condition, ours, theirs) for ours, theirs in zip(bounds, chosen, strict=True))
        )
    return DescentBounds(
        jnp.where(chosen.applies, chosen.lower, 0), jnp.where(chosen.applies, chosen.upper, 0), chosen.applies
    )


def _bounds_below(sigma, lam, w0, eta, steps) -> DescentBounds:
    bounds = descent_bounds(sigma, lam, w0, eta, steps)
    x = eta * sigma
    growth = 2 * steps * jnp.log1p(jnp.where((x > 0) & (x < 0.5), x, 0))
    # Nothing is said where the component itself comes close to overflow.
    free = (lam == 0) & (x > 0) & (x < 0.5) & (growth < 0.9 * math.log(float(jnp.finfo(x.dtype).max)))
    grown = w0 * jnp.exp(jnp.where(free, growth, 0))
    return DescentBounds(
        jnp.where(free, grown, bounds.lower), jnp.where(free, grown, bounds.upper), bounds.applies | free
    )


def _bounds_above(sigma, lam, w0, eta, steps) -> DescentBounds:
    x = eta * sigma
    proper = (x > 0) & (sigma > least_divisor(sigma.dtype)) & (lam * w0 > sigma)
    share = jnp.where(proper, lam * w0 / jnp.where(proper, sigma, 1), 2.0)
    applies = proper & (x * (share + jnp.sqrt(share)) <= 1)
    x, sigma, lam, w0, share = (
        jnp.where(applies, value, safe) for value, safe in ((x, 0.125), (sigma, 1), (lam, 1), (w0, 2), (share, 2.0))
    )
    y = x * (share - 1)

    def bound(loss):
        # Q = (1 - loss)^steps; 0^0 = 1 at the start, and no derivative of log at 0.
        positive = loss < 1
        log_Q = steps * jnp.log1p(-jnp.where(positive, loss, 0))
        ended = ~positive & (steps > 0)
        Q, gap = jnp.where(ended, 0, jnp.exp(log_Q)), jnp.where(ended, 1, -jnp.expm1(log_Q))
        # b(Q) with both terms positive: (sigma - lambda w0) Q + lambda w0 would cancel far above the limit.
        return ratio(w0, Q + share * gap)

    return DescentBounds(bound(x * (2 - y) / (1 - y) ** 2), bound(2 * x), applies)


def _bounds_away(sigma, lam, w0, eta, steps) -> DescentBounds:
    y = eta * (lam * w0 - sigma)
    applies = (sigma < 0) & (eta >= 0) & (y < 1)
    least, most = (jnp.where(applies, value, 0) for value in (y, -eta * sigma))
    return DescentBounds(
        w0 * jnp.exp(2 * steps * jnp.log1p(-least)), w0 * jnp.exp(2 * steps * jnp.log1p(-most)), applies
    )


@public
@elementwise
def descent_step_limit(
    sigma: Real[ArrayLike, "..."],
    lam: Real[ArrayLike, "..."],
    eta: Real[ArrayLike, "..."],
    t: Real[ArrayLike, "..."],
) -> Limit:
    r"""The limit of a component after `d t` steps of descent as the start e^{-2d} vanishes: a jump at `1/log(1 + eta sigma)`.

    0 before that T and `sigma/lambda` behind it. Hypotheses: sigma > 0, lambda > 0, `0 < eta sigma < 1/2`, and t != T;
    components with sigma = 0 stay at 0.

    **Args:** shapes that broadcast together; `t`, steps in units of d.

    **Returns:** a `Limit` (of d, at fixed t).

    **Raises:** as `descent_bounds`.

    **Notes:** at T itself the rounding of `d T` to a step decides, and there is no limit.

    **Source:** G19 Corollary 3, with times that need no condition on gaps.
    """
    sigma, lam, eta, t = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam, eta=eta, t=t))
    check_not_negative(lam=lam, t=t)
    x = eta * sigma
    moves = (x > 0) & (x < 0.5) & (lam > least_divisor(lam.dtype))
    phase = t * jnp.log1p(jnp.where(moves, x, 0)) - 1
    at = jnp.abs(phase) <= 4 * jnp.finfo(x.dtype).eps
    height = jnp.where(moves, sigma, 0) / jnp.where(moves, lam, 1)
    return Limit(jnp.where(phase > 0, height, 0), (moves & ~at) | (sigma == 0))


@public
@of_finite_numbers
def separation_steps(sigma: Real[ArrayLike, " p"]) -> StepSizes:
    r"""Largest step sizes for which descent learns the components at `1/(eta sigma_i)`, G19's times, one after another.

    Component i has jumped, at `1/log(1 + eta sigma_i)`, before `1/(eta sigma_{i+1})` as long as
    `log(1 + eta sigma_i) > eta sigma_{i+1}`. `exact` is the root of that; `sufficient` is
    `2 (sigma_i - sigma_{i+1})/sigma_i^2`, from `log(1 + x) > x - x^2/2`.

    **Args:** `sigma`, positive and descending, shape (p,).

    **Returns:** a `StepSizes` of shape (p - 1,); 0 where two are equal. `applies` where sigma_{i+1} > 0; without a next
    component, or with one 1e77 times smaller (1e9 in float32), the exact one is infinite.

    **Raises:** `ValueError` for a sigma that is not a vector, and infinite or NaN arguments, where they are known.

    **Notes:** `jump_steps` needs no such condition; `eta < 1/(2 sigma_1)` is asked for besides.

    **Source:** G19 Corollary 3 and its condition on gaps.
    """
    (sigma,) = as_floats(sigma=sigma)
    check_vector(sigma, "sigma", "p")
    first, second = sigma[:-1], sigma[1:]
    applies = (second > 0) & (first >= second)
    rho = jnp.where(applies, second / jnp.where(applies, first, 1), 0.5)
    equal, apart = rho >= 1, rho <= least_divisor(rho.dtype) ** 0.5
    rho = jnp.where(equal | apart, 0.5, rho)
    # log(1 + z) = rho z, from above: concave, so Newton's method descends to the root. Its last step carries the derivative.
    z = 2 * (1 - rho) / rho**2

    def newton(z, _):
        return z - (jnp.log1p(z) - rho * z) / (1 / (1 + z) - rho), None

    z, _ = jax.lax.scan(newton, jax.lax.stop_gradient(z), length=40)
    z = jax.lax.stop_gradient(z)
    z, _ = newton(z, None)
    safe = jnp.where(first > 0, first, 1)
    exact = jnp.where(applies & ~apart, jnp.where(equal, 0, z / safe), jnp.where(first > 0, jnp.inf, 0))
    sufficient = jnp.where(first > 0, 2 * jnp.maximum(first - second, 0) / safe**2, 0)
    return StepSizes(exact, sufficient, applies)


@public
@elementwise
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


@public
@elementwise
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
    return Time(value, moving & (2 * eta * jnp.max(sigma, initial=0) < 1))


@public
@of_finite_numbers
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


@public
@elementwise
def descent_component_rate(sigma: Real[ArrayLike, "..."], eta: Real[ArrayLike, "..."]) -> Rate:
    """Asymptotic rate a step of an aligned component: `-log|1 - 2 eta sigma|`, whose flow has `2 eta sigma`.

    Hypotheses: sigma > 0 and `0 < eta sigma < 1`.

    **Args:** `sigma`, `eta`, as for `descent_bounds`.

    **Returns:** a `Rate`, whose time is the number of steps.

    **Raises:** as `descent_bounds`.

    **Source:** the map of G19 (22), linearised at its end.
    """
    x = jnp.multiply(*as_floats(sigma=sigma, eta=eta))
    return Rate(-_log_distance(2 * x), (x > 0) & (x < 1))


# -- two layers in general -------------------------------------------------------------------------------------------------


@public
@of_finite_state
def drift_spectrum(model: Model, problem: LeastSquares, eta: Real[ArrayLike, ""]) -> Drift:
    r"""What one step of descent does to the imbalance, `D+ - D = eta^2 (G_U1^T G_U1 - G_V^T G_V)`, by its spectrum.

    G_U1 and G_V are the gradients of the loss. `descent_drift` has the matrices themselves, for any depth; here the width does
    not matter.

    **Args:** `model`; `problem`, with or without a link; `eta`, step size.

    **Returns:** a `Drift`. k = min(h, r + m) eigenvalues: the others are zero.

    **Raises:** `ValueError` if the model's shapes do not fit the problem, or for a problem with a penalty on the imbalance.

    **Notes:** from the rows of the gradients, never at size h x h.

    **Source:** one step of G19 (5).
    """
    require_plain_flow(problem)
    (eta,) = as_floats(eta=eta)
    U1, V = moving_layers(model, problem)
    G = problem.reduced_loss_gradient(U1 @ V.T)
    rows = eta.astype(U1.dtype) * jnp.concatenate([G @ V, G.T @ U1])
    signs = jnp.concatenate([jnp.ones(U1.shape[0], U1.dtype), -jnp.ones(V.shape[0], V.dtype)])
    spectrum = signature_spectrum(rows, signs)
    return Drift(spectrum, norm(spectrum))


@public
@of_finite_state
def stability_limit(model: Model, problem: LeastSquares) -> StepSizes:
    r"""Largest step sizes at which descent stays at a solution, `2/sharpness`.

    At a solution with E = 0 the largest curvature of the loss is `q lambda_max(T)`, with the operator T of `rate_operator`, and
    descent leaves it for larger steps than `exact = 2/(q lambda_max(T))`. `sufficient = 2/(q lambda_1 (sigma_max(U1)^2 +
    sigma_max(V)^2))` is the same for Sigma_x a multiple of the identity.

    **Args:** `model`, at or near a solution; `problem`.

    **Returns:** a `StepSizes`; `applies` where the error has vanished to round-off, `||E|| <= 1e3 eps ||Ytil||`. Elsewhere the
    curvature has a second part, of the size of the error.

    **Raises:** `ValueError` if the model's shapes do not fit the problem, or for a problem with a link or a penalty.

    **Notes:** in closed form, for two layers; `largest_stable_step` has it for any depth, by iteration, and `stable_step`
    bounds it from the start, before the solution is known.

    **Source:** the Hessian at E = 0; M22 section 5.2 leaves the step open.
    """
    require_plain_flow(problem)
    U1, V = moving_layers(model, problem)
    s, E = problem.singular_values, problem.error(U1 @ V.T)
    # Of the m blocks of T the one with the largest mu holds the largest eigenvalue.
    top = jnp.linalg.norm(V, ord=2)
    rows = s[:, None] * jnp.concatenate([U1, top * jnp.eye(U1.shape[0], dtype=U1.dtype)], axis=1)
    largest = jnp.linalg.norm(rows, ord=2) ** 2
    bound = s[0] ** 2 * (jnp.linalg.norm(U1, ord=2) ** 2 + top**2)
    solved = norm(E) <= 1e3 * jnp.finfo(E.dtype).eps * norm(problem.Ytil)
    still = largest == 0
    exact, sufficient = (
        jnp.where(still, jnp.inf, 2 / (problem.scale * jnp.where(still, 1, value))) for value in (largest, bound)
    )
    return StepSizes(exact, sufficient, solved)


@public
@of_finite_state
def step_polynomial(model: Model, problem: LeastSquares) -> Float[Array, "5"]:
    r"""L - L* behind one step of descent, as a polynomial in its step size: five coefficients, ascending.

    With the velocities A = U1', B = V' the error is `E - eta S (A V^T + U1 B^T) - eta^2 S A B^T`, and its square a quartic.

    **Args:** `model`, `problem`.

    **Returns:** shape (5,).

    **Raises:** `ValueError` if the model's shapes do not fit the problem, or for a problem with a link or a penalty.

    **Source:** G19 (5) inserted into the loss.
    """
    polynomial, unit, size = _polynomial(model, problem)
    coefficients = problem.scale / 2 * size**2 * polynomial / unit ** jnp.arange(5)
    U1, V = moving_layers(model, problem)
    return coefficients.at[0].set(problem.excess_loss(U1 @ V.T))


@public
@of_finite_state
def line_search(model: Model, problem: LeastSquares) -> LineSearch:
    r"""Exact line search: the step size of least loss along the gradient, in closed form.

    The loss behind the step is a quartic in eta (`step_polynomial`), whose derivative has one or three positive roots; the one
    of least loss is taken.

    **Args:** `model`, `problem`.

    **Returns:** a `LineSearch`.

    **Raises:** as `step_polynomial`.

    **Notes:** the derivative with respect to weights and data is that of the root; where two minima are equally deep it is
    that of the one that is taken.

    **Source:** G19 (5); the cubic by Viete's and Cardano's formulas, with Newton's method behind them.
    """
    c, length, _ = _polynomial(model, problem)
    slope = -c[1]
    applies = slope > 0
    # In units of slope and value the roots are of order 1: y = unit/eta solves y^3 - a y^2 - b y - d = 0.
    unit = jnp.where(applies, 1 / jnp.where(applies, slope, 1), 1)
    c2, c3, c4 = (jnp.where(applies, c[i] * unit**i, safe) for i, safe in ((2, 1.0), (3, 0.0), (4, 0.0)))
    roots = jax.lax.stop_gradient(_cubic_roots(-2 * c2, -3 * c3, -4 * c4))
    positive = roots > 0
    etas = jnp.where(positive, 1 / jnp.where(positive, roots, 1), 0)

    def derivative(z):
        return -1 + z * (2 * c2 + z * (3 * c3 + z * 4 * c4))

    def curvature(z):
        return 2 * c2 + z * (6 * c3 + z * 12 * c4)

    def newton(z):
        bend = jax.lax.stop_gradient(curvature(z))
        curved = jnp.abs(bend) > jnp.finfo(z.dtype).eps
        return z - jnp.where(curved, derivative(z) / jnp.where(curved, bend, 1), 0)

    for _ in range(3):
        etas = jax.lax.stop_gradient(newton(etas))
    values = -etas + etas**2 * (c2 + etas * (c3 + etas * c4))
    best = jax.lax.stop_gradient(etas[jnp.argmin(jnp.where(positive & (etas > 0), values, jnp.inf))])
    z = newton(best)
    step = jnp.where(applies, z * unit * length, 0)
    # From the errors and not from the polynomial, which cancels where the step solves the problem.
    U1, V = moving_layers(model, problem)
    G = problem.scale * problem.singular_values[:, None] * problem.error(U1 @ V.T)
    after = problem.excess_loss((U1 + step * (G @ V)) @ (V + step * (G.T @ U1)).T)
    return LineSearch(step, after, step_polynomial(model, problem), applies)


@public
@of_finite_state
def step_inequality(model: Model, problem: LeastSquares, eta: Real[ArrayLike, ""]) -> StepInequality:
    r"""X23's inequality for one step of descent, with the constants measured on this very step.

    `L+ - L* <= (1 - 2 mu eta + mu K eta^2) (L - L*)`, where `||grad L||^2 = 2 mu (L - L*)` here and K is the largest second
    derivative of the loss along the step, divided by `||grad L||^2`. With these two it is the second-order bound on a segment,
    and always holds. The second derivative of a quartic that opens upwards is largest at one of the ends.

    **Args:** `model`, `problem`; `eta` > 0, step size.

    **Returns:** a `StepInequality`.

    **Raises:** as `step_polynomial`.

    **Notes:** X23's own constants, which hold along the whole path and are known from the start, are not those, and are not
    implemented. By `lemma7`, `mu >= q lambda_r (lambda_r(U1 U1^T) + lambda_m(V V^T))`.

    **Source:** X23; the constants are this package's.
    """
    (eta,) = as_floats(eta=eta)
    c, unit, size = _polynomial(model, problem)
    z = eta.astype(c.dtype) / unit
    applies = (size > 0) & (c[1] < 0)
    square = jnp.where(applies, -c[1], 1)
    bend = jnp.maximum(2 * c[2], 2 * c[2] + z * (6 * c[3] + z * 12 * c[4]))
    factor = 1 - square * z + bend / 2 * z**2
    measured = 1 + z * (c[1] + z * (c[2] + z * (c[3] + z * c[4])))
    return StepInequality(square / (2 * unit), bend / square / unit, factor, measured, applies & (factor < 1) & (z > 0))


def _polynomial(model: Model, problem: LeastSquares) -> tuple[Float[Array, "5"], Array, Array]:
    """`(p, unit, ||E||)`: behind a step eta the excess loss is `(q/2) ||E||^2 p(eta/unit)`, with coefficients of order 1."""
    require_plain_flow(problem)
    U1, V = moving_layers(model, problem)
    s, E = problem.singular_values, problem.error(U1 @ V.T)
    size, weight, top = norm(E), norm(U1, V), s[0]
    # Of the two parts that a step changes the error by, linear and quadratic in it, the larger sets the unit.
    e, w = (jnp.where(x > 0, x, 1) for x in (size, weight))
    kappa = e / top / w / w
    long = jnp.maximum(1, jnp.sqrt(e / top) / w)
    unit = 1 / (top * w) / (top * w) / problem.scale / long
    first, second = 1 / long, jnp.minimum(kappa, 1)
    E, U1, V, s = E / e, U1 / w, V / w, (s / top)[:, None]
    A, B = (s * E) @ V, (s * E).T @ U1
    E1, E2 = first * s * (A @ V.T + U1 @ B.T), second * s * (A @ B.T)
    inner = lambda P, Q: jnp.sum(P * Q)  # noqa: E731
    # <E, E1> = ||A||^2 + ||B||^2, which is never negative.
    p = (
        inner(E, E),
        -2 * first * (inner(A, A) + inner(B, B)),
        inner(E1, E1) - 2 * inner(E, E2),
        2 * inner(E1, E2),
        inner(E2, E2),
    )
    return jnp.stack(p), unit, size


def _cubic_roots(a: Array, b: Array, d: Array) -> Float[Array, "3"]:
    """Real roots of `y^3 + a y^2 + b y + d`, NaN-free; those that are not there repeat the one that is."""
    shift = a / 3
    p, q = b - a * shift, d - shift * b + 2 * shift**3
    # y = x - shift, x^3 + p x + q = 0.
    discriminant = (q / 2) ** 2 + (p / 3) ** 3
    three = discriminant < 0
    radius = 2 * jnp.sqrt(jnp.where(three, -p / 3, 1))
    cosine = jnp.clip(jnp.where(three, -4 * q / radius**3, 0), -1, 1)
    angle = jnp.arccos(cosine) / 3
    trigonometric = radius * jnp.cos(angle - 2 * math.pi / 3 * jnp.arange(3))
    root = jnp.sqrt(jnp.where(three, 0, discriminant))
    larger = jnp.cbrt(-q / 2 - jnp.where(q >= 0, root, -root))
    nonzero = jnp.abs(larger) > 0
    single = larger - jnp.where(nonzero, p / 3 / jnp.where(nonzero, larger, 1), 0)
    return jnp.where(three, trigonometric, single) - shift


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
