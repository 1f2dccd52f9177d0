"""The command line: what it prints, what it writes, and the one sentence that bad input gets."""

import json
import os
import subprocess
import sys

import jaxlib.version
import numpy as np
import pytest

import lindyn_jax as ld
from lindyn_jax.cli import _cache, _common

SMALL = ["--alphas", "0.5", "--widths", "100,1000", "--trials", "4"]


@pytest.fixture(scope="module")
def csv(tmp_path_factory):
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("data") / "own.csv"
    table = rng.normal(size=(6, 11))
    header = ",".join([f"x{i}" for i in range(10)] + ["y"])
    path.write_text(header + "\n" + "\n".join(",".join(f"{v:.6f}" for v in row) for row in table) + "\n")
    return path


@pytest.fixture(scope="module")
def swept(call, csv, tmp_path_factory):
    """A small sweep: its command, and what it ended with."""
    arguments = ("sweep", "theorem12", "--data", csv, "--targets", "y", *SMALL)
    arguments += "--out", tmp_path_factory.mktemp("swept") / "out"
    return arguments, call(*arguments)


def test_sweep_on_a_users_csv_writes_store_table_and_figure_and_resumes(call, swept):
    arguments, (code, printed, notes) = swept
    out = arguments[-1]
    assert code == 0
    assert "slope of log distance" in printed
    assert "hypothesis not met" in printed
    assert "8 of 8 trials" in notes
    assert {path.name for path in out.iterdir()} == {"sweep.zarr", "figure.png", "figure.pdf"}
    dataset = ld.open_sweep(out)
    assert dict(dataset.sizes) == {"alpha": 1, "width": 2, "trial": 4}
    assert bool(dataset["computed"].all())
    assert json.loads(dataset.attrs["settings"])["data"] == "own.csv"
    assert dataset["distance"].attrs["long_name"] == "||Theta(inf) - Theta_hat||_F"
    before = dataset["distance"].values.tobytes()
    code, again, notes = call(*arguments)
    assert (code, again) == (0, printed)
    assert "resuming: 8 of 8" in notes
    assert ld.open_sweep(out)["distance"].values.tobytes() == before


def test_store_made_with_other_settings_is_refused_by_name(call, swept):
    code, printed, error = call(*swept[0], "--seed", 1)
    assert (code, printed) == (2, "")
    assert "made with other settings" in error
    assert "seed is 0 there and 1 here" in error


def test_json_holds_the_summary_and_nothing_else(call, swept):
    code, printed, _ = call(*swept[0], "--json")
    known = json.loads(printed)
    values = known["summary"]
    assert code == 0
    assert values["width"] == [100, 1000]
    assert values["applies"] == [[False, False]]
    assert (known["command"], known["version"]) == ("theorem12", ld.__version__) and known["settings"]["seed"] == 0
    assert [(row["alpha"], row["width"]) for row in known["rows"]] == [(0.5, 100), (0.5, 1000)]
    assert [row["median"] for row in known["rows"]] == values["median"][0]
    assert np.shape(values["level_is_large_low"]) == (1, 2)


BAD = {
    "unknown data": (["--data", "digitz"], "digitz"),
    "missing file": (["--data", "missing.npz"], "missing.npz"),
    "full column rank": (["--data", "iris"], "needs more inputs than the rank of X"),
    "width below one": (["--widths", "0.5"], "whole numbers from 1 to 1e12"),
    "width of nothing": (["--widths", "0"], "whole numbers from 1 to 1e12"),
    "width beyond": (["--widths", "1e13"], "whole numbers from 1 to 1e12"),
    "words for widths": (["--widths", "many"], "--widths must be numbers"),
    "endless widths": (["--widths", "nan"], "must be finite"),
    "negative exponent": (["--alphas", "-0.5"], "Exponents must be positive"),
    "zero exponent": (["--alphas", "0"], "Exponents must be positive"),
    "zero trials": (["--trials", "0"], "--trials must be at least 1"),
    "tolerance": (["--rtol", "1e-17"], "cannot resolve"),
    "zero saddle": (["--alphas", "90", "--widths", "1e6"], "saddle at zero"),
    "stop": (["--stop", "2"], r"must lie in (0, 1)"),
    "delta": (["--delta", "1"], r"must lie in (0, 1)"),
    "dynamics": (["--dynamics", "walk"], "'flow', 'descent'"),
    "loss scale": (["--loss-scale", "median"], "'sum', 'mean', 'averaged'"),
    "ill-conditioned": (
        ["--data", "digits", "--samples", "60", "--stop", "1e-12", "--solver", "dopri8"],
        "condition number",
    ),
    "too many samples": (["--data", "digits", "--samples", "5000"], "5000"),
    "zero samples": (["--samples", "0"], "at least 1"),
    "step size": (["--dynamics", "descent", "--step-size", "-1"], "must be a positive number"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_gets_one_sentence_and_exit_code_2_and_writes_nothing(call, tmp_path, name):
    arguments, sentence = BAD[name]
    defaults = ["--data", "gaussian"] if "--data" not in arguments and "--samples" not in arguments else []
    out = tmp_path / "out"
    code, printed, error = call("sweep", "theorem12", *defaults, *arguments, "--out", out)
    assert (code, printed) == (2, "")
    assert sentence in error
    assert len(error.strip().splitlines()) == 1
    assert "Traceback" not in error
    assert not out.exists()


def test_not_a_number_in_the_data_is_located(call, tmp_path):
    X = np.ones((3, 5))
    X[1, 2] = np.nan
    np.savez(tmp_path / "bad.npz", X=X, Y=np.ones((3, 1)))
    code, _, error = call("sweep", "theorem12", "--data", tmp_path / "bad.npz", "--out", tmp_path / "out")
    assert code == 2
    assert "X" in error
    assert "row" in error or "(1, 2)" in error


def test_wrong_shapes_are_named(call, tmp_path):
    np.savez(tmp_path / "bad.npz", X=np.ones((3, 5)), Y=np.ones((4, 1)))
    code, _, error = call("sweep", "theorem12", "--data", tmp_path / "bad.npz", "--out", tmp_path / "out")
    assert code == 2
    assert "3" in error
    assert "4" in error


def test_an_output_folder_that_is_not_a_store_is_left_alone(call, csv, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    arguments = ("sweep", "theorem12", "--data", csv, "--targets", "y", *SMALL)
    code, _, error = call(*arguments, "--out", tmp_path / "mine")
    assert code == 2
    assert "holds no sweep store" in error
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    code, _, error = call(*arguments, "--out", tmp_path / "mine" / "thesis.txt")
    assert code == 2
    assert "is a file" in error


def test_module_runs_and_info_names_versions():
    ended = subprocess.run([sys.executable, "-m", "lindyn_jax", "info"], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "jax " in ended.stdout
    assert "float64" in ended.stdout


def test_widths_are_log_spaced_whole_numbers():
    assert _common.widths_of("1e2:1e4:3") == [100, 1000, 10000]
    assert _common.widths_of("1000,10") == [10, 1000]
    assert _common.widths_of("1:10:4") == [1, 2, 5, 10]


def test_programs_are_kept_in_the_users_folder_unless_no_command_is_to(call, tmp_path):
    assert call("info", "--no-cache")[0] == 0 and not _cache.State.wanted
    assert call("info")[0] == 0 and _cache.State.wanted
    program = (
        "import jax; from lindyn_jax.cli import _cache; _cache.State.wanted = {}; _cache.turn_on(); "
        "jax.jit(lambda x: x + 1)(1.0); print(*_cache.held(_cache.folder()))"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "JAX_ENABLE_COMPILATION_CACHE": "true"}
    held = []
    for wanted in (True, False):
        ran = subprocess.run(
            [sys.executable, "-c", program.format(wanted)], env=os.environ | environment, capture_output=True, text=True
        )
        held.append(ran.stdout.split())
    assert held[0] == held[1] and all(int(number) > 0 for number in held[0])


def test_flags_of_the_user_stay_beside_the_one_that_makes_programs_compile_fast(monkeypatch):
    known = jaxlib.version.__version_info__ < (0, 10)
    for given, added in (("--xla_a=1", " --" + _common.EMITTERS + "=false"), (f"--{_common.EMITTERS}=true", "")):
        monkeypatch.setenv("XLA_FLAGS", given)
        for _ in range(2):
            _common.prepare_process(1)
            assert os.environ["XLA_FLAGS"] == given + added * known


def test_what_was_not_used_for_longest_leaves_a_full_folder_of_programs(tmp_path):
    for age, name in enumerate(("new", "old", "oldest")):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    _cache.shorten(tmp_path, 150)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert _cache.held(tmp_path) == (1, 100)
