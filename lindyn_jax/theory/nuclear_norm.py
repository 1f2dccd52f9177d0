r"""The least nuclear norm of all matrices that meet the measurements, with a certificate.

A feasible Theta bounds it from above, a feasible point of the dual from below: the gap between the two is what the iteration
left, whatever it did.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._checks import check_tolerance
from .._derivatives import unknown
from .._finite import of_finite_state
from .._linalg import round_off
from .._norms import all_finite, norm, quotient
from .._public import public
from .._statement import Statement
from ..problems import AbstractProblem, MatrixCompletion, MatrixSensing
from ..problems.sensing import RankOne

Kind = TypeVar("Kind", bound=AbstractProblem)

# Steps between two looks at the gap, and how many of these may still change the step size.
LOOK, TUNED = 20, 100


@public
@of_finite_state
def min_nuclear_norm(problem: AbstractProblem, *, rtol: float | None = None, max_steps: int = 20_000) -> Statement:
    r"""The least nuclear norm of all Theta with the least loss, with a certificate: matrix completion and sensing.

    `min ||Theta||_* with A(Theta) = y`, whose dual is `max <Z, Theta_0>` over Z in the span of the measurements with
    `||Z||_2 <= 1`, where Theta_0 is any Theta with the least loss.

    **Args:** `problem`, a `MatrixCompletion` or a `MatrixSensing`; weights count where there is no Theta with zero loss;
    `rtol`, the gap at which the iteration ends, by default 1e-8 (1e-4 in float32); `max_steps`, its budget.

    **Returns:** a `Statement` on the nuclear norm of `Theta`, which has the least loss to round-off; `lower`, which no Theta with
    the least loss is below; `gap`, `(value - lower)/value`; `dual`, Z; `num_steps`; `applies`, whether the gap is at most rtol.

    **Raises:** `ValueError` for any other problem, a tolerance that the dtype cannot resolve, or a budget below 1.

    **Notes:** by the method of Douglas and Rachford with singular values of Theta at each step, which converges in hundreds of
    steps where the minimum is sharp, and slowly where it is not: `gap` tells. The derivative of the value is that of the dual
    (the envelope theorem); those of Theta, `lower` and Z are NaN. There may be more than one Theta.
    Measurements in pairs of vectors that depend on each other to half the digits count as dependent.

    **Source:** Fazel (2002), Recht, Fazel and Parrilo (2010) for the problem and its dual; Lions and Mercier (1979).

    Example:

        >>> Y, mask = np.ones((2, 2)), np.array([[1, 1], [1, 0]])
        >>> found = ld.theory.min_nuclear_norm(ld.MatrixCompletion(Y, mask))
        >>> float(found.value), float(found.lower), float(found.Theta[1, 1])
        (2.0, 2.0, 1.0)
    """
    problem = of_kind("min_nuclear_norm", problem, MatrixCompletion, MatrixSensing)
    rtol = (1e-8 if problem.dtype == jnp.float64 else 1e-4) if rtol is None else rtol
    check_tolerance(rtol, "rtol", problem.dtype)
    if not max_steps >= 1:
        raise ValueError(f"Argument `max_steps` must be at least 1, but is {max_steps}.")
    # The SVD of what is not finite need not end.
    known = all_finite(problem)
    filled: Any = jax.tree.map(lambda leaf: jnp.where(known, leaf, 0) if eqx.is_inexact_array(leaf) else leaf, problem)
    Theta, normal, Z, size, lower, steps = _least_nuclear(filled, rtol=rtol, max_steps=max_steps)
    # Theta and the multipliers are held: to first order the value moves with the measurements alone.
    held = jax.lax.stop_gradient
    value = held(size) + _paired(problem, held(Theta), held(normal))
    gap = quotient(size - lower, size)
    return Statement(value, gap <= rtol, Theta=Theta, dual=Z, lower=lower, gap=gap, num_steps=steps)


class _Span(NamedTuple):
    """The span of the measurements: the projection onto it, the Theta in it with the least loss, and the normal equations."""

    project: Callable[[Array], Array]
    least: Float[Array, "n m"]
    normal: Callable[[Array], Array]


def _span(problem: MatrixCompletion | MatrixSensing) -> _Span:
    if isinstance(problem, MatrixCompletion):
        seen = observed(problem)
        return _Span(lambda Z: jnp.where(seen, Z, 0), jnp.where(seen, problem.Y, 0), lambda Z: jnp.where(seen, Z, 0))
    root = jnp.ones_like(problem.y) if problem.weights is None else jnp.sqrt(problem.weights)
    y = root * problem.y
    A = problem.A
    if isinstance(A, RankOne):
        measure = lambda Z: root * A.measure(Z)  # noqa: E731
        gram = root[:, None] * (A.a @ A.a.T) * (A.b @ A.b.T) * root
        found: tuple[Array, Array] = jnp.linalg.eigh(gram)
        g, W = found
        kept = g > round_off(gram) * g[-1]
        inverse = jnp.where(kept, 1 / jnp.where(kept, g, 1), 0)
        back = lambda c, power: A.adjoint(root * (W @ (inverse**power * (W.T @ c))))  # noqa: E731
        return _Span(lambda Z: back(measure(Z), 1), back(y, 1), lambda Z: back(measure(Z), 2))
    M = root[:, None] * A.A.reshape(len(y), -1)
    W, s, V = jnp.linalg.svd(M, full_matrices=False)
    kept = s > round_off(M) * s[0]
    V, inverse = jnp.where(kept[:, None], V, 0), jnp.where(kept, 1 / jnp.where(kept, s, 1), 0)
    shaped = lambda c: (V.T @ c).reshape(A.sizes)  # noqa: E731
    return _Span(
        lambda Z: shaped(V @ Z.ravel()),
        shaped(inverse * (W.T @ y)),
        lambda Z: shaped(inverse**2 * (V @ Z.ravel())),
    )


def _paired(problem: MatrixCompletion | MatrixSensing, Theta: Array, normal: Array) -> Float[Array, ""]:
    """Zero for a Theta with the least loss, and by the measurements what moves the least norm, with multipliers `normal`."""
    if isinstance(problem, MatrixCompletion):
        return jnp.sum(jnp.where(observed(problem), normal * (problem.Y - Theta), 0))
    terms = problem.predict(normal) * (problem.y - problem.predict(Theta))
    return jnp.sum(terms if problem.weights is None else problem.weights * terms)


@eqx.filter_custom_jvp
def _least_nuclear(problem: MatrixCompletion | MatrixSensing, *, rtol: float, max_steps: int):
    """Theta, its multipliers, Z, the bound from below, and the steps taken."""
    project, least, normal = _span(problem)
    unit: Array = jnp.linalg.norm(least, ord=2)
    unit = jnp.where(unit > 0, unit, 1)
    start = least / unit

    def step(carry, _):
        z, t, _ = carry
        X = _shrunk(z, t)
        moved = start - project(2 * X - z) + X - z
        return (z + 1.6 * moved, t, jnp.sqrt(jnp.sum(moved**2))), None

    def look(state):
        z, t, _, _, _, steps = state
        (z, t, _), _ = jax.lax.scan(step, (z, t, jnp.zeros_like(t)), length=LOOK)
        X = _shrunk(z, t)
        W = (z - X) / t
        Theta, Z = X - project(X) + start, project(W)
        Z = Z / jnp.maximum(1, jnp.linalg.norm(Z, ord=2))
        size, lower = jnp.sum(jnp.linalg.svd(Theta, compute_uv=False)), jnp.sum(Z * start)
        # What is left of the two conditions, each in its own unit: the step size trades one for the other.
        primal, dual = norm(Theta - X) / norm(start), norm(project(W) - W) / norm(W)
        factor = jnp.where(primal > 3 * dual, 1 / 1.5, jnp.where(dual > 3 * primal, 1.5, 1.0))
        t_new = jnp.where(steps < TUNED * LOOK, t * factor.astype(t.dtype), t)
        return X + t_new * W, t_new, Theta, Z, (size, lower), steps + LOOK

    def goes_on(state):
        _, _, _, _, (size, lower), steps = state
        return (size - lower > rtol * size) & (steps < max_steps)

    one = jnp.ones((), start.dtype)
    first = (start, 0.2 * one, start, jnp.zeros_like(start), (one, 0 * one), jnp.asarray(0))
    _, _, Theta, Z, (size, lower), steps = jax.lax.while_loop(goes_on, look, first)
    return unit * Theta, normal(Z), Z, unit * size, unit * lower, steps


@_least_nuclear.def_jvp
def _least_nuclear_jvp(primals, tangents, *, rtol, max_steps):
    *numbers, steps = _least_nuclear(*primals, rtol=rtol, max_steps=max_steps)
    return (*numbers, steps), (*unknown(eqx.filter(tangents, eqx.is_inexact_array), tuple(numbers)), None)


def _shrunk(z: Float[Array, "n m"], t: Array) -> Float[Array, "n m"]:
    """z with its singular values lowered by t, down to 0, from the eigenvalues of the smaller Gram matrix.

    Those near t, which alone are delicate, lose the digits of sigma_1/t at most.
    """
    wide = z.shape[0] < z.shape[1]
    found: tuple[Array, Array] = jnp.linalg.eigh(z @ z.T if wide else z.T @ z)
    g, Q = found
    above = g > t**2
    factor = jnp.where(above, 1 - t / jnp.sqrt(jnp.where(above, g, 1)), 0)
    projector = (Q * factor) @ Q.T
    return projector @ z if wide else z @ projector


def observed(problem: MatrixCompletion) -> Bool[Array, "n m"]:
    """The entries that count."""
    return (problem.mask if problem.weights is None else problem.mask * problem.weights) > 0


def of_kind(name: str, problem: AbstractProblem, *kinds: type[Kind]) -> Kind:
    """The problem of a statement.

    **Raises:** `ValueError` if it is of another kind than the statement is about.
    """
    if isinstance(problem, kinds):
        return problem
    words = " or ".join(f"a {kind.__name__}" for kind in kinds)
    raise ValueError(f"Argument `problem` of `{name}` must be {words}, but is a {type(problem).__name__}.")
