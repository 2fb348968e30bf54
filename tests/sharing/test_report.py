import io
import json
import re
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from rich.console import Console

import keras_shared
from keras_shared.cli import main
from keras_shared.layers import (
    Shared,
    SharedStack,
    TiedConv2DTranspose,
    TiedDense,
    TiedLayer,
    TransformerBlock,
)
from keras_shared.sharing import Reading, draw_sharing, sharing_report, stored_report, unshare
from keras_shared.sharing.picture import picture
from keras_shared.sharing.table import print_report
from keras_shared.tying import tie, untie
from keras_shared.zoo import LeNet5, SiameseNet, TiedAutoencoder


def weight(report, path):
    (found,) = (w for w in report.weights if w.path == path)
    return found


def test_connections_of_lenet_as_the_paper_counts_them():
    report = sharing_report(LeNet5())
    by_layer = {}
    for w in report.weights:
        layer = w.path.partition("/")[0]
        by_layer[layer] = by_layer.get(layer, 0) + w.multiply_adds
    assert by_layer == {
        "C1": 122_304, "S2": 5_880, "C3": 151_600, "S4": 2_000, "C5": 48_120, "F6": 10_164,
        "distances": 840,
    }  # fmt: skip
    assert report.totals["multiply_adds"] == 340_908
    assert report.totals["trainable_parameters"] == 60_000 and report.warnings == ()


def test_tied_autoencoder():
    report = sharing_report(TiedAutoencoder())
    kernel = weight(report, "encoder_1/kernel")
    assert kernel.readers == {
        "encoder_1": Reading("as is", 1), "decoder_1": Reading("transposed", 1),
    }  # fmt: skip
    assert (
        kernel.uses == 2 and kernel.multiply_adds == 2 * 784 * 1000 and kernel.bytes == 4 * 784_000
    )
    assert report.totals["parameters"] == 1_420_814
    assert report.totals["parameters_without_sharing"] == 2_837_314  # the untied net of the paper
    assert report.stored_bytes["litert"] - report.stored_bytes["onnx"] == 4 * (
        2_837_314 - 1_420_814
    )


def test_towers_count_each_call():
    report = sharing_report(SiameseNet())
    assert weight(report, "conv_2/kernel").readers == {"conv_2": Reading("as is", 2)}
    assert report.totals["parameters_without_sharing"] == 2 * 106_960 + 2

    tower = layers.Dense(4, name="tower")
    x, y, inputs = keras.Input((6,)), keras.Input((6,)), keras.Input((6,))
    left = keras.Model(x, tower(x), name="left")
    right = keras.Model(y, TiedLayer(tower)(y), name="right")
    model = keras.Model(inputs, layers.Add()([left(inputs), right(inputs)]))
    assert weight(sharing_report(model), "tower/kernel").uses == 2


def test_multiply_adds_of_convolutions_and_embeddings_by_hand():
    image = keras.Input((9, 9, 2))
    conv = layers.Conv2D(5, 3, strides=2, name="conv")  # 4 x 4 positions
    model = keras.Model(image, TiedConv2DTranspose(conv, name="back")(conv(image)))
    kernel = weight(sharing_report(model), "conv/kernel")
    assert kernel.readers == {
        "conv": Reading("as is", 1), "back": Reading("convolution adjoint", 1),
    }  # fmt: skip
    assert kernel.multiply_adds == 2 * 16 * (3 * 3 * 2 * 5)
    ids = keras.Input((7,), dtype="int32")
    table = layers.Embedding(11, 3, name="table")
    model = keras.Model(ids, TiedDense(table, name="logits")(table(ids)))
    embeddings = weight(sharing_report(model), "table/embeddings")
    assert embeddings.multiply_adds == 7 * 3 + 7 * 11 * 3


def test_a_reader_called_twice(tmp_path):
    report = sharing_report(reader_called_twice())
    kernel = weight(report, "code/kernel")
    assert kernel.readers == {"code": Reading("as is", 2), "back": Reading("transposed", 2)}
    assert list(kernel.readers) == ["code", "back"] and kernel.uses == 4
    assert report.stored_bytes["litert"] - report.stored_bytes["onnx"] == kernel.bytes
    written = json.loads(json.dumps(report.to_dict()))
    assert written["weights"][0]["readers"]["back"] == {"form": "transposed", "times": 2}
    picture = draw_sharing(report, tmp_path / "m.svg").read_text()
    assert "back x 2" in picture and "dashed: transposed" in picture


def test_printed(capsys):
    print_report(sharing_report(reader_called_twice()), Console(width=120))
    said = capsys.readouterr().out
    assert "back (transposed) x 2" in said and "multiply-adds" in said and "code x 2" in said


@pytest.mark.parametrize(
    "name", ["lenet5_mnist", "siamese_omniglot", "tied_autoencoder_mnist", "lecun_1989"]
)
def test_printed_in_80_columns(name):
    report = sharing_report(keras_shared.load(name, compile=False))
    text, lines = printed(report)
    assert max(map(len, lines)) <= 80 and "…" not in text
    for w in report.weights:
        [line] = [line for line in lines if line.startswith(f"{w.path} ")]
        counts = (f"{w.bytes:,}", str(w.uses), f"{w.multiply_adds:,}")
        assert "x".join(map(str, w.shape)) in line.split()
        assert all(count in line.split() for count in counts)
        assert all(reader in text for reader in w.readers)


def test_paths_are_broken_at_their_slashes():
    report = sharing_report(keras_shared.load("shared_transformer_shakespeare", compile=False))
    text, lines = printed(report)
    assert max(map(len, lines)) <= 80
    column = "\n".join(line[: lines[1].index("shape")].rstrip() for line in lines)
    for w in report.weights:
        assert re.search(re.escape(w.path).replace("/", "/\n?"), column), w.path
    # names of readers stay whole beside them
    assert "feed_forward_norm" in text.replace("feed_forward_norm/", "")


def test_joined_uses_count_as_looped_ones():
    def model(mode):
        a, b, c = (keras.Input((6,)) for _ in range(3))
        tower = keras.Sequential([layers.Dense(4), layers.BatchNormalization(), layers.Dense(3)])
        shared = Shared(tower, mode=mode)
        alone = layers.Dense(2, name="alone")
        outer = Shared(Shared(layers.Dense(5)), mode=mode)
        return keras.Model([a, b, c], [shared([a, b, c]), alone(tower(a)), outer([[a, b], [b, c]])])

    looped, joined = (sharing_report(model(mode), check=False) for mode in ("looped", "joined"))
    assert [w.uses for w in looped.weights] == [w.uses for w in joined.weights]
    assert {w.uses for w in joined.weights} == {1, 4}
    assert looped.totals == joined.totals
    assert joined.totals["parameters_without_sharing"] == unshare(model("looped")).count_params()
    (said,) = [w for w in sharing_report(model("joined")).warnings if "BatchNorm" in w]
    assert "is called 2 times" in said  # once for all three, and once alone


def test_layers_of_one_name_are_told_apart():
    """Two heads read one kernel, each its own way; both layers are called "out"."""
    table = layers.Dense(6, use_bias=False, name="table")
    inputs = keras.Input((4,))
    hidden = table(inputs)
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(5, name="out")], name="plain")
    code = keras.Input((6,))
    tied = keras.Model(code, TiedDense(table, use_bias=False, name="out")(code), name="tied")
    other = keras.Sequential([keras.Input((6,)), layers.Dense(5, name="out")], name="other")
    model = keras.Model(inputs, [plain(hidden), tied(hidden), other(hidden)])
    report = sharing_report(model)
    found = {w.path: list(w.readers) for w in report.weights}
    assert found == {
        "table/kernel": ["table", "tied/out"],
        "plain/out/kernel": ["plain/out"],
        "plain/out/bias": ["plain/out"],
        "other/out/kernel": ["other/out"],
        "other/out/bias": ["other/out"],
    }
    assert [w.owner for w in report.weights][1::2] == ["plain/out", "other/out"]
    assert report.weights[0].readers["tied/out"].form == "transposed"


def test_a_weight_of_the_model_itself():
    class Scaled(keras.Model):
        def __init__(self):
            super().__init__(name="scaled")
            self.dense = layers.Dense(3)
            self.gain = self.add_weight(shape=(3,), name="gain")

        def call(self, inputs):
            return self.dense(inputs) * self.gain

    model = Scaled()
    model(np.ones((1, 4), "float32"))
    (gain,) = [w for w in sharing_report(model).weights if w.path.endswith("gain")]
    assert gain.owner == "scaled" and list(gain.readers) == ["scaled"]


def test_a_batch_normalization_of_a_name_that_others_have_is_found():
    def tower(name, width):
        norm = layers.BatchNormalization(name="norm")
        return keras.Sequential([keras.Input((width,)), norm], name=name)

    a, b = keras.Input((4,)), keras.Input((4,))
    shared, once = tower("shared", 4), tower("once", 8)
    (said,) = sharing_report(
        keras.Model([a, b], once(layers.Concatenate()([shared(a), shared(b)])))
    ).warnings
    assert said.startswith("'shared/norm' is a BatchNormalization that is called 2 times")


def test_long_paths_are_folded_and_numbers_are_not():
    inputs = keras.Input((4000,))
    name = "a_layer_with_a_name_that_is_longer_than_any_column"
    half = layers.Dense(3, name="half", dtype="float16", kernel_regularizer="l2")
    model = keras.Model(inputs, half(layers.Dense(5000, name=name)(inputs)))
    text, lines = printed(sharing_report(model))
    assert max(map(len, lines)) <= 80 and "…" not in text
    for whole in ("80,000,000", "20,000,000", "4000x5000", "float16", "L2"):
        assert whole in text


def printed(report):
    page = io.StringIO()
    print_report(report, Console(file=page, width=80))
    return page.getvalue(), page.getvalue().splitlines()


def drawn_lines(report, weight, reader):
    """The lines of the picture that end at the heights of a weight and of its reader."""
    [axes] = picture(report).axes
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    [start] = [y for text, y in heights.items() if text.startswith(f"{weight} ")]
    ends = (start, heights[reader])
    lines = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) > 1]
    return [y for y in lines if (y[0], y[-1]) == pytest.approx(ends)]


@pytest.mark.slow
def test_a_picture_shows_each_use():
    towers = sharing_report(SiameseNet())
    lines = drawn_lines(towers, "conv_2/kernel", "conv_2 x 2")
    assert len(lines) == 2 and np.abs(lines[0] - lines[1]).max() > 0.1
    assert len(drawn_lines(towers, "probability/kernel", "probability")) == 1
    tied = sharing_report(TiedAutoencoder(units=(4, 2), input_dim=6))
    assert len(drawn_lines(tied, "encoder_1/kernel", "encoder_1")) == 1
    assert len(drawn_lines(tied, "encoder_1/kernel", "decoder_1")) == 1
    assert "orange: read more than once, one line a call" in picture(tied).axes[0].get_title()
    for uses in (3, 4, 6):
        inputs = [keras.Input((6,)) for _ in range(uses)]
        outputs = Shared(layers.Dense(4, name="dense"), name="pair")(inputs)
        report = sharing_report(keras.Model(inputs, layers.Add()(outputs)))
        assert len(drawn_lines(report, "pair/dense/kernel", f"dense x {uses}")) == min(uses, 4)


def reader_called_twice():
    inputs, code = keras.Input((100,)), layers.Dense(64, name="code")
    back = TiedDense(code, name="back")
    return keras.Model(inputs, back(code(back(code(inputs)))))


def decoder_alone():
    return TiedAutoencoder(units=(64,), input_dim=100).decoder


def tied_dense():
    return TiedAutoencoder(units=(64,), input_dim=100)


def tied_convolution():
    image = keras.Input((8, 8, 16))
    conv = layers.Conv2D(24, 3, name="conv")
    return keras.Model(image, TiedConv2DTranspose(conv)(conv(image)))


def tied_table():
    ids = keras.Input((5,), dtype="int32")
    table = layers.Embedding(80, 64, name="table")
    return keras.Model(ids, TiedDense(table)(table(ids)))


@pytest.mark.filterwarnings("ignore:LiteRT stores")
@pytest.mark.parametrize("build", [reader_called_twice, decoder_alone])
def test_litert_stores_a_kernel_in_each_form_that_is_read(build, tmp_path):
    model = build()
    path = keras_shared.export(model, tmp_path / "m.tflite", format="litert")
    assert abs(path.stat().st_size - sharing_report(model).stored_bytes["litert"]) < 3_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LiteRT stores")
@pytest.mark.parametrize("build", [tied_dense, tied_convolution, tied_table])
def test_what_is_stored_is_what_the_files_hold(build, tmp_path):
    model = build()
    stored = sharing_report(model).stored_bytes
    for format, name in (("onnx", "m.onnx"), ("litert", "m.tflite")):
        path = keras_shared.export(model, tmp_path / name, format=format)
        assert 0 <= path.stat().st_size - stored[format] + 400 < 8_000  # zero biases are folded
    path = keras_shared.publish(model, tmp_path / "m")
    written = sum(f.stat().st_size for f in (path / "variables").iterdir())
    assert 0 <= written - stored["saved_model"] < 2_000
    keras.Model.export(model, tmp_path / "by_keras", verbose=False)
    written = sum(f.stat().st_size for f in (tmp_path / "by_keras" / "variables").iterdir())
    assert 0 <= written - stored["saved_model_by_keras"] < 3_000


def test_nothing_changes_in_the_model():
    model = TiedAutoencoder(units=(4, 2), input_dim=6)
    x = np.random.default_rng(0).random((3, 6))
    before = model.predict(x, verbose=0)
    sharing_report(model)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    np.testing.assert_array_equal(model.predict(x, verbose=0), before)


def test_warnings():
    a, b = keras.Input((6,)), keras.Input((6,))
    tower = keras.Sequential([layers.Dense(4), layers.BatchNormalization(name="norm")])
    model = keras.Model([a, b], layers.Add()(Shared(tower)([a, b])))
    (said,) = sharing_report(model).warnings
    assert "BatchNormalization that is called 2 times" in said

    autoencoder = untie(TiedAutoencoder(units=(4,), input_dim=6))
    (said,) = sharing_report(autoencoder).warnings
    assert "'encoder_1/kernel' and 'encoder_1_of_decoder_1/kernel' hold the same values" in said

    x, y = keras.Input((6,)), keras.Input((6,))
    dense = layers.Dense(6, name="dense")
    left, right = keras.Model(x, dense(x), name="left"), keras.Model(y, dense(y), name="right")
    inputs = keras.Input((6,))
    (said,) = sharing_report(keras.Model(inputs, right(left(inputs)))).warnings
    assert "would not survive" in said and "TiedLayer" in said


def test_quantised_subclassed_and_regularised():
    model = TiedAutoencoder(units=(16, 8), input_dim=32)
    model.quantize("int8")
    report = sharing_report(model)
    assert weight(report, "encoder_1/kernel").dtype == "int8"
    assert weight(report, "encoder_1/kernel").bytes == 32 * 16
    assert weight(report, "encoder_1/kernel").readers["decoder_1"] == Reading("transposed", 1)
    assert report.stored_bytes["onnx"] is None

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3, kernel_regularizer="l2", name="dense")

        def call(self, inputs):
            return self.dense(self.dense(inputs))

    model = Subclassed()
    with pytest.raises(ValueError, match="never built.*Call it once"):
        sharing_report(model)
    model(np.ones((1, 3), "float32"))
    kernel = weight(sharing_report(model), model.dense.kernel.path)
    assert kernel.uses == 2 and kernel.regularizer == "L2"
    with pytest.raises(ValueError, match="never built"):
        sharing_report(keras.Sequential([layers.Dense(2)]))
    inputs = keras.Input((2,))
    with pytest.raises(ValueError, match="no weights to report"):
        sharing_report(keras.Model(inputs, layers.ReLU()(inputs)))


def test_a_decoder_alone_a_list_of_inputs_and_a_layer_named_like_a_seed():
    decoder = TiedAutoencoder(units=(3, 2), input_dim=4).decoder
    report = sharing_report(decoder)
    assert weight(report, "encoder_1/kernel").readers == {"decoder_1": Reading("transposed", 1)}
    assert any("would not survive" in said for said in report.warnings)

    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3, name="dense")

        def call(self, inputs):
            return self.dense(inputs[0]) + self.dense(inputs[1])

    model = Two()
    model([np.ones((3, 6), "float32")] * 2)
    assert max(w.uses for w in sharing_report(model).weights) == 2
    inputs = keras.Input((3,))
    named = keras.Model(inputs, layers.Dense(4, name="seed_branch")(inputs))
    assert sharing_report(named).totals["parameters"] == named.count_params() == 16


@pytest.mark.slow
def test_a_thousand_layers(tmp_path):
    inputs = keras.Input((4,))
    first = layers.Dense(4, name="first")
    ends = []
    for _ in range(20):
        x = first(inputs)
        for _ in range(50):
            x = layers.Dense(4)(x)
        ends.append(x)
    report = sharing_report(keras.Model(inputs, layers.Add()(ends)))
    assert len(report.weights) == 2 + 2 * 1000
    assert weight(report, "first/kernel").uses == 20
    draw_sharing(report, tmp_path / "many.svg")
    assert "2000 weights that are read once are left out" in (tmp_path / "many.svg").read_text()


def test_pictures(tmp_path):
    report = sharing_report(TiedAutoencoder(units=(4, 2), input_dim=6))
    draw_sharing(report, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match=r"\.png or \.svg"):
        draw_sharing(report, tmp_path / "p.pdf")
    with pytest.raises(OSError, match="p.png"):
        draw_sharing(report, tmp_path / "missing" / "p.png")


def test_inspect(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    call = ["inspect", "lenet5_mnist", "--json", "r.json", "--picture", "p.svg"]
    assert main(call) == 0
    assert "340,908" in capsys.readouterr().out
    written = json.loads((tmp_path / "r.json").read_text())
    known = sharing_report(keras_shared.load("lenet5_mnist")).to_dict()
    assert written == json.loads(json.dumps(known))
    (tmp_path / "link.json").symlink_to("r.json")
    assert main(["inspect", "lecun_1989", "--json", "link.json"]) == 0
    assert json.loads((tmp_path / "r.json").read_text())["totals"]["multiply_adds"] == 5194
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")

    model = TiedAutoencoder(units=(4, 2), input_dim=6)
    model.save("m.keras")
    assert main(["inspect", "m.keras"]) == 0
    assert "decoder_1 (transposed)" in capsys.readouterr().out

    plain = tf.Module()
    plain.v = tf.Variable(tf.ones((3, 2)), name="v")
    tf.saved_model.save(plain, "foreign/1")
    assert main(["inspect", "foreign/1"]) == 0
    assert "holds a graph and no Keras model" in " ".join(capsys.readouterr().out.split())
    assert stored_report("foreign/1").totals["parameters"] == 6
    (tmp_path / "foreign/1/variables/variables.index").unlink()
    with pytest.raises(ValueError, match="no variables that can be read"):
        stored_report("foreign/1")


def test_no_deprecation_warning_of_our_own_calls():
    model = TiedAutoencoder(units=(4, 2), input_dim=6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sharing_report(model)
        unshare(model)
        reader = untie(model).decoder.layers[-1]
        tie(reader, model.encoder.get_layer("encoder_1"))


@pytest.mark.parametrize(
    "block",
    [
        lambda: layers.Dense(8),
        lambda: layers.EinsumDense("abc,cd->abd", (None, 8), bias_axes="d"),
        pytest.param(lambda: TransformerBlock(2, 16), marks=pytest.mark.slow),
    ],
    ids=["dense", "einsum", "transformer"],
)
def test_low_rank_differences_are_part_of_no_plain_net(block):
    inputs = keras.Input((5, 8))
    model = keras.Model(inputs, SharedStack(block(), 4, rank=2)(inputs))
    totals = sharing_report(model).totals
    assert totals["parameters"] == model.count_params()
    assert totals["parameters_without_sharing"] == unshare(model).count_params()


@pytest.mark.parametrize("length", [6, None])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_layer_at_each_step_of_time(length, depth):
    """As the cell of an RNN: it is one use, of all steps."""
    inputs = keras.Input((length, 8))
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="a"), layers.Dense(8)])
    each = layers.TimeDistributed(inner)
    outputs = inputs
    for _ in range(depth):
        outputs = each(outputs)
    report = sharing_report(keras.Model(inputs, outputs))
    kernel = next(w for w in report.weights if w.shape == (8, 4))
    (reading,) = kernel.readers.values()
    steps = "at each step" if length is None else "at each of 6 steps"
    assert (reading.form, reading.times) == (f"as is, {steps}", depth)
    assert report.totals["ratio"] == depth
    if length:
        assert kernel.multiply_adds == depth * 6 * 32


def test_a_direct_call_before_the_steps_of_time():
    inputs = keras.Input((5, 8))
    dense = layers.Dense(8)
    for outputs in (
        layers.TimeDistributed(dense)(dense(inputs)), dense(layers.TimeDistributed(dense)(inputs)),
    ):  # fmt: skip
        kernel = sharing_report(keras.Model(inputs, outputs)).weights[0]
        assert (kernel.uses, kernel.multiply_adds, kernel.without_sharing) == (2, 640, 128)
    tower = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="a"), layers.Dense(8)])
    first = tower.layers[0]
    model = keras.Model(inputs, layers.TimeDistributed(tower)(first(first(inputs))))
    kernel = next(w for w in sharing_report(model).weights if w.path.endswith("a/kernel"))
    assert kernel.uses == 3
