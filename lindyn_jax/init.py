"""Starts: where in weight space a trajectory begins.

`gaussian_core` is the one to use for Monte Carlo: it draws the reduced form of a Gaussian start of any width directly, at a
cost that does not depend on the width, so that the width is a number that can be mapped over.
"""

import operator
import warnings
from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, UInt32

from . import _checks
from ._linalg import row_factor
from ._modes import mode_directions
from ._norms import hypot, norm, ratio
from ._norms import root as root_of
from ._public import public
from ._svd import complement, remainder, thin_svd
from .models import DeepLinear, Frozen, ReducedTwoLayer, TwoLayer
from .problem import LeastSquares

WIDEST_FLOAT32 = 1e6
Key = PRNGKeyArray | UInt32[Array, "2"]
Number = Float[ArrayLike, ""] | int
Std = Number | tuple[Number, Number]


@public
def gaussian(
    n: int, m: int, h: int, *, std: Std | None = None, alpha: Number | None = None, dtype=None, key: Key
) -> TwoLayer:
    """A Gaussian start of full size: independent entries N(0, std^2), or N(0, h^{-2 alpha}).

    **Args:** the sizes of U (n, h) and V (m, h); exactly one of `std` (a number, or one for U and one for V) and `alpha`;
    `dtype`, by default the default float type.

    **Raises:** `ValueError` unless exactly one of `std` and `alpha` is given, positive; or for sizes below 1.

    **Source:** T21 section 6 (std), M22 section 4.2 (alpha).
    """
    n, m, h = (_size(value, name) for value, name in ((n, "n"), (m, "m"), (h, "h")))
    std_U, std_V = _stds(std, alpha, h)
    key_U, key_V = jax.random.split(key)
    dtype = _checks.as_dtype(dtype)
    U = jnp.asarray(std_U, dtype) * jax.random.normal(key_U, (n, h), dtype)
    V = jnp.asarray(std_V, dtype) * jax.random.normal(key_V, (m, h), dtype)
    return TwoLayer(U, V)


@public
def gaussian_core(
    problem: LeastSquares,
    h: Number,
    *,
    std: Std | None = None,
    alpha: Number | None = None,
    num_frozen: Number | None = None,
    key: Key,
) -> ReducedTwoLayer:
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

    **Returns:** a `ReducedTwoLayer` with k = r + m columns (min(h, r + m) where h is not traced), equal in law to reducing a
    full-size draw.

    **Raises:** `ValueError` for a concrete width that is not a whole number from 1 to 1e12, and as `gaussian` does.

    **Notes:** drawn in float64 when 64-bit mode is on, whatever the problem's dtype. In float32 the imbalance spreads lose
    digits above h of about 1e6, of which a warning is given once where h is not traced.

    **Source:** M22 section 4.2 for the start; Bartlett (1933) for the decomposition of a Wishart matrix.
    """
    if not _checks.is_traced(h) and not (1 <= float(h) <= 1e12 and float(h) == round(float(h))):
        raise ValueError(f"Argument `h` must be a whole number from 1 to 1e12, but is {h}.")
    dtype, wide = problem.dtype, jnp.result_type(float)
    k = problem.rank + problem.num_outputs
    if not _checks.is_traced(h):
        warn_of_lost_digits(dtype, float(h))
        # A width that is known has no columns beyond it: the solvers see that such a network is narrow.
        k = min(k, int(h))
    h = jnp.asarray(h, wide)
    h = jnp.where(h >= 1, h, jnp.nan)
    std_U, std_V = (jnp.asarray(value, wide) for value in _stds(std, alpha, h))
    r, m = problem.rank, problem.num_outputs
    p = r + m
    key_moving, key_frozen, key_rest = jax.random.split(key, 3)

    live = jnp.arange(p) < h
    L = jnp.where(live, _bartlett(key_moving, p, p, h).T, 0.0)[:, :k]
    V, U1 = std_V * L[:m], std_U * L[m:]

    frozen = None
    count = problem.num_frozen if num_frozen is None else num_frozen
    if _checks.is_traced(count) or count > 0:
        rows = p if num_frozen is not None else min(p, problem.num_frozen)
        core = std_U * jnp.where(live, _bartlett(key_frozen, rows, p, count), 0.0)[:, :k]
        rest = _chi_squared(key_rest, count * jnp.maximum(h - p, 0.0))
        norm = jnp.sqrt(jnp.sum(core**2) + std_U**2 * rest)
        frozen = Frozen(core.astype(dtype), norm.astype(dtype), jnp.ones((), dtype))
    return ReducedTwoLayer(U1.astype(dtype), V.astype(dtype), h.astype(dtype), count, frozen)


@public
def warn_of_lost_digits(dtype, h: float) -> dict[str, str]:
    """Warns that float32 does not resolve the spreads of the imbalance of a start this wide.

    The eigenvalues of D are close to +-h^{1 - 2 alpha}, apart from each other by a share of about h^{-1/2}: a thousandth at
    h = 1e6, of which float32 keeps four digits, and fewer beyond.

    **Args:** `dtype`, of the weights; `h`, the largest width.

    **Returns:** the warning as the entry `float32_digits`, for the attributes of a dataset; empty when there is none to give.
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
def spectral(Y: Float[ArrayLike, "n m"], u0: Float[ArrayLike, " k"], v0: Float[ArrayLike, " k"], h: int) -> TwoLayer:
    """A start aligned with a target: `U = Phi diag(u0)`, `V = Psi diag(v0)` for `Y = Phi diag(sigma) Psi^T`.

    Mode i of the product then moves by itself, from `u0_i v0_i` towards `sigma_i`.

    **Args:** `Y`, shape (n, m); `u0` and `v0`, shape (k,) with k <= min(n, m, h), for the k largest singular values; `h`, the
    width, the columns beyond k being zero.

    **Raises:** `ValueError` if k exceeds min(n, m, h) or the lengths differ.

    **Notes:** derivatives with respect to Y turn the start with its singular vectors; those of equal singular values are held.

    **Source:** T21 Definition 3 and Proposition 3.
    """
    Y = _checks.as_matrix(Y, "Y", "(n, m)")
    u0, v0, h = _checks.as_float(u0, "u0"), _checks.as_float(v0, "v0"), _size(h, "h")
    _check_modes(u0, v0, min(*Y.shape, h))
    Phi, _, PsiT = thin_svd(Y)
    k = u0.shape[0]
    pad = ((0, 0), (0, h - k))
    return TwoLayer(jnp.pad(Phi[:, :k] * u0, pad), jnp.pad(PsiT[:k].T * v0, pad))


@public
def aligned(problem: LeastSquares, d: Float[ArrayLike, " k"], h: int, *, key: Key | None = None) -> TwoLayer:
    """G19's vanishing start `U = Phi diag(e^{-d}) O`, `V = Psi diag(e^{-d}) O` with `X^T Y = Phi diag Psi^T`.

    **Args:** `d`, shape (k,), k <= min(n, m, h); `h`, the width; `key` draws O, shape (k, h) with orthonormal rows: without a
    key O is the first k rows of the identity.

    **Notes:** the modes decouple when Phi also diagonalises `X^T X`; `O` must have orthonormal rows, which G19 does not say.

    **Source:** G19 Theorem 1.
    """
    d, h = _checks.as_float(d, "d"), _size(h, "h")
    _check_modes(d, d, min(problem.num_inputs, problem.num_outputs, h))
    k = d.shape[0]
    Phi, Psi = mode_directions(problem, k)
    O = _frame(h, k, key, problem.dtype).T
    strength = jnp.exp(-d)
    return TwoLayer((Phi * strength) @ O, (Psi * strength) @ O)


@public
def balanced(problem: LeastSquares, Theta: Float[ArrayLike, "n m"], h: int, *, key: Key | None = None) -> TwoLayer:
    """A start with the given product and no imbalance: `U1^T U1 = V^T V` and `U V^T = Theta`.

    With the thin SVD `Phi1^T Theta = P C T^T`: `U1 = P C^{1/2} O^T`, `V = T C^{1/2} O^T` and `O^T O = I`.

    **Args:** `Theta`, shape (n, m), of any rank; `h`, at least the rank of `Phi1^T Theta`, and min(r, m) where Theta is
    traced; `key` draws O (identity columns without one).

    **Raises:** `ValueError` for too small an h or a wrong shape.

    **Notes:** it is U1, not U, that is balanced with V. Rows of Theta outside the range of X are reproduced as far as their
    row space lies in that of `Phi1^T Theta`, the rest of them being projected out. Singular values below max(n, m) times the
    machine epsilon of ||Theta||_F count as zero.

    **Source:** M22 section 5.2, with O where the printed V has a transpose too few.
    """
    Theta, h = _theta(problem, Theta), _size(h, "h")
    P, (root, inverse), TT = _balanced_factors(problem, Theta, "h", h, 2)
    O = _frame(h, root.shape[0], key, problem.dtype)
    V = TT.T @ root.T @ O.T
    outside = Theta - problem.from_data(problem.to_data(Theta))
    U = problem.from_data(P @ root @ O.T) + outside @ TT.T @ inverse @ O.T
    return TwoLayer(U, V)


@public
def with_imbalance(
    problem: LeastSquares,
    Theta: Float[ArrayLike, "n m"],
    positive: Float[ArrayLike, " r"],
    negative: Float[ArrayLike, " m"],
    h: int,
    *,
    key: Key | None = None,
) -> TwoLayer:
    """A start with prescribed imbalance and product.

    `D = U1^T U1 - V^T V` has the eigenvalues `positive` and `-negative`, and `U1 V^T = Phi1^T Theta`.

    Each singular value sigma of the product shares one pair of columns with one positive d1 and one negative -d2: in that
    pair `u u^T - v v^T = diag(d1, -d2)` and `u . v = sigma`. Values without a partner get a column of their own.

    **Args:** `Theta`, shape (n, m), only `Phi1^T Theta` being used; `positive`, shape (r,), and `negative`, shape (m,), both
    nonnegative and paired in order with the singular values, which descend; `h >= r + m`; `key` rotates the columns.

    **Raises:** `ValueError` for wrong lengths, negative entries or h < r + m.

    **Notes:** derivatives with respect to Theta need singular values that differ; the singular vectors of equal ones are held.

    **Source:** M22 Appendix C (the two-by-two block).
    """
    Theta, h = _theta(problem, Theta), _size(h, "h")
    r, m = problem.rank, problem.num_outputs
    positive, negative = _checks.as_float(positive, "positive"), _checks.as_float(negative, "negative")
    for name, value, size in (("positive", positive, r), ("negative", negative, m)):
        if value.shape != (size,):
            raise ValueError(f"Argument `{name}` must have shape ({size},), but has shape {value.shape}.")
        if not _checks.is_traced(value) and not bool(jnp.all(value >= 0)):
            raise ValueError(f"Argument `{name}` must have no negative entry; its sign is understood.")
    if h < r + m:
        raise ValueError(f"Argument `h` must be at least r + m = {r + m} for a prescribed imbalance, but is {h}.")
    P, sigma, TT = thin_svd(problem.to_data(Theta))
    P, T = jnp.concatenate([P, complement(P)], axis=1), jnp.concatenate([TT.T, complement(TT.T)], axis=1)
    k = min(r, m)
    d1, d2 = positive[:k], negative[:k]
    u_plus, u_minus, v_plus, v_minus = _imbalance_block(d1, d2, sigma)
    # Columns: the r positive ones first, then the m negative ones.
    U_plus = jnp.diag(jnp.concatenate([u_plus, root_of(positive[k:])]))
    V_minus = jnp.diag(jnp.concatenate([v_minus, root_of(negative[k:])]))
    U_minus = jnp.zeros((r, m), sigma.dtype).at[jnp.arange(k), jnp.arange(k)].set(u_minus)
    V_plus = jnp.zeros((m, r), sigma.dtype).at[jnp.arange(k), jnp.arange(k)].set(v_plus)
    O = _frame(h, r + m, key, problem.dtype)
    U1 = P @ jnp.concatenate([U_plus, U_minus], axis=1) @ O.T
    V = T @ jnp.concatenate([V_plus, V_minus], axis=1) @ O.T
    return TwoLayer(problem.from_data(U1), V)


@public
def invariant(
    problem: LeastSquares, h: int, *, std: Std | None = None, alpha: Number | None = None, key: Key
) -> TwoLayer:
    """A Gaussian start projected onto the orthogonal invariant set `V U2^T = 0`, `U1 U2^T = 0`.

    The flow never leaves this set, and from it converges to the minimum-norm solution. Only U2 is changed.

    **Args:** as in `gaussian`, with the sizes of the problem. For h <= r + m the projection leaves U2 = 0.

    **Notes:** `V U2^T = 0` alone is not invariant.

    **Source:** M22 section 4.1, Proposition 10.
    """
    h = _size(h, "h")
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
    """
    d, h = _size(d, "d"), _size(h, "h")
    if _checks.is_traced(imbalance) or not 0 <= float(imbalance) < float("inf"):
        raise ValueError(f"Argument `imbalance` must be a known number of at least 0, but is {imbalance}.")
    key_start, key_turn = jax.random.split(key)
    start = gaussian(d, d, h, std=std, dtype=dtype, key=key_start)
    if imbalance == 0:
        return TwoLayer(start.U, _frame(d, d, key_turn, start.U.dtype) @ start.U)
    U, V = start.U, start.V
    # ||U^T U - V^T V||^2 from products of d x d matrices.
    square = jnp.sum((U @ U.T) ** 2) + jnp.sum((V @ V.T) ** 2) - 2 * jnp.sum((U @ V.T) ** 2)
    factor = jnp.sqrt(imbalance / jnp.sqrt(square)).astype(U.dtype)
    return TwoLayer(factor * U, factor * V)


@public
def deep_gaussian(
    sizes: Sequence[int], *, std: Number | Sequence[Number] | None = None, dtype=None, key: Key
) -> DeepLinear:
    """A deep network of independent Gaussian entries.

    **Args:** `sizes`, (n, h_1, ..., h_{L-1}, m); `std`, of all entries or a sequence of one for each layer, by default
    `1/sqrt(fan-in)`, `d_{l-1}^{-1/2}`; `dtype`, by default the default float type.

    **Raises:** `ValueError` for fewer than two sizes, sizes below 1, or a std that is not positive or not one for each layer.

    **Notes:** for L >= 3 with wide middle layers it has no smaller exact form; see `deep_orthogonal`.

    **Source:** G19 section 2, for any depth.
    """
    sizes = _sizes(sizes)
    dtype = _checks.as_dtype(dtype)
    stds = [rows**-0.5 for rows in sizes[:-1]] if std is None else _each(std, "std", len(sizes) - 1)
    keys = jax.random.split(key, len(sizes) - 1)
    parts = zip(keys, stds, pairwise(sizes), strict=True)
    return DeepLinear(tuple(jnp.asarray(s, dtype) * jax.random.normal(k, shape, dtype) for k, s, shape in parts))


@public
def deep_orthogonal(
    sizes: Sequence[int],
    *,
    std: Number | tuple[Number, Number],
    gain: Number | Sequence[Number] = 1.0,
    dtype=None,
    key: Key,
) -> DeepLinear:
    """Gaussian outer layers, and middle layers that are multiples of orthogonal matrices: `W_l^T W_l = gain_l^2 I`.

    Its smallest exact form has hidden layers of size r + m, whatever the width.

    **Args:** `sizes`, (n, h, ..., h, m) with hidden layers of one width h; `std`, of the entries of the first and the last
    layer, one number or two; `gain`, of the middle layers, one number or one for each; `dtype`, by default the default float
    type.

    **Raises:** `ValueError` for hidden layers of different widths, sizes below 1, or numbers that are not positive.

    **Source:** the invariance stated in `subspaces`.
    """
    sizes = _sizes(sizes)
    if len(sizes) < 3 or len(set(sizes[1:-1])) != 1:
        raise ValueError(f"Argument `sizes` must be (n, h, ..., h, m) with hidden layers of one width, but is {sizes}.")
    dtype = _checks.as_dtype(dtype)
    first, last = _each(std, "std", 2)
    gains = _each(gain, "gain", len(sizes) - 3)
    keys = jax.random.split(key, len(sizes) - 1)
    W1 = jnp.asarray(first, dtype) * jax.random.normal(keys[0], sizes[:2], dtype)
    WL = jnp.asarray(last, dtype) * jax.random.normal(keys[-1], sizes[-2:], dtype)
    middle = (
        jnp.asarray(g, dtype) * _frame(sizes[1], sizes[1], k, dtype) for g, k in zip(gains, keys[1:-1], strict=True)
    )
    return DeepLinear((W1, *middle, WL))


@public
def deep_core(model: DeepLinear, widths: Sequence[int], *, key: Key | None = None) -> DeepLinear:
    """A deep network embedded in wider hidden layers: `W_l = S_{l-1} core_l S_l^T` with orthonormal columns of S_l.

    It has the product and the imbalance spectra of the small one (but for zeros), and moves as the small one does.

    **Args:** `model`, the small network; `widths`, of the L - 1 hidden layers, none smaller than the model's; `key` draws the
    S_l: without one they are the first columns of the identity, so that layers are filled up with zeros.

    **Raises:** `ValueError` for other than L - 1 widths, or one that is too small.

    **Source:** the invariance stated in `subspaces`.
    """
    widths = tuple(_size(h, "widths") for h in widths)
    if len(widths) != model.depth - 1 or any(h < k for h, k in zip(widths, model.widths, strict=True)):
        raise ValueError(
            f"Argument `widths` must hold {model.depth - 1} sizes, none smaller than {model.widths}, but is {widths}."
        )
    frames = _deep_frames(widths, model.widths, key, model.layers[0].dtype)
    return DeepLinear(_embed(model.layers, frames))


@public
def deep_balanced(
    problem: LeastSquares, Theta: Float[ArrayLike, "n m"], widths: Sequence[int], *, key: Key | None = None
) -> DeepLinear:
    """A deep start with the given product and no imbalance: `W_l^T W_l = W_{l+1} W_{l+1}^T` and `W1 ... WL = Theta`.

    With the thin SVD `Phi1^T Theta = P C T^T`: `U1 = P C^{1/L} O_1^T`, `W_l = O_{l-1} C^{1/L} O_l^T`, `WL = O_{L-1} C^{1/L} T^T`.

    **Args:** `Theta`, shape (n, m), of any rank; `widths` of the hidden layers, any number of them, none below the rank of
    `Phi1^T Theta` (min(r, m) where Theta is traced); `key` draws the O_l (identity columns without one).

    **Raises:** `ValueError` for too small a width or a Theta of the wrong shape.

    **Notes:** as in `balanced`, the moving part of W1 is what is balanced, and rows of Theta outside the range of X are
    reproduced as far as their row space lies in that of `Phi1^T Theta`. Singular values s of a Theta aligned with the target
    obey `exact.deep_mode`.

    **Source:** M22 section 5.2 for two layers; Arora, Cohen and Hazan (2018) for more.
    """
    Theta = _theta(problem, Theta)
    widths = tuple(_size(h, "widths") for h in widths)
    depth = len(widths) + 1
    P, (root, inverse), TT = _balanced_factors(problem, Theta, "widths", min(widths, default=None), depth)
    outside = Theta - problem.from_data(problem.to_data(Theta))
    cores = [
        problem.from_data(P @ root) + outside @ TT.T @ inverse,
        *(root for _ in widths[1:]),
        root @ TT,
    ]
    if depth == 1:
        return DeepLinear((cores[0] @ TT,))
    return DeepLinear(_embed(cores, _deep_frames(widths, (root.shape[0],) * len(widths), key, problem.dtype)))


@public
def deep_aligned(
    problem: LeastSquares, d: Float[ArrayLike, " k"], widths: Sequence[int], *, key: Key | None = None
) -> DeepLinear:
    """A vanishing start of any depth aligned with the data: every layer has the strengths `e^{-d}`, the product `e^{-L d}`.

    `W1 = Phi diag(e^{-d}) O_1^T`, `W_l = O_{l-1} diag(e^{-d}) O_l^T`, `WL = O_{L-1} diag(e^{-d}) Psi^T` with
    `X^T Y = Phi diag Psi^T`. For two layers it is G19's.

    **Args:** `d`, shape (k,), k <= min(n, m, all widths); `widths` of the hidden layers; `key` draws the O_l, with orthonormal
    columns (of the identity without one).

    **Raises:** `ValueError` for too many components, or no hidden layer.

    **Notes:** the components decouple when Phi also diagonalises `X^T X`, and then obey `exact.deep_mode`.

    **Source:** G19 Theorem 1 for two layers.
    """
    d, widths = _checks.as_float(d, "d"), tuple(_size(h, "widths") for h in widths)
    if not widths:
        raise ValueError("Argument `widths` must name at least one hidden layer.")
    _check_modes(d, d, min(problem.num_inputs, problem.num_outputs, *widths))
    k, strength = d.shape[0], jnp.exp(-d)
    Phi, Psi = mode_directions(problem, k)
    cores = [Phi * strength, *(jnp.diag(strength) for _ in widths[1:]), strength[:, None] * Psi.T]
    return DeepLinear(_embed(cores, _deep_frames(widths, (k,) * len(widths), key, problem.dtype)))


def _bartlett(key: Key, rows: int, columns: int, degrees: Array | float | int) -> Float[Array, "rows columns"]:
    """Upper triangular factor of a Gaussian matrix with `degrees` rows and `columns` columns; rows beyond `degrees` are zero."""
    key_diagonal, key_above = jax.random.split(key)
    index = jnp.arange(rows)
    diagonal = jnp.sqrt(_chi_squared(key_diagonal, degrees - index))
    above = jnp.triu(jax.random.normal(key_above, (rows, columns), diagonal.dtype), 1)
    R = above.at[index, index].set(diagonal)
    return jnp.where((index < degrees)[:, None], R, 0.0)


def _chi_squared(key: Key, degrees: Array | float | int) -> Array:
    """Chi squared draws; zero degrees of freedom (or fewer) give zero."""
    degrees = jnp.asarray(degrees, jnp.result_type(float))
    safe = jnp.where(degrees > 0, degrees, 1.0)
    return jnp.where(degrees > 0, 2 * jax.random.gamma(key, safe / 2, dtype=degrees.dtype), 0.0)


def _balanced_factors(
    problem: LeastSquares, Theta: Array, name: str, h: int | None, depth: int
) -> tuple[Array, tuple[Array, Array], Array]:
    """P, (C^{1/L}, C^{1/L - 1}) and T^T of the thin SVD `Phi1^T Theta = P C T^T`, as many components as the width h holds.

    The powers are matrices: diagonal, but not so their derivatives at repeated singular values, where the frames do not turn.
    """
    seen = problem.to_data(Theta)
    P, C, TT = thin_svd(seen)
    # What the projection leaves of components that are not there: the root of its inverse would be of order 1e7.
    size = jax.lax.stop_gradient(norm(Theta))
    round_off = max(problem.num_inputs, problem.num_outputs) * float(jnp.finfo(C.dtype).eps) * size
    positive = ~(round_off >= C)  # NaN is no component that is not there
    count = C.shape[0]
    if h is not None and h < count:
        if _checks.is_traced(C) or bool(positive[h]):
            least = (
                f"min(r, m) = {count}" if _checks.is_traced(C) else f"the rank {int(jnp.sum(positive))} of its product"
            )
            raise ValueError(f"Argument `{name}` must be at least {least} for a balanced start, but is {h}.")
        P, C, TT, positive = P[:, :h], C[:h], TT[:h], positive[:h]
    # With derivative zero where there is no component.
    safe, there = jnp.where(positive, C, 1), positive[:, None] & positive
    off = jnp.where(there, remainder(seen, P, TT), 0)
    root, inverse = (
        jnp.diag(jnp.where(positive, safe**power, 0)) + ratio(off, safe) * (power * safe**power)
        for power in (1 / depth, 1 / depth - 1)
    )
    return P, (root, inverse), TT


def _imbalance_block(d1: Array, d2: Array, sigma: Array) -> tuple[Array, Array, Array, Array]:
    """(u_1, u_2, v_1, v_2) with `u u^T - v v^T = diag(d1, -d2)` and `u . v = sigma`, for each entry."""
    total = d1 + d2
    # No square is formed, here or in the derivatives: that of 1e-160 is 0.
    root = hypot(total, 2 * sigma)
    none = root == 0
    shared = jnp.where(none, 0.0, 2 * sigma * ratio(sigma, jnp.where(none, 1.0, root + total)))
    empty = total == 0
    part1 = jnp.where(empty, 1.0, ratio(d1, jnp.where(empty, 1.0, total)))
    part2 = jnp.where(empty, 0.0, ratio(d2, jnp.where(empty, 1.0, total)))
    u_plus, u_minus = root_of(d1 + part1 * shared), root_of(part2 * shared)
    v_plus, v_minus = root_of(part1 * shared), root_of(d2 + part2 * shared)
    return u_plus, u_minus, v_plus, v_minus


def _frame(h: int, k: int, key: Key | None, dtype) -> Float[Array, "h k"]:
    """Orthonormal columns: random with a key, otherwise the first k of the identity."""
    if key is None:
        return jnp.eye(h, k, dtype=dtype)
    return row_factor(jax.random.normal(key, (k, h), dtype))[1]


def _sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(_size(size, "sizes") for size in sizes)
    if len(sizes) < 2:
        raise ValueError(f"Argument `sizes` must be (n, h_1, ..., m), at least two sizes, but is {sizes}.")
    return sizes


def _each(value, name: str, count: int) -> tuple:
    values = tuple(value) if isinstance(value, (tuple, list)) or jnp.ndim(value) else (value,) * count
    if len(values) != count:
        raise ValueError(f"Argument `{name}` must be one number or {count} of them, but has {len(values)}.")
    for number in values:
        _checks.check_positive(number, name)
    return values


def _deep_frames(widths: tuple[int, ...], columns: tuple[int, ...], key: Key | None, dtype) -> list[Array]:
    keys = [None] * len(widths) if key is None else jax.random.split(key, max(len(widths), 1))
    return [_frame(h, k, each, dtype) for h, k, each in zip(widths, columns, keys, strict=False)]


def _embed(cores: Sequence[Array], frames: Sequence[Array]) -> tuple[Array, ...]:
    """`S_{l-1} core_l S_l^T` for every layer."""
    lefts, rights = (None, *frames), (*frames, None)
    wide = (core if S is None else core @ S.T for core, S in zip(cores, rights, strict=True))
    return tuple(W if S is None else S @ W for W, S in zip(wide, lefts, strict=True))


def _stds(std: Std | None, alpha: Number | None, h: Array | int) -> tuple[Array | Number, Array | Number]:
    if (std is None) == (alpha is None):
        raise ValueError(
            "Give exactly one of `std` and `alpha`: the scale of a Gaussian start by value or by exponent."
        )
    if alpha is not None:
        _checks.check_positive(alpha, "alpha")
        value = jnp.asarray(h, jnp.result_type(float)) ** -jnp.asarray(alpha)
        return value, value
    std_U, std_V = std if isinstance(std, (tuple, list)) else (std, std)
    _checks.check_positive(std_U, "std")
    _checks.check_positive(std_V, "std")
    return std_U, std_V


def _size(value: int, name: str) -> int:
    try:
        size = operator.index(value)
    except TypeError:
        raise ValueError(f"Argument `{name}` must be a whole number, but is {value!r}.") from None
    if size < 1:
        raise ValueError(f"Argument `{name}` must be at least 1, but is {size}.")
    return size


def _check_modes(u0: Array, v0: Array, most: int) -> None:
    given = f"`d` has shape {u0.shape}" if u0 is v0 else f"`u0` and `v0` have shapes {u0.shape} and {v0.shape}"
    if u0.ndim != 1 or u0.shape != v0.shape or not 1 <= u0.shape[0] <= most:
        raise ValueError(
            f"Mode strengths must be vectors of one length k with 1 <= k <= min(n, m, h) = {most}, but {given}."
        )


def _theta(problem: LeastSquares, Theta) -> Float[Array, "n m"]:
    Theta = _checks.as_matrix(Theta, "Theta", "(n, m)")
    shape = (problem.num_inputs, problem.num_outputs)
    if Theta.shape != shape:
        raise ValueError(f"Argument `Theta` must have shape {shape} for this problem, but has shape {Theta.shape}.")
    return Theta.astype(problem.dtype)
