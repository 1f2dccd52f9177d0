"""`lindyn-jax sweep theorem12`."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from ._common import (
    BatchOption,
    CentreOption,
    ChunkOption,
    Coordinator,
    ExponentsOption,
    JsonOption,
    LossScaleOption,
    NumProcesses,
    Precision,
    ProcessId,
    Progress,
    SamplesOption,
    SolverOption,
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
    power,
    refuse_too_large,
    save_figure,
    say,
    store_in,
    widths_of,
    written,
)
from ._endings import interruptible


def sweep_theorem12(
    data: Annotated[
        str, typer.Option(help="A bundled set (digits, gaussian, iris, ...) or a file: npz, csv, or X.npy,Y.npy.")
    ] = "digits",
    targets: TargetsOption = None,
    samples: SamplesOption = None,
    subset_seed: Annotated[int, typer.Option(help="Seed of the choice of rows; of the data for --data gaussian.")] = 0,
    centre: CentreOption = False,
    loss_scale: LossScaleOption = "sum",
    widths: Annotated[
        str | None,
        typer.Option(
            help="LO:HI:COUNT (log-spaced) or a list; 1 to 1e12.", show_default="8 from 100 to the theorem's own width"
        ),
    ] = None,
    alphas: ExponentsOption = "0.5,0.35",
    trials: TrialsOption = 50,
    seed: Annotated[int, typer.Option(help="Seed of the starts.")] = 0,
    dynamics: Annotated[str, typer.Option(help="flow or descent.")] = "flow",
    step_size: Annotated[
        float | None, typer.Option(help="Step of descent.", show_default="from the sharpness of each start")
    ] = None,
    stop: Annotated[
        float | None,
        typer.Option(
            help="Excess-loss ratio at which a trial ends.",
            show_default="none: t = infinity; 1e-8 for descent and explicit solvers",
        ),
    ] = None,
    delta: Annotated[float, typer.Option(help="Failure probability of Lemma 11 and Theorem 12.")] = 0.1,
    rtol: Annotated[
        float | None,
        typer.Option(help="Relative tolerance of the flow.", show_default="1e-6 to infinity, 1e-9 with --stop"),
    ] = None,
    solver: SolverOption = "auto",
    max_steps: Annotated[
        int | None,
        typer.Option(help="Step budget of a trial.", show_default="1e4 to infinity, 1e5 with --stop, descent 1e6"),
    ] = None,
    chunk: ChunkOption = None,
    batch: BatchOption = "auto",
    keep_trials: Annotated[
        bool, typer.Option(help="Store every trial; without it counts, moments and sketches only, in constant memory.")
    ] = True,
    precision: Precision = None,
    coordinator: Coordinator = None,
    num_processes: NumProcesses = None,
    process_id: ProcessId = None,
    out: Annotated[Path, typer.Option(help="Folder for the store and the figure; resumes what is there.")] = Path(
        "theorem12"
    ),
    json_: JsonOption = False,
) -> None:
    """How far from the minimum-norm solution wide networks end: M22's Theorem 12, its bound and the sharp law."""
    configure(distributed=True)
    import jax.numpy as jnp

    from .. import _checks, plots
    from ..data import describe
    from ..ensemble import BATCHES
    from ..problem import LeastSquares
    from ..studies import theorem12 as study
    from ..studies.simulate import check_size

    _checks.check_choice(dynamics, "dynamics", ("flow", "descent"))
    _checks.check_choice(loss_scale, "loss-scale", ("sum", "mean", "averaged"))
    _checks.check_choice(batch, "batch", BATCHES)
    _checks.check_choice(solver, "solver", ("auto", "radau", "lie", "tsit5", "dopri8", "kvaerno5"))
    if rtol is not None:
        _checks.check_tolerance(rtol, "rtol", jnp.result_type(float))
    study.check_precision(precision)
    alphas_ = numbers(alphas, "alphas")
    dataset = load_data(data, targets, samples, subset_seed, centre)
    process = join(coordinator, num_processes, process_id)
    problem = LeastSquares(dataset.X, dataset.Y, scale=loss_scale)
    check_size(problem)
    settings = study.Settings(
        dynamics=dynamics,
        stop=stop,
        delta=delta,
        step_size=step_size,
        max_steps=max_steps,
        rtol=rtol,
        solver=solver,
    )
    if problem.num_frozen == 0:
        study.check(problem, [1.0], alphas_, settings)
    if not 0 < delta < 1:
        raise ValueError(f"The failure probability delta must lie in (0, 1), but is {delta:g}.")
    widths_ = study.default_widths(problem, delta=delta) if widths is None else widths_of(widths)
    study.check(problem, widths_, alphas_, settings)
    points = len(alphas_) * len(widths_)
    if keep_trials:
        # Seventeen numbers a trial, read and summarised at once.
        refuse_too_large(
            3 * 17 * points * trials, f"{trials} trials at {points} points", "choose fewer, or --no-keep-trials"
        )
    store = store_in(out)

    console, notes = consoles()
    say(notes, "data", describe(dataset))
    steps = max(study.expected_steps(problem, w, a, settings) for w in widths_ for a in alphas_)
    say(
        notes,
        "problem",
        f"rank {problem.rank} of {problem.num_inputs}, condition number of X^T X {float(problem.condition):.3g}; about "
        f"{steps:.2g} steps a trial",
    )
    end = "t = infinity" if settings.to_limit else f"an excess-loss ratio of {settings.stopping_ratio:g}"
    say(notes, "sweep", f"{len(alphas_)} exponents x {len(widths_)} widths x {trials} trials by {dynamics} to {end}")
    with interruptible(), Progress(notes) as progress:
        result = study.run(
            problem,
            widths_,
            alphas_,
            trials,
            seed=seed,
            settings=settings,
            record={"data": named(data), "samples": samples, "subset_seed": subset_seed, "centre": centre},
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
    sizes = f"N = {problem.num_samples}, n = {problem.num_inputs}, m = {problem.num_outputs}, rank {problem.rank}"
    title = f"{plots.literal(dataset.name)}: {sizes}; {done} trials a point"
    paths = save_figure(notes, plots.theorem12(summary, title), out)
    if json_:
        print(json.dumps(as_json(summary), indent=1))
        return
    _print_table(console, summary)
    console.print(f"largest imbalance drift {float(summary['max_drift']):.1e}")
    kept = "every trial" if keep_trials else "reductions of the trials"
    console.print(f"{kept}: {written([store.path])}   figure: {written(paths)}", soft_wrap=True)


def _print_table(console, summary) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from ..studies.theorem12 import EVENTS, hypothesis

    table = Table(
        title="Distance to the minimum-norm solution, and how often events (33) to (35) of Lemma 11 hold [exact 95%]",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 0, 0, 1),
    )
    for name in ("alpha", "width", "(33)", "(34)", "(35)", "median", "95%", "sharp law", "bound", "bound/95%"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Theorem 12", no_wrap=True)
    table.add_column("failed", justify="right", no_wrap=True)
    for alpha in summary["alpha"].values:
        for width in summary["width"].values:
            row = summary.sel(alpha=alpha, width=width)
            events = [
                f"{float(row[e]):.2f} [{float(row[e + '_low']):.2f}, {float(row[e + '_high']):.2f}]" for e in EVENTS
            ]
            table.add_row(
                f"{alpha:g}",
                f"{width:g}" if width < 1e5 else f"{width:.3g}",
                *events,
                f"{float(row['median']):.3g}",
                f"{float(row['q95']):.3g}",
                f"{float(row['sharp_rms']):.3g}",
                power(float(row["log10_bound"])),
                power(float(row["log10_bound_over_q95"])),
                hypothesis(bool(row["applies"])),
                str(int(row["failures"])),
            )
        table.add_section()
    console.print(table)
    for alpha in summary["alpha"].values:
        row = summary.sel(alpha=alpha)
        width = float(row["log10_theorem_width"].values.ravel()[0])

        def interval(name, row=row):
            low, high = float(row[f"{name}_low"]), float(row[f"{name}_high"])
            return f"[{low:.4f}, {high:.4f}]" if math.isfinite(low) else "(no interval)"

        needs = f"speaks from h = {power(width)} on" if math.isfinite(width) else "never speaks at this exponent"
        console.print(
            f"alpha {alpha:g}: slope of log distance {float(row['slope']):.4f} {interval('slope')}, of its rms "
            f"{float(row['rms_slope']):.4f} {interval('rms_slope')}; exact law {float(row['exact_slope']):.4f}, sharp law "
            f"{float(row['sharp_slope']):.4f}; the theorem {needs}",
            soft_wrap=True,
        )
