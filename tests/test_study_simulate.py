"""One trajectory: the starts are what they promise, the dataset holds what the solvers return, and it can be read back."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr
from helpers import assert_fits, relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax import init, plots
from lindyn_jax.studies.simulate import (
    as_core,
    default_horizon,
    random_target,
    save,
    simulate,
)

r, m, n = 3, 2, 7


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(5)
    return ld.LeastSquares(rng.normal(size=(r, n)), rng.normal(size=(r, m)))


@pytest.fixture(scope="module")
def everything(problem):
    return simulate(problem, init.Gaussian(40, std=(0.5, 0.2)), points=7, observables=("all",), solver="tsit5", seed=3)


SECTION = (Path(__file__).parent.parent / ".docs/pages/how-to/trajectory-and-audit.md").read_text()
PAGE = re.search(r"^lindyn-jax (simulate .*)$", SECTION, re.M).group(1).split()


@pytest.fixture(scope="module")
def command(call, tmp_path_factory):
    """The folder that the command of the page writes, what it prints and notes, and its dataset."""
    out = tmp_path_factory.mktemp("simulate") / "out"
    code, printed, notes = call(*PAGE, "--out", out)
    assert code == 0
    with xr.open_zarr(out / "trajectory.zarr", consolidated=False) as read:
        return out, printed, notes, read.load()


@pytest.fixture(params=["command", pytest.param("everything", marks=pytest.mark.slow)])
def dataset(request):
    found = request.getfixturevalue(request.param)
    return found[-1] if request.param == "command" else found


def test_the_table_fits_screens_of_80_columns_with_its_keys(problem, dataset):
    assert_fits(ld.studies.Simulate(problem, init.Gaussian(40)).table(dataset), "time")


# -- starts ------------------------------------------------------------------------------------------------------------


def test_kinds_of_start_share_their_product_and_differ_in_their_imbalance(problem):
    positive, negative = (3.0, 2.0, 0.5), (1.0, 0.25)
    kinds = (
        init.Gaussian(50, std=(0.5, 0.2)),
        init.Gaussian(50, std=(0.05, 2.0)),
        init.Balanced(50, std=(0.5, 0.2)),
        init.Imbalance(50, std=(0.5, 0.2), positive=positive, negative=negative),
    )
    drawn = jax.jit(lambda key: [kind.draw(problem, key=key) for kind in kinds])(jax.random.key(2))
    gaussian, other, balanced, given = drawn
    for start in (other, balanced, given):
        assert start.U1.shape == (r, r + m)
        assert float(start.width) == 50
        assert relative_error(start.product(), gaussian.product()) < tolerance("float64")
    spectra = [np.asarray(ld.theory.moving_spectrum(start, problem)) for start in drawn]
    assert relative_error(spectra[0], spectra[1]) > 0.1
    assert np.max(np.abs(spectra[2])) < tolerance("float64")
    assert relative_error(spectra[3], np.sort([*positive, *(-np.array(negative))])[::-1]) < tolerance("float64")
    # The balanced start also has the product's part outside the range of the data.
    outside = [ld.observables.frozen_product_norm(start, problem) for start in (gaussian, balanced, given)]
    assert relative_error(outside[1], outside[0]) < tolerance("float64")
    assert outside[2] == 0


def test_spectral_start_is_aligned_with_the_correlation_of_the_data():
    target = random_target(4, 3, seed=1)
    problem = ld.factorization(target)
    core = init.Spectral(1e9, u0=(0.3, 0.2), v0=0.1).draw(problem, key=jax.random.key(0))
    full = ld.init.spectral(target, np.array([0.3, 0.2]), np.array([0.1, 0.1]), 7)
    assert relative_error(core.product(), full.product()) < tolerance("float64")
    assert relative_error(core.V @ core.V.T, full.V @ full.V.T) < tolerance("float64")
    every = init.Spectral(9, u0=0.3, v0=0.1).draw(problem, key=jax.random.key(0))
    assert np.linalg.matrix_rank(every.product()) == 3


@pytest.mark.parametrize("h", [2, 11])
def test_a_padded_core_is_the_network_it_came_from(h, problem, rng):
    model = ld.TwoLayer(rng.normal(size=(n, h)), rng.normal(size=(m, h)))
    core = as_core(model, problem)
    assert core.V.shape == (m, r + m)
    for observable in (ld.observables.distance_to_theta_hat, ld.observables.frozen_product_norm, ld.theory.imbalance):
        assert relative_error(observable(core, problem), observable(model, problem)) < tolerance("float64", 10)


def test_labels_tell_starts_apart():
    assert init.Gaussian(100).label() == "gaussian, h = 100, alpha = 0.5"
    assert init.Imbalance(9, std=(1, 2.0), positive=3, negative=(1, 2)).label() == (
        "imbalance, h = 9, std = 1, 2, D = +3, -1, 2"
    )
    assert init.Spectral(1e9).label() == "spectral, h = 1e+09, u0 = 0.1, v0 = 0.1"


BAD_STARTS = {
    "wide for its imbalance": (
        init.Balanced(9, lambda0=1.0),
        "`lambda0` = 1 needs a width of at most r = 3, for every",
    ),
    "zero": (init.Balanced(9, std=(0.3, 0)), "product of the start is zero, and so are balanced layers"),
    "scaling": (init.Scaled("mean", 9), "`name` must be one of 'xavier'"),
    "fraction": (init.Gaussian(2.5), "whole number from 1 to 1e12, but is 2.5"),
    "too wide": (init.Gaussian(1e13), "whole number from 1 to 1e12"),
    "narrow": (init.Balanced(1), r"needs a width of at least min\(r, m\) = 2, not 1"),
    "narrow imbalance": (init.Imbalance(4), r"needs a width of at least r \+ m = 5, not 4"),
    "both": (init.Gaussian(100, std=1.0, alpha=0.5), "only one of `std` and `alpha`"),
    "negative std": (init.Gaussian(100, std=(1.0, -1.0)), "`std` must be a positive number"),
    "three stds": (init.Gaussian(100, std=(1.0, 1.0, 1.0)), "one number, or one for U and one for V, but has 3"),
    "exponent": (init.Gaussian(100, alpha=-0.5), "`alpha` must be a positive number"),
    "saddle": (init.Gaussian(1e12, alpha=50), "saddle at zero"),
    "positive": (init.Imbalance(100, positive=(1.0, 2.0)), "`positive` must be one number or 3 of them, but has 2"),
    "sign": (init.Imbalance(100, negative=-1.0), "its sign is understood"),
    "modes": (init.Spectral(100, u0=(1.0, 1.0, 1.0)), r"one length up to min\(r, m, h\) = 2"),
    "no modes": (init.Spectral(100, u0=0.0, v0=0.0), "saddle"),
}


@pytest.mark.parametrize("name", BAD_STARTS)
def test_starts_that_do_not_exist_are_refused(problem, name):
    start, match = BAD_STARTS[name]
    with pytest.raises(ValueError, match=match):
        start.check(problem)


# -- trajectories --------------------------------------------------------------------------------------------------------


def test_flow_of_a_given_network_is_that_of_the_solver_at_times_that_fit_the_data(rng):
    # Ill-conditioned data are looked at over six decades of time.
    problem = ld.LeastSquares(np.diag([20.0, 5.0, 1.0]) @ np.eye(r, n), rng.normal(size=(r, m)))
    start = ld.TwoLayer(rng.normal(size=(n, 9)), rng.normal(size=(m, 9)))
    how = {"observables": ("loss", "singular_values"), "solver": "tsit5"}
    dataset = simulate(problem, start, horizon=1.0, points=4, **how)
    times = np.array([0, 1e-6, 1e-3, 1])
    direct = ld.gradient_flow(start, problem, times, **how)
    assert list(dataset.data_vars) == ["loss", "singular_values"]
    np.testing.assert_allclose(dataset["time"], times, rtol=1e-12)
    for name in dataset.data_vars:
        assert relative_error(dataset[name], direct.observables[name]) < tolerance("float64")
    assert dataset.attrs["ok"] == 1
    assert dataset.attrs["start"] == "TwoLayer of width 9"


def test_default_horizon_ends_near_the_minimum(problem, everything):
    loss = everything["excess_loss"].values
    assert 1e-12 < loss[-1] / loss[0] < 1e-5
    # A start ten thousand times smaller waits longer, by the logarithm of that.
    core = ld.Reduction(ld.TwoLayer(np.eye(r, r + m), np.eye(m, r + m)), 40, n - r)
    small, large = (
        float(default_horizon(ld.Reduction(ld.TwoLayer(s * core.U1, s * core.V), 40, n - r), problem))
        for s in (1e-2, 1.0)
    )
    assert 1.2 * large < small < 10 * large


def test_rate_is_above_its_bounds_and_is_the_slope_of_the_loss(everything):
    assert np.all(everything["rate"] >= everything["lemma7"] * (1 - 1e-9))
    assert np.all(everything["lemma7"] >= everything["rate_bound"] * (1 - 1e-9))
    # The mean slope between two times lies between the rates there, which fall.
    slope = -np.diff(np.log(everything["excess_loss"])) / np.diff(everything["time"])
    rate = everything["rate"].values
    assert np.all((slope[1:] < rate[1:-1]) & (slope[1:] > rate[2:]))


def test_descent_counts_its_time_in_steps_and_ends_where_it_stops(problem, rng):
    start = ld.TwoLayer(rng.normal(size=(n, 9)), rng.normal(size=(m, 9)))
    dataset = simulate(problem, start, dynamics="descent", step_size=5e-3, horizon=5.0, points=9, stop=1e-3)
    steps = dataset["step"].values
    np.testing.assert_allclose(dataset["time"], 5e-3 * steps, rtol=1e-12)
    assert dataset.attrs["result"].startswith("stopped")
    assert steps[-1] == dataset.attrs["num_steps"] < 1000
    loss = dataset["excess_loss"].values
    assert loss[-1] <= 1e-3 * loss[0] < loss[-2]
    # The same by hand.
    X, Y, U, V = (np.asarray(array) for array in (problem.X, problem.Y, start.U, start.V))
    for _ in range(steps[-1]):
        G = X.T @ (X @ U @ V.T - Y)
        U, V = U - 5e-3 * G @ V, V - 5e-3 * G.T @ U
    assert relative_error(loss[-1], np.sum((X @ U @ V.T - Y) ** 2) / 2) < tolerance("float64", 10)


def test_divergence_is_reported_and_what_came_before_is_kept(problem):
    start = ld.TwoLayer(np.ones((n, 4)), np.eye(m, 4))
    dataset = simulate(
        problem, start, dynamics="descent", step_size=5.0, horizon=500.0, points=101, observables=("loss",)
    )
    assert dataset.attrs["ok"] == 0
    stable = float(ld.stable_step(start, problem))
    assert dataset.attrs["result"].startswith("diverged")
    assert dataset.attrs["result"].endswith(f"; the step is 5, and `stable` is {stable:.3g}") and stable < 2.5
    assert dataset.attrs["num_steps"] < 100
    assert np.isfinite(dataset["loss"].values[:2]).all()


def test_trajectory_is_read_back_from_csv_and_zarr(dataset, tmp_path):
    csv, store = save(dataset, tmp_path / "out")
    table = np.genfromtxt(csv, delimiter=",", names=True)
    assert np.array_equal(table["loss"], dataset["loss"])
    for name, values in dataset.items():
        if values.ndim == 2:
            assert np.array_equal(table[f"{name}_2"], values[:, 1])
    with xr.open_zarr(store, consolidated=False) as read:
        xr.testing.assert_equal(read.load(), dataset)
        assert read.attrs["num_steps"] == dataset.attrs["num_steps"]
        assert read["rate"].attrs["source"] == "M22 App. C"
    save(dataset, tmp_path / "out")


def test_all_observables_are_drawn(everything, tmp_path):
    paths = plots.save(plots.trajectory(everything, "a title"), tmp_path / "out")
    assert all(path.stat().st_size > 5000 for path in paths)


def test_bad_settings_are_refused(problem):
    start = ld.TwoLayer(np.ones((n, 4)), np.eye(m, 4))
    for options, match in (
        ({"dynamics": "walk"}, "'flow', 'descent'"),
        ({"observables": ("speed",)}, "'loss', 'excess_loss'"),
        ({"observables": ()}, "at least one observable"),
        ({"points": 1}, "must be at least 2"),
        ({"horizon": -1.0}, "`horizon` must be a positive number"),
        ({"spacing": "random"}, "'auto', 'linear', 'log'"),
        ({"max_steps": 0}, "`max_steps` must be at least 1"),
        ({"dynamics": "descent", "step_size": -1.0}, "`step_size` must be a positive number"),
        ({"dynamics": "descent", "step_size": 1e-9, "horizon": 1.0}, r"takes 1e\+09 steps, more than the budget"),
        (
            {"dynamics": "descent", "horizon": 99.0, "max_steps": 1},
            "the condition number .*: scale the columns of X alike",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            simulate.__wrapped__(problem, start, **options)
    with pytest.raises(ValueError, match="sets no time scale"):
        simulate(ld.factorization(np.zeros((3, 2))), ld.TwoLayer(np.eye(3, 2), np.eye(2)))


# -- the command ---------------------------------------------------------------------------------------------------------


COMMAND = (
    "simulate",
    "--data",
    "factorization",
    "--shape",
    "3,2",
    "--width",
    "20",
    "--points",
    "5",
    "--seed",
    "4",
    "--solver",
    "tsit5",
)


def test_command_of_the_page_prints_what_it_shows_and_writes_csv_dataset_and_figure(command):
    shown = re.search(r"```text\n(.*?)```", SECTION, re.S).group(1)
    out, printed, notes, _ = command
    assert "3 x 2 target" in notes
    number = r"\d+\.?\d*(?:e[+-]?\d+)?"
    assert len(shown.split()) > 30
    # Rules are as long as the table is wide.
    printed, shown = (text.replace("─", "") for text in (printed[: printed.index("written:")], shown))
    assert re.sub(number, "#", printed).split() == re.sub(number, "#", shown).split()
    values, expected = ([float(x) for x in re.findall(number, text)] for text in (printed, shown))
    # Five digits are shown; the number of steps may differ by one.
    np.testing.assert_allclose(values[:-1], expected[:-1], rtol=1e-4)
    assert abs(values[-1] - expected[-1]) <= 1
    assert {path.name for path in out.iterdir()} == {"trajectory.csv", "trajectory.zarr", "figure.png", "figure.pdf"}


def test_command_prints_what_it_writes_as_json(call, tmp_path):
    code, printed, _ = call(*PAGE, "--out", tmp_path / "out", "--json")
    summary = json.loads(printed)["summary"]
    assert code == 0
    assert np.shape(summary["rate"]) == (5,)
    table = np.genfromtxt(tmp_path / "out" / "trajectory.csv", delimiter=",", names=True)
    assert table["loss"].tolist() == summary["loss"]


def test_command_fails_when_the_run_does(call, tmp_path):
    code, printed, notes = call(
        *COMMAND[:-2],
        "--dynamics",
        "descent",
        "--step-size",
        9,
        "--until",
        900,
        "--observables",
        "loss",
        "--out",
        tmp_path / "out",
    )
    assert code == 1
    assert "diverged" in printed
    assert "The run failed" in notes


BAD = {
    "start": (["--start", "uniform"], "'gaussian', 'balanced', 'spectral', 'imbalance'"),
    "width": (["--width", "0"], "whole number from 1 to 1e12"),
    "scale twice": (["--std", "1", "--alpha", "0.5"], "only one of `std` and `alpha`"),
    "words for std": (["--std", "big"], "--std must be numbers"),
    "until": (["--until", "0"], "--horizon must be a positive number"),
    "step size": (["--step-size", "small"], "--step-size must be a number or stable"),
    "solver": (["--solver", "euler"], "'auto'"),
    "stop": (["--stop", "2"], "must lie in (0, 1)"),
    "shape": (["--shape", "3"], "two whole numbers such as 5,10"),
    "centre": (["--centre"], "leave it out with --data factorization"),
    "data": (["--data", "digitz"], "digitz"),
    "loss scale": (["--loss-scale", "median"], "'sum', 'mean', 'averaged'"),
    "observable": (["--observables", "speed"], "but is 'speed'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence_and_exit_code_2_and_writes_nothing(call, tmp_path, name):
    arguments, sentence = BAD[name]
    out = tmp_path / "out"
    code, printed, error = call(*COMMAND, *arguments, "--out", out)
    assert (code, printed) == (2, "")
    assert sentence in error
    assert "Traceback" not in error
    assert not out.exists()


def test_a_folder_with_other_things_is_left_alone(call, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    code, _, error = call(*COMMAND, "--out", tmp_path / "mine")
    assert code == 2
    assert "holds no saved trajectory" in error
    code, _, error = call(*COMMAND, "--out", tmp_path / "mine" / "thesis.txt")
    assert code == 2
    assert "is a file" in error
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
