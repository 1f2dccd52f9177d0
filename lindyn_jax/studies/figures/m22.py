"""Figures of M22, *Convergence and implicit bias of gradient flow on overparametrized linear networks*, and of M21."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ... import init, observables, theory
from ...data import gaussian
from ...descent import gradient_descent, plain_descent
from ...problem import LeastSquares, factorization
from ...statistics import mean_slope
from ...trajectory import FINISHED, STOPPED
from .. import theorem12
from ..audit import audit, figure3, summarise
from ._common import Figure, Measured, band, blank, crossings, ensemble, listed, mean_sd, reporter, spread

# -- Figures 2, 4 and 5: width under NTK scaling -------------------------------------------------------------------------


def widths(
    *,
    seed: int,
    trials: int,
    m: tuple[int, ...],
    horizon: float,
    n: int = 20,
    grid: tuple[float | int, ...] = (30, 100, 300, 1000),
    step: float = 0.05,
    points: int = 31,
):
    """Imbalance and its spectrum, rates and losses of `L = (1/2) ||Y - U V^T/sqrt(m h)||^2` against the width.

    Entries of U and V are N(0, 1), those of Y are N(0, .1); descent with the paper's step, at every one of whose states rate and
    bounds are those of the flow.
    """
    numbers = np.unique(np.round(np.linspace(0, horizon / step, points)).astype(int))
    datasets = [_widths(seed, trials, n, outputs, max(m), grid, step, numbers) for outputs in m]
    import xarray as xr

    dataset = xr.concat(datasets, dim=xr.IndexVariable("m", list(m))).assign_coords(time=step * numbers)
    for name, text in {
        "m": "number of outputs",
        "width": "hidden width h",
        "time": "steps of descent times the step size",
        "excess_loss": "L - L*",
        "loss_bound": "Theorem 3's upper bound on L - L*",
        "rate": "-L'/(L - L*) of the flow at this state",
        "rate_bound": "Prop. 1's lower bound on it",
        "plus": "Delta+/(m h)",
        "minus": "Delta-/(m h)",
        "level": "Delta/(m h)",
        "spectrum": "eigenvalues of D/(m h), descending, without those that are zero at every start; NaN beyond the n + m-th",
    }.items():
        dataset[name].attrs = {"long_name": text}
    return dataset


def _widths(seed, trials, n, m, most, grid, step, numbers):
    ts = jnp.asarray(step * numbers)

    def trial(key, width):
        key_target, key_start = jax.random.split(key)
        Y = math.sqrt(0.1) * jax.random.normal(key_target, (n, m))
        problem = factorization(Y, output_scale=1 / jnp.sqrt(m * width))
        start = init.gaussian_core(problem, width, std=1.0, key=key_start)
        plus, minus, level = theory.imbalance(start, problem)
        path = gradient_descent(
            start,
            problem,
            int(numbers[-1]),
            optimizer=plain_descent(step),
            save_at=numbers,
            observables={
                "excess_loss": observables.excess_loss,
                "rate": theory.instantaneous_rate,
                "rate_bound": lambda model, problem: theory.rate_bound(model, problem).value,
            },
            differentiate="forward",
        )
        return {
            **path.observables,
            "loss_bound": theory.loss_bound(start, problem, ts).value,
            "plus": plus / (m * width),
            "minus": minus / (m * width),
            "level": level / (m * width),
            "spectrum": jnp.pad(
                theory.moving_spectrum(start, problem) / (m * width), (0, most - m), constant_values=jnp.nan
            ),
            "ok": path.result == FINISHED,
        }

    dims = dict.fromkeys(("excess_loss", "rate", "rate_bound", "loss_bound"), ("time",))
    dims["spectrum"] = ("eigenvalue",)
    return ensemble(trial, {"width": grid}, trials, seed, dims=dims)


PARTS = {"plus": r"$\Delta_+/(mh)$", "minus": r"$\Delta_-/(mh)$", "level": r"$\Delta/(mh)$"}


def measure_spectrum(dataset, m: int) -> Measured:
    """Figures 2 and 4: what `measure_losses` says, and the imbalance at every width."""
    row, count = dataset.sel(m=m), dataset.sizes["width"]
    numbers: dict = {
        f"{name}, m = {outputs}": [mean_sd(dataset[name].sel(m=outputs).isel(width=i)) for i in range(count)]
        for outputs in dataset["m"].values.tolist()
        for name in PARTS
    }
    triples = (listed(numbers[f"{name}, m = {m}"][i][0] for name in PARTS) for i in range(count))
    spectrum = row["spectrum"].transpose("width", "trial", "eigenvalue").values
    numbers["positive, negative eigenvalues of D"] = [
        [int(np.median(np.sum(sign * values > 0, axis=-1))) for sign in (1, -1)] for values in spectrum
    ]
    losses = measure_losses(dataset, m)
    text = f"mean (Delta+/Delta-/Delta)/(m h) {', '.join(triples)}; {losses.text}"
    return Measured(text, {**numbers, **losses.numbers})


def draw_figure2(figure, dataset) -> None:
    spectra, left, right = _three_panels(figure)
    draw_spectra(spectra, dataset, 5)
    draw_losses((left, right), dataset, 5)


def draw_figure4(figure, dataset) -> None:
    spectra, parts, losses = _three_panels(figure)
    draw_spectra(spectra, dataset, 10)
    draw_parts(parts, dataset, 10)
    draw_losses((losses,), dataset, 10)


def _three_panels(figure):
    """The first of them in two halves, one above the other."""
    grid = figure.add_gridspec(2, 3)
    spectra = [figure.add_subplot(grid[i, 0]) for i in range(2)]
    return spectra, *(figure.add_subplot(grid[:, i]) for i in (1, 2))


def draw_spectra(axes, dataset, m: int) -> None:
    """Nonzero eigenvalues of D/(mh) of the first start at the least and the largest width, and the three gaps between them."""
    from ...plots import COLOURS, MARKERS

    for ax, i in zip(axes, (0, dataset.sizes["width"] - 1), strict=True):
        row = dataset.sel(m=m).isel(width=i, trial=0)
        values = row["spectrum"].values
        values = values[np.isfinite(values)]
        n = values.size - m
        look = {"color": COLOURS[i], "marker": MARKERS[i], "markersize": 3, "linestyle": "none"}
        ax.plot(np.arange(1, n + m + 1), values, **look)
        plus, minus, level = (float(row[name]) for name in PARTS)
        # Where there are no eigenvalues: the positive ones stand left of the negative ones.
        gaps = {
            r"$\Delta_+$": (n + 2, values[0] - plus, values[0]),
            r"$\Delta$": (n + 0.5, values[n], values[n] + level),
            r"$\Delta_-$": (n - 1, values[-1], values[-1] + minus),
        }
        arrow = {"arrowstyle": "<->", "color": "0.3", "shrinkA": 0, "shrinkB": 0}
        for label, (x, low, high) in gaps.items():
            ax.annotate("", (x, low), (x, high), arrowprops=arrow)
            side = {"x": x - 0.4, "ha": "right"} if x < n else {"x": x + 0.4}
            ax.text(y=(low + high) / 2, s=label, fontsize=7.5, va="center", **side)
        ax.axhline(0, color="0.7", linewidth=0.8)
        ax.set(
            ylabel="eigenvalues", xlabel="number, in descending order" if ax is axes[-1] else "", xlim=(0, n + m + 1)
        )
        ax.set_title(f"$D/(mh)$, $h$ = {row['width'].item():g}, first start")
    axes[0].sharex(axes[-1])


def draw_parts(ax, dataset, m: int) -> None:
    """Spreads and level of the imbalance against the width, of all starts."""
    from ...plots import COLOURS, MARKERS

    h = dataset["width"].values
    for i, (name, label) in enumerate(PARTS.items()):
        low, middle, high = band(dataset[name].sel(m=m).transpose("trial", "width").values)
        ax.fill_between(h, low, high, color=COLOURS[i], alpha=0.2, linewidth=0)
        ax.plot(h, middle, color=COLOURS[i], marker=MARKERS[i], linestyle=("-", "--", "-.")[i], label=label)
    ax.set(xscale="log", yscale="log", xlabel="hidden width $h$")
    ax.set_ylabel(r"spreads $\Delta_\pm$ and level $\Delta$, over $mh$")
    ax.set_title("Median (band: 5% to 95%)")
    ax.legend(frameon=False)


def measure_losses(dataset, m: int) -> Measured:
    row = dataset.sel(m=m)
    rate, bound = (
        blank(row[name], row["ok"]).transpose("width", "trial", "time").values for name in ("rate", "rate_bound")
    )
    losses = blank(row["excess_loss"], row["ok"]).transpose("width", "trial", "time").values
    promised = blank(row["loss_bound"], row["ok"]).transpose("width", "trial", "time").values
    time = row["time"].values
    to = [crossings(time, values / values[:, :1], 1e-4) for values in losses]
    tight = np.nanmedian(bound / rate, axis=1)
    numbers = {
        "Prop. 1 / rate at the start": tight[:, 0].tolist(),
        "Prop. 1 / rate at the end": tight[:, -1].tolist(),
        "smallest rate / Prop. 1": float(np.nanmin(rate / bound)),
        "largest loss / Theorem 3": float(np.nanmax(losses / promised)),
        "time to 1e-4 of the loss": [mean_sd(values) for values in to],
    }
    text = (
        f"m = {m}, h = {', '.join(f'{h:g}' for h in row['width'].values)}: median of Prop. 1 over the rate "
        f"{listed(tight[:, 0])} at the start and {listed(tight[:, -1])} at the end; the rate is never below "
        f"{numbers['smallest rate / Prop. 1']:.3g} times Prop. 1, the loss never above "
        f"{numbers['largest loss / Theorem 3']:.3g} times Theorem 3; time to 1e-4 of the loss, within {time[-1]:g}: "
        + ", ".join(spread(values) for values in to)
    )
    return Measured(text, numbers)


def draw_figure5(figure, dataset) -> None:
    draw_losses(figure.subplots(1, 2), dataset, 10)


def draw_losses(axes, dataset, m: int) -> None:
    """Losses, and where there is a second panel rates, at every width, with their bounds dashed."""
    from ...plots import COLOURS, MARKERS

    kinds = (
        ("excess_loss", "loss_bound", "Theorem 3", "Loss and its upper bound"),
        ("rate", "rate_bound", "Proposition 1", "Rate and its lower bound"),
    )
    row, time = dataset.sel(m=m), dataset["time"].values
    for ax, (name, bound, statement, title) in zip(axes, kinds, strict=False):
        for i, h in enumerate(row["width"].values.tolist()):
            look = {"color": COLOURS[i], "marker": MARKERS[i], "markevery": (i, 5), "markersize": 3}
            low, middle, high = band(blank(row[name], row["ok"]).isel(width=i).transpose("trial", "time").values)
            ax.fill_between(time, low, high, color=COLOURS[i], alpha=0.15, linewidth=0)
            ax.plot(time, middle, label=f"$h$ = {h:g}", **look)
            promised = band(blank(row[bound], row["ok"]).isel(width=i).transpose("trial", "time").values)[1]
            ax.plot(time, promised, linestyle="--", linewidth=1, markerfacecolor="none", **look)
        ax.plot([], [], color="0.3", linestyle="--", linewidth=1, label=statement)
        if name == "rate":
            ax.set(ylabel="rate $-L'/(L - L^*)$", ylim=(0, None))
        else:
            ax.set(yscale="log", ylabel="excess loss $L - L^*$")
        ax.set(xlabel="time $t$ (steps times step size)")
        ax.set_title(title)
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


# -- Figures 3 and 6: the same product, four imbalances ------------------------------------------------------------------


def imbalances(
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
    import matplotlib.lines

    from ...plots import COLOURS, MARKERS

    labels = {"case 1": "case 1: .1, .1", "case 2": "case 2: .5, .02", "case 3": "case 3: .05, .2"}
    handles = [
        matplotlib.lines.Line2D([], [], color=COLOURS[i], marker=MARKERS[i]) for i in range(summary.sizes["case"])
    ]
    texts = [labels.get(str(case), str(case)) for case in summary["case"].values]
    figure.legend(
        handles,
        texts,
        loc="outside lower center",
        ncols=len(texts),
        frameon=False,
        title="standard deviations of $U$, $V$",
    )


def draw_figure3(figure, summary) -> None:
    from ...plots import losses_and_bounds, losses_on_a_linear_scale, rates_and_bounds

    left, middle, right = figure.subplots(1, 3)
    losses_on_a_linear_scale(left, summary)
    losses_and_bounds(middle, summary)
    rates_and_bounds(right, summary)
    for ax in (middle, right):
        ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    _cases(figure, summary)


def draw_figure6(figure, summary) -> None:
    from ...plots import rates_and_bounds, tightness_against_time

    left, middle, right = figure.subplots(1, 3)
    rates_and_bounds(left, summary)
    left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    tightness_against_time(middle, summary)
    _draw_times(right, summary)
    _cases(figure, summary)


def _draw_times(ax, summary) -> None:
    from ...plots import COLOURS, MARKERS

    # Around each other: the two times agree to a few percent.
    looks = {"flow": {"markersize": 4}, "descent": {"markersize": 8, "markerfacecolor": "none"}}
    for i, case in enumerate(summary["case"].values):
        level = max(float(summary["imbalance_level"].sel(case=case)), 0.1)
        for dynamics, look in looks.items():
            to = float(summary["time_to_ratio"].sel(case=case, dynamics=dynamics))
            ax.plot(level, to, color=COLOURS[i], marker=MARKERS[i], linestyle="none", **look)
    for dynamics, look in looks.items():
        ax.plot([], [], color="0.3", marker="o", linestyle="none", label=dynamics, **look)
    line = np.geomspace(1, 2 * float(summary["imbalance_level"].max()), 50)
    at_most = math.log(10) / (2 * float(summary["loss_scale"]) * line)
    label = r"Cor. 4, at most $\log 10/(2 q \Delta)$"
    ax.plot(line, at_most, color="0.3", linestyle="--", linewidth=1, label=label)
    ax.set(xscale="log", yscale="log", xlabel=r"level $\Delta$ (0 drawn at 0.1)")
    ax.set_ylabel("time to a tenth of the loss (median)")
    ax.set_title("What imbalance buys")
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


# -- Figure 7: wide networks end near the minimum-norm solution -------------------------------------------------------------


def wide(
    *,
    seed: int,
    trials: int,
    descent_trials: int,
    descent_grid: tuple[float | int, ...] | None = None,
    grid: tuple[float | int, ...] = (500, 1000, 2000, 5000, 10000),
    n: int = 500,
    samples: int = 100,
    alpha: float = 0.5,
    step: float = 5e-3,
    least_loss: float = 1e-8,
):
    """Theorem 12's study in the setting of Fig. 7, to t = infinity, and descent with the paper's step to its loss."""
    dataset = gaussian(n=n, samples=samples, seed=seed)
    problem = LeastSquares(dataset.X, dataset.Y, scale="averaged")
    result = theorem12.run(problem, grid, [alpha], trials, seed=seed, progress=reporter())
    summary = theorem12.summarise(result, problem, 0.1)

    def descent(key, width):
        start = init.gaussian_core(problem, width, alpha=alpha, key=key)
        end = gradient_descent(
            start,
            problem,
            200_000,
            optimizer=plain_descent(step),
            observables=(),
            stop=least_loss / observables.excess_loss(start, problem),
            differentiate="forward",
        )
        return {
            "descent_distance": observables.distance_to_theta_hat(end.final, problem),
            "descent_start": observables.frozen_product_norm(start, problem),
            "descent_steps": end.stats["num_steps"].astype(float),
            "descent_ok": end.result == STOPPED,
        }

    steps = ensemble(descent, {"width": grid if descent_grid is None else descent_grid}, descent_trials, seed)
    summary = summary.merge(steps.rename(trial="descent_trial", width="descent_width").drop_vars("ok")).assign(
        num_frozen=problem.num_frozen, least_loss=least_loss
    )
    trials_ = result.isel(alpha=0, drop=True)
    for name in ("distance", "start_coupling", "ok"):
        summary[name] = trials_[name].load()
    for name, values in summary.variables.items():
        if name not in summary.coords:
            values.attrs.pop("codes", None)
    return summary


def measure_wide(summary) -> Measured:
    distance = blank(summary["distance"], summary["ok"]).transpose("width", "trial").values
    start = blank(summary["start_coupling"], summary["ok"]).transpose("width", "trial").values
    descent = (
        blank(summary["descent_distance"], summary["descent_ok"]).transpose("descent_width", "descent_trial").values
    )
    steps = blank(summary["descent_steps"], summary["descent_ok"]).values
    logs = np.log(summary["width"].values)
    slopes = {name: mean_slope(logs, np.log(values)) for name, values in (("distance", distance), ("start", start))}
    # The same starts, by flow and by descent.
    moved = np.isin(summary["width"].values, summary["descent_width"].values)
    same = descent / distance[moved, : descent.shape[1]] - 1
    numbers = {
        "distance": [mean_sd(values) for values in distance],
        "slope": float(slopes["distance"].value),
        "slope of the start": float(slopes["start"].value),
        "slope of the sharp law": float(summary["sharp_slope"].values[0]),
        "descent over flow - 1": float(np.fmax.reduce(np.abs(same), axis=None)),
        "descent": [mean_sd(values) for values in descent],
        "descent steps": [float(np.fmin.reduce(steps, axis=None)), float(np.fmax.reduce(steps, axis=None))],
    }
    fewest, most = numbers["descent steps"]
    text = (
        f"||Theta(inf) - Theta_hat||_F at h = {', '.join(f'{h:g}' for h in summary['width'].values)}: "
        + ", ".join(spread(values) for values in distance)
        + f"; slope of its logarithm {numbers['slope']:.3f} (sharp law {numbers['slope of the sharp law']:.3f}), of the start's "
        f"||U2 V^T||_F {numbers['slope of the start']:.3f}; descent to the loss {_least(summary)} ends within "
        f"{numbers['descent over flow - 1']:.1e} of the flow, at {', '.join(spread(values) for values in descent)}, in "
        f"{fewest:.0f} to {most:.0f} steps"
    )
    return Measured(text, numbers)


def _least(summary) -> str:
    """The loss at which descent stops, without the zero that Python puts into exponents."""
    return f"{float(summary['least_loss']):g}".replace("e-0", "e-")


def draw_wide(figure, summary) -> None:
    from ...plots import COLOURS, MARKERS

    ax = figure.subplots(1, 1)
    h = summary["width"].values
    for i, (name, label) in enumerate(
        {"distance": r"$\|\Theta(\infty) - \hat\Theta\|_F$", "start_coupling": r"$\|U_2(0) V(0)^T\|_F$"}.items()
    ):
        low, middle, high = band(blank(summary[name], summary["ok"]).transpose("trial", "width").values)
        ax.fill_between(h, low, high, color=COLOURS[i], alpha=0.2, linewidth=0)
        ax.plot(h, middle, color=COLOURS[i], marker=MARKERS[i], linestyle="none", label=label)
    descent = (
        blank(summary["descent_distance"], summary["descent_ok"]).transpose("descent_width", "descent_trial").values
    )
    mean, sd = np.array([mean_sd(values) for values in descent]).T
    at, ends = summary["descent_width"].values, rf"descent to $L$ = {_least(summary)}"
    # Beside each other: the mean is where the median is.
    ax.plot(
        at, band(descent, axis=1)[1], color="black", marker="+", markersize=6, linestyle="none", label=f"{ends}, median"
    )
    look = {"color": "black", "marker": "_", "markersize": 4, "linestyle": "none", "linewidth": 0.8, "capsize": 2}
    ax.errorbar(1.05 * at, mean, yerr=sd, label=rf"{ends}, mean $\pm$ sd of {descent.shape[1]}", **look)
    ax.plot(
        h,
        summary["sharp_rms"].isel(alpha=0).values,
        color=COLOURS[0],
        linestyle="--",
        linewidth=1,
        label="sharp law (rms)",
    )
    rms = np.sqrt(float(summary["num_frozen"]) / h)
    ax.plot(h, rms, color=COLOURS[1], linestyle=":", linewidth=1, label=r"$\sqrt{(n-r)/h}$, the start's rms")
    ax.set(xscale="log", yscale="log", xlabel="hidden width $h$", ylabel=r"distance to the minimum-norm $\hat\Theta$")
    ax.set_xticks(h, [f"{value:g}" for value in h])
    ax.set_yticks([0.2, 0.5, 1.0], ["0.2", "0.5", "1"])
    ax.minorticks_off()
    ax.set_title("Median (band: 5% to 95% of the starts)")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


NTK = {"full": {"trials": 100, "m": (5, 10), "horizon": 30.0}, "quick": {"trials": 12, "m": (5, 10), "horizon": 30.0}}
AUDIT = {"full": {"trials": 20, "points": 61}, "quick": {"trials": 2, "points": 31, "n": 200, "samples": 40, "h": 200}}

FIGURES = {
    "m22-figure2": Figure(
        "M22 Fig. 2",
        "spectrum of the imbalance, losses and rates against the width, 5 outputs",
        "with the width the level of imbalance grows over its spreads, and the bounds on loss and rate become tighter",
        widths,
        functools.partial(measure_spectrum, m=5),
        draw_figure2,
        **NTK,
        size=(9.6, 4.0),
        reference="over a few other starts (Delta+/Delta-/Delta)/(m h) is .564/.215/.046, .319/.127/.186, .186/.075/.273, "
        ".102/.041/.329",
    ),
    "m22-figure3": Figure(
        "M22 Fig. 3",
        "the same product, four imbalances",
        "order of speed balanced < case 1 < case 3 < case 2",
        imbalances,
        measure_imbalances,
        draw_figure3,
        **AUDIT,
        size=(9.6, 4.0),
        reference="at other starts Delta is about 0, 6, 19 and 41 in this order",
    ),
    "m22-figure4": Figure(
        "M22 Fig. 4",
        "spectrum of the imbalance and losses against the width, 10 outputs",
        "with the width the level of imbalance grows over its spreads",
        widths,
        functools.partial(measure_spectrum, m=10),
        draw_figure4,
        **NTK,
        size=(9.6, 4.0),
        reference="over a few other starts (Delta+/Delta-/Delta)/(m h) is .274/.172/.0041, .159/.103/.076, .093/.061/.125, "
        ".051/.034/.158",
    ),
    "m22-figure5": Figure(
        "M22 Fig. 5",
        "losses, rates and bounds against the width, 10 outputs (median, 5% to 95%)",
        "bounds become tighter as the width grows",
        widths,
        functools.partial(measure_losses, m=10),
        draw_figure5,
        **NTK,
        size=(7.4, 3.7),
    ),
    "m22-figure6": Figure(
        "M22 Fig. 6",
        "the same product, four imbalances: rates and bounds",
        "order of speed balanced < case 1 < case 3 < case 2, and bounds on the rate that hold all along",
        imbalances,
        measure_rates,
        draw_figure6,
        **AUDIT,
        size=(9.6, 4.0),
    ),
    "m22-figure7": Figure(
        "M22 Fig. 7 (M21 Fig. 1)",
        "wide networks end near the minimum-norm solution",
        "the distance falls like h^(-1/2), beside ||U2(0) V(0)^T||",
        wide,
        measure_wide,
        draw_wide,
        {"trials": 20, "descent_trials": 20},
        {"trials": 5, "descent_trials": 1},
        (7.2, 3.2),
        reference="with another draw of the data, 20 starts: .888 (.040), .642 (.019), .453 (.017), .293 (.014), .207 (.006), "
        "slope -.486, 56,000 to 71,000 steps",
    ),
}
