"""The completion study: its masks, its numbers against computations of their own, its inputs, and its command."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_fits

import lindyn_jax as ld
from lindyn_jax import data
from lindyn_jax.studies import _completing
from lindyn_jax.studies.completion import EVENTS, Completion, Settings

SMALL = {"shape": (8.0, 7.0), "rank": 1}
GRID = {"depths": ("1", "2", "3", "wide-limit"), "fractions": (0.6,), "scales": (1e-3,), "widths": (1e3,)}
# The command for a matrix of the user's, of which two entries are not known.
GIVEN = np.outer(np.arange(1.0, 9), np.arange(1.0, 7)) / 10
GIVEN[2, 3] = GIVEN[5, 1] = np.nan
OPTIONS = {"depths": ("2", "wide-limit"), "fractions": (0.6, 0.8), "scales": (1e-3,), "widths": (1e3,)}
RUN = (
    "sweep",
    "completion",
    "--depths",
    "2,wide-limit",
    "--fractions",
    "0.6,0.8",
    "--scales",
    "1e-3",
    "--widths",
    "1e3",
)
RUN += ("--trials", "4", "--keep-trials")


@pytest.fixture(scope="module")
def study():
    return Completion(target=GIVEN, **OPTIONS)


@pytest.fixture(scope="module")
def command(call, tmp_path_factory):
    """The arguments of the command, its folder, and what it prints and notes."""
    folder = tmp_path_factory.mktemp("completion")
    rows = [",".join("" if np.isnan(v) else repr(v) for v in row) for row in GIVEN.tolist()]
    (folder / "mine.csv").write_text("\n".join(rows))
    run = (*RUN, "--data", folder / "mine.csv", "--out", folder / "out")
    code, printed, notes = call(*run)
    assert code == 0, notes
    return run, folder / "out", printed, notes


@pytest.fixture(scope="module")
def store(command):
    return command[1]


@pytest.fixture(scope="module")
def every_depth():
    return Completion(**SMALL, **GRID)


@pytest.fixture(scope="module")
def trials(every_depth):
    return every_depth.run(12, seed=3, chunk=5, keep_trials=True).isel(fraction=0, scale=0, width=0)


def test_the_table_fits_screens_of_80_columns_with_its_keys(study, store):
    keys = "depth", "observed", "scale", "width"
    assert_fits(study.table(study.summarise(ld.open_sweep(store))), *keys)


def test_masks_have_their_number_of_entries_and_see_every_row_and_column():
    known = np.ones((6, 5), bool)
    known[0, 1:] = False
    keys = jax.random.split(jax.random.key(0), 1000)
    drawn = jax.jit(jax.vmap(lambda key: _completing.draw_mask(key, jnp.asarray(known), 0.4)))(keys)
    masks, covered = map(np.asarray, drawn)
    assert np.all(covered) and np.all(np.sum(masks, axis=(1, 2)) == 10)
    assert np.all(masks.any(1)) and np.all(masks.any(2)) and not np.any(masks & ~known)
    # Of a row's only known entry there is no choice, and the other rows are alike.
    assert np.all(masks[:, 0, 0])
    shares = np.mean(masks[:, 1:], axis=(0, 2))
    assert np.ptp(shares) < 5 * np.sqrt(shares.mean() / masks.shape[0])


def test_what_cannot_be_covered_is_flagged_and_never_silent():
    # Ten of 25 entries hardly ever see ten rows and columns: with five of them it is a permutation or nothing.
    hard = jax.jit(jax.vmap(lambda key: _completing.draw_mask(key, jnp.ones((10, 10), bool), 0.1)[1]))
    assert not np.any(hard(jax.random.split(jax.random.key(0), 3)))


def test_trials_without_a_mask_are_flagged_and_counted():
    study = Completion(shape=(10.0, 10.0), rank=1, depths=("1",), fractions=(0.1,))
    dataset = study.run(3)
    assert not np.any(dataset["covered"]) and not np.any(dataset["ok"])
    summary = study.summarise(dataset)
    assert float(summary["covered"].values.max()) == 0 and np.isnan(summary["test_error_mean"]).all()
    assert "3 trials found no mask" in study.table(summary)[1]


def test_depth_recovers_what_one_layer_does_not_see(trials):
    assert bool(trials["ok"].all())
    error = trials["test_error"].median("trial").values
    # One layer never moves what it does not see; deeper networks fill the matrix in.
    assert error[0] > 0.98 and np.all(error[1:] < 0.2) and error[2] < 0.02
    assert np.all(trials["train_error"] <= 1e-3)
    # The trials of all depths have the same matrices, masks and convex minima.
    for name in ("convex_minimum", "convex_test_error", "covered"):
        assert np.all(trials[name] == trials[name][0])
    assert np.all(trials["convex_gap"] <= 1e-4)
    # An incomplete matrix has at least the least nuclear norm, but for the error that the stop leaves.
    assert np.all(trials["nuclear_ratio"] > 1 - 2e-3)
    assert np.all(trials["effective_rank"][2] < trials["effective_rank"][0])


def test_numbers_are_those_of_a_network_that_is_moved_by_itself(every_depth, trials):
    key = jax.random.fold_in(jax.random.key(3), 4)
    key_target, key_mask, key_start = jax.random.split(key, 3)
    Y = np.asarray(every_depth._truth(key_target))
    assert np.linalg.matrix_rank(Y) == 1 and abs(np.mean(Y**2) - 1) < 1e-12
    mask = np.asarray(_completing.draw_mask(key_mask, jnp.ones(Y.shape, bool), 0.6)[0])
    problem = ld.MatrixCompletion(Y, mask)
    start = ld.init.gaussian_core(problem, 1e3, std=1e-3, key=key_start)
    # Euler's steps, at the limit of what small ones add up to.
    U, V, eta = np.asarray(start.U1), np.asarray(start.V), 2e-3
    while np.linalg.norm(mask * (U @ V.T - Y)) > 1e-3 * np.linalg.norm(mask * Y):
        G = mask * (U @ V.T - Y)
        U, V = U - eta * G @ V, V - eta * G.T @ U
    found, Theta = trials.isel(depth=1, trial=4), U @ V.T
    error = np.linalg.norm((Theta - Y)[~mask]) / np.linalg.norm(Y[~mask])
    np.testing.assert_allclose(found["test_error"], error, rtol=0.05)
    np.testing.assert_allclose(found["nuclear_norm"], np.linalg.norm(Theta, "nuc"), rtol=2e-3)
    p = np.linalg.svd(Theta, compute_uv=False)
    p = p / p.sum()
    np.testing.assert_allclose(found["effective_rank"], np.exp(-np.sum(p * np.log(p))), rtol=5e-3)
    least = ld.theory.min_nuclear_norm(problem)
    np.testing.assert_allclose(found["convex_minimum"], least.value, rtol=2e-4)
    np.testing.assert_allclose(found["nuclear_ratio"], found["nuclear_norm"] / found["convex_minimum"], rtol=1e-14)


def test_orthogonal_middle_layers_need_no_more_than_the_columns_that_move():
    # The start in its smallest form moves as a full-size network of the same law: the one that it stands for.
    problem = ld.MatrixCompletion(
        np.arange(12.0).reshape(4, 3) / 6, np.eye(4, 3) + np.eye(4, 3, k=-1) + 0 * np.ones((4, 3))
    )
    h, scale = 12, 0.2
    small = _completing.draw_start(problem, 3, scale, float(h), jax.random.key(1))
    turn = [np.linalg.qr(np.random.default_rng(i).normal(size=(h, h)))[0] for i in (0, 1)]
    U, middle, VT = small.layers
    k = U.shape[1]
    gain = scale * np.sqrt(h)
    np.testing.assert_allclose(middle, gain * np.eye(k), rtol=1e-14)
    full = ld.DeepLinear((U @ turn[0][:k], gain * turn[0].T @ turn[1], turn[1][:k].T @ VT))
    ends = [ld.gradient_flow(one, problem, [1.0, 3.0], observables=("loss",), reduce=False) for one in (small, full)]
    np.testing.assert_allclose(ends[0].observables["loss"], ends[1].observables["loss"], rtol=1e-6)
    np.testing.assert_allclose(ends[0].final.product(), ends[1].final.product(), atol=1e-7)


def test_wide_networks_are_those_of_the_wide_limit(store):
    # Of width 1000 with the same level s^2 h: the spread over starts is what is left.
    wide, limit = (ld.open_sweep(store)["nuclear_ratio"].isel(depth=depth) for depth in (0, 1))
    np.testing.assert_allclose(wide, limit, rtol=0.05)


def test_trials_and_reductions_have_the_same_summary(study, store):
    from lindyn_jax.ensemble import open_reductions

    trials = ld.open_sweep(store)
    kept, reduced = study.summarise(trials), study.summarise(open_reductions(store))
    assert set(kept.data_vars) == set(reduced.data_vars)
    for name in kept.data_vars:
        np.testing.assert_allclose(kept[name], reduced[name], rtol=1e-12, err_msg=name)
    assert kept.attrs["depths"] == ["2", "wide-limit"]
    for event in EVENTS:
        np.testing.assert_allclose(kept[event].values, trials[event].mean("trial"))
        assert np.all(kept[f"{event}_low"] <= kept[event]) and np.all(kept[event] <= kept[f"{event}_high"])


def test_descent_ends_where_the_flow_does(store):
    options = OPTIONS | {"depths": ("2",), "fractions": (0.6,)}
    descent = Completion(target=GIVEN, **options, settings=Settings(dynamics="descent")).run(4)
    assert bool(descent["ok"].all())
    flow = ld.open_sweep(store)["nuclear_norm"].isel(depth=0, fraction=0, scale=0, width=0, trial=slice(4))
    np.testing.assert_allclose(descent["nuclear_norm"].values.ravel(), flow, rtol=5e-3)


def test_descent_of_deeper_networks_ends_where_the_flow_does(trials):
    descent = Completion(**SMALL, **GRID | {"depths": ("3",)}, settings=Settings(dynamics="descent")).run(4, seed=3)
    assert bool(descent["ok"].all())
    flow = trials["nuclear_norm"].isel(depth=2, trial=slice(4))
    np.testing.assert_allclose(descent["nuclear_norm"].values.ravel(), flow, rtol=5e-3)


# -- matrices of the user's ------------------------------------------------------------------------------------------------


def test_empty_cells_and_nan_are_what_is_not_known(tmp_path):
    values = np.arange(12.0).reshape(4, 3) - 4
    values[1, 2] = values[3, 0] = np.nan
    rows = [",".join("" if np.isnan(v) else f"{v:g}" for v in row) for row in values]
    files = {
        "plain.csv": "\n".join(rows),
        "header.csv": "\n".join(["a,b,c", *rows]),
        "words.csv": "\n".join(row.replace(",,", ",NA,").replace(",\n", ",nan\n") for row in rows),
        "other.tsv": "\n".join(row.replace(",", "\t") for row in rows),
        "european.csv": "\n".join(row.replace(",", ";").replace("-4", "-4,0") for row in rows),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
        np.testing.assert_array_equal(data.load_matrix(tmp_path / name).values, values, err_msg=name)
    np.savez(tmp_path / "one.npz", values)
    np.savez(tmp_path / "two.npz", other=np.ones(2), Y=values)
    for name in ("one.npz", "two.npz"):
        found = data.load_matrix(tmp_path / name)
        np.testing.assert_array_equal(found.values, values)
        assert found.description == f"{name}: 4 x 3, 10 of 12 entries known; npz archive"
    digits = data.load_matrix("digits", samples=20, subset_seed=1)
    rows = data.load("digits", samples=20, subset_seed=1)
    np.testing.assert_array_equal(digits.values, rows.X)


WRONG = {
    "words": ("a,b\n1,x\n", "line 2, column 2, holds 'x'"),
    "names": ("city,a,b\nRome,1,2\n", "leave names of rows out"),
    "row": ("1,2\n,\n3,4\n", "Row 1 of the matrix"),
    "column": ("1,\n2,\n", "Column 1 of the matrix"),
    "nothing": ("a,b\n,\n", "no known entry: there is nothing to learn"),
    "zeros": ("0,0\n0,0\n", "no known entry that is not 0"),
    "cells": ("1,2\n3\n", "but line 2 has 1"),
    "infinite": ("1,2\ninf,3\n", "must be finite, but is not in row 1, column 0"),
    "header": ("a,b\n", "but no rows"),
}


@pytest.mark.parametrize("name", WRONG)
def test_tables_that_are_no_matrix_are_refused(name, tmp_path):
    text, sentence = WRONG[name]
    (tmp_path / "given.csv").write_text(text)
    with pytest.raises(data.DataError) as refused:
        data.load_matrix(tmp_path / "given.csv")
    assert sentence in str(refused.value)


BAD = {
    "no such data": (["--data", "digitz"], "`digitz` is no matrix"),
    "absent": (["--data", "absent.csv"], "cannot be read"),
    "all observed": (["--fractions", "1"], "does not hide some"),
    "too few": (["--fractions", "0.01"], "which could not be learned: take one from 0.05 to 1"),
    "twice": (["--fractions", "0.5,0.5"], "fractions must be different"),
    "depth": (["--depths", "2,deep"], "Depths must be whole numbers from 1 to 10 or wide-limit, but one is 'deep'"),
    "rank": (["--rank", "21"], "lies between 1 and 20"),
    "shape": (["--shape", "20"], "two whole numbers"),
    "scale": (["--scales", "0"], "must be a positive number"),
    "scale of a saddle": (["--scales", "1e-40"], "saddle at zero"),
    "width": (["--widths", "0.5"], "whole numbers from 1 to 1e12"),
    "solver": (["--solver", "radau"], "'radau' is not one of 'auto', 'tsit5'"),
    "dynamics": (["--dynamics", "walk"], "'flow', 'descent'"),
    "stop": (["--stop", "2"], "must lie in (0, 1)"),
    "idle shape": (["--data", "digits", "--shape", "3,3"], "Option --shape contradicts --data"),
    "idle samples": (["--samples", "5"], "Option --samples has an effect only with --data"),
    "idle seed": (["--data", "digits", "--subset-seed", "5"], "Option --subset-seed has an effect only with --samples"),
    "idle step": (["--step-size", "0.1"], "Option --step-size has an effect only with --dynamics descent"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence_and_exit_code_2_and_writes_nothing(call, tmp_path, name):
    arguments, sentence = BAD[name]
    out = tmp_path / "out"
    code, printed, error = call("sweep", "completion", *arguments, "--out", out)
    assert (code, printed) == (2, "")
    assert sentence in error and len(error.strip().splitlines()) == 1
    assert not out.exists()


def test_nan_is_refused_by_the_other_studies(call, tmp_path):
    np.savez(tmp_path / "missing.npz", X=np.eye(3), Y=np.array([[1.0], [np.nan], [2.0]]))
    code, _, error = call("sweep", "theorem12", "--data", tmp_path / "missing.npz", "--out", tmp_path / "out")
    assert code == 2 and "must be finite" in error


def test_command_completes_a_users_matrix_and_resumes(call, command, tmp_path):
    run, out, printed, notes = command
    assert "8 x 6, 46 of 48 entries known" in notes
    assert "Completion" in printed and (out / "figure.png").stat().st_size > 10_000
    code, printed, notes = call(*run, "--json")
    assert code == 0 and "resuming: 16 of 16 trials" in notes
    summary = json.loads(printed)["summary"]
    assert summary["fraction"] == [0.6, 0.8] and np.shape(summary["is_recovered_low"]) == (2, 2, 1, 1)
    assert max(np.ravel(summary["train_error_max"])) <= 1e-3
    # Another matrix is another study.
    (tmp_path / "mine.csv").write_text((out.parent / "mine.csv").read_text().replace("0.1,", "0.11,", 1))
    code, _, error = call(*run, "--data", tmp_path / "mine.csv")
    assert code == 2 and "target_sha256" in error


def test_a_target_by_name_and_a_matrix_are_one_too_many():
    with pytest.raises(ValueError, match="Give only one of `data` and `target`"):
        Completion(data="digits", target=np.eye(2))
    with pytest.raises(ValueError, match="row 0 has none and cannot be learned"):
        Completion(target=np.array([[np.nan, np.nan], [1, 2]]))
