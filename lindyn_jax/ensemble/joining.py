"""Sweeps of a longer grid: the points that are new are computed in a store beside the one that is there, and joined to it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .building import Plan, build
from .folder import MORE
from .names import TRIAL, Variable
from .reading import Merged, open_sweep
from .records import plain, same
from .store import SweepStore
from .verified import StoreError

# Runs the trials at hand on another grid: grid, number of trials, store, progress.
Again = Callable[[Mapping[str, np.ndarray], int, Any, Any], Any]
# Reductions of single trials, shape (points, chunk, ...), of which so many count.
Reduce = Callable[[Mapping[str, np.ndarray], int], dict[str, np.ndarray]]


def add_points(
    store: SweepStore, axis: str, again: Again, grid: Mapping[str, np.ndarray], plan: Plan, progress, reduce: Reduce
) -> None:
    """Adds the points of a longer grid coordinate, which are computed in a store beside this one and then joined to it.

    **Args:** `store`, that grows, finished; `axis`, name of the coordinate; `again`, which runs the trials; `grid`, the whole of
    it; `plan` of the new store; `progress`, of the points that are added; `reduce`, which reduces single trials.

    **Raises:** `StoreError` for a store that is not finished, for a reduction over the coordinate itself where no trials are
    kept, and where the trials that are there are no longer those that would be computed.
    """
    variables, _, settings, _, trials, chunk, reduced = plan
    if not store.is_finished(trials):
        raise StoreError(
            f"{store.path} is not finished, and other values of `{axis}` are asked for: finish it as it was begun, or choose "
            "another folder."
        )
    over = [name for name, variable in reduced.items() if axis not in variable.dims]
    if over and not variables:
        raise StoreError(
            f"The reduction `{over[0]}` of {store.path} is one of all values of `{axis}`, of which there are more now: choose "
            "another folder."
        )
    former = {name: np.asarray(values) for name, values in store.snapshot().attributes["settings"]["grid"].items()}
    _check_first(store, axis, again(former, min(chunk, trials), None, None), variables, min(chunk, trials))
    side = SweepStore(store.place.beside(MORE))
    values = grid[axis]
    added = values[~np.isin(values, former[axis])]
    points = {**grid, axis: added}
    # What reductions look like follows from the rest.
    wanted = {**settings, "reductions": 0, "grid": {name: values.tolist() for name, values in points.items()}}
    if side.path.exists() and not _asks(side, wanted):
        # What a run has left that asked for others.
        side.place.remove()
    again(points, trials, side, progress)
    both = np.concatenate([former[axis], added])
    order = [int(np.flatnonzero(both == value)[0]) for value in values]

    def joined(variable: Variable, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        place = variable.dims.index(axis)
        return np.take(np.concatenate([first, second], place), order, place)

    there, here = store.snapshot(), side.snapshot()
    datasets = [open_sweep(each.path) for each in (store, side)] if variables else []
    with store.place.building() as building:
        build(building, plan)
        whole = SweepStore(building)
        for index in range(len(there.complete)):
            part = slice(index * chunk, min((index + 1) * chunk, trials))
            single = {
                name: joined(variable, *(dataset[name].isel({TRIAL: part}).values for dataset in datasets))
                for name, variable in variables.items()
            }
            if variables:
                padded = {
                    name: np.pad(
                        value.reshape(-1, *value.shape[len(grid) :]),
                        [(0, 0), (0, chunk - part.stop + part.start), *[(0, 0)] * (value.ndim - len(grid) - 1)],
                        mode="edge",
                    )
                    for name, value in single.items()
                }
                parts = reduce(padded, part.stop - part.start)
            else:
                both_parts = store.read_reduced(index, there), side.read_reduced(index, here)
                parts = {name: joined(v, *(each[name] for each in both_parts)) for name, v in reduced.items()}
            whole.write(index, part, single, parts)
        store.place.replace(building)


def _asks(side: SweepStore, wanted: Mapping[str, Any]) -> bool:
    """Whether a store is one of these points, and not what is left of one that was being removed."""
    try:
        there = side.settings()
    except StoreError:
        return False
    return same({**(there or {}), "reductions": 0}, plain(wanted))


def _check_first(store: SweepStore, axis: str, found, variables: Mapping[str, Variable], trials: int) -> None:
    """Refuses to join points where a trial depends on the other points of the grid: the first chunk is computed once more."""
    if variables:
        dataset = open_sweep(store.path).isel({TRIAL: slice(0, trials)})
        there = {name: dataset[name].values for name in variables}
    else:
        parts = store.read_reduced(0)
        merged = Merged({name: found[name].attrs["merging"] for name in parts})
        merged.add(parts)
        there = merged.values
    differ = [name for name, values in there.items() if not np.array_equal(values, found[name].values, equal_nan=True)]
    if differ:
        raise StoreError(
            f"The trials in {store.path} are not those of the longer `{axis}` (`{differ[0]}` differs): a trial depends on the "
            "other points of its grid, or batches of another size are rounded in another way. Choose another folder."
        )
