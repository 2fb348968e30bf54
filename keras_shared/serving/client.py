"""One client for REST and gRPC: NumPy in, NumPy out."""

import functools
import math
import numbers
import os
import pathlib
import re
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from keras_shared.errors import attempt, boundary
from keras_shared.files.pictures import PictureError, plain_picture
from keras_shared.serving.errors import ServingError
from keras_shared.serving.limits import MOST_REQUEST
from keras_shared.serving.messages import SignatureDef, Status, cast
from keras_shared.serving.over_rest import Rest

if TYPE_CHECKING:
    from keras_shared.serving.over_grpc import Grpc

RETRIES_NEVER_SENT = 3
RETRIES_SENT = 1
FIRST_WAIT = 0.2  # seconds before the first retry, doubled for each further one
# Bytes of an answer, by default
BASE = 5_000_000  # of one about a model, or with an error
NUMBER = 64  # of a number in JSON: 25 characters, and brackets and spaces
OPEN = 100_000_000  # of an output whose size the signature leaves open, as text

T = TypeVar("T")


class Client:
    """Ask TF Serving, over REST or gRPC: the same methods, the same answers.

    Each `predict` first requests the signatures, which is little, and then runs the version that
    they belong to: no answer mixes two versions while the server swaps them. If that version is
    gone by then, the new one answers. With `version` given, the signatures are requested once.

    A request is repeated where the server never got it (connection refused), up to three times;
    and once where the server was too busy for it, or the connection broke before the prediction was
    sent. A prediction that the server may have run is not sent again. `timeout` holds for the whole
    call: names, connections, TLS, every byte both ways, and repetitions. An answer may be as large
    as the signature promises for the rows that were sent, and has to agree with it in names, dtypes
    and shapes. Threads may share a client.

    Args:
        url: `http://host:8501` or `https://...` for REST; `grpc://host:8500` or `host:8500` for
            gRPC, `grpcs://...` for gRPC over TLS.
        timeout: seconds for one call, retries included.
        max_response_bytes: bytes that an answer may have. By default what the signature's outputs
            need as JSON, with room to spare; 100 million for outputs that it leaves open, such as
            text; 5 million for status, metadata and errors.
        token: what the server or a gateway before it asks for: sent as `Authorization: Bearer`.
        certificates: a PEM file of the certificates that a server over TLS is trusted by, such as
            your own authority's; by default the system's.

    Raises:
        ValueError: for a url of another form, a timeout or size that is not positive, certificates
            for a url without TLS, or a token that would be sent beside a password.

    Example:
        >>> from keras_shared.serving import Client
        >>> client = Client("http://localhost:8501")
        >>> answer = client.predict("lenet5_mnist", {"image": images})  # doctest: +SKIP
        >>> answer["label"]  # doctest: +SKIP
        array(['7', '2'], dtype=object)

    Reference: https://www.tensorflow.org/tfx/serving/api_rest and
        tensorflow_serving/apis/prediction_service.proto.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 30.0,
        max_response_bytes: int | None = None,
        token: str | None = None,
        certificates: str | os.PathLike[str] | None = None,
    ) -> None:
        expected = f"Expected http://host:8501 (REST) or grpc://host:8500 (gRPC). Received: {url!r}"
        with boundary(expected, ValueError):
            parts = urllib.parse.urlsplit(url if "://" in url else f"grpc://{url}")
            port = parts.port
        if parts.scheme not in ("http", "https", "grpc", "grpcs") or not parts.hostname:
            raise ValueError(expected)
        if re.search(r"/v1/models(/|$)", parts.path):
            raise ValueError(f"{expected}. The names of models are given to the methods")
        is_grpc, tls = parts.scheme.startswith("grpc"), parts.scheme.endswith("s")
        if is_grpc and parts.username is not None:
            raise ValueError(
                "A name and password in the address are sent over REST alone. Received: a gRPC "
                f"address with the name {parts.username!r}"
            )
        if certificates is not None and not tls:
            raise ValueError(
                f"`certificates` are for https:// and grpcs:// alone. Received: {parts.scheme}://"
            )
        if token is not None and (parts.username is not None or not re.fullmatch("[!-~]+", token)):
            raise ValueError(
                "`token` is text without spaces, and takes the place of a name and password in the "
                "address."
            )
        pem = None if certificates is None else _certificates(certificates)
        if not 0 < timeout <= threading.TIMEOUT_MAX:
            raise ValueError(f"`timeout` is a number of seconds above 0. Received: {timeout!r}")
        if max_response_bytes is not None and max_response_bytes < 1:
            raise ValueError(
                f"`max_response_bytes` is a number above 0. Received: {max_response_bytes!r}"
            )
        self.timeout = timeout
        self.max_response_bytes = max_response_bytes
        self._pinned: dict[tuple[str, int], dict[str, SignatureDef]] = {}
        self._transport: Grpc | Rest
        if is_grpc:
            from keras_shared.serving import over_grpc  # TensorFlow, which REST does not need

            address = parts.netloc if port else f"{parts.netloc}:8500"
            self._transport = over_grpc.Grpc(address, timeout, tls, pem, token)
        else:
            self._transport = Rest(parts, pem, token)

    def predict(
        self,
        name: str,
        inputs: Mapping[str, Any],
        signature: str = "serving_default",
        version: int | str | None = None,
    ) -> dict[str, np.ndarray]:
        """Run a signature on a batch.

        Args:
            name: the model's name.
            inputs: for each input, an array or nested lists, the batch first; bytes for strings.
                Pictures for inputs named `..._bytes` may be PNG, JPEG, GIF, BMP or WebP: what the
                graph would read otherwise than a person (a photo turned by EXIF, transparency,
                16 bits, CMYK, GIF, BMP, WebP) is sent as plain PNG. Other clients, curl too, have
                to send upright PNG or JPEG without transparency.
            signature: its name.
            version: its number, or a label; by default the server's choice, the newest.

        Returns:
            For each output, an array. Text comes as `str`, outputs named `..._bytes` as `bytes`.

        Raises:
            TypeError, ValueError: for inputs that the signature does not take, before they are
                sent, and for a version that is no number and no label.
            ServingError: if the server does not answer, or answers with an error.

        Example:
            >>> client.predict("lenet5_mnist", {"image": images})["label"]  # doctest: +SKIP
            array(['7', '2'], dtype=object)
        """
        version = _checked(version)

        def ask(deadline: float) -> dict[str, np.ndarray]:
            number, signatures = self._signatures(name, version, deadline)
            if signature not in signatures:
                raise ValueError(
                    f"{name} has no signature {signature!r}. It has: {sorted(signatures)}"
                )
            arrays = _arrays(signature, signatures, inputs)
            definition = signatures[signature]
            most = self.max_response_bytes or _promised(definition, arrays)
            try:
                return self._transport.predict(
                    name, number, signature, definition, arrays, deadline, most
                )
            except ServingError as error:
                if "equal 0th-dimension size" not in error.message:
                    raise
                rows = {key: len(array) for key, array in arrays.items() if array.ndim}
                text = f"{error.message}. Received rows: {rows}"
                raise ServingError(error.code, text, predict=True) from error

        return self._call(ask, swapped=not isinstance(version, int))

    def verify(
        self,
        image_a: Any,
        image_b: Any,
        name: str = "siamese_omniglot",
        version: int | str | None = None,
    ) -> np.ndarray | float:
        """The probability that two images show the same.

        Args:
            image_a: the bytes of a picture (see `predict`), or an array (height, width, channels)
                of 0 to 255; or a list of such bytes, or a batch of such arrays.
            image_b: the image to compare, or as many of them.
            name: a published `SiameseNet`.
            version: its number, or a label; by default the server's choice, the newest.

        Returns:
            The probability for one pair, else an array with one for each pair.

        Raises:
            ValueError: for images of two kinds, of another shape than the model takes, or not
                equally many.
            ServingError: if the server does not answer, or answers with an error.

        Example:
            >>> client.verify(open("a.png", "rb").read(), png)  # doctest: +SKIP
            0.9731
        """
        pair = {"image_a": image_a, "image_b": image_b}
        dimensions = {np.ndim(image) for image in pair.values()}
        if dimensions not in ({0}, {1}, {3}, {4}) or isinstance(image_a, str):
            raise ValueError(
                "Expected two images of the same kind: bytes, lists of bytes, arrays (height, "
                f"width, channels), or batches of them. Received: {type(image_a).__name__} and "
                f"{type(image_b).__name__}, with {sorted(dimensions)} dimensions"
            )
        single, encoded = dimensions <= {0, 3}, dimensions <= {0, 1}
        if single:
            pair = {key: [image] for key, image in pair.items()}
        elif len(image_a) != len(image_b):
            raise ValueError(
                "`image_a` and `image_b` must hold equally many images. "
                f"Received: {len(image_a)} and {len(image_b)}"
            )
        if encoded:
            pair = {f"{key}_bytes": image for key, image in pair.items()}
        signature = "verify_bytes" if encoded else "verify"
        answer = self.predict(name, pair, signature, version)
        unfit = functools.partial(ServingError, "FAILED_PRECONDITION")
        with boundary(f"{name} does not answer with a probability for each pair", unfit):
            probability = answer["probability"].reshape(len(next(iter(pair.values()))))
            return float(probability[0]) if single else probability

    def status(self, name: str) -> list[Status]:
        """Every version of a model that the server knows, those that failed to load included.

        Args:
            name: the model's name.

        Returns:
            One `Status` for each version, in ascending order.

        Raises:
            ServingError: if the server does not answer, or does not know the model.

        Example:
            >>> client.status("lenet5_mnist")  # doctest: +SKIP
            [Status(version=1, state='AVAILABLE', error='')]
        """
        found = self._call(
            lambda deadline: self._transport.status(name, deadline, self.max_response_bytes or BASE)
        )
        return sorted(found, key=lambda status: status.version)

    def metadata(self, name: str, version: int | str | None = None) -> dict[str, SignatureDef]:
        """The signatures of a model: dtype and shape of each input and output.

        Args:
            name: the model's name.
            version: its number, or a label; by default the server's choice, the newest.

        Returns:
            Name of a signature -> `SignatureDef`.

        Raises:
            TypeError, ValueError: for a version that is no number and no label.
            ServingError: if the server does not answer, or does not know the model.

        Example:
            >>> client.metadata("lenet5_mnist")["classify_bytes"].inputs  # doctest: +SKIP
            {'image_bytes': TensorInfo(dtype='string', shape=(None,))}
        """
        version = _checked(version)
        return self._call(lambda deadline: self._signatures(name, version, deadline)[1])

    def close(self) -> None:
        """Close the connection; `with Client(url) as client:` does so at its end."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _signatures(
        self, name: str, version: int | str | None, deadline: float
    ) -> tuple[int, dict[str, SignatureDef]]:
        pinned = None if isinstance(version, str) else version  # a label may be moved
        if pinned is not None and (name, pinned) in self._pinned:
            return pinned, self._pinned[name, pinned]
        number, signatures = self._transport.metadata(
            name, version, deadline, self.max_response_bytes or BASE
        )
        if pinned is not None:
            # what a loaded version holds never changes
            self._pinned[name, pinned] = signatures
        return number, signatures

    def _call(self, ask: Callable[[float], T], swapped: bool = False) -> T:
        """Ask, and repeat it where no prediction can run twice and there is time."""
        deadline, wait, tries = time.monotonic() + self.timeout, FIRST_WAIT, 0
        while True:
            try:
                return ask(deadline)
            except ServingError as error:
                gone = swapped and error.code == "NOT_FOUND"  # or was never there: tried again
                allowed = RETRIES_NEVER_SENT if gone or not error.sent else RETRIES_SENT
                late = time.monotonic() + wait >= deadline
                lost = error.taken or not (gone or error.code == "UNAVAILABLE")
                if lost or tries >= allowed or late:
                    raise
            time.sleep(wait)
            tries, wait = tries + 1, 2 * wait


def _checked(version: Any) -> int | str | None:
    """The number of a version, the name of a label, or None."""
    if version is None or (isinstance(version, str) and not version.isdecimal()):
        return version
    if isinstance(version, (bool, str)) or not isinstance(version, (int, np.integer)):
        advice = f" Write version={int(version)}." if isinstance(version, str) else ""
        raise TypeError(
            f"`version` is a whole number, or the name of a label. Received: {version!r}.{advice}"
        )
    if not 0 <= version < 2**63:
        raise ValueError(f"`version` is a number from 0 to 2**63 - 1. Received: {version!r}")
    return int(version)


def _certificates(file: str | os.PathLike[str]) -> str:
    """The text of a PEM file, which holds a certificate at least."""
    what = f"`certificates` is a PEM file of certificates. Received: {file!s} (not one)"
    with boundary(what, ValueError):
        text = pathlib.Path(file).read_text("ascii")
        if not ssl.create_default_context(cadata=text).get_ca_certs():
            raise ValueError("none is one of an authority")
        return text


def _promised(definition: SignatureDef, inputs: Mapping[str, np.ndarray]) -> int:
    """The bytes that the outputs may need, rounded up to a power of two."""
    rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
    total = BASE
    for dtype, shape in definition.outputs.values():
        if dtype == "string" or shape is None or None in shape[1:]:
            total += OPEN
        else:
            total += NUMBER * math.prod(max(rows if side is None else side, 1) for side in shape)
    return min(1 << (total - 1).bit_length(), MOST_REQUEST)


def _arrays(
    name: str, signatures: Mapping[str, SignatureDef], inputs: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The inputs with the dtypes of the signature."""
    expected = signatures[name].inputs
    if not isinstance(inputs, Mapping):
        raise TypeError(
            f"The signature '{name}' takes a dict with the inputs {sorted(expected)}. Received: "
            f"{type(inputs).__name__}"
        )
    if set(inputs) != set(expected):
        raise ValueError(
            f"The signature '{name}' takes the inputs {sorted(expected)}. Received: "
            f"{sorted(inputs)}"
        )
    arrays = {}
    for key, value in inputs.items():
        dtype, shape = expected[key]
        given = value
        if key.endswith("_bytes"):
            given = _plain_pictures(value, key, _takes_pictures(key, signatures))
        takes = f"The input '{key}' takes {dtype} of shape {shape}"
        rows = value if isinstance(value, (list, tuple)) else [value]
        if any(map(np.ma.is_masked, rows)):
            raise ValueError(f"{takes}. Received: masked values. Fill them: array.filled(number)")
        with boundary(f"{takes}. Received: rows of several lengths, or no array", ValueError):
            array = np.asarray(given, object if dtype == "string" else None)
        if dtype != "string":
            kind, odd = array.dtype.kind, []
            if kind == "O":  # large whole numbers; or with something else among them
                odd = [item for item in array.flat if not isinstance(item, numbers.Real)]
            if odd or kind not in "biufcVO":  # V: bfloat16
                held = f"{odd[0]!r:.40}, no number" if odd else f"items of dtype {array.dtype}"
                others = [n for n, s in signatures.items() if f"{key}_bytes" in s.inputs]
                hint = f" To send encoded images, use: {sorted(others)}." if others else ""
                raise ValueError(f"{takes}. Received: {type(value).__name__} with {held}.{hint}")
            if dtype == "uint64" and array.dtype.kind == "f":  # NumPy's guess at large numbers
                array = np.asarray(given, object)
            array = _cast(key, array, dtype)
        if not expected[key].fits(array.shape):
            raise ValueError(
                f"{takes}: the batch first, and any size for None. Received: shape {array.shape}"
            )
        arrays[key] = array
    return arrays


def _takes_pictures(key: str, signatures: Mapping[str, SignatureDef]) -> bool:
    """Whether an input of bytes has a twin of pixels: `image_bytes` and `image`."""
    twins = [s.inputs.get(key.removesuffix("_bytes")) for s in signatures.values()]
    return any(twin and twin.shape and len(twin.shape) == 4 for twin in twins)


def _plain_pictures(value: Any, key: str, only: bool) -> Any:
    """Encoded pictures as a graph reads them like a person: upright, on white.

    What is no picture is an error if the input takes pictures `only`, else it goes as it is: the
    model may read sound.
    """
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain_pictures(item, key, only) for item in value]
    if not isinstance(value, bytes):
        return value
    plain, error = attempt(lambda: plain_picture(value), PictureError)
    if error and only:
        raise PictureError(f"The input '{key}': {error}") from error
    return value if error else plain


def _cast(key: str, array: np.ndarray, dtype: str) -> np.ndarray:
    takes = f"The input '{key}' takes {dtype}"
    if dtype == "bfloat16":
        dtype = "float32"  # NumPy has no other; over_grpc gives it to TensorFlow
    if dtype not in np.sctypeDict:
        raise ValueError(f"{takes}, which NumPy has not. Use another signature.")
    with boundary(f"{takes}. Received", ValueError, "Round, clip or replace them first."):
        return cast(array, dtype)
