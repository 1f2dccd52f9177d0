"""Where an observable says what it is, and what follows from that: the table of names, attributes of data, axes, and checks."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from .. import _checks
from .._public import is_sentence, public, role_of
from ..models import AbstractModel
from ..problems import AbstractProblem

Observable = Callable[..., Array]
Observables = str | Sequence[str] | Mapping[str, str | Observable]

OBSERVABLES: dict[str, Observable] = {}
# What datasets call their axes and flags.
RESERVED = ("time", "step", "trial", "ok")


def kind_words(kind: Callable) -> str:
    """What an entry of `kinds` asks for: the name of a class, or what the docstring of a test says."""
    return kind.__name__ if inspect.isclass(kind) else (kind.__doc__ or kind.__name__).strip().rstrip(".")


class Facts(NamedTuple):
    """What an observable says of itself; for the fields see `observable`."""

    name: str
    symbol: str
    label: str
    units: str
    panel: str | None
    log: bool
    needs_start: bool
    kinds: tuple[Callable, ...]
    penalised: bool
    reduced: bool
    convention: str
    source: str

    def refusal(self, model: Any, problem: Any) -> str | None:
        """Why the observable is not defined for this model and problem, or `None` where it is."""
        if self.penalised:
            problem = getattr(problem, "plain", problem)
        classes = [kind for kind in self.kinds if inspect.isclass(kind)]
        models = tuple(kind for kind in classes if issubclass(kind, AbstractModel))
        problems = tuple(kind for kind in classes if kind not in models)
        is_model, is_problem = role_of(model) == "model", role_of(problem) == "problem"
        for word, value, kinds in (("model", model, models), ("problem", problem, problems)):
            if kinds and not isinstance(value, kinds):
                names = " or ".join(kind.__name__ for kind in kinds)
                return (
                    f"Observable `{self.name}` is defined for {word}s of kind {names}, but the {word} is of kind "
                    f"{type(value).__name__}."
                )
        # What is no problem, and sizes that do not fit, are the function's to refuse.
        if not is_problem:
            return None
        if is_model:
            _, fitting, given = model.sizes(problem)
            if fitting != given:
                return None
        for test in self.kinds:
            if test not in classes and not (is_model and test(model, problem)):
                words = kind_words(test)
                return (
                    f"Observable `{self.name}` is defined for {words}, but the model is of kind {type(model).__name__}."
                )
        return None

    def attributes(self) -> dict[str, str]:
        """What a dataset says of it: meaning, symbol, units, where it is drawn, convention and source."""
        found = {"long_name": self.label, "symbol": self.symbol, "units": self.units}
        found |= {"scale": "log"} if self.log else {}
        return found | {key: getattr(self, key) for key in ("panel", "convention", "source") if getattr(self, key)}


@public
def observable(
    *,
    symbol: str,
    label: str,
    units: str = "1",
    panel: str | None = None,
    log: bool = False,
    needs_start: bool = False,
    kinds: tuple[Callable, ...] | Callable = (),
    penalised: bool = False,
    reduced: bool = False,
    convention: str = "",
    source: str = "",
) -> Callable[[Callable], Callable]:
    r"""A decorator for functions (model, problem) -> array, which solvers, studies and pictures then know by name.

    **Args:**

    - `symbol`: on axes and in legends, with mathematics between dollar signs.
    - `label`: what it is, in a few words; the `long_name` in datasets.
    - `units`: by default "1", none.
    - `panel`: the panel of a picture that it shares with others, a panel of its own by default.
    - `log`: whether its axis is logarithmic.
    - `needs_start`: whether the function is (model, problem, start), with the model at time 0.
    - `kinds`: the classes of models, of problems, or of both that it is defined for; all by default. Others are refused in one
        sentence. A function (model, problem) -> bool among them has to hold as well; its docstring says of what it does, such as
        "networks of two layers".
    - `penalised`: whether it is about the data of a problem with terms on the weights too, so that `kinds` asks for the kind of
        `problem.plain`.
    - `reduced`: whether the function is right for reduced models as well, at a cost that does not depend on the width. Otherwise
        it is given models in the user's coordinates, and one drawn at any width, which has none, as the network of its core on
        the problem in the data's coordinates.
    - `convention`, `source`: further attributes.

    **Returns:** a decorator. What it returns is the function, which refuses what it is not defined for, and is entered into
    `OBSERVABLES` under its name.

    **Raises:** `ValueError` for a function without a name, a name that another observable or an axis has, or a symbol or panel
    with an odd number of dollar signs.

    Example:

        >>> @ld.observables.observable(symbol=r"tr $\Theta$", label="trace of Theta")
        ... def trace(model, problem):
        ...     return jnp.trace(model.product())
        >>> model = ld.LinearModel(jnp.diag(jnp.array([2.0, 1.0])))
        >>> float(ld.observables.OBSERVABLES["trace"](model, ld.factorization(jnp.eye(2))))
        3.0
        >>> del ld.observables.OBSERVABLES["trace"]
    """
    kinds = _checks.as_tuple(kinds)
    for name, text in (("symbol", symbol), ("panel", panel)):
        if (text or "").count("$") % 2:
            raise ValueError(f"Argument `{name}` must have its dollar signs in pairs, but is {text!r}.")

    def register(function: Callable) -> Callable:
        name = getattr(function, "__name__", "")
        if not name.isidentifier() or name in RESERVED:
            raise ValueError(f"An observable needs a name of its own, that of a function, but this one has {name!r}.")
        there = OBSERVABLES.get(name)
        # A notebook's cell may be run again.
        if there is not None and (there.__module__, there.__qualname__) != (function.__module__, function.__qualname__):
            raise ValueError(f"There is an observable `{name}` already, of {there.__module__}: choose another name.")
        facts = Facts(
            name, symbol, label, units, panel, log, needs_start, kinds, penalised, reduced, convention, source
        )

        @functools.wraps(function)
        def checked(*args, **kwargs):
            given = dict(zip(("model", "problem"), args, strict=False)) | kwargs
            refusal = facts.refusal(given["model"], given["problem"]) if given.keys() >= {"model", "problem"} else None
            if refusal is None:
                return function(*args, **kwargs)
            try:
                function(*args, **kwargs)
            except Exception as error:
                # The function's own sentence knows more, where it has one.
                if is_sentence(error):
                    raise
            raise ValueError(refusal)

        vars(checked)["facts"] = facts
        OBSERVABLES[name] = checked
        return checked

    return register


@public
def attributes() -> dict[str, dict[str, str]]:
    """Attributes of a dataset's variables for every observable there is, by name.

    `run_ensemble` gives them to outputs of these names that have no attributes of their own.

    Example:

        >>> found = ld.observables.attributes()["imbalance_drift"]
        >>> found["long_name"], found["units"], found["scale"]
        ('||D - D(0)||_F', '1', 'log')
    """
    return {name: function.facts.attributes() for name, function in OBSERVABLES.items()}


@public
def resolve(observables: Observables) -> dict[str, Callable]:
    """Names and functions as a dictionary of functions.

    **Args:** `observables`, a name, several, or a dictionary of names and functions (model, problem) -> array.

    **Raises:** `ValueError` for an unknown name or something that is neither a name nor a function.

    Example:

        >>> problem, model = ld.factorization(jnp.diag(jnp.array([2.0, 1.0]))), ld.TwoLayer(jnp.eye(2), jnp.eye(2))
        >>> given = {"L": "loss", "trace": lambda model, problem: jnp.trace(model.product())}
        >>> functions = ld.observables.resolve(given)
        >>> {name: float(function(model, problem)) for name, function in functions.items()}
        {'L': 0.5, 'trace': 2.0}
    """
    resolved = {}
    for name, value in _by_name(observables).items():
        if not callable(value):
            if not _checks.is_name(value):
                raise ValueError(f"Observable `{name}` must be a name or a function (model, problem) -> array.")
            value = named(value, "observables")
        resolved[name] = value
    return resolved


def named(name: str, argument: str) -> Observable:
    """The observable of a name, which `argument` has."""
    from .. import observables as package

    function = getattr(package, name, None) if name in package.__all__ and name not in OBSERVABLES else None
    own = function is not None and list(inspect.signature(function).parameters) == ["model", "problem"]
    hint = f"as a function it has no name there, so give {{{name!r}: ld.observables.{name}}} as `observables`."
    _checks.check_choice(name, argument, tuple(OBSERVABLES), hint if own else None)
    return OBSERVABLES[name]


@functools.singledispatch
def _by_name(observables: Any) -> Mapping[str, str | Observable]:
    names: Any = (observables,) if callable(observables) else observables
    for name in names:
        if callable(name):
            raise ValueError(
                f"Argument `observables` has {'a function' if inspect.isfunction(name) else f'an entry {type(name).__name__}'} "
                "without a name: give a dictionary of names and functions, such as {'loss': 'loss', 'test_loss': function}."
            )
        if not _checks.is_name(name):
            raise ValueError(
                f"Argument `observables` has the entry {name!r}: give names, or a dictionary of names and functions."
            )
    return {name: name for name in names}


_by_name.register(str, lambda name: {name: name})
_by_name.register(Mapping, lambda observables: observables)


@public
def measure(
    observables: Mapping[str, Callable],
    model: AbstractModel,
    problem: AbstractProblem,
    start: AbstractModel,
    to_user: Callable[[AbstractModel], AbstractModel],
) -> dict[str, Array]:
    """All observables of one state: those for reduced models on the state itself, others on the model as the user knows it.

    **Args:** `observables`, name -> function, as from `resolve`; `model`, the state, and `start`, the one at time 0, as a solver
    moves them; `problem`; `to_user`, which makes the network in the user's coordinates of a state.

    **Returns:** name -> array.

    Example:

        >>> problem, model = ld.factorization(jnp.diag(jnp.array([2.0, 1.0]))), ld.TwoLayer(jnp.eye(2), jnp.eye(2))
        >>> functions = ld.observables.resolve(["loss", "nuclear_norm"])
        >>> values = ld.observables.measure(functions, model, problem, model, lambda state: state)
        >>> {name: float(value) for name, value in values.items()}
        {'loss': 0.5, 'nuclear_norm': 2.0}
    """
    values = {}
    for name, function in observables.items():
        facts = getattr(function, "facts", None)
        if facts is None:
            try:
                values[name] = jnp.asarray(function(to_user(model), problem))
            except ValueError as error:
                raise ValueError(f"Observable `{name}`: {error}") from error
            continue
        see = (
            (lambda state: (state.observed, problem))
            if facts.reduced
            else (lambda state: to_user(state).observed.parts(problem))
        )
        origin = see(start)[:1] if facts.needs_start else ()
        values[name] = jnp.asarray(function(*see(model), *origin))
    return values
