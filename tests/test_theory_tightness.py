"""When Proposition 1 is attained, and the networks that attain it."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, load_cases, relative_error, tolerance

import lindyn_jax as ld

theory = Compiled(ld.theory)

CASES = load_cases("m22")


def least_rate(model, problem):
    """The rate at the slowest error, by the adversarial target."""
    Y = theory.adversarial_target(model, problem)
    return theory.instantaneous_rate(model, ld.factorization(Y))


def prescribed(positive, negative, sigma):
    """The problem X = I and the product diag(sigma) of these sizes."""
    r, m = len(positive), len(negative)
    Theta = np.zeros((r, m))
    Theta[np.arange(len(sigma)), np.arange(len(sigma))] = sigma
    return ld.factorization(np.zeros((r, m))), Theta


@pytest.mark.parametrize("name", ["tight_r3m2", "not_tight_r2m2"])
def test_slowest_design_agrees_with_the_reference(name):
    case = CASES[name]
    a, b, sigma = (np.array(case["inputs"][key]) for key in ("a", "b", "sigma"))
    expected = case["expected"]
    printed = ld.TwoLayer(np.array(expected["U"]), np.array(expected["V"]))
    problem, Theta = prescribed(a, b, np.sort(sigma)[::-1])
    start = theory.tight_start(problem, Theta, a, b, len(a) + len(b))
    for model in (printed, start):
        spectrum = np.asarray(theory.moving_spectrum(model, problem))
        assert relative_error(spectrum, expected["eig_D"]) < 1e-13
        assert relative_error(jnp.linalg.svd(model.product(), compute_uv=False), expected["sv_W"]) < 1e-13
        bound = theory.rate_bound(model, problem).value
        # The reference leaves out the factor q lambda_r = 1.
        assert relative_error(bound, expected["bound"]) < 1e-13
        assert relative_error(theory.lemma7(model, problem).value, expected["two_lr_plus_lm"]) < 1e-13
        assert relative_error(least_rate(model, problem), expected["two_lr_plus_lm"]) < 1e-12
        assert relative_error(least_rate(model, problem) / bound, expected["ratio"]) < 1e-12
        tight = theory.tightness(model, problem)
        attained, strict, applies = tight.attained, tight.strict, tight.applies
        assert bool(attained) == (expected["ratio"] == 1.0)
        assert bool(strict) == (expected["ratio"] > 1.0)
        assert bool(applies)


@pytest.mark.parametrize(
    ("positive", "negative", "sigma"),
    [
        ([3.0], [2.0], [1.5]),
        ([3.0], [2.0, 0.1, 5.0], [1.5]),
        ([0.0, 0.2, 4.0, 1.0], [0.5, 0.0], [2.0, 0.0]),
        ([2.0, 1.0, 0.4], [1.5, 0.5, 0.3], [3.0, 0.7, 0.7]),
        ([2.0, 1.0], [1.5, 0.5], [0.7, 0.7]),
        ([2.0, 1.0, 0.4], [1.5, 0.5, 0.3], [3.0, 0.7, 0.0]),
        ([2.0, 2.0], [0.5, 0.5], [2.0, 0.3]),
        ([0.0, 0.0], [0.0, 0.0], [2.0, 0.3]),
        ([1e6, 1e3], [1e-3, 1e-6, 1e-4], [1.0, 1e-2]),
    ],
    ids=str,
)
def test_bound_is_attained_where_the_predicate_says_so(positive, negative, sigma):
    problem, Theta = prescribed(positive, negative, sigma)
    start = theory.tight_start(
        problem, Theta, np.array(positive), np.array(negative), len(positive) + len(negative) + 2, key=jax.random.key(1)
    )
    assert bool(theory.tightness(start, problem).attained)
    assert not bool(theory.tightness(start, problem).strict)
    bound = theory.rate_bound(start, problem).value
    # The rotation of the columns costs a few units of round-off of the largest eigenvalue.
    scale = max(1.0, max(positive), max(negative))
    assert abs(least_rate(start, problem) - bound) < 1e-12 * scale


@pytest.mark.parametrize("m", [2, 3])
def test_the_pairing_is_the_slowest_of_all(m, rng):
    a, b, sigma = (np.sort(rng.uniform(0, 1, (200, m)))[:, ::-1] for _ in range(3))
    a[::5, -1] = b[::7, -1] = sigma[::11, -1] = 0
    a[0, :2], b[0, :2], sigma[0, :2] = (1, 0), (0.3, 0.1), (0.6, 0.5)

    def least(a, b):
        root = np.hypot(a + b, 2 * sigma)
        return (np.min(a - b + root, axis=1) + np.min(b - a + root, axis=1)) / 2

    orders = [list(order) for order in itertools.permutations(range(m))]
    slowest = np.min([least(a[:, p], b[:, q]) for p in orders for q in orders], axis=0)
    ours = least(*map(np.asarray, jax.jit(jax.vmap(theory.tight_pairing))(a, b, sigma)))
    assert np.all(ours <= slowest * (1 + tolerance("float64")))
    if m == 2:
        assert abs(ours[0] - 0.73596) < 1e-5


def test_no_network_attains_the_bound_where_the_predicate_denies_it(rng):
    a, b, sigma = np.array([2.0, 1.0]), np.array([1.5, 0.5]), np.array([2.0, 0.5])
    problem, Theta = prescribed(a, b, sigma)
    start = theory.tight_start(problem, Theta, a, b, 4)
    # Every network with this D and the singular values of W: Z1 = L with L^T J L fixed, moved by O(2, 2).
    boosts, rotations = rng.normal(size=(2000, 2, 2)), rng.normal(size=(2000, 2, 2, 2))

    @jax.jit
    @jax.vmap
    def other(boost, rotation):
        generator = 0.5 * jnp.block([[rotation[0] - rotation[0].T, boost], [boost.T, rotation[1] - rotation[1].T]])
        Z = jax.scipy.linalg.expm(generator) @ jnp.concatenate([start.U, start.V])
        model = ld.TwoLayer(Z[:2], Z[2:])
        return theory.lemma7(model, problem).value, theory.rate_bound(model, problem).value

    rate, bound = other(boosts, rotations)
    assert np.all(rate >= bound * (1 - 1e-9))
    assert relative_error(theory.lemma7(start, problem).value, np.sqrt(13)) < tolerance("float64")
    assert relative_error(theory.rate_bound(start, problem).value, 3.385164807134504) < tolerance("float64")


def test_predicate_reports_narrow_networks_and_coloured_data(rng):
    narrow = ld.TwoLayer(rng.normal(size=(2, 3)), rng.normal(size=(2, 3)))
    wide = ld.TwoLayer(rng.normal(size=(2, 4)), rng.normal(size=(2, 4)))
    white, coloured = ld.factorization(np.ones((2, 2))), ld.LeastSquares(np.diag([2.0, 1.0]), np.ones((2, 2)))
    assert not bool(theory.tightness(narrow, white).applies)
    assert bool(theory.tightness(wide, white).applies)
    assert not bool(theory.tightness(wide, coloured).applies)
    assert bool(jax.jit(theory.tightness)(wide, ld.LeastSquares(3 * np.eye(2), np.ones((2, 2)))).applies)


def test_bad_pairings_are_refused():
    with pytest.raises(ValueError, match=r"`sigma` must have shape \(1,\), but has shape \(2,\)"):
        ld.theory.tight_pairing(np.ones(1), np.ones(2), np.ones(2))
    problem, Theta = prescribed([1.0], [1.0], [1.0])
    with pytest.raises(ValueError, match="must be at least r \\+ m = 2"):
        ld.theory.tight_start(problem, Theta, np.ones(1), np.ones(1), 1)
