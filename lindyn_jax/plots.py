"""Drawing: functions `f(ax, data)` on axes, and the house style as a context.

Colours are those of Okabe and Ito, told apart by the colour-blind; line styles and markers differ as well, for print.
"""

import contextlib
import math
from pathlib import Path

import matplotlib as mpl
import matplotlib.figure
import numpy as np

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
        fitted = f", slope {slope:.3f} ± {half:.3f}" if math.isfinite(slope + half) else ""
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
            hidden.append(rf"$\alpha$ = {alpha:g}: bound from $10^{{{log10_bound[~seen].min():.3g}}}$ up, not drawn")
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
    """Frequencies of Lemma 11's events against width, with Wilson 95% intervals and the level 1 - delta."""
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
                marker=MARKERS[index % len(MARKERS)],
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


def save(figure, folder: Path, name: str = "figure") -> list[Path]:
    """Saves a figure as PNG and PDF in a folder and returns the two paths."""
    folder = Path(folder)
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    with style():
        for path in paths:
            figure.savefig(path)
    return paths
