"""T21 Fig. 2: the closed form that follows a random start."""

import jax
import jax.numpy as jnp
import numpy as np

from .. import init
from ..fits import fit_lambda0, lambda0_path
from ..plots import COLOURS, MARKERS, mark
from ..problems import factorization
from ..trajectory import STOPPED
from ._common import Figure, Measured, blank, descend, draw_band, ensemble, kept, listed, mean_sd, named, spread


def compute(
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
        path = descend(start, problem, numbers, step, ["reconstruction_error"], stop=1e-12)
        return {"descent_error": path.observables["reconstruction_error"], "descent_ok": path.result <= STOPPED}

    paths = ensemble(descent, {"width": widths}, 1, seed, dims={"descent_error": ("step",)})
    dataset = dataset.merge(paths.isel(trial=0, drop=True).drop_vars("ok"))
    dataset = dataset.assign_coords(sign=[1, -1], level=levels, step=numbers * step)
    return named(
        dataset,
        width="hidden width h",
        level="lambda0/h",
        sign="sign of lambda0",
        step="steps of descent times the step size",
        lambda0="minimiser of J",
        objective="J there",
        scan="J(lambda0)",
        time="times of the paths, the last with a relative error of 1e-3",
        error="relative error of the flow",
        closed_error="relative error of the closed form at the minimiser",
        singular_values="singular values of the product along the flow",
        closed_singular_values="the same for the closed form at the minimiser",
        target="singular values of Y",
        descent_error="relative error of descent, first start",
    )


# Where J's minima go with the width: |lambda0|/h and sqrt(J), computed from the wide limit of the flow (n = 5, m = 10).
WIDE = {"lambda0/h": 2.5313, "sqrt J": 0.03473}


# An independent scan of J over seeds of its own, per width: how many, mean and standard deviation of the minimum of either sign.
SCAN = {
    50: (60, {1: (108.3, 12.6), -1: (-111.6, 9.7)}),
    100: (20, {1: (231.0, 13.0), -1: (-233.0, 14.0)}),
    200: (20, {1: (489.0, 24.0), -1: (-484.0, 17.0)}),
}


def measure(dataset) -> Measured:
    ok = dataset["ok"].transpose("width", "trial").values.astype(bool)
    minima = kept(dataset, "lambda0", "sign", "width", "trial")
    objective = kept(dataset, "objective", "sign", "width", "trial")
    scan = kept(dataset, "scan", "width", "trial", "level")
    basins = (scan[..., 1:-1] < scan[..., :-2]) & (scan[..., 1:-1] < scan[..., 2:])
    inner = dataset["level"].values[1:-1]
    either = ((basins & (inner > 0)).sum(-1) == 1) & ((basins & (inner < 0)).sum(-1) == 1) & (basins.sum(-1) == 2)
    better = np.where(objective[1] < objective[0], 1, 0)
    closed = kept(dataset, "closed_singular_values", "sign", "width", "trial", ...)
    closed = np.where(better[..., None, None] == 1, closed[1], closed[0])
    flow = kept(dataset, "singular_values", "width", "trial", ...)
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


def draw(figure, dataset) -> None:
    count = dataset.sizes["width"]
    grid = figure.add_gridspec(2, 3 * count, height_ratios=(1.3, 1))
    left, middle, right = (figure.add_subplot(grid[0, i * count : (i + 1) * count]) for i in range(3))
    _draw_singular_values([figure.add_subplot(grid[1, 3 * i : 3 * i + 3]) for i in range(count)], dataset)
    widths, level = dataset["width"].values, dataset["level"].values
    for i, h in enumerate(widths.tolist()):
        row, look = dataset.isel(width=i), {**mark(i), "ms": 3}
        every = {"markevery": (0.03 + 0.05 * i, 0.15), "label": f"$h$ = {h:g}"}
        draw_band(left, level, np.sqrt(kept(row, "scan", "trial", "level")), alpha=0.15, **look, **every)
        first = row.isel(trial=0)
        ts = first["time"].values
        middle.plot(ts, first["error"].values, color=COLOURS[i])
        better = int(first["objective"].argmin("sign"))
        hollow = {"ls": "--", "lw": 1, "mfc": "none", "markevery": (0.1, 0.15)}
        middle.plot(ts, first["closed_error"].isel(sign=better).values, **look, **hollow)
        descent = blank(row["descent_error"], row["descent_ok"]).values
        seen = dataset["step"].values <= ts[-1]
        middle.plot(dataset["step"].values[seen][::2], descent[seen][::2], ls="none", **look)
        for j, marker in enumerate(("^", "v")):
            minima = np.abs(blank(row["lambda0"], row["ok"]).isel(sign=j).values)
            at = h * np.geomspace(0.94, 1.06, minima.size) * (1.08 if j else 1 / 1.08)
            label = (r"$\lambda_0 > 0$", r"$\lambda_0 < 0$")[j] if i == 0 else None
            right.plot(at, minima, color=COLOURS[j + 3], marker=marker, ls="none", ms=3, label=label)
    left.set(yscale="log", xlabel=r"$\lambda_0 / h$", ylabel=r"$\sqrt{J(\lambda_0)}$, median and 5% to 95%")
    left.set_yticks([0.05, 0.1, 0.2, 0.3], ["0.05", "0.1", "0.2", "0.3"])
    left.minorticks_off()
    left.set_title("Two basins")
    grey = {"color": "0.3", "ms": 3}
    middle.plot([], [], label="flow", **grey)
    closed = {"ls": "--", "lw": 1, "marker": "o", "mfc": "none"}
    middle.plot([], [], label="closed form at the better $\\lambda_0$", **closed, **grey)
    middle.plot([], [], ls="none", marker="o", label="descent", **grey)
    middle.set(yscale="log", ylim=(1e-14, 40), xlabel="time $t$", ylabel=r"relative error $\|Y - \Theta\|_F/\|Y\|_F$")
    middle.set_title("The first start")
    middle.legend(loc="lower left")
    line = np.geomspace(0.8 * widths.min(), 1.25 * widths.max(), 2)
    right.plot(
        line, WIDE["lambda0/h"] * line, color="0.3", ls=":", lw=1, label=f"{WIDE['lambda0/h']:.3f} $h$, wide limit"
    )
    right.set(xscale="log", yscale="log", xlabel="hidden width $h$", ylabel=r"$|\lambda_0|$ at the minima")
    right.set_xticks(widths, [f"{h:g}" for h in widths])
    right.minorticks_off()
    right.set_yticks([100, 200, 400], ["100", "200", "400"])
    right.set_title("Each start")
    right.legend()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)


def _draw_singular_values(axes, dataset) -> None:
    for i, ax in enumerate(axes):
        row = dataset.isel(width=i, trial=0)
        better = int(row["objective"].argmin("sign"))
        ts, flow = row["time"].values, row["singular_values"].transpose("node", "index").values
        closed = row["closed_singular_values"].isel(sign=better).transpose("node", "index").values
        for j, value in enumerate(row["target"].values):
            ax.axhline(value, color="0.7", lw=0.8, ls=":", label="of $Y$" if j == 0 else None)
            look = {"color": COLOURS[j % len(COLOURS)], "marker": MARKERS[j % len(MARKERS)], "ms": 3}
            ax.plot(ts, flow[:, j], markevery=(0.03 + 0.02 * j, 0.2), label="flow" if j == 0 else None, **look)
            label = f"closed form, $\\lambda_0$ = {row['lambda0'].values[better]:.0f}" if j == 0 else None
            ax.plot(ts, closed[:, j], color="black", lw=1, ls="--", label=label)
        ax.set(xlabel="time $t$", ylabel="singular values", ylim=(0, None))
        ax.set_title(f"$h$ = {row['width'].item():g}, first start")
        ax.legend()


FIGURES = {
    "t21-figure2": Figure(
        "T21 Fig. 2",
        "the closed form that follows a random start",
        "a solution of homogeneous imbalance follows descent from a random start",
        compute,
        measure,
        draw,
        {"trials": 100, "points": 81},
        {"trials": 4, "points": 33},
        (8.4, 5.6),
        reference="over 60 (h = 50) and 20 other seeds lambda0 = 108.3 (12.6), 231 (13), 489 (24) and -111.6 (9.7), -233 (14), "
        "-484 (17), sqrt of the better J .0802, .063, .054",
    )
}
