"""What to look at: pure functions (model, problem) -> array, computed on the device while the state moves.

Solvers take names from `OBSERVABLES` or functions of your own. The named ones work on reduced models as well, at a cost that
does not depend on the width; a function of your own is given the model in your coordinates.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _checks
from ._linalg import signature_spectrum
from ._norms import all_finite, norm, quotient, root
from ._public import public
from ._roots import gram_roots
from ._svd import thin_svd
from .models import (
    AbstractModel,
    DeepLinear,
    LinearModel,
    ReducedDeepLinear,
    ReducedTwoLayer,
    TwoLayer,
    WideLimit,
    refuse_matrix_penalty,
    refuse_penalty,
)
from .problem import LeastSquares

Reduced = (ReducedTwoLayer, ReducedDeepLinear)
Observable = Callable[[AbstractModel, LeastSquares], Array]
Observables = str | Sequence[str] | Mapping[str, str | Observable]


@public
def reduced_product(model: AbstractModel, problem: LeastSquares) -> Float[Array, "r m"]:
    """Phi1^T Theta, the part of the end-to-end matrix that the data see."""
    return model.product() if isinstance(model, Reduced) else problem.to_data(model.product())


@public
def loss(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """L, with the loss scale of the problem; the data's loss alone, without a penalty."""
    return problem.reduced_loss(reduced_product(model, problem))


@public
def excess_loss(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """L - L* = (q/2) ||E||_F^2, without cancellation.

    L* is the least loss over all Theta: narrow networks and tied layers need not reach it (see
    `theory.least_excess_loss`).
    """
    return problem.excess_loss(reduced_product(model, problem))


@public
def penalty(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """`w ||D - Lambda||_F^2`, the problem's penalty on the imbalance; zero for a problem without one.

    The penalty of a reduced model is that of the full network: the directions of the hidden layer that the reduction leaves
    out count `(h - k) lambda0^2`.
    """
    if problem.regularization is None:
        return _zero(model.product(), problem.dtype)
    if isinstance(model, ReducedTwoLayer):
        refuse_matrix_penalty(problem)
    elif not isinstance(model, TwoLayer):
        refuse_penalty(model, problem)
    U1, V = _moving(model, problem)
    width = model.width if isinstance(model, ReducedTwoLayer) else None
    return problem.regularization.value(U1, V, width)


@public
def total_loss(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """L plus the penalty, if the problem has one: what the flow descends."""
    return loss(model, problem) + penalty(model, problem)


@public
def reconstruction_error(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """||E||_F / ||Ytil||_F: the relative error of T21's figures when X = I.

    Without a target, Ytil = 0, it is infinite, or 0 where the error is 0 as well.
    """
    problem.refuse_link("reconstruction_error")
    error, size = norm(problem.error(reduced_product(model, problem))), norm(problem.Ytil)
    aimless = size == 0
    without = jnp.where(error == 0, 0, jax.lax.stop_gradient(jnp.inf * error))
    return jnp.where(aimless, without, error / jnp.where(aimless, 1, size))


@public
def singular_values(model: AbstractModel, problem: LeastSquares) -> Float[Array, " k"]:
    """Singular values of Theta, descending; of Phi1^T Theta for a reduced model without its frozen part."""
    if isinstance(model, Reduced) and model.frozen is not None:
        stacked = jnp.concatenate([model.product(), model.frozen_product()])
        most = min(problem.num_inputs, problem.num_outputs)
        return jnp.linalg.svd(stacked, compute_uv=False)[:most]
    return jnp.linalg.svd(model.product(), compute_uv=False)


@public
def imbalance_spectrum(model: TwoLayer | ReducedTwoLayer, problem: LeastSquares) -> Float[Array, " k"]:
    """The k = min(h, r + m) eigenvalues of D = U1^T U1 - V^T V that can differ from zero, descending."""
    U1, V = _moving(model, problem)
    return signature_spectrum(jnp.concatenate([U1, V]), _signs(U1.shape[0], V.shape[0], U1.dtype))


@public
def imbalance_drift(
    model: TwoLayer | ReducedTwoLayer | DeepLinear | ReducedDeepLinear,
    problem: LeastSquares,
    start: TwoLayer | ReducedTwoLayer | DeepLinear | ReducedDeepLinear,
) -> Float[Array, ""]:
    """||D - D(0)||_F, which the flow keeps at zero; `start` is the model at time 0.

    Computed from the rows of both factors, never at size h x h. For deep networks the norm of all the imbalances together,
    `W_l^T W_l - W_{l+1} W_{l+1}^T` with Phi1^T W1 in place of W1: at most of the size of the layers.
    """
    if isinstance(model, (DeepLinear, ReducedDeepLinear)) and isinstance(start, (DeepLinear, ReducedDeepLinear)):
        return _deep_drift(model, problem, start)
    (U1, V), (U1_start, V_start) = _moving(model, problem), _moving(start, problem)
    signs = _signs(U1.shape[0], V.shape[0], U1.dtype)
    rows = jnp.concatenate([U1, V, U1_start, V_start])
    return norm(_dense_signature(rows, jnp.concatenate([signs, -signs])))


@public
def distance_to_theta_hat(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """||Theta - Theta_hat||_F, the distance to the minimum-norm solution."""
    if isinstance(model, Reduced):
        inside = model.product() - problem.reduced_theta_hat
        return norm(inside, *([model.frozen_product()] if _has_frozen(model, problem) else []))
    return norm(model.product() - problem.theta_hat)


@public
def frozen_product_norm(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """||U2 V^T||_F, the part of Theta outside the range of the data: the bias that training leaves (M22 (30))."""
    if isinstance(model, Reduced):
        outside = norm(model.frozen_product()) if _has_frozen(model, problem) else jnp.zeros((), problem.dtype)
        # The moving rows are not in it, but a network that has diverged has no bias either.
        return jnp.where(all_finite(model), outside, jnp.nan)
    Theta = model.product()
    return norm(Theta - problem.from_data(problem.to_data(Theta)))


@public
def nuclear_norm(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """Sum of the singular values of Theta."""
    return jnp.sum(singular_values(model, problem))


@public
def effective_rank(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """`exp(-sum p_i log p_i)` with `p_i = sigma_i/sum sigma_j`: k for k equal singular values of Theta; 0 for Theta = 0.

    **Source:** Roy and Vetterli (2007).
    """
    sigma = singular_values(model, problem)
    total = jnp.sum(sigma)
    p = quotient(sigma, total)
    absent = p == 0
    entropy = -jnp.sum(jnp.where(absent, 0, p * jnp.log(jnp.where(absent, 1, p))))
    return jnp.where(total == 0, 0, jnp.exp(entropy))


@public
def mode_strengths(model: AbstractModel, problem: LeastSquares) -> Float[Array, " p"]:
    """Components of Theta along the modes of the data, `phi_i^T Theta psi_i`, with `X^T Y = Phi diag(sigma) Psi^T`.

    p = min(r, m) of them, in descending order of sigma; from an aligned start the w_i of G19.
    """
    P, _, QT = _data_modes(problem)
    return jnp.einsum("rp,rm,pm->p", P, reduced_product(model, problem), QT)


@public
def alignment(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """Share of Phi1^T Theta that lies along the modes of the data, `sum_i (phi_i^T Theta psi_i)^2/||Phi1^T Theta||_F^2`.

    1 where the modes have decoupled, 1/max(r, m) on average for a random Theta; 0 for Theta = 0.
    """
    return quotient(norm(mode_strengths(model, problem)), norm(reduced_product(model, problem))) ** 2


@public
def kernel_distance(model: AbstractModel, problem: LeastSquares, start: AbstractModel) -> Float[Array, ""]:
    """`1 - <K(0), K>/(||K(0)||_F ||K||_F)`, how far the tangent kernel has turned; `start` is the model at time 0.

    `K = X U U^T X^T kron I + X X^T kron V V^T` for two layers, and `sum_l X A_l A_l^T X^T kron B_l^T B_l` for more, with the
    partial products before and behind layer l; for a `WideLimit`
    `K = X (Theta Theta^T + c^2 I)^{1/2} X^T kron I + X X^T kron (Theta^T Theta + c^2 I)^{1/2}`. Computed from matrices of the
    sizes r x r and m x m, without cancellation; with a link it is the kernel of the outputs before it. Zero where either is.

    **Raises:** `ValueError` for a kind of model whose tangent kernel is not known, or two networks of different depth.
    """
    kernel, before = _tangent_kernel(model, problem), _tangent_kernel(start, problem)
    if len(kernel) != len(before):
        raise ValueError(
            f"The kernel distance compares networks of one depth, but the kernel of the model has {len(kernel)} terms and that "
            f"of the start {len(before)}."
        )
    size, size_before = (root(_inner(factors, factors)) for factors in (kernel, before))
    absent = (size == 0) | (size_before == 0)
    size, size_before = (jnp.where(absent, 1, x) for x in (size, size_before))
    # Half the squared distance of the two kernels of norm 1, as a sum of terms that are each small where they are close.
    change = []
    for (P, Q), (P_before, Q_before) in zip(kernel, before, strict=True):
        change += [(P / size - P_before / size_before, Q), (P_before / size_before, Q - Q_before)]
    distance = jnp.where(absent, 0, jnp.maximum(_inner(change, change), 0) / 2)
    # A single layer's kernel is the same wherever it is, but not where it is nowhere.
    return jnp.where(all_finite((model, start)), distance, jnp.nan)


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
    "nuclear_norm": nuclear_norm,
    "effective_rank": effective_rank,
    "mode_strengths": mode_strengths,
    "alignment": alignment,
    "kernel_distance": kernel_distance,
}
NEED_START = (imbalance_drift, kernel_distance)


@public
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


@public
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
        if function in NEED_START:
            values[name] = function(model, problem, start)
        elif function in OBSERVABLES.values():
            values[name] = function(model, problem)
        else:
            values[name] = jnp.asarray(function(to_user(model), problem))
    return values


def _data_modes(problem: LeastSquares) -> tuple[Float[Array, "r p"], Float[Array, " p"], Float[Array, "p m"]]:
    return thin_svd(problem.singular_values[:, None] * problem.Ytil)


def _tangent_kernel(model, problem: LeastSquares) -> list[tuple[Array, Array]]:
    """Pairs (P, Q): up to a positive factor the kernel is the sum of all `P kron Q`, P in the data's coordinates."""
    s = problem.singular_values / problem.singular_values[0]
    if isinstance(model, WideLimit):
        unit = jax.lax.stop_gradient(jnp.maximum(jnp.max(jnp.abs(model.Theta)), model.level))
        unit = jnp.where(unit == 0, 1, unit)
        rows, columns = gram_roots(model.Theta / unit, model.level / unit)
        seen = problem.to_data(problem.to_data(rows).T)
        return [(s[:, None] * seen * s, jnp.eye(columns.shape[0], dtype=s.dtype)), (jnp.diag(s**2), columns)]
    if isinstance(model, ReducedTwoLayer):
        layers = (model.U1, model.V.T)
    elif isinstance(model, TwoLayer):
        layers = (problem.to_data(model.U), model.V.T)
    elif isinstance(model, ReducedDeepLinear):
        layers = model.layers
    elif isinstance(model, DeepLinear):
        layers = (problem.to_data(model.layers[0]), *model.layers[1:])
    elif isinstance(model, LinearModel):
        layers = (problem.to_data(model.Theta),)
    else:
        raise ValueError(
            "The kernel distance is defined for networks whose layers are independent, but the model is a "
            f"{type(model).__name__}, whose tangent kernel is not known: use a `TwoLayer`, a `DeepLinear` or a `WideLimit`."
        )
    # Products of many small or large layers leave the range of floats: each is kept at size 1, and its logarithm beside it.
    ahead = [_unit(jnp.diag(s), 0.0)]
    for i, W in enumerate(layers[:-1]):
        A, log = ahead[-1]
        ahead.append(_unit(s[:, None] * W if i == 0 else A @ W, log))
    behind = [_unit(jnp.eye(layers[-1].shape[1], dtype=s.dtype), 0.0)]
    for W in reversed(layers[1:]):
        B, log = behind[-1]
        behind.append(_unit(W @ B, log))
    logs = jnp.stack([2 * (a + b) for (_, a), (_, b) in zip(ahead, reversed(behind), strict=True)])
    largest = jnp.max(logs)
    weights = jnp.exp(logs - jnp.where(jnp.isneginf(largest), 0, largest))
    pairs = zip(weights, ahead, reversed(behind), strict=True)
    return [(weight * (A @ A.T), B.T @ B) for weight, (A, _), (B, _) in pairs]


def _unit(A: Array, log: Array | float) -> tuple[Array, Array]:
    """A divided by its largest entry, and `log` plus the logarithm of that: minus infinity for A = 0."""
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(A)))
    return A / jnp.where(size == 0, 1, size), log + jnp.log(size)


def _inner(first: list[tuple[Array, Array]], second: list[tuple[Array, Array]]) -> Array:
    return sum(jnp.sum(P * R) * jnp.sum(Q * S) for P, Q in first for R, S in second)


def _moving(model, problem: LeastSquares) -> tuple[Float[Array, "r k"], Float[Array, "m k"]]:
    if isinstance(model, ReducedTwoLayer):
        return model.U1, model.V
    if isinstance(model, TwoLayer):
        return problem.to_data(model.U), model.V
    raise ValueError(f"The imbalance is defined for two-layer models, but the model is a {type(model).__name__}.")


def _deep_drift(model, problem: LeastSquares, start) -> Array:
    parts = []
    layers, before = (
        x.layers if isinstance(x, ReducedDeepLinear) else (problem.to_data(x.layers[0]), *x.layers[1:])
        for x in (model, start)
    )
    for i in range(len(layers) - 1):
        rows = [layers[i], layers[i + 1].T, before[i], before[i + 1].T]
        signs = jnp.concatenate(
            [jnp.full(A.shape[0], sign, A.dtype) for A, sign in zip(rows, (1, -1, -1, 1), strict=True)]
        )
        parts.append(norm(_dense_signature(jnp.concatenate(rows), signs)))
        if isinstance(model, ReducedDeepLinear):
            # What weight decay does to the part of the layers that the cores leave out.
            A, B, AB = model.rest[i].gram
            a, b = model.rest[i].factor ** 2 - 1, model.rest[i + 1].factor ** 2 - 1
            parts.append(root(a**2 * A + b**2 * B - 2 * a * b * AB))
    return norm(*parts) if parts else _zero(model.product(), problem.dtype)


def _zero(A: Array, dtype) -> Array:
    """0, or NaN if some entry of A is NaN."""
    return jnp.where(jnp.any(jnp.isnan(A)), jnp.nan, jnp.zeros((), dtype))


def _signs(r: int, m: int, dtype) -> Float[Array, " p"]:
    return jnp.concatenate([jnp.ones(r, dtype), -jnp.ones(m, dtype)])


def _dense_signature(rows: Array, signs: Array) -> Array:
    """A matrix with the Frobenius norm of `rows^T diag(signs) rows`, of the smaller of the two sizes."""
    p, h = rows.shape
    if h <= p:
        return rows.T @ (signs[:, None] * rows)
    R = jnp.linalg.qr(rows.T, mode="r")
    return R @ (signs[:, None] * R.T)


def _has_frozen(model: ReducedTwoLayer | ReducedDeepLinear, problem: LeastSquares) -> bool:
    return model.frozen is not None or problem.num_frozen > 0
