from typing import NamedTuple

from keras_shared.tokenizing import Tokenizer


class TextStream(NamedTuple):
    """One split of a data set that is one long text.

    Attributes:
        text: all of it.
        held_out: of a training split, the text that validates; None for its last tenth.
        tokenizer: how it becomes tokens, as the model wants it.
    """

    text: str
    held_out: str | None = None
    tokenizer: Tokenizer = Tokenizer()

    def tokenized(self, tokenizer: Tokenizer) -> "TextStream":
        """The same for a model with this tokenizer."""
        return self._replace(tokenizer=tokenizer)
