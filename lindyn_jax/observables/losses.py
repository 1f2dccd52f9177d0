"""Losses, errors and distances: how far the end-to-end matrix is from its goal."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._norms import all_finite, norm
from .._public import public
from ..models import AbstractModel
from ..problems import AbstractProblem, LeastSquares
from .coordinates import reduced_product, zero
from .registry import observable


@observable(label="L", symbol="$L$", panel="loss", log=True, convention="(q/2) ||Y - X U V^T||_F^2", reduced=True)
@public
def loss(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """L, with the loss scale of the problem; the data's loss alone, without a penalty.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> float(ld.observables.loss(ld.TwoLayer(jnp.eye(2), jnp.eye(2)), problem))
        0.5
    """
    return problem.reduced_loss(reduced_product(model, problem))


@observable(
    label="L - L*", symbol="$L - L^*$", panel="loss", log=True, kinds=LeastSquares, penalised=True, reduced=True
)
@public
def excess_loss(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """L - L* = (q/2) ||E||_F^2, without cancellation.

    L* is the least loss over all Theta: narrow networks and tied layers need not reach it (see
    `theory.least_excess_loss`).

    **Raises:** `ValueError` for a problem that is not least squares, or has a link.

    Example:

        >>> problem = ld.LeastSquares(jnp.array([[1.0], [1.0]]), jnp.array([[0.0], [2.0]]))
        >>> model = ld.LinearModel(jnp.array([[2.0]]))
        >>> float(ld.observables.loss(model, problem)), float(ld.observables.excess_loss(model, problem))
        (2.0, 1.0)
    """
    data: Any = problem.plain  # least squares, or refused
    data.refuse_link("excess_loss")
    return data.excess_loss(reduced_product(model, problem))


@observable(label="terms on the weights", symbol="penalty", panel="loss", log=True, reduced=True)
@public
def penalty(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """`(beta/2) ||weights||^2 + w ||D - Lambda||_F^2`, the problem's terms on the weights; zero for a problem without any.

    The penalty of a reduced model is that of the full network: the directions of the hidden layer that the reduction leaves
    out count `(h - k) lambda0^2`.

    **Raises:** `ValueError` for a penalty on the imbalance and a network of other than two layers.

    Example:

        >>> problem = ld.factorization(jnp.eye(2)).regularized(1.0, weight=1 / 8)
        >>> model = ld.TwoLayer(jnp.diag(jnp.array([2.0, 1.0])), jnp.eye(2))
        >>> float(ld.observables.penalty(model, problem)), (2**2 + 1**2) / 8
        (0.625, 0.625)
    """
    if problem.penalty is None:
        return zero(model.product(), problem.dtype)
    model.check_penalty(problem.penalty)
    return problem.penalty.value(model)


@observable(label="L plus penalty", symbol="$L$ + penalty", panel="loss", log=True, reduced=True)
@public
def total_loss(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """L plus the terms on the weights, if the problem has any: what the flow descends.

    Example:

        >>> problem = ld.factorization(jnp.eye(2)).regularized(1.0, weight=1 / 8)
        >>> model = ld.TwoLayer(jnp.diag(jnp.array([2.0, 1.0])), jnp.eye(2))
        >>> float(ld.observables.loss(model, problem)), float(ld.observables.total_loss(model, problem))
        (0.5, 1.125)
    """
    return loss(model, problem) + penalty(model, problem)


@observable(
    label="||E||_F/||Ytil||_F",
    symbol=r"$\|E\|_F / \|\tilde Y\|_F$",
    panel="relative error",
    log=True,
    kinds=LeastSquares,
    penalised=True,
    reduced=True,
)
@public
def reconstruction_error(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """||E||_F / ||Ytil||_F: the relative error of T21's figures when X = I.

    Without a target, Ytil = 0, it is infinite, or 0 where the error is 0 as well.

    **Raises:** `ValueError` for a problem that is not least squares, or has a link.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> float(ld.observables.reconstruction_error(ld.TwoLayer(jnp.eye(2), jnp.eye(2)), problem)), 1 / 5**0.5
        (0.4472, 0.4472)
    """
    data: Any = problem.plain
    data.refuse_link("reconstruction_error")
    error, size = norm(data.error(reduced_product(model, problem))), norm(data.Ytil)
    aimless = size == 0
    without = jnp.where(error == 0, 0, jax.lax.stop_gradient(jnp.inf * error))
    return jnp.where(aimless, without, error / jnp.where(aimless, 1, size))


@observable(
    label="||Theta - Theta_hat||_F",
    symbol=r"$\|\Theta - \hat\Theta\|_F$",
    panel="distance to the minimum-norm solution",
    log=True,
    kinds=LeastSquares,
    penalised=True,
    reduced=True,
)
@public
def distance_to_theta_hat(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """||Theta - Theta_hat||_F, the distance to the minimum-norm solution.

    **Raises:** `ValueError` for a problem that is not least squares, or has a link.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> float(ld.observables.distance_to_theta_hat(ld.TwoLayer(jnp.eye(2), jnp.eye(2)), problem))
        1.0
    """
    data: Any = problem.plain
    outside = model.frozen_product(problem)
    inside = reduced_product(model, problem) - data.reduced_theta_hat
    return norm(inside) if outside is None else norm(inside, outside)


@observable(
    label="||U2 V^T||_F",
    symbol=r"$\|U_2 V^T\|_F$",
    panel="distance to the minimum-norm solution",
    log=True,
    source="M22 (30)",
    reduced=True,
)
@public
def frozen_product_norm(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """||U2 V^T||_F, the part of Theta outside the range of the data: the bias that training leaves (M22 (30)).

    Example:

        >>> problem = ld.LeastSquares(jnp.array([[1.0, 2.0]]), jnp.array([[2.0]]))
        >>> model = ld.TwoLayer(jnp.array([[1.0], [1.0]]), jnp.array([[1.0]]))
        >>> float(ld.observables.frozen_product_norm(model, problem)), 1 / 5**0.5
        (0.4472, 0.4472)
    """
    outside = model.frozen_product(problem)
    size = jnp.zeros((), problem.dtype) if outside is None else norm(outside)
    # The moving rows are not in it, but a network that has diverged has no bias either.
    return jnp.where(all_finite(model), size, jnp.nan)
