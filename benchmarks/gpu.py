"""The batched flow and the Theorem 12 trial on the accelerator that is there, beside the CPU, in float64 and float32.

`python benchmarks/gpu.py [OUT.json]` writes one JSON file with device and versions. Matrix products are requested at the
highest precision inside the solvers; step counts are reported because reduced precision (TF32) would show there first.
"""

import json
import os
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

import lindyn_jax as ld
from lindyn_jax.ensemble import describe_environment
from lindyn_jax.studies import theorem12

TRIALS = int(os.environ.get("TRIALS", "2048"))


def problem(dtype) -> ld.LeastSquares:
    rng = np.random.default_rng(0)
    return ld.LeastSquares(rng.normal(size=(10, 40)).astype(dtype), rng.normal(size=(10, 3)).astype(dtype))


def flow(dtype):
    """Flow to a horizon from Gaussian cores of width 1e6."""
    data, ts = problem(dtype), jnp.asarray([1.0], dtype)

    def run(key):
        start = ld.init.gaussian_core(data, 1e6, alpha=0.5, key=key)
        trajectory = ld.gradient_flow(start, data, ts)
        return trajectory.stats["num_steps"], trajectory.ok, trajectory.final_observables["loss"]

    return run


def trial(dtype):
    """The trial of the Theorem 12 study at width 1e6."""
    loose = dtype == np.float32
    settings = theorem12.Settings(stop=1e-5 if loose else 1e-8, rtol=1e-5 if loose else 1e-9)
    run_trial = theorem12.Theorem12(problem(dtype), settings=settings).trial

    def run(key):
        outputs = run_trial(key, jnp.asarray(0.5, dtype), jnp.asarray(1e6, dtype))
        return outputs["num_steps"], outputs["ok"], outputs["distance"]

    return run


def main() -> None:
    backends = [jax.default_backend()] + (["cpu"] if jax.default_backend() != "cpu" else [])
    rows = []
    for name, make in (("flow", flow), ("theorem12 trial", trial)):
        for dtype in (np.float64, np.float32):
            for backend in backends:
                device = jax.local_devices(backend=backend)[0]
                with jax.default_device(device):
                    keys = jax.device_put(jax.random.split(jax.random.key(0), TRIALS), device)
                    run = make(dtype)
                    batch = jax.jit(jax.vmap(run) if backend != "cpu" else lambda keys, run=run: jax.lax.map(run, keys))
                    begin = time.perf_counter()
                    steps, ok, value = jax.block_until_ready(batch(keys))
                    first = time.perf_counter() - begin
                    begin = time.perf_counter()
                    jax.block_until_ready(batch(keys))
                    warm = time.perf_counter() - begin
                rows.append(
                    {
                        "what": name,
                        "backend": backend,
                        "device": device.device_kind,
                        "dtype": np.dtype(dtype).name,
                        "trials": TRIALS,
                        "seconds_first": first,
                        "seconds_warm": warm,
                        "trials_per_second": TRIALS / warm,
                        "steps_mean": float(jnp.mean(steps)),
                        "steps_max": int(jnp.max(steps)),
                        "failed": int(jnp.sum(~ok)),
                        "value_mean": float(jnp.mean(value)),
                    }
                )
                print(rows[-1], flush=True)
    result = json.dumps({"environment": describe_environment(), "rows": rows}, indent=1)
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w") as file:
            file.write(result + "\n")
    else:
        print(result)


if __name__ == "__main__":
    main()
