"""The equations of one implicit step under any loss of the product: impulses `Lam_i = -h G(Theta_i)` with G = dL/dTheta.

Given the impulses the stages are as linear in Z as they are under least squares. What is left, `-h G(Theta_i(Lam)) = Lam_i`, has
the Newton matrix `I + h A (x) H T`, where H is the Hessian of the loss in Theta and `T(R) = U U^T R + R V V^T`. H has the
structure of the loss (diagonal for a mask, `X^T diag X` for samples), H T has none: it is assembled, of size r m, from products
with H, and factored.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .stages import COMPLEX, REAL, Factors, Impulses, transformed_solve
from .steps import LossStep


def newton_matrix(step: LossStep) -> Float[Array, "d d"]:
    """H T, of size d = r m."""
    r, m = step.U.shape[0], step.V.shape[0]
    UU, VV = step.U @ step.U.T, step.V @ step.V.T
    _, apply = jax.linearize(step.loss.whole().loss_gradient, step.U @ step.V.T)
    columns = jax.vmap(lambda R: apply(UU @ R + R @ VV))(jnp.eye(r * m, dtype=UU.dtype).reshape(r * m, r, m))
    return columns.reshape(r * m, r * m).T


class LossImpulses(Impulses):
    """The step with the impulses (3, r, m) as unknowns, for k >= min(r, m), under any loss."""

    @staticmethod
    def factor(step: Any):
        N = newton_matrix(step)
        one = jnp.eye(N.shape[0], dtype=N.dtype)
        factors = []
        for eigenvalue in (REAL, COMPLEX):
            kind = N.dtype if eigenvalue is REAL else jax.lax.complex(N, N).dtype
            matrix = one.astype(kind) + step.tau.astype(kind) * N.astype(kind) / jnp.asarray(eigenvalue, kind)
            # Rows differ as the curvatures of the loss do.
            scale = jnp.max(jnp.abs(matrix), axis=1)
            scale = jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1)
            factors.append((Factors.of(matrix / scale[:, None]), scale))
        return tuple(factors)

    @staticmethod
    def _solve(factors, right: Array) -> Array:
        lu, scale = factors
        return lu.solve((right.ravel() / scale)[:, None]).reshape(right.shape)

    @staticmethod
    def newton(factors, residual: Array) -> Array:
        real, pair = factors
        return transformed_solve(
            lambda w: LossImpulses._solve(real, w), lambda w: LossImpulses._solve(pair, w), residual
        )

    @staticmethod
    def filter(factors, step: Any, bU: Array, bV: Array) -> tuple[Array, Array]:
        """`(I + tau K^T H K / real eigenvalue)^{-1} b` with `K b = b_U V^T + U b_V^T`."""
        solved = LossImpulses._solve(factors[0], step.seen(bU, bV))
        tau = step.tau / REAL
        return bU - tau * (solved @ step.V), bV - tau * (solved.T @ step.U)
