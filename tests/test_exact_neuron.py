"""One neuron in closed form: against integration, the networks of this package, and the three ways in which its kernel moves."""

import jax
import numpy as np
import pytest
from helpers import relative_error
from scipy.integrate import solve_ivp

import lindyn_jax as ld

TARGET, BETA0 = np.array([0.0, 1.0]), np.array([-1.0, 0.0])
TIMES = np.linspace(0.0, 60.0, 121)
neuron = jax.jit(ld.exact.neuron)


def start(delta):
    """A neuron of `beta = BETA0` and `a^2 - |w|^2 = delta`, with a > 0."""
    a = np.sqrt((delta + np.sqrt(delta**2 + 4 * BETA0 @ BETA0)) / 2)
    return BETA0 / a, a


def integrated(target, w0, a0, ts):
    def velocity(t, x):
        gap = target - x[-1] * x[:-1]
        return np.append(x[-1] * gap, x[:-1] @ gap)

    path = solve_ivp(velocity, (0, ts[-1]), np.append(w0, a0), t_eval=ts, method="DOP853", rtol=1e-13, atol=1e-14)
    return path.y[:-1].T, path.y[-1]


def kernel_distances(w, a):
    kernels = a[:, None, None] ** 2 * np.eye(w.shape[1]) + w[:, :, None] * w[:, None, :]
    unit = kernels / np.linalg.norm(kernels, axis=(1, 2), keepdims=True)
    return 1 - np.sum(unit * unit[0], axis=(1, 2))


@pytest.mark.parametrize("delta", [-4.0, -1.0, 0.0, 1.0, 4.0])
def test_paths_are_those_of_integration_and_keep_their_imbalance(delta):
    found = neuron(TARGET, *start(delta), TIMES)
    w, a = integrated(TARGET, *start(delta), TIMES)
    assert relative_error(found.w, w) < 1e-10 and relative_error(found.a, a) < 1e-10
    np.testing.assert_allclose(found.a**2 - np.sum(found.w**2, axis=1), delta, atol=1e-12)
    np.testing.assert_allclose(found.beta[-1], TARGET, atol=1e-4)


def test_paths_in_more_dimensions_through_a_change_of_sign():
    draws = np.random.default_rng(2)
    target, w0, ts = draws.normal(size=6), draws.normal(size=6), np.linspace(0, 4, 9)
    a0 = -0.2 * np.sign(w0 @ target)
    w, a = integrated(target, w0, a0, ts)
    assert a[0] * a[-1] < 0
    found = neuron(target, w0, a0, ts)
    assert relative_error(found.w, w) < 1e-10 and relative_error(found.a, a) < 1e-10


def test_kernel_turns_early_late_or_hardly_by_the_imbalance():
    at = {}
    for delta in (-4.0, 0.0, 4.0):
        w0, a0 = start(delta)
        found = neuron(TARGET, w0, a0, TIMES)
        at[delta] = kernel_distances(np.asarray(found.w), np.asarray(found.a))
    # A large readout keeps the kernel; at a = |w| = 1 its turn is that of I + e1 e1^T to I + e2 e2^T.
    assert at[4.0].max() < 2e-3
    np.testing.assert_allclose(at[0.0][-1], 1 - 4 / 5, rtol=1e-6)
    assert 0.88 < at[-4.0][-1] < 0.91
    # Large w is slow to turn, and in the end turns the kernel most.
    half = {delta: np.interp(at[delta][-1] / 2, at[delta], TIMES) for delta in (-4.0, 0.0)}
    assert half[-4.0] > 1.5 * half[0.0]


@pytest.mark.slow
def test_the_kernel_of_a_network_turns_as_that_of_the_neuron():
    for delta in (-4.0, 0.0, 4.0):
        w0, a0 = start(delta)
        found = neuron(TARGET, w0, a0, TIMES)
        model = ld.TwoLayer(w0[:, None], np.array([[a0]]))
        path = ld.gradient_flow(
            model, ld.factorization(TARGET[:, None]), TIMES[1:], observables=("kernel_distance",), rtol=1e-11
        )
        expected = kernel_distances(np.asarray(found.w), np.asarray(found.a))[1:]
        np.testing.assert_allclose(path.observables["kernel_distance"], expected, rtol=1e-7)


def test_derivatives_and_batches():
    w0, a0 = start(1.0)

    def end(a):
        return ld.exact.neuron(TARGET, w0, a, TIMES[3:4]).beta[0, 0]

    e = 1e-5
    both = jax.jit(jax.vmap(lambda a: jax.jvp(end, (a,), (1.0,))))
    (value, *moved, other), slopes = both(np.array([a0, a0 + e, a0 - e, 0.1]))
    assert relative_error(slopes[0], (moved[0] - moved[1]) / (2 * e)) < 1e-8
    assert (
        relative_error([value, other], [neuron(TARGET, w0, np.float64(a), TIMES).beta[3, 0] for a in (a0, 0.1)]) < 1e-13
    )


@pytest.mark.slow
def test_single_precision_stays_single():
    w0, a0 = start(1.0)
    single = neuron(*(np.asarray(x, np.float32) for x in (TARGET, w0, a0, TIMES)))
    assert single.w.dtype == np.float32
    assert relative_error(single.w, neuron(TARGET, w0, a0, TIMES).w) < 1e-5


def test_wrong_starts_are_refused():
    with pytest.raises(ValueError, match=r"Argument `w0` must have shape \(2,\), as the target, but has shape \(3,\)"):
        ld.exact.neuron(TARGET, np.ones(3), 1.0, TIMES)
    with pytest.raises(ValueError, match="`a0` must be a number"):
        ld.exact.neuron(TARGET, np.ones(2), np.ones(1), TIMES)
