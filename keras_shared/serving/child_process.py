"""A SavedModel tried in a process of its own, with limits: what it does there stays there."""

import atexit
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
from types import ModuleType
from typing import IO

from keras_shared.errors import KerasSharedError, boundary, printable
from keras_shared.processes import end
from keras_shared.quiet import LEVEL
from keras_shared.serving.finding import Finding
from keras_shared.serving.limits import MOST_NOISE, MOST_SECONDS, SECONDS, START


class Unfinished(Finding):
    """What became of a trial that did not end by itself: a crash, a graph without an end."""

    @property
    def dangerous(self) -> bool:
        """Always: what happened to the trial would happen to any process that runs the model."""
        return True


def examine_in_child(
    folder: pathlib.Path, static: bool, trusted: bool, seconds: float = SECONDS
) -> list[Finding]:
    """What is found when a SavedModel is read and run, or what became of the process that did.

    One process that has TensorFlow waits for trials, and forks one for each; it ends with this
    one. No trial runs while another does.

    Args:
        folder: what holds `saved_model.pb`.
        static: nothing is run.
        trusted: what touches files, the network or Python is run too.
        seconds: that it may take.

    Returns:
        What was found, also before it crashed or ran out of time.

    Raises:
        ValueError: for no time, or more than eleven days.
        KerasSharedError: if the process that waits for trials cannot be started, or ends.
    """
    if not 0 < seconds <= MOST_SECONDS:
        raise ValueError(
            f"`timeout` is a number of seconds from 0 to {MOST_SECONDS}. Received: {seconds}"
        )
    request = {
        "folder": os.fspath(folder),
        "static": static,
        "trusted": trusted,
        "seconds": seconds,
        "libraries": _libraries(),
    }
    with _WAITING.lock:
        try:
            with boundary(f"{folder} could not be tried", KerasSharedError, "Check it again."):
                return _ask(json.dumps(request), seconds)
        except BaseException:  # Ctrl-C too: the trial ends with the process that waits for it
            _WAITING.stop()
            raise


def _ask(request: str, seconds: float, again: bool = True) -> list[Finding]:
    process = _WAITING.running()
    assert process.stdin is not None and process.stdout is not None
    found: list[Finding] = []
    doing, done, line = "starting", False, ""
    late = threading.Timer(seconds + START, process.kill)
    late.daemon = True
    late.start()
    try:
        with contextlib.suppress(BrokenPipeError):  # it has just ended, as it does when idle
            print(request, file=process.stdin, flush=True)
        for line in process.stdout:
            kind, *said = json.loads(line)
            if kind == "finding":
                found.append(Finding(*map(_in_one_line, said)))
            elif kind == "doing":
                doing = _in_one_line(said[0])
            elif kind == "done":
                done = True
            else:
                return found if done else [*found, _unfinished(doing, seconds, *said)]
    finally:
        late.cancel()
    status = process.wait()
    if again and not status and not line:
        return _ask(request, seconds, again=False)
    last = _in_one_line(_WAITING.last_line())
    raise ChildProcessError(
        f"the process that runs models ended, with status {status}{': ' if last else ''}{last}"
    )


def _unfinished(doing: str, seconds: float, how: str, status: int, noise: str) -> Unfinished:
    if how == "late" or status == -signal.SIGXCPU:
        return Unfinished(
            "error",
            f"{doing}: it did not end within {seconds:g} s",
            "if it is only slow, give it more time: check(..., timeout=600) or `keras-shared check "
            "--timeout 600`; else correct the model: a server would wait as well",
        )
    if how:
        what = f"{doing}: it said too much"
    elif status < 0:
        what = f"{doing}: it was ended by {signal.Signals(-status).name}"
    else:
        what = f"{doing}: it ended its process, with status {status}"
    last = _in_one_line(noise[-MOST_NOISE // 4 :])
    remedy = "correct the model or its warm-up requests: TF Serving would end there as well"
    if status == -signal.SIGKILL:
        remedy = "see that the machine has memory left for it, and check it again"
    return Unfinished("error", f"{what}{': ' if last else ''}{last}", remedy)


def _in_one_line(text: str) -> str:
    return printable(" ".join(text.split()))


class _Waiting:
    """The process that waits for trials: started when it is needed, ended with this one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stderr: IO[bytes] | None = None

    def running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.stop()
        # found as here, also by a script whose folder is not the current one
        places = os.pathsep.join(place or os.getcwd() for place in sys.path)  # noqa: PTH109
        environment = {
            **os.environ,
            "PYTHONPATH": places,
            # the graphics card belongs to the process that has it already
            "CUDA_VISIBLE_DEVICES": "-1",
            LEVEL: "3",
        }
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `stop`)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "keras_shared.serving.trial_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
            env=environment,
            start_new_session=True,  # Ctrl-C is for this process alone
        )
        return self._process

    def last_line(self) -> str:
        """The last line that it wrote to stderr, its error if it raised one."""
        if self._stderr is None:
            return ""
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - MOST_NOISE // 4))
        return self._stderr.read().decode(errors="replace").strip().rpartition("\n")[2]

    def stop(self) -> None:
        process, self._process = self._process, None
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None
        if process is not None:
            end(process, 2)  # at the end of its input it kills its trial, and ends

    def forget(self) -> None:
        """In a process that was forked from this one: the trials are its parent's."""
        self.lock = threading.Lock()
        process, self._process = self._process, None
        if process is not None and process.stdin is not None and process.stdout is not None:
            process.stdin.close()
            process.stdout.close()
            process.returncode = 0  # not this one's to wait for


def _libraries() -> list[str]:
    """The packages imported here that brought TensorFlow operations of their own."""
    if "tensorflow" not in sys.modules:
        return []
    modules = [(n, m) for n, m in [*sys.modules.items()] if isinstance(m, ModuleType)]
    plugins = {id(m) for _, m in modules if "_IS_TENSORFLOW_PLUGIN" in vars(m)}
    if not plugins:
        return []
    holding = {
        name
        for name, module in modules
        if any(id(value) in plugins for value in [*vars(module).values()])
    }
    return sorted(holding - {"__main__"})


_WAITING = _Waiting()
atexit.register(_WAITING.stop)
os.register_at_fork(after_in_child=_WAITING.forget)
