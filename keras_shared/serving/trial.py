"""A SavedModel in a Session, as TF Serving loads it: warm-up replayed, every signature run."""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_shared.serving.finding import Finding

BATCHES = (1, 2, 17)  # that every signature is run at
WARMUP = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")
MOST_WARMUP_RECORDS = 1000  # servables/tensorflow/saved_model_warmup_util.h
SIDE = 32  # for a dimension of unknown size
Inputs = dict[str, np.ndarray]


def try_version(
    folder: pathlib.Path, signatures: Mapping[str, Any], runnable: Mapping[str, Any]
) -> Iterator[Finding]:
    """Load `folder` into a Session, replay its warm-up requests, run the `runnable` signatures.

    Args:
        folder: the SavedModel.
        signatures: name -> SignatureDef, all of them: a warm-up request may name any.
        runnable: those in which no error is known yet.

    Yields:
        What went wrong.
    """
    import tensorflow as tf

    image = tf.io.encode_png(np.zeros((SIDE, SIDE, 3), "uint8")).numpy()
    records, unreadable = _warmup(folder / WARMUP)
    yield from unreadable
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        try:
            tf.compat.v1.saved_model.load(session, ["serve"], os.fspath(folder))
        except Exception as error:
            remedy = "publish or copy it again; TF Serving has only TensorFlow's own operations"
            yield Finding("error", f"it cannot be loaded: {_short(error)}", remedy)
            return
        typical: dict[str, Inputs] = {}
        for number, (name, inputs) in enumerate(records, 1):
            wrong = _mismatch(name, inputs, signatures)
            if wrong is None and name in runnable:
                try:
                    _run(session, signatures[name], inputs)
                    typical.setdefault(name, inputs)
                except (tf.errors.OpError, ValueError, TypeError) as error:
                    wrong = _short(error)
            if wrong is not None:
                remedy = "correct or remove it: with it, TF Serving does not load the version"
                yield Finding("error", f"warm-up record {number}: {wrong}", remedy)
        for name, signature in runnable.items():
            yield from _try_signature(session, name, signature, typical.get(name), image)


def _try_signature(
    session: Any, name: str, signature: Any, typical: Inputs | None, image: bytes
) -> Iterator[Finding]:
    import tensorflow as tf

    def rows(batch: int, text: bytes) -> Inputs:
        if typical is not None:
            firsts = {key: np.atleast_1d(value)[:1] for key, value in typical.items()}
            return {key: np.repeat(first, batch, axis=0) for key, first in firsts.items()}
        return {key: _made_up(info, batch, text) for key, info in signature.inputs.items()}

    infos = signature.inputs.values()
    guessed = typical is None and any(
        info.dtype == tf.string.as_datatype_enum
        or info.tensor_shape.unknown_rank
        or any(dim.size < 0 for dim in info.tensor_shape.dim[1:])
        for info in infos
    )
    outputs: dict[str, np.ndarray] = {}
    reasons = []
    for text in (image, b"0", b""):  # a signature does not say what a string holds; b"": tf.Example
        try:
            _run(session, signature, rows(1, text))
            break
        except (tf.errors.OpError, ValueError, TypeError) as error:
            reasons.append(_short(error))
    else:
        if guessed:
            what = f"{name} could not be tried with made-up inputs: {reasons[0]}"
            yield Finding("warning", what, "add a warm-up request with inputs that it takes")
        else:
            remedy = "correct the model and export it again"
            yield Finding("error", f"{name} fails: {reasons[0]}", remedy)
        return
    for batch in BATCHES:
        try:
            outputs = _run(session, signature, rows(batch, text))
        except (tf.errors.OpError, ValueError, TypeError) as error:
            remedy = "use -1 or tf.shape(x)[0] for the batch size, in reshapes above all"
            yield Finding("error", f"{name} fails at batch {batch}: {_short(error)}", remedy)
            return
        wrong = {
            key: value.shape
            for key, value in outputs.items()
            if not value.ndim or len(value) != batch
        }
        if wrong:
            what = f"{name}: outputs whose dimension 0 is not the batch of {batch}: {wrong}"
            remedy = (
                "return one row for each input row, or remove the output: batching and the "
                "'instances' of REST need it"
            )
            yield Finding("error", what, remedy)
            return
    raw = sorted(key for key, v in outputs.items() if not key.endswith("_bytes") and _binary(v))
    if raw:
        remedy = "end their names in _bytes: REST then encodes them as base64"
        what = f"{name}: outputs that are not UTF-8, which REST writes as invalid JSON: {raw}"
        yield Finding("error", what, remedy)


def _run(session: Any, signature: Any, inputs: Inputs) -> dict[str, np.ndarray]:
    import tensorflow as tf

    inputs = {key: tf.make_ndarray(value) for key, value in signature.defaults.items()} | inputs
    fetched = {key: info.name for key, info in signature.outputs.items()}
    fed = {signature.inputs[key].name: value for key, value in inputs.items()}
    return {key: np.asarray(value) for key, value in session.run(fetched, fed).items()}


def _made_up(info: Any, batch: int, text: bytes) -> np.ndarray:
    import tensorflow as tf

    shape = [batch, *(SIDE if dim.size < 0 else dim.size for dim in info.tensor_shape.dim[1:])]
    if info.dtype == tf.string.as_datatype_enum:
        return np.full(shape, text, object)
    dtype = tf.as_dtype(info.dtype)
    random = np.random.default_rng(batch).random(shape)
    return (random if dtype.is_floating else np.zeros(shape)).astype(dtype.as_numpy_dtype)


def _binary(value: np.ndarray) -> bool:
    try:
        for item in value.ravel() if value.dtype == object else ():
            item.decode()
    except UnicodeDecodeError:
        return True
    return False


def _warmup(path: pathlib.Path) -> tuple[list[tuple[str, Inputs]], list[Finding]]:
    """(signature, inputs) of each request, and what is wrong with the file."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    if not path.exists():
        remedy = "keras_shared.publish writes them; see g3doc/saved_model_warmup.md of TF Serving"
        return [], [Finding("warning", "no warm-up requests: the first request is slow", remedy)]
    requests: list[tuple[str, Inputs]] = []
    try:
        records = [*tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator()]
        logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
        for log in logs:
            kind = log.WhichOneof("log_type")
            if kind == "predict_log":
                request = log.predict_log.request
                inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            elif kind in ("classify_log", "regress_log"):
                request = getattr(log, kind).request
                examples = request.input.example_list.examples
                rows = [example.SerializeToString() for example in examples]
                inputs = {"inputs": np.array(rows, object)}
            else:
                continue  # multi_inference_log asks for several signatures at once
            requests.append((request.model_spec.signature_name or "serving_default", inputs))
    except (tf.errors.OpError, DecodeError, ValueError, TypeError) as error:
        remedy = "write it again or delete it: TF Serving does not load a version with it"
        return [], [Finding("error", f"the warm-up file is corrupt: {_short(error)}", remedy)]
    if len(records) > MOST_WARMUP_RECORDS:
        what = f"{len(records)} warm-up records, but TF Serving takes at most {MOST_WARMUP_RECORDS}"
        remedy = f"keep {MOST_WARMUP_RECORDS}: TF Serving does not load a version with more"
        return [], [Finding("error", what, remedy)]
    return requests, []


def _mismatch(name: str, inputs: Inputs, signatures: Mapping[str, Any]) -> str | None:
    import tensorflow as tf

    if name not in signatures:
        return f"there is no signature '{name}'"
    expected = signatures[name]
    needed = expected.inputs.keys() - expected.defaults.keys()
    if not needed <= inputs.keys() <= set(expected.inputs):
        return f"{name} takes the inputs {sorted(expected.inputs)}. Received: {sorted(inputs)}"
    for key, value in inputs.items():
        sent, taken = tf.as_dtype(value.dtype), tf.as_dtype(expected.inputs[key].dtype)
        if sent != taken:
            return f"{name}: '{key}' is {sent.name}, but the signature takes {taken.name}"
    return None


def _short(error: Exception) -> str:
    """The line with the reason, without the place in the graph."""
    where = ("Graph execution error", "Detected at", "<stack traces", "(")
    lines = [line for line in str(error).splitlines() if line and not line.startswith(where)]
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
