r"""The largest margin and its direction, with a certificate: where logistic regression on separable data ends."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._derivatives import unknown
from .._finite import of_finite_state
from .._norms import norm, quotient
from .._public import public
from .._statement import Statement
from ..problems import AbstractProblem, Logistic
from .nuclear_norm import of_kind

MOST_STEPS = 100


@public
@of_finite_state
def max_margin(problem: AbstractProblem) -> Statement:
    r"""The direction in which the least margin is largest, with a certificate: where logistic regression on separable data ends.

    `max_{||Theta||_F = 1} min_i s_i c x_i^T Theta` with signs `s_i = 2 y_i - 1`, the distance of 0 from the convex hull of the
    `s_i c x_i`: a convex combination p of them bounds it from above, any Theta from below. For m answers it is that of the
    `min ||Theta||_F` with all margins at least 1, whose columns are those of m problems of one.

    **Args:** `problem`, a `Logistic`; samples of weight zero do not count.

    **Returns:** a `Statement` on the margin, at least 0, which `direction` has, shape (n, m), `||Theta||_F = 1`; `dual`, p, shape
    (N, m), of one answer each column; `upper`, what p proves that no margin exceeds; `gap`, `(upper - value)/upper`; `num_steps`;
    `applies`, whether the data are separable, which `direction` proves. Where they are not, the margin is 0.

    **Raises:** `ValueError` for any other problem.

    **Notes:** gradient flow of one layer tends to this direction from every start (Soudry et al.), and, for almost all data,
    that of a deep network with one output whose loss falls below that of Theta = 0 (Ji and Telgarsky), with 1/log t. For two
    and more layers and several outputs nothing of the kind is stated here. By Newton steps in the interior of the dual. The
    derivative of the margin is that of the dual (the envelope theorem), those of the others are NaN.

    **Source:** Soudry et al. (2018), Theorem 3; Ji and Telgarsky (2019), section 2.

    Example:

        >>> found = ld.theory.max_margin(ld.Logistic(np.array([[3.0, 0.0], [0.0, -4.0]]), np.array([1, 0])))
        >>> float(found.value), found.direction.ravel().tolist(), bool(found.applies)
        (2.4, [0.8, 0.6], True)
    """
    problem = of_kind("max_margin", problem, Logistic)
    found: tuple[Array, Array, Array] = _largest_margin(problem)
    w, p, steps = found
    held_w, held_p = jax.lax.stop_gradient((w, p))
    signs = 2 * problem.Y - 1
    # By the directions of each answer what these have, and by the combinations what none exceeds.
    margins, seen = signs * problem.outputs(held_w), _counted(problem)[:, None]
    least = jax.lax.stop_gradient(jnp.min(jnp.where(seen, margins, jnp.inf), axis=0))
    separable = jnp.all(least > 0)
    hull = jax.vmap(norm, 1)(problem.output_scale * _design(problem, True).T @ (held_p * signs))
    moved = jnp.sum(held_p * margins, axis=0)
    value = jnp.where(separable, _together(least + moved - jax.lax.stop_gradient(moved)), 0)
    upper = jax.lax.stop_gradient(_together(hull))
    sizes = 1 / jnp.where(separable, least, 1)
    direction = w * (sizes / norm(sizes))
    gap = quotient(upper - jax.lax.stop_gradient(value), upper)
    return Statement(value, separable, direction=direction, dual=p, upper=upper, gap=gap, num_steps=steps)


def _together(margins: Float[Array, " m"]) -> Float[Array, ""]:
    """The margin of all answers at norm 1, where those of each have these."""
    absent = jnp.any(margins <= 0)
    least = jax.lax.stop_gradient(jnp.where(absent, 1, jnp.min(margins)))
    return jnp.where(absent, 0, least / jnp.sqrt(jnp.sum((least / jnp.where(absent, 1, margins)) ** 2)))


def _counted(problem: Logistic) -> Bool[Array, " N"]:
    return jnp.ones(problem.num_samples, bool) if problem.weights is None else problem.weights > 0


def _design(problem: Logistic, whole: bool) -> Array:
    """The inputs, or their coordinates in the range of X^T."""
    X = problem.X if whole else problem.design
    return jnp.eye(problem.num_samples, dtype=problem.dtype) if X is None else X


@eqx.filter_custom_jvp
def _largest_margin(problem: Logistic):
    """Unit directions of the answers, their convex combinations, and the steps taken."""
    X, seen = _design(problem, False), _counted(problem)
    size = jnp.max(jnp.where(seen, jnp.sqrt(jnp.sum(X**2, axis=1)), 0))
    X = jnp.where(seen[:, None], X / jnp.where(size > 0, size, 1), 0)
    found: tuple[Array, Array, Array] = jax.vmap(lambda sign: _hard_margin(sign[:, None] * X, seen), 1, (1, 1, 0))(
        2 * problem.Y - 1
    )
    w, p, steps = found
    return problem.from_data(w), p, jnp.max(steps)


@_largest_margin.def_jvp
def _largest_margin_jvp(primals, tangents):
    w, p, steps = _largest_margin(*primals)
    return (w, p, steps), (*unknown(eqx.filter(tangents, eqx.is_inexact_array), (w, p)), None)


def _hard_margin(Z: Float[Array, "N r"], seen: Bool[Array, " N"]) -> tuple[Array, Array, Array]:
    """The unit w with the largest `min_i z_i^T w`, and p of the simplex with the least `||Z^T p||`.

    Mehrotra's predictor and corrector for `min ||w||^2/2` with `Z w - s = 1`, s >= 0; multipliers a, whose direction is p.
    Without a solution the multipliers grow, and p tends to a combination that is zero.
    """
    count, eps = jnp.sum(seen), float(jnp.finfo(Z.dtype).eps)

    def of_seen(values: Array) -> Array:
        return jnp.where(seen, values, 0)

    def longest(values: Array, change: Array) -> Array:
        """The step after which the first of them is zero, 1 at most."""
        falls = seen & (change < 0)
        return jnp.minimum(1, jnp.min(jnp.where(falls, -values / jnp.where(falls, change, 1), jnp.inf)))

    def newton(state: tuple[Array, ...]) -> tuple[Array, ...]:
        w, s, a, _, steps = state
        mean = jnp.sum(a * s) / count
        dual, primal = w - Z.T @ a, of_seen(Z @ w - 1 - s)
        factor = jax.scipy.linalg.cho_factor(jnp.eye(len(w), dtype=Z.dtype) + Z.T @ ((a / s)[:, None] * Z))

        def towards(c):
            dw = jax.scipy.linalg.cho_solve(factor, Z.T @ of_seen((-c - a * primal) / s) - dual)
            ds = of_seen(Z @ dw) + primal
            return dw, ds, of_seen((-c - a * ds) / s)

        _, ds, da = towards(a * s)
        left = jnp.sum((a + longest(a, da) * da) * (s + longest(s, ds) * ds)) / count
        dw, ds, da = towards(a * s + of_seen(da * ds - (left / mean) ** 3 * mean))
        length = 0.995 * jnp.minimum(longest(s, ds), longest(a, da))
        moved: tuple[Array, ...] = (w + length * dw, jnp.where(seen, s + length * ds, 1), of_seen(a + length * da))
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(one)) for one in moved]))
        moved = jax.tree.map(lambda new, old: jnp.where(finite, new, old), moved, (w, s, a))
        return *moved, finite, steps + 1

    def certified(w: Array, a: Array) -> tuple[Array, Array, Array, Array]:
        """A unit direction with its least margin, and a combination with what it proves."""
        p = a / jnp.sum(a)
        hull = Z.T @ p
        upper = jnp.sqrt(jnp.sum(hull**2))
        units = jnp.stack([quotient(hull, upper), quotient(w, jnp.sqrt(jnp.sum(w**2)))])
        least = jnp.min(jnp.where(seen, units @ Z.T, jnp.inf), axis=1)
        return units[jnp.argmax(least)], jnp.max(least), p, upper

    def body(carry: tuple[tuple[Array, ...], tuple[Array, ...]]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        state, best = carry
        state = newton(state)
        w, least, p, upper = certified(state[0], state[2])
        w0, least0, p0, upper0 = best
        w, least = jnp.where(least > least0, w, w0), jnp.maximum(least, least0)
        return state, (w, least, jnp.where(upper < upper0, p, p0), jnp.minimum(upper, upper0))

    def goes_on(carry):
        (*_, finite, steps), (_, least, _, upper) = carry
        return finite & (steps < MOST_STEPS) & (upper - least > 8 * eps * upper) & (upper > 8 * eps)

    ones = seen.astype(Z.dtype)
    first = (jnp.zeros(Z.shape[1], Z.dtype), jnp.ones(len(Z), Z.dtype), ones, jnp.asarray(True), jnp.asarray(0))
    last: tuple[tuple[Array, ...], tuple[Array, ...]] = jax.lax.while_loop(
        goes_on, body, (first, certified(first[0], ones))
    )
    (*_, steps), (w, _, p, _) = last
    return w, p, steps
