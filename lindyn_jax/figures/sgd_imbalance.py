"""What batches and noisy labels leave of the imbalance of wide networks."""

import numpy as np

from ..plots import legend_below, mark
from ._common import OWN, Figure, Measured, kept, listed
from ._sgd import FULL, QUICK, compute


def _mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over trials, the third axis, without those that failed."""
    count = np.sum(np.isfinite(values), axis=2)
    return np.nanmean(values, axis=2), np.nanstd(values, axis=2, ddof=1) / np.sqrt(count)


def measure(dataset) -> Measured:
    left, error = _mean(kept(dataset, "kept", "batch", "width", "trial", "step", ok="noisy_ok"))
    law = dataset["law"].values
    # Where half of it is left by the law: later the fluctuations are as large as the rest.
    half = int(np.argmin(np.abs(law - 0.5)))
    rates = np.log(left[..., half]) / np.log(law[half])
    lost, lost_error = _mean(1 - kept(dataset, "fit_kept", "batch", "width", "trial", ok="fit_ok"))
    expected, _ = _mean(kept(dataset, "fit_law", "batch", "width", "trial", ok="law_ok"))
    numbers = {
        "rate over the law": rates.tolist(),
        "standard error of the rate over the law": (error[..., half] / left[..., half] / -np.log(law[half])).tolist(),
        "lost until fitted": lost.tolist(),
        "standard error of what is lost": lost_error.tolist(),
        "mean drift along the path": expected.tolist(),
    }
    batches, widths = (dataset[name].values for name in ("batch", "width"))
    text = (
        f"with noisy labels D decays at {listed(rates.mean(axis=1))} times the law's rate for batches of "
        f"{listed(batches, '{:g}')}, to {np.max(np.ptp(rates, axis=1)):.2g} alike at h = {listed(widths, '{:g}')}; batches "
        f"alone take {listed(100 * lost.mean(axis=1))}% of it until all is fitted, their mean drift along the path of all "
        f"samples {listed(100 * expected.mean(axis=1))}%"
    )
    return Measured(text, numbers)


def draw(figure, dataset) -> None:
    decay, fit = figure.subplots(1, 2)
    law, widths, batches = (dataset[name].values for name in ("law", "width", "batch"))
    x = -np.log(law)
    left, error = _mean(kept(dataset, "kept", "batch", "width", "trial", "step", ok="noisy_ok"))
    lost, lost_error = _mean(1 - kept(dataset, "fit_kept", "batch", "width", "trial", ok="fit_ok"))
    expected, _ = _mean(kept(dataset, "fit_law", "batch", "width", "trial", ok="law_ok"))
    for i, batch in enumerate(batches):
        for j, fill in ((0, "none"), (len(widths) - 1, None)):
            # They would hide each other.
            seen = slice(2 * i + (j > 0), None, 2 * len(batches))
            label = rf"$B$ = {batch:g}, $h$ = {widths[j]:g}"
            look = {**mark(i), "ls": "none", "ms": 4, "mfc": fill, "capsize": 1.5, "lw": 0.8}
            decay.errorbar(x[seen], left[i, j, seen], yerr=2 * error[i, j, seen], label=label, **look)
    fine = np.linspace(0, x[-1], 100)
    decay.plot(fine, np.exp(-fine), color="0.3", label=r"law $e^{-x}$")
    decay.set(
        xlabel=r"$x = \eta^2 q^2 \delta^2 s^2 m\, k\, N/B$", ylabel=r"$\langle D, D(0)\rangle/\|D(0)\|^2$ (two s.e.)"
    )
    decay.set_title("Noisy labels")
    legend_below(decay, 2)
    for j, width in enumerate(widths):
        # Side by side, so that equal ones do not hide each other.
        at = batches * 1.06 ** (j - (len(widths) - 1) / 2)
        look = {**mark(j), "ls": "none", "ms": 4, "capsize": 1.5, "lw": 0.8}
        fit.errorbar(at, lost[:, j], yerr=2 * lost_error[:, j], label=f"$h$ = {width:g}", **look)
    fit.plot(batches, expected.mean(axis=1), color="0.3", label="mean drift along the path of all samples")
    fit.set(xscale="log", yscale="log", xlabel="samples in a batch $B$", ylabel="share of $D$ lost until all is fitted")
    fit.set_xticks(batches, [f"{batch:g}" for batch in batches])
    fit.set_xticks([], minor=True)
    fit.set_title("Batches alone")
    legend_below(fit, 2)


FIGURES = {
    "sgd-imbalance": Figure(
        OWN,
        "what batches and noisy labels leave of the imbalance",
        "no paper has it: M22's Lemma 11 is about the imbalance of the start, which the flow keeps and noise does not",
        compute,
        measure,
        draw,
        FULL,
        QUICK,
        (7.6, 3.9),
    )
}
