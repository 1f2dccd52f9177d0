"""What a type checker says of the package, and of the code of those who use it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyright", reason="needs pyright, which the extra `test` installs")

ROOT = Path(__file__).parent.parent
USE = """
from typing import assert_type

import jax
import lindyn_jax as ld


def use(model: ld.TwoLayer, problem: ld.LeastSquares, key: jax.Array) -> None:
    flow = ld.gradient_flow(model, problem, [0.0, 1.0, 2.0])
    assert_type(flow.final, ld.TwoLayer)
    descent = ld.gradient_descent(model, problem, 10, optimizer=ld.plain_descent(0.1), save_at=[0, 10])
    assert_type(descent.final.V, jax.Array)
    assert_type(ld.theory.rate_spectrum(model, problem), jax.Array)
    ld.gradient_flow(problem, model, [0.0, 1.0])  # wrong
    ld.theory.stable_step(model, problem, at="start")  # wrong
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The errors in the package and in a program that uses it: file, line and text."""
    program = tmp_path_factory.mktemp("types") / "use.py"
    program.write_text(USE)
    command = (
        sys.executable,
        "-m",
        "pyright",
        "--pythonpath",
        sys.executable,
        "--outputjson",
        "lindyn_jax",
        str(program),
    )
    # The newest version is no matter, and is not asked for. Memory that is collected less often saves a third of the time.
    environment = os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "PYTHONPATH": str(ROOT)}
    environment["NODE_OPTIONS"] = "--max-semi-space-size=128"
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    diagnostics = json.loads(ran.stdout)["generalDiagnostics"]
    errors = [
        (Path(one["file"]), one["range"]["start"]["line"], one["message"])
        for one in diagnostics
        if one["severity"] == "error"
    ]
    return program, errors


def test_the_package_has_no_type_errors(found):
    program, errors = found
    package = [(file.relative_to(ROOT / "lindyn_jax").as_posix(), *rest) for file, *rest in errors if file != program]
    assert package == []


def test_a_users_program_has_the_types_of_what_it_passes_in(found):
    """A trajectory ends in a model of the kind that it began with, and wrong arguments are errors."""
    program, errors = found
    wrong = [number for number, line in enumerate(USE.splitlines()) if line.endswith("# wrong")]
    assert {line for file, line, _ in errors if file == program} == set(wrong)
