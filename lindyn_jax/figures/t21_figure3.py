"""T21 Fig. 3: a sigmoid output."""

import jax
import jax.numpy as jnp
import numpy as np

from .. import observables
from ..flow import gradient_flow
from ..models import LinearModel, TwoLayer
from ..plots import COLOURS
from ..problems import LeastSquares
from ..trajectory import FINISHED
from ._common import Figure, Measured, blank, crossings, draw_band, ensemble, kept, listed, mean_sd, named, spread

RATIOS = (1e-1, 1e-2)


def compute(
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
    return named(
        dataset,
        time="time of the flow",
        loss="L of two layers, q = 1/N",
        linear_loss="L of one layer, from the product of the balanced start",
        floor="L of the W that the targets were drawn with, which is that of their noise",
        drift="||Q - Q(0)||_F at the end",
        imbalance="||Q(0)||_F",
    )


def measure(dataset) -> Measured:
    time = dataset["time"].values
    paths = {}
    for name in ("balanced", "imbalanced"):
        row = dataset.sel(start=name)
        paths[name] = kept(row, "loss", "trial", "time")
    paths["one layer"] = kept(dataset, "linear_loss", "trial", "time", ok="linear_ok")
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


def draw(figure, dataset) -> None:
    ax = figure.subplots(1, 1)
    time = dataset["time"].values
    curves = [
        ("two layers, imbalanced", dataset["loss"].sel(start="imbalanced"), dataset["ok"].sel(start="imbalanced"), "-"),
        ("two layers, balanced", dataset["loss"].sel(start="balanced"), dataset["ok"].sel(start="balanced"), "--"),
        ("one layer", dataset["linear_loss"], dataset["linear_ok"], "-."),
    ]
    for i, (label, values, ok, dashes) in enumerate(curves):
        if i < 2:
            norm = float(dataset["imbalance"].isel(start=1 - i).mean())
            label += rf", $\|Q_0\|_F$ = {norm if norm > 1e-9 else 0:.2g}"
        values = blank(values, ok).transpose("trial", "time").values
        draw_band(ax, time, values, color=COLOURS[i], ls=dashes, label=label)
    floor = float(dataset["floor"].mean())
    ax.axhline(floor, color="0.3", lw=1, ls=":", label=f"of the noise alone, {floor:.1e}")
    ax.set(yscale="log", xlabel="time $t$", ylabel=r"loss $\|Y - \mathrm{sigmoid}(X U V^T)\|_F^2/(2N)$")
    ax.set_title("Median and 5% to 95% of the starts")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


FIGURES = {
    "t21-figure3": Figure(
        "T21 Fig. 3",
        "a sigmoid output",
        "imbalance accelerates with a sigmoid output as well, and is conserved",
        compute,
        measure,
        draw,
        {"trials": 10, "points": 121, "horizon": 300.0},
        {"trials": 2, "points": 61, "horizon": 200.0},
        (7.2, 3.0),
    )
}
