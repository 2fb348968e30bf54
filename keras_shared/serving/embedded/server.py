"""The embedded engine as a whole: models, REST and gRPC started together, and drained."""

import asyncio
import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from keras_shared.errors import attempt, boundary
from keras_shared.serving.configuration import configs as model_configs
from keras_shared.serving.embedded.grpc_service import grpc_server
from keras_shared.serving.embedded.models import Models, say
from keras_shared.serving.embedded.options import ConfigError, Options
from keras_shared.serving.embedded.rest import Rest
from keras_shared.serving.limits import MOST_CONNECTIONS

PATIENCE = 30.0  # seconds for the head of a request, between two, and for reading an answer
DRAIN = 25.0  # seconds that requests have to end in


class Running(NamedTuple):
    """A server that answers."""

    models: Models
    rest_port: int
    grpc_port: int


@contextlib.contextmanager
def running(options: Options, configs: Sequence[Any] | None = None) -> Iterator[Running]:
    """Serve until the block ends, and then what was begun.

    Args:
        options: how it listens, and what it allows.
        configs: ModelConfigs in place of those of the file.

    Yields:
        The server, once every model has a version: the ports open then.

    Raises:
        ConfigError: for files, models or addresses that it cannot start with.
    """
    _allow_connections()
    models, pair, bearer = Models(options), options.pair(), options.bearer()
    with contextlib.closing(models), contextlib.ExitStack() as stack:
        models.configure(model_configs(options.model_config_file) if configs is None else configs)
        host, tls = f"[{options.host}]" if ":" in options.host else options.host, pair is not None
        with boundary(f"{host}:{options.rest_api_port} cannot be had for REST", ConfigError):
            family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
            listening = stack.enter_context(
                socket.create_server(
                    (options.host, options.rest_api_port), family=family, backlog=2048
                )
            )
            # an answer goes in two pieces, and the second waits for no acknowledgement of the first
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with boundary("TLS cannot start", ConfigError):
            config = uvicorn.Config(
                Rest(models, options, bearer), http=_Patient, ws="none", lifespan="off",
                log_config=None, access_log=False, server_header=False, backlog=2048,
                proxy_headers=False,  # the log shows who is connected, not what a header says
                timeout_keep_alive=int(PATIENCE) + 1, timeout_graceful_shutdown=int(DRAIN),
                ssl_certfile=options.certificate if tls else None,
                ssl_keyfile=options.key if tls else None,
            )  # fmt: skip
            config.load()
        with boundary(f"{host}:{options.port} cannot be had for gRPC", ConfigError):
            over_grpc, port = grpc_server(models, options, bearer, f"{host}:{options.port}", pair)
        over_http = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(over_http.serve([listening])))
        thread.start()
        over_grpc.start()
        try:
            while not over_http.started and thread.is_alive():
                time.sleep(0.005)
            found = Running(models, listening.getsockname()[1], port)
            say(f"serving: REST on port {found.rest_port}, gRPC on port {port}")
            yield found
        finally:
            say("ending: requests that were begun are answered")
            over_http.should_exit = True
            stopped = over_grpc.stop(DRAIN)
            thread.join()
            stopped.wait()


class _Patient(H11Protocol):
    """A connection that is cut when its client is silent for too long.

    uvicorn itself waits without end for the head of a first request, and for a client to read. By
    httptools, which is faster, it loses the body of a request that offers another protocol, as
    Java's HttpClient does.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._seen, self._since = self.cycle, time.monotonic()
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        between = self.cycle is None or self.cycle.response_complete
        unread = self.transport.get_write_buffer_size() > 0
        if self.cycle is not self._seen or not (between or unread):
            self._seen, self._since = self.cycle, time.monotonic()
        if time.monotonic() - self._since > PATIENCE:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(PATIENCE / 10, self._look)


def _allow_connections() -> None:
    """As many open files as the system allows: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2 * MOST_CONNECTIONS
    wanted = most if hard == resource.RLIM_INFINITY else min(hard, most)
    limits = (max(soft, wanted), hard)
    attempt(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits), OSError, ValueError)
