r"""How fast the loss falls at one state: `-L'/(L - L*)`, a quadratic form in the error E, and the operator behind it."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from .. import _checks
from .._finite import elementwise, of_finite_state
from .._linalg import row_factor
from .._public import public
from .._statement import Statement
from .._svd import least_left_vector
from ..exact._common import ratio
from ..models import AbstractModel, chain, chain_gradients
from ..problems import LeastSquares
from ._numerics import hypot, singular_value
from .imbalance import moving_layers


@public
@of_finite_state
def instantaneous_rate(model: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    r"""The rate `-L'/(L - L*)` of the flow at this state, exactly.

    `2q ||J^T S E||_F^2/||E||_F^2` with the derivatives J of `Phi1^T Theta` with respect to the weights; for two layers
    `2q <E, T E>/<E, E> = 2q (||U1^T S E||_F^2 + ||S E V||_F^2)/||E||_F^2`. Where the velocity w' of the weights is no gradient it
    is `2 <S E, J w'>/||E||_F^2`.

    **Args:**

    - `model`: any network, one of your own as well, reduced or not.
    - `problem`: without a link.

    **Returns:** the rate; infinity at E = 0, where the loss is at its minimum and every bound on its rate is true.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Source:** M22 appendix C.

    Example:

        >>> problem, model = ld.factorization(np.eye(1)), ld.TwoLayer(np.eye(1), 0.5 * np.eye(1))
        >>> float(ld.theory.instantaneous_rate(model, problem)), 2 * (1.0**2 + 0.5**2)
        (2.5, 2.5)
    """
    problem.refuse_link("instantaneous_rate")
    s, layers = problem.singular_values[:, None], model.moving_layers(problem)
    weights, rest = eqx.partition(model, model.moving())
    product_of = lambda weights: eqx.combine(weights, rest).reduced_product(problem)  # noqa: E731
    E = problem.error(model.reduced_product(problem) if layers is None else chain(layers))
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(E)))
    solved = size == 0
    # The rate does not depend on the length of E, whose square underflows near the end of training.
    unit = jnp.where(solved, 1, size)
    E = E / unit
    if not model.is_gradient_flow:
        velocity = eqx.filter(model.velocity(problem), model.moving())
        moved = jnp.sum(s * E * jax.jvp(product_of, (weights,), (velocity,))[1]) / (problem.scale * unit)
    else:
        pulled = jax.vjp(product_of, weights)[1](s * E) if layers is None else chain_gradients(layers, s * E)
        moved = sum(jnp.sum(g**2) for g in jax.tree.leaves(pulled))
    return jnp.where(solved, jnp.inf, 2 * problem.scale * moved / jnp.where(solved, 1, jnp.sum(E**2)))


@public
def rate_operator(model: AbstractModel, problem: LeastSquares, E: Float[Array, "r m"]) -> Float[Array, "r m"]:
    """`T E = S U1 U1^T S E + S^2 E V V^T`: the flow moves the error by `E' = -q T E`.

    **Args:** `model`, `problem`; `E`, shape (r, m), any error in the data's coordinates.

    **Returns:** T E, shape (r, m). T is symmetric and positive semidefinite.

    **Raises:** `ValueError` if the model's shapes do not fit the problem.

    **Source:** M22 appendix C.

    Example:

        >>> problem, model = ld.factorization(np.eye(2)), ld.TwoLayer(np.diag([2.0, 1.0]), np.diag([3.0, 1.0]))
        >>> ld.theory.rate_operator(model, problem, jnp.ones((2, 2))).tolist()
        [[13.0, 5.0], [10.0, 2.0]]
    """
    U1, V = moving_layers(model, problem)
    s = problem.singular_values[:, None]
    return s * (U1 @ (U1.T @ (s * E))) + s**2 * ((E @ V) @ V.T)


@public
@of_finite_state
def rate_spectrum(model: AbstractModel, problem: LeastSquares) -> Float[Array, " rm"]:
    """Eigenvalues of the operator T, descending: 2q times the last and the first bound the rate over all errors.

    With `V V^T = P diag(mu) P^T` the operator is the direct sum of `S (U1 U1^T + mu_j I) S`, j = 1..m, and the eigenvalues
    are squared singular values of `S [U1, sqrt(mu_j) I]`; for Sigma_x = I they are lambda_i(U1 U1^T) + mu_j.

    **Args:** `model`, `problem`.

    **Returns:** the r m eigenvalues.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Source:** M22 appendix C.

    Example:

        >>> problem, model = ld.factorization(np.eye(2)), ld.TwoLayer(np.diag([2.0, 1.0]), np.diag([3.0, 1.0]))
        >>> ld.theory.rate_spectrum(model, problem).tolist()
        [13.0, 10.0, 5.0, 2.0]
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
    model: AbstractModel, problem: LeastSquares, *, size: Real[Array, ""] | float = 1.0
) -> Float[Array, "N m"]:
    """A target Y for which this start is as slow as its weights allow: the error is the least eigenmatrix of T.

    `Y = W (size E_min + S U1 V^T)`, with `T E_min = lambda_min(T) E_min` and `||E_min||_F = 1`.

    **Args:** `model`; `problem`, whose own targets do not matter; `size`, norm of the error at the start.

    **Returns:** Y, shape (N, m): `LeastSquares(X, Y)` with the same scales starts at the rate `2q lambda_min(T)`.

    **Raises:** `ValueError` for a problem with a link, or a model that does not fit it.

    **Notes:** for Sigma_x a multiple of the identity that rate is Lemma 7's bound. Where the least eigenvalue is repeated,
    one of its eigenmatrices is taken, and its derivative among them as zero.

    **Source:** M22 appendix C.

    Example:

        >>> problem, model = ld.factorization(np.eye(2)), ld.TwoLayer(np.diag([2.0, 1.0]), np.diag([3.0, 1.0]))
        >>> hard = ld.factorization(ld.theory.adversarial_target(model, problem))
        >>> float(ld.theory.instantaneous_rate(model, problem)), float(ld.theory.instantaneous_rate(model, hard))
        (26.0, 4.0)
        >>> float(ld.theory.lemma7(model, problem).value)
        4.0
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
    if problem.X is None or problem.Phi1 is None:
        return Ytil
    return (problem.X @ problem.Phi1) @ (Ytil / problem.data_singular_values[:, None])


@public
@elementwise
def scalar_rate(
    u: Real[Array, "..."] | float, v: Real[Array, "..."] | float, *, scale: Real[Array, ""] | float = 1.0
) -> Float[Array, "..."]:
    """`-L'/L` of the network u v: `2q (u^2 + v^2) = 2q sqrt(D^2 + 4 (u v)^2)`, D = u^2 - v^2.

    **Args:** `u`, `v`, weights; `scale`, q.

    **Returns:** the rate, which does not depend on the target.

    **Raises:** `ValueError` for arguments whose shapes do not broadcast together.

    **Source:** M22 (14).

    Example:

        >>> float(ld.theory.scalar_rate(1.0, 0.5))
        2.5
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
) -> Statement:
    """Lower bound on the rate of the network u v at every later time; it needs no hypothesis.

    `2q sqrt(D^2 + 4 [|y| - |y - u v|]_+^2)`.

    **Args:** `u`, `v`, weights at the start; `y`, target; `scale`, q. Shapes broadcast together.

    **Returns:** a `Statement` on the bound.

    **Raises:** `ValueError` for arguments whose shapes do not broadcast together.

    **Source:** M22 (15).

    Example:

        >>> float(ld.theory.scalar_rate(2.0, 1.0)), float(ld.theory.scalar_rate_bound(2.0, 1.0, 1.5).value)
        (10.0, 7.211)
        >>> 2 * float(ld.exact.mode_rate(1.5, 2.0, 1.0).value)
        8.485
    """
    u, v, y = (_checks.as_float(value, name) for value, name in ((u, "u"), (v, "v"), (y, "y")))
    D = (u - v) * (u + v)
    # |y| - |y - u v| without its cancellation where u v is much smaller than y.
    total = jnp.abs(y) + jnp.abs(y - u * v)
    kept = jnp.maximum(u * v * ratio(2 * y - u * v, jnp.where(total == 0, 1, total)), 0)
    value = 2 * scale * hypot(jnp.abs(D), 2 * kept)
    return Statement(value, jnp.isfinite(value))
