"""A training on several machines of Kubernetes, whose workers find each other."""

import json
import os
import pathlib
import re
import textwrap

from keras_shared.files.atomic import replace_text
from keras_shared.serving.manifests import THREADS, ManifestError, filled, quoted

PORT = 2222
LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # RFC 1035, which names of Services keep
MOST_LABEL = 63  # characters, of the names of the pods too


def write_training_job(
    name: str, recipe: str, folder: str | os.PathLike[str], image: str, workers: int = 2
) -> pathlib.Path:
    """Write `train.yaml` into `folder`: a Job of Kubernetes that trains one recipe.

    Each pod is a worker of `keras-shared train --strategy multi-worker`. Together they write
    /runs/NAME on the volume `runs`; data sets are prepared in /runs/data.

    Args:
        name: of the run. That of the Job is the same in small letters, with - for _.
        recipe: the text of the recipe's TOML file, which the manifest holds.
        folder: where to write; it is created.
        image: of Docker, one in which keras_shared is installed.
        workers: number of pods, two or more.

    Returns:
        The file.

    Raises:
        ManifestError: for a name that Kubernetes does not take, fewer than two workers, or no
            image.

    Example:
        >>> import tempfile
        >>> from keras_shared.serving import write_training_job
        >>> recipe = 'name = "mine"\\nmodel.class_name = "LeNet5"\\ndata.name = "mnist"\\n'
        >>> write_training_job("mine", recipe, tempfile.mkdtemp(), "mine/keras:1", workers=3).name
        'train.yaml'

    Reference: https://kubernetes.io/docs/concepts/workloads/controllers/job, "Completion mode".
    """
    label = name.lower().replace("_", "-")
    last = f"{label}-{workers - 1}"  # the longest name of a pod
    if not LABEL.fullmatch(label) or len(last) > MOST_LABEL:
        raise ManifestError(
            f"A Job of Kubernetes is named by letters from a to z, digits and -, and {last!r} by "
            f"{MOST_LABEL} characters at most. Received: {name!r}. Give the recipe another `name`."
        )
    if workers < 2:
        raise ManifestError(
            f"Expected two workers or more; one trains without a strategy. Received: {workers}"
        )
    if not image:
        raise ManifestError(f"Expected an image with keras_shared. Received: {image!r}")
    command = ["keras-shared", "train", "/recipe/recipe.toml", "--strategy", "multi-worker"]
    text = filled(
        "train.yaml",
        {
            "name": label,
            "recipe": _block(recipe),
            "workers": workers,
            "image": quoted(image),
            "port": PORT,
            "threads": THREADS,
            "command": json.dumps([*command, "--out", f"/runs/{name}"]),  # JSON is YAML
        },
    )
    path = pathlib.Path(folder) / "train.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, text)
    return path


def _block(text: str) -> str:
    """Any text as a value of YAML that is indented by two, to be read where it can be."""
    if not all(c.isprintable() or c in "\t\n" for c in text):
        return quoted(text)
    return "|2+\n" + textwrap.indent(text.rstrip("\n"), "    ", lambda _: True)
