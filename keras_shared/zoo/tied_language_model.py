from collections.abc import Sequence
from typing import Annotated, Any, Literal

import keras
from keras import layers, ops
from pydantic import Field, NonNegativeFloat, PositiveInt

from keras_shared import initializers
from keras_shared.arguments import check_arguments
from keras_shared.layers import TiedDense
from keras_shared.layers.schedules import positive
from keras_shared.tokenizing import SPECIAL
from keras_shared.tying import readers_of, untie
from keras_shared.zoo.language_model import LanguageModel

CELLS = {"lstm": layers.LSTM, "gru": layers.GRU}


@keras.saving.register_keras_serializable("keras_shared")
class Norm(keras.regularizers.Regularizer):
    """`factor * ||W||_2`, the length of a matrix as one vector, not its square as of Keras' L2.

    Args:
        factor: of the length.

    Example:
        >>> from keras_shared.zoo.tied_language_model import Norm
        >>> float(Norm(0.5)([[3.0, 0.0], [0.0, 4.0]]))
        2.5
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, x: Any) -> Any:
        return self.factor * ops.sqrt(ops.sum(ops.square(x)) + 1e-12)

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor}


@keras.saving.register_keras_serializable("keras_shared")
class TiedLanguageModel(LanguageModel):
    """A recurrent language model whose output layer reads the table of its embedding.

    `x_t = E[w_t]`, `h_t = cell(x_t, h_{t-1})` through the layers, and the logits of the next token
    are `E h_t + b`: the table `E` (tokens, units) exists once, and its gradient is the sum of both
    uses. With 10,000 words and 200 units that saves 2,000,000 of 4,650,000 parameters. Each cell is
    shared over time besides: its weights are read at every step, and their gradient is the sum over
    the steps.

    Args:
        vocabulary: the tokens, the first with the number 2, after padding and unknown ones; None
            for the printable characters of ASCII. A recipe that leaves it out has it of its
            training data.
        split: what a token is: a "character", or what stands between two spaces ("whitespace"),
            as of `keras.layers.TextVectorization`.
        units: width of the table and of each recurrent layer.
        num_layers: number of recurrent layers.
        cell: "lstm" or "gru".
        dropout: share of the features that training drops after the table and after each layer.
        projection: with a number, `E P h_t` in place of `E h_t`, and that number times `||P||_2`
            added to the loss per token: a square matrix that costs units^2 parameters and keeps
            the table from having to serve both ends; None for none.
        tied: False gives the output layer a table of its own, at first the embedding's.
        kernel_initializer: initial table, and kernels of the cells and the projection, as of
            `keras_shared.initializers.get`; None for a uniform table up to 0.1, and Keras' own.
            Recurrent kernels are orthogonal.
        dtype: dtype policy; the logits are float32 in any case.
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        int32 tokens (batch, length), padded by 0 at their end.

    Returns:
        Logits (batch, length, tokens + 2) of the token after each.

    Raises:
        ValueError: for a vocabulary that is none, or arrays with other tokens.

    Example:
        >>> from keras_shared.zoo import TiedLanguageModel
        >>> model = TiedLanguageModel(vocabulary="a b c \\n".split(" "), units=8)
        >>> model.compile()
        >>> tokens = model.tokenizer(["abcabc"])
        >>> history = model.fit(tokens[:, :-1], tokens[:, 1:], verbose=0)
        >>> len(model.generate("ab", max_new_tokens=5, seed=1))
        7

    Reference:
        Press & Wolf 2017, "Using the Output Embedding to Improve Language Models" (arXiv
        1608.05859), section 2, and section 3 for the projection; Inan, Khosravi & Socher 2017,
        "Tying Word Vectors and Word Classifiers"; sizes and dropout: Zaremba, Sutskever & Vinyals
        2014, "Recurrent Neural Network Regularization".
    """

    description = (
        "Tells the next token of a text; the output layer reads the table of the embedding."
    )
    limits = (
        "It knows the vocabulary and the manner of the text that it was trained on. What it writes "
        "sounds like that text, and is not true."
    )

    def __init__(
        self,
        vocabulary: Sequence[str] | None = None,
        split: Literal["character", "whitespace"] = "character",
        units: PositiveInt = 128,
        num_layers: PositiveInt = 2,
        cell: Literal["lstm", "gru"] = "lstm",
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        projection: NonNegativeFloat | None = None,
        tied: bool = True,
        dtype: Any = None,
        kernel_initializer: initializers.InitializerName | keras.initializers.Initializer | None = (
            None
        ),
        **kwargs: Any,
    ) -> None:
        known = self.known_tokens(vocabulary, split)
        units, num_layers = positive("units", units), positive("num_layers", num_layers)
        check_arguments(
            TiedLanguageModel.__init__, cell=cell, dropout=dropout, projection=projection
        )

        # === Layers ===
        base = self._policy(dtype)

        def drawn(otherwise: Any) -> Any:
            return otherwise if kernel_initializer is None else initializers.get(kernel_initializer)

        table = layers.Embedding(
            len(known) + SPECIAL, units,
            embeddings_initializer=drawn(keras.initializers.RandomUniform(-0.1, 0.1)),
            dtype=self._policy(dtype, "table"), name="table",
        )  # fmt: skip
        recurrent = [
            CELLS[cell](
                units,
                kernel_initializer=drawn("glorot_uniform"),
                return_sequences=True,
                dtype=base,
                name=f"{cell}_{i}",
            )
            for i in range(1, num_layers + 1)
        ]

        # === Graph ===
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        x = layers.Dropout(dropout, dtype=base, name="dropout_0")(table(tokens))
        for i, layer in enumerate(recurrent, 1):
            x = layers.Dropout(dropout, dtype=base, name=f"dropout_{i}")(layer(x))
        if projection is not None:
            x = layers.Dense(
                units, use_bias=False, kernel_initializer=drawn("glorot_uniform"),
                kernel_regularizer=Norm(projection),
                dtype=self._policy(dtype, "projection"), name="projection",
            )(x)  # fmt: skip
        logits = TiedDense(table, dtype="float32", name="logits")(x)
        super().__init__(tokens, logits, known, split, **kwargs)

        # === Config ===
        self.units = units
        self.num_layers = num_layers
        self.cell = cell
        self.dropout = dropout
        self.projection = projection
        self.kernel_initializer = kernel_initializer
        self.base_policy = base
        if not tied:
            untie(self)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "num_layers": self.num_layers,
            "cell": self.cell,
            "dropout": self.dropout,
            "projection": self.projection,
            "tied": bool(readers_of(self)),
            "kernel_initializer": initializers.as_config(self.kernel_initializer),
        }
