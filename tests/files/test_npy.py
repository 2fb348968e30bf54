"""Headers of NumPy's files are checked before memory is taken; nothing is unpickled."""

import contextlib
import io
import os
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutations import fuzzed, mutated

from keras_shared.errors import KerasSharedError
from keras_shared.files.npy import read_npy, read_npz


def saved(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), version)
    return file.getvalue()


def by_hand(header, data=b"", major=1):
    size = struct.pack("<H" if major == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([major, 0]) + size + header.encode() + data


def header(shape, descr="'<f8'", order=False):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_what_numpy_writes(version):
    grid = np.arange(6.0).reshape(2, 3)
    for array in (
        grid, np.asfortranarray(grid), grid[:, :0], np.float32(3), grid.astype(">i2"), grid > 2,
        grid.astype("float16"),
    ):  # fmt: skip
        again = read_npy(saved(array, version))
        np.testing.assert_array_equal(again, array, strict=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"text", "does not begin with"),
        (b"\x93NUMPY", "is not a .npy file of numbers"),
        (by_hand(header("(1,)"), b"x" * 8, major=9), "it has version 9"),
        (by_hand("x" * 20_000, major=2), "a header of 20,000 bytes"),
        (by_hand("[" * 9000), "is not a .npy file of numbers"),
        (by_hand("{}"), "KeyError: 'descr'"),
        (by_hand(header("(-1, -1)"), b"x" * 8), "whole numbers from 0 are expected"),
        (by_hand(header("(1.0,)"), b"x" * 8), "whole numbers from 0 are expected"),
        (by_hand(header("3"), b"x" * 24), "whole numbers from 0 are expected"),
        (by_hand(header("(1000000000000,)"), b"x" * 8), "takes 8,000,000,000,000 bytes, and it"),
        (by_hand(header("(0, 99999999999999999999)")), "dimension exceeded"),
        (by_hand(header("(1,)", "'O'"), b"x" * 8), "it holds object, and numbers are expected"),
        (by_hand(header("(1,)", "[('a', '<f4')]"), b"x" * 4), "and numbers are expected"),
        (saved(np.array(["a"])), "it holds <U1, and numbers are expected"),
    ],
)
def test_what_is_refused(content, said, tmp_path):
    (tmp_path / "a.npy").write_bytes(content)
    for source in (content, tmp_path / "a.npy"):
        with pytest.raises(KerasSharedError) as caught:
            read_npy(source)
        assert said in str(caught.value)


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.array([Trap()], object), allow_pickle=True)
    np.savez("a.npz", x=np.array([Trap()], object), allow_pickle=True)
    for read, file in ((read_npy, "a.npy"), (read_npz, "a.npz")):
        with pytest.raises(KerasSharedError, match="it holds object"):
            read(file)
    assert not (tmp_path / "sprung").exists()


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    for read in (read_npy, read_npz):
        for file in (tmp_path / "pipe.npy", "/dev/zero"):
            with pytest.raises(KerasSharedError, match="is no regular file"):
                read(file)
        with pytest.raises(KerasSharedError, match="is a folder"):
            read(tmp_path)


def test_archives_of_arrays(tmp_path):
    path = tmp_path / "a.npz"
    arrays = {"x": np.zeros((50, 8, 8), "uint8"), "class_names": np.array(["one", "zwölf"])}
    for save in (np.savez, np.savez_compressed):
        save(path, **arrays)
        again = read_npz(path)
        assert list(again) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(again[name], array, strict=True)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as part,
    ):
        part.write(by_hand(header("(25000000,)")))
        for _ in range(200):
            part.write(bytes(1_000_000))
    with pytest.raises(KerasSharedError, match="more than 20 times as many.*without compression"):
        read_npz(path)


@fuzzed
@given(st.data())
def test_whatever_the_bytes_are(data):
    content = data.draw(
        st.sampled_from([saved(np.arange(12.0).reshape(3, 4)), saved(np.eye(2) > 0)])
    )
    with contextlib.suppress(KerasSharedError):
        assert read_npy(data.draw(mutated(content))).dtype.kind in "biuf"


@fuzzed
@given(st.data())
def test_whatever_the_archive_is(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "whatever.npz"
    save = data.draw(st.sampled_from([np.savez, np.savez_compressed]))
    save(path, x=np.arange(12.0), y=np.array(["a"]))
    path.write_bytes(data.draw(mutated(path.read_bytes())))
    with contextlib.suppress(KerasSharedError):
        for name, array in read_npz(path).items():
            expected = {"x": np.arange(12.0), "y": np.array(["a"])}
            np.testing.assert_array_equal(array, expected[name])  # each part has a checksum
