"""More or fewer words in a model whose table and output layer are one."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_shared.errors import boundary
from keras_shared.presets.names import listed
from keras_shared.sharing.calls import Call, calls_of
from keras_shared.sharing.copying import Copies, layer_named, refuse_without_graph
from keras_shared.tying import TiedReader, bind_ties, readers_of
from keras_shared.tying.effective_weight import weight_shape
from keras_shared.tying.keras_private import flatten_layers


def resize_vocabulary(
    model: keras.Model,
    size: int,
    embedding: str | None = None,
    heads: Sequence[str] | None = None,
) -> keras.Model:
    """A copy of a model with another number of words: the table and all that reads it follow.

    The `Embedding` gets `size` rows. Heads tied to it (`TiedDense`, any reader of it) follow, with
    their biases; so do plain `Dense` heads that are named. What was there keeps its values: the
    first rows of the table, the first biases. New rows are drawn by the Embedding's initializer,
    new biases by theirs. Fewer words keep the first ones, and ids from `size` on must not come any
    more. All other weights are copied.

    Args:
        model: a functional model, or a Sequential that was built; it stays as it is.
        size: the new number of words.
        embedding: name of the Embedding, where the model has several (of positions, say).
        heads: names of `Dense` layers with a kernel of their own, one unit a word, that follow
            too. None refuses a model with a layer that is no reader and has as many units as there
            are words, since it may be one; `[]` leaves all of them as they are.

    Returns:
        The model with `size` words, not compiled.

    Raises:
        ValueError: for a model without a graph or an Embedding, with several and no name, one
            that is quantised or has LoRA; for a layer that cannot follow, such as a Reshape to a
            fixed shape or a layer with weights behind the head; the message names it.
        TieError: if the Embedding or a head lies inside of a layer that has no graph.

    Example:
        >>> import keras
        >>> from keras_shared import resize_vocabulary
        >>> from keras_shared.layers import TiedDense
        >>> ids = keras.Input((8,), dtype="int32")
        >>> table = keras.layers.Embedding(100, 16, name="table")
        >>> model = keras.Model(ids, TiedDense(table, "softmax")(table(ids)))
        >>> larger = resize_vocabulary(model, 104)
        >>> larger.output_shape, larger.count_params() - model.count_params()  # 4 * 16 + 4
        ((None, 8, 104), 68)

    Reference:
        `resize_token_embeddings` of Hugging Face's Transformers.
    """
    refuse_without_graph(
        model,
        "; in a model of your own, build a new one with another `input_dim`, and copy the rows",
    )
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ValueError(f"`size` is the new number of words, 1 or more. Received: size={size!r}")
    bind_ties(model)
    table = _table(model, embedding)
    plain = _plain_heads(model, table, heads)
    # whatever a layer raises at inputs of another shape
    what = f"'{model.name}' cannot have {size} words in place of {table.input_dim}"
    with boundary(what, ValueError):
        copies = _Resized(model, table, plain, int(size))
        copy = copies.of_model(model)
        copies.fill()
        _compare(calls_of(model), calls_of(copy), table.input_dim, size)
    return bind_ties(copy)


def _table(model: keras.Model, name: str | None) -> keras.layers.Embedding:
    layers = flatten_layers(model)
    inner = {id(la.own_layer) for la in layers if isinstance(la, TiedReader)}  # of untied readers
    tables = [la for la in layers if isinstance(la, keras.layers.Embedding) and id(la) not in inner]
    if name is not None:
        tables = [layer_named(model, name)]
    if len(tables) != 1 or not isinstance(tables[0], keras.layers.Embedding):
        found = [
            f"{type(la).__name__} '{la.name}' {[tuple(w.shape) for w in la.weights]}"
            for la in tables
        ]
        raise ValueError(
            f"'{model.name}' needs one Embedding to resize; found {', '.join(found) or 'none'}. "
            f"Name it by `embedding`. Received: embedding={name!r}"
        )
    return tables[0]


def _plain_heads(
    model: keras.Model, table: keras.layers.Embedding, heads: Sequence[str] | None
) -> list[keras.Layer]:
    words = table.input_dim
    if heads is None:
        for layer in flatten_layers(model):
            own = getattr(layer, "own_layer", None)  # of a reader that was untied
            shape = () if own is None else weight_shape(own) or ()
            width = getattr(layer, "units", getattr(layer, "filters", None))
            if width == words or words in shape:
                raise ValueError(
                    f"{type(layer).__name__} '{layer.name}' is as wide as there are words "
                    f"({words}), and is not tied to '{table.name}'. If it predicts words, name it "
                    "by `heads`, or tie it first by `keras_shared.tie_weights`; if not, pass "
                    "heads=[]. Received: heads=None"
                )
    named = [layer_named(model, name) for name in listed(() if heads is None else heads, "heads")]
    for layer in named:
        if type(layer) is not keras.layers.Dense or layer.units != words:
            raise ValueError(
                f"`heads` are Dense layers with {words} units, one for each word. Received: "
                f"{type(layer).__name__} '{layer.name}' with {getattr(layer, 'units', 'no')} units"
            )
    for layer in (table, *named):
        lora = getattr(layer, "lora_enabled", False)
        if lora or layer.quantization_mode is not None:
            raise ValueError(
                f"'{layer.name}' {'has LoRA' if lora else 'is quantised'}, and its rows cannot be "
                "resized. Resize the vocabulary first, and then "
                f"{'call `enable_lora`' if lora else 'quantise'}."
            )
    return named


class _Resized(Copies):
    """A table and heads of another size in the place of the old ones."""

    def __init__(
        self, model: keras.Model, table: keras.Layer, plain: list[keras.Layer], size: int
    ) -> None:
        changed = {id(table): {"input_dim": size}} | {id(la): {"units": size} for la in plain}
        readers = [
            reader for reader in readers_of(model)
            if any(id(inner) in changed for inner in flatten_layers(reader.source()))
        ]  # fmt: skip
        super().__init__([table, *plain, *readers])
        self._changed, self._readers = changed, {id(reader) for reader in readers}
        self._made: list[tuple[keras.Layer, keras.Layer]] = []

    def new(self, layer: keras.Layer) -> keras.Layer:
        if id(layer) in self._readers:
            copy = type(layer).from_config(layer.get_config() | {"source": self.of(layer.source())})
        elif id(layer) in self._changed:
            copy = type(layer).from_config(layer.get_config() | self._changed[id(layer)])
            advice = (
                f"Give it an initialiser without fixed values: model.get_layer('{layer.name}')"
                ".embeddings_initializer = keras.initializers.get('uniform')"
            )
            with boundary(f"'{layer.name}' cannot draw more or fewer", ValueError, advice):
                copy.build_from_config(layer.get_build_config())
        else:
            return super().new(layer)
        self._made.append((layer, copy))
        return copy

    def call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """As in a copy; an error names the layer."""
        with boundary(f"{type(layer).__name__} '{layer.name}' cannot follow", ValueError):
            return super().call(layer, *args, **kwargs)

    def fill(self) -> None:
        """Give each new weight the old values, as far as they reach; behind them it was drawn."""
        for old, new in self._made:
            for then, now in zip(old.weights, new.weights, strict=True):
                values, known = np.array(now), np.array(then)
                both = tuple(slice(min(a, b)) for a, b in zip(now.shape, then.shape, strict=True))
                values[both] = known[both]
                now.assign(values)


def _compare(old: list[Call], new: list[Call], words: int, size: int) -> None:
    """See that no shape changes otherwise than from `words` to `size`."""
    for then, now in zip(old, new, strict=True):
        for before, after in ((then.inputs, now.inputs), (then.outputs, now.outputs)):
            apart = {(a, b) for a, b in zip(before, after, strict=False) if a != b}
            if len(before) != len(after) or apart - {(words, size)}:
                raise ValueError(
                    f"{type(then.layer).__name__} '{then.layer.name}' does not follow, but makes "
                    f"{before} to {after}. Build the model anew for {size} words."
                )
