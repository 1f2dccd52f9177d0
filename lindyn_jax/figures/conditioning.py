"""What ill-conditioned data cost: steps of the flow's solvers and of descent."""

import jax
import jax.numpy as jnp
import numpy as np

from .. import init, theory
from ..flow import gradient_flow
from ..limits import flow_to_limit
from ..plots import mark
from ..problems import LeastSquares
from ..trajectory import FINISHED, STOPPED
from ._common import OWN, Figure, Measured, blank, descend, draw_band, ensemble, kept, named


def compute(
    *, seed: int, trials: int, decades: int, explicit_decades: int, rank: int = 5, m: int = 2, width: int = 100
):
    """Steps of the flow's solvers and of descent against the condition number of X^T X: counts, not times."""
    stop = 1e-6

    def begin(key, log10):
        key_target, key_start = jax.random.split(key)
        s = 10.0 ** (-log10 / 2 * jnp.linspace(0, 1, rank))
        problem = LeastSquares(jnp.diag(s), jnp.diag(s) @ jax.random.normal(key_target, (rank, m)), rank=rank)
        return problem, init.gaussian_core(problem, width, alpha=0.5, key=key_start)

    def implicit(key, log10):
        problem, start = begin(key, log10)
        end = flow_to_limit(start, problem, observables=())
        return {"radau": end.stats["num_steps"].astype(float), "radau_ok": end.result == FINISHED}

    def explicit(key, log10):
        problem, start = begin(key, log10)
        horizon = jnp.asarray(1e3 * 10.0**log10)[None]
        flow = gradient_flow(
            start, problem, horizon, observables=(), solver="dopri8", rtol=1e-6, stop=stop, max_steps=400_000
        )
        descent = descend(start, problem, 2_000_000, theory.stable_step(start, problem), (), stop=stop)
        return {
            "dopri8": flow.stats["num_steps"].astype(float),
            "dopri8_ok": flow.result == STOPPED,
            "descent": descent.stats["num_steps"].astype(float),
            "descent_ok": descent.result == STOPPED,
        }

    first = ensemble(implicit, {"log10": np.arange(0.0, decades + 1)}, trials, seed).drop_vars("ok")
    second = ensemble(explicit, {"log10": np.arange(0.0, explicit_decades + 1)}, trials, seed).drop_vars("ok")
    dataset = first.rename(log10="log10_implicit").merge(second)
    return named(
        dataset,
        radau="steps of the implicit solver to t = infinity",
        dopri8="steps of Dopri8 to 1e-6 of the loss",
        descent="steps of descent to 1e-6 of the loss",
    )


def measure(dataset) -> Measured:
    radau = blank(dataset["radau"], dataset["radau_ok"]).median("trial").values
    dopri8 = blank(dataset["dopri8"], dataset["dopri8_ok"]).median("trial").values
    descent = blank(dataset["descent"], dataset["descent_ok"]).median("trial").values
    implicit, explicit = dataset["log10_implicit"].values, dataset["log10"].values
    slope = float(np.polyfit(implicit[2:], radau[2:], 1)[0])
    late = explicit >= min(2, explicit[-1] - 1)
    powers = [float(np.polyfit(explicit[late], np.log10(values[late]), 1)[0]) for values in (dopri8, descent)]
    numbers = {
        "radau": radau.tolist(),
        "dopri8": dopri8.tolist(),
        "descent": descent.tolist(),
        "radau steps a decade": slope,
        "powers": powers,
    }
    text = (
        f"implicit steps to t = infinity {radau[0]:.0f} to {radau[-1]:.0f} for condition numbers 1 to 1e{implicit[-1]:.0f}, "
        f"{slope:.1f} more a decade; explicit steps to 1e-6 of the loss grow like its power {powers[0]:.2f} (to "
        f"{dopri8[-1]:.0f} at 1e{explicit[-1]:.0f}), descent's like {powers[1]:.2f} (to {descent[-1]:.0f})"
    )
    return Measured(text, numbers)


def draw(figure, dataset) -> None:
    ax = figure.subplots(1, 1)
    curves = (
        ("radau", "log10_implicit", "radau_ok", r"flow to $t = \infty$, implicit"),
        ("dopri8", "log10", "dopri8_ok", "flow to 1e-6 of the loss, Dopri8"),
        ("descent", "log10", "descent_ok", "descent to 1e-6 of the loss"),
    )
    for i, (name, along, ok, label) in enumerate(curves):
        values = kept(dataset, name, "trial", along, ok=ok)
        draw_band(ax, 10.0 ** dataset[along].values, values, **mark(i), ls=("-", "--", "-.")[i], label=label)
    ax.set(xscale="log", yscale="log", xlabel=r"condition number $\lambda_1/\lambda_r$ of $X^T X$")
    ax.set_ylabel("number of steps (median, 5% to 95%)")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


FIGURES = {
    "conditioning": Figure(
        OWN,
        "steps against the condition number of the data",
        "no paper has it: explicit steps grow with the condition number, implicit ones with its logarithm",
        compute,
        measure,
        draw,
        {"trials": 20, "decades": 10, "explicit_decades": 4},
        {"trials": 4, "decades": 10, "explicit_decades": 3},
        (6.4, 3.0),
    )
}
