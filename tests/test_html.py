"""What objects show of themselves in a notebook: their numbers, escaped, in HTML that is well formed."""

import html
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lindyn_jax as ld


def shown(value):
    """The texts of an object's HTML, which must be well formed: lines, and rows of the table."""
    tree = ElementTree.fromstring(value._repr_html_().replace("<br>", "<br/>"))
    lines = [tree.find("b").text, *(line.tail for line in tree.findall("br"))]
    return lines, [[cell.text or "" for cell in row] for row in tree.iter("tr")]


@pytest.fixture(scope="module")
def flow():
    problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
    start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
    return ld.gradient_flow(start, problem, [0.0, 1.0, 2.0], observables=["loss", "singular_values"])


def test_a_trajectory_shows_how_it_ended_and_its_observables(flow):
    lines, rows = shown(flow)
    assert lines[0] == "Trajectory of TwoLayer"
    assert lines[1:3] == ["result: finished: reached the last time or step", "times: 3 from 0 to 2"]
    first, last = (f"{float(flow.observables['loss'][place]):.6g}" for place in (0, 2))
    assert rows[:2] == [["observable", "type", "first", "at the end"], ["loss", "float64[3]", first, last]]
    assert rows[2] == ["singular_values", "float64[3, 2]", "", ""]
    # The same where there is no HTML.
    assert f"{first} -> {last} at the end" in repr(flow)
    assert all(line.split(": ")[-1] in repr(flow) for line in lines)
    lines, rows = shown(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), flow))
    assert lines[1] == "batch: (2,): 2 finished"
    assert rows[:2] == [["observable", "type"], ["loss", "float64[2, 3]"]]


def test_a_statement_shows_its_numbers_under_their_names():
    more = {"parts": jnp.array([1.0, 0.25]), "many": jnp.ones((3, 3))}
    lines, rows = shown(ld.theory.Statement(jnp.array(2.0), True, name="rate", **more))
    assert lines == ["Statement"]
    assert rows[:3] == [["", "number", "type"], ["rate", "2", "float64"], ["applies", "True", "bool"]]
    assert rows[3:] == [["parts", "[1, 0.25]", "float64[2]"], ["many", "", "float64[3, 3]"]]
    # Of a batch no number is shown, and types are still types.
    _, rows = shown(ld.theory.Statement(jnp.ones(10), jnp.ones(10, bool)))
    assert rows == [["", "type"], ["value", "float64[10]"], ["applies", "bool[10]"]]


def test_networks_and_problems_show_what_they_are_made_of():
    lines, rows = shown(ld.DeepLinear((3 * jnp.eye(2), jnp.ones((2, 1)))))
    assert lines == ["DeepLinear"]
    assert rows[1] == ["layers[0]", "float64[2, 2]", f"norm {3 * np.sqrt(2):.6g}"]
    assert rows[2] == ["layers[1]", "float64[2, 1]", f"norm {np.sqrt(2):.6g}"]
    lines, rows = shown(ld.LeastSquares(jnp.eye(3)[:, :2], jnp.ones((3, 1)), scale=0.5))
    assert lines == ["LeastSquares", "inputs: 2, outputs: 1, samples: 3"]
    assert [row[0] for row in rows] == ["array", "X", "Y", "scale", "output_scale"]
    assert rows[3] == ["scale", "float64", "0.5"]


def test_nothing_is_shown_unescaped_and_traced_arrays_have_a_type_alone(flow):
    statement = ld.theory.Statement(1.0, True, **{"<script>": jnp.array(1.0)})
    assert "<script>" not in statement._repr_html_() and html.escape("<script>") in statement._repr_html_()

    def look(flow):
        seen.extend([shown(flow.final), shown(flow), repr(flow)])
        return flow.ts

    seen = []
    jax.jit(look)(flow)
    assert seen[0][1][1] == ["U", "float64[2, 2]"]
    assert seen[1:] == [(["Trajectory of TwoLayer (traced)"], []), "Trajectory of TwoLayer (traced)"]


def test_a_sweep_says_before_all_else_how_much_of_it_is_there(tmp_path):
    def end(done, total):
        if done:
            raise KeyboardInterrupt

    options = {"key": jax.random.key(0), "chunk": 2, "store": tmp_path / "store"}
    with pytest.raises(KeyboardInterrupt):
        ld.run_ensemble(lambda key, x: {"y": x}, {"x": [1.0]}, 6, progress=end, **options)
    begun = ld.open_sweep(tmp_path / "store")
    assert next(iter(begun.attrs)) == "state" and "2 of 6 trials are there" in begun._repr_html_()
    ld.run_ensemble(lambda key, x: {"y": x}, {"x": [1.0]}, 6, **options)
    assert "are there" not in ld.open_sweep(tmp_path / "store")._repr_html_()
