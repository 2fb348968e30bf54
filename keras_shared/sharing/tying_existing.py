"""From a model whose layers own their weights to one in which some read those of others."""

import fnmatch
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from keras_shared.errors import attempt
from keras_shared.layers import TiedConv, TiedConvTranspose, TiedDense, TiedLayer
from keras_shared.layers.convolution_reader import ConvolutionReader
from keras_shared.sharing.copying import (
    Copies,
    expect_name,
    layer_named,
    names_in,
    refuse_without_graph,
)
from keras_shared.tying import TiedReader, TieError, bind_ties, readers_of
from keras_shared.tying.alike import differing
from keras_shared.tying.effective_weight import (
    effective_weight,
    is_derived,
    weight_names,
    weight_shape,
)
from keras_shared.tying.keep import Keep, check_keep
from keras_shared.tying.keras_private import flatten_layers
from keras_shared.tying.layer_names import in_python, short_names

TRANSPOSED: tuple[tuple[type, tuple[type, ...], type[TiedReader]], ...] = (
    # a reader of exactly this type, any of these sources, and what reads so
    (keras.layers.Dense, (keras.layers.Dense, keras.layers.Embedding), TiedDense),
    (keras.layers.Conv1DTranspose, (keras.layers.Conv1D,), TiedConvTranspose),
    (keras.layers.Conv2DTranspose, (keras.layers.Conv2D,), TiedConvTranspose),
    (keras.layers.Conv3DTranspose, (keras.layers.Conv3D,), TiedConvTranspose),
)
CONVOLUTIONS = ConvolutionReader.source_classes
OF_ITS_OWN = {  # of a TiedConv
    "strides", "padding", "dilation_rate", "activation", "use_bias", "activity_regularizer",
}  # fmt: skip


def tie_weights(
    model: keras.Model,
    ties: Mapping[str, str],
    keep: Keep | None = None,
    transpose: bool | None = None,
) -> keras.Model:
    """A copy of a plain model in which layers read the weights of others: an existing net, tied.

    `{"decoder": "encoder"}` puts in the place of the layer `decoder` one that reads the kernel of
    `encoder`: transposed (`TiedDense`, `TiedConvTranspose`) where the shapes say so; a convolution
    with other strides, dilation or padding by `TiedConv`; else the whole layer as it is
    (`TiedLayer`). All but the last keep a bias of their own. All other weights are copied. The way
    back is `keras_shared.tying.untie`.

    Args:
        model: a functional model, or a Sequential that was built; it stays as it is. Sub-models
            that are functional come back as such.
        ties: reader -> source, by name or by path; one `*` in both stands for the same text:
            `{"decoder_*": "encoder_*"}`.
        keep: whose values stay where they differ: the source's or the reader's. None refuses to
            tie different values.
        transpose: for square kernels, whose shape does not say how they are read.

    Returns:
        The tied model, not compiled.

    Raises:
        TieError: for names that no layer or several layers have, what is no name, layers that
            cannot be tied, or (with `keep=None`) values that differ.
        ValueError: for another `keep` or `transpose`, or a model without a graph.

    Example:
        >>> import keras
        >>> from keras_shared.sharing import tie_weights
        >>> pixels = keras.Input((784,))
        >>> code = keras.layers.Dense(30, "relu", name="encoder")(pixels)
        >>> plain = keras.Model(pixels, keras.layers.Dense(784, name="decoder")(code))
        >>> tied = tie_weights(plain, {"decoder": "encoder"}, keep="source")
        >>> plain.count_params() - tied.count_params()  # one kernel of 784 x 30
        23520

    Reference:
        Hinton & Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks",
        figure 1 (transposed); Press & Wolf 2017, "Using the Output Embedding to Improve Language
        Models" (an output layer and an embedding).
    """
    check_keep(keep)
    if not isinstance(transpose, (bool, np.bool_, type(None))):
        raise ValueError(
            f"`transpose` must be True, False or None. Received: transpose={transpose!r}"
        )
    if not isinstance(ties, Mapping):
        raise TieError(
            "`ties` must be a mapping of readers to sources, by name or by path, such as "
            f"{{'decoder': 'encoder'}}. Received: {repr(ties)[:80]}"
        )
    refuse_without_graph(model)
    tied = _Copy(_pairs(model, ties, keep, transpose), keep, transpose).of_model(model)
    attempt(lambda: bind_ties(tied), TieError)  # a source of the model's may lie outside of it
    return tied


def _pairs(
    model: keras.Model, ties: Mapping[str, str], keep: Keep | None, transpose: bool | None
) -> dict[int, tuple[keras.Layer, keras.Layer]]:
    """id of a reader -> the reader and its source, patterns written out."""
    layers = names_in(model)
    pairs: dict[int, tuple[keras.Layer, keras.Layer]] = {}
    for reader, source in ties.items():
        for name in (reader, source):
            expect_name(name)
        if reader.count("*") > 1 or reader.count("*") != source.count("*"):
            raise TieError(
                f"A pattern has one * on both sides. Received: {{{reader!r}: {source!r}}}"
            )
        found = [
            name for layer, names in layers for name in names
            if (layer.weights or isinstance(layer, TiedReader))  # an InputLayer fits no pattern
            and name.count("/") == reader.count("/") and fnmatch.fnmatchcase(name, reader)
        ]  # fmt: skip
        before, _, after = reader.partition("*")
        for name in dict.fromkeys(found) if "*" in reader else [reader]:
            same = name[len(before) : len(name) - len(after)] if "*" in reader else ""
            pair = layer_named(model, name), layer_named(model, source.replace("*", same))
            if pair[0] is pair[1]:
                raise TieError(f"'{name}' cannot be tied to itself. Received: {dict(ties)}")
            pairs[id(pair[0])] = pair
        if "*" in reader and not found:
            raise TieError(f"'{model.name}' has no layer with weights whose name fits {reader!r}.")
    named = short_names(model)
    _refuse_readers(model, pairs, named, keep)
    chained = [named[id(r)] for r, _ in pairs.values() if any(s is r for _, s in pairs.values())]
    if chained:
        raise TieError(f"{chained} cannot be reader and source at once: tie both to one owner.")
    for reader, source in pairs.values():
        if read_by := [one for one in readers_of(model) if one.source() is reader]:
            mine, other = named[id(reader)], named[id(source)]
            steps = [
                *_untied(model, read_by),
                f"model = keras_shared.tie_weights(model, {{{mine!r}: {other!r}}}, keep={keep!r}, "
                f"transpose={transpose!r})",
            ]
            steps += _tied(model, [(one, source) for one in read_by], keep)
            raise TieError(
                f"'{mine}' is read by {[named[id(one)] for one in read_by]}, and cannot read "
                f"'{other}' besides. Instead: {'; '.join(steps)}"
            )
    return pairs


def _refuse_readers(
    model: keras.Model,
    pairs: Mapping[int, tuple[keras.Layer, keras.Layer]],
    named: Mapping[int, str],
    keep: Keep | None,
) -> None:
    """A layer that was made to read another's weight is tied again in place, or read no further."""
    readers = [(r, source) for r, source in pairs.values() if isinstance(r, TiedReader)]
    if readers:
        steps = _untied(model, [r for r, _ in readers if not r.untied])
        steps += _tied(model, readers, keep)
        raise TieError(
            f"{[named[id(r)] for r, _ in readers]} are layers that read others' weights, which "
            "`tie_weights` cannot put in the place of plain ones. Leave them out, or tie them to "
            f"another source in this model: {'; '.join(steps)}"
        )
    for layer, source in pairs.values():
        if isinstance(source, TiedReader):
            owner = source.describe_source()["name"]
            owner = "a weight of its own" if source.untied else f"that of '{owner}'"
            raise TieError(
                f"'{named[id(layer)]}' cannot read '{named[id(source)]}', a "
                f"{type(source).__name__} that reads {owner}. Tie it to the layer that owns a "
                "kernel, or tables."
            )


def _untied(model: keras.Model, readers: Iterable[keras.Layer]) -> list[str]:
    """The calls that untie readers, for messages."""
    return [f"keras_shared.untie({in_python(model, reader)})" for reader in readers]


def _tied(
    model: keras.Model, pairs: Iterable[tuple[keras.Layer, keras.Layer]], keep: Keep | None
) -> list[str]:
    """The calls that tie readers to sources, for messages."""
    return [
        f"keras_shared.tie({in_python(model, reader)}, {in_python(model, source)}, {keep!r})"
        for reader, source in pairs
    ]


class _Copy(Copies):
    """Readers in the place of some layers."""

    def __init__(
        self,
        pairs: dict[int, tuple[keras.Layer, keras.Layer]],
        keep: Keep | None,
        transpose: bool | None,
    ) -> None:
        super().__init__([layer for pair in pairs.values() for layer in pair])
        self._pairs, self._keep, self._transpose = pairs, keep, transpose

    def new(self, layer: keras.Layer) -> keras.Layer:
        if id(layer) in self._pairs:
            return self._reader(*self._pairs[id(layer)])
        return super().new(layer)

    def _reader(self, layer: keras.Layer, source: keras.Layer) -> keras.Layer:
        owner = self.of(source)
        if lora := [one.name for one in flatten_layers(layer) if getattr(one, "lora_rank", None)]:
            raise TieError(
                f"{lora} has LoRA, whose matrices a reader does not have. Tie before "
                "`enable_lora`; or save the model and load its weights into one without LoRA, "
                "which merges it."
            )
        for inner in flatten_layers(layer):
            if mode := getattr(inner, "quantization_mode", None):
                raise TieError(
                    f"'{layer.name}' is quantised as {mode!r}, so its kernel cannot be compared "
                    "with another. Tie the model first, and quantise it then."
                )
        _warn_of_penalties(layer, source)
        shapes = [[tuple(w.shape) for w in one.weights] for one in (layer, source)]
        kinds = [k for of, by, k in TRANSPOSED if type(layer) is of and isinstance(source, by)]
        kind = kinds[0] if kinds else None
        turned = kind is not None and shapes[0][0] == _as_read(source)
        whole = type(layer) is type(source) and shapes[0] == shapes[1]
        if turned and whole and self._transpose is None:
            raise TieError(
                f"The kernels of '{layer.name}' and '{source.name}' are square, {shapes[0][0]}: "
                "say by transpose=True or False how it is read. Received: transpose=None"
            )
        if turned and not (whole and self._transpose is False):
            assert kind is not None
            return self._with_bias(kind, layer, source, owner)
        differ = differing(layer, source)
        number = len(weight_names(source))
        kernels = type(layer) is type(source) and shapes[0][:number] == shapes[1][:number]
        if kernels and differ and isinstance(source, CONVOLUTIONS) and set(differ) <= OF_ITS_OWN:
            return self._with_bias(TiedConv, layer, source, owner)
        if not whole:
            raise TieError(
                f"'{layer.name}' ({type(layer).__name__}, weights {shapes[0]}) cannot read "
                f"'{source.name}' ({type(source).__name__}, weights {shapes[1]}): neither are "
                "they the same layer, nor is one the transpose of the other."
            )
        # the source's own acts in each of its calls
        penalty = layer.activity_regularizer if not source.activity_regularizer else None
        if differ and not (penalty and differ == ["activity_regularizer"]):
            raise TieError(
                f"'{layer.name}' and '{source.name}' differ in {differ}: as a whole, one cannot "
                "stand for the other."
            )
        if self._differs(layer, source, layer.get_weights(), source.get_weights()):
            owner.set_weights(layer.get_weights())
        return TiedLayer(owner, name=layer.name, activity_regularizer=penalty)

    def _with_bias(
        self, kind: type[TiedReader], layer: keras.Layer, source: keras.Layer, owner: keras.Layer
    ) -> keras.Layer:
        """A reader of kernels alone, with the bias and the rest of `layer`."""
        config, known = layer.get_config(), kind(owner).get_config()
        taken = {*known, "activity_regularizer"}
        reader = kind(owner, **{k: v for k, v in config.items() if k in taken})
        reader.build(layer.get_build_config()["input_shape"])
        reader.built = True
        expected = reader.plain_counterpart()[1]
        geometry = ("strides", "padding", "data_format", "dilation_rate")
        differ = [k for k in geometry if k in config and _plain(config[k]) != _plain(expected[k])]
        if differ:
            raise TieError(
                f"'{layer.name}' and its source '{source.name}' differ in {differ}, and one is not "
                "the adjoint of the other."
            )
        number = len(weight_names(source))
        kernels, own = layer.get_weights()[:number], layer.get_weights()[number:]
        axes = reader.plain_axes or tuple(range(kernels[0].ndim))
        wanted = [kernels[0].transpose(np.argsort(axes)), *kernels[1:]]
        theirs = source.get_weights()[:number]
        if is_derived(source):
            read = effective_weight(source, "float32")
            theirs = [np.asarray(one) for one in (read if isinstance(read, tuple) else (read,))]
        if self._differs(layer, source, wanted, theirs):
            if is_derived(source):
                raise TieError(
                    f"'{source.name}' is clustered, quantised or has LoRA, so the values of "
                    f"'{layer.name}' cannot be copied into it. Pass keep='source'. Received: "
                    "keep='reader'"
                )
            owner.set_weights([*wanted, *source.get_weights()[number:]])
        reader.set_weights(own)
        return reader

    def _differs(
        self, layer: keras.Layer, source: keras.Layer, mine: list[Any], theirs: list[Any]
    ) -> bool:
        """Whether the reader's values must be copied into the source."""
        same = all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
        if not same and self._keep is None:
            raise TieError(
                f"'{layer.name}' and '{source.name}' hold different values. Pass keep='source' to "
                "use the source's, or keep='reader' to copy the reader's into the source. "
                "Received: keep=None"
            )
        return not same and self._keep == "reader"


def _warn_of_penalties(layer: keras.Layer, source: keras.Layer) -> None:
    """What acts on the reader's kernel alone acts on nothing once it reads the source's."""
    lost = [
        f"{name}_{kind}"
        for name in ("kernel", "embeddings", "depthwise", "pointwise", "recurrent")
        for kind in ("regularizer", "constraint")
        if getattr(layer, f"{name}_{kind}", None)
        and not any(getattr(source, f"{n}_{kind}", None) for n in (name, "kernel", "embeddings"))
    ]
    if lost:
        warnings.warn(
            f"'{layer.name}' has {lost}, which '{source.name}' has not: they are left out, since "
            f"'{source.name}' owns the weight. Give them to '{source.name}' to keep them.",
            stacklevel=2,
        )


def _as_read(source: keras.Layer) -> tuple[int, ...]:
    """The shape of the kernel that a layer must own to be the transpose of `source`."""
    shape: Any = weight_shape(source)
    read: tuple[int, ...] = shape if isinstance(source, CONVOLUTIONS) else shape[::-1]
    return read


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
