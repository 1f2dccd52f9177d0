"""Scikit-learn's bundled sets, which is imported only when one of them is asked for."""

from typing import NamedTuple

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


def read_bundled(name: str) -> Dataset:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError(
            f'The data set `{name}` comes with scikit-learn, which is not installed: run `pip install "lindyn_jax[data]"`.'
        ) from error
    bundled = BUNDLED[name]
    bunch = getattr(datasets, bundled.loader)()
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
