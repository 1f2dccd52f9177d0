"""Phase diagrams: maps over scale, imbalance and width of starts."""

import matplotlib as mpl
import numpy as np
from jaxtyping import ArrayLike, Float
from matplotlib.colors import LogNorm, Normalize

from .house import legend_below, numbers, panels

AXES = {"imbalance": "imbalance of a neuron", "scale": "scale of a neuron", "width": "width $h$"}
MAPS = {
    "kernel_distance": ("turn of the tangent kernel", "viridis", False),
    "best_test_error": ("least test error", "magma", False),
    "time": ("time to learn", "cividis", True),
    "stable_rank": ("stable rank", "viridis", False),
}
MOST_ROWS = 4


def phase_diagram(
    ax,
    x: Float[ArrayLike, " a"],
    y: Float[ArrayLike, " b"],
    values: Float[ArrayLike, "b a"],
    *,
    boundary: Float[ArrayLike, "b a"] | None = None,
    label: str = "",
    logarithmic: bool = False,
    colours: str = "viridis",
    scale: Normalize | None = None,
) -> None:
    """A map of one number over two axes, a cell a point of the grid; grey with a cross where there is nothing to show.

    **Args:**

    - `ax`: axes of matplotlib.
    - `x`, shape (a,), to the right, and `y`, shape (b,), upwards: cells have one size, and some have their number beside them.
    - `values`, shape (b, a).
    - `boundary`: shape (b, a), drawn dashed where it changes its sign.
    - `label`: of the colours.
    - `logarithmic`: colours of a logarithmic scale, where the positive values span more than a decade.
    - `colours`: a colour map of matplotlib; `scale`: of the colours, where maps share one.

    **Raises:** `ValueError` for shapes that do not fit each other.

    Example:

        >>> from matplotlib.figure import Figure
        >>> ax, widths, scales = Figure().subplots(), np.array([10, 100]), np.array([0.1, 1.0, 10.0])
        >>> ld.plots.phase_diagram(ax, widths, scales, scales[:, None] * widths, logarithmic=True)
        >>> print(*ax.images[0].get_clim(), [text.get_text() for text in ax.get_xticklabels()])
        1.0 1000.0 ['10', '1e2']
    """
    x, y = numbers(x, "x", "(a,)", None), numbers(y, "y", "(b,)", None)
    shape = f"{(len(y), len(x))}, a row for each of `y` and a column for each of `x`"
    values = numbers(values, "values", shape, len(y), len(x))
    norm = _scale(values, logarithmic) if scale is None else scale
    hidden = ~np.isfinite(values) | (isinstance(norm, LogNorm) & (values <= 0))
    grey = mpl.colormaps[colours].with_extremes(bad="0.88")
    look = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    shown = ax.imshow(np.ma.masked_array(values, hidden), cmap=grey, norm=norm, **look)
    ax.figure.colorbar(shown, ax=ax, label=label)
    if boundary is not None:
        height = numbers(boundary, "boundary", shape, len(y), len(x))
        if min(height.shape) > 1 and np.nanmin(height, initial=0) < 0 < np.nanmax(height, initial=0):
            ax.contour(height, levels=[0], colors="w", linestyles="--", linewidths=1.2)
    for given, set_ticks in ((y, ax.set_yticks), (x, ax.set_xticks)):
        places = np.unique(np.linspace(0, len(given) - 1, 4).round().astype(int))
        set_ticks(places, [f"{given[place]:.2g}".replace("e+0", "e").replace("e+", "e") for place in places])
    if hidden.any():
        words = "not finite" if not np.isfinite(values[hidden]).any() else "not positive, or not finite"
        text = f"{hidden.sum()} of {hidden.size} {words}"
        ax.plot(*np.nonzero(hidden)[::-1], marker="x", ls="none", color="0.4", label=text)
        legend_below(ax, below=-0.22)
    ax.spines[:].set_visible(False)


def phase_map(ax, summary, name: str, axes: tuple[str, str], scale: Normalize | None = None) -> None:
    """The means of one number over two axes of the grid, and dashed where the level is that of the teacher.

    **Args:** `ax`, axes of matplotlib; `summary`, of two axes; `name`, of the number; `axes`, those upwards and to the right;
    `scale`, of the colours, where maps share one.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> dims, ax = ("scale", "width"), Figure().subplots()
        >>> numbers = {"time_mean": (dims, [[50.0, 20.0], [5.0, 2.0]]), "level": (dims, [[0.1, 1.0], [1.0, 10.0]])}
        >>> summary = xr.Dataset(numbers, {"scale": [0.1, 1.0], "width": [10.0, 100.0]}, {"strength": 1.0})
        >>> ld.plots.phase_map(ax, summary, "time", dims)
        >>> print(ax.get_title(), *ax.images[0].get_clim())
        time to learn 2.0 50.0
    """
    title, colours, logarithmic = MAPS[name]
    up, right = (summary[axis].values for axis in axes)
    excess = np.log(summary["level"].transpose(*axes).values / summary.attrs["strength"])
    values = summary[f"{name}_mean"].transpose(*axes).values
    phase_diagram(ax, right, up, values, boundary=excess, logarithmic=logarithmic, colours=colours, scale=scale)
    ax.set(xlabel=AXES[axes[1]], ylabel=AXES[axes[0]])
    ax.set_title(title)


def phases(summary, title: str):
    """The figure of the phases study: maps over the two axes that vary; of three, a row for up to four imbalances.

    **Args:** `summary`, from `studies.phases.Phases.summarise`; `title`.

    **Returns:** a matplotlib figure, not attached to any window.

    Example:

        >>> import xarray as xr
        >>> dims, names = ("imbalance", "scale", "width"), ("kernel_distance", "best_test_error", "time", "stable_rank")
        >>> numbers = {f"{name}_mean": (dims, [[[1.0, 2.0], [3.0, 4.0]]]) for name in names}
        >>> coords = {"imbalance": [0.0], "scale": [0.1, 1.0], "width": [10.0, 100.0]}
        >>> summary = xr.Dataset(numbers | {"level": (dims, [[[0.1, 1.0], [1.0, 10.0]]])}, coords, {"strength": 1.0})
        >>> figure = ld.plots.phases(summary, "Phases")  # of studies.phases.Phases.summarise
        >>> print([ax.get_title() for ax in figure.axes[:4]])
        ['turn of the tangent kernel', 'least test error', 'time to learn', 'stable rank']
    """
    varying = [name for name in AXES if summary.sizes[name] > 1]
    # One axis that varies lies to the right, whichever it is.
    right = varying[-1] if varying else "width"
    up = varying[-2] if len(varying) > 1 else ("width" if right == "scale" else "scale")
    axes = (up, right)
    (rest,) = (name for name in AXES if name not in axes)
    kept = np.unique(np.linspace(0, summary.sizes[rest] - 1, MOST_ROWS).round().astype(int))
    # One output has one singular value.
    names = [name for name in MAPS if name != "stable_rank" or summary["stable_rank_mean"].max() > 1 + 1e-9]
    with panels(len(kept), len(names), (3.3 * len(names), 3.0 * len(kept) + 0.3), title) as (figure, places):
        for row, index in enumerate(kept):
            one = summary.isel({rest: index})
            for column, name in enumerate(names):
                ax = places[row * len(names) + column]
                phase_map(ax, one, name, axes, _scale(summary[f"{name}_mean"].values, MAPS[name][2]))
                if len(kept) > 1:
                    ax.set_title(f"{ax.get_title()}, {rest} {float(one[rest]):.3g}")
    return figure


def _scale(values, logarithmic: bool) -> Normalize:
    """Colours for all values: from zero, or the least where it is negative, or logarithmic where they span decades."""
    known = values[np.isfinite(values)]
    positive = known[known > 0]
    if logarithmic and positive.size and positive.max() > 10 * positive.min():
        return LogNorm(positive.min(), positive.max())
    return Normalize(min(known.min(initial=0), 0), max(known.max(initial=0), 1e-300))
