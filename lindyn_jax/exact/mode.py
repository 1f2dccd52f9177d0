r"""One mode of the two-layer flow, `u' = (sigma - u v) v`, `v' = (sigma - u v) u`: at any time, from any start.

With `lambda = u0^2 - v0^2`, which is conserved, the vector r = (u, v) obeys a Riccati flow of rank one,

    r(t) = e^{tA} r0 / sqrt(1 + r0^T K r0),   A = [[lambda/2, sigma], [sigma, -lambda/2]],   K = int_0^t e^{2sA} ds,

and A has the eigenvalues +-mu/2, `mu = sqrt(4 sigma^2 + lambda^2)`. Evaluated as printed this overflows, and it loses every
digit near the saddle, where the growing part of r0 is a small difference. Three steps keep the digits.

*Symmetries.* Flipping the sign of sigma and v, of u and v, and exchanging u and v, we may take sigma >= 0 and
u0 >= |v0|, hence lambda >= 0.

*Eigenvectors, when mu t > 1.* `(A + mu/2) r0 = q (1, 2 sigma/(mu + lambda))` with
`q = (u0 + v0)(2 sigma + u0 (u0 - v0)(1 + lambda/(mu + 2 sigma)))/2`, a product and sum of nonnegative numbers. With
`eta = e^{-mu t/2}`, `s = (1 - eta^2)/mu` and `beta = s q sqrt(2/(mu + lambda))`,

    u = (eta^2 u0 + beta sqrt((mu + lambda)/2)) / sqrt(eta^2 (1 + s rho) + beta^2),   rho = u0^2 + v0^2,

and v likewise with v0 and `sqrt((mu - lambda)/2)`. Only the ratio of eta and beta matters, and it is kept below one.

*Power series in (mu t/2)^2, when mu t <= 1*: mu itself has no derivative at sigma = lambda = 0, the solution has.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .._finite import elementwise
from .._public import public
from ._common import Rate, as_floats, check_not_negative, hypot, least_divisor, polynomial

# cosh(sqrt z) and sinh(sqrt z)/sqrt z for z <= 1/4: the first term left out is below 1e-21.
_COSH = [1 / math.factorial(2 * j) for j in range(9)]
_SINHC = [1 / math.factorial(2 * j + 1) for j in range(9)]


class Mode(NamedTuple):
    """The two weights of a mode.

    **Fields:** `u`, `v`. **Property:** `x = u v`, the mode of the end-to-end matrix.

    Example:

        >>> mode = ld.exact.mode(1.0, 0.1, 0.1, 2.0)
        >>> float(mode.u), float(mode.x)
        (0.5962, 0.3555)
        >>> float(1 / (1 + 99 * jnp.exp(-4.0)))
        0.3555
    """

    u: Float[Array, "..."]
    v: Float[Array, "..."]

    @property
    def x(self) -> Float[Array, "..."]:
        """u v, as accurate as its factors."""
        return self.u * self.v


class ModeLimit(NamedTuple):
    """The limit of a mode, and whether it is the target.

    **Fields:** `value`, a `Mode`; `applies`, whether `value.x` is sigma.
    """

    value: Mode
    applies: Bool[Array, "..."]


class ModeConstant(NamedTuple):
    """The constant of the exponential approach, and whether its hypotheses hold.

    **Fields:** `value`; `applies`.
    """

    value: Float[Array, "..."]
    applies: Bool[Array, "..."]


@public
def mode(
    sigma: Real[ArrayLike, "..."], u0: Real[ArrayLike, "..."], v0: Real[ArrayLike, "..."], t: Real[ArrayLike, "..."]
) -> Mode:
    r"""One mode of the two-layer flow at time t.

    `u' = (sigma - u v) v`, `v' = (sigma - u v) u`. With `lambda = u0^2 - v0^2`, `x0 = u0 v0`, `mu = sqrt(4 sigma^2 + lambda^2)`
    and `rho = sqrt(4 x0^2 + lambda^2)` the product is
    `x(t) = sigma + (x0 - sigma)/(1 + (rho/mu) sinh(mu t) + ((lambda^2 + 4 sigma x0)/mu^2)(cosh(mu t) - 1))`.

    **Args:** shapes that broadcast together.

    - `sigma`: the target, of any sign.
    - `u0`, `v0`: the weights at t = 0, any.
    - `t`: time, at least 0.

    **Returns:** a `Mode`, a pair (u, v) with the product as its `x`.

    **Raises:** `ValueError` for negative, infinite or NaN arguments where they are known.

    **Notes:** u, v and x have full relative accuracy for every sigma, start and time, near and on the saddle as well, up to
    what a change of t by its last digit does (`eps mu t` where a weight decays; more where v crosses zero). First and second
    derivatives are exact and finite everywhere; near the saddle those in the start grow like `e^{mu t/2}`, and saturate at
    about 1e120 in float64 and 1e15 in float32. Squares of the arguments must not overflow.

    **Source:** T21 (17) and Proposition 3, in a form without 0/0 at lambda = 0, sigma = x0 or sigma = 0.

    Example:

        >>> u, v = ld.exact.mode(1.0, 2.0, 0.0, jnp.array([0.5, 10.0]))
        >>> print((u * v).round(4), (u**2 - v**2).round(4))
        [0.8769 1.    ] [4. 4.]
    """
    sigma, u0, v0, t = as_floats(sigma=sigma, u0=u0, v0=v0, t=t)
    check_not_negative(t=t)
    return Mode(*_mode(sigma, u0, v0, t))


@public
@elementwise
def mode_limit(sigma: Real[ArrayLike, "..."], u0: Real[ArrayLike, "..."], v0: Real[ArrayLike, "..."]) -> ModeLimit:
    r"""Limit of a mode as t grows, and whether its product is sigma.

    `|u| = sqrt((mu + lambda)/2)`, `|v| = sqrt((mu - lambda)/2)`, `u v = sigma`. Hypothesis: lambda != 0 or sigma x0 > 0, or
    sigma = 0. Otherwise the start lies on the stable manifold of the saddle, and the limit is 0.

    **Args:** as for `mode`.

    **Returns:** a `ModeLimit`.

    **Raises:** as `mode`.

    **Source:** T21 Proposition 3, with the hypothesis that its rate needs.

    Example:

        >>> limit = ld.exact.mode_limit(1.0, 2.0, 0.0)
        >>> float(limit.value.u), float(limit.value.v), float(limit.value.x)
        (2.058, 0.4859, 1.0)
        >>> bool(ld.exact.mode_limit(1.0, 0.5, -0.5).applies)
        False
    """
    facts = _facts(*as_floats(sigma=sigma, u0=u0, v0=v0))
    return ModeLimit(Mode(facts.u, facts.v), facts.arrives)


@public
@elementwise
def mode_rate(sigma: Real[ArrayLike, "..."], u0: Real[ArrayLike, "..."], v0: Real[ArrayLike, "..."]) -> Rate:
    r"""Rate at which the product of a mode approaches sigma: `mu = sqrt(4 sigma^2 + lambda^2)`.

    Hypothesis: lambda != 0 or sigma x0 > 0. Without it the product tends to 0: at the same rate from the rest of the saddle's
    stable manifold, like `1/(2 t)` at sigma = lambda = 0.

    **Args:** as for `mode`.

    **Returns:** a `Rate`.

    **Raises:** as `mode`.

    **Source:** T21 Proposition 3, with its missing hypothesis.

    Example:

        >>> float(ld.exact.mode_rate(1.0, 2.0, 0.0).value)
        4.472
        >>> gap = 1.0 - ld.exact.mode(1.0, 2.0, 0.0, jnp.array([3.0, 4.0])).x
        >>> float(jnp.log(gap[0] / gap[1]))
        4.472
    """
    facts = _facts(*as_floats(sigma=sigma, u0=u0, v0=v0))
    return Rate(facts.mu, facts.exponential)


@public
@elementwise
def mode_constant(
    sigma: Real[ArrayLike, "..."], u0: Real[ArrayLike, "..."], v0: Real[ArrayLike, "..."]
) -> ModeConstant:
    r"""The constant C of T21 (17): `sigma - x(t) = 2 mu^2 C e^{-mu t}` as t grows.

    `C = (sigma - x0)/(mu rho + 4 sigma x0 + lambda^2)`. Hypothesis: that of `mode_rate`; C is infinite on the saddle's stable
    manifold; there, and where the square of its denominator underflows, zero is returned and `applies` is false.

    **Args:** as for `mode`.

    **Returns:** a `ModeConstant`.

    **Raises:** as `mode`.

    **Notes:** C has the sign of sigma - x0: for sigma > 0 it is positive only below the target. The printed form is 0/0 at
    lambda = 0 and at x0 = sigma.

    **Source:** T21 (22) and (23), corrected.

    Example:

        >>> C = ld.exact.mode_constant(1.0, 0.1, 0.1).value
        >>> mu = ld.exact.mode_rate(1.0, 0.1, 0.1).value
        >>> float(2 * mu**2 * C * jnp.exp(-mu * 8.0)), float(1.0 - ld.exact.mode(1.0, 0.1, 0.1, 8.0).x)
        (1.114e-05, 1.114e-05)
    """
    facts = _facts(*as_floats(sigma=sigma, u0=u0, v0=v0))
    return ModeConstant(facts.constant, facts.bounded)


class _Canonical(NamedTuple):
    """A mode after the symmetries: sigma >= 0 and u0 >= |v0|, with the quantities that all formulas use."""

    sigma: Array
    u0: Array
    v0: Array
    lambda0: Array
    mu: Array
    growth: Array
    sign: Array
    turn: Array
    swapped: Array

    def back(self, u: Array, v: Array) -> tuple[Array, Array]:
        """The weights as the user has them."""
        u, v = self.turn * u, self.turn * v
        u, v = jnp.where(self.swapped, v, u), jnp.where(self.swapped, u, v)
        return u, self.sign * v


def _canonical(sigma: Array, u0: Array, v0: Array) -> _Canonical:
    one = jnp.ones_like(sigma)
    sign = jnp.where(sigma < 0, -one, one)
    sigma, v0 = sign * sigma, sign * v0
    swapped = jnp.abs(v0) > jnp.abs(u0)
    u0, v0 = jnp.where(swapped, v0, u0), jnp.where(swapped, u0, v0)
    turn = jnp.where(u0 < 0, -one, one)
    u0, v0 = turn * u0, turn * v0
    lambda0 = (u0 - v0) * (u0 + v0)
    mu = hypot(2 * sigma, lambda0)
    # Below, 1/mu^2 overflows in the derivative; no formula uses the growth of so slow a mode.
    moving = mu > least_divisor(mu.dtype)
    # Of (A + mu/2) r0 the first entry, without the factor u0 + v0, which alone can be small.
    bracket = 1 + jnp.where(moving, lambda0, 0) / jnp.where(moving, mu + 2 * sigma, 1)
    growth = sigma + u0 * (u0 - v0) * bracket / 2
    return _Canonical(sigma, u0, v0, lambda0, mu, growth, sign, turn, swapped)


class _Facts(NamedTuple):
    """What is known of a mode as t grows."""

    u: Array
    v: Array
    arrives: Array
    mu: Array
    exponential: Array
    constant: Array
    bounded: Array


@jax.jit
def _facts(sigma: Array, u0: Array, v0: Array) -> _Facts:
    mode = _canonical(*jnp.broadcast_arrays(sigma, u0, v0))
    moved = mode.u0 + mode.v0 > 0
    c, d = _asymptotes(mode)
    u, v = mode.back(jnp.where(moved, c, 0), jnp.where(moved, d, 0))

    least = least_divisor(mode.mu.dtype)
    total = mode.mu + mode.lambda0
    large = total > least
    # With |(A + mu/2) r0|^2 = 2 mu q^2/(mu + lambda) the denominator is a square: nothing in it cancels.
    q = mode.growth * (mode.u0 + mode.v0)
    denominator = jnp.where(large, 4 * q * (q / jnp.where(large, total, 1)), 0)
    bounded = denominator > least
    constant = mode.sign * (mode.sigma - mode.u0 * mode.v0) / jnp.where(bounded, denominator, 1)
    constant = jnp.where(bounded, constant, 0)
    return _Facts(u, v, moved | (mode.sigma == 0), mode.mu, moved & (mode.mu > 0), constant, bounded)


def _asymptotes(mode: _Canonical) -> tuple[Array, Array]:
    """`sqrt((mu + lambda)/2)` and `sqrt((mu - lambda)/2)`, the latter without cancellation; zero where mu is."""
    positive = mode.mu > 0
    c = jnp.sqrt(jnp.where(positive, mode.mu + mode.lambda0, 2) / 2)
    return jnp.where(positive, c, 0), jnp.where(positive, mode.sigma / c, 0)


@jax.jit
def _mode(sigma: Array, u0: Array, v0: Array, t: Array) -> tuple[Array, Array]:
    mode = _canonical(*jnp.broadcast_arrays(sigma, u0, v0))
    far = jax.lax.stop_gradient(mode.mu * t) > 1
    near_u, near_v = _near(mode, jnp.where(far, 0, t))
    # Where it is thrown away, the far form sees numbers of its own, at which it is finite.
    numbers = {"sigma": 1, "u0": 1, "v0": 0, "lambda0": 1, "mu": 2, "growth": 1}
    safe = mode._replace(**{name: jnp.where(far, getattr(mode, name), number) for name, number in numbers.items()})
    far_u, far_v = _far(safe, jnp.where(far, t, 1))
    return mode.back(jnp.where(far, far_u, near_u), jnp.where(far, far_v, near_v))


def _near(mode: _Canonical, t: Array) -> tuple[Array, Array]:
    """Power series in (mu t/2)^2."""
    z = (mode.sigma * t) ** 2 + (mode.lambda0 * t / 2) ** 2
    cosh, sinhc = polynomial(_COSH, z), t * polynomial(_SINHC, z)
    u0, v0, half = mode.u0, mode.v0, mode.lambda0 / 2
    moment = mode.lambda0 * half + 2 * mode.sigma * (u0 * v0)
    norm = jnp.sqrt(1 + sinhc * (cosh * (u0 * u0 + v0 * v0) + sinhc * moment))
    u = cosh * u0 + sinhc * (half * u0 + mode.sigma * v0)
    v = cosh * v0 + sinhc * (mode.sigma * u0 - half * v0)
    return u / norm, v / norm


def _far(mode: _Canonical, t: Array) -> tuple[Array, Array]:
    """In the eigenbasis, scaled by the larger of the decaying and the growing part."""
    c, d = _asymptotes(mode)
    x = mode.mu * t / 2
    eta = jnp.exp(-x)
    s = -jnp.expm1(-2 * x) / mode.mu
    total, B = mode.u0 + mode.v0, s * mode.growth / c
    ratio, decaying = _ratio(total, B, x), total * B <= eta
    weight0, weight1 = jnp.where(decaying, eta, ratio * eta), jnp.where(decaying, ratio, 1)
    rest = 1 + s * (mode.u0 * mode.u0 + mode.v0 * mode.v0)
    norm = jnp.sqrt(jnp.where(decaying, rest + ratio * ratio, ratio * ratio * rest + 1))
    return (weight0 * mode.u0 + weight1 * c) / norm, (weight0 * mode.v0 + weight1 * d) / norm


@jax.custom_jvp
def _ratio(p: Array, B: Array, x: Array) -> Array:
    """The smaller over the larger of p B and e^{-x}, for p >= 0 and B > 0; zero if both underflow.

    The logarithms of B and e^{-x} have moderate derivatives, so that the ratio's are exact when its parts underflow; only
    the derivative in p may be huge, and is kept from overflowing, twice over.
    """
    eta, beta = jnp.exp(-x), p * B
    larger = jnp.maximum(eta, beta)
    positive = larger > 0
    return jnp.where(positive, jnp.minimum(eta, beta) / jnp.where(positive, larger, 1), 0)


@_ratio.defjvp
def _ratio_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]):
    p, B, x = primals
    dp, dB, dx = tangents
    decaying = p * B <= jnp.exp(-x)
    value = _ratio(p, B, x)
    most = 0.39 * math.log(jnp.finfo(p.dtype).max)
    safe_p = jnp.where(decaying, 1, p)
    # Below e^{-most} the slope's own derivative in p would overflow.
    safe_p = jnp.where(safe_p > math.exp(-most), safe_p, jax.lax.stop_gradient(safe_p))
    log_slope = x + jnp.log(B)
    log_slope = jnp.where(decaying, log_slope, -log_slope - 2 * jnp.log(safe_p))
    slope = jnp.exp(jnp.minimum(log_slope, most))
    return value, jnp.where(decaying, 1, -1) * (value * (dB / B + dx) + slope * dp)
