"""Many trials of descent on batches as one ensemble: digits, 200 rows, batches of 16, width 10,000, 10,000 steps each.

`TRIALS=10000 python benchmarks/noise_trials.py` runs as many on all cores; `FLOAT=float32` and `STEPS` are the other settings. It
prints one JSON object: seconds a step of a trial by the clock and of the processor, those of compilation left out.
"""

import json
import os
import time

import jax
import numpy as np

if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
jax.config.update("jax_enable_x64", True)

import lindyn_jax as ld
from lindyn_jax import data

WIDTH, BATCH, ETA = 10_000, 16, 0.01


def setting(dtype=np.float64) -> ld.LeastSquares:
    drawn = data.load("digits", samples=200, centre=True)
    return ld.LeastSquares((drawn.X / 16).astype(dtype), drawn.Y.astype(dtype), scale="averaged")


def measure(trials: int, steps: int, dtype) -> dict:
    """Runs them in four parts, of which the first one is not timed if there are more than one."""
    problem, times = setting(dtype), []

    def trial(key, width):
        start = ld.init.gaussian_core(problem, width.astype(dtype), alpha=0.5, key=key)
        noise = ld.Minibatch(BATCH, key=jax.random.fold_in(key, 1))
        options = {"optimizer": ld.plain_descent(ETA), "noise": noise, "differentiate": "forward"}
        run = ld.gradient_descent(start, problem, steps, **options)
        return {"loss": run.final_observables["loss"], "ok": run.ok}

    def progress(done, wanted):
        times.append((done, time.perf_counter(), time.process_time()))

    chunk = max(1, -(-trials // 4))
    grid, options = {"width": [float(WIDTH)]}, {"chunk": chunk, "progress": progress}
    dataset = ld.run_ensemble(trial, grid, trials, key=jax.random.key(0), **options)
    known = sorted(times)
    (before, wall, cpu), (after, wall_end, cpu_end) = known[1] if len(known) > 2 else known[0], known[-1]
    count = (after - before) * steps
    return {
        "trials": trials,
        "steps": steps,
        "float": np.dtype(dtype).name,
        "us_per_step": 1e6 * (wall_end - wall) / count,
        "cpu_us_per_step": 1e6 * (cpu_end - cpu) / count,
        "seconds": wall_end - known[0][1],
        "mean_loss": float(dataset["loss"].mean()),
        "ok": int(dataset["ok"].sum()),
    }


if __name__ == "__main__":
    dtype = np.dtype(os.environ.get("FLOAT", "float64"))
    print(json.dumps(measure(int(os.environ.get("TRIALS", "64")), int(os.environ.get("STEPS", "10000")), dtype)))
