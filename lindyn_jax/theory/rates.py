"""How fast the loss falls: the exact instantaneous rate and the bounds that hold along the flow.

The rate of a state is `-L'/(L - L*)`. It is a quadratic form in the error E; Lemma 7 bounds it over all errors, Lemma 8
bounds the layers by their imbalance and their product, Proposition 1 puts the two together, and Theorem 3 follows the
product along the path. The bounds are for gradient flow on a problem without a link, without weight decay.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from .. import _checks
from .._finite import elementwise, of_finite_state
from .._linalg import row_factor
from .._public import public
from .._svd import least_left_vector
from ..exact._common import ratio
from ..models import ReducedTwoLayer, TwoLayer
from ..problem import LeastSquares
from ._numerics import hypot, norm, singular_value
from .imbalance import SpectrumEdges, coupling, imbalance, moving_layers, require_plain_flow, spectrum_edges

Model = TwoLayer | ReducedTwoLayer


class Bound(NamedTuple):
    """The number a statement promises, and whether its hypotheses hold.

    **Fields:** `value`; `applies`.
    """

    value: Float[Array, "..."]
    applies: Bool[Array, "..."]


class LayerBounds(NamedTuple):
    """Lemma 8's lower bounds on the least eigenvalues of the layers.

    **Fields:** `first`, at most lambda_r(U1 U1^T); `second`, at most lambda_m(V V^T); `applies`, whether both are finite.
    """

    first: Float[Array, ""]
    second: Float[Array, ""]
    applies: Bool[Array, ""]


class LossBound(NamedTuple):
    """An exponential bound on the excess loss along the path.

    **Fields:** `value`, at least L(t) - L* at each time; `rate`, of the exponential; `applies`, whether the hypotheses hold.
    """

    value: Float[Array, "..."]
    rate: Float[Array, ""]
    applies: Bool[Array, ""]


class LogBound(NamedTuple):
    """A bound too large to write out, as a natural logarithm.

    **Fields:** `log_value`; `applies`, whether the hypotheses hold.
    """

    log_value: Float[Array, "..."]
    applies: Bool[Array, "..."]


# -- the exact rate --------------------------------------------------------------------------------------------------


@public
@of_finite_state
def instantaneous_rate(model: Model, problem: LeastSquares) -> Float[Array, ""]:
    r"""The rate `-L'/(L - L*)` of the flow at this state, exactly.

    `2q <E, T E>/<E, E> = 2q (||U1^T S E||_F^2 + ||S E V||_F^2)/||E||_F^2`.

    **Args:**

    - `model`: a `TwoLayer` or a `ReducedTwoLayer`.
    - `problem`: without a link.

    **Returns:** the rate; infinity at E = 0, where the loss is at its minimum and every bound on its rate is true.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Source:** M22 appendix C.
    """
    U1, V = moving_layers(model, problem)
    E = problem.error(U1 @ V.T)
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(E)))
    solved = size == 0
    # The rate does not depend on the length of E, whose square underflows near the end of training.
    E = E / jnp.where(solved, 1, size)
    SE = problem.singular_values[:, None] * E
    moved = jnp.sum((U1.T @ SE) ** 2) + jnp.sum((SE @ V) ** 2)
    return jnp.where(solved, jnp.inf, 2 * problem.scale * moved / jnp.where(solved, 1, jnp.sum(E**2)))


@public
def rate_operator(model: Model, problem: LeastSquares, E: Float[Array, "r m"]) -> Float[Array, "r m"]:
    """`T E = S U1 U1^T S E + S^2 E V V^T`: the flow moves the error by `E' = -q T E`.

    **Args:** `model`, `problem`; `E`, shape (r, m), any error in the data's coordinates.

    **Returns:** T E, shape (r, m). T is symmetric and positive semidefinite.

    **Raises:** `ValueError` if the model's shapes do not fit the problem.

    **Source:** M22 appendix C.
    """
    U1, V = moving_layers(model, problem)
    s = problem.singular_values[:, None]
    return s * (U1 @ (U1.T @ (s * E))) + s**2 * ((E @ V) @ V.T)


@public
@of_finite_state
def rate_spectrum(model: Model, problem: LeastSquares) -> Float[Array, " rm"]:
    """Eigenvalues of the operator T, descending: 2q times the last and the first bound the rate over all errors.

    With `V V^T = P diag(mu) P^T` the operator is the direct sum of `S (U1 U1^T + mu_j I) S`, j = 1..m, and the eigenvalues
    are squared singular values of `S [U1, sqrt(mu_j) I]`; for Sigma_x = I they are lambda_i(U1 U1^T) + mu_j.

    **Args:** `model`, `problem`.

    **Returns:** the r m eigenvalues.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Source:** M22 appendix C.
    """
    problem.refuse_link("rate_spectrum")
    U1, V = moving_layers(model, problem)
    L, _ = row_factor(U1)
    root_mu = jnp.linalg.svd(V, compute_uv=False)
    root_mu = jnp.concatenate([root_mu, jnp.zeros(V.shape[0] - root_mu.shape[0], V.dtype)])
    s = problem.singular_values[:, None]

    def block(root):
        return jnp.linalg.svd(
            s * jnp.concatenate([L, root * jnp.eye(L.shape[0], dtype=L.dtype)], axis=1), compute_uv=False
        )

    return jnp.sort((jax.vmap(block)(root_mu) ** 2).ravel())[::-1]


@public
def adversarial_target(
    model: Model, problem: LeastSquares, *, size: Real[Array, ""] | float = 1.0
) -> Float[Array, "N m"]:
    """A target Y for which this start is as slow as its weights allow: the error is the least eigenmatrix of T.

    `Y = W (size E_min + S U1 V^T)`, with `T E_min = lambda_min(T) E_min` and `||E_min||_F = 1`.

    **Args:** `model`; `problem`, whose own targets do not matter; `size`, norm of the error at the start.

    **Returns:** Y, shape (N, m): `LeastSquares(X, Y)` with the same scales starts at the rate `2q lambda_min(T)`.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Notes:** for Sigma_x a multiple of the identity that rate is Lemma 7's bound. Where the least eigenvalue is repeated, one
    of its eigenmatrices is taken, and its derivative among them as zero.

    **Source:** M22 appendix C.
    """
    if problem.link is not None:
        raise ValueError("The adversarial target is defined for a problem without a link function: leave out `link`.")
    U1, V = moving_layers(model, problem)
    s = problem.singular_values[:, None]
    # Of the small factors: V itself would bring a matrix of the width's square.
    (L, _), (M, _) = row_factor(U1), row_factor(V)
    least = singular_value(jnp.linalg.svd(M, compute_uv=False), V.shape[0])
    A = s * jnp.concatenate([L, least * jnp.eye(L.shape[0], dtype=L.dtype)], axis=1)
    Ytil = size * jnp.outer(least_left_vector(A), least_left_vector(M)) + s * (U1 @ V.T)
    if problem.X is None:
        return Ytil
    return (problem.X @ problem.Phi1) @ (Ytil / problem.data_singular_values[:, None])


# -- bounds at one state ---------------------------------------------------------------------------------------------


@public
@of_finite_state
def lemma7(model: Model, problem: LeastSquares) -> Bound:
    """Lower bound on the instantaneous rate by the least eigenvalues of the layers; it needs no hypothesis.

    `2q lambda_r (lambda_r(U1 U1^T) + lambda_m(V V^T))`.

    **Args:** `model`, `problem`.

    **Returns:** a `Bound`.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Source:** M22 Lemma 7.
    """
    problem.refuse_link("lemma7")
    U1, V = moving_layers(model, problem)
    first = singular_value(jnp.linalg.svd(U1, compute_uv=False), U1.shape[0])
    second = singular_value(jnp.linalg.svd(V, compute_uv=False), V.shape[0])
    return _always(2 * problem.scale * problem.singular_values[-1] ** 2 * (first**2 + second**2))


@public
@of_finite_state
def lemma8(model: Model, problem: LeastSquares) -> LayerBounds:
    r"""Lower bounds on the least eigenvalues of the layers by their imbalance and their product; no hypothesis.

    `lambda_m(V V^T) >= (-x + y + sqrt((x + y)^2 + 4 sigma_m(U1 V^T)^2))/2`, with `x = [lambda_1(D)]_+` and
    `y = [lambda_m(-D)]_+`; the bound on `lambda_r(U1 U1^T)` has -D for D and r for m.

    **Args:** `model`, `problem`.

    **Returns:** a `LayerBounds`.

    **Raises:** `ValueError` if the model's shapes do not fit the problem.

    **Source:** M22 Lemma 8.
    """
    first, second = _layer_bounds(spectrum_edges(model, problem), *_product_edges(model, problem))
    return LayerBounds(first, second, jnp.isfinite(first + second))


@public
@of_finite_state
def rate_bound(model: Model, problem: LeastSquares) -> Bound:
    r"""Lower bound on the instantaneous rate by imbalance and product, for every r, m and h; it needs no hypothesis.

    `q lambda_r (-Delta+ + sqrt((Delta+ + Delta)^2 + 4 sigma_m(U1 V^T)^2)
    - Delta- + sqrt((Delta- + Delta)^2 + 4 sigma_r(U1 V^T)^2))`.

    **Args:** `model`, `problem`.

    **Returns:** a `Bound`.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Notes:** an equality for r = m = 1 at every width. Computed as twice the sum of Lemma 8's bounds, in which nothing
    cancels. It would be false with U in the place of U1.

    **Source:** M22 Proposition 1, (17).
    """
    problem.refuse_link("rate_bound")
    first, second = _layer_bounds(spectrum_edges(model, problem), *_product_edges(model, problem))
    return _always(2 * problem.scale * problem.singular_values[-1] ** 2 * (first + second))


@public
@of_finite_state
def margin(model: Model, problem: LeastSquares) -> Float[Array, ""]:
    """`sigma_{min(r, m)}(Ytil) - ||E||_F`: while it is positive the product cannot lose rank.

    **Args:** `model`, `problem`.

    **Returns:** the margin, of either sign. The excess loss never grows, so neither does ||E||_F, and the margin never
    falls.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Source:** M22 Corollary 5 and (26).
    """
    _, target, error = _target_and_error(model, problem)
    return target[-1] - error


@public
@of_finite_state
def convergence_constant(model: Model, problem: LeastSquares) -> Float[Array, ""]:
    r"""c(t): Proposition 1's bracket with the product bounded by how far the target's singular values exceed the error.

    `sigma_m(U1 V^T)^2` becomes `[sigma_m(Ytil) - ||E||_F]_+^2/lambda_1`, and sigma_r likewise.

    **Args:** `model`, the state at time t; `problem`.

    **Returns:** c(t) >= 0; along the flow it never falls.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Source:** M22 (21). With margin at most 0 it is 2 Delta.
    """
    return _constant_now(model, problem)


@public
@of_finite_state
def local_rate(model: Model, problem: LeastSquares) -> Bound:
    """The rate that Theorem 3 gives near the end of training: `q lambda_r` times the limit of c(t) at zero error.

    **Args:** `model`, any state of the path; `problem`.

    **Returns:** a `Bound` on the rate as t grows; `applies` says whether c > 0 here, so that the flow is known to converge.

    **Raises:** `ValueError` for a problem with a link or a penalty, or a model that does not fit it.

    **Source:** M22 (22).
    """
    require_plain_flow(problem)
    edges = spectrum_edges(model, problem)
    s, target, error = _target_and_error(model, problem)
    limit = _constant(edges, problem, target, jnp.zeros_like(error), s)
    return Bound(problem.scale * s[-1] ** 2 * limit, _constant_now(model, problem) > 0)


# -- bounds along the path -------------------------------------------------------------------------------------------


@public
@of_finite_state
def loss_bound(model: Model, problem: LeastSquares, ts: Real[Array, "*times"]) -> LossBound:
    r"""Upper bound on the excess loss along the flow that starts here; it needs no hypothesis.

    `L(t) - L* <= exp(-q lambda_r c(0) t) (L(0) - L*)`.

    **Args:**

    - `model`: the start.
    - `problem`: without a link.
    - `ts`: times since the start, not negative.

    **Returns:** a `LossBound`; its rate is 0 where c(0) = 0, and the bound then only says that the loss does not grow.

    **Raises:** `ValueError` for negative concrete times, a problem with a link or a penalty, or a model that does not fit it.

    **Source:** M22 Theorem 3.
    """
    bound = corollary6(model, problem, ts, 0.0)
    return bound._replace(applies=jnp.isfinite(bound.rate))


@public
@of_finite_state
def corollary4(model: Model, problem: LeastSquares) -> Bound:
    """Rate of convergence by the level of imbalance alone: `2 q lambda_r Delta`. Hypothesis: Delta > 0.

    **Args:** `model`, the start; `problem`.

    **Returns:** a `Bound` on the rate of `L(t) - L*`.

    **Raises:** `ValueError` for a problem with a link or a penalty, or a model that does not fit it.

    **Source:** M22 Corollary 4, M21 Theorem 1.
    """
    problem.refuse_link("corollary4")
    require_plain_flow(problem)
    level = imbalance(model, problem).level
    return Bound(2 * problem.scale * problem.singular_values[-1] ** 2 * level, level > 0)


@public
@of_finite_state
def corollary5(model: Model, problem: LeastSquares) -> Bound:
    """Rate of convergence of a start with margin: `q lambda_r c(0)`. Hypothesis: the margin is positive.

    **Args:** `model`, the start; `problem`.

    **Returns:** a `Bound` on the rate of `L(t) - L*`.

    **Raises:** `ValueError` for a problem with a link or a penalty, or a model that does not fit it.

    **Notes:** the paper prints twice this rate, which is false: u = 1, v = .9, y = 1 breaks it.

    **Source:** M22 Corollary 5, corrected.
    """
    require_plain_flow(problem)
    s, target, error = _target_and_error(model, problem)
    constant = _constant_now(model, problem)
    return Bound(problem.scale * s[-1] ** 2 * constant, target[-1] > error)


@public
@of_finite_state
def corollary6(
    model: Model, problem: LeastSquares, ts: Real[Array, "*times"], t0: Real[Array, ""] | float
) -> LossBound:
    r"""Upper bound on the excess loss after a time t0 at which the rate is known to be positive. Hypothesis: c(t0) > 0.

    `L(t) - L* <= exp(-q lambda_r c(t0) (t - t0)) (L(t0) - L*)`, t >= t0.

    **Args:** `model`, the state at t0; `problem`; `ts`, times on the path's own clock; `t0`.

    **Returns:** a `LossBound`; infinity at times before t0, of which nothing is said.

    **Raises:** `ValueError` for negative concrete times, a problem with a link or a penalty, or a model that does not fit it.

    **Notes:** a positive margin (`corollary5`) or level of imbalance (`corollary4`) is enough for c(t0) > 0. The paper prints
    twice this rate, and t for t - t0.

    **Source:** M22 Corollary 6, corrected.
    """
    require_plain_flow(problem)
    ts = _times(ts)
    s, _, error = _target_and_error(model, problem)
    constant = _constant_now(model, problem)
    rate = problem.scale * s[-1] ** 2 * constant
    elapsed = ts - t0
    begun = elapsed >= 0
    loss = problem.scale / 2 * error**2
    value = jnp.where(begun, jnp.exp(-rate * jnp.where(begun, elapsed, 0)) * loss, jnp.inf)
    return LossBound(value, rate, constant > 0)


@public
@of_finite_state
def growth_bound(model: Model, problem: LeastSquares, ts: Real[Array, "*times"] | float = jnp.inf) -> LogBound:
    r"""Upper bound on `||Z1(t)||_F^2`, Z1 = [U1; V]. Hypothesis: c(0) > 0.

    `||Z1(t)||^2 <= exp(4 lambda_1^{1/2} ||E(0)||/(lambda_r c(0)) (1 - e^{-q lambda_r c(0) t/2})) ||Z1(0)||^2`.

    **Args:** `model`, the start; `problem`; `ts`, times since the start, by default infinity.

    **Returns:** a `LogBound`. At finite times it holds for c(0) = 0 as well, with 2 q lambda_1^{1/2} ||E(0)|| t in the
    exponent; at infinity it is then infinite. Minus infinity for weights that are zero, and stay so.

    **Raises:** `ValueError` for negative concrete times, a problem with a link or a penalty, or a model that does not fit it.

    **Notes:** Z1 moves by a matrix of norm at most `q lambda_1^{1/2} ||E||`, whose time integral Theorem 3 bounds. The
    same holds in the spectral norm.

    **Source:** M22 Proposition 9, with its integral stopped at t.
    """
    U1, V = moving_layers(model, problem)
    path, applies = _path_length(model, problem, ts)
    return LogBound(_log_bound(2 * path, 2, norm(jnp.concatenate([U1, V]))), applies)


@public
@of_finite_state
def coupling_bound(model: Model, problem: LeastSquares, ts: Real[Array, "*times"] | float = jnp.inf) -> LogBound:
    r"""Upper bound on `||Z1(t) U2^T||_F`, and so on the distance `||U2 V(t)^T||_F` from the row space of the data.

    `||Z1(t) U2^T|| <= exp(2 lambda_1^{1/2} ||E(0)||/(lambda_r c(0)) (1 - e^{-q lambda_r c(0) t/2})) ||Z1(0) U2^T||`.
    Hypothesis: c(0) > 0.

    **Args:** as for `growth_bound`; a `ReducedTwoLayer` must know its frozen part.

    **Returns:** a `LogBound`, minus infinity on the invariant set.

    **Raises:** `ValueError` as `growth_bound` does, and for a model that lacks its frozen part.

    **Notes:** at t = infinity it bounds `||Theta(inf) - Theta_hat||_F`; Theorem 12 is this with Lemma 11 put in.

    **Source:** M22 Proposition 9 and the proof of Theorem 12.
    """
    path, applies = _path_length(model, problem, ts)
    return LogBound(_log_bound(path, 1, norm(coupling(model, problem))), applies)


# -- the scalar network ----------------------------------------------------------------------------------------------


@public
@elementwise
def scalar_rate(
    u: Real[Array, "..."] | float, v: Real[Array, "..."] | float, *, scale: Real[Array, ""] | float = 1.0
) -> Float[Array, "..."]:
    """`-L'/L` of the network u v: `2q (u^2 + v^2) = 2q sqrt(D^2 + 4 (u v)^2)`, D = u^2 - v^2.

    **Args:** `u`, `v`, weights; `scale`, q.

    **Returns:** the rate, which does not depend on the target.

    **Source:** M22 (14).
    """
    return jnp.asarray(scale * 2 * (jnp.square(u) + jnp.square(v)))


@public
@elementwise
def scalar_rate_bound(
    u: Real[Array, "..."] | float,
    v: Real[Array, "..."] | float,
    y: Real[Array, "..."] | float,
    *,
    scale: Real[Array, ""] | float = 1.0,
) -> Bound:
    """Lower bound on the rate of the network u v at every later time; it needs no hypothesis.

    `2q sqrt(D^2 + 4 [|y| - |y - u v|]_+^2)`.

    **Args:** `u`, `v`, weights at the start; `y`, target; `scale`, q.

    **Returns:** a `Bound`.

    **Source:** M22 (15).
    """
    u, v, y = (_checks.as_float(value, name) for value, name in ((u, "u"), (v, "v"), (y, "y")))
    D = (u - v) * (u + v)
    # |y| - |y - u v| without its cancellation where u v is much smaller than y.
    total = jnp.abs(y) + jnp.abs(y - u * v)
    kept = jnp.maximum(u * v * ratio(2 * y - u * v, jnp.where(total == 0, 1, total)), 0)
    value = 2 * scale * hypot(jnp.abs(D), 2 * kept)
    return Bound(value, jnp.isfinite(value))


# -- pieces ----------------------------------------------------------------------------------------------------------


def _always(value: Array) -> Bound:
    return Bound(value, jnp.isfinite(value))


def _layer_bounds(edges: SpectrumEdges, sigma_m: Array, sigma_r: Array) -> tuple[Array, Array]:
    """Lemma 8, with sigma_m and sigma_r those of the product or of what stands for it."""
    first = _half_gap(edges.negative_max, edges.positive_min, sigma_r)
    second = _half_gap(edges.positive_max, edges.negative_min, sigma_m)
    return first, second


def _half_gap(x: Array, y: Array, sigma: Array) -> Array:
    """(-x + y + sqrt((x + y)^2 + 4 sigma^2))/2 for x, y, sigma >= 0, as a sum of nonnegative terms.

    The square root's excess over x is `(y (2x + y) + 4 sigma^2)/(x + root)`.
    """
    root = hypot(x + y, 2 * sigma)
    total = x + root
    safe = jnp.where(total == 0, 1, total)
    return (y + y * ((2 * x + y) / safe) + 2 * sigma * (2 * sigma / safe)) / 2


def _product_edges(model: Model, problem: LeastSquares) -> tuple[Array, Array]:
    """sigma_m and sigma_r of U1 V^T."""
    U1, V = moving_layers(model, problem)
    values = jnp.linalg.svd(U1 @ V.T, compute_uv=False)
    # Beyond the width the product has no singular values; round-off, also that of padding columns, must not count as one.
    sigma_m, sigma_r = (
        jnp.where(model.width < index, 0, singular_value(values, index)) for index in (V.shape[0], U1.shape[0])
    )
    return sigma_m, sigma_r


def _target_and_error(model: Model, problem: LeastSquares) -> tuple[Array, Array, Array]:
    """Singular values of the data, those of Ytil, and ||E||_F."""
    U1, V = moving_layers(model, problem)
    error = norm(problem.error(U1 @ V.T))
    return problem.singular_values, jnp.linalg.svd(problem.Ytil, compute_uv=False), error


def _constant_now(model: Model, problem: LeastSquares) -> Array:
    """c at this state. What is kept of the target cannot exceed the product itself, and must not by round-off either."""
    s, target, error = _target_and_error(model, problem)
    return _constant(spectrum_edges(model, problem), problem, target, error, s, _product_edges(model, problem))


def _constant(edges: SpectrumEdges, problem: LeastSquares, target: Array, error: Array, s: Array, most=None) -> Array:
    kept = [
        jnp.maximum(singular_value(target, index) - error, 0) / s[0] for index in (problem.num_outputs, problem.rank)
    ]
    if most is not None:
        kept = [jnp.minimum(value, product) for value, product in zip(kept, most, strict=True)]
    first, second = _layer_bounds(edges, *kept)
    return 2 * (first + second)


def _path_length(model: Model, problem: LeastSquares, ts) -> tuple[Array, Array]:
    """Bound on the time integral of `q lambda_1^{1/2} ||E||`, and whether c(0) > 0."""
    require_plain_flow(problem)
    ts = _times(ts)
    s, _, error = _target_and_error(model, problem)
    constant = _constant_now(model, problem)
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


def _times(ts) -> Array:
    ts = _checks.as_float(ts, "ts")
    if not _checks.is_traced(ts) and not np.all(np.asarray(ts) >= 0):
        raise ValueError("Argument `ts` must hold times since the start, none of them negative.")
    return ts


def _log_bound(exponent: Array, power: int, size: Array) -> Array:
    """Logarithm of `e^exponent size^power`: minus infinity, with derivative zero, at size 0, which no exponent moves."""
    absent = size == 0
    return jnp.where(absent, -jnp.inf, exponent + power * jnp.log(jnp.where(absent, 1, size)))
