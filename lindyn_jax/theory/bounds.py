r"""Bounds on the rate at one state (M22 Lemmas 7 and 8, Proposition 1).

Lemma 7 bounds the rate over all errors, Lemma 8 the layers by their imbalance and their product, and Proposition 1 puts the two
together.
"""

import jax.numpy as jnp
from jaxtyping import Array

from .._finite import of_finite_state
from .._public import public
from .._statement import Statement
from ..models import AbstractModel
from ..problems import AbstractProblem, LeastSquares
from ._numerics import hypot, singular_value
from .imbalance import SpectrumEdges, hidden_width, moving_layers, spectrum_edges


@public
@of_finite_state
def lemma7(model: AbstractModel, problem: LeastSquares) -> Statement:
    """Lower bound on the instantaneous rate by the least eigenvalues of the layers; it needs no hypothesis.

    `2q lambda_r (lambda_r(U1 U1^T) + lambda_m(V V^T))`.

    **Args:** `model`, `problem`.

    **Returns:** a `Statement` on the bound, a number.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Source:** M22 Lemma 7.

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> model = ld.init.with_imbalance(problem, problem.Y / 2, np.array([2.0, 1.0]), np.array([1.0, 0.5]), 4)
        >>> float(ld.theory.lemma7(model, problem).value), float(ld.theory.instantaneous_rate(model, problem))
        (3.606, 6.49)
    """
    problem.refuse_link("lemma7")
    U1, V = moving_layers(model, problem)
    first = singular_value(jnp.linalg.svd(U1, compute_uv=False), U1.shape[0])
    second = singular_value(jnp.linalg.svd(V, compute_uv=False), V.shape[0])
    return always(2 * problem.scale * problem.singular_values[-1] ** 2 * (first**2 + second**2))


@public
@of_finite_state
def lemma8(model: AbstractModel, problem: AbstractProblem) -> Statement:
    r"""Lower bounds on the least eigenvalues of the layers by their imbalance and their product; no hypothesis.

    `lambda_m(V V^T) >= (-x + y + sqrt((x + y)^2 + 4 sigma_m(U1 V^T)^2))/2`, with `x = [lambda_1(D)]_+` and
    `y = [lambda_m(-D)]_+`; the bound on `lambda_r(U1 U1^T)` has -D for D and r for m.

    **Args:** `model`; `problem`, of any kind: the bounds are about the state alone.

    **Returns:** a `Statement` on `first`, at most lambda_r(U1 U1^T), and `second`, at most lambda_m(V V^T).

    **Raises:** `ValueError` if the model's shapes do not fit the problem.

    **Source:** M22 Lemma 8.

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> model = ld.init.with_imbalance(problem, problem.Y / 2, np.array([2.0, 1.0]), np.array([1.0, 0.5]), 4)
        >>> bounds = ld.theory.lemma8(model, problem)
        >>> float(bounds.first), float(jnp.linalg.eigvalsh(model.U @ model.U.T)[0])
        (1.118, 1.151)
        >>> float(bounds.second), float(jnp.linalg.eigvalsh(model.V @ model.V.T)[0])
        (0.5963, 0.6514)
    """
    first, second = layer_bounds(spectrum_edges(model, problem), *product_edges(model, problem))
    return Statement(first, jnp.isfinite(first + second), name="first", second=second)


@public
@of_finite_state
def rate_bound(model: AbstractModel, problem: LeastSquares) -> Statement:
    r"""Lower bound on the instantaneous rate by imbalance and product, for every r, m and h; it needs no hypothesis.

    `q lambda_r (-Delta+ + sqrt((Delta+ + Delta)^2 + 4 sigma_m(U1 V^T)^2)
    - Delta- + sqrt((Delta- + Delta)^2 + 4 sigma_r(U1 V^T)^2))`.

    **Args:** `model`, `problem`.

    **Returns:** a `Statement` on the bound, a number.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Notes:** an equality for r = m = 1 at every width. Computed as twice the sum of Lemma 8's bounds, in which nothing
    cancels. It would be false with U in the place of U1.

    **Source:** M22 Proposition 1, (17).

    Example:

        >>> problem, model = ld.factorization(np.eye(1)), ld.TwoLayer(np.array([[1.0, 0.5]]), np.array([[0.3, 0.2]]))
        >>> float(ld.theory.rate_bound(model, problem).value), float(ld.theory.instantaneous_rate(model, problem))
        (2.76, 2.76)
    """
    problem.refuse_link("rate_bound")
    first, second = layer_bounds(spectrum_edges(model, problem), *product_edges(model, problem))
    return always(2 * problem.scale * problem.singular_values[-1] ** 2 * (first + second))


def layer_bounds(edges: SpectrumEdges, sigma_m: Array, sigma_r: Array) -> tuple[Array, Array]:
    """Lemma 8, with sigma_m and sigma_r those of the product or of what stands for it."""
    first = _half_gap(edges.negative_max, edges.positive_min, sigma_r)
    second = _half_gap(edges.positive_max, edges.negative_min, sigma_m)
    return first, second


def _half_gap(x: Array, y: Array, sigma: Array) -> Array:
    """(-x + y + sqrt((x + y)^2 + 4 sigma^2))/2 for x, y, sigma >= 0, as a sum of nonnegative terms.

    The square root's excess over x is `(y (2x + y) + 4 sigma^2)/(x + root)`.
    """
    root = hypot(x + y, 2 * sigma)
    total = x + root
    safe = jnp.where(total == 0, 1, total)
    return (y + y * ((2 * x + y) / safe) + 2 * sigma * (2 * sigma / safe)) / 2


def product_edges(model: AbstractModel, problem: AbstractProblem) -> tuple[Array, Array]:
    """sigma_m and sigma_r of U1 V^T."""
    U1, V = moving_layers(model, problem)
    values = jnp.linalg.svd(U1 @ V.T, compute_uv=False)
    # Beyond the width the product has no singular values; round-off, also that of padding columns, must not count as one.
    sigma_m, sigma_r = (
        jnp.where(hidden_width(model, problem) < index, 0, singular_value(values, index))
        for index in (V.shape[0], U1.shape[0])
    )
    return sigma_m, sigma_r


def always(value: Array) -> Statement:
    """A statement without hypotheses."""
    return Statement(value, jnp.isfinite(value))
