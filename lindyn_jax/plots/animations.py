"""Moving pictures: curves that grow with time beside matrices that change with it."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import ArrayLike, Float
from matplotlib.animation import FFMpegWriter, PillowWriter
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .._public import public
from .house import line, literal, mark, numbers, style


def similarity(ax, matrix, largest: float | None = None) -> None:
    """A similarity matrix, blue where it is negative and red where it is positive, in a frame without ticks.

    **Args:** `ax`, axes of matplotlib; `matrix`; `largest`, the size that has the full colour, by default that of its
    largest entry.

    Example:

        >>> from matplotlib.figure import Figure
        >>> ax = Figure().subplots()
        >>> ld.plots.similarity(ax, np.array([[2.0, -1.0], [-1.0, 2.0]]))
        >>> print(*ax.collections[0].get_clim())  # white is zero
        -2.0 2.0
    """
    matrix = numbers(matrix, "matrix", "(a, b)", None, None)
    if largest is None:
        largest = float(np.max(np.abs(matrix[np.isfinite(matrix)]), initial=0))
    # Cells are areas of a vector picture, and no pixels that a viewer smooths.
    ax.pcolormesh(matrix, cmap="RdBu_r", vmin=-(largest or 1), vmax=largest or 1)
    ax.set(xticks=[], yticks=[], aspect="equal", ylim=(len(matrix), 0))
    ax.spines[:].set_visible(True)


@public
def animate(
    path: str | os.PathLike,
    ts: Float[ArrayLike, " T"],
    curves: Float[ArrayLike, "T k"],
    matrices: Mapping[str, Float[ArrayLike, "T a b"]],
    *,
    law: Float[ArrayLike, "T k"] | None = None,
    labels: tuple[str, ...] | list[str] | None = None,
    ylabel: str = "strength of the modes",
    frames: int = 40,
    per_second: int = 10,
    size: tuple[float | int, float | int] | None = None,
) -> Path:
    """A GIF or an MP4 of a trajectory: its curves up to the time, and its matrices at it.

    **Args:**

    - `path`: of the file, which ends in `.gif`, or in `.mp4` where the program ffmpeg is there; written whole or not at all.
    - `ts`, shape (T,); `curves`, shape (T, k), such as the strengths of modes; `matrices`, by the titles of their panels, shapes
        (T, a, b), such as `input_gram` of a trajectory: each has the colours of its largest entry at any time.
    - `law`: what the curves are held against, shape (T, k), drawn as lines for all times, and the curves as points.
    - `labels`: of the curves; `ylabel`, of their axis.
    - `frames`: how many pictures, evenly over the T times; `per_second`, how many are shown in a second.
    - `size`: width and height of a picture in inches of 80 pixels, by default what its panels need.

    **Returns:** the path.

    **Raises:** `ValueError` for fewer than two times, shapes that do not fit them, or fewer than two frames, another ending,
    or an MP4 without ffmpeg.

    **Source:** after the figures of Saxe, McClelland and Ganguli (2019).

    Example:

        >>> ts = np.linspace(0.0, 3.0, 4)
        >>> modes = ld.exact.mode(jnp.array([2.0, 1.0]), 0.1, 0.1, ts[:, None]).x
        >>> products = jax.vmap(jnp.diag)(modes)
        >>> path = ld.plots.animate("modes.gif", ts, modes, {"product": products}, frames=4)
        >>> print(path.name, path.read_bytes()[:3])
        modes.gif b'GIF'
    """
    path, ts, curves = Path(path), np.asarray(ts, float), np.asarray(curves, float)
    if len(ts) < 2 or frames < 2 or per_second < 1:
        raise ValueError("An animation needs at least two times in `ts`, two `frames` and one picture `per_second`.")
    kind = path.suffix.lower()
    if kind not in (".gif", ".mp4"):
        raise ValueError(f"Argument `path` must end in .gif or .mp4, but is {str(path)!r}.")
    if kind == ".mp4" and not FFMpegWriter.isAvailable():
        raise ValueError("An MP4 is written by the program ffmpeg, which is not there: install it, or ask for a .gif.")
    matrices = {title: np.asarray(values, float) for title, values in matrices.items()}
    given = {"curves": curves, **({} if law is None else {"law": np.asarray(law, float)}), **matrices}
    for name, values in given.items():
        if len(values) != len(ts):
            raise ValueError(
                f"Argument `ts` has {len(ts)} times, but `{name}` has {len(values)}: give one entry for each."
            )
    names = [f"{i + 1}" for i in range(curves.shape[1])] if labels is None else list(labels)
    if len(names) != curves.shape[1]:
        raise ValueError(
            f"Argument `labels` must hold {curves.shape[1]} names, one for each curve, but holds {len(names)}."
        )
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{kind}")
    with style():
        figure = Figure(figsize=size or (3.2 + 2.2 * len(matrices), 2.6), dpi=80)
        FigureCanvasAgg(figure)
        left, *right = np.atleast_1d(figure.subplots(1, 1 + len(matrices), width_ratios=[1.4, *[1] * len(matrices)]))
        lines, every = [], max(len(ts) // 40, 1)
        for i, name in enumerate(names):
            look = line(i)
            if law is not None:
                left.plot(ts, given["law"][:, i], lw=1, **look)
                look = mark(i) | {"ms": 2.5, "ls": "none", "markevery": every}
            lines += left.plot([], [], label=literal(name), **look)
        finite = np.concatenate([values[np.isfinite(values)] for values in (curves, given.get("law", curves))])
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        margin = 0.05 * (high - low) or 1.0
        left.set(xlim=(ts[0], ts[-1]), ylim=(low - margin, high + margin), xlabel="time $t$", ylabel=ylabel)
        figure.legend(loc="outside lower center", ncols=6)
        for ax, (title, values) in zip(right, matrices.items(), strict=True):
            similarity(ax, values[0], float(np.nanmax(np.abs(values))))
            ax.set_title(literal(title))
        left.set_title(" ")
        writer = (PillowWriter if kind == ".gif" else FFMpegWriter)(fps=per_second)
        try:
            with writer.saving(figure, str(partial), 80):
                for i in np.round(np.linspace(0, len(ts) - 1, frames)).astype(int):
                    for drawn, values in zip(lines, curves.T, strict=True):
                        drawn.set_data(ts[: i + 1], values[: i + 1])
                    for ax, values in zip(right, matrices.values(), strict=True):
                        ax.collections[0].set_array(values[i])
                    left.set_title(f"$t = {ts[i]:.3g}$")
                    writer.grab_frame()
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    return path
