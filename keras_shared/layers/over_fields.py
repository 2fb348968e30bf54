from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_shared.layers.schedules import positive


@keras.saving.register_keras_serializable("keras_shared")
class OverFields(keras.layers.Layer):
    """A layer on vectors, shared by all fields of a map: a dense layer read as a convolution.

    `y[p] = layer(flatten(x[p : p + size]))` at every position `p` at which a field of `size` fits.
    With a Dense behind a Flatten as `layer`, this is a convolution without padding whose kernels
    are the columns of the dense kernel. With a whole model of dense layers, the later ones are
    convolutions of side 1. The layer is called as it is, on all fields at once; no weight is copied
    or has another shape.

    Args:
        layer: a layer or model that takes (batch, features).
        size: (rows, columns) of a field, with rows * columns * channels = features.
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, rows, columns, channels)`, of any number of rows and columns from `size` on.

    Output shape:
        `(batch, rows - size[0] + 1, columns - size[1] + 1, ...)`, with what `layer` gives for one
        field in the place of `...`.

    Raises:
        ValueError: for maps that are smaller than a field.

    Example:
        >>> import keras
        >>> from keras_shared.layers import OverFields
        >>> dense = keras.layers.Dense(10)
        >>> y = dense(keras.ops.ones((1, 5 * 5 * 16)))  # behind a Flatten of (5, 5, 16)
        >>> OverFields(dense, (5, 5))(keras.ops.ones((1, 5, 30, 16))).shape
        TensorShape([1, 1, 26, 10])

    Reference:
        Matan, Burges, LeCun, Denker 1992, "Multi-Digit Recognition Using a Space Displacement
        Neural Network"; LeCun, Bottou, Bengio, Haffner 1998, section VII.
    """

    def __init__(self, layer: keras.Layer, size: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(layer, keras.Layer):
            raise ValueError(f"`layer` must be a layer or model. Received: layer={layer!r}")
        if not isinstance(size, Sequence) or len(size) != 2:
            raise ValueError(f"`size` must be (rows, columns) of a field. Received: size={size!r}")
        self.autocast = False  # `layer` has a policy of its own
        self.layer = layer
        expected = "(rows, columns) of a field, each a whole number above 0"
        self.size = (positive("size", size[0], expected), positive("size", size[1], expected))
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if not self.layer.built:
            self.layer.build(self._features(input_shape))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        self.compute_output_shape(inputs.shape)
        height, width = self.size
        fields = [  # each pixel of a field, for all positions: (batch, rows, columns, channels)
            inputs[:, i : i - height + 1 or None, j : j - width + 1 or None]
            for i in range(height)
            for j in range(width)
        ]
        stacked = ops.concatenate(fields, axis=-1)  # in the order of Flatten
        rows, columns = ops.shape(stacked)[1:3]
        # (batch * rows * columns, features)
        vectors = ops.reshape(stacked, (-1, stacked.shape[-1]))
        outputs = self.layer(vectors, training=training)
        return keras.tree.map_structure(
            lambda y: ops.reshape(y, (-1, rows, columns, *y.shape[1:])), outputs
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> Any:
        batch, *sides, _ = input_shape
        if any(s is not None and s < f for s, f in zip(sides, self.size, strict=True)):
            raise ValueError(
                f"OverFields '{self.name}' takes maps of at least {self.size[0]}x{self.size[1]}. "
                f"Received: input_shape={tuple(input_shape)}. Give the model a larger image."
            )
        new = [None if s is None else s - f + 1 for s, f in zip(sides, self.size, strict=True)]
        one = self.layer.compute_output_shape(self._features(input_shape))
        return keras.tree.map_shape_structure(lambda shape: (batch, *new, *shape[1:]), one)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "size": self.size,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "OverFields":
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})

    def _features(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        return (None, self.size[0] * self.size[1] * (input_shape[-1] or 1))
