"""A real wheel in a fresh environment, away from the checkout."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]

TRY = """
import pathlib
import keras_shared
from keras_shared.zoo import SiameseNet
import numpy as np
assert pathlib.Path(keras_shared.__file__).is_relative_to({prefix!r}), keras_shared.__file__
model = SiameseNet.from_preset("siamese_omniglot")
print(model.verify(*np.zeros((2, 1, 105, 105, 3))).shape, model.count_params())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source") / "keras_shared"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("the wheel is built from a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", folder, source], check=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_the_zoo_and_no_stray_file(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for entry in ("lenet5_mnist", "siamese_omniglot", "tied_autoencoder_mnist"):
        assert f"keras_shared/_data/zoo/{entry}/metrics.json" in names
        assert f"keras_shared/_data/zoo/{entry}/README.md" in names
        versions = [n for n in names if n.startswith(f"keras_shared/_data/saved_models/{entry}/")]
        assert len([n for n in versions if n.endswith("/saved_model.pb")]) == 1
        assert any(n.endswith("/assets.extra/model.keras") for n in versions)
        assert any(n.endswith(".data-00000-of-00001") for n in versions)
    assert "keras_shared/py.typed" in names and "keras_shared/demo_recipe.toml" in names
    assert "keras_shared/serving/kubernetes.yaml" in names
    assert not [n for n in names if "__pycache__" in n or n.startswith("tests/")]
    assert wheel.stat().st_size < 60e6


@pytest.mark.slow
def test_installed_away_from_the_checkout(wheel, tmp_path):
    prefix = tmp_path / "fresh"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    python = prefix / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    # the dependencies are those of this environment; keras_shared is the wheel's
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel]
    subprocess.run(install, check=True)
    pathlib.Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-c", TRY.format(prefix=str(prefix))],
        capture_output=True, text=True, cwd=tmp_path, env=clean,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "(1,) 106962"
    command = [python, "-m", "keras_shared.cli", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=clean)
    assert "lenet5_mnist" in listed.stdout


def test_every_package_is_listed():
    setup = (ROOT / "setup.cfg").read_text()
    found = {
        ".".join(p.parent.relative_to(ROOT).parts)
        for p in (ROOT / "keras_shared").rglob("__init__.py")
    }
    listed = setup.partition("packages =")[2].partition("package_dir")[0].split()
    assert found == {name for name in listed if "_data" not in name}


@pytest.mark.parametrize(
    "code",
    [
        "import keras_shared; keras_shared.load('lenet5_mnist').predict",
        pytest.param(
            "from keras_shared.layers import Shared; import keras; keras.ops.zeros(3)",
            marks=pytest.mark.slow,
        ),
        pytest.param("from keras_shared.datasets import load_digits", marks=pytest.mark.slow),
        pytest.param(
            "from keras_shared.serving import check; check('lenet5_mnist')", marks=pytest.mark.slow
        ),
        pytest.param("from keras_shared.training import train", marks=pytest.mark.slow),
    ],
)
def test_a_script_starts_without_notes_of_tensorflow(code, tmp_path):
    quiet = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=quiet
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_who_asks_for_the_notes_of_tensorflow_has_them():
    loud = subprocess.run(
        [sys.executable, "-c", "from keras_shared.training import train"],
        capture_output=True, text=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"},
    )  # fmt: skip
    assert "oneDNN" in loud.stderr


def test_the_limits_of_security_md_are_where_it_says():
    rows = [row.split("|") for row in (ROOT / "SECURITY.md").read_text().splitlines()]
    limits = [(row[2], row[3].strip()) for row in rows if len(row) == 5 and ".py" in row[3]]
    assert len(limits) >= 10
    for named, file in limits:
        text = (ROOT / file).read_text()
        for name in re.findall(r"`(\w+)`", named):
            assert re.search(rf"^(def )?[A-Z_, ]*\b{name}\b.*[=(]", text, re.MULTILINE), name


@pytest.mark.slow
def test_the_source_distribution_says_what_is_safe(tmp_path):
    ignored = shutil.ignore_patterns(".git", "runs")
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=ignored)
    build = "from setuptools import build_meta; print(build_meta.build_sdist('dist'))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    [archive] = (source / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {"README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= names
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", archive], check=True)


@pytest.mark.slow
def test_the_wheel_shows_as_an_index_would_show_it(wheel):
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", wheel], check=True)


USE = """
import keras_shared
from keras_shared.layers import TiedDense

reveal_type(keras_shared.list_presets())
reveal_type(TiedDense)
keras_shared.load(3)
"""


@pytest.mark.slow
def test_who_uses_the_wheel_sees_its_types(wheel, tmp_path):
    """mypy reads them of an installed package only where `py.typed` says so."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "v"], check=True)
    [site] = (tmp_path / "v" / "lib").glob("python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel]
    subprocess.run(install, check=True)
    (tmp_path / "use.py").write_text(USE)
    command = ["-m", "mypy", "--strict", "--ignore-missing-imports", "--python-executable"]
    done = subprocess.run(
        [sys.executable, *command, tmp_path / "v" / "bin" / "python", "use.py"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert 'Revealed type is "dict[str, dict[str, Any]]"' in done.stdout, done.stdout
    assert "keras_shared.layers.tied_dense.TiedDense" in done.stdout
    assert 'use.py:7: error: Argument 1 to "load" has incompatible type "int"' in done.stdout
    assert done.stdout.count("error:") == 1, done.stdout
