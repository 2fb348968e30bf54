"""What the client and its two transports exchange, under TensorFlow's own names."""

from typing import NamedTuple


class TensorInfo(NamedTuple):
    """One named tensor of a signature.

    Attributes:
        dtype: as TensorFlow names it: "float32", "int64", "string", ...
        shape: its sizes, None for a size that is not fixed; None alone if the rank is not either.

    Example:
        >>> from keras_shared.serving import TensorInfo
        >>> TensorInfo("float32", (None, 28, 28, 1))
        TensorInfo(dtype='float32', shape=(None, 28, 28, 1))
    """

    dtype: str
    shape: tuple[int | None, ...] | None


class SignatureDef(NamedTuple):
    """One function of a SavedModel that a server can run.

    TensorFlow's protocol buffer of the same name holds more: the names of nodes in the graph,
    which no request needs.

    Attributes:
        inputs: name -> what must be sent.
        outputs: name -> what comes back.

    Example:
        >>> from keras_shared.serving import SignatureDef, TensorInfo
        >>> image, label = TensorInfo("string", (None,)), TensorInfo("string", (None,))
        >>> SignatureDef({"image_bytes": image}, {"label": label}).inputs["image_bytes"].dtype
        'string'
    """

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


class Status(NamedTuple):
    """One version of a model on a server.

    Attributes:
        version: its number.
        state: "START", "LOADING", "AVAILABLE", "UNLOADING" or "END".
        error: why it failed to load; empty if it did not.

    Example:
        >>> from keras_shared.serving import Status
        >>> Status(1, "AVAILABLE", "")
        Status(version=1, state='AVAILABLE', error='')
    """

    version: int
    state: str
    error: str
