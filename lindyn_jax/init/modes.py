"""Starts of two layers that are aligned with the modes of a target or of data."""

import jax.numpy as jnp
from jaxtyping import ArrayLike, Float, Real

from .. import _checks
from .._modes import mode_directions
from .._public import public
from .._svd import thin_svd
from ..models import TwoLayer
from ..problems import LeastSquares
from ._parts import Key, check_modes, frame, size_of, strengths


@public
def spectral(Y: Float[ArrayLike, "n m"], u0: Float[ArrayLike, " k"], v0: Float[ArrayLike, " k"], h: int) -> TwoLayer:
    """A start aligned with a target: `U = Phi diag(u0)`, `V = Psi diag(v0)` for `Y = Phi diag(sigma) Psi^T`.

    Mode i of the product then moves by itself, from `u0_i v0_i` towards `sigma_i`.

    **Args:** `Y`, shape (n, m); `u0` and `v0`, shape (k,) with k <= min(n, m, h), for the k largest singular values; `h`, the
    width, the columns beyond k being zero.

    **Raises:** `ValueError` if k exceeds min(n, m, h) or the lengths differ.

    **Notes:** derivatives with respect to Y turn the start with its singular vectors; those of equal singular values are held.

    **Source:** T21 Definition 3 and Proposition 3.

    Example:

        >>> Y = jnp.array([[2.0, 1.0], [1.0, 2.0]])
        >>> start = ld.init.spectral(Y, jnp.array([0.3, 0.2]), jnp.array([0.1, 0.1]), 2)
        >>> print(start.product().round(4))
        [[0.025 0.005]
         [0.005 0.025]]
        >>> print(ld.observables.mode_strengths(start, ld.factorization(Y)).round(4))
        [0.03 0.02]
    """
    Y = _checks.as_matrix(Y, "Y", "(n, m)")
    u0, v0, h = _checks.as_float(u0, "u0"), _checks.as_float(v0, "v0"), size_of(h, "h")
    check_modes(u0, v0, min(*Y.shape, h), min(Y.shape))
    Phi, _, PsiT = thin_svd(Y)
    k = u0.shape[0]
    pad = ((0, 0), (0, h - k))
    return TwoLayer(jnp.pad(Phi[:, :k] * u0, pad), jnp.pad(PsiT[:k].T * v0, pad))


@public
def aligned(
    problem: LeastSquares, d: Float[ArrayLike, " k"] | Real[ArrayLike, ""], h: int, *, key: Key | None = None
) -> TwoLayer:
    """G19's vanishing start `U = Phi diag(e^{-d}) O`, `V = Psi diag(e^{-d}) O` with `X^T Y = Phi diag Psi^T`.

    **Args:** `d`, shape (k,), k <= min(n, m, h), or a number for as many equal ones; `h`, the width; `key` draws O, shape (k, h)
    with orthonormal rows: without a key O is the first k rows of the identity.

    **Raises:** `ValueError` for more than min(n, m, h) components.

    **Notes:** the modes decouple when Phi also diagonalises `X^T X`; `O` must have orthonormal rows, which G19 does not say.

    **Source:** G19 Theorem 1.

    Example:

        >>> problem = ld.factorization(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> start = ld.init.aligned(problem, jnp.array([1.0, 2.0]), 2)
        >>> print(ld.observables.mode_strengths(start, problem).round(4), np.exp([-2.0, -4.0]).round(4))
        [0.1353 0.0183] [0.1353 0.0183]
    """
    h = size_of(h, "h")
    d = strengths(d, (h,), problem)
    k = d.shape[0]
    Phi, Psi = mode_directions(problem, k)
    O = frame(h, k, key, problem.dtype).T
    strength = jnp.exp(-d)
    return TwoLayer((Phi * strength) @ O, (Psi * strength) @ O)
