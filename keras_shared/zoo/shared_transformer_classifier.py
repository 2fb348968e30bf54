from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import keras
import numpy as np
from keras import layers, ops
from pydantic import Field, PositiveInt

from keras_shared import initializers
from keras_shared.layers import PositionEmbedding, SharedStack, TransformerBlock
from keras_shared.layers.schedules import positive
from keras_shared.signature import Signature
from keras_shared.tokenizing import (
    SPECIAL,
    UNKNOWN,
    Standardize,
    Tokenizer,
    checked_vocabulary,
)
from keras_shared.zoo.class_names import checked_class_names
from keras_shared.zoo.shared_transformer import Schedule, Share
from keras_shared.zoo.zoo_model import ZooModel


@keras.saving.register_keras_serializable("keras_shared")
class SharedTransformerClassifier(ZooModel):
    """A Transformer encoder whose blocks are shared over depth, which says of what class a text is.

    `x_0 = E[w] + p`, `x_(k+1) = block_s(k)(x_k)` for `num_layers` uses of `distinct` blocks, and
    the scores of the classes are `W mean(norm(x)) + b`, the mean over the tokens of the text.
    Four uses of one block have a quarter of the parameters of four blocks.

    Args:
        vocabulary: the tokens, the first with the number 2, after padding and unknown ones. A
            recipe that leaves it out has it of its training data.
        class_names: names of the classes, in the order of the scores; of the data too.
        split: "whitespace" or "character", as of `keras.layers.TextVectorization`.
        standardize: what comes before that, as of `keras.layers.TextVectorization`.
        num_layers: uses of a block. For this and distinct, schedule, share, own_normalization,
            step_embedding, rank, num_heads, hidden_dim, intermediate_dim, dropout,
            max_sequence_length and kernel_initializer see `keras_shared.zoo.SharedTransformer`.
            Of a longer text the first tokens are read.
        dtype: dtype policy; the scores are float32 in any case.
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        int32 tokens (batch, length), padded by 0 at their end, `max_sequence_length` at most.

    Returns:
        Scores (batch, classes), the logits of a softmax.

    Raises:
        ValueError: for a vocabulary that is none, fewer than two classes, or numbers that do not
            fit.

    Example:
        >>> import numpy as np
        >>> from keras_shared.zoo import SharedTransformerClassifier
        >>> model = SharedTransformerClassifier(
        ...     ["good", "bad"], ("yes", "no"), num_layers=2, num_heads=2, hidden_dim=8,
        ...     intermediate_dim=16, max_sequence_length=10)
        >>> model.compile()
        >>> history = model.fit(model.tokenizer(["good", "bad bad"]), np.array([0, 1]), verbose=0)
        >>> len(model.classify(["good good"]))
        1

    Reference:
        Lan et al. 2020, "ALBERT" (arXiv 1909.11942), section 3.1; Dehghani et al. 2019, "Universal
        Transformers" (1807.03819).
    """

    task = "sentence_classification"
    loss_names: ClassVar[tuple[str, ...]] = ("sparse_categorical_crossentropy",)
    default_metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    description = "Says of what class a text is, by blocks that are called several times."
    limits = (
        "It knows the words of its training texts and reads the beginning of a text; any text "
        "gets one of its classes."
    )

    def __init__(
        self,
        vocabulary: Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        split: Literal["character", "whitespace"] = "whitespace",
        standardize: Standardize = "none",
        num_layers: PositiveInt = 4,
        distinct: PositiveInt = 1,
        schedule: Schedule = "cycle",
        share: Share = "all",
        own_normalization: bool = False,
        step_embedding: bool = False,
        rank: PositiveInt | None = None,
        num_heads: PositiveInt = 4,
        hidden_dim: PositiveInt = 64,
        intermediate_dim: PositiveInt = 256,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        max_sequence_length: PositiveInt = 64,
        dtype: Any = None,
        kernel_initializer: initializers.InitializerName | keras.initializers.Initializer | None = (
            None
        ),
        **kwargs: Any,
    ) -> None:
        if vocabulary is None or class_names is None:
            raise ValueError(
                "`vocabulary` must name the tokens, and `class_names` two classes or more. A "
                f"recipe takes both from its training data. Received: vocabulary={vocabulary!r}, "
                f"class_names={class_names!r}"
            )
        known = checked_vocabulary(vocabulary, split, standardize)
        class_names = checked_class_names(class_names)
        num_layers, distinct = positive("num_layers", num_layers), positive("distinct", distinct)
        num_heads, hidden_dim = positive("num_heads", num_heads), positive("hidden_dim", hidden_dim)
        intermediate_dim = positive("intermediate_dim", intermediate_dim)
        max_sequence_length = positive("max_sequence_length", max_sequence_length)

        # === Layers ===
        base = self._policy(dtype)
        normal = keras.initializers.RandomNormal(stddev=0.02)
        table = layers.Embedding(
            len(known) + SPECIAL, hidden_dim, mask_zero=True,
            embeddings_initializer=initializers.get(kernel_initializer) or normal,
            dtype=self._policy(dtype, "table"), name="table",
        )  # fmt: skip
        positions = PositionEmbedding(
            max_sequence_length, keras.initializers.RandomNormal(stddev=0.02), dtype=base,
            name="positions",
        )  # fmt: skip
        block = TransformerBlock(
            num_heads, intermediate_dim, dropout, kernel_initializer=kernel_initializer, dtype=base,
            name="block",
        )  # fmt: skip
        stack = SharedStack(
            block, num_layers, distinct, schedule, share, own_normalization, step_embedding, rank,
            dtype=base, name="stack",
        )  # fmt: skip

        # === Graph ===
        tokens = keras.Input((None,), dtype="int32", name="tokens")
        x = layers.Dropout(dropout, dtype=base, name="dropout")(positions(table(tokens)))
        x = layers.LayerNormalization(dtype=base, name="norm")(stack(x))
        read = ops.expand_dims(ops.cast(ops.not_equal(tokens, 0), x.dtype), 2)  # (batch, length, 1)
        # the mean over what is no padding, finite for a row that is nothing else
        x = ops.sum(x * read, axis=1) / ops.maximum(ops.sum(read, axis=1), 1)
        scores = layers.Dense(
            len(class_names),
            kernel_initializer=initializers.get(kernel_initializer or "glorot_uniform"),
            dtype="float32", name="scores",
        )(x)  # fmt: skip
        super().__init__(tokens, scores, **kwargs)

        # === Config ===
        self.vocabulary, self.class_names = known, class_names
        self.split, self.standardize = split, standardize
        self.num_layers, self.distinct, self.schedule = num_layers, distinct, schedule
        self.share, self.own_normalization = share, own_normalization
        self.step_embedding, self.rank = step_embedding, rank
        self.num_heads, self.hidden_dim = num_heads, hidden_dim
        self.intermediate_dim, self.dropout = intermediate_dim, dropout
        self.max_sequence_length = max_sequence_length
        self.kernel_initializer = kernel_initializer
        self.base_policy = base
        self.tokenizer = self._words.layer(name="tokenizer")

    @property
    def _words(self) -> Tokenizer:
        return Tokenizer(self.split, self.standardize, self.vocabulary)

    def classify(self, texts: Sequence[str]) -> list[str]:
        """The class of each text, by name.

        Args:
            texts: a list of texts; the first `max_sequence_length` tokens of each are read.

        Raises:
            ValueError: for what is no list of texts.
        """
        found = [] if isinstance(texts, str) else list(texts)
        if not found or not all(isinstance(text, str) for text in found):
            raise ValueError(f"`texts` must be a list of texts. Received: {texts!r}")
        tokens = ops.convert_to_tensor(self.tokenizer([*map(self._words.lines_ended, found)]))
        scores = self.predict(self._readable(tokens), verbose=0)
        return [self.class_names[i] for i in np.argmax(scores, axis=-1)]

    def signatures(self) -> dict[str, Signature]:
        from keras_shared.exporting.texts import replaced

        text: Any = keras.KerasTensor((None,), "string")

        def classify(text: Any) -> dict[str, Any]:
            tokens = self.tokenizer(replaced(text, "\n", self._words.lines_ended("\n")))
            unknown = ops.cast(tokens[:, : self.max_sequence_length] == UNKNOWN, "int32")
            scores = self(self._readable(tokens), training=False)
            return {
                "scores": scores,
                "probabilities": ops.softmax(scores),
                "unknown_tokens": ops.sum(unknown, axis=1),
            }

        return {
            "classify": Signature(classify, {"text": text}, class_names=self.class_names),
            "scores": Signature(
                lambda tokens: {"scores": self(self._readable(tokens), training=False)},
                {"tokens": keras.KerasTensor((None, None), "int32")},
            ),
        }

    def _readable(self, tokens: Any) -> Any:
        """What there are positions for; of an empty text one unknown token."""
        tokens = ops.cast(ops.pad(tokens, ((0, 0), (0, 1))), "int32")[:, : self.max_sequence_length]
        empty = ops.expand_dims(ops.all(tokens == 0, axis=1), 1)
        first = ops.expand_dims(ops.arange(ops.shape(tokens)[1]) == 0, 0)
        return ops.where(ops.logical_and(empty, first), 1, tokens)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "class_names": self.class_names,
            "split": self.split,
            "standardize": self.standardize,
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
        }
