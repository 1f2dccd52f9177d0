"""Does imbalance speed up descent at its best step?"""

import jax
import jax.numpy as jnp
import numpy as np

from .. import init, observables, theory
from ..plots import mark
from ..problems import factorization
from ._common import OWN, Figure, Measured, Numbers, band, blank, draw_band, ensemble, named

KINDS = ("equal", "spread", "one-sided")


# Excess loss at the end over that of the start: a relative error of 1e-6.
STOP = 1e-12


def compute(
    *,
    seed: int,
    trials: int,
    points: int,
    steps: int,
    n: int = 5,
    m: int = 10,
    fixed: float = 1e-3,
    largest: float = 2.9,
    budget: int = 1_000_000,
):
    """Steps of descent to a relative error of 1e-6 against the imbalance of the start, the product being the same.

    With a fixed step, and with each of a list of steps: multiples, 0.1 to `largest`, of `2/sharpness` where descent with the
    fixed step ends, the largest step that is stable there. The loss is tested after every step. Eigenvalues of D: all equal;
    spread evenly from 0 to twice their mean; or those of V only.
    """
    levels = np.geomspace(0.1, 100, points)
    factors = jnp.asarray(np.linspace(0.1, largest, steps))

    def begin(key, level, kind):
        key_target, key_product = jax.random.split(key)
        problem = factorization(jax.random.normal(key_target, (n, m)))
        Theta = 0.1 * jax.random.normal(key_product, (n, m))
        flat, ramp = jnp.ones(n + m), jnp.concatenate([jnp.linspace(0, 2, n), jnp.linspace(0, 2, m)])
        one_sided = jnp.concatenate([jnp.zeros(n), jnp.ones(m)])
        spectrum = level * jnp.where(kind == 0, flat, jnp.where(kind == 1, ramp, one_sided))
        return problem, init.with_imbalance(problem, Theta, spectrum[:n], spectrum[n:], n + m)

    def trial(key, level, kind):
        problem, start = begin(key, level, kind)
        fixed_steps, end = count_steps(start, problem, fixed, budget)
        sharpness = jnp.linalg.norm(end.U, ord=2) ** 2 + jnp.linalg.norm(end.V, ord=2) ** 2
        least = theory.rate_spectrum(end, problem)[-1]
        half, _ = count_steps(start, problem, 1 / sharpness, budget)
        # Beyond the edge of stability some descents wander for ever: they get twice what half the stable step needs.
        limit = jnp.where(jnp.isfinite(half), 2 * half + 500, budget)
        counts = jax.vmap(lambda factor: count_steps(start, problem, 2 * factor / sharpness, limit)[0])(factors)
        best, reached = jnp.min(counts), jnp.isfinite(counts)
        tied = reached & (counts == best)
        return {
            "fixed_steps": fixed_steps,
            "half_steps": half,
            "best_steps": best,
            # In the middle of those that need as few.
            "best_factor": jnp.mean(factors, where=tied),
            "best_at_edge": tied[0] | tied[-1],
            "largest_factor": jnp.max(jnp.where(reached, factors, 0)),
            "largest_steps": counts[jnp.max(jnp.where(reached, jnp.arange(factors.size), 0))],
            "sharpness": sharpness,
            "condition": sharpness / least,
            "ok": jnp.isfinite(fixed_steps) & jnp.isfinite(half) & jnp.any(reached),
        }

    dataset = ensemble(trial, {"level": levels, "kind": (0.0, 1.0, 2.0)}, trials, seed)
    return named(
        dataset,
        level="mean eigenvalue of |D| of the start",
        kind="eigenvalues of D: 0 equal, 1 spread, 2 of V only",
        fixed_steps="steps with the fixed step",
        half_steps="steps with 1/sharpness",
        best_steps="steps with the best step of the list",
        best_factor="the best step over 2/sharpness, the middle of those that need as few steps",
        best_at_edge="whether the best step is the first or the last of the list",
        largest_factor="the largest step of the list that gets there, over 2/sharpness",
        largest_steps="steps with that one",
        sharpness="largest curvature where descent with the fixed step ends",
        condition="largest over least curvature there",
    )


def count_steps(start, problem, step, budget):
    """Plain descent until the excess loss is `STOP` times its first value, which is tested after every step.

    `gradient_descent` tests every eighth, and some of these descents have two.

    **Returns:** the number of steps, infinite if there are more than `budget` or descent diverges, and the model at the end.
    """
    first = observables.excess_loss(start, problem)

    def going(carry):
        _, number, excess = carry
        return (excess > STOP * first) & (number < budget) & jnp.isfinite(excess)

    def move(carry):
        model, number, _ = carry
        model = jax.tree.map(lambda weights, pull: weights + step * pull, model, model.velocity(problem))
        return model, number + 1, observables.excess_loss(model, problem)

    model, number, excess = jax.lax.while_loop(going, move, (start, jnp.zeros(()), first))
    return jnp.where(excess <= STOP * first, number, jnp.inf), model


def measure(dataset) -> Measured:
    names = ("fixed_steps", "half_steps", "best_steps", "best_factor", "largest_factor", "largest_steps", "condition")
    kept = {
        name: blank(dataset[name], dataset["ok"]).median("trial").transpose("kind", "level").values for name in names
    }
    levels, runs = dataset["level"].values, int(dataset["ok"].sum())
    at_edge = int((dataset["best_at_edge"].astype(bool) & dataset["ok"].astype(bool)).sum())
    numbers: Numbers = {
        name: {kind: values[i].tolist() for i, kind in enumerate(KINDS)} for name, values in kept.items()
    }
    numbers["best step at the edge of the list"] = at_edge

    def change(name, form="{:.0f}"):
        ends = (
            f"{kind} {form.format(kept[name][i][0])} to {form.format(kept[name][i][-1])}"
            for i, kind in enumerate(KINDS)
        )
        return "; ".join(ends)

    edge = (
        f" (an upper bound in the {at_edge} of {runs} runs where it is the first or last of the list)"
        if at_edge
        else ""
    )
    text = (
        f"median steps to 1e-6 as the mean eigenvalue of |D| grows from {levels[0]:g} to {levels[-1]:g}, at the best step: "
        f"{change('best_steps')}{edge}; at half the largest stable one: {change('half_steps')}; at the fixed one: "
        f"{change('fixed_steps')}; the best step over 2/sharpness: {change('best_factor', '{:.2f}')}; the largest that "
        f"gets there: {change('largest_factor', '{:.2f}')}; the condition number of the curvature at the end: "
        f"{change('condition', '{:.3g}')}"
    )
    return Measured(text, numbers)


def draw(figure, dataset) -> None:
    axes = figure.subplots(2, 2, sharex=True).ravel()
    levels = dataset["level"].values
    dashes = ("-", "--", "-.")

    def values(name, i):
        return blank(dataset[name], dataset["ok"]).isel(kind=i).transpose("trial", "level").values

    panels = (
        ("fixed_steps", r"Fixed step $\eta$ = 1e-3", "steps to a relative error of 1e-6"),
        ("best_steps", "Best step, and half the largest stable", "steps to a relative error of 1e-6"),
        ("best_factor", "Best step, and the largest that gets there", r"step $\eta$ over 2/sharpness"),
        ("condition", "Curvature at the end", r"condition number $\kappa$ of $\nabla^2 L$"),
    )
    for ax, (name, title, label) in zip(axes, panels, strict=True):
        for i, kind in enumerate(KINDS):
            draw_band(ax, levels, values(name, i), **mark(i), ls=dashes[i], label=kind)
        ax.set(xscale="log", ylabel=label)
        if name != "best_factor":
            ax.set_yscale("log")
        ax.set_title(title)
    second, third = axes[1], axes[2]
    thin = {"mfc": "none", "ls": ":", "lw": 1}
    for i in range(len(KINDS)):
        look = {**thin, **mark(i)}
        second.plot(levels, band(values("half_steps", i))[1], **look)
        third.plot(levels, band(values("largest_factor", i))[1], **look)
    third.set_ylim(0, None)
    for ax, label in ((second, "half the largest stable, 1/sharpness"), (third, "largest that gets there")):
        ax.plot([], [], color="0.3", marker="o", label="best")
        ax.plot([], [], color="0.3", marker="o", label=label, **thin)
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[len(KINDS) :], labels[len(KINDS) :], loc="upper left")
    for ax in axes[2:]:
        ax.set_xlabel("mean of the sizes $|d_i|$ of the eigenvalues of $D(0)$")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, title="eigenvalues of $D(0)$")


FIGURES = {
    "descent-steps": Figure(
        OWN,
        "does imbalance speed up descent at its best step?",
        "T21 and M22 leave it open: their statements are for the flow, whose clock a larger step would change",
        compute,
        measure,
        draw,
        {"trials": 20, "points": 9, "steps": 29},
        {"trials": 3, "points": 5, "steps": 15},
        (7.4, 5.4),
    )
}
