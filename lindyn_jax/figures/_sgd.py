"""Descent on batches and noisy labels from wide Gaussian starts: the data of two figures."""

import jax
import jax.numpy as jnp
import numpy as np

from .. import init, observables, theory
from ..descent import gradient_descent, plain_descent
from ..noise import LabelNoise, Minibatch
from ..problems import LeastSquares
from ..trajectory import FINISHED
from ._common import descend, ensemble, named

ALPHA = 0.5
# Of one compilation, so that trials of all batches are as long.
FULL, QUICK = {"trials": 100, "steps": 6000, "points": 25}, {"trials": 20, "steps": 2500, "points": 25}


def problem_of(seed: int, n: int, samples: int) -> LeastSquares:
    """Inputs of rank 2 with equal singular values and two outputs, which a Theta with singular values 1 and 1/2 fits."""
    rng = np.random.default_rng(seed)
    W, Phi, left, right = (np.linalg.qr(rng.normal(size=(rows, 2)))[0] for rows in (samples, n, 2, 2))
    X = W @ Phi.T
    return LeastSquares(X, X @ Phi @ left @ np.diag([1.0, 0.5]) @ right.T)


def compute(
    *,
    seed: int,
    trials: int,
    steps: int,
    points: int,
    widths: tuple[float | int, ...] = (100, 10_000, 1_000_000),
    batches: tuple[int, ...] = (1, 2, 8),
    n: int = 10,
    samples: int = 8,
    step: float = 0.01,
    std: float = 2.0,
    fit_step: float = 0.02,
    fit_steps: int = 800,
):
    """Descent with noisy labels on batches, and on batches alone until all samples are fitted, over batch size and width.

    With noisy labels the step is `step sqrt(B/N)`, for which all batches have the law `D = e^{-x} D(0)` with the same x after
    the same number of steps; alone, all have the step `fit_step`. The share of D that is left is that along D(0).
    """
    problem, numbers = problem_of(seed, n, samples), np.unique(np.round(np.linspace(0, steps, points)).astype(int))

    def imbalance(model, problem):
        U1, V = theory.moving_layers(model, problem)
        return U1.T @ U1 - V.T @ V

    def begin(key, width):
        key_start, key_noise = jax.random.split(key)
        start = init.gaussian_core(problem, width, alpha=ALPHA, key=key_start)
        D0 = imbalance(start, problem)
        kept = lambda model, problem: jnp.sum(D0 * imbalance(model, problem)) / jnp.sum(D0**2)  # noqa: E731

        def given(model, problem):
            # Over the rows that the data do not see, which are independent of those that move.
            law = theory.conditional_distance(problem, theory.moving_layers(model, problem)[1], width, ALPHA)
            return jnp.sqrt(law.mean_square)

        return start, {"kept": kept, "distance": observables.frozen_product_norm, "given": given}, D0, key_noise

    def noisy(key, batch, width):
        start, watched, _, key = begin(key, width)
        noise = Minibatch(batch, key=key, largest=max(batches)), LabelNoise(std, key=key)
        optimizer = plain_descent(step * jnp.sqrt(batch / samples))
        options = {"noise": noise, "save_at": numbers, "observables": watched, "differentiate": "forward"}
        run = gradient_descent(start, problem, steps, optimizer=optimizer, **options)
        return {**run.observables, "ok": run.result == FINISHED}

    def fitted(key, batch, width):
        start, watched, _, key = begin(key, width)
        noise = Minibatch(batch, key=key, largest=max(batches))
        options = {"noise": noise, "observables": watched, "differentiate": "forward"}
        run = gradient_descent(start, problem, fit_steps, optimizer=plain_descent(fit_step), **options)
        return {**{f"fit_{name}": value for name, value in run.final_observables.items()}, "ok": run.result == FINISHED}

    def mean_drift(key, width):
        # The mean change in a step, summed along the path of all samples.
        start, _, D0, _ = begin(key, width)

        def drifts(model, problem):
            each = [theory.batch_drift(model, problem, fit_step, B) for B in batches]
            return jnp.stack([jnp.sum(D0 * drift) for drift in each]) / jnp.sum(D0**2)

        run = descend(start, problem, np.arange(fit_steps), fit_step, {"drifts": drifts})
        return {"fit_law": -jnp.sum(run.observables["drifts"], axis=0), "ok": run.result == FINISHED}

    grid = {"batch": [float(size) for size in batches], "width": widths}
    dims = dict.fromkeys(("kept", "distance", "given"), ("step",))
    dataset = ensemble(noisy, grid, trials, seed, dims=dims).rename(ok="noisy_ok").assign_coords(step=numbers)
    dataset = dataset.merge(ensemble(fitted, grid, trials, seed).rename(ok="fit_ok"))
    law = ensemble(mean_drift, {"width": widths}, trials, seed, dims={"fit_law": ("batch",)}).rename(ok="law_ok")
    dataset = dataset.merge(law.assign_coords(batch=grid["batch"]))
    decay = theory.label_noise_decay(problem, step, std, numbers)
    H, kept = np.meshgrid(np.asarray(widths, float), np.asarray(decay.value), indexing="ij")
    dataset["law"] = "step", np.asarray(decay.value)
    dataset["distance_law"] = ("width", "step"), np.asarray(theory.label_noise_distance(problem, H, ALPHA, kept).rms)
    shrinkage = [step * np.sqrt(samples / B) * float(problem.scale) * std**2 * problem.num_outputs / 2 for B in batches]
    shrunk = [theory.label_noise_distance(problem, H, ALPHA, kept, t).rms for t in shrinkage]
    dataset["shrunk_law"] = ("batch", "width", "step"), np.asarray(shrunk)
    dataset["flow_law"] = "width", np.asarray(theory.sharp_distance(problem, np.asarray(widths, float), ALPHA).rms)
    return named(
        dataset,
        batch="samples in a batch",
        width="hidden width h",
        step="steps of descent with noisy labels",
        kept="<D, D(0)>/||D(0)||^2 with noisy labels",
        distance="||U2 V^T||_F with noisy labels",
        given="its root mean square over U2, given V",
        fit_kept="<D, D(0)>/||D(0)||^2 after descent on batches alone",
        fit_distance="||U2 V^T||_F after descent on batches alone",
        fit_given="its root mean square over U2, given V",
        fit_law="what the mean drifts of batches take from <D, D(0)>/||D(0)||^2 along the path of all samples",
        law="what label noise leaves of D",
        distance_law="root mean square distance for the part of D that the law leaves",
        shrunk_law="the same for the Theta that the noise shrinks",
        flow_law="root mean square distance of the flow",
    )
