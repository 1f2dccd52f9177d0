"""The explicit solver on the group beside Tsit5, both mapped over 40 starts on well-conditioned data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import record, seconds

import lindyn_jax as ld

ROWS: list[dict] = []


@pytest.mark.parametrize(("rank", "outputs"), [(100, 1), (10, 5), (50, 10)])
def test_steps_on_the_group_beside_tsit5(rank, outputs):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4 * rank, rank)) / np.sqrt(4 * rank)
    problem = ld.LeastSquares(X, X @ rng.normal(size=(rank, outputs)))
    keys, ts = jax.random.split(jax.random.key(0), 40), np.array([1.0, 4.0, 16.0])

    def batch(solver, rtol):
        def one(key):
            start = ld.init.gaussian_core(problem, 1000, alpha=0.5, key=key)
            out = ld.gradient_flow(
                start, problem, ts, solver=solver, rtol=rtol, atol=rtol / 100, observables=("imbalance_drift",)
            )
            Z = jnp.concatenate([out.final.U1, out.final.V])
            return Z, out.observables["imbalance_drift"][-1], out.stats["num_steps"]

        return jax.jit(lambda keys: jax.lax.map(one, keys))

    exact = batch("dopri8", 1e-13)(keys)[0]
    for rtol in (1e-4, 1e-6, 1e-8):
        for solver in ("tsit5", "lie"):
            run = batch(solver, rtol)
            Z, drift, steps = run(keys)
            errors = np.linalg.norm(Z - exact, axis=(1, 2)) / np.linalg.norm(exact, axis=(1, 2))
            row = {"rank": rank, "outputs": outputs, "rtol": rtol, "solver": solver}
            row |= {"error": float(errors.max()), "drift": float(drift.max()), "steps": float(steps.mean())}
            row["seconds"] = seconds(lambda run=run: run(keys))
            if solver == "lie":
                row["tsit5_over_lie"] = ROWS[-1]["seconds"] / row["seconds"]
                assert row["drift"] < 1e-12
            assert row["error"] < 2 * rtol
            ROWS.append(row)
            print(row)
    print(record("lie", ROWS))
