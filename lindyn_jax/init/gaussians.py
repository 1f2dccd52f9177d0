"""Gaussian starts of two layers: of full size, or drawn in reduced form at a cost that does not depend on the width."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from .. import _checks
from .._keyed import compiled
from .._linalg import row_factor
from .._public import public
from ..models import Outputs, Reduction, Rest, TwoLayer
from ..problems import AbstractProblem, LeastSquares
from ._parts import Key, Number, Std, check_scale, frame, size_of, stds_of

WIDEST_FLOAT32 = 1e6
# Of a chi squared draw.
PROPOSALS = 12


@public
def gaussian(
    n: int, m: int, h: int, *, std: Std | None = None, alpha: Number | None = None, dtype=None, key: Key
) -> TwoLayer:
    """A Gaussian start of full size: independent entries N(0, std^2), or N(0, h^{-2 alpha}).

    **Args:** the sizes of U (n, h) and V (m, h); exactly one of `std` (a number, or one for U and one for V, of which one may be
    zero: `(s, 0)` is a start whose product is zero, as that of low-rank adapters) and `alpha`;
    `dtype`, by default the default float type.

    **Raises:** `ValueError` unless exactly one of `std` and `alpha` is given, positive; or for sizes below 1.

    **Source:** T21 section 6 (std), M22 section 4.2 (alpha).

    Example:

        >>> start = ld.init.gaussian(2, 2, 10_000, alpha=0.5, key=jax.random.key(0))
        >>> print(jnp.linalg.norm(start.U, axis=1).round(2), start.U.std().round(4))
        [1. 1.] 0.01
    """
    n, m, h = (size_of(value, name) for value, name in ((n, "n"), (m, "m"), (h, "h")))
    std_U, std_V = stds_of(std, alpha, h)
    key_U, key_V = jax.random.split(key)
    dtype = _checks.as_dtype(dtype)
    U = jnp.asarray(std_U, dtype) * jax.random.normal(key_U, (n, h), dtype)
    V = jnp.asarray(std_V, dtype) * jax.random.normal(key_V, (m, h), dtype)
    return TwoLayer(U, V)


@public
def gaussian_core(
    problem: AbstractProblem,
    h: Number,
    *,
    std: Std | None = None,
    alpha: Number | None = None,
    num_frozen: Number | None = None,
    key: Key,
) -> Reduction:
    """The reduced form of a Gaussian start of width h, drawn directly at a cost that does not depend on h.

    With the rows [V; U1] first to last, the factor L of a Gaussian matrix is lower triangular with independent entries:
    chi with h, h - 1, ... degrees of freedom on the diagonal, normal below it, and zero in the columns beyond h (Bartlett).
    U2 seen in the same basis is again Gaussian and independent of L; its triangular factor is drawn the same way.

    **Args:**

    - `problem`: gives r, m and n - r.
    - `h`: the width, any number from 1 to 1e12; may be traced, so that one compilation serves all widths. A traced width
        below 1 gives NaN.
    - `std` or `alpha`: as in `gaussian`; may be traced.
    - `num_frozen`: n - r if it should differ from the problem's, also a number that may be traced; 0 leaves no frozen part.

    **Returns:** a `Reduction` whose core has k = r + m columns (min(h, r + m) where h is not traced), equal in law to reducing a
    full-size draw.

    **Raises:** `ValueError` for a concrete width that is not a whole number from 1 to 1e12, and as `gaussian` does.

    **Notes:** drawn in float64 when 64-bit mode is on, whatever the problem's dtype. In float32 the imbalance spreads lose
    digits above h of about 1e6, of which a warning is given once where h is not traced.

    **Source:** M22 section 4.2 for the start; Bartlett (1933) for the decomposition of a Wishart matrix.

    Example:

        >>> problem, key = ld.factorization(jnp.eye(2)), jax.random.key(0)
        >>> for h in (1e2, 1e4, 1e6):
        ...     start = ld.init.gaussian_core(problem, h, alpha=0.5, key=key)
        ...     print(ld.observables.imbalance_spectrum(start, problem).round(2))
        [ 1.28  1.02 -0.92 -1.12]
        [ 1.03  1.   -0.99 -1.01]
        [ 1.  1. -1. -1.]
    """
    if not _checks.is_traced(h) and not (1 <= float(h) <= 1e12 and float(h) == round(float(h))):
        raise ValueError(f"Argument `h` must be a whole number from 1 to 1e12, but is {h}.")
    check_scale(std, alpha)
    p, wide = problem.rank + problem.num_outputs, jnp.result_type(float)
    k = p
    if not _checks.is_traced(h):
        warn_of_lost_digits(problem.dtype, float(h))
        # A width that is known has no columns beyond it: the solvers see that such a network is narrow.
        k = min(p, int(h))
    count = problem.num_frozen if num_frozen is None else num_frozen
    rows = None
    if _checks.is_traced(count) or count > 0:
        rows = p if num_frozen is not None else min(p, problem.num_frozen)
    as_wide = lambda number: jnp.asarray(number, wide)  # noqa: E731
    std, alpha = jax.tree.map(as_wide, (std, alpha))
    return _drawn_core(problem, as_wide(h), std, alpha, as_wide(count), key, k, rows)


@compiled
def _drawn_core(
    problem: AbstractProblem, h: Array, std: Any, alpha: Any, count: Array, key: Key, k: int, rows: int | None
) -> Reduction:
    """The draw of `gaussian_core` as one program, with k columns and `rows` of the frozen part, or none of it."""
    dtype, wide = problem.dtype, jnp.result_type(float)
    h = jnp.where(h >= 1, h, jnp.nan)
    std_U, std_V = (jnp.asarray(value, wide) for value in stds_of(std, alpha, h))
    m = problem.num_outputs
    p = problem.rank + m
    rows_frozen = 0 if rows is None else rows
    index = jnp.arange(p)
    degrees = h - index
    if rows is not None:
        degrees = jnp.stack([degrees, count - index, jnp.where(index == 0, count * jnp.maximum(h - p, 0.0), 0.0)])
    # All that is random, in two draws: each is a loop of its own, which takes longer to compile than what comes after it.
    key_normal, key_uniform = jax.random.split(key)
    normals = jax.random.normal(key_normal, ((p + rows_frozen) * p + PROPOSALS * degrees.size,), wide)
    above, beside, proposals = jnp.split(normals, [p * p, (p + rows_frozen) * p])
    squares = _chi_squared(degrees, proposals, jax.random.uniform(key_uniform, ((PROPOSALS + 1) * degrees.size,), wide))
    squares = squares.reshape(-1, p)

    live = index < h
    L = jnp.where(live, _bartlett(above.reshape(p, p), squares[0], h).T, 0.0)[:, :k]
    V, U1 = std_V * L[:m], std_U * L[m:]

    frozen, rest = None, None
    if rows is not None:
        frozen = std_U * jnp.where(live, _bartlett(beside.reshape(rows, p), squares[1, :rows], count), 0.0)[:, :k]
        size = jnp.sqrt(jnp.sum(frozen**2) + std_U**2 * squares[2, 0])
        frozen, rest = frozen.astype(dtype), Rest.of(size.astype(dtype))
    V, outputs, behind = Outputs.split(problem, V.astype(dtype))
    rest = (rest, behind)
    core, coordinates = TwoLayer(U1.astype(dtype), V), problem.coordinates
    return Reduction(core, h.astype(dtype), count, frozen, rest=rest, coordinates=coordinates, outputs=outputs)


@public
def warn_of_lost_digits(dtype, h: float) -> dict[str, str]:
    """Warns that float32 does not resolve the spreads of the imbalance of a start this wide.

    The eigenvalues of D are close to +-h^{1 - 2 alpha}, apart from each other by a share of about h^{-1/2}: a thousandth at
    h = 1e6, of which float32 keeps four digits, and fewer beyond.

    **Args:** `dtype`, of the weights; `h`, the largest width.

    **Returns:** the warning as the entry `float32_digits`, for the attributes of a dataset; empty when there is none to give.

    Example:

        >>> import warnings
        >>> with warnings.catch_warnings(record=True, action="always") as caught:
        ...     found = ld.init.warn_of_lost_digits(jnp.float32, 1e9)
        >>> list(found), len(caught)
        (['float32_digits'], 1)
        >>> ld.init.warn_of_lost_digits(jnp.float64, 1e9)
        {}
    """
    dtype = jnp.promote_types(_checks.as_dtype(dtype), jnp.float32)
    if (dtype == jnp.float64 and jnp.result_type(float) == jnp.float64) or h <= WIDEST_FLOAT32:
        return {}
    text = (
        f"In float32 the spreads Delta+ and Delta- of the imbalance lose digits above a width of about {WIDEST_FLOAT32:g}, and "
        f"the width is {h:g}: use float64 data with jax.config.update('jax_enable_x64', True)."
    )
    warnings.warn(text, UserWarning, stacklevel=3)
    return {"float32_digits": text}


@public
def invariant(
    problem: LeastSquares, h: int, *, std: Std | None = None, alpha: Number | None = None, key: Key
) -> TwoLayer:
    """A Gaussian start projected onto the orthogonal invariant set `V U2^T = 0`, `U1 U2^T = 0`.

    The flow never leaves this set, and from it converges to the minimum-norm solution. Only U2 is changed.

    **Args:** as in `gaussian`, with the sizes of the problem. For h <= r + m the projection leaves U2 = 0.

    **Raises:** `ValueError` as `gaussian` does.

    **Notes:** `V U2^T = 0` alone is not invariant.

    **Source:** M22 section 4.1, Proposition 10.

    Example:

        >>> problem = ld.LeastSquares(jnp.array([[1.0, 2.0]]), jnp.array([[2.0]]))
        >>> start = ld.init.invariant(problem, 8, std=0.1, key=jax.random.key(0))
        >>> bool(ld.observables.frozen_product_norm(start, problem) < 1e-10)
        True
    """
    h = size_of(h, "h")
    start = gaussian(problem.num_inputs, problem.num_outputs, h, std=std, alpha=alpha, dtype=problem.dtype, key=key)
    U1 = problem.to_data(start.U)
    moving = problem.from_data(U1)
    if h <= problem.rank + problem.num_outputs:
        return TwoLayer(moving, start.V)
    _, Q = row_factor(jnp.concatenate([U1, start.V]))
    U2 = start.U - moving
    return TwoLayer(moving + U2 - (U2 @ Q) @ Q.T, start.V)


@public
def gaussian_with_imbalance(d: int, h: int, *, std: Number, imbalance: float | int, dtype=None, key: Key) -> TwoLayer:
    """A Gaussian start for d inputs and d outputs whose imbalance has the Frobenius norm asked for.

    For 0, `V = O U` with a random orthogonal O, so that `U^T U = V^T V`. Otherwise U and V are independent and both are scaled
    by one number so that `||U^T U - V^T V||_F` is `imbalance`.

    **Args:** `d`, rows of U and of V; `h`, the width; `std`, of the entries of U before the scaling; `imbalance`, a number of at
    least 0 that is known; `dtype`, by default the default float type.

    **Raises:** `ValueError` for sizes below 1, a std that is not positive, or a negative imbalance.

    **Source:** T21 Figure 3, with U and V of shape (d, h): d = 10, h = 100, std = 0.1, imbalance 0 and 4.6.

    Example:

        >>> start = ld.init.gaussian_with_imbalance(2, 8, std=0.1, imbalance=4.6, key=jax.random.key(0))
        >>> float(jnp.linalg.norm(start.U.T @ start.U - start.V.T @ start.V))
        4.6
    """
    d, h = size_of(d, "d"), size_of(h, "h")
    if _checks.is_traced(imbalance) or not 0 <= float(imbalance) < float("inf"):
        raise ValueError(f"Argument `imbalance` must be a known number of at least 0, but is {imbalance}.")
    key_start, key_turn = jax.random.split(key)
    start = gaussian(d, d, h, std=std, dtype=dtype, key=key_start)
    if imbalance == 0:
        return TwoLayer(start.U, frame(d, d, key_turn, start.U.dtype) @ start.U)
    U, V = start.U, start.V
    # ||U^T U - V^T V||^2 from products of d x d matrices.
    square = jnp.sum((U @ U.T) ** 2) + jnp.sum((V @ V.T) ** 2) - 2 * jnp.sum((U @ V.T) ** 2)
    factor = jnp.sqrt(imbalance / jnp.sqrt(square)).astype(U.dtype)
    return TwoLayer(factor * U, factor * V)


def _bartlett(
    normals: Float[Array, "rows columns"], squares: Float[Array, " rows"], degrees: Number
) -> Float[Array, "rows columns"]:
    """Upper triangular factor of a Gaussian matrix with `degrees` rows; rows beyond `degrees` are zero.

    **Args:** `normals`, of which what is above the diagonal is taken; `squares`, of the diagonal: chi squared with `degrees`,
    `degrees - 1`, ...
    """
    index = jnp.arange(len(squares))
    R = jnp.triu(normals, 1).at[index, index].set(jnp.sqrt(squares))
    return jnp.where((index < degrees)[:, None], R, 0.0)


def _chi_squared(
    degrees: Real[Array, "..."], normals: Float[Array, " proposals"], uniforms: Float[Array, " numbers"]
) -> Float[Array, "..."]:
    """Chi squared draws, one for each number of degrees of freedom; zero of them (or fewer) give zero.

    **Args:** `normals`, PROPOSALS for each draw; `uniforms`, in [0, 1), one more than that.
    """
    degrees = degrees.astype(normals.dtype)
    safe = jnp.where(degrees > 0, degrees, 1.0)
    boosts, uniforms = jnp.split(uniforms, [degrees.size])
    shape = (PROPOSALS, *degrees.shape)
    # Of a draw of less than one, which the proposals are not for, this is the share that is kept of one of one more.
    shares = jnp.where(safe < 2, (1 - boosts.reshape(degrees.shape)) ** (2 / safe), 1.0)
    draws = _gamma(jnp.where(safe < 2, safe / 2 + 1, safe / 2), normals.reshape(shape), uniforms.reshape(shape))
    return jnp.where(degrees > 0, 2 * shares * draws, 0.0)


@jax.custom_jvp
def _gamma(
    concentration: Float[Array, "*shape"],
    normals: Float[Array, "proposals *shape"],
    uniforms: Float[Array, "proposals *shape"],
) -> Float[Array, "*shape"]:
    """Gamma draws of a concentration of at least one: the first of the proposals that is accepted.

    Each is accepted with a probability of .95 or more. All are refused once in 1e15 draws: such a draw is NaN.

    **Source:** Marsaglia and Tsang (2000), whose logarithm of the probability is written here so that it does not cancel.
    """
    scale = concentration - 1 / 3
    t = normals / jnp.sqrt(9 * scale)
    safe = jnp.where(t > -1, t, 0.0)
    accepted = jnp.log1p(-uniforms) < scale * (3 * (jnp.log1p(safe) - safe) + 1.5 * safe**2 - safe**3)
    accepted &= t > -1
    first = jnp.argmax(accepted, axis=0, keepdims=True)
    taken = jnp.take_along_axis(jnp.where(accepted, t, jnp.nan), first, axis=0)[0]
    return scale * (1 + taken) ** 3


@_gamma.defjvp
def _gamma_jvp(primals, tangents):
    """What a draw changes by with its concentration while its quantile stays, which the choice among proposals does not tell."""
    concentration, draw = primals[0], _gamma(*primals)
    # Far out a draw is the same function of its quantile as of its normal number, to 1e-9; the series takes ever longer there.
    far = concentration > 1e6
    known = jnp.where(far, 1.0, concentration), jnp.where(far, 1.0, draw)
    root = jnp.cbrt(draw / (concentration - 1 / 3))
    # JAX declares an argument of this function that it does not have.
    near = jax.lax.random_gamma_grad(*known)  # pyright: ignore[reportCallIssue]
    change = jnp.where(far, root**2 * (3 - root) / 2, near)
    return draw, tangents[0] * change
