r"""How a Gaussian start of width h concentrates, and what follows for the end of its flow (M22 Lemma 11, Theorem 12).

A Gaussian start has iid entries N(0, h^{-2 alpha}). The statements bound what happens with probability 1 - delta;
`sharp_distance` and `conditional_distance` say what happens. The width is a number, which may be traced, and all of them
broadcast over arrays of widths, exponents and probabilities.
"""

import math
from functools import partial
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Real

from .. import _checks
from .._finite import of_finite_state
from .._public import public
from .._statement import Statement
from ..models import AbstractModel
from ..problems import LeastSquares
from ._numerics import norm
from .imbalance import coupling, hidden_width, imbalance, moving_layers

Constant = Literal["paper", "davidson-szarek"]


class Lemma11Events(NamedTuple):
    """The three events of Lemma 11 for one start.

    **Fields:** `level`, Delta; `coupling`, `||[V U2^T; U1 U2^T]||_F`; `product`, `||U1 V^T||_F`; and whether each is on its
    side of the lemma's bound: `level_is_large` (33), `coupling_is_small` (34), `product_is_small` (35).

    Example:

        >>> problem = ld.LeastSquares(np.eye(2, 3), np.eye(2))
        >>> start = ld.init.gaussian(3, 2, 1000, alpha=0.5, key=jax.random.key(0))
        >>> events = ld.theory.lemma11_events(start, problem, 0.5, 0.1)
        >>> float(events.level), bool(events.level_is_large)
        (1.966, True)
    """

    level: Float[Array, ""]
    coupling: Float[Array, ""]
    product: Float[Array, ""]
    level_is_large: Bool[Array, ""]
    coupling_is_small: Bool[Array, ""]
    product_is_small: Bool[Array, ""]


@public
def lemma11(
    problem: LeastSquares,
    h: Real[ArrayLike, "..."],
    alpha: Real[ArrayLike, "..."],
    delta: Real[ArrayLike, "..."],
    *,
    constant: Constant = "paper",
) -> Statement:
    r"""What holds with probability at least 1 - delta for a Gaussian start of width h.

    Hypothesis: `h > h0 = 16 w^2`. Then together

    (33) `Delta > h^{1 - 2 alpha}`, (34) `||[V U2^T; U1 U2^T]||_F <= 2 sqrt(m + r) w h^{1/2 - 2 alpha}`,
    (35) `||U1 V^T||_F <= 2 sqrt(m) w h^{1/2 - 2 alpha}`.

    **Args:**

    - `problem`: gives n, r and m; its targets do not matter.
    - `h`: width, a positive number.
    - `alpha`: exponent of the start, whose entries are N(0, h^{-2 alpha}).
    - `delta`: probability of failure, in (0, 1).
    - `constant`: `"paper"` is `w = sqrt(m + n) + (1/2) log(2/delta)`; `"davidson-szarek"` is
        `w = sqrt(m + n) + sqrt(2 log(2/delta))`, for which the proof closes at every delta.

    **Returns:** a `Statement`; where its hypothesis fails, `applies` is false and the numbers are those of the formulas.

    - `level`: (33), Delta is above it. `coupling`: (34), `||[V U2^T; U1 U2^T]||_F` is at most this. `product`: (35),
        `||U1 V^T||_F` is at most this.
    - `w`, `h0`: the constant in the bounds and the width from which they hold.
    - `h0_level`: a smaller width from which (33) holds with the same probability, by the tail bound of [V; U1] alone.

    **Raises:** `ValueError` for a concrete delta outside (0, 1) or a concrete width that is not positive.

    **Notes:** scaling all weights scales both sides alike, so the events do not depend on alpha, whose range is a hypothesis
    of Theorem 12 alone. The proof needs the Davidson-Szarek constant for delta > 6.7e-4; no failure of the printed one has
    been seen. (33) concerns [V; U1] only, and for it `h0_level = 16 (sqrt(m + r) + sqrt(2 log(2/delta)))^2` is enough.

    **Source:** M22 Lemma 11, (33) to (35).

    Example:

        >>> problem = ld.LeastSquares(np.eye(2, 3), np.eye(2))
        >>> bounds = ld.theory.lemma11(problem, np.array([100.0, 1e6]), 0.5, 0.1)
        >>> float(bounds.h0[0]), bounds.applies.tolist()
        (223.1, [False, True])
        >>> bounds.level.tolist(), bounds.coupling.tolist(), bounds.product.tolist()
        ([1.0, 1.0], [1.494, 0.01494], [1.056, 0.01056])
    """
    given = _width_exponent_delta(problem, h, alpha, delta, constant)
    return _lemma11(problem.num_inputs, problem.rank, problem.num_outputs, constant, *given)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _lemma11(n: int, r: int, m: int, constant: Constant, h: Array, alpha: Array, delta: Array) -> Statement:
    h, alpha, delta = jnp.broadcast_arrays(h, alpha, delta)
    w = _tail_constant(n, m, delta, constant)
    h0 = 16 * w**2
    spread = w * h ** (0.5 - 2 * alpha)
    applies = (h > h0) & (delta > 0) & (delta < 1) & jnp.isfinite(h * alpha)
    return Statement(
        h ** (1 - 2 * alpha),
        applies,
        name="level",
        coupling=2 * math.sqrt(m + r) * spread,
        product=2 * math.sqrt(m) * spread,
        w=w,
        h0=h0,
        h0_level=16 * (math.sqrt(m + r) + _davidson_szarek(delta)) ** 2,
    )


@public
@of_finite_state
def lemma11_events(
    model: AbstractModel,
    problem: LeastSquares,
    alpha: Real[ArrayLike, ""],
    delta: Real[ArrayLike, ""],
    *,
    constant: Constant = "paper",
) -> Lemma11Events:
    """Whether (33), (34) and (35) hold for one start, and the three numbers they speak of.

    **Args:**

    - `model`: a `TwoLayer`, or a `Reduction` that knows its frozen part; its width is h.
    - `problem`, `alpha`, `delta`, `constant`: as for `lemma11`.

    **Returns:** a `Lemma11Events`.

    **Raises:** `ValueError` as `lemma11` does, and for a model that does not fit the problem or lacks its frozen part.

    **Source:** M22 (33) to (35).

    Example:

        >>> problem = ld.LeastSquares(np.eye(2, 3), np.eye(2))
        >>> start = ld.init.gaussian(3, 2, 1000, alpha=0.5, key=jax.random.key(0))
        >>> events = ld.theory.lemma11_events(start, problem, 0.5, 0.1)
        >>> bool(events.level_is_large), bool(events.coupling_is_small), bool(events.product_is_small)
        (True, True, True)
    """
    U1, V = moving_layers(model, problem)
    bounds = lemma11(problem, hidden_width(model, problem), alpha, delta, constant=constant)
    level = imbalance(model, problem).level
    coupling_norm = norm(coupling(model, problem))
    product_norm = norm(U1 @ V.T)
    return Lemma11Events(
        level,
        coupling_norm,
        product_norm,
        level > bounds.level,
        coupling_norm <= bounds.coupling,
        product_norm <= bounds.product,
    )


@public
def theorem12(
    problem: LeastSquares,
    h: Real[ArrayLike, "..."],
    alpha: Real[ArrayLike, "..."],
    delta: Real[ArrayLike, "..."],
    *,
    constant: Constant = "paper",
) -> Statement:
    r"""Bound on the distance of the flow's limit from the minimum-norm solution, with probability at least 1 - delta.

    Hypotheses: `1/4 < alpha <= 1/2` and `h > h0^{1/(4 alpha - 1)}` with
    `h0 = max(16 w^2, 4 (lambda_1/lambda_r)^2 m w^2)`. Then

    `||Theta(inf) - Theta_hat||_2 <= 2 C^{1/h^{1 - 2 alpha}} sqrt(m + r) w h^{1/2 - 2 alpha}`,
    `C = exp(1 + lambda_1^{1/2} ||Y||_F/lambda_r)`.

    **Args:** as for `lemma11`; here the data and targets of `problem` matter.

    **Returns:** a `Statement` on the bound, infinite beyond the largest float; all logarithms are natural.

    - `log_bound`: its logarithm. `log_C`, `w`, `h0`: the constants; C itself is beyond any float on ordinary data.
    - `log_width`: logarithm of the width `h0^{1/(4 alpha - 1)}` above which the theorem speaks; infinite for alpha <= 1/4.

    **Raises:** `ValueError` for a concrete delta outside (0, 1), a concrete width that is not positive, or a problem with a
    link function or a penalty.

    **Notes:** the paper prints `lambda_1/lambda_r^3` in h0, which changes with the units of X; the proof gives the ratio
    used here. The limit does not depend on the loss scale, and neither does the bound.

    **Source:** M22 Theorem 12, with h0 corrected.

    Example:

        >>> problem = ld.LeastSquares(np.eye(2, 3), np.eye(2))
        >>> found = ld.theory.theorem12(problem, np.array([100.0, 1e6]), 0.5, 0.1)
        >>> found.applies.tolist(), found.value.tolist()
        ([False, True], [16.7, 0.167])
        >>> float(ld.theory.sharp_distance(problem, 1e6, 0.5).rms)
        0.001682
    """
    refuse_link(problem)
    return _theorem12(problem, constant, *_width_exponent_delta(problem, h, alpha, delta, constant))


@eqx.filter_jit
def _theorem12(problem: LeastSquares, constant: Constant, h: Array, alpha: Array, delta: Array) -> Statement:
    h, alpha, delta = jnp.broadcast_arrays(h, alpha, delta)
    r, m = problem.rank, problem.num_outputs
    s = problem.singular_values
    w = _tail_constant(problem.num_inputs, m, delta, constant)
    log_C = 1 + s[0] / s[-1] * norm(problem.Y) / s[-1]
    h0 = jnp.maximum(16 * w**2, 4 * m * (problem.condition * w) ** 2)
    log_bound = (
        math.log(2) + log_C / h ** (1 - 2 * alpha) + 0.5 * math.log(m + r) + jnp.log(w) + (0.5 - 2 * alpha) * jnp.log(h)
    )
    above = alpha > 0.25
    log_width = jnp.where(above, jnp.log(h0) / jnp.where(above, 4 * alpha - 1, 1), jnp.inf)
    applies = (jnp.log(h) > log_width) & _exponent_fits(alpha) & (delta > 0) & (delta < 1) & jnp.isfinite(log_bound)
    shape = log_bound.shape
    return Statement(
        jnp.exp(log_bound),
        jnp.broadcast_to(applies, shape),
        log_bound=log_bound,
        log_C=jnp.broadcast_to(log_C, shape),
        w=w,
        h0=h0,
        log_width=log_width,
    )


def _width_exponent_delta(problem: LeastSquares, h, alpha, delta, constant: str) -> tuple[Array, Array, Array]:
    _checks.check_choice(constant, "constant", ("paper", "davidson-szarek"))
    _checks.check_positive(h, "h")
    if not _checks.is_traced(delta):
        value = np.asarray(delta)
        if not np.all((value > 0) & (value < 1)):
            raise ValueError(f"Argument `delta` is a probability and must lie between 0 and 1, but is {delta}.")
    h, alpha, delta = (jnp.asarray(value, problem.dtype) for value in (h, alpha, delta))
    return h, alpha, delta


def _tail_constant(n: int, m: int, delta: Array, constant: str) -> Array:
    size = math.sqrt(m + n)
    return size + (0.5 * jnp.log(2 / delta) if constant == "paper" else _davidson_szarek(delta))


def _davidson_szarek(delta: Array) -> Array:
    return jnp.sqrt(2 * jnp.log(2 / delta))


def _exponent_fits(alpha: Array) -> Array:
    return (alpha > 0.25) & (alpha <= 0.5)


def refuse_link(problem: LeastSquares) -> None:
    """Refuses a problem without a minimum-norm solution."""
    if problem.link is not None:
        raise ValueError("The statements on the minimum-norm solution are for problems without a link function.")
