"""M22 Figs. 3 and 6: the same product, four imbalances, from the same data."""

import math

import numpy as np
from matplotlib.lines import Line2D

from ..plots import (
    legend_below,
    losses_and_bounds,
    losses_on_a_linear_scale,
    mark,
    rates_and_bounds,
    tightness_against_time,
)
from ..studies.audit import audit, figure3, summarise
from ._common import Figure, Measured, listed, reporter


def compute(
    *, seed: int, trials: int, points: int, n: int = 500, samples: int = 100, h: int = 500, horizon: float | None = None
):
    """The audit of `studies.audit.figure3`: three scalings of a start with one product, and its balanced version."""
    preset = figure3(n=n, samples=samples, h=h, horizon=horizon, seed=seed)
    # Evenly in the logarithm of time: the fastest case is over before the slowest has begun.
    dataset = audit(
        preset.problem,
        preset.starts,
        trials,
        points=points,
        spacing="log",
        seed=seed,
        progress=reporter(),
        **preset.options,
    )
    summary = summarise(dataset, 0.1)
    for name in ("succeeded", "loss_crossed", "rate_crossed"):
        summary[f"each_{name}"] = dataset[name].astype(bool)
    summary = summary.rename(each_succeeded="ok")
    summary["time"].attrs = {"long_name": "time of the flow; for descent, steps times step size"}
    return summary.assign(loss_scale=float(preset.problem.scale))


# Slowest first, as the paper's figure orders them.
SLOWEST_FIRST = ("balanced", "case 1", "case 3", "case 2")


def measure_imbalances(summary) -> Measured:
    cases = [name for name in SLOWEST_FIRST if name in summary["case"].values]
    row = summary.sel(case=cases)
    levels = row["imbalance_level"].values
    to = {name: row["time_to_ratio"].sel(dynamics=name).values for name in ("flow", "descent")}
    order = [cases[i] for i in np.argsort(-to["flow"], kind="stable")]
    crossed = int(summary["each_loss_crossed"].sum() + summary["each_rate_crossed"].sum())
    numbers = {
        "slowest first": order,
        "Delta": levels.tolist(),
        "time to a tenth of the loss, flow": to["flow"].tolist(),
        "time to a tenth of the loss, descent": to["descent"].tolist(),
        "bounds crossed": crossed,
    }
    text = (
        f"order of speed {' < '.join(order)}: for {', '.join(cases)} Delta = {listed(np.where(levels < 1e-9, 0, levels))} "
        f"and a tenth of the loss is reached at t = {listed(to['flow'])} by flow, {listed(to['descent'])} by descent; {crossed} "
        "crossings of a bound whose hypotheses hold"
    )
    return Measured(text, numbers)


def measure_rates(summary) -> Measured:
    cases = [name for name in SLOWEST_FIRST if name in summary["case"].values]
    row = summary.sel(case=cases).isel(dynamics=0)
    tight = row["rate_tightness_median"].sel(rate_statement="proposition1").transpose("case", "time").values
    # Beyond the last one the losses are not resolved.
    last = [max(np.flatnonzero(np.isfinite(values)), default=0) for values in tight]
    numbers = {
        "rate at the start": row["rate"].transpose("case", "time").values[:, 0].tolist(),
        "Prop. 1 / rate at the start": tight[:, 0].tolist(),
        "Prop. 1 / rate at the end": [float(values[i]) for values, i in zip(tight, last, strict=True)],
        "largest bound / rate": {
            name: float(summary["rate_tightness_largest"].sel(rate_statement=name).max())
            for name in ("lemma7", "proposition1")
        },
        "bounds on the rate crossed": int(summary["each_rate_crossed"].sum()),
    }
    begin, end, largest = (
        numbers[f"{name} / rate{at}"]
        for name, at in (("Prop. 1", " at the start"), ("Prop. 1", " at the end"), ("largest bound", ""))
    )
    text = (
        f"for {', '.join(cases)}: median rate {listed(numbers['rate at the start'])} at the start, and median of Prop. 1 "
        f"over the rate {listed(begin)} there and {listed(end)} at the last time resolved, {listed(row['time'].values[last])}; "
        f"at no state is it more than {largest['proposition1']:.4g}, or Lemma 7 over the rate more than {largest['lemma7']:.4g}; "
        f"{numbers['bounds on the rate crossed']} crossings"
    )
    return Measured(text, numbers)


def _cases(figure, summary) -> None:
    labels = {"case 1": "case 1: .1, .1", "case 2": "case 2: .5, .02", "case 3": "case 3: .05, .2"}
    handles = [Line2D([], [], **mark(i)) for i in range(summary.sizes["case"])]
    texts = [labels.get(str(case), str(case)) for case in summary["case"].values]
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), title="standard deviations of $U$, $V$")


def draw_figure3(figure, summary) -> None:
    left, middle, right = figure.subplots(1, 3)
    losses_on_a_linear_scale(left, summary)
    losses_and_bounds(middle, summary)
    rates_and_bounds(right, summary)
    for ax in (middle, right):
        legend_below(ax, 3, -0.2)
    _cases(figure, summary)


def draw_figure6(figure, summary) -> None:
    left, middle, right = figure.subplots(1, 3)
    rates_and_bounds(left, summary)
    legend_below(left, 3, -0.2)
    tightness_against_time(middle, summary)
    _draw_times(right, summary)
    _cases(figure, summary)


def _draw_times(ax, summary) -> None:
    # Around each other: the two times agree to a few percent.
    looks = {"flow": {"ms": 4}, "descent": {"ms": 8, "mfc": "none"}}
    for i, case in enumerate(summary["case"].values):
        level = max(float(summary["imbalance_level"].sel(case=case)), 0.1)
        for dynamics, look in looks.items():
            to = float(summary["time_to_ratio"].sel(case=case, dynamics=dynamics))
            ax.plot(level, to, **mark(i), ls="none", **look)
    for dynamics, look in looks.items():
        ax.plot([], [], color="0.3", marker="o", ls="none", label=dynamics, **look)
    line = np.geomspace(1, 2 * float(summary["imbalance_level"].max()), 50)
    at_most = math.log(10) / (2 * float(summary["loss_scale"]) * line)
    label = r"Cor. 4, at most $\log 10/(2 q \Delta)$"
    ax.plot(line, at_most, color="0.3", ls="--", lw=1, label=label)
    ax.set(xscale="log", yscale="log", xlabel=r"level $\Delta$ (0 drawn at 0.1)")
    ax.set_ylabel("time to a tenth of the loss (median)")
    ax.set_title("What imbalance buys")
    legend_below(ax, 2, -0.2)


# In full, and quick.
AUDIT = ({"trials": 20, "points": 61}, {"trials": 2, "points": 31, "n": 200, "samples": 40, "h": 200})


FIGURES = {
    "m22-figure3": Figure(
        "M22 Fig. 3",
        "the same product, four imbalances",
        "order of speed balanced < case 1 < case 3 < case 2",
        compute,
        measure_imbalances,
        draw_figure3,
        *AUDIT,
        size=(9.6, 4.0),
        reference="at other starts Delta is about 0, 6, 19 and 41 in this order",
    ),
    "m22-figure6": Figure(
        "M22 Fig. 6",
        "the same product, four imbalances: rates and bounds",
        "order of speed balanced < case 1 < case 3 < case 2, and bounds on the rate that hold all along",
        compute,
        measure_rates,
        draw_figure6,
        *AUDIT,
        size=(9.6, 4.0),
    ),
}
