"""The house style: colours told apart by the colour-blind, markers for print, and the pieces that all pictures share."""

import contextlib
import logging
import os
import tempfile
import uuid
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure

from .. import _files
from .._checks import as_float, is_traced
from .._text import on_one_line

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Where files of a kind hold a word.
KINDS = {".png": "Comment", ".pdf": "Keywords", ".svg": "Keywords"}
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@contextlib.contextmanager
def style():
    """The house style: small, vector-friendly, readable in print; lines on axes that are made in it have the house's colours.

    Example:

        >>> from matplotlib.figure import Figure
        >>> with ld.plots.style():
        ...     ax = Figure().subplots()
        ...     lines = ax.plot([0.0, 1.0], [[1.0, 2.0], [3.0, 4.0]])
        >>> print(ax.spines["top"].get_visible(), ax.title.get_fontsize(), [line.get_color() for line in lines])
        False 9.0 ['#0072B2', '#D55E00']
    """
    with mpl.rc_context(
        {
            # Of colours alone: one of line styles as well would go on at lines that have a colour given, and change them.
            "axes.prop_cycle": cycler(color=COLOURS),
            "font.size": 9,
            "axes.titlesize": 9,
            "legend.fontsize": 7.5,
            "legend.frameon": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "lines.linewidth": 1.4,
            "lines.markersize": 4,
            "figure.constrained_layout.use": True,
            "savefig.dpi": 200,
            "pdf.fonttype": 42,
        }
    ):
        yield


def literal(text: object) -> str:
    r"""`text` as matplotlib shows it letter by letter: for names that users give, in titles, labels and legends.

    A dollar sign would start mathematics, an underscore in front would keep a label out of legends, and what cannot be printed
    cannot be drawn.

    **Args:** `text`, of which line breaks, terminal codes and undecodable bytes are escaped.

    Example:

        >>> print(ld.plots.literal("weights in $ of 2024"))
        weights in \$ of 2024
    """
    shown = on_one_line(str(text)).replace("$", r"\$")
    return rf"$\_${shown[1:]}" if shown.startswith("_") else shown


def numbers(value, name: str, shape: str, *sizes: int | None) -> np.ndarray:
    """What a user gives to draw, with axes of these lengths, `None` where any will do; `shape` says so in the error."""
    if is_traced(value):
        raise ValueError(f"Argument `{name}` has no numbers yet, inside of jit or vmap: draw what these return.")
    as_float(value, name)
    array = np.asarray(value, float)
    fits = [size is None or size == length for size, length in zip(sizes, array.shape, strict=False)]
    if array.ndim != len(sizes) or not all(fits) or array.size == 0:
        raise ValueError(f"Argument `{name}` must have shape {shape}, but has shape {array.shape}.")
    return array


def case_look(index: int, count: int = 1, *, hollow: bool = False, every: float = 0.12) -> dict:
    """Colour and markers of one case of `count`, the markers evenly along its curve and beside those of the other cases."""
    # Hollow ones, of a bound, between the full ones, of what it bounds.
    start = 0.05 + index / max(count, 1) + (0.5 if hollow else 0)
    return {
        **mark(index),
        "markevery": (start % 1 * every, every),
        "ms": 4.5 if hollow else 4,
        **({"mfc": "none"} if hollow else {}),
    }


def save(figure, folder: str | os.PathLike | _files.Place, name: str = "figure", mark: str = "") -> list[_files.Place]:
    """Saves a figure as PNG and PDF in a folder, made where there is none, each whole or not at all; returns the paths.

    **Args:** `figure`; `folder`; `name`, of the files, or of the one file where it ends in .png, .pdf or .svg; `mark`, a word
    that the files hold: by it they are known again.

    **Raises:** `ValueError` for a name with the ending of another kind of picture.

    Example:

        >>> from pathlib import Path
        >>> from matplotlib.figure import Figure
        >>> figure = Figure(figsize=(2, 2))
        >>> lines = figure.subplots().plot([0.0, 1.0], [2.5, 0.1])
        >>> print([path.name for path in ld.plots.save(figure, Path("."), "loss")])
        ['loss.png', 'loss.pdf']
    """
    place, ending = _files.place(folder), Path(name).suffix.lower()
    if ending not in KINDS and ending.lstrip(".") in figure.canvas.get_supported_filetypes():
        raise ValueError(f"Argument `name` must end in .png, .pdf or .svg, or have no ending, but is {name!r}.")
    endings = [""] if ending in KINDS else [".png", ".pdf"]
    if _files.is_remote(place):
        with tempfile.TemporaryDirectory() as here:
            names = [path.name for path in save(figure, Path(here), name, mark)]
            _files.upload(Path(here), place, names[-1])
        return [place / name for name in names]
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"{name}{kind}" for kind in endings]
    # The font's own date makes its subsetter complain in every PDF.
    log, layout = logging.getLogger("fontTools"), figure.get_layout_engine()
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with style(), warnings.catch_warnings():
            # A name in a script that the font lacks is drawn as boxes.
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
            # Logarithmic ticks have their final labels, and margins wide enough for them, in the second layout only. No file
            # needs one of its own after it, which takes longer than to draw.
            for _ in range(2):
                figure.draw_without_rendering()
            figure.set_layout_engine("none")
            for path in paths:
                partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
                try:
                    figure.savefig(partial, metadata={KINDS[path.suffix.lower()]: mark} if mark else None)
                    os.replace(partial, path)
                finally:
                    partial.unlink(missing_ok=True)
    finally:
        log.setLevel(level)
        figure.set_layout_engine(layout or "none")
    return paths


def value_axis(ax) -> None:
    """Logarithmic if the positive values drawn span more than a decade."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    values = values[np.isfinite(values) & (values > 0)]
    if values.size and values.max() > 10 * values.min():
        ax.set_yscale("log")


def time_axis(ax, time) -> None:
    """Logarithmic if the times are spaced by factors; the time 0 is then left out."""
    if len(time) > 3 and time[1] < 1e-4 * time[-1]:
        ax.set(xscale="log", xlim=(time[1], time[-1]))
    ax.set_xlabel("time $t$")


def curve(ax, x, values, **look) -> None:
    """A line; without markers spaced along it where no value is finite, since matplotlib cannot space them along nothing."""
    if not np.any(np.isfinite(x) & np.isfinite(values)):
        look.pop("markevery", None)
    ax.plot(x, values, **look)


def ribbon(ax, x, low, middle, high, *, alpha: float = 0.2, **look) -> None:
    """A curve, and the band from `low` to `high` around it."""
    ax.fill_between(x, low, high, color=look["color"], alpha=alpha, lw=0)
    curve(ax, x, middle, **look)


def mark(index: int) -> dict:
    """Colour and marker of one case: with the first seven all colours are used, and further ones have other markers in them."""
    again = index // len(COLOURS)
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[(index + again) % len(MARKERS)]}


def line(index: int) -> dict:
    """Colour and line style of one curve of many."""
    return {"color": COLOURS[index % len(COLOURS)], "ls": DASHES[index // len(COLOURS) % len(DASHES)]}


def legend_below(ax, columns: int = 1, below: float = -0.18) -> None:
    """A legend under the axes, `below` of their height under them."""
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, below), ncols=columns)


@contextlib.contextmanager
def panels(rows: int, columns: int, size: tuple[float, float], title: str):
    """A new figure in the house style, not attached to any window, and its axes as one array."""
    with style():
        figure = Figure(figsize=size)
        yield figure, figure.subplots(rows, columns, squeeze=False).ravel()
        figure.suptitle(title, fontsize=9)
