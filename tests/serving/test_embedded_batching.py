"""Requests answered together."""

import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf

sys.path.insert(0, __file__.rpartition("/")[0])
from embedded_server import serving

from keras_shared.serving import Client, ServingError
from keras_shared.serving.batching_parameters import Batching, BatchingError, batching_of
from keras_shared.serving.configuration import configuration_files
from keras_shared.serving.embedded.batching import Batcher
from keras_shared.serving.embedded.options import ConfigError
from keras_shared.serving.embedded.refusal import Refused
from saved_models import write


def test_the_parameters_of_serve_are_read():
    files = configuration_files({"m": "/m"}, 3)
    assert batching_of(files["batching.config"]) == Batching(
        max_batch_size=1024, enable_large_batch_splitting=True, max_execution_batch_size=64,
        max_enqueued_batches=1000, num_batch_threads=3,
    )  # fmt: skip


def test_every_way_to_write_them():
    text = """
      # a comment { value: 1 }
      max_batch_size { value: 8 }, batch_timeout_micros: { value: 5 };
      allowed_batch_sizes: 2; allowed_batch_sizes: [4, 8]
      pad_variable_length_inputs: true
      thread_pool_name { value: "pool" }
    """
    read = batching_of(text)
    assert (read.max_batch_size, read.batch_timeout_micros) == (8, 5)
    assert read.allowed_batch_sizes == (2, 4, 8) and read.pad_variable_length_inputs
    assert batching_of("") == Batching()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch { value: 1 }", "no field named .max_batch"),
        ("max_batch_size { value: x }", "Couldn't parse integer: x"),
        ("max_batch_size { value: 0 }", "too small: {'max_batch_size': 0}"),
        ("max_batch_size", "Expected are parameters among"),
        ("max_batch_size: 8", "such as: max_batch_size { value: 8 }"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [2, 4]", "the last is 8"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [4, 2, 8]", "ascend"),
    ],
)
def test_parameters_that_cannot_be(text, message):
    with pytest.raises(BatchingError, match=message):
        batching_of(text)


class Runs:
    """What a batcher ran: doubles `x`, and fails for rows that are negative."""

    def __init__(self, pause=0.0):
        self.sizes, self.pause = [], pause

    def __call__(self, inputs, seconds):
        self.sizes.append(len(inputs["x"]))
        time.sleep(self.pause)
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return {"y": inputs["x"] * 2}


def batcher(runs, slots=1, **parameters):
    return Batcher(Batching(**parameters), threading.Semaphore(slots), runs)


def ask_all(call, requests, seconds=20.0):
    """Every request from a thread of its own: the outputs, or what was raised."""
    found = [None] * len(requests)
    gate = threading.Barrier(len(requests))

    def ask(i):
        gate.wait()
        try:
            found[i] = call({"x": requests[i]}, time.monotonic() + seconds)["y"]
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_requests_of_several_rows_get_their_own_back():
    runs = Runs()
    call = batcher(runs, batch_timeout_micros=300_000, max_batch_size=10)
    requests = [np.arange(n) + 10 * n for n in (1, 2, 3, 4)]
    for given, found in zip(requests, ask_all(call, requests), strict=True):
        np.testing.assert_array_equal(found, 2 * given)
    assert runs.sizes == [10]  # full before the time was over


def test_one_bad_request_spoils_no_other():
    runs = Runs()
    call = batcher(runs, batch_timeout_micros=300_000, max_batch_size=3)
    good, bad, other = ask_all(call, [np.array([1]), np.array([-1]), np.array([3])])
    assert good.tolist() == [2] and other.tolist() == [6]
    assert str(bad) == "negative" and runs.sizes == [3, 1, 1, 1]


def test_shapes_that_differ_are_not_put_together():
    call = batcher(Runs(), batch_timeout_micros=200_000, max_batch_size=2)
    a, b = ask_all(call, [np.ones((1, 2)), np.ones((1, 3))])
    assert a.shape == (1, 2) and b.shape == (1, 3)


def test_padding_if_it_is_asked_for():
    runs = Runs()
    call = batcher(
        runs, batch_timeout_micros=2_000_000, max_batch_size=2, pad_variable_length_inputs=True
    )
    a, b = ask_all(call, [np.full((1, 2), 5), np.full((1, 3), 7)])
    assert a.tolist() == [[10, 10, 10]] and b.tolist() == [[14, 14, 14]] and runs.sizes == [2]


def test_allowed_sizes_fill_a_batch_up():
    runs = Runs()
    call = batcher(runs, max_batch_size=8, allowed_batch_sizes=(4, 8))
    [found] = ask_all(call, [np.array([1, 2, 3])])
    assert found.tolist() == [2, 4, 6] and runs.sizes == [4]


def test_large_requests_are_split_or_refused():
    runs = Runs()
    call = batcher(
        runs, max_batch_size=16, enable_large_batch_splitting=True, max_execution_batch_size=4
    )
    [found] = ask_all(call, [np.arange(10)])
    assert found.tolist() == [2 * n for n in range(10)] and runs.sizes == [4, 4, 2]
    for parameters in ({}, {"enable_large_batch_splitting": True, "max_execution_batch_size": 2}):
        call = batcher(Runs(), max_batch_size=4, **parameters)
        [error] = ask_all(call, [np.arange(5)])
        assert "Task size 5 is larger than maximum input batch size 4" in str(error)


@pytest.mark.slow
def test_a_full_queue_and_a_late_answer():
    call = batcher(Runs(pause=0.3), max_batch_size=1, max_enqueued_batches=2)
    found = ask_all(call, [np.array([n]) for n in range(8)])
    full = [one for one in found if isinstance(one, Refused)]
    assert full and all(one.code == "UNAVAILABLE" for one in full)
    assert len([one for one in found if not isinstance(one, Refused)]) >= 3
    call = batcher(Runs(pause=0.5), max_batch_size=1)
    found = ask_all(call, [np.array([n]) for n in range(3)], seconds=0.7)
    late = [one for one in found if isinstance(one, Refused)]
    assert late and all(one.code == "DEADLINE_EXCEEDED" for one in late)


def test_who_joins_a_batch_waits_as_long_as_his_own_deadline_says():
    slots, found = threading.Semaphore(1), {}
    call = Batcher(Batching(), slots, Runs())

    def ask(name, seconds):
        try:
            found[name] = call({"x": np.ones(1)}, time.monotonic() + seconds)["y"].tolist()
        except Refused as refused:
            found[name] = refused.code

    slots.acquire()  # all are busy
    first = threading.Thread(target=ask, args=("first", 0.4))
    first.start()
    time.sleep(0.2)
    joined = threading.Thread(target=ask, args=("joined", 30))
    joined.start()
    time.sleep(0.5)
    slots.release()
    first.join()
    joined.join()
    assert found == {"first": "DEADLINE_EXCEEDED", "joined": [2.0]}
    assert slots.acquire(blocking=False) and not call._open and not call._waiting


def test_what_cannot_be_batched():
    later = time.monotonic() + 10
    call = batcher(Runs())
    with pytest.raises(Refused, match="must have at least one dimension"):
        call({"x": np.array(1)}, later)
    with pytest.raises(Refused, match="must have equal 0th-dimension size"):
        call({"x": np.zeros(1), "z": np.zeros(2)}, later)
    slots = threading.Semaphore(1)
    with pytest.raises(Refused, match="Batched output tensor has 0 dimensions"):
        Batcher(Batching(), slots, lambda *_: {"y": np.array(1)})({"x": np.zeros(1)}, later)
    with pytest.raises(Refused, match="0th dimension does not equal the sum"):
        Batcher(Batching(), slots, lambda *_: {"y": np.zeros(3)})({"x": np.zeros(1)}, later)


def test_a_server_that_batches(tmp_path):
    def sized(kernel, x):
        rows = tf.shape(x)[0]
        return {"y": x @ kernel, "size": tf.fill([rows], rows)}

    write(tmp_path / "m" / "1", sized)
    parameters = tmp_path / "batching.config"
    parameters.write_text("max_batch_size { value: 4 } batch_timeout_micros { value: 400000 }")
    with serving({"m": tmp_path / "m"}, batching_parameters_file=str(parameters)) as server:
        sizes, threads = [], []
        for _ in range(4):

            def ask():
                _, found = server.predict("m", {"instances": [[1, 2, 3]]})
                sizes.append(found["predictions"][0]["size"])

            threads.append(threading.Thread(target=ask))
            threads[-1].start()
        for thread in threads:
            thread.join()
        assert max(sizes) > 1


@pytest.mark.slow
def test_a_version_says_how_its_requests_are_answered_together(tmp_path):
    def sized(kernel, x):
        rows = tf.shape(x)[0]
        return {"y": x @ kernel, "size": tf.fill([rows], rows)}

    for name, own in (
        ("own", "allowed_batch_sizes: 4 max_batch_size { value: 4 }"),
        ("none", None),
    ):
        folder = tmp_path / name / "1"
        write(folder, sized)
        if own:
            (folder / "batching_params.pbtxt").write_text(own)
    (tmp_path / "all").write_text("allowed_batch_sizes: 8 max_batch_size { value: 8 }")
    folders = {name: tmp_path / name for name in ("own", "none")}
    for per_model, expected in ((False, {"own": 8, "none": 8}), (True, {"own": 4, "none": 1})):
        with serving(
            folders, batching_parameters_file=str(tmp_path / "all"),
            enable_per_model_batching_parameters=per_model,
        ) as server:  # fmt: skip
            found = {name: server.predict(name, {"instances": [[1, 2, 3]]})[1] for name in folders}
            assert {n: f["predictions"][0]["size"] for n, f in found.items()} == expected
    (tmp_path / "own" / "1" / "batching_params.pbtxt").write_text("max_batch_size: 4")
    together = {"batching_parameters_file": str(tmp_path / "all")}
    wrong = pytest.raises(ConfigError, match=r"own/1/batching_params.pbtxt holds no batching param")
    with wrong, serving(folders, enable_per_model_batching_parameters=True, **together):
        pass


def test_the_client_names_rows_of_unequal_number(tmp_path):
    a, b = (tf.TensorSpec((None, n), "float32", name) for n, name in ((3, "a"), (1, "b")))
    write(tmp_path / "m" / "1", lambda kernel, a, b: {"y": a @ kernel + b}, a, b)
    (tmp_path / "batching.config").write_text("max_batch_size { value: 4 }")
    batching = {"batching_parameters_file": str(tmp_path / "batching.config")}
    with serving({"m": tmp_path / "m"}, **batching) as server:
        for url in (server.rest, server.grpc):
            with Client(url) as client, pytest.raises(ServingError) as caught:
                client.predict("m", {"a": np.ones((2, 3)), "b": np.ones((1, 1))})
            assert "Received rows: {'a': 2, 'b': 1}" in str(caught.value)
