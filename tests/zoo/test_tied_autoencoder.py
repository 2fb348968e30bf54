import keras
import numpy as np
import pytest

import keras_shared
from keras_shared.zoo import TiedAutoencoder

X = np.random.default_rng(0).random((5, 12)).astype("float32")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_parameters():
    assert TiedAutoencoder().count_params() == 1_420_814


def test_by_hand_and_gradient_of_both_uses():
    model = TiedAutoencoder(units=(6, 3), input_dim=12)
    w1, b1, w2, b2 = (v.numpy() for v in model.encoder.variables)
    d2, d1 = (v.numpy() for v in model.decoder.variables)
    code = sigmoid(X @ w1 + b1) @ w2 + b2
    out = sigmoid(sigmoid(code @ w2.T + d2) @ w1.T + d1)
    np.testing.assert_allclose(model.encode(X), code, atol=1e-5)
    np.testing.assert_allclose(model.decode(code), out, atol=1e-5)
    np.testing.assert_allclose(model.predict(X, verbose=0), out, atol=1e-5)

    # numeric derivative of the loss by one entry of w1, which both halves read
    model.compile(keras.optimizers.SGD(1.0), "mse")
    kernel = model.encoder.get_layer("encoder_1").kernel

    def loss(w):
        h = sigmoid(X @ w + b1) @ w2 + b2
        return np.mean((sigmoid(sigmoid(h @ w2.T + d2) @ w.T + d1) - X) ** 2)

    step = np.zeros_like(w1, "float64")
    step[2, 3] = 1e-4
    slope = (loss(w1 + step) - loss(w1 - step)) / 2e-4
    model.train_on_batch(X, X)
    np.testing.assert_allclose(w1[2, 3] - kernel.numpy()[2, 3], slope, rtol=1e-2)


def test_saved_and_still_tied(tmp_path):
    model = TiedAutoencoder(units=(6, 3), input_dim=12, noise=0.1)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.encode(X), model.encode(X))
    kernel = loaded.encoder.get_layer("encoder_1").kernel
    before = loaded.decode(np.ones((1, 3)))
    kernel.assign(kernel * 2)
    assert np.abs(loaded.decode(np.ones((1, 3))) - before).max() > 1e-3
    assert len(loaded.trainable_variables) == 6
    assert loaded.get_config() == model.get_config()


def test_noise_is_for_training_only():
    model = TiedAutoencoder(units=(3,), input_dim=12, noise=1.0)
    quiet = model(X, training=False)
    np.testing.assert_allclose(quiet, model.predict(X, verbose=0), atol=1e-6)
    assert np.abs(model(X, training=True) - quiet).max() > 1e-3


@pytest.mark.slow
def test_clone_quantise_and_mixed_precision(tmp_path):
    model = TiedAutoencoder(units=(32, 8), input_dim=64)
    x = np.random.default_rng(1).random((4, 64)).astype("float32")
    clone = keras.models.clone_model(model)
    assert clone.count_params() == model.count_params()
    before = model.predict(x, verbose=0)
    model.quantize("int8")
    after = model.predict(x, verbose=0)
    assert 0 < np.abs(after - before).max() < 0.02
    model.save(tmp_path / "q.keras")
    loaded = keras.models.load_model(tmp_path / "q.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), after, atol=1e-6)
    half = TiedAutoencoder(units=(32, 8), input_dim=64, dtype="mixed_bfloat16")
    assert half.predict(x, verbose=0).dtype == np.float32


def test_bad_input():
    with pytest.raises(ValueError, match="at least one width"):
        TiedAutoencoder(units=())
    model = TiedAutoencoder(units=(3,), input_dim=12)
    with pytest.raises(ValueError, match=r"`vectors`.*\(batch, 12\). Received.*\(5, 11\)"):
        model.encode(X[:, :11])
    with pytest.raises(ValueError, match=r"`codes`.*\(batch, 3\)"):
        model.decode(X)


@pytest.mark.slow
def test_untied_as_a_whole(tmp_path):
    model = TiedAutoencoder(units=(4, 2), input_dim=6, tied=False)
    assert model.count_params() == 2 * (6 * 4 + 4 * 2) + 4 + 2 + 4 + 6
    kernel = model.decoder.get_layer("decoder_1").own_layer.kernel
    np.testing.assert_array_equal(kernel, model.encoder.get_layer("encoder_1").kernel)
    x = np.random.default_rng(0).random((5, 6)).astype("float32")
    model.compile("sgd", "mse")
    model.fit(x, x, verbose=0)
    assert np.abs(kernel.numpy() - model.encoder.get_layer("encoder_1").kernel.numpy()).max() > 0
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
    assert loaded.get_config() == model.get_config() and not loaded.get_config()["tied"]

    cut = keras_shared.tying.untie(TiedAutoencoder(units=(4, 2), input_dim=6))
    again = keras_shared.load(keras_shared.publish(cut, tmp_path / "cut"))
    np.testing.assert_allclose(again.predict(x, verbose=0), cut.predict(x, verbose=0), atol=1e-6)


@pytest.mark.slow
def test_untied_in_part(tmp_path):
    model = TiedAutoencoder(units=(4, 2), input_dim=6)
    keras_shared.tying.untie(model.decoder.get_layer("decoder_1"))
    x = np.random.default_rng(0).random((5, 6)).astype("float32")
    model.compile("sgd", "mse")
    model.fit(x, x, verbose=0)
    model.save(tmp_path / "m.keras")
    config = type(model).from_config(model.get_config())
    config.set_weights(model.get_weights())
    again = TiedAutoencoder(**model.get_config())
    again.set_weights(model.get_weights())
    for other in (
        again,
        keras.models.load_model(tmp_path / "m.keras"), keras_shared.load(tmp_path / "m.keras"),
        config, keras_shared.load(keras_shared.publish(model, tmp_path / "p")),
    ):  # fmt: skip
        np.testing.assert_allclose(
            other.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6
        )
        assert [r.name for r in keras_shared.tying.readers_of(other)] == ["decoder_2"]
    keras_shared.tying.untie(model.decoder.get_layer("decoder_2"))
    assert model.get_config()["tied"] is False


@pytest.mark.parametrize(("untied", "frozen"), [(2, 3), (1, 1), (3, 1), (3, 3)])
def test_untied_in_part_and_frozen_in_part(tmp_path, untied, frozen):
    model = TiedAutoencoder(units=(8, 6, 4), input_dim=16)
    keras_shared.tying.untie(model.decoder.get_layer(f"decoder_{untied}"))
    model.decoder.get_layer(f"decoder_{frozen}").trainable = False
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert [la.trainable for la in loaded.decoder.layers] == [
        la.trainable for la in model.decoder.layers
    ]
    assert len(loaded.trainable_variables) == len(model.trainable_variables)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [["decoder_2"], False, True])
def test_quantised_whatever_is_tied(tmp_path, tied):
    model = TiedAutoencoder(units=(4, 2), input_dim=6, tied=tied)
    model.quantize("int8")
    x = np.random.default_rng(0).random((5, 6)).astype("float32")
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)


@pytest.mark.parametrize("tied", [["decoder_9"], "decoder_1"])
def test_names_that_no_decoder_has(tied):
    with pytest.raises(ValueError, match="names of the decoder's layers, .*'decoder_1'"):
        TiedAutoencoder(units=(4, 2), input_dim=6, tied=tied)


def test_numbers_of_another_scale():
    model = TiedAutoencoder(units=(3,), input_dim=12)
    for ask in (model.encode, lambda v: model.predict(v, verbose=0)):
        with pytest.warns(UserWarning, match=r"takes values in \[0, 1\]: .* Pixels need \w+ / 255"):
            ask(255 * X)
        for wrong, said in ((X[:0], "no rows"), (np.where(X > 0.5, X, np.nan), "NaN or infinity")):
            with pytest.raises(ValueError, match=said):
                ask(wrong)
    assert model.predict(X > 0.5, verbose=0).shape == X.shape  # black and white
    with pytest.raises(ValueError, match="NaN or infinity"):
        model.decode(np.full((1, 3), np.inf))
