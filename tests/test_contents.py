"""Stores as others read them: shown, exported, compared and listed, and opened by xarray alone."""

import json
import os
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import pytest
import xarray as xr
from scipy import stats
from test_cluster import run, same_bits, trial

import lindyn_jax as ld
from lindyn_jax import cli
from lindyn_jax.ensemble import contents, open_reductions
from lindyn_jax.statistics import Count, Moments


class Ended(Exception):
    """The end of a run before its end."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of trials and reductions, one of reductions, and one that is not finished."""
    made = tmp_path_factory.mktemp("stores")

    def end(done, total):
        if done == 32:
            raise Ended

    run(40, store=made / "both" / "sweep.zarr", settings={"study": "mine"})
    run(40, store=made / "reduced", keep_trials=False, chunk=8)
    with pytest.raises(Ended):
        run(40, store=made / "begun", key=jax.random.key(4), progress=end)
    return made


@pytest.fixture
def call(monkeypatch, capsys):
    def call(*arguments):
        # Nothing here may compute.
        monkeypatch.setattr(jax, "jit", None)
        monkeypatch.setattr(sys, "argv", ["lindyn-jax", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        monkeypatch.undo()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return call


def test_a_store_is_shown_with_settings_state_and_numbers(call, folder):
    for name, state in (("both", "40 of 40 trials"), ("reduced", "40 of 40 trials"), ("begun", "8 of 40 trials")):
        code, printed, error = call("show", folder / name)
        assert code == 0 and state in error and 'generator = "threefry2x32"' in error
        shown = json.loads(call("show", folder / name, "--json")[1])
        merged = open_reductions(folder / name)
        np.testing.assert_array_equal(shown["summary"]["value"], merged["value"].values[..., 1])
        assert f"{float(merged['value'][1, 0, 1]):.6g}" in printed
        low, high = (shown["summary"][f"value_{end}"][1][0] for end in ("low", "high"))
        assert low < merged["value"].values[1, 0, 1] < high and f"[{low:.4g}, {high:.4g}]" in printed
        assert shown["summary"]["large"] == (merged["large"].values / int(merged["trials_computed"])).tolist()


def test_means_of_trials_are_those_of_reductions(folder, tmp_path):
    ld.run_ensemble(trial, {"scale": [2.0], "shift": [1.0]}, 12, key=jax.random.key(0), store=tmp_path / "plain")
    summary, dataset = contents.estimates_of(tmp_path / "plain")[0], ld.open_sweep(tmp_path / "plain")
    np.testing.assert_allclose(summary["value"], dataset["value"].values.mean(axis=-1), rtol=1e-13)
    assert float(summary["large"].item()) == dataset["large"].values.mean() and float(summary["ok"].item()) == 1


def test_intervals_of_stores_are_students_and_exact(folder, tmp_path):
    ld.run_ensemble(trial, {"scale": [2.0], "shift": [1.0, 2.0]}, 12, key=jax.random.key(0), store=tmp_path / "plain")
    dataset, found = ld.open_sweep(tmp_path / "plain"), contents.estimates_of(tmp_path / "plain")[1]
    values = dataset["value"].values
    half = stats.t.ppf(0.975, 11) * stats.sem(values, axis=-1)
    np.testing.assert_allclose(found["value_low"], values.mean(-1) - half, rtol=1e-12)
    np.testing.assert_allclose(found["value_high"], values.mean(-1) + half, rtol=1e-12)
    for i in (0, 1):
        exact = stats.binomtest(int(dataset["large"][0, i].sum()), 12).proportion_ci(0.95, "exact")
        np.testing.assert_allclose((found["large_low"][0, i], found["large_high"][0, i]), (exact.low, exact.high))
    # From reductions, where nothing else is kept, those of the same trials.
    both, reduced = (
        contents.estimates_of(folder / name / end)[1] for name, end in (("both", "sweep.zarr"), ("reduced", ""))
    )
    assert {"value_low", "large_high"} <= set(reduced)
    for name in set(both) & set(reduced):
        np.testing.assert_allclose(both[name], reduced[name], rtol=1e-12)


@pytest.mark.parametrize("name", ["both", "reduced", "begun"])
def test_exported_files_read_back_equal(call, folder, tmp_path, name):
    dataset = ld.open_sweep(folder / name)
    for kind, (_, ending) in contents.KINDS.items():
        code, printed, _ = call("export", folder / name, "--to", kind, "--out", tmp_path / f"file.{ending}")
        assert code == 0 and ("the 32 that are not computed are left out" in printed) == (name == "begun")
    # Trials that are not computed are no trials that failed.
    dataset = dataset if name == "reduced" else dataset.isel(trial=dataset["computed"].values)
    assert (
        "in place of what was there"
        in call(*("export", folder / name), "--to", kind, "--out", tmp_path / f"file.{ending}")[1]
    )
    with xr.open_dataset(tmp_path / "file.nc", engine="h5netcdf") as netcdf:
        assert set(netcdf.variables) == set(dataset.variables)
        for variable in dataset.variables:
            np.testing.assert_array_equal(netcdf[variable].values, dataset[variable].values)
            assert netcdf[variable].dtype == dataset[variable].dtype
        assert netcdf.attrs["settings"] == dataset.attrs["settings"]
    frame = contents.frame(dataset)
    csv = pandas.read_csv(tmp_path / "file.csv", dtype=str, keep_default_na=False)
    assert list(csv) == list(frame)
    for column in frame:
        read = [float({"True": "1", "False": "0", "": "nan"}.get(text, text)) for text in csv[column]]
        np.testing.assert_array_equal(read, frame[column].to_numpy(float))
    pandas.testing.assert_frame_equal(pandas.read_parquet(tmp_path / "file.parquet"), frame, check_exact=True)
    column = frame["value" if name != "reduced" else "value_mean"].to_numpy()
    values = dataset["value"] if name != "reduced" else dataset["value"].isel(moment=1)
    np.testing.assert_array_equal(column, values.transpose("scale", "shift", ...).values.ravel())


def test_no_trial_and_lost_chunks_have_no_numbers(call, tmp_path):
    def end(done, total):
        raise Ended

    with pytest.raises(Ended):
        run(8, store=tmp_path / "begun", progress=end, keep_trials=False)
    code, printed, _ = call("show", tmp_path / "begun")
    assert code == 0 and [line.split()[-1] for line in printed.splitlines() if " large " in line] == ["-"] * 4
    assert all(
        x is None for row in json.loads(call("show", tmp_path / "begun", "--json")[1])["summary"]["large"] for x in row
    )
    run(40, store=tmp_path / "whole", chunk=8)
    (tmp_path / "whole" / "value" / "c" / "0" / "0" / "2").unlink()
    with pytest.warns(UserWarning, match="1 chunk .* is damaged"):
        code, printed, _ = call("export", tmp_path / "whole", "--to", "csv", "--out", tmp_path / "whole.csv")
    assert code == 0 and "32 of 40 trials" in printed and "the 8 that are not computed are left out" in printed
    there = pandas.read_csv(tmp_path / "whole.csv")
    assert len(there) == 4 * 32 and not set(there["trial"]) & set(range(16, 24)) and there["ok"].all()


def test_stores_are_listed_and_compared(call, folder):
    listed = json.loads(call("list", folder, "--json")[1])["rows"]
    assert [row["state"] for row in listed] == ["8 of 40 trials a point", *["40 of 40 trials a point"] * 2]
    assert {row["study"] for row in listed} == {"mine", "-"} and listed[0]["grid"] == {"scale": 2, "shift": 2}
    code, printed, _ = call("compare", folder / "both", folder / "begun")
    assert code == 0 and "[0, 3]" in printed and "[0, 4]" in printed and "difference" in printed
    compared = json.loads(call("compare", folder / "both", folder / "begun", "--json")[1])
    assert set(compared["settings"]) == {"key", "study"}
    first = next(row for row in compared["rows"] if row["number"] == "value")
    assert first[str(folder / "both")] == float(open_reductions(folder / "both")["value"][0, 0, 1])


def test_what_is_no_store_is_refused_in_a_sentence(call, folder, tmp_path, monkeypatch):
    (tmp_path / "one" / "trajectory.zarr").mkdir(parents=True)
    (tmp_path / "file.csv").write_text("a\n")
    run(4, store=tmp_path / "other", settings={"study": "another"})
    for arguments, sentence in (
        (("show", tmp_path / "nothing"), "There is no sweep store at"),
        (("show", tmp_path / "one"), f"read it by xr.open_zarr('{tmp_path / 'one' / 'trajectory.zarr'}')"),
        (("export", tmp_path / "file.csv", "--to", "csv"), "is a file, and no sweep store"),
        (("show", tmp_path), "is not a sweep store, and holds none"),
        (
            ("export", folder / "both", "--to", "csv", "--out", tmp_path / "no" / "x"),
            "its folder is not there: choose another --out",
        ),
        (("export", folder / "both", "--to", "excel"), "is not one of 'csv', 'netcdf', 'parquet'"),
        (("export", folder / "both"), "Choose from: csv, netcdf, parquet"),
        (("compare", folder / "both", tmp_path / "other"), "the study mine and"),
        (("export", folder / "both", "--to", "excel"), "csv"),
        (("export", folder / "both", "--to", "csv", "--out", tmp_path), "is a folder"),
        (("list", tmp_path / "nothing"), "is no folder"),
    ):
        code, printed, error = call(*arguments)
        assert (code, printed) == (2, "") and sentence in error and error.strip().count("\n") == 0
    monkeypatch.setitem(contents.KINDS, "parquet", (("surely_not_installed",), "parquet"))
    with pytest.raises(ValueError, match=r"need surely_not_installed: pip install 'lindyn_jax\[export\]'"):
        contents.export(folder / "both", "parquet", tmp_path / "file.parquet")


def test_xarray_opens_a_store_without_a_warning(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = xr.open_zarr(folder / "both" / "sweep.zarr", chunks=None)
    assert np.array_equal(plain["value"], ld.open_sweep(folder / "both")["value"])
    # Coordinates say what they are, to whatever reads the store.
    assert plain["trial"].attrs == {"long_name": "trial, the number in its key", "units": "1"}


@pytest.mark.parametrize("keep", [True, False])
def test_more_trials_are_added_and_equal_a_run_of_all_of_them(tmp_path, keep, monkeypatch):
    def end(done, total):
        if done == 40 * 4:
            raise Ended

    def cut(first, second):
        if second.name == "begun":
            raise Ended
        os.rename(first, second)

    options, seen = {"chunk": 8, "keep_trials": keep}, []
    run(60, store=tmp_path / "store", **options)
    with pytest.raises(Ended):
        run(60, store=tmp_path / "begun", progress=end, **options)
    # Killed between two moves of folders, and started again.
    with monkeypatch.context() as patch:
        patch.setattr("lindyn_jax.ensemble.store.os.replace", cut)
        with pytest.raises(Ended):
            run(70, store=tmp_path / "begun", **options)
    assert not (tmp_path / "begun").exists()
    run(70, store=tmp_path / "whole", **options)
    for name in ("store", "begun"):
        run(70, store=tmp_path / name, progress=lambda done, total: seen.append(done), **options)
        for opened in (ld.open_sweep, open_reductions):
            assert same_bits(opened(tmp_path / name), opened(tmp_path / "whole")) == []
            assert opened(tmp_path / name).attrs["settings"] == opened(tmp_path / "whole").attrs["settings"]
    # Seven whole chunks of eight were there; the eighth, of four trials, is computed anew.
    assert seen[0] == 56 * 4
    with pytest.raises(ld.ensemble.StoreError, match="trials is 70 there and 60 here"):
        run(60, store=tmp_path / "store", **options)
    assert {path.name for path in tmp_path.iterdir()} == {"store", "begun", "whole"}


@pytest.mark.parametrize("keep", [True, False])
def test_values_are_added_to_a_grid_and_equal_a_run_of_all_of_them(tmp_path, keep):
    def grown(name, shifts, trial=trial, **options):
        grid = {"scale": [2.0, 0.5], "shift": shifts}
        reductions = {"value": Moments("value"), "large": Count("large")}
        options = {"chunk": 8, "key": jax.random.key(3), "keep_trials": keep, "reductions": reductions} | options
        return ld.run_ensemble(trial, grid, 20, store=tmp_path / name, **options)

    seen, longer = [], [-1.0, 1.0, 0.5, 3.0]
    grown("store", [1.0, 3.0])
    with pytest.raises(ld.ensemble.StoreError, match=r"other settings \(grid is"):
        grown("store", [1.0, 2.0])

    # Killed among the new points, and started again.
    def end(done, total):
        if done >= 80 + 8 * 4:
            raise Ended

    with pytest.raises(Ended):
        grown("store", longer, progress=end)
    grown("whole", longer)
    grown("store", longer, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (80 + 32, 160) and seen[-1] == (160, 160)
    for opened in (ld.open_sweep, open_reductions):
        assert same_bits(opened(tmp_path / "store"), opened(tmp_path / "whole")) == []
        assert opened(tmp_path / "store").attrs["settings"] == opened(tmp_path / "whole").attrs["settings"]
    assert {path.name for path in tmp_path.iterdir()} == {"store", "whole"}
    with pytest.raises(ld.ensemble.StoreError, match=r"The trials in .* are not those of the longer `shift`"):
        grown("store", [*longer, 9.0], lambda key, scale, shift: trial(key, scale, 2 * shift))


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False])
def test_reductions_of_all_values_grow_with_trials_that_are_kept(tmp_path, keep):
    def grown(name, shifts, **options):
        grid, options = {"scale": [2.0, 0.5], "shift": shifts}, {"keep_trials": keep, "reductions": over} | options
        return ld.run_ensemble(trial, grid, 20, store=tmp_path / name, chunk=8, key=jax.random.key(3), **options)

    # Killed while it grew to more than is asked for in the end.
    def end(done, total):
        raise Ended

    over = {"value": Moments("value")}
    grown("store", [1.0, 3.0])
    with pytest.raises(Ended):
        grown("store", [1.0, 3.0, 7.0], progress=end)
    grown("store", [1.0, 3.0, 5.0])
    grown("whole", [1.0, 3.0, 5.0])
    assert same_bits(open_reductions(tmp_path / "store"), open_reductions(tmp_path / "whole")) == []
    over = {"value": Moments(lambda outputs: jnp.sum(outputs["value"], axis=1), dims=("scale",))}
    grown("over", [1.0])
    if not keep:
        with pytest.raises(
            ld.ensemble.StoreError, match=r"The reduction `value` of .* is one of all values of `shift`"
        ):
            grown("over", [1.0, 2.0])
        return
    for name in ("over", "all"):
        grown(name, [1.0, 2.0])
    assert same_bits(open_reductions(tmp_path / "over"), open_reductions(tmp_path / "all")) == []


def test_a_store_that_cannot_grow_says_what_to_do(tmp_path):
    def made(trials, values, **settings):
        ld.run_ensemble(
            trial,
            {"scale": values, "shift": [1.0]},
            trials,
            key=jax.random.key(0),
            store=tmp_path / "s",
            settings=settings,
        )

    made(4, [1.0], study="mine")
    for asked, sentence in (
        ((5, [1.0, 2.0]), "ask for more trials first"),
        ((3, [1.0]), "trials is 4 there and 3 here.*lindyn-jax show"),
        ((4, [2.0]), "choose another folder or the same settings"),
    ):
        with pytest.raises(ld.ensemble.StoreError, match=sentence):
            made(*asked, study="mine")
    with pytest.raises(
        ld.ensemble.StoreError, match=r"holds the study mine, and this is the study yours: choose [a-z ]+\.$"
    ):
        made(4, [1.0], study="yours")


def test_a_store_that_is_not_finished_says_how_much_is_there(folder):
    for opened in (ld.open_sweep, open_reductions):
        assert opened(folder / "begun").attrs["state"] == "8 of 40 trials are there"
        assert "8 of 40 trials are there" in repr(opened(folder / "begun"))
        assert "state" not in opened(folder / "both").attrs


def test_a_trajectory_becomes_a_labelled_dataset(rng):
    problem = ld.LeastSquares(rng.normal(size=(4, 3)), rng.normal(size=(4, 2)))
    start = ld.TwoLayer(rng.normal(size=(3, 4)), rng.normal(size=(2, 4)))

    def descend(start):
        return ld.gradient_descent(
            start,
            problem,
            4,
            optimizer=ld.plain_descent(0.01),
            save_at=[0, 2, 4],
            observables=["loss", "singular_values"],
        )

    one = descend(start)
    dataset = one.to_xarray()
    assert dataset["loss"].dims == ("step",) and dataset["singular_values"].dims == ("step", "singular_values_index")
    assert list(dataset["step"].values) == [0, 2, 4] and bool(dataset["ok"]) and dataset["loss"].attrs["units"]
    np.testing.assert_array_equal(dataset["singular_values"], one.observables["singular_values"])
    two = jax.vmap(descend)(jax.tree.map(lambda x: np.stack([x, 2 * x]), start)).to_xarray()
    assert two["singular_values"].dims == ("run_0", "step", "singular_values_index") and two.sizes["run_0"] == 2
    np.testing.assert_allclose(two["loss"][0], dataset["loss"], rtol=1e-12)
    assert one._repr_html_().startswith("<div><b>Trajectory of TwoLayer</b>")
    assert int(dataset["num_steps"]) == 4 and two["final_time"].dims == ("run_0",)
    with pytest.raises(ValueError, match="inside of jit or vmap"):
        jax.jit(lambda start: descend(start).to_xarray())(start)
