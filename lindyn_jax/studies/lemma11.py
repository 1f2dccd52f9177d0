"""Monte Carlo study of M22's Lemma 11: how often its three events hold for Gaussian starts, and from which width on.

A trial draws the reduced form of a start and looks whether (33), (34) and (35) hold. Neither the width nor the number of
inputs is a size of anything that is computed: a million inputs and a width of 1e9 cost what small ones do. The lemma is about
starts, whose imbalance the flow keeps; asked for steps of descent, a trial takes these and looks what is left of it.
"""

from typing import Annotated, Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import init, observables, theory
from .._checks import check_count
from .._public import public
from .._text import counted, on_one_line
from ..problems import LeastSquares
from ..statistics import AbstractReduction, Count, Histogram, Moments
from ..trajectory import FINISHED
from . import _descending
from ._grid import check_grid, floats
from ._record import of_problem
from .study import Options, Shown, Study, Table

EVENTS = ("level_is_large", "coupling_is_small", "product_is_small", "all_hold")
SHARP_EVENTS = ("coupling_is_small_ds", "product_is_small_ds")
RATIOS = ("level_ratio", "coupling_ratio", "product_ratio")
# After steps of descent.
LEFT = {"imbalance_lost": "D lost", "level_left": "level left", "distance_over_law": "dist/law"}

ATTRIBUTES: dict[str, dict[str, Any]] = {
    "alpha": {"long_name": "exponent of the start", "convention": "entries are N(0, h^(-2 alpha))"},
    "width": {"long_name": "hidden width h", "units": "1"},
    "level_is_large": {"long_name": "event (33) of Lemma 11: Delta > h^(1 - 2 alpha)"},
    "coupling_is_small": {"long_name": "event (34) of Lemma 11, with the printed constant"},
    "product_is_small": {"long_name": "event (35) of Lemma 11, with the printed constant"},
    "all_hold": {"long_name": "events (33), (34) and (35) together, with the printed constant"},
    "coupling_is_small_ds": {"long_name": "event (34) with the constant of Davidson and Szarek"},
    "product_is_small_ds": {"long_name": "event (35) with the constant of Davidson and Szarek"},
    "level_ratio": {"long_name": "Delta/h^(1 - 2 alpha)", "units": "1", "convention": "(33) holds above 1; tends to 2"},
    "coupling_ratio": {"long_name": "||[V U2^T; U1 U2^T]||_F over its bound (34)", "units": "1"},
    "product_ratio": {"long_name": "||U1 V^T||_F over its bound (35)", "units": "1"},
    "exponents_disagree": {"long_name": "trials in which an event holds at one exponent and fails at another"},
    "level_stays": {"long_name": "event (33) of Lemma 11 after the steps: Delta > h^(1 - 2 alpha)"},
    **_descending.ATTRIBUTES,
    "level_left": {"long_name": "Delta/h^(1 - 2 alpha) after the steps", "units": "1"},
    "distance_over_law": {
        "long_name": "||U2 V^T||_F after the steps over the sharp law of the flow",
        "units": "1",
        "convention": "not there where the data see all inputs",
    },
    "ok": {"long_name": "whether all numbers of the trial are finite, and the steps did not diverge"},
}


class Settings(NamedTuple):
    """What is asked.

    **Fields:** `delta`, the failure probability of the lemma; `steps` of descent, after which the imbalance that is left is
    measured; `step_size`, `None` for half of what is stable; `batch_size`, `label_noise`, `momentum` and `weight_decay` of
    descent.
    """

    delta: Annotated[float, "Failure probability of Lemma 11."] = 0.1
    steps: Annotated[
        int, "Steps of descent from each start, after which the imbalance left is measured; needs data."
    ] = 0
    step_size: _descending.StepSize = None
    batch_size: _descending.BatchSize = None
    label_noise: _descending.LabelStd = 0.0
    momentum: _descending.Momentum = 0.0
    weight_decay: _descending.Decay = 0.0


@public
def sizes(n: int, r: int, m: int) -> LeastSquares:
    """A problem of which only the sizes are known: n inputs, data of rank r, m outputs.

    Its arrays are shapes without contents, so nothing of size n is held. It serves everything that asks a problem for its
    sizes only, such as `run`, `theory.lemma11` and `init.gaussian_core`.

    **Raises:** `ValueError` unless 1 <= r <= n and m >= 1.
    """
    for value, name in ((n, "n"), (r, "r"), (m, "m")):
        check_count(value, name)
    if r > n:
        raise ValueError(f"The rank of the data is at most the number of inputs, but r = {r} and n = {n}.")
    dtype = jnp.result_type(float)
    X, Y = jax.ShapeDtypeStruct((r, n), dtype), jax.ShapeDtypeStruct((r, m), dtype)
    shapes = jax.eval_shape(lambda X, Y: LeastSquares(X, Y, rank=r), X, Y)
    # Coordinates that are not known are no one's.
    return eqx.tree_at(lambda problem: problem.inputs_mark, shapes, None)


def default_widths(problem: LeastSquares, delta: float = 0.1, count: int = 12) -> list[float]:
    """Log-spaced whole widths from r + m to ten times the width h0 of the printed lemma."""
    first = problem.rank + problem.num_outputs
    last = 10 * float(theory.lemma11(problem, first, 0.5, delta).h0)
    return sorted({float(round(width)) for width in np.geomspace(first, last, count)})


class Lemma11(Study):
    """How often the events of M22's Lemma 11 hold for Gaussian starts, at any width and any number of inputs.

    **Fields:** `problem`, of which only the sizes matter (`sizes` makes one of sizes alone); `widths`, by default from r + m to
    ten times the lemma's; `alphas`, the exponents; `settings`. An exponent or width outside the hypotheses is studied, and
    reported as such.
    """

    problem: LeastSquares
    widths: Annotated[
        tuple[float, ...] | None, "LO:HI:COUNT (log-spaced) or a list; 1 to 1e12.", Shown("r + m to 10 h0")
    ] = None
    alphas: Annotated[tuple[float, ...], "Exponents: entries of the start are N(0, h^(-2 alpha))."] = (0.5, 0.4, 0.3)
    settings: Settings = Settings()

    name, attributes = "lemma11", ATTRIBUTES
    options: ClassVar[Options] = {
        "data": (None, "Take n, r and m from a bundled set or a file, as in sweep theorem12."),
        "shape": None,
        "scale": None,
        "trials": (10_000, "Trials at each (exponent, width)."),
        "keep_trials": (False, "Store every trial, and not only counts, moments and quantile sketches."),
    }

    def __post_init__(self):
        self._swept()

    def _swept(self) -> tuple[float, ...]:
        """The widths; where none are given, the default ones take their place."""
        if self.widths is None:
            check_grid([1.0], self.alphas, self.settings.delta)
            self.widths = tuple(default_widths(self.problem, self.settings.delta))
        return self.widths

    @classmethod
    def without_data(
        cls,
        inputs: Annotated[int, "n, the number of inputs; of no cost."] = 20,
        rank: Annotated[int, "r, the rank of the data."] = 5,
        outputs: Annotated[int, "m, the number of outputs."] = 2,
    ) -> LeastSquares:
        return sizes(inputs, rank, outputs)

    def grid(self):
        return {"alpha": self.alphas, "width": self._swept()}

    def check(self) -> None:
        """Refuses at once what cannot be studied.

        **Raises:** `ValueError` for widths outside 1 to 1e12 or not whole, exponents that are not positive, delta outside (0, 1);
        noise, momentum or decay without steps, steps without targets, or settings that no descent can have.
        """
        settings = self.settings
        check_grid(self._swept(), self.alphas, settings.delta)
        if settings.steps < 0:
            raise ValueError(f"The number of steps must be at least 0, but is {settings.steps}.")
        if settings.steps == 0 and not (_descending.is_plain(settings) and settings.step_size is None):
            raise ValueError("Batches, noise, momentum, decay and step sizes are those of descent: give its --steps.")
        if settings.steps > 0:
            if not eqx.is_array(self.problem.Y):
                raise ValueError("Descent needs inputs and targets, and not only their sizes: give --data.")
            _descending.check(settings, self.problem)

    def trial(self, key, alpha, width) -> dict[str, Array]:
        problem, delta = self.problem, self.settings.delta
        start = init.Gaussian(width, alpha=alpha).draw(problem, key=key)
        events = theory.lemma11_events(start, problem, alpha, delta)
        paper = theory.lemma11(problem, width, alpha, delta)
        sharp = theory.lemma11(problem, width, alpha, delta, constant="davidson-szarek")
        return {
            **self._left(start, key, alpha, width),
            "level_is_large": events.level_is_large,
            "coupling_is_small": events.coupling_is_small,
            "product_is_small": events.product_is_small,
            "all_hold": events.level_is_large & events.coupling_is_small & events.product_is_small,
            "coupling_is_small_ds": events.coupling <= sharp.coupling,
            "product_is_small_ds": events.product <= sharp.product,
            "level_ratio": events.level / paper.level,
            "coupling_ratio": events.coupling / paper.coupling,
            "product_ratio": events.product / paper.product,
        }

    def _left(self, start, key, alpha, width) -> dict[str, Array]:
        """What steps of descent leave of the imbalance of a start, and where they are."""
        problem, steps = self.problem, self.settings.steps
        if steps == 0:
            return {}
        run = _descending.descend(start, problem, self.settings, steps, key=jax.random.fold_in(key, 1))
        left = theory.imbalance(run.final, problem).level / width ** (1 - 2 * alpha)
        outputs = {
            "imbalance_lost": _descending.imbalance_lost(start, run.final, problem),
            "level_left": left,
            "level_stays": left > 1,
            "ok": run.result == FINISHED,
        }
        if problem.num_frozen > 0:
            law = theory.sharp_distance(problem, width, alpha).rms
            outputs["distance_over_law"] = observables.frozen_product_norm(run.final, problem) / law
        return outputs

    def _after(self) -> list[str]:
        """The numbers that are measured after the steps."""
        return [] if self.settings.steps == 0 else list(LEFT)[: 3 if self.problem.num_frozen > 0 else 2]

    def reductions(self) -> dict[str, AbstractReduction]:
        """Counts of the events, moments and quantile sketches of the three ratios; moments of what is left after steps."""

        def disagree(outputs):
            held = jnp.stack([outputs[event] for event in (*EVENTS, *SHARP_EVENTS)])
            return jnp.any(held != held[:, :1], axis=(0, 1))

        kept: dict[str, AbstractReduction] = {event: Count(event) for event in (*EVENTS, *SHARP_EVENTS)}
        kept["exponents_disagree"] = Count(disagree, ("width",))
        kept |= {f"{name}_moments": Moments(name) for name in self._after()}
        if self._after():
            kept["level_stays"] = Count("level_stays")
        for ratio in RATIOS:
            kept[f"{ratio}_moments"] = Moments(ratio)
            # Half a per cent a bin over six decades.
            kept[f"{ratio}_histogram"] = Histogram(ratio, low=1e-4, high=1e2, bins=2770)
        return kept

    def precise(self) -> list[str]:
        return list(EVENTS)

    def recorded(self) -> dict[str, Any]:
        # Starts depend on the sizes alone, descent on all of the data.
        data = of_problem(self.problem) if self.settings.steps > 0 else {"data_dtype": str(self.problem.dtype)}
        return {**data, **self._sizes(), **self.settings._asdict()}

    def noted(self):
        return {"level_ratio": init.warn_of_lost_digits(self.problem.dtype, max(self._swept()))}

    def run(self, trials: int | None = None, *, batch: str = "auto", **options: Any):
        if batch == "auto" and self.settings.steps == 0:
            # All trials take equally long. Descent is left to the ensemble: in blocks on two devices it has hung.
            batch = "blocks" if jax.default_backend() == "cpu" else "vmap"
        # About a second's work on a processor; an accelerator is given more, and memory decides.
        evaluations = 2 ** (26 if batch == "vmap" else 22)
        p = self.problem.rank + self.problem.num_outputs
        points = len(self._swept()) * len(self.alphas)
        largest = max(1, max(64, evaluations // ((p + 1) ** 2 * max(1, self.settings.steps))) // points)
        return super().run(trials, batch=batch, **{"largest_chunk": largest, **options})

    def summarise(self, dataset):
        """`Study.summarise`, beside the hypotheses of the lemma.

        They are whether it speaks with the printed constant (`applies`) and with that of Davidson and Szarek (`applies_ds`), and
        whether the width is large enough for (33) by the tail bound of [V; U1] alone (`level_applies`); the constants `w`,
        `w_ds`, `h0`, `h0_ds`, `h0_level` are attributes. `disagree` counts trials in which an event holds at one exponent and
        fails at another. Quantiles are read from sketches with bins of half a per cent, also where trials are kept.
        """
        dims, delta, summary = ("alpha", "width"), self.settings.delta, super().summarise(dataset)
        A, H = np.meshgrid(summary["alpha"].values, summary["width"].values, indexing="ij")
        paper, sharp = jax.jit(
            lambda H, A: (
                theory.lemma11(self.problem, H, A, delta),
                theory.lemma11(self.problem, H, A, delta, constant="davidson-szarek"),
            )
        )(H, A)
        summary = summary.rename(exponents_disagree="disagree").assign(
            applies=(dims, np.asarray(paper.applies)),
            applies_ds=(dims, np.asarray(sharp.applies)),
            level_applies=(dims, np.asarray(paper.h0_level) < H),
        )
        constants = {"w": paper.w, "w_ds": sharp.w, "h0": paper.h0, "h0_ds": sharp.h0, "h0_level": paper.h0_level}
        constants = {name: float(values[0, 0]) for name, values in constants.items()}
        return summary.assign_attrs({"delta": delta, **self._sizes(), **constants})

    def table(self, summary) -> list[Table | str]:
        rows = []
        for alpha in summary["alpha"].values:
            for width in summary["width"].values:
                row = summary.sel(alpha=alpha, width=width)
                events = [
                    f"{float(row[e]):.4f} [{float(row[e + '_low']):.3f}, {float(row[e + '_high']):.3f}]"
                    for e in EVENTS[:3]
                ]
                values = ("all_hold", "level_ratio_mean", "coupling_ratio_q95", "product_ratio_q95")
                rows.append(
                    [
                        f"{alpha:g}",
                        f"{width:g}" if width < 1e5 else f"{width:.3g}",
                        *events,
                        *(f"{float(row[name]):.4f}" for name in values),
                        hypothesis(bool(row["applies"])),
                        "met" if bool(row["applies_ds"]) else "not met",
                        *(f"{float(row[f'{name}_mean']):.4g}" for name in self._after()),
                        *([f"{float(row['level_stays']):.4f}"] if self._after() else []),
                    ]
                )
            rows.append(None)
        columns = ("alpha", "width", "(33)", "(34)", "(35)", "all", "level", "34/bound", "35/bound", "Lemma 11", "D-S")
        # The means after descent.
        columns = (*columns, *(LEFT[name] for name in self._after()))
        columns = (*columns, *(["(33) left"] if self._after() else []))
        known = summary.attrs
        parts = [
            Table(
                "How often events (33) to (35) of Lemma 11 hold [exact 95%]; mean of Delta/h^(1 - 2 alpha); 95% quantiles of the "
                "norms in (34), (35) over their bounds, to about 0.5%",
                columns,
                rows,
                ("Lemma 11", "D-S"),
                named=2,
            ),
            f"delta = {known['delta']:g}: Lemma 11 as printed speaks above h0 = {known['h0']:.5g} (w = {known['w']:.4f}), with "
            f"the Davidson-Szarek constant (D-S) above {known['h0_ds']:.5g} (w = {known['w_ds']:.4f}), (33) alone above "
            f"{known['h0_level']:.5g}",
        ]
        if summary.sizes["alpha"] > 1:
            parts.append(
                f"same starts at different exponents: an event holds at one and fails at another in "
                f"{int(summary['disagree'].sum())} of {int(summary['trials'].values.flat[0])} trials x "
                f"{summary.sizes['width']} widths"
            )
        return parts

    def draw(self, dataset, summary, title: str):
        from .. import plots

        return plots.lemma11(summary, title)

    def notes(self, trials: int, source: str, description: str) -> list[tuple[str, str]]:
        sweep = counted({"exponent": len(self.alphas), "width": len(self._swept()), "trial": trials})
        sweep += f", {counted({'step': self.settings.steps})} of descent each" if self._after() else ""
        return [("problem", on_one_line(f"{source}: {self._named_sizes()}")), ("sweep", sweep)]

    def title(self, source: str, done: int) -> str:
        return f"Lemma 11, {source}: {self._named_sizes()}; {done} trials a point"

    def held(self, trials: int, keep_trials: bool) -> tuple[int | float, str, str] | None:
        points = len(self.alphas) * len(self._swept())
        what, numbers = f"{trials} kept trials at {points} points", 10 + 2 * len(self._after())
        return (3 * numbers * points * trials, what, "leave out --keep-trials") if keep_trials else None

    def _sizes(self) -> dict[str, int]:
        return {"n": self.problem.num_inputs, "r": self.problem.rank, "m": self.problem.num_outputs}

    def _named_sizes(self) -> str:
        return ", ".join(f"{name} = {size}" for name, size in self._sizes().items())


def run(problem: LeastSquares, widths, alphas, trials: int, *, settings: Settings = Settings(), **options: Any):  # noqa: B008
    """`Lemma11(problem, widths, alphas, settings).run(trials, **options)`, see there."""
    return Lemma11(problem, floats(widths), floats(alphas), settings).run(trials, **options)


def summarise(dataset, problem: LeastSquares, delta: float):
    """`Lemma11.summarise` of a dataset from `run` or `open_sweep`."""
    return Lemma11(problem, floats(dataset["width"]), floats(dataset["alpha"]), Settings(delta)).summarise(dataset)


def hypothesis(applies: bool) -> str:
    """How a table says whether the lemma speaks: `met` or `hypothesis not met`."""
    return "met" if applies else "hypothesis not met"
