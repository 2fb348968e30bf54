import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to; what was written takes its place if all went well.

    Args:
        path: the file to write; what it held stays until the new content is complete.

    Example:
        >>> import tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "facts.json")
        >>> with replacing(path) as scratch:
        ...     _ = scratch.write_text("{}")
        >>> path.read_text()
        '{}'
    """
    path = pathlib.Path(path)
    scratch = path.with_name(f".new-{path.name}")
    try:
        yield scratch
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
