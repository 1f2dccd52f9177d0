"""Stores that lost files, changed bytes or power: everything is healed or named, and nothing is counted wrong."""

import errno
import os
import shutil
import stat
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from lindyn_jax.ensemble import (
    COMPLETE,
    ROOT,
    StoreError,
    SweepStore,
    Variable,
    check_dataset,
    open_reductions,
    open_sweep,
    progress_of,
    save_dataset,
)

WIDTHS = np.array([10.0, 100.0])
VALUES = {
    "distance": Variable(("width", "trial", "time"), (2, 10, 3), np.dtype("float64"), {"units": "1"}),
    "ok": Variable(("width", "trial"), (2, 10), np.dtype("bool"), {}),
}
REDUCED = {"events": Variable(("width",), (2,), np.dtype("int32"), {"merging": "sum"})}


def prepare(store, **options):
    coordinates = {"width": WIDTHS, "trial": np.arange(10)}
    return store.prepare(VALUES, coordinates, {"seed": 0}, {}, 10, 4, REDUCED, **options)


def chunk_of(index):
    part = slice(4 * index, min(4 * index + 4, 10))
    values = 1 + np.arange(60.0).reshape(2, 10, 3)[:, part]
    # Chunk 2 holds nothing but fill values among its flags and counts.
    ok = np.full(values.shape[:2], index < 2)
    return part, {"distance": values, "ok": ok}, {"events": ok.sum(axis=-1).astype(np.int32)}


def run(path):
    """What a study does with its store: makes or mends it, computes what is not there, and reads it."""
    store = SweepStore(path)
    prepare(store)
    computed = [int(index) for index in np.flatnonzero(~store.complete())]
    for index in computed:
        store.write(index, *chunk_of(index))
    store.set_stop(None)
    return computed


def read(path):
    trials, reduced = open_sweep(path).load(), open_reductions(path)
    assert progress_of(trials)[0] == trials["computed"].sum()
    assert progress_of(reduced)[0] == reduced["trials_computed"]
    return trials, reduced


def files_of(path):
    return sorted(file for file in Path(path).rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "sweep.zarr"
    assert run(path) == [0, 1, 2]
    assert run(path) == []
    return path


def delete(rng, file, others):
    file.unlink()


def empty(rng, file, others):
    file.write_bytes(b"")


def truncate(rng, file, others):
    data = file.read_bytes()
    file.write_bytes(data[: rng.integers(len(data))])


def flip(rng, file, others):
    data = bytearray(file.read_bytes())
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    file.write_bytes(bytes(data))


def swap(rng, file, others):
    other = others[rng.integers(len(others))]
    first, second = file.read_bytes(), other.read_bytes()
    file.write_bytes(second)
    other.write_bytes(first)


def delete_folder(rng, file, others):
    shutil.rmtree(file.parent)


def garble(rng, file, others):
    file.write_bytes(rng.bytes(file.stat().st_size))


DAMAGES = (delete, empty, truncate, flip, swap, delete_folder, garble)


@pytest.mark.parametrize("times", [15, *(pytest.param(50 + part, marks=pytest.mark.slow) for part in range(4))])
def test_random_damages_are_healed_or_named_and_nothing_is_counted_wrong(times, finished, tmp_path, rng, monkeypatch):
    trials, reduced = read(finished)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    healed = named = 0
    for repetition in range(times):
        path = tmp_path / f"{repetition}" / "sweep.zarr"
        shutil.copytree(finished, path)
        files = files_of(path)
        damage = DAMAGES[rng.integers(len(DAMAGES))]
        file = files[rng.integers(len(files))]
        damage(rng, file, files)
        note = f"{damage.__name__} of {file.relative_to(path)}"
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                seen, merged = read(path)
            except (StoreError, FileNotFoundError) as error:
                assert len(str(error)) < 300, note
                told.append(error)
            else:
                there = seen["computed"].values
                assert progress_of(merged)[0] == there.sum(), note
                assert np.array_equal(seen["distance"].values[:, there], trials["distance"].values[:, there]), note
                assert np.isnan(seen["distance"].values[:, ~there]).all(), note
                flags = trials["ok"].values & there
                assert np.array_equal(merged["events"], flags.sum(axis=-1)), note
                # A chunk whose mark is gone is one that was never computed.
                unmarked = COMPLETE in str(file) and not file.exists()
                assert there.all() or told or unmarked, note
            try:
                run(path)
            except StoreError as error:
                assert ROOT in str(error) or "holds a sweep" in str(error), f"{note}: {error}"
                named += 1
                continue
            again, merged = read(path)
        for first, second in ((trials, again), (reduced, merged)):
            assert set(first.variables) == set(second.variables), note
            for name in first.variables:
                assert first[name].values.tobytes() == second[name].values.tobytes(), f"{note}: {name}"
                assert first[name].attrs == second[name].attrs, note
        healed += 1
        shutil.rmtree(path.parent)
    # Only what says which store it is cannot be had again.
    assert healed + named == times
    assert named < 0.3 * times


class Disk:
    """What a disk holds that forgets everything it was not asked for: contents of files and entries of folders, by inode.

    After `limit` requests the power is lost.
    """

    def __init__(self, root, limit):
        self.root, self.limit, self.requests = root, limit, 0
        self.entries, self.contents = {root.stat().st_ino: {}}, {}

    def fsync(self, descriptor):
        if self.requests >= self.limit:
            raise PowerLoss
        self.requests += 1
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self.entries[status.st_ino] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self.contents[status.st_ino] = path.read_bytes()

    def after_power_loss(self, rng, target, inode=None):
        """Writes what the disk holds: a file that it was not asked for is empty, or half of it is there, or it is garbage."""
        target.mkdir()
        for name, entry in self.entries.get(inode or self.root.stat().st_ino, {}).items():
            if entry in self.entries or entry in self.folders:
                self.after_power_loss(rng, target / name, entry)
            else:
                lost = (b"", rng.bytes(40))[rng.integers(2)]
                (target / name).write_bytes(self.contents.get(entry, lost))

    @property
    def folders(self):
        return {path.stat().st_ino for path in self.root.rglob("*") if path.is_dir()}


class PowerLoss(BaseException):
    pass


@pytest.mark.parametrize("moments", [8, pytest.param(20, marks=pytest.mark.slow)])
def test_after_a_loss_of_power_at_any_moment_the_store_goes_on(moments, finished, tmp_path, rng, monkeypatch):
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to see which file is synchronised")
    trials, reduced = read(finished)
    (tmp_path / "count").mkdir()
    whole = Disk(tmp_path / "count", np.inf)
    monkeypatch.setattr(os, "fsync", whole.fsync)
    run(tmp_path / "count" / "sweep.zarr")
    kept = set()
    for repetition in range(moments):
        before, after = tmp_path / f"{repetition}-before", tmp_path / f"{repetition}-after"
        before.mkdir()
        # One moment in every part of the run, and its end.
        moment = int((repetition - rng.uniform()) / moments * whole.requests) if repetition else whole.requests
        disk = Disk(before, moment)
        monkeypatch.setattr(os, "fsync", disk.fsync)
        try:
            run(before / "sweep.zarr")
        except PowerLoss:
            assert repetition
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        disk.after_power_loss(rng, after)
        # Not even a warning: what was marked is whole.
        computed = run(after / "sweep.zarr")
        kept.add(3 - len(computed))
        again, merged = read(after / "sweep.zarr")
        for first, second in ((trials, again), (reduced, merged)):
            for name in first.variables:
                assert first[name].values.tobytes() == second[name].values.tobytes(), (repetition, name)
        if repetition == 0:
            assert computed == [], "what had ended was lost"
    assert kept == {0, 1, 2, 3}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_at_any_moment_ends_in_a_sentence_and_keeps_what_is_complete(number, finished, tmp_path, rng):
    trials, _ = read(finished)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        done = -1
        for limit in range(0, 60, 7):
            path, left = tmp_path / "sweep.zarr", [limit]
            before = SweepStore(path).complete().sum() if path.exists() else 0

            def fails(descriptor, left=left):
                left[0] -= 1
                if left[0] < 0:
                    raise OSError(number, os.strerror(number))

            patch.setattr(os, "fsync", fails)
            try:
                run(path)
            except StoreError as error:
                assert os.strerror(number) in str(error) and str(error).count("\n") == 0
            patch.setattr(os, "fsync", lambda descriptor: None)
            done = SweepStore(path).complete().sum() if path.exists() else 0
            assert done >= before
            assert not list(tmp_path.glob(".sweep*")) and not list(tmp_path.rglob("*.partial"))
        run(path)
    assert open_sweep(path)["distance"].values.tobytes() == trials["distance"].values.tobytes()


def test_a_finished_store_on_a_read_only_disk_is_read_and_resumed(finished, monkeypatch, tmp_path):
    path = shutil.copytree(finished, tmp_path / "sweep.zarr")

    def refuses(*arguments, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for place in (
        "os.replace",
        "os.rename",
        "os.fsync",
        "os.mkdir",
        "os.unlink",
        "os.rmdir",
        "pathlib.Path.write_bytes",
    ):
        monkeypatch.setattr(place, refuses)
    assert run(path) == []
    assert read(path)[0].identical(read(finished)[0])


def test_what_is_no_place_for_a_store_is_named(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    for path, match in (
        (tmp_path / ("a" * 300), "File name too long"),
        (Path(f"{tmp_path}{'/x' * 2100}"), "File name too long"),
        (tmp_path / "link", "is a link to .*nowhere, which does not exist"),
        (tmp_path / "file" / "sweep.zarr", "Not a directory|File exists"),
        (Path("/dev/null") / "sweep.zarr", "Not a directory|File exists"),
        (tmp_path / "link" / "sweep.zarr", "is a link to .*nowhere, which does not exist"),
    ):
        with pytest.raises(StoreError, match=match):
            run(path)
        with pytest.raises((StoreError, FileNotFoundError)):
            open_sweep(path)
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_saved_datasets_are_replaced_whole_and_known_by_their_bytes(tmp_path, rng, monkeypatch):
    path = tmp_path / "trajectory.zarr"
    dataset = xr.Dataset({"loss": ("time", np.arange(1.0, 6.0))}, attrs={"seed": 1})
    save_dataset(dataset, path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="full"):
        save_dataset(dataset * 2, path)
    assert os.listdir(tmp_path) == ["trajectory.zarr"]
    check_dataset(path)
    assert np.array_equal(xr.open_zarr(path, consolidated=False)["loss"], dataset["loss"])
    flip(rng, path / "loss" / "c" / "0", ())
    with pytest.raises(StoreError, match="loss/c/0 is damaged"):
        check_dataset(path)
