import json
import os
import pathlib
from typing import Any

from keras_shared.files.atomic import replace_text
from keras_shared.files.paths import as_path
from keras_shared.sharing.report import SharingReport
from keras_shared.text import one_line

PAGE = pathlib.Path(__file__).with_name("tree.html")


def write_tree(report: SharingReport, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write what a model shares as one page: point at a weight, and all that read it light up.

    The page is a tree of layers with the weights that each owns or reads. It loads nothing, and is
    used with the keyboard too.

    Args:
        report: see `sharing_report`.
        path: file to write, `.html`.

    Returns:
        The path.

    Raises:
        UsageError: for another suffix.
        FileError: if it cannot be written there.

    Example:
        >>> import tempfile
        >>> from keras_shared.sharing import sharing_report, write_tree
        >>> from keras_shared.zoo import TiedAutoencoder
        >>> report = sharing_report(TiedAutoencoder(units=(4, 2), input_dim=6))
        >>> write_tree(report, tempfile.mkdtemp() + "/sharing.html").name
        'sharing.html'
    """
    path = as_path(path, "path", ".html")
    text = json.dumps(tree_facts(report)).replace("<", "\\u003c")  # no name can end the script
    replace_text(path, PAGE.read_text(encoding="utf-8").replace("REPORT", text, 1))
    return path


def tree_facts(report: SharingReport) -> dict[str, Any]:
    """What the page shows of a report: numbers of parameters, and who reads which weight."""
    facts = report.to_dict()
    return {
        "name": one_line(report.name),
        "totals": {k: v for k, v in facts["totals"].items() if k.startswith("parameters")},
        "weights": [
            {
                "path": one_line(weight["path"]),
                "owner": one_line(weight["owner"]),
                "shape": weight["shape"],
                "uses": weight["uses"],
                "readers": {one_line(name): how for name, how in weight["readers"].items()},
            }
            for weight in facts["weights"]
        ],
    }
