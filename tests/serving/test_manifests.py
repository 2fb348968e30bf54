"""Compose file and Kubernetes manifests, validated by the schemas of their makers."""

import http.server
import pathlib
import shutil
import subprocess
import sys
import threading
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
    for probe in ("startupProbe", "livenessProbe"):
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


@pytest.fixture
def served():
    """A server on the port of the pod, and the models that it knows."""
    known = set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = urllib.parse.unquote(self.path.split("/")[3])
            self.send_response(200 if name in known else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port, known
    server.shutdown()
    server.server_close()


def test_a_pod_is_ready_when_every_model_is(folder, served):
    port, known = served
    [server] = documents(folder)[2]["spec"]["template"]["spec"]["containers"]
    command = [
        part.replace("8501", str(port)) for part in server["readinessProbe"]["exec"]["command"]
    ]
    statuses = []
    for name in ("", *NAMES):
        known.add(name)
        statuses.append(subprocess.run(command, timeout=20).returncode)
    assert statuses[:2] == [1, 1] and statuses[2] == 0
    gone = [part.replace(str(port), "1") for part in command]  # nobody listens
    assert subprocess.run(gone, timeout=20, stderr=subprocess.DEVNULL).returncode == 1


def models_of(folder):
    text = documents(folder)[0]["data"]["models.config"]
    parsed = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return {config.name: config for config in parsed.model_config_list.config}


def test_versions_labels_and_buckets(tmp_path):
    out = tmp_path / "out"
    labels = ["--label", "lenet5_mnist:stable=1", "--label", "lenet5_mnist:canary=3"]
    more = ["--latest", "2", "--no-batching", "--image", "mine/serving:1"]
    models = [*NAMES, "gs://bucket/models/far/"]
    with pytest.warns(UserWarning, match=r"here, and \[1, 3\] got a label"):
        assert main(["manifests", *models, *labels, *more, "--to", str(out)]) == 0
    found = models_of(out)
    assert dict(found["lenet5_mnist"].version_labels) == {"stable": 1, "canary": 3}
    assert [*found["lenet5_mnist"].model_version_policy.specific.versions] == [1, 3]
    assert found["siamese_omniglot"].model_version_policy.latest.num_versions == 2
    assert found["far"].base_path == "gs://bucket/models/far"
    deployment = documents(out)[2]
    kubernetes_validate.validate(deployment, "1.29", strict=True)
    pod = deployment["spec"]["template"]["spec"]
    [server] = pod["containers"]
    assert "--allow_version_labels_for_unavailable_models" in server["args"]
    assert not [flag for flag in server["args"] if "batching" in flag]
    assert "nodeSelector" not in pod and server["image"] == "mine/serving:1"
    assert server["readinessProbe"]["exec"]["command"][-1] == "/v1/models/far/metadata"
    [service] = yaml.safe_load((out / "compose.yaml").read_text())["services"].values()
    assert [volume["target"] for volume in service["volumes"]] == [
        "/config", "/models/lenet5_mnist", "/models/siamese_omniglot",
    ]  # fmt: skip
    assert compose_errors(out / "compose.yaml") == ""


def test_by_default_one_version_on_machines_that_the_image_is_for(folder):
    for config in models_of(folder).values():
        assert not config.HasField("model_version_policy") and not config.version_labels
    pod = documents(folder)[2]["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
    args = pod["containers"][0]["args"]
    assert "--model_config_file_poll_wait_seconds=60" in args and "--enable_batching" in args
    assert not [flag for flag in args if "labels" in flag]
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert kustomization["kind"] == "Kustomization"
    assert [(folder / name).is_file() for name in kustomization["resources"]] == [True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": {"other": {"stable": 1}}}, "labels of these models.*'other'"),
        ({"latest": 0}, "latest=0"),
        ({"models": []}, r"one model or more.* Received: \[\]"),
        ({"models": None}, "`models` must be a list of names. Received: models=None"),
        ({"models": 3}, "`models` must be a list of names. Received: models=3 .of type int"),
        ({"models": [3]}, "is a path, as str or pathlib.Path. Received: 3"),
        ({"models": "nope"}, "no preset, and no file or folder, named 'nope'"),
        ({"models": ["lenet5_mnist", "gs://b/lenet5_mnist"]}, "names of their own"),
    ],
)
def test_refused(tmp_path, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        write_manifests(**{"models": NAMES, "folder": tmp_path / "out", **arguments})
    assert not (tmp_path / "out").exists()


def test_a_label_of_another_form(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["manifests", "lenet5_mnist", "--label", "stable=1"])
    assert "expected NAME:LABEL=VERSION, received 'stable=1'" in capsys.readouterr().err


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


def test_batching_parameters_of_ones_own(tmp_path, capsys):
    own, out = tmp_path / "own.config", tmp_path / "out"
    own.write_text("max_batch_size { value: 8 }\nallowed_batch_sizes: [4, 8]\n")
    given = ["--batching-parameters-file", str(own), "--per-model-batching"]
    assert main(["manifests", *NAMES, *given, "--to", str(out)]) == 0
    assert (out / "batching.config").read_text() == own.read_text()
    assert documents(out)[0]["data"]["batching.config"] == own.read_text()
    [server] = documents(out)[2]["spec"]["template"]["spec"]["containers"]
    together = {"--enable_batching", "--enable_per_model_batching_parameters"}
    assert together < {*server["args"]}
    for odd in (
        "  max_batch_size { value: 8 }\n",
        "# a\fpage\n",
        "\n\tmax_batch_size { value: 8 }",
    ):
        own.write_text(odd)
        assert main(["manifests", *NAMES, *given, "--to", str(out)]) == 0
        assert documents(out)[0]["data"]["batching.config"] == odd
    own.write_text("max_batch_size: 8")
    assert main(["manifests", *NAMES, *given, "--to", str(out)]) == 1
    assert f"{own} holds no batching parameters" in capsys.readouterr().err


def test_one_model_by_its_name(tmp_path):
    write_manifests("lenet5_mnist", tmp_path)
    assert [*models_of(tmp_path)] == ["lenet5_mnist"]
