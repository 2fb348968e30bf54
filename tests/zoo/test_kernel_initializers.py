"""Every zoo model takes an initialiser by name or object, and recipes name one."""

import keras
import numpy as np
import pytest

from keras_shared import initializers
from keras_shared.layers import LocallyConnected2D
from keras_shared.recipes import RecipeError, read_recipe
from keras_shared.recipes.changes import comparison_of
from keras_shared.training import build_model
from keras_shared.tying.keras_private import flatten_layers
from keras_shared.zoo import MODELS, LeCun1989, LeNet5, SiameseNet, TiedAutoencoder

SMALL = {
    "ImageRNN": [{"units": 5, "read": "row", "image_shape": (4, 4, 1)}],
    "LeCun1989": [{"net": net} for net in (2, 3, 5)],
    "LeNet5": [{"variant": "1998"}, {"variant": "modern"}],
    "MLP": [{"depth": 3, "units": 6, "shared": shared} for shared in (False, True)],
    "MultiTaskNet": [{"width": 2, "image_shape": (20, 20, 1)}],
    "RBFNet": [{"units": 10, "centers": centers} for centers in ("shared", "own")],
    "SharedTransformer": [
        {"num_layers": 2, "num_heads": 2, "hidden_dim": 4, "intermediate_dim": 6}
    ],
    "SharedTransformerClassifier": [
        {
            "vocabulary": ("a", "b"),
            "class_names": ("x", "y"),
            "num_layers": 2,
            "num_heads": 2,
            "hidden_dim": 4,
            "intermediate_dim": 6,
        }
    ],
    "SiameseNet": [{}],
    "TimeDelayNet": [{}],
    "TiedLanguageModel": [{"vocabulary": ("a", "b"), "units": 4, "projection": 0.1}],
    "TiedAutoencoder": [{"units": (8, 3), "input_dim": 12}],
}
CASES = [
    pytest.param(
        name, arguments, marks=[pytest.mark.slow] if name in ("SiameseNet", "LeNet5") else []
    )
    for name in MODELS
    if name not in ("WeightAgnosticNet",)  # its one weight is no kernel
    for arguments in SMALL[name]
]


def kernels(model, local=False):
    """Those of more than one number; `local`: of layers that share nothing too."""
    owners = [layer for layer in flatten_layers(model) if hasattr(layer, "kernel")]
    return [
        layer.kernel
        for layer in {id(layer): layer for layer in owners}.values()
        if layer.kernel.shape != (1, 1) and (local or not isinstance(layer, LocallyConnected2D))
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_every_kernel_is_drawn_by_it(name, arguments, tmp_path):
    model = MODELS[name](**arguments, kernel_initializer="svd")
    assert kernels(model)
    for kernel in kernels(model):
        flat = np.asarray(kernel).reshape(-1, kernel.shape[-1])
        np.testing.assert_allclose(np.linalg.svd(flat, compute_uv=False), 1, rtol=1e-4)
    again = type(model).from_config(model.get_config())
    assert again.get_config()["kernel_initializer"] == "svd"
    given = MODELS[name](**arguments, kernel_initializer=keras.initializers.Constant(0.25))
    assert all((np.asarray(kernel) == 0.25).all() for kernel in kernels(given, True))
    given.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    both = [m.get_config()["kernel_initializer"] for m in (loaded, given)]
    assert both[0] == both[1] and both[0]["config"] == {"value": 0.25}
    left_out = MODELS[name](**arguments).get_config()
    assert left_out["kernel_initializer"] is None
    with pytest.raises(ValueError, match="no initialiser named 'he_norml'"):
        MODELS[name](**arguments, kernel_initializer="he_norml")


def test_each_layer_has_its_own_draw():
    model = TiedAutoencoder(units=(6, 6), input_dim=6, kernel_initializer=initializers.SVD())
    a, b = (np.asarray(kernel) for kernel in kernels(model))
    assert np.abs(a - b).max() > 0.1


@pytest.mark.slow
def test_the_default_draws_what_it_always_drew():
    for kind, name in ((LeNet5, "glorot_uniform"), (SiameseNet, "he_normal")):
        arguments = {"variant": "modern"} if kind is LeNet5 else {}
        pair = []
        for chosen in (None, name):
            keras.utils.set_random_seed(4)
            pair.append(kind(**arguments, kernel_initializer=chosen).get_weights())
        for a, b in zip(*pair):
            np.testing.assert_array_equal(a, b)
    assert LeCun1989().get_config()["kernel_initializer"] is None


def test_recipes_name_one(recipe, tmp_path):
    small = recipe("autoencoder")
    assert small.model.kernel_initializer is None
    assert "kernel_initializer" not in small.to_dict()["model"]
    arms = comparison_of(small, vary="model.kernel_initializer=glorot_uniform,he_normal,svd").arms
    built = [build_model(small.with_changes(arm.changes)) for arm in arms]
    names = [model.get_config()["kernel_initializer"] for model in built]
    assert names == ["glorot_uniform", "he_normal", "svd"]
    changed = small.with_changes({"model.kernel_initializer": "svd"})
    changed.write(tmp_path / "recipe.toml")
    assert read_recipe(tmp_path / "recipe.toml") == changed
    own = small.with_changes({"model.kernel_initializer": "keras.initializers:HeUniform"})
    encoder = build_model(own).encoder.get_layer("encoder_1")
    assert isinstance(encoder.kernel_initializer, keras.initializers.HeUniform)
    with pytest.raises(RecipeError, match=r"`model\.kernel_initializer`: received 'svdd'.*'svd'"):
        small.with_changes({"model.kernel_initializer": "svdd"})


def test_the_class_of_an_initialiser_stands_for_its_object():
    """As in Keras; the model can be saved."""
    model = TiedAutoencoder(units=(4, 2), input_dim=6, kernel_initializer=initializers.SVD)
    again = TiedAutoencoder.from_config(model.get_config())
    first = again.get_layer("encoder").get_layer("encoder_1")
    assert isinstance(first.kernel_initializer, initializers.SVD)


@pytest.mark.parametrize("name", ["SharedTransformer", "LeNet5"])
def test_a_delta_where_there_is_no_middle_is_refused(name):
    """A kernel of attention has three axes, as one of Conv1D: all but one row would be 0."""
    with pytest.raises(ValueError, match="no kernel .* with a middle.* 'svd', here"):
        MODELS[name](**SMALL[name][0], kernel_initializer="delta_orthogonal")
