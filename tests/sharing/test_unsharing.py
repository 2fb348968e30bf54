import keras
import numpy as np
import pytest
from keras import layers

from keras_shared.layers import Shared, TiedConv2DTranspose, TiedDense, TiedLayer
from keras_shared.sharing import sharing_report, unshare
from keras_shared.zoo import LeNet5, SiameseNet, TiedAutoencoder

RANDOM = np.random.default_rng(4)


def twin_in_sub_models():
    tower = layers.Dense(4, name="tower")
    x, y, inputs = keras.Input((6,)), keras.Input((6,)), keras.Input((6,))
    left = keras.Model(x, tower(x), name="left")
    right = keras.Model(y, TiedLayer(tower)(y), name="right")
    return keras.Model(inputs, layers.Add()([left(inputs), right(left_again(inputs))]))


def left_again(inputs):
    return layers.Dense(6)(inputs)


def repeated():
    """One layer called three times, and a twin called on a dict."""
    inputs, dense = keras.Input((6,)), layers.Dense(6, name="dense")
    x = dense(dense(dense(inputs)))
    both = Shared(keras.Sequential([layers.Dense(3), layers.BatchNormalization()]))
    out = both({"a": x, "b": inputs})
    return keras.Model(inputs, {"sum": layers.Add()([out["a"], out["b"]]), "x": x})


def convolution():
    image = keras.Input((9, 9, 2))
    conv = layers.Conv2D(5, 3, strides=2, name="conv")
    return keras.Model(image, TiedConv2DTranspose(conv)(conv(image)))


def embedding():
    ids = keras.Input((7,), dtype="int32")
    table = layers.Embedding(11, 3, name="table")
    return keras.Model(ids, TiedDense(table, "softmax")(table(ids)))


CASES = {
    "siamese": lambda: SiameseNet(image_shape=(28, 28, 1)),
    "autoencoder": lambda: TiedAutoencoder(units=(8, 3), input_dim=6),
    "lenet": LeNet5,
    "sequential": lambda: keras.Sequential([keras.Input((6,)), layers.Dense(2)]),
    "twin in sub-models": twin_in_sub_models,
    "repeated": repeated,
    "convolution": convolution,
    "embedding": embedding,
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_outputs_stay_and_nothing_is_shared(case):
    model = CASES[case]()
    for variable in model.trainable_variables:  # biases too
        variable.assign(variable + 0.1 * RANDOM.normal(size=variable.shape))
    inputs = [
        RANDOM.integers(0, 11, (3, *t.shape[1:])).astype(t.dtype)
        if "int" in t.dtype
        else RANDOM.random((3, *t.shape[1:])).astype("float32")
        for t in model.inputs
    ]
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    x = keras.tree.pack_sequence_as(structure, inputs)
    before, apart = model.predict(x, verbose=0), unshare(model)
    after = apart.predict(x, verbose=0)
    for a, b in zip(keras.tree.flatten(before), keras.tree.flatten(after), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.abs(a).max()))
    report = sharing_report(apart)
    assert max(w.uses for w in report.weights) == 1
    wanted = sharing_report(model).totals["parameters_without_sharing"]
    assert apart.count_params() == report.totals["parameters"] == wanted
    own = {id(v) for v in model.variables}
    assert not any(id(v) in own for v in apart.variables)
    apart.variables[0].assign(apart.variables[0] + 1)  # and the model stays as it is
    again = model.predict(x, verbose=0)
    for a, b in zip(keras.tree.flatten(before), keras.tree.flatten(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_paper_net_untied():
    assert unshare(TiedAutoencoder()).count_params() == 2_837_314


def test_fresh_values():
    model = TiedAutoencoder(units=(4,), input_dim=6)
    apart = unshare(model, copy_values=False)
    a, b = (np.asarray(v) for v in apart.trainable_variables if v.name == "kernel")
    assert np.abs(a - b.T).max() > 0.01
    apart = unshare(TiedAutoencoder(units=(64,), input_dim=64), copy_values=False)
    down, up = (np.std(v) for v in apart.trainable_variables if v.name == "kernel")
    assert down == pytest.approx(up, rel=0.1)  # drawn alike: a comparison is of sharing alone
    inputs, dense = keras.Input((400,)), layers.Dense(20, kernel_initializer="he_normal")
    apart = unshare(keras.Model(inputs, TiedDense(dense)(dense(inputs))), copy_values=False)
    down, up = (np.std(v) for v in apart.trainable_variables if v.name == "kernel")
    assert down == pytest.approx(up, rel=0.1)  # by the fans of the weight that was read


def test_convolutions_too():
    """Each position has a kernel; LeCun et al. count as many weights as connections then."""
    image = keras.Input((9, 8, 2))
    x = layers.Conv2D(3, 3, strides=2, padding="same", activation="tanh", name="conv")(image)
    model = keras.Model(image, layers.Conv2D(2, 2, name="last")(x))
    for variable in model.variables:
        variable.assign(variable + 0.1 * RANDOM.normal(size=variable.shape))
    apart = unshare(model, convolutions=True)
    x = RANDOM.random((3, 9, 8, 2)).astype("float32")
    np.testing.assert_allclose(model.predict(x, verbose=0), apart.predict(x, verbose=0), atol=1e-5)
    report = sharing_report(apart)
    counts = [r.totals["multiply_adds"] for r in (sharing_report(model), report)]
    assert counts == [apart.count_params()] * 2
    with pytest.raises(ValueError, match="'S2' has no local counterpart"):
        unshare(LeNet5(), convolutions=True)


@pytest.mark.slow
@pytest.mark.parametrize("build", [TiedAutoencoder, SiameseNet, lambda: LeNet5("modern")])
def test_narrow_enough(build):
    model = build()
    most = model.count_params()
    local = isinstance(model, LeNet5)
    narrow = unshare(model, copy_values=False, convolutions=local, parameters=most)
    assert 0.4 * most < narrow.count_params() <= most
    outputs = [keras.tree.flatten(m.output) for m in (model, narrow)]
    assert [t.shape for t in outputs[0]] == [t.shape for t in outputs[1]]
    assert max(w.uses for w in sharing_report(narrow).weights) == 1
    if isinstance(model, TiedAutoencoder):
        assert [narrow.layers[i].units for i in (5, 6)] == [30, narrow.layers[4].units]


def test_a_hidden_layer_with_the_name_of_an_output_becomes_narrower():
    inputs = keras.Input((8,))
    first = keras.Sequential([keras.Input((8,)), layers.Dense(16, name="out")], name="first")
    second = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, name="out"), layers.Dense(3, name="end")],
        name="second",
    )
    model = keras.Model(inputs, [first(inputs), second(inputs)])
    narrow = unshare(model, copy_values=False, parameters=model.count_params() - 20)
    widths = {layer.name: layer.units for layer in narrow.layers if hasattr(layer, "units")}
    hidden, kept = sorted([widths["out"], widths["out_use_1"]])
    assert widths["end"] == 3 and kept == 16 > hidden


def test_narrow_refusals():
    model = TiedAutoencoder(units=(8, 3), input_dim=6)
    assert unshare(model, copy_values=False, parameters=10**6).count_params() == 169
    with pytest.raises(ValueError, match="needs copy_values=False. Received: copy_values=True"):
        unshare(model, parameters=100)
    with pytest.raises(ValueError, match="Allow at least those. Received: parameters=5"):
        unshare(model, copy_values=False, parameters=5)
    x = keras.Input((4,))
    ends = keras.Model(x, layers.ReLU()(layers.Dense(8)(layers.Dense(8)(x))))
    with pytest.raises(ValueError, match="would change the outputs"):
        unshare(ends, copy_values=False, parameters=50)


def test_refusals():
    with pytest.raises(ValueError, match="no graph of layers"):
        unshare(keras.Sequential([layers.Dense(2)]))


def test_a_convolution_at_two_scales():
    convolution = layers.Conv2D(4, 3)
    a, b = keras.Input((9, 9, 3)), keras.Input((5, 5, 3))
    model = keras.Model([a, b], [convolution(a), convolution(b)])
    apart = unshare(model, convolutions=True)
    images = [np.random.default_rng(0).normal(size=(2, n, n, 3)).astype("float32") for n in (9, 5)]
    for one, two in zip(model(images), apart(images), strict=True):
        np.testing.assert_allclose(two, one, atol=1e-5)
    assert apart.count_params() == (7 * 7 + 3 * 3) * (27 + 1) * 4
