"""The clients in other languages answer as Python does; those whose tools are missing skip."""

import http.server
import os
import pathlib
import re
import shutil
import subprocess
import sys
import threading
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

import keras_shared
from keras_shared.presets.names import locate, version_dir

sys.path.insert(0, f"{pathlib.Path(__file__).parent}/serving")
from embedded_server import serving

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
PICTURES = pathlib.Path(keras_shared.__file__).parent / "pictures"
pytestmark = pytest.mark.slow


def tool(*names):
    for name in names:
        if not shutil.which(name):
            pytest.skip(f"there is no {name} on the PATH")


def run(*command, text="", folder=None, fails=False, **variables):
    """What a program prints; or what it says when it `fails`."""
    done = subprocess.run(
        [str(part) for part in command], input=text, capture_output=True, text=True, timeout=300,
        cwd=folder, env={**os.environ, **variables},
    )  # fmt: skip
    assert (done.returncode != 0) == fails, done.stderr[-2000:]
    return done.stderr if fails else done.stdout


@pytest.fixture(scope="module")
def digit():
    """Its pixels as text, and what Python reconstructs."""
    pixels = np.asarray(Image.open(PICTURES / "digit.png"), "float32").reshape(1, 784) / 255
    model = keras_shared.load("tied_autoencoder_mnist")
    return " ".join(map(str, pixels[0])), model.predict(pixels, verbose=0)[0]


def test_cpp(digit, tmp_path):
    tool("g++", "python")
    run("bash", EXAMPLES / "cpp" / "build.sh", tmp_path)
    version = version_dir(locate("tied_autoencoder_mnist")).resolve()
    found = run(tmp_path / "reconstruct", version, text=digit[0]).split()
    np.testing.assert_allclose(np.array(found, float), digit[1], atol=1e-4)
    said = run(tmp_path / "reconstruct", version, text="0.5 0.5", fails=True)
    assert "expected 784 numbers, received 2" in said
    assert "no-such" in run(tmp_path / "reconstruct", "no-such", fails=True)


def test_javascript(digit, tmp_path):
    tool("node", "npm")
    folder = shutil.copytree(
        EXAMPLES / "javascript", tmp_path / "js", ignore=shutil.ignore_patterns("node_modules")
    )
    installed = subprocess.run(
        ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder, capture_output=True, timeout=300,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip("npm cannot install onnxruntime-node")
    model = keras_shared.load("tied_autoencoder_mnist")
    keras_shared.export(model, folder / "autoencoder.onnx", format="onnx")
    assert (folder / "autoencoder.onnx").stat().st_size < 4 * model.count_params() + 20_000
    found = run("node", "reconstruct.mjs", "autoencoder.onnx", text=digit[0], folder=folder)
    np.testing.assert_allclose(np.array(found.split(), float), digit[1], atol=1e-4)
    said = run("node", "reconstruct.mjs", "autoencoder.onnx", text="1 2", folder=folder, fails=True)
    assert said.startswith("usage: ")


@pytest.fixture(scope="module")
def server():
    with serving({"siamese_omniglot": locate("siamese_omniglot").resolve()}) as server:
        yield server.rest


def asks_over_rest(server, *program):
    pairs = {2: [], 3: []}
    for other, values in pairs.items():
        files = [PICTURES / f"character_{number}.png" for number in (1, other)]
        printed = run(*program, f"{server}/", *files)
        values.append(float(re.search(r"the same: *([\d.e-]+)", printed)[1]))
        values.append(float(keras_shared.serving.Client(server).verify(*map(content, files))))
    for found, expected in pairs.values():
        assert found == pytest.approx(expected, abs=1e-4)
    assert pairs[2][0] > 0.9 and pairs[3][0] < 0.1
    broken = run(*program, server, files[0], __file__, fails=True)  # no picture
    assert len(broken.strip()) > 20


class Strange(http.server.BaseHTTPRequestHandler):
    """Answers of proxies and of other programs, named by the path."""

    answers: ClassVar = {
        "proxy": (502, b"<html>Bad gateway, 50% down</html>"),
        "nothing": (500, b""),
        "list": (400, b'["no object"]'),
        "other": (200, b'{"outputs": {"label": "7"}}'),
        "page": (200, b"<html>Log in</html>"),
        "refused": (400, b'{"error": "no such input"}'),
    }

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        status, body = self.answers[self.path.split("/")[1]]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def says_what_is_wrong(*program):
    files = [PICTURES / f"character_{number}.png" for number in (1, 2)]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Strange) as strange:
        threading.Thread(target=strange.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{strange.server_port}"
        for name, (status, body) in Strange.answers.items():
            said = run(*program, f"{address}/{name}", *files, fails=True)
            assert f"{name} answers with status {status}: {body.decode()}" in said
        strange.shutdown()
    assert "onnect" in run(*program, address, *files, fails=True)


def content(file):
    return file.read_bytes()


def test_r(server):
    tool("Rscript")
    packages = subprocess.run(["Rscript", "-e", "library(curl); library(jsonlite)"], timeout=60)
    if packages.returncode:
        pytest.skip("R lacks the packages curl or jsonlite")
    asks_over_rest(server, "Rscript", EXAMPLES / "r" / "verify.R")
    says_what_is_wrong("Rscript", EXAMPLES / "r" / "verify.R")


def test_octave(server, tmp_path):
    tool("octave-cli", "curl")
    program = "octave-cli", EXAMPLES / "octave" / "verify.m"
    asks_over_rest(server, *program)
    says_what_is_wrong(*program)
    spaced = tmp_path / "a b"
    spaced.mkdir()
    files = [PICTURES / "character_1.png"] * 2
    assert "the same: " in run(*program, server, *files, TMPDIR=str(spaced))
    said = run(*program, "http://no-such.invalid", *files, fails=True)
    assert "Could not resolve host" in said
