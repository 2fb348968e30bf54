"""The page of the embedded engine: what it loads, and what its script does with the answers."""

import json
import re
import shlex
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, __file__.rpartition("/")[0])
from embedded_server import serving

from keras_shared.serving.embedded.rest import PAGE
from saved_models import write

SCRIPT = re.search(r"<script>(.*)</script>", PAGE.read_text(), re.DOTALL)[1]
# what the script needs of a browser, to be run without one
STUB = """
const sent = [], made = [];
const node = (kind) => ({
  kind, children: [], style: {}, dataset: {}, files: [], checked: false, value: "", handlers: {},
  append(...more) { this.children.push(...more); },
  replaceChildren(...more) { this.children = more; },
  setAttribute() {}, addEventListener(name, call) { this.handlers[name] = call; },
  createTHead() { return this; },
  insertRow() { const row = node("tr"); this.children.push(row); return row; },
  getContext: () => ({ fillRect() {}, beginPath() {}, moveTo() {}, lineTo() {}, stroke() {} }),
  querySelector(name) { return (this.parts ||= {})[name] ||= node(name); },
  toDataURL: () => "data:image/png;base64,AAAA",
});
const known = {};
globalThis.document = {
  createElement(kind) { const one = node(kind); made.push(one); return one; },
  getElementById: (id) => known[id] ||= { ...node(id), content: {
    cloneNode: () => ({ firstElementChild: node("div") }) } },
};
globalThis.location = { origin: "http://localhost:8501" };
const answers = JSON.parse(process.argv[1]);
globalThis.fetch = async (path, options) => {
  sent.push([options.method, path, options.body ?? null]);
  return { ok: true, text: async () => answers[path] };
};
"""
AFTER = """
setTimeout(async () => {
  const button = made.find((one) => one.kind === "button");
  if (button) await button.handlers.click();
  const said = made.find((one) => one.kind === "output");
  const begin = made.findIndex((one) => one.kind === "h3");
  const end = made.findIndex((one) => one.kind === "details");
  const shared = made.slice(begin, end).filter((one) => /^(h3|p|th|td|div)$/.test(one.kind) &&
    one.className !== "wide").map((one) => one.textContent);
  const lines = made.filter((one) => one.kind === "pre").map((one) => one.textContent);
  console.log(JSON.stringify({ sent, lines, shared, said: said && said.textContent,
                               status: known.said.textContent }));
}, 100);
"""
SHARES = {
    "totals": {"parameters": 1048, "parameters_without_sharing": 2080},
    "weights": [
        {"path": "code/<kernel>", "shape": [6, 4], "uses": 3, "readers": {
            "code": {"form": "as is", "times": 1}, "tied": {"form": "transposed", "times": 2}}},
        {"path": "code/bias", "shape": [4], "uses": 1, "readers": {
            "code": {"form": "as is", "times": 1}}},
    ],
}  # fmt: skip


def test_it_is_one_file_that_loads_nothing(tmp_path):
    text = PAGE.read_text()
    assert not re.search(r"(src|href)=|https?://(?!localhost)|@import|innerHTML", text)
    assert '<html lang="en">' in text and 'name="viewport"' in text
    write(tmp_path / "m" / "1", lambda kernel, x: {"y": x @ kernel})
    with serving({"m": tmp_path / "m"}) as server:
        status, content = server.ask("GET", "/")
        assert status == 200 and content == PAGE.read_bytes()
        assert server.ask("GET", "/models") == (200, {"models": ["m"]})
        assert server.ask("GET", "/sharing") == (200, {})
        shares = tmp_path / "m" / "1" / "assets.extra" / "sharing.json"
        shares.parent.mkdir()
        for content, expected in (("{", {}), ('{"note": "a"}', {"m": {"note": "a"}})):
            shares.write_text(content)
            assert server.ask("GET", "/sharing") == (200, expected)


def dtype(name, *sizes):
    dims = [{"size": str(size)} for size in sizes]
    return {"dtype": name, "tensor_shape": {"dim": dims, "unknown_rank": False}}


@pytest.mark.parametrize(
    ("inputs", "outputs", "answer", "said"),
    [
        (["image_bytes"], ["classes", "label", "scores"],
         '{"outputs": {"classes": [["a", "b"]], "label": ["b"], "scores": [[-1.5, NaN]]}}',
         "label: b"),
        (["image_a_bytes", "image_b_bytes"], ["probability"], '{"outputs": [[0.25]]}',
         "not the same (probability 0.25)"),
    ],
)  # fmt: skip
def test_a_picture_is_sent_and_its_answer_is_said(inputs, outputs, answer, said):
    node = shutil.which("node")
    if not node:
        pytest.skip("there is no node to run the page's script with")
    model = "it's <b>"
    signature = {
        "inputs": {key: dtype("DT_STRING", -1) for key in inputs},
        "outputs": {key: dtype("DT_FLOAT", -1, 2) for key in outputs},
    }
    path = "/v1/models/it's%20%3Cb%3E"
    states = {"model_version_status": [{"version": "1", "state": "AVAILABLE"}]}
    told = {"metadata": {"signature_def": {"signature_def": {"s": signature}}}}
    answers = {
        "/models": json.dumps({"models": [model]}), "/sharing": json.dumps({model: SHARES}),
        path: json.dumps(states),
        f"{path}/metadata": json.dumps(told), f"{path}:predict": answer,
    }  # fmt: skip
    program = STUB.replace("const node =", "var node =") + SCRIPT + AFTER
    done = subprocess.run(
        [node, "-e", program, json.dumps(answers)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["status"] == "1 models answer."
    assert found["said"] == said
    method, asked, body = found["sent"][-1]
    assert (method, asked) == ("POST", f"{path}:predict")
    pictures = {key: [{"b64": "AAAA"}] for key in inputs}
    assert json.loads(body) == {"signature_name": "s", "inputs": pictures}
    assert found["shared"] == [
        "What it shares", "1,048 parameters; without sharing 2,080.", "weight", "shape", "read by",
        "code/<kernel>", "6x4", "", "code", "tied (transposed, 2 times)",
    ]  # fmt: skip
    curl, python = found["lines"]
    words = shlex.split(curl)
    assert words[:3] == [
        "curl",
        "-s",
        f"http://localhost:8501{path.replace(chr(39), '%27')}:predict",
    ]
    assert json.loads(words[4])["inputs"].keys() == {*inputs}
    assert f'.predict("{model}", {{"{inputs[0]}": ...' in python
