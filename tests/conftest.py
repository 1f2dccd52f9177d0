"""How the suite runs: its setting, the order of its files, and what its tests share."""

import re
import sys
from pathlib import Path

import pytest

# Files of a few tests that take long, and that are begun before all others: the last ones to be begun are short.
FIRST = [
    "types", "public_derivatives", "examples", "study_theorem12", "lowering", "readme", "study_lemma11", "fit_lambda0",
    "derivatives", "study_simulate", "cli_input", "ensemble", "theory_rates", "study_phases", "init", "losses", "noise",
    "theory_discrete", "reduction", "extending", "solvers", "exact_riccati", "contents", "implicit_bias", "deep",
    "not_finite", "tasks", "theory_rank", "exact_homogeneous", "study_audit", "descent",
]  # fmt: skip


def pytest_configure(config):
    # The process that hands out tests to others runs none of them: they start sooner without this.
    if config.getoption("dist", "no") == "no":
        import setting  # noqa: F401


def left_to_the_long_suite():
    """Name of a test -> the cases of it that are kept."""
    lines = Path(__file__).with_name("long.txt").read_text().splitlines()
    entries = [re.match(r"(\w+::\w+)((?: \[.*?\](?= \[|$))*)$", line).groups() for line in lines if line[0] != "#"]
    return {name: set(re.findall(r" \[(.*?)\](?= \[|$)", cases)) for name, cases in entries}


# Before tests are chosen by their marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    import jax

    kept, slow = left_to_the_long_suite(), pytest.mark.slow
    for item in items:
        name = f"{item.path.stem.removeprefix('test_')}::{item.originalname}"
        if name in kept and (not kept[name] or item.callspec.id not in kept[name]):
            item.add_marker(slow)
    place = {f"test_{name}": number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(FIRST)))
    if jax.default_backend() == "cpu":
        skip = pytest.mark.skip(reason="needs an accelerator")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Frees compiled programs between files where they become many: those of the whole suite need too many memory maps.

    What is left of a file stays until then, and is no longer looked through for what could be freed: ten seconds each time.
    """
    import gc

    import jax

    yield
    gc.freeze()
    maps = Path("/proc/self/maps")
    if not maps.exists() or len(maps.read_bytes().splitlines()) > 40_000:
        gc.unfreeze()
        jax.clear_caches()


@pytest.fixture
def rng(request):
    """A generator seeded by the test's own name; the seed is printed so that a failure can be repeated."""
    import numpy as np

    seed = sum(ord(c) * 31**i for i, c in enumerate(request.node.name)) % 2**32
    print(f"seed of {request.node.name}: {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    import numpy as np

    return np.dtype(request.param)


@pytest.fixture(scope="session")
def call():
    """Runs the command line in this process: (exit code, standard output, standard error)."""
    import contextlib
    import io

    from lindyn_jax import cli

    def run(*arguments):
        printed, notes = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(notes),
            pytest.raises(SystemExit) as ended,
        ):
            patch.setattr(sys, "argv", ["lindyn-jax", *map(str, arguments)])
            cli.main()
        return ended.value.code or 0, *(stream.buffer.getvalue().decode() for stream in (printed, notes))

    return run
