"""serving/ without the rest of the library, and what the docs say of it, as typed."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf

import keras_shared
from keras_shared.cli import main
from keras_shared.presets.names import locate, version_dir

sys.path.insert(0, __file__.rpartition("/")[0])
from real import real_server
from recording import Server, from_folder

PACKAGE = pathlib.Path(keras_shared.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "tutorials" / "serve.md").read_text()


@pytest.fixture(
    params=["recording", "tf-serving", pytest.param("embedded", marks=pytest.mark.slow)]
)
def server(request):
    if request.param != "recording":
        with real_server(["lenet5_mnist", "siamese_omniglot"], request.param) as server:
            yield server
        return
    with Server() as server:
        for name in ("lenet5_mnist", "siamese_omniglot"):
            server.models[name] = {1: from_folder(version_dir(name))}
        yield server


ALONE = """
import sys
from keras_shared.serving import Client, check
light = "tensorflow" not in sys.modules
path, *urls, image = sys.argv[1:]
print([finding.severity for finding in check(path)], light)
for url in urls:
    with Client(url) as client:
        image_bytes = [open(image, "rb").read()]
        answer = client.predict("lenet5_mnist", {"image_bytes": image_bytes}, "classify_bytes")
        print(answer["scores"].shape)
"""


@pytest.mark.slow
def test_the_saved_model_stands_alone(server, tmp_path, image):
    """In a process for which no layer, no model and no mechanism of ours exists."""
    package = tmp_path / "alone" / "keras_shared"
    for folder in ("serving", "files"):
        shutil.copytree(PACKAGE / folder, package / folder)
    (package / "presets").mkdir()
    for file in (
        "__init__.py", "errors.py", "lookup.py", "processes.py", "quiet.py", "text.py",
        "presets/__init__.py", "presets/names.py",
    ):  # fmt: skip
        shutil.copy(PACKAGE / file, package / file)
    model = shutil.copytree(locate("lenet5_mnist"), tmp_path / "model")
    (version_dir(model) / "assets.extra" / "model.keras").unlink()
    done = subprocess.run(
        [sys.executable, "-c", ALONE, model, server.rest, server.grpc, image],
        cwd=tmp_path / "alone", env={"PYTHONPATH": str(tmp_path / "alone")},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["['note'] True", "(1, 10)", "(1, 10)"]


@pytest.fixture
def image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "digit.png"
    path.write_bytes(tf.io.encode_png(tf.zeros((28, 28, 1), "uint8")).numpy())
    return path


def here(code, server):
    """The page's code with the ports of this server."""
    ports = {"8501": server.rest_port, "8500": server.grpc_port}
    return re.sub(r"localhost:(850[01])", lambda m: f"127.0.0.1:{ports[m[1]]}", code)


@pytest.mark.slow
@pytest.mark.parametrize("server", ["tf-serving", "embedded"], indirect=True)
def test_the_page_on_serving_works_in_its_order(server, tmp_path):
    """From an empty folder; its own server stands for `serve`."""
    cells = re.findall(r"```\{code-cell\}\n(?!:)(.*?)```", PAGE, re.DOTALL)
    assert [cell.startswith("%%bash\n") for cell in cells] == [True, True, False, True]
    answers = []
    for cell in cells:
        typed = here(cell.removeprefix("%%bash\n"), server)
        command = ["bash", "-ec", typed] if typed != here(cell, server) else [
            sys.executable, "-c", typed
        ]  # fmt: skip
        path = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, timeout=180,
            env={**os.environ, "PATH": path, "COLUMNS": "100"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout)
    files, curl, client, rest = answers
    assert re.search(r"label\s*│ 7 \(", files) and "lenet5_mnist: TF Serving serves it" in files
    outputs = json.loads(curl)["outputs"]
    assert outputs["label"] == ["7"] and len(outputs["scores"][0]) == 10
    label, verified, inputs = client.strip().split("\n")
    assert re.fullmatch(r"\['7'\] \(1, 10\) \[Status\(version=\d+, state='AVAILABLE', .*", label)
    assert float(verified) > 0.5 and float(verified) == pytest.approx(
        float(re.search(r"probability ([\d.]+)", rest)[1]), abs=1e-3
    )
    assert "'image_a': TensorInfo(dtype='float32', shape=(None, 105, 105, 3))" in inputs
    assert (tmp_path / "deploy").is_dir()
    served = re.findall(r"^keras-shared serve ([\w ]+?) +#", PAGE, re.MULTILINE)
    assert served == ["lenet5_mnist siamese_omniglot"]


def test_the_command_check(tmp_path, capsys):
    good = shutil.copytree(locate("tied_autoencoder_mnist"), tmp_path / "good")
    assert main(["check", str(good)]) == 0
    assert "TF Serving serves it" in capsys.readouterr().out
    shutil.rmtree(version_dir(good) / "variables")
    assert main(["check", str(good)]) == 1
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "TF Serving would fail" in printed and "error" in printed
    assert main(["check", str(tmp_path / "missing")]) == 1
    assert "There is no file or folder" in capsys.readouterr().err
