"""Learning dynamics of overparametrized linear networks: exact, batched and differentiable."""

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._names import *  # noqa: F403
    from ._names import __all__ as __all__

__version__ = "0.2.0"


def __getattr__(name: str):
    # Everything is imported when the first name is asked for. The import of a module of the package, which asks here as well, is
    # of that module alone: a command imports what it needs, after it has said how JAX is to start.
    importing = sys._getframe(1).f_globals.get("__name__") == "importlib._bootstrap"
    if importing or (name.startswith("_") and name != "__all__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    names = importlib.import_module(f"{__name__}._names")
    return globals()[name] if name in globals() else getattr(names, name)


def __dir__() -> list[str]:
    return [*globals(), *importlib.import_module(f"{__name__}._names").__all__]
