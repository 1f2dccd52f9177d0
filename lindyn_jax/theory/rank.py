r"""Learning by rank: the modes of a problem, their order and times, and the best fits of each rank that plateaus may be (G19).

With `Sigma_x = X^T X/N` and `Sigma_xy = X^T Y/N = Phi diag(sigma) Psi^T` the modes of the data are the pairs phi_i, psi_i. Where
Sigma_x is diagonal in Phi as well, `Sigma_x = Phi diag(lambda) Phi^T`, a two-layer network from a vanishing aligned start
learns them one after another, mode i at the time `d/sigma_i`. The statements here take a problem and compute modes and times
in its coordinates, with its loss scale q and output scale c: lambda and sigma are those of `q c^2 X^T X` and `q c X^T Y`.

`exact.aligned` and its companions are the same statements for single components.
"""

import math
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Real

from .. import _checks
from .._finite import of_finite_numbers, of_finite_state
from .._modes import correlation_modes, mode_round_off
from .._public import public
from ..exact._common import as_floats, as_times, check_not_negative, check_vector, ratio
from ..exact.aligned import aligned_step, gain_round_off
from ..models import AbstractModel, SymmetricFactors, TwoLayer
from ..problem import LeastSquares
from ._numerics import norm, quotient


class Modes(NamedTuple):
    """The modes of a problem in the order in which they are learned, p = min(r, m) of them.

    **Fields:**

    - `sigma`: shape (p,), singular values of `q c X^T Y`, descending.
    - `lam`: shape (p,), `phi_i^T (q c^2 X^T X) phi_i`.
    - `Phi`: shape (n, p), and `Psi`, shape (m, p): their directions in the inputs and in the outputs.
    - `coupling`: B, shape (r, r), symmetric, in the coordinates of Phi1: with `q c^2 X^T X - B` in place of `q c^2 X^T X` the
        modes would decouple.
    - `applies`: whether it is, to the tolerance asked for.
    """

    sigma: Float[Array, " p"]
    lam: Float[Array, " p"]
    Phi: Float[Array, "n p"]
    Psi: Float[Array, "m p"]
    coupling: Float[Array, "r r"]
    applies: Bool[Array, ""]


class Order(NamedTuple):
    """When each mode is learned, from `w_i(0) = e^{-2d}`.

    **Fields:** `sigma`, `lam`, as in `Modes`; `height`, sigma/lambda, where each ends; `jump_time`, `1/sigma` in units of d;
    `half_time`, when it is at half its height, at this d; `applies`, whether the modes decouple, each starts below half its
    height, and no two jump together.
    """

    sigma: Float[Array, " p"]
    lam: Float[Array, " p"]
    height: Float[Array, " p"]
    jump_time: Float[Array, " p"]
    half_time: Float[Array, " p"]
    applies: Bool[Array, ""]


class LowRank(NamedTuple):
    """An end-to-end matrix of low rank.

    **Fields:** `value`, shape (n, m); `excess_loss`, L - L* there; `applies`, whether it is the only one.
    """

    value: Float[Array, "n m"]
    excess_loss: Float[Array, ""]
    applies: Bool[Array, ""]


class Plateau(NamedTuple):
    """Where the flow rests after k modes, and the best fit of that rank.

    **Fields:** `value`, shape (n, m), the plateau; `excess_loss`, L - L* on it; `best`, the least excess loss of rank k;
    `applies`, whether plateau and best fit are the same.
    """

    value: Float[Array, "n m"]
    excess_loss: Float[Array, ""]
    best: Float[Array, ""]
    applies: Bool[Array, ""]


class Steps(NamedTuple):
    """A limit of products at several times, and whether its hypotheses hold.

    **Fields:** `value`, shape (T, n, m); `applies`.
    """

    value: Float[Array, "T n m"]
    applies: Bool[Array, ""]


class Norms(NamedTuple):
    """Norms of a limit at several times.

    **Fields:** `squared_frobenius`, `nuclear`, shape (T,); `applies`.
    """

    squared_frobenius: Float[Array, " T"]
    nuclear: Float[Array, " T"]
    applies: Bool[Array, ""]


class Tied(NamedTuple):
    """Whether layers that start equal stay so.

    **Fields:** `difference`, `||U - V||_F/(||U||_F + ||V||_F)`; `commutator`,
    `||[Sigma_x, U U^T]||_F/(2 ||Sigma_x||_F ||U U^T||_F)`; `applies`, whether both are zero to the tolerance asked for and the
    targets are the inputs.
    """

    difference: Float[Array, ""]
    commutator: Float[Array, ""]
    applies: Bool[Array, ""]


# -- modes -----------------------------------------------------------------------------------------------------------------


@public
@of_finite_state
def data_modes(problem: LeastSquares, *, rtol: float | None = None) -> Modes:
    """Modes of the data, and whether they decouple: whether Sigma_x is diagonal in the singular vectors of Sigma_xy.

    **Args:** `problem`; `rtol`: what is left of `q c^2 X^T X` outside the diagonal counts as zero up to `rtol` times its norm, by
    default `1e3 max(n, m)` times the machine epsilon.

    **Returns:** a `Modes`. What Sigma_x does outside the modes does not matter, but what ties that to them does. Modes with
    sigma = 0 count as outside; they are the directions in which Sigma_x is diagonal there, in descending order of lambda.

    **Raises:** `ValueError` for a problem with a link.

    **Notes:** in the data's coordinates `c X^T Y` is `S Ytil`, and no product of data matrices is formed. Modes of equal sigma
    are determined up to a rotation among themselves, and this may hide a basis in which they decouple. Derivatives hold the
    directions of such modes to one another: those of sigma and lam are right where the modes decouple, those of the directions,
    and of products made of them, where the sigma differ.

    **Source:** G19 Assumption 1, (13), and Theorem 1.
    """
    _refuse_link(problem, "data_modes")
    s, q = problem.singular_values, problem.scale
    P, sigma, PsiT = correlation_modes(problem)
    lam = q * jnp.sum((P * s[:, None]) ** 2, axis=0)
    # Sigma_x P - P diag(lam), which ties modes to one another and to directions outside of them, made symmetric.
    known = P * (sigma > mode_round_off(problem) * sigma[0])
    residual = (q * s[:, None] ** 2 * known - known * lam) @ P.T
    coupling = residual + residual.T - known @ (known.T @ residual)
    if rtol is None:
        rtol = 1e3 * max(problem.num_inputs, problem.num_outputs) * float(jnp.finfo(problem.dtype).eps)
    applies = norm(coupling) <= rtol * norm(q * s**2)
    return Modes(sigma, lam, problem.from_data(P), PsiT.T, coupling, applies)


@public
@of_finite_state
def learning_order(problem: LeastSquares, d: Real[ArrayLike, ""], *, rtol: float | None = None) -> Order:
    r"""When each mode is learned: order, jump times and times of half height.

    From the aligned start `w_i(0) = e^{-2d}` (`init.aligned`) the modes are learned in the order of sigma, jumping near
    `d/sigma_i`; mode i is at half its height at `(2d + log(sigma_i/lambda_i - e^{-2d}))/(2 sigma_i)`.

    **Args:** `problem`; `d`, exponent of the start; `rtol`, as in `data_modes`.

    **Returns:** an `Order`; infinite times for modes that are not there, and times of half height as in
    `exact.aligned_half_time` for those that start above it.

    **Raises:** `ValueError` for a problem with a link.

    **Notes:** under descent with step eta the jumps are at `d/log(1 + eta sigma_i)` steps: `theory.jump_steps`.

    **Source:** G19 Theorem 2 and (17), corrected.
    """
    (d,) = as_floats(d=d)
    modes = data_modes(problem, rtol=rtol)
    d, sigma, lam = d.astype(problem.dtype), modes.sigma, modes.lam
    there = (sigma > mode_round_off(problem) * sigma[0]) & (lam > 0)
    safe_sigma, safe_lam = jnp.where(there, sigma, 1), jnp.where(there, lam, 1)
    height = jnp.where(there, ratio(safe_sigma, safe_lam), 0)
    gain = jnp.log(ratio(safe_sigma, safe_lam)) + 2 * d
    below, short = there & (gain >= np.log(2)), there & (gain > 0)
    gain = jnp.where(short, gain, 1)
    half = jnp.where(short, (gain + jnp.log(-jnp.expm1(-gain))) / (2 * safe_sigma), jnp.where(there, 0, jnp.inf))
    separate = jnp.all((sigma[:-1] > sigma[1:]) | ~there[1:])
    applies = modes.applies & jnp.all(below | ~there) & separate
    return Order(sigma, lam, height, jnp.where(there, 1 / safe_sigma, jnp.inf), half, applies)


# -- reduced-rank regression -----------------------------------------------------------------------------------------------


@public
@of_finite_state
def reduced_rank_regression(problem: LeastSquares, k: Int[ArrayLike, ""]) -> LowRank:
    r"""Reduced-rank regression: the Theta of rank k at most with the least loss, and of these the one of least norm.

    `W^{k*} = X^+ Y Psi_k Psi_k^T` with the top k right singular vectors of Ytil, which are the top eigenvectors of
    `Sigma_xy^T Sigma_x^+ Sigma_xy`. What is lost is `(q/2) sum_{i > k} sigma_i(Ytil)^2`. It is the only one if
    `sigma_k(Ytil) > sigma_{k+1}(Ytil)`.

    **Args:** `problem`; `k`, from 0 to min(r, m), may be traced.

    **Returns:** a `LowRank`; from k = rank of Ytil on it is Theta_hat.

    **Raises:** `ValueError` for a problem with a link, or a concrete k out of range.

    **Notes:** derivatives are those of the projector onto the span of Psi_k: they need a gap behind k and no other, and are
    taken as zero across a gap that is not there.

    **Source:** G19 Corollary 2; the closed form is that of Izenman (1975).
    """
    _refuse_link(problem, "reduced_rank_regression")
    k = _rank_number(k, min(problem.rank, problem.num_outputs))
    value = problem.from_data(problem.reduced_theta_hat @ top_projector(problem.Ytil, k))
    strength = jax.lax.stop_gradient(jnp.linalg.svd(problem.Ytil, compute_uv=False))
    index = jnp.arange(strength.shape[0])
    kept = jnp.min(jnp.where(index < k, strength, jnp.inf))
    next_one = jnp.max(jnp.where(index < k, -jnp.inf, strength), initial=0.0)
    nothing_left = next_one <= mode_round_off(problem) * strength[0]
    return LowRank(value, problem.excess_loss(problem.to_data(value)), (kept > next_one) | nothing_left)


@public
def reduced_rank_from_covariances(
    Sigma_x: Float[ArrayLike, "n n"],
    Sigma_xy: Float[ArrayLike, "n m"],
    k: Int[ArrayLike, ""],
    *,
    rank: int | None = None,
) -> LowRank:
    """Reduced-rank regression from covariances alone, `L(Theta) - L* = (1/2) ||Sigma_x^{1/2} (Theta - Sigma_x^+ Sigma_xy)||_F^2`.

    **Args:** `Sigma_x`, symmetric and positive semidefinite; `Sigma_xy`, whose columns lie in its range; `k`, as in
    `reduced_rank_regression`; `rank` of Sigma_x, by default the number of eigenvalues above `n` times the machine epsilon
    times the largest; must be given when it is traced.

    **Returns:** a `LowRank`.

    **Raises:** `ValueError` for shapes that do not fit, a Sigma_x without positive eigenvalues, and as above.

    **Source:** as `reduced_rank_regression`.
    """
    return reduced_rank_regression(covariance_problem(Sigma_x, Sigma_xy, rank=rank), k)


@public
def covariance_problem(
    Sigma_x: Float[ArrayLike, "..."], Sigma_xy: Float[ArrayLike, "..."], *, rank: int | None = None
) -> LeastSquares:
    """A problem with these covariances: `X^T X = Sigma_x`, `X^T Y = Sigma_xy` and q = 1, with r samples and L* = 0.

    Every dynamics sees the data through the covariances alone, so it moves as data of any number of samples would under
    the loss scale 1/N. The part of Sigma_xy outside the range of Sigma_x, which no data have, is left out.

    **Args:** as for `reduced_rank_from_covariances`.

    **Returns:** a `LeastSquares`.

    **Raises:** as `reduced_rank_from_covariances`.

    **Source:** G19 (7).
    """
    Sigma_x, Sigma_xy = (
        _checks.as_matrix(Sigma_x, "Sigma_x", "(n, n)"),
        _checks.as_matrix(Sigma_xy, "Sigma_xy", "(n, m)"),
    )
    n = Sigma_x.shape[0]
    if Sigma_x.shape != (n, n) or Sigma_xy.shape[0] != n:
        raise ValueError(
            f"Arguments `Sigma_x` (n, n) and `Sigma_xy` (n, m) must have the same n, but have shapes {Sigma_x.shape} and "
            f"{Sigma_xy.shape}."
        )
    lam, Phi = jnp.linalg.eigh((Sigma_x + Sigma_x.T) / 2)
    lam, Phi = lam[::-1], Phi[:, ::-1]
    if rank is None:
        if _checks.is_traced(lam):
            raise ValueError("The rank of a traced `Sigma_x` is unknown: pass `rank=`.")
        values = np.asarray(lam)
        rank = int(np.sum(values > n * np.finfo(values.dtype).eps * values[0])) if values[0] > 0 else 0
    if not 1 <= rank <= n:
        raise ValueError(f"Argument `Sigma_x` must have a rank from 1 to n = {n}, but has rank {rank}.")
    root = jnp.sqrt(lam[:rank])
    X, Y = root[:, None] * Phi[:, :rank].T, (Phi[:, :rank].T @ Sigma_xy) / root[:, None]
    return LeastSquares(X, Y, rank=rank)


@public
@of_finite_numbers
def top_projector(A: Float[Array, "r m"], k: Int[Array, ""]) -> Float[Array, "m m"]:
    """Psi_k Psi_k^T, the projector onto the top k right singular vectors of A."""
    return right_projector(A, jnp.arange(min(A.shape)) < k)


@jax.custom_jvp
def right_projector(A: Float[Array, "r m"], chosen: Bool[Array, " c"]) -> Float[Array, "m m"]:
    """The projector onto the chosen right singular vectors of A, whose derivative needs gaps to the others alone."""
    _, _, PsiT = jnp.linalg.svd(A, full_matrices=False)
    kept = PsiT * chosen[:, None]
    return kept.T @ kept


@right_projector.defjvp
def _right_projector_jvp(primals, tangents):
    (A, chosen), (dA, _) = primals, tangents
    m = A.shape[1]
    _, s, PsiT = jnp.linalg.svd(A, full_matrices=True)
    square = jnp.zeros(m, A.dtype).at[: s.shape[0]].set(s**2)
    inside = jnp.zeros(m, bool).at[: s.shape[0]].set(chosen)
    turn = PsiT @ (A.T @ dA) @ PsiT.T
    turn = turn + turn.T
    gap = square[:, None] - square[None, :]
    across = inside[:, None] & ~inside[None, :] & (jnp.abs(gap) > 4 * m * jnp.finfo(A.dtype).eps * square[0])
    half = jnp.where(across, turn / jnp.where(across, gap, 1), 0)
    kept = PsiT * inside[:, None]
    return kept.T @ kept, PsiT.T @ (half + half.T) @ PsiT


# -- plateaus --------------------------------------------------------------------------------------------------------------


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
    """
    sigma, lam = _components(sigma, lam)
    gain = sigma * (sigma / lam)
    least = jax.lax.cummin(gain)
    most = jnp.concatenate([jax.lax.cummax(gain[::-1])[::-1][1:], jnp.full(1, -jnp.inf, gain.dtype)])
    return least >= most - gain_round_off(gain)


@public
@of_finite_state
def corollary2(problem: LeastSquares, k: Int[ArrayLike, ""], *, rtol: float | None = None) -> Plateau:
    r"""The plateau between the jumps k and k + 1 of the flow, and whether it is the best fit of rank k.

    `sum_{i <= k} (sigma_i/lambda_i) phi_i psi_i^T`. Hypotheses: the modes decouple, and `corollary2_condition` at k.

    **Args:** `problem`; `k`, from 0 to min(r, m), may be traced; `rtol`, as in `data_modes`.

    **Returns:** a `Plateau`.

    **Raises:** as `reduced_rank_regression`.

    **Notes:** without the hypothesis the flow from a vanishing aligned start still rests here, at a loss above the best one,
    see `plateau_tilt` for what becomes of other starts. Derivatives as for `data_modes`.

    **Source:** G19 Corollary 2, with the hypothesis that it needs.
    """
    modes = data_modes(problem, rtol=rtol)
    k = _rank_number(k, modes.sigma.shape[0])
    height = _heights(problem, modes) * (jnp.arange(modes.sigma.shape[0]) < k)
    value = (modes.Phi * height) @ modes.Psi.T
    best = reduced_rank_regression(problem, k)
    # In units of the size of what there is to learn, so that ties count as fulfilled.
    gain = modes.sigma * quotient(modes.sigma, modes.lam)
    inside = jnp.arange(gain.shape[0]) < k
    slack = mode_round_off(problem) * jnp.max(gain)
    ordered = jnp.min(jnp.where(inside, gain, jnp.inf)) >= jnp.max(jnp.where(inside, -jnp.inf, gain)) - slack
    return Plateau(value, problem.excess_loss(problem.to_data(value)), best.excess_loss, modes.applies & ordered)


@public
@of_finite_state
def theorem2(problem: LeastSquares, ts: Float[ArrayLike, " T"], *, rtol: float | None = None) -> Steps:
    r"""The limit of `Theta(d t)` as the start vanishes, d -> infinity, at fixed t.

    `sum_i w_i(t) phi_i psi_i^T` with w_i = 0 before `t = 1/sigma_i`, `sigma_i/(lambda_i + sigma_i)` at it, and `sigma_i/lambda_i`
    behind it. Hypothesis: the modes decouple.

    **Args:** `problem`; `ts`, shape (T,), times in units of d; `rtol`, as in `data_modes`.

    **Returns:** a `Steps`.

    **Raises:** `ValueError` for negative times, or a problem with a link.

    **Notes:** from `w(0) = e^{-2d}`; from e^{-d}, as in G19's Figure 1, the times are half of these. Derivatives as for
    `data_modes`.

    **Source:** G19 Theorem 2, with the start that its times belong to.
    """
    modes, w = _steps(problem, ts, rtol)
    return Steps(jnp.einsum("np,tp,mp->tnm", modes.Phi, w, modes.Psi), modes.applies)


@public
@of_finite_state
def corollary1(problem: LeastSquares, ts: Float[ArrayLike, " T"], *, rtol: float | None = None) -> Norms:
    r"""Norms of the limit of `Theta(d t)`: `||Theta||_F^2 = sum_{i: sigma_i t > 1} (sigma_i/lambda_i)^2`, and the nuclear norm.

    The nuclear norm has `sigma_i/lambda_i` for its square. Hypothesis: the modes decouple.

    **Args:** as for `theorem2`.

    **Returns:** a `Norms`.

    **Raises:** as `theorem2`.

    **Source:** G19 Corollary 1: the squared Frobenius norm is meant.
    """
    modes, w = _steps(problem, ts, rtol)
    return Norms(jnp.sum(w**2, axis=1), jnp.sum(w, axis=1), modes.applies)


# -- principal components --------------------------------------------------------------------------------------------------


@public
@of_finite_state
def principal_projector(problem: LeastSquares, k: Int[ArrayLike, ""]) -> LowRank:
    """The projector onto the top k principal components of the inputs, `Phi_k Phi_k^T`.

    It is the reduced-rank regression of an autoencoder, `Y = c X`.

    **Args:** `problem`, whose inputs alone count, not centred here; `k`, from 0 to r, may be traced.

    **Returns:** a `LowRank`; `excess_loss` is that of an autoencoder, `(q/2) c^2 sum_{i > k} s_i^2` with the s_i of X.

    **Raises:** `ValueError` for a concrete k out of range.

    **Source:** G19 section 3.1, (14).
    """
    r = problem.rank
    k = _rank_number(k, r)
    inside = jnp.arange(r) < k
    Phi1 = jnp.eye(r, dtype=problem.dtype) if problem.Phi1 is None else problem.Phi1
    s = problem.singular_values
    kept, lost = jnp.min(jnp.where(inside, s, jnp.inf)), jnp.max(jnp.where(inside, 0, s))
    return LowRank((Phi1 * inside) @ Phi1.T, problem.scale / 2 * jnp.sum(jnp.where(inside, 0, s) ** 2), kept > lost)


@public
@of_finite_state
def tied_autoencoder(model: AbstractModel, problem: LeastSquares, *, rtol: float | None = None) -> Tied:
    r"""Whether a linear autoencoder whose layers start equal keeps them equal, and so learns principal components by tying.

    From U(0) = V(0) the two-layer flow keeps U = V if and only if `U U^T` commutes with Sigma_x, as `e^{-d} I` does: then
    `U' = q X^T X (I - U U^T) U`, every plateau is the projector onto the top principal components, and the flow is that of tied
    layers at half their speed. Hypotheses: Y = c X, U = V, and the commutator vanishes.

    **Args:** `model`, a `TwoLayer`, or a `SymmetricFactors`, which is tied for ever; `problem`; `rtol`, up to which differences
    relative to the weights count as zero, by default `1e3 n` times the machine epsilon.

    **Returns:** a `Tied`.

    **Raises:** `ValueError` for another kind of model, or an autoencoder with n != m.

    **Notes:** at rank n commuting starts that are no multiple of I learn the components in an order of their own.

    **Source:** G19 section 3.1, (14), with the hypothesis that it needs.
    """
    if isinstance(model, SymmetricFactors):
        U, V = model.U, model.U
    elif isinstance(model, TwoLayer):
        U, V = model.U, model.V
    else:
        raise ValueError(f"Argument `model` must be a TwoLayer or a SymmetricFactors, but is a {type(model).__name__}.")
    if problem.X is None or problem.num_inputs != problem.num_outputs or U.shape != V.shape:
        raise ValueError(
            "An autoencoder has inputs X and targets Y = c X of the same size, and layers of the same shape: build the "
            "problem as `LeastSquares(X, X)`."
        )
    if rtol is None:
        rtol = 1e3 * problem.num_inputs * float(jnp.finfo(problem.dtype).eps)
    s, seen = problem.singular_values**2, problem.to_data(U)
    # [Sigma_x, M] has the entries (s_i - s_j) M_ij on the range of X, and s_i times the rows that tie it to the rest.
    inside = (s[:, None] - s[None, :]) * (seen @ seen.T)
    outside = s[:, None] * (seen @ (U - problem.from_data(seen)).T)
    commutator = quotient(norm(inside, math.sqrt(2) * outside), 2 * norm(s) * norm(U.T @ U))
    difference = quotient(norm(U - V), norm(U) + norm(V))
    same = norm(problem.Y - problem.output_scale * problem.X) <= rtol * norm(problem.Y)
    return Tied(difference, commutator, same & (difference <= rtol) & (commutator <= rtol))


# -- pieces ----------------------------------------------------------------------------------------------------------------


def _steps(problem: LeastSquares, ts, rtol) -> tuple[Modes, Array]:
    ts = as_times(ts, problem.dtype)
    modes = data_modes(problem, rtol=rtol)
    there = modes.sigma > mode_round_off(problem) * modes.sigma[0]
    # In units of sigma_1, so that what counts as zero there does not depend on those of the data.
    unit = jnp.where(modes.sigma[0] > 0, modes.sigma[0], 1)
    w = aligned_step(jnp.where(there, modes.sigma / unit, 0), modes.lam / unit, unit * ts[:, None]).value
    return modes, w


def _heights(problem: LeastSquares, modes: Modes) -> Float[Array, " p"]:
    there = (modes.sigma > mode_round_off(problem) * modes.sigma[0]) & (modes.lam > 0)
    return jnp.where(there, ratio(modes.sigma, jnp.where(there, modes.lam, 1)), 0)


def _components(sigma: ArrayLike, lam: ArrayLike) -> tuple[Array, Array]:
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


def _rank_number(k: Int[ArrayLike, ""], most: int) -> Int[Array, ""]:
    if not _checks.is_traced(k):
        number = operator.index(np.asarray(k).item())
        if not 0 <= number <= most:
            raise ValueError(f"Argument `k` must lie between 0 and {most}, the largest rank there is, but is {number}.")
    return jnp.asarray(k)


def _refuse_link(problem: LeastSquares, name: str) -> None:
    if problem.link is not None:
        raise ValueError(f"`{name}` is about least squares, but the problem has a link function: leave out `link`.")
