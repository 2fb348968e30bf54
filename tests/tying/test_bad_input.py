"""What cannot hold says which reader, which source, what happened, and what to do."""

import json
import zipfile

import keras
import numpy as np
import pytest
from topologies import (
    OfTwoLayers,
    X,
    convolution,
    dense,
    encoder_decoder,
    flat,
    reader_of,
    sequential,
    tower_in_two_sub_models,
)  # fmt: skip

import keras_shared
from keras_shared.layers import TiedLayer
from keras_shared.presets.publishing import PublishError
from keras_shared.tying import (
    TiedReader,
    TieError,
    bind_ties,
    check_ties,
    readers_of,
    tie,
    untie,
)


def edited(path, change):
    """Rewrite the config inside of a `.keras` file."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    config = json.loads(parts["config.json"])
    (reader,) = (la for la in config["config"]["layers"] if la["config"]["name"] == "reader")
    change(reader["config"])
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return path


def test_a_file_whose_tied_shape_was_edited(tmp_path):
    flat().save(tmp_path / "m.keras")
    path = edited(tmp_path / "m.keras", lambda c: c["source"].update(weight_shape=[7, 4]))
    message = r"'code' \(weight \[7, 4\]\) and owns variables \[\(7,\)\].* holds \[\(6,\)\].*edited"
    with pytest.raises(ValueError, match=message):
        keras_shared.load(path)
    path = edited(path, lambda c: c["source"].update(weight_shape=[6, 5]))
    with pytest.raises(ValueError, match=r"takes inputs \(..., 5\).*Received: input_shape"):
        keras_shared.load(path)


def test_a_config_that_says_tied_over_variables_that_are_not(tmp_path):
    untie(flat()).save(tmp_path / "m.keras")
    tied = {"name": "code", "class_name": "Dense"}
    path = edited(tmp_path / "m.keras", lambda c: c["source"].update(tied))
    with pytest.raises(ValueError, match="(?s)'reader' is tied to 'code', and has an `own_layer`"):
        keras_shared.load(path)
    untied = edited(path, lambda c: c["source"].update(name=None, class_name=None))
    with pytest.raises(ValueError, match="'reader' was untied, and its config has no `own_layer`"):
        keras_shared.load(edited(untied, lambda c: c.pop("own_layer")))
    path = edited(untied, lambda c: c["source"].update(tied))
    with pytest.raises(
        ValueError,
        match="'reader' is tied to 'code'.*the file holds .*6.*or one after `untie`, call",
    ):
        keras_shared.load(path)
    flat().save_weights(tmp_path / "tied.weights.h5")
    with pytest.raises(ValueError, match="'reader' was untied .* the file holds it as tied"):
        untie(flat()).load_weights(tmp_path / "tied.weights.h5")
    model = flat()  # as the message says
    model.load_weights(tmp_path / "tied.weights.h5")
    assert readers_of(untie(model)) == []


@pytest.mark.parametrize("topology", [flat, tower_in_two_sub_models, convolution])
def test_weights_of_an_untied_model(topology, tmp_path):
    untie(topology()).save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(ValueError, match="load it untied, call `keras_shared.tying.untie`"):
        topology().load_weights(tmp_path / "m.weights.h5")
    untie(topology()).load_weights(tmp_path / "m.weights.h5")
    keras_shared.load_weights(topology(), tmp_path / "m.weights.h5")


def test_untie_and_tie_before_anything_was_called():
    source = dense()
    source.build((None, 6))
    reader = reader_of(source)
    with pytest.raises(TieError, match="'reader' was never called"):
        untie(reader)
    reader(X[:, :4])
    with pytest.raises(TieError, match="The source 'code' was never built"):
        tie(untie(reader), dense())


@keras.saving.register_keras_serializable("tests")
class OneLayerTwice(OfTwoLayers):
    """One layer in two attributes, both in the config: Keras makes two of it."""

    def call(self, inputs):
        return self.first(inputs) + self.second(inputs)


def test_a_subclassed_model_that_comes_back_untied():
    layer = dense()
    model = OneLayerTwice(layer, layer)
    model(X)
    with pytest.raises(
        TieError, match="has 2 variables, but 4 after it is rebuilt from its config"
    ):
        check_ties(model)
    layer = dense()
    model = OneLayerTwice(layer, TiedLayer(layer))  # as the message says
    model(X)
    check_ties(model)


def test_a_source_that_cannot_be_dequantised():
    def model():
        inputs = keras.Input((6,))
        source = Packed(name="packed")
        return keras.Model(inputs, OfPacked(source, name="reader")(source(inputs)))

    quantised = model()
    with pytest.raises(TieError, match="Packed 'packed', which is quantised as 'int8'"):
        quantised.quantize("int8")
        quantised(X)
    cut = untie(model())  # as the message says
    before = cut(X)
    cut.get_layer("packed").quantize("int8")
    np.testing.assert_allclose(cut(X), before, atol=0.05 * np.abs(before).max())


@keras.saving.register_keras_serializable("tests")
class Packed(keras.layers.Layer):
    """A layer of somebody else that quantises in its own way."""

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], input_shape[-1]))

    def call(self, inputs):
        return inputs @ keras.ops.cast(self.kernel, "float32")

    _int8_call = call

    def quantize(self, mode, **kwargs):
        if not getattr(self, "begun", False):  # setting the policy calls it again
            self.begun = True
            self.dtype_policy = keras.dtype_policies.get("int8_from_float32")


@keras.saving.register_keras_serializable("tests")
class OfPacked(TiedReader):
    source_classes = (Packed,)

    def call(self, inputs):
        return inputs @ self.tied_weight()


def test_a_source_of_another_model(tmp_path):
    stranger = flat().get_layer("code")
    code = keras.Input((4,))
    model = keras.Model(code, reader_of(stranger)(code), name="lonely")
    model(X[:, :4])  # it works, as long as both live
    with pytest.raises(
        TieError,
        match="'reader' is tied to the Dense 'code', which is not part of the model 'lonely'",
    ):
        bind_ties(model)
    with pytest.raises(TieError, match="not part of the model"):
        check_ties(model)
    model.save(tmp_path / "m.keras")
    with pytest.raises(TieError, match="'reader' is tied to the Dense 'code'.*model that contains"):
        keras_shared.load(tmp_path / "m.keras")
    with pytest.raises(PublishError, match="lies elsewhere, untie it"):
        keras_shared.publish(model, tmp_path / "lonely")


def test_a_source_never_built():
    with pytest.raises(TieError, match=r"'code', which has not been built.*`code.build\("):
        reader_of(dense())(keras.Input((4,)))


@pytest.mark.slow
def test_the_class_not_imported_at_load(tmp_path, fresh_python):
    sequential().save(tmp_path / "m.keras")
    code = """
import sys, keras
try:
    keras.models.load_model(sys.argv[1])
except Exception as error:
    print(error)
"""
    said = fresh_python(code, tmp_path / "m.keras")
    assert "Could not locate class 'TiedDense'" in said and "keras_shared" in said
    assert fresh_python("import keras_shared.layers" + code, tmp_path / "m.keras") == ""


def test_one_plain_layer_in_two_sub_models():
    tower = keras.layers.Dense(4, name="tower")
    x, y, inputs = keras.Input((6,)), keras.Input((6,)), keras.Input((6,))
    left, right = keras.Model(x, tower(x), name="left"), keras.Model(y, tower(y), name="right")
    model = keras.Model(inputs, keras.layers.Add()([left(inputs), right(inputs)]))
    message = "2 variables, but 4 after it.* model or layer contains 'tower' .in left and right"
    with pytest.raises(TieError, match=message):
        check_ties(model)


def test_the_sub_model_alone_says_how_to_call_it():
    decoder = keras.models.clone_model(encoder_decoder()).get_layer("decoder")
    with pytest.raises(TieError, match=r"Call the model that contains both, run.*bind_ties\(model"):
        decoder(X[:, :4])


def test_a_name_or_a_path_where_a_layer_belongs(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="d2")])
    with pytest.raises(
        TieError, match="names no preset and no file. Of a layer pass the l"
    ) as said:
        untie("d2")
    assert "model.get_layer('d2')" in str(said.value) and "load" not in str(said.value)
    with pytest.raises(TieError, match="'d2' .of type str.*model.get_layer..d2"):
        tie(model, "d2")
    model.save(tmp_path / "d2.keras")
    for given in ("lenet5_mnist", str(tmp_path / "d2.keras"), tmp_path / "d2.keras"):
        with pytest.raises(TieError, match="Load it first: keras_shared.load") as said:
            keras_shared.sharing_report(given)
        call = str(said.value).rpartition("first: ")[2].rstrip(".")
        assert isinstance(eval(call, {"keras_shared": keras_shared}), keras.Model)
    with pytest.raises(TieError, match="It names no preset and no file.$"):
        untie(tmp_path / "d3.keras")


@pytest.mark.parametrize("given", ["model.keras", None, keras.layers.Dense])
def test_what_is_no_model(given, tmp_path):
    """A path where a model belongs, or a class without its brackets."""
    asked = {
        keras_shared.find_ties: (), keras_shared.sharing_report: (), keras_shared.untie: (),
        keras_shared.tie: (keras.layers.Dense(2),), keras_shared.unshare: (), check_ties: (),
        keras_shared.cluster: (), keras_shared.signal_report: ([[1.0]],),
        keras_shared.publish: (tmp_path / "published",),
    }  # fmt: skip
    for function, more in asked.items():
        with pytest.raises(TieError, match="model|Sequential") as said:
            function(given, *more)
        assert "Keras model or layer is expected. Received" in str(said.value) or "graph of" in str(
            said.value
        )
    assert not list(tmp_path.iterdir())
