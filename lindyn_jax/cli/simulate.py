"""`lindyn-jax simulate`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from ._common import (
    CentreOption,
    DataOption,
    JsonOption,
    LossScaleOption,
    NegativeOption,
    PositiveOption,
    SamplesOption,
    ShapeOption,
    SolverOption,
    StepOption,
    SubsetSeedOption,
    TargetsOption,
    UntilOption,
    as_json,
    check_until,
    configure,
    consoles,
    named,
    print_problem,
    problem_of,
    refuse_file,
    save_figure,
    say,
    start_of,
    step_size_of,
    table_of,
    written,
)


def simulate(
    data: DataOption = "gaussian",
    shape: ShapeOption = "5,10",
    targets: TargetsOption = None,
    samples: SamplesOption = None,
    subset_seed: SubsetSeedOption = 0,
    centre: CentreOption = False,
    loss_scale: LossScaleOption = "sum",
    start: Annotated[str, typer.Option(help="gaussian, balanced, spectral, or imbalance (prescribed).")] = "gaussian",
    width: Annotated[float, typer.Option(help="Hidden width h, 1 to 1e12.")] = 1000,
    alpha: Annotated[
        float | None, typer.Option(help="Exponent: entries of the start are N(0, h^(-2 alpha)); 0.5 without --std.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation of the entries; U,V for one each.")] = None,
    positive: PositiveOption = "1",
    negative: NegativeOption = "1",
    u0: Annotated[str, typer.Option(help="Strengths of the modes in U for spectral: one number, or a list.")] = "0.1",
    v0: Annotated[str, typer.Option(help="Strengths of the modes in V for spectral: one number, or a list.")] = "0.1",
    seed: Annotated[int, typer.Option(help="Seed of the start.")] = 0,
    dynamics: Annotated[str, typer.Option(help="flow or descent.")] = "flow",
    until: UntilOption = None,
    step_size: StepOption = "stable",
    points: Annotated[int, typer.Option(help="How many times to observe.")] = 50,
    spacing: Annotated[
        str, typer.Option(help="Times: linear, log, or auto (log when X^T X is ill-conditioned).")
    ] = "auto",
    observables: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between them, or all: loss, excess_loss, reconstruction_error, rate, rate_bound, lemma7, "
            "margin, singular_values, distance_to_theta_hat, imbalance_spectrum, imbalance_drift, ... (a wrong name lists all)."
        ),
    ] = None,
    stop: Annotated[float | None, typer.Option(help="End at this excess-loss ratio.")] = None,
    solver: SolverOption = "auto",
    rtol: Annotated[float | None, typer.Option(help="Relative tolerance of the flow, by default 1e-9.")] = None,
    max_steps: Annotated[
        int | None, typer.Option(help="Step budget, by default 1e5 for flow and 1e6 for descent.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for trajectory.csv, trajectory.zarr and the figure.")] = Path(
        "simulate"
    ),
    json_: JsonOption = False,
) -> None:
    """One trajectory by flow or descent: observables as table, csv, dataset and figure."""
    configure()
    from .. import plots
    from ..studies import simulate as study
    from ..studies.simulate import DEFAULT_OBSERVABLES, OBSERVABLES, check_folder, save

    check_until(until)
    step = step_size_of(step_size)
    problem, name, description = problem_of(data, shape, targets, samples, subset_seed, centre, loss_scale)
    names = DEFAULT_OBSERVABLES if observables is None else tuple(OBSERVABLES)
    if observables not in (None, "all"):
        names = [part.strip() for part in observables.split(",") if part.strip()]
    begin = start_of(start, width, alpha, std, positive, negative, u0, v0)
    begin.check(problem)
    refuse_file(out)
    check_folder(out)
    console, notes = consoles()
    print_problem(notes, problem, description)
    say(notes, "start", begin.label())
    dataset = study(
        problem,
        begin,
        dynamics=dynamics,
        horizon=until,
        step_size=step,
        points=points,
        spacing=spacing,
        observables=tuple(names),
        stop=stop,
        solver=solver,
        rtol=rtol,
        max_steps=max_steps,
        seed=seed,
        record={"data": named(data), "description": description},
    )
    try:
        paths = save(dataset, out)
        paths += save_figure(
            notes, plots.trajectory(dataset, f"{plots.literal(name)}: {begin.label()}; {dynamics}"), out
        )
    except OSError as error:
        # What took long is shown all the same.
        notes.print(f"The trajectory cannot be saved in {written([out])} ({error.strerror or error}).")
        paths = []
    if json_:
        print(json.dumps(as_json(dataset), indent=1))
    else:
        _print_trajectory(console, dataset)
        console.print(f"written: {written(paths)}", soft_wrap=True)
    if not dataset.attrs["ok"]:
        say(notes, "The run failed:", f" {dataset.attrs['result']}.")
    if not (dataset.attrs["ok"] and paths):
        raise typer.Exit(1)


def _print_trajectory(console, dataset, rows: int = 12, components: int = 3) -> None:
    from ..studies.simulate import columns

    shown = columns(dataset)
    for name in dataset.data_vars:
        shown = {
            key: v
            for key, v in shown.items()
            if not key.startswith(f"{name}_")
            or key in dataset.data_vars
            or int(key.removeprefix(f"{name}_")) <= components
        }
    count = dataset.sizes["time"]
    picked = sorted({round(i * (count - 1) / max(min(rows, count) - 1, 1)) for i in range(min(rows, count))})
    table = table_of(f"{dataset.attrs['start']}; {dataset.attrs['dynamics']}", shown, words=0)
    for row in picked:
        table.add_row(*(f"{value[row]}" if name == "step" else f"{value[row]:.5g}" for name, value in shown.items()))
    console.print(table)
    step = f", step size {dataset.attrs['step_size']:.4g}" if "step_size" in dataset.attrs else ""
    console.print(f"{dataset.attrs['result']}; {dataset.attrs['num_steps']} steps{step}")
    if len(picked) < count:
        console.print(f"{len(picked)} of {count} rows shown; all are in the csv")
