r"""Singular values of Gaussian matrices and of products, on which the proof of Lemma 11 rests (M22 appendix E)."""

import jax.numpy as jnp
from jaxtyping import ArrayLike, Float, Real

from .. import _checks
from .._finite import elementwise, of_finite_numbers
from .._public import public
from .._statement import Statement
from ..exact._common import as_floats


@public
@elementwise
def lemma_e1(n: Real[ArrayLike, "..."], m: Real[ArrayLike, "..."], t: Real[ArrayLike, "..."]) -> Statement:
    r"""Singular values of an n x m matrix of independent N(0, 1) entries, with probability at least `1 - 2 e^{-t^2/2}`.

    `sqrt(n) - sqrt(m) - t <= sigma_m(A) <= sigma_1(A) <= sqrt(n) + sqrt(m) + t`. Hypotheses: `1 <= m <= n` and t > 0.

    **Args:** `n`, `m`, sizes, which may be traced; `t`, how far the tails reach; shapes that broadcast together.

    **Returns:** a `Statement` on `upper`, at least the largest, and `lower`, at most the least (of no use where it is
    negative); `probability`, at least that of both; multiply by the standard deviation for entries of another.

    **Raises:** `ValueError` for infinite or NaN arguments, where they are known.

    **Notes:** the paper prints the probability `1 - 2 e^{-t^2}`, which n = m = 1 exceeds at t = 6: `P(|A| > 8) = 1.2e-15` and
    `2 e^{-36} = 4.6e-16`. With the exponent of Davidson and Szarek failure delta needs `t = sqrt(2 log(2/delta))`, the constant
    that `lemma11` offers beside the printed one.

    **Source:** M22 Lemma E.1, corrected; Davidson and Szarek (2001), Theorem 2.13.

    Example:

        >>> found = ld.theory.lemma_e1(1000, 2, 3.0)
        >>> singular_values = np.linalg.svd(np.random.default_rng(0).normal(size=(1000, 2)), compute_uv=False)
        >>> float(found.lower), singular_values.tolist(), float(found.upper), float(found.probability)
        (27.21, [32.32, 30.95], 36.04, 0.9778)
    """
    n, m, t = jnp.broadcast_arrays(*as_floats(n=n, m=m, t=t))
    applies = (m >= 1) & (m <= n) & (t > 0)
    root_n, root_m = (jnp.sqrt(jnp.maximum(size, 0)) for size in (n, m))
    probability = -jnp.expm1(jnp.log(2.0) - t**2 / 2)
    return Statement(root_n + root_m + t, applies, name="upper", lower=root_n - root_m - t, probability=probability)


@public
@of_finite_numbers
def lemma_e2(A: Float[ArrayLike, "k n"], B: Float[ArrayLike, "n m"]) -> Statement:
    r"""Singular values of a product from below: `sigma_i(A) sigma_n(B) <= sigma_i(A B)`, `1 <= i <= min(k, n)`.

    Hypothesis: `n <= m`. For n > m the right-hand side has fewer than n values, and the bound is 0.

    **Args:** `A`, shape (k, n), and `B`, shape (n, m).

    **Returns:** a `Statement` on `sigma_i(A B)`, shape (p,), p = min(k, n), and `lower`, shape (p,), at most these.

    **Raises:** `ValueError` for matrices that cannot be multiplied.

    **Source:** M22 Lemma E.2.

    Example:

        >>> found = ld.theory.lemma_e2(np.diag([2.0, 1.0]), np.array([[1.0, 1.0], [0.0, 1.0]]))
        >>> found.lower.tolist(), found.value.tolist()
        ([1.236, 0.618], [2.921, 0.6847])
    """
    A, B = _checks.as_matrix(A, "A", "(k, n)"), _checks.as_matrix(B, "B", "(n, m)")
    if A.shape[1] != B.shape[0]:
        raise ValueError(
            f"Arguments `A` (k, n) and `B` (n, m) must have the same n, but have {A.shape[1]} and {B.shape[0]}."
        )
    k, (n, m) = A.shape[0], B.shape
    first, second, product = (jnp.linalg.svd(M, compute_uv=False) for M in (A, B, A @ B))
    p = min(k, n)
    lower = first * second[n - 1] if n <= m else jnp.zeros_like(first)
    return Statement(jnp.pad(product, (0, max(p - product.shape[0], 0)))[:p], n <= m, lower=lower)
