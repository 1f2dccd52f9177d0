"""Moments of linear regression in context, over infinitely many sequences."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .. import _checks
from .._public import public


class InContext(NamedTuple):
    """Second moments of cubic features.

    **Fields:** `Sigma_x`, of the features; `Sigma_xy`, with the answer; `Sigma_y`, of it.

    Example:

        >>> moments = ld.theory.in_context_covariances(np.eye(4) / 4, 32)
        >>> float(moments.Sigma_y[0, 0]), jnp.diag(moments.Sigma_x)[:2].tolist()
        (1.0, [0.01807, 0.01807])
    """

    Sigma_x: Float[Array, "dd dd"]
    Sigma_xy: Float[Array, "dd 1"]
    Sigma_y: Float[Array, "1 1"]


@public
def in_context_covariances(covariance: Float[ArrayLike, "d d"], length: int) -> InContext:
    r"""Second moments of the features `z = vec(b x^T)` of `data.in_context`, over all sequences.

    With `C` the covariance of x: `E[b b^T] = (1 + 1/N) C^2 + tr(C) C/N`, so that `E[z z^T] = E[b b^T] kron C`, `E[y z] =
    vec(C^2)` and `E[y^2] = tr C`. For `C = c I` the features are isotropic, `E[z z^T] = c^3 (1 + (1 + d)/N) I`, and learning is
    one mode: a plateau and one drop, to the share `(1 + d)/(N + 1 + d)` of the loss.

    **Args:** `covariance`, C, shape (d, d); `length`, N.

    **Returns:** an `InContext`; `LeastSquares` of it is `theory.covariance_problem(Sigma_x, Sigma_xy)`.

    **Raises:** `ValueError` for a matrix that is not square, or a length below 1.

    **Source:** Zhang, Singh, Latham and Saxe (2025), for normal x; the moments by Wick's formula.

    Example:

        >>> Sigma_x, Sigma_xy, Sigma_y = ld.theory.in_context_covariances(np.eye(4) / 4, 32)
        >>> explained = float((Sigma_xy.T @ jnp.linalg.solve(Sigma_x, Sigma_xy))[0, 0])
        >>> 1 - explained / float(Sigma_y[0, 0]), (1 + 4) / (32 + 1 + 4)
        (0.1351, 0.1351)
    """
    C = _checks.as_matrix(covariance, "covariance", "(d, d)")
    if C.shape[0] != C.shape[1]:
        raise ValueError(f"Argument `covariance` must have shape (d, d), but has shape {C.shape}.")
    _checks.check_count(length, "length")
    moments = (1 + 1 / length) * C @ C + jnp.trace(C) * C / length
    return InContext(jnp.kron(moments, C), (C @ C).reshape(-1, 1), jnp.trace(C)[None, None])
