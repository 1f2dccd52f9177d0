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


def claim(name: str, ratio: float, claimed: float, says: str) -> None:
    """Records how many times faster than a peer; `claimed` is what was set out to be reached.

    A ratio hardly depends on the machine: one that has fallen to less than a third of what this repository records fails.
    """
    path = RESULTS / "ratios.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    before = known.get(name, {}).get("ratio", 0.0)
    known[name] = {"ratio": ratio, "claimed": claimed, "reached": ratio >= claimed, "says": says}
    print(f"{says}: {ratio:.4g} times (set out for: {claimed:g}; recorded before: {before:.4g})")
    if ratio < before / 3:
        raise AssertionError(f"{says}: {ratio:.4g} times now, {before:.4g} recorded.")
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
    rows = [f"| {row['says']} | {row['ratio']:.3g} | {row['claimed']:g} |" for row in known.values()]
    head = ["| measured in one run | times faster | set out for |", "|---|---|---|"]
    (RESULTS / "ratios.md").write_text("\n".join([*head, *rows]) + "\n")
