r"""Learning one component after another: the two-layer flow from a vanishing start that is aligned with the data (G19).

With `Sigma_x = X^T X/N = Phi diag(lambda) Phi^T`, `Sigma_xy = X^T Y/N = Phi diag(sigma) Psi^T` and the start of `init.aligned`,
`U(0) = Phi diag(e^{-d}) O`, `V(0) = Psi diag(e^{-d}) O` with orthonormal rows of O, the layers stay of this form and
`Theta(t) = Phi diag(w(t)) Psi^T`, where each `w' = 2 w (sigma - lambda w)`, `w(0) = e^{-2d}`. As d grows and time is counted in
units of d, w becomes a step at 1/sigma.

Formulas are in G19's scale q = 1/N; for another q and an output scale c take the eigenvalues of `q c^2 X^T X` for lambda and the
singular values of `q c X^T Y` for sigma. A sigma or lambda below 1e-154 (1e-19 in float32) counts as zero where limits and
times divide by it.
"""

import math
import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .. import _checks
from .._finite import elementwise, of_finite_numbers
from .._public import public
from ._common import Limit, Rate, Time, as_floats, check_not_negative, check_vector, least_divisor, polynomial

# (1 - e^{-z})/z for |z| <= 1/2: the first term left out is below 1e-20.
_DECAY = [(-1) ** j / math.factorial(j + 1) for j in range(16)]


@public
def aligned(
    sigma: Real[ArrayLike, "..."], lam: Real[ArrayLike, "..."], d: Real[ArrayLike, "..."], t: Real[ArrayLike, "..."]
) -> Float[Array, "..."]:
    r"""One component of the end-to-end matrix at time t, from `w(0) = e^{-2d}`.

    `w(t) = sigma e^{2 sigma t - 2d}/(lambda (e^{2 sigma t - 2d} - e^{-2d}) + sigma)`, and
    `e^{-2d}/(1 + 2 e^{-2d} lambda t)` for sigma = 0.

    **Args:** shapes that broadcast together.

    - `sigma`: singular value of Sigma_xy; a negative one, from which w falls to 0, is allowed.
    - `lam`: eigenvalue of Sigma_x, at least 0.
    - `d`: exponent of the start, of any size and sign.
    - `t`: time, at least 0.

    **Returns:** w, with full relative accuracy as long as it does not underflow.

    **Raises:** `ValueError` for a negative `lam` or `t`, and infinite or NaN arguments, where they are known.

    **Notes:** with lam = 0 nothing stops the growth, `w = e^{2 sigma t - 2d}`. Values saturate at about 1e100 in float64 and
    1e12 in float32. Derivatives exist everywhere, at sigma = 0 and lam = 0 as well.

    **Source:** G19 Theorem 1, (16), corrected: O must be orthogonal, and sigma = 0 has a form of its own.

    Example:

        >>> t = jnp.array([0.0, 1.0, 2.0, 6.0])
        >>> print(ld.exact.aligned(2.0, 1.0, 3.0, t).round(3))
        [0.002 0.127 1.574 2.   ]
    """
    sigma, lam, d, t = as_floats(sigma=sigma, lam=lam, d=d, t=t)
    check_not_negative(lam=lam, t=t)
    return _aligned(*jnp.broadcast_arrays(sigma, lam, d, t))


@public
@elementwise
def aligned_limit(sigma: Real[ArrayLike, "..."], lam: Real[ArrayLike, "..."], d: Real[ArrayLike, "..."] = 0.0) -> Limit:
    """Limit of a component as t grows, and whether it is sigma/lambda.

    Hypothesis: sigma >= 0 and lambda > 0. A negative sigma gives 0; with lambda = 0 the limit is 0, the start or infinity by
    the sign of sigma.

    **Args:** `sigma`, `lam` as for `aligned`; `d`, of which only the case sigma = lam = 0 depends.

    **Returns:** a `Limit`.

    **Raises:** as `aligned`.

    **Source:** G19 Theorem 1.

    Example:

        >>> limit = ld.exact.aligned_limit(jnp.array([2.0, -1.0]), 4.0)
        >>> print(limit.value, limit.applies)
        [0.5 0. ] [ True False]
    """
    sigma, lam, d = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam, d=d))
    check_not_negative(lam=lam)
    curved = lam > least_divisor(lam.dtype)
    free = jnp.where(sigma == 0, jnp.exp(-2 * d), jnp.where(sigma > 0, jnp.inf, 0))
    value = jnp.where(curved, jnp.maximum(sigma, 0) / jnp.where(curved, lam, 1), free)
    return Limit(value, curved & (sigma >= 0))


@public
@elementwise
def aligned_rate(sigma: Real[ArrayLike, "..."], lam: Real[ArrayLike, "..."]) -> Rate:
    """Rate at which a component approaches its limit: `2 |sigma|`.

    Hypothesis: sigma != 0 and lambda > 0 (or sigma < 0). At sigma = 0 it falls like `1/(2 lambda t)`.

    **Args:** as for `aligned_limit`.

    **Returns:** a `Rate`.

    **Raises:** as `aligned`.

    **Source:** G19 Theorem 1.

    Example:

        >>> float(ld.exact.aligned_rate(2.0, 1.0).value)
        4.0
        >>> gap = 2.0 - ld.exact.aligned(2.0, 1.0, 3.0, jnp.array([4.0, 5.0]))
        >>> float(jnp.log(gap[0] / gap[1]))
        4.0
    """
    sigma, lam = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam))
    check_not_negative(lam=lam)
    return Rate(2 * jnp.abs(sigma), (sigma < 0) | ((sigma > 0) & (lam > 0)))


@public
@elementwise
def aligned_half_time(sigma: Real[ArrayLike, "..."], lam: Real[ArrayLike, "..."], d: Real[ArrayLike, "..."]) -> Time:
    """Time at which a component is at half its limit: `(2d + log(sigma/lambda - e^{-2d}))/(2 sigma)`.

    Hypothesis: sigma > 0, lambda > 0 and `e^{-2d} <= sigma/(2 lambda)`, so that it starts below.

    **Args:** as for `aligned`.

    **Returns:** a `Time`. From a start between half its limit and the limit it is not reached, and the formula's negative time
    says when the same path would have passed it; zero where there is no such path.

    **Raises:** as `aligned`.

    **Source:** G19 (17), corrected.

    Example:

        >>> time = ld.exact.aligned_half_time(2.0, 1.0, 3.0).value
        >>> float(time), float(ld.exact.aligned(2.0, 1.0, 3.0, time))
        (1.673, 1.0)
    """
    sigma, lam, d = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam, d=d))
    check_not_negative(lam=lam)
    least = least_divisor(sigma.dtype)
    proper = (sigma > least) & (lam > least)
    # log of the limit over the start; log(e^ratio - 1) does not overflow in this form.
    ratio = jnp.log(jnp.where(proper, sigma, 1)) - jnp.log(jnp.where(proper, lam, 1)) + 2 * d
    applies, short = proper & (ratio >= math.log(2)), proper & (ratio > 0)
    ratio = jnp.where(short, ratio, 1)
    time = (ratio + jnp.log(-jnp.expm1(-ratio))) / (2 * jnp.where(short, sigma, 1))
    return Time(jnp.where(short, time, 0), applies)


@public
@elementwise
def aligned_jump_time(sigma: Real[ArrayLike, "..."]) -> Time:
    """Time, in units of d, at which a component jumps as d grows: `T = 1/sigma` from `w(0) = e^{-2d}`.

    Hypothesis: sigma > 0. A start `w(0) = e^{-d}`, as G19's Figure 1 has it, jumps at `1/(2 sigma)`.

    **Args:** `sigma`.

    **Returns:** a `Time`; infinite where the hypothesis fails.

    **Raises:** as `aligned`.

    **Source:** G19 Theorem 2, (18), with the start that its times belong to.

    Example:

        >>> times = ld.exact.aligned_jump_time(jnp.array([4.0, 2.0]))
        >>> print(times.value)
        [0.25 0.5 ]
    """
    (sigma,) = as_floats(sigma=sigma)
    positive = sigma > least_divisor(sigma.dtype)
    return Time(jnp.where(positive, 1 / jnp.where(positive, sigma, 1), jnp.inf), positive)


@public
@elementwise
def aligned_step(sigma: Real[ArrayLike, "..."], lam: Real[ArrayLike, "..."], t: Real[ArrayLike, "..."]) -> Limit:
    r"""The limit of `w(d t)` as d grows: a step from 0 to `sigma/lambda` at `T = 1/sigma`, `sigma/(lambda + sigma)` at T itself.

    Hypothesis: sigma > 0 and lambda > 0; components with sigma <= 0 stay at 0.

    **Args:** as for `aligned`, with t in units of d; `t = T` is recognised to a few units in the last place.

    **Returns:** a `Limit` (of d, at fixed t), whose sum of squares over components is G19's Corollary 1, the limit of
    `||Theta||_F^2`; the sum of the values themselves is the limit of the nuclear norm.

    **Raises:** as `aligned`.

    **Source:** G19 Theorem 2 and Corollary 1 (the squared Frobenius norm is meant).

    Example:

        >>> t = jnp.array([0.25, 0.5, 1.0])
        >>> print(ld.exact.aligned_step(2.0, 1.0, t).value.round(3))
        [0.    0.667 2.   ]
        >>> print(ld.exact.aligned(2.0, 1.0, 50.0, 50 * t).round(3))
        [0.    0.667 2.   ]
    """
    sigma, lam, t = jnp.broadcast_arrays(*as_floats(sigma=sigma, lam=lam, t=t))
    check_not_negative(lam=lam, t=t)
    applies = (sigma > 0) & (lam > least_divisor(lam.dtype))
    safe_sigma, safe_lam = jnp.where(applies, sigma, 1), jnp.where(applies, lam, 1)
    phase = safe_sigma * t - 1
    at = jnp.abs(phase) <= 4 * jnp.finfo(sigma.dtype).eps
    height = jnp.where(at, safe_sigma / (safe_lam + safe_sigma), jnp.where(phase > 0, safe_sigma / safe_lam, 0))
    return Limit(jnp.where(applies, height, 0), applies)


@public
@of_finite_numbers
def plateau(sigma: Real[ArrayLike, " p"], lam: Real[ArrayLike, " p"], k: int) -> Limit:
    """The components between the jumps k and k + 1, and whether they are the best fit of rank k.

    `w_i = sigma_i/lambda_i` for the k largest sigma, 0 for the others. Hypothesis:
    `min_{i <= k} sigma_i^2/lambda_i >= max_{i > k} sigma_i^2/lambda_i`.

    **Args:** `sigma`, `lam`, shape (p,), in any order, lam > 0 and sigma >= 0; `k`, a static number from 0 to p.

    **Returns:** a `Limit`, in the order of `sigma`.

    **Raises:** `ValueError` for lengths that differ or a k out of range, and as `aligned`.

    **Notes:** without the hypothesis the flow passes elsewhere than `reduced_rank` says: sigma = (2, 1), lambda = (8, .5).
    Values of sigma^2/lambda that agree to round-off count as equal.

    **Source:** G19 Corollary 2, with the hypothesis that it needs.

    Example:

        >>> sigma = jnp.array([2.0, 1.0])
        >>> for lam in (jnp.array([1.0, 1.0]), jnp.array([8.0, 0.5])):
        ...     limit = ld.exact.plateau(sigma, lam, 1)
        ...     print(limit.value, limit.applies)
        [2. 0.] True
        [0.25 0.  ] False
    """
    sigma, lam, k = _components(sigma, lam, k)
    learned = _rank(sigma) < k
    gain = _gain(sigma, lam)
    least = jnp.min(jnp.where(learned, gain, jnp.inf))
    most = jnp.max(jnp.where(learned, -jnp.inf, gain))
    return Limit(jnp.where(learned, sigma / lam, 0), least >= most - gain_round_off(gain))


@public
@of_finite_numbers
def reduced_rank(sigma: Real[ArrayLike, " p"], lam: Real[ArrayLike, " p"], k: int) -> Float[Array, " p"]:
    """Components of the best fit of rank k: `sigma_i/lambda_i` where `sigma_i^2/lambda_i` is among the k largest.

    `W^{k*} = Sigma_x^+ Sigma_xy Psi_k Psi_k^T` with the top eigenvectors of `Sigma_xy^T Sigma_x^+ Sigma_xy`, in the aligned case.

    **Args:** as for `plateau`.

    **Returns:** the components, shape (p,).

    **Raises:** as `plateau`.

    **Source:** G19 Corollary 2.

    Example:

        >>> sigma, lam = jnp.array([2.0, 1.0]), jnp.array([8.0, 0.5])
        >>> print(ld.exact.reduced_rank(sigma, lam, 1))
        [0. 2.]
    """
    sigma, lam, k = _components(sigma, lam, k)
    return jnp.where(_rank(_gain(sigma, lam)) < k, sigma / lam, 0)


def _components(sigma: ArrayLike, lam: ArrayLike, k: int) -> tuple[Array, Array, int]:
    sigma, lam = as_floats(sigma=sigma, lam=lam)
    check_vector(sigma, "sigma", "p")
    if sigma.shape != lam.shape:
        raise ValueError(
            f"Arguments `sigma` and `lam` must have the same shape (p,), but have {sigma.shape} and {lam.shape}."
        )
    check_not_negative(sigma=sigma)
    _checks.check_positive(lam, "lam")
    k = operator.index(k)
    if not 0 <= k <= sigma.shape[0]:
        raise ValueError(f"Argument `k` must lie between 0 and p = {sigma.shape[0]}, but is {k}.")
    return sigma, lam, k


def _gain(sigma: Array, lam: Array) -> Array:
    """What a component takes off twice the loss."""
    return sigma * (sigma / lam)


def gain_round_off(gain: Array) -> Array:
    """Differences of `sigma^2/lambda` up to this are of its rounding: ties are equalities."""
    return 8 * jnp.finfo(gain.dtype).eps * jnp.max(gain)


def _rank(values: Array) -> Array:
    """Place of each entry in descending order, equal ones in the order given."""
    return jnp.argsort(jnp.argsort(-values, stable=True), stable=True)


@jax.jit
def _aligned(sigma: Array, lam: Array, d: Array, t: Array) -> Array:
    y = 2 * sigma * t
    grows = y >= 0
    size = jnp.where(grows, y, -y)
    # w = e^{-loss} / (e^{2d - gain} + resistance); divided through by the exponential where it is large.
    gain, loss = jnp.where(grows, y, 0), jnp.where(grows, 0, -y)
    resistance = 2 * lam * t * _decay(size)
    height = 2 * d - gain
    late = height < 0
    least = float(jnp.finfo(y.dtype).max) ** -0.325
    early = jnp.exp(-jnp.where(late, 0, height + loss))
    w_early = early / (1 + resistance * jnp.exp(-jnp.where(late, 0, height)))
    pull = jnp.maximum(jnp.exp(jnp.where(late, height, 0)), least)
    w_late = jnp.exp(-jnp.where(late, loss, 0)) / jnp.where(late, pull + resistance, 1)
    return jnp.where(late, w_late, w_early)


def _decay(z: Array) -> Array:
    """`(1 - e^{-z})/z` for z >= 0."""
    small = z <= 0.5
    away = jnp.where(small, 1, z)
    return jnp.where(small, polynomial(_DECAY, jnp.where(small, z, 0)), -jnp.expm1(-away) / away)
