"""Starts of deep networks."""

from collections.abc import Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .. import _checks
from .._modes import mode_directions
from .._public import public
from ..models import DeepLinear
from ..problems import LeastSquares
from ._parts import Key, Number, frame, size_of, strengths, theta_of
from .designed import balanced_factors


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

    Example:

        >>> start = ld.init.deep_gaussian((2, 100, 100, 2), key=jax.random.key(0))
        >>> [round(float(W.std()), 2) for W in start.layers]
        [0.7, 0.1, 0.1]
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

    Example:

        >>> start = ld.init.deep_orthogonal((2, 2, 2, 2), std=0.1, gain=0.5, key=jax.random.key(0))
        >>> print(jnp.linalg.svd(start.layers[1], compute_uv=False).round(4))
        [0.5 0.5]
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
        jnp.asarray(g, dtype) * frame(sizes[1], sizes[1], k, dtype) for g, k in zip(gains, keys[1:-1], strict=True)
    )
    return DeepLinear((W1, *middle, WL))


@public
def deep_isometric(sizes: Sequence[int], *, gain: Number | Sequence[Number] = 1.0, dtype=None, key: Key) -> DeepLinear:
    """A deep network of multiples of random isometries: `W_l^T W_l = c_l^2 I` or `W_l W_l^T = c_l^2 I`, whichever can be.

    All singular values of the product of hidden layers of one width are equal, whatever the depth. Where n, m <= h, the
    smallest exact form has hidden layers of size r + m.

    **Args:** `sizes`, (n, h_1, ..., h_{L-1}, m); `gain`, the c_l, one number or one for each layer; `dtype`, by default the
    default float type.

    **Raises:** `ValueError` for fewer than two sizes, sizes below 1, or gains that are not positive or not one for each layer.

    **Source:** Saxe, McClelland and Ganguli (2014), their random orthogonal starts.

    Example:

        >>> start = ld.init.deep_isometric((2, 2, 2, 2), gain=0.5, key=jax.random.key(0))
        >>> print(jnp.linalg.svd(start.product(), compute_uv=False).round(4))
        [0.125 0.125]
    """
    sizes = _sizes(sizes)
    dtype = _checks.as_dtype(dtype)
    gains, keys = _each(gain, "gain", len(sizes) - 1), jax.random.split(key, len(sizes) - 1)

    def isometry(rows: int, columns: int, key: Key) -> Float[Array, "rows columns"]:
        Q = frame(max(rows, columns), min(rows, columns), key, dtype)
        return Q if rows >= columns else Q.T

    parts = zip(gains, pairwise(sizes), keys, strict=True)
    return DeepLinear(tuple(jnp.asarray(c, dtype) * isometry(*shape, k) for c, shape, k in parts))


@public
def deep_residual(sizes: Sequence[int], *, std: Number, dtype=None, key: Key) -> DeepLinear:
    """A deep network of layers close to the identity, `W_l = I + std * G_l` with independent Gaussian entries.

    **Args:** `sizes`, (n, h_1, ..., h_{L-1}, m), of layers whose shapes differ the first rows or columns of I; `std`, at least 0,
    of the entries; `dtype`, by default the default float type.

    **Raises:** `ValueError` for fewer than two sizes, sizes below 1, or a negative std.

    **Notes:** from `std=0`, the identity in every layer, square networks stay symmetric wherever the target is, and cannot learn
    one with a negative eigenvalue (Bartlett, Helmbold and Long, 2018).

    **Source:** Hardt and Ma (2017).

    Example:

        >>> start = ld.init.deep_residual((2, 2, 2, 2), std=1e-6, key=jax.random.key(0))
        >>> print(jnp.linalg.svd(start.product(), compute_uv=False).round(4))
        [1. 1.]
    """
    sizes = _sizes(sizes)
    dtype = _checks.as_dtype(dtype)
    _checks.check_not_negative(std, "std")
    parts = zip(pairwise(sizes), jax.random.split(key, len(sizes) - 1), strict=True)
    scale = jnp.asarray(std, dtype)
    return DeepLinear(
        tuple(jnp.eye(*shape, dtype=dtype) + scale * jax.random.normal(k, shape, dtype) for shape, k in parts)
    )


@public
def deep_core(model: DeepLinear, widths: Sequence[int], *, key: Key | None = None) -> DeepLinear:
    """A deep network embedded in wider hidden layers: `W_l = S_{l-1} core_l S_l^T` with orthonormal columns of S_l.

    It has the product and the imbalance spectra of the small one (but for zeros), and moves as the small one does.

    **Args:** `model`, the small network; `widths`, of the L - 1 hidden layers, none smaller than the model's; `key` draws the
    S_l: without one they are the first columns of the identity, so that layers are filled up with zeros.

    **Raises:** `ValueError` for other than L - 1 widths, or one that is too small.

    **Source:** the invariance stated in `subspaces`.

    Example:

        >>> core = ld.DeepLinear([jnp.array([[2.0, 1.0], [1.0, 2.0]]), jnp.eye(2)])
        >>> start = ld.init.deep_core(core, (8,), key=jax.random.key(0))
        >>> print(start.product().round(4))
        [[2. 1.]
         [1. 2.]]
    """
    widths = tuple(size_of(h, "widths") for h in widths)
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

    Example:

        >>> Theta = jnp.array([[2.0, 1.0], [1.0, 2.0]])
        >>> start = ld.init.deep_balanced(ld.factorization(Theta), Theta, (2, 2))
        >>> print(start.product().round(4))
        [[2. 1.]
         [1. 2.]]
        >>> [bool(jnp.linalg.norm(D) < 1e-10) for D in start.imbalances()]
        [True, True]
    """
    Theta = theta_of(problem, Theta)
    widths = tuple(size_of(h, "widths") for h in widths)
    depth = len(widths) + 1
    P, (root, inverse), TT = balanced_factors(problem, Theta, "widths", min(widths, default=None), depth)
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
    problem: LeastSquares,
    d: Float[ArrayLike, " k"] | Real[ArrayLike, ""],
    widths: Sequence[int],
    *,
    key: Key | None = None,
) -> DeepLinear:
    """A vanishing start of any depth aligned with the data: every layer has the strengths `e^{-d}`, the product `e^{-L d}`.

    `W1 = Phi diag(e^{-d}) O_1^T`, `W_l = O_{l-1} diag(e^{-d}) O_l^T`, `WL = O_{L-1} diag(e^{-d}) Psi^T` with
    `X^T Y = Phi diag Psi^T`. For two layers it is G19's.

    **Args:** `d`, shape (k,), k <= min(n, m, all widths), or a number for as many equal ones; `widths` of the hidden layers;
    `key` draws the O_l, with orthonormal columns (of the identity without one).

    **Raises:** `ValueError` for too many components, or no hidden layer.

    **Notes:** the components decouple when Phi also diagonalises `X^T X`, and then obey `exact.deep_mode`.

    **Source:** G19 Theorem 1 for two layers.

    Example:

        >>> problem = ld.factorization(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> start = ld.init.deep_aligned(problem, jnp.array([1.0, 2.0]), (2, 2))
        >>> print(ld.observables.mode_strengths(start, problem).round(4), np.exp([-3.0, -6.0]).round(4))
        [0.0498 0.0025] [0.0498 0.0025]
    """
    widths = tuple(size_of(h, "widths") for h in widths)
    if not widths:
        raise ValueError("Argument `widths` must name at least one hidden layer.")
    d = strengths(d, widths, problem)
    k, strength = d.shape[0], jnp.exp(-d)
    Phi, Psi = mode_directions(problem, k)
    cores = [Phi * strength, *(jnp.diag(strength) for _ in widths[1:]), strength[:, None] * Psi.T]
    return DeepLinear(_embed(cores, _deep_frames(widths, (k,) * len(widths), key, problem.dtype)))


def _sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    sizes = tuple(size_of(size, "sizes") for size in sizes)
    if len(sizes) < 2:
        raise ValueError(f"Argument `sizes` must be (n, h_1, ..., m), at least two sizes, but is {sizes}.")
    return sizes


def _each(value, name: str, count: int) -> tuple:
    values = tuple(value) if np.iterable(value) else (value,) * count
    if len(values) != count:
        raise ValueError(f"Argument `{name}` must be one number or {count} of them, but has {len(values)}.")
    for number in values:
        _checks.check_positive(number, name)
    return values


def _deep_frames(widths: tuple[int, ...], columns: tuple[int, ...], key: Key | None, dtype) -> list[Array]:
    keys = [None] * len(widths) if key is None else jax.random.split(key, max(len(widths), 1))
    return [frame(h, k, each, dtype) for h, k, each in zip(widths, columns, keys, strict=False)]


def _embed(cores: Sequence[Array], frames: Sequence[Array]) -> tuple[Array, ...]:
    """`S_{l-1} core_l S_l^T` for every layer."""
    lefts, rights = (None, *frames), (*frames, None)
    wide = (core if S is None else core @ S.T for core, S in zip(cores, rights, strict=True))
    return tuple(W if S is None else S @ W for W, S in zip(wide, lefts, strict=True))
