"""What commands cost: with an empty cache of programs, with the programs kept, and where the study is there already.

`python benchmarks/commands.py` runs each of them in these three states, in processes and folders of their own, and writes
results/commands.{json,md}: user seconds of processor time, which other programs on the machine lengthen too, and wall-clock ones.
Names of commands after it are those that are run; `--small` takes sizes of a few trials, prints, and writes nothing.
`--beside FOLDER`, a checkout of an earlier state, runs each command there as well, with an empty cache, for machines differ from
day to day; `--rounds 3` does all of it three times and writes medians, for they differ from minute to minute too.
"""

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import record

TREE = Path(__file__).resolve().parents[1]
STATES = ("cold", "warm", "finished")
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


def measured(name: str, small: bool, before: Path | None) -> dict[str, tuple[float, float]]:
    """Name of a state -> user and wall-clock seconds in it."""
    command, less = COMMANDS[name]
    command = f"{command} {less}" if small else command
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        earlier = {"before": (before, "before", "before-cache")} if before else {}
        states = earlier | {
            word: (TREE, out, "cache") for word, out in zip(STATES, ("first", "second", "second"), strict=True)
        }
        return {state: once(command, place / out, place / cache, tree) for state, (tree, out, cache) in states.items()}


def row_of(name: str, rounds: list[dict[str, tuple[float, float]]]) -> dict:
    """Medians over rounds, and those of what a command takes beside what it took before in the same round."""
    row: dict = {"command": name}
    for state in rounds[0]:
        user, wall = (statistics.median(taken[state][i] for taken in rounds) for i in range(2))
        row |= {f"{state}, user s": user, f"{state}, wall s": wall}
    for state in STATES if "before" in rounds[0] else ():
        row[f"{state} / before"] = statistics.median(taken[state][0] / taken["before"][0] for taken in rounds)
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    before = options.beside and options.beside.resolve()
    names = options.names or list(COMMANDS)
    taken: dict[str, list] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            taken[name].append(measured(name, options.small, before))
            print(row_of(name, taken[name][-1:]), flush=True)
    if not options.small:
        record("commands", [row_of(name, rounds) for name, rounds in taken.items()])


if __name__ == "__main__":
    main()
