"""The process that waits for SavedModels to try, and forks one of its own for each.

`child_process` starts it: `python -m keras_shared.serving.trial_process`. TensorFlow is imported
once here and runs no operation, so that no thread of it is lost by forking. Requests and answers
are lines of JSON. It ends with the process that started it, and a trial with it.
"""

import contextlib
import importlib
import json
import math
import os
import pathlib
import resource
import select
import signal
import sys
import time
from typing import Any

from keras_shared.errors import KerasSharedError, whole_reason
from keras_shared.processes import end_with, signal_group
from keras_shared.quiet import import_quietly
from keras_shared.serving.examination import examine
from keras_shared.serving.finding import NOT_RUN, Finding
from keras_shared.serving.limits import IDLE, MOST_NOISE, MOST_SAID, memory
from keras_shared.serving.trial import reason

DONE = b'["done"]'  # the last line of a trial
DYING = 10.0  # seconds that a crashed process may take to give its memory back


def main() -> None:
    replies = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    import_quietly("tensorflow")
    importlib.import_module("tensorflow.core.protobuf.saved_model_pb2")
    importlib.import_module("tensorflow_serving.apis.prediction_log_pb2")
    from PIL import Image

    Image.preinit()
    with os.fdopen(replies, "w", encoding="utf-8") as answers:
        while select.select([0], [], [], IDLE)[0]:
            line = sys.stdin.buffer.readline()
            if not line or not _try(json.loads(line), answers):
                return


def _try(request: dict[str, Any], answers: Any) -> bool:
    """One trial, and what became of it; False if nobody waits for it any more."""
    deadline = time.monotonic() + request["seconds"]
    results, results_end = os.pipe()
    noise, noise_end = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if not child:
        try:
            os.close(answers.fileno())
            _examine(request, parent, noise_end, results_end)
        finally:
            os._exit(1)
    os.close(results_end)
    os.close(noise_end)
    said, heard, rest, how = 0, b"", b"", ""
    waiting = {results, noise}
    lines: list[bytes] = []
    # not until the end of the pipe, which a process that the model started may hold open
    while results in waiting and not how and DONE not in lines:
        left = max(0.0, deadline - time.monotonic())
        ready = select.select([0, *waiting], [], [], left)[0]
        if not ready:
            how = "late"
        elif 0 in ready:
            how = "left"  # nothing but the end of the input comes now
        for pipe in waiting & set(ready):
            data = os.read(pipe, 65536)
            if not data:
                waiting.remove(pipe)
            elif pipe == noise:
                heard = (heard + data)[-MOST_NOISE:]
            else:
                *lines, rest = (rest + data).split(b"\n")
                said += len(data)
                how = "talks" if said > MOST_SAID else how
                answers.writelines(line.decode("utf-8", "replace") + "\n" for line in lines)
                answers.flush()
    ended = _status(child, 0.0 if how else DYING)
    os.close(results)
    os.close(noise)
    if how == "left":
        return False
    print(json.dumps(["end", how, ended, heard.decode("utf-8", "replace")]), file=answers)
    answers.flush()
    return True


def _status(child: int, patience: float) -> int:
    """How a trial ended: its status, or the negative number of a signal. Its group ends too."""
    until, ended = time.monotonic() + patience, os.WEXITED | os.WNOHANG | os.WNOWAIT
    while time.monotonic() < until and os.waitid(os.P_PID, child, ended) is None:
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)  # which is not waited for yet: its number is no other's
    signal_group(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _limit(request: dict[str, Any], parent: int, noise: int) -> None:
    os.setpgid(0, 0)
    end_with(parent)
    if sys.platform == "linux":
        pages = 0
        with contextlib.suppress(OSError):  # no /proc, or none that can be written
            pages = int(pathlib.Path("/proc/self/statm").read_text("ascii").split()[5])
            # where memory is short, this process is the one to go
            pathlib.Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
        _at_most(resource.RLIMIT_DATA, pages * resource.getpagesize() + memory())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(noise, 1)
    os.dup2(noise, 2)
    _at_most(resource.RLIMIT_CORE, 0)
    _at_most(resource.RLIMIT_CPU, math.ceil(request["seconds"]) * (os.cpu_count() or 1))
    if not request["trusted"]:
        _at_most(resource.RLIMIT_FSIZE, 0)


def _at_most(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _examine(request: dict[str, Any], parent: int, noise: int, results: int) -> None:
    folder = pathlib.Path(request["folder"])
    doing, severity = f"it {NOT_RUN}: the limits of a trial cannot be set here", "warning"
    remedy = "check it on another machine, or in another container"
    with os.fdopen(results, "w", encoding="utf-8") as answers:

        def say(*line: str) -> None:
            print(json.dumps(line), file=answers, flush=True)

        try:
            _limit(request, parent, noise)
            doing, severity, remedy = "starting", "error", "publish or copy it again"
            choices = request["static"], request["trusted"], request["libraries"]
            for one in examine(folder, *choices):
                if isinstance(one, Finding):
                    say("finding", *one)
                else:
                    doing = one
                    say("doing", doing)
        except Exception as error:
            ours = isinstance(error, KerasSharedError)
            what = whole_reason(error) if ours else f"{doing}: {reason(error)}"
            say("finding", severity, what, remedy)
        say("done")


if __name__ == "__main__":
    main()
