"""Models: products, velocities, spectra, and what they refuse."""

import inspect

import jax
import numpy as np
import pytest
from helpers import relative_error, tolerance

import lindyn_jax as ld

n, m, h = 4, 3, 6


@pytest.fixture
def problem(rng):
    return ld.LeastSquares(rng.normal(size=(5, n)), rng.normal(size=(5, m)), scale="mean")


def velocity_gap(model, problem):
    """Difference between the velocity and minus the automatic gradient of the loss."""
    gradient = jax.grad(lambda model: problem.loss(model.product()))(model)
    pairs = zip(jax.tree.leaves(model.velocity(problem)), jax.tree.leaves(gradient), strict=True)
    return max(relative_error(v, -g) for v, g in pairs)


def test_velocities_are_minus_the_gradient(problem, rng):
    assert velocity_gap(ld.LinearModel(rng.normal(size=(n, m))), problem) < tolerance("float64")
    assert velocity_gap(ld.TwoLayer(rng.normal(size=(n, h)), rng.normal(size=(m, h))), problem) < tolerance("float64")
    square = ld.LeastSquares(problem.X, rng.normal(size=(5, n)))  # and not symmetric
    assert velocity_gap(ld.SymmetricFactors(rng.normal(size=(n, h))), square) < tolerance("float64")


def test_the_reduced_velocity_is_the_full_one_in_its_coordinates(problem, rng):
    model = ld.TwoLayer(rng.normal(size=(n, 20)), rng.normal(size=(m, 20)))
    reduced = ld.reduce(model, problem)
    small, full, Q = reduced.velocity(problem), model.velocity(problem), reduced.bases.hidden[0]
    assert relative_error(small.V @ Q.T, full.V) < tolerance("float64")
    assert relative_error(reduced.bases.Phi1 @ small.U1 @ Q.T, full.U) < tolerance("float64")
    assert float(small.width) == 0 and float(small.num_frozen) == 0


def test_products_and_widths(rng):
    U, V = rng.normal(size=(n, h)), rng.normal(size=(m, h))
    two = ld.TwoLayer(U, V)
    assert two.width == h and relative_error(two.product(), U @ V.T) < tolerance("float64")
    tied = ld.SymmetricFactors(U)
    assert tied.width == h and relative_error(tied.product(), U @ U.T) < tolerance("float64")
    assert relative_error(ld.LinearModel(U).product(), U) == 0


@pytest.mark.parametrize("width", [3, 7, 15])
def test_imbalance_spectrum_agrees_with_the_dense_matrix(width, rng):
    U, V = rng.normal(size=(n, width)), rng.normal(size=(m, width))
    spectrum = np.asarray(ld.TwoLayer(U, V).imbalance_spectrum())
    assert spectrum.shape == (min(width, n + m),) and np.all(np.diff(spectrum) <= 0)
    dense = np.linalg.eigvalsh(U.T @ U - V.T @ V)
    padded = np.sort(np.concatenate([spectrum, np.zeros(width - len(spectrum))]))
    assert relative_error(padded, dense) < tolerance("float64")


def test_dtypes_are_shared():
    model = ld.TwoLayer(np.ones((n, h), np.float32), np.ones((m, h), np.float64))
    assert model.U.dtype == model.V.dtype == np.float64


@pytest.mark.parametrize(
    ("kind", "arguments", "match"),
    [
        (
            "LinearModel",
            (np.ones(n),),
            r"`Theta` must have shape \(n, m\), but has shape \(4,\); .* `Theta\[:, None\]`",
        ),
        ("SymmetricFactors", (np.ones((n, 0)),), r"`U` must have shape \(n, h\) with no empty axis"),
        ("TwoLayer", (np.ones((n, h)), np.ones((m, h + 1))), "must have the same width h, but have 6 and 7"),
        ("TwoLayer", (np.ones((n, h)), np.ones((m, h, 1))), r"`V` must have shape \(m, h\), but has shape \(3, 6, 1\)"),
        ("TwoLayer", ("words", np.ones((m, h))), "`U` must be an array of numbers, but is str"),
    ],
)
def test_bad_weights_are_refused(kind, arguments, match):
    kind = getattr(ld, kind)
    with pytest.raises(ValueError, match=match):
        inspect.unwrap(kind.__init__)(object.__new__(kind), *arguments)
