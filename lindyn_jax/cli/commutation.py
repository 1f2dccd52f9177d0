"""`lindyn-jax commutation`."""

from typing import Annotated

import typer

from . import _output, _report
from ._common import (
    CentreOption,
    HtmlOption,
    SamplesOption,
    TargetsOption,
    consoles,
    say,
    table_of,
    written,
)
from ._output import CsvOption, JsonOption

DataSets = Annotated[
    list[str] | None,
    typer.Option(
        help="A bundled set (digits, iris, ...), a file (npz, csv), or two with a comma between them: X.npy,Y.npy, or images "
        "and labels in IDX, gzipped or not. May be repeated.",
        show_default="digits, iris, wine, breast-cancer",
    ),
]
SubsetSeed = Annotated[int, typer.Option(help="Seed of the choice of rows.")]


def commutation(
    data: DataSets = None,
    targets: TargetsOption = None,
    samples: SamplesOption = None,
    subset_seed: SubsetSeed = 0,
    centre: CentreOption = False,
    json_: JsonOption = False,
    csv: CsvOption = None,
    html: HtmlOption = None,
):
    """Whether components are learned one by one: G19's Delta_xy and Delta_x of data, raw and centred.

    Delta_xy is 0 where Sigma_x = X^T X/N is diagonal in the singular vectors of Sigma_xy = X^T Y/N, and Delta_x where it is
    a multiple of the identity. Where the rank of Sigma_xy is below the number of inputs, Delta_xy depends on how its
    singular vectors are completed to a basis: by the singular value decomposition, by the eigenvectors of Sigma_x on the
    complement (the least value), or not at all (thin). Nothing is trained.
    """
    from ..data import COMPLETIONS, describe, load
    from ..data import commutation as measure

    _report.check(html)
    _output.check(csv, json_)
    console, notes = consoles()
    results, facts = [], []
    for name in data or ("digits", "iris", "wine", "breast-cancer"):
        for centred in (True,) if centre else (False, True):
            dataset = load(name, targets=targets, samples=samples, subset_seed=subset_seed, centre=centred)
            if centred == centre:
                facts.append(("data", describe(dataset)))
                say(notes, *facts[-1])
            found = {completion: measure(dataset.X, dataset.Y, completion=completion) for completion in COMPLETIONS}
            any_ = found["svd"]
            results.append(
                {
                    "data": dataset.name,
                    "centred": centred,
                    "samples": dataset.X.shape[0],
                    "inputs": dataset.X.shape[1],
                    "outputs": dataset.Y.shape[1],
                    "rank": any_.rank,
                    "delta_xy": {completion: value.delta_xy for completion, value in found.items()},
                    "delta_xy_range": [any_.delta_xy_least, any_.delta_xy_most],
                    "delta_x": any_.delta_x,
                    "sigma": any_.sigma.tolist(),
                }
            )
    columns = ("data", "columns", "N", "n", "m", "rank", *(f"Delta_xy {completion}" for completion in COMPLETIONS))
    rows = [
        (
            row["data"],
            "centred" if row["centred"] else "raw",
            *(str(row[name]) for name in ("samples", "inputs", "outputs", "rank")),
            *(f"{row['delta_xy'][completion]:.3g}" for completion in COMPLETIONS),
            f"{row['delta_xy_range'][1]:.3g}",
            f"{row['delta_x']:.3f}",
        )
        for row in results
    ]
    title = "Delta_xy by completion, most over all completions, and Delta_x"
    parts = [table_of(title, (*columns, "most", "Delta_x"), rows, words=2, named=2)]
    known = None if html is None else _report.machine()
    report = _report.save(html, "commutation", [_report.Section("Results", parts)], results, facts=facts, known=known)
    names = [row["data"] for row in results if row["centred"]]
    settings = {"data": names, "targets": targets, "samples": samples, "subset_seed": subset_seed, "centre": centre}
    if _output.show(console, _output.told("commutation", settings, results), parts, json_, csv) and report:
        console.print(f"report: {written(report)}", soft_wrap=True)
