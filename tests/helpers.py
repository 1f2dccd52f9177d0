"""What several test files share: reference cases, tolerances by dtype, and comparisons by norm."""

import functools
import inspect
import io
import json
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

DATA = Path(__file__).parent / "data"


def load_cases(name: str) -> dict[str, dict]:
    """The reference cases of tests/data/NAME.json by case name."""
    cases = json.loads((DATA / f"{name}.json").read_text())["cases"]
    return {case["name"]: case for case in cases}


class Compiled:
    """The functions of a module, each called as one compiled program.

    Called as they are, they compile a program for each of their operations and shapes: ten times as many.
    """

    def __init__(self, module):
        self._module = module

    def __getattr__(self, name):
        function = getattr(self._module, name)
        if not inspect.isfunction(function):
            return function
        program = eqx.filter_jit(function)

        @functools.wraps(function)
        def call(*args, **kwargs):
            args = [jnp.asarray(x) if isinstance(x, (float, np.floating)) else x for x in args]
            return program(*args, **kwargs)

        setattr(self, name, call)
        return call


def tolerance(dtype, factor: float = 1.0) -> float:
    """The one place where tolerances come from: float64 to 1e-12, float32 to 1e-5, times a stated factor."""
    return {"float64": 1e-12, "float32": 1e-5}[np.dtype(dtype).name] * factor


def relative_error(value, expected) -> float:
    """Norm of the difference over max(1, norm of the expected value): NaN and infinity count as infinite error."""
    value, expected = np.asarray(value, float), np.asarray(expected, float)
    assert value.shape == expected.shape, f"shapes differ: {value.shape} and {expected.shape}"
    difference = np.linalg.norm((value - expected).ravel())
    error = difference / max(1.0, np.linalg.norm(expected.ravel()))
    return float(error) if np.isfinite(error) else float("inf")


def integrated(gradient, U, V, ts, rtol: float = 1e-12) -> tuple[np.ndarray, np.ndarray]:
    """U and V at `ts` under U' = -G V, V' = -G^T U by SciPy, which knows nothing of the library and compiles nothing.

    `gradient` gives G from U V^T. Leading axes of U and V are a batch; times come first in what is returned.
    """
    U, V = np.asarray(U, float), np.asarray(V, float)

    def velocity(t, y):
        A, B = y[: U.size].reshape(U.shape), y[U.size :].reshape(V.shape)
        G = np.asarray(gradient(A @ np.swapaxes(B, -1, -2)))
        return -np.concatenate([(G @ B).ravel(), (np.swapaxes(G, -1, -2) @ A).ravel()])

    start = np.concatenate([U.ravel(), V.ravel()])
    path = solve_ivp(velocity, (0, ts[-1]), start, "DOP853", t_eval=ts, rtol=rtol, atol=rtol / 100).y.T
    return path[:, : U.size].reshape(-1, *U.shape), path[:, U.size :].reshape(-1, *V.shape)


def assert_fits(parts, *keys: str, width: int = 80) -> None:
    """What a command prints has no line beyond `width`, cuts no cell, and its first table is known by its key columns.

    They begin every part of a table that is printed in several; parts are told by their rules.
    """
    from rich.cells import cell_len
    from rich.console import Console

    from lindyn_jax.cli import _tables

    first = next(part for part in parts if not isinstance(part, str))
    assert tuple(first.columns[: first.named]) == keys
    for part in parts:
        file = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            # A pipe of this width, where sentences are broken as well.
            patch.setenv("COLUMNS", str(width))
            _tables.show(Console(file=file, width=width, markup=False, emoji=False, highlight=False), [part])
        lines = file.getvalue().splitlines()
        assert max(map(cell_len, lines)) <= width and "…" not in file.getvalue()
        if isinstance(part, str):
            assert " ".join(lines).split() == part.split()
            continue
        rows = [list(map(str, row)) for row in part.rows if row is not None]
        count = sum(set(line) == {"─"} for line in lines)
        begun = [tuple(" ".join(row[: part.named]).split()) for row in rows]
        for row, start in zip(rows, begun, strict=True):
            for name, cell in zip(part.columns, row, strict=True):
                assert (
                    all(word in file.getvalue() for word in cell.split())
                    if name in part.words
                    else any(cell in line for line in lines)
                ), (name, cell)
            # Words that are broken begin as they may.
            if count and max(map(len, row[: part.named])) <= _tables.SHORT:
                found = sum(tuple(line.split()[: len(start)]) == start for line in lines)
                assert found == count * begun.count(start), (start, found, count)
