"""TF Serving's REST interface on Starlette."""

import asyncio
import concurrent.futures
import contextlib
import functools
import json
import pathlib
import re
import sys
import time
import urllib.parse
import zlib
from collections.abc import Iterator
from typing import Any

from google.protobuf import json_format
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from keras_shared.errors import KerasSharedError, attempt
from keras_shared.files.bounded import read_json
from keras_shared.presets.names import SHARING
from keras_shared.serving.configuration import METRICS
from keras_shared.serving.embedded.inference import DEFAULT, infer, predict
from keras_shared.serving.embedded.json_answers import written, written_results
from keras_shared.serving.embedded.json_numbers import Numbers
from keras_shared.serving.embedded.json_requests import arrays_of, document_of, examples_of
from keras_shared.serving.embedded.metrics import REQUEST_COUNT, REQUEST_LATENCY, exposition
from keras_shared.serving.embedded.models import Models, say
from keras_shared.serving.embedded.options import Options
from keras_shared.serving.embedded.refusal import (
    STATUSES,
    Refused,
    check_bearer,
    invalid,
    refusal_of,
)
from keras_shared.serving.embedded.servable import Servable
from keras_shared.serving.messages import Status

# model_servers/http_rest_api_util.cc
WHICH = r"(?:/versions/(\d+)|/labels/([^/:?]+))?"
ASK = re.compile(rf"(?i:/v1/models/)([^/:?]+)(?i:{WHICH}):(classify|regress|predict)")
TELL = re.compile(rf"(?i:/v1/models)(?:/([^/:?]+))?(?i:{WHICH}(/metadata)?)")
MOST_VERSION = 2**63 - 1
PAGE = pathlib.Path(__file__).with_name("page.html")
FOR_PAGE = {  # it loads nothing from elsewhere, and no other page holds it in a frame
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
THREADS = 64  # that answer requests
HEADERS = {"Content-Type": "application/json"}
AS_DICT = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
TOO_MANY = "there are too many requests: ask again later"


class Rest:
    """The application that uvicorn runs.

    Args:
        models: that answer.
        options: with the limits beyond which requests are refused.
        bearer: what the header of a request must hold, if anything.
    """

    def __init__(self, models: Models, options: Options, bearer: bytes) -> None:
        self._models, self._options, self._bearer = models, options, bearer
        self._pool = concurrent.futures.ThreadPoolExecutor(THREADS, "rest")
        self._held: dict[Request, int] = {}  # the bytes of each request that is being answered
        self._own = {
            "/": self._page, "/models": self._listed, "/health": self._health,
            METRICS: self._metrics, "/sharing": self._sharing,
        }  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, begun = Request(scope, receive, send), time.monotonic()
        own = self._own.get(scope["path"])
        path = scope["raw_path"].decode("latin-1")
        if query := scope["query_string"]:
            path += f"?{query.decode('latin-1')}"
        try:
            response = own(request) if own else await self._api(request, path, begun)
        except Exception as error:
            response = _refusal(refusal_of(error))
        finally:
            self._held.pop(request, None)
        took = 1000 * (time.monotonic() - begun)
        try:
            await response(scope, receive, send)
        finally:
            if not own:  # last: the client does not wait for it
                client = request.client.host if request.client else "-"
                asked = f"{request.method} {path[:500]}"
                say(f"REST {response.status_code} {asked} {took:.1f} ms {client}")

    def _page(self, _: Request) -> Response:
        return HTMLResponse(PAGE.read_text("utf-8"), headers=FOR_PAGE)

    def _listed(self, request: Request) -> Response:
        self._check_bearer(request)
        return Response(json.dumps({"models": self._models.names()}), 200, HEADERS)

    def _sharing(self, request: Request) -> Response:
        """For the page: what the newest version of each model shares, as `publish` wrote it."""
        self._check_bearer(request)
        found: dict[str, Any] = {}
        for name in self._models.names():
            # no version is loaded, or its file is missing or damaged
            own, lacking = attempt(functools.partial(self._sharing_of, name), KerasSharedError)
            found |= {} if lacking else {name: own}
        return Response(json.dumps(found), 200, HEADERS)

    def _sharing_of(self, name: str) -> Any:
        with self._models.use(name) as servable:
            return read_json(servable.folder / SHARING)

    def _health(self, _: Request) -> Response:
        ready = self._models.ready()
        status = {"status": "SERVING" if ready else "NOT_SERVING"}
        return Response(json.dumps(status), 200 if ready else 503, HEADERS)

    def _metrics(self, request: Request) -> Response:
        self._check_bearer(request)
        return Response(exposition(), media_type="text/plain")

    def _check_bearer(self, request: Request) -> None:
        check_bearer(request.headers.get("authorization", "").encode("latin-1"), self._bearer)

    async def _api(self, request: Request, path: str, begun: float) -> Response:
        if not path.lower().startswith("/v1/"):
            return Response("Not Found", 404, {"Content-Type": "text/html"})
        self._check_bearer(request)
        if len(self._held) >= self._options.max_requests:
            raise Refused("UNAVAILABLE", TOO_MANY, 503)
        seconds = self._options.rest_api_timeout_in_ms / 1000
        async with asyncio.timeout(seconds - (time.monotonic() - begun)):
            body = await self._body(request)
        answer = functools.partial(self._answer, request.method, path, body, begun + seconds)
        found = await asyncio.get_running_loop().run_in_executor(self._pool, answer)
        return Response(found, 200, HEADERS)

    def _hold(self, request: Request, size: int) -> None:
        """Count the bytes of one request, and among those of all."""
        most = self._options.max_request_bytes
        self._held[request] = self._held.get(request, 0) + size
        if self._held[request] > most:
            text = f"the request has more than the {most:,} bytes allowed (--max-request-bytes)"
            raise Refused("OUT_OF_RANGE", text, 413)
        if sum(self._held.values()) > 4 * most:
            raise Refused("UNAVAILABLE", TOO_MANY, 503)

    async def _body(self, request: Request) -> bytes:
        pieces = []
        size = request.headers.get("content-length", "")
        self._hold(request, int(size[:20]) if size.isdecimal() else 0)
        async for piece in request.stream():
            pieces.append(piece)
            if not size:
                self._hold(request, len(piece))
        body = b"".join(pieces)
        if "gzip" in request.headers.get("content-encoding", ""):
            body = _unpacked(body, self._options.max_request_bytes)
            self._hold(request, len(body))
        return body

    def _answer(self, method: str, path: str, body: bytes, deadline: float) -> bytes:
        if time.monotonic() > deadline:
            raise Refused("DEADLINE_EXCEEDED", "the time for this request is over")
        if method == "POST" and (found := ASK.fullmatch(path)):
            return self._asked(found, body, deadline)
        if method == "GET" and (found := TELL.fullmatch(path)):
            return self._told(found)
        raise invalid(f"Malformed request: {method} {path}")

    def _asked(self, found: re.Match[str], body: bytes, deadline: float) -> bytes:
        name, version, label = _which(found)
        verb = found[4]
        with counted(self._models, name, verb.capitalize(), "REST"):
            numbers = Numbers(body if verb == "predict" else b"")
            document = {} if numbers else document_of(body)
            signature = numbers.signature_name or document.get("signature_name") or DEFAULT
            given = examples_of(document) if verb != "predict" else None
            with self._models.use(name, version, label) as servable:
                if verb == "predict":
                    return _predicted(servable, signature, numbers, body, deadline)
                return written_results(infer(servable, verb, signature, given, deadline))

    def _told(self, found: re.Match[str]) -> bytes:
        if not found[1]:
            raise invalid("Missing model name in request.")
        name, version, label = _which(found)
        if not found[4]:
            states = status_response(self._models.states(name, version))
            return json.dumps(json_format.MessageToDict(states, **AS_DICT)).encode()
        with self._models.use(name, version, label) as servable:
            signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
            spec = {"name": name, "signature_name": "", "version": str(servable.number)}
        inner = json_format.MessageToDict(signatures, **AS_DICT)
        return json.dumps({"model_spec": spec, "metadata": {"signature_def": inner}}).encode()


@contextlib.contextmanager
def counted(models: Models, name: str, api: str, entrypoint: str) -> Iterator[None]:
    """A request in the metrics, if there is such a model."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        error = sys.exception()
        code = refusal_of(error).code if error else "OK"
        if name in models.names():
            REQUEST_COUNT.add(model_name=name, status=code)
            took = 1e6 * (time.perf_counter() - begun)
            REQUEST_LATENCY.add(took, model_name=name, API=api, entrypoint=entrypoint)


def _predicted(
    servable: Servable, signature: str, numbers: Numbers, body: bytes, deadline: float
) -> bytes:
    if signature not in servable.signatures:
        raise invalid(f'Serving signature name: "{signature}" not found in signature def')
    dtypes = servable.dtypes(signature)
    if not dtypes:
        raise invalid(f"Failed to get input map for signature: {signature}")
    inputs, as_rows = numbers.arrays(dtypes) or arrays_of(document_of(body), dtypes)
    return written(predict(servable, signature, inputs, (), deadline), as_rows)


def _which(found: re.Match[str]) -> tuple[str, int | None, str]:
    """Name, version and label in a path."""
    version = int(found[2][:20]) if found[2] else None
    if version is not None and (version > MOST_VERSION or len(found[2].lstrip("0")) > 19):
        raise invalid("")  # which TF Serving answers without a word
    label = urllib.parse.unquote(found[3]) if found[3] else ""
    return urllib.parse.unquote(found[1]), version, label


def status_response(states: list[Status]) -> Any:
    """What both protocols tell of the versions of a model."""
    response = get_model_status_pb2.GetModelStatusResponse()
    for number, state, error in states:
        entry = response.model_version_status.add(version=number, state=state)
        entry.status.error_code = 2 if error else 0  # UNKNOWN, OK
        entry.status.error_message = error
    return response


def _refusal(refused: Refused) -> Response:
    headers = {**HEADERS, "Connection": "close"} if refused.status else HEADERS
    content = json.dumps({"error": refused.message}) if refused.message else b""
    return Response(content, refused.status or STATUSES.get(refused.code, 500), headers)


def _unpacked(body: bytes, most: int) -> bytes:
    """What gzip packed; nothing if it cannot be unpacked, as TF Serving takes it."""
    unpacking = zlib.decompressobj(16 + zlib.MAX_WBITS)
    found = attempt(lambda: unpacking.decompress(body, most + 1), zlib.error)[0] or b""
    if len(found) > most:
        raise Refused("OUT_OF_RANGE", f"the request unpacks to more than {most:,} bytes", 413)
    return found if unpacking.eof else b""
