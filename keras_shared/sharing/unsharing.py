import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_shared.layers import Conv2D, LocallyConnected2D
from keras_shared.sharing.copying import refuse_without_graph
from keras_shared.tying import TiedReader, readers_of, untie
from keras_shared.tying.effective_weight import is_derived
from keras_shared.tying.keras_private import (
    arguments_of,
    calls_as_built,
    flatten_layers,
    mask_of,
    run_graph,
    takes_training,
)
from keras_shared.tying.source_reference import SourceReference
from keras_shared.tying.take_values import take_adapted, take_values

_CONVOLUTIONS = (  # of Keras; other layers say `convolves`
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


def unshare(
    model: keras.Model,
    copy_values: bool = True,
    convolutions: bool = False,
    parameters: int | None = None,
) -> keras.Model:
    """The same computation without any sharing: each use of a weight has a weight of its own.

    Each call of a layer, in towers and sub-models too, becomes a call of a layer of its own; a
    `TiedDense` becomes a `Dense`, a `TiedConv2DTranspose` a `Conv2DTranspose`, and `Shared` as many
    layers as it has inputs. Other layers say what becomes of them: a reader by its
    `plain_counterpart` (else it comes back untied, as one inside of a wrapper does), a layer that
    calls other layers by `as_calls(call, ...)`, which computes its outputs with
    `call(layer, inputs)` in place of each `layer(inputs)`; see `keras_shared.tying.TiedReader`.

    Args:
        model: a functional model or a Sequential that was built, zoo models included.
        copy_values: whether the new weights begin with the old values, so that all outputs are
            equal before training; otherwise each is initialised anew.
        convolutions: whether each position of a `Conv2D` gets kernels and biases of its own too
            (a `LocallyConnected2D`); otherwise the positions go on sharing them. A layer of
            another kind that says `convolves` is refused.
        parameters: at most so many: hidden layers become narrower by one factor; a Dense or a
            convolution that ends the model or a sub-model of it keeps its width. None keeps all
            widths. Values cannot be copied into other widths.

    Returns:
        A new functional model, not compiled; `model` stays as it is.

    Raises:
        ValueError: for a model without a graph of layers, a layer that cannot be copied or made
            local, `parameters` beside `copy_values`, or fewer parameters than width 1 leaves.

    Example:
        >>> from keras_shared.sharing import unshare
        >>> from keras_shared.zoo import TiedAutoencoder
        >>> model = TiedAutoencoder(units=(4, 2), input_dim=6)
        >>> model.count_params(), unshare(model).count_params()
        (48, 80)
        >>> unshare(model, copy_values=False, parameters=48).count_params()
        44
    """
    refuse_without_graph(model)
    if parameters is None:
        return _Copies(copy_values, convolutions).of_model(model)
    if copy_values:
        raise ValueError(
            "`parameters` makes layers narrower, so that values cannot be copied: it needs "
            f"copy_values=False. Received: copy_values={copy_values}, parameters={parameters}"
        )
    whole = _Copies(False, convolutions).of_model(model)
    if whole.count_params() <= parameters:
        return whole
    low, high = 0.0, 1.0
    narrow = None
    while narrow is None or high - low > 1 / 512:  # at high, it may still have too many
        middle = (low + high) / 2 if narrow else 1 / 512
        tried = _Copies(False, convolutions, middle).of_model(model)
        if tried.count_params() <= parameters:
            low, narrow = middle, tried
        elif narrow is None:
            raise ValueError(
                f"'{model.name}' without sharing has {tried.count_params():,} parameters even with "
                f"the narrowest layers. Allow at least those. Received: parameters={parameters}"
            )
        else:
            high = middle
    return narrow


def _may_be_equal(one: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    """Whether two shapes are the same, as far as their sizes are known."""
    sizes = zip(one, other, strict=False)
    return len(one) == len(other) and all(a == b or None in (a, b) for a, b in sizes)


class _Copies:
    """Calls layers, each time through a layer that is new."""

    def __init__(self, copy_values: bool, convolutions: bool, narrower: float = 1.0) -> None:
        self._copy_values = copy_values
        self._convolutions = convolutions
        self._narrower = narrower
        self._step = 1  # widths stay multiples of the groups that normalise them
        self._kept: dict[int, keras.Layer] = {}  # by their ids, those that keep their width
        self._uses: dict[str, int] = {}

    def of_model(self, model: keras.Model) -> keras.Model:
        groups = [
            layer.groups
            for layer in flatten_layers(model)
            if isinstance(layer, keras.layers.GroupNormalization)
        ]
        self._step = math.lcm(*groups)
        inputs = keras.tree.map_structure(
            lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name),
            model.inputs[0] if isinstance(model, keras.Sequential) else model.input,
        )
        copy = keras.Model(inputs, self.of_call(model, inputs), name=f"{model.name}_unshared")
        shapes = [[t.shape for t in of.outputs] for of in (model, copy)]
        if not all(itertools.starmap(_may_be_equal, zip(*shapes, strict=True))):
            raise ValueError(
                f"Narrower layers would change the outputs of '{model.name}' from {shapes[0]} to "
                f"{shapes[1]}. Only the width of a Dense or a convolution at the end of a model is "
                "kept: make one the last layer."
            )
        return copy

    def of_call(self, layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        """What `layer` gives, through new layers all the way down."""
        if not isinstance(layer, keras.Layer):  # an operation such as keras.ops.negative
            return layer(*args, **kwargs)
        if _calls_others(layer):

            def through(inner: keras.Layer, *given: Any, **named: Any) -> Any:
                if id(layer) in self._kept and inner.name == layer.name:  # stands for it
                    self._kept[id(inner)] = inner
                return self.of_call(inner, *given, **named)

            return layer.as_calls(through, *args, **kwargs)
        if not isinstance(layer, keras.Model) or not getattr(layer, "inputs", None):
            return self._of_layer(layer, *args, **kwargs)
        if not calls_as_built(layer):
            raise ValueError(
                f"unshare cannot look into {type(layer).__name__} '{layer.name}', which has a call "
                "of its own. Build the model without it, by calls of its layers."
            )
        inputs = _first(layer, args, kwargs)
        masks = keras.tree.flatten(kwargs.get("mask"))
        carried = [mask_of(tensor) for tensor in keras.tree.flatten(inputs)]
        if any(m is not None and c is None for m, c in zip(masks, carried, strict=False)):
            raise ValueError(
                f"unshare cannot look into {type(layer).__name__} '{layer.name}', which is called "
                "with a `mask` that its inputs do not carry. Build the model without it, by calls "
                "of its layers."
            )
        told = {"training": kwargs["training"]} if kwargs.get("training") is not None else {}

        def call(inner: Any, *given: Any, **named: Any) -> Any:
            return self.of_call(inner, *given, **named | (told if takes_training(inner) else {}))

        if not isinstance(layer, keras.Sequential):
            ends = layer.output_names  # each is the name of one of its layers, or of an operation
            self._kept |= {id(inner): inner for inner in layer.layers if inner.name in ends}
            return run_graph(layer, inputs, call)
        self._kept[id(layer.layers[-1])] = layer.layers[-1]
        for inner in layer.layers:
            inputs = call(inner, inputs)
        return inputs

    def _of_layer(self, layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        number = self._uses.get(layer.name, 0)
        self._uses[layer.name] = number + 1
        name = f"{layer.name}_use_{number}" if number else layer.name
        tied = isinstance(layer, TiedReader) and not layer.untied
        readers = readers_of(layer)
        for inner in flatten_layers(layer):
            if inner is not layer and not isinstance(inner, TiedReader) and _calls_others(inner):
                raise ValueError(
                    f"unshare cannot look into {type(layer).__name__} '{layer.name}', inside of "
                    f"which {type(inner).__name__} '{inner.name}' shares weights. Give "
                    f"{type(layer).__name__} a method `as_calls` (see "
                    "`keras_shared.tying.TiedReader`), or build the model without it."
                )
        local = self._convolutions and _convolves(layer)
        plain = tied and (self._narrower != 1 or layer.has_plain_counterpart())
        if readers and not local and not plain:
            return self._untied(layer, name)(*args, **kwargs)
        values: list[Any] | None
        if local:
            shape = _first(layer, args, kwargs).shape
            copy, values = self._of_convolution(layer, name, shape)
        else:
            kind, config = layer.plain_counterpart() if tied else (type(layer), layer.get_config())
            widths = {k: self._width(layer, config[k]) for k in ("units", "filters") if k in config}
            copy = kind.from_config({**config, "name": name, **widths})
            values = layer.plain_values() if tied else None
        if values is None:
            if self._copy_values:
                take_values(copy, layer)
            elif _takes_same(layer, args, kwargs):  # of narrower inputs no means are known
                take_adapted(copy, layer)
        elif self._copy_values and values:
            if local:  # of the size of this call, whatever the first one had
                copy.build(_first(layer, args, kwargs).shape)
                copy.built = True
            else:
                copy.build_from_config(layer.get_build_config())
            copy.set_weights(values)
        outputs = copy(*args, **kwargs)
        if tied and layer.plain_axes and not self._copy_values:
            _draw_as_read(copy, layer.plain_axes)
        return outputs

    def _untied(self, layer: keras.Layer, name: str) -> keras.Layer:
        """A copy that holds readers, or is one, with their sources' weights as their own."""
        if self._narrower != 1:
            raise ValueError(
                f"{type(layer).__name__} '{layer.name}' holds layers that read others' weights, "
                "and cannot be made narrower. Leave out `parameters`."
            )
        copy = type(layer).from_config({**layer.get_config(), "name": name})
        for theirs, mine in zip(flatten_layers(layer), flatten_layers(copy), strict=True):
            if isinstance(theirs, TiedReader) and not theirs.untied:
                mine._reference = SourceReference(theirs.source(), theirs.source_attributes)
        readers = readers_of(copy)
        copy.build_from_config(layer.get_build_config())
        take = take_values if self._copy_values else take_adapted
        take(copy, layer)
        untie(copy)
        owned = [reader.own_layer for reader in readers if reader.own_layer is not None]
        for own in owned if not self._copy_values else []:
            fresh = type(own).from_config(own.get_config())
            fresh.build_from_config(own.get_build_config())
            own.set_weights(fresh.get_weights())
        return copy

    def _width(self, layer: keras.Layer, width: int) -> int:
        if id(layer) in self._kept or self._narrower == 1:
            return width
        step = 1 if width % self._step else self._step
        return max(step, int(width * self._narrower) // step * step)

    def _of_convolution(
        self, layer: keras.Layer, name: str, shape: tuple[int | None, ...]
    ) -> tuple[keras.Layer, list[Any]]:
        """A local layer, with the convolution's kernel and bias at each position."""
        if (
            type(layer) not in (keras.layers.Conv2D, Conv2D)
            or layer.groups > 1
            or layer.dilation_rate != (1, 1)
        ):
            raise ValueError(
                f"{type(layer).__name__} '{layer.name}' has no local counterpart: only a Conv2D "
                "without groups and dilation has. unshare(convolutions=False) leaves it as it is; "
                "`keras-shared compare --vary` compares other choices."
            )
        config = layer.get_config()
        penalties = ("kernel_regularizer", "bias_regularizer", "kernel_constraint")
        lost = [key for key in (*penalties, "bias_constraint") if config[key] is not None]
        if lost or layer.data_format != "channels_last" or is_derived(layer):
            why = f"has {' and '.join(lost)}" if lost else "is quantised or has LoRA"
            if layer.data_format != "channels_last":
                why = f"has data_format='{layer.data_format}'"
            raise ValueError(
                f"{type(layer).__name__} '{layer.name}' {why}, which no local layer has. Build it "
                "without, or leave it as it is by convolutions=False."
            )
        taken = (
            "kernel_size", "strides", "padding", "activation", "use_bias", "dtype", "trainable",
            "activity_regularizer",
        )  # fmt: skip
        config = {key: value for key, value in config.items() if key in taken}
        filters = self._width(layer, layer.filters)
        local = LocallyConnected2D.from_config({**config, "name": name, "filters": filters})
        positions = local.compute_output_shape(shape)[1:3]
        kernel, *bias = layer.get_weights()
        kernel = kernel.reshape(-1, 1, 1, layer.filters)  # (inputs of a field, 1, 1, filters)
        values = [np.tile(kernel, (1, *positions, 1)), *(np.tile(b, (*positions, 1)) for b in bias)]
        return local, values


def _first(layer: keras.Layer, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a layer is called on, given by position or by name."""
    return args[0] if args else kwargs[arguments_of(layer)[0]]


def _takes_same(layer: keras.Layer, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a layer is called on what it was built for."""
    built = (layer.get_build_config() or {}).get("input_shape")
    given = _first(layer, args, kwargs)
    if built is None or keras.tree.is_nested(given):
        return True
    return tuple(built)[1:] == tuple(given.shape)[1:]


def _calls_others(layer: keras.Layer) -> bool:
    return callable(getattr(layer, "as_calls", None))


def _convolves(layer: keras.Layer) -> bool:
    """Whether all positions share the layer's weight."""
    return isinstance(layer, _CONVOLUTIONS) or getattr(layer, "convolves", False) is True


def _draw_as_read(layer: keras.Layer, axes: tuple[int, ...]) -> None:
    """Draw the kernel as its source's was drawn: the fans are those of the source's axes."""
    shape = [layer.kernel.shape[axes.index(axis)] for axis in range(len(axes))]
    layer.kernel.assign(keras.ops.transpose(layer.kernel_initializer(shape), axes))
