"""The store: made in one move, written by several workers, and never believing a chunk that is not complete."""

import json
import os
import shutil
import sys

import numpy as np
import pytest

import lindyn_jax as ld
from lindyn_jax.ensemble import (
    COMPLETE,
    Merged,
    StoreError,
    SweepStore,
    Variable,
    open_reductions,
    open_sweep,
    progress_of,
)
from lindyn_jax.ensemble.records import checksum_of, decoded
from lindyn_jax.statistics import merge

WIDTHS = np.array([10.0, 100.0])
VALUES = {
    "distance": Variable(("width", "trial"), (2, 10), np.dtype("float64"), {"units": "1"}),
    "ok": Variable(("width", "trial"), (2, 10), np.dtype("bool"), {}),
    "steps": Variable(("width", "trial"), (2, 10), np.dtype("int32"), {}),
}
REDUCED = {
    "events": Variable(("width",), (2,), np.dtype("int32"), {"merging": "sum"}),
    "moments": Variable(("width", "moment"), (2, 5), np.dtype("float64"), {"merging": "moments"}),
}


def prepare(store, settings=None, chunk=4, **options):
    coordinates = {"width": WIDTHS, "trial": np.arange(10)}
    settings = {"seed": 0} if settings is None else settings
    return store.prepare(VALUES, coordinates, settings, {"note": "text"}, 10, chunk, REDUCED, **options)


def moments(values):
    values = np.asarray(values)
    spread = ((values - values.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    count = np.full(values.shape[:-1], values.shape[-1])
    return np.stack([count, values.mean(axis=-1), spread, values.min(axis=-1), values.max(axis=-1)], axis=-1)


def chunk_of(index):
    part = slice(4 * index, min(4 * index + 4, 10))
    values = np.arange(20.0).reshape(2, 10)[:, part] ** 2
    outputs = {"distance": values, "ok": values > 3, "steps": values.astype(np.int32)}
    return part, outputs, {"events": (values > 3).sum(axis=-1).astype(np.int32), "moments": moments(values)}


@pytest.fixture
def store(tmp_path):
    store = SweepStore(tmp_path / "sweep.zarr")
    assert prepare(store) == 4
    return store


def test_a_store_that_is_not_there_has_no_settings_and_nothing_is_touched(tmp_path):
    store = SweepStore(tmp_path / "deep" / "sweep.zarr")
    assert store.settings() is None
    assert not store.check({"seed": 0})
    assert not (tmp_path / "deep").exists()


def test_what_is_not_a_store_is_refused_and_left_alone(tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("years of work")
    for name, match in (("file", "is a file"), ("folder", "is not a sweep store")):
        with pytest.raises(StoreError, match=match):
            prepare(SweepStore(tmp_path / name))
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert os.listdir(tmp_path / "folder") == ["thesis.txt"]


def test_an_empty_folder_becomes_the_store(tmp_path):
    (tmp_path / "sweep.zarr").mkdir()
    prepare(SweepStore(tmp_path / "sweep.zarr"))
    assert os.listdir(tmp_path) == ["sweep.zarr"]
    assert SweepStore(tmp_path / "sweep.zarr").settings() == {"seed": 0}


def test_every_setting_that_differs_is_named(store):
    with pytest.raises(StoreError, match='seed is 0 there and 1 here; solver is null there and "tsit5" here'):
        prepare(store, {"seed": 1, "solver": "tsit5"})


def test_the_chunk_of_the_first_process_holds_for_all(store):
    assert prepare(SweepStore(store.path), chunk=3) == 4
    assert len(store.complete()) == 3


@pytest.mark.parametrize("seed", [0, 1])
def test_of_two_processes_that_make_the_store_at_once_one_wins(tmp_path, monkeypatch, seed):
    path = tmp_path / "sweep.zarr"
    slow, build = SweepStore(path), sys.modules["lindyn_jax.ensemble.store"].build

    def overtaken(*arguments):
        build(*arguments)
        monkeypatch.setattr("lindyn_jax.ensemble.store.build", build)
        prepare(SweepStore(path), {"seed": seed}, chunk=5)
        other = np.ones((2, 5))
        values = {"distance": other, "ok": other > 0, "steps": other.astype(np.int32)}
        reduced = {"events": np.full(2, 5, np.int32), "moments": moments(other)}
        SweepStore(path).write(1, slice(5, 10), values, reduced)

    monkeypatch.setattr("lindyn_jax.ensemble.store.build", overtaken)
    if seed == 0:
        assert prepare(slow) == 5
    else:
        with pytest.raises(StoreError, match="seed is 1 there and 0 here"):
            prepare(slow)
    # What the winner has written stays, and nothing of the loser's is left.
    assert list(SweepStore(path).complete()) == [False, True]
    assert os.listdir(tmp_path) == ["sweep.zarr"]


def test_half_written_files_are_cleared_away_only_when_no_worker_may_be_writing_them(store):
    leftover = store.path / "distance" / "c.partial"
    leftover.parent.mkdir(exist_ok=True)
    leftover.write_text("half")
    prepare(store, shared=True)
    assert leftover.exists()
    prepare(store)
    assert not leftover.exists()


def test_a_store_whose_making_fails_leaves_nothing(tmp_path, monkeypatch):
    def fails(path, *arguments):
        path.mkdir()
        raise OSError("disk full")

    monkeypatch.setattr("lindyn_jax.ensemble.store.build", fails)
    with pytest.raises(StoreError, match=r"cannot be used \(disk full\)"):
        prepare(SweepStore(tmp_path / "sweep.zarr"))
    assert os.listdir(tmp_path) == []


def test_chunks_are_there_only_once_they_are_complete(store):
    part, outputs, reduced = chunk_of(1)
    with pytest.raises(StoreError, match="do not have the same outputs: `unknown`"):
        store.write(1, part, {**outputs, "unknown": outputs["distance"]}, reduced)
    assert not store.complete().any()
    store.write(1, part, outputs, reduced)
    dataset = open_sweep(store.path)
    assert list(dataset["computed"].values) == [False] * 4 + [True] * 4 + [False] * 2
    assert np.array_equal(dataset["distance"].values[:, 4:8], outputs["distance"])
    assert np.isnan(dataset["distance"].values[:, :4]).all()
    assert not dataset["ok"].values[:, 8:].any()
    assert dataset["distance"].attrs["units"] == "1"
    assert dataset.attrs["note"] == "text"
    assert COMPLETE not in dataset
    masked = ld.masked(dataset)["distance"].values
    assert np.isfinite(masked).sum() == outputs["ok"].sum()


def test_chunks_of_any_order_give_the_same_reductions(store, tmp_path):
    other = SweepStore(tmp_path / "other.zarr")
    prepare(other)
    for index in (0, 1, 2):
        store.write(index, *chunk_of(index))
    for index in (2, 0, 1):
        other.write(index, *chunk_of(index))
    first, second = open_reductions(store.path), open_reductions(other.path)
    assert first["moments"].values.tobytes() == second["moments"].values.tobytes()
    values = np.arange(20.0).reshape(2, 10) ** 2
    assert np.array_equal(first["events"], (values > 3).sum(axis=-1))
    np.testing.assert_allclose(first["moments"], moments(values), rtol=1e-14)
    assert int(first["trials_computed"]) == 10
    assert store.progress() == (10, 10, False)


def test_a_chunk_that_is_written_while_reductions_are_read_is_neither_merged_nor_counted(store, monkeypatch):
    store.write(0, *chunk_of(0))
    read = SweepStore.read_reduced

    def overtaken(self, *arguments):
        SweepStore(store.path).write(1, *chunk_of(1))
        return read(self, *arguments)

    monkeypatch.setattr(SweepStore, "read_reduced", overtaken)
    reduced = open_reductions(store.path)
    assert list(store.complete()) == [True, True, False]
    assert np.all(reduced["moments"].values[..., 0] == 4)
    assert progress_of(reduced) == (4, 10, False)


def test_a_chunk_that_is_written_after_a_sweep_was_opened_is_neither_read_nor_counted(store):
    store.write(0, *chunk_of(0))
    dataset = open_sweep(store.path)
    store.write(1, *chunk_of(1))
    assert progress_of(dataset) == (4, 10, False)
    assert np.isnan(dataset["distance"].values[:, 4:]).all()
    assert not dataset["ok"].values[:, 4:].any()


def test_a_store_is_written_to_netcdf_as_xarray_opens_it(store, tmp_path):
    import xarray as xr

    store.write(0, *chunk_of(0))
    xr.open_zarr(store.path, chunks=None).to_netcdf(tmp_path / "plain.nc", engine="h5netcdf")
    read = xr.open_dataset(tmp_path / "plain.nc", engine="h5netcdf")
    assert json.loads(read.attrs["settings"]) == store.settings()


def test_stores_of_the_third_format_are_read_and_resumed(store):
    store.write(0, *chunk_of(0))
    before, document = open_sweep(store.path).load(), json.loads((store.path / "zarr.json").read_text())
    attributes = decoded(document["attributes"]) | {"format": "lindyn_jax sweep 3"}
    document["attributes"] = attributes | {"checksum": checksum_of(attributes)}
    (store.path / "zarr.json").write_text(json.dumps(document))
    assert isinstance(document["attributes"]["settings"], dict) and prepare(store) == store.chunk
    after = open_sweep(store.path)
    assert after.attrs.pop("format") == "lindyn_jax sweep 3" and before.attrs.pop("format") == "lindyn_jax sweep 4"
    assert after.load().identical(before)


def test_settings_with_nan_are_those_of_their_own_store(tmp_path):
    store, settings = SweepStore(tmp_path / "s"), {"stop": np.nan, "list": [np.inf, np.nan], "precision": np.float32(2)}
    prepare(store, settings)
    assert store.check(settings)
    with pytest.raises(StoreError, match="stop is NaN there and 1 here"):
        store.check({**settings, "stop": 1})


def test_settings_that_differ_in_their_order_alone_differ(tmp_path):
    prepare(SweepStore(tmp_path / "s"), {"cases": {"wide": 1, "narrow": 2}})
    with pytest.raises(StoreError, match="cases is"):
        prepare(SweepStore(tmp_path / "s"), {"cases": {"narrow": 2, "wide": 1}})


def test_settings_without_a_value_to_compare_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one is a function"):
        prepare(SweepStore(tmp_path / "s"), {"link": moments})


def test_stores_of_earlier_versions_are_refused_with_the_reason(store):
    document = json.loads((store.path / "zarr.json").read_text())
    document["attributes"]["format"] = "lindyn_jax sweep 2"
    (store.path / "zarr.json").write_text(json.dumps(document))
    for attempt in (lambda: prepare(store), lambda: open_sweep(store.path)):
        with pytest.raises(StoreError, match="of an earlier version, whose chunks cannot be checked"):
            attempt()


def test_stores_open_with_plain_xarray_and_zarr(store):
    import xarray as xr
    import zarr

    for index in (0, 1, 2):
        store.write(index, *chunk_of(index))
    plain = xr.open_zarr(store.path, consolidated=False, chunks=None)
    assert np.array_equal(plain["distance"], np.arange(20.0).reshape(2, 10) ** 2)
    assert np.array_equal(zarr.open_group(store.path, mode="r")["steps"][:], plain["distance"])
    assert json.loads(plain.attrs["settings"])["seed"] == 0


@pytest.mark.parametrize("live", [False, True])
def test_stores_whose_making_was_killed_are_cleared_away(tmp_path, live):
    process = os.getpid() if live else 2**22 + 1
    leftover = tmp_path / f".sweep.zarr.building-{process}-{'0' * 32}"
    leftover.mkdir()
    prepare(SweepStore(tmp_path / "sweep.zarr"))
    assert leftover.exists() == live
    os.utime(leftover, (0, 0)) if live else None
    prepare(SweepStore(tmp_path / "sweep.zarr"))
    assert os.listdir(tmp_path) == ["sweep.zarr"]


@pytest.mark.parametrize("is_new", [False, True])
def test_a_store_is_whole_whenever_its_replacement_was_interrupted(store, is_new):
    store.write(0, *chunk_of(0))
    former, more = (store.path.parent / f".sweep.zarr.{name}" for name in ("former", "more"))
    more.mkdir()
    # Between the two moves, and after them.
    shutil.copytree(store.path, former)
    None if is_new else shutil.rmtree(store.path)
    store.recover()
    assert more.exists() and former.exists() == is_new
    assert prepare(store) == 4 and list(store.complete()) == [True, False, False]
    # Points on their way are lost only where they were added.
    assert more.exists() != is_new and not former.exists()


def test_the_folder_at_hand_can_be_a_store(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    prepare(SweepStore("."))
    assert SweepStore(tmp_path / "here").settings() == {"seed": 0} and os.listdir(tmp_path) == ["here"]
    with pytest.raises(StoreError, match="/ is not a sweep store"):
        prepare(SweepStore("/"))


def test_reductions_of_nothing_are_zeros(store):
    reduced = open_reductions(store.path)
    assert int(reduced["trials_computed"]) == 0
    assert not reduced["events"].any()
    assert list(reduced["width"].values) == list(WIDTHS)


def test_chunks_beyond_an_early_stop_do_not_count(store):
    for index in (0, 1, 2):
        store.write(index, *chunk_of(index))
    store.set_stop({"chunks": 2, "trials": 8})
    assert store.progress() == (8, 10, True)
    assert int(open_sweep(store.path)["computed"].sum()) == 8
    assert int(open_reductions(store.path)["trials_computed"]) == 8
    store.set_stop(None)
    assert store.progress() == (10, 10, False)
    assert bool(open_sweep(store.path)["computed"].all())


def test_a_folder_with_a_store_in_it_opens_and_one_without_says_so(store, tmp_path):
    assert open_sweep(tmp_path).sizes == open_sweep(store.path).sizes
    with pytest.raises(FileNotFoundError, match="no sweep store"):
        open_sweep(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no sweep store"):
        open_reductions(tmp_path / "nothing")


def test_merged_moments_are_those_of_the_union(rng):
    # Far from zero, where the sum of squares less the squared sum has no digit left.
    parts = [1e9 + rng.normal(size=(3, size)) for size in (1, 50, 7)]
    merged = Merged({"moments": "moments", "count": "sum"})
    for part in parts:
        merged.add({"moments": moments(part), "count": np.full(3, part.shape[1], np.int32)})
    whole = moments(np.concatenate(parts, axis=1))
    assert np.array_equal(merged.values["count"], [58, 58, 58])
    # 1e9 has 1e-7 of absolute resolution, against deviations of order one.
    np.testing.assert_allclose(merged.values["moments"], whole, rtol=1e-6)
    empty = np.array([0, 0, 0, np.inf, -np.inf])
    assert np.array_equal(merge("moments", empty, whole[0]), whole[0])
    assert np.array_equal(merge("moments", whole[0], empty), whole[0])
    assert np.array_equal(merge("moments", empty, empty), empty)


def test_counts_are_merged_beyond_32_bits():
    large = np.array([2**31 - 1], np.int32)
    assert merge("sum", large, large)[0] == 2**32 - 2
