"""Options of random starts: one for `simulate`, and every kind at every width and scale for studies."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from ._common import numbers, widths_of

Positive = Annotated[str, typer.Option(help="Positive eigenvalues of D for imbalance: one number, or r of them.")]
Negative = Annotated[str, typer.Option(help="Sizes of the negative ones: one number, or m of them.")]

Kind = Literal["gaussian", "balanced", "spectral", "imbalance", "xavier", "he", "lecun", "ntk", "mup"]


class Several(enum.StrEnum):
    """Kinds of which studies take several; of what is given more than once typer knows no literals."""

    gaussian = "gaussian"
    balanced = "balanced"
    imbalance = "imbalance"


Level = Annotated[float, typer.Option(help="The number lambda0 of balanced starts with D = lambda0 I, of any sign.")]


def _text(kind: Any, text: str) -> Any:
    return Annotated[kind, typer.Option(help=text)]


# Field -> name, annotation and default of the options that it is read from.
OPTIONS: dict[str, tuple[tuple[str, Any, Any], ...]] = {
    "start": (
        (
            "start",
            _text(Kind, "How the weights begin; imbalance: prescribed; xavier and what follows: scalings."),
            "gaussian",
        ),
        ("width", _text(float, "Hidden width h, 1 to 1e12."), 1000),
        (
            "alpha",
            _text(float | None, "Exponent: entries of the start are N(0, h^(-2 alpha)); 0.5 without --std."),
            None,
        ),
        ("std", _text(str | None, "Standard deviation of the entries; U,V for one each."), None),
        ("positive", Positive, "1"),
        ("negative", Negative, "1"),
        ("u0", _text(str, "Strengths of the modes in U for spectral: one number, or a list."), "0.1"),
        ("v0", _text(str, "Strengths of the modes in V for spectral: one number, or a list."), "0.1"),
        ("lambda0", Level, 0.0),
    ),
    "starts": (
        (
            "start",
            _text(list[Several], "How the weights begin; imbalance: prescribed; repeat for several."),
            ["gaussian"],
        ),
        ("widths", _text(str, "Hidden widths: a list or LO:HI:COUNT; 1 to 1e12."), "1000"),
        (
            "alphas",
            _text(str | None, "Exponents: entries of the start are N(0, h^(-2 alpha)); 0.5 without --std."),
            None,
        ),
        (
            "std",
            _text(list[str] | None, "Standard deviation of the entries; U,V for one each; repeat for several."),
            None,
        ),
        ("positive", Positive, "1"),
        ("negative", Negative, "1"),
        ("lambda0", Level, 0.0),
    ),
}


def read(field: str, values: Mapping[str, Any]) -> Any:
    """The start, or the starts by name, that the options of a field name."""
    reader = {"start": start_of, "starts": starts_of}[field]
    return reader(*(values[name] for name, _, _ in OPTIONS[field]))


def one_or_list(text: str, name: str) -> float | tuple[float, ...]:
    values = tuple(numbers(text, name))
    return values[0] if len(values) == 1 else values


def start_of(kind, width, alpha, std, positive, negative, u0="0.1", v0="0.1", lambda0=0.0):
    from .. import _checks
    from ..init import SCALINGS, Scaled
    from ..init.starts import STARTS

    _checks.check_choice(kind, "kind", (*STARTS, *SCALINGS))
    if kind in SCALINGS:
        return Scaled(kind, width)
    texts = {"std": std, "positive": positive, "negative": negative, "u0": u0, "v0": v0}
    values = {name: None if text is None else one_or_list(text, name) for name, text in texts.items()}
    values |= {"h": width, "alpha": alpha, "lambda0": lambda0}
    return STARTS[kind](**{field.name: values[field.name] for field in dataclasses.fields(STARTS[kind])})


def starts_of(kinds, widths, alphas, stds, positive, negative, lambda0) -> dict:
    """Every kind at every width and scale, each named by what tells it from the others."""
    kinds = [str(kind) for kind in kinds]
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
                starts[label] = start_of(kind, width, alpha, std, positive, negative, lambda0=lambda0)
    return starts
