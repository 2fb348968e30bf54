from collections.abc import Sequence
from typing import Annotated, Any, Literal

import keras
from keras import layers
from pydantic import Field, PositiveInt

from keras_shared import initializers
from keras_shared.layers import PositionEmbedding, SharedStack, TiedDense, TransformerBlock
from keras_shared.layers.schedules import positive
from keras_shared.tokenizing import SPECIAL
from keras_shared.tying import readers_of, untie
from keras_shared.zoo.language_model import LanguageModel

Schedule = Literal["sequence", "cycle", "cycle_reverse", "middle_cycle"]
Share = Literal["all", "attention", "feed_forward"]


@keras.saving.register_keras_serializable("keras_shared")
class SharedTransformer(LanguageModel):
    """A causal Transformer whose blocks are shared over depth, and its table with its output layer.

    `x_0 = E[w] + p`, `x_(k+1) = block_s(k)(x_k)` for `num_layers` uses of `distinct` blocks, and
    the logits of the next token are `E norm(x) + b`. The table `E` (tokens, hidden_dim) exists
    once. Four uses of one block of width 128 have 0.2 million parameters in place of 0.8 million,
    and the same arithmetic.

    Args:
        vocabulary: the tokens, the first with the number 2, after padding and unknown ones; None
            for the printable characters of ASCII. A recipe that leaves it out has it of its
            training data.
        split: what a token is: a "character", or what stands between two spaces ("whitespace"),
            as of `keras.layers.TextVectorization`.
        num_layers: number of uses of blocks.
        distinct: number of blocks.
        schedule: which block each use calls, see `keras_shared.layers.SharedStack`.
        share: what the uses of a block share: "all", its "attention" or its "feed_forward".
        own_normalization: whether each use has normalisations of its own.
        step_embedding: whether each use adds a vector of its own to its input.
        rank: of a low-rank difference of each use from the kernels that it shares; None for none.
        num_heads: heads of the attention.
        hidden_dim: width of the table and of what goes from block to block.
        intermediate_dim: width inside of the feed-forward part.
        dropout: share of what training drops after the table and in each block.
        max_sequence_length: tokens that it can look at: positions that have a vector.
        tied: False gives the output layer a table of its own, at first the embedding's.
        kernel_initializer: initial table, and kernels of the blocks, as of
            `keras_shared.initializers.get`; None for a normal table of deviation 0.02, and
            "glorot_uniform".
        dtype: dtype policy; the logits are float32 in any case.
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        int32 tokens (batch, length), padded by 0 at their end, `max_sequence_length` at most.

    Returns:
        Logits (batch, length, tokens + 2) of the token after each.

    Raises:
        ValueError: for a vocabulary that is none, numbers that do not fit, or arrays with other
            tokens or too many of them.

    Example:
        >>> from keras_shared.zoo import SharedTransformer
        >>> vocabulary = "a b c".split(" ")
        >>> model = SharedTransformer(
        ...     vocabulary, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=16,
        ...     max_sequence_length=10)
        >>> model.compile()
        >>> tokens = model.tokenizer(["abcabc"])
        >>> history = model.fit(tokens[:, :-1], tokens[:, 1:], verbose=0)
        >>> len(model.generate("ab", max_new_tokens=5, seed=1))
        7

    Reference:
        Dehghani et al. 2019, "Universal Transformers" (arXiv 1807.03819); Lan et al. 2020, "ALBERT"
        (1909.11942), section 3.1; Takase & Kiyono 2023, "Lessons on Parameter Sharing across
        Layers in Transformers" (2104.06022); Press & Wolf 2017, "Using the Output Embedding to
        Improve Language Models" (1608.05859).
    """

    description = (
        "Tells the next token of a text by blocks that are called several times; the output layer "
        "reads the table of the embedding."
    )
    limits = (
        "It knows the vocabulary and the manner of the text that it was trained on, and looks back "
        "at a limited number of tokens. What it writes sounds like that text, and is not true."
    )

    def __init__(
        self,
        vocabulary: Sequence[str] | None = None,
        split: Literal["character", "whitespace"] = "character",
        num_layers: PositiveInt = 4,
        distinct: PositiveInt = 1,
        schedule: Schedule = "cycle",
        share: Share = "all",
        own_normalization: bool = False,
        step_embedding: bool = False,
        rank: PositiveInt | None = None,
        num_heads: PositiveInt = 4,
        hidden_dim: PositiveInt = 128,
        intermediate_dim: PositiveInt = 512,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        max_sequence_length: PositiveInt = 64,
        tied: bool = True,
        dtype: Any = None,
        kernel_initializer: initializers.InitializerName | keras.initializers.Initializer | None = (
            None
        ),
        **kwargs: Any,
    ) -> None:
        known = self.known_tokens(vocabulary, split)
        num_layers, distinct = positive("num_layers", num_layers), positive("distinct", distinct)
        num_heads, hidden_dim = positive("num_heads", num_heads), positive("hidden_dim", hidden_dim)
        intermediate_dim = positive("intermediate_dim", intermediate_dim)
        max_sequence_length = positive("max_sequence_length", max_sequence_length)

        # === Layers ===
        base = self._policy(dtype)
        normal = keras.initializers.RandomNormal(stddev=0.02)
        table = layers.Embedding(
            len(known) + SPECIAL, hidden_dim,
            embeddings_initializer=initializers.get(kernel_initializer) or normal,
            dtype=self._policy(dtype, "table"), name="table",
        )  # fmt: skip
        positions = PositionEmbedding(
            max_sequence_length, keras.initializers.RandomNormal(stddev=0.02), dtype=base,
            name="positions",
        )  # fmt: skip
        block = TransformerBlock(
            num_heads,
            intermediate_dim,
            dropout,
            causal=True,
            kernel_initializer=kernel_initializer,
            dtype=base,
            name="block",
        )
        stack = SharedStack(
            block, num_layers, distinct, schedule, share, own_normalization, step_embedding, rank,
            dtype=base, name="stack",
        )  # fmt: skip

        # === Graph ===
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        x = layers.Dropout(dropout, dtype=base, name="dropout")(positions(table(tokens)))
        x = layers.LayerNormalization(dtype=base, name="norm")(stack(x))
        logits = TiedDense(table, dtype="float32", name="logits")(x)
        super().__init__(tokens, logits, known, split, **kwargs)

        # === Config ===
        self.num_layers, self.distinct, self.schedule = num_layers, distinct, schedule
        self.share, self.own_normalization = share, own_normalization
        self.step_embedding, self.rank = step_embedding, rank
        self.num_heads, self.hidden_dim = num_heads, hidden_dim
        self.intermediate_dim, self.dropout = intermediate_dim, dropout
        self.max_sequence_length = max_sequence_length
        self.context = max_sequence_length
        self.kernel_initializer = kernel_initializer
        self.base_policy = base
        if not tied:
            untie(self.layers[-1])

    def _checked(self, tokens: Any) -> Any:
        array = super()._checked(tokens)
        if array.shape[1] > self.max_sequence_length:
            raise ValueError(
                f"`x` must have at most {self.max_sequence_length} tokens in a row, which have a "
                f"position. Received: an array of shape {array.shape}. Cut it, or build the model "
                "with a larger `max_sequence_length`."
            )
        return array

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "distinct": self.distinct,
            "schedule": self.schedule,
            "share": self.share,
            "own_normalization": self.own_normalization,
            "step_embedding": self.step_embedding,
            "rank": self.rank,
            "num_heads": self.num_heads,
            "hidden_dim": self.hidden_dim,
            "intermediate_dim": self.intermediate_dim,
            "dropout": self.dropout,
            "max_sequence_length": self.max_sequence_length,
            "kernel_initializer": initializers.as_config(self.kernel_initializer),
            "tied": bool(readers_of(self.layers[-1])),
        }
