"""Ten thousand closed-form trajectories beside integrating the same ones by diffrax and by SciPy, in one run, as ratios.

Two layers of homogeneous imbalance towards a 3 x 2 target, width 4, at ten times up to t = 10. The integrators are asked for
the tolerance at which their worst error over all trajectories and times is about 1e-8; the closed form has no tolerance.
"""

import jax
import jax.numpy as jnp
import numpy as np
from common import record, seconds
from scipy.integrate import solve_ivp

import lindyn_jax as ld
from lindyn_jax import exact

N, M, H, TRAJECTORIES, SAMPLE = 3, 2, 4, 10_000, 100
TIMES = np.linspace(0, 10, 11)
TOLERANCE = 1e-9


def test_closed_form_beside_integrators():
    rng = np.random.default_rng(0)
    Y = jnp.asarray(rng.normal(size=(N, M)))
    U0, V0 = jnp.asarray(rng.normal(size=(TRAJECTORIES, N, H))), jnp.asarray(rng.normal(size=(TRAJECTORIES, M, H)))
    lambda0 = jnp.asarray(rng.normal(size=TRAJECTORIES))

    def stacked(model, problem):
        R = jnp.concatenate([model.U, model.V])
        return R @ R.T

    def integrate(U, V, l, solver, tolerance):
        problem = ld.factorization(Y).regularized(l)
        return ld.gradient_flow(
            ld.TwoLayer(U, V), problem, TIMES, observables={"P": stacked}, solver=solver, rtol=tolerance, atol=tolerance
        ).observables["P"]

    def by_scipy(U, V, l):
        def velocity(_, state):
            U, V = state[: N * H].reshape(N, H), state[N * H :].reshape(M, H)
            E, Q = np.asarray(Y) - U @ V.T, U.T @ U - V.T @ V - l * np.eye(H)
            return np.concatenate([(E @ V - U @ Q / 2).ravel(), (E.T @ U + V @ Q / 2).ravel()])

        start = np.concatenate([U.ravel(), V.ravel()])
        path = solve_ivp(velocity, (0, TIMES[-1]), start, "DOP853", TIMES, rtol=TOLERANCE, atol=TOLERANCE).y.T
        R = path.reshape(len(TIMES), N + M, H)
        return R @ R.transpose(0, 2, 1)

    closed = jax.jit(jax.vmap(lambda U, V, l: exact.homogeneous(Y, U, V, l, TIMES)))
    solvers = {
        name: jax.jit(
            lambda U, V, l, name=name: jax.lax.map(lambda start: integrate(*start, name, TOLERANCE), (U, V, l))
        )
        for name in ("tsit5", "dopri8")
    }
    batched = jax.jit(jax.vmap(lambda U, V, l: integrate(U, V, l, "tsit5", TOLERANCE)))
    reference = closed(U0, V0, lambda0)
    checked = jax.jit(jax.vmap(lambda U, V, l: integrate(U, V, l, "dopri8", 1e-13)))(
        U0[:SAMPLE], V0[:SAMPLE], lambda0[:SAMPLE]
    )
    own_error = float(jnp.max(jnp.abs(reference[:SAMPLE] - checked)))
    rows = [
        {
            "method": "closed form",
            "trajectories": TRAJECTORIES,
            "seconds": seconds(lambda: closed(U0, V0, lambda0)),
            "worst_error": own_error,
            "against": "dopri8 at 1e-13",
        }
    ]
    peers = {f"diffrax {name}, mapped": solver for name, solver in solvers.items()} | {
        "diffrax tsit5, vmapped": batched
    }
    for name, solve in peers.items():
        error = float(jnp.max(jnp.abs(solve(U0, V0, lambda0) - reference)))
        time = seconds(lambda solve=solve: solve(U0, V0, lambda0), 1)
        rows.append({"method": name, "trajectories": TRAJECTORIES, "seconds": time, "worst_error": error})
    few = [np.asarray(values[:SAMPLE]) for values in (U0, V0, lambda0)]
    paths = np.stack([by_scipy(*start) for start in zip(*few, strict=True)])
    time = seconds(lambda: [by_scipy(*start) for start in zip(*few, strict=True)], 1)
    rows.append(
        {
            "method": f"SciPy DOP853, {SAMPLE} trajectories, scaled",
            "trajectories": TRAJECTORIES,
            "seconds": time * TRAJECTORIES / SAMPLE,
            "worst_error": float(np.max(np.abs(paths - reference[:SAMPLE]))),
        }
    )
    for row in rows:
        row["ratio_to_closed_form"] = row["seconds"] / rows[0]["seconds"]
        print(row)
    print(record("exact", rows))
    assert own_error < 1e-9
    assert all(row["worst_error"] < 1e-6 for row in rows[1:])
