"""A Keras model as a SavedModel with named signatures, each weight stored once."""

import os
import pathlib
import shutil
import tempfile
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared.signature import Signature
from keras_shared.tying import readers_of

BATCHES = (1, 2, 17)  # that every written signature is run at
TOLERANCE = 1e-5


def signatures_of(model: keras.Model) -> dict[str, Signature]:
    """The model's own signatures, or `serving_default` with the names of its inputs and outputs.

    Args:
        model: a zoo model, or any functional (or built Sequential) Keras model.

    Raises:
        ValueError: if the model has no symbolic inputs to take names and shapes from.
    """
    own = getattr(model, "signatures", None)
    if callable(own):
        return own()
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise ValueError(
            f"Only a model with known inputs can be exported: a functional one, or a Sequential "
            f"that was built. Received: '{model.name}' (of type {type(model).__name__})"
        )
    sequential = isinstance(model, keras.Sequential)
    structure = inputs[0] if sequential else model.input
    names = [_input_name(model, tensor) for tensor in inputs]
    output_names = [model.layers[-1].name] if sequential else model.output_names

    def call(**tensors: Any) -> dict[str, Any]:
        flat = [tensors[name] for name in names]
        outputs = model(keras.tree.pack_sequence_as(structure, flat), training=False)
        if isinstance(outputs, dict):
            paths = keras.tree.flatten_with_path(outputs)
            return {"_".join(map(str, path)): value for path, value in paths}
        return dict(zip(_unique(output_names), keras.tree.flatten(outputs), strict=True))

    return {"serving_default": Signature(call, dict(zip(names, inputs, strict=True)))}


def _input_name(model: keras.Model, tensor: keras.KerasTensor) -> str:
    """The name of the Input layer: that of its tensor is a number where the user gave none."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer) and layer.output is tensor:
            return layer.name
    return "inputs" if tensor.name.startswith("keras_tensor") else tensor.name


def _unique(names: list[str]) -> list[str]:
    """Keras repeats the name of a layer that gives several outputs: a, a -> a, a_1."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        unique.append(f"{name}_{count}" if count else name)
    return unique


def write_saved_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write `model` to the folder `path`.

    Keras' own export keeps two copies of each variable, one of them reached through the model
    object. Here only the functions and one list of variables go into the archive.

    Args:
        model: see `signatures_of`.
        path: folder that does not exist yet.
    """
    archive = keras.export.ExportArchive()
    for name, signature in signatures_of(model).items():
        for variant, function in _functions(name, signature).items():
            archive.add_endpoint(variant, function)
    owners = [model, *(reader.source() for reader in readers_of(model))]  # some lie elsewhere
    variables = {id(v): v.value for owner in owners for v in owner.variables}
    archive.add_variable_collection("variables", list(variables.values()))
    archive.write_out(os.fspath(path), verbose=False)


def replace_saved_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write `model` beside `path` and put it there at the end; an older one stays until then.

    Args:
        model: see `signatures_of`.
        path: folder that does not exist, is empty, or holds one SavedModel, which is replaced.

    Raises:
        ValueError: if something else lies there.
    """
    target = pathlib.Path(path)
    empty = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if not empty and not (target / "saved_model.pb").exists():
        raise ValueError(
            f"{target} holds something that is no SavedModel, and would be lost. Name another "
            "folder; for the next version of a published model use keras_shared.publish."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        write_saved_model(model, scratch / "new")
        if target.exists():
            target.rename(scratch / "old")
        try:
            (scratch / "new").rename(target)
        except OSError:
            if (scratch / "old").exists():
                (scratch / "old").rename(target)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def examples(signature: Signature, batch: int, encoded: bool) -> dict[str, np.ndarray]:
    """Inputs to try a signature with: images of noise, fractions, zeros for whole numbers."""
    random = np.random.default_rng(batch)
    inputs = {}
    for name, spec in signature.inputs.items():
        shape = [batch, *(32 if side is None else side for side in spec.shape[1:])]
        if signature.image_size is not None:
            shape[1:3] = signature.image_size
            images = random.integers(0, 256, shape, dtype="uint8")
            if encoded:
                png = [tf.io.encode_png(image).numpy() for image in images]
                inputs[f"{name}_bytes"] = np.array(png, object)
            else:
                inputs[name] = images.astype(spec.dtype)
        elif spec.dtype == "string":
            inputs[name] = np.full(shape, b"", object)
        else:
            whole = np.issubdtype(np.dtype(spec.dtype), np.integer) or spec.dtype == "bool"
            inputs[name] = (np.zeros(shape) if whole else random.random(shape)).astype(spec.dtype)
    return inputs


def check_saved_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Load `path` into a Session, as TF Serving does, and compare every signature with Keras.

    Args:
        model: the model that was written.
        path: the folder.

    Raises:
        ValueError: if an output differs by more than 1e-5 of its largest value, or is missing.
    """
    cases = []
    for name, signature in signatures_of(model).items():
        for batch in BATCHES:
            plain = examples(signature, batch, encoded=False)
            tensors = {key: keras.ops.convert_to_tensor(value) for key, value in plain.items()}
            expected = signature.call(**tensors)
            cases.append((name, plain, expected))
            if signature.image_size is not None:
                encoded = examples(signature, batch, encoded=True)
                cases.append((f"{name}_bytes", encoded, expected))

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], os.fspath(path))
        for variant, inputs, expected in cases:
            served = meta.signature_def[variant]
            answers = session.run(
                {key: info.name for key, info in served.outputs.items()},
                {served.inputs[key].name: value for key, value in inputs.items()},
            )
            for key, value in expected.items():
                _compare(answers.get(key), value, f"{variant}: {key}")


def check_loaded_model(model: keras.Model, loaded: keras.Model) -> None:
    """Compare what a model and its copy from a file answer, signature by signature.

    Args:
        model: the model that was saved.
        loaded: what came back.

    Raises:
        ValueError: if an output differs by more than 1e-5 of its largest value, or is missing.
    """
    copies = signatures_of(loaded)
    for name, signature in signatures_of(model).items():
        inputs = examples(signature, 2, encoded=False)
        tensors = {key: keras.ops.convert_to_tensor(value) for key, value in inputs.items()}
        # by position: Keras names an unnamed input of a Sequential when it saves it
        again = dict(zip(copies[name].inputs, tensors.values(), strict=True))
        answers = copies[name].call(**again)
        for key, expected in signature.call(**tensors).items():
            answer = answers.get(key)
            if answer is not None:
                answer = keras.ops.convert_to_numpy(answer)
            _compare(answer, expected, f"loaded again, {name}: {key}")


def _compare(served: np.ndarray | None, expected: Any, what: str) -> None:
    expected = keras.ops.convert_to_numpy(expected)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    if served is None or not np.allclose(served, expected, rtol=0, atol=TOLERANCE * scale):
        error = "missing" if served is None else np.abs(served - expected).max()
        raise ValueError(
            f"What was written answers otherwise than Keras ({what}, batch {len(expected)}): "
            f"difference {error}, allowed {TOLERANCE * scale}. Nothing was published."
        )


def _functions(name: str, signature: Signature) -> dict[str, Any]:
    """The signature as a tf.function, and for images a second one that takes encoded bytes."""

    def answer(**tensors: Any) -> dict[str, Any]:
        outputs = dict(signature.call(**tensors))
        if signature.class_names is not None:
            scores, names = outputs["scores"], tf.constant(signature.class_names)
            outputs["classes"] = tf.tile(names[None], [tf.shape(scores)[0], 1])
            outputs["label"] = tf.gather(names, tf.argmax(scores, axis=-1))
        return outputs

    functions = {name: _function(answer, signature.inputs)}
    if signature.image_size is not None:
        specs = signature.inputs

        def from_bytes(**encoded: Any) -> dict[str, Any]:
            return answer(
                **{k: _decode(encoded[f"{k}_bytes"], s, signature) for k, s in specs.items()}
            )

        strings = {f"{key}_bytes": keras.KerasTensor((None,), "string") for key in specs}
        functions[f"{name}_bytes"] = _function(from_bytes, strings)
    return functions


def _function(call: Any, inputs: Any) -> Any:
    specs = {key: tf.TensorSpec(spec.shape, spec.dtype, name=key) for key, spec in inputs.items()}
    # tf.function takes named specs by position: one parameter for each input, in order
    return tf.function(
        lambda *tensors: call(**dict(zip(specs, tensors, strict=True))),
        input_signature=list(specs.values()),
        autograph=False,
    )


def _decode(encoded: Any, spec: keras.KerasTensor, signature: Signature) -> Any:
    """(batch,) of PNG or JPEG bytes -> (batch, height, width, channels), 0 to 255."""
    channels = spec.shape[-1]
    height, width = signature.image_size or (None, None)

    def one(content: Any) -> Any:
        image = tf.io.decode_image(content, channels=channels, expand_animations=False)
        image.set_shape((None, None, channels))
        return keras.ops.image.resize(tf.cast(image, spec.dtype), (height, width), antialias=True)

    shape = tf.TensorSpec((height, width, channels), spec.dtype)
    return tf.map_fn(one, encoded, fn_output_signature=shape)
