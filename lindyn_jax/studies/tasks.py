"""Tasks one after another: what learning one does to the losses of the others, as a labelled dataset."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import jax
import numpy as np

from .. import init
from .._checks import check_choice, check_positive
from ..ensemble import describe_environment
from ..problems import LeastSquares
from ..trajectory import RESULTS
from ._record import of_problem, of_start
from ._starts import as_start
from .simulate import DYNAMICS, SOLVER, SOLVERS, STEP, _default_horizon, _draw, _stable_step, check_size, no_time_scale
from .study import Choices, Options, Settled, Table

CHANGES = ("fresh", "reversed", "permuted")


class Tasks(Settled):
    """Tasks one after another on the same inputs: the loss of each along the way, forgetting and transfer.

    **Fields:** `problem`, the first task; `start`, drawn at any width; `tasks`, how many; `change`, what further ones have for
    targets: `"fresh"`, independent normal entries of the size of the first, `"reversed"`, minus those of the task before,
    `"permuted"`, their columns in another order; `duration`, of each, by default `default_horizon` of the start; `tasks_seed`,
    of their targets; `dynamics`, `step_size`, `points` of each task, `solver`, `rtol` as in `simulate`.

    **Source:** Braun et al. (2022).

    Example:

        >>> problem = ld.factorization(jnp.diag(jnp.array([2.0, 1.0])))
        >>> start = ld.init.Gaussian(1000, alpha=0.5)
        >>> study = ld.studies.Tasks(problem, start, tasks=2, change="reversed", duration=3.0, points=2)
        >>> print(np.round(study.run().attrs["losses"], 4))
        [[2.4919 2.5144]
         [0.     9.9993]
         [9.9984 0.    ]]
    """

    problem: LeastSquares
    start: init.AbstractStart
    tasks: Annotated[int, "How many tasks."] = 3
    change: Annotated[
        str,
        "Targets of the further tasks: fresh (random), reversed (the sign), permuted (the columns).",
        Choices(("fresh", "reversed", "permuted")),
    ] = "fresh"
    duration: Annotated[float | None, "How long each task lasts; by default until the first is nearly learned."] = None
    tasks_seed: Annotated[int, "Seed of the targets of the further tasks."] = 0
    dynamics: Annotated[str, "Continuous or in steps.", DYNAMICS] = "flow"
    step_size: Annotated[float | str, STEP] = "stable"
    points: Annotated[int, "How many times to observe in each task."] = 50
    solver: Annotated[str, SOLVER, SOLVERS] = "auto"
    rtol: Annotated[float | None, "Relative tolerance of the flow, by default 1e-9."] = None

    name = "sequence"
    options: ClassVar[Options] = {
        "seed": (0, "Seed of the start."),
        "data": ("factorization", None),
        "out": (Path("sequence"), "Folder for trajectory.csv, trajectory.zarr and the figure."),
    }

    def check(self) -> None:
        check_choice(self.dynamics, "dynamics", ("flow", "descent"))
        check_choice(self.change, "change", CHANGES)
        if self.tasks < 1:
            raise ValueError(f"Argument `tasks` must be at least 1, but is {self.tasks}.")
        if self.points < 2:
            raise ValueError(f"Argument `points` must be at least 2, but is {self.points}.")
        if self.duration is not None:
            check_positive(self.duration, "duration")
        if self.problem.link is not None:
            raise ValueError("The study is for problems without a link function.")
        check_size(self.problem)
        as_start(self.start).check(self.problem)

    def label(self) -> str:
        """The start in words."""
        return as_start(self.start).label()

    def problems(self) -> list[LeastSquares]:
        """The tasks."""
        first, draws = self.problem, np.random.default_rng(self.tasks_seed)
        Y = np.asarray(first.Y)

        def targets(before: np.ndarray) -> np.ndarray:
            if self.change == "reversed":
                return -before
            if self.change == "permuted":
                return before[:, draws.permutation(Y.shape[1])]
            return (np.sqrt(np.mean(Y**2)) * draws.normal(size=Y.shape)).astype(Y.dtype)

        tasks = [first]
        for _ in range(self.tasks - 1):
            options = {"scale": first.scale, "output_scale": first.output_scale, "rank": first.rank}
            tasks.append(LeastSquares(first.X, targets(np.asarray(tasks[-1].Y)), **options))
        return tasks

    def run(self, *, seed: int = 0, record: Mapping[str, Any] | None = None):
        """Goes through the tasks.

        **Args:** `seed`, of the start; `record`, further attributes.

        **Returns:** an `xarray.Dataset` over `time` with `task_losses`, the loss of every task; attributes `losses` (a row at the
        start and after each task), `forgetting`, `transfer`, as those of `Passage`, `result`, `ok` and the settings.

        **Raises:** `ValueError` as `check` and `TaskSequence` do.
        """
        import xarray as xr

        from ..tasks import sequence

        self.check()
        start = as_start(self.start)
        model, problems = _draw(self.problem, start, key=jax.random.key(seed)), self.problems()
        duration = self.duration
        if duration is None:
            duration = float(_default_horizon(model, self.problem))
            if not math.isfinite(duration):
                raise ValueError(no_time_scale(self.problem).replace("`horizon`", "`duration`"))
        tasks, step, points = sequence([(problem, duration) for problem in problems]), None, self.points
        if self.dynamics == "flow":
            passage = tasks.flow(model, points=self.points, solver=self.solver, rtol=self.rtol)
        else:
            steps = [float(_stable_step(model, problem)) for problem in problems]
            step = min(steps) if self.step_size == "stable" else float(self.step_size)
            points = min(points, max(round(duration / step), 1) + 1)
            passage = tasks.descent(model, step_size=step, points=points, differentiate="forward")
        # A task begins where the one before ended.
        kept = np.concatenate([np.arange(points) > (0 if i else -1) for i in range(self.tasks)])
        times, curves = np.asarray(passage.ts).ravel()[kept], np.asarray(passage.curves).reshape(-1, self.tasks)[kept]
        facts = {"long_name": "loss of every task", "symbol": "$L_i$", "units": "1", "scale": "log", "panel": "loss"}
        dataset = xr.Dataset(
            {"task_losses": (("time", "task_losses_index"), curves, facts)},
            coords={"time": ("time", times, {"long_name": "time of the flow", "units": "1"})},
        )
        result, ended = int(passage.result), np.asarray(passage.losses)
        dataset.attrs = {
            "start": self.label(),
            "dynamics": self.dynamics,
            "result": RESULTS[result],
            "ok": int(bool(passage.ok)),
            "duration": float(duration),
            "losses": ended.tolist(),
            "forgetting": np.asarray(passage.forgetting).tolist(),
            "transfer": np.asarray(passage.transfer).tolist(),
            **(record or {}),
            "seed": seed,
            **of_problem(self.problem),
            **({} if step is None else {"step_size": step}),
            "settings": {
                "start": of_start(start, self.problem),
                "tasks": self.tasks,
                "change": self.change,
                "tasks_seed": self.tasks_seed,
                "points": self.points,
                "solver": self.solver if self.dynamics == "flow" else None,
                "rtol": None if self.rtol is None else float(self.rtol),
            },
            "environment": describe_environment(),
        }
        return dataset

    def table(self, summary) -> list[Table | str]:
        known = summary.attrs
        tasks = range(1, len(known["transfer"]) + 1)
        rows = [
            [f"after {i}" if i else "start", *(f"{x:.5g}" for x in losses)] for i, losses in enumerate(known["losses"])
        ]
        forgot = [["", *(f"{x:.5g}" for x in row)] for row in known["forgetting"]]
        for i, row in zip(tasks, forgot, strict=True):
            row[0] = f"forgotten by {i}"
        transfer = ["transfer", *(f"{x:.5g}" for x in known["transfer"])]
        title = f"losses of {len(tasks)} tasks of {known['duration']:.4g} each; {known['start']}; {known['dynamics']}"
        columns = ("", *(f"task {i}" for i in tasks))
        return [
            Table(title, columns, [*rows, None, *forgot, None, transfer], words=("",), tight=False),
            known["result"],
        ]

    def draw(self, dataset, summary, title: str):
        from .. import plots

        times, losses = dataset["time"].values, dataset["task_losses"].values
        with plots.house.panels(1, 1, (5.2, 3.2), title) as (figure, axes):
            for i in range(losses.shape[1]):
                positive = np.where(losses[:, i] > 0, losses[:, i], np.nan)
                axes[0].plot(
                    times, positive, color=plots.house.COLOURS[i % len(plots.house.COLOURS)], label=f"task {i + 1}"
                )
            for i in range(1, losses.shape[1]):
                axes[0].axvline(i * dataset.attrs["duration"], color="0.7", lw=0.8, zorder=0)
            axes[0].set(xlabel="time", ylabel="loss", yscale="log")
            axes[0].legend()
        return figure
