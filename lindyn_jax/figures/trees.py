"""Trees of items: broad distinctions are learned before fine ones, at times that a small start lets one write down."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .. import exact
from ..data import hierarchy
from ..flow import gradient_flow
from ..init import gaussian_core
from ..plots import COLOURS
from ..problems import factorization
from ..trajectory import FINISHED
from ._common import OWN, Figure, Measured, listed, named


def compute(
    *,
    seed: int,
    points: int,
    depths: tuple[int, ...] = (2, 3, 4),
    branching: int = 2,
    h: float = 1e6,
    size: float = 1e-6,
):
    """Modes of two layers that learn the features of trees from a small Gaussian start, averaged over each level, and their law.

    `size` is h times the variance of a weight: the effective strength at the start.
    """
    clock = np.linspace(0, 1, points)
    levels = max(depths) + 1
    shape = (len(depths), levels, points)
    modes, law, half = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape[:2], np.nan)
    sigma, horizon, ok = np.full(shape[:2], np.nan), np.zeros(len(depths)), np.zeros(len(depths), bool)
    for place, depth in enumerate(depths):
        tree = hierarchy(depth, branching)
        problem = factorization(tree.dataset.Y)
        core = gaussian_core(problem, h, std=(size / h) ** 0.5, key=jax.random.key(seed))
        items, features = jnp.asarray(tree.items), jnp.asarray(tree.features)
        horizon[place] = 1.5 * np.log(1 / size) / (2 * tree.sigma.min())
        ts = clock * horizon[place]
        seen = {"modes": partial(_strengths, items, features)}
        # The flow of a reduced network has the inputs' own coordinates where X = I.
        path = gradient_flow(core, problem, ts, observables=seen, solver="dopri8", rtol=1e-10)
        # What of the start grows: (u + v)/2 of every mode, and for equal modes their Gram matrix.
        grows = np.asarray(items.T @ core.U1 + features.T @ core.V) / 2
        ok[place] = int(path.result) == FINISHED
        for level in range(depth + 1):
            mine = tree.levels == level
            sigma[place, level] = tree.sigma[mine][0]
            modes[place, level] = np.mean(np.asarray(path.observables["modes"])[:, mine], axis=1)
            strengths = np.linalg.eigvalsh(grows[mine] @ grows[mine].T)
            one = np.full(len(strengths), sigma[place, level])
            law[place, level] = np.mean(exact.aligned(one, 1.0, -np.log(strengths) / 2, ts[:, None]), axis=1)
            half[place, level] = np.mean(exact.aligned_half_time(one, 1.0, -np.log(strengths) / 2).value)
    import xarray as xr

    dims = ("depth", "level", "clock")
    dataset = xr.Dataset(
        {
            "modes": (dims, modes),
            "law": (dims, law),
            "half_time": (dims[:2], half),
            "sigma": (dims[:2], sigma),
            "horizon": ("depth", horizon),
            "ok": ("depth", ok),
        },
        coords={"depth": list(depths), "level": np.arange(levels), "clock": clock},
    )
    return named(
        dataset,
        depth="depth of the tree",
        level="level of the tree that a mode tells apart",
        clock="time over the horizon",
        modes="strength of the modes of a level, mean, by the integrated flow",
        law="the same from the growing part of the start, closed form",
        half_time="time at which they are half learned, closed form, mean",
        sigma="singular value of the level",
        horizon="last time",
        ok="whether the flow finished",
    )


def _strengths(items, features, model, problem):
    """What of the end-to-end matrix lies along each mode."""
    return jnp.sum((items.T @ model.product()) * features.T, axis=1)


def measure(dataset) -> Measured:
    flow, law, sigma = (dataset[name].values for name in ("modes", "law", "sigma"))
    error = np.nanmax(np.abs(flow - law) / sigma[..., None], axis=(1, 2))
    half = dataset["half_time"].values
    ordered = [bool(np.all(np.diff(row[~np.isnan(row)]) > 0)) for row in half]
    numbers = {
        "largest deviation from the law over sigma": error.tolist(),
        "half times": half.tolist(),
        "broad before fine": ordered,
    }
    text = "; ".join(
        f"depth {depth}: levels are half learned at t = {listed(row[~np.isnan(row)])}, broad ones "
        f"{'first' if order else 'not always first'}, as the law says within {worst:.1e} of their singular values"
        for depth, row, order, worst in zip(dataset["depth"].values, half, ordered, error, strict=True)
    )
    return Measured(text, numbers)


def draw(figure, dataset) -> None:
    axes = np.atleast_1d(figure.subplots(1, dataset.sizes["depth"]))
    every = max(dataset.sizes["clock"] // 24, 1)
    for ax, depth in zip(axes, dataset["depth"].values.tolist(), strict=True):
        row = dataset.sel(depth=depth)
        ts = row["clock"].values * float(row["horizon"])
        for level in range(depth + 1):
            mode = row.sel(level=level)
            label = "all items" if level == 0 else f"level {level}"
            ax.plot(ts, mode["law"].values, color=COLOURS[level], label=label)
            ax.plot(ts[::every], mode["modes"].values[::every], color=COLOURS[level], marker="o", ms=3, ls="none")
        ax.set(xlabel="time $t$", ylabel="strength of the modes", title=f"tree of depth {depth}")
    axes[-1].plot([], [], color="0.3", marker="o", ms=3, ls="none", label="flow (lines: law)")
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)


FIGURES = {
    "trees": Figure(
        OWN,
        "features of trees are learned from the root to the leaves",
        "Saxe, McClelland and Ganguli (2019) show mode curves of hierarchical data: broad distinctions before fine ones",
        compute,
        measure,
        draw,
        {"points": 160},
        {"points": 80, "depths": (2, 3)},
        (7.6, 3.2),
    )
}
