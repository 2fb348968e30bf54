"""The Job that trains on several machines: Kubernetes takes it, and it starts each worker."""

import json
import pathlib
import re
import subprocess

import kubernetes_validate
import pytest
import yaml

from keras_shared.cli import main
from keras_shared.cli.command_line import _parser
from keras_shared.presets.names import entry_dir
from keras_shared.serving import ManifestError, write_training_job

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "how_to" / "several_machines.md"
RECIPE = entry_dir("lenet5_mnist") / "recipe.toml"


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


@pytest.fixture(params=[2, 3])
def written(request, tmp_path):
    text = RECIPE.read_text()
    path = write_training_job("lenet5_mnist", text, tmp_path, "a/b:1", workers=request.param)
    return request.param, documents(path)


@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_the_manifest_keeps_the_schemas_of_kubernetes(written, version):
    for document in written[1]:
        kubernetes_validate.validate(document, version, strict=True)
    job = written[1][3]
    job["spec"]["completionsMode"] = "Indexed"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, version, strict=True)


def test_each_pod_finds_the_others(written):
    workers, (_, _, service, job) = written
    spec = job["spec"]
    pod, labels = spec["template"]["spec"], spec["template"]["metadata"]["labels"]
    [worker] = pod["containers"]
    assert service["spec"]["selector"] == labels and worker["image"] == "a/b:1"
    assert service["metadata"]["name"] == pod["subdomain"] == job["metadata"]["name"]
    given = {one["name"]: one["value"] for one in worker["env"]}
    assert spec["completions"] == spec["parallelism"] == int(given["WORKERS"]) == workers
    [port] = worker["ports"]
    names = [f"lenet5-mnist-{i}.lenet5-mnist:{port['containerPort']}" for i in range(workers)]
    for index in range(workers):
        environment = {"PATH": "/usr/bin:/bin", **given, "JOB_COMPLETION_INDEX": str(index)}
        done = subprocess.run(
            [*worker["command"], "printenv", "TF_CONFIG"], env=environment, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout) == {
            "cluster": {"worker": names}, "task": {"type": "worker", "index": index},
        }  # fmt: skip


def test_each_pod_finds_what_it_reads_and_writes(written):
    config, claim, _, job = written[1]
    pod = job["spec"]["template"]["spec"]
    [worker] = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in worker["volumeMounts"]}
    assert mounts["/recipe"]["configMap"]["name"] == config["metadata"]["name"]
    claimed = mounts["/runs"]["persistentVolumeClaim"]["claimName"]
    assert claimed == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert config["data"] == {"recipe.toml": RECIPE.read_text()}
    assert worker["args"][0] == "keras-shared"
    options = _parser().parse_args(worker["args"][1:])
    assert options.strategy == "multi-worker" and options.out == "/runs/lenet5_mnist"
    assert options.recipe == "/recipe/recipe.toml"


@pytest.mark.parametrize(
    "text", ["  a = 1\n\n\tb\n   \n\n", "a: {b}\r\nc", "# \u2028\ufeff ${x}\n"]
)
def test_any_text_of_a_recipe_is_kept(tmp_path, text):
    config = documents(write_training_job("mine", text, tmp_path, "a"))[0]
    assert config["data"]["recipe.toml"].rstrip("\n") == text.rstrip("\n")


def test_the_command_of_the_page_writes_it_beside_what_serves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [typed] = re.findall(r"^keras-shared (manifests .*)$", PAGE.read_text(), re.MULTILINE)
    assert main(typed.split()) == 0
    assert main(["manifests", "lenet5_mnist", "--to", "deploy"]) == 0
    job = documents(tmp_path / "deploy" / "train.yaml")[-1]
    assert (job["kind"], job["spec"]["completions"]) == ("Job", 4)
    assert f"job/{job['metadata']['name']}\n" in PAGE.read_text()
    kustomization = yaml.safe_load((tmp_path / "deploy" / "kustomization.yaml").read_text())
    assert kustomization["resources"] == ["kubernetes.yaml"]
    served = documents(tmp_path / "deploy" / "kubernetes.yaml")
    trained = documents(tmp_path / "deploy" / "train.yaml")
    names = [(one["kind"], one["metadata"]["name"]) for one in served + trained]
    assert len({*names}) == len(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 1}, "two workers or more.*Received: 1"),
        ({"workers": -3}, "two workers or more.*Received: -3"),
        ({"image": ""}, "image with keras_shared"),
        ({"name": "größe"}, "letters from a to z.*Received: 'größe'"),
        ({"name": "_mine"}, "letters from a to z.*Received: '_mine'"),
        ({"name": "a" * 61, "workers": 11}, "by 63 characters at most"),
    ],
)
def test_refused(tmp_path, arguments, message):
    given = {"name": "mine", "recipe": "", "folder": tmp_path / "out", "image": "a", **arguments}
    with pytest.raises(ManifestError, match=message):
        write_training_job(**given)
    assert not (tmp_path / "out").exists()
    write_training_job("a" * 61, "", tmp_path, "a", workers=10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--train lenet5 --image a", "Did you mean 'lenet5_mnist'"),
        ("--train lenet5_mnist", "--train takes --image"),
        ("--train lenet5_mnist --image a --latest 2", "neither models nor options of serving"),
        ("--train lenet5_mnist --image a --workers 3", "multiple of the number of workers, 3"),
        ("--train siamese_omniglot --image a", "NPairLoss compares the examples of a batch"),
        ("--train none.toml --image a", "none.toml"),
        ("lenet5_mnist --workers 2", "--workers with --train alone"),
        ("", "Expected models to serve, or --train"),
    ],
)
def test_refused_by_the_command(tmp_path, capsys, arguments, message):
    code = 2 if "--" in message or "options of" in message else 1  # of a call wrong by itself
    assert main(["manifests", *arguments.split(), "--to", str(tmp_path / "out")]) == code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_worker_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["manifests", "--train", "lenet5_mnist", "--image", "a", "--workers", "1"])
    assert "a whole number from 2 to 10000. Received: '1'" in capsys.readouterr().err
