"""Builds these pages and opens them: `python docs/build.py`; with `--no-open` it only builds them.

Warnings are errors. Code cells are executed, examples (`>>>`) give what the pages say, and every
link within the pages is followed.
"""

import html.parser
import multiprocessing
import os
import pathlib
import subprocess
import sys
import webbrowser
from urllib.parse import unquote, urlsplit

from sphinx.cmd.build import build_main

DOCS = pathlib.Path(__file__).parent
HTML = DOCS / "_build" / "html"


class Page(html.parser.HTMLParser):
    """The places that can be linked to in a page, and what it links to."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.path, self.places, self.links = path, set(), set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.places.add(value)
            elif name in ("href", "src") and value:
                self.links.add(value)


def broken_links(folder: pathlib.Path) -> list[str]:
    """Each link from a page in `folder` to a file or place that is not there."""
    pages = {path.resolve(): Page(path) for path in folder.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            places = pages[target].places if target in pages else {unquote(parts.fragment)}
            if not target.exists() or (parts.fragment and unquote(parts.fragment) not in places):
                broken.append(f"{path.relative_to(folder.resolve())}: {link}")
    return broken


def examples_fail() -> int:
    """Whether an example of a page does not give what it says; doctest prints where."""
    pages = [
        page for page in DOCS.rglob("*.md") if HTML.parent not in page.parents
        and ">>> " in page.read_text()
    ]  # fmt: skip
    with_ours = {**os.environ, "PYTHONPATH": str(DOCS.parent), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "doctest", "-o", "NORMALIZE_WHITESPACE", *pages]
    return subprocess.run(command, env=with_ours, check=False).returncode


def main(*arguments: str) -> int:
    jobs = str(min(2, os.cpu_count() or 1))
    failed = build_main(
        [
            "-W",
            "--keep-going",
            "-q",
            "-j",
            jobs,
            "-d",
            str(DOCS / "_build" / "read"),
            str(DOCS),
            str(HTML),
        ]
    )
    for child in multiprocessing.active_children():  # after an error, one would be waited for
        child.terminate()
    for link in [] if failed else broken_links(HTML):
        print(f"broken link: {link}", file=sys.stderr)
        failed = 1
    failed = failed or examples_fail()
    if not failed:
        print(f"written: {HTML / 'index.html'}")
        if "--no-open" not in arguments:
            webbrowser.open((HTML / "index.html").as_uri())
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
