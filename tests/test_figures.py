"""The papers' figures in reduced sizes: their key numbers, what is saved, every picture drawn once, and the command."""

import json
import sys

import numpy as np
import pytest
import xarray as xr

import lindyn_jax as ld
from lindyn_jax import cli
from lindyn_jax.studies import figures
from lindyn_jax.studies.figures import _common

# Sizes that show the claims in a few seconds each; what is not named is the paper's own.
SIZES = {
    "t21-figure1": {"trials": 6, "descent_trials": 2, "points": 120},
    "t21-table2": {"points": 6},
    "t21-figure2": {"trials": 2, "points": 19, "widths": (50, 200)},
    "t21-figure3": {"trials": 1, "points": 41, "horizon": 100.0, "samples": 200},
    "m22-figure2": {"trials": 5, "m": (5, 10), "horizon": 12.0, "points": 7},
    "m22-figure3": {"trials": 2, "points": 25, "n": 60, "samples": 12, "h": 60},
    "m22-figure7": {"trials": 3, "descent_trials": 1, "descent_grid": (10000,), "grid": (500, 10000)},
    "sharp-law": {"trials": 8, "decades": 8},
    "tightness": {"trials": 50, "points": 4},
    "descent-steps": {"trials": 2, "points": 3, "steps": 4},
    "wide-limit": {"trials": 2, "points": 11, "d": 12, "widths": (100, 10000)},
    "conditioning": {"trials": 2, "decades": 6, "explicit_decades": 2},
    "g19-figure1": {"points": 80},
    "g19-figure2": {"steps": 10_000, "points": 150},
    "g19-table1": {},
}
# Drawn from the same data as another one.
TWINS = {"m22-figure4": "m22-figure2", "m22-figure5": "m22-figure2", "m22-figure6": "m22-figure3"}


def distances_by_the_law(problem, grid, alphas, trials, *, seed):
    """What theorem12.run returns, with V(inf) as in the wide limit: its own tests simulate it."""
    rng = np.random.default_rng(seed)
    shape = (len(alphas), len(grid), trials)
    A, H = np.meshgrid(alphas, grid, indexing="ij")
    rms = np.asarray(ld.theory.sharp_distance(problem, H, A).rms)[..., None]
    degrees = problem.num_frozen * problem.num_outputs
    flags = ("ok", "level_is_large", "coupling_is_small", "product_is_small")
    values = {
        "distance": rms * np.sqrt(rng.chisquare(degrees, shape[-1]) / degrees),
        "expected_distance": np.broadcast_to(rms * (1 + 1 / H[..., None]), shape),
        "imbalance_drift": np.zeros(shape),
        **{name: np.ones(shape, bool) for name in flags},
    }
    dims = ("alpha", "width", "trial")
    return xr.Dataset({k: (dims, v) for k, v in values.items()}, coords={"alpha": list(alphas), "width": list(grid)})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function that makes a figure once, in its reduced size: (what it says, its data read from disk)."""
    folder, cache, done = tmp_path_factory.mktemp("figures"), {}, {}

    def make(name):
        if name not in done:
            with pytest.MonkeyPatch.context() as patch:
                if name == "sharp-law":
                    patch.setattr(figures.own.theorem12, "run", distances_by_the_law)
                result = figures.make(name, folder, cache=cache, **SIZES[TWINS.get(name, name)])
            done[name] = result, figures.open_figure(result.paths[-1])
        return done[name]

    return make


@pytest.mark.parametrize("name", list(figures.FIGURES))
def test_every_figure_is_drawn_and_its_data_can_be_read_and_drawn_again(made, name):
    result, dataset = made(name)
    assert [path.name for path in result.paths] == [f"{name}.png", f"{name}.pdf", f"{name}.zarr"]
    assert all(path.exists() for path in result.paths)
    assert result.failed == 0 < result.runs
    assert result.shows and result.measured
    assert json.loads(dataset.attrs["numbers"]) == json.loads(json.dumps(result.numbers))
    measured = figures.FIGURES[name].measure(dataset)
    assert measured.text == result.measured
    axes = figures.draw(dataset).axes
    # Colour bars have one label; every other axis says what it is.
    assert all(ax.get_ylabel() or ax.get_xlabel() for ax in axes)
    assert all(ax.get_xlabel() for ax in axes if ax.get_title())


def within(measured, expected, sd, trials, factor=4):
    """Whether a mean of so many trials agrees with one of 50, up to `factor` standard errors of both."""
    return abs(measured - expected) <= factor * sd * np.sqrt(1 / trials + 1 / 50)


def test_t21_figure_1_reaches_its_errors_when_the_paper_s_setting_does(made):
    numbers, trials = made("t21-figure1")[0].numbers, SIZES["t21-figure1"]["trials"]
    # Mean and standard deviation over 50 seeds of an independent integration.
    known = {
        0.01: ((2.435, 0.31), (4.716, 1.16), (9.245, 2.5)),
        0.1: ((0.855, 0.069), (2.867, 0.46), (6.908, 1.3)),
        1: ((0.061, 0.007), (0.158, 0.022), (0.317, 0.045)),
    }
    for std, rows in known.items():
        for (mean, _), (expected, sd) in zip(numbers[f"two layers, s = {std:g}"], rows, strict=True):
            assert within(mean, expected, sd, trials), (std, mean, expected)
    # One layer: log(||E0||/||Y||/error), to the interpolation of the curve.
    for (mean, _), expected in zip(numbers["one layer, s = 0.01"], (2.303, 6.908, 13.82), strict=True):
        assert abs(mean - expected) < 2e-3 * expected
    assert within(numbers["||Q0||_F, s = 1"][0], 197.4, 10.9, trials)
    assert numbers["faster than one layer, largest s"] == 1


def test_t21_figure_1_by_descent_is_the_flow_to_the_order_of_the_step(made):
    _, dataset = made("t21-figure1")
    flow, time = dataset["error"].values, dataset["time"].values
    for i, std in enumerate(dataset["std"].values):
        descent = dataset["descent_error"].values[i, 0]
        # Beyond its stop the flow's slots are infinite.
        at = np.interp(dataset["step"].values, time, np.log(np.where(np.isfinite(flow[i, 0]), flow[i, 0], 1e-12)))
        seen = np.isfinite(descent) & (at > np.log(1e-6))
        assert seen.sum() > 10
        # The step is up to a tenth of the fastest time scale at s = 1 and a thousandth of it at the least s.
        assert np.max(np.abs(np.log(descent[seen]) - at[seen])) < (0.6 if std == 1 else 0.05)


def test_t21_table_2_finds_the_regimes(made):
    numbers = made("t21-table2")[0].numbers
    assert numbers["two layers: regimes that agree"] == 1
    assert numbers["tied layers: regimes that agree"] == 1
    # The fit sees what is left of the faster exponentials.
    assert numbers["two layers: largest deviation from mu"] < 1e-2
    assert numbers["tied layers: largest deviation from 4 |sigma|"] < 1e-2


def test_t21_figure_2_finds_both_basins(made):
    numbers, trials = made("t21-figure2")[0].numbers, SIZES["t21-figure2"]["trials"]
    # 20 seeds of an independent scan; targets and starts are shared by the widths.
    known = {"positive": ((100.9, 12), (489.3, 24)), "negative": ((-102.6, 12), (-483.6, 24))}
    for sign, rows in known.items():
        for (mean, _), (expected, sd) in zip(numbers[f"lambda0, {sign}"], rows, strict=True):
            assert within(mean, expected, sd, trials), (sign, mean, expected)
    assert numbers["two basins"] == 1
    for (mean, _), expected in zip(numbers["sqrt of the better J"], (0.081, 0.054), strict=True):
        assert abs(mean - expected) < 0.035


def test_t21_figure_3_imbalance_accelerates_and_is_conserved_with_a_sigmoid(made):
    numbers = made("t21-figure3")[0].numbers
    imbalanced, balanced, one = (numbers[f"times, {name}"][0][0] for name in ("imbalanced", "balanced", "one layer"))
    assert 1.3 * imbalanced < balanced < one
    assert numbers["||Q0||_F"]["balanced"][0] < 1e-12
    assert abs(numbers["||Q0||_F"]["imbalanced"][0] - 4.6) < 1e-9
    assert numbers["largest drift of Q"] < 1e-5


def test_m22_figure_2_has_the_scaled_imbalances(made):
    numbers = made("m22-figure2")[0].numbers
    known = {
        10: ((0.274, 0.172, 0.0041), (0.159, 0.103, 0.076), (0.093, 0.061, 0.125), (0.051, 0.034, 0.158)),
        5: ((0.564, 0.215, 0.046), (0.319, 0.127, 0.186), (0.186, 0.075, 0.273), (0.102, 0.041, 0.329)),
    }
    trials = SIZES["m22-figure2"]["trials"]
    for m, rows in known.items():
        for j, name in enumerate(("plus", "minus", "level")):
            for (mean, sd), row in zip(numbers[f"{name}, m = {m}"], rows, strict=True):
                # The numbers known are of few starts as well.
                assert abs(mean - row[j]) <= 4 * sd * np.sqrt(1 / trials + 1 / 5), (m, name, mean, row[j])


def test_m22_figures_4_and_5_bounds_hold_and_become_tight_with_the_width(made):
    for name in ("m22-figure4", "m22-figure5"):
        numbers = made(name)[0].numbers
        assert np.all(np.diff(numbers["Prop. 1 / rate at the start"]) > 0)
        assert np.all(np.diff(numbers["Prop. 1 / rate at the end"]) > 0)
        assert numbers["smallest rate / Prop. 1"] >= 1
        assert numbers["largest loss / Theorem 3"] <= 1 + 1e-9


def test_m22_figure_3_has_the_paper_s_order_of_speed(made):
    numbers = made("m22-figure3")[0].numbers
    assert numbers["slowest first"] == ["balanced", "case 1", "case 3", "case 2"]
    for dynamics in ("flow", "descent"):
        assert np.all(np.diff(numbers[f"time to a tenth of the loss, {dynamics}"]) < 0)
    assert np.all(np.diff(numbers["Delta"]) > 0)
    assert numbers["bounds crossed"] == 0
    assert made("m22-figure6")[0].numbers == numbers


def test_m22_figure_7_falls_with_the_square_root_of_the_width(made):
    numbers = made("m22-figure7")[0].numbers
    # Another draw of the data: Theta_hat's norm, and the distance with it, is another by a few percent.
    for (mean, sd), expected in zip(numbers["distance"], (0.888, 0.207), strict=True):
        assert abs(mean - expected) < 0.06 * expected + 2 * sd
    assert abs(numbers["slope"] - -0.486) < 0.02
    assert numbers["descent over flow - 1"] < 5e-4
    assert 50_000 < numbers["descent steps"][0] <= numbers["descent steps"][1] < 75_000


def test_sharp_law_is_held_against_the_measured_distances_and_the_bound(made):
    numbers = made("sharp-law")[0].numbers
    exact, widths = np.array(numbers["exact law given V / sharp law"]), 10.0 ** np.arange(2, 11)
    assert np.allclose(exact, 1 + 1 / widths, rtol=1e-12)
    assert np.allclose(numbers["slope of the sharp law"], [-0.5, -0.2], atol=5e-3)
    assert np.allclose(numbers["slope"], numbers["slope of the sharp law"], rtol=1e-9)
    assert np.min(numbers["log10 bound over 95% quantile"]) > 0
    assert numbers["hypothesis met"][0] == [False, False, True, True, True, True, True, True, True]


def test_proposition_1_is_attained_at_the_slowest_network_only(made):
    numbers = made("tightness")[0].numbers
    assert np.allclose(numbers["slowest network, worst target"], 1, rtol=0, atol=1e-12)
    assert numbers["largest ratio"] <= 1 + 1e-12
    assert np.all(np.diff(numbers["Gaussian, random target"]) > 0)
    assert numbers["Gaussian, random target"][0] < 0.5 < 0.95 < numbers["Gaussian, random target"][-1]


def test_imbalance_speeds_up_descent_at_its_best_step_where_it_improves_the_curvature(made):
    numbers = made("descent-steps")[0].numbers
    for kind in ("equal", "one-sided"):
        assert numbers["best_steps"][kind][-1] <= numbers["best_steps"][kind][0] / 4
        assert numbers["condition"][kind][-1] < 1.01 < 5 < numbers["condition"][kind][0]
    assert numbers["best_steps"]["spread"][-1] > 5 * numbers["best_steps"]["spread"][0]
    assert numbers["fixed_steps"]["equal"][-1] < numbers["fixed_steps"]["equal"][0] / 50


def test_implicit_steps_grow_with_the_logarithm_of_the_condition_number(made):
    numbers = made("conditioning")[0].numbers
    radau, dopri8, descent = (np.array(numbers[name]) for name in ("radau", "dopri8", "descent"))
    assert radau[-1] < 5 * radau[0]
    assert 3 < numbers["radau steps a decade"] < 30
    assert dopri8[-1] > 4 * dopri8[0] and descent[-1] > 15 * descent[0]


def test_g19_figure_1_jumps_at_d_over_sigma(made):
    numbers = made("g19-figure1")[0].numbers
    # The half times are read off a grid of times.
    assert np.allclose(numbers["jump times over d, times sigma"], 1, rtol=0.02)
    assert numbers["largest deviation from the closed form"] < 1e-6
    assert np.all(np.diff(numbers["width of the jumps over their times"]) < 0)


def test_g19_figure_2_learns_components_at_the_law_s_steps(made):
    numbers = made("g19-figure2")[0].numbers
    half, law = np.array(numbers["half-height steps"]), np.array(numbers["law"])
    # A start of w = e^{-2d} is at half its height log(2 - ..)/(2 sigma) early or late; the noise tilts components a little.
    assert np.allclose(half, law, rtol=0.06)
    assert numbers["least distance to the projector"]["two layers"] < 0.02
    assert abs(numbers["nuclear norm there"] - 5) < 0.02


def test_g19_table_1_has_the_known_measures(made):
    numbers = made("g19-table1")[0].numbers
    known = {
        "digits": ((0.0388, 0.641), (0.320, 0.523)),
        "iris": ((8.46e-4, 0.491), (0.0678, 0.480)),
        "wine": ((0.00803, 0.601), (0.00318, 0.601)),
        "breast-cancer": ((0.0326, 0.639), (0.0144, 0.638)),
    }
    for name, (raw, centred) in known.items():
        assert np.allclose(numbers[name]["raw"], raw, rtol=6e-3), name
        # Rounding errors complete the singular vectors of centred one-hot targets.
        assert np.isclose(numbers[name]["centred"][0], centred[0], rtol=0.25), name
        assert np.isclose(numbers[name]["centred"][1], centred[1], rtol=6e-3), name
    assert numbers["autoencoder"] < 1e-12


def test_wide_networks_follow_the_wide_limit_up_to_the_square_root_of_the_width(made):
    numbers = made("wide-limit")[0].numbers
    assert abs(numbers["slope"] - -0.5) < 0.1
    assert numbers["worst gap, flow"][-1][0] < 0.02
    # The step adds little.
    assert numbers["worst gap, descent"][-1][0] < numbers["worst gap, flow"][-1][0] + 0.005


# -- the machinery -------------------------------------------------------------------------------------------------------


def test_a_failed_run_is_left_out_and_counted():
    values = xr.Dataset({"x": ("trial", [1.0, 2.0, np.inf]), "ok": ("trial", [True, False, True])})
    assert _common.failures(values) == (1, 3)
    assert np.array_equal(_common.blank(values["x"], values["ok"]), [1, np.nan, np.nan], equal_nan=True)


def test_crossings_interpolate_exponentials_exactly_and_are_nan_where_none_is():
    times = np.linspace(0, 4, 9)
    curves = np.stack([np.exp(-times), np.exp(-2 * times), np.ones_like(times)])
    found = _common.crossings(times, curves, 0.1)
    assert np.allclose(found[:2], [np.log(10), np.log(10) / 2], rtol=1e-12)
    assert np.isnan(found[2])


def test_bands_need_half_of_the_values():
    values = np.array([[1.0, np.nan], [2.0, np.nan], [3.0, 5.0]])
    low, middle, high = _common.band(values)
    assert middle[0] == 2 and low[0] < 2 < high[0]
    assert np.isnan(middle[1])


def test_unknown_figures_and_wrong_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must be one of 't21-figure1'"):
        figures.make("t21-figure9", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file, not a folder"):
        figures.make("t21-table2", tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="no figure data"):
        figures.open_figure(tmp_path / "nothing.zarr")
    with pytest.raises(ValueError, match="not the data of a figure"):
        figures.open_figure(tmp_path)


def test_figures_of_the_short_paper_are_those_of_the_long_one():
    assert figures.names("m21-figure1") == ("m22-figure7",)
    assert figures.names("all") == tuple(figures.FIGURES)


# -- the command -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def call(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["lindyn-jax", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def tiny(monkeypatch):
    """Two figures that cost nothing in place of all, of which the second fails in one of its runs."""

    def compute(*, seed, size):
        x = np.random.default_rng(seed).normal(size=size)
        return xr.Dataset({"x": ("trial", x), "ok": ("trial", np.arange(size) > 3 - size)})

    def measure(dataset):
        mean = float(_common.blank(dataset["x"], dataset["ok"]).mean())
        return _common.Measured(f"mean {mean:.3f}", {"mean": mean})

    def draw(figure, dataset):
        figure.subplots(1, 1).plot(dataset["x"].values)

    first = _common.Figure("T21 Fig. 9", "a title", "a claim", compute, measure, draw, {"size": 4}, {"size": 3})
    kept = {"first": first._replace(quick={"size": 4}), "second": first}
    monkeypatch.setattr(figures, "FIGURES", kept)
    return kept


def test_command_lists_the_figures(call):
    code, printed, _ = call("figure", "list")
    assert code == 0
    assert all(name in printed for name in figures.FIGURES)


def test_command_writes_pictures_and_data_and_says_what_was_measured(call, tiny, tmp_path):
    out = tmp_path / "out"
    code, printed, notes = call("figure", "all", "--quick", "--out", out, "--seed", 5)
    assert code == 0
    assert "making second (2 of 2)" in notes and "Some runs failed" in notes
    assert "shown:    a claim" in printed and "measured: mean" in printed
    assert "1 of 3 runs failed and are left out" in printed
    names = [f"{name}.{kind}" for name in tiny for kind in ("png", "pdf", "zarr")]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    dataset = figures.open_figure(out / "second.zarr")
    assert dataset.attrs["seed"] == 5 and json.loads(dataset.attrs["sizes"]) == {"size": 3}
    assert dataset.attrs["failed"] == 1
    assert "1 of 3 runs failed" in figures.draw(dataset)._suptitle.get_text()
    assert "jax" in json.loads(dataset.attrs["environment"])["versions"]


def test_command_prints_json_and_uses_the_paper_s_sizes_without_quick(call, tiny, tmp_path):
    code, printed, _ = call("figure", "second", "--json", "--out", tmp_path / "out")
    (made,) = json.loads(printed)
    assert code == 0
    assert made["name"] == "second" and (made["failed"], made["runs"]) == (0, 4)
    assert made["measured"] == f"mean {made['numbers']['mean']:.3f}"


def test_figures_of_the_same_data_compute_it_once(tiny, tmp_path):
    calls = []
    tiny["third"] = tiny["first"]._replace(compute=lambda **sizes: calls.append(1) or tiny["first"].compute(**sizes))
    tiny["fourth"] = tiny["third"]
    figures.make_all(("third", "fourth"), tmp_path)
    assert len(calls) == 1
    figures.make_all(("third", "fourth"), tmp_path, seed=1)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "arguments, sentence", [(["t21-figure9"], "must be one of"), (["t21-table2", "--seed", "-1"], "--seed must be")]
)
def test_command_refuses_bad_input_in_one_sentence(call, tmp_path, arguments, sentence):
    code, printed, error = call("figure", *arguments, "--out", tmp_path / "out")
    assert (code, printed) == (2, "")
    assert sentence in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_same_seed_gives_the_same_data(made):
    once, again = made("tightness")[1], figures.compute("tightness", **SIZES["tightness"])
    assert once["gaussian_random_target"].values.tobytes() == again["gaussian_random_target"].values.tobytes()


def test_figures_are_part_of_the_package():
    assert ld.studies.figures is figures
    assert ld.open_figure is figures.open_figure
