"""Pages of the documentation as programs: their blocks are run in order, and print what the pages show.

A block of Python is run, and written to the file that its first line names, if that is a comment such as `# study.py`. Lines of
a block `sh` that begin with `lindyn-jax` or `python` are run in this process. A block `text` is what the block before it prints,
with numbers compared in as many digits as are written, and `...` for anything.
"""

import contextlib
import doctest
import io
import re
import runpy
import shlex
import sys

import numpy as np
from _pytest.doctest import _get_checker

from lindyn_jax import cli
from lindyn_jax.observables import OBSERVABLES

NUMBER = doctest.register_optionflag("NUMBER")
FLOAT = r"-?\d+\.?\d*(?:e[+-]?\d+)?"
FLAGS = NUMBER | doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def blocks(text):
    """(language, text) of every block of code on a page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)


def check_printed(printed, shown):
    """Refuses what is not what is shown; numbers may differ beyond the digits shown, or by a millionth of their size."""
    printed_numbers, shown_numbers = ([float(x) for x in re.findall(FLOAT, text)] for text in (printed, shown))
    same = _get_checker().check_output(shown, printed, FLAGS) or (
        re.sub(FLOAT, "#", printed).split() == re.sub(FLOAT, "#", shown).split()
        and np.allclose(printed_numbers, shown_numbers, rtol=1e-6, atol=0)
    )
    assert same, f"the page shows\n{shown}\nbut this is printed\n{printed}"


def run(text, smaller=()):
    """Runs the blocks of a page.

    **Args:** `smaller`, how a command begins -> options that make it small, in which case what it prints is not compared, or
    `None` where it is not run.
    """
    smaller, names, found = dict(smaller), {"__name__": "page"}, blocks(text)
    with own_observables():
        run_blocks(found, names, smaller)
    return names


def run_blocks(found, names, smaller):
    for (language, block), (follows, shown) in zip(found, [*found[1:], ("", "")], strict=True):
        whole = True
        if language == "python":
            printed = run_python(block, names)
        elif language == "sh":
            printed, whole = run_shell(block, smaller)
        else:
            continue
        if whole and follows == "text":
            check_printed(printed, shown)
        elif language == "python":
            assert not printed, f"printed, but not shown: {printed}"


@contextlib.contextmanager
def own_observables():
    """A program of its own knows the observables of this package alone, and those that it makes end with it."""
    ours = {name: function for name, function in OBSERVABLES.items() if function.__module__.startswith("lindyn_jax.")}
    kept = dict(OBSERVABLES)
    try:
        OBSERVABLES.clear()
        OBSERVABLES.update(ours)
        yield
    finally:
        OBSERVABLES.clear()
        OBSERVABLES.update(kept)


def run_python(block, names):
    named = re.match(r"# (\w+\.py)\n", block)
    if named:
        with open(named[1], "w") as file:
            file.write(block)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, "page", "exec"), names)
    return printed.getvalue()


def run_shell(block, smaller):
    """What the commands of a block print, and whether all of them were run as they stand."""
    printed, whole = "", True
    for line in block.replace("\\\n", " ").splitlines():
        command = line.partition("  #")[0].strip()
        words = shlex.split(command)
        if words[:1] not in (["lindyn-jax"], ["python"]):
            continue
        less = [more for beginning, more in smaller.items() if command.startswith(beginning)]
        whole = whole and not less
        if None in less:
            continue
        words += shlex.split(" ".join(less))
        printed += run_command(words)
    return printed, whole


def run_command(words):
    """What a command prints to standard output, if it ends well."""
    before, printed, notes = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = words if words[0] == "lindyn-jax" else words[1:]
    try:
        with own_observables(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(notes):
            if words[0] == "lindyn-jax":
                cli.main()
            else:
                runpy.run_path(words[1], run_name="__main__")
    except SystemExit as ended:
        assert not ended.code, f"{shlex.join(words)} ends with {ended.code}: {notes.getvalue()}"
    finally:
        sys.argv = before
    return printed.getvalue()
