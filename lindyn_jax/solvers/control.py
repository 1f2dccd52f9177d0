"""Step sizes: errors relative to the weights, without an absolute tolerance, and steps that let small weights grow as they do.

An error that is small beside the weights may be large beside a mode that is still to grow. What is small in the weights obeys
the linear equation of `roundoff`, so a step errs in it by the factor that the method errs by for `y' = sigma_1(B) y`, however
small it is: `h sigma_1(B)` is bounded by the step at which this is the tolerance. The same product of maps tells how
far round-off has grown, which is carried along.
"""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..problems import Penalised
from . import roundoff
from .radau import weights_of
from .roundoff import norm
from .stages import is_dense

_MAX_REJECTIONS = 60
# Rows of the weights are followed to the tolerance down to where their round-off is that of the largest.
_NOISE = 4


def relative_size(
    error, y0, y1, rtol: Float[Array, ""] | float, atol: Float[Array, ""] | float = 0.0
) -> Float[Array, ""]:
    """The largest row of an error in units of its tolerance: `rtol` of that row, or `atol` an entry, or round-off."""
    ratios = []
    for leaves in zip(*map(jax.tree.leaves, (error, y0, y1)), strict=True):
        e, a, b = (jnp.reshape(leaf, (-1, leaf.shape[-1] if leaf.ndim else 1)) for leaf in leaves)
        # A step may end where the velocity is not defined.
        most = jnp.maximum(jnp.abs(a), jnp.where(jnp.isfinite(b), jnp.abs(b), 0))
        # In units of the largest entry: no square that matters beside round-off of the largest row is out of range.
        largest = jnp.max(most, initial=0)
        unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
        errors, rows = (jnp.sqrt(jnp.sum((leaf / unit) ** 2, axis=1)) for leaf in (e, most))
        info = jnp.finfo(rows.dtype)
        least = _NOISE * info.eps * jnp.sqrt(jnp.sum(rows**2)) + (atol * e.shape[1] ** 0.5 + info.tiny) / unit
        ratios.append(jnp.max(errors / (rtol * rows + least), initial=0))
    ratio = jnp.max(jnp.stack(ratios)) if ratios else jnp.zeros(())
    return jnp.where(jnp.isnan(ratio), jnp.inf, ratio)


def growth_reach(solver: diffrax.AbstractSolver, tolerance: Float[Array, ""]) -> Float[Array, ""]:
    """The step z at which the method's own estimate of its error on `y' = y` is the tolerance, and at most 1."""
    tableau = getattr(solver, "tableau", None)
    if not isinstance(tableau, diffrax.ButcherTableau):
        return jnp.minimum(tolerance**0.25, 1)
    diagonal = np.zeros(tableau.num_stages) if tableau.a_diagonal is None else np.asarray(tableau.a_diagonal)

    def error(z):
        slopes = np.zeros(0)
        for i in range(tableau.num_stages):
            before = np.asarray(tableau.a_lower[i - 1]) @ slopes if i else 0.0
            slopes = np.append(slopes, z * (1 + before) / (1 - z * diagonal[i]))
        return abs(float(np.asarray(tableau.b_error) @ slopes))

    order = float(np.log2(error(1.0) / error(0.5)))
    return jnp.minimum(0.5 * (tolerance / error(0.5)) ** (1 / order), 1)


class _Growth(eqx.Module):
    """What both controllers know of what is small in the weights: how fast it grows, and how far its round-off has."""

    B: Float[Array, "n m"] | None
    rate: Float[Array, ""] | None
    decay: Float[Array, "n 1"] | None
    terms: Penalised | None

    def __init__(self, y, args):
        model, problem = _model(y, args), jax.lax.stop_gradient(args[0])
        with jax.default_matmul_precision("highest"):
            self.B, self.rate = roundoff.growth(model, problem)
            self.decay = roundoff.decay(model, problem)
        self.terms = problem.penalty

    def cap(self, reach: Array | float) -> Array | float:
        """The longest step from here."""
        if self.rate is None:
            return jnp.inf
        return jnp.where(self.rate > 0, reach / jnp.where(self.rate > 0, self.rate, 1), jnp.inf)

    def first(self, model) -> roundoff.Noise | None:
        """Round-off of the start, where it is followed: at most where B is known."""
        return None if self.B is None or self.rate is None else roundoff.first(model, self.rate)

    def advance(self, noise: roundoff.Noise | None, keep: Array, model, t0: Array, t1: Array, ts: Array | None):
        if noise is None or self.B is None or self.rate is None:
            return None
        before, left = noise, None if self.terms is None else self.terms.remainder((t1 - t0).astype(self.B.dtype))
        if left is not None:
            before = noise._replace(columns=left * noise.columns)
        observed = jnp.ones((), bool) if ts is None else jnp.any((ts > t0) & (ts <= t1))
        with jax.default_matmul_precision("highest"):
            end = t1.astype(self.B.dtype)
            moved = roundoff.advance(before, model, self.B, self.rate, self.decay, t1 - t0, end, observed)
        return jax.tree.map(lambda a, b: jnp.where(keep, a, b), moved, noise)


def _model(y, args):
    """The model that a state is; it has no derivative here: step lengths are not differentiated."""
    return jax.lax.stop_gradient(eqx.combine(y, args[1]) if len(args) > 1 else y)


class RelativeController(diffrax.AbstractAdaptiveStepSizeController):
    """Step sizes for any model: every row of the weights to `rtol`, and small weights to grow to `rtol`.

    **Args:** `rtol`; `atol`, an absolute tolerance for each entry, by default none; `reach`, the largest `h sigma_1(B)` of a
    step, at most 1: see `growth_reach`; `ts`, shape (T,), the times at which something is observed, by default all.

    **Notes:** grows steps by at most 10 and divides them by at most 5. Ends the integration with `dt_min_reached` after 60
    rejections in a row or when a step no longer advances the time. Rows smaller than `4 eps/rtol` of their matrix are
    followed to its round-off.
    """

    rtol: Float[Array, ""]
    atol: Float[Array, ""] | float = 0.0
    reach: Float[Array, ""] | float = 1.0
    ts: Float[Array, " T"] | None = None
    norm: Callable = eqx.field(default=norm, static=True)

    def wrap(self, direction):
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        if dt0 is None:
            dt0 = _guess(lambda y: func(terms, t0, y, args), jax.lax.stop_gradient(y0), t1 - t0, self.rtol)
        growth = _Growth(y0, args)
        length = jnp.minimum(dt0, growth.cap(self.reach)).astype(t0.dtype)
        noise = growth.first(_model(y0, args))
        return t0 + jax.lax.stop_gradient(length), (jnp.zeros((), jnp.int32), noise)

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
        state: tuple[Array, roundoff.Noise | None] = controller_state
        rejections, noise = state
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        y0, y1, y_error, length = jax.lax.stop_gradient((y0, y1_candidate, y_error, t1 - t0))
        ratio = relative_size(y_error, y0, y1, self.rtol, self.atol)
        keep = ratio < 1
        factor = 0.9 * jnp.clip(ratio, 1e-30, 1e30) ** (-1 / error_order)
        factor = jnp.where(keep, jnp.clip(factor, 1.0, 10.0), jnp.clip(factor, 0.2, 0.9))
        after = jax.tree.map(lambda a, b: jnp.where(keep, a, b), y1, y0)
        growth = _Growth(after, args)
        proposal = jnp.minimum(factor.astype(length.dtype) * length, growth.cap(self.reach)).astype(length.dtype)
        times = jax.lax.stop_gradient((t0, t1, self.ts))
        noise = growth.advance(noise, keep, _model(after, args), *times)
        next_t0 = jnp.where(keep, t1, t0)
        next_t1 = next_t0 + jax.lax.stop_gradient(proposal)
        rejections = jnp.where(keep, 0, rejections + 1)
        return keep, next_t0, next_t1, False, (rejections, noise), _stuck(rejections, next_t0, next_t1)


def _stuck(rejections: Array, t0: Array, t1: Array):
    stuck = (rejections >= _MAX_REJECTIONS) | ~jax.lax.stop_gradient(t1 > t0)
    return diffrax.RESULTS.where(stuck, diffrax.RESULTS.dt_min_reached, diffrax.RESULTS.successful)


def _guess(velocity: Callable, y0, horizon: Array, tolerance: Array) -> Array:
    """A first step where no bound on the rates is known: by how fast the weights and their velocity change."""
    slope = jax.lax.stop_gradient(velocity(y0))
    speed = norm(*jax.tree.leaves(slope))
    moving = speed > 0
    # Ahead by a part of the horizon that moves no weight by more than the square root of round-off, or from zero a little.
    root = jnp.finfo(horizon.dtype).eps ** 0.5
    size = norm(*jax.tree.leaves(y0))
    ahead = jnp.where(moving & (size > 0), root * size / jnp.where(moving, speed, 1), root * horizon)
    ahead = jnp.minimum(ahead, horizon)
    other = jax.lax.stop_gradient(velocity(jax.tree.map(lambda y, v: y + ahead.astype(v.dtype) * v, y0, slope)))
    bend = norm(*jax.tree.leaves(jax.tree.map(lambda a, b: a - b, other, slope))) / ahead
    rate = jnp.where(moving, bend / jnp.where(moving, speed, 1), 0)
    rate = jnp.maximum(rate, jnp.where(size > 0, speed / jnp.where(size > 0, size, 1), 0))
    return jnp.minimum(jnp.where(rate > 0, tolerance**0.25 / jnp.where(rate > 0, rate, 1), horizon), horizon)


class NormController(diffrax.AbstractStepSizeController):
    """Step sizes by norms: `||error|| <= tolerance ||Z||`, and `h sigma_1(q S E) <= reach` where impulses are the unknowns.

    **Args:** `tolerance`, relative, of a step: there is no absolute one, and a tiny start is followed as carefully as a large
    one. `ts`, shape (T,), increasing times that steps have to end at, or `None`. `reach`, at most 1.

    **Notes:** grows steps by at most 8 and divides them by at most 4 (what a step that failed gets), with the predictive
    control of Gustafsson. Ends the integration with `dt_min_reached` after 60 rejections in a row or when a step no longer
    advances the time.
    """

    tolerance: Float[Array, ""]
    ts: Float[Array, " T"] | None = None
    reach: Float[Array, ""] | float = 1.0

    def wrap(self, direction):
        return self

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        one = jnp.ones((), weights_of(y0)[0].dtype)
        if dt0 is None:
            dt0 = _guess(lambda y: func(terms, t0, y, args), jax.lax.stop_gradient(y0), t1 - t0, self.tolerance)
        growth = _Growth(y0, args)
        length = jnp.minimum(dt0, self._cap(y0, growth)).astype(one.dtype)
        noise = growth.first(_model(y0, args))
        return self._end(t0, length), (one, jnp.zeros_like(one), length, jnp.zeros((), jnp.int32), noise)

    def adapt_step_size(self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state):
        state: tuple[Array, Array, Array, Array, roundoff.Noise | None] = controller_state
        last_ratio, last_length, proposed, rejections, noise = state
        t0, t1 = jnp.asarray(t0), jnp.asarray(t1)
        y0, y1, y_error, length = jax.lax.stop_gradient((y0, y1_candidate, y_error, t1 - t0))
        length = length.astype(proposed.dtype)
        size = jnp.maximum(norm(*weights_of(y0)), norm(*weights_of(y1)))
        ratio = norm(*weights_of(y_error)) / (self.tolerance * size)
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
        growth = _Growth(after, args)
        proposal = jnp.minimum(proposal, self._cap(after, growth))
        times = jax.lax.stop_gradient((t0, t1, self.ts))
        noise = growth.advance(noise, keep, _model(after, args), *times)
        next_t0 = jnp.where(keep, t1, t0)
        next_t1 = self._end(next_t0, proposal)
        rejections = jnp.where(keep, 0, rejections + 1)
        last_ratio = jnp.where(keep, jnp.maximum(ratio, 1e-2), last_ratio)
        last_length = jnp.where(keep, length, last_length)
        state = last_ratio, last_length, proposal, rejections, noise
        return keep, next_t0, next_t1, False, state, _stuck(rejections, next_t0, next_t1)

    def _end(self, t0: Array, length: Array) -> Array:
        """The end of a step from `t0`, not beyond the next time to be met; reaches it when it comes within a per cent."""
        end = t0 + jax.lax.stop_gradient(length)
        if self.ts is None:
            return end
        index = jnp.searchsorted(self.ts, t0, side="right")
        target = self.ts[jnp.minimum(index, self.ts.shape[0] - 1)]
        meets = (index < self.ts.shape[0]) & (t0 + 1.01 * length >= target)
        return jnp.where(meets, target, end)

    def _cap(self, y, growth: _Growth) -> Array:
        U, V = weights_of(y)
        return jnp.asarray(jnp.inf if is_dense(U, V) else growth.cap(self.reach), U.dtype)


def grown_roundoff(controller_state, final) -> Float[Array, ""]:
    """How far round-off of the start has grown by the end, relative to all weights; zero where it is not followed."""
    noise = controller_state[-1]
    if noise is None:
        return jnp.zeros((), jnp.result_type(*jax.tree.leaves(eqx.filter(final, eqx.is_inexact_array))))
    return roundoff.relative(*jax.lax.stop_gradient((noise.start, final)))


def lost_on_the_way(controller_state, final) -> Float[Array, ""]:
    """`grown_roundoff`, or if larger what later round-off made of the modes being learned at one of the observed times."""
    grown, noise = grown_roundoff(controller_state, final), controller_state[-1]
    return grown if noise is None else jnp.maximum(grown, jax.lax.stop_gradient(noise.lost))
