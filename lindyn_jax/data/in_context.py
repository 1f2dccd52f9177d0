"""Linear regression in context, as merged linear attention sees it: a two-layer network of cubic features."""

import numpy as np
from jaxtyping import Float

from .._public import public
from ._common import Count, DataError, Dataset, whole


@public
def in_context(
    *,
    dim: Count = 4,
    length: Count = 32,
    samples: Count = 5000,
    eigenvalues: Float[np.ndarray, " d"] | None = None,
    seed: Count = 0,
) -> Dataset:
    """Cubic features of sequences `x_1, w^T x_1, ..., x_N, w^T x_N, x`, each with a w of its own, and the target w^T x.

    Linear attention with merged key and query answers `sum_h v_h b^T W_h x` with `b = (1/N) sum_i w^T x_i x_i` (weights that
    begin at zero and stay there left out). In the features `z = vec(b x^T)` that is the two-layer network with the columns
    `vec(W_h)` of U and `v_h` of V: a hidden neuron is a head.

    **Args:** `dim`, of x; `length`, N; `samples`, sequences; `eigenvalues`, shape (dim,), of the covariance of x, along
    the axes, all 1/dim by default; `seed`, of NumPy's `default_rng`, from which w, the x_i and x are drawn, all normal.

    **Returns:** a `Dataset` with X of shape (samples, dim^2) and Y of shape (samples, 1).

    **Raises:** `DataError` for sizes below 1, a negative seed, or eigenvalues that are not `dim` positive numbers.

    **Notes:** `theory.in_context_covariances` has the moments of infinitely many sequences, `theory.growing_modes` the time at
    which the loss drops.

    **Source:** Zhang, Singh, Latham and Saxe (2025).

    Example:

        >>> drawn = ld.data.in_context(dim=2, length=10)
        >>> print(drawn.X.shape, drawn.Y.var())  # E (w^T x)^2 = tr(I/2) = 1
        (5000, 4) 1.020
        >>> print(ld.LeastSquares(drawn.X, drawn.Y, scale="mean").theta_hat.reshape(2, 2))  # nearly a multiple of I
        [[ 1.499 0.009545]
         [-0.05274 1.506]]
    """
    dim, length, samples = (
        whole(value, name, least=1) for value, name in ((dim, "dim"), (length, "length"), (samples, "samples"))
    )
    rng = np.random.default_rng(whole(seed, "seed", least=0))
    values = np.full(dim, 1 / dim) if eigenvalues is None else np.asarray(eigenvalues, float)
    if values.shape != (dim,) or not np.all((values > 0) & np.isfinite(values)):
        raise DataError(f"Argument `eigenvalues` must be {dim} positive numbers, but is {values.tolist()}.")
    w = rng.normal(size=(samples, dim))
    context = rng.normal(size=(samples, length, dim)) * np.sqrt(values)
    query = rng.normal(size=(samples, dim)) * np.sqrt(values)
    b = np.einsum("sld,se,sle->sd", context, w, context, optimize=True) / length
    features = (b[:, :, None] * query[:, None, :]).reshape(samples, dim * dim)
    description = f"cubic features of sequences of {length} in {dim} dimensions, seed {seed}; targets: answers"
    return Dataset(features, np.sum(w * query, axis=1, keepdims=True), "in-context", description)
