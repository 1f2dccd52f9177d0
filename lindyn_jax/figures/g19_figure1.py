"""G19 Fig. 1: components jump one after another."""

import math

import jax.numpy as jnp
import numpy as np

from .. import exact
from ..flow import gradient_flow
from ..models import TwoLayer
from ..plots import COLOURS, mark
from ..problems import LeastSquares
from ..trajectory import FINISHED
from ._common import Figure, Measured, ensemble, listed, named, rises

STARTS = ("product", "layers")


def compute(
    *,
    seed: int,
    points: int = 240,
    times: tuple[float, ...] | None = None,
    sigma: tuple[float, ...] = (0.1, 0.01, 0.001),
    exponents: tuple[float | int, ...] = (3, 7.5, 12),
):
    """Two layers as a linear autoencoder, and one layer, against time over d, by the flow and in closed form.

    Two layers start at the product e^{-d} I, as the caption says, one layer at this product as well; and at U = V = e^{-d} I, the
    start of Theorem 1. `times`, over d, are `points` log-spaced ones by default.
    """
    rates = np.array(sigma)
    X = np.diag(np.sqrt(len(rates) * rates))
    problem = LeastSquares(X, X, scale="mean")
    clock = np.logspace(math.log10(0.05 / rates.max()), math.log10(6 / rates.min()), points)
    if times is not None:
        clock = np.asarray(times, float)

    def trial(key, start, d):
        weights = jnp.exp(-d * jnp.where(start == 0, 0.5, 1.0)) * jnp.eye(len(rates))
        flow = gradient_flow(
            TwoLayer(weights, weights),
            problem,
            d * clock,
            observables={"component": lambda model, problem: jnp.diagonal(model.product())},
            solver="dopri8",
        )
        return {"component": flow.observables["component"], "ok": flow.result == FINISHED}

    dims = {"component": ("clock", "sigma")}
    dataset = ensemble(trial, {"start": (0.0, 1.0), "d": exponents}, 1, seed, dims=dims).isel(trial=0, drop=True)
    dataset = dataset.assign_coords(start=list(STARTS), clock=clock, sigma=rates)
    d = dataset["d"].values
    # Theorem 1's exponent, of each layer.
    each = np.multiply.outer([0.5, 1.0], d)
    law = exact.aligned(rates, rates, each[..., None, None], d[:, None, None] * clock[:, None])
    linear = np.stack([exact.linear(problem, np.exp(-value) * np.eye(len(rates)), value * clock) for value in d])
    dataset["law"] = (dataset["component"].dims, np.asarray(law))
    dataset["half_time"] = (
        ("start", "d", "sigma"),
        np.asarray(exact.aligned_half_time(rates, rates, each[..., None]).value),
    )
    dataset["norm"] = (dataset["component"] ** 2).sum("sigma")
    dataset["law_norm"] = (dataset["law"] ** 2).sum("sigma")
    dataset["linear_norm"] = (("d", "clock"), np.sum(linear**2, axis=(2, 3)))
    return named(
        dataset,
        start="product: U V^T = e^{-d} I; layers: U = V = e^{-d} I",
        d="exponent of the start",
        clock="time over d",
        sigma="eigenvalues of Sigma_x = Sigma_xy",
        component="w_i(t), by the integrated flow",
        law="w_i(t), closed form",
        half_time="time at which w_i is half its limit, closed form",
        norm="||Theta||_F^2 of two layers, by the integrated flow",
        law_norm="the same, closed form",
        linear_norm="||Theta||_F^2 of one layer from e^{-d} I, closed form",
    )


def measure(dataset) -> Measured:
    clock, d, sigma = (dataset[name].values for name in ("clock", "d", "sigma"))
    dims = ("start", "d", "sigma", "clock")
    flow, law = dataset["component"].transpose(*dims).values, dataset["law"].transpose(*dims).values
    half, tenth, nine = (rises(clock, flow, level) for level in (0.5, 0.1, 0.9))
    deviation = float(np.nanmax(np.abs(half * d[:, None] / dataset["half_time"].values - 1)))
    width = np.nanmean((nine - tenth) / half, axis=-1)
    # Between the jumps from the product e^{-d} I, which are at 1/(2 sigma_i), and at the end.
    between = [*np.sqrt(1 / (4 * sigma[:-1] * sigma[1:])), clock[-1]]
    plateaus = {}
    for name, values in (("two layers", dataset["norm"].sel(start="product")), ("one layer", dataset["linear_norm"])):
        plateaus[name] = values.transpose("d", "clock").sel(clock=between, method="nearest").values
    numbers = {
        "jump times over d, times sigma": dict(zip(STARTS, (half * sigma).tolist(), strict=True)),
        "width of the jumps over their times": dict(zip(STARTS, width.tolist(), strict=True)),
        "largest deviation of half times from the law": deviation,
        "largest deviation from the closed form": float(np.nanmax(np.abs(flow - law))),
        **{f"squared norm between the jumps, {name}": values.tolist() for name, values in plateaus.items()},
    }

    def rows(values):
        return ", ".join(listed(row, "{:.2f}") for row in values)

    at = [listed((half[i] * sigma).mean(axis=1), "{:.3f}") for i in range(len(STARTS))]
    text = (
        f"for d = {listed(d)} ||Theta||_F^2 between the jumps and at the end is {rows(plateaus['two layers'])} for two layers "
        f"and {rows(plateaus['one layer'])} for one layer, from the product e^-d I; components are at half their height at "
        f"{at[0]} times d/sigma_i from there and at {at[1]} times from U = V = e^-d I, as the closed form says within "
        f"{deviation:.0e}, and go from 10% to 90% within {listed(width[0])} and {listed(width[1])} of that time"
    )
    return Measured(text, numbers)


def draw(figure, dataset) -> None:
    axes = figure.subplots(2, dataset.sizes["d"], sharex=True, sharey="row")
    clock, every = dataset["clock"].values, max(dataset.sizes["clock"] // 30, 1)
    flow = {"marker": "o", "ms": 3, "ls": "none"}
    sigmas = dataset["sigma"].values.tolist()
    for (top, bottom), d in zip(axes.T, dataset["d"].values.tolist(), strict=True):
        row = dataset.sel(d=d)
        first, second = row.sel(start="product"), row.sel(start="layers")
        top.plot(clock, first["law_norm"].values, color=COLOURS[6], label="two layers")
        top.plot(clock[::every], first["norm"].values[::every], color=COLOURS[6], **flow)
        top.plot(clock, row["linear_norm"].values, color=COLOURS[4], ls="--", label="one layer")
        for level in range(1, len(sigmas) + 1):
            top.axhline(level, color="0.7", lw=0.8, zorder=0)
        for i, sigma in enumerate(sigmas):
            top.axvline(1 / (2 * sigma), color=COLOURS[i], ls=":", lw=1)
            bottom.axvline(1 / sigma, color=COLOURS[i], ls=":", lw=1)
            label = rf"$w_{i + 1}$, $\sigma_{i + 1}$ = {sigma:g}"
            look = {"color": COLOURS[i], "ls": ("-", "--", "-.")[i % 3]}
            bottom.plot(clock, second["law"].sel(sigma=sigma).values, label=label, **look)
            values = second["component"].sel(sigma=sigma).values[::every]
            bottom.plot(clock[::every], values, **{**flow, **mark(i)})
        top.set_xscale("log")
        top.set_title(rf"$\Theta(0) = e^{{-d}} I$, $d$ = {d:g}")
        bottom.set_title(rf"$U(0) = V(0) = e^{{-d}} I$, $d$ = {d:g}")
        bottom.set_xlabel("time over $d$, $t/d$")
    axes[0, 0].set_ylabel(r"squared norm $\|\Theta(t)\|_F^2$")
    axes[1, 0].set_ylabel(r"component $w_i(t)$ of $\Theta$")
    axes[0, 0].plot([], [], color="0.3", label="flow (lines: closed form)", **flow)
    axes[0, 0].plot([], [], color="0.3", ls=":", lw=1, label=r"jumps: $1/(2\sigma_i)$ above, $1/\sigma_i$ below")
    handles, labels = (a + b for a, b in zip(*(ax.get_legend_handles_labels() for ax in axes[:, 0]), strict=True))
    figure.legend(handles, labels, loc="outside lower center", ncols=4)


FIGURES = {
    "g19-figure1": Figure(
        "G19 Fig. 1",
        "two layers learn in steps as the start vanishes, one layer does not",
        "||Theta||_F^2 of a two-layer autoencoder from the product e^{-d} I goes up in steps, with plateaus 1, 2 and 3, the more "
        "abruptly the larger d = 3, 7.5, 12; that of one layer does not",
        compute,
        measure,
        draw,
        {"points": 240},
        {"points": 120},
        (7.6, 5.2),
        reference="from the product e^{-d} I, at t/d = 10, 100, 3000: two layers .922/1.919/3.000 (d = 3), .999/1.999/3.000 "
        "(7.5), 1.000/2.000/3.000 (12); one layer 1.001/1.995/3.000, 1.283/2.278/3.000, 1.501/2.488/3.000",
    )
}
