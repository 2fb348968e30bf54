"""A Keras model as a SavedModel with named signatures, each weight stored once."""

import os
import pathlib

import keras
import tensorflow as tf

from keras_shared.exporting.checks import check_call, check_saved_model
from keras_shared.exporting.reusable import functions_to_train, losses_of_weights, tables_of
from keras_shared.exporting.signatures import functions_of, signatures_of
from keras_shared.files.atomic import replacing_folder
from keras_shared.signature import Signature
from keras_shared.tying import readers_of
from keras_shared.tying.keras_private import trainable_as_in_keras


def write_saved_model(
    model: keras.Model,
    path: str | os.PathLike[str],
    to_train: bool = True,
    signatures: dict[str, Signature] | None = None,
) -> None:
    """Write `model` to the folder `path`: to be served, and to be fine-tuned by plain TensorFlow.

    Keras' own export keeps two copies of each variable, one of them reached through the model
    object. Here only functions, tables and lists of variables go into the folder.

    Args:
        model: see `signatures_of`.
        path: folder that does not exist yet.
        to_train: whether to write what `tf.saved_model.load` needs for training beside the
            signatures.
        signatures: those to write in place of the model's own.
    """
    served = {
        variant: function
        for name, signature in (signatures or signatures_of(model)).items()
        for variant, function in functions_of(name, signature).items()
    }
    functions = served | (functions_to_train(model) if to_train else {})
    traced = [f.get_concrete_function() for name, f in functions.items() if name != "__call__"]
    owners = [model, *(reader.source() for reader in readers_of(model))]  # some lie elsewhere
    owned = list({id(v): v for owner in owners for v in owner.variables}.values())
    written = tf.train.Checkpoint()
    for name, value in {
        **functions,
        "variables": [v.value for v in owned],
        "trainable_variables": [v.value for v in model.trainable_variables],
        "regularization_losses": losses_of_weights(model) if to_train else [],
        # what TensorFlow must find to write the functions; what was found already is stored once
        "used_variables": list({id(v): v for f in traced for v in f.variables}.values()),
        "tables": list(tables_of(model)),
    }.items():
        setattr(written, name, value)
    served.setdefault("serving_default", next(iter(served.values())))
    with trainable_as_in_keras(owned, model.trainable_variables):
        tf.saved_model.save(written, os.fspath(path), signatures=served)


PATTERN = frozenset("[\\")  # in a path


def refuse_path(path: pathlib.Path) -> None:
    """See that TensorFlow writes to a folder of this machine there, and reads it again.

    Raises:
        ValueError: for another address.
    """
    for character in PATTERN & set(str(path.absolute())):
        raise ValueError(
            f"TensorFlow takes a path with {character!r} for a pattern, and loads nothing from it. "
            f"Name another folder. Received: {path}"
        )
    if any(part.endswith(":") for part in path.parts[:1]):
        raise ValueError(
            "A folder of this machine is expected: write there, and copy it to a bucket, "
            f"variables first and saved_model.pb last. Received: {path}"
        )


def replace_saved_model(model: keras.Model, path: str | os.PathLike[str]) -> None:
    """Write `model` beside `path` and put it there at the end; an older one stays until then.

    Args:
        model: see `signatures_of`.
        path: folder that does not exist, is empty, or holds one SavedModel, which is replaced.

    Raises:
        ValueError: if something else lies there, or if it gives other outputs than Keras.
    """
    target = pathlib.Path(path)
    refuse_path(target)
    empty = not target.exists() or (target.is_dir() and not any(target.iterdir()))
    if not empty and not (target / "saved_model.pb").exists():
        raise ValueError(
            f"{target} holds something that is no SavedModel, and would be lost. Name another "
            "folder; for the next version of a published model use keras_shared.publish."
        )
    with replacing_folder(target) as scratch:
        write_saved_model(model, scratch)
        check_saved_model(model, scratch)
        check_call(model, scratch)
