"""What a fit of lambda0 costs, and its derivative: closed form, forward and reverse mode through diffrax, and two peers.

Peers: Adam on lambda0 with the gradient taken through both integrations (300 steps, one basin only), and SciPy's bounded
minimize_scalar over an objective whose paths are integrated by SciPy's DOP853 (both signs). The setting is T21 Fig. 2's.
"""

import time

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from common import record, seconds
from scipy.integrate import solve_ivp

import lindyn_jax as ld

N, M, H, FITS = 5, 10, 50, 200


def setting(seed=0):
    problem = ld.factorization(np.random.default_rng(0).normal(size=(N, M)))
    return problem, ld.init.gaussian_core(problem, H, std=1.0, key=jax.random.key(seed))


def test_fits_and_their_derivatives():
    problem, start = setting()
    U, V = start.U1, start.V
    fit = ld.fit_lambda0(problem, U, V)
    at, rows = fit.lambda0[0] * 1.1, []

    def objective(**policy):
        return lambda level: ld.lambda0_objective(problem, U, V, level, fit, **policy)

    one = jnp.ones(())

    def add(name, value, gradient):
        value, gradient = jax.jit(value), jax.jit(gradient)
        memory = gradient.lower(at).compile().memory_analysis()
        row = {
            "method": name,
            "value_ms": 1e3 * seconds(lambda: value(at)),
            "gradient_ms": 1e3 * seconds(lambda: gradient(at)),
        }
        row["ratio"] = row["gradient_ms"] / row["value_ms"]
        row["derivative"] = float(jax.tree.leaves(gradient(at))[-1])
        row["memory_KiB"] = getattr(memory, "temp_size_in_bytes", 0) / 1024
        rows.append(row)

    def forward(f):
        return lambda level: jax.jvp(f, (level,), (one,))

    J = objective()
    add("closed form, jvp", J, forward(J))
    J = objective(method="riccati")
    add("exact.homogeneous, jvp", J, forward(J))
    J = objective(method="flow", adjoint=diffrax.ForwardMode())
    add("diffrax, ForwardMode", J, forward(J))
    for name, adjoint in (("RecursiveCheckpoint", diffrax.RecursiveCheckpointAdjoint()),):
        J = objective(method="flow", adjoint=adjoint)
        add(f"diffrax, {name}", J, jax.value_and_grad(J))
    closed = rows[0]["derivative"]
    for row in rows:
        assert abs(row["derivative"] - closed) < 1e-5 * abs(closed), row

    def one_fit(key):
        core = ld.init.gaussian_core(problem, H, std=1.0, key=key)
        return ld.fit_lambda0(problem, core.U1, core.V)

    keys = jax.random.split(jax.random.key(0), FITS)
    many = jax.jit(lambda keys: jax.lax.map(one_fit, keys))
    rows.append(
        {"method": "fit_lambda0, one start, both signs", "seconds": seconds(lambda: ld.fit_lambda0(problem, U, V))}
    )
    rows.append({"method": f"fit_lambda0, {FITS} starts, one after the other", "seconds": seconds(lambda: many(keys))})

    # Peer: Adam, with everything integrated and differentiated at every step.
    ts = fit.ts

    def both(level):
        plain = ld.gradient_flow(start, problem, ts, observables={"p": ld.observables.reduced_product}, solver="dopri8")
        moved = ld.gradient_flow(
            start, problem.regularized(level), ts, observables={"p": ld.observables.reduced_product}, solver="dopri8"
        )
        gap = jnp.sum((moved.observables["p"] - plain.observables["p"]) ** 2, axis=(1, 2))
        return jnp.sum(fit.weights * gap) / jnp.sum(fit.weights * jnp.sum(plain.observables["p"] ** 2, axis=(1, 2)))

    def adam():
        return ld.fit(jnp.asarray(1.0 * H), both, lambda J: J, optax.adam(2.0), steps=300, gradient_tolerance=1e-9)

    found = adam()
    rows.append(
        {
            "method": "Adam through both integrations, 300 steps, one sign",
            "seconds": seconds(adam, 1),
            "lambda0_error": abs(float(found.parameters) - float(fit.lambda0[0])),
        }
    )

    # Peer: SciPy throughout.
    U_, V_, Y = (np.asarray(value) for value in (U, V, problem.Y))
    evaluations = 0

    def by_scipy(level):
        nonlocal evaluations
        evaluations += 1
        k = U_.shape[1]

        def velocity(_, state):
            A, B = state[: N * k].reshape(N, k), state[N * k :].reshape(M, k)
            E, Q = Y - A @ B.T, 0.0
            if level is not None:
                Q = A.T @ A - B.T @ B - level * np.eye(k)
                return np.concatenate([(E @ B - A @ Q / 2).ravel(), (E.T @ A + B @ Q / 2).ravel()])
            return np.concatenate([(E @ B).ravel(), (E.T @ A).ravel()])

        state = np.concatenate([U_.ravel(), V_.ravel()])
        path = solve_ivp(velocity, (0, float(ts[-1])), state, "DOP853", np.asarray(ts), rtol=1e-9, atol=1e-12).y.T
        return path[:, : N * k].reshape(-1, N, k) @ path[:, N * k :].reshape(-1, M, k).transpose(0, 2, 1)

    begin = time.perf_counter()
    plain = by_scipy(None)
    weights = np.asarray(fit.weights)
    below = weights @ np.sum(plain**2, axis=(1, 2))
    minima = [
        scipy.optimize.minimize_scalar(
            lambda level: weights @ np.sum((by_scipy(level) - plain) ** 2, axis=(1, 2)) / below,
            bounds=bounds,
            method="bounded",
        ).x
        for bounds in ((0, 6 * H), (-6 * H, 0))
    ]
    rows.append(
        {
            "method": "SciPy minimize_scalar over DOP853, both signs",
            "seconds": time.perf_counter() - begin,
            "evaluations": evaluations,
            "lambda0_error": float(np.max(np.abs(np.array(minima) - np.asarray(fit.lambda0)))),
        }
    )
    for row in rows:
        print(row)
    print(record("fit", rows))
    assert rows[-1]["lambda0_error"] < 1e-2
