"""Where the flow stands still: stationary points, which of them are minima, and balance.

For one layer every stationary point is a minimum. For two layers, and for tied ones, the stationary products are the target
with some of its components left out; those that could still grow are strict saddles, and there are no other minima than the
best ones that the width allows.
"""

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .. import _checks
from .._finite import of_finite_state
from .._linalg import row_factor
from .._public import public
from ..models import (
    AbstractModel,
    DeepLinear,
    LinearModel,
    ReducedDeepLinear,
    ReducedTwoLayer,
    SymmetricFactors,
    TwoLayer,
    WideLimit,
)
from ..observables import reduced_product
from ..problem import LeastSquares
from ..reduction import check_fits
from ._numerics import hypot, norm, quotient
from .imbalance import moving_layers
from .regression import right_projector


class Stationarity(NamedTuple):
    """How far a state is from standing still.

    **Fields:** `speed`, the Frobenius norm of the velocity of all weights; `residual`, the same relative to the size of the
    terms that cancel in it, at most 1 without a link; `holds`, whether the residual is within the tolerance.
    """

    speed: Float[Array, ""]
    residual: Float[Array, ""]
    holds: Bool[Array, ""]


class StationaryPoint(NamedTuple):
    """What kind of stationary point a state is.

    **Fields:**

    - `is_stationary`: whether the velocity vanishes; the two flags below are false where it does not.
    - `is_minimum`: whether the loss is the least that the width allows.
    - `is_strict_saddle`: whether the loss has a direction of negative curvature.
    - `escape`: by how much the largest component of the error exceeds the least component that the network holds (0 where
        the width has room for more): positive at strict saddles, at most 0 at minima.
    - `curvature`: the least eigenvalue of the Hessian, or 0 where that is not negative.
    """

    is_stationary: Bool[Array, ""]
    is_minimum: Bool[Array, ""]
    is_strict_saddle: Bool[Array, ""]
    escape: Float[Array, ""]
    curvature: Float[Array, ""]


class Balance(NamedTuple):
    """The size of the imbalance, and whether it is within epsilon.

    **Fields:** `value`, `||D||_F`; `holds`.
    """

    value: Float[Array, ""]
    holds: Bool[Array, ""]


@public
@of_finite_state
def stationarity(
    model: AbstractModel, problem: LeastSquares, *, rtol: Float[ArrayLike, ""] | None = None
) -> Stationarity:
    r"""Whether the flow stands still at this state, and the residual of its equation.

    Two layers: `S E V = 0` and `U1^T S E = 0`; tied layers with X = I: `(Y - c U U^T) U = 0` for symmetric Y, so that
    `X (Y - c X) = 0` for the product X; one layer: `X^T (Y - X Theta) = 0`.

    **Args:**

    - `model`: any model; a `ReducedTwoLayer` stands for the full network.
    - `problem`: any problem, with link or penalty too.
    - `rtol`: on the residual, by default the square root of the dtype's precision.

    **Returns:** a `Stationarity`.

    **Raises:** `ValueError` if the model's shapes do not fit the problem, or for a kind of model that is not of this package.

    **Notes:** the residual is relative to the weights as well as to the data, so tiny weights near the saddle at zero are
    not taken for a stationary point. The gradients of the loss and of a penalty on the imbalance are orthogonal: with
    a penalty of positive weight a state is stationary only if it is so without it, and `U1 (D - Lambda) = 0`,
    `V (D - Lambda) = 0`. For Lambda = 0 these are the balanced stationary points and no others.

    **Source:** T21 (6), (7). The statement on the penalty is this package's own.
    """
    check_fits(model, problem)
    velocity, product = model.velocity(problem), norm(reduced_product(model, problem))
    if isinstance(model, ReducedTwoLayer):
        speed = hypot(norm(velocity.U1), norm(velocity.V))
        weights = hypot(norm(model.U1), norm(model.V))
    elif isinstance(model, TwoLayer):
        speed = hypot(norm(velocity.U), norm(velocity.V))
        weights = hypot(norm(problem.to_data(model.U)), norm(model.V))
    elif isinstance(model, SymmetricFactors):
        speed, weights = norm(velocity.U), 2 * norm(model.U)
    elif isinstance(model, (DeepLinear, ReducedDeepLinear)):
        front = problem.to_data(model.layers[0]) if isinstance(model, DeepLinear) else model.layers[0]
        norms = [norm(W) for W in (front, *model.layers[1:])]
        speed = functools.reduce(hypot, [norm(W) for W in velocity.layers])
        # Every layer's gradient has all other layers as factors.
        others = [math.prod(size for j, size in enumerate(norms) if j != i) for i in range(len(norms))]
        weights = functools.reduce(hypot, [other * jnp.ones_like(speed) for other in others])
    elif isinstance(model, WideLimit):
        # Minus the gradient times roots of this spectral norm, from either side.
        speed, weights = norm(velocity.Theta), 2 * hypot(jnp.linalg.norm(model.Theta, ord=2), model.level)
    elif isinstance(model, LinearModel):
        speed, weights = norm(velocity.Theta), jnp.ones((), velocity.Theta.dtype)
    else:
        raise ValueError(
            f"What stands still is told from the terms that cancel in the velocity, unknown for a {type(model).__name__}."
        )
    s = problem.singular_values[0]
    target = norm(problem.Y) if problem.link is not None else norm(problem.Ytil)
    scale = problem.scale * s * (target + s * product) * weights
    if problem.regularization is not None:
        penalty = problem.regularization
        scale = scale + 4 * penalty.weight * (weights**2 + norm(penalty.Lambda)) * weights
    residual = quotient(speed, scale)
    return Stationarity(speed, residual, residual <= _tolerance(rtol, residual.dtype))


@public
@of_finite_state
def stationary_point(
    model: AbstractModel, problem: LeastSquares, *, rtol: Float[ArrayLike, ""] | None = None
) -> StationaryPoint:
    r"""Minimum or strict saddle: what kind of stationary point this is. There is no third kind.

    Hypothesis: the state is stationary (`is_stationary`). With e = ||E||_2 and the output S U1 V^T:
    a strict saddle iff `e > sigma_h(S U1 V^T)`, otherwise a global minimum. For tied layers e is the largest eigenvalue of
    the error of the symmetric part of Y, and the output is c U U^T.

    **Args:**

    - `model`: a `LinearModel`, `TwoLayer`, `ReducedTwoLayer`, or for X = I a `SymmetricFactors`.
    - `problem`: without link and penalty.
    - `rtol`: of the residual, and of `escape` relative to the target; by default the square root of the dtype's
        precision.

    **Returns:** a `StationaryPoint`. `curvature` belongs to U and V for X = I; for other data to the first layer written as
    S U1/s_1, which keeps its sign.

    **Raises:** `ValueError` for sizes that do not fit, a link, a penalty, or tied layers on data other than X = I, whose least
    loss has no closed form.

    **Notes:** at a stationary point E annihilates the rows and columns that the output uses, so all negative curvature lies
    in steps `a x^T` of the first layer and `b y^T` of the second along E's top singular pair, with the Hessian
    `q [[s_1^2 V^T V, -s_1 e], [-s_1 e, U1^T S^2 U1]]` over (x, y), for tied layers `2 q c (c U^T U - e)` over x.

    **Source:** T21 (6), (7); the classification with its curvature is this package's own.
    """
    if problem.regularization is not None:
        raise ValueError(
            "`stationary_point` classifies the stationary points of the loss alone: pass the problem without `regularized`."
        )
    stationary = stationarity(model, problem, rtol=rtol).holds
    q, s = problem.scale, problem.singular_values[0]
    if isinstance(model, LinearModel):
        _refuse_link(problem)
        zero = jnp.zeros((), model.Theta.dtype)
        return StationaryPoint(stationary, stationary, stationary & False, zero, zero)
    if isinstance(model, SymmetricFactors):
        target = _tied_target(problem)
        output = s * model.product()
        top = jnp.linalg.eigvalsh(target - output)[-1]
        held = _component(jnp.linalg.eigvalsh(output)[::-1], model.width)
        curvature = jnp.minimum(2 * q * s * (held - top), 0)
    else:
        U1, V = moving_layers(model, problem)
        target = problem.Ytil
        output = problem.singular_values[:, None] * (U1 @ V.T)
        top = jnp.linalg.svd(problem.error(U1 @ V.T), compute_uv=False)[0]
        held = _component(jnp.linalg.svd(output, compute_uv=False), model.width)
        curvature = q * _two_layer_curvature(problem.singular_values[:, None] * U1 / s, V, s, top, model.width)
    escape = top - held
    saddle = escape > _tolerance(rtol, escape.dtype) * jnp.maximum(norm(target), norm(output))
    return StationaryPoint(stationary, stationary & ~saddle, stationary & saddle, escape, curvature)


@public
@of_finite_state
def least_excess_loss(
    problem: LeastSquares, h: Float[ArrayLike, ""] | Int[ArrayLike, ""] | int, *, tied: bool = False
) -> Float[Array, ""]:
    r"""The least L - L* of a network of width h: what is left of the target after its best h components.

    `(q/2) sum_{i > h} sigma_i(Ytil)^2`; for tied layers with X = I and the symmetric part of Y,
    `(q/2) (||(Y - Y^T)/2||^2 + sum of sigma_i^2 over all but the h largest positive eigenvalues)`.

    **Args:** `problem`, without a link; `h`, the width, which may be traced; `tied`, for `SymmetricFactors`.

    **Returns:** a number of at least 0; zero for two layers with h >= min(r, m).

    **Raises:** `ValueError` for a link, a width below 1, or tied layers on data other than X = I or a target that is not square.

    **Notes:** at every data: the loss is that of factorizing Ytil once the first layer is written as S U1.

    **Source:** Eckart and Young; T21 (6), (7).
    """
    _refuse_link(problem)
    if not _checks.is_traced(h) and not np.all(np.asarray(h) >= 1):
        raise ValueError(f"Argument `h` must be a width of at least 1, but is {h}.")
    if tied:
        symmetric = _tied_target(problem)
        values = jnp.linalg.eigvalsh(symmetric)[::-1]
        held = (jnp.arange(values.shape[0]) < h) & (values > 0)
        rest = jnp.sum((problem.Y - symmetric) ** 2)
    else:
        values = jnp.linalg.svd(problem.Ytil, compute_uv=False)
        held, rest = jnp.arange(values.shape[0]) < h, 0
    return problem.scale / 2 * (rest + jnp.sum(jnp.where(held, 0, values) ** 2))


@public
def stationary_product(
    problem: LeastSquares, learned: Bool[ArrayLike, " c"], *, tied: bool = False
) -> Float[Array, "n m"]:
    r"""The stationary end-to-end matrix with chosen components of the target learned and the others at zero.

    `Theta = Phi1 S^{-1} sum_i learned_i sigma_i p_i q_i^T` with `Ytil = sum_i sigma_i p_i q_i^T`; for tied layers with X = I the
    same over the eigenvectors of the symmetric part of Y, where only positive eigenvalues can be learned.

    **Args:**

    - `problem`: without a link.
    - `learned`: shape (min(r, m),), or (n,) for tied layers: a flag a component, in descending order.
    - `tied`: for `SymmetricFactors`.

    **Returns:** Theta, shape (n, m). `init.balanced` makes weights with it; flags on negative eigenvalues count as off.

    **Raises:** `ValueError` for a link, another number of flags, or tied layers on data other than X = I.

    **Notes:** with all flags on it is Theta_hat (tied: the positive semidefinite part). Among as many components as the width
    allows, the largest ones are the minimum and every other choice belongs to strict saddles. Weights with this
    product are stationary if the missing components annihilate them, as they do balanced weights. Derivatives need gaps
    between components with the flag and those without (tied: between any two).

    **Source:** T21 (6), (7).
    """
    _refuse_link(problem)
    learned = jnp.asarray(learned, bool)
    if tied:
        values, P = jnp.linalg.eigh(_tied_target(problem))
        values, P, Q = jnp.maximum(values[::-1], 0), P[:, ::-1], P[:, ::-1].T
    else:
        values = jnp.linalg.svd(problem.Ytil, compute_uv=False)
    if learned.shape != values.shape:
        raise ValueError(
            f"Argument `learned` must have shape {values.shape}, a flag a component, but has shape {learned.shape}."
        )
    held = (P * jnp.where(learned, values, 0)) @ Q if tied else problem.Ytil @ right_projector(problem.Ytil, learned)
    return problem.from_data(held / problem.singular_values[:, None])


@public
@of_finite_state
def balance(model: TwoLayer | ReducedTwoLayer, problem: LeastSquares, epsilon: Float[ArrayLike, ""] | int) -> Balance:
    r"""Whether a two-layer network is epsilon-balanced: `||D||_F <= epsilon`, `D = U1^T U1 - V^T V`.

    **Args:** `model`; `problem`; `epsilon`, at least 0, in the units of the weights' squares.

    **Returns:** a `Balance`: `||D||_F` and whether it is at most epsilon.

    **Raises:** `ValueError` for a negative epsilon, or a model that does not fit the problem.

    **Notes:** conserved by the flow. Never of size h x h, and exact to round-off of `||U1||^2 + ||V||^2`. Stationary points
    need not be balanced (U = 0 with any V of `E V = 0`); those of the flow with a penalty of Lambda = 0 are.

    **Source:** T21 Definition 2, with U1 in the place of U for data other than X = I.
    """
    epsilon = _checks.as_float(epsilon, "epsilon")
    if not _checks.is_traced(epsilon) and not np.all(np.asarray(epsilon) >= 0):
        raise ValueError(f"Argument `epsilon` must be at least 0, but is {epsilon}.")
    U1, V = moving_layers(model, problem)
    L, _ = row_factor(jnp.concatenate([U1, V]))
    U1, V = L[: U1.shape[0]], L[U1.shape[0] :]
    value = norm(U1.T @ U1 - V.T @ V)
    return Balance(value, value <= epsilon)


def _two_layer_curvature(A: Array, V: Array, s: Array, top: Array, width: Array | int) -> Array:
    """Least eigenvalue of `[[s^2 V^T V, -s e], [-s e, s^2 A^T A]]`, or 0 where that is positive."""
    p = A.shape[0] + V.shape[0]
    if V.shape[1] > p:
        # E annihilates A and V unless it is zero, so that p columns hold an empty direction as the full width does.
        L, _ = row_factor(jnp.concatenate([A, V]))
        A, V = L[: A.shape[0]], L[A.shape[0] :]
    k = V.shape[1]
    # The last columns of a padded core are no directions of the network.
    coupling = -s * top * jnp.diag((jnp.arange(k) < width).astype(V.dtype))
    block = jnp.block([[s**2 * (V.T @ V), coupling], [coupling, s**2 * (A.T @ A)]])
    return jnp.minimum(jnp.linalg.eigvalsh(block)[0], 0)


def _component(values: Array, width: Array | int) -> Array:
    """The h-th of descending values, zero beyond their number."""
    index = jnp.clip(jnp.asarray(width).astype(int) - 1, 0, values.shape[0] - 1)
    return jnp.where(width > values.shape[0], 0, jnp.maximum(values[index], 0))


def _refuse_link(problem: LeastSquares) -> None:
    if problem.link is not None:
        raise ValueError(
            "The stationary points of a problem with a link function have no closed form: leave out `link`."
        )


def _tied_target(problem: LeastSquares) -> Array:
    """The symmetric part of Y, on which alone tied layers act."""
    if problem.link is not None or problem.X is not None or problem.num_inputs != problem.num_outputs:
        raise ValueError(
            "For tied layers this is known for matrix factorization of a square target only: use `factorization(Y)` with Y of "
            "shape (n, n)."
        )
    return (problem.Y + problem.Y.T) / 2


def _tolerance(rtol, dtype) -> Array:
    return jnp.asarray(float(jnp.finfo(dtype).eps) ** 0.5 if rtol is None else rtol, dtype)
