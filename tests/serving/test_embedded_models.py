"""Versions of the embedded engine: found, loaded, swapped, refused, tried again."""

import contextlib
import shutil
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

sys.path.insert(0, __file__.rpartition("/")[0])
from embedded_server import serving

from keras_shared.serving.embedded.models import Models
from keras_shared.serving.embedded.options import ConfigError, Options
from saved_models import write


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Models that multiply by 1, 2 and 3."""
    base = tmp_path_factory.mktemp("versions")
    for factor in (1, 2, 3):
        write(base / str(factor), lambda kernel, x, f=factor: {"y": x @ (kernel * f)})
    return base


@pytest.fixture
def base(versions, tmp_path):
    (tmp_path / "m").mkdir()
    shutil.copytree(versions / "1", tmp_path / "m" / "1")
    return tmp_path / "m"


def publish(versions, base, number):
    shutil.copytree(versions / str(number), base / f".tmp-{number}")
    (base / f".tmp-{number}").rename(base / str(number))


def factor(server, path="m"):
    status, found = server.predict(path, {"instances": [[1, 0, 0]]})
    return found["predictions"][0][0] if status == 200 else found["error"]


def until(holds, seconds=20):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return True


def states(server):
    found = server.ask("GET", "/v1/models/m")[1]["model_version_status"]
    return {int(one["version"]): one["state"] for one in found}


@pytest.mark.slow
def test_a_new_version_takes_over_and_a_removed_one_gives_back(versions, base):
    with serving({"m": base}) as server:
        assert factor(server) == 1
        publish(versions, base, 2)
        assert until(lambda: factor(server) == 2)
        assert until(lambda: states(server) == {2: "AVAILABLE", 1: "END"})
        assert factor(server, "m/versions/1") == "Servable not found for request: Specific(m, 1)"
        shutil.rmtree(base / "2")
        assert until(lambda: factor(server) == 1)


@pytest.mark.slow
def test_no_request_fails_while_versions_change(versions, base):
    with serving({"m": base}) as server:
        seen, ended = [], threading.Event()

        def ask():
            while not ended.is_set():
                seen.append(factor(server))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in (2, 3):
            publish(versions, base, number)
            assert until(lambda number=number: factor(server) == number)
        ended.set()
        for thread in threads:
            thread.join()
    assert {*seen} == {1.0, 2.0, 3.0} and seen[-1] == 3.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "available"),
    [
        ({}, {3}),
        ({"latest": {"num_versions": 2}}, {2, 3}),
        ({"all": {}}, {1, 2, 3}),
        ({"specific": {"versions": [1, 3]}}, {1, 3}),
    ],
)
def test_policies(versions, policy, available):
    with serving({"m": versions}, {"m": {"model_version_policy": policy}}) as server:
        assert {n for n, state in states(server).items() if state == "AVAILABLE"} == available
        assert factor(server) == 3
        for number in available:
            assert factor(server, f"m/versions/{number}") == number


def test_labels(versions):
    policy = {"model_version_policy": {"all": {}}, "version_labels": {"stable": 1, "canary": 3}}
    with serving({"m": versions}, {"m": policy}) as server:
        assert [factor(server, f"m/labels/{n}") for n in ("stable", "canary")] == [1, 3]
        assert factor(server, "m/labels/x") == "Unrecognized servable version label: x"


@pytest.mark.slow
def test_labels_hold_until_the_new_ones_are_valid(versions, base):
    labelled = {"model_version_policy": {"all": {}}, "version_labels": {"stable": 1}}

    def reload(number):
        labelled["version_labels"] = {"stable": number}
        server.models.configure(
            [model_server_config_pb2.ModelConfig(name="m", base_path=str(base), **labelled)]
        )

    with serving({"m": base}, {"m": labelled}) as server:
        with pytest.raises(ConfigError, match="names version 9, which is not available"):
            reload(9)
        assert factor(server, "m/labels/stable") == 1
        publish(versions, base, 2)
        found, ended = set(), threading.Event()

        def ask():
            while not ended.is_set():
                found.add(factor(server, "m/labels/stable"))

        thread = threading.Thread(target=ask)
        thread.start()
        reload(2)
        assert until(lambda: 2 in found)
        ended.set()
        thread.join()
        assert found == {1, 2}


def test_it_says_that_it_waits_for_a_version(tmp_path, capfd):
    with pytest.raises(ConfigError, match="was not loaded in time"):
        models = Models(Options(file_system_poll_wait_seconds=0.05))
        (tmp_path / "m").mkdir()
        with contextlib.closing(models):
            models.configure([model_server_config_pb2.ModelConfig(
                name="m", base_path=str(tmp_path / "m")
            )], seconds=1)  # fmt: skip
    assert "m holds no version that is asked for: waiting for one" in capfd.readouterr().err


@pytest.mark.slow
def test_a_version_that_is_being_copied_does_not_disturb(versions, base):
    """File by file, slowly, in the worst order: the graph first, the variables last."""
    with serving({"m": base}) as server:
        files = sorted(p for p in (versions / "2").rglob("*") if p.is_file())
        order = sorted(files, key=lambda path: ("variables" in str(path), path.name))
        for path in order:
            target = base / "2" / path.relative_to(versions / "2")
            target.parent.mkdir(parents=True, exist_ok=True)
            content = path.read_bytes()
            with target.open("wb") as file:
                for at in range(0, len(content), len(content) // 2 + 1):
                    file.write(content[at : at + len(content) // 2 + 1])
                    file.flush()
                    time.sleep(0.15)
                    if path is not order[-1]:  # a machine under load may pause behind the last
                        assert factor(server) == 1
        assert until(lambda: factor(server) == 2)


def crash(kernel, x):
    with tf.control_dependencies([tf.raw_ops.Abort(error_msg="enough")]):
        return {"y": x @ kernel}


def terabyte(kernel, x):
    rows = tf.cast(tf.reduce_sum(x) * 0, tf.int64) + 2**38
    return {"y": x @ kernel + tf.reduce_sum(tf.random.uniform([rows]))}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (crash, "it was ended by SIGABRT"),
        # TensorFlow asks for the memory again for 10 s
        pytest.param(terabyte, "it takes more than the", marks=pytest.mark.slow),
    ],
)
def test_a_dangerous_version_is_tried_elsewhere(versions, base, bad, reason):
    """In a process of its own; the version before answers on, and a later one takes over."""
    with serving({"m": base}) as server:
        write(base.parent / "new", bad)
        (base.parent / "new").rename(base / "2")
        assert until(lambda: states(server).get(2) == "END", 120)
        told = server.ask("GET", "/v1/models/m/versions/2")[1]["model_version_status"][0]
        assert reason in told["status"]["error_message"]
        assert factor(server) == 1
        publish(versions, base, 3)
        assert until(lambda: factor(server) == 3, 60)


@pytest.mark.slow
def test_a_broken_version_leaves_the_old_one_and_says_why(versions, base):
    with serving({"m": base}) as server:
        publish(versions, base, 2)
        assert until(lambda: factor(server) == 2)
        (base / ".3").mkdir()
        shutil.copy(versions / "3" / "saved_model.pb", base / ".3")
        (base / ".3").rename(base / "3")
        assert until(lambda: states(server).get(3) == "END")
        told = server.ask("GET", "/v1/models/m/versions/3")[1]["model_version_status"][0]
        assert "variables.index is missing" in told["status"]["error_message"]
        assert told["status"]["error_code"] == "UNKNOWN"
        assert factor(server) == 2
        shutil.copytree(versions / "3" / "variables", base / "3" / "variables")
        assert until(lambda: factor(server) == 3)


def test_what_is_deleted_while_it_is_served(versions, base):
    with serving({"m": base}) as server:
        shutil.rmtree(base / "1" / "variables")
        (base / "1" / "saved_model.pb").unlink()
        time.sleep(0.2)
        assert factor(server) == 1
        base.rename(base.parent / "away")  # as a file system that is gone for a while
        time.sleep(0.2)
        assert factor(server) == 1


def test_a_broken_model_at_the_start_ends_the_server(base):
    (base / "1" / "saved_model.pb").write_bytes(b"broken")
    with (
        pytest.raises(ConfigError, match="m could not be loaded: saved_model.pb is corrupt"),
        serving({"m": base}),
    ):
        pass


def test_a_model_that_reads_files_is_refused_unless_allowed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path = tf.TensorSpec((None,), "string", name="path")
    read = lambda kernel, path: {"y": tf.map_fn(tf.io.read_file, path)}  # noqa: E731
    write(tmp_path / "m" / "1", read, path)
    with (
        pytest.raises(ConfigError, match=r"(?s)files: ReadFile.*--allow-file-operations"),
        serving({"m": tmp_path / "m"}),
    ):
        pass
    with serving({"m": tmp_path / "m"}, allow_file_operations=True) as server:
        found = server.predict("m", {"instances": [str(secret)]})
        assert found == (200, {"predictions": ["secret"]})


def test_a_graph_that_calls_its_program_is_refused_with_advice(tmp_path):
    def call(kernel, x):
        return {"y": tf.py_function(lambda a: a * 2, [x], tf.float32)}

    write(tmp_path / "m" / "1", call)
    with (
        pytest.raises(ConfigError, match="calls back into Python .EagerPyFunc.*replace") as caught,
        serving({"m": tmp_path / "m"}),
    ):
        pass
    assert "--allow-file-operations" not in str(caught.value)


def warm(folder, name, array):
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    (folder / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(folder / "assets.extra/tf_serving_warmup_requests")) as writer:
        writer.write(log.SerializeToString())


def test_warm_up_requests_run_before_a_version_answers(base):
    warm(base / "1", "x", np.zeros((1, 3), "float32"))
    with serving({"m": base}) as server:
        assert factor(server) == 1


def test_a_version_whose_warm_up_fails_is_not_served(base):
    warm(base / "1", "z", np.zeros((1, 3), "float32"))
    with (
        pytest.raises(ConfigError, match=r"warm-up record 1: .* takes the inputs \['x'\]"),
        serving({"m": base}),
    ):
        pass
