"""A Keras model as a SavedModel with named signatures, each weight stored once."""

import os
import pathlib
import shutil
import tempfile

import keras

from keras_shared.exporting.checks import check_saved_model
from keras_shared.exporting.signatures import functions_of, signatures_of
from keras_shared.tying import readers_of


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
        for variant, function in functions_of(name, signature).items():
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
        ValueError: if something else lies there, or if it gives other outputs than Keras.
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
        check_saved_model(model, scratch / "new")
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
