"""What functions that give a new model take over from the old: all that it computes with."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_shared
from keras_shared import TieError
from keras_shared.layers import TiedDense

RANDOM = np.random.default_rng(8)
MAKE = {  # each gives a model with the same outputs
    "unshare": keras_shared.unshare,
    "tie_weights": lambda m: keras_shared.tie_weights(m, {"out": "code"}),
    "cluster": lambda m: keras_shared.cluster(m, 256),
    "resize_vocabulary": lambda m: keras_shared.resize_vocabulary(m, 9),
}


def noise(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def texts():
    words = layers.TextVectorization(max_tokens=8, output_sequence_length=4)
    words.adapt(["a b c", "d e a"])
    given = keras.Input((), dtype="string")
    table = layers.Embedding(8, 4, name="table")
    code = layers.Dense(3, name="code")(table(words(given)))
    return keras.Model(given, TiedDense(table)(layers.Dense(4, name="out")(code)))


def with_lora():
    inputs = keras.Input((4,), dtype="int32")
    table = layers.Embedding(8, 5, name="table")
    inner = layers.Dense(5, name="inner")
    code = layers.Dense(3, name="code")(inner(table(inputs)))
    model = keras.Model(inputs, TiedDense(table)(layers.Dense(5, name="out")(code)))
    inner.enable_lora(2, lora_alpha=8)
    inner.lora_kernel_b.assign(noise(2, 5))
    return model


@pytest.mark.parametrize("how", MAKE)
@pytest.mark.parametrize("kind", ["texts", "with_lora"])
def test_words_and_the_factor_of_lora(kind, how):
    model = {"texts": texts, "with_lora": with_lora}[kind]()
    model.get_layer("out").kernel.assign(model.get_layer("code").kernel.numpy().T)
    x = tf.constant(["a b c d", "e a x"]) if kind == "texts" else RANDOM.integers(0, 8, (3, 4))
    changed = MAKE[how](model)
    outputs = np.array(changed(x))[..., :8]
    np.testing.assert_allclose(outputs, np.array(model(x)), rtol=1e-4, atol=1e-5)


def test_a_model_of_texts_is_reported():
    report = keras_shared.sharing_report(texts())
    [shared] = [weight for weight in report.weights if weight.uses > 1]
    assert shared.readers["table"].times == 1
    words = 4 + (4 * 3 + 3) + (3 * 4 + 4) + (4 * 8 + 8)  # of one: table, code, out, the table again
    assert report.totals["multiply_adds"] == 4 * words


@keras.saving.register_keras_serializable("tests")
class Doubled(keras.Model):
    """A functional model whose call does more than its graph."""

    def call(self, x, training=None, mask=None):
        return super().call(x, training=training, mask=mask) * 2


@pytest.mark.parametrize("how", ["unshare", "tie_weights", "cluster"])
@pytest.mark.parametrize("outermost", [False, True])
def test_a_call_of_its_own_is_refused(how, outermost):
    x, inputs = keras.Input((6,)), keras.Input((6,))
    doubled = Doubled(x, layers.Dense(6, name="out")(layers.Dense(4, name="code")(x)), name="own")
    model = doubled if outermost else keras.Model(inputs, doubled(inputs))
    with pytest.raises((TieError, ValueError), match=r"'own'.*(call of its own|`call`|own call)"):
        MAKE[how](model)


def sub_model(kind):
    x = keras.Input((6,))
    inner = [layers.Dense(6), layers.BatchNormalization()]
    if kind == "sequential":
        return keras.Sequential([x, *inner])
    return keras.Model(x, inner[1](inner[0](x)))


@pytest.mark.parametrize("kind", ["sequential", "functional"])
@pytest.mark.parametrize("named", [False, True])
def test_unshare_hands_down_how_a_sub_model_is_called(kind, named):
    inputs, sub = keras.Input((6,)), sub_model(kind)
    outputs = sub(inputs=inputs, training=True) if named else sub(inputs, training=True)
    model, x = keras.Model(inputs, outputs), 5 + 9 * noise(8, 6)
    np.testing.assert_allclose(keras_shared.unshare(model)(x), model(x), rtol=1e-4, atol=1e-5)


def steps(kind):
    x = keras.Input((4, 6))
    inner = layers.LSTM(3)
    return keras.Sequential([x, inner]) if kind == "sequential" else keras.Model(x, inner(x))


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_unshare_and_masks(kind):
    inputs, mask = keras.Input((4, 6)), keras.Input((4,), dtype="bool")
    told = keras.Model([inputs, mask], steps(kind)(inputs, mask=mask))
    with pytest.raises(ValueError, match="with a `mask` that its inputs do not carry"):
        keras_shared.unshare(told)
    ids = keras.Input((4,), dtype="int32")
    carried = keras.Model(ids, steps(kind)(layers.Embedding(5, 6, mask_zero=True)(ids)))
    x = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    np.testing.assert_allclose(keras_shared.unshare(carried)(x), carried(x), rtol=1e-4, atol=1e-6)
    a, b = keras.Input((6,)), keras.Input((6,))
    both = keras.Model([a, b], layers.Dense(2)(layers.Add()([a, b])))
    c, d = keras.Input((6,)), keras.Input((6,))
    listed, x = keras.Model([c, d], both([c, d])), [noise(2, 6), noise(2, 6)]
    np.testing.assert_allclose(keras_shared.unshare(listed)(x), listed(x), rtol=1e-4, atol=1e-6)


def test_words_that_were_not_adapted_or_have_weights():
    given = keras.Input((1,), dtype="string")
    words = layers.StringLookup()
    keras_shared.unshare(keras.Model(given, words(given))).layers[-1].adapt(["a", "b"])
    weighed = layers.TextVectorization(output_mode="tf_idf", name="weighed")
    weighed.adapt(["a b", "a c"])
    with pytest.raises(TieError, match="TextVectorization 'weighed' cannot be copied: .*tf_idf"):
        keras_shared.unshare(keras.Model(given, weighed(given)))
    odd = layers.StringLookup()
    odd.adapt(["a\nb", "c"])
    copy = keras_shared.unshare(keras.Model(given, odd(given))).layers[-1]
    assert copy.get_vocabulary() == odd.get_vocabulary()


def test_a_convolution_called_by_name_gets_kernels_for_each_position():
    image = keras.Input((8, 8, 1))
    model = keras.Model(image, layers.Conv2D(2, 3)(inputs=image))
    apart, x = keras_shared.unshare(model, convolutions=True), noise(2, 8, 8, 1)
    np.testing.assert_allclose(apart(x), model(x), rtol=1e-4, atol=1e-5)


def test_codes_that_nothing_reads_are_no_penalty():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(4, kernel_regularizer="l1l2")(inputs))
    for codes in (24, 256):
        [loss] = keras_shared.cluster(model, codes).losses
        np.testing.assert_allclose(loss, model.losses[0], rtol=1e-5)


def test_what_a_float8_layer_stops_is_named():
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(4)(layers.Dense(6, name="eight")(inputs)))
    model.get_layer("eight").quantize("float8")
    with pytest.raises(TieError, match="'eight' cannot be copied.*float8.*quantise it then"):
        keras_shared.unshare(model)


def test_multiply_adds_of_an_embedding_read_both_ways():
    ids, table = keras.Input((4,), dtype="int32"), layers.ReversibleEmbedding(6, 8)
    both = keras_shared.sharing_report(keras.Model(ids, table(table(ids), reverse=True)))
    assert both.totals["multiply_adds"] == 4 * 8 + 4 * 8 * 6


def test_a_picture_is_of_a_report(tmp_path):
    with pytest.raises(TypeError, match=r"draw_sharing\(sharing_report\(model\), path\)"):
        keras_shared.draw_sharing(texts(), tmp_path / "x.svg")
