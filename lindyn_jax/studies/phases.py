"""Monte Carlo study of lazy and rich learning: scale, imbalance and width of Gaussian starts against a teacher of low rank.

A trial draws a teacher, noisy data of it and a start of any width in its smallest form, moves it by the gradient flow, and says
how far the tangent kernel has turned, how long learning took, and how near the teacher the path came.
"""

import math
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from .. import init, observables
from .._checks import check_choice, check_positive, check_tolerance
from ..problems import LeastSquares, factorization
from ..trajectory import STOPPED
from .study import Choices, Options, Shown, Study, Table

NUMBERS = {
    "kernel_distance": "kernel",
    "time": "time",
    "best_test_error": "best test",
    "best_time": "at time",
    "test_error": "test",
    "stable_rank": "stable rank",
}
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "scale": {"long_name": "scale of a neuron, (E|u|^2 E|v|^2)^{1/4}", "convention": "the teacher has norm 1"},
    "imbalance": {"long_name": "imbalance of a neuron, E|u|^2 - E|v|^2", "convention": "the teacher has norm 1"},
    "width": {"long_name": "hidden width h", "units": "1"},
    "kernel_distance": {"long_name": "1 - cosine of the tangent kernel at the stop to that at the start", "units": "1"},
    "time": {"long_name": "time until the training loss has fallen to the stop"},
    "test_error": {"long_name": "||Theta - teacher||_F^2/||teacher||_F^2 at the stop", "units": "1"},
    "best_test_error": {"long_name": "least test error on the way to the stop", "units": "1"},
    "best_time": {"long_name": "time of the least test error"},
    "stable_rank": {
        "long_name": "squared Frobenius over squared spectral norm of what the data see of Theta, a step's end past the stop"
    },
    "ok": {"long_name": "whether the stop was reached; other trials are masked"},
}


class Settings(NamedTuple):
    """How trials are run.

    **Fields:** `stop`, the excess training loss at which a trial ends, over that of Theta = 0; `points`, times at which the test
    error is looked at, evenly in the logarithm of time; `max_steps`, the budget of a trial; `rtol` and `solver` of the flow.
    """

    stop: Annotated[float, "Excess training loss at which a trial ends, over that of Theta = 0."] = 0.2
    points: Annotated[int, "Times at which the test error is looked at, log-spaced."] = 100
    max_steps: Annotated[int, "Step budget of a trial."] = 100_000
    rtol: Annotated[float, "Relative tolerance of the flow."] = 1e-6
    solver: Annotated[
        str,
        "Solver of the flow; kvaerno5 is implicit, for small networks.",
        Choices(("auto", "tsit5", "dopri8", "kvaerno5")),
    ] = "tsit5"


class Phases(Study):
    """Lazy and rich learning of two layers: how far the kernel turns, over scale, imbalance and width of the start.

    The teacher is a Gaussian matrix of some rank with norm 1. Without `samples` the targets are the teacher and noise, entry by
    entry; with them, its outputs and noise for so many standard normal inputs, under the mean loss. `noise` is its size over that
    of the teacher. Columns of U and V are Gaussian with `E|u|^2 E|v|^2 = scale^4` and `E|u|^2 - E|v|^2 = imbalance`, and cost the
    same at every width. As the width grows, starts of one level `c = h (E|u|^2/n + E|v|^2/m)/2` come to have one path of Theta:
    lazy where c is above the singular values of the teacher, about `1/rank^{1/2}`, and rich below.

    **Fields:** `shape`, inputs and outputs; `samples`; `rank` and `noise`; `scales`, `imbalances` and `widths`; `settings`.

    **Notes:** noise of the teacher's size is never to be learned to the end: a stop of .2 is beyond where both regimes are best.
    Diagrams of Tu, Aranguri and Jacot (2024) have targets of 200 x 200, rank 5, noise 1, `scales` 200^{g/2} for g from -2.2 to
    -.8 and widths 200^w for w from 1.75 to 2.8. That of Kunin et al. (2024) is one of ReLU networks; for linear ones its axes
    are `scales` from .1 to 2 and `imbalances` from -1 to 1 at width 50, with the other sign.

    Errors of the flow are relative to the weights, so that those of Theta grow with c: a loose `rtol` shows in lazy corners.

    **Source:** as above; the level is TAJ24's threshold.
    """

    shape: Annotated[tuple[float, ...], "Inputs and outputs."] = (20.0, 20.0)
    samples: Annotated[
        int | None, "Samples of standard normal inputs.", Shown("every entry of the teacher is seen")
    ] = None
    rank: Annotated[int, "Rank of the teacher."] = 2
    noise: Annotated[float, "Size of the noise in the targets over that of the teacher."] = 1.0
    scales: Annotated[tuple[float, ...], "LO:HI:COUNT (log-spaced) or a list: scale of a neuron."] = (0.003, 0.03, 0.3)
    imbalances: Annotated[
        tuple[float, ...], "Squared norm of a neuron's ingoing weights less that of its outgoing."
    ] = (0.0,)
    widths: Annotated[tuple[float, ...], "LO:HI:COUNT (log-spaced) or a list; 1 to 1e12."] = (100.0, 1e3, 1e4)
    settings: Settings = Settings()

    name, attributes = "phases", ATTRIBUTES
    options: ClassVar[Options] = {
        "trials": (16, "Teachers and starts at each point of the grid."),
        "keep_trials": (False, "Store every trial, and not only counts and moments."),
    }

    def grid(self):
        return {"imbalance": self.imbalances, "scale": self.scales, "width": self.widths}

    def check(self) -> None:
        """Refuses at once what cannot be studied.

        **Raises:** `ValueError` for a shape, a rank, a noise, scales, imbalances or widths that do not exist, or settings out of
        range.
        """
        if len(self.shape) != 2 or any(not (size >= 1 and size == round(size)) for size in self.shape):
            raise ValueError(f"The shape must be two whole numbers such as 20,20, but is {list(self.shape)}.")
        if not 1 <= self.rank <= min(self.shape):
            raise ValueError(
                f"The rank of a teacher of {self._words()} lies between 1 and {min(self.shape):g}, but is {self.rank}."
            )
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"The number of samples must be at least 1, but is {self.samples}.")
        if not (math.isfinite(self.noise) and self.noise >= 0):
            raise ValueError(f"The noise must be a finite number of at least 0, but is {self.noise:g}.")
        for values, word in ((self.scales, "scales"), (self.imbalances, "imbalances"), (self.widths, "widths")):
            if not values or len(set(values)) != len(values):
                raise ValueError(
                    f"The {word} must be different from each other, and one at least, but are {list(values)}."
                )
        for scale in self.scales:
            if not 1e-30 <= scale <= 1e30:
                raise ValueError(f"Scales must lie between 1e-30 and 1e30, but one is {scale:g}.")
        for imbalance in self.imbalances:
            if not abs(imbalance) <= 1e30:
                raise ValueError(f"Imbalances must lie between -1e30 and 1e30, but one is {imbalance:g}.")
        for width in self.widths:
            if not (1 <= width <= 1e12 and width == round(width)):
                raise ValueError(f"Widths must be whole numbers from 1 to 1e12, but one is {width:g}.")
        settings = self.settings
        check_choice(settings.solver, "solver", ("auto", "tsit5", "dopri8", "kvaerno5"))
        check_tolerance(settings.rtol, "rtol", jnp.result_type(float))
        check_positive(settings.stop, "stop")
        for value, word, least in ((settings.points, "points", 2), (settings.max_steps, "max_steps", 1)):
            if value < least:
                raise ValueError(f"The setting `{word}` must be at least {least}, but is {value}.")

    def level(self, imbalance, scale, width):
        """c, half of what the kernel of a wide start has on its diagonal."""
        n, m = self.shape
        u, v = _squares(imbalance, scale)
        return (u / n + v / m) / 2 * width

    def trial(self, key, imbalance, scale, width) -> dict[str, Array]:
        from ..flow import gradient_flow

        settings, (n, m) = self.settings, self.shape
        key_teacher, key_data, key_start, key_frame = jax.random.split(key, 4)
        teacher, problem = self._draw(key_teacher, key_data)
        # A width that is known has no columns beyond it.
        width = self.widths[0] if len(self.widths) == 1 else width
        u, v = _squares(imbalance, scale)
        start = init.gaussian_core(problem, width, std=(jnp.sqrt(u / n), jnp.sqrt(v / m)), key=key_start)
        test = observables.on(factorization(teacher), "loss", key=key_frame)

        def turn(model, problem):
            return observables.kernel_distance(model, problem, start)

        # What the wide limit takes for the teacher, and more than it takes for the noise.
        c, strength = self.level(imbalance, scale, width), self.rank**-0.5
        horizon = 30 * (jnp.arcsinh(strength / c) / strength + 1 / jnp.hypot(strength, c))
        goal = settings.stop * problem.excess_loss(jnp.zeros((problem.rank, int(m))))
        path = gradient_flow(
            start,
            problem,
            horizon * jnp.geomspace(1e-3, 1, settings.points),
            observables={"test_error": test, "excess": observables.excess_loss, "kernel_distance": turn},
            solver=settings.solver,
            rtol=settings.rtol,
            stop_loss=problem.loss_star + goal,
            max_steps=settings.max_steps,
        )
        stop = _at_stop(
            path, {"excess": observables.excess_loss(start, problem), "test_error": test(start, problem)}, goal
        )
        # The last step ends beyond the stop, by more the larger it is.
        errors = jnp.where(path.ts <= stop["time"], path.observables["test_error"], jnp.inf)
        best = jnp.argmin(errors)
        return {
            "kernel_distance": stop["kernel_distance"],
            "time": stop["time"],
            "test_error": 2 * stop["test_error"],
            "best_test_error": 2 * jnp.minimum(errors[best], stop["test_error"]),
            "best_time": jnp.where(errors[best] < stop["test_error"], path.ts[best], stop["time"]),
            "stable_rank": observables.stable_rank(path.final, problem),
            "ok": path.result == STOPPED,
        }

    def _draw(self, key_teacher, key_data) -> tuple[Array, LeastSquares]:
        """A teacher and its data."""
        n, m = map(int, self.shape)
        left, right = (
            jax.random.normal(key, (size, self.rank))
            for key, size in zip(jax.random.split(key_teacher), (n, m), strict=True)
        )
        teacher = left @ right.T
        teacher = teacher / jnp.linalg.norm(teacher)
        key_inputs, key_noise = jax.random.split(key_data)
        if self.samples is None:
            return teacher, factorization(
                teacher + self.noise * jax.random.normal(key_noise, (n, m)) / math.sqrt(n * m)
            )
        X = jax.random.normal(key_inputs, (self.samples, n))
        Y = X @ teacher + self.noise * jax.random.normal(key_noise, (self.samples, m)) / math.sqrt(m)
        return teacher, LeastSquares(X, Y, scale="mean", rank=min(self.samples, n))

    def summarise(self, dataset):
        """`Study.summarise`, with the `level` c of every point, and the teacher's root mean square singular value."""
        summary = super().summarise(dataset)
        return summary.assign(level=self.level(summary["imbalance"], summary["scale"], summary["width"])).assign_attrs(
            {"strength": self.rank**-0.5, "stop": self.settings.stop}
        )

    def table(self, summary) -> list[Table | str]:
        stacked = summary.stack(point=tuple(self.grid())).transpose("point", ...)
        count, rows = stacked.sizes["point"], []
        ends = [{values[0], values[-1]} for values in self.grid().values()]
        for index in range(count):
            row = stacked.isel(point=index)
            place = [float(row[name]) for name in self.grid()]
            if count <= 48 or all(value in pair for value, pair in zip(place, ends, strict=True)):
                numbers = [
                    mean_and_half(*(float(row[f"{name}_mean{end}"]) for end in ("", "_high"))) for name in NUMBERS
                ]
                failed = int(row["trials"]) - round(float(row["ok"]) * int(row["trials"]))
                rows.append([*(f"{value:.4g}" for value in place), f"{float(row['level']):.3g}", *numbers, str(failed)])
        title = (
            "Lazy and rich: means +- half their 95% intervals of the turn of the tangent kernel, time to learn, least test "
            f"error and its time, test error at the stop and stable rank; c: level, lazy above {self.rank**-0.5:.3g}"
        )
        parts: list[Table | str] = [Table(title, (*self.grid(), "c", *NUMBERS.values(), "failed"), rows, named=3)]
        if len(rows) < count:
            parts.append(f"The corners of {count} points; all are in the figure and in --json.")
        return parts

    def draw(self, dataset, summary, title: str):
        from .. import plots

        return plots.phases(summary, title)

    def notes(self, trials: int, source: str, description: str) -> list[tuple[str, str]]:
        return [("data", self._words()), *super().notes(trials, source, description)]

    def title(self, source: str, done: int) -> str:
        return f"Lazy and rich: {self._words()}; {done} trials a point"

    def _words(self) -> str:
        n, m = self.shape
        seen = "" if self.samples is None else f", {self.samples} samples"
        return f"teachers of {n:g} x {m:g} and rank {self.rank}, noise {self.noise:g}{seen}"


def _squares(imbalance, scale):
    """Squared norms u and v of a neuron's weights, `u v = scale^4`, `u - v = imbalance`, without cancellation."""
    size = abs(imbalance)
    large = (size + (size**2 + 4 * scale**4) ** 0.5) / 2
    small = scale**4 / large
    positive = imbalance >= 0
    return positive * large + (1 - positive) * small, positive * small + (1 - positive) * large


def _at_stop(path, first: dict[str, Array], goal) -> dict[str, Array]:
    """Time and observables where the excess loss comes down to the goal, in between what was observed before and after.

    In between, all are taken for linear in the logarithm of the excess loss; `first` has what is not zero at time 0.
    """
    # What was not observed any more is infinite, and the end of the last step takes its place.
    seen = jnp.isfinite(path.observables["excess"])
    paths = {"time": (path.ts, path.stats["final_time"])}
    paths |= {name: (values, path.final_observables[name]) for name, values in path.observables.items()}
    curves = {
        name: jnp.concatenate([first.get(name, jnp.zeros(()))[None], jnp.where(seen, values, end)])
        for name, (values, end) in paths.items()
    }
    after = jnp.maximum(jnp.argmax(curves["excess"] <= goal), 1)
    log = jnp.log(curves["excess"] / goal)
    fall = log[after - 1] - log[after]
    share = jnp.clip(jnp.where(fall > 0, log[after - 1] / jnp.where(fall > 0, fall, 1), 0), 0, 1)
    return {name: curve[after - 1] + share * (curve[after] - curve[after - 1]) for name, curve in curves.items()}


def mean_and_half(mean: float, high: float) -> str:
    """A mean with half of its interval, alone where one trial says nothing of its spread."""
    return f"{mean:.3g}" + (f" +- {high - mean:.1g}" if math.isfinite(high) else "")
