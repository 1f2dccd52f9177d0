"""Products of layers, and what is asked of a list of them."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import _checks


def check_layers(layers: Sequence) -> tuple[Array, ...]:
    """The layers of a deep network as matrices of one dtype, after making sure that their sizes chain."""
    if isinstance(layers, (str, Mapping)) or getattr(layers, "ndim", None) in (0, 1, 2) or len(layers) == 0:
        raise ValueError("Argument `layers` must be a sequence of at least one matrix: for a single layer pass `(W,)`.")
    matrices = [_checks.as_matrix(W, f"layers[{i}]", f"(d_{i}, d_{i + 1})") for i, W in enumerate(layers)]
    for i, (W, after) in enumerate(pairwise(matrices)):
        if W.shape[1] != after.shape[0]:
            raise ValueError(
                f"Argument `layers` must chain, (n, h1), (h1, h2), ..., but layers[{i}] has {W.shape[1]} columns "
                f"and layers[{i + 1}] has {after.shape[0]} rows."
            )
    dtype = jnp.result_type(*matrices)
    return tuple(W.astype(dtype) for W in matrices)


def chain(layers: Sequence[Float[Array, "_ _"]]) -> Float[Array, "n m"]:
    """`W1 W2 ... WL`, multiplied from the narrower end."""
    if layers[0].shape[0] <= layers[-1].shape[1]:
        return functools.reduce(jnp.matmul, layers)
    return functools.reduce(lambda behind, W: W @ behind, reversed(layers))


def chain_gradients(layers: Sequence[Float[Array, "_ _"]], G: Float[Array, "n m"]) -> tuple[Float[Array, "_ _"], ...]:
    """`(W1 ... W_{l-1})^T G (W_{l+1} ... WL)^T` for every l: the gradients of a function of the product whose own is G.

    From the side of the n rows or of the m columns, whichever are fewer: each intermediate matrix has that many.
    """
    if G.shape[0] > G.shape[1]:
        turned = chain_gradients([W.T for W in reversed(layers)], G.T)
        return tuple(g.T for g in reversed(turned))
    before = [None, *itertools.accumulate(layers[:-1], jnp.matmul)]
    after = itertools.accumulate(reversed(layers[1:]), lambda E, W: E @ W.T, initial=G)
    pairs = zip(before, reversed(list(after)), strict=True)
    return tuple(E if P is None else P.T @ E for P, E in pairs)


def signs(U: Array, V: Array) -> Float[Array, " p"]:
    return jnp.concatenate([jnp.ones(U.shape[0], U.dtype), -jnp.ones(V.shape[0], V.dtype)])


def is_zero(*weights: Array) -> bool:
    """Whether concrete weights are all zero."""
    return not _checks.is_traced(*weights) and not any(np.any(np.asarray(W)) for W in weights)


def two_zeros(layers: Sequence[Array]) -> str | None:
    zeros = [f"W{i + 1} = 0" for i, W in enumerate(layers) if is_zero(W)]
    return "a saddle, " + " and ".join(zeros[:2]) if len(zeros) > 1 else None
