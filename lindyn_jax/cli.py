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


def main() -> None:
    """Runs the command line: bad input ends with one sentence and exit code 2, an interruption with 130."""
    try:
        app()
    except (ValueError, FileNotFoundError, PermissionError, NotADirectoryError) as error:
        print(f"lindyn-jax: {error}", file=sys.stderr)
        sys.exit(2)


def _configure() -> None:
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
    targets: Annotated[str | None, typer.Option(help="Target columns of a csv, with commas between them.")] = None,
    samples: Annotated[int | None, typer.Option(help="Keep this many rows, chosen by --subset-seed.")] = None,
    subset_seed: Annotated[int, typer.Option(help="Seed of the choice of rows; of the data for --data gaussian.")] = 0,
    centre: Annotated[bool, typer.Option("--centre", help="Subtract the column means of X and Y.")] = False,
    loss_scale: Annotated[str, typer.Option(help="Loss scale q: sum (1), mean (1/N) or averaged (2/N).")] = "sum",
    widths: Annotated[str | None, typer.Option(help="LO:HI:COUNT (log-spaced) or a list; 1 to 1e12.")] = None,
    alphas: Annotated[str, typer.Option(help="Exponents: entries of the start are N(0, h^(-2 alpha)).")] = "0.5,0.35",
    trials: Annotated[int, typer.Option(help="Trials at each (exponent, width).")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the starts.")] = 0,
    dynamics: Annotated[str, typer.Option(help="flow or descent.")] = "flow",
    step_size: Annotated[
        float | None, typer.Option(help="Step of descent; default: from the sharpness of each start.")
    ] = None,
    stop: Annotated[float, typer.Option(help="Excess-loss ratio at which a trial ends.")] = 1e-8,
    delta: Annotated[float, typer.Option(help="Failure probability of Lemma 11 and Theorem 12.")] = 0.1,
    rtol: Annotated[float, typer.Option(help="Relative tolerance of the flow.")] = 1e-9,
    solver: Annotated[
        str, typer.Option(help="Solver of the flow: auto, tsit5, dopri8 or kvaerno5 (implicit).")
    ] = "auto",
    max_steps: Annotated[int | None, typer.Option(help="Step budget of a trial [flow 1e5, descent 1e6].")] = None,
    chunk: Annotated[int | None, typer.Option(help="Trials computed and stored as one piece.")] = None,
    batch: Annotated[str, typer.Option(help="map, vmap, or auto.")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder for the store and the figure; resumes what is there.")] = Path(
        "theorem12"
    ),
    json_: Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of a table.")] = False,
) -> None:
    """How far from the minimum-norm solution wide networks end: M22's Theorem 12, its bound and the sharp law."""
    _configure()
    import jax.numpy as jnp

    from . import _checks, plots
    from .data import describe, gaussian, load
    from .problem import LeastSquares
    from .store import SweepStore
    from .studies import theorem12 as study

    for value, name in ((trials, "trials"), (chunk, "chunk"), (max_steps, "max-steps")):
        if value is not None and value < 1:
            raise ValueError(f"Option --{name} must be at least 1, but is {value}.")
    _checks.check_choice(dynamics, "dynamics", ("flow", "descent"))
    _checks.check_choice(loss_scale, "loss-scale", ("sum", "mean", "averaged"))
    _checks.check_choice(batch, "batch", ("auto", "map", "vmap"))
    _checks.check_choice(solver, "solver", ("auto", "tsit5", "dopri8", "kvaerno5"))
    _checks.check_tolerance(rtol, "rtol", jnp.result_type(float))
    if step_size is not None:
        _checks.check_positive(step_size, "step-size")
    alphas_ = numbers(alphas, "alphas")
    if data.lower() == "gaussian" and samples is None:
        dataset = gaussian(seed=subset_seed)
        if centre:
            dataset = dataset._replace(X=dataset.X - dataset.X.mean(axis=0), Y=dataset.Y - dataset.Y.mean(axis=0))
    else:
        dataset = load(data, targets=targets, samples=samples, subset_seed=subset_seed, centre=centre)
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
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, not a folder: choose another --out.")
    if out.is_dir() and any(out.iterdir()) and not (out / "sweep.zarr").is_dir():
        raise ValueError(f"{out} is not empty and holds no sweep store (sweep.zarr): choose another --out.")
    store = SweepStore(out / "sweep.zarr")

    console, notes = _consoles(json_)
    notes.print(f"[bold]data[/]     {describe(dataset)}")
    steps = max(study.expected_steps(problem, w, a, settings) for w in widths_ for a in alphas_)
    notes.print(
        f"[bold]problem[/]  rank {problem.rank} of {problem.num_inputs}, condition number of X^T X "
        f"{float(problem.condition):.3g}; about {steps:.2g} steps a trial"
    )
    notes.print(
        f"[bold]sweep[/]    {len(alphas_)} exponents x {len(widths_)} widths x {trials} trials by {dynamics} to an excess-loss "
        f"ratio of {stop:g}"
    )
    try:
        with _Progress(notes) as progress:
            result = study.run(
                problem,
                widths_,
                alphas_,
                trials,
                seed=seed,
                settings=settings,
                record={"data": _named(data), "samples": samples, "subset_seed": subset_seed, "centre": centre},
                store=store,
                chunk=chunk,
                batch=batch,
                progress=progress,
            )
    except KeyboardInterrupt:
        notes.print("Interrupted: complete chunks are kept, and the same command goes on from there.")
        raise typer.Exit(130) from None
    summary = study.summarise(result, problem, delta)
    sizes = f"N = {problem.num_samples}, n = {problem.num_inputs}, m = {problem.num_outputs}, rank {problem.rank}"
    title = f"{dataset.name}: {sizes}; {trials} trials a point"
    paths = plots.save(plots.theorem12(summary, title), out)
    if json_:
        print(json.dumps(_as_json(summary), indent=1))
        return
    _print_table(console, summary)
    console.print(f"largest imbalance drift {float(summary['max_drift']):.1e}")
    console.print(f"every trial: {store.path}   figure: {', '.join(str(path) for path in paths)}", soft_wrap=True)


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
    )
    for name in ("alpha", "width", "(33)", "(34)", "(35)", "median", "95% quantile", "sharp law", "bound"):
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
                hypothesis(bool(row["applies"])),
                str(int(row["failures"])),
            )
        table.add_section()
    console.print(table)
    for alpha in summary["alpha"].values:
        row = summary.sel(alpha=alpha)
        width = float(row["log10_theorem_width"].values.ravel()[0])
        needs = f"speaks from h = {_power(width)} on" if math.isfinite(width) else "never speaks at this exponent"
        console.print(
            f"alpha {alpha:g}: slope of log distance {float(row['slope']):.4f} [{float(row['slope_low']):.4f}, "
            f"{float(row['slope_high']):.4f}], sharp law {float(row['sharp_slope']):.4f}; the theorem {needs}"
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
