"""Zip archives and HDF5 files from outside, looked through before what they declare is read."""

import copy
import io
import math
import os
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, BinaryIO

from keras_shared.errors import KerasSharedError
from keras_shared.files.bounded import regular_file
from keras_shared.files.limits import MOST_DIRECTORY, MOST_INFLATION
from keras_shared.files.paths import as_path

if TYPE_CHECKING:
    import h5py

ALWAYS = 100_000_000  # bytes that any file may declare
AT_ONCE = 1_000_000  # bytes of a part that is checked and not kept
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others have no bound in Python's zipfile


@contextmanager
def open_archive(
    path: str | os.PathLike[str], error: type[KerasSharedError] = KerasSharedError
) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive whose parts are plain files of plausible sizes, each once.

    Args:
        path: a `.keras` or `.npz` file.
        error: the class of the error.

    Raises:
        KerasSharedError: of class `error`, if it is no regular file, or if its list of parts is
            none that Keras or NumPy write.
        Exception: whatever Python's zipfile raises for one that is damaged, or none.
    """
    as_path(path, "path")
    name = os.fspath(path)
    with regular_file(path, error) as (file, size):
        if not size:
            raise error(f"{name} is empty, and a zip archive is expected.")
        with zipfile.ZipFile(_Directory(file)) as checked:
            infos = checked.infolist()
        _refuse_parts(name, infos, error)
        refuse_inflation(name, sum(info.file_size for info in infos), size, error)
        with zipfile.ZipFile(file) as archive:
            yield archive


def read_part(archive: zipfile.ZipFile, part: str) -> bytes:
    """The bytes of a part, no more than it declares; Python alone inflates all, then cuts.

    Args:
        archive: as of `open_archive`.
        part: its name.

    Raises:
        zipfile.BadZipFile: if the part has more or fewer bytes, or others than were written.
        KeyError: if there is no such part.
    """
    return b"".join(_chunks(archive, part, sys.maxsize))


def check_parts(archive: zipfile.ZipFile) -> None:
    """See that each part has the bytes that it declares, for readers that do not look.

    Args:
        archive: as of `open_archive`.

    Raises:
        zipfile.BadZipFile: as of `read_part`.
    """
    for part in archive.namelist():
        for _ in _chunks(archive, part, AT_ONCE):
            pass


def _chunks(archive: zipfile.ZipFile, part: str, at_once: int) -> Iterator[bytes]:
    info = copy.copy(archive.getinfo(part))
    declared = left = info.file_size
    info.file_size += AT_ONCE  # Python takes it for the end, and reads ahead of what is asked for
    with archive.open(info) as file:
        while left >= 0 and (chunk := file.read(min(at_once, left + 1))):
            left -= len(chunk)
            yield chunk
    if left:
        said = "more" if left < 0 else f"{declared - left:,}"
        raise zipfile.BadZipFile(f"its part '{part}' declares {declared:,} bytes and holds {said}")


class _Directory:
    """A file of which no more than the list of an archive's parts is read at once."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self._read = file.seek, file.tell, file.read

    def read(self, size: int = MOST_DIRECTORY) -> bytes:
        if size > MOST_DIRECTORY:
            raise ValueError(f"its list of parts has {size:,} bytes, and {MOST_DIRECTORY:,} may be")
        return self._read(size)


def _refuse_parts(name: str, infos: list[zipfile.ZipInfo], error: type[KerasSharedError]) -> None:
    seen: set[str] = set()
    for info in infos:
        part = info.filename
        wrong = {
            "is there twice": part in seen,
            "is encrypted": bool(info.flag_bits & 1),
            "leads out of the archive": part.startswith("/") or ".." in part.split("/"),
            "is packed in a way that Keras and NumPy do not use": info.compress_type not in METHODS,
            "is a link": info.external_attr >> 28 == 0o12,
        }
        seen.add(part)
        for said, so in wrong.items():
            if so:
                raise error(f"{name} is refused: its part '{part}' {said}.")


def refuse_inflation(
    name: str, declared: int, size: int, error: type[KerasSharedError] = KerasSharedError
) -> None:
    """Refuse a file that declares far more bytes than it has.

    Args:
        name: of the file.
        declared: bytes of its content, as it says.
        size: bytes of the file.
        error: the class of the error.

    Raises:
        KerasSharedError: of class `error`.
    """
    if declared > max(ALWAYS, MOST_INFLATION * size):
        raise error(
            f"{name} is refused: it has {size:,} bytes and declares {declared:,}, more than "
            f"{MOST_INFLATION} times as many. If it is your own, save it without compression."
        )


def open_hdf5(
    path: str | os.PathLike[str],
    error: type[KerasSharedError] = KerasSharedError,
    content: bytes | None = None,
) -> "h5py.File":
    """Open an HDF5 file whose numbers are all inside of it, and no more than it can hold.

    Args:
        path: the file.
        error: the class of the error.
        content: its bytes, where it is part of another file, which `path` then names.

    Returns:
        The file, to be closed.

    Raises:
        KerasSharedError: of class `error`, if it is no regular file, refers to other files, or
            declares far more numbers than it has bytes.
        Exception: whatever h5py raises for one that is damaged, or none.
    """
    import h5py

    as_path(path, "path")
    name = os.fspath(path)
    with regular_file(path, error) as (_, size), ExitStack() as stack:
        given = io.BytesIO(content) if content is not None else path
        file = stack.enter_context(h5py.File(given, "r"))
        declared = _declared(name, file, error)
        refuse_inflation(name, declared, len(content) if content is not None else size, error)
        stack.pop_all()
        return file


def _declared(name: str, file: "h5py.File", error: type[KerasSharedError]) -> int:
    """The bytes of all numbers in an HDF5 file, each of which has to lie in it."""
    import h5py

    total, datasets = 0, []

    def visit(place: str, link: object) -> str | None:
        nonlocal total
        if not isinstance(link, h5py.HardLink):
            return f"'{place}' in it is a link elsewhere"  # h5py swallows exceptions
        part = file[place]
        if isinstance(part, h5py.Dataset):
            if part.external or part.is_virtual:
                return f"'{place}' in it lies in another file"
            if part.dtype.hasobject:  # each may be as long as it says
                return f"'{place}' in it holds {part.dtype}, and numbers are expected"
            kept = max(math.prod(part.shape or ()), math.prod(part.chunks or ()))  # a chunk whole
            total += kept * part.dtype.itemsize
            datasets.append(part)
        return None

    wrong = file.visititems_links(visit)
    if wrong:
        raise error(f"{name} is refused: {wrong}.")
    for dataset in datasets:
        if dataset.chunks and not _chunks_fit(dataset):
            raise error(
                f"{name} is refused: '{dataset.name}' in it is packed in a way that "
                "Keras does not use. If it is your own, save it without compression."
            )
    return total


def _chunks_fit(dataset: "h5py.Dataset") -> bool:
    """Whether each chunk has the bytes that it should; HDF5 inflates however many there are."""
    from h5py import h5z

    made = dataset.id.get_create_plist()
    filters = [made.get_filter(number)[0] for number in range(made.get_nfilters())]
    same_size = (h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32)
    packings = [number for number in filters if number not in same_size]
    if not packings:
        return True
    if packings != [h5z.FILTER_DEFLATE]:
        return False
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    for number in range(dataset.id.get_num_chunks()):
        skipped, chunk = dataset.id.read_direct_chunk(
            dataset.id.get_chunk_info(number).chunk_offset
        )
        inflate = zlib.decompressobj()
        if not skipped and len(inflate.decompress(chunk, size + 1)) > size:
            return False
    return True
