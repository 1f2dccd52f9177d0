"""Where the flow stands still: stationary points, and which of them are minima.

For one layer every stationary point is a minimum. For two layers, and for tied ones, the stationary products are the target
with some of its components left out; those that could still grow are strict saddles, and there are no other minima than the
best ones that the width allows.
"""

import functools
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from .._finite import of_finite_state
from .._linalg import row_factor
from .._public import public
from ..models import AbstractModel, SymmetricFactors, WideLimit, chain
from ..problems import LeastSquares, Penalised
from ..reduction import check_fits
from ._numerics import hypot, norm, quotient
from .imbalance import hidden_width, moving_layers
from .least_losses import refuse_link, tied_target


class Stationarity(NamedTuple):
    """How far a state is from standing still.

    **Fields:** `speed`, the Frobenius norm of the velocity of all weights; `residual`, the same relative to the size of the
    terms that cancel in it, at most 1 without a link; `holds`, whether the residual is within the tolerance.

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> found = ld.theory.stationarity(ld.TwoLayer(np.eye(2), np.eye(2)), problem)
        >>> float(found.speed), float(found.residual), bool(found.holds)
        (1.414, 0.1937, False)
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

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> found = ld.theory.stationary_point(ld.TwoLayer(np.diag([2.0, 1.0]), np.eye(2)), problem)
        >>> bool(found.is_minimum), bool(found.is_strict_saddle), float(found.escape)
        (True, False, -1.0)
    """

    is_stationary: Bool[Array, ""]
    is_minimum: Bool[Array, ""]
    is_strict_saddle: Bool[Array, ""]
    escape: Float[Array, ""]
    curvature: Float[Array, ""]


@public
@of_finite_state
def stationarity(
    model: AbstractModel, problem: LeastSquares | Penalised, *, rtol: Float[ArrayLike, ""] | None = None
) -> Stationarity:
    r"""Whether the flow stands still at this state, and the residual of its equation.

    Two layers: `S E V = 0` and `U1^T S E = 0`; tied layers with X = I: `(Y - c U U^T) U = 0` for symmetric Y, so that
    `X (Y - c X) = 0` for the product X; one layer: `X^T (Y - X Theta) = 0`.

    **Args:**

    - `model`: any network, one of your own as well; a reduced one stands for the full one.
    - `problem`: least squares, with a link or terms on the weights too.
    - `rtol`: on the residual, by default the square root of the dtype's precision.

    **Returns:** a `Stationarity`.

    **Raises:** `ValueError` if the model's shapes do not fit the problem.

    **Notes:** the residual is relative to the weights as well as to the data, so tiny weights near the saddle at zero are
    not taken for a stationary point. The gradients of the loss and of a penalty on the imbalance are orthogonal: with
    a penalty of positive weight a state is stationary only if it is so without it, and `U1 (D - Lambda) = 0`,
    `V (D - Lambda) = 0`. For Lambda = 0 these are the balanced stationary points and no others.

    **Source:** T21 (6), (7). The statement on the penalty is this package's own.

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> bool(ld.theory.stationarity(ld.TwoLayer(np.diag([2.0, 0.0]), np.eye(2)), problem).holds)
        False
        >>> bool(ld.theory.stationarity(ld.TwoLayer(np.diag([2.0, 0.0]), np.diag([1.0, 0.0])), problem).holds)
        True
    """
    check_fits(model, problem)
    data = problem.plain
    if not isinstance(data, LeastSquares):
        raise ValueError(
            f"Argument `problem` must be a LeastSquares or a Penalised one, but is of a {type(data).__name__}."
        )
    speed = norm(*jax.tree.leaves(eqx.filter(model.velocity(problem), model.moving())))
    product, weights = norm(model.reduced_product(problem)), _gain(model, data)
    s = data.singular_values[0]
    target = norm(data.Y) if data.link is not None else norm(data.Ytil)
    scale = data.scale * s * (target + s * product) * weights
    if problem.penalty is not None:
        imbalance, decay = problem.penalty.imbalance, problem.penalty.weight_decay
        if imbalance is not None:
            scale = scale + 4 * imbalance.weight * (weights**2 + norm(imbalance.Lambda)) * weights
        if decay is not None:
            scale = scale + decay * norm(*jax.tree.leaves(eqx.filter(model, model.moving())))
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

    - `model`: one layer, two layers, reduced or not, or for X = I a `SymmetricFactors`.
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

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> found = ld.theory.stationary_point(ld.TwoLayer(np.diag([2.0, 0.0]), np.diag([1.0, 0.0])), problem)
        >>> bool(found.is_strict_saddle), float(found.escape), float(found.curvature)
        (True, 1.0, -1.0)
    """
    stationary = stationarity(model, problem, rtol=rtol).holds
    target, output, top, held, curvature = _components(model, problem)
    escape = top - held
    saddle = escape > _tolerance(rtol, escape.dtype) * jnp.maximum(norm(target), norm(output))
    return StationaryPoint(stationary, stationary & ~saddle, stationary & saddle, escape, curvature)


@functools.singledispatch
def _gain(model: AbstractModel, problem: LeastSquares) -> Array:
    """A bound on the factor by which the velocity is larger than the loss's gradient with respect to `Phi1^T Theta`."""
    if not model.is_gradient_flow:
        raise ValueError(
            f"What stands still is told from the terms that cancel in the velocity, unknown for a {type(model).__name__}."
        )
    layers = model.moving_layers(problem)
    if layers is None:
        weights, rest = eqx.partition(model, model.moving())
        slopes = jax.jacobian(lambda weights: eqx.combine(weights, rest).reduced_product(problem))(weights)
        return norm(*jax.tree.leaves(slopes))
    norms = [norm(W) for W in layers]
    # Every layer's gradient has all other layers as factors.
    others = [math.prod(size for j, size in enumerate(norms) if j != i) for i in range(len(norms))]
    return functools.reduce(hypot, [other * jnp.ones_like(norms[0]) for other in others])


@_gain.register
def _(model: SymmetricFactors, problem: LeastSquares) -> Array:
    return 2 * norm(model.U)


@_gain.register
def _(model: WideLimit, problem: LeastSquares) -> Array:
    # Minus the gradient times roots of this spectral norm, from either side.
    return 2 * hypot(jnp.linalg.norm(model.Theta, ord=2), model.level)


@functools.singledispatch
def _components(model: AbstractModel, problem: LeastSquares) -> tuple[Array, Array, Array, Array, Array]:
    """What the flow goes for and what it has, the largest component of the error, the least that is held, the curvature."""
    refuse_link(problem)
    layers, q, s = model.moving_layers(problem), problem.scale, problem.singular_values[:, None]
    if layers is None or len(layers) > 2:
        raise ValueError(
            "The kinds of stationary points are known for one layer, two layers and tied layers, but the model is a "
            f"{type(model).__name__}."
        )
    target, output = problem.Ytil, s * chain(layers)
    if len(layers) == 1:
        zero = jnp.zeros((), output.dtype)
        return target, output, zero, zero, zero
    (U1, V), width = moving_layers(model, problem), hidden_width(model, problem)
    top = jnp.linalg.svd(problem.error(U1 @ V.T), compute_uv=False)[0]
    held = _component(jnp.linalg.svd(output, compute_uv=False), width)
    return target, output, top, held, q * _two_layer_curvature(s * U1 / s[0], V, s[0, 0], top, width)


@_components.register
def _(model: SymmetricFactors, problem: LeastSquares) -> tuple[Array, Array, Array, Array, Array]:
    target, s = tied_target(problem), problem.singular_values[0]
    output = s * model.product()
    top = jnp.linalg.eigvalsh(target - output)[-1]
    held = _component(jnp.linalg.eigvalsh(output)[::-1], model.width)
    return target, output, top, held, jnp.minimum(2 * problem.scale * s * (held - top), 0)


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


def _tolerance(rtol, dtype) -> Array:
    return jnp.asarray(float(jnp.finfo(dtype).eps) ** 0.5 if rtol is None else rtol, dtype)
