"""Cut a reader from its source, and tie it again."""

import contextlib
import warnings
from typing import Any

import keras
import numpy as np

from keras_shared.tying.alike import differing
from keras_shared.tying.bind_ties import readers_of
from keras_shared.tying.effective_weight import is_derived, weight_shape
from keras_shared.tying.keep import Keep, check_keep
from keras_shared.tying.keras_private import expect_layer, variables_may_change
from keras_shared.tying.source_reference import SourceReference
from keras_shared.tying.tie_error import TieError
from keras_shared.tying.tied_reader import TiedReader


def untie(layer_or_model: keras.Layer) -> keras.Layer:
    """Cut each reader inside `layer_or_model` from its source, in place, without changing a value.

    Each reader gets a copy of the weight that it reads now (LoRA merged, dequantised, a
    whole kernel in place of a codebook), trained unless the reader is frozen, and saves it as its
    own from then on; if one of them cannot be cut, none is. A decoder that was
    untied can be saved, loaded and trained alone. Compile every model that contains the reader
    again: its optimizer does not know the new variables, and a `predict` that it traced before goes
    on reading the source.

    Args:
        layer_or_model: a reader, or any layer or model that contains readers.

    Returns:
        The same object.

    Warns:
        UserWarning: if there is no reader inside.

    Raises:
        TieError: if a source cannot be found (call the whole model, or `bind_ties`, first), or a
            reader was never called.

    Example:
        >>> import keras
        >>> from keras_shared.layers import TiedDense
        >>> from keras_shared.tying import untie
        >>> inputs = keras.Input((4,))
        >>> code = keras.layers.Dense(2)
        >>> model = keras.Model(inputs, TiedDense(code)(code(inputs)))
        >>> before = model.count_params()
        >>> untie(model).count_params() - before  # a kernel of 4 x 2 of its own
        8
    """
    readers = readers_of(layer_or_model)
    if not readers:
        warnings.warn(
            f"'{layer_or_model.name}' has no layer that is tied to another: `untie` changes "
            "nothing. Uses of one layer, as by `keras_shared.layers.Shared`, are parted by "
            "`keras_shared.unshare`, which gives a new model.",
            stacklevel=2,
        )
    sources = [reader.source() for reader in readers]
    for reader in readers:
        if not reader.built:
            raise TieError(
                f"{type(reader).__name__} '{reader.name}' was never called, so it is not built "
                "yet. Call it, or the model that contains it, once before `untie`."
            )
    with contextlib.ExitStack() as if_it_fails:
        for reader, source in zip(readers, sources, strict=True):
            with variables_may_change(reader):
                reader._own(source)
            reader._reference.cut()
            if_it_fails.callback(_again, reader, source)
        if_it_fails.pop_all()
    _forget_compiled(layer_or_model)
    return layer_or_model


def tie(reader: TiedReader, source: keras.Layer, keep: Keep | None = None) -> TiedReader:
    """Tie a layer that was untied: the way back. Or say which layer a reader reads.

    Args:
        reader: a layer that `untie` cut from its source; or one from a file or a config that has
            not found its source.
        source: the layer to read from then on; need not be the former one.
        keep: whose values stay where they differ: the source's, or the reader's, which are then
            copied into the source. None refuses to tie different values.

    Returns:
        The reader. Compile every model that contains it again, as after `untie`.

    Raises:
        TieError: if `reader` is no reader, or is tied already, if the source was never built, if
            shapes or (with `keep=None`) values differ, or if the source cannot take the reader's
            values since it is clustered, quantised or has LoRA.
        ValueError: for another `keep`.

    Example:
        >>> import keras
        >>> from keras_shared.layers import TiedDense
        >>> from keras_shared.tying import tie, untie
        >>> code = keras.layers.Dense(2)
        >>> code.build((None, 4))
        >>> reader = TiedDense(code)
        >>> outputs = reader(keras.ops.ones((1, 2)))
        >>> tie(untie(reader), code).source() is code
        True
    """
    for layer in (reader, source):
        expect_layer(layer)
    check_keep(keep)
    if not isinstance(reader, TiedReader):
        raise TieError(
            "`tie` takes a reader, a layer that can read another's weight, such as TiedDense or "
            f"TiedLayer. Received: {type(reader).__name__} '{reader.name}', to tie to "
            f"'{source.name}'. In a model that exists, call `keras_shared.tie_weights(model, "
            f"{{{reader.name!r}: {source.name!r}}})`; in a new one, build "
            f"TiedLayer({source.name}) in its place, or TiedDense({source.name}) to read the "
            "kernel transposed."
        )
    lost = not reader.untied and reader._reference.layer is None
    if not reader.untied and not lost:
        raise TieError(
            f"{type(reader).__name__} '{reader.name}' is already tied to "
            f"'{reader.source().name}'. Call `keras_shared.tying.untie` on it first."
        )
    if not source.built:
        raise TieError(
            f"The source '{source.name}' was never built, so it has no weight to read. Call it on "
            "its inputs once before `tie`."
        )
    reader.refuse_circle(source)
    reader.refuse_source(source)
    known = reader.describe_source()
    found = SourceReference(source, reader.source_attributes).describe()
    differ = [
        key for key in reader.source_attributes
        if key in known and known[key] != found[key] and getattr(reader, key, None) is None
    ]  # fmt: skip
    if differ:
        raise TieError(
            f"{type(reader).__name__} '{reader.name}' was built for a source with "
            f"{ {key: known.get(key) for key in differ} }, and '{source.name}' has "
            f"{ {key: found.get(key) for key in differ} }. Pass a source that has the same."
        )
    whole = hasattr(reader, "as_calls")
    kind, wanted = type(source).__name__, known["class_name"]
    if whole and (reader.own_layer is None and kind != wanted):
        raise TieError(
            f"{type(reader).__name__} '{reader.name}' was built for a {wanted}, and "
            f"'{source.name}' is a {kind}. Pass a source of that class."
        )
    if lost:
        if known["weight_shape"] and weight_shape(source) != reader.tied_weight_shape():
            raise TieError(
                f"{type(reader).__name__} '{reader.name}' reads a weight of shape "
                f"{reader.tied_weight_shape()}, but the source '{source.name}' has "
                f"{weight_shape(source)}. Pass a source whose weight has the same shape."
            )
        reader._reference = SourceReference(source, reader.source_attributes)
        return reader
    differ = differing(reader.own_layer, source) if whole and reader.own_layer else []
    if differ := [key for key in differ if key not in ("dtype", "quantization_config")]:
        raise TieError(
            f"'{reader.name}' calls a {type(reader.own_layer).__name__} of its own, and the source "
            f"'{source.name}' differs from that in {differ}: tied, it would compute something "
            "else. Pass a source that has the same."
        )
    owned, shared = reader._owned(), reader._shared(source)
    shapes = [[value.shape for value in values] for values in (owned, shared)]
    if shapes[0] != shapes[1]:
        raise TieError(
            f"{type(reader).__name__} '{reader.name}' owns weights of shape {shapes[0]}, but the "
            f"source '{source.name}' has {shapes[1]}. Pass a source whose weight has the same "
            "shape."
        )
    same = all(np.array_equal(a, b) for a, b in zip(owned, shared, strict=True))
    if not same and keep is None:
        raise TieError(
            f"{type(reader).__name__} '{reader.name}' and the source '{source.name}' hold "
            "different values. Pass keep='source' to use the source's, or keep='reader' to copy "
            "the reader's into the source. Received: keep=None"
        )
    if not same and keep == "reader" and is_derived(source):
        raise TieError(
            f"The source '{source.name}' is clustered, quantised or has LoRA, so the values of "
            f"'{reader.name}' cannot be copied into it. Pass keep='source', or another source. "
            "Received: keep='reader'"
        )
    _again(reader, source, owned if keep == "reader" and not same else None)
    return reader


def _again(reader: TiedReader, source: keras.Layer, values: list[Any] | None = None) -> None:
    with variables_may_change(reader):
        reader._disown(values, source)
    reader._reference = SourceReference(source, reader.source_attributes)


def _forget_compiled(model: keras.Layer) -> None:
    """Drop the traced functions, which would go on reading the source."""
    if isinstance(model, keras.Model):
        model.train_function = model.test_function = model.predict_function = None
