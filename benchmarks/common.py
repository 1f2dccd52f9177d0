"""What the benchmarks share: timing, machine, and where results go."""

import json
import os
import platform
import time
from pathlib import Path

import jax

from lindyn_jax.ensemble import describe_environment

RESULTS = Path(__file__).parent / "results"
jax.config.update("jax_enable_x64", True)


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


def in_turns(calls: dict, turns: int) -> dict[str, float]:
    """Best processor time of each of some calls, in turns, so that what disturbs one disturbs all; threads count together."""
    best = dict.fromkeys(calls, float("inf"))
    for turn in range(turns + 1):
        for name, call in calls.items():
            begin = time.process_time()
            jax.block_until_ready(call())
            if turn > 0:
                best[name] = min(best[name], time.process_time() - begin)
    return best


def machine() -> dict:
    """What the times were measured on."""
    model = next((line.split(":")[1].strip() for line in _processor_lines() if line.startswith("model name")), "")
    return {
        "processor": model or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


def _processor_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def record(name: str, rows: list[dict]) -> Path:
    """Writes rows, with machine, versions and precision, to results/NAME.json and as a table to results/NAME.md."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    result = {"environment": describe_environment(), "machine": machine(), "rows": rows}
    path.write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(name, result))
    return path


def markdown(name: str, result: dict) -> str:
    """The table of a results file: a row for each measurement, a column for each quantity that one of them has."""
    rows, environment, place = result["rows"], result["environment"], result["machine"]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows]
    versions = ", ".join(f"{package} {version}" for package, version in environment["versions"].items())
    where = f"{place.get('cores', '?')} cores of {place['processor']}, device {environment['device']}"
    return "\n".join([f"# {name}", "", f"{where}; {environment['float']}; {versions}.", "", *lines, ""])


def _cell(value) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(_cell(entry) for entry in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def claim(name: str, ratio: float, claimed: float | None, says: str) -> None:
    """Records how many times faster than a peer; `claimed` is what was set out to be reached, where something was.

    A ratio hardly depends on the machine: one that has fallen to less than a third of the best one recorded fails.
    """
    path = RESULTS / "ratios.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    before = known.get(name, {}).get("best", 0.0)
    reached = None if claimed is None else ratio >= claimed
    known[name] = {"ratio": ratio, "best": max(ratio, before), "claimed": claimed, "reached": reached, "says": says}
    print(f"{says}: {ratio:.4g} times (set out for: {claimed}; best recorded: {before:.4g})")
    if ratio < before / 3:
        raise AssertionError(f"{says}: {ratio:.4g} times now, {before:.4g} recorded.")
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
    rows = [f"| {row['says']} | {row['ratio']:.3g} | {row['claimed'] or '-'} |" for row in known.values()]
    head = ["| measured in one run | times faster | set out for |", "|---|---|---|"]
    (RESULTS / "ratios.md").write_text("\n".join([*head, *rows]) + "\n")
