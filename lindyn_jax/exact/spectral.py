r"""Layers aligned with the target: every mode of the two-layer flow moves by itself.

From `U(0) = Phi diag(u0)`, `V(0) = Psi diag(v0)` with `Y = Phi diag(sigma) Psi^T`, padded with zero columns to the width h, the
product is `Theta(t) = Phi diag(x(t)) Psi^T` with one mode (see `mode`) for each given pair of weights. There are at most
min(n, m, h) pairs; all other modes of Y have zero weights on both sides and never move.
"""

import operator

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .. import _checks
from .._finite import of_finite_numbers
from .._linalg import round_off
from .._public import public
from .._svd import remainder, thin_svd
from ._common import Limit, Rate, as_floats, as_times, check_vector, last_derivative
from .mode import mode, mode_limit, mode_rate

_NO_SECOND = "`spectral_product` has first derivatives in Y only."


@public
def spectral(
    sigma: Real[ArrayLike, " k"], u0: Real[ArrayLike, " k"], v0: Real[ArrayLike, " k"], ts: Real[ArrayLike, " T"]
) -> Float[Array, "T k"]:
    """Modes of the end-to-end matrix from a start that is aligned with the target.

    `x_i' = sqrt(lambda_i^2 + 4 x_i^2) (sigma_i - x_i)`, `x_i(0) = u0_i v0_i`, `lambda_i = u0_i^2 - v0_i^2`.

    **Args:**

    - `sigma`: singular values of the target, shape (k,); signs are allowed.
    - `u0`, `v0`: weights of the modes, shape (k,).
    - `ts`: times, shape (T,), at least 0.

    **Returns:** x, shape (T, k), each with full relative accuracy; `mode(sigma, u0, v0, ts[:, None])` has the layers.

    **Raises:** `ValueError` for lengths that differ, and as `mode` does.

    **Source:** T21 Proposition 3.

    Example:

        >>> sigma, u0 = jnp.array([3.0, 1.0]), jnp.array([0.1, 0.1])
        >>> print(ld.exact.spectral(sigma, u0, u0, jnp.array([0.0, 1.0, 2.0, 10.0])).round(3))
        [[0.01  0.01 ]
         [1.723 0.069]
         [2.994 0.355]
         [3.    1.   ]]
    """
    sigma, u0, v0 = _vectors(sigma, u0, v0)
    return mode(sigma, u0, v0, as_times(ts, sigma.dtype)[:, None]).x


@public
@of_finite_numbers
def spectral_limit(sigma: Real[ArrayLike, " k"], u0: Real[ArrayLike, " k"], v0: Real[ArrayLike, " k"]) -> Limit:
    """Limits of the modes, shape (k,), and whether every mode reaches its target.

    Hypothesis, for every mode: `lambda != 0` or `sigma x0 > 0`, or `sigma = 0`. Other modes tend to 0.

    **Args:** as for `spectral`.

    **Returns:** a `Limit`.

    **Raises:** as `spectral`.

    **Source:** T21 Proposition 3, with the hypothesis that it needs.

    Example:

        >>> sigma, u0 = jnp.array([3.0, 1.0]), jnp.array([0.1, 0.1])
        >>> limit = ld.exact.spectral_limit(sigma, u0, jnp.array([0.1, -0.1]))
        >>> print(limit.value, limit.applies)
        [3. 0.] False
    """
    limit = mode_limit(*_vectors(sigma, u0, v0))
    return Limit(limit.value.x, jnp.all(limit.applies))


@public
@of_finite_numbers
def spectral_rate(sigma: Real[ArrayLike, " k"], u0: Real[ArrayLike, " k"], v0: Real[ArrayLike, " k"]) -> Rate:
    """Rate of the slowest mode: `min_i sqrt(4 sigma_i^2 + lambda_i^2)`.

    Hypothesis, for every mode: `lambda != 0` or `sigma x0 > 0`. `mode_rate` has the rate of each.

    **Args:** as for `spectral`.

    **Returns:** a `Rate`.

    **Raises:** as `spectral`.

    **Source:** T21 Proposition 3, with its missing hypothesis.

    Example:

        >>> sigma, u0 = jnp.array([3.0, 1.0]), jnp.array([0.1, 0.1])
        >>> float(ld.exact.spectral_rate(sigma, u0, u0).value)
        2.0
    """
    rate = mode_rate(*_vectors(sigma, u0, v0))
    return Rate(jnp.min(rate.value), jnp.all(rate.applies))


@public
def spectral_product(
    Y: Real[ArrayLike, "n m"],
    u0: Real[ArrayLike, " k"],
    v0: Real[ArrayLike, " k"],
    h: int,
    ts: Real[ArrayLike, " T"],
) -> Float[Array, "T n m"]:
    """The end-to-end matrix of the flow on `factorization(Y)` from `init.spectral(Y, u0, v0, h)`.

    `Theta(t) = Phi diag(x(t)) Psi^T` for `Y = Phi diag(sigma) Psi^T`, with x as in `spectral` for the k largest singular
    values and zero for the others.

    **Args:**

    - `Y`: target, shape (n, m).
    - `u0`, `v0`: shape (k,), k <= min(n, m, h).
    - `h`: the width, a static number.
    - `ts`: times, shape (T,), at least 0.

    **Returns:** Theta, shape (T, n, m).

    **Raises:** `ValueError` if k exceeds min(n, m, h) or the lengths differ, and as `spectral` does.

    **Notes:** the derivative with respect to Y, in which the start turns with Y's singular vectors, exists where the singular
    values of modes with different weights differ and those with weights are positive, and is exact there, at repeated
    singular values with equal weights as well. Elsewhere the singular vectors are held. Second derivatives in Y are refused.

    **Source:** T21 Proposition 3.

    Example:

        >>> Y, u0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([0.1, 0.1])
        >>> Theta = ld.exact.spectral_product(Y, u0, u0, 2, jnp.array([1.0, 10.0]))
        >>> print(jnp.linalg.svd(Theta, compute_uv=False).round(3))
        [[1.723 0.069]
         [3.    1.   ]]
    """
    Y, u0, v0 = _start(Y, u0, v0, h)
    return _product(Y, u0, v0, as_times(ts, Y.dtype))


@public
def spectral_product_limit(
    Y: Real[ArrayLike, "n m"], u0: Real[ArrayLike, " k"], v0: Real[ArrayLike, " k"], h: int
) -> Limit:
    """Limit of `spectral_product`, shape (n, m), and whether it is the best approximation of Y of rank k.

    Hypothesis: that of `spectral_limit` for the k modes; the limit is then Y itself if k >= rank Y.

    **Args:** as for `spectral_product`.

    **Returns:** a `Limit`.

    **Raises:** as `spectral_product`.

    **Notes:** derivatives with respect to Y need gaps between modes that are learned and those that are not.

    **Source:** T21 Proposition 3.

    Example:

        >>> Y, u0 = jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.array([0.1])
        >>> limit = ld.exact.spectral_product_limit(Y, u0, u0, 2)
        >>> print(limit.value.round(3), limit.applies)
        [[1.5 1.5]
         [1.5 1.5]] True
    """
    k = jnp.shape(u0)[0] if jnp.ndim(u0) else 0
    Y, u0, v0 = _start(Y, u0, v0, h)
    Phi, sigma, PsiT = thin_svd(Y)
    limit = mode_limit(sigma, u0, v0)
    given = jnp.arange(sigma.shape[0]) < k
    # Modes that are learned are those of Y itself, whose derivative needs no gap between them.
    learned = limit.applies & given & (sigma > 0)
    off = jnp.where(learned[:, None] & learned, remainder(Y, Phi, PsiT), 0)
    return Limit((Phi * limit.value.x + Phi @ off) @ PsiT, jnp.all(limit.applies | ~given))


def _vectors(sigma: ArrayLike, u0: ArrayLike, v0: ArrayLike) -> tuple[Array, Array, Array]:
    sigma, u0, v0 = as_floats(sigma=sigma, u0=u0, v0=v0)
    check_vector(sigma, "sigma", "k")
    if not sigma.shape == u0.shape == v0.shape:
        raise ValueError(
            "Arguments `sigma`, `u0` and `v0` must have one entry a mode, "
            f"but have shapes {sigma.shape}, {u0.shape} and {v0.shape}."
        )
    return sigma, u0, v0


def _start(Y: ArrayLike, u0: ArrayLike, v0: ArrayLike, h: int) -> tuple[Array, Array, Array]:
    """The target, and the weights of all its min(n, m) modes, zero for those that never move."""
    Y = _checks.as_matrix(Y, "Y", "(n, m)")
    Y, u0, v0 = as_floats(Y=Y, u0=u0, v0=v0)
    most = min(*Y.shape, operator.index(h))
    if u0.ndim != 1 or u0.shape != v0.shape or not 1 <= u0.shape[0] <= most:
        raise ValueError(
            f"Arguments `u0` and `v0` must be vectors of one length k with 1 <= k <= min(n, m, h) = {most}, "
            f"but have shapes {u0.shape} and {v0.shape}."
        )
    pad = (0, min(Y.shape) - u0.shape[0])
    return Y, jnp.pad(u0, pad), jnp.pad(v0, pad)


@jax.custom_jvp
def _product(Y: Array, u0: Array, v0: Array, ts: Array) -> Float[Array, "T n m"]:
    Phi, sigma, PsiT = jnp.linalg.svd(Y, full_matrices=False)
    return (Phi * mode(sigma, u0, v0, ts[:, None]).x[:, None, :]) @ PsiT


@_product.defjvp
def _product_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]):
    """The turning of the singular vectors by divided differences of x(sigma), which need no gap where x is one function."""
    Y, u0, v0, ts = primals
    dY, du0, dv0, dts = tangents
    Phi, sigma, PsiT = jnp.linalg.svd(last_derivative(Y, _NO_SECOND), full_matrices=False)
    move = lambda *arguments: mode(*arguments).x  # noqa: E731
    here = (sigma, u0, v0, ts[:, None])
    M = Phi.T @ dY @ PsiT.T
    moved: tuple[Array, Array] = jax.jvp(move, here, (jnp.diagonal(M), du0, dv0, dts[:, None]))
    x, dx = moved
    slope = jax.jvp(move, here, (jnp.ones_like(sigma), *(jnp.zeros_like(a) for a in here[1:])))[1]

    eps = jnp.finfo(Y.dtype).eps
    zero, close = round_off(Y) * sigma[0], eps ** (1 / 3) * sigma[0]
    odd = u0 * v0 == 0
    same = (u0[:, None] == u0) & (v0[:, None] == v0)
    mean = (slope[:, :, None] + slope[:, None, :]) / 2

    def quotient(difference: Array, gap: Array, limit: Array, smooth: Array) -> Array:
        usable = jnp.abs(gap) > jnp.where(smooth, close, zero)
        return jnp.where(usable, difference / jnp.where(usable, gap, 1), jnp.where(smooth, limit, 0))

    symmetric = quotient(x[:, :, None] - x[:, None, :], sigma[:, None] - sigma, mean, same)
    skew = quotient(x[:, :, None] + x[:, None, :], sigma[:, None] + sigma, mean, same & odd)
    turned = symmetric * (M + M.T) / 2 + skew * (M - M.T) / 2
    turned = jnp.where(jnp.eye(sigma.shape[0], dtype=bool), dx[:, :, None], turned)
    value = (Phi * x[:, None, :]) @ PsiT
    tangent = Phi @ turned @ PsiT
    # Directions outside the span of the singular vectors, on the longer side of Y.
    outside = quotient(x, sigma, slope, odd)[:, None, :]
    tangent += ((dY - Phi @ (Phi.T @ dY)) @ PsiT.T * outside) @ PsiT
    tangent += (Phi * outside) @ (Phi.T @ (dY - (dY @ PsiT.T) @ PsiT))
    return value, tangent
