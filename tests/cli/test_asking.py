"""`predict` and `verify` with pictures as people have them."""

import csv
import importlib.resources
import io
import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageDraw

from keras_shared.cli import main
from keras_shared.files.pictures import read_picture


def seven():
    """A bright 7 on dark ground, as MNIST has it."""
    image = Image.new("L", (28, 28))
    ImageDraw.Draw(image).line([(7, 6), (20, 6), (12, 23)], fill=255, width=3)
    return image


def turned_by_a_note(image):
    """Lying pixels, and the EXIF note that turns them upright."""
    note = Image.Exif()
    note[0x0112] = 6
    return {"image": image.rotate(90, expand=True), "exif": note}


def on_paper(kind):
    image = Image.new("L", (105, 105), 255)
    draw = ImageDraw.Draw(image)
    if kind == "ring":
        draw.ellipse((25, 25, 80, 80), outline=0, width=3)
    else:
        draw.line([(30, 20), (30, 80), (80, 80)], 0, 3)
    return image


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    seven().save("seven.png")
    return tmp_path


@pytest.fixture
def ask(capsys):
    def ask(*words):
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return ask


def column(table, output):
    rows = [[cell.strip() for cell in line.split("│")] for line in table.splitlines()]
    return [row[row.index(output) + 1] for row in rows if output in row]


def test_label_and_probability(here, ask):
    status, table, said = ask("predict", "lenet5_modern_mnist", "seven.png")
    assert (status, said) == (0, "")
    [label] = column(table, "label")
    name, share = label.removesuffix(" %)").split(" (")
    assert name == "7" and 50 < float(share) <= 100
    _, table, _ = ask("predict", "lenet5_modern_mnist", "seven.png", "--top", 3)
    shares = [float(part.split("(")[1]) for part in column(table, "label")[0].split(" %)")[:-1]]
    assert len(shares) == 3 and shares == sorted(shares, reverse=True) and sum(shares) <= 100.1


def test_distances_leave_a_share_to_none_of_the_classes(here, ask):
    """LeCun 1998, equation 9, with the rubbish class as far as few digits are."""
    picture = importlib.resources.files("keras_shared.pictures") / "digit.png"
    (here / "digit.png").write_bytes(picture.read_bytes())
    Image.new("L", (28, 28)).save("nothing.png")
    _, text, _ = ask("predict", "lenet5_mnist", "digit.png", "nothing.png", "--json")
    digit, nothing = json.loads(text)
    assert digit["label"] == "7" and digit["probability"] > 0.9 and nothing["probability"] < 0.5
    odds = np.exp(digit["scores"])
    expected = odds / (odds.sum() + np.exp(-5.0))
    np.testing.assert_allclose(digit["probabilities"], expected, rtol=1e-5)
    _, table, _ = ask("predict", "lenet5_mnist", "digit.png")
    assert "none of the classes" in column(table, "label")[0]


def test_several_files_and_a_folder(here, ask):
    (here / "album").mkdir()
    for name in ("b.jpg", "a.png", "c.webp"):
        seven().save(here / "album" / name)
    (here / "album" / "notes.txt").write_text("bought in May")
    (here / "album" / ".hidden").write_text("")
    (here / "album" / "deeper").mkdir()
    status, table, said = ask("predict", "lenet5_modern_mnist", "seven.png", "album")
    assert status == 0 and [label[0] for label in column(table, "label")] == ["7"] * 4
    assert said.startswith("keras-shared: skipped. album/notes.txt is not a picture")
    assert said.count("\n") == 1
    order = [table.index(name) for name in ("seven.png", "a.png", "b.jpg", "c.webp")]
    assert order == sorted(order)
    (here / "empty").mkdir()
    status, _, said = ask("predict", "lenet5_modern_mnist", "empty")
    assert status == 1 and "empty holds no pictures: expected files" in said


def test_json_and_csv(here, ask):
    seven().save("other.bmp")
    files = "seven.png", "other.bmp"
    _, text, _ = ask("predict", "lenet5_modern_mnist", *files, "--top", 2, "--json")
    rows = json.loads(text)
    assert [row["file"] for row in rows] == list(files)
    assert rows[0]["label"] == "7" and rows[0]["classes"] == list("0123456789")
    assert next(iter(rows[0]["top"])) == "7" and len(rows[0]["top"]) == 2
    _, text, _ = ask("predict", "lenet5_modern_mnist", *files, "--top", 2, "--csv")
    table = list(csv.DictReader(io.StringIO(text)))
    assert [row["label"] for row in table] == ["7", "7"] and "label_2" in table[0]
    assert float(table[0]["probability"]) == pytest.approx(rows[0]["probability"])
    assert float(table[0]["scores_3"]) == pytest.approx(rows[0]["scores"][3])
    status, out, _ = ask("predict", "lenet5_modern_mnist", *files, "--json", "a.json",
                         "--csv", "a.csv")  # fmt: skip
    assert (status, out) == (0, "")
    assert len(json.loads((here / "a.json").read_text())) == 2
    assert (here / "a.csv").read_text().startswith("file,label,")


def test_json_never_writes_over_a_picture(here, ask):
    shutil.copy("seven.png", "eight.png")
    before = (here / "eight.png").read_bytes()
    status, _, said = ask("predict", "lenet5_mnist", "seven.png", "--json", "eight.png")
    assert status == 2 and "Put pictures before" in said
    assert (here / "eight.png").read_bytes() == before
    assert ask("predict", "lenet5_mnist", "seven.png", "eight.png", "--json")[0] == 0


def test_a_batch_of_numbers_is_answered_row_by_row(here, ask):
    images = np.stack([np.array(seven()), np.zeros((28, 28))])[..., None]
    np.save("two.npy", images)
    _, text, _ = ask("predict", "lenet5_modern_mnist", "two.npy", "--json")
    rows = json.loads(text)
    assert [row["file"] for row in rows] == ["two.npy[0]", "two.npy[1]"]
    assert rows[0]["label"] == "7" and rows[0]["scores"] != rows[1]["scores"]


@pytest.mark.slow
def test_bright_ink_is_warned_of_by_a_model_of_characters(here, ask):
    """siamese_omniglot reads dark ink: of two inverted pictures it says that it is in doubt."""
    white = np.full((60, 60), 255, "uint8")
    white[20:40, 28:32] = 0
    for name, pixels in (("paper.png", white), ("board.png", 255 - white)):
        Image.fromarray(pixels).save(name)
    _, on_paper, said = ask("verify", "paper.png", "paper.png")
    assert said == ""
    _, _, said = ask("verify", "board.png", "board.png")
    assert said.count("board.png has a dark ground, and this model reads dark ink on a bright") == 2
    _, inverted, said = ask("verify", "board.png", "board.png", "--invert")
    assert said == "" and inverted == on_paper
    _, _, said = ask("enrol", "a.npz", "anna", "board.png")
    assert "Try --invert" in said
    _, _, said = ask("identify", "a.npz", "board.png", "--invert")
    assert said == ""


def test_dark_ink_is_warned_of_and_inverted(here, ask):
    Image.eval(seven(), lambda value: 255 - value).save("dark.png")
    _, _, said = ask("predict", "lenet5_modern_mnist", "dark.png")
    assert "dark.png has a bright ground" in said and "Try --invert" in said
    _, inverted, said = ask("predict", "lenet5_modern_mnist", "dark.png", "--invert")
    _, bright, _ = ask("predict", "lenet5_modern_mnist", "seven.png")
    assert said == "" and column(inverted, "scores") == column(bright, "scores")
    _, _, said = ask("predict", "lenet5_modern_mnist", "seven.png", "--invert")
    assert "Leave out --invert" in said
    assert ask("predict", "siamese_omniglot", "dark.png")[2] == ""  # it is made for paper


def test_digits_of_ones_own_may_lie_on_paper(here, ask):
    """Of a model that is not of the zoo nobody knows here what ink it learnt."""
    from keras_shared.presets.names import version_dir

    shutil.copytree(version_dir("lenet5_modern_mnist"), "mine/1")
    Image.eval(seven(), lambda value: 255 - value).save("dark.png")
    _, _, said = ask("predict", "./mine", "dark.png")
    assert "LeNet5 is made for bright ink on a dark one. If it was not trained on pictures" in said
    assert said.rstrip().endswith("the answer is unreliable: try --invert then.")


@pytest.mark.slow
def test_classes_of_ones_own_may_lie_on_paper(here, ask, monkeypatch):
    import keras_shared
    from keras_shared.zoo import LeNet5

    keras_shared.publish(LeNet5(variant="modern", class_names=["cat", "dog"]), "pets")
    Image.new("RGB", (40, 30), "white").save("white.jpg")
    status, table, said = ask("predict", "./pets", "white.jpg")
    assert (status, said) == (0, "") and column(table, "label")[0][:3] in ("cat", "dog")


def test_a_picture_for_a_model_of_vectors(here, ask):
    seven().save("large.bmp")
    vector = np.array(seven()).reshape(1, 784) / 255
    np.save("seven.npy", vector)
    seven().convert("RGB").save("colour.png")
    rows = []
    for file in ("seven.png", "large.bmp", "colour.png", "seven.npy"):
        _, text, _ = ask("predict", "tied_autoencoder_mnist", file, "--json")
        rows.append(json.loads(text)[0]["reconstruction"])
    for row in rows[:3]:
        np.testing.assert_allclose(row, rows[3], atol=1e-4)
    status, text, said = ask(
        "predict", "tied_autoencoder_mnist", "seven.png", "large.bmp", "--out", "drawn", "--json"
    )
    assert status == 0 and "drawn/seven_reconstruction.png" in said and json.loads(text)
    pixels = read_picture("drawn/large_reconstruction.png")
    assert pixels.shape == (28, 28, 1)
    np.testing.assert_allclose(pixels.ravel() / 255, np.clip(rows[3], 0, 1), atol=0.003)
    status, _, said = ask("predict", "lenet5_mnist", "seven.png", "--out", "drawn")
    assert status == 1 and "--out writes square reconstructions" in said
    assert "--debug" not in said
    (here / "again").mkdir()
    shutil.copy("seven.png", "again/seven.png")
    ask("predict", "tied_autoencoder_mnist", "seven.png", "again", "--out", "both")
    assert len(list((here / "both").iterdir())) == 2


@pytest.mark.slow
def test_a_model_of_other_vectors_asks_for_npy(here, ask):
    import keras

    import keras_shared

    inputs = keras.Input((5,), name="x")
    keras_shared.publish(keras.Model(inputs, keras.layers.Dense(1, name="y")(inputs)), "line")
    status, _, said = ask("predict", "./line", "seven.png")
    assert status == 1 and "Numbers come from .npy files" in said


@pytest.mark.slow
def test_photos_are_turned_and_transparency_lies_on_white(here, ask):
    note = turned_by_a_note(seven())
    note["image"].save("turned.jpg", exif=note["exif"], quality=95)
    seven().save("upright.jpg", quality=95)
    _, table, _ = ask("predict", "lenet5_modern_mnist", "upright.jpg", "turned.jpg")
    assert [label[0] for label in column(table, "label")] == ["7", "7"]
    shapes = {kind: on_paper(kind) for kind in ("ring", "corner")}
    for kind, image in shapes.items():
        image.save(f"{kind}.png")
        black = Image.new("L", image.size)
        clear = Image.eval(image, lambda value: 255 - value)
        Image.merge("LA", (black, clear)).save(f"{kind}_clear.png")
    status, expected, _ = ask("verify", "ring.png", "corner.png")
    assert status == 0 and expected.startswith("different: probability 0.")
    assert "(threshold 0.5), distance " in expected
    assert ask("verify", "ring_clear.png", "corner_clear.png")[1] == expected
    note = turned_by_a_note(shapes["corner"])
    note["image"].save("corner_turned.png", exif=note["exif"])
    assert ask("verify", "corner.png", "corner_turned.png")[1].startswith("same: probability ")


@pytest.mark.parametrize("wrong", ["0", "-1", "many"])
def test_top_needs_a_number(wrong, here, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["predict", "lenet5_mnist", "seven.png", f"--top={wrong}"])
    assert stop.value.code == 2 and "expected a number from 1" in capsys.readouterr().err


def of_tensorflow_1(folder):
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder("float32", (None, 2), name="x")
        kernel = v1.get_variable("kernel", (2, 3), initializer=v1.ones_initializer())
        y = x @ kernel
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder / "1"), {"x": x}, {"y": y})


def test_savedmodels_of_other_programs_are_asked_and_counted(here, ask):
    np.save("rows.npy", np.array([[1.0, 2.0]]))
    of_tensorflow_1(here / "old")
    assert json.loads(ask("predict", "old", "rows.npy", "--json")[1])[0]["y"] == [3, 3, 3]
    assert ask("inspect", "old", "--json", "report.json")[0] == 0
    assert json.loads((here / "report.json").read_text())["totals"]["parameters"] == 6
    kernel = tf.Variable([[1.0], [2.0]])
    optimizer = tf.compat.v1.train.MomentumOptimizer(0.1, 0.9)  # plain tf.saved_model.load fails
    optimizer.apply_gradients([(tf.zeros_like(kernel), kernel)])
    module = tf.Module()
    module.holds = [kernel, optimizer]
    spec = tf.TensorSpec((None, 2), tf.float32, name="x")
    function = tf.function(lambda x: {"y": x @ kernel}, input_signature=[spec])
    tf.saved_model.save(module, "trained/1", function)
    assert json.loads(ask("predict", "trained", "rows.npy", "--json")[1])[0]["y"] == [5]
    (here / "trained/1/saved_model.pb").write_bytes(b"\xff")
    status, _, said = ask("predict", "trained", "rows.npy")
    assert status == 1 and "cannot load the SavedModel trained/1" in said and "keras-shared" in said


def test_whole_numbers_and_text_in_npy_files(here, ask):
    spec = tf.TensorSpec((None, 2), tf.int64, name="ids")
    double = tf.function(lambda ids: {"y": ids * 2}, input_signature=[spec])
    tf.saved_model.save(tf.Module(), "ids/1", double)
    np.save("ids.npy", np.array([[2**40, 3]]))
    assert json.loads(ask("predict", "ids", "ids.npy", "--json")[1])[0]["y"] == [2**41, 6]
    np.save("half.npy", np.array([[0.5, 3]]))
    assert "no signature that takes ['half.npy']" in ask("predict", "ids", "half.npy")[2]
    np.save("words.npy", np.array(["a", "b"]))
    assert "words.npy is not a .npy file of numbers" in ask("predict", "ids", "words.npy")[2]


@pytest.fixture
def piped(monkeypatch):
    """Lets the commands read these bytes from a pipe."""

    def pipe(content):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return pipe


def test_a_pipe_is_read_where_it_is_asked_for(here, ask, piped):
    piped((here / "seven.png").read_bytes())
    _, text, said = ask("predict", "lenet5_modern_mnist", "-", "--json")
    assert json.loads(text)[0]["label"] == "7" and json.loads(text)[0]["file"] == "-" and not said
    vectors = io.BytesIO()
    np.save(vectors, np.stack([np.array(seven())] * 2)[..., None])
    piped(vectors.getvalue())
    _, text, _ = ask("predict", "lenet5_modern_mnist", "-", "--json")
    assert [row["file"] for row in json.loads(text)] == ["-[0]", "-[1]"]
    on_paper("ring").save("ring.png")
    piped((here / "ring.png").read_bytes())
    assert ask("verify", "-", "ring.png")[1].startswith("same")
    piped(b"")
    assert "is empty: expected PNG" in ask("predict", "lenet5_modern_mnist", "-")[2]
    assert "can be read once" in ask("verify", "-", "-")[2]


def test_pipes_and_devices_are_not_waited_for(here, ask):
    for name in ("pipe.png", "pipe.npy"):
        os.mkfifo(name)
        status, _, said = ask("predict", "tied_autoencoder_mnist", "seven.png", name)
        assert status == 1 and said == f"keras-shared: {name} is no regular file.\n"


def test_names_are_text(here, ask):
    name = "[red]x[b]\x1b[31m.png"
    seven().save(name)
    _, table, _ = ask("predict", "lenet5_modern_mnist", name)
    assert "[red]x[b]\\x1b[31m.png" in table and "\x1b[31m" not in table
    _, _, said = ask("predict", "lenet5_modern_mnist", "no\x1b[31m.png")
    assert said == "keras-shared: There is no file no\\x1b[31m.png.\n"


def test_a_graph_that_fails_says_why(here, ask):
    spec = tf.TensorSpec((None, 2), tf.float32, name="x")

    @tf.function(input_signature=[spec])
    def fails(x):
        check = tf.debugging.assert_less(x, 1.0, message="x is \x1b[31mtoo large")
        with tf.control_dependencies([check]):
            return {"y[red]": x, "text": tf.constant([b"\xff\x1b[31m"])}

    tf.saved_model.save(tf.Module(), "graph/1", fails)
    np.save("large.npy", np.array([[2.0, 3.0]]))
    np.save("small.npy", np.array([[0.0, 0.5]]))
    status, _, said = ask("predict", "graph", "large.npy")
    assert status == 1 and "The signature 'serving_default' of graph/1 fails for ['large" in said
    assert "too large" in said and "element-wise" in said  # the assertion, and its reason
    assert "\x1b" not in said and said.count("\n") == 1
    status, table, _ = ask("predict", "graph", "small.npy")
    assert status == 0 and "y[red]" in table and "\\xff\\x1b[31m" in table
    seven().save("other.png")
    status, _, said = ask("verify", "seven.png", "other.png", "--model", "graph")
    assert status == 1 and "graph/1 has no signature that takes" in said
