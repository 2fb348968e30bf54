"""The way back from a published version, or a `.keras` file, to a trainable model with its ties."""

import importlib
import json
import math
import os
import pathlib
import re

import keras

import keras_shared.layers as _layers  # noqa: F401  (registers the classes with Keras)
import keras_shared.losses as _losses  # noqa: F401
from keras_shared.errors import attempt, boundary, whole_reason
from keras_shared.files.archives import check_parts, open_archive, open_hdf5, refuse_inflation
from keras_shared.files.paths import as_path
from keras_shared.finite import refuse_undefined
from keras_shared.presets.names import (
    INNER_MODEL,
    LoadError,
    other_versions,
    stored_config,
    version_dir,
)
from keras_shared.sharing.stored_layers import stored_weights
from keras_shared.tying import TieError, bind_ties
from keras_shared.tying.keras_private import variables_made_by

FILES = (".keras", ".h5")  # a whole model in one file, of Keras 3 or as earlier versions wrote it
UNKNOWN = re.compile(  # what Keras says of a class that it does not know: kind, name, module
    r"locate (\w+) '([^']+)'.*?config: \{'module': (?:None|'([^']+)')", re.DOTALL
)
MISFIT = "objects could not be loaded"  # what Keras says where weights and config disagree
OURS = ("keras_shared.training.adam", "keras_shared.training.muon")  # which runs save
ITEM_BYTES = {"float64": 8, "int64": 8, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}


def read_model(
    path_or_name: str | os.PathLike[str],
    version: int | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> keras.Model:
    """As `keras_shared.load`, of models whose classes Keras knows already."""
    path = as_path(path_or_name, "path_or_name")
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
    others = other_versions(path.parents[1]) if path.parent.name == "assets.extra" else ""
    with boundary(f"{path} is corrupt and cannot be loaded", LoadError, others.strip()):
        _look_through(path, safe_mode, others.strip())
        try:
            model = _loaded(path, compile, safe_mode)
        except TieError as error:
            raise TieError(f"{path}: {error}") from error
        except TypeError as error:
            raise _not_registered(path, error) from error
        except ValueError as error:
            if MISFIT not in str(error):
                raise
            text = f"{path} holds other weights than the model that its config builds"
            raise LoadError(f"{text}: {whole_reason(error)}") from error
        refuse_undefined(
            ((v, v) for v in model.weights), str(path), LoadError,
            f"Take an earlier state of it; keras.models.load_model loads it as it is.{others}",
        )  # fmt: skip
    return model


def _loaded(path: pathlib.Path, compile: bool, safe_mode: bool) -> keras.Model:
    """The model; an optimizer of ours is imported where it has one."""
    for _ in OURS:
        model, wrong = attempt(
            lambda: keras.models.load_model(path, compile=compile, safe_mode=safe_mode), TypeError
        )
        if not wrong:
            return bind_ties(model)
        unknown = UNKNOWN.search(str(wrong))
        if unknown is None or unknown[3] not in OURS:
            break
        importlib.import_module(unknown[3])
    raise wrong


def _look_through(path: pathlib.Path, safe_mode: bool, advice: str) -> None:
    """Refuse what would take more memory than the file can hold, before Keras reads it."""
    if path.suffix == ".h5":
        with open_hdf5(path, LoadError) as file:
            config = {"class_name": ""} | json.loads(file.attrs.get("model_config", "{}"))
        config |= {"module": "keras", "registered_name": config["class_name"]}  # as Keras 3 has it
    else:
        config = stored_config(path, advice)
        open_hdf5(path, LoadError, stored_weights(path)).close()
        with open_archive(path, LoadError) as archive:
            check_parts(archive)  # the rest, which Keras reads too
    config["compile_config"] = None
    made = variables_made_by(
        lambda: keras.saving.deserialize_keras_object(config, safe_mode=safe_mode)
    )
    taken = sum(math.prod(v.shape) * ITEM_BYTES.get(v.dtype, 4) for v in made)
    refuse_inflation(str(path), taken, path.stat().st_size, LoadError)


def _not_registered(path: pathlib.Path, error: TypeError) -> Exception:
    """What to do about a class that Keras does not know; another error as it is."""
    unknown = UNKNOWN.search(str(error))
    if unknown is None:
        return error
    kind, name, module = unknown.groups("")
    return LoadError(
        f"{path} holds the {kind} '{name}' of {module or 'a script or notebook'}, which is "
        f"not registered here. Import {module or 'a module that defines it'} before the model "
        f"is loaded (on the command line: --import {module or 'MODULE'}), with "
        f'@keras.saving.register_keras_serializable("my_package") above the {kind} there; a model '
        "that was saved without that must be saved again."
    )
