"""What the client and its two transports exchange, under TensorFlow's own names."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

NAMES = {"float": "float32", "double": "float64", "half": "float16"}
# tensorflow/core/framework/types.proto; "invalid": of several tensors, ragged or sparse
DTYPES = {
    "invalid", "bool", "string", "resource", "variant", "complex64", "complex128",
    "float16", "float32", "float64", "bfloat16", "float8_e5m2", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz", "float4_e2m1fn",
    "int2", "int4", "int8", "int16", "int32", "int64", "uint2", "uint4", "uint8", "uint16",
    "uint32", "uint64", "qint8", "qint16", "qint32", "quint8", "quint16",
}  # fmt: skip

# What REST reads and writes: util/json_tensor.cc of TF Serving. gRPC takes every type.
REST_TYPES = {"float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64",
              "bool", "string"}  # fmt: skip


class TensorInfo(NamedTuple):
    """One named tensor of a signature.

    Attributes:
        dtype: as TensorFlow names it: "float32", "int64", "string", ...
        shape: its sizes, None for a size that is not fixed; None alone if the rank is not either.

    Example:
        >>> from keras_shared.serving import TensorInfo
        >>> TensorInfo("float32", (None, 28, 28, 1))
        TensorInfo(dtype='float32', shape=(None, 28, 28, 1))
    """

    dtype: str
    shape: tuple[int | None, ...] | None

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array may have this shape."""
        return self.shape is None or (
            len(self.shape) == len(shape)
            and all(a in (None, b) for a, b in zip(self.shape, shape, strict=True))
        )


class SignatureDef(NamedTuple):
    """One function of a SavedModel that a server can run.

    TensorFlow's protocol buffer of the same name holds more: the names of nodes in the graph,
    which no request needs.

    Attributes:
        inputs: name -> what must be sent.
        outputs: name -> what comes back.

    Example:
        >>> from keras_shared.serving import SignatureDef, TensorInfo
        >>> image, label = TensorInfo("string", (None,)), TensorInfo("string", (None,))
        >>> SignatureDef({"image_bytes": image}, {"label": label}).inputs["image_bytes"].dtype
        'string'
    """

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


class Status(NamedTuple):
    """One version of a model on a server.

    Attributes:
        version: its number.
        state: "START", "LOADING", "AVAILABLE", "UNLOADING" or "END".
        error: why it failed to load; empty if it did not.

    Example:
        >>> from keras_shared.serving import Status
        >>> Status(1, "AVAILABLE", "")
        Status(version=1, state='AVAILABLE', error='')
    """

    version: int
    state: str
    error: str


def dtype_name(name: str) -> str:
    """TensorFlow's name of a dtype for that of its protocol buffers, such as "DT_FLOAT"."""
    short = name.removeprefix("DT_").lower()
    found = NAMES.get(short, short)
    if found not in DTYPES:
        raise ValueError(f"the dtype {name!r} is unknown")
    return found


def cast(array: np.ndarray, dtype: str) -> np.ndarray:
    """The array with another dtype; a ValueError for what it cannot hold."""
    kind = np.dtype(dtype).kind
    if array.dtype == object and kind in "iufc":  # Python's numbers, some of more than 64 bits
        limits = np.iinfo(dtype) if kind in "iu" else np.finfo(dtype)
        low, high = int(limits.min), int(limits.max)
        outside = [isinstance(item, int) and not low <= item <= high for item in array.flat]
        _refuse(array, np.reshape(outside, array.shape), dtype)
    if array.dtype.kind == "c" and kind != "c":
        _refuse(array, array.imag != 0, dtype)
        array = array.real
    with np.errstate(invalid="ignore", over="ignore"):  # NaN as a whole number: refused below
        changed = array.astype(dtype)
    if kind in "biu":
        _refuse(array, changed != array, dtype)
    elif array.dtype != object:
        _refuse(array, np.isinf(changed) & np.isfinite(array), dtype)
    return changed


def _refuse(array: np.ndarray, lost: Any, dtype: str) -> None:
    if np.any(lost):
        raise ValueError(f"values that {dtype} cannot hold: {array[np.asarray(lost)][:8]}")


def agreed(outputs: Mapping[str, np.ndarray], definition: SignatureDef) -> dict[str, np.ndarray]:
    """The outputs in the signature's order; a ValueError if they are not those that it promises."""
    found = {
        key: TensorInfo("string" if array.dtype == object else str(array.dtype), array.shape)
        for key, array in outputs.items()
    }
    expected = definition.outputs
    if found.keys() != expected.keys() or not all(
        info.dtype == found[key].dtype and info.fits(outputs[key].shape)
        for key, info in expected.items()
    ):
        raise ValueError(f"the signature promises {expected}, and the server sent {found}")
    return {key: outputs[key] for key in expected}
