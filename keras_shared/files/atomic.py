"""Files and folders written beside their place, flushed, renamed: whole after any power cut."""

import ctypes
import errno
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from keras_shared.errors import KerasSharedError, boundary, whole_reason
from keras_shared.files.paths import as_path
from keras_shared.processes import hold, scratch_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RENAME_EXCHANGE = 2  # linux/fs.h
AT_FDCWD = -100  # linux/fcntl.h
QUIET_WAIT = 3.0  # seconds for a lock that nobody needs to be told of
MOST_NAME = 200  # bytes of a name in that of its scratch folder; file systems allow 255
SCRATCH = re.compile(r"\.new-[^/]*-\w{8}/")
OLD = ".old"  # beside the new folder, where the two cannot be exchanged in one step


class FileError(KerasSharedError, OSError):
    """A file cannot be written; what it held is still there."""


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A path beside `path` to write to; flushed, what was written takes its place if all went well.

    A link is followed; a pipe or a terminal is written to as it is. The permissions stay.

    Args:
        path: the file to write; what it held stays until the new content is complete.

    Raises:
        FileError: if its folder is missing or cannot be written; nothing is left behind then.

    Example:
        >>> import pathlib
        >>> import tempfile
        >>> from keras_shared.files.atomic import replacing
        >>> path = pathlib.Path(tempfile.mkdtemp(), "facts.json")
        >>> with replacing(path) as scratch:
        ...     _ = scratch.write_text("{}")
        >>> path.read_text()
        '{}'
    """
    as_path(path, "path")
    name = os.fspath(path)
    path = pathlib.Path(os.path.realpath(path))
    try:
        if path.exists() and not path.is_file():
            yield path
            return
        with _scratch_folder(path) as folder:
            scratch = folder / path.name
            yield scratch
            if path.exists() and _mode(scratch) != _mode(path):
                scratch.chmod(_mode(path))
            flush(scratch)
            scratch.replace(path)
            flush(path.parent)
    except OSError as reason:
        if isinstance(reason, FileError):
            raise
        said = SCRATCH.sub("", reason.strerror or whole_reason(reason)).rstrip(".")
        raise FileError(f"{name} cannot be written: {said}.") from reason


def _mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def replacing_folder(
    path: str | os.PathLike[str], error: type[KerasSharedError] = KerasSharedError
) -> Iterator[pathlib.Path]:
    """A path beside `path` to make a folder at; flushed, it takes its place if all went well.

    The old folder, or the new one, is there at every moment: the two are exchanged in one step.
    Where the system cannot do that, they are renamed one after the other. What killed writers of
    the same folder left behind goes.

    Args:
        path: the folder to replace, which need not be there; a link is followed.
        error: the class of the error.

    Raises:
        KerasSharedError: of class `error`, if something else than a folder is there, if it cannot
            be replaced, or if its parent cannot be written.

    Example:
        >>> import pathlib
        >>> import tempfile
        >>> from keras_shared.files.atomic import replacing_folder
        >>> path = pathlib.Path(tempfile.mkdtemp(), "model")
        >>> for text in ("old", "new"):
        ...     with replacing_folder(path) as scratch:
        ...         scratch.mkdir()
        ...         _ = (scratch / "facts").write_text(text)
        >>> (path / "facts").read_text()
        'new'
    """
    as_path(path, "path")
    name = os.fspath(path)
    with ExitStack() as stack:
        with boundary(f"{name} cannot be written", error, "Name another place."):
            path = pathlib.Path(path).resolve()
            if path.exists() and not path.is_dir():
                raise error(f"{name} is a file, and a folder is expected. Name another place.")
            if os.path.ismount(path):
                raise error(f"{name} is where a file system is mounted. Name a folder inside.")
            make_folder(path.parent)
            new = stack.enter_context(_scratch_folder(path)) / path.name
        yield new
        with boundary(f"{name} cannot be replaced", error, "What it held is still there."):
            flush_all(new)
            _put(new, path)
            flush(path.parent)


def make_folder(path: pathlib.Path) -> None:
    """Make a folder and those above it, each one flushed with the folder that lists it.

    Raises:
        FileError: if there is a file of that name, or it cannot be made.
    """
    if path.is_dir():
        return
    if path.exists():
        raise FileError(f"{path} is a file, and a folder is expected there. Name another one.")
    make_folder(path.parent)
    with boundary(f"The folder {path} cannot be made", FileError):
        path.mkdir(exist_ok=True)
        flush(path.parent)


def flush(path: pathlib.Path) -> None:
    """Have a file's content, or a folder's list of files, on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems have no such thing for folders
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def flush_all(folder: pathlib.Path) -> None:
    """Flush a folder and all that is inside."""
    for inner in folder.rglob("*"):
        if not inner.is_symlink() and (inner.is_file() or inner.is_dir()):
            flush(inner)
    flush(folder)


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text beside `path`, as UTF-8, and put it in its place."""
    with replacing(path) as scratch:
        scratch.write_text(text, "utf-8")


def save_plots(plots: Mapping[str, "Figure"], out_dir: pathlib.Path) -> None:
    """Write each plot to <name>.png in a folder."""
    for name, figure in plots.items():
        with replacing(out_dir / f"{name}.png") as scratch:
            figure.savefig(scratch, dpi=120, metadata={"Software": None})


@contextmanager
def locked(
    folder: pathlib.Path, error: type[KerasSharedError], advice: str, seconds: float = 0.0
) -> Iterator["Lock"]:
    """Keep other processes that ask for the same lock out of a folder, until the end or death.

    Args:
        folder: the folder, made if it is missing.
        error: the class of the error.
        advice: what to do about another process, the end of the message.
        seconds: to wait for it; after some of them it is said on stderr which one.

    Raises:
        KerasSharedError: of class `error`, if another process still has it then.
    """
    began, said, name = time.monotonic(), False, str(folder)
    while True:
        with boundary(f"{name} cannot be locked", error):
            if (descriptor := _lock(folder)) is not None:
                break
        waited, who = time.monotonic() - began, _holder(folder)
        if waited >= seconds:
            after = f" after {waited:.0f} seconds" if seconds else ""
            raise error(f"{name} is in use by {who}{after}. {advice}")
        if waited > QUIET_WAIT and not said:
            print(f"waiting for {who}, which uses {name}", file=sys.stderr, flush=True)
            said = True
        time.sleep(0.1)
    try:
        yield Lock(folder, descriptor, error)
    finally:
        os.close(descriptor)  # and with it the lock


class Lock(NamedTuple):
    """A folder that is locked."""

    folder: pathlib.Path
    descriptor: int
    error: type[KerasSharedError]

    def check(self) -> None:
        """See that nobody put another folder in the place of the locked one."""
        if not _is_at(self.descriptor, self.folder):
            raise self.error(
                f"{self.folder} was removed, moved or replaced while it was "
                "written to; nothing more is written there. Start again."
            )


def _lock(folder: pathlib.Path) -> int | None:
    """The open folder, locked, or None if another has the lock, or replaced it meanwhile."""
    make_folder(folder)
    with suppress(FileNotFoundError, BlockingIOError), ExitStack() as stack:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(descriptor, folder):
            stack.pop_all()
            return descriptor
    return None


def _holder(folder: pathlib.Path) -> str:
    """The process that has the lock, as far as the system tells."""
    with suppress(OSError):
        kept = folder.stat()
        place = f"{os.major(kept.st_dev):02x}:{os.minor(kept.st_dev):02x}:{kept.st_ino}"
        for line in pathlib.Path("/proc/locks").read_text().splitlines():
            _, kind, _, _, process, where, *_ = line.split()
            if kind == "FLOCK" and where == place and int(process) > 0:
                return f"process {process}"
    return "another process"


def _is_at(descriptor: int, path: pathlib.Path) -> bool:
    with suppress(FileNotFoundError, NotADirectoryError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


@contextmanager
def _scratch_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside `path`, locked while it is in use; those that nobody uses any more go."""
    name = os.fsencode(path.name)
    short = path.name if len(name) <= MOST_NAME else hashlib.sha256(name).hexdigest()
    prefix = f".new-{short}-"
    with suppress(OSError):  # the sweep is no part of the work
        for leftover in path.parent.iterdir():
            if leftover.name.startswith(prefix) and len(leftover.name) == len(prefix) + 8:
                _sweep(leftover, path)
    with scratch_folder(prefix, path.parent) as folder:
        yield pathlib.Path(folder)


def _sweep(leftover: pathlib.Path, target: pathlib.Path) -> None:
    """Remove what a killed writer left; what it had taken from its place goes back."""
    descriptor = hold(os.fspath(leftover), fcntl.LOCK_EX | fcntl.LOCK_NB)
    if descriptor is not None:
        try:
            if (leftover / OLD).exists() and not target.exists():
                (leftover / OLD).rename(target)
            shutil.rmtree(leftover, ignore_errors=True)
        finally:
            os.close(descriptor)


def _put(new: pathlib.Path, target: pathlib.Path) -> None:
    """Rename the folder `new` to `target`; what was there is beside `new` then."""
    if not (target.exists() and any(target.iterdir())):
        new.rename(target)
    elif (number := _exchange(new, target)) in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        with ExitStack() as undo:
            target.rename(old := new.with_name(OLD))
            undo.callback(old.rename, target)
            new.rename(target)
            undo.pop_all()
    elif number:
        raise OSError(number, os.strerror(number), str(target))


def _exchange(one: pathlib.Path, other: pathlib.Path) -> int:
    """Exchange two names in one step, as Linux can; 0, or the number of the error."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return errno.ENOSYS
    failed = call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    return ctypes.get_errno() if failed else 0
