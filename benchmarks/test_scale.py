"""A million trials of Lemma 11: time on the cores that are there, and memory from 1e4 to 1e6 trials."""

import json
import os
import subprocess
import sys
import time

from common import record

# Peak memory of the process itself, compilation and all, read at its end.
PROGRAM = """
import json, resource, sys, time
from lindyn_jax.cli._common import configure
configure()
import jax
from lindyn_jax.studies import lemma11
begin, cpu = time.perf_counter(), time.process_time()
trials, out = int(sys.argv[1]), sys.argv[2]
dataset = lemma11.run(lemma11.sizes(20, 5, 2), [42], [0.5], trials, chunk=10_000, store=out)
row = {
    "trials": trials,
    "seconds": time.perf_counter() - begin,
    "cpu_seconds": time.process_time() - cpu,
    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "events_33": int(dataset["level_is_large"].values.item()),
    "devices": len(jax.local_devices()),
}
print(json.dumps(row))
"""


def measure(trials, out):
    begin = time.perf_counter()
    ended = subprocess.run([sys.executable, "-c", PROGRAM, str(trials), str(out)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return {**json.loads(ended.stdout), "seconds_with_start_of_python": time.perf_counter() - begin}


def test_a_million_trials_of_lemma_11_in_the_memory_of_ten_thousand(tmp_path):
    rows = []
    for trials in (10_000, 100_000, 1_000_000):
        rows.append(measure(trials, tmp_path / str(trials)))
        rows[-1]["load_average"] = os.getloadavg()[0]
        print(rows[-1])
    peaks = [row["peak_mib"] for row in rows]
    rows.append({"peak_ratio": max(peaks) / min(peaks), "peak_growth_mib": peaks[-1] - peaks[0]})
    print(rows[-1], record("scale", rows))
    # The list of complete chunks grows by a byte for each: anything else would show in tens of MiB.
    assert peaks[-1] - peaks[0] < 40
    # Thirty seconds of two cores: processor time, so that what else runs there does not count.
    assert rows[2]["cpu_seconds"] < 60
