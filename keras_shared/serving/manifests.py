"""The same server on other machines: a compose file, and manifests for Kubernetes."""

import json
import os
import pathlib
import textwrap
from collections.abc import Sequence

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

COMPOSE = """\
# docker compose up
services:
  tf-serving:
    image: {image}
    init: true  # process 1 of a container ignores a SIGTERM that it does not handle
    entrypoint: {entrypoint}
    command: {command}
    ports: ["{rest}:{rest}", "{grpc}:{grpc}"]
    restart: unless-stopped
    volumes:
      - {{type: bind, source: ., target: /config, read_only: true}}
{volumes}
"""

KUBERNETES = """\
# kubectl apply -f kubernetes.yaml, then copy each model's folder into the volume `models`
apiVersion: v1
kind: ConfigMap
metadata:
  name: tf-serving
data:
{data}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: models
spec:
  accessModes: [ReadWriteMany]  # pods on several machines read it, one job writes versions
  resources:
    requests:
      storage: 10Gi
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: tf-serving
  labels: {{app: tf-serving}}
spec:
  replicas: 2
  selector:
    matchLabels: {{app: tf-serving}}
  template:
    metadata:
      labels: {{app: tf-serving}}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "{rest}"
        prometheus.io/path: {metrics}
    spec:
      shareProcessNamespace: true  # so that SIGTERM ends the server, which is not process 1 then
      containers:
        - name: tf-serving
          image: {image}
          command: {entrypoint}
          args: {command}
          ports:
            - {{name: grpc, containerPort: {grpc}}}
            - {{name: rest, containerPort: {rest}}}
          resources:
            requests: {{cpu: "{threads}", memory: 1Gi}}
          # the ports open when every model is AVAILABLE: one model's status stands for all
          startupProbe:
            httpGet: {{path: {status}, port: rest}}
            periodSeconds: 5
            failureThreshold: 120
          readinessProbe:  # the metadata are there while a version is loaded, the status always
            httpGet: {{path: {status}/metadata, port: rest}}
          livenessProbe:
            httpGet: {{path: {status}, port: rest}}
            periodSeconds: 20
            timeoutSeconds: 5
          lifecycle:
            preStop:  # until the Service sends no more requests
              exec: {{command: [sleep, "5"]}}
          volumeMounts:
            - {{name: config, mountPath: /config, readOnly: true}}
            - {{name: models, mountPath: /models, readOnly: true}}
      volumes:
        - name: config
          configMap: {{name: tf-serving}}
        - name: models
          persistentVolumeClaim: {{claimName: models}}
---
apiVersion: v1
kind: Service
metadata:
  name: tf-serving
spec:
  selector: {{app: tf-serving}}
  ports:
    - {{name: grpc, port: {grpc}, targetPort: grpc}}
    - {{name: rest, port: {rest}, targetPort: rest}}
"""


def write_manifests(
    models: Sequence[str | os.PathLike[str]], folder: str | os.PathLike[str], image: str = IMAGE
) -> list[pathlib.Path]:
    """Write `compose.yaml`, `kubernetes.yaml` and the server's own files into `folder`.

    Args:
        models: folders of versions, or published names; the compose file mounts them from here,
            the pods read them from the volume `models`.
        folder: where to write; it is made.
        image: of Docker; name its version where a server must not change by itself.

    Returns:
        The files.

    Raises:
        ValueError: for a folder that TF Serving could not serve from.

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
        "image": image,
        "rest": REST_PORT,
        "grpc": GRPC_PORT,
        "entrypoint": json.dumps([BINARY]),  # JSON is YAML
        "command": json.dumps(flags("/config")),
    }
    volumes = [
        f"      - {{type: bind, source: {json.dumps(str(path))}, target: "
        f"{json.dumps(f'/models/{name}')}, read_only: true}}"
        for name, path in folders.items()
    ]
    data = "\n".join(
        f"  {name}: |\n{textwrap.indent(text, '    ')}" for name, text in files.items()
    )
    status = json.dumps(f"/v1/models/{min(folders)}")[1:-1]
    written = {
        "compose.yaml": COMPOSE.format(**common, volumes="\n".join(volumes)),
        "kubernetes.yaml": KUBERNETES.format(
            **common, data=data, metrics=METRICS, threads=THREADS, status=status
        ),
        **files,
    }
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in written.items():
        (folder / name).write_text(text)
    return [folder / name for name in written]
