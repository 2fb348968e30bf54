from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import layers
from pydantic import PositiveInt

from keras_shared import initializers
from keras_shared.layers.schedules import positive
from keras_shared.zoo.class_names import checked_class_names
from keras_shared.zoo.image_classifier import ImageClassifier
from keras_shared.zoo.whole_numbers import IMAGE, whole_numbers


@keras.saving.register_keras_serializable("keras_shared")
class ImageRNN(ImageClassifier):
    """A plain recurrent net that reads an image bit by bit: one cell, shared by all steps.

    `h_t = f(x_t W + h_{t-1} U + b)`, `y = h_T V + c`, with `x_t` the next pixel, or row. Its
    gradient goes through the one `U` at every step, some 800 times for an image of MNIST: what is
    not kept there is lost, and what grows there explodes. A net with weights of its own for each
    of 64 steps would have 64 times the parameters.

    Args:
        units: width of the state.
        activation: `f`.
        read: "pixel" by pixel, row after row, or "row" by row.
        recurrent_initializer: initial `U`, as of `keras_shared.initializers.get`: "identity" for an
            IRNN; None for "orthogonal", as Keras has it.
        kernel_initializer: initial `W` and `V`; None for "glorot_uniform".
        image_shape: (height, width, channels) of one image.
        class_names: names of the classes, in the order of the outputs; the digits by default.
        dtype: dtype policy; the outputs are float32 in any case.
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        Images (batch, height, width, channels) with values 0 to 255, which become 0 to 1.

    Returns:
        (batch, classes) logits: train with a cross-entropy from logits.

    Raises:
        ValueError: for a width below 1, fewer than two classes, or another way to read.

    Example:
        >>> from keras_shared.zoo import ImageRNN
        >>> ImageRNN(units=100, recurrent_initializer="identity").count_params()
        11210

    Reference:
        Le, Jaitly, Hinton 2015, "A Simple Way to Initialize Recurrent Networks of Rectified Linear
        Units", section 4.2 (MNIST by pixels).
    """

    description = "Names what an image shows after reading it pixel by pixel, or row by row."
    limits = "It knows its classes alone, centred as in its training images."

    bright_on_dark = True

    def __init__(
        self,
        units: PositiveInt = 100,
        activation: Literal["relu", "tanh"] = "relu",
        read: Literal["pixel", "row"] = "pixel",
        recurrent_initializer: (
            initializers.InitializerName | keras.initializers.Initializer | None
        ) = None,
        kernel_initializer: initializers.InitializerName | keras.initializers.Initializer | None = (
            None
        ),
        image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (28, 28, 1),
        class_names: Sequence[str] | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        class_names = checked_class_names(class_names)
        units = positive("units", units)
        if read not in ("pixel", "row"):
            raise ValueError(f"`read` must be 'pixel' or 'row'. Received: read={read!r}")
        base = self._policy(dtype)
        height, width, channels = image_shape = whole_numbers(image_shape, "image_shape", IMAGE)
        steps = (height * width, channels) if read == "pixel" else (height, width * channels)

        # === Graph ===
        image = keras.Input(image_shape, name="image")
        x = layers.Rescaling(1 / 255, dtype=base, name="rescale")(image)
        x = layers.Reshape(steps, dtype=base, name="steps")(x)  # (batch, T, numbers)
        x = layers.SimpleRNN(
            units, activation,
            kernel_initializer=initializers.get(kernel_initializer or "glorot_uniform"),
            recurrent_initializer=initializers.get(recurrent_initializer or "orthogonal"),
            dtype=base, name="recurrent",
        )(x)  # (batch, units), the last state  # fmt: skip
        x = layers.Dense(
            len(class_names),
            kernel_initializer=initializers.get(kernel_initializer or "glorot_uniform"),
            dtype=self._policy(dtype, "logits", otherwise="float32"), name="logits",
        )(x)  # fmt: skip
        super().__init__(image, x, **kwargs)

        # === Config ===
        self.units = units
        self.activation = activation
        self.read = read
        self.recurrent_initializer = recurrent_initializer
        self.kernel_initializer = kernel_initializer
        self.image_shape = image_shape
        self.class_names = class_names
        self.base_policy = base

    @classmethod
    def image_shape_of(
        cls, image_shape: Any = (28, 28, 1), **arguments: Any
    ) -> tuple[int, int, int]:
        height, width, channels = image_shape
        return (height, width, channels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": self.activation,
            "read": self.read,
            "recurrent_initializer": initializers.as_config(self.recurrent_initializer),
            "kernel_initializer": initializers.as_config(self.kernel_initializer),
            "image_shape": self.image_shape,
            "class_names": self.class_names,
        }
