"""How the embedded engine listens and what it allows: the flags of its process."""

import argparse
import dataclasses
import pathlib
import ssl
from collections.abc import Sequence
from typing import Any, Self

from keras_shared.errors import KerasSharedError, boundary


class ConfigError(KerasSharedError, ValueError):
    """A file or a model that the server cannot start with; the message says why."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags, those of TF Serving under its names.

    Attributes:
        model_config_file: which models; a `ModelServerConfig` as text.
        host: the address of the network interface.
        port: of gRPC; 0: a free one.
        rest_api_port: of REST; 0: a free one.
        rest_api_timeout_in_ms: for a request over REST, its body included.
        file_system_poll_wait_seconds: between two looks for new versions.
        batching_parameters_file: how requests are answered together; without it, they are not.
        enable_per_model_batching_parameters: they are, as the version's own file says; where it
            has none, they are not.
        token_file: holds what requests must bear.
        certificate: the chain of certificates for TLS, PEM.
        key: its private key, PEM.
        max_request_bytes: of one request; all that are being answered may have four times that.
        max_requests: that are answered at once, over each protocol.
        allow_file_operations: whether graphs may touch files, the network or Python.
    """

    model_config_file: str = ""
    host: str = "127.0.0.1"
    port: int = 8500
    rest_api_port: int = 8501
    rest_api_timeout_in_ms: int = 30_000
    file_system_poll_wait_seconds: float = 1.0
    batching_parameters_file: str = ""
    enable_per_model_batching_parameters: bool = False
    token_file: str = ""
    certificate: str = ""
    key: str = ""
    max_request_bytes: int = 2**26
    max_requests: int = 512
    allow_file_operations: bool = False

    @classmethod
    def of(cls, arguments: Sequence[str] | None) -> Self:
        """Read from a command line."""
        parser = argparse.ArgumentParser(prog="python -m keras_shared.serving.embedded")
        for field in dataclasses.fields(cls):
            kind = type(field.default)
            how: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": kind}
            parser.add_argument(f"--{field.name}", default=field.default, **how)
        return cls(**vars(parser.parse_args(arguments)))

    def bearer(self) -> bytes:
        """The token that a request must bear; nothing if there is none."""
        if not self.token_file:
            return b""
        with boundary(f"{self.token_file} cannot be read", ConfigError):
            token = pathlib.Path(self.token_file).read_bytes().strip()
        if not token:
            raise ConfigError(f"{self.token_file} holds no token.")
        return token

    def pair(self) -> tuple[bytes, bytes] | None:
        """Key and certificate, if there is TLS."""
        if bool(self.key) != bool(self.certificate):
            raise ConfigError("TLS needs both, a certificate and its key.")
        if not self.key:
            return None
        with boundary("TLS cannot start", ConfigError):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key, password=self._encrypted)
            return pathlib.Path(self.key).read_bytes(), pathlib.Path(self.certificate).read_bytes()

    def _encrypted(self) -> str:
        raise ConfigError(f"{self.key} is encrypted. Expected a key that needs no password.")
