"""Stores that grow: a run that asks for more trials than there are computes only those."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .building import Plan, build
from .names import TRIAL, files_of
from .records import mark_of, same

if TYPE_CHECKING:
    from .store import SweepStore


def growing_axis(there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """What settings ask for more of than those of a store, all else being equal: `"trials"`, or the name of a grid coordinate.

    **Returns:** `None` where they are equal, or differ in anything else.
    """
    differ = [name for name in {**there, **here} if not same(there.get(name), here.get(name))]
    if differ == ["trials"]:
        return TRIAL if there["trials"] < here["trials"] else None
    if differ == [] or "grid" not in there or list(there["grid"]) != list(here.get("grid", ())):
        return None
    # Of single trials any reductions can be taken, such as those whose range depends on the grid.
    if not set(differ) <= ({"grid", "reductions"} if here.get("keep_trials") else {"grid"}):
        return None
    axes = [name for name in here["grid"] if not same(there["grid"][name], here["grid"][name])]
    more = len(axes) == 1 and set(there["grid"][axes[0]]) < set(here["grid"][axes[0]])
    return axes[0] if more and len(set(here["grid"][axes[0]])) == len(here["grid"][axes[0]]) else None


def advice(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What to do about settings for which a store does not grow."""
    differ = [name for name in {**there, **here} if not same(there.get(name), here.get(name))]
    if differ == ["trials"]:
        return "to read those that are there takes no run (`open_sweep`, `lindyn-jax show`); for fewer choose another folder"
    if "trials" in differ and "trials" in there and growing_axis(there, {**here, "trials": there["trials"]}):
        return (
            "ask for more trials first, and for the other points of the grid in a second run, or choose another folder"
        )
    return "choose another folder or the same settings"


def add_trials(store: "SweepStore", plan: Plan, chunks: np.ndarray) -> None:
    """Makes room for more trials: the new store takes the complete chunks along.

    **Args:** `store`, that grows; `plan` of the new one; `chunks`, which of those that are there are kept.
    """
    there = store.snapshot().attributes
    kept, dropped = np.flatnonzero(chunks).tolist(), [*np.flatnonzero(~chunks).tolist(), len(chunks)]
    keys = [key for index in kept for key in (*files_of(there["layout"], index), mark_of(index))]
    with store.place.building() as building:
        build(building, plan, there["identity"])
        store.place.keep(building, keys, list(map(mark_of, dropped)))
        store.place.replace(building)
