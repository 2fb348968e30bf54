"""A server for a page that the build executes: `keras-shared serve`, on free ports.

The page says localhost:8501 and 8500, as a reader types it. What the build executes of it has the
ports of this server in their place, so that one that runs on the machine is not asked.
"""

import atexit
import os
import pathlib
import socket
import subprocess
import sys

from IPython import get_ipython


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def _bash(line: str, cell: str) -> None:
    """As IPython's, but for what is printed: in one piece, where its own cuts lines."""
    done = subprocess.run(["bash", "-ec", cell], stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, end="")


def start(*models: str) -> None:
    """Serve models until this notebook ends, by the engine that is found on any machine."""
    os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["COLUMNS"] = "72"  # of tables: as wide as the page
    rest, grpc = _free_port(), _free_port()
    command = ["keras-shared", "serve", *models, "--engine", "embedded"]
    server = subprocess.Popen(
        [*command, "--rest-port", rest, "--grpc-port", grpc], stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.wait)
    atexit.register(server.terminate)  # which comes first
    if not any(line.startswith("curl") for line in iter(server.stdout.readline, "")):
        raise RuntimeError(f"{' '.join(command)} ended with {server.wait()}")

    def with_ports(lines: list[str]) -> list[str]:
        ports = {"localhost:8501": f"localhost:{rest}", "localhost:8500": f"localhost:{grpc}"}
        for said, served in ports.items():
            lines = [line.replace(said, served) for line in lines]
        return lines

    get_ipython().input_transformers_cleanup.append(with_ports)
    get_ipython().register_magic_function(_bash, "cell", "bash")
