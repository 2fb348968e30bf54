"""Stands for `docker`: `version` answers as FAKE says, `run` starts the fake server outside."""

import os
import pathlib
import sys


def main():
    if sys.argv[1] == "version":
        if os.environ.get("FAKE") == "no daemon":
            sys.exit("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")
        sys.exit(0)
    assert sys.argv[1] == "run", sys.argv
    pathlib.Path(os.environ["RECORD"]).write_text("\n".join(sys.argv[1:]))
    arguments = " ".join(sys.argv)
    for given in sys.argv:
        if given.startswith("--publish="):
            outer, _, inner = given.removeprefix("--publish=").partition(":")
            arguments = arguments.replace(f"port={inner}", f"port={outer}")
        if given.startswith("--volume="):
            outer, inner, mode = given.removeprefix("--volume=").split(":")
            assert os.path.isdir(outer) and mode == "ro"
            arguments = arguments.replace(f"={inner}/", f"={outer}/")
    server = pathlib.Path(__file__).parent / "fake_model_server.py"
    flags = arguments.split(" tensorflow/serving ")[1].split()
    os.execv(sys.executable, [sys.executable, str(server), *flags])


if __name__ == "__main__":
    main()
