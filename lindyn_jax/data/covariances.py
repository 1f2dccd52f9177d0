"""How far data are from those whose components are learned one by one: G19's two measures of its Table 1."""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float, Real

from .._public import public
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

    Example:

        >>> found = ld.data.commutation(np.diag([2.0, 1.0, 1.0]), np.diag([1.0, 2.0, 3.0]))
        >>> print(found.delta_xy, found.rank, found.sigma)  # they commute; sigma of X^T Y/3
        0.0 3 [1.         0.6667 0.6667]
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


@public
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

    **Notes:** in float64. Singular values of Sigma_xy below 16 times the machine epsilon times `||X||_F ||Y||_F/N`, what rounding
    makes of a zero, count as zero. With fewer samples than inputs no n x n matrix is formed.
    Singular vectors of repeated singular values are arbitrary as well. The completion with most outside the diagonal has all
    entries equal that its block has on the diagonal.

    **Source:** G19 Table 1 and (27), with the completion named.

    Example:

        >>> X = np.array([[1.0, 1.0], [0.0, 1.0]])
        >>> print(f"{ld.data.commutation(X, X).delta_xy:.4f}", ld.data.commutation(X, np.diag([1.0, 3.0])).delta_xy)
        0.0000 0.4638
        >>> print(ld.data.commutation(np.eye(2), X).delta_x < 1e-12)  # whitened inputs
        True
    """
    if completion not in COMPLETIONS:
        raise DataError(f"Argument `completion` must be one of {', '.join(COMPLETIONS)}, but is {completion!r}.")
    data = checked(np.asarray(X), np.asarray(Y), source="the arguments", name="", description="")
    num_samples, n = data.X.shape
    # By powers of two, so that no square overflows and no digit changes.
    unit_x, unit_y = _unit(data.X), _unit(data.Y)
    if unit_x == 0:
        raise DataError("Argument `X` is zero: its directions cannot be compared with those of `Y`.")
    X, Y = data.X / unit_x, data.Y / (unit_y or 1)
    Sigma, C, basis = _coordinates(X, Y)
    k = len(Sigma)
    size = np.linalg.norm(Sigma)
    P, sigma, _ = np.linalg.svd(C, full_matrices=True) if C.shape[1] < k else np.linalg.svd(C, full_matrices=False)
    # What the rounding errors of the products alone can make of a zero.
    rank = int(np.sum(sigma > 16 * np.finfo(float).eps * np.linalg.norm(X) * np.linalg.norm(Y) / num_samples))
    ours, rest = P[:, :rank], P[:, rank:]
    inside, across, complement = ours.T @ Sigma @ ours, ours.T @ Sigma @ rest, rest.T @ Sigma @ rest
    bound = np.sum(inside**2) - np.sum(np.diag(inside) ** 2) + 2 * np.sum(across**2)
    spread = np.sum(complement**2) - np.trace(complement) ** 2 / max(n - rank, 1)
    if completion == "svd":
        lam, delta, spectral = _arbitrary(X, Y, Sigma, P, basis)
    else:
        turned = ours
        if completion == "diagonal":
            turned = np.concatenate([ours, rest @ np.linalg.eigh(complement)[1]], axis=1)
        seen = turned.T @ Sigma @ turned
        lam = np.diag(seen).copy()
        off = seen - np.diag(lam)
        delta, spectral = np.linalg.norm(off), np.linalg.norm(off, ord=2) if off.size else 0.0
        if completion == "diagonal":
            # Outside the rows of X there is nothing to see; in the order of `eigh` that comes behind the components.
            lam = np.concatenate([lam[:rank], np.zeros(n - k), lam[rank:]])
    least, most = np.sqrt(max(bound, 0)), np.sqrt(max(bound + spread, 0))
    # ||Sigma/||Sigma|| - I/sqrt(n)||^2 over all n directions, those outside the rows of X being (n - k)/n of the identity.
    to_identity = np.sum((Sigma / size - np.eye(k) / np.sqrt(n)) ** 2) + (n - k) / n
    sigma = np.concatenate([sigma, np.zeros(min(n, Y.shape[1]) - len(sigma))])
    # In squared units, which may be too large for a number: infinity then.
    with np.errstate(over="ignore"):
        sigma, lam = sigma * unit_x * unit_y, lam * unit_x * unit_x
    return Commutation(
        float(delta / size),
        float(least / size),
        float(most / size),
        float(spectral / np.linalg.norm(Sigma, ord=2)),
        float(np.sqrt(to_identity) / 2),
        rank,
        completion,
        sigma,
        lam,
    )


def _unit(array: np.ndarray) -> float:
    """The power of two that brings the largest entry to about 1; zero for zeros."""
    largest = np.max(np.abs(array))
    return float(2.0 ** np.floor(np.log2(largest))) if largest > 0 else 0.0


def _coordinates(X: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Sigma_x and Sigma_xy in k = min(N, n) coordinates that hold all rows of X, and the basis of these; `None` is the identity.

    With fewer samples than inputs nothing of size n x n is formed.
    """
    num_samples, n = X.shape
    if num_samples >= n:
        return X.T @ X / num_samples, X.T @ Y / num_samples, None
    basis, R = np.linalg.qr(X.T)
    return R @ R.T / num_samples, R @ Y / num_samples, basis


def _arbitrary(X, Y, Sigma, P, basis) -> tuple[np.ndarray, float, float]:
    """Diagonal of Phi^T Sigma_x Phi, and what is outside of it in the two norms, with LAPACK's completion.

    LAPACK completes a tall matrix by the product of its Householder reflections, which are applied to X one after another.
    """
    num_samples, n = X.shape
    if basis is None and 11 * Y.shape[1] > 6 * n:
        seen = P.T @ Sigma @ P
        off = seen - np.diag(np.diag(seen))
        return np.diag(seen).copy(), float(np.linalg.norm(off)), float(np.linalg.norm(off, ord=2))
    # Of what is wider than the rows of X only its range is known better than to rounding errors.
    wide = 11 * Y.shape[1] > 6 * n or Y.shape[1] > len(Sigma)
    tall = basis @ P[:, : len(Sigma)] if wide else X.T @ Y / num_samples
    reflections, scales = np.linalg.qr(tall, mode="raw")
    turned = X.copy()
    for i, scale in enumerate(scales):
        v = np.concatenate([np.zeros(i), [1.0], reflections[i, i + 1 :]])
        turned -= np.outer(turned @ v, scale * v)
    # Within the first columns the singular vectors are another basis of the same space.
    count = len(scales)
    inner = np.linalg.svd(np.triu(reflections[:, :count].T))[0]
    turned[:, :count] = turned[:, :count] @ inner
    seen = turned / np.sqrt(num_samples)
    lam = np.sum(seen**2, axis=0)
    squares = 0.0
    for begin in range(0, n, 256):
        part = seen.T @ seen[:, begin : begin + 256]
        part[np.arange(begin, begin + part.shape[1]), np.arange(part.shape[1])] = 0
        squares += np.sum(part**2)
    return lam, float(np.sqrt(squares)), _spectral_norm(seen, lam)


def _spectral_norm(seen: np.ndarray, lam: np.ndarray) -> float:
    """Largest absolute eigenvalue of `seen^T seen - diag(lam)`."""
    n = seen.shape[1]
    if n <= max(512, 2 * seen.shape[0]):
        return float(np.linalg.norm(seen.T @ seen - np.diag(lam), ord=2))
    from scipy.sparse.linalg import LinearOperator, eigsh

    class Difference(LinearOperator):
        def _matvec(self, v: np.ndarray) -> np.ndarray:
            return seen.T @ (seen @ v) - lam * v.ravel()

    operator = Difference(float, (n, n))
    start = np.random.default_rng(0).normal(size=n)

    def end(which: str) -> float:
        return float(eigsh(operator, k=1, which=which, v0=start, ncv=64, return_eigenvectors=False)[0])

    above = end("LA")
    # No eigenvalue is below that of the diagonal alone.
    return above if above >= np.max(lam) else max(above, -end("SA"))
