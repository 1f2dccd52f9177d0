r"""Sharpness: the largest curvature of the loss over the weights.

The Hessian is `J^T (q S^2 kron I) J` plus a part that is linear in the gradient G of the loss with respect to Theta. Where G
vanishes, at every minimum of a network that is wide enough, its positive eigenvalues are those of the operator
`M -> q sum_l (S A_l A_l^T S) M (B_l^T B_l)` on matrices of shape (r, m), with the products A_l of the layers before layer l (in
the data's coordinates) and B_l of those after it. Its largest eigenvalue takes products of small matrices, whatever the width.
"""

import math

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float

from .. import _checks
from .._finite import of_finite_state
from .._public import public
from .._statement import Statement
from ..models import AbstractModel, chain
from ..observables.curvature import hessian_product
from ..problems import AbstractProblem, LeastSquares
from ..reduction import check_fits
from ._numerics import norm
from .eigenvector import largest_eigenvalue


@public
@of_finite_state
def sharpness(
    model: AbstractModel,
    problem: LeastSquares,
    *,
    rtol: Float[ArrayLike, ""] | None = None,
    max_steps: int = 2000,
) -> Statement:
    r"""The largest eigenvalue of the Hessian of the loss over all weights, at a solution.

    That of `M -> q sum_l (S A_l A_l^T S) M (B_l^T B_l)` on matrices (r, m), with `A_l = Phi1^T W1 ... W_{l-1}` and
    `B_l = W_{l+1} ... WL`. For two layers this is `M -> q (S U1 U1^T S M + S^2 M V V^T)`, the operator of the decay of the error
    (`rate_operator`); with all singular values of the data equal to s the value is
    `q s^2 (sigma_max(U1)^2 + sigma_max(V)^2)`.

    **Args:**

    - `model`: a one-layer, two-layer or deep network, reduced or not.
    - `problem`: without a link or a penalty.
    - `rtol`: the residual at which the iteration ends, by default 1e-8 in float64 and 1e-4 in float32. The error of the
        eigenvalue is of the square of the residual, over the relative gap to the next one, and never more than the residual.
    - `max_steps`: at most this many applications of the operator.

    **Returns:** a `Statement`.

    - `value`: the largest eigenvalue of the part of the Hessian that remains where G = 0.
    - `deviation`: the largest eigenvalue of the whole Hessian lies within `value` plus or minus this, which is 0 where G = 0.
    - `applies`: whether this is a solution: the deviation is at most a thousandth of the value.
    - `residual`: `||T M - value M|| / value` for the unit matrix M that was found: some eigenvalue lies this close.
    - `converged`: whether the residual is within `rtol`.
    - `num_steps`: how many applications of the operator it took.

    **Raises:** `ValueError` for a link, a penalty, another kind of model, or sizes that do not fit.

    **Notes:** one and two layers have closed forms, `q s_1^2` and `q ||S [U1, sigma_max(V) I]||_2^2`. More take a power
    iteration, each step followed by the best combination of the iterate, its image and the previous direction (locally
    optimal conjugate gradients), from a fixed random start. Differentiable once: the derivative holds the leading matrix fixed,
    which is exact where the largest eigenvalue is simple, and that of the residual is NaN. Away from solutions use
    `hessian_sharpness`.

    **Source:** the chain rule.

    Example:

        >>> problem, model = ld.factorization(np.diag([2.0, 1.0])), ld.TwoLayer(np.diag([2.0, 1.0]), np.eye(2))
        >>> found = ld.theory.sharpness(model, problem)
        >>> float(found.value), bool(found.applies), float(ld.stable_step(model, problem, 1.0, at="solution"))
        (5.0, True, 0.4)
    """
    check_fits(model, problem)
    problem.refuse_link("sharpness")
    layers, rtol = moving_chain(model, problem), _default_rtol(rtol, problem.dtype)
    s = problem.singular_values
    r, m = s.shape[0], problem.num_outputs
    if len(layers) <= 2:
        # Of the m blocks of T the one of the largest mu holds the largest eigenvalue.
        blocks = [layers[0], jnp.linalg.norm(layers[1], ord=2) * jnp.eye(r, dtype=s.dtype)] if len(layers) == 2 else []
        rows = s[:, None] * jnp.concatenate(blocks, axis=1) if blocks else jnp.diag(s)
        value = problem.scale * jnp.linalg.norm(rows, ord=2) ** 2
        residual, num_steps = jnp.zeros_like(value), jnp.zeros((), jnp.int32)
    else:
        before = [jnp.diag(s), *(s[:, None] * chain(layers[:i]) for i in range(1, len(layers)))]
        after = [*(chain(layers[i:]) for i in range(1, len(layers))), jnp.eye(m, dtype=s.dtype)]
        pairs = [(A @ A.T, B.T @ B) for A, B in zip(before, after, strict=True)]
        value, residual, num_steps = largest_eigenvalue((pairs, problem.scale), _curvature, (r, m), rtol, max_steps)
    deviation = _deviation(layers, problem)
    return Statement(
        value,
        deviation <= 1e-3 * value,
        deviation=deviation,
        residual=residual,
        converged=residual <= rtol,
        num_steps=num_steps,
    )


@public
@of_finite_state
def hessian_sharpness(
    model: AbstractModel,
    problem: AbstractProblem,
    *,
    rtol: Float[ArrayLike, ""] | None = None,
    max_steps: int = 2000,
) -> Statement:
    """The largest eigenvalue of the Hessian of what descent descends, at any point, with link and penalty too.

    From products of the Hessian with a vector of all weights, which cost about two gradients; nothing larger is formed.

    **Args:** as for `sharpness`, but any problem, and any network, one of your own as well; its own weights are the
    coordinates, so that two-layer and deep networks with the same Theta differ.

    **Returns:** a `Statement`, which needs no hypothesis; `residual`, `||H v - value v|| / |value|` for the unit vector v
    that was found; `converged`, whether it is within `rtol`; `num_steps`, how many products with the Hessian it took.

    **Raises:** `ValueError` if the model's shapes do not fit the problem, for a reduced model, whose coordinates leave out
    directions of the hidden layers that count here, or one whose velocity is not minus the gradient of a loss (`WideLimit`).

    **Notes:** the same iteration as `sharpness`, on vectors of weights, and the same derivative.

    **Source:** the definition.

    Example:

        >>> problem, model = ld.factorization(np.diag([2.0, 1.0])), ld.TwoLayer(np.diag([2.0, 1.0]), np.eye(2))
        >>> float(ld.theory.hessian_sharpness(model, problem).value), float(ld.theory.sharpness(model, problem).value)
        (5.0, 5.0)
        >>> float(ld.theory.hessian_sharpness(ld.TwoLayer(0 * model.U, 0 * model.V), problem).value)
        2.0
    """
    check_fits(model, problem)
    if model.is_reduced:
        raise ValueError(
            "The Hessian is that of the full network, but the model is reduced: lift it, or use `sharpness`."
        )
    if not model.is_gradient_flow:
        raise ValueError(
            f"A {type(model).__name__} has no Hessian here: its velocity is not known to be minus the gradient of the loss."
        )
    weights, _ = ravel_pytree(eqx.filter(model, model.moving()))
    rtol = _default_rtol(rtol, problem.dtype).astype(weights.dtype)
    value, residual, num_steps = largest_eigenvalue((model, problem), hessian_product, weights.shape, rtol, max_steps)
    return Statement(value, jnp.isfinite(value), residual=residual, converged=residual <= rtol, num_steps=num_steps)


def _curvature(given, M: Float[Array, "r m"]) -> Float[Array, "r m"]:
    """The operator of `sharpness`, of the pairs `(S A_l A_l^T S, B_l^T B_l)` and q."""
    pairs, scale = given
    return scale * sum(P @ M @ Q for P, Q in pairs)


def moving_chain(model: AbstractModel, problem: LeastSquares) -> tuple[Float[Array, "_ _"], ...]:
    """The layers of a network as a chain with product Phi1^T Theta.

    **Raises:** `ValueError` for a model that is no chain of layers.
    """
    layers = model.moving_layers(problem)
    if layers is None:
        raise ValueError(
            f"The sharpness is that of a chain of layers, but the model is a {type(model).__name__}: use `hessian_sharpness`."
        )
    return layers


def _deviation(layers, problem: LeastSquares) -> Array:
    """A bound on the part of the Hessian that vanishes with G, `2 sum_{l<k} <G, W1 .. dW_l .. dW_k .. WL>`.

    `|| G ||_2` times the largest eigenvalue of the matrix of the products of the norms of all layers but two.
    """
    if len(layers) == 1:
        return jnp.zeros((), problem.dtype)
    G = problem.reduced_loss_gradient(chain(layers))
    norms = [norm(W) for W in layers]
    depth = range(len(layers))
    others = lambda i, j: math.prod(x for k, x in enumerate(norms) if k not in (i, j))  # noqa: E731
    matrix = jnp.stack(
        [
            jnp.stack([jnp.zeros((), G.dtype) if i == j else jnp.asarray(others(i, j), G.dtype) for j in depth])
            for i in depth
        ]
    )
    return jnp.linalg.norm(G, 2) * jnp.linalg.eigvalsh(matrix)[-1]


def _default_rtol(rtol, dtype) -> Array:
    if rtol is None:
        rtol = 1e-8 if dtype == jnp.float64 else 1e-4
    _checks.check_tolerance(rtol, "rtol", dtype)
    return jnp.asarray(rtol, dtype)
