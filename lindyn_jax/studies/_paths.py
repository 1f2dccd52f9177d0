"""One path of an audit, held against every statement."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import theory
from ..trajectory import FINISHED


def along(start, trajectory, problem, ts: Array, rtol) -> dict[str, Array]:
    """One path against every statement."""
    U1, V = theory.moving_layers(start, problem)
    eps = float(jnp.finfo(V.dtype).eps)
    # Equality is allowed, and the round-off of the rates is far below this.
    slack = max(1e-9, 1000 * eps)
    losses: Array = trajectory.observables["excess_loss"]
    reached = jnp.isfinite(losses)
    # Decompositions are not asked about weights that were never reached; their numbers are blanked below.
    models = jax.tree.map(
        lambda leaf, first: jnp.where(reached.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, first),
        trajectory.models,
        start,
    )

    def look(model):
        rate = theory.instantaneous_rate(model, problem)
        bounds = (
            theory.lemma7(model, problem).value,
            theory.rate_bound(model, problem).value,
            theory.corollary5(model, problem).value,
        )
        return rate, jnp.stack(bounds), theory.margin(model, problem)

    looked: tuple[Array, Array, Array] = jax.lax.map(look, models)
    rate, rate_bound, margin = looked
    rate, margin = jnp.where(reached, rate, jnp.inf), jnp.where(reached, margin, jnp.inf)
    rate_bound = jnp.where(reached, rate_bound.T, jnp.inf)

    has_margin = reached & (margin > 0)
    begin = jnp.argmax(has_margin)
    at_margin = jax.tree.map(lambda leaf: leaf[begin], models)
    first = theory.loss_bound(start, problem, ts)
    level = theory.corollary4(start, problem)
    # Delta > 0 is a statement on exact numbers; a balanced start has one of round-off.
    imbalanced = level.applies & (theory.imbalance(start, problem).level > round_off(start, problem))
    later = theory.corollary6(at_margin, problem, ts, ts[begin])
    loss_bound = jnp.stack([first.value, jnp.exp(-level.value * ts) * losses[0], first.value, later.value])
    applies = jnp.stack([first.applies, imbalanced, margin[0] > 0, jnp.any(has_margin)])

    accuracy = 10 * eps if rtol is None else rtol
    error = accuracy * problem.singular_values[0] * jnp.linalg.norm(U1) * jnp.linalg.norm(V)
    resolution = problem.scale / 2 * error**2
    above = jnp.sqrt(losses) > jnp.sqrt(loss_bound) * (1 + slack) + jnp.sqrt(resolution)
    begins = jnp.stack([losses[0], losses[0], losses[0], losses[begin]])[:, None]
    fallen = jnp.log(begins / jnp.where(reached & (losses > 0), losses, 1))
    judged = (loss_bound < begins * (1 + slack)) & reached & (losses > 100 * resolution) & (fallen > 1e-6)
    promised = jnp.log(begins / jnp.where(judged, jnp.maximum(loss_bound, jnp.finfo(V.dtype).tiny), 1))
    return {
        "excess_loss": losses,
        "loss_bound": loss_bound,
        "loss_tightness": jnp.where(judged, promised / jnp.where(judged, fallen, 1), jnp.nan),
        "applies": applies,
        "loss_crossed": applies & jnp.any(above & reached, axis=-1),
        "rate": rate,
        "rate_bound": rate_bound,
        "rate_crossed": jnp.any((rate_bound > rate * (1 + slack)) & reached, axis=-1),
        "margin": margin,
        "margin_time": jnp.where(jnp.any(has_margin), ts[begin], jnp.inf),
        "imbalance_drift": trajectory.observables["imbalance_drift"],
        "resolution": resolution,
        "result": trajectory.result,
        "succeeded": trajectory.result == FINISHED,
        "num_steps": trajectory.stats["num_steps"],
    }


def round_off(model, problem) -> Array:
    """What counts as zero among eigenvalues of D."""
    U1, V = theory.moving_layers(model, problem)
    return 100 * jnp.finfo(V.dtype).eps * (jnp.sum(U1**2) + jnp.sum(V**2))
