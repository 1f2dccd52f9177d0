r"""The spectrum of the Hessian of the loss over all weights: the largest eigenvalues, or all of a small network.

The Hessian is applied to vectors, never formed where only its top is asked for. Hidden directions w that neither layer of two
uses, of which a wide network has any number, cost nothing: on them it is `dU dV^T -> G` with the gradient G of the loss in
Theta, whose eigenvalues are the singular values of G and their negatives, once for each w.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .. import _checks
from .._norms import all_finite
from .._public import public
from ..models import AbstractModel
from ..problems import AbstractProblem
from .coordinates import gradient_flows
from .losses import total_loss
from .registry import observable

# The largest number of weights for which the Hessian is formed.
MOST_WEIGHTS = 2000


@observable(
    label="largest eigenvalues of the Hessian, descending",
    symbol=r"$\lambda_i(\nabla^2 L)$",
    panel="eigenvalues of the Hessian",
    kinds=gradient_flows,
    reduced=True,
)
@public
def hessian_top(
    model: AbstractModel, problem: AbstractProblem, *, k: int = 10, steps: int | None = None
) -> Float[Array, " k"]:
    """The k largest eigenvalues of the Hessian of what descent descends, over all weights, by Lanczos's method.

    From products of the Hessian with vectors, which cost about two gradients each, with all vectors kept orthogonal. For a
    reduced network of two layers it is that of the full one, at a cost that does not depend on the width.

    **Args:** `k`, how many, or all where the (core of the) network has fewer weights, told to solvers by
    `functools.partial(hessian_top, k=3)`; `steps`, of the method, by default `max(100, 4 k)`, at most the number of weights, with
    which it is exact but for round-off.

    **Returns:** shape (k,), descending; NaN for those that the steps do not resolve, to 1e-6 of the largest in float64.

    **Raises:** `ValueError` for a k below 1, fewer steps than k, a network whose velocity is not minus the gradient of a loss, a
    core of another depth that was drawn at a width, and a core with terms on the weights.

    **Notes:** derivatives hold the eigenvectors fixed, which is exact for eigenvalues that are simple. At a solution they are
    those of the tangent kernel, and zero beyond; the largest of them is `theory.hessian_sharpness`.

    **Source:** Lanczos (1950); for the hidden directions that are not used this package's own.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> solution = ld.init.balanced(problem, problem.theta_hat, 2)
        >>> print(ld.observables.hessian_top(solution, problem, k=3).round(4))
        [4. 3. 3.]
    """
    k = _checks.check_count(k, "k")
    if steps is not None and steps < k:
        raise ValueError(f"Argument `steps` must be at least k = {k}, but is {steps}.")
    model, core, small = _parts(model, problem)
    size = ravel_pytree(eqx.filter(core, core.moving()))[0].size
    k = min(k, size)
    values = _lanczos(core, small, k, min(size, max(100, 4 * k) if steps is None else steps))
    values = _unused(values, model, core, small, problem) if model.is_reduced else values
    # The Hessian of one layer does not see its weights, but nothing is said of those that are not finite.
    return jnp.where(all_finite(model), values, jnp.nan)


@public
def hessian_spectrum(model: AbstractModel, problem: AbstractProblem) -> Float[Array, " p"]:
    """All eigenvalues of the Hessian of what descent descends, descending: for networks of at most 2,000 weights.

    **Returns:** shape (p,), p the number of weights.

    **Raises:** `ValueError` for more weights, a network whose velocity is not minus the gradient of a loss, or a core drawn at a
    width, which has no number of weights of its own.

    **Notes:** derivatives as in `hessian_top`.

    **Source:** the definition.

    Example:

        >>> problem = ld.factorization(jnp.array([[1.5]]))
        >>> print(ld.observables.hessian_spectrum(ld.TwoLayer(jnp.eye(1), jnp.eye(1)), problem).round(4))
        [1.5 0.5]
    """
    if model.is_reduced:
        raise ValueError(
            "`hessian_spectrum` is that of the full network, but the model is reduced: lift it, or use `hessian_top`."
        )
    _, core, small = _parts(model, problem)
    size = ravel_pytree(eqx.filter(core, core.moving()))[0].size
    if size > MOST_WEIGHTS:
        raise ValueError(
            f"`hessian_spectrum` is for models of at most {MOST_WEIGHTS} weights, but this one has {size}: use `hessian_top`."
        )
    H = jax.vmap(lambda v: hessian_product((core, small), v))(jnp.eye(size, dtype=small.dtype))
    vectors = jax.lax.stop_gradient(jnp.linalg.eigh((H + H.T) / 2)[1])
    return jnp.where(all_finite(model), jnp.sum(vectors * (H @ vectors), axis=0)[::-1], jnp.nan)


def hessian_product(given: tuple[AbstractModel, AbstractProblem], v: Float[Array, " p"]) -> Float[Array, " p"]:
    """The Hessian of the loss of a model on a problem times a vector of all weights."""
    model, problem = given
    moved, rest = eqx.partition(model, model.moving())
    weights, unravel = ravel_pytree(moved)
    gradient = jax.grad(lambda weights: total_loss(eqx.combine(unravel(weights), rest), problem))
    return jax.jvp(gradient, (weights,), (v,))[1]


def _parts(model: Any, problem: AbstractProblem) -> tuple[Any, AbstractModel, AbstractProblem]:
    """The network as it is asked about, what of it moves, and the problem of that."""
    if model.is_reduced and len(model.layers) != 2:
        if model.bases is None:
            raise ValueError(
                "The Hessian of a core drawn at a width is known for two layers, but the model has another depth."
            )
        model = model.lift()
    if not model.is_gradient_flow:
        raise ValueError(
            f"A {type(model).__name__} has no Hessian here: its velocity is not known to be minus the gradient of the loss."
        )
    if model.is_reduced and problem.penalty is not None:
        raise ValueError(
            "The Hessian of a reduced model is known without terms on the weights: pass `problem.plain`, or lift it."
        )
    core, small = model.parts(problem)
    return model, core, small


def _lanczos(core: AbstractModel, small: AbstractProblem, k: int, steps: int) -> Float[Array, " k"]:
    """The k largest Ritz values, NaN where their residuals are large."""
    weights, _ = ravel_pytree(eqx.filter(core, core.moving()))
    dtype, size = weights.dtype, weights.size
    eps = jnp.finfo(dtype).eps
    # The basis is held: derivatives are those of Rayleigh quotients.
    held = jax.lax.stop_gradient((core, small))
    # A fixed random start, and one more vector for each time that an invariant subspace is found.
    draws = jnp.asarray(np.random.default_rng(0).normal(size=(steps, size)), dtype)

    def orthogonal(w: Array, Q: Array) -> Array:
        # Twice is enough.
        for _ in range(2):
            w = w - Q.T @ (Q @ w)
        return w

    def step(carry, given):
        Q, q, largest = carry
        i, draw = given
        Q = Q.at[i].set(q)
        image = hessian_product(held, q)
        alpha = q @ image
        largest = jnp.maximum(largest, jnp.linalg.norm(image))
        w = orthogonal(image, Q)
        beta = jnp.linalg.norm(w)
        ended = ~(beta > 100 * eps * largest)
        fresh = orthogonal(draw / jnp.linalg.norm(draw), Q)
        w: Any = jnp.where(ended, fresh, w)
        length = jnp.linalg.norm(w)
        following = orthogonal(w / jnp.where(length > 0, length, 1), Q)
        return (Q, following, largest), (alpha, jnp.where(ended, 0, beta))

    start = (jnp.zeros((steps, size), dtype), draws[0] / jnp.linalg.norm(draws[0]), jnp.zeros((), dtype))
    scanned: Any = jax.lax.scan(step, start, (jnp.arange(steps), jnp.roll(draws, -1, axis=0)))
    (Q, _, _), (alpha, beta) = scanned
    T = jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)
    ritz, S = jnp.linalg.eigh(T)
    vectors = jax.lax.stop_gradient((Q.T @ S[:, ::-1])[:, :k].T)
    # Where all directions were seen there is no residual, and what `beta` has is round-off.
    residual = jnp.abs(beta[-1] * S[-1, ::-1][:k]) if steps < size else jnp.zeros(k, dtype)
    near = (1e-6 if dtype == jnp.float64 else 1e-3) * jnp.max(jnp.abs(ritz))
    values: Array = jax.vmap(lambda v: v @ hessian_product((core, small), v))(vectors)
    return jnp.where(residual <= near, values, jnp.nan)


def _unused(
    values: Array, model: Any, core: Any, small: AbstractProblem, problem: AbstractProblem
) -> Float[Array, " k"]:
    """The top of those of the core and of all that it leaves out: hidden directions that are not used, and rows without data."""
    (r, columns), m = core.layers[0].shape, core.layers[1].shape[1]
    h = model.bases.hidden[0].shape[0] if model.width is None else model.width
    more = jnp.asarray(h, values.dtype) - columns
    sigma = jnp.linalg.svd(small.loss_gradient(core.product()), compute_uv=False)
    count = values.shape[0]
    copies = jnp.where(jnp.arange(count) < more, sigma[:, None], -jnp.inf).ravel()
    zeros = (columns + more) * (problem.num_inputs + problem.num_outputs) - columns * (r + m) - 2 * sigma.size * more
    none = jnp.where(jnp.arange(count) < zeros, jnp.zeros((), values.dtype), -jnp.inf)
    top = jnp.sort(jnp.concatenate([values, copies, none]), descending=True)[:count]
    # A core of more columns than the width has directions that the network has not.
    return jnp.where((more >= 0) & ~jnp.any(jnp.isnan(values)), top, jnp.nan)
