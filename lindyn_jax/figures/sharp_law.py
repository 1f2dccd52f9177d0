"""The sharp law over eight decades of width."""

import numpy as np

from ..data import gaussian
from ..plots import distance_against_width, mark
from ..problems import LeastSquares
from ..studies import theorem12
from ._common import OWN, Figure, Measured, reporter


def compute(
    *,
    seed: int,
    trials: int,
    decades: int,
    n: int = 14,
    samples: int = 5,
    m: int = 2,
    alphas: tuple[float, ...] = (0.5, 0.35),
):
    """Distances from the minimum-norm solution over decades of width from 1e2 on, with the sharp law and Theorem 12's bound."""
    data = gaussian(n=n, samples=samples, m=m, seed=seed)
    problem = LeastSquares(data.X, data.Y)
    grid = 10.0 ** np.arange(2, 3 + decades)
    result = theorem12.run(problem, grid, alphas, trials, seed=seed, progress=reporter())
    summary = theorem12.summarise(result, problem, 0.1)
    summary["trial_ok"] = result["ok"].load().astype(bool)
    return summary


def measure(summary) -> Measured:
    ratio = (summary["rms"] / summary["sharp_rms"]).transpose("alpha", "width").values
    exact = (summary["exact_rms"] / summary["sharp_rms"]).transpose("alpha", "width").values
    over = summary["log10_bound_over_q95"].transpose("alpha", "width").values
    alphas = summary["alpha"].values.tolist()
    slopes = summary["rms_slope"].values
    numbers = {
        "measured rms / sharp law": ratio.tolist(),
        "exact law given V / sharp law": exact.tolist(),
        "slope": slopes.tolist(),
        "half width of the slope's 95% interval": ((summary["slope_high"] - summary["slope_low"]) / 2).values.tolist(),
        "slope of the sharp law": summary["sharp_slope"].values.tolist(),
        "log10 bound over 95% quantile": over.tolist(),
        "hypothesis met": summary["applies"].transpose("alpha", "width").values.astype(bool).tolist(),
    }
    deviation = np.abs(exact[:, 1:] - 1).max(axis=1)
    widths = summary["width"].values
    met = [
        f"from h = {widths[row].min():.0e} on" if row.any() else "nowhere"
        for row in summary["applies"].transpose("alpha", "width").values.astype(bool)
    ]
    text = "; ".join(
        f"alpha = {alpha:g}: slope {slope:.3f} (sharp law {law:.3f}), the exact law given V(inf) within {d:.1e} of the sharp law "
        f"from h = {widths[1]:g} on, Theorem 12's bound 10^{row.min():.3g} to 10^{row.max():.3g} times the 95% quantile, its "
        f"hypothesis met {where}"
        for alpha, slope, law, d, row, where in zip(
            alphas, slopes, summary["sharp_slope"].values, deviation, over, met, strict=True
        )
    )
    return Measured(text, numbers)


def draw(figure, summary) -> None:
    left, right = figure.subplots(1, 2)
    distance_against_width(left, summary)
    widths = summary["width"].values
    for i, alpha in enumerate(summary["alpha"].values.tolist()):
        row = summary.isel(alpha=i)
        error = np.abs(row["exact_rms"].values / row["sharp_rms"].values - 1)
        right.plot(widths, error, label=rf"$\alpha$ = {alpha:g}", **mark(i))
    right.set(xscale="log", yscale="log", xlabel="hidden width $h$")
    right.set_ylabel(r"relative error of the sharp law, given $V(\infty)$")
    right.set_title("How sharp the sharp law is")
    right.legend()


FIGURES = {
    "sharp-law": Figure(
        OWN,
        "sharp law and bound over eight decades of width",
        "no paper has it: M22's Theorem 12 bounds a distance for which there is a law",
        compute,
        measure,
        draw,
        {"trials": 200, "decades": 8},
        {"trials": 20, "decades": 8},
        (7.6, 4.2),
    )
}
