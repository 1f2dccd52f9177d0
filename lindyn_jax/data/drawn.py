"""Data drawn on the spot: the papers' synthetic settings."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from .._public import public
from ._common import Count, DataError, Dataset, whole


@public
def gaussian(
    *, n: Count = 500, samples: Count = 100, m: Count = 1, noise: float | int = 0.01, seed: Count = 0
) -> Dataset:
    """Gaussian inputs and noisy linear targets, `Y = X Theta + noise * epsilon`.

    The entries of X and of Theta are independent N(0, 1/n), those of epsilon N(0, 1); M22's Fig. 7 with the defaults.

    **Args:** `n`, `samples` (N) and `m`, the sizes; `noise`, a standard deviation, 0 for none; `seed`, of NumPy's
    `default_rng`, from which X, Theta and epsilon are drawn in this order.

    **Returns:** a `Dataset` with X of shape (N, n) and Y of shape (N, m).

    **Raises:** `DataError` for sizes below 1, a negative seed or noise.

    **Source:** M22 Fig. 7: 500 inputs, 100 samples, one output, noise of standard deviation .01.

    Example:

        >>> made = ld.data.gaussian()
        >>> problem = ld.LeastSquares(made.X, made.Y)
        >>> print(made.X.shape, problem.rank, made.X.var() * 500)  # entries N(0, 1/500)
        (100, 500) 100 1.003
    """
    n, samples, m = (whole(value, name, least=1) for value, name in ((n, "n"), (samples, "samples"), (m, "m")))
    seed = whole(seed, "seed", least=0)
    if not (math.isfinite(noise) and noise >= 0):
        raise DataError(f"Argument `noise` must be a finite standard deviation of at least 0, but is {noise}.")
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(samples, n)) / math.sqrt(n)
    Theta = rng.normal(size=(n, m)) / math.sqrt(n)
    Y = X @ Theta + noise * rng.normal(size=(samples, m))
    description = f"inputs and linear map N(0, 1/n), seed {seed}; targets: linear with noise {noise:g}"
    return Dataset(X, Y, "gaussian", description)


@public
def autoencoder(dataset: Dataset) -> Dataset:
    """The same inputs with themselves as targets: a linear autoencoder.

    `Sigma_xy = Sigma_x`, so that the two commute and the components are learned in the order of the principal components.

    **Args:** `dataset`, of which only the inputs are used.

    **Returns:** a `Dataset` with Y = X.

    **Source:** G19 section 3.1, (14), and section 4.2.

    Example:

        >>> digits = ld.data.autoencoder(ld.data.load("digits"))
        >>> print(digits.Y.shape, f"{ld.data.commutation(digits.X, digits.Y).delta_xy:.4f}")
        (1797, 64) 0.0000
    """
    return dataset._replace(
        Y=dataset.X,
        description=f"{dataset.description}; autoencoder: the targets are the inputs",
        target_names=dataset.feature_names,
    )


@public
def low_rank(
    *,
    n: Count = 20,
    samples: Count = 1000,
    variances: Sequence[float | int] = (4, 2, 1, 0.5, 0.25),
    noise: float | int = 1e-3,
    seed: Count = 0,
) -> tuple[Dataset, Float[np.ndarray, "n n"]]:
    """G19's autoencoder data, close to a subspace: `x = B z + noise * epsilon`, with themselves as targets.

    B, of shape (n, rank), has entries uniform on [0, 1]; z is N(0, diag(variances)) and epsilon N(0, I).

    **Args:** `n` and `samples` (N), the sizes; `variances`, positive, one for each dimension of the subspace; `noise`, a
    standard deviation; `seed`, of NumPy's `default_rng`, from which B, z and epsilon are drawn in this order.

    **Returns:** a `Dataset` with X and Y = X of shape (N, n), and the projector `P = B B^+` onto the subspace, which the network
    comes close to while it has learned all of the subspace and none of the noise.

    **Raises:** `DataError` for sizes below 1, more variances than inputs, or a negative seed, variance or noise.

    **Notes:** the printed target `B D B^T` is no product that the network comes close to; the projector is.

    **Source:** G19 Fig. 2, with the target corrected.

    Example:

        >>> made, projector = ld.data.low_rank(n=10, noise=1e-3)
        >>> left = made.X - made.X @ projector
        >>> print(np.linalg.matrix_rank(projector), np.linalg.norm(left) / (1000 * (10 - 5)) ** 0.5)  # the noise
        5 0.0009996
    """
    n, samples, seed = whole(n, "n", least=1), whole(samples, "samples", least=1), whole(seed, "seed", least=0)
    if not 1 <= len(variances) <= n or not all(math.isfinite(v) and v > 0 for v in variances):
        raise DataError(f"Argument `variances` must be 1 to n = {n} positive numbers, but is {tuple(variances)}.")
    if not (math.isfinite(noise) and noise >= 0):
        raise DataError(f"Argument `noise` must be a finite standard deviation of at least 0, but is {noise}.")
    rng = np.random.default_rng(seed)
    B = rng.uniform(size=(n, len(variances)))
    X = rng.normal(size=(samples, len(variances))) * np.sqrt(variances) @ B.T + noise * rng.normal(size=(samples, n))
    Q, _ = np.linalg.qr(B)
    description = f"{len(variances)} dimensions in {n} inputs, noise {noise:g}, seed {seed}; targets: the inputs"
    return Dataset(X, X, "low-rank", description), Q @ Q.T
