"""Where the zoo's entries and the published models lie: installed, or in a checkout."""

import difflib
import os
import pathlib


def _root() -> pathlib.Path:
    package = pathlib.Path(__file__).resolve().parent
    installed = package / "_data"
    return installed if installed.is_dir() else package.parent


def entry_names() -> list[str]:
    """The names of all entries of the zoo, in alphabetical order."""
    return sorted(path.parent.name for path in (_root() / "zoo").glob("*/recipe.toml"))


def entry_dir(name: str) -> pathlib.Path:
    """The folder with recipe, metrics and card of an entry.

    Raises:
        ValueError: for an unknown name; the message holds the nearest ones.
    """
    return _root() / "zoo" / _known(name)


def saved_model_dir(name: str) -> pathlib.Path:
    """The folder with the published versions of an entry.

    Raises:
        ValueError: for an unknown name; the message holds the nearest ones.
    """
    return _root() / "saved_models" / _known(name)


def version_numbers(base_dir: str | os.PathLike[str]) -> list[int]:
    """The numbers of the versions in a folder, as TF Serving sees them, in ascending order."""
    base_dir = pathlib.Path(base_dir)
    if not base_dir.is_dir():
        return []
    return sorted(int(p.name) for p in base_dir.iterdir() if p.name.isdecimal() and p.is_dir())


def _known(name: str) -> str:
    names = entry_names()
    if name in names:
        return name
    nearest = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(map(repr, nearest))}?" if nearest else f"There are: {names}."
    raise ValueError(f"There is no published model, and no file or folder, named '{name}'. {hint}")
