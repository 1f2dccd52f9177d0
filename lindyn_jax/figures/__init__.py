"""The papers' figures, each in its paper's setting: data, picture, and what was measured beside what the paper shows.

    made = ld.figures.make("t21-figure1", "figures", quick=True)

writes `t21-figure1.png`, `.pdf` and the data as `t21-figure1.zarr` into a folder. A file of this package is a figure,
or those that are drawn from the same data.
"""

import inspect
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .._checks import check_choice
from .._public import public
from ..ensemble import Progress, StoreError, check_dataset, describe_environment
from . import (
    conditioning,
    descent_steps,
    g19_figure1,
    g19_figure2,
    g19_table1,
    m22_figure7,
    m22_imbalances,
    m22_widths,
    sgd_bias,
    sgd_imbalance,
    sharp_law,
    t21_figure1,
    t21_figure2,
    t21_figure3,
    t21_table2,
    tightness,
    trees,
    wide_limit,
)
from ._common import OWN, Figure, failures, finite, reporting, write


def _merged(*modules) -> dict[str, Figure]:
    return {name: figure for module in modules for name, figure in module.FIGURES.items()}


FIGURES: dict[str, Figure] = {
    **_merged(t21_figure1, t21_figure2, t21_figure3, t21_table2),
    # Of which those from the same data are in one file.
    **dict(sorted(_merged(m22_widths, m22_imbalances, m22_figure7).items())),
    **_merged(sharp_law, tightness, descent_steps, wide_limit, conditioning, sgd_imbalance, sgd_bias, trees),
    **_merged(g19_figure1, g19_figure2, g19_table1),
}

# Figures of M21 that its long version repeats.
SAME = {"m21-figure1": "m22-figure7", "m21-figure2": "m22-figure3"}


class Made(NamedTuple):
    """A figure that was made.

    **Fields:** `name`; `source`, where it stands in its paper; `shows`, what the paper shows; `reference`, what an independent
    computation found, empty where there is none; `measured`, what was found here, and `numbers`, what that rests on, `None`
    for one that is not finite, such as a time that was never reached; `failed` of `runs` runs are left out; `paths`, of the
    picture and of the data; `seconds`.

    Example:

        >>> made = ld.figures.make("g19-table1", "figures", sets=("iris",))
        >>> print(made.source, made.shows)
        G19 Table 1 Delta_xy is small beside Delta_x on the data sets of the paper; those here are others
        >>> print(made.numbers["iris"]["raw"])  # Delta_xy and Delta_x
        [0.0008465, 0.4911]
    """

    name: str
    source: str
    shows: str
    reference: str
    measured: str
    numbers: dict[str, Any]
    failed: int
    runs: int
    paths: tuple[Path, ...]
    seconds: float


@public
def names(name: str = "all") -> tuple[str, ...]:
    """The figures that a name stands for: itself, that of the same data in a later paper, or every one.

    **Args:** `name`, one of `FIGURES` or `SAME`, or `"all"`.

    **Returns:** their names, a tuple.

    **Raises:** `ValueError` for an unknown name.

    Example:

        >>> print(ld.figures.names("m21-figure1"), ld.figures.names()[:3])
        ('m22-figure7',) ('t21-figure1', 't21-figure2', 't21-figure3')
    """
    check_choice(name, "name", (*FIGURES, *SAME, "all"))
    return tuple(FIGURES) if name == "all" else (SAME.get(name, name),)


@public
def sizes_of(name: str, *, quick: bool = False) -> dict[str, Any]:
    """The sizes of a figure, such as numbers of trials or widths, by the names under which `compute` and `make` take others.

    **Args:** `name`, one of `FIGURES` or `SAME`; `quick`, for the small ones that still show the claim.

    **Raises:** `ValueError` for an unknown name.

    Example:

        >>> ld.figures.sizes_of("t21-table2")
        {'points': 31}
    """
    check_choice(name, "name", (*FIGURES, *SAME))
    figure = FIGURES[SAME.get(name, name)]
    parameters = inspect.signature(figure.compute).parameters.values()
    own = {parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty}
    return {**own, **(figure.quick if quick else figure.full)}


@public
def compute(
    name: str,
    *,
    quick: bool = False,
    seed: int = 0,
    cache: dict | None = None,
    progress: Progress | None = None,
    **sizes: Any,
):
    """The data of a figure.

    **Args:**

    - `name`: one of `FIGURES`.
    - `quick`: small sizes that still show the claim, in place of the paper's.
    - `seed`: of data and starts.
    - `cache`: a dictionary in which data are kept for other figures drawn from the same.
    - `progress`: called with (trials done, trials in all), from (0, all) on for each ensemble of the figure.
    - `sizes`: in place of the figure's own, which `sizes_of` names.

    **Returns:** an `xarray.Dataset`. Its attributes say what it is: `figure`, `source`, `shows`, `reference`, `measured`,
    `numbers` (JSON), `failed`, `runs`, `seed`, `sizes` (JSON) and `environment` (JSON).

    **Raises:** `ValueError` for an unknown name or size.

    Example:

        >>> data = ld.figures.compute("g19-table1", sets=("iris",))
        >>> print(data.attrs["source"], data["delta_x"].values, f"{float(data['autoencoder']):.4f}")
        G19 Table 1 [[0.4911 0.4797]] 0.0000
    """
    (name,) = names(name) if name != "all" else ("all",)
    check_choice(name, "name", tuple(FIGURES))
    figure = FIGURES[name]
    try:
        inspect.signature(figure.compute).bind_partial(**sizes)
    except TypeError:
        known = sizes_of(name)
        wrong = next(size for size in sizes if size not in known)
        listed = ", ".join(f"`{one}`" for one in known)
        raise ValueError(f"Figure `{name}` has no size `{wrong}`: it has {listed}.") from None
    sizes = {**(figure.quick if quick else figure.full), **sizes}
    key = (figure.compute, seed, json.dumps(sizes, sort_keys=True))
    if cache is not None and key in cache:
        dataset = cache[key]
    else:
        with reporting(progress):
            dataset = figure.compute(seed=seed, **sizes)
        if cache is not None:
            cache[key] = dataset
    measured, (failed, runs) = figure.measure(dataset), failures(dataset)
    return dataset.assign_attrs(
        figure=name,
        source=figure.source,
        shows=figure.shows,
        reference=figure.reference,
        measured=measured.text,
        numbers=json.dumps(finite(measured.numbers), allow_nan=False),
        failed=failed,
        runs=runs,
        seed=seed,
        sizes=json.dumps(sizes),
        environment=json.dumps(describe_environment()),
    )


@public
def draw(dataset):
    """The picture of a figure's data.

    **Args:** `dataset`, from `compute` or `open_figure`.

    **Returns:** a matplotlib figure, not attached to any window.

    **Raises:** `ValueError` for what is not the data of a figure.

    Example:

        >>> data = ld.figures.compute("g19-table1", sets=("iris",))
        >>> picture = ld.figures.draw(data)
        >>> print(picture.get_suptitle())
        G19 Table 1: how nearly inputs and targets share their components
    """
    if getattr(dataset, "attrs", {}).get("figure") not in FIGURES:
        raise ValueError(
            "Argument `dataset` must be the data of a figure, from `compute` or `open_figure`, "
            f"but is of type {type(dataset).__name__}."
        )
    import matplotlib.figure

    from .. import plots

    figure = FIGURES[dataset.attrs["figure"]]
    failed, runs = dataset.attrs["failed"], dataset.attrs["runs"]
    with plots.style():
        picture = matplotlib.figure.Figure(figsize=figure.size)
        figure.draw(picture, dataset)
        left_out = f"; {failed} of {runs} runs failed and are left out" if failed else ""
        title = (
            f"{figure.source}: {figure.title}" if figure.source != OWN else figure.title[0].upper() + figure.title[1:]
        )
        picture.suptitle(title + left_out, fontsize=9)
    return picture


@public
def make(
    name: str,
    folder: str | os.PathLike = "figures",
    *,
    quick: bool = False,
    seed: int = 0,
    cache: dict | None = None,
    progress: Progress | None = None,
    **sizes: Any,
) -> Made:
    """Computes and draws one figure, and saves its data beside the picture.

    **Args:** `folder`, made if it is not there, in which files of this name are replaced; the others as for `compute`.

    **Returns:** a `Made`.

    **Raises:** `ValueError` for an unknown name or size, or a folder that is a file.

    Example:

        >>> made = ld.figures.make("g19-table1", "figures", sets=("iris",))
        >>> print([path.name for path in made.paths])
        ['g19-table1.png', 'g19-table1.pdf', 'g19-table1.zarr']
    """
    from .. import plots

    (name,) = names(name)
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder: choose another one.")
    begin = time.perf_counter()
    dataset = compute(name, quick=quick, seed=seed, cache=cache, progress=progress, **sizes)
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / f"{name}.zarr"
    write(dataset, store)
    paths = (*plots.save(draw(dataset), folder, name), store)
    facts = {key: dataset.attrs[key] for key in ("source", "shows", "reference", "measured", "failed", "runs")}
    numbers, seconds = json.loads(dataset.attrs["numbers"]), time.perf_counter() - begin
    return Made(name, numbers=numbers, paths=paths, seconds=seconds, **facts)


@public
def make_all(
    chosen: tuple[str, ...] | None = None,
    folder: str | os.PathLike = "figures",
    *,
    quick: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    begun: Callable[[str], None] | None = None,
    done: Callable[[Made], None] | None = None,
) -> list[Made]:
    """Several figures, all by default; those drawn from the same data compute it once.

    **Args:** `chosen`, names; `begun`, called with each name, and `done`, with each `Made`; the others as for `make`.

    **Returns:** a list of `Made`.

    **Raises:** as `make`.

    Example:

        >>> made = ld.figures.make_all(("g19-table1",), "figures", quick=True)
        >>> print([each.source for each in made], made[0].runs, made[0].failed)
        ['G19 Table 1'] 8 0
    """
    cache: dict = {}
    result = []
    for name in names() if chosen is None else chosen:
        if begun is not None:
            begun(name)
        result.append(make(name, folder, quick=quick, seed=seed, cache=cache, progress=progress))
        if done is not None:
            done(result[-1])
    return result


@public
def open_figure(path: str | os.PathLike):
    """The data of a figure on disk, as `compute` returned it.

    **Args:** `path`, the `.zarr` folder beside the picture.

    **Returns:** an `xarray.Dataset`.

    **Raises:** `FileNotFoundError` if nothing is there, `ValueError` if it is not a figure's data.

    Example:

        >>> made = ld.figures.make("g19-table1", "figures", sets=("iris",))
        >>> data = ld.open_figure("figures/g19-table1.zarr")
        >>> print(data.attrs["source"], data["delta_x"].values)
        G19 Table 1 [[0.4911 0.4797]]
    """
    import xarray as xr

    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"There is no figure data at {path}.")
    try:
        check_dataset(path)
        dataset = xr.open_zarr(path, consolidated=False, chunks=None).load()
    except StoreError:
        raise
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is not the data of a figure: choose a folder NAME.zarr beside a picture.") from error
    if dataset.attrs.get("figure") not in FIGURES:
        raise ValueError(f"{path} is not the data of a figure: choose a folder NAME.zarr beside a picture.")
    for name in ("files", "checksum"):
        dataset.attrs.pop(name, None)
    return dataset


@public
def describe(mapping: Mapping[str, Figure] = FIGURES) -> list[tuple[str, str, str]]:
    """Name, source and title of every figure.

    **Args:** `mapping`, name -> figure, all by default.

    **Returns:** a list of (name, source, title).

    Example:

        >>> print(ld.figures.describe()[0])
        ('t21-figure1', 'T21 Fig. 1', 'matrix factorization from starts of three scales')
    """
    return [(name, figure.source, figure.title) for name, figure in mapping.items()]
