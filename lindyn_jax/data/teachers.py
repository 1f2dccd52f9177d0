"""Linear teachers with a spectrum that is chosen, on inputs whose covariance has one too, and its decomposition by hand."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

from .._public import public
from ._common import Count, DataError, Dataset, whole


class Teacher(NamedTuple):
    """Data of a linear teacher, and what they are made of.

    **Fields:** `dataset`; `Theta`, the teacher, shape (n, m), with the singular values `sigma`, shape (k,), and vectors `left`,
    (n, k), and `right`, (m, k), as columns; `variances`, shape (n,), of the inputs along `directions`, (n, n), as columns;
    `correlation`, shape (k,), the singular values of `Sigma Theta` along `left` and `right` where the two are aligned, or `None`.

    Example:

        >>> made = ld.data.teacher(n=3, m=2, spectrum=[2, 1], variances=[4, 1, 1])
        >>> print(np.linalg.svd(made.Theta)[1], made.correlation)  # sigma, and sigma times variance
        [2. 1.] [8. 1.]
    """

    dataset: Dataset
    Theta: Float[np.ndarray, "n m"]
    sigma: Float[np.ndarray, " k"]
    left: Float[np.ndarray, "n k"]
    right: Float[np.ndarray, "m k"]
    variances: Float[np.ndarray, " n"]
    directions: Float[np.ndarray, "n n"]
    correlation: Float[np.ndarray, " k"] | None


@public
def power_law(n: Count, exponent: float | int) -> Float[np.ndarray, " n"]:
    """Variances that fall as a power, `i^{-exponent}` for i = 1, ..., n: those of inputs, or a spectrum of a teacher.

    **Args:** `n`, how many; `exponent`, at least 0.

    **Raises:** `DataError` for an n below 1, or an exponent that is negative or so large that variances vanish.

    Example:

        >>> print(ld.data.power_law(4, 1.0))
        [1. 0.5 0.3333 0.25 ]
    """
    n = whole(n, "n", least=1)
    if not (exponent >= 0 and exponent * math.log10(n) < 300):
        raise DataError(
            f"Argument `exponent` must be at least 0, and small enough for no variance to vanish, but is {exponent}."
        )
    return np.arange(1.0, n + 1) ** -exponent


@public
def spiked(n: Count, spikes: Sequence[float | int] | Real[np.ndarray, " k"]) -> Float[np.ndarray, " n"]:
    """Variances of a spiked covariance, `1 + spike` in a few directions and 1 in all others.

    **Args:** `n`, how many directions; `spikes`, by how much the variance is larger than 1 in the first ones, above -1.

    **Raises:** `DataError` for an n below 1, more spikes than directions, or one of -1 or less.

    **Source:** Johnstone (2001).

    Example:

        >>> print(ld.data.spiked(4, [3.0, 1.0]))
        [4. 2. 1. 1.]
    """
    n = whole(n, "n", least=1)
    if len(spikes) > n or not all(math.isfinite(spike) and spike > -1 for spike in spikes):
        raise DataError(f"Argument `spikes` must be at most n = {n} finite numbers above -1, but is {tuple(spikes)}.")
    return 1.0 + np.pad(np.array(spikes, float), (0, n - len(spikes)))


@public
def teacher(
    *,
    n: Count = 20,
    m: Count = 5,
    spectrum: Sequence[float | int] | Real[np.ndarray, " k"] = (3, 2, 1),
    variances: Sequence[float | int] | Real[np.ndarray, " n"] | None = None,
    samples: Count | None = None,
    aligned: bool = True,
    noise: float | int = 0.0,
    seed: Count = 0,
) -> Teacher:
    r"""A linear teacher of low rank: `Y = X Theta + noise * epsilon` with `Theta = L diag(spectrum) R^T`.

    The inputs have the covariance `Sigma = E diag(variances) E^T`. An aligned teacher has the first columns of E as L: then the
    modes are learned one by one, `Sigma Theta = L diag(variances * spectrum) R^T` is their decomposition, and from an aligned
    start mode i is `exact.aligned(correlation_i, variances_i, d, t)`.

    **Args:**

    - `n`, `m`: numbers of inputs and outputs.
    - `spectrum`: the k positive singular values of Theta, its rank being their number: `power_law(k, a)` for a power law.
    - `variances`: of the inputs, n positive numbers, by default 1: `power_law(n, a)`, `spiked(n, spikes)`, or your own.
    - `samples`: N, Gaussian inputs. By default none are drawn: X is `diag(variances)^{1/2} E^T`, `X^T X = Sigma`, and without
        noise all decompositions hold to the last digits.
    - `aligned`: whether L are the first columns of E; otherwise it is random, and `correlation` is `None`.
    - `noise`: a standard deviation.
    - `seed`: of NumPy's `default_rng`, from which E, R, L (unless aligned), X and epsilon are drawn in this order.

    **Returns:** a `Teacher`.

    **Raises:** `DataError` for sizes below 1, a rank above min(n, m), numbers that are not positive, or a negative seed or noise.

    **Source:** as in Saxe, McClelland and Ganguli (2014) and G19 section 4.1, with the decomposition chosen.

    Example:

        >>> made = ld.data.teacher(n=3, m=2, spectrum=[2, 1], variances=ld.data.power_law(3, 1.0))
        >>> problem = ld.LeastSquares(made.dataset.X, made.dataset.Y)
        >>> print(problem.singular_values**2)
        [1. 0.5 0.3333]
        >>> print(np.abs(problem.theta_hat - made.Theta).max() < 1e-12)
        True
    """
    n, m = whole(n, "n", least=1), whole(m, "m", least=1)
    seed, count = whole(seed, "seed", least=0), n if samples is None else whole(samples, "samples", least=1)
    if not 1 <= len(spectrum) <= min(n, m) or not all(math.isfinite(value) and value > 0 for value in spectrum):
        raise DataError(
            f"Argument `spectrum` must be 1 to min(n, m) = {min(n, m)} positive numbers, but is {tuple(spectrum)}."
        )
    if variances is not None and (len(variances) != n or not all(math.isfinite(v) and v > 0 for v in variances)):
        raise DataError(f"Argument `variances` must be n = {n} positive numbers, but is {tuple(variances)}.")
    if not (math.isfinite(noise) and noise >= 0):
        raise DataError(f"Argument `noise` must be a finite standard deviation of at least 0, but is {noise}.")
    sigma, var = np.array(spectrum, float), np.ones(n) if variances is None else np.array(variances, float)
    rng, k = np.random.default_rng(seed), len(spectrum)
    E, right = _frame(rng, n, n), _frame(rng, m, k)
    left = E[:, :k] if aligned else _frame(rng, n, k)
    Theta = (left * sigma) @ right.T
    X = (np.eye(n) if samples is None else rng.normal(size=(count, n))) * np.sqrt(var) @ E.T
    Y = X @ Theta + noise * rng.normal(size=(count, m))
    inputs = "inputs with X^T X = Sigma exactly" if samples is None else "Gaussian inputs"
    kind = "aligned" if aligned else "random"
    description = f"{inputs}, seed {seed}; targets: {kind} linear teacher of rank {k} with noise {noise:g}"
    dataset = Dataset(X, Y, "teacher", description)
    return Teacher(dataset, Theta, sigma, left, right, var, E, var[:k] * sigma if aligned else None)


def _frame(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Uniform orthonormal columns."""
    Q, R = np.linalg.qr(rng.normal(size=(rows, columns)))
    return Q * np.where(np.diag(R) < 0, -1.0, 1.0)
