"""Figures of T21, *Understanding the dynamics of gradient flow in overparameterized linear models*."""

import jax
import jax.numpy as jnp
import numpy as np

from ... import exact, init, observables, theory
from ...descent import gradient_descent, plain_descent
from ...fits import fit_lambda0, lambda0_path
from ...flow import gradient_flow
from ...models import LinearModel, SymmetricFactors, TwoLayer
from ...problem import LeastSquares, factorization
from ...trajectory import FINISHED, STOPPED
from ._common import Figure, Measured, band, blank, crossings, ensemble, listed, mean_sd, spread

LEVELS = (1e-1, 1e-3, 1e-6)


# -- Figure 1: the scale of the start ------------------------------------------------------------------------------------


def figure1(
    *,
    seed: int,
    trials: int,
    descent_trials: int,
    stds: tuple[float | int, ...] = (0.01, 0.1, 1.0),
    n: int = 5,
    m: int = 10,
    width: int = 50,
    step: float = 1e-3,
    points: int = 200,
):
    """Relative error and singular values against time, from Gaussian starts of three scales, and of one layer.

    A trial draws a target with entries N(0, 1) and a start with entries N(0, s^2), and follows the flow, one layer from the same
    product (closed form), and, for some trials, descent with the paper's step.
    """
    ts = np.logspace(-3, 2, points)
    numbers = np.unique(np.round(np.logspace(0, np.log10(16.0 / step), 60)).astype(int))

    def begin(key, std):
        key_target, key_start = jax.random.split(key)
        problem = factorization(jax.random.normal(key_target, (n, m)))
        return problem, init.gaussian_core(problem, width, std=std, key=key_start)

    def flow(key, std):
        problem, start = begin(key, std)
        watched = {"error": "reconstruction_error", "singular_values": _singular_values}
        end = gradient_flow(start, problem, ts, observables=watched, solver="dopri8", stop=1e-17, max_steps=20_000)
        one_layer = exact.linear(problem, start.product(), ts)
        size = jnp.linalg.norm(problem.Y)
        return {
            **end.observables,
            "linear_singular_values": jnp.linalg.svdvals(one_layer),
            "target": jnp.linalg.svdvals(problem.Y),
            "linear_error": jnp.linalg.norm(problem.Y - one_layer, axis=(1, 2)) / size,
            "imbalance": jnp.linalg.norm(theory.moving_spectrum(start, problem)),
            "ok": end.result == STOPPED,
        }

    def descent(key, std):
        problem, start = begin(key, std)
        end = gradient_descent(
            start,
            problem,
            int(numbers[-1]),
            optimizer=plain_descent(step),
            save_at=numbers,
            observables=["reconstruction_error"],
            stop=1e-17,
            differentiate="forward",
        )
        return {"descent_error": end.observables["reconstruction_error"], "descent_ok": end.result <= STOPPED}

    dims = {"error": ("time",), "linear_error": ("time",), "descent_error": ("step",), "target": ("index",)}
    dims |= dict.fromkeys(("singular_values", "linear_singular_values"), ("time", "index"))
    dataset = ensemble(flow, {"std": stds}, trials, seed, dims=dims)
    steps = ensemble(descent, {"std": stds}, descent_trials, seed, dims=dims).rename(trial="descent_trial")
    dataset = dataset.merge(steps.drop_vars("ok")).assign_coords(time=ts, step=numbers * step)
    dataset["std"].attrs = {"long_name": "standard deviation s of the entries of U and V"}
    dataset["time"].attrs = {"long_name": "time of the flow"}
    dataset["step"].attrs = {"long_name": "steps of descent times the step size", "step_size": step}
    dataset["error"].attrs = {"long_name": "||Y - U V^T||_F / ||Y||_F, flow of two layers"}
    dataset["linear_error"].attrs = {"long_name": "the same for one layer from the same product"}
    dataset["descent_error"].attrs = {"long_name": "the same for descent on two layers"}
    dataset["imbalance"].attrs = {"long_name": "||U0^T U0 - V0^T V0||_F"}
    dataset["singular_values"].attrs = {"long_name": "singular values of U V^T along the flow"}
    dataset["linear_singular_values"].attrs = {"long_name": "the same for one layer from the same product"}
    dataset["target"].attrs = {"long_name": "singular values of Y"}
    return dataset


def _singular_values(model, problem):
    return jnp.linalg.svdvals(observables.reduced_product(model, problem))


def times_to_error(dataset, name: str = "error"):
    """Times to the relative errors of `LEVELS`, shape (levels, stds, trials)."""
    values = dataset[name].transpose("std", "trial", "time")
    if name == "error":
        values = blank(values, dataset["ok"])
    values = values.values
    return np.stack([crossings(dataset["time"].values, values, level) for level in LEVELS])


def measure_figure1(dataset) -> Measured:
    two, one = times_to_error(dataset), times_to_error(dataset, "linear_error")
    imbalance = dataset["imbalance"].transpose("std", "trial").values
    numbers, parts, others = {}, [], []
    for i, std in enumerate(dataset["std"].values.tolist()):
        numbers[f"two layers, s = {std:g}"] = [mean_sd(two[j, i]) for j in range(len(LEVELS))]
        numbers[f"one layer, s = {std:g}"] = [mean_sd(one[j, i]) for j in range(len(LEVELS))]
        numbers[f"||Q0||_F, s = {std:g}"] = mean_sd(imbalance[i])
        parts.append(f"s = {std:g}: " + ", ".join(spread(two[j, i]) for j in range(len(LEVELS))))
        others.append(f"s = {std:g}: " + ", ".join(spread(one[j, i], "{:.4g}") for j in range(len(LEVELS))))
    paths = blank(dataset["singular_values"], dataset["ok"]).transpose("std", "trial", "index", "time").values
    halves = _half_times(dataset["time"].values, paths, dataset["target"].transpose("std", "trial", "index").values)
    ratios = halves[..., -1] / halves[..., 0]
    for std, values in zip(dataset["std"].values.tolist(), ratios, strict=True):
        numbers[f"half time of the least singular value over that of the largest, s = {std:g}"] = mean_sd(values)
    known = ~np.isnan(two[-1, -1])
    numbers["faster than one layer, largest s"] = float(np.mean(two[-1, -1, known] < one[-1, -1, known]))
    largest = dataset["std"].values[-1]
    text = (
        f"times to relative errors {listed(LEVELS, '{:g}')} for two layers, mean (sd): {'; '.join(parts)}; for one layer from "
        f"the same product: {others[0]}; {others[-1]}; ||Q0||_F at s = {largest:g}: {spread(imbalance[-1], '{:.4g}')}"
        f"; the least singular value is half learned after the largest by factors of {', '.join(map(spread, ratios))}"
    )
    return Measured(text, numbers)


def _half_times(times: np.ndarray, values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """When singular values come within half of their target's for good: values (..., index, time), target (..., index)."""
    away = np.abs(values / target[..., None] - 1)
    # Random products begin above some small ones; what counts is the last time outside. Where a run was stopped it is inside.
    outside = np.where(np.isnan(away), 0.0, away)[..., ::-1] > 0.5
    last = values.shape[-1] - 1 - np.argmax(outside, axis=-1)
    found = np.where(outside.any(axis=-1), times[np.minimum(last + 1, times.size - 1)], times[0])
    return np.where(np.isnan(values[..., 0]), np.nan, found)


def draw_figure1(figure, dataset) -> None:
    from ...plots import COLOURS, MARKERS

    count = dataset.sizes["std"]
    grid = figure.add_gridspec(2, 2 * count, height_ratios=(1.3, 1))
    left, right = figure.add_subplot(grid[0, :count]), figure.add_subplot(grid[0, count:])
    _draw_singular_values1([figure.add_subplot(grid[1, 2 * i : 2 * i + 2]) for i in range(count)], dataset)
    time, steps, stds = dataset["time"].values, dataset["step"].values, dataset["std"].values.tolist()
    two, one = times_to_error(dataset), times_to_error(dataset, "linear_error")
    dashes = ("-", "--", "-.", ":")
    for i, std in enumerate(stds):
        row, colour, marker = dataset.isel(std=i), COLOURS[i], MARKERS[i]
        low, middle, high = band(_to_the_end(row["error"], row["ok"]).transpose("trial", "time").values)
        left.fill_between(time, low, high, color=colour, alpha=0.2, linewidth=0)
        left.plot(time, middle, color=colour, linestyle=dashes[i])
        descent = _to_the_end(row["descent_error"], row["descent_ok"]).transpose("descent_trial", "step").values
        look = {"color": colour, "marker": marker, "markersize": 3}
        left.plot(steps[::2], band(descent)[1][::2], linestyle="none", **look)
        left.plot([], [], linestyle=dashes[i], label=f"two layers, $s$ = {std:g}", **look)
        right.plot(row["imbalance"].values, two[1, i], linestyle="none", label=f"two layers, $s$ = {std:g}", **look)
        # All starts of a scale take one layer nearly the same time.
        at = float(row["imbalance"].median()), band(one[1, i])[1]
        hollow = {"color": "black", "marker": marker, "markersize": 9, "markerfacecolor": "none"}
        right.plot(*at, linestyle="none", label=f"one layer, $s$ = {std:g}", **hollow)
    # One layer forgets its start: curves from the lesser scales would hide each other.
    for i in sorted({0, len(stds) - 1}):
        middle = band(dataset["linear_error"].isel(std=i).transpose("trial", "time").values)[1]
        left.plot(time, middle, color="0.3", linewidth=1, linestyle=dashes[i], label=f"one layer, $s$ = {stds[i]:g}")
    left.plot([], [], color="0.3", linestyle="none", marker="o", markersize=3, label="markers: descent, two layers")
    left.set(xscale="log", yscale="log", xlim=(3e-3, 40), ylim=(3e-8, 20))
    left.set(xlabel="time $t$ (descent: steps times step size)", ylabel=r"relative error $\|Y - UV^T\|_F / \|Y\|_F$")
    left.set_title("Median and 5% to 95% of the starts")
    left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)
    right.set(xscale="log", yscale="log", xlabel=r"imbalance $\|Q_0\|_F = \|U_0^T U_0 - V_0^T V_0\|_F$")
    right.set_ylabel(f"time $t$ to the relative error {LEVELS[1]:g}")
    right.set_title("Each start (one layer: median)")
    handles, labels = right.get_legend_handles_labels()
    order = [*range(0, len(handles), 2), *range(1, len(handles), 2)]
    right.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.18),
        ncols=2,
    )


def _draw_singular_values1(axes, dataset) -> None:
    from ...plots import COLOURS

    time, first = dataset["time"].values, dataset.isel(trial=0)
    for i, ax in enumerate(axes):
        row = first.isel(std=i)
        target = row["target"].values
        # From where a run was stopped its values are those of the target.
        two = row["singular_values"].transpose("time", "index").values
        for j, value in enumerate(target):
            ax.axhline(value, color="0.7", linewidth=0.8, linestyle=":", label="of $Y$" if j == 0 else None)
            path = np.where(np.isfinite(two[:, j]), two[:, j], value)
            ax.plot(time, path, color=COLOURS[i], label="two layers" if j == 0 else None)
            one = row["linear_singular_values"].isel(index=j).values
            ax.plot(time, one, color="0.3", linewidth=1, linestyle="--", label="one layer" if j == 0 else None)
        ax.set(xscale="log", xlim=(3e-3, 40), ylim=(0, 1.4 * target[0]), xlabel="time $t$")
        ax.set_ylabel("singular values")
        ax.set_title(f"$s$ = {row['std'].item():g}, first start")
        if i == 0:
            ax.legend(frameon=False, loc="upper left")


def _to_the_end(error, ok):
    """The error, zero from where a run was stopped far below everything drawn; NaN for failed runs."""
    return error.where(np.isfinite(error), 0.0).where(ok.astype(bool))


# -- Table 2: regimes of acceleration --------------------------------------------------------------------------------------


def table2(*, seed: int, points: int):
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
    dataset["sigma"].attrs = {"long_name": "singular value of the target"}
    dataset["imbalance"].attrs = {"long_name": "lambda = u0^2 - v0^2"}
    dataset["target"].attrs = {"long_name": "eigenvalue of the target of tied layers"}
    dataset["rate"].attrs = {"long_name": "fitted asymptotic rate of a mode of two layers"}
    dataset["law"].attrs = {"long_name": "mu = sqrt(4 sigma^2 + lambda^2)"}
    dataset["tied_rate"].attrs = {"long_name": "fitted asymptotic rate of tied layers"}
    dataset["tied_law"].attrs = {"long_name": "4 |sigma|"}
    return dataset


def measure_table2(dataset) -> Measured:
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


def draw_table2(figure, dataset) -> None:
    import matplotlib.colors

    from ...plots import COLOURS

    left, right = figure.subplots(1, 2)
    sigma, imbalance = dataset["sigma"].values, dataset["imbalance"].values
    rate = blank(dataset["rate"], dataset["ok"]).transpose("imbalance", "sigma").values
    drawn = left.pcolormesh(
        sigma, imbalance, rate, cmap="PuOr", norm=matplotlib.colors.LogNorm(1 / 8, 8), rasterized=True
    )
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
    left.legend(loc="upper right", framealpha=0.9)
    target = dataset["target"].values
    fine = np.linspace(target[0], target[-1], 401)
    right.plot(fine, 4 * np.abs(fine), color=COLOURS[0], label=r"$4|\sigma|$")
    right.plot(
        target,
        blank(dataset["tied_rate"], dataset["tied_ok"]).values,
        color=COLOURS[1],
        marker="o",
        linestyle="none",
        label="measured",
    )
    right.axhline(1, color="0.3", linestyle="--", linewidth=1, label="one layer")
    right.set(xlabel=r"eigenvalue of the target $\sigma$", ylim=(0, None))
    right.set_ylabel(r"asymptotic rate $\mu$ of $|x(t) - x(\infty)|$")
    right.set_title("Tied layers")
    right.legend(frameon=False)


# -- Figure 2: the closed form that follows a random start ------------------------------------------------------------------


def figure2(
    *,
    seed: int,
    trials: int,
    points: int,
    widths: tuple[float | int, ...] = (50, 100, 200),
    n: int = 5,
    m: int = 10,
    step: float = 1e-5,
):
    """The imbalance lambda0 whose closed-form solution follows the flow from a Gaussian start best, for either sign.

    Entries of target and start are N(0, 1). J is scanned over lambda0 around its two minima; paths of the flow, of the closed
    forms at the minima, and of descent with the paper's step are followed to a relative error of 1e-3.
    """
    levels = np.linspace(-6, 6, points)

    def begin(key, width):
        key_target, key_start = jax.random.split(key)
        problem = factorization(jax.random.normal(key_target, (n, m)))
        start = init.gaussian_core(problem, width, std=1.0, key=key_start)
        return problem, start

    def trial(key, width):
        problem, start = begin(key, width)
        fit = fit_lambda0(problem, start.U1, start.V, width=width)
        size = jnp.linalg.norm(problem.Y)

        def against(lambda0):
            closed = lambda0_path(problem, start.U1, start.V, lambda0, fit)
            error = jnp.linalg.norm(problem.Y - closed, axis=(-2, -1)) / size
            return fit.mismatch(closed), error, jnp.linalg.svdvals(closed)

        # In one map, for one compilation.
        mismatch, error, singular_values = jax.lax.map(against, jnp.concatenate([fit.lambda0, levels * width]))
        return {
            "lambda0": fit.lambda0,
            "objective": fit.objective,
            "scan": mismatch[2:],
            "time": fit.ts,
            "closed_error": error[:2],
            "closed_singular_values": singular_values[:2],
            "singular_values": jnp.linalg.svdvals(fit.product),
            "target": jnp.linalg.svdvals(problem.Y),
            "error": jnp.linalg.norm(problem.Y - fit.product, axis=(-2, -1)) / size,
            "ok": fit.ok,
        }

    dims = {
        "lambda0": ("sign",),
        "objective": ("sign",),
        "scan": ("level",),
        "time": ("node",),
        "closed_error": ("sign", "node"),
        "closed_singular_values": ("sign", "node", "index"),
        "singular_values": ("node", "index"),
        "target": ("index",),
        "error": ("node",),
    }
    dataset = ensemble(trial, {"width": widths}, trials, seed, dims=dims)
    numbers = np.unique(np.round(np.logspace(0, np.log10(0.4 / step), 60)).astype(int))

    def descent(key, width):
        problem, start = begin(key, width)
        path = gradient_descent(
            start,
            problem,
            int(numbers[-1]),
            optimizer=plain_descent(step),
            save_at=numbers,
            observables=["reconstruction_error"],
            stop=1e-12,
            differentiate="forward",
        )
        return {"descent_error": path.observables["reconstruction_error"], "descent_ok": path.result <= STOPPED}

    paths = ensemble(descent, {"width": widths}, 1, seed, dims={"descent_error": ("step",)})
    dataset = dataset.merge(paths.isel(trial=0, drop=True).drop_vars("ok"))
    dataset = dataset.assign_coords(sign=[1, -1], level=levels, step=numbers * step)
    for name, text in {
        "width": "hidden width h",
        "level": "lambda0/h",
        "sign": "sign of lambda0",
        "step": "steps of descent times the step size",
        "lambda0": "minimiser of J",
        "objective": "J there",
        "scan": "J(lambda0)",
        "time": "times of the paths, the last with a relative error of 1e-3",
        "error": "relative error of the flow",
        "closed_error": "relative error of the closed form at the minimiser",
        "singular_values": "singular values of the product along the flow",
        "closed_singular_values": "the same for the closed form at the minimiser",
        "target": "singular values of Y",
        "descent_error": "relative error of descent, first start",
    }.items():
        dataset[name].attrs = {"long_name": text}
    return dataset


# Where J's minima go with the width: |lambda0|/h and sqrt(J), computed from the wide limit of the flow (n = 5, m = 10).
WIDE = {"lambda0/h": 2.5313, "sqrt J": 0.03473}

# An independent scan of J over seeds of its own, per width: how many, mean and standard deviation of the minimum of either sign.
SCAN = {
    50: (60, {1: (108.3, 12.6), -1: (-111.6, 9.7)}),
    100: (20, {1: (231.0, 13.0), -1: (-233.0, 14.0)}),
    200: (20, {1: (489.0, 24.0), -1: (-484.0, 17.0)}),
}


def measure_figure2(dataset) -> Measured:
    ok = dataset["ok"].transpose("width", "trial").values.astype(bool)
    minima = blank(dataset["lambda0"], dataset["ok"]).transpose("sign", "width", "trial").values
    objective = blank(dataset["objective"], dataset["ok"]).transpose("sign", "width", "trial").values
    scan = blank(dataset["scan"], dataset["ok"]).transpose("width", "trial", "level").values
    basins = (scan[..., 1:-1] < scan[..., :-2]) & (scan[..., 1:-1] < scan[..., 2:])
    inner = dataset["level"].values[1:-1]
    either = ((basins & (inner > 0)).sum(-1) == 1) & ((basins & (inner < 0)).sum(-1) == 1) & (basins.sum(-1) == 2)
    better = np.where(objective[1] < objective[0], 1, 0)
    closed = blank(dataset["closed_singular_values"], dataset["ok"]).transpose("sign", "width", "trial", ...).values
    closed = np.where(better[..., None, None] == 1, closed[1], closed[0])
    flow = blank(dataset["singular_values"], dataset["ok"]).transpose("width", "trial", ...).values
    apart = [mean_sd(values) for values in np.max(np.abs(closed - flow), axis=(-2, -1)) / flow[..., 0, 0]]
    root, lower, count = np.sqrt(objective.min(axis=0)), objective[1] < objective[0], int(ok.sum())
    away = []
    for j, sign in enumerate(dataset["sign"].values.tolist()):
        for h, values in zip(dataset["width"].values.tolist(), minima[j], strict=True):
            mean, sd = mean_sd(values)
            if h in SCAN and np.isfinite(sd):
                seeds, (known, known_sd) = SCAN[h][0], SCAN[h][1][sign]
                error = np.sqrt(known_sd**2 / seeds + sd**2 / np.isfinite(values).sum())
                away.append((float((mean - known) / error), f"{'positive' if sign > 0 else 'negative'} one, h = {h:g}"))
    numbers = {
        "lambda0, positive": [mean_sd(values) for values in minima[0]],
        "lambda0, negative": [mean_sd(values) for values in minima[1]],
        "sqrt of the better J": [mean_sd(values) for values in root],
        "two basins": float(np.mean(either[ok])) if count else float("nan"),
        "negative one lower": float(np.mean(lower[ok])) if count else float("nan"),
        "largest deviation of singular values": apart,
        "standard errors from the independent scan": {where: errors for errors, where in away},
    }
    up, down = (", ".join(spread(values, "{:.1f}") for values in side) for side in minima)
    text = (
        f"lambda0 at h = {', '.join(f'{h:g}' for h in dataset['width'].values)}: {up} and {down}; sqrt of the better J "
        f"{', '.join(spread(values) for values in root)}; J has two minima, one of each sign, in {int(either[ok].sum())} of "
        f"{count} runs, and the negative one is the lower in {int(lower[ok].sum())}; "
        f"singular values of the closed form are the flow's within {listed([mean for mean, _ in apart])} of the start's largest"
    )
    if away:
        errors, where = max(away, key=lambda pair: abs(pair[0]))
        text += f"; means differ from those of an independent scan by {abs(errors):.1f} joint standard errors at most ({where})"
    return Measured(text, numbers)


def draw_figure2(figure, dataset) -> None:
    from ...plots import COLOURS, MARKERS

    count = dataset.sizes["width"]
    grid = figure.add_gridspec(2, 3 * count, height_ratios=(1.3, 1))
    left, middle, right = (figure.add_subplot(grid[0, i * count : (i + 1) * count]) for i in range(3))
    _draw_singular_values2([figure.add_subplot(grid[1, 3 * i : 3 * i + 3]) for i in range(count)], dataset)
    widths, level = dataset["width"].values, dataset["level"].values
    for i, h in enumerate(widths.tolist()):
        row, look = dataset.isel(width=i), {"color": COLOURS[i], "marker": MARKERS[i], "markersize": 3}
        low, median, high = band(np.sqrt(blank(row["scan"], row["ok"]).transpose("trial", "level").values))
        left.fill_between(level, low, high, color=COLOURS[i], alpha=0.15, linewidth=0)
        left.plot(level, median, label=f"$h$ = {h:g}", markevery=(0.03 + 0.05 * i, 0.15), **look)
        first = row.isel(trial=0)
        ts = first["time"].values
        middle.plot(ts, first["error"].values, color=COLOURS[i])
        better = int(first["objective"].argmin("sign"))
        hollow = {"linestyle": "--", "linewidth": 1, "markerfacecolor": "none", "markevery": (0.1, 0.15)}
        middle.plot(ts, first["closed_error"].isel(sign=better).values, **look, **hollow)
        descent = blank(row["descent_error"], row["descent_ok"]).values
        seen = dataset["step"].values <= ts[-1]
        middle.plot(dataset["step"].values[seen][::2], descent[seen][::2], linestyle="none", **look)
        for j, marker in enumerate(("^", "v")):
            minima = np.abs(blank(row["lambda0"], row["ok"]).isel(sign=j).values)
            right.plot(
                h * np.geomspace(0.94, 1.06, minima.size) * (1.08 if j else 1 / 1.08),
                minima,
                color=COLOURS[j + 3],
                marker=marker,
                linestyle="none",
                markersize=3,
                label=(r"$\lambda_0 > 0$", r"$\lambda_0 < 0$")[j] if i == 0 else None,
            )
    left.set(yscale="log", xlabel=r"$\lambda_0 / h$", ylabel=r"$\sqrt{J(\lambda_0)}$, median and 5% to 95%")
    left.set_yticks([0.05, 0.1, 0.2, 0.3], ["0.05", "0.1", "0.2", "0.3"])
    left.minorticks_off()
    left.set_title("Two basins")
    grey = {"color": "0.3", "markersize": 3}
    middle.plot([], [], label="flow", **grey)
    closed = {"linestyle": "--", "linewidth": 1, "marker": "o", "markerfacecolor": "none"}
    middle.plot([], [], label="closed form at the better $\\lambda_0$", **closed, **grey)
    middle.plot([], [], linestyle="none", marker="o", label="descent", **grey)
    middle.set(yscale="log", ylim=(1e-14, 40), xlabel="time $t$", ylabel=r"relative error $\|Y - \Theta\|_F/\|Y\|_F$")
    middle.set_title("The first start")
    middle.legend(frameon=False, loc="lower left")
    line = np.geomspace(0.8 * widths.min(), 1.25 * widths.max(), 2)
    right.plot(
        line,
        WIDE["lambda0/h"] * line,
        color="0.3",
        linestyle=":",
        linewidth=1,
        label=f"{WIDE['lambda0/h']:.3f} $h$, wide limit",
    )
    right.set(xscale="log", yscale="log", xlabel="hidden width $h$", ylabel=r"$|\lambda_0|$ at the minima")
    right.set_xticks(widths, [f"{h:g}" for h in widths])
    right.minorticks_off()
    right.set_yticks([100, 200, 400], ["100", "200", "400"])
    right.set_title("Each start")
    right.legend(frameon=False)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)


def _draw_singular_values2(axes, dataset) -> None:
    from ...plots import COLOURS, MARKERS

    for i, ax in enumerate(axes):
        row = dataset.isel(width=i, trial=0)
        better = int(row["objective"].argmin("sign"))
        ts, flow = row["time"].values, row["singular_values"].transpose("node", "index").values
        closed = row["closed_singular_values"].isel(sign=better).transpose("node", "index").values
        for j, value in enumerate(row["target"].values):
            ax.axhline(value, color="0.7", linewidth=0.8, linestyle=":", label="of $Y$" if j == 0 else None)
            look = {"color": COLOURS[j % len(COLOURS)], "marker": MARKERS[j % len(MARKERS)], "markersize": 3}
            ax.plot(ts, flow[:, j], markevery=(0.03 + 0.02 * j, 0.2), label="flow" if j == 0 else None, **look)
            label = f"closed form, $\\lambda_0$ = {row['lambda0'].values[better]:.0f}" if j == 0 else None
            ax.plot(ts, closed[:, j], color="black", linewidth=1, linestyle="--", label=label)
        ax.set(xlabel="time $t$", ylabel="singular values", ylim=(0, None))
        ax.set_title(f"$h$ = {row['width'].item():g}, first start")
        ax.legend(frameon=False)


# -- Figure 3: a sigmoid output ---------------------------------------------------------------------------------------------


def figure3(
    *,
    seed: int,
    trials: int,
    points: int,
    horizon: float,
    d: int = 10,
    h: int = 100,
    samples: int = 1000,
    imbalance: float = 4.6,
    noise: float = 1e-3,
):
    """Loss against time with a sigmoid on the output, from a balanced and from an imbalanced start, and of one layer.

    `U` has entries N(0, .01); balanced: `V = O U` with an orthogonal O; imbalanced: V drawn like U, and both scaled to
    `||Q0||_F = 4.6`. Inputs are N(0, I), targets `sigmoid(X W) + eps` with entries of W drawn from N(0, 1) and those of eps from
    N(0, 1e-6): the loss has a floor, near that of W itself.
    """
    ts = np.concatenate([[1e-3], np.linspace(0, horizon, points)[1:]])
    starts = ("balanced", "imbalanced")

    def begin(key):
        keys = jax.random.split(key, 6)
        X = jax.random.normal(keys[0], (samples, d))
        W = jax.random.normal(keys[1], (d, d))
        Y = jax.nn.sigmoid(X @ W) + noise * jax.random.normal(keys[5], (samples, d))
        problem = LeastSquares(X, Y, link="sigmoid", scale="mean", rank=d)
        U, V = 0.1 * jax.random.normal(keys[2], (d, h)), 0.1 * jax.random.normal(keys[3], (d, h))
        O, _ = jnp.linalg.qr(jax.random.normal(keys[4], (d, d)))
        return problem, W, U, V, O

    def imbalance_norm(model, problem):
        # Of U itself: X has full column rank, and Phi1 is a rotation.
        return jnp.linalg.norm(observables.imbalance_spectrum(model, problem))

    def trial(key, start):
        problem, W, U, V, O = begin(key)
        scale = jnp.sqrt(imbalance / imbalance_norm(TwoLayer(U, V), problem))
        balanced = start == 0
        model = TwoLayer(jnp.where(balanced, 1, scale) * U, jnp.where(balanced, O @ U, scale * V))
        watched = {"loss": "loss", "drift": "imbalance_drift"}
        flow = gradient_flow(model, problem, ts, observables=watched, solver="dopri8", rtol=1e-7, atol=1e-9)
        return {
            "loss": flow.observables["loss"],
            "floor": problem.loss(W),
            "drift": flow.observables["drift"][-1],
            "imbalance": imbalance_norm(model, problem),
            "ok": flow.result == FINISHED,
        }

    def one_layer(key, start):
        problem, _, U, _, O = begin(key)
        flow = gradient_flow(
            LinearModel(U @ (O @ U).T), problem, ts, observables=["loss"], solver="tsit5", rtol=1e-6, atol=1e-8
        )
        return {"linear_loss": flow.observables["loss"], "linear_ok": flow.result == FINISHED}

    dims = {"loss": ("time",), "linear_loss": ("time",)}
    dataset = ensemble(trial, {"start": (0.0, 1.0)}, trials, seed, dims=dims)
    linear = ensemble(one_layer, {"start": (0.0,)}, trials, seed, dims=dims).isel(start=0, drop=True).drop_vars("ok")
    dataset = dataset.assign_coords(start=list(starts)).merge(linear).assign_coords(time=ts)
    for name, text in {
        "time": "time of the flow",
        "loss": "L of two layers, q = 1/N",
        "linear_loss": "L of one layer, from the product of the balanced start",
        "floor": "L of the W that the targets were drawn with, which is that of their noise",
        "drift": "||Q - Q(0)||_F at the end",
        "imbalance": "||Q(0)||_F",
    }.items():
        dataset[name].attrs = {"long_name": text}
    return dataset


RATIOS = (1e-1, 1e-2)


def measure_figure3(dataset) -> Measured:
    time = dataset["time"].values
    paths = {}
    for name in ("balanced", "imbalanced"):
        row = dataset.sel(start=name)
        paths[name] = blank(row["loss"], row["ok"]).transpose("trial", "time").values
    paths["one layer"] = blank(dataset["linear_loss"], dataset["linear_ok"]).transpose("trial", "time").values
    first = paths["balanced"][:, :1]
    to = {name: [crossings(time, values / first, ratio) for ratio in RATIOS] for name, values in paths.items()}
    numbers: dict = {f"times, {name}": [mean_sd(v) for v in values] for name, values in to.items()}
    norms = {name: mean_sd(dataset["imbalance"].sel(start=name)) for name in ("balanced", "imbalanced")}
    drift = float(blank(dataset["drift"], dataset["ok"]).max())
    floor = mean_sd(dataset["floor"].isel(start=0).values)
    ends = {name: mean_sd(values[:, -1]) for name, values in paths.items()}
    numbers |= {"||Q0||_F": norms, "largest drift of Q": drift, "floor": floor, "loss at the end": ends}
    text = (
        f"times to {listed(RATIOS, '{:g}')} of the balanced start's loss: "
        + "; ".join(f"{name} " + ", ".join(spread(v) for v in values) for name, values in to.items())
        + f"; ||Q0||_F = {norms['balanced'][0]:.1g} and {norms['imbalanced'][0]:.2f}, kept within {drift:.0e}"
        f"; loss at t = {time[-1]:g}: {', '.join(f'{name} {mean:.2g}' for name, (mean, _) in ends.items())}, of the noise alone "
        f"{floor[0]:.2g}"
    )
    return Measured(text, numbers)


def draw_figure3(figure, dataset) -> None:
    from ...plots import COLOURS

    ax = figure.subplots(1, 1)
    time = dataset["time"].values
    curves = [
        ("two layers, imbalanced", dataset["loss"].sel(start="imbalanced"), dataset["ok"].sel(start="imbalanced"), "-"),
        ("two layers, balanced", dataset["loss"].sel(start="balanced"), dataset["ok"].sel(start="balanced"), "--"),
        ("one layer", dataset["linear_loss"], dataset["linear_ok"], "-."),
    ]
    for i, (label, values, ok, dashes) in enumerate(curves):
        low, middle, high = band(blank(values, ok).transpose("trial", "time").values)
        if i < 2:
            norm = float(dataset["imbalance"].isel(start=1 - i).mean())
            label += rf", $\|Q_0\|_F$ = {norm if norm > 1e-9 else 0:.2g}"
        ax.fill_between(time, low, high, color=COLOURS[i], alpha=0.2, linewidth=0)
        ax.plot(time, middle, color=COLOURS[i], linestyle=dashes, label=label)
    floor = float(dataset["floor"].mean())
    ax.axhline(floor, color="0.3", linewidth=1, linestyle=":", label=f"of the noise alone, {floor:.1e}")
    ax.set(yscale="log", xlabel="time $t$", ylabel=r"loss $\|Y - \mathrm{sigmoid}(X U V^T)\|_F^2/(2N)$")
    ax.set_title("Median and 5% to 95% of the starts")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


FIGURES = {
    "t21-figure1": Figure(
        "T21 Fig. 1",
        "matrix factorization from starts of three scales",
        "the larger the scale of the start, and its imbalance with it, the faster two layers are; the largest is faster than one "
        "layer by far, the least is not faster to a first, rough error",
        figure1,
        measure_figure1,
        draw_figure1,
        {"trials": 50, "descent_trials": 50},
        {"trials": 10, "descent_trials": 10},
        (7.6, 6.4),
        reference="over 50 other seeds, two layers: s = 0.01: 2.435 (.31), 4.716 (1.16), 9.245 (2.5); s = 0.1: .855 (.069), "
        "2.867 (.46), 6.908 (1.3); s = 1: .061 (.007), .158 (.022), .317 (.045); one layer: s = 0.01: 2.303, 6.908, 13.82; s = 1:"
        " 4.247, 8.852, 15.76 (sd .15); ||Q0||_F at s = 1: 197.4 (10.9)",
    ),
    "t21-figure2": Figure(
        "T21 Fig. 2",
        "the closed form that follows a random start",
        "a solution of homogeneous imbalance follows descent from a random start",
        figure2,
        measure_figure2,
        draw_figure2,
        {"trials": 100, "points": 81},
        {"trials": 4, "points": 33},
        (8.4, 5.6),
        reference="over 60 (h = 50) and 20 other seeds lambda0 = 108.3 (12.6), 231 (13), 489 (24) and -111.6 (9.7), -233 (14), "
        "-484 (17), sqrt of the better J .0802, .063, .054",
    ),
    "t21-figure3": Figure(
        "T21 Fig. 3",
        "a sigmoid output",
        "imbalance accelerates with a sigmoid output as well, and is conserved",
        figure3,
        measure_figure3,
        draw_figure3,
        {"trials": 10, "points": 121, "horizon": 300.0},
        {"trials": 2, "points": 61, "horizon": 200.0},
        (7.2, 3.0),
    ),
    "t21-table2": Figure(
        "T21 (earlier version) Table 2",
        "when a hidden layer accelerates",
        "a mode of two layers is faster than one layer if and only if sqrt(4 sigma^2 + lambda^2) > 1, tied layers if and only if "
        "4 |sigma| > 1",
        table2,
        measure_table2,
        draw_table2,
        {"points": 31},
        {"points": 16},
        (7.4, 3.2),
    ),
}
