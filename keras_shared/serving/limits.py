"""What a stranger's model, a request or an answer may take: every limit of serving."""

import os

SECONDS = 120.0  # of wall time: to load a model, replay its warm-up requests, run its signatures
START = 120.0  # for TensorFlow to be imported, on a machine with other things to do
IDLE = 600.0  # after which the process that waits for trials ends
MOST_GRAPH = 2**31 - 1  # bytes; what a protocol buffer may have
MOST_WARMUP = 2**30  # bytes: 1000 requests with a photograph each
MOST_REQUEST = 2**31 - 1  # bytes of a request or an answer: what a message of gRPC may have
MOST_SAID = 10_000_000  # characters of findings
MOST_NOISE = 4000  # characters that are kept of what TensorFlow writes to the terminal
MOST_SECONDS = 10**6  # of wall time that may be asked for
MOST_LINE = 10_000  # bytes of one line of a server's log; the rest is left out
MOST_WARMUP_RECORDS = 1000  # servables/tensorflow/saved_model_warmup_util.h
MOST_ROW = 500_000_000  # numbers in one row of made-up inputs
MOST_NUMBERS = 20_000_000  # in the inputs of a trial with more than two rows
MOST_SERIES = 10_000  # of one metric: names of models come from outside
MOST_CONNECTIONS = 10_000  # to one server


def memory() -> int:
    """Bytes that a model may take: half of the machine's, and 4 GB at least."""
    return max(4_000_000_000, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
