"""The fit of lambda0: the flow beside closed forms."""

from .house import COLOURS, MARKERS, case_look, panels

PATH_LOOKS = {"flow": {"ls": "-"}, "homogeneous": {"ls": "--"}, "wide limit": {"ls": ":"}}


def path_errors(ax, dataset) -> None:
    """Relative error of the first start of every width against time over its horizon: flow, homogeneous, wide limit."""
    for index, width in enumerate(dataset["width"].values):
        row = dataset.sel(width=width).isel(trial=0)
        time = row["time"].values / row["time"].values[-1]
        for path, look in PATH_LOOKS.items():
            ax.plot(time, row["error"].sel(path=path).values, **case_look(index, dataset.sizes["width"]), **look)
        ax.plot([], [], label=f"$h$ = {width:g}", **case_look(index))
    for path, look in PATH_LOOKS.items():
        ax.plot([], [], color="0.3", label=path, **look)
    ax.set(yscale="log", xlabel="$t/T$", ylabel=r"$\|E\|_F / \|\tilde Y\|_F$")
    ax.set_title("Reconstruction error, first start")
    ax.legend()


def path_singular_values(ax, dataset) -> None:
    """Singular values of the first start of the first width: flow, homogeneous, wide limit."""
    row = dataset.isel(width=0, trial=0)
    for mode in range(row.sizes["mode"]):
        for path, look in PATH_LOOKS.items():
            values = row["singular_values"].sel(path=path).isel(mode=mode).values
            ax.plot(row["time"].values, values, **case_look(mode, row.sizes["mode"]), **look)
    ax.set(xlabel="$t$", ylabel=r"singular values of $\Theta$")
    ax.set_title(f"Singular values, $h$ = {float(row['width']):g}")


def mismatch_against_width(ax, summary) -> None:
    """Mean of sqrt J against width: homogeneous imbalance at its best, at lambda0 = 0, and the wide limit."""
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
    """
    with panels(1, 3, (11, 3.6), title) as (figure, (first, second, third)):
        path_errors(first, dataset)
        path_singular_values(second, dataset)
        mismatch_against_width(third, summary)
    return figure
