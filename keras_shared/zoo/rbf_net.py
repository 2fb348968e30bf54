from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import layers
from pydantic import PositiveFloat, PositiveInt

from keras_shared import initializers
from keras_shared.layers import GaussianRBF
from keras_shared.zoo.class_names import checked_class_names
from keras_shared.zoo.image_classifier import ImageClassifier
from keras_shared.zoo.whole_numbers import IMAGE, whole_numbers


@keras.saving.register_keras_serializable("keras_shared")
class RBFNet(ImageClassifier):
    """Names an image by how near it is to trained images, the centres, which all classes share.

    `h_j = exp(-|x - c_j|^2 / (2 s_j^2))` and `y = h W + b`. With shared centres every class weighs
    all `h_j`, and the gradient of a centre is the sum over the classes; with own ones class `k`
    weighs its `units / classes` alone. With a shared width `s_j = s` for all units. Centres have
    the form of images: where they went in training can be looked at.

    Args:
        units: number of centres; a multiple of the classes where each has its own.
        centers: "shared" by all classes, or "own".
        width: "shared" by all units, or "own"; trained either way.
        initial_width: of all units; an image of n pixels is a vector of n numbers from 0 to 1.
        kernel_initializer: initial `W`, as of `keras_shared.initializers.get`; None for
            "glorot_uniform". Centres begin uniform from 0 to 1.
        image_shape: (height, width, channels) of one image.
        class_names: names of the classes, in the order of the outputs; the digits by default.
        dtype: dtype policy; the outputs are float32 in any case.
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        Images (batch, height, width, channels) with values 0 to 255, which become 0 to 1.

    Returns:
        (batch, classes) logits: train with a cross-entropy from logits.

    Raises:
        ValueError: for fewer than two classes, own centres that cannot be dealt out to them, or a
            width that is not positive.

    Example:
        >>> from keras_shared.zoo import RBFNet
        >>> RBFNet().count_params()  # 100 x 64, a width, 100 x 10 + 10
        7411
        >>> RBFNet(centers="own").count_params()  # each class weighs 10 centres
        6511

    Reference:
        Broomhead & Lowe 1988, "Multivariable Functional Interpolation and Adaptive Networks";
        Poggio & Girosi 1990, "Networks for Approximation and Learning" (centres that are trained).
    """

    description = "Names what an image shows by its distances to trained images."
    limits = "It knows its classes alone, centred as in its training images."

    bright_on_dark = True

    def __init__(
        self,
        units: PositiveInt = 100,
        centers: Literal["shared", "own"] = "shared",
        width: Literal["shared", "own"] = "shared",
        initial_width: PositiveFloat = 2.0,
        kernel_initializer: initializers.InitializerName | keras.initializers.Initializer | None = (
            None
        ),
        image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (8, 8, 1),
        class_names: Sequence[str] | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        class_names = checked_class_names(class_names)
        classes = len(class_names)
        if centers not in ("shared", "own"):
            raise ValueError(f"`centers` must be 'shared' or 'own'. Received: centers={centers!r}")
        if centers == "own" and units % classes:
            raise ValueError(
                f"`units` must be a multiple of the {classes} classes where each has its own "
                f"centres. Received: units={units}"
            )
        base = self._policy(dtype)
        drawn = initializers.get(kernel_initializer or "glorot_uniform")
        logits = self._policy(dtype, "logits", otherwise="float32")

        # === Graph ===
        image = keras.Input(whole_numbers(image_shape, "image_shape", IMAGE), name="image")
        x = layers.Rescaling(1 / 255, dtype=base, name="rescale")(image)
        x = layers.Flatten(dtype=base, name="flatten")(x)
        x = GaussianRBF(
            units, width, initial_width, dtype=base, name="rbf",
            centers_initializer=keras.initializers.RandomUniform(0.0, 1.0),
        )(x)  # (batch, units)  # fmt: skip
        if centers == "shared":
            x = layers.Dense(classes, kernel_initializer=drawn, dtype=logits, name="logits")(x)
        else:
            x = layers.Reshape((classes, units // classes), dtype=base, name="by_class")(x)
            x = layers.EinsumDense(
                "bcu,cu->bc", (classes,), bias_axes="c", kernel_initializer=drawn, dtype=logits,
                name="logits",
            )(x)  # fmt: skip
        super().__init__(image, x, **kwargs)

        # === Config ===
        self.units = units
        self.centers = centers
        self.width = width
        self.initial_width = float(initial_width)
        self.kernel_initializer = kernel_initializer
        self.image_shape = tuple(image_shape)
        self.class_names = class_names
        self.base_policy = base

    @classmethod
    def image_shape_of(cls, image_shape: Any = (8, 8, 1), **arguments: Any) -> tuple[int, int, int]:
        height, width, channels = image_shape
        return (height, width, channels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "centers": self.centers,
            "width": self.width,
            "initial_width": self.initial_width,
            "kernel_initializer": initializers.as_config(self.kernel_initializer),
            "image_shape": self.image_shape,
            "class_names": self.class_names,
        }
