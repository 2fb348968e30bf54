"""What a graph touches is said before it runs: real files, which stay as they are."""

import re

import keras
import pytest
import tensorflow as tf
from tensorflow.core.framework import op_def_pb2, types_pb2
from tensorflow.python.client import pywrap_tf_session

from keras_shared.serving import check
from keras_shared.serving.effects import ARGUMENTS, NAMES, PURE
from saved_models import edited, of_tensorflow_1, product, write

NEVER_NEEDED = r"^(parse|debug|tensor|display|op|driver|experiment|run|user|job|method|func|node)_"


def what(folder, **options):
    """What `check` says, but for notes of versions and of warm-up requests."""
    found = check(folder, **options)
    assert [f for f in found if f.severity == "error"] == [], found
    return [f.what for f in found if "written by" not in f.what and "warm-up" not in f.what]


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_text("mine")
    return path


def placeholders(*extra):
    def build():
        x = tf.compat.v1.placeholder("float32", (None, 3), name="x")
        for make in extra:
            make()
        return {"x": x}, {"y": x * 2}

    return build


def test_a_file_written_when_it_is_loaded(tmp_path, secret):
    def start():
        return tf.io.write_file(str(secret), "theirs")

    folder = of_tensorflow_1(tmp_path / "1", placeholders(), start)
    [said] = what(folder)
    assert said == "its graph does more than compute (files: WriteFile), and was not run"
    assert what(folder, static=True) == ["its graph does more than compute (files: WriteFile)"]
    assert secret.read_text() == "mine"
    [said] = what(folder, trusted=True)
    assert said == "its graph does more than compute (files: WriteFile)"
    assert secret.read_text() == "theirs"


def test_a_file_read_and_written_at_a_request(tmp_path, secret):
    def call(kernel, x):
        text = tf.io.read_file(str(secret))
        with tf.control_dependencies([tf.io.write_file(str(secret), "theirs")]):
            return {"y": x @ kernel, "text": tf.fill(tf.shape(x)[:1], text)}

    folder = write(tmp_path / "1", call)
    [said] = what(folder)
    assert "(files: ReadFile, WriteFile), and was not run" in said
    assert secret.read_text() == "mine"


def test_what_no_output_needs_is_listed_too(tmp_path, secret):
    unused = placeholders(lambda: tf.io.matching_files(f"{secret}*"))
    assert "files: MatchingFiles" in what(of_tensorflow_1(tmp_path / "1", unused))[0]

    def collected():
        operation = tf.io.write_file(str(secret), "theirs")
        tf.compat.v1.add_to_collection("saved_model_main_op", operation)

    assert "WriteFile" in what(of_tensorflow_1(tmp_path / "2", placeholders(collected)))[0]
    assert secret.read_text() == "mine"


def read(dataset):
    return dataset.reduce(tf.constant(""), lambda a, b: a + b)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: read(tf.data.TextLineDataset(path)), "TextLineDataset"),
        (lambda path: read(tf.data.TFRecordDataset(path)), "TFRecordDataset"),
        (lambda path: tf.print("a", output_stream=f"file://{path}"), "PrintV2"),
        (lambda path: tf.raw_ops.CreateSummaryFileWriter(
            writer=tf.raw_ops.SummaryWriter(), logdir=path, max_queue=1, flush_millis=1,
            filename_suffix=""), "CreateSummaryFileWriter"),
        (lambda path: tf.raw_ops.SaveV2(prefix=path, tensor_names=["a"], shape_and_slices=[""],
                                        tensors=[tf.ones(())]), "SaveV2"),
        (lambda path: tf.raw_ops.RestoreV2(prefix=path, tensor_names=["a"], shape_and_slices=[""],
                                           dtypes=[tf.float32]), "RestoreV2"),
        (lambda path: tf.raw_ops.ImmutableConst(dtype=tf.float32, shape=(1,),
                                                memory_region_name=path), "ImmutableConst"),
        (lambda path: tf.io.decode_proto("", "A", [], [], descriptor_source=path), "DecodeProtoV2"),
        (lambda path: tf.data.Dataset.range(2).cache(path).reduce(
            tf.constant(0, tf.int64), lambda a, b: a + b), "CacheDatasetV2"),
        (lambda path: tf.raw_ops.DatasetFromGraph(graph_def=path), "DatasetFromGraph"),
        (lambda path: tf.raw_ops.DebugIdentityV2(input=tf.ones(()), debug_urls=[path]), "DebugId"),
        (lambda path: tf.data.Dataset.from_generator(lambda: [1], tf.int32).reduce(
            0, lambda a, b: a + b), "PyFunc"),
    ],
)  # fmt: skip
def test_operations_that_touch_more(tmp_path, secret, make, said):
    def call(kernel, x):
        with tf.control_dependencies([*filter(None.__ne__, tf.nest.flatten(make(str(secret))))]):
            return {"y": x @ kernel}

    found = check(write(tmp_path / "1", call), static=True)
    assert said in " ".join(f.what for f in found if "more than compute" in f.what)


def test_printing_and_caching_in_memory_touch_nothing(tmp_path):
    def call(kernel, x):
        tf.print("a", tf.shape(x))
        total = (
            tf.data.Dataset.range(2).cache().reduce(tf.constant(0, tf.int64), lambda a, b: a + b)
        )
        return {"y": x @ kernel + tf.cast(total, tf.float32)}

    assert what(write(tmp_path / "1", call)) == []


class Vocabulary(tf.Module):
    def __init__(self, path):
        text = tf.lookup.TextFileInitializer(
            path, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )  # fmt: skip
        self.table = tf.lookup.StaticVocabularyTable(text, 1)
        self.kernel = tf.Variable(1)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="word")])
    def look_up(self, word):
        return {"y": self.table.lookup(word)}


def test_vocabularies_in_assets_are_the_models_own(tmp_path, secret):
    module = Vocabulary(str(secret))
    tf.saved_model.save(module, str(tmp_path / "1"), module.look_up)
    assert what(tmp_path / "1") == []
    text = keras.Input((), dtype="string", name="text")
    layers = [
        keras.layers.StringLookup(vocabulary=str(secret), name="y"),
        keras.layers.TextVectorization(vocabulary=str(secret), output_sequence_length=3, name="y"),
    ]
    for number, layer in enumerate(layers, 2):
        keras.Model(text, layer(text)).export(tmp_path / str(number), verbose=False)
        assert not [said for said in what(tmp_path / str(number)) if "compute" in said]

    def build():
        word = tf.compat.v1.placeholder("string", (None,), name="word")
        table = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(secret), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ), 0,
        )  # fmt: skip
        return {"word": word}, {"id": table.lookup(word)}

    start = tf.compat.v1.tables_initializer
    assert what(of_tensorflow_1(tmp_path / "4", build, start)) == []


def test_a_vocabulary_anywhere_else_is_not(tmp_path, secret):
    module = Vocabulary(str(secret))
    tf.saved_model.save(module, str(tmp_path / "1"), module.look_up)

    def no_asset(graph):
        del graph.asset_file_def[:]

    def upwards(graph):
        graph.asset_file_def[0].filename = "../../secret.txt"

    def sent(graph):
        info = graph.signature_def["serving_default"].inputs["path"]
        info.name, info.dtype = graph.asset_file_def[0].tensor_info.name, types_pb2.DT_STRING

    def overwritten(graph):
        """Another value is assigned to the variable that holds the path."""
        nodes = {node.name: node for node in graph.graph_def.node}
        [assign] = [node for node in nodes.values() if node.op == "AssignVariableOp"]
        place = graph.graph_def.node.add()
        place.CopyFrom(tf.compat.v1.NodeDef(name="place", op="Const"))
        place.attr["dtype"].type = types_pb2.DT_STRING
        place.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(str(secret)))
        again = graph.graph_def.node.add()
        again.CopyFrom(assign)
        again.name, again.input[1] = "again", "place"

    content = (tmp_path / "1" / "saved_model.pb").read_bytes()
    for edit in (no_asset, upwards, sent, overwritten):
        (tmp_path / "1" / "saved_model.pb").write_bytes(content)
        found = check(edited(tmp_path / "1", edit), static=True)
        assert "(files: InitializeTableFromTextFileV2)" in str(found), edit


def test_the_models_own_checkpoint_is_read_and_no_other(tmp_path, secret):
    folder = write(tmp_path / "1", product)
    assert what(folder, static=True) == []

    def restore_elsewhere(graph):
        for function in graph.graph_def.library.function:
            for node in function.node_def:
                if node.op == "RestoreV2":
                    node.input[0] = "RestoreV2/tensor_names:output:0"

    def save_at_start(graph):
        saved = graph.saver_def.save_tensor_name.partition(":")[0]
        graph.collection_def["saved_model_main_op"].node_list.value[:] = [saved]

    content = (folder / "saved_model.pb").read_bytes()
    assert "(files: RestoreV2)" in str(check(edited(folder, restore_elsewhere), static=True))
    (folder / "saved_model.pb").write_bytes(content)
    said = str(check(edited(folder, save_at_start), static=True))
    assert "(files: MergeV2Checkpoints, SaveV2)" in said


def test_the_savers_of_tensorflow_1_are_the_models_own(tmp_path):
    def build():
        x = tf.compat.v1.placeholder("float32", (None, 3), name="x")
        y = x @ tf.compat.v1.get_variable("kernel", (3, 2), use_resource=False)
        tf.compat.v1.train.Saver()  # of the training, beside that of the SavedModel
        tf.compat.v1.train.Saver(sharded=True)
        return {"x": x}, {"y": y}

    assert what(of_tensorflow_1(tmp_path / "1", build)) == []


def test_every_operation_that_takes_the_name_of_a_file_is_known():
    """Also one that a later TensorFlow brings."""
    listed = op_def_pb2.OpList()
    listed.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    suspect = re.compile(r"file|path|dir(?!ec)|uri|url|address|socket|host(name)?$")
    arguments, names = "|".join(ARGUMENTS.values()), "|".join(NAMES.values())
    for operation in listed.op:
        if operation.name in PURE or re.fullmatch(names, operation.name):
            continue
        text = [a.name for a in operation.input_arg if a.type == types_pb2.DT_STRING]
        text += [a.name for a in operation.attr if a.type in ("string", "list(string)")]
        missed = [n for n in text if suspect.search(n) and not re.search(arguments, n)]
        assert not missed, f"{operation.name}: {missed}"
