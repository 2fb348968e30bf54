from typing import Any

import keras

from keras_shared.layers import Shared, TiedConv2DTranspose, TiedDense, TiedLayer
from keras_shared.tying import TiedReader, run_graph


def unshare(model: keras.Model, copy_values: bool = True) -> keras.Model:
    """The same computation without any sharing: each use of a weight has a weight of its own.

    Each call of a layer, in towers and sub-models too, becomes a call of a layer of its own; a
    `TiedDense` becomes a `Dense`, a `TiedConv2DTranspose` a `Conv2DTranspose`, and `Shared` as many
    layers as it has inputs. The positions of a convolution go on sharing its kernel.

    Args:
        model: a functional model or a Sequential that was built, zoo models included.
        copy_values: whether the new weights begin with the old values, so that all outputs are
            equal before training; otherwise each is initialised anew.

    Returns:
        A new functional model, not compiled; `model` stays as it is.

    Raises:
        ValueError: for a model without a graph of layers, or a layer that cannot be copied.

    Example:
        >>> from keras_shared.evaluation import unshare
        >>> from keras_shared.zoo import TiedAutoencoder
        >>> model = TiedAutoencoder(units=(4, 2), input_dim=6)
        >>> model.count_params(), unshare(model).count_params()
        (48, 80)
    """
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"'{model.name}' (of type {type(model).__name__}) has no graph of layers to copy. Give "
            "unshare a functional model, or a Sequential that was built."
        )
    copies = _Copies(copy_values)
    inputs = keras.tree.map_structure(
        lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name),
        model.inputs[0] if isinstance(model, keras.Sequential) else model.input,
    )
    return keras.Model(inputs, copies.of_call(model, inputs), name=f"{model.name}_unshared")


class _Copies:
    """Calls layers, each time through a layer that is new."""

    def __init__(self, copy_values: bool) -> None:
        self._copy_values = copy_values
        self._uses: dict[str, int] = {}

    def of_call(self, layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Sequential):
            (x,) = args
            for inner in layer.layers:
                x = self.of_call(inner, x)
            return x
        if isinstance(layer, keras.Model) and getattr(layer, "inputs", None):
            return run_graph(layer, args, self.of_call)
        if not isinstance(layer, keras.Layer):  # an operation such as keras.ops.negative
            return layer(*args, **kwargs)
        if isinstance(layer, Shared):
            (uses,) = args
            called = [self.of_call(layer.layer, x) for x in keras.tree.flatten(uses)]
            return keras.tree.pack_sequence_as(uses, called)
        if isinstance(layer, TiedLayer) and not layer.untied:
            return self.of_call(layer.source(), *args)
        return self._copy(layer)(*args, **kwargs)

    def _copy(self, layer: keras.Layer) -> keras.Layer:
        number = self._uses.get(layer.name, 0)
        self._uses[layer.name] = number + 1
        name = f"{layer.name}_use_{number}" if number else layer.name
        if isinstance(layer, TiedReader) and not layer.untied:
            return self._of_reader(layer, name)
        copy = type(layer).from_config({**layer.get_config(), "name": name})
        if layer.weights:
            copy.build_from_config(layer.get_build_config())
            if self._copy_values:
                copy.set_weights(layer.get_weights())
        return copy

    def _of_reader(self, reader: TiedReader, name: str) -> keras.Layer:
        weight = keras.ops.convert_to_numpy(reader.tied_weight())
        config = {
            key: value
            for key, value in reader.get_config().items()
            if key not in ("source", "name", "output_padding")
        }
        if isinstance(reader, TiedDense):
            layer = keras.layers.Dense.from_config({**config, "name": name, "units": len(weight)})
            weight = weight.T
        elif isinstance(reader, TiedConv2DTranspose):
            rows, columns, channels, _ = weight.shape
            geometry = {"filters": channels, "kernel_size": (rows, columns), **reader.geometry()}
            layer = keras.layers.Conv2DTranspose.from_config({**config, "name": name, **geometry})
        else:
            raise ValueError(
                f"unshare knows no layer of its own that does what {type(reader).__name__} "
                f"'{reader.name}' does. Call `keras_shared.tying.untie` on it first."
            )
        layer.build_from_config(reader.get_build_config())
        if self._copy_values:
            layer.set_weights([weight, *reader.get_weights()])
        return layer
