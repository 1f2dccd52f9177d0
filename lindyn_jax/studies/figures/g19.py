"""Figures of G19, *Implicit regularization of discrete gradient dynamics in linear neural networks*."""

import math

import jax.numpy as jnp
import numpy as np

from ... import exact, theory
from ...data import autoencoder, commutation, load, low_rank
from ...descent import gradient_descent, plain_descent
from ...flow import gradient_flow
from ...models import TwoLayer
from ...problem import LeastSquares
from ...trajectory import FINISHED
from ._common import Figure, Measured, crossings, ensemble, listed

# -- Figure 1: components jump one after another -------------------------------------------------------------------------


def figure1(
    *,
    seed: int,
    points: int,
    sigma: tuple[float, ...] = (0.1, 0.01, 0.001),
    exponents: tuple[float | int, ...] = (3, 7.5, 12),
):
    """The components of the network against time over d, from the starts e^{-d} I, by the flow and in closed form."""
    rates = np.array(sigma)
    X = np.diag(np.sqrt(len(rates) * rates))
    problem = LeastSquares(X, X, scale="mean")
    clock = np.logspace(math.log10(0.2 / rates.max()), math.log10(6 / rates.min()), points)

    def trial(key, d):
        weights = jnp.exp(-d) * jnp.eye(len(rates))
        flow = gradient_flow(
            TwoLayer(weights, weights),
            problem,
            d * clock,
            observables={"component": lambda model, problem: jnp.diagonal(model.product())},
            solver="dopri8",
        )
        return {"component": flow.observables["component"], "ok": flow.result == FINISHED}

    dataset = ensemble(trial, {"d": exponents}, 1, seed, dims={"component": ("clock", "sigma")}).isel(
        trial=0, drop=True
    )
    dataset = dataset.assign_coords(clock=clock, sigma=rates)
    d = dataset["d"].values
    law = exact.aligned(rates, rates, d[:, None, None], d[:, None, None] * clock[:, None])
    dataset["law"] = (dataset["component"].dims, np.asarray(law))
    dataset["half_time"] = (("d", "sigma"), np.asarray(exact.aligned_half_time(rates, rates, d[:, None]).value))
    for name, text in {
        "d": "exponent of the start, U = V = e^{-d} I",
        "clock": "time over d",
        "sigma": "eigenvalues of Sigma_x = Sigma_xy",
        "component": "w_i(t), by the integrated flow",
        "law": "w_i(t), closed form",
        "half_time": "time at which w_i is half its limit, closed form",
    }.items():
        dataset[name].attrs = {"long_name": text}
    return dataset


def measure_figure1(dataset) -> Measured:
    clock, d, sigma = (dataset[name].values for name in ("clock", "d", "sigma"))
    flow = dataset["component"].transpose("d", "sigma", "clock").values
    law = dataset["law"].transpose("d", "sigma", "clock").values
    half, tenth, nine = (_rises(clock, flow, level) for level in (0.5, 0.1, 0.9))
    deviation = float(np.nanmax(np.abs(half * d[:, None] / dataset["half_time"].values - 1)))
    width = np.nanmean((nine - tenth) / half, axis=1)
    numbers = {
        "jump times over d, times sigma": (half * sigma).tolist(),
        "width of the jumps over their times": width.tolist(),
        "largest deviation of half times from the law": deviation,
        "largest deviation from the closed form": float(np.nanmax(np.abs(flow - law))),
    }
    at = listed((half * sigma).mean(axis=1), "{:.4f}")
    text = (
        f"for d = {listed(d)} components are at half their height at {at} times d/sigma_i (half times within {deviation:.0e} of "
        f"the law, all values within {numbers['largest deviation from the closed form']:.0e}), and go from 10% to 90% within "
        f"{listed(width)} of that time: steps as d grows"
    )
    return Measured(text, numbers)


def _rises(times, values, level: float):
    """When each curve rises above a level."""
    return crossings(times, 1 / np.maximum(values, 1e-300), 1 / level)


def draw_figure1(figure, dataset) -> None:
    from ...plots import COLOURS, MARKERS

    axes = figure.subplots(1, dataset.sizes["d"], sharey=True)
    clock, every = dataset["clock"].values, max(dataset.sizes["clock"] // 30, 1)
    for ax, d in zip(axes, dataset["d"].values.tolist(), strict=True):
        row = dataset.sel(d=d)
        for i, sigma in enumerate(dataset["sigma"].values.tolist()):
            ax.plot(clock, row["law"].sel(sigma=sigma).values, color=COLOURS[i], label=rf"$\sigma_{i + 1}$ = {sigma:g}")
            ax.plot(
                clock[::every],
                row["component"].sel(sigma=sigma).values[::every],
                color=COLOURS[i],
                marker=MARKERS[i],
                markersize=3,
                linestyle="none",
            )
            ax.axvline(1 / sigma, color=COLOURS[i], linestyle=":", linewidth=1)
        ax.set(xscale="log", xlabel="time over $d$, $t/d$")
        ax.set_title(f"$d$ = {d:g}")
    axes[0].set_ylabel(r"component $w_i(t)$ of $\Theta$")
    axes[0].plot([], [], color="0.3", linestyle="none", marker="o", markersize=3, label="flow (lines: closed form)")
    axes[0].plot([], [], color="0.3", linestyle=":", linewidth=1, label=r"$T_i = 1/\sigma_i$")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)


# -- Figure 2: descent on low-rank data ------------------------------------------------------------------------------------


def figure2(*, seed: int, steps: int, points: int, d: float = 5.0):
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
    run = gradient_descent(
        TwoLayer(weights, weights),
        problem,
        int(numbers[-1]),
        optimizer=plain_descent(eta),
        save_at=numbers,
        observables={"product": lambda model, problem: model.product()},
        differentiate="forward",
    )
    products = {
        "two layers": np.asarray(run.observables["product"]),
        "one layer": np.asarray(exact.linear_descent(problem, weights @ weights, eta, numbers)),
    }
    import xarray as xr

    model = list(products)
    stacked = np.stack([products[name] for name in model])
    singular = np.linalg.svd(stacked, compute_uv=False)
    dims = ("model", "step")
    dataset = xr.Dataset(
        {
            "singular_values": ((*dims, "index"), singular[..., : 2 * 5], {"long_name": "singular values of Theta"}),
            "nuclear_norm": (dims, singular.sum(-1), {"long_name": "nuclear norm of Theta"}),
            "distance": (dims, np.linalg.norm(stacked - projector, axis=(2, 3)), {"long_name": "||Theta - P||_F"}),
            "sigma": ("index", sigma[: 2 * 5], {"long_name": "eigenvalues of Sigma_x = Sigma_xy"}),
            "jump_steps": (
                "index",
                d * np.asarray(theory.jump_steps(sigma[: 2 * 5], eta).value),
                {"long_name": "d/log(1 + eta sigma_i)", "source": "G19 Cor. 3"},
            ),
            "ok": ((), bool(run.result == FINISHED)),
        },
        coords={"step": numbers, "model": model, "index": 1 + np.arange(2 * 5)},
    )
    return dataset.assign(d=d, eta=eta, rank=5)


def measure_figure2(dataset) -> Measured:
    rank = int(dataset["rank"])
    values = dataset["singular_values"].transpose("model", "index", "step").sel(model="two layers").values[:rank]
    # A start of e^{-2d} has nothing to say before the first step.
    half = _rises(dataset["step"].values.astype(float), values, 0.5)
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


def draw_figure2(figure, dataset) -> None:
    from ...plots import COLOURS

    left, right = figure.subplots(1, 2)
    step, rank = np.maximum(dataset["step"].values, 0.7), int(dataset["rank"])
    looks = {"two layers": "-", "one layer": "--"}
    for name, dashes in looks.items():
        values = dataset["singular_values"].sel(model=name).transpose("index", "step").values
        for i in range(rank):
            left.plot(
                step, values[i], color=COLOURS[i], linestyle=dashes, linewidth=1.4 if name == "two layers" else 0.9
            )
    for i in range(rank):
        left.axvline(float(dataset["jump_steps"][i]), color=COLOURS[i], linestyle=":", linewidth=1)
    for name, dashes in looks.items():
        left.plot([], [], color="0.3", linestyle=dashes, label=name)
    left.plot([], [], color="0.3", linestyle=":", linewidth=1, label=r"$d/\log(1 + \eta\sigma_i)$")
    left.set(
        xscale="log",
        xlabel="steps of descent",
        ylabel=r"singular values of $\Theta$, the five largest",
        xlim=(1, step[-1]),
    )
    left.set_title("One component after another")
    left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3)
    for i, (name, label) in enumerate(
        {"distance": r"$\|\Theta - P\|_F$, projector $P$", "nuclear_norm": r"nuclear norm $\|\Theta\|_*$"}.items()
    ):
        for model, dashes in looks.items():
            right.plot(
                step,
                dataset[name].sel(model=model).values,
                color=COLOURS[i],
                linestyle=dashes,
                label=f"{label}, {model}",
            )
    right.set(
        xscale="log", yscale="log", xlabel="steps of descent", ylabel="distance, nuclear norm", xlim=(1, step[-1])
    )
    right.set_title("Towards the subspace of the data")
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=1)


# -- Table 1: do inputs and targets share their components? ------------------------------------------------------------------

SETS = ("digits", "iris", "wine", "breast-cancer")


def table1(*, seed: int, sets: tuple[str, ...] = SETS, completions: tuple[str, ...] = ("svd", "diagonal", "thin")):
    """Delta_xy and Delta_x of scikit-learn's bundled sets, raw and centred, and of digits as an autoencoder.

    Nothing is random here: the seed changes nothing.
    """
    import xarray as xr

    centres = (False, True)
    shape = (len(sets), len(centres), len(completions))
    delta_xy, delta_x, rank = np.empty(shape), np.empty(shape[:2]), np.empty(shape[:2], int)
    least, most = np.empty(shape[:2]), np.empty(shape[:2])
    for i, name in enumerate(sets):
        for j, centre in enumerate(centres):
            data = load(name, centre=centre)
            for k, completion in enumerate(completions):
                found = commutation(data.X, data.Y, completion=completion)
                delta_xy[i, j, k] = found.delta_xy
            delta_x[i, j], rank[i, j] = found.delta_x, found.rank
            least[i, j], most[i, j] = found.delta_xy_least, found.delta_xy_most
    itself = autoencoder(load(sets[0]))
    dims = ("set", "centred")
    return xr.Dataset(
        {
            "delta_xy": ((*dims, "completion"), delta_xy, {"long_name": "Delta_xy"}),
            "delta_x": (dims, delta_x, {"long_name": "Delta_x"}),
            "least": (dims, least, {"long_name": "Delta_xy, least over all completions"}),
            "most": (dims, most, {"long_name": "Delta_xy, largest over all completions"}),
            "rank": (dims, rank, {"long_name": "rank of Sigma_xy"}),
            "ok": (dims, np.isfinite(delta_x)),
            "autoencoder": ((), commutation(itself.X, itself.Y).delta_xy, {"long_name": "Delta_xy of an autoencoder"}),
        },
        coords={"set": list(sets), "centred": list(centres), "completion": list(completions)},
    )


def measure_table1(dataset) -> Measured:
    numbers, parts = {"autoencoder": float(dataset["autoencoder"])}, []
    for name in dataset["set"].values.tolist():
        pairs = {}
        for centred in (False, True):
            row = dataset.sel(set=name, centred=centred)
            pairs["centred" if centred else "raw"] = [
                float(row["delta_xy"].sel(completion="svd")),
                float(row["delta_x"]),
            ]
        numbers[name] = pairs
        parts.append(f"{name} {'; '.join(f'{kind} {xy:.3g}/{x:.3f}' for kind, (xy, x) in pairs.items())}")
    parts.append(f"an autoencoder has Delta_xy = {numbers['autoencoder']:.0e}")
    text = f"Delta_xy/Delta_x, completed by the SVD: {', '.join(parts)}"
    return Measured(text, numbers)


def draw_table1(figure, dataset) -> None:
    from ...plots import COLOURS, MARKERS

    ax = figure.subplots(1, 1)
    sets = dataset["set"].values.tolist()
    for j, centred in enumerate((False, True)):
        row, y = dataset.sel(centred=centred), np.arange(len(sets)) + 0.2 * (2 * j - 1)
        kind = "centred" if centred else "raw"
        face = COLOURS[j]
        ax.hlines(y, row["least"].values, row["most"].values, color=face, linewidth=4, alpha=0.25)
        ax.plot(
            row["delta_xy"].sel(completion="svd").values,
            y,
            color=face,
            marker=MARKERS[j],
            linestyle="none",
            label=rf"$\Delta_{{xy}}$, {kind} (bar: all completions)",
        )
        ax.plot(
            row["delta_x"].values,
            y,
            color=face,
            marker="|",
            markersize=9,
            markeredgewidth=2,
            linestyle="none",
            label=rf"$\Delta_x$, {kind}",
        )
    ax.axvline(1 / math.sqrt(2), color="0.5", linewidth=0.8, linestyle="--", label=r"$\Delta_x < 1/\sqrt{2}$")
    ax.set_yticks(np.arange(len(sets)), sets)
    ax.invert_yaxis()
    ax.set(
        xscale="log",
        xlabel=r"$\Delta_{xy}$, how far $\Sigma_x$, $\Sigma_{xy}$ are from shared vectors; $\Delta_x$, from $\Sigma_x \propto I$",
    )
    ax.set_ylabel("data set")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


FIGURES = {
    "g19-figure1": Figure(
        "G19 Fig. 1",
        "components are learned one after another as the start vanishes",
        "components jump at the times d/sigma_i, the more abruptly the larger d",
        figure1,
        measure_figure1,
        draw_figure1,
        {"points": 240},
        {"points": 120},
        (7.6, 3.2),
    ),
    "g19-figure2": Figure(
        "G19 Fig. 2",
        "descent on low-rank data, two layers and one",
        "two layers learn one component after another, at the steps d/log(1 + eta sigma_i), and pass near the projector onto the "
        "subspace of the data (for sigma = (53.5, 4.78, 2.88, .894, .199): 14.9/142.5/234.5/750.7/3364.4 steps)",
        figure2,
        measure_figure2,
        draw_figure2,
        {"steps": 100_000, "points": 400},
        {"steps": 20_000, "points": 200},
        (7.6, 4.0),
    ),
    "g19-table1": Figure(
        "G19 Table 1",
        "how nearly inputs and targets share their components",
        "Delta_xy is small beside Delta_x for classification data; digits raw .0388/.641, centred .320/.523; iris 8.46e-4/.491, "
        ".0678/.480; wine .00803/.601, .00318/.601; breast cancer .0326/.639, .0144/.638",
        table1,
        measure_table1,
        draw_table1,
        {},
        {},
        (7.4, 2.8),
    ),
}
