from typing import NamedTuple

import numpy as np

from keras_shared.tokenizing import Tokenizer


class LabelledSentences(NamedTuple):
    """One split of a data set of sentences with labels.

    Attributes:
        sentences: str (sentences,), as objects.
        labels: int (sentences,), the class of each.
        class_names: name of each class.
        held_out: of a training split, numbers of the sentences that validate; None where the recipe
            draws them.
        tokenizer: how they become tokens, as the model wants it.
    """

    sentences: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    held_out: np.ndarray | None = None
    tokenizer: Tokenizer = Tokenizer()

    def part(self, indices: np.ndarray) -> "LabelledSentences":
        """Some of the sentences."""
        return self._replace(
            sentences=self.sentences[indices], labels=self.labels[indices], held_out=None
        )

    def tokenized(self, tokenizer: Tokenizer) -> "LabelledSentences":
        """The same for a model with this tokenizer."""
        return self._replace(tokenizer=tokenizer)
