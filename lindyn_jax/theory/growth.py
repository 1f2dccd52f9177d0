r"""Bounds on how far the weights grow along the flow (M22 Proposition 9).

At one state, and from start to end by the loss that there is to lose, they hold for any loss; in closed form for least squares.
"""

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Real

from .. import _checks
from .._finite import of_finite_state
from .._norms import root
from .._public import public
from .._statement import Statement
from ..models import AbstractModel
from ..problems import AbstractProblem, LeastSquares
from ..reduction import check_fits
from ._numerics import norm
from .convergence import check_times, constant_now, target_and_error
from .imbalance import coupling, moving_layers


@public
@of_finite_state
def growth_rate(model: AbstractModel, problem: AbstractProblem) -> Statement:
    r"""How fast the moving weights grow under any loss, and the most that their size allows.

    With `Z1 = [U1; V]` and the gradient G of the loss in `Phi1^T Theta`, `d||Z1||_F^2/dt = -4 <G, U1 V^T>`, at most
    `2 sigma_1(G) ||Z1||_F^2`.

    **Args:** `model`, a network of two layers, reduced or not; `problem`, of any kind.

    **Returns:** a `Statement` on the `rate`; `bound`; `gradient_norm`, sigma_1(G), whose integral over time is by how much the
    logarithm of ||Z1||_F, and that of `||Z1 U2^T||_F`, can grow.

    **Raises:** `ValueError` if the model's shapes do not fit the problem, or for a problem with terms on the weights.

    **Source:** M22 (E.1) in the proof of Proposition 9, with G in the place of the error.

    Example:

        >>> problem, model = ld.factorization(np.eye(1)), ld.TwoLayer(2 * np.eye(1), np.eye(1))
        >>> found = ld.theory.growth_rate(model, problem)
        >>> float(found.rate), float(found.bound)
        (-8.0, 10.0)
    """
    problem.refuse_terms("growth_rate")
    U1, V = moving_layers(model, problem)
    G = problem.reduced_loss_gradient(U1 @ V.T)
    most: Array = jnp.linalg.norm(G, ord=2)
    size = norm(jnp.concatenate([U1, V])) ** 2
    rate = -4 * jnp.sum(G * (U1 @ V.T))
    return Statement(rate, jnp.isfinite(rate), name="rate", bound=2 * most * size, gradient_norm=most)


@public
@of_finite_state
def travel_bound(
    model: AbstractModel,
    problem: AbstractProblem,
    ts: Real[Array, "*times"] | float,
    least_loss: Real[ArrayLike, ""] = 0.0,
) -> Statement:
    r"""Upper bound on how far all weights have moved by a time under any loss, `||W(t) - W(0)||_F <= sqrt(t (L(0) - least))`.

    The flow loses loss at the rate ||W'||^2, and a path is the longer the more evenly it does.

    **Args:** `model`, the start, any network that moves by the gradient; `problem`, of any kind; `ts`, times since the start;
    `least_loss`, "least", what the loss stays above, by default zero.

    **Returns:** a `Statement` on the bound; `applies`, whether the loss of the start is at least `least_loss`.

    **Raises:** `ValueError` for negative concrete times, a model that does not fit the problem or does not move by the gradient,
    or a problem with terms on the weights.

    **Source:** this package's own: the inequality of Cauchy and Schwarz.

    Example:

        >>> problem, model = ld.factorization(2 * np.eye(1)), ld.TwoLayer(np.eye(1), 0.5 * np.eye(1))
        >>> ts = jnp.array([0.0, 0.5, 1.0])
        >>> ld.theory.travel_bound(model, problem, ts).value.tolist()
        [0.0, 0.75, 1.061]
        >>> mode = ld.exact.mode(2.0, 1.0, 0.5, ts)
        >>> jnp.hypot(mode.u - 1, mode.v - 0.5).tolist()
        [0.0, 0.6939, 0.9205]
    """
    check_fits(model, problem)
    problem.refuse_terms("travel_bound")
    if not model.is_gradient_flow:
        raise ValueError(
            f"The statement is about weights that move by the gradient, but a {type(model).__name__} has a flow of its own."
        )
    ts = check_times(ts)
    missing = problem.reduced_loss(model.reduced_product(problem)) - _checks.as_float(least_loss, "least_loss")
    applies = missing >= 0
    moved = jnp.where((ts > 0) & applies & (missing > 0), ts * jnp.where(missing > 0, missing, 1), 0)
    return Statement(root(moved), applies)


@public
@of_finite_state
def growth_bound(model: AbstractModel, problem: LeastSquares, ts: Real[Array, "*times"] | float = jnp.inf) -> Statement:
    r"""Upper bound on `||Z1(t)||_F^2`, Z1 = [U1; V]. Hypothesis: c(0) > 0.

    `||Z1(t)||^2 <= exp(4 lambda_1^{1/2} ||E(0)||/(lambda_r c(0)) (1 - e^{-q lambda_r c(0) t/2})) ||Z1(0)||^2`.

    **Args:** `model`, the start; `problem`; `ts`, times since the start, by default infinity.

    **Returns:** a `Statement` on the bound, which is infinite beyond the largest float, and `log_value`, its natural
    logarithm, which never is. At finite times it holds for c(0) = 0 as well, with 2 q lambda_1^{1/2} ||E(0)|| t in the
    exponent; at infinity it is then infinite. Zero for weights that are zero, and stay so.

    **Raises:** `ValueError` for negative concrete times, a problem with a link or a penalty, or a model that does not fit it.

    **Notes:** Z1 moves by a matrix of norm at most `q lambda_1^{1/2} ||E||`, whose time integral Theorem 3 bounds. The
    same holds in the spectral norm.

    **Source:** M22 Proposition 9, with its integral stopped at t.

    Example:

        >>> problem, model = ld.factorization(np.eye(1)), ld.TwoLayer(np.eye(1), 0.9 * np.eye(1))
        >>> end = ld.exact.mode(1.0, 1.0, 0.9, 100.0)
        >>> float(end.u**2 + end.v**2), float(ld.theory.growth_bound(model, problem).value)
        (2.009, 2.021)
    """
    U1, V = moving_layers(model, problem)
    path, applies = _path_length(model, problem, ts)
    return _bound(2 * path, 2, norm(jnp.concatenate([U1, V])), applies)


@public
@of_finite_state
def coupling_bound(
    model: AbstractModel, problem: LeastSquares, ts: Real[Array, "*times"] | float = jnp.inf
) -> Statement:
    r"""Upper bound on `||Z1(t) U2^T||_F`, and so on the distance `||U2 V(t)^T||_F` from the row space of the data.

    `||Z1(t) U2^T|| <= exp(2 lambda_1^{1/2} ||E(0)||/(lambda_r c(0)) (1 - e^{-q lambda_r c(0) t/2})) ||Z1(0) U2^T||`.
    Hypothesis: c(0) > 0.

    **Args:** as for `growth_bound`; a `Reduction` must know its frozen part.

    **Returns:** as `growth_bound`, zero on the invariant set.

    **Raises:** `ValueError` as `growth_bound` does, and for a model that lacks its frozen part.

    **Notes:** at t = infinity it bounds `||Theta(inf) - Theta_hat||_F`; Theorem 12 is this with Lemma 11 put in.

    **Source:** M22 Proposition 9 and the proof of Theorem 12.

    Example:

        >>> problem = ld.LeastSquares(np.eye(1, 2), np.eye(1))
        >>> model = ld.TwoLayer(np.array([[1.0, 0.0], [0.0, 0.1]]), np.array([[0.9, 0.1]]))
        >>> ld.theory.coupling_bound(model, problem, jnp.array([0.0, 1.0, jnp.inf])).value.tolist()
        [0.01, 0.01047, 0.01056]
    """
    path, applies = _path_length(model, problem, ts)
    return _bound(path, 1, norm(coupling(model, problem)), applies)


def _path_length(model: AbstractModel, problem: LeastSquares, ts) -> tuple[Array, Array]:
    """Bound on the time integral of `q lambda_1^{1/2} ||E||`, and whether c(0) > 0."""
    ts = check_times(ts)
    s, _, error = target_and_error(model, problem)
    constant = constant_now(model, problem)
    applies = constant > 0
    half_rate = problem.scale * s[-1] ** 2 * constant / 2
    safe = jnp.where(applies, half_rate, 1)
    # expm1 at a finite time only: at infinity its derivative with respect to the rate would be 0 times infinity.
    endless = jnp.isinf(ts)
    fraction = jnp.where(endless, 1, -jnp.expm1(-safe * jnp.where(endless, 0, ts)))
    length = jnp.where(applies, fraction / safe, ts)
    solved = error == 0
    # An interpolating start does not move, in no matter how long a time.
    return jnp.where(solved, 0, problem.scale * s[0] * error * jnp.where(solved, 0, length)), applies


def _bound(exponent: Array, power: int, size: Array, applies: Array) -> Statement:
    """`e^exponent size^power`, with derivative zero at size 0, which no exponent moves."""
    absent = size == 0
    log_value = jnp.where(absent, -jnp.inf, exponent + power * jnp.log(jnp.where(absent, 1, size)))
    return Statement(jnp.exp(log_value), applies, log_value=log_value)
