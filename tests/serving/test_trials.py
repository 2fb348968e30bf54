"""A model that hangs, crashes or takes too much is a finding, and the caller goes on."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import tensorflow as tf

from keras_shared.errors import KerasSharedError
from keras_shared.serving import check, child_process
from saved_models import product, write


def errors(folder, **options):
    return [f"{f.what} -> {f.remedy}" for f in check(folder, **options) if f.severity == "error"]


def endless(kernel, x):
    forever = tf.while_loop(lambda i: i < 1, lambda i: i * 1.0, [tf.reduce_sum(x) * 0])
    return {"y": x @ kernel + forever[0]}


def children(pid):
    found = []
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        found += (task / "children").read_text().split()
    return [int(child) for child in found]


def grandchildren():
    return {one for child in children(os.getpid()) for one in children(child)}


def gone(pid):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if ") Z " in pathlib.Path(f"/proc/{pid}/stat").read_text():
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "good" / "1", product)


@pytest.mark.slow
def test_a_graph_that_never_ends(tmp_path, good):
    assert errors(good) == []
    folder = write(tmp_path / "1", endless, name="other")
    first, last = errors(folder, timeout=2)
    assert first.startswith("there is no signature 'serving_default'")  # known before, and kept
    assert "it did not end within 2 s -> if it is only slow, give it more time" in last
    assert errors(good) == []


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), 1e300])
def test_a_timeout_is_a_number_of_seconds(good, timeout):
    with pytest.raises(ValueError, match="`timeout` is a number of seconds from 0 to"):
        check(good, timeout=timeout)


@pytest.mark.parametrize("without_error", [False, True])
def test_a_graph_that_ends_its_process(tmp_path, without_error):
    def call(kernel, x):
        abort = tf.raw_ops.Abort(error_msg="enough", exit_without_error=without_error)
        with tf.control_dependencies([abort]):
            return {"y": x @ kernel}

    [said] = errors(write(tmp_path / "1", call))
    how = "it ended its process, with status 0" if without_error else "it was ended by SIGABRT"
    assert said.startswith(f"running serving_default at batch 1: {how}")
    assert without_error or "enough" in said
    assert "TF Serving would end there as well" in said


@pytest.mark.slow  # TensorFlow asks for memory again for 10 s
def test_a_graph_that_asks_for_a_terabyte(tmp_path):
    def call(kernel, x):
        rows = tf.cast(tf.reduce_sum(x) * 0, tf.int64) + 2**38
        return {"y": x @ kernel + tf.reduce_sum(tf.random.uniform([rows]))}

    [said] = errors(write(tmp_path / "1", call))
    assert "serving_default fails: it takes more than the" in said
    assert "GB of memory that a trial may -> make it smaller" in said


@pytest.mark.slow
def test_a_graph_that_takes_memory_bit_by_bit(tmp_path):
    def call(kernel, x):
        def more(i, kept):
            return i + 1, kept.write(i, tf.random.uniform([2**26]))  # 256 MB

        taken = tf.TensorArray(tf.float32, 100_000, clear_after_read=False)
        rows = 100_000 + tf.cast(tf.reduce_sum(x) * 0, tf.int32)
        kept = tf.while_loop(lambda i, kept: i < rows, more, [0, taken])[1]
        return {"y": x @ kernel + tf.reduce_sum(kept.stack())}

    [said] = errors(write(tmp_path / "1", call))
    assert "GB of memory that a trial may" in said or "was ended by SIG" in said


@pytest.mark.slow
def test_a_large_honest_model(tmp_path):
    class Large(tf.Module):
        def __init__(self):
            self.kernel = tf.Variable(tf.random.normal((3, 100_000_000)))  # 1.2 GB

    module = Large()
    module.answer = tf.function(
        lambda x: {"y": tf.reduce_sum(x @ module.kernel, 1, keepdims=True)},
        input_signature=[tf.TensorSpec((None, 3), name="x")],
    )
    tf.saved_model.save(module, str(tmp_path / "1"), module.answer)
    assert errors(tmp_path / "1") == []


def test_from_several_threads(good):
    found = []
    threads = [threading.Thread(target=lambda: found.append(errors(good))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[]] * 4
    assert errors(good) == []  # the thread that started the process is gone, and it is not


@pytest.mark.slow
def test_from_a_process_that_was_forked(good):
    assert errors(good) == []
    read, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.write(write_end, repr(errors(good)).encode())
        os._exit(0)
    assert os.read(read, 1000) == b"[]"
    os.waitpid(child, 0)
    os.close(read)
    os.close(write_end)
    assert errors(good) == []


def script(tmp_path, code):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(code))
    return [sys.executable, str(path)]


@pytest.mark.slow
def test_from_a_script_without_a_guard_that_runs_once(tmp_path, good):
    command = script(
        tmp_path,
        f"""
        print("once")
        from keras_shared.serving import check
        print([finding.severity for finding in check({str(good)!r})])
        """,
    )
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=200)
    assert done.stdout == "once\n['warning', 'note']\n", done.stderr


OPERATION = """
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
using namespace tensorflow;
REGISTER_OP("TheirCopy").Input("x: float").Output("y: float");
class TheirCopy : public OpKernel {
 public:
  explicit TheirCopy(OpKernelConstruction* context) : OpKernel(context) {}
  void Compute(OpKernelContext* context) override { context->set_output(0, context->input(0)); }
};
REGISTER_KERNEL_BUILDER(Name("TheirCopy").Device(DEVICE_CPU), TheirCopy);
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles an operation")
def test_operations_of_a_library_that_was_imported_before(tmp_path):
    (tmp_path / "theirs.cc").write_text(OPERATION)
    library = tmp_path / "theirs.so"
    flags = [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]
    source = str(tmp_path / "theirs.cc")
    subprocess.run(["g++", "-shared", "-fPIC", source, "-o", library, *flags], check=True)
    (tmp_path / "their_library.py").write_text(
        f"import tensorflow as tf\nloaded = tf.load_op_library({str(library)!r})\n"
    )
    command = script(
        tmp_path,
        """
        import sys
        import tensorflow as tf
        import their_library
        from keras_shared.serving import check

        class Copy(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec((None, 3), name="x")])
            def copy(self, x):
                return {"y": their_library.loaded.their_copy(x=x)}

        module = Copy()
        tf.saved_model.save(module, sys.argv[1], module.copy)
        print([f.severity for f in check(sys.argv[1])])
        """,
    )
    folder = str(tmp_path / "1")
    done = subprocess.run([*command, folder], capture_output=True, text=True, timeout=300)
    assert done.stdout == "['warning', 'note']\n", done.stdout + done.stderr
    assert "TensorFlow has no operation TheirCopy" in errors(folder)[0]


def waiting(tmp_path, kind):
    """A script in the middle of a trial: its process, the one for trials, and the trial."""
    folder = write(tmp_path / "1", endless)
    command = script(
        tmp_path, f"from keras_shared.serving import check\ncheck({str(folder)!r}, timeout=900)\n"
    )
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        for waits in children(process.pid):
            for trial in children(waits):
                ticks = pathlib.Path(f"/proc/{trial}/stat").read_text().split()[13]
                if int(ticks) > 99:  # a second of the processor's time
                    return process, waits, trial
        time.sleep(0.1)
    raise AssertionError(process.poll())


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_caller_that_is_ended(tmp_path, kind):
    process, waits, trial = waiting(tmp_path, kind)
    process.send_signal(kind)
    said = process.communicate(timeout=20)[1]
    assert process.returncode in (-kind, 1)
    assert (kind == signal.SIGINT) == ("KeyboardInterrupt" in said)
    assert gone(waits) and gone(trial)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_trial_and_its_waiting_process_that_are_killed(tmp_path, good):
    assert errors(good) == []
    folder = write(tmp_path / "1", endless)
    found, others = [], grandchildren()
    thread = threading.Thread(target=lambda: found.extend(errors(folder, timeout=100)))
    thread.start()
    while not (trials := grandchildren() - others):
        time.sleep(0.01)
    time.sleep(0.3)
    os.kill(trials.pop(), signal.SIGKILL)
    thread.join()
    assert "it was ended by SIGKILL -> see that the machine has memory left" in found[0]
    assert errors(good) == []


def test_what_is_written_to_the_terminal_does_not_disturb(tmp_path, capfd):
    def call(kernel, x):
        tf.print('["done"]\n["finding", "error", "a", "b"]', output_stream=sys.stdout)
        return {"y": x @ kernel}

    assert errors(write(tmp_path / "1", call)) == []
    assert capfd.readouterr().out == ""


LEAVES = """
import os, time
from keras_shared.serving import trial_process

def examine(*_):
    left = os.fork()
    if not left:
        time.sleep(100)
    yield str(left)

trial_process.examine = examine
trial_process.main()
"""


@pytest.mark.slow
def test_a_process_that_a_trial_leaves_behind_ends_with_it(tmp_path):
    request = {"folder": "", "static": False, "trusted": True, "seconds": 60, "libraries": []}
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", LEAVES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    print(json.dumps(request), file=process.stdin, flush=True)
    lines = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert [line[0] for line in lines] == ["doing", "done", "end"] and lines[2][1] == ""
    assert time.monotonic() - begun < 50 and gone(int(lines[0][1]))
    process.stdin.close()
    assert process.wait(20) == 0
    process.stdout.close()


@pytest.mark.slow
def test_where_proc_is_read_only(tmp_path, good):
    mount = 'mount --rbind /proc /proc && mount -o remount,ro,bind /proc && exec "$@"'
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*inside, "true"]).returncode:
        pytest.skip("no file system can be mounted here")
    command = script(
        tmp_path,
        f"""
        from keras_shared.serving import check
        print([finding.severity for finding in check({str(good)!r})])
        """,
    )
    done = subprocess.run([*inside, *command], capture_output=True, text=True, timeout=200)
    assert done.stdout == "['warning', 'note']\n", done.stderr


@pytest.mark.slow
def test_a_process_for_trials_that_cannot_start_says_why(good, tmp_path, monkeypatch):
    child_process._WAITING.stop()
    (tmp_path / "resource.py").write_text("raise ImportError('nothing works today')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KerasSharedError) as caught:
        check(good)
    said = str(caught.value)
    assert f"{good} could not be tried" in said and "ended, with status 1: " in said
    assert said.endswith("ImportError: nothing works today. Check it again.")


@pytest.mark.slow
def test_a_process_for_trials_that_ended_before_it_read_is_replaced(good):
    child_process._WAITING.stop()
    child_process._WAITING._process = subprocess.Popen(
        ["sh", "-c", "read line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert errors(good) == []
