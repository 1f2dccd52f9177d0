"""Where wide networks end after descent on batches and with noisy labels."""

from typing import Any

import numpy as np

from ..plots import legend_below, mark
from ..statistics import mean_slope
from ._common import OWN, Figure, Measured, kept, listed
from ._sgd import FULL, QUICK, compute


def _rms(dataset, name: str, *dims: str, ok: str) -> tuple[np.ndarray, np.ndarray]:
    """Root mean square over trials and its standard error."""
    squares = kept(dataset, name, "trial", *dims, ok=ok) ** 2
    rms, count = np.sqrt(np.nanmean(squares, axis=0)), np.sum(np.isfinite(squares), axis=0)
    return rms, np.nanstd(squares, axis=0, ddof=1) / np.sqrt(count) / (2 * rms)


def _all(dataset) -> Any:
    """Over the law of the flow: distances with noisy labels and after batches alone, those given V, and the two laws."""
    flow = dataset["flow_law"].values
    noisy = _rms(dataset, "distance", "batch", "width", "step", ok="noisy_ok")
    fitted = _rms(dataset, "fit_distance", "batch", "width", ok="fit_ok")
    given = _rms(dataset, "given", "batch", "width", "step", ok="noisy_ok")
    alone = _rms(dataset, "fit_given", "batch", "width", ok="fit_ok")
    law = dataset["distance_law"].transpose("width", "step").values / flow[:, None]
    shrunk = dataset["shrunk_law"].transpose("batch", "width", "step").values / flow[:, None]
    over = [[values / flow[:, None] for values in pair] for pair in (noisy, given)]
    return *over, *([values / flow for values in pair] for pair in (fitted, alone)), law, shrunk


def measure(dataset) -> Measured:
    (noisy, noisy_error), (given, given_error), (fitted, fitted_error), (alone, alone_error), law, shrunk = _all(
        dataset
    )
    flow, logs = dataset["flow_law"].values, np.log(dataset["width"].values)

    def slopes(over):
        return [float(mean_slope(logs, np.log(row * flow)[:, None]).value) for row in over]

    numbers = {
        "batches alone over the flow's law": fitted.tolist(),
        "its standard error": fitted_error.tolist(),
        "the same given V": alone.tolist(),
        "standard error given V": alone_error.tolist(),
        "noisy labels over the flow's law": noisy[..., -1].tolist(),
        "standard error of that": noisy_error[..., -1].tolist(),
        "noisy labels given V": given[..., -1].tolist(),
        "standard error with noise given V": given_error[..., -1].tolist(),
        "law of the imbalance left over the flow's": law[:, -1].tolist(),
        "law with the shrunk Theta over the flow's": shrunk[..., -1].tolist(),
        "slopes, batches alone": slopes(alone),
        "slopes, noisy labels": slopes(given[..., -1]),
        "slope of the law": slopes(np.ones_like(law[None, :, -1]))[0],
    }
    text = (
        f"over the law of the flow, given V, means over the widths for batches of {listed(dataset['batch'].values, '{:g}')}: "
        f"{listed(alone.mean(axis=1), '{:.4f}')} after batches alone, {listed(given[..., -1].mean(axis=1), '{:.4f}')} after "
        f"noisy labels, where the law of the imbalance left says {np.mean(law[:, -1]):.4f}, and "
        f"{listed(shrunk[..., -1].mean(axis=1), '{:.4f}')} for the Theta that noise shrinks; the distance falls with the width "
        f"as h^{numbers['slope of the law']:.3g} by the law, as h to the {listed(numbers['slopes, batches alone'], '{:.4f}')} "
        f"and {listed(numbers['slopes, noisy labels'], '{:.4f}')} in the trials"
    )
    return Measured(text, numbers)


def draw(figure, dataset) -> None:
    during, end = figure.subplots(1, 2, sharey=True)
    widths, batches, x = dataset["width"].values, dataset["batch"].values, -np.log(dataset["law"].values)
    (noisy, noisy_error), (given, given_error), (fitted, fitted_error), _, law, shrunk = _all(dataset)
    widest = len(widths) - 1
    for i, batch in enumerate(batches):
        look = {**mark(i), "ls": "none", "ms": 4, "capsize": 1.5, "lw": 0.8}
        # They would hide each other.
        seen = slice(1 + i, None, len(batches))
        points = given[i, widest, seen], 2 * given_error[i, widest, seen]
        lines = {"color": look["color"], "lw": 0.9, "ls": ":"}
        during.plot(x, shrunk[i, widest], **lines)
        end.plot(widths, shrunk[i, :, -1], **lines)
        during.errorbar(x[seen], points[0], yerr=points[1], label=f"$B$ = {batch:g}", **look)
        at = widths * 1.25 ** (i - (len(batches) - 1) / 2)
        end.errorbar(at, fitted[i], yerr=2 * fitted_error[i], label=f"$B$ = {batch:g}, batches alone", **look)
        look["mfc"] = "none"
        label = f"$B$ = {batch:g}, noisy labels"
        end.errorbar(at, noisy[i, :, -1], yerr=2 * noisy_error[i, :, -1], label=label, **look)
    during.plot(x, law[widest], color="0.3", label="law of the imbalance left")
    during.plot([], [], color="0.3", lw=0.9, ls=":", label="the same for the shrunk $\\Theta$")
    during.axhline(1, color="0.5", lw=0.8, ls="--", label="law of the flow")
    during.set(xlabel=r"$x = \eta^2 q^2 \delta^2 s^2 m\, k\, N/B$")
    during.set_ylabel("rms distance over the flow's law (two s.e.)")
    during.set_title(f"Noisy labels, $h$ = {widths[widest]:g}, given $V$")
    legend_below(during, 2)
    end.axhline(1, color="0.5", lw=0.8, ls="--", label="law of the flow")
    end.plot(widths, law[:, -1], color="0.3", label="law of the imbalance left")
    end.set(xscale="log", xlabel="hidden width $h$")
    end.set_title("Where they end")
    legend_below(end, 2)


FIGURES = {
    "sgd-bias": Figure(
        OWN,
        "where wide networks end after batches and noisy labels",
        "no paper has it: M22's Theorem 12 bounds the distance for the flow",
        compute,
        measure,
        draw,
        FULL,
        QUICK,
        (7.6, 4.1),
    )
}
