"""Stands for `docker`: `version` answers as FAKE says, `run` starts the fake server as a container.

As with Docker's daemon, the server is no child of the command line: it gets the signals that the
command passes on, and outlives it if that is killed, until `rm --force NAME`.
"""

import csv
import os
import pathlib
import signal
import subprocess
import sys
import time


def main():
    recorded = pathlib.Path(os.environ["RECORD"])
    if sys.argv[1] == "version":
        if os.environ.get("FAKE") == "no daemon":
            sys.exit("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")
        sys.exit(0)
    if sys.argv[1:3] == ["rm", "--force"]:
        kept = recorded.with_name("containers") / sys.argv[3]
        if not kept.exists():
            sys.exit(f"Error response from daemon: No such container: {sys.argv[3]}")
        os.kill(int(kept.read_text()), signal.SIGKILL)
        sys.exit(0)
    assert sys.argv[1] == "run", sys.argv
    recorded.write_text("\n".join(sys.argv[1:]))
    arguments = " ".join(sys.argv)
    for given in sys.argv:
        if given.startswith("--publish="):
            outer, _, inner = given.removeprefix("--publish=").partition(":")
            arguments = arguments.replace(f"port={inner}", f"port={outer}")
        if given.startswith("--mount="):
            [fields] = csv.reader([given.removeprefix("--mount=")])
            mount = dict(field.partition("=")[::2] for field in fields)
            assert os.path.isdir(mount["source"]) and mount["type"] == "bind"
            assert "readonly" in mount
            arguments = arguments.replace(f"={mount['target']}/", f"={mount['source']}/")
        if given.startswith("--name="):
            name = given.removeprefix("--name=")
    server = pathlib.Path(__file__).parent / "fake_model_server.py"
    flags = arguments.split(" tensorflow/serving ")[1].split()
    container = subprocess.Popen([sys.executable, str(server), *flags], start_new_session=True)
    kept = recorded.with_name("containers") / name
    kept.write_text(str(container.pid))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _: container.send_signal(n))
    while container.poll() is None:
        time.sleep(0.05)
    kept.unlink()
    sys.exit(container.returncode if container.returncode >= 0 else 128 - container.returncode)


if __name__ == "__main__":
    main()
