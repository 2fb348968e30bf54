"""Publishing under real faults, and the way back."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_shared
from keras_shared.cli import main
from keras_shared.exporting.checks import check_saved_model
from keras_shared.layers import TiedDense, TiedEinsumDense
from keras_shared.presets.names import (
    LoadError,
    entry_dir,
    entry_names,
    preset_dirs,
    version_dir,
    version_numbers,
)
from keras_shared.presets.publishing import PublishError
from keras_shared.zoo import LeNet5, SiameseNet, TiedAutoencoder

X = np.random.default_rng(0).random((3, 6)).astype("float32")


def small():
    return TiedAutoencoder(units=(4, 2), input_dim=6)


@pytest.fixture
def published(tmp_path):
    model = small()
    model.compile("adam", "mse")
    model.fit(X, X, verbose=0)
    base = tmp_path / "small"
    return model, base, keras_shared.publish(model, base)


def files(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.mark.slow
def test_folder_holds_what_serves_and_what_fine_tunes(published):
    model, base, version = published
    assert version == base / "1"
    assert set(files(version)) == {
        "fingerprint.pb", "saved_model.pb", "variables/variables.index",
        "variables/variables.data-00000-of-00001", "assets.extra/model.keras",
        "assets.extra/tf_serving_warmup_requests", "assets.extra/sharing.json",
    }  # fmt: skip
    shares = json.loads((version / "assets.extra" / "sharing.json").read_text())
    assert shares["totals"] == {"parameters": 48, "parameters_without_sharing": 80}
    first = {"encoder_1": {"form": "as is", "times": 1},
             "decoder_1": {"form": "transposed", "times": 1}}  # fmt: skip
    assert shares["weights"][0]["readers"] == first and shares["weights"][0]["uses"] == 2
    with zipfile.ZipFile(version / "assets.extra" / "model.keras") as inner:
        assert inner.getinfo("model.weights.h5").file_size < 40_000
    loaded = keras_shared.load(base)
    assert not getattr(loaded, "optimizer", None)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    inside = keras.models.load_model(version / "assets.extra" / "model.keras")
    assert isinstance(inside, TiedAutoencoder)


@pytest.mark.slow
def test_optimizer_state_stays_behind(tmp_path):
    model = TiedAutoencoder(units=(64, 32), input_dim=100)
    model.compile("adam", "mse")
    model.fit(np.zeros((4, 100)), np.zeros((4, 100)), verbose=0)
    version = keras_shared.publish(model, tmp_path / "m")
    model.save(tmp_path / "whole.keras")
    inner = version / "assets.extra" / "model.keras"
    assert inner.stat().st_size < 0.5 * (tmp_path / "whole.keras").stat().st_size


@pytest.mark.slow
def test_warmup_requests_are_replayed(tmp_path):
    from tensorflow_serving.apis import prediction_log_pb2

    version = keras_shared.publish(LeNet5("modern"), tmp_path / "m")
    path = str(version / "assets.extra" / "tf_serving_warmup_requests")
    loaded = tf.saved_model.load(str(version))
    names = []
    for record in tf.data.TFRecordDataset(path):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        names.append(request.model_spec.signature_name)
        inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
        assert loaded.signatures[names[-1]](**inputs)["scores"].shape == (1, 10)
    assert names == ["classify", "classify_bytes"]


@pytest.mark.slow
def test_fine_tune_and_publish_again(published):
    model, base, _ = published
    tuned = keras_shared.load(base)
    tuned.compile("sgd", "mse")
    tuned.fit(X, X, epochs=2, verbose=0)
    kernel = tuned.encoder.get_layer("encoder_1").kernel
    before = tuned.decode(np.ones((1, 2)))
    kernel.assign(kernel + 1)
    assert np.abs(tuned.decode(np.ones((1, 2))) - before).max() > 1e-3  # still tied
    assert keras_shared.publish(tuned, base) == base / "2"
    np.testing.assert_array_equal(keras_shared.load(base).encode(X), tuned.encode(X))
    np.testing.assert_array_equal(keras_shared.load(base, version=1).encode(X), model.encode(X))


@pytest.mark.slow
def test_a_number_is_never_used_twice(published):
    model, base, _ = published
    (base / "007").mkdir()
    assert keras_shared.publish(model, base).name == "8"
    shutil.rmtree(base / "8")
    shutil.rmtree(base / "007")
    assert keras_shared.publish(model, base).name == "9"
    assert version_numbers(base) == [1, 9]


@pytest.mark.slow
def test_quantised_and_mixed_models_are_published(tmp_path):
    model = TiedAutoencoder(units=(32, 8), input_dim=64)
    model.quantize("int8")
    base = tmp_path / "q"
    keras_shared.publish(model, base)
    x = np.random.default_rng(0).random((2, 64))
    np.testing.assert_allclose(
        keras_shared.load(base).predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
    )
    assert keras_shared.load(base).get_config() == model.get_config()
    assert keras_shared.publish(keras_shared.load(base), base).name == "2"
    for number, net in enumerate((LeNet5(), LeNet5("modern"), SiameseNet())):
        net.quantize("int8")
        keras_shared.publish(net, tmp_path / str(number) / "net")
    half = TiedAutoencoder(units=(8,), input_dim=16, dtype="mixed_bfloat16")
    assert keras_shared.publish(half, tmp_path / "h").name == "1"


def adapted(source, kernel="kernel"):
    source.enable_lora(2)
    factor = getattr(source, f"lora_{kernel}_b")
    factor.assign(0.1 * np.random.default_rng(1).normal(size=factor.shape))


def quantised_table():
    ids = keras.Input((6,), dtype="int32")
    table = keras.layers.Embedding(9, 4, name="table")
    return keras.Model(ids, TiedDense(table, name="logits")(table(ids))), table, "embeddings"


def quantised_heads():
    x = keras.Input((3, 6))
    heads = keras.layers.EinsumDense("bti,ihd->bthd", (3, 2, 3), name="heads")
    return keras.Model(x, heads(x)), heads, "kernel"


def quantised_autoencoder():
    model = small()
    return model, model.encoder.get_layer("encoder_1"), "kernel"


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["int8", pytest.param("int4", marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [quantised_table, quantised_heads, quantised_autoencoder])
def test_lora_of_a_quantised_layer_is_merged_before_it_is_published(make, mode, tmp_path):
    model, source, kernel = make()
    model.quantize(mode)
    adapted(source, kernel)
    with pytest.raises(PublishError, match=rf"'{source.name}'.* LoRA.*model\.save.*publish that"):
        keras_shared.publish(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    model.save(tmp_path / "model.keras")
    merged = keras_shared.load(tmp_path / "model.keras")
    assert keras_shared.publish(merged, tmp_path / "m").name == "1"


@pytest.mark.parametrize("mode", ["gptq", pytest.param("awq", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["dense", pytest.param("einsum", marks=pytest.mark.slow)])
def test_a_calibrated_model_is_exported_and_not_published(kind, mode, tmp_path):
    class Letters:
        def tokenize(self, text):
            return [ord(letter) % 20 for letter in text]

    ids = keras.Input((8,), dtype="int32")
    table, inward = keras.layers.Embedding(20, 16), keras.layers.Dense(7, name="inward")
    outward = TiedDense(inward)
    if kind == "einsum":
        inward = keras.layers.EinsumDense("btx,xhd->bthd", (8, 3, 5), name="inward")
        outward = TiedEinsumDense(inward)
    model = keras.Model(ids, outward(inward(table(ids))))
    config = {"gptq": keras.quantizers.GPTQConfig, "awq": keras.quantizers.AWQConfig}[mode]
    model.quantize(mode, config=config(
        dataset=["a b c d e f g h i j k l m n o p q r s t " * 4] * 2, tokenizer=Letters(),
        num_samples=2, sequence_length=8, group_size=-1,
        quantization_layer_structure={"pre_block_layers": [table], "sequential_blocks": [inward]},
    ))  # fmt: skip
    said = f"'inward' .* quantised as '{mode}', which Keras cannot save.*keras_shared.export"
    with pytest.raises(PublishError, match=said):
        keras_shared.publish(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    with pytest.raises(ValueError, match=said):
        keras_shared.load_weights(model, tmp_path / "m.weights.h5")
    for name in ("served", "m.onnx", "m.tflite"):
        assert keras_shared.export(model, tmp_path / name).exists()


@pytest.mark.slow
def test_a_saved_model_that_answers_otherwise_is_refused(published):
    model, _, version = published
    check_saved_model(model, version)
    kernel = model.encoder.get_layer("encoder_1").kernel
    kernel.assign(kernel * 1.01)
    with pytest.raises(ValueError, match="gives other outputs than Keras"):
        check_saved_model(model, version)


# Publishing in a process of its own whose files may not grow beyond a limit, or on a full disk.
PUBLISH = """
import resource, signal, sys
import keras_shared
from keras_shared.zoo import TiedAutoencoder
model = TiedAutoencoder(units=(200, 100), input_dim=300)
if len(sys.argv) > 2:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    print(keras_shared.publish(model, sys.argv[1]))
except keras_shared.presets.publishing.PublishError as error:
    print("PublishError:", error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [20_000, 150_000, 400_000])
def test_full_disk_by_a_limit_on_file_size(published, fresh_python, limit):
    """Falls into the graph, the variables and the Keras file in turn."""
    _, base, _ = published
    before = files(base)
    printed = fresh_python(PUBLISH, base, limit)
    if limit < 400_000:
        assert re.search(
            r"PublishError: 'tied_autoencoder' was not published.*untouched: \[1\]", printed
        )
        assert files(base) == before
        assert sorted(p.name for p in base.iterdir()) == [".last_version", "1"]
    else:
        assert printed.endswith("small/2")


@pytest.mark.slow
def test_full_disk_by_a_small_file_system(tmp_path, fresh_python):
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(mount)], capture_output=True
    )
    if done.returncode:
        pytest.skip("a small file system needs the right to mount one")
    try:
        base = mount / "m"
        keras_shared.publish(small(), base)
        before = files(base)
        assert "PublishError" in fresh_python(PUBLISH, base)
        assert files(base) == before
        assert keras_shared.load(base).predict(X, verbose=0).shape == (3, 6)
    finally:
        subprocess.run(["umount", str(mount)], check=True)


@pytest.mark.slow
def test_killed_while_publishing(published, tmp_path):
    """SIGKILL leaves no version; the next publish clears what TF Serving ignores."""
    model, base, _ = published
    before = files(base / "1")
    process = subprocess.Popen([sys.executable, "-c", PUBLISH, str(base)])
    while not list(base.glob(".new-*/version/saved_model.pb")):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert version_numbers(base) == [1] and files(base / "1") == before
    assert list(base.glob(".new-*"))
    assert keras_shared.publish(model, base) == base / "2"
    assert not list(base.glob(".new-*"))


@pytest.mark.slow
def test_two_publishers_at_once(published):
    _, base, _ = published
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH, str(base)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    printed = sorted(p.communicate(timeout=120)[0].strip() for p in processes)
    assert printed == [str(base / "2"), str(base / "3")]


def test_no_permission_and_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="was not published in .*file"):
        keras_shared.publish(small(), tmp_path / "file")


@pytest.mark.slow
def test_half_deleted_and_corrupt_versions(published):
    model, base, first = published
    second = keras_shared.publish(model, base)
    inner = second / "assets.extra" / "model.keras"
    content = inner.read_bytes()
    inner.write_bytes(content[: len(content) // 2])
    with pytest.raises(LoadError, match=r"is corrupt.*Other versions there: \[1\]"):
        keras_shared.load(base)
    inner.unlink()
    (second / "saved_model.pb").rename(base / "kept")
    with pytest.raises(
        LoadError, match=r"no saved_model.pb: it is half deleted.*versions there: \[1"
    ):
        keras_shared.load(second)
    (base / "kept").rename(second / "saved_model.pb")
    with pytest.raises(
        LoadError, match=r"no assets.extra/model.keras.*Other versions there: \[1\]"
    ):
        keras_shared.load(base)
    assert keras_shared.load(base, version=1).count_params() == model.count_params()
    assert keras_shared.load(first).count_params() == model.count_params()
    with pytest.raises(LoadError, match=r"no version 5. It has: \[1, 2\]"):
        keras_shared.load(base, version=5)


@pytest.mark.slow
def test_damaged_bits_inside_the_weights(published):
    _, base, version = published
    inner = version / "assets.extra" / "model.keras"
    content = bytearray(inner.read_bytes())
    content[len(content) // 2] ^= 0xFF
    inner.write_bytes(bytes(content))
    with pytest.raises(LoadError, match="is corrupt"):
        keras_shared.load(base)


def test_nothing_to_load(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LoadError, match="holds no version.*It holds: \\[\\]"):
        keras_shared.load(tmp_path / "empty")
    with pytest.raises(LoadError, match="There is no file or folder"):
        keras_shared.load(tmp_path / "missing")
    with pytest.raises(LoadError, match="There is no file"):
        keras_shared.load(tmp_path / "missing.keras")
    with pytest.raises(LoadError, match="has no versions. Received: version=7"):
        keras_shared.load(tmp_path / "missing.keras", version=7)
    with pytest.raises(ValueError, match="Did you mean 'siamese_omniglot'"):
        keras_shared.load("siamese_omniglott")
    with pytest.raises(ValueError, match="There are: "):
        LeNet5.from_preset("zzzz")
    with pytest.raises(ValueError, match="holds a TiedAutoencoder, not a SiameseNet"):
        SiameseNet.from_preset("tied_autoencoder_mnist")


def test_a_folder_without_versions_does_not_hide_a_published_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("lenet5_mnist").mkdir()
    assert isinstance(keras_shared.load("lenet5_mnist"), LeNet5)


@pytest.mark.slow
def test_a_version_number_is_no_place_for_versions(published):
    model, _, version = published
    with pytest.raises(ValueError, match="is a version itself"):
        keras_shared.publish(model, version)


def test_a_model_that_cannot_be_loaded_again_is_not_published(tmp_path):
    """One Dense in two sub-models: Keras saves it, and cannot load it."""
    tower = keras.layers.Dense(3)
    x, y, inputs = keras.Input((6,)), keras.Input((6,)), keras.Input((6,))
    left, right = keras.Model(x, tower(x), name="left"), keras.Model(y, tower(y), name="right")
    model = keras.Model(inputs, keras.layers.Add()([left(inputs), right(inputs)]))
    with pytest.raises(PublishError, match="cannot be loaded again.*TiedLayer"):
        keras_shared.publish(model, tmp_path / "m")
    assert not [*tmp_path.iterdir()]  # nor the folder that was made for it
    (tmp_path / "m").mkdir()
    with pytest.raises(PublishError, match="cannot be loaded again"):
        keras_shared.publish(model, tmp_path / "m")
    assert [*tmp_path.iterdir()] == [tmp_path / "m"]  # that of another stays


@pytest.mark.parametrize("built", [False, True])
def test_a_layer_is_wrapped_to_be_published(built, tmp_path):
    layer = keras.layers.Dense(2, name="d")
    if built:
        layer(np.ones((1, 4), "float32"))
    for given in (None, [keras.InputSpec(shape=(None, 4), dtype="float32")]):
        with pytest.raises(ValueError, match="Received: Dense 'd', a layer. Wrap it: keras.Seq"):
            keras_shared.publish(layer, tmp_path / "m", given)
    assert not [*tmp_path.iterdir()]
    model = keras.Sequential([keras.Input((4,)), layer])  # as advised
    assert keras_shared.publish(model, tmp_path / "m").name == "1"


def test_a_model_that_loses_values_on_the_way_is_not_published(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class Forgetful(keras.layers.Layer):
        def build(self, input_shape):
            self.shift = self.add_weight(shape=(), initializer="zeros")

        def call(self, inputs):
            return inputs + self.shift

        def save_own_variables(self, store):
            pass

        def load_own_variables(self, store):
            pass

    inputs = keras.Input((6,))
    model = keras.Model(inputs, Forgetful(name="forgetful")(inputs))
    keras_shared.publish(model, tmp_path / "m")  # nothing to lose yet
    model.layers[-1].shift.assign(1.0)
    with pytest.raises(PublishError, match="other outputs than Keras: 'loaded again"):
        keras_shared.publish(model, tmp_path / "m")
    assert version_numbers(tmp_path / "m") == [1]


LARGE = ("shared_transformer", "siamese", "tied_lm")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * n.startswith(LARGE)) for n in entry_names()],
)
def test_published_entries(name):
    """What is committed: one version, and it answers as Keras does, also at batch 1, 2, 17."""
    assert len(version_numbers(preset_dirs()[name])) == 1
    model = keras_shared.load(name)
    check_saved_model(model, version_dir(name))
    assert (entry_dir(name) / "metrics.json").exists()


def test_all_entries_are_small():
    folders = [preset_dirs()[name] for name in entry_names()]
    size = sum(p.stat().st_size for f in folders for p in pathlib.Path(f).rglob("*") if p.is_file())
    assert size < 60e6  # 21 of them are the words of a language model


@pytest.mark.slow
def test_nothing_of_ours_is_needed_to_serve(fresh_python):
    code = """
import sys, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
print(sorted(model.signatures), "keras_shared" in sys.modules)
"""
    printed = fresh_python(code, version_dir("lenet5_mnist"))
    assert printed == "['classify', 'classify_bytes', 'serving_default'] False"
    assert os.path.exists(version_dir("lenet5_mnist") / "saved_model.pb")


@pytest.mark.slow
def test_images_of_any_size_are_published_with_bytes(tmp_path, monkeypatch, capsys):
    """A net that resizes nothing: each image of a request keeps its size, also in one batch."""
    tower = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D()]
    )
    model = SiameseNet(tower, image_shape=(None, None, 3))
    with pytest.warns(UserWarning, match="dimensions of unknown size .* with batching on"):
        version = keras_shared.publish(model, tmp_path / "open")
    served = tf.saved_model.load(str(version)).signatures
    random = np.random.default_rng(0)
    pairs = [[random.integers(0, 256, (*size, 3), "uint8") for size in sizes]
             for sizes in (((9, 12), (7, 8)), ((20, 6), (5, 5)))]  # fmt: skip
    sent = [tf.constant([tf.io.encode_png(pair[i]).numpy() for pair in pairs]) for i in (0, 1)]
    answer = served["verify_bytes"](image_a_bytes=sent[0], image_b_bytes=sent[1])
    expected = [model.verify(a[None], b[None])[0] for a, b in pairs]
    np.testing.assert_allclose(answer["probability"], expected, atol=1e-5)
    embedded = served["embed_bytes"](image_bytes=sent[0])["embedding"]
    np.testing.assert_allclose(
        embedded, np.concatenate([model.embed(a[None]) for a, _ in pairs]), atol=1e-5
    )
    monkeypatch.chdir(tmp_path)
    for i, picture in enumerate(pairs[0]):
        (tmp_path / f"{i}.png").write_bytes(tf.io.encode_png(picture).numpy())
    assert main(["verify", "0.png", "1.png", "--model", "open"]) == 0
    assert f"probability {expected[0]:.4g}" in capsys.readouterr().out


@keras.saving.register_keras_serializable("tests")
class MeanOfBatch(keras.layers.Layer):
    def call(self, inputs):
        return keras.ops.mean(inputs)

    def compute_output_shape(self, shape):
        return ()


def test_what_tf_serving_cannot_batch_is_published_with_a_warning(tmp_path):
    x = keras.Input((3,), name="x")
    scores = keras.layers.Dense(2, name="y")(x)
    model = keras.Model(x, {"y": scores, "mean": MeanOfBatch(name="mean")(scores)})
    with pytest.warns(UserWarning, match="dimension 0 is not the batch of 1: .*--no-batching"):
        version = keras_shared.publish(model, tmp_path / "m")
    answer = tf.saved_model.load(str(version)).signatures["serving_default"](x=tf.ones((4, 3)))
    assert answer["mean"].shape == () and answer["y"].shape == (4, 2)


def test_rows_that_depend_on_each_other_are_published_with_a_warning(tmp_path):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, keras.layers.UnitNormalization(axis=0, name="y")(x))
    with pytest.warns(UserWarning, match="depends on the other rows of its batch.*--no-batching"):
        keras_shared.publish(model, tmp_path / "m")


def test_a_whole_model_in_an_h5_file(tmp_path):
    model = TiedAutoencoder(units=(8, 2), input_dim=12)
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    plain.save(tmp_path / "old.h5")
    again = keras_shared.load(tmp_path / "old.h5")
    np.testing.assert_array_equal(again(np.ones((1, 3))), plain(np.ones((1, 3))))
    model.save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(LoadError, match="weights alone: build the model.*load_weights.*.keras"):
        keras_shared.load(tmp_path / "w.weights.h5")
    (tmp_path / "bad.h5").write_text("no file of HDF5")
    with pytest.raises(LoadError, match="bad.h5 is corrupt and cannot be loaded"):
        keras_shared.load(tmp_path / "bad.h5")
