from keras_shared.errors import KerasSharedError


class TieError(KerasSharedError, ValueError):
    """A tie cannot hold: the message names the reader, the source, and what to do."""
