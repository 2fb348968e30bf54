"""Errors of requests under gRPC's names, and what HTTP calls them."""

import hmac
from typing import Any

import grpc
from starlette.requests import ClientDisconnect

from keras_shared.errors import KerasSharedError, printable, shortened, whole_reason
from keras_shared.serving.embedded.options import ConfigError
from keras_shared.serving.errors import CODES

# model_servers/http_server.cc of TF Serving
STATUSES = {name: status for status, name in CODES.items()} | {
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "ALREADY_EXISTS": 409,
    "UNKNOWN": 500,
    "DATA_LOSS": 500,
}
OF_TENSORFLOW = {code.value[0]: code.name for code in grpc.StatusCode}

KINDS: list[Any] = [
    (ClientDisconnect, "CANCELLED", "the connection broke", 499),
    (TimeoutError, "DEADLINE_EXCEEDED", "the body did not arrive in time", 408),
    (MemoryError, "RESOURCE_EXHAUSTED", "there is not memory enough for this"),
]
NO_TOKEN = "this server asks for a token: send the header Authorization: Bearer TOKEN"


class Refused(KerasSharedError):  # noqa: N818  (an answer, which requests get)
    """A request that is answered with an error.

    Args:
        code: as gRPC names it.
        message: what the one who asked reads.
        status: of HTTP, if it is not the code's own; the connection ends then.
    """

    def __init__(self, code: str, message: str, status: int = 0) -> None:
        self.code, self.message, self.status = code, shortened(printable(message)), status
        super().__init__(f"{code}: {self.message}")


def invalid(message: str) -> Refused:
    return Refused("INVALID_ARGUMENT", message)


def refusal_of(error: BaseException) -> Refused:
    """What a request is answered with, whatever was raised for it, over REST and gRPC alike."""
    import tensorflow as tf

    if isinstance(error, Refused):
        return error
    if isinstance(error, ConfigError):
        return invalid(str(error))
    if isinstance(error, UnicodeDecodeError):  # what a graph says, which may quote any bytes
        return invalid(error.object.decode("utf-8", "replace"))
    said = whole_reason(error)
    reason = said.partition(": ")[2] or said
    if isinstance(error, tf.errors.OpError):
        return Refused(OF_TENSORFLOW.get(error.error_code, "UNKNOWN"), reason)
    if isinstance(error, (ValueError, TypeError)):  # arrays that a graph does not take
        return invalid(reason)
    known = (answer for kind, *answer in KINDS if isinstance(error, kind))
    return Refused(*next(known, ("INTERNAL", said)))  # a mistake of ours: the server goes on


def check_bearer(given: bytes, expected: bytes) -> None:
    """Refuse a request without the token that the server asks for, if it asks for one."""
    scheme, _, token = given.partition(b" ")
    if expected and not (
        scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), expected)
    ):
        raise Refused("UNAUTHENTICATED", NO_TOKEN, 401)
