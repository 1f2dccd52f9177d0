"""Scikit-learn's bundled sets, which is imported only when one of them is asked for."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._common import DataError, Dataset, checked, one_hot


class _Bundled(NamedTuple):
    loader: str
    classes: bool
    description: str


BUNDLED = {
    "digits": _Bundled(
        "load_digits", True, "8 x 8 images of handwritten digits, pixels from 0 to 16; targets: the digit"
    ),
    "iris": _Bundled("load_iris", True, "four measurements of iris flowers in cm; targets: the species"),
    "wine": _Bundled("load_wine", True, "thirteen chemical measurements of wines; targets: the cultivar"),
    "breast-cancer": _Bundled("load_breast_cancer", True, "thirty measurements of cell nuclei; targets: the diagnosis"),
    "diabetes": _Bundled(
        "load_diabetes",
        False,
        "ten measurements of patients, each column with mean 0 and norm 1; targets: disease progression after a year",
    ),
    "linnerud": _Bundled("load_linnerud", False, "three exercises of twenty men; targets: weight, waist and pulse"),
}


def _digits() -> dict[str, Any] | None:
    """The digits from their file in scikit-learn, without its import, which takes as long as the rest of a finished study."""
    found = importlib.util.find_spec("sklearn")
    places = () if found is None else found.submodule_search_locations or ()
    for path in (Path(place) / "datasets" / "data" / "digits.csv.gz" for place in places):
        if path.is_file():
            table = np.loadtxt(path, delimiter=",")
            names = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
            return {
                "data": table[:, :-1],
                "target": table[:, -1].astype(int),
                "feature_names": names,
                "target_names": np.arange(10),
            }
    return None


def _loaded(name: str) -> Mapping[str, Any]:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError(
            f'The data set `{name}` comes with scikit-learn, which is not installed: run `pip install "lindyn_jax[data]"`.'
        ) from error
    return getattr(datasets, BUNDLED[name].loader)()


def read_bundled(name: str) -> Dataset:
    bundled = BUNDLED[name]
    bunch = (_digits() if name == "digits" else None) or _loaded(name)
    target_names = tuple(str(label) for label in bunch["target_names"]) if "target_names" in bunch else None
    Y, _ = one_hot(bunch["target"]) if bundled.classes else (bunch["target"], None)
    return checked(
        bunch["data"],
        Y,
        source=f"data set `{name}`",
        name=name,
        description=f"scikit-learn's {name}, {bundled.description}{', one-hot' if bundled.classes else ''}",
        feature_names=tuple(str(feature) for feature in bunch["feature_names"]),
        target_names=target_names,
    )
