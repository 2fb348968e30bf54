"""Children and folders that go with who made them, with processes that are really killed."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from keras_shared import processes

STUBBORN = """\
import os, pathlib, signal, subprocess, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, lambda n, _: print("got", n, flush=True))
inner = subprocess.Popen([sys.executable, "-c", "import signal, time; "
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('in', flush=True); time.sleep(99)"])
print(os.getpid(), inner.pid, flush=True)
while True:
    time.sleep(0.1)
"""
PARENT = """\
import os, sys
from keras_shared.processes import child, scratch_folder
with scratch_folder("tested-", {folder!r}) as folder:
    print(folder, flush=True)
    with child([sys.executable, "-c", {program!r}], grace=0.5, remove=folder,
               after=["touch", {folder!r} + "/after"]) as process:
        print(process.pid, flush=True)
        process.wait()
"""


def gone(pid, seconds=10.0):
    """Whether a process ends (or is a zombie, which init has not fetched yet) within a time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z":
                return True
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def family(tmp_path):
    """A process that started a stubborn one: it, its folder, and all process IDs below it."""
    text = PARENT.format(folder=str(tmp_path), program=STUBBORN)
    parent = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    lines = [parent.stdout.readline().strip() for _ in range(4)]
    pids = [int(n) for line in lines[1:] for n in line.split() if n.isdigit()]
    assert len(pids) == 3 and not any(gone(pid, 0.1) for pid in pids)
    yield parent, pathlib.Path(lines[0]), pids
    parent.kill()
    parent.communicate()


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGINT]
)
def test_what_a_dead_parent_leaves(family, number, tmp_path):
    parent, folder, pids = family
    assert folder.is_dir()
    parent.send_signal(number)
    parent.wait()
    assert all(map(gone, pids))
    assert not folder.exists() and (tmp_path / "after").exists()


def test_parent_and_keeper_killed(family, tmp_path):
    parent, folder, (keeper, program, inner) = family
    parent.kill()
    os.kill(keeper, signal.SIGKILL)
    assert gone(program)
    os.kill(inner, signal.SIGKILL)  # nobody is left who knows of it
    parent.wait()
    with processes.scratch_folder("tested-", tmp_path) as held:
        (tmp_path / "tested-file").touch()
        (tmp_path / "tested-link").symlink_to(tmp_path)
        (tmp_path / "untested-folder").mkdir()
        assert processes.sweep("tested-", tmp_path) == [folder.name]
        assert pathlib.Path(held).is_dir()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"tested-file", "tested-link", "untested-folder"}


@pytest.mark.slow
@pytest.mark.parametrize(("signals", "seconds"), [(1, 3.0), (2, 1.0), (3, 0.0)])
def test_each_signal_is_faster(signals, seconds):
    with processes.child([sys.executable, "-c", STUBBORN], 3, stdout=subprocess.PIPE) as process:
        pids = [int(n) for _ in range(2) for n in process.stdout.readline().split() if n != b"in"]
        started = time.monotonic()
        for _ in range(signals):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert process.wait(timeout=10) == -signal.SIGKILL
        assert seconds <= time.monotonic() - started < seconds + 1.5
    assert all(map(gone, pids))


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("raise SystemExit(7)", 7),
        ("import os; os.abort()", -signal.SIGABRT),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import sys; sys.exit(sys.stdin.read())", 1),
    ],
)
def test_its_status_is_the_programs(program, status):
    command = [sys.executable, "-c", program]
    with processes.child(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        _, said = process.communicate(b"asked", timeout=10)
        assert process.returncode == status
    assert status != 1 or said == b"asked\n"


def test_a_program_that_is_not_there():
    with processes.child(["/nowhere"], stderr=subprocess.PIPE) as process:
        assert process.stderr.read() == b"/nowhere cannot be run: No such file or directory\n"
        assert process.wait() == 127


@pytest.mark.parametrize("linux", [True, False])
def test_a_child_of_ones_own_ends_with_its_parent(linux):
    inner = "import sys, time; from keras_shared import processes as p; "
    inner += "" if linux else "p._killed_with_parent = lambda: False; "
    inner += "p.end_with(int(sys.argv[1])); print('up', flush=True); time.sleep(60)"
    outer = f"""\
        import os, subprocess, sys, time
        process = subprocess.Popen([sys.executable, "-c", {inner!r}, str(os.getpid())])
        print(process.pid, flush=True)
        time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(outer)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    assert parent.stdout.readline() == "up\n"
    parent.kill()
    assert gone(pid)
    parent.communicate()
    late = subprocess.run([sys.executable, "-c", inner, "1"], timeout=10, check=False)
    assert late.returncode == 1  # its parent had ended before it asked


def test_what_names_something_else_is_removed_after_it(tmp_path):
    left = tmp_path / "tested-left"
    left.mkdir()

    def fails(name):
        assert (tmp_path / name).is_dir()
        raise TimeoutError

    with pytest.raises(TimeoutError):
        processes.sweep("tested-", tmp_path, before=fails)
    assert left.is_dir()
    assert processes.sweep("tested-", tmp_path) == [left.name] and not left.exists()


def test_a_file_system_without_locks(tmp_path):
    """As NFS without its daemon: flock says ENOLCK."""
    program = f"""
import errno, fcntl, os
from keras_shared import processes
def flock(*_): raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = flock
with processes.scratch_folder("tested-", {str(tmp_path)!r}) as folder:
    assert processes.sweep("tested-", {str(tmp_path)!r}) == []
    print(os.path.isdir(folder))
print(os.path.isdir(folder))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout == "True\nFalse\n", done.stderr
