import os
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to; flushed, what was written takes its place if all went well.

    A link is followed; a pipe or a terminal is written to as it is.

    Args:
        path: the file to write; what it held stays until the new content is complete.

    Raises:
        OSError: if its folder is missing or cannot be written; nothing is left behind then.

    Example:
        >>> import pathlib
        >>> import tempfile
        >>> from keras_shared.atomic import replacing
        >>> path = pathlib.Path(tempfile.mkdtemp(), "facts.json")
        >>> with replacing(path) as scratch:
        ...     _ = scratch.write_text("{}")
        >>> path.read_text()
        '{}'
    """
    path = pathlib.Path(path).resolve()
    if path.exists() and not path.is_file():
        yield path
        return
    scratch = path.with_name(f".new-{path.name}")
    try:
        yield scratch
        flush(scratch)
        scratch.replace(path)
        flush(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def flush(path: pathlib.Path) -> None:
    """Have a file's content, or a folder's list of files, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text beside `path`, as UTF-8, and put it in its place."""
    with replacing(path) as scratch:
        scratch.write_text(text, "utf-8")


def save_plots(plots: Mapping[str, "Figure"], out_dir: pathlib.Path) -> None:
    """Write each plot to <name>.png in a folder."""
    for name, figure in plots.items():
        with replacing(out_dir / f"{name}.png") as scratch:
            figure.savefig(scratch, dpi=120, metadata={"Software": None})
