"""What the flow of a network conserves, and by how much a step of descent changes it.

The flow conserves `W_l^T W_l - W_{l+1} W_{l+1}^T` for every hidden layer: gradients with respect to neighbouring layers satisfy
`W_l^T g_l = g_{l+1} W_{l+1}^T`. A step of descent therefore changes it by the terms of second order alone.
"""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._public import public
from ..models import DeepLinear, TwoLayer
from ..problems import AbstractProblem
from ..reduction import check_fits


@public
def imbalances(model: TwoLayer | DeepLinear) -> tuple[Float[Array, "_ _"], ...]:
    """`W_l^T W_l - W_{l+1} W_{l+1}^T` for every hidden layer; `U^T U - V^T V` for two layers.

    **Args:** `model`, at full size, since the matrices are of the size of the hidden layers.

    **Returns:** a tuple of matrices, one of shape (d_l, d_l) for each hidden layer.

    **Raises:** `ValueError` for another kind of model.

    **Source:** T21 (13) for two layers; for more it follows from G19 (12) in the same way.

    Example:

        >>> ld.theory.imbalances(ld.TwoLayer(np.diag([2.0, 1.0]), np.eye(2)))[0].tolist()
        [[3.0, 0.0], [0.0, 0.0]]
    """
    return tuple(W.T @ W - after @ after.T for W, after in pairwise(model.layers))


@public
def descent_drift(
    model: TwoLayer | DeepLinear, problem: AbstractProblem, eta: Real[ArrayLike, ""]
) -> tuple[Float[Array, "_ _"], ...]:
    r"""By how much one step of plain descent changes the imbalances, exactly: `eta^2 (g_l^T g_l - g_{l+1} g_{l+1}^T)`.

    **Args:** `model`, before the step; `problem`, with or without a link; `eta`, the step size.

    **Returns:** a tuple of matrices, one of shape (d_l, d_l) for each hidden layer; for two layers
    `eta^2 (G_U^T G_U - G_V^T G_V)`.

    **Raises:** `ValueError` if the model's shapes do not fit the problem, or for a problem with a penalty, which moves
    the imbalance in first order.

    **Notes:** of second order in eta, so that over a fixed time, 1/eta steps, descent drifts by O(eta).

    **Source:** the identity `W_l^T g_l = g_{l+1} W_{l+1}^T`, this package's own.

    Example:

        >>> problem, model = ld.factorization(np.eye(1)), ld.TwoLayer(2 * np.eye(1), np.eye(1))
        >>> float(ld.theory.descent_drift(model, problem, 0.1)[0][0, 0])
        -0.03
        >>> (1.9**2 - 0.8**2) - (2.0**2 - 1.0**2)  # the step by hand
        -0.03
    """
    check_fits(model, problem)
    if problem.penalty is not None:
        raise ValueError(
            "The statement is about the flow of the loss alone, which conserves the imbalance, but the problem "
            f"{problem.penalty.beyond}: pass its `plain`, the problem without."
        )
    gradients = model.velocity(problem).layers
    return tuple(jnp.square(eta) * (g.T @ g - after @ after.T) for g, after in pairwise(gradients))


@public
def num_deep_conservation_laws(sizes: tuple[int, ...]) -> int:
    """Number of independent entries of all imbalances of a deep network at a generic point.

    The rank of the derivatives of the `W_l^T W_l - W_{l+1} W_{l+1}^T` with respect to all weights, found at a random point. For
    two layers it is `num_conservation_laws(n, m, h)`.

    **Args:** `sizes`, (n, h_1, ..., h_{L-1}, m): the inputs that the data reach, the hidden widths, the outputs.

    **Returns:** an integer.

    **Raises:** `ValueError` for fewer than two sizes, or sizes below 1.

    **Notes:** dense linear algebra of the size of all weights: for small networks. That a deep network has no further
    conserved functions is known for two layers and an observation for more.

    **Source:** MGP23.

    Example:

        >>> ld.theory.num_deep_conservation_laws((3, 2, 2)), ld.theory.num_deep_conservation_laws((3, 2, 2, 2))
        (3, 6)
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"Argument `sizes` must hold at least two positive integers, but is {sizes}.")
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=shape) for shape in pairwise(sizes)]
    starts = np.cumsum([0, *(W.size for W in layers)])
    rows = []
    for i, h in enumerate(sizes[1:-1]):
        for a in range(h):
            for b in range(a + 1):
                # d <K, W^T W> = <W (K + K^T), dW> for the matrix unit K = e_a e_b^T.
                K = np.zeros((h, h))
                K[a, b] += 1
                K[b, a] += 1
                row = np.zeros(starts[-1])
                row[starts[i] : starts[i + 1]] = (layers[i] @ K).ravel()
                row[starts[i + 1] : starts[i + 2]] = -(K @ layers[i + 1]).ravel()
                rows.append(row)
    return int(np.linalg.matrix_rank(np.stack(rows))) if rows else 0
