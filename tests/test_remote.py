"""Sweeps in object stores: the bits of a folder, whatever interrupts them, and sentences for what cannot be done there."""

import functools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lindyn_jax as ld
from lindyn_jax import _files, statistics
from lindyn_jax.ensemble import StoreError, contents

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
    assert "state" not in both[0].attrs and not (_files.place(address) / "making").exists()
    moments = [ld.open_reductions(place)["least_moments"].values for place in (address, tmp_path / "sweep.zarr")]
    np.testing.assert_array_equal(*moments)
    assert contents.summary_of(address).sizes == {"width": 2}


def test_a_run_that_ends_anywhere_is_resumed_to_the_same_bits(address, monkeypatch):
    put, written = _files.put, []

    def failing(path, data, most=math.inf):
        if len(written) >= most:
            raise KeyboardInterrupt
        written.append(str(path))
        put(path, data)

    monkeypatch.setattr(_files, "put", failing)
    whole, number = run(address).load(), len(written)
    # While the store is made, before its last file, and between two chunks.
    for most in (0, number // 2, number - 5, number - 2):
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


def test_a_store_grows_by_trials_and_says_where_a_grid_can_grow(address, tmp_path):
    calls = []

    def counted(key, width):
        jax.debug.callback(lambda: calls.append(1))
        return trial(key, width)

    run(address, 5, trial=counted)
    first = len(calls)
    assert run(address, 8, trial=counted).load().drop_attrs().identical(run(tmp_path / "whole", 8).load().drop_attrs())
    # Its last chunk was cut short.
    assert first == 12 and len(calls) - first == 8
    with pytest.raises(StoreError, match=r"lies in an object store.*copy it to a folder"):
        run(address, 8, {"width": [2.0, 3.0, 4.0]})


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


def test_settings_of_a_store_at_an_address_are_texts(address):
    assert json.loads(run(address).attrs["settings"])["trials"] == 5
