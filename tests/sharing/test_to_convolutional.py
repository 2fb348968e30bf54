import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

import keras_shared
from keras_shared import sharing_report, to_convolutional, unshare
from keras_shared.layers import HashedDense, LocallyConnected2D, OverFields, TiedConv, TiedDense
from keras_shared.sharing import ConvolutionError, window_of
from keras_shared.zoo import LeCun1989, LeNet5, MultiTaskNet, TiedAutoencoder

RANDOM = np.random.default_rng(8)


def noise(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def check_sweep(model, more=(1, 2), atol=1e-5):
    """Every position of a larger image holds what the model gives for that window alone."""
    converted = to_convolutional(model)
    (rows, columns), (down, across) = window_of(converted)
    _, height, width, channels = model.input_shape
    image = noise(2, height + more[0] * down, width + more[1] * across, channels)
    sweep = keras.tree.flatten(converted(image))
    for scores in sweep:
        assert scores.shape[1:3] == (more[0] + 1, more[1] + 1)
    for i in range(more[0] + 1):
        for j in range(more[1] + 1):
            window = image[:, i * down :, j * across :][:, :height, :width]
            for scores, wanted in zip(sweep, keras.tree.flatten(model(window)), strict=True):
                np.testing.assert_allclose(scores[:, i, j], wanted, atol=atol)
    assert rows <= height and columns <= width
    return converted


def renewed(model):
    """With biases and moving statistics that are not zero and one."""
    model.set_weights([w + 0.2 * np.abs(noise(*w.shape)) for w in model.get_weights()])
    return model


def sequential():
    return keras.Sequential([
        keras.Input((11, 12, 2)), layers.Rescaling(0.5),
        layers.Conv2D(4, (3, 2), activation="relu"),
        layers.MaxPooling2D(2), layers.Dropout(0.5), layers.Flatten(), layers.Dense(6, "tanh"),
        layers.BatchNormalization(), layers.Dense(3, "softmax"),
    ])  # fmt: skip


def functional():
    """Strides that differ, branches, a sub-model, a shared kernel, an operation, two outputs."""
    image = keras.Input((14, 17, 1))
    x = layers.Conv2D(4, 3, strides=(2, 3), name="first")(image)
    inner = keras.Input((None, None, 4))
    same_size = layers.Conv2D(4, 1, padding="same")
    body = keras.Model(inner, layers.BatchNormalization()(same_size(inner)), name="body")
    x = layers.Add()([body(x), x])
    conv = layers.DepthwiseConv2D(2)
    x = layers.Concatenate()([conv(x), TiedConv(conv)(ops.tanh(x))])
    x = layers.Reshape((-1,))(x)
    hidden = layers.Dense(5, "relu")
    code = hidden(x)
    return keras.Model(image, [ops.negative(layers.Dense(2)(code)), TiedDense(hidden)(code)])


def pooled(kind):
    image = keras.Input((9, 9, 2))
    maps = layers.AveragePooling2D(2)(layers.Conv2D(3, 2)(image))
    return keras.Model(image, layers.Dense(4)(kind()(maps)))


MODELS = {
    "sequential": sequential,
    "functional": functional,
    "average": lambda: pooled(layers.GlobalAveragePooling2D),
    "largest": lambda: pooled(layers.GlobalMaxPooling2D),
    "hashed": lambda: keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Conv2D(2, 2), layers.Flatten(), HashedDense(3, 2)]
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_position_is_the_window_alone(name):
    model = renewed(MODELS[name]())
    converted = check_sweep(model)
    assert {id(v) for v in converted.variables} == {id(v) for v in model.variables}


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.booleans())
def test_any_geometry(kernel, stride, pool, extra, average):
    """Also where the last pixels of a window are read by nothing."""
    side = kernel + stride * (2 * pool - 1) + extra
    pooling = layers.AveragePooling2D if average else layers.MaxPooling2D
    check_sweep(keras.Sequential([
        keras.Input((side, side + 1, 1)), layers.Conv2D(2, kernel, stride), pooling(pool),
        layers.Flatten(), layers.Dense(2),
    ]))  # fmt: skip


@pytest.mark.parametrize("preset", ["lenet5_mnist", "lenet5_modern_mnist"])
def test_lenet_reads_a_digit_wherever_it_lies(preset):
    model = LeNet5.from_preset(preset)
    converted = to_convolutional(model)
    assert window_of(converted) == ((32, 32), (4, 4))
    assert converted.count_params() == model.count_params()
    digit = RANDOM.uniform(0, 255, (1, 28, 28, 1)).astype("float32")
    wanted = model.predict(digit, verbose=0)
    page = np.zeros((6, 40, 44, 1), "float32")
    places = [(i, j) for i in range(3) for j in range(2)]
    for number, (i, j) in enumerate(places):
        page[number, 4 * i + 2 :, 4 * j + 2 :][:28, :28] = digit
    scores = converted.predict(page, verbose=0)
    assert scores.shape == (6, 3, 4, 10)
    for number, (i, j) in enumerate(places):
        np.testing.assert_allclose(scores[number, i, j], wanted[0], rtol=1e-4, atol=1e-3)


def test_a_dense_is_the_convolution_with_its_kernel_reshaped():
    dense, maps = layers.Dense(6, "tanh", bias_initializer="normal"), noise(2, 7, 6, 3)
    layer = OverFields(dense, (4, 5))
    kernel = lambda: ops.reshape(dense.kernel, (4, 5, 3, 6))  # noqa: E731
    np.testing.assert_allclose(
        layer(maps), np.tanh(ops.conv(maps, kernel()) + dense.bias), atol=1e-6
    )
    with pytest.raises(ValueError, match="maps of at least 4x5.*Give the model a larger image"):
        layer(maps[:, :3])


@pytest.mark.parametrize(
    ("size", "received"), [(3, "size=3"), ((1, 2, 3), r"\(1, 2, 3\)"), ((0, 1), "size=0"),
                           ((1.5, 1), "size=1.5")],
)  # fmt: skip
def test_fields_have_two_sides(size, received):
    with pytest.raises(ValueError, match=rf"\(rows, columns\) of a field.* Received: .*{received}"):
        OverFields(layers.Dense(2), size)


def test_gradients_add_up_over_all_positions():
    model = renewed(sequential())
    converted = to_convolutional(model)
    image, weights = noise(1, 13, 12, 2), model.trainable_variables
    with tf.GradientTape() as tape:
        loss = ops.sum(ops.square(converted(image)))
    swept = tape.gradient(loss, weights)
    with tf.GradientTape() as tape:
        loss = sum(ops.sum(ops.square(model(image[:, i : i + 11]))) for i in (0, 2))
    for one, other in zip(swept, tape.gradient(loss, weights), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_training_one_trains_the_other():
    model = sequential()
    converted = to_convolutional(model)
    image = noise(4, 11, 12, 2)
    converted.compile("sgd", "mse")
    before = model.predict(image, verbose=0)
    converted.fit(image, np.zeros((4, 1, 1, 3)), verbose=0)
    after = model.predict(image, verbose=0)
    assert np.abs(after - before).max() > 1e-4
    np.testing.assert_allclose(converted.predict(image, verbose=0)[:, 0, 0], after, atol=1e-6)


@pytest.mark.parametrize("name", ["sequential", "functional"])
def test_saved(name, tmp_path):
    converted = to_convolutional(renewed(MODELS[name]()))
    converted.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    image = noise(2, 20, 25, converted.input_shape[-1])
    answers = [keras.tree.flatten(model(image)) for model in (converted, loaded)]
    for one, other in zip(*answers, strict=True):
        np.testing.assert_array_equal(one, other)
    assert window_of(loaded) == window_of(converted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sequential", "functional"])
def test_exported(name, tmp_path):
    converted = to_convolutional(renewed(MODELS[name]()))
    keras_shared.export(converted, tmp_path / "saved")
    served = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    (given,) = served.structured_input_signature[1]
    image = noise(2, 20, 25, converted.input_shape[-1])
    wanted = sorted(keras.tree.flatten(converted(image)), key=lambda s: s.shape[-1])
    answers = sorted(served(**{given: image}).values(), key=lambda s: s.shape[-1])
    for answer, one in zip(answers, wanted, strict=True):
        np.testing.assert_allclose(answer, one, atol=1e-5)


def test_report_counts_what_lecun_counts():
    model = LeNet5()
    converted = to_convolutional(model)
    assert sharing_report(converted).totals == sharing_report(model).totals
    wide = keras.Model(image := keras.Input((32, 36, 1)), converted(image))
    apart = {w.path: w.multiply_adds for w in sharing_report(wide).weights}
    f6 = next(count for path, count in apart.items() if path.endswith("F6/kernel"))
    assert f6 == 2 * 10_080  # at two positions
    assert unshare(converted).count_params() == model.count_params()


def with_layer(layer, side=8):
    image = keras.Input((side, side, 2))
    maps = layer(layers.Conv2D(4, 3, name="conv")(image))
    return keras.Model(image, layers.Dense(2)(layers.Flatten()(maps)), name="net")


class Centred(layers.Layer):
    """Of a kind that nobody knows: it looks at all of a map."""

    def call(self, inputs):
        return inputs - ops.mean(inputs, axis=(1, 2), keepdims=True)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: layers.Conv2D(2, 3, padding="same", name="c"), "'c' has padding='same'.*'valid'"),
        (lambda: layers.MaxPooling2D(2, padding="same", name="p"), "'p' has padding='same'"),
        (lambda: layers.ZeroPadding2D(name="z"), "ZeroPadding2D 'z' puts zeros around maps"),
        (lambda: layers.GroupNormalization(2, name="g"), "'g' looks at a whole map"),
        (lambda: LocallyConnected2D(2, 3, name="l"), "of any size.*layer 'l' is incompatible"),
        (lambda: layers.GlobalMaxPooling2D(keepdims=True, name="m"), "'m' looks at a whole map"),
        (lambda: Centred(name="mean"), r"other maps in a larger image.*Centred 'mean'"),
    ],
)  # fmt: skip
def test_what_answers_otherwise_at_a_border_is_refused(layer, reason):
    with pytest.raises(ConvolutionError, match=reason):
        to_convolutional(with_layer(layer()))


def test_refuses():
    with pytest.raises(ConvolutionError, match=r"one input .* known size. .*\(None, 784\)"):
        to_convolutional(TiedAutoencoder())
    with pytest.raises(ConvolutionError, match="'H1' has padding='same'"):
        to_convolutional(LeCun1989(5))
    image = keras.Input((8, 8, 1))
    maps = layers.Conv2D(2, 3)(image)
    with pytest.raises(ConvolutionError, match="has no Flatten.*nothing to convert"):
        to_convolutional(keras.Model(image, maps))
    both = layers.Concatenate()([layers.Flatten()(maps), layers.GlobalMaxPooling2D()(maps)])
    with pytest.raises(ConvolutionError, match="another layer before it does so too"):
        to_convolutional(keras.Model(image, both))
    gate = layers.Reshape((1, 1, 2))(layers.GlobalAveragePooling2D()(maps))
    with pytest.raises(ConvolutionError, match="has no convolutional form"):
        to_convolutional(keras.Model(image, layers.Flatten()(layers.Multiply()([maps, gate]))))
    with pytest.raises(ConvolutionError, match="has no convolutional form.*put all outputs behind"):
        to_convolutional(keras.Model(image, [maps, layers.Dense(2)(layers.Flatten()(maps))]))
    average = keras.Model(image, layers.Dense(2)(ops.mean(maps, axis=(1, 2))))
    with pytest.raises(ConvolutionError, match="Mean .* makes vectors of maps, and how cannot be"):
        to_convolutional(average)
    turned = layers.Flatten()(layers.Permute((3, 1, 2), name="turn")(maps))
    with pytest.raises(ConvolutionError, match="Permute 'turn' moves the axes of maps"):
        to_convolutional(keras.Model(image, layers.Dense(2)(turned)))
    first = layers.Conv2D(2, 3, data_format="channels_first", name="c")
    with pytest.raises(ConvolutionError, match="Conv2D 'c' has data_format='channels_first'"):
        to_convolutional(keras.Sequential([keras.Input((1, 8, 8)), first, layers.Flatten()]))
    alike = [
        keras.Sequential([keras.Input((side, side, 1)), layers.Conv2D(1, 3, name="c")])
        for side in (8, 6)
    ]
    with pytest.raises(ConvolutionError, match='name "c" is used 2 times.*a name of its own'):
        to_convolutional(keras.Sequential([keras.Input((8, 8, 1)), *alike, layers.Flatten()]))
    for wrong in (LeNet5(), keras.Sequential([layers.Dense(2)]), layers.Dense(2), None):
        with pytest.raises(ConvolutionError, match="window_of takes a model from images of any"):
            window_of(wrong)
    any_size = keras.Input((None, None, 3))
    whole = layers.GlobalAveragePooling2D(keepdims=True)(layers.Conv2D(4, 3)(any_size))
    with pytest.raises(ConvolutionError, match="gives 1 positions for an image of 8192 pixels"):
        window_of(keras.Model(any_size, whole))
    for wrong in (keras.Sequential([layers.Dense(2)]), layers.Dense(2), None):
        with pytest.raises(ConvolutionError, match="takes a built functional model"):
            to_convolutional(wrong)


def test_two_tasks_at_every_position():
    net = MultiTaskNet(width=2, image_shape=(20, 20, 1))  # heads whose layers have the same names
    converted = check_sweep(net, atol=1e-4)
    assert {name: y.shape[1:] for name, y in converted.output.items()} == {
        "left": (None, None, 10), "right": (None, None, 10)
    }  # fmt: skip
    assert {id(w) for w in converted.weights} == {id(w) for w in net.weights}
