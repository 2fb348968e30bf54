"""The singular values of what a layer does to small changes of what it is given."""

import dataclasses
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_shared.signals.collecting import ACTIVATIONS, Use, first
from keras_shared.tying.watching import WatchedCall

EXACT = 512 * 512  # numbers in a Jacobian that is written out
FOUND, MORE, ROUNDS = 5, 5, 3  # of a larger one: values, directions besides, power iterations


@dataclasses.dataclass(frozen=True)
class Jacobian:
    """Singular values of the Jacobian of one use, at the first example.

    Attributes:
        values: from the largest down; of a large Jacobian the first five.
        root_mean_square: over all of them, `|J|_F / sqrt(min(rows, columns))`.
        exact: whether it was written out; otherwise a randomised decomposition found them.
    """

    values: tuple[float, ...]
    root_mean_square: float
    exact: bool


def jacobian_of(use: Use) -> Jacobian | None:
    """The Jacobian of the first output of a layer by its first input, of a cell by its first state.

    Of large ones products with `J` and `J^T` alone: Halko, Martinsson, Tropp 2011, algorithm 4.4.

    Returns:
        None where the input is no real number, such as a word's; for activations, whose slopes
        are their singular values.
    """
    call = use.calls[0]
    place = _place(call)
    if place is None or isinstance(use.layer, ACTIVATIONS):
        return None
    point = keras.tree.flatten((call.args, call.kwargs))[place][:1]
    rows, columns = math.prod(first(call.outputs).shape[1:]), math.prod(point.shape[1:])
    if not rows or not columns:
        return None
    if rows * columns <= EXACT:
        matrix = _pulled_back(call, place, np.eye(rows, dtype="float32"))
        if not np.isfinite(matrix).all():
            return Jacobian((math.nan,), math.nan, exact=True)
        values = np.linalg.svd(matrix.astype("float64"), compute_uv=False)
        return Jacobian(tuple(map(float, values)), float(np.sqrt(np.mean(values**2))), exact=True)
    random = np.random.default_rng(0)
    count = min(FOUND + MORE, rows, columns)
    tangents = random.normal(size=(count, columns)).astype("float32")
    pushed = _pushed(call, place, tangents, rows)  # (count, rows)
    square = float((pushed.astype("float64") ** 2).sum(axis=1).mean())  # E |J t|^2 = |J|_F^2
    if not square or not math.isfinite(square):
        return Jacobian((square,), square, exact=False)
    for _ in range(ROUNDS):
        back = _orthonormal(_pulled_back(call, place, _orthonormal(pushed)))
        pushed = _pushed(call, place, back, rows)
    small = _pulled_back(call, place, _orthonormal(pushed)).astype("float64")  # (count, columns)
    squares = np.linalg.eigvalsh(small @ small.T)[::-1][:FOUND]
    values = np.sqrt(np.maximum(squares, 0))
    whole = math.sqrt(max(square, float((values**2).sum())) / min(rows, columns))
    return Jacobian(tuple(map(float, values)), whole, exact=False)


def _place(call: WatchedCall) -> int | None:
    """Which of the flattened arguments to change: the first that holds real numbers."""
    flat = keras.tree.flatten((call.args, call.kwargs))
    tensors = [(i, v) for i, v in enumerate(flat) if isinstance(v, tf.Tensor)]
    real = [i for i, v in tensors if v.dtype.is_floating and v.ndim]
    if call.step is not None and len(real) > 1:  # of a cell the state goes on, not the input
        return real[1]
    return real[0] if real else None


def _copies(call: WatchedCall, place: int, count: int) -> tuple[Any, Any]:
    """The arguments with the first example so many times, flat, and the place's own."""
    flat = keras.tree.flatten((call.args, call.kwargs))
    examples = flat[place].shape[0]

    def copied(value: Any) -> Any:
        if not tf.is_tensor(value) or not value.ndim or value.shape[0] != examples:
            return value
        return tf.repeat(value[:1], count, axis=0)

    flat = [copied(value) for value in flat]
    return flat, flat[place]


def _output(call: WatchedCall, flat: list[Any], place: int, point: Any) -> Any:
    given = [point if i == place else value for i, value in enumerate(flat)]
    args, kwargs = keras.tree.pack_sequence_as((call.args, call.kwargs), given)
    return first(call.layer(*args, **kwargs))


def _pulled_back(call: WatchedCall, place: int, directions: np.ndarray) -> np.ndarray:
    """`J^T u` for each row `u` of (count, rows)."""
    flat, point = _copies(call, place, len(directions))
    with tf.GradientTape() as tape:
        tape.watch(point)
        output = _output(call, flat, place, point)
    along = tf.cast(tf.reshape(directions, output.shape), output.dtype)
    return _rows(tape.gradient(output, point, along, tf.UnconnectedGradients.ZERO))


def _pushed(call: WatchedCall, place: int, tangents: np.ndarray, rows: int) -> np.ndarray:
    """`J t` for each row `t` of (count, columns): the derivative by `u` of `t . (J^T u)`."""
    flat, point = _copies(call, place, len(tangents))
    with tf.GradientTape() as outer:
        with tf.GradientTape() as tape:
            tape.watch(point)
            output = _output(call, flat, place, point)
        along = tf.zeros_like(output)
        outer.watch(along)
        back = tape.gradient(output, point, along, tf.UnconnectedGradients.ZERO)
    turned = tf.cast(tf.reshape(tangents, point.shape), point.dtype)
    return _rows(outer.gradient(back, along, turned, tf.UnconnectedGradients.ZERO))


def _rows(tensor: Any) -> np.ndarray:
    array: np.ndarray = tf.cast(tf.convert_to_tensor(tensor), tf.float32).numpy()
    return array.reshape(len(array), -1)


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    """Orthonormal rows that span the same, of few long rows: by the products among them."""
    rows = rows.astype("float64")
    for _ in range(2):  # the second takes off what rounding left
        squares, turns = np.linalg.eigh(rows @ rows.T)
        kept = squares > 1e-14 * max(squares.max(), 1e-300)
        rows = (turns[:, kept] / np.sqrt(squares[kept])).T @ rows
    return rows.astype("float32")
