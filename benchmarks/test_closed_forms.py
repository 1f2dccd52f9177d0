"""The homogeneous closed form beside NumPy and beside Dopri8, over sizes h = n = m and numbers of times, in one run.

The peers are what one would write: a matrix exponential and a solve at each time, and the same with one decomposition for all
times; neither holds where exponentials overflow or a start lacks rank. Dopri8 is asked for a relative error of 1e-12. All run on
one thread, in turns, and of every turn the best counts: `taskset -c 0 python -m pytest benchmarks/test_closed_forms.py -n 0 -s`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from common import in_turns, record

import lindyn_jax as ld
from lindyn_jax import exact

SIZES, COUNTS, LEVEL = (5, 10, 20, 40, 80), (1, 8, 32, 128), 1.0


def by_exponentials(A, R0, ts):
    """The formula as it is printed."""
    eye, P = np.eye(R0.shape[1]), []
    for t in ts:
        E = scipy.linalg.expm(t * A)
        K = np.linalg.solve(2 * A, E @ E - np.eye(len(A)))
        F = E @ R0
        P.append(F @ np.linalg.solve(eye + R0.T @ K @ R0, F.T))
    return np.stack(P)


def by_one_decomposition(A, R0, ts):
    """The formula in the eigenbasis of A, which must be invertible."""
    a, Phi = np.linalg.eigh(A)
    B, eye, P = Phi.T @ R0, np.eye(R0.shape[1]), []
    for t in ts:
        E = np.exp(t * a)
        F = Phi @ (E[:, None] * B)
        P.append(F @ np.linalg.solve(eye + B.T @ (((E * E - 1) / (2 * a))[:, None] * B), F.T))
    return np.stack(P)


def stacked(model, problem):
    R = jnp.concatenate([model.U, model.V])
    return R @ R.T


@jax.jit
def closed(Y, U, V, ts):
    return exact.homogeneous(Y, U, V, LEVEL, ts)


@jax.jit
def by_dopri8(Y, U, V, ts):
    tight = {"solver": "dopri8", "rtol": 1e-12, "atol": 1e-13}
    problem = ld.factorization(Y).regularized(LEVEL)
    return ld.gradient_flow(ld.TwoLayer(U, V), problem, ts, observables={"P": stacked}, **tight).observables["P"]


def row_of(n, count):
    Y, U, V = np.random.default_rng(n).normal(size=(3, n, n))
    A = np.block([[LEVEL / 2 * np.eye(n), Y], [Y.T, -LEVEL / 2 * np.eye(n)]])
    R0 = np.concatenate([U, V])
    # The largest mode is learned and others move; the formula of the peers still has its digits.
    end = 4 / n**0.5
    ts = np.linspace(end / count, end, count)
    calls = {
        "closed form": lambda: closed(Y, U, V, ts),
        "exponentials": lambda: by_exponentials(A, R0, ts),
        "decomposition": lambda: by_one_decomposition(A, R0, ts),
        "Dopri8": lambda: by_dopri8(Y, U, V, ts),
    }
    ours, *peers = calls
    P = {name: np.asarray(call()) for name, call in calls.items()}
    apart = {
        name: np.linalg.norm(P[ours] - P[name], axis=(1, 2)) / np.linalg.norm(P[ours], axis=(1, 2)) for name in peers
    }
    taken = in_turns(calls, 3 if n * count > 2000 else 10)
    times_faster = {f"{name} / closed form": taken[name] / taken[ours] for name in peers}
    distance = {f"{name}, apart": float(np.max(apart[name])) for name in peers}
    row = {
        "h = n = m": n,
        "times": count,
        "closed form, us a time": 1e6 * taken[ours] / count,
        **times_faster,
        **distance,
    }
    print(row, flush=True)
    assert max(distance.values()) < 1e-9
    return row


def test_closed_form_over_sizes_and_numbers_of_times():
    print(record("closed_forms", [row_of(n, count) for n in SIZES for count in COUNTS]))
