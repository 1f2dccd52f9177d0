"""Matrix completion: hidden entries and nuclear norms against the share observed and the scale of the start, by depth."""

import math

import numpy as np

from .house import COLOURS, MARKERS, legend_below, panels, ribbon

NAMES = {"fraction": "share of entries observed", "scale": "scale of the start"}


def error_against(ax, lines, axis: str) -> None:
    """Test error against an axis of the grid, one line a depth: medians to 95% quantiles, and that of the convex minimum.

    **Args:** `ax`, axes of matplotlib; `lines`, a summary of the completion study over `depth` and one axis; `axis`, its name.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> names, ax = ("test_error_median", "test_error_q95", "convex_test_error_median"), Figure().subplots()
        >>> numbers = {name: (("depth", "fraction"), [[0.8, 0.1]]) for name in names}
        >>> lines = xr.Dataset(numbers, {"fraction": [0.3, 0.7]}, {"depths": ["2"]})
        >>> ld.plots.error_against(ax, lines, "fraction")
        >>> print(ax.get_ylabel(), [line.get_label() for line in ax.lines])
        error on hidden entries ['depth 2', 'least nuclear norm']
    """
    x = lines[axis].values
    for index, name in enumerate(lines.attrs["depths"]):
        row, colour = lines.isel(depth=index), COLOURS[index % len(COLOURS)]
        median, q95 = row["test_error_median"].values, row["test_error_q95"].values
        ribbon(ax, x, median, median, q95, color=colour, marker=MARKERS[index % len(MARKERS)], label=_named(name))
    convex = lines.isel(depth=0)["convex_test_error_median"].values
    ax.plot(x, convex, color="0.3", ls="--", lw=1, label="least nuclear norm")
    ax.set_ylabel("error on hidden entries")
    ax.set_title("Median (band: to the 95% quantile)")
    _scale(ax, axis, x)
    _logarithmic(ax)


def ratio_against(ax, lines, axis: str) -> None:
    """The nuclear norm over the least one against an axis of the grid, one line a depth: medians to 95% quantiles.

    **Args:** `ax`, axes of matplotlib; `lines`, a summary of the completion study over `depth` and one axis; `axis`, its name.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> names, ax = ("nuclear_ratio_median", "nuclear_ratio_q95"), Figure().subplots()
        >>> numbers = {name: (("depth", "fraction"), [[1.3, 1.01]]) for name in names}
        >>> lines = xr.Dataset(numbers, {"fraction": [0.3, 0.7]}, {"depths": ["3"]})
        >>> ld.plots.ratio_against(ax, lines, "fraction")
        >>> print([line.get_label() for line in ax.lines], ax.lines[0].get_ydata())
        ['depth 3', 'least nuclear norm'] [1.3 1.01]
    """
    x = lines[axis].values
    for index, name in enumerate(lines.attrs["depths"]):
        row, colour = lines.isel(depth=index), COLOURS[index % len(COLOURS)]
        median, q95 = row["nuclear_ratio_median"].values, row["nuclear_ratio_q95"].values
        ribbon(ax, x, median, median, q95, color=colour, marker=MARKERS[index % len(MARKERS)], label=_named(name))
    ax.axhline(1, color="0.3", ls="--", lw=1, label="least nuclear norm")
    ax.set_ylabel(r"$\|\Theta\|_*$ over its least value")
    ax.set_title("Median (band: to the 95% quantile)")
    _scale(ax, axis, x)
    _logarithmic(ax)


def frequency_against(ax, lines, axis: str) -> None:
    """How often matrices are recovered, with exact 95% intervals, one line a depth.

    **Args:** `ax`, axes of matplotlib; `lines`, a summary of the completion study over `depth` and one axis; `axis`, its name.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> ends, ax = {"": [[0.1, 0.9]], "_low": [[0.0, 0.7]], "_high": [[0.4, 1.0]]}, Figure().subplots()
        >>> numbers = {f"is_recovered{end}": (("depth", "fraction"), values) for end, values in ends.items()}
        >>> lines = xr.Dataset(numbers, {"fraction": [0.3, 0.7]}, {"depths": ["2"], "recovered": 0.01})
        >>> ld.plots.frequency_against(ax, lines, "fraction")
        >>> print(ax.get_ylabel(), ax.lines[0].get_ydata())
        share with an error below 0.01 [0.1 0.9]
    """
    x = lines[axis].values
    for index, name in enumerate(lines.attrs["depths"]):
        row, look = lines.isel(depth=index), {"color": COLOURS[index % len(COLOURS)]}
        value, low, high = (row[f"is_recovered{end}"].values for end in ("", "_low", "_high"))
        ax.errorbar(
            x,
            value,
            yerr=np.abs([value - low, high - value]),
            marker=MARKERS[index % len(MARKERS)],
            label=_named(name),
            **look,
        )
    ax.set(ylim=(-0.05, 1.05), ylabel=f"share with an error below {lines.attrs['recovered']:g}")
    ax.set_title("Recovered (95% interval)")
    _scale(ax, axis, x)


def completion(summary, title: str):
    """The figure of the completion study: over the share observed, over the scale of the start, or a row of panels for each.

    **Args:** `summary`, from `studies.completion.Completion.summarise`; `title`. Of axes that are not drawn the first value is.

    **Returns:** a matplotlib figure, not attached to any window.

    Example:

        >>> import xarray as xr
        >>> ends = ("test_error_median test_error_q95 convex_test_error_median nuclear_ratio_median nuclear_ratio_q95 "
        ... "is_recovered is_recovered_low is_recovered_high")
        >>> dims = ("depth", "fraction", "scale", "width")
        >>> numbers = {name: (dims, np.reshape([0.9, 0.1], (1, 2, 1, 1))) for name in ends.split()}
        >>> coords = {"fraction": [0.3, 0.7], "scale": [1e-3], "width": [100.0]}
        >>> summary = xr.Dataset(numbers, coords, {"depths": ["2"], "recovered": 0.01})
        >>> figure = ld.plots.completion(summary, "Completion")  # of studies.completion.Completion.summarise
        >>> print([ax.get_title() for ax in figure.axes])
        ['Median (band: to the 95% quantile)', 'Median (band: to the 95% quantile)', 'Recovered (95% interval)']
    """
    axes = [axis for axis in NAMES if summary.sizes[axis] > 1] or ["fraction"]
    with panels(len(axes), 3, (12, 3.9 * len(axes)), title) as (figure, places):
        for row, axis in enumerate(axes):
            held = {name: 0 for name in ("fraction", "scale", "width") if name != axis}
            lines = summary.isel(held)
            fixed = [f"{name} {float(summary[name][0]):g}" for name in held if summary.sizes[name] > 1]
            for ax, draw in zip(places[3 * row :], (error_against, ratio_against, frequency_against), strict=False):
                draw(ax, lines, axis)
                ax.set_xlabel(NAMES[axis] + (f" ({', '.join(fixed)})" if fixed else ""))
            legend_below(places[3 * row], 2, -0.2)
    return figure


def _named(depth: str) -> str:
    return "wide limit" if depth == "wide-limit" else f"depth {depth}"


def _scale(ax, axis: str, x) -> None:
    if axis == "scale" and x.min() > 0 and x.max() > 5 * x.min():
        ax.set_xscale("log")


def _logarithmic(ax) -> None:
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    values = values[np.isfinite(values) & (values > 0)]
    if values.size and math.log10(values.max() / values.min()) > 0.7:
        ax.set_yscale("log")
