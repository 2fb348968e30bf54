"""An engine found, started, watched until every model is AVAILABLE, and stopped."""

import collections
import contextlib
import errno
import functools
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Literal

from keras_shared.errors import KerasSharedError, UsageError, attempt, boundary, printable
from keras_shared.processes import ENDING, GRACE, child, scratch_folder, sweep
from keras_shared.serving.client import Client
from keras_shared.serving.configuration import (
    GRPC_PORT,
    METRICS,
    REST_PORT,
    configuration_files,
    configured,
    flags,
    model_folders,
)
from keras_shared.serving.errors import ServingError
from keras_shared.serving.limits import MOST_LINE
from keras_shared.serving.messages import SignatureDef
from keras_shared.text import log_line

BINARY, IMAGE = "tensorflow_model_server", "tensorflow/serving"
LAST_LINES = 20
MOST_PORT = 65535
LOCAL = "127.0.0.1"
DOCKER_ANSWERS = 30.0  # seconds
SCRATCH = "keras-shared-serve-"  # folder of the server's files, and name of its container
PACKAGES = "https://storage.googleapis.com/tensorflow-serving-apt"
# A PNG of one pixel, for the request that `serve` prints if a signature takes images
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
HOW_TO_GET = f"""\
To get TF Serving, either install Docker (https://docs.docker.com/engine/install), and run
  docker pull {IMAGE}
or, on Debian and Ubuntu (x86-64), add its package source and install the binary:
  curl -fsSL {PACKAGES}/tensorflow-serving.release.pub.gpg \\
    | sudo tee /etc/apt/keyrings/tensorflow-serving.asc > /dev/null
  echo "deb [arch=amd64 signed-by=/etc/apt/keyrings/tensorflow-serving.asc] \\
  {PACKAGES} stable tensorflow-model-server" \\
    | sudo tee /etc/apt/sources.list.d/tensorflow-serving.list
  sudo apt-get update && sudo apt-get install tensorflow-model-server"""


MODULE = "keras_shared.serving.embedded"
DRAIN = 35.0  # seconds that the embedded engine has to answer what was begun


class EngineError(KerasSharedError, RuntimeError):
    """An engine is not installed, or did not start; the message says why, or how to get it."""


def serve(
    models: Sequence[str | os.PathLike[str]],
    rest_port: int = REST_PORT,
    grpc_port: int = GRPC_PORT,
    timeout: float = 600.0,
    batching: bool | str | os.PathLike[str] = True,
    per_model_batching: bool = False,
    engine: Literal["tf-serving", "embedded"] | None = None,
    **embedded: object,
) -> int:
    """Run TF Serving, or what stands for it, until it ends; SIGINT, SIGTERM, SIGHUP, SIGQUIT do.

    `tensorflow_model_server` is taken if it is on the PATH, otherwise Docker, otherwise the
    embedded engine: TensorFlow's own Session in a Python process, with TF Serving's two interfaces.
    Prometheus metrics are on. TF Serving is killed ten seconds after the first signal if it goes
    on, the embedded engine 35, after it answered what was begun; one second after a second signal,
    and at once after a third. If this process is killed, the server is ended too. Call it in the
    main thread: Python takes signals there.

    Args:
        models: folders of versions, or names of presets; a folder's name is the model's name.
        rest_port: port of REST.
        grpc_port: port of gRPC.
        timeout: seconds until every model must be AVAILABLE; Docker may have to fetch its image.
        batching: whether requests of several clients may be answered together. Without, models
            are served too whose inputs or outputs have no batch as dimension 0. Or a file of TF
            Serving's batching parameters, in place of ours.
        per_model_batching: requests are answered together as the file `batching_params.pbtxt` of a
            version says, of those that have one.
        engine: "tf-serving" or "embedded"; by default the first that is found.
        **embedded: flags of the embedded engine alone, as
            `keras_shared.serving.embedded.options.Options` has them: `host`, `token_file`, ...

    Returns:
        The server's exit status; 128 + n if signal n ended it, as shells count. The embedded engine
        ends with 0 after a signal.

    Raises:
        LoadError: for a name or folder that TF Serving could not serve.
        BatchingError: for a file of batching parameters that it could not read.
        ValueError: for `models` that are no names.
        EngineError: if there is no TF Serving, a port cannot be had, or a model does not load.
        UsageError: without models.

    Example:
        >>> from keras_shared.serving import serve
        >>> serve(["lenet5_mnist"], rest_port=8601)  # doctest: +SKIP
    """
    config = embedded.get("model_config_file")
    folders = configured(str(config)) if config else model_folders(models)
    if not folders or (config and models):
        raise UsageError("Name models to serve, or a model config file, and not both.")
    binary, docker = "", ""
    if engine != "embedded":
        binary, docker = _engine(or_none=engine is None)
    here = not binary and not docker
    if embedded and not here:
        raise EngineError(f"Only the embedded engine has {sorted(embedded)}: choose it.")
    _check_ports(rest_port, grpc_port, by_root=bool(docker))
    # what was left by runs that were killed together with what watched them
    sweep(SCRATCH, before=functools.partial(_remove_container, docker))
    with _signals_passed_on() as (received, started), scratch_folder(SCRATCH) as scratch:
        ports, together = (rest_port, grpc_port), (batching, per_model_batching)
        command = _command(
            binary or docker, bool(docker), folders, scratch, ports, together, embedded
        )
        after = [docker, "rm", "--force", pathlib.Path(scratch).name] if docker else []
        if received:
            return 128 + received[0]
        grace = DRAIN if here else GRACE
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with child(command, grace, remove=scratch, after=after, **streams) as process:
            started.append(process)
            if received:  # while it was being started
                process.send_signal(received[-1])
            last: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
            log = threading.Thread(target=_log, args=(process.stderr, last), daemon=True)
            log.start()
            try:
                url = f"http://localhost:{rest_port}"
                if here:
                    address = str(embedded.get("host", LOCAL))
                    scheme = "https" if "certificate" in embedded else "http"
                    url = f"{scheme}://{_shown(address)}:{rest_port}"
                    _wait_for_port(process, (address, rest_port), timeout, received)
                else:
                    _wait(process, url, list(folders), timeout, received)
                access = {key: str(embedded.get(key, "")) for key in ("token_file", "certificate")}
                status = _served(process, here, url, grpc_port, list(folders), received, **access)
            except EngineError as error:
                process.terminate()
                process.wait()
                log.join(timeout=5)
                lines = "".join(f"\n  {line}" for line in last)
                raise EngineError(f"{error} The last lines of its log:{lines}") from error
            log.join(timeout=5)
    return status if status >= 0 else 128 - status


def _served(
    process: subprocess.Popen[bytes],
    here: bool,
    url: str,
    grpc_port: int,
    names: Sequence[str],
    received: list[int],
    **access: str,
) -> int:
    """The status of a server that is ready, once it has ended."""
    if process.poll() is None and not received:
        what = "The embedded engine" if here else "TF Serving"
        page = f"\n  a page to try the models: {url}/" if here else ""
        print(f"{what} {_ready(url, grpc_port, names, page, **access)}", flush=True)
    status = process.wait()
    if status == -signal.SIGKILL and not received:
        _say("The server was killed, as the system does when memory is short.")
    return status


def _engine(or_none: bool = False) -> tuple[str, str]:
    """Where the binary is, or Docker, if it answers; both are empty if there is none."""
    found, lacking = attempt(_found, EngineError)
    if lacking is None:
        return found  # type: ignore[no-any-return]
    if not or_none:
        raise lacking
    why = str(lacking).partition("\n")[0].rstrip(".")
    _say(f"{why}: the embedded engine serves, which needs neither (--engine embedded).")
    return "", ""


def _say(text: str) -> None:
    print(f"keras-shared: {printable(text)}", file=sys.stderr, flush=True)


def _found() -> tuple[str, str]:
    """Where the binary is, or Docker, if it answers; one of the two is empty."""
    if binary := shutil.which(BINARY):
        return binary, ""
    docker = shutil.which("docker")
    if not docker:
        raise EngineError(f"Neither {BINARY} nor docker is on the PATH.\n{HOW_TO_GET}")
    failed = f"{BINARY} is not on the PATH, and `docker version` failed"
    with boundary(failed, EngineError, f"\n{HOW_TO_GET}"):
        answer = _ask_docker(docker, "version")
    if answer.returncode:
        said = printable(answer.stderr.strip())
        raise EngineError(f"{failed}: {said}\n{HOW_TO_GET}")
    return "", docker


def _ask_docker(docker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [docker, *arguments], capture_output=True, text=True, errors="replace",
        stdin=subprocess.DEVNULL, timeout=DOCKER_ANSWERS, check=False,
    )  # fmt: skip


def _remove_container(docker: str, name: str) -> None:
    """Remove a container, if there is one of this name."""
    advice = f"Restart Docker, or remove it by hand: docker rm --force {name}"
    with boundary(f"The container {name} of an earlier run stays", EngineError, advice):
        if docker:
            _ask_docker(docker, "rm", "--force", name)


def _check_ports(rest_port: int, grpc_port: int, by_root: bool = False) -> None:
    """Whether the server will get both ports; `by_root`: Docker's daemon opens them."""
    others = "choose others with --rest-port and --grpc-port"
    if rest_port == grpc_port:
        raise EngineError(f"REST and gRPC need a port each. Received {rest_port} for both.")
    for port in (rest_port, grpc_port):
        if not 1 <= port <= MOST_PORT:
            raise EngineError(f"A port is a number from 1 to {MOST_PORT}. Received: {port}.")
    for port in (rest_port, grpc_port):
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            _, error = attempt(functools.partial(_listen, family, address, port), OSError)
            why = error.errno if error else 0  # the rest is of machines without IPv6
            if why == errno.EADDRINUSE:
                raise EngineError(f"Port {port} is taken by another program. Stop it, or {others}.")
            if why == errno.EACCES and not by_root:
                raise EngineError(
                    f"Port {port} is for programs of root. Take one from 1024 on: {others}."
                )


def _listen(family: int, address: str, port: int) -> None:
    with socket.socket(family) as probe:
        # as the server asks: connections that are closed already do not count
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind((address, port))
        probe.listen(1)


def _command(
    engine: str,
    in_docker: bool,
    folders: Mapping[str, pathlib.Path],
    scratch: str,
    ports: tuple[int, int],
    together: tuple[bool | str | os.PathLike[str], bool],
    embedded: Mapping[str, object],
) -> list[str]:
    """The command line of the engine that is here, or of the embedded one, its files written."""
    inside = {name: f"/models/{name}" if in_docker else str(f) for name, f in folders.items()}
    batching, per_model = bool(together[0]), together[1]
    files = configuration_files(inside, os.cpu_count() or 1, batching=together[0])
    for name, text in files.items():
        pathlib.Path(scratch, name).write_text(text)
    if not engine:
        given: dict[str, object] = {
            "model_config_file": pathlib.Path(scratch, "models.config"),
            "rest_api_port": ports[0],
            "port": ports[1],
            "enable_per_model_batching_parameters": per_model,
        }
        if batching:
            given["batching_parameters_file"] = pathlib.Path(scratch, "batching.config")
        all_given = ((f"--{name}", value) for name, value in {**given, **embedded}.items())
        flagged = (n if v is True else f"{n}={v}" for n, v in all_given if v is not False)
        return [sys.executable, "-m", MODULE, *flagged]
    if not in_docker:
        return [engine, *flags(scratch, *ports, batching, per_model)]
    pathlib.Path(scratch).chmod(0o755)
    mounts = {scratch: "/config", **{str(f): inside[name] for name, f in folders.items()}}
    volumes = [_mount(source, target) for source, target in mounts.items()]
    published = [f"--publish={ports[0]}:{REST_PORT}", f"--publish={ports[1]}:{GRPC_PORT}"]
    # Process 1 of a container ignores a SIGTERM that it does not handle: --init takes its place
    named = ["--rm", "--init", f"--name={pathlib.Path(scratch).name}"]
    run = [engine, "run", *named, *volumes, *published, f"--entrypoint={BINARY}", IMAGE]
    return [*run, *flags("/config", batching=batching, per_model=per_model)]


def _mount(source: str, target: str) -> str:
    """A folder that a container may read; fields are of CSV, so that names may hold commas."""
    fields = ("type=bind", f"source={source}", f"target={target}")
    quoted = ('"' + field.replace('"', '""') + '"' for field in fields)
    return f"--mount={','.join(quoted)},readonly"


def _wait(
    process: subprocess.Popen[bytes],
    url: str,
    names: Sequence[str],
    timeout: float,
    received: list[int],
) -> None:
    """Until every model is AVAILABLE, or a signal was received."""
    deadline = time.monotonic() + timeout
    waiting, client = list(names), Client(url, timeout=1)
    while waiting:
        if received:
            return
        if process.poll() is not None:
            raise EngineError(f"TF Serving ended with status {process.returncode}.")
        if time.monotonic() > deadline:
            raise EngineError(
                f"These models were not AVAILABLE within {timeout:g} seconds: {waiting}. Allow "
                "more with `timeout`."
            )
        # the ports open when every model is loaded
        found, _ = attempt(functools.partial(client.status, waiting[0]), ServingError)
        versions = found or []
        failed = [v for v in versions if v.state == "END" and v.error]
        if any(version.state == "AVAILABLE" for version in versions):
            waiting.pop(0)
        elif failed:
            reason = failed[-1].error.rstrip(".")
            raise EngineError(f"TF Serving could not load {waiting[0]}: {reason}.")
        else:
            time.sleep(0.1)


def _shown(address: str) -> str:
    """What stands for an address in a URL; where all of this machine are listened to, its own."""
    if address in (LOCAL, "0.0.0.0", "::"):
        return "localhost"
    return f"[{address}]" if ":" in address else address


def _wait_for_port(
    process: subprocess.Popen[bytes], address: tuple[str, int], timeout: float, received: list[int]
) -> None:
    """Until the embedded engine listens, which it does when every model is AVAILABLE."""
    deadline = time.monotonic() + timeout
    while not received:
        if process.poll() is not None:
            raise EngineError(f"The embedded engine ended with status {process.returncode}.")
        if time.monotonic() > deadline:
            raise EngineError(f"The models were not AVAILABLE within {timeout:g} seconds.")
        connection, _ = attempt(lambda: socket.create_connection(address, timeout=1), OSError)
        if connection is not None:
            connection.close()
            return
        time.sleep(0.1)


def _ready(
    url: str,
    grpc_port: int,
    names: Sequence[str],
    page: str = "",
    token_file: str = "",
    certificate: str = "",
) -> str:
    host = url.partition("://")[2].rpartition(":")[0]
    lines = [f"is ready. gRPC: {host}:{grpc_port}\n  metrics: {url}{METRICS}{page}"]
    lines += [f"  {_of_model(url, name)}" for name in names]
    # an example is not worth ending a server for
    example, _ = attempt(lambda: _example(url, names[0], token_file, certificate))
    lines += ["try:", example] if example else []
    return "\n".join(lines)


def _example(url: str, name: str, token_file: str, certificate: str) -> str:
    """A command that asks one model, with what its server wants to see."""
    curl, token = ["curl", "-s"], None
    if certificate:
        curl += ["--cacert", shlex.quote(certificate)]
    if token_file:
        token = pathlib.Path(token_file).read_text().strip()
        curl += ["-H", f'"Authorization: Bearer $(cat {shlex.quote(token_file)})"']
    client = Client(url, token=token, certificates=certificate or None)
    return _request(url, name, client.metadata(name), " ".join(curl))


def _of_model(url: str, name: str) -> str:
    return f"{url}/v1/models/{urllib.parse.quote(name, safe='')}"


def _request(
    url: str, name: str, signatures: Mapping[str, SignatureDef], curl: str = "curl -s"
) -> str:
    """A command that asks one model, with a picture of one pixel or with zeros."""
    taking = {key: s.inputs for key, s in signatures.items() if s.inputs}
    encoded = [key for key, names in taking.items() if all(n.endswith("_bytes") for n in names)]
    target = f"{_of_model(url, name)}:predict"  # names are data: quoted for JSON and the shell
    if encoded:
        chosen = min(encoded)
        images = {key: [{"b64": PIXEL}] for key in taking[chosen]}
        body = json.dumps({"signature_name": chosen, "inputs": images})
        return f"{curl} {target} -d {shlex.quote(body)}"
    chosen = "serving_default" if "serving_default" in taking else min(taking)
    columns = []
    for key, tensor in taking[chosen].items():
        text, whole = tensor.dtype == "string", tensor.dtype.startswith(("int", "uint"))
        zeros = '""' if text else "0" if whole else "False" if tensor.dtype == "bool" else "0.0"
        for side in reversed((1,) if tensor.shape is None else tensor.shape):
            zeros = f"[{zeros}]" + (f" * {side}" if (side or 1) > 1 else "")
        columns.append(f"{json.dumps(key)}: {zeros}")
    inputs = ", ".join(columns)
    body = f'{{"signature_name": {json.dumps(chosen)}, "inputs": {{{inputs}}}}}'
    program = f"import json; print(json.dumps({body}))"
    return f"python3 -c {shlex.quote(program)} | {curl} {target} -d @-"


def _log(stream: IO[bytes], last: collections.deque[str]) -> None:
    """Show the server's log as it comes, and keep its end."""
    begins = True
    while piece := stream.readline(MOST_LINE):
        ends = piece.endswith(b"\n")
        if begins:
            text = printable(piece.decode(errors="replace").rstrip("\n"))
            text += "" if ends or len(piece) < MOST_LINE else " ..."
            last.append(text)
            log_line(text)
        begins = ends


@contextlib.contextmanager
def _signals_passed_on() -> Iterator[tuple[list[int], list[subprocess.Popen[bytes]]]]:
    """The signals to end that were received so far, and the processes to pass them on to."""
    received: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        for process in started:
            process.send_signal(number)

    # after `nohup`, SIGHUP stays ignored
    taken = [n for n in ENDING if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    kept = {n: signal.signal(n, pass_on) for n in taken}
    try:
        yield received, started
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
