"""Monte Carlo: reductions are statistics of the trials, and no bit depends on how the work is cut up."""

import os
import shutil
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr

import lindyn_jax as ld
from lindyn_jax import ensemble
from lindyn_jax.ensemble import COMPLETE, StoreError, open_reductions, progress_of
from lindyn_jax.statistics import Count, Histogram, Moments, histogram_quantile

GRID = {"scale": [1.0, 10.0], "shift": [0.0, 1.0, 2.0]}
KEPT = {
    "large": Count("large"),
    "value": Moments("value"),
    "sketch": Histogram("value", 1e-6, 1e6, 2000),
    "range": Moments(lambda outputs: outputs["value"].max(axis=1) - outputs["value"].min(axis=1), ("scale",)),
}


def trial(key, scale, shift):
    normal = jax.random.normal(key)
    # Some trials fail: about one in six.
    value = jnp.where(normal > 1, jnp.inf, scale * jnp.exp(normal) + shift)
    return {"value": value, "large": normal > 0.5, "vector": jnp.stack([normal, shift]), "ok": normal <= 1}


def run(trials=100, **options):
    defaults = {"key": jax.random.key(3), "chunk": 16, "reductions": KEPT}
    return ld.run_ensemble(trial, GRID, trials, **{**defaults, **options})


@pytest.fixture(scope="module")
def trials():
    return run()


@pytest.fixture(scope="module")
def reduced():
    return run(keep_trials=False)


def same_bits(first, second):
    names = set(first.variables)
    assert names == set(second.variables)
    return [name for name in sorted(names) if first[name].values.tobytes() != second[name].values.tobytes()]


def test_trial_keys_are_folded_from_the_root_and_shared_by_the_grid(trials):
    normals = np.array([jax.random.normal(jax.random.fold_in(jax.random.key(3), i)) for i in range(100)])
    for point in np.ndindex(2, 3):
        assert np.array_equal(trials["vector"].values[point][:, 0], normals)


def test_counts_are_those_of_all_trials_and_leave_out_padding(trials, reduced):
    # 100 trials in chunks of 16: the last one is padded by 12.
    assert int(reduced["trials_computed"]) == 100
    assert np.array_equal(reduced["large"].values, trials["large"].values.sum(axis=-1))


def test_moments_are_those_of_the_trials_that_succeeded(trials, reduced):
    ok = trials["ok"].values
    assert 0 < (~ok).sum() < ok.size
    for point in np.ndindex(2, 3):
        values = trials["value"].values[point][ok[point]]
        expected = [values.size, values.mean(), ((values - values.mean()) ** 2).sum(), values.min(), values.max()]
        np.testing.assert_allclose(reduced["value"].values[point], expected, rtol=1e-12)


def test_a_reduction_can_join_the_points_of_the_grid(trials, reduced):
    values = np.where(trials["ok"], trials["value"], np.nan)
    spread = values.max(axis=1) - values.min(axis=1)
    np.testing.assert_allclose(reduced["range"].values[:, 1], np.nanmean(spread, axis=-1), rtol=1e-12)
    assert reduced["range"].dims == ("scale", "moment")


def test_quantiles_of_the_sketch_are_off_by_a_bin_at_most(trials, reduced):
    bin_ratio = 1e12 ** (1 / 2000)
    for q in (0.0, 0.05, 0.5, 0.95, 1.0):
        values = np.where(trials["ok"], trials["value"], np.nan)
        # Between the order statistics that bracket the rank, widened by a bin.
        low = np.nanquantile(values, q, axis=-1, method="lower") / bin_ratio
        high = np.nanquantile(values, q, axis=-1, method="higher") * bin_ratio
        sketch = histogram_quantile(reduced["sketch"].values, 1e-6, 1e6, q, reduced["value"].values)
        assert np.all((low <= sketch) & (sketch <= high))


@pytest.mark.parametrize("batch", ["vmap", "blocks"])
def test_vectorised_trials_are_the_mapped_ones_to_round_off(batch, trials):
    lock_step = run(batch=batch)
    np.testing.assert_allclose(lock_step["value"], trials["value"], rtol=1e-13)
    assert np.array_equal(lock_step["ok"], trials["ok"])


def test_the_chunk_moves_no_trial_and_no_count(trials, reduced):
    assert same_bits(trials, run(chunk=100)) == []
    other = run(chunk=7, keep_trials=False)
    assert np.array_equal(other["sketch"], reduced["sketch"])
    np.testing.assert_allclose(other["value"], reduced["value"], rtol=1e-13)


def test_the_chunk_is_fitted_to_the_memory_of_the_device(trials, monkeypatch):
    free = run(chunk=None, largest_chunk=64)
    assert free.attrs["chunk"] == 64
    needed = ensemble.Runner(
        trial, {n: np.array(v) for n, v in GRID.items()}, jax.random.key(3), 64, "map", KEPT
    ).memory
    # Room for half of what 64 trials need, of which half may be used.
    monkeypatch.setattr("lindyn_jax.ensemble.work.free_memory", lambda: needed / 2)
    tight = run(chunk=None, largest_chunk=64)
    assert 1 <= tight.attrs["chunk"] <= 32
    assert same_bits(free, tight) == []


def test_a_store_gives_the_reductions_that_memory_gives(reduced, tmp_path):
    stored = run(keep_trials=False, store=tmp_path / "store")
    assert same_bits(stored, reduced) == []
    assert "trial" not in stored.dims
    assert same_bits(ld.open_sweep(tmp_path / "store"), reduced) == []
    run(store=tmp_path / "both")
    assert same_bits(open_reductions(tmp_path / "both"), reduced) == []


def test_a_run_goes_on_where_an_earlier_one_stopped(trials, tmp_path):
    class Ended(Exception):
        pass

    def end(done, total):
        if done == 32 * 6:
            raise Ended

    with pytest.raises(Ended):
        run(store=tmp_path / "store", progress=end)
    assert progress_of(ld.open_sweep(tmp_path / "store")) == (32, 100, False)
    computed = []
    whole = run(store=tmp_path / "store", progress=lambda done, total: computed.append(done))
    # Chunks 0 and 1 of 7 are there already, 32 trials at six points, and are not computed again.
    assert computed[0] == 32 * 6
    assert len(computed) == 1 + 5
    assert same_bits(whole.drop_vars("computed"), trials) == []


def test_a_run_with_other_settings_is_refused(tmp_path):
    run(32, store=tmp_path / "store", settings={"stop": 1e-8})
    with pytest.raises(StoreError, match=r"stop is 1e-08 there and 1e-06 here"):
        run(32, store=tmp_path / "store", settings={"stop": 1e-6})
    with pytest.raises(StoreError, match="keep_trials is true there and false here"):
        run(32, store=tmp_path / "store", settings={"stop": 1e-8}, keep_trials=False)


def outputs(**values):
    return lambda key, **point: {name: jnp.asarray(value, float) for name, value in values.items()}


@pytest.mark.parametrize(
    ("returned", "grid", "options", "match"),
    [
        ({"rate [/s]": 1}, {"x": [1.0]}, {}, r"Output may not be called 'rate \[/s\]': names are those of folders"),
        ({"a": 1}, {"x/y": [1.0]}, {}, "A grid coordinate may not be called 'x/y'"),
        ({"a": 1, "..": 2}, {"x": [1.0]}, {}, r"Output may not be called '\.\.'"),
        ({"a" * 300: 1}, {"x": [1.0]}, {}, "name of more than 200 bytes"),
        ({"computed": 1}, {"x": [1.0]}, {}, "Output may not be called `computed`, which a store uses itself"),
        ({"trial": 1}, {"x": [1.0]}, {}, "Output may not be called `trial`"),
        ({"reduced": 1}, {"x": [1.0]}, {}, "Output may not be called `reduced`"),
        ({"chunk_complete": 1}, {"x": [1.0]}, {}, "Output may not be called `chunk_complete`"),
        ({"a": 1}, {"computed": [1.0]}, {}, "A grid coordinate may not be called `computed`"),
        ({"a": 1}, {"trial": [1.0]}, {}, "A grid coordinate may not be called `trial`"),
        ({"width": 1}, {"width": [1.0]}, {}, "Output `width` has the name of a dimension or grid coordinate"),
        ({"a": 1}, {"ok": [1.0]}, {}, "Output `ok` has the name of a dimension or grid coordinate"),
        ({"a": [1, 2], "a_0": 1}, {"x": [1.0]}, {}, "Output `a_0` has the name of a dimension"),
        ({"a": [1, 2]}, {"x": [1.0]}, {"dims": {"a": ("x",)}}, "Output `a` has a dimension twice"),
        (
            {"a": [1, 2]},
            {"x": [1.0]},
            {"dims": {"a": ("chunk",)}},
            "A dimension of output `a` may not be called `chunk`",
        ),
        ({"a": [1, 2], "b": [1]}, {"x": [1.0]}, {"dims": {"a": ("t",), "b": ("t",)}}, "Dimension `t` has length 1"),
        ({"a": []}, {"x": [1.0]}, {}, "there is nothing in it to keep"),
        ({"a": 1}, {"x": [1.0]}, {"reductions": {"x": Moments("a")}}, "Reduction `x` has the name of a dimension"),
        (
            {"a": 1},
            {"x": [1.0]},
            {"reductions": {"trials_computed": Moments("a")}},
            "may not be called `trials_computed`",
        ),
    ],
)
def test_names_that_a_store_cannot_hold_are_refused_before_anything_is_computed(
    returned, grid, options, match, tmp_path
):
    def progress(done, total):
        raise AssertionError("something was computed")

    for store in (None, tmp_path / "store"):
        with pytest.raises(ValueError, match=match):
            ld.run_ensemble(
                outputs(**returned), grid, 2, key=jax.random.key(0), store=store, progress=progress, **options
            )
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("first", "second", "match"),
    [
        ({"a": 1}, {"a": 1, "b": 1}, r"output `b` is missing there and float64 \(x, trial\) \(1, 2\) here"),
        ({"a": 1, "b": 1}, {"a": 1}, "output `b` is float64 .* there and missing here"),
        ({"a": 1}, {"a": [1, 2]}, "output `a` is float64"),
    ],
)
def test_a_store_of_other_outputs_is_refused(first, second, match, tmp_path):
    ld.run_ensemble(outputs(**first), {"x": [1.0]}, 2, key=jax.random.key(0), store=tmp_path / "s")
    with pytest.raises(StoreError, match=match):
        ld.run_ensemble(outputs(**second), {"x": [1.0]}, 2, key=jax.random.key(0), store=tmp_path / "s")


def test_a_store_of_other_reductions_is_refused(tmp_path):
    def kept(**reductions):
        grid, key = {"x": [1.0]}, jax.random.key(0)
        return ld.run_ensemble(outputs(a=1), grid, 2, key=key, store=tmp_path / "s", reductions=reductions)

    kept(a=Histogram("a", 1.0, 2.0, 10))
    for reductions in ({"a": Histogram("a", 1.0, 3.0, 10)}, {"a": Moments("a")}, {}):
        with pytest.raises(StoreError, match="reductions is"):
            kept(**reductions)


def uniform(key, x):
    first, second = jax.random.split(key)
    return {"a": x * jax.random.uniform(first), "b": jax.random.normal(second, (2,))}


@pytest.mark.parametrize("generator", ["rbg", "unsafe_rbg"])
def test_trials_of_rbg_keys_do_not_depend_on_how_the_work_is_cut_up(generator, tmp_path):
    key = jax.random.key(1, impl=generator)
    whole = ld.run_ensemble(uniform, {"x": [1.0, 2.0]}, 6, key=key, store=tmp_path / "s")
    other = ld.run_ensemble(uniform, {"x": [1.0, 2.0]}, 6, key=key, chunk=2)
    assert same_bits(whole.drop_vars("computed"), other) == []
    alone = jax.jit(lambda index: uniform(jax.random.fold_in(key, index), 1.0))
    assert np.array_equal(whole["b"].values[1], np.array([alone(index)["b"] for index in range(6)]))
    for batch in ("vmap", "blocks"):
        with pytest.raises(ValueError, match=f"generator {generator}, whose numbers depend on which trials"):
            ld.run_ensemble(uniform, {"x": [1.0]}, 6, key=key, batch=batch)


def test_keys_of_the_same_words_and_another_generator_are_other_settings(tmp_path):
    words = jax.random.key_data(jax.random.key(1, impl="rbg"))
    for generator in ("rbg", "unsafe_rbg"):
        key = jax.random.wrap_key_data(words, impl=generator)
        if generator == "rbg":
            ld.run_ensemble(uniform, {"x": [1.0]}, 2, key=key, store=tmp_path / "s")
        else:
            with pytest.raises(StoreError, match='generator is "rbg" there and "unsafe_rbg" here'):
                ld.run_ensemble(uniform, {"x": [1.0]}, 2, key=key, store=tmp_path / "s")


def test_damaged_chunks_are_computed_again_to_the_same_bits_and_a_warning_says_so(trials, reduced, tmp_path):
    run(store=tmp_path / "store")
    (tmp_path / "store" / "large" / "c" / "0" / "0" / "3").unlink()
    garbled = tmp_path / "store" / "reduced" / "sketch" / "c" / "5" / "0" / "0" / "0"
    garbled.write_bytes(garbled.read_bytes()[:-3])
    with pytest.warns(UserWarning, match=r"2 chunks of .* are damaged \(chunk 3: large/c/0/0/3 is missing\)"):
        part = ld.open_sweep(tmp_path / "store")
    assert progress_of(part) == (100 - 2 * 16, 100, False)
    assert not part["computed"].values[3 * 16 : 4 * 16].any()
    seen = []
    with pytest.warns(UserWarning, match="the same run computes them again"):
        whole = run(store=tmp_path / "store", progress=lambda done, total: seen.append(done))
    assert seen == [68 * 6, 84 * 6, 100 * 6]
    assert same_bits(whole.drop_vars("computed"), trials) == []
    assert same_bits(open_reductions(tmp_path / "store"), reduced) == []


def narrow(merged, count):
    return bool(np.all(merged["value"][..., 0] >= 40))


def test_stopping_early_depends_on_the_chunk_only(trials, tmp_path):
    kept = run(stop_when=narrow)
    stop = kept.sizes["trial"]
    # The first multiple of the chunk at which 40 trials have succeeded everywhere.
    successes = np.cumsum(trials["ok"].values[0, 0])
    assert stop == next(n for n in range(16, 101, 16) if successes[n - 1] >= 40) < 100
    expected = trials.isel(trial=slice(0, stop))
    assert same_bits(kept, expected) == []
    reduced = run(stop_when=narrow, keep_trials=False)
    assert int(reduced["trials_computed"]) == stop

    # Of a run to the end, chunks beyond the stop are there, but do not count.
    run(store=tmp_path / "store")
    shared = run(store=tmp_path / "store", stop_when=narrow)
    assert int(shared["computed"].sum()) == stop
    assert same_bits(shared.drop_vars("computed").isel(trial=slice(0, stop)), expected) == []
    assert same_bits(open_reductions(tmp_path / "store"), reduced) == []
    # Without the condition the study goes on to its end.
    assert bool(run(store=tmp_path / "store")["computed"].all())


def test_progress_counts_all_points_of_the_grid():
    seen = []
    run(progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 600)
    assert seen[-1] == (600, 600)


DEVICES = """
    import sys
    import jax
    jax.config.update("jax_enable_x64", True)
    devices, out, study = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    assert len(jax.local_devices()) == devices, jax.local_devices()
    import numpy as np
    import lindyn_jax as ld
    from lindyn_jax.studies import lemma11, theorem12

    # Chunks of 7 or 270 trials at four points, or of 3 at one: neither 8 devices nor 2 divide all of them.
    if study.startswith("lemma11"):
        sizes = lemma11.sizes(20, 5, 2)
        batch, chunk = ("blocks", 270) if study == "lemma11 in blocks" else ("map", 7)
        options = dict(chunk=chunk, batch=batch, keep_trials=True, store=out)
        lemma11.run(sizes, [7, 1e9], [0.5, 0.3], 4 * chunk + 2, **options)
    else:
        rng = np.random.default_rng(0)
        problem = ld.LeastSquares(rng.normal(size=(3, 8)), rng.normal(size=(3, 1)))
        theorem12.run(problem, [1e2], [0.5], 7, chunk=3, batch="map", store=out)
"""
# The trials above, and those of a study, which compiles as it does for users.
OURS = """
import sys, jax
assert len(jax.local_devices()) == int(sys.argv[1]), jax.local_devices()
sys.path.insert(0, sys.argv[4])
import test_ensemble
test_ensemble.run(store=sys.argv[2])
"""
STUDIES = ("lemma11 in blocks", "lemma11", "theorem12")


@pytest.mark.parametrize("study", ["ours", *(pytest.param(name, marks=pytest.mark.slow) for name in STUDIES)])
def test_devices_change_no_bit_and_a_sweep_resumes_on_another_number_of_them(study, tmp_path, monkeypatch):
    # Threads inside a factorization would change its bits, and its time.
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    program = OURS if study == "ours" else textwrap.dedent(DEVICES)
    flags = os.environ["XLA_FLAGS"] if study == "ours" else ""
    here = os.path.dirname(__file__)

    def on(devices, out):
        monkeypatch.setenv("JAX_ENABLE_X64", "1")
        monkeypatch.setenv("XLA_FLAGS", f"{flags} --xla_force_host_platform_device_count={devices}")
        command = [sys.executable, "-c", program, str(devices), str(tmp_path / out), study, here]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=280)
        assert ended.returncode == 0, ended.stderr

    if study == "ours":
        run(store=tmp_path / "one")
    else:
        on(1, "one")
    # Eight devices go on after the first chunk of one, all else being gone.
    shutil.copytree(tmp_path / "one", tmp_path / "resumed")
    group = zarr.open_group(tmp_path / "resumed", mode="r+")
    group[COMPLETE][1:] = False
    chunk = group.attrs["chunk"]
    for _, array in group.arrays():
        dims = array.metadata.dimension_names
        if "trial" in dims and len(dims) > 1:
            array[tuple(slice(chunk, None) if dim == "trial" else slice(None) for dim in dims)] = array.fill_value
    assert int(ld.open_sweep(tmp_path / "resumed")["computed"].sum()) == chunk
    on(8, "resumed")
    for opened in (ld.open_sweep, open_reductions):
        assert same_bits(opened(tmp_path / "one"), opened(tmp_path / "resumed")) == []


def test_what_cannot_be_run_is_refused():
    for options, match in (
        ({"keep_trials": False, "reductions": None}, "Nothing would be kept"),
        ({"stop_when": narrow, "reductions": None}, "pass `reductions` as well"),
        ({"reductions": {"value": Moments("value", ("scale",))}}, "Reduction `value` has shape"),
        ({"chunk": 0}, "`chunk` must be a whole number of at least 1"),
        ({"reductions": {"vector": Moments("vector")}}, "one number a trial, but output `vector` has 1 axes"),
    ):
        with pytest.raises(ValueError, match=match):
            run(**options)
    with pytest.raises(ValueError, match="must return a dictionary"):
        ld.run_ensemble(lambda key, x: x, {"x": [1.0]}, 2, key=jax.random.key(0))
    statement = ld.theory.tied_acceleration
    for returned, match in (
        (
            lambda x: statement(x, 0.01),
            "must return a dictionary of arrays, but returned a Statement: return its numbers by name",
        ),
        (lambda x: {}, "must return a dictionary of arrays, but returned an empty one"),
        (
            lambda x: {"s": statement(x, 0.01)},
            r"Output `s` .* is a Statement: return each of its numbers, such as `.value`,",
        ),
        (lambda x: {"word": "text"}, "Output `word` of the trial function must be an array of numbers, but is a str"),
        (
            lambda x: {"model": ld.LinearModel(jnp.eye(2))},
            "Output `model` .* but is a LinearModel: return each of its numbers",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            ld.run_ensemble(lambda key, x, returned=returned: returned(x), {"x": [1.0]}, 2, key=jax.random.key(0))
    for grid, match in (
        ({}, "at least one coordinate"),
        ({"x": []}, "at least one entry"),
        ({"x": [np.nan]}, "finite"),
    ):
        with pytest.raises(ValueError, match=match):
            ld.run_ensemble(trial, grid, 2, key=jax.random.key(0))


@pytest.mark.parametrize("keep_trials", [True, False])
def test_a_trusted_store_that_is_finished_is_read_without_a_look_at_the_trial(keep_trials, tmp_path):
    options = {"key": jax.random.key(0), "keep_trials": keep_trials, "reductions": {"mean": Moments("u")}}

    def run(trial, trials=4, **more):
        return ld.run_ensemble(trial, {"x": [1.0, 2.0]}, trials, store=tmp_path / "s", chunk=2, **options, **more)

    def gone(key, x):
        raise AssertionError("the trial was looked at")

    first = run(lambda key, x: {"u": x * jax.random.uniform(key)})
    assert same_bits(first, run(gone, trust_store=True)) == []
    with pytest.raises(AssertionError, match="looked at"):
        run(gone)
    # What is not finished is computed.
    group = zarr.open_group(tmp_path / "s", mode="r+")
    group[COMPLETE][1:] = False
    with pytest.raises(AssertionError, match="looked at"):
        run(gone, trust_store=True)
