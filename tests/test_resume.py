"""A sweep killed at random moments ends with the same bits as an undisturbed one."""

import signal
import subprocess
import sys
import time

import lindyn_jax as ld
from lindyn_jax.store import open_reductions

SCRIPT = """
import sys, time
import jax
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
import lindyn_jax as ld
from lindyn_jax.studies import theorem12

rng = np.random.default_rng(0)
problem = ld.LeastSquares(rng.normal(size=(3, 8)), rng.normal(size=(3, 1)))
pause = float(sys.argv[2])
theorem12.run(
    problem, [1e2, 1e6], [0.5, 0.4], 40, seed=4, store=sys.argv[1], chunk=2, progress=lambda done, total: time.sleep(pause)
)
"""


def test_sweep_killed_twice_ends_with_the_same_bits(tmp_path, rng):
    script = tmp_path / "sweep.py"
    script.write_text(SCRIPT)

    def start(store, pause):
        return subprocess.Popen([sys.executable, str(script), str(store), str(pause)])

    assert start(tmp_path / "whole", 0).wait(timeout=200) == 0
    killed = tmp_path / "killed"
    progress = [0]
    for _ in range(2):
        process = start(killed, 0.1)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            done = int(ld.open_sweep(killed)["computed"].sum()) if killed.exists() else 0
            if done > progress[-1]:
                break
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
        progress.append(int(ld.open_sweep(killed)["computed"].sum()))
    # Each run was interrupted in the middle, and the second went on from the first.
    assert 0 < progress[1] < progress[2] < 40
    assert start(killed, 0).wait(timeout=200) == 0
    whole, resumed = ld.open_sweep(tmp_path / "whole"), ld.open_sweep(killed)
    assert bool(resumed["computed"].all())
    assert set(whole.variables) == set(resumed.variables)
    for name in whole.variables:
        assert whole[name].values.tobytes() == resumed[name].values.tobytes(), name
    whole, resumed = open_reductions(tmp_path / "whole"), open_reductions(killed)
    for name in whole.variables:
        assert whole[name].values.tobytes() == resumed[name].values.tobytes(), name
