"""What is frozen in a model of the zoo stays so."""

import copy

import keras
import numpy as np
import pytest

import keras_shared
from keras_shared.zoo import (
    MLP,
    LeNet5,
    MultiTaskNet,
    RBFNet,
    SharedTransformer,
    SiameseNet,
    TiedAutoencoder,
    TimeDelayNet,
)

FROZEN = [
    (LeNet5, lambda m: m.get_layer("C1")),
    (TiedAutoencoder, lambda m: m.encoder),
    (SharedTransformer, lambda m: m.layers[1]),
    (RBFNet, lambda m: m.layers[-1]),
    (TimeDelayNet, lambda m: m.get_layer("hidden_1")),
    (SiameseNet, lambda m: m.probability),
    (MultiTaskNet, lambda m: m.trunk),
]
SMALL = {
    TiedAutoencoder: {"units": (4, 2), "input_dim": 6},
    SharedTransformer: {"vocabulary": list("abc"), "hidden_dim": 4, "num_heads": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "layer"), FROZEN)
def test_frozen_stays_frozen(cls, layer, tmp_path):
    model = cls(**SMALL.get(cls, {}))
    layer(model).trainable = False
    kept = [v.path for v in model.trainable_variables]
    assert len(kept) < len(cls(**SMALL.get(cls, {})).trainable_variables)
    model.save(tmp_path / "m.keras")
    for other in (
        keras.models.load_model(tmp_path / "m.keras"),
        cls.from_config(model.get_config()),
        keras.models.clone_model(model),
        copy.deepcopy(model),
    ):
        assert len(other.trainable_variables) == len(kept)
    model.trainable = True
    assert len(cls.from_config(model.get_config()).trainable_variables) == len(model.weights) - len(
        model.non_trainable_variables
    )


def test_other_classes_and_frozen_layers():
    model = LeNet5(variant="modern")
    model.layers[4].trainable = False
    other = model.with_classes(["even", "odd"])
    assert [la.trainable for la in other.layers] == [la.trainable for la in model.layers]
    images = np.zeros((1, 28, 28, 1))
    assert other.predict(images, verbose=0).shape == (1, 2)


@pytest.mark.parametrize("frozen", ["each layer", "the model"])
def test_a_new_head_is_trained_whatever_is_frozen(frozen):
    model = LeNet5(variant="modern")
    for layer in model.layers if frozen == "each layer" else [model]:
        layer.trainable = False
    other = model.with_classes(["even", "odd"])
    assert [v.path for v in other.trainable_variables] == ["logits/kernel", "logits/bias"]


@pytest.mark.parametrize("frozen", [True, None, "all", {1}])
def test_places_of_frozen_layers_are_a_list(frozen):
    with pytest.raises(ValueError, match="Set layer.trainable = False on those"):
        LeNet5(frozen=frozen)


def test_the_trunk_of_one_task_may_be_frozen(tmp_path):
    model = MultiTaskNet(shared=False)
    model.get_layer("trunk_right").trainable = False
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert len(loaded.trainable_variables) == len(model.trainable_variables) == 14
    assert not loaded.get_layer("trunk_right").trainable


@keras.saving.register_keras_serializable("tests")
class OwnNet(MLP):
    """With a way of its own from a config, as many classes have."""

    def __init__(self, extra=1, **kwargs):
        super().__init__(**kwargs)
        self.extra = extra

    def get_config(self):
        return {**super().get_config(), "extra": self.extra}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def test_a_subclass_keeps_what_is_frozen(tmp_path):
    model = OwnNet(depth=2, units=3, image_shape=(4, 4, 1))
    model.layers[3].trainable = False
    model.save(tmp_path / "m.keras")
    for other in (OwnNet.from_config(model.get_config()), keras_shared.load(tmp_path / "m.keras")):
        assert [la.trainable for la in other.layers] == [la.trainable for la in model.layers]
