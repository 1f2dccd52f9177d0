"""The explicit structure-preserving solver: every step is a product of elements of O(r, m), so the imbalance cannot move.

With `Z = [U1; V]` every two-layer flow without penalty is `Z' = A(B) Z`, `A(B) = [[0, B], [B^T, 0]]`, where -B is the gradient
with respect to `U1 V^T`. A(B) lies in the Lie algebra of O(r, m), the matrices that keep `J = diag(I, -I)`. A step `Z1 = Q Z0`
with Q in that group keeps `D = Z^T J Z`, whatever it errs otherwise.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .radau import StateInterpolation, norm, weights_of, with_weights

# Largest Frobenius norm of an exponent: the power series are exact to round-off up to there.
_FARTHEST = 2**0.5


def group_reach(rtol: Float[Array, ""]) -> Float[Array, ""]:
    """The largest `h sigma_1(B)`, at most 1, at which a mode that begins to be seen is followed to `rtol`.

    While E does not move yet a step is exact, whatever its length. Then E falls like the square w of a weight, as `exp(2 z)` over
    a step, which Simpson's rule integrates to `w (2 z)^5/2880`; the error estimate notices it from `w^2 = rtol` on.
    """
    return jnp.minimum((2880 * rtol**0.5) ** 0.2 / 2, 1)


class HermiteInterpolation(StateInterpolation):
    """The cubic through both ends of a step with their velocities: of order 3 between steps, where it does not keep D."""

    t0: Float[Array, ""]
    t1: Float[Array, ""]
    y0: eqx.Module
    y1: eqx.Module
    B0: Float[Array, "r m"]
    B1: Float[Array, "r m"]

    def _state(self, t):
        length = self.t1 - self.t0
        x = self._part(t)

        def between(a, b, slope_a, slope_b):
            outer = a + x * x * (3 - 2 * x) * (b - a)
            return (outer + length * x * (1 - x) * ((1 - x) * slope_a - x * slope_b)).astype(a.dtype)

        (U0, V0), (U1, V1) = weights_of(self.y0), weights_of(self.y1)
        with jax.default_matmul_precision("highest"):
            U = between(U0, U1, self.B0 @ V0, self.B1 @ V1)
            V = between(V0, V1, self.B0.T @ U0, self.B1.T @ U1)
        return with_weights(self.y0, U, V)


class LieRK4(diffrax.AbstractAdaptiveSolver):
    r"""Commutator-free Lie group method of order 4: the imbalance to round-off at any tolerance.

    A diffrax solver for the flow of a `TwoLayer` on a restricted problem, or of a reduced one, without penalty, with or without a
    link function; `gradient_flow(..., solver="lie")` is the usual way in. The state is the network's moving weights, `args` a
    tuple that begins with the problem. Use with `NormController(tolerance)`.

    **Notes:** explicit, so its steps shrink with the condition number of `X^T X` as those of every explicit solver do. A step
    takes four gradients of size r x m and five exponentials of rank min(r, m), by products alone: its cost falls with m, while
    that of an ordinary Runge-Kutta method does not, whose sums of stages are of size (r + m) k. The error estimate is of order 3.
    Steps too long for the exponentials have an infinite error estimate.

    Measured against Tsit5 on one core at tolerances 1e-4 to 1e-8: 2.1 to 1.6 times faster for r = 100, m = 1, slower for m = 5
    and m = 10 (`benchmarks/test_lie.py`).

    **Source:** the method of order 4 of Celledoni, Marthinsen and Owren, Commutator-free Lie group methods (2003); the error
    estimate is this package's.
    """

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable] = HermiteInterpolation

    def order(self, terms) -> int:
        return 4

    def error_order(self, terms) -> int:
        return 4

    def func(self, terms, t0, y0, args):
        return terms.vf(t0, y0, args)

    def init(self, terms, t0, t1, y0, args) -> Float[Array, "r m"]:
        with jax.default_matmul_precision("highest"):
            return _generator(args[0], *weights_of(y0))

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        del terms, made_jump
        k1: Array = solver_state
        U, V = weights_of(y0)
        h = jnp.asarray(t1 - t0).astype(U.dtype)
        with jax.default_matmul_precision("highest"):
            U2, V2 = rotate(h / 2 * k1, U, V)
            k2 = _generator(args[0], U2, V2)
            k3 = _generator(args[0], *rotate(h / 2 * k2, U, V))
            k4 = _generator(args[0], *rotate(h * (k3 - k1 / 2), U2, V2))
            middle = h / 6 * (k2 + k3)
            half = rotate(middle + h / 12 * (3 * k1 - k4), U, V)
            U1, V1 = rotate(middle + h / 12 * (3 * k4 - k1), *half)
            k5 = _generator(args[0], U1, V1)
            # The last slope in place of the fourth one: what a method of order 3 would have made of the same stages.
            B = h / 6 * (k4 - k5)
            error = B @ V1, B.T @ U1
        longest = h * jnp.max(jnp.stack([norm(k) for k in (k1, k2, k3, k4)]))
        failed = ~jnp.isfinite(norm(U1, V1)) | ~(longest < _FARTHEST)
        y1 = with_weights(y0, jnp.where(failed, U, U1), jnp.where(failed, V, V1))
        y_error = with_weights(y0, *(jnp.where(failed, jnp.inf, part) for part in error))
        k5 = jnp.where(failed, k1, k5)
        return y1, y_error, {"y0": y0, "y1": y1, "B0": k1, "B1": k5}, k5, diffrax.RESULTS.successful


def _generator(problem, U: Array, V: Array) -> Array:
    return -problem.reduced_loss_gradient(U @ V.T)


def rotate(
    B: Float[Array, "r m"], U: Float[Array, "r k"], V: Float[Array, "m k"]
) -> tuple[Float[Array, "r k"], Float[Array, "m k"]]:
    """`exp(A(B)) [U; V]`, `A(B) = [[0, B], [B^T, 0]]`, to round-off, by products alone.

    With `G = B^T B` it is `[U + B P; V + G d V + s W]`, `W = B^T U`, `P = s V + d W`, `s = sinh(sqrt G)/sqrt G`,
    `d = (cosh(sqrt G) - 1)/G`: power series in G of size min(r, m), to the ninth power, which is enough for `||G|| <= 2`. A
    longer B is shortened, so that steps which are thrown away leave nothing infinite behind.
    """
    if B.shape[0] < B.shape[1]:
        V, U = rotate(B.T, V, U)
        return U, V
    # For the derivative a constant: at B = 0 the norm has none.
    length = norm(jax.lax.stop_gradient(B))
    B = jnp.where(length < _FARTHEST, B, _FARTHEST / jnp.where(length < _FARTHEST, 1, length) * B)
    G = B.T @ B
    s, d = _series(G)
    W = B.T @ U
    P = d @ W + s @ V
    return U + B @ P, V + G @ (d @ V) + s @ W


def _series(G: Array) -> Array:
    """`sum_j G^j / (2 j + 1)!` and `sum_j G^j / (2 j + 2)!` for j to 9, by Horner's rule in G^2."""
    coefficients = np.array([[1 / math.factorial(2 * j + i) for j in range(10)] for i in (1, 2)])
    coefficients = jnp.asarray(coefficients, G.dtype)[:, :, None, None]
    one = jnp.eye(G.shape[0], dtype=G.dtype)
    square = G @ G
    pair = coefficients[:, 8] * one + coefficients[:, 9] * G
    for j in (6, 4, 2, 0):
        pair = pair @ square + coefficients[:, j] * one + coefficients[:, j + 1] * G
    return pair
