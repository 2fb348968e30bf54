"""Counters and distributions under TF Serving's names, as Prometheus reads them."""

import bisect
import contextlib
import threading
import time
from collections.abc import Iterator

from keras_shared.serving.limits import MOST_SERIES

ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Metric:
    """How often something happened; or, in buckets that grow by a factor, how large numbers were.

    Args:
        name: as TF Serving has it.
        buckets: the first limit, the factor and the number of limits; none for a counter.
    """

    def __init__(self, name: str, *buckets: float) -> None:
        self.name, self._lock = name, threading.Lock()
        first, factor, count = buckets or (0, 0, 0)
        self._limits = [first * factor**i for i in range(int(count))]
        self._found: dict[tuple[tuple[str, str], ...], tuple[list[int], list[float]]] = {}

    def add(self, number: float = 1, **labels: str) -> None:
        key = tuple(labels.items())
        with self._lock:
            if key in self._found or len(self._found) < MOST_SERIES:
                counts, total = self._found.setdefault(key, ([0] * (len(self._limits) + 1), [0.0]))
                counts[bisect.bisect_right(self._limits, number)] += 1
                total[0] += number

    @contextlib.contextmanager
    def timed(self, **labels: str) -> Iterator[None]:
        """The microseconds that a block takes."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(1e6 * (time.perf_counter() - begun), **labels)

    def lines(self) -> Iterator[str]:
        yield f"# TYPE {self.name} {'histogram' if self._limits else 'counter'}"
        with self._lock:
            found = [(key, [*counts], total[0]) for key, (counts, total) in self._found.items()]
        for labels, counts, total in found:
            shown = ",".join(f'{key}="{value.translate(ESCAPES)}"' for key, value in labels)
            if not self._limits:
                yield f"{self.name}{{{shown}}} {total:.0f}"
                continue
            limits = [*map("{:g}".format, self._limits), "+Inf"]
            for i, limit in enumerate(limits, 1):
                yield f'{self.name}_bucket{{{shown},le="{limit}"}} {sum(counts[:i])}'
            yield f"{self.name}_sum{{{shown}}} {total:g}"
            yield f"{self.name}_count{{{shown}}} {sum(counts)}"


# servables/tensorflow/util.cc
REQUEST_COUNT = Metric(":tensorflow:serving:request_count")
EXAMPLE_COUNT = Metric(":tensorflow:serving:request_example_count_total")
EXAMPLE_COUNTS = Metric(":tensorflow:serving:request_example_counts", 1, 2, 15)
REQUEST_LATENCY = Metric(":tensorflow:serving:request_latency", 10, 1.8, 33)
RUNTIME_LATENCY = Metric(":tensorflow:serving:runtime_latency", 10, 1.8, 33)
ALL = (REQUEST_COUNT, EXAMPLE_COUNT, EXAMPLE_COUNTS, REQUEST_LATENCY, RUNTIME_LATENCY)


def exposition() -> str:
    """All metrics as text."""
    return "".join(f"{line}\n" for metric in ALL for line in metric.lines())
