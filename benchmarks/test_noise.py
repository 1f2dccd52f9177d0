"""Descent on batches: cost against width, against the number of samples, and beside a full-size loop."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import record, seconds

import lindyn_jax as ld
from lindyn_jax import data


def setting():
    drawn = data.load("digits", samples=200, centre=True)
    return ld.LeastSquares(drawn.X / 16, drawn.Y, scale="averaged")


def test_a_step_on_a_batch_costs_the_same_at_every_width():
    problem, steps = setting(), 2000

    @jax.jit
    def run(key, width):
        start = ld.init.gaussian_core(problem, width, alpha=0.5, key=key)
        noise = ld.Minibatch(16, key=key)
        return ld.gradient_descent(start, problem, steps, optimizer=optax.sgd(0.01), noise=noise).final_observables

    key, widths, rows = jax.random.key(0), (1e3, 1e6, 1e9), []
    turns = [[seconds(lambda width=width: run(key, width), 1) for width in widths] for _ in range(5)]
    for width, total in zip(widths, np.min(turns, axis=0).tolist(), strict=True):
        rows.append({"width": width, "steps": steps, "us_per_step": 1e6 * total / steps})
    times = [row["us_per_step"] for row in rows]
    rows.append({"largest_over_least": max(times) / min(times), "compilations": run._cache_size()})
    print(rows, record("noise_width", rows))
    assert run._cache_size() == 1 and max(times) / min(times) < 1.3


def test_a_batch_costs_the_same_from_any_number_of_samples():
    rows = []
    for samples in (200, 2_000, 20_000):
        drawn = data.gaussian(n=40, samples=samples)
        problem = ld.LeastSquares(drawn.X, drawn.Y, scale="averaged")
        start = ld.init.gaussian_core(problem, 1e4, alpha=0.5, key=jax.random.key(0))
        for replace in (False, True, "epoch"):
            noise = ld.Minibatch(16, key=jax.random.key(1), replace=replace)
            step = optax.sgd(0.01)
            run = lambda: ld.gradient_descent(start, problem, 4000, optimizer=step, noise=noise, observables=()).final  # noqa: B023, E731
            rows.append({"samples": samples, "replace": str(replace), "us_per_step": 1e6 * seconds(run, 5) / 4000})
            print(rows[-1])
    print(record("noise_samples", rows))
    # A batch costs what it costs at 200 samples: an epoch alone, which is shuffled, has some work a sample.
    for replace in ("False", "True"):
        taken = [row["us_per_step"] for row in rows if row["replace"] == replace]
        assert max(taken) < 5 * min(taken), replace


def test_many_trials_beside_a_full_size_loop():
    # Of 10,000 trials of 10,000 steps so many: trials are independent and equally long.
    problem, steps, trials, width = setting(), 10_000, 32, 10_000

    @jax.jit
    def many(keys):
        def run(key):
            start = ld.init.gaussian_core(problem, float(width), alpha=0.5, key=key)
            noise = ld.Minibatch(16, key=key)
            out = ld.gradient_descent(start, problem, steps, optimizer=optax.sgd(0.01), noise=noise, observables=())
            return out.final.product()

        return jax.lax.map(run, keys)

    each = seconds(lambda: many(jax.random.split(jax.random.key(0), trials)), 1) / trials / steps
    X, Y, rng = np.asarray(problem.X), np.asarray(problem.Y), np.random.default_rng(0)
    U, V = (rng.normal(size=(rows, width)) / width**0.5 for rows in (X.shape[1], Y.shape[1]))
    begin, few = time.perf_counter(), 100
    for _ in range(few):
        index = rng.choice(len(X), 16, replace=False)
        inside = X[index] @ U
        slopes = 2 * (inside @ V.T - Y[index]) / 16
        U, V = U - 0.01 * X[index].T @ (slopes @ V), V - 0.01 * slopes.T @ inside
    loop = (time.perf_counter() - begin) / few
    rows = [
        {"run": f"{trials} of 10,000 trials of {steps} steps, one program", "us_per_step": 1e6 * each},
        {"run": f"NumPy loop over the full network, h = {width}, {few} steps", "us_per_step": 1e6 * loop},
        {"run": "ratio", "ratio": loop / each},
        {
            "run": "10,000 trials of 10,000 steps, extrapolated",
            "hours": each * 1e8 / 3600,
            "hours_loop": loop * 1e8 / 3600,
        },
    ]
    print(rows, record("noise_trials", rows))
    assert jnp.all(jnp.isfinite(many(jax.random.split(jax.random.key(0), trials)))) and loop > each
