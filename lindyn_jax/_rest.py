"""Whether a flow is at rest in a minimum: how far it still has to go, to first order, by the curvature where it is."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._norms import norm
from .problems import AbstractProblem, LeastSquares
from .problems.least_squares import is_least_squares
from .solvers import dense_jacobian, is_dense


def is_limit(
    U1: Float[Array, "r k"], V: Float[Array, "m k"], problem: AbstractProblem, rtol: Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether what the flow still has to go is below `rtol ||Z||`, to first order and down to round-off."""
    size = jnp.sqrt(jnp.sum(U1**2) + jnp.sum(V**2))
    if is_dense(U1, V):
        return _is_stationary(U1, V, problem, rtol, size)
    if is_least_squares(problem):
        return _meets_target(U1, V, problem, rtol, size)
    return _is_minimum(U1, V, problem, rtol, size)


def _meets_target(U1: Array, V: Array, problem: LeastSquares, rtol: Array, size: Array) -> Array:
    """Whether the error vanishes, and no more than `rtol` of the way is left: `J V V^T + U1 U1^T J = S^{-1} E`."""
    eps = jnp.finfo(U1.dtype).eps
    s = problem.singular_values
    missing = problem.error(U1 @ V.T) / s[:, None]
    target = jnp.sqrt(jnp.sum(problem.reduced_theta_hat**2))
    # Round-off in E is that of Ytil, divided by the least singular value.
    resolution = 8 * eps * s[0] / s[-1]
    near = jnp.sqrt(jnp.sum(missing**2)) <= rtol * target + resolution * jnp.maximum(target, size**2)

    def is_short(missing: Array) -> Array:
        g, Q = jnp.linalg.eigh(V @ V.T)
        gram = U1 @ U1.T
        # Directions in which the weights cannot move stay far from the limit: they are kept invertible, not left out.
        floor = 1e2 * eps * size**2 * jnp.eye(gram.shape[0], dtype=gram.dtype)
        factors = jnp.linalg.cholesky(
            gram + floor + jnp.maximum(g, 0)[:, None, None] * jnp.eye(gram.shape[0], dtype=gram.dtype)
        )
        J = jax.scipy.linalg.cho_solve((factors, True), (missing @ Q).T[..., None])[..., 0].T @ Q.T
        left = jnp.sqrt(jnp.sum((J @ V) ** 2) + jnp.sum((J.T @ U1) ** 2))
        return left <= (rtol + resolution) * size

    # The way is computed at the end alone.
    return jax.lax.cond(near, is_short, lambda _: jnp.zeros((), bool), missing)


def _is_minimum(U1: Array, V: Array, problem: AbstractProblem, rtol: Array, size: Array) -> Array:
    """Whether the gradient vanishes, and no more than `rtol` of the way is left, under any loss.

    The gradient `G + H (U1 U1^T J + J V V^T)` vanishes after the way `dU1 = J V`, `dV = J^T U1`, with J in the range of the
    Hessian H. What H does not see moves along with it and stays where it gets; a gradient there would move it for ever.
    """
    (r, m), eps = (U1.shape[0], V.shape[0]), jnp.finfo(U1.dtype).eps
    Theta = U1 @ V.T
    G, apply = jax.linearize(problem.loss_gradient, Theta)
    H = jax.vmap(apply)(jnp.eye(r * m, dtype=G.dtype).reshape(r * m, r, m)).reshape(r * m, r * m)
    values: tuple[Array, Array] = jnp.linalg.eigh((H + H.T) / 2)
    curvatures, Q = values
    most = jnp.max(jnp.abs(curvatures))
    resolved = 8 * (r * m) ** 0.5 * eps * most
    sees = curvatures > resolved
    Q = jnp.where(sees, Q, 0)
    least = jnp.min(jnp.where(sees, curvatures, most))
    gradient: Array = Q.T @ G.ravel()
    missing = jnp.where(sees, gradient / jnp.where(sees, curvatures, 1), 0)
    UU, VV = U1 @ U1.T, V @ V.T
    reach = jax.vmap(lambda R: UU @ R + R @ VV)(Q.T.reshape(r * m, r, m)).reshape(r * m, r * m)
    # Directions in which the weights cannot move stay far from the limit: they are kept invertible, not left out.
    gram = Q.T @ reach.T + jnp.diag(jnp.where(sees, 1e2 * eps * size**2, size**2))
    J = (Q @ jnp.linalg.solve(gram, missing)).reshape(r, m)
    left, change = norm(J @ V, J.T @ U1), norm(UU @ J + J @ VV)
    resolution = 8 * eps * jnp.sqrt(most / least)
    scale = jnp.maximum(norm(Theta), size**2)
    near = jnp.maximum(norm(missing), change) <= rtol * norm(Theta) + resolution * scale
    unseen = norm(G.ravel() - Q @ gradient) <= 1e2 * eps * (most * scale + norm(gradient))
    return near & (left <= (rtol + resolution) * size) & unseen & (jnp.min(curvatures) >= -resolved) & (most > 0)


def _is_stationary(U1: Array, V: Array, problem: AbstractProblem, rtol: Array, size: Array) -> Array:
    """Whether a Newton step on the gradient is short and no direction is unstable, for narrow networks."""
    jacobian, velocity = dense_jacobian(U1, V, problem)
    values: tuple[Array, Array] = jnp.linalg.eigh((jacobian + jacobian.T) / 2)
    rates, vectors = values
    parts = vectors.T @ velocity
    fastest = jnp.max(jnp.abs(rates))
    resolution = 4 * rates.shape[0] ** 0.5 * jnp.finfo(rates.dtype).eps * fastest
    # The minima of the loss are orbits of U -> U G, V -> V G^{-T}: k^2 directions in which nothing moves. All others have to
    # be seen at rest, however slow; one whose rate is round-off is not.
    k = V.shape[1]
    slow = jnp.sort(jnp.abs(rates))[k * k - 1] if k * k <= rates.shape[0] else fastest
    moves = (rates < 0) & (jnp.abs(rates) > jnp.minimum(slow, 1e2 * resolution)) & (jnp.abs(rates) > resolution / 10)
    if not is_least_squares(problem):
        # What other losses do not see are more directions in which nothing moves.
        moves = rates < -resolution
    step = jnp.sqrt(jnp.sum(jnp.where(moves, parts / jnp.where(moves, rates, -1), 0) ** 2))
    # Round-off in E is seen through S, and what it makes of the way left grows like s_1/s_r.
    slowest = jnp.min(jnp.where(moves, jnp.abs(rates), fastest))
    rtol = rtol + 8 * jnp.finfo(rates.dtype).eps * jnp.sqrt(fastest / jnp.where(slowest > 0, slowest, 1))
    # Along the orbits what is left is round-off or a slower than exponential approach.
    rest = jnp.sqrt(jnp.sum(jnp.where(moves, 0, parts) ** 2))
    threshold = 1e2 * resolution
    return (jnp.max(rates) <= threshold) & (step <= rtol * size) & (rest <= threshold * size)
