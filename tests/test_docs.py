"""The pages in docs/ that hold Python are run as they stand.

Code cells and examples (`>>>`) are run by the build, those of tutorials/serve.md by
tests/serving/test_alone.py besides; what is marked "py" is code of other libraries.
"""

import pathlib
import re
import runpy
import sys

import numpy as np
import pytest

import keras_shared

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if not {"_build", "generated"} & {*page.parts})
PYTHON = [
    page for page in PAGES if "```python\n" in page.read_text() and ">>> " not in page.read_text()
]


@pytest.mark.slow
def test_strings_of_digits_are_read_by_a_net_of_single_digits(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    page = runpy.run_path(str(DOCS / "gallery" / "plot_strings_of_digits.py"))
    assert page["read"].shape == (59, 10) and (page["read"] == page["written"]).mean() > 0.9
    gaps = page["gaps"]
    assert gaps[4] < 1e-4 and min(gaps[1], gaps[2], gaps[3]) > 1


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_the_python_of_a_page_works_as_typed(page, tmp_path, monkeypatch, request):
    """Its blocks one after the other, as a reader types them."""
    text = page.read_text()
    if "fashion_mnist" in text:
        request.getfixturevalue("data_dir")
    monkeypatch.chdir(tmp_path)
    typed = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, page.name, "exec"), typed)


def test_every_page_is_in_the_index_and_links_lead_somewhere():
    listed = {*re.findall(r"^([\w/]+)$", (DOCS / "index.md").read_text(), re.MULTILINE)}
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in PAGES}
    assert pages - {"index"} == listed - {"generated/gallery/index"}  # by the build
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text()):
            made = "generated" in target  # by the build, of the cards
            assert made or (page.parent / target).exists(), (page.name, target)


def test_the_reference_lists_all_that_is_public():
    """Each `X as X` of a package, under its name or as one of `keras_shared` itself."""
    listed, package = {}, ""
    for line in (DOCS / "api.md").read_text().splitlines():
        if line.startswith(".. currentmodule:: "):
            package = line.rpartition(" ")[2]
        elif re.fullmatch(r"   \w+", line):
            listed.setdefault(package, set()).add(line.strip())
    assert listed["keras_shared"] == {*keras_shared.__all__}
    for file in (DOCS.parent / "keras_shared").glob("*/__init__.py"):
        package = f"keras_shared.{file.parent.name}"
        public = {*re.findall(r"(\w+) as \1\b", file.read_text())} - {"start"}
        if package not in ("keras_shared.cli", "keras_shared.files"):
            assert public - {*keras_shared.__all__} <= listed.get(package, set()), package


def test_broken_links_are_found(tmp_path):
    sphinx = pytest.importorskip("sphinx")
    assert sphinx
    sys.path.insert(0, str(DOCS))
    from build import broken_links

    (tmp_path / "a.html").write_text(
        '<p id="here"><a href="b.html#there">b</a> <a href="#here">a</a> <a href="c.html">c</a>'
        '<a href="https://example.com">out</a><img src="d.png">'
    )
    (tmp_path / "b.html").write_text('<a href="a.html#here">a</a>')
    assert broken_links(tmp_path) == [
        "a.html: b.html#there", "a.html: c.html", "a.html: d.png"
    ]  # fmt: skip


def test_the_update_of_a_twin_net_is_one_sum_of_two_gradients():
    found = runpy.run_path(str(DOCS / "twin_update.py"))["main"]()
    np.testing.assert_allclose(found["total"], found["by_differences"], atol=1e-8)
    np.testing.assert_allclose(found["total"], found["in_keras"], atol=1e-12)
    np.testing.assert_allclose(found["updated"], found["stepped"], atol=1e-12)
    assert np.abs(found["total"]).max() > 0.1  # there is something to compare
    assert found["apart"].min() > 0 and found["uphill"].any()
