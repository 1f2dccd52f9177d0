"""Curves of one's own numbers on axes: modes and losses over time, and spectra.

What an axis cannot show is marked on its frame in the colour of the curve, and counted in the legend: below, values that are not
positive on a logarithmic axis, and above, those that are not finite.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float
from matplotlib.markers import CARETDOWN

from .._checks import check_choice
from ..trajectory import Trajectory
from .house import case_look, curve, line, literal, mark, numbers, time_axis


def modes(
    ax,
    ts: Trajectory | Float[ArrayLike, " T"],
    strengths: str | Float[ArrayLike, "T k"] = "mode_strengths",
    exact: Float[ArrayLike, "T k"] | None = None,
    *,
    labels: tuple[str, ...] | list[str] | None = None,
) -> None:
    """Strengths of modes over time, a colour a mode: lines, or points on the lines of a law.

    **Args:**

    - `ax`: axes of matplotlib.
    - `ts`, shape (T,); `strengths`, shape (T, k). Or a `Trajectory`, and the name of one of its observables, such as
        `"mode_strengths"` or `"singular_values"`; after its end nothing is drawn.
    - `exact`: what they are held against, shape (T, k).
    - `labels`: of the modes, by default their numbers where they are up to twelve.

    **Raises:** `ValueError` for shapes that do not fit each other, an observable that is not there, or a batch of runs.

    Example:

        >>> from matplotlib.figure import Figure
        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start, ts = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2)), jnp.linspace(0.0, 3.0, 13)
        >>> flow, ax = ld.gradient_flow(start, problem, ts, observables="mode_strengths"), Figure().subplots()
        >>> law = ld.exact.mode(jnp.array([2.0, 1.0]), 0.1, 0.1, ts[:, None]).x
        >>> ld.plots.modes(ax, flow, "mode_strengths", law)
        >>> print([text.get_text() for text in ax.get_legend().get_texts()], ax.lines[1].get_ydata()[-1])
        ['1', '2', 'exact'] 1.9975
    """
    time, past, word = _times(ts)
    match strengths:
        case str():
            strengths = _observable(ts, strengths)
    shape = f"(T, k) with T = {len(time)} times"
    values = numbers(strengths, "strengths", shape, len(time), None)
    law = None if exact is None else numbers(exact, "exact", f"{values.shape} as `strengths`", *values.shape)
    count = values.shape[1]
    names = (
        list(labels) if labels is not None else [f"{i + 1}" for i in range(count)] if count <= 12 else [None] * count
    )
    if len(names) != count:
        raise ValueError(f"Argument `labels` must hold {count} names, one for each mode, but holds {len(names)}.")
    for i, name in enumerate(names):
        look: dict[str, Any] = line(i)
        if law is not None:
            _draw(ax, time, law[:, i], None, past, lw=1, **look)
            look = mark(i) | {"ls": "none", "markevery": max(len(time) // 20, 1), "ms": 3}
        _draw(ax, time, values[:, i], name, past, **look)
    if law is not None:
        ax.plot([], [], color="0.3", lw=1, label="exact")
    time_axis(ax, time)
    ax.set(xlabel=word, ylabel="strength of the modes")
    _legend(ax)


def losses(ax, runs, bounds=None, *, exact=None, limit: float | None = None, scale: str = "log") -> None:
    """Losses over time, and bounds on them, dashed with hollow markers, or points on the lines of a law.

    **Args:**

    - `ax`: axes of matplotlib.
    - `runs`: a `Trajectory` with the observable `"loss"`, a pair (ts, loss) of shapes (T,), or a dictionary of these by labels.
    - `bounds`: on what is drawn, shape (T,), or a dictionary of these by labels: one with the label of a run has its times and
        its colour, others have the times of the first run.
    - `exact`: what losses are held against, such as a closed form, given as `bounds` are: lines, and the runs are points.
    - `limit`: the least loss L*, which is subtracted from `runs` and `exact`: the excess loss is drawn.
    - `scale`: of the axis, `"log"`, or `"linear"`, which shows plateaus.

    **Raises:** `ValueError` for shapes that do not fit each other, a trajectory without its loss, or a batch of runs.

    Example:

        >>> from matplotlib.figure import Figure
        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start, ts = ld.TwoLayer(0.5 * jnp.eye(2), 0.1 * jnp.eye(2)), jnp.linspace(0.0, 3.0, 13)
        >>> flow, ax = ld.gradient_flow(start, problem, ts, observables="loss"), Figure().subplots()
        >>> ld.plots.losses(ax, flow, {"Theorem 3": ld.theory.loss_bound(start, problem, ts).value})
        >>> print(ax.get_yscale(), [line.get_label() for line in ax.lines], ax.lines[1].get_ydata()[[0, -1]])
        log ['loss', 'Theorem 3'] [2.353  0.557]
    """
    if limit is not None:
        limit = float(numbers(limit, "limit", "() of one number"))
    runs, bounds = _by_label(runs), {} if bounds is None else _by_label(bounds)
    if not runs:
        raise ValueError("Argument `runs` must hold at least one run, but is empty.")
    known = {label: _run(run) for label, run in runs.items()}
    check_choice(scale, "scale", ("log", "linear"))
    logarithmic = scale == "log"
    given, laws = _beside(known, bounds, "bounds"), _beside(known, {} if exact is None else _by_label(exact), "exact")
    for index, (label, (time, past, _, values)) in enumerate(known.items()):
        name = "loss" if label is None and (bounds or laws) else label
        look = case_look(index, len(known)) | ({"ls": "none"} if laws else {})
        _draw(ax, time, values - (limit or 0), name, past, logarithmic=logarithmic, **look)
    for label, time, values in laws:
        look = {
            "color": case_look(list(known).index(label))["color"] if label in known else "0.3",
            "lw": 1,
            "marker": "",
        }
        name = None if label in known else "exact" if label is None else label
        _draw(ax, time, values - (limit or 0), name, np.zeros(len(time), bool), logarithmic=logarithmic, **look)
    if any(label in known for label, _, _ in laws):
        ax.plot([], [], color="0.3", lw=1, label="exact")
    for index, (label, time, values) in enumerate(given):
        place = list(known).index(label) if label in known else None
        look = case_look(index if place is None else place, len(known), hollow=True) | {"ls": "--", "lw": 1}
        look |= {"color": "0.3"} if place is None or len(known) == 1 else {}
        name = "bound" if label is None else f"{label}, bound" if label in known else label
        _draw(ax, time, values, name, np.zeros(len(time), bool), logarithmic=logarithmic, **look)
    longest = max(known.values(), key=lambda run: run[0][-1])
    ax.set_yscale(scale)
    time_axis(ax, longest[0])
    ax.set(xlabel=longest[2], ylabel="loss $L$" if limit is None else "excess loss $L - L^*$")
    _legend(ax)


def spectrum(ax, values, ts: Float[ArrayLike, " T"] | None = None, *, eigenvalues: bool = False) -> None:
    """Singular values, or eigenvalues, from the largest down against their number, or as curves over time.

    The axis is logarithmic where they span more than a decade and none is negative. Those of matrices that are zero to round-off
    count as zero.

    **Args:**

    - `ax`: axes of matplotlib.
    - `values`: shape (k,), or a matrix, whose singular values are drawn, or a dictionary of these by labels; with `ts`, shape
        (T, k), or matrices, shape (T, a, b).
    - `ts`: times, shape (T,).
    - `eigenvalues`: of matrices, which must then be symmetric, in place of singular values.

    **Raises:** `ValueError` for other shapes, or matrices that are not symmetric with `eigenvalues`.

    Example:

        >>> from matplotlib.figure import Figure
        >>> ax = Figure().subplots()
        >>> ld.plots.spectrum(ax, {"before": np.array([3.0, 4.0]), "after": np.array([[0.0, 2.0], [0.0, 0.0]])})
        >>> print(ax.get_yscale(), ax.lines[0].get_ydata(), ax.lines[1].get_ydata(), ax.lines[1].get_label())
        linear [4. 3.] [2. 0.] after
    """
    given = _by_label(values)
    if ts is not None:
        if len(given) != 1 or None not in given:
            raise ValueError("Argument `values` must be one array where there are times: draw one spectrum at a time.")
        time = _times(ts)[0]
        rows = _spectra(given[None], "values", eigenvalues, (len(time),))
        curves = [(None, time, row, line(i)) for i, row in enumerate(rows.T)]
    else:
        curves = []
        for i, (label, one) in enumerate(given.items()):
            row = _spectra(one, "values" if label is None else f"values[{label!r}]", eigenvalues, ())
            look = mark(i) | {"ls": ":", "lw": 0.8}
            curves.append((label, np.arange(1, len(row) + 1), row, look))
    known = np.concatenate([row[np.isfinite(row)] for _, _, row, _ in curves])
    positive = known[known > 0]
    logarithmic = bool(positive.size and known.min() >= 0 and positive.max() > 10 * positive.min())
    for label, x, row, look in curves:
        _draw(ax, x, row, label, np.zeros(len(x), bool), logarithmic=logarithmic, **look)
    if logarithmic:
        ax.set_yscale("log")
    if ts is None:
        ax.set_xlabel("number")
        ax.xaxis.get_major_locator().set_params(integer=True)
    else:
        time_axis(ax, time)
    ax.set_ylabel("eigenvalue" if eigenvalues else "singular value")
    _legend(ax)


def _times(ts) -> tuple[np.ndarray, np.ndarray, str]:
    """The times, which of them are past the end of a run that ended as it should, and what they are called."""
    if not hasattr(ts, "ts"):
        time = numbers(ts, "ts", "(T,)", None)
        return time, np.zeros(len(time), bool), "time $t$"
    if np.ndim(ts.result):
        raise ValueError(
            f"A batch of runs of shape {np.shape(ts.result)} was given: draw one at a time, such as "
            "`jax.tree.map(lambda x: x[0], runs)`."
        )
    time = numbers(ts.ts, "ts", "(T,)", None)
    word = "step" if np.issubdtype(np.asarray(ts.ts).dtype, np.integer) else "time $t$"
    return time, bool(ts.ok) & (time > float(ts.stats["final_time"])), word


def _observable(run, name: str):
    if not hasattr(run, "observables"):
        raise ValueError(f"Argument `ts` must be a Trajectory where an observable is named, here {name!r}.")
    if name not in run.observables:
        there = ", ".join(map(repr, run.observables)) or "none"
        raise ValueError(
            f"The trajectory has no observable {name!r}, only {there}: name it in `observables` of the run."
        )
    return run.observables[name]


def _by_label(values) -> dict:
    """Values by their labels; what stands alone has none."""
    match values:
        case Mapping():
            return dict(values)
        case _:
            return {None: values}


def _run(run) -> tuple[np.ndarray, np.ndarray, str, np.ndarray]:
    """Times and losses of one run."""
    match run:
        case Trajectory():
            time, past, word = _times(run)
            values = _observable(run, "loss")
        case (ts, values):
            time, past, word = _times(ts)
        case _:
            raise ValueError(
                "Argument `runs` must be a Trajectory, a pair (ts, loss), or a dictionary of these by their labels, but holds "
                f"one {type(run).__name__}."
            )
    return time, past, word, numbers(values, "loss", f"(T,) with T = {len(time)} times", len(time))


def _beside(known: dict, given: dict, argument: str) -> list[tuple]:
    """Curves beside runs, each a label, times and values: with the times of the run of its label, or of the first one."""
    curves = []
    for label, values in given.items():
        time = known[label if label in known else next(iter(known))][0]
        name = argument if label is None else f"{argument}[{label!r}]"
        curves.append((label, time, numbers(values, name, f"(T,) with T = {len(time)} times", len(time))))
    return curves


def _spectra(values, name: str, eigenvalues: bool, times: tuple[int, ...]) -> np.ndarray:
    """Values from the largest down, along the last axis; of matrices, where they have one axis more."""
    prefix = "(T, " if times else "("
    words = f"{prefix}{'k)' if times else 'k,)'} or {prefix}a, b)" + (f" with T = {times[0]} times" if times else "")
    if np.ndim(values) != len(times) + 2:
        return np.flip(np.sort(numbers(values, name, words, *times, None), axis=-1), axis=-1)
    array, given = numbers(values, name, words, *times, None, None), np.asarray(values).dtype
    eps = np.finfo(given if np.issubdtype(given, np.floating) else float).eps
    finite = np.all(np.isfinite(array), axis=(-2, -1))
    safe = np.where(finite[..., None, None], array, 0)
    if eigenvalues:
        apart = np.abs(safe - safe.swapaxes(-2, -1)) if array.shape[-2] == array.shape[-1] else np.inf
        if np.any(apart > np.sqrt(eps) * np.max(np.abs(safe), axis=(-2, -1), keepdims=True)):
            raise ValueError(
                f"Argument `{name}` must hold symmetric matrices where `eigenvalues` are drawn, and does not."
            )
        found = np.linalg.eigvalsh((safe + safe.swapaxes(-2, -1)) / 2)[..., ::-1]
    else:
        found = np.linalg.svd(safe, compute_uv=False)
    size = np.max(np.abs(found), axis=-1, keepdims=True)
    found = np.where(np.abs(found) <= max(array.shape[-2:]) * eps * size, 0, found)
    return np.where(finite[..., None], found, np.nan)


def _draw(ax, x, values, label, past, *, logarithmic: bool = False, **look) -> None:
    """One curve; what the axis cannot show of it is marked on the frame, and counted in the label."""
    finite = np.isfinite(values)
    low = finite & (values <= 0) if logarithmic else np.zeros(len(x), bool)
    words = [] if label is None else [literal(label)]
    alone = {"marker": "o"} if len(x) <= 12 and "marker" not in look else {}
    lost = ((low, 0.0, CARETDOWN, "not positive"), (~finite & ~past, 1.0, "x", "not finite"))
    words += [f"{where.sum()} of {len(x)} {what}" for where, _, _, what in lost if where.any()]
    curve(ax, x, np.where(finite & ~low, values, np.nan), label=", ".join(words) or None, **alone, **look)
    for where, height, marker, _ in lost:
        if where.any():
            frame = {"transform": ax.get_xaxis_transform(), "clip_on": False, "zorder": 3}
            ax.plot(x[where], np.full(where.sum(), height), marker=marker, ls="none", color=look["color"], **frame)


def _legend(ax) -> None:
    if ax.get_legend_handles_labels()[1]:
        # A long one beside the axes, where a layout makes room for it.
        beside = len(ax.get_legend_handles_labels()[1]) > 6 and ax.figure.get_layout_engine() is not None
        ax.legend(**({"loc": "center left", "bbox_to_anchor": (1, 0.5)} if beside else {}))
