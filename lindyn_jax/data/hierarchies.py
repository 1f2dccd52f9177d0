"""Trees of items whose features are shared by whole branches, with their singular value decomposition in closed form."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from .._public import public
from ._common import Count, DataError, Dataset, whole

MOST_ITEMS = 10_000


class Hierarchy(NamedTuple):
    """A tree of items and its modes.

    **Fields:** `dataset`, with X = I of the items and a column of Y for each node of the tree, 1 for the items below it;
    `sigma`, singular values of Y, shape (P,), descending; `levels`, shape (P,), the level of the tree that each mode tells
    apart, 0 for what all items have in common; `items`, shape (P, P), and `features`, shape (F, P), the singular vectors as
    columns.

    Example:

        >>> tree = ld.data.hierarchy(2)
        >>> print(tree.sigma, tree.levels)
        [2.646 1.732 1. 1. ] [0 1 2 2]
        >>> print(tree.dataset.Y)
        [[1. 1. 0. 1. 0. 0. 0.]
         [1. 1. 0. 0. 1. 0. 0.]
         [1. 0. 1. 0. 0. 1. 0.]
         [1. 0. 1. 0. 0. 0. 1.]]
    """

    dataset: Dataset
    sigma: Float[np.ndarray, " P"]
    levels: np.ndarray
    items: Float[np.ndarray, "P P"]
    features: Float[np.ndarray, "F P"]


@public
def hierarchy(depth: Count = 3, branching: Count = 2) -> Hierarchy:
    """Items at the leaves of a tree, such as animals and plants, and one feature for each of its nodes.

    With B branches at each node and D levels, `P = B^D` items and `F = (B^{D+1} - 1)/(B - 1)` features. The modes are told
    apart by level: `sigma_l^2 = (B^{D-l+1} - 1)/(B - 1)`, once for l = 0, the mean of all items, and `B^l - B^{l-1}` times
    for the contrasts between the branches that part at level l. Broad distinctions are the strongest, and are learned first.

    **Args:** `depth`, D, and `branching`, B, at least 1 and 2.

    **Returns:** a `Hierarchy`.

    **Raises:** `DataError` for a depth below 1, a branching below 2, or more than 10,000 items.

    **Notes:** its modes from an aligned start are `exact.aligned(tree.sigma, ...)`.

    **Source:** Saxe, McClelland and Ganguli (2019), for their diffusion in the limit without flips; the decomposition is
    written out here.

    Example:

        >>> tree = ld.data.hierarchy(3)
        >>> print(tree.sigma**2)  # 2^(4 - l) - 1: level 0, then each level as often as it has contrasts
        [15. 7. 3. 3. 1. 1. 1. 1.]
        >>> print(np.linalg.svd(tree.dataset.Y)[1] ** 2)
        [15. 7. 3. 3. 1. 1. 1. 1.]
    """
    depth, branching = whole(depth, "depth", least=1), whole(branching, "branching", least=2)
    # By logarithms, so that no number is too long.
    if depth * np.log(branching) > np.log(MOST_ITEMS):
        raise DataError(
            f"A tree of depth {depth} with {branching} branches has more than {MOST_ITEMS} items: make it smaller."
        )
    count = branching**depth
    Y = np.concatenate(
        [np.kron(np.eye(branching**l), np.ones((branching ** (depth - l), 1))) for l in range(depth + 1)], 1
    )
    # Contrasts between the branches of one node, orthonormal: each branch against those before it.
    contrasts = np.zeros((branching, branching - 1))
    for j in range(1, branching):
        contrasts[:j, j - 1], contrasts[j, j - 1] = 1, -j
    contrasts /= np.sqrt(np.sum(contrasts**2, axis=0))
    vectors, levels = [np.full((count, 1), count**-0.5)], [0]
    for l in range(1, depth + 1):
        below = branching ** (depth - l)
        spread = np.kron(contrasts, np.ones((below, 1))) / np.sqrt(below)
        vectors.append(np.kron(np.eye(branching ** (l - 1)), spread))
        levels += [l] * vectors[-1].shape[1]
    items, levels = np.concatenate(vectors, axis=1), np.array(levels)
    # Whole numbers, exactly.
    squares = np.array([(branching ** (depth - l + 1) - 1) // (branching - 1) for l in range(depth + 1)], float)
    sigma = np.sqrt(squares[levels])
    names = [f"level {l}, node {i}" for l in range(depth + 1) for i in range(branching**l)]
    description = (
        f"items of a tree of depth {depth} with {branching} branches; targets: its nodes, 1 for the items below"
    )
    dataset = Dataset(
        np.eye(count), Y, "hierarchy", description, tuple(f"item {i}" for i in range(count)), tuple(names)
    )
    return Hierarchy(dataset, sigma, levels, items, Y.T @ items / sigma)
