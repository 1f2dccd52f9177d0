"""IDX files, the format in which MNIST and its relatives are distributed, gzipped or not."""

import math
import os

import numpy as np

from .._public import public
from ._common import DataError, read_bytes, unzipped

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


@public
def read_idx(path: str | os.PathLike) -> np.ndarray:
    """The array in an IDX file, of the shape and type that its header states.

    Two zero bytes, a byte for the type, one for the number of axes, each axis as a big-endian 32-bit number, then the entries,
    big-endian as well.

    **Args:** `path`, of a file as it is distributed, gzipped or not, whatever its name.

    **Returns:** an array of uint8, int8, int16, int32, float32 or float64, in the byte order of this machine.

    **Raises:** `DataError` for a file that is missing, is no IDX file, or is damaged or cut short.

    Example:

        >>> raw = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6))  # uint8, two axes, 2 x 3
        >>> with open("images.idx", "wb") as file:
        ...     _ = file.write(raw)
        >>> print(ld.data.read_idx("images.idx"))
        [[0 1 2]
         [3 4 5]]
    """
    name = os.path.expanduser(os.fsdecode(path))
    raw = unzipped(name, read_bytes(name))
    if not raw.startswith(b"\0\0"):
        raise DataError(
            f"File `{name}` is not an IDX file: such a file starts with two zero bytes, this one with {raw[:2]!r}."
        )
    values = decode_idx(raw, name)
    return values.astype(values.dtype.newbyteorder("="))


def decode_idx(raw: bytes, path: str) -> np.ndarray:
    def refuse(reason: str) -> DataError:
        return DataError(f"File `{path}` cannot be read as an IDX file: its header is damaged ({reason}).")

    if len(raw) < 4:
        raise refuse(f"it has 4 bytes or more, but the file has {len(raw)}")
    code, num_axes = raw[2], raw[3]
    if code not in _TYPES:
        raise refuse(f"type code 0x{code:02x} is none of {', '.join(f'0x{known:02x}' for known in _TYPES)}")
    if num_axes == 0:
        raise refuse("it has no axes")
    start = 4 + 4 * num_axes
    if len(raw) < start:
        raise refuse(f"{num_axes} axes take {start} bytes, but the file has {len(raw)}")
    dtype = np.dtype(_TYPES[code])
    shape = tuple(int(size) for size in np.frombuffer(raw, ">u4", count=num_axes, offset=4))
    expected, given = math.prod(shape) * dtype.itemsize, len(raw) - start
    if expected != given:
        raise DataError(
            f"IDX file `{path}` says that its shape is {shape}, which takes {expected} bytes, but holds {given}: "
            "it is damaged or incomplete."
        )
    return np.frombuffer(raw, dtype, offset=start).reshape(shape)
