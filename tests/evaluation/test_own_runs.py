import json
import shutil

import keras
import numpy as np
import pytest

import keras_shared
from keras_shared.cli import main
from keras_shared.datasets import DataError, load_omniglot, read_one_shot_runs
from keras_shared.evaluation import evaluate_runs
from keras_shared.files.pictures import png_bytes
from keras_shared.zoo import SiameseNet


def write(file, image):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png_bytes(image))


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (14, 9, 9, 1)).astype("uint8")


@pytest.fixture
def plain(tmp_path, images):
    """Two runs: of three classes by one image each; of two classes by several, queries uneven."""
    folder = tmp_path / "runs"
    for i, name in enumerate("abc"):
        write(folder / "one" / "support" / f"{name}.png", images[i])
        write(folder / "one" / "query" / f"{name}.png", images[3 + i])
    for i, name in enumerate(["b/1", "b/2", "c"]):
        write(folder / "two" / "support" / f"{name}.png", images[6 + i])
    for i, name in enumerate(["b/x", "b/y", "b/z", "c/x", "c/y"]):
        write(folder / "two" / "query" / f"{name}.png", images[9 + i])
    (folder / ".hidden").touch()
    return folder


def by_hand(model, known, of, queries, right):
    e, g = model.embed(queries), model.embed(known)
    answers = np.array(of)[[np.argmin(((g - one) ** 2).sum(1)) for one in e]]
    return answers, 100 * np.mean(answers != np.array(right))


@pytest.mark.slow
def test_errors_by_hand(recipe, plain, images, tmp_path):
    twins = recipe("pairs", **{"model.image_shape": [9, 9, 1]})
    tower = keras.Sequential(
        [keras.Input((9, 9, 1)), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    model = SiameseNet(tower, image_shape=(9, 9, 1))
    result = evaluate_runs(model, twins, plain, tmp_path / "out")
    answers, first = by_hand(model, images[:3], list("abc"), images[3:6], list("abc"))
    others, second = by_hand(model, images[6:9], list("bbc"), images[9:], list("bbbcc"))
    assert [run["error_percent"] for run in result["runs"]] == pytest.approx([first, second], 1e-3)
    assert result["one_shot_error_percent"] == pytest.approx((first + second) / 2, 1e-3)
    said = [[one["answer"] for one in run["answers"]] for run in result["runs"]]
    assert said == [list(answers), list(others)]
    assert [run["ways"] for run in result["runs"]] == [3, 2]
    assert json.loads((tmp_path / "out" / "one_shot.json").read_text()) == result
    assert (tmp_path / "out" / "one_shot.png").exists()
    [alone] = evaluate_runs(model, twins, plain / "two", tmp_path / "out")["runs"]
    assert alone == result["runs"][1] | {"answers": alone["answers"]}


def omniglot_layout(folder, images):
    for i in range(2):
        write(folder / "run01" / "training" / f"class0{i + 1}.png", images[i])
        write(folder / "run01" / "test" / f"item0{i + 1}.png", images[2 + i])
    labels = folder / "run01" / "class_labels.txt"
    labels.write_text(
        "run01/test/item01.png run01/training/class02.png\n"
        "run01/test/item02.png run01/training/class01.png\n"
    )
    return labels


def test_labels_of_omniglots_layout(images, tmp_path):
    omniglot_layout(tmp_path, images)
    [run] = read_one_shot_runs(tmp_path)
    assert run.classes == ("class01", "class02") and run.query_classes.tolist() == [1, 0]
    assert [file.rpartition("/")[2] for file in run.queries] == ["item01.png", "item02.png"]


def test_what_is_missing_is_named(plain, images, tmp_path):
    def refused(words, path=plain):
        with pytest.raises(DataError, match=words):
            read_one_shot_runs(path)

    refused("There is no folder .*/nowhere", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused("empty holds no runs: expected a folder for each, with", tmp_path / "empty")
    (plain / "two" / "query").rename(plain / "two" / "queries")
    refused(r"two is no run: expected a folder 'support'.*\['queries', 'support'\]")
    (plain / "two" / "queries").rename(plain / "two" / "query")
    (plain / "one" / "query" / "c.png").rename(plain / "one" / "query" / "d.png")
    refused(r"one: queries of \['d'\], of which nothing is known.*one/support: \['a', 'b', 'c'\]")
    shutil.rmtree(plain / "one")
    (plain / "two" / "support" / "c.png").rename(plain / "two" / "support" / "b" / "c.png")
    refused(r"support has the classes \['b'\]: expected two or more")
    (plain / "two" / "support" / "c").mkdir()
    refused("support/c has no images")
    (plain / "two" / "support" / "c" / "c.png").write_text("no picture")
    with pytest.raises(keras_shared.KerasSharedError, match=r"support/c/c.png"):
        read_one_shot_runs(plain)


def test_labels_that_do_not_fit(images, tmp_path):
    labels = omniglot_layout(tmp_path, images)
    whole = labels.read_text()
    for text, words in (
        (whole.splitlines()[0], r"no line for \['item02.png'\] in .*/run01/test"),
        (whole.replace("item02", "item03"), "line 2: 'run01/test/item03.png .*names no query"),
        (whole.replace(" ", ""), "line 1.*Expected a file in .*run01/test, a blank"),
        (whole.replace("class02", "class09"), r"queries of \['class09'\], of which nothing"),
    ):
        labels.write_text(text)
        with pytest.raises(DataError, match=words):
            read_one_shot_runs(tmp_path)
    labels.unlink()
    with pytest.raises(DataError, match="write .*run01/class_labels.txt"):
        read_one_shot_runs(tmp_path)


def test_a_model_of_another_task(plain, tmp_path, capsys):
    command = ["evaluate", "lenet5_mnist", "--runs", str(plain), "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "need a model that compares images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["omniglot", "plain"])
def test_omniglots_own_runs_give_the_published_error(data_dir, tmp_path, layout, capsys):
    test = load_omniglot("test", data_dir)
    order = np.random.default_rng(5)
    for number, (known, queries) in enumerate(test.runs, 1):
        run, lines = tmp_path / "all_runs" / f"run{number:02}", []
        for i, item in enumerate(order.permutation(20)):
            if layout == "omniglot":
                write(run / "training" / f"class{i + 1:02}.png", test.images[known[i]])
                write(run / "test" / f"item{i + 1:02}.png", test.images[queries[item]])
                lines.append(
                    f"{run.name}/test/item{i + 1:02}.png {run.name}/training/class{item + 1:02}.png"
                )
            else:
                write(run / "support" / f"{i}.png", test.images[known[i]])
                write(run / "query" / f"{i}" / "0.png", test.images[queries[i]])
        if lines:
            (run / "class_labels.txt").write_text("\n".join(lines))
    command = ["evaluate", "siamese_omniglot", "--runs", str(tmp_path / "all_runs")]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    entry = keras_shared.presets.names.entry_dir("siamese_omniglot")
    published = json.loads((entry / "metrics.json").read_text())["test"]
    error = published["within_group_20_way_error_percent"]
    assert json.loads((tmp_path / "out" / "one_shot.json").read_text())[
        "one_shot_error_percent"
    ] == pytest.approx(error, abs=1e-3)
    assert f"one-shot error {error} % in 20 runs" in capsys.readouterr().out
