"""Drawing: functions `f(ax, data)` on axes, and the house style as a context.

Colours are those of Okabe and Ito, told apart by the colour-blind. For print, what is compared differs in its markers as well,
and the quantities drawn of each in their line styles.
"""

import contextlib
import logging
import math
import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.figure
import matplotlib.lines
import numpy as np

from .data._common import on_one_line
from .observables import attributes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@contextlib.contextmanager
def style():
    """The house style: small, vector-friendly, readable in print."""
    with mpl.rc_context(
        {
            "font.size": 9,
            "axes.titlesize": 9,
            "legend.fontsize": 7.5,
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
    """`text` as matplotlib shows it letter by letter: for names that users give, in titles, labels and legends.

    A dollar sign would start mathematics, and what cannot be printed cannot be drawn.

    **Args:** `text`, of which line breaks, terminal codes and undecodable bytes are escaped.
    """
    return on_one_line(str(text)).replace("$", r"\$")


def _look(index: int, count: int = 1, *, hollow: bool = False, every: float = 0.12) -> dict:
    """Colour and markers of one case of `count`, the markers evenly along its curve and beside those of the other cases."""
    # Hollow ones, of a bound, between the full ones, of what it bounds.
    start = 0.05 + index / max(count, 1) + (0.5 if hollow else 0)
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "markevery": (start % 1 * every, every),
        "markersize": 4.5 if hollow else 4,
        **({"markerfacecolor": "none"} if hollow else {}),
    }


def distance_against_width(ax, summary) -> None:
    """Distance to the minimum-norm solution against width: median to 95% quantile, sharp law, and bound where it fits."""
    widths = summary["width"].values
    top = np.nanmax(np.where(np.isfinite(summary["q95"].values), summary["q95"].values, np.nan), initial=1e-12)
    hidden = []
    for index, alpha in enumerate(summary["alpha"].values):
        row = summary.isel(alpha=index)
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        median, q95 = row["median"].values, row["q95"].values
        ax.fill_between(widths, median, q95, color=colour, alpha=0.2, linewidth=0)
        slope, half = float(row["slope"]), (float(row["slope_high"]) - float(row["slope_low"])) / 2
        fitted = f", slope {slope:.3f} ± {half:.1g}" if math.isfinite(slope + half) else ""
        label = rf"$\alpha$ = {alpha:g}{fitted} (sharp law {float(row['sharp_slope']):.3f})"
        ax.plot(widths, median, marker=marker, color=colour, linestyle="none", label=label)
        ax.plot(widths, row["sharp_rms"].values, color=colour, linestyle="--", linewidth=1)
        log10_bound = row["log10_bound"].values
        seen = log10_bound < math.log10(top) + 12
        applies = row["applies"].values.astype(bool)
        if np.any(seen):
            ax.plot(widths[seen], 10 ** log10_bound[seen], color=colour, linestyle=":", linewidth=1)
            met = seen & applies
            ax.plot(widths[met], 10 ** log10_bound[met], marker="*", color=colour, linestyle="none", markersize=7)
        if not np.all(seen):
            hidden.append(rf"$\alpha$ = {alpha:g}: bound from $10^{{{log10_bound[~seen].min():.1f}}}$ up, not drawn")
    ax.set(xscale="log", yscale="log", xlabel="hidden width $h$")
    ax.set_ylabel(r"$\|\Theta(\infty) - \hat\Theta\|_F$")
    ax.plot([], [], color="0.3", linestyle="--", linewidth=1, label="sharp law (rms)")
    ax.plot(
        [],
        [],
        color="0.3",
        linestyle=":",
        marker="*",
        linewidth=1,
        label="Theorem 12, a bound on the 2-norm (star: hypothesis met)",
    )
    for text in hidden:
        ax.plot([], [], linestyle="none", label=text)
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    ax.set_title("Median (band: to the 95% quantile)")


def events_against_width(ax, summary) -> None:
    """Frequencies of Lemma 11's events against width, with exact 95% intervals and the level 1 - delta."""
    widths = summary["width"].values
    names = {
        "level_is_large": "(33) imbalance",
        "coupling_is_small": "(34) coupling",
        "product_is_small": "(35) product",
    }
    count = len(names) * len(summary["alpha"])
    for index, alpha in enumerate(summary["alpha"].values):
        row = summary.isel(alpha=index)
        for event, (name, text) in enumerate(names.items()):
            value = row[name].values
            errors = np.abs(np.stack([value - row[f"{name}_low"].values, row[f"{name}_high"].values - value]))
            # Side by side, so that events that always hold do not hide each other.
            shift = 10 ** (0.05 * (index * len(names) + event - (count - 1) / 2))
            ax.errorbar(
                widths * shift,
                value,
                yerr=errors,
                color=COLOURS[event],
                marker=MARKERS[(index * len(names) + event) % len(MARKERS)],
                linestyle="none",
                linewidth=0.8,
                markersize=3,
                label=f"{text}" + (rf", $\alpha$ = {alpha:g}" if len(summary["alpha"]) > 1 else ""),
            )
    delta = summary.attrs["delta"]
    ax.axhline(1 - delta, color="0.5", linewidth=0.8, linestyle="--", label=rf"$1 - \delta$ = {1 - delta:g}")
    ax.set(xscale="log", ylim=(-0.05, 1.05), xlabel="hidden width $h$", ylabel="frequency (95% interval)")
    ax.set_title("Events of Lemma 11")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2 if count > 3 else 1)


def theorem12(summary, title: str):
    """The figure of the Theorem 12 study: distance and events against width.

    **Args:** `summary`, from `studies.theorem12.summarise`; `title`.

    **Returns:** a matplotlib figure, not attached to any window.
    """
    with style():
        figure = mpl.figure.Figure(figsize=(9.6, 4.6))
        left, right = figure.subplots(1, 2)
        distance_against_width(left, summary)
        events_against_width(right, summary)
        figure.suptitle(title, fontsize=9)
        return figure


def ratios_against_width(ax, summary) -> None:
    """The three numbers of Lemma 11 over their bounds, against width, at the first exponent: the law is the same at all.

    The mean of the level with its interval, which the lemma wants above 1; medians and largest values of the two norms,
    which it wants below 1.
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
            look = {"color": colour, "marker": marker, "markerfacecolor": "none", "linestyle": ":"}
            ax.plot(widths, row[f"{name}_max"].values, label=text.replace("median", "largest"), **look)
    ax.axhline(1, color="0.5", linewidth=0.8, linestyle="--", label="bound")
    for key, text in (("h0", "printed $h_0$"), ("h0_level", "$h_0$ for (33) alone")):
        if widths.min() <= summary.attrs[key] <= widths.max():
            ax.axvline(
                summary.attrs[key], color="0.3", linewidth=0.8, linestyle="-" if key == "h0" else "-.", label=text
            )
    ax.set(xscale="log", yscale="log", xlabel="hidden width $h$", ylabel="over the lemma's bound")
    ax.set_title("How far from failing")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def lemma11(summary, title: str):
    """The figure of the Lemma 11 study: events and ratios against width.

    **Args:** `summary`, from `studies.lemma11.summarise`; `title`.

    **Returns:** a matplotlib figure, not attached to any window.
    """
    with style():
        figure = mpl.figure.Figure(figsize=(9.6, 4.6))
        left, right = figure.subplots(1, 2)
        # Equal at all exponents, they would only hide each other.
        events_against_width(left, summary if summary["disagree"].any() else summary.isel(alpha=[0]))
        ratios_against_width(right, summary)
        figure.suptitle(title, fontsize=9)
        return figure


def save(figure, folder: Path, name: str = "figure") -> list[Path]:
    """Saves a figure as PNG and PDF in a folder and returns the two paths."""
    folder = Path(folder)
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    # The font's own date makes its subsetter complain in every PDF.
    log = logging.getLogger("fontTools")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with style(), warnings.catch_warnings():
            # A name in a script that the font lacks is drawn as boxes.
            warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
            for path in paths:
                figure.savefig(path)
    finally:
        log.setLevel(level)
    return paths


# -- one trajectory ------------------------------------------------------------------------------------------------------


def _facts(dataset, name: str) -> dict[str, str]:
    """What is known of an observable: from the dataset, or by its name."""
    return attributes().get(name, {}) | dataset[name].attrs


def observables_against_time(ax, dataset, names, logarithmic: bool) -> None:
    """Some observables of one trajectory against time, each with all its components; one alone is named on the axis."""
    time, drawn = dataset["time"].values, False
    for index, name in enumerate(names):
        values = dataset[name].values.reshape(len(time), -1)
        if logarithmic:
            values = np.where(values > 0, values, np.nan)
        facts = _facts(dataset, name)
        label = facts.get("symbol", literal(name))
        label += f" [{literal(facts['units'])}]" if facts.get("units", "1") != "1" else ""
        if len(names) == 1:
            ax.set_ylabel(label)
        if not np.any(np.isfinite(values)):
            ax.plot([], [], linestyle="none", label=f"{label}: {'never positive' if logarithmic else 'not finite'}")
            continue
        drawn = True
        for component in range(values.shape[1]):
            several = values.shape[1] > 1
            ax.plot(
                time,
                values[:, component],
                color=COLOURS[(component if several else index) % len(COLOURS)],
                linestyle=("-", "--", ":", "-.")[index % 4],
                marker=MARKERS[index % len(MARKERS)] if len(time) <= 12 else None,
                label=None if several or len(names) == 1 else label,
            )
    _time_axis(ax, time)
    if drawn and logarithmic:
        _value_axis(ax)
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False)


def trajectory(dataset, title: str):
    """The figure of one trajectory: a panel for each group of observables, and one for each that is in no group.

    **Args:** `dataset`, from `studies.simulate`; `title`.

    **Returns:** a matplotlib figure, not attached to any window.
    """
    panels: dict[str, list[str]] = {}
    for name in dataset.data_vars:
        facts = _facts(dataset, name)
        panels.setdefault(facts.get("panel", literal(facts.get("long_name", name))), []).append(name)
    columns = min(len(panels), 3 if len(panels) != 4 else 2)
    rows = -(-len(panels) // columns)
    with style():
        figure = mpl.figure.Figure(figsize=(3.4 * columns + 0.4, 2.8 * rows + 0.3))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, (text, names) in zip(axes, panels.items(), strict=False):
            observables_against_time(
                ax, dataset, names, any(_facts(dataset, name).get("scale") == "log" for name in names)
            )
            ax.set_title(text)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        figure.suptitle(title, fontsize=9)
        return figure


# -- the audit -----------------------------------------------------------------------------------------------------------


def losses_and_bounds(ax, summary) -> None:
    """Median excess loss of every case by flow (line) and descent (full markers), and Theorem 3's bound (dashed, hollow)."""
    time, count = summary["time"].values, summary.sizes["case"]
    start = float(summary["excess_loss"].isel(time=0).max())
    first, *others = summary["dynamics"].values
    for index, case in enumerate(summary["case"].values):
        row, look = summary.sel(case=case), _look(index, count, every=0.08)
        values = row["excess_loss"].sel(dynamics=first).values
        # Descent's markers are on the line, where there is descent.
        ax.plot(time, values, **({"color": look["color"]} if others else look))
        for dynamics in others:
            ax.plot(time, row["excess_loss"].sel(dynamics=dynamics).values, linestyle="none", **look)
        bound = row["loss_bound"].sel(statement="theorem3").isel(dynamics=0).values
        ax.plot(time, bound, linestyle="--", linewidth=1, **_look(index, count, hollow=True))
    grey = {"color": "0.3"}
    ax.plot([], [], marker=None if others else "o", label=str(first), **grey)
    for dynamics in others:
        ax.plot([], [], linestyle="none", marker="o", label=str(dynamics), **grey)
    bound = {"linestyle": "--", "linewidth": 1, "marker": "o", "markerfacecolor": "none"}
    ax.plot([], [], label="Theorem 3", **bound, **grey)
    _time_axis(ax, time)
    ax.set(yscale="log", ylim=(1e-9 * start, 3 * start), ylabel="excess loss $L - L^*$ (median)")
    ax.set_title("Loss and its bound")
    ax.legend(frameon=False)


def losses_on_a_linear_scale(ax, summary) -> None:
    """Median excess loss of every case along the first dynamics."""
    time, count = summary["time"].values, summary.sizes["case"]
    for index, case in enumerate(summary["case"].values):
        ax.plot(time, summary["excess_loss"].sel(case=case).isel(dynamics=0).values, **_look(index, count))
    ax.set(xlabel="time $t$", xlim=(0, time[-1]), ylim=(0, None), ylabel="excess loss $L - L^*$ (median)")
    ax.set_title("Loss")


def rates_and_bounds(ax, summary) -> None:
    """Median rate of every case along the first dynamics (full markers), with Prop. 1 (dashed, hollow) and Lemma 7 (band)."""
    time, count = summary["time"].values, summary.sizes["case"]
    # The two often agree: one is drawn wide and pale below the other.
    wide, dashed = {"linewidth": 4, "alpha": 0.3}, {"linestyle": "--", "linewidth": 1}
    shown = summary.isel(dynamics=0)
    for index, case in enumerate(summary["case"].values):
        row = shown.sel(case=case)
        bounds = row["rate_bound"].where(row["rate_bound"] > 0)
        ax.plot(time, row["rate"].values, **_look(index, count))
        ax.plot(time, bounds.sel(rate_statement="lemma7").values, color=COLOURS[index % len(COLOURS)], **wide)
        look = _look(index, count, hollow=True)
        ax.plot(time, bounds.sel(rate_statement="proposition1").values, **look, **dashed)
    ax.plot([], [], color="0.3", marker="o", label="rate")
    ax.plot([], [], color="0.3", label="Lemma 7", **wide)
    ax.plot([], [], color="0.3", marker="o", markerfacecolor="none", label="Proposition 1", **dashed)
    _time_axis(ax, time)
    _value_axis(ax)
    ax.set_ylabel("rate $-L'/(L - L^*)$ (median)")
    ax.set_title("Instantaneous rate and its lower bounds")
    ax.legend(frameon=False)


def tightness_against_time(ax, summary) -> None:
    """Proposition 1 over the rate against time: median and the range from 5% to 95% of the starts."""
    time, count = summary["time"].values, summary.sizes["case"]
    for index, case in enumerate(summary["case"].values):
        row = summary.sel(case=case, rate_statement="proposition1").isel(dynamics=0)
        look = _look(index, count)
        low, median, high = (row[f"rate_tightness_{part}"].values for part in ("low", "median", "high"))
        ax.fill_between(time, low, high, color=look["color"], alpha=0.2, linewidth=0)
        ax.plot(time, median, **look)
    ax.axhline(1, color="0.5", linewidth=0.8)
    _time_axis(ax, time)
    ax.set(ylim=(-0.03, 1.05), ylabel="Prop. 1 / rate (median, 5% to 95%)")
    ax.set_title("Tightness over time and starts")


def hypotheses_and_tightness(ax, summary) -> None:
    """How often the hypotheses hold, with exact intervals, for the statements on the loss that have one."""
    names = {"corollary4": "Cor. 4", "corollary5": "Cor. 5", "corollary6": "Cor. 6"}
    cases = summary["case"].values
    for index, (statement, text) in enumerate(names.items()):
        row = summary.sel(statement=statement).isel(dynamics=0)
        value = row["applies"].values
        errors = np.abs(np.stack([value - row["applies_low"].values, row["applies_high"].values - value]))
        ax.errorbar(
            np.arange(len(cases)) + 0.15 * (index - 1),
            value,
            yerr=errors,
            color=COLOURS[index],
            marker=MARKERS[index],
            linestyle="none",
            linewidth=0.8,
            label=f"{text}: hypothesis met",
        )
        best = row["loss_tightness_largest"].values
        ax.plot(
            np.arange(len(cases)) + 0.15 * (index - 1) + 0.05,
            best,
            color=COLOURS[index],
            marker="_",
            markersize=8,
            markeredgewidth=1.5,
            linestyle="none",
        )
    ax.plot(
        [], [], color="0.3", marker="_", markersize=8, linestyle="none", label="largest promised / achieved decrease"
    )
    ax.axhline(1, color="0.5", linewidth=0.8)
    ax.set_xticks(np.arange(len(cases)), [literal(case) for case in cases], rotation=20 if len(cases) > 3 else 0)
    ax.set(ylim=(-0.05, 1.45), ylabel="frequency (95% interval); ratio")
    ax.set_title("Statements on the loss")
    ax.legend(frameon=False, loc="upper left", ncols=2)


def audit(summary, title: str):
    """The figure of an audit: losses, rates, tightness over time, and how often the hypotheses hold.

    **Args:** `summary`, from `studies.audit.summarise`; `title`.

    **Returns:** a matplotlib figure, not attached to any window.
    """
    with style():
        figure = mpl.figure.Figure(figsize=(9.6, 7.2))
        (first, second), (third, fourth) = figure.subplots(2, 2)
        losses_and_bounds(first, summary)
        rates_and_bounds(second, summary)
        tightness_against_time(third, summary)
        hypotheses_and_tightness(fourth, summary)
        handles = [mpl.lines.Line2D([], [], **_look(i)) for i in range(summary.sizes["case"])]
        labels = [literal(case) for case in summary["case"].values]
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
        figure.suptitle(title, fontsize=9)
        return figure


def _value_axis(ax) -> None:
    """Logarithmic if the positive values drawn span more than a decade."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    values = values[np.isfinite(values) & (values > 0)]
    if values.size and values.max() > 10 * values.min():
        ax.set_yscale("log")


def _time_axis(ax, time) -> None:
    """Logarithmic if the times are spaced by factors; the time 0 is then left out."""
    if len(time) > 3 and time[1] < 1e-4 * time[-1]:
        ax.set(xscale="log", xlim=(time[1], time[-1]))
    ax.set_xlabel("time $t$")


# -- the fit of lambda0 --------------------------------------------------------------------------------------------------

PATH_LOOKS = {
    "flow": {"linestyle": "-"},
    "homogeneous": {"linestyle": "--"},
    "wide limit": {"linestyle": ":"},
}


def path_errors(ax, dataset) -> None:
    """Relative error of the first start of every width against time over its horizon: flow, homogeneous, wide limit."""
    for index, width in enumerate(dataset["width"].values):
        row = dataset.sel(width=width).isel(trial=0)
        time = row["time"].values / row["time"].values[-1]
        for path, look in PATH_LOOKS.items():
            ax.plot(time, row["error"].sel(path=path).values, **_look(index, dataset.sizes["width"]), **look)
        ax.plot([], [], label=f"$h$ = {width:g}", **_look(index))
    for path, look in PATH_LOOKS.items():
        ax.plot([], [], color="0.3", label=path, **look)
    ax.set(yscale="log", xlabel="$t/T$", ylabel=r"$\|E\|_F / \|\tilde Y\|_F$")
    ax.set_title("Reconstruction error, first start")
    ax.legend(frameon=False)


def path_singular_values(ax, dataset) -> None:
    """Singular values of the first start of the first width: flow, homogeneous, wide limit."""
    row = dataset.isel(width=0, trial=0)
    for mode in range(row.sizes["mode"]):
        for path, look in PATH_LOOKS.items():
            values = row["singular_values"].sel(path=path).isel(mode=mode).values
            ax.plot(row["time"].values, values, **_look(mode, row.sizes["mode"]), **look)
    ax.set(xlabel="$t$", ylabel=r"singular values of $\Theta$")
    ax.set_title(f"Singular values, $h$ = {float(row['width']):g}")


def mismatch_against_width(ax, summary) -> None:
    """Mean of sqrt J against width: homogeneous imbalance at its best, at lambda0 = 0, and the wide limit."""
    widths = summary["width"].values
    names = {
        "root": "homogeneous, better sign",
        "root_zero": r"homogeneous, $\lambda_0 = 0$",
        "root_wide": "wide limit",
    }
    for index, (name, text) in enumerate(names.items()):
        ax.plot(widths, summary[name].values, color=COLOURS[index], marker=MARKERS[index], label=text)
    ax.set(xscale="log", yscale="log", xlabel="hidden width $h$", ylabel=r"$\sqrt{J}$, mean")
    ax.set_title("Distance from the flow")
    ax.legend(frameon=False)


def fit_lambda0(dataset, summary, title: str):
    """The figure of the lambda0 study, in the manner of T21 Fig. 2: errors, singular values, and the distance against width.

    **Args:** `dataset`, from `studies.fit_lambda0.run`; `summary`, from its `summarise`; `title`.

    **Returns:** a matplotlib figure, not attached to any window.
    """
    with style():
        figure = mpl.figure.Figure(figsize=(11, 3.6))
        first, second, third = figure.subplots(1, 3)
        path_errors(first, dataset)
        path_singular_values(second, dataset)
        mismatch_against_width(third, summary)
        figure.suptitle(title, fontsize=9)
        return figure
