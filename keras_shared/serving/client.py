"""One client for REST and gRPC: NumPy in, NumPy out."""

import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np

from keras_shared.serving.errors import ServingError

RETRIES_NEVER_SENT = 3
RETRIES_SENT = 1
FIRST_WAIT = 0.2  # seconds before the first retry, doubled for each further one

T = TypeVar("T")


class Tensor(NamedTuple):
    """What a signature takes or gives: dtype ("float32", "string", ...), shape (None if open)."""

    dtype: str
    shape: tuple[int | None, ...] | None


class Signature(NamedTuple):
    """One way to ask a model, as the server tells it."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Status(NamedTuple):
    """One version of a model: START, LOADING, AVAILABLE, UNLOADING or END, and what failed."""

    version: int
    state: str
    error: str


class Client:
    """Ask TF Serving, over REST or gRPC: the same methods, the same answers.

    Each `predict` asks for the signatures first, with a small request, and then the version that
    they belong to: no answer mixes two versions while the server swaps them. If that version is
    gone in between, the new one is asked. With `version` given, the signatures are asked once.

    A call changes nothing on the server, so it is safe to ask again: three times more if the
    server never got the request (connection refused), once more if the connection was cut or the
    server said UNAVAILABLE. `timeout` holds for the whole call.

    Args:
        url: `http://host:8501` or `https://...` for REST; `grpc://host:8500` or `host:8500` for
            gRPC, not encrypted.
        timeout: seconds for one call, retries included.

    Raises:
        ValueError: for another kind of url.

    Example:
        >>> from keras_shared.serving import Client
        >>> client = Client("http://localhost:8501")
        >>> answer = client.predict("lenet5_mnist", {"image": images})  # doctest: +SKIP
        >>> answer["label"]  # doctest: +SKIP
        array(['7', '2'], dtype=object)

    Reference: https://www.tensorflow.org/tfx/serving/api_rest and
        tensorflow_serving/apis/prediction_service.proto.
    """

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        parts = urllib.parse.urlsplit(url if "://" in url else f"grpc://{url}")
        if parts.scheme not in ("http", "https", "grpc") or not parts.hostname:
            raise ValueError(
                f"Expected http://host:8501 (REST) or grpc://host:8500 (gRPC). Received: {url!r}"
            )
        self.timeout = timeout
        self._pinned: dict[tuple[str, int], dict[str, Signature]] = {}
        if parts.scheme == "grpc":
            from keras_shared.serving.over_grpc import Grpc

            address = parts.netloc if parts.port else f"{parts.netloc}:8500"
            self._transport: Any = Grpc(address)
        else:
            from keras_shared.serving.over_rest import Rest

            self._transport = Rest(parts)

    def predict(
        self,
        name: str,
        inputs: Mapping[str, Any],
        signature: str = "serving_default",
        version: int | None = None,
    ) -> dict[str, np.ndarray]:
        """Run a signature on a batch.

        Args:
            name: the model's name.
            inputs: for each input, an array or nested lists, the batch first; bytes for strings.
            signature: its name.
            version: its number; the server's choice by default, the newest.

        Returns:
            For each output, an array. Text comes as `str`, outputs named `..._bytes` as `bytes`.

        Raises:
            ValueError: for inputs that the signature does not take, before they are sent.
            ServingError: if the server does not answer, or with an error.
        """

        def ask(left: float) -> dict[str, np.ndarray]:
            deadline = time.monotonic() + left
            number, signatures = self._signatures(name, version, left)
            if signature not in signatures:
                raise ValueError(
                    f"{name} has no signature {signature!r}. It has: {sorted(signatures)}"
                )
            arrays = _arrays(signature, signatures, inputs)
            left = max(deadline - time.monotonic(), 0.001)
            asked = signatures[signature]
            return self._transport.predict(name, number, signature, asked, arrays, left)

        return self._call(ask, swapped=version is None)

    def verify(
        self, image_a: Any, image_b: Any, name: str = "siamese_omniglot", version: int | None = None
    ) -> np.ndarray | float:
        """The probability that two images show the same.

        Args:
            image_a: the bytes of a PNG or JPEG file, or an array (height, width, channels) of 0 to
                255; or a list of such bytes, or a batch of such arrays.
            image_b: the image to compare, or as many of them.
            name: a published `SiameseNet`.
            version: its number; the server's choice by default.

        Returns:
            The probability for one pair, else an array with one for each pair.

        Raises:
            ValueError: for images of two kinds, or of another shape than the model takes.
            ServingError: if the server does not answer, or with an error.
        """
        pair = {"image_a": image_a, "image_b": image_b}
        dimensions = {np.ndim(image) for image in pair.values()}
        if dimensions not in ({0}, {1}, {3}, {4}) or isinstance(image_a, str):
            raise ValueError(
                "Expected two images of one kind: bytes, lists of bytes, arrays (height, width, "
                f"channels), or batches of them. Received: {type(image_a).__name__} and "
                f"{type(image_b).__name__}, of {sorted(dimensions)} dimensions"
            )
        single, encoded = dimensions <= {0, 3}, dimensions <= {0, 1}
        if single:
            pair = {key: [image] for key, image in pair.items()}
        if encoded:
            pair = {f"{key}_bytes": image for key, image in pair.items()}
        signature = "verify_bytes" if encoded else "verify"
        probability = self.predict(name, pair, signature, version)["probability"]
        return float(probability[0]) if single else probability

    def status(self, name: str) -> list[Status]:
        """Every version of a model that the server knows, those that failed to load included.

        Args:
            name: the model's name.

        Raises:
            ServingError: if the server does not answer, or does not know the model.
        """
        found = self._call(lambda left: self._transport.status(name, left))
        return sorted(found, key=lambda status: status.version)

    def metadata(self, name: str, version: int | None = None) -> dict[str, Signature]:
        """The signatures of a model: dtype and shape of each input and output.

        Args:
            name: the model's name.
            version: its number; the server's choice by default, the newest.

        Raises:
            ServingError: if the server does not answer, or does not know the model.
        """
        return self._call(lambda left: self._signatures(name, version, left)[1])

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _signatures(
        self, name: str, version: int | None, left: float
    ) -> tuple[int, dict[str, Signature]]:
        if version is not None and (name, version) in self._pinned:
            return version, self._pinned[name, version]
        number, signatures = self._transport.metadata(name, version, left)
        if version is not None:
            self._pinned[name, version] = signatures  # what a loaded version holds never changes
        return number, signatures

    def _call(self, ask: Callable[[float], T], swapped: bool = False) -> T:
        """Ask, and ask again where that is safe and there is time."""
        deadline, wait, tries = time.monotonic() + self.timeout, FIRST_WAIT, 0
        while True:
            try:
                return ask(max(deadline - time.monotonic(), 0.001))
            except ServingError as error:
                gone = swapped and error.code == "NOT_FOUND"  # or never there: asked once more
                allowed = RETRIES_SENT if error.sent else RETRIES_NEVER_SENT
                late = time.monotonic() + wait >= deadline
                if not (gone or error.code == "UNAVAILABLE") or tries >= allowed or late:
                    raise
            time.sleep(wait)
            tries, wait = tries + 1, 2 * wait


def _arrays(
    name: str, signatures: Mapping[str, Signature], inputs: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The inputs with the dtypes of the signature, or an error that says what it takes."""
    expected = signatures[name].inputs
    if set(inputs) != set(expected):
        raise ValueError(
            f"The signature '{name}' takes the inputs {sorted(expected)}. Received: "
            f"{sorted(inputs)}"
        )
    arrays = {}
    for key, value in inputs.items():
        dtype, shape = expected[key]
        array = np.asarray(value, object if dtype == "string" else None)
        if dtype != "string":
            if array.dtype.kind not in "biufcV":  # V: bfloat16
                others = [n for n, s in signatures.items() if f"{key}_bytes" in s.inputs]
                hint = f" Encoded images are for: {sorted(others)}." if others else ""
                raise ValueError(
                    f"'{key}' takes {dtype} of shape {shape}. Received: "
                    f"{type(value).__name__} of {array.dtype}.{hint}"
                )
            array = _cast(key, array, dtype)
        fits = shape is None or (
            len(shape) == array.ndim
            and all(a in (None, b) for a, b in zip(shape, array.shape, strict=True))
        )
        if not fits:
            raise ValueError(
                f"'{key}' takes {dtype} of shape {shape}, None being any size and the first the "
                f"batch. Received: shape {array.shape}"
            )
        arrays[key] = array
    return arrays


def _cast(key: str, array: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        return array  # NumPy has none; over_grpc gives it to TensorFlow
    with np.errstate(invalid="ignore"):  # NaN as a whole number: refused below
        cast = array.astype(dtype)
    if cast.dtype.kind in "biu" and not np.array_equal(cast, array):
        raise ValueError(f"'{key}' takes {dtype}, and some of its values are none: {array}")
    return cast
