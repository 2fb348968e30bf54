"""The page on several machines: its manifest is what Kubernetes takes, and starts each worker."""

import json
import pathlib
import re
import subprocess

import kubernetes_validate
import pytest
import yaml

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "how_to" / "several_machines.md"


@pytest.fixture
def documents():
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return list(yaml.safe_load_all(text))


@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_the_manifest_keeps_the_schemas_of_kubernetes(documents, version):
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_each_pod_finds_the_others(documents):
    service, job = documents
    spec = job["spec"]
    pod, labels = spec["template"]["spec"], spec["template"]["metadata"]["labels"]
    [worker] = pod["containers"]
    assert service["spec"]["selector"] == labels
    assert service["metadata"]["name"] == pod["subdomain"] == job["metadata"]["name"]
    given = {one["name"]: one["value"] for one in worker["env"]}
    assert spec["completions"] == spec["parallelism"] == int(given["WORKERS"])
    environment = {"PATH": "/usr/bin:/bin", **given, "JOB_COMPLETION_INDEX": "1"}
    done = subprocess.run(
        [*worker["command"], "printenv", "TF_CONFIG"], env=environment, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    [port] = worker["ports"]
    names = [f"train-{i}.train:{port['containerPort']}" for i in range(2)]
    assert json.loads(done.stdout) == {
        "cluster": {"worker": names}, "task": {"type": "worker", "index": 1},
    }  # fmt: skip


def test_the_command_is_one_of_ours(documents):
    from keras_shared.cli.command_line import _parser

    [worker] = documents[1]["spec"]["template"]["spec"]["containers"]
    options = _parser().parse_args(worker["args"][1:])
    assert options.strategy == "multi-worker"
