"""Errors of requests under gRPC's names, and what HTTP calls them."""

from collections.abc import Iterator
from contextlib import contextmanager

from keras_shared.errors import whole_reason
from keras_shared.serving.errors import CODES

# model_servers/http_server.cc of TF Serving
STATUSES = {name: status for status, name in CODES.items()} | {
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "ALREADY_EXISTS": 409,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
}

NO_TOKEN = "this server asks for a token: send the header Authorization: Bearer TOKEN"


class Refused(Exception):  # noqa: N818  (an answer, which requests get)
    """A request that is answered with an error.

    Args:
        code: as gRPC names it.
        message: what the one who asked reads.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def invalid(message: str) -> Refused:
    return Refused("INVALID_ARGUMENT", message)


@contextmanager
def refusing() -> Iterator[None]:
    """What TensorFlow raises for a request becomes its answer, under TensorFlow's own code."""
    import grpc
    import tensorflow as tf

    try:
        yield
    except Refused:
        raise
    except tf.errors.OpError as error:
        names = {code.value[0]: code.name for code in grpc.StatusCode}
        code = names.get(error.error_code, "UNKNOWN")
        raise Refused(code, whole_reason(error).partition(": ")[2]) from error
    except (ValueError, TypeError) as error:  # arrays that a graph does not take
        raise invalid(whole_reason(error).partition(": ")[2]) from error
    except MemoryError as error:
        raise Refused("RESOURCE_EXHAUSTED", "there is not memory enough for this") from error
