"""TF Serving found, started, watched until every model is AVAILABLE, and stopped."""

import collections
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_shared.errors import KerasSharedError
from keras_shared.serving.client import Client
from keras_shared.serving.configuration import (
    GRPC_PORT,
    METRICS,
    REST_PORT,
    configuration_files,
    flags,
    model_folders,
)
from keras_shared.serving.errors import ServingError
from keras_shared.serving.messages import SignatureDef

BINARY, IMAGE = "tensorflow_model_server", "tensorflow/serving"
LAST_LINES = 20
PACKAGES = "https://storage.googleapis.com/tensorflow-serving-apt"
# A PNG of one pixel, for the request that `serve` prints if a signature takes images
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
HOW_TO_GET = f"""\
To get TF Serving, either install Docker (https://docs.docker.com/engine/install), and run
  docker pull {IMAGE}
or, on Debian and Ubuntu (x86-64), add its package source and install the binary:
  curl -fsSL {PACKAGES}/tensorflow-serving.release.pub.gpg \\
    | sudo tee /etc/apt/keyrings/tensorflow-serving.asc > /dev/null
  echo "deb [arch=amd64 signed-by=/etc/apt/keyrings/tensorflow-serving.asc] \\
  {PACKAGES} stable tensorflow-model-server" \\
    | sudo tee /etc/apt/sources.list.d/tensorflow-serving.list
  sudo apt-get update && sudo apt-get install tensorflow-model-server"""


class EngineError(KerasSharedError, RuntimeError):
    """TF Serving is not installed, or did not start; the message says why, or how to get it."""


def serve(
    models: Sequence[str | os.PathLike[str]],
    rest_port: int = REST_PORT,
    grpc_port: int = GRPC_PORT,
    timeout: float = 600.0,
    batching: bool = True,
) -> int:
    """Run TF Serving until it ends; SIGTERM and SIGINT are passed on to it.

    `tensorflow_model_server` is taken if it is on the PATH, otherwise Docker. Prometheus metrics
    are on. Call it in the main thread: Python takes signals there.

    Args:
        models: folders of versions, or names of presets; a folder's name is the model's name.
        rest_port: port of REST.
        grpc_port: port of gRPC.
        timeout: seconds until every model must be AVAILABLE; Docker may have to fetch its image.
        batching: whether requests of several clients may be answered together. Without, models
            are served too whose inputs or outputs have no batch as dimension 0.

    Returns:
        The server's exit status; 128 + n if signal n ended it, as shells count.

    Raises:
        ValueError: for a name or folder that TF Serving could not serve.
        EngineError: if there is no TF Serving, a port is taken, or a model does not load.

    Example:
        >>> from keras_shared.serving import serve
        >>> serve(["lenet5_mnist"], rest_port=8601)  # doctest: +SKIP
    """
    folders = model_folders(models)
    for port in (rest_port, grpc_port):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise EngineError(
                    f"Port {port} is taken by another program. Stop it, or choose others with "
                    "--rest-port and --grpc-port."
                )
    with tempfile.TemporaryDirectory(prefix="tf-serving-") as scratch:
        command = _command(folders, pathlib.Path(scratch), rest_port, grpc_port, batching)
        with _signals_passed_on() as (received, started):
            process = subprocess.Popen(  # a session of its own: Ctrl-C reaches it only through us
                command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True
            )
            started.append(process)
            if received:  # while it was being started
                process.send_signal(received[-1])
            last: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
            log = threading.Thread(target=_log, args=(process, last), daemon=True)
            log.start()
            try:
                url = f"http://localhost:{rest_port}"
                _wait(process, url, list(folders), timeout, received)
                if process.poll() is None and not received:
                    print(_ready(url, grpc_port, list(folders)), flush=True)
                status = process.wait()
            except EngineError as error:
                _stop(process)
                log.join(timeout=5)
                lines = "".join(f"\n  {line}" for line in last)
                raise EngineError(f"{error} The last lines of its log:{lines}") from error
            except BaseException:
                _stop(process)
                raise
            log.join(timeout=5)
    return status if status >= 0 else 128 - status


def _command(
    folders: Mapping[str, pathlib.Path],
    scratch: pathlib.Path,
    rest_port: int,
    grpc_port: int,
    batching: bool,
) -> list[str]:
    """The command line of the engine that is here, its files written."""
    binary, docker = shutil.which(BINARY), shutil.which("docker")
    inside = {name: str(f) if binary else f"/models/{name}" for name, f in folders.items()}
    for name, text in configuration_files(inside, os.cpu_count() or 1).items():
        (scratch / name).write_text(text)
    if binary:
        return [binary, *flags(str(scratch), rest_port, grpc_port, batching)]
    if not docker:
        raise EngineError(f"Neither {BINARY} nor docker is on the PATH.\n{HOW_TO_GET}")
    docker_version = subprocess.run(
        [docker, "version"], capture_output=True, text=True, check=False
    )
    if docker_version.returncode:
        raise EngineError(
            f"{BINARY} is not on the PATH, and `docker version` failed: "
            f"{docker_version.stderr.strip()}\n{HOW_TO_GET}"
        )
    scratch.chmod(0o755)
    mounts = {str(scratch): "/config", **{str(f): inside[name] for name, f in folders.items()}}
    volumes = [f"--volume={source}:{target}:ro" for source, target in mounts.items()]
    ports = [f"--publish={rest_port}:{REST_PORT}", f"--publish={grpc_port}:{GRPC_PORT}"]
    # Process 1 of a container ignores a SIGTERM that it does not handle: --init takes its place
    run = [docker, "run", "--rm", "--init", *volumes, *ports, f"--entrypoint={BINARY}", IMAGE]
    return [*run, *flags("/config", batching=batching)]


def _wait(
    process: subprocess.Popen[bytes],
    url: str,
    names: Sequence[str],
    timeout: float,
    received: list[int],
) -> None:
    """Until every model is AVAILABLE, or a signal was received."""
    deadline = time.monotonic() + timeout
    waiting, client = list(names), Client(url, timeout=1)
    while waiting:
        if received:
            return
        if process.poll() is not None:
            raise EngineError(f"TF Serving ended with status {process.returncode}.")
        if time.monotonic() > deadline:
            raise EngineError(
                f"These models were not AVAILABLE within {timeout:g} seconds: {waiting}. Allow "
                "more with `timeout`."
            )
        try:
            versions = client.status(waiting[0])
        except ServingError:  # the ports open when every model is loaded
            versions = []
        failed = [v for v in versions if v.state == "END" and v.error]
        if any(version.state == "AVAILABLE" for version in versions):
            waiting.pop(0)
        elif failed:
            reason = failed[-1].error.rstrip(".")
            raise EngineError(f"TF Serving could not load {waiting[0]}: {reason}.")
        else:
            time.sleep(0.1)


def _ready(url: str, grpc_port: int, names: Sequence[str]) -> str:
    lines = [f"TF Serving is ready. gRPC: localhost:{grpc_port}, metrics: {url}{METRICS}"]
    lines += [f"  {url}/v1/models/{name}" for name in names]
    with contextlib.suppress(ServingError):  # an example is not worth ending a server for
        lines += ["try:", _request(url, names[0], Client(url).metadata(names[0]))]
    return "\n".join(lines)


def _request(url: str, name: str, signatures: Mapping[str, SignatureDef]) -> str:
    """A command that asks one model, with a picture of one pixel or with zeros."""
    encoded = [key for key, s in signatures.items() if all(i.endswith("_bytes") for i in s.inputs)]
    target = f"{url}/v1/models/{name}:predict"
    if encoded:
        chosen = min(encoded)
        inputs = ", ".join(f'"{key}": [{{"b64": "{PIXEL}"}}]' for key in signatures[chosen].inputs)
        body = f'{{"signature_name": "{chosen}", "inputs": {{{inputs}}}}}'
        return f"curl -s {target} -d '{body}'"
    chosen = "serving_default" if "serving_default" in signatures else min(signatures)
    columns = []
    for key, tensor in signatures[chosen].inputs.items():
        text, whole = tensor.dtype == "string", tensor.dtype.startswith(("int", "uint"))
        zeros = '""' if text else "0" if whole else "False" if tensor.dtype == "bool" else "0.0"
        for side in reversed(tensor.shape or (1,)):
            zeros = f"[{zeros}]" + (f" * {side}" if (side or 1) > 1 else "")
        columns.append(f'"{key}": {zeros}')
    body = f'{{"signature_name": "{chosen}", "inputs": {{{", ".join(columns)}}}}}'
    return f"python3 -c 'import json; print(json.dumps({body}))' | curl -s {target} -d @-"


def _log(process: Any, last: collections.deque[str]) -> None:
    """Show the server's log as it comes, and keep its end."""
    for line in process.stderr:
        text = line.decode(errors="replace").rstrip("\n")
        last.append(text)
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _signals_passed_on() -> Iterator[tuple[list[int], list[subprocess.Popen[bytes]]]]:
    """The SIGINT and SIGTERM received so far, and the processes to pass them on to."""
    received: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        for process in started:
            process.send_signal(number)

    kept = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received, started
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
