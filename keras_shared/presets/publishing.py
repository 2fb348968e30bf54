"""Publish: a model as the next version of a folder that TF Serving watches."""

import json
import os
import pathlib
import shutil
import tempfile
import time
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared.errors import KerasSharedError, attempt, whole_reason
from keras_shared.exporting.checks import (
    check_call,
    check_loaded_model,
    check_saved_model,
    taken,
)
from keras_shared.exporting.known_inputs import tensor_arguments, with_known_inputs
from keras_shared.exporting.saved_model import refuse_path, write_saved_model
from keras_shared.exporting.signatures import examples, signatures_of
from keras_shared.files.atomic import flush, flush_all, locked, make_folder, replace_text
from keras_shared.files.bounded import read_text
from keras_shared.files.paths import as_path
from keras_shared.finite import refuse_undefined
from keras_shared.presets.loading import load
from keras_shared.presets.names import INNER_MODEL, MOST, SHARING, number_of, version_numbers
from keras_shared.serving.finding import EARLIER
from keras_shared.serving.findings import check_version
from keras_shared.serving.limits import SECONDS
from keras_shared.serving.trial import WARMUP
from keras_shared.sharing.report import sharing_report
from keras_shared.sharing.tree import tree_facts
from keras_shared.tying.calibrated import refuse_calibrated
from keras_shared.tying.keras_private import expect_layer, flatten_layers

LAST_NUMBER = ".last_version"
SCRATCH = ".new-"
WAIT = 300.0  # seconds for another process that publishes in the same folder
TRY_AGAIN = "Wait for it, or end it if it is stopped, and publish again."
GAP = 100  # numbers that deleted versions may have had, where the last one is not known any more


class PublishError(KerasSharedError, RuntimeError):
    """Nothing was published; the message says why. Older versions are as they were."""


def publish(
    model: keras.Model, base_dir: str | os.PathLike[str], input_signature: Any = None
) -> pathlib.Path:
    """Write `model` as the next version `base_dir/<N>/`, to be served and to be fine-tuned.

    The folder holds what TF Serving reads, with each weight once in `variables/`: named
    signatures (a zoo model's own, otherwise `serving_default` with the names of the model's
    inputs and outputs) and warm-up requests for all of them. Beside it, in
    `assets.extra/model.keras`, lies the Keras model without optimizer state, for
    `keras_shared.load`, and in `assets.extra/sharing.json` what it shares.

    Plain TensorFlow fine-tunes the version too. `loaded = tf.saved_model.load(version)` keeps the
    interface of reusable SavedModels: `loaded(inputs, training=True)`, `variables`,
    `trainable_variables` and `regularization_losses` (functions without arguments).
    `keras.layers.TFSMLayer(version, call_training_endpoint="train")` is the same as a layer. A
    shared weight is one variable in either. To publish what was trained, give the variables,
    which are in Keras' order, to the Keras model:
    `for old, new in zip(model.variables, loaded.variables): old.assign(new)`.

    The version is written under a name that TF Serving ignores, loaded into a Session as TF
    Serving does, and compared with Keras signature by signature (batch 1, 2 and 17; of large images
    1 and 2), as is the Keras model inside; `keras_shared.serving.check_version` must find no
    error, and the warm-up requests are replayed. Then it is flushed to disk, and only then
    renamed. A number is never used twice, not even that of a version that was deleted since: TF
    Serving does not look again at a number that it knows.

    Args:
        model: a zoo model, a functional Keras model, a Sequential that was built, or a subclassed
            model that was called and whose class is registered with Keras.
        base_dir: the model's folder; its name is the model's name in TF Serving.
        input_signature: for a subclassed model, see `keras_shared.export`.

    Returns:
        The folder of the new version.

    Warns:
        UserWarning: for what plain TensorFlow cannot train as Keras does: a loss on what a layer
            computes, or a call in training mode that cannot be traced. For inputs, outputs and
            rows that TF Serving cannot batch, and for what one request changes for the next.

    Raises:
        ValueError: for a layer, a model whose inputs are not known, or a `base_dir` named like a
            version.
        PublishError: if it cannot be written (a full disk, no permission), cannot be loaded
            again, or gives other outputs than in Keras, as after LoRA on quantised layers. Nothing
            half-written stays.

    Example:
        >>> import tempfile
        >>> import keras
        >>> import keras_shared
        >>> inputs = keras.Input((3,), name="x")
        >>> model = keras.Model(inputs, keras.layers.Dense(1, name="y")(inputs))
        >>> folder = keras_shared.publish(model, tempfile.mkdtemp() + "/line")
        >>> folder.name, sorted(p.name for p in folder.iterdir())[-3:]
        ('1', ['fingerprint.pb', 'saved_model.pb', 'variables'])
        >>> import tensorflow as tf
        >>> loaded = tf.saved_model.load(folder)
        >>> with tf.GradientTape() as tape:
        ...     loss = tf.reduce_mean((loaded(tf.ones((2, 3)), training=True) - 1) ** 2)
        >>> gradients = tape.gradient(loss, loaded.trainable_variables)
        >>> keras.optimizers.SGD().apply(gradients, loaded.trainable_variables)
    """
    expect_layer(model)
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"A model is published. Received: {type(model).__name__} '{model.name}', a layer. Wrap "
            "it: keras.Sequential([keras.Input(shape), layer]), with the shape of one example."
        )
    base_dir = as_path(base_dir, "base_dir")
    known = with_known_inputs(model, input_signature)
    signatures_of(known)  # refuses a model that cannot be exported, before anything is written
    if number_of(base_dir.name) is not None:
        raise ValueError(
            f"`base_dir` is the folder of all versions of a model, and {base_dir} is a version "
            f"itself, by its name. Name its parent: {base_dir.parent}"
        )
    refuse_path(base_dir)
    refuse_calibrated(model, PublishError)
    _refuse_unmerged(model)
    try:
        new = not base_dir.exists()
        make_folder(base_dir)
        with locked(base_dir, PublishError, TRY_AGAIN, WAIT) as lock:
            for leftover in base_dir.glob(f"{SCRATCH}*"):  # of a killed one
                shutil.rmtree(leftover, ignore_errors=True)
            _next_number(base_dir)  # whether there is one, before the work
            scratch = pathlib.Path(tempfile.mkdtemp(prefix=SCRATCH, dir=base_dir))
            try:
                version = scratch / "version"
                _write(model, known, version, input_signature)
                flush_all(version)
                lock.check()
                number = _next_number(base_dir)
                replace_text(base_dir / LAST_NUMBER, f"{number}\n")
                target = base_dir / str(number)
                version.rename(target)
                flush(base_dir)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
                if new:  # and empty, where nothing was published
                    attempt(base_dir.rmdir, OSError)
    except Exception as error:
        raise PublishError(
            f"'{model.name}' was not published in {base_dir}: {whole_reason(error).rstrip('.')}. "
            f"Versions there, untouched: {version_numbers(base_dir) or 'none'}."
        ) from error
    return target


def _refuse_unmerged(model: keras.Model) -> None:
    """What is saved of a quantised layer with LoRA answers otherwise than the layer, rounded."""
    names = [
        layer.name
        for layer in flatten_layers(model)
        if getattr(layer, "quantization_mode", None) in ("int8", "int4")
        and any(
            v.name in ("lora_kernel_b", "lora_embeddings_b") and np.any(v) for v in layer.variables
        )
    ]
    if names:
        raise PublishError(
            f"{names} of '{model.name}' are quantised and have LoRA, whose factors Keras merges "
            "into the codes when it saves them: what is published would answer otherwise than the "
            'model. Call model.save("model.keras"), see that keras_shared.load("model.keras") '
            "answers well enough, and publish that."
        )


def _write(
    model: keras.Model, known: keras.Model, version: pathlib.Path, input_signature: Any
) -> None:
    refuse_undefined(
        ((weight, weight.value) for weight in model.weights), f"'{model.name}'", PublishError,
        "Train again with a lower learning rate, or take an earlier state",
    )  # fmt: skip
    started = time.monotonic()
    write_saved_model(known, version)
    check_saved_model(known, version)
    check_call(known, version)
    inner = version / INNER_MODEL
    inner.parent.mkdir()
    with tempfile.TemporaryDirectory(dir=version.parent) as folder:
        whole = pathlib.Path(folder, "whole.keras")
        try:
            model.save(whole)
            load(whole, compile=False).save(inner)  # which leaves the optimizer behind
            loaded = load(inner, compile=False)
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise ValueError(
                "the Keras file of it cannot be written, or cannot be loaded again. "
                f"{_advice(model)} Keras says: {reason}"
            ) from error
    if len(loaded.weights) < len(model.weights):  # Keras warns, and goes on
        raise ValueError(f"the Keras file of it comes back without its weights. {_build(model)}")
    check_loaded_model(known, with_known_inputs(loaded, input_signature))
    _write_warmup(known, version / WARMUP)
    _write_sharing(known, version / SHARING)
    # what was run here ends there too, and a large model takes its time
    findings = check_version(version, timeout=max(SECONDS, 10 * (time.monotonic() - started)))
    errors = [finding for finding in findings if finding.severity == "error"]
    for finding in findings:
        shown = "batching" in finding.what or EARLIER in finding.what or finding.untried
        if finding.severity == "warning" and shown:
            warnings.warn(f"{finding.what}: {finding.remedy}.", stacklevel=3)
    if errors:
        raise ValueError(
            "TF Serving could not serve it: "
            + "; ".join(f"{finding.what} ({finding.remedy})" for finding in errors)
        )


def _advice(model: keras.Model) -> str:
    """What to do about a model that Keras cannot save, or cannot load again."""
    for layer in flatten_layers(model):
        kind = type(layer)
        if isinstance(layer, keras.layers.TFSMLayer):
            return (
                f"'{layer.name}' is a TFSMLayer: of the SavedModel {layer.filepath} a Keras file "
                "keeps the path alone, and Keras does not load code from there. Write the model "
                "with keras_shared.export, which needs no Keras file: TF Serving serves that "
                "folder, and plain TensorFlow fine-tunes it."
            )
        if isinstance(layer, keras.layers.Lambda):
            return (
                f"'{layer.name}' is a Lambda, whose Python code Keras does not load from a file. "
                "Write it as a layer of its own: a class with a `call`, registered by "
                '@keras.saving.register_keras_serializable("my_package").'
            )
        registered = keras.saving.get_registered_object(keras.saving.get_registered_name(kind))
        if registered is None and kind.__module__.partition(".")[0] != "keras":
            return (
                f"The class {kind.__name__} of '{layer.name}' is not registered: put "
                '@keras.saving.register_keras_serializable("my_package") above it, and give it a '
                "get_config with its arguments."
            )
    return (
        "If a layer is used in two sub-models, call it through keras_shared.layers.TiedLayer in "
        "the second; if a reader's source lies elsewhere, untie it."
    )


def _build(model: keras.Model) -> str:
    """What to do about a subclassed model that Keras cannot build when it loads it."""
    shapes = [f"{name}_shape" for name in tensor_arguments(model)]
    one = len(shapes) == 1
    build = f"build(self, {'input_shape' if one else ', '.join(shapes)})"
    return (
        f"Keras builds '{model.name}' by the recorded shape of its first argument alone. In "
        f"{type(model).__name__}, define `{build}` that builds every layer"
        f"{'' if one else ', or take the tensors as one list or dict'}."
    )


def _write_warmup(model: keras.Model, path: pathlib.Path) -> None:
    """One request for each signature, as TF Serving replays them when it loads the version."""
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for name, signature in signatures_of(model).items():
            variants = {name: taken(model, name, signature, 1)[0]}
            if signature.image_size is not None:
                variants[f"{name}_bytes"] = examples(signature, 1, encoded=True)
            for variant, inputs in variants.items():
                request = predict_pb2.PredictRequest()
                request.model_spec.name = model.name
                request.model_spec.signature_name = variant
                for key, value in inputs.items():
                    request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
                log = prediction_log_pb2.PredictionLog(
                    predict_log=prediction_log_pb2.PredictLog(request=request)
                )
                writer.write(log.SerializeToString())


def _write_sharing(model: keras.Model, path: pathlib.Path) -> None:
    """What the model shares, for pages that show it beside the model."""
    # whatever a foreign `call` raises
    facts, error = attempt(lambda: tree_facts(sharing_report(model, check=False)))
    if error:
        facts = {"note": f"What it shares cannot be seen: {whole_reason(error)}"}
    path.write_text(json.dumps(facts), "utf-8")


def _next_number(base_dir: pathlib.Path) -> int:
    """A number that was never used here."""
    # a file or a link of that name, too: the folder could not take its place
    taken = max([0, *(number_of(path.name) or 0 for path in base_dir.iterdir())])
    kept, last = base_dir / LAST_NUMBER, 0
    if os.path.lexists(kept):
        text, error = attempt(lambda: read_text(kept, PublishError), PublishError)
        read = None if error else number_of(text.strip())
        last = read or 0
        if read is None:
            error = error or f"it holds {text[:40]!r}, and a number is expected"
            last = min(taken + GAP, MOST) - 1
            warnings.warn(
                f"{kept} cannot be read ({error}): the highest number that was used here is not "
                f"known. The next version is {last + 1}, so that none is used twice. For another, "
                f"write the highest number that was ever used into {kept} before publishing.",
                stacklevel=3,
            )
    if max(last, taken) >= MOST:
        raise PublishError(
            f"the number {MOST} is taken, and TF Serving knows none above it. Publish in another "
            "folder"
        )
    return max(last, taken) + 1
