r"""What becomes of sequential learning when Sigma_x is not quite diagonal in the modes of Sigma_xy (G19, its Assumption 1).

`Sigma_x = Phi (diag(lambda) + B) Phi^T` with `||B|| <= eps`, B with zero diagonal: the closed form belongs to B = 0, and the flow
stays within `eps e^{ct}` of it. Every problem can be read in this way, with B what `data_modes` calls its coupling. How small eps
must be is another matter: at a plateau whose modes are not the best of their number the flow tilts away from it at a rate
of its own, so that eps has to vanish with the start.

lambda and sigma are those of `q c^2 X^T X` and `q c X^T Y`, as in `theory.data_modes`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .. import _checks
from .._finite import of_finite_numbers, of_finite_state
from .._linalg import round_off
from .._public import public
from .._statement import Statement
from ..exact._common import as_floats, as_times, check_not_negative
from ..exact.aligned import aligned, gain_round_off
from ..models import TwoLayer
from ..problems import LeastSquares
from ._numerics import hypot, norm, quotient
from .imbalance import moving_layers
from .modes import data_modes
from .plateaus import components
from .regression import covariance_problem, rank_number


class Tilt(NamedTuple):
    """How fast the modes that are learned tilt towards those that are not.

    **Fields:** `rates`, shape (p, p): of learned mode i (row) towards mode j (column), minus infinity for other pairs; `rate`,
    the largest; `unstable`, whether it is positive beyond round-off: whether `sigma_j^2/lambda_j > sigma_i^2/lambda_i` for
    some such pair.

    Example:

        >>> tilt = ld.theory.plateau_tilt(np.array([2.0, 1.0]), np.array([8.0, 0.5]), 1)
        >>> tilt.rates.tolist(), float(tilt.rate), bool(tilt.unstable)
        ([[-inf, 0.3082], [-inf, -inf]], 0.3082, True)
    """

    rates: Float[Array, "p p"]
    rate: Float[Array, ""]
    unstable: Bool[Array, ""]


@public
def decoupled_problem(problem: LeastSquares) -> LeastSquares:
    r"""The problem with `Sigma_x` replaced by its part that is diagonal in the modes: eps = 0.

    `Phi diag(lambda) Phi^T` on the modes, and what Sigma_x is outside of them; the same Sigma_xy, so the same modes.

    **Args:** `problem`.

    **Returns:** a `LeastSquares` with r samples and q = 1.

    **Raises:** `ValueError` for a problem with a link.

    **Source:** G19 Assumption 1, (13).

    Example:

        >>> problem = ld.LeastSquares(np.array([[2.0, 0.1], [0.0, 1.0]]), np.diag([1.0, 3.0]))
        >>> decoupled = ld.theory.decoupled_problem(problem)
        >>> [bool(ld.theory.data_modes(each).applies) for each in (problem, decoupled)]
        [False, True]
        >>> [ld.theory.data_modes(each).sigma.tolist() for each in (problem, decoupled)]
        [[3.003, 1.998], [3.003, 1.998]]
    """
    modes = data_modes(problem)
    Sigma_x = problem.scale * jnp.diag(problem.singular_values**2) - modes.coupling
    lift = problem.from_data
    full = lift(lift(Sigma_x).T).T
    Sigma_xy = (modes.Phi * modes.sigma) @ modes.Psi.T
    return covariance_problem(full, Sigma_xy, rank=problem.rank)


@public
@of_finite_state
def aligned_layers(model: TwoLayer, problem: LeastSquares, ts: Real[ArrayLike, " T"]) -> Statement:
    r"""The layers of the closed form at eps = 0, at several times, from a start that is aligned with the modes.

    `phi_i^T U(t) = g_i phi_i^T U(0)`, `psi_i^T V(t) = g_i psi_i^T V(0)` with `g_i^2 = w_i(t)/w_i(0)` and
    `w_i = exact.aligned(sigma_i, lambda_i, d_i, t)`; what the layers have outside of the modes stays. Modes that the targets
    do not have, sigma_i = 0, fall: `w_i = e^{-2d}/(1 + 2 e^{-2d} lambda_i t)`.

    Hypothesis, on the start alone: `phi_i^T U(0) = psi_i^T V(0)`, and these rows are orthogonal, as `init.aligned` makes them.
    The closed form is the flow of `problem` itself where its modes decouple (`data_modes`), and else that of
    `decoupled_problem`.

    **Args:** `model`, a `TwoLayer`, each of whose modes has begun, w_i(0) > 0, or is zero to round-off in both layers and
    stays so, as those beyond the width do; `problem`; `ts`, shape (T,), times.

    **Returns:** a `Statement` on the networks: a `TwoLayer` of layers with an axis of times in front, (T, n, h) and (T, m,
    h), as `keep_models` has them; `applies`, whether the start is aligned.

    **Raises:** `ValueError` for shapes that do not fit, another kind of model, negative times, or a problem with a link.

    **Source:** G19 Theorem 1, (15) and (16).

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> start, ts = ld.init.aligned(problem, np.array([3.0, 3.0]), 2), np.array([0.0, 1.5, 3.0])
        >>> found = ld.theory.aligned_layers(start, problem, ts)
        >>> bool(found.applies), jax.vmap(lambda model: jnp.diag(model.product()))(found.value).tolist()
        (True, [[0.002479, 0.002479], [0.6672, 0.04754], [1.99, 0.5006]])
    """
    moving_layers(model, problem)
    modes = data_modes(problem)
    ts = as_times(ts, problem.dtype)
    rows_U, rows_V = modes.Phi.T @ model.U, modes.Psi.T @ model.V
    w0 = jnp.sum(rows_U * rows_V, axis=1)
    # Round-off of the projection onto a mode is no start: the closed form would let it grow.
    both = jax.vmap(norm)(rows_U, rows_V)
    absent = both <= round_off(modes.Phi) * norm(both)
    begun = (w0 > 0) & ~absent
    d = -jnp.log(jnp.where(begun, w0, 1)) / 2
    growth = jnp.sqrt(aligned(modes.sigma, modes.lam, d, ts[:, None])) * jnp.exp(d) - 1
    change = jnp.where(begun, growth, 0)[:, :, None]
    U = model.U + jnp.einsum("np,tph->tnh", modes.Phi, change * rows_U)
    V = model.V + jnp.einsum("mp,tph->tmh", modes.Psi, change * rows_V)
    # Whatever is not of the form diag(e^{-d}) O, relative to it.
    gram = rows_U @ rows_V.T
    size = norm(rows_U)
    error = hypot(norm(rows_U - rows_V), quotient(norm(gram - jnp.diag(w0)), norm(w0)) * size)
    applies = jnp.all(begun | absent) & (error <= 100 * round_off(modes.Phi) * size)
    return Statement(jax.vmap(TwoLayer)(U, V), applies)


@public
@of_finite_state
def perturbation_bound(problem: LeastSquares, d: Real[ArrayLike, ""], ts: Real[ArrayLike, " T"]) -> Statement:
    r"""How far the layers can be from the closed form: `eps C (e^{ct} - 1)/c`, to first order in eps.

    On the way the curvature of the loss is nowhere below minus the spectral norm of `Sigma_xy - Sigma_x Theta`, at most
    `c = sigma_1`, and the forces of the two problems differ by at most `eps C`, `C^2 = 2 sum_i max(sigma_i/lambda_i, e^{-2d})^3`.

    **Args:** `problem`; `d`, exponent of the start; `ts`, shape (T,), times.

    **Returns:** a `Statement`, shape (T,), at least `||(U, V)(t) - (U, V)^0(t)||_F`; `rate`, c; `eps`, the spectral norm of
    B; `applies`, whether the bound is below a tenth of the weights, so that the second order does not matter.

    **Raises:** `ValueError` for negative times, or a problem with a link.

    **Notes:** true in the limit eps -> 0 at fixed t, with corrections of order eps^2; it is the shape of the statement with
    numbers for its constants, not a bound for every eps. Grows like `e^{d}` until the first jump, at `d/sigma_1`: for a
    vanishing start eps has to vanish faster.

    **Source:** G19 Theorem 1, whose constant c is not given.

    Example:

        >>> problem = ld.LeastSquares(np.array([[2.0, 1e-4], [0.0, 1.0]]), np.diag([1.0, 3.0]))
        >>> found = ld.theory.perturbation_bound(problem, 3.0, np.array([0.5, 1.0]))
        >>> float(found.eps), float(found.rate), found.value.tolist()
        (0.00032, 3.0, [0.002735, 0.01499])
    """
    (d,) = as_floats(d=d)
    modes = data_modes(problem)
    ts = as_times(ts, problem.dtype)
    d = d.astype(ts.dtype)
    height = quotient(modes.sigma, modes.lam)
    highest = jnp.maximum(height, jnp.exp(-2 * d))
    eps, rate = jnp.linalg.norm(modes.coupling, ord=2), jnp.asarray(modes.sigma[0])
    # (e^{ct} - 1)/c is t at c = 0: without targets nothing grows.
    still = rate == 0
    growth = jnp.where(still, ts, jnp.expm1(rate * ts) / jnp.where(still, 1, rate))
    value = eps * jnp.sqrt(2 * jnp.sum(highest**3)) * growth
    weights = jnp.sqrt(2 * jnp.sum(aligned(modes.sigma, modes.lam, d, ts[:, None]), axis=1))
    return Statement(value, value <= 0.1 * weights, rate=rate, eps=eps)


@public
@of_finite_numbers
def tilt_matrix(
    sigma_i: Real[ArrayLike, ""], lam_i: Real[ArrayLike, ""], sigma_j: Real[ArrayLike, ""], lam_j: Real[ArrayLike, ""]
) -> Float[Array, "2 2"]:
    r"""How the tilt of a learned mode i towards an unlearned mode j moves.

    `[[-lambda_j sigma_i/lambda_i, sigma_j], [sigma_j, -sigma_i]]` acts on the pair of small weights, of input j and of output
    j, on the hidden unit that mode i uses. Its determinant has the sign of `sigma_i^2/lambda_i - sigma_j^2/lambda_j`.

    **Args:** `sigma_i`, `lam_i` > 0 of the learned mode; `sigma_j`, `lam_j` of the other.

    **Returns:** shape (2, 2), symmetric.

    **Raises:** `ValueError` for a `lam_i` that is not positive, a negative `lam_j`, and infinite or NaN arguments, where known.

    **Source:** the flow of G19 (12) linearised at a plateau.

    Example:

        >>> matrix = ld.theory.tilt_matrix(2.0, 8.0, 1.0, 0.5)
        >>> matrix.tolist(), float(jnp.linalg.eigvalsh(matrix)[-1])
        ([[-0.125, 1.0], [1.0, -2.0]], 0.3082)
    """
    sigma_i, lam_i, sigma_j, lam_j = as_floats(sigma_i=sigma_i, lam_i=lam_i, sigma_j=sigma_j, lam_j=lam_j)
    _checks.check_positive(lam_i, "lam_i")
    check_not_negative(lam_j=lam_j)
    return jnp.stack([jnp.stack([-lam_j * sigma_i / lam_i, sigma_j]), jnp.stack([sigma_j, -sigma_i])])


@public
@of_finite_numbers
def plateau_tilt(sigma: Real[ArrayLike, " p"], lam: Real[ArrayLike, " p"], k: Int[ArrayLike, ""]) -> Tilt:
    r"""Whether the plateau of k modes is stable against tilting them, and how fast a tilt grows if it is not.

    The largest eigenvalue of `tilt_matrix` for every learned i <= k and unlearned j > k. Positive, and the plateau unstable,
    if and only if `sigma_j^2/lambda_j > sigma_i^2/lambda_i` for some pair: exactly where Corollary 2 fails.

    **Args:** `sigma`, descending and at least 0, and `lam` > 0, shape (p,); `k`, from 0 to p, may be traced.

    **Returns:** a `Tilt`.

    **Raises:** `ValueError` for shapes that differ, a negative sigma, one that does not descend, or a concrete k out of range.

    **Notes:** a perturbation of size eps grows to `eps e^{rate t}` while the plateau lasts, for a time
    `d (1/sigma_{k+1} - 1/sigma_k)` from the start e^{-2d}. Free hidden units learn mode k + 1 at the rate sigma_{k+1} besides.

    **Source:** the flow of G19 (12) linearised at a plateau.

    Example:

        >>> sigma, lam = np.array([2.0, 1.0]), np.array([8.0, 0.5])
        >>> float(ld.theory.plateau_tilt(sigma, lam, 1).rate), ld.theory.corollary2_condition(sigma, lam).tolist()
        (0.3082, [False, True])
        >>> float(ld.theory.plateau_tilt(sigma, sigma, 1).rate), ld.theory.corollary2_condition(sigma, sigma).tolist()
        (-0.382, [True, True])
    """
    sigma, lam = components(sigma, lam)
    p = sigma.shape[0]
    k = rank_number(k, p)
    a = -lam[None, :] * (sigma / lam)[:, None]
    b = -sigma[:, None]
    coupling = jnp.broadcast_to(sigma[None, :], (p, p))
    # The larger root of x^2 - (a + b) x + ab - coupling^2, of which a + b is never positive: the conjugate form.
    determinant = (lam[None, :] * (sigma**2 / lam)[:, None]) - coupling**2
    half = -(a + b) / 2
    rates = quotient(-determinant, half + hypot((a - b) / 2, coupling))
    index = jnp.arange(p)
    pairs = (index[:, None] < k) & (index[None, :] >= k)
    rates = jnp.where(pairs, rates, -jnp.inf)
    rate = jnp.max(rates, initial=-jnp.inf)
    # By what decides the sign, with the slack of `corollary2_condition`.
    gain = sigma * (sigma / lam)
    return Tilt(rates, rate, jnp.any(pairs & (gain[None, :] - gain[:, None] > gain_round_off(gain))))
