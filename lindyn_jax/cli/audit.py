"""`lindyn-jax audit`."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from ._checked import is_given
from ._common import (
    BatchOption,
    CentreOption,
    ChunkOption,
    DataOption,
    JsonOption,
    LossScaleOption,
    NegativeOption,
    PositiveOption,
    Progress,
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
    numbers,
    print_problem,
    problem_of,
    refuse_foreign_folder,
    refuse_too_large,
    save_figure,
    say,
    start_of,
    step_size_of,
    table_of,
    widths_of,
    written,
)
from ._endings import interruptible


def audit(
    preset: Annotated[
        str | None, typer.Option(help="A figure's setting in place of data and starts: m22-figure3.")
    ] = None,
    data: DataOption = "gaussian",
    shape: ShapeOption = "5,10",
    targets: TargetsOption = None,
    samples: SamplesOption = None,
    subset_seed: SubsetSeedOption = 0,
    centre: CentreOption = False,
    loss_scale: LossScaleOption = "sum",
    start: Annotated[
        list[str], typer.Option(help="gaussian, balanced or imbalance (prescribed); repeat for several.")
    ] = ["gaussian"],  # noqa: B006
    widths: Annotated[str, typer.Option(help="Hidden widths: a list or LO:HI:COUNT; 1 to 1e12.")] = "1000",
    alphas: Annotated[
        str | None, typer.Option(help="Exponents: entries of the start are N(0, h^(-2 alpha)); 0.5 without --std.")
    ] = None,
    std: Annotated[
        list[str] | None, typer.Option(help="Standard deviation of the entries; U,V for one each; repeat for several.")
    ] = None,
    positive: PositiveOption = "1",
    negative: NegativeOption = "1",
    trials: Annotated[int, typer.Option(help="Random starts of each kind.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the starts.")] = 0,
    dynamics: Annotated[str, typer.Option(help="flow, descent or both.")] = "both",
    until: UntilOption = None,
    step_size: StepOption = "stable",
    points: Annotated[int, typer.Option(help="How many times to look.")] = 31,
    spacing: Annotated[str, typer.Option(help="Times: linear or log.")] = "linear",
    solver: SolverOption = "auto",
    rtol: Annotated[float, typer.Option(help="Relative tolerance of the flow.")] = 1e-9,
    max_steps: Annotated[int, typer.Option(help="Step budget of a trial.")] = 1_000_000,
    chunk: ChunkOption = None,
    batch: BatchOption = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the store and the figure; resumes what is there.")] = Path(
        "audit"
    ),
    json_: JsonOption = False,
    context: typer.Context = None,
) -> None:
    """Every convergence bound of M22 against flow and descent: how often it speaks, how tight it is, and if it is crossed."""
    configure()
    import jax.numpy as jnp

    from .. import _checks, plots
    from ..ensemble import BATCHES
    from ..store import SweepStore
    from ..studies import audit as study
    from ..studies.audit import DYNAMICS, PRESETS, summarise

    _checks.check_choice(dynamics, "dynamics", (*DYNAMICS, "both"))
    _checks.check_choice(batch, "batch", BATCHES)
    _checks.check_tolerance(rtol, "rtol", jnp.result_type(float))
    check_until(until)
    settings = {"horizon": until, "step_size": step_size_of(step_size)}
    if preset is None:
        problem, name, description = problem_of(data, shape, targets, samples, subset_seed, centre, loss_scale)
        record = {"data": named(data), "samples": samples, "subset_seed": subset_seed, "centre": centre}
        starts = starts_of(start, widths, alphas, std, positive, negative)
    else:
        _checks.check_choice(preset, "preset", tuple(PRESETS))
        chosen = PRESETS[preset]()
        problem, starts, name, description = chosen.problem, chosen.starts, preset, f"setting {preset}"
        record = {"preset": preset}
        for option, parameter in (("horizon", "until"), ("step_size", "step_size")):
            if not is_given(context, parameter):
                settings[option] = chosen.options.get(option, settings[option])
    refuse_foreign_folder(out, "audit.zarr")
    each = 2 * 12 * points * len(starts)
    refuse_too_large(3 * each * trials, f"{trials} starts of each kind at {points} times", "choose fewer")
    store = SweepStore(out / "audit.zarr")

    console, notes = consoles()
    print_problem(notes, problem, description)
    for label, begin in starts.items():
        say(notes, "start", f"{label}: {begin.label()}")
    with interruptible(), Progress(notes) as progress:
        result = study(
            problem,
            starts,
            trials,
            dynamics=DYNAMICS if dynamics == "both" else (dynamics,),
            points=points,
            spacing=spacing,
            solver=solver,
            rtol=rtol,
            max_steps=max_steps,
            seed=seed,
            record=record,
            store=store,
            chunk=chunk,
            batch=batch,
            progress=progress,
            **settings,
        )
    summary = summarise(result)
    sizes = f"N = {problem.num_samples}, n = {problem.num_inputs}, m = {problem.num_outputs}, rank {problem.rank}"
    paths = save_figure(
        notes, plots.audit(summary, f"{plots.literal(name)}: {sizes}; {trials} starts of each kind"), out
    )
    if json_:
        print(json.dumps(as_json(summary), indent=1))
        return
    _print_audit(console, summary)
    console.print(f"every trial: {written([store.path])}   figure: {written(paths)}", soft_wrap=True)


def _print_audit(console, summary) -> None:
    from ..studies.audit import LOSS_STATEMENTS, NAMES, RATE_STATEMENTS

    dynamics = [str(name) for name in summary["dynamics"].values]
    ratio, end = summary.attrs["ratio"], float(summary["time"][-1])

    def number(value) -> str:
        return f"{float(value):.3g}" if math.isfinite(float(value)) else "-"

    def ratio_of(value) -> str:
        # Below that it is the round-off of a zero.
        return "0" if abs(float(value)) < 1e-12 else number(value)

    def share(row, name, never: str = "hypothesis not met") -> str:
        value, low, high = (float(row[name + end]) for end in ("", "_low", "_high"))
        return f"{f'{value:.2f}' if value > 0 else never} [{low:.2f}, {high:.2f}]"

    def crossed(row, name) -> list[str]:
        counts = [
            (int(row[name].sel(dynamics=d)), int((row["trials"] - row["failures"]).sel(dynamics=d))) for d in dynamics
        ]
        return [f"{happened} of {count}" for happened, count in counts]

    table = table_of(
        "Imbalance and speed (medians over the starts; rate (22): what Theorem 3 gives near the end)",
        (
            "case",
            "Delta+",
            "Delta-",
            "Delta",
            "rate (22)",
            *(f"{d}: time to {ratio:g}" for d in dynamics),
            "drift of D",
            "failed",
        ),
    )
    for case in summary["case"].values:
        row = summary.sel(case=case)
        times = [float(row["time_to_ratio"].sel(dynamics=d)) for d in dynamics]
        table.add_row(
            str(case),
            *(number(row[f"imbalance_{part}"]) for part in ("plus", "minus", "level")),
            number(row["local_rate"]),
            *(f"{t:.3g}" if math.isfinite(t) else f"> {end:.3g}" for t in times),
            " / ".join(f"{float(row['drift'].sel(dynamics=d)):.1e}" for d in dynamics),
            str(int(row["failures"].sum())),
        )
    console.print(table)
    table = table_of(
        f"Statements (tightness: bound / true along the {dynamics[0]}, medians over the starts; intervals: exact 95%)",
        ("case", "statement", "hypothesis", "at 0", "at the end", "largest", *(f"crossed by {d}" for d in dynamics)),
        words=3,
    )
    for case in summary["case"].values:
        first = summary.sel(case=case, dynamics=dynamics[0])
        for index, statement in enumerate(RATE_STATEMENTS):
            row = first.sel(rate_statement=statement)
            path = row["rate_tightness_median"].values
            seen = path[[math.isfinite(value) for value in path]]
            table.add_row(
                str(case) if index == 0 else "",
                f"rate: {NAMES[statement]}",
                "none needed",
                ratio_of(path[0]),
                ratio_of(seen[-1]) if len(seen) else "-",
                ratio_of(row["rate_tightness_largest"]),
                *crossed(summary.sel(case=case, rate_statement=statement), "rate_crossed"),
            )
        for statement in LOSS_STATEMENTS:
            row = first.sel(statement=statement)
            table.add_row(
                "",
                f"loss: {NAMES[statement]}",
                "none needed" if statement == "theorem3" else share(row, "applies"),
                "",
                ratio_of(row["loss_tightness_median"]),
                ratio_of(row["loss_tightness_largest"]),
                *crossed(summary.sel(case=case, statement=statement), "loss_crossed"),
            )
        table.add_section()
    console.print(table)
    for case in summary["case"].values:
        row = summary.sel(case=case)
        console.print(
            f"{case}: the flow is known to converge, c(0) > 0, for {share(row, 'local_rate_applies', 'none')} of the starts; "
            f"Prop. 1 can be attained with this imbalance and product for {share(row, 'tightness_attained', 'none')}"
            + (
                "" if float(row["tightness_applies"]) == 1 else " (hypothesis of that not met: Sigma_x = I, h >= r + m)"
            ),
            soft_wrap=True,
        )


def starts_of(kinds, widths, alphas, stds, positive, negative) -> dict:
    """Every kind at every width and scale, each named by what tells it from the others."""
    from .. import _checks

    for kind in kinds:
        _checks.check_choice(kind, "start", ("gaussian", "balanced", "imbalance"))
    if alphas is not None and stds:
        raise ValueError("Give only one of --alphas and --std: the scale of the start by exponent or by value.")
    widths = widths_of(widths)
    scales = [(None, std) for std in stds] if stds else [(a, None) for a in numbers(alphas or "0.5", "alphas")]
    starts = {}
    for kind in dict.fromkeys(kinds):
        for width in widths:
            for alpha, std in scales:
                scale = f"alpha = {alpha:g}" if std is None else f"std = {std}"
                varied = ((kind, len(kinds)), (f"h = {width:g}", len(widths)), (scale, len(scales)))
                label = ", ".join(text for text, count in varied if count > 1) or kind
                starts[label] = start_of(kind, width, alpha, std, positive, negative)
    return starts
