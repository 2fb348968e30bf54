"""`answer` and `answer_texts`: which signature gets a file or a text, and in what form."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_shared.serving.answering import AnswerError, answer, answer_texts
from saved_models import write


def model(folder, **signatures):
    """A SavedModel with these functions, given as (function, TensorSpec)."""
    module = tf.Module()
    for name, (function, spec) in signatures.items():
        setattr(module, name, tf.function(function, input_signature=[spec]))
    tf.saved_model.save(module, str(folder), {n: getattr(module, n) for n in signatures})
    return folder


def numbers(shape, dtype="float32"):
    return tf.TensorSpec(shape, dtype, "x")


def asked(folder, tmp_path, array):
    np.save(tmp_path / "numbers.npy", array)
    [outputs] = answer(folder, [[str(tmp_path / "numbers.npy")]])
    return outputs


TEXT = tf.TensorSpec((None,), tf.string, "text")


def test_the_default_signature_answers_a_text(tmp_path):
    folder = model(
        tmp_path / "1",
        aa=(lambda x: {"t": tf.strings.lower(x)}, TEXT),
        serving_default=(lambda x: {"t": tf.strings.upper(x)}, TEXT),
        lower=(lambda x: {"t": tf.strings.lower(x)}, TEXT),
    )
    assert [one["t"].tolist() for one in answer_texts(folder, ["AbC", "d"])] == [[b"ABC"], [b"D"]]


@pytest.mark.parametrize(
    ("dtype", "array", "said"),
    [
        ("uint8", [[300, -1, 256]], r"values that uint8 cannot hold: \[300"),
        ("int32", [[np.inf, 1e30, 5]], "values that int32 cannot hold"),
        ("bool", [[2, 0, 7]], "values that bool cannot hold"),
        ("float16", [[1e6, 0, 0]], "values that float16 cannot hold"),
    ],
)
def test_numbers_that_the_input_cannot_hold(dtype, array, said, tmp_path):
    folder = write(tmp_path / "1", lambda _, x: {"y": x}, tf.TensorSpec((None, 3), dtype, "x"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AnswerError, match=said):
            asked(folder, tmp_path, np.array(array))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3), st.booleans())
def test_an_array_goes_as_it_is_where_it_fits(tmp_path_factory, rank, batched):
    """And else as the one row of a batch, which is what a file of one vector means."""
    tmp_path = tmp_path_factory.mktemp("rank")
    shape = (2, 3, 4)[:rank]
    takes = (None, *shape) if batched and rank < 2 else shape
    folder = model(tmp_path / "1", serving_default=(lambda x: {"y": 2 * x}, numbers(takes)))
    array = np.arange(np.prod(shape, dtype=int), dtype="float32").reshape(shape)
    if rank == 0 and batched:
        with pytest.raises(AnswerError, match=r"numbers of shape \(\)"):  # no vector
            asked(folder, tmp_path, array)
        return
    np.testing.assert_array_equal(asked(folder, tmp_path, array)["y"].reshape(shape), 2 * array)


def test_a_vector_finds_the_signature_of_vectors(tmp_path):
    folder = model(
        tmp_path / "1",
        serving_default=(lambda x: {"y": 2 * x}, numbers((3,))),
        other=(lambda x: {"y": -x}, numbers((None, 3))),
    )
    assert asked(folder, tmp_path, np.array([1, 2, 3]))["y"].tolist() == [2, 4, 6]
    assert asked(folder, tmp_path, np.array([[1, 2, 3]]))["y"].tolist() == [[-1, -2, -3]]
    with pytest.raises(AnswerError, match=r"numbers of shape \(4,\)"):
        asked(folder, tmp_path, np.zeros(4))


def test_ragged_outputs_are_named(tmp_path):
    def words(x):
        return tf.strings.split(x)

    whole = model(tmp_path / "1", serving_default=(lambda x: {"w": words(x)}, TEXT))
    with pytest.raises(
        AnswerError, match=r"outputs \['w'\] of the signature 'serving_default' are"
    ):
        answer_texts(whole, ["a b"])
    partly = model(
        tmp_path / "2",
        serving_default=(lambda x: {"w": words(x), "n": words(x).row_lengths()}, TEXT),
    )
    with pytest.warns(UserWarning, match=r"\['w'\].* left out"):
        [found] = answer_texts(partly, ["a b"])
    assert found["n"].tolist() == [2]


def test_files_for_a_model_that_takes_numbers_and_texts(tmp_path):
    folder = model(
        tmp_path / "1",
        serving_default=(lambda x: {"y": x}, numbers((None, 3))),
        text=(lambda x: {"t": x}, TEXT),
    )
    (tmp_path / "digit.png").write_bytes(tf.io.encode_png(np.zeros((4, 4, 1), "uint8")).numpy())
    with pytest.raises(AnswerError, match=r"no signature that takes .*an image.* from \.npy"):
        answer(folder, [[str(tmp_path / "digit.png")]])
