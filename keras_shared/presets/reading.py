"""The way back from a published version, or a `.keras` file, to a trainable model with its ties."""

import os
import pathlib
import re
import zipfile
import zlib

import keras

import keras_shared.layers as _layers  # noqa: F401  (registers the classes with Keras)
import keras_shared.losses as _losses  # noqa: F401
from keras_shared.presets.names import INNER_MODEL, LoadError, other_versions, version_dir
from keras_shared.tying import bind_ties

FILES = (".keras", ".h5")  # a whole model in one file, of Keras 3 or as earlier versions wrote it


def read_model(
    path_or_name: str | os.PathLike[str],
    version: int | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> keras.Model:
    """As `keras_shared.load`, of models whose classes Keras knows already."""
    path = pathlib.Path(path_or_name)
    file = path.suffix in FILES
    if path.name.endswith(".weights.h5"):
        raise LoadError(
            f"{path} holds weights alone: build the model, and call its load_weights. `load` takes "
            f"a published folder or a whole model in a {' or '.join(FILES)} file."
        )
    if path.suffix == ".safetensors":
        raise LoadError(
            f"{path} holds weights alone: build the model, and call "
            "keras_shared.load_safetensors(model, path)."
        )
    if file and version is not None:
        raise LoadError(f"{path} is one file and has no versions. Received: version={version}")
    if not file:
        folder = version_dir(path_or_name, version)
        path = folder / INNER_MODEL
        if not path.exists():
            raise LoadError(
                f"The version {folder} has no {INNER_MODEL}: it was not written by "
                f"keras_shared.publish, or is half deleted.{other_versions(folder)}"
            )
    if not path.is_file():
        raise LoadError(f"There is no file {path}.")
    try:
        if path.suffix != ".h5" and not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("not a zip file")
        model = keras.models.load_model(path, compile=compile, safe_mode=safe_mode)
    except (OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        others = other_versions(path.parents[1]) if path.parent.name == "assets.extra" else ""
        raise LoadError(
            f"{path} is corrupt and cannot be loaded ({type(error).__name__}: {error}).{others}"
        ) from error
    except TypeError as error:
        said = r"locate (\w+) '([^']+)'.*?config: \{'module': (?:None|'([^']+)')"
        unknown = re.search(said, str(error), re.DOTALL)
        if unknown is None:
            raise
        kind, name, module = unknown.groups("")
        raise LoadError(
            f"{path} holds the {kind} '{name}' of {module or 'a script or notebook'}, which is "
            f"not registered here. Import {module or 'a module that defines it'} before the model "
            'is loaded, with @keras.saving.register_keras_serializable("my_package") above the '
            f"{kind} there; a model that was saved without that must be saved again."
        ) from error
    return bind_ties(model)
