"""Descent on batches: cost against width, against the number of samples, and beside a full-size loop."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import noise_trials
import numpy as np
import optax
from common import record, seconds
from noise_trials import BATCH, ETA, WIDTH, setting

import lindyn_jax as ld
from lindyn_jax import data

# Steps of the full-size loop.
LOOP = 100


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


def numpy_loop(X, Y, U, V, batches):
    """Full-size descent on these batches by NumPy."""
    for index in batches:
        inside = X[index] @ U
        slopes = 2 * (inside @ V.T - Y[index]) / len(index)
        U, V = U - ETA * X[index].T @ (slopes @ V), V - ETA * slopes.T @ inside
    return U, V


def torch_loop(X, Y, U, V, batches):
    """The same by PyTorch, as networks are trained with it: two linear layers, autograd, `optim.SGD`."""
    import torch

    X, Y = torch.tensor(X), torch.tensor(Y)
    layers = [torch.nn.Linear(*W.shape[::-1], bias=False, dtype=X.dtype) for W in (U.T, V)]
    for layer, W in zip(layers, (U.T, V), strict=True):
        layer.weight.data = torch.tensor(np.ascontiguousarray(W))
    network = torch.nn.Sequential(*layers)
    optimizer = torch.optim.SGD(network.parameters(), lr=ETA)
    for index in torch.tensor(np.asarray(batches)):
        optimizer.zero_grad()
        loss = torch.sum((network(X[index]) - Y[index]) ** 2) / len(index)
        loss.backward()
        optimizer.step()
    return layers[0].weight.detach().numpy().T, layers[1].weight.detach().numpy()


def test_many_trials_beside_a_full_size_loop():
    # Of 10,000 trials of 10,000 steps so many as TRIALS says: trials are independent and equally long.
    rows, wanted = [], 10_000 * 10_000
    peer, name = (torch_loop, "PyTorch") if importlib.util.find_spec("torch") else (numpy_loop, "NumPy")
    for dtype in ("float64", "float32"):
        program = str(Path(noise_trials.__file__))
        ended = subprocess.run(
            [sys.executable, program], capture_output=True, text=True, env={**os.environ, "FLOAT": dtype}
        )
        assert ended.returncode == 0, ended.stderr
        row = json.loads(ended.stdout)
        assert row["ok"] == row["trials"]
        problem, rng = noise_trials.setting(dtype), np.random.default_rng(0)
        X, Y = np.asarray(problem.X), np.asarray(problem.Y)
        U, V = ((rng.normal(size=(k, WIDTH)) / WIDTH**0.5).astype(dtype) for k in (X.shape[1], Y.shape[1]))
        batches = np.array([rng.choice(len(X), BATCH, replace=False) for _ in range(LOOP)])
        # The loop is the same descent.
        ends = peer(X, Y, U, V, batches[:20])
        ours = ld.gradient_descent(
            ld.TwoLayer(U, V), problem, 20, optimizer=ld.plain_descent(ETA), noise=ld.Minibatch(indices=batches[:20])
        ).final
        Theta = np.asarray(ours.product())
        assert np.linalg.norm(ends[0] @ ends[1].T - Theta) < (1e-10 if dtype == "float64" else 1e-4) * np.linalg.norm(
            Theta
        )
        begin, cpu = time.perf_counter(), time.process_time()
        peer(X, Y, U, V, batches)
        loop, loop_cpu = (time.perf_counter() - begin) / LOOP, (time.process_time() - cpu) / LOOP
        hours = {"hours for 1e8 steps": wanted * row["us_per_step"] / 3.6e9}
        rows += [
            {"run": f"{row['trials']} trials of {row['steps']} steps", **row, **hours},
            {
                "run": f"{name}, full size, h = {WIDTH}",
                "trials": 1,
                "steps": LOOP,
                "float": dtype,
                "us_per_step": 1e6 * loop,
                "cpu_us_per_step": 1e6 * loop_cpu,
                "hours for 1e8 steps": wanted * loop / 3600,
            },
            {
                "run": "ratio",
                "float": dtype,
                "us_per_step": 1e6 * loop / row["us_per_step"],
                "cpu_us_per_step": 1e6 * loop_cpu / row["cpu_us_per_step"],
            },
        ]
        print(*rows[-3:], sep="\n")
    print(record("noise_trials", rows))
    assert all(row["cpu_us_per_step"] > 100 for row in rows if row["run"] == "ratio")
