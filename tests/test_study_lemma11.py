"""The Lemma 11 study against measured frequencies, exact moments and full-size draws."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from helpers import assert_fits
from matplotlib.figure import Figure
from rich.console import Console
from scipy import stats

import lindyn_jax as ld
from lindyn_jax.cli import _tables
from lindyn_jax.ensemble import open_reductions
from lindyn_jax.statistics import frequency
from lindyn_jax.studies import lemma11 as study

# n = 20, r = 5, m = 2: width -> measured frequency of (33).
MEASURED = {7: 0.0145, 13: 0.113, 31: 0.783, 42: 0.94, 48: 0.98, 123: 1.0}
TRIALS, KEPT = 500, 3000
ALPHAS = [0.5, 0.3, 0.2]


@pytest.fixture(scope="module")
def problem():
    return study.sizes(20, 5, 2)


@pytest.fixture(scope="module")
def dataset(problem):
    return study.run(problem, [*MEASURED, 613.0, 1e9], ALPHAS, TRIALS, seed=1)


@pytest.fixture(scope="module")
def store(problem, tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "sweep.zarr"
    study.run(problem, [12.0, 13.0, 31.0], [0.5], KEPT, seed=2, chunk=700, keep_trials=True, store=path)
    return path


@pytest.fixture(scope="module")
def kept(store):
    return ld.open_sweep(store).load()


@pytest.fixture(scope="module")
def stopped(problem, tmp_path_factory):
    path = tmp_path_factory.mktemp("stopped") / "sweep.zarr"
    study.run(problem, [13.0], [0.5], KEPT, seed=2, chunk=250, precision=0.05, keep_trials=True, store=path)
    return path


@pytest.fixture(scope="module")
def summary(dataset, problem):
    return study.summarise(dataset, problem, 0.1)


def test_the_table_fits_screens_of_80_columns_with_its_keys(summary, problem):
    assert_fits(study.Lemma11(problem).table(summary), "alpha", "width")


def test_frequencies_are_the_measured_ones(summary):
    for width, expected in MEASURED.items():
        found = float(summary["level_is_large"].sel(alpha=0.5, width=width))
        # Four standard errors, those of a reference of a thousand trials rounded to two digits among them.
        error = np.sqrt(expected * (1 - expected) * (1 / TRIALS + 1 / 1000))
        assert abs(found - expected) < 4 * error + 0.005, width
    for event in ("coupling_is_small", "product_is_small", *study.SHARP_EVENTS):
        assert np.all(summary[event] == 1)


def test_no_event_depends_on_the_exponent(summary, dataset):
    assert not summary["disagree"].any()
    for event in (*study.EVENTS, *study.SHARP_EVENTS):
        assert np.all(dataset[event] == dataset[event].isel(alpha=0))
    # The ratios agree to round-off, and not because they are constant.
    np.testing.assert_allclose(
        summary["level_ratio_mean"], np.broadcast_to(summary["level_ratio_mean"].values[:1], (3, 8)), rtol=1e-11
    )
    assert float(summary["level_ratio_mean"].isel(alpha=0).max() - summary["level_ratio_mean"].isel(alpha=0).min()) > 1


def test_level_of_imbalance_tends_to_two(summary):
    # The spread of the spectrum is of the order h^{-1/2}.
    np.testing.assert_allclose(summary["level_ratio_mean"].sel(width=1e9), 2, atol=10 / np.sqrt(1e9))


def test_hypotheses_are_reported_and_not_refused(summary):
    assert list(summary["applies"].sel(alpha=0.5).values) == [False] * 6 + [True, True]
    # Between the printed width, 612.7, and that of Davidson and Szarek, 815.3.
    assert list(summary["applies_ds"].sel(alpha=0.5).values) == [False] * 7 + [True]
    assert list(summary["level_applies"].sel(alpha=0.5).values) == [False] * 6 + [True, True]
    # At every exponent alike.
    for name in ("applies", "applies_ds", "level_applies"):
        assert np.array_equal(summary[name].sel(alpha=0.2), summary[name].sel(alpha=0.5))
    assert study.hypothesis(False) == "hypothesis not met"


def second_moments_are_exact(kept, problem, h):
    # E ||[V; U1] U2^T||^2 = (r + m)(n - r) h s^4 and E ||U1 V^T||^2 = r m h s^4 for entries N(0, s^2).
    n, r, m = problem.num_inputs, problem.rank, problem.num_outputs
    bounds = ld.theory.lemma11(problem, h, 0.5, 0.1)
    for name, bound, expected in (
        ("coupling_ratio", bounds.coupling, (r + m) * (n - r) / h),
        ("product_ratio", bounds.product, r * m / h),
    ):
        squares = (kept[name].sel(alpha=0.5, width=h).values * float(bound)) ** 2
        assert abs(squares.mean() - expected) < 5 * squares.std() / np.sqrt(squares.size)


@pytest.mark.parametrize("h", [12.0, 31.0])
def test_norms_have_their_exact_second_moments(kept, problem, h):
    second_moments_are_exact(kept, problem, h)


def test_reduced_draws_have_the_law_of_full_size_ones(problem, kept):
    trials, h, alpha = 600, 12, 0.5
    rng = np.random.default_rng(5)
    full = ld.LeastSquares(rng.normal(size=(5, 20)), rng.normal(size=(5, 2)))
    keys = jax.random.split(jax.random.key(8), trials)

    def events(key):
        start = ld.init.gaussian(20, 2, h, alpha=alpha, key=key)
        return ld.theory.lemma11_events(start, full, alpha, 0.1)

    drawn = jax.jit(jax.vmap(events))(keys)
    bounds = ld.theory.lemma11(problem, h, alpha, 0.1)
    for name, values, bound in (
        ("level_ratio", drawn.level, bounds.level),
        ("coupling_ratio", drawn.coupling, bounds.coupling),
        ("product_ratio", drawn.product, bounds.product),
    ):
        # Three tests on fixed seeds: a level that a right draw fails once in a thousand choices of them.
        reduced = kept[name].sel(alpha=alpha, width=h).values
        assert stats.ks_2samp(reduced, np.asarray(values / bound)).pvalue > 3e-4


def test_descent_with_noise_leaves_less_of_the_imbalance():
    rng = np.random.default_rng(2)
    X = np.linalg.qr(rng.normal(size=(9, 4)))[0].T
    problem = ld.LeastSquares(X, rng.normal(size=(4, 4)) / 4)
    settings = study.Settings(steps=300, step_size=0.02, label_noise=1.0, batch_size=2)
    chosen = study.Lemma11(problem, (1e6,), (0.5,), settings)
    dataset = chosen.run(40, keep_trials=True)
    starts = study.Lemma11(problem, (1e6,), (0.5,)).run(40, keep_trials=True)
    # The lemma is about the same starts.
    for name in study.RATIOS:
        assert np.array_equal(dataset[name], starts[name])
    assert set(dataset.data_vars) - set(starts.data_vars) == {*study.LEFT, "level_stays"}
    summary = chosen.summarise(dataset)
    kept = 1 - summary["imbalance_lost_mean"].item()
    law = float(ld.theory.label_noise_decay(problem, 0.02, 1.0, 300, size=2).value)
    # The law is one of small steps; a spread of single trials adds to the norm of what is left.
    assert 0.75 < kept / law < 1.15 and law < 0.4
    left = dataset["level_left"].values
    assert summary["level_stays"].item() == np.mean(left > 1) and left.mean() < 2 * kept
    rows = chosen.table(summary)[0]
    assert rows.columns[-4:] == ("D lost", "level left", "dist/law", "(33) left") and len(rows.rows[0]) == 15
    for room in (80, 160):
        printed = io.StringIO()
        _tables.show(Console(file=printed, width=room, markup=False), [rows])
        lines = printed.getvalue().splitlines()
        assert max(map(len, lines)) <= room and "…" not in printed.getvalue()
        # All of it, and what names the row first: of one row that is too long, line by line.
        heads = [line.split()[:2] for line in lines if line.startswith(("alpha", "width"))]
        assert heads == ([["alpha", "width"]] if room == 160 else [["alpha", "0.5"], ["width", "1e+06"]])
        assert all(cell in printed.getvalue() for cell in rows.rows[0])
    assert float(rows.rows[0][-2]) == pytest.approx(float(dataset["distance_over_law"].mean()), rel=1e-3)
    # Noise draws the layers to balance, and wide networks nearer to the minimum-norm solution.
    assert float(dataset["distance_over_law"].mean()) < 0.9
    assert chosen.draw(dataset, summary, "a title").axes


def test_descent_in_the_lemma_wants_steps_and_targets(problem):
    data = ld.LeastSquares(np.eye(3, 5), np.ones((3, 2)))
    for chosen, settings, match in (
        (data, study.Settings(batch_size=2), "give its --steps"),
        (data, study.Settings(momentum=0.5), "give its --steps"),
        (problem, study.Settings(steps=5), "not only their sizes: give --data"),
        (data, study.Settings(steps=-1), "must be at least 0, but is -1"),
        (data, study.Settings(steps=5, batch_size=4), "A batch must have between 1 and 3 samples"),
    ):
        with pytest.raises(ValueError, match=match):
            study.Lemma11(chosen, (100.0,), (0.5,), settings).run(2)


def test_reductions_and_trials_have_the_same_summary(problem, stopped):
    trials = study.summarise(ld.open_sweep(stopped).load(), problem, 0.1)
    reduced = study.summarise(open_reductions(stopped), problem, 0.1)
    assert set(trials.data_vars) == set(reduced.data_vars)
    for name in trials.data_vars:
        np.testing.assert_allclose(trials[name], reduced[name], rtol=1e-12, err_msg=name)


def test_sizes_hold_nothing_of_the_size_of_the_inputs():
    huge = study.sizes(10**9, 100, 1)
    assert (huge.num_inputs, huge.rank, huge.num_outputs, huge.num_frozen) == (10**9, 100, 1, 10**9 - 100)
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(huge))


def test_default_widths_go_from_the_moving_rows_to_ten_times_the_lemmas_width(problem):
    widths = study.default_widths(problem)
    assert (widths[0], widths[-1]) == (7, 6127)
    assert widths == sorted(set(widths))


def test_precision_stops_the_study_at_the_first_chunk_that_makes_every_interval_narrower(stopped):
    dataset = ld.open_sweep(stopped).load()
    count = int(dataset["computed"].sum())
    held = dataset["level_is_large"].values.ravel()
    assert dataset["computed"].values.ravel()[:count].all()

    def width(trials):
        interval = frequency(np.array(held[:trials].sum()), np.array(trials))
        return interval.high - interval.low

    assert width(count) < 0.05 <= width(count - 250)
    assert count < KEPT


def test_what_cannot_be_studied_is_refused(problem):
    for arguments, settings, match in (
        (([0.5], [0.5], 2), {}, "Widths must be whole numbers"),
        (([1e13], [0.5], 2), {}, "Widths must be whole numbers"),
        (([10], [-0.5], 2), {}, "Exponents must be positive"),
        (([1e12], [50.0], 2), {}, "vanish"),
        (([10], [0.5], 2), {"delta": 0.0}, r"delta must lie in \(0, 1\)"),
        (([10], [0.5], 2), {"delta": 1.0}, r"delta must lie in \(0, 1\)"),
        (([10], [0.5], 2), {"delta": float("nan")}, r"delta must lie in \(0, 1\)"),
    ):
        with pytest.raises(ValueError, match=match):
            study.run(problem, *arguments, settings=study.Settings(**settings))
    with pytest.raises(ValueError, match="precision is a width of 95% intervals and must be positive"):
        study.run(problem, [10], [0.5], 2, precision=0.0)
    for sizes, match in (
        ((5, 6, 1), "rank of the data is at most"),
        ((0, 1, 1), "`n` must be"),
        ((2.5, 1, 1), "`n` must"),
    ):
        with pytest.raises(ValueError, match=match):
            study.sizes(*sizes)


def test_float32_warns_once_where_the_spreads_lose_digits_and_the_dataset_says_so(monkeypatch):
    narrow = ld.LeastSquares(np.eye(2, 4, dtype=np.float32), np.ones((2, 1), np.float32))
    noted = {}

    def capture(*arguments, **options):
        noted.update(options)
        return xr.Dataset()

    monkeypatch.setattr("lindyn_jax.studies.study.run_ensemble", capture)
    with pytest.warns(UserWarning, match=r"lose digits above a width of about 1e\+06") as caught:
        study.run(narrow, [100, 1e7], [0.5, 0.4], 3)
    assert len(caught) == 1
    assert "lose digits" in noted["settings"]["float32_digits"]
    assert "lose digits" in noted["attributes"]["level_ratio"]["float32_digits"]
    # Warnings are errors here: at that width, and in float64, there is none.
    study.run(narrow, [100, 1e6], [0.5], 3)
    assert "float32_digits" not in noted["settings"]
    study.run(study.sizes(4, 2, 1), [1e12], [0.5], 3)
    with pytest.warns(UserWarning, match="the width is 1e"):
        jax.eval_shape(lambda: ld.init.gaussian_core(narrow, 1e8, alpha=0.5, key=jax.random.key(0)))


def test_float32_spreads_lose_the_digits_that_the_warning_speaks_of(rng):
    r, m, trials = 3, 2, 20
    p = r + m

    def errors(h):
        # The triangular factor of p rows of h normal entries, V first.
        L = np.tril(rng.normal(size=(trials, p, p)), -1)
        L[:, range(p), range(p)] = np.sqrt(rng.chisquare(h - np.arange(p), size=(trials, p)))
        L /= np.sqrt(h)

        def plus(L):
            problem = ld.LeastSquares(np.eye(r, 5, dtype=L.dtype), np.ones((r, m), L.dtype), rank=r)
            return ld.theory.imbalance(ld.Reduction(ld.TwoLayer(L[m:], L[:m]), h, 2), problem).plus

        exact, single = (jax.jit(jax.vmap(plus))(jnp.asarray(L, dtype)) for dtype in (np.float64, np.float32))
        return np.max(np.abs(np.asarray(single) / np.asarray(exact) - 1))

    assert errors(1e2) < 1e-4
    assert errors(1e10) > 1e-2


def test_a_figure_can_be_drawn_and_saved(summary, tmp_path):
    from lindyn_jax import plots

    paths = plots.save(plots.lemma11(summary, "a title"), tmp_path)
    assert all(path.stat().st_size > 5000 for path in paths)


ARGUMENTS = ["--inputs", "1000000", "--widths", "13,1e9", "--alphas", "0.5,0.2", "--trials", "300", "--chunk", "80"]
ARGUMENTS += ["--batch", "map", "--keep-trials"]


@pytest.fixture(scope="module")
def command(call, tmp_path_factory):
    """The folder and the output of the command in this process."""
    out = tmp_path_factory.mktemp("command") / "out"
    with pytest.MonkeyPatch.context() as patch:
        # Any picture will do.
        patch.setattr(study.Lemma11, "draw", lambda self, *rest: Figure())
        code, printed, notes = call("sweep", "lemma11", *ARGUMENTS, "--out", out)
    assert code == 0, notes
    return out, printed


def test_command_prints_the_table_and_writes_store_and_figure(command):
    out, printed = command
    assert "in 0 of 300 trials x 2 widths" in printed
    assert "hypothesis not met" in printed
    assert {path.name for path in out.iterdir()} == {"sweep.zarr", "figure.png", "figure.pdf"}
    assert json.loads(ld.open_sweep(out).attrs["settings"])["n"] == 10**6


def test_a_store_is_shown_as_its_study_shows_it_as_long_as_it_is_of_these_trials(call, command, tmp_path):
    out, printed = command
    shown = call("show", out)[1]
    assert shown.rpartition("figure:")[0].strip() == printed.rpartition("every trial:")[0].strip()
    both = [
        json.loads(call(*words, "--json")[1])
        for words in (("show", out), ("sweep", "lemma11", *ARGUMENTS, "--out", out))
    ]
    assert both[0]["rows"] == both[1]["rows"] and both[0]["summary"] == both[1]["summary"]
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "sweep.zarr" / "level_ratio" / "c" / "0" / "0" / "0").unlink()
    with pytest.warns(UserWarning, match="is damaged"):
        code, printed, notes = call("show", tmp_path / "out")
    assert code == 0 and "220 of 300" in notes and "prints lindyn-jax sweep lemma11, as it was run" in notes
    assert "mean or share" in printed and "level_ratio: Delta/h^(1 - 2 alpha)" in printed


def test_a_picture_is_drawn_again_only_where_it_is_not_that_of_the_numbers(call, command, monkeypatch):
    out, drawn = command[0], []
    monkeypatch.setattr(study.Lemma11, "draw", lambda self, *rest: drawn.append(rest[-1]) or Figure())

    def drawings():
        code, printed, _ = call("sweep", "lemma11", *ARGUMENTS, "--out", out)
        assert code == 0 and f"{out / 'figure.png'}, {out / 'figure.pdf'}" in printed
        return len(drawn)

    picture = out / "figure.png"
    assert drawings() == 0
    for times, change in enumerate((picture.unlink, lambda: picture.write_bytes(b"of something else")), 1):
        change()
        assert drawings() == times
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert not list(out.glob("*.partial*"))


def test_a_finished_study_is_summarised_again_by_another_version_only(call, command, monkeypatch):
    out, printed = command
    asked = []
    original = study.Lemma11.summarise
    monkeypatch.setattr(study.Lemma11, "summarise", lambda *of: asked.append(1) or original(*of))
    for version, times in ((ld.__version__, 0), ("another", 1)):
        monkeypatch.setattr("lindyn_jax.cli._study.__version__", version)
        assert call("sweep", "lemma11", *ARGUMENTS, "--out", out)[:2] == (0, printed)
        assert len(asked) == times


def test_a_finished_study_prints_its_table_although_the_picture_cannot_be_saved(call, command, monkeypatch):
    def full(*arguments, mark):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    out, printed = command
    (out / "figure.pdf").unlink()
    monkeypatch.setattr("lindyn_jax.plots.save", full)
    code, again, notes = call("sweep", "lemma11", *ARGUMENTS, "--out", out)
    assert code == 0
    assert again.splitlines()[:-1] == printed.splitlines()[:-1]
    assert again.endswith("figure: not saved\n")
    assert "The picture cannot be saved in" in notes and "Read-only file system" in notes


def test_a_million_inputs_and_a_width_of_a_billion_have_their_exact_moments(command):
    second_moments_are_exact(ld.open_sweep(command[0]), study.sizes(10**6, 5, 2), 1e9)


def test_bad_input_gets_one_sentence(call, command):
    for more, sentence in (
        (["--delta", "1"], "must lie in (0, 1)"),
        (["--precision", "-1"], "must be a positive number"),
        (["--rank", "7", "--inputs", "5"], "rank of the data is at most"),
        (["--seed", "1"], "seed is 0 there and 1 here"),
        (["--trials", "0"], "--trials must be at least 1"),
    ):
        code, _, error = call("sweep", "lemma11", *ARGUMENTS, "--out", command[0], *more)
        assert code == 2
        assert sentence in error.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("trials", "widths"),
    [(100, (92, 300, 457)), pytest.param(1000, (92, 183, 260, 300, 340, 457), marks=pytest.mark.slow)],
)
def test_frequencies_of_the_large_setting_are_the_measured_ones(trials, widths, tmp_path):
    # n = 500, r = 100, m = 1: factorizations of 101 x 101, in a process whose LAPACK has one thread.
    measured = {92: 0.0, 183: 0.027, 260: 0.31, 300: 0.57, 340: 0.81, 457: 1.0}
    arguments = [
        "--inputs",
        "500",
        "--rank",
        "100",
        "--outputs",
        "1",
        "--alphas",
        "0.5",
        "--trials",
        str(trials),
        "--json",
    ]
    command = [
        sys.executable,
        "-m",
        "lindyn_jax",
        "sweep",
        "lemma11",
        *arguments,
        "--widths",
        ",".join(map(str, widths)),
    ]
    ended = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, env=os.environ, timeout=280
    )
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)["summary"]
    for width, found in zip(widths, summary["level_is_large"][0], strict=True):
        # As above, against a reference of a few hundred trials.
        expected = measured[width]
        assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) * (1 / trials + 1 / 300)) + 0.005, width
    assert summary["coupling_is_small"] == summary["product_is_small"] == [[1.0] * len(widths)]
    assert np.all(np.array(summary["coupling_ratio_max"]) < 1)
