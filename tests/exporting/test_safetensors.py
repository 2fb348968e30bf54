"""Weights in a safetensors file: each once, with its ties, under names for torch; and back."""

import json
import os
import struct

import keras
import numpy as np
import pytest
from hypothesis import given
from keras import layers
from mutations import fuzzed, mutated

import keras_shared
from keras_shared.errors import KerasSharedError
from keras_shared.exporting.from_safetensors import _content
from keras_shared.layers import Shared, SharedStack, TiedConv2DTranspose, TiedDense, TiedLayer
from keras_shared.presets.names import LoadError
from keras_shared.tying import TiedReader, TieError
from keras_shared.zoo import SiameseNet, TiedAutoencoder

safetensors = pytest.importorskip("safetensors", reason="pip install 'keras_shared[safetensors]'")
numpy_files = pytest.importorskip("safetensors.numpy")
RANDOM = np.random.default_rng(9)


def noise(*shape):
    return RANDOM.normal(size=shape).astype("float32")


def header(path):
    """What any reader of the format sees first, without the library."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size])


def ties_of(path):
    return json.loads(header(path)["__metadata__"]["keras_shared"])


def autoencoder(outward=TiedDense, units=2, dtype=None, **arguments):
    """6 -> units -> 6; with outward=None the way back has a kernel of its own."""
    x, inward = keras.Input((6,)), layers.Dense(units, dtype=dtype, name="inward")
    code = inward(x)
    way_back = layers.Dense(6, name="outward") if outward is None else outward(
        inward, name="outward", dtype=dtype, **arguments)  # fmt: skip
    return keras.Model(x, way_back(code), name="autoencoder")


def filled(model):
    model.set_weights([noise(*w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def assert_same(model, other):
    for one, two in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), np.asarray(two))


# === What stands in the file ===


def test_each_weight_once_under_its_path_with_the_ties_beside(tmp_path):
    model = filled(TiedAutoencoder(units=(4, 2), input_dim=6))
    path = keras_shared.export(model, tmp_path / "m.safetensors")
    held = header(path)
    assert held.pop("__metadata__")["format"] == "pt"  # earlier transformers ask for it
    assert {k: v["shape"] for k, v in held.items()} == {
        "encoder.encoder_1.kernel": [6, 4], "encoder.encoder_1.bias": [4],
        "encoder.encoder_2.kernel": [4, 2], "encoder.encoder_2.bias": [2],
        "decoder.decoder_2.bias": [4], "decoder.decoder_1.bias": [6],
    }  # fmt: skip
    assert ties_of(path) == {
        f"decoder.decoder_{i}.kernel": {
            "source": f"encoder.encoder_{i}.kernel", "form": "transposed"
        } for i in (1, 2)
    }  # fmt: skip
    values = numpy_files.load_file(path)
    kernel = model.encoder.get_layer("encoder_1").kernel
    np.testing.assert_array_equal(values["encoder.encoder_1.kernel"], kernel)
    assert path.stat().st_size < 4 * model.count_params() + 1000
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode  # who may read it


def test_what_is_read_as_it_is_stands_in_the_metadata_as_torch_writes_it(tmp_path):
    tower = layers.Dense(4, name="tower")
    a, b = keras.Input((8,)), keras.Input((8,))
    left = keras.Model(a, tower(a), name="left")
    right = keras.Model(b, TiedLayer(tower, name="again")(b), name="right")
    x, y = keras.Input((8,)), keras.Input((8,))
    model = keras.Model([x, y], layers.Dot(1)([left(x), right(y)]))
    path = keras_shared.export(model, tmp_path / "m.safetensors")
    assert set(header(path)) == {"__metadata__", "left.tower.kernel", "left.tower.bias"}
    metadata = header(path)["__metadata__"]
    assert metadata["right.again.kernel"] == "left.tower.kernel"
    assert metadata["right.again.bias"] == "left.tower.bias"
    assert ties_of(path)["right.again.kernel"] == {"source": "left.tower.kernel", "form": "as is"}


def test_a_transposed_reading_never_passes_for_an_equal_tensor(tmp_path):
    """torch's convention names equal tensors alone; of a Conv2DTranspose the kernel is one."""
    path = keras_shared.export(autoencoder(), tmp_path / "dense.safetensors")
    assert "outward.kernel" not in header(path)["__metadata__"]
    image, conv = keras.Input((8, 8, 3)), layers.Conv2D(4, 3, name="conv")
    model = keras.Model(image, TiedConv2DTranspose(conv, name="back")(conv(image)))
    path = keras_shared.export(model, tmp_path / "conv.safetensors")
    assert header(path)["__metadata__"]["back.kernel"] == "conv.kernel"
    assert ties_of(path)["back.kernel"]["form"] == "convolution adjoint"


def test_names_are_unique_where_those_of_layers_are_not(tmp_path):
    """Two sub-models whose layers have the same names, and one layer in several places."""
    x, y = keras.Input((3,)), keras.Input((3,))
    parts = []
    for name in ("left", "right"):
        inner = keras.Input((3,))
        parts.append(keras.Model(inner, layers.Dense(2, name="dense")(inner), name=name))
    model = filled(keras.Model([x, y], [parts[0](x), parts[1](y)]))
    path = keras_shared.export(model, tmp_path / "m.safetensors")
    values = numpy_files.load_file(path)
    assert set(values) == {f"{p}.dense.{w}" for p in ("left", "right") for w in ("kernel", "bias")}
    np.testing.assert_array_equal(values["right.dense.kernel"], parts[1].layers[-1].kernel)

    class Same(keras.Model):
        def __init__(self):
            super().__init__()
            self.one, self.two = layers.Dense(2, name="d"), layers.Dense(2, name="d")

        def call(self, inputs):
            return self.one(inputs) + self.two(inputs)

    same = Same()
    same(noise(1, 3))
    filled(same)
    values = numpy_files.load_file(keras_shared.export(same, tmp_path / "same.safetensors"))
    np.testing.assert_array_equal(values["d.kernel"], same.one.kernel)
    np.testing.assert_array_equal(values["d_1.kernel"], same.two.kernel)

    z = keras.Input((3,))
    dots = keras.Sequential([layers.Dense(2, name="b")], name="a")
    model = keras.Model(z, [dots(z), layers.Dense(2, name="a.b")(z)])
    path = keras_shared.export(model, tmp_path / "dots.safetensors")
    assert {"a.b.kernel", "a_b.kernel"} < set(header(path))

    twins = SiameseNet(image_shape=(28, 28, 1))
    path = keras_shared.export(twins, tmp_path / "twins.safetensors")
    assert "tower.conv_1.kernel" in header(path)  # the shortest of three ways
    assert sum(np.prod(v["shape"]) for k, v in header(path).items() if k != "__metadata__") == (
        twins.count_params()
    )


def test_an_untied_reader_says_how_it_reads_its_own_kernel(tmp_path):
    model = keras_shared.untie(filled(autoencoder()))
    path = keras_shared.export(model, tmp_path / "m.safetensors")
    assert header(path)["outward.kernel"]["shape"] == [6, 2]  # as its source's was
    assert ties_of(path) == {"outward.kernel": {"source": "outward.kernel", "form": "transposed"}}


# === And back ===


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "mixed_bfloat16"])
def test_dtypes_come_back_bit_by_bit(dtype, tmp_path):
    one, other = (TiedAutoencoder(units=(4, 2), input_dim=6, dtype=dtype) for _ in range(2))
    path = keras_shared.export(filled(one), tmp_path / "m.safetensors")
    kind = {"float16": "F16", "bfloat16": "BF16"}.get(dtype, "F32")
    assert header(path)["encoder.encoder_1.kernel"]["dtype"] == kind
    keras_shared.load_safetensors(other, path)
    assert_same(one, other)
    single = TiedAutoencoder(units=(4, 2), input_dim=6)  # of another width: as Keras casts
    keras_shared.load_safetensors(single, path)
    for a, b in zip(one.get_weights(), single.get_weights(), strict=True):
        np.testing.assert_array_equal(a.astype("float32"), b)


@pytest.mark.parametrize("mode", ["int8", "int4", "float8"])
def test_quantised_models(mode, tmp_path):
    config = keras.quantizers.Int4QuantizationConfig(block_size=-1) if mode == "int4" else None
    one, other = (autoencoder(units=4) for _ in range(2))
    filled(one).quantize(mode, config=config)
    path = keras_shared.export(one, tmp_path / "m.safetensors")
    if mode == "int8":
        assert header(path)["inward.kernel"]["dtype"] == "I8"
        assert ties_of(path)["outward.kernel_scale"]["source"] == "inward.kernel_scale"
    plain = other.get_weights()
    with pytest.raises(ValueError, match="Not in the model: .*inward"):
        keras_shared.load_safetensors(other, path)
    for a, b in zip(plain, other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    other.quantize(mode, config=config)  # what the message says
    keras_shared.load_safetensors(other, path)
    x = noise(3, 6)
    np.testing.assert_allclose(other(x), one(x), atol=1e-6)
    if mode == "int8":
        with pytest.raises(ValueError, match="'inward.kernel' is int8 in .* float32 .*: quantise"):
            keras_shared.load_safetensors(autoencoder(units=4), path)
        with pytest.raises(ValueError, match="'inward.kernel' is float32 in .* int8 .*: load"):
            plain = keras_shared.export(autoencoder(units=4), tmp_path / "plain.safetensors")
            keras_shared.load_safetensors(other, plain)


def test_lora_and_normalisation_answer_as_before(tmp_path):
    """Keras computes with what Normalization derives from its weights: it is derived anew."""

    def net():
        x, inward = keras.Input((6,)), layers.Dense(4, name="inward")
        y = layers.BatchNormalization(name="norm")(layers.Normalization(name="scaling")(x))
        return keras.Model(x, TiedDense(inward, name="outward")(inward(y)))

    one, other = net(), net()
    one.get_layer("scaling").adapt(noise(20, 6) * 5 + 3)
    one.get_layer("inward").enable_lora(2, lora_alpha=8)
    other.get_layer("inward").enable_lora(2)
    one.set_weights([np.abs(noise(*w.shape)).astype(w.dtype) for w in one.get_weights()])
    one.get_layer("scaling").finalize_state()
    keras_shared.load_safetensors(other, keras_shared.export(one, tmp_path / "m.safetensors"))
    x = noise(3, 6)
    np.testing.assert_allclose(other(x), one(x), rtol=1e-5)


@pytest.mark.parametrize("kind", ["stack", "shared", "table"])
def test_what_scales_lora_comes_back(kind, tmp_path):
    """Keras keeps `lora_alpha` in no weight."""

    def net():
        x = keras.Input((6,), dtype="int32" if kind == "table" else None)
        owner = layers.Embedding(5, 6, name="owner")
        if kind == "table":
            return keras.Model(x, owner(x))
        owner = layers.Dense(6, name="owner")
        once = SharedStack(owner, 3, name="once") if kind == "stack" else Shared(owner, name="once")
        return keras.Model(x, once(x) if kind == "stack" else once([x, 2 * x]))

    def owner_of(model):
        return next(la for la in model._flatten_layers() if la.name == "owner")

    one, other = net(), net()
    for model, alpha in ((one, 8), (other, None)):
        owner_of(model).enable_lora(2, lora_alpha=alpha)
    one.set_weights([noise(*w.shape) for w in one.get_weights()])
    path = keras_shared.export(one, tmp_path / "m.safetensors")
    keras_shared.load_safetensors(other, path)
    x = np.arange(6)[None] % 5
    for a, b in zip(keras.tree.flatten(other(x)), keras.tree.flatten(one(x)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    values, metadata = _content(path)
    metadata.pop("lora_alpha")
    numpy_files.save_file(values, path, metadata)
    with pytest.warns(UserWarning, match=r"does not say by what the LoRA of \['owner'\] is scaled"):
        keras_shared.load_safetensors(other, path)
    numpy_files.save_file(values, path, {**metadata, "lora_alpha": '{"a": "much"}'})
    with pytest.raises(LoadError, match="'lora_alpha' are not as keras_shared.export writes"):
        keras_shared.load_safetensors(other, path)


def test_a_loaded_tie_is_a_tie(tmp_path):
    one, other = filled(autoencoder()), autoencoder()
    keras_shared.load_safetensors(other, keras_shared.export(one, tmp_path / "m.safetensors"))
    w, x = noise(6, 2), noise(3, 6)
    other.get_layer("inward").kernel.assign(w)
    b, c = other.get_layer("inward").bias.numpy(), other.get_layer("outward").bias.numpy()
    np.testing.assert_allclose(other(x), (x @ w + b) @ w.T + c, rtol=1e-4, atol=1e-5)


def test_dropout_has_a_seed_and_no_weight(tmp_path):
    x = keras.Input((6,))
    model = keras.Model(x, layers.Dense(2, name="d")(layers.Dropout(0.5)(x)))
    path = keras_shared.export(model, tmp_path / "m.safetensors")
    assert set(header(path)) == {"__metadata__", "d.kernel", "d.bias"}
    keras_shared.load_safetensors(model, path)


# === Files of others ===


def of_another(path, values, **metadata):
    numpy_files.save_file(values, path, metadata or None)
    return path


def test_a_file_may_leave_out_the_second_name_or_hold_equal_values(tmp_path):
    kernel, inward, outward = noise(6, 2), noise(2), noise(6)
    biases = {"inward.bias": inward, "outward.bias": outward}
    x = noise(3, 6)
    wanted = (x @ kernel + inward) @ kernel.T + outward
    for number, kernels in enumerate((
        {"inward.kernel": kernel},  # as transformers does, without a word
        {"inward.kernel": kernel, "outward.kernel": np.ascontiguousarray(kernel.T)},
        {"outward.kernel": np.ascontiguousarray(kernel.T)},
    )):  # fmt: skip
        model = autoencoder()
        path = of_another(tmp_path / f"{number}.safetensors", kernels | biases)
        keras_shared.load_safetensors(model, path)
        np.testing.assert_allclose(model(x), wanted, rtol=1e-4, atol=1e-5)


def test_a_table_and_the_output_layer_that_reads_it(tmp_path):
    """As of a language model: (words, features), and as a Dense of its own (features, words)."""
    ids, table = keras.Input((3,), dtype="int32"), layers.Embedding(9, 4, name="table")
    model = keras.Model(ids, TiedDense(table, use_bias=False, name="logits")(table(ids)))
    path = keras_shared.export(model, tmp_path / "m.safetensors")
    assert ties_of(path)["logits.kernel"] == {"source": "table.embeddings", "form": "transposed"}
    values = noise(9, 4)
    both = {"table.embeddings": values, "logits.kernel": np.ascontiguousarray(values.T)}
    keras_shared.load_safetensors(model, of_another(tmp_path / "other.safetensors", both))
    np.testing.assert_allclose(model(np.array([[1, 5, 8]]))[0], values[[1, 5, 8]] @ values.T, 1e-4)


def test_different_values_for_a_tied_weight_need_a_choice(tmp_path):
    apart = filled(autoencoder(outward=None))
    path = keras_shared.export(apart, tmp_path / "m.safetensors")
    model = filled(autoencoder())
    before = model.get_weights()
    with pytest.raises(ValueError, match="'inward.kernel' and 'outward.kernel' are one weight in"):
        keras_shared.load_safetensors(model, path)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    keras_shared.load_safetensors(model, path, keep="source")
    np.testing.assert_array_equal(model.weights[0], apart.get_layer("inward").kernel)
    keras_shared.load_safetensors(model, path, keep="reader")
    np.testing.assert_array_equal(model.weights[0], apart.get_layer("outward").kernel.numpy().T)
    np.testing.assert_array_equal(model.weights[2], apart.get_layer("outward").bias)
    with pytest.raises(ValueError, match="`keep` must be .* Received: keep='both'"):
        keras_shared.load_safetensors(model, path, keep="both")


def test_a_file_of_an_untied_model_goes_back_into_a_tied_one(tmp_path):
    """It stores the kernel of its reader as the source does, and says so."""
    untied, model = keras_shared.untie(filled(autoencoder())), autoencoder()
    path = keras_shared.export(untied, tmp_path / "m.safetensors")
    keras_shared.load_safetensors(model, path)
    x = noise(3, 6)
    np.testing.assert_allclose(model(x), untied(x), rtol=1e-5, atol=1e-5)
    own = noise(6, 2)
    untied.get_layer("outward").own_layer.kernel.assign(own)
    keras_shared.export(untied, path)
    with pytest.raises(ValueError, match="hold different values"):
        keras_shared.load_safetensors(model, path)
    keras_shared.load_safetensors(model, path, keep="reader")
    np.testing.assert_array_equal(model.get_layer("inward").kernel, own)


def test_two_readers_that_differ_leave_no_choice_of_the_reader(tmp_path):
    x, code = keras.Input((6,)), layers.Dense(2, name="code")
    z = code(x)
    model = keras.Model(x, [TiedDense(code, name=n, use_bias=False)(z) for n in ("a", "b")])
    values = {"code.kernel": noise(6, 2), "code.bias": noise(2)}
    values |= {"a.kernel": noise(2, 6), "b.kernel": noise(2, 6)}
    path = of_another(tmp_path / "m.safetensors", values)
    with pytest.raises(ValueError, match="'a.kernel' and 'b.kernel' are one weight.*keep='reader'"):
        keras_shared.load_safetensors(model, path, keep="reader")
    keras_shared.load_safetensors(model, path, keep="source")
    np.testing.assert_array_equal(code.kernel, values["code.kernel"])


def test_torch_keeps_the_first_name_in_the_alphabet(tmp_path):
    """Which may be the reader's: the metadata says what it stands for."""
    tower, x, y = layers.Dense(2, name="tower"), keras.Input((3,)), keras.Input((3,))
    model = keras.Model([x, y], [tower(x), TiedLayer(tower, name="again")(y)])
    values = {"again.kernel": noise(3, 2), "again.bias": noise(2)}
    removed = {"tower.kernel": "again.kernel", "tower.bias": "again.bias", "by": "someone"}
    keras_shared.load_safetensors(model, of_another(tmp_path / "m.safetensors", values, **removed))
    np.testing.assert_array_equal(tower.kernel, values["again.kernel"])
    apart = keras.Model(
        [x, y], [layers.Dense(2, name=n)(t) for n, t in (("tower", x), ("again", y))]
    )
    with pytest.raises(
        TieError, match=r"ties .*'tower.kernel' to 'again.kernel' \(as is\)"
    ) as told:
        keras_shared.load_safetensors(apart, tmp_path / "m.safetensors")
    assert "Missing" not in str(told.value)


def test_a_reader_of_ones_own_with_a_kernel_of_its_own(tmp_path):
    class Both(TiedReader):
        def build(self, input_shape):
            self.kernel = self.add_weight(name="kernel", shape=self.tied_weight_shape())
            super().build(input_shape)

        def call(self, inputs):
            return inputs @ (self.kernel + self.tied_weight())

        def compute_output_shape(self, input_shape):
            return input_shape

    x = keras.Input((4,))
    one, other = (
        keras.Model(x, Both(first, name="both")(first(x)))
        for first in (layers.Dense(4, name="first"), layers.Dense(4, name="first"))
    )
    path = keras_shared.export(filled(one), tmp_path / "m.safetensors")
    assert ties_of(path) == {
        "both.tied_kernel": {"source": "first.kernel", "form": "as is"}
    } and "both.kernel" in header(path)  # fmt: skip
    keras_shared.load_safetensors(other, path)
    assert_same(one, other)


# === One error, with everything, and nothing changed ===


def test_everything_that_is_wrong_stands_in_one_message(tmp_path):
    model = filled(autoencoder())
    before = model.get_weights()
    values = {"inward.kernel": noise(6, 3), "inward.bias": np.zeros(2, "int32"), "more": noise(1)}
    path = of_another(tmp_path / "m.safetensors", values)
    with pytest.raises(ValueError) as told:
        keras_shared.load_safetensors(model, path)
    for part in (
        f"{path} does not fit 'autoencoder', and nothing was loaded",
        "Missing in the file: outward.bias.", "Not in the model: more.",
        "'inward.kernel' has shape (6, 3) in the file and (6, 2) in the model.",
        "'inward.bias' is int32 in the file and float32 in the model",
    ):  # fmt: skip
        assert part in str(told.value), part
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint16", "complex64", "bool"])
def test_another_dtype_is_to_be_converted(dtype, tmp_path):
    model = autoencoder()
    path = keras_shared.export(model, tmp_path / "m.safetensors")
    arrays, metadata = _content(path)
    arrays["inward.kernel"] = np.ones((6, 2), dtype)
    numpy_files.save_file(arrays, path, metadata)
    said = f"'inward.kernel' is {dtype} in the file and float32 in the model: convert the tensor"
    with pytest.raises(ValueError, match=f"{said} in the file to float32"):
        keras_shared.load_safetensors(model, path)
    arrays["inward.kernel"] = arrays["inward.kernel"].real.astype("float32")  # what it says
    numpy_files.save_file(arrays, path, metadata)
    keras_shared.load_safetensors(model, path)
    assert (np.asarray(model.layers[1].kernel) == 1).all()


def test_ties_of_the_file_must_be_ties_of_the_model(tmp_path):
    tied = filled(autoencoder())
    path = keras_shared.export(tied, tmp_path / "m.safetensors")
    apart = filled(autoencoder(outward=None))
    before = apart.get_weights()
    with pytest.raises(TieError, match=r"ties 'outward.kernel' to 'inward.kernel' \(transposed\)"):
        keras_shared.load_safetensors(apart, path)
    for a, b in zip(before, apart.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    again = keras_shared.tie_weights(apart, {"outward": "inward"}, keep="source")  # what it says
    keras_shared.load_safetensors(again, path)
    assert_same(tied, again)
    keras_shared.untie(again)
    np.testing.assert_allclose(again(noise(2, 6)).shape, (2, 6))


def test_a_reader_that_the_file_does_not_know_is_missing(tmp_path):
    x = keras.Input((6,))
    alone = keras.Model(x, layers.Dense(2, name="inward")(x))
    path = keras_shared.export(alone, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=r"Missing in the file: outward.kernel\."):
        keras_shared.load_safetensors(autoencoder(use_bias=False), path)


def test_square_kernels_read_in_another_form_are_refused(tmp_path):
    """Shapes do not tell; the list of readings does, also of those that were untied."""
    x, z = noise(3, 6), keras.Input((6,))
    dense = layers.Dense(6, name="inward")
    as_is = keras.Model(z, TiedLayer(dense, name="outward")(dense(z)))
    path = keras_shared.export(autoencoder(units=6, use_bias=False), tmp_path / "t.safetensors")
    with pytest.raises(TieError, match="'outward.kernel' reads 'inward.kernel' transposed in"):
        keras_shared.load_safetensors(as_is, path)
    untied, plain = keras_shared.untie(autoencoder(units=6)), autoencoder(outward=None, units=6)
    path = keras_shared.export(filled(untied), tmp_path / "u.safetensors")
    with pytest.raises(TieError, match="reads 'outward.kernel' transposed in the file, and as is"):
        keras_shared.load_safetensors(plain, path)
    with pytest.raises(TieError, match="'outward.kernel' is read as is in the file"):
        keras_shared.load_safetensors(
            untied, keras_shared.export(plain, tmp_path / "p.safetensors")
        )
    other = keras_shared.untie(autoencoder(units=6))
    keras_shared.load_safetensors(other, path)
    np.testing.assert_allclose(other(x), untied(x), atol=1e-6)


def test_numbers_of_layers_without_names_are_explained(tmp_path):
    def net():
        return keras.Sequential([keras.Input((3,)), layers.Dense(2), layers.Dense(2)])

    keras.utils.clear_session()
    one = net()
    path = keras_shared.export(one, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="numbers that Keras gives.*clear_session"):
        keras_shared.load_safetensors(net(), path)
    keras.utils.clear_session()  # what it says
    other = net()
    keras_shared.load_safetensors(other, path)
    assert_same(one, other)


def test_what_is_no_file_of_weights_and_what_has_none(tmp_path):
    model, path = autoencoder(), tmp_path / "m.safetensors"
    with pytest.raises(LoadError, match="There is no file"):
        keras_shared.load_safetensors(model, path)
    whole = keras_shared.export(model, path).read_bytes()
    for act in (keras_shared.export, keras_shared.load_safetensors):
        with pytest.raises(ValueError, match="has no weights. Call it once"):
            act(keras.Sequential([layers.Dense(2)]), path)
    for content in (b"", b"no weights", whole[:-4], whole[:50]):
        path.write_bytes(content)
        with pytest.raises(LoadError, match="is no safetensors file, or is damaged"):
            keras_shared.load_safetensors(model, path)
    with pytest.raises(LoadError, match="holds weights alone.*keras_shared.load_safetensors"):
        keras_shared.load(path)
    with pytest.raises(ValueError, match="weights alone.*signature='encode'"):
        keras_shared.export(model, path, signature="encode")
    x, z = keras.Input((6,)), keras.Input((2,))
    dense = layers.Dense(2, name="inward")
    dense(x)
    with pytest.raises(TieError, match="'inward', which is not part of"):
        keras_shared.export(keras.Model(z, TiedDense(dense)(z)), path)
    assert path.read_bytes() == whole[:50] and list(tmp_path.iterdir()) == [path]


def test_pipes_headers_without_end_and_numbers_that_are_none(tmp_path):
    model, path = autoencoder(), tmp_path / "m.safetensors"
    content = keras_shared.export(model, path).read_bytes()
    (name, *_), arrays = list(held := numpy_files.load_file(path)), dict(held)
    arrays[name] = np.full_like(arrays[name], np.nan)
    numpy_files.save_file(arrays, path)
    before = model.get_weights()
    with pytest.raises(LoadError, match="no numbers any more.*NaN in .*Nothing was loaded"):
        keras_shared.load_safetensors(model, path)
    for size in (2**40, 2**63):
        path.write_bytes(struct.pack("<Q", size) + content[8:])
        with pytest.raises(LoadError, match="damaged.* its header has .* bytes"):
            keras_shared.load_safetensors(model, path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(LoadError, match="is no regular file"):
        keras_shared.load_safetensors(model, path)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("given", "here", "large"),
    [("float32", "float16", -7e4), ("float64", "float32", 1e300), ("bfloat16", "float16", 1e38)],
)
def test_values_that_the_models_dtype_cannot_hold(given, here, large, tmp_path):
    one, other = (filled(autoencoder(dtype=dtype)) for dtype in (given, here))
    one.layers[1].kernel.assign(keras.ops.full((6, 2), large, given))
    before, file = other.get_weights(), tmp_path / "m.weights.h5"
    one.save_weights(file)
    for load, path in (
        (keras_shared.load_safetensors, keras_shared.export(one, tmp_path / "m.safetensors")),
        (keras_shared.load_weights, file),
    ):
        kept = given if given != "bfloat16" or path.suffix == ".safetensors" else "float32"
        said = f"'inward/kernel' .12 of 12 too large for {here}.*Nothing was loaded.*'{kept}'"
        with pytest.raises(LoadError, match=said):
            load(other, path)
        for now, then in zip(other.get_weights(), before, strict=True):
            np.testing.assert_array_equal(now, then)
        load(autoencoder(dtype=kept), path)  # what the message says


def test_whatever_the_file_is(tmp_path):
    model, path = autoencoder(), tmp_path / "m.safetensors"
    content = keras_shared.export(model, path).read_bytes()

    @fuzzed
    @given(mutated(content))
    def weights_or_an_error_of_ours(broken):
        path.write_bytes(broken)
        try:
            keras_shared.load_safetensors(model, path)
        except ValueError as error:
            assert isinstance(error, KerasSharedError) or "nothing was loaded" in str(error)

    weights_or_an_error_of_ours()


WRITE = """
import resource, signal, sys
import keras_shared
from keras_shared.zoo import TiedAutoencoder
model = TiedAutoencoder(units=(200, 100), input_dim=300)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    keras_shared.export(model, sys.argv[1])
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.slow
def test_a_full_disk_leaves_the_older_file(tmp_path, fresh_python):
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"older")
    assert fresh_python(WRITE, path).endswith("Error")
    assert path.read_bytes() == b"older" and list(tmp_path.iterdir()) == [path]


def test_without_the_package_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(ImportError, match=r'pip install "keras_shared\[safetensors\]"'):
        keras_shared.export(autoencoder(), tmp_path / "m.safetensors")
    with pytest.raises(ImportError, match=r'pip install "keras_shared\[safetensors\]"'):
        keras_shared.load_safetensors(autoencoder(), tmp_path / "m.safetensors")


# === torch's own loader and writer ===


def test_torch_loads_and_writes_such_files(tmp_path):
    torch = pytest.importorskip("torch", reason="torch: pip install torch")
    files = pytest.importorskip("safetensors.torch")

    class Weights(torch.nn.Module):
        def __init__(self, **shapes):
            super().__init__()
            for name, shape in shapes.items():
                setattr(self, name, torch.nn.Parameter(torch.zeros(shape)))

    class Twins(torch.nn.Module):
        """One tower under two names, and a decoder that reads the kernel transposed."""

        def __init__(self):
            super().__init__()
            self.tower = Weights(kernel=(6, 2), bias=(2,))
            self.again = self.tower
            self.back = Weights(bias=(6,))

    tower = layers.Dense(2, name="tower")
    x, y = keras.Input((6,)), keras.Input((6,))
    codes = [tower(x), TiedLayer(tower, name="again")(y)]
    back = TiedDense(tower, name="back")
    model = filled(keras.Model([x, y], [*codes, back(codes[0])]))
    path = keras_shared.export(model, tmp_path / "m.safetensors")
    net = Twins()
    assert files.load_model(net, path) == (set(), [])
    assert net.again.kernel is net.tower.kernel
    np.testing.assert_array_equal(net.tower.kernel.detach().numpy(), tower.kernel)
    np.testing.assert_array_equal(net.back.bias.detach().numpy(), back.bias)

    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    files.save_model(net, tmp_path / "torch.safetensors")
    assert header(tmp_path / "torch.safetensors")["__metadata__"]["tower.kernel"] == "again.kernel"
    keras_shared.load_safetensors(model, tmp_path / "torch.safetensors")
    np.testing.assert_array_equal(net.tower.kernel.detach().numpy(), tower.kernel)
    np.testing.assert_array_equal(net.back.bias.detach().numpy(), back.bias)
