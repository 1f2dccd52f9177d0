"""The flow, descent, and the limit of infinite width."""

import jax.numpy as jnp
import numpy as np

from .. import init
from ..flow import gradient_flow
from ..models import WideLimit
from ..plots import COLOURS, legend_below, mark
from ..problems import factorization
from ..statistics import mean_slope
from ..trajectory import FINISHED
from ._common import OWN, Figure, Measured, band, blank, descend, draw_band, ensemble, kept, mean_sd, named, spread


def compute(
    *,
    seed: int,
    trials: int,
    points: int,
    widths: tuple[float | int, ...] = (400, 4000, 40000),
    d: int = 40,
    level: float = 0.1,
    step: float = 0.01,
    horizon: float = 8.0,
):
    """Flow and descent of matrix factorization from Gaussian starts of growing width, against the flow of the wide limit.

    A target of shape (d, d) with entries N(0, 1/d); starts with entries N(0, s^2), `s^2 h = level` at all widths, so that one
    limit serves all; the gap is `max_t ||Theta(t) - Theta_wide(t)||_F/||Y||_F`.
    """
    numbers = np.unique(np.round(np.linspace(0, horizon / step, points)).astype(int))
    ts = step * numbers
    Y = np.random.default_rng(seed).normal(size=(d, d)) / np.sqrt(d)
    problem = factorization(Y)
    product = {"product": lambda model, problem: model.product()}
    wide = gradient_flow(WideLimit(jnp.zeros((d, d)), level), problem, ts, observables=product, rtol=1e-8)
    wide_path = wide.observables["product"]

    def gap(path):
        return jnp.linalg.norm(path - wide_path, axis=(1, 2)) / jnp.linalg.norm(problem.Y)

    def modes(path):
        # Of the path in the target's own directions.
        return jnp.einsum("ni,tnm,im->ti", left, path, rightT)

    left, _, rightT = jnp.linalg.svd(problem.Y)

    def trial(key, width):
        start = init.gaussian_core(problem, width, std=jnp.sqrt(level / width), key=key)
        flow = gradient_flow(start, problem, ts, observables=product, solver="dopri8", rtol=1e-8)
        descent = descend(start, problem, numbers, step, product)
        return {
            "gap": gap(flow.observables["product"]),
            "descent_gap": gap(descent.observables["product"]),
            "modes": modes(flow.observables["product"]),
            "ok": (flow.result == FINISHED) & (descent.result == FINISHED),
        }

    dims = {"gap": ("time",), "descent_gap": ("time",), "modes": ("time", "mode")}
    dataset = ensemble(trial, {"width": widths}, trials, seed, dims=dims).assign_coords(time=ts)
    dataset["wide_modes"] = (("time", "mode"), np.asarray(modes(wide_path)))
    dataset["sigma"] = ("mode", np.linalg.svd(Y, compute_uv=False))
    dataset["wide_ok"] = ((), bool(wide.result == FINISHED))
    return named(
        dataset,
        width="hidden width h",
        time="time of the flow, steps times step size of descent",
        gap="||Theta - Theta_wide||_F/||Y||_F, flow",
        descent_gap="the same, descent",
        modes="components of Theta in the target's singular directions, flow",
        wide_modes="the same in the wide limit",
        sigma="singular values of the target",
    )


def measure(dataset) -> Measured:
    worst = {}
    for name in ("gap", "descent_gap"):
        values = kept(dataset, name, "width", "trial", "time")
        worst[name] = values.max(axis=-1)
    logs = np.log(dataset["width"].values)
    slope = mean_slope(logs, np.log(worst["gap"]))
    numbers = {
        "worst gap, flow": [mean_sd(values) for values in worst["gap"]],
        "worst gap, descent": [mean_sd(values) for values in worst["descent_gap"]],
        "slope": float(slope.value),
    }
    text = (
        f"worst gap of the flow to its wide limit at h = {', '.join(f'{h:g}' for h in dataset['width'].values)}: "
        f"{', '.join(spread(100 * values) + '%' for values in worst['gap'])}, like h^{numbers['slope']:.2f}; of descent "
        f"{', '.join(spread(100 * values) + '%' for values in worst['descent_gap'])}, its step besides"
    )
    return Measured(text, numbers)


def draw(figure, dataset) -> None:
    left, right = figure.subplots(1, 2)
    time, widths = dataset["time"].values, dataset["width"].values
    first = dataset.isel(trial=0)
    shown = (0, 3, 9, 19)
    for j, mode in enumerate(m for m in shown if m < dataset.sizes["mode"]):
        sigma = float(dataset["sigma"][mode])
        label = rf"$\sigma_{{{mode + 1}}}$ = {sigma:.2f}"
        left.plot(time, dataset["wide_modes"].isel(mode=mode).values, color=COLOURS[j], label=label)
        for i in (0, widths.size - 1):
            face = None if i else "none"
            left.plot(
                time[1::2], first["modes"].isel(width=i, mode=mode).values[1::2], **mark(j), ms=3.5, mfc=face, ls="none"
            )
    left.plot([], [], color="0.3", label="wide limit")
    left.plot([], [], color="0.3", marker="o", ms=3.5, mfc="none", ls="none", label=f"flow, $h$ = {widths[0]:g}")
    left.plot([], [], color="0.3", marker="o", ms=3.5, ls="none", label=f"flow, $h$ = {widths[-1]:g}")
    left.set(xlabel="time $t$", ylabel=r"$\Theta$ along the target's singular vectors")
    left.set_title("Components of one start")
    legend_below(left, 3)
    for i, (name, label) in enumerate({"gap": "flow", "descent_gap": "descent"}.items()):
        worst = kept(dataset, name, "trial", "width", "time").max(axis=-1)
        draw_band(right, widths, worst, **mark(i), ls=("-", "--")[i], label=label)
    start = band(blank(dataset["gap"], dataset["ok"]).isel(time=0).transpose("trial", "width").values)[1]
    right.plot(widths, start, color="0.3", ls=":", lw=1, label="at $t = 0$: the start's product")
    right.set(xscale="log", yscale="log", xlabel="hidden width $h$")
    right.set_ylabel(r"worst gap $\max_t \|\Theta - \Theta_{wide}\|_F/\|Y\|_F$")
    right.set_title("How wide is wide")
    legend_below(right, 2)


FIGURES = {
    "wide-limit": Figure(
        OWN,
        "flow, descent and the limit of infinite width",
        "no paper has it for this start: TAJ24's mixed dynamics describe wide networks",
        compute,
        measure,
        draw,
        {"trials": 20, "points": 41},
        {"trials": 4, "points": 41},
        (7.4, 3.9),
        reference="in another setting with d = 40 the gap to descent was 3.4%, 1.5%, .9% at h = 400, 4000, 40000",
    )
}
