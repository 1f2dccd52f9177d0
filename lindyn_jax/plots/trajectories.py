"""One trajectory: its observables against time."""

import numpy as np

from ..observables import attributes
from .house import COLOURS, DASHES, MARKERS, literal, panels, time_axis, value_axis


def _facts(dataset, name: str) -> dict[str, str]:
    """What is known of an observable: from the dataset, or by its name."""
    return attributes().get(name, {}) | dataset[name].attrs


def observables_against_time(ax, dataset, names, logarithmic: bool) -> None:
    """Some observables of one trajectory against time, each with all its components; one alone is named on the axis.

    **Args:** `ax`, axes of matplotlib; `dataset`, from `studies.simulate` or `Trajectory.to_xarray`; `names`, of observables in
    it; `logarithmic`, whether the values are drawn so where they span more than a decade.

    Example:

        >>> from matplotlib.figure import Figure
        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> found = ld.gradient_flow(start, problem, [0.0, 1.0, 2.0]).to_xarray()
        >>> ax = Figure().subplots()
        >>> ld.plots.observables_against_time(ax, found, ["loss"], logarithmic=True)
        >>> print(ax.get_xlabel(), ax.get_ylabel(), ax.lines[0].get_ydata())
        time $t$ $L$ [2.470     1.664 0.2155]
    """
    time, drawn = dataset["time"].values, False
    for index, name in enumerate(names):
        values = dataset[name].values.reshape(len(time), -1)
        if logarithmic:
            values = np.where(values > 0, values, np.nan)
        facts = _facts(dataset, name)
        label = facts.get("symbol", literal(name))
        label += f" [{literal(facts['units'])}]" if facts.get("units", "1") != "1" else ""
        if len(names) == 1:
            ax.set_ylabel(label)
        if not np.any(np.isfinite(values)):
            ax.plot([], [], ls="none", label=f"{label}: {'never positive' if logarithmic else 'not finite'}")
            continue
        drawn = True
        for component in range(values.shape[1]):
            several = values.shape[1] > 1
            # Lines are told apart by their styles, and more components than colours by markers.
            again = component // len(COLOURS)
            ax.plot(
                time,
                values[:, component],
                color=COLOURS[(component if several else index) % len(COLOURS)],
                ls=DASHES[index % len(DASHES)],
                marker=MARKERS[(index + again) % len(MARKERS)] if len(time) <= 12 or again else None,
                markevery=max(len(time) // 10, 1),
                label=None if several or len(names) == 1 else label,
            )
    time_axis(ax, time)
    if drawn and logarithmic:
        value_axis(ax)
    if ax.get_legend_handles_labels()[1]:
        ax.legend()


def trajectory(dataset, title: str):
    """The figure of one trajectory: a panel for each group of observables, and one for each that is in no group.

    **Args:** `dataset`, from `studies.simulate`; `title`.

    **Returns:** a matplotlib figure, not attached to any window.

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.TwoLayer(0.1 * jnp.eye(2), 0.1 * jnp.eye(2))
        >>> found = ld.studies.simulate(problem, start, horizon=2.0, points=3, spacing="linear", observables=["loss"])
        >>> figure = ld.plots.trajectory(found, "Two modes")
        >>> print(figure.get_suptitle(), [ax.get_ylabel() for ax in figure.axes])
        Two modes ['$L$']
    """
    groups: dict[str, list[str]] = {}
    for name in dataset.data_vars:
        facts = _facts(dataset, name)
        groups.setdefault(facts.get("panel", literal(facts.get("long_name", name))), []).append(name)
    columns = min(len(groups), 3 if len(groups) != 4 else 2)
    rows = -(-len(groups) // columns)
    with panels(rows, columns, (3.4 * columns + 0.4, 2.8 * rows + 0.3), title) as (figure, axes):
        for ax, (text, names) in zip(axes, groups.items(), strict=False):
            observables_against_time(
                ax, dataset, names, any(_facts(dataset, name).get("scale") == "log" for name in names)
            )
            ax.set_title(text)
        for ax in axes[len(groups) :]:
            ax.set_axis_off()
    return figure
