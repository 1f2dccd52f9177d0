"""Imbalance: the conserved matrix `D = U1^T U1 - V^T V`, its spectrum, and the three numbers the bounds are made of.

Every statement of this folder takes a model and a problem and reads from them the moving rows `[U1; V]` in the data's
coordinates. **U1 = Phi1^T U and not U**: `U^T U - V^T V` is conserved as well, but bounds computed from it are false.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from .. import _checks
from .._finite import of_finite_state
from .._linalg import row_factor, signature_spectrum
from .._public import public
from ..models import AbstractModel
from ..problems import AbstractProblem
from ._numerics import norm


class Imbalance(NamedTuple):
    """Spreads and level of the imbalance spectrum.

    **Fields:** `plus`, Delta+, the spread of the positive part; `minus`, Delta-, the spread of the negative part; `level`,
    Delta, the level of imbalance.

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> model = ld.init.with_imbalance(problem, problem.Y, np.array([2.0, 1.0]), np.array([1.0, 0.5]), 4)
        >>> plus, minus, level = ld.theory.imbalance(model, problem)
        >>> float(plus), float(minus), float(level)
        (1.0, 0.5, 1.5)
    """

    plus: Float[Array, ""]
    minus: Float[Array, ""]
    level: Float[Array, ""]


class SpectrumEdges(NamedTuple):
    """Where the positive and the negative part of the spectrum of D begin and end; all four are at least 0.

    **Fields:** `positive_max`, `[lambda_1(D)]_+`; `positive_min`, `[lambda_r(D)]_+`; `negative_max`, `[lambda_1(-D)]_+`;
    `negative_min`, `[lambda_m(-D)]_+`.

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> edges = ld.theory.spectrum_edges(ld.TwoLayer(np.diag([2.0, 1.0]), 0.5 * np.eye(2)), problem)
        >>> float(edges.positive_max), float(edges.positive_min), float(edges.negative_max)
        (3.75, 0.75, 0.0)
    """

    positive_max: Float[Array, ""]
    positive_min: Float[Array, ""]
    negative_max: Float[Array, ""]
    negative_min: Float[Array, ""]


class Balance(NamedTuple):
    """The size of the imbalance, and whether it is within epsilon.

    **Fields:** `value`, `||D||_F`; `holds`.

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> found = ld.theory.balance(ld.TwoLayer(np.diag([2.0, 1.0]), np.eye(2)), problem, 0.1)
        >>> float(found.value), bool(found.holds)
        (3.0, False)
    """

    value: Float[Array, ""]
    holds: Bool[Array, ""]


@public
@of_finite_state
def imbalance(model: AbstractModel, problem: AbstractProblem) -> Imbalance:
    r"""Delta+, Delta- and Delta of a two-layer network.

    With eigenvalues in descending order and `[x]_+ = max(x, 0)`:

    `Delta+ = [lambda_1(D)]_+ - [lambda_r(D)]_+`, `Delta- = [lambda_1(-D)]_+ - [lambda_m(-D)]_+`,
    `Delta = [lambda_r(D)]_+ + [lambda_m(-D)]_+`.

    **Args:**

    - `model`: a network of two layers, reduced or not.
    - `problem`: r is the rank of its data and m its number of outputs.

    **Returns:** an `Imbalance`: three numbers `plus`, `minus`, `level`.

    **Raises:** `ValueError` if the model's shapes do not fit the problem.

    **Notes:** all three are conserved by the flow. Eigenvalues that a narrow network does not have count as zero, so
    Delta+ = lambda_1(D) for h < r. The cost does not depend on the width of a reduced model.

    **Source:** M22 section 3.2, (18) to (20).

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> model = ld.init.with_imbalance(problem, problem.Y / 2, np.array([2.0, 1.0]), np.array([1.0, 0.5]), 4)
        >>> jax.tree.map(float, ld.theory.imbalance(model, problem))
        Imbalance(plus=1.0, minus=0.5, level=1.5)
    """
    edges = spectrum_edges(model, problem)
    return Imbalance(
        edges.positive_max - edges.positive_min,
        edges.negative_max - edges.negative_min,
        edges.positive_min + edges.negative_min,
    )


@public
@of_finite_state
def spectrum_edges(model: AbstractModel, problem: AbstractProblem) -> SpectrumEdges:
    """The first and the r-th eigenvalue of D and the first and the m-th of -D, cut off at zero.

    **Args:** as for `imbalance`.

    **Returns:** a `SpectrumEdges`.

    **Raises:** `ValueError` if the model's shapes do not fit the problem.

    **Source:** M22 Lemma 8, (24) and (25); the names there are lambda-bar and lambda-underbar.

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> model = ld.init.with_imbalance(problem, problem.Y / 2, np.array([2.0, 1.0]), np.array([1.0, 0.5]), 4)
        >>> [float(edge) for edge in ld.theory.spectrum_edges(model, problem)]
        [2.0, 1.0, 1.0, 0.5]
    """
    spectrum = moving_spectrum(model, problem)
    k, r, m = spectrum.shape[0], problem.rank, problem.num_outputs
    zero, width = jnp.zeros((), spectrum.dtype), hidden_width(model, problem)

    def lowest(values, count):
        if k < count:
            return zero
        # Round-off leaves some 1e-16 where a padded network of fewer columns has an exact zero.
        return jnp.where(width < count, zero, jnp.maximum(values[count - 1], 0))

    return SpectrumEdges(
        jnp.maximum(spectrum[0], 0),
        lowest(spectrum, r),
        jnp.maximum(-spectrum[-1], 0),
        lowest(-spectrum[::-1], m),
    )


@public
def moving_spectrum(model: AbstractModel, problem: AbstractProblem) -> Float[Array, " k"]:
    """Eigenvalues of `D = U1^T U1 - V^T V`, descending, without h - k zeros; k = min(h, r + m).

    **Args:** as for `imbalance`.

    **Returns:** the eigenvalues, shape (k,).

    **Raises:** `ValueError` if the model's shapes do not fit the problem.

    **Notes:** computed from the triangular factor of [U1; V], so eigenvalues of very different size keep their digits.

    **Source:** M22 section 3.2, (16).

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> model = ld.init.with_imbalance(problem, problem.Y / 2, np.array([2.0, 1.0]), np.array([1.0, 0.5]), 4)
        >>> ld.theory.moving_spectrum(model, problem).tolist()
        [2.0, 1.0, -0.5, -1.0]
    """
    U1, V = moving_layers(model, problem)
    signs = jnp.concatenate([jnp.ones(U1.shape[0], U1.dtype), -jnp.ones(V.shape[0], V.dtype)])
    return signature_spectrum(jnp.concatenate([U1, V]), signs)


@public
@of_finite_state
def balance(model: AbstractModel, problem: AbstractProblem, epsilon: Float[ArrayLike, ""] | int) -> Balance:
    r"""Whether a two-layer network is epsilon-balanced: `||D||_F <= epsilon`, `D = U1^T U1 - V^T V`.

    **Args:** `model`; `problem`; `epsilon`, at least 0, in the units of the weights' squares.

    **Returns:** a `Balance`: `||D||_F` and whether it is at most epsilon.

    **Raises:** `ValueError` for a negative epsilon, or a model that does not fit the problem.

    **Notes:** conserved by the flow. Never of size h x h, and exact to round-off of `||U1||^2 + ||V||^2`. Stationary points
    need not be balanced (U = 0 with any V of `E V = 0`); those of the flow with a penalty of Lambda = 0 are.

    **Source:** T21 Definition 2, with U1 in the place of U for data other than X = I.

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> bool(ld.theory.balance(ld.init.balanced(problem, problem.Y / 2, 2), problem, 1e-12).holds)
        True
        >>> float(ld.theory.balance(ld.TwoLayer(np.diag([2.0, 1.0]), np.eye(2)), problem, 1e-12).value)
        3.0
    """
    epsilon = _checks.as_float(epsilon, "epsilon")
    if not _checks.is_traced(epsilon) and not np.all(np.asarray(epsilon) >= 0):
        raise ValueError(f"Argument `epsilon` must be at least 0, but is {epsilon}.")
    U1, V = moving_layers(model, problem)
    L, _ = row_factor(jnp.concatenate([U1, V]))
    U1, V = L[: U1.shape[0]], L[U1.shape[0] :]
    value = norm(U1.T @ U1 - V.T @ V)
    return Balance(value, value <= epsilon)


@public
def moving_layers(model: AbstractModel, problem: AbstractProblem) -> tuple[Float[Array, "r k"], Float[Array, "m k"]]:
    """U1 = Phi1^T U and V: the rows that the flow moves, in the data's coordinates.

    **Args:** as for `imbalance`.

    **Returns:** U1, shape (r, k), and V, shape (m, k).

    **Raises:** `ValueError` if the model's shapes do not fit the problem.

    **Source:** M22 section 2.1, (7).

    Example:

        >>> problem = ld.LeastSquares(np.eye(1, 2), np.eye(1))
        >>> U1, V = ld.theory.moving_layers(ld.TwoLayer(np.array([[1.0], [5.0]]), np.eye(1)), problem)
        >>> U1.shape, abs(float(U1[0, 0]))
        ((1, 1), 1.0)
    """
    layers = model.moving_layers(problem)
    if layers is None or len(layers) != 2:
        raise ValueError(f"Argument `model` must be a network of two layers, but is a {type(model).__name__}.")
    return layers[0], layers[1].T


def hidden_width(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""] | int:
    """h, which a reduced network knows as a number: it may have fewer columns, or more that are zero."""
    width = getattr(model, "width", None)
    return moving_layers(model, problem)[1].shape[1] if width is None else width


@public
def coupling(model: AbstractModel, problem: AbstractProblem) -> Float[Array, "p f"]:
    """`[U1; V] U2^T`, what ties the moving rows to the frozen ones, up to a rotation of its columns.

    Singular values and norms are exact; the columns are in some orthonormal basis of the space of U2.

    **Args:** as for `imbalance`; a `Reduction` must know its frozen part.

    **Returns:** a matrix of r + m rows.

    **Raises:** `ValueError` if the model's shapes do not fit the problem, or a `Reduction` was made without its
    frozen part and the problem has directions that the data do not reach.

    **Source:** M22 (34).

    Example:

        >>> problem = ld.LeastSquares(np.eye(1, 2), np.eye(1))
        >>> model = ld.TwoLayer(np.array([[1.0, 0.0], [0.0, 0.1]]), np.array([[0.9, 0.1]]))
        >>> float(jnp.linalg.norm(ld.theory.coupling(model, problem)))
        0.01
    """
    U1, V = moving_layers(model, problem)
    Z1 = jnp.concatenate([U1, V])
    if problem.num_frozen == 0:
        return 0 * Z1[:, :1]
    return Z1 @ model.frozen_rows(problem)[0].T


@public
def num_conservation_laws(r: int, m: int, h: int) -> int:
    """Number of independent conserved functions of (U1, V) at a generic point.

    `h (h + 1)/2` for h <= p, else `p h - p (p - 1)/2`, with p = r + m.

    **Args:** `r`, `m`, `h`: rank of the data, number of outputs, width; positive integers.

    **Returns:** an integer.

    **Raises:** `ValueError` unless all three are positive.

    **Notes:** the entries of D are all of them: for h > p they are no longer independent. The (n - r) h frozen weights
    are conserved besides and are not counted.

    **Source:** MGP23.

    Example:

        >>> ld.theory.num_conservation_laws(3, 2, 2), ld.theory.num_conservation_laws(3, 2, 100)
        (3, 490)
    """
    if min(r, m, h) < 1:
        raise ValueError(f"Arguments `r`, `m` and `h` must be positive, but are {r}, {m} and {h}.")
    p = r + m
    return h * (h + 1) // 2 if h <= p else p * h - p * (p - 1) // 2
