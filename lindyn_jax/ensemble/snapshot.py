"""What a store holds at one moment."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from .. import _files
from .names import STOPPED

# Attributes of the store that are its own business.
_INTERNAL = ("identity", "layout", "files", "checksum")


class Snapshot(NamedTuple):
    """What a store holds, all of it read at one moment.

    **Fields:** `attributes` of the store; `complete`, which chunks are; `stop`, after how many chunks and trials the study was
    stopped early, or `None`; `files`, what may be read, by length and checksum; `damaged`, what is wrong with chunks that were
    complete once, by their index.
    """

    attributes: dict[str, Any]
    complete: np.ndarray
    stop: tuple[int, int] | None
    files: dict[str, _files.Stamp]
    damaged: dict[int, str]

    @property
    def used(self) -> np.ndarray:
        """Which chunks count: the complete ones, up to where the study was stopped early if it was."""
        used = self.complete.copy()
        if self.stop is not None:
            used[self.stop[0] :] = False
        return used

    @property
    def computed(self) -> np.ndarray:
        """Which trials count."""
        return np.repeat(self.used, self.attributes["chunk"])[: self.attributes["trials"]]

    @property
    def described(self) -> dict[str, Any]:
        """The attributes that a reader is shown."""
        stop = {} if self.stop is None else {STOPPED: dict(zip(("chunks", "trials"), self.stop, strict=True))}
        done, wanted = int(self.computed.sum()), self.attributes["trials"]
        state = {"state": f"{done} of {wanted} trials are there"} if done < wanted else {}
        return state | {name: value for name, value in self.attributes.items() if name not in _INTERNAL} | stop

    def warn_of_damage(self, path: _files.Place) -> None:
        """Warns if chunks that were complete once are not any more, and says what happens to them."""
        if self.damaged:
            index, reason = next(iter(self.damaged.items()))
            number = len(self.damaged)
            warnings.warn(
                f"{number} chunk{'s' * (number > 1)} of {path} {'are' if number > 1 else 'is'} damaged (chunk {index}: "
                f"{reason}): the trials count as not computed, and the same run computes them again.",
                UserWarning,
                stacklevel=4,
            )
