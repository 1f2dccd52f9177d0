"""The matrix Riccati flow without constant term, `P' = A P + P A - g P^2`, at any time and for any symmetric A.

Every matrix solution of this package is this one in disguise: tied layers (A = 2Y, g = 4) and layers of homogeneous
imbalance (A = [[lambda0/2 I, Y], [Y^T, -lambda0/2 I]], g = 1). In the eigenbasis of A the solution reads

    P(t) = E B (I + B^T K B)^{-1} B^T E,    E = e^{t A},    K = g (e^{2 t A} - I)/(2 A),

and is bounded although E and K are not. Three ideas keep it so.

*Scales as logarithms.* Only the column space of [I; K^{1/2} B] matters. Its rows have sizes from 1 to e^{t a_i}; we choose
the rows that dominate (complete pivoting on log-sizes), make them the identity, and every other row is then of order one.

*Right scalings are free.* They cancel from P, so they are constants for the derivative, and what is differentiated is
smooth even at t = 0.

*No eigenvector needs to be differentiated across a small gap.* The solution is written as a function of the diagonal and
the off-diagonal part R of `Phi^T A Phi`, exact to second order in R, with divided differences in place of 1/gap. Pairs with
`t |a_i - a_j| > 1` rotate the eigenvectors instead, where dividing by the gap costs nothing. First and second derivatives
are therefore finite and exact at repeated and zero eigenvalues.
"""

from fractions import Fraction
from functools import partial
from math import factorial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .. import _checks
from .._linalg import round_off
from .._norms import total
from .._public import public
from ._common import check_not_negative, last_derivative, polynomial
from ._start import inherited, start_factor

_NO_THIRD = "The Riccati solution has exact first and second derivatives, but no third ones."


@public
def riccati(
    A: Real[ArrayLike, "p p"],
    g: Real[ArrayLike, ""],
    U0: Real[ArrayLike, "p h"],
    t: Real[ArrayLike, ""],
) -> Float[Array, "p k"]:
    r"""Factor of the solution of a matrix Riccati flow at one time.

    `P' = A P + P A - g P^2`, `P(0) = U0 U0^T`, solved by
    `P(t) = e^{tA} U0 (I + U0^T K U0)^{-1} U0^T e^{tA}` with `K = g (e^{2tA} - I)/(2A)`; returned is L with P = L L^T.

    **Args:**

    - `A`: shape (p, p), symmetric, of any sign; may be singular and have repeated eigenvalues.
    - `g`: a positive number.
    - `U0`: factor of the start, shape (p, h), any rank and width. What the round-off of its entries, or of their products
        with eigenvectors, leaves undecided between nothing and something is nothing: it would grow as a start does.
    - `t`: time, at least 0.

    **Returns:** L of shape (p, k), k = min(p, h). Only `L L^T` has a meaning; L is fixed up to a rotation of its columns.

    **Raises:** `ValueError` for wrong shapes (of t and g as well: `jax.vmap` is for many of them), an A that is not symmetric,
    g <= 0 or t < 0 (where these are known before tracing).

    **Notes:** relative error of P about 1e-15 times p in float64 and 1e-6 in float32 for any t, growing as `eps t ||A||`
    where all of P decays. Eigenvalues of A that agree to round-off are taken as equal. First and second derivatives with
    respect to A, U0, g and t are exact in forward and reverse mode, also at repeated and zero eigenvalues, to `eps t ||A||`
    and `eps (t ||A||)^2` relative; third ones are refused. Second ones in U0 with h > p need rows that are linearly
    independent. Directions in which P depends on the start by a factor beyond about 1e90 report a saturated, finite
    derivative. Only the symmetric part of A is seen by the derivative. Entries of `Phi^T U0` below 1e-61 (float32: 2e-13) of
    the largest count as zero. A derivative of A takes memory of order p^3.

    **Source:** T21 Proposition 1 and its proof (appendix A of the earlier version), with K defined for singular A as well.
    """
    A, U0 = check_riccati(A, g, U0)
    g, t = jnp.asarray(g, A.dtype), _checks.as_float(t, "t").astype(A.dtype)
    _check_number(t, "t")
    _checks.check_finite(t, "t")
    check_not_negative(t=t)
    return riccati_factors(A, g, U0, t[None])[0]


def check_riccati(A: ArrayLike, g: ArrayLike, U0: ArrayLike) -> tuple[Array, Array]:
    """A and U0 as arrays of one dtype, once the static mistakes are excluded."""
    A, U0 = check_symmetric(A, "A"), _checks.as_matrix(U0, "U0", "(p, h)")
    if A.shape[0] != U0.shape[0]:
        raise ValueError(
            f"Arguments `A` (p, p) and `U0` (p, h) must have the same number of rows, but have {A.shape[0]} and "
            f"{U0.shape[0]}."
        )
    _checks.check_finite(U0, "U0")
    _check_number(g, "g")
    _checks.check_positive(g, "g")
    dtype = jnp.result_type(A, U0)
    return A.astype(dtype), U0.astype(dtype)


def _check_number(value: ArrayLike, name: str) -> None:
    shape = jnp.shape(value)
    if shape != ():
        raise ValueError(
            f"Argument `{name}` must be a number, but has shape {shape}: use jax.vmap for several at once."
        )


def check_symmetric(A: ArrayLike, name: str) -> Array:
    """A square matrix, symmetric to round-off if its values are known, made symmetric to the last bit."""
    A = _checks.as_matrix(A, name, "(p, p)")
    if A.shape[0] != A.shape[1]:
        raise ValueError(f"Argument `{name}` must be square, but has shape {A.shape}.")
    if not _checks.is_traced(A):
        _checks.check_finite(A, name)
        values = np.asarray(A)
        gap = np.max(np.abs(values - values.T))
        if gap > 100 * float(jnp.finfo(A.dtype).eps) * np.max(np.abs(values)):
            raise ValueError(
                f"Argument `{name}` must be symmetric, but differs from its transpose by {gap:.1e}: "
                f"pass ({name} + {name}.T) / 2 if that is what you mean."
            )
    return (A + A.T) / 2


def merge_eigenvalues(a: Float[Array, " p"]) -> Float[Array, " p"]:
    """Ascending eigenvalues with those equal to round-off made equal, and those zero to round-off made zero.

    A split of 1e-16 between equal eigenvalues would grow to a spurious factor e^{t 1e-16} between their directions.
    """
    cutoff = 8 * a.shape[0] ** 0.5 * jnp.finfo(a.dtype).eps * jnp.max(jnp.abs(a))
    group = jnp.cumsum(jnp.concatenate([jnp.zeros(1, a.dtype), (jnp.diff(a) > cutoff).astype(a.dtype)]))
    same = (group[:, None] == group[None, :]).astype(a.dtype)
    # The least entry plus a mean difference: a group of one keeps its value to the last bit.
    least = jnp.min(jnp.where(same > 0, a[None, :], jnp.inf), axis=1)
    mean = least + jnp.sum(same * (a[None, :] - least[:, None]), axis=1) / jnp.sum(same, axis=1)
    return jnp.where(jnp.abs(mean) <= cutoff, 0, mean)


@jax.jit
def riccati_factors(
    A: Float[Array, "p p"], g: Float[Array, ""], U0: Float[Array, "p h"], ts: Float[Array, " T"]
) -> Float[Array, "T p k"]:
    """`riccati` at many times, of checked arguments; what does not depend on time is computed once."""
    U0, _ = start_factor(U0)
    a, Phi = jax.lax.stop_gradient(jnp.linalg.eigh(jax.lax.stop_gradient(A)))
    a = merge_eigenvalues(a)
    return jax.vmap(_factor, in_axes=(None,) * 5 + (0,))(A, a, Phi, g, U0, ts)


def _factor(A: Array, a: Array, Phi: Array, g: Array, U0: Array, t: Array) -> Float[Array, "p k"]:
    constant = jax.lax.stop_gradient
    far = jnp.abs(constant(t) * (a[:, None] - a[None, :])) > 1
    Phi = _rotating(Phi, A, a, far)
    rotated = Phi.T @ A @ Phi
    # x and R: value a t and 0, derivative that of t times the diagonal and the off-diagonal part of Phi^T A Phi.
    R = t * jnp.where(jnp.eye(a.shape[0], dtype=bool), 0, rotated - constant(rotated))
    x = t * (a + jnp.diagonal(rotated - constant(rotated)))
    B, scale = in_eigenbasis(Phi, U0)
    B = _without_specks(B)
    k = B.shape[1]

    # log K = 2 (m + r): m holds what grows with time, so that the exponents below are differences of small numbers.
    m = constant(jnp.maximum(x, 0))
    log_kernel = _log_kernel(x, m)
    least = -30 - jnp.log1p(jnp.max(jnp.abs(constant(B))))
    safe_t = jnp.where(constant(t) > 0, constant(t), 1)
    r = (jnp.log(constant(g) * safe_t) + constant(log_kernel)) / 2
    r = jnp.where(constant(t) > 0, jnp.maximum(r, least), least)

    M, offdiagonal = _couplings(R, x, m, r, far)
    basis, pivots = _eliminate(constant(B), scale, m, r)
    G = _basis(B + M @ B, basis, pivots)

    zero = jnp.zeros(k, a.dtype)
    rows_m, rows_r = jnp.concatenate([zero, m]), jnp.concatenate([zero, r])
    shift = (rows_m[:, None] - pivots @ rows_m) + (rows_r[:, None] - pivots @ rows_r)
    scaled = _scale(G, shift)
    top, low = scaled[:k], scaled[k:]
    ratio = t * g * jnp.exp(log_kernel - 2 * r)
    gram = top.T @ top + low.T @ (ratio[:, None] * low)
    unnormalised = jnp.exp(x - m - r)[:, None] * low + offdiagonal @ low
    C = jnp.linalg.cholesky(gram)
    return Phi @ jax.scipy.linalg.solve_triangular(C, unnormalised.T, lower=True).T


def in_eigenbasis(Phi: Array, Z: Array) -> tuple[Float[Array, "p k"], Float[Array, "p k"]]:
    """`Phi^T Z`, with entries that are round-off made zero and their derivative kept, and the size of what was summed up."""
    constant = jax.lax.stop_gradient
    B, scale = Phi.T @ Z, jnp.abs(constant(Phi)).T @ jnp.abs(constant(Z))
    return jnp.where(jnp.abs(constant(B)) <= round_off(B) * scale, B - constant(B), B), scale


def _without_specks(B: Array) -> Array:
    """B with entries far below round-off (1e-61 times the largest; 2e-13 in float32) made zero, with their derivative kept.

    Directions in which a start is 1e-200 and which grow by e^{1e6} would overflow on the way to a finite result: elimination
    multiplies a few such ratios.
    """
    size, finfo = jnp.abs(jax.lax.stop_gradient(B)), jnp.finfo(B.dtype)
    least = float(finfo.tiny) ** (0.2 if finfo.bits == 64 else 1 / 3)
    speck = size < least * jnp.maximum(jnp.max(size), float(finfo.tiny) ** 0.6)
    return jnp.where(speck, B - jax.lax.stop_gradient(B), B)


# -- the dominant rows ---------------------------------------------------------------------------------------------------


def _eliminate(B: Array, scale: Array, m: Array, r: Array) -> tuple[Float[Array, "q k"], Float[Array, "k q"]]:
    """`G = [I; B] [I; B]_J^{-1}` and the selection J of the k rows that dominate after row i is scaled by e^{m_i + r_i}.

    Gauss-Jordan elimination of columns with complete pivoting on the scaled entries; q = k + p. Entries below 8 eps of the
    largest number that they come from, which is carried along as in `start_factor`, are round-off and would grow: zero.
    """
    p, k = B.shape
    q = k + p
    zero = jnp.zeros(k, B.dtype)
    log_scale = jnp.concatenate([zero, m]) + jnp.concatenate([zero, r])
    rows, columns = jnp.arange(q), jnp.arange(k)
    eps, most = jnp.finfo(B.dtype).eps, float(jnp.finfo(B.dtype).max) ** 0.3

    def step(_: Array, carry: tuple[Array, ...]) -> tuple[Array, ...]:
        G, largest, pivots, free_row, free_column = carry
        size = jnp.abs(G)
        score = jnp.where(size > 0, log_scale[:, None] + jnp.log(jnp.where(size > 0, size, 1)), -jnp.inf)
        score = jnp.where(free_row[:, None] & free_column[None, :], score, -jnp.inf)
        best = jnp.argmax(score)
        i, j = best // k, best % k
        at_i, at_j = rows == i, columns == j
        column = G[:, j] / G[i, j]
        others = jnp.where(at_j, 0, G[i])
        largest = inherited(largest, column, others, G[i, j], i, j) / jnp.where(at_j, jnp.abs(G[i, j]), 1)
        largest = jnp.where(at_i[:, None], at_j.astype(G.dtype), jnp.minimum(largest, most))
        G = jnp.where(at_j, column[:, None], G - column[:, None] * others)
        G = jnp.where((jnp.abs(G) <= 8 * eps * largest) & (largest < most), 0, G)
        G = jnp.where(at_i[:, None], at_j.astype(G.dtype), G)
        pivots = jnp.where(at_j[:, None], at_i.astype(G.dtype), pivots)
        return G, largest, pivots, free_row & ~at_i, free_column & ~at_j

    start = (
        jnp.concatenate([jnp.eye(k, dtype=B.dtype), B]),
        jnp.concatenate([jnp.eye(k, dtype=B.dtype), scale]),
        jnp.zeros((k, q), B.dtype),
        jnp.ones(q, bool),
        jnp.ones(k, bool),
    )
    G, _, pivots, _, _ = jax.lax.fori_loop(0, k, step, start)
    return G, pivots


@jax.custom_jvp
def _basis(B: Array, G: Array, pivots: Array) -> Array:
    """G as a function of B; its first k rows are [I; B]_J^{-1}, so the derivative needs nothing but G itself."""
    return G + _nothing(B, pivots)


@_basis.defjvp
def _basis_jvp(primals, tangents):
    B, G, pivots = primals
    k = B.shape[1]
    value = _basis(B, G, pivots)
    dN = jnp.concatenate([jnp.zeros((k, k), B.dtype), tangents[0]])
    # The pivot rows are the identity and stay it. Forward mode finds the zero by cancellation; what reverse mode brings there
    # is scaled by up to e^{t (a_j - a_i)}, and must not be left to cancel.
    moving = 1 - jnp.sum(pivots, axis=0)[:, None]
    return value, (moving * (dN - value @ (pivots @ dN))) @ value[:k]


@jax.custom_jvp
def _scale(G: Array, shift: Array) -> Array:
    """`G e^shift`, bounded by the choice of the pivots, in two halves because e^shift alone may overflow."""
    half = jnp.exp(jnp.minimum(shift / 2, 0.99 * np.log(jnp.finfo(G.dtype).max)))
    return (G * half) * half


@_scale.defjvp
def _scale_jvp(primals, tangents):
    G, shift = primals
    # A start that misses a growing direction depends on it by e^shift: saturate instead of overflowing into NaN.
    most = 0.3 * np.log(jnp.finfo(G.dtype).max)
    return _scale(G, shift), tangents[0] * jnp.exp(jnp.minimum(shift, most))


def _nothing(*arguments: Array) -> Array:
    """Zero that depends on every argument.

    Under `vmap`, a custom derivative must not be batched over what its value is not batched over: JAX 0.12 mixes up the axes.
    """
    dtype = next(x.dtype for x in arguments if jnp.issubdtype(x.dtype, jnp.floating))
    return total(0 * jnp.sum(x.astype(dtype)) for x in arguments)


# -- derivatives with respect to A ---------------------------------------------------------------------------------------


@jax.custom_jvp
def _rotating(Phi: Array, A: Array, a: Array, far: Array) -> Array:
    """Phi, whose derivative keeps `Phi^T A Phi` diagonal between the pairs that are `far` apart.

    The result does not depend on this choice: what is not rotated away appears in R.
    """
    return Phi + _nothing(A, a, far)


@_rotating.defjvp
def _rotating_jvp(primals: tuple[Array, ...], tangents: tuple[Array, ...]):
    Phi, A, a, far = primals
    value = _rotating(Phi, A, a, far)
    # The derivative's own derivative follows the eigenvalues, whose values are the merged ones.
    moving = jnp.einsum("ji,jk,ki->i", value, A, value)
    moving = a + moving - jax.lax.stop_gradient(moving)
    gap = jnp.where(far, moving[None, :] - moving[:, None], 1)
    return value, value @ jnp.where(far, value.T @ tangents[1] @ value / gap, 0)


@jax.custom_jvp
def _couplings(R: Array, x: Array, m: Array, r: Array, far: Array) -> tuple[Array, Array]:
    """What the off-diagonal part R of t A does, for the value R = 0 and derivatives to second order in R.

    With `c(x) = (e^x sinh(x)/x)^{1/2}`, `f(x) = (e^x x/sinh(x))^{1/2}` so that K = g t c^2 and e^{tA} = f c, returns M and O:
    `c(x + R) = diag(c(x)) (I + M)` and `e^{x + R} = (diag(e^x) + O diag(e^{m + r})) (I + M)`, up to a rotation from
    the left between K^{1/2} and e^{tA}. Near pairs take the symmetric root (divided differences of c and f), far pairs the
    triangular one, whose entries stay bounded.
    """
    zero = jnp.zeros_like(R) + _nothing(R, x, m, r, far)
    return zero, zero


@_couplings.defjvp
def _couplings_jvp(primals, tangents):
    R, x, m, r, far = primals
    dR, dx = tangents[:2]
    first = _first_differences(x[:, None], x[None, :], x, m, r, far)
    # Everything that multiplies a tangent is a function of the primals alone: reverse mode drops the rules of the rest.
    left, right, by_row, by_column = _curvature(R, x, m, r, far)
    second = jnp.einsum("filj,lj->fij", left, dR) + jnp.einsum("filj,il->fij", right, dR)
    M, O = first * dR + second + by_row * dx[:, None] + by_column * dx[None, :]
    return _couplings(R, x, m, r, far), (M, O)


@jax.custom_jvp
def _curvature(R: Array, x: Array, m: Array, r: Array, far: Array) -> tuple[Array, Array, Array, Array]:
    """The coefficients of the derivative of `_couplings` that are linear in R: zero, but their derivatives are not.

    Two with which dR is multiplied from the right and from the left, shape (2, p, p, p), and two with which dx is, shape
    (2, p, p); M comes first, then O.
    """
    p, nothing = x.shape[0], _nothing(R, x, m, r, far)
    cube, square = jnp.zeros((2, p, p, p), x.dtype) + nothing, jnp.zeros((2, p, p), x.dtype) + nothing
    return cube, cube, square, square


@_curvature.defjvp
def _curvature_jvp(primals, tangents):
    R, x, m, r, far = primals
    E, x = tangents[0], last_derivative(x + _nothing(R), _NO_THIRD)
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
    log_ci, tail = _log_c(xi), _log_kernel(xj, m[None, :]) / 2 - r[None, :]
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
    log_ci, tail, xi = _log_c(x)[:, None, None], _log_kernel(x, m) / 2 - r, x[:, None, None]
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


def _log_kernel(x: Array, m: Array) -> Array:
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
