"""`keras-shared pictures`: what it writes is what models know, and nothing is written over."""

import re

import pytest

from keras_shared.cli import main

NAMES = ["character_1.png", "character_2.png", "character_3.png", "digit.png"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nothing_is_written_over(here, capsys):
    assert main(["pictures"]) == 0 and main(["pictures"]) == 0  # the same ones may be there
    assert sorted(path.name for path in here.iterdir()) == NAMES
    assert main(["pictures", "--to", "new/folder"]) == 0
    assert capsys.readouterr().out.split()[-1] == "new/folder/digit.png"
    (here / "digit.png").write_bytes(b"mine")
    assert main(["pictures"]) == 1
    assert "digit.png is another file already" in capsys.readouterr().err
    assert (here / "digit.png").read_bytes() == b"mine"


@pytest.mark.slow
def test_models_know_them(here, capsys):
    main(["pictures"])
    for name in ("lenet5_mnist", "lenet5_modern_mnist"):
        capsys.readouterr()
        assert main(["predict", name, "digit.png"]) == 0
        assert re.search(r"label\s*│ 7 \(", capsys.readouterr().out)
    answers = []
    for other in ("character_2.png", "character_3.png"):
        assert main(["verify", "character_1.png", other]) == 0
        answers.append(float(re.search(r"probability ([\d.]+)", capsys.readouterr().out)[1]))
    assert answers[0] > 0.9 and answers[1] < 0.1
