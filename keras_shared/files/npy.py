"""NumPy's files of arrays from outside, whose headers are checked before memory is taken."""

import ast
import io
import math
import os
import struct
from typing import TYPE_CHECKING

from keras_shared.errors import KerasSharedError, boundary
from keras_shared.files.archives import open_archive, read_part
from keras_shared.files.bounded import read_bytes
from keras_shared.files.limits import MOST_ARRAY, MOST_ARRAY_HEADER
from keras_shared.files.paths import as_path

if TYPE_CHECKING:
    import numpy as np

MAGIC = b"\x93NUMPY"
NUMBERS, TEXT = "biuf", "US"  # kinds of dtypes


def read_npy(
    source: str | os.PathLike[str] | bytes, error: type[KerasSharedError] = KerasSharedError
) -> "np.ndarray":
    """The numbers of a .npy file.

    Args:
        source: the file, or its bytes.
        error: the class of the error.

    Raises:
        KerasSharedError: of class `error`, if it is no such file, is larger than a gigabyte, holds
            objects or text, or is shorter than its header says.

    Example:
        >>> import io
        >>> import numpy as np
        >>> from keras_shared.files.npy import read_npy
        >>> file = io.BytesIO()
        >>> np.save(file, np.arange(4).reshape(2, 2))
        >>> read_npy(file.getvalue()).tolist()
        [[0, 1], [2, 3]]
    """
    if isinstance(source, bytes):
        return _array(source, f"{len(source):,} bytes", NUMBERS, error)
    name = os.fspath(source)
    return _array(read_bytes(source, MOST_ARRAY, error), name, NUMBERS, error)


def read_npz(
    path: str | os.PathLike[str], error: type[KerasSharedError] = KerasSharedError
) -> "dict[str, np.ndarray]":
    """The arrays of numbers and text in a .npz file, by name.

    Args:
        path: the file.
        error: the class of the error.

    Raises:
        KerasSharedError: of class `error`, if it is no such file, or declares far more numbers than
            it can hold.
    """
    as_path(path, "path")
    name = os.fspath(path)
    corrupt = boundary(f"{name} is not a .npz file of arrays", error)
    with corrupt, open_archive(path, error) as archive:
        return {
            part.removesuffix(".npy"): _array(
                read_part(archive, part), f"'{part}' in {name}", NUMBERS + TEXT, error
            )
            for part in archive.namelist()
        }


def _array(content: bytes, name: str, kinds: str, error: type[KerasSharedError]) -> "np.ndarray":
    """The array in the bytes of a .npy file, without a copy."""
    import numpy as np

    with boundary(f"{name} is not a .npy file of numbers", error):
        if not content.startswith(MAGIC):
            raise ValueError(f"it does not begin with {MAGIC!r}" if content else "it is empty")
        file = io.BytesIO(content[: MOST_ARRAY_HEADER + 20])
        major = file.read(8)[6]
        (size,) = struct.unpack(*("<H", file.read(2)) if major == 1 else ("<I", file.read(4)))
        if major not in (1, 2, 3) or size > MOST_ARRAY_HEADER:
            raise ValueError(f"it has version {major} and a header of {size:,} bytes")
        start = file.tell() + size
        header = ast.literal_eval(file.read(size).decode("utf-8" if major == 3 else "latin-1"))
        dtype, shape = np.dtype(header["descr"]), header["shape"]
        if dtype.kind not in kinds:
            raise ValueError(f"it holds {dtype}, and numbers are expected")
        if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"its shape is {shape!r}, and whole numbers from 0 are expected")
        count = math.prod(shape)
        if count * dtype.itemsize > len(content) - start:
            raise ValueError(
                f"its shape {shape} of {dtype} takes {count * dtype.itemsize:,} bytes, and it has "
                f"{max(len(content) - start, 0):,} of them"
            )
        if not count:
            return np.zeros(shape, dtype)
        flat = np.frombuffer(content, dtype, count, start)
        return flat.reshape(shape, order="F" if header["fortran_order"] else "C")
