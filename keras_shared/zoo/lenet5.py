import os
from collections.abc import Sequence
from typing import Any, Literal, Self

import keras
from keras import layers, ops
from pydantic import PositiveInt

from keras_shared import initializers
from keras_shared.layers import (
    ConnectionTableConv2D,
    Conv2D,
    EuclideanRBF,
    TrainableSubsampling,
    scaled_tanh,
)
from keras_shared.zoo.class_names import checked_class_names
from keras_shared.zoo.digit_bitmaps import digit_bitmaps
from keras_shared.zoo.image_classifier import ImageClassifier

# table I of the paper: which maps of S2 each map of C3 reads
C3_READS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip


@keras.saving.register_keras_serializable("keras_shared")
class LeNet5(ImageClassifier):
    """The convolutional network whose kernels are shared by all positions of an image.

    The variant of 1998, layer by layer: C1 convolution, S2 trainable subsampling, C3 convolution
    with a connection table, S4, C5, F6, each through `f(x) = 1.7159 tanh(2x/3)`, and outputs
    `-sum_i (x_i - w_ij)^2`, minus the distance to the bitmap of digit `j`. 60,000 trainable
    parameters carry 340,908 connections. The modern variant spends as many on the same stages with
    16, 32 and 56 maps, max pooling, batch normalisation, ReLU and logits: 58,986 parameters, 208 of
    them moving statistics. The largest output is the answer in both.

    Args:
        variant: `"1998"` or `"modern"`.
        class_names: names of the classes, in the order of the outputs; the digits by default. The
            variant of 1998 has exactly ten, since it has ten bitmaps.
        num_classes: their number, where they have no names: they are then called "0", "1", ...
        kernel_initializer: initial kernels of all layers, as of `keras_shared.initializers.get`;
            None for the paper's range (1998) or "glorot_uniform".
        dtype: dtype policy; the outputs are float32 in any case.
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        Images (batch, 28, 28, 1) with values 0 to 255, the ink bright. They are padded to 32x32;
        0 becomes -0.1 and 255 becomes 1.175.

    Returns:
        (batch, num_classes): minus the distances (train with `keras_shared.losses.RBFLoss`), or
        logits (train with a cross-entropy from logits).

    Raises:
        ValueError: for an unknown variant, or a number of classes that it cannot have.

    Example:
        >>> from keras_shared.zoo import LeNet5
        >>> model = LeNet5()
        >>> sum(int(keras.ops.size(v)) for v in model.trainable_variables)
        60000
        >>> LeNet5(variant="modern").count_params()
        58986

    Reference:
        LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document
        Recognition", section II.B; Ioffe & Szegedy 2015, "Batch Normalization".
    """

    loss_names = ("rbf", "rbf_far", "sparse_categorical_crossentropy")
    description = (
        "Reads a centred image of 28x28 pixels, ink bright; its kernels are shared by all "
        "positions."
    )
    limits = (
        "It names one of its classes for any image, also where none is right, and it expects them "
        "bright on dark, centred and of the size of its training images."
    )

    bright_on_dark = True

    def __init__(
        self,
        variant: Literal["1998", "modern"] = "1998",
        class_names: Sequence[str] | None = None,
        num_classes: PositiveInt | None = None,
        dtype: Any = None,
        kernel_initializer: initializers.InitializerName | keras.initializers.Initializer | None = (
            None
        ),
        **kwargs: Any,
    ) -> None:
        if variant not in ("1998", "modern"):
            raise ValueError(f"`variant` must be '1998' or 'modern'. Received: variant={variant!r}")
        class_names = _names(class_names, num_classes)
        if len(class_names) < 2 or (variant == "1998" and len(class_names) != 10):
            raise ValueError(
                "`class_names` or `num_classes` must give ten classes for variant '1998', and at "
                f"least two for 'modern'. Received: {len(class_names)} with variant={variant!r}"
            )

        # === Graph ===
        base = self._policy(dtype)
        f6 = self._policy(dtype, "F6")
        logits = self._policy(dtype, "logits", otherwise="float32")
        image = keras.Input((28, 28, 1), name="image")
        x = layers.ZeroPadding2D(2, dtype=base, name="pad")(image)  # (batch, 32, 32, 1)
        x = layers.Rescaling(1.275 / 255, -0.1, dtype=base, name="rescale")(x)
        if variant == "1998":
            outputs = _body_1998(x, base, f6, kernel_initializer)
        else:
            outputs = _body_modern(x, base, logits, len(class_names), kernel_initializer)
        super().__init__(image, outputs, **kwargs)

        # === Config ===
        self.variant = variant
        self.class_names = class_names
        self.num_classes = len(class_names)
        self.kernel_initializer = kernel_initializer
        self.base_policy = base

    @classmethod
    def image_shape_of(cls, **arguments: Any) -> tuple[int, int, int]:
        return (28, 28, 1)

    @classmethod
    def default_loss(cls, variant: str = "1998", **arguments: Any) -> str:
        return "rbf" if variant == "1998" else "sparse_categorical_crossentropy"

    @classmethod
    def from_preset(
        cls,
        preset: str | os.PathLike[str],
        version: int | None = None,
        class_names: Sequence[str] | None = None,
        num_classes: int | None = None,
    ) -> Self:
        """Load a published LeNet-5, also to fine-tune it for classes of your own.

        Args:
            preset: see `keras_shared.zoo.ZooModel.from_preset`.
            version: number of the version; the newest by default.
            class_names: names of other classes; see `with_classes`. None keeps the model's own.
            num_classes: their number, where they have no names.

        Returns:
            The trainable, uncompiled model.

        Raises:
            ValueError: as of `ZooModel.from_preset` and `with_classes`.

        Example:
            >>> from keras_shared.zoo import LeNet5
            >>> names = ["even", "odd"]
            >>> LeNet5.from_preset("lenet5_modern_mnist", class_names=names).output_shape
            (None, 2)
        """
        model = super().from_preset(preset, version)
        if class_names is None and num_classes is None:
            return model
        return model.with_classes(class_names, num_classes)

    def with_classes(
        self, class_names: Sequence[str] | None = None, num_classes: int | None = None
    ) -> Self:
        """This network for other classes: every weight is copied but the logits', which are new.

        Layers that are frozen stay so, but for the new logits.

        Args:
            class_names: names of the classes. The variant of 1998 has bitmaps in the place of
                logits, and takes ten classes at the bitmaps of the digits.
            num_classes: their number, where they have no names.

        Returns:
            A new model; this one stays as it is.

        Raises:
            ValueError: for a number of classes that the variant cannot have.

        Example:
            >>> from keras_shared.zoo import LeNet5
            >>> LeNet5(variant="modern").with_classes(["even", "odd"]).output_shape
            (None, 2)
        """
        changes = {"class_names": class_names, "num_classes": num_classes}
        config = {**self.get_config(), **changes, "trainable": True}
        config.pop("frozen", None)
        model = type(self).from_config(config)
        for layer in self.layers:
            if layer.name != "logits":
                new = model.get_layer(layer.name)
                new.set_weights(layer.get_weights())
                new.trainable = layer.trainable
        return model

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "variant": self.variant,
            "class_names": self.class_names,
            "num_classes": self.num_classes,
            "kernel_initializer": initializers.as_config(self.kernel_initializer),
        }


def _names(class_names: Sequence[str] | None, num_classes: int | None) -> tuple[str, ...]:
    if class_names is None and num_classes is not None:
        return tuple(map(str, range(num_classes)))
    names = checked_class_names(class_names)
    if num_classes not in (None, len(names)):
        raise ValueError(
            f"`class_names` and `num_classes` disagree. Received: {len(names)} names, "
            f"num_classes={num_classes}"
        )
    return names


def _body_1998(x: Any, dtype: Any, f6: Any, kernels: Any) -> Any:
    def like(inputs: float, dtype: Any = dtype) -> dict[str, Any]:
        """Arguments of a layer whose units read that many inputs: appendix A, U(-2.4/F, 2.4/F)."""
        uniform = keras.initializers.RandomUniform(-2.4 / inputs, 2.4 / inputs)
        drawn = uniform if kernels is None else initializers.get(kernels)
        return {"activation": scaled_tanh, "kernel_initializer": drawn, "dtype": dtype}

    def subsampling(name: str) -> TrainableSubsampling:
        return TrainableSubsampling(activation=scaled_tanh, dtype=dtype, name=name)

    x = layers.Conv2D(6, 5, name="C1", **like(25))(x)  # (batch, 28, 28, 6)
    x = subsampling("S2")(x)  # (batch, 14, 14, 6)
    x = ConnectionTableConv2D(C3_READS, 5, name="C3", **like(25 * 60 / 16))(x)  # 10, 10, 16
    x = subsampling("S4")(x)  # (batch, 5, 5, 16)
    x = Conv2D(120, 5, name="C5", **like(25 * 16))(x)  # (batch, 1, 1, 120)
    x = layers.Flatten(dtype=dtype, name="flatten")(x)
    x = layers.Dense(84, name="F6", **like(120, f6))(x)
    return ops.negative(
        EuclideanRBF(digit_bitmaps().tolist(), dtype="float32", name="distances")(x)
    )


def _body_modern(x: Any, dtype: Any, logits: Any, classes: int, kernels: Any) -> Any:
    def drawn() -> Any:
        return initializers.get(kernels or "glorot_uniform")

    def maps(filters: int, name: str, x: Any, pool: str | None = None) -> Any:
        arguments = {"use_bias": False, "kernel_initializer": drawn(), "dtype": dtype}
        x = Conv2D(filters, 5, **arguments, name=name)(x)
        if pool:  # first, so that the rest has a quarter of the pixels to go over
            x = layers.MaxPooling2D(dtype=dtype, name=pool)(x)
        x = layers.BatchNormalization(momentum=0.9, dtype=dtype, name=f"{name}_normalize")(x)
        return layers.ReLU(dtype=dtype, name=f"{name}_relu")(x)

    x = maps(16, "C1", x, pool="S2")  # (batch, 14, 14, 16)
    x = maps(32, "C3", x, pool="S4")  # (batch, 5, 5, 32)
    x = layers.Flatten(dtype=dtype, name="flatten")(maps(56, "C5", x))  # (batch, 56)
    return layers.Dense(classes, kernel_initializer=drawn(), dtype=logits, name="logits")(x)
