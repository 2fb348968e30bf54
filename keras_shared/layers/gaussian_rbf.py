import math
import numbers
from typing import Any, Literal

import keras
from keras import ops

from keras_shared.layers.schedules import positive


@keras.saving.register_keras_serializable("keras_shared")
class GaussianRBF(keras.layers.Layer):
    """Units that answer near a trained centre, by widths of their own or by one for all units.

    `y_j = exp(-sum_i (x_i - c_ij)^2 / (2 s_j^2))`, with `s_j = s` for all `j` where the width is
    shared: then one number says how far from its centre any unit answers, and its gradient is the
    sum over all units. The logarithm of a width is what is trained, so that it stays positive. An
    RBF net is this layer with a Dense behind it. `keras_shared.layers.EuclideanRBF` gives the
    distances to fixed centres, as in LeNet-5.

    Begin with centres from the data: `layer.build((None, features))`, then
    `layer.centers.assign(sklearn.cluster.KMeans(units).fit(x).cluster_centers_)`.

    Args:
        units: number of centres.
        width: `"own"` or `"shared"`.
        initial_width: of all units, in the units of the inputs.
        train_centers: whether training moves the centres.
        centers_initializer: draws the centres, (units, features).
        **kwargs: arguments of `keras.layers.Layer`.

    Input shape:
        `(batch, ..., features)`.

    Output shape:
        `(batch, ..., units)`, from 0 to 1.

    Raises:
        ValueError: for fewer than one unit, another `width`, an initial width that is not
            positive, or inputs of unknown width.

    Example:
        >>> import keras
        >>> from keras_shared.layers import GaussianRBF
        >>> layer = GaussianRBF(20, width="shared")
        >>> layer(keras.ops.ones((2, 64))).shape, layer.count_params()  # 20 * 64, and one width
        (TensorShape([2, 20]), 1281)

    Reference:
        Broomhead & Lowe 1988, "Multivariable Functional Interpolation and Adaptive Networks";
        Moody & Darken 1989, "Fast Learning in Networks of Locally-Tuned Processing Units"
        (centres by k-means).
    """

    def __init__(
        self,
        units: int,
        width: Literal["own", "shared"] = "own",
        initial_width: float = 1.0,
        train_centers: bool = True,
        centers_initializer: Any = "random_normal",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if width not in ("own", "shared"):
            raise ValueError(f"`width` must be 'own' or 'shared'. Received: width={width!r}")
        number = isinstance(initial_width, numbers.Real) and not isinstance(initial_width, bool)
        if not number or not 0 < initial_width < math.inf:
            raise ValueError(
                "`initial_width` must be a positive number, of all units. Received: "
                f"initial_width={initial_width!r}"
            )
        self.units = positive("units", units)
        self.width = width
        self.initial_width = float(initial_width)
        self.train_centers = train_centers
        self.centers_initializer = keras.initializers.get(centers_initializer)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if not input_shape or input_shape[-1] is None:
            raise ValueError(
                f"GaussianRBF '{self.name}' takes inputs of a known width. "
                f"Received: input_shape={input_shape}"
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: input_shape[-1]})
        self.centers = self.add_weight(
            name="centers",
            shape=(self.units, input_shape[-1]),
            initializer=self.centers_initializer,
            trainable=self.train_centers,
        )
        self.log_width = self.add_weight(
            name="log_width",
            shape=(self.units if self.width == "own" else 1,),
            initializer=keras.initializers.Constant(math.log(self.initial_width)),
        )

    def call(self, inputs: Any) -> Any:
        difference = ops.expand_dims(inputs, -2) - self.centers  # (batch, ..., units, features)
        scaled = difference * ops.expand_dims(ops.exp(-self.log_width), -1)  # float16 ends at 65504
        return ops.exp(-ops.sum(ops.square(scaled), axis=-1) / 2)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "width": self.width,
            "initial_width": self.initial_width,
            "train_centers": self.train_centers,
            "centers_initializer": keras.initializers.serialize(self.centers_initializer),
        }

    def multiply_adds(
        self, weight: keras.Variable, input_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> int:
        once: int = math.prod(weight.shape) if weight is self.centers else self.units
        return math.prod(input_shape[1:-1]) * once

    def without_sharing(self, weight: keras.Variable) -> int:
        size: int = math.prod(weight.shape) if weight is self.centers else self.units
        return size
