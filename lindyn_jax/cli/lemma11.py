"""`lindyn-jax sweep lemma11`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ._common import (
    BatchOption,
    CentreOption,
    ChunkOption,
    Coordinator,
    JsonOption,
    NumProcesses,
    Precision,
    ProcessId,
    Progress,
    SamplesOption,
    TargetsOption,
    TrialsOption,
    as_json,
    computed,
    configure,
    consoles,
    join,
    load_data,
    named,
    numbers,
    refuse_too_large,
    save_figure,
    say,
    store_in,
    widths_of,
    written,
)
from ._endings import interruptible


def sweep_lemma11(
    inputs: Annotated[int, typer.Option(help="n, the number of inputs; of no cost.")] = 20,
    rank: Annotated[int, typer.Option(help="r, the rank of the data.")] = 5,
    outputs: Annotated[int, typer.Option(help="m, the number of outputs.")] = 2,
    data: Annotated[
        str | None, typer.Option(help="Take n, r and m from a bundled set or a file, as in sweep theorem12.")
    ] = None,
    targets: TargetsOption = None,
    samples: SamplesOption = None,
    subset_seed: Annotated[int, typer.Option(help="Seed of the choice of rows; of the data for --data gaussian.")] = 0,
    centre: CentreOption = False,
    widths: Annotated[
        str | None,
        typer.Option(help="LO:HI:COUNT (log-spaced) or a list; 1 to 1e12.", show_default="r + m to 10 h0"),
    ] = None,
    alphas: Annotated[
        str, typer.Option(help="Exponents: entries of the start are N(0, h^(-2 alpha)).")
    ] = "0.5,0.4,0.3",
    trials: TrialsOption = 10_000,
    seed: Annotated[int, typer.Option(help="Seed of the starts.")] = 0,
    delta: Annotated[float, typer.Option(help="Failure probability of Lemma 11.")] = 0.1,
    chunk: ChunkOption = None,
    batch: BatchOption = "auto",
    keep_trials: Annotated[
        bool, typer.Option(help="Store every trial, and not only counts, moments and quantile sketches.")
    ] = False,
    precision: Precision = None,
    coordinator: Coordinator = None,
    num_processes: NumProcesses = None,
    process_id: ProcessId = None,
    out: Annotated[Path, typer.Option(help="Folder for the store and the figure; resumes what is there.")] = Path(
        "lemma11"
    ),
    json_: JsonOption = False,
) -> None:
    """How often the events of M22's Lemma 11 hold for Gaussian starts, at any width and any number of inputs."""
    configure(distributed=True)
    from .. import _checks, plots
    from ..data._common import on_one_line
    from ..ensemble import BATCHES
    from ..problem import LeastSquares
    from ..studies import lemma11 as study

    _checks.check_choice(batch, "batch", BATCHES)
    study.check_precision(precision)
    alphas_, settings = numbers(alphas, "alphas"), study.Settings(delta=delta)
    study.check([1.0], alphas_, settings)
    dataset = None if data is None else load_data(data, targets, samples, subset_seed, centre)
    process = join(coordinator, num_processes, process_id)
    problem = study.sizes(inputs, rank, outputs) if dataset is None else LeastSquares(dataset.X, dataset.Y)
    widths_ = study.default_widths(problem, delta) if widths is None else widths_of(widths)
    study.check(widths_, alphas_, settings)
    points = len(alphas_) * len(widths_)
    if keep_trials:
        refuse_too_large(
            3 * 10 * points * trials, f"{trials} kept trials at {points} points", "leave out --keep-trials"
        )
    store = store_in(out)

    console, notes = consoles()
    sizes = f"n = {problem.num_inputs}, r = {problem.rank}, m = {problem.num_outputs}"
    name = "sizes only" if dataset is None else dataset.name
    say(notes, "problem", on_one_line(f"{name}: {sizes}"))
    say(notes, "sweep", f"{len(alphas_)} exponents x {len(widths_)} widths x {trials} trials")
    with interruptible(), Progress(notes) as progress:
        result = study.run(
            problem,
            widths_,
            alphas_,
            trials,
            seed=seed,
            settings=settings,
            record={"data": None if data is None else named(data)},
            precision=precision,
            store=store,
            chunk=chunk,
            batch=batch,
            keep_trials=keep_trials,
            process=process,
            progress=progress,
        )
    done = computed(result, notes)
    if done is None:
        return
    summary = study.summarise(result, problem, delta)
    paths = save_figure(
        notes, plots.lemma11(summary, f"Lemma 11, {plots.literal(name)}: {sizes}; {done} trials a point"), out
    )
    if json_:
        print(json.dumps(as_json(summary), indent=1))
        return
    _print_lemma11(console, summary)
    kept = "every trial" if keep_trials else "reductions of the trials"
    console.print(f"{kept}: {written([store.path])}   figure: {written(paths)}", soft_wrap=True)


def _print_lemma11(console, summary) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from ..studies.lemma11 import hypothesis

    table = Table(
        title="How often events (33) to (35) of Lemma 11 hold [exact 95%]; mean of Delta/h^(1 - 2 alpha); 95% quantiles of the "
        "norms in (34), (35) over their bounds",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    for name in ("alpha", "width", "(33)", "(34)", "(35)", "all", "level", "34/bound", "35/bound"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("Lemma 11", "D-S"):
        table.add_column(name, no_wrap=True)
    for alpha in summary["alpha"].values:
        for width in summary["width"].values:
            row = summary.sel(alpha=alpha, width=width)
            events = [
                f"{float(row[e]):.4f} [{float(row[e + '_low']):.3f}, {float(row[e + '_high']):.3f}]"
                for e in ("level_is_large", "coupling_is_small", "product_is_small")
            ]
            values = [float(row[name]) for name in ("level_ratio_mean", "coupling_ratio_q95", "product_ratio_q95")]
            table.add_row(
                f"{alpha:g}",
                f"{width:g}" if width < 1e5 else f"{width:.3g}",
                *events,
                f"{float(row['all_hold']):.4f}",
                *(f"{value:.4f}" for value in values),
                hypothesis(bool(row["applies"])),
                "met" if bool(row["applies_ds"]) else "not met",
            )
        table.add_section()
    console.print(table)
    known = summary.attrs
    console.print(
        f"delta = {known['delta']:g}: Lemma 11 as printed speaks above h0 = {known['h0']:.5g} (w = {known['w']:.4f}), with the "
        f"Davidson-Szarek constant (D-S) above {known['h0_ds']:.5g} (w = {known['w_ds']:.4f}), (33) alone above "
        f"{known['h0_level']:.5g}",
        soft_wrap=True,
    )
    trials = int(summary["trials"].values.flat[0])
    if summary.sizes["alpha"] > 1:
        differ = int(summary["disagree"].sum())
        console.print(
            f"same starts at different exponents: an event holds at one and fails at another in {differ} of {trials} trials x "
            f"{summary.sizes['width']} widths",
            soft_wrap=True,
        )
