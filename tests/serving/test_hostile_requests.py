"""Whatever the bytes of a request are: arrays, examples, or refused with a short reason."""

import json
import pathlib
import sys

import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from mutations import fuzzed, mutated

from keras_shared.serving.embedded.grpc_service import _array
from keras_shared.serving.embedded.json_numbers import Numbers
from keras_shared.serving.embedded.json_requests import arrays_of, document_of, examples_of
from keras_shared.serving.embedded.refusal import Refused

DTYPES = {
    "float": {"x": tf.float32}, "text": {"x": tf.string}, "truth": {"x": tf.bool},
    "whole": {"x": tf.uint8}, "complex": {"x": tf.complex64},
    "two": {"a": tf.float32, "b": tf.int64},
}  # fmt: skip
DOCUMENTS = (
    {"instances": [[1, 2.5], [3, -4e-3]]},
    {"instances": [{"a": [1, 2], "b": 5}, {"a": [3, 4], "b": 6}], "signature_name": "f"},
    {"inputs": {"x": [[True, False]]}},
    {"inputs": {"x": [{"b64": "aGk="}, "há\n"]}},
)
BODIES = (*(json.dumps(one).encode() for one in DOCUMENTS), b'{"inputs": [NaN, Infinity, -Inf]}')
EXAMPLES = json.dumps(
    {"context": {"c": [1.5]}, "examples": [{"x": [1, 2], "t": {"b64": "aGk="}}, {"x": "a"}]}
).encode()
TEXT = st.text(max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | TEXT.map(lambda t: {"b64": t}),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=30,
)


def see_that_refused(error):
    assert error.code in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"), error
    assert error.message and len(error.message) < 3000
    assert "\0" not in error.message and "Traceback" not in error.message


def see_what_it_is(body, dtypes):
    plain = Numbers(body).arrays(dtypes)
    try:
        arrays, as_rows = arrays_of(document_of(body), dtypes)
    except Refused as error:
        see_that_refused(error)
        assert plain is None
        return
    if plain is not None:
        assert plain[1] == as_rows
        for name, array in arrays.items():
            assert plain[0][name].dtype == array.dtype and plain[0][name].shape == array.shape
            np.testing.assert_array_equal(plain[0][name], array)
    assert {*arrays} == {*dtypes}
    for name, array in arrays.items():
        expected = object if dtypes[name] == tf.string else dtypes[name].as_numpy_dtype
        assert isinstance(array, np.ndarray) and array.dtype == expected


@fuzzed
@given(data=st.data(), kind=st.sampled_from(sorted(DTYPES)))
def test_whatever_the_body_is(kind, data):
    body = data.draw(st.sampled_from(BODIES).flatmap(mutated))
    see_what_it_is(body, DTYPES[kind])


@fuzzed
@given(
    value=VALUES, kind=st.sampled_from(sorted(DTYPES)), key=st.sampled_from(["instances", "inputs"])
)
def test_whatever_the_values_are(kind, key, value):
    see_what_it_is(json.dumps({key: value}).encode(), DTYPES[kind])


@fuzzed
@given(data=st.data())
def test_whatever_the_examples_are(data):
    mutant, made = mutated(EXAMPLES), VALUES.map(lambda v: json.dumps({"examples": v}).encode())
    body = data.draw(mutant | made)
    try:
        examples = examples_of(document_of(body))
    except Refused as error:
        see_that_refused(error)
    else:
        assert examples.SerializeToString() is not None


@fuzzed
@given(data=st.data())
def test_whatever_the_tensor_is(data):
    """The bytes of a message, and shapes and types that do not belong to its content."""
    proto = tf.make_tensor_proto(np.arange(6, dtype="float32").reshape(2, 3))
    if data.draw(st.booleans()):
        try:
            proto = type(proto).FromString(data.draw(mutated(proto.SerializeToString())))
        except Exception:  # gRPC itself refuses what is no message
            return
    else:
        proto.dtype = data.draw(st.integers(0, 130))
        for dim in proto.tensor_shape.dim:
            dim.size = data.draw(st.integers(-2, 2**40))
    try:
        array = _array("x", proto, 1 << 20)
    except Refused as error:
        see_that_refused(error)
    else:
        assert isinstance(array, np.ndarray) and array.nbytes <= 1 << 20
