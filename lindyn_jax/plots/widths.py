"""Wide networks: distances, events and ratios against the width."""

import math

import numpy as np

from .house import COLOURS, MARKERS, legend_below, panels, ribbon


def distance_against_width(ax, summary) -> None:
    """Distance to the minimum-norm solution against width: median to 95% quantile, sharp law, and bound where it fits.

    **Args:** `ax`, axes of matplotlib; `summary`, from `studies.theorem12.summarise`.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> ax, numbers = Figure().subplots(), {"median": [0.1, 0.01], "q95": [0.2, 0.02], "sharp_rms": [0.1, 0.01]}
        >>> numbers |= {"log10_bound": [5.0, 2.0], "applies": [False, True]}
        >>> arrays = {name: (("alpha", "width"), [values]) for name, values in numbers.items()}
        >>> slopes = {name: ("alpha", [-0.5]) for name in ("slope", "slope_low", "slope_high", "sharp_slope")}
        >>> ld.plots.distance_against_width(ax, xr.Dataset(arrays | slopes, {"alpha": [0.5], "width": [1e2, 1e4]}))
        >>> print(ax.get_title(), ax.lines[0].get_ydata(), ax.lines[2].get_ydata())  # and the bound
        Median (band: to the 95% quantile) [0.1  0.01] [100000.    100.]
    """
    widths = summary["width"].values
    top = np.nanmax(np.where(np.isfinite(summary["q95"].values), summary["q95"].values, np.nan), initial=1e-12)
    hidden = []
    for index, alpha in enumerate(summary["alpha"].values):
        row = summary.isel(alpha=index)
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        median, q95 = row["median"].values, row["q95"].values
        slope, half = float(row["slope"]), (float(row["slope_high"]) - float(row["slope_low"])) / 2
        fitted = f", slope {slope:.3f} ± {half:.1g}" if math.isfinite(slope + half) else ""
        label = rf"$\alpha$ = {alpha:g}{fitted} (sharp law {float(row['sharp_slope']):.3f})"
        ribbon(ax, widths, median, median, q95, marker=marker, color=colour, ls="none", label=label)
        ax.plot(widths, row["sharp_rms"].values, color=colour, ls="--", lw=1)
        log10_bound = row["log10_bound"].values
        seen = log10_bound < math.log10(top) + 12
        applies = row["applies"].values.astype(bool)
        if np.any(seen):
            ax.plot(widths[seen], 10 ** log10_bound[seen], color=colour, ls=":", lw=1)
            met = seen & applies
            ax.plot(widths[met], 10 ** log10_bound[met], marker="*", color=colour, ls="none", ms=7)
        if not np.all(seen):
            hidden.append(rf"$\alpha$ = {alpha:g}: bound from $10^{{{log10_bound[~seen].min():.1f}}}$ up, not drawn")
    ax.set(xscale="log", yscale="log", xlabel="hidden width $h$")
    ax.set_ylabel(r"$\|\Theta(\infty) - \hat\Theta\|_F$")
    ax.plot([], [], color="0.3", ls="--", lw=1, label="sharp law (rms)")
    ax.plot(
        [], [], color="0.3", ls=":", marker="*", lw=1, label="Theorem 12, a bound on the 2-norm (star: hypothesis met)"
    )
    for text in hidden:
        ax.plot([], [], ls="none", label=text)
    legend_below(ax, 1, -0.16)
    ax.set_title("Median (band: to the 95% quantile)")


def events_against_width(ax, summary) -> None:
    """How often Lemma 11's events fail against width, with exact 95% intervals and the level delta, on a logarithmic scale.

    Where there was no failure the upper end of the interval is marked, which is that of all events; events that are the same at
    all exponents are drawn once, and those that never fail are named only.

    **Args:** `ax`, axes of matplotlib; `summary`, from `studies.lemma11.summarise` or `studies.theorem12.summarise`.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> ends, ax = {"": [[0.9, 0.95]], "_low": [[0.8, 0.9]], "_high": [[0.95, 0.99]]}, Figure().subplots()
        >>> events = ("level_is_large", "coupling_is_small", "product_is_small")
        >>> numbers = {name + end: (("alpha", "width"), values) for name in events for end, values in ends.items()}
        >>> summary = xr.Dataset(numbers, {"alpha": [0.5], "width": [1e2, 1e4]}, {"delta": 0.1})
        >>> ld.plots.events_against_width(ax, summary)
        >>> print(ax.get_title(), ax.lines[0].get_ydata())
        How often events of Lemma 11 fail [0.1  0.05]
    """
    widths = summary["width"].values
    names = {
        "level_is_large": "(33) imbalance",
        "coupling_is_small": "(34) coupling",
        "product_is_small": "(35) product",
    }
    look, spared, lowest = (
        {"ls": ":", "lw": 0.8, "ms": 4.5, "capsize": 2, "elinewidth": 0.8},
        [],
        np.full(len(widths), np.nan),
    )
    for event, (name, text) in enumerate(names.items()):
        # Of the failures, whose interval is the other way round.
        value, high, low = (1 - summary[name + end].transpose("alpha", ...).values for end in ("", "_low", "_high"))
        lowest = np.fmin(lowest, np.where(value == 0, high, np.nan).min(axis=0, initial=np.inf, where=value == 0))
        if not np.any(value > 0):
            spared.append(text)
            continue
        same = np.all(value == value[0])
        for index in range(1 if same else len(value)):
            label = text if same else rf"{text}, $\alpha$ = {summary['alpha'].values[index]:g}"
            seen = np.where(value[index] > 0, value[index], np.nan)
            errors = np.maximum([seen - low[index], high[index] - seen], 0)
            full = {} if index == 0 else {"mfc": "none"}
            marker = MARKERS[(event + 3 * index) % len(MARKERS)]
            ax.errorbar(widths, seen, yerr=errors, color=COLOURS[event], marker=marker, label=label, **look, **full)
    lowest = np.where(np.isfinite(lowest), lowest, np.nan)
    if np.any(np.isfinite(lowest)):
        label = "no failure: frequency below (95%)"
        ax.plot(widths, lowest, color="0.4", marker=11, ls="none", ms=6, label=label)
    for text in spared:
        ax.plot([], [], ls="none", label=f"{text}: never failed")
    delta = summary.attrs["delta"]
    ax.axhline(delta, color="0.5", lw=0.8, ls="--", label=rf"$\delta$ = {delta:g}")
    ax.set(xscale="log", yscale="log", xlabel="hidden width $h$", ylabel="failure frequency (95% interval)")
    ax.set_ylim(top=1.5)
    ax.set_title("How often events of Lemma 11 fail")
    legend_below(ax, 2, -0.16)


def ratios_against_width(ax, summary) -> None:
    """The three numbers of Lemma 11 over their bounds, against width, at the first exponent: the law is the same at all.

    The mean of the level with its interval, which the lemma wants above 1; medians and largest values of the two norms,
    which it wants below 1.

    **Args:** `ax`, axes of matplotlib; `summary`, from `studies.lemma11.summarise`.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> ax, names = Figure().subplots(), ("level_ratio", "coupling_ratio", "product_ratio")
        >>> ends = ("mean", "mean_low", "mean_high", "median", "max")
        >>> numbers = {f"{name}_{end}": (("alpha", "width"), [[0.9, 1.0]]) for name in names for end in ends}
        >>> summary = xr.Dataset(numbers, {"alpha": [0.5], "width": [1e2, 1e4]}, {"h0": 1e3, "h0_level": 500.0})
        >>> ld.plots.ratios_against_width(ax, summary)
        >>> print(ax.get_title(), ax.lines[0].get_ydata())
        How far from failing [0.9 1. ]
    """
    widths, row = summary["width"].values, summary.isel(alpha=0)
    names = {
        "level_ratio": r"$\Delta/h^{1-2\alpha}$, mean",
        "coupling_ratio": "(34) norm/bound, median",
        "product_ratio": "(35) norm/bound, median",
    }
    for index, (name, text) in enumerate(names.items()):
        colour, marker = COLOURS[index], MARKERS[index]
        values = row[f"{name}_mean" if index == 0 else f"{name}_median"].values
        ax.plot(widths, values, color=colour, marker=marker, label=text)
        if index == 0:
            ax.fill_between(
                widths, row[f"{name}_mean_low"].values, row[f"{name}_mean_high"].values, color=colour, alpha=0.3
            )
        else:
            look = {"color": colour, "marker": marker, "mfc": "none", "ls": ":"}
            ax.plot(widths, row[f"{name}_max"].values, label=text.replace("median", "largest"), **look)
    if "level_left_mean" in row:
        look = {"color": COLOURS[0], "marker": MARKERS[3], "mfc": "none", "ls": "--"}
        ax.plot(widths, row["level_left_mean"].values, label="mean after descent", **look)
    ax.axhline(1, color="0.5", lw=0.8, ls="--", label="bound")
    for key, text in (("h0", "printed $h_0$"), ("h0_level", "$h_0$ for (33) alone")):
        if widths.min() <= summary.attrs[key] <= widths.max():
            ax.axvline(summary.attrs[key], color="0.3", lw=0.8, ls="-" if key == "h0" else "-.", label=text)
    ax.set(xscale="log", yscale="log", xlabel="hidden width $h$", ylabel="over the lemma's bound")
    ax.set_title("How far from failing")
    legend_below(ax, 2, -0.16)


def theorem12(summary, title: str):
    """The figure of the Theorem 12 study: distance and events against width.

    **Args:** `summary`, from `studies.theorem12.summarise`; `title`.

    **Returns:** a matplotlib figure, not attached to any window.

    Example:

        >>> import xarray as xr
        >>> events = ("level_is_large", "coupling_is_small", "product_is_small")
        >>> names = [event + end for event in events for end in ("", "_low", "_high")]
        >>> names += ["median", "q95", "sharp_rms", "log10_bound", "applies"]
        >>> numbers = {name: (("alpha", "width"), [[0.9, 0.8]]) for name in names}
        >>> numbers |= {name: ("alpha", [-0.5]) for name in ("slope", "slope_low", "slope_high", "sharp_slope")}
        >>> summary = xr.Dataset(numbers, {"alpha": [0.5], "width": [1e2, 1e4]}, {"delta": 0.1})
        >>> print([ax.get_title() for ax in ld.plots.theorem12(summary, "Theorem 12").axes])
        ['Median (band: to the 95% quantile)', 'How often events of Lemma 11 fail']
    """
    with panels(1, 2, (9.6, 4.6), title) as (figure, (left, right)):
        distance_against_width(left, summary)
        events_against_width(right, summary)
    return figure


def lemma11(summary, title: str):
    """The figure of the Lemma 11 study: events and ratios against width.

    **Args:** `summary`, from `studies.lemma11.summarise`; `title`.

    **Returns:** a matplotlib figure, not attached to any window.

    Example:

        >>> import xarray as xr
        >>> events = ("level_is_large", "coupling_is_small", "product_is_small")
        >>> names = [event + end for event in events for end in ("", "_low", "_high")]
        >>> ends = ("mean", "mean_low", "mean_high", "median", "max")
        >>> names += [f"{ratio}_ratio_{end}" for ratio in ("level", "coupling", "product") for end in ends]
        >>> numbers = {name: (("alpha", "width"), [[0.9, 0.8]]) for name in [*names, "disagree"]}
        >>> attrs = {"delta": 0.1, "h0": 1e3, "h0_level": 500.0}
        >>> summary = xr.Dataset(numbers, {"alpha": [0.5], "width": [1e2, 1e4]}, attrs)  # of studies.lemma11.summarise
        >>> print([ax.get_title() for ax in ld.plots.lemma11(summary, "Lemma 11").axes])
        ['How often events of Lemma 11 fail', 'How far from failing']
    """
    with panels(1, 2, (9.6, 4.6), title) as (figure, (left, right)):
        # Equal at all exponents, they would only hide each other.
        events_against_width(left, summary if summary["disagree"].any() else summary.isel(alpha=[0]))
        ratios_against_width(right, summary)
    return figure
