"""M22 Figs. 2, 4 and 5: imbalance, rates and losses against the width, from the same data."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from .. import init, theory
from ..plots import legend_below, mark
from ..problems import factorization
from ..trajectory import FINISHED
from ._common import (
    Figure,
    Measured,
    band,
    crossings,
    descend,
    draw_band,
    ensemble,
    kept,
    listed,
    mean_sd,
    named,
    spread,
)


def compute(
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
    datasets = [_at(seed, trials, n, outputs, max(m), grid, step, numbers) for outputs in m]

    dataset = xr.concat(datasets, dim=xr.IndexVariable("m", list(m))).assign_coords(time=step * numbers)
    return named(
        dataset,
        m="number of outputs",
        width="hidden width h",
        time="steps of descent times the step size",
        excess_loss="L - L*",
        loss_bound="Theorem 3's upper bound on L - L*",
        rate="-L'/(L - L*) of the flow at this state",
        rate_bound="Prop. 1's lower bound on it",
        plus="Delta+/(m h)",
        minus="Delta-/(m h)",
        level="Delta/(m h)",
        spectrum="eigenvalues of D/(m h), descending, without those that are zero at every start; NaN beyond the n + m-th",
    )


def _at(seed, trials, n, m, most, grid, step, numbers):
    ts = jnp.asarray(step * numbers)

    def trial(key, width):
        key_target, key_start = jax.random.split(key)
        Y = math.sqrt(0.1) * jax.random.normal(key_target, (n, m))
        problem = factorization(Y, output_scale=1 / jnp.sqrt(m * width))
        start = init.gaussian_core(problem, width, std=1.0, key=key_start)
        plus, minus, level = theory.imbalance(start, problem)
        spectrum = theory.moving_spectrum(start, problem) / (m * width)
        path = descend(start, problem, numbers, step, ["excess_loss", "rate", "rate_bound"])
        return {
            **path.observables,
            "loss_bound": theory.loss_bound(start, problem, ts).value,
            "plus": plus / (m * width),
            "minus": minus / (m * width),
            "level": level / (m * width),
            "spectrum": jnp.pad(spectrum, (0, most - m), constant_values=jnp.nan),
            "ok": path.result == FINISHED,
        }

    dims = dict.fromkeys(("excess_loss", "rate", "rate_bound", "loss_bound"), ("time",)) | {"spectrum": ("eigenvalue",)}
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
    for ax, i in zip(axes, (0, dataset.sizes["width"] - 1), strict=True):
        row = dataset.sel(m=m).isel(width=i, trial=0)
        values = row["spectrum"].values
        values = values[np.isfinite(values)]
        n = values.size - m
        look = {**mark(i), "ms": 3, "ls": "none"}
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
        ax.axhline(0, color="0.7", lw=0.8)
        ax.set(
            ylabel="eigenvalues", xlabel="number, in descending order" if ax is axes[-1] else "", xlim=(0, n + m + 1)
        )
        ax.set_title(f"$D/(mh)$, $h$ = {row['width'].item():g}, first start")
    axes[0].sharex(axes[-1])


def draw_parts(ax, dataset, m: int) -> None:
    """Spreads and level of the imbalance against the width, of all starts."""
    h = dataset["width"].values
    for i, (name, label) in enumerate(PARTS.items()):
        values = dataset[name].sel(m=m).transpose("trial", "width").values
        draw_band(ax, h, values, **mark(i), ls=("-", "--", "-.")[i], label=label)
    ax.set(xscale="log", yscale="log", xlabel="hidden width $h$")
    ax.set_ylabel(r"spreads $\Delta_\pm$ and level $\Delta$, over $mh$")
    ax.set_title("Median (band: 5% to 95%)")
    ax.legend()


def measure_losses(dataset, m: int) -> Measured:
    row = dataset.sel(m=m)
    rate, bound = (kept(row, name, "width", "trial", "time") for name in ("rate", "rate_bound"))
    losses = kept(row, "excess_loss", "width", "trial", "time")
    promised = kept(row, "loss_bound", "width", "trial", "time")
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
    kinds = (
        ("excess_loss", "loss_bound", "Theorem 3", "Loss and its upper bound"),
        ("rate", "rate_bound", "Proposition 1", "Rate and its lower bound"),
    )
    row, time = dataset.sel(m=m), dataset["time"].values
    for ax, (name, bound, statement, title) in zip(axes, kinds, strict=False):
        for i, h in enumerate(row["width"].values.tolist()):
            look = {**mark(i), "markevery": (i, 5), "ms": 3}
            at = row.isel(width=i)
            draw_band(ax, time, kept(at, name, "trial", "time"), alpha=0.15, label=f"$h$ = {h:g}", **look)
            promised = band(kept(at, bound, "trial", "time"))[1]
            ax.plot(time, promised, ls="--", lw=1, mfc="none", **look)
        ax.plot([], [], color="0.3", ls="--", lw=1, label=statement)
        if name == "rate":
            ax.set(ylabel="rate $-L'/(L - L^*)$", ylim=(0, None))
        else:
            ax.set(yscale="log", ylabel="excess loss $L - L^*$")
        ax.set(xlabel="time $t$ (steps times step size)")
        ax.set_title(title)
        legend_below(ax, 2)


# In full, and quick.
NTK = ({"trials": 100, "m": (5, 10), "horizon": 30.0}, {"trials": 12, "m": (5, 10), "horizon": 30.0})


FIGURES = {
    "m22-figure2": Figure(
        "M22 Fig. 2",
        "spectrum of the imbalance, losses and rates against the width, 5 outputs",
        "with the width the level of imbalance grows over its spreads, and the bounds on loss and rate become tighter",
        compute,
        functools.partial(measure_spectrum, m=5),
        draw_figure2,
        *NTK,
        size=(9.6, 4.0),
        reference="over a few other starts (Delta+/Delta-/Delta)/(m h) is .564/.215/.046, .319/.127/.186, .186/.075/.273, "
        ".102/.041/.329",
    ),
    "m22-figure4": Figure(
        "M22 Fig. 4",
        "spectrum of the imbalance and losses against the width, 10 outputs",
        "with the width the level of imbalance grows over its spreads",
        compute,
        functools.partial(measure_spectrum, m=10),
        draw_figure4,
        *NTK,
        size=(9.6, 4.0),
        reference="over a few other starts (Delta+/Delta-/Delta)/(m h) is .274/.172/.0041, .159/.103/.076, .093/.061/.125, "
        ".051/.034/.158",
    ),
    "m22-figure5": Figure(
        "M22 Fig. 5",
        "losses, rates and bounds against the width, 10 outputs (median, 5% to 95%)",
        "bounds become tighter as the width grows",
        compute,
        functools.partial(measure_losses, m=10),
        draw_figure5,
        *NTK,
        size=(7.4, 3.7),
    ),
}
