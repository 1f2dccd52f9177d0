"""`lindyn-jax fit-lambda0`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ._common import (
    BatchOption,
    CentreOption,
    ChunkOption,
    Coordinator,
    DataOption,
    JsonOption,
    LossScaleOption,
    NumProcesses,
    ProcessId,
    Progress,
    SamplesOption,
    ShapeOption,
    SubsetSeedOption,
    TargetsOption,
    as_json,
    computed,
    configure,
    consoles,
    join,
    named,
    print_problem,
    problem_of,
    refuse_too_large,
    save_figure,
    say,
    store_in,
    table_of,
    widths_of,
    written,
)
from ._endings import interruptible


def fit_lambda0(
    data: DataOption = "factorization",
    shape: ShapeOption = "5,10",
    targets: TargetsOption = None,
    samples: SamplesOption = None,
    subset_seed: SubsetSeedOption = 0,
    centre: CentreOption = False,
    loss_scale: LossScaleOption = "sum",
    draw_target: Annotated[bool, typer.Option("--draw-target", help="A target of its own for every trial.")] = False,
    widths: Annotated[str, typer.Option(help="LO:HI:COUNT (log-spaced) or a list; 1 to 1e12.")] = "50,100,200",
    trials: Annotated[int, typer.Option(help="Starts at each width.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the starts.")] = 0,
    std: Annotated[float, typer.Option(help="Standard deviation of the entries of U and V.")] = 1.0,
    horizon: Annotated[
        float | None,
        typer.Option(
            help="T, the time up to which paths are compared.", show_default="the first time of --relative-error"
        ),
    ] = None,
    relative_error: Annotated[float, typer.Option(help="Relative error of the flow that ends the horizon.")] = 1e-3,
    method: Annotated[
        str, typer.Option(help="closed, riccati (slower, any start) or flow (integrated, any data).")
    ] = "closed",
    nodes: Annotated[int, typer.Option(help="Intervals of the quadrature, a multiple of 4.")] = 48,
    chunk: ChunkOption = None,
    batch: BatchOption = "auto",
    coordinator: Coordinator = None,
    num_processes: NumProcesses = None,
    process_id: ProcessId = None,
    out: Annotated[Path, typer.Option(help="Folder for the store and the figure; resumes what is there.")] = Path(
        "fit-lambda0"
    ),
    json_: JsonOption = False,
) -> None:
    """Which homogeneous imbalance lambda0 follows the flow of Gaussian starts best, for either sign (T21 Fig. 2)."""
    configure(distributed=True)
    from .. import _checks, plots
    from ..ensemble import BATCHES
    from ..studies import fit_lambda0 as study

    _checks.check_choice(batch, "batch", BATCHES)
    settings = study.Settings(std, draw_target, horizon, relative_error, method, nodes)
    widths_ = widths_of(widths)
    process = join(coordinator, num_processes, process_id)
    problem, name, description = problem_of(data, shape, targets, samples, subset_seed, centre, loss_scale)
    study.check(problem, widths_, settings)
    r, m = problem.rank, problem.num_outputs
    each = (nodes + 1) * (3 * min(r, m) + 4) + r + m
    refuse_too_large(3 * each * len(widths_) * trials, f"{trials} starts at {len(widths_)} widths", "choose fewer")
    store = store_in(out)

    console, notes = consoles()
    print_problem(notes, problem, description)
    say(notes, "fits", f"{len(widths_)} widths x {trials} starts with entries N(0, {std:g}^2)")
    with interruptible(), Progress(notes) as progress:
        dataset = study.run(
            problem,
            widths_,
            trials,
            seed=seed,
            settings=settings,
            record={
                "data": named(data),
                "shape": list(problem.Y.shape),
                "targets": targets,
                "samples": samples,
                "subset_seed": subset_seed,
                "centre": centre,
                "loss_scale": loss_scale,
            },
            store=store,
            chunk=chunk,
            batch=batch,
            process=process,
            progress=progress,
        )
    done = computed(dataset, notes)
    if done is None:
        return
    summary = study.summarise(dataset, problem)
    title = (
        f"{plots.literal(name)}, {problem.rank} x {problem.num_outputs}: {done} starts with entries N(0, {std:g}$^2$)"
    )
    paths = save_figure(notes, plots.fit_lambda0(dataset, summary, title), out)
    if json_:
        print(json.dumps(as_json(summary), indent=1))
        return
    _print(console, summary)
    console.print(f"every start: {written([store.path])}   figure: {written(paths)}", soft_wrap=True)


def _print(console, summary) -> None:
    table = table_of(
        "Fitted lambda0, mean (sd), both signs; sqrt J of homogeneous imbalance (better sign) and of the wide limit",
        (
            "width",
            "lambda0 > 0",
            "lambda0 < 0",
            "/h",
            "/Q0",
            "sqrt J",
            "neg. better",
            "J at 0",
            "wide limit",
            "wide better",
        ),
        words=0,
    )
    for width in summary["width"].values:
        row = summary.sel(width=width)
        value = lambda name, row=row, **at: float(row[name].sel(**at))  # noqa: E731
        fitted = [
            f"{value('lambda0_mean', sign=sign):.5g} ({value('lambda0_sd', sign=sign):.2g})"
            for sign in ("positive", "negative")
        ]
        ratios = [
            ", ".join(f"{value(name, sign=sign):.4g}" for sign in ("positive", "negative"))
            for name in ("over_width", "over_spectrum")
        ]
        table.add_row(
            f"{width:g}",
            *fitted,
            *ratios,
            f"{value('root'):.4g} ({value('root_sd'):.1g})",
            f"{value('negative_better'):.2f}",
            f"{value('root_zero'):.3g}",
            f"{value('root_wide'):.3g}",
            f"{value('wide_better'):.2f}",
        )
    console.print(table)
    failed = int(summary["trials"].max() - summary["trials"].min()), int(summary["edges"].sum())
    if any(failed):
        console.print(
            f"{failed[0]} starts more failed at one width than at another; {failed[1]} fits have no minimum of one sign.",
            soft_wrap=True,
        )
    better = [f"{width:g}" for width in summary["width"].values if float(summary["wide_better"].sel(width=width)) > 0.5]
    console.print(
        "The wide limit is closer to the flow than homogeneous imbalance for most starts at "
        + (f"width {', '.join(better)}." if better else "no width here."),
        soft_wrap=True,
    )
