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

STARTS = ("product", "layers")


def figure1(
    *,
    seed: int,
    points: int = 240,
    times: tuple[float, ...] | None = None,
    sigma: tuple[float, ...] = (0.1, 0.01, 0.001),
    exponents: tuple[float | int, ...] = (3, 7.5, 12),
):
    """Two layers as a linear autoencoder, and one layer, against time over d, by the flow and in closed form.

    Two layers start at the product e^{-d} I, as the caption says, one layer at this product as well; and at U = V = e^{-d} I, the
    start of Theorem 1. `times`, over d, are `points` log-spaced ones by default.
    """
    rates = np.array(sigma)
    X = np.diag(np.sqrt(len(rates) * rates))
    problem = LeastSquares(X, X, scale="mean")
    clock = np.logspace(math.log10(0.05 / rates.max()), math.log10(6 / rates.min()), points)
    if times is not None:
        clock = np.asarray(times, float)

    def trial(key, start, d):
        weights = jnp.exp(-d * jnp.where(start == 0, 0.5, 1.0)) * jnp.eye(len(rates))
        flow = gradient_flow(
            TwoLayer(weights, weights),
            problem,
            d * clock,
            observables={"component": lambda model, problem: jnp.diagonal(model.product())},
            solver="dopri8",
        )
        return {"component": flow.observables["component"], "ok": flow.result == FINISHED}

    dims = {"component": ("clock", "sigma")}
    dataset = ensemble(trial, {"start": (0.0, 1.0), "d": exponents}, 1, seed, dims=dims).isel(trial=0, drop=True)
    dataset = dataset.assign_coords(start=list(STARTS), clock=clock, sigma=rates)
    d = dataset["d"].values
    # Theorem 1's exponent, of each layer.
    each = np.multiply.outer([0.5, 1.0], d)
    law = exact.aligned(rates, rates, each[..., None, None], d[:, None, None] * clock[:, None])
    linear = np.stack([exact.linear(problem, np.exp(-value) * np.eye(len(rates)), value * clock) for value in d])
    dataset["law"] = (dataset["component"].dims, np.asarray(law))
    dataset["half_time"] = (
        ("start", "d", "sigma"),
        np.asarray(exact.aligned_half_time(rates, rates, each[..., None]).value),
    )
    dataset["norm"] = (dataset["component"] ** 2).sum("sigma")
    dataset["law_norm"] = (dataset["law"] ** 2).sum("sigma")
    dataset["linear_norm"] = (("d", "clock"), np.sum(linear**2, axis=(2, 3)))
    for name, text in {
        "start": "product: U V^T = e^{-d} I; layers: U = V = e^{-d} I",
        "d": "exponent of the start",
        "clock": "time over d",
        "sigma": "eigenvalues of Sigma_x = Sigma_xy",
        "component": "w_i(t), by the integrated flow",
        "law": "w_i(t), closed form",
        "half_time": "time at which w_i is half its limit, closed form",
        "norm": "||Theta||_F^2 of two layers, by the integrated flow",
        "law_norm": "the same, closed form",
        "linear_norm": "||Theta||_F^2 of one layer from e^{-d} I, closed form",
    }.items():
        dataset[name].attrs = {"long_name": text}
    return dataset


def measure_figure1(dataset) -> Measured:
    clock, d, sigma = (dataset[name].values for name in ("clock", "d", "sigma"))
    dims = ("start", "d", "sigma", "clock")
    flow, law = dataset["component"].transpose(*dims).values, dataset["law"].transpose(*dims).values
    half, tenth, nine = (_rises(clock, flow, level) for level in (0.5, 0.1, 0.9))
    deviation = float(np.nanmax(np.abs(half * d[:, None] / dataset["half_time"].values - 1)))
    width = np.nanmean((nine - tenth) / half, axis=-1)
    # Between the jumps from the product e^{-d} I, which are at 1/(2 sigma_i), and at the end.
    between = [*np.sqrt(1 / (4 * sigma[:-1] * sigma[1:])), clock[-1]]
    plateaus = {}
    for name, values in (
        ("two layers", dataset["norm"].sel(start="product")),
        ("one layer", dataset["linear_norm"]),
    ):
        plateaus[name] = values.transpose("d", "clock").sel(clock=between, method="nearest").values
    numbers = {
        "jump times over d, times sigma": dict(zip(STARTS, (half * sigma).tolist(), strict=True)),
        "width of the jumps over their times": dict(zip(STARTS, width.tolist(), strict=True)),
        "largest deviation of half times from the law": deviation,
        "largest deviation from the closed form": float(np.nanmax(np.abs(flow - law))),
        **{f"squared norm between the jumps, {name}": values.tolist() for name, values in plateaus.items()},
    }

    def rows(values):
        return ", ".join(listed(row, "{:.2f}") for row in values)

    at = [listed((half[i] * sigma).mean(axis=1), "{:.3f}") for i in range(len(STARTS))]
    text = (
        f"for d = {listed(d)} ||Theta||_F^2 between the jumps and at the end is {rows(plateaus['two layers'])} for two layers "
        f"and {rows(plateaus['one layer'])} for one layer, from the product e^-d I; components are at half their height at "
        f"{at[0]} times d/sigma_i from there and at {at[1]} times from U = V = e^-d I, as the closed form says within "
        f"{deviation:.0e}, and go from 10% to 90% within {listed(width[0])} and {listed(width[1])} of that time"
    )
    return Measured(text, numbers)


def _rises(times, values, level: float):
    """When components of limit 1 rise above a level: (1 - w)/w is exponential in time, nearly so for descent."""
    values = np.maximum(values, 1e-300)
    return crossings(times, np.maximum(1 - values, 0) / values, (1 - level) / level)


def draw_figure1(figure, dataset) -> None:
    from ...plots import COLOURS, MARKERS

    axes = figure.subplots(2, dataset.sizes["d"], sharex=True, sharey="row")
    clock, every = dataset["clock"].values, max(dataset.sizes["clock"] // 30, 1)
    flow = {"marker": "o", "markersize": 3, "linestyle": "none"}
    sigmas = dataset["sigma"].values.tolist()
    for (top, bottom), d in zip(axes.T, dataset["d"].values.tolist(), strict=True):
        row = dataset.sel(d=d)
        first, second = row.sel(start="product"), row.sel(start="layers")
        top.plot(clock, first["law_norm"].values, color=COLOURS[6], label="two layers")
        top.plot(clock[::every], first["norm"].values[::every], color=COLOURS[6], **flow)
        top.plot(clock, row["linear_norm"].values, color=COLOURS[4], linestyle="--", label="one layer")
        for level in range(1, len(sigmas) + 1):
            top.axhline(level, color="0.7", linewidth=0.8, zorder=0)
        for i, sigma in enumerate(sigmas):
            top.axvline(1 / (2 * sigma), color=COLOURS[i], linestyle=":", linewidth=1)
            bottom.axvline(1 / sigma, color=COLOURS[i], linestyle=":", linewidth=1)
            label = rf"$w_{i + 1}$, $\sigma_{i + 1}$ = {sigma:g}"
            look = {"color": COLOURS[i], "linestyle": ("-", "--", "-.")[i % 3]}
            bottom.plot(clock, second["law"].sel(sigma=sigma).values, label=label, **look)
            values = second["component"].sel(sigma=sigma).values[::every]
            bottom.plot(clock[::every], values, **{**flow, "color": COLOURS[i], "marker": MARKERS[i]})
        top.set_xscale("log")
        top.set_title(rf"$\Theta(0) = e^{{-d}} I$, $d$ = {d:g}")
        bottom.set_title(rf"$U(0) = V(0) = e^{{-d}} I$, $d$ = {d:g}")
        bottom.set_xlabel("time over $d$, $t/d$")
    axes[0, 0].set_ylabel(r"squared norm $\|\Theta(t)\|_F^2$")
    axes[1, 0].set_ylabel(r"component $w_i(t)$ of $\Theta$")
    axes[0, 0].plot([], [], color="0.3", label="flow (lines: closed form)", **flow)
    axes[0, 0].plot(
        [], [], color="0.3", linestyle=":", linewidth=1, label=r"jumps: $1/(2\sigma_i)$ above, $1/\sigma_i$ below"
    )
    handles, labels = (a + b for a, b in zip(*(ax.get_legend_handles_labels() for ax in axes[:, 0]), strict=True))
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)


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
    from ...plots import COLOURS, MARKERS

    left, right = figure.subplots(1, 2)
    step, rank = np.maximum(dataset["step"].values, 0.7), int(dataset["rank"])
    looks = {"two layers": "-", "one layer": "--"}
    every = max(step.size // 16, 1)
    for name, dashes in looks.items():
        values = dataset["singular_values"].sel(model=name).transpose("index", "step").values
        for i in range(rank):
            left.plot(
                step,
                values[i],
                color=COLOURS[i],
                linestyle=dashes,
                linewidth=1.4 if name == "two layers" else 0.9,
                # By which the curves are told apart without colours.
                marker=MARKERS[i],
                markersize=3,
                markevery=(i * every // rank, every),
                markerfacecolor=COLOURS[i] if name == "two layers" else "none",
            )
    for i in range(rank):
        left.axvline(float(dataset["jump_steps"][i]), color=COLOURS[i], linestyle=":", linewidth=1)
        label = rf"$\sigma_{i + 1}$ = {float(dataset['sigma'][i]):.3g}"
        left.plot([], [], color=COLOURS[i], marker=MARKERS[i], markersize=3, linestyle="none", label=label)
    for name, dashes in looks.items():
        left.plot([], [], color="0.3", linestyle=dashes, label=name)
    left.plot([], [], color="0.3", linestyle=":", linewidth=1, label=r"$d/\log(1 + \eta\sigma_i)$")
    left.set(
        xscale="log",
        xlabel="number of steps of descent",
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
                marker=MARKERS[i],
                markersize=3,
                markevery=every,
                label=f"{label}, {model}",
            )
    right.set(xscale="log", yscale="log", xlabel="number of steps of descent", xlim=(1, step[-1]))
    right.set_ylabel(r"distance $\|\Theta - P\|_F$, nuclear norm $\|\Theta\|_*$")
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
    least, most, determined = np.empty(shape[:2]), np.empty(shape[:2]), np.empty(shape[:2], bool)
    for i, name in enumerate(sets):
        for j, centre in enumerate(centres):
            data = load(name, centre=centre)
            for k, completion in enumerate(completions):
                found = commutation(data.X, data.Y, completion=completion)
                delta_xy[i, j, k] = found.delta_xy
            delta_x[i, j], rank[i, j] = found.delta_x, found.rank
            least[i, j], most[i, j] = found.delta_xy_least, found.delta_xy_most
            determined[i, j] = found.rank == min(data.X.shape[1], data.Y.shape[1])
    itself = autoencoder(load(sets[0]))
    dims = ("set", "centred")
    return xr.Dataset(
        {
            "delta_xy": ((*dims, "completion"), delta_xy, {"long_name": "Delta_xy"}),
            "delta_x": (dims, delta_x, {"long_name": "Delta_x"}),
            "least": (dims, least, {"long_name": "Delta_xy, least over all completions"}),
            "most": (dims, most, {"long_name": "Delta_xy, largest over all completions"}),
            "rank": (dims, rank, {"long_name": "rank of Sigma_xy"}),
            "determined": (
                dims,
                determined,
                {"long_name": "whether no rounding errors enter the completion by the SVD"},
            ),
            "ok": (dims, np.isfinite(delta_x)),
            "autoencoder": ((), commutation(itself.X, itself.Y).delta_xy, {"long_name": "Delta_xy of an autoencoder"}),
        },
        coords={"set": list(sets), "centred": list(centres), "completion": list(completions)},
    )


def measure_table1(dataset) -> Measured:
    numbers, parts, ratios = {"autoencoder": float(dataset["autoencoder"])}, [], {}
    for name in dataset["set"].values.tolist():
        numbers[name], kinds = {}, []
        for centred, kind in ((False, "raw"), (True, "centred")):
            row = dataset.sel(set=name, centred=centred)
            found, delta_x = row["delta_xy"].sel(completion="svd").item(), row["delta_x"].item()
            least, most = row["least"].item(), row["most"].item()
            numbers[name][kind] = [found, delta_x]
            numbers[name][f"{kind}, by completion"] = dict(
                zip(row["completion"].values.tolist(), row["delta_xy"].values.tolist(), strict=True)
            ) | {"least": least, "most": most}
            ratios[f"{name} {kind}"] = found / delta_x
            free = "" if row["determined"].item() else f" (rounding errors choose between {least:.3g} and {most:.3g})"
            kinds.append(f"{kind} {found:.3g}/{delta_x:.3f}{free}")
        parts.append(f"{name} {', '.join(kinds)}")
    largest = max(ratios, key=lambda name: ratios[name])
    numbers["largest ratio"] = {largest: ratios[largest]}
    text = (
        f"Delta_xy/Delta_x, completed by the SVD: {'; '.join(parts)}; Delta_xy is at most {ratios[largest]:.2g} of Delta_x "
        f"({largest}); an autoencoder has Delta_xy = {numbers['autoencoder']:.0e}"
    )
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
            marker=MARKERS[j],
            markerfacecolor="none",
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
        "two layers learn in steps as the start vanishes, one layer does not",
        "||Theta||_F^2 of a two-layer autoencoder from the product e^{-d} I goes up in steps, with plateaus 1, 2 and 3, the more "
        "abruptly the larger d = 3, 7.5, 12; that of one layer does not",
        figure1,
        measure_figure1,
        draw_figure1,
        {"points": 240},
        {"points": 120},
        (7.6, 5.2),
        reference="from the product e^{-d} I, at t/d = 10, 100, 3000: two layers .922/1.919/3.000 (d = 3), .999/1.999/3.000 "
        "(7.5), 1.000/2.000/3.000 (12); one layer 1.001/1.995/3.000, 1.283/2.278/3.000, 1.501/2.488/3.000",
    ),
    "g19-figure2": Figure(
        "G19 Fig. 2",
        "descent on low-rank data, two layers and one",
        "two layers learn one component after another, at the steps d/log(1 + eta sigma_i), and pass near the projector onto the "
        "subspace of the data",
        figure2,
        measure_figure2,
        draw_figure2,
        {"steps": 100_000, "points": 400},
        {"steps": 20_000, "points": 200},
        (7.6, 4.2),
        reference="on data with sigma = (53.5, 4.78, 2.88, .894, .199) components are first above half their height at the steps "
        "15/142/234/751/3364",
    ),
    "g19-table1": Figure(
        "G19 Table 1",
        "how nearly inputs and targets share their components",
        "Delta_xy is small beside Delta_x on the data sets of the paper; those here are others",
        table1,
        measure_table1,
        draw_table1,
        {},
        {},
        (7.4, 2.8),
        reference="completed by the SVD, digits raw .0388/.641, centred .320/.523; iris 8.46e-4/.491, .0678/.480; wine "
        ".00803/.601, .00318/.601; breast cancer .0326/.639, .0144/.638",
    ),
}
