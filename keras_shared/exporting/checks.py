"""What was written must answer as Keras does."""

import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared.exporting.signatures import examples, signatures_of

TOLERANCE = 1e-5
BATCHES = (1, 2, 17)  # that every signature is tried with


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


def check_answers(model: keras.Model, name: str, answer: Any, program: str) -> None:
    """Compare what a converted model answers with Keras.

    Args:
        model: the model that was converted.
        name: the signature that was converted.
        answer: takes its inputs by keyword, gives its outputs by name; NumPy in and out.
        program: what runs it, for the message.

    Raises:
        ValueError: if an output differs by more than 1e-5 of its largest value, or is missing.
    """
    signature = signatures_of(model)[name]
    for batch in BATCHES:
        inputs = examples(signature, batch, encoded=False)
        tensors = {key: keras.ops.convert_to_tensor(value) for key, value in inputs.items()}
        answers = answer(**inputs)
        for key, expected in signature.call(**tensors).items():
            _compare(answers.get(key), expected, f"{program}, {name}: {key}")


def _compare(served: np.ndarray | None, expected: Any, what: str) -> None:
    expected = keras.ops.convert_to_numpy(expected)
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    if served is None or not np.allclose(served, expected, rtol=0, atol=TOLERANCE * scale):
        found = "is missing"
        if served is not None:
            found = f"differs by {np.abs(served - expected).max()}, more than {TOLERANCE * scale}"
        raise ValueError(
            f"What was written gives other outputs than Keras: '{what}' at batch {len(expected)} "
            f"{found}. Nothing was kept."
        )
