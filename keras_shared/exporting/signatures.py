"""The ways to ask a model: by name, as functions of named tensors, with inputs to try them."""

import functools
import keyword
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared.errors import attempt
from keras_shared.exporting.known_values import known_values
from keras_shared.signature import Signature

OPEN_SIDE = 32
NAME = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.>-]*")  # of an operation in a graph
# REST of TF Serving can neither read nor write them; each with its step at 1
HALF = {"float16": 2**-10, "bfloat16": 2**-7}


def signatures_of(model: keras.Model) -> dict[str, Signature]:
    """The model's own signatures, or `serving_default` with the names of its inputs and outputs.

    Args:
        model: a zoo model, or any functional (or built Sequential) Keras model.

    Raises:
        ValueError: under another backend than TensorFlow, or if the model has no symbolic inputs
            to take names and shapes from.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "SavedModel, ONNX and LiteRT are written under the TensorFlow backend. Received: "
            f"KERAS_BACKEND={keras.backend.backend()}. Save a .keras file here, and load and write "
            "it with KERAS_BACKEND=tensorflow."
        )
    own = getattr(model, "signatures", None)
    if callable(own):
        signatures: dict[str, Signature] = own()
        return signatures
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ValueError(
            "Only a model with known inputs has signatures, see `with_known_inputs`. "
            f"Received: '{model.name}' (of type {type(model).__name__})"
        )
    structure = input_structure(model)
    names = [_input_name(model, tensor) for tensor in inputs]
    sequential = isinstance(model, keras.Sequential)
    output_names = [model.layers[-1].name] if sequential else model.output_names

    def call(**tensors: Any) -> dict[str, Any]:
        flat = [tensors[name] for name in names]
        outputs = model(keras.tree.pack_sequence_as(structure, flat), training=False)
        if isinstance(outputs, dict):
            paths, values = zip(*keras.tree.flatten_with_path(outputs), strict=True)
            joined = ["_".join(map(str, path)) for path in paths]
            return dict(zip(_unique(joined), values, strict=True))
        return dict(zip(_unique(output_names), keras.tree.flatten(outputs), strict=True))

    named = dict(zip(names, inputs, strict=True))
    return {"serving_default": Signature(call, named, values=known_values(model, named))}


def input_structure(model: keras.Model) -> Any:
    """The model's inputs as it takes them: one, a list or a dict; None where they are not known."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return None
    return inputs[0] if isinstance(model, keras.Sequential) else model.input


def _input_name(model: keras.Model, tensor: keras.KerasTensor) -> str:
    """The name of the Input layer: that of its tensor is a number where the user gave none."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer) and layer.output is tensor:
            return str(layer.name)
    return "inputs" if tensor.name.startswith("keras_tensor") else str(tensor.name)


def _unique(names: list[str]) -> list[str]:
    """Keras repeats the name of a layer that gives several outputs: a, a -> a, a_1."""
    unique: list[str] = []
    for name in names:
        new, count = name, 0
        while new in unique or (count and new in names):  # another layer may be called a_1
            count += 1
            new = f"{name}_{count}"
        unique.append(new)
    return unique


def examples(
    signature: Signature, batch: int, encoded: bool, other: bool = False
) -> dict[str, np.ndarray]:
    """Inputs to try a signature with: images of noise, values that it knows, fractions, zeros.

    A batch that the model fixes stays what it is; an open side is 32, or what the model takes.

    Args:
        signature: what to ask.
        batch: how many rows.
        encoded: whether images are PNG files.
        other: ones and some words in the place of zeros and empty texts.
    """
    random = np.random.default_rng(batch)
    inputs = {}
    open_side = _open_side(signature)
    for name, spec in signature.inputs.items():
        shape = [spec.shape[0] or batch] if spec.shape else []
        shape += [open_side if side is None else side for side in spec.shape[1:]]
        if signature.image_size is not None:
            shape[1:3] = [
                side or taken for side, taken in zip(signature.image_size, shape[1:3], strict=True)
            ]
            images = random.integers(0, 256, shape, dtype="uint8")
            if encoded:
                png = [tf.io.encode_png(image).numpy() for image in images]
                inputs[f"{name}_bytes"] = np.array(png, object)
            else:
                inputs[name] = images.astype(sent(spec.dtype))
        elif name in signature.values:
            drawn = random.choice(np.asarray(signature.values[name]), shape)
            inputs[name] = drawn.astype(object if spec.dtype == "string" else sent(spec.dtype))
        elif spec.dtype == "string":
            inputs[name] = np.full(shape, b"some words of a text" if other else b"", object)
        else:
            whole = np.issubdtype(np.dtype(spec.dtype), np.integer) or spec.dtype == "bool"
            values = np.full(shape, int(other)) if whole else random.random(shape)
            inputs[name] = values.astype(sent(spec.dtype))
    return inputs


def functions_of(name: str, signature: Signature) -> dict[str, Any]:
    """The signature as a tf.function, and for images a second one that takes encoded bytes.

    Raises:
        ValueError: if TensorFlow has no argument of the name of an input.
    """
    for key in signature.inputs:
        if not NAME.fullmatch(key) or keyword.iskeyword(key) or key == "self":
            raise ValueError(
                f"TensorFlow cannot name an argument of '{name}' as this input is named: {key!r}. "
                "Expected letters from a to z, digits, '_', '-' or '.', a letter or digit first, "
                "and no word of Python's own. Name it keras.Input(..., name='another_name')."
            )

    def answer(**tensors: Any) -> dict[str, Any]:
        outputs = dict(signature.call(**tensors))
        given = signature.class_names or {}
        of_each = given.items() if isinstance(given, Mapping) else [("", given)]
        for task, class_names in of_each:
            prefix = f"{task}_" if task else ""
            scores, names = outputs[f"{prefix}scores"], tf.constant(class_names)
            outputs[f"{prefix}classes"] = tf.tile(names[None], [tf.shape(scores)[0], 1])
            outputs[f"{prefix}label"] = tf.gather(names, tf.argmax(scores, axis=-1))
        return outputs

    functions = {name: _function(answer, signature.inputs)}
    if signature.image_size is not None:
        specs = signature.inputs

        def from_bytes(**encoded: Any) -> dict[str, Any]:
            images = {k: encoded[f"{k}_bytes"] for k in specs}
            if signature.image_size != (None, None):
                return answer(**{k: _decode(images[k], specs[k], signature) for k in specs})
            return _one_by_one(functions[name], images, specs)

        strings = {f"{key}_bytes": keras.KerasTensor((None,), "string") for key in specs}
        functions[f"{name}_bytes"] = _function(from_bytes, strings)
    return functions


def function_of(signature: Signature) -> Any:
    """The signature as a tf.function of numbers alone: no names of classes, no encoded bytes."""
    return _function(signature.call, signature.inputs)


def _function(call: Any, inputs: Any) -> Any:
    specs = {key: tf.TensorSpec(s.shape, sent(s.dtype), name=key) for key, s in inputs.items()}

    # tf.function takes named specs by position: one parameter for each input, in order
    def positional(*tensors: Any) -> dict[str, Any]:
        pairs = zip(inputs.items(), tensors, strict=True)
        outputs = call(**{key: tf.cast(tensor, spec.dtype) for (key, spec), tensor in pairs})
        return {key: tf.cast(value, sent(value.dtype)) for key, value in outputs.items()}

    return tf.function(
        positional,
        input_signature=list(specs.values()),
        autograph=False,
    )


def sent(dtype: Any) -> str:
    """The dtype outside of the model: float32 for half precision."""
    name = keras.backend.standardize_dtype(dtype)
    return "float32" if name in HALF else name


def _decode(encoded: Any, spec: keras.KerasTensor, signature: Signature) -> Any:
    """(batch,) of PNG or JPEG bytes -> (batch, height, width, channels), 0 to 255."""
    height, width = signature.image_size or (None, None)

    def one(content: Any) -> Any:
        image = tf.cast(_image(content, spec), spec.dtype)
        return keras.ops.image.resize(image, (height, width), antialias=True)

    shape = tf.TensorSpec((height, width, spec.shape[-1]), spec.dtype)
    return tf.map_fn(one, encoded, fn_output_signature=shape)


def _one_by_one(function: Any, encoded: Any, specs: Any) -> dict[str, Any]:
    """The answers to images of several sizes, which make no batch: each by itself."""

    def one(contents: Any) -> Any:
        images = [_image(contents[key], spec)[None] for key, spec in specs.items()]
        return {key: value[0] for key, value in function(*images).items()}

    outputs = function.get_concrete_function().structured_outputs
    rows = {key: tf.TensorSpec(spec.shape[1:], spec.dtype) for key, spec in outputs.items()}
    answers: dict[str, Any] = tf.map_fn(one, encoded, fn_output_signature=rows)
    return answers


def _image(content: Any, spec: keras.KerasTensor) -> Any:
    """PNG or JPEG bytes -> (height, width, channels), 0 to 255."""
    channels = spec.shape[-1]
    image = tf.io.decode_image(content, channels=channels, expand_animations=False)
    image.set_shape((None, None, channels))
    return tf.cast(image, sent(spec.dtype))


def _open_side(signature: Signature) -> int:
    """A length that the model takes: one with learned positions may have few of them."""
    specs = signature.inputs.values()
    if signature.image_size is None and any(None in spec.shape[1:] for spec in specs):
        side = OPEN_SIDE
        while side:
            tried = {
                name: tf.TensorSpec(
                    [*spec.shape[:1], *(side if n is None else n for n in spec.shape[1:])],
                    spec.dtype,
                )
                for name, spec in signature.inputs.items()
            }
            # as one argument: TensorFlow warns of names such as "0"
            graph = tf.function(lambda given: signature.call(**given), autograph=False)
            if attempt(functools.partial(graph.get_concrete_function, tried))[1] is None:
                return side
            side //= 2
    return OPEN_SIDE
