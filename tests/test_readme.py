"""The README's example prints the numbers that the README shows."""

import contextlib
import io
import re
from pathlib import Path

import numpy as np

README = (Path(__file__).parent.parent / "README.md").read_text()
NUMBER = r"-?\d+\.?\d*(?:e[+-]?\d+)?"


def test_library_example_prints_the_numbers_shown():
    code = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    shown = re.search(r"```text\n(.*?)```", README, re.S).group(1)
    assert 10 <= len([line for line in code.splitlines() if line.strip()]) <= 18
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    expected = [float(x) for x in re.findall(NUMBER, shown)]
    values = [float(x) for x in re.findall(NUMBER, printed.getvalue())]
    assert len(expected) >= 9
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_commands_stand_where_ci_and_newcomers_look():
    assert re.search(r'^pip install "\.\[data\]" && lindyn-jax sweep theorem12 ', README, re.M)
    assert re.search(r'^pip install "\.\[test\]" && python -m pytest$', README, re.M)
