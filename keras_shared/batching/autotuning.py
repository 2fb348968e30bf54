import tensorflow as tf


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches without tf.data's tuning of buffers and threads.

    An iterator that ends waits for the tuner, which sleeps for 10 ms, 20 ms, 40 ms and so on: up
    to half of a short epoch passes asleep.

    Args:
        dataset: any data set.

    Example:
        >>> import tensorflow as tf
        >>> from keras_shared.batching.autotuning import without_autotuning
        >>> [int(i) for i in without_autotuning(tf.data.Dataset.range(3))]
        [0, 1, 2]
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
