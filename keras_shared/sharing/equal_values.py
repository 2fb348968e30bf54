"""Weights that hold equal values, as they are or with their axes in another order."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np

LEAST = 8  # elements, below which equal values are no evidence
DISTINCT = 4  # values: fewer are a fill, an identity, or the biases with which an LSTM begins


class Candidate(NamedTuple):
    """A weight, which is read when it is needed and forgotten again.

    Attributes:
        name: what it is called.
        owner: those of one owner are not compared.
        shape: its shape.
        dtype: its dtype; only equal ones are compared.
        read: gives its values.
    """

    name: str
    owner: Hashable
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Any]

    @classmethod
    def of(cls, variable: keras.Variable, owner: keras.Layer, name: str) -> "Candidate":
        """A variable of a model."""
        shape = tuple(variable.shape)
        return cls(name, id(owner), shape, str(variable.dtype), variable.numpy)


class Equal(NamedTuple):
    """Two weights of different layers that hold the same values.

    Attributes:
        first: name of one.
        second: name of the other.
        shape: shape of the first.
        axes: the first with its axes in this order is the second.
    """

    first: str
    second: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def form(self) -> str:
        """How the first is read to be the second."""
        if self.axes == tuple(range(len(self.axes))):
            return "as is"
        return "transposed" if len(self.axes) == 2 else f"axes {self.axes}"


def equal_values(candidates: Iterable[Candidate]) -> list[Equal]:
    """Which hold the values of an earlier one, bit by bit.

    A constant, and what has fewer than 8 elements or 4 different values, is no evidence. One
    weight is in memory at a time; two, where their sums say that they may be equal.
    """
    by_size = defaultdict(list)
    for candidate in candidates:
        if np.prod(candidate.shape, dtype=int) >= LEAST:
            by_size[candidate.dtype, tuple(sorted(candidate.shape))].append(candidate)
    found: list[Equal] = []
    for same_size in by_size.values():
        alike = defaultdict(list)
        for candidate in same_size if len(same_size) > 1 else ():
            bits = _bits(candidate.read())
            if _is_evidence(bits):
                alike[_sums(bits)].append(candidate)
        for group in alike.values():
            found += _pairs(group)
    return found


def _pairs(group: list[Candidate]) -> Iterator[Equal]:
    """Each of these that equals an earlier one, with the first such one."""
    while len(group) > 1:
        first, *others = group
        values, group = _bits(first.read()), []
        for other in others:
            axes = _axes(values, _bits(other.read()))
            if axes is None or first.owner == other.owner:
                group.append(other)
            else:
                yield Equal(first.name, other.name, first.shape, axes)


def _axes(first: np.ndarray, second: np.ndarray) -> tuple[int, ...] | None:
    for axes in itertools.permutations(range(first.ndim)):
        if np.array_equal(first.transpose(axes), second):  # False at once where shapes differ
            return axes
    return None


def _bits(values: Any) -> np.ndarray:
    values = np.ascontiguousarray(values)
    bits: np.ndarray = values.view(f"u{values.dtype.itemsize}")
    return bits


def _is_evidence(bits: np.ndarray) -> bool:
    few = np.unique(bits.ravel()[:4096])
    return len(few) >= DISTINCT or len(np.unique(bits)) >= DISTINCT


def _sums(bits: np.ndarray) -> tuple[int, ...]:
    """What does not change with the order of the elements."""
    return (
        int(bits.sum(dtype=np.uint64)),
        int(np.bitwise_xor.reduce(bits, axis=None)),
        int(bits.min()),
        int(bits.max()),
    )
