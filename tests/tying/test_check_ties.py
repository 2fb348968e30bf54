import keras
import pytest
from topologies import TOPOLOGIES, encoder_decoder

from keras_shared.layers import TiedDense
from keras_shared.tying import TieError, check_ties
from keras_shared.zoo import LeNet5, SiameseNet, TiedAutoencoder


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda f: f.__name__)
def test_lets_pass_what_survives(topology):
    model = topology()
    before = [v.numpy().tolist() for v in model.variables]
    check_ties(model)
    assert [v.numpy().tolist() for v in model.variables] == before


@pytest.mark.parametrize("zoo_class", [LeNet5, SiameseNet, TiedAutoencoder])
def test_lets_the_zoo_pass(zoo_class):
    check_ties(zoo_class())


def test_source_outside_of_the_model():
    decoder = encoder_decoder().get_layer("decoder")
    with pytest.raises(
        TieError, match="'reader' is tied to the Dense 'code'.*not part of the model"
    ):
        check_ties(decoder)


def test_two_sources_of_one_name():
    x = keras.Input((6,))
    first, second = (keras.layers.Dense(4, name="code") for _ in range(2))
    left, right = keras.Model(x, first(x), name="left"), keras.Model(x, second(x), name="right")
    inputs = keras.Input((6,))
    both = keras.layers.Add()([left(inputs), right(inputs)])
    with pytest.raises(TieError, match="2 layers of the model match this"):
        check_ties(keras.Model(inputs, TiedDense(first)(both)))


class Whole(keras.Model):
    """As the error advises it."""

    def __init__(self, width, scale=None, **kwargs):
        super().__init__(**kwargs)
        self.width, self.scale = width, scale
        self.dense = keras.layers.Dense(width)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "scale": self.scale}


class Closed(Whole):
    def __init__(self, width=2):
        super().__init__(width)


class Unsaid(Whole):
    def get_config(self):
        return keras.Model.get_config(self)


def test_a_class_that_cannot_be_rebuilt():
    x = keras.ops.ones((1, 3))
    for model in (Closed(), Unsaid(2, scale=object())):
        model(x)
        with pytest.raises(TieError, match="cannot be rebuilt from its config: .*Of a class of yo"):
            check_ties(model)
    model = Whole(2)
    model(x)
    check_ties(model)
