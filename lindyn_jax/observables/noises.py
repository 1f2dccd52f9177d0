"""How much the gradients of samples differ: the noise that batches put on descent."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._norms import all_finite, norm
from .._public import public
from ..models import AbstractModel
from ..problems import AbstractProblem
from .coordinates import gradient_flows, of_samples
from .registry import observable


@observable(
    label="trace of the covariance of the gradient of one sample",
    symbol=r"tr cov $\nabla L_i$",
    panel="gradient noise",
    log=True,
    kinds=(gradient_flows, of_samples),
    penalised=True,
    reduced=True,
)
@public
def gradient_noise(model: AbstractModel, problem: AbstractProblem) -> Float[Array, ""]:
    """`(1/N) sum_i ||g_i - g||^2`, the trace of the covariance of the gradient of one sample over all weights.

    g_i is N times the gradient of the loss of sample i, so that its mean over samples is the gradient g itself. That of a batch
    of B is 1/B of it with replacement, and `(N - B)/(B (N - 1))` of it without.

    **Raises:** `ValueError` for a problem that is no sum over samples, or a network whose velocity is not minus the gradient.

    **Source:** as in Li, Tai and E (2017), whose Sigma this is the trace of.

    Example:

        >>> problem = ld.LeastSquares(jnp.eye(2), jnp.diag(jnp.array([2.0, 1.0])))
        >>> float(ld.observables.gradient_noise(ld.TwoLayer(jnp.eye(2), jnp.eye(2)), problem))
        2.0
    """
    deviations = jax.vmap(norm)(_deviations(model, problem))
    return jnp.mean(deviations**2)


@public
def noise_covariance(model: AbstractModel, problem: AbstractProblem) -> Float[Array, "p p"]:
    """`(1/N) sum_i (g_i - g)(g_i - g)^T`, the covariance of the gradient of one sample over all weights of a small network.

    **Returns:** shape (p, p), with the weights of the (core of the) network in the order of `jax.flatten_util.ravel_pytree`.

    **Raises:** as `gradient_noise`, whose matrix it is.

    **Source:** Li, Tai and E (2017), Sigma.

    Example:

        >>> problem = ld.LeastSquares(jnp.eye(2), jnp.diag(jnp.array([2.0, 1.0])))
        >>> Sigma = ld.observables.noise_covariance(ld.TwoLayer(jnp.eye(2), jnp.eye(2)), problem)
        >>> Sigma.shape, float(jnp.trace(Sigma))
        ((8, 8), 2.0)
    """
    deviations = _deviations(model, problem)
    return deviations.T @ deviations / deviations.shape[0]


def _deviations(model: AbstractModel, problem: AbstractProblem) -> Float[Array, "N p"]:
    """`g_i - g`, one row a sample."""
    if not model.is_gradient_flow:
        raise ValueError(
            f"A {type(model).__name__} has no gradient noise here: its velocity is not known to be minus the gradient."
        )
    samples = problem.plain.sampled()
    count: int = samples.num_samples  # pyright: ignore[reportAssignmentType]

    def gradient(i: Array) -> Array:
        core, _ = model.velocity(samples.rows(i[None])).parts(problem)
        return -ravel_pytree(core)[0]

    each = jax.vmap(gradient)(jnp.arange(count))
    # Nothing is said of a network that is not finite, wherever its weights matter.
    return jnp.where(all_finite(model), each - jnp.mean(each, axis=0), jnp.nan)
