"""What all models of the zoo have in common."""

import keras
import numpy as np
import pytest

import keras_shared
from keras_shared.errors import KerasSharedError
from keras_shared.recipes import recipe_from
from keras_shared.tying import readers_of
from keras_shared.zoo import (
    ImageClassifier,
    LeCun1989,
    LeNet5,
    MultiTaskNet,
    RBFNet,
    SiameseNet,
    TiedAutoencoder,
    TimeDelayNet,
    WeightAgnosticNet,
    ZooModel,
)

SMALL = (
    lambda: SiameseNet(image_shape=(28, 28, 1)),
    lambda: TiedAutoencoder(units=(4, 2), input_dim=6),
    lambda: LeNet5("modern", num_classes=3),
    lambda: LeCun1989(net=3),
    lambda: MultiTaskNet(width=1, image_shape=(18, 18, 1)),
    lambda: TimeDelayNet((3, 4)),
    lambda: RBFNet(20, "own"),
    lambda: WeightAgnosticNet(((1, 65), (65, 66)), ("tanh",), class_names=("a", "b")),
)


@pytest.mark.parametrize("make", SMALL)
def test_a_clone_is_plain_and_the_advice_keeps_the_class(make):
    """Keras gives each layer to its own clone function, and puts a Functional around them."""
    model = make()
    for weight in model.weights:
        weight.assign(np.random.default_rng(1).normal(size=weight.shape) / 8)
    clone = keras.models.clone_model(model)
    assert type(clone) is not type(model) and not hasattr(clone, "signatures")

    copy = type(model).from_config(model.get_config())  # what the docstring of ZooModel says
    copy.set_weights(model.get_weights())
    assert copy.get_config() == model.get_config() and set(copy.signatures()) == set(
        model.signatures()
    )
    clone.set_weights(model.get_weights())
    x = keras.tree.map_structure(
        lambda t: np.random.default_rng(2).random((2, *t.shape[1:])).astype("float32"), model.input
    )
    for again in (copy, clone):
        for answer, wanted in zip(
            keras.tree.flatten(again(x)), keras.tree.flatten(model(x)), strict=True
        ):
            np.testing.assert_allclose(answer, wanted, atol=1e-5)
        assert len(again.weights) == len(model.weights)  # shared as before
        assert len(readers_of(again)) == len(readers_of(model))
    mine = {id(v) for v in model.weights}
    assert not any(id(v) in mine for v in copy.weights)


def test_what_a_class_of_ones_own_lacks_is_named(tmp_path, monkeypatch):
    class Bare(ZooModel):
        def __init__(self, **kwargs):
            x = keras.Input((3,))
            super().__init__(x, keras.layers.Dense(2)(x), **kwargs)

    class BareClassifier(ImageClassifier):
        def __init__(self, **kwargs):
            x = keras.Input((2, 2, 1))
            super().__init__(x, keras.layers.Dense(2)(keras.layers.Flatten()(x)), **kwargs)

    monkeypatch.setattr("test_zoo_model.Bare", Bare, raising=False)
    bare, classifier = Bare(), BareClassifier()
    named = {"model": {"class_name": "test_zoo_model:Bare"}, "data": {"name": "digits"}}
    with pytest.raises(KerasSharedError, match="Bare has no `task`.*expected one of keras_shared"):
        recipe_from({"name": "own", **named})
    for use, lacking, write in (
        (lambda: bare.compile(), "Bare has no `loss_names`", r"loss_names = \(\"mean_squ"),
        (lambda: keras_shared.publish(bare, tmp_path), "Bare has no `signatures`", "def sig"),
        (lambda: keras_shared.publish(classifier, tmp_path), "BareClassifier has no `class_names`",
         r"self.class_names = \(\"a\", \"b\"\)"),
        (lambda: classifier.classify(np.zeros((1, 2, 2, 1))), "has no `class_names`", "self.class"),
    ):  # fmt: skip
        with pytest.raises(KerasSharedError, match=f"{lacking}. Write in .*: {write}"):
            use()
    assert (Bare.description, Bare.limits) == ("", "")
    assert not hasattr(keras_shared.zoo.SiameseNet(), "class_names")  # it has no classes
    assert not hasattr(bare, "class_names") and not hasattr(Bare, "loss_names")
    bare.compile("adam", "mean_squared_error")  # as the error advises
    bare.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    classifier.class_names = ("a", "b")
    classifier.compile()
    assert classifier.classify(np.zeros((1, 2, 2, 1)))[0] in "ab"
    assert list(classifier.signatures()) == ["classify"]


@pytest.mark.slow
def test_the_suffix_tells_the_format(tmp_path):
    model = TiedAutoencoder(units=(4, 2), input_dim=6)
    with pytest.warns(UserWarning, match="LiteRT stores"):
        model.export(tmp_path / "m.tflite")
    assert (tmp_path / "m.tflite").read_bytes()[4:8] == b"TFL3"
    model.export(tmp_path / "folder")
    assert (tmp_path / "folder" / "saved_model.pb").exists()
    pytest.importorskip("safetensors", reason="pip install 'keras_shared[safetensors]'")
    model.export(tmp_path / "m.safetensors")
    other = TiedAutoencoder(units=(4, 2), input_dim=6)
    keras_shared.load_safetensors(other, tmp_path / "m.safetensors")
    x = np.random.default_rng(0).random((2, 6))
    np.testing.assert_allclose(other(x), model(x), atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 0), (8, None, 1), (8.0, 8, 1), "886", 8, None])
@pytest.mark.parametrize(
    "name",
    [
        "ImageRNN",
        "MLP",
        "MultiTaskNet",
        "RBFNet",
        "SiameseNet",
        "TimeDelayNet",
        "WeightAgnosticNet",
    ],
)
def test_shapes_that_are_none_of_an_image(name, shape):
    if name == "SiameseNet" and shape == (8, None, 1):
        shape = (8, 8, None)  # heights and widths may be open there
    with pytest.raises(ValueError, match=r"`image_shape` must be \(height, width, ch"):
        getattr(keras_shared.zoo, name)(image_shape=shape)


@pytest.mark.parametrize("given", ["yes", ("a",), (), ("a", "a"), (1, 2), 3, {"a": 1, "b": 2}])
@pytest.mark.parametrize(
    "name",
    ["ImageRNN", "LeNet5", "MLP", "MultiTaskNet", "RBFNet", "SharedTransformerClassifier",
     "TimeDelayNet", "WeightAgnosticNet"],
)  # fmt: skip
def test_names_that_are_none_of_classes(name, given):
    """A text would be taken for the names of its letters."""
    more = {"LeNet5": {"variant": "modern"}, "SharedTransformerClassifier": {"vocabulary": ["a"]}}
    given = {"left": given, "right": ("a", "b")} if name == "MultiTaskNet" else given
    with pytest.raises(ValueError, match=r"`class_names(\['left'\])?` must (be a list|name each)"):
        getattr(keras_shared.zoo, name)(class_names=given, **more.get(name, {}))
