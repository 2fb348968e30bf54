"""The way back: from a published folder, or its name, to a trainable Keras model with its ties."""

import os
import pathlib
import zipfile
import zlib

import keras

import keras_shared.layers as _layers  # noqa: F401  (registers the classes with Keras)
import keras_shared.losses as _losses  # noqa: F401
import keras_shared.zoo as _zoo  # noqa: F401
from keras_shared.presets.names import LoadError, version_dir
from keras_shared.tying import bind_ties

INNER_MODEL = pathlib.PurePath("assets.extra", "model.keras")


class LoadError(ValueError):
    """Nothing that can be loaded lies there; the message says what does."""


def version_dir(path_or_name: str | os.PathLike[str], version: int | None = None) -> pathlib.Path:
    """The folder of one version.

    Args:
        path_or_name: a folder of versions, the folder of one version, or a published name.
        version: its number; the newest by default.

    Raises:
        LoadError: if there is none, or not this one.
        ValueError: for an unknown name.
    """
    path = pathlib.Path(path_or_name)
    if not path.exists() and (len(path.parts) > 1 or path.suffix):
        raise LoadError(f"There is no file or folder {path}.")
    published = len(path.parts) == 1 and path.name in entry_names()
    if not path.exists() or (published and not version_numbers(path)):
        path = saved_model_dir(str(path_or_name))
    if path.name.isdecimal() and (path / "saved_model.pb").exists() and version is None:
        return path
    numbers = version_numbers(path)
    if not numbers and path.name.isdecimal() and version is None:
        raise LoadError(f"{path} has no saved_model.pb: it is half deleted.{_others(path)}")
    if not numbers:
        raise LoadError(
            f"{path} holds no version: expected folders named 1, 2, ... as `publish` writes them. "
            f"It holds: {sorted(p.name for p in path.iterdir())[:8] if path.is_dir() else 'a file'}"
        )
    number = numbers[-1] if version is None else version
    matches = [p for p in path.iterdir() if p.name.isdecimal() and int(p.name) == number]
    if not matches:
        raise LoadError(f"{path} has no version {version}. It has: {numbers}")
    return matches[0]


def load(
    path_or_name: str | os.PathLike[str], version: int | None = None, compile: bool = False
) -> keras.Model:
    """Load a published model as the trainable Keras model that it was, ties included.

    What is loaded is the Keras model inside of the version (`assets.extra/model.keras`), not the
    graph that TF Serving runs.

    Args:
        path_or_name: a published name (`keras-shared list`), a folder of versions, the folder of
            one version, or a `.keras` file.
        version: number of the version; the newest by default.
        compile: as in `keras.models.load_model`. Published models carry no optimizer.

    Returns:
        The model, every reader bound to its source.

    Raises:
        ValueError: for an unknown name; the nearest ones are in the message.
        LoadError: for an empty folder, a version that is not there, or a corrupt one.
        TieError: if the file holds a reader without its source.

    Example:
        >>> import keras_shared
        >>> model = keras_shared.load("tied_autoencoder_mnist")
        >>> model.decoder.get_layer("decoder_1").source() is model.encoder.get_layer("encoder_1")
        True
    """
    path = pathlib.Path(path_or_name)
    if path.suffix == ".keras" and version is not None:
        raise LoadError(f"{path} is one file and has no versions. Received: version={version}")
    if path.suffix != ".keras":
        folder = version_dir(path_or_name, version)
        path = folder / INNER_MODEL
        if not path.exists():
            raise LoadError(
                f"The version {folder} has no {INNER_MODEL}: it was not written by "
                f"keras_shared.publish, or is half deleted.{_others(folder)}"
            )
    if not path.is_file():
        raise LoadError(f"There is no file {path}.")
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("not a zip file")
        model = keras.models.load_model(path, compile=compile)
    except (OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise LoadError(
            f"{path} is corrupt and cannot be loaded ({type(error).__name__}: {error})."
            f"{_others(path.parents[1]) if path.parent.name == 'assets.extra' else ''}"
        ) from error
    return bind_ties(model)


def _others(folder: pathlib.Path) -> str:
    others = [n for n in version_numbers(folder.parent) if str(n) != folder.name]
    return f" Other versions there: {others}; name one with `version`." if others else ""
