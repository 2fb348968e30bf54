"""`keras-shared signals`: a recipe as it begins, over epochs, and a run."""

import json

import pytest
from PIL import Image

from keras_shared.cli import main


@pytest.mark.slow
def test_a_recipe_as_its_training_begins(tmp_path, small_recipe, capsys):
    (tmp_path / "r.toml").write_text(small_recipe)
    files = ["--json", str(tmp_path / "s.json"), "--png", str(tmp_path / "s.png")]
    assert main(["signals", str(tmp_path / "r.toml"), "--examples", "50", *files]) == 0
    printed = capsys.readouterr().out
    assert "50 examples, gradient of the model's own" in printed
    assert "gradient of shared kernels, by use" in printed
    assert max(map(len, printed.splitlines())) <= 80
    kept = json.loads((tmp_path / "s.json").read_text())
    assert kept["examples"] == 50 and kept["ties"][0]["uses"] == ["encoder_1", "decoder_1"]
    with Image.open(tmp_path / "s.png") as image:
        assert image.format == "PNG"
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_over_epochs_and_of_a_run(tmp_path, small_recipe, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.toml").write_text(small_recipe)
    call = ["signals", "r.toml", "--epochs", "2", "--json", "s.json", "--png", "s.png"]
    assert main(call) == 0
    before, one, two = json.loads((tmp_path / "s.json").read_text())
    assert before["layers"][0]["deviation"] != two["layers"][0]["deviation"]
    assert one["layers"][0]["jacobian"] is None
    assert main(["train", "r.toml"]) == 0
    assert main(["signals", "runs/small", "--json", "run.json"]) == 0
    trained = json.loads((tmp_path / "run.json").read_text())
    for a, b in zip(trained["layers"], two["layers"]):  # trained alike
        assert a["deviation"] == pytest.approx(b["deviation"], rel=1e-3)
    assert main(["signals", "nothing"]) == 1


@pytest.mark.slow
def test_pairs_and_a_loss_of_embeddings(recipe):
    """The part of the model that is trained is what is looked at."""
    from keras_shared.training import training_data
    from keras_shared.training.looking import signals_of

    pairs = recipe("pairs", **{"model.image_shape": [28, 28, 1]})
    (report,) = signals_of(pairs, training_data(pairs), examples=4, epochs=0)
    assert "conv_1 (2)" in [layer.name for layer in report.layers]


def test_another_picture_is_refused_before_training(capsys):
    for option, file in (("--json", "nowhere/s.json"), ("--png", "nowhere/s.png")):
        assert main(["signals", "missing.toml", "--epochs", "3", option, file]) == 1
        assert "nowhere is no folder to write to" in capsys.readouterr().err
    assert main(["signals", "missing.toml", "--epochs", "3", "--png", "signals.jpg"]) == 2
    assert "`--png` takes a .png or .svg file" in capsys.readouterr().err


@pytest.mark.slow
def test_texts_of_several_lengths(tmp_path, capsys):
    """Batches are padded each to its own length; the first examples are of two of them."""
    words = [("short " * (1 + i % 7) + ("good" if i % 2 else "bad"), i % 2) for i in range(60)]
    rows = ["text,label", *(f"{text},{'yes' if label else 'no'}" for text, label in words)]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    (tmp_path / "r.toml").write_text(
        f"""name = "mine"
[model]
class_name = "SharedTransformerClassifier"
hidden_dim = 8
num_heads = 2
intermediate_dim = 8
[data]
name = "sentences"
path = "{tmp_path}/mine.csv"
[training]
batch_size = 8
epochs = 1
"""
    )
    assert main(["signals", str(tmp_path / "r.toml"), "--examples", "20"]) == 0
    assert "20 examples" in capsys.readouterr().out
