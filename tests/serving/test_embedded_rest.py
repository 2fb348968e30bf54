"""What the embedded engine reads and writes over REST, case by case as TF Serving does."""

import gzip
import json
import sys

import numpy as np
import pytest
import tensorflow as tf

sys.path.insert(0, __file__.rpartition("/")[0])
from embedded_server import serving

from keras_shared.serving.embedded.json_answers import _decimals, written
from keras_shared.serving.embedded.json_numbers import Numbers
from keras_shared.serving.embedded.json_requests import arrays_of, document_of
from keras_shared.serving.embedded.refusal import Refused, refusal_of
from saved_models import everything

PAIR = {"a": tf.float32, "b": tf.int64}
ONE = {"x": tf.float32}


def read(document, dtypes=None):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    dtypes = ONE if dtypes is None else dtypes
    found, as_rows = arrays_of(document_of(body), dtypes)
    plain = Numbers(body).arrays(dtypes)
    if plain is not None:  # what is read in C++ comes out the same
        assert plain[1] == as_rows
        for name, array in found.items():
            assert plain[0][name].dtype == array.dtype and plain[0][name].shape == array.shape
            np.testing.assert_array_equal(plain[0][name], array)
    return found, as_rows


@pytest.mark.parametrize(
    ("body", "dtypes"),
    [
        (b'{"instances": [[1, 2.5], [3, -4e-3]]}', ONE),
        (b'{"signature_name": "f", "inputs": [[[1]], [[2]]]}', ONE),
        (b' {"inputs" : {"x": [[ 1,\n2 ]] }, "signature_name": ""} ', {"x": tf.int8}),
        (b'{"inputs": {"b": [[1, 2]], "a": [0.5]}}', PAIR),
        (b'{"instances": [{"b": [1], "a": [[2]]}, {"a": [[4]], "b": [3]}]}', PAIR),
    ],
)
def test_numbers_alone_are_read_at_once(body, dtypes):
    assert Numbers(body).arrays(dtypes) is not None
    read(body, dtypes)  # which compares them


@pytest.mark.parametrize(
    ("body", "dtypes"),
    [
        (b'{"instances": [[1, 2], [3], [4, 5, 6]]}', ONE),  # as many as three times two
        (b'{"instances": [[1, 2], [3, 4, 5]]}', ONE),
        (b'{"instances": [[%s], %s]}' % (b"1," * 99_999 + b"1", b",".join([b"[1]"] * 99_999)), ONE),
        (b'{"instances": [1, [2]]}', ONE),
        (b'{"instances": [[[1], 2]]}', ONE),
        (b'{"instances": [[]]}', ONE),
        (b'{"instances": [1, true]}', ONE),
        (b'{"instances": [NaN]}', ONE),
        (b'{"instances": [1.0]}', {"x": tf.int32}),
        (b'{"instances": [3000000000]}', {"x": tf.int32}),
        (b'{"instances": [1], "inputs": [1]}', ONE),
        (b'{"instances": [1], "instances": [2]}', ONE),
        (b'{"instances": {"x": [1]}}', ONE),
        (b'{"signature_name": "[,", "inputs": [1]}', ONE),
        (b'{"signature_name": 1, "inputs": [1]}', ONE),
        (b'{"inputs": {"x": [1], "y": [2]}}', ONE),
        (b'{"instances": [{"a": [1]}, {"a": [1], "b": [2]}]}', PAIR),
        (b'{"instances": [{"b64": "AAAA"}]}', {"x": tf.string}),
        (b'{"inputs": 1}', ONE),
        (b"[1]", ONE),
        (b'{"inputs": [1]', ONE),
        (b"", ONE),
    ],
)
def test_the_rest_is_left_to_the_reader_that_knows_all(body, dtypes):
    assert Numbers(body).arrays(dtypes) is None


@pytest.mark.parametrize(
    ("document", "dtypes", "expected"),
    [
        ({"instances": [1, 2.5]}, ONE, {"x": [1, 2.5]}),
        ({"instances": [[1], [2]]}, ONE, {"x": [[1], [2]]}),
        ({"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}, ONE, {"x": [[1, 2], [3, 4]]}),
        ({"instances": [{"a": 1, "b": 2}]}, PAIR, {"a": [1], "b": [2]}),
        ({"instances": [[], []]}, ONE, {"x": [[], []]}),
        ({"inputs": 7}, ONE, {"x": 7}),
        ({"inputs": [[1, 2]]}, ONE, {"x": [[1, 2]]}),
        ({"inputs": {"x": [1]}}, ONE, {"x": [1]}),
        ({"inputs": [[[1], [2.5]], [[3], [4]]]}, ONE, {"x": [[[1], [2.5]], [[3], [4]]]}),
        ({"inputs": {"a": [1], "b": 5, "c": "ignored"}}, PAIR, {"a": [1], "b": 5}),
        ({"inputs": [300, -1]}, {"x": tf.uint8}, {"x": [44, 255]}),
        ({"inputs": [[300]]}, {"x": tf.int8}, {"x": [[44]]}),
        ({"inputs": [2**64 - 1, 0]}, {"x": tf.uint64}, {"x": [2**64 - 1, 0]}),
        ({"inputs": [-(2**63)]}, {"x": tf.int64}, {"x": [-(2**63)]}),
        ({"inputs": [True, False]}, {"x": tf.bool}, {"x": [True, False]}),
        ({"inputs": [1e39, -1e39]}, ONE, {"x": [np.inf, -np.inf]}),
        (b'{"inputs": [1, 2], "inputs": ["a"]}', ONE, {"x": [1, 2]}),  # the first of a name counts
        (
            b'{"inputs": [NaN, Inf, -Infinity, -Inf]}',
            ONE,
            {"x": [np.nan, np.inf, -np.inf, -np.inf]},
        ),
        (b'\xef\xbb\xbf {"inputs": [1]} and more', ONE, {"x": [1]}),
        (b'{"inputs": "Inf \\" Inf"}', {"x": tf.string}, {"x": b'Inf " Inf'}),
        (b'{"inputs": ["\xff", "\\u00e9"]}', {"x": tf.string}, {"x": [b"\xff", b"\xc3\xa9"]}),
        ({"inputs": {"b64": "/w=="}}, {"x": tf.string}, {"x": b"\xff"}),
        ({"instances": [{"b64": "/w"}, "a"]}, {"x": tf.string}, {"x": [b"\xff", b"a"]}),
        ({"instances": [{"x": {"b64": "/w=="}}]}, {"x": tf.string}, {"x": [b"\xff"]}),
        (b'{"inputs": [1], "other": true}', ONE, {"x": [1]}),
    ],
)
def test_what_is_read(document, dtypes, expected):
    arrays, _ = read(document, dtypes)
    assert arrays.keys() == expected.keys()
    for key, value in expected.items():
        dtype = dtypes[key].as_numpy_dtype
        assert arrays[key].dtype == dtype
        np.testing.assert_array_equal(arrays[key], np.array(value, dtype))


LONG = [[0.0] * 300]


@pytest.mark.parametrize(
    ("document", "dtypes", "message"),
    [
        (b"", ONE, "JSON Parse error: The document is empty"),
        (b"{", ONE, "JSON Parse error: .* at offset: 1"),
        (b"[" * 100_000, ONE, "JSON Parse error: "),
        (b'{"inputs": ' + b"9" * 5000 + b"}", ONE, "JSON Parse error: "),
        ({"inputs": 10**400}, ONE, "JSON Parse error: Number too big to be stored in double"),
        (b'{"inputs": [1e400, "a"]}', ONE, "JSON Parse error: Number too big to be stored"),
        (b"[1]", ONE, r"JSON Value: \[\s+1\s+\] Is not object"),
        ({"signature_name": 1, "inputs": 1}, ONE, "'signature_name' key must be a string value"),
        ({}, ONE, "Missing 'inputs' or 'instances' key"),
        ({"inputs": 1, "instances": [1]}, ONE, "only one of 'inputs' or 'instances' keys to exist"),
        ({"instances": 1}, ONE, "Excepting 'instances' to be an list/array"),
        ({"instances": []}, ONE, "No values in 'instances' array"),
        ({"instances": [1]}, PAIR, "instances is a plain list, but expecting list of objects"),
        ({"inputs": [1]}, PAIR, "inputs is a plain value/list, but expecting an object"),
        ({"inputs": {"a": 1}}, PAIR, "Missing named input: b in 'inputs' object."),
        ({"instances": [{"a": 1}]}, PAIR, "(?s)element: 0 .* keys must be equal to: a,b"),
        ({"instances": [{"x": 1, "z": 1}]}, ONE, "key: z of .* does not have named input: z"),
        ({"instances": [{"\0": 1}]}, ONE, r"does not have named input: \\x00$"),
        ({"instances": [{"x": 1}, 1]}, ONE, "Expecting object but got list at item 1 of input"),
        ({"instances": [1, {"x": 1}]}, ONE, "Expecting value/list but got object at item 1"),
        ({"instances": [[1], [2, 3]]}, ONE,
         "element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 1"),
        ({"instances": [[[1, 2]], [[1], [2]]]}, ONE, r"Expecting shape \[1,2\] but got: \[2,1\]"),
        ({"inputs": [[1], "a"]}, ONE, 'JSON Value: "a" found at incorrect level: 2'),
        ({"inputs": [[1], {"b64": "aaaa"}]}, ONE, "found at incorrect level: 2"),
        ({"inputs": [[1], 2]}, ONE, "JSON Value: 2 found at incorrect level: 2 in the JSON DOM"),
        ({"inputs": [1, [2]]}, ONE, "Encountered list at unexpected level: 1 expected < 1"),
        ({"inputs": [[1], [2, 3]]}, ONE, "list at unexpected size: 2 at level: 1 expected size: 1"),
        ({"inputs": [1, True]}, ONE, "JSON Value: true Type: True is not of expected type: float"),
        ({"inputs": [None]}, ONE, "JSON Value: null Type: Null is not of expected type: float"),
        ({"inputs": ["a"]}, ONE, 'JSON Value: "a" Type: String is not of expected type: float'),
        ({"inputs": [{"b64": "a"}]}, ONE, "Type: Object is not of expected type: float"),
        ({"inputs": [1.0]}, {"x": tf.int32}, "1.0 Type: Number is not of expected type: int32"),
        ({"inputs": [2**31]}, {"x": tf.int32}, "is not of expected type: int32"),
        ({"inputs": [-1]}, {"x": tf.uint64}, "is not of expected type: uint64"),
        ({"inputs": [1]}, {"x": tf.bool}, "is not of expected type: bool"),
        ({"inputs": [1]}, {"x": tf.string}, "is not of expected type: string"),
        ({"inputs": [{"b64": "-_"}]}, {"x": tf.string}, "Unable to base64 decode"),
        ({"inputs": [{"c": 1}]}, {"x": tf.string}, "not formatted correctly for base64 data"),
        (b'{"inputs": ["\\ud800"]}', {"x": tf.string}, "The surrogate pair in string is invalid"),
        (b'{"inputs": ["\\\\\\udcff"]}', {"x": tf.string}, "The surrogate pair in string is"),
        (b'{"inputs": ["\\uDCFF"]}', {"x": tf.string}, "The surrogate pair in string is invalid"),
    ],
)  # fmt: skip
def test_what_is_refused(document, dtypes, message):
    with pytest.raises(Refused, match=message) as caught:
        read(document, dtypes)
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("error", "code", "message", "status"),
    [
        (Refused("NOT_FOUND", "m"), "NOT_FOUND", "m", 0),
        (tf.errors.InvalidArgumentError(None, None, "a.cc:7] rank 3"), "INVALID_ARGUMENT",
         "rank 3", 0),
        (tf.errors.DeadlineExceededError(None, None, "late"), "DEADLINE_EXCEEDED", "late", 0),
        (ValueError("Cannot feed"), "INVALID_ARGUMENT", "Cannot feed", 0),
        (ValueError(), "INVALID_ARGUMENT", "ValueError", 0),
        (type("OfNumPy", (MemoryError,), {})(), "RESOURCE_EXHAUSTED",
         "there is not memory enough for this", 0),
        (TimeoutError(), "DEADLINE_EXCEEDED", "the body did not arrive in time", 408),
        (KeyError("key"), "INTERNAL", "KeyError: 'key'", 0),
        (ZeroDivisionError(), "INTERNAL", "ZeroDivisionError", 0),
    ],
)  # fmt: skip
def test_whatever_is_raised_is_an_answer(error, code, message, status):
    refused = refusal_of(error)
    assert (refused.code, refused.message, refused.status) == (code, message, status)


def test_types_that_rest_has_not():
    with pytest.raises(Refused, match="Conversion of JSON Value: 1 to type: half") as caught:
        read({"inputs": [1]}, {"x": tf.float16})
    assert caught.value.code == "UNIMPLEMENTED"
    with pytest.raises(Refused, match="Error: UNIMPLEMENTED: Conversion") as caught:
        read({"instances": [1]}, {"x": tf.bfloat16})
    assert caught.value.code == "INVALID_ARGUMENT"
    with pytest.raises(Refused, match="Failed to write JSON value for tensor type: half"):
        written({"x": np.zeros(1, "float16")}, as_rows=False)


def test_a_long_value_is_cut_in_an_error():
    with pytest.raises(Refused) as caught:
        read({"inputs": 1, "instances": LONG})
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9e6, "9e+06"), (999999.0, "999999.0"), (1 / 3, "0.333333343"), (-0.0, "-0.0"),
        (1435774380.0, "1.43577434e+09"), (np.nan, "NaN"), (-np.inf, "-Infinity"), (0.2, "0.2"),
        (3e-5, "3e-05"), (1e-45, "1.4013e-45"), (16777216.0, "16777216.0"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_tf_serving_writes_them(value, text):
    assert _decimals(np.array([value], "float32")) == [text]


def test_numbers_lead_back_to_themselves():
    random = np.random.default_rng(0)
    for kind, whole in (("float32", "uint32"), ("float64", "uint64")):
        bits = random.integers(0, np.iinfo(whole).max, 5000, whole, endpoint=True)
        numbers = np.concatenate([bits.view(kind), np.array([0, 1, 1e10, 0.1, 1 / 3], kind)])
        back = np.array([float(text) for text in _decimals(numbers)]).astype(kind)
        np.testing.assert_array_equal(back, numbers)


def test_answers_in_rows_and_columns():
    y, name = np.array([[1, 2.5]], "float32"), np.array([b'\xc3\xa9\xff"'], object)
    assert written({"y": y}, True) == b'{"predictions": [[1.0, 2.5]]}'
    assert written({"y": y}, False) == b'{"outputs": [[1.0, 2.5]]}'
    both = written({"y": y, "n": name}, True)
    assert both == b'{"predictions": [{"y": [1.0, 2.5], "n": "\xc3\xa9\xff\\""}]}'
    raw = written({"y_bytes": name, "b": np.array(True), "i": np.array([3])}, False)
    assert json.loads(raw)["outputs"] == {"y_bytes": [{"b64": "w6n/Ig=="}], "b": True, "i": [3]}
    assert written({"y": np.zeros((0, 4), "float32")}, False) == b'{"outputs": []}'
    assert written({"y": np.zeros((2, 0), "float32")}, False) == b'{"outputs": [[], []]}'
    with pytest.raises(Refused, match="Tensor name: s has no shape information"):
        written({"s": np.array(1.0)}, True)
    with pytest.raises(Refused, match="z has inconsistent batch size: 2 expecting: 1"):
        written({"y": y, "z": np.zeros(2)}, True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return everything(tmp_path_factory.mktemp("everything"))


@pytest.fixture(scope="module")
def server(folder):
    policies = {"m": {"version_labels": {"stable": 1}}}
    with serving({"m": folder}, policies) as server:
        yield server


def test_predict(server):
    assert server.predict("m", {"instances": [[1, 2], [3, 4]]}) == (
        200, {"predictions": [[2.0, 4.0], [6.0, 8.0]]},
    )  # fmt: skip
    assert server.predict("m", {"inputs": {"x": [[1, 2]]}}) == (200, {"outputs": [[2.0, 4.0]]})
    found = server.predict("m", {"signature_name": "check", "instances": [1, 2]})
    assert found[1]["predictions"][1] == {"y": 2.0, "z_bytes": {"b64": "Mi4wMDAwMDA="}}
    for path in ("/v1/models/m/versions/1", "/V1/MODELS/m/labels/stable", "/v1/models/%6d"):
        body = gzip.compress(b'{"inputs": [[1, 1]]}')
        found = server.ask("POST", f"{path}:predict", body, **{"Content-Encoding": "gzip"})
        assert found == (200, {"outputs": [[2.0, 2.0]]})


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("m:predict", "{", 400, "JSON Parse error"),
        ("none:predict", "{", 400, "JSON Parse error"),
        ("none:predict", "{}", 404, "Servable not found for request: Latest(none)"),
        ("m/versions/7:predict", "{}", 404, "Servable not found for request: Specific(m, 7)"),
        ("m/labels/canary:predict", "{}", 400, "Unrecognized servable version label: canary"),
        ("m:predict", '{"signature_name": "s"}', 400,
         'Serving signature name: "s" not found in signature def'),
        ("m:predict", "{}", 400, "Missing 'inputs' or 'instances' key"),
        ("m:predict", '{"inputs": [[1, 2, 3]]}', 400, "Cannot feed value of shape (1, 3)"),
        ("m:predict", '{"signature_name": "check", "inputs": [9]}', 400, "too large"),
        ("m:predict", '{"signature_name": "odd", "inputs": [[1, 2]]}', 400, "not a dense tensor"),
        ("m:Predict", "{}", 400, "Malformed request: POST /v1/models/m:Predict"),
        ("m:predict?x", "{}", 400, "Malformed request: POST /v1/models/m:predict?x"),
        ("m:classify", '{"examples": [{}]}', 400, "No classification inputs found"),
        ("none/labels/x:predict", '{"inputs": 1}', 400,
         "Unrecognized servable version label: x"),
        ("m:classify", '{"signature_name": "s", "examples": [{}]}', 400,
         "No signature was found with the name: s"),
        ("m:regress", '{"signature_name": "wide", "examples": [{"v": [1.0, 2.0]}]}', 400,
         "Expected one output Tensor."),
        ("m:regress", '{"signature_name": "regress"}', 400, "key 'examples' is expected"),
        ("m:regress", '{"signature_name": "regress", "examples": []}', 400, "is an empty array"),
        ("m:regress", '{"signature_name": "regress", "examples": [1]}', 400, "got JSON Number"),
        ("m:regress", '{"signature_name": "regress", "examples": [{"v": [1, 2.0]}]}', 400,
         "Unexpected element type in feature: v expecting type: int64"),
        ("m:regress", '{"signature_name": "regress", "examples": [{"v": [80, 1]}]}', 400, "v"),
        ("m:regress", '{"signature_name": "regress", "examples": [{"v": [null]}]}', 400,
         "Feature: v has element with unexpected JSON type: Null"),
    ],
)  # fmt: skip
def test_errors(server, path, body, status, message):
    found = server.ask("POST", f"/v1/models/{path}", body)
    assert found[0] == status and message in found[1]["error"] and [*found[1]] == ["error"], found


def test_one_text_is_an_output_too(server):
    for text in ("n=2", "zero\0"):
        document = {"signature_name": "text", "inputs": text}
        assert server.predict("m", document) == (200, {"outputs": text})


def test_an_error_that_quotes_bytes(server):
    document = {"signature_name": "regress", "inputs": [{"b64": "iVBORw=="}]}
    status, found = server.predict("m", document)
    assert status == 400 and "Could not parse example input" in found["error"], found


def test_what_is_packed_under_any_name(server):
    body = gzip.compress(b'{"instances": [[1, 2]]}')
    for name in ("gzip", "x-gzip", "gzip, identity"):
        found = server.ask("POST", "/v1/models/m:predict", body, **{"Content-Encoding": name})
        assert found == (200, {"predictions": [[2.0, 4.0]]})


def test_classify_and_regress(server):
    examples = [{"v": [1.0, 2.0]}, {"v": [0.5, 0.5]}]
    found = server.predict("m", {"signature_name": "classify", "examples": examples}, "classify")
    assert found == (200, {"results": [[["a", 2.0], ["b", 4.0]], [["a", 1.0], ["b", 1.0]]]})
    document = {"signature_name": "regress", "examples": [{}, {}], "context": {"v": [1.0, 4.0]}}
    assert server.predict("m", document, "regress") == (200, {"results": [5.0, 5.0]})


def test_what_is_told(server):
    entry = {"version": "1", "state": "AVAILABLE",
             "status": {"error_code": "OK", "error_message": ""}}  # fmt: skip
    for path in ("m", "m/versions/1", "m/labels/any"):
        found = server.ask("GET", f"/v1/models/{path}")
        assert found == (200, {"model_version_status": [entry]})
    status, found = server.ask("GET", "/v1/models/m/metadata")
    assert status == 200 and found["model_spec"] == {
        "name": "m",
        "signature_name": "",
        "version": "1",
    }
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["x"]["tensor_shape"]["dim"][0] == {"size": "-1", "name": ""}
    assert signature["method_name"] == "tensorflow/serving/predict" and signature["defaults"] == {}
    for path, status, message in (
        ("/none", 404, "Could not find any versions of model none"),
        ("/m/versions/7", 404, "Could not find version 7 of model m"),
        ("/m/versions/7/metadata", 404, "Servable not found for request: Specific(m, 7)"),
        ("", 400, "Missing model name in request."),
        ("/m/", 400, "Malformed request: GET /v1/models/m/"),
    ):
        assert server.ask("GET", f"/v1/models{path}") == (status, {"error": message})
    assert server.ask("GET", f"/v1/models/m/versions/{2**63}") == (400, b"")
    assert server.ask("PUT", "/v1/models/m")[1] == {"error": "Malformed request: PUT /v1/models/m"}
    assert server.ask("GET", "/v2")[0] == 404


def test_health_and_metrics(server):
    assert server.ask("GET", "/health") == (200, {"status": "SERVING"})
    server.predict("m", {"instances": [[1, 2]]})
    server.predict("m", {"instances": 1})
    server.predict("unknown", {"instances": [1]})
    _, text = server.ask("GET", "/monitoring/prometheus/metrics")
    lines = text.decode().splitlines()
    assert any(
        line.startswith(':tensorflow:serving:request_count{model_name="m",status="OK"} ')
        for line in lines
    )
    count = 'request_latency_count{model_name="m",API="Predict",entrypoint="REST"}'
    assert any(count in line for line in lines)
    assert any('runtime_latency_bucket{model_name="m",API="Predict",runtime="TF1",le="10"}' in line
               for line in lines)  # fmt: skip
    assert "unknown" not in text.decode()
