"""Statements do not depend on units: with X, Y, q and the start scaled by their exact laws, the same digits or a flag.

Data in units a, targets in units b and the loss scale in units q leave the flow as it is if weights are in units sqrt(b/a); rates
are then in units q a b, losses in units q b^2, products in units b/a.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lindyn_jax as ld
from lindyn_jax import observables as obs
from lindyn_jax import theory

# The range of single precision is the narrower one.
SCALES = [
    *(pytest.param("float64", scale, marks=pytest.mark.slow) for scale in (1e-30, 1e30)),
    ("float32", 1e-10),
    ("float32", 1e10),
]


def _case(dtype, a, b, q):
    rng = np.random.default_rng(3)
    X, Y, U, V = (rng.normal(size=size) for size in ((4, 5), (4, 2), (5, 8), (2, 8)))
    weights = np.sqrt(b / a)
    problem = ld.LeastSquares((a * X).astype(dtype), (b * Y).astype(dtype), scale=jnp.asarray(q, dtype))
    return ld.TwoLayer((0.4 * weights * U).astype(dtype), (0.5 * weights * V).astype(dtype)), problem


def _statements(dtype, a, b, q):
    """Every statement in units in which it is the same for all a, b and q, by one program a precision."""
    rate, product, loss = q * a * b, b / a, q * b * b
    units = tuple(map(float, (rate, product, loss, a, b, q * a * a)))
    return _scaled(*_case(dtype, a, b, q), jnp.asarray(np.array([0.5, 2.0]) / rate, dtype), units)


@jax.jit
def _scaled(model, problem, ts, units):
    rate, product, loss, a, b, curvature = units
    step = 0.1 / rate
    start = ld.TwoLayer(1.1 * model.U, 0.9 * model.V)
    of = {name: lambda *more, name=name: getattr(theory, name)(model, problem, *more) for name in theory.__all__}

    def scaled(answer, *units):
        """An answer whose numbers are in these units, leaf by leaf; the last one is that of all others."""
        leaves = jax.tree.leaves(answer)
        numbers = [x for x in leaves if x.dtype not in (bool, jnp.int32)]
        units = [*units, *[units[-1]] * (len(numbers) - len(units))]
        return [*(x / u for x, u in zip(numbers, units, strict=True)), *(x for x in leaves if x.dtype == bool)]

    bounds, modes, order = of["loss_bound"](ts), theory.data_modes(problem), theory.learning_order(problem, 2.0)
    tilt = theory.perturbation_bound(problem, 2.0 - jnp.log(product) / 2, ts)
    growth, drift = of["growth_bound"](ts), of["drift_spectrum"](step)
    sharp = of["sharpness"]()
    search, inequality, standing = of["line_search"](), of["step_inequality"](step), of["stationary_point"]()
    table = {name: scaled(of[name](), rate) for name in ("instantaneous_rate", "lemma7", "rate_bound", "local_rate")}
    table |= {name: scaled(of[name](), rate) for name in ("corollary4", "corollary5")}
    table |= {
        name: scaled(of[name](), product) for name in ("lemma8", "convergence_constant", "imbalance", "spectrum_edges")
    }
    return table | {
        "rate_spectrum": scaled(of["rate_spectrum"](), a * b),
        "margin": scaled(of["margin"](), b),
        "loss_bound": scaled(bounds, loss, rate),
        "corollary6": scaled(of["corollary6"](ts, ts[0]), loss, rate),
        "growth_bound": [growth.log_value - jnp.log(product), growth.applies],
        "coupling_bound": [of["coupling_bound"](ts).log_value - jnp.log(product)],
        "stationarity": scaled(of["stationarity"](), rate * jnp.sqrt(product), 1),
        "stationary_point": [*standing[:3], standing.escape / b, standing.curvature / rate],
        "least_excess_loss": scaled(theory.least_excess_loss(problem, 1), loss),
        "balance": scaled(of["balance"](product), product),
        "tightness": jax.tree.leaves(of["tightness"]()),
        "invariant_set": scaled(of["invariant_set"](), product),
        "drift_spectrum": scaled(drift, product),
        "stable_step": [of["stable_step"]() * rate],
        "line_search": [search.step * rate, search.excess_loss / loss, search.applies],
        "step_inequality": scaled(inequality, 1, 1, rate),
        "sharpness": [sharp.value / rate, sharp.deviation / rate, sharp.applies],
        "hessian_sharpness": [of["hessian_sharpness"]().value / rate],
        "data_modes": [modes.sigma / rate, modes.lam / curvature, modes.applies],
        "learning_order": [order.height / product, order.jump_time * rate, order.applies],
        "reduced_rank_regression": scaled(theory.reduced_rank_regression(problem, 1), product, loss),
        "corollary2": scaled(theory.corollary2(problem, 1), product, loss),
        "theorem2": scaled(theory.g19_theorem2(problem, ts), product),
        "perturbation_bound": scaled(tilt, jnp.sqrt(product), curvature, rate),
        "observables": [
            obs.reconstruction_error(model, problem),
            obs.imbalance_drift(model, problem, start) / product,
            obs.distance_to_theta_hat(model, problem) / product,
            obs.frozen_product_norm(model, problem) / product,
            obs.singular_values(model, problem) / product,
            obs.effective_rank(model, problem),
            obs.mode_strengths(model, problem) / product,
            obs.alignment(model, problem),
            obs.kernel_distance(model, problem, start),
        ],
    }


@functools.cache
def reference(dtype):
    return jax.tree.map(np.asarray, _statements(dtype, 1.0, 1.0, 1.0))


@pytest.mark.parametrize("units", ["data", "targets", "loss", "data and targets"])
@pytest.mark.parametrize("dtype, scale", SCALES)
def test_statements_have_the_same_digits_in_all_units(dtype, scale, units):
    a, b, q = {
        "data": (scale, 1, 1),
        "targets": (1, scale, 1),
        "loss": (1, 1, scale),
        "data and targets": (scale, scale, 1),
    }[units]
    # Round-off of scaled data: some statements subtract, so that it is amplified by their condition.
    close = 1e-11 if dtype == "float64" else 1e-3
    for name, numbers in _statements(dtype, a, b, q).items():
        for i, (number, expected) in enumerate(zip(numbers, reference(dtype)[name], strict=True)):
            number = np.asarray(number)
            if number.dtype == bool:
                assert np.array_equal(number, expected), (name, i)
                continue
            size = np.max(np.abs(expected[np.isfinite(expected)]), initial=0)
            assert np.allclose(number, expected, rtol=close, atol=close * size), (name, i, number, expected)
