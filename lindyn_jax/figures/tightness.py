"""Tightness of Proposition 1 over starts."""

import jax
import jax.numpy as jnp
import numpy as np

from .. import init, theory
from ..plots import mark
from ..problems import factorization
from ._common import OWN, Figure, Measured, draw_band, ensemble


def compute(*, seed: int, trials: int, n: int = 4, m: int = 2, points: int = 7):
    """Proposition 1 over the instantaneous rate at random starts, for random targets and for the worst one.

    Gaussian starts against the width, and starts with prescribed imbalance (all eigenvalues of D equal, and spread) against its
    size, with one random product.
    """
    widths, levels = np.round(np.geomspace(n + m, 1e5, points)), np.geomspace(0.01, 100, points)

    def ratios(start, problem):
        bound = theory.rate_bound(start, problem).value
        worst = factorization(theory.adversarial_target(start, problem))
        return {
            "random_target": bound / theory.instantaneous_rate(start, problem),
            "worst_target": bound / theory.instantaneous_rate(start, worst),
        }

    def random_start(key, width):
        key_target, key_start = jax.random.split(key)
        problem = factorization(jax.random.normal(key_target, (n, m)))
        return ratios(init.gaussian_core(problem, width, alpha=0.5, key=key_start), problem)

    def prescribed(key, level, spread):
        key_target, key_product, key_spectrum = jax.random.split(key, 3)
        problem = factorization(jax.random.normal(key_target, (n, m)))
        even, uneven = jnp.ones(n + m), jax.random.uniform(key_spectrum, (n + m,), minval=0.0, maxval=2.0)
        spectrum = level * jnp.where(spread > 0, uneven, even)
        Theta = jax.random.normal(key_product, (n, m))
        # The slowest network there is with this imbalance and this product.
        start = theory.tight_start(problem, Theta, spectrum[:n], spectrum[n:], n + m)
        return ratios(start, problem)

    first = ensemble(random_start, {"width": widths}, trials, seed)
    second = ensemble(prescribed, {"level": levels, "spread": (0.0, 1.0)}, trials, seed)
    names = ("random_target", "worst_target")
    dataset = first.rename({name: f"gaussian_{name}" for name in (*names, "ok")})
    return dataset.merge(second.rename({name: f"prescribed_{name}" for name in (*names, "ok")}))


def measure(dataset) -> Measured:
    gauss, given = (
        dataset["gaussian_random_target"].median("trial").values,
        dataset["gaussian_worst_target"].median("trial").values,
    )
    attained = dataset["prescribed_worst_target"].values
    numbers = {
        "Gaussian, random target": gauss.tolist(),
        "Gaussian, worst target": given.tolist(),
        "slowest network, worst target": [float(attained.min()), float(attained.max())],
        "largest ratio": float(
            max(dataset[name].values.max() for name in dataset.data_vars if name.endswith("target"))
        ),
    }
    widths, excess = dataset["width"].values, max(numbers["largest ratio"] - 1, 0)
    text = (
        f"Prop. 1 over the rate at Gaussian starts, median, from h = {widths[0]:g} to {widths[-1]:g}: {gauss[0]:.2f} to "
        f"{gauss[-1]:.3f} with random targets, {given[0]:.2f} to {given[-1]:.3f} with the worst target; at the slowest network "
        f"with a given imbalance and product and its worst target it is 1 within {np.abs(attained - 1).max():.0e}; it never "
        f"exceeds 1 by more than {excess:.0e}"
    )
    return Measured(text, numbers)


def draw(figure, dataset) -> None:
    axes = figure.subplots(1, 3, sharey=True)
    panels = (
        ("width", "gaussian", dataset, "Gaussian starts", "hidden width $h$"),
        (
            "level",
            "prescribed",
            dataset.isel(spread=0),
            "Equal eigenvalues of $D$",
            r"sizes $|d_i|$ of the eigenvalues",
        ),
        ("level", "prescribed", dataset.isel(spread=1), "Spread eigenvalues of $D$", r"mean of the sizes $|d_i|$"),
    )
    labels = {"random_target": "random target", "worst_target": "worst target"}
    for ax, (along, prefix, data, title, label) in zip(axes, panels, strict=True):
        for i, (name, text) in enumerate(labels.items()):
            values = data[f"{prefix}_{name}"].transpose("trial", along).values
            draw_band(ax, data[along].values, values, **mark(i), ls=("-", "--")[i], label=text)
        ax.axhline(1, color="0.5", lw=0.8)
        ax.set(xscale="log", xlabel=label, ylim=(0, 1.05))
        ax.set_title(title)
    axes[0].set_ylabel("Prop. 1 / rate $-L'/(L - L^*)$\n(median, 5% to 95%)")
    axes[-1].legend(loc="upper right", bbox_to_anchor=(1.0, 0.95))


FIGURES = {
    "tightness": Figure(
        OWN,
        "how tight Proposition 1 is over starts",
        "no paper has it: M22's Appendix C says when Proposition 1 is attained, not how near it is elsewhere",
        compute,
        measure,
        draw,
        {"trials": 2000, "points": 13},
        {"trials": 200, "points": 7},
        (7.6, 3.0),
    )
}
