"""The gauge: orthogonal frames in which the target and the imbalance of a two-layer network are diagonal.

Rotating inputs, outputs and the hidden layer changes neither the loss nor the flow, so every state may be looked at in the
frames of its problem: `U = Phi U_g G^T`, `V = Psi V_g G^T` with `Theta_hat = Phi Sigma Psi^T` and `D = G diag(d) G^T`. There
the target is a list of singular values and the imbalance a list of eigenvalues, which the flow conserves, so that one
gauge serves a whole path.
"""

import functools
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _checks
from ._linalg import row_factor
from ._public import public
from .models import LinearModel, TwoLayer
from .problems import ImbalancePenalty, LeastSquares, Penalised
from .reduction import check_fits

Gauged = TypeVar("Gauged", TwoLayer, LinearModel, LeastSquares, Penalised)


class Gauge(eqx.Module):
    """The frames of one start and one problem.

    **Fields:**

    - `Phi`, shape (n, n), and `Psi`, shape (m, m): orthogonal, `Theta_hat = Phi Sigma Psi^T`.
    - `G`: shape (h, k), k = min(h, n + m), with orthonormal columns that span the rows of U and V, `D = G diag(d) G^T`.
    - `target`: the diagonal of Sigma, shape (min(n, m),), descending, not negative.
    - `imbalance`: d, shape (k,), descending; the other h - k eigenvalues of D are zero.

    **Source:** T21 (14) to (16).

    Example:

        >>> problem = ld.factorization(np.array([[0.0, 2.0], [1.0, 0.0]]))
        >>> gauge = ld.find_gauge(ld.TwoLayer(np.diag([2.0, 1.0]), np.eye(2)), problem)
        >>> gauge.target.tolist(), gauge.imbalance.tolist()
        ([2.0, 1.0], [3.0, 0.0])
    """

    Phi: Float[Array, "n n"]
    Psi: Float[Array, "m m"]
    G: Float[Array, "h k"]
    target: Float[Array, " c"]
    imbalance: Float[Array, " k"]


@public
def find_gauge(model: TwoLayer, problem: LeastSquares | Penalised) -> Gauge:
    """Frames that diagonalise the target and the imbalance.

    `Phi^T Theta_hat Psi = Sigma`, rectangular diagonal, and `G^T D G = diag(d)`, `D = U1^T U1 - V^T V`.

    **Args:** `model`, a `TwoLayer` of any width and rank; `problem`, any data without a link.

    **Returns:** a `Gauge`. It is the gauge of the whole flow from `model`, which conserves D.

    **Raises:** `ValueError` for another kind of model, sizes that do not fit, or a problem with a link. Differentiating with
    respect to a start whose rows are linearly dependent raises an error for h > n + m.

    **Notes:** frames of repeated singular values or eigenvalues are not unique; any of them will do, and derivatives hold the
    rotations fixed. Derivatives of what does not depend on the choice (products, losses, weights taken to the gauge
    and back) are then exact, and never NaN. Nothing of size h x h is formed for h > n + m; Phi is n x n by its nature.

    **Source:** T21 (14), (15); for data other than X = I the target is Theta_hat, this package's extension.

    Example:

        >>> problem = ld.factorization(np.array([[0.0, 2.0], [1.0, 0.0]]))
        >>> gauge = ld.find_gauge(ld.TwoLayer(np.diag([2.0, 1.0]), np.eye(2)), problem)
        >>> (gauge.Phi.T @ problem.theta_hat @ gauge.Psi).tolist()
        [[2.0, 0.0], [0.0, 1.0]]
        >>> gauge.imbalance.tolist()
        [3.0, 0.0]
    """
    check_fits(model, problem)
    n = problem.num_inputs
    data: Any = problem.plain
    target = data.theta_hat
    Phi, singular_values, PsiT = jax.lax.stop_gradient(jnp.linalg.svd(jax.lax.stop_gradient(target)))
    L, Q = row_factor(jnp.concatenate([model.U, model.V]))
    U1, V = problem.to_data(L[:n]), L[n:]
    D = U1.T @ U1 - V.T @ V
    eigenvalues, P = jax.lax.stop_gradient(jnp.linalg.eigh(jax.lax.stop_gradient(D)))
    eigenvalues, P = eigenvalues[::-1], P[:, ::-1]
    size = singular_values.shape[0]
    return Gauge(
        Phi,
        PsiT.T,
        Q @ P,
        _with_derivative(singular_values, jnp.diagonal(Phi[:, :size].T @ target @ PsiT[:size].T)),
        _with_derivative(eigenvalues, jnp.diagonal(P.T @ D @ P)),
    )


@public
def to_gauge(what: Gauged, gauge: Gauge) -> Gauged:
    """A two-layer network, a single layer or a problem in the frames of a gauge.

    `U_g = Phi^T U G`, `V_g = Psi^T V G`; `Theta_g = Phi^T Theta Psi`; `X_g = X Phi`, `Y_g = Y Psi`. Matrix factorization stays
    matrix factorization, of `Phi^T Y Psi = c Sigma`.

    **Args:** `what`, a `TwoLayer`, a `LinearModel` or a `LeastSquares`; `gauge`, from `find_gauge`.

    **Returns:** the same kind. A network has width k = min(h, n + m) afterwards, and its loss, flow and descent in the
    problem of the gauge are those of the original in the original problem.

    **Raises:** `ValueError` for sizes that do not fit the gauge, a concrete network with h > n + m whose rows lie outside
    the span of G (one that is not on the path of the gauge's start), a problem with a link, or one whose penalty has a
    matrix Lambda while h > n + m.

    **Notes:** in the gauge the flow is `U_g' = q c (Sigma_Y - c U_g V_g^T) V_g` with `Sigma_Y = Phi^T Y Psi` for X = I, and
    likewise for V_g.

    **Source:** T21 (14) to (16).

    Example:

        >>> problem, model = ld.factorization(np.array([[0.0, 2.0], [1.0, 0.0]])), ld.TwoLayer(np.diag([2.0, 1.0]), np.eye(2))
        >>> gauge = ld.find_gauge(model, problem)
        >>> turned, diagonal = ld.to_gauge(model, gauge), ld.to_gauge(problem, gauge)
        >>> diagonal.Y.tolist()
        [[2.0, 0.0], [0.0, 1.0]]
        >>> float(problem.loss(model.product())), float(diagonal.loss(turned.product()))
        (5.0, 5.0)
    """
    return _turned(what, gauge, False)


@public
def from_gauge(what: Gauged, gauge: Gauge) -> Gauged:
    """The way back: `U = Phi U_g G^T`, `V = Psi V_g G^T`; `Theta = Phi Theta_g Psi^T`; `X = X_g Phi^T`, `Y = Y_g Psi^T`.

    **Args:** `what`, in the frames of the gauge: a `TwoLayer`, a `LinearModel` or a `LeastSquares`; `gauge`, from
    `find_gauge`.

    **Returns:** the same kind, in the original coordinates; `from_gauge(to_gauge(model, gauge), gauge)` is the model, to
    round-off.

    **Raises:** `ValueError` for sizes that do not fit the gauge, or a problem that `to_gauge` refuses.

    **Source:** T21 (14) to (16).

    Example:

        >>> problem, model = ld.factorization(np.array([[0.0, 2.0], [1.0, 0.0]])), ld.TwoLayer(np.diag([2.0, 1.0]), np.eye(2))
        >>> gauge = ld.find_gauge(model, problem)
        >>> ld.from_gauge(ld.to_gauge(model, gauge), gauge).product().tolist()
        [[2.0, 0.0], [0.0, 1.0]]
    """
    return _turned(what, gauge, True)


@functools.singledispatch
def _turned(what: Any, gauge: Gauge, back: bool) -> Any:
    raise ValueError(
        f"Only a TwoLayer, a LinearModel or a LeastSquares has a gauge, but this is a {type(what).__name__}."
    )


@_turned.register
def _(what: LinearModel, gauge: Gauge, back: bool) -> LinearModel:
    _check_sizes("Theta (n, m)", what.Theta.shape, (gauge.Phi.shape[0], gauge.Psi.shape[0]))
    Phi, Psi = (gauge.Phi, gauge.Psi) if back else (gauge.Phi.T, gauge.Psi.T)
    return LinearModel(Phi @ what.Theta @ Psi.T)


@_turned.register
def _(what: TwoLayer, gauge: Gauge, back: bool) -> TwoLayer:
    (h, k), sizes = gauge.G.shape, (gauge.Phi.shape[0], gauge.Psi.shape[0])
    given = (what.U.shape[0], what.V.shape[0], what.width)
    _check_sizes("(U rows, V rows, width)", given, (*sizes, k if back else h))
    if back:
        return TwoLayer(gauge.Phi @ what.U @ gauge.G.T, gauge.Psi @ what.V @ gauge.G.T)
    U, V = what.U @ gauge.G, what.V @ gauge.G
    if k < h and not _checks.is_traced(U, V, what.U, what.V):
        # The columns of G span the rows of the gauge's own start; elsewhere the projection would lose weights silently.
        lost, size = (float(jnp.sum(A**2)) for A in (_outside(what, gauge, U, V), jnp.concatenate([what.U, what.V])))
        if lost > (1e5 * float(jnp.finfo(U.dtype).eps)) ** 2 * size:
            raise ValueError(
                f"The model has weights outside the {k} hidden directions of the gauge: pass a state of the path from the start "
                "that the gauge was found for, or find its own."
            )
    return TwoLayer(gauge.Phi.T @ U, gauge.Psi.T @ V)


@_turned.register
def _(problem: LeastSquares, gauge: Gauge, back: bool) -> LeastSquares:
    if problem.link is not None:
        raise ValueError("A problem with a link function has no gauge: the link acts on each output by itself.")
    n, m = gauge.Phi.shape[0], gauge.Psi.shape[0]
    _check_sizes("(inputs, outputs) of the problem", (problem.num_inputs, problem.num_outputs), (n, m))
    Phi, Psi = (gauge.Phi.T, gauge.Psi.T) if back else (gauge.Phi, gauge.Psi)
    if problem.X is None or problem.Phi1 is None:
        Y = Phi.T @ problem.Y @ Psi
        if not back:
            # Exactly diagonal: round-off beside the diagonal would grow in the unstable directions of saddles.
            values = jnp.zeros_like(Y).at[jnp.arange(min(n, m)), jnp.arange(min(n, m))]
            Y = _with_derivative(values.set(problem.output_scale * gauge.target), Y)
        rotated = eqx.tree_at(lambda p: (p.Y, p.Ytil), problem, (Y, Y))
    else:
        rotated = eqx.tree_at(
            lambda p: (p.X, p.Y, p.Phi1, p.Ytil),
            problem,
            (problem.X @ Phi, problem.Y @ Psi, Phi.T @ problem.Phi1, problem.Ytil @ Psi),
        )
    return rotated


@_turned.register
def _(problem: Penalised, gauge: Gauge, back: bool) -> Penalised:
    rotated = eqx.tree_at(lambda p: p.problem, problem, _turned(problem.problem, gauge, back))
    penalty, (h, k) = problem.imbalance, gauge.G.shape
    if penalty is None or penalty.is_isotropic:
        return rotated
    if k < h:
        raise ValueError(
            f"A penalty whose Lambda is a matrix needs all {h} hidden directions, but the gauge has {k} = n + m of them: "
            "give Lambda as a number."
        )
    penalty.check_width(h)
    G = gauge.G.T if back else gauge.G
    turned = ImbalancePenalty(G.T @ penalty.Lambda @ G, penalty.weight)
    return eqx.tree_at(lambda p: p.imbalance, rotated, turned)


def _with_derivative(value: Array, traced: Array) -> Array:
    """`value` as it is, with the derivative of `traced`, which equals it up to round-off."""
    return jax.lax.stop_gradient(value) + (traced - jax.lax.stop_gradient(traced))


def _outside(model: TwoLayer, gauge: Gauge, U: Array, V: Array) -> Array:
    return jnp.concatenate([model.U - U @ gauge.G.T, model.V - V @ gauge.G.T])


def _check_sizes(name: str, given: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if given != expected:
        raise ValueError(f"The gauge does not fit: {name} must be {expected}, but is {given}.")
