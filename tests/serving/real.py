"""A server launched by `keras-shared serve`: the embedded engine, or TF Serving where found."""

import contextlib
import shutil
import socket
import subprocess
import sys
import types

import pytest


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def real_server(models, engine="tf-serving"):
    """The ports and URLs of the server, and the request that it was announced with."""
    if engine == "tf-serving" and not shutil.which("tensorflow_model_server"):
        docker = shutil.which("docker")
        found = docker and subprocess.run([docker, "version"], capture_output=True, check=False)
        if not found or found.returncode:
            pytest.skip("TF Serving: no tensorflow_model_server on the PATH, and no Docker answers")
    rest, grpc = free_port(), free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_shared.cli", "serve", *map(str, models), "--engine", engine,
         "--rest-port", str(rest), "--grpc-port", str(grpc)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        lines = iter(process.stdout.readline, "")
        request = next((n for n in lines if n.startswith(("curl", "python3"))), None)
        assert request, "the server ended"
        yield types.SimpleNamespace(
            rest_port=rest, grpc_port=grpc, rest=f"http://localhost:{rest}",
            grpc=f"localhost:{grpc}", request=request,
        )  # fmt: skip
    finally:
        process.terminate()
        process.wait(timeout=60)
