"""What the commands share: options, reading of their values, consoles, progress and folders."""

import contextlib
import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from .. import _files
from .._text import on_one_line
from . import _cache, _endings, _tables
from ._checked import is_data

TargetsOption = Annotated[
    str | None, typer.Option(help="Target columns of a csv, which needs them, with commas between them.")
]
SamplesOption = Annotated[
    int | None, typer.Option(help="Keep this many rows, chosen by --subset-seed.", show_default="all")
]
CentreOption = Annotated[bool, typer.Option("--centre", help="Subtract the column means of X and Y.")]
ScaleOption = Annotated[
    Literal["sum", "mean", "averaged"], typer.Option(help="Scale q of the loss: sum is 1, mean 1/N, averaged 2/N.")
]
HtmlOption = Annotated[
    Path | None,
    typer.Option(
        "--html",
        help="Write a report as well: one file for any browser, with table, pictures, settings and how to repeat it.",
        show_default="no report",
    ),
]
ChunkOption = Annotated[
    int | None,
    typer.Option(help="Trials computed and stored as one piece.", show_default="some hundreds, as memory allows"),
]
BatchOption = Annotated[
    Literal["auto", "map", "vmap", "blocks"],
    typer.Option(
        help="map: trials one after another on each device; blocks: 256 at a time in lock step; vmap: all in lock step; "
        "auto: vmap on accelerators, else blocks where all trials take equally long (Lemma 11) and map elsewhere."
    ),
]
Precision = Annotated[
    float | None, typer.Option(help="Stop as soon as every 95% interval of the summary is narrower than this.")
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        help="Where chunks are computed: tcp://HOST:PORT of a Dask scheduler, its scheduler file FILE.json, or local:N for N "
        "processes of this machine. Needs the extra `cluster`.",
        show_default="the devices of this process",
    ),
]


def _data(incomplete: str) -> list[str]:
    """Names of data, and files, that begin like this."""
    from ..data.loading import KNOWN

    begun = Path(incomplete or ".")
    folder = begun if incomplete.endswith(("/", os.sep)) or not incomplete else begun.parent
    with contextlib.suppress(OSError):
        files = [
            str(path) + ("/" if path.is_dir() else "") for path in folder.iterdir() if not path.name.startswith(".")
        ]
        return [name for name in (*KNOWN, *sorted(files)) if name.startswith(incomplete)]
    return [name for name in KNOWN if name.startswith(incomplete)]


DataOption = Annotated[
    str,
    typer.Option(
        autocompletion=_data,
        help="A bundled set (gaussian, digits, iris, ...), a file (npz, csv, or X.npy,Y.npy), or factorization: X = I and a "
        "random target of --shape.",
    ),
]
ShapeOption = Annotated[str, typer.Option(help="Rows and columns of the target for --data factorization.")]
SubsetSeedOption = Annotated[
    int, typer.Option(help="Seed of the choice of rows; of the data for gaussian and factorization.")
]

# Of XLA on processors, which generates code in one way or another: see `prepare_process`.
EMITTERS = "xla_cpu_use_fusion_emitters"

# More points than any study can use, and few enough to be listed.
MOST_NUMBERS = 10_000


def configure() -> None:
    """Precision, host devices and threads as the commands want them; called before JAX does anything."""
    prepare_process(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    find_devices()


def prepare_process(devices: int) -> None:
    """Precision, threads and cache of a process that has so many host devices, if that is still to be settled."""
    # Trials are spread over devices already; threads inside each small factorization would only wait for one another. Read
    # when JAX first calls LAPACK, so this is in time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import jax
    import jaxlib.version

    # A quarter less to compile, and programs as fast. XLA reads its flags before its first program and stops at those that it
    # does not know: this one is given to the versions that were seen to have it.
    flags = os.environ.get("XLA_FLAGS", "")
    if jaxlib.version.__version_info__ < (0, 10) and EMITTERS not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{EMITTERS}=false".strip()
    jax.config.update("jax_enable_x64", True)
    _cache.turn_on()
    if "JAX_NUM_CPU_DEVICES" not in os.environ and "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        # In a process that already runs JAX the number of devices is settled.
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", devices)


def find_devices() -> None:
    """Refuses a platform that JAX does not have on this machine."""
    import jax

    try:
        jax.devices()
    except RuntimeError as error:
        wanted = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(f"JAX finds no device (JAX_PLATFORMS is {wanted!r}): {str(error).splitlines()[0]}") from None


def refuse_too_large(count: float, what: str, instead: str) -> None:
    """Refuses what takes more memory than this machine has: `count` numbers in float64."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return
    if 8 * count > memory:
        raise ValueError(
            f"{what} would take {8 * count / 2**30:.3g} GiB, but this machine has {memory / 2**30:.3g}: {instead}."
        )


class TooMany(Exception):
    """A list that nobody means."""


def shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:60]}...{text[-15:]}"


def numbers(text: str, name: str) -> list[float]:
    """A comma-separated list of numbers, or `LO:HI:COUNT` for log-spaced ones."""
    try:
        if ":" in text:
            low, high, count = text.split(":")
            low, high, count = float(low), float(high), int(count)
            if not (0 < low < math.inf and 0 < high < math.inf and count >= 1):
                raise ValueError
            if count > MOST_NUMBERS:
                raise TooMany
            steps = [low * (high / low) ** (i / max(count - 1, 1)) for i in range(count)]
            return [*steps[:-1], high] if count > 1 else [low]
        values = [float(part) for part in text.split(",")]
        if len(values) > MOST_NUMBERS:
            raise TooMany
    except TooMany:
        raise ValueError(
            f"Option --{name} must be at most {MOST_NUMBERS} numbers, but {text[:40]!r} stands for more."
        ) from None
    except ValueError:
        raise ValueError(
            f"Option --{name} must be numbers with commas between them or LO:HI:COUNT with LO, HI > 0, but is "
            f"{shortened(text)!r}."
        ) from None
    if any(not math.isfinite(value) for value in values):
        raise ValueError(f"Option --{name} must be finite numbers, but is {shortened(text)!r}.")
    return values


def widths_of(text: str) -> list[float]:
    values = numbers(text, "widths")
    if ":" in text:
        values = [float(round(value)) for value in values]
    if any(value < 1 for value in values):
        raise ValueError(f"Widths must be whole numbers from 1 to 1e12, but one is {min(values):g}.")
    return sorted(set(values))


def problem_of(data, shape, targets, samples, subset_seed, centre, scale):
    """The problem that the data options name (`None`: not asked for), a name for it and a description."""
    from ..data import KNOWN, describe
    from ..data.loading import unknown
    from ..problems import LeastSquares, factorization
    from ..studies.simulate import check_size, random_target

    scale = "sum" if scale is None else scale
    # Without a shape it is the name of no data, and reading refuses it.
    if shape is not None and data.strip().lower() == "factorization":
        sizes = numbers(shape.replace("x", ","), "shape")
        if len(sizes) != 2 or any(size < 1 or size != round(size) for size in sizes):
            raise ValueError(f"Option --shape must be two whole numbers such as 5,10, but is {shape!r}.")
        n, m = (int(size) for size in sizes)
        # The target, its singular vectors, and the copies that are made on the way.
        refuse_too_large(6 * n * m, f"A target of {n} x {m} and its singular values", "choose a smaller --shape")
        description = f"factorization: {n} x {m} target with entries N(0, 1), seed {subset_seed}"
        return factorization(random_target(n, m, seed=subset_seed), scale=scale), "factorization", description
    if shape is not None and re.fullmatch(r"[\w-]+", data) and not is_data({"data": data}):
        raise unknown(data, (*KNOWN, "factorization"))
    dataset = load_data(data, targets, samples, subset_seed, centre)
    problem = LeastSquares(dataset.X, dataset.Y, scale=scale)
    check_size(problem)
    return problem, dataset.name, describe(dataset)


def say(notes, word: str, text: str) -> None:
    """A line that begins with a word in bold; where it is longer than the screen, on several."""
    from rich.text import Text

    first, *rest = _tables.fitted(f"{word:<9}{text}", notes, indent=9)
    notes.print(Text.assemble((first[: len(word)], "bold"), first[len(word) :]), soft_wrap=True)
    for line in rest:
        notes.print(line, soft_wrap=True)


def step_size_of(text: str) -> float | str:
    if text == "stable":
        return text
    try:
        step = float(text)
    except ValueError:
        raise ValueError(f"Option --step-size must be a number or stable, but is {shortened(text)!r}.") from None
    if not 0 < step < math.inf:
        raise ValueError(f"Option --step-size must be a positive number, but is {text}.")
    return step


def refuse_file(out: _files.Place) -> None:
    if _files.is_remote(out):
        return
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(out)):
        raise ValueError(f"{out} is an address, and here only a folder can be written to: choose another --out.")
    if out.is_symlink() and not out.exists():
        raise ValueError(f"{out} is a link to something that is not there: choose another --out.")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, not a folder: choose another --out.")
    if not out.exists():
        parent = next(parent for parent in out.absolute().parents if parent.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise ValueError(
                f"{out} cannot be made, for {parent} is no folder that can be written to: choose another --out."
            )


def table_of(title: str, columns, rows, words: int = 1, named: int = 1):
    """A table whose first `words` columns hold words and the others numbers."""
    from ..studies.study import Table

    return Table(title, tuple(columns), list(rows), tuple(columns)[:words], tight=False, named=named)


def consoles():
    """One console for results on standard output, one for notes and progress on standard error.

    Both print texts as they are: names of files and columns may look like markup or like names of emojis.
    """
    from rich.console import Console

    class Plain(Console):
        def __init__(self, **options):
            super().__init__(markup=False, emoji=False, highlight=False, **options)

        def on_broken_pipe(self) -> None:
            # Rich would end the process without a word.
            raise _endings.Closed

    return Plain(width=_tables.width_of(sys.stdout)), Plain(
        stderr=True, soft_wrap=True, width=_tables.width_of(sys.stderr)
    )


def load_data(data: str, targets: str | None, samples: int | None, subset_seed: int, centre: bool):
    from ..data import gaussian, load

    if data.strip().lower() == "gaussian" and samples is None:
        dataset = gaussian(seed=subset_seed)
        if centre:
            dataset = dataset._replace(X=dataset.X - dataset.X.mean(axis=0), Y=dataset.Y - dataset.Y.mean(axis=0))
        return dataset
    return load(data, targets=targets, samples=samples, subset_seed=subset_seed, centre=centre)


def store_in(out: _files.Place, name: str = "sweep.zarr"):
    """The store in an output folder that is new, empty, or was made by the same study."""
    from ..ensemble import SweepStore

    refuse_file(out)
    if out.is_dir() and not (out / name).is_dir():
        # So begin a store that is being made at this moment, and its lock.
        others = [path for path in out.iterdir() if not path.name.startswith(f".{name}.")]
        if others and not (out / name).is_dir():
            what = "sweep store" if name == "sweep.zarr" else "store of this study"
            raise ValueError(f"{out} is not empty and holds no {what} ({name}): choose another --out.")
    return SweepStore(out / name)


def mark_of(*drawn) -> str:
    """What a picture is known by: this version of the package, and all that is drawn."""
    from .. import __version__

    return hashlib.sha256(json.dumps([__version__, *drawn], sort_keys=True, default=str).encode()).hexdigest()


def save_figure(notes, draw: Callable[[], Any], out: _files.Place, mark: str = "") -> list[_files.Place]:
    """Saves a figure; where that fails, a sentence says so and the numbers are printed all the same.

    **Args:** `draw`, which makes it, and is left alone where both pictures are there and hold the `mark`: to draw takes longer
    than to read a store.
    """
    there = [out / "figure.png", out / "figure.pdf"]
    if mark and all(mark.encode() in (_files.read(path) or b"") for path in there):
        return there
    from .. import plots

    try:
        out.mkdir(parents=True, exist_ok=True)
        return plots.save(draw(), out, mark=mark)
    except OSError as error:
        notes.print(f"The picture cannot be saved in {written([out])} ({error.strerror or error}).")
        return []


def written(paths) -> str:
    """Paths with commas between them, on one line whatever their names hold."""
    return ", ".join(on_one_line(str(path)) for path in paths) or "not saved"


def computed(result, notes) -> int:
    """Trials behind the summary, and a sentence if they are less than were asked for."""
    from ..ensemble import progress_of

    done, _, stopped = progress_of(result)
    if stopped:
        notes.print(f"stopped early: {done} trials a point make every interval as narrow as asked")
    return done


def named(data: str) -> str:
    """The data's name without the folder it lies in: moving a file does not change the study."""
    return on_one_line(",".join(Path(part).name for part in data.split(",")))


def as_json(summary) -> dict:
    values = {name: array.values.tolist() for name, array in {**summary.coords, **summary.data_vars}.items()}
    # JSON has no number for what is not finite.
    values = json.loads(json.dumps(values), parse_constant=lambda constant: None)
    return {**values, **summary.attrs, "dims": {name: list(array.dims) for name, array in summary.data_vars.items()}}
