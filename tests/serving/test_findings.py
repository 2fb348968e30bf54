"""Every fault in a real folder that has it, written by TensorFlow."""

import os
import pathlib
import shutil
import tempfile
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from mutations import EXAMPLES, fuzzed, mutated
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

import keras_shared
from keras_shared.errors import KerasSharedError
from keras_shared.presets.names import LoadError, entry_dir, preset_dirs
from keras_shared.presets.publishing import PublishError
from keras_shared.recipes import read_recipe
from keras_shared.serving import check, check_version
from keras_shared.serving.configuration import model_folders
from saved_models import Weights, X, edited, of_tensorflow_1, product, write

TEXT = tf.TensorSpec((None,), "string", name="text")


def record(signature="serving_default", **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.signature_name = signature
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    log = prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request)
    )
    return log.SerializeToString()


def warm_up(folder, *records):
    (folder / "assets.extra").mkdir(exist_ok=True)
    path = folder / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for content in records:
            writer.write(content)
    return path


GOOD = record(x=np.ones((1, 3), "float32"))


@pytest.fixture
def good(tmp_path):
    folder = write(tmp_path / "model" / "1", product)
    warm_up(folder, GOOD)
    return folder


def errors(folder):
    return [f"{f.what} -> {f.remedy}" for f in check(folder) if f.severity == "error"]


def only_error(folder):
    found = errors(folder)
    assert len(found) == 1, found
    return found[0]


def test_a_good_version_has_its_tensorflow_version_and_no_more(good):
    [note] = check(good.parent)
    assert note == check(good)[0] == check_version(good)[0]
    assert note.severity == "note" and note.what == f"written by TensorFlow {tf.__version__}"


LARGE = ("shared_transformer", "siamese", "tied_lm")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * n.startswith(LARGE)) for n in preset_dirs()],
)
def test_what_we_publish_has_no_fault(name):
    *found, note = check(name)
    assert note.severity == "note"
    # a text has any length: requests of several are padded where the batching parameters say so
    assert all("dimensions of unknown size" in warning.what for warning in found)
    task = read_recipe(entry_dir(name) / "recipe.toml").task.name
    assert len(found) == (task == "language_modeling")


def test_a_folder_without_a_number(good, tmp_path):
    misplaced = shutil.copytree(good, tmp_path / "export")
    assert "'export', is not a number -> move the SavedModel into NAME/1" in only_error(misplaced)
    (tmp_path / "empty").mkdir()
    assert only_error(tmp_path / "empty").startswith("TF Serving finds no version: ")
    assert "empty holds [] -> move" in only_error(tmp_path / "empty")
    (tmp_path / "2").write_text("")
    assert "2 is a file -> move" in only_error(tmp_path / "2")
    with pytest.raises(LoadError, match="There is no file or folder .*missing"):
        check(tmp_path / "missing")
    with pytest.raises(LoadError, match="Did you mean 'lenet5_mnist'"):
        check("lenet5_mnst")


def test_a_folder_with_a_number_that_tf_serving_does_not_read(good):
    moved = good.rename(good.with_name("\u0661"))  # a digit, and none of ASCII
    assert "is not a number" in only_error(moved)
    with pytest.raises(LoadError, match="Move it into NAME/1"):
        model_folders([moved])


def test_the_newest_version_is_checked(good):
    newer = shutil.copytree(good, good.parent / "010")
    (newer / "saved_model.pb").unlink()
    assert "010 has no saved_model.pb" in only_error(good.parent)


def test_saved_model_cut_short(good):
    content = (good / "saved_model.pb").read_bytes()
    (good / "saved_model.pb").write_bytes(content[: len(content) // 2])
    assert "saved_model.pb is corrupt" in only_error(good)


def test_no_serve_tag(good):
    edited(good, lambda graph: graph.meta_info_def.tags.append("gpu"))
    assert "the tag 'serve' and no other; the tags are: [['gpu', 'serve']]" in only_error(good)


def test_no_serving_default(tmp_path):
    folder = write(tmp_path / "1", product, name="score")
    assert "no signature 'serving_default'; there are: ['score']" in only_error(folder)
    tf.saved_model.save(Weights(), str(tmp_path / "2"))
    assert "there are: none" in only_error(tmp_path / "2")


def test_variables_removed(good):
    shutil.rmtree(good / "variables")
    assert "variables/variables.index is missing" in only_error(good)


def test_variables_cut_short(good):
    data = good / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:10])
    assert "it cannot be loaded: " in only_error(good)


def test_generated_names_are_a_warning(tmp_path):
    spec = tf.TensorSpec((None, 3), "float32", name="args_0")
    folder = write(tmp_path / "1", lambda kernel, args_0: {"output_0": args_0 @ kernel}, spec)
    assert errors(folder) == []
    assert "names that TensorFlow or Keras made up: ['args_0', 'output_0']" in str(check(folder))


def warnings_of(folder):
    """The warnings, but for that of warm-up requests, which these folders lack."""
    found = [f for f in check(folder) if f.severity != "note"]
    assert [f for f in found if f.severity == "error"] == []
    return [f"{f.what} -> {f.remedy}" for f in found if "warm-up requests:" not in f.what]


def only_warning(folder):
    found = warnings_of(folder)
    assert len(found) == 1, found
    return found[0]


def test_inputs_without_a_batch_are_served_without_batching(tmp_path):
    four = tf.TensorSpec((4, 3), "float32", name="x")
    said = only_warning(write(tmp_path / "1", product, four))
    assert "input 'x' takes exactly 4 rows: TF Serving fails its requests with batching on" in said
    assert "keras-shared serve --no-batching" in said and "'instances'" not in said
    scale = tf.TensorSpec((), "float32", name="scale")
    folder = write(tmp_path / "2", lambda k, x, scale: {"y": x @ k * scale}, X, scale)
    said = only_warning(folder)
    assert "input 'scale' is a scalar: TF Serving fails" in said
    assert "under 'inputs', not 'instances'" in said
    count = tf.TensorSpec((), "int32", name="count")
    made = write(tmp_path / "3", lambda k, count: {"made": tf.ones((count, 2)) @ k[:2]}, count)
    assert "input 'count' is a scalar" in only_warning(made)
    picture = tf.TensorSpec((1, None, None, 3), "uint8", name="picture")

    def boxes(kernel, picture):
        return {"box": tf.reshape(tf.cast(picture, tf.float32), (1, -1, 3)) @ kernel}

    [batch, size] = warnings_of(write(tmp_path / "4", boxes, picture))
    assert "takes exactly 1 rows" in batch and "dimensions of unknown size" in size


def test_an_output_whose_first_dimension_is_not_the_batch(tmp_path):
    folder = write(tmp_path / "1", lambda k, x: {"y": x @ k, "mean": tf.reduce_mean(x @ k)})
    said = only_warning(folder)
    assert "dimension 0 is not the batch of 1: {'mean': ()}" in said
    assert "under 'inputs', not 'instances'" in said
    folder = write(tmp_path / "2", lambda k, x: {"y": x @ k, "kernel": k[:1]})
    assert "dimension 0 is not the batch of 2: {'kernel': (1, 2)}" in only_warning(folder)
    both = {
        "y": lambda k, x: tf.ensure_shape(x @ k, (1, 2)),
        "mean": lambda k, x: tf.reduce_mean(x),
    }
    folder = write(tmp_path / "3", lambda k, x: {n: f(k, x) for n, f in both.items()})
    assert "fails at batch 2" in only_error(folder)  # a warning hides no error


def over_rows(kernel, x):
    return {"y": x @ kernel - tf.reduce_mean(x, axis=0, keepdims=True) @ kernel}


def of_texts(kernel, text):
    lengths = tf.cast(tf.strings.length(text), tf.float32)[:, None]
    return {"share": lengths / (1 + tf.reduce_sum(lengths))}


def of_pictures(kernel, image_bytes):
    decode = lambda one: tf.io.decode_png(one, channels=3)  # noqa: E731
    images = tf.map_fn(decode, image_bytes, fn_output_signature=tf.uint8)
    return over_rows(kernel, tf.reduce_mean(tf.cast(images, tf.float32), (1, 2)))


PICTURES = tf.TensorSpec((None,), "string", name="image_bytes")
WHOLE = tf.TensorSpec((None, 3), "int64", name="x")


@pytest.mark.parametrize(
    ("call", "spec"),
    [
        (over_rows, X),
        (lambda k, x: {"y": tf.nn.softmax(x @ k, axis=0)}, X),
        (lambda k, x: {"y": tf.cumsum(x @ k, axis=0)}, X),  # of the rows before it
        (lambda k, x: {"y": x @ k + tf.range(tf.cast(tf.shape(x)[0], tf.float32))[:, None]}, X),
        (lambda k, x: {"place": tf.argsort(x[:, 0])}, X),
        (lambda k, x: over_rows(k, tf.cast(x, tf.float32)), WHOLE),
        (of_texts, TEXT),
        (of_pictures, PICTURES),
    ],
    ids=["mean", "softmax", "sums", "places", "ranks", "whole", "texts", "pictures"],
)
def test_rows_that_depend_on_each_other_are_served_without_batching(tmp_path, call, spec):
    said = only_warning(write(tmp_path / "1", call, spec))
    assert "the answer for a row depends on the other rows of its batch, or on its place" in said
    assert "keras-shared serve --no-batching" in said and "'instances'" not in said


def quantised(kernel, x):
    codes = tf.round(127 * x / tf.reduce_max(tf.abs(x), axis=-1, keepdims=True))
    return {"y": tf.round(codes @ kernel) / 127}


def padded(kernel, text):
    words = tf.strings.split(tf.strings.join(["a ", text])).to_tensor()
    return {"lengths": tf.strings.length(words)}


@pytest.mark.parametrize(
    ("call", "spec"),
    [
        (quantised, X),
        (lambda k, x: {"y": x @ k + tf.random.normal((tf.shape(x)[0], 2))}, X),
        (lambda k, x: {"y": tf.nn.dropout(x, 0.5) @ k}, X),
        (lambda k, x: {"y": tf.nn.softmax(1e6 * (x @ k)), "none": tf.math.log(x * 0) @ k}, X),
        (lambda k, x: {"y": tf.gather(k, x)}, WHOLE),
        (lambda k, x: {"y": tf.gather(k[:1], x)}, WHOLE),  # takes 0 alone
        (padded, TEXT),
        (lambda k, image_bytes: {"length": tf.strings.length(image_bytes)}, PICTURES),
    ],
    ids=["codes", "noise", "dropout", "steep", "indices", "zeros", "padded", "pictures"],
)
def test_rows_that_do_not_are_no_warning(tmp_path, call, spec):
    assert warnings_of(write(tmp_path / "1", call, spec)) == []


def test_rows_beside_those_of_a_warm_up_request(tmp_path):
    folder = write(tmp_path / "1", over_rows)
    for rows in (1, 4):
        warm_up(folder, record(x=np.ones((rows, 3), "float32")))
        assert "depends on the other rows" in only_warning(folder)


class Counted(tf.Module):
    """A module that keeps something of a request, or draws numbers."""

    def __init__(self, step):
        self.count, self.seen = tf.Variable(0.0), tf.Variable([0.0, 0.0])
        self.generator = tf.random.Generator.from_seed(1)
        self.table = tf.lookup.experimental.MutableHashTable("int64", "float32", 0.0)
        spec = [tf.TensorSpec((None, 3), "float32", name="x")]
        self.answer = tf.function(lambda x: {"y": x + step(self, x)}, input_signature=spec)


@pytest.mark.parametrize(
    ("step", "operation"),
    [
        (lambda m, x: m.count.assign_add(1.0), "AssignAddVariableOp"),
        (lambda m, x: m.count.assign(tf.reduce_sum(x)), "AssignVariableOp"),
        (lambda m, x: m.seen.scatter_nd_update([[0]], x[:1, 0])[0], "ResourceScatterNdUpdate"),
        (lambda m, x: m.seen[:1].assign(x[:1, 0])[0], "ResourceStridedSliceAssign"),
        (
            lambda m, x: tf.cond(x[0, 0] > 0, lambda: m.count.assign_sub(1.0), lambda: 0.0),
            "AssignSubVariableOp",
        ),
    ],
    ids=["added", "assigned", "scattered", "slice", "branch"],
)
def test_what_a_request_changes_for_later_ones(tmp_path, step, operation):
    module = Counted(step)
    tf.saved_model.save(module, str(tmp_path / "1"), module.answer)
    said = str(warnings_of(tmp_path / "1"))
    assert f"serving_default changes variables or tables of the model ({operation}), which" in said
    assert "may depend on earlier requests" in said and "stateful=False" in said


def keep_in_table(module, x):
    with tf.control_dependencies([module.table.insert(tf.constant([1], "int64"), x[:1, 0])]):
        return module.table.lookup(tf.constant(1, "int64"))


def test_a_table_that_a_request_fills(tmp_path):
    module = Counted(keep_in_table)
    tf.saved_model.save(module, str(tmp_path / "1"), module.answer)
    assert "tables of the model (LookupTableInsertV2)" in str(warnings_of(tmp_path / "1"))


@keras.saving.register_keras_serializable("findings")
class Noisy(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seeds)


def test_numbers_that_are_drawn_are_no_state_of_clients(tmp_path):
    module = Counted(lambda m, x: m.generator.normal(tf.shape(x)))
    tf.saved_model.save(module, str(tmp_path / "1"), module.answer)
    assert warnings_of(tmp_path / "1") == []
    inputs = keras.Input((3,), name="x")
    dropped = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(inputs))
    keras.Model(inputs, Noisy(name="y")(dropped)).export(tmp_path / "2", verbose=False)
    assert b"seed_generator_state" in (tmp_path / "2" / "saved_model.pb").read_bytes()
    assert not [said for said in warnings_of(tmp_path / "2") if "names that" not in said]


@pytest.mark.slow
def test_a_stateful_model_is_published_with_a_warning_and_one_of_given_states_without(tmp_path):
    x = keras.Input(batch_shape=(1, 4, 2), name="x")
    kept = keras.Model(x, keras.layers.GRU(3, stateful=True, name="y")(x))
    with pytest.warns(UserWarning, match="AssignVariableOp.*may depend on earlier requests"):
        keras_shared.publish(kept, tmp_path / "kept")
    x, state = keras.Input((4, 2), name="x"), keras.Input((3,), name="state")
    y, after = keras.layers.GRU(3, return_state=True, name="y")(x, initial_state=state)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*requests")
        given = keras.Model([x, state], {"y": y, "after": after})
        keras_shared.publish(given, tmp_path / "given")


def test_ragged_and_sparse_tensors_are_named(tmp_path):
    ragged = write(
        tmp_path / "1", lambda k, x: {"kept": tf.RaggedTensor.from_tensor(x @ k, padding=0.0)}
    )
    assert "output 'kept' is ragged, not a dense tensor -> convert" in only_error(ragged)
    words = write(tmp_path / "2", lambda k, text: {"parts": tf.strings.split(text)}, TEXT)
    assert "output 'parts' is ragged" in only_error(words)
    sparse = write(tmp_path / "3", lambda k, x: {"kept": tf.sparse.from_dense(x @ k)})
    assert "output 'kept' is sparse" in only_error(sparse)


@pytest.mark.parametrize("splits", ["int64", "int32"])
def test_rows_of_unequal_length_are_not_condemned_for_made_up_ones(tmp_path, splits):
    module = Weights()
    spec = tf.RaggedTensorSpec((None, None), tf.float32, 1, getattr(tf, splits))
    mean = tf.function(lambda rows: {"mean": tf.reduce_mean(rows, 1)}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "1"), mean)
    assert "could not be tried with made-up inputs" in only_warning(tmp_path / "1")
    warm_up(
        tmp_path / "1",
        record(rows=np.array([1, 3, 5], "float32"), rows_1=np.array([0, 2, 3], splits)),
    )
    assert errors(tmp_path / "1") == []


@pytest.mark.parametrize("initialised", [True, False])
def test_a_table_that_nothing_fills_is_an_error_with_its_reason(tmp_path, initialised):
    def build():
        word = tf.compat.v1.placeholder("string", (None,), name="word")
        known = tf.lookup.KeyValueTensorInitializer(["a"], tf.constant([1], "int64"))
        return {"word": word}, {"id": tf.lookup.StaticHashTable(known, 0).lookup(word)}

    folder = of_tensorflow_1(
        tmp_path / "1", build, start=initialised and tf.compat.v1.tables_initializer
    )
    if initialised:
        assert errors(folder) == []
    else:
        assert "serving_default fails: FailedPreconditionError: Table not initialized. -> " in (
            only_error(folder)
        )


def test_an_input_of_unknown_rank_may_be_a_scalar(tmp_path):
    def build():
        x = tf.compat.v1.placeholder("float32", (None, 3), name="x")
        share = tf.compat.v1.placeholder("float32", name="share")
        kernel = tf.compat.v1.get_variable("kernel", (3, 2))
        return {"x": x, "share": share}, {"y": tf.nn.dropout(x, 1 - share) @ kernel}

    folder = of_tensorflow_1(tmp_path / "1", build)
    assert "input of unknown rank is taken as a scalar alone" in only_warning(folder)
    warm_up(folder, record(x=np.ones((1, 3), "float32"), share=np.float32(1)))
    assert errors(folder) == []


def test_a_warm_up_request_in_which_one_input_is_no_batch(tmp_path):
    def build():
        x = tf.compat.v1.placeholder("float32", (None, 3), name="x")
        weight = tf.compat.v1.placeholder("float32", name="weight")
        return {"x": x, "weight": weight}, {"y": x * tf.ensure_shape(weight, (3,))}

    folder = of_tensorflow_1(tmp_path / "1", build)
    assert "could not be tried with made-up inputs" in only_warning(folder)
    warm_up(folder, record(x=np.ones((1, 3), "float32"), weight=np.ones(3, "float32")))
    assert errors(folder) == []


def test_large_inputs_are_tried_with_few_rows(tmp_path):
    large = tf.TensorSpec((None, 1024, 1536, 3), "float32", name="x")

    def at_most_two(kernel, x):
        few = tf.debugging.assert_less(tf.shape(x)[0], 3)
        with tf.control_dependencies([few]):
            return {"y": tf.reduce_mean(x, (1, 2, 3))[:, None] * kernel[:1]}

    assert errors(write(tmp_path / "1", at_most_two, large)) == []
    small = tf.TensorSpec((None, 8, 8, 3), "float32", name="x")
    assert "fails at batch 17: " in only_error(write(tmp_path / "2", at_most_two, small))


IDS = tf.TensorSpec((None, 1), "int64", name="ids")
WORDS = tf.TensorSpec((None, 2), "string", name="words")


@pytest.mark.parametrize(
    ("call", "specs", "given"),
    [
        (lambda k, ids: {"y": tf.gather(k, from_ten(ids))}, (IDS,), {"ids": np.int64([[10]])}),
        (lambda k, x, ids: {"y": x @ k + tf.gather(k, from_ten(ids))[:, 0]}, (X, IDS),
         {"x": np.ones((1, 3), "float32"), "ids": np.int64([[11]])}),
        (lambda k, words: {"y": tf.strings.to_number(tf.strings.substr(words, 2, 1))}, (WORDS,),
         {"words": np.array([[b"no1", b"no2"]], object)}),
    ],
    ids=["alone", "beside", "words"],
)  # fmt: skip
def test_values_that_are_not_taken_are_not_condemned_for_made_up_ones(tmp_path, call, specs, given):
    folder = write(tmp_path / "1", call, *specs)
    said = only_warning(folder)
    assert "could not be tried with made-up inputs" in said
    assert "-> add a warm-up request with inputs that it takes" in said
    warm_up(folder, record(**given))
    assert warnings_of(folder) == []
    warm_up(folder, record(**{**given, **{key: value[:, :0] for key, value in given.items()}}))
    assert errors(folder)  # one that is given and fails


def from_ten(ids):
    with tf.control_dependencies(
        [tf.debugging.assert_greater_equal(ids, tf.constant(10, "int64"))]
    ):
        return ids - 10


def test_a_lookup_of_keras_without_a_place_for_other_numbers(tmp_path):
    numbers = keras.Input((1,), dtype="int64", name="ids")
    lookup = keras.layers.IntegerLookup(vocabulary=[10, 20], num_oov_indices=0)
    flat = keras.layers.Flatten(name="y")(keras.layers.Embedding(3, 2)(lookup(numbers)))
    keras.Model(numbers, flat).export(tmp_path / "1", verbose=False)
    assert "could not be tried" in str(check(tmp_path / "1")) and errors(tmp_path / "1") == []


def test_a_batch_that_is_built_into_the_graph(tmp_path):
    folder = write(tmp_path / "1", lambda k, x: {"y": tf.ensure_shape(x @ k, (1, 2))})
    assert "serving_default fails at batch 2: InvalidArgumentError" in only_error(folder)
    folder = write(tmp_path / "2", lambda k, x: {"y": tf.reshape(x @ k, (-1, 7))})
    assert "serving_default fails: InvalidArgumentError: Input to reshape" in only_error(folder)


@pytest.mark.parametrize("function", [tf.py_function, tf.numpy_function])
def test_python_inside(tmp_path, function):
    def call(kernel, x):
        return {"y": tf.ensure_shape(function(lambda a: a * 2, [x], tf.float32), (None, 3))}

    assert "serving_default calls back into Python (" in only_error(write(tmp_path / "1", call))


def test_python_that_no_signature_needs_does_no_harm(tmp_path):
    def call(kernel, x):
        tf.numpy_function(lambda a: a, [x], tf.float32, stateful=False)
        return {"y": x @ kernel}

    assert errors(write(tmp_path / "1", call)) == []


def test_compiled_by_xla(tmp_path):
    @tf.function(jit_compile=True)
    def compiled(kernel, x):
        return x @ kernel

    folder = write(tmp_path / "1", lambda k, x: {"y": compiled(k, x)})
    assert "only under XLA, which is off" in only_error(folder)


def product_becomes(operation):
    def replace(graph):
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                if node.op == "MatMul":
                    node.op = operation

    return replace


def test_a_graph_of_the_jax_backend(good):
    """Keras on JAX exports one XlaCallModule in place of operations."""

    found = errors(edited(good, product_becomes("XlaCallModule")))
    assert "serving_default runs only under XLA" in "".join(found)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "complex64", "uint16"])
def test_outputs_that_rest_cannot_write(tmp_path, dtype):
    folder = write(tmp_path / "1", lambda k, x: {"y": tf.cast(x @ k, dtype)})
    assert f"output 'y' is {dtype}, which REST can neither read nor write" in only_error(folder)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "uint16"])
def test_the_advice_on_a_dtype_can_be_followed(tmp_path, dtype):
    def model(given, returned):
        inputs = keras.Input((3,), dtype=given, name="x")
        numbers = keras.ops.cast(inputs, "float32")
        return keras.Model(inputs, {"y": keras.ops.cast(keras.ops.sum(numbers, -1), returned)})

    plain = "int32" if dtype == "uint16" else "float32"
    model(dtype, plain).export(tmp_path / "1", verbose=False)
    assert f"give keras.Input dtype='{plain}'" in "".join(errors(tmp_path / "1"))
    model(plain, dtype).export(tmp_path / "2", verbose=False)
    end = "end with keras.ops.cast(y, 'int32')"
    end = end if dtype == "uint16" else "give the last layer dtype='float32'"
    assert end in "".join(errors(tmp_path / "2"))
    model(plain, plain).export(tmp_path / "3", verbose=False)
    assert errors(tmp_path / "3") == []


def test_text_that_is_not_utf8(tmp_path):
    def call(kernel, x):
        return {name: tf.fill(tf.shape(x)[:1], b"\xff\xfe") for name in ("raw", "raw_bytes")}

    assert "not UTF-8, which REST writes as invalid JSON: ['raw'] -> end their names" in only_error(
        write(tmp_path / "1", call)
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (record(z=np.ones((1, 3), "float32")), "takes the inputs ['x']. Received: ['z']"),
        (record(x=np.ones((1, 3), "float64")), "'x' is float64, but the signature takes float32"),
        (record(x=np.ones((1, 4), "float32")), "Cannot feed value of shape (1, 4)"),
        (record("score", x=np.ones((1, 3), "float32")), "there is no signature 'score'"),
    ],
)
def test_a_bad_warm_up_record(good, bad, message):
    warm_up(good, GOOD, bad)
    found = only_error(good)
    assert found.startswith("warm-up record 2: ") and message in found


def test_bad_warm_up_files(good):
    path = warm_up(good, b"\xff\xff no protocol buffer")
    assert "the warm-up file is corrupt: DecodeError" in only_error(good)
    path.write_text("not a file of records")
    assert "the warm-up file is corrupt: DataLossError" in only_error(good)
    warm_up(good, *[GOOD] * 1001)
    assert "1001 warm-up records, but TF Serving takes at most 1000" in only_error(good)
    warm_up(good)
    assert errors(good) == []
    path.unlink()
    assert [f.what for f in check(good) if f.severity == "warning"] == [
        "no warm-up requests: the first request is slow"
    ]


def test_text_inputs_are_tried_with_images_numbers_and_examples(tmp_path):
    def decode(kernel, text):
        one = lambda t: tf.io.decode_png(t, channels=3)[:8, :8]  # noqa: E731
        return {"y": tf.map_fn(one, text, fn_output_signature=tf.uint8)}

    assert errors(write(tmp_path / "1", decode, TEXT)) == []
    number = write(tmp_path / "2", lambda k, text: {"y": tf.strings.to_number(text)}, TEXT)
    assert errors(number) == []
    features = {"x": tf.io.FixedLenFeature((), tf.float32, 0.0)}
    parsed = write(tmp_path / "3", lambda k, text: tf.io.parse_example(text, features), TEXT)
    assert errors(parsed) == []

    def needed(kernel, text):
        return tf.io.parse_example(text, {"x": tf.io.FixedLenFeature((), tf.float32)})

    unknown = write(tmp_path / "4", needed, TEXT)
    assert errors(unknown) == []
    assert "could not be tried with made-up inputs" in str(check(unknown))
    assert "Feature: x (data type: float) is required but could not be" in str(check(unknown))
    upper = write(tmp_path / "5", lambda k, text: {"t": tf.strings.upper(text)}, TEXT)
    assert errors(upper) == []
    as_it_is = tf.TensorSpec((None,), tf.string, "image_bytes")
    same = write(tmp_path / "6", lambda k, image_bytes: {"t": image_bytes}, as_it_is)
    assert "not UTF-8" in only_error(same)
    example = tf.train.Example()
    example.features.feature["x"].float_list.value.append(1.0)
    warm_up(unknown, record(text=[example.SerializeToString()]))
    assert [f.severity for f in check(unknown)] == ["note"]


def test_the_tensorflow_version_is_recorded(good):
    def forget(graph):
        graph.meta_info_def.tensorflow_version = ""

    found = check(edited(good, forget))
    assert [(f.severity, "is not recorded" in f.what) for f in found] == [("warning", True)]


def test_an_operation_that_the_server_lacks(good):
    folder = edited(good, product_becomes("SomebodysMatMul"))
    assert "TensorFlow has no operation SomebodysMatMul" in only_error(folder)


@pytest.mark.parametrize(
    ("operation", "library"),
    [("CaseFoldUTF8", "TF Text"), ("TFText>RoundRobinTrim", "TF Text"),
     ("WordpieceTokenizeWithOffsets", "TF Text"), ("SentencepieceTokenizeOp", "TF Text"),
     ("SimpleMLInferenceOpWithHandle", "TF Decision Forests")],
)  # fmt: skip
def test_an_operation_that_tf_serving_has_and_tensorflow_lacks(good, operation, library):
    said = only_warning(edited(good, product_becomes(operation)))
    assert f"operations of {library} ({operation}), which TF Serving has built in" in said


def test_an_input_with_a_default_may_be_left_out_of_a_warm_up_record(good):
    bias = tf.TensorSpec((None, 2), "float32", name="bias")
    folder = write(good.parent / "2", lambda k, x, bias: {"y": x @ k + bias}, X, bias)
    warm_up(folder, GOOD)
    assert "takes the inputs ['bias', 'x']. Received: ['x']" in only_error(folder)

    def give_default(graph):
        value = tf.make_tensor_proto(np.zeros((1, 2), "float32"))
        graph.signature_def["serving_default"].defaults["bias"].CopyFrom(value)

    assert errors(edited(folder, give_default)) == []


def test_what_keras_exports_has_no_error(tmp_path):
    tokens = keras.layers.TextVectorization(vocabulary=["a", "b"], output_sequence_length=3)
    text = keras.Input((), dtype="string", name="text")
    numbers = keras.layers.Embedding(4, 2)(tokens(text))
    keras.Model(text, keras.layers.Flatten(name="y")(numbers)).export(tmp_path / "1", verbose=False)
    assert errors(tmp_path / "1") == []
    image = keras.Input((None, None, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(image))
    keras.Model(image, pooled).export(tmp_path / "2", verbose=False)
    assert errors(tmp_path / "2") == []
    assert "input 'image' has dimensions of unknown size besides the batch" in str(
        check(tmp_path / "2")
    )


def test_a_model_of_tensorflow_1_has_no_error(tmp_path):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder("float32", (None, 3), name="x")
        kernel = v1.get_variable("kernel", (3, 2), use_resource=False)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(tmp_path / "1"), {"x": x}, {"y": x @ kernel})
    assert errors(tmp_path / "1") == []
    shutil.rmtree(tmp_path / "1" / "variables")
    assert "variables/variables.index is missing" in only_error(tmp_path / "1")


@keras.saving.register_keras_serializable("findings")
class Doubled(keras.layers.Layer):
    def call(self, inputs):
        doubled = tf.numpy_function(lambda a: a * 2, [inputs], tf.float32)
        return tf.ensure_shape(doubled, inputs.shape)

    def compute_output_shape(self, shape):
        return shape


def test_publish_refuses_what_tf_serving_could_not_serve(tmp_path):
    inputs = keras.Input((3,), name="x")
    model = keras.Model(inputs, Doubled(name="y")(inputs))  # answers as in Keras, in this process
    with pytest.raises(PublishError, match="calls back into Python .*replace tf.py_function"):
        keras_shared.publish(model, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@keras.saving.register_keras_serializable("findings")
class Greeting(keras.layers.Layer):
    def call(self, inputs):
        with tf.control_dependencies([tf.io.read_file("/etc/hostname")]):
            return inputs * 2


def test_publish_warns_of_what_was_not_run(tmp_path):
    inputs = keras.Input((3,), name="x")
    model = keras.Model(inputs, Greeting(name="y")(inputs))
    with pytest.warns(UserWarning, match="files: ReadFile.*was not run"):
        keras_shared.publish(model, tmp_path / "m")


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "mixed_bfloat16", "bfloat16"])
def test_half_precision_is_published_with_float32_outside(tmp_path, policy):
    dtype = keras.DTypePolicy(policy)
    inputs = keras.Input((3,), name="x", dtype=dtype.compute_dtype)
    model = keras.Model(inputs, keras.layers.Dense(2, dtype=dtype, name="y")(inputs))
    version = keras_shared.publish(model, tmp_path / "half")
    served = tf.saved_model.load(version).signatures["serving_default"]
    assert served.structured_input_signature[1]["x"].dtype == tf.float32
    assert served(x=tf.ones((1, 3)))["y"].dtype == tf.float32


def pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def folder_instead(path):
    path.unlink()
    path.mkdir()


def circle(path):
    path.unlink()
    path.symlink_to(path)


def huge(path):
    with path.open("r+b") as file:
        file.truncate(5 * 2**30)


@pytest.mark.parametrize("name", ["saved_model.pb", "assets.extra/tf_serving_warmup_requests"])
@pytest.mark.parametrize(
    ("replace", "said"),
    [(pipe, "is no regular file"), (folder_instead, "is a folder"),
     (circle, "symbolic links"), (huge, "5,368,709,120 bytes, more than")],
)  # fmt: skip
def test_what_is_no_file_to_read(good, name, replace, said):
    replace(good / name)
    assert said in only_error(good)


def test_a_pipe_among_the_variables(good):
    pipe(good / "variables" / "variables.index")
    assert "variables.index is no regular file" in only_error(good)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100, b"x" * 1000, b"{" * 1000])
def test_a_graph_as_text_or_of_other_bytes(good, content):
    (good / "saved_model.pb").write_bytes(content)
    assert only_error(good)
    (good / "saved_model.pb").unlink()
    (good / "saved_model.pbtxt").write_bytes(content)
    assert only_error(good)


def test_a_record_whose_few_bytes_stand_for_terabytes(good):
    request = prediction_log_pb2.PredictionLog.FromString(GOOD)
    value = request.predict_log.request.inputs["x"]
    value.ClearField("tensor_content")
    value.float_val[:] = [1.0]
    for sizes in ([3 * 10**12], [2**62, 2**62], [-5, 3]):
        del value.tensor_shape.dim[:]
        for size in sizes:
            value.tensor_shape.dim.add().size = size
        warm_up(good, request.SerializeToString())
        assert f"input 'x' of shape {sizes} has" in only_error(good)


def test_signatures_that_no_tensor_has(good):
    def with_input(**changes):
        def change(graph):
            info = graph.signature_def["serving_default"].inputs["x"]
            info.dtype = changes.get("dtype", info.dtype)
            for dim, size in zip(info.tensor_shape.dim, changes.get("sizes", ()), strict=False):
                dim.size = size

        return change

    content = (good / "saved_model.pb").read_bytes()
    for change, said in (
        (with_input(dtype=999), "has the dtype 999, unknown to TensorFlow"),
        (with_input(sizes=(-1, 2**31)), "has 8,589,934,592 bytes at least, and a request 2,147"),
        (with_input(sizes=(2**62, 2**62)), "bytes at least, and a request 2,147"),
        (with_input(sizes=(-1, -7)), "has a negative size in its shape [-1, -7]"),
    ):
        (good / "saved_model.pb").write_bytes(content)
        assert said in " ".join(errors(edited(good, change)))


def test_names_are_shown_and_not_sent(good):
    def rename(graph):
        signature = graph.signature_def.pop("serving_default")
        graph.signature_def["a\x1b[31m[red]\r\nb"].CopyFrom(signature)

    assert r"there are: ['a\x1b[31m[red]\r\nb']" in errors(edited(good, rename))[0]
    assert "\x1b" not in str([*check(good)])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("small") / "1", product)
    warm_up(folder, GOOD)
    return folder


def faults(small, data, **options):
    with tempfile.TemporaryDirectory() as scratch:
        folder = shutil.copytree(small, pathlib.Path(scratch) / "1")
        for name in ("saved_model.pb", "assets.extra/tf_serving_warmup_requests"):
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(data.draw(mutated(content) | st.just(content)))
        for finding in check(folder, **options):
            assert all(text.isprintable() and text for text in finding)


@pytest.mark.slow
@settings(fuzzed, max_examples=max(20, EXAMPLES // 3))
@given(data=st.data())
def test_whatever_the_bytes_are_there_are_findings(small, data):
    faults(small, data, static=True)


@pytest.mark.slow
@fuzzed
@given(data=st.data())
def test_whatever_the_bytes_are_it_is_tried(small, data):
    faults(small, data, timeout=20)


@pytest.mark.parametrize("path", ["\0", "a\0b/c", "x" * 5000 + "/y", "\x1b[31m"])
def test_paths_that_no_folder_has(path):
    with pytest.raises(KerasSharedError):
        check(path)
