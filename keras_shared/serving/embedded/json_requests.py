"""What REST requests hold: JSON -> arrays and examples, with the rules and texts of TF Serving."""

import json
import math
import re
import string
from collections.abc import Mapping
from typing import Any

import numpy as np
import pybase64

from keras_shared.errors import attempt, boundary
from keras_shared.serving.embedded.refusal import Refused, invalid

MOST_SHOWN = 500  # characters of a value in an error
SHORT = {"float32": "float", "float64": "double", "float16": "half"}  # DataTypeString
RANGES = {
    **dict.fromkeys(("int32", "int16", "int8", "uint8"), (-(2**31), 2**31 - 1)),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
KINDS = {
    dict: "Object", list: "Array", str: "String", int: "Number", float: "Number",
    type(None): "Null",
}  # fmt: skip
FLOATS = ("float32", "float64")
INF = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|\bInf\b')  # a text, which stays as it is, or Inf
SPACE = "\ufeff \t\r\n"
# a pair of surrogates; or the second of one alone, which stands here for a byte that is no UTF-8
ESCAPED = re.compile(
    rb"\\(?:u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(?P<alone>u[dD][c-fC-F]\w\w)|.)", re.DOTALL
)
MOST_BITS = 1023  # of a whole number that a double holds in any case
TOO_BIG = "JSON Parse error: Number too big to be stored in double."


def _double(text: str) -> float:
    if math.isinf(value := float(text)):
        raise invalid(TOO_BIG)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two values of one name the first counts."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else dict(reversed(pairs))


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_double)


def document_of(body: bytes) -> dict[str, Any]:
    """The JSON object at the beginning of a body; NaN, Inf and Infinity are numbers."""
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    if any(found["alone"] for found in ESCAPED.finditer(body)):
        raise invalid("JSON Parse error: The surrogate pair in string is invalid")
    text = body.decode("utf-8", "surrogateescape")  # strings need not be UTF-8
    begin = next((at for at, sign in enumerate(text) if sign not in SPACE), 0)
    found, error = attempt(lambda: DECODER.raw_decode(text, begin), ValueError, RecursionError)
    if error:
        spelled = INF.sub(lambda m: "Infinity" if m[0] == "Inf" else m[0], text)
        if spelled != text:
            return document_of(spelled.encode("utf-8", "surrogateescape"))
        said = "a number or a nesting is too long"
        if isinstance(error, json.JSONDecodeError):
            said = f"{error.msg} at offset: {error.pos}"
        raise invalid(f"JSON Parse error: {said}") from error
    document: Any = found[0]
    if not isinstance(document, dict):
        raise invalid(f"JSON Value: {_shown(document)} Is not object")
    if not isinstance(document.get("signature_name", ""), str):
        raise invalid(
            f"JSON Value: {_shown(document)} not formatted correctly. 'signature_name' key must be "
            "a string value."
        )
    return document


def arrays_of(
    document: Mapping[str, Any], dtypes: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], bool]:
    """The inputs of a prediction, and whether they came as rows.

    Args:
        document: as `document_of` gives it.
        dtypes: of the signature, by the names of its inputs.
    """
    row, column = "instances" in document, "inputs" in document
    if row and column:
        raise invalid(
            f"JSON Value: {_shown(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist "
        )
    if row:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise invalid(
                f"JSON Value: {_shown(document)} Excepting 'instances' to be an list/array"
            )
        if not instances:
            raise invalid(f"JSON Value: {_shown(document)} No values in 'instances' array")
        return _rows(instances, dtypes), True
    if not column:
        raise invalid("Missing 'inputs' or 'instances' key")
    given = document["inputs"]
    if not isinstance(given, dict) or _is_base64(given):
        if len(dtypes) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        given = {next(iter(dtypes)): given}
    for name in dtypes:
        if name not in given:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(given[name], dtype) for name, dtype in dtypes.items()}, False


def _rows(instances: list[Any], dtypes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    objects = isinstance(instances[0], dict) and not _is_base64(instances[0])
    if not isinstance(instances[0], dict) and len(dtypes) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    for number, one in enumerate(instances):
        if objects != (isinstance(one, dict) and not _is_base64(one)):
            kinds = "object but got list" if objects else "value/list but got object"
            raise invalid(f"Expecting {kinds} at item {number} of input list")
        if objects and one.keys() != dtypes.keys():
            failed = f"Failed to process element: {number}"
            for name in one.keys() - dtypes.keys():
                raise invalid(
                    f"{failed} key: {name} of 'instances' list. Error: INVALID_ARGUMENT: JSON "
                    f"object: does not have named input: {name}"
                )
            raise invalid(
                f"{failed} of 'instances' list. JSON object: {_shown(one)} keys must be equal to: "
                f"{','.join(sorted(dtypes))}"
            )
    rows = {name: [one[name] for one in instances] if objects else instances for name in dtypes}
    keys = {name: f" key: {name}" if objects else "" for name in dtypes}
    return {name: _stacked(rows[name], dtype, keys[name]) for name, dtype in dtypes.items()}


def _stacked(values: list[Any], dtype: Any, key: str) -> np.ndarray:
    """The tensors of all rows as one, each looked at."""
    tensors: list[np.ndarray] = []
    for number, value in enumerate(values):
        try:
            tensors.append(_tensor(value, dtype))
            first, last = tensors[0], tensors[-1]
            if first.size != last.size:
                raise invalid(f"Expecting tensor size: {first.size} but got: {last.size}")
            if first.shape != last.shape:
                shapes = [f"[{','.join(map(str, a.shape))}]" for a in (first, last)]
                raise invalid(f"Expecting shape {shapes[0]} but got: {shapes[1]}")
        except Refused as refused:
            raise invalid(
                f"Failed to process element: {number}{key} of 'instances' list. Error: {refused}"
            ) from refused
    return np.stack(tensors)


def _tensor(value: Any, dtype: Any) -> np.ndarray:
    """One tensor, whose shape is that of the first elements, each value looked at."""
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    found: list[Any] = []
    _fill(value, 0, shape, dtype.name, found)
    with np.errstate(over="ignore"):
        if dtype.name in RANGES and dtype.name != "uint64":
            return np.array(found, "int64").astype(dtype.as_numpy_dtype).reshape(shape)
        return np.array(found, dtype.as_numpy_dtype).reshape(shape)


def _fill(value: Any, level: int, shape: list[int], dtype: str, found: list[Any]) -> None:
    rank = len(shape)
    if not isinstance(value, list):
        if level != rank:
            raise invalid(
                f"JSON Value: {_shown(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {rank}"
            )
        found.append(_one(value, dtype))
        return
    if level >= rank:
        raise invalid(f"Encountered list at unexpected level: {level} expected < {rank}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: "
            f"{shape[level]}"
        )
    for part in value:
        _fill(part, level + 1, shape, dtype, found)


def _one(value: Any, dtype: str) -> Any:
    kind, shown = type(value), SHORT.get(dtype, dtype)  # the type alone: a truth value is no int
    low, high = RANGES.get(dtype, (0, 0))
    if dtype == "string" and kind in (str, dict):
        return _bytes(value) if kind is str else _decoded(value)
    if dtype in FLOATS and kind in (int, float):
        if kind is int and value.bit_length() > MOST_BITS:
            raise invalid(TOO_BIG)
        return float(value)
    whole = dtype in RANGES and kind is int and low <= value <= high
    if whole or (dtype == "bool" and kind is bool):
        return value
    if kind is not dict and dtype not in ("string", "bool", *FLOATS, *RANGES):
        text = f"Conversion of JSON Value: {_shown(value)} to type: {shown}"
        raise Refused("UNIMPLEMENTED", text)
    raise invalid(
        f"JSON Value: {_shown(value)} Type: {_kind(value)} is not of expected type: {shown}"
    )


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str)


def _decoded(value: dict[str, Any]) -> bytes:
    if not _is_base64(value):
        raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
    text = value["b64"].rstrip("=")  # it may be not padded, or wrapped
    if any(space in text for space in string.whitespace):
        text = "".join(text.split())
    with boundary("Unable to base64 decode", invalid):
        return pybase64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def _bytes(text: str) -> bytes:
    with boundary("JSON Parse error: The surrogate pair in string is invalid", invalid):
        return text.encode("utf-8", "surrogateescape")


def _kind(value: Any) -> str:
    """The type as an error shows it; of truth values, themselves."""
    return KINDS.get(type(value), str(value))


def _shown(value: Any) -> str:
    """A value as an error shows it, without the end of a long one."""
    text = ""
    for piece in json.JSONEncoder(indent=4).iterencode(value):
        text += piece[:MOST_SHOWN]
        if len(text) > MOST_SHOWN:
            return f"{text[:MOST_SHOWN]}..."
    return text


def examples_of(document: Mapping[str, Any]) -> Any:
    """The examples of a request to classify or to regress, as gRPC has them."""
    from tensorflow_serving.apis import input_pb2

    found = input_pb2.Input()
    filled: Any = found.example_list
    if "context" in document:
        filled = found.example_list_with_context
        _fill_example(document["context"], filled.context)
    if "examples" not in document:
        raise invalid(
            f"JSON Value: {_shown(document)} When method is classify, key 'examples' is expected "
            "and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise invalid(
            f"JSON Value: {_shown(document)} Expecting 'examples' value to be an list/array"
        )
    if not examples:
        raise invalid(f"JSON Value: {_shown(document)} 'examples' value is an empty array")
    for one in examples:
        _fill_example(one, filled.examples.add())
    return found


def _fill_example(given: Any, example: Any) -> None:
    if not isinstance(given, dict):
        raise invalid(f"Example must be JSON object but got JSON {_kind(given)}")
    for name, content in given.items():
        with boundary("The name of a feature is not UTF-8", invalid):
            feature = example.features.feature[name]
        for value in content if isinstance(content, list) else [content]:
            _add_value(name, value, feature)


def _add_value(name: str, value: Any, feature: Any) -> None:
    if value is None or isinstance(value, list) or (isinstance(value, dict) and "b64" not in value):
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {_kind(value)}")
    kind, item = "bytes", value
    if isinstance(value, (str, dict)):
        item = _bytes(value) if isinstance(value, str) else _decoded(value)
    elif isinstance(value, float):
        kind = "float"
    else:
        kind, item = "int64", int(value)
        low, high = RANGES["int64"]
        if not low <= item <= high:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    known = feature.WhichOneof("kind")
    if known not in (None, f"{kind}_list"):
        raise invalid(
            f"Unexpected element type in feature: {name} expecting type: "
            f"{known.removesuffix('_list')}"
        )
    getattr(feature, f"{kind}_list").value.append(item)
