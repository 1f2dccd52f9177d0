"""What users give to the command line as they give it: names that look like markup, odd files, absurd numbers, idle options."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import typing
import zipfile

import matplotlib.figure
import numpy as np
import pytest

from lindyn_jax import cli, plots
from lindyn_jax.cli import _endings, _progress
from lindyn_jax.cli._checked import BOUNDS, FREE, RULES, SHARES
from lindyn_jax.data._common import on_one_line
from lindyn_jax.studies.simulate import OBSERVABLES


def commands():
    """Every command's function, by its name."""
    return {command.name: command.callback for app in (cli.app, cli.sweep) for command in app.registered_commands}


# -- text of users --------------------------------------------------------------------------------------------------------

ODD = "price $x_ [/s] [bold]$ [m/s] {0} \\alpha :smile: 50% #1 ^"


def odd_table(folder):
    path = folder / f"{ODD.replace('/', '')}.csv"
    rng = np.random.default_rng(0)
    rows = [f"a,b,{ODD}", *(",".join(f"{v:.4f}" for v in row) for row in rng.normal(size=(2, 3)))]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_names_of_files_and_columns_are_printed_letter_by_letter(call, tmp_path, monkeypatch):
    # So wide that no name is broken.
    monkeypatch.setattr("lindyn_jax.cli._tables.WIDTH", 300)
    path = odd_table(tmp_path)
    code, printed, notes = call("commutation", "--data", path, "--targets", ODD)
    assert code == 0
    assert path.name in printed and path.name in notes
    assert f"targets: column {ODD}" in notes


def test_names_of_files_and_columns_do_not_end_a_simulation(call, tmp_path):
    out = tmp_path / f"out {ODD.replace('/', '')}"
    options = ("--points", 3, "--width", 4, "--observables", "loss", "--until", 1, "--solver", "tsit5")
    code, printed, notes = call("simulate", "--data", odd_table(tmp_path), "--targets", ODD, *options, "--out", out)
    assert code == 0
    assert f"targets: column {ODD}" in notes and str(out) in printed
    assert (out / "figure.png").stat().st_size > 1000


# What else is odd, alone and in pairs.
MORE = [pytest.param(text, marks=pytest.mark.slow) for text in ("$", "a$b$c^", "\\$", "日本", "_a")]


@pytest.mark.parametrize("text", [ODD, "\udcff \x1b[1m", "_$_", *MORE])
def test_text_of_users_is_drawn_letter_by_letter(text, tmp_path):
    figure = matplotlib.figure.Figure()
    ax = figure.subplots()
    ax.set_title(f"{plots.literal(text)}; $x^2$")
    ax.plot([0, 1], label=plots.literal(text))
    ax.legend()
    assert len(plots.save(figure, tmp_path / "made")) == 2
    assert len(ax.get_legend().get_texts()) == 1
    shown = re.sub(r"^\$\\_\$", "_", plots.literal(text)).replace("\\$", "$")
    assert shown == on_one_line(text)


def test_bytes_that_are_no_text_do_not_end_a_command(tmp_path):
    path = os.fsencode(tmp_path) + b"/odd\xff.csv"
    with open(path, "w") as file:
        file.write("a,y\n1,2\n3,5\n")
    command = [sys.executable, "-m", "lindyn_jax", "commutation", "--targets", "y", "--data", path]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
    ended = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    assert (ended.returncode, ended.stderr.count(b"Traceback")) == (0, 0)
    assert rb"odd\udcff.csv" in ended.stdout


# -- every observable is drawn --------------------------------------------------------------------------------------------


def trajectory(names, values=1.0):
    import xarray as xr

    shapes = {"singular_values": (5, 2), "imbalance_spectrum": (5, 3), "mode_strengths": (5, 2), "alignment": (5, 2)}
    arrays = {}
    for name in names:
        shape = shapes.get(name, (5,))
        arrays[name] = (("time", f"{name}_index")[: len(shape)], values * np.ones(shape))
    return xr.Dataset(arrays, coords={"time": np.arange(5.0)})


@pytest.mark.parametrize("name", [*OBSERVABLES, "my $own_ observable"])
def test_every_observable_alone_has_a_panel(name, tmp_path):
    figure = plots.trajectory(trajectory([name]), "title")
    assert sum(len(ax.lines) for ax in figure.axes) >= 1
    assert all(len(line.get_xdata()) == 5 for ax in figure.axes for line in ax.lines)


def test_all_observables_together_are_drawn():
    count = {"singular_values": 2, "imbalance_spectrum": 3, "mode_strengths": 2, "alignment": 2}
    figure = plots.trajectory(trajectory(OBSERVABLES), "title")
    assert sum(len(ax.lines) for ax in figure.axes) == sum(count.get(name, 1) for name in OBSERVABLES)


def test_an_observable_that_a_logarithm_hides_is_named():
    figure = plots.trajectory(trajectory(["rate_bound"], 0.0), "title")
    (text,) = figure.axes[0].get_legend().get_texts()
    assert text.get_text() == "Proposition 1: never positive"


# -- absurd numbers and idle options --------------------------------------------------------------------------------------


def test_every_option_that_is_a_number_has_bounds_and_every_command_has_rules():
    assert set(commands()) == set(RULES)
    for name, function in commands().items():
        hints = typing.get_type_hints(function)
        for option, kind in hints.items():
            if int in (kind, *typing.get_args(kind)):
                assert option in BOUNDS, option
        for rule in RULES[name]:
            assert set(rule.names) <= set(hints), (name, rule)
    assert not set(BOUNDS) & {*SHARES, *FREE}


FACTORIZATION = ("--data", "factorization")
IDLE = [
    ("simulate", "--shape", "3,2"),
    ("simulate", "--targets", "y"),
    ("simulate", *FACTORIZATION, "--targets", "y"),
    ("simulate", *FACTORIZATION, "--samples", 3),
    ("simulate", "--data", "digits", "--subset-seed", 1),
    ("simulate", "--step-size", "0.1"),
    ("simulate", "--dynamics", "descent", "--solver", "lie"),
    ("simulate", "--dynamics", "descent", "--rtol", "1e-6"),
    ("simulate", "--positive", "2"),
    ("simulate", "--start", "balanced", "--negative", "2"),
    ("simulate", "--start", "spectral", "--lambda0", "2"),
    ("simulate", "--start", "xavier", "--std", "2"),
    ("audit", "--lambda0", "2"),
    ("simulate", "--u0", "1"),
    ("simulate", "--start", "spectral", "--std", "1"),
    ("simulate", "--start", "spectral", "--alpha", "1"),
    ("simulate", "--start", "spectral", "--seed", "1"),
    ("sequence", "--change", "reversed", "--tasks-seed", "1"),
    ("sequence", "--step-size", "0.1"),
    ("audit", "--positive", "2"),
    ("audit", "--dynamics", "flow", "--step-size", "0.1"),
    ("audit", "--dynamics", "descent", "--solver", "lie"),
    ("audit", "--preset", "m22-figure3", "--widths", "7"),
    ("sweep", "theorem12", "--step-size", "0.1"),
    ("sweep", "theorem12", "--dynamics", "descent", "--rtol", "1e-3"),
    ("sweep", "theorem12", "--dynamics", "descent", "--solver", "lie"),
    ("sweep", "theorem12", "--data", "digits", "--subset-seed", 1),
    ("sweep", "lemma11", "--data", "gaussian", "--inputs", 5),
    ("sweep", "lemma11", "--samples", 5),
    ("sweep", "lemma11", "--centre"),
    ("sweep", "lemma11", "--data", "digits", "--batch-size", 4),
    ("fit-lambda0", "--draw-target", "--subset-seed", 1),
    ("fit-lambda0", "--horizon", 1, "--relative-error", 0.1),
    ("fit-lambda0", "--data", "gaussian", "--draw-target"),
    ("commutation", "--data", "iris", "--subset-seed", 1),
    ("commutation", "--data", "iris", "--targets", "y"),
    ("figure", "--quick"),
    ("figure", "list", "--seed", 1),
]


@pytest.mark.parametrize("arguments", IDLE, ids=lambda arguments: " ".join(map(str, arguments)))
def test_an_option_without_an_effect_is_refused(call, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, printed, error = call(*arguments)
    assert (code, printed, error.count("\n")) == (2, "", 1)
    idle = next(str(a) for a in reversed(arguments) if str(a).startswith("--"))
    assert idle in error and ("leave" in error)
    assert not list(tmp_path.iterdir())


ABSURD = [
    *(
        (*command, option, value)
        for command in (("simulate",), ("audit",), ("sweep", "theorem12"), ("sweep", "lemma11"), ("fit-lambda0",))
        for option, value in (("--seed", 2**64), ("--seed", -1), ("--subset-seed", 2**64))
    ),
    ("figure", "t21-figure1", "--seed", 2**64),
    ("simulate", *FACTORIZATION, "--shape", "100000,100000"),
    ("fit-lambda0", "--shape", "1e9,1e9"),
    ("simulate", "--std", "1e300"),
    ("simulate", "--std", "1e-300"),
    ("simulate", "--start", "spectral", "--u0", "1e300"),
    ("simulate", "--start", "imbalance", "--positive", "1e300"),
    ("fit-lambda0", "--std", "nan"),
    *(("simulate", option, value) for option in ("--rtol", "--stop") for value in (1, 0, -1, "nan", "inf")),
    *(("simulate", option, value) for option in ("--until",) for value in (0, -1, "nan", "inf")),
    *(("simulate", "--points", value) for value in (0, 1, -3, 10**12)),
    *(("simulate", "--max-steps", value) for value in (0, 10**15)),
    *(("simulate", "--width", value) for value in (0, -1, 1.5, "nan", "inf", 1e300)),
    ("simulate", "--alpha", "nan"),
    ("simulate", "--dynamics", "descent", "--step-size", "inf"),
    ("simulate", "--samples", 10**9),
    ("sweep", "theorem12", "--data", "gaussian", "--trials", 10**9),
    ("sweep", "lemma11", "--trials", 10**9, "--keep-trials"),
    ("sweep", "lemma11", "--trials", 10**12),
    ("sweep", "lemma11", "--rank", 10**6),
    ("sweep", "lemma11", "--inputs", 2**70),
    ("sweep", "lemma11", "--delta", "nan"),
    ("sweep", "lemma11", "--precision", "nan"),
    ("sweep", "lemma11", "--widths", "1:2:100000000"),
    ("sweep", "lemma11", "--cluster", "nonsense"),
    ("fit-lambda0", "--nodes", 10**9),
    ("fit-lambda0", "--nodes", 7),
    ("fit-lambda0", "--relative-error", "2"),
    ("fit-lambda0", "--data", "digits"),
    ("audit", "--trials", 10**9),
    ("audit", "--chunk", 0),
]


@pytest.mark.parametrize("arguments", ABSURD, ids=lambda arguments: " ".join(map(str, arguments)))
def test_an_absurd_number_is_refused_at_once_in_one_sentence(call, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Whatever would compile or allocate is not come to.
    monkeypatch.setattr("lindyn_jax.ensemble.run_ensemble", None)
    code, printed, error = call(*arguments)
    assert (code, printed, error.strip().count("\n")) == (2, "", 0)
    assert error.startswith("lindyn-jax: ") and len(error) < 400
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("X", "Y"), [(1e300, 1), (1e-300, 1), (1, 1e300), (1, 1e-300)])
def test_sizes_that_overflow_are_not_called_zero_targets(call, X, Y, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", X=X * rng.normal(size=(3, 4)), Y=Y * rng.normal(size=(3, 1)))
    code, _, error = call("simulate", "--data", tmp_path / "own.npz", "--out", tmp_path / "out")
    assert code == 2
    assert "choose units in which they are closer to 1" in error and ("`X`" if X != 1 else "`Y`") in error


def odd_files(folder):
    """Files that are no data, each with what is said about it."""
    np.savez(folder / "objects.npz", X=np.array([{}, None], dtype=object), Y=np.ones(2))
    np.savez(folder / "words.npz", X=np.array([["a"], ["b"]]), Y=np.ones(2))
    np.savez(folder / "scalar.npz", X=np.array(1.0), Y=np.array(1.0))
    np.savez(folder / "none.npz", X=np.ones((0, 3)), Y=np.ones((0, 1)))
    np.savez(folder / "complex.npz", X=1j * np.ones((2, 2)), Y=np.ones(2))
    with zipfile.ZipFile(folder / "member.npz", "w") as archive:
        archive.writestr("X", "text")
        archive.writestr("Y", "text")
    texts = {
        "empty": b"",
        "header": b"a,y\n",
        "bom": b"\xef\xbb\xbf",
        "one column": b"y\n1\n2\n",
        "nan": b"a,y\n1,nan\n",
        "zeros": bytes(100),
        "words": b"a,y\nx,1\nz,2\n",
        "booleans": b"a,y\nTrue,1\nFalse,2\n",
    }
    for name, raw in texts.items():
        (folder / f"{name}.csv").write_bytes(raw)
    (folder / "folder.csv").mkdir()
    (folder / "empty.npz").write_bytes(b"")
    os.symlink(folder / "nowhere", folder / "dangling.csv")
    return sorted(path for path in folder.iterdir() if path.name != "out")


def test_files_that_are_no_data_are_refused_in_one_sentence(call, tmp_path):
    for path in odd_files(tmp_path):
        targets = ("--targets", "y") if path.suffix == ".csv" else ()
        code, printed, error = call("commutation", "--data", path, *targets)
        assert (code, printed, error.count("\n")) == (2, "", 1), path
        assert path.name in error, path


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("simulate", "--targets", "a", "--targets=b"), "Option --targets is given 2 times: give it once, with commas"),
        (("simulate", "--observables", "losss"), "Option --observables is 'losss': did you mean 'loss'?"),
        (("simulate", "--horizon", "1", "--data", "hierarchy"), "semantic, factorization."),
        (("simulate", "--data", "factorisation"), "did you mean `factorization`?"),
        (("figure", "t21-figre1"), "figure NAME is 't21-figre1': did you mean 't21-figure1'?"),
    ],
)
def test_what_is_meant_is_said_in_the_words_of_the_command_line(call, tmp_path, arguments, said):
    code, printed, error = call(*arguments, "--out", tmp_path / "out")
    assert (code, printed, error.count("\n")) == (2, "", 1) and said in error


def test_a_table_of_one_row_and_booleans_in_arrays_are_data(call, tmp_path):
    (tmp_path / "row.csv").write_text("a,b,y\n1,2,3\n")
    np.savez(tmp_path / "booleans.npz", X=np.eye(3, dtype=bool), Y=np.ones((3, 1), np.float16))
    for name, extra in (("row.csv", ("--targets", "y")), ("booleans.npz", ())):
        code, printed, _ = call("commutation", "--data", tmp_path / name, *extra, "--json")
        # A centred row is zero.
        assert (code == 0 and json.loads(printed)["rows"][0]["rank"] == 1) if name != "row.csv" else code == 2


def test_an_unknown_platform_is_named():
    command = [sys.executable, "-m", "lindyn_jax", "simulate", "--points", "3"]
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "nonsense"}, timeout=120
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1 and "JAX_PLATFORMS is 'nonsense'" in ended.stderr


# -- endings --------------------------------------------------------------------------------------------------------------


def test_a_closed_output_gets_one_sentence():
    command = [sys.executable, "-m", "lindyn_jax", "info"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        error = process.stderr.read().decode()
        assert process.wait(timeout=120) == 141
    assert error.count("\n") == 1 and "Standard output was closed" in error


@pytest.fixture
def heard():
    """Signals that a run in the background may have been told to ignore are not."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in _endings.NAMES}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "said"), [("SIGINT", "Interrupted"), ("SIGTERM", "by SIGTERM"), ("SIGHUP", "by SIGHUP")]
)
@pytest.mark.usefixtures("heard")
def test_a_signal_ends_a_sweep_with_a_sentence_and_its_code(number, said, call, tmp_path, monkeypatch):
    # At the first chunk, from where a callback would swallow it: the next one asks again.
    class Once(_progress.Progress):
        def __call__(self, done, total):
            if done:
                try:
                    signal.raise_signal(getattr(signal, number))
                    time.sleep(0.1)
                except BaseException:
                    pass
            super().__call__(done, total)

    monkeypatch.setattr("lindyn_jax.cli._study.Progress", Once)
    out = tmp_path / "out"
    options = ("--widths", "8,9", "--trials", 40, "--chunk", 10, "--out", out)
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(sys, "argv", ["lindyn-jax", "sweep", "lemma11", *map(str, options)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 128 + getattr(signal, number)
    assert signal.getsignal(signal.SIGTERM) == before
    monkeypatch.undo()
    code, _, notes = call("sweep", "lemma11", *options)
    assert code == 0 and "resuming: 60 of 240" in notes


def test_a_figure_that_cannot_be_saved_costs_a_sentence_and_not_the_table(call, tmp_path):
    out = tmp_path / "out"
    options = ("--widths", "8,9", "--trials", 40, "--chunk", 10, "--out", out)
    assert call("sweep", "lemma11", *options)[0] == 0
    (out / "figure.png").unlink()
    (out / "figure.png").mkdir()
    code, printed, notes = call("sweep", "lemma11", *options)
    assert code == 0
    assert "How often events" in printed and "The picture cannot be saved in" in notes and "Is a directory" in notes


def test_output_folders_that_cannot_be_made_get_one_sentence(call, tmp_path):
    (tmp_path / "file").write_text("")
    os.symlink(tmp_path / "nowhere", tmp_path / "dangling")
    for out in (tmp_path / "file" / "below", tmp_path / "dangling", tmp_path / ("x" * 300), tmp_path / "file"):
        for command in ("simulate", "audit", "fit-lambda0"):
            code, printed, error = call(command, "--out", out)
            assert (code, printed) == (2, "") and error.strip().count("\n") == 0, (command, out, error)
