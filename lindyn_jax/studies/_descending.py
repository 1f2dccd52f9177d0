"""How the studies of wide networks descend: on batches, with noisy labels, momentum and weight decay."""

import math
from typing import Annotated, Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import observables, theory
from .._norms import norm, quotient
from ..models import AbstractModel
from ..problems import LeastSquares, Penalised
from ..theory.stochastic import batch_spread
from ..trajectory import Trajectory
from .study import Shown

# Fields of the settings of a study that descends. `descend` and the others take such settings.
StepSize = Annotated[float | None, "Step of descent.", Shown("from the sharpness of each start")]
BatchSize = Annotated[int | None, "Samples in a step of descent, without replacement.", Shown("all")]
LabelStd = Annotated[float, "Standard deviation of noise on the targets, anew at every step of descent."]
Momentum = Annotated[float, "Momentum of descent, in [0, 1)."]
Decay = Annotated[float, "Weight decay of descent: beta of (beta/2) ||weights||^2, of frozen ones too."]

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "imbalance_lost": {"long_name": "1 - ||D||_F/||D(0)||_F at the end", "units": "1", "convention": "0 for the flow"},
}


def is_plain(settings: Any) -> bool:
    """Whether descent is by gradients of all samples alone."""
    noise = settings.batch_size is not None or settings.label_noise != 0
    return not (noise or settings.momentum != 0 or settings.weight_decay != 0)


def check(settings: Any, problem: LeastSquares) -> None:
    """Refuses what no descent can have.

    **Raises:** `ValueError` for a batch that has no or too many samples, negative noise or decay, a momentum outside [0, 1).
    """
    if settings.batch_size is not None and not 1 <= settings.batch_size <= problem.num_samples:
        raise ValueError(
            f"A batch must have between 1 and {problem.num_samples} samples, but --batch-size is {settings.batch_size}."
        )
    if not 0 <= settings.label_noise < math.inf:
        raise ValueError(f"The noise of labels must be a number of at least 0, but is {settings.label_noise:g}.")
    if not 0 <= settings.momentum < 1:
        raise ValueError(f"The momentum must lie in [0, 1), but is {settings.momentum:g}.")
    if not 0 <= settings.weight_decay < math.inf:
        raise ValueError(f"The weight decay must be a number of at least 0, but is {settings.weight_decay:g}.")
    if settings.step_size is not None and not 0 < settings.step_size < math.inf:
        raise ValueError(f"The step size must be a positive number, but is {settings.step_size:g}.")


def slowdown(problem: LeastSquares, size: int | None) -> Array:
    """By how much shorter steps on batches have to be to be stable in mean square.

    With `c` of `theory.batch_drift`, `E[H_B^2] = (1 - c) H^2 + c N sum_i H_i^2 <= ((1 - c) lambda_1 + c N max_i |x_i|^2) H`.
    """
    if size is None:
        return jnp.ones((), problem.dtype)
    N, X = problem.num_samples, problem.X
    spread = batch_spread(size, N, False)
    longest = 1.0 if X is None else jnp.max(jnp.sum(X**2, axis=1))
    return 1 - spread + spread * N * longest / problem.data_singular_values[0] ** 2


def floor(problem: LeastSquares, settings: Any, width: float, alpha: float) -> float:
    """About where the excess loss of wide networks stays, over that of the start: 0 where nothing keeps it from falling.

    At a solution noise of covariance C keeps up an error whose excess loss is eta/4 tr C in the mean. For labels that is
    `eta q delta^2/4 tr H`, see `theory.label_noise_loss`; for batches C is the spread of samples that are not fitted. With
    `tr C = tr(P U1 U1^T) + tr(Q V V^T)` it is least where the layers are balanced, `2 ||P^(1/2) Theta Q^(1/2)||_*`, to where
    noise draws them. Momentum mu acts as the step `eta/(1 - mu)`. Weight decay beta leaves the gradient `-beta W` by Theta, where
    W has the singular values `sigma/hypot(a, sigma)` while the layers are those of the wide limit, `a = h^(1 - 2 alpha)`.

    **Notes:** to first order in the step, below what it is.
    """
    q, s, Theta, m = problem.scale, problem.singular_values, problem.reduced_theta_hat, problem.num_outputs
    left, sigma, _ = jnp.linalg.svd(Theta, full_matrices=False)
    level = float(width) ** (1 - 2 * alpha)
    step = settings.step_size
    if step is None:
        curvature = q * s[0] ** 2 * (level + jnp.hypot(level, 2 * sigma[0])) * slowdown(problem, settings.batch_size)
        step = (1 - settings.momentum) / (curvature + settings.weight_decay)
    N = problem.num_samples
    size = N if settings.batch_size is None else settings.batch_size
    labels = settings.label_noise**2 * N / size
    P, Q = labels * m * jnp.diag(s**2), labels * jnp.sum(s**2) * jnp.eye(m)
    if size < N:
        # Frozen directions, which the studies are about, are those of given inputs.
        data: Any = problem.X
        X, spread = problem.output_scale * problem.to_data(data.T).T, batch_spread(size, N, False) * N
        errors = problem.Y - problem.predict(problem.theta_hat)
        P += spread * (X.T * jnp.sum(errors**2, axis=1)) @ X
        Q += spread * (errors.T * jnp.sum(X**2, axis=1)) @ errors
    roots = [(vectors * jnp.sqrt(jnp.maximum(values, 0))).T for values, vectors in map(jnp.linalg.eigh, (P, Q))]
    least = 2 * jnp.sum(jnp.linalg.svd(roots[0] @ Theta @ roots[1].T, compute_uv=False))
    kept = step / (1 - settings.momentum) * q**2 * least / 4
    decayed = (left * (sigma / jnp.hypot(level, sigma))) / s[:, None]
    kept += settings.weight_decay**2 / (2 * q) * jnp.sum(decayed**2)
    start = q / 2 * (jnp.sum((s[:, None] * Theta) ** 2) + m * jnp.sum(s**2) * float(width) ** (1 - 4 * alpha))
    return float(kept / start)


def step_of(start: AbstractModel, problem: LeastSquares, settings: Any) -> Any:
    """The step that is asked for, or half of what is stable at the end of training, in mean square, and with decay.

    With momentum mu it is (1 - mu) times that, so that the path is about as fast.
    """
    if settings.step_size is not None:
        return settings.step_size
    step = theory.stable_step(start, problem) / slowdown(problem, settings.batch_size)
    return (1 - settings.momentum) * step / (1 + settings.weight_decay * step)


def descend(
    start: AbstractModel, problem: LeastSquares, settings: Any, steps: int, *, key, stop: float | None = None
) -> Trajectory:
    """Descent of at most so many steps, to the stop if there is one."""
    from ..descent import gradient_descent, plain_descent
    from ..noise import LabelNoise, Minibatch
    from ..optimizers import Descent

    step, noise = step_of(start, problem, settings), []
    if settings.batch_size is not None:
        noise.append(Minibatch(settings.batch_size, key=key))
    if settings.label_noise > 0:
        noise.append(LabelNoise(settings.label_noise, key=key))
    optimizer = Descent(step, settings.momentum) if settings.momentum > 0 else plain_descent(step)
    decay = settings.weight_decay
    return gradient_descent(
        start,
        problem if decay == 0 else Penalised(problem, weight_decay=decay),
        steps,
        optimizer=optimizer,
        noise=noise,
        observables=(),
        stop=stop,
        differentiate="forward",
    )


def imbalance_lost(start: AbstractModel, end: AbstractModel, problem: LeastSquares) -> Float[Array, ""]:
    """`1 - ||D||_F/||D(0)||_F`."""
    now, before = (norm(observables.imbalance_spectrum(model, problem)) for model in (end, start))
    return 1 - quotient(now, before)
