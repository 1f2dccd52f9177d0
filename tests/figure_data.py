"""Small data of every figure, stored under tests/data/figures: what the tests hold the figures' claims against.

`python tests/figure_data.py [NAME ...]` computes them again, all or those named.
"""

import json
import sys
from pathlib import Path

import numpy as np
import xarray as xr
from helpers import DATA, load_cases

AUTOENCODER = load_cases("g19")["fig1_autoencoder"]

# Sizes that show the claims in a few seconds each; what is not named is the paper's own.
SIZES = {
    "t21-figure1": {"trials": 8, "descent_trials": 2, "points": 90},
    "t21-table2": {"points": 6},
    "t21-figure2": {"trials": 16, "points": 19},
    "t21-figure3": {"trials": 1, "points": 41, "horizon": 100.0, "samples": 200},
    "m22-figure2": {"trials": 10, "m": (5, 10), "horizon": 12.0, "points": 7},
    "m22-figure3": {"trials": 2, "points": 25, "n": 60, "samples": 12, "h": 60},
    "m22-figure7": {"trials": 3, "descent_trials": 1, "descent_grid": (10000,)},
    "sharp-law": {"trials": 6, "decades": 8},
    "tightness": {"trials": 50, "points": 4},
    "descent-steps": {"trials": 2, "points": 3, "steps": 8},
    "wide-limit": {"trials": 2, "points": 11, "d": 12, "widths": (100, 10000)},
    "conditioning": {"trials": 2, "decades": 6, "explicit_decades": 2},
    "sgd-imbalance": {"trials": 20, "steps": 1500, "points": 16, "widths": (100, 1_000_000), "fit_steps": 500},
    "trees": {"points": 60},
    "g19-figure1": {"times": tuple(np.union1d(np.geomspace(0.5, 6000, 80), AUTOENCODER["inputs"]["t"]).tolist())},
    "g19-figure2": {"steps": 10_000, "points": 150},
    "g19-table1": {},
}
# Drawn from the same data as another one.
TWINS = {"m22-figure4": "m22-figure2", "m22-figure5": "m22-figure2", "m22-figure6": "m22-figure3"}
TWINS["sgd-bias"] = "sgd-imbalance"


def path_of(name: str) -> Path:
    return DATA / "figures" / f"{TWINS.get(name, name)}.npz"


def save(name: str, dataset) -> None:
    """Arrays, and beside them the dimensions and attributes of each as JSON."""
    arrays = {key: np.asarray(variable.values) for key, variable in dataset.variables.items()}
    about = {key: [list(variable.dims), _plain(variable.attrs)] for key, variable in dataset.variables.items()}
    about = {"variables": about, "coordinates": list(dataset.coords), "attributes": _plain(dataset.attrs)}
    path_of(name).parent.mkdir(exist_ok=True)
    np.savez_compressed(path_of(name), about=np.array(json.dumps(about)), **{f"_{key}": arrays[key] for key in arrays})


def load(name: str):
    """What `save` has stored."""
    with np.load(path_of(name)) as stored:
        about = json.loads(str(stored["about"]))
        variables = {key: (dims, stored[f"_{key}"], attrs) for key, (dims, attrs) in about["variables"].items()}
    return xr.Dataset(variables, attrs=about["attributes"]).set_coords(about["coordinates"])


def _plain(attributes):
    """Attributes that say what the data are, not on which machine they were made."""
    return {name: value for name, value in attributes.items() if isinstance(value, (str, int, float))}


if __name__ == "__main__":
    import jax

    jax.config.update("jax_enable_x64", True)
    from lindyn_jax import figures

    for name in sys.argv[1:] or SIZES:
        save(name, figures.FIGURES[name].compute(seed=0, **SIZES[name]))
        print(name, path_of(name).stat().st_size)
