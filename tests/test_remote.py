"""Sweeps in object stores: the bits of a folder, whatever interrupts them, and sentences for what cannot be done there."""

import datetime
import functools
import json
import math
import os
import platform
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lindyn_jax as ld
from lindyn_jax import _files, statistics
from lindyn_jax.ensemble import StoreError, bucket, contents

pytest.importorskip("upath", reason="needs the extra `remote`")
GRID = {"width": [2.0, 3.0]}


def trial(key, width):
    draw = jax.random.normal(key, (2,)) * width
    return {"draw": draw, "least": jnp.min(draw)}


def run(store, trials=5, grid=GRID, trial=trial, **options):
    reductions = {"least_moments": statistics.Moments("least")}
    key = jax.random.key(3)
    return ld.run_ensemble(trial, grid, trials, key=key, chunk=2, store=store, reductions=reductions, **options)


@pytest.fixture
def address(request):
    # One memory for the whole process: each test has a name of its own.
    return f"memory://bucket/{request.node.name}/sweep.zarr"


def files_of(address):
    """Name -> contents of all files of a store but those in which its identity is."""
    place = _files.place(address)
    names = [str(file).split("sweep.zarr/")[1] for file in place.rglob("*") if file.is_file()]
    return {name: (place / name).read_bytes() for name in names if "complete" not in name and name != "zarr.json"}


def test_a_store_at_an_address_holds_the_files_of_a_folder(address, tmp_path):
    run(address), run(tmp_path / "sweep.zarr")
    there, here = files_of(address), files_of(tmp_path / "sweep.zarr")
    there.pop("stopped_early/c/0"), here.pop("stopped_early/c/0")
    assert there == here and len(here) > 10
    both = [ld.open_sweep(place) for place in (address, tmp_path / "sweep.zarr")]
    assert both[0].drop_attrs().identical(both[1].drop_attrs())
    assert both[0]["width"].attrs["long_name"] == "hidden width $h$"
    assert json.loads(both[0].attrs["settings"])["trials"] == 5
    assert "state" not in both[0].attrs and not (_files.place(address) / "making").exists()
    moments = [ld.open_reductions(place)["least_moments"].values for place in (address, tmp_path / "sweep.zarr")]
    np.testing.assert_array_equal(*moments)
    assert contents.estimates_of(address)[0].sizes == {"width": 2}


def test_a_run_that_ends_anywhere_is_resumed_to_the_same_bits(address, monkeypatch):
    put, written = _files.put, []

    def failing(path, data, most=math.inf):
        if len(written) >= most:
            raise KeyboardInterrupt
        written.append(str(path))
        put(path, data)

    monkeypatch.setattr(_files, "put", failing)
    whole, number = run(address).load(), len(written)
    # While the store is made, and between two chunks.
    for most in (number // 2, number - 2):
        written.clear()
        monkeypatch.setattr(_files, "put", functools.partial(failing, most=most))
        with pytest.raises(KeyboardInterrupt):
            run(f"{address}{most}")
        monkeypatch.setattr(_files, "put", put)
        assert run(f"{address}{most}").load().drop_attrs().identical(whole.drop_attrs())


def test_files_that_are_lost_or_changed_are_computed_again(address):
    first, place = run(address).load(), _files.place(address)
    (place / "least/c/0/1").write_bytes(b"x")
    (place / "draw/c/0/0/0").unlink()
    with pytest.warns(UserWarning, match="damaged"):
        assert not ld.open_sweep(address)["computed"].values[:4].any()
    (place / "width/zarr.json").unlink()
    with pytest.raises(StoreError, match=r"width/zarr.json is missing"):
        ld.open_sweep(address)
    with pytest.warns(UserWarning, match="mended"), pytest.warns(UserWarning, match="2 chunks"):
        again = run(address).load()
    assert again.drop_attrs().identical(first.drop_attrs())


def test_a_store_grows_by_trials(address, tmp_path):
    calls = []

    def counted(key, width):
        jax.debug.callback(lambda: calls.append(1))
        return trial(key, width)

    run(address, 5, trial=counted)
    first = len(calls)
    assert run(address, 8, trial=counted).load().drop_attrs().identical(run(tmp_path / "whole", 8).load().drop_attrs())
    # Its last chunk was cut short.
    assert first == 12 and len(calls) - first == 8


def failing_after(number, function):
    """A function that is interrupted at one of its calls."""
    calls = []

    def call(*arguments, **options):
        calls.append(1)
        if len(calls) > number:
            raise KeyboardInterrupt
        return function(*arguments, **options)

    return call


@pytest.mark.parametrize("keep", [True, False])
def test_a_grid_grows_to_the_bits_of_a_run_of_all_of_it_wherever_it_is_interrupted(
    address, tmp_path, keep, monkeypatch
):
    longer, seen, files = {"width": [4.0, 2.0, 3.0]}, [], type(_files.place(address).fs)
    whole = run(tmp_path / "whole", grid=longer, keep_trials=keep).load()
    run(address, keep_trials=keep)
    # While the store of the new points is made, while the store of all is put beside the other, and while it is copied over it.
    cuts = [(_files, "put", 4), (_files, "upload", 1), (files, "cp_file", 0), (files, "cp_file", 9)]
    for place, name, number in cuts:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(place, name, failing_after(number, getattr(place, name)))
            run(address, grid=longer, keep_trials=keep)
    with pytest.raises(StoreError, match="is damaged"):
        # In the middle nothing is read that is neither of the one nor of the other.
        ld.open_sweep(address)
    found = run(address, grid=longer, keep_trials=keep, progress=lambda done, total: seen.append(done)).load()
    assert found.drop_attrs().identical(whole.drop_attrs()) and seen == [15]
    assert json.loads(found.attrs["settings"])["grid"] == longer
    moments = [ld.open_reductions(place)["least_moments"].values for place in (address, tmp_path / "whole")]
    np.testing.assert_array_equal(*moments)
    folder = _files.place(address).parent
    assert {name.removeprefix(folder.path).split("/")[1] for name in folder.fs.find(folder.path)} == {"sweep.zarr"}


def put_lock(address, process, host):
    lock = _files.place(address).parent / ".sweep.zarr.driver" / "of-another"
    lock.write_bytes(json.dumps({"process": process, "host": host}).encode())
    return lock


def test_a_second_run_is_refused_until_the_first_is_dead(address):
    def second(done, total):
        with pytest.raises(StoreError, match=f"is being computed by process {os.getpid()} on "):
            run(address)

    whole = run(address, progress=second)
    # Of this host by its number, which may be one of a former life, and of others by signs of life.
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        lock = put_lock(address, living.pid, platform.node())
        with pytest.raises(StoreError, match=f"is being computed by process {living.pid} on "):
            run(address)
    assert lock.exists()
    run(address)
    assert not lock.exists()
    put_lock(address, os.getpid(), platform.node())
    run(address)
    lock = put_lock(address, 1, "elsewhere")
    with pytest.raises(StoreError, match="is being computed by process 1 on elsewhere: wait for it, or end it"):
        run(address)
    lock.fs.store[lock.path].modified -= datetime.timedelta(seconds=bucket.PATIENCE + 1)
    assert run(address).load().identical(whole.load()) and not lock.exists()
    assert not lock.fs.find(lock.parent.path)


def test_a_run_gives_signs_of_life_and_ends_where_it_was_taken_over(address, monkeypatch):
    monkeypatch.setattr(bucket, "BEAT", 0.01)
    folder, seen = _files.place(address).parent / ".sweep.zarr.driver", []

    def taken_over(done, total):
        (lock,) = folder.fs.find(folder.path)
        first = folder.fs.modified(lock)
        while folder.fs.modified(lock) == first:
            time.sleep(0.01)
        seen.append(done)
        folder.fs.rm_file(lock)
        time.sleep(0.5)

    with pytest.raises(StoreError, match="was taken over by another run"):
        run(address, progress=taken_over)
    assert seen == [0] and not folder.fs.find(folder.path)
    run(address)


def test_what_is_no_store_and_other_settings_are_refused(address):
    _files.place(address).joinpath("notes.txt").write_bytes(b"mine")
    with pytest.raises(StoreError, match="is no sweep store"):
        run(address)
    other = address.replace("sweep", "second")
    run(other)
    with pytest.raises(StoreError, match="made with other settings"):
        run(other, grid={"width": [7.0, 8.0]})
    with pytest.raises(FileNotFoundError):
        ld.open_sweep("memory://bucket/nothing/sweep.zarr")
    with pytest.raises(ValueError, match=r"cannot be reached.*lindyn_jax\[remote\]"):
        run("unheard-of://bucket/sweep.zarr")


def test_what_the_disk_lacks_is_said_of_an_address_as_well(address, monkeypatch):
    run(address)

    def refused(path):
        raise PermissionError(13, "Access Denied")

    monkeypatch.setattr(_files, "read", refused)
    with pytest.raises(StoreError, match="cannot be used \\(Access Denied\\)"):
        run(address)
