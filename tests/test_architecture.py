"""Imports go one way, and importing the package stays light and sets nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import lindyn_jax

ROOT = Path(lindyn_jax.__file__).parent
LAYERS = (
    (
        "_linalg",
        "_roots",
        "_svd",
        "_checks",
        "_derivatives",
        "_equivariance",
        "_files",
        "_html",
        "_keyed",
        "_norms",
        "_polar",
        "_public",
        "_text",
    ),
    ("problems",),
    ("models", "_finite", "_modes", "_statement"),
    ("init", "observables", "trajectory", "reduction", "gauge", "solvers", "statistics"),
    ("methods", "noise", "_driver", "_rest", "_stop"),
    ("flow", "descent", "diffusion", "directions", "limits", "exact", "theory", "data"),
    ("ensemble", "fits", "optimizers", "tasks"),
    ("plots",),
    ("studies",),
    ("figures",),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
# What imports all of the package.
WHOLE = {"__init__", "__main__", "_names"}
DRAWING = {"plots", "studies", "figures", "cli"}


def part_of(path):
    """The module or folder of the package that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path, *, anywhere=True):
    """Full names of what a file imports; with `anywhere=False` only while it is being imported itself."""
    package = ("lindyn_jax", *path.relative_to(ROOT).parts[:-1])

    def names(node):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*base, *([node.module] if node.module else [])))
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif anywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            for child in ast.iter_child_nodes(node):
                yield from names(child)

    return set(names(ast.parse(path.read_text())))


def files():
    return sorted(path for path in ROOT.rglob("*.py"))


def own(path, **options):
    """The parts of this package that a file imports from."""
    parts = (name.split(".") for name in imports(path, **options) if name.split(".")[0] == "lindyn_jax")
    return {part[1] for part in parts if len(part) > 1}


def test_the_reading_of_imports_sees_them():
    assert "models" in own(ROOT / "flow.py") and "diffrax" in imports(ROOT / "flow.py")
    assert {"problems", "theory"} <= own(ROOT / "_names.py")


def test_every_module_has_a_layer():
    parts = {part_of(path) for path in files()} - WHOLE
    assert parts <= set(LEVEL), f"give {sorted(parts - set(LEVEL))} a place in LAYERS"


def test_imports_go_one_way():
    for path in files():
        part = part_of(path)
        if part in WHOLE:
            continue
        higher = {name for name in own(path) if LEVEL.get(name, -1) > LEVEL[part]}
        assert not higher, f"{path.relative_to(ROOT)} imports {sorted(higher)} from a layer above it"


def test_closed_forms_and_statements_do_not_use_the_simulators():
    for folder in ("exact", "theory"):
        for path in (ROOT / folder).rglob("*.py"):
            used = own(path) & {"flow", "descent", "ensemble", "studies"}
            assert not used, f"{path.relative_to(ROOT)} imports {sorted(used)}"


def test_only_drawing_modules_import_matplotlib():
    for path in files():
        if part_of(path) not in DRAWING:
            found = {name for name in imports(path) if name.split(".")[0] == "matplotlib"}
            assert not found, f"{path.relative_to(ROOT)} imports {sorted(found)}"


def alone(program):
    """Runs a program in a process of its own, which must not fail."""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended


def test_importing_the_package_is_light_and_sets_nothing():
    program = (
        "import sys, jax\n"
        "before = jax.config.jax_enable_x64\n"
        "import lindyn_jax\n"
        "lindyn_jax.gradient_flow\n"
        "heavy = {'matplotlib', 'zarr', 'xarray', 'typer', 'rich', 'pandas', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, sorted(heavy)\n"
        "assert jax.config.jax_enable_x64 == before == False\n"
    )
    alone(program)


def test_a_list_of_commands_imports_none_of_them():
    program = (
        "import contextlib, sys\n"
        "from lindyn_jax import cli\n"
        "for words in (['--help'], ['sweep', '--help'], ['sweep', 'lemma']):\n"
        "    sys.argv = ['lindyn-jax', *words]\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        cli.main()\n"
        "heavy = {'jax', 'numpy', 'matplotlib', 'xarray', 'lindyn_jax._names', 'lindyn_jax.studies'} & set(sys.modules)\n"
        "assert not heavy, sorted(heavy)\n"
    )
    ended = alone(program)
    assert "completion" in ended.stdout and "No such command 'lemma'" in ended.stderr


def test_a_study_is_read_without_solvers():
    program = (
        "import sys\n"
        "from lindyn_jax import studies\n"
        "heavy = {'diffrax', 'optimistix', 'matplotlib', 'xarray'} & set(sys.modules)\n"
        "assert not heavy, sorted(heavy)\n"
    )
    alone(program)


def test_a_name_of_the_package_is_imported_alone_as_a_module_and_with_everything_as_a_name():
    program = (
        "import sys\n"
        "from lindyn_jax import data, theory\n"
        "assert 'lindyn_jax.flow' not in sys.modules\n"
        "import lindyn_jax\n"
        "assert lindyn_jax.observables.OBSERVABLES.keys() >= {'loss', 'rate_bound'}\n"
        "assert set(lindyn_jax.__all__) <= set(dir(lindyn_jax))\n"
        "assert lindyn_jax.ensemble.SweepStore is lindyn_jax.SweepStore and not hasattr(lindyn_jax, 'nothing')\n"
    )
    alone(program)
