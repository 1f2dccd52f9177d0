"""Phase diagrams: maps over scale, imbalance and width of starts."""

import numpy as np
from matplotlib.colors import LogNorm, Normalize

from .house import panels

AXES = {"imbalance": "imbalance of a neuron", "scale": "scale of a neuron", "width": "width $h$"}
MAPS = {
    "kernel_distance": ("turn of the tangent kernel", "viridis", False),
    "best_test_error": ("least test error", "magma", False),
    "time": ("time to learn", "cividis", True),
    "stable_rank": ("stable rank", "viridis", False),
}
MOST_ROWS = 4


def phase_map(ax, summary, name: str, axes: tuple[str, str], scale: Normalize | None = None) -> None:
    """The means of one number over two axes of the grid, and dashed where the level is that of the teacher.

    **Args:** `summary`, of two axes; `name`, of the number; `axes`, those upwards and to the right; `scale`, of the
    colours, where maps share one.

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
    title, colours, _ = MAPS[name]
    values, norm = summary[f"{name}_mean"].transpose(*axes).values, scale or _scale(summary, name)
    shown = ax.imshow(values, origin="lower", aspect="auto", cmap=colours, norm=norm, interpolation="nearest")
    ax.figure.colorbar(shown, ax=ax)
    excess = np.log(summary["level"].transpose(*axes).values / summary.attrs["strength"])
    if min(excess.shape) > 1 and excess.min() < 0 < excess.max():
        ax.contour(excess, levels=[0], colors="w", linestyles="--", linewidths=1.2)
    for axis, set_ticks in zip(axes, (ax.set_yticks, ax.set_xticks), strict=True):
        places = np.unique(np.linspace(0, summary.sizes[axis] - 1, 4).round().astype(int))
        set_ticks(
            places, [f"{summary[axis].values[place]:.2g}".replace("e+0", "e").replace("e+", "e") for place in places]
        )
    ax.set(xlabel=AXES[axes[1]], ylabel=AXES[axes[0]])
    ax.set_title(title)
    ax.spines[:].set_visible(False)


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
                phase_map(ax, one, name, axes, _scale(summary, name))
                if len(kept) > 1:
                    ax.set_title(f"{ax.get_title()}, {rest} {float(one[rest]):.3g}")
    return figure


def _scale(summary, name: str) -> Normalize:
    """Colours for all means of a number: from zero, or logarithmic where it spans decades."""
    values = summary[f"{name}_mean"].values
    known = values[np.isfinite(values)]
    if MAPS[name][2] and known.size and known.min() > 0 and known.max() > 10 * known.min():
        return LogNorm(known.min(), known.max())
    return Normalize(0, max(known.max(initial=0), 1e-300))
