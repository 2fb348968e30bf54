"""What TF Serving would do with a SavedModel, found out in a process of its own."""

import os
import pathlib

from keras_shared.errors import boundary
from keras_shared.files.paths import as_path
from keras_shared.presets.names import (
    LoadError,
    holds_saved_model,
    locate,
    number_of,
    version_dir,
    version_numbers,
)
from keras_shared.serving.child_process import examine_in_child
from keras_shared.serving.finding import Finding
from keras_shared.serving.limits import SECONDS


def check(
    path: str | os.PathLike[str],
    *,
    static: bool = False,
    trusted: bool = False,
    timeout: float = SECONDS,
) -> list[Finding]:
    """Say what TF Serving would do with a SavedModel, of this library or of any other program.

    The folder and the graph are read; then the model is loaded into a Session, as TF Serving
    does, its warm-up requests are replayed, and every signature is run at batch 1, 2 and 17, and on
    a row beside others. A process of its own does that, with limits of time and memory (half of the
    machine's, and 4 GB at least): a model that never ends, or ends its process, becomes a finding.

    A SavedModel is a program. One whose graph touches files, the network or Python is read, and not
    run.

    Args:
        path: name of a preset, a folder of versions (the newest is checked, which TF Serving
            takes by default), the folder of one version, or any SavedModel.
        static: read alone, run nothing.
        trusted: run what touches files, the network or Python too.
        timeout: seconds that reading and running it may take.

    Returns:
        What was found, errors first. Without an error, TF Serving serves the model, if all of it
        was run: `any(finding.untried for finding in findings)` tells.

    Raises:
        LoadError: if there is no such preset or folder.

    Example:
        >>> from keras_shared.serving import check
        >>> [(finding.severity, finding.what) for finding in check("tied_autoencoder_mnist")]
        [('note', 'written by TensorFlow 2.21.0')]

    Reference: g3doc/serving_config.md and sources/storage_path of
        https://github.com/tensorflow/serving.
    """
    with boundary(f"{as_path(path, 'path')} cannot be checked", LoadError):
        folder = locate(path).absolute()
        here = holds_saved_model(folder)
        if not here and version_numbers(folder):
            folder = version_dir(folder)
        elif not (number_of(folder.name) is not None and folder.is_dir()):
            if here:
                reason = f"the name of the folder, '{folder.name}', is not a number"
            elif folder.is_dir():
                reason = f"{folder} holds {sorted(p.name for p in folder.iterdir())[:5]}"
            else:
                reason = f"{folder} is a file"
            misplaced = Finding(
                "error",
                f"TF Serving finds no version: {reason}",
                "move the SavedModel into NAME/1 (or 2, 3, ...), and start the server with NAME",
            )
            if not here:
                return [misplaced]
            found = check_version(folder, static=static, trusted=trusted, timeout=timeout)
            return [misplaced, *found]
    return check_version(folder, static=static, trusted=trusted, timeout=timeout)


def check_version(
    folder: str | os.PathLike[str],
    *,
    static: bool = False,
    trusted: bool = False,
    timeout: float = SECONDS,
) -> list[Finding]:
    """`check` of one SavedModel, whatever the name of its folder.

    Args:
        folder: what holds `saved_model.pb`.
        static: as of `check`.
        trusted: as of `check`.
        timeout: as of `check`.

    Returns:
        What was found, errors first.

    Example:
        >>> from keras_shared.presets.names import version_dir
        >>> from keras_shared.serving import check_version
        >>> [finding.severity for finding in check_version(version_dir("lenet5_mnist"))]
        ['note']
    """
    found = examine_in_child(pathlib.Path(folder).absolute(), static, trusted, timeout)
    return sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.severity))
