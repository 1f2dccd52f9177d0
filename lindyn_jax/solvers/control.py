"""Step sizes for the solvers of this package: errors by norms, steps that end exactly at the times to be saved."""

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .radau import is_dense, norm

_MAX_REJECTIONS = 60


def largest_singular_value(A: Float[Array, "r m"]) -> Float[Array, ""]:
    """An upper bound on sigma_1, at most a few per cent above it, by products alone: `||(A^T A)^{16}||^{1/32}`."""
    largest = jnp.max(jnp.abs(A))
    A = A / jnp.where(largest > 0, largest, 1)
    G = A.T @ A if A.shape[1] <= A.shape[0] else A @ A.T
    log, power = jnp.zeros((), A.dtype), 1.0
    for squared in range(5):
        size = jnp.sqrt(jnp.sum(G**2))
        safe = jnp.where(size > 0, size, 1)
        log = log + jnp.log(safe) / power
        if squared < 4:
            G, power = (G / safe) @ (G / safe), 2 * power
    return largest * jnp.exp(log / 2)


class NormController(diffrax.AbstractStepSizeController):
    """Step sizes by norms: `||error|| <= tolerance ||Z||`, and `h sigma_1(q S E) <= 1` where impulses are the unknowns.

    **Args:** `tolerance`, relative, of a step: there is no absolute one, and a tiny start is followed as carefully as a large
    one. `ts`, shape (T,), increasing times that steps have to end at, or `None`.

    **Notes:** grows steps by at most 8 and divides them by at most 4 (what a step that failed gets), with the predictive
    control of Gustafsson. Ends the integration with `dt_min_reached` after 60 rejections in a row or when a step no longer
    advances the time.
    """

    tolerance: Float[Array, ""]
    ts: Float[Array, " T"] | None = None

    def wrap(self, direction):
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        one = jnp.ones((), y0.U1.dtype)
        if dt0 is None:
            # No bound on the rates is known (a link function): what the velocity would take to change the weights by this part.
            velocity = jax.lax.stop_gradient(func(terms, t0, y0, args))
            speed, size = norm(velocity.U1, velocity.V), norm(*jax.lax.stop_gradient((y0.U1, y0.V)))
            dt0 = jnp.where(speed > 0, self.tolerance**0.25 * size / jnp.where(speed > 0, speed, 1), t1 - t0)
        length = jnp.minimum(dt0, self._cap(y0, args)).astype(one.dtype)
        return self._end(t0, length), (one, jnp.zeros_like(one), length, jnp.zeros((), jnp.int32))

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
        last_ratio, last_length, proposed, rejections = controller_state
        y0, y1, y_error, length = jax.lax.stop_gradient((y0, y1_candidate, y_error, t1 - t0))
        length = length.astype(proposed.dtype)
        size = jnp.maximum(norm(y0.U1, y0.V), norm(y1.U1, y1.V))
        ratio = norm(y_error.U1, y_error.V) / (self.tolerance * size)
        keep = ratio < 1
        ratio = jnp.clip(jnp.where(jnp.isfinite(ratio), ratio, 1e8), 1e-8, 1e8)
        factor = 0.9 * ratio**-0.25
        known = last_length > 0
        trend = length / jnp.where(known, last_length, 1) * (last_ratio / ratio) ** 0.25
        grown = jnp.clip(jnp.where(known, jnp.minimum(factor, factor * trend), factor), 0.25, 8.0)
        grown = jnp.where(rejections > 0, jnp.minimum(grown, 1.0), grown)
        # A step cut short by a time to be met says little: the length proposed before it stands.
        grown = jnp.maximum(grown * length, jnp.where(length < 0.99 * proposed, proposed, 0))
        proposal = jnp.where(keep, grown, jnp.clip(factor, 0.25, 0.8) * length)
        after = jax.tree.map(lambda a, b: jnp.where(keep, a, b), y1, y0)
        proposal = jnp.minimum(proposal, self._cap(after, args))
        next_t0 = jnp.where(keep, t1, t0)
        next_t1 = self._end(next_t0, proposal)
        rejections = jnp.where(keep, 0, rejections + 1)
        stuck = (rejections >= _MAX_REJECTIONS) | ~jax.lax.stop_gradient(next_t1 > next_t0)
        result = diffrax.RESULTS.where(stuck, diffrax.RESULTS.dt_min_reached, diffrax.RESULTS.successful)
        last_ratio = jnp.where(keep, jnp.maximum(ratio, 1e-2), last_ratio)
        last_length = jnp.where(keep, length, last_length)
        return keep, next_t0, next_t1, False, (last_ratio, last_length, proposal, rejections), result

    def _end(self, t0: Array, length: Array) -> Array:
        """The end of a step from `t0`, not beyond the next time to be met; reaches it when it comes within a per cent."""
        end = t0 + jax.lax.stop_gradient(length)
        if self.ts is None:
            return end
        index = jnp.searchsorted(self.ts, t0, side="right")
        target = self.ts[jnp.minimum(index, self.ts.shape[0] - 1)]
        meets = (index < self.ts.shape[0]) & (t0 + 1.01 * length >= target)
        return jnp.where(meets, target, end)

    def _cap(self, y, args) -> Array:
        U, V = jax.lax.stop_gradient((y.U1, y.V))
        if is_dense(U, V):
            return jnp.asarray(jnp.inf, U.dtype)
        with jax.default_matmul_precision("highest"):
            steepest = largest_singular_value(jax.lax.stop_gradient(args[0]).reduced_loss_gradient(U @ V.T))
        return jnp.where(steepest > 0, 1 / jnp.where(steepest > 0, steepest, 1), jnp.inf)
