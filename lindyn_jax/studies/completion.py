"""Monte Carlo study of matrix completion: what networks of some depth, from starts of some scale, make of the entries not seen.

A trial draws a matrix of low rank (or takes the user's), chooses which entries are observed, moves a small random start until
these are met, and compares the rest, the nuclear norm and the effective rank with those of the convex minimum.
"""

import math
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import observables, theory
from .._checks import as_matrix, check_choice, check_positive, check_tolerance
from ..data import load_matrix
from ..problems import MatrixCompletion
from ..statistics import AbstractReduction, Count, Histogram, Moments
from ..trajectory import DIVERGED, RESULTS, STEP_LIMIT, STOPPED
from ._completing import WIDE, draw_mask, draw_start, stable_step
from ._record import fingerprint
from .study import Choices, Options, Shown, Study, Table

# The gap of the convex minimum, and a time that no trial needs.
DEEPEST, CONVEX_RTOL, HORIZON = 10, 1e-4, 1e15

EVENTS = ("is_near_minimum", "is_recovered", "beats_convex")
NUMBERS = (
    "test_error",
    "train_error",
    "convex_test_error",
    "effective_rank",
    "nuclear_norm",
    "nuclear_ratio",
    "num_steps",
)
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "depth": {"long_name": "number of layers", "convention": "0 is the limit of infinite width of two layers"},
    "fraction": {"long_name": "share of the known entries that are observed", "units": "1"},
    "scale": {
        "long_name": "root mean square of the entries of each layer of the start",
        "convention": "the entries of the matrix have root mean square 1",
    },
    "width": {"long_name": "hidden width h", "units": "1"},
    "test_error": {
        "long_name": "||Theta - Y||_F/||Y||_F over the entries that are known and not observed",
        "units": "1",
    },
    "train_error": {"long_name": "||Theta - Y||_F/||Y||_F over the observed entries", "units": "1"},
    "convex_test_error": {"long_name": "test error of the completion with the least nuclear norm", "units": "1"},
    "effective_rank": {
        "long_name": "exponential of the entropy of Theta's normalised singular values",
        "source": "Roy and Vetterli (2007)",
    },
    "nuclear_norm": {"long_name": "sum of the singular values of Theta"},
    "convex_minimum": {"long_name": "least nuclear norm of all matrices with the observed entries"},
    "convex_gap": {"long_name": "what the dual leaves open of it, relative", "units": "1"},
    "nuclear_ratio": {
        "long_name": "nuclear norm over the least one",
        "units": "1",
        "convention": "below 1 only by the training error that the stop leaves",
    },
    "is_near_minimum": {"long_name": "whether the nuclear norm is within 1% of the least one, between its bounds"},
    "is_recovered": {"long_name": "whether the test error is below the level asked for"},
    "beats_convex": {"long_name": "whether the test error is below that of the least nuclear norm"},
    "covered": {"long_name": "whether a mask was drawn that sees every row and column"},
    "time": {"long_name": "time (flow) or steps (descent) until the stop"},
    "num_steps": {"long_name": "steps of the solver", "units": "1"},
    "result": {"long_name": "how the run ended", "codes": {str(code): text for code, text in RESULTS.items()}},
    "ok": {
        "long_name": "whether all is seen, the stop was reached and the convex minimum found; other trials are masked"
    },
}


class Settings(NamedTuple):
    """How trials are run.

    **Fields:** `stop`, the training error at which a trial ends; `recovered`, the test error below which a trial counts as
    recovered; `dynamics`; `step_size` of descent, `None` for half of what is stable at the solution; `max_steps`, the budget
    of a trial, `None` for 1e5 of the flow and 1e6 of descent; `rtol` and `solver` of the flow.
    """

    stop: Annotated[float, "Relative error on the observed entries at which a trial ends."] = 1e-3
    recovered: Annotated[float, "Relative error on the hidden entries below which a matrix counts as recovered."] = 0.01
    dynamics: Annotated[Literal["flow", "descent"], "Continuous or in steps."] = "flow"
    step_size: Annotated[float | None, "Step of descent.", Shown("half of what is stable at the solution")] = None
    max_steps: Annotated[int | None, "Step budget of a trial.", Shown("1e5, descent 1e6")] = None
    rtol: Annotated[float, "Relative tolerance of the flow."] = 1e-6
    solver: Annotated[
        str,
        "Solver of the flow; kvaerno5 is implicit, for small networks.",
        Choices(("auto", "tsit5", "dopri8", "kvaerno5")),
    ] = "tsit5"

    @property
    def budget(self) -> int:
        """The most steps that a trial may take."""
        return (100_000 if self.dynamics == "flow" else 1_000_000) if self.max_steps is None else self.max_steps


class Completion(Study):
    """Matrix completion by depth and scale of the start: hidden entries, effective rank, and the least nuclear norm.

    **Fields:** `target`, a matrix to complete, NaN where an entry is not known, or `data`, the name of one for `load_matrix`,
    with `samples` and `subset_seed`; without either a trial draws one of its own of `shape` and `rank`, `A B^T` with entries
    N(0, 1) of A and B. `depths`, the numbers of layers or `"wide-limit"`; `fractions`, the shares of the known entries that
    are observed, chosen by each trial; `scales`, the root mean square of the entries of each layer; `widths`; `settings`.

    **Notes:** the matrix is divided by the root mean square of its known entries. Of three and more layers the middle ones are
    orthogonal matrices times `scale sqrt(h)`, so that the width costs nothing. A mask is drawn of all with its number of entries
    that see every row and column; where a thousand draws find none the trial has failed.
    """

    data: Annotated[
        str | None,
        "A matrix with missing entries: csv with empty cells, npz with NaN, or digits, images with a column for each pixel.",
        Shown("random matrices of --shape and --rank"),
    ] = None
    samples: Annotated[int | None, "Keep this many rows of --data, chosen by --subset-seed.", Shown("all")] = None
    subset_seed: Annotated[int, "Seed of the choice of rows."] = 0
    shape: Annotated[tuple[float, ...], "Rows and columns of random matrices."] = (20.0, 20.0)
    rank: Annotated[int, "Rank of random matrices."] = 2
    depths: Annotated[tuple[str, ...] | None, "Numbers of layers, from 1, or wide-limit.", Shown("2,3")] = None
    fractions: Annotated[tuple[float, ...], "Shares of the known entries that are observed."] = (0.3, 0.5, 0.7)
    scales: Annotated[tuple[float, ...], "Root mean square of the entries of each layer of the start."] = (1e-3,)
    widths: Annotated[tuple[float, ...], "LO:HI:COUNT (log-spaced) or a list; 1 to 1e12."] = (100.0,)
    settings: Settings = Settings()
    target: np.ndarray | None = None

    name, attributes = "completion", ATTRIBUTES
    options: ClassVar[Options] = {"trials": (20, "Masks and starts at each point of the grid.")}

    def __post_init__(self):
        self.depths = ("2", "3") if self.depths is None else tuple(str(depth) for depth in self.depths)
        self._described = "random matrices"
        if self.data is not None:
            if self.target is not None:
                raise ValueError("Give only one of `data` and `target`: a matrix by name, or the matrix itself.")
            matrix = load_matrix(self.data, samples=self.samples, subset_seed=self.subset_seed)
            self.target, self._described = matrix.values, matrix.description
        elif self.samples is not None:
            raise ValueError("Rows are chosen of a matrix that is given: leave out --samples, or give --data.")
        if self.target is not None:
            self.target = np.array(as_matrix(self.target, "target", "(n, m)"), float)
            # The whole matrix as it is must be one that can be learned.
            MatrixCompletion(self.target)
            size = np.sqrt(np.nanmean(self.target**2))
            if not size > 0:
                raise ValueError("Argument `target` is zero: there is nothing to learn from it.")
            self.target = self.target / size

    def _sizes(self) -> tuple[int, int]:
        shape = self.shape if self.target is None else self.target.shape
        if len(shape) != 2 or any(not (size >= 1 and size == round(size)) for size in shape):
            raise ValueError(f"The shape must be two whole numbers such as 20,20, but is {list(shape)}.")
        return int(shape[0]), int(shape[1])

    def _codes(self) -> tuple[float, ...]:
        """The depths as numbers."""
        known = {"wide-limit": WIDE, **{str(depth): depth for depth in range(1, DEEPEST + 1)}}
        for depth in self.depths or ():
            if depth not in known:
                raise ValueError(
                    f"Depths must be whole numbers from 1 to {DEEPEST} or wide-limit, but one is {depth!r}."
                )
        return tuple(float(known[depth]) for depth in self.depths or ())

    def _known(self) -> int:
        return math.prod(self._sizes()) if self.target is None else int(np.sum(~np.isnan(self.target)))

    def grid(self):
        return {"depth": self._codes(), "fraction": self.fractions, "scale": self.scales, "width": self.widths}

    def check(self) -> None:
        """Refuses at once what cannot be studied.

        **Raises:** `ValueError` for depths, widths, scales, a shape or a rank that do not exist, fractions that leave nothing
        hidden or cannot see every row and column, and settings out of range.
        """
        (n, m), settings = self._sizes(), self.settings
        for values, name in ((self._codes(), "depths"), (self.fractions, "fractions"), (self.scales, "scales")):
            if not values or len(set(values)) != len(values):
                raise ValueError(
                    f"The {name} must be different from each other, and one at least, but are {list(values)}."
                )
        if self.target is None and not 1 <= self.rank <= min(n, m):
            raise ValueError(f"The rank of a matrix of {n} x {m} lies between 1 and {min(n, m)}, but is {self.rank}.")
        for fraction in self.fractions:
            if not 0 < fraction < 1 or not max(n, m) <= self._count(fraction) < self._known():
                least = max(n, m) / self._known()
                raise ValueError(
                    f"A share of {fraction:g} of {self._known()} known entries does not hide some and see each of the {n} rows "
                    f"and {m} columns, which could not be learned: take one from {least:.2g} to 1."
                )
        for scale in self.scales:
            check_positive(scale, "scales")
            if scale < 1e-30:
                raise ValueError(f"Starts of scale {scale:g} are the saddle at zero, which gradients never leave.")
        for width in self.widths:
            if not (1 <= width <= 1e12 and width == round(width)):
                raise ValueError(f"Widths must be whole numbers from 1 to 1e12, but one is {width:g}.")
        check_choice(settings.dynamics, "dynamics", ("flow", "descent"))
        check_choice(settings.solver, "solver", ("auto", "tsit5", "dopri8", "kvaerno5"))
        check_tolerance(settings.rtol, "rtol", jnp.result_type(float))
        for value, name in ((settings.stop, "stop"), (settings.recovered, "recovered")):
            if not 0 < value < 1:
                raise ValueError(f"The setting `{name}` is a relative error and must lie in (0, 1), but is {value:g}.")
        if settings.step_size is not None:
            check_positive(settings.step_size, "step_size")

    def _count(self, fraction: float) -> int:
        return round(fraction * self._known())

    def trial(self, key, depth, fraction, scale, width) -> dict[str, Array]:
        key_target, key_mask, key_start = jax.random.split(key, 3)
        truth = self._truth(key_target)
        mask, covered = draw_mask(key_mask, ~jnp.isnan(truth), fraction)
        problem = MatrixCompletion(jnp.where(jnp.isnan(truth), 0, truth), mask)
        # A width that is known has no columns beyond it.
        width = self.widths[0] if len(self.widths) == 1 else width
        ways = [partial(self._moved, problem, truth, key_start, int(code)) for code in self._codes()]
        chosen = jnp.argmax(jnp.asarray(self._codes()) == depth)
        moved = ways[0](scale, width) if len(ways) == 1 else jax.lax.switch(chosen, ways, scale, width)
        convex = theory.min_nuclear_norm(problem, rtol=CONVEX_RTOL)
        convex_error = problem.test_error(convex.Theta, truth)
        return {
            **moved,
            "convex_test_error": convex_error,
            "convex_minimum": convex.value,
            "convex_gap": convex.gap,
            "nuclear_ratio": moved["nuclear_norm"] / convex.value,
            "is_near_minimum": (moved["nuclear_norm"] <= 1.01 * convex.lower)
            & (moved["nuclear_norm"] >= 0.99 * convex.value),
            "is_recovered": moved["test_error"] < self.settings.recovered,
            "beats_convex": moved["test_error"] < convex_error,
            "covered": covered,
            "ok": covered & (moved["result"] == STOPPED) & convex.applies,
        }

    def _truth(self, key) -> Float[Array, "n m"]:
        if self.target is not None:
            return jnp.asarray(self.target, float)
        left, right = (
            jax.random.normal(one, (size, self.rank))
            for one, size in zip(jax.random.split(key), self._sizes(), strict=True)
        )
        Y = left @ right.T
        return Y / jnp.sqrt(jnp.mean(Y**2))

    def _moved(self, problem: MatrixCompletion, truth, key, depth: int, scale, width) -> dict[str, Array]:
        """Where a network ends, in the numbers that all depths have."""
        from ..descent import gradient_descent, plain_descent
        from ..flow import gradient_flow

        settings, start = self.settings, draw_start(problem, depth, scale, width, key)
        size = jnp.sqrt(jnp.sum(problem.Y**2 * problem.mask))
        stop_loss = (settings.stop * size) ** 2 / 2
        if settings.dynamics == "flow":
            trajectory = gradient_flow(
                start,
                problem,
                jnp.asarray([HORIZON]),
                observables=(),
                solver=settings.solver,
                rtol=settings.rtol,
                stop_loss=stop_loss,
                max_steps=settings.budget,
            )
        else:
            step = stable_step(problem, depth, scale, width) if settings.step_size is None else settings.step_size
            trajectory = gradient_descent(
                start,
                problem,
                settings.budget,
                optimizer=plain_descent(step),
                observables=(),
                stop_loss=stop_loss,
                differentiate="forward",
            )
        end, result = trajectory.final, trajectory.result
        if settings.dynamics == "descent":
            result = jnp.where((result != STOPPED) & (result != DIVERGED), STEP_LIMIT, result)
        Theta = end.product()
        return {
            "test_error": problem.test_error(Theta, truth),
            "train_error": jnp.sqrt(2 * problem.loss(Theta)) / size,
            "effective_rank": observables.effective_rank(end, problem),
            "nuclear_norm": observables.nuclear_norm(end, problem),
            "time": trajectory.stats["final_time"],
            "num_steps": trajectory.stats["num_steps"],
            "result": result,
        }

    def reductions(self) -> dict[str, AbstractReduction]:
        """Counts of the events, of failed trials as none, and moments and quantile sketches of the numbers, 1% a bin."""
        kept: dict[str, AbstractReduction] = {
            name: Count(lambda outputs, name=name: outputs[name] & outputs["ok"]) for name in EVENTS
        }
        kept |= {"covered": Count("covered"), "successes": Count("ok")}
        for name in NUMBERS:
            kept[f"{name}_moments"] = Moments(name)
            kept[f"{name}_histogram"] = Histogram(name, low=1e-8, high=1e8, bins=3684)
        return kept

    def precise(self) -> list[str]:
        return list(EVENTS)

    def recorded(self) -> dict[str, Any]:
        known = {"target_sha256": None if self.target is None else fingerprint([self.target])}
        drawn = {"shape": list(self._sizes()), "rank": self.rank if self.target is None else None}
        return {"data_dtype": str(jnp.dtype(jnp.result_type(float))), **known, **drawn, **self.settings._asdict()}

    def summarise(self, dataset):
        summary = super().summarise(dataset)
        names = ["wide-limit" if code == WIDE else f"{code:g}" for code in summary["depth"].values]
        return summary.assign_attrs({"depths": names, "recovered": self.settings.recovered, "stop": self.settings.stop})

    def table(self, summary) -> list[Table | str]:
        rows, dims = [], tuple(self.grid())
        for place in np.ndindex(*(summary.sizes[name] for name in dims)):
            row = summary.isel(dict(zip(dims, place, strict=True)))
            events = [
                f"{float(row[e]):.3f} [{float(row[f'{e}_low']):.2f}, {float(row[f'{e}_high']):.2f}]" for e in EVENTS
            ]
            numbers = ("test_error", "convex_test_error", "train_error", "effective_rank", "nuclear_ratio")
            rows.append(
                [
                    summary.attrs["depths"][place[0]],
                    *(f"{float(row[name]):.4g}" for name in dims[1:]),
                    *(f"{float(row[f'{name}_median']):.3g}" for name in numbers),
                    *events,
                    str(int(row["trials"]) - round(float(row["successes"]) * int(row["trials"]))),
                ]
            )
        title = (
            "Completion: medians (to about 1%) of the error on hidden entries, also of the least nuclear norm, of that on "
            "observed ones, the effective rank, and the nuclear norm over the least one; how often [exact 95%] it is within 1% "
            "of it, and the error on hidden entries is small, or below the convex one"
        )
        columns = ("depth", "observed", "scale", "width", "test", "convex", "train", "eff. rank", "ratio")
        columns = (*columns, "within 1%", f"test < {summary.attrs['recovered']:g}", "beats convex", "failed")
        unseen = round(float(((1 - summary["covered"]) * summary["trials"]).sum()))
        parts: list[Table | str] = [Table(title, columns, rows, ("depth",), named=4)]
        if unseen:
            parts.append(
                f"{unseen} trials found no mask that sees every row and column: observe more, or leave some out"
            )
        return parts

    def draw(self, dataset, summary, title: str):
        from .. import plots

        return plots.completion(summary, title)

    def notes(self, trials: int, source: str, description: str) -> list[tuple[str, str]]:
        n, m = self._sizes()
        drawn = f"{self._described} of {n} x {m} and rank {self.rank}" if self.target is None else self._described
        return [("data", drawn), *super().notes(trials, source, description)]

    def title(self, source: str, done: int) -> str:
        n, m = self._sizes()
        what = f"rank {self.rank}" if self.target is None else f"{self._known()} entries known"
        return f"Completion of {n} x {m}, {what}; {done} trials a point"

    def held(self, trials: int, keep_trials: bool) -> tuple[int | float, str, str] | None:
        points = math.prod(map(len, self.grid().values()))
        what = f"{trials} kept trials at {points} points"
        return (3 * 17 * points * trials, what, "leave out --keep-trials") if keep_trials else None
