"""What a gradient costs, in values: of flows, of descent with respect to 1, 50 and 1500 step sizes, and of closed forms.

Values and gradients run in turns on one thread, and of every turn the best counts. Each gradient is checked by a finite
difference along one direction: `taskset -c 0 python -m pytest benchmarks/test_gradients.py -n 0 -s`.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import in_turns, record

import lindyn_jax as ld
from lindyn_jax import exact

STEPS = 1500
rng = np.random.default_rng(0)
Y, U, V = rng.normal(size=(5, 10)), rng.normal(size=(5, 20)), rng.normal(size=(10, 20))
PROBLEM = ld.factorization(Y)
TS = np.linspace(0.05, 1, 20)


def closed_form(lambda0):
    return jnp.sum(jnp.sin(exact.homogeneous_product(Y, U, V, lambda0, TS)))


def closed_form_of_weights(weights):
    return jnp.sum(jnp.sin(exact.homogeneous_product(*weights, 1.0, TS)))


def flow_of_scale(adjoint):
    def value(scale):
        start = ld.TwoLayer(scale * U, scale * V)
        out = ld.gradient_flow(start, PROBLEM, TS, observables=("loss",), solver="tsit5", rtol=1e-8, **adjoint)
        return jnp.sum(out.observables["loss"])

    return value


def flow_of_weights(weights):
    adjoint = {"adjoint": diffrax.RecursiveCheckpointAdjoint()}
    out = ld.gradient_flow(
        ld.TwoLayer(*weights), PROBLEM, TS, observables=("loss",), solver="tsit5", rtol=1e-8, **adjoint
    )
    return jnp.sum(out.observables["loss"])


def descent(rates):
    optimizer = optax.sgd(lambda count: rates[count * rates.shape[0] // STEPS])
    out = ld.gradient_descent(
        ld.TwoLayer(U, V), PROBLEM, STEPS, optimizer=optimizer, observables=("loss",), differentiate="reverse"
    )
    return jnp.log(out.observables["loss"][-1])


CASES = {
    "closed form, jvp": (closed_form, 1.0, "forward"),
    "closed form, reverse": (closed_form, 1.0, "reverse"),
    "closed form, reverse, of target and start": (closed_form_of_weights, (Y, U, V), "reverse"),
    "flow, ForwardMode": (flow_of_scale({"adjoint": diffrax.ForwardMode()}), 1.0, "forward"),
    "flow, RecursiveCheckpointAdjoint": (flow_of_weights, (U, V), "reverse"),
    **{
        f"{STEPS} steps of descent, reverse, {n} step sizes": (descent, np.full(n, 2e-4), "reverse")
        for n in (1, 50, STEPS)
    },
}


def row_of(name):
    function, at, mode = CASES[name]
    at = jax.tree.map(jnp.asarray, at)
    value = jax.jit(function)
    gradient = jax.jit(jax.jacfwd(function) if mode == "forward" else jax.grad(function))
    direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)) * jnp.max(jnp.abs(x)), at)
    moved = lambda e: value(jax.tree.map(lambda x, d: x + e * d, at, direction))  # noqa: E731
    difference = (moved(1e-4) - moved(-1e-4)) / 2e-4
    along = sum(jnp.sum(g * d) for g, d in zip(jax.tree.leaves(gradient(at)), jax.tree.leaves(direction), strict=True))
    np.testing.assert_allclose(along, difference, rtol=1e-4)
    taken = in_turns({"value": lambda: value(at), "gradient": lambda: gradient(at)}, 10)
    row = {
        "of": name,
        "parameters": sum(x.size for x in jax.tree.leaves(at)),
        "value, us": 1e6 * taken["value"],
        "gradient / value": taken["gradient"] / taken["value"],
    }
    print(row, flush=True)
    return row


def test_gradients_in_values():
    print(record("gradients", [row_of(name) for name in CASES]))
