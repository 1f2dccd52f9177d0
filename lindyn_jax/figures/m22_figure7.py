"""M22 Fig. 7 and M21 Fig. 1: wide networks end near the minimum-norm solution."""

import numpy as np

from .. import init, observables
from ..data import gaussian
from ..plots import COLOURS, mark
from ..problems import LeastSquares
from ..statistics import mean_slope
from ..studies import theorem12
from ..trajectory import STOPPED
from ._common import Figure, Measured, band, blank, descend, draw_band, ensemble, kept, mean_sd, reporter, spread


def compute(
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
        end = descend(start, problem, 200_000, step, (), stop=least_loss / observables.excess_loss(start, problem))
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


def measure(summary) -> Measured:
    distance = kept(summary, "distance", "width", "trial")
    start = kept(summary, "start_coupling", "width", "trial")
    descent = kept(summary, "descent_distance", "descent_width", "descent_trial", ok="descent_ok")
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


def draw(figure, summary) -> None:
    ax = figure.subplots(1, 1)
    h = summary["width"].values
    labels = {"distance": r"$\|\Theta(\infty) - \hat\Theta\|_F$", "start_coupling": r"$\|U_2(0) V(0)^T\|_F$"}
    for i, (name, label) in enumerate(labels.items()):
        draw_band(ax, h, kept(summary, name, "trial", "width"), **mark(i), ls="none", label=label)
    descent = kept(summary, "descent_distance", "descent_width", "descent_trial", ok="descent_ok")
    mean, sd = np.array([mean_sd(values) for values in descent]).T
    at, ends = summary["descent_width"].values, rf"descent to $L$ = {_least(summary)}"
    # Beside each other: the mean is where the median is.
    ax.plot(at, band(descent, axis=1)[1], color="black", marker="+", ms=6, ls="none", label=f"{ends}, median")
    look = {"color": "black", "marker": "_", "ms": 4, "ls": "none", "lw": 0.8, "capsize": 2}
    ax.errorbar(1.05 * at, mean, yerr=sd, label=rf"{ends}, mean $\pm$ sd of {descent.shape[1]}", **look)
    ax.plot(h, summary["sharp_rms"].isel(alpha=0).values, color=COLOURS[0], ls="--", lw=1, label="sharp law (rms)")
    rms = np.sqrt(float(summary["num_frozen"]) / h)
    ax.plot(h, rms, color=COLOURS[1], ls=":", lw=1, label=r"$\sqrt{(n-r)/h}$, the start's rms")
    ax.set(xscale="log", yscale="log", xlabel="hidden width $h$", ylabel=r"distance to the minimum-norm $\hat\Theta$")
    ax.set_xticks(h, [f"{value:g}" for value in h])
    ax.set_yticks([0.2, 0.5, 1.0], ["0.2", "0.5", "1"])
    ax.minorticks_off()
    ax.set_title("Median (band: 5% to 95% of the starts)")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


FIGURES = {
    "m22-figure7": Figure(
        "M22 Fig. 7 (M21 Fig. 1)",
        "wide networks end near the minimum-norm solution",
        "the distance falls like h^(-1/2), beside ||U2(0) V(0)^T||",
        compute,
        measure,
        draw,
        {"trials": 20, "descent_trials": 20},
        {"trials": 5, "descent_trials": 1},
        (7.2, 3.2),
        reference="with another draw of the data, 20 starts: .888 (.040), .642 (.019), .453 (.017), .293 (.014), .207 (.006), "
        "slope -.486, 56,000 to 71,000 steps",
    )
}
