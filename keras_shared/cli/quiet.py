import os

from keras_shared.quiet import LEVEL, nothing_on_stderr


def import_quietly() -> None:
    """Import TensorFlow without notes, those of its first tensor included."""
    os.environ.setdefault(LEVEL, "3")
    # oneDNN's convolutions: twice as fast on processors where TensorFlow leaves them out
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with nothing_on_stderr():
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        if "TF_CONFIG" not in os.environ:  # workers meet before their first tensor
            tf.constant(0)
