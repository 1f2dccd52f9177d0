"""The command line `lindyn-jax`: parses, calls and prints; the numerics are elsewhere."""

import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Learning dynamics of overparametrized linear networks.",
)
sweep = typer.Typer(no_args_is_help=True, help="Monte Carlo studies over widths and exponents.")
app.add_typer(sweep, name="sweep")

TargetsOption = Annotated[str | None, typer.Option(help="Target columns of a csv, with commas between them.")]
SamplesOption = Annotated[int | None, typer.Option(help="Keep this many rows, chosen by --subset-seed.")]
CentreOption = Annotated[bool, typer.Option("--centre", help="Subtract the column means of X and Y.")]
LossScaleOption = Annotated[str, typer.Option(help="Loss scale q: sum (1), mean (1/N) or averaged (2/N).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ChunkOption = Annotated[int | None, typer.Option(help="Trials computed and stored as one piece.")]
BatchOption = Annotated[str, typer.Option(help="map, vmap, or auto.")]
TrialsOption = Annotated[int, typer.Option(help="Trials at each (exponent, width).")]
ExponentsOption = Annotated[str, typer.Option(help="Exponents: entries of the start are N(0, h^(-2 alpha)).")]
Precision = Annotated[
    float | None, typer.Option(help="Stop as soon as every 95% interval of the summary is narrower than this.")
]
Coordinator = Annotated[
    str | None, typer.Option(help="HOST:PORT where several processes meet once; without it they share the store only.")
]
NumProcesses = Annotated[
    int | None, typer.Option(help="How many processes write to this --out [the tasks of srun's step, or 1].")
]
ProcessId = Annotated[int | None, typer.Option(help="Which of them this one is, from 0.")]


def main() -> None:
    """Runs the command line: bad input ends with one sentence and exit code 2, an interruption with 130."""
    try:
        app()
    except (ValueError, FileNotFoundError, PermissionError, NotADirectoryError) as error:
        print(f"lindyn-jax: {error}", file=sys.stderr)
        sys.exit(2)


def _configure() -> None:
    # Trials are spread over devices already; threads inside each small factorization would only wait for one another. Read
    # when JAX first calls LAPACK, so this is in time.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import jax

    jax.config.update("jax_enable_x64", True)
    if "JAX_NUM_CPU_DEVICES" in os.environ or "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # In a process that already runs JAX the number of devices is settled.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", cores)


def numbers(text: str, name: str) -> list[float]:
    """A comma-separated list of numbers, or `LO:HI:COUNT` for log-spaced ones."""
    try:
        if ":" in text:
            low, high, count = text.split(":")
            low, high, count = float(low), float(high), int(count)
            if not (0 < low < math.inf and 0 < high < math.inf and count >= 1):
                raise ValueError
            steps = [low * (high / low) ** (i / max(count - 1, 1)) for i in range(count)]
            return [*steps[:-1], high] if count > 1 else [low]
        values = [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(
            f"Option --{name} must be numbers with commas between them or LO:HI:COUNT with LO, HI > 0, but is {text!r}."
        ) from None
    if any(not math.isfinite(value) for value in values):
        raise ValueError(f"Option --{name} must be finite numbers, but is {text!r}.")
    return values


def _widths(text: str) -> list[float]:
    values = numbers(text, "widths")
    if ":" in text:
        values = [float(round(value)) for value in values]
    if any(value < 1 for value in values):
        raise ValueError(f"Widths must be whole numbers from 1 to 1e12, but one is {min(values):g}.")
    return sorted(set(values))


@sweep.command("theorem12")
def sweep_theorem12(
    data: Annotated[
        str, typer.Option(help="A bundled set (digits, gaussian, iris, ...) or a file: npz, csv, or X.npy,Y.npy.")
    ] = "digits",
    targets: TargetsOption = None,
    samples: SamplesOption = None,
    subset_seed: Annotated[int, typer.Option(help="Seed of the choice of rows; of the data for --data gaussian.")] = 0,
    centre: CentreOption = False,
    loss_scale: LossScaleOption = "sum",
    widths: Annotated[str | None, typer.Option(help="LO:HI:COUNT (log-spaced) or a list; 1 to 1e12.")] = None,
    alphas: ExponentsOption = "0.5,0.35",
    trials: TrialsOption = 50,
    seed: Annotated[int, typer.Option(help="Seed of the starts.")] = 0,
    dynamics: Annotated[str, typer.Option(help="flow or descent.")] = "flow",
    step_size: Annotated[
        float | None, typer.Option(help="Step of descent; default: from the sharpness of each start.")
    ] = None,
    stop: Annotated[
        float | None,
        typer.Option(
            help="Excess-loss ratio at which a trial ends [none: t = infinity; 1e-8 for descent, explicit solvers]."
        ),
    ] = None,
    delta: Annotated[float, typer.Option(help="Failure probability of Lemma 11 and Theorem 12.")] = 0.1,
    rtol: Annotated[
        float | None, typer.Option(help="Relative tolerance of the flow [1e-6 to infinity, 1e-9 with --stop].")
    ] = None,
    solver: Annotated[
        str, typer.Option(help="Solver of the flow: auto, radau (implicit, structured), tsit5, dopri8 or kvaerno5.")
    ] = "auto",
    max_steps: Annotated[int | None, typer.Option(help="Step budget of a trial [flow 1e5, descent 1e6].")] = None,
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
    _configure()
    import jax.numpy as jnp

    from . import _checks, plots
    from .data import describe
    from .ensemble import join_processes
    from .problem import LeastSquares
    from .studies import theorem12 as study

    for value, name in ((trials, "trials"), (chunk, "chunk"), (max_steps, "max-steps")):
        if value is not None and value < 1:
            raise ValueError(f"Option --{name} must be at least 1, but is {value}.")
    _checks.check_choice(dynamics, "dynamics", ("flow", "descent"))
    _checks.check_choice(loss_scale, "loss-scale", ("sum", "mean", "averaged"))
    _checks.check_choice(batch, "batch", ("auto", "map", "vmap"))
    _checks.check_choice(solver, "solver", ("auto", "radau", "tsit5", "dopri8", "kvaerno5"))
    if rtol is not None:
        _checks.check_tolerance(rtol, "rtol", jnp.result_type(float))
    if step_size is not None:
        _checks.check_positive(step_size, "step-size")
    study.check_precision(precision)
    alphas_ = numbers(alphas, "alphas")
    dataset = _load(data, targets, samples, subset_seed, centre)
    process = join_processes(coordinator, num_processes, process_id)
    problem = LeastSquares(dataset.X, dataset.Y, scale=loss_scale)
    settings = study.Settings(
        dynamics=dynamics,
        stop=stop,
        delta=delta,
        step_size=step_size,
        max_steps=max_steps or (100_000 if dynamics == "flow" else 1_000_000),
        rtol=rtol,
        solver=solver,
    )
    if problem.num_frozen == 0:
        study.check(problem, [1.0], alphas_, settings)
    if not 0 < delta < 1:
        raise ValueError(f"The failure probability delta must lie in (0, 1), but is {delta:g}.")
    widths_ = study.default_widths(problem, delta=delta) if widths is None else _widths(widths)
    study.check(problem, widths_, alphas_, settings)
    store = _store(out)

    console, notes = _consoles(json_)
    notes.print(f"[bold]data[/]     {describe(dataset)}")
    steps = max(study.expected_steps(problem, w, a, settings) for w in widths_ for a in alphas_)
    notes.print(
        f"[bold]problem[/]  rank {problem.rank} of {problem.num_inputs}, condition number of X^T X "
        f"{float(problem.condition):.3g}; about {steps:.2g} steps a trial"
    )
    notes.print(
        f"[bold]sweep[/]    {len(alphas_)} exponents x {len(widths_)} widths x {trials} trials by {dynamics} to "
        + ("t = infinity" if settings.to_limit else f"an excess-loss ratio of {settings.stopping_ratio:g}")
    )
    with _interruptible(notes), _Progress(notes) as progress:
        result = study.run(
            problem,
            widths_,
            alphas_,
            trials,
            seed=seed,
            settings=settings,
            record={"data": _named(data), "samples": samples, "subset_seed": subset_seed, "centre": centre},
            precision=precision,
            store=store,
            chunk=chunk,
            batch=batch,
            keep_trials=keep_trials,
            process=process,
            progress=progress,
        )
    done = _computed(store, notes)
    if done is None:
        return
    summary = study.summarise(result, problem, delta)
    sizes = f"N = {problem.num_samples}, n = {problem.num_inputs}, m = {problem.num_outputs}, rank {problem.rank}"
    title = f"{dataset.name}: {sizes}; {done} trials a point"
    paths = plots.save(plots.theorem12(summary, title), out)
    if json_:
        print(json.dumps(_as_json(summary), indent=1))
        return
    _print_table(console, summary)
    console.print(f"largest imbalance drift {float(summary['max_drift']):.1e}")
    kept = "every trial" if keep_trials else "reductions of the trials"
    console.print(f"{kept}: {store.path}   figure: {', '.join(str(path) for path in paths)}", soft_wrap=True)


@sweep.command("lemma11")
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
        str | None, typer.Option(help="LO:HI:COUNT (log-spaced) or a list; 1 to 1e12 [r + m to 10 h0].")
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
    _configure()
    from . import _checks, plots
    from .ensemble import join_processes
    from .problem import LeastSquares
    from .studies import lemma11 as study

    for value, name in ((trials, "trials"), (chunk, "chunk")):
        if value is not None and value < 1:
            raise ValueError(f"Option --{name} must be at least 1, but is {value}.")
    _checks.check_choice(batch, "batch", ("auto", "map", "vmap"))
    study.check_precision(precision)
    alphas_, settings = numbers(alphas, "alphas"), study.Settings(delta=delta)
    study.check([1.0], alphas_, settings)
    dataset = None if data is None else _load(data, targets, samples, subset_seed, centre)
    process = join_processes(coordinator, num_processes, process_id)
    problem = study.sizes(inputs, rank, outputs) if dataset is None else LeastSquares(dataset.X, dataset.Y)
    widths_ = study.default_widths(problem, delta) if widths is None else _widths(widths)
    study.check(widths_, alphas_, settings)
    store = _store(out)

    console, notes = _consoles(json_)
    sizes = f"n = {problem.num_inputs}, r = {problem.rank}, m = {problem.num_outputs}"
    name = "sizes only" if dataset is None else dataset.name
    notes.print(f"[bold]problem[/]  {name}: {sizes}")
    notes.print(f"[bold]sweep[/]    {len(alphas_)} exponents x {len(widths_)} widths x {trials} trials")
    with _interruptible(notes), _Progress(notes) as progress:
        result = study.run(
            problem,
            widths_,
            alphas_,
            trials,
            seed=seed,
            settings=settings,
            record={"data": None if data is None else _named(data)},
            precision=precision,
            store=store,
            chunk=chunk,
            batch=batch,
            keep_trials=keep_trials,
            process=process,
            progress=progress,
        )
    done = _computed(store, notes)
    if done is None:
        return
    summary = study.summarise(result, problem, delta)
    paths = plots.save(plots.lemma11(summary, f"Lemma 11, {name}: {sizes}; {done} trials a point"), out)
    if json_:
        print(json.dumps(_as_json(summary), indent=1))
        return
    _print_lemma11(console, summary)
    kept = "every trial" if keep_trials else "reductions of the trials"
    console.print(f"{kept}: {store.path}   figure: {', '.join(str(path) for path in paths)}", soft_wrap=True)


# -- one trajectory, and the audit of the statements ---------------------------------------------------------------------

DataOption = Annotated[
    str,
    typer.Option(
        help="A bundled set (gaussian, digits, iris, ...), a file (npz, csv, or X.npy,Y.npy), or factorization: X = I and a "
        "random target of --shape."
    ),
]
ShapeOption = Annotated[str, typer.Option(help="Rows and columns of the target for --data factorization.")]
SubsetSeedOption = Annotated[
    int, typer.Option(help="Seed of the choice of rows; of the data for gaussian and factorization.")
]
UntilOption = Annotated[
    float | None,
    typer.Option(
        help="Last time; by default when the excess loss has fallen by about 1e-6. Descent counts steps times step size."
    ),
]
StepOption = Annotated[
    str, typer.Option(help="Step size of descent: a number, or stable (half the largest stable one).")
]
SolverOption = Annotated[
    str, typer.Option(help="Solver of the flow: auto, radau (implicit, structured), tsit5, dopri8 or kvaerno5.")
]
PositiveOption = Annotated[str, typer.Option(help="Positive eigenvalues of D for imbalance: one number, or r of them.")]
NegativeOption = Annotated[str, typer.Option(help="Sizes of the negative ones: one number, or m of them.")]


@app.command()
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
    _configure()
    from . import plots
    from .studies import simulate as study
    from .studies.simulate import DEFAULT_OBSERVABLES, OBSERVABLES, check_folder, check_start, save

    _check_until(until)
    problem, name, description = _problem(data, shape, targets, samples, subset_seed, centre, loss_scale)
    names = DEFAULT_OBSERVABLES if observables is None else OBSERVABLES
    if observables not in (None, "all"):
        names = [part.strip() for part in observables.split(",") if part.strip()]
    begin = _start(start, width, alpha, std, positive, negative, u0, v0)
    check_start(problem, begin)
    check_folder(out)
    console, notes = _consoles(json_)
    _print_problem(notes, problem, description)
    notes.print(f"[bold]start[/]    {begin.label()}")
    dataset = study(
        problem,
        begin,
        dynamics=dynamics,
        horizon=until,
        step_size=_step_size(step_size),
        points=points,
        spacing=spacing,
        observables=tuple(names),
        stop=stop,
        solver=solver,
        rtol=rtol,
        max_steps=max_steps,
        seed=seed,
        record={"data": _named(data), "description": description},
    )
    paths = save(dataset, out)
    paths += plots.save(plots.trajectory(dataset, f"{name}: {begin.label()}; {dynamics}"), out)
    if json_:
        print(json.dumps(_as_json(dataset), indent=1))
    else:
        _print_trajectory(console, dataset)
        console.print(f"written: {', '.join(str(path) for path in paths)}", soft_wrap=True)
    if not dataset.attrs["ok"]:
        notes.print(f"[bold]The run failed[/]: {dataset.attrs['result']}.")
        raise typer.Exit(1)


@app.command()
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
    _configure()
    import jax.numpy as jnp

    from . import _checks, plots
    from .store import SweepStore
    from .studies import audit as study
    from .studies.audit import DYNAMICS, PRESETS, summarise

    for value, name in ((trials, "trials"), (chunk, "chunk"), (max_steps, "max-steps")):
        if value is not None and value < 1:
            raise ValueError(f"Option --{name} must be at least 1, but is {value}.")
    _checks.check_choice(dynamics, "dynamics", (*DYNAMICS, "both"))
    _checks.check_choice(batch, "batch", ("auto", "map", "vmap"))
    _checks.check_tolerance(rtol, "rtol", jnp.result_type(float))
    _check_until(until)
    settings = {"horizon": until, "step_size": _step_size(step_size)}
    if preset is None:
        problem, name, description = _problem(data, shape, targets, samples, subset_seed, centre, loss_scale)
        record = {"data": _named(data), "samples": samples, "subset_seed": subset_seed, "centre": centre}
        starts = _starts(start, widths, alphas, std, positive, negative)
    else:
        _checks.check_choice(preset, "preset", tuple(PRESETS))
        fixed = ("data", "shape", "targets", "samples", "subset_seed", "centre", "loss_scale")
        fixed += ("start", "widths", "alphas", "std", "positive", "negative")
        given = [n for n in fixed if context.get_parameter_source(n).name == "COMMANDLINE"]
        if given:
            raise ValueError(
                f"Option --preset chooses data and starts: leave out --{given[0].replace('_', '-')}, or --preset."
            )
        chosen = PRESETS[preset]()
        problem, starts, name, description = chosen.problem, chosen.starts, preset, f"setting {preset}"
        record = {"preset": preset}
        for option, parameter in (("horizon", "until"), ("step_size", "step_size")):
            if context.get_parameter_source(parameter).name != "COMMANDLINE":
                settings[option] = chosen.options.get(option, settings[option])
    _refuse_foreign_folder(out, "audit.zarr")
    store = SweepStore(out / "audit.zarr")

    console, notes = _consoles(json_)
    _print_problem(notes, problem, description)
    for label, begin in starts.items():
        notes.print(f"[bold]start[/]    {label}: {begin.label()}")
    try:
        with _Progress(notes) as progress:
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
    except KeyboardInterrupt:
        notes.print("Interrupted: complete chunks are kept, and the same command goes on from there.")
        raise typer.Exit(130) from None
    summary = summarise(result)
    sizes = f"N = {problem.num_samples}, n = {problem.num_inputs}, m = {problem.num_outputs}, rank {problem.rank}"
    paths = plots.save(plots.audit(summary, f"{name}: {sizes}; {trials} starts of each kind"), out)
    if json_:
        print(json.dumps(_as_json(summary), indent=1))
        return
    _print_audit(console, summary)
    console.print(f"every trial: {store.path}   figure: {', '.join(str(path) for path in paths)}", soft_wrap=True)


def _problem(data, shape, targets, samples, subset_seed, centre, loss_scale):
    """The problem that the data options name, a name for it and a description."""
    from . import _checks
    from .data import describe, gaussian, load
    from .problem import LeastSquares, factorization
    from .studies.simulate import random_target

    _checks.check_choice(loss_scale, "loss-scale", ("sum", "mean", "averaged"))
    if data.lower() == "factorization":
        for given, name in ((targets, "targets"), (samples, "samples"), (centre or None, "centre")):
            if given is not None:
                raise ValueError(f"Option --{name} is for data with inputs: leave it out with --data factorization.")
        sizes = numbers(shape.replace("x", ","), "shape")
        if len(sizes) != 2 or any(size < 1 or size != round(size) for size in sizes):
            raise ValueError(f"Option --shape must be two whole numbers such as 5,10, but is {shape!r}.")
        n, m = (int(size) for size in sizes)
        description = f"factorization: {n} x {m} target with entries N(0, 1), seed {subset_seed}"
        return factorization(random_target(n, m, seed=subset_seed), scale=loss_scale), "factorization", description
    if data.lower() == "gaussian" and samples is None:
        dataset = gaussian(seed=subset_seed)
        if centre:
            dataset = dataset._replace(X=dataset.X - dataset.X.mean(axis=0), Y=dataset.Y - dataset.Y.mean(axis=0))
    else:
        dataset = load(data, targets=targets, samples=samples, subset_seed=subset_seed, centre=centre)
    return LeastSquares(dataset.X, dataset.Y, scale=loss_scale), dataset.name, describe(dataset)


def _print_problem(notes, problem, description: str) -> None:
    notes.print(f"[bold]data[/]     {description}")
    notes.print(
        f"[bold]problem[/]  rank {problem.rank} of {problem.num_inputs}, condition number of X^T X "
        f"{float(problem.condition):.3g}"
    )


def _one_or_list(text: str, name: str) -> float | tuple[float, ...]:
    values = tuple(numbers(text, name))
    return values[0] if len(values) == 1 else values


def _start(kind, width, alpha, std, positive, negative, u0="0.1", v0="0.1"):
    from .studies import Start

    return Start(
        kind,
        width,
        None if std is None else _one_or_list(std, "std"),
        alpha,
        _one_or_list(positive, "positive"),
        _one_or_list(negative, "negative"),
        _one_or_list(u0, "u0"),
        _one_or_list(v0, "v0"),
    )


def _starts(kinds, widths, alphas, stds, positive, negative) -> dict:
    """Every kind at every width and scale, each named by what tells it from the others."""
    from . import _checks

    for kind in kinds:
        _checks.check_choice(kind, "start", ("gaussian", "balanced", "imbalance"))
    if alphas is not None and stds:
        raise ValueError("Give only one of --alphas and --std: the scale of the start by exponent or by value.")
    widths = _widths(widths)
    scales = [(None, std) for std in stds] if stds else [(a, None) for a in numbers(alphas or "0.5", "alphas")]
    starts = {}
    for kind in dict.fromkeys(kinds):
        for width in widths:
            for alpha, std in scales:
                scale = f"alpha = {alpha:g}" if std is None else f"std = {std}"
                varied = ((kind, len(kinds)), (f"h = {width:g}", len(widths)), (scale, len(scales)))
                label = ", ".join(text for text, count in varied if count > 1) or kind
                starts[label] = _start(kind, width, alpha, std, positive, negative)
    return starts


def _check_until(until: float | None) -> None:
    if until is not None and not 0 < until < math.inf:
        raise ValueError(f"Option --until must be a positive number, but is {until:g}.")


def _step_size(text: str) -> float | str:
    if text == "stable":
        return text
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"Option --step-size must be a number or stable, but is {text!r}.") from None


def _refuse_foreign_folder(out: Path, store: str) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, not a folder: choose another --out.")
    if out.is_dir() and any(out.iterdir()) and not (out / store).is_dir():
        raise ValueError(f"{out} is not empty and holds no store of this study ({store}): choose another --out.")


def _table(title: str, columns, words: int = 1):
    """An empty table whose first `words` columns hold words and the others numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="left" if len(table.columns) < words else "right", no_wrap=True)
    return table


def _print_trajectory(console, dataset, rows: int = 12, components: int = 3) -> None:
    from .studies.simulate import columns

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
    table = _table(f"{dataset.attrs['start']}; {dataset.attrs['dynamics']}", shown, words=0)
    for row in picked:
        table.add_row(*(f"{value[row]}" if name == "step" else f"{value[row]:.5g}" for name, value in shown.items()))
    console.print(table)
    step = f", step size {dataset.attrs['step_size']:.4g}" if "step_size" in dataset.attrs else ""
    console.print(f"{dataset.attrs['result']}; {dataset.attrs['num_steps']} steps{step}")
    if len(picked) < count:
        console.print(f"{len(picked)} of {count} rows shown; all are in the csv")


def _print_audit(console, summary) -> None:
    from .studies.audit import LOSS_STATEMENTS, NAMES, RATE_STATEMENTS

    dynamics = [str(name) for name in summary["dynamics"].values]
    ratio, end = summary.attrs["ratio"], float(summary["time"][-1])

    def number(value) -> str:
        return f"{float(value):.3g}" if math.isfinite(float(value)) else "-"

    def ratio_of(value) -> str:
        # Below that it is the round-off of a zero.
        return "0" if abs(float(value)) < 1e-12 else number(value)

    def share(row, name, never: str = "hypothesis not met") -> str:
        value, low, high = (float(row[name + end]) for end in ("", "_low", "_high"))
        return rf"{f'{value:.2f}' if value > 0 else never} \[{low:.2f}, {high:.2f}]"

    def crossed(row, name) -> list[str]:
        counts = [
            (int(row[name].sel(dynamics=d)), int((row["trials"] - row["failures"]).sel(dynamics=d))) for d in dynamics
        ]
        return [f"{happened} of {count}" for happened, count in counts]

    table = _table(
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
    table = _table(
        f"Statements (tightness: bound / true along the {dynamics[0]}, medians over the starts; intervals: Wilson 95%)",
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


@app.command()
def info() -> None:
    """Versions, devices and precision."""
    _configure()
    from .ensemble import describe_environment

    for name, value in describe_environment().items():
        text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{name:<10} {text}")


def _consoles(quiet: bool):
    """One console for results on standard output, one for notes and progress on standard error."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 160
    notes = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
    return Console(highlight=False, width=width), notes


class _Progress:
    """A live bar with rate and remaining time; one line a tenth of the way where there is no terminal."""

    def __init__(self, console):
        self.console = console
        self.last = -1

    def __enter__(self):
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.bar = Progress(
            TextColumn("trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("trials", total=None, rate="compiling")
        self.bar.start()
        return self

    def __call__(self, done: int, total: int) -> None:
        import time

        now = time.monotonic()
        if self.last < 0:
            self.begin, self.before, self.last = now, done, 0
            if done:
                self.console.print(f"resuming: {done} of {total} trials are there already")
        rate = (done - self.before) / (now - self.begin) if done > self.before else 0.0
        self.bar.update(self.task, completed=done, total=total, rate=f"{rate:.1f}/s" if rate else "")
        tenth = 10 * done // total
        if not self.console.is_terminal and tenth > self.last:
            self.last = tenth
            left = f", {(total - done) / rate:.0f} s left" if rate else ""
            self.console.print(f"{done} of {total} trials, {rate:.1f}/s{left}")

    def __exit__(self, *exception) -> None:
        self.bar.stop()


def _load(data: str, targets: str | None, samples: int | None, subset_seed: int, centre: bool):
    from .data import gaussian, load

    if data.lower() == "gaussian" and samples is None:
        dataset = gaussian(seed=subset_seed)
        if centre:
            dataset = dataset._replace(X=dataset.X - dataset.X.mean(axis=0), Y=dataset.Y - dataset.Y.mean(axis=0))
        return dataset
    return load(data, targets=targets, samples=samples, subset_seed=subset_seed, centre=centre)


def _store(out: Path):
    """The store in an output folder that is new, empty, or was made by a sweep."""
    from .store import SweepStore

    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, not a folder: choose another --out.")
    if out.is_dir() and not (out / "sweep.zarr").is_dir():
        # A store that another process is making at this moment has such a name.
        others = [path for path in out.iterdir() if not path.name.startswith(".sweep.zarr.building")]
        if others and not (out / "sweep.zarr").is_dir():
            raise ValueError(f"{out} is not empty and holds no sweep store (sweep.zarr): choose another --out.")
    return SweepStore(out / "sweep.zarr")


@contextlib.contextmanager
def _interruptible(notes):
    try:
        yield
    except KeyboardInterrupt:
        notes.print("Interrupted: complete chunks are kept, and the same command goes on from there.")
        raise typer.Exit(130) from None


def _computed(store, notes) -> int | None:
    """Trials behind the summary; `None`, and a sentence, while other processes still compute theirs."""
    done, wanted, stopped = store.progress()
    if stopped:
        notes.print(f"stopped early: {done} trials a point make every interval as narrow as asked")
    elif done < wanted:
        notes.print(
            f"This process has done its share; {done} of {wanted} trials a point are there. The process that ends last prints "
            "the summary, and so does the same command for a single process later."
        )
        return None
    return done


def _named(data: str) -> str:
    """The data's name without the folder it lies in: moving a file does not change the study."""
    return ",".join(Path(part).name for part in data.split(","))


def _print_table(console, summary) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from .studies.theorem12 import EVENTS, hypothesis

    table = Table(
        title="Distance to the minimum-norm solution, and how often events (33) to (35) of Lemma 11 hold [Wilson 95%]",
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
                rf"{float(row[e]):.2f} \[{float(row[e + '_low']):.2f}, {float(row[e + '_high']):.2f}]" for e in EVENTS
            ]
            table.add_row(
                f"{alpha:g}",
                f"{width:g}" if width < 1e5 else f"{width:.3g}",
                *events,
                f"{float(row['median']):.3g}",
                f"{float(row['q95']):.3g}",
                f"{float(row['sharp_rms']):.3g}",
                _power(float(row["log10_bound"])),
                _power(float(row["log10_bound_over_q95"])),
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
            return rf"\[{low:.4f}, {high:.4f}]" if math.isfinite(low) else "(no interval)"

        needs = f"speaks from h = {_power(width)} on" if math.isfinite(width) else "never speaks at this exponent"
        console.print(
            f"alpha {alpha:g}: slope of log distance {float(row['slope']):.4f} {interval('slope')}, of its rms "
            f"{float(row['rms_slope']):.4f} {interval('rms_slope')}; exact law {float(row['exact_slope']):.4f}, sharp law "
            f"{float(row['sharp_slope']):.4f}; the theorem {needs}",
            soft_wrap=True,
        )


def _print_lemma11(console, summary) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from .studies.lemma11 import hypothesis

    table = Table(
        title="How often events (33) to (35) of Lemma 11 hold [Wilson 95%]; mean of Delta/h^(1 - 2 alpha); 95% quantiles of the "
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
                rf"{float(row[e]):.4f} \[{float(row[e + '_low']):.3f}, {float(row[e + '_high']):.3f}]"
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


def _power(log10: float) -> str:
    """10^x as a number where it is readable, as a power where it is huge."""
    return f"{10**log10:.3g}" if -4 < log10 < 7 else f"10^{log10:.4g}"


def _as_json(summary) -> dict:
    def plain(value):
        if isinstance(value, list):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    values = {name: plain(array.values.tolist()) for name, array in {**summary.coords, **summary.data_vars}.items()}
    return {**values, **summary.attrs, "dims": {name: list(array.dims) for name, array in summary.data_vars.items()}}
