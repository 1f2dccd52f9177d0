"""What commands cost: with an empty cache of programs, with the programs kept, and where the study is there already.

`python benchmarks/commands.py` runs each of them three times in processes of their own, in folders of their own, and writes
results/commands.{json,md}: user seconds of processor time, which other programs on the machine lengthen too, and wall-clock ones.
Names of commands after it are those that are run; `--small` takes sizes of a few trials, prints, and writes nothing.
`--beside FOLDER`, a checkout of an earlier state, runs each command there as well, in turns, for machines differ from day to day.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import record

TREE = Path(__file__).resolve().parents[1]
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


def once(command: str, out: Path, cache: Path, tree: Path) -> tuple[float, float]:
    """User and wall-clock seconds of a command of the package in a folder.

    **Raises:** `CalledProcessError` if it fails.
    """
    words = [sys.executable, "-m", "lindyn_jax", *shlex.split(command), "--out", str(out)]
    # Modules are kept in bytecode, as they are for users.
    unset = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    begin = time.perf_counter()
    process = subprocess.Popen(
        words,
        cwd=tree,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment | {"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(tree)},
    )
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, words)
    return used.ru_utime, time.perf_counter() - begin


def measured(name: str, small: bool, before: Path | None) -> dict:
    command, less = COMMANDS[name]
    command = f"{command} {less}" if small else command
    row: dict = {"command": name}
    trees = {"": TREE} if before is None else {"before_": before, "": TREE}
    with tempfile.TemporaryDirectory() as folder:
        for word, out in (("cold", "first"), ("warm", "second"), ("finished", "second")):
            for label, tree in trees.items():
                place = Path(folder) / f"{label}now"
                user, wall = once(command, place / out, place / "cache", tree)
                row[f"{label}{word}_user_s"], row[f"{label}{word}_wall_s"] = user, wall
            if before is not None:
                row[f"{word}, now / before"] = row[f"{word}_user_s"] / row[f"before_{word}_user_s"]
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--beside", type=Path)
    options = parser.parse_args()
    before = options.beside and options.beside.resolve()
    rows = []
    for name in options.names or COMMANDS:
        rows.append(measured(name, options.small, before))
        print(rows[-1], flush=True)
    if not options.small:
        record("commands", rows)


if __name__ == "__main__":
    main()
