"""`lindyn-jax info`."""

from pathlib import Path

from . import _cache, _output
from ._common import configure, consoles
from ._output import CsvOption, JsonOption
from ._tables import say


def info(json_: JsonOption = False, csv: CsvOption = None) -> None:
    """Versions, devices, precision and compilation cache: what to add to a report of a problem."""
    configure()
    _output.check(csv, json_)
    from .._checks import jax_setting
    from ..ensemble import describe_environment

    environment = describe_environment()
    place = jax_setting("jax_compilation_cache_dir")
    kept_there = _cache.held(Path(place)) if place else _cache.Held(0, 0)
    own = place == str(_cache.folder())
    cache = {
        "folder": jax_setting("jax_compilation_cache_dir") if jax_setting("jax_enable_compilation_cache") else None,
        "least_seconds": jax_setting("jax_persistent_cache_min_compile_time_secs"),
        "programs": kept_there.programs,
        "bytes": kept_there.size,
        "most_bytes": _cache.MOST_BYTES if own else None,
    }
    if cache["folder"]:
        limit = f" of at most {_cache.MOST_BYTES / 2**20:.0f}" if own else ""
        kept = f"{cache['folder']}, {kept_there.programs} programs, {kept_there.size / 2**20:.1f}{limit} MiB"
        if cache["least_seconds"] > 0:
            kept += f", for programs that take {cache['least_seconds']:g} s or more to compile"
    else:
        kept = "off: every process compiles anew"
    number = environment["devices"]
    lines = {
        "versions": ", ".join(f"{package} {version}" for package, version in environment["versions"].items()),
        "devices": f"{environment['device']}, {number} local device{'s' if number > 1 else ''} ({environment['backend']})",
        "precision": f"{environment['float']} in every command; matmul precision {environment['matmul_precision']}",
        "cache": kept,
    }
    known = _output.told(
        "info",
        {},
        ({"name": name, "value": text} for name, text in lines.items()),
        **environment,
        compilation_cache=cache,
    )
    console, _ = consoles()
    if _output.show(console, known, [], json_, csv):
        for name, text in lines.items():
            say(console, f"{name:<10} {text}", indent=11)
