"""A study: settings, grid, trial, reductions, summary, table and picture. Its command, run, resume and JSON follow from it."""

import dataclasses
import json
import math
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import observables
from .._text import counted
from ..ensemble import run_ensemble
from ..ensemble.names import AXES
from ..problems import LeastSquares
from ..statistics import (
    AbstractReduction,
    Count,
    Moments,
    narrow_enough,
)
from ._record import of_field

Options = Mapping[str, tuple[Any, str | None] | None]


class Shown(NamedTuple):
    """What is shown as the default of an option. **Fields:** `text`."""

    text: str | None


class Choices(NamedTuple):
    """All that an option can be, where its kind does not say it. **Fields:** `texts`."""

    texts: tuple[str, ...]


class Option(NamedTuple):
    """A setting as the command line asks for it.

    **Fields:** `name`; `kind`, its type; `help`; `default`; `shown`, as the default; `choices`, all that it can be, if few.
    """

    name: str
    kind: Any
    help: str
    default: Any
    shown: str | None
    choices: tuple[str, ...]


class Table(NamedTuple):
    """A table in words.

    **Fields:** `title`; `columns`; `rows`, `None` between sections; `words`, columns that are no numbers; `tight`, with little
    space between columns; `named`, how many of the first columns name the rows: where a table is wider than the screen it is
    printed in parts, and they begin each.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str] | None]
    words: Sequence[str] = ()
    tight: bool = True
    named: int = 1


@typing.dataclass_transform(eq_default=False)
class Settled(ABC):
    """What is run, printed and drawn by its fields, and therefore a command: those whose annotation holds a text are options.

    **Class attributes:** `name`, of the command; `options`, default and help of those options that all commands share, where they
    are others here (a help of `None` stays as it is), and `None` for an option that is not asked for.
    """

    name: ClassVar[str] = ""
    options: ClassVar[Options] = {}
    # What `__init_subclass__` makes.
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        # By identity, so that a trial can be compiled whatever the fields hold.
        dataclasses.dataclass(eq=False)(cls)

    @classmethod
    def presets(cls) -> Mapping[str, Callable[[], Mapping[str, Any]]]:
        """Names of settings in place of data and starts, each a function of nothing that returns fields."""
        return {}

    @classmethod
    def without_data(cls) -> LeastSquares:
        """The problem where `--data` has no default and is not given; its arguments, annotated as fields are, are options."""
        raise ValueError("Give --data.")

    def check(self) -> None:  # noqa: B027
        """Refuses at once, in a `ValueError`, what cannot be studied; by default nothing."""

    @abstractmethod
    def table(self, summary) -> list["Table | str"]:
        """What is printed, tables and sentences in their order."""

    @abstractmethod
    def draw(self, dataset, summary, title: str):
        """The picture, a matplotlib figure."""


class Study(Settled):
    """Trials over a grid, reduced, summarised, printed and drawn. One of your own is a class with `grid` and `trial`.

    Fields are settings. Those whose annotation holds a text, `Annotated[float, "what it is"]`, are options of the command that
    `ld.cli.main` makes of the class, and so are those of a `NamedTuple` among them; a field `problem: LeastSquares` gives it
    the options of data, and `start` or `starts` those of random starts. `summarise`, `table` and `draw` have defaults that show
    every count, mean and quantile of `reductions`, which by default are all flags and numbers of a trial.

    **Class attributes:** `name`, of the command; `options`, default and help where they are others than those of all studies, as
    in `{"trials": (50, "Trials at each width.")}`, and `None` for an option that is not asked for (without `keep_trials` trials
    are always kept); `attributes` and `dims` of outputs, as in `run_ensemble`; `store`, the file in the output folder.

    Example:

        >>> class Modes(ld.Study):
        ...     def grid(self):
        ...         return {"scale": [0.01, 1.0]}
        ...
        ...     def trial(self, key, scale):
        ...         u0, v0 = scale * jax.random.normal(key, (2,))
        ...         return {"learned": ld.exact.mode(1.0, u0, v0, 3.0).x}
        >>> print(Modes().summarise(Modes().run(500))["learned_mean"].values)  # the share of a mode learned by t = 3
        [0.01837 0.9273]
    """

    attributes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    store: ClassVar[str] = "sweep.zarr"

    @abstractmethod
    def grid(self) -> Mapping[str, Sequence[float]]:
        """Name -> numbers, one axis of the grid each."""

    @abstractmethod
    def trial(self, key, **point) -> dict[str, Array]:
        """The outputs of one trial at a point of the grid."""

    def reductions(self) -> dict[str, AbstractReduction]:
        """What is kept of every chunk; by default counts of the flags and moments of the numbers of a trial."""
        point = dict.fromkeys(self.grid(), jax.ShapeDtypeStruct((), jnp.result_type(float)))
        outputs = jax.eval_shape(lambda key, point: self.trial(key, **point), jax.random.key(0), point)
        single = {name: output for name, output in outputs.items() if output.shape == ()}
        flags = {name for name, output in single.items() if output.dtype == bool}
        return {
            name if name in flags else f"{name}_moments": (Count if name in flags else Moments)(name) for name in single
        }

    def precise(self) -> list[str]:
        """Names of the reductions whose intervals `precision` is about: the counts over the whole grid."""
        return [name for name, kept in self.reductions().items() if isinstance(kept, Count) and kept.dims is None]

    def recorded(self) -> dict[str, Any]:
        """Settings that a store holds: another one is not resumed. By default all fields."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        grid = list(self.grid().values())
        problem: Any = getattr(self, "problem", None)
        recorded: dict[str, Any] = {}
        for name, value in values.items():
            if not any(value is axis for axis in grid):
                recorded |= of_field(value, name, problem)
        return recorded

    def noted(self) -> Mapping[str, Mapping[str, str]]:
        """What is warned of once a run: output -> attributes of its own, which are recorded with the settings as well."""
        return {}

    def axis_names(self) -> Mapping[str, Sequence[str]]:
        """Names of the places on axes of outputs, which a store holds with these outputs."""
        return {}

    def labelled(self, dataset):
        """A dataset of trials with what a store does not hold, such as names on axes."""
        return dataset

    def run(
        self,
        trials: int | None = None,
        *,
        seed: int = 0,
        keep_trials: bool | None = None,
        precision: float | None = None,
        record: Mapping[str, Any] | None = None,
        batch: str = "auto",
        **options: Any,
    ):
        """Runs the study.

        **Args:** `trials` at each point of the grid; `seed`; `keep_trials`, whether every trial is kept, and not only reductions;
        `precision`, to stop as soon as every 95% interval of `precise` is narrower; `record`, further entries for the stored
        settings; `options` go to `run_ensemble` (`store`, `chunk`, `progress`, `executor`).

        **Returns:** an `xarray.Dataset` over the grid and `trial`, or of the merged reductions over the grid.

        **Raises:** as `check` and `run_ensemble`.
        """
        self.check()
        check_precision(precision)
        known = {**observables.attributes(), **self.attributes}
        noted, always = self.noted(), self.asked("keep_trials", True) is None
        dataset = run_ensemble(
            self.trial,
            {name: [float(value) for value in values] for name, values in self.grid().items()},
            self.asked("trials", 100) if trials is None else trials,
            key=jax.random.key(seed),
            dims=self.dims,
            attributes={
                name: {**known.get(name, {}), **noted.get(name, {}), **self._named_axes(name)}
                for name in {**self.attributes, **self.dims}
            },
            settings={
                **(record or {}),
                "study": self.name.replace("-", "_") or type(self).__name__,
                "seed": seed,
                **self.recorded(),
                **{name: text for notes in noted.values() for name, text in notes.items()},
            },
            # Where trials are always kept, reductions are read off them.
            reductions=None if always else self.reductions(),
            keep_trials=always or (self.asked("keep_trials", True) if keep_trials is None else keep_trials),
            # What a trial of these studies puts out follows from the settings.
            trust_store=type(self).__module__.partition(".")[0] == __name__.partition(".")[0],
            stop_when=None if precision is None else lambda merged, count: self._narrow(merged, count, precision),
            batch=batch,
            **options,
        )
        for variable in dataset.data_vars.values():
            variable.attrs.pop(AXES, None)
        return self.labelled(dataset)

    def _named_axes(self, output: str) -> dict[str, str]:
        """The attribute that names the places on the axes of an output."""
        names = {dim: list(names) for dim, names in self.axis_names().items() if dim in self.dims.get(output, ())}
        return {AXES: json.dumps(names)} if names else {}

    @classmethod
    def asked(cls, name: str, default: Any) -> Any:
        """The default of an option that all studies share; `None` where it is not asked for."""
        return (cls.options.get(name, (default,)) or (None,))[0]

    def _narrow(self, merged: Mapping[str, np.ndarray], count: int, precision: float) -> bool:
        kept, intervals = self.reductions(), []
        for name in self.precise():
            interval = kept[name].interval(merged[name], count)
            if interval is None:
                raise ValueError(f"The reduction `{name}` has no interval that a precision could be about.")
            intervals.append(interval)
        return narrow_enough(intervals, count, precision)

    def reduced(self, dataset):
        """The reductions of a dataset that holds single trials, as `open_reductions` gives them; others as they are."""
        import xarray as xr

        if "trial" not in dataset.dims:
            return dataset
        if "computed" in dataset.coords:
            dataset = dataset.isel(trial=np.flatnonzero(dataset["computed"].values))
        done, dims = np.ones(dataset.sizes["trial"], bool), tuple(self.grid())
        ok = dataset["ok"].astype(bool)
        outputs = {}
        for name, array in dataset.data_vars.items():
            seen = array.where(ok) if np.issubdtype(array.dtype, np.floating) else array
            outputs[name] = seen.transpose(*dims, "trial", ...).values
        arrays = {}
        kept = self.reductions()
        # In one program: by themselves they are a hundred.
        values = jax.jit(lambda outputs, done: {name: kept[name](outputs, done) for name in kept})(outputs, done)
        for name, reduction in kept.items():
            extra, _, meaning = reduction.extra(name)
            own = dims if reduction.dims is None else reduction.dims
            arrays[name] = ((*own, *extra), np.asarray(values[name]), meaning)
        coords = {name: dataset[name] for name in dims}
        return xr.Dataset({**arrays, "trials_computed": int(done.sum())}, coords=coords)

    def summarise(self, dataset):
        """Statistics at every point of the grid, from reductions alone, whether trials are kept or not.

        **Args:** `dataset`, from `run`.

        **Returns:** an `xarray.Dataset`: the frequency of each counted flag with its exact interval (`..._low`, `..._high`); of
        each number with `..._moments` its `..._mean` with its own and its `..._max`, with `..._histogram` its `..._median`
        and `..._q95`, good to a bin; `trials`. Intervals are 95%: exact of frequencies, Student's of means, which may reach below
        zero for positive numbers that are spread over decades.
        """
        import xarray as xr

        reduced, dims = self.reduced(dataset), tuple(self.grid())
        count = int(reduced["trials_computed"])
        summary = xr.Dataset(coords={name: reduced[name] for name in dims}, attrs={"interval": "95%"})
        kept = {name: (dims if each.dims is None else each.dims, each) for name, each in self.reductions().items()}
        merged = {name: reduced[name].transpose(*over, ...).values for name, (over, _) in kept.items()}
        for name, (over, reduction) in kept.items():
            for word, values in reduction.statistics(name, merged, count).items():
                summary[word] = (over, values)
        return summary.assign(trials=(dims, np.full(tuple(summary.sizes[name] for name in dims), count)))

    def table(self, summary) -> list[Table | str]:
        """What is printed, tables and sentences in their order; by default all that the grid has a number for."""
        dims = tuple(self.grid())
        shown = shown_of(summary, dims)
        rows = []
        for place in np.ndindex(*(summary.sizes[name] for name in dims)):
            row = summary.isel(dict(zip(dims, place, strict=True)))
            rows.append([*(f"{float(row[name]):g}" for name in dims), *(_number(row, name) for name in shown)])
        return [Table(f"{type(self).__name__} [95%]", (*dims, *shown), rows, named=len(dims))]

    def draw(self, dataset, summary, title: str):
        """The picture; by default a panel for each column of the table, against the last axis of the grid.

        **Args:** `dataset`, from `run`; `summary`; `title`.

        **Returns:** a matplotlib figure.
        """
        from ._picture import drawn

        return drawn(self, summary, title)

    # -- what the command says ---------------------------------------------------------------------------------------------

    def notes(self, trials: int, source: str, description: str) -> list[tuple[str, str]]:
        """Lines before the run, each a word and a text."""
        sizes = counted({**{name: len(values) for name, values in self.grid().items()}, "trial": trials})
        problem = getattr(self, "problem", None)
        return [
            *(data_notes(problem, description) if problem is not None else []),
            ("study", sizes),
        ]

    def title(self, source: str, done: int) -> str:
        """The title of the picture."""
        return f"{type(self).__name__}{', ' if source else ''}{source}: {done} trials a point"

    def kept(self, keep_trials: bool) -> str:
        """What the store is said to hold."""
        return "every trial" if keep_trials else "reductions of the trials"

    def held(self, trials: int, keep_trials: bool) -> tuple[int | float, str, str] | None:
        """How many numbers are held at once, of what, and what to do if they are too many for the machine."""
        return None


def options_of(study: type[Settled]) -> list[Option]:
    """The fields of a study, and of a `NamedTuple` among them, whose annotations hold a text: options of its command."""
    found = []
    for cls in (study, *(kind for kind in _hints(study).values() if hasattr(kind, "_fields"))):
        defaults = getattr(cls, "_field_defaults", None) or {f.name: f.default for f in dataclasses.fields(cls)}
        found += [option for name, hint in _hints(cls).items() for option in option_of(name, hint, defaults.get(name))]
    return found


def option_of(name: str, hint: Any, default: Any) -> list[Option]:
    """An annotated field or argument as an option; none without a text."""
    kind, *marks = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
    marks = {type(mark): mark for mark in marks}
    shown, default = marks.get(Shown, Shown(None)).text, None if default is dataclasses.MISSING else default
    literal = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    choices = marks.get(Choices, Choices(literal)).texts
    return [Option(name, kind, marks[str], default, shown, choices)] if str in marks else []


def _hints(cls) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not ClassVar}


def check_precision(precision: float | None) -> None:
    """Refuses a width of intervals that none can have.

    **Raises:** `ValueError` unless it is `None` or a positive number.
    """
    if precision is not None and not (math.isfinite(precision) and precision > 0):
        raise ValueError(f"The precision is a width of 95% intervals and must be positive, but is {precision:g}.")


def data_notes(problem: LeastSquares, description: str) -> list[tuple[str, str]]:
    """What is said about data and problem."""
    condition = f"condition number of X^T X {float(problem.condition):.3g}"
    return [("data", description), ("problem", f"rank {problem.rank} of {problem.num_inputs}, {condition}")]


def sizes_of(problem: LeastSquares) -> str:
    """Sizes of the data, as titles show them."""
    return f"N = {problem.num_samples}, n = {problem.num_inputs}, m = {problem.num_outputs}, rank {problem.rank}"


def power(log10: float) -> str:
    """10^x as a number where it is readable, as a power where it is huge."""
    return f"{10**log10:.3g}" if -4 < log10 < 7 else f"10^{log10:.4g}"


def shown_of(summary, dims: tuple[str, ...]) -> list[str]:
    """Variables over the grid that are no end of an interval and no count of trials."""
    return [
        name
        for name, array in summary.data_vars.items()
        if set(array.dims) == set(dims) and not name.endswith(("_low", "_high")) and name != "trials"
    ]


def _number(row, name: str) -> str:
    value = f"{float(row[name]):.4g}"
    return (
        value
        if f"{name}_low" not in row
        else f"{value} [{float(row[f'{name}_low']):.4g}, {float(row[f'{name}_high']):.4g}]"
    )
