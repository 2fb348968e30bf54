"""The same server on other machines: a compose file, and manifests for Kubernetes."""

import json
import os
import pathlib
import string
import textwrap
import urllib.parse
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from keras_shared.errors import KerasSharedError
from keras_shared.files.atomic import make_folder, replace_text
from keras_shared.files.paths import as_path
from keras_shared.presets.names import listed, version_numbers
from keras_shared.serving.configuration import (
    GRPC_PORT,
    METRICS,
    REST_PORT,
    configuration_files,
    flags,
    model_folders,
)
from keras_shared.serving.engine import BINARY, IMAGE

THREADS = 4  # that run batches, and the cores that a pod asks for
BUCKETS = ("gs://", "s3://")
# Metadata are there for a model with a loaded version, so that each model answers when all do.
# The image has bash, and nothing that speaks HTTP.
READY = (
    f'for path in "$0" "$@"; do exec 3<>/dev/tcp/127.0.0.1/{REST_PORT} && '
    'printf "GET %s HTTP/1.0\\r\\n\\r\\n" "$path" >&3 && read -r _ status _ <&3 && '
    '[ "$status" = 200 ] || exit 1; exec 3<&-; done'
)
AMD64 = """
      nodeSelector: {kubernetes.io/arch: amd64}  # the image is for no other: on arm64 build one\
"""
KUSTOMIZATION = """\
# kubectl apply -k FOLDER; or a base of your own: resources: [FOLDER]
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [kubernetes.yaml]
"""


class ManifestError(KerasSharedError, ValueError):
    """Manifests cannot be written; the message says what was expected."""


def write_manifests(
    models: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    image: str = IMAGE,
    batching: bool | str | os.PathLike[str] = True,
    latest: int = 1,
    labels: Mapping[str, Mapping[str, int]] | None = None,
    per_model_batching: bool = False,
) -> list[pathlib.Path]:
    """Write `compose.yaml`, `kubernetes.yaml` and the server's own files into `folder`.

    A change of `models.config` is taken over within a minute, without a restart.

    Args:
        models: folders of versions, names of presets, or folders in a bucket, such as
            "gs://bucket/models/lenet5_mnist". The compose file mounts folders from here, the pods
            read them from the volume `models`; a bucket is read by the server itself. TF Serving's
            own image reads gs:// alone: since 2.7 it has no s3:// (tensorflow/serving#1963).
        folder: where to write; it is created.
        image: of Docker; with a tag, the server stays at one version of TF Serving. TF Serving's
            own is for amd64 alone.
        batching: whether requests are answered together; a model whose inputs or outputs have no
            batch cannot be. Or a file of TF Serving's batching parameters, in place of ours.
        latest: so many of the newest versions of each model are served.
        labels: model name -> label -> version, such as `{"lenet5_mnist": {"stable": 1}}`: of these
            models the labelled versions are served, also at /v1/models/NAME/labels/LABEL.
        per_model_batching: as of `serve`.

    Returns:
        The files.

    Warns:
        UserWarning: for a label of a version that a folder does not hold (yet).

    Raises:
        LoadError: for a name or folder that TF Serving could not serve.
        BatchingError: for a file of batching parameters that it could not read.
        ManifestError: for no model, labels of a model that is not served, or no version.
        ValueError: for `models` that are no names.

    Example:
        >>> import tempfile
        >>> from keras_shared.serving import write_manifests
        >>> [path.name for path in write_manifests(["lenet5_mnist"], tempfile.mkdtemp())][:2]
        ['compose.yaml', 'kubernetes.yaml']

    Reference: https://docs.docker.com/reference/compose-file and
        https://kubernetes.io/docs/reference/kubernetes-api.
    """
    folder = as_path(folder, "folder")
    in_buckets, local = _in_buckets(listed(models, "models"))
    folders = model_folders(local)
    paths = {name: f"/models/{name}" for name in folders} | in_buckets
    count = len(folders) + len(in_buckets)
    if not 0 < count == len(paths) or latest < 1 or {*(labels or {})} - {*paths}:
        raise ManifestError(
            "Expected one model or more, with names of their own, one version or more, and labels "
            f"of these models. Received: {sorted([*folders, *in_buckets])}, latest={latest}, "
            f"labels={dict(labels or {})}"
        )
    for name, path in folders.items():
        numbers, labelled = version_numbers(path), {*(labels or {}).get(name, {}).values()}
        if absent := sorted(labelled - {*numbers}):
            warnings.warn(
                f"{name} has the versions {numbers} here, and {absent} got a label: until the "
                "server finds them, it does not answer for them.",
                stacklevel=2,
            )
    files = configuration_files(paths, THREADS, latest, labels, batching)
    more = ["--model_config_file_poll_wait_seconds=60"]
    if labels:  # of versions that are not loaded yet
        more.append("--allow_version_labels_for_unavailable_models")
    common = {
        "image": quoted(image),
        "rest": REST_PORT,
        "grpc": GRPC_PORT,
        "entrypoint": json.dumps([BINARY]),  # JSON is YAML
        "command": json.dumps(
            [*flags("/config", batching=bool(batching), per_model=per_model_batching), *more]
        ),
    }
    volumes = [
        f"      - {{type: bind, source: {_compose(str(path))}, target: "
        f"{_compose(f'/models/{name}')}, read_only: true}}"
        for name, path in folders.items()
    ]
    data = "\n".join(f"  {name}: {_lines(text)}" for name, text in files.items())
    asked = [f"/v1/models/{urllib.parse.quote(name, safe='')}" for name in paths]
    pod = {
        "data": data,
        "metrics": METRICS,
        "threads": THREADS,
        "model": min(asked),
        "ready": json.dumps(["bash", "-c", READY, *(f"{path}/metadata" for path in asked)]),
        "machines": AMD64 if image.partition(":")[0] == IMAGE.partition(":")[0] else "",
    }
    written = {
        "compose.yaml": filled(
            "compose.yaml", common | {"image": _compose(image), "volumes": "\n".join(volumes)}
        ),
        "kubernetes.yaml": filled("kubernetes.yaml", common | pod),
        "kustomization.yaml": KUSTOMIZATION,
        **files,
    }
    make_folder(folder)
    for name, text in written.items():
        replace_text(folder / name, text)
    return [folder / name for name in written]


def _in_buckets(
    models: Sequence[str | os.PathLike[str]],
) -> tuple[dict[str, str], list[str | os.PathLike[str]]]:
    """What lies in buckets, name -> address, and the rest."""
    found, local = {}, []
    for model in models:
        address = str(model).rstrip("/")
        if address.startswith(BUCKETS) and "/" in address.partition("://")[2]:
            found[address.rpartition("/")[2]] = address
        else:
            local.append(model)
    return found, local


def quoted(text: str) -> str:
    """Any text as a scalar of YAML."""
    plain = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return '"' + "".join(plain) + '"'


def _lines(text: str) -> str:
    """The same as lines, where they begin and go on as YAML has it."""
    plain = all(line.isprintable() for line in text.split("\n")) and text[:1].strip()
    return f"|\n{textwrap.indent(text, '    ')}" if plain else quoted(text)


def _compose(text: str) -> str:
    """The same where `docker compose` would put variables in."""
    return quoted(text.replace("$", "$$"))


def filled(template: str, values: Mapping[str, Any]) -> str:
    """The text of a template beside this file, with values for its names."""
    text = pathlib.Path(__file__).with_name(template).read_text()
    return string.Template(text).substitute(values)
