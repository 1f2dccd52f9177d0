"""Monte Carlo: a trial function over a labelled grid times trials, in one compilation, as a labelled dataset.

Trial t has the key `fold_in(key, t)` at every grid point, so results do not depend on how the work is cut up, and points of
the grid are compared on common random numbers. A chunk of trials is the unit of work, of storage and of resume: it is spread
over the devices of a process, reduced on one of them, and only then leaves it. Chunks are tasks of any executor.
"""

from .batches import BATCHES, BLOCK, Runner, Trial
from .building import FORMAT
from .machine import describe_environment, free_memory
from .names import COMPLETE, ROOT, Variable
from .reading import Merged, open_reductions, open_sweep, progress_of
from .run import Progress, StopWhen, masked, run_ensemble
from .snapshot import Snapshot
from .store import SweepStore
from .verified import StoreError, check_dataset, save_dataset
from .work import WorkerError

__all__ = [
    "BATCHES",
    "BLOCK",
    "COMPLETE",
    "FORMAT",
    "ROOT",
    "Merged",
    "Progress",
    "Runner",
    "Snapshot",
    "StopWhen",
    "StoreError",
    "SweepStore",
    "Trial",
    "Variable",
    "WorkerError",
    "check_dataset",
    "describe_environment",
    "free_memory",
    "masked",
    "open_reductions",
    "open_sweep",
    "progress_of",
    "run_ensemble",
    "save_dataset",
]
