"""G19's measures of Table 1: reference values, bundled sets, completions, and the command that prints them."""

import gzip
import json
import struct
import tracemalloc

import numpy as np
import pytest
from helpers import load_cases

import lindyn_jax as ld
from lindyn_jax.data import COMPLETIONS, DataError, commutation, load

# Delta_xy (completion of the singular value decomposition) and Delta_x, raw and centred, to the digits of the theory sheet.
TABLE_1 = {
    "digits": ((0.0388, 0.641), (0.320, 0.523)),
    "iris": ((8.46e-4, 0.491), (0.0678, 0.480)),
    "wine": ((0.00803, 0.601), (0.00318, 0.601)),
    "breast-cancer": ((0.0326, 0.639), (0.0144, 0.638)),
}


def test_measures_agree_with_the_reference():
    case = load_cases("g19")["delta_measures_small"]
    X, Y, expected = np.array(case["inputs"]["X"]), np.array(case["inputs"]["Y"]), case["expected"]
    # One direction is left over: both completions are the same.
    for completion in ("svd", "diagonal"):
        found = commutation(X, Y, completion=completion)
        assert abs(found.delta_xy - expected["Delta_xy_fro"]) < case["rel_or_abs_tol"]
        assert abs(found.delta_xy_spectral - expected["Delta_xy_spec"]) < case["rel_or_abs_tol"]
        assert abs(found.delta_x - expected["Delta_x_fro"]) < case["rel_or_abs_tol"]
        assert np.abs(found.sigma - expected["sigma"]).max() < case["rel_or_abs_tol"]
        assert np.abs(found.lam - expected["lam"]).max() < case["rel_or_abs_tol"]
        assert (found.rank, found.completion) == (2, completion)
    # With the trace in place of the norm it is another number.
    Sigma_x = X.T @ X / len(X)
    by_trace = np.linalg.norm(Sigma_x / np.trace(Sigma_x) - np.eye(3) / np.sqrt(3)) / 2
    assert abs(by_trace - expected["Delta_x_trace_version"]) < case["rel_or_abs_tol"]


@pytest.mark.parametrize("name", TABLE_1)
@pytest.mark.parametrize("centre", [False, True], ids=["raw", "centred"])
def test_bundled_sets_have_the_values_of_table_1(name, centre):
    dataset = load(name, centre=centre)
    found = commutation(dataset.X, dataset.Y)
    delta_xy, delta_x = TABLE_1[name][centre]
    # To the three digits given.
    assert abs(found.delta_x / delta_x - 1) < 2e-3
    assert found.rank == dataset.Y.shape[1] - centre
    if centre:
        # Centred one-hot targets add up to zero: the completion, and with it the third digit, is rounding errors.
        assert found.delta_xy_least * (1 - 1e-3) < delta_xy < found.delta_xy_most
        assert found.delta_xy_least * (1 - 1e-9) < found.delta_xy < found.delta_xy_most
    else:
        assert abs(found.delta_xy / delta_xy - 1) < 2e-3


def test_completions_lie_between_the_diagonal_one_and_the_most_even_one(rng):
    X, Y = rng.normal(size=(40, 8)) @ rng.normal(size=(8, 8)), rng.normal(size=(40, 3))
    found = {completion: commutation(X, Y, completion=completion) for completion in COMPLETIONS}
    Sigma_x = X.T @ X / 40
    Phi = np.linalg.svd(X.T @ Y)[0]
    for _ in range(200):
        turned = np.concatenate([Phi[:, :3], Phi[:, 3:] @ np.linalg.qr(rng.normal(size=(5, 5)))[0]], axis=1)
        seen = turned.T @ Sigma_x @ turned
        value = np.linalg.norm(seen - np.diag(np.diag(seen))) / np.linalg.norm(Sigma_x)
        assert found["svd"].delta_xy_least - 1e-12 < value < found["svd"].delta_xy_most + 1e-12
    assert abs(found["diagonal"].delta_xy - found["svd"].delta_xy_least) < 1e-12
    assert found["thin"].delta_xy < found["diagonal"].delta_xy < found["svd"].delta_xy < found["svd"].delta_xy_most
    # The most even basis of the five directions that are left: a Fourier basis of the eigenvectors.
    vectors = np.linalg.eigh(Phi[:, 3:].T @ Sigma_x @ Phi[:, 3:])[1]
    angle = 2 * np.pi * np.outer(np.arange(5), np.arange(5)) / 5
    even = vectors @ (np.cos(angle) + np.sin(angle)) / np.sqrt(5)
    assert np.allclose(even.T @ even, np.eye(5))
    turned = np.concatenate([Phi[:, :3], Phi[:, 3:] @ even], axis=1)
    seen = turned.T @ Sigma_x @ turned
    assert np.linalg.norm(seen - np.diag(np.diag(seen))) / np.linalg.norm(Sigma_x) <= found["svd"].delta_xy_most + 1e-12


def test_measures_do_not_depend_on_scale_and_rotation_of_the_inputs(rng):
    X, Y = rng.normal(size=(30, 4)) * [1, 2, 3, 4], rng.normal(size=(30, 4))
    O = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    found, turned = commutation(X, Y), commutation(3 * X @ O, Y / 7)
    assert abs(found.delta_xy - turned.delta_xy) < 1e-12 and abs(found.delta_x - turned.delta_x) < 1e-12
    assert commutation(np.linalg.qr(X)[0], Y).delta_x < 1e-7
    one = np.zeros((9, 4))
    one[:, 0] = 1
    # A single direction of four: cos = 1/2 with the identity.
    assert abs(commutation(one, Y[:9]).delta_x - np.sqrt((1 - 1 / 2) / 2)) < 1e-12
    assert ld.data.commutation(X, Y[:, 0]).rank == 1


def test_wrong_arguments_are_refused_in_one_sentence(rng):
    X, Y = rng.normal(size=(6, 3)), rng.normal(size=(6, 2))
    with pytest.raises(DataError, match="`completion` must be one of svd, diagonal, thin, but is 'full'"):
        commutation(X, Y, completion="full")
    with pytest.raises(
        DataError, match="`X` and `Y` of the arguments must have one row a sample, but have 6 and 5 rows"
    ):
        commutation(X, Y[:5])
    with pytest.raises(DataError, match="`X` of the arguments must be finite"):
        commutation(np.full((6, 3), np.nan), Y)
    with pytest.raises(DataError, match="`X` is zero"):
        commutation(0 * X, Y)
    # Targets that have nothing to do with the inputs: no direction is correlated.
    none = commutation(X, 0 * Y, completion="thin")
    assert (none.rank, none.delta_xy, none.delta_xy_spectral) == (0, 0.0, 0.0)


# -- the command -----------------------------------------------------------------------------------------------------------


def idx_bytes(array) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 0x08, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def test_command_prints_raw_and_centred_measures_of_several_sets(call):
    code, printed, notes = call("commutation", "--data", "iris", "--data", "wine")
    assert code == 0
    rows = [line.split() for line in printed.splitlines() if line.strip().startswith(("iris", "wine"))]
    assert [row[:2] for row in rows] == [["iris", "raw"], ["iris", "centred"], ["wine", "raw"], ["wine", "centred"]]
    assert rows[0][2:6] == ["150", "4", "3", "3"]
    assert abs(float(rows[0][6]) / 8.46e-4 - 1) < 2e-3 and abs(float(rows[0][-1]) / 0.491 - 1) < 2e-3
    assert "150 samples, 4 inputs, 3 outputs" in notes
    code, again, _ = call("commutation", "--data", "iris", "--centre", "--json")
    (values,) = json.loads(again)["rows"]
    assert code == 0 and values["centred"] and values["rank"] == 2 and values["data"] == "iris"
    assert set(values["delta_xy"]) == set(COMPLETIONS)
    assert values["delta_xy"]["thin"] < values["delta_xy"]["diagonal"] <= values["delta_xy"]["svd"]
    least, most = values["delta_xy_range"]
    assert least <= values["delta_xy"]["svd"] <= most


@pytest.mark.parametrize("kind", ["npz", "csv", "idx", "idx.gz", "npy"])
def test_command_reads_every_kind_of_file(kind, call, tmp_path):
    rng = np.random.default_rng(5)
    X, labels = rng.integers(0, 256, (30, 2, 3)), rng.integers(0, 3, 30)
    flat, Y = X.reshape(30, 6), np.eye(3)[labels]
    extra = ()
    if kind == "npz":
        spec = tmp_path / "own.npz"
        np.savez(spec, X=flat, Y=Y)
    elif kind == "csv":
        spec, extra = tmp_path / "own.csv", ("--targets", "label")
        words = ["abc"[i] for i in labels]
        rows = [",".join([*map(str, row), word]) for row, word in zip(flat, words, strict=True)]
        spec.write_text("\n".join([",".join([*(f"x{i}" for i in range(6)), "label"]), *rows]) + "\n")
    elif kind == "npy":
        np.save(tmp_path / "X.npy", flat), np.save(tmp_path / "Y.npy", Y)
        spec = f"{tmp_path}/X.npy,{tmp_path}/Y.npy"
    else:
        compress = gzip.compress if kind.endswith("gz") else bytes
        (tmp_path / "images").write_bytes(compress(idx_bytes(X)))
        (tmp_path / "labels").write_bytes(compress(idx_bytes(labels)))
        spec = f"{tmp_path}/images,{tmp_path}/labels"
    code, printed, _ = call("commutation", "--data", spec, *extra, "--json")
    assert code == 0
    raw, centred = json.loads(printed)["rows"]
    assert (raw["samples"], raw["inputs"], raw["outputs"], raw["centred"], centred["centred"]) == (
        30,
        6,
        3,
        False,
        True,
    )
    for values, arrays in ((raw, (flat, Y)), (centred, (flat - flat.mean(axis=0), Y - Y.mean(axis=0)))):
        expected = commutation(*arrays)
        # Centred one-hot targets leave the completion to rounding.
        assert abs(values["delta_xy"]["diagonal"] - expected.delta_xy_least) < 1e-9
        assert abs(values["delta_x"] - expected.delta_x) < 1e-12


def test_command_takes_a_subset_and_refuses_what_is_not_data(call, tmp_path):
    code, printed, _ = call("commutation", "--data", "digits", "--samples", 40, "--subset-seed", 3, "--json")
    assert code == 0 and json.loads(printed)["rows"][0]["samples"] == 40
    code, printed, error = call("commutation", "--data", "digit")
    assert (code, printed) == (2, "") and "did you mean `digits`?" in error
    (tmp_path / "images").write_bytes(idx_bytes(np.ones((3, 2, 2)))[:-1])
    code, printed, error = call("commutation", "--data", f"{tmp_path}/images,{tmp_path}/images")
    assert (code, printed) == (2, "") and "which takes 12 bytes, but holds 11" in error and error.count("\n") == 1


@pytest.mark.parametrize("completion", COMPLETIONS)
@pytest.mark.parametrize(("num_samples", "n", "m"), [(5, 30, 2), (50, 60, 3), (6, 40, 1), (20, 6, 9), (40, 8, 3)])
def test_fewer_samples_than_inputs_have_the_measures_of_full_matrices(num_samples, n, m, completion, rng):
    X, Y = rng.normal(size=(num_samples, n)), rng.normal(size=(num_samples, m))
    found = commutation(X, Y, completion=completion)
    Sigma_x, Sigma_xy = X.T @ X / num_samples, X.T @ Y / num_samples
    Phi, sigma, _ = np.linalg.svd(Sigma_xy)
    rank = min(n, m)
    rest = Phi[:, rank:]
    if completion == "diagonal":
        rest = rest @ np.linalg.eigh(rest.T @ Sigma_x @ rest)[1]
    Phi = np.concatenate([Phi[:, :rank], rest[:, : 0 if completion == "thin" else None]], axis=1)
    seen = Phi.T @ Sigma_x @ Phi
    off, size = seen - np.diag(np.diag(seen)), np.linalg.norm(Sigma_x)
    close = {"rtol": 1e-12, "atol": 1e-13}
    np.testing.assert_allclose(found.delta_xy, np.linalg.norm(off) / size, **close)
    np.testing.assert_allclose(
        found.delta_xy_spectral, np.linalg.norm(off, ord=2) / np.linalg.norm(Sigma_x, ord=2), **close
    )
    np.testing.assert_allclose(found.delta_x, np.linalg.norm(Sigma_x / size - np.eye(n) / np.sqrt(n)) / 2, **close)
    np.testing.assert_allclose(found.sigma, sigma, **close)
    np.testing.assert_allclose(found.lam[:rank], np.diag(seen)[:rank], **close)
    np.testing.assert_allclose(np.sort(found.lam), np.sort(np.diag(seen)), rtol=1e-12, atol=1e-12 * size)
    assert found.rank == rank


def test_measures_of_many_inputs_form_no_matrix_of_their_size(rng):
    X, Y = rng.normal(size=(10, 6000)), rng.normal(size=(10, 1))
    tracemalloc.start()
    found = commutation(X, Y)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One matrix of 6000 x 6000 takes 0.3 GB.
    assert most < 6e7
    assert found.rank == 1 and found.lam.shape == (6000,)
    assert abs(found.lam.sum() / (np.sum(X**2) / 10) - 1) < 1e-12


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_measures_are_those_of_the_data_in_other_units(scale, rng):
    X, Y = rng.normal(size=(9, 5)), rng.normal(size=(9, 2))
    found, scaled = commutation(X, Y), commutation(scale * X, Y)
    np.testing.assert_allclose(scaled[:5], found[:5], rtol=1e-12)
    np.testing.assert_allclose(scaled.sigma, scale * found.sigma, rtol=1e-12)
    assert scaled.rank == found.rank == 2
