"""The lambda0 study and its command: what they compute, store, print and refuse."""

import json

import figure_data
import jax
import numpy as np
import pytest
from helpers import assert_fits

import lindyn_jax as ld
from lindyn_jax import plots
from lindyn_jax.cli._common import as_json
from lindyn_jax.studies import fit_lambda0 as study
from lindyn_jax.studies.simulate import random_target

ARGUMENTS = ("fit-lambda0", "--shape", "2,3", "--widths", "50,1e6", "--trials", "8", "--seed", "3")


@pytest.fixture(scope="module")
def problem():
    return ld.factorization(random_target(2, 3, seed=0))


@pytest.fixture(scope="module")
def command(call, tmp_path_factory):
    """One run of the command: its folder and what it printed."""
    out = tmp_path_factory.mktemp("study") / "out"
    code, printed, notes = call(*ARGUMENTS, "--out", out)
    assert code == 0, notes
    return out, printed, notes


@pytest.fixture(scope="module", params=["stored", pytest.param("computed", marks=pytest.mark.slow)])
def dataset(request, problem):
    """What the command computes: now, or stored by `figure_data.save("study-fit-lambda0", dataset)`."""
    if request.param == "stored":
        return figure_data.load("study-fit-lambda0")
    return study.label(study.FitLambda0(problem, (50.0, 1e6)).run(8, seed=3))


def test_the_table_fits_screens_of_80_columns_with_its_keys(problem, dataset):
    chosen = study.FitLambda0(problem, (50.0, 1e6))
    assert_fits(chosen.table(chosen.summarise(dataset)), "width")


@pytest.mark.slow
def test_command_writes_store_table_and_figure(command, problem, dataset):
    out, printed, notes = command
    # What is stored is what is computed, up to the tolerance of an adaptive solver elsewhere.
    computed = study.label(ld.open_sweep(out).load())
    assert set(computed.variables) == {*dataset.variables, "computed"}
    for name in ("lambda0", "objective", "wide_objective", "imbalance_spectrum", "time", "error", "singular_values"):
        np.testing.assert_allclose(computed[name], dataset[name], rtol=1e-5)
    assert {path.name for path in out.iterdir()} == {"sweep.zarr", "figure.png", "figure.pdf"}
    assert "lambda0 > 0" in printed and "closer to the flow" in printed
    assert "16 of 16 trials" in notes
    assert dict(dataset["lambda0"].sizes) == {"width": 2, "trial": 8, "sign": 2}
    assert dataset["lambda0"].attrs["long_name"] == "fitted imbalance level"
    values = json.loads(json.dumps(as_json(study.summarise(dataset, problem))))
    assert values["width"] == [50, 1e6] and np.shape(values["lambda0_mean"]) == (2, 2)
    assert values["trials"] == [8, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--widths", "1"), "at best"),
        (("--std", "0"), "std must be a positive number"),
        (("--method", "guess"), "'closed', 'riccati', 'flow'"),
        (("--trials", "0"), "--trials must be at least 1"),
        (("--data", "gaussian", "--draw-target"), "needs matrix factorization"),
        (("--horizon", "-1"), "horizon must be a positive number"),
    ],
)
def test_bad_input_gets_one_sentence_and_writes_nothing(call, tmp_path, options, message):
    code, printed, error = call(*ARGUMENTS, *options, "--out", tmp_path / "out")
    assert (code, printed) == (2, "")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_a_trial_is_that_of_its_key(problem, dataset):
    key = jax.random.fold_in(jax.random.key(3), 2)
    start = ld.init.gaussian_core(problem, 50.0, std=1.0, num_frozen=0, key=jax.random.split(key)[1])
    row = dataset.isel(width=0, trial=2)
    np.testing.assert_allclose(row["imbalance_spectrum"], ld.observables.imbalance_spectrum(start, problem), rtol=1e-9)
    # All three paths begin at the start; the flow ends at the relative error.
    np.testing.assert_allclose(row["error"][:, 0], ld.observables.reconstruction_error(start, problem), rtol=1e-9)
    # The fit's flow is accurate to 1e-9 of either layer, and so are its products.
    accuracy = 1e-9 * np.linalg.norm(start.U1) * np.linalg.norm(start.V) / np.linalg.norm(problem.Ytil)
    np.testing.assert_allclose(row["error"].sel(path="flow")[-1], 1e-3, rtol=0, atol=float(accuracy))


def test_homogeneous_imbalance_is_closer_when_narrow_and_the_wide_limit_when_wide(problem, dataset):
    assert bool(dataset["ok"].all())
    summary = study.summarise(dataset, problem)
    assert list(summary["wide_better"].values) == [0, 1]
    assert float(summary["root_wide"].sel(width=1e6)) < 0.003
    # Both signs tend to the same multiple of the eigenvalues of Q0, which tend to the width.
    over = summary["over_spectrum"].sel(width=1e6).values
    np.testing.assert_allclose(over, summary["over_width"].sel(width=1e6).values * [1, -1], rtol=0.01)
    np.testing.assert_allclose(summary["lambda0_se"], summary["lambda0_sd"] / np.sqrt(8))


def test_figure_shows_the_three_paths(problem, dataset):
    figure = plots.fit_lambda0(dataset, study.summarise(dataset, problem), "title")
    error, values, mismatch = figure.axes
    assert len([line for line in error.lines if len(line.get_xdata())]) == 6
    assert len(values.lines) == 6 and len(mismatch.lines) == 3
    assert [text.get_text() for text in mismatch.get_legend().get_texts()][-1] == "wide limit"


def test_targets_are_drawn_for_factorization_only(problem):
    settings = study.Settings(draw_target=True)
    study.FitLambda0(problem, (3.0,), settings).check()
    outputs = jax.eval_shape(study.FitLambda0(problem, (50.0,), settings).trial, jax.random.key(0), 50.0)
    assert outputs["singular_values"].shape == (3, 49, 2)
    with pytest.raises(ValueError, match="needs matrix factorization"):
        study.FitLambda0(ld.LeastSquares(np.eye(3), np.ones((3, 2))), (50.0,), settings).check()
