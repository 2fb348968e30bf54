"""The files and flags that TF Serving starts with: models, batching, monitoring."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from keras_shared.errors import boundary
from keras_shared.presets.names import (
    LoadError,
    holds_saved_model,
    listed,
    locate,
    number_of,
    version_numbers,
)
from keras_shared.serving.batching_parameters import read_batching

REST_PORT, GRPC_PORT = 8501, 8500  # inside of a container too
METRICS = "/monitoring/prometheus/metrics"

# servables/tensorflow/session_bundle_config.proto. A request may have more rows than one batch:
# it is split. An idle server waits for no other: batches form while all threads are busy, as TF
# Serving's guide advises for processors (batching/README.md).
BATCHING = """\
max_batch_size { value: 1024 }
enable_large_batch_splitting { value: true }
max_execution_batch_size { value: 64 }
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 1000 }
num_batch_threads { value: %d }
"""
# config/monitoring_config.proto
MONITORING = f"""\
prometheus_config {{
  enable: true
  path: "{METRICS}"
}}
"""


def model_folders(models: Sequence[str | os.PathLike[str]]) -> dict[str, pathlib.Path]:
    """The folders of versions to serve, by the name that TF Serving gives each: the folder's.

    Args:
        models: folders of versions, or names of presets.

    Returns:
        Name -> absolute folder.

    Raises:
        LoadError: for an unknown name, a folder without versions, for which TF Serving would
            wait for ever, the folder of one version, or two folders of the same name.

    Example:
        >>> from keras_shared.serving.configuration import model_folders
        >>> [name for name in model_folders(["lenet5_mnist"])]
        ['lenet5_mnist']
    """
    folders: dict[str, pathlib.Path] = {}
    for given in listed(models, "models"):
        folder = locate(given).resolve()
        with boundary(f"TF Serving cannot read {folder}", LoadError, "Rename it."):
            str(folder).encode("utf-8")
        if holds_saved_model(folder):
            numbered = number_of(folder.name) is not None
            advice = f"Pass its parent: {folder.parent}" if numbered else "Move it into NAME/1."
            raise LoadError(
                f"Expected a folder of versions. Received one SavedModel: {folder}. {advice}"
            )
        if not version_numbers(folder):
            raise LoadError(
                f"Expected a folder with versions named 1, 2, ... Received: {folder}, which has "
                "no version. Publish a model there, or pass another folder."
            )
        if folders.setdefault(folder.name, folder) != folder:
            raise LoadError(
                f"Two models are named '{folder.name}': {folders[folder.name]} and {folder}. "
                "Rename one folder: TF Serving takes a model's name from it."
            )
    return folders


def configured(model_config_file: str) -> dict[str, pathlib.Path]:
    """The models of a model config, a `ModelServerConfig` of TF Serving as text.

    Args:
        model_config_file: its path.

    Returns:
        Name -> folder of versions.

    Raises:
        LoadError: for a file that cannot be read, or names no model.
    """
    found = {config.name: pathlib.Path(config.base_path) for config in configs(model_config_file)}
    if not found:
        raise LoadError(f"{model_config_file} names no model: expected a `model_config_list`.")
    return found


def configs(model_config_file: str) -> list[Any]:
    """The ModelConfigs of a model config.

    Raises:
        LoadError: for a file that cannot be read.
    """
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    with boundary(f"{model_config_file} cannot be read", LoadError):
        text_format.Parse(pathlib.Path(model_config_file).read_text("utf-8"), config)
    return [*config.model_config_list.config]


def configuration_files(
    base_paths: Mapping[str, str],
    threads: int,
    latest: int = 1,
    labels: Mapping[str, Mapping[str, int]] | None = None,
    batching: bool | str | os.PathLike[str] = True,
) -> dict[str, str]:
    """File name -> text of the three files, as `flags` names them.

    Args:
        base_paths: model name -> absolute folder of its versions, as the server sees it.
        threads: how many batches run at once: the number of cores.
        latest: so many of the newest versions are served.
        labels: model name -> label -> version: of these models the labelled versions are served.
        batching: a file of batching parameters, in place of ours.

    Returns:
        The texts of models.config, batching.config and monitoring.config.

    Raises:
        BatchingError: for a file that TF Serving could not read.

    Example:
        >>> from keras_shared.serving.configuration import configuration_files
        >>> print(configuration_files({"lenet": "/models/lenet"}, 4)["models.config"])
        model_config_list {
          config {
            name: "lenet"
            base_path: "/models/lenet"
            model_platform: "tensorflow"
          }
        }
        <BLANKLINE>
    """
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    models = model_server_config_pb2.ModelServerConfig()
    for name, base_path in base_paths.items():
        config = models.model_config_list.config.add(
            name=name, base_path=base_path, model_platform="tensorflow"
        )
        labelled = dict((labels or {}).get(name, {}))
        if labelled:
            config.version_labels.update(labelled)
            config.model_version_policy.specific.versions.extend(sorted({*labelled.values()}))
        elif latest > 1:
            config.model_version_policy.latest.num_versions = latest
    together = BATCHING % threads
    if not isinstance(batching, bool):
        read_batching(batching)
        together = pathlib.Path(batching).read_text("utf-8")
    return {
        "models.config": text_format.MessageToString(models),
        "batching.config": together,
        "monitoring.config": MONITORING,
    }


def flags(
    folder: str,
    rest_port: int = REST_PORT,
    grpc_port: int = GRPC_PORT,
    batching: bool = True,
    per_model: bool = False,
) -> list[str]:
    """What `tensorflow_model_server` is started with; model_servers/main.cc has them all.

    Args:
        folder: with the files of `configuration_files`, as the server sees it.
        rest_port: port of REST.
        grpc_port: port of gRPC.
        batching: whether requests are answered together.
        per_model: they are, as the file batching_params.pbtxt of a version says, if it has one.

    Returns:
        The arguments of the command line.

    Example:
        >>> from keras_shared.serving.configuration import flags
        >>> flags("/config")[:2]
        ['--port=8500', '--rest_api_port=8501']
    """
    together = ["--enable_batching", f"--batching_parameters_file={folder}/batching.config"]
    if per_model:
        together.append("--enable_per_model_batching_parameters")
    return [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--model_config_file={folder}/models.config",
        # a version that does not load is tried six times, and no other model is loaded meanwhile:
        # for half a minute, not the five of the default
        "--load_retry_interval_micros=5000000",
        *(together if batching else ()),
        f"--monitoring_config_file={folder}/monitoring.config",
    ]
