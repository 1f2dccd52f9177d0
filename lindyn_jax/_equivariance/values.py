"""What arrays of an optimizer's program are when it runs at two sizes: a small lattice of kinds, and how two of them join."""

import dataclasses
import functools
from collections.abc import Iterable

A_SIZE = "a number in it depends on the sizes of the matrices"
BY_SIZE = "it does different things to matrices of different sizes"
BY_ENTRIES = "it chooses by entries of gradients or weights"
FINITE = "it looks at which entries are finite"
ORDER = "it reorders entries"
PARTS = "it treats parts of a matrix by themselves"
REPEATS = "it repeats entries"
SHAPED = "it makes arrays of numbers that have the shape of the weights"


class Obstacle(Exception):
    """What an optimizer does that does not commute, or that is not understood."""


@dataclasses.dataclass(frozen=True)
class Value:
    """What is known of an array.

    Of `degree` 0 it holds numbers: it is the same at both sizes, and constant along all axes but `varies`; numbers of the same
    `name` are equal. Of degree 1 it holds matrices in two frames, which lie along two of its axes, with a rest unless it
    `is_pure`; of degree 2 products of the entries of two such, of use only after their axes have been summed. With `parts`
    these are written out one after another: frames, axes and shapes at both sizes of each. With `unless` it is all this but
    where the number of that name has a certain value. Without a degree it is `sized` or `finite`.
    """

    degree: int | None = None
    varies: frozenset[int] = frozenset()
    is_zero: bool = False
    name: int | None = None
    frames: tuple = ()
    axes: tuple[int, ...] = ()
    parts: tuple = ()
    is_pure: bool = True
    unless: tuple[int, int] | None = None
    is_size: bool = False

    def but(self, **changes) -> "Value":
        return dataclasses.replace(self, **changes)

    def under(self, condition: tuple[int, int] | None) -> "Value":
        return self.but(unless=condition, name=None)

    def check(self, first: tuple, second: tuple) -> None:
        """Refuses an array that has other lengths at the other size than its kind may have."""
        if self.degree is None:
            return
        same = self.varies if self.degree == 0 else set(range(len(first))) - set(self.axes)
        if len(first) != len(second) or any(first[i] != second[i] for i in same) or (self.parts and len(first) > 1):
            raise Obstacle(REPEATS if self.degree else SHAPED)

    def along(self, places: dict[int, int], otherwise: str) -> "Value":
        """The array whose axis `places[i]` is the whole of axis i here, as it has to be for each axis of its matrices."""
        if not self.degree or any(axis not in places for axis in self.axes) or (self.parts and places[0] != 0):
            raise Obstacle(otherwise)
        return self.but(axes=tuple(places[axis] for axis in self.axes))

    def scaled(self, number: "Value", name: str) -> "Value":
        """The same, but for a factor that differs from entry to entry of a matrix."""
        if number.varies & set(self.axes):
            raise Obstacle(f"it applies `{name}` to a matrix and an array whose entries differ")
        return self

    def shifted(self, by: int) -> "Value":
        """A slice along the first axis (`by` is -1), or a stack of such slices (1)."""
        if self.unless:
            raise Obstacle(BY_SIZE)
        if self.degree is None or self.parts or (by < 0 and 0 in self.axes):
            raise Obstacle("it goes through rows or columns one by one")
        first = {0} if by > 0 and self.degree == 0 and not self.is_zero else set()
        varies = frozenset({i + by for i in self.varies if i + by >= 0} | first)
        return self.but(varies=varies, name=None, axes=tuple(axis + by for axis in self.axes))


def number(varies: Iterable[int] = (), *, is_zero: bool = False, name: int | None = None) -> Value:
    return Value(0, frozenset(varies), is_zero, name)


# A number that depends on the sizes of matrices, of use only for naming whole rows and columns; and whether entries of a matrix
# are finite, of use only as "all of them".
sized, finite = Value(is_size=True), Value()


def are_alike(a: Value, b: Value) -> bool:
    """Whether two are matrices that lie alike in the same frames, with a rest or without."""
    return a.degree == b.degree == 1 and a.but(is_pure=b.is_pure) == b


def join(where: str, *values: Value) -> Value:
    """What an array is that may be any of these."""
    return functools.reduce(functools.partial(_join, where), values)


def _join(where: str, a: Value, b: Value) -> Value:
    if a == b:
        return a
    if a.unless or b.unless:
        raise Obstacle(BY_SIZE)
    if a.degree == b.degree == 0:
        return number(a.varies | b.varies, is_zero=a.is_zero and b.is_zero)
    if (a.is_zero and b.degree) or (b.is_zero and a.degree):
        return b if a.is_zero else a
    if 2 in (a.degree, b.degree):
        raise Obstacle("it works with squares of single entries of gradients or weights")
    if are_alike(a, b):
        return b if a.is_pure else a
    raise Obstacle(f"{where} mix matrices of different layers, or matrices with arrays of numbers")
