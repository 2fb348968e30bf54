"""Compose file and Kubernetes manifests, validated by the schemas of their makers."""

import pathlib
import shutil
import subprocess
import sys
import urllib.parse

import kubernetes_validate
import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from keras_shared.cli import main
from keras_shared.presets.names import locate
from keras_shared.serving import write_manifests

NAMES = ["lenet5_mnist", "siamese_omniglot"]


@pytest.fixture
def folder(tmp_path):
    write_manifests(NAMES, tmp_path / "deploy")
    return tmp_path / "deploy"


def documents(folder):
    return list(yaml.safe_load_all((folder / "kubernetes.yaml").read_text()))


def compose_errors(path):
    """check-jsonschema carries the schema of the Compose specification."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout + done.stderr if done.returncode else ""


def test_the_compose_file_keeps_the_specification(folder, tmp_path):
    assert compose_errors(folder / "compose.yaml") == ""
    broken = (folder / "compose.yaml").read_text().replace("ports:", "prots:")
    (tmp_path / "broken.yaml").write_text(broken)
    assert "prots" in compose_errors(tmp_path / "broken.yaml")  # the validator does look
    [service] = yaml.safe_load((folder / "compose.yaml").read_text())["services"].values()
    assert service["entrypoint"] == ["tensorflow_model_server"]
    mounts = {volume["target"]: volume["source"] for volume in service["volumes"]}
    assert mounts == {
        "/config": ".", **{f"/models/{name}": str(locate(name).resolve()) for name in NAMES}
    }  # fmt: skip
    for flag in service["command"]:
        if "_file=/config/" in flag:
            assert (folder / flag.rpartition("/")[2]).exists()


@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_the_manifests_keep_the_schemas_of_kubernetes(folder, version):
    for document in documents(folder):
        kubernetes_validate.validate(document, version, strict=True)
    deployment = documents(folder)[2]
    deployment["spec"]["template"]["spec"]["containers"][0]["probe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, version, strict=True)


def test_the_manifests_fit_together(folder):
    config, claim, deployment, service = documents(folder)
    pod = deployment["spec"]["template"]
    [server] = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert ports == {"grpc": 8500, "rest": 8501}
    for port in service["spec"]["ports"]:
        assert port["port"] == ports[port["targetPort"]]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert server[probe]["httpGet"]["path"].startswith("/v1/models/lenet5_mnist")
        assert server[probe]["httpGet"]["port"] in ports
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in server["volumeMounts"]}
    assert mounts["/config"]["configMap"]["name"] == config["metadata"]["name"]
    claimed = mounts["/models"]["persistentVolumeClaim"]["claimName"]
    assert claimed == claim["metadata"]["name"]
    files = [arg.rpartition("/")[2] for arg in server["args"] if "_file=/config/" in arg]
    assert sorted(files) == sorted(config["data"])
    for name, text in config["data"].items():
        assert text == (folder / name).read_text()
    models = text_format.Parse(
        config["data"]["models.config"], model_server_config_pb2.ModelServerConfig()
    )
    assert [c.base_path for c in models.model_config_list.config] == [f"/models/{n}" for n in NAMES]


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["manifests", *NAMES, "--to", "out"]) == 0
    printed = [pathlib.Path(line) for line in capsys.readouterr().out.split()]
    assert sorted(printed) == sorted(pathlib.Path("out").iterdir())
    assert main(["manifests", "lenet"]) == 1
    assert "Did you mean 'lenet5_mnist'" in capsys.readouterr().err


def test_names_of_any_characters(tmp_path):
    odd = tmp_path / "a$b ${c}: 'd' \"e\", \n\x1b\u202e日本語"
    folder = shutil.copytree(locate("lenet5_mnist"), odd)
    write_manifests([folder], tmp_path / "deploy", image="a/b:c#d")
    [service] = yaml.safe_load((tmp_path / "deploy/compose.yaml").read_text())["services"].values()
    mount = service["volumes"][1]
    assert mount["source"].replace("$$", "$") == str(folder) and service["image"] == "a/b:c#d"
    assert mount["target"].replace("$$", "$") == f"/models/{folder.name}"
    config, _, deployment, _ = documents(tmp_path / "deploy")
    models = text_format.Parse(
        config["data"]["models.config"], model_server_config_pb2.ModelServerConfig()
    )
    assert models.model_config_list.config[0].name == folder.name
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    path = container["startupProbe"]["httpGet"]["path"]
    assert urllib.parse.unquote(path) == f"/v1/models/{folder.name}"
