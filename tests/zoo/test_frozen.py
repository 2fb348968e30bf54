"""What is frozen in a model of the zoo stays so."""

import copy

import keras
import numpy as np
import pytest

from keras_shared.zoo import (
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
