"""The fit of lambda0: the flow beside closed forms."""

from .house import COLOURS, MARKERS, case_look, curve, panels

PATH_LOOKS = {"flow": {"ls": "-"}, "homogeneous": {"ls": "--"}, "wide limit": {"ls": ":"}}


def path_errors(ax, dataset) -> None:
    """Relative error of the first start of every width against time over its horizon: flow, homogeneous, wide limit.

    **Args:** `ax`, axes of matplotlib; `dataset`, from `studies.fit_lambda0.run`.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> ax, ts = Figure().subplots(), np.array([0.0, 1.0, 2.0])
        >>> errors = np.exp(-np.multiply.outer([2.0, 1.9, 1.5], ts))[None, None]
        >>> coords = {"width": [50.0], "path": ["flow", "homogeneous", "wide limit"], "time": ts}
        >>> ld.plots.path_errors(ax, xr.Dataset({"error": (("width", "trial", "path", "time"), errors)}, coords))
        >>> print(ax.get_title(), [text.get_text() for text in ax.get_legend().get_texts()])
        Reconstruction error, first start ['$h$ = 50', 'flow', 'homogeneous', 'wide limit']
    """
    for index, width in enumerate(dataset["width"].values):
        row = dataset.sel(width=width).isel(trial=0)
        time = row["time"].values / row["time"].values[-1]
        for path, look in PATH_LOOKS.items():
            curve(ax, time, row["error"].sel(path=path).values, **case_look(index, dataset.sizes["width"]), **look)
        ax.plot([], [], label=f"$h$ = {width:g}", **case_look(index))
    for path, look in PATH_LOOKS.items():
        ax.plot([], [], color="0.3", label=path, **look)
    ax.set(yscale="log", xlabel="$t/T$", ylabel=r"$\|E\|_F / \|\tilde Y\|_F$")
    ax.set_title("Reconstruction error, first start")
    ax.legend()


def path_singular_values(ax, dataset) -> None:
    """Singular values of the first start of the first width: flow, homogeneous, wide limit.

    **Args:** `ax`, axes of matplotlib; `dataset`, from `studies.fit_lambda0.run`.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> ax, ts = Figure().subplots(), np.array([0.0, 1.0, 2.0])
        >>> values = ld.exact.mode(jnp.array([2.0, 1.0])[:, None], 0.1, 0.1, ts).x
        >>> dims = ("width", "trial", "path", "mode", "time")
        >>> coords = {"width": [50.0], "path": ["flow", "homogeneous", "wide limit"], "time": ts}
        >>> found = xr.Dataset({"singular_values": (dims, np.stack([values] * 3)[None, None])}, coords)
        >>> ld.plots.path_singular_values(ax, found)
        >>> print(ax.get_title(), ax.lines[0].get_ydata())
        Singular values, $h$ = 50 [0.01       0.4306 1.875]
    """
    row = dataset.isel(width=0, trial=0)
    for mode in range(row.sizes["mode"]):
        for path, look in PATH_LOOKS.items():
            values = row["singular_values"].sel(path=path).isel(mode=mode).values
            curve(ax, row["time"].values, values, **case_look(mode, row.sizes["mode"]), **look)
    ax.set(xlabel="$t$", ylabel=r"singular values of $\Theta$")
    ax.set_title(f"Singular values, $h$ = {float(row['width']):g}")


def mismatch_against_width(ax, summary) -> None:
    """Mean of sqrt J against width: homogeneous imbalance at its best, at lambda0 = 0, and the wide limit.

    **Args:** `ax`, axes of matplotlib; `summary`, from `studies.fit_lambda0.summarise`.

    Example:

        >>> import xarray as xr
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().subplots()
        >>> roots = {"root": [0.04, 0.035], "root_zero": [0.3, 0.3], "root_wide": [0.1, 0.001]}
        >>> summary = xr.Dataset({name: ("width", values) for name, values in roots.items()}, {"width": [50.0, 1e4]})
        >>> ld.plots.mismatch_against_width(ax, summary)
        >>> print(ax.get_title(), ax.lines[0].get_ydata(), ax.lines[2].get_ydata())
        Distance from the flow [0.04  0.035] [0.1   0.001]
    """
    widths = summary["width"].values
    names = {
        "root": "homogeneous, better sign",
        "root_zero": r"homogeneous, $\lambda_0 = 0$",
        "root_wide": "wide limit",
    }
    for index, (name, text) in enumerate(names.items()):
        ax.plot(widths, summary[name].values, color=COLOURS[index], marker=MARKERS[index], label=text)
    ax.set(xscale="log", yscale="log", xlabel="hidden width $h$", ylabel=r"$\sqrt{J}$, mean")
    ax.set_title("Distance from the flow")
    ax.legend()


def fit_lambda0(dataset, summary, title: str):
    """The figure of the lambda0 study, in the manner of T21 Fig. 2: errors, singular values, and the distance against width.

    **Args:** `dataset`, from `studies.fit_lambda0.run`; `summary`, from its `summarise`; `title`.

    **Returns:** a matplotlib figure, not attached to any window.

    Example:

        >>> import xarray as xr
        >>> coords = {"width": [50.0], "path": ["flow", "homogeneous", "wide limit"], "time": [0.0, 1.0, 2.0]}
        >>> errors = (("width", "trial", "path", "time"), np.full((1, 1, 3, 3), 0.5))
        >>> values = (("width", "trial", "path", "mode", "time"), np.full((1, 1, 3, 2, 3), 0.5))
        >>> found = xr.Dataset({"error": errors, "singular_values": values}, coords)  # of studies.fit_lambda0.run
        >>> roots = {name: ("width", [0.1]) for name in ("root", "root_zero", "root_wide")}
        >>> figure = ld.plots.fit_lambda0(found, xr.Dataset(roots, {"width": [50.0]}), "lambda0")
        >>> print([ax.get_title() for ax in figure.axes])
        ['Reconstruction error, first start', 'Singular values, $h$ = 50', 'Distance from the flow']
    """
    with panels(1, 3, (11, 3.6), title) as (figure, (first, second, third)):
        path_errors(first, dataset)
        path_singular_values(second, dataset)
        mismatch_against_width(third, summary)
    return figure
