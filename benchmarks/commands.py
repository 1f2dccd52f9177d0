"""What commands cost: with an empty cache of programs, with the programs kept, and where the study is there already.

`python benchmarks/commands.py` runs each of them three times in processes of their own, in folders of their own, and writes
results/commands.{json,md}: user seconds of processor time, which other programs on the machine lengthen too, and wall-clock ones.
Names of commands after it are those that are run; `--small` takes sizes of a few trials, prints, and writes nothing.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import record

# Name -> the command, and what makes it small.
COMMANDS = {
    "README's first command": (
        "sweep theorem12 --data digits --samples 30 --centre --trials 50",
        "--trials 2 --widths 100,1e4",
    ),
    "sweep lemma11": ("sweep lemma11 --trials 1000", "--trials 20 --widths 100,1e4"),
    "audit": ("audit --preset m22-figure3 --trials 2 --points 11", "--dynamics flow"),
    "fit-lambda0": ("fit-lambda0 --trials 5", "--trials 1"),
    "simulate": (
        "simulate --data factorization --shape 3,2 --start imbalance --positive 2 --negative 1 --width 1e9 --points 5 "
        "--observables loss,rate,lemma7,rate_bound",
        "",
    ),
}


def once(command: str, out: Path, cache: Path) -> tuple[float, float]:
    """User and wall-clock seconds of a command.

    **Raises:** `CalledProcessError` if it fails.
    """
    words = [sys.executable, "-m", "lindyn_jax", *shlex.split(command), "--out", str(out)]
    unset = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    begin = time.perf_counter()
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment | {"XDG_CACHE_HOME": str(cache)},
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, words)
    return used.ru_utime, time.perf_counter() - begin


def measured(name: str, small: bool) -> dict:
    command, less = COMMANDS[name]
    command = f"{command} {less}" if small else command
    row: dict = {"command": name}
    with tempfile.TemporaryDirectory() as folder:
        cache, first, second = (Path(folder) / part for part in ("cache", "first", "second"))
        for word, out in (("cold", first), ("warm", second), ("finished", second)):
            row[f"{word}_user_s"], row[f"{word}_wall_s"] = once(command, out, cache)
    return row


def main() -> None:
    small = "--small" in sys.argv
    names = [name for name in sys.argv[1:] if name != "--small"] or list(COMMANDS)
    rows = []
    for name in names:
        rows.append(measured(name, small))
        print(rows[-1], flush=True)
    if not small:
        record("commands", rows)


if __name__ == "__main__":
    main()
