"""Pictures of a user's own numbers: what is drawn, what is marked because it cannot be drawn, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure

import lindyn_jax as ld
from lindyn_jax import plots

TS = np.linspace(0.0, 3.0, 16)
SIGMA = np.array([2.0, 1.0])


@pytest.fixture
def ax():
    """Axes, drawn at the end as a picture would be: a warning is an error."""
    with plots.style():
        figure = Figure(figsize=(3, 2.5), dpi=60)
        FigureCanvasAgg(figure)
        yield figure.subplots()
        figure.canvas.draw()


@pytest.fixture(scope="module")
def flow():
    problem = ld.factorization(jnp.diag(jnp.asarray(SIGMA)))
    start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
    return ld.gradient_flow(start, problem, TS, observables=("loss", "mode_strengths"), stop_loss=0.1)


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def seen(line):
    return np.asarray(line.get_ydata())[np.isfinite(line.get_ydata())]


def test_lines_of_a_user_have_the_colours_of_the_house_in_its_style_and_no_longer_after_it():
    with plots.style():
        inside = Figure().subplots()
    outside = Figure().subplots()
    count = len(plots.COLOURS) + 1
    drawn = [inside.plot([0, 1], [i, i])[0].get_color() for i in range(count)]
    assert drawn == [*plots.COLOURS, plots.COLOURS[0]]
    assert to_hex(inside.scatter([0], [0]).get_facecolor()[0]).upper() == plots.COLOURS[0]
    # A colour that is given takes none from the others, and changes no line's style.
    given = [inside.plot([0, 1], [0, 1], color="k")[0].get_linestyle() for _ in range(count)]
    assert set(given) == {"-"} and inside.plot([0, 1])[0].get_color() == plots.COLOURS[1]
    assert outside.plot([0, 1])[0].get_color() != plots.COLOURS[0]


def test_modes_of_a_trajectory_are_drawn_up_to_its_end_on_the_lines_of_a_law(ax, flow):
    law = np.asarray(ld.exact.mode(SIGMA, 0.1, 0.1, TS[:, None]).x)
    plots.modes(ax, flow, "mode_strengths", law)
    until = TS[float(flow.stats["final_time"]) >= TS]
    assert 3 < len(until) < len(TS)
    exact, points = ax.lines[:4:2], ax.lines[1:4:2]
    for i in range(2):
        assert np.array_equal(exact[i].get_ydata(), law[:, i])
        # The flow is the law's, to the tolerance of its solver.
        assert np.allclose(seen(points[i]), law[: len(until), i], rtol=1e-5, atol=0)
    # Slots after the end of a run that stopped as asked are nothing to complain of.
    assert texts(ax) == ["1", "2", "exact"] and len(ax.lines) == 5
    assert (ax.get_xlabel(), ax.get_yscale()) == ("time $t$", "linear")


def look(line):
    """By what a line can be told from others in print."""
    return line.get_color(), line.get_linestyle(), line.get_marker()


def test_twelve_modes_are_told_apart(ax, tmp_path, monkeypatch):
    curves = np.stack([TS + i + 1 for i in range(12)], axis=1)
    plots.modes(ax, TS, curves)
    assert len({look(line) for line in ax.lines}) == 12
    # The legend is long, and beside the curves.
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().x0 > ax.bbox.x1
    figures = [Figure() for _ in range(4)]
    plots.modes(figures[0].subplots(), TS, curves, curves)
    assert len({look(line) for line in figures[0].axes[0].lines[:-1]}) == 24
    plots.spectrum(figures[1].subplots(), curves, TS)
    plots.losses(figures[2].subplots(), {f"{i}": (TS, curves[:, i] + 1) for i in range(12)})
    seen = xr.Dataset({"singular_values": (("time", "mode"), curves)}, {"time": TS})
    plots.observables_against_time(figures[3].subplots(), seen, ["singular_values"], False)
    for figure in figures[1:]:
        assert len({look(line) for line in figure.axes[0].lines}) == 12
    made = []
    monkeypatch.setattr(plots.animations, "Figure", lambda **options: made.append(Figure(**options)) or made[-1])
    plots.animate(tmp_path / "a.gif", TS, curves, {}, law=curves, frames=2)
    assert len({look(line) for line in made[0].axes[0].lines}) == 24


def test_a_figure_is_saved_as_the_kind_that_its_name_asks_for(tmp_path):
    assert [path.name for path in plots.save(Figure(), tmp_path, "a.svg", mark="known")] == ["a.svg"]
    assert "known" in (tmp_path / "a.svg").read_text() and [path.name for path in tmp_path.iterdir()] == ["a.svg"]
    with pytest.raises(ValueError, match=r"must end in .png, .pdf or .svg, or have no ending, but is 'a.jpg'"):
        plots.save(Figure(), tmp_path, "a.jpg")


def test_modes_from_arrays_with_names_that_are_no_mathematics(ax):
    plots.modes(ax, TS, np.stack([TS, TS**2, TS**3], axis=1), labels=["a", "$b", "c_d"])
    assert texts(ax) == ["a", r"\$b", "c_d"]
    assert [line.get_color() for line in ax.lines] == list(plots.COLOURS[:3])


def test_what_a_logarithmic_axis_cannot_show_is_marked_and_counted(ax):
    loss = np.exp(-TS)
    loss[[3, 5]], loss[7], loss[9] = 0, -1e-17, np.nan
    plots.losses(ax, (TS, loss))
    assert texts(ax) == ["3 of 16 not positive, 1 of 16 not finite"]
    curve, below, above = ax.lines
    assert np.array_equal(np.isnan(curve.get_ydata()), np.isin(np.arange(16), [3, 5, 7, 9]))
    assert np.array_equal(below.get_xdata(), TS[[3, 5, 7]]) and np.array_equal(above.get_xdata(), TS[[9]])
    # On the frame, not at a height of the data.
    assert set(below.get_ydata()) == {0} and set(above.get_ydata()) == {1}
    low, high = ax.get_ylim()
    assert below.get_transform().transform((TS[3], 0))[1] == pytest.approx(ax.bbox.y0, rel=1e-9)
    assert 0 < low < loss[loss > 0].min() and high < 3


def test_losses_have_bounds_in_the_colours_of_their_runs(ax, flow):
    other = (TS[:5], np.full(5, 0.5))
    runs = {"flow": flow, "other": other}
    plots.losses(ax, runs, {"other": np.ones(5), "Theorem 3": np.full(16, 3.0)}, limit=0.25)
    first, marked, second, own, free = ax.lines
    assert np.allclose(seen(first), seen_losses(flow) - 0.25, rtol=1e-12) and np.all(second.get_ydata() == 0.25)
    # The end is below the limit that is claimed.
    assert len(marked.get_xdata()) == int(np.sum(np.asarray(flow.observables["loss"]) <= 0.25))
    assert own.get_color() == second.get_color() == plots.COLOURS[1] and own.get_label() == "other, bound"
    assert len(own.get_xdata()) == 5 and len(free.get_xdata()) == 16 and free.get_color() == "0.3"
    assert {own.get_linestyle(), free.get_linestyle()} == {"--"} and own.get_markerfacecolor() == "none"
    assert ax.get_yscale() == "log" and ax.get_ylabel() == "excess loss $L - L^*$"


def test_losses_are_points_on_a_law_and_plateaus_show_on_a_linear_axis(ax):
    law = 0.5**TS
    plots.losses(ax, (TS, law), exact=law, limit=0.1, scale="linear")
    points, line = ax.lines[:2]
    assert points.get_linestyle() == "None" and line.get_linestyle() == "-" and line.get_color() == points.get_color()
    assert np.array_equal(line.get_ydata(), law - 0.1) and np.array_equal(points.get_ydata(), law - 0.1)
    assert ax.get_yscale() == "linear" and texts(ax) == ["loss", "exact"]
    other = Figure().subplots()
    plots.losses(other, {"a": (TS, law), "b": (TS, 2 * law)}, exact={"b": 2 * law, "free": law})
    colours = [drawn.get_color() for drawn in other.lines[:4]]
    assert colours == [*plots.COLOURS[:2], plots.COLOURS[1], "0.3"] and texts(other) == ["a", "b", "free", "exact"]
    with pytest.raises(ValueError, match=r"`exact\['b'\]` must have shape"):
        plots.losses(other, (TS, law), exact={"b": 1.0})


def test_a_matrix_is_drawn_in_cells_from_the_top_in_a_frame(ax):
    plots.similarity(ax, np.array([[2.0, -1.0, np.nan], [0.0, 1.0, 0.5]]))
    (cells,) = ax.collections
    assert not ax.images and cells.get_clim() == (-2, 2) and ax.get_ylim() == (2, 0) and ax.get_xlim() == (0, 3)
    assert all(spine.get_visible() for spine in ax.spines.values())


def seen_losses(flow):
    loss = np.asarray(flow.observables["loss"])
    return loss[np.isfinite(loss) & (loss > 0.25)]


def test_a_run_that_failed_is_told_from_one_that_stopped_and_steps_from_times(ax):
    problem, start = ld.factorization(jnp.diag(jnp.asarray(SIGMA))), ld.TwoLayer(jnp.eye(2), jnp.eye(2))
    run = ld.gradient_descent(start, problem, 60, optimizer=ld.plain_descent(5.0), save_at=np.arange(0, 61, 4))
    assert not run.ok
    plots.losses(ax, run)
    lost = int(np.sum(~np.isfinite(run.observables["loss"])))
    assert lost > 0 and f"{lost} of 16 not finite" in texts(ax)[0]
    assert ax.get_xlabel() == "step"


def test_a_run_of_which_nothing_can_be_shown_is_named_in_the_legend(ax):
    plots.losses(ax, {"lost": (TS, np.full(16, np.nan)), "learned": (TS, np.zeros(16)), "one": (TS, 0.5**TS)})
    assert texts(ax) == ["lost, 16 of 16 not finite", "learned, 16 of 16 not positive", "one"]


def test_an_audit_is_drawn_where_a_bound_is_zero_throughout(ax):
    coords = {"case": ["one"], "dynamics": ["flow"], "rate_statement": ["lemma7", "proposition1"], "time": [0.0, 1.0]}
    bounds = xr.DataArray(np.zeros((1, 1, 2, 2)), coords)
    plots.rates_and_bounds(ax, xr.Dataset({"rate": bounds.isel(rate_statement=0, drop=True) + 1, "rate_bound": bounds}))
    assert not any(len(seen(line)) for line in ax.lines[1:3]) and len(seen(ax.lines[0])) == 2


def test_spectra_of_matrices_and_of_values_with_zeros_to_round_off(ax, rng):
    low = rng.normal(size=(6, 2)) @ rng.normal(size=(2, 4)) * 100
    plots.spectrum(ax, {"given": [1.0, 30.0, 2.0], "matrix": low})
    given, matrix, zeros = ax.lines
    assert list(given.get_ydata()) == [30, 2, 1] and list(given.get_xdata()) == [1, 2, 3]
    # By the eigenvalues of another matrix.
    squares = np.sort(np.linalg.eigvalsh(low.T @ low))[::-1][:2]
    assert np.allclose(seen(matrix) ** 2, squares, rtol=1e-10)
    # A rank of two leaves two values that are zero, and not 1e-15.
    assert list(zeros.get_xdata()) == [3, 4] and texts(ax)[1] == "matrix, 2 of 4 not positive"
    assert ax.get_yscale() == "log"


def test_eigenvalues_keep_their_signs_on_a_linear_axis(ax):
    turn = np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    plots.spectrum(ax, turn @ np.diag([-50.0, 1.0]) @ turn.T, eigenvalues=True)
    assert np.allclose(ax.lines[0].get_ydata(), [1, -50], rtol=1e-12)
    assert ax.get_yscale() == "linear" and ax.get_ylabel() == "eigenvalue"


def test_spectra_over_time_are_sorted_at_each_time_and_leave_out_matrices_that_are_not_finite(ax):
    values = np.stack([TS, 3 - TS], axis=1)
    matrices = np.einsum("tk,ka,kb->tab", values, np.eye(2), np.eye(2)[::-1])
    matrices[4, 0, 0] = np.inf
    plots.spectrum(ax, matrices, TS)
    first, second = (line for line in ax.lines if len(line.get_xdata()) == 16)
    for line, expected in ((first, np.maximum(*values.T)), (second, np.minimum(*values.T))):
        expected[4] = np.nan
        # One is zero at both ends, which a logarithmic axis marks.
        expected = np.where(expected > 0, expected, np.nan)
        assert np.allclose(line.get_ydata(), expected, rtol=1e-12, equal_nan=True)
    assert texts(ax) == ["1 of 16 not finite", "2 of 16 not positive, 1 of 16 not finite"]


def test_a_map_has_a_cell_for_each_point_and_crosses_where_there_is_nothing_to_show(ax):
    x, y = np.array([10.0, 100.0, 1000.0]), np.array([0.1, 1.0])
    values = np.array([[1.0, 10.0, np.nan], [0.0, 1000.0, 5.0]])
    plots.phase_diagram(ax, x, y, values, boundary=[[-1.0, 1, 1], [-1, 1, 1]], label="time", logarithmic=True)
    (shown,) = ax.images
    assert np.array_equal(shown.get_array().filled(-1), [[1, 10, -1], [-1, 1000, 5]])
    assert isinstance(shown.norm, LogNorm) and shown.get_clim() == (1, 1000)
    (crosses,) = ax.lines
    assert sorted(zip(crosses.get_xdata(), crosses.get_ydata(), strict=True)) == [(0, 1), (2, 0)]
    assert texts(ax) == ["2 of 6 not positive, or not finite"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["10", "1e2", "1e3"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["0.1", "1"]
    # Between the first column and the second, where the sign changes.
    (path,) = ax.collections[0].get_paths()
    assert np.all(path.vertices[:, 0] == 0.5)
    assert ax.get_xlim() == (-0.5, 2.5) and ax.get_ylim() == (-0.5, 1.5)


def test_a_map_of_signed_values_has_all_of_them_on_its_scale(ax):
    plots.phase_diagram(ax, [1.0, 2.0], [1.0, 2.0], [[-3.0, 1.0], [0.0, 2.0]])
    assert ax.images[0].get_clim() == (-3, 2) and not ax.lines


def test_what_does_not_fit_is_refused_in_a_sentence(ax, flow):
    batch = jax.tree.map(lambda leaf: leaf[None], flow)
    for match, call in {
        r"`strengths` must have shape \(T, k\) with T = 16 times, but has shape \(16,\)": lambda: plots.modes(
            ax, TS, TS
        ),
        r"`matrix` must have shape \(a, b\), but has shape \(5, 2, 2\)": lambda: plots.similarity(
            ax, np.ones((5, 2, 2))
        ),
        r"`exact` must have shape \(16, 1\) as `strengths`": lambda: plots.modes(ax, TS, TS[:, None], np.ones((16, 2))),
        "`labels` must hold 1 names": lambda: plots.modes(ax, TS, TS[:, None], labels=("a", "b")),
        "no observable 'product', only 'loss', 'mode_strengths'": lambda: plots.modes(ax, flow, "product"),
        "`ts` must be a Trajectory where an observable is named": lambda: plots.modes(ax, TS, "loss"),
        r"batch of runs of shape \(1,\)": lambda: plots.losses(ax, batch),
        r"`loss` must have shape \(T,\) with T = 16": lambda: plots.losses(ax, (TS, TS[:3])),
        "`runs` must be a Trajectory, a pair": lambda: plots.losses(ax, TS),
        "`runs` must hold at least one": lambda: plots.losses(ax, {}),
        r"`bounds\['b'\]` must have shape": lambda: plots.losses(ax, (TS, TS), {"b": 1.0}),
        "`limit` must have shape": lambda: plots.losses(ax, (TS, TS), limit=TS),
        r"`values` must have shape \(k,\) or \(a, b\)": lambda: plots.spectrum(ax, 1.0),
        r"`values` must have shape \(T, k\) or \(T, a, b\) with T = 16": lambda: plots.spectrum(ax, np.eye(2), TS),
        "symmetric matrices": lambda: plots.spectrum(ax, np.triu(np.ones((2, 2))), eigenvalues=True),
        "must hold symmetric": lambda: plots.spectrum(ax, np.ones((2, 3)), eigenvalues=True),
        "one array where there are times": lambda: plots.spectrum(ax, {"a": np.eye(2)}, TS[:2]),
        r"`values` must have shape \(1, 2\), a row for each": lambda: plots.phase_diagram(
            ax, [1, 2], [1], np.ones((2, 1))
        ),
        "`x` must be an array of numbers": lambda: plots.phase_diagram(ax, ["a"], [1], [[1]]),
        "no numbers yet": lambda: jax.jit(lambda ts: plots.modes(ax, ts, ts[:, None]))(TS),
    }.items():
        with pytest.raises(ValueError, match=match):
            call()
    assert not ax.lines and not ax.images
