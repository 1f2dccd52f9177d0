r"""What one step of descent does to imbalance and loss of two layers, exactly.

The loss along the gradient is a polynomial of degree four in the step.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .._finite import of_finite_state
from .._linalg import signature_spectrum
from .._public import public
from .._statement import Statement
from ..exact._common import as_floats
from ..models import AbstractModel
from ..problems import AbstractProblem, LeastSquares
from ._numerics import norm
from .imbalance import moving_layers


class Drift(NamedTuple):
    """What one step of descent does to the imbalance.

    **Fields:** `spectrum`, the eigenvalues of `D+ - D` that can differ from zero, descending; `norm`, `||D+ - D||_F`.

    Example:

        >>> problem, model = ld.factorization(np.eye(1)), ld.TwoLayer(2 * np.eye(1), np.eye(1))
        >>> drift = ld.theory.drift_spectrum(model, problem, 0.1)
        >>> float(drift.norm), drift.spectrum.tolist()
        (0.03, [-0.03])
    """

    spectrum: Float[Array, " k"]
    norm: Float[Array, ""]


@public
@of_finite_state
def drift_spectrum(model: AbstractModel, problem: AbstractProblem, eta: Real[ArrayLike, ""]) -> Drift:
    r"""What one step of descent does to the imbalance, `D+ - D = eta^2 (G_U1^T G_U1 - G_V^T G_V)`, by its spectrum.

    G_U1 and G_V are the gradients of the loss. `descent_drift` has the matrices themselves, for any depth; here the width does
    not matter.

    **Args:** `model`; `problem`, of any kind; `eta`, step size.

    **Returns:** a `Drift`. k = min(h, r + m) eigenvalues: the others are zero.

    **Raises:** `ValueError` if the model's shapes do not fit the problem, or for a problem with terms on the weights.

    **Notes:** from the rows of the gradients, never at size h x h.

    **Source:** one step of G19 (5).

    Example:

        >>> problem, model = ld.factorization(np.diag([2.0, 1.0])), ld.TwoLayer(np.eye(2), 0.5 * np.eye(2))
        >>> ld.theory.drift_spectrum(model, problem, 0.1).spectrum.tolist()
        [-0.001875, -0.01688]
        >>> jnp.linalg.eigvalsh(ld.theory.descent_drift(model, problem, 0.1)[0]).tolist()
        [-0.01688, -0.001875]
    """
    (eta,) = as_floats(eta=eta)
    problem.refuse_terms("drift_spectrum")
    U1, V = moving_layers(model, problem)
    G = problem.reduced_loss_gradient(U1 @ V.T)
    rows = eta.astype(U1.dtype) * jnp.concatenate([G @ V, G.T @ U1])
    signs = jnp.concatenate([jnp.ones(U1.shape[0], U1.dtype), -jnp.ones(V.shape[0], V.dtype)])
    spectrum = signature_spectrum(rows, signs)
    return Drift(spectrum, norm(spectrum))


@public
@of_finite_state
def step_polynomial(model: AbstractModel, problem: LeastSquares) -> Float[Array, "5"]:
    r"""L - L* behind one step of descent, as a polynomial in its step size: five coefficients, ascending.

    With the velocities A = U1', B = V' the error is `E - eta S (A V^T + U1 B^T) - eta^2 S A B^T`, and its square a quartic.

    **Args:** `model`, `problem`.

    **Returns:** shape (5,).

    **Raises:** `ValueError` if the model's shapes do not fit the problem, or for a problem with a link or a penalty.

    **Source:** G19 (5) inserted into the loss.

    Example:

        >>> problem, model = ld.factorization(np.eye(1)), ld.TwoLayer(np.eye(1), 0.5 * np.eye(1))
        >>> coefficients = ld.theory.step_polynomial(model, problem)
        >>> coefficients.tolist()
        [0.125, -0.3125, 0.1328, 0.07812, 0.007812]
        >>> float(jnp.polyval(coefficients[::-1], 0.1)), (1 - 1.025 * 0.55) ** 2 / 2
        (0.09516, 0.09516)
    """
    polynomial, unit, size = _polynomial(model, problem)
    coefficients = problem.scale / 2 * size**2 * polynomial / unit ** jnp.arange(5)
    U1, V = moving_layers(model, problem)
    return coefficients.at[0].set(problem.excess_loss(U1 @ V.T))


@public
@of_finite_state
def line_search(model: AbstractModel, problem: LeastSquares) -> Statement:
    r"""Exact line search: the step size of least loss along the gradient, in closed form.

    The loss behind the step is a quartic in eta (`step_polynomial`), whose derivative has one or three positive roots; the one
    of least loss is taken.

    **Args:** `model`, `problem`.

    **Returns:** a `Statement` on the `step`; `excess_loss`, L - L* behind it; `coefficients`, those of `step_polynomial`;
    `applies`, whether there is a gradient to follow: the step is 0 where there is none.

    **Raises:** as `step_polynomial`.

    **Notes:** the derivative with respect to weights and data is that of the root; where two minima are equally deep it is
    that of the one that is taken.

    **Source:** G19 (5); the cubic by Viete's and Cardano's formulas, with Newton's method behind them.

    Example:

        >>> problem, model = ld.factorization(np.diag([2.0, 1.0])), ld.TwoLayer(np.eye(2), 0.5 * np.eye(2))
        >>> found = ld.theory.line_search(model, problem)
        >>> float(found.step), float(found.coefficients[0]), float(found.excess_loss)
        (0.5968, 1.25, 0.003595)
        >>> [float(jnp.polyval(found.coefficients[::-1], found.step + change)) for change in (-0.1, 0.1)]
        [0.05483, 0.06227]
    """
    c, length, _ = _polynomial(model, problem)
    slope = -c[1]
    applies = slope > 0
    # In units of slope and value the roots are of order 1: y = unit/eta solves y^3 - a y^2 - b y - d = 0.
    unit = jnp.where(applies, 1 / jnp.where(applies, slope, 1), 1)
    c2, c3, c4 = (jnp.where(applies, c[i] * unit**i, safe) for i, safe in ((2, 1.0), (3, 0.0), (4, 0.0)))
    roots = jax.lax.stop_gradient(_cubic_roots(-2 * c2, -3 * c3, -4 * c4))
    positive = roots > 0
    etas = jnp.where(positive, 1 / jnp.where(positive, roots, 1), 0)

    def derivative(z):
        return -1 + z * (2 * c2 + z * (3 * c3 + z * 4 * c4))

    def curvature(z):
        return 2 * c2 + z * (6 * c3 + z * 12 * c4)

    def newton(z):
        bend = jax.lax.stop_gradient(curvature(z))
        curved = jnp.abs(bend) > jnp.finfo(z.dtype).eps
        return z - jnp.where(curved, derivative(z) / jnp.where(curved, bend, 1), 0)

    for _ in range(3):
        etas = jax.lax.stop_gradient(newton(etas))
    values = -etas + etas**2 * (c2 + etas * (c3 + etas * c4))
    best = jax.lax.stop_gradient(etas[jnp.argmin(jnp.where(positive & (etas > 0), values, jnp.inf))])
    z = newton(best)
    step = jnp.where(applies, z * unit * length, 0)
    # From the errors and not from the polynomial, which cancels where the step solves the problem.
    U1, V = moving_layers(model, problem)
    G = problem.scale * problem.singular_values[:, None] * problem.error(U1 @ V.T)
    after = problem.excess_loss((U1 + step * (G @ V)) @ (V + step * (G.T @ U1)).T)
    coefficients = step_polynomial(model, problem)
    return Statement(step, applies, name="step", excess_loss=after, coefficients=coefficients)


@public
@of_finite_state
def step_inequality(model: AbstractModel, problem: LeastSquares, eta: Real[ArrayLike, ""]) -> Statement:
    r"""X23's inequality for one step of descent, with the constants measured on this very step.

    `L+ - L* <= (1 - 2 mu eta + mu K eta^2) (L - L*)`, where `||grad L||^2 = 2 mu (L - L*)` here and K is the largest second
    derivative of the loss along the step, divided by `||grad L||^2`. With these two it is the second-order bound on a segment,
    and always holds. The second derivative of a quartic that opens upwards is largest at one of the ends.

    **Args:** `model`, `problem`; `eta` > 0, step size.

    **Returns:** a `Statement` on the bound `factor`; `measured`, `(L+ - L*)/(L - L*)`; `mu`, the constant of Polyak and
    Lojasiewicz at this point; `smoothness`, K; `applies`, whether there is an error to reduce and the factor is below 1.

    **Raises:** as `step_polynomial`.

    **Notes:** X23's own constants, which hold along the whole path and are known from the start, are not those, and are not
    implemented. By `lemma7`, `mu >= q lambda_r (lambda_r(U1 U1^T) + lambda_m(V V^T))`.

    **Source:** X23; the constants are this package's.

    Example:

        >>> problem, model = ld.factorization(np.eye(1)), ld.TwoLayer(np.eye(1), 0.5 * np.eye(1))
        >>> found = ld.theory.step_inequality(model, problem, 0.1)
        >>> float(found.measured), float(found.factor), float(found.mu)
        (0.7613, 0.7625, 1.25)
    """
    (eta,) = as_floats(eta=eta)
    c, unit, size = _polynomial(model, problem)
    z = eta.astype(c.dtype) / unit
    applies = (size > 0) & (c[1] < 0)
    square = jnp.where(applies, -c[1], 1)
    bend = jnp.maximum(2 * c[2], 2 * c[2] + z * (6 * c[3] + z * 12 * c[4]))
    factor = 1 - square * z + bend / 2 * z**2
    measured = 1 + z * (c[1] + z * (c[2] + z * (c[3] + z * c[4])))
    applies = applies & (factor < 1) & (z > 0)
    mu, smoothness = square / (2 * unit), bend / square / unit
    return Statement(factor, applies, name="factor", measured=measured, mu=mu, smoothness=smoothness)


def _polynomial(model: AbstractModel, problem: LeastSquares) -> tuple[Float[Array, "5"], Array, Array]:
    """`(p, unit, ||E||)`: behind a step eta the excess loss is `(q/2) ||E||^2 p(eta/unit)`, with coefficients of order 1."""
    U1, V = moving_layers(model, problem)
    s, E = problem.singular_values, problem.error(U1 @ V.T)
    size, weight, top = norm(E), norm(U1, V), s[0]
    # Of the two parts that a step changes the error by, linear and quadratic in it, the larger sets the unit.
    e, w = (jnp.where(x > 0, x, 1) for x in (size, weight))
    kappa = e / top / w / w
    long = jnp.maximum(1, jnp.sqrt(e / top) / w)
    unit = 1 / (top * w) / (top * w) / problem.scale / long
    first, second = 1 / long, jnp.minimum(kappa, 1)
    E, U1, V, s = E / e, U1 / w, V / w, (s / top)[:, None]
    A, B = (s * E) @ V, (s * E).T @ U1
    E1, E2 = first * s * (A @ V.T + U1 @ B.T), second * s * (A @ B.T)
    inner = lambda P, Q: jnp.sum(P * Q)  # noqa: E731
    # <E, E1> = ||A||^2 + ||B||^2, which is never negative.
    p = (
        inner(E, E),
        -2 * first * (inner(A, A) + inner(B, B)),
        inner(E1, E1) - 2 * inner(E, E2),
        2 * inner(E1, E2),
        inner(E2, E2),
    )
    return jnp.stack(p), unit, size


def _cubic_roots(a: Array, b: Array, d: Array) -> Float[Array, "3"]:
    """Real roots of `y^3 + a y^2 + b y + d`, NaN-free; those that are not there repeat the one that is."""
    shift = a / 3
    p, q = b - a * shift, d - shift * b + 2 * shift**3
    # y = x - shift, x^3 + p x + q = 0.
    discriminant = (q / 2) ** 2 + (p / 3) ** 3
    three = discriminant < 0
    radius = 2 * jnp.sqrt(jnp.where(three, -p / 3, 1))
    cosine = jnp.clip(jnp.where(three, -4 * q / radius**3, 0), -1, 1)
    angle = jnp.arccos(cosine) / 3
    trigonometric = radius * jnp.cos(angle - 2 * math.pi / 3 * jnp.arange(3))
    root = jnp.sqrt(jnp.where(three, 0, discriminant))
    larger = jnp.cbrt(-q / 2 - jnp.where(q >= 0, root, -root))
    nonzero = jnp.abs(larger) > 0
    single = larger - jnp.where(nonzero, p / 3 / jnp.where(nonzero, larger, 1), 0)
    return jnp.where(three, trigonometric, single) - shift
