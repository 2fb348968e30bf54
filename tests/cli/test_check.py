"""`keras-shared check` as a command: what it shows is text, what it runs is chosen."""

import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_shared.cli import main
from keras_shared.serving.limits import SECONDS


@pytest.fixture
def strange(tmp_path):
    """A model with a strange name and a strange signature, which reads a file."""

    class Strange(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), name="x")])
        def call(self, x):
            return {
                "y": x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), "float32")
            }

    module = Strange()
    folder = tmp_path / "[red]x[bold]" / "1"
    tf.saved_model.save(module, str(folder), {"q[link=http://a.b]\x1b[31m[b]": module.call})
    return folder


@pytest.mark.slow
def test_names_are_shown_as_text(strange, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["check", str(strange.parent)]) == 1
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert r"there are: ['q[link=http://a.b]\x1b[31m[b]']" in printed
    assert "(files: ReadFile), and was not run" in printed
    assert "[red]x[bold]: TF Serving would fail" in printed


@pytest.mark.slow
def test_static_and_trusted(strange, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    main(["check", str(strange), "--static", "--timeout", "100"])
    assert "was not run" not in capsys.readouterr().out
    main(["check", str(strange), "--trusted"])
    assert "this" in capsys.readouterr().out


def test_a_timeout_that_is_none(strange, capsys):
    with pytest.raises(SystemExit):
        main(["check", str(strange), "--timeout", "-1"])
    assert "expected a number from 0.1 to 1000000. Received: '-1'" in capsys.readouterr().err


def test_what_was_not_run_is_not_called_servable(tmp_path, capsys):
    module = tf.Module()
    module.f = tf.function(
        lambda x: {"y": x + tf.cast(tf.strings.length(tf.io.read_file("a")), tf.float32)},
        input_signature=[tf.TensorSpec([None], tf.float32, name="x")],
    )
    tf.saved_model.save(module, tmp_path / "m" / "1", signatures={"serving_default": module.f})
    for options in ([], ["--static"]):
        assert main(["check", str(tmp_path / "m"), *options]) == 0
        assert "no error was found; it was not run" in capsys.readouterr().out


def test_what_fails_with_made_up_inputs_is_not_called_servable(tmp_path, capsys):
    module = tf.Module()
    module.f = tf.function(
        lambda x: {"y": tf.io.parse_tensor(x[0], tf.float32)},
        input_signature=[tf.TensorSpec([None], tf.string, name="x")],
    )
    tf.saved_model.save(module, tmp_path / "m" / "1", signatures={"serving_default": module.f})
    assert main(["check", str(tmp_path / "m")]) == 0
    assert "no error was found; not all of it was run" in capsys.readouterr().out


def test_what_needs_a_library_that_is_not_here_is_not_called_servable(tmp_path, capsys):
    module = tf.Module()
    module.f = tf.function(
        lambda x: {"y": tf.identity(x)},
        input_signature=[tf.TensorSpec([None], tf.string, name="x")],
    )
    folder = tmp_path / "m" / "1"
    tf.saved_model.save(module, folder, signatures={"serving_default": module.f})
    graph = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for function in graph.meta_graphs[0].graph_def.library.function:
        for node in function.node_def:
            node.op = "CaseFoldUTF8" if node.op == "Identity" else node.op
    (folder / "saved_model.pb").write_bytes(graph.SerializeToString())
    assert main(["check", str(tmp_path / "m")]) == 0
    assert "no error was found; it was not run" in capsys.readouterr().out


def test_the_help_names_the_limit(capsys):
    with pytest.raises(SystemExit):
        main(["check", "--help"])
    assert f"(default: {SECONDS:g})" in capsys.readouterr().out
