"""A new model, data set, task, loss, initialiser or command is a file and a line, and no edit here.

Each is a toy in a package of its own, outside of the library, and goes through recipe, train,
evaluate, card, compare and publish by the commands that everybody types. (A new tied layer:
tests/layers/test_a_new_tied_layer.py.)
"""

import json
import pathlib
import re
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from PIL import Image

import keras_shared
from keras_shared.cli import main
from keras_shared.recipes import read_recipe
from keras_shared.training import Run

# === A colour classifier on an own data set, with an own loss, initialiser, and headline metric ===

COLOURS = """
import numpy as np
from keras_shared.datasets import Dataset, LabelledImages

NAMES = ("red", "green", "blue")


def load(split, data_dir=None):
    random = np.random.default_rng(0 if split == "train" else 1)
    labels = random.integers(0, 3, 240 if split == "train" else 60)
    images = random.integers(0, 120, (len(labels), 6, 6, 3)).astype("uint8")
    images[np.arange(len(labels)), :, :, labels] += 120
    return LabelledImages(images, labels, np.arange(3), NAMES, NAMES)


COLOURS = Dataset("Coloured patches", "drawn at random", "CC0", LabelledImages, load)
"""
COLOUR_TASK = """
import dataclasses
import numpy as np
from keras_shared.tasks import Metric, Shown
from keras_shared.tasks.classification import CLASSIFICATION


def measure(test):
    right = test.outputs.argmax(-1) == test.truth
    return {"patches": len(right), "colours_right": round(float(right.mean()), 4)}


COLOUR = dataclasses.replace(
    CLASSIFICATION,
    name="colour",
    losses=("sparse_categorical_crossentropy", "toys.loss:PatientLoss"),
    measure=measure,
    headline=Metric("colours named rightly", "colours_right", "", more_is_better=True),
    plots=lambda test: {},
    show=lambda outputs, top: Shown(f"I see {outputs['label'].item().decode()}", {}),
)
"""
LOSS = """
import keras


@keras.saving.register_keras_serializable("toys")
class PatientLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        loss = keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        return loss / 2
"""
INITIALISER = """
import keras


@keras.saving.register_keras_serializable("toys")
class Checkered(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        signs = [(-1.0) ** i for i in range(shape[-1])]
        return 0.1 * keras.ops.ones(shape, dtype) * keras.ops.convert_to_tensor(signs, dtype)
"""
COLOUR_NET = """
from typing import Literal
import keras
from keras_shared.zoo import ImageClassifier
from toys.initialiser import Checkered


@keras.saving.register_keras_serializable("toys")
class ColourNet(ImageClassifier):
    task = "toys.task:COLOUR"
    description = "Names the colour of a patch."
    limits = "It knows three colours."

    def __init__(self, width: Literal[4, 8] = 4, dtype=None, **kwargs):
        base = self._policy(dtype)
        image = keras.Input((6, 6, 3), name="image")
        x = keras.layers.Rescaling(1 / 255, dtype=base, name="rescale")(image)
        x = keras.layers.GlobalAveragePooling2D(dtype=base, name="pool")(x)
        hidden = keras.layers.Dense(width, "relu", dtype=base, name="hidden")
        logits = keras.layers.Dense(3, kernel_initializer=Checkered(), dtype=base, name="logits")
        super().__init__(image, logits(hidden(x)), **kwargs)
        self.width, self.base_policy = width, base
        self.class_names = ("red", "green", "blue")

    def get_config(self):
        return {**super().get_config(), "width": self.width}
"""
COLOUR_RECIPE = """
name = "colour_patches"
[model]
class_name = "toys.net:ColourNet"
[data]
name = "toys.colours:COLOURS"
validation_images = 40
[training]
loss = "toys.loss:PatientLoss"
learning_rate = 0.05
epochs = 4
batch_size = 20
"""

# === Examples that are no images, two outputs with a loss each, something before compile ===

SENTENCES = """
from typing import NamedTuple
import numpy as np
from keras_shared.datasets import Dataset


class Sentences(NamedTuple):
    words: np.ndarray  # (sentences, 5), numbers of words
    is_question: np.ndarray
    length: np.ndarray


def load(split, data_dir=None):
    random = np.random.default_rng(2 if split == "train" else 3)
    words = random.integers(1, 9, (200 if split == "train" else 50, 5)).astype("int32")
    length = random.integers(2, 6, len(words))
    words[np.arange(5) >= length[:, None]] = 0
    return Sentences(words, (words == 7).any(1), length.astype("float32"))


SENTENCES = Dataset("Sentences", "drawn at random", "CC0", Sentences, load)
"""
SENTENCE_TASK = """
import numpy as np
import tensorflow as tf
from keras_shared.batching import TrainingData
from keras_shared.section import Count, Section
from keras_shared.tasks import Metric, Monitor, Task
from toys.sentences import Sentences


class SentenceData(Section):
    name: str
    validation_sentences: Count = 50


def batches(split, size):
    targets = {"question": split.is_question.astype("float32"), "length": split.length}
    return tf.data.Dataset.from_tensor_slices((split.words, targets)).batch(size)


def training_data(split, data, batch_size, seed):
    held_out = data.validation_sentences
    train = batches(Sentences(*(column[held_out:] for column in split)), batch_size)
    validation = batches(Sentences(*(column[:held_out] for column in split)), batch_size)
    steps = train.cardinality().numpy()
    return TrainingData(lambda first, last: train.repeat(last - first), steps, validation,
                        {"sentences": len(split.words) - held_out})


def compile_arguments(loss):
    return {"loss": {"question": loss, "length": "mean_squared_error"},
            "metrics": {"question": ["accuracy"]}}


def measure(test):
    question = (test.outputs["question"][:, 0] > 0.5) == test.truth["question"]
    length = np.abs(test.outputs["length"][:, 0] - test.truth["length"])
    return {"questions_right": round(float(question.mean()), 4),
            "words_off": round(float(length.mean()), 4)}


def start_at_the_mean_length(model, data):
    lengths = np.concatenate([y["length"] for _, y in data.batches(0, 1).as_numpy_iterator()])
    model.get_layer("length").bias.assign([lengths.mean()])
    model.prepared = float(lengths.mean())


SENTENCE = Task(
    name="sentence",
    takes=Sentences,
    data=SentenceData,
    losses=("binary_crossentropy",),
    training_data=training_data,
    test_batches=lambda split, data, seed: batches(split, 25),
    compile_arguments=compile_arguments,
    measure=measure,
    headline=Metric("words off", "words_off", "", more_is_better=False),
    monitor=Monitor("val_length_loss", more_is_better=False),
    plots=lambda test: {},
    captions={},
    show=lambda outputs, top: f"{outputs['length'].item():.1f} words",
    prepare=start_at_the_mean_length,
)
"""
SENTENCE_NET = """
import keras
from keras_shared.signature import Signature
from keras_shared.zoo import ZooModel


@keras.saving.register_keras_serializable("toys")
class SentenceNet(ZooModel):
    task = "toys.sentence_task:SENTENCE"
    description = "Is it a question, and how long?"
    limits = "It knows eight words."

    def __init__(self, dtype=None, **kwargs):
        base = self._policy(dtype)
        words = keras.Input((5,), dtype="int32", name="words")
        x = keras.layers.Embedding(9, 6, dtype=base, name="table")(words)
        x = keras.layers.GlobalMaxPooling1D(dtype=base, name="pool")(x)
        question = keras.layers.Dense(1, "sigmoid", dtype=base, name="question")(x)
        length = keras.layers.Dense(1, dtype=base, name="length")(x)
        super().__init__(words, {"question": question, "length": length}, **kwargs)

    def signatures(self):
        words = keras.KerasTensor((None, 5), "int32")
        return {"ask": Signature(lambda words: self(words, training=False), {"words": words})}
"""
SENTENCE_RECIPE = """
name = "sentences"
[model]
class_name = "toys.sentence_net:SentenceNet"
[data]
name = "toys.sentences:SENTENCES"
[training]
learning_rate = 0.01
epochs = 3
batch_size = 25
"""

# === A trainer in the place of `fit`: a search, without optimizer or gradient ===

SEARCH_NET = """
import keras
import numpy as np
from toys.net import ColourNet


@keras.saving.register_keras_serializable("toys")
class SearchNet(ColourNet):
    description = "Names the colour of a patch by weights that were found by chance."

    def fit(self, batches, validation_data, initial_epoch, epochs, callbacks, **_):
        callbacks = keras.callbacks.CallbackList(callbacks, model=self, add_history=True)
        callbacks.on_train_begin()
        x, y = (np.concatenate(c) for c in zip(*validation_data.as_numpy_iterator()))
        best, accuracy = self.get_weights(), -1.0
        for epoch in range(initial_epoch, epochs):
            callbacks.on_epoch_begin(epoch)
            random = np.random.default_rng(epoch)
            for _ in range(10):
                self.set_weights([w + random.normal(0, 0.3, w.shape) for w in best])
                found = float(np.mean(self.predict_on_batch(x).argmax(-1) == y))
                if found > accuracy:
                    best, accuracy = self.get_weights(), found
            self.set_weights(best)
            callbacks.on_epoch_end(epoch, {"accuracy": accuracy, "val_accuracy": accuracy})
        callbacks.on_train_end()
"""

COMMAND = """
NAME = "greet"
HELP = "say hello"
EXAMPLE = "greet Ada"
LIGHT = True


def add_arguments(parser):
    parser.add_argument("name")


def run(options):
    print("hello", options.name)
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A package `toys` on the path, in an empty folder to work in."""
    files = {
        "colours": COLOURS, "task": COLOUR_TASK, "loss": LOSS, "initialiser": INITIALISER,
        "net": COLOUR_NET, "sentences": SENTENCES, "sentence_task": SENTENCE_TASK,
        "sentence_net": SENTENCE_NET, "search": SEARCH_NET, "greet": COMMAND, "__init__": "",
    }  # fmt: skip
    package = tmp_path / "lib" / "toys"
    package.mkdir(parents=True)
    for name, text in files.items():
        (package / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.chdir(tmp_path)
    yield package
    for name in [n for n in sys.modules if n == "toys" or n.startswith("toys.")]:
        del sys.modules[name]


@pytest.mark.slow
def test_a_colour_classifier(toys, capsys, monkeypatch):
    """Own model, data set, task, loss and initialiser, by dotted names in a recipe."""
    pathlib.Path("colours.toml").write_text(COLOUR_RECIPE)
    assert main(["train", "colours.toml"]) == 0
    assert main(["evaluate", "runs/colour_patches"]) == 0
    assert "colours named rightly 1.00" in capsys.readouterr().out
    metrics = json.loads(pathlib.Path("runs/colour_patches/metrics.json").read_text())
    assert metrics["test"] == {"patches": 60, "colours_right": 1.0}
    card = pathlib.Path("runs/colour_patches/README.md").read_text()
    for said in ("from toys.net import ColourNet", "Names the colour of a patch.",
                 "Coloured patches (drawn at random, CC0)", "colours right"):  # fmt: skip
        assert said in card
    assert main(["publish", "runs/colour_patches"]) == 0
    model = keras_shared.load("colour_patches")
    assert type(model).__name__ == "ColourNet"
    assert "Checkered" in str(model.get_layer("logits").get_config()["kernel_initializer"])
    patch = np.full((1, 6, 6, 3), 10)
    patch[..., 2] = 200
    assert model.class_names[model.predict(patch, verbose=0).argmax()] == "blue"
    Image.fromarray(patch[0].astype("uint8")).save("blue.png")
    capsys.readouterr()
    assert main(["predict", "colour_patches", "blue.png", "--import", "toys.net"]) == 0
    assert "I see blue" in capsys.readouterr().out  # as its task shows it
    alone = [sys.executable, "-m", "keras_shared.cli", "inspect", "colour_patches"]
    lost = subprocess.run(alone, capture_output=True, text=True)
    (advice,) = re.findall(r"on the command line: (--import [\w.]+)", lost.stderr)
    found = subprocess.run([*alone, *advice.split()], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert main(["inspect", "colour_patches", "--import", "toys.none"]) == 1
    assert "--import toys.none: it cannot be imported: Module" in capsys.readouterr().err
    call = ["compare", "colours.toml", "--vary", "model.width=4,8", "--seeds", "2", "--sizes", "5"]
    assert main([*call, "--set", "training.epochs=1"]) == 0
    result = json.loads(pathlib.Path("runs/colour_patches_compared/comparison.json").read_text())
    assert result["headline"]["title"] == "colours named rightly"
    small, large = result["summary"]
    assert large["parameters"] > small["parameters"]
    assert all(arm["peak_memory_bytes"] for arm in result["arms"])  # in a process of its own
    assert main(["train", "colours.toml", "--set", "model.width=5"]) == 1
    assert "`model.width`: received 5, expected 4 or 8" in capsys.readouterr().err


def test_a_line_in_a_list_gives_a_short_name(toys, monkeypatch):
    from toys import colours
    from toys.loss import PatientLoss
    from toys.net import ColourNet
    from toys.task import COLOUR

    from keras_shared import datasets, losses, tasks, zoo

    monkeypatch.setitem(zoo.MODELS, "ColourNet", ColourNet)
    monkeypatch.setitem(tasks.TASKS, "colour", COLOUR)
    monkeypatch.setitem(datasets.DATASETS, "colours", colours.COLOURS)
    monkeypatch.setitem(losses.LOSSES, "patient", PatientLoss)
    monkeypatch.setattr(ColourNet, "task", "colour")
    monkeypatch.setattr(ColourNet, "loss_names", ("patient",))
    text = COLOUR_RECIPE.replace("toys.net:", "").replace("toys.colours:COLOURS", "colours")
    pathlib.Path("colours.toml").write_text(text.replace("toys.loss:PatientLoss", "patient"))
    assert main(["train", "colours.toml", "--set", "training.epochs=1"]) == 0
    model = ColourNet()
    model.compile()
    assert isinstance(model.loss, PatientLoss)


@pytest.mark.slow
def test_sentences_with_two_outputs(toys, capsys):
    """An example is no image, each output has its loss, and weights start from the data."""
    pathlib.Path("sentences.toml").write_text(SENTENCE_RECIPE)
    assert main(["train", "sentences.toml"]) == 0
    history = Run("runs/sentences").history()
    assert {"question_loss", "length_loss", "val_question_accuracy"} <= set(history[0])
    assert history[0]["length_loss"] < 6  # from zero it would be the mean square, some 13
    assert main(["evaluate", "runs/sentences"]) == 0
    assert "words off" in capsys.readouterr().out
    assert main(["publish", "runs/sentences"]) == 0
    assert keras_shared.load("sentences").predict(np.ones((1, 5), int), verbose=0)
    call = ["compare", "sentences.toml", "--vary", "training.learning_rate=0.01,0.02"]
    assert main([*call, "--seeds", "1", "--set", "training.epochs=1"]) == 0
    assert main([*call, "--sizes", "5"]) == 1
    assert "images_per_class needs data of images with labels" in capsys.readouterr().err
    pathlib.Path("mixed.toml").write_text(
        SENTENCE_RECIPE.replace("toys.sentences:SENTENCES", "digits")
    )
    assert main(["train", "mixed.toml"]) == 1
    assert "'digits' holds LabelledImages, and sentence takes Sentences" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_in_the_place_of_fit(toys):
    """It is resumed, evaluated, compared and published like any training."""
    text = COLOUR_RECIPE.replace("toys.net:ColourNet", "toys.search:SearchNet")
    pathlib.Path("search.toml").write_text(text.replace("colour_patches", "searched"))
    assert main(["train", "search.toml", "--out", "runs/whole"]) == 0
    whole = Run("runs/whole")
    assert whole.epochs_done() == 4 and whole.history()[-1]["val_accuracy"] > 0.3

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras_shared.training.fit.EpochSeeds", lambda seed: Stop())
        assert main(["train", "search.toml"]) == 130
    assert Run("runs/searched").epochs_done() == 2
    assert main(["train", "search.toml"]) == 0
    assert len(Run("runs/searched").history()) == 4
    assert main(["evaluate", "runs/searched"]) == 0
    assert main(["publish", "runs/searched"]) == 0
    assert type(keras_shared.load("searched")).__name__ == "SearchNet"
    assert read_recipe("runs/searched/recipe.toml").model_class.__name__ == "SearchNet"


def test_a_command(toys, monkeypatch, capsys):
    from toys import greet

    from keras_shared.cli.command_line import COMMANDS

    monkeypatch.setattr("keras_shared.cli.command_line.COMMANDS", (*COMMANDS, greet))
    assert main(["greet", "Ada"]) == 0
    assert capsys.readouterr().out == "hello Ada\n"
