from typing import Any, Literal

import keras
from keras import layers

from keras_shared import initializers
from keras_shared.layers import LocallyConnected2D, PositionBias, scaled_tanh
from keras_shared.zoo.class_names import DIGITS
from keras_shared.zoo.image_classifier import ImageClassifier

SIDE = 16  # pixels


@keras.saving.register_keras_serializable("keras_shared")
class LeCun1989(ImageClassifier):
    """Five nets from no sharing to much: the first experiment on what sharing buys.

    ===  =========================================================  ===========  =======
    net  layers                                                     connections  weights
    ===  =========================================================  ===========  =======
    1    256-10                                                     2,570        2,570
    2    256-12-10                                                  3,214        3,214
    3    8x8 units of 3x3 fields, 4x4 of 5x5, 10; nothing shared    1,226        1,226
    4    two 8x8 maps, each with one kernel; 4x4, not shared; 10    2,266        1,132
    5    two 8x8 maps and four 4x4 maps, each with one kernel; 10   5,194        1,060
    ===  =========================================================  ===========  =======

    Fields lie two pixels apart and reach over the edge. Biases are never shared. Hidden units go
    through `f(x) = 1.7159 tanh(2x/3)`.

    Args:
        net: 1 to 5.
        kernel_initializer: initial kernels of all layers, as of `keras_shared.initializers.get`;
            None for "lecun_uniform".
        dtype: dtype policy; the outputs are float32 in any case.
        **kwargs: `name` and `trainable`, as of `keras.Model`.

    Call:
        Images (batch, 16, 16, 1) with values 0 to 255, the ink bright; 0 becomes -1 and 255
        becomes 1.

    Returns:
        (batch, 10) logits: train with a cross-entropy from logits. (The paper's outputs are
        sigmoids under a squared error.)

    Raises:
        ValueError: for another net.

    Example:
        >>> from keras_shared.zoo import LeCun1989
        >>> [LeCun1989(net).count_params() for net in (1, 2, 3, 4, 5)]
        [2570, 3214, 1226, 1132, 1060]

    Reference:
        LeCun 1989, "Generalization and Network Design Strategies"; Hastie, Tibshirani, Friedman
        2009, "The Elements of Statistical Learning", section 11.7 and table 11.1.
    """

    description = (
        "Reads a digit of 16x16 pixels: one of five nets from no sharing to much, the first "
        "experiment on what sharing buys."
    )
    limits = "A few hundred digits of one source taught it; it is an experiment, not a reader."

    bright_on_dark = True

    def __init__(
        self,
        net: Literal[1, 2, 3, 4, 5] = 5,
        dtype: Any = None,
        kernel_initializer: initializers.InitializerName | keras.initializers.Initializer | None = (
            None
        ),
        **kwargs: Any,
    ) -> None:
        if net not in (1, 2, 3, 4, 5):
            raise ValueError(f"`net` must be 1, 2, 3, 4 or 5. Received: net={net!r}")
        base = self._policy(dtype)
        logits = self._policy(dtype, "logits", otherwise="float32")

        def drawn() -> Any:
            return initializers.get(kernel_initializer or "lecun_uniform")

        def local(filters: int, side: int, name: str) -> LocallyConnected2D:
            return LocallyConnected2D(
                filters, side, strides=2, padding="same", activation=scaled_tanh,
                kernel_initializer=drawn(), dtype=base, name=name,
            )  # fmt: skip

        def shared(filters: int, side: int, name: str, x: Any) -> Any:
            x = layers.Conv2D(
                filters, side, strides=2, padding="same", use_bias=False,
                kernel_initializer=drawn(), dtype=base, name=name,
            )(x)  # fmt: skip
            return PositionBias(scaled_tanh, dtype=base, name=f"{name}_bias")(x)

        # === Graph ===
        image = keras.Input((SIDE, SIDE, 1), name="image")
        x = layers.Rescaling(2 / 255, -1.0, dtype=base, name="rescale")(image)
        if net == 3:
            x = local(1, 3, "H1")(x)  # (batch, 8, 8, 1)
        elif net > 3:
            x = shared(2, 3, "H1", x)  # (batch, 8, 8, 2)
        if net in (3, 4):
            x = local(1, 5, "H2")(x)  # (batch, 4, 4, 1)
        elif net == 5:
            x = shared(4, 5, "H2", x)  # (batch, 4, 4, 4)
        x = layers.Flatten(dtype=base, name="flatten")(x)
        if net == 2:
            x = layers.Dense(12, scaled_tanh, kernel_initializer=drawn(), dtype=base,
                             name="H1")(x)  # fmt: skip
        x = layers.Dense(10, kernel_initializer=drawn(), dtype=logits, name="logits")(x)
        super().__init__(image, x, **kwargs)

        # === Config ===
        self.net = net
        self.kernel_initializer = kernel_initializer
        self.class_names = DIGITS
        self.base_policy = base

    @classmethod
    def image_shape_of(cls, **arguments: Any) -> tuple[int, int, int]:
        return (SIDE, SIDE, 1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "net": self.net,
            "kernel_initializer": initializers.as_config(self.kernel_initializer),
        }
