"""How a command ends when its output, its input or its user ends it: with real pipes and disks."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from keras_shared.cli import list_, main


def shell(line, **options):
    command = f'keras() {{ {sys.executable} -m keras_shared.cli "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=120, **options
    )


@pytest.mark.parametrize("command", ["list", "recipe lenet5_mnist", "recipe --help"])
def test_nobody_reads_on(command):
    done = shell(f"keras {command} | (read -n 1 && exec 0<&-; sleep 0.1); exit ${{PIPESTATUS[0]}}")
    assert done.stderr == ""
    done = shell(f"(sleep 1; keras {command}; echo $? >&2) | true")
    assert done.stderr.strip() in ("141", "1", "0")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("command", ["list", "recipe lenet5_mnist"])
def test_a_full_disk(command):
    done = shell(f"keras {command} > /dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "keras-shared: OSError: No space left on device (--debug shows the traceback)"
    ]


def test_closed_streams():
    assert shell("keras list >&- 2>&-").returncode == 0
    assert shell("keras recipe nothing >&- 2>&-").returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_ctrl_c(number):
    code = (
        "import sys, time; from keras_shared.cli import list_, main; "
        "list_.run = lambda options: (print('begun', flush=True), time.sleep(60)); "
        "sys.exit(main(['list']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        assert process.wait(timeout=20) == 130
        assert process.stderr.read() == "stopped\n"


def _deep():
    return _deep()


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (lambda: _deep(), "RecursionError: maximum recursion depth exceeded"),
        (lambda: {}["a\x1bb"], "KeyError: 'a\\x1bb'"),
        (lambda: os.stat("/nowhere"), "FileNotFoundError: No such file or directory: /nowhere"),
        (lambda: int("x"), "ValueError: invalid literal for int()"),
        (lambda: [0] * 10**18, "MemoryError"),
    ],
)
def test_whatever_is_raised_is_one_message(raised, said, monkeypatch, capsys):
    monkeypatch.setattr(list_, "run", lambda _: raised())
    assert main(["list"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(f"keras-shared: {said}") and printed.count("\n") == 1
    assert printed.endswith("(--debug shows the traceback)\n")
    with pytest.raises((RecursionError, LookupError, OSError, ValueError, MemoryError)):
        main(["list", "--debug"])


@pytest.mark.parametrize("name", ["a\x1b[31mb", "x[red]", "q[/b]", "\x9b2J", "\udcff", "a\rb"])
def test_names_in_errors_are_text(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (["recipe", name], ["recipe", f"{name}.toml"], ["publish", name], ["check", name],
                 ["serve", name], ["manifests", name], ["inspect", name]):  # fmt: skip
        assert main(call) == 1
        printed = capsys.readouterr().err
        printed.encode("utf-8")
        assert all(c.isprintable() or c == "\n" for c in printed)
    with pytest.raises(SystemExit):
        main([name])
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("port", ["0", "65536", "-1", "x", "8e3", "٨"])
def test_ports(port, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["serve", "lenet5_mnist", f"--rest-port={port}"])
    assert stop.value.code == 2 and "expected a number from 1 to 65535" in capsys.readouterr().err


def test_a_recipe_for_a_terminal_is_text(tmp_path):
    pathlib.Path(tmp_path, "odd.toml").write_bytes("# \x9b31m\xa0é\r\n".encode())
    done = shell("keras recipe odd.toml", cwd=tmp_path, env=os.environ | {"PYTHONUTF8": "1"})
    assert done.stdout == "# \x9b31m\xa0é\n"
    words = ["-m", "keras_shared.cli", "recipe", "odd.toml"]
    script = f"import pty, sys; pty.spawn([sys.executable, *{words}])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=tmp_path)
    assert b"# \\x9b31m" in shown.stdout and b"\xc2\x9b" not in shown.stdout
