"""Compiled programs that are kept between commands, in the user's cache folder."""

import contextlib
import hashlib
import os
import platform
import sys
from pathlib import Path
from typing import NamedTuple

# Programs are some 100 KiB each. The oldest are removed beyond this.
MOST_BYTES = 512 * 2**20
# What any command takes besides its own options, for it is asked for in none of their functions.
OPTION = "--no-cache"
SENTENCE = f"Compiled programs are kept for the next time; {OPTION} does without."
# Commands that compile nothing.
WITHOUT = ("commutation", "show", "export", "compare", "list")


class State:
    """What the command at hand was asked for."""

    wanted = True


class Held(NamedTuple):
    """What a folder holds. **Fields:** `programs`, their number; `size`, in bytes."""

    programs: int
    size: int


def folder() -> Path:
    """Where programs of this kind of processor are kept: those of another one would not run here."""
    home = {"darwin": "~/Library/Caches", "win32": os.environ.get("LOCALAPPDATA", "~/AppData/Local")}
    place = Path(os.environ.get("XDG_CACHE_HOME") or home.get(sys.platform, "~/.cache")).expanduser()
    processor = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return place / "lindyn-jax" / f"programs-{hashlib.sha256(processor.encode()).hexdigest()[:12]}"


def turn_on() -> None:
    """Lets JAX keep all programs of this process; where the user has a folder of their own for that, or none, it stays so."""
    import jax

    from .._checks import jax_setting

    if not State.wanted:
        jax.config.update("jax_enable_compilation_cache", False)
    if not jax_setting("jax_enable_compilation_cache") or jax_setting("jax_compilation_cache_dir"):
        return
    place = folder()
    # A disk that is full or cannot be written to keeps nothing.
    with contextlib.suppress(OSError):
        place.mkdir(parents=True, exist_ok=True)
        shorten(place)
    if not os.access(place, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _files(place: Path) -> list[tuple[float, int, Path]]:
    """When each file was last used, its size and itself."""
    found = []
    for path in place.glob("*"):
        # Another process may be removing it.
        with contextlib.suppress(OSError):
            state = path.stat()
            found.append((max(state.st_atime, state.st_mtime), state.st_size, path))
    return found


def held(place: Path) -> Held:
    """How many programs a folder holds, and their size."""
    files = _files(place)
    return Held(sum(not path.name.endswith("-atime") for *_, path in files), sum(size for _, size, _ in files))


def shorten(place: Path, most: int = MOST_BYTES) -> None:
    """Removes what was not used for longest, until the rest is at most `most` bytes."""
    files = sorted(_files(place))
    size = sum(size for _, size, _ in files)
    for _, less, path in files:
        if size <= most:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        size -= less
