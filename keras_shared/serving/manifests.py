"""The same server on other machines: a compose file, and manifests for Kubernetes."""

import json
import os
import pathlib
import string
import textwrap
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from keras_shared.files.atomic import replace_text
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


def write_manifests(
    models: Sequence[str | os.PathLike[str]], folder: str | os.PathLike[str], image: str = IMAGE
) -> list[pathlib.Path]:
    """Write `compose.yaml`, `kubernetes.yaml` and the server's own files into `folder`.

    Args:
        models: folders of versions, or names of presets; the compose file mounts them from here,
            the pods read them from the volume `models`.
        folder: where to write; it is created.
        image: of Docker; with a tag, the server stays at one version of TF Serving.

    Returns:
        The files.

    Raises:
        LoadError: for a name or folder that TF Serving could not serve.

    Example:
        >>> import tempfile
        >>> from keras_shared.serving import write_manifests
        >>> [path.name for path in write_manifests(["lenet5_mnist"], tempfile.mkdtemp())][:2]
        ['compose.yaml', 'kubernetes.yaml']

    Reference: https://docs.docker.com/reference/compose-file and
        https://kubernetes.io/docs/reference/kubernetes-api.
    """
    folders = model_folders(models)
    files = configuration_files({name: f"/models/{name}" for name in folders}, THREADS)
    common = {
        "image": _quoted(image),
        "rest": REST_PORT,
        "grpc": GRPC_PORT,
        "entrypoint": json.dumps([BINARY]),  # JSON is YAML
        "command": json.dumps(flags("/config")),
    }
    volumes = [
        f"      - {{type: bind, source: {_compose(str(path))}, target: "
        f"{_compose(f'/models/{name}')}, read_only: true}}"
        for name, path in folders.items()
    ]
    data = "\n".join(
        f"  {name}: |\n{textwrap.indent(text, '    ')}" for name, text in files.items()
    )
    model = urllib.parse.quote(min(folders), safe="")
    pod = {"data": data, "metrics": METRICS, "threads": THREADS, "model": model}
    written = {
        "compose.yaml": _filled(
            "compose.yaml", common | {"image": _compose(image), "volumes": "\n".join(volumes)}
        ),
        "kubernetes.yaml": _filled("kubernetes.yaml", common | pod),
        **files,
    }
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        replace_text(folder / name, text)
    return [folder / name for name in written]


def _quoted(text: str) -> str:
    """Any text as a scalar of YAML."""
    plain = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return '"' + "".join(plain) + '"'


def _compose(text: str) -> str:
    """The same where `docker compose` would put variables in."""
    return _quoted(text.replace("$", "$$"))


def _filled(template: str, values: Mapping[str, Any]) -> str:
    text = pathlib.Path(__file__).with_name(template).read_text()
    return string.Template(text).substitute(values)
