"""Derivatives of the Riccati solution with respect to A, exact at repeated eigenvalues, and the scalar functions in it.

The solution is written as a function of the diagonal and the off-diagonal part R of `Phi^T A Phi`, exact to second order in R,
with divided differences in place of 1/gap. Pairs with `t |a_i - a_j| > 1` rotate the eigenvectors instead, where dividing by the
gap costs nothing.
"""

from fractions import Fraction
from functools import partial
from math import factorial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._norms import total
from ._common import last_derivative, polynomial

_NO_THIRD = "The Riccati solution has exact first and second derivatives, but no third ones."


def nothing(*arguments: Array) -> Array:
    """Zero that depends on every argument.

    Under `vmap`, a custom derivative must not be batched over what its value is not batched over: JAX 0.12 mixes up the axes.
    """
    dtype = next(x.dtype for x in arguments if jnp.issubdtype(x.dtype, jnp.floating))
    return total(0 * jnp.sum(x.astype(dtype)) for x in arguments)


@jax.custom_jvp
def rotating(Phi: Array, A: Array, a: Array, far: Array) -> Array:
    """Phi, whose derivative keeps `Phi^T A Phi` diagonal between the pairs that are `far` apart.

    The result does not depend on this choice: what is not rotated away appears in R.
    """
    return Phi + nothing(A, a, far)


@rotating.defjvp
def _rotating_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]):
    Phi, A, a, far = primals
    value = rotating(Phi, A, a, far)
    # The derivative's own derivative follows the eigenvalues, whose values are the merged ones.
    moving = jnp.einsum("ji,jk,ki->i", value, A, value)
    moving = a + moving - jax.lax.stop_gradient(moving)
    gap = jnp.where(far, moving[None, :] - moving[:, None], 1)
    return value, value @ jnp.where(far, value.T @ tangents[1] @ value / gap, 0)


@jax.custom_jvp
def couplings(R: Array, x: Array, m: Array, r: Array, far: Array) -> tuple[Array, Array]:
    """What the off-diagonal part R of t A does, for the value R = 0 and derivatives to second order in R.

    With `c(x) = (e^x sinh(x)/x)^{1/2}`, `f(x) = (e^x x/sinh(x))^{1/2}` so that K = g t c^2 and e^{tA} = f c, returns M and O:
    `c(x + R) = diag(c(x)) (I + M)` and `e^{x + R} = (diag(e^x) + O diag(e^{m + r})) (I + M)`, up to a rotation from
    the left between K^{1/2} and e^{tA}. Near pairs take the symmetric root (divided differences of c and f), far pairs the
    triangular one, whose entries stay bounded.
    """
    zero = jnp.zeros_like(R) + nothing(R, x, m, r, far)
    return zero, zero


@couplings.defjvp
def _couplings_jvp(primals, tangents):
    R, x, m, r, far = primals
    dR, dx = tangents[:2]
    first = _first_differences(x[:, None], x[None, :], x, m, r, far)
    # Everything that multiplies a tangent is a function of the primals alone: reverse mode drops the rules of the rest.
    left, right, by_row, by_column = _curvature(R, x, m, r, far)
    second = jnp.einsum("filj,lj->fij", left, dR) + jnp.einsum("filj,il->fij", right, dR)
    M, O = first * dR + second + by_row * dx[:, None] + by_column * dx[None, :]
    return couplings(R, x, m, r, far), (M, O)


@jax.custom_jvp
def _curvature(R: Array, x: Array, m: Array, r: Array, far: Array) -> tuple[Array, Array, Array, Array]:
    """The coefficients of the derivative of `couplings` that are linear in R: zero, but their derivatives are not.

    Two with which dR is multiplied from the right and from the left, shape (2, p, p, p), and two with which dx is, shape
    (2, p, p); M comes first, then O.
    """
    p, zero = x.shape[0], nothing(R, x, m, r, far)
    cube, square = jnp.zeros((2, p, p, p), x.dtype) + zero, jnp.zeros((2, p, p), x.dtype) + zero
    return cube, cube, square, square


@_curvature.defjvp
def _curvature_jvp(primals, tangents):
    R, x, m, r, far = primals
    E, x = tangents[0], last_derivative(x + nothing(R), _NO_THIRD)
    second = _second_differences(x, m, r, far)
    rows, columns = (jnp.broadcast_to(v, R.shape) for v in (x[:, None], x[None, :]))
    by_row = jax.jvp(lambda v: _first_differences(v, columns, x, m, r, far), (rows,), (jnp.ones_like(R),))[1]
    by_column = jax.jvp(lambda v: _first_differences(rows, v, x, m, r, far), (columns,), (jnp.ones_like(R),))[1]
    return _curvature(R, x, m, r, far), (second * E[:, :, None], second * E[None, :, :], by_row * E, by_column * E)


def _first_differences(xi: Array, xj: Array, x: Array, m: Array, r: Array, far: Array) -> Float[Array, "2 p p"]:
    """`c[x_i, x_j] / c(x_i)` and `f[x_i, x_j] c(x_j) e^{-m_j - r_j}` for near pairs, their triangular forms for far ones.

    xi and xj are x along rows and columns, apart so that each can be differentiated alone.
    """
    nodes, weights = _gauss(8, x.dtype)
    log_ci, tail = _log_c(xi), log_kernel(xj, m[None, :]) / 2 - r[None, :]
    y = xi + nodes[:, None, None] * jnp.where(far, 0, xj - xi)
    slope = _log_sinhc(y, 1)
    near_M = jnp.tensordot(weights, (1 + slope) / 2 * jnp.exp(_log_c(y) - log_ci), 1)
    near_O = jnp.tensordot(weights, (1 - slope) / 2 * jnp.exp(_log_f(y) + tail), 1)
    gap = jnp.where(far, xi - xj, 1)
    above = gap > 0
    ratio = 2 * (_log_c(xj) - log_ci)
    far_M = jnp.where(above, -jnp.expm1(jnp.where(above, ratio, 0)), 0) / gap
    shift = (m + r)[None, :]
    first = jnp.where(above, xi + ratio - shift, xi - shift)
    far_O = (jnp.exp(jnp.where(far, first, 0)) - jnp.exp(xj - shift)) / gap
    return jnp.stack([jnp.where(far, far_M, near_M), jnp.where(far, far_O, near_O)])


def _second_differences(x: Array, m: Array, r: Array, far: Array) -> Float[Array, "2 p p p"]:
    """`c[x_i, x_l, x_j] / c(x_i)` and `f[x_i, x_l, x_j] c(x_j) e^{-m_j - r_j}`, zero unless i, l and l, j are near pairs.

    (Between far pairs R is rotated away.)
    """
    used = ~far[:, :, None] & ~far[None, :, :]
    log_ci, tail, xi = _log_c(x)[:, None, None], log_kernel(x, m) / 2 - r, x[:, None, None]
    to_l, to_j = jnp.where(used, x[None, :, None] - xi, 0), jnp.where(used, x[None, None, :] - xi, 0)
    nodes, weights = _gauss(8, x.dtype)
    # Hermite-Genocchi: the integral of the second derivative over a triangle.
    rho, theta = (grid.ravel() for grid in np.meshgrid(nodes, nodes, indexing="ij"))
    grid = np.stack([rho * (1 - theta), rho * theta, np.outer(weights * nodes, weights).ravel()], axis=1)

    def add(total, point):
        u, v, weight = point
        y = xi + u * to_l + v * to_j
        slope, curvature = _log_sinhc(y, 1), _log_sinhc(y, 2)
        second_c = (curvature / 2 + (1 + slope) ** 2 / 4) * jnp.exp(jnp.where(used, _log_c(y) - log_ci, 0))
        second_f = (-curvature / 2 + (1 - slope) ** 2 / 4) * jnp.exp(jnp.where(used, _log_f(y) + tail, 0))
        return total + weight * jnp.where(used, jnp.stack([second_c, second_f]), 0), None

    zero = jnp.zeros((2, *used.shape), x.dtype)
    return jax.lax.scan(add, zero, jnp.asarray(grid, x.dtype))[0]


def _gauss(count: int, dtype: jnp.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return ((nodes + 1) / 2).astype(dtype), (weights / 2).astype(dtype)


# -- the scalar functions ------------------------------------------------------------------------------------------------


def _bernoulli(count: int) -> list[Fraction]:
    """B_0 to B_{count - 1}."""
    numbers: list[Fraction] = []
    for n in range(count):
        total = sum(
            (Fraction(factorial(n + 1), factorial(j) * factorial(n + 1 - j)) * numbers[j] for j in range(n)),
            Fraction(0),
        )
        numbers.append(Fraction(1) if n == 0 else -total / (n + 1))
    return numbers


# log(sinh(x)/x) = sum_n 2^{2n} B_{2n} / (2n (2n)!) x^{2n}; odd terms vanish, and so do odd Bernoulli numbers from B_3 on.
_SERIES = [0.0, 0.0] + [float(2**n * b / (n * factorial(n))) for n, b in enumerate(_bernoulli(25)) if n > 1]


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _log_sinhc(x: Array, order: int = 0) -> Array:
    """`log(sinh(x)/x)` or its first, second or third derivative; each is the derivative of the one before."""
    small = jnp.abs(x) < 0.5
    near, away = jnp.where(small, x, 0), jnp.where(small, 1, x)
    size = jnp.abs(away)
    decay = jnp.exp(-2 * size)
    if order == 0:
        value = size + jnp.log1p(-decay) - jnp.log(2 * size)
    elif order == 1:
        value = jnp.sign(away) * (1 + decay) / (1 - decay) - 1 / away
    elif order == 2:
        value = 1 / away**2 - 4 * decay / (1 - decay) ** 2
    else:
        value = jnp.sign(away) * (8 * decay * (1 + decay) / (1 - decay) ** 3 - 2 / size**3)
    # Even or odd: a polynomial in x^2, times x where it is odd.
    coefficients = np.polynomial.Polynomial(_SERIES).deriv(order).coef.tolist()
    series = polynomial(coefficients[order % 2 :: 2], near**2)
    return jnp.where(small, series * near if order % 2 else series, value)


@_log_sinhc.defjvp
def _log_sinhc_jvp(order, primals, tangents):
    if order == 3:
        raise NotImplementedError(_NO_THIRD)
    return _log_sinhc(primals[0], order), _log_sinhc(primals[0], order + 1) * tangents[0]


def log_kernel(x: Array, m: Array) -> Array:
    """`log phi1(2x) - 2m` with `phi1(2x) = e^x sinh(x)/x` and m equal to max(x, 0): never a difference of large numbers."""
    small = jnp.abs(x) < 0.5
    away = jnp.where(small, 1, x)
    size = jnp.abs(away)
    value = jnp.log1p(-jnp.exp(-2 * size)) - jnp.log(2 * size) + (away + size - 2 * m)
    near = jnp.where(small, x, 0)
    series: Array = _log_sinhc(near)
    return jnp.where(small, near + series - 2 * m, value)


def _log_c(x: Array) -> Array:
    return (x + _log_sinhc(x)) / 2


def _log_f(x: Array) -> Array:
    small = jnp.abs(x) < 0.5
    away = jnp.where(small, 1, x)
    size = jnp.abs(away)
    value = (away - size) - jnp.log1p(-jnp.exp(-2 * size)) + jnp.log(2 * size)
    near = jnp.where(small, x, 0)
    series: Array = _log_sinhc(near)
    return jnp.where(small, near - series, value) / 2
