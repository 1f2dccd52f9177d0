"""Where studies begin: objects, functions of a key, and networks as they are."""

import functools
from typing import Any

from .. import init
from ..init._parts import Key
from ..models import AbstractModel
from ..problems import LeastSquares


class Given(init.AbstractStart):
    """A network as it is. **Fields:** `model`."""

    model: AbstractModel

    def draw(self, problem: LeastSquares, *, key: Key) -> AbstractModel:
        return self.model

    def label(self) -> str:
        width = getattr(self.model, "width", None)
        return type(self.model).__name__ + ("" if width is None else f" of width {float(width):g}")


@functools.singledispatch
def as_start(start: Any) -> init.AbstractStart:
    """A start, a function of a key or a network as a start."""
    return init.FromFunction(start)


as_start.register(init.AbstractStart, lambda start: start)
as_start.register(AbstractModel, Given)
