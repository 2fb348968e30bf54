"""TF Serving launched: with processes that stand for it, and with itself where it is found."""

import contextlib
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf import wrappers_pb2 as wrappers
from tensorflow_serving.config import model_server_config_pb2

import keras_shared
from keras_shared.presets.names import locate, version_dir, version_numbers
from keras_shared.serving import Client, EngineError, Status, check, serve
from keras_shared.serving.configuration import configuration_files, model_folders
from keras_shared.serving.engine import _check_ports, _request
from keras_shared.serving.messages import SignatureDef, TensorInfo

sys.path.insert(0, __file__.rpartition("/")[0])
from real import free_port, real_server
from recording import Server, from_folder

HERE = pathlib.Path(__file__).parent
TENSOR = {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": "-1"}], "unknown_rank": False}}
SIGNATURE = {"inputs": {"image_bytes": TENSOR}, "outputs": {"label": TENSOR}}
METADATA = {
    "model_spec": {"name": "lenet5_mnist", "signature_name": "", "version": "1"},
    "metadata": {"signature_def": {"signature_def": {"classify_bytes": SIGNATURE}}},
}


@pytest.fixture
def launch(tmp_path):
    """Run `keras-shared serve` with one fake on the PATH, until it is ready or ends."""
    (tmp_path / "metadata.json").write_text(json.dumps(METADATA))
    (tmp_path / "containers").mkdir()
    started = []

    def run(engine, fake="", models=("lenet5_mnist",), ports=None):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        if engine is not None:
            script = HERE / f"fake_{'docker' if engine == 'docker' else 'model_server'}.py"
            (folder / engine).write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
            (folder / engine).chmod(0o755)
        ports = ports or (free_port(), free_port())
        process = subprocess.Popen(
            [sys.executable, "-m", "keras_shared.cli", "serve", *models, "--engine", "tf-serving",
             "--rest-port", str(ports[0]), "--grpc-port", str(ports[1])],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PATH": str(folder), "FAKE": fake, "RECORD": str(tmp_path / "argv"),
                 "METADATA": str(tmp_path / "metadata.json"), "TMPDIR": str(tmp_path)},
        )  # fmt: skip
        process.record = tmp_path / "argv"
        started.append(process)
        return process, ports

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until_ready(process):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("curl"):
            return "".join(lines)
    raise AssertionError(process.stderr.read())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("engine", ["tensorflow_model_server", "docker"])
def test_started_until_available_and_ended_by_a_signal(launch, engine, number):
    process, (rest, grpc) = launch(engine)
    printed = until_ready(process)
    assert f"gRPC: localhost:{grpc}" in printed
    assert f"http://localhost:{rest}/v1/models/lenet5_mnist\n" in printed
    assert f"http://localhost:{rest}/monitoring/prometheus/metrics" in printed
    assert f"curl -s http://localhost:{rest}/v1/models/lenet5_mnist:predict" in printed
    process.send_signal(number)
    assert process.wait(timeout=20) == 128 + number
    assert f"ended by signal {number.value}" in process.stderr.read()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", rest), timeout=1)


def test_the_status_of_the_server_is_ours(launch):
    process, _ = launch("tensorflow_model_server", fake="status 7")
    until_ready(process)
    process.terminate()
    assert process.wait(timeout=20) == 7


def test_how_docker_is_called(launch, tmp_path):
    (tmp_path / "own").write_text("max_batch_size { value: 8 }")
    models = ("lenet5_mnist", "siamese_omniglot")
    given = ("--batching-parameters-file", str(tmp_path / "own"), "--per-model-batching")
    process, (rest, grpc) = launch("docker", models=models + given)
    until_ready(process)
    [together] = tmp_path.glob("keras-shared-serve-*/batching.config")
    assert together.read_text() == "max_batch_size { value: 8 }"
    process.terminate()
    process.wait(timeout=20)
    argv = (tmp_path / "argv").read_text().split("\n")
    image = argv.index("tensorflow/serving")
    before, after = argv[:image], argv[image + 1 :]
    assert {"--rm", "--init", f"--publish={rest}:8501", f"--publish={grpc}:8500"} < set(before)
    assert "--entrypoint=tensorflow_model_server" in before
    source = locate("siamese_omniglot").resolve()
    mount = f'"type=bind","source={source}","target=/models/siamese_omniglot",readonly'
    assert f"--mount={mount}" in before
    assert {"--port=8500", "--rest_api_port=8501", "--enable_batching"} < set(after)
    assert "--enable_per_model_batching_parameters" in after
    assert "--model_config_file=/config/models.config" in after


def test_a_server_that_dies_early_shows_its_last_lines(launch):
    process, _ = launch("tensorflow_model_server", fake="dies")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "TF Serving ended with status 255. The last lines of its log:" in errors
    assert "\n  Failed to start server. Error: bad base path" in errors


def test_a_model_that_does_not_load(launch):
    process, (rest, _) = launch("tensorflow_model_server", fake="fails")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1 and "could not load lenet5_mnist: no variables" in errors
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", rest), timeout=1)


def test_a_signal_while_models_are_loading(launch):
    process, _ = launch("tensorflow_model_server", fake="hangs")
    assert "Building" in process.stderr.readline()
    process.terminate()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM


def test_no_model_available_in_time(launch, tmp_path, monkeypatch):
    launch("tensorflow_model_server")[0].kill()  # writes the fake
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("FAKE", "hangs")
    message = r"within 1 seconds: \['lenet5_mnist'\]\..* The last lines of its log:\n  Build"
    with pytest.raises(EngineError, match=message):
        serve(["lenet5_mnist"], free_port(), free_port(), timeout=1)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_neither_the_binary_nor_docker(launch):
    process, _ = launch(None)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Neither tensorflow_model_server nor docker is on the PATH" in errors
    assert "docker pull tensorflow/serving" in errors
    assert "apt-get install tensorflow-model-server" in errors


def test_docker_without_its_daemon(launch):
    process, _ = launch("docker", fake="no daemon")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1 and "`docker version` failed: Cannot connect" in errors


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET6, "::1"), (socket.AF_INET6, "::"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("listening", [True, False])
def test_a_port_that_is_taken(family, address, listening):
    with socket.socket(family) as other:
        other.bind((address, 0))
        if listening:
            other.listen()
        port = other.getsockname()[1]
        for ports in ((port, free_port()), (free_port(), port)):
            with pytest.raises(EngineError, match=f"Port {port} is taken by another program. Stop"):
                _check_ports(*ports)
    _check_ports(port, free_port())


def test_a_port_whose_connections_were_closed_is_free():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            other.accept()[0].close()  # first: it stays in TIME_WAIT
    _check_ports(port, free_port())


@pytest.mark.parametrize(
    ("ports", "message"),
    [
        ((8501, 8501), "REST and gRPC need a port each. Received 8501 for both"),
        ((0, 8500), "A port is a number from 1 to 65535. Received: 0"),
        ((8501, 65536), "Received: 65536"),
        ((-1, 8500), "Received: -1"),
    ],
)
def test_ports_that_cannot_be(ports, message):
    with pytest.raises(EngineError, match=message):
        _check_ports(*ports)


def test_a_port_of_root(tmp_path):
    first = pathlib.Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    if os.getuid() or not first.exists() or int(first.read_text()) <= 81:
        pytest.skip("every user has every port here, or this user is not root")
    program = (
        "import os; from keras_shared.serving.engine import _check_ports; os.setuid(65534)\n"
        "_check_ports(80, 81, by_root=True); _check_ports(80, 81)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Port 80 is for programs of root. Take one from 1024 on" in done.stderr


def fakes(process):
    """The process IDs of the fakes below a process, and of their keeper."""
    below = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes()
            if f"RECORD={process.record}".encode() in environment.split(b"\0"):
                below.append(int(folder.name))
    return [pid for pid in below if pid != process.pid]


def all_gone(process, seconds=15):
    deadline = time.monotonic() + seconds
    while left := fakes(process):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    return True


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        ("tensorflow_model_server", signal.SIGKILL),
        ("docker", signal.SIGKILL),
        ("tensorflow_model_server", signal.SIGHUP),
        pytest.param("docker", signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param("tensorflow_model_server", signal.SIGQUIT, marks=pytest.mark.slow),
        pytest.param("docker", signal.SIGQUIT, marks=pytest.mark.slow),
    ],
)
def test_nothing_runs_on_after_us(launch, engine, number, tmp_path):
    process, _ = launch(engine)
    until_ready(process)
    assert len(fakes(process)) >= 2 and [*tmp_path.glob("keras-shared-serve-*/models.config")]
    process.send_signal(number)
    status = process.wait(timeout=20)
    assert status == (-number if number == signal.SIGKILL else 128 + signal.SIGTERM)
    assert all_gone(process)
    assert not [*tmp_path.glob("keras-shared-serve-*")]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["tensorflow_model_server", "docker"])
def test_nothing_runs_on_after_us_that_is_stubborn(launch, engine, tmp_path):
    process, _ = launch(engine, fake="stubborn")
    until_ready(process)
    process.kill()
    assert all_gone(process, 20)
    assert not [*tmp_path.glob("keras-shared-serve-*")]


@pytest.mark.parametrize(
    "engine", [pytest.param("tensorflow_model_server", marks=pytest.mark.slow), "docker"]
)
def test_the_third_signal_ends_what_ignores_them(launch, engine, tmp_path):
    process, _ = launch(engine, fake="stubborn")
    until_ready(process)
    started = time.monotonic()
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert process.wait(timeout=20) == 128 + signal.SIGKILL
    assert time.monotonic() - started < 5 and all_gone(process)


def test_what_killed_runs_left_is_swept(launch, tmp_path):
    left = tmp_path / "keras-shared-serve-left"
    left.mkdir()
    with subprocess.Popen(["sleep", "60"]) as container:
        (tmp_path / "containers" / left.name).write_text(str(container.pid))
        process, _ = launch("docker", fake="dies")
        process.communicate(timeout=30)
        assert container.wait(timeout=5) == -signal.SIGKILL
    assert not left.exists()


@pytest.mark.slow
def test_a_log_without_end_and_without_line_ends(launch):
    process, _ = launch("tensorflow_model_server", fake="talks")
    until_ready(process)
    most = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    [kilobytes] = [int(n.split()[1]) for n in most.splitlines() if n.startswith("VmHWM")]
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert kilobytes < 250_000 and len(errors) < 50_000
    assert "\\x1b[31mred\\u202e\n\N{REPLACEMENT CHARACTER}\n" in errors


def test_folders_that_cannot_be_served(tmp_path):
    good = shutil.copytree(locate("lenet5_mnist"), tmp_path / "a" / "net")
    shutil.copytree(good, tmp_path / "b" / "net")
    (tmp_path / "empty").mkdir()
    shutil.copytree(version_dir(good), tmp_path / "export")
    shutil.copytree(good, tmp_path / "not-utf8-\udcff")
    assert model_folders("lenet5_mnist") == model_folders(["lenet5_mnist"])
    assert model_folders([good, "lenet5_mnist", good]) == {
        "net": good, "lenet5_mnist": locate("lenet5_mnist").resolve(),
    }  # fmt: skip
    for given, message in (
        ([version_dir(good)], f"Received one SavedModel: .* Pass its parent: {good}"),
        ([tmp_path / "export"], "Received one SavedModel: .* Move it into NAME/1"),
        ([tmp_path / "not-utf8-\udcff"], r"TF Serving cannot read .*not-utf8-.udcff: .* Rename it"),
        ([tmp_path / "empty"], "Received: .*empty, which has no version"),
        ([tmp_path / "missing"], "There is no file or folder .*missing"),
        (["lenet5_mnst"], "Did you mean 'lenet5_mnist'"),
        ("lenet5_mnst", "Did you mean 'lenet5_mnist'"),
        ([None], "is a path, as str or pathlib.Path. Received: None"),
        ([good, tmp_path / "b" / "net"], "Two models are named 'net'"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            model_folders(given)


def message(name, **fields):
    """A protocol buffer whose description tensorflow-serving-api leaves out."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=name, syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    inner = file.message_type.add(name="Inner")
    for number, key in enumerate(("enable", "path"), 1):
        inner.field.add(name=key, number=number, type=8 if key == "enable" else 9, label=1)
    whole = file.message_type.add(name="Whole")
    for number, (key, type_name) in enumerate(fields.items(), 1):
        whole.field.add(name=key, number=number, type=11, type_name=type_name, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{name}.Whole"))()


def test_the_files_are_read_as_protocol_buffers():
    files = configuration_files({"a": "/models/a", "b'\"": "/models/b'\""}, 3)
    models = text_format.Parse(files["models.config"], model_server_config_pb2.ModelServerConfig())
    read = [(c.name, c.base_path, c.model_platform) for c in models.model_config_list.config]
    assert read == [("a", "/models/a", "tensorflow"), ("b'\"", "/models/b'\"", "tensorflow")]
    number, flag = ".google.protobuf.Int64Value", ".google.protobuf.BoolValue"
    # servables/tensorflow/session_bundle_config.proto and config/monitoring_config.proto
    batching = message(
        "batching", max_batch_size=number, batch_timeout_micros=number, num_batch_threads=number,
        max_enqueued_batches=number, enable_large_batch_splitting=flag,
        max_execution_batch_size=number,
    )  # fmt: skip
    text_format.Parse(files["batching.config"], batching)
    assert batching.num_batch_threads.value == 3
    assert batching.max_execution_batch_size.value <= batching.max_batch_size.value
    monitoring = message("monitoring", prometheus_config=".monitoring.Inner")
    text_format.Parse(files["monitoring.config"], monitoring)
    assert monitoring.prometheus_config.enable
    assert monitoring.prometheus_config.path == "/monitoring/prometheus/metrics"


def test_the_request_that_is_printed_runs_nothing_of_the_model(tmp_path):
    evil = f"'; touch {tmp_path}/run; echo '\"$(touch {tmp_path}/run)`touch {tmp_path}/run`"
    for inputs in ({f"{evil}_bytes": TensorInfo("string", (None,))},
                   {evil: TensorInfo("float32", (None, 2))}):  # fmt: skip
        command = _request("http://localhost:9", evil, {evil: SignatureDef(inputs, {})})
        subprocess.run(["bash", "-c", command], capture_output=True, timeout=60)
        assert not (tmp_path / "run").exists()
        sent = shlex.split(command)
        text = sent[-1]
        if "-c" in sent:
            program = sent[sent.index("-c") + 1]
            text = subprocess.run([sys.executable, "-c", program], capture_output=True).stdout
        body = json.loads(text)
        assert body["signature_name"] == evil and list(body["inputs"]) == list(inputs)


def test_the_request_that_is_printed_has_inputs():
    signatures = {
        "a": SignatureDef({}, {}),
        "b": SignatureDef({"image_bytes": TensorInfo("string", (None,))}, {}),
    }
    assert '"signature_name": "b"' in _request("http://localhost:9", "m", signatures)


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "string"])
@pytest.mark.parametrize("shape", [(), None, (None,), (4, 3), (None, None, 2)])
def test_the_request_that_is_printed_has_the_shape_of_each_input(dtype, shape):
    inputs = {"x": TensorInfo(dtype, shape), "scale": TensorInfo("float32", ())}
    signatures = {"serving_default": SignatureDef(inputs, {})}
    words = shlex.split(_request("http://localhost:9", "m", signatures))
    body = subprocess.run([sys.executable, "-c", words[2]], capture_output=True).stdout
    sent = json.loads(body)["inputs"]
    sides = (1,) if shape is None else [side or 1 for side in shape]
    assert np.shape(sent["x"]) == tuple(sides) and sent["scale"] == 0.0


def test_a_model_without_signatures_goes_on_being_served(launch, tmp_path):
    process, _ = launch("tensorflow_model_server")
    nothing = {**METADATA, "metadata": {"signature_def": {"signature_def": {}}}}
    (tmp_path / "metadata.json").write_text(json.dumps(nothing))
    assert process.stdout.readline().startswith("TF Serving is ready")
    process.terminate()
    assert process.wait(timeout=20) == 128 + signal.SIGTERM


@pytest.mark.parametrize("name", ["lenet5_mnist", "siamese_omniglot", "tied_autoencoder_mnist"])
def test_the_request_that_is_printed_can_be_pasted(name):
    with Server() as server:
        server.models[name] = {1: from_folder(version_dir(name))}
        with Client(server.rest) as client:
            command = _request(server.rest, name, client.metadata(name))
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert len(command) < 600
    outputs = json.loads(done.stdout).get("outputs")
    assert outputs, done.stdout


@pytest.mark.parametrize("engine", ["tf-serving", pytest.param("embedded", marks=pytest.mark.slow)])
def test_the_engine_itself(tmp_path, engine):
    """Every published model, over both protocols, with batching on; and a version swapped."""
    names = ("lenet5_mnist", "siamese_omniglot", "tied_autoencoder_mnist")
    folders = [shutil.copytree(locate(name), tmp_path / name) for name in names]
    images = np.random.default_rng(0).integers(0, 256, (17, 28, 28, 1))
    with (
        real_server(folders, engine) as server,
        Client(server.rest) as over_rest,
        Client(server.grpc) as over_grpc,
    ):
        run = ["bash", "-c", server.request]
        done = subprocess.run(run, capture_output=True, text=True, timeout=60)
        assert "outputs" in json.loads(done.stdout)
        for name in names:
            assert check(tmp_path / name)[-1].severity == "note"
            assert over_rest.metadata(name) == over_grpc.metadata(name)
            assert over_rest.status(name) == over_grpc.status(name)
        a = over_rest.predict("lenet5_mnist", {"image": images})
        b = over_grpc.predict("lenet5_mnist", {"image": images})
        assert a["label"].tolist() == b["label"].tolist()
        np.testing.assert_allclose(a["scores"], b["scores"], rtol=1e-5)
        stop, seen = threading.Event(), []

        def ask():
            while not stop.is_set():
                seen.append(over_rest.predict("lenet5_mnist", {"image": images})["label"].tolist())

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        keras_shared.publish(keras_shared.load(folders[0]), folders[0])
        newest = version_numbers(folders[0])[-1]
        deadline = time.monotonic() + 60
        while Status(newest, "AVAILABLE", "") not in over_rest.status("lenet5_mnist"):
            assert time.monotonic() < deadline
        stop.set()
        thread.join()
        assert seen and all(labels == a["label"].tolist() for labels in seen)
