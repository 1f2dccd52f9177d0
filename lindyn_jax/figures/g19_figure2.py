"""G19 Fig. 2: descent on low-rank data."""

import math

import jax.numpy as jnp
import numpy as np
import xarray as xr

from .. import exact, theory
from ..data import low_rank
from ..models import TwoLayer
from ..plots import COLOURS, legend_below, mark
from ..problems import LeastSquares
from ..trajectory import FINISHED
from ._common import Figure, Measured, descend, listed, rises


def compute(*, seed: int, steps: int, points: int, d: float = 5.0):
    """Singular values, nuclear norm and distance to the projector along descent, of two layers and of one, on low-rank data.

    The step is `eta = 0.4/sigma_1`; two layers start at e^{-d} I each, one layer at their product.
    """
    data, projector = low_rank(seed=seed)
    problem = LeastSquares(data.X, data.Y, scale="mean")
    n, N = problem.num_inputs, problem.num_samples
    sigma = np.linalg.svd(data.X.T @ data.X / N, compute_uv=False)
    eta = 0.4 / sigma[0]
    numbers = np.unique(np.round(np.concatenate([[0], np.logspace(0, math.log10(steps), points)])).astype(int))
    weights = math.exp(-d) * jnp.eye(n)
    product = {"product": lambda model, problem: model.product()}
    run = descend(TwoLayer(weights, weights), problem, numbers, eta, product)
    products = {
        "two layers": np.asarray(run.observables["product"]),
        "one layer": np.asarray(exact.linear_descent(problem, weights @ weights, eta, numbers)),
    }

    model = list(products)
    stacked = np.stack([products[name] for name in model])
    singular = np.linalg.svd(stacked, compute_uv=False)
    dims = ("model", "step")
    jumps = d * np.asarray(theory.jump_steps(sigma[: 2 * 5], eta).value)
    dataset = xr.Dataset(
        {
            "singular_values": ((*dims, "index"), singular[..., : 2 * 5], {"long_name": "singular values of Theta"}),
            "nuclear_norm": (dims, singular.sum(-1), {"long_name": "nuclear norm of Theta"}),
            "distance": (dims, np.linalg.norm(stacked - projector, axis=(2, 3)), {"long_name": "||Theta - P||_F"}),
            "sigma": ("index", sigma[: 2 * 5], {"long_name": "eigenvalues of Sigma_x = Sigma_xy"}),
            "jump_steps": ("index", jumps, {"long_name": "d/log(1 + eta sigma_i)", "source": "G19 Cor. 3"}),
            "ok": ((), bool(run.result == FINISHED)),
        },
        coords={"step": numbers, "model": model, "index": 1 + np.arange(2 * 5)},
    )
    return dataset.assign(d=d, eta=eta, rank=5)


def measure(dataset) -> Measured:
    rank = int(dataset["rank"])
    values = dataset["singular_values"].transpose("model", "index", "step").sel(model="two layers").values[:rank]
    half = rises(dataset["step"].values.astype(float), values, 0.5)
    law = dataset["jump_steps"].values[:rank]
    distance, nuclear = dataset["distance"], dataset["nuclear_norm"]
    best = {name: float(distance.sel(model=name).min()) for name in dataset["model"].values.tolist()}
    at = int(distance.sel(model="two layers").argmin("step"))
    numbers = {
        "half-height steps": half.tolist(),
        "law": law.tolist(),
        "sigma": dataset["sigma"].values[:rank].tolist(),
        "least distance to the projector": best,
        "nuclear norm there": float(nuclear.sel(model="two layers").isel(step=at)),
    }
    text = (
        f"sigma = {listed(numbers['sigma'])}: half-height steps {listed(half, '{:.1f}')} against d/log(1 + eta sigma) = "
        f"{listed(law, '{:.1f}')}; least distance to the projector {best['two layers']:.1e} for two layers, "
        f"{best['one layer']:.1e} for one; nuclear norm {numbers['nuclear norm there']:.4f} there, of rank {rank}"
    )
    return Measured(text, numbers)


def draw(figure, dataset) -> None:
    left, right = figure.subplots(1, 2)
    step, rank = np.maximum(dataset["step"].values, 0.7), int(dataset["rank"])
    looks = {"two layers": "-", "one layer": "--"}
    every = max(step.size // 16, 1)
    for name, dashes in looks.items():
        values = dataset["singular_values"].sel(model=name).transpose("index", "step").values
        for i in range(rank):
            # By markers the curves are told apart without colours.
            look = {
                "ms": 3,
                "markevery": (i * every // rank, every),
                "mfc": COLOURS[i] if name == "two layers" else "none",
            }
            left.plot(step, values[i], **mark(i), **look, ls=dashes, lw=1.4 if name == "two layers" else 0.9)
    for i in range(rank):
        left.axvline(float(dataset["jump_steps"][i]), color=COLOURS[i], ls=":", lw=1)
        label = rf"$\sigma_{i + 1}$ = {float(dataset['sigma'][i]):.3g}"
        left.plot([], [], **mark(i), ms=3, ls="none", label=label)
    for name, dashes in looks.items():
        left.plot([], [], color="0.3", ls=dashes, label=name)
    left.plot([], [], color="0.3", ls=":", lw=1, label=r"$d/\log(1 + \eta\sigma_i)$")
    left.set(xscale="log", xlabel="number of steps of descent", xlim=(1, step[-1]))
    left.set_ylabel(r"singular values of $\Theta$, the five largest")
    left.set_title("One component after another")
    legend_below(left, 3)
    labels = {"distance": r"$\|\Theta - P\|_F$, projector $P$", "nuclear_norm": r"nuclear norm $\|\Theta\|_*$"}
    for i, (name, label) in enumerate(labels.items()):
        for model, dashes in looks.items():
            look = {"ls": dashes, "ms": 3, "markevery": every, "label": f"{label}, {model}"}
            right.plot(step, dataset[name].sel(model=model).values, **mark(i), **look)
    right.set(xscale="log", yscale="log", xlabel="number of steps of descent", xlim=(1, step[-1]))
    right.set_ylabel(r"distance $\|\Theta - P\|_F$, nuclear norm $\|\Theta\|_*$")
    right.set_title("Towards the subspace of the data")
    legend_below(right, 1)


FIGURES = {
    "g19-figure2": Figure(
        "G19 Fig. 2",
        "descent on low-rank data, two layers and one",
        "two layers learn one component after another, at the steps d/log(1 + eta sigma_i), and pass near the projector onto the "
        "subspace of the data",
        compute,
        measure,
        draw,
        {"steps": 100_000, "points": 400},
        {"steps": 20_000, "points": 200},
        (7.6, 4.2),
        reference="on data with sigma = (53.5, 4.78, 2.88, .894, .199) components are first above half their height at the steps "
        "15/142/234/751/3364",
    )
}
