"""What the benchmarks share: timing, machine, and where results go."""

import json
import os
import platform
import time
from pathlib import Path

import jax

from lindyn_jax.ensemble import describe_environment

RESULTS = Path(__file__).parent / "results"


def seconds(call, repeats: int = 3) -> float:
    """Best wall time of a call after one warm-up, with the device waited for.

    **Raises:** `RuntimeError` in a parallel test run, where times mean nothing.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        raise RuntimeError("Benchmarks need the machine for themselves: run `python -m pytest benchmarks -n 0`.")
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - begin)
    return min(times)


def record(name: str, rows: list[dict]) -> Path:
    """Writes rows with machine and versions to results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    machine = {"processor": platform.machine(), "python": platform.python_version()}
    path.write_text(
        json.dumps({"environment": describe_environment(), "machine": machine, "rows": rows}, indent=1) + "\n"
    )
    return path
