"""The product of homogeneous imbalance at many times, for starts whose rows are independent: one small solve a time.

`exact.homogeneous` serves starts of any rank. A fit evaluates the same solution a hundred times for one start, which pays for
a shorter way: in the eigenbasis of `A = [[lambda0/2 I, Y], [Y^T, -lambda0/2 I]]`, which for each singular value of Y is a
rotation by a known angle, `P(t) = e^{tA} (P(0)^{-1} + K)^{-1} e^{tA}` with `K = (e^{2tA} - I)/(2A)`.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float

from .._derivatives import last_derivative
from .._linalg import round_off, row_factor
from ..exact import homogeneous_product

# Below this ratio of pivots the inverse of P(0) costs more than half of the digits.
INDEPENDENT = 1e-4
_NO_TARGET = "The short way has no derivative in the target of its own: `short_product` has that of the closed form."


class ClosedForm(eqx.Module):
    """A target and a start, prepared for evaluation at many lambda0.

    **Fields:** `s`, the singular values of Y, shape (q,), q = min(n, m); `left`, `right`, its full bases, shapes (n, n) and
    (m, m); `inverse`, `P(0)^{-1}` in these bases, the rows ordered as q of U, q of V, and the |n - m| that are left.
    """

    s: Float[Array, " q"]
    left: Float[Array, "n n"]
    right: Float[Array, "m m"]
    inverse: Float[Array, "p p"]

    def rotate(self, Theta: Float[Array, "T n m"]) -> Float[Array, "T n m"]:
        """A path of products in the bases of the target."""
        return self.left.T @ Theta @ self.right

    def rotate_back(self, Theta: Float[Array, "T n m"]) -> Float[Array, "T n m"]:
        """A path of products from the bases of the target to those that it was given in."""
        return self.left @ Theta @ self.right.T

    def product(self, lambda0: Float[Array, ""], ts: Float[Array, " T"]) -> Float[Array, "T n m"]:
        r"""`rotate(Theta(t))` of `exact.homogeneous_product`.

        With `D = e^{-max(tA, 0)}` the matrix `D (P(0)^{-1} + K) D` is bounded and as well conditioned as P(0) at any time;
        `P = D e^{tA} (.)^{-1} e^{tA} D`, where `D e^{tA} = e^{min(tA, 0)}` and `D K D = t phi1(-2 t |A|)`.
        """
        n, m, q = self.left.shape[0], self.right.shape[0], self.s.shape[0]
        a, turn = _eigenbasis(self.s, lambda0, n, m)
        inverse = turn.T @ self.inverse @ turn
        x = ts[:, None] * a
        # |x| as a difference: each half of it has the derivative 1/2 at zero, so that the parts stay consistent there.
        growth, fall = jnp.maximum(x, 0), jnp.minimum(x, 0)
        shrink, decay = jnp.exp(-growth), jnp.exp(fall)
        kernel = ts[:, None] * _phi1(2 * (fall - growth))
        middle = shrink[:, :, None] * inverse * shrink[:, None, :] + jnp.eye(n + m, dtype=a.dtype) * kernel[:, :, None]
        u, v = _rows(turn, n, m, q)
        few, many = (u, v) if n <= m else (v, u)
        factor = jax.lax.stop_gradient(jnp.linalg.cholesky(jax.lax.stop_gradient(middle)))
        solved = _solve(middle, decay[:, :, None] * few.T, factor)
        block = jnp.einsum("tpk,tp,jp->tkj", solved, decay, many)
        return block if n <= m else jnp.swapaxes(block, 1, 2)


def prepare(
    Y: Float[Array, "n m"], U0: Float[Array, "n h"], V0: Float[Array, "m h"]
) -> tuple[ClosedForm, Bool[Array, ""]]:
    """The closed form of a target and a start with h >= n + m, and whether the start's rows are independent enough."""
    n, m = Y.shape
    q = min(n, m)
    Y = last_derivative(Y, _NO_TARGET)
    left, s, rightT = jnp.linalg.svd(Y, full_matrices=True)
    # Round-off in place of a zero would turn the eigenvectors at once as lambda0 passes zero.
    s = jnp.where(s <= round_off(Y) * s[0], 0, s)
    U, V = left.T @ U0, rightT @ V0
    L: Array = row_factor(jnp.concatenate([U[:q], V[:q], U[q:], V[q:]]))[0]
    pivots = jnp.abs(jnp.diagonal(L))
    independent = jnp.min(pivots) > INDEPENDENT * jnp.max(pivots)
    safe = jnp.where(independent, L, jnp.eye(n + m, dtype=L.dtype))
    root = jax.scipy.linalg.solve_triangular(safe, jnp.eye(n + m, dtype=L.dtype), lower=True)
    return ClosedForm(s, left, rightT.T, root.T @ root), independent


def _short(Y: Array, U0: Array, V0: Array, lambda0: Array, ts: Array) -> Float[Array, "T n m"]:
    closed, independent = prepare(Y, U0, V0)
    return jnp.where(independent, closed.rotate_back(closed.product(lambda0, ts)), jnp.nan)


@jax.custom_jvp
def short_product(
    Y: Float[Array, "n m"], U0: Float[Array, "n h"], V0: Float[Array, "m h"], lambda0: Float[Array, ""], ts: Array
) -> Float[Array, "T n m"]:
    """`exact.homogeneous_product` by the short way, NaN for a start whose rows are not independent enough.

    Its derivative in lambda0 alone is that of the short way; those in all else are those of the general one.
    """
    return _short(Y, U0, V0, lambda0, ts)


@jax.custom_jvp
def _slope(Y: Array, U0: Array, V0: Array, lambda0: Array, ts: Array) -> Float[Array, "T n m"]:
    return jax.jvp(lambda l: _short(Y, U0, V0, l, ts), (lambda0,), (jnp.ones_like(lambda0),))[1]


@partial(short_product.defjvp, symbolic_zeros=True)
def _short_product_jvp(primals, tangents):
    value = short_product(*primals)
    fixed = [isinstance(tangent, SymbolicZero) for tangent in tangents]
    if all(fixed[:3]) and fixed[4]:
        return value, _slope(*primals) * tangents[3]
    tangents = tuple(jnp.zeros_like(x) if still else dx for x, dx, still in zip(primals, tangents, fixed, strict=True))
    return value, jax.jvp(homogeneous_product, primals, tangents)[1]


@_slope.defjvp
def _slope_jvp(primals, tangents):
    def slope(Y, U0, V0, lambda0, ts):
        return jax.jvp(lambda l: homogeneous_product(Y, U0, V0, l, ts), (lambda0,), (jnp.ones_like(lambda0),))[1]

    return _slope(*primals), jax.jvp(slope, primals, tangents)[1]


def _eigenbasis(s: Array, lambda0: Array, n: int, m: int) -> tuple[Float[Array, " p"], Float[Array, "p p"]]:
    """Eigenvalues of A, and its eigenvectors as columns: those of `+mu_i/2`, those of `-mu_i/2`, then the rest."""
    rest = abs(n - m)
    square = lambda0**2 + 4 * s**2
    zero = square == 0
    # Where s_i = lambda0 = 0 the continuation from lambda0 > 0: the vector of U first, at lambda0/2.
    mu = jnp.where(zero, lambda0, jnp.sqrt(jnp.where(zero, 1, square)))
    angle = jnp.arctan2(2 * s, jnp.where(zero, 1, lambda0)) / 2
    cos, sin = jnp.diag(jnp.cos(angle)), jnp.diag(jnp.sin(angle))
    turn = jax.scipy.linalg.block_diag(jnp.block([[cos, -sin], [sin, cos]]), jnp.eye(rest, dtype=s.dtype))
    flat = jnp.full(rest, jnp.sign(n - m) * lambda0 / 2, s.dtype)
    return jnp.concatenate([mu / 2, -mu / 2, flat]), turn


def _rows(turn: Array, n: int, m: int, q: int) -> tuple[Array, Array]:
    u, v, rest = turn[:q], turn[q : 2 * q], turn[2 * q :]
    return (jnp.concatenate([u, rest]), v) if n > m else (u, jnp.concatenate([v, rest]))


def _phi1(x: Array) -> Array:
    small = jnp.abs(x) < 1e-5
    away = jnp.where(small, 1, x)
    near = jnp.where(small, x, 0)
    return jnp.where(small, 1 + near / 2 + near**2 / 6, jnp.expm1(away) / away)


@jax.custom_jvp
def _solve(middle: Array, right: Array, factor: Array) -> Array:
    """`middle^{-1} right` by the Cholesky factor at hand, which serves the derivative again."""
    half = jax.scipy.linalg.solve_triangular(factor, right, lower=True)
    return jax.scipy.linalg.solve_triangular(factor, half, lower=True, trans=1)


@_solve.defjvp
def _solve_jvp(primals, tangents):
    middle, right, factor = primals
    value = _solve(middle, right, factor)
    return value, _solve(middle, tangents[1] - tangents[0] @ value, factor)
