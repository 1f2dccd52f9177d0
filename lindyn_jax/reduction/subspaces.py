r"""The exact reduction of deep networks, to the smallest subspaces of the hidden layers that all layers respect.

The gradient of `W_l` is `(W1 ... W_{l-1})^T G (W_{l+1} ... WL)^T`. If S_1 contains the rows of `Phi1^T W1`, S_{L-1} the columns
of `WL`, and every layer maps S_l into S_{l-1} and its transpose S_{l-1} into S_l, then all gradients have their columns in
S_{l-1} and their rows in S_l, now and later: `W_l(t) = W_l(0) + S_{l-1} (core_l(t) - core_l(0)) S_l^T`. Balanced starts have
subspaces of the size of the rank of Theta, starts with orthogonal middle layers of size r + m. A Gaussian middle layer
leaves nothing to reduce.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks
from .._linalg import row_factor
from .._public import public
from ..models import Bases, DeepLinear, Outputs, Reduction, Rest
from ..problems import AbstractProblem


def subspace_rtol(model: DeepLinear) -> float:
    """The default tolerance of `find_subspaces`: what is below it is round-off, of the weights or of the search.

    Four times the epsilon of the weights' dtype: rounding their entries leaves .4 of it, at any width. The search itself, in
    float64, leaves about .4 sqrt(d) of that epsilon (both measured for widths of 10 to 400).
    """
    widest = max(max(W.shape) for W in model.layers)
    return float(4 * jnp.finfo(model.layers[0].dtype).eps + 4 * widest**0.5 * np.finfo(np.float64).eps)


@public
def find_subspaces(
    model: DeepLinear, problem: AbstractProblem, *, rtol: float | None = None
) -> tuple[Float[Array, "_ _"], ...]:
    r"""Orthonormal bases of the smallest subspaces S_1, ..., S_{L-1} on which a deep network moves by itself.

    The smallest with rows of `Phi1^T W1` in S_1, columns of `WL` in S_{L-1}, `W_l^T S_{l-1}` in S_l and `W_l S_l` in S_{l-1},
    found by adding images until nothing new appears.

    **Args:** `model`; `problem`, for the r rows of W1 that move; `rtol`: the part of an image that lies outside of what is there
    counts as new where it is longer than `rtol ||W_l||_2`, for an image of unit vectors; by default `subspace_rtol(model)`.

    **Returns:** a basis of shape (d_l, k_l) for each hidden layer.

    **Raises:** `ValueError` for traced weights: how many columns there are depends on their values.

    **Notes:** done in float64 NumPy, about `(k_1 + ... + k_{L-1})` products of a layer and a vector, and a singular value
    decomposition of each layer. Directions below the tolerance are dropped: the reduced network is then the exact one
    of a start moved by that much.

    **Source:** the invariance stated at the top of this module.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.DeepLinear([jnp.eye(2, 50), jnp.eye(50), jnp.eye(50, 2)])
        >>> bases = ld.find_subspaces(start, problem)
        >>> print([basis.shape for basis in bases])
        [(50, 2), (50, 2)]
        >>> print([W.shape for W in ld.reduce(start, problem, subspaces=bases).core.layers])
        [(2, 2), (2, 2), (2, 2)]
    """
    if _checks.is_traced(*model.layers):
        raise ValueError(
            "The invariant subspaces of a deep network are found from concrete weights, but these are traced: find them outside "
            "of jit, vmap and grad with `find_subspaces` and pass them on, or leave the network at full size."
        )
    # Inside jit even operations on numbers that are known would be put off to run time.
    with jax.ensure_compile_time_eval():
        front = problem.to_data(model.layers[0])
    if _checks.is_traced(front):
        raise ValueError(
            "The invariant subspaces of a deep network need a problem whose data are known, but these are traced."
        )
    rtol = subspace_rtol(model) if rtol is None else rtol
    _checks.check_not_negative(rtol, "rtol")
    layers = [np.asarray(W, np.float64) for W in (front, *model.layers[1:])]
    for i, W in enumerate(layers):
        _checks.check_finite(W, f"model.layers[{i}]")
    norms = [float(np.linalg.norm(W, 2)) for W in layers]
    spaces = [np.zeros((W.shape[1], 0)) for W in layers[:-1]]

    def extend(i: int, images: np.ndarray, norm: float) -> np.ndarray:
        """Adds to space i what the images have outside of it, and returns that."""
        for _ in range(2):  # the second pass removes the round-off of the first
            images = images - spaces[i] @ (spaces[i].T @ images)
        directions, sizes, _ = np.linalg.svd(images, full_matrices=False)
        new = directions[:, sizes > rtol * norm] if norm > 0 else directions[:, :0]
        new = new[:, : spaces[i].shape[0] - spaces[i].shape[1]]
        spaces[i] = np.concatenate([spaces[i], new], axis=1)
        return new

    last = len(spaces) - 1
    waiting = [(0, layers[0].T, norms[0]), (last, layers[-1], norms[-1])] if spaces else []
    while waiting:
        i, images, norm = waiting.pop()
        new = extend(i, images, norm)
        if new.shape[1] == 0:
            continue
        if i < last:
            waiting.append((i + 1, layers[i + 1].T @ new, norms[i + 1]))
        if i > 0:
            waiting.append((i - 1, layers[i] @ new, norms[i]))
    with jax.ensure_compile_time_eval():
        return tuple(jnp.asarray(S, W.dtype) for S, W in zip(spaces, model.layers, strict=False))


def helps(model: DeepLinear, subspaces: tuple[Float[Array, "_ _"], ...]) -> bool:
    """Whether subspaces make a deep network smaller: a hidden layer shrinks, and none is empty (which no flow leaves)."""
    sizes = [S.shape[1] for S in subspaces]
    return min(sizes, default=0) > 0 and any(k < d for k, d in zip(sizes, model.widths, strict=True))


def check_subspaces(model: DeepLinear, subspaces: tuple[Float[Array, "_ _"], ...], found: bool) -> None:
    """Refuses bases that were given for other layers, or found to make none of them smaller."""
    if found and not helps(model, subspaces):
        sizes = ", ".join(str(S.shape[1]) for S in subspaces)
        widths = ", ".join(map(str, model.widths))
        raise ValueError(
            f"This deep network has no smaller exact form: its smallest invariant subspaces have sizes ({sizes}) in hidden "
            f"layers of widths ({widths}). Move it at full size (the solvers do so by themselves), or start from balanced, "
            "orthogonal or core-shaped layers."
        )
    sizes = tuple(S.shape[0] for S in subspaces)
    if sizes != model.widths:
        raise ValueError(f"Argument `subspaces` must have bases of {model.widths} rows, but they have {sizes}.")


@eqx.filter_jit
def project(
    model: DeepLinear, problem: AbstractProblem, subspaces: tuple[Float[Array, "_ _"], ...], check: bool
) -> Reduction:
    """The cores of a deep network on its invariant subspaces, after a look at whether they are that if `check`."""
    front = problem.to_data(model.layers[0])
    layers = (front, *model.layers[1:])
    ends = (None, *subspaces, None)
    if check:
        tolerance = 100 * subspace_rtol(model)
        parts = zip(layers, ends[:-1], ends[1:], strict=True)
        layers = tuple(_closed(W, left, right, tolerance) for W, left, right in parts)
    cores = tuple(_right(_left(W, left), right) for W, left, right in zip(layers, ends[:-1], ends[1:], strict=True))
    lifted = _widen(cores, problem.frame, subspaces)
    rest = [W - inside for W, inside in zip(model.layers, lifted, strict=True)]
    frozen = None
    if problem.num_frozen > 0:
        outside = (model.layers[0] - problem.from_data(front)) @ subspaces[0]
        core = outside if outside.shape[0] <= outside.shape[1] else row_factor(outside.T)[0].T
        # Rows enough for as many singular values as Theta has.
        rows = max(core.shape[0], min(problem.num_inputs, problem.num_outputs) - problem.rank)
        frozen = jnp.pad(core, ((0, rows - core.shape[0]), (0, 0)))
    # The last layer has its columns in S_{L-1}, so that only round-off is left of it.
    rest[-1] = jnp.zeros_like(rest[-1])
    moving = [jnp.zeros_like(rest[0]), *rest[1:]]
    last, outputs, behind = Outputs.split(problem, cores[-1].T)
    parts = (*(_rest(rest[i], moving[i], moving[i + 1]) for i in range(len(rest) - 1)), behind)
    width = model.widths[0] if model.depth == 2 else None
    bases = Bases(problem.frame, subspaces, (*rest[:-1], None))
    options = {"rest": parts, "bases": bases, "coordinates": problem.coordinates, "outputs": outputs}
    return Reduction(DeepLinear((*cores[:-1], last.T)), width, problem.num_frozen, frozen, **options)


def _left(W: Array, S: Array | None) -> Array:
    return W if S is None else S.T @ W


def _right(W: Array, S: Array | None) -> Array:
    return W if S is None else W @ S


def _widen(cores, Phi1: Array | None, subspaces) -> tuple[Array, ...]:
    lefts, rights = (Phi1, *subspaces), (*subspaces, None)
    wide = (core if right is None else core @ right.T for core, right in zip(cores, rights, strict=True))
    return tuple(W if left is None else left @ W for W, left in zip(wide, lefts, strict=True))


def _closed(W: Array, left: Array | None, right: Array | None, rtol: float) -> Array:
    """W where it maps one subspace into the other, and its transpose back; NaN where it does not."""
    leak = jnp.zeros((), W.dtype)
    if left is not None:
        image = left.T @ W
        leak += (
            jnp.sum((image - _right(image, right) @ right.T) ** 2)
            if right is not None
            else jnp.sum((W - left @ image) ** 2)
        )
    if right is not None:
        image = W @ right
        leak += (
            jnp.sum((image - left @ _left(image, left)) ** 2)
            if left is not None
            else jnp.sum((W - image @ right.T) ** 2)
        )
    return jnp.where(leak > rtol**2 * jnp.sum(W**2), jnp.nan, W)


def _rest(rest: Array, moving: Array, behind: Array) -> Rest:
    size = jnp.sqrt(jnp.sum(jax.lax.stop_gradient(rest) ** 2))
    A, B = moving.T @ moving, behind @ behind.T
    return Rest.of(size, jnp.stack([jnp.sum(A * A), jnp.sum(B * B), jnp.sum(A * B)]))
