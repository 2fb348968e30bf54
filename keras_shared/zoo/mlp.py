from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import layers
from pydantic import PositiveInt

from keras_shared import initializers
from keras_shared.layers import SharedStack
from keras_shared.layers.schedules import positive
from keras_shared.zoo.class_names import checked_class_names
from keras_shared.zoo.image_classifier import ImageClassifier
from keras_shared.zoo.whole_numbers import IMAGE, whole_numbers


@keras.saving.register_keras_serializable("keras_shared")
class MLP(ImageClassifier):
    """A deep perceptron whose hidden layers are separate, or one that is applied again and again.

    `h_1 = f(x W_1 + b_1)`, `h_k = f(h_{k-1} W_k + b_k)`, `y = h_depth W + b`. With `shared=True`
    all `W_k` and `b_k` behind the first are one layer, as of a recurrent net without input: five
    layers of 1000 units have 1,796,010 parameters instead of 4,799,010. What initial weights do
    to a signal shows best here, where nothing else is in its way.

    Args:
        depth: number of hidden layers.
        units: width of each.
        activation: `f`; "linear" for the deep linear nets of Saxe et al.
        shared: whether one layer stands for all hidden layers behind the first.
        kernel_initializer: initial kernels of all layers, as of `keras_shared.initializers.get`;
            None for "glorot_uniform".
        image_shape: (height, width, channels) of one image.
        class_names: names of the classes, in the order of the outputs; the digits by default.
        dtype: dtype policy; the outputs are float32 in any case.
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        Images (batch, height, width, channels) with values 0 to 255; 0 becomes -1 and 255 1.

    Returns:
        (batch, classes) logits: train with a cross-entropy from logits.

    Raises:
        ValueError: for a depth or width below 1, or fewer than two classes.

    Example:
        >>> from keras_shared.zoo import MLP
        >>> MLP().count_params(), MLP(shared=True).count_params()
        (4799010, 1796010)

    Reference:
        Glorot & Bengio 2010, section 2 (one to five layers of 1000 units); Saxe, McClelland,
        Ganguli 2014 (linear).
    """

    description = "Names what an image shows by layers that read all of its pixels."
    limits = "It knows its classes alone, centred as in its training images."

    bright_on_dark = True

    def __init__(
        self,
        depth: PositiveInt = 5,
        units: PositiveInt = 1000,
        activation: Literal["tanh", "softsign", "sigmoid", "relu", "linear"] = "tanh",
        shared: bool = False,
        kernel_initializer: initializers.InitializerName | keras.initializers.Initializer | None = (
            None
        ),
        image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (28, 28, 1),
        class_names: Sequence[str] | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        class_names = checked_class_names(class_names)
        depth, units = positive("depth", depth), positive("units", units)
        image_shape = whole_numbers(image_shape, "image_shape", IMAGE)
        base = self._policy(dtype)

        def dense(name: str) -> layers.Dense:
            drawn = initializers.get(kernel_initializer or "glorot_uniform")
            return layers.Dense(units, activation, kernel_initializer=drawn, dtype=base, name=name)

        # === Graph ===
        image = keras.Input(image_shape, name="image")
        x = layers.Rescaling(2 / 255, -1.0, dtype=base, name="rescale")(image)
        x = layers.Flatten(dtype=base, name="flatten")(x)
        x = dense("hidden_1")(x)  # (batch, units)
        if shared and depth > 1:
            x = SharedStack(dense("hidden"), depth - 1, dtype=base, name="stack")(x)
        else:
            for number in range(2, depth + 1):
                x = dense(f"hidden_{number}")(x)
        x = layers.Dense(
            len(class_names), kernel_initializer=initializers.get(
                kernel_initializer or "glorot_uniform"
            ), dtype=self._policy(dtype, "logits", otherwise="float32"), name="logits",
        )(x)  # fmt: skip
        super().__init__(image, x, **kwargs)

        # === Config ===
        self.depth = depth
        self.units = units
        self.activation = activation
        self.shared = shared
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
            "depth": self.depth,
            "units": self.units,
            "activation": self.activation,
            "shared": self.shared,
            "kernel_initializer": initializers.as_config(self.kernel_initializer),
            "image_shape": self.image_shape,
            "class_names": self.class_names,
        }
