"""What was written must answer as Keras does."""

import contextlib
import functools
import os
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared.errors import attempt, boundary, shortened
from keras_shared.exporting.advice import OTHERWISE
from keras_shared.exporting.drawing import SCALES, WHOLE, Inputs, described, drawn, moved
from keras_shared.exporting.known_values import known_values
from keras_shared.exporting.signatures import HALF, examples, input_structure, signatures_of
from keras_shared.serving.session import loaded, run
from keras_shared.serving.trial import batches
from keras_shared.signature import Signature
from keras_shared.tying.keras_private import flatten_layers
from keras_shared.tying.state_kept import state_kept

TOLERANCE = 1e-5  # of the largest value
ROUNDING = 2.5e-3  # of the largest value, at most
FAR = 0.1  # of the largest value, for large inputs: what is no rounding
NEAR = 1e-5  # of an input
TAKE = (
    "A server answers whatever its clients send: let the model take such inputs too, a lookup by "
    "num_oov_indices=1, say."
)
Outputs = dict[str, np.ndarray]
MORE = 4  # times as much as Keras is from itself
NONE: Mapping[Any, float] = types.MappingProxyType({})
STEPS = 4  # of half precision, which graph and Keras round in different places


def check_saved_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Load `path` into a Session, as TF Serving does, and compare every signature with Keras.

    Args:
        model: the model that was written.
        path: the folder.

    Raises:
        ValueError: if an output differs by more than 1e-5 of its largest value (4 steps where the
            model computes in half precision; 4 times as much as Keras from itself in a batch of
            another size, if that is more), or is missing.
    """
    cases = []
    sizes = _sizes(signatures_of(model))
    for name, signature in signatures_of(model).items():
        for batch in sizes:
            plain, expected = taken(model, name, signature, batch)
            tensors = {key: keras.ops.convert_to_tensor(value) for key, value in plain.items()}
            cases.append((name, plain, expected, signature.call, tensors))
            if signature.image_size is not None:
                encoded = examples(signature, batch, encoded=True)
                cases.append((f"{name}_bytes", encoded, expected, signature.call, tensors))

    def compare(of_path: Any, case: tuple[Any, ...], noise: Mapping[Any, float] = NONE) -> None:
        (session, served), (variant, inputs, expected, *_) = of_path, case
        answers = run(session, served[variant], inputs)
        for key, value in expected.items():
            tolerance = max(_tolerance(model), MORE * noise.get(key, 0.0))
            _compare(answers.get(key), value, f"{variant}: {key}", tolerance)

    with loaded(path) as of_path:
        tried = [attempt(functools.partial(compare, of_path, case), ValueError) for case in cases]
    for case, (_, wrong) in zip(cases, tried, strict=True):
        if wrong:  # as for the first request: a model may draw numbers, and count its draws
            noise, _ = attempt(functools.partial(_noise, model, *case[2:]), ValueError, TypeError)
            with loaded(path) as of_path:
                compare(of_path, case, noise or NONE)


def _noise(
    model: keras.Model,
    expected: Mapping[Any, Any],
    call: Callable[..., Mapping[Any, Any]],
    tensors: dict[str, Any],
) -> dict[Any, float]:
    """How far Keras is from itself: for the same rows one by one, and twice in a larger batch.

    Other kernels round otherwise, and a model may make much of that.
    """
    ops, rows = keras.ops, len(next(iter(tensors.values())))
    found: dict[Any, float] = {}
    with _tried(model):
        single = [call(**{k: v[i : i + 1] for k, v in tensors.items()})
                  for i in range(rows)]  # fmt: skip
        double = call(**{k: ops.concatenate([v, v]) for k, v in tensors.items()})
    for key, value in expected.items():
        one = ops.convert_to_numpy(value)
        for other in (ops.concatenate([row[key] for row in single]), double[key][:rows]):
            two = ops.convert_to_numpy(other)
            if one.dtype.kind == "f" and two.shape == one.shape and np.isfinite(one).all():
                far = float((np.abs(two - one) / _scale(one)).max(initial=0))
                # more is no rounding: a model that draws numbers, say
                found[key] = max(found.get(key, 0.0), far if far < ROUNDING else 0.0)
    return found


def check_call(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Load `path` as plain TensorFlow does, to train on, and compare its call with Keras.

    Args:
        model: the model that was written.
        path: the folder.

    Raises:
        ValueError: if an output differs by more than 1e-5 of its largest value (4 steps where the
            model computes in half precision), or is missing.
    """
    structure = input_structure(model)
    if structure is None:
        return
    tensors = {str(i): tensor for i, tensor in enumerate(keras.tree.flatten(structure))}

    def call(**tensors: Any) -> Any:
        return model(keras.tree.pack_sequence_as(structure, [*tensors.values()]), training=False)

    signature = Signature(call, tensors, values=known_values(model, tensors))
    plain, _ = taken(model, "__call__", signature, 2)
    inputs = keras.tree.pack_sequence_as(structure, [*map(tf.constant, plain.values())])
    answers = dict(keras.tree.flatten_with_path(tf.saved_model.load(os.fspath(path))(inputs)))
    with state_kept(model):
        expected = dict(keras.tree.flatten_with_path(model(inputs, training=False)))

    def compare(noise: Mapping[Any, float] = NONE) -> None:
        for key, value in expected.items():
            where = "/".join(["__call__", *map(str, key)])
            tolerance = max(_tolerance(model), MORE * noise.get(key, 0.0))
            _compare(answers.get(key), value, where, tolerance)

    if attempt(compare, ValueError)[1]:
        named = {key: keras.ops.convert_to_tensor(value) for key, value in plain.items()}
        flat = lambda **given: dict(keras.tree.flatten_with_path(call(**given)))  # noqa: E731
        noise, _ = attempt(lambda: _noise(model, expected, flat, named), ValueError, TypeError)
        compare(noise or NONE)


def check_loaded_model(model: keras.Model, loaded: keras.Model) -> None:
    """Compare what a model and its copy from a file answer, signature by signature.

    Args:
        model: the model that was saved.
        loaded: what came back.

    Raises:
        ValueError: if an output differs by more than 1e-5 of its largest value (4 steps where the
            model computes in half precision), or is missing.
    """
    copies = signatures_of(loaded)
    for name, signature in signatures_of(model).items():
        inputs, asked = taken(model, name, signature, 2)
        tensors = map(keras.ops.convert_to_tensor, inputs.values())
        # by position: Keras names an unnamed input of a Sequential when it saves it
        again = dict(zip(copies[name].inputs, tensors, strict=True))
        with state_kept(loaded):
            answers = copies[name].call(**again)
        for key, expected in asked.items():
            where = f"loaded again, {name}: {key}"
            _compare(answers.get(key), expected, where, _tolerance(model))


def check_answers(
    model: keras.Model, name: str, signature: Signature, answer: Any, program: str
) -> str:
    """Compare what a converted model answers with Keras.

    Also for negative, zero and large inputs, as far as Keras takes them and answers finite numbers:
    a converter may write an operation that is right between 0 and 1 alone.

    Args:
        model: the model that was converted.
        name: of the signature that was converted.
        signature: the signature itself.
        answer: takes its inputs by keyword, gives its outputs by name; NumPy in and out.
        program: what runs it, for the message.

    Returns:
        What to know of inputs up to 100, where an output differs by a tenth of its largest value
        (4 times as much as Keras itself where it goes further for inputs beside them).

    Raises:
        ValueError: if an output differs by more than 1e-5 of its largest value (4 steps where the
            model computes in half precision), or is missing; for inputs between -1 and 1, by
            0.25 %; or if `answer` fails.
    """
    fails = f"{program} fails at '{name}' on inputs that Keras takes"
    sizes = _sizes({name: signature})
    for batch in sizes:
        inputs, outputs = taken(model, name, signature, batch)
        with boundary(fails, ValueError, f"{OTHERWISE} Nothing was kept."):
            answers = answer(**inputs)
        for key, expected in outputs.items():
            where = f"{program}, {name}: {key}"
            _compare(answers.get(key), expected, where, _tolerance(model))
    if signature.image_size is not None:
        return ""  # of images, all that there are were tried
    kinds = {value.dtype.kind for value in inputs.values()}
    for scale in SCALES if "f" in kinds else SCALES[:1] if kinds & set("iub") else ():
        tried = _first_taken(model, signature, inputs, scale)
        if tried is None:
            continue  # Keras does not take them either
        given, asked, said = tried
        remedy = (
            f"The inputs were {said}. Put another operation in the place of one that {program} "
            "computes otherwise for them; or, if yours are never such, keras.ops.clip(inputs, "
            "lowest, highest) before the first layer; or serve the model as a SavedModel."
        )

        def compare(given: Inputs = given, asked: Outputs = asked, scale: float = scale) -> None:
            with boundary(fails, ValueError):
                answers = answer(**given)
            for key, expected in asked.items():
                fits = functools.partial(
                    _compare, answers.get(key), expected, f"{program}, {name}: {key}", kept=""
                )
                least = ROUNDING if scale == 1 else FAR
                if attempt(functools.partial(fits, least), ValueError)[1]:
                    fits(max(least, MORE * _steepness(model, signature, given, asked, key)))

        _, wrong = attempt(compare, ValueError)
        if wrong and scale == 1:
            raise ValueError(f"{wrong} {remedy} Nothing was kept.") from wrong
        if wrong:
            return f"{wrong} {remedy}"
    return ""


def taken(
    model: keras.Model, name: str, signature: Signature, batch: int
) -> tuple[Inputs, Mapping[Any, Any]]:
    """Made-up inputs that the model takes, and what Keras answers.

    Args:
        model: whose signature it is.
        name: of the signature, for the message.
        signature: the signature itself.
        batch: how many rows.

    Raises:
        ValueError: if Keras answers neither zeros and empty texts, nor ones and words.
    """
    every = []
    for other in (False, True):
        inputs = examples(signature, batch, encoded=False, other=other)
        every.append(inputs)
        ask = functools.partial(_answered, model, signature, inputs)
        outputs, error = attempt(ask, tf.errors.OpError, ValueError, TypeError)
        if error is None:
            return inputs, outputs
    shown = " and with ".join(shortened(str(inputs)) for inputs in every)
    with boundary(f"Keras' own '{name}' fails when it is tried with {shown}", ValueError, TAKE):
        raise error


def _answered(model: keras.Model, signature: Signature, inputs: Inputs) -> Mapping[Any, Any]:
    tensors = {key: keras.ops.convert_to_tensor(value) for key, value in inputs.items()}
    with _tried(model):
        return signature.call(**tensors)


def _asked(model: keras.Model, signature: Signature, inputs: Inputs) -> Outputs:
    outputs = _answered(model, signature, inputs)
    return {key: keras.ops.convert_to_numpy(value) for key, value in outputs.items()}


def _first_taken(
    model: keras.Model, signature: Signature, like: Inputs, scale: float
) -> tuple[Inputs, Outputs, str] | None:
    """Inputs that Keras takes, what it answers that is finite, and a text of what they are."""
    for whole in WHOLE:
        inputs = drawn(like, scale, whole)
        with tf.device("CPU"):  # which refuses what no Embedding holds: a GPU gives zeros for it
            ask = functools.partial(_asked, model, signature, inputs)
            asked, error = attempt(ask, tf.errors.OpError, ValueError)
        if error is None:
            finite = {k: v for k, v in asked.items() if v.dtype.kind != "f" or np.isfinite(v).all()}
            return inputs, finite, described(inputs, scale, whole)
    return None


def _steepness(
    model: keras.Model,
    signature: Signature,
    inputs: Inputs,
    asked: Outputs,
    output: str,
) -> float:
    """How far Keras goes for inputs that are next to these: an argmax of two that are close."""
    near = [_asked(model, signature, moved(inputs, NEAR, seed))[output] for seed in range(3)]
    value = asked[output].astype("float64")
    return float(max((np.abs(other - value) / _scale(value)).max(initial=0) for other in near))


@contextlib.contextmanager
def _tried(model: keras.Model) -> Iterator[None]:
    """States are as before; and Keras does not warn of an attention among one token, of a trial."""
    with state_kept(model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using a softmax over axis")
        yield


def _sizes(signatures: dict[str, Signature]) -> tuple[int, ...]:
    """How many rows to try them with."""
    inputs = [spec for signature in signatures.values() for spec in signature.inputs.values()]
    if any(not spec.shape or spec.shape[0] for spec in inputs):
        return (1,)  # whose number of rows is the model's, or there are none
    rows = [examples(signature, 1, encoded=False) for signature in signatures.values()]
    return batches(max(sum(value.size for value in row.values()) for row in rows))


def _tolerance(model: keras.Model) -> float:
    computed = {layer.compute_dtype for layer in flatten_layers(model)}
    return max(TOLERANCE, *(STEPS * HALF.get(str(dtype), 0) for dtype in computed))


def _scale(values: np.ndarray) -> np.ndarray:
    """For each value, that of which it may differ by a share: the largest, but for what masks."""
    sizes = np.abs(np.where(np.isfinite(values), values, 0))
    usual = sizes[sizes <= 1000 * max(1.0, float(np.median(sizes)) if sizes.size else 1.0)]
    return np.maximum(sizes, max(1.0, float(usual.max(initial=0))))


def _compare(
    served: Any, expected: Any, what: str, tolerance: float, kept: str = " Nothing was kept."
) -> None:
    expected = keras.ops.convert_to_numpy(expected)
    found = "is missing"
    if served is not None:
        served = keras.ops.convert_to_numpy(served)
        if expected.dtype.kind in "OS":  # strings
            if np.array_equal(served, expected):
                return
            found = "has other strings"
        else:
            served, expected = served.astype("float64"), expected.astype("float64")
            finite = np.isfinite(expected)
            same = served.shape == expected.shape and np.array_equal(
                np.where(finite, 0, served), np.where(finite, 0, expected), equal_nan=True
            )
            most = tolerance * _scale(expected)
            wrong = np.abs(served - expected)[finite] if same else np.full(1, np.inf)
            if same and np.all(wrong <= most[finite]):
                return
            found = f"differs by {wrong.max()}, more than {most.max()}"
    raise ValueError(
        f"What was written gives other outputs than Keras: '{what}' at batch {len(expected)} "
        f"{found}.{kept}"
    )
