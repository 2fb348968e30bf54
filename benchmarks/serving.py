"""What serving adds to a model: one request, and batches of 32, beside the call in this process.

    python benchmarks/serving.py

The embedded engine runs in a process of its own, as `keras-shared serve` starts it; TF Serving
too, where it is found. Requests and calls alternate, so that a busy machine disturbs all alike.
`added` is the median time of a request of one row less that of the call. Rows of a second are of
32 rows a request: by one thread, which waits for each answer, and by four. A share is of the calls
by as many threads; the last one of the calls by one thread, as most programs call a model. Asked
about are the package's own pictures: noise in their place makes PNG files many times as large.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import base64
import concurrent.futures
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
import threading
import time

import grpc
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

import keras_shared
from keras_shared.presets.names import locate, version_dir
from keras_shared.serving.session import loaded, run

ROWS, CALLERS, ROUNDS = 32, 4, int(os.environ.get("ROUNDS", "150"))
TURNS, IN_A_TURN = 9, 48  # requests of 32 rows
CASES = [  # model, signature, a picture for each of its inputs
    ("lenet5_mnist", "classify", ["digit.png"]),
    ("lenet5_mnist", "classify_bytes", ["digit.png"]),
    ("siamese_omniglot", "verify_bytes", ["character_1.png", "character_2.png"]),
]
PICTURES = pathlib.Path(keras_shared.__file__).parent / "pictures"


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


def batch(names, pictures, rows):
    """So many times the picture of each input, as PNG or as pixels."""
    found = {}
    for name, picture in zip(sorted(names), pictures, strict=True):
        encoded = (PICTURES / picture).read_bytes()
        pixels = tf.io.decode_png(encoded).numpy().astype("float32")
        as_png = name.endswith("_bytes")
        found[name] = np.array([encoded if as_png else pixels] * rows, object if as_png else None)
    return found


def over_rest(port, model, signature, inputs):
    columns = {
        key: [{"b64": base64.b64encode(one).decode()} for one in value]
        if value.dtype == object
        else value.astype(int).tolist()
        for key, value in inputs.items()
    }
    body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
    own = threading.local()  # a connection for each thread

    def ask():
        if not hasattr(own, "connection"):
            own.connection = http.client.HTTPConnection("127.0.0.1", port)
        own.connection.request("POST", f"/v1/models/{model}:predict", body)
        response = own.connection.getresponse()
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


def rows_a_second(functions, callers):
    """Of each, asked by so many threads: the median of several turns."""
    found = {name: [] for name in functions}
    with concurrent.futures.ThreadPoolExecutor(callers) as pool:
        for turn in range(TURNS + 1):
            for name, function in functions.items():
                begun = time.perf_counter()
                for done in [pool.submit(function) for _ in range(IN_A_TURN)]:
                    done.result()
                if turn:
                    found[name].append(ROWS * IN_A_TURN / (time.perf_counter() - begun))
    return {name: statistics.median(values) for name, values in found.items()}


def main():
    engines = {"embedded": ""}
    docker = ["docker", "version"]
    if shutil.which("tensorflow_model_server") or (
        shutil.which("docker")
        and not subprocess.run(docker, capture_output=True, check=False).returncode
    ):
        engines["tf-serving"] = "TF Serving, "
    with contextlib.ExitStack() as stack:
        ways = {}
        for engine, named in engines.items():
            rest_port, grpc_port = stack.enter_context(served(engine))
            channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{grpc_port}"))
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            ways[f"{named}REST"] = functools.partial(over_rest, rest_port)
            ways[f"{named}gRPC"] = functools.partial(over_grpc, stub)
        for model, signature, pictures in CASES:
            with loaded(version_dir(model)) as (session, signatures):
                definition, functions = signatures[signature], {}
                for rows in (1, ROWS):
                    inputs = batch(definition.inputs, pictures, rows)
                    functions[rows] = {"call": functools.partial(run, session, definition, inputs)}
                    functions[rows] |= {n: way(model, signature, inputs) for n, way in ways.items()}
                one = medians(functions[1])
                alone, together = (rows_a_second(functions[ROWS], n) for n in (1, CALLERS))
            table = Table(
                "asked", "1 row", "added", "1 thread", "share", f"{CALLERS} threads", "share",
                "of 1's", title=f"{model}, {signature}; rows a second", title_justify="left",
            )  # fmt: skip
            for way, took in one.items():
                shares = [
                    f"{alone[way]:,.0f}", f"{alone[way] / alone['call']:.2f}",
                    f"{together[way]:,.0f}", f"{together[way] / together['call']:.2f}",
                    f"{together[way] / alone['call']:.2f}",
                ]  # fmt: skip
                times = [f"{1000 * time:.2f} ms" for time in (took, took - one["call"])]
                table.add_row(way, *times, *shares)
            Console(width=80).print(table)
    print(f"{len(os.sched_getaffinity(0))} cores, load {pathlib.Path('/proc/loadavg').read_text()}")


if __name__ == "__main__":
    main()
