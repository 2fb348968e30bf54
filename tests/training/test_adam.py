import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_shared.training.adam import Adam


def numpy_adam(weight, gradients, rate, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Kingma & Ba 2015, algorithm 1, as reordered at the end of section 2."""
    m = v = np.zeros_like(weight)
    for t, gradient in enumerate(gradients, 1):
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        alpha = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        weight = weight - alpha * m / (np.sqrt(v) + epsilon)
    return weight


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_by_hand(betas):
    draws = np.random.default_rng(1)
    start, gradients = draws.normal(size=(3, 2)), draws.normal(size=(5, 3, 2))
    weight, optimizer = keras.Variable(start), Adam(0.1, *betas)
    for gradient in gradients:
        optimizer.apply([keras.ops.cast(gradient, "float32")], [weight])
    wanted = numpy_adam(start, gradients, 0.1, *betas)
    np.testing.assert_allclose(weight, wanted, rtol=1e-5, atol=1e-6)


def word_model():
    keras.utils.set_random_seed(1)
    words = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(9, 3)(words)  # its gradient is sparse
    x = keras.layers.Dense(5, activation="relu")(keras.layers.Flatten()(x))
    return keras.Model(words, keras.layers.Dense(1)(x))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {}, {"gradient_accumulation_steps": 2},
        {"learning_rate": keras.optimizers.schedules.CosineDecay(0.1, 10)},
        *(pytest.param(some, marks=pytest.mark.slow) for some in (
            {"amsgrad": True}, {"use_ema": True, "ema_momentum": 0.9}, {"weight_decay": 0.01},
            {"clipnorm": 0.1},
        )),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "compiled",
    [
        {},
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
        pytest.param({"run_eagerly": True}, marks=pytest.mark.slow),
    ],
)
def test_a_fit_ends_as_with_keras_own(arguments, compiled):
    x = np.random.default_rng(2).integers(0, 9, (32, 4))
    y = np.random.default_rng(3).normal(size=(32, 1))
    ends = []
    for kind in (Adam, keras.optimizers.Adam):
        model = word_model()
        model.compile(kind(**arguments), "mse", **compiled)
        model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
        model.optimizer.finalize_variable_values(model.trainable_variables)
        ends.append([*model.get_weights(), *(v.numpy() for v in model.optimizer.variables)])
    for own, theirs in zip(*ends, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_it_goes_on_from_a_file(tmp_path):
    x, y = np.zeros((8, 4)), np.ones((8, 1))
    model = word_model()
    model.compile(Adam(0.1), "mse")
    model.fit(x, y, epochs=2, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert type(again.optimizer) is Adam
    for unbroken in (model, again):
        unbroken.fit(x, y, epochs=2, verbose=0)
    for kept, loaded in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(kept, loaded, rtol=1e-5, atol=1e-7)


def test_sparse_gradients_as_keras_has_them():
    """A word twice in a batch: the sum of the squares, not the square of the sum."""
    twice = tf.IndexedSlices(tf.constant([[1.0], [-3.5]]), tf.constant([0, 0]), tf.constant([3, 1]))
    weight, optimizer = keras.Variable(np.zeros((3, 1))), Adam(0.1)
    optimizer.apply([twice], [weight])
    np.testing.assert_allclose(optimizer.variables[-1][0], 0.001 * 13.25, rtol=1e-5)
