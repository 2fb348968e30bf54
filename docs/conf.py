"""How Sphinx builds these pages; `python docs/build.py` does it."""

import os
import pathlib
import re
import sys
from typing import Any

from sphinx.util import inspect

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
# for the kernels that execute the pages, too
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "docs")])
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras_shared  # noqa: E402
from keras_shared.evaluation.readme_table import readme_table  # noqa: E402

project = "keras_shared"
copyright = "the authors of keras_shared, Apache License 2.0"
version = release = keras_shared.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_templates", "gallery"]
html_theme = "furo"
html_title = f"keras_shared {release}"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
os.environ["STUDIES"] = str(ROOT / "studies")  # where pages read what was measured
nb_execution_mode = "cache"  # a page is executed again when its code has changed
nb_execution_cache_path = str(ROOT / "docs" / "_build" / "executed")
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_output_stderr = "remove"
nb_merge_streams = True

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "generated/gallery",  # a program there that is unchanged is not executed again
    "parallel": 2,  # in processes of their own, so that this one can fork when it has read them
    "capture_repr": (),
    "min_reported_time": 60,
    "notebook_extensions": set(),  # MyST-NB would read the notebooks, too
    "write_computation_times": False,
    "show_signature": False,
}

autodoc_default_options = {"members": False, "show-inheritance": False}
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Call", "Input shape", "Output shape"]
autosummary_generate = True
autosummary_generate_overwrite = True


def write_generated(app: object) -> None:
    """The zoo's table, and a page for each card of the zoo and of the studies."""
    generated = ROOT / "docs" / "generated"
    generated.mkdir(exist_ok=True)
    table = readme_table(ROOT / "zoo")
    cards = table.replace("(zoo/", "(generated/zoo_").replace("/README.md)", ".md)")
    pages = {"zoo_table.txt": f"{cards}\n"}
    for kind in ("zoo", "studies"):
        for card in sorted((ROOT / kind).glob("*/README.md")):
            pages[f"{kind}_{card.parent.name}.md"] = (
                f"```{{include}} ../../{kind}/{card.parent.name}/README.md\n"
                ":relative-images:\n:relative-docs: recipe\n```\n"
            )
    for name, text in pages.items():
        page = generated / name
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def as_code(
    app: object, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Docstrings are written with single backquotes, where Sphinx' markup takes two."""
    text = re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", "\n".join(lines))
    lines[:] = text.split("\n")


def of_init(
    app: object, what: str, name: str, obj: Any, options: object, signature: str, returns: object
) -> tuple[str, object] | None:
    """The arguments of a class: Keras' `Layer.__new__` hides those of `__init__`."""
    if what != "class" or signature != "(*args, **kwargs)":
        return None
    arguments = inspect.signature(obj.__init__, bound_method=True)
    return inspect.stringify_signature(arguments, show_annotation=False), returns


def setup(app: object) -> None:
    app.connect("autodoc-process-signature", of_init)
    app.connect("autodoc-process-docstring", as_code, priority=100)  # before napoleon
    app.connect("config-inited", lambda app, config: write_generated(app))
