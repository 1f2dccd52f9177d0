"""The audit: losses and rates beside their bounds."""

import numpy as np
from matplotlib.lines import Line2D

from .house import COLOURS, MARKERS, case_look, curve, literal, panels, ribbon, time_axis, value_axis


def losses_and_bounds(ax, summary) -> None:
    """Median excess loss of every case by flow (line) and descent (full markers), and Theorem 3's bound (dashed, hollow).

    **Args:** `ax`, axes of matplotlib; `summary`, from `studies.audit.summarise`.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> coords = {"case": ["wide"], "dynamics": ["flow"], "statement": ["theorem3"], "time": [0.0, 1.0, 2.0]}
        >>> dims, ax = ("case", "dynamics", "time"), Figure().subplots()
        >>> arrays = {"excess_loss": (dims, [[[2.5, 0.1, 0.01]]])}
        >>> arrays["loss_bound"] = (("case", "dynamics", "statement", "time"), [[[[2.5, 0.5, 0.1]]]])
        >>> ld.plots.losses_and_bounds(ax, xr.Dataset(arrays, coords))
        >>> print(ax.get_title(), ax.lines[0].get_ydata(), ax.lines[1].get_ydata())
        Loss and its bound [2.5  0.1  0.01] [2.5 0.5 0.1]
    """
    time, count = summary["time"].values, summary.sizes["case"]
    start = float(summary["excess_loss"].isel(time=0).max())
    first, *others = summary["dynamics"].values
    for index, case in enumerate(summary["case"].values):
        row, look = summary.sel(case=case), case_look(index, count, every=0.08)
        values = row["excess_loss"].sel(dynamics=first).values
        # Descent's markers are on the line, where there is descent.
        curve(ax, time, values, **({"color": look["color"]} if others else look))
        for dynamics in others:
            curve(ax, time, row["excess_loss"].sel(dynamics=dynamics).values, ls="none", **look)
        bound = row["loss_bound"].sel(statement="theorem3").isel(dynamics=0).values
        curve(ax, time, bound, ls="--", lw=1, **case_look(index, count, hollow=True))
    grey = {"color": "0.3"}
    ax.plot([], [], marker=None if others else "o", label=str(first), **grey)
    for dynamics in others:
        ax.plot([], [], ls="none", marker="o", label=str(dynamics), **grey)
    bound = {"ls": "--", "lw": 1, "marker": "o", "mfc": "none"}
    ax.plot([], [], label="Theorem 3", **bound, **grey)
    time_axis(ax, time)
    ax.set(yscale="log", ylim=(1e-9 * start, 3 * start), ylabel="excess loss $L - L^*$ (median)")
    ax.set_title("Loss and its bound")
    ax.legend()


def losses_on_a_linear_scale(ax, summary) -> None:
    """Median excess loss of every case along the first dynamics.

    **Args:** `ax`, axes of matplotlib; `summary`, from `studies.audit.summarise`.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> coords = {"case": ["wide"], "dynamics": ["flow"], "time": [0.0, 1.0, 2.0]}
        >>> losses, ax = xr.DataArray([[[2.5, 0.1, 0.01]]], coords), Figure().subplots()
        >>> ld.plots.losses_on_a_linear_scale(ax, xr.Dataset({"excess_loss": losses}))
        >>> print(ax.get_title(), ax.get_yscale(), ax.lines[0].get_ydata())
        Loss linear [2.5  0.1  0.01]
    """
    time, count = summary["time"].values, summary.sizes["case"]
    for index, case in enumerate(summary["case"].values):
        curve(ax, time, summary["excess_loss"].sel(case=case).isel(dynamics=0).values, **case_look(index, count))
    ax.set(xlabel="time $t$", xlim=(0, time[-1]), ylim=(0, None), ylabel="excess loss $L - L^*$ (median)")
    ax.set_title("Loss")


def rates_and_bounds(ax, summary) -> None:
    """Median rate of every case along the first dynamics (full markers), with Prop. 1 (dashed, hollow) and Lemma 7 (band).

    **Args:** `ax`, axes of matplotlib; `summary`, from `studies.audit.summarise`.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> names, ax = ["lemma7", "proposition1"], Figure().subplots()
        >>> coords = {"case": ["wide"], "dynamics": ["flow"], "rate_statement": names, "time": [0.0, 1.0, 2.0]}
        >>> bounds = xr.DataArray([[[[4.0, 5.4, 5.6], [4.0, 5.3, 5.5]]]], coords)
        >>> rates = bounds.isel(rate_statement=0, drop=True) + 0.5
        >>> ld.plots.rates_and_bounds(ax, xr.Dataset({"rate": rates, "rate_bound": bounds}))
        >>> print(ax.get_title(), ax.lines[0].get_ydata())
        Instantaneous rate and its lower bounds [4.5 5.9 6.1]
    """
    time, count = summary["time"].values, summary.sizes["case"]
    # The two often agree: one is drawn wide and pale below the other.
    wide, dashed = {"lw": 4, "alpha": 0.3}, {"ls": "--", "lw": 1}
    shown = summary.isel(dynamics=0)
    for index, case in enumerate(summary["case"].values):
        row = shown.sel(case=case)
        bounds = row["rate_bound"].where(row["rate_bound"] > 0)
        curve(ax, time, row["rate"].values, **case_look(index, count))
        curve(ax, time, bounds.sel(rate_statement="lemma7").values, color=COLOURS[index % len(COLOURS)], **wide)
        look = case_look(index, count, hollow=True)
        curve(ax, time, bounds.sel(rate_statement="proposition1").values, **look, **dashed)
    ax.plot([], [], color="0.3", marker="o", label="rate")
    ax.plot([], [], color="0.3", label="Lemma 7", **wide)
    ax.plot([], [], color="0.3", marker="o", mfc="none", label="Proposition 1", **dashed)
    time_axis(ax, time)
    value_axis(ax)
    ax.set_ylabel("rate $-L'/(L - L^*)$ (median)")
    ax.set_title("Instantaneous rate and its lower bounds")
    ax.legend()


def tightness_against_time(ax, summary) -> None:
    """Proposition 1 over the rate against time: median and the range from 5% to 95% of the starts.

    **Args:** `ax`, axes of matplotlib; `summary`, from `studies.audit.summarise`.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> names, ax = ["proposition1"], Figure().subplots()
        >>> coords = {"case": ["wide"], "dynamics": ["flow"], "rate_statement": names, "time": [0.0, 1.0, 2.0]}
        >>> shares = xr.DataArray([[[[0.99, 0.8, 0.9]]]], coords)
        >>> summary = xr.Dataset({f"rate_tightness_{part}": shares for part in ("low", "median", "high")})
        >>> ld.plots.tightness_against_time(ax, summary)
        >>> print(ax.get_ylabel(), ax.lines[0].get_ydata())
        Prop. 1 / rate (median, 5% to 95%) [0.99 0.8  0.9 ]
    """
    time, count = summary["time"].values, summary.sizes["case"]
    for index, case in enumerate(summary["case"].values):
        row = summary.sel(case=case, rate_statement="proposition1").isel(dynamics=0)
        parts = (row[f"rate_tightness_{part}"].values for part in ("low", "median", "high"))
        ribbon(ax, time, *parts, **case_look(index, count))
    ax.axhline(1, color="0.5", lw=0.8)
    time_axis(ax, time)
    ax.set(ylim=(-0.03, 1.05), ylabel="Prop. 1 / rate (median, 5% to 95%)")
    ax.set_title("Tightness over time and starts")


def hypotheses_and_tightness(ax, summary) -> None:
    """How often the hypotheses hold, with exact intervals, for the statements on the loss that have one.

    **Args:** `ax`, axes of matplotlib; `summary`, from `studies.audit.summarise`.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> statements, ax = ["corollary4", "corollary5", "corollary6"], Figure().subplots()
        >>> coords = {"case": ["wide"], "dynamics": ["flow"], "statement": statements}
        >>> shares = xr.DataArray([[[1.0, 0.0, 1.0]]], coords)
        >>> names = ("applies", "applies_low", "applies_high", "loss_tightness_largest")
        >>> ld.plots.hypotheses_and_tightness(ax, xr.Dataset({name: shares for name in names}))
        >>> print(ax.get_title(), [tick.get_text() for tick in ax.get_xticklabels()], ax.lines[0].get_ydata())
        Statements on the loss ['wide'] [1.]
    """
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
            ls="none",
            lw=0.8,
            label=f"{text}: hypothesis met",
        )
        best = row["loss_tightness_largest"].values
        ax.plot(
            np.arange(len(cases)) + 0.15 * (index - 1) + 0.05,
            best,
            color=COLOURS[index],
            marker="_",
            ms=8,
            markeredgewidth=1.5,
            ls="none",
        )
    ax.plot([], [], color="0.3", marker="_", ms=8, ls="none", label="largest promised / achieved decrease")
    ax.axhline(1, color="0.5", lw=0.8)
    ax.set_xticks(np.arange(len(cases)), [literal(case) for case in cases], rotation=20 if len(cases) > 3 else 0)
    ax.set(ylim=(-0.05, 1.45), ylabel="frequency (95% interval); ratio")
    ax.set_title("Statements on the loss")
    ax.legend(loc="upper left", ncols=2)


def audit(summary, title: str):
    """The figure of an audit: losses, rates, tightness over time, and how often the hypotheses hold.

    **Args:** `summary`, from `studies.audit.summarise`; `title`.

    **Returns:** a matplotlib figure, not attached to any window.

    Example:

        >>> import xarray as xr
        >>> coords = {"case": ["wide"], "dynamics": ["flow"], "time": [0.0, 1.0, 2.0]}
        >>> coords |= {"rate_statement": ["lemma7", "proposition1"]}
        >>> coords["statement"] = ["corollary4", "corollary5", "corollary6", "theorem3"]
        >>> made = lambda *axes: (("case", "dynamics", *axes), np.full([1, 1, *(len(coords[axis]) for axis in axes)], 0.5))
        >>> numbers = dict.fromkeys(("excess_loss", "rate"), made("time")) | {"loss_bound": made("statement", "time")}
        >>> names = ("rate_bound", "rate_tightness_low", "rate_tightness_median", "rate_tightness_high")
        >>> numbers |= dict.fromkeys(names, made("rate_statement", "time"))
        >>> names = ("applies", "applies_low", "applies_high", "loss_tightness_largest")
        >>> numbers |= dict.fromkeys(names, made("statement"))
        >>> figure = ld.plots.audit(xr.Dataset(numbers, coords), "Audit")  # of studies.audit.summarise
        >>> print([ax.get_title() for ax in figure.axes[:3]])
        ['Loss and its bound', 'Instantaneous rate and its lower bounds', 'Tightness over time and starts']
    """
    with panels(2, 2, (9.6, 7.2), title) as (figure, (first, second, third, fourth)):
        losses_and_bounds(first, summary)
        rates_and_bounds(second, summary)
        tightness_against_time(third, summary)
        hypotheses_and_tightness(fourth, summary)
        handles = [Line2D([], [], **case_look(i)) for i in range(summary.sizes["case"])]
        labels = [literal(case) for case in summary["case"].values]
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4))
    return figure
