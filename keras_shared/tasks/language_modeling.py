"""Language modelling: what comes next in a text?"""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from keras_shared.batching.texts import TextData, numbers_of, text_test_batches, text_training_data
from keras_shared.datasets import TextStream
from keras_shared.losses import LossPerToken
from keras_shared.tasks.task import Metric, Monitor, Shown, Task, Tested
from keras_shared.tokenizing import PADDING, SPECIAL, UNKNOWN

SAMPLES = 3  # in the card
SAMPLED = {"character": 300, "whitespace": 60}  # tokens of each
TEMPERATURE = 0.8
LEAST = 20  # windows that a mean over them is drawn of


def language_metrics(
    losses: np.ndarray, targets: np.ndarray, characters: int, words: int | None = None
) -> dict[str, Any]:
    """How well each token is told from those before it.

    With `l` the mean of `-ln p(token | tokens before it)` over all N tokens that are asked for, the
    loss per token, in nats: the perplexity is `exp(l)` per token, which is a word or a character
    as the model's tokens are. Two measures are the same for both: a text of C characters takes
    `N l / (C ln 2)` bits per character, and one of W words and ends of lines has the perplexity
    `exp(l N / W)` per word. A token that is not in the vocabulary is to be told as "unknown"; the
    ends of lines are tokens.

    Args:
        losses: (windows, length), `-ln p` of each target.
        targets: (windows, length); 0 is not asked for.
        characters: of the text that the tokens are of.
        words: of that text, with the ends of lines; None where the tokens are these.

    Returns:
        Numbers of tokens and of unknown ones among them; loss_per_token, perplexity,
        perplexity_per_word and bits_per_character.

    Example:
        >>> import numpy as np
        >>> from keras_shared.tasks.language_modeling import language_metrics
        >>> sure_of_half = np.full((1, 4), np.log(2))
        >>> metrics = language_metrics(sure_of_half, np.array([[5, 2, 2, 0]]), 3, words=1)
        >>> metrics["tokens"], metrics["perplexity"], metrics["bits_per_character"]
        (3, 2.0, 1.0)
        >>> metrics["perplexity_per_word"]  # a word of three tokens: 2 ** 3
        8.0
    """
    asked = targets != PADDING
    tokens = int(asked.sum())
    total = float(losses[asked].astype("float64").sum())
    return {
        "tokens": tokens,
        "unknown_tokens": int(np.sum(targets == UNKNOWN)),
        "loss_per_token": round(total / tokens, 4),
        "perplexity": round(math.exp(min(total / tokens, 700)), 4),
        "perplexity_per_word": round(math.exp(min(total / (words or tokens), 700)), 4),
        "bits_per_character": round(total / (characters * math.log(2)), 4),
    }


def _outputs(model: keras.Model, batches: tf.data.Dataset) -> np.ndarray:
    """(windows, length): `-ln p` of each target; the logits of a long text fill no memory."""

    @tf.function(reduce_retracing=True)
    def losses(inputs: Any, targets: Any) -> Any:
        logits = tf.cast(model(inputs, training=False), tf.float32)
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)

    return np.concatenate([losses(x, y).numpy() for x, y in batches])


def _measure(test: Tested) -> dict[str, Any]:
    text = test.split.text
    own = test.split.tokenizer.split == "whitespace"
    words = None if own else len(text.split()) + text.count("\n")
    return language_metrics(test.outputs, test.truth, len(text), words)


def unigram_loss(train: np.ndarray, test: np.ndarray, size: int) -> float:
    """The loss per token of a model that knows how frequent each token is, and nothing else.

    Args:
        train: tokens to count, each once more than it is there.
        test: tokens to tell.
        size: of the vocabulary.

    Example:
        >>> import numpy as np
        >>> from keras_shared.tasks.language_modeling import unigram_loss
        >>> float(np.exp(unigram_loss(np.array([0, 1]), np.array([1, 1]), size=2)))
        2.0
    """
    counts = np.bincount(train, minlength=size) + 1.0
    return float(-np.log(counts / counts.sum())[test].mean())


def _baselines(
    model: keras.Model, train: tf.data.Dataset, test: Tested
) -> tuple[dict[str, float], dict[str, Figure]]:
    known = np.concatenate([y.numpy()[y.numpy() != PADDING] for _, y in train])
    size = len(test.split.tokenizer.vocabulary) + SPECIAL
    loss = unigram_loss(known, test.truth[test.truth != PADDING], size)
    return {"unigram_perplexity": round(math.exp(loss), 4)}, {}


def plot_loss_by_position(losses: np.ndarray, targets: np.ndarray) -> dict[str, Figure]:
    """How the loss falls with the number of tokens that the model has read of a window."""
    asked = targets != PADDING
    windows = asked.sum(axis=0)
    positions = np.flatnonzero(windows >= LEAST)
    if len(positions) < 2:
        return {}
    mean = (losses * asked).sum(axis=0)[positions] / windows[positions]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(positions + 1, mean, marker=".")
    axes.set(
        xlabel="tokens read in the window", ylabel="loss per token (nats)",
        title=f"{int(asked.sum()):,} test tokens: what comes next, by what is known",
    )  # fmt: skip
    return {"loss_by_position": figure}


def _samples(model: keras.Model, test: Tested) -> list[str]:
    """Texts that begin as lines of the test text do, drawn at temperature 0.8."""
    if not hasattr(model, "generate"):
        return []
    tokenizer = test.split.tokenizer
    lines = [line for line in test.split.text.split("\n") if line.strip()]
    chosen = [lines[i * len(lines) // SAMPLES] for i in range(min(SAMPLES, len(lines)))]
    numbers = [numbers_of(line, tokenizer)[:8] for line in chosen]
    prompts = [tokenizer.joined(n) for n in numbers if len(n) and UNKNOWN not in n]
    if not prompts:
        return []
    texts: list[str] = model.generate(
        prompts, max_new_tokens=SAMPLED[tokenizer.split], temperature=TEMPERATURE, seed=1
    )
    return texts


def _show(outputs: Mapping[str, np.ndarray], top: int) -> Shown:
    """What a model wrote, or what it thinks comes next."""
    if "text" in outputs:
        text = outputs["text"].ravel()[0].decode(errors="backslashreplace")
        return Shown(text, {"text": text})
    if "tokens" not in outputs:
        return Shown("", {})
    tokens = [token.decode(errors="backslashreplace") for token in outputs["tokens"][0][:top]]
    shares = outputs["probabilities"][0][:top].tolist()
    pairs = list(zip(tokens, shares, strict=True))
    text = ", ".join(f"{token!r} ({100 * share:.1f} %)" for token, share in pairs)
    return Shown(text, {"next": tokens[0], "probability": shares[0], "top": dict(pairs)})


LANGUAGE_MODELING = Task(
    name="language_modeling",
    takes=TextStream,
    data=TextData,
    losses=("token_crossentropy",),
    training_data=text_training_data,
    test_batches=text_test_batches,
    compile_arguments=lambda loss: {"loss": loss, "metrics": [LossPerToken()]},
    measure=_measure,
    headline=Metric("test perplexity", "perplexity", " per token", more_is_better=False),
    monitor=Monitor("val_loss_per_token", more_is_better=False),
    plots=lambda test: plot_loss_by_position(test.outputs, test.truth),
    captions={"loss_by_position": "Loss per token by the number of tokens that were read"},
    show=_show,
    outputs=_outputs,
    samples=_samples,
    baselines=_baselines,
)
