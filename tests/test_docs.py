"""The pages in docs/ that hold Python are run as they stand."""

import doctest
import pathlib
import runpy

import pytest

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = [page for page in sorted(DOCS.glob("*.md")) if ">>> " in page.read_text()]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_true(page):
    failed, tried = doctest.testfile(
        str(page), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE
    )
    assert tried > 5 and not failed


@pytest.mark.slow
def test_strings_of_digits_are_read_by_a_net_of_single_digits(data_dir, tmp_path, capsys):
    page = runpy.run_path(str(DOCS / "fully_convolutional.py"))
    page["main"](tmp_path / "strings.png")
    written = capsys.readouterr().out
    assert "written [2, 0, 4, 8, 7] read [2, 0, 4, 8, 7]" in written
    assert "moved by 4 of 4 pixels, scores differ by up to 0\n" in written
    assert (tmp_path / "strings.png").read_bytes()[:4] == b"\x89PNG"
