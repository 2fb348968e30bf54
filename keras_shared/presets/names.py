"""From the name of a preset, or a path, to the folder that holds it: the one place that looks."""

import json
import os
import pathlib
from collections.abc import Iterable
from typing import Any

from keras_shared.errors import KerasSharedError, attempt, boundary
from keras_shared.files.archives import open_archive, read_part
from keras_shared.files.bounded import read_json
from keras_shared.files.limits import MOST_CONFIG
from keras_shared.files.paths import as_path
from keras_shared.lookup import suggestion

HOME = "KERAS_SHARED_HOME"  # environment variable: the folder of your own published models
MOST = 2**63 - 1  # TF Serving keeps numbers of versions in an int64
INNER_MODEL = pathlib.PurePath("assets.extra", "model.keras")
SHARING = pathlib.PurePath("assets.extra", "sharing.json")
CONFIG = "config.json"  # inside of a .keras file


class LoadError(KerasSharedError, ValueError):
    """Nothing that can be loaded is there; the message says what is."""


def _root() -> pathlib.Path:
    package = pathlib.Path(__file__).resolve().parents[1]
    installed = package / "_data"
    return installed if installed.is_dir() else package.parent


def home() -> pathlib.Path:
    """The folder of your own published models: $KERAS_SHARED_HOME, or `saved_models` here."""
    return pathlib.Path(os.environ.get(HOME) or "saved_models")


def entry_names() -> list[str]:
    """The names of all entries of the zoo, in alphabetical order."""
    return sorted(path.parent.name for path in (_root() / "zoo").glob("*/recipe.toml"))


def entry_dir(name: str, also: str = "") -> pathlib.Path:
    """The folder with recipe, metrics and card of an entry.

    Args:
        name: of the entry.
        also: what might have been given in place of a name, for the message.

    Raises:
        LoadError: for an unknown name; the message holds the nearest ones.
    """
    if name not in entry_names():
        takes = f"Expected the name of an entry of the zoo, such as 'lenet5_mnist'{also}."
        if os.path.lexists(name):
            raise LoadError(f"{takes} Received: {name}")
        if "/" in name or "." in name:  # as no name of an entry has
            raise LoadError(f"There is no file or folder {name}. {takes}")
        raise LoadError(f"The zoo has no entry '{name}'. {suggestion(name, entry_names())}")
    return _root() / "zoo" / name


def entry_model_dir(name: str) -> pathlib.Path:
    """The folder of versions of an entry of the zoo, whatever models of your own are named.

    Raises:
        LoadError: for an unknown name; the message holds the nearest ones.
    """
    entry_dir(name)
    return _root() / "saved_models" / name


def version_numbers(base_dir: str | os.PathLike[str]) -> list[int]:
    """The numbers of the versions in a folder, as TF Serving sees them, in ascending order.

    Raises:
        LoadError: if the folder cannot be read.
    """
    base_dir = pathlib.Path(base_dir)
    with boundary(f"{base_dir} cannot be read", LoadError):
        if not base_dir.is_dir():
            return []
        numbers = (number_of(path.name) for path in base_dir.iterdir() if path.is_dir())
        return sorted(number for number in numbers if number is not None)


def number_of(name: str) -> int | None:
    """The number that TF Serving reads in the name of a version's folder; None for another name.

    Example:
        >>> from keras_shared.presets.names import number_of
        >>> number_of("12"), number_of("012"), number_of("\u0661"), number_of("v1")
        (12, 12, None, None)
    """
    if not name.isascii() or not name.isdecimal() or len(name.lstrip("0")) > len(str(MOST)):
        return None
    return number if (number := int(name.lstrip("0") or "0")) <= MOST else None


def preset_dirs() -> dict[str, pathlib.Path]:
    """Each preset's folder of versions: your own published models, then those of the zoo.

    A folder that cannot be read is left out.

    Raises:
        LoadError: if the folder of your own published models cannot be read.

    Example:
        >>> from keras_shared.presets.names import preset_dirs
        >>> preset_dirs()["lenet5_mnist"].name
        'lenet5_mnist'
    """
    found: dict[str, pathlib.Path] = {}
    for folder in (home(), _root() / "saved_models"):
        with boundary(f"{folder} cannot be read", LoadError):
            paths = sorted(folder.iterdir()) if folder.is_dir() else []
        for path in paths:
            # another user may keep a folder to herself
            if os.access(path, os.R_OK | os.X_OK) and version_numbers(path):
                found.setdefault(path.name, path)
    return found


def listed(given: Any, argument: str) -> list[Any]:
    """The names or paths of an argument that takes several; one alone is a list of one.

    Args:
        given: what a user gave.
        argument: its name, for the message.

    Raises:
        ValueError: for what is neither a name nor holds some.

    Example:
        >>> from keras_shared.presets.names import listed
        >>> listed("lenet5_mnist", "models"), listed(("a", "b"), "models")
        (['lenet5_mnist'], ['a', 'b'])
    """
    if isinstance(given, (str, os.PathLike)):
        return [given]
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise ValueError(
            f"`{argument}` must be a list of names. Received: {argument}={repr(given)[:80]} (of "
            f"type {type(given).__name__})"
        )
    return list(given)


def locate(path_or_name: str | os.PathLike[str]) -> pathlib.Path:
    """The file or folder that a path or the name of a preset stands for.

    A name is looked for as a folder of models here, then among your own published models
    (`home()`), then among those of the zoo. An empty folder of the same name hides none.

    Raises:
        LoadError: if there is none; the message holds the nearest names.

    Example:
        >>> from keras_shared.presets.names import locate
        >>> locate("lenet5_mnist").parent.name
        'saved_models'
    """
    path = as_path(path_or_name, "path_or_name")
    with boundary(f"{path} cannot be read", LoadError):
        return _located(path)


def _located(path: pathlib.Path) -> pathlib.Path:
    if len(path.parts) != 1 or path.suffix in (".keras", ".h5"):
        if not path.exists():
            raise LoadError(f"There is no file or folder {path}.")
        return path
    if version_numbers(path) or holds_saved_model(path):
        return path
    presets = preset_dirs()
    if path.name in presets:
        return presets[path.name]
    if path.exists():
        return path
    hint = suggestion(str(path), presets)
    raise LoadError(f"There is no preset, and no file or folder, named '{path}'. {hint}")


def version_dir(path_or_name: str | os.PathLike[str], version: int | None = None) -> pathlib.Path:
    """The folder of one version.

    Args:
        path_or_name: name of a preset, a folder of versions, or the folder of one SavedModel.
        version: its number; the newest by default.

    Raises:
        LoadError: for an unknown name, if there is no version, or not this one.
    """
    path = locate(path_or_name)
    with boundary(f"{path} cannot be read", LoadError):
        return _version_in(path, version)


def _version_in(path: pathlib.Path, version: int | None) -> pathlib.Path:
    if holds_saved_model(path) and version is None:
        return path
    numbers = version_numbers(path)
    if not numbers and number_of(path.name) is not None and version is None:
        raise LoadError(f"{path} has no saved_model.pb: it is half deleted.{other_versions(path)}")
    if not numbers:
        raise LoadError(
            f"{path} holds no version: expected folders named 1, 2, ... as `publish` writes them. "
            f"It holds: {sorted(p.name for p in path.iterdir())[:8] if path.is_dir() else 'a file'}"
        )
    if isinstance(version, str):
        raise LoadError(f"`version` is a whole number. Received: version={version!r}")
    number = numbers[-1] if version is None else version
    matches = [p for p in path.iterdir() if number_of(p.name) == number]
    if not matches:
        raise LoadError(f"{path} has no version {version}. It has: {numbers}")
    return matches[0]


def holds_saved_model(folder: pathlib.Path) -> bool:
    """Whether a folder is one SavedModel, of any program."""
    return any((folder / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt"))


def other_versions(folder: pathlib.Path) -> str:
    """A sentence on the versions beside one that cannot be loaded; empty if there are none."""
    others = [n for n in version_numbers(folder.parent) if str(n) != folder.name]
    return f" Other versions there: {others}; name one with `version`." if others else ""


def list_presets() -> dict[str, dict[str, Any]]:
    """What can be loaded by name: your own published models first, then those of the zoo.

    Returns:
        name -> a dict with `path` (folder of versions), `versions`, `class_name` (None for a
        SavedModel without a Keras model), and `metrics` (metrics.json of an entry of the zoo, else
        None).

    Example:
        >>> import keras_shared
        >>> keras_shared.list_presets()["lenet5_mnist"]["class_name"]
        'LeNet5'
    """
    shipped = _root() / "saved_models"
    presets = {}
    for name, path in preset_dirs().items():
        metrics = _root() / "zoo" / name / "metrics.json"
        of_zoo = path.resolve().parent == shipped.resolve() and metrics.exists()
        presets[name] = {
            "path": path,
            "versions": version_numbers(path),
            "class_name": class_name(path),
            "metrics": read_json(metrics, LoadError) if of_zoo else None,
        }
    return presets


def class_name(path_or_name: str | os.PathLike[str]) -> str | None:
    """The class of a published model, without loading it; None where there is no Keras model."""
    config, _ = attempt(lambda: stored_config(version_dir(path_or_name) / INNER_MODEL), LoadError)
    return str(config["class_name"]) if config else None


def stored_config(path: str | os.PathLike[str], advice: str = "") -> dict[str, Any]:
    """What a `.keras` file says of its model: the class, and the config that it was built from.

    Args:
        path: the file.
        advice: what to do, the end of an error's message.

    Raises:
        LoadError: if it is no such file.

    Example:
        >>> from keras_shared.presets.names import INNER_MODEL, stored_config, version_dir
        >>> config = stored_config(version_dir("lenet5_mnist") / INNER_MODEL)
        >>> config["class_name"], config["config"]["variant"]
        ('LeNet5', '1998')
    """
    name = os.fspath(path)
    corrupt = boundary(f"{name} is corrupt and cannot be loaded", LoadError, advice)
    with corrupt, open_archive(path, LoadError) as archive:
        size = archive.getinfo(CONFIG).file_size
        if size > MOST_CONFIG:
            raise LoadError(f"{name} has a {CONFIG} of {size:,} bytes, and {MOST_CONFIG:,} may be.")
        config = json.loads(read_part(archive, CONFIG))
        if not isinstance(config["class_name"], str) or not isinstance(config["config"], dict):
            raise LoadError(f"{name} has a {CONFIG} that names no class with its arguments.")
        return dict(config)
