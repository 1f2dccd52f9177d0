"""Table 2 of an earlier version of T21: regimes of acceleration."""

import jax.numpy as jnp
import numpy as np
from matplotlib.colors import LogNorm

from .. import observables, theory
from ..flow import gradient_flow
from ..models import SymmetricFactors, TwoLayer
from ..plots import COLOURS
from ..problems import factorization
from ..trajectory import FINISHED
from ._common import Figure, Measured, blank, ensemble, kept, named


def compute(*, seed: int, points: int):
    """Asymptotic rates of one mode of two layers, and of tied layers, measured along the flow, beside the rate 1 of one layer.

    The rates are fitted to `log|x(t) - sigma|` at late times of the integrated flow, over a grid of targets sigma and imbalances
    lambda, and over targets of both signs for tied layers.
    """
    fractions = np.linspace(8, 14, 7)
    sigmas, imbalances = np.linspace(0.05, 1.0, points), np.linspace(0.0, 1.5, points)

    def fitted(ts, error):
        logs = jnp.log(error)
        return jnp.polyfit(ts, jnp.where(jnp.isfinite(logs), logs, 0), 1)[0] * -1

    def gap(target):
        return {"gap": lambda model, problem: jnp.abs(observables.reduced_product(model, problem)[0, 0] - target)}

    def two_layers(key, sigma, imbalance):
        u0, v0 = jnp.sqrt(imbalance + 0.01), 0.1 * jnp.ones(())
        law = theory.mode_acceleration(sigma, u0, v0)
        ts = fractions / law.rate
        problem = factorization(sigma[None, None])
        flow = gradient_flow(
            TwoLayer(u0[None, None], v0[None, None]), problem, ts, observables=gap(sigma), solver="dopri8"
        )
        return {"rate": fitted(ts, flow.observables["gap"]), "law": law.rate, "ok": flow.result == FINISHED}

    def tied(key, target):
        law = theory.tied_acceleration(target, 0.1)
        ts = fractions / law.rate
        flow = gradient_flow(
            SymmetricFactors(jnp.sqrt(jnp.full((1, 1), 0.1))),
            factorization(target[None, None]),
            ts,
            observables=gap(jnp.maximum(target, 0)),
            solver="dopri8",
        )
        return {
            "tied_rate": fitted(ts, flow.observables["gap"]),
            "tied_law": law.rate,
            "tied_ok": flow.result == FINISHED,
        }

    dataset = ensemble(two_layers, {"sigma": sigmas, "imbalance": imbalances}, 1, seed).isel(trial=0, drop=True)
    targets = np.concatenate([-sigmas[::-2], sigmas[::2]])
    others = ensemble(tied, {"target": np.sort(targets)}, 1, seed).isel(trial=0, drop=True).drop_vars("ok")
    dataset = dataset.merge(others)
    return named(
        dataset,
        sigma="singular value of the target",
        imbalance="lambda = u0^2 - v0^2",
        target="eigenvalue of the target of tied layers",
        rate="fitted asymptotic rate of a mode of two layers",
        law="mu = sqrt(4 sigma^2 + lambda^2)",
        tied_rate="fitted asymptotic rate of tied layers",
        tied_law="4 |sigma|",
    )


def measure(dataset) -> Measured:
    rate, law = blank(dataset["rate"], dataset["ok"]).values, dataset["law"].values
    tied, tied_law = blank(dataset["tied_rate"], dataset["tied_ok"]).values, dataset["tied_law"].values
    deviation = float(np.nanmax(np.abs(rate / law - 1)))
    tied_deviation = float(np.nanmax(np.abs(tied / tied_law - 1)))
    agree = ((rate > 1) == (law > 1)) & np.isfinite(rate)
    tied_agree = ((tied > 1) == (tied_law > 1)) & np.isfinite(tied)
    numbers = {
        "two layers: regimes that agree": float(agree.mean()),
        "two layers: largest deviation from mu": deviation,
        "tied layers: regimes that agree": float(tied_agree.mean()),
        "tied layers: largest deviation from 4 |sigma|": tied_deviation,
    }
    text = (
        f"two layers are faster where mu > 1 and slower elsewhere at {int(agree.sum())} of {agree.size} points, their rate is "
        f"mu within {deviation:.1e}; tied layers by 4 |sigma| > 1 at {int(tied_agree.sum())} of {tied_agree.size}, within "
        f"{tied_deviation:.1e}"
    )
    return Measured(text, numbers)


def draw(figure, dataset) -> None:
    left, right = figure.subplots(1, 2)
    sigma, imbalance = dataset["sigma"].values, dataset["imbalance"].values
    rate = kept(dataset, "rate", "imbalance", "sigma")
    drawn = left.pcolormesh(sigma, imbalance, rate, cmap="PuOr", norm=LogNorm(1 / 8, 8), rasterized=True)
    bar = figure.colorbar(drawn, ax=left, label=r"measured rate $\mu$ (one layer: 1)")
    bar.set_ticks([0.125, 0.25, 0.5, 1, 2, 4, 8], labels=["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    bar.minorticks_off()
    fine = np.linspace(0, 0.5, 200)
    left.plot(
        fine, np.asarray(theory.least_imbalance(fine)), color="black", label=r"$\mu = \sqrt{4\sigma^2 + \lambda^2} = 1$"
    )
    left.text(0.12, 0.12, "two layers\nslower", fontsize=7.5, color="black")
    left.text(0.62, 1.1, "two layers\nfaster", fontsize=7.5, color="black")
    left.set(xlabel=r"singular value of the target $\sigma$", ylabel=r"imbalance $\lambda = u_0^2 - v_0^2$")
    left.set(xlim=(sigma[0], sigma[-1]), ylim=(imbalance[0], imbalance[-1]))
    left.set_title("A mode of two layers")
    left.legend(loc="upper right", frameon=True, framealpha=0.9)
    target = dataset["target"].values
    fine = np.linspace(target[0], target[-1], 401)
    right.plot(fine, 4 * np.abs(fine), color=COLOURS[0], label=r"$4|\sigma|$")
    tied = blank(dataset["tied_rate"], dataset["tied_ok"]).values
    right.plot(target, tied, color=COLOURS[1], marker="o", ls="none", label="measured")
    right.axhline(1, color="0.3", ls="--", lw=1, label="one layer")
    right.set(xlabel=r"eigenvalue of the target $\sigma$", ylim=(0, None))
    right.set_ylabel(r"asymptotic rate $\mu$ of $|x(t) - x(\infty)|$")
    right.set_title("Tied layers")
    right.legend()


FIGURES = {
    "t21-table2": Figure(
        "T21 (earlier version) Table 2",
        "when a hidden layer accelerates",
        "a mode of two layers is faster than one layer if and only if sqrt(4 sigma^2 + lambda^2) > 1, tied layers if and only if "
        "4 |sigma| > 1",
        compute,
        measure,
        draw,
        {"points": 31},
        {"points": 16},
        (7.4, 3.2),
    )
}
