"""A small table of things and what they are like, with the exceptions that real ones have."""

import numpy as np

from .._public import public
from ._common import Dataset

# What each item is like, kind by kind.
_LIVING = "is alive, grows"
_ANIMAL = f"{_LIVING}, moves, breathes, has a head"
_PLANT = f"{_LIVING}, has roots, has leaves, needs light"
_THING = "is made, wears out"
_ITEMS = {
    "sparrow": f"{_ANIMAL}, has feathers, has wings, lays eggs, flies, sings, is small",
    "gull": f"{_ANIMAL}, has feathers, has wings, lays eggs, flies, swims, is white",
    "penguin": f"{_ANIMAL}, has feathers, has wings, lays eggs, swims",
    "trout": f"{_ANIMAL}, has scales, has fins, lays eggs, swims",
    "shark": f"{_ANIMAL}, has fins, swims, is large, bites",
    "wolf": f"{_ANIMAL}, has fur, has legs, is large, bites",
    "mouse": f"{_ANIMAL}, has fur, has legs, is small",
    "bat": f"{_ANIMAL}, has fur, has wings, flies, is small",
    "oak": f"{_PLANT}, has bark, is large",
    "birch": f"{_PLANT}, has bark, is large, is white",
    "cactus": f"{_LIVING}, has roots, needs light, has flowers, has thorns",
    "rose": f"{_PLANT}, has flowers, has thorns, smells good",
    "daisy": f"{_PLANT}, has flowers, is small, is white",
    "fern": f"{_PLANT}, is small",
    "car": f"{_THING}, moves, has wheels, burns fuel, is large",
    "bicycle": f"{_THING}, moves, has wheels",
    "plane": f"{_THING}, moves, has wheels, has wings, flies, burns fuel, is large",
    "lamp": f"{_THING}, shines, is small",
    "chair": f"{_THING}, has legs",
    "candle": f"{_THING}, shines, burns fuel, is small, is white, smells good",
}


@public
def semantic() -> Dataset:
    """Twenty items, animals, plants and things, and what they are like: a small table with the exceptions that real ones have.

    Penguins do not fly, bats do, and a cactus has no leaves: the modes are those of a hierarchy, bent. Their decomposition is
    `numpy.linalg.svd(dataset.Y)`, not known in closed form; for that see `hierarchy`.

    **Returns:** a `Dataset` with X = I of the items and a column of Y, 0 or 1, for each feature; `load("semantic")` as well.

    **Notes:** written for this package, in the manner of the tables of semantic cognition (Rumelhart and Todd, 1993).

    **Source:** this package's own.

    Example:

        >>> table = ld.data.semantic()
        >>> print(table.Y.shape, np.linalg.svd(table.Y)[1][:3])
        (20, 31) [7.943 5.069 4.364]
        >>> print(table.feature_names[:3], table.target_names[:3])
        ('sparrow', 'gull', 'penguin') ('is alive', 'grows', 'moves')
    """
    told = {item: [feature.strip() for feature in text.split(",")] for item, text in _ITEMS.items()}
    features = tuple(dict.fromkeys(feature for listed in told.values() for feature in listed))
    Y = np.array([[float(feature in listed) for feature in features] for listed in told.values()])
    description = "animals, plants and things, one input each; targets: what they are like, 0 or 1"
    return Dataset(np.eye(len(told)), Y, "semantic", description, tuple(told), features)
