import json
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_shared
from keras_shared import cluster, find_ties, sharing_report, tie, unshare, untie
from keras_shared.layers import (
    ClusteredConv2D,
    ClusteredDense,
    HashedDense,
    OverFields,
    Shared,
    TiedConv,
    TiedDense,
)
from keras_shared.sharing import Reading
from keras_shared.tying import TieError
from keras_shared.zoo import LeNet5, TiedAutoencoder

RANDOM = np.random.default_rng(5)


def noise(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def net():
    keras.utils.set_random_seed(3)
    image = keras.Input((8, 9, 3))
    x = layers.Conv2D(6, (3, 2), strides=2, activation="relu", name="conv")(image)
    x = layers.BatchNormalization()(x)
    x = layers.Dense(7, "tanh", name="hidden")(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(4, use_bias=False, name="scores")(x))


def test_every_position_holds_its_nearest_centre():
    model = net()
    small = cluster(model, 6)
    assert type(small.get_layer("conv")) is ClusteredConv2D
    for name in ("conv", "hidden", "scores"):
        kernel, layer = np.asarray(model.get_layer(name).kernel), small.get_layer(name)
        values, numbers = np.asarray(layer.codebook), np.asarray(layer.numbers())
        np.testing.assert_array_equal(layer.kernel, values[numbers])
        distances = np.abs(kernel[..., None] - values)
        np.testing.assert_allclose(
            np.take_along_axis(distances, numbers[..., None], -1)[..., 0], distances.min(-1),
            atol=1e-6,
        )  # fmt: skip
        for code in range(6):  # a centre is the mean of its own
            own = kernel[numbers == code]
            assert not own.size or values[code] == pytest.approx(own.mean(), abs=1e-5)
    image = noise(4, 8, 9, 3)
    by_hand = unshare(small)  # plain layers with the same kernels
    np.testing.assert_allclose(small(image), by_hand(image), atol=1e-5)
    assert np.abs(small(image) - model(image)).max() > 1e-4
    assert np.corrcoef(np.ravel(small(image)), np.ravel(model(image)))[0, 1] - 0.9 > 0


def test_with_enough_codes_nothing_is_lost():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(3, bias_initializer="normal")(inputs))
    x = noise(4, 5)
    np.testing.assert_allclose(cluster(model, 15)(x), model(x), atol=1e-7)
    np.testing.assert_allclose(cluster(model, 200)(x), model(x), atol=1e-7)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 256), st.integers(1, 7), st.integers(1, 9), st.data())
def test_codes_survive_packing(codes, inputs, units, data):
    layer = ClusteredDense(units, codes=codes)
    layer.build((None, inputs))
    numbers = np.reshape(
        data.draw(st.lists(st.integers(0, codes - 1), min_size=inputs * units,
                           max_size=inputs * units)), (inputs, units),
    )  # fmt: skip
    layer.assign_codes(np.arange(codes), numbers)
    np.testing.assert_array_equal(layer.numbers(), numbers)
    np.testing.assert_array_equal(layer.kernel, numbers)
    bits = {1: 1, 2: 2, 3: 4, 4: 4}.get((codes - 1).bit_length(), 8)
    assert layer.packed.shape == (-(-inputs * units * bits // 8),)


def test_the_gradient_of_a_value_is_the_sum_over_its_positions():
    small = cluster(net(), 5)
    image, target = noise(6, 8, 9, 3), noise(6, 4)
    apart = unshare(small)
    gradients = []
    for model in (small, apart):
        with tf.GradientTape() as tape:
            loss = keras.ops.mean(keras.ops.square(model(image) - target))
        gradients.append(dict(zip(
            [v.path for v in model.trainable_variables],
            tape.gradient(loss, model.trainable_variables), strict=True,
        )))  # fmt: skip
    for name in ("conv", "hidden", "scores"):
        numbers = np.asarray(small.get_layer(name).numbers())
        whole = np.asarray(gradients[1][f"{name}/kernel"])
        summed = [whole[numbers == code].sum() for code in range(5)]
        np.testing.assert_allclose(gradients[0][f"{name}/codebook"], summed, atol=1e-5)


def test_training_moves_the_values_and_no_code():
    small = cluster(net(), 5)
    before = [np.asarray(v) for v in small.get_layer("hidden").weights]
    small.compile(keras.optimizers.SGD(0.05), "mse")
    image, target = noise(32, 8, 9, 3), noise(32, 4)
    losses = small.fit(image, target, epochs=4, verbose=0).history["loss"]
    after = small.get_layer("hidden").weights
    assert losses[-1] < losses[0] and [v.name for v in after][2] == "packed_codes"
    assert np.abs(after[0] - before[0]).max() > 0
    np.testing.assert_array_equal(after[2], before[2])
    assert len(np.unique(small.get_layer("hidden").kernel)) == 5


def test_report_and_bytes_on_disk(tmp_path):
    inputs = keras.Input((300,))
    model = keras.Model(inputs, layers.Dense(200, name="wide")(inputs))
    small = cluster(model)
    report = sharing_report(small)
    codebook = report.weights[0]
    assert codebook.readers == {"wide": Reading("by codes", 1)}
    assert report.weights[1].readers == {"wide": Reading("as is", 1)}
    assert [weight.path for weight in find_ties(small).shared] == ["wide/codebook"]
    assert codebook.multiply_adds == codebook.without_sharing == 60_000
    assert report.totals["multiply_adds"] == 60_200
    assert report.totals["parameters_without_sharing"] == model.count_params()
    assert report.totals["bytes"] == 60_000 // 2 + 4 * 16 + 4 * 200
    sizes = []
    for number, one in enumerate((model, small)):
        one.save(tmp_path / f"{number}.keras")
        sizes.append((tmp_path / f"{number}.keras").stat().st_size)
    assert sizes[0] > 240_000 and sizes[1] < 50_000
    loaded = keras.models.load_model(tmp_path / "1.keras")
    x = noise(3, 300)
    np.testing.assert_array_equal(loaded(x), small(x))
    assert loaded.layers[1].get_config() == small.layers[1].get_config()


@pytest.mark.slow
def test_exported_small(tmp_path):
    inputs = keras.Input((300,))
    small = cluster(keras.Model(inputs, layers.Dense(200, name="wide")(inputs)))
    keras_shared.export(small, tmp_path / "saved")
    files = [f.stat().st_size for f in (tmp_path / "saved").rglob("*") if f.is_file()]
    assert sum(files) < 100_000
    served = tf.saved_model.load(tmp_path / "saved").signatures["serving_default"]
    (given,) = served.structured_input_signature[1]
    x = noise(3, 300)
    np.testing.assert_allclose(*served(**{given: x}).values(), small(x), atol=1e-5)


def test_readers_of_a_clustered_kernel_read_it_on(tmp_path):
    image = keras.Input((6, 6, 1))
    conv = layers.Conv2D(4, 3, padding="same", name="conv")
    maps = conv(image)
    maps = layers.Add()([maps, TiedConv(conv, dilation_rate=2, name="wide")(image)])
    code = layers.Dense(5, name="code")
    x = code(layers.Flatten()(maps))
    model = keras.Model(image, TiedDense(code, name="back")(x))
    small = cluster(model, 4)
    assert small.get_layer("back").source() is small.get_layer("code")
    assert small.get_layer("wide").source() is small.get_layer("conv")
    small.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    x = noise(2, 6, 6, 1)
    np.testing.assert_array_equal(loaded(x), small(x))
    hidden = keras.Model(small.inputs, small.get_layer("code").output)(x)
    wanted = hidden @ np.asarray(small.get_layer("code").kernel).T
    np.testing.assert_allclose(small(x), wanted, atol=1e-5)
    assert sharing_report(small).warnings == ()


def test_readers_of_a_clustered_kernel_are_untied_with_a_whole_kernel():
    pixels = keras.Input((6,))
    code = layers.Dense(4, name="code")
    model = keras.Model(pixels, TiedDense(code, name="back")(code(pixels)))
    small, x = cluster(model, 4), noise(3, 6)
    wanted, back = small(x), small.get_layer("back")
    untie(small)
    np.testing.assert_array_equal(small(x), wanted)
    assert type(back.own_layer) is layers.Dense and back.own_layer.kernel.shape == (6, 4)
    back.own_layer.kernel.assign(noise(6, 4))
    with pytest.raises(TieError, match="is clustered, quantised or has LoRA"):
        tie(back, small.get_layer("code"), keep="reader")
    tie(back, small.get_layer("code"), keep="source")
    np.testing.assert_array_equal(small(x), wanted)


@pytest.mark.parametrize(
    "wrapper", [layers.TimeDistributed, lambda inner: OverFields(inner, (2, 2))]
)
def test_a_layer_in_a_wrapper_is_clustered_there(wrapper, tmp_path):
    image = keras.Input((4, 5, 3))
    hidden = keras.Sequential([keras.Input((12,)), layers.Dense(4, "tanh"), layers.Dense(2)])
    x = image if wrapper is not layers.TimeDistributed else layers.Reshape((5, 12))(image)
    model = keras.Model(image, wrapper(hidden)(x))
    small, images = cluster(model, 64), noise(2, 4, 5, 3)
    np.testing.assert_allclose(small(images), model(images), atol=1e-5)  # at most 48 values
    kinds = [type(layer) for layer in small.layers[-1].layer.layers]
    assert kinds == [ClusteredDense, ClusteredDense]
    small.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(images), small(images))


def test_twins_share_one_codebook():
    left, right = keras.Input((6,)), keras.Input((6,))
    tower = layers.Dense(4, name="tower")
    once = layers.TimeDistributed(tower)(layers.Reshape((1, 6))(left))
    model = keras.Model([left, right], [*Shared(tower)([left, right]), tower(left), once])
    small, x = cluster(model, 4), [noise(3, 6), noise(3, 6)]
    assert [w.name for w in small.weights] == ["codebook", "bias", "packed_codes"]
    one, two, again, wrapped = small(x)
    np.testing.assert_array_equal(one, again)
    np.testing.assert_allclose(one, wrapped[:, 0], atol=1e-6)
    np.testing.assert_allclose(two, x[1] @ np.asarray(small.get_layer("tower").kernel), atol=1e-5)
    assert sharing_report(small).weights[0].uses == 4


def test_an_untied_reader_is_clustered_by_itself():
    pixels = keras.Input((6,))
    code = layers.Dense(4, name="code")
    model = keras.Model(pixels, TiedDense(code, name="back")(code(pixels)))
    untie(model).get_layer("back").own_layer.kernel.assign(noise(6, 4))
    model.get_layer("back").bias.assign(noise(6))
    small, x = cluster(model, 24), noise(3, 6)
    assert type(small.get_layer("back").own_layer) is ClusteredDense
    np.testing.assert_allclose(small(x), model(x), atol=1e-5)


def test_encoder_and_decoder_as_sub_models():
    model = TiedAutoencoder(units=(5, 3), input_dim=20)
    small = cluster(model, 64)  # as many as the values of the second kernel
    report, x = sharing_report(small), RANDOM.uniform(size=(4, 20)).astype("float32")
    assert report.warnings == ()
    for total in ("parameters_without_sharing", "multiply_adds"):
        assert report.totals[total] == sharing_report(model).totals[total]
    assert sorted(report.weights[0].readers) == ["decoder_1", "encoder_1"]
    np.testing.assert_allclose(small(x), model(x), atol=0.05)


def test_unshared_narrower():
    model = keras.Sequential([keras.Input((20,)), layers.Dense(30), layers.Dense(3)])
    for one in (
        cluster(model, 4),
        keras.Sequential([keras.Input((20,)), HashedDense(30, 4), HashedDense(3, 4)]),
    ):
        narrow = unshare(one, copy_values=False, parameters=400)
        assert 300 < narrow.count_params() <= 400 and narrow.output_shape == (None, 3)


@pytest.mark.slow
def test_lenet_still_reads():
    model = LeNet5.from_preset("lenet5_modern_mnist")
    small = cluster(model, 32)
    image = RANDOM.uniform(0, 255, (64, 28, 28, 1)).astype("float32")
    agree = small.predict(image, verbose=0).argmax(-1) == model.predict(image, verbose=0).argmax(-1)
    assert agree.mean() > 0.8  # of noise, which lies near every border between classes


def test_lora_is_merged_and_quantised_layers_are_refused():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(4, name="d")(inputs))
    model.get_layer("d").enable_lora(2)
    model.get_layer("d").lora_kernel_b.assign(noise(2, 4))
    x = noise(3, 6)
    np.testing.assert_allclose(cluster(model, 24)(x), model(x), atol=1e-5)
    quantized = keras.Model(inputs, layers.Dense(4, name="q")(inputs))
    quantized.quantize("int8")
    with pytest.raises(ValueError, match="'d' has no kernel of its own to adapt"):
        cluster(model).get_layer("d").enable_lora(2)
    with pytest.raises(TieError, match="'q' is quantised as 'int8'"):
        cluster(quantized)


class OwnDense(layers.Dense):
    pass


def test_classes_derived_from_these_stay_and_are_named():
    model = keras.Sequential([keras.Input((6,)), OwnDense(5, name="own"), layers.Dense(4)])
    with pytest.warns(UserWarning, match=r"OwnDense 'own'.* stay as they are"):
        small = cluster(model, 4)
    assert [type(layer).__name__ for layer in small.layers] == ["OwnDense", "ClusteredDense"]
    x = noise(3, 6)
    np.testing.assert_allclose(small.layers[0](x), model.layers[0](x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cluster(net(), 4)
    with pytest.raises(TieError, match="itself. It has .*OwnDense 'own'"):
        cluster(keras.Sequential([keras.Input((6,)), OwnDense(5, name="own")]), 4)


def test_refuses():
    inputs = keras.Input((6,))
    with pytest.raises(TieError, match="has no layer to cluster"):
        cluster(keras.Model(inputs, layers.LayerNormalization()(inputs)))
    for wrong in (1, 257, 16.5, "16"):
        with pytest.raises(ValueError, match=f"from 2 to 256. Received: codes={wrong!r}"):
            cluster(net(), codes=wrong)
    for wrong in (keras.Sequential([layers.Dense(2)]), layers.Dense(2), "model", None):
        with pytest.raises(TieError, match="no graph of layers"):
            cluster(wrong)
    diverged = net()
    diverged.get_layer("hidden").kernel.assign(np.full((72, 7), np.nan))
    with pytest.raises(TieError, match="kernel of Dense 'hidden' holds NaN .* 504 of 504"):
        cluster(diverged)


@pytest.mark.backends
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_same_answers_there_too(backend, tmp_path):
    pytest.importorskip(backend)
    small = cluster(net(), 5)
    small.save(tmp_path / "m.keras")
    image = noise(2, 8, 9, 3)
    np.save(tmp_path / "image.npy", image)
    program = (
        "import json, keras, numpy as np, keras_shared.layers\n"
        f"model = keras.models.load_model('{tmp_path}/m.keras')\n"
        f"x = np.load('{tmp_path}/image.npy')\n"
        "print(json.dumps(model.predict(x, verbose=0).tolist()))\n"
        "model.compile('sgd', 'mse'); model.fit(x, np.zeros((2, 4)), verbose=0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    answer = next(line for line in done.stdout.splitlines() if line.startswith("[["))
    np.testing.assert_allclose(json.loads(answer), small(image), atol=1e-4)
