"""`--cluster`: the chunks of a study computed by the workers of a Dask scheduler, or by processes of this machine."""

import concurrent.futures
import contextlib
import functools
import json
import time
from pathlib import Path
from typing import Any

from . import _endings
from ._common import prepare_process, shortened

TIMEOUT = 10.0


def cluster_of(text: str | None, notes):
    """The executor that an option names, to be entered; `None` inside it where there is no option.

    **Raises:** `ValueError` for what names none, and where the extra is missing.
    """
    if text is None:
        return contextlib.nullcontext()
    kind, _, rest = text.partition(":")
    if kind == "local" and rest.isascii() and rest.isdigit() and 0 < int(rest) <= 1024:
        options: dict[str, Any] = {"workers": int(rest)}
    elif text.startswith(("tcp://", "tls://")) and text.rpartition(":")[2].isdigit():
        options = {"address": text}
    elif text.endswith(".json"):
        options = {"address": _scheduler_in(Path(text))}
    else:
        raise ValueError(
            f"Option --cluster must be tcp://HOST:PORT, a scheduler file FILE.json or local:N with N processes, but is "
            f"{shortened(text)!r}."
        )
    try:
        import distributed  # noqa: F401
    except ModuleNotFoundError:
        raise ValueError("Option --cluster needs Dask: pip install 'lindyn_jax[cluster]'.") from None
    return Cluster(notes, **options)


def _scheduler_in(file: Path) -> str:
    try:
        return "" + json.loads(file.read_bytes())["address"]
    except OSError as error:
        raise ValueError(_endings.described(error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is no scheduler file, which holds the `address` of a scheduler: choose another one."
        ) from error


class Cluster(concurrent.futures.Executor):
    """The workers of a scheduler, looked for when the first task is there.

    **Args:** `notes`, the console on which waiting is told; `address` of the scheduler, or `workers`, the number of processes to
    start here.
    """

    def __init__(self, notes, address: str | None = None, workers: int = 0):
        self.notes, self.address, self.workers = notes, address, workers
        self.stack = contextlib.ExitStack()

    @functools.cached_property
    def client(self):
        import distributed

        if self.address is None:
            # Without a look at the log: what workers say at their end is no news.
            options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
            cluster = distributed.LocalCluster(n_workers=self.workers, processes=True, **options)
            client = self.stack.enter_context(distributed.Client(self.stack.enter_context(cluster)))
        else:
            try:
                client = self.stack.enter_context(distributed.Client(self.address, timeout=TIMEOUT))
            except (OSError, TimeoutError) as error:
                raise ValueError(
                    f"No scheduler answers at {self.address} within {TIMEOUT:g} s: start one by `dask scheduler`, or choose "
                    "another --cluster."
                ) from error
        client.register_plugin(_plugin())
        told = False
        while not client.scheduler_info(n_workers=1)["workers"]:
            if not told:
                self.notes.print(
                    f"no worker at {self.address}: waiting for one (`dask worker {self.address} --nthreads 1`)"
                )
            told = True
            _endings.check()
            time.sleep(0.2)
        return client

    def submit(self, fn, /, *arguments, **options):
        return self.client.get_executor(pure=False).submit(fn, *arguments, **options)

    def __exit__(self, kind, error, trace):
        import distributed

        self.stack.close()
        if kind is not None and issubclass(kind, distributed.KilledWorker):
            raise ValueError(
                "One chunk has ended several workers, which may have had too little memory: choose a smaller --chunk. Complete "
                "chunks are kept."
            ) from error
        if kind is not None and issubclass(kind, concurrent.futures.CancelledError):
            raise ValueError(
                "The scheduler is gone: complete chunks are kept, and the same command goes on from there."
            ) from error


def _plugin():
    import distributed

    class Setting(distributed.WorkerPlugin):
        """Precision and devices of a worker, those that join later included."""

        name = "lindyn_jax"

        def setup(self, worker):
            prepare_process(worker.state.nthreads)

    return Setting()
