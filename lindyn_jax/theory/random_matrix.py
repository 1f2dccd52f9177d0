r"""What a wide or large network does for almost every Gaussian start: deterministic equivalents of random matrices.

The end-to-end matrix of tied layers from U0 with entries N(0, variance/n) is a random matrix, but for large n its entries in
the eigenbasis of the target are those of a diagonal matrix with one number to solve for, up to fluctuations of the order
n^{-1/2}.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .. import _checks
from .._finite import of_finite_numbers
from .._public import public
from .._statement import Statement
from ..exact._common import as_floats, phi1

DOUBLINGS = 100


@public
@of_finite_numbers
def deterministic_equivalent(
    eigenvalues: Real[ArrayLike, " n"], h: Real[ArrayLike, ""], variance: Real[ArrayLike, ""], ts: Real[ArrayLike, " T"]
) -> Statement:
    r"""The tied flow from a Gaussian start for large n: `X(t) ~ e^{2tY} (mu^{-1} I + A_t)^{-1} e^{2tY}`.

    `A_t = 4 int_0^t e^{4sY} ds`; the flow is X' = 2YX + 2XY - 4X^2 from X(0) = U0 U0^T, U0 of shape (n, h) with entries
    N(0, variance/n), and the number mu of each time solves `mu = variance (tr (mu A_t + I)^{-1}/n - (1 - h/n))`. In the limit
    of large n with h/n fixed.

    **Args:** `eigenvalues`, those of the target Y, shape (n,), of any sign and order; `h`, the width, and `variance`, n times
    that of an entry, positive numbers; `ts`, times of at least 0, shape (T,). All may be traced.

    **Returns:** a `Statement` on the diagonal of the mean of X(t) in the eigenbasis of Y, shape (T, n), in the order of the
    eigenvalues (off it the mean is zero), also called `diagonal`; `mu`, shape (T,); `trace`, of X; `bulk`, the trace on the
    eigenvectors of Y with no positive eigenvalue, where there is nothing to learn; `loss`, `||Y - E X||_F^2/n`; `applies`,
    whether h and variance are positive.

    **Raises:** `ValueError` for shapes that do not fit, numbers that are not finite or not positive, or negative times.

    **Notes:** nothing overflows for any t, and mu, which falls like e^{-4ty} where h is below the number of positive
    eigenvalues y, keeps its relative accuracy down to the least number. The spread of X(t) about its mean is not in `loss`:
    that of a draw is larger by it. The error of the trace was .8/.4/.3/.05% at n = 60/120/240/480.

    **Source:** this package's own, by the Marchenko-Pastur law for general population covariances (Silverstein 1995).

    Example:

        >>> found = ld.theory.deterministic_equivalent(np.array([2.0, -1.0]), 4, 0.5, np.array([0.0, 0.5, 2.0]))
        >>> found.diagonal.tolist()
        [[1.0, 1.0], [1.93, 0.05749], [2.0, 0.0001323]]
    """
    y, h, variance, ts = as_floats(eigenvalues=eigenvalues, h=h, variance=variance, ts=ts)
    for name, value, shape in (("eigenvalues", y, "n"), ("ts", ts, "T")):
        if value.ndim != 1 or value.shape[0] == 0:
            raise ValueError(f"Argument `{name}` must have shape ({shape},), but has shape {value.shape}.")
    for name, value in (("h", h), ("variance", variance)):
        if value.ndim:
            raise ValueError(f"Argument `{name}` must be a number, but has shape {value.shape}: use `jax.vmap`.")
        _checks.check_positive(value, name)
    _checks.check_not_negative(ts, "ts")
    found: tuple[Array, Array] = _equivalents(y, h, variance, ts)
    mu, diagonal = found
    sums = {
        "mu": mu,
        "trace": jnp.sum(diagonal, axis=1),
        "bulk": jnp.sum(jnp.where(y > 0, 0, diagonal), axis=1),
        "loss": jnp.mean((y - diagonal) ** 2, axis=1),
    }
    return Statement(diagonal, (h > 0) & (variance > 0), name="diagonal", **sums)


@jax.jit
def _equivalents(y, h, variance, ts) -> tuple[Float[Array, " T"], Float[Array, "T n"]]:
    return jax.vmap(_equivalent, (None, None, None, 0))(y, h, variance, ts)


def _equivalent(y: Array, h: Array, variance: Array, t: Array) -> tuple[Float[Array, ""], Float[Array, " n"]]:
    """mu and the diagonal at one time; with `A_t = B e^m`, `m = max(4 t y, 0)`, and log mu for the unknown."""
    rising = y >= 0
    down = jnp.where(rising, -4 * t * y, 4 * t * y)
    B, m = 4 * t * phi1(down), jnp.where(rising, -down, 0)
    n = y.shape[0]

    def excess(log_mu: Array, inputs) -> Array:
        """Zero at the solution, and falling in log mu."""
        B, m, h, variance = inputs
        one, other = _terms(log_mu + m, B)
        large = jax.lax.stop_gradient(other > one)
        # 1/(1 + mu A) - 1, or without the 1 where that is small: whole numbers cancel before anything small is added.
        small = jnp.where(large, one, -other) / (one + other)
        return (h - jnp.sum(large)) / n + jnp.mean(small) - jnp.exp(log_mu) / variance

    inputs = B, m, h, variance
    held = jax.lax.stop_gradient(inputs)
    log_mu: Array = jax.lax.custom_root(
        lambda x: excess(x, inputs),
        jnp.zeros((), y.dtype),
        lambda _, start: _bisect(lambda x: excess(x, held), *_bounds(*held, n)),
        lambda linear, right: right / linear(jnp.ones_like(right)),
    )
    w = log_mu + m
    one, other = _terms(w, B)
    # e^{4ty}/(1/mu + A), with what would overflow taken off above and below.
    diagonal = jnp.exp(jnp.where(rising, 0, down) + jnp.where(w > 0, 0, w)) / (one + other)
    return jnp.exp(log_mu), diagonal


def _terms(w: Array, B: Array) -> tuple[Array, Array]:
    """1 and `mu A = B e^w`, both times e^{-max(w, 0)}."""
    above = w > 0
    return jnp.exp(jnp.where(above, -w, 0)), B * jnp.exp(jnp.where(above, 0, w))


def _bounds(B: Array, m: Array, h: Array, variance: Array, n: int) -> tuple[Array, Array]:
    """Between which log mu lies: `mu (A + 1/variance) >= h/n` for the largest A, and `mu <= variance h/n`."""
    log_A = jnp.max(m) + jnp.log(jnp.max(B))
    log_share = jnp.log(h) - jnp.log(n)
    return log_share - jnp.logaddexp(log_A, -jnp.log(variance)), log_share + jnp.log(variance)


def _bisect(falling, low: Array, high: Array) -> Array:
    def halve(_, ends):
        low, high = ends
        middle = low + (high - low) / 2
        below = falling(middle) > 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, DOUBLINGS, halve, (low, high))
    return low + (high - low) / 2
