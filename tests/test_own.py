"""What users add is one short file: the examples of the documentation are run, and do what they say."""

import contextlib
import io
import json
import re
import runpy
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr

import lindyn_jax as ld

PAGES = Path(__file__).parent.parent / ".docs/pages"


def example(page, word):
    """The block of Python on a page that holds a word: its text, of less than 30 lines."""
    (text,) = (block for block in re.findall(r"```python\n(.*?)```", (PAGES / page).read_text(), re.S) if word in block)
    assert len(text.splitlines()) < 30
    return text


def test_a_start_of_ones_own_runs_in_simulate_and_in_an_ensemble():
    names = {}
    exec(example("api/init.md", "AbstractStart"), names)
    path, ensemble = names["path"], names["ensemble"]
    assert path.attrs["start"] == "sparse, h = 20, share = 0.5"
    assert path["excess_loss"][-1] < 1e-5 * path["excess_loss"][0]
    # What it draws is part of what is recorded: its code may change.
    other = type(
        "Sparse", (ld.init.AbstractStart,), {"draw": lambda self, problem, *, key: ld.TwoLayer(np.eye(3), np.eye(2, 3))}
    )
    assert path.attrs["settings"]["start"]["share"] == 0.5
    assert path.attrs["settings"]["start"]["draws"] != ld.studies._record.of_start(other(), names["problem"])["draws"]
    levels = ensemble["level"].mean("trial")
    # A larger share of U is a larger imbalance.
    assert levels[0] < levels[1] and len(np.unique(ensemble["level"])) == 200


def test_a_loss_of_the_reference_gives_its_own_solution():
    names = {}
    exec(example("api/problems.md", "ld.AbstractProblem"), names)
    path, problem = names["path"], names["problem"]
    assert bool(path.ok) and float(path.observables["loss"][1]) < 1e-12
    Theta = np.asarray(path.final.product())
    np.testing.assert_allclose(Theta * problem.mask, problem.Y * problem.mask, atol=1e-8)
    # Small starts complete the matrix nearly with the least rank: the missing entry is about 2 * 0.5.
    assert 0.9 < Theta[1, 1] < 1 and np.linalg.svd(Theta, compute_uv=False)[1] < 0.05


def test_a_network_of_the_reference_moves_and_its_kernel_turns():
    names = {}
    exec(example("api/models.md", "ld.AbstractModel"), names)
    start, data, path = names["start"], names["data"], names["path"]

    def kernel(model):
        J = np.concatenate([np.diag(np.asarray(model.v)), np.diag(np.asarray(model.u))], axis=1)
        X = np.asarray(data.X)
        return X @ J @ J.T @ X.T

    K, before = kernel(path.final), kernel(start)
    turned = 1 - np.sum(K * before) / (np.linalg.norm(K) * np.linalg.norm(before))
    assert turned > 1e-3
    np.testing.assert_allclose(path.final_observables["kernel_distance"], turned, rtol=1e-6)
    assert bool(names["descent"].ok)


class Rolls(ld.Study):
    """What rolls how far."""

    attributes: ClassVar = {"far": {"long_name": "how far it rolls"}}

    def grid(self):
        return {"alpha": [0.5], "width": [1.0, 10.0]}

    def trial(self, key, alpha, width):
        return {"imbalance_drift": width, "far": width}


def test_the_picture_of_a_study_is_in_rows_and_calls_outputs_what_they_are():
    names = [f"{name}_{end}" for name in ("imbalance_drift", "far") for end in ("mean", "max")]
    over = ("alpha", "width")
    summary = xr.Dataset({name: (over, [[1e-3, 1.0]]) for name in names}, {"alpha": [0.5], "width": [1.0, 10.0]})
    summary = summary.assign(own=(over, [[1.0, 2.0]]))
    figure = Rolls().draw(None, summary, "a title")
    panels = [(ax.get_title(), ax.get_yscale()) for ax in figure.axes]
    assert len({round(ax.get_position().y0, 3) for ax in figure.axes}) == 2 and figure.get_figwidth() < 11
    assert [title.split(",")[0] for title, _ in panels[:2]] == ["mean of ||D - D(0)||_F", "largest ||D - D(0)||_F"]
    assert [title for title, _ in panels[2:]] == ["mean of how far it rolls", "largest how far it rolls", "own"]
    assert [scale for _, scale in panels] == ["log", "log", "linear", "linear", "linear"]


def test_a_study_of_ones_own_has_a_command_that_resumes(tmp_path, monkeypatch):
    (tmp_path / "imbalance.py").write_text(example("api/studies.md", "ld.Study"))
    out = tmp_path / "out"

    def call(*more):
        arguments = [
            "--data",
            "factorization",
            "--shape",
            "3,2",
            "--widths",
            "10,1e9",
            "--trials",
            "40",
            "--out",
            str(out),
        ]
        printed, notes = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["imbalance.py", *arguments, *more])
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(notes), pytest.raises(SystemExit) as ended:
            runpy.run_path(str(tmp_path / "imbalance.py"), run_name="__main__")
        return ended.value.code or 0, printed.getvalue(), notes.getvalue()

    code, printed, notes = call()
    assert code == 0, notes
    assert "level_mean" in printed and "is_large" in printed and "80 of 80 trials" in notes
    assert {path.name for path in out.iterdir()} == {"sweep.zarr", "figure.png", "figure.pdf"}
    kept = ld.open_sweep(out).load()
    code, printed, notes = call("--json")
    assert code == 0 and "resuming: 80 of 80" in notes
    summary = json.loads(printed)["summary"]
    np.testing.assert_allclose(summary["level_mean"], kept["level"].mean("trial"), rtol=1e-12)
    assert summary["is_large"] == kept["is_large"].mean("trial").values.tolist()
    # The level tends to twice its scale.
    assert abs(summary["level_mean"][1] - 2) < 1e-3
    for wrong, sentence in ((("--trials", "0"), "at least 1"), (("--alpha", "0.4"), "alpha is 0.5 there and 0.4 here")):
        code, printed, error = call(*wrong)
        assert (code, printed) == (2, "") and sentence in error
