r"""Where the flow rests between two jumps, and whether that is the best fit of its rank (G19 Corollary 2)."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .. import _checks
from .._finite import of_finite_numbers, of_finite_state
from .._modes import mode_round_off
from .._public import public
from .._statement import Statement
from ..exact._common import as_floats, check_not_negative, check_vector, ratio
from ..exact.aligned import gain_round_off
from ..problems import LeastSquares
from ._numerics import quotient
from .modes import data_modes
from .regression import rank_number, reduced_rank_regression


@public
@of_finite_numbers
def corollary2_condition(sigma: Real[ArrayLike, " p"], lam: Real[ArrayLike, " p"]) -> Bool[Array, " p"]:
    r"""For each k = 1, ..., p, whether the plateau of k modes is the reduced-rank regression of that rank.

    `min_{i <= k} sigma_i^2/lambda_i >= max_{i > k} sigma_i^2/lambda_i`, i in descending order of sigma.

    **Args:** `sigma`, descending and at least 0, and `lam` > 0, shape (p,).

    **Returns:** shape (p,), entry k - 1 for rank k; the last is always true.

    **Raises:** `ValueError` for shapes that differ, a negative sigma, or a sigma that does not descend.

    **Notes:** an autoencoder has sigma = lambda and fulfils it for every k, and so do whitened inputs. Values of
    sigma^2/lambda that agree to round-off count as equal.

    **Source:** G19 Corollary 2, the hypothesis that it needs.

    Example:

        >>> sigma = np.array([2.0, 1.0])
        >>> ld.theory.corollary2_condition(sigma, np.array([1.0, 1.0])).tolist()
        [True, True]
        >>> ld.theory.corollary2_condition(sigma, np.array([8.0, 0.5])).tolist()
        [False, True]
    """
    sigma, lam = components(sigma, lam)
    gain = sigma * (sigma / lam)
    least = jax.lax.cummin(gain)
    most = jnp.concatenate([jax.lax.cummax(gain[::-1])[::-1][1:], jnp.full(1, -jnp.inf, gain.dtype)])
    return least >= most - gain_round_off(gain)


@public
@of_finite_state
def corollary2(problem: LeastSquares, k: Int[ArrayLike, ""], *, rtol: float | None = None) -> Statement:
    r"""The plateau between the jumps k and k + 1 of the flow, and whether it is the best fit of rank k.

    `sum_{i <= k} (sigma_i/lambda_i) phi_i psi_i^T`. Hypotheses: the modes decouple, and `corollary2_condition` at k.

    **Args:** `problem`; `k`, from 0 to min(r, m), may be traced; `rtol`, as in `data_modes`.

    **Returns:** a `Statement` on the plateau, shape (n, m); `excess_loss`, L - L* on it; `best`, the least excess loss of
    rank k; `applies`, whether the two are the same.

    **Raises:** as `reduced_rank_regression`.

    **Notes:** without the hypothesis the flow from a vanishing aligned start still rests here, at a loss above the best one,
    see `plateau_tilt` for what becomes of other starts. Derivatives as for `data_modes`.

    **Source:** G19 Corollary 2, with the hypothesis that it needs.

    Example:

        >>> root = np.sqrt(np.array([8.0, 0.5]))
        >>> problem = ld.LeastSquares(np.diag(root), np.diag(np.array([2.0, 1.0]) / root))
        >>> found = ld.theory.corollary2(problem, 1)
        >>> float(found.excess_loss), float(found.best), bool(found.applies)
        (1.0, 0.25, False)
    """
    modes = data_modes(problem, rtol=rtol)
    k = rank_number(k, modes.sigma.shape[0])
    height = _heights(problem, modes) * (jnp.arange(modes.sigma.shape[0]) < k)
    value = (modes.Phi * height) @ modes.Psi.T
    best = reduced_rank_regression(problem, k)
    # In units of the size of what there is to learn, so that ties count as fulfilled.
    gain: Array = modes.sigma * quotient(modes.sigma, modes.lam)
    inside = jnp.arange(gain.shape[0]) < k
    slack = mode_round_off(problem) * jnp.max(gain)
    ordered = jnp.min(jnp.where(inside, gain, jnp.inf)) >= jnp.max(jnp.where(inside, -jnp.inf, gain)) - slack
    excess_loss = problem.excess_loss(problem.to_data(value))
    return Statement(value, modes.applies & ordered, excess_loss=excess_loss, best=best.excess_loss)


def _heights(problem: LeastSquares, modes: Statement) -> Float[Array, " p"]:
    there = (modes.sigma > mode_round_off(problem) * modes.sigma[0]) & (modes.lam > 0)
    return jnp.where(there, ratio(modes.sigma, jnp.where(there, modes.lam, 1)), 0)


def components(sigma: ArrayLike, lam: ArrayLike) -> tuple[Array, Array]:
    sigma, lam = as_floats(sigma=sigma, lam=lam)
    check_vector(sigma, "sigma", "p")
    if sigma.shape != lam.shape:
        raise ValueError(
            f"Arguments `sigma` and `lam` must have the same shape (p,), but have {sigma.shape} and {lam.shape}."
        )
    check_not_negative(sigma=sigma)
    _checks.check_positive(lam, "lam")
    if not _checks.is_traced(sigma) and np.any(np.diff(np.asarray(sigma)) > 0):
        raise ValueError(f"Argument `sigma` must descend, but is {sigma}: sort the components by it.")
    return sigma, lam
