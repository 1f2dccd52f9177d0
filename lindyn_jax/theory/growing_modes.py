"""What a small random start is to the modes of the data: one number each, from which their curves follow."""

import jax.numpy as jnp

from .._finite import of_finite_state
from .._public import public
from .._statement import Statement
from .._svd import thin_svd
from ..exact import aligned_half_time
from ..models import AbstractModel
from ..problems import LeastSquares
from .imbalance import moving_layers

# A start is small if its weights are below this share of the weakest mode's own.
SMALL = 1e-2


@public
@of_finite_state
def growing_modes(model: AbstractModel, problem: LeastSquares) -> Statement:
    r"""Effective strengths of the modes at a small start of two layers: `a_i = ||phi_i^T U1 + psi_i^T V||^2/4`.

    Hypotheses: X^T X = s^2 I on its range, and weights that are small beside those which learn the weakest mode of
    `X^T Y = Phi diag(sigma) Psi^T`. While they are, mode i grows like e^{q sigma_i t} along (u + v)/2 and decays along (u -
    v)/2, so that it is learned as from the aligned start of strength a_i: `exact.aligned(q sigma_i, q s^2, -log(a_i)/2, t)`.

    **Args:** `model`, a network of two layers, reduced or not; `problem`, least squares without a link.

    **Returns:** a `Statement` on the strengths, shape (p,), p = min(r, m), in descending order of sigma, also called
    `strengths`; `half_time`, shape (p,), when each is half learned; `sigma` and `lam`, the q sigma_i and q s^2 of
    `exact.aligned`; `applies`.

    **Raises:** `ValueError` for another network or problem, and a link.

    **Notes:** for a Gaussian start of variance v the a_i have the mean h v/2. Modes of equal sigma are learned together,
    along the eigenvectors of their block of `(Phi^T U1 + Psi^T V)(...)^T/4`: `eigvalsh` of it has their strengths, and
    `strengths` and `half_time` are of its diagonal. Errors are those of modes that overlap in the hidden
    layer, of the order h^{-1/2} for a Gaussian start, and of the size of the start.

    **Source:** this package's own; for balanced starts Saxe, McClelland and Ganguli (2014).

    Example:

        >>> problem = ld.factorization(np.diag([2.0, 1.0]))
        >>> found = ld.theory.growing_modes(ld.TwoLayer(0.01 * np.eye(2), 0.03 * np.eye(2)), problem)
        >>> found.strengths.tolist(), found.half_time.tolist()
        ([0.0004, 0.0004], [2.129, 3.912])
        >>> ld.exact.mode(np.array([2.0, 1.0]), 0.01, 0.03, found.half_time).x.tolist()
        [1.0, 0.5]
    """
    problem.refuse_link("growing_modes")
    s, q = problem.singular_values, problem.scale
    P, sigma, QT = thin_svd(s[:, None] * problem.Ytil)
    U1, V = moving_layers(model, problem)
    strengths = jnp.sum((P.T @ U1 + QT @ V) ** 2, axis=1) / 4
    lam = q * jnp.mean(s**2)
    there = (strengths > 0) & jnp.isfinite(strengths)
    half = aligned_half_time(q * sigma, lam, -jnp.log(jnp.where(there, strengths, 1)) / 2).value
    equal = jnp.max(s) - jnp.min(s) <= 100 * jnp.finfo(s.dtype).eps * jnp.max(s)
    weakest = jnp.min(sigma) / s[-1] ** 2
    small = jnp.maximum(jnp.sum(U1**2) / U1.shape[0], jnp.sum(V**2) / V.shape[0]) <= SMALL * weakest
    more = {"half_time": jnp.where(there, half, jnp.inf), "sigma": q * sigma, "lam": lam}
    return Statement(strengths, equal & small, name="strengths", **more)
