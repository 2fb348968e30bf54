import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_shared.layers import CenterInk
from keras_shared.losses import ContrastiveLoss, NPairLoss
from keras_shared.losses.contrastive_loss import contrastive_loss
from keras_shared.zoo import SiameseNet, calibration

RANDOM = np.random.default_rng(2)
A, B = RANDOM.integers(0, 256, (2, 6, 28, 28, 1))
SAME = np.array([0, 1, 1, 0, 1, 0])


def tiny_tower(size=8, channels=1, **kwargs):
    return keras.Sequential(
        [
            keras.Input((size, size, channels)),
            layers.Flatten(),
            layers.Dense(3, name="d", **kwargs),
        ],
        name="tiny",
    )


def test_parameters_and_by_hand():
    model = SiameseNet()
    assert model.tower.count_params() == 106_960 and model.count_params() == 106_962
    tower = tiny_tower()
    model = SiameseNet(tower, image_shape=(8, 8, 1), pixel_range=(1.0, 0.0))
    a, b = RANDOM.integers(0, 256, (2, 4, 8, 8, 1))
    kernel, bias = tower.get_weights()

    def embed(images):
        e = (1 - images.reshape(4, 64) / 255) @ kernel + bias
        return e / np.linalg.norm(e, axis=1, keepdims=True)

    np.testing.assert_allclose(model.embed(a), embed(a), atol=1e-5)
    distance = np.linalg.norm(embed(a) - embed(b), axis=1)
    w, v = (x.item() for x in model.probability.get_weights())
    probability = 1 / (1 + np.exp(-(w * distance + v)))
    outputs = model.predict([a, b], verbose=0)
    np.testing.assert_allclose(outputs["distance"][:, 0], distance, atol=1e-5)
    verified = model.verify(a, b)
    np.testing.assert_allclose(verified, probability, atol=1e-5)
    assert verified.shape == (4,) and verified.dtype == np.float32


def test_symmetric_and_certain_of_equal_images():
    model = SiameseNet()
    np.testing.assert_allclose(model.verify(A, B), model.verify(B, A), atol=1e-6)
    assert model.verify(A, A).min() > 0.99


def test_gradient_is_summed_over_both_images():
    """The twin gradient equals the sum of the gradients of two separate towers."""
    tower = tiny_tower()
    model = SiameseNet(tower, image_shape=(8, 8, 1))
    a, b = RANDOM.integers(0, 256, (2, 4, 8, 8, 1)).astype("float32")
    kernel, bias = (tf.Variable(w) for w in tower.get_weights())
    kernel_b = tf.Variable(kernel)

    def embed(images, k):
        return tf.math.l2_normalize(tf.reshape(images / 255, (4, 64)) @ k + bias, axis=1)

    with tf.GradientTape() as tape:
        apart = tf.norm(embed(a, kernel) - embed(b, kernel_b), axis=1)
        loss = tf.reduce_sum(apart)
    separate = tape.gradient(loss, [kernel, kernel_b])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model([a, b])["distance"])
    shared = tape.gradient(loss, tower.trainable_variables[0].value)
    np.testing.assert_allclose(shared, separate[0] + separate[1], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["contrastive", "binary_crossentropy", ContrastiveLoss(0.5)])
@pytest.mark.parametrize("form", [list, tuple, lambda p: dict(zip(("image_a", "image_b"), p))])
def test_fit_evaluate_and_every_weight_moves(loss, form):
    model = SiameseNet(tiny_tower(), image_shape=(28, 28, 1))
    model.compile("adam", loss=loss, metrics=["accuracy", "auc"])
    before = [w.copy() for w in model.get_weights()]
    model.fit(form([A, B]), SAME, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.abs(old - new).max() > 0
    results = model.evaluate(form([A, B]), SAME, verbose=0, return_dict=True)
    assert {"loss", "probability_accuracy", "probability_auc"} <= set(results)


def test_contrastive_loss_by_hand():
    d, y = np.array([[0.2], [0.7], [1.5]]), np.array([[1.0], [0.0], [0.0]])
    expected = np.mean([0.2**2 / 2, 0.3**2 / 2, 0])
    np.testing.assert_allclose(float(ContrastiveLoss(1.0)(y, d)), expected, rtol=1e-6)
    np.testing.assert_allclose(float(ContrastiveLoss(1.0)(y[:, 0], d)), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="margin=0"):
        ContrastiveLoss(0)


@pytest.mark.slow
def test_save_with_optimizer_and_go_on(tmp_path):
    model = SiameseNet()
    model.compile("adam", loss="contrastive", metrics=["accuracy"])
    model.fit([A, B], SAME, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert isinstance(loaded, SiameseNet)
    np.testing.assert_array_equal(loaded.verify(A, B), model.verify(A, B))
    assert int(loaded.optimizer.iterations) == 1
    for m in (model, loaded):
        m.fit([A, B], SAME, verbose=0, shuffle=False)
    np.testing.assert_allclose(loaded.verify(A, B), model.verify(A, B), atol=1e-5)


@pytest.mark.slow
def test_any_tower_frozen_and_with_channels(tmp_path):
    """A pretrained tower: other size, three channels, layers of its own kind, frozen."""
    tower = keras.applications.MobileNetV3Small(
        input_shape=(32, 32, 3), include_top=False, weights=None, pooling="avg"
    )
    tower.trainable = False
    model = SiameseNet(tower, image_shape=(None, None, 1), pixel_range=(0, 255))
    assert len(model.trainable_variables) == 2  # w and v
    model.compile("adam", "binary_crossentropy")
    before = tower.get_weights()
    model.fit([A, B], SAME, verbose=0)
    for old, new in zip(before, tower.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert not loaded.tower.trainable
    np.testing.assert_allclose(loaded.verify(A, B), model.verify(A, B), atol=1e-6)


def test_three_channels_to_one_and_sizes_may_differ():
    model = SiameseNet(tiny_tower(), image_shape=(None, None, 3))
    grey = RANDOM.integers(0, 256, (2, 8, 8, 1))
    one = SiameseNet(model.tower, image_shape=(8, 8, 1))
    np.testing.assert_allclose(model.embed(np.repeat(grey, 3, -1)), one.embed(grey), atol=1e-5)
    big = RANDOM.integers(0, 256, (2, 20, 31, 3))
    assert model.verify(np.repeat(grey, 3, -1), big).shape == (2,)


@pytest.mark.slow
def test_mixed_precision_keeps_the_outputs_float32():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = SiameseNet()
    finally:
        keras.config.set_dtype_policy("float32")
    outputs = model.predict([A, B], verbose=0)
    assert model.tower.get_layer("conv_1").compute_dtype == "float16"
    assert {v.dtype for v in outputs.values()} == {np.dtype("float32")}
    again = SiameseNet.from_config(model.get_config())
    assert again.tower.get_layer("conv_1").compute_dtype == "float16"


def test_the_policy_is_the_models_own():
    model = SiameseNet()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        again = SiameseNet.from_config(model.get_config())
    finally:
        keras.config.set_dtype_policy("float32")
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(again.embed(A), model.embed(A), atol=1e-6)


@pytest.mark.parametrize("kind", ["unbuilt", "subclassed", "layer"])
def test_towers_that_do_not_say_what_they_take(kind):
    class Tower(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(keras.ops.reshape(x, (-1, 64)))

    towers = {
        "unbuilt": lambda: keras.Sequential([layers.Flatten(), layers.Dense(2)]),
        "subclassed": Tower,
        "layer": lambda: layers.Conv2D(2, 3),
    }
    model = SiameseNet(towers[kind](), image_shape=(8, 8, 1))
    assert model.verify(*RANDOM.integers(0, 256, (2, 3, 8, 8, 1))).shape == (3,)


def test_calibrate():
    model = SiameseNet(tiny_tower(), image_shape=(8, 8, 1))
    distance = np.concatenate([RANDOM.normal(0.5, 0.2, 500), RANDOM.normal(1.0, 0.2, 500)])
    same = np.repeat([1, 0], 500)
    model.calibrate(distance, same)
    w, v = (x.item() for x in model.probability.get_weights())
    # two Gaussians of equal width: log odds are exactly linear, slope -0.5/0.04, zero at 0.75
    assert abs(w + 12.5) < 2 and abs(-v / w - 0.75) < 0.05


@pytest.mark.parametrize(
    ("distances", "same", "said"),
    [
        ([0.1, 0.4, 0.6, 0.9], [0.9, 0.8, 0.1, 0.0], "1 or True for pairs of the same.*0.1, 0.8"),
        ([0.1, 0.4, 0.6, 0.9], [1, 1, -1, -1], "1 or True for pairs of the same.*Received: -1"),
        ([0.1, 0.4, 0.6, 0.9], [1, 1, 1, 1], "4 pairs, 4 of them the same"),
        ([0.1, 0.4, np.nan, 0.9], [1, 1, 0, 0], "a finite distance for each pair"),
        ([0.1, 0.4, 0.9], [1, 1, 0, 0], "3 distances and 4 labels"),
    ],
)
def test_pairs_that_calibrate_nothing(distances, same, said):
    model = SiameseNet(tiny_tower(), image_shape=(8, 8, 1))
    before = model.get_weights()
    with pytest.raises(ValueError, match=said):
        model.calibrate(distances, same)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    if len({*same}) > 1:  # a threshold needs pairs of two things alone
        with pytest.raises(ValueError, match=said):
            model.threshold(distances, same, 0.5)


def test_weights_act_on_the_calibration():
    """Weights count as copies would; classes and pairs alike."""
    model = SiameseNet(tiny_tower(), image_shape=(8, 8, 1))
    distance = RANDOM.uniform(0, 2, 60)
    same = (distance + RANDOM.normal(size=60) < 1).astype(int)
    times = np.where(same == 1, 3, 1)

    def fitted(*args, **kwargs):
        model.calibrate(*args, **kwargs)
        return np.concatenate([w.ravel() for w in model.probability.get_weights()])

    copies = fitted(np.repeat(distance, times), np.repeat(same, times))
    np.testing.assert_allclose(fitted(distance, same, times), copies, rtol=1e-3)
    by_class = fitted(distance, same == 1, class_weight={0: 1.0, 1: 3.0})
    np.testing.assert_allclose(by_class, copies, rtol=1e-3)
    assert np.abs(fitted(distance, same) - copies).max() > 0.1


@pytest.mark.parametrize(
    "bad", [A[0], A[..., 0], np.full((2, 28, 28, 1), "x"), np.zeros((2, 28, 28, 3)), A[:0]]
)
def test_images_that_are_no_images(bad):
    said = r"must be (numbers|a batch of images) of shape \(None, None, None, 1\)"
    with pytest.raises(ValueError, match=said):
        SiameseNet(tiny_tower()).embed(bad)


def test_images_outside_of_what_it_expects():
    model = SiameseNet(tiny_tower())
    with pytest.raises(ValueError, match=r"one image of shape \(28, 28, 1\).*images\[None\]"):
        model.embed(A[0])
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.embed(np.full((1, 28, 28, 1), np.nan))
    with pytest.warns(UserWarning, match=r"takes pixels from 0 to 255: .* Use images \* 255"):
        model.embed(A / 255)


def test_another_image_shape_keeps_the_weights():
    model = SiameseNet(tiny_tower(), image_shape=(8, 8, 1), pixel_range=(1.0, 0.0))
    other = model.with_image_shape((20, 31, 3))
    for mine, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert other.pixel_range == (1.0, 0.0) and model.image_shape == (8, 8, 1)
    assert other.embed(RANDOM.integers(0, 256, (2, 20, 31, 3))).shape == (2, 3)


def test_other_bad_input():
    with pytest.raises(ValueError, match="equally many images. Received: 6 and 5"):
        SiameseNet(tiny_tower()).verify(A, B[:5])
    with pytest.raises(ValueError, match="must take images"):
        SiameseNet(keras.Sequential([keras.Input((5,)), layers.Dense(2)]))
    with pytest.raises(ValueError, match=r"takes 3 channels. Received: image_shape\[-1\]=2"):
        SiameseNet(tiny_tower(channels=3), image_shape=(8, 8, 2))


WEIGHT = np.array([0.0, 1.0, 2.0, 3.0, 1.0, 0.5])
BY_CLASS = np.where(SAME == 1, 3.0, 1.0)
EACH = {"image_a": A, "image_b": B}
DS = tf.data.Dataset.from_tensor_slices
FORMS = {  # of one step: how it is asked for, and the weights of the pairs that it stands for
    "plain": (lambda m: m.fit([A, B], SAME, **ONE), 1),
    "array": (lambda m: m.fit([A, B], SAME, sample_weight=WEIGHT, **ONE), WEIGHT),
    "column": (
        lambda m: m.fit([A, B], SAME[:, None], sample_weight=WEIGHT[:, None], **ONE),
        WEIGHT,
    ),
    "dicts": (lambda m: m.fit(EACH, both(SAME), sample_weight=both(WEIGHT), **ONE), WEIGHT),
    "dict of weights": (lambda m: m.fit(EACH, SAME, sample_weight=both(WEIGHT), **ONE), WEIGHT),
    "lists": (lambda m: m.fit([A, B], [SAME] * 2, sample_weight=[WEIGHT] * 2, **ONE), WEIGHT),
    "one output": (
        lambda m: m.fit(EACH, {"distance": SAME}, sample_weight={"distance": WEIGHT}, **ONE),
        WEIGHT,
    ),
    "class_weight": (
        lambda m: m.fit([A, B], SAME == 1, class_weight={0: 1, 1: 3}, **ONE),
        BY_CLASS,
    ),
    "tf.data": (lambda m: m.fit(DS((EACH, SAME, WEIGHT)).batch(6), verbose=0), WEIGHT),
    "tf.data of dicts": (
        lambda m: m.fit(DS((EACH, both(SAME), both(WEIGHT))).batch(6), verbose=0),
        WEIGHT,
    ),
    "tf.data, class_weight": (
        lambda m: m.fit(DS((EACH, SAME)).batch(6), class_weight={0: 1, 1: 3}, verbose=0),
        BY_CLASS,
    ),
    "batch": (lambda m: m.train_on_batch([A, B], SAME, WEIGHT, return_dict=True), WEIGHT),
    "batch, class_weight": (
        lambda m: m.train_on_batch([A, B], SAME, class_weight={0: 1, 1: 3}, return_dict=True),
        BY_CLASS,
    ),
    "batch of dicts": (
        lambda m: m.train_on_batch(EACH, both(SAME), both(WEIGHT), return_dict=True),
        WEIGHT,
    ),
}
ONE = {"batch_size": 6, "shuffle": False, "verbose": 0}


def both(values):
    return {"distance": values, "probability": values}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_weights_of_pairs(form):
    """On the contrastive loss, on the calibration, and on what is reported, against NumPy."""
    step, weight = FORMS[form]
    model = SiameseNet(tiny_tower(kernel_regularizer="l2"), image_shape=(28, 28, 1))
    graph = form == "tf.data"  # the others eagerly, which starts sooner
    model.compile(keras.optimizers.SGD(0.1), ContrastiveLoss(0.7), run_eagerly=not graph)
    d = model.predict([A, B], verbose=0)["distance"][:, 0]
    w, v = (x.item() for x in model.probability.get_weights())
    added = 0.01 * np.sum(model.tower.get_weights()[0] ** 2)
    p = 1 / (1 + np.exp(-(w * d + v)))
    contrastive = np.mean(weight * np.where(SAME == 1, d**2 / 2, np.maximum(0, 0.7 - d) ** 2 / 2))
    entropy = -np.mean(weight * np.where(SAME == 1, np.log(p), np.log(1 - p)))
    reported = step(model)
    reported = getattr(reported, "history", reported)
    assert sorted(reported) == ["distance_loss", "loss"]
    np.testing.assert_allclose(np.ravel(reported["distance_loss"])[0], contrastive, rtol=1e-4)
    total = contrastive + entropy + added
    np.testing.assert_allclose(np.ravel(reported["loss"])[0], total, rtol=1e-4)
    new = [x.item() for x in model.probability.get_weights()]
    expected = w - 0.1 * np.mean(weight * (p - SAME) * d), v - 0.1 * np.mean(weight * (p - SAME))
    np.testing.assert_allclose(new, expected, rtol=1e-5)


@pytest.mark.slow
def test_losses_and_metrics_by_output():
    """As Keras takes them for two outputs; what none of both can have is refused."""
    model = SiameseNet(tiny_tower(), image_shape=(28, 28, 1))
    d, p = (model.predict([A, B], verbose=0)[name][:, 0] for name in ("distance", "probability"))
    contrastive = np.mean(np.where(SAME == 1, d**2, np.maximum(0, 1 - d) ** 2)) / 2
    entropy = -np.mean(np.where(SAME == 1, np.log(p), np.log(1 - p)))

    def reported(loss, **kwargs):
        model.compile("sgd", loss, run_eagerly=True, **kwargs)
        return model.evaluate([A, B], SAME, sample_weight=np.ones(6), verbose=0, return_dict=True)

    total = pytest.approx(contrastive + entropy, rel=1e-4)
    alone = pytest.approx(contrastive, rel=1e-4)
    for loss in (
        "contrastive", contrastive_loss, {"distance": "contrastive"},
        {"distance": ContrastiveLoss()}, [ContrastiveLoss(), None],
    ):  # fmt: skip
        assert reported(loss) == {"loss": total, "distance_loss": alone}
    for loss in (
        {"distance": ContrastiveLoss(), "probability": "binary_crossentropy"},
        [ContrastiveLoss(), "binary_crossentropy"],
    ):
        whole = reported(loss)
        assert whole["loss"] == total and whole["distance_loss"] == alone
    twice = reported("contrastive", loss_weights=2, weighted_metrics=["accuracy"])
    assert twice["loss"] == pytest.approx(2 * contrastive + entropy, rel=1e-4)
    assert twice["distance_loss"] == alone
    assert reported("contrastive", loss_weights={"distance": 2.0})["loss"] == pytest.approx(
        2 * contrastive + entropy, rel=1e-4
    )
    alike = reported("binary_crossentropy", loss_weights={"probability": 2.0})["loss"]
    assert alike == pytest.approx(2 * entropy, rel=1e-4)
    for labels, said in (({"same": SAME}, r"\['same'\]"), ([SAME] * 3, "3 of them in a list")):
        with pytest.raises(ValueError, match=f"one for each output, .*Received: {said}"):
            model.compute_loss(y=labels, y_pred=model([A, B]))
    right = np.mean((p > 0.5) == SAME)
    assert twice["probability_accuracy"] == pytest.approx(right)
    for name in ("n_pair", "triplet", "triplet_hard", "prototypical"):
        with pytest.raises(ValueError, match=r"`model.embedder`, .*`keras_shared.losses.\w+Loss\("):
            model.compile("sgd", name)
    with pytest.raises(ValueError, match=r"one for each output, \['distance', 'probability'\]"):
        model.compile("sgd", {"distances": "contrastive"})


def test_a_tower_of_several_outputs_is_named():
    image = keras.Input((8, 8, 1))
    flat = layers.Flatten()(image)
    two = keras.Model(image, {"a": layers.Dense(2)(flat), "b": layers.Dense(2)(flat)}, name="two")
    with pytest.raises(ValueError, match="must return one tensor. Received: 'two' .* a dict"):
        SiameseNet(two, image_shape=(8, 8, 1))
    picked = keras.Model(image, two(image)["a"])  # as the message says
    assert SiameseNet(picked, image_shape=(8, 8, 1)).embed(A[:2, :8, :8]).shape == (2, 2)


@pytest.mark.slow
def test_the_contrastive_loss_is_reported_by_itself(tmp_path):
    """`loss` has the cross-entropy of the probability in it; `distance_loss` has not."""
    keras.utils.set_random_seed(1)
    tower = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    model = SiameseNet(tower, image_shape=(6, 6, 1))
    model.compile("sgd", ContrastiveLoss(margin=0.7), metrics=["accuracy"])
    pair = [*np.random.default_rng(0).integers(0, 256, (2, 20, 6, 6, 1))]
    same = np.arange(20) % 2
    answers = model.predict(pair, verbose=0)
    d, p = answers["distance"][:, 0], answers["probability"][:, 0]
    contrastive = np.mean(same * d**2 / 2 + (1 - same) * np.maximum(0, 0.7 - d) ** 2 / 2)
    entropy = -np.mean(same * np.log(p) + (1 - same) * np.log(1 - p))
    figures = model.evaluate(pair, same, verbose=0, return_dict=True)
    np.testing.assert_allclose(figures["distance_loss"], contrastive, rtol=1e-5)
    np.testing.assert_allclose(figures["loss"], contrastive + entropy, rtol=1e-4)
    assert sorted(figures) == ["distance_loss", "loss", "probability_accuracy"]
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.evaluate(pair, same, verbose=0, return_dict=True) == pytest.approx(figures)


def test_centered_drawings(tmp_path):
    """The place of a drawing in its image does not matter, in arrays and in what is exported."""
    model = SiameseNet(tiny_tower(), (30, 20, 3), pixel_range=(1.0, 0.0), centered=True)
    image, moved = np.full((2, 1, 30, 20, 3), 255, "uint8")
    image[0, 3:12, 2:8] = moved[0, 20:29, 13:19] = RANDOM.integers(0, 99, (9, 6, 3))
    np.testing.assert_allclose(model.embed(image), model.embed(moved), atol=1e-5)
    ink = 1 - image.astype("float32").mean(-1, keepdims=True) / 255
    kernel, bias = model.tower.get_weights()
    expected = np.array(CenterInk(8, 8)(ink)).reshape(1, 64) @ kernel + bias
    expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(model.embed(image), expected, atol=1e-5)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert loaded.centered and loaded.with_image_shape((9, 9, 1)).centered
    np.testing.assert_array_equal(loaded.embed(image), model.embed(image))
    config = model.get_config()
    del config["centered"]  # as models had it before
    assert not SiameseNet.from_config(config).centered
    with pytest.raises(ValueError, match=r"pixel_range` of \(1, 0\).*Received: .*\(0.0, 255.0\)"):
        SiameseNet(tiny_tower(), (30, 20, 3), pixel_range=(0, 255), centered=True)
    unbuilt = keras.Sequential([layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match="images of one size"):
        SiameseNet(unbuilt, (None, None, 1), centered=True)


@pytest.mark.parametrize("centered", [False, True])
def test_halves_share_the_weights(centered):
    model = SiameseNet(tiny_tower(), (28, 28, 1), pixel_range=(1.0, 0.0), centered=centered)
    before, trunk = model.halves()
    assert not before.weights
    assert [id(w) for w in trunk.weights] == [id(w) for w in model.tower.weights]
    middle = before.predict(A, verbose=0)
    assert middle.shape == (6, 8, 8, 1)
    np.testing.assert_allclose(trunk.predict(middle, verbose=0), model.embed(A), atol=1e-6)


def test_a_loss_of_a_whole_batch_trains_the_embedder():
    model = SiameseNet(tiny_tower(), image_shape=(28, 28, 1))
    with pytest.raises(ValueError, match="NPairLoss compares .* Compile and fit `model.embedder`"):
        model.compile("adam", NPairLoss())
    before = model.verify(A, B)
    model.embedder.compile(keras.optimizers.Adam(0.1), NPairLoss())
    model.embedder.fit(np.concatenate([A, B]), np.tile(np.arange(6), 2), batch_size=12, verbose=0)
    distances = np.linalg.norm(model.embed(A) - model.embed(B[::-1]), axis=1)
    model.calibrate(distances, SAME)
    assert np.abs(model.verify(A, B) - before).max() > 1e-3


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.25])
def test_the_threshold_keeps_false_accepts_rare(rate):
    random = np.random.default_rng(1)
    distances, same = random.uniform(0, 2, 5000), random.random(5000) < 0.5
    model = SiameseNet()
    limit = model.threshold(distances[:, None], same, rate)
    w, v = (float(x.item()) for x in model.probability.get_weights())
    probability = (1 / (1 + np.exp(-(w * distances[~same] + v)))).astype("float32")
    accepted = probability >= np.float32(limit)
    assert accepted.sum() == int(len(accepted) * rate)


def test_probabilities_that_float32_cannot_tell_apart():
    distances, model = np.array([1e-9, 2e-9, 3e-9, 1.0]), SiameseNet()
    limit = model.threshold(distances, [0] * 4, 0.5)
    w, v = (float(x.item()) for x in model.probability.get_weights())
    probability = (1 / (1 + np.exp(-(w * distances + v)))).astype("float32")
    assert (probability >= np.float32(limit)).sum() <= 2
    model.probability.set_weights([np.array([[-50.0]]), np.array([50.0])])
    with pytest.raises(ValueError, match="out of reach"):
        model.threshold(distances, [0] * 4, 0.5)


def test_pairs_as_far_apart_are_all_accepted_or_none():
    assert calibration.threshold([0.5, 0.5, 0.5, 0.9], [0] * 4, 0.5) < 0.5
    assert calibration.threshold([0.4, 0.5, 0.5, 0.9], [0] * 4, 0.75) == 0.5


@pytest.mark.parametrize(
    ("distances", "same", "rate", "words"),
    [
        ([0.1, 0.2], [1, 0], 0.001, "at least 1000 pairs of two different things. Received: 1"),
        ([0.1, 0.2], [1], 0.5, "2 distances and 1 labels"),
        ([0.1, float("nan")], [1, 0], 0.5, "finite"),
        ([0.1, 0.2], [1, 0], 0, "Received: 0"),
    ],
)
def test_thresholds_that_pairs_cannot_show(distances, same, rate, words):
    with pytest.raises(ValueError, match=words):
        SiameseNet().threshold(distances, same, rate)


@pytest.mark.parametrize(("pixel_range", "ground"), [((1.0, 0.0), "dark"), ((0.0, 1.0), "bright")])
def test_the_other_ground_is_warned_of(pixel_range, ground):
    """Where ink is centred, the model knows which is ink; where most images differ, it says so."""
    model = SiameseNet(tiny_tower(), (8, 8, 1), pixel_range=pixel_range, centered=True)
    right = np.full((3, 8, 8, 1), 255 if ground == "dark" else 0)
    right[:, 3:5, 3:5] = 255 - right[0, 0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.embed(right)
    for ask in (model.embed, lambda images: model.verify(right, images)):
        with pytest.warns(UserWarning, match=f"100% of `image\\w*` have a {ground} ground.*255 - "):
            ask(255 - right)
    with warnings.catch_warnings():  # without centring nothing is known of ink
        warnings.simplefilter("error")
        SiameseNet(tiny_tower(), (8, 8, 1), pixel_range=pixel_range).embed(255 - right)
