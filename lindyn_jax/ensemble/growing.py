"""Stores that grow: a run that asks for more trials than there are computes only those."""

import os
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _files
from .building import build
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


def add_trials(store: "SweepStore", new: tuple, chunks: np.ndarray) -> None:
    """Makes room for more trials: the new store takes the complete chunks along.

    **Args:** `store`, that grows; `new`, what `build` makes it of; `chunks`, which of those that are there are kept.
    """
    there = store.snapshot().attributes
    with store.building() as building:
        build(building, *new, identity=there["identity"])
        if _files.is_remote(store.path):
            # Files of chunks stay where they are.
            for index in [*np.flatnonzero(~chunks).tolist(), len(chunks)]:
                (store.path / mark_of(index)).unlink(missing_ok=True)
            store.replace_by(building)
            return
        keys = [key for index in np.flatnonzero(chunks).tolist() for key in files_of(there["layout"], index)]
        keys += [mark_of(index) for index in np.flatnonzero(chunks).tolist()]
        for key in keys:
            (building / key).parent.mkdir(parents=True, exist_ok=True)
            # Files of chunks are never changed, only replaced.
            try:
                os.link(store.path / key, building / key)
            except OSError:
                shutil.copyfile(store.path / key, building / key)
        _files.settle(building, [building / key for key in keys])
        store.replace_by(building)
