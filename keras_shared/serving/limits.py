"""How much of a stranger's model is read, and what running it may take: every limit of `check`."""

import os

SECONDS = 120.0  # of wall time: to load a model, replay its warm-up requests, run its signatures
START = 120.0  # for TensorFlow to be imported, on a machine with other things to do
IDLE = 600.0  # after which the process that waits for trials ends
MOST_GRAPH = 2**31 - 1  # bytes; what a protocol buffer may have
MOST_WARMUP = 2**30  # bytes: 1000 requests with a photograph each
MOST_REQUEST = 2**31 - 1  # bytes: an input in a message of gRPC
MOST_SAID = 10_000_000  # characters of findings
MOST_NOISE = 4000  # characters that are kept of what TensorFlow writes to the terminal


def memory() -> int:
    """Bytes that a model may take: half of the machine's, and 4 GB at least."""
    return max(4_000_000_000, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
