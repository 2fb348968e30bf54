"""Every exported signature answers in TF Serving's kind of session with Keras' numbers."""

import os
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_shared
from keras_shared.exporting.checks import _noise
from keras_shared.layers import PositionEmbedding, Shared, TiedDense
from keras_shared.zoo import LeNet5, SiameseNet, TiedAutoencoder

RANDOM = np.random.default_rng(4)
MODELS = {
    "siamese": lambda: SiameseNet(image_shape=(20, 24, 3)),
    "autoencoder": lambda: TiedAutoencoder(units=(8, 3), input_dim=16),
    "lenet_1998": lambda: LeNet5(),
    "lenet_modern": lambda: LeNet5("modern", class_names=("a", "b", "c")),
}


class Served:
    """A SavedModel as TF Serving sees it: a graph and a session."""

    def __init__(self, path):
        with tf.Graph().as_default() as graph:
            self.session = tf.compat.v1.Session(graph=graph)
            self.meta = tf.compat.v1.saved_model.load(self.session, ["serve"], str(path))

    def __call__(self, signature, **inputs):
        served = self.meta.signature_def[signature]
        assert set(served.inputs) == set(inputs)
        feed = {served.inputs[k].name: v for k, v in inputs.items()}
        return self.session.run({k: t.name for k, t in served.outputs.items()}, feed)


def png(images):
    return np.array([tf.io.encode_png(i).numpy() for i in images.astype("uint8")], object)


def bytes_of_weights(path):
    return os.path.getsize(path / "variables" / "variables.data-00000-of-00001")


def number_bytes(model):
    return sum(int(np.prod(v.shape)) * 4 for v in model.variables)


@pytest.fixture(scope="module", params=MODELS)
def exported(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "m"
    model = MODELS[request.param]()
    model.export(path)
    return model, Served(path), path


@pytest.mark.slow
def test_each_weight_is_stored_once(exported):
    model, _, path = exported
    assert number_bytes(model) <= bytes_of_weights(path) < number_bytes(model) + 3000


@pytest.mark.parametrize("batch", [1, 2, 17])
def test_signatures_answer_as_keras_does(exported, batch):
    model, served, _ = exported
    default = served.meta.signature_def["serving_default"]
    if isinstance(model, SiameseNet):
        a, b = RANDOM.integers(0, 256, (2, batch, 20, 24, 3)).astype("float32")
        expected = model.verify(a, b)
        out = served("verify", image_a=a, image_b=b)
        assert out["probability"].shape == out["distance"].shape == (batch,)
        np.testing.assert_allclose(out["probability"], expected, atol=1e-5)
        out = served("verify_bytes", image_a_bytes=png(a), image_b_bytes=png(b))
        np.testing.assert_allclose(out["probability"], expected, atol=1e-5)
        embedding = model.embed(a)
        np.testing.assert_allclose(served("embed", image=a)["embedding"], embedding, atol=1e-5)
        out = served("embed_bytes", image_bytes=png(a))["embedding"]
        np.testing.assert_allclose(out, embedding, atol=1e-5)
        assert set(default.inputs) == {"image_a", "image_b"}
    elif isinstance(model, TiedAutoencoder):
        x, z = RANDOM.random((batch, 16), "float32"), RANDOM.random((batch, 3), "float32")
        out = served("reconstruct", inputs=x)["reconstruction"]
        np.testing.assert_allclose(out, model.predict(x, verbose=0), atol=1e-5)
        np.testing.assert_allclose(served("encode", inputs=x)["code"], model.encode(x), atol=1e-5)
        out = served("decode", code=z)["reconstruction"]
        np.testing.assert_allclose(out, model.decode(z), atol=1e-5)
        assert set(default.outputs) == {"reconstruction"}
    else:
        x = RANDOM.integers(0, 256, (batch, 28, 28, 1)).astype("float32")
        scores = model.predict(x, verbose=0)
        for out in (served("classify", image=x), served("classify_bytes", image_bytes=png(x))):
            np.testing.assert_allclose(out["scores"], scores, rtol=1e-5, atol=1e-5)
            best = [model.class_names[i].encode() for i in scores.argmax(-1)]
            assert out["label"].tolist() == best
            assert out["classes"].tolist() == [[n.encode() for n in model.class_names]] * batch
        assert set(default.outputs) == {"scores", "classes", "label"}


@pytest.mark.slow
def test_encoded_images_of_other_kinds_and_sizes(tmp_path):
    model = LeNet5("modern")
    model.export(tmp_path / "m")
    image = np.full((50, 40, 3), 200, "uint8")
    contents = np.array(
        [tf.io.encode_jpeg(image).numpy(), tf.io.encode_png(image[:9, :9, :1]).numpy()], object
    )
    scores = Served(tmp_path / "m")("classify_bytes", image_bytes=contents)["scores"]
    flat = model.predict(np.full((1, 28, 28, 1), 200.0), verbose=0)
    np.testing.assert_allclose(scores, np.repeat(flat, 2, 0), atol=1e-2)


@pytest.mark.slow
def test_a_reader_always_finds_an_export(tmp_path):
    path, missed, done = tmp_path / "m" / "saved_model.pb", [], threading.Event()
    TiedAutoencoder(units=(3,), input_dim=4).export(tmp_path / "m")

    def watch():
        while not done.is_set():
            if not path.exists():
                missed.append(time.time())

    reader = threading.Thread(target=watch)
    reader.start()
    try:
        for _ in range(3):
            TiedAutoencoder(units=(3,), input_dim=4).export(tmp_path / "m")
    finally:
        done.set()
        reader.join()
    assert not missed


KILLED = """
import sys
from keras_shared.zoo import TiedAutoencoder
model = TiedAutoencoder(units=(3,), input_dim=4)
print("begun", flush=True)
while True:
    model.export(sys.argv[1])
"""


@pytest.mark.slow
def test_a_killed_export_leaves_a_whole_one_and_the_next_sweeps(tmp_path):
    model = TiedAutoencoder(units=(3,), input_dim=4)
    model.export(tmp_path / "m")
    left = 0
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, tmp_path / "m"], stdout=subprocess.PIPE
        )
        writer.stdout.readline()
        time.sleep(np.random.default_rng().uniform(0.1, 2))
        writer.kill()
        writer.wait()
        left += len(list(tmp_path.iterdir())) - 1
        Served(tmp_path / "m")("encode", inputs=np.zeros((1, 4), "float32"))
    assert left  # or nothing was seen
    model.export(tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.slow
def test_export_replaces_and_leaves_nothing_beside(tmp_path):
    for units in ((3,), (5, 2)):
        TiedAutoencoder(units=units, input_dim=4).export(tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    out = Served(tmp_path / "m")("encode", inputs=np.zeros((1, 4), "float32"))
    assert out["code"].shape == (1, 2)
    with pytest.raises(ValueError, match="writes the signatures .*'reconstruct'.*no .'input_sig"):
        TiedAutoencoder().export(tmp_path / "m", input_signature=[1])


@pytest.mark.slow
def test_export_refuses_to_erase_other_things(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    model = TiedAutoencoder(units=(3,), input_dim=4)
    with pytest.raises(ValueError, match="no SavedModel, and would be lost"):
        model.export(tmp_path)
    base = keras_shared.publish(model, tmp_path / "m").parent
    with pytest.raises(ValueError, match="use keras_shared.publish"):
        model.export(base)
    assert (tmp_path / "thesis.txt").exists() and (base / "1" / "saved_model.pb").exists()


@pytest.mark.slow
def test_each_output_of_a_layer_that_gives_several(tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    shared = Shared(layers.Dense(2), name="twin")
    x = np.arange(6, dtype="float32").reshape(2, 3)
    model = keras.Model([a, b], shared([a, b]))
    out = Served(keras_shared.publish(model, tmp_path / "list"))("serving_default", a=x, b=-x)
    first, second = model.predict([x, -x], verbose=0)
    np.testing.assert_allclose(out["twin"], first, atol=1e-6)
    np.testing.assert_allclose(out["twin_1"], second, atol=1e-6)
    nested = keras.Model([a, b], {"pair": shared({"left": a, "right": b}), "a": a})
    out = Served(keras_shared.publish(nested, tmp_path / "dict"))("serving_default", a=x, b=-x)
    assert set(out) == {"pair_left", "pair_right", "a"}
    np.testing.assert_allclose(out["pair_right"], second, atol=1e-6)


@pytest.mark.slow
def test_other_functional_models(tmp_path):
    """Several inputs and outputs of other types, and a decoder whose source lies elsewhere."""
    ids = keras.Input((3,), dtype="int32", name="ids")
    more = keras.Input((None, 4), name="more")
    table = layers.Embedding(7, 4, name="table")
    joined = layers.Concatenate(axis=1)([table(ids), more])
    tied = TiedDense(table, name="title")(joined)
    model = keras.Model(
        {"ids": ids, "more": more}, [tied, layers.GlobalMaxPooling1D(name="m")(more)]
    )
    path = keras_shared.publish(model, tmp_path / "several")
    served = Served(path)
    x = {"ids": np.array([[1, 2, 3]], "int32"), "more": np.ones((1, 5, 4), "float32")}
    out = served("serving_default", **x)
    for value, expected in zip(sorted(out.items()), model.predict(x, verbose=0)[::-1], strict=True):
        np.testing.assert_allclose(value[1], expected, atol=1e-5)

    code = keras.Input((4,), name="code")
    decoder = keras.Model(code, TiedDense(table, name="logits")(code))
    decoder.export(tmp_path / "keras_export", verbose=False)
    from keras_shared.exporting.saved_model import replace_saved_model

    replace_saved_model(decoder, tmp_path / "decoder")
    out = Served(tmp_path / "decoder")("serving_default", code=np.ones((2, 4), "float32"))
    np.testing.assert_allclose(out["logits"], decoder(np.ones((2, 4), "float32")), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("places", [1, 10, 40])
def test_a_model_with_few_places_in_a_sequence(places, tmp_path):
    """Its open side is tried as long as it may be."""
    steps = keras.Input((None, 4))
    model = keras.Model(steps, layers.Dense(3)(PositionEmbedding(places)(steps)))
    version = keras_shared.publish(model, tmp_path / "m")
    served = tf.saved_model.load(version).signatures["serving_default"]
    x = np.random.default_rng(0).normal(size=(2, places, 4)).astype("float32")
    [answer] = served(tf.constant(x)).values()
    np.testing.assert_allclose(answer, model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_sequential_and_a_model_without_inputs(tmp_path):
    built = keras.Sequential([keras.Input((3,), name="x"), layers.Dense(2, name="y")])
    out = Served(keras_shared.publish(built, tmp_path / "s"))(
        "serving_default", x=np.ones((1, 3), "float32")
    )
    np.testing.assert_allclose(out["y"], built(np.ones((1, 3))), atol=1e-6)
    unnamed = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="y")])
    path = keras_shared.publish(unnamed, tmp_path / "u")
    assert "y" in Served(path)("serving_default", inputs=np.ones((1, 3), "float32"))
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, name="y")(inputs))
    name = model.layers[0].name
    path = keras_shared.publish(model, tmp_path / "f")
    assert "y" in Served(path)("serving_default", **{name: np.ones((1, 3), "float32")})
    with pytest.raises(ValueError, match="known inputs.*Received: 'sequential"):
        keras_shared.publish(keras.Sequential([layers.Dense(2)]), tmp_path / "n")
    assert not (tmp_path / "n").exists()


@pytest.mark.slow
def test_no_output_is_lost_where_names_meet(tmp_path):
    x = keras.Input((4, 3))
    first, second = (layers.LSTM(n, return_state=True, name=k) for n, k in ((2, "a"), (3, "a_1")))
    model = keras.Model(x, [*first(x), *second(x)])
    model_of_dicts = keras.Model(x, {"a_b": first(x)[0], "a": {"b": second(x)[0]}})
    for number, one in enumerate((model, model_of_dicts)):
        keras_shared.export(one, tmp_path / f"{number}")
        served = Served(tmp_path / f"{number}")
        given = np.ones((2, 4, 3), "float32")
        answers = served(
            "serving_default",
            **{next(iter(served.meta.signature_def["serving_default"].inputs)): given},
        )
        expected = keras.tree.flatten(one(given))
        assert len(answers) == len(expected)
        for value in expected:
            assert any(
                value.shape == a.shape and np.allclose(value, a, atol=1e-5)
                for a in answers.values()
            )


@keras.saving.register_keras_serializable("tests")
class Sampling(layers.Layer):
    """As in the autoencoders of Keras' pages: it draws in inference too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1337)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seed_generator)


@pytest.mark.slow
def test_models_that_draw_or_answer_nan_are_exported(tmp_path):
    x = keras.Input((4,))
    drawing = keras.Model(x, Sampling()(layers.Dense(3)(x)))
    ids = keras.Input((5,), dtype="int32")
    pooled = layers.GlobalAveragePooling1D()(layers.Embedding(9, 4, mask_zero=True)(ids))
    averaging = keras.Model(ids, layers.Dense(2)(pooled))  # of no token: 0 / 0
    for number, one in enumerate((drawing, averaging)):
        keras_shared.export(one, tmp_path / f"{number}")
        assert keras_shared.publish(one, tmp_path / f"published{number}").name == "1"


@keras.saving.register_keras_serializable("tests")
class Other(layers.Layer):
    """Computes something else in a graph, and masks its last column."""

    def __init__(self, masked=0.0, **kwargs):
        super().__init__(**kwargs)
        self.masked = masked

    def call(self, x):
        y = x if tf.executing_eagerly() else 2 * x + 1
        return keras.ops.concatenate([y, keras.ops.full_like(y[:, :1], self.masked)], axis=-1)


@pytest.mark.parametrize("masked", [0.0, -1e9, -np.inf, np.nan])
def test_what_is_masked_hides_no_difference(tmp_path, masked):
    x = keras.Input((4,))
    with pytest.raises(ValueError, match="gives other outputs than Keras"):
        keras_shared.export(keras.Model(x, Other(masked)(x)), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_inside_of_a_strategy_nothing_is_written(tmp_path):
    x = keras.Input((2,))
    model = keras.Model(x, keras.layers.Dense(1)(x))
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        for write in (keras_shared.publish, keras_shared.export):
            with pytest.raises(ValueError, match="outside of `strategy.scope.*Leave the `with` bl"):
                write(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())
    assert keras_shared.publish(model, tmp_path / "model").name == "1"  # as it says


def test_what_follows_a_step_of_keras_is_told(tmp_path):
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(3, kernel_constraint="non_neg", name="held")(x))
    with pytest.warns(UserWarning, match=r"has a constraint: \['held/kernel'\]"):
        keras_shared.export(model, tmp_path / "m")
    model = keras.Model(x, layers.Dense(4, name="eight")(x))
    model.get_layer("eight").quantize("float8")
    with pytest.warns(UserWarning, match="has scales of float8, which are no weights"):
        keras_shared.export(model, tmp_path / "n")


def test_a_sequential_that_fixed_its_batch_is_told(tmp_path):
    model = keras.Sequential([layers.Dense(3)])
    model(np.zeros((7, 4)))
    with pytest.warns(UserWarning, match=r"takes \(7,\) rows alone.*Put keras.Input"):
        keras_shared.export(model, tmp_path / "m")


@pytest.mark.parametrize(
    ("name", "said"), [("a[1]/m", "for a pattern"), ("gs://b/m", "A folder of")]
)
def test_addresses_that_no_folder_has(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(3)(x))
    for write in (keras_shared.export, keras_shared.publish):
        with pytest.raises(ValueError, match=said):
            write(model, name)
    assert not [*tmp_path.iterdir()]


class Noisy(keras.layers.Layer):
    def call(self, x):
        return x + keras.random.uniform((1,), seed=3) * keras.ops.cast(
            keras.ops.shape(x)[0], "float32"
        )


def test_only_rounding_loosens_a_check():
    """Large numbers round by the size of the batch; another answer is no noise."""
    x = np.random.default_rng(0).normal(size=(7, 64)).astype("float32")
    inputs = keras.Input((64,))
    wide = keras.layers.Dense(512, kernel_initializer="random_normal")(1e4 * inputs)
    out = keras.layers.Dense(2)(wide) - keras.layers.Dense(2)(wide)
    plain, other = keras.Model(inputs, out), keras.Model(inputs, Noisy()(inputs))
    for model, least, most in ((plain, 0.0, 1e-3), (other, 0.0, 0.0)):

        def call(x, model=model):
            return {"y": model(x)}

        found = _noise(model, call(x), call, {"x": keras.ops.convert_to_tensor(x)})
        assert least <= found["y"] <= most
