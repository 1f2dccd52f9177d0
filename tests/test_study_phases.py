"""The phases study: its corners, its limits of infinite width, its numbers against computations of their own, and its command."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_fits

import lindyn_jax as ld
from lindyn_jax.studies.phases import Phases, Settings

SMALL = {"shape": (8.0, 8.0), "rank": 1}


@pytest.fixture(scope="module")
def study():
    # Levels from 5e-6 to 1250, of a teacher of norm 1.
    return Phases(**SMALL, imbalances=(0.0, 0.6), scales=(1e-3, 0.03, 0.5), widths=(40.0, 4e4))


RUN = ("sweep", "phases", "--shape", "8,8", "--rank", "1", "--imbalances=0,0.6", "--scales", "0.001,0.03,0.5")
RUN += ("--widths", "40,4e4", "--trials", "4", "--seed", "1", "--keep-trials", "--solver", "tsit5")


@pytest.fixture(scope="module")
def command(call, tmp_path_factory):
    """The folder and the output of the command for the same study."""
    out = tmp_path_factory.mktemp("phases") / "out"
    code, printed, notes = call(*RUN, "--out", out)
    assert code == 0, notes
    return out, printed


@pytest.fixture(scope="module")
def trials(command):
    return ld.open_sweep(command[0]).load()


@pytest.fixture(scope="module")
def summary(study, trials):
    return study.summarise(trials)


def test_the_table_fits_screens_of_80_columns_with_its_keys(study, summary):
    assert_fits(study.table(summary), "imbalance", "scale", "width")


def test_lazy_corners_keep_the_kernel_and_rich_ones_turn_it(trials, summary):
    assert bool(trials["ok"].all())
    summary = summary.sel(imbalance=0.0)
    kernel, best = summary["kernel_distance_mean"].values, summary["best_test_error_mean"].values
    level = summary["level"].values
    assert np.all(kernel[level < 1e-2] > 0.2) and np.all(kernel[level > 4] < 5e-3)
    # A teacher of low rank is learned better where the kernel turns, and later.
    assert best[level < 1e-2].max() < 0.8 * best[level > 4].min()
    times = summary["time_mean"].values
    assert times[level < 1e-2].min() > 10 * times[level > 4].max()


def test_imbalance_makes_small_starts_lazy(trials):
    # |u|^2 = .6 whatever the scale: the level of 40 neurons is above the teacher.
    kernel = trials["kernel_distance"].mean("trial").sel(width=40.0, scale=1e-3).values
    assert kernel[0] > 0.2 and kernel[1] < 0.05


def test_widest_starts_of_one_level_have_one_path():
    h, n = 1e10, 8
    u = 0.8 * n / h
    even = Phases(**SMALL, scales=((u * u) ** 0.25,), widths=(h,))
    # The same level c = h (u + v)/2n from neurons with nine tenths of their weight on one side.
    other = Phases(**SMALL, scales=((1.8 * u * 0.2 * u) ** 0.25,), imbalances=(1.6 * u,), widths=(h,))
    one, two = (study.run(3, keep_trials=True).isel(imbalance=0, scale=0, width=0) for study in (even, other))
    np.testing.assert_allclose(float(other.level(1.6 * u, other.scales[0], h)), 0.8, rtol=1e-12)
    for name in ("time", "kernel_distance", "best_time", "best_test_error", "test_error"):
        np.testing.assert_allclose(one[name], two[name], rtol=1e-3)
    # It is that of the wide limit, whose kernel is a function of the product.
    for trial in range(3):
        key_teacher, key_data, *_ = jax.random.split(jax.random.fold_in(jax.random.key(0), trial), 4)
        teacher, problem = even._draw(key_teacher, key_data)
        found, stop = one.isel(trial=trial), 0.2 * problem.excess_loss(jnp.zeros((n, n)))
        start = ld.WideLimit(jnp.zeros((n, n)), 0.8)
        path = ld.gradient_flow(start, problem, [float(found["time"])], rtol=1e-8)
        turn = ld.observables.kernel_distance(path.final, problem, start)
        error = np.sum((np.asarray(path.final.product()) - np.asarray(teacher)) ** 2)
        np.testing.assert_allclose(path.final_observables["loss"], stop, rtol=2e-3)
        np.testing.assert_allclose(found["kernel_distance"], turn, rtol=0.01)
        np.testing.assert_allclose(found["test_error"], error, rtol=1e-3)


def test_few_samples_leave_what_the_start_had_where_they_do_not_see():
    # Test errors of the lazy end: half of the teacher is not seen, and there the start stays.
    study = Phases(
        shape=(40.0, 2.0),
        rank=1,
        samples=20,
        noise=0.0,
        scales=(0.02, 1.0),
        widths=(1e6,),
        settings=Settings(1e-3),
    )
    error = study.summarise(study.run(40))["test_error_mean"]
    small, large = error.values.ravel()
    assert 0.35 < small < 0.6
    # ||U2 V^T||^2 of a start with ||U V^T||^2 = h scale^4 on average.
    np.testing.assert_allclose(large, 0.5 * 1e6, rtol=0.2)


@pytest.mark.slow
def test_corners_of_the_published_diagram_at_full_size():
    # 200 x 200, rank 5, noise of the teacher's size: the ends of both axes of Tu, Aranguri and Jacot (2024).
    ends = {"scales": (200**-1.1, 200**-0.4), "widths": (float(int(200**1.75)), float(int(200**2.8)))}
    study = Phases(shape=(200.0, 200.0), rank=5, **ends, settings=Settings(points=30, rtol=1e-4))
    trials = study.run(2, keep_trials=True)
    assert bool(trials["ok"].all())
    corner = trials.mean("trial").isel(imbalance=0)
    rich, lazy = corner.isel(scale=0, width=0), corner.isel(scale=1, width=1)
    assert 0.04 < rich["best_test_error"] < 0.07 and lazy["best_test_error"] > 0.5
    assert rich["kernel_distance"] > 0.4 and lazy["kernel_distance"] < 1e-6
    assert 4 < rich["stable_rank"] < 5.5 and lazy["stable_rank"] > 7
    assert rich["time"] > 1000 * lazy["time"]


WRONG = {
    "rank": (["--rank", "21"], "lies between 1 and 20"),
    "shape": (["--shape", "20"], "two whole numbers"),
    "samples": (["--samples", "0"], "Option --samples must be at least 1"),
    "noise": (["--noise", "-1"], "Option --noise must be at least 0"),
    "twice": (["--scales", "0.1,0.1"], "scales must be different"),
    "scale": (["--scales", "0,1"], "Scales must lie between 1e-30 and 1e30"),
    "width": (["--widths", "0.5"], "whole numbers from 1 to 1e12"),
    "solver": (["--solver", "radau"], "'radau' is not one of 'auto', 'tsit5'"),
    "points": (["--points", "1"], "Option --points must be at least 2"),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_gets_one_sentence_and_writes_nothing(call, tmp_path, name):
    arguments, sentence = WRONG[name]
    code, printed, error = call("sweep", "phases", *arguments, "--out", tmp_path / "out")
    assert (code, printed) == (2, "") and not (tmp_path / "out").exists()
    assert sentence in error and len(error.strip().splitlines()) == 1


def test_command_draws_maps(command):
    out, printed = command
    assert "Lazy and rich" in printed and (out / "figure.png").stat().st_size > 10_000


def test_command_resumes(call, command):
    out = command[0]
    code, printed, notes = call(*RUN, "--out", out, "--json")
    assert code == 0 and "resuming: 48 of 48 trials" in notes
    summary = json.loads(printed)["summary"]
    assert np.shape(summary["kernel_distance_mean"]) == np.shape(summary["level"]) == (2, 3, 2)
    code, _, error = call(*RUN, "--rank", "2", "--out", out)
    assert code == 2 and "rank is 1 there and 2 here" in error


@pytest.mark.parametrize("axes", [{}, {"widths": (10.0, 100.0)}, {"scales": (0.1,), "imbalances": (-0.1, 0.1)}])
def test_pictures_of_fewer_axes(axes):
    study = Phases(**SMALL, **{"scales": (0.01,), "widths": (10.0,)} | axes)
    dims = {name: len(values) for name, values in study.grid().items()}
    import xarray as xr

    shape = tuple(dims.values())
    arrays = {f"{name}_mean": (tuple(dims), np.ones(shape)) for name in ld.plots.phases.__globals__["MAPS"]}
    summary = xr.Dataset(
        {**arrays, "level": (tuple(dims), np.ones(shape))},
        coords={name: list(values) for name, values in study.grid().items()},
        attrs={"strength": 1.0},
    )
    figure = ld.plots.phases(summary, "title")
    assert len(figure.axes) == 2 * 3 and np.allclose(figure.axes[0].images[0].get_array(), 1)
