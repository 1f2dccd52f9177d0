r"""The same training in the scaling of the neural tangent kernel (M22 appendix D)."""

import math
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._public import public
from ..models import AbstractModel
from ..problems import OutputProblem
from .imbalance import hidden_width, moving_layers


class NTKRescaling(NamedTuple):
    """A network and its problem in NTK scaling.

    **Fields:** `model`, with weights `h^alpha U`, `h^alpha V`; `problem`, the same loss as a function of them;
    `time_factor`, `h^{2 alpha}`: how much faster the original flow is than the flow of `problem`, and what a step size is
    multiplied by; `prefactor`, `sqrt(m) h^{1/2 - 2 alpha}`, the factor on the NTK-normalized network
    `Util Vtil^T/sqrt(m h)`.

    Example:

        >>> problem, model = ld.factorization(np.diag([2.0, 1.0])), ld.TwoLayer(0.5 * np.eye(2), 0.5 * np.eye(2))
        >>> rescaled = ld.theory.ntk_rescaling(model, problem, 0.5)
        >>> float(rescaled.time_factor), float(rescaled.prefactor)
        (2.0, 1.0)
    """

    model: AbstractModel
    problem: OutputProblem
    time_factor: Float[Array, ""]
    prefactor: Float[Array, ""]


@public
def ntk_rescaling(model: AbstractModel, problem: OutputProblem, alpha: Real[ArrayLike, ""]) -> NTKRescaling:
    r"""The same training in NTK scaling, `Util = h^alpha U`, `Vtil = h^alpha V`, whose entries are of order one.

    `dUtil/dt = -h^{2 alpha} dLtil/dUtil` with `Ltil(Util, Vtil) = L(U, V)`: the flow of the same loss written in the new
    weights, sped up by h^{2 alpha}.

    **Args:** `model`, a network of two layers, reduced or not; `problem`, a loss of outputs; `alpha`, the exponent of its
    start.

    **Returns:** an `NTKRescaling`.

    **Raises:** `ValueError` if the model's shapes do not fit the problem, it has a penalty, or no outputs that could be scaled.

    **Source:** M22 appendix D.

    Example:

        >>> problem, model = ld.factorization(np.diag([2.0, 1.0])), ld.TwoLayer(0.5 * np.eye(2), 0.5 * np.eye(2))
        >>> rescaled = ld.theory.ntk_rescaling(model, problem, 0.5)
        >>> float(rescaled.model.U[0, 0]), float(rescaled.time_factor)
        (0.7071, 2.0)
        >>> float(problem.loss(model.product())), float(rescaled.problem.loss(rescaled.model.product()))
        (1.812, 1.812)
    """
    _, V = moving_layers(model, problem)
    h, alpha = jnp.asarray(hidden_width(model, problem), V.dtype), jnp.asarray(alpha, V.dtype)
    rescaled = model.scaled(h**alpha)
    time_factor = h ** (2 * alpha)
    same_loss = eqx.tree_at(lambda p: p.output_scale, problem, problem.output_scale / time_factor)
    return NTKRescaling(rescaled, same_loss, time_factor, math.sqrt(problem.num_outputs) * h ** (0.5 - 2 * alpha))
