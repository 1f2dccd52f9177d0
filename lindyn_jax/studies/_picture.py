"""The picture of a study that has none of its own."""

import matplotlib.figure

from .. import observables, plots
from ..plots.house import value_axis
from .study import Study, shown_of

# Of a statistic's name the end, and what a panel of it is headed with.
STATISTICS = {"": "", "_mean": "mean of ", "_max": "largest ", "_median": "median of ", "_q95": "95% quantile of "}
# Panels side by side, at most.
COLUMNS = 3


def drawn(study: Study, summary, title: str):
    """A panel for each statistic of the summary, against the last axis of the grid."""
    *rest, last = study.grid()
    names = [name for name in shown_of(summary, tuple(study.grid())) if name != "ok"]
    lines = summary.stack(line=rest).transpose("line", ...) if rest else summary.expand_dims("line")
    with plots.style():
        high = max(1, -(-len(names) // COLUMNS))
        wide = max(1, -(-len(names) // high))
        figure = matplotlib.figure.Figure(figsize=(3.4 * wide + 0.4, 2.8 * high + 0.4))
        panels = figure.subplots(high, wide, squeeze=False).ravel()
        for ax in panels[len(names) :]:
            ax.remove()
        for ax, name in zip(panels, names, strict=False):
            for index in range(lines.sizes["line"]):
                line = lines.isel(line=index)
                label = plots.literal(", ".join(f"{axis} = {float(line[axis]):g}" for axis in rest)) or None
                ax.plot(line[last], line[name], marker="o", label=label)
                if f"{name}_low" in lines:
                    ax.fill_between(line[last], line[f"{name}_low"], line[f"{name}_high"], alpha=0.3)
            heading, log = _heading(study, name)
            ax.set(xlabel=plots.literal(last), title=heading)
            if log:
                value_axis(ax)
            if len(lines[last]) > 1 and float(lines[last].min()) > 0 and lines[last].max() / lines[last].min() > 20:
                ax.set_xscale("log")
            if rest:
                ax.legend(frameon=False)
        figure.suptitle(title, fontsize=9)
        return figure


def _heading(study: Study, name: str) -> tuple[str, bool]:
    """The heading of the panel of a statistic, by what its output is called, and whether that asks for a logarithmic axis."""
    known = {**observables.attributes(), **study.attributes}
    output = next((name.removesuffix(end) for end in STATISTICS if name.removesuffix(end) in known), name)
    facts = known.get(output, {})
    of = STATISTICS[name.removeprefix(output)] if output in known else ""
    words = plots.literal(facts.get("long_name", name.replace("_", " ")))
    symbol = f", {facts['symbol']}" if "symbol" in facts else ""
    return f"{of}{words}{symbol}", facts.get("scale") == "log"
