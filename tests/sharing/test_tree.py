"""The page of what is shared: its text, and what a browser makes of it."""

import dataclasses
import html.parser
import json
import re
import shutil
import subprocess

import keras
import pytest

from keras_shared.cli import main
from keras_shared.layers import TiedDense
from keras_shared.sharing import sharing_report, write_tree

HOSTILE = "</script><img src=x onerror=alert(1)>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# what a user does: point, leave, focus by key, keep, let go
USED = """<script>
const lit = () => [...document.querySelectorAll(".lit")].map((one) => one.firstChild.data.trim());
const button = [...document.querySelectorAll("button")]
  .find((one) => one.textContent.startsWith("encoder/kernel"));
const key = (name) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true }));
const said = () => document.getElementById("said").textContent;
const seen = { layers: document.querySelectorAll("summary").length };
button.dispatchEvent(new Event("mouseenter")); seen.pointed = lit(); seen.said = said();
button.dispatchEvent(new Event("mouseleave")); seen.left = lit();
const first = document.querySelector("summary"); first.focus();
key("ArrowLeft"); seen.closed = first.parentElement.open;
key("ArrowRight"); seen.opened = first.parentElement.open;
key("ArrowDown"); seen.down = document.activeElement.textContent;
document.activeElement.click(); first.focus(); seen.kept = lit();
key("Escape"); seen.escaped = lit();
document.body.replaceChildren(JSON.stringify(seen));
</script>"""


def model():
    inputs = keras.Input((6,))
    encoder = keras.layers.Dense(2, name="encoder")
    return keras.Model(inputs, TiedDense(encoder, name="decoder")(encoder(inputs)), name="twice")


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, {name for name, _ in attrs}))


def test_it_is_one_page_that_loads_nothing(tmp_path):
    report = dataclasses.replace(sharing_report(model()), name=HOSTILE)
    text = write_tree(report, tmp_path / "tree.html").read_text()
    assert not re.search(r"https?:|@import|url\(|innerHTML", text)
    tags = Tags()
    tags.feed(text)
    assert not {"img", "link"} & {tag for tag, _ in tags.found}
    assert not any({"src", "href"} & names for _, names in tags.found)
    shown = json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    readers = {w["path"]: list(w["readers"]) for w in shown["weights"]}
    assert readers["encoder/kernel"] == ["encoder", "decoder"] and shown["name"] == HOSTILE
    assert shown["totals"] == {"parameters": 20, "parameters_without_sharing": 32}
    with pytest.raises(ValueError, match=r"\.html file. Received: .*tree\.htm$"):
        write_tree(report, tmp_path / "tree.htm")


def test_the_command_writes_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model().save("m.keras")
    assert main(["inspect", "m.keras", "--html", "tree.html"]) == 0, capsys.readouterr().err
    assert "twice" in (tmp_path / "tree.html").read_text()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_browser_lights_the_readers_up(tmp_path):
    page = write_tree(sharing_report(model()), tmp_path / "tree.html")
    page.write_text(page.read_text().replace("</body>", f"{USED}</body>"))
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/u",
         "--virtual-time-budget=5000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    seen = json.loads(re.search(r"<body>(\{.*\})", done.stdout)[1])
    assert seen == {
        "layers": 2,
        "pointed": ["encoder", "decoder"],
        "said": "encoder/kernel is read by encoder (as is), decoder (transposed)",
        "left": [],
        "closed": False,
        "opened": True,
        "down": "encoder/kernel  6 x 2  owned here, read 2 times",
        "kept": ["encoder", "decoder"],
        "escaped": [],
    }
