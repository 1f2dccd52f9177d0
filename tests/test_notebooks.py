"""Every notebook runs from its first cell to its last, prints what was saved in it, and can be read without running it."""

import base64
import contextlib
import io
import json
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
NUMBER = r"-?\d+\.?\d*(?:e[+-]?\d+)?"
PICTURE_BYTES = 60_000


def cells_of(path, kind):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@pytest.fixture
def unseen():
    """Figures are drawn, and closed again."""
    matplotlib.use("Agg")
    yield
    plt.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_prints_the_numbers_saved_in_it(path, unseen):
    namespace, printed, saved, drawn = {}, io.StringIO(), "", 0
    with contextlib.redirect_stdout(printed):
        for cell in cells_of(path, "code"):
            exec(compile("".join(cell["source"]), path.name, "exec"), namespace)
            saved += "".join("".join(output.get("text", [])) for output in cell["outputs"])
            drawn += sum("data" in output for output in cell["outputs"])
    numbers = [[float(x) for x in re.findall(NUMBER, text)] for text in (printed.getvalue(), saved)]
    words = [re.sub(NUMBER, "", text).split() for text in (printed.getvalue(), saved)]
    assert numbers[1]
    np.testing.assert_allclose(*numbers, rtol=1e-6)
    assert words[0] == words[1]
    assert len(plt.get_fignums()) == drawn


def test_quickstart_is_the_first_example_of_the_readme():
    (cell,) = cells_of(Path(__file__).parent.parent / "notebooks" / "quickstart.ipynb", "code")
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    code, shown = re.findall(r"```python\n(.*?)```\n\nprints\n\n```text\n(.*?)```", readme, re.DOTALL)[0]
    assert "".join(cell["source"]).strip() == code.strip()
    printed = "".join("".join(output.get("text", [])) for output in cell["outputs"])
    assert re.findall(NUMBER, printed) == re.findall(NUMBER, shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_says_what_it_is_about_and_keeps_its_pictures_small(path):
    first = json.loads(path.read_text())["cells"][0]
    assert first["cell_type"] == "markdown"
    assert "".join(first["source"]).startswith("# ")
    outputs = [output for cell in cells_of(path, "code") for output in cell["outputs"]]
    assert outputs
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    for output in outputs:
        if "data" in output:
            assert set(output["data"]) == {"image/png"}
            assert len(base64.b64decode("".join(output["data"]["image/png"]))) < PICTURE_BYTES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_uses_nothing_private(path):
    source = "\n".join("".join(cell["source"]) for cell in cells_of(path, "code"))
    assert "lindyn_jax" in source
    assert not re.search(r"\b(?:ld|lindyn_jax|plots)(?:\.\w+)*\._\w", source)
    assert not re.search(r"^\s*[%!]", source, re.MULTILINE)
