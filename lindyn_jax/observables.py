"""What to look at: pure functions (model, problem) -> array, computed on the device while the state moves.

Solvers take names from `OBSERVABLES` or functions of your own. The named ones work on reduced models as well, at a cost that
does not depend on the width; a function of your own is given the model in your coordinates.
"""

from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _checks
from ._linalg import signature_spectrum
from .models import AbstractModel, ReducedTwoLayer, SymmetricFactors, TwoLayer, refuse_matrix_penalty, refuse_penalty
from .problem import LeastSquares

Observable = Callable[[AbstractModel, LeastSquares], Array]
Observables = str | Sequence[str] | Mapping[str, str | Observable]


def reduced_product(model: AbstractModel, problem: LeastSquares) -> Float[Array, "r m"]:
    """Phi1^T Theta, the part of the end-to-end matrix that the data see."""
    return model.product() if isinstance(model, ReducedTwoLayer) else problem.to_data(model.product())


def loss(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """L, with the loss scale of the problem; the data's loss alone, without a penalty."""
    return problem.reduced_loss(reduced_product(model, problem))


def excess_loss(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """L - L* = (q/2) ||E||_F^2, without cancellation.

    L* is the least loss over all Theta: narrow networks and tied layers need not reach it (see
    `theory.least_excess_loss`).
    """
    return problem.excess_loss(reduced_product(model, problem))


def penalty(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """`w ||D - Lambda||_F^2`, the problem's penalty on the imbalance; zero for a problem without one.

    The penalty of a reduced model is that of the full network: the directions of the hidden layer that the reduction leaves
    out count `(h - k) lambda0^2`.
    """
    if problem.regularization is None:
        return jnp.zeros((), problem.dtype)
    if isinstance(model, ReducedTwoLayer):
        refuse_matrix_penalty(problem)
    elif not isinstance(model, TwoLayer):
        refuse_penalty(model, problem)
    U1, V = _moving(model, problem)
    width = model.width if isinstance(model, ReducedTwoLayer) else None
    return problem.regularization.value(U1, V, width)


def total_loss(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """L plus the penalty, if the problem has one: what the flow descends."""
    return loss(model, problem) + penalty(model, problem)


def reconstruction_error(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """||E||_F / ||Ytil||_F: the relative error of T21's figures when X = I."""
    return jnp.sqrt(excess_loss(model, problem) / (problem.scale / 2 * jnp.sum(problem.Ytil**2)))


def singular_values(model: AbstractModel, problem: LeastSquares) -> Float[Array, " k"]:
    """Singular values of Theta, descending; of Phi1^T Theta for a reduced model without its frozen part."""
    if isinstance(model, ReducedTwoLayer) and model.frozen is not None:
        stacked = jnp.concatenate([model.product(), model.frozen_product()])
        most = min(problem.num_inputs, problem.num_outputs)
        return jnp.linalg.svd(stacked, compute_uv=False)[:most]
    return jnp.linalg.svd(model.product(), compute_uv=False)


def imbalance_spectrum(model: TwoLayer | ReducedTwoLayer, problem: LeastSquares) -> Float[Array, " k"]:
    """The k = min(h, r + m) eigenvalues of D = U1^T U1 - V^T V that can differ from zero, descending."""
    U1, V = _moving(model, problem)
    return signature_spectrum(jnp.concatenate([U1, V]), _signs(U1.shape[0], V.shape[0], U1.dtype))


def imbalance_drift(
    model: TwoLayer | ReducedTwoLayer, problem: LeastSquares, start: TwoLayer | ReducedTwoLayer
) -> Float[Array, ""]:
    """||D - D(0)||_F, which the flow keeps at zero; `start` is the model at time 0.

    Computed from the rows of both factors, never at size h x h.
    """
    (U1, V), (U1_start, V_start) = _moving(model, problem), _moving(start, problem)
    signs = _signs(U1.shape[0], V.shape[0], U1.dtype)
    rows = jnp.concatenate([U1, V, U1_start, V_start])
    return jnp.linalg.norm(_dense_signature(rows, jnp.concatenate([signs, -signs])))


def distance_to_theta_hat(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """||Theta - Theta_hat||_F, the distance to the minimum-norm solution."""
    if isinstance(model, ReducedTwoLayer):
        inside = model.product() - problem.reduced_theta_hat
        outside = model.frozen_product() if _has_frozen(model, problem) else jnp.zeros((), inside.dtype)
        return jnp.sqrt(jnp.sum(inside**2) + jnp.sum(outside**2))
    return jnp.linalg.norm(model.product() - problem.theta_hat)


def frozen_product_norm(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """||U2 V^T||_F, the part of Theta outside the range of the data: the bias that training leaves (M22 (30))."""
    if isinstance(model, ReducedTwoLayer):
        if not _has_frozen(model, problem):
            return jnp.zeros((), model.V.dtype)
        return jnp.linalg.norm(model.frozen_product())
    Theta = model.product()
    return jnp.linalg.norm(Theta - problem.from_data(problem.to_data(Theta)))


OBSERVABLES: dict[str, Callable] = {
    "loss": loss,
    "excess_loss": excess_loss,
    "penalty": penalty,
    "total_loss": total_loss,
    "reconstruction_error": reconstruction_error,
    "singular_values": singular_values,
    "imbalance_spectrum": imbalance_spectrum,
    "imbalance_drift": imbalance_drift,
    "distance_to_theta_hat": distance_to_theta_hat,
    "frozen_product_norm": frozen_product_norm,
}


def resolve(observables: Observables) -> dict[str, Callable]:
    """Names and functions as a dictionary of functions.

    **Raises:** `ValueError` for an unknown name or something that is neither a name nor a function.
    """
    if isinstance(observables, str):
        observables = (observables,)
    if not isinstance(observables, Mapping):
        for name in observables:
            if not isinstance(name, str):
                raise ValueError(
                    f"Argument `observables` has the entry {name!r}: give names, or a dictionary of names and functions."
                )
        observables = {name: name for name in observables}
    resolved = {}
    for name, value in observables.items():
        if isinstance(value, str):
            _checks.check_choice(value, "observables", tuple(OBSERVABLES))
            value = OBSERVABLES[value]
        if not callable(value):
            raise ValueError(f"Observable `{name}` must be a name or a function (model, problem) -> array.")
        resolved[name] = value
    return resolved


def measure(
    observables: Mapping[str, Callable],
    model: AbstractModel,
    problem: LeastSquares,
    start: AbstractModel,
    to_user: Callable[[AbstractModel], AbstractModel],
) -> dict[str, Array]:
    """All observables of one state: named ones on the state itself, users' own on the model as the user knows it."""
    values = {}
    for name, function in observables.items():
        if function is imbalance_drift:
            values[name] = function(model, problem, start)
        elif function in OBSERVABLES.values():
            values[name] = function(model, problem)
        else:
            values[name] = jnp.asarray(function(to_user(model), problem))
    return values


def _moving(model, problem: LeastSquares) -> tuple[Float[Array, "r k"], Float[Array, "m k"]]:
    if isinstance(model, ReducedTwoLayer):
        return model.U1, model.V
    if isinstance(model, TwoLayer):
        return problem.to_data(model.U), model.V
    kind = "SymmetricFactors" if isinstance(model, SymmetricFactors) else type(model).__name__
    raise ValueError(f"The imbalance is defined for two-layer models, but the model is a {kind}.")


def _signs(r: int, m: int, dtype) -> Float[Array, " p"]:
    return jnp.concatenate([jnp.ones(r, dtype), -jnp.ones(m, dtype)])


def _dense_signature(rows: Array, signs: Array) -> Array:
    """A matrix with the Frobenius norm of `rows^T diag(signs) rows`, of the smaller of the two sizes."""
    p, h = rows.shape
    if h <= p:
        return rows.T @ (signs[:, None] * rows)
    R = jnp.linalg.qr(rows.T, mode="r")
    return R @ (signs[:, None] * R.T)


def _has_frozen(model: ReducedTwoLayer, problem: LeastSquares) -> bool:
    return model.frozen is not None or problem.num_frozen > 0
