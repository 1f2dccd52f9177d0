"""The smallest program that hangs for ever with jaxlib 0.10.0 to 0.11.0, which this package therefore refuses."""

import subprocess
import sys

PROGRAM = """
import jax, jax.numpy as jnp

def whiten(A, b):
    L = jnp.linalg.cholesky(A @ A.T + 15 * jnp.eye(15))
    return jax.scipy.linalg.solve_triangular(L, b, lower=True)

key = jax.random.key(0)
A, b = jax.random.normal(key, (2000, 15, 15)), jax.random.normal(key, (2000, 15))
program = jax.jit(jax.vmap(lambda A, b: jax.jvp(whiten, (A, b), (A, b))))
for _ in range(3):
    value, slope = jax.block_until_ready(program(A, b))
assert bool(jnp.all(jnp.isfinite(value)) and jnp.all(jnp.isfinite(slope)))
print("finished")
"""


def test_batched_linear_algebra_does_not_deadlock():
    # A hang shows as a TimeoutExpired: the program itself takes a few seconds.
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and ended.stdout.strip() == "finished", ended.stderr
