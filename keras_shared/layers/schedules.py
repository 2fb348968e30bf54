"""Which of the distinct blocks of a stack each of its uses calls."""

import numbers
from collections.abc import Sequence
from typing import Any

SCHEDULES = ("sequence", "cycle", "cycle_reverse", "middle_cycle")


def uses_of(schedule: str | Sequence[int], depth: int, distinct: int) -> list[int]:
    """The index of the block of each use.

    Args:
        schedule: `"sequence"` (AABBCC), `"cycle"` (ABCABC), `"cycle_reverse"` (ABCCBA; with more
            than two rounds the last one alone is reversed), `"middle_cycle"` (first and last use
            have blocks of their own, those between them are a cycle), or the indices themselves.
        depth: number of uses.
        distinct: number of blocks.

    Raises:
        ValueError: for an unknown schedule, or one that leaves a block without a use.

    Example:
        >>> from keras_shared.layers.schedules import uses_of
        >>> ["".join("ABC"[i] for i in uses_of(s, 6, 3)) for s in ("sequence", "cycle_reverse")]
        ['AABBCC', 'ABCCBA']

    Reference:
        Takase & Kiyono 2023, "Lessons on Parameter Sharing across Layers in Transformers",
        algorithm 1; Bae et al. 2025, "Mixture-of-Recursions", table 1 (middle-cycle).
    """
    for name, number in (("depth", depth), ("distinct", distinct)):
        positive(name, number)
    if not isinstance(schedule, str):
        return _listed(schedule, depth, distinct)
    if schedule not in SCHEDULES:
        raise ValueError(
            f"`schedule` must be one of {', '.join(map(repr, SCHEDULES))}, or a list with the "
            f"index of the block of each use. Received: schedule={schedule!r}"
        )
    if distinct > depth or (schedule == "middle_cycle" and distinct < 3 and distinct != depth):
        least = "at least 3, and " if schedule == "middle_cycle" else ""
        raise ValueError(
            f"A stack of {depth} uses by the schedule {schedule!r} takes {least}at most {depth} "
            f"distinct blocks. Received: depth={depth}, distinct={distinct}"
        )
    if schedule == "sequence":
        return [use * distinct // depth for use in range(depth)]
    if schedule == "middle_cycle" and distinct < depth:
        middle = [1 + use % (distinct - 2) for use in range(depth - 2)]
        return [0, *middle, distinct - 1]
    cycle = [use % distinct for use in range(depth)]
    if schedule == "cycle_reverse":
        last = (depth - 1) // distinct * distinct  # where the last round begins
        return cycle if last == 0 else cycle[:last] + [distinct - 1 - i for i in cycle[last:]]
    return cycle


def positive(name: str, number: Any, expected: str = "a positive integer") -> int:
    """A whole number from 1, NumPy's too, as an int.

    Raises:
        ValueError: for anything else.

    Example:
        >>> import numpy as np
        >>> from keras_shared.layers.schedules import positive
        >>> positive("depth", np.int64(3))
        3
    """
    if not isinstance(number, numbers.Integral) or isinstance(number, bool) or number < 1:
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={number!r}")
    return int(number)


def _listed(indices: Any, depth: int, distinct: int) -> list[int]:
    indices = [*indices] if isinstance(indices, Sequence) else indices
    whole = isinstance(indices, list) and all(type(i) is int for i in indices)
    if not whole or len(indices) != depth or set(indices) != set(range(distinct)):
        raise ValueError(
            f"`schedule` as a list has for each of the {depth} uses the index of its block, and "
            f"names each of the {distinct} blocks from 0 to {distinct - 1}. Received: "
            f"schedule={indices!r}"
        )
    found: list[int] = indices
    return found
