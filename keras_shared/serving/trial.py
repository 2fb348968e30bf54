"""A SavedModel in a Session, as TF Serving loads it: warm-up replayed, every signature run."""

import contextlib
import functools
import io
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_shared.errors import KerasSharedError, attempt, boundary, printable, whole_reason
from keras_shared.files.bounded import read_bytes
from keras_shared.files.pictures import png_bytes, read_picture
from keras_shared.serving.finding import NOT_TRIED, TOO_MUCH, Finding
from keras_shared.serving.limits import (
    MOST_NUMBERS,
    MOST_REQUEST,
    MOST_ROW,
    MOST_WARMUP,
    MOST_WARMUP_RECORDS,
    memory,
)
from keras_shared.serving.session import array_of, loaded, run

BATCHES = (1, 2, 17)  # that every signature is run with, if it is not too large
WARMUP = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")
SIDE = 32  # for a dimension of unknown size
NEAR = 1e-3  # of a value: a row beside other rows of the same number goes through the same kernels
FAR = 0.05  # of the largest value: kernels for another number of rows round otherwise, codes too
NO_BATCHING = "start the server without batching (`keras-shared serve --no-batching`)"
NO_ROWS = f"{NO_BATCHING}, and send it under 'inputs', not 'instances', to REST"
Inputs = dict[str, np.ndarray]


def try_version(
    folder: pathlib.Path, signatures: Mapping[str, Any], runnable: Mapping[str, Any]
) -> Iterator[Finding | str]:
    """Load `folder` into a Session, replay its warm-up requests, run the `runnable` signatures.

    Args:
        folder: the SavedModel.
        signatures: name -> SignatureDef, all of them: a warm-up request may name any.
        runnable: those in which no error is known yet.

    Yields:
        What is done next, as text, and what went wrong.
    """
    from PIL import Image

    png = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE)).save(png, "PNG")
    image = png.getvalue()
    yield "reading the warm-up requests"
    records, unreadable = warmup_requests(folder / WARMUP)
    yield from unreadable
    yield "loading it"
    with contextlib.ExitStack() as stack:
        entered, error = attempt(lambda: stack.enter_context(loaded(folder)))
        if error:
            remedy = "publish or copy it again; TF Serving has only TensorFlow's own operations"
            if set("[\\") & set(str(folder)):
                remedy = "rename its folder: TensorFlow reads [ and \\ in a path as a pattern"
            yield Finding("error", f"it cannot be loaded: {reason(error)}", remedy)
            return
        session, _ = entered
        typical: dict[str, Inputs] = {}
        for number, (name, inputs) in enumerate(records, 1):
            wrong = mismatch(name, inputs, signatures)
            if wrong is None and name in runnable:
                yield f"replaying warm-up record {number}"
                _, error = attempt(functools.partial(run, session, signatures[name], inputs))
                if error:
                    wrong = reason(error)
                else:
                    typical.setdefault(name, inputs)
            if wrong is not None:
                remedy = "correct or remove it: with it, TF Serving does not load the version"
                yield Finding("error", f"warm-up record {number}: {wrong}", remedy)
        sizes = batches(max((_numbers(s) for s in runnable.values()), default=0))
        for name, signature in runnable.items():
            numbers = _numbers(signature)
            if name not in typical and numbers > MOST_ROW:
                what = f"{name} {NOT_TRIED}: a made-up row has {numbers:,} numbers"
                yield Finding("warning", what, "add a warm-up request with inputs that it takes")
                continue
            yield from _try_signature(session, name, signature, typical.get(name), image, sizes)


def reason(error: Exception) -> str:
    """What an error of a trial says, of memory too."""
    import tensorflow as tf

    if isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError)):
        return f"{TOO_MUCH} the {memory() // 10**9} GB of memory that a trial may"
    if isinstance(error, UnicodeDecodeError):  # what a graph says, which may quote any bytes
        return printable(error.object.decode("utf-8", "replace"))
    return whole_reason(error)


def batches(numbers: int) -> tuple[int, ...]:
    """How many rows to try a signature with, of so many numbers each.

    A large model is tried with one and two rows alone: 17 photographs take gigabytes.

    Args:
        numbers: in one row of all inputs together.

    Returns:
        The batch sizes, from small to large.

    Example:
        >>> from keras_shared.serving.trial import batches
        >>> batches(28 * 28), batches(1024 * 1536 * 3)
        ((1, 2, 17), (1, 2))
    """
    return tuple(n for n in BATCHES if n < 3 or n * numbers <= MOST_NUMBERS)


class _Rows(NamedTuple):
    """One way to fill the inputs of a signature: what a string holds, what shape is not known."""

    signature: Any
    typical: Inputs | None
    text: bytes
    rank: int

    def __call__(self, batch: int) -> Inputs:
        if self.typical is None:
            infos = self.signature.inputs.items()
            return {key: _made_up(info, batch, self.text, self.rank) for key, info in infos}
        sent = {key: len(v) for key, v in self.typical.items() if v.ndim}
        rows = [sent[key] for key in sent if _batched(self.signature.inputs[key])]
        return {
            key: np.repeat(value[:1], batch, axis=0)
            if rows and sent.get(key) == rows[0] and _may_be_batched(self.signature.inputs[key])
            else value
            for key, value in self.typical.items()
        }


def _answer(session: Any, signature: Any, way: _Rows, batch: int) -> dict[str, np.ndarray]:
    return run(session, signature, way(batch))


def _ways(signature: Any, typical: Inputs | None, image: bytes) -> Iterator[_Rows]:
    import tensorflow as tf

    infos = signature.inputs.values()
    text = typical is None and any(i.dtype == tf.string.as_datatype_enum for i in infos)
    rank = typical is None and any(i.tensor_shape.unknown_rank for i in infos)
    # a signature does not say what a string holds; b"": tf.Example
    contents = (image, b"0", b"") if _reads_pictures(signature) else (b"0", b"", image)
    for content in contents if text else (b"",):
        for dimensions in (1, 0, 2, 4) if rank else (1,):
            yield _Rows(signature, typical, content, dimensions)


def _reads_pictures(signature: Any) -> bool:
    return any(key.endswith("_bytes") for key in signature.inputs)


def _numbers(signature: Any) -> int:
    """In one row of all inputs together."""
    shapes = [_shape(info, 1, 1) for info in signature.inputs.values()]
    return sum(math.prod(shape) for shape in shapes)


def _try_signature(
    session: Any,
    name: str,
    signature: Any,
    typical: Inputs | None,
    image: bytes,
    sizes: tuple[int, ...],
) -> Iterator[Finding | str]:
    import tensorflow as tf

    infos = signature.inputs.values()
    open_rank = any(info.tensor_shape.unknown_rank for info in infos)
    # a vector of whole numbers beside other inputs may be lengths, row splits or indices
    whole = len(infos) > 1 and any(
        tf.as_dtype(info.dtype).is_integer and len(info.tensor_shape.dim) == 1 for info in infos
    )
    guessed = (
        whole
        or (
            typical is None
            and (
                open_rank
                # texts and indices may be taken from a list alone
                or any(
                    t.is_integer or t == tf.string for t in (tf.as_dtype(i.dtype) for i in infos)
                )
                or any(dim.size < 0 for info in infos for dim in info.tensor_shape.dim[1:])
            )
        )
    )
    if not any(map(_may_be_batched, infos)):
        sizes = (1,)  # whose number of rows is their own
    failed: list[tuple[int, bool, Exception]] = []  # whether it was an empty tf.Example
    for way in _ways(signature, typical, image):
        unlike: list[tuple[int, dict[str, tuple[int, ...]]]] = []
        alone: dict[str, np.ndarray] = {}
        for batch in sizes:
            yield f"running {name} at batch {batch}"
            outputs, error = attempt(functools.partial(_answer, session, signature, way, batch))
            if error:
                failed.append((batch, way.text == b"" and not _reads_pictures(signature), error))
                break
            alone = alone or outputs
            wrong = {k: v.shape for k, v in outputs.items() if v.shape[:1] != (batch,)}
            unlike += [(batch, wrong)] if wrong else []
        else:
            break
    else:
        # the way that came farthest; a model of examples says of an empty one what it lacks
        batch, _, last = max(failed, key=lambda one: one[:2])
        later = batch > sizes[0]
        inside = (tf.errors.FailedPreconditionError, tf.errors.UnimplementedError)
        large = (tf.errors.ResourceExhaustedError, MemoryError)
        at = f" at batch {batch}" if later else ""
        if isinstance(last, large):
            remedy = "make it smaller, or try it on a machine with more memory"
            yield Finding("error", f"{name} fails{at}: {reason(last)}", remedy)
        elif isinstance(last, inside) or not guessed or (later and not whole and not open_rank):
            remedy = "correct the model and export it again"
            if later:
                remedy = "use -1 or tf.shape(x)[0] for the batch size, in reshapes above all"
            yield Finding("error", f"{name} fails{at}: {reason(last)}", remedy)
        else:
            what = f"{name} {NOT_TRIED}{at} with made-up inputs: {reason(last)}"
            yield Finding("warning", what, "add a warm-up request with inputs that it takes")
        return
    if all(map(_may_be_batched, infos)):  # of another input it is said already
        yield from _of_the_batch(session, name, signature, way, alone, unlike)
    raw = sorted(key for key, v in outputs.items() if not key.endswith("_bytes") and _binary(v))
    if raw:
        remedy = "end their names in _bytes: REST then encodes them as base64"
        what = f"{name}: outputs that are not UTF-8, which REST writes as invalid JSON: {raw}"
        yield Finding("error", what, remedy)


def _of_the_batch(
    session: Any,
    name: str,
    signature: Any,
    way: _Rows,
    alone: Mapping[str, np.ndarray],
    unlike: Sequence[tuple[int, dict[str, tuple[int, ...]]]],
) -> Iterator[Finding]:
    """What becomes of its answers where rows of several requests are one batch."""
    fails = "TF Serving fails its requests with batching on"
    if not way.rank:
        what = f"{name}: an input of unknown rank is taken as a scalar alone. {fails}"
        yield Finding("warning", what, f"{NO_ROWS}; or export it with a shape")
    elif unlike:
        batch, wrong = unlike[0]
        what = f"{name}: outputs whose dimension 0 is not the batch of {batch}: {wrong}. {fails}"
        remedy = f"return one row for each input row, or remove the output; or {NO_ROWS}"
        yield Finding("warning", what, remedy)
    elif mixed := _mixed(session, signature, way, alone):
        what = (
            f"{name}: in {mixed}, the answer for a row depends on the other rows of its batch, or "
            "on its place there. With batching on, the other rows are of other requests too"
        )
        remedy = f"compute over axes of one row alone, not over the batch; or {NO_BATCHING}"
        yield Finding("warning", what, remedy)


def _mixed(session: Any, signature: Any, way: _Rows, alone: Mapping[str, np.ndarray]) -> list[str]:
    """The outputs in which a row has other values beside another row than beside itself."""
    one, two = way(1), way(2)
    batched = [key for key in one if one[key].shape != two[key].shape]

    def together(*rows: Inputs) -> dict[str, np.ndarray]:
        joined = {key: np.concatenate([row[key] for row in rows]) for key in batched}
        return run(session, signature, {**one, **joined})

    def beside(other: Inputs) -> list[dict[str, np.ndarray]]:
        return [together(*rows) for rows in ((one, one), (one, other), (other, one))]

    def unlike(key: str, answers: Sequence[dict[str, np.ndarray]]) -> bool:
        same, first, second = (answer[key] for answer in answers)
        beside_it = _alike(same[0], first[0]) and _alike(same[1], second[1])
        placed = same.dtype.kind == "f" and not all(_alike(alone[key][0], y, FAR) for y in same)
        return placed or not beside_it

    for other in _others(one, batched):
        answers, error = attempt(functools.partial(beside, other))
        if error:
            continue  # not every value is one that it takes
        mixed = sorted(key for key in answers[0] if unlike(key, answers))
        again = together(one, one) if mixed else {}  # of what draws numbers, nothing is known
        return mixed if all(_alike(again[key], answers[0][key]) for key in mixed) else []
    return []


def _alike(one: np.ndarray, two: np.ndarray, most: float = NEAR) -> bool:
    """Whether values are the same but for rounding, as far as both go: texts are padded."""
    if np.ndim(one) != np.ndim(two):
        return False
    both = tuple(slice(min(sides)) for sides in zip(np.shape(one), np.shape(two), strict=True))
    one, two = np.asarray(one)[both], np.asarray(two)[both]
    if one.dtype.kind != "f":
        return np.array_equal(one, two)
    finite = np.abs(one[np.isfinite(one)]).max(initial=0)
    near = 1e-6 if most == NEAR else most * finite
    return bool(np.allclose(one, two, rtol=most, atol=near, equal_nan=True))


def _others(one: Inputs, batched: Sequence[str]) -> Iterator[Inputs]:
    """Rows that differ from one: in all of their inputs; if that is not taken, in fractions."""
    for word in (b" 1", b"1"):
        yield {key: _other(one[key], word) if key in batched else one[key] for key in one}
    fractions = [key for key in batched if one[key].dtype.kind not in "Oiub"]
    if fractions:
        yield {key: _other(one[key], b"") if key in fractions else one[key] for key in one}


def _other(value: np.ndarray, word: bytes) -> np.ndarray:
    """Other values that the same input may take."""
    if value.dtype == object:
        return np.array([_other_text(v, word) for v in value.ravel()], object).reshape(value.shape)
    if value.dtype.kind == "b" or value.dtype == np.uint8:  # pixels, often
        return np.asarray(~value)
    if value.dtype.kind in "iu":  # indices, often: no larger one but for 0
        return np.where(value > 0, value - 1, value + 1).astype(value.dtype)
    turned = value.ravel()[::-1].reshape(value.shape)
    return np.asarray(turned * 0.5 + 0.25, value.dtype)


def _other_text(text: bytes, word: bytes) -> bytes:
    pixels, error = attempt(lambda: read_picture(text))
    return text + word if error else png_bytes(255 - pixels)


def _shape(info: Any, batch: int, rank: int) -> list[int]:
    if info.tensor_shape.unknown_rank:
        return [batch, SIDE, SIDE, 3][:rank]
    sizes = [SIDE if dim.size < 0 else dim.size for dim in info.tensor_shape.dim]
    return [batch, *sizes[1:]] if _batched(info) else sizes


def _batched(info: Any) -> bool:
    dims = info.tensor_shape.dim
    return bool(dims) and dims[0].size == -1


def _may_be_batched(info: Any) -> bool:
    return _batched(info) or info.tensor_shape.unknown_rank


def _made_up(info: Any, batch: int, text: bytes, rank: int) -> np.ndarray:
    import tensorflow as tf

    shape = _shape(info, batch, rank)
    if info.dtype == tf.string.as_datatype_enum:
        return np.full(shape, text, object)
    dtype = tf.as_dtype(info.dtype)
    random = np.random.default_rng(batch).random(shape)
    return np.asarray(random if dtype.is_floating else np.zeros(shape), dtype.as_numpy_dtype)


def _binary(value: np.ndarray) -> bool:
    items = value.ravel() if value.dtype == object else ()
    return any(item.decode(errors="ignore").encode() != item for item in items)


def _warmup_file(path: pathlib.Path) -> tuple[list[bytes], list[tuple[str, Inputs]]]:
    """The records of a warm-up file, and the requests that they are, by signature."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    requests: list[tuple[str, Inputs]] = []
    with boundary("the warm-up file is corrupt"):
        read_bytes(path, MOST_WARMUP)
        records = [*tf.compat.v1.io.tf_record_iterator(os.fspath(path))]
        for record in records:
            log = prediction_log_pb2.PredictionLog.FromString(record)
            kind = log.WhichOneof("log_type")
            if kind == "predict_log":
                request = log.predict_log.request
                inputs = {
                    key: array_of(f"input '{key}'", value, MOST_REQUEST)
                    for key, value in request.inputs.items()
                }
            elif kind in ("classify_log", "regress_log"):
                request = getattr(log, kind).request
                examples = request.input.example_list.examples
                rows = [example.SerializeToString() for example in examples]
                inputs = {"inputs": np.array(rows, object)}
            else:
                continue  # multi_inference_log asks for several signatures at once
            requests.append((request.model_spec.signature_name or "serving_default", inputs))
    return records, requests


def warmup_requests(path: pathlib.Path) -> tuple[list[tuple[str, Inputs]], list[Finding]]:
    """(signature, inputs) of each request, and what is wrong with the file."""

    if not os.path.lexists(path):
        remedy = "keras_shared.publish writes them; see g3doc/saved_model_warmup.md of TF Serving"
        return [], [Finding("warning", "no warm-up requests: the first request is slow", remedy)]
    read, error = attempt(lambda: _warmup_file(path), KerasSharedError)
    if error:
        remedy = "write it again or delete it: TF Serving does not load a version with it"
        return [], [Finding("error", str(error), remedy)]
    records, requests = read
    if len(records) > MOST_WARMUP_RECORDS:
        what = f"{len(records)} warm-up records, but TF Serving takes at most {MOST_WARMUP_RECORDS}"
        remedy = f"keep {MOST_WARMUP_RECORDS}: TF Serving does not load a version with more"
        return [], [Finding("error", what, remedy)]
    return requests, []


def mismatch(name: str, inputs: Inputs, signatures: Mapping[str, Any]) -> str | None:
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
