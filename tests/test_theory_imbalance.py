"""The imbalance spectrum, its spreads and its level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Compiled, load_cases, relative_error, tolerance

import lindyn_jax as ld

theory = Compiled(ld.theory)

CASES = load_cases("m22")
SPECTRA = load_cases("imbalance_spectra")
RATES = [name for name, case in CASES.items() if case["item"] == 3 and "eig_D" in case["expected"]]


def reduced_problem(case):
    """A problem with X = diag(s), whose data coordinates are the given ones."""
    s = np.array(case["inputs"]["s"])
    return ld.LeastSquares(np.diag(s), s[:, None] * 0 + np.array(case["inputs"]["Ytilde"]))


def orient(problem, U1):
    """The first layer whose moving rows, in the problem's own signs, are U1."""
    return np.asarray(problem.from_data(jnp.asarray(U1)))


@pytest.mark.parametrize("name", SPECTRA)
def test_spectrum_keeps_its_digits_when_one_layer_is_much_smaller(name):
    case = SPECTRA[name]
    U1, V = np.array(case["U1"]), np.array(case["V"])
    problem = ld.factorization(np.ones((U1.shape[0], V.shape[0])))
    spectrum = np.asarray(theory.moving_spectrum(ld.TwoLayer(U1, V), problem))
    expected = np.array(case["spectrum"])
    # Entry by entry: a norm would be blind to the eigenvalues of V, which are 1e-12 of the largest.
    assert np.max(np.abs(spectrum / expected - 1)) < 1e-12


@pytest.mark.parametrize("name", RATES)
def test_imbalance_agrees_with_the_reference(name):
    case = CASES[name]
    U1, V, expected = np.array(case["inputs"]["U1"]), np.array(case["inputs"]["V"]), case["expected"]
    problem = reduced_problem(case)
    model = ld.TwoLayer(orient(problem, U1), V)
    plus, minus, level = theory.imbalance(model, problem)
    scale = max(1.0, np.max(np.abs(expected["eig_D"])))
    assert abs(plus - expected["Delta_plus"]) < 1e-13 * scale
    assert abs(minus - expected["Delta_minus"]) < 1e-13 * scale
    assert abs(level - expected["Delta"]) < 1e-13 * max(1.0, expected["Delta"])
    spectrum = np.asarray(theory.moving_spectrum(model, problem))
    zeros = np.zeros(len(expected["eig_D"]) - len(spectrum))
    assert relative_error(np.sort(np.concatenate([spectrum, zeros]))[::-1], expected["eig_D"]) < 1e-13


def test_spectrum_of_the_reparametrized_case_is_that_of_U1_and_not_of_U():
    case = CASES["reparam_fullrowrank_3x5"]
    problem = ld.LeastSquares(np.array(case["inputs"]["X"]), np.array(case["inputs"]["Y"]))
    model = ld.TwoLayer(np.array(case["inputs"]["U"]), np.array(case["inputs"]["V"]))
    assert relative_error(theory.moving_spectrum(model, problem), case["expected"]["eig_D_U1"]) < 1e-13
    assert relative_error(model.imbalance_spectrum(), case["expected"]["eig_D_full"]) < 1e-13


def test_spectrum_of_the_compressed_core_is_that_of_the_full_network():
    case = CASES["spectrum_LtJL"]
    Z = np.array(case["inputs"]["Z0"])
    r, m = case["inputs"]["r"], case["inputs"]["m"]
    problem = ld.factorization(np.ones((r, m)))
    assert (
        relative_error(theory.moving_spectrum(ld.TwoLayer(Z[:r], Z[r:]), problem), case["expected"]["eig_LtJL"]) < 1e-13
    )


@pytest.mark.parametrize("h", [1, 2, 4, 6, 9])
def test_reduced_rotated_and_padded_networks_have_the_same_imbalance(rng, h):
    X, Y = rng.normal(size=(6, 4)), rng.normal(size=(6, 2))
    problem = ld.LeastSquares(X, Y)
    U, V = rng.normal(size=(4, h)), rng.normal(size=(2, h))
    expected = theory.imbalance(ld.TwoLayer(U, V), problem)
    rotation = np.linalg.qr(rng.normal(size=(h + 3, h + 3)))[0][:h]
    U1 = np.asarray(problem.to_data(jnp.asarray(U)))
    padding = np.zeros((4, 7))
    for model in (
        ld.TwoLayer(U @ rotation, V @ rotation),
        ld.TwoLayer(np.hstack([padding, U, padding]), np.hstack([padding[:2], V, padding[:2]])),
        ld.Reduction(ld.TwoLayer(np.hstack([U1, padding]), np.hstack([V, padding[:2]])), width=h, num_frozen=0),
    ):
        assert relative_error(theory.imbalance(model, problem), np.array(expected)) < tolerance("float64")


def test_missing_eigenvalues_of_a_narrow_network_count_as_zero(rng):
    problem = ld.factorization(np.ones((3, 2)))
    U, V = rng.normal(size=(3, 8)), rng.normal(size=(2, 8))
    U[:, 1:], V[:, 1:] = 0, 0
    padded = ld.Reduction(ld.TwoLayer(U, V), width=1, num_frozen=0)
    for model in (ld.TwoLayer(U[:, :1], V[:, :1]), padded):
        edges = theory.spectrum_edges(model, problem)
        assert edges.positive_min == 0
        assert edges.negative_min == 0
        D = np.sum(U[:, 0] ** 2) - np.sum(V[:, 0] ** 2)
        assert relative_error(edges.positive_max - edges.negative_max, D) < tolerance("float64")


def test_scalar_network_has_no_spread_and_level_equal_to_the_difference_of_squares():
    problem = ld.factorization(np.array([[1.1]]))
    plus, minus, level = theory.imbalance(ld.TwoLayer(np.array([[0.8]]), np.array([[-0.3]])), problem)
    assert plus == 0
    assert minus == 0
    assert relative_error(level, CASES["scalar_generic"]["expected"]["d"]) < tolerance("float64")


def test_imbalance_has_a_finite_gradient_at_repeated_and_zero_eigenvalues():
    problem = ld.factorization(np.ones((2, 2)))

    def level(U):
        imbalance = theory.imbalance(ld.TwoLayer(U, jnp.zeros((2, 6))), problem)
        return imbalance.level + imbalance.plus + imbalance.minus

    repeated = jnp.eye(2, 6)
    slope = jax.jit(lambda U, along: (jax.grad(level)(U), jax.jvp(level, (U,), (along,))[1]))
    assert np.all(np.isfinite(slope(jnp.zeros((2, 6)), repeated)[0]))
    gradient, along = slope(repeated, repeated)
    # Both eigenvalues are the squared length, so the level grows by twice it.
    assert np.all(np.isfinite(gradient)) and relative_error(along, 2.0) < tolerance("float64")


def test_imbalance_is_batched_and_follows_the_dtype(rng, dtype):
    U, V = rng.normal(size=(5, 3, 7)).astype(dtype), rng.normal(size=(5, 2, 7)).astype(dtype)
    problem = ld.factorization(np.ones((3, 2), dtype))
    batched = jax.jit(jax.vmap(lambda U, V: theory.imbalance(ld.TwoLayer(U, V), problem)))(U, V)
    assert batched.level.dtype == dtype
    for i in range(5):
        D = U[i].astype(float).T @ U[i] - V[i].astype(float).T @ V[i]
        e = np.linalg.eigvalsh(D)[::-1]
        expected = [e[0] - e[2], e[-2] - e[-1], e[2] - e[-2]]
        assert relative_error([batched.plus[i], batched.minus[i], batched.level[i]], expected) < tolerance(dtype)


@pytest.mark.parametrize("h", [1, 2, 4, 5, 6, 9])
def test_number_of_conservation_laws_is_the_rank_of_the_map_to_the_imbalance(rng, h):
    r, m = 3, 2
    JZ = np.array([1.0] * r + [-1.0] * m)[:, None] * rng.normal(size=(r + m, h))
    # Z^T J Z moves by S + S^T with S = dZ^T J Z.
    S = np.swapaxes(np.eye((r + m) * h).reshape(-1, r + m, h), 1, 2) @ JZ
    rank = np.linalg.matrix_rank((S + np.swapaxes(S, 1, 2)).reshape(-1, h * h))
    assert theory.num_conservation_laws(r, m, h) == rank


def test_wrong_models_are_refused():
    problem = ld.LeastSquares(np.eye(3)[:2], np.ones((2, 2)))
    with pytest.raises(ValueError, match=r"\(U rows, V rows\) must be \(3, 2\), but is \(2, 2\)"):
        ld.theory.imbalance(ld.TwoLayer(np.ones((2, 4)), np.ones((2, 4))), problem)
    with pytest.raises(ValueError, match=r"\(U rows, V rows\) must be \(2, 2\), but is \(3, 2\)"):
        ld.theory.imbalance(ld.Reduction(ld.TwoLayer(np.ones((3, 4)), np.ones((2, 4))), 4, 1), problem)
    with pytest.raises(ValueError, match="does not know the frozen part"):
        ld.theory.coupling(ld.Reduction(ld.TwoLayer(np.ones((2, 4)), np.ones((2, 4))), 4, 1), problem)
    with pytest.raises(ValueError, match="must be positive, but are 0, 1 and 2"):
        ld.theory.num_conservation_laws(0, 1, 2)
