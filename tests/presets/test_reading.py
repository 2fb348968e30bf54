"""Whatever a file of a model holds: the model that was saved, or an error of ours."""

import contextlib
import copy
import io
import json
import os
import tracemalloc
import warnings
import zipfile
import zlib

import h5py
import keras
import numpy as np
import pytest
from hypothesis import given
from mutations import fuzzed, mutated

import keras_shared
from keras_shared.errors import KerasSharedError
from keras_shared.layers import TiedDense, TiedLayer
from keras_shared.presets.names import LoadError
from keras_shared.sharing import find_ties
from keras_shared.tying import TieError, bind_ties, tie, untie


def small():
    code, x = keras.layers.Dense(2, name="code"), keras.Input((4,))
    return keras.Model(x, TiedDense(code, name="back")(code(x)), name="small")


@pytest.fixture
def model():
    return small()


@pytest.fixture
def parts(model, tmp_path):
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def written(parts, tmp_path):
    """Write a `.keras` file with changes: `written(method, more=[(name, bytes)], **parts)`."""

    def write(method=zipfile.ZIP_STORED, more=(), **changed):
        changed = {name.replace("_", "."): content for name, content in changed.items()}
        path = tmp_path / "changed.keras"
        with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a name that comes twice
            for name, content in [*{**parts, **changed}.items(), *more]:
                archive.writestr(name, content)
        return path

    return write


@pytest.fixture
def weights(parts):
    """The HDF5 file inside, after `change(file)`."""

    def changed(change):
        file = io.BytesIO(parts["model.weights.h5"])
        with h5py.File(file, "r+") as opened:
            change(opened)
        return file.getvalue()

    return changed


def refused(path, said, model=None):
    with pytest.raises(KerasSharedError, match=said) as caught:
        keras_shared.load(path)
    assert str(path) in str(caught.value)
    if model is not None:
        before = model.get_weights()
        for read in (keras_shared.load_weights, find_ties):
            with pytest.raises(LoadError, match=said):
                read(model, path)
        for now, then in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([("config.json", b"{}")], "its part 'config.json' is there twice"),
        ([("../outside", b"")], "leads out of the archive"),
        ([("/outside", b"")], "leads out of the archive"),
        ([(f"{i:080}", b"") for i in range(8000)], "its list of parts has"),
    ],
)
def test_parts_that_keras_does_not_write(more, said, written, model):
    refused(written(more=more), said, model)


def test_other_packings(written, model):
    refused(written(zipfile.ZIP_BZIP2), "packed in a way that Keras", model)
    again = keras_shared.load(written(zipfile.ZIP_DEFLATED))
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


BOMB = """
import resource, sys
import keras, keras_shared
path = sys.argv[1]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for read in (keras_shared.load, lambda path: keras_shared.load_weights(keras.Sequential([
    keras.Input((2,)), keras.layers.Dense(1)]), path)):
    try:
        read(path)
    except keras_shared.presets.names.LoadError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5", "metadata.json", "extra"])
@pytest.mark.parametrize(("declared", "held"), [(30, 40_000_000), (2_000_000, 1_000_000)])
def test_a_part_of_another_size_than_it_declares(tmp_path, parts, name, declared, held):
    path = tmp_path / "lying.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, content in {"extra": b"", **parts}.items():
            archive.writestr(part, content + b" " * held * (part == name))
        archive.getinfo(name).file_size = declared  # in the list that is written last
    tracemalloc.start()
    refused(path, f"its part '{name}' declares {declared:,} bytes and holds")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.slow
def test_an_archive_of_four_gigabytes(tmp_path, parts, fresh_python):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("metadata.json", "model.weights.h5"):
            archive.writestr(name, parts[name])
        with archive.open("config.json", "w", force_zip64=True) as part:
            for _ in range(4100):
                part.write(b" " * 1_000_000)
    *said, more = fresh_python(BOMB, path).splitlines()
    assert len(said) == 2 and all("more than 20 times as many" in line for line in said)
    assert int(more) < 200  # MB


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b"", "JSONDecodeError"),
        (b"\0\0\0", "is corrupt and cannot be loaded"),
        (b"[]", "is corrupt and cannot be loaded"),
        (b"{}", "KeyError: 'class_name'"),
        (b'{"class_name": 5, "config": {}}', "names no class with its arguments"),
        (b'{"class_name":' + b"[" * 100_000, "RecursionError"),
        (b'{"class_name": "Functional", "config": {}, "module": "keras"}', "cannot be loaded"),
        (b" " * 11_000_000, "config.json of 11,000,000 bytes"),
    ],
)
def test_configs_that_are_none(config, said, written):
    refused(written(config_json=config), said)


def edited(parts, name, **changed):
    config = json.loads(parts["config.json"])
    (layer,) = (la for la in config["config"]["layers"] if la["config"]["name"] == name)
    layer["config"].update(changed)
    return json.dumps(config).encode()


def test_a_config_of_another_type_names_the_layer(written, parts):
    refused(written(config_json=edited(parts, "code", units="many")), "Dense 'code'.*units=many")
    source = json.loads(parts["config.json"])["config"]["layers"][2]["config"]["source"]
    for wrong in (
        None, 5, [], {}, "code", source | {"name": 3}, source | {"class_name": [1]},
        source | {"weight_shape": "ab"}, source | {"weight_shape": [{"a": 1}]},
        source | {"weight_shape": [-1, 2]}, source | {"id": 4},
    ):  # fmt: skip
        config = edited(parts, "back", source=copy.deepcopy(wrong))
        refused(written(config_json=config), "TiedDense 'back' has a config that was edited.*expec|"
                "TiedDense 'back' has a config that was edited.*is no shape")  # fmt: skip


def test_a_config_of_more_weights_than_the_file_has(written, parts, tmp_path):
    said = "is refused: it has .* bytes and declares .*more than 20 times as many"
    for units in (10**8, 10**15):
        refused(written(config_json=edited(parts, "code", units=units)), said)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="top")]).save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        config = file.attrs["model_config"]
        file.attrs["model_config"] = config.replace('"units": 2', '"units": 100000000')
    refused(tmp_path / "m.h5", said)


def test_weights_that_are_not_in_the_file(written, weights, model):
    def huge(file):
        del file["layers/dense/vars/0"]
        file.create_dataset("layers/dense/vars/0", (10**6, 10**6), "f4", chunks=(100, 100))

    def chunk_of_more(file):
        del file["layers/dense/vars/0"]
        file.create_dataset(
            "layers/dense/vars/0", (4,), "f4", chunks=(150_000_000,), maxshape=(None,)
        )

    def inflated(file):
        del file["layers/dense/vars/0"]
        weight = file.create_dataset(
            "layers/dense/vars/0", (4,), "f4", chunks=(4,), compression="gzip"
        )
        weight.id.write_direct_chunk((0,), zlib.compress(bytes(5_000_000)))

    def lzf(file):
        file.create_dataset("layers/more", (4,), "f4", chunks=(4,), compression="lzf")

    def objects(file):
        file.create_dataset("layers/more", data=["a", "b"])

    def soft(file):
        file["layers/more"] = h5py.SoftLink("/layers/dense")

    def external(file):
        file["layers/more"] = h5py.ExternalLink("/etc/passwd", "/a")

    for change, said in (
        (huge, "more than 20 times as many"),
        (chunk_of_more, "more than 20 times as many"),
        (inflated, "packed in a way that Keras does not use"),
        (lzf, "packed in a way that Keras does not use"),
        (objects, "'layers/more' in it holds object, and numbers are expected"),
        (soft, "'layers/more' in it is a link elsewhere"),
        (external, "'layers/more' in it is a link elsewhere"),
    ):
        refused(written(model_weights_h5=weights(change)), said, model)


def test_compressed_weights_are_read(written, weights, model):
    def compressed(file):
        values = file["layers/dense/vars/0"][:]
        del file["layers/dense/vars/0"]
        file["layers/dense/vars"].create_dataset(
            "0", data=values, chunks=(3, 2), compression="gzip", shuffle=True, fletcher32=True
        )

    again = keras_shared.load(written(model_weights_h5=weights(compressed)))
    np.testing.assert_array_equal(again.get_weights()[0], model.get_weights()[0])


def test_weights_that_are_no_numbers(written, weights, model, tmp_path):
    for value in (np.nan, np.inf):

        def diverged(file, value=value):
            file["layers/dense/vars/0"][0, 0] = value

        path = written(model_weights_h5=weights(diverged))
        refused(path, "no numbers any more.*'code/kernel' .(NaN|infinity) in 1 of 8")
        assert not np.isfinite(keras.models.load_model(path).get_weights()[0]).all()  # as advised
        before = model.get_weights()
        with pytest.raises(LoadError, match="'code/kernel'.*Nothing was loaded"):
            keras_shared.load_weights(model, path)
        np.testing.assert_array_equal(model.get_weights()[0], before[0])


def test_infinity_that_is_not_trained_may_be_meant(tmp_path):
    x = keras.Input((2,))
    model = keras.Model(x, keras.layers.Dense(2, trainable=False, name="mask")(x))
    model.layers[1].bias.assign([0, -np.inf])
    model.save(tmp_path / "m.keras")
    assert np.isinf(keras_shared.load(tmp_path / "m.keras").layers[1].bias[1])


def test_what_is_no_file(tmp_path, model):
    for name in ("pipe.keras", "pipe.h5"):
        os.mkfifo(tmp_path / name)
        refused(tmp_path / name, "is no regular file", model)
    (tmp_path / "device.keras").symlink_to("/dev/zero")
    refused(tmp_path / "device.keras", "is no regular file", model)
    (tmp_path / "folder.keras").mkdir()
    refused(tmp_path / "folder.keras", "is a folder")
    for name in ("empty.keras", "empty.h5"):
        (tmp_path / name).touch()
        refused(tmp_path / name, "empty", model)
    refused(tmp_path / "nothing.keras", "There is no file", model)


def towers():
    """A tower of one sub-model, read in another."""
    tower, x, y = keras.layers.Dense(4, name="tower"), keras.Input((4,)), keras.Input((4,))
    query = keras.Model(x, tower(x), name="query")
    answer = keras.Model(y, TiedLayer(tower, name="again")(y), name="answer")
    whole = keras.Input((4,))
    return keras.Model(whole, [query(whole), answer(whole)], name="whole")


def test_ties_in_a_circle(tmp_path):
    towers().save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for holder in ("answer", "whole"):
        config = json.loads(parts["config.json"])
        (answer,) = (x for x in config["config"]["layers"] if x["config"]["name"] == "answer")
        (again,) = (x for x in answer["config"]["layers"] if x["config"]["name"] == "again")
        again["config"]["source"].update(
            name=holder, class_name="Functional", weight_shape=None, id="x"
        )
        with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
            for name, content in (parts | {"config.json": json.dumps(config)}).items():
                archive.writestr(name, content)
        refused(tmp_path / "m.keras", f"'again' is tied in a circle: it calls '{holder}', which")


@keras.saving.register_keras_serializable("tests")
class Holder(keras.layers.Layer):
    """Calls the layer that it is given later."""

    inner = None

    def call(self, inputs):
        return inputs if self.inner is None else self.inner(inputs)


def test_layers_that_call_each_other():
    one, other, x = Holder(name="one"), Holder(name="other"), keras.Input((4,))
    one.inner, other.inner = TiedLayer(other, name="a"), TiedLayer(one, name="b")
    said = "is tied in a circle: it calls '(one|other)', which calls '(one|other)'"
    for use in (lambda: bind_ties(keras.Sequential([one, other])), lambda: one(x)):
        with pytest.raises(TieError, match=said):
            use()
    reader = TiedLayer(keras.layers.Dense(4, name="far"), name="reader")
    reader(x)
    holder = keras.Sequential([x, untie(reader)], name="holder")
    with pytest.raises(TieError, match="in a circle: it calls 'holder'"):
        tie(reader, holder)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A small model's file, its bytes, and its weights."""
    model, path = small(), tmp_path_factory.mktemp("kept") / "m.keras"
    model.save(path)
    return path, path.read_bytes(), model.get_weights()


def test_whatever_the_file_is(kept):
    path, content, values = kept

    @fuzzed
    @given(mutated(content))
    def the_model_or_an_error_of_ours(broken):
        path.write_bytes(broken)
        try:
            model = keras_shared.load(path)
        except KerasSharedError:
            return
        for now, then in zip(model.get_weights(), values, strict=True):
            np.testing.assert_array_equal(now, then)

    the_model_or_an_error_of_ours()


@pytest.mark.parametrize("name", ["m.weights.h5", "m.keras"])
def test_whatever_the_file_of_weights_is(name, tmp_path):
    model, path = small(), tmp_path / name
    (model.save if name.endswith(".keras") else model.save_weights)(path)
    content = path.read_bytes()

    @fuzzed
    @given(mutated(content))
    def weights_or_an_error_of_ours(broken):
        path.write_bytes(broken)
        before = model.get_weights()
        try:
            keras_shared.load_weights(model, path)
        except KerasSharedError:
            for now, then in zip(model.get_weights(), before, strict=True):
                np.testing.assert_array_equal(now, then)

    weights_or_an_error_of_ours()


def test_whatever_the_config_is(written, parts):
    @fuzzed
    @given(mutated(parts["config.json"]))
    def a_model_or_an_error_of_ours(config):
        with contextlib.suppress(KerasSharedError):
            keras_shared.load(written(config_json=config))

    a_model_or_an_error_of_ours()
