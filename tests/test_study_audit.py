"""The audit: M22's Fig. 3 in small, its statistics by hand, false bounds that it must find, and the command."""

import itertools
import json
import re
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_fits, relative_error, tolerance

import lindyn_jax as ld
from lindyn_jax import plots
from lindyn_jax.cli._common import as_json
from lindyn_jax.statistics import frequency
from lindyn_jax.studies._audit_summary import tables
from lindyn_jax.studies.audit import LOSS_STATEMENTS, RATE_STATEMENTS, audit, figure3, labelled, summarise

flow = sys.modules["lindyn_jax.flow"]
TRIALS = 4


@pytest.fixture(scope="module")
def preset():
    return figure3(n=60, samples=12, h=60)


@pytest.fixture(scope="module")
def figure(preset):
    """The audit of M22's Fig. 3 and 6 at an eighth of its size; its trial is traced once."""
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        original = flow.gradient_flow
        patch.setattr(flow, "gradient_flow", lambda *a, **k: calls.append(1) or original(*a, **k))
        dataset = audit(preset.problem, preset.starts, TRIALS, points=11, **preset.options | {"solver": "tsit5"})
    assert len(calls) == 1
    return dataset


def test_the_tables_fit_screens_of_80_columns_with_their_keys(figure):
    assert_fits(tables(summarise(figure)), "case")


# -- M22 Fig. 3 and 6 ----------------------------------------------------------------------------------------------------


def test_cases_of_figure_3_are_ordered_balanced_1_3_2(figure):
    assert bool(figure["ok"].all())
    losses = figure["excess_loss"].isel(time=slice(1, None))
    slowest_first = ["balanced", "case 1", "case 3", "case 2"]
    # Start by start, by flow and by descent, as long as the faster one is resolved.
    for slow, fast in itertools.pairwise(slowest_first):
        above = losses.sel(case=slow) > losses.sel(case=fast)
        unresolved = losses.sel(case=fast) < figure["resolution"].sel(case=fast)
        assert bool((above | unresolved).all()), (slow, fast)
    summary = summarise(figure)
    levels = summary["imbalance_level"].sel(case=slowest_first).values
    assert np.all(np.diff(levels) > 0)
    assert levels[0] < 1e-12
    reached = summary["time_to_ratio"].sel(case=slowest_first[:1:-1]).values
    assert np.all(reached[0] < reached[1])


def test_the_cases_start_from_one_product(figure):
    starts = figure["excess_loss"].isel(time=0)
    assert relative_error(starts, np.broadcast_to(starts.values[:1, :, :1], starts.shape)) < tolerance("float64", 10)


def test_no_bound_is_crossed_by_flow_or_descent_in_figure_3(figure):
    assert int(figure["loss_crossed"].sum()) == 0
    assert int(figure["rate_crossed"].sum()) == 0
    # The same without the audit's own allowances, where the path is resolved.
    losses, bounds = figure["excess_loss"], figure["loss_bound"]
    resolved = losses > 1e4 * figure["resolution"]
    assert bool(((losses <= bounds * (1 + 1e-6)) | ~figure["applies"] | ~resolved).all())
    assert bool((figure["rate_bound"] <= figure["rate"] * (1 + 1e-9)).all())


def test_hypotheses_of_figure_3_are_reported(figure):
    applies = figure["applies"]
    assert bool(applies.sel(statement="theorem3").all())
    assert bool(applies.sel(statement="corollary4", case=["case 1", "case 2", "case 3"]).all())
    # Its Delta is zero, and not the round-off that is left of it.
    assert not bool(applies.sel(statement="corollary4", case="balanced").any())
    margins = figure["margin"] > 0
    assert np.array_equal(applies.sel(statement="corollary5"), margins.isel(time=0))
    assert np.array_equal(applies.sel(statement="corollary6"), margins.any("time"))
    assert bool(applies.sel(statement="corollary6", case=["case 1", "case 2", "case 3"]).all())


def test_full_size_of_figure_3_has_the_published_levels():
    setting = figure3()
    assert setting.problem.rank == 100
    assert setting.options["step_size"] == 5e-4
    assert relative_error(setting.problem.singular_values, np.ones(100)) < tolerance("float64", 10)
    problem, stds = setting.problem, [start.std for name, start in setting.starts.items() if name != "balanced"]

    @jax.jit
    def levels(key):
        core = ld.init.Gaussian(500, std=1.0).draw(problem, key=key)
        scaled = jax.vmap(lambda u, v: ld.Reduction(ld.TwoLayer(u * core.U1, v * core.V), 500, 400))(*jnp.array(stds).T)
        return jax.vmap(lambda start: ld.theory.imbalance(start, problem).level)(scaled)

    # About 6, 41 and 19, of one draw; a fifth of them covers the spread between draws.
    np.testing.assert_allclose(levels(jax.random.key(0)), [6, 41, 19], rtol=0.2)


# -- against the solvers and the statements themselves -------------------------------------------------------------------


def test_paths_are_those_of_the_solvers_and_bounds_those_of_the_statements(figure, preset):
    problem, case = preset.problem, "case 1"
    # A start that has no margin yet.
    trial = int(np.argmax(figure["margin_time"].sel(case=case, dynamics="flow").values > 0))
    start = preset.starts[case].draw(problem, key=jax.random.fold_in(jax.random.key(0), trial))
    start = ld.Reduction(ld.TwoLayer(start.U1, start.V), start.width, start.num_frozen, None)
    ts = jnp.asarray(figure["time"].values)
    row = figure.sel(case=case).isel(trial=trial)
    flow = row.sel(dynamics="flow")
    how = {"observables": ("excess_loss",), "keep_models": True, "solver": "tsit5"}
    trajectory = ld.gradient_flow(start, problem, ts, **how)
    error = np.sqrt(flow["excess_loss"]) - np.sqrt(trajectory.observables["excess_loss"])
    assert np.max(np.abs(error)) < np.sqrt(flow["resolution"])
    begin = int(np.argmax(flow["margin"].values > 0))
    assert begin > 0
    assert float(flow["margin_time"]) == ts[begin]
    later = jax.tree.map(lambda leaf: leaf[begin], trajectory.models)

    @jax.jit
    def statements(start, later):
        theory = ld.theory
        rates = [
            jnp.stack(
                [
                    theory.instantaneous_rate(model, problem),
                    theory.lemma7(model, problem).value,
                    theory.rate_bound(model, problem).value,
                    theory.corollary5(model, problem).value,
                ]
            )
            for model in (start, later)
        ]
        losses = theory.loss_bound(start, problem, ts).value, theory.corollary6(later, problem, ts, ts[begin]).value
        return rates, theory.imbalance(start, problem).level, losses

    rates, level, (theorem3, corollary6) = statements(start, later)
    for index, expected in zip((0, begin), rates, strict=True):
        # Two paths of one solver agree to the tolerance of its steps.
        assert relative_error([flow["rate"][index], *flow["rate_bound"][:, index]], expected) < 1e-7
    bound = dict(zip(LOSS_STATEMENTS, flow["loss_bound"].values, strict=True))
    rate = 2 * problem.scale * problem.singular_values[-1] ** 2 * level
    assert relative_error(bound["corollary4"] / flow["excess_loss"].values[0], np.exp(-rate * ts)) < 1e-10
    assert relative_error(bound["theorem3"], theorem3) < 1e-10
    assert np.all(np.isinf(bound["corollary6"][:begin]))
    assert relative_error(bound["corollary6"][begin:], corollary6[begin:]) < 1e-7


def test_rates_and_bounds_begin_as_the_statements_on_the_start_say(figure, preset):
    problem, case, ts = preset.problem, "case 1", jnp.asarray(figure["time"].values)
    start = preset.starts[case].draw(problem, key=jax.random.fold_in(jax.random.key(0), 1))
    flow = figure.sel(case=case, dynamics="flow").isel(trial=1)

    @jax.jit
    def statements(start):
        rates = ld.theory.instantaneous_rate(start, problem), ld.theory.lemma7(start, problem).value
        return (*rates, ld.theory.rate_bound(start, problem).value), ld.theory.loss_bound(start, problem, ts).value

    rates, theorem3 = statements(start)
    assert relative_error([flow["rate"][0], *flow["rate_bound"][:2, 0]], rates) < 1e-10
    assert relative_error(flow["loss_bound"].sel(statement="theorem3"), theorem3) < 1e-10


def test_descent_follows_the_flow_closely_and_moves_the_imbalance(figure):
    drift = figure["imbalance_drift"].isel(time=-1)
    assert float(drift.sel(dynamics="flow").max()) < 1e-9
    assert float(drift.sel(dynamics="descent").min()) > 1e-6
    losses = figure["excess_loss"].sel(case=["case 1", "balanced"])
    assert relative_error(losses.sel(dynamics="descent"), losses.sel(dynamics="flow")) < 1e-2


@pytest.fixture(scope="module")
def scalar():
    """One input and output, where Prop. 1 is an equality, and M22's counterexample to the doubled rate of Cor. 5."""

    def counterexample(key):
        return ld.TwoLayer(jnp.array([[1.0]]), jnp.array([[0.9]]))

    def wide(key):
        return ld.TwoLayer(*jax.random.normal(key, (2, 1, 5)))

    problem = ld.factorization(np.array([[1.0]]))
    starts = {"random": wide, "u = 1, v = .9": counterexample}
    return problem, starts


def run(scalar, **options):
    return audit(*scalar, 3, dynamics=("flow",), horizon=4.0, points=9, rtol=1e-11, solver="tsit5", **options)


def test_proposition_1_is_attained_at_every_time_by_networks_of_one_input_and_output(scalar):
    dataset = run(scalar)
    tightness = dataset["rate_bound"].sel(rate_statement="proposition1") / dataset["rate"]
    assert relative_error(tightness, np.ones(tightness.shape)) < tolerance("float64", 100)
    assert bool(dataset["tightness_attained"].all())
    assert bool(dataset["applies"].sel(case="u = 1, v = .9").all())
    assert int(dataset["loss_crossed"].sum()) == 0


def test_the_doubled_rate_of_the_papers_is_seen_to_be_crossed(scalar, monkeypatch):
    original = ld.theory.loss_bound

    def doubled(model, problem, ts):
        bound = original(model, problem, ts)
        return eqx.tree_at(lambda b: b.value, bound, bound.value * jnp.exp(-bound.rate * ts))

    monkeypatch.setattr(ld.theory, "loss_bound", doubled)
    problem, starts = scalar
    counted = summarise(run((problem, {"u = 1, v = .9": starts["u = 1, v = .9"]}))).sel(
        case="u = 1, v = .9", dynamics="flow"
    )["loss_crossed"]
    assert int(counted.sel(statement="corollary5")) == 3
    assert int(counted.sel(statement="corollary4")) == 0


def test_diverging_descent_is_flagged_and_masked():
    def wide(key):
        U, V = jax.random.normal(key, (2, 2, 9))
        return ld.TwoLayer(U, V[:1])

    problem = ld.factorization(np.array([[1.0], [2.0]]))
    dataset = audit(problem, {"wide": wide}, 3, dynamics=("descent",), horizon=30.0, step_size=3.0, points=6)
    assert not bool(dataset["succeeded"].any())
    assert not bool(dataset["ok"].any())
    assert np.all(dataset["result"] == ld.trajectory.DIVERGED)
    summary = summarise(dataset)
    assert int(summary["failures"].sum()) == 3
    assert int(summary["loss_crossed"].sum()) == 0
    assert np.all(np.isnan(summary["excess_loss"]))
    assert np.all(np.isnan(summary["applies"]))


# -- statistics ----------------------------------------------------------------------------------------------------------


def test_summary_counts_and_masks_by_hand(figure):
    spoiled = figure.copy(deep=True)
    spoiled["succeeded"][{"case": 0, "trial": 1, "dynamics": 0}] = False
    spoiled["excess_loss"][{"case": 0, "trial": 1, "dynamics": 0}] = np.inf
    spoiled["applies"][{"case": 0, "trial": [0, 1], "dynamics": 0, "statement": 1}] = False
    spoiled["loss_crossed"][{"case": 2, "trial": 3, "dynamics": 1, "statement": 0}] = True
    summary = summarise(spoiled)
    assert int(summary["failures"][0, 0]) == 1
    assert int(summary["failures"].sum()) == 1
    # Of the three starts left, two meet the hypothesis.
    expected = frequency(np.array(2), np.array(3))
    got = [float(summary[f"applies{end}"][0, 0, 1]) for end in ("", "_low", "_high")]
    assert relative_error(got, [float(value) for value in expected]) < tolerance("float64")
    assert summary["loss_crossed"].sum() == 1
    assert int(summary["loss_crossed"].sel(case="case 3", dynamics="descent", statement="theorem3")) == 1
    kept = figure["excess_loss"].values[0, [0, 2, 3], 0]
    assert relative_error(summary["excess_loss"][0, 0], np.median(kept, axis=0)) < tolerance("float64")
    ratio = (figure["rate_bound"] / figure["rate"]).values[3, :, 1, 1]
    assert relative_error(summary["rate_tightness_largest"][3, 1, 1], ratio.max()) < tolerance("float64")


def test_time_to_a_ratio_is_interpolated_in_the_logarithm(figure):
    decay = figure.copy(deep=True)
    decay["excess_loss"] = decay["excess_loss"] * 0 + np.exp(-7.0 * decay["time"])
    summary = summarise(decay, ratio=1e-3)
    assert relative_error(summary["time_to_ratio"], np.full((4, 2), np.log(1e3) / 7)) < tolerance("float64")
    assert np.all(np.isinf(summarise(decay, ratio=1e-30)["time_to_ratio"]))
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\)"):
        summarise(decay, ratio=2.0)


def test_dataset_names_its_statements_and_says_what_it_holds(figure):
    assert list(figure["statement"].values) == list(LOSS_STATEMENTS)
    assert list(figure["rate_statement"].values) == list(RATE_STATEMENTS)
    assert figure["rate"].attrs["source"] == "M22 App. C"
    assert "hypothesis not met" in figure["applies"].attrs["convention"]
    assert set(json.loads(figure.attrs["settings"])["cases"]) == set(figure["case"].values)
    assert all("long_name" in figure[name].attrs for name in figure.data_vars)


def test_summary_is_json_with_its_cases_by_name(figure):
    values = json.loads(json.dumps(as_json(summarise(figure)), allow_nan=False))
    assert values["case"] == list(figure["case"].values)
    assert np.shape(values["applies_low"]) == (4, 2, 4)
    assert values["ratio"] == 1e-2


def test_figure_is_drawn_and_saved(figure, tmp_path):
    drawn = plots.audit(summarise(figure), "a title")
    first = drawn.axes[0]
    assert first.get_yscale() == "log"
    assert {text.get_text() for text in drawn.legends[0].get_texts()} == set(figure["case"].values)
    assert all(path.stat().st_size > 5000 for path in plots.save(drawn, tmp_path))


# -- bad input, and the command ------------------------------------------------------------------------------------------


def test_bad_settings_are_refused():
    problem, start = ld.factorization(np.ones((2, 1))), {"start": ld.init.Gaussian(100)}
    for starts, options, match in (
        ({}, {}, "at least one start"),
        ({"narrow": ld.init.Imbalance(2)}, {}, r"at least r \+ m = 3, not 2"),
        (start, {"dynamics": ("walk",)}, "'flow', 'descent'"),
        (start, {"dynamics": ("flow", "flow")}, "'flow', 'descent' or both once"),
        (start, {"points": 1}, "must be at least 2"),
        (start, {"horizon": 0.0}, "`horizon` must be a positive number"),
        (start, {"step_size": "small"}, "'stable'"),
        (start, {"step_size": -1.0}, "`step_size` must be a positive number"),
        (start, {"spacing": "auto"}, "'linear', 'log'"),
        (start, {"max_steps": 0}, "`max_steps` must be at least 1"),
        (start, {"horizon": 1.0, "step_size": 1e-9}, "more than the budget"),
    ):
        with pytest.raises(ValueError, match=match):
            audit.__wrapped__(problem, starts, 2, **options)
    sigmoid = ld.LeastSquares(np.eye(2), np.ones((2, 1)), link=jax.nn.sigmoid)
    with pytest.raises(ValueError, match="without a link function"):
        audit(sigmoid, start, 2)
    with pytest.raises(ValueError, match="must be a LeastSquares, but is a Penalised"):
        audit(problem.regularized(1.0), start, 2)
    with pytest.raises(ValueError, match="n >= samples"):
        figure3(n=3, samples=4)
    with pytest.raises(ValueError, match="needs a number as `horizon`"):
        ld.studies.Audit(problem, start).trial(jax.random.key(0), 0)


COMMAND = ("audit", "--data", "factorization", "--shape", "2,1")
SECTION = (Path(__file__).parent.parent / ".docs/pages/how-to/trajectory-and-audit.md").read_text()
NUMBER = r"\d+\.?\d*(?:e[+-]?\d+)?"


def test_command_of_the_page_prints_what_it_shows_and_writes_store_and_figure(call, tmp_path, monkeypatch):
    # The page shows it on a wide screen.
    monkeypatch.setattr("lindyn_jax.cli._tables.WIDTH", 160)
    command = re.search(r"^lindyn-jax (audit .*)$", SECTION, re.M).group(1).split()
    shown = [line for line in re.findall(r"```text\n(.*?)```", SECTION, re.S)[1].splitlines() if line.strip()]
    out = tmp_path / "out"
    code, printed, notes = call(*command, "--out", out)
    assert code == 0
    lines = [line for line in printed.splitlines() if line.strip()]
    lines = lines[next(i for i, line in enumerate(lines) if line.startswith("Statements")) :]
    # Rules are as long as the table is wide.
    lines, shown = ([line for line in each if "─" not in line] for each in (lines, shown))
    assert len(shown) >= 17
    for line, expected in zip(lines, shown, strict=False):
        assert re.sub(NUMBER, "#", line).split() == re.sub(NUMBER, "#", expected).split()
        # Three digits are shown, of quantiles that another machine may round to a neighbour.
        values, expected = ([float(number) for number in re.findall(NUMBER, text)] for text in (line, expected))
        np.testing.assert_allclose(values, expected, rtol=1e-2)
    assert "hypothesis not met [0.00, 0.07]" in printed
    assert "100 of 100 trials" in notes
    assert {path.name for path in out.iterdir()} == {"audit.zarr", "figure.png", "figure.pdf"}
    dataset = labelled(ld.open_sweep(out / "audit.zarr"))
    assert list(dataset["case"].values) == ["gaussian", "balanced"]
    assert json.loads(dataset.attrs["settings"])["cases"]["balanced"] == "balanced, h = 20, alpha = 0.5"
    code, _, error = call(*command, "--until", 1, "--seed", 1, "--out", out)
    assert code == 2
    assert "seed is 0 there and 1 here" in error


BAD = {
    "start": (["--start", "spectral"], "'gaussian', 'balanced', 'imbalance'"),
    "width": (["--widths", "0"], "whole numbers from 1 to 1e12"),
    "scale twice": (["--std", "1", "--alphas", "0.5"], "only one of --alphas and --std"),
    "trials": (["--trials", "0"], "--trials must be at least 1"),
    "until": (["--until", "-1"], "--horizon must be a positive number"),
    "dynamics": (["--dynamics", "walk"], "'flow', 'descent', 'both'"),
    "tolerance": (["--rtol", "1e-17"], "cannot resolve"),
    "preset": (["--preset", "m22-figure9"], "'m22-figure3'"),
    "preset and data": (["--preset", "m22-figure3"], "leave out --data"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence_and_exit_code_2_and_writes_nothing(call, tmp_path, name):
    arguments, sentence = BAD[name]
    out = tmp_path / "out"
    code, printed, error = call(*COMMAND, *arguments, "--out", out)
    assert (code, printed) == (2, "")
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert not out.exists()
