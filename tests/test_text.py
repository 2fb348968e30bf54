"""Names from outside stay text: in the terminal, in Markdown, in pictures."""

import io
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from mutations import fuzzed
from rich.cells import cell_len
from rich.console import Console

from keras_shared.cli.compare import _as_rich
from keras_shared.evaluation.comparison_lines import NarrowTable
from keras_shared.serving.manifests import _compose, quoted
from keras_shared.sharing.picture import picture
from keras_shared.sharing.report import Reading, SharingReport, Weight
from keras_shared.sharing.table import as_text, print_report
from keras_shared.terminal import TextTable, console, progress, say
from keras_shared.text import code, markdown, one_line, plot_label

BAD = (
    "x[red]", "q[/b]", "[link=http://a.b]c[/link]", ":smile:", "a\x1b[31mb", "\x9b2J", "\r", "a\nb",
    "a\tb", "\u202eabc", "\ud800", "$x^$", "$", r"\$", "_a", "a|b", "`a`", "<img src=x>", "&lt;",
    "[a](javascript:x)", "![](x)", "\\", "a\\", "日本語", "e\u0301", "", " ", "[", "[[",
    "[@click=x]y",
)  # fmt: skip
SIGNS = st.text("[]/\\$|`<>&\x1b\x9b\r\n\t", max_size=12)
NAMES = st.sampled_from(BAD) | st.text(max_size=30) | SIGNS


def drawn(*tables, width=80, **options):
    """The bytes that a terminal with colours gets, without the colours that are ours."""
    file = io.StringIO()
    screen = Console(width=width, file=file, force_terminal=True, **options)
    for table in tables:
        screen.print(table)
    return re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())


def reported(model, weight, readers, warnings=()):
    held = Weight(weight, "a", (2, 3), "float32", 24, True, "", readers, 2, 12)
    return SharingReport(model, (held,), {"parameters": 6}, {}, warnings)


def packed(text):
    return "".join(text.split())


def harmless(text):
    return all(c.isprintable() or c == "\n" for c in text)


@fuzzed
@given(st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=4), NAMES, st.booleans())
def test_tables_show_names_and_keep_their_width(rows, title, markup):
    table = TextTable("name", title, title=title)
    for row in rows:
        table.add_row(row[0], list(row))
    text = drawn(table, width=400, markup=markup)
    assert harmless(text)
    lines = [line for line in text.split("\n") if line[:1] in "┏┃┡│└├" and line]
    assert len({cell_len(line) for line in lines}) == 1
    for row in rows:
        assert one_line(row[0]).strip() in text and one_line(row[1]).strip() in text


@fuzzed
@given(NAMES, NAMES, NAMES)
def test_reports_and_comparisons_show_names(model, weight, reader):
    report = reported(model, weight, {reader: Reading("as is", 2)}, (reader,))
    file = io.StringIO()
    print_report(report, Console(file=file, width=300))
    assert harmless(file.getvalue())
    for name in (model, weight, reader):  # titles are wrapped
        assert packed(one_line(name)) in packed(file.getvalue())
    compared = _as_rich(NarrowTable(model, ["arm", "verdict"], [[weight, reader]]))
    assert harmless(drawn(compared))
    assert harmless(as_text([(model, [(weight, reader)])]))


@fuzzed
@given(NAMES)
def test_lines(name):
    file = io.StringIO()
    say(name, file)
    console(file=file, width=200).print(one_line(name))
    assert harmless(file.getvalue().replace("\t", ""))
    file.getvalue().encode("utf-8")


@pytest.mark.parametrize("width", [40, 80])
def test_tables_lose_nothing_of_a_long_name(width):
    """The end of a path tells which of several files it is."""
    names = [f"/{'folder' * 20}/{number}.png" for number in range(3)]
    table = TextTable("file", "answer", "known names")
    for name in names:
        table.add_row(name, "unknown", "anna 99.8 %")
    shown = drawn(table, width=width)
    column = "".join(line.split("│")[1].strip() for line in shown.splitlines() if "│" in line)
    assert column == "".join(names)
    assert shown.count("unknown") == 3


@pytest.mark.parametrize("name", BAD)
def test_progress_shows_names(name, capsys):
    assert list(progress([1, 2], f"begins {name} ends")) == [1, 2]
    printed = capsys.readouterr().out
    assert f"begins {one_line(name)} ends" in printed and harmless(printed)


@fuzzed
@given(NAMES)
def test_markdown_is_text(name):
    cell = markdown(name)
    assert not set(cell) & set("|`<\\\n") and harmless(cell)
    assert not re.search(r"\][(\[:]", cell)
    assert not set(code(name)[1:-1].removeprefix("code>").removesuffix("</code")) & set("|`\n")


def test_markdown_by_a_parser_of_it():
    markdown_it = pytest.importorskip("markdown_it")
    parser = markdown_it.MarkdownIt("commonmark").enable("table")
    for name in BAD:
        page = parser.render(f"| a | b |\n|---|---|\n| {markdown(name)} | {code(name)} |\n")
        assert page.count("<td>") == 2
        assert not {"<img", "<a "} & set(re.findall(r"<\w+ ?", page))


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", BAD)
def test_pictures_show_names(name, tmp_path):
    reading = {name: Reading("as is", 2), "other": Reading("transposed", 1)}
    picture(reported(name, name, reading)).savefig(tmp_path / "a.svg")
    axes = Figure().subplots()
    [line] = axes.plot([1, 2], label=plot_label(name))
    if name:
        assert axes.get_legend_handles_labels()[0] == [line]


@fuzzed
@given(st.text(max_size=30))
def test_yaml_holds_any_text(text):
    import yaml

    assert yaml.safe_load(f"{{a: {quoted(text)}}}") == {"a": text}
    assert yaml.safe_load(_compose(text)).replace("$$", "$") == text


def test_lines_of_many_threads_stay_apart():
    program = """if True:
        import concurrent.futures
        from keras_shared.text import log_line
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(log_line, ["x" * 60] * 4000))"""
    done = subprocess.run([sys.executable, "-u", "-c", program], stderr=subprocess.PIPE, text=True)
    assert done.stderr.split("\n") == ["x" * 60] * 4000 + [""]
