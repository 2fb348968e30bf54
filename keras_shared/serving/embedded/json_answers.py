"""What REST answers hold: arrays -> JSON as TF Serving writes it."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_shared.serving.embedded.json_requests import SHORT
from keras_shared.serving.embedded.refusal import invalid

WHOLE = {"int8", "int16", "int32", "int64", "uint8", "uint32", "uint64"}
SPECIAL = {"nan": "NaN", "-nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def written(outputs: Mapping[str, np.ndarray], as_rows: bool) -> bytes:
    """The answer to a prediction: one object or value for each row, or for all."""
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    if not as_rows:
        columns = [_nested(_texts(name, a), a.shape) for name, a in outputs.items()]
        return _encoded(f'{{"outputs": {_named([*outputs], [c[0] for c in columns])}}}')
    size = -1
    for name, array in outputs.items():
        if not array.ndim:
            raise invalid(f"Tensor name: {name} has no shape information ")
        if size not in (-1, len(array)):
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {size}"
            )
        size = len(array)
    columns = [_nested(_texts(name, a), a.shape, keep=1) for name, a in outputs.items()]
    rows = [_named([*outputs], row) for row in zip(*columns, strict=True)]
    return _encoded(f'{{"predictions": [{", ".join(rows)}]}}')


def written_results(result: Any) -> bytes:
    """The answer to a request to classify or to regress."""
    if result.DESCRIPTOR.name == "RegressionResult":
        numbers = _decimals(np.array([r.value for r in result.regressions], "float32"))
        return _encoded(f'{{"results": [{", ".join(numbers)}]}}')
    rows = []
    for row in result.classifications:
        scores = _decimals(np.array([c.score for c in row.classes], "float32"))
        labels = [json.dumps(c.label, ensure_ascii=False) for c in row.classes]
        pairs = [f"[{label}, {score}]" for label, score in zip(labels, scores, strict=True)]
        rows.append(f"[{', '.join(pairs)}]")
    return _encoded(f'{{"results": [{", ".join(rows)}]}}')


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _named(names: Sequence[str], values: Sequence[str]) -> str:
    if len(names) == 1:
        return values[0]
    pairs = [f"{json.dumps(n)}: {value}" for n, value in zip(names, values, strict=True)]
    return f"{{{', '.join(pairs)}}}"


def _nested(texts: list[str], shape: Sequence[int], keep: int = 0) -> list[str]:
    """Lists in lists, as a shape says, but for the first `keep` dimensions."""
    for depth in range(len(shape) - 1, keep - 1, -1):
        size, count = shape[depth], math.prod(shape[:depth])
        texts = [f"[{', '.join(texts[i * size : (i + 1) * size])}]" for i in range(count)]
    return texts


def _texts(name: str, array: np.ndarray) -> list[str]:
    """Each number or text of an array."""
    flat = array.ravel()
    if array.dtype == object:
        if name.endswith("_bytes"):
            return [f'{{"b64": "{base64.b64encode(item).decode()}"}}' for item in flat]
        # strings that are no UTF-8 are written as they are
        texts = {  # each once, since classes come in every row
            item: json.dumps(item.decode("utf-8", "surrogateescape"), ensure_ascii=False)
            for item in {*flat.tolist()}
        }
        return [texts[item] for item in flat.tolist()]
    if array.dtype in (np.float32, np.float64):
        return _decimals(flat)
    if array.dtype == bool:
        return ["true" if item else "false" for item in flat]
    if array.dtype.name in WHOLE:
        return [*map(str, flat.tolist())]
    kind = SHORT.get(array.dtype.name, array.dtype.name)
    raise invalid(f"Failed to write JSON value for tensor type: {kind}")


def _decimals(flat: np.ndarray) -> list[str]:
    """Six digits where they lead back to the same number, else nine or seventeen."""
    numbers = flat.tolist()
    texts = ("%.6g " * len(numbers) % tuple(numbers)).split()
    with np.errstate(over="ignore"):
        back = np.array(texts, "float64").astype(flat.dtype)
    digits = 9 if flat.dtype == np.float32 else 17
    rest = np.flatnonzero((back != flat) & np.isfinite(flat))
    longer = (f"%.{digits}g " * len(rest) % tuple(flat[rest].tolist())).split()
    for i, text in zip(rest.tolist(), longer, strict=True):
        texts[i] = text
    return [t if "." in t or "e" in t else SPECIAL.get(t) or f"{t}.0" for t in texts]
