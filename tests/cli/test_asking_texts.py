"""Texts and sentences through the commands, from training to prediction."""

import json
import pathlib
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

import keras_shared
from keras_shared.cli import main
from keras_shared.errors import KerasSharedError
from keras_shared.recipes import recipe_from
from keras_shared.training import Run, train, training_data
from keras_shared.training.build import test_data, with_data_arguments

LINES = ["the cat sat on a mat.", "a dog ran to the house.", "the old man slept."]
TABLE = {
    "name": "mine",
    "model": {"class_name": "TiedLanguageModel", "units": 12, "num_layers": 1},
    "data": {"name": "text", "path": "mine.txt", "sequence_length": 16},
    "training": {"learning_rate": 0.01, "epochs": 2, "batch_size": 16},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with a text."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    (tmp_path / "mine.txt").write_text("".join(f"{random.choice(LINES)}\n" for _ in range(120)))
    return tmp_path


def ask(capsys, *arguments):
    capsys.readouterr()
    code = main(["predict", *arguments])
    return code, *capsys.readouterr()


def test_the_vocabulary_comes_from_the_training_text_and_stays_with_the_run(here):
    recipe = recipe_from(TABLE)
    with pytest.raises(KerasSharedError, match=r"set model\.vocabulary"):
        test_data(recipe)
    known = with_data_arguments(recipe)
    data = training_data(recipe)
    assert known.model.vocabulary == data.vocabulary and len(data.vocabulary) == 18
    known.write("kept.toml")
    from keras_shared.recipes import read_recipe

    assert read_recipe("kept.toml").model.vocabulary == data.vocabulary
    split, batches = test_data(known)
    [asked] = [int(sum((y != 0).sum() for _, y in batches.as_numpy_iterator()))]
    assert asked == len(split.text) - 1


@pytest.mark.slow
def test_a_training_that_was_interrupted_ends_as_an_unbroken_one(here):
    dropping = TABLE | {"model": TABLE["model"] | {"dropout": 0.3}}
    recipe = recipe_from(dropping)
    whole = train(recipe, training_data(recipe), here / "whole", verbose=0)

    data = training_data(recipe)

    def first_epoch():
        yield from data.batches(0, 1)
        raise OSError("the power is cut")

    def stopping(first, last):
        spec = data.batches(first, last).element_spec
        return tf.data.Dataset.from_generator(first_epoch, output_signature=spec)

    broken = data._replace(batches=stopping)
    with pytest.raises(KerasSharedError):
        train(recipe, broken, here / "broken", verbose=0)
    assert Run(here / "broken").epochs_done() == 1
    again = train(recipe, data, here / "broken", verbose=0)
    for a, b in zip(whole.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_language_model_through_all_commands(here, capsys):
    recipe_from(TABLE).write("recipe.toml")
    assert main(["train", "recipe.toml", "--set", "training.epochs=20"]) == 0
    assert main(["evaluate", "runs/mine"]) == 0
    metrics = json.loads(pathlib.Path("runs/mine/metrics.json").read_text())
    assert metrics["test"]["unknown_tokens"] == 0
    assert metrics["test"]["perplexity"] < metrics["baselines"]["unigram_perplexity"]
    saved = metrics["parameters"]["without_sharing"] - metrics["parameters"]["all"]
    assert saved == (18 + 2) * 12 and len(metrics["samples"]) == 3
    card = pathlib.Path("runs/mine/README.md").read_text()
    for said in ("## Samples", "```text", f"{saved:,} more", "learning_curves.png", "perplexity"):
        assert said in card
    assert metrics["samples"][0].splitlines()[0] in card

    assert main(["publish", "runs/mine"]) == 0
    model = keras_shared.load("mine")
    code, printed, said = ask(capsys, "mine", "--text", "the ", "--seed", "3", "--temperature", "1")
    assert code == 0 and not said
    assert printed == model.generate("the ", 100, 1.0, 0, 3) + "\n"
    code, printed, said = ask(capsys, "mine", "--text", "the z\u00e9", "--top", "2", "--json")
    [row] = json.loads(printed)
    assert len(row["top"]) == 2 and row["unknown_tokens"] == 2
    assert "2 token(s) of 'the z\u00e9' are not in the model's vocabulary" in said
    code, printed, said = ask(capsys, "mine", "--text", " ")
    assert code == 1 and not printed and len(said.splitlines()) == 1

    pathlib.Path("other.txt").write_text("the man sat on a house.\nyes!\n" * 40)
    assert main(["fine-tune", "mine", "--data", "other.txt", "--set", "training.epochs=1"]) == 0
    tuned = Run("runs/mine_other")
    assert tuned.recipe().model.vocabulary == model.vocabulary  # without y and !
    assert main(["evaluate", "runs/mine_other"]) == 0
    metrics = json.loads(pathlib.Path("runs/mine_other/metrics.json").read_text())
    assert metrics["test"]["unknown_tokens"] > 0


@pytest.mark.slow
@pytest.mark.thorough
def test_arms_of_a_language_model_are_compared(here, capsys):
    arms = [
        {"name": "tied"},
        {"name": "untied", "training.sharing": "unshared"},
        {"name": "projection", "model.projection": 0.15},
    ]
    table = TABLE | {"comparison": {"seeds": [1, 2], "arms": arms}}
    recipe_from(table).write("recipe.toml")
    assert main(["compare", "recipe.toml"]) == 0
    result = json.loads(pathlib.Path("runs/mine_compared/comparison.json").read_text())
    rows = {row["arm"]: row for row in result["summary"]}
    assert rows["untied"]["parameters"] - rows["tied"]["parameters"] == (18 + 2) * 12
    assert rows["projection"]["parameters"] - rows["tied"]["parameters"] == 12 * 12
    for run in result["runs"]:
        assert run["test"]["perplexity"] > 1
        assert run["history"]["val_loss_per_token"][-1] < 4
    assert not result["left_out"]


# === Sentences ===

NET = """
import keras
from keras_shared.signature import Signature
from keras_shared.tokenizing import SPECIAL, Tokenizer, with_a_token
from keras_shared.zoo import ZooModel


@keras.saving.register_keras_serializable("words")
class WordReader(ZooModel):
    task = "sentence_classification"
    loss_names = ("sparse_categorical_crossentropy",)
    description = "Reads word by word."
    limits = "It knows few words."

    def __init__(self, vocabulary: list[str] | None = None, class_names: list[str] | None = None,
                 standardize: str = "lower", dtype=None, **kwargs):
        base = self._policy(dtype)
        names = tuple(class_names or ("no", "yes"))
        vocabulary = tuple(vocabulary or ("a",))
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        x = keras.layers.Embedding(len(vocabulary) + SPECIAL, 8, mask_zero=True, dtype=base,
                                   name="table")(tokens)
        x = keras.layers.GRU(8, dtype=base, name="read")(x)  # finite for padding alone, too
        scores = keras.layers.Dense(len(names), dtype=base, name="scores")(x)
        super().__init__(tokens, scores, **kwargs)
        self.vocabulary, self.class_names, self.base_policy = vocabulary, names, base
        self.standardize = standardize
        self.tokenizer = Tokenizer("whitespace", standardize, vocabulary).layer()

    def signatures(self):
        def classify(text):
            tokens = with_a_token(self.tokenizer(text))
            return {"scores": self(tokens, training=False)}

        text = keras.KerasTensor((None,), "string")
        return {"classify": Signature(classify, {"text": text}, class_names=self.class_names)}

    def get_config(self):
        return {**super().get_config(), "vocabulary": self.vocabulary,
                "class_names": self.class_names, "standardize": self.standardize}
"""


@pytest.mark.slow
def test_own_sentences_through_all_commands(here, monkeypatch, capsys):
    (here / "words").mkdir()
    (here / "words" / "__init__.py").write_text("")
    (here / "words" / "net.py").write_text(textwrap.dedent(NET))
    monkeypatch.syspath_prepend(here)
    rows = [f"{'A' if i % 2 else 'a'} {word} film {i},{label}"
            for i, (word, label) in enumerate([("good", "yes"), ("bad", "no")] * 40)]  # fmt: skip
    pathlib.Path("mine.csv").write_text("\n".join(["text,label", *rows]))
    table = {
        "name": "films",
        "model": {"class_name": "words.net:WordReader"},
        "data": {"name": "sentences", "path": "mine.csv"},
        "training": {"learning_rate": 0.05, "epochs": 8, "batch_size": 8},
    }
    recipe_from(table).write("recipe.toml")
    assert main(["train", "recipe.toml"]) == 0
    assert main(["evaluate", "runs/films"]) == 0
    metrics = json.loads(pathlib.Path("runs/films/metrics.json").read_text())
    assert metrics["test"]["accuracy_percent"] == 100.0 and metrics["test"]["sentences"] == 16
    kept = Run("runs/films").recipe()
    assert kept.model.class_names == ("no", "yes") and "good" in kept.model.vocabulary
    assert "A" not in kept.model.vocabulary  # lower case, as the model's text becomes
    model = Run("runs/films").model()
    padded = np.array([[2, 3, 0, 0], [2, 3, 4, 5]], "int32")
    alone = model.predict(padded[:1, :2], verbose=0)
    np.testing.assert_allclose(model.predict(padded, verbose=0)[:1], alone, rtol=1e-5)
    assert main(["publish", "runs/films"]) == 0
    code, printed, _ = ask(capsys, "films", "--text", "A GOOD film", "--text", "so bad", "--json")
    assert code == 0 and [row["label"] for row in json.loads(printed)] == ["yes", "no"]
    assert main(["train", "recipe.toml", "--data", "mine.txt", "--out", "x"]) == 1
    assert "--data takes a .csv file of text,label, for sentence_classification" in (
        capsys.readouterr().err
    )
    for name in [name for name in sys.modules if name.partition(".")[0] == "words"]:
        del sys.modules[name]
