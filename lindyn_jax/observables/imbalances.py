"""The imbalance of neighbouring layers, which the flow conserves."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._linalg import signature_spectrum
from .._norms import norm
from .._public import public
from ..models import AbstractModel
from ..problems import AbstractProblem
from .coordinates import chains, moving, two_layers
from .registry import observable


@observable(
    label="eigenvalues of D, descending",
    symbol=r"$\lambda_i(D)$",
    panel="eigenvalues of the imbalance",
    kinds=two_layers,
    reduced=True,
)
@public
def imbalance_spectrum(model: AbstractModel, problem: AbstractProblem) -> Float[Array, " k"]:
    """The k = min(h, r + m) eigenvalues of D = U1^T U1 - V^T V that can differ from zero, descending.

    **Returns:** shape (k,).

    **Raises:** `ValueError` for other networks than those of two layers.

    **Source:** M22 (16).

    Example:

        >>> problem = ld.factorization(jnp.eye(2))
        >>> model = ld.TwoLayer(jnp.diag(jnp.array([2.0, 1.0])), 0.5 * jnp.eye(2))
        >>> print(ld.observables.imbalance_spectrum(model, problem).round(4))
        [3.75 0.75]
    """
    U1, V = moving(model, problem)
    return signature_spectrum(jnp.concatenate([U1, V]), _signs(U1.shape[0], V.shape[0], U1.dtype))


@observable(
    label="||D - D(0)||_F",
    symbol=r"$\|D - D(0)\|_F$",
    panel="drift of the imbalance",
    log=True,
    needs_start=True,
    kinds=chains,
    reduced=True,
)
@public
def imbalance_drift(model: AbstractModel, problem: AbstractProblem, start: AbstractModel) -> Float[Array, ""]:
    """||D - D(0)||_F, which the flow keeps at zero; `start` is the model at time 0.

    Computed from the rows of both factors, never at size h x h. For deep networks the norm of all the imbalances together,
    `W_l^T W_l - W_{l+1} W_{l+1}^T` with Phi1^T W1 in place of W1: at most of the size of the layers.

    **Raises:** `ValueError` for a network without hidden layers.

    **Source:** M22 (16).

    Example:

        >>> problem = ld.factorization(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
        >>> start = ld.TwoLayer(jnp.eye(2), jnp.zeros((2, 2)))
        >>> flow = ld.gradient_flow(start, problem, [0.0, 0.5])
        >>> bool(ld.observables.imbalance_drift(flow.final, problem, start) < 1e-8)
        True
        >>> step = ld.TwoLayer(jnp.eye(2), 0.1 * problem.Y)  # one of descent, of size 0.1
        >>> float(ld.observables.imbalance_drift(step, problem, start)), 0.1**2 * 82**0.5
        (0.09055, 0.09055)
    """
    parts = []
    layers, before = (x.moving_layers(problem) or () for x in (model, start))
    for i in range(len(layers) - 1):
        rows = [layers[i], layers[i + 1].T, before[i], before[i + 1].T]
        signs = jnp.concatenate([jnp.full(A.shape[0], x, A.dtype) for A, x in zip(rows, (1, -1, -1, 1), strict=True)])
        rest = model.rest_drift(i)
        parts += [norm(_dense_signature(jnp.concatenate(rows), signs)), *([] if rest is None else [rest])]
    return norm(*parts)


def _signs(r: int, m: int, dtype) -> Float[Array, " p"]:
    return jnp.concatenate([jnp.ones(r, dtype), -jnp.ones(m, dtype)])


def _dense_signature(rows: Array, signs: Array) -> Array:
    """A matrix with the Frobenius norm of `rows^T diag(signs) rows`, of the smaller of the two sizes."""
    p, h = rows.shape
    if h <= p:
        return rows.T @ (signs[:, None] * rows)
    R = jnp.linalg.qr(rows.T, mode="r")
    return R @ (signs[:, None] * R.T)
