"""What the first call of a flow costs in a new process, beside the same flow by hand in diffrax: tracing, compiling and one run.

`python -m pytest benchmarks/test_first_call.py -n 0 -s` writes results/first_call.json and .md. Every side runs in processes
of its own, in turns, without a cache of programs; imports and small programs that both need are paid for before. Processor time.
"""

import json
import os
import statistics
import subprocess
import sys

import numpy as np
import pytest
from common import record

TURNS = 5
BEGIN = """
import json, sys, time
import diffrax, jax, jax.numpy as jnp, numpy as np
import lindyn_jax as ld
jax.config.update("jax_enable_x64", True)
draws = np.random.default_rng(0)
X, Y = draws.normal(size=(5, 14)), draws.normal(size=(5, 2))
U, V = draws.normal(size=(14, 500)) / 500**0.5, draws.normal(size=(2, 500)) / 500**0.5
ts, problem, start = jnp.array([0.0, 0.1, 0.5, 10.0]), ld.LeastSquares(X, Y), ld.TwoLayer(U, V)
X, Y, U, V = map(jnp.asarray, (X, Y, U, V))
solver, by_hand = getattr(diffrax, sys.argv[1].title(), None), sys.argv[2] == "by hand"
ld.gradient_flow, jnp.zeros(3) + 1

def field(t, weights, data):
    (U, V), (X, Y) = weights, data
    R = X.T @ (Y - X @ (U @ V.T))
    return R @ V, R.T @ U

@jax.jit
def solve(weights, data):
    control = diffrax.PIDController(rtol=1e-9, atol=1e-9)
    saved = diffrax.SaveAt(ts=ts)
    term = diffrax.ODETerm(field)
    found = diffrax.diffeqsolve(
        term, solver(), 0.0, ts[-1], None, weights, data, saveat=saved, stepsize_controller=control, max_steps=100_000
    )
    return tuple(weights[-1] for weights in found.ys)

begin = time.process_time()
end = solve((U, V), (X, Y)) if by_hand else ld.gradient_flow(start, problem, ts, solver=sys.argv[1]).final
jax.block_until_ready(end)
taken = time.process_time() - begin
U, V = (np.asarray(W) for W in (end if by_hand else (end.U, end.V)))
print(json.dumps({"seconds": taken, "product": (U @ V.T).tolist()}))
"""
# What is asked for here, and by hand: at the default tolerance `auto` takes Dopri8 for this start.
PAIRS = {"auto": "dopri8", "dopri8": "dopri8", "tsit5": "tsit5"}


def first_call(solver: str, side: str) -> dict:
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    ran = subprocess.run(
        [sys.executable, "-c", BEGIN, solver, side], capture_output=True, text=True, check=True, env=environment
    )
    return json.loads(ran.stdout)


@pytest.mark.parametrize("solver", PAIRS)
def test_first_call_of_a_flow(solver):
    ours, hand = [], []
    for _ in range(TURNS):
        ours.append(first_call(solver, "here"))
        hand.append(first_call(PAIRS[solver], "by hand"))
        reached, expected = ours[-1]["product"], hand[-1]["product"]
        np.testing.assert_allclose(reached, expected, rtol=0, atol=1e-6 * np.max(np.abs(expected)))
    pairs = [a["seconds"] / b["seconds"] for a, b in zip(ours, hand, strict=True)]
    row = {
        "solver": solver,
        "by hand": PAIRS[solver],
        "seconds": statistics.median(one["seconds"] for one in ours),
        "seconds by hand": statistics.median(one["seconds"] for one in hand),
        "ratio": statistics.median(pairs),
        "least": min(pairs),
        "most": max(pairs),
    }
    ROWS.append(row)
    print(row, flush=True)


ROWS: list[dict] = []


@pytest.fixture(autouse=True, scope="module")
def results():
    yield
    print(record("first_call", ROWS))
