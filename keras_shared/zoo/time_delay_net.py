from collections.abc import Sequence
from typing import Any, Literal, Self

import keras
from keras import layers
from pydantic import PositiveInt

from keras_shared import initializers
from keras_shared.zoo.class_names import checked_class_names
from keras_shared.zoo.image_classifier import ImageClassifier
from keras_shared.zoo.whole_numbers import IMAGE, whole_numbers


@keras.saving.register_keras_serializable("keras_shared")
class TimeDelayNet(ImageClassifier):
    """Reads an image column by column, as frames of speech: each unit is shared by all times.

    `h_k(t) = f(b_k + sum_d h_(k-1)(t + d) W_k(d))` for the delays `d = 0 ... window_k - 1`; the
    last `h(t)`, without `f`, is a score for each class, and `y = mean_t h(t)` gathers the evidence
    of all times. One kernel serves every time, its gradient is the sum over them, and a net takes
    sequences of any length with the same weights. Moved by one frame, a sequence gives the same
    scores one step later, but where a border cuts off what the windows read, or a stride skips it.

    Args:
        filters: units of each hidden layer.
        windows: frames that each layer reads, the last of them those of the scores.
        strides: frames between two steps of each layer.
        padding: "valid", or "same", by which frames of zeros stand at the borders.
        activation: `f`.
        kernel_initializer: initial kernels, as of `keras_shared.initializers.get`; None for
            "glorot_uniform".
        image_shape: (frequencies, frames, channels): a column of pixels is a frame.
        class_names: names of the classes, in the order of the outputs; the digits by default.
        dtype: dtype policy; the outputs are float32 in any case.
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        Images (batch, frequencies, frames, channels) with values 0 to 255, which become 0 to 1.

    Returns:
        (batch, classes) logits: train with a cross-entropy from logits.

    Raises:
        ValueError: for windows or strides that are not one more than `filters`, fewer than two
            classes, or fewer frames than the windows need.

    Example:
        >>> from keras_shared.zoo import TimeDelayNet
        >>> model = TimeDelayNet()
        >>> model.count_params()  # 3 x 8 x 16 + 16, 3 x 16 x 16 + 16, 16 x 10 + 10
        1354
        >>> model.at_each_step([[[[0.0]] * 8] * 8]).shape  # 8 frames, less 2, less 2
        (1, 4, 10)

    Reference:
        Waibel, Hanazawa, Hinton, Shikano, Lang 1989, "Phoneme Recognition Using Time-Delay Neural
        Networks", section II: 15 frames of 16 numbers, windows of 3 and 5 frames, 8 hidden units.
    """

    description = "Names a sequence of columns by units that are shared over time."
    limits = "It knows its classes alone, in sequences of one of them."

    bright_on_dark = True

    def __init__(
        self,
        filters: Sequence[PositiveInt] = (16, 16),
        windows: Sequence[PositiveInt] = (3, 3, 1),
        strides: Sequence[PositiveInt] = (1, 1, 1),
        padding: Literal["valid", "same"] = "valid",
        activation: Literal["relu", "tanh", "sigmoid"] = "relu",
        kernel_initializer: initializers.InitializerName | keras.initializers.Initializer | None = (
            None
        ),
        image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (8, 8, 1),
        class_names: Sequence[str] | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        class_names = checked_class_names(class_names)
        filters = whole_numbers(filters, "filters")
        windows, strides = whole_numbers(windows, "windows"), whole_numbers(strides, "strides")
        if padding not in ("valid", "same"):
            raise ValueError(f"`padding` must be 'valid' or 'same'. Received: padding={padding!r}")
        if not len(windows) == len(strides) == len(filters) + 1:
            raise ValueError(
                "`windows` and `strides` must have one number more than `filters`, for the scores. "
                f"Received: filters={filters}, windows={windows}, strides={strides}"
            )
        height, frames, channels = whole_numbers(image_shape, "image_shape", IMAGE)
        needed = 1 if padding == "same" else _frames_read(windows, strides)
        if frames < needed:
            raise ValueError(
                f"The windows {windows} with strides {strides} read {needed} frames. "
                f"Received: image_shape={tuple(image_shape)}, of {frames} frames"
            )
        base = self._policy(dtype)
        logits = self._policy(dtype, "scores", otherwise="float32")

        # === Graph ===
        image = keras.Input(image_shape, name="image")
        x = layers.Rescaling(1 / 255, dtype=base, name="rescale")(image)
        x = layers.Permute((2, 1, 3), dtype=base, name="columns")(x)  # (batch, frames, height, c)
        x = layers.Reshape((frames, height * channels), dtype=base, name="frames")(x)
        for number, (units, window, stride) in enumerate(
            zip((*filters, len(class_names)), windows, strides, strict=True), 1
        ):
            last = number > len(filters)
            x = layers.Conv1D(
                units, window, stride, padding, activation=None if last else activation,
                kernel_initializer=initializers.get(kernel_initializer or "glorot_uniform"),
                dtype=logits if last else base, name="scores" if last else f"hidden_{number}",
            )(x)  # (batch, steps, units)  # fmt: skip
        y = layers.GlobalAveragePooling1D(dtype="float32", name="over_time")(x)
        super().__init__(image, y, **kwargs)
        self.steps_model = keras.Model(image, x, name="steps")

        # === Config ===
        self.filters = filters
        self.windows = windows
        self.strides = strides
        self.padding = padding
        self.activation = activation
        self.kernel_initializer = kernel_initializer
        self.image_shape = tuple(image_shape)
        self.class_names = class_names
        self.base_policy = base

    @classmethod
    def image_shape_of(cls, image_shape: Any = (8, 8, 1), **arguments: Any) -> tuple[int, int, int]:
        height, width, channels = image_shape
        return (height, width, channels)

    def at_each_step(self, images: Any) -> Any:
        """The scores at each step, whose mean the net answers with.

        Args:
            images: (batch, frequencies, frames, channels), 0 to 255.

        Returns:
            (batch, steps, classes).

        Raises:
            ValueError: for arrays that are no such images.
        """
        return self.steps_model.predict(self._checked(images), verbose=0)

    def with_image_shape(self, image_shape: tuple[int, int, int]) -> Self:
        """This net for longer or shorter sequences, with a copy of its weights.

        Args:
            image_shape: (frequencies, frames, channels); frames alone may be others.

        Raises:
            ValueError: for other frequencies or channels, or too few frames.

        Example:
            >>> from keras_shared.zoo import TimeDelayNet
            >>> TimeDelayNet().with_image_shape((8, 20, 1)).steps_model.output_shape
            (None, 16, 10)
        """
        height, _, channels = self.image_shape
        given = tuple(image_shape) if isinstance(image_shape, Sequence) else (image_shape,)
        if len(given) != 3 or (given[0], given[2]) != (height, channels):
            raise ValueError(
                f"`image_shape` must be ({height}, frames, {channels}), with the frequencies and "
                f"channels that its kernels read. Received: {image_shape}"
            )
        model = type(self).from_config({**self.get_config(), "image_shape": image_shape})
        for new, old in zip(model.layers, self.layers, strict=True):
            new.trainable = old.trainable
        model.set_weights(self.get_weights())
        return model

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "windows": self.windows,
            "strides": self.strides,
            "padding": self.padding,
            "activation": self.activation,
            "kernel_initializer": initializers.as_config(self.kernel_initializer),
            "image_shape": self.image_shape,
            "class_names": self.class_names,
        }


def _frames_read(windows: Sequence[int], strides: Sequence[int]) -> int:
    """How many frames one step of the scores sees."""
    frames = 1
    for window, stride in zip(reversed(windows), reversed(strides), strict=True):
        frames = (frames - 1) * stride + window
    return frames
