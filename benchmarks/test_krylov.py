"""Completions whose Newton matrix is too large to be assembled: what implicit steps would cost beside explicit ones.

Newton's method on impulses would solve with `I + (tau/g) H T`, `T(R) = U U^T R + R V V^T`, on the observed entries, for one real
and one complex g a step. Iterations of GMRES to three digits are counted where an explicit run has come down to some loss, for
steps tau of a tenth of the time so far, without a preconditioner and with that of the whole matrix observed (the quadratic case,
two eigenvalue problems of the sizes of the matrix); the factorization on the observed entries alone is timed beside them. An
implicit run takes 55 steps of three Newton iterations (results/losses.md), to whatever loss.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from common import record
from scipy.sparse.linalg import LinearOperator, gmres
from test_completion import ENTRIES, drawn

import lindyn_jax as ld
from lindyn_jax.solvers.stages import Impulses
from lindyn_jax.solvers.steps import Leaves, LossStep

REAL, COMPLEX = 3.6378, 2.6811 + 3.0504j
STEPS, NEWTON = 55, 3


def public():
    Y, mask = drawn(jax.random.key(0))
    return ld.MatrixCompletion(Y, mask)


def digits(samples=40, fraction=0.5):
    Y = ld.data.load_matrix("digits", samples=samples).values
    Y = Y / np.sqrt(np.nanmean(Y**2))
    mask = (np.random.default_rng(0).random(Y.shape) < fraction) & ~np.isnan(Y)
    mask[np.arange(len(Y)), np.argmax(Y, axis=1)] = True
    mask[np.argmax(Y, axis=0), np.arange(Y.shape[1])] = True
    return ld.MatrixCompletion(np.where(mask, Y, 0), mask)


def seconds(call, repeats=5):
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return min(times)


def iterations(problem, core, tau):
    """GMRES with and without preconditioner at both shifts, and the time of one application."""
    U, V, seen = np.asarray(core.U1), np.asarray(core.V), np.nonzero(np.asarray(problem.mask))
    UU, VV, shape = U @ U.T, V @ V.T, problem.Y.shape
    (a, P), (b, Q), K = np.linalg.eigh(UU), np.linalg.eigh(VV), len(seen[0])
    share = K / problem.Y.size
    right = np.random.default_rng(0).normal(size=K)
    spread = lambda x: np.bincount(seen[0] * shape[1] + seen[1], x, np.prod(shape)).reshape(shape)  # noqa: E731
    counts, whole = [], np.zeros(shape, complex)
    for shift in (REAL, COMPLEX):

        def filled(x):
            whole[:] = 0
            whole[seen] = x
            return whole

        def apply(x, shift=shift):
            R = filled(x)
            return x + tau / shift * (UU @ R + R @ VV)[seen]

        def inverse(x, shift=shift):
            return (P @ ((P.T @ filled(x) @ Q) / (1 + tau / shift * share * (a[:, None] + b))) @ Q.T)[seen]

        for M in (None, LinearOperator((K, K), inverse, dtype=complex)):
            count = [0]
            options = {
                "callback": lambda _, count=count: count.__setitem__(0, count[0] + 1),
                "callback_type": "pr_norm",
            }
            gmres(
                LinearOperator((K, K), apply, dtype=complex), right, rtol=1e-3, restart=200, maxiter=1, M=M, **options
            )
            counts.append(count[0])
    R = spread(right)
    return counts, seconds(lambda: (UU @ R + R @ VV)[seen])


def rest_of_a_step(problem, core):
    """CPU seconds of a step beside the linear solves: the stages of each iteration, and the map that keeps the imbalance."""
    (r, k), m = core.U1.shape, core.V.shape[0]
    step = LossStep(core.U1, core.V, Leaves(problem), jnp.asarray(0.1))
    x = 1e-3 * jax.random.normal(jax.random.key(0), (3, r, m))
    stages = jax.jit(lambda x: Impulses.stages(x, step))
    end = jax.jit(lambda x: Impulses.end(x, jnp.zeros((3, r, k)), jnp.zeros((3, m, k)), step, jnp.zeros(()))[:2])
    each = []
    for call in (stages, end):
        jax.block_until_ready(call(x))
        each.append(seconds(lambda call=call: jax.block_until_ready(call(x))))
    return (NEWTON + 1) * each[0] + each[1]


def kernel(problem, core):
    """T on the observed entries, which is what an assembled Newton matrix is made of."""
    (i, j), U, V = np.nonzero(np.asarray(problem.mask)), np.asarray(core.U1), np.asarray(core.V)
    UU, VV = U @ U.T, V @ V.T
    return UU[i][:, i] * (j[:, None] == j) + VV[j][:, j] * (i[:, None] == i)


def test_implicit_steps_of_large_completions_do_not_pay():
    rows = []
    for name, problem in (("public, 100 x 100, rank 5", public()), ("40 digits, half seen", digits())):
        core = ld.init.gaussian_core(problem, 1000, std=ENTRIES, key=jax.random.key(1))
        zero = float(problem.loss(jnp.zeros_like(problem.Y)))
        for level in (1e-2, 1e-6, 1e-12):

            def run(problem=problem, core=core, level=level, zero=zero):
                options = {"observables": (), "solver": "dopri8", "rtol": 1e-6, "stop_loss": level * zero}
                return jax.block_until_ready(ld.gradient_flow(core, problem, [1e9], max_steps=20_000, **options))

            out = run()
            spent = seconds(run, 1)
            steps, t = int(out.stats["num_steps"]), float(out.stats["final_time"])
            N = kernel(problem, out.final)
            values = np.linalg.eigvalsh(N)
            # Late steps of the implicit method are a tenth of the time so far.
            tau = t / 10
            counts, once = iterations(problem, out.final, tau)
            # Complex numbers cost twice.
            krylov = NEWTON * once * (min(counts[:2]) + 2 * min(counts[2:]))
            rest = rest_of_a_step(problem, out.final)
            matrix = np.eye(len(N)) + tau / REAL * N
            factor = seconds(lambda matrix=matrix: scipy.linalg.lu_factor(matrix), 1)
            row = {
                "case": name,
                "observed": len(N),
                "impulses": problem.Y.size,
                "loss": level,
                "time": t,
                "condition": float(values[-1] / values[0]),
                "explicit_steps": steps,
                "explicit_cpu_seconds": spent,
                "ended": ld.RESULTS[int(out.result)].split(":")[0],
                "gmres_plain_preconditioned": [counts[0], counts[1], counts[2], counts[3]],
                "krylov_cpu_seconds": STEPS * (krylov + rest),
                "factored_cpu_seconds": STEPS * (5 * factor + rest),
            }
            rows.append(row)
            print(row, flush=True)
    print(record("krylov", rows))
