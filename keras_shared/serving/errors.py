import re

from keras_shared.errors import KerasSharedError, printable, shortened

# The codes of HTTP that TF Serving answers with, as gRPC names them: model_servers/http_server.cc
CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# What TF Serving says of a prediction that it has not begun: core/basic_manager.cc, and
# kernels/batching_util/shared_batch_scheduler.h of TensorFlow
NOT_TAKEN = ("Servable not found", "batch scheduling queue")
PORTS = (
    "By default REST uses port 8501, gRPC port 8500; with TLS the address begins with https:// or "
    "grpcs://."
)
# What a message says -> what to do, whatever its code is
SAID = {
    "no connection to .*WRONG_VERSION_NUMBER": "This is no server over TLS: write http:// or "
    "grpc://, or its port over TLS.",
    "no connection to": f"Is the server running, and is this its port? {PORTS}",
    "batch scheduling queue": "The server has too many requests: ask again later, or send fewer at "
    "once.",
    "larger than maximum input batch size": "Send fewer rows at once.",
    "version label": "Client.status(name) lists the versions that there are; their labels stand in "
    "the server's model config.",
    "ask over gRPC": 'Client("grpc://host:8500") does, and its other methods are the same.',
    "HTTPS (port|server)": "Write https:// in the address.",
}
ADVICE = {
    "INVALID_ARGUMENT": "Compare the inputs with Client.metadata(name).",
    "FAILED_PRECONDITION": "Compare the signature with Client.metadata(name).",
    "NOT_FOUND": "The server has no such model or version: check the names in its model config, "
    "and that the model's folder holds a version, such as NAME/1.",
    "DEADLINE_EXCEEDED": "Allow more time with Client(url, timeout=seconds), or send smaller "
    "batches.",
    "UNAUTHENTICATED": "Give what the server asks for by Client(url, token=text), and a "
    "certificate of its own by Client(url, certificates=file).",
    "UNAVAILABLE": "See the log of the server, or of a proxy before it, and ask again. " + PORTS,
    "INTERNAL": "See the server's log; `keras-shared check` reports what TF Serving cannot run.",
    "RESOURCE_EXHAUSTED": "Send smaller batches, or fewer at once; where it is the answer that is "
    "too large for this client, allow more with Client(url, max_response_bytes=number).",
    "UNKNOWN": "Check that this is TF Serving, and the port of this protocol: http://host:8501 "
    "for REST, grpc://host:8500 for gRPC; https:// or grpcs:// where it uses TLS.",
}


class ServingError(KerasSharedError, RuntimeError):
    """A server did not answer, or answered with an error.

    Args:
        code: as gRPC names it, also over REST: "NOT_FOUND", "UNAVAILABLE", ...
        message: the server's own, or what happened to the connection.
        sent: False if it is known that the server got no request.
        predict: whether the request was a prediction.

    Attributes:
        taken: whether the server may have run the prediction; False if it is known that it has not.

    Example:
        >>> from keras_shared.serving import ServingError
        >>> print(ServingError("NOT_FOUND", "Could not find any versions of model m"))
        NOT_FOUND: Could not find any versions of model m. The server has no such model or version:
        check the names in its model config, and that the model's folder holds a version, such as
        NAME/1.
    """

    def __init__(self, code: str, message: str, sent: bool = True, predict: bool = False) -> None:
        message = shortened(printable(message))
        said = (advice for text, advice in SAID.items() if re.search(text, message))
        advice = next(said, ADVICE.get(code, ""))
        super().__init__(f"{code}: {message.rstrip('.')}. {advice}".strip())
        self.code = code
        self.message = message
        self.sent = sent
        self.taken = predict and sent and not any(text in message for text in NOT_TAKEN)
