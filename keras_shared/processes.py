"""Processes and temporary folders that do not outlive the one that made them.

`child` starts a program through a keeper: this file, run by a Python of its own. The keeper waits
for the program and passes signals on to its whole group. When the one who started it is gone, by
whatever signal, the keeper ends the group and removes what it was told to. Should the keeper itself
be killed, the system kills the program (Linux).
"""

import contextlib
import fcntl
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

GRACE, HURRIED = 10.0, 1.0  # seconds from the first and the second signal to SIGKILL; third: none
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_LOOK = 0.5  # seconds between two looks at who the parent is
_CLEAN = 30.0  # seconds that the command `after` may take
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextlib.contextmanager
def child(
    command: Sequence[str],
    grace: float = GRACE,
    remove: str | os.PathLike[str] | None = None,
    after: Sequence[str] = (),
    **options: Any,
) -> Iterator[subprocess.Popen[bytes]]:
    """A program that ends with the block, and with this process.

    It is the leader of a process group of its own: Ctrl-C reaches it only through us. A signal
    sent to the process given is passed on to the group, SIGHUP and SIGQUIT as SIGTERM. `grace`
    seconds later the group is killed, after a second signal one second later, after a third at
    once. Its exit status, or the signal that ended it, is that of the process given.

    Args:
        command: program and arguments.
        grace: seconds from the first signal to SIGKILL.
        remove: a folder to remove if this process is gone before the program.
        after: a command to run when the program has ended.
        **options: of `subprocess.Popen`: `stdin`, `stdout`, `stderr`, `env`, `cwd`.

    Yields:
        The process.

    Example:
        >>> import subprocess
        >>> from keras_shared.processes import child
        >>> with child(["echo", "ready"], stdout=subprocess.PIPE) as process:
        ...     print(process.stdout.read(), process.wait())
        b'ready\\n' 0
    """
    job = {
        "command": list(command), "parent": os.getpid(), "grace": grace, "after": list(after),
        "remove": None if remove is None else os.fspath(remove),
    }  # fmt: skip
    keeper = [sys.executable, "-I", "-S", os.path.abspath(__file__), json.dumps(job)]  # noqa: PTH100
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until the keeper can handle them
    try:
        process = subprocess.Popen(keeper, start_new_session=True, **options)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, kept)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        end(process, grace + _CLEAN + HURRIED)


def end(process: subprocess.Popen[Any], seconds: float) -> None:
    """Close the pipes of a program, which is killed if it has not ended so many seconds later."""
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):  # it has ended, and did not read all
            process.stdin.close()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:  # a keeper that was stopped, for example
        process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def end_with(parent: int) -> None:
    """Have this process killed when its parent has ended; at once if it has already.

    Called by the child, first of all: `ProcessPoolExecutor(initializer=end_with,
    initargs=(os.getpid(),))`. Linux counts the thread that started the child as its parent, so
    that thread must live as long as the child.

    Args:
        parent: the process ID of the parent.
    """
    if not _killed_with_parent():
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def scratch_folder(prefix: str, parent: str | os.PathLike[str] | None = None) -> Iterator[str]:
    """A temporary folder; if this process is killed, the next `sweep` of its prefix removes it.

    Args:
        prefix: the beginning of its name, of one purpose alone.
        parent: the folder to make it in; default: the system's for temporary files.

    Yields:
        Its path, locked (flock) as long as this process holds it, where the file system has locks.

    Example:
        >>> import os
        >>> from keras_shared.processes import scratch_folder
        >>> with scratch_folder("example-of-scratch-") as folder:
        ...     os.path.isdir(folder)
        True
        >>> os.path.isdir(folder)
        False
    """
    while True:  # another process may sweep between the first line and the second
        folder = tempfile.mkdtemp(prefix=prefix, dir=parent)
        held = hold(folder, fcntl.LOCK_EX)
        if held is not None or pathlib.Path(folder).is_dir():  # without locks nobody sweeps
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)


def sweep(
    prefix: str,
    parent: str | os.PathLike[str] | None = None,
    before: Callable[[str], object] = lambda name: None,
) -> list[str]:
    """Remove the scratch folders of killed processes, ours alone.

    Args:
        prefix: as of `scratch_folder`.
        parent: as of `scratch_folder`.
        before: called with the name of each folder before it is removed; if it fails, the folder
            stays.

    Returns:
        The names of the folders that were removed.
    """
    removed = []
    for path in pathlib.Path(parent or tempfile.gettempdir()).glob("*"):
        if not path.name.startswith(prefix):
            continue
        held = hold(str(path), fcntl.LOCK_EX | fcntl.LOCK_NB)
        if held is not None:
            try:
                before(path.name)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(held)
            removed.append(path.name)
    return removed


def hold(folder: str, how: int) -> int | None:
    """A descriptor that holds the lock of a folder of ours; None if it is held, or not ours."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, how)
        ours = os.fstat(descriptor)
        if os.path.samestat(ours, os.lstat(folder)) and ours.st_uid == os.getuid():
            stack.pop_all()
            return descriptor
    return None


def _killed_with_parent() -> bool:
    """Ask the system for SIGKILL at the parent's end; False where it has no such request."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    return bool(ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def _keep(job: dict[str, Any]) -> int:
    """Run a command to its end, or to the parent's; its status, -n for signal n."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (*ENDING, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
    keeper = os.getpid()

    def end_with_keeper() -> None:
        if _killed_with_parent() and os.getppid() != keeper:
            os._exit(1)

    try:
        process = subprocess.Popen(
            job["command"],
            process_group=0,
            preexec_fn=end_with_keeper,  # noqa: PLW1509  (the keeper has one thread)
        )
    except OSError as error:
        print(f"{job['command'][0]} cannot be run: {error.strerror}", file=sys.stderr)
        return 127
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # the program's alone: their other ends see when it closes them
        os.dup2(nowhere, descriptor)
    signals, deadline = 0, float("inf")
    while _runs(process.pid):
        left = max(min(_LOOK, deadline - time.monotonic()), 0.0)
        came, _, _ = select.select([reading], [], [], left)
        received = [n for n in os.read(reading, 4096) if n != signal.SIGCHLD] if came else []
        if os.getppid() != job["parent"] and not signals:
            received.append(signal.SIGTERM)
        for one in received:
            signals += 1
            wait = (job["grace"], min(job["grace"], HURRIED), 0.0)[min(signals, 3) - 1]
            deadline = min(deadline, time.monotonic() + wait)
            signal_group(process.pid, one if one == signal.SIGINT else signal.SIGTERM)
        if time.monotonic() >= deadline:
            signal_group(process.pid, signal.SIGKILL)
            deadline = time.monotonic() + _LOOK
    signal_group(process.pid, signal.SIGKILL)  # what is left of the group
    status = process.wait()
    if job["after"]:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            quiet = subprocess.DEVNULL
            subprocess.run(job["after"], stdout=quiet, stderr=quiet, timeout=_CLEAN, check=False)
    if job["remove"] and os.getppid() != job["parent"]:
        shutil.rmtree(job["remove"], ignore_errors=True)
    return status


def _runs(pid: int) -> bool:
    """Whether a child runs; if not it stays to be waited for, so that its number is no other's."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def signal_group(group: int, number: int) -> None:
    """Send a signal to a group of processes, of which none may be left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _end_as(status: int) -> None:
    """End this process with a status, or by the same signal, as `subprocess` says them."""
    if status < 0:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    _end_as(_keep(json.loads(sys.argv[1])))
