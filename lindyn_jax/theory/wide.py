"""The wide limit: how a Gaussian start of width h concentrates, and how far the flow ends from the minimum-norm solution.

A Gaussian start has iid entries N(0, h^{-2 alpha}). Lemma 11 and Theorem 12 of M22 bound what happens with probability
1 - delta; `sharp_distance` and `conditional_distance` say what happens. All of them take the width as a number, which may
be traced, and broadcast over arrays of widths, exponents and probabilities.
"""

import math
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Key, Real

from .. import _checks
from .._finite import of_finite_state
from .._norms import all_finite
from .._public import public
from .._roots import gram_roots
from ..exact._common import Limit
from ..models import Frozen, ReducedTwoLayer, TwoLayer
from ..problem import LeastSquares
from ._numerics import hypot, norm
from .imbalance import coupling, imbalance, moving_layers, require_plain_flow

Constant = Literal["paper", "davidson-szarek"]
Model = TwoLayer | ReducedTwoLayer


class Lemma11(NamedTuple):
    """What Lemma 11 promises of a Gaussian start, and from which width on.

    **Fields:**

    - `level`: (33), Delta is above it.
    - `coupling`: (34), `||[V U2^T; U1 U2^T]||_F` is at most this.
    - `product`: (35), `||U1 V^T||_F` is at most this.
    - `w`, `h0`: the constant in the bounds and the width from which they hold.
    - `h0_level`: a smaller width from which (33) holds with the same probability, by the tail bound of [V; U1] alone.
    - `applies`: whether h > h0.
    """

    level: Float[Array, "..."]
    coupling: Float[Array, "..."]
    product: Float[Array, "..."]
    w: Float[Array, "..."]
    h0: Float[Array, "..."]
    h0_level: Float[Array, "..."]
    applies: Bool[Array, "..."]


class Lemma11Events(NamedTuple):
    """The three events of Lemma 11 for one start.

    **Fields:** `level`, Delta; `coupling`, `||[V U2^T; U1 U2^T]||_F`; `product`, `||U1 V^T||_F`; and whether each is on its
    side of the lemma's bound: `level_is_large` (33), `coupling_is_small` (34), `product_is_small` (35).
    """

    level: Float[Array, ""]
    coupling: Float[Array, ""]
    product: Float[Array, ""]
    level_is_large: Bool[Array, ""]
    coupling_is_small: Bool[Array, ""]
    product_is_small: Bool[Array, ""]


class Theorem12(NamedTuple):
    """The bound of Theorem 12 and its constants; all logarithms are natural.

    **Fields:**

    - `log_bound`: logarithm of the bound on `||Theta(inf) - Theta_hat||_2`.
    - `log_C`, `w`, `h0`: the constants; C itself overflows on ordinary data.
    - `log_width`: logarithm of the width `h0^{1/(4 alpha - 1)}` above which the theorem speaks; infinite for
        alpha <= 1/4.
    - `applies`: whether h is above that width and 1/4 < alpha <= 1/2.
    """

    log_bound: Float[Array, "..."]
    log_C: Float[Array, "..."]
    w: Float[Array, "..."]
    h0: Float[Array, "..."]
    log_width: Float[Array, "..."]
    applies: Bool[Array, "..."]


class SharpDistance(NamedTuple):
    """The distance to the minimum-norm solution in the wide limit.

    **Fields:** `rms`, the root mean square of `||Theta(inf) - Theta_hat||_F` over starts; `level`, the imbalance
    h^{1 - 2 alpha} that the spectrum of D concentrates at; `applies`, whether h >= r + m.
    """

    rms: Float[Array, "..."]
    level: Float[Array, "..."]
    applies: Bool[Array, "..."]


class ConditionalDistance(NamedTuple):
    """The law of the distance over U2(0), once V(inf) is known: a weighted sum of independent chi-squares.

    `||Theta(inf) - Theta_hat||_F^2 = sum_j weights_j chi^2_{degrees}`.

    **Fields:** `weights`, `h^{-2 alpha} sigma_j(V(inf))^2`; `degrees`, n - r; `mean_square` and `variance_square`, mean and
    variance of the squared distance.
    """

    weights: Float[Array, " l"]
    degrees: Float[Array, ""]
    mean_square: Float[Array, ""]
    variance_square: Float[Array, ""]


class NTKRescaling(NamedTuple):
    """A network and its problem in NTK scaling.

    **Fields:** `model`, with weights `h^alpha U`, `h^alpha V`; `problem`, the same loss as a function of them;
    `time_factor`, `h^{2 alpha}`: how much faster the original flow is than the flow of `problem`, and what a step size is
    multiplied by; `prefactor`, `sqrt(m) h^{1/2 - 2 alpha}`, the factor on the NTK-normalized network
    `Util Vtil^T/sqrt(m h)`.
    """

    model: Model
    problem: LeastSquares
    time_factor: Float[Array, ""]
    prefactor: Float[Array, ""]


class InvariantSet(NamedTuple):
    """How far a start is from the set on which the flow ends at the minimum-norm solution.

    **Fields:** `distance`, `||[U1; V] U2^T||_F`; `applies`, whether it is zero to round-off.
    """

    distance: Float[Array, ""]
    applies: Bool[Array, ""]


@public
def lemma11(
    problem: LeastSquares,
    h: Real[ArrayLike, "..."],
    alpha: Real[ArrayLike, "..."],
    delta: Real[ArrayLike, "..."],
    *,
    constant: Constant = "paper",
) -> Lemma11:
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

    **Returns:** a `Lemma11`; where its hypothesis fails, `applies` is false and the numbers are those of the formulas.

    **Raises:** `ValueError` for a concrete delta outside (0, 1) or a concrete width that is not positive.

    **Notes:** scaling all weights scales both sides alike, so the events do not depend on alpha, whose range is a hypothesis of
    Theorem 12 alone. The proof needs the
    Davidson-Szarek constant for delta > 6.7e-4; no failure of the printed one has been seen. (33) concerns [V; U1] only,
    and for it `h0_level = 16 (sqrt(m + r) + sqrt(2 log(2/delta)))^2` is enough.

    **Source:** M22 Lemma 11, (33) to (35).
    """
    h, alpha, delta = _width_exponent_delta(problem, h, alpha, delta)
    r, m = problem.rank, problem.num_outputs
    w = _tail_constant(problem, delta, constant)
    h0 = 16 * w**2
    spread = w * h ** (0.5 - 2 * alpha)
    return Lemma11(
        level=_level(h, alpha),
        coupling=2 * math.sqrt(m + r) * spread,
        product=2 * math.sqrt(m) * spread,
        w=w,
        h0=h0,
        h0_level=16 * (math.sqrt(m + r) + _davidson_szarek(delta)) ** 2,
        applies=(h > h0) & (delta > 0) & (delta < 1) & jnp.isfinite(h * alpha),
    )


@public
@of_finite_state
def lemma11_events(
    model: Model,
    problem: LeastSquares,
    alpha: Real[ArrayLike, ""],
    delta: Real[ArrayLike, ""],
    *,
    constant: Constant = "paper",
) -> Lemma11Events:
    """Whether (33), (34) and (35) hold for one start, and the three numbers they speak of.

    **Args:**

    - `model`: a `TwoLayer`, or a `ReducedTwoLayer` that knows its frozen part; its width is h.
    - `problem`, `alpha`, `delta`, `constant`: as for `lemma11`.

    **Returns:** a `Lemma11Events`.

    **Raises:** `ValueError` as `lemma11` does, and for a model that does not fit the problem or lacks its frozen part.

    **Source:** M22 (33) to (35).
    """
    U1, V = moving_layers(model, problem)
    bounds = lemma11(problem, model.width, alpha, delta, constant=constant)
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
) -> Theorem12:
    r"""Bound on the distance of the flow's limit from the minimum-norm solution, with probability at least 1 - delta.

    Hypotheses: `1/4 < alpha <= 1/2` and `h > h0^{1/(4 alpha - 1)}` with
    `h0 = max(16 w^2, 4 (lambda_1/lambda_r)^2 m w^2)`. Then

    `||Theta(inf) - Theta_hat||_2 <= 2 C^{1/h^{1 - 2 alpha}} sqrt(m + r) w h^{1/2 - 2 alpha}`,
    `C = exp(1 + lambda_1^{1/2} ||Y||_F/lambda_r)`.

    **Args:** as for `lemma11`; here the data and targets of `problem` matter.

    **Returns:** a `Theorem12`, with the bound as a logarithm: C is beyond any float on ordinary data.

    **Raises:** `ValueError` for a concrete delta outside (0, 1), a concrete width that is not positive, or a problem with a
    link function or a penalty.

    **Notes:** the paper prints `lambda_1/lambda_r^3` in h0, which changes with the units of X; the proof gives the ratio
    used here. The limit does not depend on the loss scale, and neither does the bound.

    **Source:** M22 Theorem 12, with h0 corrected.
    """
    _refuse_link(problem)
    require_plain_flow(problem)
    h, alpha, delta = _width_exponent_delta(problem, h, alpha, delta)
    r, m = problem.rank, problem.num_outputs
    s = problem.singular_values
    w = _tail_constant(problem, delta, constant)
    log_C = 1 + s[0] / s[-1] * norm(problem.Y) / s[-1]
    h0 = jnp.maximum(16 * w**2, 4 * m * (problem.condition * w) ** 2)
    log_bound = (
        math.log(2) + log_C / _level(h, alpha) + 0.5 * math.log(m + r) + jnp.log(w) + (0.5 - 2 * alpha) * jnp.log(h)
    )
    above = alpha > 0.25
    log_width = jnp.where(above, jnp.log(h0) / jnp.where(above, 4 * alpha - 1, 1), jnp.inf)
    applies = (jnp.log(h) > log_width) & _exponent_fits(alpha) & (delta > 0) & (delta < 1) & jnp.isfinite(log_bound)
    shape = log_bound.shape
    return Theorem12(log_bound, jnp.broadcast_to(log_C, shape), w, h0, log_width, jnp.broadcast_to(applies, shape))


@public
def sharp_distance(problem: LeastSquares, h: Real[ArrayLike, "..."], alpha: Real[ArrayLike, "..."]) -> SharpDistance:
    r"""Root mean square distance of the flow's limit from the minimum-norm solution, in the wide limit.

    `rms^2 = (n - r) h^{-2 alpha} sum_j sqrt(h^{2 - 4 alpha} + sigma_j(Theta_hat)^2)`, j = 1..m.

    **Args:** `problem`; `h`, width; `alpha`, exponent of the start, of either sign.

    **Returns:** a `SharpDistance`.

    **Raises:** `ValueError` for a concrete width that is not positive, or a problem with a link function or a penalty.

    **Notes:** at large h the spectrum of D concentrates at +-h^{1 - 2 alpha}, and an end point with such a D has
    `V V^T = (h^{2 - 4 alpha} I + Theta_hat^T Theta_hat)^{1/2}`; the frozen rows are independent of it. The relative error
    is 4e-4 at h = 1000 for n = 14, r = 5, m = 2, and 5% at h = 500 for n = 500, r = 100, m = 1. The slope against log h is
    -(2 alpha - 1/2) in the end.

    **Source:** this package; M22 Theorem 12 bounds the same distance.
    """
    _refuse_link(problem)
    require_plain_flow(problem)
    _checks.check_positive(h, "h")
    h, alpha = jnp.asarray(h, problem.dtype), jnp.asarray(alpha, problem.dtype)
    level = _level(h, alpha)
    sigma = jnp.linalg.svd(problem.reduced_theta_hat, compute_uv=False)
    trace = sum(hypot(level, sigma[j]) for j in range(sigma.shape[0]))
    trace = trace + (problem.num_outputs - sigma.shape[0]) * level
    rms = math.sqrt(problem.num_frozen) * h ** (-alpha) * jnp.sqrt(trace)
    applies = jnp.broadcast_to(h >= problem.rank + problem.num_outputs, rms.shape) & jnp.isfinite(rms)
    return SharpDistance(rms, level, applies)


@public
def wide_gram(problem: LeastSquares, h: Real[ArrayLike, ""], alpha: Real[ArrayLike, ""]) -> Limit:
    r"""The Gram matrix of the second layer at the end of the flow, in the wide limit.

    `V V^T = (h^{2 - 4 alpha} I + Theta_hat^T Theta_hat)^{1/2}`, the end point whose imbalance has the eigenvalues
    `+-h^{1 - 2 alpha}` alone.

    **Args:** `problem`; `h`, width; `alpha`, exponent of the start, of either sign.

    **Returns:** a `Limit`, shape (m, m); `applies`, whether h >= r + m.

    **Raises:** as `sharp_distance`.

    **Notes:** `sharp_distance` is its trace, `rms^2 = (n - r) h^{-2 alpha} tr(V V^T)`. Derivatives exist at repeated singular
    values as well.

    **Source:** this package.
    """
    _refuse_link(problem)
    require_plain_flow(problem)
    _checks.check_positive(h, "h")
    h, alpha = jnp.asarray(h, problem.dtype), jnp.asarray(alpha, problem.dtype)
    _, gram = gram_roots(problem.reduced_theta_hat, _level(h, alpha))
    return Limit(gram, (h >= problem.rank + problem.num_outputs) & all_finite(gram))


@public
def conditional_distance(
    problem: LeastSquares,
    V: Float[ArrayLike, "m k"],
    h: Real[ArrayLike, ""],
    alpha: Real[ArrayLike, ""],
) -> ConditionalDistance:
    r"""The exact law of the distance from the minimum-norm solution, given the flow's limit V(inf).

    `||Theta(inf) - Theta_hat||_F^2 = h^{-2 alpha} sum_j sigma_j(V(inf))^2 chi^2_{n - r}`, independent chi-squares.

    **Args:**

    - `problem`: gives n - r.
    - `V`: the second layer at the end of the flow, of the full or of the reduced network.
    - `h`, `alpha`: width and exponent of the Gaussian start.

    **Returns:** a `ConditionalDistance`; `sample_distance` draws from it.

    **Raises:** `ValueError` for a concrete width that is not positive or a V of the wrong shape.

    **Notes:** exact at every width, because U2(0) is Gaussian and independent of the moving rows, which the flow ends with
    `Theta(inf) = Theta_hat + Phi2 U2(0) V(inf)^T`.

    **Source:** this package.
    """
    _checks.check_positive(h, "h")
    V = _checks.as_matrix(V, "V", "(m, k)")
    if V.shape[0] != problem.num_outputs:
        raise ValueError(f"Argument `V` must have {problem.num_outputs} rows, but has {V.shape[0]}.")
    h, alpha = jnp.asarray(h, V.dtype), jnp.asarray(alpha, V.dtype)
    weights = (h ** (-alpha) * jnp.linalg.svd(V, compute_uv=False)) ** 2
    degrees = jnp.asarray(problem.num_frozen, V.dtype)
    return ConditionalDistance(weights, degrees, degrees * jnp.sum(weights), 2 * degrees * jnp.sum(weights**2))


@public
def sample_distance(
    law: ConditionalDistance, shape: tuple[int, ...] = (), *, key: Key[Array, ""]
) -> Float[Array, "..."]:
    """Draws of `||Theta(inf) - Theta_hat||_F` from its conditional law.

    **Args:** `law`, from `conditional_distance`; `shape`, of the result; `key`, a PRNG key.

    **Returns:** an array of the given shape.

    **Notes:** n - r enters as a number: a million frozen directions cost as much as one.

    **Source:** this package.
    """
    frozen = law.degrees != 0
    half = jnp.where(frozen, law.degrees, 1) / 2
    chi_squares = 2 * jax.random.gamma(key, half, (*shape, law.weights.shape[0]), law.weights.dtype)
    square = jnp.sum(law.weights * chi_squares, axis=-1)
    return jnp.where(frozen, jnp.sqrt(square), 0)


@public
def ntk_rescaling(model: Model, problem: LeastSquares, alpha: Real[ArrayLike, ""]) -> NTKRescaling:
    r"""The same training in NTK scaling, `Util = h^alpha U`, `Vtil = h^alpha V`, whose entries are of order one.

    `dUtil/dt = -h^{2 alpha} dLtil/dUtil` with `Ltil(Util, Vtil) = L(U, V)`: the flow of the same loss written in the new
    weights, sped up by h^{2 alpha}.

    **Args:** `model`, a `TwoLayer` or `ReducedTwoLayer`; `problem`; `alpha`, the exponent of its start.

    **Returns:** an `NTKRescaling`.

    **Raises:** `ValueError` if the model's shapes do not fit the problem, or it has a penalty.

    **Source:** M22 appendix D.
    """
    require_plain_flow(problem)
    _, V = moving_layers(model, problem)
    h, alpha = jnp.asarray(model.width, V.dtype), jnp.asarray(alpha, V.dtype)
    factor = h**alpha
    if isinstance(model, TwoLayer):
        rescaled = TwoLayer(factor * model.U, factor * V)
    else:
        frozen = model.frozen
        if frozen is not None:
            frozen = Frozen(factor * frozen.core, factor * frozen.norm, frozen.factor)
        rescaled = ReducedTwoLayer(factor * model.U1, factor * V, model.width, model.num_frozen, frozen)
    time_factor = h ** (2 * alpha)
    same_loss = eqx.tree_at(lambda p: p.output_scale, problem, problem.output_scale / time_factor)
    return NTKRescaling(rescaled, same_loss, time_factor, math.sqrt(problem.num_outputs) * h ** (0.5 - 2 * alpha))


@public
@of_finite_state
def invariant_set(model: Model, problem: LeastSquares, *, rtol: float | None = None) -> InvariantSet:
    r"""Whether a start lies in the invariant set `V U2^T = 0`, `U1 U2^T = 0`, where the flow ends at Theta_hat.

    **Args:**

    - `model`: a `TwoLayer`, or a `ReducedTwoLayer` that knows its frozen part.
    - `problem`: the problem it is trained on.
    - `rtol`: what counts as zero, relative to `||[U1; V]||_F ||U2||_F`; default 100 times the machine epsilon.

    **Returns:** an `InvariantSet`.

    **Raises:** `ValueError` for a model that does not fit the problem or lacks its frozen part.

    **Notes:** `V U2^T = 0` at the start alone is not enough: it does not stay so.

    **Source:** M22 Proposition 10, (31).
    """
    U1, V = moving_layers(model, problem)
    distance = norm(coupling(model, problem))
    if problem.num_frozen == 0:
        return InvariantSet(distance, jnp.asarray(True))
    if rtol is None:
        rtol = 100 * float(jnp.finfo(V.dtype).eps)
    if isinstance(model, TwoLayer):
        size, frozen = norm(model.U), norm(model.U - problem.from_data(U1))
        # A projection leaves round-off of the size of U where U2 is zero.
        frozen = jnp.maximum(frozen, size)
    else:
        frozen = model.frozen.factor * model.frozen.norm
    return InvariantSet(distance, distance <= rtol * norm(jnp.concatenate([U1, V])) * frozen)


def _width_exponent_delta(problem: LeastSquares, h, alpha, delta) -> tuple[Array, Array, Array]:
    _checks.check_positive(h, "h")
    if not _checks.is_traced(delta):
        value = np.asarray(delta)
        if not np.all((value > 0) & (value < 1)):
            raise ValueError(f"Argument `delta` is a probability and must lie between 0 and 1, but is {delta}.")
    h, alpha, delta = (jnp.asarray(value, problem.dtype) for value in (h, alpha, delta))
    return tuple(jnp.broadcast_arrays(h, alpha, delta))


def _tail_constant(problem: LeastSquares, delta: Array, constant: str) -> Array:
    _checks.check_choice(constant, "constant", ("paper", "davidson-szarek"))
    size = math.sqrt(problem.num_outputs + problem.num_inputs)
    return size + (0.5 * jnp.log(2 / delta) if constant == "paper" else _davidson_szarek(delta))


def _davidson_szarek(delta: Array) -> Array:
    return jnp.sqrt(2 * jnp.log(2 / delta))


def _exponent_fits(alpha: Array) -> Array:
    return (alpha > 0.25) & (alpha <= 0.5)


def _level(h: Array, alpha: Array) -> Array:
    return h ** (1 - 2 * alpha)


def _refuse_link(problem: LeastSquares) -> None:
    if problem.link is not None:
        raise ValueError("The statements on the minimum-norm solution are for problems without a link function.")
