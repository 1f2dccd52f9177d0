r"""What noise does to two layers: the mean change of the imbalance in a step, and the loss that label noise adds.

A step of descent along any gradient `G_U1 = G V, G_V = G^T U1` changes the imbalance by `eta^2 (G_U1^T G_U1 - G_V^T G_V)`
exactly, whatever G is, since `G_U1^T U1 = V^T G_V`. So means over the noise are those of the squares of G, in closed form.
"""

import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Real

from .. import _checks
from .._finite import of_finite_state
from .._public import public
from .._statement import Statement
from ..exact._common import as_floats
from ..models import AbstractModel
from ..problems import AbstractProblem, LeastSquares, OutputProblem
from ._numerics import hypot
from .imbalance import moving_layers
from .sharpness import sharpness

Number = TypeVar("Number", Array, float)


@public
@of_finite_state
def batch_drift(
    model: AbstractModel, problem: AbstractProblem, eta: Real[ArrayLike, ""], size: int, *, replace: bool = False
) -> Float[Array, "k k"]:
    r"""`E[D+ - D]` for a step of plain descent on a batch of samples: the mean change of the imbalance `D = U1^T U1 - V^T V`.

    With the gradients g_i of the losses of the samples and their sum G, the mean over batches of `G_B^T M G_B` is
    `(1 - c) G^T M G + c N sum_i g_i^T M g_i`, where c is 1/B for samples drawn with replacement and `(N - B)/(B (N - 1))`
    without; and `g_i = x_i l_i^T` is of rank one.

    **Args:** `model`, two layers; `problem`, any of inputs and outputs; `eta`, the step size; `size`, B; `replace`, as for
    `Minibatch`.

    **Returns:** shape (k, k): the mean of what `descent_drift` is for one batch, in the coordinates of the moving layers.

    **Raises:** `ValueError` for another kind of model or problem, a penalty, sizes that do not fit, or a size below 1 or
    above N without replacement.

    **Notes:** exact, for any loss and any weights of the samples, in `N (r + m) k` operations.

    **Source:** this package's own.

    Example:

        >>> problem, model = ld.LeastSquares(np.eye(2), np.diag([2.0, 1.0])), ld.TwoLayer(np.eye(2), 0.5 * np.eye(2))
        >>> ld.theory.batch_drift(model, problem, 0.1, 1).tolist()
        [[-0.03375, 0.0], [0.0, -0.00375]]
        >>> ld.theory.batch_drift(model, problem, 0.1, 2).tolist()  # all samples: descent_drift
        [[-0.01688, 0.0], [0.0, -0.001875]]
    """
    samples, (eta,) = _samples(problem), as_floats(eta=eta)
    spread = batch_spread(size, samples.num_samples, replace)
    U1, V = moving_layers(model, problem)
    X = samples.X if samples.frame is None else samples.design
    slopes, N = samples.slopes(X, U1 @ V.T), samples.num_samples
    G = slopes if X is None else X.T @ slopes
    lengths = jnp.ones(N, V.dtype) if X is None else jnp.sqrt(jnp.sum(X**2, axis=1))
    rows = lengths[:, None] * (slopes @ V)
    columns = jnp.sqrt(jnp.sum(slopes**2, axis=1))[:, None] * (U1 if X is None else X @ U1)
    mean = _gram(G @ V) - _gram(G.T @ U1)
    return eta.astype(V.dtype) ** 2 * ((1 - spread) * mean + spread * N * (_gram(rows) - _gram(columns)))


@public
@of_finite_state
def online_drift(
    model: AbstractModel, problem: LeastSquares, eta: Real[ArrayLike, ""], size: int = 1
) -> Float[Array, "k k"]:
    r"""`E[D+ - D]` for a step of plain descent on fresh Gaussian inputs of the problem's own second moment, B at a time.

    For `x ~ N(0, c^2 X^T X)` and targets `Theta_hat^T x` the batch's gradient is `-(q/B) S sum_b z_b z_b^T E`, with
    `z_b ~ N(0, I)` and the error `E = Ytil - S Theta1`, so that with `E[z z^T M z z^T] = 2 M + tr(M) I`

    `E[D+ - D] = eta^2 q^2 { V^T E^T [(1 + 1/B) S^2 + tr(S^2)/B I] E V - U1^T S [(1 + 1/B) E E^T + ||E||^2/B I] S U1 }`.

    For S = I, q = 1 and B = 1, `E = R = A - U V^T`: `eta^2 [(n+2) V^T R^T R V - tr(R^T R) U^T U - 2 U^T R R^T U]`.

    **Args:** `model`, two layers; `problem`, for its singular values S, its loss scale q and its solution; `eta`; `size`, B.

    **Returns:** shape (k, k), the mean for `Online(Teacher.of(problem, B))`.

    **Raises:** `ValueError` for a link, a penalty, sizes that do not fit, or a size below 1.

    **Source:** this package's own; fourth moments of Gaussian vectors.

    Example:

        >>> problem, model = ld.LeastSquares(np.eye(2), np.diag([2.0, 1.0])), ld.TwoLayer(np.eye(2), 0.5 * np.eye(2))
        >>> jnp.diag(ld.theory.online_drift(model, problem, 0.1, 1)).tolist()
        [-0.0475, -0.0275]
        >>> jnp.diag(ld.theory.online_drift(model, problem, 0.1, 10**6)).tolist()
        [-0.01688, -0.001875]
    """
    problem.refuse_link("online_drift")
    (eta,) = as_floats(eta=eta)
    U1, V = moving_layers(model, problem)
    _check_size(size)
    s, E = problem.singular_values[:, None], problem.error(U1 @ V.T)
    left = (1 + 1 / size) * _gram(s * (E @ V)) + jnp.sum(s**2) / size * _gram(E @ V)
    right = (1 + 1 / size) * _gram(E.T @ (s * U1)) + jnp.sum(E**2) / size * _gram(s * U1)
    return (eta.astype(V.dtype) * problem.scale) ** 2 * (left - right)


@public
@of_finite_state
def label_noise_drift(
    model: AbstractModel, problem: LeastSquares, eta: Real[ArrayLike, ""], std: Real[ArrayLike, ""]
) -> Float[Array, "k k"]:
    r"""`E[D+ - D]` for a step of plain descent on all samples with fresh label noise of variance delta^2.

    `eta^2 (G_U1^T G_U1 - G_V^T G_V) + eta^2 q^2 delta^2 (||S||_F^2 V^T V - m U1^T S^2 U1)`, with the gradients of the loss
    itself. The second part is eta times the velocity of D down the gradient of `(eta q delta^2/4) tr H`.

    **Args:** `model`, two layers; `problem`; `eta`, the step size; `std`, delta.

    **Returns:** shape (k, k), in the coordinates of the moving layers.

    **Raises:** `ValueError` for a link, a penalty, or sizes that do not fit.

    **Notes:** exact at every state, for any X and at any step size.

    **Source:** this package's own.

    Example:

        >>> problem, model = ld.factorization(np.eye(2)), ld.TwoLayer(2 * np.eye(2), 0.5 * np.eye(2))
        >>> jnp.diag(ld.theory.label_noise_drift(model, problem, 0.1, 0.5)).tolist()
        [-0.01875, -0.01875]
        >>> 0.1**2 * 0.5**2 * 2 * (0.5**2 - 2.0**2)  # towards balance
        -0.01875
    """
    problem.refuse_link("label_noise_drift")
    eta, std = as_floats(eta=eta, std=std)
    U1, V = moving_layers(model, problem)
    G, s = problem.reduced_loss_gradient(U1 @ V.T), problem.singular_values[:, None]
    noise = jnp.sum(s**2) * _gram(V) - V.shape[0] * _gram(s * U1)
    factor = (problem.scale * std.astype(V.dtype)) ** 2
    return eta.astype(V.dtype) ** 2 * (_gram(G @ V) - _gram(G.T @ U1) + factor * noise)


@public
@of_finite_state
def label_noise_loss(
    model: AbstractModel, problem: LeastSquares, eta: Real[ArrayLike, ""], std: Real[ArrayLike, ""]
) -> Statement:
    r"""The loss that descent with fresh label noise descends in the mean, `L + (eta q delta^2/4) tr H`.

    `tr H = q (m ||S U1||_F^2 + ||S||_F^2 ||V||_F^2)` is the trace of the Hessian over all weights, at every state: S U1 is X
    U up to a rotation. Along the solutions it draws the layers to the balance `m U1^T S^2 U1 = ||S||_F^2 V^T V`, where with
    the same Theta it has its least value `2 q sqrt(m) ||S||_F ||S Theta1||_*`, which penalises the nuclear norm of X Theta:
    for X = I `m ||U||^2 + n ||V||^2` goes to `2 sqrt(n m) ||Theta||_*`.

    **Args:** `model`, two layers; `problem`; `eta`, the step size; `std`, delta.

    **Returns:** a `Statement`: `value`, the effective loss; `trace`, tr H; `least_trace`, the least one of wide layers with
    this product; `applies`, whether the step is below `2/sharpness`: it is a limit of small steps, of relative error O(eta).

    **Raises:** `ValueError` for a link, a penalty, or sizes that do not fit.

    **Source:** Blanc, Gupta, Valiant and Valiant (2020) for label noise; the trace and its least value are this package's own.

    Example:

        >>> problem, model = ld.factorization(np.eye(2)), ld.TwoLayer(2 * np.eye(2), 0.5 * np.eye(2))
        >>> found = ld.theory.label_noise_loss(model, problem, 0.1, 0.5)
        >>> float(found.value), float(found.trace), float(found.least_trace)
        (0.1063, 17.0, 8.0)
    """
    problem.refuse_link("label_noise_loss")
    eta, std = (number.astype(problem.dtype) for number in as_floats(eta=eta, std=std))
    U1, V = moving_layers(model, problem)
    s, Theta1, m = problem.singular_values[:, None], U1 @ V.T, V.shape[0]
    total = jnp.sum(s**2)
    trace = problem.scale * (m * jnp.sum((s * U1) ** 2) + total * jnp.sum(V**2))
    nuclear = jnp.sum(jnp.linalg.svd(s * Theta1, compute_uv=False))
    least = 2 * problem.scale * jnp.sqrt(m * total) * nuclear
    value = problem.reduced_loss(Theta1) + eta * problem.scale * std**2 / 4 * trace
    stable = eta * sharpness(model, problem).value < 2
    return Statement(value, stable, trace=trace, least_trace=least)


@public
@of_finite_state
def label_noise_decay(
    problem: LeastSquares,
    eta: Real[ArrayLike, ""],
    std: Real[ArrayLike, ""],
    steps: Real[ArrayLike, "..."],
    *,
    size: Real[ArrayLike, ""] | None = None,
) -> Statement:
    r"""How much of the imbalance label noise leaves after k steps near a solution, `exp(-eta^2 q^2 delta^2 s^2 m k N/B)`.

    For as many outputs as directions of the data, r = m, all of whose singular values are s (X = I: n = m and s = 1), the mean
    of D itself decays.

    **Args:** `problem`; `eta`, the step size; `std`, delta; `steps`, k, of any shape; `size`, B of a `Minibatch`, each of whose
    labels counts N/B times, by default N.

    **Returns:** a `Statement`: `value`, the factor of D; `applies`, whether r = m and all singular values are equal to
    round-off. Otherwise D ends at another balance; see `label_noise_loss`.

    **Raises:** `ValueError` for a link or a penalty, or a size below 1.

    **Notes:** a limit of small steps: the fluctuation of the error around the solution adds terms of relative size
    O(eta N/B).

    **Source:** this package's own.

    Example:

        >>> found = ld.theory.label_noise_decay(ld.factorization(np.eye(2)), 0.1, 0.5, np.array([0, 1000]))
        >>> found.value.tolist(), bool(found.applies)
        ([1.0, 0.006738], True)
    """
    problem.refuse_link("label_noise_decay")
    eta, std, steps = (number.astype(problem.dtype) for number in as_floats(eta=eta, std=std, steps=steps))
    s, m = problem.singular_values, problem.num_outputs
    equal = s[0] - s[-1] <= 100 * jnp.finfo(s.dtype).eps * s[0]
    rate = eta**2 * problem.scale**2 * std**2 * jnp.mean(s**2) * m
    if size is not None:
        (size,) = as_floats(size=size)
        _check_size(size)
        rate = rate * problem.num_samples / size.astype(problem.dtype)
    return Statement(jnp.exp(-rate * steps), equal & (problem.rank == m))


@public
@of_finite_state
def label_noise_distance(
    problem: LeastSquares,
    h: Real[ArrayLike, "..."],
    alpha: Real[ArrayLike, "..."],
    kept: Real[ArrayLike, "..."] = 1.0,
    shrinkage: Real[ArrayLike, "..."] = 0.0,
) -> Statement:
    r"""Root mean square distance from the minimum-norm solution where wide networks are once noise has left a part of D.

    `rms^2 = (n - r) h^{-2 alpha} sum_j sqrt(f^2 h^{2 - 4 alpha} + sigma_j^2)` for `D = f D(0)`: label noise moves along the
    solutions, on which D fixes V V^T, and leaves the rows that the data do not see. For small steps sigma are the singular
    values of Theta_hat. For f = 1 it is then `sharp_distance`; for f = 0, balanced layers, it is
    `(n - r) h^{-2 alpha} ||Theta_hat||_*`, so that the distance falls as h^{-alpha} where that of the flow falls as
    h^{1/2 - 2 alpha}.

    What noise adds to the loss, `(eta q delta^2/4) tr H`, shrinks Theta as well: with `t = eta q delta^2 m N/(2 B)` the singular
    values of Theta_hat are `sigma + t sigma/sqrt(f^2 h^{2 - 4 alpha} + sigma^2)` for those of the mean, so that balanced layers
    lose t of each.

    **Args:** `problem`; `h`, width; `alpha`, exponent of the start; `kept`, f, such as `label_noise_decay(...).value`;
    `shrinkage`, t.

    **Returns:** a `Statement` on `rms`; `level`, f h^{1 - 2 alpha}; `applies`, whether h >= r + m, r = m and all singular
    values of the data are equal to round-off, as for `label_noise_decay`.

    **Raises:** `ValueError` for a width that is not positive, a link or a penalty.

    **Notes:** a limit of large widths and of small steps, to first order in t.

    **Source:** this package's own.

    Example:

        >>> problem = ld.LeastSquares(np.eye(2, 4), np.eye(2))
        >>> ld.theory.label_noise_distance(problem, 1e4, 0.5, np.array([1.0, 0.5, 0.0])).rms.tolist()
        [0.02378, 0.02115, 0.02]
        >>> float(ld.theory.sharp_distance(problem, 1e4, 0.5).rms)
        0.02378
    """
    problem.refuse_link("label_noise_distance")
    _checks.check_positive(h, "h")
    given = as_floats(h=h, alpha=alpha, kept=kept, shrinkage=shrinkage)
    h, alpha, kept, t = jnp.broadcast_arrays(*(number.astype(problem.dtype) for number in given))
    level, sigma = kept * h ** (1 - 2 * alpha), jnp.linalg.svd(problem.reduced_theta_hat, compute_uv=False)
    trace = jnp.sum(hypot(level[..., None], _shrunk(sigma, level[..., None], t[..., None])), axis=-1)
    rms = math.sqrt(problem.num_frozen) * h ** (-alpha) * jnp.sqrt(trace + (problem.num_outputs - len(sigma)) * level)
    applies = label_noise_decay(problem, 1.0, 0.0, 0.0).applies & (h >= problem.rank + problem.num_outputs)
    return Statement(rms, jnp.broadcast_to(applies, rms.shape), name="rms", level=level)


def _shrunk(sigma: Array, level: Array, t: Array) -> Array:
    """The root x >= 0 of `x + t x/hypot(level, x) = sigma`, and 0 where level is 0 and t larger than sigma."""

    def step(_, x):
        size = hypot(level, x)
        inside = jnp.where(size > 0, size, 1)
        value = x + t * jnp.where(size > 0, x / inside, 1) - sigma
        # Concave and increasing: from the second step on x increases to the root.
        return jnp.maximum(x - value / (1 + t * jnp.where(size > 0, (level / inside) ** 2 / inside, 0)), 0)

    return jax.lax.fori_loop(0, 30, step, jnp.broadcast_to(sigma, jnp.broadcast_shapes(sigma.shape, level.shape)))


def batch_spread(size: Any, num_samples: int, replace: bool) -> Any:
    """c: the covariance of a batch's gradient is c times that of a sample's."""
    _check_size(size)
    if replace:
        return 1 / size
    if not _checks.is_traced(size) and size > num_samples:
        raise ValueError(
            f"Argument `size` must be at most the number of samples, {num_samples}, without replacement, but is {size}."
        )
    return (num_samples - size) / (size * (num_samples - 1)) if num_samples > 1 else 0.0


def _check_size(size: Any) -> None:
    if not _checks.is_traced(size) and size < 1:
        raise ValueError(f"Argument `size` must be a whole number of at least 1, but is {size}.")


def _samples(problem: AbstractProblem) -> OutputProblem:
    samples = problem.sampled()
    if not isinstance(samples, OutputProblem):
        raise ValueError(
            f"Argument `problem` must be one of inputs and outputs, such as LeastSquares, but is a {type(problem).__name__}."
        )
    return samples


def _gram(A: Float[Array, "_ k"]) -> Float[Array, "k k"]:
    return A.T @ A
