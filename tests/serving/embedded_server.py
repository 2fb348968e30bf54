"""The embedded engine inside a test: over folders, or over functions as recording.py has them."""

import contextlib
import http.client
import json
import types
from unittest import mock

import numpy as np
import tensorflow as tf
from recording import RefusedError, Server
from tensorflow_serving.config import model_server_config_pb2

from keras_shared.serving.embedded import grpc_service, rest, server
from keras_shared.serving.embedded.options import Options
from keras_shared.serving.embedded.refusal import Refused
from keras_shared.serving.messages import Status


@contextlib.contextmanager
def serving(folders, policies=None, **options):
    """Serve folders of versions, by name; `policies`: name -> fields of its config."""
    configs = [
        model_server_config_pb2.ModelConfig(
            name=name, base_path=str(folder), **(policies or {}).get(name, {})
        )
        for name, folder in folders.items()
    ]
    how = {"port": 0, "rest_api_port": 0, "file_system_poll_wait_seconds": 0.05, **options}
    with server.running(Options(**how), configs) as running:
        yield Asked(running)


class Asked:
    """A server and the ways to ask it."""

    def __init__(self, running):
        self.models, self.rest_port, self.grpc_port = running
        self.rest = f"http://127.0.0.1:{self.rest_port}"
        self.grpc = f"127.0.0.1:{self.grpc_port}"

    def ask(self, method, path, body=None, **headers):
        """Status, and the answer as JSON where it is that."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        try:
            return response.status, json.loads(content)
        except ValueError:
            return response.status, content

    def predict(self, name, document, verb="predict"):
        body = document if isinstance(document, (bytes, str)) else json.dumps(document)
        return self.ask("POST", f"/v1/models/{name}:{verb}", body)


class Embedded(Server):
    """recording.py's server of functions, behind the engine's own REST and gRPC."""

    def __enter__(self):
        ours = self

        class Rest(rest.Rest):
            def _answer(self, method, path, body, deadline):
                return super()._answer(method, path, Arrived(method, path, body), deadline)

            def _asked(self, found, body, deadline):
                with refusing(ours, body):
                    return super()._asked(found, body, deadline)

            def _told(self, found):
                with refusing(ours, Arrived("GET", found[0], b"")):
                    return super()._told(found)

        class Service(grpc_service._Service):
            def _asked(self, api, request, deadline):
                with refusing(ours, Arrived("gRPC", api, b"")):
                    return super()._asked(api, request, deadline)

            def _status(self, request):
                with refusing(ours, Arrived("gRPC", "GetModelStatus", b"")):
                    return super()._status(request)

        self._stack = contextlib.ExitStack()
        for target, name, new in (
            (server, "Models", lambda _: Functions(ours)), (server, "Rest", Rest),
            (grpc_service, "_Service", Service), (server, "DRAIN", 0.0),
        ):  # fmt: skip
            self._stack.enter_context(mock.patch.object(target, name, new))
        options = Options(port=0, rest_api_port=0)
        running = self._stack.enter_context(server.running(options, []))
        self._proxied(running.rest_port, running.grpc_port)
        return self

    def __exit__(self, *_):
        self.closing.set()
        for proxy in self._proxies:
            proxy.close()
        self._stack.close()


class Arrived(bytes):
    """A body that knows where it came from."""

    def __new__(cls, kind, path, body):
        made = super().__new__(cls, body)
        made.kind, made.path = kind, path
        return made


@contextlib.contextmanager
def refusing(ours, body):
    try:
        ours.arrived(body.kind, body.path, bytes(body))
        yield
    except RefusedError as refused:
        raise Refused(*refused.args[1:]) from refused
    except ConnectionResetError as error:
        raise Refused("UNKNOWN", "nobody hears this") from error


class Functions:
    """What stands for `Models`."""

    def __init__(self, ours):
        self.ours = ours

    def configure(self, configs, seconds=0.0):
        pass

    def close(self):
        pass

    def names(self):
        return [*self.ours.models]

    def ready(self):
        return True

    def states(self, name, version=None):
        return [Status(*entry) for entry in self.ours.states(name)]

    @contextlib.contextmanager
    def use(self, name, version=None, label=""):
        number, served = self.ours.find(name, version)
        dtypes = {
            signature: {key: tf.as_dtype(info.dtype) for key, info in definition.inputs.items()}
            for signature, definition in served.signatures.items()
        }

        def run(signature, inputs, deadline, outputs=(), api="Predict"):
            found = served.call(signature, inputs)
            definition = served.signatures[signature]
            return {
                key: np.asarray(value, tf.as_dtype(definition.outputs[key].dtype).as_numpy_dtype)
                for key, value in found.items()
            }

        yield types.SimpleNamespace(
            name=name, number=number, signatures=served.signatures, run=run,
            dtypes=dtypes.__getitem__,
        )  # fmt: skip
