"""How far data are from those whose components are learned one by one: G19's two measures of its Table 1."""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Real

from ._common import DataError, checked

COMPLETIONS = ("svd", "diagonal", "thin")


class Commutation(NamedTuple):
    """Whether `Sigma_x = X^T X/N` and `Sigma_xy = X^T Y/N` have singular vectors in common.

    **Fields:**

    - `delta_xy`: `||offdiag(Phi^T Sigma_x Phi)||_F/||Sigma_x||_F`, 0 where the components decouple.
    - `delta_xy_least`, `delta_xy_most`: over all ways to complete Phi to a basis.
    - `delta_xy_spectral`: the same in spectral norms.
    - `delta_x`: `(1/2) ||Sigma_x/||Sigma_x||_F - I/||I||_F||_F`, 0 for whitened inputs, below .7072 for all.
    - `rank`: of Sigma_xy; below n the completion matters.
    - `completion`: the one that was used.
    - `sigma`: singular values of Sigma_xy, shape (p,) with p = min(n, m), descending.
    - `lam`: diagonal of `Phi^T Sigma_x Phi`, one number a column of Phi: what Sigma_x is along each component.
    """

    delta_xy: float
    delta_xy_least: float
    delta_xy_most: float
    delta_xy_spectral: float
    delta_x: float
    rank: int
    completion: str
    sigma: Float[np.ndarray, " p"]
    lam: Float[np.ndarray, " k"]


def commutation(X: Real[ArrayLike, "..."], Y: Real[ArrayLike, "..."], *, completion: str = "svd") -> Commutation:
    """G19's Delta_xy and Delta_x of inputs and targets.

    Phi holds the left singular vectors of Sigma_xy. Where its rank is below n they do not determine a basis, and Delta_xy is
    a number only with the way in which they are completed:

    - `"svd"`: as LAPACK's full singular value decomposition of Sigma_xy completes them, an arbitrary choice. Where the rank is
        below min(n, m) as well, as with centred one-hot targets, a part of it is rounding errors: the third digit, or the
        second, then differs from one machine to another;
    - `"diagonal"`: by the eigenvectors of Sigma_x on the complement, so that only what ties it to the correlated directions
        counts, and these among themselves: the least of all completions;
    - `"thin"`: not at all. Only the correlated directions among themselves count.

    **Args:** `X`, shape (N, n), and `Y`, shape (N, m) or (N,), as they are: centre them first for centred measures;
    `completion`, one of `COMPLETIONS`.

    **Returns:** a `Commutation`.

    **Raises:** `DataError` for wrong shapes, NaN or infinity, inputs that are all zero, or an unknown completion.

    **Notes:** in float64. Singular values below `max(N, n, m)` times the machine epsilon times the largest count as zero.
    Singular vectors of repeated singular values are arbitrary as well. The completion with most outside the diagonal has all
    entries equal that its block has on the diagonal.

    **Source:** G19 Table 1 and (20), with the completion named.
    """
    if completion not in COMPLETIONS:
        raise DataError(f"Argument `completion` must be one of {', '.join(COMPLETIONS)}, but is {completion!r}.")
    data = checked(np.asarray(X), np.asarray(Y), source="the arguments", name="", description="")
    X, Y = data.X, data.Y
    num_samples, n = X.shape
    Sigma_x, Sigma_xy = X.T @ X / num_samples, X.T @ Y / num_samples
    size = np.linalg.norm(Sigma_x)
    if size == 0:
        raise DataError("Argument `X` is zero: its directions cannot be compared with those of `Y`.")
    Phi, sigma, _ = np.linalg.svd(Sigma_xy, full_matrices=True)
    rank = int(np.sum(sigma > max(num_samples, *Sigma_xy.shape) * np.finfo(float).eps * sigma[0]))
    ours, rest = Phi[:, :rank], Phi[:, rank:]
    inside, complement = ours.T @ Sigma_x @ ours, rest.T @ Sigma_x @ rest
    within = np.sum(inside**2) - np.sum(np.diag(inside) ** 2)
    across = 2 * np.sum((ours.T @ Sigma_x @ rest) ** 2)
    spread = np.sum(complement**2) - np.trace(complement) ** 2 / max(n - rank, 1)
    if completion == "thin":
        Phi = ours
    elif completion == "diagonal":
        Phi = np.concatenate([ours, rest @ np.linalg.eigh(complement)[1]], axis=1)
    seen = Phi.T @ Sigma_x @ Phi
    off = seen - np.diag(np.diag(seen))
    return Commutation(
        float(np.linalg.norm(off) / size),
        float(np.sqrt(max(within + across, 0)) / size),
        float(np.sqrt(max(within + across + spread, 0)) / size),
        float(np.linalg.norm(off, ord=2) / np.linalg.norm(Sigma_x, ord=2)) if rank or completion != "thin" else 0.0,
        float(np.linalg.norm(Sigma_x / size - np.eye(n) / np.sqrt(n)) / 2),
        rank,
        completion,
        sigma,
        np.diag(seen).copy(),
    )
