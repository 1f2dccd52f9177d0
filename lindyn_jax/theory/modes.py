r"""Learning by rank: the modes of a problem, their order and times, and the best fits of each rank that plateaus may be (G19).

With `Sigma_x = X^T X/N` and `Sigma_xy = X^T Y/N = Phi diag(sigma) Psi^T` the modes of the data are the pairs phi_i, psi_i. Where
Sigma_x is diagonal in Phi as well, `Sigma_x = Phi diag(lambda) Phi^T`, a two-layer network from a vanishing aligned start
learns them one after another, mode i at the time `d/sigma_i`. The statements here take a problem and compute modes and times
in its coordinates, with its loss scale q and output scale c: lambda and sigma are those of `q c^2 X^T X` and `q c X^T Y`.

`exact.aligned` and its companions are the same statements for single components.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Real

from .._finite import of_finite_state
from .._linalg import round_off
from .._modes import correlation_modes, mode_round_off
from .._public import public
from .._statement import Statement
from ..exact._common import as_floats, as_times, ratio
from ..exact.aligned import aligned_step
from ..problems import LeastSquares
from ._numerics import norm
from .regression import refuse_link


@public
@of_finite_state
def data_modes(problem: LeastSquares, *, rtol: float | None = None) -> Statement:
    """Modes of the data, and whether they decouple: whether Sigma_x is diagonal in the singular vectors of Sigma_xy.

    **Args:** `problem`; `rtol`: what is left of `q c^2 X^T X` outside the diagonal counts as zero up to `rtol` times its norm, by
    default `800 sqrt(p)` times the machine epsilon.

    **Returns:** a `Statement` on the modes in the order in which they are learned, p = min(r, m) of them:

    - `sigma`: shape (p,), singular values of `q c X^T Y`, descending.
    - `lam`: shape (p,), `phi_i^T (q c^2 X^T X) phi_i`.
    - `Phi`: shape (n, p), and `Psi`, shape (m, p): their directions in the inputs and in the outputs.
    - `coupling`: B, shape (r, r), symmetric, in the coordinates of Phi1: with `q c^2 X^T X - B` in place of `q c^2 X^T X` the
        modes would decouple.
    - `applies`: whether they do, to the tolerance asked for. What Sigma_x does outside the modes does not matter, but what
        ties that to them does. Modes with sigma = 0 count as outside; they are the directions in which Sigma_x is diagonal
        there, in descending order of lambda.

    **Raises:** `ValueError` for a problem with a link.

    **Notes:** in the data's coordinates `c X^T Y` is `S Ytil`, and no product of data matrices is formed. Modes of equal
    sigma are determined up to a rotation among themselves, and this may hide a basis in which they decouple. Derivatives hold
    the directions of such modes to one another: those of sigma and lam are right where the modes decouple, those of the
    directions, and of products made of them, where the sigma differ.

    **Source:** G19 Assumption 1, (13), and Theorem 1.

    Example:

        >>> modes = ld.theory.data_modes(ld.LeastSquares(np.diag([2.0, 1.0]), np.diag([1.0, 3.0])))
        >>> modes.sigma.tolist(), modes.lam.tolist(), bool(modes.applies)
        ([3.0, 2.0], [1.0, 4.0], True)
    """
    refuse_link(problem, "data_modes")
    s, q = problem.singular_values, problem.scale
    P, sigma, PsiT = correlation_modes(problem)
    lam = q * jnp.sum((P * s[:, None]) ** 2, axis=0)
    # Sigma_x P - P diag(lam), which ties modes to one another and to directions outside of them, made symmetric.
    known = P * (sigma > mode_round_off(problem) * sigma[0])
    residual = (q * s[:, None] ** 2 * known - known * lam) @ P.T
    coupling = residual + residual.T - known @ (known.T @ residual)
    if rtol is None:
        rtol = 100 * round_off(P)
    applies = norm(coupling) <= rtol * norm(q * s**2)
    return Statement(sigma, applies, name="sigma", lam=lam, Phi=problem.from_data(P), Psi=PsiT.T, coupling=coupling)


@public
@of_finite_state
def learning_order(problem: LeastSquares, d: Real[ArrayLike, ""], *, rtol: float | None = None) -> Statement:
    r"""When each mode is learned: order, jump times and times of half height.

    From the aligned start `w_i(0) = e^{-2d}` (`init.aligned`) the modes are learned in the order of sigma, jumping near
    `d/sigma_i`; mode i is at half its height at `(2d + log(sigma_i/lambda_i - e^{-2d}))/(2 sigma_i)`.

    **Args:** `problem`; `d`, exponent of the start; `rtol`, as in `data_modes`.

    **Returns:** a `Statement` on `half_time`, when each mode is at half its height: infinite for modes that are not there,
    and as in `exact.aligned_half_time` for those that start above it. `jump_time`, `1/sigma` in units of d; `height`,
    sigma/lambda, where each ends; `sigma`, `lam`, as in `data_modes`; `applies`, whether the modes decouple, each starts
    below half its height, and no two jump together.

    **Raises:** `ValueError` for a problem with a link.

    **Notes:** under descent with step eta the jumps are at `d/log(1 + eta sigma_i)` steps: `theory.jump_steps`.

    **Source:** G19 Theorem 2 and (17), corrected.

    Example:

        >>> problem = ld.LeastSquares(np.diag([2.0, 1.0]), np.diag([1.0, 3.0]))
        >>> found = ld.theory.learning_order(problem, 5.0)
        >>> found.half_time.tolist(), (5 * found.jump_time).tolist(), found.height.tolist()
        ([1.85, 2.327], [1.667, 2.5], [3.0, 0.5])
    """
    (d,) = as_floats(d=d)
    modes = data_modes(problem, rtol=rtol)
    d, sigma, lam = d.astype(problem.dtype), *_values(modes)
    there = (sigma > mode_round_off(problem) * sigma[0]) & (lam > 0)
    safe_sigma, safe_lam = jnp.where(there, sigma, 1), jnp.where(there, lam, 1)
    height = jnp.where(there, ratio(safe_sigma, safe_lam), 0)
    gain = jnp.log(ratio(safe_sigma, safe_lam)) + 2 * d
    below, short = there & (gain >= float(np.log(2))), there & (gain > 0)
    gain = jnp.where(short, gain, 1)
    half = jnp.where(short, (gain + jnp.log(-jnp.expm1(-gain))) / (2 * safe_sigma), jnp.where(there, 0, jnp.inf))
    separate = jnp.all((sigma[:-1] > sigma[1:]) | ~there[1:])
    applies = modes.applies & jnp.all(below | ~there) & separate
    jump = jnp.where(there, 1 / safe_sigma, jnp.inf)
    return Statement(half, applies, name="half_time", jump_time=jump, height=height, sigma=sigma, lam=lam)


@public
@of_finite_state
def g19_theorem2(problem: LeastSquares, ts: Float[ArrayLike, " T"], *, rtol: float | None = None) -> Statement:
    r"""The limit of `Theta(d t)` as the start vanishes, d -> infinity, at fixed t.

    `sum_i w_i(t) phi_i psi_i^T` with w_i = 0 before `t = 1/sigma_i`, `sigma_i/(lambda_i + sigma_i)` at it, and `sigma_i/lambda_i`
    behind it. Hypothesis: the modes decouple.

    **Args:** `problem`; `ts`, shape (T,), times in units of d; `rtol`, as in `data_modes`.

    **Returns:** a `Statement`, shape (T, n, m).

    **Raises:** `ValueError` for negative times, or a problem with a link.

    **Notes:** from `w(0) = e^{-2d}`; from e^{-d}, as in G19's Figure 1, the times are half of these. Derivatives as for
    `data_modes`.

    **Source:** G19 Theorem 2, with the start that its times belong to.

    Example:

        >>> problem = ld.LeastSquares(np.diag([2.0, 1.0]), np.diag([1.0, 3.0]))
        >>> limit = ld.theory.g19_theorem2(problem, np.array([0.3, 0.4, 0.6])).value
        >>> limit[:, 1, 1].tolist(), limit[:, 0, 0].tolist()
        ([0.0, 3.0, 3.0], [0.0, 0.0, 0.5])
    """
    modes, w = _steps(problem, ts, rtol)
    return Statement(jnp.einsum("np,tp,mp->tnm", modes.Phi, w, modes.Psi), modes.applies)


@public
@of_finite_state
def g19_corollary1(problem: LeastSquares, ts: Float[ArrayLike, " T"], *, rtol: float | None = None) -> Statement:
    r"""Norms of the limit of `Theta(d t)`: `||Theta||_F^2 = sum_{i: sigma_i t > 1} (sigma_i/lambda_i)^2`, and the nuclear norm.

    The nuclear norm has `sigma_i/lambda_i` for its square. Hypothesis: the modes decouple.

    **Args:** as for `g19_theorem2`.

    **Returns:** a `Statement` on `squared_frobenius`, and `nuclear`, shape (T,).

    **Raises:** as `g19_theorem2`.

    **Source:** G19 Corollary 1: the squared Frobenius norm is meant.

    Example:

        >>> problem = ld.LeastSquares(np.diag([2.0, 1.0]), np.diag([1.0, 3.0]))
        >>> found = ld.theory.g19_corollary1(problem, np.array([0.3, 0.4, 0.6]))
        >>> found.squared_frobenius.tolist(), found.nuclear.tolist()
        ([0.0, 9.0, 9.25], [0.0, 3.0, 3.5])
    """
    modes, w = _steps(problem, ts, rtol)
    return Statement(jnp.sum(w**2, axis=1), modes.applies, name="squared_frobenius", nuclear=jnp.sum(w, axis=1))


def _values(modes: Statement) -> tuple[Array, Array]:
    return modes.sigma, modes.lam


def _steps(problem: LeastSquares, ts, rtol) -> tuple[Statement, Array]:
    ts = as_times(ts, problem.dtype)
    modes = data_modes(problem, rtol=rtol)
    sigma, lam = _values(modes)
    there = sigma > mode_round_off(problem) * sigma[0]
    # In units of sigma_1, so that what counts as zero there does not depend on those of the data.
    unit = jnp.where(sigma[0] > 0, sigma[0], 1)
    w = aligned_step(jnp.where(there, sigma / unit, 0), lam / unit, unit * ts[:, None]).value
    return modes, w
