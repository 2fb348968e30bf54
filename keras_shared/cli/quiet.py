import os
import sys


def import_quietly() -> None:
    """Import TensorFlow without the notes that its C++ part writes to file descriptor 2."""
    sys.stderr.flush()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # oneDNN's convolutions: twice as fast on processors where TensorFlow leaves them out
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)
            import tensorflow as tf

            tf.get_logger().setLevel("ERROR")
            tf.constant(0)  # the rest of the notes come with the first tensor
    finally:
        os.dup2(kept, 2)
        os.close(kept)
