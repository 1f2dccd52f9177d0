"""G19 Table 1: do inputs and targets share their components?"""

import math

import numpy as np
import xarray as xr

from ..data import autoencoder, commutation, load
from ..plots import COLOURS, mark
from ._common import Figure, Measured, Numbers

SETS = ("digits", "iris", "wine", "breast-cancer")


def compute(*, seed: int, sets: tuple[str, ...] = SETS, completions: tuple[str, ...] = ("svd", "diagonal", "thin")):
    """Delta_xy and Delta_x of scikit-learn's bundled sets, raw and centred, and of digits as an autoencoder.

    Nothing is random here: the seed changes nothing.
    """

    centres = (False, True)
    shape = (len(sets), len(centres), len(completions))
    delta_xy, delta_x, rank = np.empty(shape), np.empty(shape[:2]), np.empty(shape[:2], int)
    least, most, determined = np.empty(shape[:2]), np.empty(shape[:2]), np.empty(shape[:2], bool)
    for i, name in enumerate(sets):
        for j, centre in enumerate(centres):
            data = load(name, centre=centre)
            for k, completion in enumerate(completions):
                found = commutation(data.X, data.Y, completion=completion)
                delta_xy[i, j, k] = found.delta_xy
            delta_x[i, j], rank[i, j] = found.delta_x, found.rank
            least[i, j], most[i, j] = found.delta_xy_least, found.delta_xy_most
            determined[i, j] = found.rank == min(data.X.shape[1], data.Y.shape[1])
    itself = autoencoder(load(sets[0]))
    dims = ("set", "centred")
    return xr.Dataset(
        {
            "delta_xy": ((*dims, "completion"), delta_xy, {"long_name": "Delta_xy"}),
            "delta_x": (dims, delta_x, {"long_name": "Delta_x"}),
            "least": (dims, least, {"long_name": "Delta_xy, least over all completions"}),
            "most": (dims, most, {"long_name": "Delta_xy, largest over all completions"}),
            "rank": (dims, rank, {"long_name": "rank of Sigma_xy"}),
            "determined": (
                dims,
                determined,
                {"long_name": "whether no rounding errors enter the completion by the SVD"},
            ),
            "ok": (dims, np.isfinite(delta_x)),
            "autoencoder": ((), commutation(itself.X, itself.Y).delta_xy, {"long_name": "Delta_xy of an autoencoder"}),
        },
        coords={"set": list(sets), "centred": list(centres), "completion": list(completions)},
    )


def measure(dataset) -> Measured:
    numbers: Numbers = {"autoencoder": float(dataset["autoencoder"])}
    parts, ratios = [], {}
    for name in dataset["set"].values.tolist():
        numbers[name], kinds = {}, []
        for centred, kind in ((False, "raw"), (True, "centred")):
            row = dataset.sel(set=name, centred=centred)
            found, delta_x = row["delta_xy"].sel(completion="svd").item(), row["delta_x"].item()
            least, most = row["least"].item(), row["most"].item()
            numbers[name][kind] = [found, delta_x]
            numbers[name][f"{kind}, by completion"] = dict(
                zip(row["completion"].values.tolist(), row["delta_xy"].values.tolist(), strict=True)
            ) | {"least": least, "most": most}
            ratios[f"{name} {kind}"] = found / delta_x
            free = "" if row["determined"].item() else f" (rounding errors choose between {least:.3g} and {most:.3g})"
            kinds.append(f"{kind} {found:.3g}/{delta_x:.3f}{free}")
        parts.append(f"{name} {', '.join(kinds)}")
    largest = max(ratios, key=lambda name: ratios[name])
    numbers["largest ratio"] = {largest: ratios[largest]}
    text = (
        f"Delta_xy/Delta_x, completed by the SVD: {'; '.join(parts)}; Delta_xy is at most {ratios[largest]:.2g} of Delta_x "
        f"({largest}); an autoencoder has Delta_xy = {numbers['autoencoder']:.0e}"
    )
    return Measured(text, numbers)


def draw(figure, dataset) -> None:
    ax = figure.subplots(1, 1)
    sets = dataset["set"].values.tolist()
    for j, centred in enumerate((False, True)):
        row, y = dataset.sel(centred=centred), np.arange(len(sets)) + 0.2 * (2 * j - 1)
        kind = "centred" if centred else "raw"
        found = row["delta_xy"].sel(completion="svd").values
        ax.hlines(y, row["least"].values, row["most"].values, color=COLOURS[j], lw=4, alpha=0.25)
        ax.plot(found, y, **mark(j), ls="none", label=rf"$\Delta_{{xy}}$, {kind} (bar: all completions)")
        ax.plot(row["delta_x"].values, y, **mark(j), mfc="none", ls="none", label=rf"$\Delta_x$, {kind}")
    ax.axvline(1 / math.sqrt(2), color="0.5", lw=0.8, ls="--", label=r"$\Delta_x < 1/\sqrt{2}$")
    ax.set_yticks(np.arange(len(sets)), sets)
    ax.invert_yaxis()
    ax.set(
        xscale="log",
        xlabel=r"$\Delta_{xy}$, how far $\Sigma_x$, $\Sigma_{xy}$ are from shared vectors; $\Delta_x$, from $\Sigma_x \propto I$",
    )
    ax.set_ylabel("data set")
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


FIGURES = {
    "g19-table1": Figure(
        "G19 Table 1",
        "how nearly inputs and targets share their components",
        "Delta_xy is small beside Delta_x on the data sets of the paper; those here are others",
        compute,
        measure,
        draw,
        {},
        {},
        (7.4, 2.8),
        reference="completed by the SVD, digits raw .0388/.641, centred .320/.523; iris 8.46e-4/.491, .0678/.480; wine "
        ".00803/.601, .00318/.601; breast cancer .0326/.639, .0144/.638",
    )
}
