"""Requests that hold nothing but numbers, read in C++: the large ones, images as pixels, are."""

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import simdjson

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
        with contextlib.suppress(*NOT_PLAIN):
            document: Any = simdjson.Parser().parse(body)
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
        kinds = {name: "d" if d.name in FLOATS else "i" for name, d in dtypes.items()}
        if not self or not {d.name for d in dtypes.values()} <= {*FLOATS, *RANGES}:
            return None
        with contextlib.suppress(*NOT_PLAIN):
            found, signs = self._found(kinds)
            if self._body.translate(None, NO_SIGNS) != signs:
                return None  # lists of several lengths, which the buffers of simdjson do not show
            typed = {name: _typed(array, dtypes[name]) for name, array in found.items()}
            return typed, "instances" in self._document
        return None

    def _found(self, kinds: Mapping[str, str]) -> tuple[dict[str, np.ndarray], bytes]:
        """The arrays, and all brackets and commas that a body with such arrays has."""
        keys = [*self._document]
        [key] = [key for key in keys if key != "signature_name"]
        if key not in ("instances", "inputs"):
            raise KeyError(key)
        value = self._document[key]
        if key == "inputs" and isinstance(value, simdjson.Object):
            found, signs = _named(value, kinds)
        elif key == "instances" and isinstance(value[0], simdjson.Object):
            rows, of_rows = zip(*(_named(row, kinds) for row in value), strict=True)
            found = {name: np.stack([row[name] for row in rows]) for name in kinds}
            signs = b"[" + b",".join(of_rows) + b"]"
        else:
            [name] = kinds
            array, signs = _array(value, kinds[name])
            found = {name: array}
        return found, b",".join(signs if k == key else b"" for k in keys)


def _named(given: Any, kinds: Mapping[str, str]) -> tuple[dict[str, np.ndarray], bytes]:
    names = [*given]
    if sorted(names) != sorted(kinds):
        raise KeyError(names)
    arrays, signs = zip(*(_array(given[name], kinds[name]) for name in names), strict=True)
    return dict(zip(names, arrays, strict=True)), b",".join(signs)


def _array(value: Any, kind: str) -> tuple[np.ndarray, bytes]:
    """Lists in lists of one length as an array, and the brackets and commas that they have."""
    if not isinstance(value, simdjson.Array):
        raise TypeError(type(value))
    shape, first = [len(value)], value[0]
    while isinstance(first, simdjson.Array):
        shape.append(len(first))
        first = first[0]
    flat = np.frombuffer(value.as_buffer(of_type=kind), "float64" if kind == "d" else "int64")
    signs = b""
    for size in reversed(shape):
        signs = b"[" + b",".join([signs] * size) + b"]"
    return flat.reshape(shape), signs


def _typed(array: np.ndarray, dtype: Any) -> np.ndarray:
    if dtype.name in RANGES:
        low, high = RANGES[dtype.name]
        if array.min() < low or array.max() > high:
            raise ValueError(dtype.name)
    with np.errstate(over="ignore"):
        return array.astype(dtype.as_numpy_dtype)
