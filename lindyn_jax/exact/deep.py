r"""One mode of a deep network from a balanced start: `s' = L s^{2 - 2/L} (sigma - lambda s)`.

Layers of equal strength `u = s^{1/L}` each obey `u' = u^{L-1} (sigma - lambda u^L)`. In units of the target,
`p = lambda s/|sigma|` and `tau = lambda^{2/L - 1} |sigma|^{2 - 2/L} t`, with `x = p^{1/L}` and for sigma > 0

`tau = T(x) - T(x_0)`, `T(x) = -x^{2-L}/(L - 2) - (1/L) sum_k w^{-2k} log(1 - w^k x)`, `w = e^{2 pi i/L}`,

which gives the time as a function of the strength in closed form. The strength as a function of time is elementary for one and
two layers; for more it is the inverse of this increasing function, found by bisection and Newton's method in the coordinate
`z = log(p/|1 - p|)`, in which `dz/dtau = L p^{1 - 2/L}` lies between its values at the two ends.
"""

import math
import operator
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._checks import check_positive
from .._finite import elementwise
from .._public import public
from ._common import Limit, Rate, as_floats, check_not_negative, least_divisor, polynomial


@public
def deep_mode(
    sigma: Real[ArrayLike, "..."],
    lam: Real[ArrayLike, "..."],
    s0: Real[ArrayLike, "..."],
    t: Real[ArrayLike, "..."],
    depth: int,
) -> Float[Array, "..."]:
    r"""Strength at time t of one mode of a balanced network of `depth` layers.

    `s' = L s^{2 - 2/L} (sigma - lambda s)`, `s(0) = s0`. In closed form for L = 1 (exponential) and L = 2 (logistic), and for
    sigma = 0, where `s = s0 (1 + 2 (L-1) lambda s0^{2 - 2/L} t)^{-L/(2L - 2)}`; for L >= 3 the inverse of a closed form.

    **Args:** shapes that broadcast together.

    - `sigma`: singular value of Sigma_xy, of any sign: from a negative one s falls to 0.
    - `lam`: eigenvalue of Sigma_x, positive. For matrix factorization with q = c = 1 it is 1.
    - `s0`: strength at the start, at least 0 (of any sign for one layer).
    - `t`: time, at least 0.
    - `depth`: L, a whole number of at least 1.

    **Returns:** s, with a relative error of about 1e-14 in float64.

    **Raises:** `ValueError` for a depth below 1, a `lam` that is not positive, a negative `s0` or `t`, and infinite or NaN
    arguments, where they are known.

    **Notes:** derivatives by all arguments follow from the equation itself, not through the iteration. From s0 = 0 nothing moves
    for L >= 2. A sigma below 1e-154 (1e-19 in float32) counts as zero.

    **Source:** G19 section 3.1 for two layers; the deep equation is that of Arora, Cohen and Hazan (2018), and its inverse
    this package's own.

    Example:

        >>> t = jnp.array([1.0, 5.0, 9.0, 13.0])
        >>> print(ld.exact.deep_mode(1.0, 1.0, 0.001, t, 3).round(3))
        [0.001 0.008 0.417 1.   ]
        >>> print(ld.exact.deep_mode(1.0, 1.0, 0.001, t, 2).round(3))
        [0.007 0.957 1.    1.   ]
    """
    L = _depth(depth)
    sigma, lam, s0, t = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam, s0=s0, t=t))
    check_positive(lam, "lam")
    check_not_negative(t=t)
    if L > 1:
        check_not_negative(s0=s0)
    if L == 1:
        return s0 * jnp.exp(-lam * t) + sigma * _decayed(lam, t)
    return _deep(sigma, lam, s0, t, L)


@public
def deep_mode_time(
    sigma: Real[ArrayLike, "..."],
    lam: Real[ArrayLike, "..."],
    s0: Real[ArrayLike, "..."],
    s: Real[ArrayLike, "..."],
    depth: int,
) -> Float[Array, "..."]:
    r"""The time at which a balanced mode that starts at s0 has the strength s: the closed form that `deep_mode` inverts.

    **Args:** as for `deep_mode`, with sigma > 0 and `s` between s0 and sigma/lambda, both exclusive of 0.

    **Returns:** the time; NaN for a strength that is not reached.

    **Raises:** as `deep_mode`.

    **Source:** as `deep_mode`.

    Example:

        >>> time = ld.exact.deep_mode_time(1.0, 1.0, 0.001, 0.5, 3)
        >>> float(time), float(ld.exact.deep_mode(1.0, 1.0, 0.001, time, 3))
        (9.145, 0.5)
    """
    L = _depth(depth)
    sigma, lam, s0, s = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam, s0=s0, s=s))
    check_positive(lam, "lam")
    check_not_negative(s0=s0, s=s)
    p0, p = lam * s0 / sigma, lam * s / sigma
    reached = (sigma > 0) & (p0 > 0) & (p > 0) & jnp.where(p0 < 1, (p >= p0) & (p < 1), (p <= p0) & (p > 1))
    p0, p = jnp.where(reached, p0, 0.5), jnp.where(reached, p, 0.5)
    above = p0 > 1
    if L == 1:
        tau = jnp.log((1 - p0) / (1 - p))
    elif L == 2:
        tau = (_coordinate(p, above, L) - _coordinate(p0, above, L)) / 2
    else:
        z0, z = _coordinate(p0, above, L), _coordinate(p, above, L)
        tau = _elapsed(z, above, L) - _elapsed(z0, above, L)
    speed = lam ** (2 / L - 1) * jnp.where(sigma > 0, sigma, 1) ** (2 - 2 / L)
    return jnp.where(reached, tau / speed, jnp.nan)


@public
@elementwise
def deep_mode_limit(sigma: Real[ArrayLike, "..."], lam: Real[ArrayLike, "..."], s0: Real[ArrayLike, "..."]) -> Limit:
    """Limit of a balanced mode of two layers or more, and whether it is sigma/lambda: it is from s0 > 0 for sigma >= 0.

    **Args:** `sigma`, `lam`, `s0` as for `deep_mode`.

    **Returns:** a `Limit`.

    **Raises:** `ValueError` for a `lam` that is not positive or a negative `s0`, where they are known.

    **Source:** the signs of the equation.

    Example:

        >>> limit = ld.exact.deep_mode_limit(jnp.array([2.0, 2.0, -1.0]), 1.0, jnp.array([0.1, 0.0, 0.1]))
        >>> print(limit.value, limit.applies)
        [2. 0. 0.] [ True False False]
    """
    sigma, lam, s0 = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam, s0=s0))
    check_positive(lam, "lam")
    check_not_negative(s0=s0)
    moves, bounded = (s0 > 0) & (sigma > 0), lam > 0
    value = jnp.where(bounded, sigma / jnp.where(bounded, lam, 1), jnp.inf)
    return Limit(jnp.where(moves, value, 0), bounded & (moves | (sigma == 0)))


@public
@elementwise
def deep_mode_rate(sigma: Real[ArrayLike, "..."], lam: Real[ArrayLike, "..."], depth: int) -> Rate:
    """Rate at which a balanced mode approaches sigma/lambda: `L lambda (sigma/lambda)^{2 - 2/L}`, for sigma > 0.

    **Args:** `sigma`, `lam`, `depth` as for `deep_mode`. For one layer the rate is lambda for every sigma.

    **Returns:** a `Rate`. With sigma = 0 (L >= 2), or sigma < 0 and L >= 3, the approach is a power of t.

    **Raises:** `ValueError` for a depth below 1, or a `lam` that is not positive, where it is known.

    **Source:** the derivative of the equation at its rest point.

    Example:

        >>> [float(ld.exact.deep_mode_rate(8.0, 1.0, depth).value) for depth in (1, 2, 3)]
        [1.0, 16.0, 48.0]
    """
    L = _depth(depth)
    sigma, lam = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam))
    check_positive(lam, "lam")
    applies = (lam > 0) & ((sigma > 0) | (L == 1))
    safe = jnp.where(applies, lam, 1)
    value = L * safe * jnp.where(applies & (sigma > 0), jnp.abs(sigma) / safe, 1) ** (2 - 2 / L)
    return Rate(jnp.where(applies, value, 0), applies)


def _deep(sigma: Array, lam: Array, s0: Array, t: Array, L: int) -> Array:
    size = jnp.abs(sigma)
    tiny = least_divisor(size.dtype)
    targeted, started = size > tiny, s0 > 0
    usual = targeted & started
    size, strength = jnp.where(usual, size, 1), jnp.where(started, s0, 1)
    p0 = jnp.where(usual, lam * strength / size, 0.5)
    tau = jnp.where(usual, lam ** (2 / L - 1) * size ** (2 - 2 / L) * t, 0)
    # Three branches: rising to the target, falling to it, and falling to zero.
    falls, above = sigma < 0, (p0 > 1) & (sigma > 0)
    at_target = (p0 == 1) & (sigma > 0)
    # The logarithm of a tiny p0 by parts, which do not underflow; that of others has the digits of the quotient.
    faint = usual & (p0 < tiny)
    log_target = jnp.log(size) - jnp.log(jnp.where(faint, lam, 1))
    log_p0 = jnp.where(faint, jnp.log(strength) - log_target, 0)
    p0 = jnp.where(at_target | faint, 0.5, p0)
    branch = jnp.where(falls, -1.0, jnp.where(above, 1.0, 0.0)).astype(p0.dtype)
    low = p0 < 1
    fallen = jnp.where(low, jnp.log1p(p0) - jnp.log(p0), jnp.log1p(1 / jnp.where(low, 1, p0)))
    z0 = jnp.where(falls, fallen, _coordinate(p0, above, L))
    z0 = jnp.where(faint, jnp.where(falls, -log_p0, log_p0), z0)
    z = z0 + 2 * tau if L == 2 else _advance(z0, tau, branch, L)
    log_p = _log_p(z, branch)
    moved = jnp.exp(jnp.where(faint, log_target, 0) + log_p) * jnp.where(faint, 1, size / jnp.where(faint, 1, lam))
    shrink = jnp.exp(-L / (2 * L - 2) * jnp.log1p(2 * (L - 1) * lam * strength ** (2 - 2 / L) * t))
    # The first order in sigma of what is not there at sigma = 0.
    slope = (1 - shrink ** (3 - 2 / L)) / (jnp.where(targeted, 1, lam) * (3 - 2 / L))
    free = strength * shrink + jnp.where(targeted, 0, sigma - jax.lax.stop_gradient(sigma)) * slope
    rest_lam, rest_size = jnp.where(at_target, lam, 1), jnp.where(at_target, size, 1)
    target = rest_size / rest_lam
    decay = L * rest_lam * target ** (2 - 2 / L)
    resting = target + (strength - target) * jnp.exp(-decay * t)
    moved = jnp.where(at_target, resting, jnp.where(targeted, moved, free))
    # From 0 nothing moves, but a small start does: by a factor that saturates where it would overflow.
    most = 0.49 * math.log(float(jnp.finfo(s0.dtype).max))
    growth = jnp.where(started, 0, jnp.minimum(2 * jax.lax.stop_gradient(sigma) * t, most)) if L == 2 else 0.0
    return jnp.where(started, moved, s0 * jnp.exp(growth))


def _coordinate(p: Array, above: Array, L: int) -> Array:
    """`log(p/|1 - p|)`, for p in (0, 1), or above 1 where that is said."""
    below, over = jnp.where(above, 0.5, p), jnp.where(above, p, 2.0)
    return jnp.where(above, -jnp.log1p(-1 / over), jnp.log(below) - jnp.log1p(-below))


def _log_p(z: Array, branch: Array) -> Array:
    """The logarithm of p on the branches 0 (`p < 1`), 1 (`p > 1`) and -1 (target of the other sign, `z = log(1 + 1/p)`)."""
    zero = branch == 0
    positive = jnp.where(zero, 1.0, z)
    rising = -jax.nn.softplus(-jnp.where(zero, z, 0.0))
    # log(1 - e^{-z}) in the two forms that keep its digits.
    small = positive < 0.5
    gap = jnp.where(
        small,
        jnp.log(-jnp.expm1(-jnp.where(small, positive, 0.5))),
        jnp.log1p(-jnp.exp(-jnp.where(small, 0.5, positive))),
    )
    return jnp.where(zero, rising, jnp.where(branch > 0, -gap, -positive - gap))


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _advance(z0: Array, tau: Array, branch: Array, L: int) -> Array:
    """z at time tau from z0 under `dz/dtau = L p(z)^{1 - 2/L}`."""
    slope = lambda z: L * jnp.exp((1 - 2 / L) * _log_p(z, branch))  # noqa: E731
    start = _elapsed(z0, branch, L)
    ends = jnp.where(branch == 0, L, 0.0), slope(z0)
    # On branch 0 the slope rises to L, on branch 1 it falls to L, on branch -1 to zero.
    low = z0 + tau * jnp.where(branch == 0, ends[1], jnp.where(branch > 0, L, 0.0))
    high = z0 + tau * jnp.where(branch == 0, L, ends[1])

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        early = _elapsed(middle, branch, L) - start < tau
        return jnp.where(early, middle, low), jnp.where(early, high, middle)

    low, high = jax.lax.fori_loop(0, 64, halve, (low, high))
    z = (low + high) / 2
    for _ in range(2):
        better = z + slope(z) * (tau - (_elapsed(z, branch, L) - start))
        z = jnp.where(jnp.isfinite(better) & (better >= low) & (better <= high), better, z)
    return z


@_advance.defjvp
def _advance_jvp(L, primals, tangents):
    z0, tau, branch = primals
    dz0, dtau, _ = tangents
    z = _advance(z0, tau, branch, L)
    log_p0, log_p = _log_p(z0, branch), _log_p(z, branch)
    power = 1 - 2 / L
    return z, L * jnp.exp(power * log_p) * dtau + jnp.exp(power * (log_p - log_p0)) * dz0


def _elapsed(z: Array, branch: Array, L: int) -> Array:
    """The time tau at coordinate z, for L >= 3: since infinity on branches 1 and -1, up to a constant on branch 0."""
    branch = jnp.asarray(branch, z.dtype)
    log_x = _log_p(z, branch) / L
    x = jnp.exp(log_x)
    falls = branch < 0
    # Roots of 1 for a target of the same sign, of -1 for one of the other sign.
    total = jnp.zeros_like(x)
    for shift, chosen in ((0.0, ~falls), (0.5, falls)):
        part = jnp.zeros_like(x)
        for k in range(L):
            angle = 2 * math.pi * (k + shift) / L
            if k == 0 and shift == 0:
                # 1 - x from z, beyond the digits of x; log(1 - x) is -z - log L where p is 1 to within them.
                far = jnp.abs(z) > 30
                near = jnp.abs(jnp.expm1(jnp.where(far & (z > 0), -1.0, log_x)))
                logarithm = jnp.where(
                    far & (z > 0), -z - math.log(L), jnp.log(jnp.maximum(near, jnp.finfo(x.dtype).tiny))
                )
                part += logarithm
                continue
            real, imaginary = 1 - math.cos(angle) * x, -math.sin(angle) * x
            logarithm = jnp.log(real**2 + imaginary**2) / 2
            part += math.cos(2 * angle) * logarithm + math.sin(2 * angle) * jnp.arctan2(imaginary, real)
        total = jnp.where(chosen, -part / L, total)
    power = jnp.exp((2 - L) * log_x) / (L - 2)
    near = jnp.where(
        falls,
        total + power - math.pi / L / math.sin(2 * math.pi / L),
        total - power - jnp.where(branch > 0, math.pi / L / math.tan(2 * math.pi / L), 0),
    )
    # Far above the target the time since infinity, whose digits the differences of logarithms would lose.
    log_p = L * log_x
    far = (branch != 0) & (log_p > math.log(2))
    inverse = jnp.exp(-jnp.where(far, log_p, 1.0))
    series = polynomial([1 / (2 * L - 2 + j * L) for j in range(56)], jnp.where(falls, -inverse, inverse))
    return jnp.where(far, series * inverse ** (2 - 2 / L), near)


def _decayed(lam: Array, t: Array) -> Array:
    """`(1 - e^{-lam t})/lam`."""
    return -jnp.expm1(-lam * t) / lam


def _depth(depth: int) -> int:
    try:
        L = operator.index(depth)
    except TypeError:
        raise ValueError(f"Argument `depth` must be a whole number, but is {depth!r}.") from None
    if L < 1:
        raise ValueError(f"Argument `depth` must be at least 1, but is {L}.")
    return L
