r"""The largest step of descent on batches that is stable in mean square, at a solution.

Near a solution that fits every sample, a step on a batch moves the error of the outputs' tangent by `w+ = (I - eta H_B) w`,
with a Hessian H_B that is drawn anew each time. The second moment `C = E[w w^T]` moves by
`C - eta (H C + C H) + eta^2 E[H_B C H_B]`, which stays within bounds for steps up to that at which a C stays as it is:
`1/eta` is the largest eigenvalue of `C -> L^{-1} E[H_B C H_B]`, `L C = H C + C H`. For two layers the operator
`M -> U1 U1^T M + M V V^T` splits it into one problem for each singular value b of V, of the matrices `K = U1 U1^T + b^2 I`.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import _checks
from .._finite import of_finite_state
from .._public import public
from .._statement import Statement
from ..models import AbstractModel
from ..problems import LeastSquares
from ..reduction import check_fits
from .eigenvector import largest_eigenvector
from .sharpness import moving_chain
from .stochastic import batch_spread


@public
@of_finite_state
def batch_stable_step(
    model: AbstractModel,
    problem: LeastSquares,
    size: int,
    *,
    replace: bool = False,
    inputs: Literal["samples", "gaussian"] = "samples",
    max_steps: int = 2000,
) -> Statement:
    r"""The largest step at which plain descent on batches is stable in mean square, at a solution of one or two layers.

    - `inputs="samples"`: batches of B of the problem's samples, with or without replacement, as `Minibatch` draws them.
    - `inputs="gaussian"`: fresh Gaussian inputs of the same second moment, as `Online(Teacher.of(problem, B))` draws them.
        With the eigenvalues mu of `q S K S` it is the root of `(eta/B) sum_i mu_i/(2 - eta mu_i (1 + 1/B)) = 1`; a single
        direction of a single input has `eta = 2/(3 mu)`.

    Of all samples at once both are `2/sharpness`. The mean of the weights alone is stable up to there for any B.

    **Args:** `model`, a solution, one or two layers; `problem`; `size`, B; `replace`, as for `Minibatch`; `max_steps`, at most
    this many applications of the operator.

    **Returns:** a `Statement`: `value`, the step; `applies`, whether every sample is fitted, to a thousandth of the targets'
    norm (a single layer needs no hypothesis: its steps are linear); `converged`, whether the iteration's residual is below
    1e-6 (1e-3 in float32); `residual`.

    **Raises:** `ValueError` for a link, a penalty, more than two layers, sizes that do not fit, or a size below 1 or above N
    without replacement.

    **Notes:** `N r^2 m` operations a step of the iteration, on matrices (r, r). To start from, not to run at: away from
    solutions curvatures are others. Differentiable once.

    **Source:** this package's own; for one layer the linear theory of averaged SGD.

    Example:

        >>> problem, model = ld.LeastSquares(2 * np.eye(1), np.eye(1)), ld.LinearModel(0.5 * np.eye(1))
        >>> float(ld.theory.batch_stable_step(model, problem, 1).value), 2 / 4
        (0.5, 0.5)
        >>> float(ld.theory.batch_stable_step(model, problem, 1, inputs="gaussian").value), 2 / (3 * 4)
        (0.1667, 0.1667)
    """
    check_fits(model, problem)
    problem.refuse_link("batch_stable_step")
    _checks.check_choice(inputs, "inputs", ("samples", "gaussian"))
    layers = moving_chain(model, problem)
    if len(layers) > 2:
        raise ValueError(
            f"`batch_stable_step` is for one or two layers, but the model has {len(layers)}: no closed form is known for more."
        )
    s, q, r = problem.singular_values, problem.scale, problem.rank
    K, applies = jnp.eye(r, dtype=s.dtype)[None], jnp.asarray(True)
    if len(layers) == 2:
        U1, V = layers[0], layers[1].T
        b = jnp.maximum(jnp.linalg.eigvalsh(V @ V.T), 0)
        K = U1 @ U1.T + b[:, None, None] * jnp.eye(r, dtype=s.dtype)
        unfitted = jnp.sum(problem.error(U1 @ V.T) ** 2) + (problem.residual if inputs == "samples" else 0)
        applies = unfitted <= 1e-6 * (jnp.sum(problem.Ytil**2) + problem.residual)
    if inputs == "gaussian":
        spread = batch_spread(size, 1, True)
        mu = q * jnp.linalg.eigvalsh(s[:, None] * K * s)
        steps, residual = _gaussian_step(mu, spread), jnp.zeros((), s.dtype)
    else:
        samples = problem.sampled()
        spread = batch_spread(size, samples.num_samples, replace)
        # Rows in the data's coordinates; those of the identity are its own.
        X = samples.X if samples.frame is None else samples.design
        X = problem.output_scale * (jnp.eye(r, dtype=s.dtype) if X is None else X)
        found = [_sampled_step(X, k, q, spread, max_steps) for k in K]
        steps, residuals = (jnp.stack(part) for part in zip(*found, strict=True))
        residual = jnp.max(residuals)
    converged = residual <= (1e-6 if s.dtype == jnp.float64 else 1e-3)
    return Statement(jnp.min(steps), applies, residual=residual, converged=converged)


def _gaussian_step(mu: Float[Array, "_ r"], spread: float) -> Float[Array, " _"]:
    """The root of `eta spread sum_i mu_i/(2 - eta mu_i (1 + spread)) = 1`, for each row."""

    def excess(eta):
        return eta * spread * jnp.sum(mu / (2 - eta[:, None] * mu * (1 + spread)), axis=1) - 1

    def halve(_, bracket):
        low, high = bracket
        middle = (low + high) / 2
        above = excess(middle) > 0
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    held = jax.lax.stop_gradient(mu)
    top = 2 / (jnp.max(held, axis=1) * (1 + spread))
    low, high = jax.lax.fori_loop(0, jnp.finfo(mu.dtype).nmant + 8, halve, (jnp.zeros_like(top), top))
    root = jax.lax.stop_gradient((low + high) / 2)
    slope = jax.lax.stop_gradient(jax.jvp(excess, (root,), (jnp.ones_like(root),))[1])
    return root - excess(root) / slope


def _sampled_step(X, K, q, spread: float, max_steps: int) -> tuple[Array, Array]:
    """The step at which a second moment stays as it is, and the residual of the iteration that finds it."""
    N = X.shape[0]
    X_, K_ = (jax.lax.stop_gradient(array) for array in (X, K))
    # With w in the coordinates in which the Hessian is symmetric, and diagonal.
    values, vectors = jnp.linalg.eigh(K_)
    values = jnp.maximum(values, 0)
    root = (vectors * jnp.sqrt(values)) @ vectors.T
    mu, frame = jnp.linalg.eigh(root @ (X_.T @ X_) @ root)
    rows = X_ @ root @ frame
    pairs = jnp.add(mu[:, None], mu)
    seen = pairs > jnp.finfo(mu.dtype).eps * pairs[-1, -1]
    half = jnp.where(seen, 1 / jnp.sqrt(jnp.where(seen, pairs, 1)), 0)

    def moment(Z):
        C = half * Z
        each = jnp.sum((rows @ C) * rows, axis=1)
        moved = (1 - spread) * (mu[:, None] * C * mu) + spread * N * (rows.T * each) @ rows
        return half * moved

    rtol = jnp.asarray(1e-7 if mu.dtype == jnp.float64 else 1e-4, mu.dtype)
    Z, residual, _ = largest_eigenvector(moment, K.shape, mu.dtype, rtol, max_steps)
    C = frame @ (half * (Z + Z.T)) @ frame.T
    inverse = (vectors * jnp.where(values > 0, 1 / jnp.sqrt(jnp.where(values > 0, values, 1)), 0)) @ vectors.T
    # The quotient is stationary in the matrix that was found, which is held: its derivative is that of the step.
    held = jax.lax.stop_gradient(inverse @ C @ inverse)
    C, gram = K @ held @ K, X.T @ X
    each = jnp.sum((X @ C) * X, axis=1)
    moved = (1 - spread) * jnp.sum((gram @ C) * (C @ gram)) + spread * N * jnp.sum(each**2)
    return 2 * jnp.sum((gram @ C) * (held @ K).T) / (q * moved), jax.lax.stop_gradient(residual)
