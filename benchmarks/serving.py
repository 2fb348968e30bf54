"""What serving adds to a model: one request, and batches of 32, beside the call in this process.

    python benchmarks/serving.py

The embedded engine runs in a process of its own, as `keras-shared serve` starts it; TF Serving
too, where it is found. Requests and calls alternate, so that a busy machine disturbs all alike.
`added` is the median time of a request of one row less that of the call, `throughput` the rows of
a second at 32 rows a request as a share of those of the call.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import base64
import contextlib
import functools
import http.client
import json
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import time

import grpc
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from keras_shared.presets.names import locate, version_dir
from keras_shared.serving.session import loaded, run

ROWS, ROUNDS = 32, int(os.environ.get("ROUNDS", "150"))
CASES = [  # model, signature, size of its images
    ("lenet5_mnist", "classify", (28, 28, 1)),
    ("lenet5_mnist", "classify_bytes", (28, 28, 1)),
    ("siamese_omniglot", "verify_bytes", (105, 105, 3)),
]


@contextlib.contextmanager
def served(engine):
    """The ports of REST and gRPC of a server of the models."""
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            ports.append(probe.getsockname()[1])
    names = [str(locate(name)) for name in dict.fromkeys(name for name, *_ in CASES)]
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_shared.cli", "serve", *names, "--engine", engine,
         "--rest-port", str(ports[0]), "--grpc-port", str(ports[1])],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline(), f"{engine} did not start"
        yield ports
    finally:
        process.terminate()
        process.wait()


def made_up(names, size, rows):
    """Images for each input, as pixels or as PNG."""
    images = np.random.default_rng(0).integers(0, 256, (rows, *size), "uint8")
    encoded = np.array([tf.io.encode_png(image).numpy() for image in images], object)
    return {n: encoded if n.endswith("_bytes") else images.astype("float32") for n in names}


def over_rest(connection, model, signature, inputs):
    columns = {
        key: [{"b64": base64.b64encode(one).decode()} for one in value]
        if value.dtype == object
        else value.astype(int).tolist()
        for key, value in inputs.items()
    }
    body = json.dumps({"signature_name": signature, "inputs": columns})

    def ask():
        connection.request("POST", f"/v1/models/{model}:predict", body)
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, content

    return ask


def over_grpc(stub, model, signature, inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return lambda: stub.Predict(request)


def medians(functions):
    """Seconds of each, called in turn."""
    times = {name: [] for name in functions}
    for turn in range(ROUNDS + 5):
        for name, function in functions.items():
            begun = time.perf_counter()
            function()
            if turn >= 5:
                times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(values) for name, values in times.items()}


def main():
    engines = ["embedded"]
    docker = ["docker", "version"]
    if shutil.which("tensorflow_model_server") or (
        shutil.which("docker")
        and not subprocess.run(docker, capture_output=True, check=False).returncode
    ):
        engines.append("tf-serving")
    table = Table("model", "signature", "asked", "1 row", "added", "32 rows", "throughput")
    with contextlib.ExitStack() as stack:
        ways = {}
        for engine in engines:
            rest_port, grpc_port = stack.enter_context(served(engine))
            connection = http.client.HTTPConnection("127.0.0.1", rest_port)
            channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{grpc_port}"))
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            ways[f"{engine}, REST"] = functools.partial(over_rest, connection)
            ways[f"{engine}, gRPC"] = functools.partial(over_grpc, stub)
        for model, signature, size in CASES:
            with loaded(version_dir(model)) as (session, signatures):
                definition, seconds = signatures[signature], {}
                for rows in (1, ROWS):
                    inputs = made_up(definition.inputs, size, rows)
                    functions = {"call": functools.partial(run, session, definition, inputs)}
                    functions |= {n: way(model, signature, inputs) for n, way in ways.items()}
                    seconds[rows] = medians(functions)
            for way, one in seconds[1].items():
                many, call = seconds[ROWS][way], {n: seconds[n]["call"] for n in (1, ROWS)}
                times = [f"{1000 * time:.2f} ms" for time in (one, one - call[1], many)]
                table.add_row(model, signature, way, *times, f"{call[ROWS] / many:.2f}")
    Console().print(table)
    print(f"{len(os.sched_getaffinity(0))} cores, load {pathlib.Path('/proc/loadavg').read_text()}")


if __name__ == "__main__":
    main()
