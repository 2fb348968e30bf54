import pathlib
import re

import pytest

from keras_shared.card import TABLE_BEGINS, TABLE_ENDS, readme_table

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_table_is_generated_from_the_metrics():
    table = README.partition(TABLE_BEGINS)[2].partition(TABLE_ENDS)[0]
    assert table.strip() == readme_table(ROOT / "zoo")


@pytest.mark.parametrize("code", PYTHON, ids=["share", "tie", "zoo"])
def test_python_works_as_typed(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_each_dependency_has_its_reason_and_bounds():
    setup = (ROOT / "setup.cfg").read_text()
    wanted = setup.partition("install_requires =")[2].partition("[options.entry_points]")[0]
    rows = re.findall(r"^    ([\w.-]+) (.*)$", wanted, re.MULTILINE)
    reasons = (ROOT / "CONTRIBUTING.md").read_text().partition("## Dependencies")[2]
    assert len(rows) > 10
    for name, bounds in rows:
        assert re.search(rf"\b{re.escape(name)}\b", reasons), name
        assert re.fullmatch(r">=[\d.]+,<[\d.]+", bounds), (name, bounds)
