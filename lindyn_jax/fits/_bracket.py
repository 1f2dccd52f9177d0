"""A scan of one function of one number that brackets its least value of either sign, and the refinement within a bracket."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._objective import Objective

SCAN_ROUNDS = 6
MOST_ITERATIONS = 64


class Bracket(eqx.Module):
    """Where one sign is refined. `fallback` is the best point of the scan, `edge` whether it is one end of what was scanned."""

    centre: Float[Array, ""]
    unit: Float[Array, ""]
    height: Float[Array, ""]
    low: Float[Array, ""]
    high: Float[Array, ""]
    fallback: Float[Array, ""]
    edge: Bool[Array, ""]
    top: Bool[Array, ""]


def scan(objective: Objective, extent: tuple[Array, Array], grid: int) -> tuple[Bracket, Float[Array, ""]]:
    """A bracket for either sign from values on a geometric grid that grows until its last value is not the least."""
    lower, upper = extent
    at_zero, slope = objective.derivative(jnp.zeros_like(lower))

    def side(sign: Array) -> Bracket:
        def body(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            _, upper_before, values, rounds = carry
            first = rounds == 0
            low, high = jnp.where(first, lower, upper_before / 4), jnp.where(first, upper, 32 * upper_before)
            levels = sign * _levels(low, high, grid)
            values = jax.vmap(objective)(levels) if objective.closed is not None else jax.lax.map(objective, levels)
            return low, high, jnp.where(jnp.isfinite(values), values, jnp.inf), rounds + 1

        def goes_on(carry: tuple[Array, ...]) -> Array:
            _, _, values, rounds = carry
            return (rounds == 0) | ((jnp.argmin(values) == grid - 1) & (rounds < SCAN_ROUNDS))

        empty = (lower, upper, jnp.full(grid, jnp.inf, lower.dtype), jnp.zeros((), jnp.int32))
        scanned: tuple[Array, ...] = jax.lax.while_loop(goes_on, body, empty)
        low, high, values, _ = scanned
        x = _levels(low, high, grid)
        i = jnp.argmin(values)
        left = jnp.where(i == 0, 0, x[i - 1]), jnp.where(i == 0, at_zero, values[i - 1])
        middle, right = (x[i], values[i]), (x[jnp.minimum(i + 1, grid - 1)], values[jnp.minimum(i + 1, grid - 1)])

        falls = (i == 0) & (at_zero <= values[0]) & (sign * slope < 0)
        at_zero_edge = (i == 0) & (at_zero <= values[0]) & ~falls
        top = i == grid - 1
        edge = at_zero_edge | top

        # A parabola through three points, or through zero, with its slope there, and the first level.
        def safe(gap: Array) -> Array:
            return jnp.where(gap > 0, gap, 1)

        before = (middle[1] - left[1]) / safe(middle[0] - left[0])
        after = (right[1] - middle[1]) / safe(right[0] - middle[0])
        half = jnp.where(
            falls, (middle[1] - at_zero - sign * slope * x[0]) / x[0] ** 2, (after - before) / safe(right[0] - left[0])
        )
        curved = half > 0
        half = jnp.where(curved, half, 1)
        vertex = jnp.where(falls, -sign * slope / (2 * half), (left[0] + middle[0]) / 2 - before / (2 * half))
        low = jnp.where(falls, 0, left[0])
        high = jnp.where(falls, x[0], right[0])
        vertex = jnp.clip(jnp.where(curved, vertex, middle[0]), low, high)
        height = jnp.maximum(jnp.maximum(left[1], right[1]), middle[1])
        height = jnp.where(jnp.isfinite(height) & (height > 0), height, 1)
        unit = jnp.where(curved, jnp.sqrt(height / (2 * half)), high - low)
        unit = jnp.where(edge, x[0], unit)
        fallback = jnp.where(at_zero_edge | falls, 0, middle[0])
        ends = jnp.sort(sign * jnp.stack([low, high]))
        return Bracket(sign * vertex, unit, height, ends[0], ends[1], sign * fallback, edge, top)

    return jax.vmap(side)(jnp.asarray([1, -1], lower.dtype)), at_zero


def secant(bracket: Bracket, objective: Objective, tolerance: float) -> tuple[Array, Array, Array]:
    """The zero of dJ/dx from x = 0, for lambda0 = centre + unit x, by secants: for one number this is L-BFGS.

    In these units the parabola of the scan has second derivative 1, so that the first step is Newton's. Steps end at the bracket.
    """
    ends = (jnp.stack([bracket.low, bracket.high]) - bracket.centre) / bracket.unit
    origin = jnp.zeros_like(bracket.centre)

    def body(carry):
        x, (before, slope_before), _, count = carry
        slope = objective.derivative(bracket.centre + bracket.unit * x)[1] * bracket.unit / bracket.height
        step, change = x - before, slope - slope_before
        seen = (count > 0) & (step * change != 0)
        inverse = jnp.where(seen, step / jnp.where(seen, change, 1), 1)
        moved = jnp.clip(x - inverse * slope, ends[0], ends[1])
        return moved, (x, slope), jnp.abs(moved - x), count + 1

    def goes_on(carry):
        _, _, move, count = carry
        return (move > tolerance) & (count < MOST_ITERATIONS)

    start = (origin, (origin, origin), jnp.full_like(origin, jnp.inf), jnp.zeros((), jnp.int32))
    x, _, move, count = jax.lax.while_loop(goes_on, body, start)
    return x, count, move <= tolerance


def _levels(low: Array, high: Array, grid: int) -> Float[Array, " G"]:
    return low * (high / low) ** jnp.linspace(0, 1, grid, dtype=low.dtype)
