"""The README's examples print the numbers that the README shows."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
NUMBER = r"-?\d+\.?\d*(?:e[+-]?\d+)?"


EXAMPLES = re.findall(r"```python\n(.*?)```\n\nprints\n\n```text\n(.*?)```", README, re.S)


@pytest.mark.parametrize("index", range(README.count("```python")))
def test_library_examples_print_the_numbers_shown(index):
    code, shown = EXAMPLES[index]
    assert len([line for line in code.splitlines() if line.strip()]) <= 18
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    expected = [float(x) for x in re.findall(NUMBER, shown)]
    values = [float(x) for x in re.findall(NUMBER, printed.getvalue())]
    assert len(expected) >= 8
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_commands_stand_where_ci_and_newcomers_look():
    assert re.search(r'^pip install "\.\[data\]" && lindyn-jax sweep theorem12 ', README, re.M)
    assert re.search(r'^pip install "\.\[test\]" && python -m pytest$', README, re.M)
