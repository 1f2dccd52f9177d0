r"""How far the flow of a wide network ends from the minimum-norm solution: its law, its size, and where it is zero."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Key, Real

from .. import _checks
from .._finite import of_finite_state
from .._norms import all_finite
from .._public import public
from .._roots import gram_roots
from .._statement import Statement
from ..models import AbstractModel
from ..problems import AbstractProblem, LeastSquares
from ._numerics import hypot, norm
from .concentration import refuse_link
from .imbalance import coupling, moving_layers


class ConditionalDistance(NamedTuple):
    """The law of the distance over U2(0), once V(inf) is known: a weighted sum of independent chi-squares.

    `||Theta(inf) - Theta_hat||_F^2 = sum_j weights_j chi^2_{degrees}`.

    **Fields:** `weights`, `h^{-2 alpha} sigma_j(V(inf))^2`; `degrees`, n - r; `mean_square` and `variance_square`, mean and
    variance of the squared distance.

    Example:

        >>> problem = ld.LeastSquares(np.eye(2, 4), np.eye(2))
        >>> law = ld.theory.conditional_distance(problem, np.eye(2), 100.0, 0.5)
        >>> law.weights.tolist(), float(law.degrees), float(law.mean_square), float(law.variance_square)
        ([0.01, 0.01], 2.0, 0.04, 0.0008)
    """

    weights: Float[Array, " l"]
    degrees: Float[Array, ""]
    mean_square: Float[Array, ""]
    variance_square: Float[Array, ""]


@public
def sharp_distance(problem: LeastSquares, h: Real[ArrayLike, "..."], alpha: Real[ArrayLike, "..."]) -> Statement:
    r"""Root mean square distance of the flow's limit from the minimum-norm solution, in the wide limit.

    `rms^2 = (n - r) h^{-2 alpha} sum_j sqrt(h^{2 - 4 alpha} + sigma_j(Theta_hat)^2)`, j = 1..m.

    **Args:** `problem`; `h`, width; `alpha`, exponent of the start, of either sign.

    **Returns:** a `Statement` on `rms`; `level`, the imbalance h^{1 - 2 alpha} that the spectrum of D concentrates at;
    `applies`, whether h >= r + m.

    **Raises:** `ValueError` for a concrete width that is not positive, or a problem with a link function or a penalty.

    **Notes:** at large h the spectrum of D concentrates at +-h^{1 - 2 alpha}, and an end point with such a D has
    `V V^T = (h^{2 - 4 alpha} I + Theta_hat^T Theta_hat)^{1/2}`; the frozen rows are independent of it. The relative error
    is 4e-4 at h = 1000 for n = 14, r = 5, m = 2, and 5% at h = 500 for n = 500, r = 100, m = 1. The slope against log h is
    -(2 alpha - 1/2) in the end.

    **Source:** this package; M22 Theorem 12 bounds the same distance.

    Example:

        >>> problem, h = ld.LeastSquares(np.eye(2, 4), np.eye(2)), np.array([1e2, 1e4, 1e6])
        >>> ld.theory.sharp_distance(problem, h, 0.5).rms.tolist()
        [0.2378, 0.02378, 0.002378]
    """
    refuse_link(problem)
    _checks.check_positive(h, "h")
    return _sharp_distance(problem, jnp.asarray(h, problem.dtype), jnp.asarray(alpha, problem.dtype))


@eqx.filter_jit
def _sharp_distance(problem: LeastSquares, h: Array, alpha: Array) -> Statement:
    level = h ** (1 - 2 * alpha)
    sigma = jnp.linalg.svd(problem.reduced_theta_hat, compute_uv=False)
    trace = jnp.sum(hypot(*jnp.broadcast_arrays(level[..., None], sigma)), axis=-1)
    trace = trace + (problem.num_outputs - sigma.shape[0]) * level
    rms = math.sqrt(problem.num_frozen) * h ** (-alpha) * jnp.sqrt(trace)
    applies = jnp.broadcast_to(h >= problem.rank + problem.num_outputs, rms.shape) & jnp.isfinite(rms)
    return Statement(rms, applies, name="rms", level=level)


@public
def wide_gram(problem: LeastSquares, h: Real[ArrayLike, ""], alpha: Real[ArrayLike, ""]) -> Statement:
    r"""The Gram matrix of the second layer at the end of the flow, in the wide limit.

    `V V^T = (h^{2 - 4 alpha} I + Theta_hat^T Theta_hat)^{1/2}`, the end point whose imbalance has the eigenvalues
    `+-h^{1 - 2 alpha}` alone.

    **Args:** `problem`; `h`, width; `alpha`, exponent of the start, of either sign.

    **Returns:** a `Statement`, shape (m, m); `applies`, whether h >= r + m.

    **Raises:** as `sharp_distance`.

    **Notes:** `sharp_distance` is its trace, `rms^2 = (n - r) h^{-2 alpha} tr(V V^T)`. Derivatives exist at repeated singular
    values as well.

    **Source:** this package.

    Example:

        >>> problem = ld.LeastSquares(np.eye(2, 4), np.diag([1.0, 0.0]))
        >>> jnp.diag(ld.theory.wide_gram(problem, 1e4, 0.5).value).tolist()
        [1.414, 1.0]
    """
    refuse_link(problem)
    _checks.check_positive(h, "h")
    h, alpha = jnp.asarray(h, problem.dtype), jnp.asarray(alpha, problem.dtype)
    _, gram = gram_roots(problem.reduced_theta_hat, h ** (1 - 2 * alpha))
    return Statement(gram, (h >= problem.rank + problem.num_outputs) & all_finite(gram))


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

    Example:

        >>> problem = ld.LeastSquares(np.eye(2, 4), np.eye(2))
        >>> law = ld.theory.conditional_distance(problem, np.diag([2.0, 1.0]), 100.0, 0.5)
        >>> float(law.degrees), law.weights.tolist(), float(law.mean_square)
        (2.0, [0.04, 0.01], 0.1)
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

    **Returns:** an array of the given shape; zeros where nothing is frozen.

    **Raises:** `ValueError` for arguments of another kind.

    **Notes:** n - r enters as a number: a million frozen directions cost as much as one.

    **Source:** this package.

    Example:

        >>> problem = ld.LeastSquares(np.eye(2, 4), np.eye(2))
        >>> law = ld.theory.conditional_distance(problem, np.diag([20.0, 10.0]), 100.0, 0.5)
        >>> draws = ld.theory.sample_distance(law, (10_000,), key=jax.random.key(0))
        >>> float(law.mean_square), float(jnp.mean(draws**2))
        (10.0, 10.01)
    """
    frozen = law.degrees != 0
    half = jnp.where(frozen, law.degrees, 1) / 2
    chi_squares = 2 * jax.random.gamma(key, half, (*shape, law.weights.shape[0]), law.weights.dtype)
    square = jnp.sum(law.weights * chi_squares, axis=-1)
    return jnp.where(frozen, jnp.sqrt(square), 0)


@public
@of_finite_state
def invariant_set(model: AbstractModel, problem: AbstractProblem, *, rtol: float | None = None) -> Statement:
    r"""Whether a start lies in the invariant set `V U2^T = 0`, `U1 U2^T = 0`, where the flow ends at Theta_hat.

    **Args:**

    - `model`: a `TwoLayer`, or a reduced one that knows its frozen part.
    - `problem`: the problem it is trained on, of any kind.
    - `rtol`: what counts as zero, relative to `||[U1; V]||_F ||U2||_F`; default 100 times the machine epsilon.

    **Returns:** a `Statement` on the `distance`, `||[U1; V] U2^T||_F`; `applies`, whether it is zero to round-off.

    **Raises:** `ValueError` for a model that does not fit the problem or lacks its frozen part.

    **Notes:** under any loss the flow stays in the set, and `U2 V^T` at zero. `V U2^T = 0` at the start alone is not enough: it
    does not stay so.

    **Source:** M22 Proposition 10, (31).

    Example:

        >>> problem, V = ld.LeastSquares(np.eye(1, 2), np.eye(1)), np.array([[0.5, 0.0]])
        >>> bool(ld.theory.invariant_set(ld.TwoLayer(np.array([[1.0, 0.0], [0.0, 1.0]]), V), problem).applies)
        True
        >>> float(ld.theory.invariant_set(ld.TwoLayer(np.array([[1.0, 0.0], [0.2, 1.0]]), V), problem).distance)
        0.2236
    """
    U1, V = moving_layers(model, problem)
    distance = norm(coupling(model, problem))
    if problem.num_frozen == 0:
        return Statement(distance, True, name="distance")
    if rtol is None:
        rtol = 100 * float(jnp.finfo(V.dtype).eps)
    frozen = model.frozen_rows(problem)[1]
    return Statement(distance, distance <= rtol * norm(jnp.concatenate([U1, V])) * frozen, name="distance")
