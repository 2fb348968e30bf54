import keras
import numpy as np
import pytest
from keras import layers

from keras_shared.layers import TiedLayer
from keras_shared.tying import TieError, check_ties


def two_models():
    image = keras.Input((8, 8, 1))
    features = layers.Flatten()(layers.Conv2D(2, 3)(image))
    tower = keras.Model(image, features, name="tower")
    a, b = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    query = keras.Model(a, layers.Dense(3)(tower(a)), name="query")
    answer = keras.Model(b, layers.Dense(3)(TiedLayer(tower)(b)), name="answer")
    x, y = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    return keras.Model([x, y], layers.Dot(1)([query(x), answer(y)]))


def test_a_tower_in_two_sub_models_is_saved_once(tmp_path):
    model = two_models()
    assert len(model.trainable_variables) == 6
    x = np.random.rand(2, 3, 8, 8, 1).astype("float32")
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(
        loaded.predict(list(x), verbose=0), model.predict(list(x), verbose=0)
    )
    kernel = loaded.get_layer("query").get_layer("tower").layers[1].kernel
    before = np.asarray(loaded.get_layer("answer")(x[0]))
    kernel.assign(kernel * 2)
    assert np.abs(np.asarray(loaded.get_layer("answer")(x[0])) - before).max() > 1e-3


def test_it_builds_its_source_and_adds_nothing():
    tower = layers.Dense(3)
    layer = TiedLayer(tower)
    out = layer(np.ones((2, 5), "float32"))
    np.testing.assert_array_equal(out, tower(np.ones((2, 5), "float32")))
    assert layer.variables == [] and layer.compute_output_shape((None, 5)) == (None, 3)


def test_no_layer():
    with pytest.raises(TieError, match="pass a Layer object"):
        TiedLayer("tower")


def test_two_sizes_of_one_source(tmp_path):
    convolution, x = layers.Conv2D(3, 3, name="convolution"), keras.Input((8, 8, 1))
    left = keras.Model(x, convolution(x), name="left")
    small, large = keras.Input((8, 8, 1)), keras.Input((12, 12, 1))
    again = TiedLayer(convolution)
    flat = [layers.Dense(2)(layers.Flatten()(again(image))) for image in (small, large)]
    right = keras.Model([small, large], flat, name="right")
    model = keras.Model([small, large], [left(small), *right([small, large])])
    images = [np.ones((1, 8, 8, 1)), np.ones((1, 12, 12, 1))]
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for ours, theirs in zip(loaded(images), model(images), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    check_ties(model)
