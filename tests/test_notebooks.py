"""Every notebook runs from its first cell to its last and prints what was saved in it."""

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
NUMBER = r"-?\d+\.?\d*(?:e[+-]?\d+)?"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_prints_the_numbers_saved_in_it(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    namespace, printed, saved = {}, io.StringIO(), ""
    with contextlib.redirect_stdout(printed):
        for cell in cells:
            exec(compile("".join(cell["source"]), path.name, "exec"), namespace)
            saved += "".join("".join(output.get("text", [])) for output in cell["outputs"])
    numbers = [[float(x) for x in re.findall(NUMBER, text)] for text in (printed.getvalue(), saved)]
    assert numbers[1]
    np.testing.assert_allclose(*numbers, rtol=1e-6)
