"""Requests that hold nothing but numbers, read in C++: the large ones, images as pixels, are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import simdjson

from keras_shared.errors import attempt
from keras_shared.serving.embedded.json_requests import FLOATS, RANGES

NO_SIGNS = bytes({*range(256)} - {*b"[],"})
FIRST = 1000  # bytes in which the first image stands, if there are any
NOT_PLAIN = (ValueError, TypeError, RuntimeError, KeyError, IndexError)  # as simdjson says it


class Numbers:
    """A body whose inputs are lists of numbers, perhaps.

    Whatever it is not sure of, it leaves to `json_requests`, which knows TF Serving's rules and
    words for all that JSON can hold.
    """

    def __init__(self, body: bytes) -> None:
        self.signature_name, self._body = "", body
        self._document: Any = None
        if body.find(b'"b64"', 0, FIRST) != -1:
            return
        document, _ = attempt(lambda: simdjson.Parser().parse(body), *NOT_PLAIN)
        known = isinstance(document, simdjson.Object)
        name = document.get("signature_name", "") if known else None
        if isinstance(name, str):
            self.signature_name, self._document = name, document

    def __bool__(self) -> bool:
        return self._document is not None

    def arrays(self, dtypes: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], bool] | None:
        """The inputs of a signature, and whether they came as rows; None if it is not sure.

        Args:
            dtypes: of the signature, by the names of its inputs.
        """
        if not self or not {d.name for d in dtypes.values()} <= {*FLOATS, *RANGES}:
            return None
        found, _ = attempt(lambda: self._found(dtypes), *NOT_PLAIN)
        # lists of several lengths do not show in the buffers of simdjson
        if found is None or self._body.translate(None, NO_SIGNS) != found[1]:
            return None
        return found[0], "instances" in self._document

    def _found(self, dtypes: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], bytes]:
        """The arrays, and all brackets and commas that a body with such arrays has."""
        keys = [*self._document]
        [key] = [key for key in keys if key != "signature_name"]
        if key not in ("instances", "inputs"):
            raise KeyError(key)
        value = self._document[key]
        if key == "inputs" and isinstance(value, simdjson.Object):
            found, signs = _named(value, dtypes)
        elif key == "instances" and isinstance(value[0], simdjson.Object):
            rows, of_rows = zip(*(_named(row, dtypes) for row in value), strict=True)
            found = {name: np.stack([row[name] for row in rows]) for name in dtypes}
            signs = b"[" + b",".join(of_rows) + b"]"
        else:
            [(name, dtype)] = dtypes.items()
            array, signs = _array(value, dtype)
            found = {name: array}
        return found, b",".join(signs if k == key else b"" for k in keys)


def _named(given: Any, dtypes: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], bytes]:
    names = [*given]
    if sorted(names) != sorted(dtypes):
        raise KeyError(names)
    arrays, signs = zip(*(_array(given[name], dtypes[name]) for name in names), strict=True)
    return dict(zip(names, arrays, strict=True)), b",".join(signs)


def _array(value: Any, dtype: Any) -> tuple[np.ndarray, bytes]:
    """Lists in lists of one length as an array, and the brackets and commas that they have."""
    if not isinstance(value, simdjson.Array):
        raise TypeError(type(value))
    shape, first = [len(value)], value[0]
    while isinstance(first, simdjson.Array):
        shape.append(len(first))
        first = first[0]
    kind = "d" if dtype.name in FLOATS else "i"
    flat = np.frombuffer(value.as_buffer(of_type=kind), "float64" if kind == "d" else "int64")
    array = flat.reshape(shape)  # before the signs: the first lists may be longer than the others
    low, high = RANGES.get(dtype.name, (-np.inf, np.inf))
    if kind == "i" and (array.min() < low or array.max() > high):
        raise ValueError(dtype.name)
    signs = b""
    for size in reversed(shape):
        signs = b"[" + b",".join([signs] * size) + b"]"
    with np.errstate(over="ignore"):
        return array.astype(dtype.as_numpy_dtype), signs
